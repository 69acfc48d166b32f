"""Which recipe is current, the way back, and what may be deleted."""

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline import plan, prune, recipes, storage, succession
from pipeline.errors import AbsentError, ConfigError
from pipeline.prune import Candidate
from tests.pipeline.conftest import Labelled, Labeller, Picture, square

PICTURES = [Picture(f"image-{index}", square(1 + index % 3, 6, 6, 20), None) for index in range(5)]


@pytest.fixture
def both(label_pictures: Labeller) -> tuple[Labelled, Labelled]:
    """Two recipes in one output; the first is current."""
    old = label_pictures(PICTURES, back_end="densecrf")
    recipes.set_current_if_absent(old.output, old.recipe)
    return old, label_pictures(PICTURES, back_end="argmax")


def files(output: str) -> list[str]:
    return sorted(str(path.relative_to(output)) for path in Path(output).rglob("*") if path.is_file())


def test_a_recipe_takes_the_place_of_another_and_gives_it_back(both: tuple[Labelled, Labelled]) -> None:
    output, old, new = both[0].output, both[0].recipe, both[1].recipe
    assert succession.promote(output, new) == old
    assert (recipes.current(output), succession.earlier(output)) == (new, [old])
    assert succession.promote(output, new) == new
    assert succession.earlier(output) == [old]
    assert succession.move_back(output) == (new, old)
    assert (recipes.current(output), succession.earlier(output)) == (old, [])
    with pytest.raises(ConfigError, match="no recipe was current"):
        succession.move_back(output)


def test_a_recipe_stands_in_the_history_once(both: tuple[Labelled, Labelled]) -> None:
    output, old, new = both[0].output, both[0].recipe, both[1].recipe
    for fingerprint in (new, old, new):
        succession.promote(output, fingerprint)
    assert json.loads(Path(output, "current.json").read_text()) == {"recipe": new, "earlier": [old]}


def test_without_a_current_recipe_the_first_promoted_has_none_before_it(both: tuple[Labelled, Labelled]) -> None:
    Path(both[0].output, "current.json").unlink()
    assert succession.promote(both[0].output, both[1].recipe) is None
    assert succession.earlier(both[0].output) == []


def test_the_youngest_recipe_is_the_one_made_last(both: tuple[Labelled, Labelled]) -> None:
    assert succession.youngest(both[0].output) == both[1].recipe


def test_only_a_whole_recipe_is_promoted_by_hand(both: tuple[Labelled, Labelled]) -> None:
    output, new = both[0].output, both[1]
    succession.check_whole(output, new.recipe)
    next(Path(output).glob(f"masks/recipe={new.recipe}/*/shard-00001.parquet")).unlink()
    with pytest.raises(ConfigError, match="has 1 shards that are not committed; finish it first"):
        succession.check_whole(output, new.recipe)
    with pytest.raises(ConfigError, match="no recipe '0000000000000000'"):
        succession.check_whole(output, "0000000000000000")


DAY = datetime(2026, 1, 1, tzinfo=UTC)
FIVE = [Candidate(name, DAY + timedelta(days=number)) for number, name in enumerate("abcde")]


@pytest.mark.parametrize(
    ("current", "earlier", "keep", "going"),
    [
        ("e", ["d", "a"], 1, "abc"),
        ("e", ["a"], 1, "bcd"),  # the way back stays, however old
        ("e", ["a"], 2, "bc"),
        ("c", ["b"], 1, "ade"),
        ("e", [], 1, "abc"),
        ("e", ["d"], 0, "abcd"),
        ("e", ["d"], 9, ""),
    ],
)
def test_what_is_kept_beside_the_current_recipe(current: str, earlier: list[str], keep: int, going: str) -> None:
    assert prune.superseded(FIVE, current, earlier, keep) == list(going)


