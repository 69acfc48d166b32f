"""Classification networks without their classifier: the trunks that heads stand on.

A trunk's forward takes float32 [N, 3, H, W] and returns its features at strides 8, 16 and 32, or less where it is
dilated to a smaller output stride; ``channels`` says how many channels each of them has.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from pipeline import frontends
from pipeline.preprocessing import Preprocessing

Trunk = Literal["vgg16", "resnet50", "resnet101", "mobilenet_v2", "mobilenet_v3", "efficientnet_lite0"]
# Trunks without batch norm behind ReLU6 need photographs of the range that they are used to, whatever the head.
PREPROCESSING: dict[str, Preprocessing] = {
    "mobilenet_v2": Preprocessing(),
    "efficientnet_lite0": Preprocessing(mean=(127, 127, 127), std=(128, 128, 128), pad_to=32),
}


class TrunkArchitecture(frontends.Architecture):
    """What varies: the number of classes, the trunk and its width."""

    trunk: Trunk = "vgg16"
    width: float = Field(1.0, gt=0, le=4, description="Multiplies the channels of every layer.")

    @model_validator(mode="after")
    def _width_fits(self) -> "TrunkArchitecture":
        if self.width != 1.0 and self.trunk == "efficientnet_lite0":
            raise ValueError("trunk efficientnet_lite0 has one width, 1.0; every other trunk has any")
        return self


def build(architecture: TrunkArchitecture, output_stride: int = 32) -> Any:
    """The trunk with its initial weights."""
    from pipeline.frontends.trunks.efficientnet_lite0 import EfficientNetLite0
    from pipeline.frontends.trunks.mobilenet_v2 import MobileNetV2
    from pipeline.frontends.trunks.mobilenet_v3 import MobileNetV3
    from pipeline.frontends.trunks.resnet import ResNet
    from pipeline.frontends.trunks.vgg16 import VGG16

    name, width = architecture.trunk, architecture.width
    if name == "vgg16":
        return VGG16(width, output_stride=output_stride)
    if name in ("resnet50", "resnet101"):
        return ResNet(name, width, output_stride)
    if name == "mobilenet_v2":
        return MobileNetV2(width, output_stride)
    if name == "mobilenet_v3":
        return MobileNetV3(width, output_stride)
    return EfficientNetLite0(output_stride)


def trunk_of(state: Mapping[str, Tensor], prefix: str = "") -> dict[str, Any]:
    """Which trunk the tensors under a prefix are of, and of which width; nothing if none are there."""
    for trunk, signs in SIGNS.items():
        for sign, widest, channels in signs:
            if f"{prefix}{sign}" in state and f"{prefix}{widest}" in state:
                return {"trunk": trunk, "width": state[f"{prefix}{widest}"].shape[0] / channels}
    return {}


# Tensors that tell a trunk, in the order in which they are asked for: one that it alone has, one that tells its width,
# and the channels of that one at width 1. A ResNet has the names of torchvision or those of Caffe's blocks.
SIGNS: dict[Trunk, tuple[tuple[str, str, int], ...]] = {
    "vgg16": (("conv5_3.weight", "conv5_3.weight", 512),),
    "resnet101": (
        ("layer3.22.conv1.weight", "layer4.0.conv1.weight", 512),
        ("layer4.block23.reduce.conv.weight", "layer5.block1.reduce.conv.weight", 512),
    ),
    "resnet50": (
        ("layer3.5.conv1.weight", "layer4.0.conv1.weight", 512),
        ("layer4.block6.reduce.conv.weight", "layer5.block1.reduce.conv.weight", 512),
    ),
    "mobilenet_v3": (("16.0.weight", "16.0.weight", 960),),
    "mobilenet_v2": (("blocks.16.project.weight", "stem.weight", 32),),
    "efficientnet_lite0": (("blocks.15.project.weight", "stem.weight", 32),),
}


def scaled(channels: int, width: float) -> int:
    """Channels at a width: rounded, at least one."""
    return max(1, round(channels * width))


def he(network: nn.Module) -> None:
    """Initial weights for layers that ReLUs follow (He et al. 2015): the size of activations stays; biases are zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
