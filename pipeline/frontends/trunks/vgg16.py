"""VGG-16 (Simonyan and Zisserman 2015, configuration D) without its classifier, under Caffe's layer names."""

from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.frontends.trunks import scaled

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, convolutions; a pool after each


class Layers(nn.Module):
    """The layers, for networks whose weights name them without a prefix.

    ``pad`` is the border of the first convolution (1; FCN has 100). With an output stride below 32 it is DeepLab's:
    3x3 pools, of which the last keep the size, and dilation after those.
    """

    def __init__(self, width: float = 1.0, pad: int = 1, output_stride: int = 32) -> None:
        super().__init__()
        self.output_stride, channels = output_stride, 3
        for stage, (nominal, repeats) in enumerate(STAGES, 1):
            dilation = max(1, 2 ** (stage - 1) // output_stride)
            for layer in range(1, repeats + 1):
                out, border = scaled(nominal, width), pad if (stage, layer) == (1, 1) else dilation
                self.add_module(f"conv{stage}_{layer}", nn.Conv2d(channels, out, 3, 1, border, dilation))
                channels = out
        self.channels = tuple(scaled(nominal, width) for nominal, _ in STAGES[2:])

    def pools(self, x: Tensor) -> list[Tensor]:
        """What pools 3, 4 and 5 give."""
        found = []
        for stage, (_, repeats) in enumerate(STAGES, 1):
            for layer in range(1, repeats + 1):
                x = F.relu(self.get_submodule(f"conv{stage}_{layer}")(x), inplace=True)
            if self.output_stride < 32:
                x = F.max_pool2d(x, 3, 2 if 2**stage <= self.output_stride else 1, 1, ceil_mode=True)
            else:
                x = F.max_pool2d(x, 2, 2, ceil_mode=True)
            found.append(x)
        return found[2:]


class VGG16(Layers):
    """float32 [N, 3, H, W] -> what pools 3, 4 and 5 give."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.pools(x)
