"""An archive is its newest rows; its reprocessing a plan that says where they are."""

from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline import archive, masks, plan, recipes, reprocess, storage
from pipeline.config import Evaluation, Recipe
from pipeline.errors import ConfigError
from pipeline.plan import Shard
from pipeline.sources import REF_SCHEMA, Origin
from pipeline.weights import Weights
from tests.pipeline.conftest import CLASSES, Labelled, Labeller, Picture, square

OLD, NEW = "0123456789abcdef", "fedcba9876543210"
DAY = date(2026, 3, 1)


def listing(*images: tuple[str, str]) -> pa.Table:
    return parts(*((uri, uri, "", etag) for uri, etag in images))


def parts(*images: tuple[str, str, str, str]) -> pa.Table:
    """A listing of (image_id, uri, part, etag)."""
    names = ("image_id", "uri", "part", "etag")
    rows = [dict.fromkeys(REF_SCHEMA.names) | dict(zip(names, image, strict=True)) for image in images]
    return pa.Table.from_pylist(rows, REF_SCHEMA)


def label(output: str, *images: tuple[str, str], size: int = 2, commit: bool = True) -> str:
    """A run over these images whose rows have no masks."""
    return label_listing(output, listing(*images), size, commit)


def label_listing(output: str, table: pa.Table, size: int = 2, commit: bool = True) -> str:
    run = plan.add_run(output, OLD, table, size, DAY)
    assert run is not None
    for shard in plan.shards(output, OLD, run) if commit else ():
        refs = plan.read_shard(output, OLD, run, shard.number)
        rows = [masks.failed_row(ref.image_id, ref.uri, ref.etag, shard.number, "ok", "") for ref in refs]
        masks.write_shard(output, OLD, run, shard.number, rows)
    return run


def places(table: pa.Table) -> list[tuple[Any, ...]]:
    names = ("uri", "etag", *archive.PLACE_COLUMNS)
    return sorted(zip(*(table[name].to_pylist() for name in names), strict=True))


def test_of_every_image_the_newest_committed_row_counts(tmp_path: Path) -> None:
    output = str(tmp_path)
    first = label(output, ("/a", "1"), ("/b", "1"), ("/c", "1"))
    second = label(output, ("/b", "2"), ("/d", "1"))
    label(output, ("/a", "2"), commit=False)
    assert places(archive.images(output, OLD)) == [
        ("/a", "1", first, 0, 0), ("/b", "2", second, 0, 0), ("/c", "1", first, 1, 0), ("/d", "1", second, 0, 1),
    ]  # fmt: skip


def test_an_image_is_known_by_its_place_and_by_its_id(tmp_path: Path) -> None:
    output = str(tmp_path)
    label_listing(output, parts(("set/a", "/a", "", "1"), ("t/x", "/t.tar", "bytes=0-1", "1")))
    label_listing(output, parts(("a", "/a", "", "2"), ("t/x", "/t.tar", "bytes=5-6", "2")))
    found = archive.images(output, OLD)
    assert list(zip(*(found[name].to_pylist() for name in ("image_id", "etag")), strict=True)) == [
        ("a", "2"), ("t/x", "2"),
    ]  # fmt: skip


def test_images_of_one_run_are_not_one_though_they_share_an_id(tmp_path: Path) -> None:
    output = str(tmp_path)
    for etag in ("1", "2"):
        label_listing(output, parts(("x", "/p", "row=0;column=image", etag), ("x", "/p", "row=1;column=image", etag)))
    assert archive.images(output, OLD)["etag"].to_pylist() == ["2", "2"]


def test_an_empty_archive_has_no_images(tmp_path: Path) -> None:
    assert archive.images(str(tmp_path), OLD).num_rows == 0


def test_a_condition_speaks_of_the_rows_and_their_run(tmp_path: Path) -> None:
    output = str(tmp_path)
    first = label(output, ("/a", "1"), ("/b", "1"), ("/c", "1"))
    label(output, ("/b", "2"), ("/d", "1"))
    images = archive.images(output, OLD)

    def chosen(condition: str) -> list[str]:
        return sorted(archive.select(output, OLD, images, condition)["uri"].to_pylist())

    assert chosen(f"run > '{first}'") == ["/b", "/d"]
    assert chosen(f"run = '{first}'") == ["/a", "/c"]
    assert chosen("image_id >= '/c' and status = 'ok'") == ["/c", "/d"]
    assert chosen("height > 3") == []
    with pytest.raises(ConfigError, match="nonsense"):
        chosen("nonsense = 1")


def test_the_new_plan_says_where_each_old_row_is_and_leaves_out_what_the_new_recipe_has(tmp_path: Path) -> None:
    output = str(tmp_path)
    first = label(output, ("/a", "1"), ("/b", "1"), ("/c", "1"))
    plan.add_run(output, NEW, listing(("/b", "1")), 2, DAY)
    images = archive.images(output, OLD).rename_columns(
        dict(zip(archive.PLACE_COLUMNS, plan.ORIGIN_COLUMNS, strict=True))
    )
    run = plan.add_run(output, NEW, images, 2, DAY, origin=OLD)
    assert run is not None
    refs = plan.read_shard(output, NEW, run, 0)
    assert [(ref.uri, ref.origin) for ref in refs] == [("/a", Origin(first, 0, 0)), ("/c", Origin(first, 1, 0))]
    assert [plan.origin(output, NEW, each) for each in plan.runs(output, NEW)] == [None, OLD]
    assert plan.add_run(output, NEW, images, 2, DAY, origin=OLD) is None


