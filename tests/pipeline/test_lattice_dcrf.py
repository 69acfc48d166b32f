from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import psutil
import pydensecrf.densecrf
import pydensecrf.utils
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.backends.lattice import dcrf, dcrf_utils

# The same examples on every run: a vertex more or less in a lattice is a rounding away, and moves what lies near it.
few = settings(max_examples=40, derandomize=True, deadline=None)
many = settings(max_examples=150, derandomize=True, deadline=None)

# Round ones put whole columns on the faces of simplices, where rounding decides.
STDS = st.one_of(st.floats(0.5, 100), st.integers(1, 100).map(float))
COMPATIBILITIES = ("number", "vector", "matrix")
NORMALIZATIONS = range(4)
HEIGHT, WIDTH = 9, 65


class Term(NamedTuple):
    """A pairwise term: the method that adds it, and what it takes."""

    method: str
    arguments: tuple[Any, ...]


class Case(NamedTuple):
    height: int
    width: int
    labels: int
    unary: np.ndarray  # float32 [L, N]
    terms: tuple[Term, ...]

    def field(self, module: ModuleType, flat: bool = False) -> Any:
        """``flat``: as a DenseCRF, which has no image."""
        sizes = (self.width * self.height,) if flat else (self.width, self.height)
        field = (module.DenseCRF if flat else module.DenseCRF2D)(*sizes, self.labels)
        field.setUnaryEnergy(self.unary)
        for term in self.terms:
            getattr(field, term.method)(*term.arguments)
        return field


