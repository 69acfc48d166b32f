import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from pipeline import weights
from pipeline.config import Inference, Recipe
from pipeline.frontends import FrontEnd
from pipeline.inference import merged, once, starts, windows
from pipeline.preprocessing import Preprocessing
from pipeline.scores import Kept, Resize, ScoreMap, Step, full_logits, softmax


class Pointwise(nn.Module):
    """A network that looks at one pixel at a time: windows, and mirror images, change nothing."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)

    def steps(self, *_: int) -> tuple[Step, ...]:
        return ()


class Neighbours(Pointwise):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, (1, 7), padding=(0, 3))


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def probabilities(network: nn.Module, rgb: np.ndarray, **how: object) -> np.ndarray:
    (scores,) = FrontEnd(network, Preprocessing(), how=Inference.model_validate(how)).score([rgb])
    assert scores.kept is not None and scores.size == rgb.shape[:2]
    found = np.zeros((scores.kept.classes, *rgb.shape[:2]), np.float32)
    found[list(scores.kept.labels)] = softmax(full_logits(scores))
    return found


@pytest.mark.parametrize("how", [{"window": 64}, {"window": 70, "overlap": 0.9}, {"flip": True}, {"scales": [1, 1]}])
@pytest.mark.parametrize("size", [(64, 64), (65, 201), (300, 71), (1, 130)])
def test_a_network_that_sees_one_pixel_gives_the_same_in_every_way(
    how: dict[str, object], size: tuple[int, int]
) -> None:
    rgb = noise(*size)
    np.testing.assert_allclose(probabilities(Pointwise(), rgb, **how), probabilities(Pointwise(), rgb), atol=2e-3)


def test_a_mirror_image_is_averaged_with_the_photograph() -> None:
    rgb = noise(20, 40)
    straight = probabilities(Neighbours(), rgb)
    mirrored = probabilities(Neighbours(), rgb[:, ::-1])[..., ::-1]
    assert np.abs(straight - mirrored).max() > 0.05
    np.testing.assert_allclose(probabilities(Neighbours(), rgb, flip=True), (straight + mirrored) / 2, atol=2e-3)


def test_scales_are_averaged_at_full_size() -> None:
    seen: list[tuple[float, tuple[int, ...]]] = []

    def score(photographs: Sequence[np.ndarray], scale: float) -> list[ScoreMap]:
        seen.extend((scale, rgb.shape) for rgb in photographs)
        plane = np.full((1, *photographs[0].shape[:2]), np.log(3) if scale == 2 else 0.0, np.float16)
        return [ScoreMap(np.concatenate([plane, np.zeros_like(plane)]), ())] * len(photographs)

    scores = merged(noise(5, 6), score, Inference(scales=(1, 2), flip=True))
    assert seen == [(1, (5, 6, 3))] * 2 + [(2, (5, 6, 3))] * 2
    assert scores.kept == Kept((0, 1), 2) and scores.steps == ()
    np.testing.assert_allclose(softmax(full_logits(scores))[0], (0.5 + 0.75) / 2, atol=1e-3)


def test_a_label_of_one_window_is_held_for_that_one_alone() -> None:
    def score(photographs: Sequence[np.ndarray], scale: float) -> list[ScoreMap]:
        label = int(photographs[0][0, 0, 0])
        return [ScoreMap(np.zeros((1, 64, 64), np.float16), (), Kept((label,), 9))]

    rgb = np.zeros((64, 128, 3), np.uint8)
    rgb[:, 64:] = 7
    scores = merged(rgb, score, Inference(window=64, overlap=0))
    assert scores.kept == Kept((0, 7), 9)
    np.testing.assert_array_equal(softmax(full_logits(scores)).argmax(0), (rgb[..., 0] > 0).astype(int))


def test_windows_change_smoothly_into_each_other() -> None:
    def score(photographs: Sequence[np.ndarray], scale: float) -> list[ScoreMap]:
        first = photographs[0][0, 0, 0] == 0
        logits = np.zeros((2, 64, 64), np.float16)
        logits[0] = 4 if first else -4
        return [ScoreMap(logits, ())]

    rgb = np.broadcast_to(np.arange(96, dtype=np.uint8)[None, :, None], (64, 96, 3))
    row = softmax(full_logits(merged(rgb, score, Inference(window=64, overlap=0.5))))[0, 0]
    assert row[0] > 0.98 and row[-1] < 0.02 and np.abs(np.diff(row)).max() < 0.05


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.9])
@pytest.mark.parametrize("length", [64, 65, 127, 1000])
def test_windows_cover_a_side_and_share_what_is_told(length: int, overlap: float) -> None:
    found = windows(length, Inference(window=64, overlap=overlap))
    assert found[0].start == 0 and found[-1].stop == length
    assert all(window.stop - window.start == 64 for window in found)
    for one, other in itertools.pairwise(found):
        assert one.stop - other.start >= int(overlap * 64)


def test_no_more_windows_than_needed() -> None:
    assert starts(128, 64, 0) == [0, 64]
    assert starts(64, 64, 0.5) == [0]


def test_a_photograph_that_fits_is_scored_once() -> None:
    assert once((64, 64), Inference(window=64)) and not once((65, 1), Inference(window=64))
    assert once((9000, 9000), Inference())
    assert not once((5, 5), Inference(flip=True)) and not once((5, 5), Inference(scales=(0.5,)))


def test_logits_beyond_half_precision_stay_finite() -> None:
    network = Pointwise()
    network.layer.weight.data *= 1e7
    network.steps = lambda height, width: (Resize(height, width, False),)  # type: ignore[method-assign,assignment]
    (scores,) = FrontEnd(network, Preprocessing()).score([noise(4, 5)])
    assert np.abs(scores.logits).max() == 65504


def test_a_recipes_front_end_says_how_photographs_are_scored() -> None:
    recipe = Recipe.model_validate({"front_end": {"flip": True, "scales": [0.5, 1]}})
    data = weights.read_weights(recipe).data
    (often,) = weights.open_front_end("upernet_lite", data, how=recipe.front_end).score([noise(40, 50)])
    (once,) = weights.open_front_end("upernet_lite", data).score([noise(40, 50)])
    assert often.kept is not None and often.size == once.size == (40, 50) and once.kept is None


def test_a_batch_with_large_and_small_photographs_keeps_its_order() -> None:
    front_end = FrontEnd(Pointwise(), Preprocessing(), how=Inference(window=64))
    sizes = [(80, 40), (30, 30), (64, 90), (64, 64)]
    assert [scores.size for scores in front_end.score([noise(*size) for size in sizes])] == sizes
