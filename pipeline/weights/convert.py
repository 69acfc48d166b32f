"""A published checkpoint -> native weights of a front end, every tensor accounted for."""

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from pipeline import frontends
from pipeline.classes import ClassSet, class_names, class_palette
from pipeline.errors import WeightsError
from pipeline.weights import Notes, checkpoints, layouts, load_strict, write
from pipeline.weights.layouts import Translation

if TYPE_CHECKING:
    from torch import Tensor

OWN = "densemask"  # the network's own names


class Converted(NamedTuple):
    """Native weights and what became of the checkpoint's tensors."""

    data: bytes
    notes: Notes
    layout: str
    used: int
    left_over: dict[str, str]  # name -> why
    parameters: int

    @property
    def sha256(self) -> str:
        """Of the native file."""
        return hashlib.sha256(self.data).hexdigest()


def convert(
    data: bytes, source: str, front_end: str, classes: ClassSet | None = None, layout: str | None = None
) -> Converted:
    """Native weights of ``front_end`` from a checkpoint's bytes; ``source`` is its name.

    The layout is told from the names of the tensors unless it is chosen.

    Raises WeightsError with the tensor and the shapes where the checkpoint is broken or of another network.
    """
    module = frontends.load(front_end)
    try:
        checkpoint = checkpoints.read(data)
        layout, translation = _translated(checkpoint.tensors, front_end, layout)
        architecture = module.architecture_of(translation.state)
        network = load_strict(lambda: module.Network(architecture), translation.state)
    except WeightsError as error:
        raise WeightsError(f"{source} does not fit front end {front_end!r}: {error}") from error
    named = classes or ClassSet(
        class_names(architecture.classes, module.CLASSES), class_palette(architecture.classes, module.CLASSES)
    )
    if len(named.names) != architecture.classes:
        raise WeightsError(f"{source} has {architecture.classes} classes, and {len(named.names)} are named")
    notes = Notes(
        front_end=front_end,
        architecture=architecture.model_dump(mode="json"),
        preprocessing=module.PREPROCESSING,
        classes=named.names,
        palette=named.palette,
        source=f"{source}, layout {layout}",
        source_sha256=hashlib.sha256(data).hexdigest(),
    )
    left_over = checkpoint.left_over | translation.left_over
    return Converted(
        data=write(translation.state, notes),
        notes=notes,
        layout=layout,
        used=len(checkpoint.tensors) - len(translation.left_over),
        left_over=left_over,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
    )


def _translated(tensors: dict[str, "Tensor"], front_end: str, chosen: str | None) -> tuple[str, Translation]:
    """The checkpoint's layout and its tensors by the network's names."""
    layout = layouts.recognise(tensors, front_end, chosen)
    if layout is not None:
        return layout, layouts.load(layout).translate(tensors)
    expected = _own_names(front_end)
    if 2 * len(expected & tensors.keys()) < len(expected):
        known = ", ".join(layouts.names())
        raise WeightsError(f"its tensors ({_shown(tensors)}) are in no layout that is known: {known}")
    return OWN, Translation(tensors, {})


def _own_names(front_end: str) -> set[str]:
    import torch

    module = frontends.load(front_end)
    with torch.device("meta"):
        return set(module.Network(module.Architecture()).state_dict())


def _shown(tensors: Iterable[str]) -> str:
    """The first few names."""
    first = list(tensors)[:3]
    return ", ".join(first) or "none"
