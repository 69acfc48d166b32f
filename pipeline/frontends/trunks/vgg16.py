"""VGG-16 (Simonyan and Zisserman 2015, configuration D) without its classifier, under Caffe's layer names."""

from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.frontends.trunks import scaled

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, convolutions; a pool after each


class Layers(nn.Module):
    """The layers, for networks whose weights name them without a prefix.

    ``pad`` is the border of the first convolution (1; FCN has 100). A ``dilated`` one is DeepLab's: 3x3 pools of which
    the last two keep the size, and dilation 2 between them, so that the stride stays 8.
    """

    def __init__(self, width: float = 1.0, pad: int = 1, dilated: bool = False) -> None:
        super().__init__()
        self.dilated, channels = dilated, 3
        for stage, (nominal, repeats) in enumerate(STAGES, 1):
            dilation = 2 if dilated and stage == 5 else 1
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
            if self.dilated:
                x = F.max_pool2d(x, 3, 2 if stage < 4 else 1, 1, ceil_mode=True)
            else:
                x = F.max_pool2d(x, 2, 2, ceil_mode=True)
            found.append(x)
        return found[2:]


class VGG16(Layers):
    """float32 [N, 3, H, W] -> what pools 3, 4 and 5 give."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.pools(x)
