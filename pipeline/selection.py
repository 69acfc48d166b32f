"""Which labelled images are meant: those of a recipe, each by its newest row, for which a condition holds.

Every shard is read once, without its masks; a few hundred bytes an image stay in memory.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import masks, plan, recipes, where
from pipeline.errors import ConfigError
from pipeline.recipes import RecipeDocument
from pipeline.sources import ImageRef

_OF_ROWS = ("image_id", "uri", "shard", "height", "width", "confidence", "entropy")
_OF_PLANS = ("uri", "part", "etag", "bytes")  # where a photograph is; a row's uri may lack what is secret in it
_FOUND = pa.schema(
    [*(masks.SCHEMA.field(name) for name in _OF_ROWS), ("run", pa.string()), ("row", pa.int32())]  # row: in its shard
)
_JUDGED = pa.schema([*_FOUND, ("labelled", pa.bool_()), ("wanted", pa.bool_())])
SCHEMA = pa.schema([*_FOUND.remove(1), *(plan.PLAN_SCHEMA.field(name) for name in _OF_PLANS)])


class Selection(NamedTuple):
    """Labelled images as a table of SCHEMA: where the row and the photograph of each are; and their recipe."""

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
    found = judged.filter(judged["wanted"]).select(_FOUND.names)
    if len(found) == 0:
        raise ConfigError(f"{_nothing(judged, condition)} in {output} (recipe {fingerprint}, runs {', '.join(runs)})")
    located = [_located(output, fingerprint, name, found.filter(pc.equal(found["run"], name))) for name in runs]
    images = pa.concat_tables(located).combine_chunks()
    return Selection(output, recipes.read_document(output, fingerprint), images)


def by_shard(images: pa.Table) -> list[pa.Table]:
    """Images of SCHEMA in the order of runs, shards and rows: a table for each shard."""
    ordered = images.sort_by([(name, "ascending") for name in ("run", "shard", "row")]).combine_chunks()
    runs = ordered["run"].combine_chunks().dictionary_encode().indices.to_numpy()
    changes = (np.diff(runs, prepend=-1) != 0) | (np.diff(ordered["shard"].to_numpy(), prepend=-1) != 0)
    starts = np.flatnonzero(changes).tolist()
    return [ordered.slice(start, end - start) for start, end in pairwise([*starts, len(ordered)])]


def reference(image: dict[str, Any]) -> ImageRef:
    """The reference to the photograph of a row of SCHEMA."""
    return ImageRef(**{name: image[name] for name in ("image_id", *_OF_PLANS)}, truth_uri=None, truth_part=None)


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


def _located(output: str, fingerprint: str, run: str, found: pa.Table) -> pa.Table:
    """Images of one run as a table of SCHEMA, by the run's plan, which is in the order of its rows."""
    if len(found) == 0:
        return SCHEMA.empty_table()
    planned = plan.read_run(output, fingerprint, run)
    places = np.searchsorted(planned["shard"].to_numpy(), found["shard"].to_numpy()) + found["row"].to_numpy()
    where_they_are = planned.take(pa.array(places))
    columns = [where_they_are[name] if name in _OF_PLANS else found[name] for name in SCHEMA.names]
    return pa.table(columns, schema=SCHEMA)


def _nothing(judged: pa.Table, condition: str | None) -> str:
    """Why no image is left, with what one needs for a better condition."""
    labelled = judged.filter(judged["labelled"])
    if condition is None or len(labelled) == 0:
        return "there is no labelled image"
    least, most = pc.min_max(labelled["confidence"]).as_py().values()
    return f"no image where {condition}: {len(labelled)} are labelled with a confidence of {least:.3f} to {most:.3f}"
