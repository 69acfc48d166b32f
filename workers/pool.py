"""A pool of actors that replaces its dead, grows and shrinks."""

from collections.abc import Callable
from typing import Any

import ray

from pipeline.errors import RunError
from workers import cluster

MAX_FAILED_STARTS = 3


class Worker:
    """One actor, the node it is on (None until it is ready) and the calls that it has."""

    def __init__(self, actor: Any, lost_before: set[str]) -> None:
        self.actor = actor
        self.lost_before = lost_before  # the nodes that were gone when it was asked for
        self.node: str | None = None
        self.calls: set[ray.ObjectRef] = set()
        self.has_suspect = False
        self.last_end: float | None = None  # time.monotonic() of the end of its latest call


class Pool:
    """Actors of one kind, none at first. ``start`` makes one; they have no restarts of their own."""

    def __init__(self, name: str, start: Callable[[], Any]) -> None:
        self.name = name
        self.size = 0
        self.workers: list[Worker] = []
        self.deaths = 0
        self._start = start
        self._starting: dict[ray.ObjectRef, Worker] = {}
        self._retired: set[Worker] = set()
        self._failed_starts = 0

    def resize(self, size: int) -> None:
        """Grows by new actors. Shrinks by those that are not ready, then by the least busy, which end with their calls:
        no image is lost or charged."""
        self.size = size
        self._fill()
        while self._starting and len(self.workers) + len(self._starting) > size:
            _, worker = self._starting.popitem()
            ray.kill(worker.actor)
        for worker in sorted(self.workers, key=lambda worker: len(worker.calls))[: max(0, len(self.workers) - size)]:
            self.workers.remove(worker)
            self._retired.add(worker)
            self.released(worker)

    def _fill(self) -> None:
        """Starts actors until the pool is full again."""
        missing = self.size - len(self.workers) - len(self._starting)
        lost = cluster.dead_nodes() if missing > 0 else set()
        for _ in range(missing):
            worker = Worker(self._start(), lost)
            self._starting[worker.actor.ready.remote()] = worker

    @property
    def starting(self) -> list[ray.ObjectRef]:
        """One reference an actor that is not ready yet; where nodes have left it may never be."""
        return list(self._starting)

    def started(self, ready: ray.ObjectRef) -> bool:
        """Takes a ``starting`` reference that has come; False if it is none of this pool's.

        Raises RunError when actors of the pool die again and again before they are ready, on nodes that live.
        """
        worker = self._starting.pop(ready, None)
        if worker is None:
            return False
        try:
            worker.node = ray.get(ready)
        except ray.exceptions.RayError as error:
            self._failed_starts += cluster.dead_nodes() <= worker.lost_before
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise RunError(f"{self.name} actors do not start: {last_line(error)}") from error
        else:
            self._failed_starts = 0
            self.workers.append(worker)
        self._fill()
        return True

    def released(self, worker: Worker) -> None:
        """Ends a retired worker whose last call is done. What it has made stays in the object store."""
        if worker in self._retired and not worker.calls:
            self._retired.discard(worker)
            ray.kill(worker.actor)

    def buried(self, worker: Worker, preempted: bool) -> bool:
        """Replaces a dead worker. Whether its death is its own fault: not, when its node went with it."""
        self.deaths += 1
        if worker in self._retired:
            self._retired.discard(worker)
        else:
            self.workers.remove(worker)
        ray.kill(worker.actor)
        self._fill()
        return not preempted and worker.node not in cluster.dead_nodes()

    def least_loaded(self, limit: int) -> Worker | None:
        """The worker with the fewest calls, if fewer than ``limit``; one that has a suspect takes no company."""
        free = [worker for worker in self.workers if not worker.has_suspect and len(worker.calls) < limit]
        return min(free, key=lambda worker: len(worker.calls), default=None)

    def close(self) -> None:
        """Ends all actors."""
        for worker in [*self.workers, *self._retired, *self._starting.values()]:
            ray.kill(worker.actor)


def last_line(error: BaseException) -> str:
    """The line of a worker's error that says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
