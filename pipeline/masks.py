"""Mask shards: the Arrow schema of their rows; write and read them.

OUT/masks/recipe=<fingerprint>/run=<run>/shard-00042.parquet
"""

import io
import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.metrics import Counts

STATUSES = ("ok", "unreadable", "rejected", "quarantined")
_COUNTS = pa.struct([(name, pa.list_(pa.int64())) for name in ("tp", "fp", "fn")])
_HUGGING_FACE = {"info": {"features": {"mask": {"_type": "Image"}}}}
TAKEN: list[tuple[str, pa.DataType]] = [  # what the image took of each stage
    ("front_end_ms", pa.float32()),
    ("back_end_ms", pa.float32()),
    ("front_end_cpu_ms", pa.float32()),
    ("front_end_gpu_ms", pa.float32()),
    ("back_end_cpu_ms", pa.float32()),
    ("bytes_read", pa.int64()),
    ("bytes_scores", pa.int64()),
    ("bytes_written", pa.int64()),
]
SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("etag", pa.string()),
        ("shard", pa.int32()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("mask", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("labels", pa.list_(pa.int16())),
        ("areas", pa.list_(pa.float32())),  # the share of the image that each of the labels takes
        ("confidence", pa.float32()),  # of the front end, as is the entropy: before the field
        ("entropy", pa.float32()),
        ("changed", pa.float32()),
        ("refined", _COUNTS),
        ("front", _COUNTS),
        ("boundary", _COUNTS),
        *TAKEN,
    ],
    metadata={"huggingface": json.dumps(_HUGGING_FACE)},
)
RAW_COLUMN = "mask.bytes"
ROW_GROUP = 64  # rows that are read together where one mask is asked for
_IMAGE_SUFFIX = re.compile(r"(?<=[^/])\.(jpe?g|png|webp|tiff?|bmp)$", re.IGNORECASE)
Row = dict[str, Any]


def folder(output: str, fingerprint: str, run: str) -> str:
    """Where a run's shards lie."""
    return storage.join(output, "masks", f"recipe={fingerprint}", f"run={run}")


def shard_location(output: str, fingerprint: str, run: str, shard: int) -> str:
    """Where one shard lies."""
    return storage.join(folder(output, fingerprint, run), f"shard-{shard:05d}.parquet")


def committed(output: str, fingerprint: str, run: str) -> set[int]:
    """The run's shards that exist."""
    found = storage.names(folder(output, fingerprint, run))
    return {int(name[6:-8]) for name in found if name.startswith("shard-") and name.endswith(".parquet")}


def is_committed(output: str, fingerprint: str, run: str, shard: int) -> bool:
    """Whether the shard exists."""
    return storage.exists(shard_location(output, fingerprint, run, shard))


def write_shard(output: str, fingerprint: str, run: str, shard: int, rows: Sequence[Row]) -> bool:
    """Commits the rows as one object by one conditional put: False where another writer was first."""
    return storage.put_if_absent(shard_location(output, fingerprint, run, shard), encode(rows, fingerprint))


def encode(rows: Sequence[Row], fingerprint: str) -> bytes:
    """The rows as a Parquet file; masks are PNGs already and stay as they are."""
    metadata = {**(SCHEMA.metadata or {}), b"densemask.recipe": fingerprint.encode()}
    table = pa.Table.from_pylist(list(rows), SCHEMA.with_metadata(metadata))
    others = [name for name in _leaves() if name != RAW_COLUMN]
    out = io.BytesIO()
    pq.write_table(
        table,
        out,
        row_group_size=ROW_GROUP,
        compression={RAW_COLUMN: "NONE"} | dict.fromkeys(others, "ZSTD"),
        use_dictionary=others,
        write_statistics=others,
    )
    return out.getvalue()


def _leaves() -> list[str]:
    """The dotted paths of the schema's leaf columns, as Parquet names them."""
    out = io.BytesIO()
    pq.write_table(SCHEMA.empty_table(), out)
    schema = pq.ParquetFile(out).schema
    return [schema.column(index).path for index in range(len(schema))]


