"""The bytes behind a reference."""

from pipeline import storage
from pipeline.errors import AbsentError, DeniedError, ImageError
from pipeline.sources.parquet import read_cell


def read_part(uri: str, part: str) -> bytes:
    """The bytes of an object, of a range of it, or of a cell in it; ``part`` as in REF_SCHEMA.

    Raises ImageError where the object is not there or may not be read: that is this image's fault. A store that
    does not answer is not; it raises StorageError.
    """
    try:
        if part.startswith("bytes="):
            start, _, end = part.removeprefix("bytes=").partition("-")
            return storage.read(uri, int(start), int(end))
        if part.startswith("row="):
            row, _, column = part.removeprefix("row=").partition(";column=")
            return read_cell(uri, int(row), column)
        return storage.read(uri)
    except (AbsentError, DeniedError) as error:
        raise ImageError(str(error), "absent" if isinstance(error, AbsentError) else "denied") from error
