"""SegNet (Badrinarayanan, Kendall, Cipolla 2017): an encoder like VGG-16's, whose pools tell the decoder where each
maximum was; every convolution but the last has batch norm and ReLU."""

from collections.abc import Iterable, Mapping

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
ENCODER = (  # a pool after each stage; the channels of its convolutions
    (("conv1_1", 64), ("conv1_2", 64)),
    (("conv2_1", 128), ("conv2_2", 128)),
    (("conv3_1", 256), ("conv3_2", 256), ("conv3_3", 256)),
    (("conv4_1", 512), ("conv4_2", 512), ("conv4_3", 512)),
    (("conv5_1", 512), ("conv5_2", 512), ("conv5_3", 512)),
)
DECODER = (  # an unpooling before each stage; behind the last one the classes
    (("conv5_3_D", 512), ("conv5_2_D", 512), ("conv5_1_D", 512)),
    (("conv4_3_D", 512), ("conv4_2_D", 512), ("conv4_1_D", 256)),
    (("conv3_3_D", 256), ("conv3_2_D", 256), ("conv3_1_D", 128)),
    (("conv2_2_D", 128), ("conv2_1_D", 64)),
    (("conv1_2_D", 64),),
)
CLASSIFIER = "conv1_1_D"


class Architecture(frontends.Architecture):
    """What varies: the number of classes and the width."""

    classes: int = Field(11, ge=1)
    width: float = Field(1.0, gt=0, le=4, description="Multiplies the channels of every convolution.")


class Network(nn.Module):
    """float32 [N, 3, H, W] -> logits [N, C, H, W]."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        channels = 3
        for name, nominal in (layer for stage in ENCODER + DECODER for layer in stage):
            out = scaled(nominal, architecture.width)
            self.add_module(name, nn.Conv2d(channels, out, 3, padding=1))
            self.add_module(f"{name}_bn", nn.BatchNorm2d(out))
            channels = out
        self.add_module(CLASSIFIER, nn.Conv2d(channels, architecture.classes, 3, padding=1))
        he(self)

    def forward(self, x: Tensor) -> Tensor:
        pooled = []
        for stage in ENCODER:
            x = self._convolved(x, stage)
            size = x.shape[-2:]
            x, maxima = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
            pooled.append((maxima, size))
        for decoding in DECODER:
            maxima, size = pooled.pop()
            x = self._convolved(F.max_unpool2d(x, maxima, [2, 2], output_size=list(size)), decoding)
        return self.get_submodule(CLASSIFIER)(x)

    def _convolved(self, x: Tensor, stage: Iterable[tuple[str, int]]) -> Tensor:
        for name, _ in stage:
            x = F.relu(self.get_submodule(f"{name}_bn")(self.get_submodule(name)(x)), inplace=True)
        return x

    def steps(self, height: int, width: int) -> tuple[Step, ...]:
        return ()


def architecture_of(state: Mapping[str, Tensor]) -> Architecture:
    """The architecture of weights that carry no notes."""
    last, widest = state.get(f"{CLASSIFIER}.weight"), state.get("conv5_3.weight")
    return Architecture(
        classes=11 if last is None else last.shape[0], width=1.0 if widest is None else widest.shape[0] / 512
    )
