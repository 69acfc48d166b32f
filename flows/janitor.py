"""Ends what a killed command leaves behind: its Prefect server, Ray's agents.

A process that dies by ``kill -9`` cannot tidy up, and its servers would run on. The janitor is a small process that
knows its parent's descendants, sees the parent's end at the end of its own standard input, and then ends them.
"""

import os
import select
import subprocess
import sys

import psutil

LOOK_SECONDS = 0.5
GRACE_SECONDS = 5.0


def watch() -> None:
    """Has the processes that this one starts ended some seconds after it."""
    subprocess.Popen(
        [sys.executable, "-m", "flows.janitor"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C at the terminal is not for the janitor
    )


def main() -> None:
    """Watches until the parent has ended, gives its processes a moment to go by themselves, ends the rest."""
    parent = psutil.Process(os.getppid())
    family: set[psutil.Process] = set()
    while not select.select([sys.stdin], [], [], LOOK_SECONDS)[0]:
        try:
            family = {child for child in parent.children(recursive=True) if child.pid != os.getpid()}
        except psutil.NoSuchProcess:
            break
    _, left = psutil.wait_procs(family, timeout=GRACE_SECONDS)
    for process in left:
        process.kill()


if __name__ == "__main__":
    main()
