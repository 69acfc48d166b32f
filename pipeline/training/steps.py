"""One training step and what it is made of: precision, loss, learning rate, moving average."""

import copy
import math
import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.preprocessing import Preprocessing
from pipeline.scores import axis_matrix
from pipeline.training.batches import Batch
from pipeline.training.config import Optimisation

if TYPE_CHECKING:
    from torch import Tensor, nn, optim

POLY_POWER = 0.9
APART = 2  # pixels between two that a step learns from, along each axis
MEASURED_STEPS = 3


def pixels(batch: Batch, how: Preprocessing, device: str) -> tuple["Tensor", "Tensor"]:
    """(photographs float32 [N, 3, S, S] as the network wants them, truth int64 [N, S, S]) on the device."""
    import torch

    rgb = torch.from_numpy(batch.rgb).to(device).permute(0, 3, 1, 2).float()  # lies channels last, and stays so
    planes = rgb.flip(1) if how.channels == "bgr" else rgb
    mean, std = (torch.tensor(value, device=device)[:, None, None] for value in (how.mean, how.std))
    return (planes - mean) / std, torch.from_numpy(batch.truth).to(device).long()


class Seen(NamedTuple):
    """Some rows and columns of a photograph: their indices int64."""

    rows: np.ndarray
    columns: np.ndarray

    def of(self, planes: "Tensor") -> "Tensor":
        """The planes [..., H, W] there."""
        return planes[..., self.rows[:, None], self.columns]

    def resized(self, before: tuple[int, int], after: tuple[int, int]) -> "Seen":
        """The same places in the photograph, height and width before, at another size."""
        return Seen(
            *(((2 * places + 1) * new // (2 * old)) for places, old, new in zip(self, before, after, strict=True))
        )


def learned_from(step: int, height: int, width: int) -> Seen:
    """What a step learns from.

    Pixels beside each other say nearly the same; four steps in a row see all of them, for a quarter of the work.
    """
    row, column = divmod(step % APART**2, APART)
    return Seen(np.arange(row, height, APART), np.arange(column, width, APART))


def logits_at(network: Any, logits: "Tensor", height: int, width: int, seen: Seen) -> "Tensor":
    """The logits float32 [N, C, h, w] of a photograph of that size, where seen, by the network's own steps."""
    import torch

    steps = network.steps(height, width)
    logits = logits.float()
    if not steps:
        return seen.of(logits)
    rows, columns = (
        torch.from_numpy(axis_matrix(logits.shape[2 + axis], steps, axis)[places]).to(logits.device)
        for axis, places in enumerate(seen)
    )
    return rows @ (logits.contiguous() @ columns.T)


def loss(logits: "Tensor", truth: "Tensor", void: int, class_weights: "Tensor | None") -> "Tensor":
    """Cross entropy of the logits float32 [N, C, H, W] with the truth int64 [N, H, W]; void does not count."""
    from torch.nn import functional as F

    total = F.cross_entropy(logits, truth, class_weights, ignore_index=void, reduction="sum")
    counted = truth[truth != void]
    weight = counted.numel() if class_weights is None else class_weights[counted].sum()
    return total / max(float(weight), 1.0)


def distillation_loss(
    logits: "Tensor", taught: "Tensor", truth: "Tensor", void: int, class_weights: "Tensor | None"
) -> "Tensor":
    """Cross entropy of the logits with a teacher's probabilities, both float32 [N, C, H, W]; void does not count.

    A pixel counts by the weights float32 [C] of the classes that the teacher sees there.
    """
    import torch

    counted = (truth != void).float()
    if class_weights is not None:
        counted = counted * torch.einsum("nchw,c->nhw", taught, class_weights)
    each = -(taught * logits.log_softmax(1)).sum(1)
    return (each * counted).sum() / counted.sum().clamp(min=1)


def learning_rate(step: int, steps: int, how: Optimisation) -> float:
    """The learning rate of a step: a linear rise, then a fall to 0 by the schedule."""
    rise = max(1, round(how.warmup * steps))
    if step < rise:
        return how.lr * (step + 1) / rise
    done = (step - rise) / max(1, steps - rise)
    return how.lr * ((1 - done) ** POLY_POWER if how.schedule == "poly" else (1 + math.cos(math.pi * done)) / 2)


def optimiser(network: "nn.Module", taken: frozenset[str], how: Optimisation) -> "optim.Optimizer":
    """The optimiser, its groups with their share of the learning rate; biases and norms do not decay."""
    import torch

    groups: dict[tuple[float, float], list[Any]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            share = how.init_lr if name in taken else 1.0
            decay = how.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((share, decay), []).append(parameter)
    described = [
        {"params": members, "share": share, "weight_decay": decay} for (share, decay), members in groups.items()
    ]
    if how.optimiser == "adamw":
        return torch.optim.AdamW(described, lr=how.lr, fused=True)
    return torch.optim.SGD(described, lr=how.lr, momentum=0.9, nesterov=True, fused=True)


def set_training(network: "nn.Module") -> None:
    """Training mode, but not for modules that are frozen whole: their batch norms keep the statistics they have."""
    network.train()
    for module in network.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def set_learning_rate(moving: "optim.Optimizer", rate: float) -> None:
    """Gives each group its share of the rate."""
    for group in moving.param_groups:
        group["lr"] = rate * group["share"]


def averaging(step: int, decay: float) -> Any:
    """How the moving average takes in the weights of a step; early ones do not stay for long."""
    from torch.optim.swa_utils import get_ema_multi_avg_fn

    return get_ema_multi_avg_fn(min(decay, (1 + step) / (10 + step)))


def autocast(precision: str, device: str) -> AbstractContextManager[Any]:
    """The forward pass's context."""
    import torch

    if precision == "bfloat16":
        return torch.autocast(device.partition(":")[0], torch.bfloat16)
    return nullcontext()


def forward(network: Any, photographs: "Tensor", precision: str, device: str) -> "Tensor":
    """The logits of a network that learns."""
    from pipeline.training.depthwise import FastDepthwise

    with autocast(precision, device), FastDepthwise():
        logits: Tensor = network(photographs)
    return logits


def faster_precision(network: Any, batch: Batch, how: Preprocessing, device: str) -> str:
    """bfloat16 where it is faster here: on a GPU that has it, else on a CPU with AMX or AVX-512 BF16 if a try says so.

    Dense convolutions gain 3.5 times by AMX, 1.9 by AVX-512 BF16; not all others do.
    """
    import torch

    if device != "cpu":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    if not (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()):
        return "float32"
    photographs, _ = pixels(batch, how, device)
    seconds = dict.fromkeys(("float32", "bfloat16"), float("inf"))
    for _ in range(MEASURED_STEPS):  # the first one compiles kernels
        for precision in seconds:
            tried = copy.deepcopy(network).train()
            started = time.process_time()  # other processes slow the clock on the wall
            logits = forward(tried, photographs, precision, device)
            logits.float().square().mean().backward()
            seconds[precision] = min(seconds[precision], time.process_time() - started)
    return min(seconds, key=lambda precision: seconds[precision])
