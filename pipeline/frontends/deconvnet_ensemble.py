"""EDeconvNet (Noh, Hong, Han 2015, section 4.4): DeconvNet and FCN-8s together, each with its own weights."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.frontends import deconvnet, fcn8s
from pipeline.frontends.heads.fcn import CAFFE, cropped
from pipeline.scores import Step

WEIGHTS = None
CLASSES = "VOC-21"
PREPROCESSING = CAFFE
PARTS = {"deconvnet.": "deconvnet", "fcn.": "fcn8s"}


class Architecture(deconvnet.Architecture):
    """What varies: classes, width of both, DeconvNet's windows, and how the scores of the two are merged."""

    merge: Literal["product", "mean"] = "product"


class Network(nn.Module):
    """float32 [N, 3, H, W] -> logits [N, C, H, W].

    Merged as in the released code (DeconvNet's scores times the positive ones of FCN-8s) or as in the paper (the mean
    of their probabilities).
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.deconvnet = deconvnet.Network(architecture)
        self.fcn = fcn8s.OriginalFCN8s(fcn8s.Architecture(classes=architecture.classes, width=architecture.width))
        self.merge = architecture.merge

    def forward(self, x: Tensor) -> Tensor:
        scores, others = self.deconvnet(x), self.fcn(x)
        if self.fcn.steps(*x.shape[-2:]):
            others = cropped(self.fcn.upscore8(others), self.fcn.offset, x)
        if self.merge == "product":
            return scores * others.clamp(min=0)
        return torch.logaddexp(scores.log_softmax(1), others.log_softmax(1))

    def steps(self, height: int, width: int) -> tuple[Step, ...]:
        return ()


def architecture_of(state: Mapping[str, Tensor]) -> Architecture:
    """The architecture of weights that carry no notes."""
    prefix = "deconvnet."
    own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    return Architecture(**deconvnet.architecture_of(own).model_dump())
