"""Exports a selection: a shard at a time its photographs and masks, at the end the documents about all of them."""

import io
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
from pydantic import BaseModel, ConfigDict

from pipeline import export, masks, photographs, storage
from pipeline.archive import by_shard
from pipeline.errors import ConfigError, ImageError, RunError
from pipeline.export import Export, Labelled
from pipeline.export.job import naming, parts
from pipeline.export.job.parts import Part, Spool
from pipeline.selection import Selection, reference
from pipeline.sources import BATCH

READERS = 8  # photographs on their way at once
TABLE = "images.csv"


class Exported(BaseModel):
    """What an export has done. Confidences are those of the least and the most certain image."""

    model_config = ConfigDict(frozen=True)

    format: str
    recipe: str
    to: str
    images: int
    left_out: int
    first_left_out: str | None
    confidence: tuple[float, float]
    documents: tuple[str, ...]


class _Job(NamedTuple):
    """Where the labels come from, what they become, and who is told how far it is."""

    output: str
    module: ModuleType
    goal: Export
    done: Callable[[], None]


def export_labels(
    selection: Selection,
    format_name: str,
    to: str,
    *,
    limit: int | None = None,
    copy: bool = True,
    polygons: bool = False,
    progress: Callable[[], None] | None = None,
) -> Exported:
    """Writes the selected images, the least certain first and at most ``limit``, to the folder or URL ``to``.

    Called again it writes the same files; after an interruption it goes on behind the last whole shard. An image whose
    photograph is gone or was changed is left out, and ``images.csv`` says why. ``copy`` takes photographs along,
    ``progress`` is called once an image. Raises ConfigError for an unknown format or one without polygons, RunError
    where every image is left out, StorageError where a store refuses.
    """
    module = export.load(format_name)
    if polygons and not module.POLYGONS:
        raise ConfigError(f"{format_name} holds masks as pixels; it has no polygons")
    recipe = selection.recipe
    classes = export.classes(recipe.classes, recipe.palette)
    goal = Export(storage.absolute(to), recipe.fingerprint, classes, copy, polygons)
    table = ranked(selection, limit)
    job = _Job(selection.output, module, goal, progress or (lambda: None))
    left_out: dict[int, str] = {}
    with Spool(len(table)) as spool:
        for part in (part for shard in by_shard(table) for part in _shard(job, *shard)):
            if part.described is None:
                left_out[part.rank] = part.left_out or ""
            else:
                spool.add(part.rank, part.described)
        if len(spool) == 0:
            raise RunError(f"none of {len(table)} images can be exported; the first: {_first(table, left_out)}")
        documents = [_write(goal, path, chunks) for path, chunks in module.documents(goal, spool)]
    documents.append(_write(goal, TABLE, _csv(job, table, left_out)))
    parts.remove(goal.folder)
    confidence = table["confidence"].to_numpy()
    return Exported(
        format=format_name, recipe=goal.recipe, to=storage.public(goal.folder), images=len(table) - len(left_out),
        left_out=len(left_out), first_left_out=_first(table, left_out),
        confidence=(float(confidence[0]), float(confidence[-1])), documents=tuple(documents),
    )  # fmt: skip


def ranked(selection: Selection, limit: int | None) -> pa.Table:
    """The first images of the selection by rising confidence, with their ``rank`` from 1 and their file ``name``."""
    table = selection.least_certain_first().images.slice(0, limit)
    names = naming.file_names(table["image_id"].to_pylist(), table["uri"].to_pylist())
    ranks = np.arange(1, len(table) + 1)
    return table.append_column("rank", pa.array(ranks)).append_column("name", pa.array(names, pa.string()))


def _shard(job: _Job, run: str, shard: int, members: pa.Table) -> list[Part]:
    """What comes of the images of one shard; what an interrupted export has done of it is not done again."""
    rows, goal = members.to_pylist(), job.goal
    places = [row["row"] for row in rows]
    name = parts.key(job.module.__name__, goal, run, shard, [(row["row"], row["rank"], row["name"]) for row in rows])
    made = parts.read(goal.folder, name)
    if made is not None and all(part.left_out is None for part in made):
        for _ in made:
            job.done()
        return made
    pngs = masks.read_masks(job.output, goal.recipe, run, shard, places)
    made = []
    with ThreadPoolExecutor(READERS) as pool:
        try:
            for part in pool.map(partial(_image, job), rows, pngs):
                made.append(part)
                job.done()
        except BaseException:  # an interrupted export does not wait for the rest of its shard
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    parts.write(goal.folder, name, made)
    return made


def _image(job: _Job, row: masks.Row, png: bytes) -> Part:
    """Writes the files of one image; a photograph that cannot be had leaves it out."""
    goal, module, ref = job.goal, job.module, reference(row)
    of_row = {name: row[name] for name in Labelled._fields if name in row}
    image = Labelled(**of_row | {"uri": storage.public(ref.uri)}, png=png, whole=ref.part == "")
    try:
        described = module.describe(image, goal)
        files = {} if module.MASK is None else {image.path(module.MASK): png}
        if goal.photographs:
            jpeg = photographs.as_jpeg(photographs.read(ref), (image.height, image.width))
            files[image.path(module.PHOTOGRAPH)] = jpeg
    except ImageError as error:
        return Part(image.rank, None, str(error))
    for path, data in files.items():
        storage.put(storage.join(goal.folder, path), data, scratch=parts.folder(goal.folder))
    return Part(image.rank, described, None)


def _write(goal: Export, path: str, chunks: Iterable[bytes]) -> str:
    """Writes a document, which need not fit into memory; its path."""
    with tempfile.NamedTemporaryFile() as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        storage.put_file(storage.join(goal.folder, path), file.name, scratch=parts.folder(goal.folder))
    return path


def _csv(job: _Job, table: pa.Table, left_out: dict[int, str]) -> Iterator[bytes]:
    """All images by rank: which file is which image, and why one is not there."""
    for number, batch in enumerate(table.to_batches(max_chunksize=BATCH)):
        ranks, names = batch["rank"].to_pylist(), batch["name"].to_pylist()
        kept = [job.goal.photographs and rank not in left_out for rank in ranks]
        files = [
            export.path(job.module.PHOTOGRAPH, rank, name) if there else None
            for rank, name, there in zip(ranks, names, kept, strict=True)
        ]
        columns = {
            "rank": batch["rank"], "file": pa.array(files, pa.string()), "name": batch["name"],
            "image_id": batch["image_id"],
            "uri": pa.array([storage.public(uri) for uri in batch["uri"].to_pylist()], pa.string()),
            **{name: batch[name] for name in ("run", "confidence", "entropy")},
            "left_out": pa.array([left_out.get(rank) for rank in ranks], pa.string()),
        }  # fmt: skip
        out = io.BytesIO()
        pa.csv.write_csv(pa.table(columns), out, pa.csv.WriteOptions(include_header=number == 0))
        yield out.getvalue()


def _first(table: pa.Table, left_out: dict[int, str]) -> str | None:
    """The least certain image that is left out, and why."""
    if not left_out:
        return None
    rank = min(left_out)
    return f"{table['image_id'][rank - 1].as_py()}: {left_out[rank]}"
