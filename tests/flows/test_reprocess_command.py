"""An archive from one recipe to the next by the real commands, through a kill, a nightly run and the gate, and back."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest

from flows.waves import START_SECONDS, Other, go_first
from tests.flows.conftest import Command, start, write_photographs, write_truth
from tests.flows.prefect_api import asked, call, newest, under_way
from tests.flows.test_label_command import job_file

SERVE = "from flows.reprocess_wave import reprocess_wave; reprocess_wave.serve(name='reprocess-wave')"


def rows(output: Path, recipe: str) -> list[dict[str, Any]]:
    """The rows of one recipe."""
    table = ds.dataset(f"{output}/masks/recipe={recipe}", partitioning="hive").to_table()
    return sorted(table.to_pylist(), key=lambda row: row["image_id"])


@pytest.fixture
def served(configured: dict[str, str]) -> Iterator[None]:
    """The deployment of a wave, with a process that runs it."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE],
        env=configured, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        named = {"name": {"any_": ["reprocess-wave"]}}
        while not (found := asked(configured["PREFECT_API_URL"], "deployments", deployments=named)):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.3)
        yield
        call(configured["PREFECT_API_URL"], "DELETE", f"/deployments/{found[0]['id']}")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_an_archive_goes_from_one_recipe_to_the_next_and_back(
    densemask: Command, configured: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    photographs, truth, output, new = (tmp_path / name for name in ("photographs", "truth", "out", "new.yaml"))
    write_photographs(photographs, 15)
    write_truth(photographs, truth)
    job = job_file(tmp_path, photographs, output, shard_size=3, keep_scores=True)
    labelled = densemask("label", "--job", job, "--truth", str(truth), "--json", env=configured)
    assert labelled.code == 0, labelled.err
    old = labelled.json["recipe"]
    recipe = {"recipe": {"back_end": "argmax"}, "execution": {"shard_size": 3}, "gate": {"max_churn": 0}}
    new.write_text(json.dumps(recipe | {"wave_shards": 1}))
    command = ("reprocess", str(output), "--recipe", str(new), "--json")

    survived = _killed_after_a_nightly_run_went_first(densemask, configured, command, output, old, tmp_path)
    request.getfixturevalue("served")
    new.write_text(json.dumps(recipe | {"wave_shards": 5}))
    refused = densemask(*command, env=configured)

    assert refused.code == 1, refused.err
    argmax = refused.json["recipe"]
    assert all(path.read_bytes() == content for path, content in survived.items())
    assert refused.json["images"] == 15 - 3 * len(survived)
    assert "did not pass the gate: " in refused.err and "more than max_churn = 0.0%" in refused.json["error"]
    assert json.loads((output / "current.json").read_text()) == {"recipe": old}
    before, after = rows(output, old), rows(output, argmax)
    assert [row["image_id"] for row in after] == [row["image_id"] for row in before]
    assert [row["front"] for row in after] == [row["front"] for row in before]
    assert {row["changed"] for row in after} == {0.0}
    assert "scores are kept and still right" in refused.err
    assert refused.json["old_miou"] == pytest.approx(labelled.json["miou"])
    assert Path(refused.json["comparison"]).read_text().count("data:image/jpeg;base64,") >= 2
    _the_dashboard_shows_waves_and_comparison(configured["PREFECT_API_URL"], argmax, len(survived))

    _the_gate_passes_once_it_may_and_there_is_a_way_back(densemask, configured, command, output, new, recipe)
    _what_is_superseded_is_deleted_when_told_so(densemask, configured, output, old, argmax)


def _killed_after_a_nightly_run_went_first(
    densemask: Command, configured: dict[str, str], command: tuple[str, ...], output: Path, old: str, tmp_path: Path
) -> dict[Path, bytes]:
    """The new shards that were committed when the command was killed, at the beginning of its second wave."""
    process = start(*command, env=configured)
    _until_it_says(process, "wave 1 of 5")
    with under_way(configured["PREFECT_API_URL"], "label-dataset", "tonight"):
        _until_it_says(process, "labelling tonight goes first")
        committed = set(output.glob("masks/*/*/*.parquet"))
        write_photographs(tmp_path / "tonight", 2)
        nightly = densemask("label", str(tmp_path / "tonight"), str(tmp_path / "tonight-out"), env=configured)
        assert nightly.code == 0, nightly.err
        assert set(output.glob("masks/*/*/*.parquet")) == committed
    _until_it_says(process, "wave 2 of 5")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    survived = {path: path.read_bytes() for path in output.glob("masks/*/*/*.parquet") if old not in str(path)}
    assert 1 <= len(survived) < 5
    return survived


def _the_dashboard_shows_waves_and_comparison(api: str, argmax: str, survived: int) -> None:
    flow_run = newest(api, "reprocess-archive")
    assert flow_run["state"]["type"] == "FAILED" and "did not pass the gate" in flow_run["state"]["message"]
    waves = asked(api, "flow_runs", flows={"name": {"any_": ["reprocess-wave"]}}, sort="START_TIME_DESC")
    assert waves[0]["deployment_id"] is not None and waves[0]["idempotency_key"].startswith(f"{argmax}/")
    assert [wave["deployment_id"] for wave in waves[1:]] == [None] * (len(waves) - 1)
    assert len(waves) - 1 >= survived
    found = asked(api, "artifacts", artifacts={"flow_run_id": {"any_": [flow_run["id"]]}})
    assert {"churn", "comparison", "changed-1", "report"} <= {artifact["key"] for artifact in found}


def _the_gate_passes_once_it_may_and_there_is_a_way_back(
    densemask: Command,
    configured: dict[str, str],
    command: tuple[str, ...],
    output: Path,
    new: Path,
    recipe: dict[str, Any],
) -> None:
    """All of it without a cluster or a server, for no image is labelled."""
    unreachable = configured | {"RAY_ADDRESS": "127.0.0.1:1", "PREFECT_API_URL": "http://127.0.0.1:1/api"}
    new.write_text(json.dumps(recipe | {"gate": {"max_churn": 1, "max_miou_drop": 1}}))
    passed = densemask(*command, env=unreachable)
    assert passed.code == 0, passed.err
    assert (passed.json["promoted"], passed.json["images"]) == (True, 0)
    argmax, old = passed.json["recipe"], passed.json["origin"]
    assert json.loads((output / "current.json").read_text()) == {"recipe": argmax, "earlier": [old]}
    again = densemask(*command, env=unreachable)
    assert again.code == 0 and again.json["promoted"], again.err

    back = densemask("promote", str(output), "--back", "--json", env=unreachable)
    assert back.json == {"before": argmax, "recipe": old}
    nothing = densemask("promote", str(output), "--back", env=unreachable)
    assert nothing.code == 2 and "no recipe was current" in nothing.err
    by_hand = densemask("promote", str(output), "--recipe", argmax, env=unreachable)
    assert by_hand.code == 0 and f"recipe {argmax} is the current one now; before it was {old}" in by_hand.err


def _what_is_superseded_is_deleted_when_told_so(
    densemask: Command, configured: dict[str, str], output: Path, old: str, argmax: str
) -> None:
    files = sorted(path for path in output.rglob("*") if path.is_file())
    kept = densemask("prune", str(output), env=configured)
    assert kept.code == 0 and "nothing to prune" in kept.err  # the way back stays
    shown = densemask("prune", str(output), "--keep", "0", "--json", env=configured)
    assert (shown.json["deleted"], [one["recipe"] for one in shown.json["recipes"]]) == (False, [old])
    assert shown.json["recipes"][0]["images"] == 15
    unanswered = densemask("prune", str(output), "--keep", "0", "--delete", env=configured)
    assert unanswered.code == 2 and "nobody answered" in unanswered.err
    refused = densemask("prune", str(output), argmax, "--delete", "--yes", env=configured)
    assert refused.code == 2 and "is the current one" in refused.err
    assert sorted(path for path in output.rglob("*") if path.is_file()) == files

    deleted = densemask("prune", str(output), "--keep", "0", "--delete", "--yes", "--json", env=configured)
    assert deleted.code == 0 and deleted.json["deleted"], deleted.err
    left = sorted(path for path in output.rglob("*") if path.is_file())
    assert left == [path for path in files if f"recipe={old}" not in str(path) and path.name != f"{old}.json"]
    assert len(rows(output, argmax)) == 15


def test_a_labelling_that_does_not_start_misses_its_turn() -> None:
    waiting, running = Other("a", started=False), Other("b", started=True)
    assert go_first([waiting, running], 0) == [waiting, running]
    assert go_first([waiting, running], START_SECONDS + 1) == [running]
    assert go_first([], 0) == []


def _until_it_says(process: "subprocess.Popen[str]", words: str) -> None:
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        if words in line:
            return
        said.append(line)
    pytest.fail(f"it ended without {words!r}: {''.join(said)}")
