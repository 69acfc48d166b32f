"""The permutohedral lattice as torch operations over a whole batch, on a GPU or a CPU.

Source: [A] Adams, Baek, Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", Eurographics 2010, in
the arithmetic of pydensecrf, step by step in float32.

Splat, blur and slice are linear maps that the features alone decide, so each is a sparse matrix, built once a lattice.
"""

import math
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.backends.lattice.parameters import Normalization

# The powers of n = L(1) that scale the values before the filter and after it.
EXPONENTS: dict[str, tuple[float, float]] = {
    "symmetric": (-0.5, -0.5),
    "before": (-1.0, 0.0),
    "after": (0.0, -1.0),
    "none": (0.0, 0.0),
}
NORM_FLOOR = 1e-20
# From here on float32 no longer tells the corners of a simplex apart.
MAX_COORDINATE = 2.0**22


class SparseRows(NamedTuple):
    """A sparse matrix by rows: row i is ``columns`` and ``weights`` from ``offsets[i]`` to ``offsets[i + 1]``."""

    offsets: Tensor  # int32 [rows + 1]
    columns: Tensor  # int32 [entries]
    weights: Tensor  # float32 [entries]

    def times(self, table: Tensor) -> Tensor:
        """The product with a dense table, [columns, lanes] -> [rows, lanes], always summed in the same order."""
        # embedding_bag is this product in one pass, with int32 indices and without atomics.
        weights = self.weights.to(table.dtype)
        return F.embedding_bag(
            self.columns, table, self.offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
        )


