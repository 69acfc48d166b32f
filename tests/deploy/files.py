"""The files of deploy/ as their readers take them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
USER = 10001  # of the image
# What deploy/.env holds, made up.
SECRETS = {
    "POSTGRES_PASSWORD": "a-postgres-password",
    "RAY_AUTH_TOKEN": "a-ray-token",
    "GRAFANA_PASSWORD": "a-grafana-password",
    "AWS_ACCESS_KEY_ID": "an-access-key",
    "AWS_SECRET_ACCESS_KEY": "a-secret-key",
}


def tool(name: str) -> str:
    """The path of a checker; it comes with the extra ``dev`` where there is a build of it for the machine."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is not installed: its checks of deploy/ were not made")
    return found


def compose(*files: str, **environment: str) -> dict[str, Any]:
    """The composition as docker compose reads it, which refuses what its schema does not know."""
    given = [argument for file in files for argument in ("-f", str(DEPLOY / file))]
    command = [tool("docker-compose"), "--env-file", os.devnull, *given, "config"]
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    ended = subprocess.run(command, env=kept | environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return dict(yaml.safe_load(ended.stdout))


def documents(name: str) -> list[dict[str, Any]]:
    """The documents of a file in deploy/kubernetes."""
    return list(yaml.safe_load_all((KUBERNETES / name).read_text()))


def one(name: str, kind: str) -> dict[str, Any]:
    """A file's document of a kind."""
    (found,) = [document for document in documents(name) if document["kind"] == kind]
    return found