def test_a_shard_is_in_the_same_wave_whichever_others_are_done() -> None:
    shards = [Shard("b", number, 2) for number in range(7)] + [Shard("a", 0, 2)]
    whole = reprocess.waves(shards, 3)
    assert [(wave.run, wave.number, [one.number for one in wave.shards]) for wave in whole] == [
        ("a", 0, [0]), ("b", 0, [0, 1, 2]), ("b", 1, [3, 4, 5]), ("b", 2, [6]),
    ]  # fmt: skip
    rest = reprocess.waves([shard for shard in shards if shard.number not in (0, 1, 3)], 3)
    assert [(wave.run, wave.number, [one.number for one in wave.shards]) for wave in rest] == [
        ("b", 0, [2]), ("b", 1, [4, 5]), ("b", 2, [6]),
    ]  # fmt: skip


@pytest.fixture
def old(label_pictures: Labeller) -> Labelled:
    pictures = [Picture(f"image-{index}", square(1 + index % 3, 6, 6, 20), None) for index in range(5)]
    labelled = label_pictures(pictures, back_end="argmax")
    recipes.set_current_if_absent(labelled.output, labelled.recipe)
    return labelled


@pytest.mark.parametrize(
    "content",
    [
        "{back_end: argmax, max_side: 512}",
        "{recipe: {back_end: argmax, max_side: 512}}",
        "{source: /anywhere, output: /elsewhere, recipe: {back_end: argmax, max_side: 512}}",
    ],
    ids=["a recipe", "with its key", "a job file"],
)
def test_a_recipe_file_holds_a_recipe_or_is_a_job_file(old: Labelled, tmp_path: Path, content: str) -> None:
    file = tmp_path / "new.yaml"
    file.write_text(content)
    job = reprocess.load_job(old.output, str(file), None, None)
    assert (job.recipe.back_end.name, job.recipe.max_side) == ("argmax", 512)
    assert (job.output, job.origin, job.where) == (old.output, old.recipe, None)


def test_the_evaluation_is_that_of_the_newest_old_run_unless_the_file_has_one(old: Labelled, tmp_path: Path) -> None:
    file = tmp_path / "new.yaml"

    def evaluation(content: str) -> Evaluation:
        file.write_text(content)
        return reprocess.load_job(old.output, str(file), None, None).evaluation

    assert evaluation("{back_end: argmax}") == Evaluation()  # the plan does not say
    ours = Evaluation(void=11, boundary_width=3)
    plan.add_run(old.output, old.recipe, listing(("/new", "1")), 2, DAY, evaluation=ours)
    assert evaluation("{back_end: argmax}") == ours
    assert evaluation("{recipe: {back_end: argmax}, gate: {max_churn: 1}}") == ours
    assert evaluation("{recipe: {back_end: argmax}, evaluation: {void: 0}}") == Evaluation(void=0)


@pytest.mark.parametrize(
    ("content", "condition", "origin", "message"),
    [
        ("{back_ende: argmax}", None, None, "unknown key 'recipe.back_ende'"),
        ("{recipe: {}, gate: {max_chrun: 1}}", None, None, "did you mean 'max_churn'"),
        ("[1]", None, None, "holds no mapping; it holds a recipe, or a job file's keys: recipe, evaluation"),
        ("{}", "confidenze < 1", None, "condition 'confidenze < 1'"),
        ("{}", None, "0000000000000000", "no recipe '0000000000000000'"),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_is_written(
    old: Labelled, tmp_path: Path, content: str, condition: str | None, origin: str | None, message: str
) -> None:
    file = tmp_path / "new.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        reprocess.load_job(old.output, str(file), condition, origin)
    assert recipes.known(old.output) == [old.recipe]


def test_kept_scores_serve_only_a_recipe_with_the_same_front_end(old: Labelled) -> None:
    weights = Weights(b"", "0" * 64, "stub", CLASSES, None)

    def document(**changes: Any) -> recipes.RecipeDocument:
        return recipes.document(Recipe.model_validate(changes), weights)

    assert reprocess.kept_scores(old.output, document(back_end="densecrf"), old.recipe) is None  # none were kept
    storage.put(storage.join(old.output, "scores", f"recipe={old.recipe}", "run=a", "shard-00000.parquet"), b"")
    found = reprocess.kept_scores(old.output, document(back_end="densecrf"), old.recipe)
    assert found is not None and found.fingerprint == old.recipe
    assert reprocess.kept_scores(old.output, document(max_side=512), old.recipe) is None
    assert reprocess.kept_scores(old.output, document(back_end="densecrf"), None) is None
