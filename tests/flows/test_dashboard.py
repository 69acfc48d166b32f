"""What a run leaves on a real Prefect server, and what a real browser shows of it.

With DENSEMASK_SCREENSHOTS=FOLDER in the environment the pages are kept there as pictures.
"""

import json
import logging
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest

from tests.conftest import SECRET
from tests.flows.conftest import Command, start, write_photographs, write_truth
from tests.flows.prefect_api import asked, newest


def show(browser: Any, url: str, expected: list[str], name: str, tab: str = "") -> None:
    """Opens a page of the dashboard, and a tab of it, and waits until its text holds all that is expected."""
    browser.get(url)
    deadline, text = time.monotonic() + 60, ""
    while missing := [each for each in expected if each not in text]:
        assert time.monotonic() < deadline, f"{url} does not show {missing}, but: {text}"
        time.sleep(0.2)
        browser.execute_script("document.getElementById(arguments[0])?.click()", tab)
        text = browser.execute_script("return document.body.innerText")
    if folder := os.environ.get("DENSEMASK_SCREENSHOTS"):
        time.sleep(2)  # what moves comes to rest
        browser.save_screenshot(str(Path(folder) / f"{name}.png"))


class Shown(NamedTuple):
    """A run that has ended well: what the command printed, and the flow run and its artifacts on the server."""

    outcome: dict[str, Any]
    run: dict[str, Any]
    artifacts: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def measured(configured: dict[str, str], prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """Six photographs with truth and prices, in two shards."""
    folder = tmp_path_factory.mktemp("measured")
    write_photographs(folder / "photographs", 6)
    write_truth(folder / "photographs", folder / "truth")
    source = {"location": str(folder / "photographs"), "truth": str(folder / "truth")}
    prices = {"core_hour": 0.04, "gpu_hour": 2.5, "currency": "EUR"}
    job = {"source": source, "output": str(folder / "out"), "execution": {"shard_size": 3}, "prices": prices}
    (folder / "job.yaml").write_text(json.dumps(job))
    with start("label", "--job", str(folder / "job.yaml"), "--json", env=configured) as process:
        out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    run = newest(prefect_server, "label-dataset")
    found = asked(prefect_server, "artifacts", artifacts={"flow_run_id": {"any_": [run["id"]]}})
    return Shown(json.loads(out), run, {artifact["key"]: artifact for artifact in found})


def test_the_server_knows_a_run_without_a_log(measured: Shown, prefect_server: str) -> None:
    outcome, run, artifacts = measured
    assert run["state"]["name"] == "Completed"
    assert outcome["report"].startswith(run["parameters"]["job"]["output"])
    tasks = asked(prefect_server, "task_runs", task_runs={"flow_run_id": {"any_": [run["id"]]}})
    labelled = outcome["run"]
    assert sorted(task["name"] for task in tasks) == [f"{labelled} shard-00000", f"{labelled} shard-00001"]
    assert {task["state"]["name"] for task in tasks} == {"Completed"}
    assert {"images", "miou", "report", "report-page", "overlay-1"} <= set(artifacts)
    assert float(artifacts["images"]["data"]) == 100
    assert artifacts["images"]["description"].startswith("6/6 images done; 0 failed; 2/2 shards; ")
    table = json.loads(artifacts["miou"]["data"])
    assert [row["class"] for row in table] == ["background", "person"]
    mean = sum(float(row["iou"]) for row in table) / 2
    assert mean == pytest.approx(outcome["miou"], abs=1e-4)
    assert f"{outcome['miou']:.3f}" in artifacts["report"]["data"]
    assert f"a million images cost {outcome['cost']['million']:,.2f} EUR" in artifacts["report"]["data"]
    assert f"[{outcome['report']}]({Path(outcome['report']).as_uri()})" == artifacts["report-page"]["data"]
    assert artifacts["overlay-1"]["data"].startswith("data:image/jpeg;base64,")


def test_a_browser_shows_a_run_without_a_log(measured: Shown, prefect_server: str, browser: Any) -> None:
    outcome, run, artifacts = measured
    site = prefect_server.removesuffix("/api")
    shards = [f"{outcome['run']} shard-0000{number}" for number in (0, 1)]
    browser.set_window_size(1400, 1100)
    flow_run = f"{site}/runs/flow-run/{run['id']}"
    lines = ["event=run.started", "event=shard.committed", "event=run.ended"]
    show(browser, flow_run, [run["name"], "Completed", "2 Task runs", *lines], "flow-run", "logs")
    show(browser, flow_run, shards, "task-runs", "task-runs")
    show(browser, flow_run, ["images", "miou", "report", "report-page", "overlay-1"], "artifacts", "artifacts")

    def page(key: str, expected: list[str]) -> None:
        show(browser, f"{site}/artifacts/artifact/{artifacts[key]['id']}", expected, f"artifact-{key}")

    page("images", ["6/6 images done; 0 failed; 2/2 shards"])
    page("miou", ["background", "person"])
    page("report", [f"Run {outcome['run']}", f"{outcome['miou']:.3f}", "core-seconds", "a million images cost"])
    page("report-page", [outcome["report"]])
    page("overlay-1", ["Best mIoU"])
    assert browser.execute_script("return [...document.images].some(image => image.naturalWidth >= 100)")


def test_a_red_run_says_why_and_gives_no_secret_away(
    densemask: Command, configured: dict[str, str], prefect_server: str, leaky_site: str, tmp_path: Path
) -> None:
    write_photographs(tmp_path / "photographs", 2)
    (tmp_path / "photographs" / "text.jpg").write_text("no image")
    places = [*map(str, sorted((tmp_path / "photographs").iterdir())), f"{leaky_site}/picture.jpg"]
    (tmp_path / "list.txt").write_text("\n".join(places))
    ended = densemask("label", str(tmp_path / "list.txt"), str(tmp_path / "out"), "--json", env=configured)
    assert ended.code == 1

    run = newest(prefect_server, "label-dataset")
    assert run["state"]["type"] == "FAILED"
    assert "2 of 4 images failed" in run["state"]["message"]
    logs = asked(prefect_server, "logs", logs={"flow_run_id": {"any_": [run["id"]]}}, limit=200, sort="TIMESTAMP_ASC")
    lines = {log["message"]: log["level"] for log in logs}
    where = f"run={ended.json['run']} shard=0"
    text = f"event=image.unreadable {where} image={places[2]} reason=\"not an image: it starts with b'no image'\""
    assert lines[text] == logging.WARNING
    (denied,) = (line for line in lines if f"event=image.unreadable {where} image={leaky_site}/picture.jpg" in line)
    assert "no permission (status 403" in denied
    assert any(line.startswith(f"event=shard.committed {where} images=4 failed=2 seconds=") for line in lines)

    about = {"flow_run_id": {"any_": [run["id"]]}}
    told = [run, logs, asked(prefect_server, "artifacts", artifacts=about), ended]
    told += [asked(prefect_server, "task_runs", task_runs=about)]
    assert SECRET not in str(told)
    kept = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    tables = [pq.read_table(path).to_pylist() for path in kept if path.suffix == ".parquet"]
    assert "status 403" in str(tables)
    assert SECRET not in str(tables)
    ray_logs = Path("/tmp").glob(f"ray-{os.getpid()}-*/**/*.*")
    workers = [path for path in ray_logs if path.suffix in (".out", ".err", ".log")]
    assert workers
    assert not [path for path in [*kept, *workers] if SECRET.encode() in path.read_bytes()]