def test_a_superseded_recipe_goes_with_all_that_it_made_and_the_current_one_stays_whole(
    both: tuple[Labelled, Labelled],
) -> None:
    output, old, new = both[0].output, both[0].recipe, both[1].recipe
    for folder in ("scores", "reports"):
        storage.put(storage.join(output, folder, f"recipe={old}", "run=a", "b"), b"1234")
    succession.promote(output, new)
    (chosen,) = prune.choose(output, 0, ())
    mine = [name for name in files(output) if f"recipe={old}" in name]
    assert (chosen.recipe, chosen.images, chosen.open_shards) == (old, 5, 0)
    assert chosen.size == sum(Path(output, name).stat().st_size for name in mine)
    before = [name for name in files(output) if old not in name]

    said: list[str] = []
    prune.delete(output, old, said.append)

    assert files(output) == before
    assert recipes.known(output) == [new] and recipes.current(output) == new
    assert succession.earlier(output) == []
    order = [one.removeprefix(f"{output}/").partition("/")[0] for one in said]
    assert order == sorted(order, key=prune.PARTS.index)
    assert not list(Path(output).rglob(f"*{old}*"))


def test_the_current_recipe_is_never_deleted(both: tuple[Labelled, Labelled]) -> None:
    output, old = both[0].output, both[0].recipe
    before = files(output)
    with pytest.raises(ConfigError, match="is the current one"):
        prune.choose(output, 0, [old])
    with pytest.raises(ConfigError, match="is the current one"):
        prune.delete(output, old, lambda _: None)
    assert files(output) == before


@pytest.mark.parametrize("name", ["../masks", "0000000000000000", "ABC", ""])
def test_a_name_that_is_no_recipe_deletes_nothing(both: tuple[Labelled, Labelled], name: str) -> None:
    before = files(both[0].output)
    with pytest.raises(ConfigError, match="no recipe"):
        prune.choose(both[0].output, 0, [name])
    assert files(both[0].output) == before


@pytest.mark.parametrize("deleted", range(9))
def test_a_deletion_that_breaks_off_is_finished_by_the_next_and_never_the_way_back(
    both: tuple[Labelled, Labelled], deleted: int
) -> None:
    output, old, new = both[0].output, both[0].recipe, both[1].recipe
    succession.promote(output, new)

    class Killed(Exception):
        pass

    seen: list[str] = []

    def stop(folder: str) -> None:
        if len(seen) == deleted:
            raise Killed
        seen.append(folder)

    try:
        prune.delete(output, old, stop)
    except Killed:
        assert recipes.current(output) == new and succession.earlier(output) == []
        assert plan.pending(output, new) == []
        assert [one.recipe for one in prune.choose(output, 0, ())] == [old]
        prune.delete(output, old, lambda _: None)
    assert not list(Path(output).rglob(f"*{old}*"))


@pytest.mark.parametrize("deleted", range(9))
def test_whoever_labels_after_a_broken_deletion_plans_what_is_left_and_comes_to_an_end(
    both: tuple[Labelled, Labelled], label_pictures: Labeller, deleted: int
) -> None:
    output, old = both[0].output, both[0].recipe
    label_pictures([*PICTURES, Picture("late", square(1, 3, 3, 9), None)], back_end="densecrf")
    assert len(plan.runs(output, old)) == 2
    succession.promote(output, both[1].recipe)
    seen: list[str] = []

    def stop(folder: str) -> None:
        if len(seen) == deleted:
            raise InterruptedError
        seen.append(folder)

    with suppress(InterruptedError):
        prune.delete(output, old, stop)
    planned = [read for run in plan.runs(output, old) for read in plan.read_run(output, old, run)["uri"].to_pylist()]
    fresh = plan.read_run(output, both[1].recipe, both[1].run).drop_columns("shard")
    plan.add_run(output, old, fresh, 4, DAY.date())
    every = [read for run in plan.runs(output, old) for read in plan.read_run(output, old, run)["uri"].to_pylist()]
    assert len(every) == len(set(every)) >= 5
    assert set(planned) <= set(every)


def test_objects_in_a_bucket_go_too(bucket_folder: str) -> None:
    for name in ("a/1", "a/b/2", "c"):
        storage.put(f"{bucket_folder}/{name}", b"x")
    storage.delete(f"{bucket_folder}/a")
    storage.delete(f"{bucket_folder}/nothing")
    assert [entry.location for entry in storage.walk(bucket_folder)] == [f"{bucket_folder}/c"]
    storage.delete(f"{bucket_folder}/c")
    with suppress(AbsentError):  # of a folder that a store does not keep when it is empty
        assert list(storage.walk(bucket_folder)) == []
