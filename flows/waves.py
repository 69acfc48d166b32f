"""Who runs a wave, and who goes before the next one."""

import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings

from flows.display import LINE_SECONDS, say
from flows.reprocess_wave import reprocess_wave
from pipeline import masks
from pipeline.errors import RunError
from pipeline.reprocess import ReprocessJob, Wave

DEPLOYMENT = "reprocess-wave/reprocess-wave"
OVERTAKES = ["label-nightly", "label-dataset"]  # flows that have their turn between two waves
POLL_SECONDS = 2.0
START_SECONDS = 60.0  # how long a run that is due may take until it starts, before it has missed its turn
UNDER_WAY = (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING)
Run = Callable[[ReprocessJob, str, Wave], None]  # with the new recipe's fingerprint


class Other(NamedTuple):
    """A labelling that came due while a wave was under way."""

    name: str
    started: bool


def is_deployed() -> bool:
    """Whether the Prefect server that is named has the deployment of a wave."""
    if get_current_settings().api.url is None:
        return False
    with get_client(sync_client=True) as client:
        try:
            client.read_deployment_by_name(DEPLOYMENT)
        except ObjectNotFound:
            return False
    return True


def run_here(job: ReprocessJob, _: str, wave: Wave) -> None:
    """Runs a wave in this process. Raises RunError where it ends red."""
    named = reprocess_wave.with_options(flow_run_name=_name(wave))
    named(job, wave.run, [shard.number for shard in wave.shards])


def run_deployed(job: ReprocessJob, fingerprint: str, wave: Wave) -> None:
    """Has a wave run by its deployment and waits for its end. Raises RunError where it ends red.

    The idempotency key makes two commands wait for one and the same run. A run that had ended before leaves shards
    only if it failed; then the next attempt has a key of its own.
    """
    numbers = [shard.number for shard in wave.shards]
    parameters = {"job": job.model_dump(mode="json"), "run": wave.run, "shards": numbers}
    for attempt in itertools.count(1):
        key = f"{fingerprint}/{wave.run}/wave {wave.number} of {job.wave_shards}/attempt {attempt}"
        run = run_deployment(
            DEPLOYMENT, parameters=parameters, idempotency_key=key, timeout=0, flow_run_name=_name(wave)
        )
        assert isinstance(run, FlowRun)
        was_final = run.state is not None and run.state.is_final()
        run = run if was_final else _ended(job, fingerprint, wave, run)
        if masks.committed(job.output, fingerprint, wave.run).issuperset(numbers):
            return
        if not was_final:
            assert run.state is not None
            raise RunError(f"{run.name} ended {run.state.name}: {run.state.message or 'no reason given'}")


def _name(wave: Wave) -> str:
    return f"{wave.run} wave {wave.number}"


def _ended(job: ReprocessJob, fingerprint: str, wave: Wave, run: FlowRun) -> FlowRun:
    """The flow run once it has ended; now and then a line about it."""
    said = time.monotonic()
    with get_client(sync_client=True) as client:
        while run.state is None or not run.state.is_final():
            time.sleep(POLL_SECONDS)
            run = client.read_flow_run(run.id)
            if time.monotonic() - said >= LINE_SECONDS and run.state is not None:
                said = time.monotonic()
                done = masks.committed(job.output, fingerprint, wave.run)
                count = sum(shard.number in done for shard in wave.shards)
                say(f"{run.name}: {run.state.name}, {count}/{len(wave.shards)} shards")
    return run


def let_pass(since: datetime) -> datetime:
    """Waits until the labellings that came due since then have ended; one that does not start misses its turn.

    The time of its last look: what comes due from then on has its turn after the next wave.
    """
    began, said = time.monotonic(), False
    while True:
        looked = datetime.now(UTC)
        waited_for = go_first(_others(since, looked), time.monotonic() - began)
        if not waited_for:
            return looked
        if not said:
            say(f"{', '.join(one.name for one in waited_for)} goes first")
            said = True
        time.sleep(POLL_SECONDS)


def go_first(others: list[Other], waited: float) -> list[Other]:
    """Those that the next wave waits for, having waited for so many seconds."""
    return [other for other in others if other.started or waited < START_SECONDS]


def _others(since: datetime, until: datetime) -> list[Other]:
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=OVERTAKES)),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(UNDER_WAY))),
                expected_start_time=FlowRunFilterExpectedStartTime(after_=since, before_=until),
            ),
        )
    return [Other(f"labelling {run.name}", run.state_type == StateType.RUNNING) for run in found]
