"""A night among the nights before it: what is usual, and what has shifted. Pure functions over a few numbers a night.

What is usual is the median; how far a night may lie from it is told in spreads, a spread being the median absolute
deviation, scaled to be a standard deviation where the nights are Gaussian (Rousseeuw and Croux 1993), but no less than
a floor. Nights of other recipes are shown, not compared: that a new recipe gives other masks is no news.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from pipeline.config import Trend

MAD_TO_DEVIATION = 1.4826
MEASURES = ("images", "failures", "confidence", "entropy", "changed", "golden_miou")
AREA = "area"
TREND_SCHEMA = pa.schema(
    [
        ("night", pa.string()),
        ("recipe", pa.string()),
        ("measure", pa.string()),  # one of MEASURES, or AREA
        ("class", pa.string()),  # null but for AREA
        ("value", pa.float64()),  # null where the night has none
        ("usual", pa.float64()),  # the median that the night was held against; null where there were too few nights
        ("spread", pa.float64()),
        ("shifted", pa.bool_()),
    ]
)


class Shift(BaseModel):
    """A measure of a night that lies too far from what is usual."""

    model_config = ConfigDict(frozen=True)

    measure: str  # one of MEASURES, or AREA
    name: str | None  # the class, for AREA
    value: float
    usual: float
    spread: float


class Night(BaseModel):
    """What came of one night. Means are over the night's masks, and None where there are none."""

    model_config = ConfigDict(frozen=True)

    night: str  # when it began, UTC, as in 2026-11-30T02-00-00Z
    recipe: str
    reports: tuple[str, ...]  # the report pages of the runs that were finished in this night
    images: int
    failed: int
    new: int
    altered: int  # known images with another etag
    gone: int  # images that the source held the night before
    confidence: float | None
    entropy: float | None
    changed: float | None  # the share of pixels that the field changed
    golden_miou: float | None
    golden_classes: int | None
    areas: dict[str, float]  # each class's share of an image
    error: str | None  # why the night ended red
    shifts: tuple[Shift, ...] = ()


class Usual(NamedTuple):
    """What earlier nights say of a measure."""

    middle: float
    spread: float


def values(night: Night) -> dict[tuple[str, str | None], float | None]:
    """The night's numbers by measure and class."""
    failures = night.failed / night.images if night.images else None
    plain = {"images": float(night.images), "failures": failures}
    plain |= {name: getattr(night, name) for name in MEASURES[2:]}
    return {(name, None): plain[name] for name in MEASURES} | {(AREA, name): area for name, area in night.areas.items()}


def usual(history: Sequence[float], floor: float) -> Usual:
    """The median of at least one night, and the spread around it, at least ``floor``."""
    middle = float(np.median(history))
    deviation = MAD_TO_DEVIATION * float(np.median(np.abs(np.asarray(history) - middle)))
    return Usual(middle, max(deviation, floor))


def expected(tonight: Night, earlier: Sequence[Night], trend: Trend) -> dict[tuple[str, str | None], Usual]:
    """What was usual, for each measure of which enough of the last nights have a value."""
    alike = [values(night) for night in earlier[-trend.nights :] if night.recipe == tonight.recipe]
    found = {}
    for key in values(tonight):
        known = [value for night in alike if (value := night.get(key)) is not None]
        if len(known) >= trend.at_least:
            floor = getattr(trend.floors, key[0])
            found[key] = usual(known, max(1.0, floor * float(np.median(known))) if key[0] == "images" else floor)
    return found


def shifts(tonight: Night, earlier: Sequence[Night], trend: Trend) -> list[Shift]:
    """The measures of tonight that lie more than ``threshold`` spreads from the median, the furthest first.

    ``earlier``: the nights before, the oldest first.
    """
    found = []
    tonights = values(tonight)
    for (measure, name), (middle, spread) in expected(tonight, earlier, trend).items():
        value = tonights[measure, name]
        if value is not None and abs(value - middle) > trend.threshold * spread:
            found.append(Shift(measure=measure, name=name, value=value, usual=middle, spread=spread))
    return sorted(found, key=lambda shift: -_distance(shift))


def _distance(shift: Shift) -> float:
    return abs(shift.value - shift.usual) / shift.spread if shift.spread else float("inf")


def table(nights: Sequence[Night], trend: Trend) -> pa.Table:
    """The nights as a table of TREND_SCHEMA: a row a night, measure and class; what was usual is told of the last."""
    rows = []
    *earlier, tonight = nights
    held = expected(tonight, earlier, trend)
    for night in nights:
        shifted = {(shift.measure, shift.name) for shift in night.shifts}
        for (measure, name), value in values(night).items():
            middle, spread = held.get((measure, name), (None, None)) if night is tonight else (None, None)
            rows.append((night.night, night.recipe, measure, name, value, middle, spread, (measure, name) in shifted))
    return pa.table(
        [pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), TREND_SCHEMA.types, strict=True)],
        TREND_SCHEMA,
    )


def words(shift: Shift) -> str:
    """The shift in one line."""
    if shift.measure == "images":
        value, middle = f"{shift.value:,.0f}", f"{shift.usual:,.0f}"
    elif shift.measure in ("failures", "changed", AREA):
        value, middle = f"{shift.value:.1%}", f"{shift.usual:.1%}"
    else:
        value, middle = f"{shift.value:.3f}", f"{shift.usual:.3f}"
    return f"{label(shift.measure, shift.name)}: {value}, usually {middle}"


def label(measure: str, name: str | None) -> str:
    """The measure in words."""
    titles = {
        "images": "images", "failures": "failed images", "confidence": "confidence", "entropy": "entropy",
        "changed": "changed by the field", "golden_miou": "mIoU on the golden set",
    }  # fmt: skip
    return f"area of {name}" if measure == AREA else titles[measure]
