"""How long the stages of a call take, by the clock and by the processor."""

import time
from collections import defaultdict


class Stopwatch:
    """Runs from its making, in the thread that made it.

    Processor time is that thread's own, so two calls in one process are told apart; what Ray, a store's client or the
    operating system do in threads of theirs is not in it.
    """

    def __init__(self) -> None:
        self.laps: defaultdict[str, float] = defaultdict(float)  # seconds by stage
        self.elsewhere_s = 0.0  # processor seconds of helper threads
        self._started = self._lap = time.perf_counter()
        self._cpu = time.thread_time()

    def lap(self, stage: str) -> None:
        """Ends a stage: the time since the last one ended is its."""
        now = time.perf_counter()
        self.laps[stage] += now - self._lap
        self._lap = now

    @property
    def ms(self) -> float:
        """Milliseconds by the clock so far."""
        return (time.perf_counter() - self._started) * 1000

    @property
    def cpu_ms(self) -> float:
        """Milliseconds of processor so far."""
        return (time.thread_time() - self._cpu + self.elsewhere_s) * 1000
