"""A faster weight gradient for depthwise convolutions on a CPU.

oneDNN computes it by a fast kernel for 3x3 weights alone; for the 5x5 ones of EfficientNet and MobileNetV3 it falls
back to a loop that takes half of a whole training step. A larger kernel's gradient is put together from 3x3 ones.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

FAST = 3  # the kernel side that oneDNN is fast at


class FastDepthwise(TorchFunctionMode):
    """While it is entered, depthwise convolutions on a CPU with kernels larger than 3x3 learn by the faster way."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.conv2d and len(args) == 7 and _gains(args[0], args[1], args[4], args[6]):
            return _convolved(*args[:6])
        return func(*args, **(kwargs or {}))


def _gains(x: Tensor, weight: Tensor, padding: Any, groups: int) -> bool:
    height, width = weight.shape[-2:]
    depthwise = x.ndim == 4 and weight.shape[1] == 1 and groups == weight.shape[0] == x.shape[1]
    odd_and_large = height == width and height % 2 == 1 and height > FAST
    placed = not isinstance(padding, str)  # not "same"
    return x.device.type == "cpu" and depthwise and odd_and_large and placed and weight.requires_grad


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any) -> Tensor:
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        x, weight = x.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    result: Tensor = _Depthwise.apply(x, weight, bias, stride, padding, dilation)
    return result


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution, float [N, C, H, W] with weights [C, 1, K, K]."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.placed, ctx.biased = (stride, padding, dilation), bias is not None
        return F.conv2d(x, weight, bias, stride, padding, dilation, weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding, dilation = ctx.placed
        (above,) = gradients
        of_x = None
        if ctx.needs_input_grad[0]:
            # In bfloat16 a strided one has no fast kernel.
            of_x = _gradient(above.float(), x.float(), weight.float(), stride, padding, dilation, 0).to(x.dtype)
        of_weight = weight_gradient(above, x, weight, stride, padding, dilation)
        of_bias = above.sum((0, 2, 3)) if ctx.biased else None
        return of_x, of_weight, of_bias, None, None, None


def weight_gradient(above: Tensor, x: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any) -> Tensor:
    """The gradient [C, 1, K, K] of a depthwise convolution's weights, K odd, from 3x3 tiles of the kernel."""
    (rows_apart, columns_apart), side = dilation, weight.shape[-1]
    padded = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    # What a 3x3 kernel reads for as many outputs.
    height, width = ((above.shape[2 + axis] - 1) * stride[axis] + (FAST - 1) * dilation[axis] + 1 for axis in (0, 1))
    gradient, tile = torch.empty_like(weight), weight[:, :, :FAST, :FAST].contiguous()
    for row in range(0, side - 2, 2):
        for column in range(0, side - 2, 2):
            top, left = row * rows_apart, column * columns_apart
            read = padded[:, :, top : top + height, left : left + width]
            read = read.contiguous(memory_format=torch.channels_last)
            part = _gradient(above, read, tile, stride, (0, 0), dilation, 1)
            gradient[:, :, row : row + FAST, column : column + FAST] = part
    return gradient


def _gradient(above: Tensor, x: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any, which: int) -> Tensor:
    """The gradient of x (0) or of the weights (1)."""
    wanted = [which == 0, which == 1, False]
    found: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        above, x, weight, None, stride, padding, dilation, False, [0, 0], weight.shape[0], wanted
    )
    return found[which]