class Lattice:
    """The permutohedral lattice around a batch of feature vectors, and its Gaussian filter L ([A] sections 3 and 4).

    ``features`` are float32 [B, N, d], in standard deviations, d >= 1. A lattice of one image (B = 1) filters batches
    of any size, so that what depends on positions only is built once. The order of the features is that of the blur
    and moves the result a little. Gradients flow through the values, not through the features.
    Raises ValueError where the features are not finite or spread over more cells than 63 bits count.
    """

    def __init__(self, features: Tensor) -> None:
        self.batch, self.pixels, dimensions = features.shape
        if not torch.isfinite(features).all():
            raise ValueError("the features of a lattice must be finite")
        if (dimensions + 1) * self.batch * self.pixels >= 2**31:
            raise ValueError(f"{self.batch} x {self.pixels} pixels are too many for one lattice: split the batch")
        corners, barycentric = _enclosing_simplices(features.detach().float().flatten(0, 1).T)
        keys, steps = _packed_keys(corners, self.batch)
        ordered, order = keys.flatten().sort(stable=True)
        vertices, vertex, touches = torch.unique_consecutive(ordered, return_inverse=True, return_counts=True)
        self._splat = _splat(order, touches, barycentric)
        self._blurs = [_blur(vertices, step) for step in steps]
        self._slice = _slice(order, vertex, barycentric)

    @cached_property
    def norm(self) -> Tensor:
        """The filter's answer to ones: float32 [B, 1, N]."""
        ones = torch.ones(self.batch * self.pixels, 1, device=self._splat.weights.device)
        return self._filter_rows(ones, transpose=False).view(self.batch, 1, self.pixels)

    def filter(self, values: Tensor, normalization: Normalization = "none", transpose: bool = False) -> Tensor:
        """L(values), [B, L, N] -> [B, L, N], in the values' own dtype.

        ``normalization`` is pydensecrf's: with n = L(1) and D = 1/sqrt(n), "symmetric" gives D L(D v), "before"
        L(v / n), "after" L(v) / n, "none" L(v). ``transpose`` applies the transposed map, which is also the gradient.
        Raises ValueError for a shape that is not the lattice's and for an unknown normalization.
        """
        if values.ndim != 3 or values.shape[2] != self.pixels or self.batch not in (1, len(values)):
            expected = f"[{self.batch if self.batch > 1 else 'B'}, L, {self.pixels}]"
            raise ValueError(f"this lattice filters {expected}, not {list(values.shape)}")
        if normalization not in EXPONENTS:
            raise ValueError(f"unknown normalization {normalization!r}; known: {', '.join(EXPONENTS)}")
        before, after = EXPONENTS[normalization][:: -1 if transpose else 1]
        rows = self._rows(self._scaled(values, before))
        filtered = _Filter.apply(rows, self, transpose)
        return self._scaled(self._values(filtered, values.shape), after)

    def _rows(self, values: Tensor) -> Tensor:
        """[B, L, N] -> a row a pixel of the lattice; a shared lattice filters all images as lanes of one."""
        return values.reshape(self.batch, -1, self.pixels).transpose(1, 2).contiguous().flatten(0, 1)

    def _values(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """The inverse of ``_rows``."""
        return rows.view(self.batch, self.pixels, -1).transpose(1, 2).contiguous().view(shape)

    def _scaled(self, values: Tensor, exponent: float) -> Tensor:
        if exponent == 0:
            return values
        return values * (self.norm + NORM_FLOOR).pow(exponent).to(values.dtype)

    def _filter_rows(self, rows: Tensor, transpose: bool) -> Tensor:
        """Splat, blur along the d + 1 axes, slice: [B * N, lanes] -> [B * N, lanes]."""
        table = self._splat.times(rows)
        for blur in reversed(self._blurs) if transpose else self._blurs:
            table = blur.times(table)
        return self._slice.times(table)


class _Filter(torch.autograd.Function):
    """The filter, whose gradient is the filter with its axes in reverse order: nothing has to be kept for it."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, lattice: Lattice, transpose: bool) -> Tensor:
        ctx.lattice, ctx.transpose = lattice, transpose
        return lattice._filter_rows(rows, transpose)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _Filter.apply(gradient.contiguous(), ctx.lattice, not ctx.transpose), None, None


class Corners(NamedTuple):
    """The d + 1 corners of every point's simplex.

    Corner 0 is ``nearest``, in units of d + 1; corner r + 1 is corner r after one step back along the axis whose
    ``place`` is r.
    """

    nearest: Tensor  # int32 [d + 1, P]
    place: Tensor  # int64 [d + 1, P], a permutation of the axes a point


def _enclosing_simplices(features: Tensor) -> tuple[Corners, Tensor]:
    """The simplex around every point [d, P], and the point's barycentric weights in it: float32 [d + 1, P]."""
    elevated = _elevated(features)
    size = len(elevated)
    inverse = np.float32(1 / size).item()
    # The nearest point whose coordinates are all multiples of d + 1, in units of d + 1 ([A] section 3, splatting).
    nearest = (elevated * inverse).round()
    rank = _rank(elevated - nearest * size)
    # That point may lie off the plane; moving the coordinates that rounding changed most brings it back.
    rank += nearest.sum(0).int()
    back = (rank < 0).int() - (rank >= size).int()
    rank += back * size
    nearest += back
    place = (size - 1 - rank).long()
    offset = torch.empty_like(elevated).scatter_(0, place, (elevated - nearest * size) * inverse)
    barycentric = offset - offset.roll(1, 0)
    barycentric[0] = offset[0] + (1 - offset[-1])
    return Corners(nearest.int(), place), barycentric


def _elevated(features: Tensor) -> Tensor:
    """[d, P] -> [d + 1, P]: onto the plane of the lattice, scaled for the blur's deviation ([A] section 3)."""
    dimensions = len(features)
    deviation = np.float32(math.sqrt(2 / 3) * (dimensions + 1)).item()
    elevated = features.new_empty(dimensions + 1, features.shape[1])
    total = torch.zeros_like(features[0])
    for axis in range(dimensions, 0, -1):
        scale = np.float32(deviation / math.sqrt(axis * (axis + 1))).item()
        scaled = features[axis - 1] * scale
        elevated[axis] = total - axis * scaled
        total = total + scaled
    elevated[0] = total
    if not elevated.abs().amax() < MAX_COORDINATE:
        raise ValueError("the features spread too far for a lattice in float32: use larger standard deviations")
    return elevated


def _rank(differences: Tensor) -> Tensor:
    """How many coordinates of a point [d + 1, P] are larger, the earlier of equals first: int32 [d + 1, P]."""
    rank = torch.zeros_like(differences, dtype=torch.int32)
    for first in range(len(rank)):
        for second in range(first + 1, len(rank)):
            smaller = differences[first] < differences[second]
            rank[first] += smaller
            rank[second] += ~smaller
    return rank


def _packed_keys(corners: Corners, batch: int) -> tuple[Tensor, list[int]]:
    """The lattice points of all corners as one integer each, int64 [d + 1, P], and what a step along an axis adds.

    A point k of the lattice has k_0 = ... = k_d modulo d + 1 and sum zero, so a_i = (k_{i-1} - k_i) / (d + 1) are d
    integers that name it; a step along axis j adds one to a_j and takes one from a_{j+1}. They are the digits of a
    number in mixed radix whose highest digit is the image.
    """
    digits = corners.nearest[:-1] - corners.nearest[1:]
    # One more at each end for the other corners, and one that stays free, so that no step runs into the next digit.
    low = digits.amin(1, keepdim=True) - 2
    radices = (digits.amax(1, keepdim=True) + 3 - low).flatten().tolist()
    strides = [math.prod(radices[i + 1 :]) for i in range(len(radices))]
    image = math.prod(radices)
    if batch * image >= 2**63:
        raise ValueError("the features spread over more lattice cells than 63 bits count: use larger deviations")
    first = torch.arange(batch, device=digits.device).repeat_interleave(digits.shape[1] // batch) * image
    for digit, stride in zip(digits - low, strides, strict=True):
        first = first + digit.long() * stride
    steps = [after - before for before, after in zip([0, *strides], [*strides, 0], strict=True)]
    walk = torch.empty_like(corners.place)
    walk.scatter_(0, corners.place, torch.tensor(steps, device=digits.device)[:, None].expand_as(walk))
    return torch.cat((first[None], first - walk[:-1].cumsum(0))), steps


def _splat(order: Tensor, touches: Tensor, barycentric: Tensor) -> SparseRows:
    """Pixels -> vertices. ``order`` sorts the corners by vertex; ``touches`` counts each vertex's."""
    pixels = torch.arange(barycentric.shape[1], dtype=torch.int32, device=order.device).expand_as(barycentric)
    return SparseRows(_offsets(touches), pixels.flatten()[order], barycentric.flatten()[order])


def _slice(order: Tensor, vertex: Tensor, barycentric: Tensor) -> SparseRows:
    """Vertices -> pixels, with [A]'s factor 1 / (1 + 2^-d). ``vertex`` is that of each sorted corner."""
    size, pixels = barycentric.shape
    columns = torch.empty(size * pixels, dtype=torch.int32, device=order.device)
    columns[order] = vertex.int()
    offsets = torch.arange(0, size * pixels + 1, size, dtype=torch.int32, device=order.device)
    weights = barycentric.T.flatten() * (1 / (1 + 2.0 ** (1 - size)))
    return SparseRows(offsets, columns.view(size, pixels).T.flatten(), weights)


def _blur(vertices: Tensor, step: int) -> SparseRows:
    """Vertices -> vertices: itself and half of its two neighbours along one axis ([A] section 3, blurring).

    Neighbours that no pixel touches do not exist. ``vertices`` are sorted keys; the link back is the same link.
    """
    itself = torch.arange(len(vertices), dtype=torch.int32, device=vertices.device)
    ahead = torch.searchsorted(vertices, vertices + step, out_int32=True).clamp_(max=len(vertices) - 1)
    ahead = torch.where(vertices[ahead] == vertices + step, ahead, -1)
    linked = (ahead >= 0).nonzero().flatten()
    behind = torch.full_like(itself, -1)
    behind[ahead[linked].long()] = itself[linked]
    columns = torch.stack((behind, itself, ahead), 1)
    entries = (columns >= 0).flatten().nonzero().flatten()
    weights = torch.where(columns == itself[:, None], 1.0, 0.5)
    return SparseRows(_offsets((columns >= 0).sum(1)), columns.flatten()[entries], weights.flatten()[entries])


def _offsets(counts: Tensor) -> Tensor:
    """Where rows with so many entries begin, and the end of the last: int32 [rows + 1]."""
    return F.pad(counts.cumsum(0), (1, 0)).int()
