"""A training's checkpoint: one safetensors file, written whole, from which the same command goes on."""

import json
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from pipeline import storage, weights
from pipeline.errors import ConfigError, WeightsError
from pipeline.training.config import TrainJob

if TYPE_CHECKING:
    from torch import nn, optim

NAME = "checkpoint.safetensors"
# What may differ between a training and the command that continues it.
FREE = {"epochs", "patience", "threads", "checkpoint_minutes", "output"}


class Position(BaseModel):
    """How far a training has come."""

    step: int = 0
    history: list[dict[str, Any]] = []  # a row an epoch
    losses: list[float] = []  # of the epoch under way
    precision: str | None = None
    best: float | None = None  # validation mIoU
    since_best: int = 0  # validations since then
    seconds: float = 0.0


def save(job: TrainJob, position: Position, model: "nn.Module", ema: "nn.Module", optimiser: "optim.Optimizer") -> None:
    """Writes the checkpoint over the one before it."""
    import safetensors.torch

    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"ema.{name}": tensor for name, tensor in ema.state_dict().items()}
    for index, slots in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": tensor for name, tensor in slots.items() if tensor is not None}
    notes = {"job": job.model_dump_json(exclude=FREE), "position": position.model_dump_json()}
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    storage.put(storage.join(job.output, NAME), safetensors.torch.save(whole, notes))


def restore(job: TrainJob, model: "nn.Module", ema: "nn.Module", optimiser: "optim.Optimizer") -> Position:
    """Brings all three to where the checkpoint was written; a fresh Position where there is none.

    Raises ConfigError where the output holds another job's checkpoint, WeightsError for a broken one.
    """
    import safetensors.torch
    import torch

    location = storage.join(job.output, NAME)
    if not storage.exists(location):
        return Position()
    data = storage.read(location)
    try:
        tensors = safetensors.torch.load(data)
        notes = weights.metadata(data)
        earlier, position = json.loads(notes["job"]), Position.model_validate_json(notes["position"])
    except Exception as error:  # the parser raises its own types and struct errors
        raise WeightsError(f"{location} is no checkpoint of a training: {error}; remove it to start anew") from error
    ours = json.loads(job.model_dump_json(exclude=FREE))
    differing = [key for key in ours if ours[key] != earlier.get(key)]
    if differing:
        raise ConfigError(
            f"{job.output} holds a training with another {', '.join(differing)}; name another output, "
            f"or remove {NAME} there to start anew"
        )
    model.load_state_dict(_under("model.", tensors))
    ema.load_state_dict(_under("ema.", tensors))
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in _under("optimiser.", tensors).items():
        index, _, slot = name.partition(".")
        like = parameters[int(index)]
        if tensor.shape == like.shape:  # fused steps read memory as it lies: channels last, if the parameter is so
            tensor = torch.empty_like(like).copy_(tensor)
        state.setdefault(int(index), {})[slot] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return position


def _under(prefix: str, tensors: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
