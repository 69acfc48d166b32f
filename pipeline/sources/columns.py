"""A list of images: txt (a location a line), or csv, jsonl or Parquet with a uri column and perhaps a truth column."""

import io
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.config import Source
from pipeline.errors import SourceError
from pipeline.sources import BATCH, batched_table
from pipeline.sources.folder import references
from pipeline.storage import local

ID_COLUMNS = ("image_id", "id")
ETAG_COLUMN = "etag"
# The last "folder/../" of a URL: an object store takes ".." for a name.
CLIMB = r"^([a-zA-Z][a-zA-Z0-9+.-]+://[^/]+(?:/.*)?)/[^/]*[^/.][^/]*/\.\./"
_FACTS = pa.schema([("etag", pa.string()), ("bytes", pa.int64())])


def list_columns(source: Source) -> pa.Table:
    """The list's images. Relative locations are relative to the list; local files get the etag of their file, remote
    ones that of the list's etag column ('' without one: a changed object is then not seen as changed)."""
    table = _read(source)
    if source.uri_column not in table.column_names:
        have = ", ".join(table.column_names)
        raise SourceError(f"{source.location} has no column {source.uri_column!r}; it has {have}")
    table = table.filter(pc.not_equal(pc.coalesce(table[source.uri_column].cast(pa.string()), ""), ""))
    written = table[source.uri_column].cast(pa.string())
    uris = _resolved(written, source.location)
    ids = _ids(table, written)
    truth = pa.chunked_array([pa.nulls(len(uris), pa.string())])
    if source.truth_column in table.column_names:
        cells = table[source.truth_column].cast(pa.string())
        truth = _resolved(pc.if_else(pc.equal(cells, ""), pa.scalar(None, pa.string()), cells), source.location)
    facts = batched_table(_facts(uris), _FACTS)
    etags = table[ETAG_COLUMN].cast(pa.string()) if ETAG_COLUMN in table.column_names else facts["etag"]
    return references(ids, uris, pc.coalesce(etags, pa.scalar("")), facts["bytes"], truth)


def _ids(table: pa.Table, written: pa.ChunkedArray) -> pa.ChunkedArray:
    """The list's own ids where they tell its images apart; else the locations as written."""
    column = next((name for name in ID_COLUMNS if name in table.column_names), None)
    if column is None:
        return written
    ids = pc.coalesce(table[column].cast(pa.string()), written)
    return written if pc.count_distinct(ids).as_py() < pc.count_distinct(written).as_py() else ids


def has_uri_column(location: str, column: str = "uri") -> bool:
    """Whether the Parquet file is a list (and not a file of image bytes)."""
    with storage.open_read(location) as file:
        return column in _schema(file, location).names


def read_lines(location: str) -> pa.ChunkedArray:
    """The non-empty lines of a text file as strings."""
    data = storage.read(location)
    if not data.strip():
        return pa.chunked_array([], pa.string())
    options = {
        "read_options": pa.csv.ReadOptions(column_names=["line"]),
        "parse_options": pa.csv.ParseOptions(delimiter="\x1f", quote_char=False, escape_char=False),
        "convert_options": pa.csv.ConvertOptions(column_types={"line": pa.string()}),
    }
    try:
        return pa.csv.read_csv(io.BytesIO(data), **options)["line"]
    except pa.ArrowException as error:
        raise _broken(location, error) from error


def _read(source: Source) -> pa.Table:
    location = source.location
    suffix = PurePosixPath(location).suffix.lower()
    try:
        if suffix == ".txt":
            return pa.table({source.uri_column: pc.utf8_trim_whitespace(read_lines(location))})
        if suffix == ".csv":
            strings = dict.fromkeys((source.uri_column, source.truth_column, *ID_COLUMNS, ETAG_COLUMN), pa.string())
            convert = pa.csv.ConvertOptions(column_types=strings, strings_can_be_null=True)
            return pa.csv.read_csv(io.BytesIO(storage.read(location)), convert_options=convert)
        if suffix in (".jsonl", ".ndjson"):
            return pa.json.read_json(io.BytesIO(storage.read(location)))
        with storage.open_read(location) as file:
            wanted = (source.uri_column, source.truth_column, *ID_COLUMNS, ETAG_COLUMN)
            return pq.read_table(file, columns=[name for name in _schema(file, location).names if name in wanted])
    except pa.ArrowException as error:
        raise _broken(location, error) from error


def _broken(location: str, error: pa.ArrowException) -> SourceError:
    return SourceError(f"cannot read the list {storage.public(location)}: {str(error).splitlines()[0]}")


def _schema(file: IO[bytes], location: str) -> pa.Schema:
    try:
        return pq.read_schema(file)
    except pa.ArrowInvalid as error:
        raise SourceError(f"{location} is not a Parquet file: {str(error).splitlines()[0]}") from error


def _resolved(locations: pa.ChunkedArray, list_location: str) -> pa.ChunkedArray:
    """Locations as written, made absolute against the folder of the list."""
    locations = pc.replace_substring_regex(locations, "^(file|local)://", "")
    base = list_location.rpartition("/")[0]
    whole = pc.match_substring_regex(locations, r"^([a-zA-Z][a-zA-Z0-9+.-]+://|/)")
    locations = pc.if_else(whole, locations, pc.binary_join_element_wise(base, locations, "/"))
    locations = pc.replace_substring_regex(locations, r"(/\.)+/", "/")
    while pc.any(pc.match_substring(locations, "/../")).as_py():
        climbed = pc.replace_substring_regex(locations, CLIMB, r"\1/")
        if climbed.equals(locations):
            break
        locations = climbed
    return locations


def _facts(uris: pa.ChunkedArray) -> Iterator[tuple[str, int | None]]:
    """(etag, bytes) of each local file; a file that is not there gets 'absent', a remote object ''."""
    for chunk in uris.chunks:
        for start in range(0, len(chunk), BATCH):
            for uri in chunk.slice(start, BATCH).to_pylist():
                if storage.is_remote(uri):
                    yield "", None
                    continue
                yield local.facts(uri) or ("absent", None)
