"""WebDataset tar shards: members with one key belong together; beside KEY.jpg its truth is KEY.png or KEY.seg.png."""

import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath

import pyarrow as pa

from pipeline import storage
from pipeline.config import Source
from pipeline.errors import SourceError
from pipeline.sources import IMAGE_SUFFIXES, REF_SCHEMA, batched_table

TRUTH_SUFFIXES = (".seg.png", ".mask.png", ".truth.png", ".png")


def list_webdataset(source: Source) -> pa.Table:
    """The images of one .tar, or of every .tar below a folder. Each is addressed by its byte range in the tar."""
    return batched_table(_rows(source.location), REF_SCHEMA)


def _rows(location: str) -> Iterator[tuple]:
    if location.endswith(".tar"):
        yield from _tar(storage.stat(location), PurePosixPath(location).name)
        return
    root = location.rstrip("/") + "/"
    for entry in storage.walk(location):
        if entry.location.endswith(".tar"):
            yield from _tar(entry, entry.location.removeprefix(root))


def _tar(entry: storage.Entry, name: str) -> Iterator[tuple]:
    """References to the samples of one tar; members of a sample are neighbours, as WebDataset demands."""
    try:
        with storage.open_read(entry.location) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            key = ""
            members: dict[str, tuple[str, int]] = {}
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # else tarfile keeps an object for each
                if not member.isfile():
                    continue
                path = PurePosixPath(member.name)
                stem, dot, suffix = path.name.partition(".")
                member_key = str(path.with_name(stem))
                if member_key != key:
                    yield from _sample(entry, name, key, members)
                    key, members = member_key, {}
                part = f"bytes={member.offset_data}-{member.offset_data + member.size}"
                members[(dot + suffix).lower()] = (part, member.size)
            yield from _sample(entry, name, key, members)
    except tarfile.TarError as error:
        raise SourceError(f"{entry.location} is not a whole tar: {error}") from error


def _sample(entry: storage.Entry, name: str, key: str, members: dict[str, tuple[str, int]]) -> Iterator[tuple]:
    images = [suffix for suffix in members if suffix in IMAGE_SUFFIXES]
    image = next((suffix for suffix in images if suffix != ".png"), images[0] if images else None)
    if image is None:
        return
    truth = next((members[suffix][0] for suffix in TRUTH_SUFFIXES if suffix in members and suffix != image), None)
    part, size = members[image]
    truth_uri = entry.location if truth is not None else None
    yield f"{name}/{key}", entry.location, part, entry.etag, size, truth_uri, truth or ""
