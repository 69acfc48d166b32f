"""Which of a run's images to look at: the best, the worst and the most changed, or some of all."""

import math
from typing import Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import masks, recipes
from pipeline.tally import COLUMNS, image_table, match

PICKED = 6
BEST, WORST = "Best mIoU", "Worst mIoU"
SUREST, LEAST_SURE = "Most confident", "Least confident"
MOST_CHANGED = "Most changed by the field"
RANKINGS: dict[str, tuple[str, Literal["ascending", "descending"]]] = {
    BEST: ("miou", "descending"),
    WORST: ("miou", "ascending"),
    SUREST: ("confidence", "descending"),
    LEAST_SURE: ("confidence", "ascending"),
    MOST_CHANGED: ("changed", "descending"),
}


class Pick(NamedTuple):
    """An image to look at, and what is known of it."""

    shard: int
    image_id: str
    labels: tuple[int, ...]
    confidence: float
    entropy: float
    changed: float
    miou: float | None
    group: str  # one of RANKINGS, or ""


class Leaders:
    """The first images of every ranking; tables of IMAGE_SCHEMA go in a shard at a time."""

    def __init__(self, count: int = PICKED) -> None:
        self._count = count
        self._leading: dict[str, pa.Table] = {}

    def add(self, images: pa.Table) -> None:
        """Takes in images. Twice the count stay in a ranking, since the worst leave out the best."""
        for group, (key, order) in RANKINGS.items():
            known = images.filter(pc.is_valid(images[key]))
            if group in self._leading:
                known = pa.concat_tables([self._leading[group], known])
            self._leading[group] = known.sort_by([(key, order), ("image_id", "ascending")]).slice(0, 2 * self._count)

    def picks(self) -> list[Pick]:
        """Best, worst and most changed; by confidence where no image has truth. Few images are shared out."""
        ranked = {group: _picks(images, group) for group, images in self._leading.items()}
        first, last = (BEST, WORST) if ranked.get(BEST) else (SUREST, LEAST_SURE)
        measured = ranked.get(first, [])
        best = measured[: min(self._count, math.ceil(len(measured) / 2))]
        seen = {pick[:2] for pick in best}
        worst = [pick for pick in ranked.get(last, []) if pick[:2] not in seen]
        changed = [pick for pick in ranked.get(MOST_CHANGED, []) if pick.changed > 0]
        return best + worst[: self._count] + changed[: self._count]


def pick_extremes(output: str, fingerprint: str, run: str, count: int = PICKED) -> list[Pick]:
    """``count`` images each: best, worst, most changed. Reads the whole run, without its masks."""
    classes = len(recipes.read_document(output, fingerprint).classes)
    leaders = Leaders(count)
    for rows in masks.read_rows(output, fingerprint, run, COLUMNS):
        leaders.add(image_table(rows, match(rows, classes)))
    return leaders.picks()


def pick_spread(output: str, fingerprint: str, run: str, limit: int) -> list[Pick]:
    """At most ``limit`` labelled images, spread over the run. Reads no more shards than it must."""
    classes = len(recipes.read_document(output, fingerprint).classes)
    shards = sorted(masks.committed(output, fingerprint, run))
    spread = _spread(len(shards), limit)
    others = sorted(set(range(len(shards))).difference(spread))
    picks: list[Pick] = []
    for turn, index in enumerate([*spread, *others]):
        share = math.ceil((limit - len(picks)) / max(1, len(spread) - turn))
        if share <= 0:
            break
        rows = masks.read_shard(output, fingerprint, run, shards[index], COLUMNS)
        rows = rows.filter(pc.equal(rows["status"], pa.scalar("ok")))
        rows = rows.take(pa.array(_spread(len(rows), share), pa.int64()))
        picks += _picks(image_table(rows, match(rows, classes)), "")
    return sorted(picks, key=lambda pick: pick.shard)


def _spread(length: int, count: int) -> list[int]:
    """At most ``count`` indices below ``length``, evenly apart."""
    count = min(length, count)
    return [index * length // count for index in range(count)]


def _picks(images: pa.Table, group: str) -> list[Pick]:
    columns = [images[name].to_pylist() for name in Pick._fields[:-1]]
    return [
        Pick._make((shard, image_id, tuple(labels), *measures, group))
        for shard, image_id, labels, *measures in zip(*columns, strict=True)
    ]
