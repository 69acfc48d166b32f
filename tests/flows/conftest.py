"""The real command, beside a real Prefect server and a real Ray cluster that run as processes of their own."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import skimage.data
from PIL import Image

BIN = Path(sys.executable).parent
SIZE = (160, 120)


class Ended(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one line on stdout."""
        (line,) = self.out.splitlines()
        return dict(json.loads(line))


Command = Callable[..., Ended]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a user's shell has, with a Prefect home of its own; no cluster and no server are configured."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "RAY_"))}
    # Whether Ray asks for a token depends on what lies in the home folder; here it never does.
    return kept | {
        "RAY_AUTH_MODE": "disabled",
        "RAY_metrics_report_interval_ms": "1000",
        "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")),
        "COLUMNS": "200",
    }


@pytest.fixture(scope="session")
def prefect_server(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The API URL of a running Prefect server."""
    port = free_port()
    ui = tmp_path_factory.mktemp("ui")
    settings = environment | {
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(ui),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect-server")),
    }
    command = [str(BIN / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with open(ui / "log", "wb") as log:
        process = subprocess.Popen(command, env=settings, stdout=log, stderr=log, start_new_session=True)
    try:
        until_it_answers(f"{settings['PREFECT_API_URL']}/health", process, ui / "log")
        yield settings["PREFECT_API_URL"]
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="session")
def ray_head(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Ray cluster of one node with two logical cores."""
    log = tmp_path_factory.mktemp("ray") / "log"
    with running_ray_head(environment, log) as address:
        yield address


@contextmanager
def running_ray_head(environment: dict[str, str], log: Path, *arguments: str) -> Iterator[str]:
    """The address of a cluster whose head has two logical cores."""
    port = free_port()
    # Ray's sockets do not bear pytest's long paths; tests know their own Ray by the process's number.
    folder = Path(tempfile.mkdtemp(prefix=f"ray-{os.getpid()}-", dir="/tmp"))
    head = ("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}", "--disable-usage-stats")
    try:
        with running_ray_node(environment, log, *head, "--num-cpus=2", *arguments):
            yield f"127.0.0.1:{port}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_ray_node(
    environment: dict[str, str], log_file: Path, *arguments: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """``ray start`` on this machine, until it is no longer needed."""
    command = [
        str(BIN / "ray"), "start", "--node-ip-address=127.0.0.1", "--block",
        f"--object-store-memory={256 * 2**20}", *arguments,
    ]  # fmt: skip
    with open(log_file, "wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 90
        while b"Ray runtime started" not in log_file.read_bytes():
            assert process.poll() is None, log_file.read_text()
            assert time.monotonic() < deadline, log_file.read_text()
            time.sleep(0.2)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def configured(environment: dict[str, str], prefect_server: str, ray_head: str) -> dict[str, str]:
    """A shell in which the server and the cluster are named."""
    return environment | {"PREFECT_API_URL": prefect_server, "RAY_ADDRESS": ray_head}


@pytest.fixture
def densemask(environment: dict[str, str]) -> Command:
    """Runs the command to its end."""

    def run(*arguments: str, env: dict[str, str] | None = None, timeout: float = 200) -> Ended:
        process = start(*arguments, env=env or environment)
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
        return Ended(process.returncode, out, err)

    return run


def start(*arguments: str, env: dict[str, str]) -> "subprocess.Popen[str]":
    """The command, under way, in a process group of its own as a shell would have it."""
    command = [str(BIN / "densemask"), *arguments]
    return subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 small photographs: crops of an astronaut, a cat and a cup."""
    folder = tmp_path_factory.mktemp("photographs")
    write_photographs(folder, 24)
    return folder


def write_photographs(folder: Path, count: int) -> None:
    """Crops of scikit-image's photographs as JPEG; all differ."""
    folder.mkdir(exist_ok=True)
    sources = [
        Image.fromarray(image()) for image in (skimage.data.astronaut, skimage.data.chelsea, skimage.data.coffee)
    ]
    for index in range(count):
        image = sources[index % 3]
        shift = 3 * index
        crop = image.crop((shift, shift // 2, image.width - 30, image.height - 20)).resize(SIZE)
        crop.save(folder / f"photo-{index:03d}.jpg", quality=90)


def write_truth(photographs: Path, folder: Path) -> None:
    """A mask a photograph: a person (or what one takes for one) in the middle, void around it."""
    folder.mkdir(exist_ok=True)
    truth = np.full(SIZE[::-1], 255, np.uint8)
    truth[20:100, 30:130] = 0
    truth[30:100, 50:110] = 15
    for path in photographs.iterdir():
        Image.fromarray(truth).save(folder / f"{path.stem}.png")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until_it_answers(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Waits for a server."""
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.3)
