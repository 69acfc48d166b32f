"""The faster weight gradient of depthwise convolutions is the plain one's."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline import frontends
from pipeline.training.depthwise import FastDepthwise

CASES = [
    {"kernel_size": 5, "padding": 2},
    {"kernel_size": 5, "stride": 2, "bias": False},
    {"kernel_size": 5, "padding": 4, "dilation": 2},
    {"kernel_size": 5, "padding": (2, 1), "stride": (1, 2)},
    {"kernel_size": 7, "padding": 3, "dilation": 2, "stride": 2},
]


def gradients(module: nn.Module, x: Tensor, fast: bool, bfloat16: bool = False) -> tuple[str, list[Tensor]]:
    """The name of what made the module's answer, and the gradients of its input and parameters."""
    with FastDepthwise() if fast else nullcontext(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        y = module(x)
    torch.manual_seed(1)
    above = torch.randn(y.shape).to(y.dtype)
    assert y.grad_fn is not None
    return y.grad_fn.name(), [y, *torch.autograd.grad(y, [x, *module.parameters()], above)]


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_the_gradients_are_those_of_the_plain_convolution(case: dict[str, Any], bfloat16: bool) -> None:
    torch.manual_seed(0)
    module = nn.Conv2d(24, 24, groups=24, **case)
    x = torch.randn(2, 24, 31, 27).to(memory_format=torch.channels_last).requires_grad_()
    plain, fast = (gradients(module, x, fast, bfloat16) for fast in (False, True))
    assert plain[0] == "ConvolutionBackward0" and fast[0] == "_DepthwiseBackward"
    for expected, ours in zip(plain[1], fast[1], strict=True):
        assert ours.dtype == expected.dtype and ours.shape == expected.shape
        tolerance = (0.02 if bfloat16 else 1e-5) * float(expected.detach().abs().max())
        torch.testing.assert_close(ours, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(24, 24, 3, padding=1, groups=24),
        nn.Conv2d(24, 48, 5, padding=2, groups=24),
        nn.Conv2d(24, 24, 5, padding=2),
        nn.Conv2d(24, 24, (5, 3), groups=24),
        nn.Conv2d(24, 24, 5, padding="same", groups=24),
        nn.Conv2d(24, 24, 5, padding=2, groups=24).requires_grad_(False),
    ],
)
def test_other_convolutions_are_left_alone(module: nn.Module) -> None:
    x = torch.randn(1, 24, 9, 9, requires_grad=True)
    with FastDepthwise():
        y = module(x)
    assert y.grad_fn is not None and y.grad_fn.name() == "ConvolutionBackward0"


def test_a_whole_network_learns_the_same() -> None:
    front_end = frontends.load("fcn8s_lite")
    torch.manual_seed(0)
    network = front_end.Network(front_end.Architecture(classes=4)).train()
    x = torch.randn(2, 3, 64, 64)
    found = []
    for fast in (False, True):
        network.zero_grad()
        with FastDepthwise() if fast else nullcontext():
            logits = network(x)
        logits.square().mean().backward()
        found.append({name: parameter.grad.clone() for name, parameter in network.named_parameters()})
    for name, expected in found[0].items():
        torch.testing.assert_close(found[1][name], expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
