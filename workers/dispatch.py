"""The dispatcher: a thread that schedules shards over the two pools, for callers in other threads."""

import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from pipeline.errors import RunError
from pipeline.plan import Shard
from pipeline.sources import ImageRef
from workers.journal import Journal
from workers.metrics import Labels
from workers.pool import Pool
from workers.rules import Sizing
from workers.scheduler import TICK_SECONDS, Scheduler
from workers.work import OpenShard, Progress, ShardResult

LOW_WATER_BATCHES = 8


class Dispatcher:
    """Labels shards. ``submit`` from any thread; results come as futures."""

    def __init__(
        self,
        front_ends: Pool,
        refiners: Pool,
        batch_size: int,
        cap_bytes: int,
        sizing: Sizing,
        journal: Journal | None = None,
    ) -> None:
        self._pools = front_ends, refiners
        self.journal = journal or Journal(Labels())
        self._scheduler = Scheduler(front_ends, refiners, batch_size, cap_bytes, sizing, self.journal)
        self._inbox: queue.SimpleQueue[OpenShard] = queue.SimpleQueue()
        self._admission = threading.Lock()
        self._low_water = batch_size * LOW_WATER_BATCHES
        self._stop = threading.Event()
        self._ended: RunError | None = None
        self._thread = threading.Thread(target=self._loop, name="dispatcher", daemon=True)
        self._thread.start()

    @property
    def progress(self) -> Progress:
        """Where the work stands."""
        return self._scheduler.progress

    @property
    def ended(self) -> bool:
        """Whether it takes no more shards."""
        return self._ended is not None

    @contextmanager
    def admission(self) -> Iterator[None]:
        """Holds the caller until the images at hand run low, one caller at a time: a shard that is looked at and
        submitted in here has not been waiting while another run committed it."""
        with self._admission:
            while self._ended is None and self.progress.to_score > self._low_water:
                time.sleep(TICK_SECONDS / 4)
            yield

    def submit(self, shard: Shard, refs: list[ImageRef]) -> "Future[ShardResult]":
        """Labels and commits one shard. The future raises StorageError or RunError where that cannot be done."""
        opened = OpenShard(shard, refs, Future(), [None] * len(refs))
        self._inbox.put(opened)
        while not opened.accepted.wait(TICK_SECONDS):
            if self._ended is not None:
                raise self._ended
        return opened.future

    def close(self) -> None:
        """Stops; shards under way are given up."""
        self._stop.set()
        self._thread.join()
        for pool in self._pools:
            pool.close()

    def _loop(self) -> None:
        try:
            while not self._stop.is_set():
                self._accept()
                self._scheduler.step()
            self._ended = RunError("the run was stopped")
        except RunError as error:
            self._ended = error
        except BaseException as error:
            self._ended = RunError(f"the dispatcher failed: {error!r}")
            raise
        finally:
            self._scheduler.give_up(self._ended or RunError("the dispatcher ended"))

    def _accept(self) -> None:
        """Takes on what was submitted; waits a moment for it where there is nothing else to do."""
        try:
            opened = self._inbox.get(timeout=TICK_SECONDS) if self._scheduler.idle else self._inbox.get_nowait()
        except queue.Empty:
            return
        self._scheduler.add(opened)
        opened.accepted.set()
