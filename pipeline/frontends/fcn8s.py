"""FCN-8s (Long, Shelhamer, Darrell 2015, section 4.2): the scores of pools 4 and 3 join the doubled coarser ones."""

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor, nn

from pipeline.frontends import trunks
from pipeline.frontends.heads import fcn
from pipeline.frontends.heads.fcn import LightFCN, OriginalFCN, Upsampling, cropped, score_layer
from pipeline.frontends.trunks import TrunkArchitecture
from pipeline.preprocessing import Preprocessing

WEIGHTS = None
CLASSES = "VOC-21"
PREPROCESSING = fcn.CAFFE
AT_ONCE = (0.0001, 0.01)  # pools 3 and 4 by these, so that all three streams learn at one rate


class Architecture(TrunkArchitecture):
    """What varies: classes, trunk, width, and whether the original was trained at once instead of stage by stage."""

    at_once: bool = Field(False, description="VGG-16: pools 3 and 4 are scaled before they are scored.")


class OriginalFCN8s(OriginalFCN):
    """float32 [N, 3, H, W] -> logits at stride 8."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture, last="upscore8", offset=31)
        self.score_pool4 = score_layer(self.channels[1], architecture.classes)
        self.score_pool3 = score_layer(self.channels[0], architecture.classes)
        self.upscore2 = Upsampling(architecture.classes, 2)
        self.upscore_pool4 = Upsampling(architecture.classes, 2)
        self.upscore8 = Upsampling(architecture.classes, 8)
        self.scales = AT_ONCE if architecture.at_once else (1.0, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        pool3, pool4, pool5 = self.pools(x)
        y = self.upscore2(self.coarse(pool5))
        y = y + cropped(self.score_pool4(pool4 * self.scales[1]), 5, y)
        y = self.upscore_pool4(y)
        y = y + cropped(self.score_pool3(pool3 * self.scales[0]), 9, y)
        return self.upscored(y, x)


def Network(architecture: Architecture) -> nn.Module:
    """The published network on VGG-16, the light heads on any other trunk."""
    return OriginalFCN8s(architecture) if architecture.trunk == "vgg16" else LightFCN(architecture, finest=8)


def preprocessing_of(architecture: Architecture) -> Preprocessing:
    """The trunk's own, where it has one."""
    return trunks.PREPROCESSING.get(architecture.trunk, PREPROCESSING)


def architecture_of(state: Mapping[str, Tensor]) -> Architecture:
    """The architecture of weights that carry no notes."""
    return fcn.architecture_of(state, Architecture)
