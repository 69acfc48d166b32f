"""torchvision's segmentation models (FCN, DeepLab v3, LR-ASPP), whose names are the networks' own."""

from collections.abc import Collection, Mapping

from torch import Tensor

from pipeline.weights.layouts import Translation

FRONT_ENDS = ("deeplab_v3", "fcn_resnet", "lraspp")


def fits(names: Collection[str]) -> bool:
    """A backbone and a classifier."""
    return all(any(name.startswith(prefix) for name in names) for prefix in ("backbone.", "classifier."))


def translate(tensors: Mapping[str, Tensor]) -> Translation:
    """The tensors as they are, the auxiliary classifier's too."""
    return Translation(dict(tensors), {})