def read_rows(output: str, fingerprint: str, run: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The run's rows, a shard at a time in order; without ``columns`` all of them, pixels included."""
    for shard in sorted(committed(output, fingerprint, run)):
        yield read_shard(output, fingerprint, run, shard, columns)


def read_shard(output: str, fingerprint: str, run: str, shard: int, columns: Sequence[str] | None = None) -> pa.Table:
    """One shard's rows in the order of its plan. Columns that an earlier version wrote it without are null."""
    schema = SCHEMA if columns is None else pa.schema([SCHEMA.field(name) for name in columns])
    with storage.open_read(shard_location(output, fingerprint, run, shard)) as file:
        found = pq.ParquetFile(file).read(columns=schema.names)
    present = found.column_names
    whole = [found[name] if name in present else pa.nulls(len(found), schema.field(name).type) for name in schema.names]
    return pa.table(whole, schema=schema)


def read_images(output: str, fingerprint: str, run: str, wanted: Iterable[tuple[int, str]]) -> dict[str, Row]:
    """The whole rows, masks included, of some images, by image_id; ``wanted`` holds (shard, image_id)."""
    by_shard: dict[int, list[str]] = {}
    for shard, image_id in wanted:
        by_shard.setdefault(shard, []).append(image_id)
    rows = {}
    for shard, image_ids in by_shard.items():
        table = read_shard(output, fingerprint, run, shard)
        for row in table.filter(pc.is_in(table["image_id"], pa.array(image_ids, pa.string()))).to_pylist():
            rows[row["image_id"]] = row
    return rows


def read_masks(output: str, fingerprint: str, run: str, shard: int, rows: Sequence[int]) -> list[bytes | None]:
    """The mask PNGs in some rows of a shard; None where a row has none. Reads the row groups that hold them."""
    with storage.open_read(shard_location(output, fingerprint, run, shard)) as handle:
        file = pq.ParquetFile(handle)
        starts = _starts(file)
        groups = [bisect_right(starts, row) - 1 for row in rows]
        pngs = {group: _pngs(file, group) for group in sorted(set(groups))}
    return [pngs[group][row - starts[group]] for group, row in zip(groups, rows, strict=True)]


def read_neighbours(output: str, fingerprint: str, run: str, shard: int, row: int) -> tuple[int, list[bytes | None]]:
    """The mask PNGs of the row group that holds a row of a shard, and the group's first row. Reads no other group."""
    with storage.open_read(shard_location(output, fingerprint, run, shard), ahead=False) as handle:
        file = pq.ParquetFile(handle)
        starts = _starts(file)
        group = bisect_right(starts, row) - 1
        return starts[group], _pngs(file, group)


def _pngs(file: pq.ParquetFile, group: int) -> list[bytes | None]:
    return pc.struct_field(file.read_row_group(group, [RAW_COLUMN])["mask"], "bytes").to_pylist()


def _starts(file: pq.ParquetFile) -> list[int]:
    """The first row of each row group."""
    counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    return [0, *accumulate(counts[:-1])]


def failed_row(image_id: str, uri: str, etag: str, shard: int, status: str, reason: str) -> Row:
    """The row of an image without a mask."""
    row: Row = dict.fromkeys(SCHEMA.names)
    row |= {"image_id": image_id, "uri": storage.public(uri), "etag": etag, "shard": shard}
    return row | {"status": status, "error": storage.scrubbed(reason)}


def counts_cell(counts: Counts | None) -> dict[str, np.ndarray] | None:
    """Counts as a cell of a row."""
    return None if counts is None else {"tp": counts.tp, "fp": counts.fp, "fn": counts.fn}


def mask_path(image_id: str) -> str:
    """A relative file name for the image's mask that cannot leave its folder."""
    parts = [part for part in image_id.replace("\\", "/").split("/") if part not in ("", "..", ".")]
    name = "/".join(part.replace(":", "_").replace("\x00", "_") for part in parts) or "image"
    return _IMAGE_SUFFIX.sub("", name) + ".png"
