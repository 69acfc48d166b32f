"""Nodes that join and leave, on a cluster of three raylets on this machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from pipeline import masks
from pipeline.config import Execution
from pipeline.plan import Shard
from tests.workers.stubs import StubFrontEnd, StubRefiner, images, until
from workers import cluster, rules, scheduler
from workers.dispatch import Dispatcher
from workers.pool import Pool
from workers.refiner import Target
from workers.rules import Load, Sizes
from workers.running import actor

RECIPE = "0123456789abcdef"
RUN = "2026-01-01-0001"


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster of one node with one core, to which this process is connected."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        ray.init(address=started.address, log_to_driver=False)
        yield started
    finally:
        ray.shutdown()
        started.shutdown()


def test_the_pools_grow_with_a_node_that_joins_and_shrink_with_one_that_leaves(
    nodes: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "RESIZE_SECONDS", 0.5)
    execution = Execution.model_validate({"refiners": {"min": 2}})
    asks = rules.asks(1, 0, execution)
    target = Target(str(tmp_path / "out"), RECIPE)

    def sizing(load: Load) -> Sizes:
        return rules.pool_sizes(*cluster.resources(), False, execution, load)

    networks = Pool("front end", lambda: actor(StubFrontEnd, num_cpus=asks.front_end_cpus, max_concurrency=2).remote())
    fields = Pool("back end", lambda: actor(StubRefiner, num_cpus=asks.refiner_cpus).remote(target, 0.1))
    dispatcher = Dispatcher(networks, fields, 4, 2**20, sizing)
    try:
        until(lambda: dispatcher.progress.refiners == 2)
        future = dispatcher.submit(Shard(RUN, 0, 250), images(tmp_path, [b"fine"] * 250))
        until(lambda: dispatcher.progress.done > 10)

        joined = nodes.add_node(num_cpus=4)
        until(lambda: dispatcher.progress.refiners == 5)
        done = dispatcher.progress.done
        until(lambda: dispatcher.progress.done > done + 20)
        assert dispatcher.progress.deaths == 0

        nodes.remove_node(joined)
        until(lambda: dispatcher.progress.refiners == 2 and not fields.starting)
        assert not future.done()

        assert future.result(timeout=120).statuses == {"ok": 250}
        assert masks.committed(str(tmp_path / "out"), RECIPE, RUN) == {0}
        assert dispatcher.progress.deaths == 3
    finally:
        dispatcher.close()
