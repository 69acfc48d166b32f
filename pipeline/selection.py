"""Which labelled images are meant: those of a recipe, each by its newest row, for which a condition holds.

Every shard that holds one is read once, without its masks; a few hundred bytes an image stay in memory.
"""

from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import archive, masks, plan, recipes, where
from pipeline.errors import ConfigError
from pipeline.recipes import RecipeDocument
from pipeline.sources import ImageRef

_OF_ROWS = ("height", "width", "confidence", "entropy")
# Where a photograph is, by its plan: a row's uri lacks what is secret in it.
_OF_PLANS = ("image_id", "uri", "part", "etag", "bytes")
SCHEMA = pa.schema(
    [archive.SCHEMA.field(name) for name in (*_OF_PLANS, *archive.PLACE_COLUMNS)]
    + [masks.SCHEMA.field(name) for name in _OF_ROWS]
)
_JUDGED = pa.schema([*SCHEMA, ("labelled", pa.bool_()), ("wanted", pa.bool_())])


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
    images = archive.images(output, fingerprint, runs)
    judged = _judged(output, fingerprint, images, condition)
    found = judged.filter(judged["wanted"]).select(SCHEMA.names)
    if len(found) == 0:
        raise ConfigError(f"{_nothing(judged, condition)} in {output} (recipe {fingerprint}, runs {', '.join(runs)})")
    return Selection(output, recipes.read_document(output, fingerprint), found.combine_chunks())


def reference(image: dict[str, Any]) -> ImageRef:
    """The reference to the photograph of a row of SCHEMA."""
    return ImageRef(**{name: image[name] for name in _OF_PLANS}, truth_uri=None, truth_part=None)


def _judged(output: str, fingerprint: str, images: pa.Table, condition: str | None) -> pa.Table:
    """Images of an archive as a table of _JUDGED."""
    tables = [_JUDGED.empty_table()]
    for members, rows, holds in archive.judged(output, fingerprint, images, condition, [*_OF_ROWS, "status"]):
        labelled = pc.equal(rows["status"], "ok")
        found = {name: rows[name] if name in _OF_ROWS else members[name] for name in SCHEMA.names}
        tables.append(pa.table(found | {"labelled": labelled, "wanted": pc.and_(labelled, holds)}, schema=_JUDGED))
    return pa.concat_tables(tables)


def _nothing(judged: pa.Table, condition: str | None) -> str:
    """Why no image is left, with what one needs for a better condition."""
    labelled = judged.filter(judged["labelled"])
    if condition is None or len(labelled) == 0:
        return "there is no labelled image"
    least, most = pc.min_max(labelled["confidence"]).as_py().values()
    return f"no image where {condition}: {len(labelled)} are labelled with a confidence of {least:.3f} to {most:.3f}"
