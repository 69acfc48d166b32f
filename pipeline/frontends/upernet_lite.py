"""UPerNet (Xiao et al. 2018), the semantic part, on EfficientNet-Lite0: the default front end.

Pyramid pooling on the coarsest features, a feature pyramid from there to the finest, all levels fused. Its 3x3
convolutions are depthwise separable.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline import frontends
from pipeline.frontends.trunks.efficientnet_lite0 import TAPS, EfficientNetLite0, PaddedConv
from pipeline.preprocessing import Preprocessing
from pipeline.scores import Resize, Step

WEIGHTS = "upernet_efficientnet_lite0_voc21.safetensors"
CLASSES = "VOC-21"
PREPROCESSING = Preprocessing(mean=(127, 127, 127), std=(128, 128, 128), pad_to=32)
LEVELS = {4: (2, 24)} | TAPS  # the last blocks at each stride, and their channels
FEATURES = 1280  # of EfficientNet's last 1x1 convolution, which ImageNet's classes are told apart by
POOLS = (1, 2, 3, 6)


class Architecture(frontends.Architecture):
    """What varies: the number of classes, the stride of the finest level, the channels of the head."""

    stride: Literal[4, 8] = 8
    head: int = Field(128, ge=8, le=1024)


class ConvNormReLU(nn.Sequential):
    """convolution -> batch norm -> ReLU."""

    def __init__(self, channels_in: int, out: int, kernel: int = 1, groups: int = 1) -> None:
        convolution = nn.Conv2d(channels_in, out, kernel, 1, kernel // 2, groups=groups, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(out), nn.ReLU(inplace=True))


def separable(channels_in: int, out: int) -> nn.Sequential:
    """A depthwise 3x3 convolution and a 1x1 convolution, each with batch norm and ReLU."""
    return nn.Sequential(ConvNormReLU(channels_in, channels_in, 3, channels_in), ConvNormReLU(channels_in, out))


class PyramidPooling(nn.Module):
    """The features beside their averages over 1x1, 2x2, 3x3 and 6x6 cells (Zhao et al. 2017)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        # Without batch norm: a cell is one value a channel and image.
        self.reduce = nn.ModuleList(nn.Conv2d(channels, width // 4, 1) for _ in POOLS)
        self.project = separable(channels + width // 4 * len(POOLS), width)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        cells = [
            F.relu(reduce(F.adaptive_avg_pool2d(x, bins))) for reduce, bins in zip(self.reduce, POOLS, strict=True)
        ]
        return self.project(torch.cat([x, *(F.interpolate(cell, size, mode="bilinear") for cell in cells)], 1))


class Network(nn.Module):
    """float32 [N, 3, H, W] -> logits [N, C, ceil(H/s), ceil(W/s)], s the stride of the finest level."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        width = architecture.head
        levels = [level for stride, level in LEVELS.items() if stride >= architecture.stride]
        self.taps = [block for block, _ in levels]
        self.trunk = EfficientNetLite0()
        self.features = PaddedConv(levels[-1][1], FEATURES, 1, 1)
        self.pool = PyramidPooling(FEATURES, width)
        self.laterals = nn.ModuleList(ConvNormReLU(channels, width) for _, channels in levels[:-1])
        self.smooth = nn.ModuleList(separable(width, width) for _ in levels[:-1])
        self.fuse = nn.Sequential(separable(width * len(levels), width), nn.Dropout(0.1))
        self.classifier = nn.Conv2d(width, architecture.classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        features, y = [], self.trunk.stem(x)
        for index, block in enumerate(self.trunk.blocks):
            y = block(y)
            if index in self.taps:
                features.append(y)
        y = self.pool(self.features(features.pop()))
        pyramid = [y]
        for lateral, smooth, feature in zip(self.laterals[::-1], self.smooth[::-1], features[::-1], strict=True):
            fine = lateral(feature)
            y = fine + F.interpolate(y, fine.shape[-2:], mode="bilinear")
            pyramid.append(smooth(y))
        size = y.shape[-2:]
        return self.classifier(
            self.fuse(torch.cat([F.interpolate(level, size, mode="bilinear") for level in pyramid], 1))
        )

    def steps(self, height: int, width: int) -> tuple[Step, ...]:
        return (Resize(height, width, align_corners=False),)


def architecture_of(state: Mapping[str, Tensor]) -> Architecture:
    """The architecture of weights that carry no notes."""
    if "classifier.weight" not in state:
        return Architecture()
    classes, head = state["classifier.weight"].shape[:2]
    return Architecture(classes=classes, head=head, stride=4 if "laterals.2.0.weight" in state else 8)
