"""kazuto1011/deeplab-pytorch: the networks' own names, under ``base.`` where the multi-scale wrapper was saved."""

from collections.abc import Collection, Mapping

from torch import Tensor

from pipeline.weights.layouts import Translation

FRONT_ENDS = ("deeplab_v2",)
WRAPPER = "base."


def fits(names: Collection[str]) -> bool:
    """The stem of its ResNet, and the first branch of its pyramid."""
    signs = "layer1.conv1.conv.weight", "aspp.c0.weight"
    return any(all(f"{prefix}{sign}" in names for sign in signs) for prefix in ("", WRAPPER))


def translate(tensors: Mapping[str, Tensor]) -> Translation:
    """The tensors without the wrapper's prefix."""
    return Translation({name.removeprefix(WRAPPER): tensor for name, tensor in tensors.items()}, {})
