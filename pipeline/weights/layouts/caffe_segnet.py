"""Caffe SegNet and SegNet-Basic (alexgkendall/SegNet-Tutorial), whose BN blobs are [scale, shift].

The files must have been through compute_bn_statistics.py; BN-absorber.py may have been over them too.
"""

from collections.abc import Collection, Mapping

from torch import Tensor

from pipeline.weights import caffe
from pipeline.weights.layouts import Translation

FRONT_ENDS = ("segnet", "segnet_basic")
WITHOUT_NORM = ("conv1_1_D", "conv_classifier")


def fits(names: Collection[str]) -> bool:
    """Blobs of a decoder."""
    return "conv1_1_D.0" in names or "conv_decode1.0" in names


def translate(tensors: Mapping[str, Tensor]) -> Translation:
    """Every convolution with its norm; norms that are part of their convolutions leave things as they are."""
    norms = {f"{name}.{index}" for name in caffe.layers(tensors) if name.endswith("_bn") for index in (0, 1)}
    state = caffe.parameters({name: tensor for name, tensor in tensors.items() if name not in norms})
    left_over: dict[str, str] = {}
    for layer in caffe.layers(tensors):
        if layer.endswith("_bn") or layer in WITHOUT_NORM or f"{layer}.0" not in tensors:
            continue
        norm = f"{layer}_bn"
        scale, shift = tensors.get(f"{norm}.0"), tensors.get(f"{norm}.1")
        if scale is not None and shift is not None and not (scale.any() or shift.any()):
            left_over |= dict.fromkeys((f"{norm}.0", f"{norm}.1"), "zeros: absorbed by the convolution before")
            scale = shift = None
        elif norms and (scale is None or shift is None):
            continue  # missing, as will be said
        state |= caffe.norm(norm, state[f"{layer}.weight"].shape[0], scale, shift)
    return Translation(state, left_over)
