"""What a user installs: the wheel, away from the tree."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.flows.conftest import write_photographs

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, cwd=folder)
    (built,) = folder.glob("densemask-*.whl")
    return built


def test_the_wheel_carries_weights_card_and_templates_and_stays_small(wheel: Path) -> None:
    assert wheel.stat().st_size < 10 * 2**20
    names = set(zipfile.ZipFile(wheel).namelist())
    model = "pipeline/weights/fcn8s_efficientnet_lite0_voc21"
    assert {f"{model}.safetensors", f"{model}.json", f"{model}.md", "pipeline/templates/report.html.j2"} <= names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"pipeline", "workers", "flows"}


def test_the_wheel_labels_photographs_on_its_own(wheel: Path, tmp_path: Path) -> None:
    installed = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(installed)
    write_photographs(tmp_path / "photographs", 2)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PREFECT_"))}
    env |= {"PYTHONPATH": str(installed), "PREFECT_HOME": str(tmp_path / "prefect")}
    where = [sys.executable, "-c", "import pipeline; print(pipeline.__file__)"]
    found = subprocess.run(where, env=env, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert found.strip() == str(installed / "pipeline" / "__init__.py")

    command = [sys.executable, "-m", "flows.cli", "label", "photographs", "out", "--json"]
    ended = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=200)

    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["ok"] == 2
    assert len(list((tmp_path / "out").rglob("report.html"))) == 1
