"""ResNet-50 and 101 (He et al. 2016) as torchvision has them: the stride is in a block's 3x3 convolution."""

from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.frontends.trunks import he, scaled

BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1 -> 3x3 -> 1x1 beside the identity, or beside a 1x1 where the shape changes."""

    def __init__(self, channels_in: int, inner: int, stride: int, dilation: int) -> None:
        super().__init__()
        out = inner * EXPANSION
        self.conv1, self.bn1 = nn.Conv2d(channels_in, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, out, 1, bias=False), nn.BatchNorm2d(out)
        self.downsample: nn.Module | None = None
        if stride > 1 or channels_in != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels_in, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class ResNet(nn.Module):
    """float32 [N, 3, H, W] -> what layers 2, 3 and 4 give; strides past the output stride become dilations."""

    def __init__(self, name: str, width: float = 1.0, output_stride: int = 32) -> None:
        super().__init__()
        channels = scaled(64, width)
        self.conv1 = nn.Conv2d(3, channels, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        reached, dilation = 4, 1
        for index, repeats in enumerate(BLOCKS[name]):
            inner, stride, first_dilation = scaled(64 * 2**index, width), 1 if index == 0 else 2, dilation
            if stride == 2 and reached == output_stride:  # its first block keeps the dilation so far
                stride, dilation = 1, dilation * 2
            reached *= stride
            blocks = [Bottleneck(channels, inner, stride, first_dilation)]
            channels = inner * EXPANSION
            blocks += [Bottleneck(channels, inner, 1, dilation) for _ in range(repeats - 1)]
            self.add_module(f"layer{index + 1}", nn.Sequential(*blocks))
        self.channels = tuple(scaled(64 * 2**index, width) * EXPANSION for index in (1, 2, 3))
        he(self)
        for module in self.modules():
            if isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)  # every block is the identity at first

    def forward(self, x: Tensor) -> list[Tensor]:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.max_pool2d(y, 3, 2, 1)
        features = []
        for index in range(1, 5):
            y = self.get_submodule(f"layer{index}")(y)
            features.append(y)
        return features[1:]
