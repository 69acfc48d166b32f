"""The Kubernetes files by the schemas of what reads them.

No package carries KubeRay's schema or Prefect's chart. The fields of theirs that are used are listed here, from KubeRay
1.7 and the chart prefect-worker of August 2026; what is Kubernetes' own inside them goes to its schemas, which refuse
unknown keys.
"""

import copy
import json
from importlib import resources
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
from referencing import Registry, Resource

from tests.deploy.objects import CLUSTER, OBJECTS, PODS, VALUES, WORKER

VERSION = "1.31"  # the oldest that is promised

COUNT = {"type": "integer", "minimum": 0}
GROUP = {
    "rayStartParams": {"type": "object", "additionalProperties": {"type": "string"}},
    "template": {"type": "object"},
}
RAY_CLUSTER = {
    "authOptions": {"properties": {"mode": {"enum": ["disabled", "token"]}}, "additionalProperties": False},
    "rayVersion": {"type": "string"},
    "enableInTreeAutoscaling": {"type": "boolean"},
    "autoscalerOptions": {
        "properties": {
            "version": {"enum": ["v1", "v2"]},
            "upscalingMode": {"enum": ["Default", "Aggressive", "Conservative"]},
            "idleTimeoutSeconds": COUNT,
            "imagePullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
            "resources": {"type": "object"},
            "securityContext": {"type": "object"},
        },
        "additionalProperties": False,
    },
    "headGroupSpec": {"properties": GROUP, "required": [*GROUP], "additionalProperties": False},
    "workerGroupSpecs": {
        "type": "array",
        "items": {
            "properties": GROUP
            | dict.fromkeys(("replicas", "minReplicas", "maxReplicas", "idleTimeoutSeconds"), COUNT)
            | {"groupName": {"type": "string"}},
            "required": ["groupName", "minReplicas", "maxReplicas", *GROUP],
            "additionalProperties": False,
        },
    },
}
CHART = {
    "worker": {
        "image": {"repository", "prefectTag", "pullPolicy"},
        "config": {"workPool", "type", "installPolicy"},
        "selfHostedServerApiConfig": {"apiUrl"},
        "apiConfig": None, "command": None, "args": None, "replicaCount": None, "resources": None,
        "podSecurityContext": None, "containerSecurityContext": None, "podLabels": None, "podAnnotations": None,
        "podDisruptionBudget": None, "extraEnvVars": None, "extraVolumes": None, "extraVolumeMounts": None,
    },
    "serviceAccount": {"create", "name"},
    "role": {"create"},
    "rolebinding": {"create"},
}  # fmt: skip


def check(name: str, value: Any) -> None:
    """Raises unless Kubernetes' strict schema of that name takes the value."""
    folder = resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{VERSION}.0-local-strict"
    definitions, schema = (
        Resource.from_contents(json.loads((folder / f"{file}.json").read_text())) for file in ("_definitions", name)
    )
    registry = definitions @ (schema @ Registry())
    jsonschema.validators.Draft202012Validator(schema.contents, registry=registry).validate(value)


@pytest.mark.parametrize("document", OBJECTS, ids=lambda document: f"{document['kind']} {document['metadata']['name']}")
def test_kubernetes_takes_every_object(document: dict[str, Any]) -> None:
    if document["kind"] != "RayCluster":
        kubernetes_validate.validate(document, VERSION, strict=True)
        wrong = document | {"spce": {}}
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(wrong, VERSION, strict=True)


@pytest.mark.parametrize("name", PODS)
def test_kubernetes_takes_every_pod(name: str) -> None:
    check("podtemplatespec-v1", PODS[name])
    wrong = copy.deepcopy(PODS[name])
    wrong["spec"]["containers"][0]["resource"] = {}
    with pytest.raises(jsonschema.ValidationError):
        check("podtemplatespec-v1", wrong)


def test_the_ray_cluster_has_kuberays_fields_and_no_others() -> None:
    assert (CLUSTER["apiVersion"], set(CLUSTER)) == ("ray.io/v1", {"apiVersion", "kind", "metadata", "spec"})
    schema = {"properties": RAY_CLUSTER, "required": [*RAY_CLUSTER], "additionalProperties": False}
    jsonschema.validate(CLUSTER["spec"], schema)
    options = CLUSTER["spec"]["autoscalerOptions"]
    check("resourcerequirements-v1", options["resources"])
    check("securitycontext-v1", options["securityContext"])


def test_the_values_are_those_of_prefects_chart() -> None:
    for section, known in CHART.items():
        assert set(VALUES[section]) == set(known)
    assert set(VALUES) == set(CHART)
    for section, known in CHART["worker"].items():  # type: ignore[attr-defined]
        assert known is None or set(WORKER[section]) == known, section
    assert (WORKER["apiConfig"], WORKER["config"]["type"]) == ("selfHostedServer", "process")
