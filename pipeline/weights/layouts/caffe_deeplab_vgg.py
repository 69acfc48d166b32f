"""Caffe DeepLab on VGG-16 (Chen et al.): LargeFOV of v1 and ASPP-L of v2, whose last layers bear the data's name."""

import re
from collections.abc import Collection, Mapping

from torch import Tensor

from pipeline.weights import caffe
from pipeline.weights.layouts import Translation

FRONT_ENDS = ("deeplab_v1", "deeplab_v2")
SCORES = re.compile(r"fc8(?:_[a-z]\w*?)?(_[1-4])?")  # fc8_voc12, fc8_voc12_1


def fits(names: Collection[str]) -> bool:
    """Blobs of a last layer, and of one or four before it."""
    return ("fc6.0" in names or "fc6_1.0" in names) and any(SCORES.fullmatch(name[:-2]) for name in names)


def translate(tensors: Mapping[str, Tensor]) -> Translation:
    """The layers, the last ones without the data's name."""
    state = {}
    for name, tensor in caffe.parameters(tensors).items():
        layer, _, kind = name.rpartition(".")
        scores = SCORES.fullmatch(layer)
        state[f"fc8{scores[1] or ''}.{kind}" if scores else name] = tensor
    return Translation(state, {})
