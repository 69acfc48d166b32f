"""ScoreMap: what crosses from a front end to a back end.

A network that ends in a fixed interpolation sends its float16 logits at its own stride and the steps that bring them
to image size. Bilinear resizing and cropping are linear and separable, so the steps become one matrix an axis.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

# Labels whose probability nowhere passes this are not sent by networks that end at full size.
PROBABLE = 0.05
LOWEST = -100.0  # a log-probability; float16 has it, and float32 has its exponential
STRIP = 16  # rows of an image whose scores stay in the cache while they are worked on


class Resize(NamedTuple):
    """Bilinear interpolation to (height, width), as torch.nn.functional.interpolate does it."""

    height: int
    width: int
    align_corners: bool


class Crop(NamedTuple):
    """The top left (height, width)."""

    height: int
    width: int


class Upscore(NamedTuple):
    """A transposed convolution by the fixed bilinear kernel of 2 x stride pixels, of which (height, width) are taken
    from ``offset`` on (Long et al. 2015)."""

    height: int
    width: int
    stride: int
    offset: int


Step = Resize | Crop | Upscore


class Kept(NamedTuple):
    """Which classes a score map's planes are of, and of how many in all."""

    labels: tuple[int, ...]
    classes: int


class ScoreMap(NamedTuple):
    """Logits float16 [K, h, w] and the steps to the size of the image that was scored.

    The planes are of all classes, or of those that are ``kept`` where the others are nowhere probable.
    """

    logits: np.ndarray
    steps: tuple[Step, ...]
    kept: Kept | None = None
    gpu_ms: float = 0.0  # what it took of a GPU

    @property
    def labels(self) -> np.ndarray:
        """The class of each plane: uint8 [K]."""
        return np.array(range(len(self.logits)) if self.kept is None else self.kept.labels, np.uint8)

    @property
    def classes(self) -> int:
        """How many classes there are, with those that have no plane."""
        return len(self.logits) if self.kept is None else self.kept.classes

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) after the last step."""
        if self.steps:
            return self.steps[-1].height, self.steps[-1].width
        return self.logits.shape[1], self.logits.shape[2]


def full_logits(scores: ScoreMap) -> np.ndarray:
    """The logits at image size: float32 [K, H, W]."""
    logits = scores.logits.astype(np.float32)
    if not scores.steps:
        return logits
    rows, columns = (axis_matrix(logits.shape[1 + axis], scores.steps, axis) for axis in (0, 1))
    return rows @ (logits @ columns.T)


def probable(logits: "Tensor") -> tuple["Tensor", Kept]:
    """Log-probabilities [K, H, W] of the labels that pass PROBABLE, or come first, somewhere; of logits [C, H, W]."""
    import torch

    log_probabilities = logits.float().log_softmax(0).clamp(min=LOWEST)
    passes = log_probabilities.amax((1, 2)).exp() > PROBABLE
    passes[log_probabilities.argmax(0).unique()] = True
    labels = torch.nonzero(passes).flatten()
    return log_probabilities[labels], Kept(tuple(labels.tolist()), len(logits))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the first axis, float32, computed in place of the logits."""
    logits -= logits.max(0)
    np.exp(logits, out=logits)
    logits /= logits.sum(0)
    return logits


class Posterior(NamedTuple):
    """Class probabilities float32 [K, H, W], and how certain a pixel's are on average."""

    probabilities: np.ndarray
    confidence: float  # the largest probability
    entropy: float  # over the log of the class count: 0 certain, 1 uniform


def posterior(scores: ScoreMap) -> Posterior:
    """What the scores say of each pixel of the image that was scored, by softmax."""
    logits = full_logits(scores)
    largest = entropy = 0.0
    for row in range(0, logits.shape[1], STRIP):
        strip = logits[:, row : row + STRIP]
        strip -= strip.max(0)
        exponentials = np.exp(strip)
        total = exponentials.sum(0)
        largest += (1 / total).sum(dtype=np.float64)  # the largest exponential is 1
        mean_logit = np.einsum("khw,khw->hw", exponentials, strip) / total
        entropy += (np.log(total) - mean_logit).sum(dtype=np.float64)
        np.divide(exponentials, total, out=strip)
    pixels = logits[0].size
    return Posterior(logits, float(largest / pixels), float(entropy / (pixels * np.log(max(2, scores.classes)))))


@lru_cache(maxsize=64)
def axis_matrix(length: int, steps: tuple[Step, ...], axis: int) -> np.ndarray:
    """All steps along one axis as one float32 matrix [out, length]."""
    matrix = np.eye(length, dtype=np.float64)
    for step in steps:
        if isinstance(step, Crop):
            matrix = matrix[: step[axis]]
        elif isinstance(step, Upscore):
            matrix = upscoring(len(matrix), step.stride)[step.offset : step.offset + step[axis]] @ matrix
        else:
            matrix = interpolation(len(matrix), step[axis], step.align_corners) @ matrix
    return matrix.astype(np.float32)


def upscoring(length: int, stride: int) -> np.ndarray:
    """The matrix [(length + 1) * stride, length] of a transposed convolution by the bilinear kernel along one axis."""
    kernel = 1 - np.abs(np.arange(2 * stride) - (stride - 0.5)) / stride
    matrix = np.zeros(((length + 1) * stride, length))
    for column in range(length):
        matrix[column * stride : (column + 2) * stride, column] = kernel
    return matrix


def interpolation(length: int, out: int, align_corners: bool) -> np.ndarray:
    """The matrix [out, length] of bilinear interpolation along one axis."""
    if align_corners:
        position = np.arange(out) * ((length - 1) / (out - 1) if out > 1 else 0.0)
    else:
        position = np.maximum((np.arange(out) + 0.5) * (length / out) - 0.5, 0.0)
    low = np.minimum(position.astype(int), length - 1)
    high = np.minimum(low + 1, length - 1)
    weight = position - low
    matrix = np.zeros((out, length))
    index = np.arange(out)
    np.add.at(matrix, (index, low), 1 - weight)
    np.add.at(matrix, (index, high), weight)
    return matrix
