"""Which image goes into which shard, decided once and written before any work.

    OUT/plans/recipe=<fingerprint>/run=<run>.parquet     a row an image, a row group a shard
    OUT/plans/recipe=<fingerprint>/<number>.claim        the name of the recipe's n-th run

A run's plan holds the images that no earlier plan of the recipe holds. Two planners at once agree on the n-th run's
name through its claim and on its content through its plan, one conditional put each; so no image is planned twice.

A plan says how its run's masks are held against the truth; that of a run that labels an archive anew also of which
recipe the archive is, and where each image's row lies.
"""

import io
from collections.abc import Sequence
from datetime import date
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import masks, recipes, storage
from pipeline.config import Evaluation
from pipeline.errors import ConfigError
from pipeline.sources import REF_SCHEMA, ImageRef, Origin, refs

PLAN_SCHEMA = REF_SCHEMA.append(pa.field("shard", pa.int32()))
_ORIGIN_FIELDS: list[tuple[str, pa.DataType]] = [
    ("origin_run", pa.string()),
    ("origin_shard", pa.int32()),
    ("origin_row", pa.int32()),
]
ORIGIN_COLUMNS = tuple(name for name, _ in _ORIGIN_FIELDS)
REPROCESS_SCHEMA = pa.schema([*PLAN_SCHEMA, *_ORIGIN_FIELDS])
_ORIGIN_RECIPE = b"densemask.origin"
_KEY = ("uri", "part", "etag")
_IDENTITY = ["image_id", "uri"]
_SOURCE = b"densemask.source"
_EVALUATION = b"densemask.evaluation"


class Shard(NamedTuple):
    """A unit of commit and retry."""

    run: str
    number: int
    images: int


class Changes(NamedTuple):
    """What a listing holds against all that was planned before it."""

    new: int
    changed: int  # known images with another etag
    gone: pa.Table  # image_id, uri: what earlier listings of the same source held and this one does not


def add_run(
    output: str,
    fingerprint: str,
    listing: pa.Table,
    shard_size: int,
    today: date,
    *,
    source: str = "",
    evaluation: Evaluation | None = None,
    origin: str | None = None,
) -> str | None:
    """Plans the listing's images that have no plan yet; the name of the run, or None where there is nothing new.

    ``source`` says what was listed; images can only be gone from where they once were. ``evaluation``: the job's.
    ``origin``: the recipe that the listing is an archive of; then it has ORIGIN_COLUMNS too.
    """
    while True:
        planned = runs(output, fingerprint)
        new = unplanned(listing, [_read(output, fingerprint, run, _KEY) for run in planned])
        if new.num_rows == 0:
            return None
        run = _claimed_name(output, fingerprint, len(planned) + 1, today)
        content = encode(new, shard_size, source, evaluation, origin)
        if storage.put_if_absent(_location(output, fingerprint, run), content):
            return run


def unplanned(listing: pa.Table, plans: list[pa.Table]) -> pa.Table:
    """The listing's images that are in no plan, each once, in the order of their location."""
    listing = listing.sort_by([("uri", "ascending"), ("part", "ascending")])
    keys = row_keys(listing)
    if plans:
        known = pa.concat_tables([plan.select(_KEY) for plan in plans])
        fresh = pc.invert(pc.is_in(keys, value_set=row_keys(known)))
        listing, keys = listing.filter(fresh), keys.filter(fresh)
    return listing.filter(_first(keys))


def _first(keys: pa.Array) -> pa.Array:
    if len(keys) < 2:
        return pa.array([True] * len(keys), pa.bool_())
    return pa.concat_arrays([pa.array([True]), pc.not_equal(keys.slice(1), keys.slice(0, len(keys) - 1))])


def row_keys(table: pa.Table, names: Sequence[str] = _KEY) -> pa.Array:
    """One string an image, the same only for the same values; by default, only for the same bytes."""
    columns = [table[name].cast(pa.large_string()) for name in names]
    joined = pc.binary_join_element_wise(*columns, pa.scalar("\n", pa.large_string()))
    return joined.combine_chunks()


def changes(output: str, fingerprint: str, listing: pa.Table, source: str) -> Changes:
    """How the listing of the source differs from the recipe's plans; an image is known by its place and its id."""
    columns = list(dict.fromkeys((*_IDENTITY, *_KEY)))
    plans = [_read(output, fingerprint, run, columns) for run in runs(output, fingerprint)]
    fresh = unplanned(listing, plans)
    if not plans:
        return Changes(fresh.num_rows, 0, listing.select(_IDENTITY).slice(0, 0))
    planned = pa.concat_tables(plans)
    changed = pc.sum(pc.is_in(row_keys(fresh, _IDENTITY), value_set=row_keys(planned, _IDENTITY))).as_py() or 0
    same = [plan.select(_IDENTITY) for plan in plans if (plan.schema.metadata or {}).get(_SOURCE) == source.encode()]
    held = pa.concat_tables([*same, listing.select(_IDENTITY).slice(0, 0)], promote_options="default")
    there = pc.is_in(row_keys(held, _IDENTITY), value_set=row_keys(listing, _IDENTITY))
    gone = held.filter(pc.invert(there)).group_by(_IDENTITY).aggregate([])
    return Changes(fresh.num_rows - changed, changed, gone.sort_by("uri"))


