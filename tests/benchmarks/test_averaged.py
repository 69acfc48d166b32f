"""The mean of checkpoints is written as weights that open, with their own measure."""

import shutil
from pathlib import Path

import pytest
import torch

from pipeline import weights
from pipeline.training import checkpoint, loop
from tests.benchmarks import averaged
from tests.pipeline.test_training import job_on, no_show, write_dataset


def test_the_mean_of_two_epochs_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset, output, first = write_dataset(tmp_path / "boxes"), tmp_path / "output", tmp_path / "first.safetensors"
    loop.train(job_on(dataset, output, epochs=1), no_show)
    shutil.copy(output / checkpoint.NAME, first)
    job = job_on(dataset, output, epochs=3)
    loop.train(job, no_show)
    (tmp_path / "job.yaml").write_text(job.model_dump_json())

    averaged.main(str(tmp_path / "job.yaml"), [first, output / checkpoint.NAME])

    written = (output / averaged.NAME).read_bytes()
    states = [weights.parse(path.read_bytes()) for path in (first, output / checkpoint.NAME)]
    for name, tensor in weights.parse(written).items():
        one, other = (state[averaged.PREFIX + name] for state in states)
        torch.testing.assert_close(tensor, (one + other) / 2)
    about = weights.notes(written)
    assert about is not None
    (miou,) = about.measured.values()
    assert f"mIoU {miou:.4f} over" in capsys.readouterr().out
