"""The two pools of a job on a cluster, with the dispatcher between them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from pipeline.config import Job
from pipeline.prepare import Prepared
from workers import cluster, rules
from workers.cluster import WORKER_ENVIRONMENT, Resources
from workers.dispatch import Dispatcher
from workers.frontend import FrontEndWorker
from workers.journal import Journal
from workers.metrics import Labels
from workers.pool import Pool
from workers.refiner import RefinerWorker, Target
from workers.rules import Load, Sizes


@contextmanager
def dispatcher(job: Job, prepared: Prepared, resources: Resources) -> Iterator[Dispatcher]:
    """A dispatcher over pools that fit the cluster; the weights travel to the front ends once, as an object.

    With a source of kept scores the front ends read those that are there.
    """
    asks = rules.asks(resources.cpus, resources.gpus, job.execution)
    on_gpus = asks.front_end_gpus > 0
    data = ray.put(prepared.weights.data)
    target = Target(job.output, prepared.recipe.fingerprint, job.execution.keep_scores)
    labels = Labels(prepared.recipe.fingerprint, prepared.newest or "")
    journal = Journal(labels, sum(shard.images for shard in prepared.pending))
    front_end = actor(
        FrontEndWorker,
        max_concurrency=2,
        num_cpus=asks.front_end_cpus,
        num_gpus=asks.front_end_gpus,
        scheduling_strategy="SPREAD",  # they ask for so little that Ray would put them all on one node
    )
    refiner = actor(RefinerWorker, num_cpus=asks.refiner_cpus)
    front_ends = Pool("front end", lambda: front_end.remote(job.recipe, data, labels, prepared.scores))
    refiners = Pool("back end", lambda: refiner.remote(job.recipe, job.evaluation, target, labels))

    def sizing(load: Load) -> Sizes:
        now = cluster.resources()
        return rules.pool_sizes(now.cpus, now.gpus, on_gpus, job.execution, load)

    cap_bytes = job.execution.in_flight_mb * 2**20
    running = Dispatcher(front_ends, refiners, job.execution.batch_size, cap_bytes, sizing, journal)
    try:
        yield running
    finally:
        running.close()


def actor(worker: type, **options: Any) -> Any:
    """The worker class as an actor that Ray does not restart: the dispatcher must know of each death."""
    environment = {"env_vars": WORKER_ENVIRONMENT}
    return ray.remote(worker).options(max_restarts=0, max_task_retries=0, runtime_env=environment, **options)
