"""FCN-32s (Long, Shelhamer, Darrell 2015, section 4.1): VGG-16 as a convolutional net, upsampled 32 times at once."""

from collections.abc import Mapping

from torch import Tensor, nn

from pipeline.frontends import trunks
from pipeline.frontends.heads import fcn
from pipeline.frontends.heads.fcn import LightFCN, OriginalFCN, Upsampling
from pipeline.frontends.trunks import TrunkArchitecture
from pipeline.preprocessing import Preprocessing

WEIGHTS = None
CLASSES = "VOC-21"
PREPROCESSING = fcn.CAFFE
Architecture = TrunkArchitecture


class OriginalFCN32s(OriginalFCN):
    """float32 [N, 3, H, W] -> logits at stride 32."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture, last="upscore", offset=19)
        self.upscore = Upsampling(architecture.classes, 32)

    def forward(self, x: Tensor) -> Tensor:
        _, _, pool5 = self.pools(x)
        return self.upscored(self.coarse(pool5), x)


def Network(architecture: Architecture) -> nn.Module:
    """The published network on VGG-16, the light heads on any other trunk."""
    return OriginalFCN32s(architecture) if architecture.trunk == "vgg16" else LightFCN(architecture, finest=32)


def preprocessing_of(architecture: Architecture) -> Preprocessing:
    """The trunk's own, where it has one."""
    return trunks.PREPROCESSING.get(architecture.trunk, PREPROCESSING)


def architecture_of(state: Mapping[str, Tensor]) -> Architecture:
    """The architecture of weights that carry no notes."""
    return fcn.architecture_of(state, Architecture)
