"""What deploy/ runs and sets: options and variables that the programs know."""

import json
import re
from typing import Any

import prefect.settings
import pytest
from ray.scripts.scripts import start

from tests.deploy.files import DEPLOY, SECRETS, compose
from tests.deploy.objects import CLUSTER, GROUPS, WORKER

RAY_OPTIONS = {option for parameter in start.params for option in parameter.opts}
RAY_GROUPS = [CLUSTER["spec"]["headGroupSpec"], *GROUPS.values()]


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return dict(compose("compose.yaml", **SECRETS)["services"])


def test_ray_start_knows_every_option(services: dict[str, Any]) -> None:
    lines = [service["command"] for service in services.values() if "command" in service] + [WORKER["args"]]
    lines = [line for line in lines if line[:2] == ["ray", "start"] or line[0] == "densemask-worker"]
    assert len(lines) == 4
    lines += [[f"--{option}" for option in group["rayStartParams"]] for group in RAY_GROUPS]
    lines += [re.findall(r"^ray start (.+) &$", (DEPLOY / "worker.sh").read_text(), re.MULTILINE)[0].split()]
    for line in lines:
        options = {argument.partition("=")[0] for argument in line if argument.startswith("--")}
        assert options and options <= RAY_OPTIONS, line


def test_prefect_knows_every_variable(services: dict[str, Any]) -> None:
    known = set(re.findall(r"PREFECT_[A-Z0-9_]+", json.dumps(prefect.settings.Settings.model_json_schema())))
    text = (DEPLOY / "Dockerfile").read_text() + json.dumps([services, WORKER])
    used = set(re.findall(r"PREFECT_[A-Z0-9_]+", text))
    assert len(used) >= 10
    assert used <= known


def test_flows_and_jobs_lie_where_the_worker_looks(services: dict[str, Any]) -> None:
    (home,) = re.findall(r"DENSEMASK_HOME=(\S+)", (DEPLOY / "Dockerfile").read_text())
    assert services["deployments"]["working_dir"] == home
    assert f"{home}/flows" in (DEPLOY / "Dockerfile").read_text()
    mounted = {volume["target"] for name in ("worker", "deployments") for volume in services[name]["volumes"]}
    assert mounted == {
        "/photographs",
        *(f"{home}/deploy/{name}" for name in ("job.yaml", "prefect.yaml", "automations")),
    }
