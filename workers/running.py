"""The two pools of a job on a cluster, with the dispatcher between them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from pipeline.config import LabelJob
from pipeline.weights import Weights
from workers.cluster import WORKER_ENVIRONMENT, Resources
from workers.dispatch import Dispatcher
from workers.frontend import FrontEndWorker
from workers.pool import Pool
from workers.refiner import RefinerWorker, Target
from workers.rules import pool_sizes


@contextmanager
def dispatcher(job: LabelJob, weights: Weights, fingerprint: str, resources: Resources) -> Iterator[Dispatcher]:
    """A dispatcher over pools that fit the cluster; the weights travel to the front ends once, as an object."""
    sizes = pool_sizes(resources.cpus, resources.gpus, job.execution)
    data = ray.put(weights.data)
    target = Target(job.output, fingerprint)
    front_end = actor(FrontEndWorker, max_concurrency=2, num_cpus=sizes.front_end_cpus, num_gpus=sizes.front_end_gpus)
    refiner = actor(RefinerWorker, num_cpus=sizes.refiner_cpus)
    front_ends = Pool("front end", lambda: front_end.remote(job.recipe, data), sizes.front_ends)
    refiners = Pool("back end", lambda: refiner.remote(job.recipe, job.evaluation, target), sizes.refiners)
    running = Dispatcher(front_ends, refiners, job.execution.batch_size, job.execution.in_flight_mb * 2**20)
    try:
        yield running
    finally:
        running.close()


def actor(worker: type, **options: Any) -> Any:
    """The worker class as an actor that Ray does not restart: the dispatcher must know of each death."""
    environment = {"env_vars": WORKER_ENVIRONMENT}
    return ray.remote(worker).options(max_restarts=0, max_task_retries=0, runtime_env=environment, **options)
