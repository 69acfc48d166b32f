import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Execution
from pipeline.sources import ImageRef
from workers import rules
from workers.rules import Attempt, PoolSizes

REF = ImageRef("a", "/a.jpg", "", "e", 1, None, None)


@pytest.mark.parametrize(
    ("cpus", "gpus", "execution", "expected"),
    [
        (2, 0, {}, PoolSizes(1, 0.66, 0.0, 2, 0.66)),
        (1, 0, {}, PoolSizes(1, 0.5, 0.0, 1, 0.5)),
        (16, 0, {}, PoolSizes(2, 0.88, 0.0, 16, 0.88)),
        (16, 1, {}, PoolSizes(1, 1.0, 1.0, 15, 1.0)),
        (16, 2, {"refiners": 4}, PoolSizes(2, 1.0, 1.0, 4, 1.0)),
        (4, 1, {"front_ends": 2}, PoolSizes(2, 1.0, 0.5, 2, 1.0)),
    ],
)
def test_pools_fit_the_cluster(cpus: float, gpus: float, execution: dict[str, int], expected: PoolSizes) -> None:
    assert rules.pool_sizes(cpus, gpus, Execution.model_validate(execution)) == expected


@given(st.integers(1, 512), st.integers(0, 16))
def test_all_actors_can_be_placed_at_once(cpus: int, gpus: int) -> None:
    sizes = rules.pool_sizes(cpus, min(gpus, cpus), Execution())
    asked = sizes.front_ends * sizes.front_end_cpus + sizes.refiners * sizes.refiner_cpus
    assert sizes.front_ends >= 1
    assert sizes.refiners >= 1
    assert asked <= cpus + 1e-9


def test_one_image_alone_takes_a_strike_and_company_only_makes_suspects() -> None:
    assert rules.after_death([Attempt(REF, 0)], charged=True) == [Attempt(REF, 0, suspect=True, strikes=1)]
    company = rules.after_death([Attempt(REF, 0), Attempt(REF, 1)], charged=True)
    assert company == [Attempt(REF, 0, suspect=True), Attempt(REF, 1, suspect=True)]


def test_a_lost_node_is_charged_to_no_image() -> None:
    attempts = [Attempt(REF, 0), Attempt(REF, 1, suspect=True, strikes=2)]
    assert rules.after_death(attempts, charged=False) == attempts


def test_the_third_strike_is_the_last() -> None:
    attempt = Attempt(REF, 0)
    for strikes in range(1, rules.STRIKES + 1):
        assert not rules.is_quarantined(attempt)
        attempt = rules.after_error(attempt)
        assert attempt.strikes == strikes
    assert rules.is_quarantined(attempt)


def test_an_image_larger_than_the_cap_still_gets_its_turn() -> None:
    assert rules.may_score(waiting_bytes=0, scoring_images=0, mean_bytes=10, cap_bytes=1)
    assert not rules.may_score(waiting_bytes=2, scoring_images=0, mean_bytes=10, cap_bytes=1)
    assert not rules.may_score(waiting_bytes=0, scoring_images=1, mean_bytes=10, cap_bytes=10)
    assert rules.may_score(waiting_bytes=5, scoring_images=1, mean_bytes=10, cap_bytes=16)


def test_a_few_killers_are_quarantined_but_a_broken_machine_is_not_blamed_on_its_images() -> None:
    assert not rules.is_systematic(quarantined=3, images=3)
    assert not rules.is_systematic(quarantined=20, images=500)
    assert rules.is_systematic(quarantined=300, images=500)
