"""Ends what a killed command leaves behind: its Prefect server, Ray's agents, workers.

A process that dies by ``kill -9`` cannot tidy up, and its servers would run on. The janitor is a small process that
sees its parent's end at the end of its own standard input, and then ends the parent's descendants: those that it saw
while the parent lived (some wipe their environment when they rename themselves), and those that bear the parent's mark
in their environment (some start in the parent's last moment and are orphans when the janitor looks). What both starts
and wipes its environment in the last half second escapes it.
"""

import os
import select
import subprocess
import sys
import uuid

import psutil

MARK = "DENSEMASK_COMMAND"
LOOK_SECONDS = 0.5
GRACE_SECONDS = 5.0


def watch() -> None:
    """Has the processes that this one starts from now on ended some seconds after it."""
    os.environ[MARK] = uuid.uuid4().hex
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
            # Added to what was seen before: a look in the moment of the parent's death finds but a part.
            family |= {child for child in parent.children(recursive=True) if child.pid != os.getpid()}
        except psutil.NoSuchProcess:
            break
    psutil.wait_procs(family, timeout=GRACE_SECONDS)
    while left := [process for process in family | _marked(os.environ[MARK]) if _lives(process)]:
        for process in left:
            process.kill()
        psutil.wait_procs(left, timeout=GRACE_SECONDS)


def _lives(process: psutil.Process) -> bool:
    """Whether there is something left to kill; a zombie only waits for its parent."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _marked(mark: str) -> set[psutil.Process]:
    """The processes that were started under the mark, this one left out."""
    marked = set()
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.pid != os.getpid():
                marked.add(process)
        except psutil.Error:
            continue
    return marked


if __name__ == "__main__":
    main()
