"""The composition for one server: docker compose takes it, its parts find each other, and nothing of it is open."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.files import DEPLOY, ROOT, SECRETS, USER, compose, tool

OURS = {"prefect", "ray-head", "ray-worker", "worker", "buckets", "deployments"}
ONCE = {"buckets", "deployments"}
# What listens where inside: by command or configuration of the service, checked below where it is ours to say.
LISTENS = {"postgres": {5432}, "prefect": {4200}, "store": {8333}, "ray-head": {6379, 8265, 8080}, "prometheus": {9090}}


@pytest.fixture(scope="module")
def composition() -> dict[str, Any]:
    return compose("compose.yaml", **SECRETS)


@pytest.fixture(scope="module")
def services(composition: dict[str, Any]) -> dict[str, Any]:
    return dict(composition["services"])


def test_it_has_the_parts_that_a_nightly_run_needs(services: dict[str, Any]) -> None:
    assert set(services) == OURS | {"postgres", "store", "prometheus", "grafana"}
    assert {services[name]["image"] for name in OURS} == {"densemask:0.1.0"}


@pytest.mark.parametrize("missing", sorted(SECRETS))
def test_it_does_not_start_without_a_secret(missing: str) -> None:
    environment = {name: value for name, value in SECRETS.items() if name != missing}
    command = [tool("docker-compose"), "--env-file", os.devnull, "-f", str(DEPLOY / "compose.yaml"), "config", "-q"]
    ended = subprocess.run(command, env=environment | {"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert ended.returncode != 0
    assert f"required variable {missing} is missing" in ended.stderr


def test_a_key_that_compose_does_not_know_is_refused(tmp_path: Path) -> None:
    wrong = (DEPLOY / "compose.yaml").read_text().replace("mem_limit: 2g", "memory_limit: 2g")
    (tmp_path / "compose.yaml").write_text(wrong)
    command = [tool("docker-compose"), "-f", str(tmp_path / "compose.yaml"), "config", "-q"]
    assert subprocess.run(command, env=SECRETS | {"PATH": os.environ["PATH"]}, capture_output=True).returncode != 0


def test_the_example_of_the_settings_names_every_variable_and_no_secret() -> None:
    lines = (DEPLOY / ".env.example").read_text().splitlines()
    values = dict(line.lstrip("#").split("=", 1) for line in lines if re.match(r"#?[A-Z_]+=", line))
    text = (DEPLOY / "compose.yaml").read_text()
    assert set(values) == set(re.findall(r"\$\{([A-Z_]+)", text))
    assert {name for name, value in values.items() if not value} == set(SECRETS)
    assert "deploy/.env" in (ROOT / ".gitignore").read_text().splitlines()


def test_secrets_come_from_the_environment_alone() -> None:
    raw = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    for name, value in _environments(raw):
        if re.search("PASSWORD|SECRET|TOKEN|ACCESS_KEY", name):
            assert re.fullmatch(r"\$\{[A-Z_]+:\?.+\}", value), name


def _environments(node: Any) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for key, value in node.items():
            if isinstance(value, str) and re.fullmatch("[A-Z][A-Z0-9_]+", key):
                yield key, value
            yield from _environments(value)


def test_no_part_runs_as_root_or_may_become_it(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert int(service["user"].split(":")[0]) > 0, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True, name
        assert not service.get("privileged") and not service.get("cap_add"), name
    assert {services[name]["user"] for name in OURS} == {f"{USER}:{USER}"}


def test_every_part_has_its_limits_and_comes_back(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert int(service["mem_limit"]) > 0, name
        assert service["restart"] == ("no" if name in ONCE else "unless-stopped"), name
        assert "shm_size" not in service or int(service["shm_size"]) < int(service["mem_limit"]), name
        for store in re.findall(r"--object-store-memory=(\d+)", " ".join(service.get("command") or [])):
            assert int(store) < int(service["shm_size"]), f"{name}: its object store would lie on disk"
        tag = service["image"].rpartition(":")[2]
        assert re.match(r"v?\d", tag), f"{name}: {service['image']} names no version"


def test_only_loopback_is_published_and_only_what_listens(services: dict[str, Any]) -> None:
    published = {}
    for name, service in services.items():
        for port in service.get("ports", []):
            assert port["host_ip"] == "127.0.0.1", name
            published[port["published"]] = name
            assert name == "grafana" or port["target"] in LISTENS[name], name
    assert set(published) == {"4200", "8333", "8265", "9090", "3000"}


def test_what_one_part_calls_another_one_opens(services: dict[str, Any]) -> None:
    text = yaml.safe_dump(services)
    called = {(host, int(port)) for host, port in re.findall(r"\b([a-z][a-z-]*):(\d{4,5})\b", text) if host in services}
    assert called == {("prefect", 4200), ("store", 8333), ("ray-head", 6379)}
    assert all(port in LISTENS[host] for host, port in called)
    assert services["prefect"]["environment"]["PREFECT_SERVER_DATABASE_HOST"] == "postgres"
    commands = {name: " ".join(service["command"]) for name, service in services.items() if service.get("command")}
    assert "--port 4200" in commands["prefect"]
    assert "-s3.port=8333" in commands["store"]
    for option in ("--port=6379", "--dashboard-port=8265", "--metrics-export-port=8080"):
        assert option in commands["ray-head"]
    assert "--metrics-export-port=8080" in commands["ray-worker"]


def test_a_part_waits_for_those_that_it_calls(services: dict[str, Any]) -> None:
    for name, service in services.items():
        if name not in ONCE:
            assert service.get("healthcheck") or name in {"ray-worker", "worker"}, name
        for other, how in service.get("depends_on", {}).items():
            done = other in ONCE
            assert how["condition"] == ("service_completed_successfully" if done else "service_healthy"), name
            assert done or services[other]["healthcheck"]["test"], other
    assert set(services["worker"]["depends_on"]) == {"prefect", "ray-head", "buckets", "deployments"}


def test_what_is_mounted_is_there(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for volume in service.get("volumes", []):
            if volume["type"] == "bind" and volume["target"] != "/photographs":
                assert volume["read_only"] is True, name
                assert Path(volume["source"]).exists(), f"{name}: {volume['source']}"


def test_the_workers_and_the_nodes_reach_the_same_store_and_cluster(services: dict[str, Any]) -> None:
    worker, node = services["worker"]["environment"], services["ray-worker"]["environment"]
    shared = {name for name in worker if name.startswith(("AWS_", "RAY_AUTH_"))}
    assert {name: worker[name] for name in shared} == {name: node[name] for name in shared} == node
    assert {
        name: services["store"]["environment"][name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    } == {name: node[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    token = services["ray-head"]["environment"]
    assert token == {name: node[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    assert token["RAY_AUTH_MODE"] == "token"


def test_with_gpus_the_node_gets_them() -> None:
    services = compose("compose.yaml", "compose.gpu.yaml", **SECRETS)["services"]
    (device,) = services["ray-worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"] and device["driver"] == "nvidia"
