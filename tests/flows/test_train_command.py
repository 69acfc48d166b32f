import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.flows.conftest import BIN, Command
from tests.pipeline.test_training import write_dataset

TINY = (
    "--front-end", "segnet_basic", "--architecture", "width=0.0625", "--classes", "3", "--size", "32", "--threads", "1"
)  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "boxes", 12)


def arguments(dataset: Path, output: Path, *more: str) -> list[str]:
    return ["train", str(dataset / "images"), "--truth", str(dataset / "masks"), "-o", str(output), *TINY, *more]


def test_what_was_trained_labels(densemask: Command, configured: dict[str, str], dataset: Path, tmp_path: Path) -> None:
    command = arguments(dataset, tmp_path / "out", "--epochs", "20", "--batch", "4", "--lr", "0.02", "--json")
    trained = densemask(*command, env=configured)
    assert trained.code == 0, trained.err
    assert trained.json["epochs"] == 20
    assert "on 11 images, 1 to validate; random weights" in trained.err
    assert "epoch 20: loss" in trained.err
    assert list((tmp_path / "out" / "tensorboard").iterdir())
    weights = trained.json["weights"]
    assert weights == str(tmp_path / "out" / "model.safetensors")

    labelled = densemask(
        "label", str(dataset / "images"), str(tmp_path / "masks"), "--truth", str(dataset / "masks"), "--front-end",
        "segnet_basic", "--weights", weights, "--back-end", "argmax", "--json", env=configured,
    )  # fmt: skip
    assert labelled.code == 0, labelled.err
    assert labelled.json["ok"] == 12 and labelled.json["miou"] > 0.35


def test_a_killed_command_goes_on_where_it_was(
    configured: dict[str, str], densemask: Command, dataset: Path, tmp_path: Path
) -> None:
    job = tmp_path / "train.yaml"
    job.write_text("checkpoint_minutes: 0.0001\nepochs: 20\naugmentation: {flip: false}\n")
    command = arguments(dataset, tmp_path / "out", "--job", str(job), "--batch", "2", "--json")
    process = subprocess.Popen(
        [str(BIN / "densemask"), *command], env=configured, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    history = tmp_path / "out" / "history.jsonl"
    deadline = time.monotonic() + 120
    while not history.exists() or len(history.read_text().splitlines()) < 2:  # so the first has its checkpoint
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out" / "model.safetensors").exists()
    first = history.read_text().splitlines()[0]

    again = densemask(*command, env=configured)
    assert again.code == 0, again.err
    assert again.json["epochs"] == 20
    assert history.read_text().splitlines()[0] == first


def test_bad_input_is_one_line(densemask: Command, configured: dict[str, str], dataset: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "alone.png")
    ended = densemask("train", str(tmp_path), "-o", str(tmp_path / "out"), *TINY, "--json", env=configured)
    assert ended.code == 2
    assert json.loads(ended.out)["error"].startswith(f"no image in {tmp_path} has a mask")
    assert len(ended.err.splitlines()) == 2  # what is read, and the error
    assert not (tmp_path / "out").exists()

    ended = densemask(*arguments(dataset, tmp_path / "out", "--architecture", "depth=3"), env=configured)
    assert ended.code == 2
    assert "the architecture of segnet_basic: unknown key 'depth'; did you mean 'width'?" in ended.err
