"""``densemask export``: it starts neither Ray nor Prefect."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from tests.flows.conftest import Command, start
from tests.pipeline.archives import Archive, Shot, blobs, write_photograph, write_run


@pytest.fixture
def nowhere(environment: dict[str, str]) -> dict[str, str]:
    """A shell in which any attempt to reach Ray or Prefect would fail in its own way."""
    return environment | {"RAY_ADDRESS": "127.0.0.1:1", "PREFECT_API_URL": "http://127.0.0.1:1/api"}


def archive(folder: Path, count: int, scale: int = 1) -> Archive:
    """Images that are less certain one after another, of 40 x 48 pixels or a multiple of it."""
    shots = []
    for number in range(count):
        photograph = write_photograph(folder / f"raw/{number}.png", 40 * scale, 48 * scale)
        mask = np.kron(blobs(number), np.ones((scale, scale), np.uint8))
        shots.append(Shot(f"{number}.png", photograph, mask, 0.9 - number / count / 2))
    return write_run(str(folder / "out"), shots, shard_size=5)


def test_doubts_become_a_review_queue(densemask: Command, nowhere: dict[str, str], tmp_path: Path) -> None:
    output = archive(tmp_path, 10).output
    (tmp_path / "raw/9.png").unlink()

    ended = densemask("export", output, "--format", "label-studio", "--where", "confidence < 0.6", env=nowhere)

    assert ended.code == 0, ended.err
    left_out, summary, place = ended.err.splitlines()[-3:]
    assert left_out.startswith("1 image left out (images.csv says why), such as 9.png: ")
    assert summary.startswith("2 images as label-studio, least certain first, confidence 0.450 to 0.550; recipe ")
    assert place == f"export: {output}/export/label-studio"
    tasks = json.loads(Path(output, "export/label-studio/tasks.json").read_text())
    assert [task["data"]["image_id"] for task in tasks] == ["8.png", "7.png"]


def test_a_killed_export_goes_on(densemask: Command, nowhere: dict[str, str], tmp_path: Path) -> None:
    output, to = archive(tmp_path, 60, scale=10).output, tmp_path / "coco"
    process = start("export", output, "--format", "coco", "--to", str(to), env=nowhere)
    while not list(to.glob(".parts/*.parquet")):
        assert process.poll() is None, process.communicate()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (to / "annotations").exists()

    ended = densemask("export", output, "--format", "coco", "--to", str(to), "--json", env=nowhere)

    assert ended.code == 0, ended.err
    assert (ended.json["images"], ended.json["left_out"], ended.json["to"]) == (60, 0, str(to))
    assert len(COCO(str(to / "annotations/instances_train.json")).imgs) == len(list((to / "images").iterdir())) == 60
    assert not (to / ".parts").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "pascal"], "unknown format 'pascal'; known: coco, cvat, label-studio, voc"),
        (["--format", "voc", "--where", "confidense < 1"], '"confidense" not found in FROM clause'),
        (["--format", "voc", "--where", "confidence < 0.1"], "no image where confidence < 0.1: 2 are labelled with"),
        (["--format", "voc", "--recipe", "abc"], "no recipe 'abc' in"),
        (["--format", "voc", "--polygons"], "voc holds masks as pixels; it has no polygons"),
    ],
)
def test_what_cannot_be_exported(
    densemask: Command, nowhere: dict[str, str], tmp_path: Path, arguments: list[str], said: str
) -> None:
    ended = densemask("export", archive(tmp_path, 2).output, *arguments, "--json", env=nowhere)
    assert ended.code == 2 and said in ended.json["error"]
    assert ended.err.splitlines()[-1].startswith("densemask: ") and "Traceback" not in ended.err
