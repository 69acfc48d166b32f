"""What a person sees while a network trains: a live line on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from flows.display import LINE_SECONDS, counted, say
from pipeline.pages import number
from pipeline.training.config import TrainJob
from pipeline.training.loop import Prepared, Progress


def opening(job: TrainJob, prepared: Prepared) -> str:
    """What is about to be trained, on what."""
    train, val = counted(len(prepared.train), "image"), len(prepared.val)
    return (
        f"{job.front_end}, {len(prepared.classes.names)} classes, on {train}, {val} to validate; {prepared.start.note}"
    )


@contextmanager
def shown() -> Iterator[Callable[[Progress], None]]:
    """An ``update(progress)`` to call as often as one likes; each epoch gets a line that stays."""
    console = Console(stderr=True)
    said, last = [0], [time.monotonic()]

    def keep(progress: Progress, out: Callable[[str], None]) -> None:
        if len(progress.history) > said[0]:
            said[0] = len(progress.history)
            out(epoch_line(progress))

    if console.is_terminal:
        with Live(console=console, refresh_per_second=4, transient=True) as live:

            def draw(progress: Progress) -> None:
                keep(progress, console.print)
                bar = ProgressBar(total=max(1, progress.steps), completed=progress.step)
                live.update(Group(Text(line(progress)), bar))

            yield draw
    else:

        def update(progress: Progress) -> None:
            keep(progress, say)
            if time.monotonic() - last[0] >= LINE_SECONDS:
                last[0] = time.monotonic()
                say(line(progress))

        yield update


def line(progress: Progress) -> str:
    """The state of a training in one line."""
    eta = "–"
    if progress.seconds_left is not None:
        left = int(progress.seconds_left)
        eta = f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
    facts = [
        f"epoch {progress.epoch}/{progress.epochs}",
        f"step {progress.step}/{progress.steps}",
        f"loss {number(progress.loss, 4)}",
        f"{number(progress.images_per_s, 1)} images/s",
        f"ETA {eta}",
    ]
    return "; ".join(facts)


def epoch_line(progress: Progress) -> str:
    """The last epoch in one line."""
    row = progress.history[-1]
    return f"epoch {row['epoch']}: loss {number(row['loss'], 4)}, mIoU {number(row.get('miou'), 4)}"