def photograph(height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> np.ndarray:
    """Patches of colour with noise on them, uint8 [height, width, 3].

    pydensecrf works on blocks of four pixels and fills the last one with pixels at feature zero, whose vertices stay
    in its lattice. The first pixel is black: there they lie on its vertices, and add none.
    """
    rng = np.random.default_rng(seed)
    rough = rng.normal(128, 60, (-(-height // 6), -(-width // 6), 3)).repeat(6, 0).repeat(6, 1)[:height, :width]
    rgb = np.clip(rough + rng.normal(0, 5, rough.shape), 0, 255).astype(np.uint8)
    rgb[0, 0] = 0
    return rgb


def energies(labels: int, pixels: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2, 1, (labels, pixels)).astype(np.float32)


def points(dimensions: int, pixels: int, seed: int = 4, spread: float = 2.0) -> np.ndarray:
    """Features float32 [dimensions, pixels], the first at zero: ``photograph``."""
    features = np.random.default_rng(seed).normal(0, spread, (dimensions, pixels)).astype(np.float32)
    features[:, 0] = 0
    return features


def compatibility(form: str, labels: int, scale: float = 1.0, seed: int = 6) -> Any:
    if form == "number":
        return 2.0 * scale
    shape = (labels,) if form == "vector" else (labels, labels)
    return (np.random.default_rng(seed).normal(0, 0.5, shape) * scale).astype(np.float32)


@st.composite
def terms(draw: st.DrawFn, height: int, width: int, labels: int, flat: bool) -> Term:
    normalization = draw(st.sampled_from(NORMALIZATIONS))
    form, seed = draw(st.sampled_from(COMPATIBILITIES)), draw(st.integers(0, 999))
    scale = 0.03 if normalization == dcrf.NO_NORMALIZATION else 1.0
    last = compatibility(form, labels, scale, seed), draw(st.sampled_from(range(3))), normalization
    if flat:
        return Term("addPairwiseEnergy", (points(draw(st.integers(1, 8)), height * width, seed), *last))
    stds = STDS | st.tuples(STDS, STDS)
    if draw(st.booleans()):
        return Term("addPairwiseGaussian", (draw(stds), *last))
    colours = STDS | st.tuples(STDS, STDS, STDS)
    return Term("addPairwiseBilateral", (draw(stds), draw(colours), photograph(height, width, seed), *last))


@st.composite
def cases(draw: st.DrawFn, flat: bool = False) -> Case:
    width = draw(st.sampled_from([1, 2, 3, 8, 31, 63, 64, 65, 128, 130]))
    height = min(draw(st.sampled_from([1, 2, 5, 17, 40])), 1300 // width)
    labels = draw(st.sampled_from([1, 2, 3, 4, 5, 6, 9, 10, 17, 21, 25, 33, 34]))
    added = draw(st.lists(terms(height, width, labels, flat), max_size=3))
    unary = energies(labels, height * width, draw(st.integers(0, 999)))
    return Case(height, width, labels, unary, tuple(added))


def plain_case(labels: int = 3) -> Case:
    """As in pydensecrf's README."""
    rgb = photograph()
    return Case(HEIGHT, WIDTH, labels, energies(labels, HEIGHT * WIDTH), (
        Term("addPairwiseGaussian", (3.1, 3)),
        Term("addPairwiseBilateral", (81, 13.1, rgb, 10)),
    ))  # fmt: skip


def assert_same_marginals(found: Any, expected: Any) -> None:
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape and found.dtype == np.float32
    apart = np.abs(found - expected).max(0)
    assert apart.max() < 1e-3


@many
@given(cases(), st.integers(0, 5))
def test_inference_is_pydensecrfs(case: Case, iterations: int) -> None:
    found, expected = (case.field(module).inference(iterations) for module in (dcrf, pydensecrf.densecrf))
    assert isinstance(found, np.ndarray)
    assert_same_marginals(found, expected)


@few
@given(cases(flat=True), st.integers(0, 5))
def test_inference_over_any_features_is_pydensecrfs(case: Case, iterations: int) -> None:
    found, expected = (case.field(module, True).inference(iterations) for module in (dcrf, pydensecrf.densecrf))
    assert_same_marginals(found, expected)


@few
@given(cases(), st.integers(1, 4))
def test_every_step_and_its_divergence_are_pydensecrfs(case: Case, steps: int) -> None:
    mirror, plain = case.field(dcrf), case.field(pydensecrf.densecrf)
    found, expected = mirror.startInference(), plain.startInference()
    for _ in range(steps):
        assert_same_marginals(found[0], expected[0])
        # of single precision there, over all pixels
        magnitude = np.abs(case.unary).sum() + len(case.terms) * case.unary.shape[1]
        assert abs(mirror.klDivergence(found[0]) - plain.klDivergence(expected[0])) < 1e-4 * magnitude + 1e-2
        assert mirror.stepInference(*found) is None
        plain.stepInference(*expected)
    assert_same_marginals(found[0], expected[0])
    assert_same_marginals(found[0], mirror.inference(steps))


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("form", COMPATIBILITIES)
def test_a_step_and_the_divergence_take_marginals_that_sum_to_anything(form: str, normalization: int) -> None:
    scale = 0.03 if normalization == dcrf.NO_NORMALIZATION else 1.0
    term = Term("addPairwiseGaussian", ((3.1, 2.3), compatibility(form, 4, scale), 1, normalization))
    case = Case(HEIGHT, WIDTH, 4, energies(4, HEIGHT * WIDTH), (term,))
    q = np.random.default_rng(1).uniform(0.1, 0.9, case.unary.shape).astype(np.float32)
    mirror, plain = case.field(dcrf), case.field(pydensecrf.densecrf)
    matrices = plain.startInference()
    np.asarray(matrices[0])[...] = q
    np.testing.assert_allclose(mirror.klDivergence(q), plain.klDivergence(matrices[0]), rtol=1e-3)
    plain.stepInference(*matrices)
    mirror.stepInference(q)
    assert_same_marginals(q, matrices[0])


def test_a_field_without_unary_is_pydensecrfs() -> None:
    q = []
    for module in (dcrf, pydensecrf.densecrf):
        field = module.DenseCRF(8, 3)
        field.addPairwiseEnergy(points(2, 8), 2.0)
        start = field.startInference()
        q += [np.array(start[0]), np.array(field.inference(2))]
        field.stepInference(*start)
        q += [np.array(start[0])]
    for found, expected in zip(q[:3], q[3:], strict=True):
        assert_same_marginals(found, expected)


@pytest.mark.parametrize("how", ["constants", "regression"])
def test_every_form_of_unary_is_pydensecrfs(how: str) -> None:
    rng = np.random.default_rng(0)
    weights, features = (rng.normal(0, 1, shape).astype(np.float32) for shape in ((3, 4), (4, 20)))
    q = []
    for module in (dcrf, pydensecrf.densecrf):
        field = module.DenseCRF(20, 3)
        constants = how == "constants"
        field.setUnary(module.ConstUnary(energies(3, 20)) if constants else module.LogisticUnary(weights, features))
        field.addPairwiseEnergy(points(2, 20), 2.0)
        q.append(field.inference(2))
    assert_same_marginals(*q)


def test_energies_may_be_given_as_a_regression() -> None:  # which pydensecrf's setUnaryEnergy refuses, by the shape
    weights, features = np.eye(3) * [[1], [2], [3]], energies(3, 20)
    found, expected = dcrf.DenseCRF(20, 3), dcrf.DenseCRF(20, 3)
    found.setUnaryEnergy(weights, features)
    expected.setUnaryEnergy(weights @ features)
    assert np.array_equal(found.inference(2), expected.inference(2))


def test_the_last_unary_counts() -> None:
    case = plain_case()
    field, other = case.field(dcrf), energies(3, HEIGHT * WIDTH, seed=9)
    field.setUnaryEnergy(other)
    assert np.array_equal(field.inference(3), case._replace(unary=other).field(dcrf).inference(3))


def test_a_field_keeps_what_it_was_given() -> None:
    unary, rgb, matrix = energies(3, HEIGHT * WIDTH), photograph(), compatibility("matrix", 3)
    field = dcrf.DenseCRF2D(WIDTH, HEIGHT, 3)
    field.setUnaryEnergy(unary)
    field.addPairwiseBilateral(40, 8, rgb, matrix)
    expected = field.inference(3)
    for array in (unary, rgb, matrix):
        array[...] = 1
    assert np.array_equal(field.inference(3), expected)


@pytest.mark.parametrize("labels", [2, 5])
def test_an_energy_of_infinity_forbids_its_label(labels: int) -> None:
    case = plain_case(labels)
    case.unary[0, ::3] = np.inf
    case.unary[labels - 1, 1::3] = np.inf
    found = case.field(dcrf).inference(5)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)
    assert found[np.isinf(case.unary)].max() < 1e-6


@pytest.mark.parametrize("made", ["float16", "float64", "read-only", "fortran", "strided", "list"])
def test_arrays_of_any_type_and_layout_are_taken_and_left_alone(made: str) -> None:
    rgb, matrix, features = photograph(), compatibility("matrix", 3), points(3, HEIGHT * WIDTH)
    unary = energies(3, HEIGHT * WIDTH).astype(np.float16).astype(np.float32)
    matrix, features = (a.astype(np.float16).astype(np.float32) for a in (matrix, features))

    def inferred(rgb: Any, matrix: Any, features: Any, unary: Any) -> np.ndarray:
        field = dcrf.DenseCRF2D(WIDTH, HEIGHT, 3)
        field.setUnaryEnergy(unary)
        field.addPairwiseBilateral(40.1, 8.3, rgb, matrix)
        field.addPairwiseEnergy(features, 1.0)
        return field.inference(3)

    def other(array: np.ndarray) -> Any:
        if made.startswith("float"):
            return array.astype(made)
        if made == "read-only":
            array = array.copy()
            array.setflags(write=False)
            return array
        if made == "fortran":
            return np.asfortranarray(array)
        return array.tolist() if made == "list" else array.repeat(2, 1)[:, ::2]

    arrays = rgb, matrix, features, unary
    others = [other(array) for array in arrays]
    assert np.array_equal(inferred(*others), inferred(*arrays))
    assert all(np.array_equal(other, array) for other, array in zip(others, arrays, strict=True))


def test_numbers_may_be_numpys_and_whole_floats() -> None:
    field = dcrf.DenseCRF2D(np.int64(WIDTH), float(HEIGHT), np.uint8(3))  # type: ignore[arg-type]
    field.setUnaryEnergy(energies(3, HEIGHT * WIDTH))
    field.addPairwiseGaussian(np.float32(3), np.int64(2), normalization=np.int64(3))  # type: ignore[arg-type]
    field.addPairwiseGaussian(sxy=[3, 2], compat=2, kernel=dcrf.FULL_KERNEL, normalization=dcrf.NORMALIZE_AFTER)
    assert field.inference(np.int32(2)).shape == (3, HEIGHT * WIDTH)  # type: ignore[arg-type]


def test_the_names_and_numbers_are_pydensecrfs() -> None:
    for name in ["CONST_KERNEL", "DIAG_KERNEL", "FULL_KERNEL", "NO_NORMALIZATION", "NORMALIZE_BEFORE"]:
        assert int(getattr(dcrf, name)) == int(getattr(pydensecrf.densecrf, name))
    for name in ["NORMALIZE_AFTER", "NORMALIZE_SYMMETRIC"]:
        assert int(getattr(dcrf, name)) == int(getattr(pydensecrf.densecrf, name))
    for ours, theirs in [(dcrf, pydensecrf.densecrf), (dcrf_utils, pydensecrf.utils)]:
        public = {
            name for name, value in vars(theirs).items() if callable(value) and value.__module__ == theirs.__name__
        }
        public = {name for name in public if not name.startswith("_")}
        assert public <= set(vars(ours)) | {"Enum", "IntEnum"}, public - set(vars(ours))


def field(labels: int = 3) -> dcrf.DenseCRF2D:
    return dcrf.DenseCRF2D(4, 3, labels)


def image(*shape: int, value: float = 0.0) -> np.ndarray:
    return np.full(shape or (3, 4, 3), value)


@pytest.mark.parametrize("call, message", [
    (lambda: dcrf.DenseCRF(0, 2), "nvar must be from 1 to 2147483647, not 0"),
    (lambda: dcrf.DenseCRF(5, -1), "nlabels must be from 1 to 2147483647, not -1"),
    (lambda: dcrf.DenseCRF2D(4, 0, 3), "height must be from 1 to 2147483647, not 0"),
    (lambda: dcrf.DenseCRF2D(2**31, 4, 3), "width must be from 1 to 2147483647, not 2147483648"),
    (lambda: field().setUnaryEnergy(image(2, 12)), "unary must be [3, 12], not [2, 12]"),
    (lambda: field().setUnaryEnergy(image(3, 3, 4)), "unary must have 2 dimensions, not 3: [3, 3, 4]"),
    (lambda: field().setUnaryEnergy(image(3, 2), image(3, 12)), "L (3, 2) and f (3, 12) do not multiply"),
    (lambda: field().addPairwiseEnergy(image(2, 11), 1), "features must be [d, 12], not [2, 11]"),
    (lambda: field().addPairwiseEnergy(image(12), 1), "features must have 2 dimensions, not 1: [12]"),
    (lambda: field().addPairwiseEnergy(image(0, 12), 1), "features must have 1 to 32 dimensions"),
    (lambda: field().addPairwiseEnergy(image(33, 12), 1), "features must have 1 to 32 dimensions"),
    (lambda: field().addPairwiseEnergy(image(2, 12, value=np.nan), 1), "a feature is not a finite number"),
    (lambda: field().addPairwiseEnergy(image(2, 12, value=1e300), 1), "a feature is not a finite number"),
    (lambda: field().addPairwiseGaussian(3, [1, 2]), "compat must be a number, [3] or [3, 3], not [2]"),
    (lambda: field().addPairwiseGaussian(3, image(3, 4)), "compat must be a number, [3] or [3, 3], not [3, 4]"),
    (lambda: field().addPairwiseGaussian(3, float("inf")), "compat must be finite, not inf"),
    (lambda: field().addPairwiseGaussian((1, 2, 3), 1), "sxy must be a number or 2 of them, not (1, 2, 3)"),
    (lambda: field().addPairwiseGaussian(0, 1), "sxy must be positive and finite, not 0"),
    (lambda: field().addPairwiseGaussian((1, -1), 1), "sxy must be positive and finite, not (1, -1)"),
    (lambda: field().addPairwiseGaussian(float("nan"), 1), "sxy must be positive and finite, not nan"),
    (lambda: field().addPairwiseGaussian(3, 1, 9), "9 is not a valid KernelType"),
    (lambda: field().addPairwiseGaussian(3, 1, 1, 7), "7 is not a valid NormalizationType"),
    (lambda: field().addPairwiseBilateral(3, (3, 3), image(), 1), "srgb must be a number or 3 of them, not (3, 3)"),
    (lambda: field().addPairwiseBilateral(3, 0, image(), 1), "srgb must be positive and finite, not 0"),
    (lambda: field().addPairwiseBilateral(3, 3, image(value=0.5), 1),
     "rgbim must hold whole numbers from 0 to 255; this one, of float64, holds others"),
    (lambda: field().addPairwiseBilateral(3, 3, image(value=256.0), 1),
     "rgbim must hold whole numbers from 0 to 255; this one, of float64, holds others"),
    (lambda: field().addPairwiseBilateral(3, 3, image(value=np.nan), 1),
     "rgbim must hold whole numbers from 0 to 255; this one, of float64, holds others"),
    (lambda: field().addPairwiseBilateral(3, 3, image(4, 3, 3), 1),
     "rgbim must be [3, 4, 3], not [4, 3, 3]; for other images add dcrf_utils.create_pairwise_bilateral's features by "
     "addPairwiseEnergy"),
    (lambda: field().inference(-1), "niter must be from 0 to 2147483647, not -1"),
    (lambda: field().klDivergence(image(3, 11)), "Q must be [3, 12], not [3, 11]"),
    (lambda: field().stepInference(image(2, 12)), "Q must be [3, 12], not [2, 12]"),
])  # fmt: skip
def test_what_does_not_fit_is_a_value_error_of_one_line(call: Any, message: str) -> None:
    with pytest.raises(ValueError) as refusal:
        call()
    assert str(refusal.value) == message


def read_only() -> np.ndarray:
    array = image(3, 12)
    array.setflags(write=False)
    return array


@pytest.mark.parametrize("call, message", [
    (lambda: dcrf.DenseCRF("5", 2), "nvar must be a whole number, not '5'"),
    (lambda: dcrf.DenseCRF(5, None), "nlabels must be a whole number, not None"),
    (lambda: dcrf.DenseCRF2D(4.5, 3, 3), "width must be a whole number, not 4.5"),
    (lambda: field().inference(1.5), "niter must be a whole number, not 1.5"),
    (lambda: field().inference(float("nan")), "niter must be a whole number, not nan"),
    (lambda: field().setUnary(image(3, 12)), "setUnary takes a ConstUnary or LogisticUnary, not ndarray"),
    (lambda: field().setUnaryEnergy(None), "unary must be real numbers, not NoneType of object"),
    (lambda: field().setUnaryEnergy(image(3, 12) * 1j), "unary must be real numbers, not ndarray of complex128"),
    (lambda: field().addPairwiseGaussian(3, "a"), "compat must be real numbers, not str of <U1"),
    (lambda: field().addPairwiseGaussian(None, 1), "sxy must be real numbers, not NoneType of object"),
    (lambda: field().klDivergence(None), "Q must be real numbers, not NoneType of object"),
    (lambda: field().stepInference([1]), "Q must be a writable numpy array, as startInference gives it"),
    (lambda: field().stepInference(read_only()), "Q must be a writable numpy array, as startInference gives it"),
])  # fmt: skip
def test_what_is_no_number_is_a_type_error_of_one_line(call: Any, message: str) -> None:
    with pytest.raises(TypeError) as refusal:
        call()
    assert str(refusal.value) == message


@pytest.mark.parametrize("std", [1e-2, 1e-9, 1e-38])
def test_a_tiny_deviation_has_a_field_or_is_refused_in_one_line(std: float) -> None:
    mirror = dcrf.DenseCRF2D(WIDTH, HEIGHT, 3)
    try:
        mirror.addPairwiseBilateral(3, std, photograph(), 1)
        mirror.addPairwiseGaussian(std, 1)
    except ValueError as refusal:
        assert "\n" not in str(refusal)
    np.testing.assert_allclose(mirror.inference(2).sum(0), 1, atol=1e-5)


def test_a_field_that_memory_does_not_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=8 * 2**30))
    with pytest.raises(MemoryError, match=r"^a field over 8000x8000 pixels and 21 labels takes .* GiB are free; .*$"):
        dcrf.DenseCRF2D(8000, 8000, 21)


@pytest.mark.parametrize("shape", [(5, 7), (35,), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int16])
@pytest.mark.parametrize("zero_unsure", [True, False])
def test_unaries_of_labels_are_pydensecrfs(shape: tuple[int, ...], dtype: Any, zero_unsure: bool) -> None:
    classes = 5
    labels = np.random.default_rng(0).integers(0, classes + zero_unsure, shape).astype(dtype)
    found = dcrf_utils.unary_from_labels(labels, classes, 0.7, zero_unsure)
    # unsigned labels underflow there
    expected = pydensecrf.utils.unary_from_labels(labels.astype(np.int64), classes, 0.7, zero_unsure)
    assert found.dtype == expected.dtype and np.array_equal(found, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [None, 0.7, 1])
@pytest.mark.parametrize("clip", [None, 1e-5, 0.1])
def test_unaries_of_probabilities_are_pydensecrfs(dtype: Any, scale: float | None, clip: float | None) -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(5), (6, 7)).transpose(2, 0, 1).astype(dtype)
    found = dcrf_utils.unary_from_softmax(probabilities, scale, clip)
    expected = pydensecrf.utils.unary_from_softmax(probabilities, scale, clip)
    assert found.dtype == expected.dtype == np.float32 and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_half_precision_has_no_other_floor() -> None:
    probabilities = np.array([[[0.0, 0.5]], [[1.0, 0.5]]], np.float16)
    expected = -np.log(np.array([[1e-5, 0.5], [1, 0.5]], np.float32))
    np.testing.assert_allclose(dcrf_utils.unary_from_softmax(probabilities), expected, rtol=1e-6, atol=1e-7)


def test_the_deprecated_functions_are_pydensecrfs() -> None:
    labels = np.random.default_rng(0).integers(0, 6, (5, 7))
    probabilities = np.random.default_rng(0).dirichlet(np.ones(5), (6, 7)).transpose(2, 0, 1)
    with pytest.warns(DeprecationWarning, match="unary_from_labels"):
        found = dcrf_utils.compute_unary(labels, 5)
    assert np.array_equal(found, pydensecrf.utils.compute_unary(labels, 5))
    for certainty in (1, 0.5):
        with pytest.warns(DeprecationWarning, match="unary_from_softmax"):
            found = dcrf_utils.softmax_to_unary(probabilities, certainty)
        expected = pydensecrf.utils.softmax_to_unary(probabilities, certainty)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape, stds", [((5, 7), (3, 2)), ((4,), (2.5,)), ((3, 4, 5), (1, 2, 0.3)), ((1, 1), (1, 1))])
def test_the_features_of_positions_are_pydensecrfs(shape: tuple[int, ...], stds: tuple[float, ...]) -> None:
    found = dcrf_utils.create_pairwise_gaussian(stds, shape)
    expected = pydensecrf.utils.create_pairwise_gaussian(stds, shape)
    assert found.dtype == expected.dtype and np.array_equal(found, expected)


RGB = photograph(5, 7)


@pytest.mark.parametrize("sdims, schan, img, chdim", [
    ((3, 2), (4, 5, 6), RGB, 2),
    ((3, 2), 7.0, RGB, 2),
    ((3, 2), 7, RGB.astype(float), -1 + 3),
    ((3, 2), (7,), RGB[..., 0], -1),
    ((3, 2), (4, 5, 6), RGB.transpose(2, 0, 1), 0),
    ((3, 2), (4, 5, 6), RGB.transpose(0, 2, 1), 1),
    ((3,), (4, 5, 6), RGB[0], 1),
    ((3, 2, 1), (5,), RGB, -1),
])  # fmt: skip
def test_the_features_of_positions_and_channels_are_pydensecrfs(sdims: Any, schan: Any, img: Any, chdim: int) -> None:
    found = dcrf_utils.create_pairwise_bilateral(sdims, schan, img, chdim)
    expected = pydensecrf.utils.create_pairwise_bilateral(sdims, schan, img, chdim)
    assert found.dtype == expected.dtype and np.array_equal(found, expected)


def test_the_features_of_an_image_make_the_field_that_the_image_makes() -> None:
    case = plain_case()
    xy, srgb, rgb, compat = case.terms[1].arguments
    features = dcrf_utils.create_pairwise_bilateral((xy, xy), (srgb,) * 3, rgb, 2)
    order = [1, 0, 2, 3, 4]  # x before y, as addPairwiseBilateral has them
    other = Case(*case[:4], (case.terms[0], Term("addPairwiseEnergy", (features[order], compat))))
    assert_same_marginals(other.field(dcrf).inference(4), case.field(dcrf).inference(4))


@pytest.mark.parametrize("call, message", [
    (lambda: dcrf_utils.unary_from_labels(np.zeros(3, int), 3, 1.0), "gt_prob must be within (0, 1), not 1.0"),
    (lambda: dcrf_utils.unary_from_labels(np.zeros(3, int), 1, 0.5), "there must be two labels or more, not 1"),
    (lambda: dcrf_utils.unary_from_labels(np.array([0, 4]), 3, 0.5), "labels must be from 0 to 3, not from 0 to 4"),
    (lambda: dcrf_utils.unary_from_labels(np.array([-1, 2]), 3, 0.5, False),
     "labels must be from 0 to 2, not from -1 to 2"),
    (lambda: dcrf_utils.unary_from_softmax(np.ones((2, 3)), scale=0), "scale must be within (0, 1], not 0"),
    (lambda: dcrf_utils.create_pairwise_gaussian((1, 2, 3), (4, 5)), "sdims must be 2 numbers, not 3"),
    (lambda: dcrf_utils.create_pairwise_bilateral((1, 2), (3, 4), RGB, 2), "schan must be 3 numbers, not 2"),
    (lambda: dcrf_utils.create_pairwise_bilateral((1,), 3, RGB, 2), "sdims must be 2 numbers, not 1"),
])  # fmt: skip
def test_what_does_not_fit_the_utilities_is_refused_in_one_line(call: Any, message: str) -> None:
    with pytest.raises(ValueError) as refusal:
        call()
    assert str(refusal.value) == message


def test_labels_that_are_no_integers_are_refused() -> None:
    with pytest.raises(TypeError, match="^labels must be integers, not float64$"):
        dcrf_utils.unary_from_labels(np.zeros(3), 3, 0.5)
