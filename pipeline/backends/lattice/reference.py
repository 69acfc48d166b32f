"""pydensecrf, the implementation that the field is known by."""

import numpy as np

from pipeline.backends.lattice.parameters import Parameters, energies


def mean_field(rgb: np.ndarray, probabilities: np.ndarray, parameters: Parameters) -> np.ndarray:
    """Refined probabilities: uint8 [H, W, 3], float32 [L, H, W] -> float32 [L, H, W]."""
    import pydensecrf.densecrf as dcrf

    labels, height, width = probabilities.shape
    normalization = {
        "symmetric": dcrf.NORMALIZE_SYMMETRIC,
        "before": dcrf.NORMALIZE_BEFORE,
        "after": dcrf.NORMALIZE_AFTER,
        "none": dcrf.NO_NORMALIZATION,
    }[parameters.normalization]
    field = dcrf.DenseCRF2D(width, height, labels)
    field.setUnaryEnergy(np.ascontiguousarray(energies(probabilities).reshape(labels, -1), np.float32))
    field.addPairwiseGaussian(sxy=parameters.spatial_std, compat=parameters.spatial_weight, normalization=normalization)
    field.addPairwiseBilateral(
        sxy=parameters.bilateral_xy_std,
        srgb=parameters.bilateral_rgb_std,
        rgbim=np.array(rgb, order="C"),  # Ray's arrays are read-only, which pydensecrf refuses
        compat=parameters.bilateral_weight,
        normalization=normalization,
    )
    return np.asarray(field.inference(parameters.iterations), np.float32).reshape(labels, height, width)
