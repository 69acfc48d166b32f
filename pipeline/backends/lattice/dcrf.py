"""``pydensecrf.densecrf`` on the C++ engine: change the import and keep the script.

    import pipeline.backends.lattice.dcrf as dcrf  # was: import pydensecrf.densecrf as dcrf

Source: the Python interface of pydensecrf2 1.1 (lucasb-eyer/pydensecrf), whose results these are: exact lattices for
every kernel, all labels, all iterations. What is more: arrays of any number type and layout are taken, read-only ones
too; the GIL is released; the marginals are plain numpy arrays; what does not fit is refused in one line instead of a
crash. pydensecrf pads the pixels to a multiple of four with ghosts at feature zero, which can move pixels near there a
little; there are none here. There is no learning of parameters, as there is none in pydensecrf's Python.
"""

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from pipeline.backends.lattice import _engine, cpu


class KernelType(IntEnum):
    """What of a kernel could be learnt; inference is the same with all of them."""

    CONST_KERNEL = 0
    DIAG_KERNEL = 1
    FULL_KERNEL = 2


class NormalizationType(IntEnum):
    """How a kernel is normalised by n, its answer to ones: L Q, L (Q / n), L Q / n, or L (Q / sqrt n) / sqrt n."""

    NO_NORMALIZATION = 0
    NORMALIZE_BEFORE = 1
    NORMALIZE_AFTER = 2
    NORMALIZE_SYMMETRIC = 3


CONST_KERNEL, DIAG_KERNEL, FULL_KERNEL = KernelType
NO_NORMALIZATION, NORMALIZE_BEFORE, NORMALIZE_AFTER, NORMALIZE_SYMMETRIC = NormalizationType

# By NormalizationType: the engine's name, and the powers of n that scale before and after the filter.
NORMALIZATIONS = (("none", 0.0, 0.0), ("before", -1.0, 0.0), ("after", 0.0, -1.0), ("symmetric", -0.5, -0.5))
# An energy so far above the pixel's least forbids its label; the engine takes differences, and infinities have none.
FORBIDDEN = np.float32(1e4)


class Unary:
    """Unary energies float32 [L, N], for ``DenseCRF.setUnary``."""

    def __init__(self, energies: Any) -> None:
        self.energies = _array("unary", energies, 2).copy()


class ConstUnary(Unary):
    """The energies as they are: numbers [L, N]."""


class LogisticUnary(Unary):
    """The energies ``L @ f`` of a logistic regression: weights ``L`` [L, K] and features ``f`` [K, N]."""

    def __init__(self, L: Any, f: Any) -> None:
        weights, features = _array("L", L, 2), _array("f", f, 2)
        if weights.shape[1] != features.shape[0]:
            raise ValueError(f"L {weights.shape} and f {features.shape} do not multiply")
        super().__init__(weights @ features)


class _Term(NamedTuple):
    """A pairwise term: Potts with ``weight`` where there is no ``matrix`` [L, L], which is symmetric."""

    lattice: _engine.Lattice
    weight: float
    matrix: np.ndarray | None
    normalization: NormalizationType

    def message(self, q: np.ndarray) -> np.ndarray:
        """What marginals [L, N] add to the energies: [L, N]."""
        _, before, after = NORMALIZATIONS[self.normalization]
        norm = self._filtered(np.ones((1, q.shape[1]), np.float32)) + np.float32(1e-20)
        filtered = self._filtered(q * norm**before) * norm**after
        return -self.weight * filtered if self.matrix is None else self.matrix @ filtered

    def _filtered(self, values: np.ndarray) -> np.ndarray:
        out = np.empty_like(values)
        self.lattice.filter(values, out)
        return out


