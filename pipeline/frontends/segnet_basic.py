"""SegNet-Basic (Badrinarayanan, Kendall, Cipolla 2017, section 4.1): four 7x7 encoders, four 7x7 decoders without
ReLU, local response normalisation before them and a 1x1 classifier behind."""

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline import frontends
from pipeline.frontends.trunks import he, scaled
from pipeline.preprocessing import Preprocessing
from pipeline.scores import Step

WEIGHTS = None
CLASSES = "CamVid-11"
PREPROCESSING = Preprocessing(channels="bgr", mean=(0, 0, 0), std=(1, 1, 1))
CHANNELS = 64
ENCODER = ("conv1", "conv2", "conv3", "conv4")
DECODER = ("conv_decode4", "conv_decode3", "conv_decode2", "conv_decode1")
CLASSIFIER = "conv_classifier"


class Architecture(frontends.Architecture):
    """What varies: the number of classes and the width."""

    classes: int = Field(11, ge=1)
    width: float = Field(1.0, gt=0, le=4, description="Multiplies the channels of every convolution.")


class Network(nn.Module):
    """float32 [N, 3, H, W] -> logits [N, C, H, W]."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        channels, out = 3, scaled(CHANNELS, architecture.width)
        for name in ENCODER + DECODER:
            self.add_module(name, nn.Conv2d(channels, out, 7, padding=3))
            self.add_module(f"{name}_bn", nn.BatchNorm2d(out))
            channels = out
        self.add_module(CLASSIFIER, nn.Conv2d(channels, architecture.classes, 1))
        he(self)

    def forward(self, x: Tensor) -> Tensor:
        x = F.local_response_norm(x, 5, alpha=1e-4, beta=0.75)
        pooled = []
        for name in ENCODER:
            x = F.relu(self._normed(x, name), inplace=True)
            size = x.shape[-2:]
            x, maxima = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
            pooled.append((maxima, size))
        for name in DECODER:
            maxima, size = pooled.pop()
            x = self._normed(F.max_unpool2d(x, maxima, [2, 2], output_size=list(size)), name)
        return self.get_submodule(CLASSIFIER)(x)

    def _normed(self, x: Tensor, name: str) -> Tensor:
        return self.get_submodule(f"{name}_bn")(self.get_submodule(name)(x))

    def steps(self, height: int, width: int) -> tuple[Step, ...]:
        return ()


def architecture_of(state: Mapping[str, Tensor]) -> Architecture:
    """The architecture of weights that carry no notes."""
    last = state.get(f"{CLASSIFIER}.weight")
    if last is None:
        return Architecture()
    return Architecture(classes=last.shape[0], width=last.shape[1] / CHANNELS)
