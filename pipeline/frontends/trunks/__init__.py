"""Classification networks without their classifier: the trunks that heads stand on.

A trunk's forward takes float32 [N, 3, H, W] and returns its features at strides 8, 16 and 32, or less where it is
dilated; ``channels`` says how many channels each of them has.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from pipeline import frontends

Trunk = Literal["vgg16", "efficientnet_lite0"]
WITH_WIDTH = ("vgg16",)


class TrunkArchitecture(frontends.Architecture):
    """What varies: the number of classes, the trunk and its width."""

    trunk: Trunk = "vgg16"
    width: float = Field(1.0, gt=0, le=4, description="Multiplies the channels of a trunk that has widths.")

    @model_validator(mode="after")
    def _width_fits(self) -> "TrunkArchitecture":
        if self.width != 1.0 and self.trunk not in WITH_WIDTH:
            raise ValueError(f"trunk {self.trunk} has one width; those with more: {', '.join(WITH_WIDTH)}")
        return self


def build(architecture: TrunkArchitecture) -> Any:
    """The trunk with its initial weights."""
    from pipeline.frontends.trunks.efficientnet_lite0 import EfficientNetLite0
    from pipeline.frontends.trunks.vgg16 import VGG16

    if architecture.trunk == "vgg16":
        return VGG16(architecture.width)
    return EfficientNetLite0()


def trunk_of(state: Mapping[str, Tensor], prefix: str) -> Trunk:
    """Which trunk the tensors under a prefix are of: VGG-16 if none are there."""
    return "efficientnet_lite0" if f"{prefix}blocks.15.project.weight" in state else "vgg16"


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
