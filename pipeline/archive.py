"""A recipe's images as they are now: of each the newest row that is committed, and where it lies.

Tables are of REF_SCHEMA and PLACE_COLUMNS: the run, the shard and the row in the shard. They are made of plans alone.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import masks, plan
from pipeline.sources import REF_SCHEMA
from pipeline.where import COLUMNS, matching, with_origin

PLACE_COLUMNS = ("run", "shard", "row")
SCHEMA = pa.schema([*REF_SCHEMA, ("run", pa.string()), ("shard", pa.int32()), ("row", pa.int32())])


def images(output: str, fingerprint: str) -> pa.Table:
    """The recipe's images, each once, in the order of their location; without those of open shards."""
    tables = [SCHEMA.empty_table()]
    for run in plan.runs(output, fingerprint):
        planned = placed(plan.read_run(output, fingerprint, run), run)
        done = pa.array(sorted(masks.committed(output, fingerprint, run)), pa.int32())
        tables.append(planned.filter(pc.is_in(planned["shard"], done)))
    return newest(tables)


def placed(planned: pa.Table, run: str) -> pa.Table:
    """A plan's images with the run and the row of each."""
    shard = planned["shard"].to_numpy()
    row = np.arange(len(shard)) - np.searchsorted(shard, shard)
    places = [pa.repeat(pa.scalar(run, pa.string()), len(shard)), planned["shard"], pa.array(row, pa.int32())]
    return pa.table([*(planned[name] for name in REF_SCHEMA.names), *places], schema=SCHEMA)


def newest(tables: Sequence[pa.Table]) -> pa.Table:
    """Of every image, which is what lies at one location, the row of the last table that has it."""
    every = pa.concat_tables(tables)
    every = every.append_column("order", pa.array(np.arange(len(every))))
    every = every.sort_by([("uri", "ascending"), ("part", "ascending"), ("order", "descending")])
    return every.drop_columns("order").filter(plan.first(every, ("uri", "part")))


def select(output: str, fingerprint: str, table: pa.Table, condition: str | None) -> pa.Table:
    """The images whose rows the condition holds for, as `where.matching` judges it. Reads all rows, without masks."""
    if condition is None:
        return table
    found = [table.slice(0, 0)]
    for run, shard, members in by_shard(table):
        rows = masks.read_shard(
            output, fingerprint, run, shard, [name for name in masks.SCHEMA.names if name in COLUMNS]
        )
        numbered = rows.append_column("row", pa.array(np.arange(len(rows), dtype=np.int32)))
        held = matching(with_origin(numbered, fingerprint, run), condition)["row"]
        found.append(members.filter(pc.is_in(members["row"], held.combine_chunks())))
    return pa.concat_tables(found)


def by_shard(table: pa.Table, names: Sequence[str] = ("run", "shard")) -> Iterator[tuple[str, int, pa.Table]]:
    """The table's rows by (run, shard), those of one together."""
    table = table.sort_by([(name, "ascending") for name in names])
    if not len(table):
        return
    runs, shards = table[names[0]].to_numpy(zero_copy_only=False), table[names[1]].to_numpy()
    starts = [0, *(np.flatnonzero((runs[1:] != runs[:-1]) | (shards[1:] != shards[:-1])) + 1), len(table)]
    for start, end in pairwise(starts):
        yield str(runs[start]), int(shards[start]), table.slice(start, end - start)
