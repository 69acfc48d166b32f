"""The calls that actors have: what is in them, and how long they take."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError

from workers.pool import Pool, Worker
from workers.work import Item, OpenShard


@dataclass(eq=False)
class Call:
    """A call that an actor has: to score or refine items, or to commit a shard."""

    pool: Pool
    worker: Worker
    items: list[Item]
    outputs: list[ray.ObjectRef] = field(default_factory=list)
    commit: OpenShard | None = None
    placed: float = field(default_factory=time.monotonic)
    image_ms: float | None = None  # the worker's time for each image, once it is done


class Calls:
    """All calls that are not done, by the reference to their small first result."""

    def __init__(self) -> None:
        self._calls: dict[ray.ObjectRef, Call] = {}
        self.images: Counter[Pool] = Counter()
        self.nbytes = 0  # of the scores that refiners have

    def __iter__(self) -> Iterator[ray.ObjectRef]:
        return iter(self._calls)

    def __contains__(self, reference: ray.ObjectRef) -> bool:
        return reference in self._calls

    def __getitem__(self, reference: ray.ObjectRef) -> Call:
        return self._calls[reference]

    def add(self, reference: ray.ObjectRef, call: Call) -> None:
        """Notes a call that a worker has been given."""
        self._calls[reference] = call
        call.worker.calls.add(reference)
        self._count(call, 1)

    def release(self, reference: ray.ObjectRef) -> Call:
        """Takes a call from its worker, whatever came of it."""
        call = self._calls.pop(reference)
        worker, now = call.worker, time.monotonic()
        # Behind another call it waited until that one's end; and a worker's first call warms it up.
        if worker.last_end is not None and call.items:
            call.image_ms = 1000 * (now - max(call.placed, worker.last_end)) / len(call.items)
        worker.last_end = now
        worker.calls.discard(reference)
        worker.has_suspect = False
        self._count(call, -1)
        call.pool.released(worker)
        return call

    def settle(self, worker: Worker) -> tuple[list[tuple[Call, Any]], list[Call]]:
        """Takes all calls from a dead worker: those that it had finished, with their results, and the rest."""
        ray.wait(list(worker.calls), num_returns=len(worker.calls), timeout=10, fetch_local=False)
        finished: list[tuple[Call, Any]] = []
        gone: list[Call] = []
        for reference in list(worker.calls):
            call = self.release(reference)
            try:
                finished.append((call, ray.get(reference, timeout=1)))
            except (RayError, TimeoutError):
                gone.append(call)
        return finished, gone

    def _count(self, call: Call, sign: int) -> None:
        self.images[call.pool] += sign * len(call.items)
        self.nbytes += sign * sum(item.nbytes for item in call.items)
