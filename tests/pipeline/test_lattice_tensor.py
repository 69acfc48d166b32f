from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pydensecrf.densecrf as dcrf
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pipeline.backends.lattice import reference, tensor
from pipeline.backends.lattice.parameters import Normalization, Parameters
from pipeline.backends.lattice.permutohedral import Lattice
from pipeline.backends.lattice.tensor import Kernel, mean_field, refine_batch

# pydensecrf works on blocks of four pixels and fills the last one with pixels at zero, whose vertices stay in its
# lattice: images here have a multiple of four pixels, or none that is dark.
HEIGHT, WIDTH = 30, 40
NORMALIZATIONS: dict[Normalization, int] = {
    "symmetric": dcrf.NORMALIZE_SYMMETRIC,
    "before": dcrf.NORMALIZE_BEFORE,
    "after": dcrf.NORMALIZE_AFTER,
    "none": dcrf.NO_NORMALIZATION,
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Many small operations, which wait for each other's threads on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def photograph(name: str, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A crop of one of scikit-image's, or noise: uint8 [height, width, 3]."""
    if name == "noise":
        return np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    data = pytest.importorskip("skimage.data")
    return np.ascontiguousarray(getattr(data, name)()[60 : 60 + height, 90 : 90 + width])


def scores(labels: int, height: int = HEIGHT, width: int = WIDTH, seed: int = 2) -> np.ndarray:
    """Probabilities float32 [labels, height, width] in patches of 6 x 6 pixels, with noise on them."""
    rng = np.random.default_rng(seed)
    patches = rng.normal(0, 2, (labels, -(-height // 6), -(-width // 6))).repeat(6, 1).repeat(6, 2)
    logits = torch.tensor(patches[:, :height, :width] + rng.normal(0, 1, (labels, height, width)))
    return logits.softmax(0).float().numpy()


def energies(labels: int, pixels: int, seed: int = 3) -> np.ndarray:
    """Unary energies float32 [labels, pixels]."""
    return np.random.default_rng(seed).gamma(2, 1, (labels, pixels)).astype(np.float32)


def points(dimensions: int, pixels: int, batch: int = 1, spread: float = 2.0, seed: int = 4) -> Tensor:
    """Features float32 [batch, pixels, dimensions]."""
    return torch.tensor(np.random.default_rng(seed).normal(0, spread, (batch, pixels, dimensions))).float()


def plain_field(unary: np.ndarray, terms: Sequence[tuple[Tensor, Any, Normalization]], iterations: int) -> np.ndarray:
    """pydensecrf's DenseCRF over (features [1, N, d], compatibility, normalization)."""
    field = dcrf.DenseCRF(unary.shape[1], unary.shape[0])
    field.setUnaryEnergy(unary)
    for features, compatibility, normalization in terms:
        columns = np.ascontiguousarray(features[0].numpy().T)
        field.addPairwiseEnergy(columns, compatibility, normalization=NORMALIZATIONS[normalization])
    return np.asarray(field.inference(iterations))


def assert_same_marginals(found: np.ndarray, expected: np.ndarray) -> None:
    """Marginals over the first axis, and the labels they choose."""
    assert found.shape == expected.shape
    apart = np.abs(found - expected).max(0)
    assert (apart < 1e-3).mean() > 0.999 and apart.mean() < 1e-5
    assert (found.argmax(0) == expected.argmax(0)).mean() >= 0.999


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("name, labels", [("astronaut", 2), ("coffee", 3), ("chelsea", 4), ("rocket", 6), ("noise", 5)])
def test_a_photograph_is_refined_as_by_pydensecrf(name: str, labels: int, normalization: str) -> None:
    weights = {"spatial_weight": 0.5, "bilateral_weight": 0.3} if normalization == "none" else {}
    parameters = Parameters.model_validate({"normalization": normalization, **weights})
    rgb, probabilities = photograph(name), scores(labels)
    found = refine_batch(rgb[None], probabilities[None], parameters, "cpu")[0].numpy()
    assert_same_marginals(found, reference.mean_field(rgb, probabilities, parameters))
    assert np.abs(found - probabilities).max() > 0.05


@pytest.mark.parametrize("given", [
    {"iterations": 5, "spatial_std": 3, "bilateral_xy_std": 80, "bilateral_rgb_std": 13, "bilateral_weight": 10},
    {"spatial_std": 3, "bilateral_xy_std": 160, "bilateral_weight": 5, "normalization": "after"},
    {"iterations": 1, "spatial_std": 0.1, "bilateral_xy_std": 0.1, "bilateral_rgb_std": 1e6},
    {"iterations": 3, "spatial_weight": 0, "bilateral_rgb_std": 0.5},
])  # fmt: skip
@pytest.mark.parametrize("shape", [(30, 40), (41, 31), (1, 48), (44, 1)])
def test_other_parameters_and_shapes_give_what_pydensecrf_gives(given: dict[str, Any], shape: tuple[int, int]) -> None:
    parameters = Parameters.model_validate(given)
    rgb, probabilities = photograph("coffee", *shape) // 2 + 100, scores(3, *shape)
    found = refine_batch(rgb[None], probabilities[None], parameters, "cpu")[0].numpy()
    assert_same_marginals(found, reference.mean_field(rgb, probabilities, parameters))


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("dimensions", [1, 2, 3, 5, 8])
def test_any_features_are_filtered_as_by_pydensecrf(dimensions: int, normalization: Normalization) -> None:
    features, unary = points(dimensions, 400), energies(4, 400)
    kernel = Kernel(Lattice(features), 0.4, normalization)
    found = mean_field(torch.tensor(unary)[None], [kernel], 3)[0].numpy()
    assert_same_marginals(found, plain_field(unary, [(features, 0.4, normalization)], 3))


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("form", ["number", "vector", "matrix"])
@pytest.mark.parametrize("labels", [2, 5])
def test_every_form_of_compatibility_is_pydensecrfs(labels: int, form: str, normalization: Normalization) -> None:
    rng = np.random.default_rng(6)
    shape = {"number": (), "vector": (labels,), "matrix": (labels, labels)}[form]
    compatibility = rng.normal(0, 0.5, shape).astype(np.float32) if shape else 0.7
    unary, near, far = energies(labels, 600), points(2, 600), points(3, 600, spread=3, seed=5)
    kernels = [Kernel(Lattice(near), torch.tensor(compatibility), normalization), Kernel(Lattice(far), 0.2)]
    found = mean_field(torch.tensor(unary)[None], kernels, 4)[0].numpy()
    expected = plain_field(unary, [(near, compatibility, normalization), (far, 0.2, "symmetric")], 4)
    assert_same_marginals(found, expected)


def test_without_iterations_the_marginals_are_those_of_the_unaries() -> None:
    unary = torch.tensor(energies(3, 20))[None]
    torch.testing.assert_close(mean_field(unary, [Kernel(Lattice(points(2, 20)), 9.0)], 0), (-unary).softmax(1))


def test_a_batch_gives_what_its_images_give_alone() -> None:
    rgb = np.stack([photograph("astronaut"), photograph("noise")])
    probabilities = np.stack([scores(3, seed=7), scores(3, seed=8)])
    together = refine_batch(rgb, probabilities, Parameters(), "cpu")
    for image in range(2):
        alone = refine_batch(rgb[[image]], probabilities[[image]], Parameters(), "cpu")
        torch.testing.assert_close(together[[image]], alone, rtol=0, atol=1e-5)


def test_images_of_a_batch_share_no_vertex_even_where_they_are_equal() -> None:
    features = points(3, 50).expand(2, -1, -1)
    values = torch.rand(2, 4, 50, generator=torch.Generator().manual_seed(0))
    values[1] = 0
    found = Lattice(features).filter(values)
    assert torch.equal(found[:1], Lattice(features[:1]).filter(values[:1]))
    assert not found[1].any()


def test_a_lattice_of_one_image_filters_every_image_of_a_batch() -> None:
    features, values = points(2, 60), torch.rand(3, 4, 60, generator=torch.Generator().manual_seed(0))
    shared = Lattice(features).filter(values, "symmetric")
    torch.testing.assert_close(shared, Lattice(features.expand(3, -1, -1)).filter(values, "symmetric"))


@given(st.integers(1, 6), st.integers(1, 12), st.integers(1, 2), st.sampled_from(sorted(NORMALIZATIONS)))
def test_the_transpose_is_the_transpose(dimensions: int, pixels: int, batch: int, normalization: Any) -> None:
    lattice = Lattice(points(dimensions, pixels, batch, spread=1))
    x, y = torch.rand(2, batch, 3, pixels, dtype=torch.float64, generator=torch.Generator().manual_seed(pixels))
    forward = (lattice.filter(x, normalization) * y).sum()
    backward = (x * lattice.filter(y, normalization, transpose=True)).sum()
    torch.testing.assert_close(forward, backward, rtol=1e-6, atol=0)


def test_the_order_of_the_axes_matters() -> None:
    lattice = Lattice(points(5, 60, spread=0.7))
    values = torch.rand(1, 2, 60, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(lattice.filter(values), lattice.filter(values, transpose=True))


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("transpose", [False, True])
def test_the_gradient_of_the_filter_is_right(normalization: Normalization, transpose: bool) -> None:
    lattice = Lattice(points(3, 6, batch=2, spread=1))
    values = torch.rand(2, 2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def filtered(values: Tensor) -> Tensor:
        return lattice.filter(values, normalization, transpose)

    assert torch.autograd.gradcheck(filtered, values)
    assert torch.autograd.gradgradcheck(filtered, values)
    seed = torch.rand(2, 2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad(filtered(values), values, seed)
    torch.testing.assert_close(gradient, lattice.filter(seed, normalization, not transpose))


@pytest.mark.parametrize("shape", [(), (3,), (3, 3)])
def test_the_gradient_of_the_field_is_right(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    unary = torch.rand(2, 3, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    compatibility = torch.rand(shape, dtype=torch.float64, generator=generator, requires_grad=True)
    own, shared = Lattice(points(3, 5, batch=2, spread=1)), Lattice(points(2, 5, spread=1))

    def marginals(unary: Tensor, compatibility: Tensor) -> Tensor:
        return mean_field(unary, [Kernel(own, compatibility, "after"), Kernel(shared, compatibility)], 2)

    assert torch.autograd.gradcheck(marginals, (unary, compatibility), fast_mode=True)


def test_the_dtype_follows_the_values() -> None:
    lattice, values = Lattice(points(2, 9)), torch.rand(1, 2, 9, dtype=torch.float64)
    for normalization in NORMALIZATIONS:
        exact, single = lattice.filter(values, normalization), lattice.filter(values.float(), normalization)
        assert exact.dtype == torch.float64 and single.dtype == torch.float32
        torch.testing.assert_close(exact.float(), single)


@pytest.mark.parametrize("height, width", [(1, 1), (1, 3), (2, 1)])
@pytest.mark.parametrize("labels", [1, 2, 5])
def test_the_smallest_images_have_a_field(height: int, width: int, labels: int) -> None:
    rgb, probabilities = photograph("noise", height, width), scores(labels, height, width)
    found = refine_batch(rgb[None], probabilities[None], Parameters(), "cpu")[0]
    assert found.shape == probabilities.shape and found.dtype == torch.float32
    torch.testing.assert_close(found.sum(0), torch.ones(height, width))


def test_probabilities_of_zero_and_one_are_survived() -> None:
    probabilities = np.zeros((1, 2, HEIGHT, WIDTH), np.float32)
    probabilities[:, 0] = 1
    found = refine_batch(photograph("noise")[None], probabilities, Parameters(), "cpu")
    assert torch.isfinite(found).all() and (found[:, 0] > 0.99).all()


@pytest.mark.parametrize("made", ["tensor", "read-only", "reversed", "transposed"])
def test_arrays_of_any_layout_give_the_same_and_stay_as_they_were(made: str) -> None:
    rgb, probabilities = photograph("noise")[None], scores(3)[None]
    expected = refine_batch(rgb, probabilities, Parameters(), "cpu")
    arrays: list[Any] = [rgb.copy(), probabilities.copy()]
    if made == "tensor":
        arrays = [torch.tensor(array) for array in arrays]
    elif made == "read-only":
        for array in arrays:
            array.setflags(write=False)
    elif made == "reversed":
        arrays = [array[:, ::-1].copy()[:, ::-1] for array in arrays]
    else:
        arrays = [torch.tensor(array).transpose(0, 2).contiguous().transpose(0, 2) for array in arrays]
    assert torch.equal(refine_batch(*arrays, Parameters(), "cpu"), expected)
    assert np.array_equal(arrays[0], rgb) and np.array_equal(arrays[1], probabilities)


def test_the_features_are_position_and_colour_in_standard_deviations() -> None:
    rgb = torch.tensor(photograph("noise", 2, 3))[None]
    features = tensor.bilateral_features(rgb, 67, 3)
    assert features.shape == (1, 6, 5) and features.dtype == torch.float32
    torch.testing.assert_close(features[0, 5], torch.tensor([2 / 67, 1 / 67, *(rgb[0, 1, 2] / 3).tolist()]))
    assert torch.equal(tensor.spatial_features(2, 3, 67), features[..., :2])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_features_that_are_not_finite_are_refused(value: float) -> None:
    features = points(3, 10, batch=2)
    features[1, 4, 2] = value
    with pytest.raises(ValueError, match="^the features of a lattice must be finite$"):
        Lattice(features)


@pytest.mark.parametrize("dimensions, spread", [(1, 1e8), (2, 1e38), (5, 1e4), (40, 9.0)])
def test_features_that_spread_too_far_are_refused_in_one_line(dimensions: int, spread: float) -> None:
    with pytest.raises(ValueError, match=r"^the features spread .*deviations$"):
        Lattice(points(dimensions, 50, spread=spread))


def test_shapes_that_do_not_fit_are_refused() -> None:
    rgb, probabilities = photograph("noise")[None], scores(3)[None]
    with pytest.raises(ValueError, match=r"^photographs \[1, 30, 39, 3\] do not fit probabilities \[1, 3, 30, 40\]$"):
        refine_batch(rgb[:, :, 1:], probabilities, Parameters(), "cpu")
    lattice = Lattice(points(2, 9, batch=2))
    for shape in [(2, 3, 8), (1, 3, 9), (3, 9)]:
        with pytest.raises(ValueError, match=r"^this lattice filters \[2, L, 9\], not \["):
            lattice.filter(torch.zeros(shape))


def test_an_unknown_normalization_is_refused() -> None:
    with pytest.raises(ValueError, match="^unknown normalization 'both'; known: symmetric, before, after, none$"):
        Lattice(points(2, 9)).filter(torch.zeros(1, 1, 9), "both")  # type: ignore[arg-type]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_a_gpu_gives_what_a_cpu_gives(normalization: Normalization) -> None:
    rgb = np.stack([photograph("astronaut"), photograph("coffee")])
    probabilities, parameters = np.stack([scores(5)] * 2), Parameters(normalization=normalization, iterations=5)
    found = refine_batch(rgb, probabilities, parameters, "cuda").cpu()
    expected = refine_batch(rgb, probabilities, parameters, "cpu")
    for image in range(2):
        assert_same_marginals(found[image].numpy(), expected[image].numpy())