class DenseCRF:
    """A fully connected CRF over ``nvar`` variables N with ``nlabels`` labels L.

    The compatibility of a pairwise term is a number w (Potts: a label's energy is -w times its own filtered
    marginal), a vector [L] (+v times it), or a matrix [L, L] (+(M + M^T) / 2 times all of them).
    ``kernel`` is checked and has no effect on inference. Errors: ValueError and TypeError name what does not fit;
    MemoryError where the machine has not the memory.
    """

    def __init__(self, nvar: int, nlabels: int) -> None:
        self._set_up((1, _whole("nvar", nvar, 1)), _whole("nlabels", nlabels, 1))

    def _set_up(self, size: tuple[int, int], labels: int) -> None:
        cpu.check_memory(*size, labels)
        self._size, self._labels, self._pixels = size, labels, size[0] * size[1]
        self._field = _engine.Field(labels, *size)
        self._terms: list[_Term] = []
        self._unary: np.ndarray | None = None

    def setUnary(self, u: Unary) -> None:
        """Takes a ``ConstUnary`` or ``LogisticUnary`` over [L, N]."""
        if not isinstance(u, Unary):
            raise TypeError(f"setUnary takes a ConstUnary or LogisticUnary, not {type(u).__name__}")
        energies = self._of_field("unary", u.energies)
        # Far more than FORBIDDEN above the least is as far, and would blur the others in single precision.
        self._unary = np.minimum(energies, energies.min(0) + FORBIDDEN)

    def setUnaryEnergy(self, u: Any, f: Any = None) -> None:
        """Energies ``u``, numbers [L, N]; or with ``f`` those of ``LogisticUnary(u, f)``. inf forbids a label."""
        self.setUnary(ConstUnary(u) if f is None else LogisticUnary(u, f))

    def addPairwiseEnergy(
        self,
        features: Any,
        compat: Any,
        kernel: int = DIAG_KERNEL,
        normalization: int = NORMALIZE_SYMMETRIC,
    ) -> None:
        """A kernel over ``features``, numbers [d, N] in standard deviations, d from 1 to 32."""
        rows = _array("features", features, 2)
        if rows.shape[1] != self._pixels:
            raise ValueError(f"features must be [d, {self._pixels}], not {list(rows.shape)}")
        lattice = _engine.lattice(np.ascontiguousarray(rows.T), *self._size)
        self._add(lattice, compat, kernel, normalization)

    def inference(self, niter: int) -> np.ndarray:
        """The marginals Q after ``niter`` iterations: float32 [L, N]."""
        q = np.empty((self._labels, self._pixels), np.float32)
        self._field.infer(self._energies(), q, _whole("niter", niter, 0), 0.0, False)
        return q

    def startInference(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The marginals of the unary alone (zeros where there is none), and two arrays to hand to stepInference."""
        q = np.zeros((self._labels, self._pixels), np.float32) if self._unary is None else self.inference(0)
        return q, np.empty((0, 0), np.float32), np.empty((0, 0), np.float32)

    def stepInference(self, Q: np.ndarray, tmp1: Any = None, tmp2: Any = None) -> None:  # noqa: ARG002 - scratch there
        """One iteration from the marginals ``Q`` [L, N], which it overwrites; the other two are not used."""
        if not isinstance(Q, np.ndarray) or not Q.flags.writeable:
            raise TypeError("Q must be a writable numpy array, as startInference gives it")
        q = self._of_field("Q", Q)
        if np.abs(q.sum(0) - 1).max() < 1e-4:
            out = q.copy()
            self._field.infer(self._energies(), out, 1, 0.0, True)
        else:  # the engine leaves one label out, by that sum
            logits = -self._energies()
            for term in self._terms:
                logits -= term.message(q)
            out = np.exp(logits - logits.max(0))
            out /= out.sum(0)
        Q[...] = out

    def klDivergence(self, Q: Any) -> float:
        """The KL divergence of marginals ``Q`` [L, N] from the field, but for its constant log Z."""
        q = self._of_field("Q", Q)
        energy = np.log(np.maximum(q, np.float32(1e-20))) + self._energies()
        for term in self._terms:
            energy += term.message(q)
        return float(np.vdot(q.astype(np.float64), energy))

    def _add(self, lattice: _engine.Lattice, compat: Any, kernel: int, normalization: int) -> None:
        KernelType(kernel)
        weight, matrix = _compatibility(compat, self._labels)
        term = _Term(lattice, weight, matrix, NormalizationType(normalization))
        flat = [] if matrix is None else matrix.ravel().tolist()
        self._field.add_lattice(lattice, weight, flat, NORMALIZATIONS[term.normalization][0])
        self._terms.append(term)

    def _energies(self) -> np.ndarray:
        return np.zeros((self._labels, self._pixels), np.float32) if self._unary is None else self._unary

    def _of_field(self, name: str, values: Any) -> np.ndarray:
        array = _array(name, values)
        if array.shape != (self._labels, self._pixels):
            raise ValueError(f"{name} must be [{self._labels}, {self._pixels}], not {list(array.shape)}")
        return array


class DenseCRF2D(DenseCRF):
    """A fully connected CRF over the pixels of an image, N = ``height * width`` in raster order."""

    def __init__(self, width: int, height: int, nlabels: int) -> None:
        size = _whole("height", height, 1), _whole("width", width, 1)
        self._set_up(size, _whole("nlabels", nlabels, 1))

    def addPairwiseGaussian(
        self, sxy: Any, compat: Any, kernel: int = DIAG_KERNEL, normalization: int = NORMALIZE_SYMMETRIC
    ) -> None:
        """A kernel over positions; ``sxy`` is its standard deviation in pixels, a number or (x, y)."""
        x_std, y_std = _deviations("sxy", sxy, 2)
        self._add(cpu.spatial_lattice(self._size, (y_std, x_std)), compat, kernel, normalization)

    def addPairwiseBilateral(
        self,
        sxy: Any,
        srgb: Any,
        rgbim: Any,
        compat: Any,
        kernel: int = DIAG_KERNEL,
        normalization: int = NORMALIZE_SYMMETRIC,
    ) -> None:
        """A kernel over positions and colours: deviations ``sxy`` as above, ``srgb`` a number or (r, g, b).

        ``rgbim`` is [height, width, 3], uint8 or whole numbers from 0 to 255.
        """
        x_std, y_std = _deviations("sxy", sxy, 2)
        colours = _deviations("srgb", srgb, 3)
        lattice = _engine.bilateral(_photograph(rgbim, self._size), [y_std, x_std, *colours])
        self._add(lattice, compat, kernel, normalization)


def _whole(name: str, value: Any, least: int) -> int:
    """An int; whole floats pass, as pydensecrf takes them."""
    if not isinstance(value, int | float | np.integer | np.floating) or value % 1 != 0:
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if not least <= value < 2**31:
        raise ValueError(f"{name} must be from {least} to {2**31 - 1}, not {value}")
    return int(value)


def _array(name: str, values: Any, dimensions: int | None = None) -> np.ndarray:
    """Numbers as a C-contiguous float32 array, of so many dimensions where that is asked for."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be real numbers, not {type(values).__name__} of {array.dtype}")
    if dimensions is not None and array.ndim != dimensions:
        raise ValueError(f"{name} must have {dimensions} dimensions, not {array.ndim}: {list(array.shape)}")
    with np.errstate(over="ignore"):
        return np.asarray(array, np.float32, order="C")


