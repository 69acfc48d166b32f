"""What a network wants its photographs to look like; its weights carry it."""

from typing import Literal

import numpy as np
from PIL import Image
from pydantic import Field

from pipeline.config import Config
from pipeline.scores import Crop, Resize, Step

Triple = tuple[float, float, float]
MOST_STRETCHED = 4  # times ``shorter`` is the most that the other side gets, so that a strip of a photograph fits


class Preprocessing(Config):
    """RGB uint8 -> (x - mean) / std in the channel order told, resized, then padded with zeros right and below."""

    channels: Literal["rgb", "bgr"] = Field("rgb", description="The order of the channels.")
    mean: Triple = Field((127.5, 127.5, 127.5), description="Grey levels of 255, in the order of channels.")
    std: Triple = Field((127.5, 127.5, 127.5), description="Grey levels of 255, in the order of channels.")
    size: tuple[int, int] | None = Field(None, description="Bring to (height, width) whatever the shape.")
    longest: int | None = Field(None, ge=1, description="Bring the longest side to so many pixels.")
    shorter: int | None = Field(None, ge=1, description="Bring the shorter side to so many pixels.")
    align_corners: bool = Field(False, description="How scores are brought back from the resized image.")
    pad_to: int = Field(1, ge=1, description="Pad either side to at least so many pixels.")


def prepare(rgb: np.ndarray, how: Preprocessing, scale: float = 1.0) -> tuple[np.ndarray, tuple[Step, ...]]:
    """uint8 [H, W, 3] -> (float32 [3, H', W'], the steps from scores of that size to scores of (H, W)).

    The size that the network is used to is multiplied by ``scale``.
    """
    height, width = rgb.shape[:2]
    rows, columns = _used_to(height, width, how)
    inner = max(1, round(rows * scale)), max(1, round(columns * scale))
    if inner != (height, width):
        rgb = np.asarray(Image.fromarray(rgb).resize(inner[::-1], Image.Resampling.BILINEAR))
    padded = max(inner[0], how.pad_to), max(inner[1], how.pad_to)
    order = slice(None, None, -1 if how.channels == "bgr" else 1)
    planes = rgb[..., order].transpose(2, 0, 1).astype(np.float32)
    mean, std = (np.array(value, np.float32)[:, None, None] for value in (how.mean, how.std))
    canvas = np.zeros((3, *padded), np.float32)
    canvas[:, : inner[0], : inner[1]] = (planes - mean) / std
    steps: tuple[Step, ...] = (Crop(*inner),)
    return canvas, steps if inner == (height, width) else (*steps, Resize(height, width, how.align_corners))


def _used_to(height: int, width: int, how: Preprocessing) -> tuple[float, float]:
    """The size at which the network is used to a photograph of this one, not rounded."""
    if how.size is not None:
        return how.size
    if how.longest is not None:
        scale = how.longest / max(height, width)
    elif how.shorter is not None:
        scale = min(how.shorter / min(height, width), MOST_STRETCHED * how.shorter / max(height, width))
    else:
        return height, width
    return height * scale, width * scale
