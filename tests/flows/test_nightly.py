"""Labelling by schedule: the whole topology as processes, and what acts on its events."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import psutil
import pytest
import yaml
from prefect.logging import disable_run_logger

from flows.label_nightly import Tries
from flows.outcome import Outcome, TooManyFailed
from pipeline.errors import AbsentError, ConfigError, DeniedError, StorageError
from tests.flows.conftest import (
    BIN,
    running_ray_head,
    running_ray_node,
    start,
    write_photographs,
    write_truth,
)
from tests.flows.prefect_api import asked, call
from tests.s3 import S3

AUTOMATIONS = Path(__file__).resolve().parents[2] / "deploy" / "automations"
EVERY_12_SECONDS = "* * * * * */12"  # a sixth field: nobody labels by it, but no test waits for the minute
OUTCOME = Outcome.model_construct()  # what it holds does not matter here
SLEEPER = """
import sys, time
from prefect import flow
@flow
def sleeper():
    print("asleep", flush=True)
    time.sleep(600)
sleeper()
"""


def failing(errors: list[Exception]) -> Callable[[], str]:
    """A step that fails with one error after another, then succeeds."""

    def step() -> str:
        if errors:
            raise errors.pop(0)
        return "done"

    return step


def tries(retries: int, seconds: float = 100) -> Tries:
    return Tries(retries, 0.01, time.monotonic() + seconds, seconds / 3600)


def test_a_failure_that_may_pass_is_tried_again() -> None:
    with disable_run_logger():
        assert tries(2)(failing([StorageError("no answer"), RuntimeError("a cluster went away")])) == "done"
        with pytest.raises(StorageError, match="third"):
            tries(2)(failing([StorageError("first"), StorageError("second"), StorageError("third")]))


@pytest.mark.parametrize(
    "error",
    [ConfigError("wrong"), AbsentError("gone"), DeniedError("no"), TimeoutError(), TooManyFailed("bad", OUTCOME)],
)
def test_a_failure_that_will_not_pass_is_not_tried_again(error: Exception) -> None:
    with disable_run_logger(), pytest.raises(type(error)):
        tries(2)(failing([error]))


def test_nothing_is_tried_again_past_the_time_limit() -> None:
    with disable_run_logger(), pytest.raises(StorageError, match="first"):
        tries(2, 0)(failing([StorageError("first")]))


@pytest.fixture
def automations(environment: dict[str, str], prefect_server: str) -> Iterator[Callable[[Path], None]]:
    """Installs an automation's file by the command that the file names, until the test's end."""
    env = environment | {"PREFECT_API_URL": prefect_server}

    def install(file: Path) -> None:
        command = [str(BIN / "prefect"), "automation", "create", "--from-file", str(file)]
        subprocess.run(command, env=env, check=True, capture_output=True)

    yield install
    for automation in asked(prefect_server, "automations"):
        call(prefect_server, "DELETE", f"/automations/{automation['id']}")


def test_every_night_by_its_schedule_over_the_whole_topology(
    environment: dict[str, str],
    prefect_server: str,
    automations: Callable[[Path], None],
    s3: S3,
    bucket_folder: str,
    tmp_path: Path,
) -> None:
    """Prefect server, Ray head, two Ray workers, object store, `densemask serve`; each a process of its own."""
    store = fsspec.filesystem("s3")
    photographs, name = tmp_path / "photographs", f"nightly-{uuid4().hex[:8]}"
    write_photographs(photographs, 8)
    write_truth(photographs, tmp_path / "truth")
    upload = lambda path, key: store.pipe_file(f"{bucket_folder}/{key}", path.read_bytes())  # noqa: E731
    for number, path in enumerate(sorted(photographs.iterdir())):
        upload(path, f"in/{path.name}" if number < 6 else f"golden/{path.name}")
        upload(tmp_path / "truth" / f"{path.stem}.png", f"truth/{path.stem}.png")
    job = {
        "source": f"{bucket_folder}/in", "output": f"{bucket_folder}/out",
        "golden": {"location": f"{bucket_folder}/golden", "truth": f"{bucket_folder}/truth"},
        "execution": {"shard_size": 3, "refiners": 3}, "trend": {"nights": 3, "at_least": 2, "threshold": 0.5},
    }  # fmt: skip
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    automations(AUTOMATIONS / "pause-on-shift.yaml")
    env = environment | s3.environment() | {"PREFECT_API_URL": prefect_server, "PREFECT_RUNNER_POLL_FREQUENCY": "1"}

    with ExitStack() as running:
        address = running.enter_context(running_ray_head(env, tmp_path / "head.log"))
        workers = [
            running.enter_context(
                running_ray_node(env, tmp_path / f"worker-{number}.log", f"--address={address}", "--num-cpus=1")
            )
            for number in range(2)
        ]
        serve = start(
            "serve", str(tmp_path / "job.yaml"), "--cron", EVERY_12_SECONDS, "--name", name,
            env=env | {"RAY_ADDRESS": address},
        )  # fmt: skip
        running.callback(serve.kill)
        used: set[int] = set()

        def first_night() -> bool:
            used.update(worker.pid for worker in workers if _has_actor(worker.pid))
            return bool(_nights(bucket_folder))

        _until(first_night, serve)
        first = _nights(bucket_folder)[0]
        assert (first["images"], first["new"], first["failed"], first["gone"]) == (6, 6, 0, 0)
        assert first["golden_miou"] > 0 and first["golden_classes"] == 2
        assert used == {worker.pid for worker in workers}

        upload(photographs / "photo-006.jpg", "in/new.jpg")
        upload(photographs / "photo-007.jpg", "in/photo-001.jpg")
        store.rm_file(f"{bucket_folder}/in/photo-002.jpg")
        _until(
            lambda: _deployment(prefect_server, name)["paused"], serve
        )  # by the automation, after a quiet third night
        os.killpg(serve.pid, signal.SIGINT)
        _, err = serve.communicate(timeout=60)

    assert serve.returncode == 0, err
    assert err.splitlines()[-1] == "the schedule is paused; the same command goes on with it"
    nights = _nights(bucket_folder)
    assert [sum(night[kind] for night in nights[1:]) for kind in ("images", "new", "altered", "gone")] == [2, 1, 1, 1]
    assert {night["golden_miou"] for night in nights} == {first["golden_miou"]}
    assert ("images", None) in {(shift["measure"], shift["name"]) for shift in nights[-1]["shifts"]}
    found = sorted((row["image_id"], row["status"]) for row in _bucket_rows(bucket_folder))
    twice = [*(f"photo-{number:03d}.jpg" for number in range(6)), "photo-001.jpg", "new.jpg"]
    assert found == sorted((image, "ok") for image in twice)
    runs = asked(prefect_server, "flow_runs", deployments={"name": {"any_": [name]}})
    ended = [run for run in runs if run["state"]["type"] == "COMPLETED"]
    assert len(ended) == len(nights) and all(run["auto_scheduled"] for run in ended)
    assert s3.environment()["AWS_SECRET_ACCESS_KEY"] not in json.dumps(runs)
    notes = asked(prefect_server, "artifacts", artifacts={"flow_run_id": {"any_": [run["id"] for run in ended]}})
    assert sum("images: 0, usually" in note["data"] for note in notes) >= 1


def test_a_night_past_its_time_limit_is_red_and_has_its_record(
    environment: dict[str, str], prefect_server: str, photographs: Path, tmp_path: Path
) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(json.dumps({"source": str(photographs), "output": str(tmp_path / "out")}))
    name = f"late-{uuid4()}"
    night_of = f"label_nightly.with_options(flow_run_name={name!r})({str(job)!r}, time_limit_hours=0)"
    script = f"from flows.label_nightly import label_nightly; {night_of}"
    env = environment | {"PREFECT_API_URL": prefect_server}
    ended = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=120)

    assert ended.returncode == 1
    (record,) = (tmp_path / "out").glob("nights/*/night.json")
    night = json.loads(record.read_text())
    assert (night["images"], night["new"], night["reports"]) == (0, 24, [])
    assert "over its time limit of 0 h; what is committed stays" in night["error"]
    (run,) = asked(prefect_server, "flow_runs", flow_runs={"name": {"any_": [name]}})
    assert run["state"]["type"] == "FAILED" and night["error"] in run["state"]["message"]


def test_a_dead_run_is_failed_by_the_automation(
    environment: dict[str, str], prefect_server: str, automations: Callable[[Path], None], tmp_path: Path
) -> None:
    automation = yaml.safe_load((AUTOMATIONS / "dead-runs.yaml").read_text())
    assert automation["trigger"]["within"] >= 540
    automations(AUTOMATIONS / "dead-runs.yaml")
    automation["trigger"]["within"] = 10  # what a trigger waits at least; the run dies before its second heartbeat
    (tmp_path / "soon.yaml").write_text(yaml.safe_dump(automation))
    automations(tmp_path / "soon.yaml")
    env = environment | {"PREFECT_API_URL": prefect_server, "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
    process = subprocess.Popen([sys.executable, "-c", SLEEPER], env=env, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"asleep\n"

    def run() -> dict[str, Any]:
        (found,) = asked(prefect_server, "flow_runs", flows={"name": {"any_": ["sleeper"]}})
        return found

    def heard() -> bool:
        beat = {
            "filter": {
                "event": {"name": ["prefect.flow-run.heartbeat"]},
                "resource": {"id": [f"prefect.flow-run.{run()['id']}"]},
            }
        }
        return bool(call(prefect_server, "POST", "/events/filter", beat)["events"])

    _until(heard)
    process.kill()
    process.wait()
    assert run()["state"]["type"] == "RUNNING"
    _until(lambda: run()["state"]["type"] == "CRASHED")
    assert "taken for dead" in run()["state"]["message"]


def _nights(folder: str) -> list[dict[str, Any]]:
    store = fsspec.filesystem("s3")
    store.invalidate_cache()
    return [json.loads(store.cat_file(path)) for path in sorted(store.glob(f"{folder}/out/nights/*/night.json"))]


def _bucket_rows(folder: str) -> list[dict[str, Any]]:
    import pyarrow.dataset as ds

    store = fsspec.filesystem("s3")
    return list(ds.dataset(f"{folder}/out/masks".removeprefix("s3://"), filesystem=store).to_table().to_pylist())


def _has_actor(pid: int) -> bool:
    """Whether one of our workers runs below the Ray node."""
    try:
        names = [child.name() for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return False
    return any(name.startswith(("ray::Refiner", "ray::FrontEnd")) for name in names)


def _deployment(api: str, name: str) -> dict[str, Any]:
    (found,) = asked(api, "deployments", deployments={"name": {"any_": [name]}})
    return found


def _until(condition: Callable[[], bool], process: "subprocess.Popen[str] | None" = None, seconds: float = 150) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline or (process is not None and process.poll() is not None):
            if process is not None:
                process.kill()
            pytest.fail(f"it did not come to pass: {process.communicate() if process else ''}")
        time.sleep(0.2)
