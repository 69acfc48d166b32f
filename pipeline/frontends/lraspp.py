"""LR-ASPP (Howard et al. 2019, section 6.3) on MobileNetV3-Large as torchvision has it."""

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline import frontends
from pipeline.frontends.heads.torchvision import IMAGENET
from pipeline.frontends.trunks import he, scaled, trunk_of
from pipeline.frontends.trunks.mobilenet_v3 import MobileNetV3
from pipeline.scores import Resize, Step

WEIGHTS = None
CLASSES = "VOC-21"
PREPROCESSING = IMAGENET
CHANNELS = 128


class Architecture(frontends.Architecture):
    """What varies: the number of classes and the width."""

    width: float = Field(1.0, gt=0, le=4, description="Multiplies the channels of every layer.")


class Head(nn.Module):
    """The last features, weighted by their means, brought to those of stride 8; the classes of both are added."""

    def __init__(self, low: int, high: int, inner: int, classes: int) -> None:
        super().__init__()
        self.cbr = nn.Sequential(nn.Conv2d(high, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU())
        self.scale = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(high, inner, 1, bias=False), nn.Sigmoid())
        self.low_classifier = nn.Conv2d(low, classes, 1)
        self.high_classifier = nn.Conv2d(inner, classes, 1)
        he(self)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        y = self.cbr(high) * self.scale(high)
        y = F.interpolate(y, low.shape[-2:], mode="bilinear")
        return self.low_classifier(low) + self.high_classifier(y)


class Network(nn.Module):
    """float32 [N, 3, H, W] -> logits [N, C, ceil(H/8), ceil(W/8)]."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.backbone = MobileNetV3(architecture.width, output_stride=16)
        low, _, high = self.backbone.channels
        self.classifier = Head(low, high, scaled(CHANNELS, architecture.width), architecture.classes)

    def forward(self, x: Tensor) -> Tensor:
        low, _, high = self.backbone(x)
        return self.classifier(low, high)

    def steps(self, height: int, width: int) -> tuple[Step, ...]:
        return (Resize(height, width, align_corners=False),)


def architecture_of(state: Mapping[str, Tensor]) -> Architecture:
    """The architecture of weights that carry no notes."""
    scores = state.get("classifier.low_classifier.weight")
    width = trunk_of(state, "backbone.").get("width", 1.0)
    return Architecture(classes=21 if scores is None else scores.shape[0], width=width)
