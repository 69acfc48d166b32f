"""The Prefect server that a command talks to: the one that PREFECT_API_URL names, or one of its own."""

import logging
import signal
import threading
from concurrent.futures import Future

import httpx
from prefect.logging.configuration import setup_logging
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import get_current_settings

from flows.run_log import PREFECT_LOGGERS
from pipeline import storage
from pipeline.errors import ConfigError


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
