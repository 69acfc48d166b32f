from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pydensecrf.densecrf as dcrf
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydensecrf.utils import unary_from_softmax

from pipeline import backends
from pipeline.backends import Refined, densecrf
from pipeline.backends.lattice.parameters import MAX_STD, MAX_WEIGHT, MIN_STD
from pipeline.errors import ConfigError

HEIGHT, WIDTH, LABELS = 60, 80, 6
# One other value for each of the field's parameters.
OTHER: dict[str, Any] = {
    "iterations": 2,
    "spatial_std": 3.0,
    "spatial_weight": 9.0,
    "bilateral_xy_std": 20.0,
    "bilateral_rgb_std": 30.0,
    "bilateral_weight": 12.0,
    "normalization": "after",
    "engine": "pydensecrf",
    "keep_label_above": 0.0,
    "settled_above": 0.5,
    "longest_step": 1.0,
    "stop_when_unchanged": 0.9,
    "spatial_kernel": "lattice",
    "exact": True,
}
ENGINES = ("cpu", "torch", "pydensecrf")
NORMALIZATIONS = {
    "symmetric": dcrf.NORMALIZE_SYMMETRIC,
    "before": dcrf.NORMALIZE_BEFORE,
    "after": dcrf.NORMALIZE_AFTER,
    "none": dcrf.NO_NORMALIZATION,
}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """torch's on one thread: many small operations, which wait for each other's threads on a busy machine."""
    if request.param != "torch":
        yield request.param
        return
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield request.param
    torch.set_num_threads(threads)


@pytest.fixture(params=backends.names())
def back_end(request: pytest.FixtureRequest) -> ModuleType:
    return backends.load(request.param)


def scene(height: int = HEIGHT, width: int = WIDTH, labels: int = LABELS) -> tuple[np.ndarray, np.ndarray]:
    """A noisy photograph of four coloured fields, and rough scores of them; two labels more nowhere get far."""
    rng = np.random.default_rng(7)
    fields = (np.arange(height)[:, None] * 2 // height) * 2 + np.arange(width) * 2 // width
    colours = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200], [200, 200, 40]])
    rgb = np.clip(colours[fields] + rng.normal(0, 6, (height, width, 3)), 0, 255).astype(np.uint8)
    logits = rng.normal(0, 1, (labels, height, width)).astype(np.float32)
    logits[:4] += 2.5 * (fields == np.arange(4)[:, None, None])
    logits[4:] -= 6
    exponent = np.exp(logits - logits.max(0))
    return rgb, (exponent / exponent.sum(0)).astype(np.float32)


def full(refined: Refined, classes: int) -> np.ndarray:
    """The probabilities of all classes, float32 [classes, H, W]."""
    assert refined.probabilities.dtype == np.float32 and refined.kept.dtype.kind in "iu"
    assert len(refined.kept) == len(refined.probabilities) and (np.diff(refined.kept) > 0).all()
    probabilities = np.zeros((classes, *refined.probabilities.shape[1:]), np.float32)
    probabilities[refined.kept] = refined.probabilities
    return probabilities


def refined(back_end: str | ModuleType, rgb: np.ndarray, probabilities: np.ndarray, **given: Any) -> np.ndarray:
    """What the back end makes of all classes."""
    module = backends.load(back_end) if isinstance(back_end, str) else back_end
    return full(module.refine(rgb, probabilities, module.Parameters(**given)), len(probabilities))


def plain_densecrf(rgb: np.ndarray, probabilities: np.ndarray, **given: Any) -> np.ndarray:
    """pydensecrf as its README calls it, all labels in."""
    p = densecrf.Parameters(**given)
    labels, height, width = probabilities.shape
    normalization = NORMALIZATIONS[p.normalization]
    field = dcrf.DenseCRF2D(width, height, labels)
    field.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(probabilities)))
    field.addPairwiseGaussian(sxy=p.spatial_std, compat=p.spatial_weight, normalization=normalization)
    field.addPairwiseBilateral(
        sxy=p.bilateral_xy_std,
        srgb=p.bilateral_rgb_std,
        rgbim=rgb.copy(),
        compat=p.bilateral_weight,
        normalization=normalization,
    )
    return np.asarray(field.inference(p.iterations)).reshape(probabilities.shape)


def test_a_back_end_has_what_the_contract_asks_for(back_end: ModuleType) -> None:
    assert back_end.__doc__
    assert issubclass(back_end.Parameters, BaseModel)
    assert back_end.Parameters.model_config["frozen"] and back_end.Parameters.model_config["extra"] == "forbid"
    assert backends.parameters(back_end.__name__.rpartition(".")[2]) is back_end.Parameters
    back_end.Parameters()  # all of them have defaults


