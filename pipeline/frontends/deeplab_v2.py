"""DeepLab v2 (Chen et al. 2018): atrous spatial pyramid pooling, the sum of four dilated branches at stride 8.

On VGG-16 it is ASPP-L, whose branches are three layers deep. On a ResNet each is one convolution to the classes, and
the scores of three scales are merged. On any other trunk it is as on a ResNet.
"""

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.frontends import trunks
from pipeline.frontends.heads.deeplab import CAFFE, at_scales, caffe_steps
from pipeline.frontends.heads.fcn import score_layer
from pipeline.frontends.trunks import Trunk, TrunkArchitecture, build, he, resnet_caffe, scaled, trunk_of, vgg16
from pipeline.frontends.trunks.resnet import BLOCKS
from pipeline.preprocessing import Preprocessing
from pipeline.scores import Resize, Step

WEIGHTS = None
CLASSES = "VOC-21"
PREPROCESSING = CAFFE
RATES = (6, 12, 18, 24)
CHANNELS = 1024
Scale = Annotated[float, Field(gt=0, le=4)]


class Architecture(TrunkArchitecture):
    """What varies: classes, trunk, width, and the scales beside 1 whose scores are merged when it does not train."""

    trunk: Trunk = "resnet101"
    scales: tuple[Annotated[float, Field(gt=0, le=4)], ...] = Field(
        (0.5, 0.75), description="Not on VGG-16, which was published without."
    )


class OriginalASPPL(vgg16.Layers):
    """float32 [N, 3, H, W] -> logits at stride 8."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture.width, output_stride=8)
        wide = scaled(CHANNELS, architecture.width)
        for branch, rate in enumerate(RATES, 1):
            self.add_module(f"fc6_{branch}", nn.Conv2d(self.channels[-1], wide, 3, 1, rate, rate))
            self.add_module(f"fc7_{branch}", nn.Conv2d(wide, wide, 1))
        he(self)
        for branch in range(1, len(RATES) + 1):
            self.add_module(f"fc8_{branch}", score_layer(wide, architecture.classes))

    def forward(self, x: Tensor) -> Tensor:
        pool5 = self.pools(x)[-1]
        return torch.stack([self._branch(pool5, branch) for branch in range(1, len(RATES) + 1)]).sum(0)

    def _branch(self, y: Tensor, branch: int) -> Tensor:
        for name in ("fc6", "fc7"):
            y = F.dropout(F.relu(self.get_submodule(f"{name}_{branch}")(y), inplace=True), 0.5, self.training)
        return self.get_submodule(f"fc8_{branch}")(y)

    def steps(self, height: int, width: int) -> tuple[Step, ...]:
        return caffe_steps(height, width)


class ASPP(nn.Module):
    """The sum of a 3x3 convolution to the classes at each rate."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        for branch, rate in enumerate(RATES):
            layer = nn.Conv2d(channels, classes, 3, 1, rate, rate)
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            self.add_module(f"c{branch}", layer)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([branch(x) for branch in self.children()]).sum(0)


class OriginalResNet(resnet_caffe.Layers):
    """float32 [N, 3, H, W] -> logits at stride 8."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture.trunk, architecture.width, output_stride=8)
        self.aspp = ASPP(self.channels[-1], architecture.classes)
        self.scales = architecture.scales

    def forward(self, x: Tensor) -> Tensor:
        return self.at_scale(x) if self.training else at_scales(self.at_scale, x, self.scales)

    def at_scale(self, x: Tensor) -> Tensor:
        """The logits of one scale."""
        return self.aspp(self.features(x)[-1])

    def steps(self, height: int, width: int) -> tuple[Step, ...]:
        return (Resize(height, width, align_corners=False),)


class LightDeepLab(nn.Module):
    """The pyramid on any trunk: float32 [N, 3, H, W] -> logits at stride 8."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.trunk = build(architecture, output_stride=8)
        self.aspp = ASPP(self.trunk.channels[-1], architecture.classes)
        self.scales = architecture.scales

    def forward(self, x: Tensor) -> Tensor:
        return self.at_scale(x) if self.training else at_scales(self.at_scale, x, self.scales)

    def at_scale(self, x: Tensor) -> Tensor:
        """The logits of one scale."""
        return self.aspp(self.trunk(x)[-1])

    def steps(self, height: int, width: int) -> tuple[Step, ...]:
        return (Resize(height, width, align_corners=False),)


def Network(architecture: Architecture) -> nn.Module:
    """The published networks on VGG-16 and on ResNets, the latter's head on any other trunk."""
    if architecture.trunk == "vgg16":
        return OriginalASPPL(architecture)
    if architecture.trunk in BLOCKS:
        return OriginalResNet(architecture)
    return LightDeepLab(architecture)


def preprocessing_of(architecture: Architecture) -> Preprocessing:
    """The trunk's own, where it has one."""
    return trunks.PREPROCESSING.get(architecture.trunk, PREPROCESSING)


def architecture_of(state: Mapping[str, Tensor]) -> Architecture:
    """The architecture of weights that carry no notes."""
    score = state.get("aspp.c0.weight", state.get("fc8_1.weight"))
    classes = 21 if score is None else score.shape[0]
    return Architecture(classes=classes, **(trunk_of(state) or trunk_of(state, "trunk.")))
