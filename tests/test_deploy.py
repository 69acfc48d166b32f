"""The files in deploy/ are what the code takes."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.deployments.runner import RunnerDeployment
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.flows import load_flow_from_entrypoint

from flows.label_nightly import SHIFT
from flows.serving import HEARTBEAT_SECONDS, Nightly
from flows.serving import deployment as served_deployment
from pipeline import job_files
from pipeline.config import Execution, LabelJob, Recipe, Trend

ROOT = Path(__file__).resolve().parents[1]
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((ROOT / "deploy" / "prefect.yaml").read_text())["deployments"]


def test_the_job_file_shows_the_defaults() -> None:
    job = job_files.load(LabelJob, str(ROOT / "deploy" / "job.yaml"), {})
    plain = LabelJob.model_validate({"source": "s3://photographs/incoming", "output": "s3://labels/nightly"})
    assert job == plain
    assert (job.recipe, job.execution, job.trend) == (Recipe(), Execution(), Trend())


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: str(deployment["name"]))
def test_prefect_can_load_the_flows_by_their_files(deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    flow = load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False)
    assert flow.name == deployment["entrypoint"].split(":")[1].replace("_", "-")
    assert flow.parameters.properties
    given = deployment.get("parameters", {})
    assert set(given) <= set(flow.parameters.properties)
    assert deployment["work_pool"]["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "120"


def test_the_nightly_deployment_of_a_work_pool_is_that_of_the_command() -> None:
    (nightly,) = (one for one in DEPLOYMENTS if one["name"] == "nightly")
    parameters = nightly["parameters"]
    (schedule,) = nightly["schedules"]
    served = deployment_of(parameters, schedule)
    assert served.schedules is not None and served.concurrency_options is not None
    assert served.schedules[0].schedule is not None
    assert served.schedules[0].schedule.model_dump() == schedule | {"day_or": True}
    limit = {"limit": served.concurrency_limit, "collision_strategy": served.concurrency_options.collision_strategy}
    assert limit == nightly["concurrency_limit"]
    assert served.parameters == {name: value for name, value in parameters.items() if name != "retry_delay_seconds"}
    assert job_files.load(LabelJob, str(ROOT / parameters["job"]), {}).output == "s3://labels/nightly"


def deployment_of(parameters: dict[str, Any], schedule: dict[str, Any]) -> RunnerDeployment:
    """What the command serves when it is asked for the same."""
    job, retries, limit = (parameters[name] for name in ("job", "retries", "time_limit_hours"))
    return served_deployment(Nightly(job, schedule["cron"], schedule["timezone"], "nightly", retries, limit))


def test_dead_runs_are_failed_after_some_heartbeats_were_missed() -> None:
    automation = read_automation("dead-runs")
    trigger = automation.trigger
    assert isinstance(trigger, EventTrigger) and trigger.posture is Posture.Proactive
    assert trigger.within >= max(timedelta(seconds=540), 3 * timedelta(seconds=HEARTBEAT_SECONDS))
    assert trigger.after == {"prefect.flow-run.heartbeat"} < trigger.expect
    assert [action.type for action in automation.actions] == ["change-flow-run-state"]


def test_a_shift_pauses_the_deployment_that_it_is_of() -> None:
    automation = read_automation("pause-on-shift")
    trigger = automation.trigger
    assert isinstance(trigger, EventTrigger) and trigger.posture is Posture.Reactive
    assert trigger.expect == {SHIFT}
    assert [action.type for action in automation.actions] == ["pause-deployment"]


def read_automation(name: str) -> AutomationCore:
    """The file as `prefect automation create` reads it."""
    return AutomationCore.model_validate(yaml.safe_load((ROOT / "deploy" / "automations" / f"{name}.yaml").read_text()))
