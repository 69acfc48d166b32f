"""wkentaro/pytorch-fcn: Caffe's layer names of 2016, which are the networks' own."""

from collections.abc import Collection, Mapping

from torch import Tensor

from pipeline.weights.layouts import Translation

FRONT_ENDS = ("fcn32s", "fcn16s", "fcn8s")


def fits(names: Collection[str]) -> bool:
    """A 1x1 layer of scores behind VGG-16, and no mean field."""
    return "score_fr.weight" in names and not any(name.startswith("crfrnn.") for name in names)


def translate(tensors: Mapping[str, Tensor]) -> Translation:
    """The tensors as they are."""
    return Translation(dict(tensors), {})
