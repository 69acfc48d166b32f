"""A Prometheus on a running job: every expression of the dashboard and of the alerts, as it is in deploy/."""

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.flows.conftest import free_port, running_ray_head, start, until_it_answers, write_photographs
from tests.flows.test_label_command import job_file
from tests.monitoring import CONFIG, alert_expressions, binary, filled, names, panel_expressions

# What a run on processors, whose commits succeed, has nothing to say of.
SILENT = {"ray_densemask_gpu_busy_seconds_total", "ray_densemask_commit_retries_total"}
Query = Callable[[str], list[dict[str, Any]]]


@pytest.fixture
def metrics_port() -> int:
    """Where this test's Ray exports its metrics."""
    return free_port()


@pytest.fixture
def of_its_own(configured: dict[str, str], metrics_port: int, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A shell with a cluster that no other test's run has counted on."""
    with running_ray_head(configured, tmp_path / "ray.log", f"--metrics-export-port={metrics_port}") as address:
        yield configured | {"RAY_ADDRESS": address}


@pytest.fixture
def query(metrics_port: int, tmp_path: Path) -> Iterator[Query]:
    """Asks a Prometheus that runs with deploy/'s configuration; only the intervals and the place of the list of Ray's
    nodes are other ones."""
    folder = tmp_path / "prometheus"
    shutil.copytree(CONFIG.parent, folder)
    nodes = [{"labels": {"job": "ray"}, "targets": [f"127.0.0.1:{metrics_port}"]}]  # as Ray writes it
    (folder / "nodes.json").write_text(json.dumps(nodes))
    config = yaml.safe_load(CONFIG.read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (scrape,) = config["scrape_configs"]
    scrape["file_sd_configs"] = [{"files": [str(folder / "nodes.json")]}]
    del scrape["dns_sd_configs"]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        binary("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        until_it_answers(f"http://127.0.0.1:{port}/-/ready", process, folder / "log")
        yield lambda path: _answer(f"http://127.0.0.1:{port}/api/v1/{path}")
    finally:
        process.terminate()
        process.wait(20)


def _answer(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=20) as response:  # an expression that is wrong is answered by 400
        answer = json.load(response)
    assert answer["status"] == "success", answer
    return answer["data"]


def test_the_dashboard_has_data_of_a_running_job(of_its_own: dict[str, str], query: Query, tmp_path: Path) -> None:
    write_photographs(tmp_path / "photographs", 50)
    for photograph in sorted((tmp_path / "photographs").iterdir()):
        for copy in range(1, 20):
            shutil.copy(photograph, photograph.with_stem(f"{photograph.stem}-{copy}"))
    (tmp_path / "photographs" / "a-text.jpg").write_text("no image")
    job = job_file(tmp_path, tmp_path / "photographs", tmp_path / "out", shard_size=50)
    expressions = {**panel_expressions(), **alert_expressions()}
    expected = {name for name, text in panel_expressions().items() if not names(text) & SILENT}
    with start("label", "--job", job, env=of_its_own) as process:
        try:
            _kill_a_refiner(process)
            found: dict[str, list[float]] = {}  # the last that there was of each: a slow scrape leaves gaps
            deadline = time.monotonic() + 150
            while missing := expected - found.keys():
                assert process.poll() is None, f"the job ended, without {missing}"
                assert time.monotonic() < deadline, missing
                time.sleep(1)
                now = {name: _value(query, text) for name, text in expressions.items()}
                found |= {name: values for name, values in now.items() if values}
            (rules,) = [group["rules"] for group in query("rules")["groups"] if group["name"] == "densemask"]
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)

    assert 0 < found["Done A"][0] <= 1
    assert found["Failed A"] == [1]
    assert found["Worker deaths A"] == [1]
    assert sum(found["Workers A"]) >= 2
    assert not set(now["DensemaskStalled"] + now["DensemaskNoWorkers"] + now["DensemaskShardFailed"])
    assert {rule["health"] for rule in rules} == {"ok"}


def _value(query: Query, expression: str) -> list[float]:
    """The values of an expression's series now, without those that are no number."""
    asked = urllib.parse.urlencode({"query": filled(expression, "10s").replace("[5m]", "[10s]")})
    values = [float(series["value"][1]) for series in query(f"query?{asked}")["result"]]
    return [value for value in values if value == value]


def _kill_a_refiner(process: "subprocess.Popen[str]") -> None:
    """The first that works, of the cluster that this process has started."""
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None
        assert time.monotonic() < deadline, "no refiner"
        for each in psutil.process_iter():
            try:
                if each.cmdline()[:1] == ["ray::RefinerWorker.refine"] and _is_ours(each):
                    each.kill()
                    return
            except psutil.Error:
                continue
        time.sleep(0.02)


def _is_ours(worker: psutil.Process) -> bool:
    return any(f"/tmp/ray-{os.getpid()}" in " ".join(above.cmdline()) for above in worker.parents())
