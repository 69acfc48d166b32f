from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Execution
from pipeline.sources import ImageRef
from workers import rules
from workers.rules import Asks, Attempt, Load, Sizes

REF = ImageRef("a", "/a.jpg", "", "e", 1, None, None)


@pytest.mark.parametrize(
    ("cpus", "gpus", "execution", "sizes", "asks"),
    [
        (2, 0, {}, Sizes(1, 2), Asks(0.1, 0.0, 0.9)),
        (1, 0, {}, Sizes(1, 1), Asks(0.1, 0.0, 0.9)),
        (16, 0, {}, Sizes(2, 16), Asks(0.1, 0.0, 0.9)),
        (16, 1, {}, Sizes(1, 15), Asks(0.1, 1.0, 0.9)),
        (16, 2, {"refiners": 4}, Sizes(2, 4), Asks(0.1, 1.0, 0.9)),
        (16, 0, {"refiners": {"max": 4}}, Sizes(2, 4), Asks(0.1, 0.0, 0.9)),
        (2, 0, {"refiners": {"max": 32}}, Sizes(1, 2), Asks(0.1, 0.0, 0.9)),
        (2, 0, {"refiners": 4}, Sizes(1, 4), Asks(0.1, 0.0, 0.475)),
        (4, 1, {"front_ends": 2}, Sizes(2, 2), Asks(0.1, 0.5, 0.9)),
    ],
)
def test_the_first_pools_use_all_cores_and_fit(
    cpus: float, gpus: float, execution: dict[str, Any], sizes: Sizes, asks: Asks
) -> None:
    given = Execution.model_validate(execution)
    assert rules.pool_sizes(cpus, gpus, gpus > 0, given, Load()) == sizes
    assert rules.asks(cpus, gpus, given) == pytest.approx(asks)


@given(st.integers(1, 512), st.integers(0, 16), st.integers(1, 64), st.integers(1, 64))
def test_all_actors_can_be_placed_at_once(cpus: int, gpus: int, front_ends: int, refiners: int) -> None:
    for execution in (Execution(), Execution.model_validate({"front_ends": front_ends, "refiners": refiners})):
        sizes = rules.pool_sizes(cpus, min(gpus, cpus), gpus > 0, execution, Load())
        asks = rules.asks(cpus, min(gpus, cpus), execution)
        assert min(*sizes, asks.front_end_cpus, asks.refiner_cpus) > 0
        assert sizes.front_ends * asks.front_end_cpus + sizes.refiners * asks.refiner_cpus <= cpus + 1e-9


@given(st.lists(st.integers(1, 8), min_size=1, max_size=6))
def test_whatever_nodes_come_every_core_gets_its_refiner_beside_the_front_ends(nodes: list[int]) -> None:
    asks = rules.asks(1, 0, Execution())
    for cores in nodes:
        assert cores * (asks.refiner_cpus + asks.front_end_cpus) <= cores
    assert rules.pool_sizes(sum(nodes), 0, False, Execution(), Load()).refiners == sum(nodes)


@pytest.mark.parametrize(
    ("cpus", "gpus", "on_gpus", "sizes"),
    [
        (32, 2, True, Sizes(2, 30)),  # a node with a GPU joins a run on one GPU
        (8, 0, True, Sizes(1, 7)),  # the last GPU leaves: one front end waits for the next
        (8, 4, False, Sizes(1, 8)),  # GPUs come to a run that began without: they are the next run's
    ],
)
def test_front_ends_follow_the_hardware_that_the_run_began_with(
    cpus: float, gpus: float, on_gpus: bool, sizes: Sizes
) -> None:
    assert rules.pool_sizes(cpus, gpus, on_gpus, Execution(), Load()) == sizes


@pytest.mark.parametrize(
    ("cpus", "gpus", "load", "sizes"),
    [
        (1, 0, Load(), Sizes(2, 1)),  # none of the nodes is there: both GPUs are asked for, and a first refiner
        (9, 2, Load(7, 0, 10.0, 40.0), Sizes(2, 10)),  # three more than there are cores for, and Ray is shown them
        (9, 2, Load(7, 0, 10.0, 4000.0), Sizes(2, 62)),  # never more than scale_to
        (96, 3, Load(1, 0, 10.0, 4000.0), Sizes(3, 93)),  # unless the cluster is larger already
    ],
)
def test_on_a_cluster_that_scales_the_pools_ask_for_what_it_may_grow_to(
    cpus: float, gpus: float, load: Load, sizes: Sizes
) -> None:
    execution = Execution.model_validate({"scale_to": {"cpus": 64, "gpus": 2}})
    assert rules.pool_sizes(cpus, gpus, True, execution, load) == sizes
    assert rules.asks(cpus, gpus, execution) == pytest.approx(Asks(0.1, 1.0, 0.9))


@pytest.mark.parametrize(
    ("load", "wanted"),
    [
        (Load(4, 0, None, None), 16),  # nothing is known yet
        (Load(4, 0, 10.0, 40.0), 10),  # 2 front ends, 4 refiners each, and a quarter more
        (Load(4, 0, 10.0, 400.0), 16),
        (Load(4, 0, 100.0, 1.0), 1),
        (Load(2, 0, 100.0, 1.0), 2),  # one too many may stay
        (Load(10, 0, 10.0, 40.0), 10),
        (Load(15, 0, 10.0, 40.0), 15),  # a few too many may stay
        (Load(16, 0, 10.0, 40.0), 10),
        (Load(16, 1000, 10.0, 40.0), 16),  # but not while there is so much to do
        (Load(10, 500, 10.0, 40.0), 12),
        (Load(30, 0, 10.0, 200.0), 16),  # nodes have left
    ],
)
def test_refiners_keep_pace_with_the_front_ends(load: Load, wanted: int) -> None:
    assert rules.refiners_wanted(load, front_ends=2, minimum=1, maximum=16) == wanted


@given(
    st.integers(0, 100),
    st.integers(0, 10_000),
    st.floats(0.01, 1e5),
    st.floats(0.01, 1e5),
    st.integers(1, 32),
    st.integers(1, 32),
    st.integers(0, 32),
)
def test_refiners_stay_within_their_bounds_and_settle(
    present: int, waiting: int, score_ms: float, refine_ms: float, front_ends: int, minimum: int, more: int
) -> None:
    def wanted(refiners: int) -> int:
        load = Load(refiners, waiting, score_ms, refine_ms)
        return rules.refiners_wanted(load, front_ends, minimum, minimum + more)

    first = wanted(present)
    assert minimum <= first <= minimum + more
    assert wanted(first) == first


@pytest.mark.parametrize(
    ("refine_ms", "waiting", "images"),
    [(None, 100, 1), (900.0, 100, 1), (120.0, 100, 4), (5.0, 100, 8), (5.0, 9, 3), (5.0, 4, 1), (5.0, 0, 1)],
)
def test_cheap_images_go_several_a_call_where_there_are_enough_for_all(
    refine_ms: float | None, waiting: int, images: int
) -> None:
    assert rules.images_a_call(refine_ms, waiting, refiners=4) == images


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
