"""The dispatcher's decisions as pure functions: how large the pools are, how much fits, who is suspect."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from pipeline.config import Execution
from pipeline.sources import ImageRef

STRIKES = 3
# On a cluster without GPUs one front end feeds about this many cores of field.
CPUS_A_FRONT_END = 8
# A refiner leaves a tenth of its core, so that front ends find room on every node, whatever nodes come and go.
REFINER_CPUS, FRONT_END_CPUS = 0.9, 0.1
SPARE = 1.25  # refiners commit too, and a measured time is not the next one
LAZINESS = 1.5  # a pool that is larger than it must be by no more than this, or by one, stays as it is
DRAIN_MS = 10_000
SMOOTHING = 0.1
EXPECTED_BYTES = 2**20
# A call costs driver and refiner two or three milliseconds of their own.
CALL_MS, IMAGES_A_CALL = 500, 8


class Sizes(NamedTuple):
    """Actors a pool."""

    front_ends: int
    refiners: int


class Asks(NamedTuple):
    """What an actor of each pool asks of Ray, from the start of a run to its end."""

    front_end_cpus: float
    front_end_gpus: float
    refiner_cpus: float


class Load(NamedTuple):
    """What the refiners have to keep up with; the times are None until they are measured."""

    refiners: int = 0
    waiting: int = 0  # images that have no refiner yet
    score_ms: float | None = None  # an image of one front end that is kept busy
    refine_ms: float | None = None  # an image of one refiner


Sizing = Callable[[Load], Sizes]


def asks(cpus: float, gpus: float, execution: Execution) -> Asks:
    """So little that all actors of the first pools can be placed at once, on what the cluster may grow to."""
    cpus, gpus = max(cpus, execution.scale_to.cpus), max(gpus, execution.scale_to.gpus)
    sizes = pool_sizes(cpus, gpus, gpus > 0, execution, Load())
    front_end_cpus = min(FRONT_END_CPUS, _share(cpus / 2, sizes.front_ends))
    refiner_cpus = min(REFINER_CPUS, _share(cpus - sizes.front_ends * front_end_cpus, sizes.refiners))
    return Asks(front_end_cpus, min(1.0, _share(gpus, sizes.front_ends)), refiner_cpus)


def _share(whole: float, actors: int) -> float:
    """What each may ask for; Ray counts in ten-thousandths."""
    return math.floor(10_000 * whole / actors) / 10_000


def pool_sizes(cpus: float, gpus: float, on_gpus: bool, execution: Execution, load: Load) -> Sizes:
    """Front ends by GPUs, or by a share of the cores; refiners by what keeps the front ends busy, as cores allow.

    A run that began on GPUs waits for one when the last has left. Actors past the cluster's size wait in Ray, which is
    what an autoscaler sees: a front end for each GPU of ``scale_to`` from the start, refiners as the pace asks for.
    """
    by_hardware = int(max(gpus, execution.scale_to.gpus) if on_gpus else cpus / CPUS_A_FRONT_END)
    front_ends = execution.front_ends or max(1, by_hardware)
    if load.score_ms is not None and load.refine_ms is not None:
        cpus = max(cpus, execution.scale_to.cpus)
    cores = int(cpus - front_ends if on_gpus else cpus)
    least, most = execution.refiners.min, execution.refiners.max
    return Sizes(front_ends, refiners_wanted(load, front_ends, least, max(least, min(cores, most or cores))))


def refiners_wanted(load: Load, front_ends: int, minimum: int, maximum: int) -> int:
    """As many as keep pace with the front ends and soon work off what waits; all that may be until that is known."""
    if load.score_ms is None or load.refine_ms is None:
        return maximum
    pace = SPARE * front_ends * load.refine_ms / load.score_ms
    backlog = load.waiting * load.refine_ms / DRAIN_MS
    wanted = max(minimum, min(maximum, math.ceil(pace + backlog)))
    present = min(maximum, load.refiners)
    return present if wanted <= present <= max(wanted + 1, LAZINESS * wanted) else wanted


def images_a_call(refine_ms: float | None, waiting: int, refiners: int) -> int:
    """How many images a refiner gets at once: several where they take little time and all refiners have enough."""
    if refine_ms is None:
        return 1
    return max(1, min(IMAGES_A_CALL, int(CALL_MS / refine_ms), math.ceil(waiting / max(1, refiners))))


def smoothed(mean: float | None, value: float) -> float:
    """A mean that follows its latest values."""
    return value if mean is None else mean + SMOOTHING * (value - mean)


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
