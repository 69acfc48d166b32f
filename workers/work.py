"""What is under way: shards, their images, the calls that actors have, and how far it all is."""

import threading
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import ray

from pipeline.plan import Shard
from pipeline.sources import ImageRef
from workers.pool import Pool, Worker
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
    deaths: int = 0
    first_done: float | None = None  # time.monotonic() of the first refined image
    last_done: float | None = None

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
    accepted: threading.Event = field(default_factory=threading.Event)


class Item(NamedTuple):
    """An image of an open shard; with its scores once it has them."""

    attempt: Attempt
    shard: OpenShard
    payload: ray.ObjectRef | None = None
    nbytes: int = 0


@dataclass(eq=False)
class Call:
    """A call that an actor has: to score or refine items, or to commit a shard."""

    pool: Pool
    worker: Worker
    items: list[Item]
    outputs: list[ray.ObjectRef] = field(default_factory=list)
    commit: OpenShard | None = None
