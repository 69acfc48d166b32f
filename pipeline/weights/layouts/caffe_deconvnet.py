"""Caffe DeconvNet (HyeonwooNoh/DeconvNet), whose BN blobs are [scale, shift] once they have been made testable."""

from collections.abc import Collection, Mapping

from torch import Tensor

from pipeline.weights import caffe
from pipeline.weights.layouts import Translation

FRONT_ENDS = ("deconvnet",)


def fits(names: Collection[str]) -> bool:
    """Blobs of the layer that leads back from one pixel, and of its norm."""
    return "fc6-deconv.0" in names and "fc6-deconv-bn.0" in names


def translate(tensors: Mapping[str, Tensor]) -> Translation:
    """Convolutions as they are, norms as torch's."""
    norms = [layer for layer in caffe.layers(tensors) if layer.startswith(("bn", "debn")) or layer.endswith("-bn")]
    whole = [norm for norm in norms if f"{norm}.0" in tensors and f"{norm}.1" in tensors]
    used = {f"{norm}.{index}" for norm in whole for index in (0, 1)}
    state = caffe.parameters({name: tensor for name, tensor in tensors.items() if name not in used})
    for norm in whole:
        scale, shift = tensors[f"{norm}.0"], tensors[f"{norm}.1"]
        state |= caffe.norm(norm, scale.numel(), scale, shift)
    return Translation(state, {})
