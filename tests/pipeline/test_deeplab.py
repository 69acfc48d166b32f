import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pipeline import frontends
from pipeline.frontends.heads.deeplab import at_scales
from pipeline.scores import ScoreMap, full_logits


def network_of(name: str, **varied: object) -> torch.nn.Module:
    torch.manual_seed(0)
    module = frontends.load(name)
    network = module.Network(module.Architecture(classes=3, width=1 / 16, **varied)).eval()
    for key, parameter in network.named_parameters():
        if key.startswith("fc8"):
            parameter.data.normal_()
    return network.requires_grad_(False)


@pytest.mark.parametrize(("size", "coarse"), [((1, 1), (1, 1)), ((65, 9), (9, 2)), ((66, 40), (10, 6))])
def test_on_vgg_a_score_is_of_the_pixel_that_it_sits_on(size: tuple[int, int], coarse: tuple[int, int]) -> None:
    network = network_of("deeplab_v1")
    logits = network(torch.randn(1, 3, *size))
    assert logits.shape[-2:] == coarse
    full = full_logits(ScoreMap(logits[0].numpy(), network.steps(*size)))
    assert full.shape[1:] == size
    on_pixels = full[:, ::8, ::8]
    np.testing.assert_allclose(on_pixels, logits[0, :, : on_pixels.shape[1], : on_pixels.shape[2]], atol=1e-5)


def test_the_pyramid_on_vgg_is_the_sum_of_four_branches() -> None:
    network, x = network_of("deeplab_v2", trunk="vgg16"), torch.randn(1, 3, 40, 50)
    expected, pool5 = 0, network.pools(x)[-1]
    for branch, rate in enumerate((6, 12, 18, 24), 1):
        y = F.conv2d(pool5, *(network.get_parameter(f"fc6_{branch}.{part}") for part in ("weight", "bias")),
                     padding=rate, dilation=rate).relu()  # fmt: skip
        for name in ("fc7", "fc8"):
            y = F.conv2d(y, *(network.get_parameter(f"{name}_{branch}.{part}") for part in ("weight", "bias")))
            y = y.relu() if name == "fc7" else y
        expected = expected + y
    torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize("trunk", ["resnet50", "efficientnet_lite0"])
def test_scales_are_merged_by_the_largest_score_and_not_in_training(trunk: str) -> None:
    module = frontends.load("deeplab_v2")
    width = 1.0 if trunk == "efficientnet_lite0" else 1 / 16
    network = module.Network(module.Architecture(classes=3, width=width, trunk=trunk)).eval().requires_grad_(False)
    x = torch.randn(1, 3, 65, 97)
    single = network.at_scale(x)
    smaller = network.at_scale(F.interpolate(x, scale_factor=0.5, mode="bilinear"))
    enlarged = F.interpolate(smaller, single.shape[-2:], mode="bilinear")
    torch.testing.assert_close(at_scales(network.at_scale, x, (0.5,)), single.maximum(enlarged))
    assert not torch.equal(network(x), single)
    network.at_scale = lambda _: single
    assert network.train()(x) is single


def test_a_scale_that_leaves_nothing_is_passed_over() -> None:
    assert network_of("deeplab_v2")(torch.randn(1, 3, 1, 3)).shape[-2:] == (1, 1)


def test_the_papers_rates_double_at_stride_8() -> None:
    def rates(output_stride: int) -> list[int]:
        network = network_of("deeplab_v3", form="paper", output_stride=output_stride)
        return [network.aspp.stages[name].conv.dilation[0] for name in ("c1", "c2", "c3")]

    assert rates(16) == [6, 12, 18] and rates(8) == [12, 24, 36]


def test_the_papers_last_layer_has_a_grid_of_dilations() -> None:
    layer5 = network_of("deeplab_v3", form="paper", output_stride=16).layer5
    assert [block.conv3x3.conv.dilation[0] for block in layer5] == [2, 4, 8]


@pytest.mark.parametrize("name", ["fcn_resnet", "deeplab_v3"])
def test_the_auxiliary_classifier_takes_no_part_in_scores(name: str) -> None:
    network = network_of(name, auxiliary=True)
    network.aux_classifier.forward = None  # calling it would raise
    assert network(torch.randn(1, 3, 33, 33)).shape == (1, 3, 5, 5)
    assert frontends.load(name).architecture_of(network.state_dict()).auxiliary
