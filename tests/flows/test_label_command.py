import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from PIL import Image

from flows import janitor
from pipeline import job_files, label, plan, prepare
from pipeline.config import LabelJob
from pipeline.weights import open_front_end
from tests.flows.conftest import Command, start, write_photographs, write_truth
from tests.s3 import S3

FIELDS = {
    "recipe", "run", "images", "ok", "failed", "shards", "seconds", "images_per_s", "steady_images_per_s", "miou",
    "classes", "report", "cost",
}  # fmt: skip


def rows(output: Path | str) -> list[dict[str, Any]]:
    """Every row of the output, by what any reader of Parquet would do."""
    return ds.dataset(f"{output}/masks", partitioning="hive").to_table().to_pylist()


def job_file(folder: Path, source: Path | str, output: Path | str, **execution: Any) -> str:
    path = folder / "job.yaml"
    path.write_text(json.dumps({"source": str(source), "output": str(output), "execution": execution}))
    return str(path)


def test_a_folder_becomes_masks_plan_recipe_and_report(
    densemask: Command, configured: dict[str, str], photographs: Path, tmp_path: Path
) -> None:
    truth, output = tmp_path / "truth", tmp_path / "out"
    write_truth(photographs, truth)
    job = job_file(tmp_path, photographs, output, shard_size=10)

    ended = densemask("label", "--job", job, "--truth", str(truth), "--json", env=configured)

    assert ended.code == 0, ended.err
    outcome = ended.json
    assert set(outcome) == FIELDS
    assert (outcome["images"], outcome["ok"], outcome["failed"], outcome["shards"]) == (24, 24, 0, 3)
    assert outcome["classes"] == 2
    assert 0 < outcome["miou"] <= 1
    place = f"recipe={outcome['recipe']}/run={outcome['run']}"
    found = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    assert found == {
        *(f"masks/{place}/shard-{number:05d}.parquet" for number in range(3)),
        f"plans/{place}.parquet",
        f"plans/recipe={outcome['recipe']}/000001.claim",
        f"recipes/{outcome['recipe']}.json",
        *(f"reports/{place}/{name}" for name in ("per_class.parquet", "per_image.parquet", "summary.parquet")),
        f"reports/{place}/report.html",
        "current.json",
    }
    assert json.loads((output / "current.json").read_text()) == {"recipe": outcome["recipe"]}
    assert "24 images in 3 shards" in ended.err
    summary = pq.read_table(output / f"reports/{place}/summary.parquet").to_pylist()[0]
    assert summary["miou"] == pytest.approx(outcome["miou"])
    _same_as_in_one_process(job, truth, output)
    _doubts_are_a_review_queue(densemask, configured, output)
    _again_there_is_nothing_to_do(densemask, configured, job, truth, output)
    _only_what_is_new_is_labelled(densemask, configured, job, truth, output, photographs)


def _same_as_in_one_process(job: str, truth: Path, output: Path) -> None:
    """The rows that came through both pools are those of the plain functions."""
    loaded = job_files.load(LabelJob, job, {"source": {"truth": str(truth)}})
    prepared = prepare.resume(loaded)
    front_end = open_front_end(loaded.recipe.front_end.name, prepared.weights.data)
    assert prepared.newest is not None
    refs = plan.read_shard(loaded.output, prepared.recipe.fingerprint, prepared.newest, 2)
    expected = label.label_shard(refs, 2, front_end, loaded.recipe, loaded.evaluation)
    found = {row["image_id"]: row for row in rows(output) if row["shard"] == 2}
    assert len(expected) == len(found) == 4
    for row in expected:
        other = found[row["image_id"]]
        assert row["mask"] == other["mask"]
        for name in ("status", "height", "width", "changed", "confidence", "entropy"):
            assert other[name] == pytest.approx(row[name], abs=1e-6)
        for name in ("refined", "front", "boundary"):
            assert {key: list(value) for key, value in row[name].items()} == other[name]


def _doubts_are_a_review_queue(densemask: Command, configured: dict[str, str], output: Path) -> None:
    """The network is sure of the cats, every third photograph, and of nothing else."""
    doubts = ("--where", "confidence < 0.85", "--to", str(output.parent / "review"))
    ended = densemask("export", str(output), "--format", "label-studio", *doubts, env=configured)
    assert ended.code == 0, ended.err
    tasks = json.loads((output.parent / "review/tasks.json").read_text())
    assert {task["data"]["image_id"] for task in tasks} == {f"photo-{n:03d}.jpg" for n in range(24) if n % 3 != 1}
    scores = [task["predictions"][0]["score"] for task in tasks]
    assert scores == sorted(scores)


