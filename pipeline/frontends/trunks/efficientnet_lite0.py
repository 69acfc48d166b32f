"""EfficientNet-Lite0 (Tan and Le 2019; Lite: no squeeze-excite, ReLU6), batch norm folded into convolutions.

Padding is fixed: at stride 2 a 3x3 kernel pads right and bottom by 1, a 5x5 one left and top by 1 and right and
bottom by 2, or as much as the kernel needs on a map that is smaller. Strides past the output stride become dilations.
"""

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F


class Block(NamedTuple):
    """One inverted residual: a row of the paper's table, unrolled."""

    channels_in: int
    channels_out: int
    kernel: int
    stride: int
    expand: int
    dilation: int = 1


STAGES = (  # expand, channels, repeats, stride, kernel
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
STEM = 32
# The last blocks at strides 8, 16 and 32, and their channels.
TAPS = {8: (4, 40), 16: (10, 112), 32: (15, 320)}


def blocks(output_stride: int = 32) -> list[Block]:
    """The 16 blocks in order."""
    unrolled, channels, reached, dilation = [], STEM, 2, 1
    for expand, out, repeats, stage_stride, kernel in STAGES:
        for repeat in range(repeats):
            stride, own_dilation = stage_stride if repeat == 0 else 1, dilation
            if stride == 2 and reached == output_stride:
                stride, dilation = 1, dilation * 2
            reached *= stride
            unrolled.append(Block(channels, out, kernel, stride, expand, own_dilation))
            channels = out
    return unrolled


class PaddedConv(nn.Conv2d):
    """A convolution with the trunk's fixed padding, ReLU6 behind it where told."""

    def __init__(
        self,
        channels_in: int,
        out: int,
        kernel: int,
        stride: int,
        groups: int = 1,
        active: bool = True,
        dilation: int = 1,
    ) -> None:
        pad = 0 if stride == 2 else kernel // 2 * dilation
        super().__init__(channels_in, out, kernel, stride, pad, dilation, groups)
        self.active = active
        self.before, self.after = (kernel - 2) // 2, (kernel - 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] == 2:
            rows, columns = (max(self.after, self.kernel_size[0] - self.before - size) for size in x.shape[-2:])
            x = F.pad(x, (self.before, columns, self.before, rows))
        y = super().forward(x)
        return F.relu6(y, inplace=True) if self.active else y


class InvertedResidual(nn.Module):
    """expand 1x1 -> depthwise -> project 1x1, with the identity added where the shapes allow it."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        hidden = block.channels_in * block.expand
        self.expand = PaddedConv(block.channels_in, hidden, 1, 1) if block.expand > 1 else nn.Identity()
        self.depthwise = PaddedConv(hidden, hidden, block.kernel, block.stride, hidden, dilation=block.dilation)
        self.project = PaddedConv(hidden, block.channels_out, 1, 1, active=False)
        self.residual = block.stride == 1 and block.channels_in == block.channels_out

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """float32 [N, 3, H, W] -> the features at strides 8, 16 and 32 (40, 112 and 320 channels)."""

    def __init__(self, output_stride: int = 32) -> None:
        super().__init__()
        self.stem = PaddedConv(3, STEM, 3, 2)
        self.blocks = nn.ModuleList(InvertedResidual(block) for block in blocks(output_stride))
        self.channels = tuple(channels for _, channels in TAPS.values())

    def forward(self, x: Tensor) -> list[Tensor]:
        taps = {index for index, _ in TAPS.values()}
        features, y = [], self.stem(x)
        for index, block in enumerate(self.blocks):
            y = block(y)
            if index in taps:
                features.append(y)
        return features
