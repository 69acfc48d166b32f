"""What an export has done so far: an object a shard in its folder, until it ends; and their content put in order."""

import hashlib
import io
import json
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import AbsentError

_SCHEMA = pa.schema([("rank", pa.int64()), ("described", pa.binary()), ("left_out", pa.string())])


class Part(NamedTuple):
    """One image: its part of the documents, or why it is left out."""

    rank: int
    described: bytes | None
    left_out: str | None


def folder(export: str) -> str:
    """Where it is kept, temporary files of the export included."""
    return storage.join(export, ".parts")


def key(*facts: Any) -> str:
    """The name of a shard's object: another one where anything about the export is another."""
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def read(export: str, name: str) -> list[Part] | None:
    """What was done of a shard; None where it was not."""
    try:
        data = storage.read(_location(export, name))
    except AbsentError:
        return None
    columns = pq.read_table(io.BytesIO(data)).columns
    return [Part(*row) for row in zip(*(column.to_pylist() for column in columns), strict=True)]


def write(export: str, name: str, parts: Sequence[Part]) -> None:
    """Keeps what was done of a shard, all of whose files are written."""
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([part._asdict() for part in parts], _SCHEMA), out, compression="ZSTD")
    storage.put(_location(export, name), out.getvalue(), scratch=folder(export))


def remove(export: str) -> None:
    """Forgets what was done, at the end."""
    storage.delete(folder(export))


class Spool:
    """Parts of documents on local disk: taken in as they come, given back in the order of rank."""

    def __init__(self, images: int) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as the spool
        self._places = np.zeros((images + 1, 2), np.int64)  # start and length by rank; no part is empty

    def add(self, rank: int, described: bytes) -> None:
        """Takes in the part of one image."""
        self._places[rank] = self._file.seek(0, io.SEEK_END), len(described)
        self._file.write(described)

    def __len__(self) -> int:
        return int(np.count_nonzero(self._places[:, 1]))

    def __iter__(self) -> Iterator[bytes]:
        for start, length in self._places.tolist():
            if length:
                self._file.seek(start)
                yield self._file.read(length)

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _location(export: str, name: str) -> str:
    return storage.join(folder(export), f"{name}.parquet")
