"""What a run leaves on a real Prefect server."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import Command, write_photographs, write_truth
from tests.flows.test_label_command import job_file


def asked(api: str, path: str, **filters: Any) -> list[dict[str, Any]]:
    """The answer to one of the API's filter queries."""
    request = urllib.request.Request(
        f"{api}/{path}/filter", json.dumps(filters).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as response:
        return list(json.load(response))


def test_the_dashboard_tells_a_run_without_a_log(
    densemask: Command, configured: dict[str, str], prefect_server: str, tmp_path: Path
) -> None:
    photographs, truth, output = tmp_path / "photographs", tmp_path / "truth", tmp_path / "out"
    write_photographs(photographs, 6)
    write_truth(photographs, truth)
    job = job_file(tmp_path, photographs, output, shard_size=3)
    ended = densemask("label", "--job", job, "--truth", str(truth), "--json", env=configured)
    assert ended.code == 0, ended.err

    (run,) = asked(prefect_server, "flow_runs", sort="START_TIME_DESC", limit=1)
    assert (run["state"]["name"], run["parameters"]["job"]["output"]) == ("Completed", str(output))
    tasks = asked(prefect_server, "task_runs", task_runs={"flow_run_id": {"any_": [run["id"]]}})
    newest = ended.json["run"]
    assert sorted(task["name"] for task in tasks) == [f"{newest} shard-00000", f"{newest} shard-00001"]
    assert {task["state"]["name"] for task in tasks} == {"Completed"}
    found = asked(prefect_server, "artifacts", artifacts={"flow_run_id": {"any_": [run["id"]]}})
    artifacts = {artifact["key"]: artifact for artifact in found}
    assert {"images", "miou", "report", "overlay-1"} <= set(artifacts)
    assert float(artifacts["images"]["data"]) == 100
    table = json.loads(artifacts["miou"]["data"])
    assert [row["class"] for row in table] == ["background", "person"]
    mean = sum(float(row["iou"]) for row in table) / 2
    assert mean == pytest.approx(ended.json["miou"], abs=1e-4)
    assert f"{ended.json['miou']:.3f}" in artifacts["report"]["data"]
    assert ended.json["report"] in artifacts["report"]["data"]
    assert artifacts["overlay-1"]["data"].startswith("data:image/jpeg;base64,")


def test_a_red_run_is_red_on_the_dashboard_too(
    densemask: Command, configured: dict[str, str], prefect_server: str, tmp_path: Path
) -> None:
    write_photographs(tmp_path / "photographs", 2)
    (tmp_path / "photographs" / "text.jpg").write_text("no image")
    assert densemask("label", str(tmp_path / "photographs"), str(tmp_path / "out"), env=configured).code == 1

    (run,) = asked(prefect_server, "flow_runs", sort="START_TIME_DESC", limit=1)
    assert run["state"]["type"] == "FAILED"
    assert "1 of 3 images failed" in run["state"]["message"]
