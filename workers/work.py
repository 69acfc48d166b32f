"""What is under way: shards, their images, the queues before the pools, and how far it all is."""

import threading
import time
from collections import Counter, deque
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import ray

from pipeline.plan import Shard
from pipeline.sources import ImageRef
from workers.rules import Attempt


class ShardResult(NamedTuple):
    """A committed shard: images by status, and whether this run wrote it (or another was first)."""

    run: str
    number: int
    statuses: dict[str, int]
    written: bool


@dataclass(frozen=True)
class Progress:
    """Where the work stands; one snapshot."""

    done: int = 0
    failed: int = 0
    to_score: int = 0
    scoring: int = 0
    to_refine: int = 0
    refining: int = 0
    waiting_bytes: int = 0
    front_ends: int = 0
    refiners: int = 0
    deaths: int = 0
    first_done: float | None = None  # time.monotonic() of the first refined image
    last_done: float | None = None

    def with_row(self, ok: bool) -> "Progress":
        """One row later."""
        if not ok:
            return replace(self, done=self.done + 1, failed=self.failed + 1)
        now = time.monotonic()
        return replace(self, done=self.done + 1, first_done=self.first_done or now, last_done=now)

    @property
    def steady_images_per_s(self) -> float | None:
        """From the first refined image to the last."""
        refined = self.done - self.failed
        if self.first_done is None or self.last_done is None or refined < 2:
            return None
        return (refined - 1) / max(self.last_done - self.first_done, 1e-9)


@dataclass(eq=False)
class OpenShard:
    """A shard under way."""

    shard: Shard
    refs: list[ImageRef]
    future: "Future[ShardResult]"
    rows: list[Any]
    statuses: Counter[str] = field(default_factory=Counter)
    reason: str = ""
    commits: int = 0
    since: float = field(default_factory=time.monotonic)
    accepted: threading.Event = field(default_factory=threading.Event)


class Item(NamedTuple):
    """An image of an open shard; with its scores once it has them."""

    attempt: Attempt
    shard: OpenShard
    payload: ray.ObjectRef | None = None
    nbytes: int = 0


class Waiting:
    """The images that wait for a pool, and the bytes of their scores."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def suspect(self) -> bool:
        """Whether the next one is suspect: suspects go first."""
        return bool(self._items) and self._items[0].attempt.suspect

    def add(self, items: Iterable[Item]) -> None:
        """Puts images at the end."""
        for item in items:
            self._items.append(item)
            self.nbytes += item.nbytes

    def give_back(self, item: Item) -> None:
        """Puts an image at the head again."""
        self._items.appendleft(item)
        self.nbytes += item.nbytes

    def take(self, count: int) -> list[Item]:
        """The next images, up to ``count``; a suspect comes alone."""
        taken = [self._items.popleft()]
        while self._items and len(taken) < count and not (taken[0].attempt.suspect or self.suspect):
            taken.append(self._items.popleft())
        self.nbytes -= sum(item.nbytes for item in taken)
        return taken

    def drop(self, opened: OpenShard) -> None:
        """Takes a shard's images out."""
        self._items = deque(item for item in self._items if item.shard is not opened)
        self.nbytes = sum(item.nbytes for item in self._items)
