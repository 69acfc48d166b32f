"""wkentaro/pytorch-fcn, FCN8sAtOnce: as ``wkentaro``, from which only its name tells it.

Pools 4 and 3 are scaled before they are scored; here the scores' weights are.
"""

from collections.abc import Collection, Mapping

from torch import Tensor

from pipeline.weights.layouts import Translation

FRONT_ENDS = ("fcn8s",)
SCALES = {"score_pool4.weight": 0.01, "score_pool3.weight": 0.0001}


def fits(names: Collection[str]) -> bool:
    """Never by itself: it has to be chosen."""
    return False


def translate(tensors: Mapping[str, Tensor]) -> Translation:
    """The tensors with the scales in the weights."""
    return Translation({name: tensor * SCALES.get(name, 1) for name, tensor in tensors.items()}, {})
