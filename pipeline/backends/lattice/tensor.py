"""The fully connected CRF as torch operations over a whole batch, on a GPU or a CPU.

Source: [K] Krähenbühl, Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials", NIPS 2011,
and the authors' code (pydensecrf), whose arithmetic this follows step by step in float32.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.backends.lattice.parameters import PROBABILITY_FLOOR, Normalization, Parameters
from pipeline.backends.lattice.permutohedral import Lattice


class Kernel(NamedTuple):
    """One pairwise term: a Gaussian filter and what labels do to each other ([K] section 2).

    ``compatibility`` is pydensecrf's: a number w for Potts (a label's message is -w times its own filtered mass), a
    vector [L] for the diagonal of a matrix, or a matrix [L, L], of which the symmetric half counts.
    """

    lattice: Lattice
    compatibility: float | Tensor
    normalization: Normalization = "symmetric"


def mean_field(unary: Tensor, kernels: Sequence[Kernel], iterations: int) -> Tensor:
    """Marginals Q [B, L, N] of the field with energies ``unary`` [B, L, N] (float32 or float64): [K] algorithm 1.

    All pixels move at once and each one's own term stays in the sum, as in pydensecrf. Differentiable in the unary
    energies and the compatibilities. Raises ValueError for shapes that do not fit each other.
    """
    compatibilities = [torch.as_tensor(k.compatibility, dtype=unary.dtype, device=unary.device) for k in kernels]
    marginals = torch.softmax(-unary, 1)
    for _ in range(iterations):
        logits = -unary
        for kernel, compatibility in zip(kernels, compatibilities, strict=True):
            filtered = kernel.lattice.filter(marginals, kernel.normalization)
            logits = logits - _compatible(compatibility, filtered)
        marginals = torch.softmax(logits, 1)
    return marginals


@torch.no_grad()
def refine_batch(
    rgb: np.ndarray | Tensor,
    probabilities: np.ndarray | Tensor,
    parameters: Parameters,
    device: torch.device | str | None = None,
) -> Tensor:
    """Refined probabilities, float32 [B, L, H, W] on the device, of the labels that take part in the field.

    ``rgb`` is uint8 [B, H, W, 3], ``probabilities`` float32 [B, L, H, W]; all images of one size. Every label given
    takes part: ``keep_label_above`` is the caller's. Without ``device``: CUDA where there is one.
    Raises ValueError for shapes that do not fit and for images that overflow the lattice.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    rgb, probabilities = _on_device(rgb, device), _on_device(probabilities, device)
    batch, labels, height, width = probabilities.shape
    if rgb.shape != (batch, height, width, 3):
        raise ValueError(f"photographs {list(rgb.shape)} do not fit probabilities {list(probabilities.shape)}")
    spatial = Lattice(spatial_features(height, width, parameters.spatial_std, device))
    bilateral = Lattice(bilateral_features(rgb, parameters.bilateral_xy_std, parameters.bilateral_rgb_std))
    kernels = (
        Kernel(spatial, parameters.spatial_weight, parameters.normalization),
        Kernel(bilateral, parameters.bilateral_weight, parameters.normalization),
    )
    unary = -probabilities.clamp(PROBABILITY_FLOOR, 1).log().reshape(batch, labels, -1)
    return mean_field(unary, kernels, parameters.iterations).view(probabilities.shape)


def spatial_features(height: int, width: int, xy_std: float, device: torch.device | str | None = None) -> Tensor:
    """(x, y) / std of an image's pixels in row order: float32 [1, H * W, 2]; ``xy_std`` in pixels."""
    positions = _positions(height, width, device)
    return (positions / torch.tensor(xy_std, device=device)).view(1, -1, 2)


def bilateral_features(rgb: Tensor, xy_std: float, rgb_std: float) -> Tensor:
    """(x, y, r, g, b) / std of every pixel in row order: uint8 [B, H, W, 3] -> float32 [B, H * W, 5].

    ``xy_std`` is in pixels, ``rgb_std`` in grey levels of 255.
    """
    batch, height, width, _ = rgb.shape
    positions = _positions(height, width, rgb.device).expand(batch, -1, -1, -1)
    # A tensor: CUDA divides by a Python number through its reciprocal, which rounds otherwise.
    stds = torch.tensor([xy_std] * 2 + [rgb_std] * 3, device=rgb.device)
    return (torch.cat((positions, rgb.float()), 3) / stds).view(batch, -1, 5)


def _positions(height: int, width: int, device: torch.device | str | None) -> Tensor:
    """(x, y) of every pixel: float32 [H, W, 2]."""
    x, y = (torch.arange(length, dtype=torch.float32, device=device) for length in (width, height))
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), 2)


def _on_device(array: np.ndarray | Tensor, device: torch.device | str) -> Tensor:
    if isinstance(array, np.ndarray):
        array = torch.from_numpy(np.array(array, order="C"))  # torch takes no read-only and no reversed arrays
    return array.to(device)


def _compatible(compatibility: Tensor, filtered: Tensor) -> Tensor:
    """What the filtered marginals [B, L, N] add to the energies."""
    if compatibility.ndim == 0:
        return -compatibility * filtered
    if compatibility.ndim == 1:
        return compatibility[:, None] * filtered
    return (compatibility + compatibility.T) / 2 @ filtered
