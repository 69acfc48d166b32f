"""Rows by an SQL condition, such as ``confidence < 0.8 and list_contains(labels, 15)``. DuckDB judges a row at a time.

A condition sees the columns of the mask shards but for the masks themselves, and the recipe and run of each row.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import masks
from pipeline.errors import ConfigError

_SCHEMA = pa.schema([*masks.SCHEMA, ("recipe", pa.string()), ("run", pa.string())])
COLUMNS = tuple(name for name in _SCHEMA.names if name != "mask")
# Rows are the only thing that a condition can reach: no file, no URL, no variable of this process.
_SEALED = {"enable_external_access": "false", "python_enable_replacements": "false", "lock_configuration": "true"}
_NUMBER = "row number"


def with_origin(rows: pa.Table, fingerprint: str, run: str) -> pa.Table:
    """The rows of one run with two more columns, ``recipe`` and ``run``."""
    for name, value in (("recipe", fingerprint), ("run", run)):
        rows = rows.append_column(name, pa.repeat(pa.scalar(value, pa.string()), len(rows)))
    return rows


def check(condition: str | None) -> None:
    """Raises ConfigError for a condition that no row can be judged by. Reads nothing."""
    matching(pa.Table.from_pylist([{}], _SCHEMA), condition)


def matching(rows: pa.Table, condition: str | None) -> pa.Table:
    """The rows for which the condition holds, in their order and with all their columns; all where it is None.

    ``rows`` has some of the columns of mask shards; with `with_origin` also ``recipe`` and ``run``. Raises ConfigError
    for a condition that is not one, or names a column that is not there.
    """
    if condition is None:
        return rows
    duckdb = _duckdb()
    names = [name for name in rows.column_names if name in COLUMNS]
    numbered = rows.select(names).append_column(_NUMBER, pa.array(np.arange(len(rows))))
    with duckdb.connect(config=_SEALED) as connection:
        try:
            found = connection.from_arrow(numbered).filter(condition).select(f'"{_NUMBER}"').fetchnumpy()
        except duckdb.Error as error:
            reason = str(error).partition("\n")[0]
            raise ConfigError(f"condition {condition!r}: {reason}; columns: {', '.join(names)}") from error
    return rows.take(pa.array(np.sort(found[_NUMBER])))


def _duckdb() -> Any:
    try:
        import duckdb
    except ImportError as error:
        raise ConfigError("conditions are judged by DuckDB: pip install 'densemask[sql]'") from error
    return duckdb
