"""DeconvNet (Noh, Hong, Han 2015): VGG-16 down to one pixel of 4096 channels and, mirrored, back to full size.

It sees 224x224 pixels. A photograph is scored as the paper scores object proposals: windows of several sizes, each
brought to 224x224 and its scores back, and of all of them the largest at each pixel, or zero (section 4.3).
"""

import math
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline import frontends
from pipeline.frontends.heads.fcn import CAFFE
from pipeline.frontends.trunks import he, scaled
from pipeline.frontends.trunks.vgg16 import STAGES
from pipeline.inference import starts
from pipeline.scores import Step

WEIGHTS = None
CLASSES = "VOC-21"
PREPROCESSING = CAFFE
INPUT = 224
SMALLEST = 112  # the shorter side of a window, unless it is the whole photograph
WIDE = 4096
DECODER = (  # an unpooling before each stage
    (("deconv5_1", 512), ("deconv5_2", 512), ("deconv5_3", 512)),
    (("deconv4_1", 512), ("deconv4_2", 512), ("deconv4_3", 256)),
    (("deconv3_1", 256), ("deconv3_2", 256), ("deconv3_3", 128)),
    (("deconv2_1", 128), ("deconv2_2", 64)),
    (("deconv1_1", 64), ("deconv1_2", 64)),
)
CLASSIFIER = "seg-score-voc"

Share = Annotated[float, Field(gt=0, le=1)]


class Architecture(frontends.Architecture):
    """What varies: classes, width, and the windows of a photograph when it does not train."""

    width: float = Field(1.0, gt=0, le=4, description="Multiplies the channels of every layer.")
    windows: tuple[Share, ...] = Field(
        (1.0, 0.75, 0.5), description="Shares of the photograph's sides; none: it is scored whole, at its own size."
    )


class Network(nn.Module):
    """float32 [N, 3, H, W] -> logits [N, C, H, W]."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.windows, self.classes = architecture.windows, architecture.classes
        channels, wide = 3, scaled(WIDE, architecture.width)
        for stage, (nominal, repeats) in enumerate(STAGES, 1):
            for layer in range(1, repeats + 1):
                out = scaled(nominal, architecture.width)
                self._add(f"conv{stage}_{layer}", f"bn{stage}_{layer}", nn.Conv2d(channels, out, 3, padding=1))
                channels = out
        self._add("fc6", "bnfc6", nn.Conv2d(channels, wide, 7))
        self._add("fc7", "bnfc7", nn.Conv2d(wide, wide, 1))
        self._add("fc6-deconv", "fc6-deconv-bn", nn.ConvTranspose2d(wide, channels, 7))
        for name, nominal in (layer for stage in DECODER for layer in stage):
            out = scaled(nominal, architecture.width)
            self._add(name, norm_of(name), nn.ConvTranspose2d(channels, out, 3, padding=1))
            channels = out
        self.add_module(CLASSIFIER, nn.Conv2d(channels, architecture.classes, 1))
        he(self)

    def _add(self, name: str, norm: str, layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
        self.add_module(name, layer)
        self.add_module(norm, nn.BatchNorm2d(layer.out_channels))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if self.training or not self.windows:
            padded = F.pad(x, (0, max(0, INPUT - width), 0, max(0, INPUT - height)))
            return self.whole(padded)[..., :height, :width]
        scores = x.new_zeros(len(x), self.classes, height, width)
        for top, left, rows, columns in windows(height, width, self.windows):
            here = ..., slice(top, top + rows), slice(left, left + columns)
            seen = F.interpolate(x[here], (INPUT, INPUT), mode="bilinear", antialias=True)
            back = F.interpolate(self.whole(seen), (rows, columns), mode="bilinear", antialias=True)
            scores[here] = scores[here].maximum(back)
        return scores

    def whole(self, x: Tensor) -> Tensor:
        """The scores of an input of 224 pixels a side at least, at its size."""
        pooled = []
        for stage, (_, repeats) in enumerate(STAGES, 1):
            for layer in range(1, repeats + 1):
                x = self._step(x, f"conv{stage}_{layer}", f"bn{stage}_{layer}")
            size = x.shape[-2:]
            x, maxima = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
            pooled.append((maxima, size))
        for name, norm in (("fc6", "bnfc6"), ("fc7", "bnfc7"), ("fc6-deconv", "fc6-deconv-bn")):
            x = self._step(x, name, norm)
        for decoding in DECODER:
            maxima, size = pooled.pop()
            x = F.max_unpool2d(x, maxima, [2, 2], output_size=list(size))
            for name, _ in decoding:
                x = self._step(x, name, norm_of(name))
        return self.get_submodule(CLASSIFIER)(x)

    def _step(self, x: Tensor, name: str, norm: str) -> Tensor:
        return F.relu(self.get_submodule(norm)(self.get_submodule(name)(x)), inplace=True)

    def steps(self, height: int, width: int) -> tuple[Step, ...]:
        return ()


def norm_of(deconvolution: str) -> str:
    """The name of the batch norm behind a deconvolution: debn5_1 behind deconv5_1."""
    return deconvolution.replace("deconv", "debn")


def windows(height: int, width: int, shares: tuple[float, ...]) -> list[tuple[int, int, int, int]]:
    """(top, left, rows, columns) of sliding windows at each share of the sides, neighbours half a window apart.

    Those that would be smaller than the paper's smallest proposal are left out; if none remain it is the whole.
    """
    sizes = [(math.ceil(height * share), math.ceil(width * share)) for share in shares]
    large = [size for size in sizes if min(size) >= SMALLEST] or [(height, width)]
    return [
        (top, left, rows, columns)
        for rows, columns in large
        for top in starts(height, rows, overlap=0.5)
        for left in starts(width, columns, overlap=0.5)
    ]


def architecture_of(state: Mapping[str, Tensor]) -> Architecture:
    """The architecture of weights that carry no notes."""
    scores, widest = state.get(f"{CLASSIFIER}.weight"), state.get("fc7.weight")
    return Architecture(
        classes=21 if scores is None else scores.shape[0], width=1.0 if widest is None else widest.shape[0] / WIDE
    )
