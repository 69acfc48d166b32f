"""What torchvision's segmentation networks share: a dilated backbone, a classifier on its last features, and an
auxiliary one that helped in training and takes no part in scores."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from pipeline.frontends.trunks import Trunk, TrunkArchitecture, build, he, trunk_of
from pipeline.preprocessing import Preprocessing
from pipeline.scores import Resize, Step

IMAGENET = Preprocessing(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), shorter=520)


class Architecture(TrunkArchitecture):
    """What varies: classes, trunk, width, output stride and the auxiliary classifier."""

    trunk: Trunk = "resnet50"
    output_stride: Literal[8, 16] = 8
    auxiliary: bool = Field(False, description="The weights hold a classifier for training on earlier features.")


class FCNHead(nn.Sequential):
    """A 3x3 convolution to a quarter of the channels, and the classes."""

    def __init__(self, channels: int, classes: int) -> None:
        inner = max(1, channels // 4)
        super().__init__(
            nn.Conv2d(channels, inner, 3, padding=1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv2d(inner, classes, 1),
        )
        he(self)


class OnBackbone(nn.Module):
    """float32 [N, 3, H, W] -> logits at the output stride. Those that inherit add the classifier."""

    classifier: nn.Module

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.backbone = build(architecture, architecture.output_stride)
        if architecture.auxiliary:
            level = 0 if architecture.trunk == "mobilenet_v3" else 1
            self.aux_classifier = FCNHead(self.backbone.channels[level], architecture.classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.backbone(x)[-1])

    def steps(self, height: int, width: int) -> tuple[Step, ...]:
        return (Resize(height, width, align_corners=False),)


def varied(state: Mapping[str, Tensor], scores: str) -> dict[str, Any]:
    """What the tensors tell of their architecture; the name is that of the layer to the classes."""
    trunk = trunk_of(state, "backbone.")
    # Of the published ones the one on MobileNetV3 has stride 16.
    stride = {"output_stride": 16} if trunk.get("trunk") == "mobilenet_v3" else {}
    classes = {"classes": state[scores].shape[0]} if scores in state else {}
    return trunk | stride | classes | {"auxiliary": any(name.startswith("aux_classifier.") for name in state)}
