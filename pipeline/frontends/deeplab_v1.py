"""DeepLab-LargeFOV (Chen et al. 2015, section 3.1): VGG-16 at stride 8, its classifier as a 3x3 kernel of dilation 12.

On a trunk other than VGG-16 the same three layers stand.
"""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.frontends import trunks
from pipeline.frontends.heads.deeplab import CAFFE, caffe_steps
from pipeline.frontends.heads.fcn import score_layer
from pipeline.frontends.trunks import TrunkArchitecture, build, he, scaled, trunk_of, vgg16
from pipeline.preprocessing import Preprocessing
from pipeline.scores import Resize, Step

WEIGHTS = None
CLASSES = "VOC-21"
PREPROCESSING = CAFFE
Architecture = TrunkArchitecture
FIELD_OF_VIEW = 12
CHANNELS = 1024


def add_head(network: nn.Module, channels: int, architecture: Architecture) -> None:
    """fc6, fc7 and fc8 as layers of the network."""
    wide = scaled(CHANNELS, architecture.width)
    head = nn.ModuleDict(
        {"fc6": nn.Conv2d(channels, wide, 3, 1, FIELD_OF_VIEW, FIELD_OF_VIEW), "fc7": nn.Conv2d(wide, wide, 1)}
    )
    he(head)
    for name, layer in (*head.items(), ("fc8", score_layer(wide, architecture.classes))):
        network.add_module(name, layer)


def scored(network: nn.Module, features: Tensor) -> Tensor:
    """What the head makes of the last features."""
    for name in ("fc6", "fc7"):
        features = F.relu(network.get_submodule(name)(features), inplace=True)
        features = F.dropout(features, 0.5, network.training)
    return network.get_submodule("fc8")(features)


class OriginalDeepLab(vgg16.Layers):
    """float32 [N, 3, H, W] -> logits at stride 8; an average pool of 3x3 (pool5a) is before the head."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture.width, output_stride=8)
        he(self)
        add_head(self, self.channels[-1], architecture)

    def forward(self, x: Tensor) -> Tensor:
        return scored(self, F.avg_pool2d(self.pools(x)[-1], 3, 1, 1))

    def steps(self, height: int, width: int) -> tuple[Step, ...]:
        return caffe_steps(height, width)


class LightDeepLab(nn.Module):
    """The head on any trunk: float32 [N, 3, H, W] -> logits at stride 8."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.trunk = build(architecture, output_stride=8)
        add_head(self, self.trunk.channels[-1], architecture)

    def forward(self, x: Tensor) -> Tensor:
        return scored(self, self.trunk(x)[-1])

    def steps(self, height: int, width: int) -> tuple[Step, ...]:
        return (Resize(height, width, align_corners=False),)


def Network(architecture: Architecture) -> nn.Module:
    """The published network on VGG-16, its head on any other trunk."""
    return OriginalDeepLab(architecture) if architecture.trunk == "vgg16" else LightDeepLab(architecture)


def preprocessing_of(architecture: Architecture) -> Preprocessing:
    """The trunk's own, where it has one."""
    return trunks.PREPROCESSING.get(architecture.trunk, PREPROCESSING)


def architecture_of(state: Mapping[str, Tensor]) -> Architecture:
    """The architecture of weights that carry no notes."""
    classes = state["fc8.weight"].shape[0] if "fc8.weight" in state else 21
    return Architecture(classes=classes, **(trunk_of(state) or trunk_of(state, "trunk.")))
