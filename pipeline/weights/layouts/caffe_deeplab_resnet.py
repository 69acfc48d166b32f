"""Caffe DeepLab v2 on ResNet-101 (Chen et al. 2018); the copies of its layers for two more scales share the weights."""

import re
from collections.abc import Collection, Mapping

from torch import Tensor

from pipeline.weights.layouts import Translation

FRONT_ENDS = ("deeplab_v2",)
COPY = re.compile(r".*_res0\d+(_c\d)?\.\d")  # res2a_branch1_res075, fc1_voc12_res05_c0
PARTS = {"1": "shortcut", "2a": "reduce", "2b": "conv3x3", "2c": "increase"}
BLOCK = re.compile(r"(res|bn|scale)([2-5])([abc])(\d*)_branch(1|2a|2b|2c)\.([012])")  # res3b1_branch2a
STEM = {"conv1": "res", "bn_conv1": "bn", "scale_conv1": "scale"}
BRANCH = re.compile(r"fc1_\w+_c([0-3])\.([01])")  # fc1_voc12_c0
BLOBS = {"res": ("conv.weight",), "bn": ("bn.running_mean", "bn.running_var"), "scale": ("bn.weight", "bn.bias")}


def fits(names: Collection[str]) -> bool:
    """Blobs of the first branch of its pyramid."""
    return any(BRANCH.fullmatch(name) for name in names)


def translate(tensors: Mapping[str, Tensor]) -> Translation:
    """The layers under kazuto1011's names; the statistics of a norm divided by their own weight, its third blob."""
    state, left_over = {}, {}
    for name, tensor in tensors.items():
        renamed = _renamed(name)
        if COPY.fullmatch(name):
            left_over[name] = "a copy for another scale, with the same weights"
        elif renamed is None:  # the weight of a norm's statistics
            continue
        elif renamed.endswith((".running_mean", ".running_var")):
            weight = tensors.get(f"{name[:-2]}.2")
            share = float(weight.sum()) if weight is not None else 1.0
            state[renamed] = tensor.flatten() / share if share else tensor.flatten() * 0
        else:
            state[renamed] = tensor if tensor.dim() == 4 and renamed.endswith("weight") else tensor.flatten()
    return Translation(state, left_over)


def _renamed(name: str) -> str | None:
    """The network's name of a blob; None for the weight of a norm's statistics."""
    layer, _, index = name.rpartition(".")
    if found := BRANCH.fullmatch(name):
        return f"aspp.c{found[1]}.{('weight', 'bias')[int(found[2])]}"
    if layer in STEM:
        kind, place = STEM[layer], "layer1.conv1"
    elif found := BLOCK.fullmatch(name):
        kind, stage, letter, number, branch, _ = found.groups()
        block = "abc".index(letter) + 1 if not number else int(number) + 1
        place = f"layer{stage}.block{block}.{PARTS[branch]}"
    else:
        return name
    blobs = BLOBS[kind]
    if kind == "bn" and index == "2":
        return None
    return f"{place}.{blobs[int(index)]}" if int(index) < len(blobs) else name
