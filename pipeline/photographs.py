"""Photographs of labelled images, read again: the same ones that were labelled, or a reason why not."""

import io
import re

import numpy as np
from PIL import ExifTags, Image

from pipeline import images, storage
from pipeline.errors import AbsentError, DeniedError, DensemaskError, ImageError
from pipeline.sources import ImageRef
from pipeline.sources.reading import read_part

QUALITY = 95
_LOCAL_ETAG = re.compile(r"^[0-9a-f]+-[0-9a-f]+$")


def read(ref: ImageRef) -> bytes:
    """The photograph's bytes. Raises ImageError where it is gone or its object was changed since it was listed."""
    try:
        if _has_etag_of_store(ref) and storage.stat(ref.uri).etag != ref.etag:
            raise ImageError("the photograph was changed since it was labelled; label it again")
    except (AbsentError, DeniedError) as error:
        raise ImageError(str(error)) from error
    try:
        return read_part(ref.uri, ref.part)
    except DensemaskError:
        raise
    except Exception as error:  # a source that was changed since can lead its readers to anything
        raise ImageError(str(error) or type(error).__name__) from error


def check_size(found: tuple[int, int], labelled: tuple[int, int]) -> None:
    """Raises ImageError where a photograph's size (height, width) is not the one that was labelled."""
    if found != labelled:
        size = f"{found[1]}x{found[0]}, not {labelled[1]}x{labelled[0]}"
        raise ImageError(f"the photograph was changed since: it is {size}")


def pixels(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """The photograph right way up, uint8 [H, W, 3]. Raises ImageError where it is not of ``size`` (H, W)."""
    _is_plain_jpeg(data, size)
    return images.decode(data, size[0] * size[1], max(size)).rgb


def as_jpeg(data: bytes, size: tuple[int, int]) -> bytes:
    """The photograph as a JPEG whose pixels lie as the mask's do: the same bytes, where it is one already.

    Raises ImageError where it is not of ``size`` (H, W).
    """
    if _is_plain_jpeg(data, size):
        return data
    out = io.BytesIO()
    Image.fromarray(pixels(data, size)).save(out, "JPEG", quality=QUALITY, subsampling=0)
    return out.getvalue()


def _is_plain_jpeg(data: bytes, size: tuple[int, int]) -> bool:
    """Whether it is a JPEG in RGB or grey that no viewer turns, by its header; the size is checked there too."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            found = image.size if orientation in images.SIDEWAYS else image.size[::-1]
            kind, mode = image.format, image.mode
    except Exception as error:  # as in `images.decode`
        raise ImageError(f"not an image: it starts with {data[:16]!r}") from error
    check_size(found, size)
    return kind in ("JPEG", "MPO") and mode in ("RGB", "L") and orientation == 1


def _has_etag_of_store(ref: ImageRef) -> bool:
    """Whether the etag is the store's own, and not one that a list brought along."""
    if storage.is_remote(ref.uri):
        return bool(ref.etag) and (ref.bytes is not None or ref.part != "")
    return bool(_LOCAL_ETAG.match(ref.etag))
