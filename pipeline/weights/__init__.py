"""Weights: native safetensors files, bundled or the user's own.

A native file carries Notes as JSON under the key ``densemask`` of its metadata; without them its front end reads the
architecture off the tensors.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from importlib import resources
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import Field

from pipeline import frontends, storage
from pipeline.classes import Palette, class_names, class_palette
from pipeline.config import Config, Inference, Recipe
from pipeline.errors import ConfigError, StorageError, WeightsError
from pipeline.frontends import FrontEnd
from pipeline.preprocessing import Preprocessing
from pipeline.validation import checked

if TYPE_CHECKING:
    from torch import Tensor, nn

SUFFIX = ".safetensors"
MAX_CLASSES = 256  # a byte a pixel
NOTES = "densemask"
PACKAGE = "package:"  # before the name of a bundled file
BATCH_COUNTER = "num_batches_tracked"  # of a batch norm; nothing that a network does here depends on it


Byte = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Byte, Byte, Byte]


class Notes(Config):
    """What native weights say of themselves."""

    front_end: str
    architecture: dict[str, Any]
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    palette: tuple[Colour, ...] | None = Field(None, description="RGB by class; VOC's if left out.")
    source: str = Field("", description="Where the weights come from: a checkpoint's name, or the data trained on.")
    source_sha256: str | None = None
    measured: dict[str, float] = Field(default_factory=dict, description="mIoU by the data that it was measured on.")


class Network(NamedTuple):
    """A network with its weights, and what its photographs have to look like."""

    module: "nn.Module"
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    palette: Palette | None = None


class Weights(NamedTuple):
    """A weights file as bytes, with what is known of it."""

    data: bytes
    sha256: str
    location: str  # "package:NAME" for bundled ones
    classes: tuple[str, ...]
    palette: Palette | None = None


def read_weights(recipe: Recipe) -> Weights:
    """The recipe's weights, checked against its network tensor by tensor.

    Raises WeightsError for a file that is missing, not safetensors, or of another network.
    """
    module = frontends.load(recipe.front_end.name)
    chosen = recipe.front_end.weights
    if chosen is None:
        if module.WEIGHTS is None:
            raise WeightsError(
                f"front end {recipe.front_end.name!r} has no bundled weights; name a {SUFFIX} file with --weights"
            )
        chosen = f"{PACKAGE}{module.WEIGHTS}"
    location = storage.public(chosen)
    data = read_location(chosen)
    try:
        network = open_network(recipe.front_end.name, data)
    except WeightsError as error:
        raise WeightsError(f"{location} does not fit front end {recipe.front_end.name!r}: {error}") from error
    if not 1 <= len(network.classes) <= MAX_CLASSES:
        raise WeightsError(f"{location} has {len(network.classes)} classes; a mask holds 1 to {MAX_CLASSES}")
    return Weights(data, hashlib.sha256(data).hexdigest(), location, network.classes, network.palette)


def read_location(chosen: str) -> bytes:
    """The bytes of a weights file: at a location, or ``package:NAME`` for a bundled one. Raises WeightsError."""
    if chosen.startswith(PACKAGE):
        name = chosen.removeprefix(PACKAGE)
        if name not in bundled():
            raise WeightsError(f"no bundled weights {name!r}; there are {', '.join(bundled())}")
        return resources.files(__name__).joinpath(name).read_bytes()
    try:
        return storage.read(chosen)
    except StorageError as error:
        is_folder = not storage.is_remote(chosen) and storage.is_folder(chosen)
        hint = "; `densemask convert` makes one file of it" if is_folder else ""
        raise WeightsError(f"no weights: {error}{hint}") from error


def bundled() -> list[str]:
    """The names of the weights files that come with the package."""
    return sorted(file.name for file in resources.files(__name__).iterdir() if file.name.endswith(SUFFIX))


def open_network(name: str, data: bytes) -> Network:
    """The front end's network with the weights of a native file, strictly. Raises WeightsError."""
    module, state = frontends.load(name), parse(data)
    found = notes(data)
    if found is None:
        architecture = read_architecture(module, state)
        built = load_strict(lambda: module.Network(architecture), state)
        names = class_names(architecture.classes, metadata(data).get("classes", module.CLASSES))
        colours = class_palette(architecture.classes, metadata(data).get("classes", module.CLASSES))
        return Network(built, frontends.preprocessing_of(module, architecture), names, colours)
    if found.front_end != name:
        raise WeightsError(f"they are weights of front end {found.front_end!r}")
    try:
        architecture = checked(module.Architecture, found.architecture, "their architecture")
    except ConfigError as error:
        raise WeightsError(str(error)) from error
    if len(found.classes) != architecture.classes:
        raise WeightsError(f"they name {len(found.classes)} classes and have {architecture.classes}")
    if found.palette is not None and len(found.palette) != architecture.classes:
        raise WeightsError(f"they name {len(found.palette)} colours for {architecture.classes} classes")
    network = load_strict(lambda: module.Network(architecture), state)
    return Network(network, found.preprocessing, found.classes, found.palette)


