"""The C++ engine: a permutohedral lattice of our own (src/lattice.hpp) and a fused mean field (src/field.hpp)."""

from collections.abc import Sequence

import numpy as np
import psutil

from pipeline.backends.lattice import _engine
from pipeline.backends.lattice.parameters import PROBABILITY_FLOOR, Parameters

# A wider Gaussian has more taps than a lattice has work. Without normalisation, the scale of the lattice's own
# approximation is part of the result.
GAUSSIAN_MAX_STD = 10.0
# More than the peaks measured on textured photographs (docs/results.md): of the lattice, and of inference by label.
BYTES_A_PIXEL, BYTES_A_PIXEL_AND_LABEL = 200, 45


def mean_field(
    rgb: np.ndarray, probabilities: np.ndarray, parameters: Parameters, kept: Sequence[int] | None = None
) -> np.ndarray:
    """Refined probabilities: uint8 [H, W, 3], float [C, H, W] -> float32 [L, H, W] of the ``kept`` labels, or of all.

    Any strides and any float type; the GIL is released. Raises MemoryError where the machine has not the memory.
    """
    count, height, width = probabilities.shape
    kept = range(count) if kept is None else kept
    labels = len(kept)
    check_memory(height, width, labels)
    field = _engine.Field(labels, height, width)
    add_spatial(field, (height, width), parameters)
    xy, colour = parameters.bilateral_xy_std, parameters.bilateral_rgb_std
    lattice = _engine.bilateral(np.ascontiguousarray(rgb, np.uint8), [xy, xy, colour, colour, colour])
    field.add_lattice(lattice, parameters.bilateral_weight, [], parameters.normalization)
    planes = np.ascontiguousarray(probabilities, np.float32).reshape(count, -1)
    q = np.empty((labels, height * width), np.float32)
    field.refine(
        planes, list(kept), PROBABILITY_FLOOR, q, parameters.iterations, parameters.stop_when_unchanged,
        parameters.settled_above, parameters.longest_step,
    )  # fmt: skip
    return q.reshape(labels, height, width)


def add_spatial(field: _engine.Field, size: tuple[int, int], parameters: Parameters) -> None:
    """Adds the kernel over positions alone, by the way that the parameters ask for."""
    std, weight, normalization = parameters.spatial_std, parameters.spatial_weight, parameters.normalization
    if parameters.spatial_kernel == "gaussian" and std <= GAUSSIAN_MAX_STD and normalization != "none":
        field.add_gaussian(std, std, weight, [], normalization)
    else:
        field.add_lattice(spatial_lattice(size, (std, std)), weight, [], normalization)


def spatial_lattice(size: tuple[int, int], stds: tuple[float, float]) -> _engine.Lattice:
    """The lattice of the positions (x, y) of an image of ``size`` (height, width); ``stds`` are of y and x."""
    height, width = size
    features = np.empty((height, width, 2), np.float32)
    features[..., 0] = np.arange(width, dtype=np.float32) / np.float32(stds[1])
    features[..., 1] = np.arange(height, dtype=np.float32)[:, None] / np.float32(stds[0])
    return _engine.lattice(features.reshape(-1, 2), height, width)


def check_memory(height: int, width: int, labels: int) -> None:
    """Raises MemoryError where a field of this size does not fit into what the machine has left."""
    needed = height * width * (BYTES_A_PIXEL + BYTES_A_PIXEL_AND_LABEL * labels)
    free = psutil.virtual_memory().available
    if needed > free:
        raise MemoryError(
            f"a field over {width}x{height} pixels and {labels} labels takes about {needed / 2**30:.1f} GiB and "
            f"{free / 2**30:.1f} GiB are free; lower max_side, or label it in tiles"
        )
