"""Weights: native safetensors files, bundled or the user's own."""

import hashlib
import json
from collections.abc import Callable, Mapping
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

from pipeline import storage
from pipeline.classes import class_names
from pipeline.config import Recipe
from pipeline.errors import StorageError, WeightsError

if TYPE_CHECKING:
    from torch import Tensor, nn

SUFFIX = ".safetensors"
MAX_CLASSES = 256  # a byte a pixel


class Weights(NamedTuple):
    """A weights file as bytes, with what is known of it."""

    data: bytes
    sha256: str
    location: str  # "package:NAME" for bundled ones
    classes: tuple[str, ...]


def read_weights(recipe: Recipe) -> Weights:
    """The recipe's weights, checked against its network tensor by tensor.

    Raises WeightsError for a file that is missing, not safetensors, or of another network.
    """
    from pipeline import frontends

    module = frontends.load(recipe.front_end.name)
    chosen = recipe.front_end.weights
    if chosen is None:
        if module.WEIGHTS is None:
            raise WeightsError(
                f"front end {recipe.front_end.name!r} has no bundled weights; name a {SUFFIX} file with --weights"
            )
        location = f"package:{module.WEIGHTS}"
        data = resources.files(__name__).joinpath(module.WEIGHTS).read_bytes()
    else:
        location = storage.public(chosen)
        try:
            data = storage.read(chosen)
        except StorageError as error:
            raise WeightsError(f"no weights: {error}") from error
    try:
        network = module.network(parse(data))
    except WeightsError as error:
        raise WeightsError(f"{location} does not fit front end {recipe.front_end.name!r}: {error}") from error
    count = _class_count(network)
    if not 1 <= count <= MAX_CLASSES:
        raise WeightsError(f"{location} has {count} classes; a mask holds 1 to {MAX_CLASSES}")
    names = class_names(count, metadata(data).get("classes", module.CLASSES))
    return Weights(data, hashlib.sha256(data).hexdigest(), location, names)


def parse(data: bytes) -> dict[str, "Tensor"]:
    """The tensors of a safetensors file as float32. Nothing in the file is executed."""
    import safetensors.torch

    try:
        tensors = safetensors.torch.load(data)
    except Exception as error:  # the parser raises its own types and struct errors
        raise WeightsError(f"not a whole safetensors file ({len(data)} bytes): {error}") from error
    return {name: tensor.float() for name, tensor in tensors.items()}


def metadata(data: bytes) -> dict[str, str]:
    """The file's own notes: its ``__metadata__``."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]).get("__metadata__", {})


def load_strict(build: Callable[[], "nn.Module"], state: Mapping[str, "Tensor"]) -> "nn.Module":
    """The module with exactly these tensors. Raises WeightsError that names the first that do not fit."""
    import torch

    with torch.device("meta"):
        module = build()
    expected = module.state_dict()
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
    module.load_state_dict(dict(state), assign=True)
    return module.requires_grad_(False)


def _class_count(network: "nn.Module") -> int:
    """The width of the network's last layer."""
    return next(reversed(list(network.parameters()))).shape[0]
