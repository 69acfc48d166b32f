"""A training over several GPUs by Ray Train: one process each, every batch shared out, gradients averaged."""

import os
import tempfile
import threading
from queue import Empty
from typing import Any

import torch
from ray.util.queue import Queue

from pipeline.errors import RunError
from pipeline.training import loop
from pipeline.training.config import TrainJob
from pipeline.training.loop import Prepared, Progress, Show
from pipeline.training.results import Trained
from workers import cluster

POLL_SECONDS = 0.5


def train(job: TrainJob, prepared: Prepared, show: Show) -> Trained:
    """Trains here, or by Ray Train where there is more than one GPU: on this machine, or in RAY_ADDRESS's cluster."""
    if job.device is None and (torch.cuda.device_count() > 1 or os.environ.get("RAY_ADDRESS")):
        with cluster.connected() as resources:
            if resources.gpus > 1:
                return distributed(job, int(resources.gpus), True, show)
    trained = loop.train(job, show, prepared)
    assert trained is not None  # this is the first process
    return trained


def distributed(job: TrainJob, processes: int, use_gpu: bool, show: Show) -> Trained:
    """Trains in so many processes of the connected cluster; they read the source and write the output themselves."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    told, ended = Queue(), Queue()
    failures: list[Exception] = []
    with tempfile.TemporaryDirectory() as notes:  # Ray Train's own; checkpoints go to the job's output
        trainer = TorchTrainer(
            _process,
            train_loop_config={"job": job.model_dump_json(), "told": told, "ended": ended},
            scaling_config=ScalingConfig(num_workers=processes, use_gpu=use_gpu),
            run_config=RunConfig(storage_path=notes),
        )
        fitting = threading.Thread(target=_fit, args=(trainer, failures), daemon=True)
        fitting.start()
        while fitting.is_alive() or not told.empty():
            try:
                show(Progress(*told.get(timeout=POLL_SECONDS)))
            except Empty:
                continue
    if failures:
        raise RunError(f"the training over {processes} processes failed: {failures[0]}") from failures[0]
    return Trained.model_validate_json(ended.get(timeout=POLL_SECONDS))


def _fit(trainer: Any, failures: list[Exception]) -> None:
    try:
        trainer.fit()
    except Exception as error:  # whatever a process of it ended with
        failures.append(error)


def _process(config: dict[str, Any]) -> None:
    """One process of a training."""
    from ray.train import get_context
    from ray.train.torch import get_device

    rank, world = get_context().get_world_rank(), get_context().get_world_size()
    job = TrainJob.model_validate_json(config["job"]).model_copy(update={"device": str(get_device())})

    def show(progress: Progress) -> None:
        if rank == 0:
            config["told"].put(tuple(progress))

    trained = loop.train(job, show, None, rank, world)
    if trained is not None:
        config["ended"].put(trained.model_dump_json())
