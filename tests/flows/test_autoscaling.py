"""The Ray cluster of deploy/kubernetes grows from nothing and goes again: Ray's own autoscaler, nodes as processes."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import yaml
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID, FAKE_HEAD_NODE_TYPE
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr as autoscaling
from ray.autoscaler.v2.sdk import get_cluster_status

from tests.deploy.files import one
from tests.flows.conftest import BIN, free_port, start

CORES = 2  # of a node here, whatever the group's pods have
IDLE_SECONDS = 5.0
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"


class Scaling(NamedTuple):
    """A head without cores, whose autoscaler starts nodes."""

    address: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def nodes(self) -> list[str]:
        """The groups of the nodes that are there."""
        assert self.process.poll() is None, self.log.read_text()
        status = get_cluster_status(self.address)
        return sorted(
            node.ray_node_type_name
            for node in [*status.active_nodes, *status.idle_nodes]
            if node.node_id != FAKE_HEAD_NODE_ID
        )


@pytest.fixture
def scaling(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scaling]:
    address = f"127.0.0.1:{free_port()}"
    folder = Path("/tmp") / f"scaling-{os.getpid()}"  # Ray's sockets do not bear pytest's long paths
    (tmp_path / "groups.json").write_text(json.dumps(_groups(address)))
    command = [
        str(BIN / "ray"), "start", "--head", f"--port={address.rpartition(':')[2]}", "--node-ip-address=127.0.0.1",
        "--num-cpus=0", "--include-dashboard=false", f"--temp-dir={folder}", "--disable-usage-stats", "--block",
        f"--object-store-memory={128 * 2**20}", f"--autoscaling-config={tmp_path / 'groups.json'}",
    ]  # fmt: skip
    env = environment | {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    }
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 90
        while b"Ray runtime started" not in (tmp_path / "log").read_bytes():
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.2)
        yield Scaling(address, process, tmp_path / "log")
    finally:
        nodes = [each for each in psutil.process_iter(["cmdline"]) if str(folder) in str(each.info["cmdline"])]
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for node in nodes:
            if node.is_running():
                node.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _groups(address: str) -> dict[str, Any]:
    """What Ray reads of the RayCluster, with small nodes that a local process starts."""
    cluster = one("raycluster.yaml", "RayCluster")
    config = autoscaling({**cluster, "metadata": {"name": "densemask", "namespace": "densemask"}})
    groups = dict(config["available_node_types"])
    head = groups.pop("headgroup")
    for group in [head, *groups.values()]:
        group["resources"] = {
            kind: min(CORES, count) for kind, count in group["resources"].items() if kind in ("CPU", "GPU")
        }
        group["idle_timeout_s"] = IDLE_SECONDS
    return config | {
        "available_node_types": groups | {FAKE_HEAD_NODE_TYPE: head},
        "head_node_type": FAKE_HEAD_NODE_TYPE,
        "idle_timeout_minutes": IDLE_SECONDS / 60,
        "provider": {
            "type": "external", "module": PROVIDER, "gcs_address": address, "head_node_id": FAKE_HEAD_NODE_ID,
            "launch_multiple": True, "disable_node_updaters": True, "disable_launch_config_check": True,
        },
    }  # fmt: skip


def test_front_ends_bring_gpu_nodes_refiners_bring_cpu_nodes_and_both_go_again(
    scaling: Scaling, environment: dict[str, str], photographs: Path, tmp_path: Path
) -> None:
    assert scaling.nodes() == []
    execution = {"scale_to": {"cpus": 6, "gpus": 1}, "refiners": {"min": 3}}
    job = {"source": str(photographs), "output": str(tmp_path / "out"), "execution": execution}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    run = start(
        "label", "--job", str(tmp_path / "job.yaml"), "--json", env=environment | {"RAY_ADDRESS": scaling.address}
    )
    try:
        seen: set[str] = set()
        while run.poll() is None:
            seen |= set(scaling.nodes())
            time.sleep(0.2)
        out, err = run.communicate()
    finally:
        run.kill()
    assert run.returncode == 0, err
    assert json.loads(out)["ok"] == 24
    assert seen == {"gpu", "cpu"}

    deadline = time.monotonic() + 90
    while there := scaling.nodes():
        assert time.monotonic() < deadline, there
        time.sleep(0.5)
