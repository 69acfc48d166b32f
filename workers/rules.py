"""The dispatcher's decisions as pure functions: how large the pools are, how much fits, who is suspect."""

from dataclasses import dataclass, replace
from typing import NamedTuple

from pipeline.config import Execution
from pipeline.sources import ImageRef

STRIKES = 3
# On a cluster without GPUs one front end feeds about this many cores of field.
CPUS_A_FRONT_END = 8
EXPECTED_BYTES = 2**20


class PoolSizes(NamedTuple):
    """Actors a pool, and what each asks of Ray."""

    front_ends: int
    front_end_cpus: float
    front_end_gpus: float
    refiners: int
    refiner_cpus: float


def pool_sizes(cpus: float, gpus: float, execution: Execution) -> PoolSizes:
    """Front ends by GPUs, or by a share of the cores; refiners by cores. All of them fit at once."""
    front_ends = execution.front_ends or int(gpus) or max(1, int(cpus / CPUS_A_FRONT_END))
    spare = cpus - front_ends if gpus else cpus
    refiners = execution.refiners or max(1, int(spare))
    share = min(1.0, int(100 * cpus / (front_ends + refiners)) / 100)
    return PoolSizes(front_ends, share, min(1.0, gpus / front_ends), refiners, share)


@dataclass(frozen=True)
class Attempt:
    """One image on its way, with its history."""

    ref: ImageRef
    position: int  # in its shard
    suspect: bool = False  # was there when a worker died: now tried alone
    strikes: int = 0


def after_death(attempts: list[Attempt], charged: bool) -> list[Attempt]:
    """The images that a worker had when it died.

    One that was alone takes a strike; of several each becomes a suspect; a death that is not the worker's own (its
    node was lost or preempted) is charged to no image.
    """
    if not charged:
        return attempts
    strike = 1 if len(attempts) == 1 else 0
    return [replace(attempt, suspect=True, strikes=attempt.strikes + strike) for attempt in attempts]


def after_error(attempt: Attempt) -> Attempt:
    """An image whose processing raised what no image should raise."""
    return replace(attempt, suspect=True, strikes=attempt.strikes + 1)


def is_quarantined(attempt: Attempt) -> bool:
    """Whether the image has had its chances."""
    return attempt.strikes >= STRIKES


def may_score(waiting_bytes: int, scoring_images: int, mean_bytes: float, cap_bytes: int) -> bool:
    """Whether another batch may go to a front end: what is between the pools, and what will be, stays below the cap."""
    expected = waiting_bytes + scoring_images * mean_bytes
    return expected == 0 or expected < cap_bytes


def is_systematic(quarantined: int, images: int) -> bool:
    """Whether so many of a shard's images fail their workers that the fault is hardly theirs: then the shard fails,
    and they are not written off."""
    return quarantined > 10 and quarantined > images / 2
