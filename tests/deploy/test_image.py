"""The image: what builds it is well formed, and names only what there is."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.deploy.files import DEPLOY, ROOT, USER, tool

DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
INSTRUCTIONS = re.sub(r"\\\n\s*", "", DOCKERFILE).splitlines()


def test_hadolint_finds_nothing(tmp_path: Path) -> None:
    clean = subprocess.run([tool("hadolint"), str(DEPLOY / "Dockerfile")], capture_output=True, text=True)
    assert clean.returncode == 0, clean.stdout + clean.stderr

    bad = tmp_path / "Dockerfile"
    bad.write_text(DOCKERFILE.replace("--no-install-recommends ", ""))
    assert subprocess.run([tool("hadolint"), str(bad)], capture_output=True).returncode != 0


def test_the_build_copies_what_is_there_and_what_its_ignore_file_lets_in() -> None:
    copied = [
        source
        for line in INSTRUCTIONS
        if line.startswith("COPY ") and "--from=" not in line
        for source in line.split()[1:-1]
        if not source.startswith("--")
    ]
    allowed = re.findall(r"^!(.+)$", (DEPLOY / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    assert set(copied) == set(allowed)
    assert all((ROOT / source).exists() for source in copied)


def test_the_build_has_what_the_wheel_is_made_of() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = set(project["tool"]["scikit-build"]["sdist"]["include"]) | {"pyproject.toml", "requirements.lock"}
    assert all(re.search(rf"^COPY .*\b{re.escape(name)}\b", DOCKERFILE, re.MULTILINE) for name in needed)
    (extras,) = re.findall(r"^ARG EXTRAS=(.+)$", DOCKERFILE, re.MULTILINE)
    assert set(extras.split(",")) <= set(project["project"]["optional-dependencies"])
    (version,) = re.findall(r"^ARG VERSION=(.+)$", DOCKERFILE, re.MULTILINE)
    assert version == project["project"]["version"]


def test_it_runs_as_a_user_that_owns_nothing_but_its_home() -> None:
    stage = INSTRUCTIONS[max(number for number, line in enumerate(INSTRUCTIONS) if line.startswith("FROM ")) :]
    users = [line.split()[1] for line in stage if line.startswith("USER ")]
    assert users == [f"{USER}:{USER}"]
    assert f"useradd --uid {USER}" in DOCKERFILE
    assert "--chown" not in DOCKERFILE
    assert not [line for line in stage[stage.index(f"USER {USER}:{USER}") :] if line.startswith("COPY ")]


def test_the_workers_script_says_what_it_needs() -> None:
    for environment, missing in (({}, "RAY_ADDRESS"), ({"RAY_ADDRESS": "head:6379"}, "PREFECT_API_URL")):
        command = ["bash", str(DEPLOY / "worker.sh"), "densemask"]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert ended.returncode != 0
        assert missing in ended.stderr


@pytest.mark.parametrize("dies", ["ray", "prefect"])
def test_the_workers_script_ends_when_either_of_its_processes_does(dies: str, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    both = f"until [ $(wc -l < {calls}) = 2 ]; do sleep 0.05; done"
    for name in ("ray", "prefect"):
        script = tmp_path / name
        script.write_text(f"#!/bin/bash\necho {name} $* >> {calls}\n{both if name == dies else 'exec sleep 60'}\n")
        script.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:/usr/bin:/bin",
        "RAY_ADDRESS": "head:6379",
        "PREFECT_API_URL": "http://server:4200/api",
    }
    command = ["bash", str(DEPLOY / "worker.sh"), "a-pool", "--metrics-export-port=8080"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 1
    assert set(calls.read_text().splitlines()) == {
        "ray start --address=head:6379 --num-cpus=0 --num-gpus=0 --block --metrics-export-port=8080",
        "prefect worker start --pool a-pool --type process",
    }