def test_what_comes_back_are_probabilities(back_end: ModuleType) -> None:
    rgb, probabilities = scene()
    found = refined(back_end, rgb, probabilities)
    assert found.shape == probabilities.shape and found.dtype == np.float32
    assert found.min() >= 0
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)


def test_the_inputs_are_left_as_they_were(back_end: ModuleType) -> None:
    rgb, probabilities = scene()
    before = rgb.copy(), probabilities.copy()
    back_end.refine(rgb, probabilities, back_end.Parameters())
    assert np.array_equal(rgb, before[0]) and np.array_equal(probabilities, before[1])


@pytest.mark.parametrize("made", ["read-only", "fortran", "strided", "reversed"])
def test_arrays_of_any_layout_give_the_same(back_end: ModuleType, made: str) -> None:
    rgb, probabilities = scene()
    expected = refined(back_end, rgb, probabilities)
    if made == "read-only":
        rgb.setflags(write=False)
        probabilities.setflags(write=False)
    elif made == "fortran":
        rgb, probabilities = np.asfortranarray(rgb), np.asfortranarray(probabilities)
    elif made == "strided":
        rgb, probabilities = rgb.repeat(2, 1)[:, ::2], probabilities.repeat(2, 2)[:, :, ::2]
    else:
        rgb, probabilities = rgb[::-1].copy()[::-1], probabilities[:, ::-1].copy()[:, ::-1]
    assert np.array_equal(refined(back_end, rgb, probabilities), expected)


@pytest.mark.parametrize("height, width", [(1, 1), (1, 9), (9, 1), (2, 3)])
@pytest.mark.parametrize("labels", [1, 2, 6])
def test_any_size_and_any_number_of_labels(back_end: ModuleType, height: int, width: int, labels: int) -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(labels), (height, width)).astype(np.float32)
    rgb = np.zeros((height, width, 3), np.uint8)
    found = refined(back_end, rgb, probabilities.transpose(2, 0, 1))
    assert found.shape == (labels, height, width)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)


def test_argmax_leaves_the_probabilities() -> None:
    rgb, probabilities = scene()
    assert np.array_equal(refined("argmax", rgb, probabilities), probabilities)


def test_argmax_has_no_parameters() -> None:
    with pytest.raises(ValidationError):
        backends.parameters("argmax")(iterations=3)


def test_the_labels_are_the_most_probable_of_the_kept_ones() -> None:
    rgb, probabilities = scene()
    found = densecrf.refine(rgb, probabilities[::-1], densecrf.Parameters())
    assert found.kept.tolist() == [2, 3, 4, 5]
    labels = found.labels()
    assert labels.dtype == np.uint8 and np.array_equal(labels, full(found, LABELS).argmax(0))


@pytest.mark.parametrize("parameters", [
    {},
    {"normalization": "after", "iterations": 5, "bilateral_xy_std": 160.0, "spatial_std": 3.0},
    {"normalization": "before"},
    {"normalization": "none", "spatial_weight": 0.5, "bilateral_weight": 0.1},
    {"bilateral_xy_std": 80.0, "bilateral_rgb_std": 13.0, "bilateral_weight": 10.0},
])  # fmt: skip
def test_an_exact_field_is_pydensecrfs(parameters: dict[str, Any]) -> None:
    rgb, probabilities = scene()
    plain = plain_densecrf(rgb, probabilities, **parameters)
    np.testing.assert_allclose(refined("densecrf", rgb, probabilities, exact=True, **parameters), plain, atol=1e-4)
    found = refined("densecrf", rgb, probabilities, exact=True, engine="pydensecrf", **parameters)
    assert np.array_equal(found, plain)


def test_every_engine_infers_the_same_field(engine: str) -> None:
    rgb, probabilities = scene()
    rgb, probabilities = rgb[20:40, 25:55], probabilities[:, 20:40, 25:55]
    plain = plain_densecrf(rgb, probabilities)
    found = refined("densecrf", rgb, probabilities, engine=engine, exact=True)
    np.testing.assert_allclose(found, plain, atol=1e-4)
    found = refined("densecrf", rgb, probabilities, engine=engine)
    assert not found[4:].any()
    assert (found.argmax(0) == plain.argmax(0)).mean() > 0.99


