import argparse
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from pipeline.errors import WeightsError
from pipeline.weights import checkpoints
from tests.pipeline.checkpoints import caffemodel, torch_file

STATE = {"conv.weight": torch.arange(24.0).reshape(2, 3, 2, 2), "conv.bias": torch.tensor([1.0, -1.0])}
LAYERS = {"conv": [np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2), np.array([1, -1], np.float32)]}


def equal(tensors: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return tensors.keys() == expected.keys() and all(torch.equal(tensors[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": STATE},
        {"model_state_dict": STATE},
        {"model": STATE},
        {"model": {"state_dict": STATE}},
        {f"module.{name}": tensor for name, tensor in STATE.items()},
        {"state_dict": {f"module.module.{name}": tensor for name, tensor in STATE.items()}},
        {name: torch.nn.Parameter(tensor) for name, tensor in STATE.items()},
        {name: tensor.double() for name, tensor in STATE.items()},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_file_is_read_however_it_is_nested(content: Any, zipped: bool) -> None:
    data = torch_file(content, _use_new_zipfile_serialization=zipped)
    tensors, left_over = checkpoints.read(data)
    assert equal(tensors, STATE)
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())
    assert left_over == {}


def test_what_training_scripts_save_beside_the_state_is_named() -> None:
    content = {
        "epoch": 12,
        "best_mean_iu": np.float64(0.61),
        "args": argparse.Namespace(lr=1e-10),
        "optim_state_dict": {"state": {0: {"momentum_buffer": torch.zeros(3)}}},
        "model_state_dict": STATE | {"bn.num_batches_tracked": torch.tensor(7)},
    }
    tensors, left_over = checkpoints.read(torch_file(content))
    assert equal(tensors, STATE)
    assert left_over == {
        "epoch": "not of the network's state",
        "best_mean_iu": "not of the network's state",
        "args": "not of the network's state",
        "optim_state_dict": "not of the network's state",
        "bn.num_batches_tracked": "a counter of training batches",
    }


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, form: str) -> None:
    evil = {**STATE, "x": Malicious(tmp_path / "run")}
    data = pickle.dumps(evil) if form == "pickle" else torch_file(evil, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(WeightsError, match="it holds more than tensors .*; nothing in it was run") as caught:
        checkpoints.read(data)
    if form != "pickle":
        assert "it asks for posix.mkdir" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_safetensors_are_read() -> None:
    wrapped = {f"module.{name}": tensor.half() for name, tensor in STATE.items()}
    tensors, left_over = checkpoints.read(safetensors.torch.save(wrapped))
    assert equal(tensors, STATE) and left_over == {}


@pytest.mark.parametrize("version", [1, 2])
def test_a_caffemodel_is_read(version: int) -> None:
    tensors, left_over = checkpoints.read(caffemodel(LAYERS, version))
    assert list(tensors) == ["conv.0", "conv.1"] and left_over == {}
    assert torch.equal(tensors["conv.0"], STATE["conv.weight"])
    assert torch.equal(tensors["conv.1"].flatten(), STATE["conv.bias"])


def test_layers_without_weights_may_share_a_name_and_others_may_not() -> None:
    crops = caffemodel({"crop": []})
    assert len(checkpoints.read(caffemodel(LAYERS) + crops + crops).tensors) == 2
    with pytest.raises(WeightsError, match="two layers with weights are called 'conv'"):
        checkpoints.read(caffemodel(LAYERS) + caffemodel(LAYERS))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "V1", "V2"])
def test_a_half_downloaded_file_is_one_line(kind: str, share: float) -> None:
    large = {"a.weight": torch.randn(40, 30, 3, 3), "b.weight": torch.randn(40, 40, 3, 3)}
    blobs = {name: [tensor.numpy()] for name, tensor in large.items()}
    data = {
        "zip": lambda: torch_file(large),
        "legacy": lambda: torch_file(large, _use_new_zipfile_serialization=False),
        "safetensors": lambda: safetensors.torch.save(large),
        "V1": lambda: caffemodel(blobs, 1),
        "V2": lambda: caffemodel(blobs, 2),
    }[kind]()
    cut = data[: int(len(data) * share)]
    with pytest.raises(WeightsError) as caught:
        checkpoints.read(cut)
    message = str(caught.value)
    assert f"{len(cut)} bytes" in message
    assert "\n" not in message and len(message) < 400


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"<!DOCTYPE html><html>404</html>", "not a whole torch, safetensors or Caffe file .*DOCTYPE"),
        (torch_file([1, 2]), r"it holds list '\[1, 2\]', not a state dict"),
        (torch_file({}), "it holds dict '{}', not a state dict"),
        (torch_file({"a": 3}), "a is a int, not a tensor"),
        (torch_file({"state_dict": {"a": [torch.zeros(1)]}}), "a is a list, not a tensor"),
        (torch_file(torch.zeros(2)), "it holds Tensor .*, not a state dict"),
    ],
)
def test_what_is_no_checkpoint_is_said(data: bytes, said: str) -> None:
    with pytest.raises(WeightsError, match=said):
        checkpoints.read(data)


def test_a_blob_that_does_not_fill_its_shape_is_named() -> None:
    data = caffemodel({"fc": [np.zeros(5, np.float32)]}).replace(b"\x0a\x01\x05", b"\x0a\x01\x06")
    with pytest.raises(WeightsError, match=r"fc.0 is said to be \[6\] and holds 5 values; is the file whole\?"):
        checkpoints.read(data)
