from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import label
from pipeline.config import Evaluation, Recipe
from pipeline.scores import Kept, ScoreMap
from pipeline.sources import ImageRef

CLASSES = 7


class SomePlanes:
    """Scores three of seven classes; sends a plane of each class, or of those three alone."""

    palette = None

    def __init__(self, sends_all: bool) -> None:
        self._sends_all = sends_all

    def score(self, photographs: list[np.ndarray]) -> list[ScoreMap]:
        return [self._score(rgb) for rgb in photographs]

    def _score(self, rgb: np.ndarray) -> ScoreMap:
        planes = np.random.default_rng(0).normal(0, 4, (3, *rgb.shape[:2])).astype(np.float16)
        if not self._sends_all:
            return ScoreMap(planes, (), Kept((1, 4, 6), CLASSES))
        whole = np.full((CLASSES, *rgb.shape[:2]), -60000, np.float16)
        whole[[1, 4, 6]] = planes
        return ScoreMap(whole, ())


def photograph(folder: Path, truth: str | None = None) -> ImageRef:
    path = folder / "a.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (30, 41, 3)).astype(np.uint8)).save(path)
    return ImageRef("a", str(path), "", "etag", path.stat().st_size, truth, None)


@pytest.mark.parametrize("back_end", ["argmax", "densecrf"])
def test_planes_that_were_not_sent_change_no_row(tmp_path: Path, back_end: str) -> None:
    truth = tmp_path / "truth.png"
    Image.fromarray(np.random.default_rng(2).integers(0, CLASSES, (30, 41)).astype(np.uint8)).save(truth)
    ref = photograph(tmp_path, str(truth))
    recipe = Recipe.model_validate({"back_end": back_end})
    (few,), (all_of_them,) = (
        label.label_shard([ref], 0, SomePlanes(sends_all), recipe, Evaluation())  # type: ignore[arg-type]
        for sends_all in (False, True)
    )
    assert few["mask"]["bytes"] == all_of_them["mask"]["bytes"]
    assert few["labels"].tolist() == [1, 4, 6]
    for measure in ("refined", "front", "boundary"):
        for count in ("tp", "fp", "fn"):
            assert few[measure][count].tolist() == all_of_them[measure][count].tolist()
            assert len(few[measure][count]) == CLASSES
    assert few["entropy"] == pytest.approx(all_of_them["entropy"], abs=1e-5)
    assert few["changed"] == all_of_them["changed"]


def test_certainty_is_the_networks_whatever_the_back_end(tmp_path: Path) -> None:
    ref = photograph(tmp_path)
    (plain,), (refined,) = (
        label.label_shard([ref], 0, SomePlanes(False), Recipe.model_validate({"back_end": back_end}), Evaluation())  # type: ignore[arg-type]
        for back_end in ("argmax", "densecrf")
    )
    assert refined["changed"] > 0
    assert (plain["confidence"], plain["entropy"]) == (refined["confidence"], refined["entropy"])
    assert plain["confidence"] < 0.95