def _deviations(name: str, given: Any, count: int) -> list[float]:
    array = _array(name, given)
    if array.shape not in ((), (count,)):
        raise ValueError(f"{name} must be a number or {count} of them, not {given}")
    if not (array > 0).all() or not np.isfinite(array).all():
        raise ValueError(f"{name} must be positive and finite, not {given}")
    return np.broadcast_to(array, count).tolist()


def _photograph(rgbim: Any, size: tuple[int, int]) -> np.ndarray:
    """uint8 [height, width, 3], C-contiguous."""
    image = np.asarray(rgbim)
    if image.shape != (*size, 3):
        raise ValueError(
            f"rgbim must be {[*size, 3]}, not {list(image.shape)}; for other images add "
            "dcrf_utils.create_pairwise_bilateral's features by addPairwiseEnergy"
        )
    with np.errstate(invalid="ignore"):
        photograph = np.ascontiguousarray(image, np.uint8)
    if not np.array_equal(photograph, image):
        raise ValueError(f"rgbim must hold whole numbers from 0 to 255; this one, of {image.dtype}, holds others")
    return photograph


def _compatibility(compat: Any, labels: int) -> tuple[float, np.ndarray | None]:
    """Potts' weight, or the matrix float32 [L, L] that a vector or a matrix stands for."""
    array = _array("compat", compat)
    if array.shape not in ((), (labels,), (labels, labels)):
        raise ValueError(f"compat must be a number, [{labels}] or [{labels}, {labels}], not {list(array.shape)}")
    if not np.isfinite(array).all():
        raise ValueError(f"compat must be finite, not {compat}")
    if array.ndim == 0:
        return float(array), None
    return 0.0, np.diag(array) if array.ndim == 1 else (array + array.T) / 2
