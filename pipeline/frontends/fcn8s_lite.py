"""FCN-8s (Long, Shelhamer, Darrell 2015) on EfficientNet-Lite0."""

from collections.abc import Mapping

from torch import Tensor

from pipeline.frontends import Architecture, trunks
from pipeline.frontends.heads.fcn import LightFCN
from pipeline.frontends.trunks import TrunkArchitecture

WEIGHTS = None
CLASSES = "VOC-21"
PREPROCESSING = trunks.PREPROCESSING["efficientnet_lite0"]


class Network(LightFCN):
    """float32 [N, 3, H, W] -> logits [N, C, ceil(H/8), ceil(W/8)]."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(TrunkArchitecture(classes=architecture.classes, trunk="efficientnet_lite0"), finest=8)


def architecture_of(state: Mapping[str, Tensor]) -> Architecture:
    """The architecture of weights that carry no notes."""
    return Architecture(classes=state["head.score5.bias"].numel() if "head.score5.bias" in state else 21)
