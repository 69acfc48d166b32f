"""FCN-8s (Long, Shelhamer, Darrell 2015) on EfficientNet-Lite0: the default front end."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.frontends import Architecture
from pipeline.frontends.trunks.efficientnet_lite0 import TAPS, EfficientNetLite0
from pipeline.preprocessing import Preprocessing
from pipeline.scores import Resize, Step

WEIGHTS = "fcn8s_efficientnet_lite0_voc21.safetensors"
CLASSES = "VOC-21"
PREPROCESSING = Preprocessing(mean=(127, 127, 127), std=(128, 128, 128), pad_to=32)


class FCN8sHeads(nn.Module):
    """A 1x1 score layer on each of strides 8, 16 and 32; coarse scores are doubled and added to the finer ones."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.score3, self.score4, self.score5 = (nn.Conv2d(TAPS[stride][1], classes, 1) for stride in (8, 16, 32))

    def forward(self, features: list[Tensor]) -> Tensor:
        stride8, stride16, stride32 = features
        y = self.score4(stride16)
        y = y + F.interpolate(self.score5(stride32), y.shape[-2:], mode="bilinear")
        fine = self.score3(stride8)
        return fine + F.interpolate(y, fine.shape[-2:], mode="bilinear")


class Network(nn.Module):
    """float32 [N, 3, H, W] -> logits [N, C, ceil(H/8), ceil(W/8)]."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.trunk = EfficientNetLite0()
        self.head = FCN8sHeads(architecture.classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x))

    def steps(self, height: int, width: int) -> tuple[Step, ...]:
        return (Resize(height, width, align_corners=False),)


def architecture_of(state: Mapping[str, Tensor]) -> Architecture:
    """The architecture of weights that carry no notes."""
    return Architecture(classes=state["head.score5.bias"].numel() if "head.score5.bias" in state else 21)
