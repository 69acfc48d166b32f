import numpy as np
import pytest
import torch

from pipeline import frontends
from pipeline.frontends.deconvnet import windows

deconvnet, ensemble = frontends.load("deconvnet"), frontends.load("deconvnet_ensemble")


def network_of(module: object, **varied: object) -> torch.nn.Module:
    torch.manual_seed(0)
    network = module.Network(module.Architecture(classes=3, width=1 / 64, **varied)).eval()  # type: ignore[attr-defined]
    for key, parameter in network.named_parameters():
        if "score" in key and "upscore" not in key:
            parameter.data.normal_()
    return network.requires_grad_(False)


def test_windows_of_224_pixels_are_seen_as_they_are() -> None:
    network, x = network_of(deconvnet, windows=[1.0]), torch.randn(1, 3, 224, 224) * 50
    scores = network(x)
    assert scores.shape == (1, 3, 224, 224) and scores.any()
    torch.testing.assert_close(scores, network.whole(x).clamp(min=0))


@pytest.mark.parametrize("size", [(1, 1), (120, 260), (375, 500), (700, 1300)])
def test_windows_cover_the_photograph(size: tuple[int, int]) -> None:
    covered, found = np.zeros(size, int), windows(*size, (0.75, 0.5))
    for top, left, rows, columns in found:
        assert top + rows <= size[0] and left + columns <= size[1]
        covered[top : top + rows, left : left + columns] += 1
    assert covered.min() >= 1
    assert all(min(window[2:]) >= 112 for window in found) or found == [(0, 0, *size)]


def test_14_windows_of_three_sizes_are_what_an_ordinary_photograph_has() -> None:
    found = windows(375, 500, (1.0, 0.75, 0.5))
    assert len(found) == 1 + 4 + 9
    assert found[:3] == [(0, 0, 375, 500), (0, 0, 282, 375), (0, 125, 282, 375)]


def test_windows_are_merged_by_the_largest_score() -> None:
    x = torch.randn(1, 3, 230, 240) * 50
    merged = network_of(deconvnet, windows=[1.0, 0.5])(x)
    each = [network_of(deconvnet, windows=[share])(x) for share in (1.0, 0.5)]
    torch.testing.assert_close(merged, each[0].maximum(each[1]))
    assert (each[0] > each[1]).any() and (each[0] < each[1]).any()


@pytest.mark.parametrize("size", [(1, 1), (224, 224), (300, 231)])
def test_without_windows_it_is_scored_whole(size: tuple[int, int]) -> None:
    assert network_of(deconvnet, windows=[])(torch.randn(1, 3, *size)).shape == (1, 3, *size)


def test_the_ensemble_is_the_product_with_what_is_positive_of_fcn_8s() -> None:
    network, x = network_of(ensemble), torch.randn(1, 3, 50, 70) * 50
    others = network.fcn.upscore8(network.fcn(x))[..., 31:81, 31:101]
    assert (others < 0).any() and (others > 0).any()
    torch.testing.assert_close(network(x), network.deconvnet(x) * others.relu())


def test_the_ensemble_of_the_paper_is_the_mean_of_probabilities() -> None:
    network, x = network_of(ensemble, merge="mean"), torch.randn(1, 3, 50, 70) * 50
    others = network.fcn.upscore8(network.fcn(x))[..., 31:81, 31:101]
    expected = (network.deconvnet(x).softmax(1) + others.softmax(1)) / 2
    torch.testing.assert_close(network(x).softmax(1), expected)
