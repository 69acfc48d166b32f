"""DeepLab v3 (Chen et al. 2017) as published for mobile use: MobileNetV2, image pooling and one 1x1 branch."""

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline import frontends
from pipeline.frontends.trunks.mobilenet_v2 import MobileNetV2
from pipeline.preprocessing import Preprocessing
from pipeline.scores import Resize, Step

WEIGHTS = None
CLASSES = "VOC-21"
PREPROCESSING = Preprocessing(longest=513, pad_to=513, align_corners=True)
BRANCH = 256


class Architecture(frontends.Architecture):
    """What varies: the number of classes and the trunk's width."""

    width: float = Field(0.5, gt=0, le=4)


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


class Network(nn.Module):
    """float32 [N, 3, H, W] -> logits [N, C, ceil(H/8), ceil(W/8)]."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        trunk = MobileNetV2(architecture.width)
        self.stem, self.blocks = trunk.stem, trunk.blocks
        self.head = Head(trunk.channels[-1], architecture.classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        for block in self.blocks:
            y = block(y)
        return self.head(y)

    def steps(self, height: int, width: int) -> tuple[Step, ...]:
        return (Resize(height, width, align_corners=True),)


def architecture_of(state: Mapping[str, Tensor]) -> Architecture:
    """The architecture of weights that carry no notes."""
    classes = state["head.classifier.bias"].numel() if "head.classifier.bias" in state else 21
    return Architecture(classes=classes, width=state["stem.bias"].numel() / 32 if "stem.bias" in state else 0.5)
