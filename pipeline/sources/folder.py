"""A folder of images, with or without a folder of truth masks beside it (CamVid's pairs)."""

from collections.abc import Iterator
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.config import Source
from pipeline.errors import SourceError
from pipeline.sources import IMAGE_SUFFIXES, REF_SCHEMA, batched_table

LISTING = pa.schema(
    [("stem", pa.string()), ("name", pa.string()), ("uri", pa.string()), ("etag", pa.string()), ("bytes", pa.int64())]
)


def list_folder(source: Source) -> pa.Table:
    """All images below the folder; an image's id is its path in it."""
    found = listing(source.location)
    count = len(found)
    truth = pa.nulls(count, pa.string())
    if source.truth is not None:
        folder = storage.absolute(source.truth)
        masks = listing(folder)
        if masks.num_rows == 0:
            raise SourceError(f"no masks in {folder}; the truth folder pairs masks with images by file stem")
        truth = matched(found["stem"], masks, "uri")
        if pc.all(pc.is_null(truth)).as_py():
            raise SourceError(f"no mask in {folder} has the file stem of an image in {source.location}")
    return references(found["name"], found["uri"], found["etag"], found["bytes"], truth)


def listing(folder: str) -> pa.Table:
    """The image files below a folder: stem and name are relative to it."""
    return batched_table(_rows(folder), LISTING)


def _rows(folder: str) -> Iterator[tuple]:
    root = folder.rstrip("/") + "/"
    for entry in storage.walk(folder):
        name = entry.location.removeprefix(root)
        path = PurePosixPath(name)
        if path.suffix.lower() in IMAGE_SUFFIXES:
            yield str(path.with_suffix("")), name, entry.location, entry.etag, entry.size


def matched(keys: pa.ChunkedArray, table: pa.Table, column: str) -> pa.ChunkedArray:
    """The column's value for each key by the table's stem; null where there is none."""
    return table[column].take(pc.index_in(keys, value_set=table["stem"].combine_chunks()))


def references(
    ids: pa.ChunkedArray,
    uris: pa.ChunkedArray,
    etags: pa.ChunkedArray,
    sizes: pa.ChunkedArray,
    truth_uris: pa.ChunkedArray,
) -> pa.Table:
    """Whole objects as a table of REF_SCHEMA."""
    no_part = pa.repeat(pa.scalar("", pa.string()), len(uris))
    return pa.table([ids, uris, no_part, etags, sizes, truth_uris, no_part], schema=REF_SCHEMA)
