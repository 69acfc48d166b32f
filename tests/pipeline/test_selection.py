"""Which labelled images are meant."""

from pathlib import Path

import pytest

from pipeline import masks
from pipeline.errors import ConfigError
from pipeline.selection import select
from tests.pipeline.archives import Archive, Shot, blobs, write_photograph, write_run
from tests.pipeline.conftest import Labeller
from tests.pipeline.test_gallery import plain


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    return {name: write_photograph(tmp_path / "raw" / f"{name}.jpg", 40, 48) for name in ("a", "b", "c", "d")}


@pytest.fixture
def twice(tmp_path: Path, places: dict[str, str]) -> Archive:
    """a, b, c, d labelled; then a and b were changed and labelled again, which failed for b."""
    output = str(tmp_path / "out")
    confidence = {"a": 0.9, "b": 0.2, "c": 0.5, "d": 0.7}
    write_run(output, [Shot(name, places[name], blobs(0), confidence[name]) for name in places])
    for name in ("a", "b"):
        write_photograph(Path(places[name]), 40, 50)
    again = [Shot("a", places["a"], blobs(1, 40, 50), 0.4), Shot("b", places["b"], None)]
    return write_run(output, again)


def test_an_image_counts_by_its_newest_row(twice: Archive) -> None:
    images = select(twice.output).images
    assert list(zip(*(images[name].to_pylist() for name in ("image_id", "run", "width")), strict=True)) == [
        ("c", "2026-03-01-0001", 48),
        ("d", "2026-03-01-0001", 48),
        ("a", "2026-03-01-0002", 50),
    ]


def test_the_place_of_a_row_leads_to_its_mask(twice: Archive) -> None:
    for row in select(twice.output).images.to_pylist():
        (png,) = masks.read_masks(twice.output, twice.recipe, row["run"], row["shard"], [row["row"]])
        (whole,) = masks.read_images(twice.output, twice.recipe, row["run"], [(row["shard"], row["image_id"])]).values()
        assert png == whole["mask"]["bytes"]


def test_the_least_certain_come_first(twice: Archive) -> None:
    images = select(twice.output).least_certain_first().images
    assert images["image_id"].to_pylist() == ["a", "c", "d"]
    assert images["confidence"].to_pylist() == pytest.approx([0.4, 0.5, 0.7])


def test_a_line_can_be_drawn_by_the_networks_doubts_behind_a_field(label_pictures: Labeller) -> None:
    """Its network is surer of a square than of the ground, so a small square is a doubtful picture."""
    output = label_pictures(plain(7), back_end="densecrf").output
    queue = select(output).least_certain_first().images
    assert queue["image_id"].to_pylist() == [f"image-{number}" for number in range(7)]
    line = queue["confidence"][3].as_py()
    doubts = select(output, condition=f"confidence < {line}").images
    assert line < 0.6 and sorted(doubts["image_id"].to_pylist()) == ["image-0", "image-1", "image-2"]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("confidence > 0.45", ["c", "d"]),
        ("run >= '2026-03-01-0002'", ["a"]),
        ("list_contains(labels, 2)", ["c", "d", "a"]),
    ],
)
def test_a_condition_judges_the_newest_rows(twice: Archive, condition: str, expected: list[str]) -> None:
    assert select(twice.output, condition=condition).images["image_id"].to_pylist() == expected


def test_a_run_alone(twice: Archive) -> None:
    images = select(twice.output, run="2026-03-01-0001").images
    assert images["image_id"].to_pylist() == ["a", "b", "c", "d"]


def test_images_of_one_id_in_two_places_are_two(tmp_path: Path, places: dict[str, str]) -> None:
    output = str(tmp_path / "out")
    write_run(output, [Shot("x.jpg", places["a"], blobs(0)), Shot("x.jpg", places["b"], blobs(1))])
    write_run(output, [Shot("x.jpg", places["c"], blobs(2))])
    assert select(output).images["uri"].to_pylist() == [places["a"], places["b"], places["c"]]


def test_what_cannot_be_selected_says_why(twice: Archive) -> None:
    with pytest.raises(ConfigError, match=r"no image where confidence < 0.1: 3 are labelled with .* 0.400 to 0.700"):
        select(twice.output, condition="confidence < 0.1")
    with pytest.raises(ConfigError, match="no run 2020-01-01 of recipe"):
        select(twice.output, run="2020-01-01")
    with pytest.raises(ConfigError, match=f"no recipe 'none' .* there is {twice.recipe}"):
        select(twice.output, recipe="none")
    with pytest.raises(ConfigError, match="columns: image_id, uri"):
        select(twice.output, condition="confidense < 0.1")


def test_an_output_of_failures_has_nothing_to_select(tmp_path: Path, places: dict[str, str]) -> None:
    output = str(tmp_path / "out")
    write_run(output, [Shot("a", places["a"], None)])
    with pytest.raises(ConfigError, match="there is no labelled image in"):
        select(output)
