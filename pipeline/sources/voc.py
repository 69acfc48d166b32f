"""The PASCAL VOC layout: JPEGImages/, SegmentationClass/, ImageSets/Segmentation/SPLIT.txt."""

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.config import Source
from pipeline.errors import AbsentError, SourceError
from pipeline.sources.columns import read_lines
from pipeline.sources.folder import LISTING, listing, matched, references


def list_voc(source: Source) -> pa.Table:
    """The split's images, or all with masks and without if no split is named. An id in the split whose file is
    missing stays in the table, so that it becomes a row."""
    root = source.location
    images = listing(storage.join(root, "JPEGImages"))
    if source.split is None:
        ids, found = images["stem"], images
        uris = found["uri"]
    else:
        ids = _split(root, source.split)
        found = images.take(pc.index_in(ids, value_set=images["stem"].combine_chunks()))
        missing = pc.binary_join_element_wise(storage.join(root, "JPEGImages", ""), ids, ".jpg", "")
        uris = pc.coalesce(found["uri"], missing)
    etags = pc.coalesce(found["etag"], pa.scalar("absent"))
    return references(ids, uris, etags, found["bytes"], matched(ids, _masks(source), "uri"))


def _split(root: str, split: str) -> pa.ChunkedArray:
    folder = storage.join(root, "ImageSets", "Segmentation")
    alternatives = (folder, storage.join(root, "ImageSets"))
    for place in alternatives:
        location = storage.join(place, f"{split}.txt")
        if storage.exists(location):
            return pc.utf8_trim_whitespace(read_lines(location))
    files = [name for place in alternatives for name in storage.names(place)]
    known = [name.removesuffix(".txt") for name in files if name.endswith(".txt")]
    raise SourceError(f"no split {split!r} in {folder}; there is {', '.join(known) or 'none'}")


def _masks(source: Source) -> pa.Table:
    try:
        return listing(storage.absolute(source.truth or storage.join(source.location, "SegmentationClass")))
    except AbsentError:
        if source.truth:
            raise
        return LISTING.empty_table()
