"""Front ends: photograph -> class scores. One file a network; its module name is its name.

A front end's module has
    WEIGHTS                  the file name of its bundled weights in pipeline/weights, or None
    CLASSES                  the class set of weights that name none
    PREPROCESSING            the preprocessing of weights that name none
    Architecture             what varies between networks of the family: a frozen model with ``classes`` at least
    Network(architecture)    the torch module with its initial weights; its forward takes float32 [N, 3, H, W] and
                             returns logits [N, C, h, w] at its own stride, ``steps(H, W)`` says how they come to (H, W)
    architecture_of(state)   the Architecture of weights that carry no notes, read off their tensors

and, where it is made of networks that are published one by one,
    PARTS                    the prefix of each one's weights -> the front end that they are of

Each has them by these names; `Architecture` may be the one below. Where photographs have to look different for
another architecture than the default one, ``preprocessing_of(architecture)`` says how.
"""

import pkgutil
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from pipeline import inference
from pipeline.classes import Palette
from pipeline.config import Config, Inference
from pipeline.errors import ConfigError
from pipeline.preprocessing import Preprocessing, prepare
from pipeline.scores import Kept, ScoreMap, Step, probable

if TYPE_CHECKING:
    import torch

HALF_MAX = 65504.0  # the largest float16


class Architecture(Config):
    """What varies between networks of a family: here the number of classes alone."""

    classes: int = Field(21, ge=1)


def names() -> list[str]:
    """The front ends that there are."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)


def load(name: str) -> Any:
    """The front end's module. Raises ConfigError with the list for an unknown name."""
    return load_plugin(__name__, names(), name, "front end")


def load_plugin(package: str, known: list[str], name: str, kind: str) -> Any:
    """The module of that name in the package, if it is one of the known; "-" in a name is "_" in its module's."""
    if name not in known:
        close = get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(f"unknown {kind} {name!r}; {hint}known: {', '.join(known)}")
    return import_module(f"{package}.{name.replace('-', '_')}")


def preprocessing_of(module: Any, architecture: Architecture) -> Preprocessing:
    """The preprocessing of a front end's weights that name none, where they are of this architecture."""
    own = getattr(module, "preprocessing_of", None)
    return module.PREPROCESSING if own is None else own(architecture)


class FrontEnd:
    """A network with its weights on a device, ready to score photographs. It takes the network over and changes it."""

    def __init__(
        self,
        network: Any,
        preprocessing: Preprocessing,
        device: str = "cpu",
        palette: Palette | None = None,
        how: Inference | None = None,
    ) -> None:
        import torch

        self.palette, self._how = palette, how or Inference()
        self._preprocessing, self._device = preprocessing, device
        network = network.eval()
        if getattr(network, "foldable", True):
            network = fold_batch_norm(network)
        network = network.to(device, memory_format=torch.channels_last)
        self._network: Any = _fast_on_one_core(network) if device == "cpu" else network
        # Calls in other threads would wait on the device's one stream anyway; this way each is timed alone.
        self._turn = nullcontext() if device == "cpu" else threading.Lock()

    def score(self, photographs: Sequence[np.ndarray]) -> list[ScoreMap]:
        """The score map of each photograph (uint8 [H, W, 3])."""
        once = [inference.once(rgb.shape[:2], self._how) for rgb in photographs]
        scored = iter(self._score([rgb for rgb, alone in zip(photographs, once, strict=True) if alone], 1.0))
        return [
            next(scored) if alone else inference.merged(rgb, self._score, self._how)
            for rgb, alone in zip(photographs, once, strict=True)
        ]

    def _score(self, photographs: Sequence[np.ndarray], scale: float) -> list[ScoreMap]:
        """The score map of each photograph, each scored once.

        On a GPU those of one size go through the network together; on a CPU each goes alone and stays in its caches.
        Of a network that ends at full size only the planes of labels that are somewhere probable are sent.
        """
        import torch

        prepared = [prepare(rgb, self._preprocessing, scale) for rgb in photographs]
        groups = defaultdict(list)
        for index, (tensor, _) in enumerate(prepared):
            groups[index if self._device == "cpu" else tensor.shape].append(index)
        scores: dict[int, ScoreMap] = {}
        with torch.inference_mode():
            for indices in groups.values():
                batch = torch.from_numpy(np.stack([prepared[index][0] for index in indices]))
                with self._turn:
                    started = time.perf_counter()
                    found = self._forward(batch)
                    seconds = time.perf_counter() - started
                gpu_ms = 0.0 if self._device == "cpu" else 1000 * seconds / len(indices)
                for index, (logits, kept, own_steps) in zip(indices, found, strict=True):
                    scores[index] = ScoreMap(logits, (*own_steps, *prepared[index][1]), kept, gpu_ms)
        return [scores[index] for index in range(len(prepared))]

    def _forward(self, batch: "torch.Tensor") -> list[tuple[np.ndarray, Kept | None, tuple[Step, ...]]]:
        """What a score map of each photograph in float32 [N, 3, H, W] is made of, back from the device."""
        import torch

        batch = batch.to(self._device, memory_format=torch.channels_last)
        logits = self._network(batch)
        own_steps = self._network.steps(*batch.shape[-2:])
        found = []
        for planes in logits:
            sent, kept = (planes, None) if own_steps else probable(planes)
            sent = sent.clamp(-HALF_MAX, HALF_MAX).half()
            found.append((np.ascontiguousarray(sent.cpu().numpy()), kept, own_steps))
        return found


def fold_batch_norm(network: Any) -> Any:
    """The same network for inference, changed in place: each batch norm becomes part of the convolution before it.

    A network registers every batch norm right behind the convolution that it follows, or says ``foldable = False``.
    """
    import torch
    from torch.nn.utils.fusion import fuse_conv_bn_weights

    before: Any = None
    for name, module in list(network.named_modules()):
        if isinstance(module, torch.nn.BatchNorm2d):
            assert before is not None, f"{name} follows no convolution"
            norm: Any = module
            before.weight, before.bias = fuse_conv_bn_weights(
                before.weight, before.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias,
                transpose=isinstance(before, torch.nn.ConvTranspose2d),
            )  # fmt: skip
            parent, _, child = name.rpartition(".")
            network.get_submodule(parent).add_module(child, torch.nn.Identity())
        if not list(module.children()):
            before = module if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d) else None
    return network


def _fast_on_one_core(network: "torch.nn.Module") -> "torch.nn.Module":
    """The same network, whose 1x1 convolutions go to oneDNN too.

    On one thread torch gives them to a slower path, unless they are dilated; a 1x1 kernel has nothing to dilate.
    """
    import torch

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (1, 1):
            module.dilation = (2, 2)
    return network
