import io
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from threading import Barrier

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import masks, plan, storage
from pipeline.config import Evaluation
from pipeline.sources import REF_SCHEMA

RECIPE = "0123456789abcdef"
TODAY = date(2025, 3, 1)


def listing(*images: tuple[str, str]) -> pa.Table:
    """A listing of (uri, etag); an image's id is its uri."""
    rows = [
        {"image_id": uri, "uri": uri, "part": "", "etag": etag, "bytes": 1, "truth_uri": None, "truth_part": ""}
        for uri, etag in images
    ]
    return pa.Table.from_pylist(rows, REF_SCHEMA)


def numbered(*numbers: int) -> pa.Table:
    return listing(*((f"/set/{number:04d}.jpg", "v1") for number in numbers))


def planned(output: str) -> list[tuple[str, str]]:
    """(uri, etag) of all that is planned, over all runs and shards."""
    return [
        (ref.uri, ref.etag)
        for run in plan.runs(output, RECIPE)
        for shard in plan.shards(output, RECIPE, run)
        for ref in plan.read_shard(output, RECIPE, run, shard.number)
    ]


def add(output: str, table: pa.Table, shard_size: int = 3, today: date = TODAY) -> str | None:
    return plan.add_run(output, RECIPE, table, shard_size, today)


def commit(output: str, shard: plan.Shard) -> None:
    storage.put_if_absent(masks.shard_location(output, RECIPE, shard.run, shard.number), b"rows")


def test_a_run_holds_every_image_once_in_shards_of_the_size_asked_for(store: str) -> None:
    run = add(store, numbered(*range(8)))
    assert run == "2025-03-01-0001"
    assert plan.shards(store, RECIPE, run) == [(run, 0, 3), (run, 1, 3), (run, 2, 2)]
    assert planned(store) == [(f"/set/{number:04d}.jpg", "v1") for number in range(8)]


def test_a_shard_comes_back_as_it_was_listed(store: str) -> None:
    cell = {"image_id": "x", "uri": "s3://b/x.tar", "part": "bytes=1-2", "etag": "e", "bytes": None,
            "truth_uri": "s3://b/x.tar", "truth_part": "bytes=3-4"}  # fmt: skip
    run = add(store, pa.Table.from_pylist([cell], REF_SCHEMA))
    assert run is not None
    assert [ref._asdict() for ref in plan.read_shard(store, RECIPE, run, 0)] == [cell | {"origin": None}]


@given(st.permutations(range(10)))
def test_shards_do_not_depend_on_the_order_of_the_listing(order: list[int]) -> None:
    ordered, shuffled = (plan.encode(plan.unplanned(numbered(*numbers), []), 3) for numbers in (range(10), order))
    assert ordered == shuffled


def test_a_plan_has_a_row_group_a_shard_and_names_it_in_its_rows() -> None:
    file = pq.ParquetFile(io.BytesIO(plan.encode(numbered(*range(7)), 3)))
    assert file.schema_arrow.equals(plan.PLAN_SCHEMA)
    assert [file.read_row_group(group)["shard"].to_pylist() for group in range(3)] == [[0] * 3, [1] * 3, [2]]


def test_nothing_new_is_no_run(store: str) -> None:
    assert add(store, numbered(1, 2)) is not None
    assert add(store, numbered(1, 2)) is None
    assert add(store, numbered(2)) is None
    assert len(plan.runs(store, RECIPE)) == 1


def test_only_new_and_changed_images_are_planned_again(store: str) -> None:
    add(store, listing(("/a", "v1"), ("/b", "v1")))
    run = add(store, listing(("/a", "v1"), ("/b", "v2"), ("/c", "v1")))
    assert run == "2025-03-01-0002"
    assert [(ref.uri, ref.etag) for ref in plan.read_shard(store, RECIPE, run, 0)] == [("/b", "v2"), ("/c", "v1")]


def test_a_changed_part_of_the_same_object_is_another_image(tmp_path: object) -> None:
    table = pa.concat_tables([numbered(1)] * 2).set_column(2, "part", pa.array(["bytes=0-1", "bytes=1-2"]))
    assert plan.unplanned(table, []).num_rows == 2


def test_an_image_listed_twice_is_planned_once() -> None:
    assert plan.unplanned(numbered(2, 1, 2, 1, 1), [])["image_id"].to_pylist() == ["/set/0001.jpg", "/set/0002.jpg"]


def test_recipes_do_not_share_plans(store: str) -> None:
    add(store, numbered(1))
    assert plan.add_run(store, "f" * 16, numbered(1), 3, TODAY) == "2025-03-01-0001"


def test_a_plan_says_how_masks_are_held_against_the_truth(store: str) -> None:
    ours = Evaluation(void=11)
    runs = [
        plan.add_run(store, RECIPE, numbered(number), 3, TODAY, evaluation=given)
        for number, given in enumerate([ours, None])
    ]
    assert [plan.evaluation(store, RECIPE, run) for run in runs if run] == [ours, Evaluation()]


