"""What the tutorial and the guide give to be pasted: the masks' way back, and job files."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from pipeline.config import LabelJob
from pipeline.reprocess import ReprocessJob
from pipeline.training.config import TrainJob
from pipeline.validation import checked
from tests.docs.documents import FENCE, INDENTED, ROOT

TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()
PYTHON = [body for language, body in FENCE.findall(TUTORIAL) if language == "python"]
JOBS = [yaml.safe_load(body) for language, body in FENCE.findall(TUTORIAL) if language == "yaml"]


@pytest.fixture
def reviewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the snippet has run, on a mask of a background, a cat and a colour of no class."""
    monkeypatch.chdir(tmp_path)
    for folder in ("voc", "cvat/JPEGImages", "cvat/SegmentationClass", "cvat/ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "voc/classes.txt").write_text("background,0,0,0\nbird,128,128,0\ncat,64,0,0\n")
    (tmp_path / "cvat/ImageSets/Segmentation/default.txt").write_text("000001-a\n")
    coloured = np.array([[[0, 0, 0], [64, 0, 0], [1, 2, 3]]], np.uint8)
    Image.fromarray(coloured).save(tmp_path / "cvat/SegmentationClass/000001-a.png")
    (snippet,) = PYTHON
    for _ in range(2):  # pasting it again does no harm
        exec(compile(snippet, "tutorial.md", "exec"), {})
    return tmp_path / "reviewed"


def test_coloured_masks_become_class_ids(reviewed: Path) -> None:
    mask = Image.open(reviewed / "SegmentationClass/000001-a.png")
    assert mask.mode == "L" and np.asarray(mask).tolist() == [[0, 2, 255]]
    assert (reviewed / "ImageSets/Segmentation/default.txt").read_text() == "000001-a\n"


def test_the_job_files_are_ones() -> None:
    tuned, nightly = JOBS
    gate = checked(ReprocessJob, tuned | {"output": "out", "origin": "0" * 16}, "tuned.yaml").gate
    assert gate.max_churn == 0.2
    assert checked(LabelJob, nightly, "nightly.yaml").golden is not None


def test_the_guides_training_job_has_a_teacher() -> None:
    guide = (ROOT / "docs" / "guide.md").read_text()
    (block,) = (block for block in re.split(r"\n\n", guide) if "    teacher:" in block)
    assert INDENTED.findall(block) == block.splitlines()
    job = checked(TrainJob, yaml.safe_load(block), "guide.md")
    assert job.teacher is not None and job.teacher.share == 0.5
