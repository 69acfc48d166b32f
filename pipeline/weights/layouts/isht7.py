"""isht7/pytorch-deeplab-resnet and, of the same names, speedinghzl/Pytorch-Deeplab: DeepLab v2 on ResNet-101.

Both name their layers as torchvision does and start counting them behind the stem; the multi-scale wrapper adds
``Scale.``.
"""

import re
from collections.abc import Collection, Mapping

from torch import Tensor

from pipeline.weights.layouts import Translation

FRONT_ENDS = ("deeplab_v2",)
WRAPPER = "Scale."
PARTS = {"1": "reduce", "2": "conv3x3", "3": "increase"}
BLOCK = re.compile(r"layer([1-4])\.(\d+)\.(conv|bn)([123])\.(\w+)")
SHORTCUT = re.compile(r"layer([1-4])\.0\.downsample\.([01])\.(\w+)")
BRANCH = re.compile(r"layer5\.conv2d_list\.(\d)\.(\w+)")
STEM = re.compile(r"(conv|bn)1\.(\w+)")


def fits(names: Collection[str]) -> bool:
    """The first branch of its pyramid."""
    return any(f"{prefix}layer5.conv2d_list.0.weight" in names for prefix in ("", WRAPPER))


def translate(tensors: Mapping[str, Tensor]) -> Translation:
    """The same layers under kazuto1011's names."""
    return Translation({_renamed(name.removeprefix(WRAPPER)): tensor for name, tensor in tensors.items()}, {})


def _renamed(name: str) -> str:
    if found := BLOCK.fullmatch(name):
        layer, block, kind, part, tensor = found.groups()
        return f"layer{int(layer) + 1}.block{int(block) + 1}.{PARTS[part]}.{kind}.{tensor}"
    if found := SHORTCUT.fullmatch(name):
        layer, kind, tensor = found.groups()
        return f"layer{int(layer) + 1}.block1.shortcut.{('conv', 'bn')[int(kind)]}.{tensor}"
    if found := BRANCH.fullmatch(name):
        return f"aspp.c{found[1]}.{found[2]}"
    if found := STEM.fullmatch(name):
        return f"layer1.conv1.{found[1]}.{found[2]}"
    return name
