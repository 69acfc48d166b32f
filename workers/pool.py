"""A pool of actors that replaces its dead."""

from collections.abc import Callable
from typing import Any

import ray

from pipeline.errors import RunError
from workers import cluster

MAX_FAILED_STARTS = 3


class Worker:
    """One actor, the node it is on (None until it is ready) and the calls that it has."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.node: str | None = None
        self.calls: set[ray.ObjectRef] = set()
        self.has_suspect = False


class Pool:
    """Actors of one kind, held for the whole run. ``start`` makes one; they have no restarts of their own."""

    def __init__(self, name: str, start: Callable[[], Any], size: int) -> None:
        self.name = name
        self._start = start
        self._size = size
        self._starting: dict[ray.ObjectRef, Worker] = {}
        self._failed_starts = 0
        self.workers: list[Worker] = []
        self.deaths = 0
        self.fill()

    def fill(self) -> None:
        """Starts actors until the pool is full again."""
        while len(self.workers) + len(self._starting) < self._size:
            worker = Worker(self._start())
            self._starting[worker.actor.ready.remote()] = worker

    @property
    def starting(self) -> list[ray.ObjectRef]:
        """One reference an actor that is not ready yet."""
        return list(self._starting)

    def started(self, ready: ray.ObjectRef) -> bool:
        """Takes a ``starting`` reference that has come; False if it is none of this pool's.

        Raises RunError when actors of the pool die again and again before they are ready.
        """
        worker = self._starting.pop(ready, None)
        if worker is None:
            return False
        try:
            worker.node = ray.get(ready)
        except ray.exceptions.RayError as error:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise RunError(f"{self.name} actors do not start: {last_line(error)}") from error
        else:
            self._failed_starts = 0
            self.workers.append(worker)
        self.fill()
        return True

    def buried(self, worker: Worker, preempted: bool) -> bool:
        """Replaces a dead worker. Whether its death is its own fault: not, when its node went with it."""
        self.deaths += 1
        self.workers.remove(worker)
        ray.kill(worker.actor)
        self.fill()
        return not preempted and worker.node not in cluster.dead_nodes()

    def least_loaded(self, limit: int) -> Worker | None:
        """The worker with the fewest calls, if fewer than ``limit``; one that has a suspect takes no company."""
        free = [worker for worker in self.workers if not worker.has_suspect and len(worker.calls) < limit]
        return min(free, key=lambda worker: len(worker.calls), default=None)

    def close(self) -> None:
        """Ends all actors."""
        for worker in [*self.workers, *self._starting.values()]:
            ray.kill(worker.actor)


def last_line(error: BaseException) -> str:
    """The line of a worker's error that says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
