"""Caffe FCN (Long, Shelhamer, Darrell): the model zoo of 2015, the reference of 2016, and CRF-RNN's (Zheng et al.)."""

from collections.abc import Collection, Mapping

from torch import Tensor

from pipeline.weights import caffe
from pipeline.weights.layouts import Translation

FRONT_ENDS = ("fcn32s", "fcn16s", "fcn8s")
OF_2015 = {
    "score-fr": "score_fr",
    "score-pool4": "score_pool4",
    "score-pool3": "score_pool3",
    "score2": "upscore2",
    "score4": "upscore_pool4",
}
MEAN_FIELD = "inference1"


def fits(names: Collection[str]) -> bool:
    """Blobs of a layer of scores behind VGG-16's classifier."""
    return "score_fr.0" in names or "score-fr.0" in names


def translate(tensors: Mapping[str, Tensor]) -> Translation:
    """Layers by their names of 2016. Biases and scales that the network has no place for go to where they add up."""
    last = "upscore8" if "score4.0" in tensors else "upscore16" if "score2.0" in tensors else "upscore"
    state, left_over = {}, {}
    for name, tensor in caffe.parameters(tensors).items():
        layer, _, kind = name.rpartition(".")
        if layer == MEAN_FIELD:
            left_over[name] = "of the mean field"
        else:
            state[f"{OF_2015.get(layer, last if layer == 'upsample' else layer)}.{kind}"] = tensor
    if "upscore2.bias" in state and "score_pool4.bias" in state:  # its scores are added next
        state["score_pool4.bias"] = state["score_pool4.bias"] + state.pop("upscore2.bias")
    for pool in ("pool4", "pool3"):  # trained at once, on scaled pools
        scale, scores = f"scale_{pool}.weight", f"score_{pool}.weight"
        if scale in state and scores in state:
            state[scores] = state[scores] * state.pop(scale).item()
    for name in [name for name in state if name.startswith("upscore") and name.endswith(".bias")]:
        if not state[name].any():
            del state[name]
            left_over[name] = "zeros, not learnt"
    return Translation(state, left_over)
