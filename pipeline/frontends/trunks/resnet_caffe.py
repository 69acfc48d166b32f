"""ResNet-50 and 101 as first published (He et al. 2016, in Caffe): the stride is in a block's first 1x1 convolution.

Layer names are those of kazuto1011's DeepLab: layer1 is the stem, layer2 to layer5 hold the blocks.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.frontends.trunks import he, scaled
from pipeline.frontends.trunks.resnet import BLOCKS, EXPANSION

PLAIN_GRID = (1, 1, 1)
STRIDES = {8: (1, 2, 1, 1), 16: (1, 2, 2, 1), 32: (1, 2, 2, 2)}
DILATIONS = {8: (1, 1, 2, 4), 16: (1, 1, 1, 2), 32: (1, 1, 1, 1)}


class ConvNorm(nn.Module):
    """A convolution that keeps the size at stride 1, batch norm, and ReLU where told."""

    def __init__(
        self, channels_in: int, out: int, kernel: int = 1, stride: int = 1, dilation: int = 1, active: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, out, kernel, stride, kernel // 2 * dilation, dilation, bias=False)
        self.bn = nn.BatchNorm2d(out)
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        return F.relu(y, inplace=True) if self.active else y


class Block(nn.Module):
    """1x1 -> 3x3 -> 1x1 beside the identity, or beside a 1x1 in the first block of a layer."""

    def __init__(self, channels_in: int, inner: int, stride: int, dilation: int, first: bool) -> None:
        super().__init__()
        out = inner * EXPANSION
        self.reduce = ConvNorm(channels_in, inner, stride=stride)
        self.conv3x3 = ConvNorm(inner, inner, 3, dilation=dilation)
        self.increase = ConvNorm(inner, out, active=False)
        self.shortcut = ConvNorm(channels_in, out, stride=stride, active=False) if first else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.increase(self.conv3x3(self.reduce(x))) + self.shortcut(x), inplace=True)


class Layers(nn.Module):
    """The layers, for networks whose weights name them without a prefix.

    ``grid`` multiplies the dilations of the three blocks of layer 5 (Chen et al. 2017, section 3.2).
    """

    def __init__(
        self, name: str, width: float = 1.0, output_stride: int = 32, grid: tuple[int, int, int] = PLAIN_GRID
    ) -> None:
        super().__init__()
        channels = scaled(64, width)
        self.layer1 = nn.ModuleDict({"conv1": ConvNorm(3, channels, 7, 2)})
        for index, repeats in enumerate(BLOCKS[name]):
            stride, dilation = STRIDES[output_stride][index], DILATIONS[output_stride][index]
            inner, blocks = scaled(64 * 2**index, width), nn.Sequential()
            for block in range(repeats):
                own = dilation * (grid[block] if index == 3 else 1)
                first = block == 0
                blocks.add_module(f"block{block + 1}", Block(channels, inner, stride if first else 1, own, first))
                channels = inner * EXPANSION
            self.add_module(f"layer{index + 2}", blocks)
        self.channels = tuple(scaled(64 * 2**index, width) * EXPANSION for index in (1, 2, 3))
        he(self)
        for module in self.modules():
            if isinstance(module, Block):
                nn.init.zeros_(module.increase.bn.weight)  # every block is the identity at first

    def features(self, x: Tensor) -> list[Tensor]:
        """What layers 3, 4 and 5 give."""
        y = F.max_pool2d(self.layer1["conv1"](x), 3, 2, 1, ceil_mode=True)
        found = []
        for index in range(2, 6):
            y = self.get_submodule(f"layer{index}")(y)
            found.append(y)
        return found[1:]
