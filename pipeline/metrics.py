"""Confusion counts and the measures made of them. Every mean over classes is over the classes with truth.

A confusion matrix is kept as its tp, fp and fn a class: all measures here need no more, and rows add up.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from pipeline.errors import TruthError


@dataclass(frozen=True)
class Counts:
    """Pixels a class: true positives, false positives, false negatives; int64 [C] each."""

    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @staticmethod
    def zero(classes: int) -> "Counts":
        """No pixels yet."""
        return Counts(*(np.zeros(classes, np.int64) for _ in range(3)))

    @property
    def truth(self) -> np.ndarray:
        """Pixels of each class in the truth."""
        return self.tp + self.fn

    @property
    def present(self) -> np.ndarray:
        """Which classes have truth: bool [C]."""
        return self.truth > 0

    @property
    def iou(self) -> np.ndarray:
        """tp / (tp + fp + fn), float64 [C]; nan for classes without truth."""
        return _ratio(self.tp, self.tp + self.fp + self.fn, self.present)

    @property
    def accuracy(self) -> np.ndarray:
        """tp / truth, float64 [C]; nan for classes without truth."""
        return _ratio(self.tp, self.truth, self.present)

    @property
    def classes(self) -> int:
        """How many classes the means are over."""
        return int(self.present.sum())

    @property
    def miou(self) -> float | None:
        """The mean IoU over the classes with truth; None without truth."""
        return float(self.iou[self.present].mean()) if self.classes else None

    @property
    def class_accuracy(self) -> float | None:
        """The mean accuracy over the classes with truth."""
        return float(self.accuracy[self.present].mean()) if self.classes else None

    @property
    def pixel_accuracy(self) -> float | None:
        """The share of counted pixels that are right."""
        return float(self.tp.sum() / self.truth.sum()) if self.classes else None

    @property
    def frequency_weighted_iou(self) -> float | None:
        """The IoUs weighted by each class's share of the truth."""
        if not self.classes:
            return None
        share = self.truth / self.truth.sum()
        return float((share * np.nan_to_num(self.iou)).sum())


def _ratio(part: np.ndarray, whole: np.ndarray, where: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=where)


def count(truth: np.ndarray, labels: np.ndarray, classes: int, where: np.ndarray) -> Counts:
    """The counts of labels against truth (uint8 [H, W] each) over the pixels where ``where`` (bool [H, W]) holds."""
    pairs = truth[where].astype(np.int64) * classes + labels[where]
    matrix = np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
    tp = np.diag(matrix).copy()
    return Counts(tp, matrix.sum(0) - tp, matrix.sum(1) - tp)


def check_truth(truth: np.ndarray, size: tuple[int, int], classes: int, void: int) -> None:
    """Raises TruthError for a truth mask of another size than the image, or with ids past the classes."""
    if truth.shape != size:
        raise TruthError(f"truth is {truth.shape[1]}x{truth.shape[0]}, the image is {size[1]}x{size[0]}")
    outside = truth[(truth >= classes) & (truth != void)]
    if outside.size:
        raise TruthError(f"truth holds class id {outside.max()}; there are {classes} classes and void is {void}")


def boundary_band(truth: np.ndarray, width: int) -> np.ndarray:
    """The trimap (Kohli et al. 2009): pixels with another id, void included, at most ``width`` away. Bool [H, W].

    Distance is the larger of the two axes', so the band is two running extrema.
    """
    size = 2 * width + 1
    return ndimage.maximum_filter(truth, size) != ndimage.minimum_filter(truth, size)


def boundary_f(truth: np.ndarray, labels: np.ndarray, classes: int, void: int, tolerance: float = 0.0075) -> np.ndarray:
    """The boundary F measure of one image (Csurka et al. 2013): float64 [C], nan where truth has no such boundary.

    A class's boundary is its pixels beside another class's; what void hides is no boundary of either mask. A boundary
    pixel is right if the other mask's boundary is within ``tolerance`` times the image's diagonal.
    """
    reach = tolerance * float(np.hypot(*truth.shape))
    hidden = truth == void
    found = np.where(hidden, void, labels)
    scores = np.full(classes, np.nan)
    for label in np.unique(truth[~hidden]):
        ours, theirs = (_boundary(mask == label, hidden) for mask in (found, truth))
        if theirs.any():
            precision, recall = _near(ours, theirs, reach), _near(theirs, ours, reach)
            scores[label] = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return scores


def _boundary(inside: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """The pixels inside with one of their four neighbours neither inside nor hidden: bool [H, W]."""
    outside = ~(inside | hidden)
    beside = np.zeros(inside.shape, bool)
    beside[1:] |= outside[:-1]
    beside[:-1] |= outside[1:]
    beside[:, 1:] |= outside[:, :-1]
    beside[:, :-1] |= outside[:, 1:]
    return inside & beside


def _near(points: np.ndarray, others: np.ndarray, reach: float) -> float:
    """The share of the points that have one of the others within reach; 0 without points."""
    if not points.any() or not others.any():
        return 0.0
    return float((ndimage.distance_transform_edt(~others)[points] <= reach).mean())
