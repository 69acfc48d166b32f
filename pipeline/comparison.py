"""Two recipes' masks of the same images, held against each other: a shard at a time, in memory that does not grow."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from pipeline import archive, images, masks
from pipeline.metrics import Counts
from pipeline.tally import COUNTED, match, mious

KEY = ("uri", "part", "etag")
ROW_COLUMNS = ("image_id", "uri", "status", "mask", *COUNTED)
_PAIR_FIELDS: list[tuple[str, pa.DataType]] = [
    ("image_id", pa.string()),
    ("uri", pa.string()),
    ("old_run", pa.string()),
    ("old_shard", pa.int32()),
    ("run", pa.string()),
    ("shard", pa.int32()),
    ("old_status", pa.string()),
    ("status", pa.string()),
    ("churn", pa.float64()),  # the share of pixels whose class differs; null without two masks of one size
    ("old_miou", pa.float64()),  # both null unless both rows have counts
    ("miou", pa.float64()),
]
IMAGE_SCHEMA = pa.schema(_PAIR_FIELDS)


class Comparison(BaseModel):
    """Two recipes in numbers. Means over nothing are None."""

    model_config = ConfigDict(frozen=True)

    old: str
    recipe: str
    report: str  # where comparison.html is
    images: int  # with a row of both recipes
    missing: int  # with a row of the old one alone
    compared: int  # with two masks of one size
    changed: int  # of those, with at least one pixel of another class
    churn: float | None  # share of the compared pixels whose class differs
    old_failed: int
    failed: int
    masks_lost: int  # images that had a mask and have none
    with_truth: int  # images with counts in both rows; the mIoUs are over them
    truth_lost: int  # images with counts in the old row alone, though both have a mask
    classes: int  # how many classes the new mIoU is over
    old_miou: float | None
    miou: float | None


class Compared(NamedTuple):
    """Some images, compared."""

    pixels: np.ndarray  # int64 [old classes, new classes]
    old: Counts
    new: Counts
    truth_lost: int
    images: pa.Table  # of IMAGE_SCHEMA


def pairs(old: pa.Table, new: pa.Table) -> pa.Table:
    """The images that both archives (tables of `archive.SCHEMA`) have with the same etag, with both their places."""
    before = old.select([*KEY, *archive.PLACE_COLUMNS])
    before = before.rename_columns([*KEY, *(f"old_{name}" for name in archive.PLACE_COLUMNS)])
    after = new.select([*KEY, *archive.PLACE_COLUMNS])
    return after.join(before, list(KEY), join_type="inner").drop_columns(list(KEY))


def missing(old: pa.Table, new: pa.Table) -> int:
    """How many images of the old archive have no row in the new one, whatever their etag."""
    keys = ["uri", "part"]
    return int(old.select(keys).join(new.select(keys), keys, join_type="left anti").num_rows)


def shard_pairs(table: pa.Table) -> Iterator[pa.Table]:
    """The pairs of one new shard after the other."""
    for _, _, members in archive.by_shard(table):
        yield members


def compare_shard(
    output: str, old: str, new: str, members: pa.Table, names: tuple[Sequence[str], Sequence[str]]
) -> Compared:
    """The images of some pairs that lie in one new shard; ``names`` are the old classes and the new."""
    before, ordered = [], []
    for run, shard, part in archive.by_shard(members, ("old_run", "old_shard", "old_row")):
        before.append(masks.read_shard(output, old, run, shard, ROW_COLUMNS).take(part["old_row"]))
        ordered.append(part)
    places = pa.concat_tables(ordered)
    run, shard = places["run"][0].as_py(), places["shard"][0].as_py()
    after = masks.read_shard(output, new, run, shard, ROW_COLUMNS).take(places["row"])
    return compare_rows(pa.concat_tables(before), after, places, names)


def compare_rows(
    before: pa.Table, after: pa.Table, places: pa.Table, names: tuple[Sequence[str], Sequence[str]]
) -> Compared:
    """Rows of ROW_COLUMNS, the same images in the same order."""
    same = np.array([[one == other for other in names[1]] for one in names[0]])
    pixels, churn = np.zeros(same.shape, np.int64), []
    for old, new in zip(before["mask"].to_pylist(), after["mask"].to_pylist(), strict=True):
        changes = None if old is None or new is None else crossed(old["bytes"], new["bytes"], same.shape)
        if changes is not None:
            pixels += changes
        churn.append(None if changes is None else share_changed(changes, same))
    counts = [match(rows, len(classes))["refined"] for rows, classes in zip((before, after), names, strict=True)]
    both = counts[0].valid & counts[1].valid
    kept = [matched.pixels[:, both[matched.valid]] for matched in counts]
    measured = [
        pa.array(np.where(both, mious(matched).to_numpy(zero_copy_only=False), np.nan), from_pandas=True)
        for matched in counts
    ]
    has_mask = np.array([share is not None for share in churn], bool)
    columns = [
        after["image_id"], after["uri"], places["old_run"], places["old_shard"], places["run"], places["shard"],
        before["status"], after["status"], pa.array(churn, pa.float64()), *measured,
    ]  # fmt: skip
    return Compared(
        pixels,
        Counts(*kept[0].sum(1)),
        Counts(*kept[1].sum(1)),
        int((counts[0].valid & ~counts[1].valid & has_mask).sum()),
        pa.table(columns, schema=IMAGE_SCHEMA),
    )


def crossed(old: bytes, new: bytes, shape: tuple[int, int]) -> np.ndarray | None:
    """How many pixels are of each old class and each new one, of two mask PNGs: int64 [Co, Cn]; None for two sizes."""
    before, after = images.decode_mask(old), images.decode_mask(new)
    if before.shape != after.shape:
        return None
    joint = before.ravel().astype(np.int64) * shape[1] + after.ravel()
    return np.bincount(joint, minlength=shape[0] * shape[1]).reshape(shape)


def share_changed(pixels: np.ndarray, same: np.ndarray) -> float | None:
    """The share of the pixels (int64 [Co, Cn]) outside ``same`` (bool [Co, Cn]); None of no pixels."""
    total = int(pixels.sum())
    return float(pixels[~same].sum() / total) if total else None


class Totals:
    """What a comparison adds up to."""

    def __init__(self, old_classes: Sequence[str], classes: Sequence[str]) -> None:
        self.old_classes, self.classes = old_classes, classes
        self.same = np.array([[one == other for other in classes] for one in old_classes])
        self.pixels = np.zeros(self.same.shape, np.int64)
        self.old, self.new = Counts.zero(len(old_classes)), Counts.zero(len(classes))
        self.images = self.compared = self.changed = self.old_failed = self.failed = self.masks_lost = 0
        self.with_truth = self.truth_lost = 0

    def add(self, compared: Compared) -> None:
        """Takes in the images of a shard."""
        found = compared.images
        had, has = (pc.equal(found[name], "ok").to_numpy() for name in ("old_status", "status"))
        self.pixels += compared.pixels
        self.old += compared.old
        self.new += compared.new
        self.images += len(found)
        self.compared += len(found) - found["churn"].null_count
        self.changed += pc.sum(pc.greater(found["churn"], 0)).as_py() or 0
        self.old_failed += int((~had).sum())
        self.failed += int((~has).sum())
        self.masks_lost += int((had & ~has).sum())
        self.with_truth += len(found) - found["miou"].null_count
        self.truth_lost += compared.truth_lost

    def comparison(self, old: str, recipe: str, missing: int, report: str) -> Comparison:
        """The numbers."""
        return Comparison(
            old=old, recipe=recipe, report=report, images=self.images, missing=missing, compared=self.compared,
            changed=self.changed, churn=share_changed(self.pixels, self.same), old_failed=self.old_failed,
            failed=self.failed, masks_lost=self.masks_lost, with_truth=self.with_truth, truth_lost=self.truth_lost,
            classes=self.new.classes, old_miou=self.old.miou, miou=self.new.miou,
        )  # fmt: skip

    def by_class(self) -> list[dict[str, Any]]:
        """A row a class of either recipe: its IoUs, its areas, and the share of its old pixels that left it."""
        rows = []
        for name in dict.fromkeys([*self.old_classes, *self.classes]):
            old = self.old_classes.index(name) if name in self.old_classes else None
            new = self.classes.index(name) if name in self.classes else None
            area = int(self.pixels[old].sum()) if old is not None else 0
            stayed = int(self.pixels[old, new]) if old is not None and new is not None else 0
            rows.append(
                {
                    "name": name,
                    "class_id": new,
                    "old_iou": _known(self.old.iou, old),
                    "iou": _known(self.new.iou, new),
                    "old_pixels": area,
                    "pixels": int(self.pixels[:, new].sum()) if new is not None else 0,
                    "churn": 1 - stayed / area if area else None,
                }
            )
        return rows


def _known(values: np.ndarray, index: int | None) -> float | None:
    return None if index is None or np.isnan(values[index]) else float(values[index])
