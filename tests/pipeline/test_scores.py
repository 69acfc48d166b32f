import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from pipeline.scores import STRIP, Crop, Kept, Resize, ScoreMap, full_logits, posterior, softmax

side = st.integers(1, 60)
resize = st.builds(Resize, side, side, st.booleans())


@st.composite
def score_maps(draw: st.DrawFn) -> ScoreMap:
    """Logits with one to three resizes after them, each perhaps followed by a crop."""
    shape = draw(st.tuples(st.integers(1, 4), side, side))
    steps: list[Resize | Crop] = []
    for step in draw(st.lists(resize, min_size=1, max_size=3)):
        steps.append(step)
        if draw(st.booleans()):
            steps.append(Crop(draw(st.integers(1, step.height)), draw(st.integers(1, step.width))))
    logits = np.random.default_rng(draw(st.integers(0, 999))).normal(0, 5, shape).astype(np.float16)
    return ScoreMap(logits, tuple(steps))


def by_torch(scores: ScoreMap) -> np.ndarray:
    logits = torch.from_numpy(scores.logits.astype(np.float64))[None]
    for step in scores.steps:
        if isinstance(step, Crop):
            logits = logits[..., : step.height, : step.width]
        else:
            logits = F.interpolate(logits, step[:2], mode="bilinear", align_corners=step.align_corners)
    return logits[0].numpy()


@settings(max_examples=200)
@given(score_maps())
def test_full_logits_are_those_of_torch_interpolate(scores: ScoreMap) -> None:
    full = full_logits(scores)
    assert full.dtype == np.float32 and full.shape[1:] == scores.size
    np.testing.assert_allclose(full, by_torch(scores), atol=2e-5)


def test_the_steps_of_a_real_network() -> None:
    logits = np.random.default_rng(0).normal(0, 5, (21, 65, 65)).astype(np.float16)
    scores = ScoreMap(logits, (Resize(513, 513, True), Crop(385, 513), Resize(375, 500, True)))
    np.testing.assert_allclose(full_logits(scores), by_torch(scores), atol=1e-4)


def test_without_steps_the_logits_stay_and_are_a_copy() -> None:
    logits = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float16)
    logits.setflags(write=False)
    full = full_logits(ScoreMap(logits, ()))
    assert np.array_equal(full, logits) and full.flags.writeable
    assert ScoreMap(logits, ()).size == (4, 5)


def test_full_logits_take_read_only_scores_and_give_what_can_be_written() -> None:
    logits = np.zeros((3, 4, 5), np.float16)
    logits.setflags(write=False)
    assert full_logits(ScoreMap(logits, (Resize(8, 10, False),))).flags.writeable


@given(st.integers(1, 6), st.floats(0, 1e4))
def test_softmax_is_that_of_torch_however_large_the_logits(classes: int, scale: float) -> None:
    logits = (np.random.default_rng(classes).normal(size=(classes, 3, 4)) * scale).astype(np.float32)
    expected = torch.from_numpy(logits).softmax(0).numpy()
    np.testing.assert_allclose(softmax(logits.copy()), expected, atol=1e-6)


@given(st.integers(1, 6), st.integers(1, 3 * STRIP), st.floats(0, 60_000))
def test_the_posterior_is_as_certain_as_its_probabilities(planes: int, height: int, largest: float) -> None:
    logits = (np.random.default_rng(planes).uniform(-1, 1, (planes, height, 5)) * largest).astype(np.float16)
    found = posterior(ScoreMap(logits, (), Kept(tuple(range(planes)), 7)))
    expected = torch.from_numpy(logits).double().softmax(0)
    np.testing.assert_allclose(found.probabilities, expected.numpy(), atol=1e-6)
    assert found.probabilities.dtype == np.float32
    assert found.confidence == pytest.approx(float(expected.amax(0).mean()), abs=1e-6)
    entropy = torch.special.entr(expected).sum(0).mean() / np.log(7)
    assert found.entropy == pytest.approx(float(entropy), abs=1e-6)
