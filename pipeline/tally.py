"""A run's rows -> numbers: one pass over its shards, in memory that does not grow with its strings or masks."""

from collections import Counter
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import masks
from pipeline.cost import Usage
from pipeline.metrics import Counts

IMAGE_SCHEMA = pa.schema(
    [
        *(masks.SCHEMA.field(name) for name in ("image_id", "uri", "shard", "status", "error", "height", "width")),
        ("miou", pa.float64()),  # null without truth
        ("miou_front", pa.float64()),
        ("boundary_miou", pa.float64()),
        ("pixel_accuracy", pa.float64()),
        *(masks.SCHEMA.field(name) for name in ("confidence", "entropy", "changed", "labels")),
        *masks.TAKEN,
    ]
)
COUNTED = ("refined", "front", "boundary")
COLUMNS = tuple(name for name in masks.SCHEMA.names if name not in ("mask", "etag"))
# Usage's fields: the column that each is the mean of, and in how many of its units
USED = {
    "front_end_core_s": ("front_end_cpu_ms", 1000),
    "front_end_gpu_s": ("front_end_gpu_ms", 1000),
    "back_end_core_s": ("back_end_cpu_ms", 1000),
    "bytes_read": ("bytes_read", 1),
    "bytes_scores": ("bytes_scores", 1),
    "bytes_written": ("bytes_written", 1),
}
MEASURES = ("miou", "miou_front", "confidence", "entropy", "changed", "front_end_ms", "back_end_ms")
PROBLEM_COLUMNS = ("image_id", "status", "error")
PROBLEMS_KEPT = 100


class Tally:
    """What a run adds up to. Rows go in a shard at a time; a few numbers an image stay, and the first problems."""

    def __init__(self, classes: int) -> None:
        self.statuses: Counter[str] = Counter()
        self.counts = {name: Counts.zero(classes) for name in COUNTED}
        self.with_truth = 0
        self.images_with = np.zeros(classes, np.int64)  # images whose mask holds the class
        self._areas = np.zeros(classes)  # the sum of the images' shares
        self._with_areas = 0
        self.problems: list[dict[str, str]] = []  # failed images, and those whose truth could not be used
        self.problem_count = 0
        self._measures: dict[str, list[np.ndarray]] = {name: [] for name in MEASURES}
        self._used: dict[str, tuple[float, int]] = dict.fromkeys(USED, (0.0, 0))  # a sum, and over how many images

    def add(self, rows: pa.Table) -> pa.Table:
        """Takes in rows (with at least COLUMNS) and returns the table of IMAGE_SCHEMA made of them."""
        classes = len(self.images_with)
        matched = match(rows, classes)
        for name, (_, pixels) in matched.items():
            self.counts[name] += Counts(*pixels.sum(1))
        images = image_table(rows, matched)
        self.with_truth += len(images) - images["miou"].null_count
        self.statuses.update(map(str, rows["status"].to_pylist()))
        labels = pc.list_flatten(rows["labels"]).to_numpy()
        self.images_with += np.bincount(labels, minlength=classes)[:classes]
        self._add_areas(rows, classes)
        problems = images.select(PROBLEM_COLUMNS).filter(pc.is_valid(images["error"]))
        self.problem_count += len(problems)
        self.problems += problems.slice(0, PROBLEMS_KEPT - len(self.problems)).to_pylist()
        for name in MEASURES:
            known = images[name].drop_null().to_numpy().astype(np.float32)
            self._measures[name].append(known)
        for name, (column, unit) in USED.items():
            total, count = self._used[name]
            used = images[column].drop_null()
            self._used[name] = total + (pc.sum(used).as_py() or 0) / unit, count + len(used)
        return images

    def usage(self) -> Usage:
        """What an image took on average."""
        return Usage(**{name: total / count if count else None for name, (total, count) in self._used.items()})

    def _add_areas(self, rows: pa.Table, classes: int) -> None:
        if "areas" not in rows.column_names:  # rows of before there were any
            return
        measured = rows.filter(pc.is_valid(rows["areas"]))
        labels, shares = (pc.list_flatten(measured[name]).to_numpy() for name in ("labels", "areas"))
        self._areas += np.bincount(labels, weights=shares, minlength=classes)[:classes]
        self._with_areas += len(measured)

    @property
    def areas(self) -> np.ndarray:
        """Each class's share of an image, the mean over the images: float64 [C]; nan where no image has shares."""
        return self._areas / self._with_areas if self._with_areas else np.full(len(self._areas), np.nan)

    def measure(self, name: str) -> np.ndarray:
        """One of MEASURES for the images that have it: float32 [N], in the order of the rows."""
        return np.concatenate([np.empty(0, np.float32), *self._measures[name]])


class Matched(NamedTuple):
    """Which rows hold counts, bool [N], and the counts of those M rows: int64 [3, M, C], tp, fp and fn."""

    valid: np.ndarray
    pixels: np.ndarray


def match(rows: pa.Table, classes: int) -> dict[str, Matched]:
    """The rows' columns of counts, by name."""
    return {name: _pixels(rows[name], classes) for name in COUNTED}


def _pixels(column: pa.ChunkedArray, classes: int) -> Matched:
    known = column.drop_null()
    pixels = [pc.list_flatten(pc.struct_field(known, name)).to_numpy() for name in ("tp", "fp", "fn")]
    return Matched(column.is_valid().to_numpy(), np.stack(pixels).reshape(3, -1, classes))


def image_table(rows: pa.Table, matched: dict[str, Matched]) -> pa.Table:
    """The rows as a table of IMAGE_SCHEMA, with every image's own measures in place of its counts."""
    measured = {
        "miou": mious(matched["refined"]),
        "miou_front": mious(matched["front"]),
        "boundary_miou": mious(matched["boundary"]),
        "pixel_accuracy": _accuracy(matched["refined"]),
    }
    columns = [measured[name] if name in measured else rows[name] for name in IMAGE_SCHEMA.names]
    return pa.table(columns, schema=IMAGE_SCHEMA)


def mious(matched: Matched) -> pa.Array:
    """Each row's mean IoU over the classes in its truth: float64 [N], null without truth."""
    tp, fp, fn = matched.pixels
    present = tp + fn > 0
    iou = np.divide(tp, tp + fp + fn, out=np.zeros(tp.shape), where=present)
    return _spread(matched.valid, iou.sum(1), present.sum(1))


def _accuracy(matched: Matched) -> pa.Array:
    """Each row's share of counted pixels that are right: float64 [N], null without truth."""
    tp, _, fn = matched.pixels
    return _spread(matched.valid, tp.sum(1), (tp + fn).sum(1))


def _spread(valid: np.ndarray, part: np.ndarray, whole: np.ndarray) -> pa.Array:
    """part / whole [M] at the valid places of N; null elsewhere and where whole is nothing."""
    ratios = np.full(len(valid), np.nan)
    ratios[valid] = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
    return pa.array(ratios, pa.float64(), from_pandas=True)
