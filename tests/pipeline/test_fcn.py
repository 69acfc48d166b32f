from typing import Any

import numpy as np
import pytest
import torch

from pipeline import frontends
from pipeline.frontends.heads.fcn import cropped
from pipeline.scores import ScoreMap, full_logits

NETWORKS = [("fcn32s", "upscore", 19), ("fcn16s", "upscore16", 27), ("fcn8s", "upscore8", 31)]


def network_of(name: str, **varied: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    module = frontends.load(name)
    network = module.Network(module.Architecture(classes=3, width=1 / 64, **varied)).eval()
    for key, parameter in network.named_parameters():
        if "score_" in key:
            parameter.data.normal_()
    return network.requires_grad_(False)


@pytest.mark.parametrize(("name", "last", "offset"), NETWORKS)
@pytest.mark.parametrize("size", [(1, 1), (50, 37)])
def test_the_last_deconvolution_is_a_step_after_the_network(
    name: str, last: str, offset: int, size: tuple[int, int]
) -> None:
    network, x = network_of(name), torch.randn(1, 3, *size)
    coarse = network(x)
    expected = cropped(network.get_submodule(last)(coarse), offset, x)[0]
    got = full_logits(ScoreMap(coarse[0].numpy(), network.steps(*size)))
    assert got.shape == (3, *size)
    np.testing.assert_allclose(got, expected, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(("name", "last", "offset"), NETWORKS)
def test_a_deconvolution_that_was_learnt_is_part_of_the_network(name: str, last: str, offset: int) -> None:
    network, x = network_of(name), torch.randn(1, 3, 20, 33)
    coarse, deconvolution = network(x), network.get_submodule(last)
    deconvolution.weight += 0.01
    assert network.steps(20, 33) == ()
    torch.testing.assert_close(network(x), cropped(deconvolution(coarse), offset, x))


def test_a_kernel_in_half_precision_is_still_bilinear() -> None:
    network = network_of("fcn32s")
    network.upscore.weight.copy_(network.upscore.weight.half())
    assert network.steps(5, 5) != ()


def test_500_pixels_become_70_as_in_the_original() -> None:
    assert network_of("fcn8s")(torch.zeros(1, 3, 500, 500)).shape[-2:] == (70, 70)
    assert network_of("fcn32s")(torch.zeros(1, 3, 500, 500)).shape[-2:] == (16, 16)


def test_at_once_scales_the_pools_before_they_are_scored() -> None:
    staged, at_once = network_of("fcn8s"), network_of("fcn8s", at_once=True)
    at_once.score_pool4.weight *= 100
    at_once.score_pool3.weight *= 10_000
    x = torch.randn(1, 3, 40, 40)
    torch.testing.assert_close(at_once(x), staged(x))


@pytest.mark.parametrize(("name", "stride"), [("fcn32s", 32), ("fcn16s", 16), ("fcn8s", 8)])
def test_on_a_light_trunk_the_stride_is_the_finest_score_layers(name: str, stride: int) -> None:
    module = frontends.load(name)
    network = module.Network(module.Architecture(classes=2, trunk="efficientnet_lite0")).eval()
    assert network(torch.zeros(1, 3, 96, 128)).shape == (1, 2, 96 // stride, 128 // stride)
    assert module.architecture_of(network.state_dict()) == module.Architecture(classes=2, trunk="efficientnet_lite0")
