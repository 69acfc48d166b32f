"""MobileNetV3-Large (Howard et al. 2019, Table 1) as torchvision has it, of any width."""

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.frontends.trunks import he


class Row(NamedTuple):
    """A row of the paper's table."""

    kernel: int
    expanded: int
    out: int
    excite: bool
    hard_swish: bool
    stride: int


ROWS = (
    Row(3, 16, 16, False, False, 1),
    Row(3, 64, 24, False, False, 2),
    Row(3, 72, 24, False, False, 1),
    Row(5, 72, 40, True, False, 2),
    Row(5, 120, 40, True, False, 1),
    Row(5, 120, 40, True, False, 1),
    Row(3, 240, 80, False, True, 2),
    Row(3, 200, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 480, 112, True, True, 1),
    Row(3, 672, 112, True, True, 1),
    Row(5, 672, 160, True, True, 2),
    Row(5, 960, 160, True, True, 1),
    Row(5, 960, 160, True, True, 1),
)
STEM, LAST = 16, 6  # channels of the stem; the last convolution's over those of the last block
TAPS = (4, 12, 16)  # the first block at stride 8, the last at stride 16, the last convolution


def divisible(channels: float) -> int:
    """The nearest multiple of 8 that is not below nine tenths of it."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def conv_norm(
    channels_in: int, out: int, kernel: int, stride: int, dilation: int, groups: int, activation: type[nn.Module] | None
) -> nn.Sequential:
    """A convolution, batch norm and an activation."""
    pad = kernel // 2 * dilation
    layers = [
        nn.Conv2d(channels_in, out, kernel, stride, pad, dilation, groups, bias=False),
        nn.BatchNorm2d(out, eps=0.001, momentum=0.01),
    ]
    return nn.Sequential(*layers, activation()) if activation else nn.Sequential(*layers)


class SqueezeExcite(nn.Module):
    """Each channel times what two 1x1 convolutions make of the means of all."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = divisible(channels // 4)
        self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.fc1(x.mean((2, 3), keepdim=True)))
        return x * F.hardsigmoid(self.fc2(y))


class InvertedResidual(nn.Module):
    """expand 1x1 -> depthwise -> squeeze-excite -> project 1x1, with the identity where the shapes allow it."""

    def __init__(self, channels_in: int, row: Row, width: float, stride: int, dilation: int) -> None:
        super().__init__()
        activation = nn.Hardswish if row.hard_swish else nn.ReLU
        expanded, out = divisible(row.expanded * width), divisible(row.out * width)
        self.block = nn.Sequential()
        if expanded != channels_in:
            self.block.append(conv_norm(channels_in, expanded, 1, 1, 1, 1, activation))
        self.block.append(conv_norm(expanded, expanded, row.kernel, stride, dilation, expanded, activation))
        if row.excite:
            self.block.append(SqueezeExcite(expanded))
        self.block.append(conv_norm(expanded, out, 1, 1, 1, 1, None))
        self.residual = row.stride == 1 and channels_in == out

    def forward(self, x: Tensor) -> Tensor:
        y = self.block(x)
        return x + y if self.residual else y


class MobileNetV3(nn.Sequential):
    """float32 [N, 3, H, W] -> the features of TAPS; strides past the output stride become dilations."""

    def __init__(self, width: float = 1.0, output_stride: int = 32) -> None:
        channels, reached, dilation = divisible(STEM * width), 2, 1
        layers: list[nn.Module] = [conv_norm(3, channels, 3, 2, 1, 1, nn.Hardswish)]
        outs = [channels]
        for row in ROWS:
            stride = row.stride
            if stride == 2 and reached == output_stride:  # unlike in a ResNet, this block is dilated already
                stride, dilation = 1, dilation * 2
            reached *= stride
            layers.append(InvertedResidual(channels, row, width, stride, dilation))
            channels = divisible(row.out * width)
            outs.append(channels)
        layers.append(conv_norm(channels, LAST * channels, 1, 1, 1, 1, nn.Hardswish))
        super().__init__(*layers)
        self.channels = tuple((*outs, LAST * channels)[index] for index in TAPS)
        he(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for index, layer in enumerate(self):
            x = layer(x)
            if index in TAPS:
                features.append(x)
        return features