def _again_there_is_nothing_to_do(
    densemask: Command, configured: dict[str, str], job: str, truth: Path, output: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()}
    unreachable = configured | {"RAY_ADDRESS": "127.0.0.1:1", "PREFECT_API_URL": "http://127.0.0.1:1/api"}
    ended = densemask("label", "--job", job, "--truth", str(truth), "--json", env=unreachable)
    assert ended.code == 0, ended.err
    assert ended.json["images"] == 0
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()} == before


def _only_what_is_new_is_labelled(
    densemask: Command, configured: dict[str, str], job: str, truth: Path, output: Path, photographs: Path
) -> None:
    new = photographs / "new.jpg"
    shutil.copy(photographs / "photo-000.jpg", new)
    try:
        ended = densemask("label", "--job", job, "--truth", str(truth), "--json", env=configured)
    finally:
        new.unlink()
    assert ended.code == 0, ended.err
    assert ended.json["images"] == 1
    assert sorted(row["image_id"] for row in rows(output))[:2] == ["new.jpg", "photo-000.jpg"]
    assert len(rows(output)) == 25


def test_bad_images_are_rows_and_too_many_of_them_end_the_run_red(
    densemask: Command, configured: dict[str, str], tmp_path: Path
) -> None:
    folder, output = tmp_path / "photographs", tmp_path / "out"
    write_photographs(folder, 6)
    whole = (folder / "photo-000.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("I am not a photograph")
    Image.new("1", (20_000, 20_000)).save(folder / "huge.png")
    upright = Image.open(folder / "photo-001.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.jpg", exif=exif)

    ended = densemask("label", str(folder), str(output), "--json", env=configured)

    assert ended.code == 1
    assert ended.json["failed"] == 4
    assert ended.json["ok"] == 7
    assert "4 of 11 images failed (36.4%), more than max_failure_rate = 5.0%" in ended.json["error"]
    assert ended.err.splitlines()[-1].startswith("densemask: 4 of 11 images failed")
    assert "Traceback" not in ended.err
    found = {row["image_id"]: row for row in rows(output)}
    assert len(found) == 11
    statuses = {name: found[name]["status"] for name in ("truncated.jpg", "empty.png", "text.jpg", "huge.png")}
    assert statuses == {
        "truncated.jpg": "unreadable", "empty.png": "unreadable", "text.jpg": "unreadable", "huge.png": "rejected",
    }  # fmt: skip
    assert "not an image" in found["text.jpg"]["error"]
    assert "20000x20000" in found["huge.png"]["error"]
    assert (found["turned.jpg"]["width"], found["turned.jpg"]["height"]) == upright.size
    assert not (output / "current.json").exists()


@pytest.mark.parametrize("moment", ["planned", "first shard", "all shards"])
def test_after_a_kill_the_same_command_continues_and_no_row_is_lost_or_twice(
    densemask: Command, configured: dict[str, str], photographs: Path, tmp_path: Path, moment: str
) -> None:
    output = tmp_path / "out"
    job = job_file(tmp_path, photographs, output, shard_size=3)
    process = start("label", "--job", job, env=configured)
    wanted = {"planned": ("plans/*/run=*.parquet", 1), "first shard": ("masks/*/*/*.parquet", 1)}
    pattern, count = wanted.get(moment, ("masks/*/*/*.parquet", 8))
    _until(lambda: len(list(output.glob(pattern))) >= count)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    survived = {path: path.read_bytes() for path in output.rglob("*.parquet") if "reports" not in path.parts}

    ended = densemask("label", "--job", job, "--json", env=configured)

    assert ended.code == 0, ended.err
    assert sorted(row["image_id"] for row in rows(output)) == sorted(path.name for path in photographs.iterdir())
    assert all(path.read_bytes() == content for path, content in survived.items())
    assert (output / "current.json").exists()
    assert len(list(output.glob("reports/*/*/report.html"))) == 1


def test_a_killed_command_leaves_no_process_behind(
    environment: dict[str, str], configured: dict[str, str], densemask: Command, photographs: Path, tmp_path: Path
) -> None:
    """On a laptop's way: no cluster, no server, everything started by the command."""
    output = tmp_path / "out"
    process = start("label", str(photographs), str(output), env=environment)
    _until(lambda: _marked_children(process.pid) >= 5, 200)
    time.sleep(3 * janitor.LOOK_SECONDS)  # what starts and wipes its environment in the last moment escapes the janitor
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    _, alive = psutil.wait_procs(family, timeout=30)
    assert [child.cmdline() for child in alive] == []

    ended = densemask("label", str(photographs), str(output), "--json", env=configured)

    assert ended.code == 0, ended.err
    assert len({row["image_id"] for row in rows(output)}) == len(rows(output)) == 24


def test_ctrl_c_ends_a_run_in_order_and_leaves_no_process_behind(
    environment: dict[str, str], photographs: Path, tmp_path: Path
) -> None:
    """At a terminal it goes to every process of the group, the command's own Prefect server among them."""
    process = start("label", str(photographs), str(tmp_path / "out"), env=environment)
    _until(lambda: _marked_children(process.pid) >= 5, 200)
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    _, alive = psutil.wait_procs(family, timeout=30)

    assert process.returncode == 130
    assert err.splitlines()[-1] == "densemask: interrupted; run the same command again to continue"
    assert "Traceback" not in err
    assert [child.cmdline() for child in alive] == []


def _marked_children(pid: int) -> int:
    return sum("ray::" in " ".join(_command(child)) for child in psutil.Process(pid).children(recursive=True))


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_two_runs_at_once_both_end_well_and_label_every_image_once(
    configured: dict[str, str], photographs: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    job = job_file(tmp_path, photographs, output, shard_size=2)
    both = [start("label", "--job", job, "--json", env=configured) for _ in range(2)]
    ends = [process.communicate(timeout=250) for process in both]

    assert [process.returncode for process in both] == [0, 0], ends
    assert len(list(output.glob("plans/*/run=*.parquet"))) == 1
    assert sorted(row["image_id"] for row in rows(output)) == sorted(path.name for path in photographs.iterdir())


def test_a_worker_killed_under_the_command_costs_no_row(
    configured: dict[str, str], photographs: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    process = start("label", str(photographs), str(output), "--json", env=configured)
    killed = 0
    while process.poll() is None and killed < 2:
        for actor in psutil.process_iter():
            if " ".join(_command(actor)).startswith("ray::RefinerWorker.refine"):
                actor.kill()
                killed += 1
                break
        time.sleep(0.02)
    out, err = process.communicate(timeout=200)

    assert killed == 2
    assert process.returncode == 0, err
    assert json.loads(out)["ok"] == 24
    assert {row["status"] for row in rows(output)} == {"ok"}


def test_from_a_bucket_to_a_bucket(
    densemask: Command, environment: dict[str, str], prefect_server: str, s3: S3, bucket_folder: str, tmp_path: Path
) -> None:
    import fsspec

    write_photographs(tmp_path / "photographs", 4)
    store = fsspec.filesystem("s3")
    for path in (tmp_path / "photographs").iterdir():
        store.pipe_file(f"{bucket_folder}/in/{path.name}", path.read_bytes())
    env = environment | s3.environment() | {"PREFECT_API_URL": prefect_server}

    ended = densemask("label", f"{bucket_folder}/in", f"{bucket_folder}/out", "--json", env=env)

    assert ended.code == 0, ended.err
    assert ended.json["ok"] == 4
    found = store.find(f"{bucket_folder}/out")
    assert sum(name.endswith(".parquet") and "/masks/" in name for name in found) == 1
    assert s3.environment()["AWS_SECRET_ACCESS_KEY"] not in "".join(
        store.cat_file(name).decode("latin-1") for name in found
    )
    again = densemask("label", f"{bucket_folder}/in", f"{bucket_folder}/out", "--json", env=env)
    assert again.json["images"] == 0


def test_a_disk_that_refuses_ends_the_run_red_and_leaves_nothing_half_written(
    densemask: Command, configured: dict[str, str], photographs: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    job = job_file(tmp_path, photographs, output, shard_size=12)
    output.mkdir()
    (output / "masks").write_text("a file where the folder should be")

    ended = densemask("label", "--job", job, "--json", env=configured)

    assert ended.code == 1
    assert "2 of 2 shards are not committed: cannot write" in ended.json["error"]
    assert "Traceback" not in ended.err
    (output / "masks").unlink()
    assert list(output.rglob("shard-*")) == []
    assert densemask("label", "--job", job, "--json", env=configured).json["ok"] == 24


def _until(condition: Any, seconds: float = 100) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)
