"""Connect to a Ray cluster, or start one on this machine for as long as it is needed."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import ray

from pipeline.errors import ConfigError, RunError

OBJECT_STORE_BYTES = 512 * 2**20
# Arrays of a few megabytes come and go with every image; glibc would map and unmap fresh pages for each of them.
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_ARENA_MAX": "2",
}


class Resources(NamedTuple):
    """What the cluster has."""

    cpus: float
    gpus: float


def check_address() -> None:
    """Raises ConfigError where RAY_ADDRESS names a host that does not listen; Ray itself would try for minutes."""
    address = os.environ.get("RAY_ADDRESS", "")
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ConfigError(f"no Ray cluster answers at RAY_ADDRESS={address}: {error.strerror or error}") from error


@contextmanager
def connected() -> Iterator[Resources]:
    """Ray's resources, while connected.

    A connection that is there is used and left; else RAY_ADDRESS names the cluster; else one is started on the
    loopback interface and stopped at the end.
    """
    if ray.is_initialized():
        yield resources()
        return
    address = os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "configure_logging": True}
    if address and address != "local":
        check_address()
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            hint = "it must run, and RAY_AUTH_MODE=token must be set if it asks for a token"
            raise RunError(f"no Ray cluster at RAY_ADDRESS={address}: {first}; {hint}") from error
    else:
        ray.init(
            address="local",
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _node_ip_address="127.0.0.1",
            **quiet,
        )
    # The dispatcher reports deaths; Ray has no public switch for its own paragraphs about them, which go to stdout.
    ray._private.worker._worker_logs_enabled = False
    try:
        yield resources()
    finally:
        ray.shutdown()


def dead_nodes() -> set[str]:
    """The ids of the cluster's nodes that are gone."""
    return {node["NodeID"] for node in ray.nodes() if not node["Alive"]}


def resources() -> Resources:
    """What the nodes that are there now have together."""
    total = ray.cluster_resources()
    return Resources(total.get("CPU", 1.0), total.get("GPU", 0.0))
