"""Training as a flow: one flow run a training; its progress, curves and model card are artifacts."""

import base64
import time
from typing import Any

from prefect import Flow, flow, task
from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE

from flows import run_log, training_display
from pipeline import storage
from pipeline.pages import number
from pipeline.training import curves
from pipeline.training.config import TrainJob
from pipeline.training.loop import Prepared, Progress, prepare
from pipeline.training.results import Trained
from workers.training import train

UPDATE_SECONDS = 5.0


def training(prepared: Prepared | None = None) -> Flow[[TrainJob], Trained]:
    """The flow; a caller who has read the data already hands it over here, for a parameter goes to the server."""

    @flow(
        name="train-model",
        description="Trains a front end on a labelled dataset: weights, model card and curves go to the job's output.",
    )
    def train_model(job: TrainJob) -> Trained:
        """Trains the job's network; the same job goes on from its last checkpoint."""
        run_log.guard()
        ready = prepared or prepare(job)
        trained = _train_task(job, ready)()
        card = storage.read(trained.card).decode()
        create_markdown_artifact(key="model-card", markdown=card, description=f"Weights {trained.weights}")
        return trained

    return train_model


train_model = training()


def _train_task(job: TrainJob, prepared: Prepared):  # type: ignore[no-untyped-def]
    """The Prefect task that trains; the checkpoint is the only truth, so nothing is cached."""

    @task(name="train-network", cache_policy=NO_CACHE, persist_result=False)
    def train_network() -> Trained:
        with training_display.shown() as show:
            board = _Board()

            def both(progress: Progress) -> None:
                show(progress)
                board.update(progress)

            trained = train(job, prepared, both)
            board.finish()
        return trained

    return train_network


class _Board:
    """The progress artifact of a flow run, its curves and the table of its epochs, renewed every few seconds."""

    def __init__(self) -> None:
        self._bar: Any = create_progress_artifact(progress=0.0, key="training", description="0 steps done")
        self._updated, self._epochs = time.monotonic(), 0
        self._last: Progress | None = None

    def update(self, progress: Progress) -> None:
        """Shows the state, if it was not shown a moment ago."""
        self._last = progress
        if time.monotonic() - self._updated >= UPDATE_SECONDS:
            self._updated = time.monotonic()
            self._draw(progress)

    def finish(self) -> None:
        """Shows the last state."""
        if self._last is not None:
            self._draw(self._last)

    def _draw(self, progress: Progress) -> None:
        share = 100.0 * progress.step / progress.steps
        update_progress_artifact(self._bar, share, training_display.line(progress))
        if len(progress.history) > self._epochs:
            self._epochs = len(progress.history)
            drawing = base64.b64encode(curves.picture(progress.history)).decode()
            create_image_artifact(
                key="curves", image_url=f"data:image/svg+xml;base64,{drawing}", description="Loss and mIoU by epoch"
            )
            create_table_artifact(key="epochs", table=_table(progress.history), description="Loss and mIoU by epoch")


def _table(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"epoch": row["epoch"], "loss": number(row["loss"], 4), "mIoU": number(row.get("miou"), 4)} for row in history
    ]
