"""What a user installs: the wheel, away from the tree."""

import json
import os
import subprocess
import sys
import sysconfig
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
    assert wheel.stat().st_size < 20 * 2**20
    names = set(zipfile.ZipFile(wheel).namelist())
    for model in ("upernet_efficientnet_lite0_voc21", "upernet_efficientnet_lite0_camvid11"):
        assert {f"pipeline/weights/{model}.safetensors", f"pipeline/weights/{model}.md"} <= names
    assert "pipeline/templates/report.html.j2" in names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"pipeline", "workers", "flows"}


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel, and this one's packages but not its editable install."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(packages)
    # A path from a .pth file is searched, but .pth files in it are not read.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin" / "python"


def test_the_wheel_labels_photographs_on_its_own(python: Path, tmp_path: Path) -> None:
    write_photographs(tmp_path / "photographs", 2)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PREFECT_", "PYTHON"))}
    env |= {"PREFECT_HOME": str(tmp_path / "prefect")}
    where = [str(python), "-c", "from pipeline.backends.lattice import _engine; print(_engine.__file__)"]
    found = subprocess.run(where, env=env, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert Path(found.strip()).is_relative_to(python.parents[1])

    before = installed(python)
    command = [str(python), "-m", "flows.cli", "label", "photographs", "out", "--json"]
    ended = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=200)

    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["ok"] == 2
    assert len(list((tmp_path / "out").rglob("report.html"))) == 1
    assert installed(python) == before, "in an image these folders are root's and read-only"


def installed(python: Path) -> dict[Path, int]:
    """The environment's files, but for the bytecode that an installation makes beforehand."""
    files = (path for path in python.parents[1].rglob("*") if path.is_file() and path.parent.name != "__pycache__")
    return {path: path.stat().st_mtime_ns for path in files}
