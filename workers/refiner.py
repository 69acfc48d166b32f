"""The refiner actor: applies the field to images, one after the other, and commits whole shards."""

from typing import Any, NamedTuple

import ray

from pipeline import kept, masks
from pipeline.config import Evaluation, Recipe
from pipeline.label import Scored, refine_image
from pipeline.masks import Row
from pipeline.sources import ImageRef
from pipeline.stopwatch import Stopwatch
from workers.metrics import Counters, Labels

SCORES = "scores"  # beside the columns of a row, where they are kept


class Target(NamedTuple):
    """Where shards go, and whether their scores go there too."""

    output: str
    fingerprint: str
    keep_scores: bool = False


class Committed(NamedTuple):
    """What came of a commit: ``lost`` are the positions of rows that died with their node; then nothing was written."""

    written: bool
    lost: list[int]


class RefinerWorker:
    """Refines images and writes shards."""

    def __init__(self, recipe: Recipe, evaluation: Evaluation, target: Target, labels: Labels) -> None:
        self._recipe, self._evaluation, self._target = recipe, evaluation, target
        self._counters = Counters(labels)

    def ready(self) -> str:
        """The node it runs on, once it can work."""
        return ray.get_runtime_context().get_node_id()

    def refine(self, images: list[tuple[ImageRef, int]], *scored: Scored) -> tuple[Any, ...]:
        """The status of the row of each (image, shard), then the rows, as separate objects."""
        rows = [self._row(ref, scores, shard) for (ref, shard), scores in zip(images, scored, strict=True)]
        if self._target.keep_scores:
            rows = [row | {SCORES: kept.cell(scores)} for row, scores in zip(rows, scored, strict=True)]
        return ([row["status"] for row in rows], *rows)

    def _row(self, ref: ImageRef, scored: Scored, shard: int) -> Row:
        watch = Stopwatch()
        row = refine_image(ref, scored, shard, self._recipe, self._evaluation, watch)
        self._counters.add_refined(watch, row)
        return row

    def commit(self, run: str, shard: int, rows: "list[Row | ray.ObjectRef]") -> Committed:
        """Writes the shard by one conditional put, unless a row is gone; scores that are kept go before it."""
        watch = Stopwatch()
        whole: list[Row] = []
        lost: list[int] = []
        for position, row in enumerate(rows):
            try:
                whole.append(ray.get(row) if isinstance(row, ray.ObjectRef) else row)
            except ray.exceptions.ObjectLostError:
                lost.append(position)
        if lost:
            return Committed(False, lost)
        output, fingerprint, keep_scores = self._target
        if keep_scores:
            cells = [
                {"row": position, "image_id": row["image_id"], **row[SCORES]}
                for position, row in enumerate(whole)
                if SCORES in row
            ]
            kept.write_shard(output, fingerprint, run, shard, cells)
        written = masks.write_shard(output, fingerprint, run, shard, whole)
        watch.lap("commit")
        self._counters.add_laps(watch)
        return Committed(written, [])
