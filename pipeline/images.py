"""Encoded bytes <-> pixels: photographs as RGB, right way up; masks as indices."""

import io
import warnings
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from pipeline.classes import Palette, palette
from pipeline.errors import ImageError, RejectedImage, TruthError

# The limit is the recipe's and is checked on the header; Pillow's own would only warn.
Image.MAX_IMAGE_PIXELS = None
# A file that is half broken ends as a row or as pixels; Pillow's remarks on the way say neither which nor where.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap height and width


class Photograph(NamedTuple):
    """A decoded image at the size it is scored at, and its full size."""

    rgb: np.ndarray
    height: int
    width: int


def decode(data: bytes, max_pixels: int, max_side: int) -> Photograph:
    """The photograph as uint8 [h, w, 3], its longest side at most ``max_side``, turned as its EXIF orientation says.

    Of an animation the first frame; transparent pixels are laid on white; 16-bit grey keeps its high byte. Raises
    ImageError (unreadable) or RejectedImage with the reason.
    """
    if not data:
        raise ImageError("the file is empty", "empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            _check_size(image, max_pixels)
            width, height = image.size
            image.draft(None, (max_side, max_side))  # JPEG can decode straight to a half, a quarter or an eighth
            image.load()  # a TIFF turns itself here, and drops the orientation
            if image.getexif().get(ExifTags.Base.Orientation) in SIDEWAYS:
                width, height = height, width
            upright = ImageOps.exif_transpose(image)
            return Photograph(np.asarray(_shrunk(_rgb(upright), width, height, max_side)), height, width)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"not an image: it starts with {data[:16]!r}", "no image") from error
    except MemoryError as error:
        raise RejectedImage("not enough memory to decode it", "memory") from error
    except Exception as error:  # Pillow's plug-ins raise whatever a broken file leads them to
        raise ImageError(f"cannot be decoded: {str(error) or type(error).__name__}") from error


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height == 0:
        raise ImageError(f"it is {width}x{height} pixels", "empty")
    if width * height > max_pixels:
        raise RejectedImage(f"{width}x{height} pixels are over the limit of max_pixels = {max_pixels}", "too large")


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        grey = np.asarray(image).astype(np.int64)
        return Image.fromarray((np.clip(grey, 0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        grey = np.nan_to_num(np.asarray(image), nan=0.0)
        scale = 255.0 if grey.max(initial=0.0) <= 1.0 else 1.0
        return Image.fromarray(np.clip(grey * scale, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _shrunk(image: Image.Image, width: int, height: int, max_side: int) -> Image.Image:
    """The image brought down from its full (width, height), of which a decoder may have kept only a fraction."""
    scale = min(1.0, max_side / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)


def enlarge_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Labels uint8 [h, w] at ``size`` (H, W), by the nearest pixel."""
    if labels.shape == size:
        return labels
    return np.asarray(Image.fromarray(labels).resize(size[::-1], Image.Resampling.NEAREST))


def encode_mask(labels: np.ndarray, own: Palette | None = None) -> bytes:
    """Labels uint8 [H, W] as a palette PNG, in the VOC colours where the classes have none of their own."""
    image = Image.fromarray(labels)
    image.putpalette(palette(own).tobytes())
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def decode_mask(data: bytes, size: tuple[int, int] | None = None) -> np.ndarray:
    """The indices of a mask PNG: uint8 [H, W]. Palette images keep their indices.

    Raises TruthError for colour images, ids outside 0..255 and, unread, for masks that are not of ``size`` (H, W).
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            if size is not None and size != (height, width):
                raise TruthError(f"truth is {width}x{height}, the image is {size[1]}x{size[0]}")
            mode, mask = image.mode, np.asarray(image)
    except TruthError:
        raise
    except Exception as error:  # as in `decode`
        raise TruthError(f"truth cannot be decoded: {str(error) or type(error).__name__}") from error
    if mask.ndim != 2 or mask.dtype.kind not in "bui":
        raise TruthError(f"truth is a {mode} image; it must hold a class id a pixel (mode P or L)")
    for extreme in (mask.min(initial=0), mask.max(initial=0)):
        if not 0 <= extreme <= 255:
            raise TruthError(f"truth holds id {extreme}; ids are 0 to 255")
    return mask.astype(np.uint8)


def overlay(
    rgb: np.ndarray, labels: np.ndarray, clear: int | None = 0, opacity: float = 0.55, own: Palette | None = None
) -> np.ndarray:
    """The photograph with the mask's colours over it: uint8 [H, W, 3]. The label ``clear`` (background) has none."""
    colours = palette(own)[labels].astype(np.float32)
    share = np.where(labels == (-1 if clear is None else clear), 0.0, opacity)[..., None].astype(np.float32)
    edge = np.zeros(labels.shape, bool)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    blend = rgb * (1 - share) + colours * share
    blend[edge] = 255
    return blend.astype(np.uint8)
