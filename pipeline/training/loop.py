"""The training itself: steps, validation, checkpoints, and the weights that come of it."""

import copy
import math
import os
import time
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline import metrics, storage
from pipeline.classes import ClassSet
from pipeline.errors import RunError, SourceError
from pipeline.frontends import FrontEnd
from pipeline.metrics import Counts
from pipeline.scores import full_logits
from pipeline.training import checkpoint, results, steps
from pipeline.training import teacher as teachers
from pipeline.training.batches import Batches
from pipeline.training.config import TrainJob
from pipeline.training.data import Examples, load, median_frequency, split
from pipeline.training.events import Events
from pipeline.training.initial import Start, classes_of, start
from pipeline.training.results import Trained
from pipeline.training.teacher import Teacher

if TYPE_CHECKING:
    from torch import nn


class Progress(NamedTuple):
    """Where a training stands."""

    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float | None
    images_per_s: float | None
    seconds_left: float | None
    history: list[dict[str, Any]]


Show = Callable[[Progress], None]


class Prepared(NamedTuple):
    """A job's data and network, checked."""

    classes: ClassSet
    train: Examples
    val: Examples
    start: Start
    teacher: Teacher | None


def prepare(job: TrainJob) -> Prepared:
    """Reads and checks the data and the weights to start from; writes nothing."""
    classes = classes_of(job)
    count = len(classes.names)
    began = start(job, count)
    teacher = None if job.teacher is None else teachers.load(job.teacher, classes)
    train = load(job.source, count, job.void, job.max_failure_rate)
    if len(train) < 2:
        raise SourceError(f"{storage.public(job.source.location)} has one image with a mask; training needs at least 2")
    if job.val is None:
        return Prepared(classes, *split(train, job.val_share, job.seed), began, teacher)
    return Prepared(classes, train, load(job.val, count, job.void, job.max_failure_rate), began, teacher)


def train(job: TrainJob, show: Show, prepared: Prepared | None = None, rank: int = 0, world: int = 1) -> Trained | None:
    """Trains from the output's checkpoint, or from the start; the same command goes on after a kill.

    With ``world`` processes (torch.distributed is up) each computes its share of every batch and the first one writes.
    """
    import torch

    if job.threads is not None:
        torch.set_num_threads(job.threads)
    prepared = prepared or prepare(job)
    device = job.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return _Run(job, prepared, device, rank, world).train(show)


