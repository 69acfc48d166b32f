import gc
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import psutil
import pydensecrf.densecrf as dcrf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.backends.lattice import _engine, cpu, reference
from pipeline.backends.lattice.parameters import Normalization, Parameters, energies

# The same examples on every run: a vertex more or less in a lattice is a rounding away, and moves what lies near it.
few = settings(max_examples=40, derandomize=True, deadline=None)
many = settings(max_examples=150, derandomize=True, deadline=None)

NORMALIZATIONS: dict[Normalization, int] = {
    "symmetric": dcrf.NORMALIZE_SYMMETRIC,
    "before": dcrf.NORMALIZE_BEFORE,
    "after": dcrf.NORMALIZE_AFTER,
    "none": dcrf.NO_NORMALIZATION,
}
# The engine walks strips of 64 columns, and has lanes for the labels but one: 1, 2, 4, 8, 16, 24, 32 and more.
HEIGHTS = (1, 2, 3, 5, 8, 17, 31, 40)
WIDTHS = (1, 2, 3, 4, 7, 8, 9, 31, 50, 63, 64, 65, 127, 128, 129, 130)
LABELS = (1, 2, 3, 4, 5, 6, 8, 9, 10, 16, 17, 18, 24, 25, 26, 32, 33, 34)
NORMALIZATION_NAMES = st.sampled_from(sorted(NORMALIZATIONS))
EXACT = Parameters(exact=True).resolved()


class Scene(NamedTuple):
    rgb: np.ndarray  # uint8 [H, W, 3]
    probabilities: np.ndarray  # float32 [L, H, W]


