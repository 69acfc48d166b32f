"""Every Python block of docs/reading.md does what it says, on an output in the folder ``labels``."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from pipeline import storage
from tests.pipeline.archives import CLASSES, Archive, Shot, blobs, write_photograph, write_run

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "reading.md"
Names = dict[str, Any]


def blocks() -> dict[str, str]:
    """The Python blocks by their section, numbered where it has several."""
    found: dict[str, str] = {}
    for section in re.split(r"^## ", DOCUMENT.read_text(), flags=re.MULTILINE)[1:]:
        title = section.partition("\n")[0]
        for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)):
            found[f"{title} {number + 1}"] = code
    return found


def about_duckdb(names: Names) -> None:
    assert [(row[0], row[2], row[3]) for row in names["doubts"]] == [
        ("c.jpg", 0.25, [0, 1, 2]),
        ("a.jpg", 0.5, [0, 1, 2]),
        ("b.jpg", 0.875, [0, 1, 2]),
    ]


def about_classes(names: Names) -> None:
    assert sorted(names["holders"]) == sorted((name, 4) for name in CLASSES)


def about_polars(names: Names) -> None:
    assert names["unsure"]["image_id"].to_list() == ["c.jpg", "a.jpg", "b.jpg"]
    assert np.array_equal(names["ids"], blobs(2))


def about_pyarrow(names: Names) -> None:
    assert sorted(names["table"]["image_id"].to_pylist()) == ["a.jpg", "c.jpg"]


def about_datasets(names: Names) -> None:
    assert len(names["rows"]) == 5 and len(names["masks"]) == 4
    assert names["first"].mode == "P" and names["first"].size == (48, 40)


def about_torch(names: Names) -> None:
    assert len(names["dataset"]) == 2
    assert names["batch"]["image"].shape == (2, 3, 32, 32) and names["batch"]["mask"].shape == (2, 32, 32)


def about_streams(names: Names) -> None:
    assert sorted(names["seen"]) == ["a.jpg", "b.jpg", "c.jpg"]


CHECKS: dict[str, Callable[[Names], None]] = {
    "DuckDB 1": about_duckdb,
    "DuckDB 2": about_classes,
    "Polars 1": about_polars,
    "PyArrow 1": about_pyarrow,
    "Hugging Face datasets 1": about_datasets,
    "torch 1": about_torch,
    "torch 2": about_streams,
}


def label(raw: Path, output: str) -> Archive:
    """Three images and a failure; then one image was changed and is labelled again."""
    places = {name: write_photograph(raw / f"{name}.jpg", 40, 48) for name in "abcd"}
    shots = [Shot(f"{name}.jpg", places[name], blobs(number), 0.875) for number, name in enumerate("abc")]
    write_run(output, [*shots[:2], shots[2]._replace(confidence=0.25), Shot("d.jpg", places["d"], None)])
    write_photograph(raw / "a.jpg", 40, 48, 1)
    return write_run(output, [shots[0]._replace(confidence=0.5)])


def run(code: str) -> Names:
    names: Names = {"__name__": "__main__"}
    exec(compile(code, "a block of reading.md", "exec"), names)
    return names


def test_every_block_is_checked() -> None:
    assert set(blocks()) == {*CHECKS, "On S3 1"}


@pytest.mark.parametrize("title", CHECKS)
def test_a_block_does_what_it_says(title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    label(tmp_path / "raw", "labels")
    CHECKS[title](run(blocks()[title]))


def test_the_block_about_s3_reads_from_s3(bucket_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")  # for Polars: the server of the tests has no certificate
    output = f"{bucket_folder}/labels"
    label(tmp_path / "raw", output)
    assert json.loads(storage.read(f"{output}/current.json"))
    bucket = bucket_folder.removeprefix("s3://")
    code = blocks()["On S3 1"]
    assert code.count("bucket/labels") == 3
    names = run(code.replace("bucket/labels", f"{bucket}/labels"))
    assert names["counts"] == [("ok", 4), ("unreadable", 1)]
    assert sorted(names["ids"]) == ["a.jpg", "a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert names["item"]["mask"].shape == (40, 48)
