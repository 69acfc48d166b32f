"""The nightly flow: label what is new, then the golden set, and hold the night against the nights before it."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

import tenacity
from prefect import flow, get_run_logger
from prefect.events import emit_event

from flows import artifacts, janitor, run_log
from flows.label_dataset import label_dataset
from flows.outcome import TooManyFailed
from pipeline import golden, job_files, nights, plan, storage
from pipeline.config import LabelJob
from pipeline.errors import DensemaskError, RunError
from pipeline.golden import Golden
from pipeline.plan import Changes
from pipeline.prepare import Prepared, prepare, prepare_night
from pipeline.trend import Night

SHIFT = "densemask.shift"
T = TypeVar("T")


class Tries(NamedTuple):
    """How often a step of a night is tried, and until when (seconds of the monotonic clock)."""

    retries: int
    delay_seconds: float
    deadline: float
    limit_hours: float

    def __call__(self, step: Callable[[], T]) -> T:
        """What the step gives, after retries where a failure may pass."""
        return tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self.retries + 1),
            wait=tenacity.wait_fixed(self.delay_seconds),
            retry=tenacity.retry_if_exception(lambda error: self.left > self.delay_seconds and _may_pass(error)),
            before_sleep=lambda state: get_run_logger().warning(
                f"tried again in {self.delay_seconds:g} s: {_reason(state)}"
            ),
            reraise=True,
        )(step)

    @property
    def left(self) -> float:
        """Seconds that are left to the night."""
        return self.deadline - time.monotonic()


@flow(name="label-nightly", description="Labels what is new and holds the night against the nights before it.")
def label_nightly(job: str, retries: int = 2, retry_delay_seconds: float = 300, time_limit_hours: float = 8) -> Night:
    """``job``: where the job file lies; it is read anew each night, so that an edit counts from the next one on.

    Raises what ended the night red, after its record, its report and its events are out.
    """
    run_log.guard()
    began = datetime.now(UTC)
    janitor.watch()
    content = job_files.load(LabelJob, job, {})
    tries = Tries(retries, retry_delay_seconds, time.monotonic() + time_limit_hours * 3600, time_limit_hours)
    prepared, changes = tries(lambda: prepare_night(content))
    errors = _labelled(content, prepared, tries)
    on_golden, more = _on_golden(content, tries)
    errors += more
    night = _written(content, nights.name(began), prepared, changes, on_golden, errors)
    artifacts.publish_night(night, nights.page(content.output, night.night))
    if night.shifts:
        _tell(content.output, night)
    if errors:
        raise errors[0]
    return night


def _labelled(job: LabelJob, prepared: Prepared, tries: Tries) -> list[Exception]:
    """Labels what is planned in a flow run of its own, or in several where one fails; why there are rows missing."""
    if not prepared.runs:
        return []

    def attempt() -> None:
        if tries.left <= 0:
            raise TimeoutError
        label_dataset.with_options(timeout_seconds=tries.left)(job, planned=True)

    try:
        tries(attempt)
    except TimeoutError:
        message = (
            f"the night is over its time limit of {tries.limit_hours:g} h; what is committed stays, the next goes on"
        )
        return [RunError(message)]
    except Exception as error:
        return [error]
    return []


def _on_golden(job: LabelJob, tries: Tries) -> tuple[Golden | None, list[Exception]]:
    """The recipe on the golden set, whose images are labelled where they have no rows yet."""
    golden_job = golden.golden_job(job)
    if golden_job is None:
        return None, []
    try:
        prepared = tries(lambda: prepare(golden_job))
        errors = _labelled(golden_job, prepared, tries)
        return golden.measure(golden_job, prepared.recipe.fingerprint), errors
    except Exception as error:
        return None, [error]


def _written(
    job: LabelJob, name: str, prepared: Prepared, changes: Changes, on_golden: Golden | None, errors: list[Exception]
) -> Night:
    """The night's files, for the runs of which every row is there."""
    fingerprint = prepared.recipe.fingerprint
    unfinished = {shard.run for shard in plan.pending(job.output, fingerprint)} if errors else set()
    runs = [nights.finished(job.output, fingerprint, run) for run in prepared.runs if run not in unfinished]
    error = "; ".join(map(_words, errors)) or None
    night = nights.record(name, fingerprint, runs, changes, on_golden, error)
    return nights.write(job.output, night, changes, job.trend)


def _tell(output: str, night: Night) -> None:
    """The event of a night with shifts; Prefect adds the flow run and the deployment that it is related to."""
    place = storage.public(output)
    emit_event(
        SHIFT,
        resource={
            "prefect.resource.id": f"densemask.output.{place}",
            "prefect.resource.name": place,
            "densemask.recipe": night.recipe,
        },
        payload={
            "night": night.night,
            "report": nights.page(place, night.night),
            "shifts": [shift.model_dump() for shift in night.shifts],
        },
    )


def _may_pass(error: BaseException) -> bool:
    """Whether a second try can end otherwise."""
    if isinstance(error, TooManyFailed | TimeoutError):
        return False
    return isinstance(error, Exception) and getattr(error, "exit_code", 1) == 1


def _reason(state: tenacity.RetryCallState) -> str:
    error = state.outcome.exception() if state.outcome else None
    return _words(error) if error else ""


def _words(error: BaseException) -> str:
    return str(error) if isinstance(error, DensemaskError) else repr(error)
