"""Counts and measures against values worked out by hand and against loops over pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline import metrics
from pipeline.errors import TruthError
from pipeline.metrics import Counts

CLASSES = 4
VOID = 255


def ids(values: st.SearchStrategy[int]) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.uint8, (5, 7), elements=values)


TRUTH = ids(st.sampled_from([*range(CLASSES), VOID]))
LABELS = ids(st.integers(0, CLASSES - 1))


def counted(truth: np.ndarray, labels: np.ndarray) -> Counts:
    return metrics.count(truth, labels, CLASSES, truth != VOID)


def by_hand() -> Counts:
    """Truth 0 0 0 1 1 2, labels 0 0 1 1 3 0: four classes, of which 3 has no truth."""
    truth, labels = np.array([[0, 0, 0, 1, 1, 2]], np.uint8), np.array([[0, 0, 1, 1, 3, 0]], np.uint8)
    return counted(truth, labels)


def test_counts_by_hand() -> None:
    counts = by_hand()
    assert counts.tp.tolist() == [2, 1, 0, 0]
    assert counts.fp.tolist() == [1, 1, 0, 1]
    assert counts.fn.tolist() == [1, 1, 1, 0]


def test_measures_by_hand() -> None:
    counts = by_hand()
    assert counts.iou[:3].tolist() == [0.5, pytest.approx(1 / 3), 0.0]
    assert np.isnan(counts.iou[3])
    assert counts.accuracy[:3].tolist() == [pytest.approx(2 / 3), 0.5, 0.0]
    assert counts.classes == 3
    assert counts.miou == pytest.approx((0.5 + 1 / 3) / 3)
    assert counts.class_accuracy == pytest.approx((2 / 3 + 0.5) / 3)
    assert counts.pixel_accuracy == pytest.approx(3 / 6)
    assert counts.frequency_weighted_iou == pytest.approx(3 / 6 * 0.5 + 2 / 6 / 3)


def test_no_truth_has_no_means() -> None:
    nothing = Counts.zero(CLASSES)
    assert nothing.classes == 0
    means = (nothing.miou, nothing.class_accuracy, nothing.pixel_accuracy, nothing.frequency_weighted_iou)
    assert means == (None, None, None, None)
    assert np.isnan(nothing.iou).all()


def test_void_pixels_do_not_count() -> None:
    counts = counted(np.full((3, 3), VOID, np.uint8), np.ones((3, 3), np.uint8))
    assert counts.tp.sum() == counts.fp.sum() == counts.fn.sum() == 0


@given(TRUTH, LABELS)
def test_count_is_the_loop_over_pixels(truth: np.ndarray, labels: np.ndarray) -> None:
    tp, fp, fn = (np.zeros(CLASSES, int) for _ in range(3))
    for real, found in zip(truth.ravel(), labels.ravel(), strict=True):
        if real == VOID:
            continue
        if real == found:
            tp[real] += 1
        else:
            fn[real] += 1
            fp[found] += 1
    counts = counted(truth, labels)
    assert (counts.tp.tolist(), counts.fp.tolist(), counts.fn.tolist()) == (tp.tolist(), fp.tolist(), fn.tolist())


@given(TRUTH, LABELS)
def test_iou_is_intersection_over_union(truth: np.ndarray, labels: np.ndarray) -> None:
    inside = truth != VOID
    for index, iou in enumerate(counted(truth, labels).iou):
        real, found = (truth == index) & inside, (labels == index) & inside
        if real.any():
            assert iou == pytest.approx((real & found).sum() / (real | found).sum())
        else:
            assert np.isnan(iou)


@given(TRUTH, LABELS, TRUTH, LABELS)
def test_counts_of_two_images_add_up(one: np.ndarray, found: np.ndarray, other: np.ndarray, seen: np.ndarray) -> None:
    together = counted(np.concatenate([one, other]), np.concatenate([found, seen]))
    apart = counted(one, found) + counted(other, seen)
    assert all((getattr(together, name) == getattr(apart, name)).all() for name in ("tp", "fp", "fn"))


@given(TRUTH)
def test_the_truth_itself_is_perfect(truth: np.ndarray) -> None:
    counts = counted(truth, np.where(truth == VOID, 0, truth))
    expected = 1.0 if (truth != VOID).any() else None
    assert counts.miou == counts.pixel_accuracy == counts.class_accuracy == expected
    assert counts.frequency_weighted_iou == (expected if expected is None else pytest.approx(1.0))


@given(TRUTH, st.integers(1, 3))
def test_boundary_band_is_the_loop_over_neighbours(truth: np.ndarray, width: int) -> None:
    height, length = truth.shape
    expected = np.zeros(truth.shape, bool)
    for y in range(height):
        for x in range(length):
            near = truth[max(0, y - width) : y + width + 1, max(0, x - width) : x + width + 1]
            expected[y, x] = (near != truth[y, x]).any()
    assert (metrics.boundary_band(truth, width) == expected).all()


def test_truth_of_another_size_is_refused() -> None:
    with pytest.raises(TruthError, match="truth is 7x5, the image is 6x5"):
        metrics.check_truth(np.zeros((5, 7), np.uint8), (5, 6), CLASSES, VOID)


def test_truth_with_an_unknown_class_is_refused() -> None:
    truth = np.array([[0, VOID, CLASSES]], np.uint8)
    with pytest.raises(TruthError, match="class id 4; there are 4 classes and void is 255"):
        metrics.check_truth(truth, (1, 3), CLASSES, VOID)


def test_truth_with_void_is_accepted() -> None:
    metrics.check_truth(np.array([[0, VOID, CLASSES - 1]], np.uint8), (1, 3), CLASSES, VOID)


def square(top: int, left: int, size: int = 100) -> np.ndarray:
    mask = np.zeros((300, 400), np.uint8)  # the diagonal is 500, the tolerance 3.75 pixels
    mask[top : top + size, left : left + size] = 1
    return mask


def test_the_boundaries_of_the_truth_itself_are_perfect() -> None:
    scores = metrics.boundary_f(square(50, 50), square(50, 50), 3, VOID)
    np.testing.assert_array_equal(scores, [1.0, 1.0, np.nan])


def test_a_boundary_counts_while_it_is_within_the_tolerance() -> None:
    assert metrics.boundary_f(square(50, 50), square(53, 50), 2, VOID)[1] == 1.0
    moved = metrics.boundary_f(square(50, 50), square(55, 50), 2, VOID)[1]
    # Top and bottom have moved too far, but for their ends; the sides have slid along themselves.
    assert 0.4 < moved < 0.6
    assert metrics.boundary_f(square(50, 50), square(150, 250), 2, VOID)[1] == 0.0
    assert metrics.boundary_f(square(50, 50), np.zeros((300, 400), np.uint8), 2, VOID)[1] == 0.0


def test_precision_and_recall_make_the_boundary_measure() -> None:
    found = square(50, 50)
    found[200:250, 300:350] = 1  # 196 boundary pixels more than the 396 right ones
    precision, recall = 396 / (396 + 196), 1.0
    expected = 2 * precision * recall / (precision + recall)
    assert metrics.boundary_f(square(50, 50), found, 2, VOID)[1] == pytest.approx(expected)


def test_void_hides_boundaries_of_both_masks() -> None:
    truth, found = square(50, 50), square(50, 50)
    truth[:, 200:] = VOID
    found[100:200, 250:300] = 1  # all of it under void
    np.testing.assert_array_equal(metrics.boundary_f(truth, found, 2, VOID), [1.0, 1.0])
    truth[:] = np.where(truth == 0, VOID, truth)
    assert np.isnan(metrics.boundary_f(truth, found, 2, VOID)).all()  # nothing but void beside the square
