"""Local files and object stores. The only module that uses fsspec.

Locations are plain local paths or fsspec URLs. What a store refuses for good (absent, denied) is told apart from
what may pass (a reset connection, a full disk): the latter is tried again before it becomes a StorageError.
"""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, TypeVar

import fsspec
import tenacity
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import AbsentError, DeniedError, StorageError
from pipeline.storage import failures, local

ATTEMPTS = 4
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "hf": "hf"} | dict.fromkeys(
    ("az", "abfs", "abfss"), "azure"
)
T = TypeVar("T")
_SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]+)://")
# "user:password@" before the host; Azure's "container@account" is none.
_USER = re.compile(r"^(?!abfss?:|az:|adl:)[^/]*://[^/]*@")
# A query whose keys sign or authorise: X-Amz-Signature, X-Goog-Credential, sig, token, AWSAccessKeyId ...
_SECRET_KEY = r"(?:[^=&]*(?:signature|credential|token|secret|password|key)[^=&]*|sig)"
_SIGNED = re.compile(rf"^[^?]*://[^?]*\?(?:.*&)?{_SECRET_KEY}=", re.IGNORECASE)
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://[^\s'\"<>]+")


class Entry(NamedTuple):
    """One object of a listing."""

    location: str
    etag: str
    size: int


def is_remote(location: str) -> bool:
    """Whether the location is a URL of an object store."""
    scheme = _SCHEME.match(location)
    return bool(scheme) and scheme[1] not in ("file", "local")  # type: ignore[index]


def join(base: str, *parts: str) -> str:
    """``base/part/part``."""
    return "/".join([base.rstrip("/") or "/", *parts]).replace("//", "/", 1 if base == "/" else 0)


def absolute(location: str) -> str:
    """A local path made absolute, so that it means the same to every worker; a URL as it is."""
    if is_remote(location):
        return location.rstrip("/")
    return os.path.abspath(os.path.expanduser(re.sub(r"^(file|local)://", "", location)))


def filesystem(location: str) -> tuple[Any, str]:
    """The fsspec file system of a location and the path in it.

    Raises AbsentError where the scheme is unknown, StorageError where its client is not installed.
    """
    scheme = _SCHEME.match(location)
    if not is_remote(location):
        return LocalFileSystem(), absolute(location)
    assert scheme is not None
    if _USER.match(location):
        raise DeniedError(f"{public(location)} carries credentials; put them into the environment instead")
    try:
        fs, path = fsspec.core.url_to_fs(location, use_listings_cache=False)
    except ImportError as error:
        extra = EXTRAS.get(scheme[1], scheme[1])
        raise StorageError(f"{scheme[1]}:// needs a client: pip install 'densemask[{extra}]'") from error
    except ValueError as error:
        raise AbsentError(f"{public(location)}: {error}") from error
    return fs, path


def public(location: str) -> str:
    """The location without anything secret: no user, password, signature or token."""
    if not is_remote(location):
        return location
    if _USER.match(location):
        location = re.sub(r"://[^/]*@", "://", location)
    # A query holds a key and a value; a lone question mark is part of a file's name in an object store.
    return re.sub(r"\?.*$" if location.startswith("http") else r"\?.*=.*$", "", location)


def has_secret(location: str) -> bool:
    """Whether the location carries a user, a password, a signature or a token."""
    return is_remote(location) and bool(_USER.match(location) or _SIGNED.match(location))


def scrubbed(text: str) -> str:
    """A message in which every URL is a `public` one."""
    return _URL.sub(lambda found: public(found[0]), text)


def read(location: str, start: int | None = None, end: int | None = None) -> bytes:
    """The object's bytes, or those of [start, end).

    Raises AbsentError or DeniedError at once, StorageError after the retries.
    """
    fs, path = filesystem(location)
    return _retried(lambda: fs.cat_file(path, start=start, end=end), "read", location)


def open_read(location: str, ahead: bool = True) -> IO[bytes]:
    """A seekable reader of the object. Without ``ahead`` it fetches what is asked for and no more."""
    fs, path = filesystem(location)
    options = {} if ahead else {"cache_type": "none"}
    return _retried(lambda: fs.open(path, "rb", **options), "open", location)


def put(location: str, data: bytes, scratch: str | None = None) -> None:
    """Writes the object whole, in place of what was there.

    ``scratch`` is the folder for temporary files of a local one: on the same disk, ``.tmp`` beside it if left out.
    """
    fs, path = filesystem(location)
    if isinstance(fs, LocalFileSystem):
        _retried(lambda: local.replace(Path(path), data, _local_folder(scratch)), "write", location)
    else:
        _retried(lambda: fs.pipe_file(path, data), "write", location)


def put_file(location: str, file: str, scratch: str | None = None) -> None:
    """As `put`, with the content of a local file, which need not fit into memory."""
    fs, path = filesystem(location)
    if isinstance(fs, LocalFileSystem):
        _retried(lambda: local.replace(Path(path), Path(file), _local_folder(scratch)), "write", location)
    else:
        _retried(lambda: fs.put_file(file, path), "write", location)


