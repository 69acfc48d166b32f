"""The fully connected CRF of Krähenbühl and Koltun (NIPS 2011): mean field on a permutohedral lattice."""

import numpy as np

from pipeline.backends import Refined
from pipeline.backends.lattice.parameters import Parameters

__all__ = ["Parameters", "kept_labels", "refine"]


def refine(rgb: np.ndarray, probabilities: np.ndarray, parameters: Parameters) -> Refined:
    """The field over the labels that pass ``keep_label_above`` somewhere."""
    parameters = parameters.resolved()
    kept = kept_labels(probabilities, parameters.keep_label_above)
    if len(kept) == 1:
        return Refined(kept, np.ones((1, *probabilities.shape[1:]), np.float32))
    return Refined(kept, _mean_field(rgb, probabilities, kept, parameters))


def kept_labels(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """The indices of the labels that pass the threshold somewhere; the most probable one at the least."""
    peaks = probabilities.reshape(len(probabilities), -1).max(1)
    kept = np.flatnonzero(peaks > threshold)
    return kept if len(kept) else np.array([int(peaks.argmax())])


def _mean_field(rgb: np.ndarray, probabilities: np.ndarray, kept: np.ndarray, parameters: Parameters) -> np.ndarray:
    if parameters.engine == "torch":
        from pipeline.backends.lattice import tensor

        return tensor.refine_batch(rgb[None], probabilities[None, kept], parameters)[0].cpu().numpy()
    if parameters.engine == "pydensecrf":
        from pipeline.backends.lattice import reference

        return reference.mean_field(rgb, probabilities[kept], parameters)
    from pipeline.backends.lattice import cpu

    return cpu.mean_field(rgb, probabilities, parameters, kept.tolist())
