"""Which labelled images are meant: those of a recipe, each by its newest row, for which a condition holds.

Every shard is read once, without its masks; a few hundred bytes an image stay in memory.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import masks, plan, recipes, where
from pipeline.errors import ConfigError
from pipeline.recipes import RecipeDocument

_OF_ROWS = ("image_id", "uri", "shard", "height", "width", "confidence", "entropy")
SCHEMA = pa.schema(
    [*(masks.SCHEMA.field(name) for name in _OF_ROWS), ("run", pa.string()), ("row", pa.int32())]  # row: in its shard
)
_JUDGED = pa.schema([*SCHEMA, ("labelled", pa.bool_()), ("wanted", pa.bool_())])


class Selection(NamedTuple):
    """Labelled images as a table of SCHEMA, which says where the row of each is; and the recipe that labelled them."""

    output: str
    recipe: RecipeDocument
    images: pa.Table

    def least_certain_first(self) -> "Selection":
        """The same images by rising confidence."""
        order = [(name, "ascending") for name in ("confidence", "image_id", "uri")]
        return self._replace(images=self.images.sort_by(order).combine_chunks())


def select(output: str, recipe: str | None = None, run: str | None = None, condition: str | None = None) -> Selection:
    """The output's images with a mask, in the order of runs, shards and rows: of the current recipe and all its runs,
    where nothing else is named.

    An image that several runs hold counts by its newest row; where that one failed or does not meet the condition, no
    older one stands in. Raises ConfigError for an unknown recipe or run, a wrong condition, or where no image is left.
    """
    where.check(condition)
    fingerprint, newest = plan.newest_run(output, recipe, run)
    runs = plan.runs(output, fingerprint) if run is None else [newest]
    tables = [table for name in runs for table in _judged(output, fingerprint, name, condition)]
    judged = pa.concat_tables([_JUDGED.empty_table(), *tables])
    if len(runs) > 1:
        judged = _newest(judged)
    found = judged.filter(judged["wanted"]).select(SCHEMA.names)
    if len(found) == 0:
        raise ConfigError(f"{_nothing(judged, condition)} in {output} (recipe {fingerprint}, runs {', '.join(runs)})")
    return Selection(output, recipes.read_document(output, fingerprint), found.combine_chunks())


def _judged(output: str, fingerprint: str, run: str, condition: str | None) -> Iterator[pa.Table]:
    """The rows of a run, a shard at a time, as tables of _JUDGED."""
    columns = [name for name in masks.SCHEMA.names if name != "mask"] if condition else [*_OF_ROWS, "status"]
    for shard in masks.read_rows(output, fingerprint, run, columns):
        rows = where.with_origin(shard, fingerprint, run)
        rows = rows.append_column("row", pa.array(np.arange(len(rows), dtype=np.int32)))
        labelled = pc.equal(rows["status"], "ok")
        wanted = pc.is_in(rows["row"], value_set=where.matching(rows, condition)["row"].combine_chunks())
        rows = rows.append_column("labelled", labelled).append_column("wanted", pc.and_(labelled, wanted))
        yield rows.select(_JUDGED.names).cast(_JUDGED)


def _newest(rows: pa.Table) -> pa.Table:
    """Of every image its last row; ``rows`` begins with the oldest."""
    numbered = rows.append_column("number", pa.array(np.arange(len(rows))))
    last = numbered.group_by(["uri", "image_id"]).aggregate([("number", "max")])["number_max"]
    return rows.take(pa.array(np.sort(last.to_numpy())))


def _nothing(judged: pa.Table, condition: str | None) -> str:
    """Why no image is left, with what one needs for a better condition."""
    labelled = judged.filter(judged["labelled"])
    if condition is None or len(labelled) == 0:
        return "there is no labelled image"
    least, most = pc.min_max(labelled["confidence"]).as_py().values()
    return f"no image where {condition}: {len(labelled)} are labelled with a confidence of {least:.3f} to {most:.3f}"
