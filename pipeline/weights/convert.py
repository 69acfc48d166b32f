"""A published checkpoint -> native weights of a front end, every tensor accounted for."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pipeline import frontends
from pipeline.classes import ClassSet, class_names, class_palette
from pipeline.errors import WeightsError
from pipeline.weights import Notes, checkpoints, layouts, load_strict, read_architecture, write
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


class File(NamedTuple):
    """A checkpoint's name and bytes."""

    name: str
    data: bytes


def convert(
    data: bytes, source: str, front_end: str, classes: ClassSet | None = None, layout: str | None = None
) -> Converted:
    """Native weights of ``front_end`` from a checkpoint's bytes; ``source`` is its name. Raises as `convert_all`."""
    return convert_all([File(source, data)], front_end, classes, layout)


def convert_all(
    files: Sequence[File], front_end: str, classes: ClassSet | None = None, layout: str | None = None
) -> Converted:
    """Native weights of ``front_end`` from one checkpoint, or from one for each network that it is made of.

    The layout is told from the names of the tensors unless it is chosen.

    Raises WeightsError with the tensor and the shapes where a checkpoint is broken or of another network.
    """
    module = frontends.load(front_end)
    parts = getattr(module, "PARTS", {"": front_end})
    source = " and ".join(file.name for file in files)
    if len(files) != len(parts):
        needed = ", then ".join(f"one of {part}" for part in parts.values())
        raise WeightsError(f"front end {front_end!r} takes {needed}; {source} was given")
    used, found = 0, []
    state: dict[str, Tensor] = {}
    left_over: dict[str, str] = {}
    for file, (prefix, part) in zip(files, parts.items(), strict=True):
        try:
            checkpoint = checkpoints.read(file.data)
            known_as, translation = _translated(checkpoint.tensors, part, layout)
        except WeightsError as error:
            raise WeightsError(f"{file.name} does not fit front end {part!r}: {error}") from error
        used += len(checkpoint.tensors) - len(translation.left_over)
        state |= {f"{prefix}{name}": tensor for name, tensor in translation.state.items()}
        left_over |= {f"{prefix}{name}": why for name, why in (checkpoint.left_over | translation.left_over).items()}
        found.append(known_as)
    try:
        architecture = read_architecture(module, state)
        network = load_strict(lambda: module.Network(architecture), state)
    except WeightsError as error:
        raise WeightsError(f"{source} does not fit front end {front_end!r}: {error}") from error
    named = classes or ClassSet(
        class_names(architecture.classes, module.CLASSES), class_palette(architecture.classes, module.CLASSES)
    )
    if len(named.names) != architecture.classes:
        raise WeightsError(f"{source} has {architecture.classes} classes, and {len(named.names)} are named")
    preprocessing = frontends.preprocessing_of(module, architecture)
    if found[0] != OWN and len(found) == 1:
        preprocessing = getattr(layouts.load(found[0]), "PREPROCESSING", preprocessing)
    layout = ", ".join(found)
    notes = Notes(
        front_end=front_end,
        architecture=architecture.model_dump(mode="json"),
        preprocessing=preprocessing,
        classes=named.names,
        palette=named.palette,
        source=f"{source}, layout {layout}",
        source_sha256=hashlib.sha256(b"".join(file.data for file in files)).hexdigest(),
    )
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Converted(write(state, notes), notes, layout, used, left_over, parameters)


def _translated(tensors: dict[str, "Tensor"], front_end: str, chosen: str | None) -> tuple[str, Translation]:
    """The checkpoint's layout and its tensors by the network's names."""
    layout = layouts.recognise(tensors, front_end, chosen)
    if layout is not None:
        return layout, layouts.load(layout).translate(tensors)
    expected = _own_names(front_end, tensors)
    if 2 * len(expected & tensors.keys()) < len(expected):
        known = ", ".join(layouts.names())
        raise WeightsError(f"its tensors ({_shown(tensors)}) are in no layout that is known: {known}")
    return OWN, Translation(tensors, {})


def _own_names(front_end: str, tensors: Mapping[str, "Tensor"]) -> set[str]:
    """The names of the network that the tensors might be of."""
    import torch

    module = frontends.load(front_end)
    architecture = read_architecture(module, tensors)
    with torch.device("meta"):
        return set(module.Network(architecture).state_dict())


def _shown(tensors: Iterable[str]) -> str:
    """The first few names."""
    first = list(tensors)[:3]
    return ", ".join(first) or "none"
