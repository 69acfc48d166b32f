"""Files on this machine's disks: written whole or not at all, listed as they are read."""

import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import DeniedError

STALE_SECONDS = 3600
_IN_OUTPUT = re.compile(
    r"^(.*)/(?:(?:masks|plans|reports|scores)/recipe=[^/]*/.*|nights/[^/]*/[^/]*|recipes/[0-9a-f]{16}\.json)$"
)


def replace(path: Path, data: bytes | Path, scratch: Path | None = None) -> None:
    """Writes the data, or the content of a file, in place of what was there.

    ``scratch`` is the folder for temporary files, on the same disk.
    """
    os.replace(_written_beside(path, data, scratch), path)


def link(path: Path, data: bytes) -> bool:
    """Writes the data unless there is a file: True where this call wrote it."""
    if path.exists():
        return False
    temporary = _written_beside(path, data)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def sweep(output: str) -> None:
    """Removes what killed writers left in an output's temporary folder."""
    for path in Path(output, ".tmp").glob("*"):
        try:
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()
        except OSError:  # gone meanwhile, or another user's
            continue


def walk(path: str) -> Iterator[tuple[str, str, int]]:
    """(path, etag, size) of all files below a folder, hidden ones left out. Raises DeniedError."""
    try:
        scan = os.scandir(path)
    except PermissionError as error:
        raise DeniedError(f"no permission to list {path}") from error
    with scan:
        for item in scan:
            if item.name.startswith("."):
                continue
            if item.is_dir():
                if not (item.is_symlink() and _leads_up(item.path)):
                    yield from walk(item.path)
            else:
                status = item.stat() if item.is_file() else item.stat(follow_symlinks=False)
                yield item.path, etag(status.st_mtime_ns, status.st_size), status.st_size


def facts(path: str) -> tuple[str, int] | None:
    """(etag, size) of a file by one system call; None where it cannot be had."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return etag(status.st_mtime_ns, status.st_size), status.st_size


def etag(mtime_ns: int, size: int) -> str:
    """What stands for a file's content."""
    return f"{mtime_ns:x}-{size:x}"


def _leads_up(link: str) -> bool:
    """Whether the link's target is a folder that the link lies in."""
    target = os.path.realpath(link)
    return os.path.commonpath([target, os.path.realpath(os.path.dirname(link))]) == target


def _written_beside(path: Path, data: bytes | Path, scratch: Path | None = None) -> Path:
    """The data in a temporary file on the same disk, safe against a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = scratch or _temporary_folder(path)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / uuid.uuid4().hex
    try:
        with open(temporary, "xb") as file:
            if isinstance(data, Path):
                with open(data, "rb") as source:
                    shutil.copyfileobj(source, file)
            else:
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _temporary_folder(path: Path) -> Path:
    """``.tmp`` of the output that the path belongs to: the folder above masks/, plans/, reports/ or recipes/."""
    inside = _IN_OUTPUT.match(path.as_posix())
    return Path(inside[1] or "/", ".tmp") if inside else path.parent / ".tmp"
