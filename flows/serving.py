"""Serves the nightly flow: its deployment on a Prefect server, and the process that starts its runs."""

import asyncio
import signal
from datetime import datetime
from typing import NamedTuple, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import prefect
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments import run_deployment
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron
from prefect.server.schemas.schedules import CronSchedule
from prefect.settings import get_current_settings
from prefect.types.entrypoint import EntrypointType
from pydantic import ValidationError

from flows import server
from flows.display import say
from flows.label_nightly import label_nightly
from pipeline import job_files, storage, weights
from pipeline.config import LabelJob
from pipeline.errors import ConfigError

HEARTBEAT_SECONDS = 120


class Nightly(NamedTuple):
    """A nightly labelling as it is asked for."""

    job: str
    cron: str
    timezone: str
    name: str
    retries: int
    time_limit_hours: float


def serve_nightly(nightly: Nightly, now: bool) -> None:
    """Creates or updates the deployment and starts its runs until SIGINT or SIGTERM; then its schedule is paused.

    Raises ConfigError, WeightsError or StorageError for what cannot be run, before anything starts.
    """
    checked = check(nightly)
    following = next_date(checked)
    say(f"checked {checked.job}; starting the Prefect server" if _is_ours() else f"checked {checked.job}")
    with server.with_dashboard() as dashboard:
        nights = deployment(checked)
        identity = asyncio.run(nights.aapply())
        say(f"label-nightly/{checked.name}: {checked.cron} {checked.timezone}, next at {following:%Y-%m-%d %H:%M %Z}")
        say(f"dashboard: {dashboard}/deployments/deployment/{identity}")
        if now:
            run_deployment(identity, timeout=0)
            say("a run starts now")
        say("Ctrl-C pauses the schedule and ends this command")
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the runner ends in order by it
        heartbeat = get_current_settings().flows.heartbeat_frequency or HEARTBEAT_SECONDS
        prefect.serve(nights, print_starting_message=False, heartbeat_seconds=heartbeat)
    say("the schedule is paused; the same command goes on with it")


def check(nightly: Nightly) -> Nightly:
    """The nightly labelling with its job file's place made absolute, as far as it can be checked before its first run.

    Raises ConfigError, WeightsError or StorageError with what is wrong.
    """
    if storage.has_secret(nightly.job):
        raise ConfigError(f"{storage.public(nightly.job)} was given with a secret, which the dashboard would show")
    job = job_files.load(LabelJob, nightly.job, {})
    weights.read_weights(job.recipe)
    if not nightly.name or set(nightly.name) & set("/%&><"):
        raise ConfigError(f"name {nightly.name!r}: a deployment's name is not empty and holds none of / % & < >")
    try:
        ZoneInfo(nightly.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(f"timezone {nightly.timezone!r} is unknown; it is such as Europe/Berlin or UTC") from None
    try:
        next_date(nightly)
    except (ValidationError, ValueError):
        hint = "five fields are needed: minute, hour, day, month, weekday, such as '0 2 * * *'"
        raise ConfigError(f"cron {nightly.cron!r} is no schedule; {hint}") from None
    return nightly._replace(job=storage.absolute(nightly.job))


def next_date(nightly: Nightly) -> datetime:
    """When the next night begins. Raises ValueError where none ever does."""
    schedule = CronSchedule(cron=nightly.cron, timezone=nightly.timezone)
    dates = asyncio.run(schedule.get_dates(1))
    if not dates:
        raise ValueError(nightly.cron)
    return dates[0]


def deployment(nightly: Nightly) -> RunnerDeployment:
    """The deployment, as deploy/prefect.yaml has it for a work pool.

    A night that would begin while the last one still runs is cancelled, not queued: the next listing finds its images.
    """
    made = label_nightly.to_deployment(
        name=nightly.name,
        schedule=Cron(nightly.cron, timezone=nightly.timezone, slug="nightly"),
        paused=False,
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
        parameters={
            "job": nightly.job,
            "retries": nightly.retries,
            "time_limit_hours": nightly.time_limit_hours,
        },
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    return cast(RunnerDeployment, made)  # it is no coroutine where no loop runs


def _is_ours() -> bool:
    return get_current_settings().api.url is None
