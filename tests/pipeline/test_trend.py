"""What is usual and what has shifted, held against arithmetic by hand."""

from typing import Any

import pytest

from pipeline import trend
from pipeline.config import Trend
from pipeline.trend import Night, Shift

RECIPE = "0123456789abcdef"


def night(day: int, **measures: Any) -> Night:
    """A night like any other, but for what is given."""
    usual: dict[str, Any] = {
        "recipe": RECIPE, "reports": (), "images": 500, "failed": 0, "new": 500, "altered": 0, "gone": 0,
        "confidence": 0.9, "entropy": 0.1, "changed": 0.02, "golden_miou": 0.6, "golden_classes": 16,
        "areas": {"sky": 0.5, "cat": 0.1}, "error": None,
    }  # fmt: skip
    return Night(night=f"2026-03-{day:02d}T02-00-00Z", **usual | measures)


def fortnight(**measures: Any) -> list[Night]:
    return [night(day, **measures) for day in range(1, 15)]


def found(tonight: Night, earlier: list[Night], **rules: Any) -> dict[tuple[str, str | None], Shift]:
    shifts = trend.shifts(tonight, earlier, Trend.model_validate(rules))
    return {(shift.measure, shift.name): shift for shift in shifts}


def test_a_night_like_the_others_has_no_shift() -> None:
    assert trend.shifts(night(15), fortnight(), Trend()) == []


def test_usual_is_the_median_and_a_spread_is_the_scaled_median_deviation() -> None:
    assert trend.usual([1.0, 2.0, 3.0, 4.0, 100.0], 0.0) == (3.0, pytest.approx(1.4826))
    assert trend.usual([7.0], 0.5) == (7.0, 0.5)


@pytest.mark.parametrize(
    ("measures", "key"),
    [
        ({"images": 100}, ("images", None)),
        ({"images": 0, "confidence": None, "entropy": None, "changed": None, "areas": {}}, ("images", None)),
        ({"failed": 20}, ("failures", None)),
        ({"confidence": 0.8}, ("confidence", None)),
        ({"entropy": 0.2}, ("entropy", None)),
        ({"changed": 0.1}, ("changed", None)),
        ({"golden_miou": 0.5}, ("golden_miou", None)),
        ({"areas": {"sky": 0.5, "cat": 0.2}}, ("area", "cat")),
    ],
)
def test_each_measure_can_shift_alone(measures: dict[str, Any], key: tuple[str, str | None]) -> None:
    assert list(found(night(15, **measures), fortnight())) == [key]


def test_a_shift_says_what_was_usual_and_names_the_class() -> None:
    shift = found(night(15, areas={"sky": 0.2, "cat": 0.1}), fortnight())["area", "sky"]
    assert (shift.value, shift.usual, shift.spread) == (0.2, 0.5, 0.01)
    assert trend.words(shift) == "area of sky: 20.0%, usually 50.0%"


def test_the_floor_is_what_keeps_a_small_step_after_equal_nights_from_being_a_shift() -> None:
    tonight = night(15, confidence=0.88)
    assert found(tonight, fortnight()) == {}
    assert ("confidence", None) in found(tonight, fortnight(), floors={"confidence": 0})


def test_nights_that_scatter_widen_what_is_usual() -> None:
    scattered = [night(day, images=count) for day, count in enumerate((100, 900, 300, 700, 500, 200, 800), 1)]
    assert found(night(15, images=1500), scattered) == {}
    assert ("images", None) in found(night(15, images=1500), fortnight())


def test_one_broken_night_does_not_move_what_is_usual() -> None:
    earlier = [*fortnight()[:-1], night(14, confidence=0.1, images=3)]
    assert found(night(15), earlier) == {}


def test_there_are_no_shifts_before_there_are_enough_nights() -> None:
    assert found(night(15, images=1), fortnight()[:4]) == {}
    assert ("images", None) in found(night(15, images=1), fortnight()[:5])


def test_nights_of_another_recipe_and_nights_long_past_do_not_count() -> None:
    others = [one.model_copy(update={"recipe": "f" * 16}) for one in fortnight()]
    assert found(night(15, confidence=0.1), others) == {}
    long_past = [night(1, confidence=0.1) for _ in range(40)]
    assert found(night(15), [*long_past, *fortnight()]) == {}


def test_the_furthest_shift_comes_first() -> None:
    tonight = night(15, confidence=0.7, areas={"sky": 0.4, "cat": 0.1})
    assert [shift.measure for shift in trend.shifts(tonight, fortnight(), Trend())] == ["confidence", "area"]


def test_the_table_has_a_row_a_night_measure_and_class() -> None:
    tonight = night(15, confidence=0.7)
    tonight = tonight.model_copy(update={"shifts": tuple(trend.shifts(tonight, fortnight(), Trend()))})
    rows = trend.table([*fortnight(), tonight], Trend()).to_pylist()
    assert len(rows) == 15 * 8
    marked = [row for row in rows if row["shifted"]]
    assert marked == [
        {"night": tonight.night, "recipe": RECIPE, "measure": "confidence", "class": None, "value": 0.7,
         "usual": 0.9, "spread": 0.01, "shifted": True}
    ]  # fmt: skip
    assert {row["usual"] for row in rows if row["night"] != tonight.night} == {None}
