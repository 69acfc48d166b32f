"""A recipe's images as they are now: of each the newest row that is committed, and where it lies.

Tables are of SCHEMA: REF_SCHEMA and PLACE_COLUMNS, which are the run, the shard and the row in the shard. They are made
of plans alone; rows are read, without their masks, only where a condition or a column asks for them.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import masks, plan, where
from pipeline.sources import REF_SCHEMA

PLACE_COLUMNS = ("run", "shard", "row")
SCHEMA = pa.schema([*REF_SCHEMA, ("run", pa.string()), ("shard", pa.int32()), ("row", pa.int32())])
# Either tells that the rows of two runs are of one image: a source may name a place anew, or move an image in its file.
_SAME = (("uri", "part"), ("uri", "image_id"))
_JUDGED_BY = [name for name in masks.SCHEMA.names if name in where.COLUMNS]


class Judged(NamedTuple):
    """Images of one shard, their rows in the same order, and for which of them a condition holds."""

    images: pa.Table  # of SCHEMA
    rows: pa.Table
    holds: pa.Array  # bool


def images(output: str, fingerprint: str, runs: Sequence[str] | None = None) -> pa.Table:
    """The recipe's images, each once, in the order of runs, shards and rows; without those of open shards.

    Only those of some runs where these are named, oldest first.
    """
    tables = [SCHEMA.empty_table()]
    for run in plan.runs(output, fingerprint) if runs is None else runs:
        planned = _placed(plan.read_run(output, fingerprint, run), run)
        done = pa.array(sorted(masks.committed(output, fingerprint, run)), pa.int32())
        tables.append(planned.filter(pc.is_in(planned["shard"], done)))
    found = pa.concat_tables(tables)
    for names in _SAME:
        found = _newest(found, names)
    return found


def _placed(planned: pa.Table, run: str) -> pa.Table:
    """A plan's images with the run and the row of each."""
    shard = planned["shard"].to_numpy()
    row = np.arange(len(shard)) - np.searchsorted(shard, shard)
    places = [pa.repeat(pa.scalar(run, pa.string()), len(shard)), planned["shard"], pa.array(row, pa.int32())]
    return pa.table([*(planned[name] for name in REF_SCHEMA.names), *places], schema=SCHEMA)


def _newest(every: pa.Table, names: Sequence[str]) -> pa.Table:
    """Of images in the order of their runs that are alike in these columns those of the last run, which may be more."""
    keys = plan.row_keys(every, names).dictionary_encode()
    runs = every["run"].combine_chunks().dictionary_encode().indices.to_numpy()
    image, last = keys.indices.to_numpy(), np.empty(len(keys.dictionary), runs.dtype)
    last[image] = runs  # what is assigned last stays
    return every.filter(pa.array(runs == last[image]))


def select(output: str, fingerprint: str, table: pa.Table, condition: str | None) -> pa.Table:
    """The images whose rows the condition holds for, as `where.matching` judges it. Reads all rows, without masks."""
    if condition is None:
        return table
    found = [shard.images.filter(shard.holds) for shard in judged(output, fingerprint, table, condition)]
    return pa.concat_tables([table.slice(0, 0), *found])


def judged(
    output: str, fingerprint: str, table: pa.Table, condition: str | None, columns: Sequence[str] = ()
) -> Iterator[Judged]:
    """The images a shard at a time, with at least these columns of their rows."""
    for run, shard, members in by_shard(table):
        read = columns if condition is None else _JUDGED_BY
        rows = masks.read_shard(output, fingerprint, run, shard, read).take(members["row"])
        rows = where.with_origin(rows, fingerprint, run).append_column("row", members["row"])
        held = where.matching(rows, condition)["row"].combine_chunks()
        yield Judged(members, rows, pc.is_in(rows["row"], value_set=held))


def by_shard(table: pa.Table, names: Sequence[str] = PLACE_COLUMNS) -> Iterator[tuple[str, int, pa.Table]]:
    """The table's images by (run, shard), those of one together and in the order of their rows."""
    table = table.sort_by([(name, "ascending") for name in names]).combine_chunks()
    if not len(table):
        return
    runs, shards = table[names[0]].to_numpy(zero_copy_only=False), table[names[1]].to_numpy()
    starts = [0, *(np.flatnonzero((runs[1:] != runs[:-1]) | (shards[1:] != shards[:-1])) + 1), len(table)]
    for start, end in pairwise(starts):
        yield str(runs[start]), int(shards[start]), table.slice(start, end - start)
