"""FCN-8s (Long, Shelhamer, Darrell 2015) on EfficientNet-Lite0: the default front end."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.frontends.trunks.efficientnet_lite0 import TAPS, EfficientNetLite0
from pipeline.scores import Crop, Resize
from pipeline.weights import load_strict

WEIGHTS = "fcn8s_efficientnet_lite0_voc21.safetensors"
CLASSES = "VOC-21"
MIN_SIDE = 32


class FCN8sHeads(nn.Module):
    """A 1x1 score layer on each of strides 8, 16 and 32; coarse scores are doubled and added to the finer ones."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.score3, self.score4, self.score5 = (nn.Conv2d(TAPS[stride][1], classes, 1) for stride in (8, 16, 32))

    def forward(self, features: list[Tensor]) -> Tensor:
        stride8, stride16, stride32 = features
        y = self.score4(stride16)
        y = y + F.interpolate(self.score5(stride32), y.shape[-2:], mode="bilinear")
        fine = self.score3(stride8)
        return fine + F.interpolate(y, fine.shape[-2:], mode="bilinear")


class FCN8sLite(nn.Module):
    """float32 [N, 3, H, W] -> logits [N, C, ceil(H/8), ceil(W/8)]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.trunk = EfficientNetLite0()
        self.head = FCN8sHeads(classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x))


def network(state: Mapping[str, Tensor]) -> nn.Module:
    """The network with these weights; the number of classes is theirs."""
    classes = state["head.score5.bias"].numel() if "head.score5.bias" in state else 21
    return load_strict(lambda: FCN8sLite(classes), state)


def prepare(rgb: np.ndarray) -> tuple[np.ndarray, tuple[Resize | Crop, ...]]:
    """RGB as (x - 127) / 128 at the image's own size, padded with mid-grey to at least 32x32."""
    height, width = rgb.shape[:2]
    padded = max(height, MIN_SIDE), max(width, MIN_SIDE)
    canvas = np.zeros((3, *padded), np.float32)
    canvas[:, :height, :width] = (rgb.transpose(2, 0, 1).astype(np.float32) - 127) / 128
    return canvas, (Resize(*padded, align_corners=False), Crop(height, width))
