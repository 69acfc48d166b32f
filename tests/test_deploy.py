"""The files in deploy/ are what the code takes."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint

from pipeline.config import Execution, LabelJob, Recipe, load_job

ROOT = Path(__file__).resolve().parents[1]
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((ROOT / "deploy" / "prefect.yaml").read_text())["deployments"]


def test_the_job_file_shows_the_defaults() -> None:
    job = load_job(str(ROOT / "deploy" / "job.yaml"), {})
    plain = LabelJob.model_validate({"source": "s3://photographs/incoming", "output": "s3://labels/nightly"})
    assert job == plain
    assert (job.recipe, job.execution) == (Recipe(), Execution())


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: str(deployment["name"]))
def test_prefect_can_load_the_flows_by_their_files(deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    flow = load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False)
    assert flow.name == deployment["entrypoint"].split(":")[1].replace("_", "-")
    assert flow.parameters.properties
