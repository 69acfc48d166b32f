"""sadeepj/crfasrnn_pytorch: wkentaro's FCN-8s with a bias behind its first upsampling, and the mean field."""

from collections.abc import Collection, Mapping

from torch import Tensor

from pipeline.preprocessing import Preprocessing
from pipeline.weights.layouts import Translation

FRONT_ENDS = ("fcn8s",)
PREPROCESSING = Preprocessing(channels="bgr", mean=(103.939, 116.779, 123.68), std=(1, 1, 1), longest=500, pad_to=500)


def fits(names: Collection[str]) -> bool:
    """Scores behind VGG-16, and the mean field."""
    return "score_fr.weight" in names and any(name.startswith("crfrnn.") for name in names)


def translate(tensors: Mapping[str, Tensor]) -> Translation:
    """FCN-8s; its upsampling's bias goes to the scores that are added next."""
    state = {name: tensor for name, tensor in tensors.items() if not name.startswith("crfrnn.")}
    if "upscore2.bias" in state and "score_pool4.bias" in state:
        state["score_pool4.bias"] = state["score_pool4.bias"] + state.pop("upscore2.bias")
    return Translation(state, dict.fromkeys(tensors.keys() - state.keys() - {"upscore2.bias"}, "of the mean field"))