def encode(
    images: pa.Table,
    shard_size: int,
    source: str = "",
    evaluation: Evaluation | None = None,
    origin: str | None = None,
) -> bytes:
    """The plan as a Parquet file whose k-th row group is shard k."""
    schema, metadata = PLAN_SCHEMA, {_SOURCE: source.encode()}
    if origin is not None:
        schema, metadata = REPROCESS_SCHEMA, {_ORIGIN_RECIPE: origin.encode()}
    shard = pa.array(np.arange(images.num_rows, dtype=np.int32))
    numbered = images.append_column("shard", pc.divide(shard, pa.scalar(shard_size, pa.int32())))
    if evaluation is not None:
        metadata[_EVALUATION] = evaluation.model_dump_json().encode()
    table = numbered.select(schema.names).cast(schema).replace_schema_metadata(metadata)
    out = io.BytesIO()
    pq.write_table(table, out, compression="ZSTD", row_group_size=shard_size)
    return out.getvalue()


def runs(output: str, fingerprint: str) -> list[str]:
    """The recipe's planned runs, oldest first."""
    found = storage.names(_folder(output, fingerprint))
    return [name[4:-8] for name in found if name.startswith("run=") and name.endswith(".parquet")]


def shards(output: str, fingerprint: str, run: str) -> list[Shard]:
    """The run's shards."""
    with storage.open_read(_location(output, fingerprint, run)) as file:
        metadata = pq.ParquetFile(file).metadata
        counts = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    return [Shard(run, index, images) for index, images in enumerate(counts)]


def origin(output: str, fingerprint: str, run: str) -> str | None:
    """The recipe whose images the run labels anew; None for a run over a source."""
    found = _metadata(output, fingerprint, run).get(_ORIGIN_RECIPE)
    return None if found is None else found.decode()


def evaluation(output: str, fingerprint: str, run: str) -> Evaluation:
    """How the run's masks are held against the truth; the defaults where its plan does not say."""
    found = _metadata(output, fingerprint, run).get(_EVALUATION)
    return Evaluation() if found is None else Evaluation.model_validate_json(found)


def _metadata(output: str, fingerprint: str, run: str) -> dict[bytes, bytes]:
    with storage.open_read(_location(output, fingerprint, run)) as file:
        return pq.ParquetFile(file).metadata.metadata or {}


def pending(output: str, fingerprint: str, of: Sequence[str] | None = None) -> list[Shard]:
    """The shards that are not committed: of these runs, or of all the recipe's."""
    missing: list[Shard] = []
    for run in runs(output, fingerprint) if of is None else of:
        done = masks.committed(output, fingerprint, run)
        missing += [shard for shard in shards(output, fingerprint, run) if shard.number not in done]
    return missing


def read_shard(output: str, fingerprint: str, run: str, shard: int) -> list[ImageRef]:
    """The references of one shard's images."""
    with storage.open_read(_location(output, fingerprint, run)) as file:
        table = pq.ParquetFile(file).read_row_group(shard)
    found = list(refs(table))
    if ORIGIN_COLUMNS[0] not in table.column_names:
        return found
    origins = zip(*(table[name].to_pylist() for name in ORIGIN_COLUMNS), strict=True)
    return [ref._replace(origin=Origin(*place)) for ref, place in zip(found, origins, strict=True)]


def _read(output: str, fingerprint: str, run: str, columns: Sequence[str]) -> pa.Table:
    """The run's images, shard after shard."""
    with storage.open_read(_location(output, fingerprint, run)) as file:
        return pq.ParquetFile(file).read(columns=list(columns))


def read_run(output: str, fingerprint: str, run: str) -> pa.Table:
    """The run's plan, a table of PLAN_SCHEMA: a shard's images lie together in the order of the shard's rows."""
    return _read(output, fingerprint, run, PLAN_SCHEMA.names)


def _claimed_name(output: str, fingerprint: str, number: int, today: date) -> str:
    """The name of the recipe's n-th run, whoever plans it."""
    location = storage.join(_folder(output, fingerprint), f"{number:06d}.claim")
    storage.put_if_absent(location, f"{today.isoformat()}-{number:04d}".encode())
    return storage.read(location).decode()


def _folder(output: str, fingerprint: str) -> str:
    return storage.join(output, "plans", f"recipe={fingerprint}")


def _location(output: str, fingerprint: str, run: str) -> str:
    return storage.join(_folder(output, fingerprint), f"run={run}.parquet")


def newest_run(output: str, recipe: str | None, run: str | None) -> tuple[str, str]:
    """(fingerprint, run): the current recipe and its newest run, where nothing else is named.

    Raises ConfigError for a recipe or run that is not in the output.
    """
    fingerprint = recipe if recipe is not None else recipes.current(output)
    recipes.read_document(output, fingerprint)
    planned = runs(output, fingerprint)
    if run is None and planned:
        return fingerprint, planned[-1]
    if run is None or run not in planned:
        raise ConfigError(
            f"no run {run or ''} of recipe {fingerprint} in {output}; there is {', '.join(planned) or 'none'}"
        )
    return fingerprint, run
