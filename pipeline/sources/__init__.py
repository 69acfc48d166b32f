"""A dataset location -> a table of references to its images.

A listing lives in Arrow columns from the first entry on; no Python object stays behind for an image, so a million
entries take a few hundred megabytes. One file a layout; ``list_images`` picks it.
"""

from collections.abc import Iterable, Iterator
from itertools import islice, starmap
from pathlib import PurePosixPath
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.config import Source
from pipeline.errors import SourceError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"})
LIST_SUFFIXES = frozenset({".txt", ".csv", ".jsonl", ".ndjson"})
BATCH = 8192
REF_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("part", pa.string()),  # "" the whole object, "bytes=A-B" a tar member, "row=N;column=C" a Parquet cell
        ("etag", pa.string()),
        ("bytes", pa.int64()),
        ("truth_uri", pa.string()),  # null: no truth
        ("truth_part", pa.string()),
    ]
)


class Origin(NamedTuple):
    """Where the row of an image is that is labelled anew, among those of the recipe before."""

    run: str
    shard: int
    row: int  # in its shard


class ImageRef(NamedTuple):
    """Where one image and its truth are; one row of REF_SCHEMA."""

    image_id: str
    uri: str
    part: str
    etag: str
    bytes: int | None
    truth_uri: str | None
    truth_part: str | None
    origin: Origin | None = None  # of the plan that an archive is labelled anew by


def list_images(source: Source, exclude: str | None = None) -> pa.Table:
    """The source's images as a table of REF_SCHEMA, in the order of the listing.

    ``exclude`` is a location whose content is not part of the source (an output inside it).
    Raises SourceError where there is nothing to label, AbsentError or DeniedError where the store says so.
    """
    from pipeline.sources import columns, folder, parquet, voc, webdataset

    location = storage.absolute(source.location)
    source = source.model_copy(update={"location": location})
    layout = source.layout if source.layout != "auto" else detect(location)
    reader = {
        "folder": folder.list_folder,
        "voc": voc.list_voc,
        "list": columns.list_columns,
        "webdataset": webdataset.list_webdataset,
        "parquet": parquet.list_parquet,
    }[layout]
    if source.split is not None and layout != "voc":
        raise SourceError(f"split {source.split!r} needs a VOC layout; {location} is read as {layout}")
    table = reader(source)
    if exclude is not None:
        inside = pc.starts_with(table["uri"], storage.absolute(exclude).rstrip("/") + "/")
        table = table.filter(pc.invert(inside))
    _check_secrets(table, location)
    if table.num_rows == 0:
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        raise SourceError(f"no images in {storage.public(location)} (layout {layout}); looked for {kinds}")
    return table


def _check_secrets(table: pa.Table, location: str) -> None:
    """Raises SourceError where locations of the listing carry credentials: they would be kept in its plan."""
    for name in ("uri", "truth_uri", "image_id"):
        likely = table[name].filter(pc.match_substring_regex(table[name], r"://([^/]*@|.*\?.*=)"))
        found = [written for written in likely.unique().to_pylist() if storage.has_secret(written)]
        if found:
            first = storage.public(found[0])
            raise SourceError(
                f"{len(found)} locations in {storage.public(location)} carry credentials, such as that of {first}, and "
                "plans are kept; name the images without and put the credentials into the environment"
            )


def named(source: Source) -> str:
    """The source in words that stay the same while it is the same: its place, and its split where it has one."""
    location = storage.public(storage.absolute(source.location))
    return location if source.split is None else f"{location} (split {source.split})"


def detect(location: str) -> str:
    """The layout of a location, by what lies there."""
    suffix = PurePosixPath(location).suffix.lower()
    if suffix == ".tar":
        return "webdataset"
    if suffix in LIST_SUFFIXES:
        return "list"
    if suffix == ".parquet":
        from pipeline.sources import columns

        return "list" if columns.has_uri_column(location) else "parquet"
    if storage.exists(storage.join(location, "JPEGImages")):
        return "voc"
    first = next((entry.location for entry in storage.walk(location) if _kind(entry.location)), None)
    return _kind(first) if first else "folder"


def _kind(location: str) -> str:
    suffix = PurePosixPath(location).suffix.lower()
    kinds = {".tar": "webdataset", ".parquet": "parquet"} | dict.fromkeys(IMAGE_SUFFIXES, "folder")
    return kinds.get(suffix, "")


def batched_table(rows: Iterable[tuple], schema: pa.Schema) -> pa.Table:
    """Rows as they come into an Arrow table, a batch of Python objects at a time."""
    iterator = iter(rows)
    batches = []
    while chunk := list(islice(iterator, BATCH)):
        try:
            arrays = [
                pa.array(column, field.type) for column, field in zip(zip(*chunk, strict=True), schema, strict=True)
            ]
        except UnicodeEncodeError as error:
            raise SourceError(f"the name {error.object!r} is not UTF-8; rename it") from error
        batches.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
    return pa.Table.from_batches(batches, schema)


def refs(table: pa.Table) -> Iterator[ImageRef]:
    """The table's rows, a batch at a time."""
    for batch in table.select(REF_SCHEMA.names).to_batches(max_chunksize=BATCH):
        yield from starmap(ImageRef, zip(*(column.to_pylist() for column in batch.columns), strict=True))
