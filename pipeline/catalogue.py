"""What can be built: the front ends with their facts, and what a weights file says of itself."""

import hashlib
import json
import re
from importlib import resources
from typing import Any

from pipeline import frontends, storage
from pipeline.config import Config
from pipeline.errors import WeightsError
from pipeline.weights import SUFFIX, metadata, notes, parse

PROBES = 128, 256  # pixels a side
FIRST_CLAUSE = re.compile(r": |; |(?<!et al)\. ")


class Model(Config):
    """One front end with its default architecture."""

    front_end: str
    network: str  # what it is, and its paper
    architecture: dict[str, Any]
    classes: int
    parameters: int | None  # None where a package that it needs is not installed
    stride: int | None
    measured: dict[str, float]  # mIoU of the bundled weights, by data
    weights: str  # "bundled", the commands that make some, or what has to be installed first


def models() -> list[Model]:
    """Every front end there is, by name."""
    return [model(name) for name in frontends.names()]


def model(name: str) -> Model:
    """The facts of a front end; without its size where it cannot be built here."""
    import torch

    module = frontends.load(name)
    architecture = module.Architecture()
    known = Model(
        front_end=name,
        network=FIRST_CLAUSE.split(" ".join(module.__doc__.split()))[0].rstrip("."),
        architecture=architecture.model_dump(mode="json"),
        classes=architecture.classes,
        parameters=None,
        stride=None,
        measured={} if module.WEIGHTS is None else measured(module.WEIGHTS),
        weights="bundled" if module.WEIGHTS is not None else "convert or train",
    )
    try:
        with torch.device("meta"), torch.inference_mode():
            network = module.Network(architecture).eval()
    except WeightsError as error:
        return known.model_copy(update={"weights": str(error)})
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return known.model_copy(update={"parameters": parameters, "stride": stride(network)})


def measured(bundled: str) -> dict[str, float]:
    """The mIoU of bundled weights by the data that it was measured on, of their notes or of the card beside them."""
    folder = resources.files("pipeline.weights")
    about = notes(folder.joinpath(bundled).read_bytes())
    if about is not None:
        return about.measured
    card = json.loads(folder.joinpath(f"{bundled.removesuffix(SUFFIX)}.json").read_text())["measured"]
    return {card["data"]: card["miou_raw"]}


def stride(network: Any) -> int:
    """Pixels of the image that one score stands for, whatever the padding. The network's norms are lost."""
    import torch

    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, torch.nn.BatchNorm2d):  # tells nothing of sizes, and takes half of the time
                setattr(module, name, torch.nn.Identity())

    device = next(network.parameters()).device
    with torch.inference_mode():
        rows = [network(torch.zeros(1, 3, side, side, device=device)).shape[-2] for side in PROBES]
    return round((PROBES[1] - PROBES[0]) / (rows[1] - rows[0]))


def describe(location: str) -> dict[str, Any]:
    """What a native weights file says of itself. Raises WeightsError for one without notes."""
    data = storage.read(location)
    tensors = parse(data)
    about = notes(data)
    if about is None:
        said = ", ".join(metadata(data)) or "nothing"
        raise WeightsError(f"{storage.public(location)} carries no notes of densemask (its metadata: {said})")
    return {
        **about.model_dump(mode="json", exclude_none=True),
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