def test_leaving_out_faint_labels_does_not_move_the_others() -> None:
    rgb, probabilities = scene()
    found = refined("densecrf", rgb, probabilities)
    plain = plain_densecrf(rgb, probabilities)
    assert densecrf.kept_labels(probabilities, 0.05).tolist() == [0, 1, 2, 3]
    assert not found[4:].any()
    assert (found.argmax(0) == plain.argmax(0)).mean() > 0.999
    exact = refined("densecrf", rgb, probabilities, stop_when_unchanged=0, spatial_kernel="lattice")
    assert np.abs(exact - plain).max() < 0.05


def test_densecrf_cleans_what_is_rough() -> None:
    rgb, probabilities = scene()
    truth = scene()[1][:4].reshape(4, 2, HEIGHT // 2, 2, WIDTH // 2).mean((2, 4)).argmax(0)
    truth = truth.repeat(HEIGHT // 2, 0).repeat(WIDTH // 2, 1)
    rough = (probabilities.argmax(0) == truth).mean()
    clean = (refined("densecrf", rgb, probabilities).argmax(0) == truth).mean()
    assert rough < 0.95 and clean > 0.999


def test_one_label_left_is_certain() -> None:
    rgb, probabilities = scene()
    found = refined("densecrf", rgb, probabilities, keep_label_above=0.9999999)
    best = int(probabilities.reshape(LABELS, -1).max(1).argmax())
    assert (found[best] == 1).all() and found.sum() == HEIGHT * WIDTH


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=9), st.floats(0, 0.99))
def test_the_labels_that_pass_are_kept_and_never_none(peaks: list[float], threshold: float) -> None:
    probabilities = np.array(peaks, np.float32)[:, None, None]
    kept = densecrf.kept_labels(probabilities, threshold).tolist()
    passing = [index for index, peak in enumerate(peaks) if np.float32(peak) > threshold]
    assert kept == (passing or [int(np.argmax(probabilities))])


def test_every_parameter_of_densecrf_is_in_these_tests() -> None:
    assert set(OTHER) == set(densecrf.Parameters.model_fields)


@pytest.mark.parametrize("parameter", OTHER)
def test_every_parameter_changes_the_result(parameter: str) -> None:
    rgb, probabilities = scene(20, 30)
    default = refined("densecrf", rgb, probabilities)
    assert np.abs(refined("densecrf", rgb, probabilities, **{parameter: OTHER[parameter]}) - default).max() > 1e-5


@pytest.mark.parametrize("parameter, value", [
    ("iterations", 0), ("iterations", 1.5), ("spatial_std", 0), ("spatial_std", -1), ("bilateral_rgb_std", 1e-6),
    ("bilateral_xy_std", float("nan")), ("bilateral_weight", float("inf")), ("spatial_weight", -1),
    ("keep_label_above", 1.0), ("normalization", "both"), ("speed", 3), ("engine", "gpu"), ("spatial_kernel", "box"),
    ("settled_above", 1.0), ("settled_above", -0.1), ("longest_step", 0.9), ("longest_step", 2.0),
    ("stop_when_unchanged", 1.0), ("stop_when_unchanged", -0.1), ("exact", "perhaps"),
])  # fmt: skip
def test_what_would_break_the_field_is_refused(parameter: str, value: object) -> None:
    with pytest.raises(ValidationError, match=parameter):
        densecrf.Parameters.model_validate({parameter: value})


@pytest.mark.parametrize("parameter", ["spatial_std", "bilateral_xy_std", "bilateral_rgb_std"])
@pytest.mark.parametrize("value", [MIN_STD, MAX_STD])
@pytest.mark.parametrize("shape", [(2, 20_000), (20, 30)])
def test_the_smallest_and_largest_deviations_are_survived(parameter: str, value: float, shape: tuple[int, int]) -> None:
    rgb, probabilities = scene(*shape)
    found = refined("densecrf", rgb, probabilities, iterations=1, **{parameter: value})
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)


@pytest.mark.parametrize("parameter", ["spatial_weight", "bilateral_weight"])
def test_the_largest_weights_are_survived(parameter: str) -> None:
    rgb, probabilities = scene(20, 30)
    found = refined("densecrf", rgb, probabilities, normalization="none", **{parameter: MAX_WEIGHT})
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)


def test_an_unknown_back_end_is_named_with_its_nearest() -> None:
    with pytest.raises(ConfigError, match=r"^unknown back end 'dense_crf'; did you mean 'densecrf'\? known: argmax, "):
        backends.load("dense_crf")
