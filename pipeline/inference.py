"""Scoring a photograph more than once: at other scales, mirrored, and in windows where it is too large for memory.

The probabilities of all views of a pixel are averaged. Of a label only the windows are held where it is probable.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from pipeline.config import Inference
from pipeline.scores import LOWEST, PROBABLE, Kept, ScoreMap, full_logits, softmax

# (photographs, scale) -> their score maps
Score = Callable[[Sequence[np.ndarray], float], list[ScoreMap]]


def once(size: tuple[int, int], how: Inference) -> bool:
    """Whether a photograph of that size is scored once, as a whole."""
    fits = how.window is None or max(size) <= how.window
    return fits and how.scales == (1.0,) and not how.flip


def merged(rgb: np.ndarray, score: Score, how: Inference) -> ScoreMap:
    """The score map of a photograph (uint8 [H, W, 3]) at full size: log-probabilities of the labels to be kept."""
    height, width = rgb.shape[:2]
    planes: dict[int, np.ndarray] = {}
    classes, gpu_ms = 0, 0.0
    for rows in windows(height, how):
        for columns in windows(width, how):
            probabilities, took_ms = _of_views(rgb[rows, columns], score, how)
            classes, gpu_ms = len(probabilities), gpu_ms + took_ms
            weight = np.outer(_hat(rows), _hat(columns))
            for label in _probable(probabilities):
                plane = planes.setdefault(label, np.zeros((height, width), np.float32))
                plane[rows, columns] += probabilities[label] * weight
    labels = sorted(planes)
    total = sum(planes.values())
    logits = np.empty((len(labels), height, width), np.float16)
    for index, label in enumerate(labels):
        np.maximum(np.log(np.maximum(planes.pop(label) / total, 1e-44)), LOWEST, out=logits[index], casting="unsafe")
    return ScoreMap(logits, (), Kept(tuple(labels), classes), gpu_ms)


def windows(length: int, how: Inference) -> list[slice]:
    """The windows along one side: one if they are not needed."""
    if how.window is None or length <= how.window:
        return [slice(0, length)]
    return [slice(start, start + how.window) for start in starts(length, how.window, how.overlap)]


def starts(length: int, window: int, overlap: float) -> list[int]:
    """Where windows begin so that they cover a side evenly and share at least that part of each with the next."""
    count = math.ceil((length - window) / max(1, math.floor(window * (1 - overlap)))) + 1
    return [round(index * (length - window) / max(1, count - 1)) for index in range(count)]


def _of_views(rgb: np.ndarray, score: Score, how: Inference) -> tuple[np.ndarray, float]:
    """The mean probabilities float32 [C, h, w] over all scales and mirror images, and the GPU's milliseconds."""
    mirrored = (False, True) if how.flip else (False,)
    total: np.ndarray | None = None
    gpu_ms = 0.0
    for scale in how.scales:
        views = [np.ascontiguousarray(rgb[:, ::-1] if flipped else rgb) for flipped in mirrored]
        for flipped, scores in zip(mirrored, score(views, scale), strict=True):
            found = _all_classes(scores)
            found = found[..., ::-1] if flipped else found
            total = found if total is None else total + found
            gpu_ms += scores.gpu_ms
    assert total is not None
    return total / (len(how.scales) * len(mirrored)), gpu_ms


def _all_classes(scores: ScoreMap) -> np.ndarray:
    """Probabilities of all classes, those that were not sent zero."""
    found = softmax(full_logits(scores))
    if scores.kept is None:
        return found
    whole = np.zeros((scores.kept.classes, *found.shape[1:]), np.float32)
    whole[list(scores.kept.labels)] = found
    return whole


def _probable(probabilities: np.ndarray) -> list[int]:
    """The labels that pass PROBABLE, or come first, somewhere."""
    passes = probabilities.max((1, 2)) > PROBABLE
    passes[np.unique(probabilities.argmax(0))] = True
    return np.flatnonzero(passes).tolist()


def _hat(window: slice) -> np.ndarray:
    """Weights that fall from a window's middle to its ends, so that no seam is seen."""
    index = np.arange(window.stop - window.start, dtype=np.float32)
    return np.minimum(index + 1, index[::-1] + 1)
