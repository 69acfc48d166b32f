"""The fully connected CRF of Krähenbühl and Koltun (NIPS 2011): mean field on a permutohedral lattice (pydensecrf)."""

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

# pydensecrf's own floor for probabilities that become energies.
PROBABILITY_FLOOR = 1e-5
# The lattice counts in integers: a far smaller deviation overflows them, and pydensecrf takes the process with it.
MIN_STD, MAX_STD, MAX_WEIGHT = 0.1, 1e6, 1e6


class Parameters(BaseModel):
    """The field. The defaults are those of kazuto1011/deeplab-pytorch (DeepLab v2)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    iterations: int = Field(10, ge=1, le=1000)
    spatial_std: float = Field(1.0, ge=MIN_STD, le=MAX_STD, description="Pixels.")
    spatial_weight: float = Field(3.0, ge=0, le=MAX_WEIGHT)
    bilateral_xy_std: float = Field(67.0, ge=MIN_STD, le=MAX_STD, description="Pixels.")
    bilateral_rgb_std: float = Field(3.0, ge=MIN_STD, le=MAX_STD, description="Grey levels of 255.")
    bilateral_weight: float = Field(4.0, ge=0, le=MAX_WEIGHT)
    normalization: Literal["symmetric", "before", "after", "none"] = "symmetric"
    keep_label_above: float = Field(
        0.05, ge=0, lt=1, description="Labels whose probability nowhere passes this take no part in the field."
    )


def refine(rgb: np.ndarray, probabilities: np.ndarray, parameters: Parameters) -> np.ndarray:
    """Refined probabilities, float32 [C, H, W]; labels that took no part are zero everywhere."""
    kept = kept_labels(probabilities, parameters.keep_label_above)
    refined = np.zeros_like(probabilities)
    if len(kept) == 1:
        refined[kept[0]] = 1
    else:
        refined[kept] = _mean_field(rgb, probabilities[kept], parameters)
    return refined


def kept_labels(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """The indices of the labels that pass the threshold somewhere; the most probable one at the least."""
    peaks = probabilities.reshape(len(probabilities), -1).max(1)
    kept = np.flatnonzero(peaks > threshold)
    return kept if len(kept) else np.array([int(peaks.argmax())])


def _mean_field(rgb: np.ndarray, probabilities: np.ndarray, parameters: Parameters) -> np.ndarray:
    import pydensecrf.densecrf as dcrf

    labels, height, width = probabilities.shape
    unary = -np.log(np.clip(probabilities, PROBABILITY_FLOOR, 1.0)).reshape(labels, -1)
    normalization = {
        "symmetric": dcrf.NORMALIZE_SYMMETRIC,
        "before": dcrf.NORMALIZE_BEFORE,
        "after": dcrf.NORMALIZE_AFTER,
        "none": dcrf.NO_NORMALIZATION,
    }[parameters.normalization]
    field = dcrf.DenseCRF2D(width, height, labels)
    field.setUnaryEnergy(np.ascontiguousarray(unary, dtype=np.float32))
    field.addPairwiseGaussian(sxy=parameters.spatial_std, compat=parameters.spatial_weight, normalization=normalization)
    field.addPairwiseBilateral(
        sxy=parameters.bilateral_xy_std,
        srgb=parameters.bilateral_rgb_std,
        rgbim=np.array(rgb, order="C"),  # Ray's arrays are read-only, which pydensecrf refuses
        compat=parameters.bilateral_weight,
        normalization=normalization,
    )
    return np.asarray(field.inference(parameters.iterations), np.float32).reshape(labels, height, width)
