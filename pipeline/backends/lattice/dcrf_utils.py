"""``pydensecrf.utils`` for ``dcrf``: energies and features of what a script has. Source: pydensecrf2 1.1, utils.py.

Results are equal to pydensecrf's. What does not fit raises a ValueError of one line, where that asserts or indexes past
an end; unsigned labels work with ``zero_unsure``.
"""

import math
import warnings
from collections.abc import Sequence
from numbers import Number
from typing import Any

import numpy as np


def unary_from_labels(labels: np.ndarray, n_labels: int, gt_prob: float, zero_unsure: bool = True) -> np.ndarray:
    """Energies float32 [n_labels, N] of a map of labels (integers, any shape) that is right with ``gt_prob``.

    With ``zero_unsure`` the label 0 is "could be anything" and the others are 1 to ``n_labels``; without, labels are 0
    to ``n_labels - 1``. Raises ValueError for labels outside, ``gt_prob`` not within (0, 1) and fewer than two labels.
    """
    if not 0 < gt_prob < 1:
        raise ValueError(f"gt_prob must be within (0, 1), not {gt_prob}")
    if n_labels < 2:
        raise ValueError(f"there must be two labels or more, not {n_labels}")
    flat = np.asarray(labels).ravel()
    if flat.dtype.kind not in "iub":
        raise TypeError(f"labels must be integers, not {flat.dtype}")
    classes = np.arange(n_labels) + int(zero_unsure)
    if flat.size and (flat.min() < 0 or flat.max() > classes[-1]):
        raise ValueError(f"labels must be from 0 to {classes[-1]}, not from {flat.min()} to {flat.max()}")
    right, wrong = np.float32(-np.log(gt_prob)), np.float32(-np.log((1.0 - gt_prob) / (n_labels - 1)))
    energies = np.where(flat == classes[:, None], right, wrong)
    if zero_unsure:
        energies[:, flat == 0] = -np.log(1.0 / n_labels)
    return energies


def unary_from_softmax(sm: np.ndarray, scale: float | None = None, clip: float | None = 1e-5) -> np.ndarray:
    """Energies float32 [L, N] of probabilities [L, ...]: -log of them, no less than ``clip`` each.

    ``scale`` in (0, 1] is the certainty of the probabilities: they are mixed with the uniform ones by it.
    Raises ValueError for another ``scale``.
    """
    probabilities = np.asarray(sm)
    if probabilities.dtype == np.float16:
        probabilities = probabilities.astype(np.float32)  # of half precision, 1e-5 is among the last numbers
    if scale is not None:
        if not 0 < scale <= 1:
            raise ValueError(f"scale must be within (0, 1], not {scale}")
        probabilities = scale * probabilities + (1 - scale) / len(probabilities)
    if clip is not None:
        probabilities = np.clip(probabilities, clip, 1.0)
    with np.errstate(divide="ignore"):
        energies = -np.log(probabilities)
    return energies.reshape(len(probabilities), -1).astype(np.float32)


def compute_unary(labels: np.ndarray, M: int, GT_PROB: float = 0.5) -> np.ndarray:
    """Deprecated in pydensecrf too: ``unary_from_labels``."""
    warnings.warn("compute_unary is deprecated: use unary_from_labels", DeprecationWarning, stacklevel=2)
    return unary_from_labels(labels, M, GT_PROB)


def softmax_to_unary(sm: np.ndarray, GT_PROB: float = 1) -> np.ndarray:
    """Deprecated in pydensecrf too: ``unary_from_softmax`` without a clip."""
    warnings.warn("softmax_to_unary is deprecated: use unary_from_softmax", DeprecationWarning, stacklevel=2)
    return unary_from_softmax(sm, None if GT_PROB == 1 else GT_PROB, clip=None)


def create_pairwise_gaussian(sdims: Sequence[float], shape: Sequence[int]) -> np.ndarray:
    """Features float32 [d, N]: the positions in an array of ``shape`` over the deviations ``sdims``, an axis a row."""
    positions = np.indices(tuple(shape), np.float32)
    return _over(positions, sdims, "sdims").reshape(len(shape), -1)


def create_pairwise_bilateral(
    sdims: Sequence[float], schan: float | Sequence[float], img: np.ndarray, chdim: int = -1
) -> np.ndarray:
    """Features float32 [d + channels, N]: positions over ``sdims``, then channels over ``schan``, a number or one each.

    ``chdim`` is the axis of the channels in ``img`` (numbers, d dimensions without it); -1: it has none.
    """
    image = np.asarray(img)
    channels = (image[None] if chdim == -1 else np.moveaxis(image, chdim, 0)).astype(np.float32)
    stds = [schan] * len(channels) if isinstance(schan, Number) else schan
    features = _over(np.indices(channels.shape[1:], np.float32), sdims, "sdims"), _over(channels, stds, "schan")
    return np.concatenate(features).reshape(-1, math.prod(channels.shape[1:]))


def _over(rows: np.ndarray, stds: Any, name: str) -> np.ndarray:
    """Rows [d, ...] over a deviation each."""
    if len(stds) != len(rows):
        raise ValueError(f"{name} must be {len(rows)} numbers, not {len(stds)}")
    return rows / np.asarray(stds, np.float32).reshape(-1, *[1] * (rows.ndim - 1))
