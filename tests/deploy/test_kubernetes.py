"""The Kubernetes files as Ray's autoscaler reads them, and against each other, the image and the deployments."""

import json
import re
import subprocess
import tomllib
from typing import Any

import ray
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr as autoscaling

from pipeline import job_files
from pipeline.config import LabelJob
from tests.deploy.files import DEPLOY, KUBERNETES, ROOT, USER, documents, one, tool
from tests.deploy.objects import CLUSTER, GROUPS, KUSTOMIZATION, OBJECTS, PODS, WORKER


def test_the_groups_are_what_rays_autoscaler_reads() -> None:
    config = autoscaling({**CLUSTER, "metadata": {"name": "densemask", "namespace": "densemask"}})
    types = config["available_node_types"]
    assert types["headgroup"]["resources"]["CPU"] == 0
    assert types["gpu"]["resources"] | {"memory": 0} == {"CPU": 3, "GPU": 1, "memory": 0}
    assert types["cpu"]["resources"] | {"memory": 0} == {"CPU": 8, "memory": 0}
    assert [types[name]["min_workers"] for name in ("gpu", "cpu")] == [0, 0]
    assert CLUSTER["spec"]["rayVersion"] == ray.__version__


def test_the_groups_hold_what_the_nightly_job_may_ask_for() -> None:
    scale = job_files.load(LabelJob, str(KUBERNETES / "job.yaml"), {}).execution.scale_to
    config = autoscaling({**CLUSTER, "metadata": {"name": "densemask", "namespace": "densemask"}})
    most = {
        kind: sum(
            types["max_workers"] * types["resources"].get(kind, 0) for types in config["available_node_types"].values()
        )
        for kind in ("CPU", "GPU")
    }
    assert 0 < scale.cpus <= most["CPU"]
    assert 0 < scale.gpus <= most["GPU"]


