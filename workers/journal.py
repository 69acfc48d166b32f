"""What happens to a run, told twice: counted for Prometheus, and as events for the log of whoever runs it.

Events are kept until they are asked for. Of a kind that may come in floods the first few are kept, then one at each
power of ten with the count, and what was left out is told at the end.
"""

import queue
import time
from collections import Counter
from typing import Any, NamedTuple

from pipeline import storage
from workers.metrics import Counters, Gauges, Labels
from workers.work import Item, OpenShard, Progress

SHOWN_OF_A_KIND = 20
GAUGE_SECONDS = 2.0
_ENDLESS = ("shard.committed",)  # one a shard, as the dashboard has a task run a shard


class Event(NamedTuple):
    """One thing that happened, with what it happened to; ``facts`` are plain values without anything secret."""

    kind: str
    run: str = ""
    shard: int | None = None
    image: str = ""
    facts: dict[str, Any] = {}  # noqa: RUF012  (nobody changes it)


class Journal:
    """Told by the dispatcher's thread, read by others."""

    def __init__(self, labels: Labels, planned: int = 0) -> None:
        self._counters, self._gauges = Counters(labels), Gauges(labels)
        self._run, self._planned = labels.run, planned
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._kinds: Counter[str] = Counter()
        self._next_gauges = 0.0
        self._pools = (0, 0)

    def events(self) -> list[Event]:
        """Those that have happened since the last call, oldest first."""
        return [self._events.get_nowait() for _ in range(self._events.qsize())]

    def left_out(self) -> list[Event]:
        """An event for each kind of which not all were told."""
        return [
            Event(kind, self._run, facts={"shown": SHOWN_OF_A_KIND, "count": count})
            for kind, count in self._kinds.items()
            if count > SHOWN_OF_A_KIND and kind not in _ENDLESS
        ]

    def row(self, item: Item, status: str, kind: str = "", reason: str = "") -> None:
        """An image has its row."""
        self._counters.add("densemask_images_total", 1, status)
        if status != "ok":
            self._counters.add("densemask_failures_total", 1, kind)
            self._tell(f"image.{status}", item.shard, item.attempt.ref.image_id, reason=reason)

    def committed(self, opened: OpenShard, written: bool) -> None:
        """A shard is committed, by this run or by another that was first."""
        self._counters.add("densemask_shards_total", 1, "committed")
        ok, images = opened.statuses["ok"], len(opened.refs)
        seconds = round(time.monotonic() - opened.since, 3)
        self._tell("shard.committed", opened, images=images, failed=images - ok, seconds=seconds, written=written)

    def failed(self, opened: OpenShard, error: BaseException) -> None:
        """A shard is given up."""
        self._counters.add("densemask_shards_total", 1, "failed")
        self._tell("shard.failed", opened, reason=str(error))

    def commit_retried(self, opened: OpenShard, reason: str) -> None:
        """A shard's commit goes to another worker."""
        self._counters.add("densemask_commit_retries_total")
        self._tell("shard.commit_retried", opened, reason=reason)

    def died(self, pool: str, node: str | None, items: list[Item], charged: bool, reason: str) -> None:
        """A worker is dead, with these images under way; one that was alone is named."""
        self._counters.add("densemask_deaths_total", 1, pool)
        opened, image = (items[0].shard, items[0].attempt.ref.image_id) if len(items) == 1 else (None, "")
        facts = {"pool": pool, "node": node, "images": len(items), "charged": charged, "reason": reason}
        self._tell("worker.died", opened, image, **facts)

    def show(self, progress: Progress) -> None:
        """Where the work stands; as often as one likes."""
        pools = progress.front_ends, progress.refiners
        if pools != self._pools:
            self._pools = pools
            self._tell("pools.resized", None, front_ends=pools[0], refiners=pools[1])
        if time.monotonic() >= self._next_gauges:
            self._next_gauges = time.monotonic() + GAUGE_SECONDS
            self._gauges.show(progress, self._planned)

    def _tell(self, kind: str, opened: OpenShard | None, image: str = "", **facts: Any) -> None:
        self._kinds[kind] += 1
        count = self._kinds[kind]
        if count > SHOWN_OF_A_KIND and kind not in _ENDLESS:
            if not _is_power_of_ten(count):
                return
            facts["count"] = count
        if "reason" in facts:
            facts["reason"] = storage.scrubbed(facts["reason"])
        run, number = (opened.shard.run, opened.shard.number) if opened is not None else (self._run, None)
        self._events.put(Event(kind, run, number, storage.scrubbed(image), facts))


def _is_power_of_ten(count: int) -> bool:
    return str(count).rstrip("0") == "1"
