"""What DeepLab v1, v2 and v3 share: their photographs, scales, and the way back to image size."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.preprocessing import Preprocessing
from pipeline.scores import Crop, Resize, Step

CAFFE = Preprocessing(channels="bgr", mean=(104.008, 116.669, 122.675), std=(1, 1, 1))


def caffe_steps(height: int, width: int) -> tuple[Step, ...]:
    """From what VGG-16 gives at stride 8 to (H, W): the first score is of the first pixel, the next of the ninth."""
    rows, columns = (8 * math.ceil((size - 1) / 8) + 1 for size in (height, width))
    return Resize(rows, columns, align_corners=True), Crop(height, width)


def at_scales(network: Callable[[Tensor], Tensor], x: Tensor, scales: tuple[float, ...]) -> Tensor:
    """The largest of the logits of each pixel at several scales (Chen et al. 2018, section 4.1), brought to the first.

    A scale at which nothing of the photograph is left is passed over.
    """
    logits = network(x)
    for scale in scales:
        if min(x.shape[-2:]) * scale >= 1:
            smaller = network(F.interpolate(x, scale_factor=scale, mode="bilinear"))
            logits = torch.maximum(logits, F.interpolate(smaller, logits.shape[-2:], mode="bilinear"))
    return logits
