"""Runs a command and watches the memory of its whole process tree."""

import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil

SAMPLE_SECONDS = 0.5


class Run(NamedTuple):
    """A command's last line of JSON, its wall time and its tree's largest memory."""

    outcome: dict[str, Any]
    seconds: float
    peak_mib: float


def run(command: Sequence[str]) -> Run:
    """Runs it with a Prefect home of its own; memory is the sum of PSS, in which shared pages count once."""
    with tempfile.TemporaryDirectory() as home:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "RAY_"))}
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=env | {"PREFECT_HOME": home}, text=True)
        peak = [0.0]
        watcher = threading.Thread(target=_watch, args=(process.pid, peak), daemon=True)
        watcher.start()
        out, _ = process.communicate()
        seconds = time.monotonic() - started
        watcher.join()
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return Run(json.loads(out.strip().splitlines()[-1]), seconds, peak[0])


def _watch(pid: int, peak: list[float]) -> None:
    while psutil.pid_exists(pid):
        try:
            root = psutil.Process(pid)
            if root.status() == psutil.STATUS_ZOMBIE:
                return
            family = [root, *root.children(recursive=True)]
        except psutil.Error:
            return
        total = 0
        for process in family:
            try:
                total += process.memory_full_info().pss
            except psutil.Error:
                continue
        peak[0] = max(peak[0], total / 2**20)
        time.sleep(SAMPLE_SECONDS)


def machine() -> str:
    """The processor and the memory, for a table's caption."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return f"{os.cpu_count()} cores of {model}, {psutil.virtual_memory().total / 2**30:.0f} GiB"
