"""File names for images: an image's id without its suffix, folders and all, made harmless where it must be."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from pipeline import masks

SUFFIXES = (".jpg", ".png")  # that exports put behind a name
LONGEST = 120  # letters of up to four bytes would be too many for a file system, which ends at 255 bytes
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff<>:\"|?*\\]")


def file_names(image_ids: Sequence[str], uris: Sequence[str]) -> list[str]:
    """A relative path without suffix for each image (its id, and where it lies): all differ, on every file system, and
    none leaves its folder, is hidden, or needs a folder where another has a file.

    Where ids come to one name ("a/b.jpg" and "a/b.png"), each gets eight digits of a hash behind it. So a name does not
    depend on the order.
    """
    found = [_harmless(image_id) for image_id in image_ids]
    keys = [_key(name) for name in found]
    counts = Counter(keys)
    folders = {str(parent) for key in keys for parent in PurePosixPath(key).parents}
    folders = {folder for folder in folders if folder.endswith(SUFFIXES)}
    return [
        f"{name}-{_digits(image_id, uri)}"
        if counts[key] > 1 or any(key + suffix in folders for suffix in SUFFIXES)
        else name
        for name, key, image_id, uri in zip(found, keys, image_ids, uris, strict=True)
    ]


def _harmless(image_id: str) -> str:
    path = masks.mask_path(image_id).removesuffix(".png")
    return "/".join(_harmless_part(part) for part in path.split("/"))


def _harmless_part(part: str) -> str:
    """A name of a file or folder. One that had to be cut keeps a hash of what it was."""
    clean = re.sub(r"^[.\s]|[.\s]$", "_", _UNSAFE.sub("_", part))
    if len(clean) > LONGEST or len(clean.encode()) > 2 * LONGEST:
        cut = clean.encode()[:LONGEST].decode(errors="ignore")
        return f"{cut}-{_digits(part)}"
    return clean


def _key(name: str) -> str:
    """What is the same for names that some file system takes for one."""
    return unicodedata.normalize("NFC", name).casefold()


def _digits(*what: str) -> str:
    return hashlib.sha256("\n".join(what).encode(errors="replace")).hexdigest()[:8]
