import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
import ray

from pipeline import masks
from pipeline.errors import RunError, StorageError
from pipeline.plan import Shard
from tests.workers.stubs import NeverStarts, StubFrontEnd, StubRefiner, images, until
from workers import cluster, scheduler
from workers.dispatch import Dispatcher
from workers.pool import Pool
from workers.refiner import Target
from workers.rules import Load, Sizes, Sizing
from workers.running import actor
from workers.work import ShardResult

RECIPE = "0123456789abcdef"
RUN = "2026-01-01-0001"
pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Dispatcher]]:
    """Starts dispatchers over stub actors that write to tmp_path/out; all are closed at the end."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(_dispatcher(tmp_path, **options))


@contextmanager
def _dispatcher(
    folder: Path,
    front_end: type = StubFrontEnd,
    seconds: float = 0.0,
    refiners: int = 2,
    output: str = "",
    cpus: float = 0.1,
    sizing: Sizing | None = None,
) -> Iterator[Dispatcher]:
    target = Target(output or str(folder / "out"), RECIPE)
    front_ends = Pool("front end", lambda: actor(front_end, num_cpus=0.1, max_concurrency=2).remote())
    back_ends = Pool("back end", lambda: actor(StubRefiner, num_cpus=cpus).remote(target, seconds))
    dispatcher = Dispatcher(front_ends, back_ends, 4, 2**20, sizing or (lambda _: Sizes(1, refiners)))
    try:
        yield dispatcher
    finally:
        dispatcher.close()


def _rows(folder: Path) -> dict[str, str]:
    """status by image_id; fails where an image has two rows."""
    found: dict[str, str] = {}
    for table in masks.read_rows(str(folder / "out"), RECIPE, RUN, ["image_id", "status", "error"]):
        for row in table.to_pylist():
            assert row["image_id"] not in found
            found[row["image_id"]] = row["status"] if row["status"] == "ok" else f"{row['status']}: {row['error']}"
    return found


def _result(future: "Future[ShardResult]") -> ShardResult:
    return future.result(timeout=120)


@pytest.mark.parametrize("killer", [b"front-exit", b"back-segfault", b"front-raise", b"back-raise"])
def test_an_image_that_kills_its_worker_is_quarantined_and_the_rest_is_committed(
    tmp_path: Path, start: Callable[..., Dispatcher], killer: bytes
) -> None:
    refs = images(tmp_path, [b"fine"] * 9 + [killer] + [b"bad"] + [b"fine"] * 9)
    dispatcher = start()

    result = _result(dispatcher.submit(Shard(RUN, 0, len(refs)), refs))

    assert result == ShardResult(RUN, 0, {"ok": 18, "quarantined": 1, "unreadable": 1}, True)
    rows = _rows(tmp_path)
    assert rows.pop("image-009").startswith("quarantined: 3 times alone")
    assert rows.pop("image-010") == "unreadable: it says that it is bad"
    assert set(rows.values()) == {"ok"}
    assert len(rows) == 18
    if killer in (b"front-exit", b"back-segfault"):
        assert dispatcher.progress.deaths >= 3


def test_workers_killed_from_outside_cost_no_row(tmp_path: Path, start: Callable[..., Dispatcher]) -> None:
    refs = images(tmp_path, [b"fine"] * 60)
    dispatcher = start(seconds=0.1)
    future = dispatcher.submit(Shard(RUN, 0, len(refs)), refs)

    for _ in range(2):
        until(lambda: dispatcher.progress.refining >= 2)
        for process in _actors("StubRefiner"):
            process.send_signal(signal.SIGKILL)
        done = dispatcher.progress.done
        until(lambda done=done: dispatcher.progress.done > done + 3)  # type: ignore[misc]

    assert _result(future).statuses == {"ok": 60}
    assert set(_rows(tmp_path).values()) == {"ok"}
    assert dispatcher.progress.deaths >= 2


def test_a_shard_whose_commit_dies_is_committed_by_another_worker(
    tmp_path: Path, start: Callable[..., Dispatcher]
) -> None:
    shards = [Shard(RUN, index, 5) for index in range(6)]
    dispatcher = start(seconds=0.02)
    futures = [dispatcher.submit(shard, images(_made(tmp_path / str(shard.index)), [b"fine"] * 5)) for shard in shards]
    until(lambda: dispatcher.progress.done >= 12)
    for process in _actors("StubRefiner"):
        process.send_signal(signal.SIGKILL)

    assert sum(_result(future).statuses["ok"] for future in futures) == 30
    assert masks.committed(str(tmp_path / "out"), RECIPE, RUN) == set(range(6))


def test_a_store_that_refuses_fails_its_shard_with_its_own_message(
    tmp_path: Path, start: Callable[..., Dispatcher]
) -> None:
    (tmp_path / "file").write_text("not a folder")
    refs = images(tmp_path, [b"fine"] * 3)
    future = start(output=str(tmp_path / "file" / "out")).submit(Shard(RUN, 0, 3), refs)

    with pytest.raises(StorageError, match="cannot write .*file/out"):
        _result(future)


def test_an_unreachable_store_fails_the_shard_and_spares_the_images(
    tmp_path: Path, start: Callable[..., Dispatcher]
) -> None:
    good = images(tmp_path, [b"fine"] * 3)
    lost = [ref._replace(uri="http://127.0.0.1:9/image.jpg") for ref in good]  # nobody listens on port 9
    dispatcher = start()

    with pytest.raises(StorageError, match="127.0.0.1:9"):
        _result(dispatcher.submit(Shard(RUN, 0, 3), lost))
    assert _result(dispatcher.submit(Shard(RUN, 1, 3), good)).statuses == {"ok": 3}
    assert masks.committed(str(tmp_path / "out"), RECIPE, RUN) == {1}


def test_a_shard_in_which_most_images_fail_their_workers_is_not_written_off(
    tmp_path: Path, start: Callable[..., Dispatcher]
) -> None:
    refs = images(tmp_path, [b"front-raise"] * 12)

    with pytest.raises(RunError, match="12 of 12 images failed their workers"):
        _result(start().submit(Shard(RUN, 0, 12), refs))
    assert masks.committed(str(tmp_path / "out"), RECIPE, RUN) == set()


def test_actors_that_never_start_end_the_run_with_their_reason(
    tmp_path: Path, start: Callable[..., Dispatcher]
) -> None:
    future = start(front_end=NeverStarts).submit(Shard(RUN, 0, 1), images(tmp_path, [b"fine"]))

    with pytest.raises(RunError, match="front end actors do not start: .*no such device"):
        _result(future)


def test_of_two_runs_one_writes_each_shard_and_both_end_well(tmp_path: Path, start: Callable[..., Dispatcher]) -> None:
    refs = images(tmp_path, [b"fine"] * 5)
    futures = [start().submit(Shard(RUN, 0, 5), refs) for _ in range(2)]

    assert sorted(_result(future).written for future in futures) == [False, True]
    assert len(_rows(tmp_path)) == 5


def test_what_waits_between_the_pools_stays_below_the_cap(tmp_path: Path, start: Callable[..., Dispatcher]) -> None:
    refs = images(tmp_path, [b"x" * 200_000] * 30)  # the cap is 1 MB
    dispatcher = start(seconds=0.05, refiners=1)
    future = dispatcher.submit(Shard(RUN, 0, 30), refs)
    most = 0
    while not future.done():
        most = max(most, dispatcher.progress.waiting_bytes)
        time.sleep(0.01)

    assert _result(future).statuses == {"ok": 30}
    assert 0 < most <= 2**20 + 2 * 4 * 200_100  # two batches of four may be on their way when the cap is reached


def test_admission_holds_the_next_shard_back_while_there_is_enough_to_do(
    tmp_path: Path, start: Callable[..., Dispatcher]
) -> None:
    dispatcher = start(seconds=0.02, refiners=1)
    first = dispatcher.submit(Shard(RUN, 0, 100), images(_made(tmp_path / "a"), [b"x" * 200_000] * 100))
    with dispatcher.admission():
        assert dispatcher.progress.to_score <= 32
        second = dispatcher.submit(Shard(RUN, 1, 2), images(_made(tmp_path / "b"), [b"fine"] * 2))
    assert _result(first).statuses == {"ok": 100}
    assert _result(second).statuses == {"ok": 2}


def test_a_pool_that_shrinks_ends_its_workers_with_their_calls_and_loses_nothing(
    tmp_path: Path, start: Callable[..., Dispatcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "RESIZE_SECONDS", 0.2)
    wanted = [1]
    dispatcher = start(seconds=0.1, sizing=lambda _: Sizes(1, wanted[0]))
    future = dispatcher.submit(Shard(RUN, 0, 80), images(tmp_path, [b"fine"] * 80))
    until(lambda: dispatcher.progress.refining >= 2)

    wanted[0] = 3
    until(lambda: dispatcher.progress.refiners == 3 and dispatcher.progress.refining >= 6)
    assert len(_actors("StubRefiner")) == 3
    wanted[0] = 1
    until(lambda: dispatcher.progress.refiners == 1)
    until(lambda: len(_actors("StubRefiner")) == 1)

    assert not future.done()
    assert _result(future).statuses == {"ok": 80}
    assert set(_rows(tmp_path).values()) == {"ok"}
    assert dispatcher.progress.deaths == 0


def test_a_worker_that_dies_while_it_retires_costs_no_row(
    tmp_path: Path, start: Callable[..., Dispatcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "RESIZE_SECONDS", 0.2)
    wanted = [2]
    dispatcher = start(seconds=0.5, sizing=lambda _: Sizes(1, wanted[0]))
    future = dispatcher.submit(Shard(RUN, 0, 8), images(tmp_path, [b"fine"] * 8))
    until(lambda: dispatcher.progress.refining == 4)

    wanted[0] = 1
    until(lambda: dispatcher.progress.refiners == 1)
    for process in _actors("StubRefiner"):
        process.send_signal(signal.SIGKILL)

    assert _result(future).statuses == {"ok": 8}
    assert dispatcher.progress.deaths == 2
    assert len(_actors("StubRefiner")) == 1


def test_an_actor_that_finds_no_room_holds_nothing_up_and_leaves_none_behind(
    tmp_path: Path, start: Callable[..., Dispatcher], monkeypatch: pytest.MonkeyPatch, ray_cluster: cluster.Resources
) -> None:
    monkeypatch.setattr(scheduler, "RESIZE_SECONDS", 0.2)
    wanted = [2]
    dispatcher = start(cpus=0.6 * ray_cluster.cpus, sizing=lambda _: Sizes(1, wanted[0]))

    result = _result(dispatcher.submit(Shard(RUN, 0, 9), images(tmp_path, [b"fine"] * 9)))
    assert result.statuses == {"ok": 9}
    assert dispatcher.progress.refiners == 1

    wanted[0] = 1
    (alive,) = _actors("StubRefiner")
    time.sleep(0.5)  # the second one is given up; were it not, it would take the room of the first
    alive.send_signal(signal.SIGKILL)
    result = _result(dispatcher.submit(Shard(RUN, 1, 9), images(tmp_path, [b"fine"] * 9)))
    assert result.statuses == {"ok": 9}
    assert dispatcher.progress.refiners == 1


def test_a_stage_is_timed_without_the_wait_behind_another_call(
    tmp_path: Path, start: Callable[..., Dispatcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "RESIZE_SECONDS", 0.2)
    loads: list[Load] = []

    def sizing(load: Load) -> Sizes:
        loads.append(load)
        return Sizes(1, 2)

    dispatcher = start(seconds=0.2, sizing=sizing)
    _result(dispatcher.submit(Shard(RUN, 0, 30), images(tmp_path, [b"fine"] * 30)))

    assert loads[0] == Load()
    assert max(load.waiting for load in loads) > 10
    assert loads[-1].refine_ms is not None
    assert 200 <= loads[-1].refine_ms < 380
    assert loads[-1].score_ms is not None
    assert loads[-1].score_ms < 100


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _actors(name: str) -> list[psutil.Process]:
    """The processes of this cluster's actors of a class, by Ray's process titles."""
    raylets = [ray._private.worker._global_node.all_processes["raylet"][0].process.pid]
    children = [child for pid in raylets for child in psutil.Process(pid).children(recursive=True)]
    found = [child for child in children if f"ray::{name}" in _title(child)]
    assert found, name
    return found


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return ""
