"""MobileNetV2 (Sandler et al. 2018, Table 2) of any width, dilated to an output stride.

Batch norm is folded into the convolutions; padding is TensorFlow's SAME.
"""

import math

from torch import Tensor, nn
from torch.nn import functional as F

STAGES = (  # expand, channels, repeats, stride
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
TAPS = (5, 12, 16)  # the last blocks at strides 8, 16 and 32


def scaled(channels: int, width: float) -> int:
    """Channels at a width: the nearest multiple of 4, at least 8."""
    return max(8, int(channels * width + 2) // 4 * 4)


class SameConv(nn.Conv2d):
    """A convolution that pads to ceil(size / stride) outputs, the odd pixel right and bottom."""

    def __init__(
        self,
        channels_in: int,
        out: int,
        kernel: int = 1,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        limit: float | None = None,
    ) -> None:
        super().__init__(channels_in, out, kernel, stride, 0, dilation, groups)
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        reach = (self.kernel_size[0] - 1) * self.dilation[0] + 1
        stride = self.stride[0]
        total = [max(0, (math.ceil(size / stride) - 1) * stride + reach - size) for size in x.shape[-2:]]
        both = total[0] // 2, total[1] // 2
        if any(pixels % 2 for pixels in total):  # a convolution itself pads only both sides alike
            x = F.pad(x, (both[1], total[1] - both[1], both[0], total[0] - both[0]))
            both = 0, 0
        y = F.conv2d(x, self.weight, self.bias, self.stride, both, self.dilation, self.groups)
        return y if self.limit is None else F.hardtanh(y, 0, self.limit, inplace=True)


class InvertedResidual(nn.Module):
    """expand 1x1 -> depthwise 3x3 -> project 1x1, with the identity added where the shapes allow it."""

    def __init__(self, channels_in: int, out: int, expand: int, stride: int, dilation: int) -> None:
        super().__init__()
        hidden = channels_in * expand
        self.expand = SameConv(channels_in, hidden, limit=6.0) if expand > 1 else nn.Identity()
        self.depthwise = SameConv(hidden, hidden, 3, stride, dilation, groups=hidden, limit=6.0)
        self.project = SameConv(hidden, out)
        self.residual = stride == 1 and channels_in == out

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """float32 [N, 3, H, W] -> the features at strides 8, 16 and 32; those past the output stride become dilations."""

    def __init__(self, width: float, output_stride: int = 8) -> None:
        super().__init__()
        channels = scaled(32, width)
        self.stem = SameConv(3, channels, 3, 2, limit=6.0)
        blocks, outs, reached, dilation = [], [], 2, 1
        for expand, nominal, repeats, stage_stride in STAGES:
            out = scaled(nominal, width)
            for repeat in range(repeats):
                stride = stage_stride if repeat == 0 else 1
                # A block that gives up its stride keeps the dilation so far; the blocks after it get twice that.
                own_dilation = dilation
                if stride == 2 and reached == output_stride:
                    stride, dilation = 1, dilation * 2
                reached *= stride
                blocks.append(InvertedResidual(channels, out, expand, stride, own_dilation))
                channels = out
                outs.append(out)
        self.blocks = nn.ModuleList(blocks)
        self.channels = tuple(outs[index] for index in TAPS)

    def forward(self, x: Tensor) -> list[Tensor]:
        features, y = [], self.stem(x)
        for index, block in enumerate(self.blocks):
            y = block(y)
            if index in TAPS:
                features.append(y)
        return features