@pytest.mark.parametrize("planners", [2, 8])
def test_racing_planners_plan_every_image_exactly_once(store: str, planners: int) -> None:
    barrier = Barrier(planners)

    def race(planner: int) -> str | None:
        # Each sees its own share of the images, and all a common one; their clocks are apart.
        table = numbered(*range(10), *range(100 * planner, 100 * planner + 5))
        barrier.wait()
        return add(store, table, today=date(2025, 3, 1 + planner))

    with ThreadPoolExecutor(planners) as pool:
        runs = list(pool.map(race, range(1, planners + 1)))
    assert sorted(run for run in runs if run) == plan.runs(store, RECIPE)
    found = planned(store)
    everything = numbered(*range(10), *(100 * planner + n for planner in range(1, planners + 1) for n in range(5)))
    assert len(found) == len(set(found))
    assert {uri for uri, _ in found} == set(everything["uri"].to_pylist())
    assert len(storage.names(storage.join(store, "plans", f"recipe={RECIPE}"))) == 2 * len(plan.runs(store, RECIPE))


def test_planners_of_the_same_listing_make_one_run(store: str) -> None:
    barrier = Barrier(4)

    def race(day: int) -> str | None:
        barrier.wait()
        return add(store, numbered(*range(10)), today=date(2025, 3, day))

    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(race, (1, 1, 2, 3)))
    assert [run for run in runs if run] == plan.runs(store, RECIPE)
    assert len(planned(store)) == 10


def test_a_planner_that_died_before_its_plan_leaves_its_name_to_the_next(store: str) -> None:
    claim = storage.join(store, "plans", f"recipe={RECIPE}", "000001.claim")
    storage.put_if_absent(claim, b"2025-02-28-0001")
    assert add(store, numbered(1)) == "2025-02-28-0001"
    assert add(store, numbered(1)) is None
    assert add(store, numbered(2)) == "2025-03-01-0002"


def test_pending_is_what_is_not_committed_over_all_runs(store: str) -> None:
    first, second = add(store, numbered(*range(7))), add(store, numbered(*range(10)))
    assert first and second
    everything = plan.pending(store, RECIPE)
    assert everything == [(first, 0, 3), (first, 1, 3), (first, 2, 1), (second, 0, 3)]
    commit(store, everything[1])
    commit(store, everything[3])
    assert plan.pending(store, RECIPE) == [everything[0], everything[2]]


def test_a_run_that_died_is_taken_up_where_it_stood(store: str) -> None:
    run = add(store, numbered(*range(9)), shard_size=3)
    assert run
    commit(store, plan.pending(store, RECIPE)[0])
    assert add(store, numbered(*range(9)), shard_size=5) is None  # another shard size does not move what is planned
    resumed = plan.pending(store, RECIPE)
    assert resumed == [(run, 1, 3), (run, 2, 3)]
    assert [ref.image_id for ref in plan.read_shard(store, RECIPE, run, 1)] == [f"/set/{n:04d}.jpg" for n in (3, 4, 5)]


def test_an_empty_output_has_no_runs(store: str) -> None:
    assert plan.runs(store, RECIPE) == [] and plan.pending(store, RECIPE) == []


def test_changes_tell_new_from_changed_from_gone(store: str) -> None:
    first = listing(("/set/a.jpg", "v1"), ("/set/b.jpg", "v1"), ("/set/c.jpg", "v1"))
    assert plan.changes(store, RECIPE, first, "/set")[:2] == (3, 0)
    plan.add_run(store, RECIPE, first, 2, TODAY, source="/set")

    second = listing(("/set/a.jpg", "v1"), ("/set/b.jpg", "v2"), ("/set/d.jpg", "v1"))
    new, changed, gone = plan.changes(store, RECIPE, second, "/set")
    assert (new, changed, gone["uri"].to_pylist()) == (1, 1, ["/set/c.jpg"])

    plan.add_run(store, RECIPE, second, 2, TODAY, source="/set")
    new, changed, gone = plan.changes(store, RECIPE, second, "/set")
    assert (new, changed, gone["uri"].to_pylist()) == (0, 0, ["/set/c.jpg"])
    assert plan.changes(store, RECIPE, first, "/set").gone["uri"].to_pylist() == ["/set/d.jpg"]


def test_nothing_is_gone_from_where_it_never_was(store: str) -> None:
    plan.add_run(store, RECIPE, numbered(1, 2), 3, TODAY, source="/set")
    new, changed, gone = plan.changes(store, RECIPE, listing(("/other/1.jpg", "v1")), "/other")
    assert (new, changed, gone.num_rows) == (1, 0, 0)
