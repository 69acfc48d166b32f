"""FCN on a dilated trunk as torchvision has it: one 3x3 convolution and the classes at stride 8, no skips."""

from collections.abc import Mapping

from torch import Tensor, nn

from pipeline.frontends import trunks
from pipeline.frontends.heads import torchvision
from pipeline.frontends.heads.torchvision import IMAGENET, FCNHead, OnBackbone
from pipeline.preprocessing import Preprocessing

WEIGHTS = None
CLASSES = "VOC-21"
PREPROCESSING = IMAGENET
Architecture = torchvision.Architecture


class Network(OnBackbone):
    """float32 [N, 3, H, W] -> logits at the output stride."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        self.classifier: nn.Module = FCNHead(self.backbone.channels[-1], architecture.classes)


def preprocessing_of(architecture: Architecture) -> Preprocessing:
    """The trunk's own, where it has one."""
    return trunks.PREPROCESSING.get(architecture.trunk, PREPROCESSING)


def architecture_of(state: Mapping[str, Tensor]) -> Architecture:
    """The architecture of weights that carry no notes."""
    return Architecture(**torchvision.varied(state, "classifier.4.weight"))
