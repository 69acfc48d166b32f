"""Kept scores: what was written is what is read, and masks do not tell whether they were."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image

from pipeline import kept, label
from pipeline.config import Evaluation, Recipe
from pipeline.frontends import FrontEnd
from pipeline.label import Scored
from pipeline.scores import Crop, Kept, Resize, ScoreMap, Upscore
from pipeline.sources import ImageRef, Origin
from pipeline.stopwatch import Stopwatch
from pipeline.weights import open_front_end, read_weights

RUN = "2026-01-01-0001"
OLD = "0123456789abcdef"


def photographs(folder: Path) -> list[ImageRef]:
    refs = []
    for index, image in enumerate((skimage.data.astronaut, skimage.data.chelsea, skimage.data.coffee)):
        path = folder / f"{index}.jpg"
        Image.fromarray(image()).resize((160, 120)).save(path)
        refs.append(ImageRef(path.name, str(path), "", "e", None, None, None, Origin(RUN, 3, index)))
    return refs


def keep(folder: Path, refs: list[ImageRef], scored: list[Any]) -> kept.Source:
    cells = [
        {"row": ref.origin.row, "image_id": ref.image_id, **kept.cell(one)}
        for ref, one in zip(refs, scored, strict=True)
        if ref.origin is not None
    ]
    assert kept.write_shard(str(folder), OLD, RUN, 3, cells)
    return kept.Source(str(folder), OLD, None)


def no_network() -> FrontEnd:
    raise AssertionError("the network was asked for")


@pytest.mark.parametrize(
    "scores",
    [
        ScoreMap(np.arange(24, dtype=np.float16).reshape(2, 3, 4), ()),
        ScoreMap(np.full((3, 5, 7), -6.5, np.float16), (Resize(20, 28, True), Crop(18, 28), Resize(36, 56, False))),
        ScoreMap(np.ones((2, 4, 4), np.float16), (Upscore(20, 24, 8, 19),), Kept((3, 17), 21)),
    ],
    ids=["plain", "steps", "some labels"],
)
def test_a_score_map_is_read_as_it_was(tmp_path: Path, scores: ScoreMap) -> None:
    (ref, *_) = photographs(tmp_path)
    data = Path(ref.uri).read_bytes()
    source = keep(tmp_path, [ref], [Scored(data, scores, 1.0)])
    (found,) = kept.read_scored([ref], source)
    assert found is not None and found.data == data
    assert np.array_equal(found.scores.logits, scores.logits) and found.scores.logits.dtype == np.float16
    assert found.scores[1:] == scores[1:]


def test_masks_by_kept_scores_are_those_of_the_network_which_is_not_run(tmp_path: Path) -> None:
    recipe = Recipe.model_validate({"back_end": "densecrf"})
    refs = photographs(tmp_path)
    front_end = open_front_end(recipe.front_end.name, read_weights(recipe).data)
    scored = label.score_images(refs, front_end, recipe)
    source = keep(tmp_path, refs, scored)

    again = kept.score_images(refs, no_network, recipe, source, Stopwatch())

    for ref, one, other in zip(refs, scored, again, strict=True):
        assert isinstance(one, Scored) and isinstance(other, Scored)
        row, same = (label.refine_image(ref, each, 0, recipe, Evaluation()) for each in (one, other))
        assert row["mask"] == same["mask"]
        assert (row["confidence"], row["entropy"], row["changed"]) == (
            same["confidence"], same["entropy"], same["changed"],
        )  # fmt: skip


def test_without_kept_scores_or_with_another_photograph_the_network_is_run(tmp_path: Path) -> None:
    recipe = Recipe()
    refs = photographs(tmp_path)
    front_end = open_front_end(recipe.front_end.name, read_weights(recipe).data)
    scored = label.score_images(refs, front_end, recipe)
    source = keep(tmp_path, refs, scored)
    Image.new("RGB", (64, 48), "red").save(refs[0].uri)  # changed since
    lost = refs[1]._replace(origin=Origin(RUN, 4, 1))  # whose shard kept none
    new = refs[2]._replace(origin=None)
    asked: list[int] = []

    class Counted:
        palette = None

        def score(self, rgbs: list[np.ndarray]) -> list[ScoreMap]:
            asked.append(len(rgbs))
            return front_end.score(rgbs)

    found = kept.score_images([refs[0], lost, new, refs[2]], Counted, recipe, source, Stopwatch())  # type: ignore[arg-type]

    assert asked == [3]
    sizes = [one.scores.size for one in found if isinstance(one, Scored)]
    assert sizes == [(48, 64), (120, 160), (120, 160), (120, 160)]


def test_a_photograph_that_is_gone_fails_as_it_would_without_kept_scores(tmp_path: Path) -> None:
    recipe = Recipe()
    refs = photographs(tmp_path)[:1]
    front_end = open_front_end(recipe.front_end.name, read_weights(recipe).data)
    source = keep(tmp_path, refs, label.score_images(refs, front_end, recipe))
    Path(refs[0].uri).unlink()
    (found,) = kept.score_images(refs, lambda: front_end, recipe, source, Stopwatch())
    assert isinstance(found, label.Failed) and found.status == "unreadable"


def test_only_what_the_scores_depend_on_tells_them_apart() -> None:
    def scores(**changes: Any) -> str:
        return Recipe.model_validate(changes).scores_fingerprint("a")

    assert scores() == scores(back_end="argmax") == scores(back_end={"parameters": {"iterations": 3}})
    others = [scores(max_side=512), scores(max_pixels=10), scores(front_end={"flip": True}), scores(front_end="lraspp")]
    assert len({scores(), Recipe().scores_fingerprint("b"), *others}) == 6
