"""What Prometheus is told, through Ray's own exporter: each name below, with ``ray_`` before it.

Workers count what they do and the dispatcher what came of it; Ray collects from both every ten seconds. To count is a
few microseconds a call or an image.
"""

from collections.abc import Mapping
from typing import NamedTuple

from ray.util.metrics import Counter, Gauge

from pipeline.label import Scored
from pipeline.masks import Row
from pipeline.stopwatch import Stopwatch
from workers.work import Progress

TAGS = ("recipe", "run")  # of all of them: the fingerprint, and the newest run of the command that is at work
COUNTERS: dict[str, tuple[str, str]] = {  # name: its own tag, what it counts
    "densemask_images_total": ("status", "Images that have their row, by its status."),
    "densemask_failures_total": ("reason", "Images without a mask, by the kind of reason."),
    "densemask_shards_total": ("state", "Shards that are committed, or failed and may be tried again."),
    "densemask_commit_retries_total": ("", "Commits that were given to another worker."),
    "densemask_deaths_total": ("pool", "Workers that died."),
    "densemask_stage_seconds_total": ("stage", "Seconds that workers spent in a stage, by the clock."),
    "densemask_gpu_busy_seconds_total": ("", "Seconds that front ends held their GPU."),
    "densemask_bytes_total": ("what", "Bytes of photographs read, of scores sent, of masks written."),
}
GAUGES: dict[str, tuple[str, str]] = {
    "densemask_planned_images": ("", "Images of the shards that the command set out to label."),
    "densemask_queue_images": ("stage", "Images of open shards by where they are."),
    "densemask_queue_bytes": ("", "Bytes of photographs and scores between the pools."),
    "densemask_workers": ("pool", "Workers that are there."),
}


class Labels(NamedTuple):
    """The values of TAGS."""

    recipe: str = ""
    run: str = ""


class _Metrics:
    def __init__(self, labels: Labels, names: Mapping[str, tuple[str, str]], kind: type) -> None:
        self._tags = {name: tag for name, (tag, _) in names.items()}
        self._metrics = {
            name: kind(name, text, (*TAGS, *filter(None, [tag]))).set_default_tags(labels._asdict())
            for name, (tag, text) in names.items()
        }

    def _own(self, name: str, value: str) -> dict[str, str]:
        return {self._tags[name]: value} if value else {}


class Counters(_Metrics):
    """COUNTERS in one process."""

    def __init__(self, labels: Labels) -> None:
        super().__init__(labels, COUNTERS, Counter)

    def add(self, name: str, amount: float = 1, value: str = "") -> None:
        """Adds to a counter, under this value of its own tag."""
        if amount > 0:
            self._metrics[name].inc(amount, self._own(name, value))

    def add_scored(self, watch: Stopwatch, scored: list[Scored]) -> None:
        """Counts a call of a front end."""
        self.add_laps(watch)
        self.add("densemask_gpu_busy_seconds_total", sum(each.scores.gpu_ms for each in scored) / 1000)
        self.add("densemask_bytes_total", sum(len(each.data) for each in scored), "read")
        self.add("densemask_bytes_total", sum(each.scores.logits.nbytes for each in scored), "scores")

    def add_refined(self, watch: Stopwatch, row: Row) -> None:
        """Counts an image of a back end."""
        self.add_laps(watch)
        self.add("densemask_bytes_total", row["bytes_written"], "written")

    def add_laps(self, watch: Stopwatch) -> None:
        """Counts the time that stages took."""
        for stage, seconds in watch.laps.items():
            self.add("densemask_stage_seconds_total", seconds, stage)


class Gauges(_Metrics):
    """GAUGES in the dispatcher's process."""

    def __init__(self, labels: Labels) -> None:
        super().__init__(labels, GAUGES, Gauge)

    def show(self, progress: Progress, planned: int) -> None:
        """Sets all of them."""
        self._set("densemask_planned_images", planned)
        for stage in ("to_score", "scoring", "to_refine", "refining"):
            self._set("densemask_queue_images", getattr(progress, stage), stage)
        self._set("densemask_queue_bytes", progress.waiting_bytes)
        self._set("densemask_workers", progress.front_ends, "front end")
        self._set("densemask_workers", progress.refiners, "back end")

    def _set(self, name: str, amount: float, value: str = "") -> None:
        self._metrics[name].set(amount, self._own(name, value))
