"""The Prefect server that a command talks to: the one that PREFECT_API_URL names, or one of its own."""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import IO

import httpx
from prefect.context import refresh_global_settings_context
from prefect.logging.configuration import setup_logging
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import get_current_settings

from flows.run_log import PREFECT_LOGGERS
from pipeline import storage
from pipeline.errors import ConfigError

POLL_SECONDS = 0.3
_WAYS_OUT = "name the server that runs there with PREFECT_API_URL, or another port with PREFECT_SERVER_API_PORT"


def start() -> "Future[None]":
    """Sees to it that flows have a server; the future comes when it answers.

    One of our own starts in a thread that blocks SIGINT, and its process inherits that: a Ctrl-C at the terminal goes
    to the whole process group, and without its server a flow could not end. Raises ConfigError where a server is named
    and does not answer.
    """
    _quiet()
    ready: Future[None] = Future()
    url = get_current_settings().api.url
    if url is not None:
        _check(url)
        ready.set_result(None)
    else:
        threading.Thread(target=_serve, args=(ready,), name="prefect-server", daemon=True).start()
    return ready


def _serve(ready: "Future[None]") -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        SubprocessASGIServer().start()
    except Exception as error:
        ready.set_exception(error)
    else:
        ready.set_result(None)


@contextmanager
def with_dashboard() -> Iterator[str]:
    """The URL of the dashboard of a Prefect server that keeps schedules: the one that is named, or one of our own.

    One of our own listens where PREFECT_SERVER_API_HOST and _PORT say (127.0.0.1:4200 if nothing does) and ends with
    the context. Raises ConfigError where a named one does not answer, or where ours cannot listen.
    """
    _quiet()
    settings = get_current_settings()
    if settings.api.url is not None:
        _check(settings.api.url)
        yield settings.ui_url or settings.api.url.removesuffix("/api")
        return
    url = f"http://{settings.server.api.host}:{settings.server.api.port}"
    os.environ["PREFECT_API_URL"] = f"{url}/api"
    refresh_global_settings_context()
    with _serving(settings.server.api.host, settings.server.api.port, f"{url}/api"):
        yield url


@contextmanager
def _serving(host: str, port: int, api: str) -> Iterator[None]:
    """A Prefect server as a process of its own, which a Ctrl-C at the terminal does not reach."""
    settings = get_current_settings()
    environment = os.environ | {
        "PREFECT_SERVER_UI_ENABLED": "true",
        "PREFECT_SERVER_UI_API_URL": api,
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": settings.server.ui.static_directory or str(settings.home / "ui"),
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", host, "--port", str(port)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, process_group=0)
        try:
            while not _answers(api) or process.poll() is not None:
                if process.poll() is not None:
                    raise ConfigError(f"no Prefect server can start at {host}:{port}: {_last_line(log)}; {_WAYS_OUT}")
                time.sleep(POLL_SECONDS)
            yield
        finally:
            process.terminate()
            process.wait()


def _answers(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health", timeout=2).is_success
    except httpx.HTTPError:
        return False


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it ended without a word")


def _check(url: str) -> None:
    try:
        httpx.get(f"{url}/health", timeout=10)
    except httpx.HTTPError as error:
        message = f"no Prefect server answers at PREFECT_API_URL={url}: {error}"
        raise ConfigError(storage.scrubbed(message)) from error


def _quiet() -> None:
    """Prefect's own lines go to its server, not to the terminal."""
    setup_logging()
    for name in PREFECT_LOGGERS:
        for handler in logging.getLogger(name).handlers:
            if type(handler).__name__ == "PrefectConsoleHandler":
                handler.setLevel(logging.CRITICAL + 1)
