"""What is in deploy/kubernetes: the objects, the pods that come of them, and the values of Prefect's chart."""

from collections.abc import Iterator
from typing import Any

import yaml

from tests.deploy.files import KUBERNETES, documents, one

KUSTOMIZATION = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
OBJECTS = [document for name in KUSTOMIZATION["resources"] for document in documents(name)]
CLUSTER = one("raycluster.yaml", "RayCluster")
GROUPS = {group["groupName"]: group for group in CLUSTER["spec"]["workerGroupSpecs"]}
VALUES = yaml.safe_load((KUBERNETES / "prefect-worker.yaml").read_text())
WORKER = VALUES["worker"]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod template of ours: of Ray, and what the chart makes of its values."""
    for name, group in {"head": CLUSTER["spec"]["headGroupSpec"], **GROUPS}.items():
        yield name, group["template"]
    yield "prefect-worker", chart_pod()


def chart_pod() -> dict[str, Any]:
    """The pod that prefect-worker's chart fills from its values."""
    image = WORKER["image"]
    scratch = [
        {"name": "scratch", "mountPath": path, "subPathExpr": name}
        for path, name in (("/home/prefect", "home"), ("/tmp", "tmp"))
    ]
    container = {
        "name": "prefect-worker",
        "image": f"{image['repository']}:{image['prefectTag']}",
        "imagePullPolicy": image["pullPolicy"],
        "command": WORKER["command"],
        "args": WORKER["args"],
        "env": [{"name": "HOME", "value": "/home/prefect"}, *WORKER["extraEnvVars"]],
        "resources": WORKER["resources"],
        "securityContext": WORKER["containerSecurityContext"],
        "volumeMounts": [*scratch, *WORKER["extraVolumeMounts"]],
    }
    return {
        "metadata": {"labels": WORKER["podLabels"], "annotations": WORKER["podAnnotations"]},
        "spec": {
            "serviceAccountName": VALUES["serviceAccount"]["name"],
            "securityContext": WORKER["podSecurityContext"],
            "containers": [container],
            "volumes": [{"name": "scratch", "emptyDir": {}}, *WORKER["extraVolumes"]],
        },
    }


PODS = dict(pods())