class _Run:
    """A training under way."""

    def __init__(self, job: TrainJob, prepared: Prepared, device: str, rank: int, world: int) -> None:
        import torch
        from torch.optim.swa_utils import AveragedModel

        self.job, self.prepared, self.device, self.rank, self.world = job, prepared, device, rank, world
        how, began = job.optimisation, prepared.start
        network: Any = began.network
        self.network = network.to(device, memory_format=torch.channels_last)
        self.ema = AveragedModel(self.network, multi_avg_fn=steps.averaging(0, how.ema), use_buffers=True)
        steps.set_training(self.network)
        self.optimiser = steps.optimiser(self.network, began.taken, how)
        self.position = checkpoint.restore(job, self.network, self.ema, self.optimiser)
        self.batches = Batches(job, prepared.train, began.preprocessing, rank, world)
        self.events = Events(job.output)
        self.steps = job.epochs * self.batches.steps_per_epoch
        self.class_weights: torch.Tensor | None = None
        if how.class_weights == "median_frequency":
            balanced = median_frequency(prepared.train.pixels) ** how.class_weight_power
            self.class_weights = torch.from_numpy(balanced).to(device)
        self.parallel = self.network
        if world > 1:
            self.parallel = torch.nn.parallel.DistributedDataParallel(self.network)

    def train(self, show: Show) -> Trained | None:
        """To the last step, or until the validation gets no better."""
        job, position = self.job, self.position
        threads = job.threads or os.cpu_count() or 1
        with closing(self.batches.stream(position.step, self.steps, threads)) as stream:
            before, saved = time.monotonic(), time.monotonic()
            while not self._ended():
                self._step(next(stream))
                now = time.monotonic()
                position.seconds, before = position.seconds + now - before, now
                if position.step % self.batches.steps_per_epoch == 0:
                    self._finish_epoch()
                    saved = now
                elif now - saved > 60 * job.checkpoint_minutes:
                    self._save()
                    saved = now
                show(self._progress())
        return results.write(job, self.prepared, self.ema.module, position) if self.rank == 0 else None

    def _step(self, batch: Any) -> None:
        import torch

        job, how, position = self.job, self.job.optimisation, self.position
        preprocessing = self.prepared.start.preprocessing
        if position.precision is None:
            position.precision = how.precision
            if how.precision == "auto":
                position.precision = steps.faster_precision(self.network, batch, preprocessing, self.device)
        torch.manual_seed(job.seed + position.step)
        photographs, truth = steps.pixels(batch, preprocessing, self.device)
        logits = steps.forward(self.parallel, photographs, position.precision, self.device)
        height, width = truth.shape[-2:]
        seen = steps.learned_from(position.step, height, width)
        logits, truth = steps.logits_at(self.network, logits, height, width, seen), seen.of(truth)
        loss = steps.loss(logits, truth, job.void, self.class_weights)
        if (teacher := self.prepared.teacher) is not None:
            taught = teacher.probabilities(batch, seen, position.precision, self.device)
            distilled = steps.distillation_loss(logits, taught, truth, job.void, self.class_weights)
            loss = (1 - teacher.share) * loss + teacher.share * distilled
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), how.clip)
        steps.set_learning_rate(self.optimiser, steps.learning_rate(position.step, self.steps, how))
        self.optimiser.step()
        self.ema.multi_avg_fn = steps.averaging(position.step, how.ema)
        self.ema.update_parameters(self.network)
        position.step += 1
        position.losses.append(float(loss.detach()))
        if not math.isfinite(position.losses[-1]):
            raise RunError(
                f"the loss is {position.losses[-1]} at step {position.step}: a lower --lr than {how.lr} may help; "
                "the same command goes on from the last checkpoint"
            )

    def _finish_epoch(self) -> None:
        """The epoch's row of the history, with a look at the validation set where one is due."""
        job, position = self.job, self.position
        epoch = position.step // self.batches.steps_per_epoch
        row: dict[str, Any] = {
            "epoch": epoch,
            "step": position.step,
            "loss": float(np.mean(position.losses)),
            "lr": steps.learning_rate(position.step - 1, self.steps, job.optimisation),
            "seconds": round(position.seconds, 1),
        }
        position.losses.clear()
        last = epoch == job.epochs
        if self.rank == 0 and (epoch % job.validate_every == 0 or last):
            counts = validate(self.ema.module, self.prepared, job.void, self.device)
            iou = [None if np.isnan(value) else round(float(value), 4) for value in counts.iou]
            row |= {"miou": counts.miou, "classes": counts.classes, "pixel_accuracy": counts.pixel_accuracy, "iou": iou}
            position.since_best += 1
            if position.best is None or (counts.miou or 0) > position.best:
                position.best, position.since_best = counts.miou, 0
                if job.keep == "best":
                    results.write_weights(job, self.prepared, self.ema.module, counts.miou, results.BEST)
        position.history.append(row)
        position.since_best = self._agreed(position.since_best)
        if self.rank == 0:
            results.write_history(job, position.history)
            self.events.add(row, self.prepared.classes.names)
        self._save()

    def _ended(self) -> bool:
        """Whether the last step is done, or the validation has not got better for too long."""
        position, patience = self.position, self.job.patience
        return position.step >= self.steps or (patience is not None and position.since_best >= patience)

    def _agreed(self, value: int) -> int:
        """What the first process says, which alone has seen the validation set."""
        if self.world == 1:
            return value
        import torch

        said = torch.tensor(value, device=self.device)
        torch.distributed.broadcast(said, 0)
        return int(said)

    def _save(self) -> None:
        if self.rank == 0:
            checkpoint.save(self.job, self.position, self.network, self.ema, self.optimiser)

    def _progress(self) -> Progress:
        position = self.position
        per_epoch = self.batches.steps_per_epoch
        loss = float(np.mean(position.losses[-50:])) if position.losses else None
        rate = position.step / position.seconds if position.seconds > 1 else None
        images, left = (None, None) if rate is None else (rate * self.job.batch, (self.steps - position.step) / rate)
        epoch = min(self.job.epochs, position.step // per_epoch + 1)
        return Progress(position.step, self.steps, epoch, self.job.epochs, loss, images, left, position.history)


def validate(network: "nn.Module", prepared: Prepared, void: int, device: str) -> Counts:
    """The counts of the validation set by the labelling's own path: whole photographs, argmax of the scores."""
    front_end = FrontEnd(copy.deepcopy(network), prepared.start.preprocessing, device)
    classes = len(prepared.classes.names)
    counts = Counts.zero(classes)
    for index in range(len(prepared.val)):
        example = prepared.val[index]
        (scores,) = front_end.score([example.rgb])
        labels = scores.labels[full_logits(scores).argmax(0)]
        counts += metrics.count(example.truth, labels, classes, example.truth != void)
    return counts
