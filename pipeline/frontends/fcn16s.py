"""FCN-16s (Long, Shelhamer, Darrell 2015, section 4.2): the scores of pool 4 join the doubled ones of stride 32."""

from collections.abc import Mapping

from torch import Tensor, nn

from pipeline.frontends import trunks
from pipeline.frontends.heads import fcn
from pipeline.frontends.heads.fcn import LightFCN, OriginalFCN, Upsampling, cropped, score_layer
from pipeline.frontends.trunks import TrunkArchitecture
from pipeline.preprocessing import Preprocessing

WEIGHTS = None
CLASSES = "VOC-21"
PREPROCESSING = fcn.CAFFE
Architecture = TrunkArchitecture


class OriginalFCN16s(OriginalFCN):
    """float32 [N, 3, H, W] -> logits at stride 16."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture, last="upscore16", offset=27)
        self.score_pool4 = score_layer(self.channels[1], architecture.classes)
        self.upscore2 = Upsampling(architecture.classes, 2)
        self.upscore16 = Upsampling(architecture.classes, 16)

    def forward(self, x: Tensor) -> Tensor:
        _, pool4, pool5 = self.pools(x)
        y = self.upscore2(self.coarse(pool5))
        y = y + cropped(self.score_pool4(pool4), 5, y)
        return self.upscored(y, x)


def Network(architecture: Architecture) -> nn.Module:
    """The published network on VGG-16, the light heads on any other trunk."""
    return OriginalFCN16s(architecture) if architecture.trunk == "vgg16" else LightFCN(architecture, finest=16)


def preprocessing_of(architecture: Architecture) -> Preprocessing:
    """The trunk's own, where it has one."""
    return trunks.PREPROCESSING.get(architecture.trunk, PREPROCESSING)


def architecture_of(state: Mapping[str, Tensor]) -> Architecture:
    """The architecture of weights that carry no notes."""
    return fcn.architecture_of(state, Architecture)
