"""The network that another one learns from (knowledge distillation, Hinton et al. 2015)."""

from typing import TYPE_CHECKING, Any

from pipeline import storage, weights
from pipeline.classes import ClassSet
from pipeline.errors import WeightsError
from pipeline.training import config, steps
from pipeline.training.batches import Batch
from pipeline.training.steps import Seen

if TYPE_CHECKING:
    from torch import Tensor


class Teacher:
    """A trained network in its frozen state."""

    def __init__(self, opened: weights.Network, how: config.Teacher) -> None:
        self._network: Any = opened.module.eval().requires_grad_(False)
        self._preprocessing, self._scale, self.share = opened.preprocessing, how.scale, how.share

    def probabilities(self, batch: Batch, seen: Seen, precision: str, device: str) -> "Tensor":
        """What it makes of the crops, where seen: float32 [N, C, h, w]."""
        import torch
        from torch.nn import functional as F

        self._network.to(device, memory_format=torch.channels_last)
        with torch.no_grad():
            photographs, truth = steps.pixels(batch, self._preprocessing, device)
            if self._scale != 1:
                photographs = F.interpolate(photographs, scale_factor=self._scale, mode="bilinear")
            with steps.autocast(precision, device):
                logits = self._network(photographs)
            height, width = photographs.shape[-2:]
            there = seen.resized((truth.shape[-2], truth.shape[-1]), (height, width))
            return steps.logits_at(self._network, logits, height, width, there).softmax(1)


def load(how: config.Teacher, classes: ClassSet) -> Teacher:
    """The job's teacher. Raises WeightsError where its weights do not fit or tell other classes apart."""
    try:
        opened = weights.open_network(how.front_end, weights.read_location(how.weights))
    except WeightsError as error:
        raise WeightsError(f"teacher {storage.public(how.weights)}: {error}") from error
    if tuple(opened.classes) != tuple(classes.names):
        theirs, ours = (f"{len(names)} ({', '.join(names[:3])}, ...)" for names in (opened.classes, classes.names))
        raise WeightsError(f"teacher {storage.public(how.weights)} tells {theirs} classes apart, not these {ours}")
    return Teacher(opened, how)
