"""DeepLab v3 (Chen et al. 2017) as published for mobile use: MobileNetV2, image pooling and one 1x1 branch."""

from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.frontends.trunks.mobilenet_v2 import MobileNetV2
from pipeline.scores import Crop, Resize
from pipeline.weights import load_strict

WEIGHTS = None
CLASSES = "VOC-21"
SIDE = 513
BRANCH = 256


class Head(nn.Module):
    """Image pooling beside a 1x1 branch -> projection -> classes."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.image_pool = nn.Conv2d(channels, BRANCH, 1)
        self.aspp0 = nn.Conv2d(channels, BRANCH, 1)
        self.project = nn.Conv2d(2 * BRANCH, BRANCH, 1)
        self.classifier = nn.Conv2d(BRANCH, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.relu(self.image_pool(x.mean((2, 3), keepdim=True))).expand(-1, -1, *x.shape[-2:])
        y = torch.cat([pooled, F.relu(self.aspp0(x))], 1)
        return self.classifier(F.relu(self.project(y)))


class DeepLabV3MobileNetV2(nn.Module):
    """float32 [N, 3, 513, 513] -> logits [N, C, 65, 65]."""

    def __init__(self, classes: int, width: float) -> None:
        super().__init__()
        trunk = MobileNetV2(width)
        self.stem, self.blocks = trunk.stem, trunk.blocks
        self.head = Head(trunk.channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        for block in self.blocks:
            y = block(y)
        return self.head(y)


def network(state: Mapping[str, Tensor]) -> nn.Module:
    """The network with these weights; classes and width are theirs."""
    classes = state["head.classifier.bias"].numel() if "head.classifier.bias" in state else 21
    width = state["stem.bias"].numel() / 32 if "stem.bias" in state else 0.5
    return load_strict(lambda: DeepLabV3MobileNetV2(classes, width), state)


def prepare(rgb: np.ndarray) -> tuple[np.ndarray, tuple[Resize | Crop, ...]]:
    """RGB as x / 127.5 - 1, its longest side brought to 513, top left on a mid-grey square."""
    height, width = rgb.shape[:2]
    scale = SIDE / max(height, width)
    inner = max(1, round(height * scale)), max(1, round(width * scale))
    resized = np.asarray(Image.fromarray(rgb).resize(inner[::-1], Image.Resampling.BILINEAR), np.float32)
    canvas = np.zeros((3, SIDE, SIDE), np.float32)
    canvas[:, : inner[0], : inner[1]] = resized.transpose(2, 0, 1) / 127.5 - 1
    square = Resize(SIDE, SIDE, align_corners=True)
    return canvas, (square, Crop(*inner), Resize(height, width, align_corners=True))
