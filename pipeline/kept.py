"""Score maps that are kept beside the masks, and read where only the back end has changed.

OUT/scores/recipe=<fingerprint>/run=<run>/shard-00042.parquet     a row an image that has a mask

The photograph is not kept: it is read again from where it lies, and has to be the same to the byte.
"""

import hashlib
import io
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import label, storage
from pipeline.classes import Palette
from pipeline.config import Recipe
from pipeline.errors import AbsentError, ImageError
from pipeline.frontends import FrontEnd
from pipeline.label import Failed, Scored
from pipeline.masks import Row
from pipeline.scores import Crop, Kept, Resize, ScoreMap, Step, Upscore
from pipeline.sources import ImageRef
from pipeline.sources.reading import read_part
from pipeline.stopwatch import Stopwatch

STEPS: dict[str, type[Resize | Crop | Upscore]] = {"resize": Resize, "crop": Crop, "upscore": Upscore}
_STEP_FIELDS: list[tuple[str, pa.DataType]] = [
    ("kind", pa.string()),  # one of STEPS
    ("height", pa.int32()),
    ("width", pa.int32()),
    ("align_corners", pa.bool_()),
    ("stride", pa.int32()),
    ("offset", pa.int32()),
]
_FIELDS: list[tuple[str, pa.DataType]] = [
    ("row", pa.int32()),  # of the image in its mask shard
    ("image_id", pa.string()),
    ("photograph_sha256", pa.binary(32)),
    ("logits", pa.large_binary()),  # little-endian float16, plane by plane
    ("shape", pa.list_(pa.int32(), 3)),  # [K, h, w]
    ("steps", pa.list_(pa.struct(_STEP_FIELDS))),
    ("labels", pa.list_(pa.int16())),  # the class of each plane; null: all classes
    ("classes", pa.int32()),
]
SCHEMA = pa.schema(_FIELDS)
ROW_GROUP = 16


class Source(NamedTuple):
    """Whose kept scores to read, and what the network would say besides."""

    output: str
    fingerprint: str
    palette: Palette | None


def folder(output: str, fingerprint: str) -> str:
    """Where a recipe's scores lie."""
    return storage.join(output, "scores", f"recipe={fingerprint}")


def location(output: str, fingerprint: str, run: str, shard: int) -> str:
    """Where the scores of one shard lie."""
    return storage.join(folder(output, fingerprint), f"run={run}", f"shard-{shard:05d}.parquet")


def cell(scored: Scored) -> Row:
    """What is kept of a scored image; a row of SCHEMA but for its image."""
    scores = scored.scores
    return {
        "photograph_sha256": hashlib.sha256(scored.data).digest(),
        "logits": scores.logits.astype("<f2").tobytes(),
        "shape": list(scores.logits.shape),
        "steps": [_step_cell(step) for step in scores.steps],
        "labels": None if scores.kept is None else list(scores.kept.labels),
        "classes": scores.classes,
    }


def write_shard(output: str, fingerprint: str, run: str, shard: int, cells: Sequence[Row]) -> bool:
    """Writes a shard's scores by one conditional put: False where another writer was first."""
    out = io.BytesIO()
    plain = ["logits", "photograph_sha256"]
    with pq.ParquetWriter(
        out, SCHEMA, compression=dict.fromkeys(SCHEMA.names, "ZSTD") | dict.fromkeys(plain, "NONE"),
        use_dictionary=False, write_statistics=["row"],
    ) as writer:  # fmt: skip
        for start in range(0, len(cells), ROW_GROUP):
            writer.write_table(pa.Table.from_pylist(list(cells[start : start + ROW_GROUP]), SCHEMA))
    return storage.put_if_absent(location(output, fingerprint, run, shard), out.getvalue())


def score_images(
    refs: Sequence[ImageRef], front_end: Callable[[], FrontEnd], recipe: Recipe, kept: Source, watch: Stopwatch
) -> list[Scored | Failed]:
    """As `label.score_images`, by kept scores; the network is asked for only where an image has none."""
    found = read_scored(refs, kept)
    watch.lap("read")
    others = [ref for ref, scored in zip(refs, found, strict=True) if scored is None]
    scored_anew = iter(label.score_images(others, front_end(), recipe, watch) if others else ())
    return [next(scored_anew) if scored is None else scored for scored in found]


def read_scored(refs: Sequence[ImageRef], kept: Source) -> list[Scored | None]:
    """What the front end made of the images, in their order; None where that was not kept or the photograph differs.

    Raises StorageError where a store does not answer.
    """
    placed = sorted({ref.origin[:2] for ref in refs if ref.origin is not None})
    started = time.perf_counter()
    cells = {place: _read_cells(kept, *place, refs) for place in placed}
    milliseconds = (time.perf_counter() - started) * 1000 / max(1, len(refs))

    def scored(ref: ImageRef) -> Scored | None:
        row = cells[ref.origin[:2]].get(ref.origin.row) if ref.origin is not None else None
        return None if row is None else _scored(ref, row, milliseconds, kept.palette)

    with ThreadPoolExecutor(label.READERS) as pool:
        return list(pool.map(scored, refs))


def _read_cells(kept: Source, run: str, shard: int, refs: Sequence[ImageRef]) -> dict[int, Row]:
    """The rows of SCHEMA of those images that the shard holds, by their number; none where no scores were kept."""
    wanted = [ref.origin.row for ref in refs if ref.origin is not None and ref.origin[:2] == (run, shard)]
    try:
        with storage.open_read(location(kept.output, kept.fingerprint, run, shard)) as file:
            table = pq.read_table(file, filters=[("row", "in", wanted)])
    except AbsentError:
        return {}
    return {row["row"]: row for row in table.to_pylist()}


def _scored(ref: ImageRef, row: Row, milliseconds: float, palette: Palette | None) -> Scored | None:
    """The image as its front end left it, unless its photograph has changed or gone since."""
    started = time.perf_counter()
    try:
        data = read_part(ref.uri, ref.part)
    except ImageError:
        return None
    if hashlib.sha256(data).digest() != row["photograph_sha256"]:
        return None
    milliseconds += (time.perf_counter() - started) * 1000
    return Scored(data, _score_map(row), milliseconds, palette)


def _score_map(row: Row) -> ScoreMap:
    logits = np.frombuffer(row["logits"], "<f2").reshape(row["shape"])
    labels = row["labels"]
    kept = None if labels is None else Kept(tuple(labels), row["classes"])
    return ScoreMap(logits, tuple(map(_step, row["steps"])), kept)


def _step_cell(step: Step) -> Row:
    (kind,) = (kind for kind, known in STEPS.items() if isinstance(step, known))
    return {"kind": kind, **step._asdict()}


def _step(cell: Row) -> Step:
    kind = STEPS[cell["kind"]]
    return kind(**{name: cell[name] for name in kind._fields})
