"""Parquet with image bytes: a binary column, or Hugging Face's struct<bytes, path>; a truth column likewise."""

from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.config import Source
from pipeline.errors import ImageError, SourceError
from pipeline.sources import REF_SCHEMA, batched_table
from pipeline.sources.columns import ID_COLUMNS


def list_parquet(source: Source) -> pa.Table:
    """The rows of one Parquet file, or of every one below a folder. Each image is addressed by its row."""
    return batched_table(_rows(source), REF_SCHEMA)


def _rows(source: Source) -> Iterator[tuple]:
    location = source.location
    if location.endswith(".parquet"):
        yield from _file(source, storage.stat(location), PurePosixPath(location).name)
        return
    root = location.rstrip("/") + "/"
    for entry in storage.walk(location):
        if entry.location.endswith(".parquet"):
            yield from _file(source, entry, entry.location.removeprefix(root))


def _file(source: Source, entry: storage.Entry, name: str) -> Iterator[tuple]:
    with storage.open_read(entry.location) as handle:
        try:
            file = pq.ParquetFile(handle)
        except pa.ArrowInvalid as error:
            raise SourceError(f"{entry.location} is not a Parquet file: {str(error).splitlines()[0]}") from error
        schema = file.schema_arrow
        _check_image_column(source.image_column, schema, entry.location)
        has_truth = source.truth_column in schema.names
        id_column = next((column for column in ID_COLUMNS if column in schema.names), None)
        row = 0
        for group in range(file.num_row_groups):
            ids = file.read_row_group(group, [id_column])[id_column].to_pylist() if id_column else None
            for index in range(file.metadata.row_group(group).num_rows):
                image_id = f"{name}/{ids[index] if ids else row}"
                part = f"row={row};column={source.image_column}"
                truth_part = f"row={row};column={source.truth_column}" if has_truth else ""
                truth_uri = entry.location if has_truth else None
                yield image_id, entry.location, part, entry.etag, None, truth_uri, truth_part
                row += 1


def _check_image_column(column: str, schema: pa.Schema, location: str) -> None:
    if column not in schema.names:
        raise SourceError(f"{location} has no column {column!r} of image bytes; it has {', '.join(schema.names)}")
    kind = schema.field(column).type
    binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    if not binary and not (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0):
        raise SourceError(f"{location}: column {column!r} is {kind}; it must be binary or struct<bytes, path>")


def read_cell(location: str, row: int, column: str) -> bytes:
    """The bytes in one cell; '' where it is null. Raises ImageError where the file has no such cell any more."""
    try:
        group, first = _group_of(location, row)
        cell = _column(location, group, column)[row - first].as_py()
    except (pa.ArrowInvalid, LookupError) as error:
        raise ImageError(f"{location} has no row {row} of {column!r} to be read: {error}") from error
    if isinstance(cell, dict):
        cell = cell["bytes"]
    return cell or b""


@lru_cache(maxsize=16)
def _offsets(location: str) -> tuple[int, ...]:
    with storage.open_read(location) as handle:
        metadata = pq.ParquetFile(handle).metadata
        starts = [0]
        for group in range(metadata.num_row_groups):
            starts.append(starts[-1] + metadata.row_group(group).num_rows)
        return tuple(starts)


def _group_of(location: str, row: int) -> tuple[int, int]:
    """The row group that holds the row, and that group's first row."""
    starts = _offsets(location)
    group = bisect_right(starts, row) - 1
    return group, starts[group]


@lru_cache(maxsize=4)
def _column(location: str, group: int, column: str) -> pa.ChunkedArray:
    with storage.open_read(location) as handle:
        return pq.ParquetFile(handle).read_row_group(group, [column])[column]