def put_if_absent(location: str, data: bytes) -> bool:
    """Writes the object whole unless it exists: True where this call wrote it.

    One conditional put: ``os.link`` locally, ``If-None-Match: *`` or its like on object stores.
    """
    fs, path = filesystem(location)
    if isinstance(fs, LocalFileSystem):
        return _retried(lambda: local.link(Path(path), data), "write", location)

    def attempt() -> bool:
        try:
            fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        except Exception:
            # Stores report the lost race in their own ways (SeaweedFS: EINVAL); that the object is there says it.
            if fs.exists(path):
                return False
            raise
        return True

    return _retried(attempt, "write", location)


def exists(location: str) -> bool:
    """Whether there is an object or folder at the location."""
    fs, path = filesystem(location)
    return _retried(lambda: fs.exists(path), "look up", location)


def is_folder(location: str) -> bool:
    """Whether there is a folder (or a prefix with objects) at the location."""
    fs, path = filesystem(location)
    return _retried(lambda: fs.isdir(path), "look up", location)


def stat(location: str) -> Entry:
    """The object's entry. Raises AbsentError where there is none."""
    fs, path = filesystem(location)
    return _entry(location, _retried(lambda: fs.info(path), "look up", location))


def names(folder: str) -> list[str]:
    """The names directly in a folder, sorted; none where the folder does not exist."""
    fs, path = filesystem(folder)
    try:
        found = _retried(lambda: fs.ls(path, detail=False), "list", folder)
    except AbsentError:
        return []
    return sorted(PurePosixPath(name).name for name in found if name.rstrip("/") != path.rstrip("/"))


def walk(folder: str) -> Iterator[Entry]:
    """All objects below a folder, one at a time, hidden ones left out.

    Local folders are scanned as they are read, S3 prefixes a page of 1,000 keys at a time; other stores a folder at a
    time. Raises AbsentError where there is no such folder or bucket.
    """
    fs, path = filesystem(folder)
    if isinstance(fs, LocalFileSystem):
        if not os.path.isdir(path):
            raise AbsentError(f"there is no folder {folder}")
        yield from map(Entry._make, local.walk(path))
    elif "s3" in fs.protocol:
        yield from _walk_s3(fs, path, folder)
    else:
        yield from _walk_folders(fs, path, folder)


def delete(location: str) -> None:
    """Removes an object, or a folder with all that is in it; nothing where there is none."""
    fs, path = filesystem(location)
    try:
        _retried(lambda: fs.rm(path, recursive=True), "delete", location)
    except AbsentError:
        return


def sweep(output: str) -> None:
    """Removes what killed writers left in a local output's temporary folder. Object stores keep no halves."""
    if not is_remote(output):
        local.sweep(absolute(output))


def _local_folder(location: str | None) -> Path | None:
    return None if location is None else Path(absolute(location))


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _walk_s3(fs: Any, path: str, folder: str) -> Iterator[Entry]:
    bucket, _, prefix = path.strip("/").partition("/")
    query = {"Bucket": bucket, "Prefix": f"{prefix}/" if prefix else ""}
    while True:
        page = _retried(lambda: fs.call_s3("list_objects_v2", **query), "list", folder)
        for item in page.get("Contents", ()):
            name = item["Key"].removeprefix(query["Prefix"])
            if name and not _hidden(name) and not name.endswith("/"):
                yield Entry(join(folder, name), item["ETag"].strip('"'), item["Size"])
        if not page.get("IsTruncated"):
            return
        query["ContinuationToken"] = page["NextContinuationToken"]


def _walk_folders(fs: Any, path: str, folder: str) -> Iterator[Entry]:
    try:
        for _, _, files in fs.walk(path, detail=True, on_error="raise"):
            for info in files.values():
                name = info["name"].removeprefix(path).lstrip("/")
                if not _hidden(name):
                    yield _entry(join(folder, name), info)
    except Exception as error:  # a walk that broke off cannot be taken up again
        failure = _permanent(error, "list", folder)
        raise failure or StorageError(f"cannot list {public(folder)}: {scrubbed(failures.detail(error))}") from error


def _entry(location: str, info: dict[str, Any]) -> Entry:
    size = int(info.get("size") or 0)
    if "mtime" in info and "ino" in info:
        return Entry(location, local.etag(os.stat(info["name"]).st_mtime_ns, size), size)
    for key in ("ETag", "etag", "md5Hash", "md5", "blob_id", "sha256", "LastModified", "last_modified", "mtime"):
        if info.get(key):
            return Entry(location, str(info[key]).strip('"'), size)
    return Entry(location, f"size-{size}", size)


def _retried(action: Callable[[], T], verb: str, location: str) -> T:
    """The action's result, after up to ATTEMPTS tries where its failure may pass."""
    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_random_exponential(multiplier=0.3, max=5),
        retry=tenacity.retry_if_exception(lambda error: _permanent(error, verb, location) is None),
        reraise=True,
    )
    try:
        return retrying(action)
    except StorageError:
        raise
    except Exception as error:
        permanent = _permanent(error, verb, location)
        if permanent is not None:
            raise permanent from error
        raise StorageError(
            f"cannot {verb} {public(location)} ({ATTEMPTS} attempts): {scrubbed(failures.detail(error))}"
        ) from error


def _permanent(error: BaseException, verb: str, location: str) -> StorageError | None:
    """The error that no second try can mend, or None."""
    if isinstance(error, StorageError):
        return error
    found = failures.permanent(error, writing=verb == "write")
    if found is None:
        return None
    kind, reason = found
    return kind(f"cannot {verb} {public(location)}: {scrubbed(reason)}")
