"""``densemask serve``: what it refuses, and what it brings where no server is named."""

import json
import urllib.request
from pathlib import Path

import psutil
import pytest

from flows.serving import Nightly, check
from pipeline.errors import DensemaskError
from tests.flows.conftest import free_port, start
from tests.flows.prefect_api import asked


@pytest.mark.parametrize(
    ("asked_for", "message"),
    [
        ({"job": "none.yaml"}, "none.yaml: it does not exist"),
        ({"job": "broken.yaml"}, "at_least = 4 is above nights = 3, so there would be no shifts"),
        ({"job": "weights.yaml"}, "cannot read .*none.safetensors: it does not exist"),
        ({"job": "s3://key:secret@bucket/job.yaml"}, "^s3://bucket/job.yaml was given with a secret"),
        ({"cron": "0 2 * *"}, "cron '0 2 . .' is no schedule; five fields are needed"),
        ({"cron": "0 0 31 2 *"}, "cron '0 0 31 2 .' is no schedule"),
        ({"timezone": "Europe/Berln"}, "timezone 'Europe/Berln' is unknown"),
        ({"name": "a/b"}, "name 'a/b': a deployment's name"),
    ],
)
def test_what_cannot_be_served_is_said_before_anything_starts(
    asked_for: dict[str, str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = {"source": "photographs", "output": "out"}
    jobs = {
        "job": content,
        "broken": content | {"trend": {"nights": 3, "at_least": 4}},
        "weights": content | {"recipe": {"front_end": {"name": "fcn8s", "weights": "none.safetensors"}}},
    }
    for name, job in jobs.items():
        (tmp_path / f"{name}.yaml").write_text(json.dumps(job))
    nightly = Nightly("job.yaml", "0 2 * * *", "Europe/Berlin", "nightly", 2, 8.0)
    assert check(nightly).job == str(tmp_path / "job.yaml")
    with pytest.raises(DensemaskError, match=message):
        check(nightly._replace(**asked_for))


def test_on_a_laptop_it_brings_a_server_with_a_dashboard_and_leaves_nothing(
    environment: dict[str, str], photographs: Path, tmp_path: Path
) -> None:
    job, port = tmp_path / "job.yaml", free_port()
    job.write_text(json.dumps({"source": str(photographs), "output": str(tmp_path / "out")}))
    env = environment | {"PREFECT_SERVER_API_PORT": str(port), "PREFECT_HOME": str(tmp_path / "prefect")}
    process = start("serve", str(job), "--timezone", "Europe/Berlin", env=env)
    try:
        assert process.stderr is not None
        lines = [process.stderr.readline().strip() for _ in range(4)]
        assert lines[1].startswith("label-nightly/nightly: 0 2 * * * Europe/Berlin, next at ")
        assert lines[2].startswith(f"dashboard: http://127.0.0.1:{port}/deployments/deployment/")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as page:
            assert b"<title>Prefect" in page.read()
        (made,) = asked(f"http://127.0.0.1:{port}/api", "deployments")
        assert made["parameters"] == {"job": str(job), "retries": 2, "time_limit_hours": 8.0}
        assert made["schedules"][0]["schedule"] == {"cron": "0 2 * * *", "timezone": "Europe/Berlin", "day_or": True}
        assert made["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
        assert made["global_concurrency_limit"]["limit"] == 1 and not made["paused"]
        family = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.kill()
        process.communicate()
    _, alive = psutil.wait_procs(family, timeout=30)
    assert [child.cmdline() for child in alive] == []
