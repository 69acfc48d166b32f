"""What FCN-32s, 16s and 8s share (Long, Shelhamer, Darrell 2015): VGG-16 as a convolutional net, and light heads."""

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.frontends.trunks import TrunkArchitecture, build, he, scaled, trunk_of
from pipeline.frontends.trunks.vgg16 import Layers
from pipeline.preprocessing import Preprocessing
from pipeline.scores import Resize, Step, Upscore, upscoring

CAFFE = Preprocessing(channels="bgr", mean=(104.00698793, 116.66876762, 122.67891434), std=(1, 1, 1))
BORDER = 100  # around the photograph, so that fc6 finds its 7x7 in the smallest one
A = TypeVar("A", bound=TrunkArchitecture)


class Upsampling(nn.ConvTranspose2d):
    """A transposed convolution of 2 x stride pixels, at first by the bilinear kernel and each class by itself."""

    def __init__(self, classes: int, stride: int) -> None:
        super().__init__(classes, classes, 2 * stride, stride, bias=False)
        with torch.no_grad():
            nn.init.zeros_(self.weight)
            self.weight.diagonal().copy_(self._kernel()[..., None])

    def _kernel(self) -> Tensor:
        line = torch.from_numpy(upscoring(1, self.stride[0])[:, 0]).float()
        return torch.outer(line, line)

    def is_bilinear(self) -> bool:
        """Whether the kernel is still the first one, to half precision."""
        if self.weight.is_meta:
            return True
        expected = torch.zeros_like(self.weight)
        expected.diagonal().copy_(self._kernel()[..., None])
        return torch.allclose(self.weight, expected, rtol=0, atol=1e-3)


class OriginalFCN(Layers):
    """VGG-16 with a wide border and its classifier as convolutions. Those that inherit add their skips and upsampling.

    ``last`` names the upsampling to image size: as long as it is bilinear it is a step after the network.
    """

    def __init__(self, architecture: TrunkArchitecture, last: str, offset: int) -> None:
        super().__init__(architecture.width, pad=BORDER)
        wide = scaled(4096, architecture.width)
        self.fc6, self.fc7 = nn.Conv2d(self.channels[2], wide, 7), nn.Conv2d(wide, wide, 1)
        he(self)
        self.score_fr = score_layer(wide, architecture.classes)
        self.dropout = nn.Dropout()
        self.last, self.offset = last, offset

    def coarse(self, pool5: Tensor) -> Tensor:
        """The scores at stride 32."""
        y = self.dropout(F.relu(self.fc6(pool5), inplace=True))
        return self.score_fr(self.dropout(F.relu(self.fc7(y), inplace=True)))

    def upscored(self, scores: Tensor, x: Tensor) -> Tensor:
        """The scores as they leave the network: coarse, or at the size of ``x`` by a kernel that was learnt."""
        upsampling = self._last()
        if upsampling.is_bilinear():
            return scores
        return cropped(upsampling(scores), self.offset, x)

    def steps(self, height: int, width: int) -> tuple[Step, ...]:
        upsampling = self._last()
        if upsampling.is_bilinear():
            return (Upscore(height, width, upsampling.stride[0], self.offset),)
        return ()

    def _last(self) -> Upsampling:
        upsampling = self.get_submodule(self.last)
        assert isinstance(upsampling, Upsampling)
        return upsampling


class SkipHeads(nn.Module):
    """A 1x1 score layer on each of strides 32, 16 and 8, down to the finest; coarser scores are doubled and added."""

    def __init__(self, channels: tuple[int, ...], classes: int, finest: int) -> None:
        super().__init__()
        self.levels = [level for level in (5, 4, 3) if 2**level >= finest]
        for level in self.levels:
            self.add_module(f"score{level}", nn.Conv2d(channels[level - 3], classes, 1))

    def forward(self, features: list[Tensor]) -> Tensor:
        y = None
        for level in self.levels:
            scores = self.get_submodule(f"score{level}")(features[level - 3])
            y = scores if y is None else scores + F.interpolate(y, scores.shape[-2:], mode="bilinear")
        assert y is not None
        return y


class LightFCN(nn.Module):
    """The skip heads on any trunk: float32 [N, 3, H, W] -> logits at the finest stride."""

    def __init__(self, architecture: TrunkArchitecture, finest: int) -> None:
        super().__init__()
        self.trunk = build(architecture)
        self.head = SkipHeads(self.trunk.channels, architecture.classes, finest)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x))

    def steps(self, height: int, width: int) -> tuple[Step, ...]:
        return (Resize(height, width, align_corners=False),)


def score_layer(channels: int, classes: int) -> nn.Conv2d:
    """A 1x1 layer that starts at zero: a skip adds nothing at first."""
    layer = nn.Conv2d(channels, classes, 1)
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def cropped(y: Tensor, offset: int, like: Tensor) -> Tensor:
    """``y`` from (offset, offset) on, as large as the other."""
    return y[..., offset : offset + like.shape[-2], offset : offset + like.shape[-1]]


def architecture_of(state: Mapping[str, Tensor], architecture: type[A]) -> A:
    """The architecture of FCN weights that carry no notes."""
    if "score_fr.weight" in state:
        classes, wide = state["score_fr.weight"].shape[:2]
        return architecture(classes=classes, width=wide / 4096)
    score = state.get("head.score5.weight")
    return architecture(classes=21 if score is None else score.shape[0], **trunk_of(state, "trunk."))
