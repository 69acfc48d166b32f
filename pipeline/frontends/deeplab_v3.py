"""DeepLab v3 (Chen et al. 2017): a pyramid of a 1x1, three dilated 3x3 and the image's mean, concatenated.

Two forms: the paper's (rates 6, 12, 18 at stride 16 and twice those at 8, multi-grid 1, 2, 4 in the last layer of a
ResNet; names as in kazuto1011's) and torchvision's (rates 12, 24, 36, no multi-grid, one more 3x3 before the classes).
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.frontends import trunks
from pipeline.frontends.heads import torchvision
from pipeline.frontends.heads.deeplab import CAFFE
from pipeline.frontends.heads.torchvision import IMAGENET, OnBackbone
from pipeline.frontends.trunks import build, he, resnet_caffe, scaled, trunk_of
from pipeline.frontends.trunks.resnet import BLOCKS
from pipeline.frontends.trunks.resnet_caffe import ConvNorm
from pipeline.preprocessing import Preprocessing
from pipeline.scores import Resize, Step

WEIGHTS = None
CLASSES = "VOC-21"
PREPROCESSING = IMAGENET
CHANNELS = 256
TORCHVISION_RATES = (12, 24, 36)
PAPER_RATES = {16: (6, 12, 18), 8: (12, 24, 36)}
MULTI_GRID = (1, 2, 4)


class Architecture(torchvision.Architecture):
    """What varies: classes, form, trunk, width, output stride and torchvision's auxiliary classifier."""

    form: Literal["torchvision", "paper"] = "torchvision"


class PaperASPP(nn.Module):
    """The paper's five branches, side by side."""

    def __init__(self, channels: int, out: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        dilated = {f"c{branch}": ConvNorm(channels, out, 3, dilation=rate) for branch, rate in enumerate(rates, 1)}
        pool = nn.ModuleDict({"conv": ConvNorm(channels, out)})
        self.stages = nn.ModuleDict({"c0": ConvNorm(channels, out), **dilated, "imagepool": pool})

    def forward(self, x: Tensor) -> Tensor:
        branches = [stage(x) for name, stage in self.stages.items() if name != "imagepool"]
        mean = self.get_submodule("stages.imagepool.conv")(x.mean((2, 3), keepdim=True))
        return torch.cat([*branches, mean.expand_as(branches[0])], 1)


class PaperHead(nn.Module):
    """The pyramid, a 1x1 and the classes."""

    def __init__(self, channels: int, architecture: Architecture) -> None:
        super().__init__()
        out, rates = scaled(CHANNELS, architecture.width), PAPER_RATES[architecture.output_stride]
        self.aspp = PaperASPP(channels, out, rates)
        self.fc1 = ConvNorm((len(rates) + 2) * out, out)
        self.fc2 = nn.Conv2d(out, architecture.classes, 1)
        he(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(self.aspp(x)))


class PaperOnResNet(resnet_caffe.Layers):
    """The paper's form with its multi-grid: float32 [N, 3, H, W] -> logits at the output stride."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture.trunk, architecture.width, architecture.output_stride, MULTI_GRID)
        for name, layer in PaperHead(self.channels[-1], architecture).named_children():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.features(x)[-1]
        for name in ("aspp", "fc1", "fc2"):
            y = self.get_submodule(name)(y)
        return y

    def steps(self, height: int, width: int) -> tuple[Step, ...]:
        return (Resize(height, width, align_corners=False),)


class PaperOnTrunk(nn.Module):
    """The paper's head on any other trunk: float32 [N, 3, H, W] -> logits at the output stride."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.trunk = build(architecture, architecture.output_stride)
        self.head = PaperHead(self.trunk.channels[-1], architecture)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x)[-1])

    def steps(self, height: int, width: int) -> tuple[Step, ...]:
        return (Resize(height, width, align_corners=False),)


class ASPP(nn.Module):
    """torchvision's five branches, side by side, and their projection."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        branches = [_conv_norm(channels, out, 1)]
        branches += [_conv_norm(channels, out, 3, rate) for rate in TORCHVISION_RATES]
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), *_conv_norm(channels, out, 1))
        self.convs = nn.ModuleList([*branches, pool])
        self.project = _conv_norm(len(self.convs) * out, out, 1).append(nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        branches = [branch(x).expand(-1, -1, *x.shape[-2:]) for branch in self.convs]  # the mean is of one pixel
        return self.project(torch.cat(branches, 1))


class TorchvisionForm(OnBackbone):
    """float32 [N, 3, H, W] -> logits at the output stride."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        out = scaled(CHANNELS, architecture.width)
        self.classifier = nn.Sequential(
            ASPP(self.backbone.channels[-1], out),
            *_conv_norm(out, out, 3),
            nn.Conv2d(out, architecture.classes, 1),
        )
        he(self.classifier)


def Network(architecture: Architecture) -> nn.Module:
    """The published networks, and either form's head on any trunk."""
    if architecture.form == "torchvision":
        return TorchvisionForm(architecture)
    return (PaperOnResNet if architecture.trunk in BLOCKS else PaperOnTrunk)(architecture)


def preprocessing_of(architecture: Architecture) -> Preprocessing:
    """Caffe's in the paper's form on a ResNet, else the trunk's own, where it has one."""
    if architecture.form == "paper" and architecture.trunk in BLOCKS:
        return CAFFE
    return trunks.PREPROCESSING.get(architecture.trunk, PREPROCESSING)


def architecture_of(state: Mapping[str, Tensor]) -> Architecture:
    """The architecture of weights that carry no notes. Those of the paper's form are taken for stride 16."""
    score = state.get("fc2.weight", state.get("head.fc2.weight"))
    if score is None:
        return Architecture(**torchvision.varied(state, "classifier.4.weight"))
    trunk = trunk_of(state) or trunk_of(state, "trunk.")
    return Architecture(classes=score.shape[0], form="paper", output_stride=16, **trunk)


def _conv_norm(channels: int, out: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    pad = kernel // 2 * dilation
    convolution = nn.Conv2d(channels, out, kernel, padding=pad, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out), nn.ReLU())