def test_every_pod_may_be_run_under_the_restricted_standard() -> None:
    (namespace,) = [document for document in OBJECTS if document["kind"] == "Namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, pod in PODS.items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] == USER, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in spec["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False, name
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
        assert all(set(volume) - {"name"} <= {"emptyDir", "configMap"} for volume in spec["volumes"]), name


def test_every_container_has_requests_limits_and_a_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    names = {image["name"] for image in KUSTOMIZATION["images"]}
    assert {image["newTag"] for image in KUSTOMIZATION["images"]} == {version}
    for pod, template in PODS.items():
        (container,) = template["spec"]["containers"]
        image, _, tag = container["image"].rpartition(":")
        assert image.rpartition("/")[2] in names and tag == version, pod
        assert set(container["resources"]["requests"]) == set(container["resources"]["limits"]), pod
        assert {"cpu", "memory"} <= set(container["resources"]["limits"]), pod
    assert "nvidia.com/gpu" in GROUPS["gpu"]["template"]["spec"]["containers"][0]["resources"]["limits"]


def test_workers_may_run_on_spot_nodes_and_the_head_and_the_driver_may_not() -> None:
    def keys(pod: dict[str, Any]) -> set[str]:
        return {toleration["key"] for toleration in pod["spec"].get("tolerations", [])}

    assert {name for name, pod in PODS.items() if "densemask/spot" in keys(pod)} == {"gpu", "cpu"}
    for name in ("gpu", "cpu"):
        assert PODS[name]["spec"]["terminationGracePeriodSeconds"] >= 30  # Ray drains for 30 s
        assert PODS[name]["spec"]["nodeSelector"] == {"densemask/pool": name}
    for name in ("head", "prefect-worker"):
        assert PODS[name]["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert one("raycluster.yaml", "PodDisruptionBudget")["spec"]["maxUnavailable"] == 0
    assert WORKER["podDisruptionBudget"] == {"maxUnavailable": 0}


def test_secrets_are_named_and_never_written() -> None:
    assert not [document for document in OBJECTS if document["kind"] == "Secret"]
    settings = one("settings.yaml", "ConfigMap")["data"]
    secrets = set()
    for pod, template in PODS.items():
        for variable in template["spec"]["containers"][0].get("env", []):
            source = variable.get("valueFrom", {})
            if "secretKeyRef" in source:
                secrets.add((source["secretKeyRef"]["name"], source["secretKeyRef"]["key"]))
            elif "configMapKeyRef" in source:
                assert source["configMapKeyRef"]["key"] in settings, pod
            else:
                assert not re.search("KEY|TOKEN$|SECRET|PASSWORD", variable["name"]), pod
    # The last is KubeRay's: the cluster's name, and a key of its choice.
    assert secrets == {
        ("densemask-store", "access_key"),
        ("densemask-store", "secret_key"),
        (CLUSTER["metadata"]["name"], "auth_token"),
    }
    guide = (DEPLOY / "README.md").read_text()
    assert "create secret generic densemask-store" in guide and "--from-literal=access_key=" in guide


def test_nothing_is_reached_but_what_a_policy_names() -> None:
    policies = {document["metadata"]["name"]: document["spec"] for document in documents("network.yaml")}
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    ray_nodes = policies["ray"]["podSelector"]["matchLabels"]
    assert {name for name, pod in PODS.items() if ray_nodes.items() <= pod["metadata"]["labels"].items()} == set(PODS)
    opened = {port["port"] for rule in policies["ray"]["ingress"] for port in rule.get("ports", [])}
    declared = {
        port["containerPort"] for port in CLUSTER["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["ports"]
    }
    assert opened <= declared
    assert all("from" in rule for spec in policies.values() for rule in spec.get("ingress", []))
    (to_prefect,) = policies["prefect-worker"]["egress"]
    url = WORKER["selfHostedServerApiConfig"]["apiUrl"]
    namespace = to_prefect["to"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
    assert url == f"http://prefect-server.{namespace}.svc.cluster.local:{to_prefect['ports'][0]['port']}/api"
    worker_labels = policies["prefect-worker"]["podSelector"]["matchLabels"]
    assert worker_labels.items() <= WORKER["podLabels"].items()


def test_the_prefect_worker_joins_this_cluster_and_polls_the_pool_of_the_deployments() -> None:
    environment = {variable["name"]: variable.get("value") for variable in WORKER["extraEnvVars"]}
    head = CLUSTER["metadata"]["name"] + "-head-svc"  # as KubeRay names it
    assert environment["RAY_ADDRESS"] == f"{head}:6379"
    assert environment["RAY_AUTH_MODE"] == CLUSTER["spec"]["authOptions"]["mode"]
    deployments = yaml.safe_load((DEPLOY / "prefect.yaml").read_text())["deployments"]
    assert {deployment["work_pool"]["name"] for deployment in deployments} == {WORKER["config"]["workPool"]}
    assert WORKER["args"][:2] == ["densemask-worker", WORKER["config"]["workPool"]]
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert f"/usr/local/bin/{WORKER['args'][0]}" in dockerfile
    assert WORKER["command"] == json.loads(re.findall(r"^ENTRYPOINT (.+)$", dockerfile, re.MULTILINE)[0])
    (job,) = [mount["mountPath"] for mount in WORKER["extraVolumeMounts"] if mount["name"] == "job"]
    assert f"mkdir -p {job} " in dockerfile


def test_the_kustomization_names_every_file() -> None:
    made = {file for generator in KUSTOMIZATION["configMapGenerator"] for file in generator["files"]}
    assert made == {"job.yaml"}
    there = {path.name for path in KUBERNETES.iterdir()}
    assert there == {*KUSTOMIZATION["resources"], *made, "kustomization.yaml", "prefect-worker.yaml"}
    mounted = {volume["configMap"]["name"] for volume in WORKER["extraVolumes"] if "configMap" in volume}
    assert mounted == {generator["name"] for generator in KUSTOMIZATION["configMapGenerator"]}


def test_kubectl_builds_the_whole() -> None:
    built = subprocess.run([tool("kubectl"), "kustomize", str(KUBERNETES)], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    made = list(yaml.safe_load_all(built.stdout))
    assert len(made) == len(OBJECTS) + 1
    assert all(document["kind"] == "Namespace" or document["metadata"]["namespace"] == "densemask" for document in made)
    assert set(re.findall(r"image: (\S+)", built.stdout)) == {
        f"{image['newName']}:{image['newTag']}" for image in KUSTOMIZATION["images"]
    }
