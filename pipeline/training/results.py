"""What a training writes: weights, their model card, the history and its curves."""

import hashlib
import json
import platform
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict

from pipeline import storage, weights
from pipeline.config import Source
from pipeline.training import curves
from pipeline.training.config import Teacher, TrainJob

if TYPE_CHECKING:
    from torch import nn

    from pipeline.training.checkpoint import Position
    from pipeline.training.loop import Prepared

MODEL, BEST, CARD, HISTORY, CURVES = "model.safetensors", "best.safetensors", "card.md", "history.jsonl", "curves.html"


class Trained(BaseModel):
    """What a training has come to. mIoU is of the weights written, raw, over the classes with truth."""

    model_config = ConfigDict(frozen=True)

    weights: str
    card: str
    sha256: str
    epochs: int
    steps: int
    seconds: float
    miou: float | None
    classes: int | None


def write_weights(job: TrainJob, prepared: "Prepared", network: "nn.Module", miou: float | None, name: str) -> bytes:
    """The network's weights as a native file under that name in the output; its bytes."""
    state = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    state = {name: tensor for name, tensor in state.items() if name.rpartition(".")[2] != weights.BATCH_COUNTER}
    if job.half:  # but for a batch norm's statistics, which may lie past what float16 holds
        state = {name: tensor.half() if tensor.ndim > 1 else tensor for name, tensor in state.items()}
    began, on = prepared.start, f"{described(job.val or job.source)}, {len(prepared.val)} images"
    about = weights.Notes(
        front_end=job.front_end,
        architecture=began.architecture,
        preprocessing=began.preprocessing,
        classes=prepared.classes.names,
        palette=prepared.classes.palette,
        measured={} if miou is None else {on: round(miou, 4)},
        source=f"densemask train on {described(job.source)}, {len(prepared.train)} images; {began.note}",
    )
    data = weights.write(state, about)
    storage.put(storage.join(job.output, name), data)
    return data


def described(source: Source) -> str:
    """A data set in words that do not tell where it lies: ``data/voc val``."""
    place = "/".join(PurePosixPath(storage.public(source.location)).parts[-2:]).replace("//", "/")
    return place if source.split is None else f"{place} {source.split}"


def write_history(job: TrainJob, history: list[dict[str, Any]]) -> None:
    """The history as JSON lines, a row an epoch."""
    lines = "".join(json.dumps(row) + "\n" for row in history)
    storage.put(storage.join(job.output, HISTORY), lines.encode())


def write(job: TrainJob, prepared: "Prepared", network: "nn.Module", position: "Position") -> Trained:
    """Writes the weights with their card and the curves; the weights last, so that they are there when all is."""
    place = storage.join(job.output, MODEL)
    rows = [row for row in position.history if row.get("miou") is not None]
    if job.keep == "best" and rows:
        data = storage.read(storage.join(job.output, BEST))
        row = max(rows, key=lambda row: row["miou"])
    else:
        row = rows[-1] if rows else {}
        data = write_weights(job, prepared, network, row.get("miou"), BEST)
    trained = Trained(
        weights=place,
        card=storage.join(job.output, CARD),
        sha256=hashlib.sha256(data).hexdigest(),
        epochs=len(position.history),
        steps=position.step,
        seconds=round(position.seconds, 1),
        miou=row.get("miou"),
        classes=row.get("classes"),
    )
    storage.put(storage.join(job.output, CURVES), curves.page(position.history))
    storage.put(trained.card, card(job, prepared, trained, row, position, len(data)).encode())
    storage.put(place, data)
    return trained


def card(
    job: TrainJob, prepared: "Prepared", trained: Trained, row: dict[str, Any], position: "Position", size: int
) -> str:
    """The model card: what was trained, on what, how, and what came of it."""
    began, how = prepared.start, job.optimisation
    parameters = sum(parameter.numel() for parameter in began.network.parameters())
    val = "a held-out share" if job.val is None else described(job.val)
    chosen = "the best of the validation set, so its mIoU flatters" if job.keep == "best" else "the last epoch's"
    facts = [
        ("Front end", f"`{job.front_end}` {json.dumps(began.architecture)}, {parameters:,} parameters"),
        ("File", f"{size / 1e6:.1f} MB, {'float16' if job.half else 'float32'}, sha256 `{trained.sha256}`"),
        ("Data", f"{described(job.source)}, {len(prepared.train)} images, void {job.void}"),
        ("Validated on", f"{val}, {len(prepared.val)} images"),
        ("Initialised from", began.note),
        *([] if job.teacher is None else [("Learned from", _taught(job.teacher))]),
        ("Trained", f"{trained.epochs} epochs of {trained.steps // max(1, trained.epochs)} steps, batch {job.batch}, "
                    f"crops of {job.size}, {how.optimiser}, {how.schedule} schedule from {how.lr}, seed {job.seed}"),
        ("Machine", f"{platform.machine()}, threads: {torch.get_num_threads()}, {position.precision}, "
                    f"torch {torch.__version__}, {trained.seconds / 60:.0f} minutes"),
        ("Weights", f"the moving average of the weights, {chosen}"),
        ("Result, raw", f"mIoU {_figure(trained.miou)} over {trained.classes} classes with truth, "
                        f"pixel accuracy {_figure(row.get('pixel_accuracy'))}"),
    ]  # fmt: skip
    ious = row.get("iou") or [None] * len(prepared.classes.names)
    images = (prepared.train.pixels > 0).sum(0)
    lines = [
        f"# Model card: {job.front_end}, {len(prepared.classes.names)} classes",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in facts),
        "",
        "| class | training images | IoU |",
        "|---|---|---|",
        *(
            f"| {name} | {count} | {_figure(iou)} |"
            for name, count, iou in zip(prepared.classes.names, images, ious, strict=True)
        ),
        "",
        "The job:",
        "",
        "```json",
        job.model_dump_json(indent=2, exclude_defaults=True),
        "```",
        "",
    ]
    return "\n".join(lines)


def _taught(teacher: Teacher) -> str:
    name = PurePosixPath(storage.public(teacher.weights)).name
    return f"the truth, and `{teacher.front_end}` with {name} for {teacher.share:.0%} of the loss"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