def scene(height: int, width: int, labels: int, seed: int = 0, patch: int = 5, colours: str = "patches") -> Scene:
    """Patches of colour and of labels, with noise on both.

    pydensecrf works on blocks of four pixels and fills the last one with pixels at feature zero, whose vertices stay
    in its lattice. The first pixel is black: there they lie on its vertices, and add none.
    """
    rng = np.random.default_rng(seed)

    def patches(channels: int) -> np.ndarray:
        rough = rng.normal(0, 1, (channels, -(-height // patch), -(-width // patch)))
        return rough.repeat(patch, 1).repeat(patch, 2)[:, :height, :width]

    rgb = 128 + 60 * patches(3) + rng.normal(0, 4, (3, height, width))
    if colours == "noise":
        rgb = rng.uniform(0, 256, rgb.shape)
    elif colours == "one":
        rgb = np.broadcast_to(rng.uniform(0, 256, (3, 1, 1)), rgb.shape)
    elif colours == "grey":
        rgb = np.broadcast_to(rgb[:1], rgb.shape)
    photograph = np.ascontiguousarray(np.clip(rgb, 0, 255).astype(np.uint8).transpose(1, 2, 0))
    photograph[0, 0] = 0
    logits = 2 * patches(labels) + rng.normal(0, 1, (labels, height, width))
    exponents = np.exp(logits - logits.max(0))
    return Scene(photograph, (exponents / exponents.sum(0)).astype(np.float32))


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    width = draw(st.sampled_from(WIDTHS))
    height = min(draw(st.sampled_from(HEIGHTS)), 2000 // width)
    colours = draw(st.sampled_from(["patches", "noise", "grey", "one"]))
    patch = draw(st.sampled_from([1, 3, 8]))
    return scene(height, width, draw(st.sampled_from(LABELS)), draw(st.integers(0, 2**16)), patch, colours)


def parameters(least_std: float = 0.5, most_std: float = 100.0) -> st.SearchStrategy[Parameters]:
    """Exact ones, deviations often round: then whole columns lie on the faces of simplices, and rounding decides."""
    stds = st.one_of(st.floats(least_std, most_std), st.integers(1, int(most_std)).map(float))

    def made(normalization: Any, spatial_weight: float, bilateral_weight: float, **given: Any) -> Parameters:
        scale = 0.02 if normalization == "none" else 1.0
        weights = {"spatial_weight": spatial_weight * scale, "bilateral_weight": bilateral_weight * scale}
        return Parameters(normalization=normalization, exact=True, **weights, **given).resolved()

    return st.builds(
        made,
        normalization=NORMALIZATION_NAMES,
        iterations=st.integers(1, 5),
        spatial_std=stds,
        bilateral_xy_std=stds,
        bilateral_rgb_std=stds,
        spatial_weight=st.floats(0, 4),
        bilateral_weight=st.floats(0, 6),
    )


def points(dimensions: int, pixels: int, spread: float = 2.0, seed: int = 4) -> np.ndarray:
    """Features float32 [pixels, dimensions]; the first at zero, where pydensecrf's own lie (``scene``)."""
    features = np.random.default_rng(seed).normal(0, spread, (pixels, dimensions)).astype(np.float32)
    features[0] = 0
    return features


def unaries(labels: int, pixels: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2, 1, (labels, pixels)).astype(np.float32)


def inferred(field: _engine.Field, unary: np.ndarray, iterations: int) -> np.ndarray:
    q = np.empty(unary.shape, np.float32)
    done = field.infer(unary, q, iterations, 0.0, False)
    assert done == (iterations if len(unary) > 1 else 0)  # one label is certain from the start
    return q


def assert_same_marginals(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape and found.dtype == np.float32
    apart = np.abs(found - expected).max(0)
    assert apart.max() < 1e-3


def assert_probabilities(found: np.ndarray, shape: tuple[int, ...]) -> None:
    assert found.shape == shape and found.dtype == np.float32 and found.min() >= 0
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-4)


@many
@given(scenes(), parameters())
def test_an_exact_field_is_that_of_pydensecrf(given: Scene, parameters: Parameters) -> None:
    found = cpu.mean_field(*given, parameters)
    assert_probabilities(found, given.probabilities.shape)
    assert_same_marginals(found, reference.mean_field(*given, parameters))


def test_pixels_on_the_faces_of_simplices_fall_to_the_side_that_they_do_in_pydensecrf() -> None:
    given = scene(31, 9, 3, colours="grey")
    for xy in (0.5, 1.0, 2.0, 3.0, 4.0):  # their multiples put the first column there
        for rgb in (2.0, 10.0, 50.0):
            update = {"bilateral_xy_std": xy, "bilateral_rgb_std": rgb, "spatial_weight": 0.0, "iterations": 1}
            parameters = EXACT.model_copy(update=update)
            found, expected = cpu.mean_field(*given, parameters), reference.mean_field(*given, parameters)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3, err_msg=str(update))


@pytest.mark.parametrize("labels", LABELS)
def test_ten_iterations_of_the_defaults_are_those_of_pydensecrf(labels: int) -> None:
    given = scene(31, 65, labels)
    found = cpu.mean_field(*given, EXACT)
    assert_same_marginals(found, reference.mean_field(*given, EXACT))
    assert labels == 1 or np.abs(found - given.probabilities).max() > 0.05


@few
@given(st.sampled_from(HEIGHTS), st.sampled_from(WIDTHS), st.sampled_from(LABELS))
def test_without_iterations_the_marginals_are_those_of_the_unaries(height: int, width: int, labels: int) -> None:
    unary = unaries(labels, height * width)
    field = _engine.Field(labels, height, width)
    field.add_gaussian(2.0, 3.0, 9.0, [], "symmetric")
    exponents = np.exp(unary.min(0) - unary)
    np.testing.assert_allclose(inferred(field, unary, 0), exponents / exponents.sum(0), atol=1e-6)


@few
@given(
    st.integers(1, 8),
    st.sampled_from([1, 2, 3, 5, 63, 64, 65, 400]),
    st.sampled_from([2, 3, 6, 9, 21]),
    NORMALIZATION_NAMES,
)
def test_any_features_are_filtered_as_by_pydensecrf(
    dimensions: int, pixels: int, labels: int, normalization: Normalization
) -> None:
    features, unary = points(dimensions, pixels), unaries(labels, pixels)
    plain = dcrf.DenseCRF(pixels, labels)
    plain.setUnaryEnergy(unary)
    plain.addPairwiseEnergy(np.ascontiguousarray(features.T), 0.4, normalization=NORMALIZATIONS[normalization])
    field = _engine.Field(labels, 1, pixels)
    field.add_lattice(_engine.lattice(features, 1, pixels), 0.4, [], normalization)
    assert_same_marginals(inferred(field, unary, 3), np.asarray(plain.inference(3)))


@few
@given(st.integers(1, 12), st.sampled_from([1, 2, 64, 65, 200]), st.integers(0, 17), st.floats(0.01, 2))
def test_the_reversed_filter_is_the_transpose(dimensions: int, pixels: int, channels: int, spread: float) -> None:
    lattice = _engine.lattice(points(dimensions, pixels, spread), 1, pixels)
    x, y = np.random.default_rng(pixels).uniform(0, 1, (2, channels, pixels)).astype(np.float32)
    forward, backward = np.empty_like(x), np.empty_like(y)
    lattice.filter(x, forward)
    lattice.filter(y, backward, reversed=True)
    np.testing.assert_allclose(np.vdot(forward, y.astype(float)), np.vdot(x.astype(float), backward), rtol=1e-5)


def test_the_order_of_the_axes_matters() -> None:
    lattice, values = _engine.lattice(points(5, 60, 0.7), 1, 60), unaries(2, 60)
    forward, backward = np.empty_like(values), np.empty_like(values)
    lattice.filter(values, forward)
    lattice.filter(values, backward, True)
    assert not np.allclose(forward, backward)


def test_a_lattice_of_colours_is_the_lattice_of_their_features() -> None:
    rgb = scene(9, 70, 2).rgb
    y, x = np.indices((9, 70), np.float32)
    stds = np.array([20, 30, 4, 5, 6], np.float32)
    features = np.stack([x / stds[1], y / stds[0], *(rgb.reshape(-1, 3) / stds[2:]).T.reshape(3, 9, 70)], -1)
    plain = _engine.lattice(np.ascontiguousarray(features.reshape(-1, 5), np.float32), 9, 70)
    lattice, values = _engine.bilateral(rgb, stds.tolist()), unaries(3, 630)
    assert (lattice.pixels, lattice.vertices) == (plain.pixels, plain.vertices) and lattice.pixels == 630
    found, expected = np.empty_like(values), np.empty_like(values)
    lattice.filter(values, found)
    plain.filter(values, expected)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@few
@given(
    st.sampled_from(HEIGHTS),
    st.sampled_from(WIDTHS),
    st.floats(0.3, 10),
    st.floats(0.3, 10),
    st.sampled_from(["symmetric", "before", "after"]),
)
def test_the_gaussian_is_the_one_that_its_formula_says(
    height: int, width: int, y_std: float, x_std: float, normalization: Normalization
) -> None:
    unary = unaries(3, height * width)
    field = _engine.Field(3, height, width)
    field.add_gaussian(y_std, x_std, 2.0, [], normalization)

    def kernel(size: int, std: float) -> np.ndarray:
        at = np.arange(size)
        dense = np.exp(-0.5 * ((at[:, None] - at) / std) ** 2)
        ones = dense.sum(1)
        before = {"symmetric": ones**-0.5, "before": 1 / ones, "after": ones**0}[normalization]
        after = {"symmetric": ones**-0.5, "before": ones**0, "after": 1 / ones}[normalization]
        return after[:, None] * dense * before

    exponents = np.exp(unary.min(0) - unary)
    q = (exponents / exponents.sum(0)).reshape(3, height, width)
    logits = 2 * kernel(height, y_std) @ q @ kernel(width, x_std).T - unary.reshape(q.shape)
    expected = np.exp(logits - logits.max(0))
    expected /= expected.sum(0)
    np.testing.assert_allclose(inferred(field, unary, 1).reshape(q.shape), expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("made", ["float16", "float64", "read-only", "fortran", "strided", "reversed", "moved"])
def test_arrays_of_any_type_and_layout_give_the_same_and_stay_as_they_were(made: str) -> None:
    rgb, probabilities = scene(17, 65, 5)
    if made == "float16":
        probabilities = probabilities.astype(np.float16).astype(np.float32)
    expected = cpu.mean_field(rgb, probabilities, EXACT)
    other = rgb.copy(), probabilities.copy()
    if made.startswith("float"):
        other = other[0], other[1].astype(made)
    elif made == "read-only":
        for array in other:
            array.setflags(write=False)
    elif made == "fortran":
        other = np.asfortranarray(rgb), np.asfortranarray(probabilities)
    elif made == "strided":
        other = rgb.repeat(2, 1)[:, ::2], probabilities.repeat(2, 2)[:, :, ::2]
    elif made == "reversed":
        other = rgb[::-1].copy()[::-1], probabilities[:, ::-1].copy()[:, ::-1]
    else:  # as images lie in a batch of torch's
        other = rgb.transpose(2, 0, 1).copy().transpose(1, 2, 0), probabilities.T.copy().T
    np.testing.assert_allclose(cpu.mean_field(*other, EXACT), expected, rtol=0, atol=1e-6)
    assert np.array_equal(other[0], rgb) and np.array_equal(other[1], probabilities)


@few
@given(
    scenes(), parameters(0.1, 1e6), st.sampled_from(["gaussian", "lattice"]),
    st.sampled_from([0.0, 0.005, 0.5]), st.sampled_from([0.0, 0.3, 0.9]), st.sampled_from([1.0, 1.9]),
)  # fmt: skip
def test_whatever_the_parameters_there_are_probabilities_or_one_line(
    given: Scene, parameters: Parameters, spatial_kernel: str, stop: float, settled: float, step: float
) -> None:
    dials = {"spatial_kernel": spatial_kernel, "stop_when_unchanged": stop, "settled_above": settled}
    dials["longest_step"] = step
    try:
        found = cpu.mean_field(*given, parameters.model_copy(update=dials))
    except ValueError as refusal:
        assert "\n" not in str(refusal) and "deviations" in str(refusal)
    else:
        assert_probabilities(found, given.probabilities.shape)


@pytest.mark.parametrize("std", [0.1, 0.01, 1e-4, 1e-30, 1e-45, 0.0, -0.01, float("inf"), float("nan")])
@pytest.mark.parametrize("at", [0, 2])
def test_no_deviation_of_colours_or_positions_crashes_the_process(std: float, at: int) -> None:
    deviations = [67.0, 67, 3, 3, 3]
    deviations[at : at + 2] = [std, std]
    given = scene(40, 50, 3, colours="noise")
    try:
        lattice = _engine.bilateral(given.rgb, deviations)
    except ValueError as refusal:
        assert "\n" not in str(refusal)
        return
    field = _engine.Field(3, 40, 50)
    field.add_lattice(lattice, 4.0, [], "symmetric")
    assert_probabilities(inferred(field, energies(given.probabilities).reshape(3, -1), 2), (3, 2000))


def test_so_far_apart_that_none_is_a_neighbour_the_lattice_still_answers_pixel_by_pixel() -> None:
    lattice = _engine.lattice(np.arange(65, dtype=np.float32)[:, None] * 1e4, 1, 65)
    values = unaries(2, 65)
    found = np.empty_like(values)
    lattice.filter(values, found)
    ratio = found / values
    assert (ratio > 0).all() and ratio.max() < 2
    one = np.zeros((1, 65), np.float32)
    one[0, 30] = 1
    reached = np.empty_like(one)
    lattice.filter(one, reached)
    assert np.flatnonzero(reached).tolist() == [30]


@pytest.mark.parametrize("height, width", [(1, 1), (1, 2), (1, 64), (1, 65), (65, 1), (2, 1)])
@pytest.mark.parametrize("labels", [1, 2, 21])
@pytest.mark.parametrize("spatial_kernel", ["gaussian", "lattice"])
def test_the_smallest_images_have_a_field(height: int, width: int, labels: int, spatial_kernel: Any) -> None:
    given = scene(height, width, labels)
    found = cpu.mean_field(*given, Parameters(spatial_kernel=spatial_kernel))
    assert_probabilities(found, (labels, height, width))


@pytest.mark.parametrize("grey", [0, 255])
def test_a_photograph_of_one_colour_has_a_field(grey: int) -> None:
    given = scene(30, 64, 4)
    given.rgb[:] = grey
    assert_probabilities(cpu.mean_field(*given, EXACT), (4, 30, 64))


def test_certain_probabilities_are_survived() -> None:
    probabilities = np.zeros((3, 20, 65), np.float32)
    probabilities[1] = 1
    found = cpu.mean_field(scene(20, 65, 3).rgb, probabilities, Parameters())
    assert_probabilities(found, probabilities.shape)
    assert (found[1] > 0.99).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("labels", [1, 2, 3, 9, 34])
def test_scores_that_are_not_numbers_do_not_crash_the_process(value: float, labels: int) -> None:
    rgb, probabilities = scene(17, 65, labels)
    probabilities[:, ::5, ::7] = value
    probabilities[0, 3, 3] = value
    assert cpu.mean_field(rgb, probabilities, Parameters()).shape == probabilities.shape
    unary = np.full((labels, 17 * 65), value, np.float32)
    field = _engine.Field(labels, 17, 65)
    cpu.add_spatial(field, (17, 65), EXACT)
    assert inferred(field, unary, 2).shape == unary.shape


def test_an_infinite_energy_forbids_its_label_and_leaves_the_others_alone() -> None:
    unary = unaries(4, 9 * 65)
    unary[3] = np.inf  # the label that the engine counts the others from
    field, three = _engine.Field(4, 9, 65), _engine.Field(3, 9, 65)
    for each in (field, three):
        each.add_gaussian(2.0, 2.0, 3.0, [], "symmetric")
    found = inferred(field, unary, 3)
    np.testing.assert_allclose(found[:3], inferred(three, unary[:3].copy(), 3), atol=2e-3)
    assert found[3].max() < 1e-6


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dimensions", [1, 2, 5, 8, 32])
def test_features_that_are_not_finite_are_refused(value: float, dimensions: int) -> None:
    features = points(dimensions, 70)
    features[66, dimensions - 1] = value
    with pytest.raises(ValueError, match="^a feature is not a finite number$"):
        _engine.lattice(features, 1, 70)


@pytest.mark.parametrize("dimensions, spread", [(1, 1e8), (2, 1e38), (5, 1e5), (32, 10.0)])
def test_features_that_spread_too_far_are_refused_in_one_line(dimensions: int, spread: float) -> None:
    with pytest.raises(ValueError, match=r"^the features span .* lattice cells, .*; take larger deviations$"):
        _engine.lattice(points(dimensions, 50, spread), 1, 50)


def an_image(shape: tuple[int, ...] = (3, 4, 3), dtype: Any = np.uint8) -> np.ndarray:
    return np.zeros(shape, dtype)


def a_lattice(height: int = 3, width: int = 4) -> _engine.Lattice:
    return _engine.bilateral(an_image((height, width, 3)), [1.0] * 5)


def numbers(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize("call, message", [
    (lambda: _engine.Field(0, 3, 4), "a field needs labels and pixels"),
    (lambda: _engine.Field(2, 3, -4), "a field needs labels and pixels"),
    (lambda: _engine.lattice(numbers(11, 2), 3, 4), "features must be [height * width, d]"),
    (lambda: _engine.lattice(numbers(0, 2), 0, 4), "features must be [height * width, d]"),
    (lambda: _engine.lattice(numbers(12, 0), 3, 4), "features must have 1 to 32 dimensions"),
    (lambda: _engine.lattice(numbers(12, 33), 3, 4), "features must have 1 to 32 dimensions"),
    (lambda: _engine.bilateral(an_image(), [1.0] * 4), "five deviations: y, x, red, green, blue"),
    (lambda: _engine.bilateral(an_image((0, 4, 3)), [1.0] * 5), "an image without pixels"),
    (lambda: _engine.Field(2, 4, 3).add_lattice(a_lattice(), 1, [], "none"),
     "the lattice is of another size than the field"),
    (lambda: _engine.Field(2, 3, 4).add_lattice(a_lattice(), 1, [1.0] * 3, "none"),
     "the matrix must be [labels, labels]"),
    (lambda: _engine.Field(2, 3, 4).add_gaussian(1, 1, 1, [1.0] * 9, "none"), "the matrix must be [labels, labels]"),
    (lambda: _engine.Field(2, 3, 4).add_gaussian(0, 1, 1, [], "none"), "a deviation must be positive"),
    (lambda: _engine.Field(2, 3, 4).add_gaussian(1, float("nan"), 1, [], "none"), "a deviation must be positive"),
    (lambda: _engine.Field(2, 3, 4).add_gaussian(1, 1, 1, [], "both"),
     "unknown normalization 'both'; there are symmetric, before, after, none"),
    (lambda: _engine.Field(2, 3, 4).infer(numbers(2, 11), numbers(2, 12), 1, 0.0, False),
     "unary and q must be [labels, pixels] of the field"),
    (lambda: _engine.Field(2, 3, 4).infer(numbers(2, 12), numbers(3, 12), 1, 0.0, False),
     "unary and q must be [labels, pixels] of the field"),
    (lambda: _engine.Field(2, 3, 4).infer(numbers(2, 12), numbers(2, 12), 1, 0.0, False, longest_step=0.5),
     "longest_step must be 1 or more"),
    (lambda: a_lattice().filter(numbers(2, 11), numbers(2, 11)),
     "values and out must be [channels, pixels] of the lattice"),
    (lambda: a_lattice().filter(numbers(2, 12), numbers(3, 12)),
     "values and out must be [channels, pixels] of the lattice"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(call: Any, message: str) -> None:
    with pytest.raises(ValueError) as refusal:
        call()
    assert str(refusal.value) == message


def read_only() -> np.ndarray:
    array = numbers(2, 12)
    array.setflags(write=False)
    return array


@pytest.mark.parametrize("call", [
    lambda: _engine.Field(2, 3, 4).infer(numbers(2, 12), numbers(2, 12).astype(float), 1, 0.0, False),
    lambda: _engine.Field(2, 3, 4).infer(numbers(2, 12), numbers(12, 2).T, 1, 0.0, False),
    lambda: _engine.Field(2, 3, 4).infer(numbers(2, 12), read_only(), 1, 0.0, False),
    lambda: _engine.Field(2, 3, 4).infer(numbers(24), numbers(2, 12), 1, 0.0, False),
    lambda: _engine.Field(2, 3, 4).infer(None, numbers(2, 12), 1, 0.0, False),
    lambda: _engine.Field(2, 3, 4).add_lattice(None, 1, [], "none"),
    lambda: _engine.Field(2, 3, 4).add_lattice("lattice", 1, [], "none"),
    lambda: _engine.bilateral(an_image(dtype=np.float32), [1.0] * 5),
    lambda: _engine.bilateral(an_image((3, 4, 4)), [1.0] * 5),
    lambda: _engine.bilateral(an_image((4, 3)), [1.0] * 5),
    lambda: a_lattice().filter(numbers(2, 12), read_only()),
])  # fmt: skip
def test_other_types_are_refused_and_results_are_never_written_to_a_copy(call: Any) -> None:
    with pytest.raises(TypeError):
        call()


def test_an_image_that_memory_does_not_hold_is_refused_before_anything_is_allocated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=8 * 2**30))
    rgb = np.broadcast_to(np.uint8(0), (8000, 8000, 3))
    probabilities = np.broadcast_to(np.float32(1 / 21), (21, 8000, 8000))
    message = (
        r"^a field over 8000x8000 pixels and 21 labels takes about 68\.2 GiB and 8\.0 GiB are free; "
        r"lower max_side, or label it in tiles$"
    )
    with pytest.raises(MemoryError, match=message):
        cpu.mean_field(rgb, probabilities, Parameters())
    cpu.check_memory(500, 500, 21)


def test_the_same_bits_come_back_every_time_and_from_every_thread() -> None:
    given, parameters = scene(100, 130, 6, patch=16), Parameters()
    expected = cpu.mean_field(*given, parameters)
    assert np.array_equal(cpu.mean_field(*given, parameters), expected)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: cpu.mean_field(*given, parameters), range(4)):
            assert np.array_equal(found, expected)


def test_threads_may_share_a_field_and_its_lattice() -> None:
    given = scene(50, 130, 4)
    field = _engine.Field(4, 50, 130)
    field.add_lattice(_engine.bilateral(given.rgb, [40, 40, 8, 8, 8]), 4.0, [], "symmetric")
    unary = energies(given.probabilities).reshape(4, -1)
    expected = inferred(field, unary, 5)
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(found, expected) for found in pool.map(lambda _: inferred(field, unary, 5), range(4)))


def test_a_field_keeps_the_lattice_that_it_was_given() -> None:
    given = scene(20, 65, 3)
    unary = energies(given.probabilities).reshape(3, -1)
    lattice = _engine.bilateral(given.rgb, [40, 40, 8, 8, 8])
    field = _engine.Field(3, 20, 65)
    field.add_lattice(lattice, 4.0, [], "symmetric")
    expected = inferred(field, unary, 3)
    del lattice
    gc.collect()
    assert np.array_equal(inferred(field, unary, 3), expected)


def test_other_threads_run_while_a_field_is_inferred() -> None:
    given = scene(300, 400, 4, patch=25)
    field = _engine.Field(4, 300, 400)
    field.add_lattice(_engine.bilateral(given.rgb, [67, 67, 3, 3, 3]), 4.0, [], "symmetric")
    unary = energies(given.probabilities).reshape(4, -1)
    q = np.empty_like(unary)
    counted, started, stopped = 0, threading.Event(), threading.Event()

    def count() -> None:
        nonlocal counted
        while not stopped.is_set():
            counted += 1
            started.set()
            time.sleep(0)

    def moves() -> bool:
        before = counted
        field.infer(unary, q, 10, 0.0, False)
        return counted > before

    # So long that no thread is ever asked for the GIL: the other one runs where it is released, nowhere else.
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    thread = threading.Thread(target=count)
    try:
        thread.start()
        started.wait()
        assert any(moves() for _ in range(20))  # on a busy machine the other one may get no core for a while
    finally:
        stopped.set()
        sys.setswitchinterval(interval)
        thread.join()


def smooth_scene(height: int = 200, width: int = 260, labels: int = 5) -> Scene:
    """A photograph of scikit-image's, and scores as a network gives them: smooth, of a twelfth of its size."""
    data = pytest.importorskip("skimage.data")
    ndimage = pytest.importorskip("scipy.ndimage")
    rgb = np.ascontiguousarray(data.coffee()[20 : 20 + height, 120 : 120 + width])
    small = rgb[6::12, 6::12].astype(float)
    rng = np.random.default_rng(5)
    centres = small.reshape(-1, 3)[rng.choice(small[..., 0].size, labels, replace=False)]
    near = -((small - centres[:, None, None]) ** 2).sum(-1) / 2 / 45**2
    rough = ndimage.gaussian_filter(near + rng.normal(0, 0.7, near.shape), (0, 0.7, 0.7))
    logits = 8 * ndimage.zoom(rough, (1, height / rough.shape[1], width / rough.shape[2]), order=1)
    exponents = np.exp(logits - logits.max(0))
    return Scene(rgb, (exponents / exponents.sum(0)).astype(np.float32))


def test_the_exact_gaussian_chooses_the_labels_that_the_lattice_does() -> None:
    given = smooth_scene()
    gaussian, lattice = (
        cpu.mean_field(*given, EXACT.model_copy(update={"spatial_kernel": kernel}))
        for kernel in ("gaussian", "lattice")
    )
    assert not np.array_equal(gaussian, lattice)
    assert (gaussian.argmax(0) == lattice.argmax(0)).mean() >= 0.995


def test_a_wide_gaussian_and_one_without_normalization_are_the_lattices() -> None:
    given = scene(20, 65, 3)
    for update in ({"spatial_std": cpu.GAUSSIAN_MAX_STD + 1}, {"normalization": "none", "spatial_weight": 0.1}):
        gaussian, lattice = (
            cpu.mean_field(*given, EXACT.model_copy(update={**update, "spatial_kernel": kernel}))
            for kernel in ("gaussian", "lattice")
        )
        assert np.array_equal(gaussian, lattice)


def test_a_field_stops_when_the_labels_stay_and_the_labels_are_the_same() -> None:
    given = smooth_scene()
    _, height, width = given.probabilities.shape
    field = _engine.Field(5, height, width)
    cpu.add_spatial(field, (height, width), Parameters())
    field.add_lattice(_engine.bilateral(given.rgb, [67, 67, 3, 3, 3]), 4.0, [], "symmetric")
    unary = energies(given.probabilities).reshape(5, -1)
    q, early = inferred(field, unary, 20), np.empty_like(unary)
    iterations = field.infer(unary, early, 20, 0.005, False)
    assert 1 < iterations < 20
    np.testing.assert_allclose(early, inferred(field, unary, iterations), rtol=0, atol=1e-4)  # kept in 16 bits
    assert (early.argmax(0) == q.argmax(0)).mean() >= 0.995
    assert field.infer(unary, early, 20, 0.9, False) == 1


@pytest.mark.parametrize("matrix", [False, True])
@pytest.mark.parametrize("labels", [2, 3, 4, 5, 8, 9, 16, 17, 21, 26])
def test_pixels_that_have_settled_leave_and_the_labels_are_the_same(labels: int, matrix: bool) -> None:
    given = smooth_scene(labels=labels)
    _, height, width = given.probabilities.shape
    field = _engine.Field(labels, height, width)
    cpu.add_spatial(field, (height, width), Parameters())
    compatibility = (0.5 * np.eye(labels) - 4.0 * np.eye(labels)).ravel().tolist() if matrix else []
    field.add_lattice(_engine.bilateral(given.rgb, [67, 67, 3, 3, 3]), 4.0, compatibility, "symmetric")
    unary = energies(given.probabilities).reshape(labels, -1)
    whole, left, none_settled = inferred(field, unary, 10), np.empty_like(unary), np.empty_like(unary)
    assert field.infer(unary, left, 10, 0.0, False, settled_above=0.9) == 10
    field.infer(unary, none_settled, 10, 0.0, False, settled_above=0.99999999)
    assert not np.array_equal(left, whole) and np.array_equal(none_settled, whole)
    np.testing.assert_allclose(left.sum(0), 1, atol=1e-4)
    assert (left.argmax(0) == whole.argmax(0)).mean() >= 0.985
    assert np.abs(left - whole).mean() < 0.011


@pytest.mark.parametrize("labels", [2, 3, 4, 5, 11, 17])
def test_pixels_that_their_unary_settles_keep_it_and_still_speak_to_the_others(labels: int) -> None:
    probabilities = np.full((labels, 16, 64), 1e-5, np.float32)
    probabilities[0], probabilities[1] = 0.45, 0.55
    probabilities[0, :, :40], probabilities[1, :, :40] = 0.99, 0.01  # whole cells
    probabilities /= probabilities.sum(0)
    field = _engine.Field(labels, 16, 64)
    field.add_lattice(_engine.bilateral(np.full((16, 64, 3), 90, np.uint8), [67, 67, 3, 3, 3]), 4.0, [], "symmetric")
    q = np.empty((labels, 16 * 64), np.float32)
    field.infer(energies(probabilities).reshape(labels, -1), q, 5, 0.0, False, settled_above=0.97)
    q = q.reshape(probabilities.shape)
    np.testing.assert_allclose(q[..., :40], probabilities[..., :40], rtol=0, atol=1e-4)
    assert (probabilities[..., 40:].argmax(0) == 1).all() and (q[..., 40:].argmax(0) == 0).all()


@pytest.mark.parametrize("labels", [2, 3, 4, 5, 8, 9, 16, 17, 21, 26])
def test_longer_steps_go_as_far_as_the_iterations_in_fewer(labels: int) -> None:
    given = smooth_scene(labels=labels)
    _, height, width = given.probabilities.shape
    field = _engine.Field(labels, height, width)
    cpu.add_spatial(field, (height, width), Parameters())
    field.add_lattice(_engine.bilateral(given.rgb, [67, 67, 3, 3, 3]), 4.0, [], "symmetric")
    unary = energies(given.probabilities).reshape(labels, -1)
    plain, seven, longer = inferred(field, unary, 10), inferred(field, unary, 7), np.empty_like(unary)
    assert field.infer(unary, longer, 10, 0.0, False, longest_step=1.75) == 7
    assert_probabilities(longer, unary.shape)
    assert np.abs(longer - plain).mean() < np.abs(seven - plain).mean() / 2
    assert (longer.argmax(0) == plain.argmax(0)).mean() >= 0.9955
    for iterations in (0, 1, 2, 3):  # too few to leave one out
        assert field.infer(unary, longer, iterations, 0.0, False, longest_step=1.9) == iterations
        assert np.array_equal(longer, inferred(field, unary, iterations))


@few
@given(st.sampled_from(LABELS), st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_a_field_goes_on_from_its_marginals(labels: int, first: int, then: int, matrix: bool) -> None:
    given = scene(7, 65, labels)
    field = _engine.Field(labels, 7, 65)
    compatibility = (0.5 * np.eye(labels) - 0.3).ravel().tolist() if matrix else []
    cpu.add_spatial(field, (7, 65), EXACT)
    field.add_lattice(_engine.bilateral(given.rgb, [40, 40, 8, 8, 8]), 3.0, compatibility, "after")
    unary = energies(given.probabilities).reshape(labels, -1)
    q = inferred(field, unary, first)
    field.infer(unary, q, then, 0.0, True)
    np.testing.assert_allclose(q, inferred(field, unary, first + then), rtol=0, atol=1e-4)


def test_an_instruction_set_is_chosen() -> None:
    assert _engine.instruction_set()
