"""deploy/prefect.yaml on a real server."""

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.deploy.files import DEPLOY, ROOT
from tests.flows.conftest import BIN
from tests.flows.prefect_api import asked, call

POOL = "densemask"


@pytest.fixture
def deployed(prefect_server: str, environment: dict[str, str]) -> Iterator[dict[str, dict[str, Any]]]:
    """What the server has of each deployment; gone afterwards, with the runs that schedules have planned."""
    env = environment | {"PREFECT_API_URL": prefect_server}
    file = str(DEPLOY / "prefect.yaml")
    for arguments in (
        ["work-pool", "create", POOL, "--type", "process", "--overwrite"],
        ["--no-prompt", "deploy", "--all", "--prefect-file", file],
    ):
        command = [str(BIN / "prefect"), *arguments]
        ended = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=150)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    there = {each["name"]: each for each in asked(prefect_server, "deployments") if each["work_pool_name"] == POOL}
    yield there
    for each in there.values():
        call(prefect_server, "DELETE", f"/deployments/{each['id']}")
    call(prefect_server, "DELETE", f"/work_pools/{POOL}")


def test_prefect_takes_the_deployments(deployed: dict[str, dict[str, Any]]) -> None:
    written: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "prefect.yaml").read_text())["deployments"]
    assert set(deployed) == {each["name"] for each in written}
    for each in written:
        made = deployed[each["name"]]
        assert made["entrypoint"] == each["entrypoint"]
        assert made["parameter_openapi_schema"]["properties"]
        # The folder is the worker's, whatever machine the deployments were made on.
        assert made["pull_steps"] == [
            {"prefect.deployments.steps.set_working_directory": {"directory": "{{ $DENSEMASK_HOME }}"}}
        ]
        assert [schedule["schedule"]["cron"] for schedule in made["schedules"]] == [
            schedule["cron"] for schedule in each.get("schedules", [])
        ]