def open_front_end(name: str, data: bytes, device: str = "cpu", how: Inference | None = None) -> FrontEnd:
    """The front end with the weights of a native file, ready to score. Raises WeightsError."""
    network = open_network(name, data)
    return FrontEnd(network.module, network.preprocessing, device, network.palette, how)


def read_architecture(module: Any, state: Mapping[str, "Tensor"]) -> Any:
    """The architecture of a front end's weights that carry no notes. Raises WeightsError where there can be none."""
    try:
        return module.architecture_of(state)
    except (ValueError, LookupError) as error:  # a width out of bounds, a tensor without the axis that tells it
        reason = " ".join(str(error).split())
        raise WeightsError(f"its tensors have shapes that no such network has ({reason:.120})") from error


def parse(data: bytes) -> dict[str, "Tensor"]:
    """The tensors of a safetensors file as float32. Nothing in the file is executed."""
    import safetensors.torch

    try:
        tensors = safetensors.torch.load(data)
    except Exception as error:  # the parser raises its own types and struct errors
        hint = "; `densemask convert` reads torch's files" if data.startswith((b"PK", b"\x80\x02")) else ""
        raise WeightsError(f"not a whole safetensors file ({len(data)} bytes): {error}{hint}") from error
    return {name: tensor.float() for name, tensor in tensors.items()}


def metadata(data: bytes) -> dict[str, str]:
    """The file's own notes: its ``__metadata__``."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]).get("__metadata__", {})


def notes(data: bytes) -> Notes | None:
    """The notes of a native file, if it carries any. Raises WeightsError for broken ones."""
    written = metadata(data).get(NOTES)
    if written is None:
        return None
    try:
        return checked(Notes, json.loads(written), "their notes")
    except (ValueError, ConfigError) as error:
        raise WeightsError(str(error)) from error


def write(state: Mapping[str, "Tensor"], about: Notes) -> bytes:
    """A native file of these tensors and notes."""
    import safetensors.torch

    contiguous = {name: tensor.contiguous() for name, tensor in state.items()}
    return safetensors.torch.save(contiguous, {NOTES: about.model_dump_json(exclude_none=True)})


def load_strict(build: Callable[[], "nn.Module"], state: Mapping[str, "Tensor"]) -> "nn.Module":
    """The module with exactly these tensors; counters of batches may be left out.

    Raises WeightsError that names the first tensors that do not fit.
    """
    import torch

    with torch.device("meta"):
        module = build()
    expected = module.state_dict()
    counters = [name for name in expected if name.rpartition(".")[2] == BATCH_COUNTER]
    state = dict.fromkeys(counters, torch.zeros((), dtype=torch.long)) | dict(state)
    problems = [f"{name} is missing" for name in expected if name not in state]
    problems += [f"{name} is not part of the network" for name in state if name not in expected]
    for name, tensor in expected.items():
        if name in state and state[name].shape != tensor.shape:
            problems.append(f"{name} is {list(state[name].shape)}, the network has {list(tensor.shape)}")
        elif name in state and not torch.isfinite(state[name]).all():
            problems.append(f"{name} holds values that are not finite")
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise WeightsError("; ".join(problems[:3]) + more)
    module.load_state_dict(state, assign=True)
    return module.requires_grad_(False)
