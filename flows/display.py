"""What a person sees while a run is under way: a live panel on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import NamedTuple

from rich.console import Console, Group
from rich.live import Live
from rich.progress import MofNCompleteColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBars
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from workers.work import Progress

LINE_SECONDS = 10.0


class Shards(NamedTuple):
    """How many of a run's shards are committed, how many are given up, and how many there are."""

    done: int
    failed: int
    total: int

    def __str__(self) -> str:
        return f"{self.done}/{self.total} shards" + (f" ({self.failed} failed)" if self.failed else "")


Update = Callable[[Progress, Shards], None]


def say(message: str) -> None:
    """One line for the person at the terminal or the log."""
    print(message, file=sys.stderr, flush=True)


def counted(count: int, noun: str) -> str:
    """The count with its noun, in the plural where it is one."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


@contextmanager
def shown(images: int) -> Iterator[Update]:
    """An ``update(progress, shards)`` to call as often as one likes."""
    console = Console(stderr=True)
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4, transient=True) as live:
            yield lambda progress, shards: live.update(_panel(progress, images, shards))
    else:
        last = [time.monotonic()]

        def update(progress: Progress, shards: Shards) -> None:
            if time.monotonic() - last[0] >= LINE_SECONDS:
                last[0] = time.monotonic()
                say(line(progress, images, shards))

        yield update


@contextmanager
def counting(noun: str, total: int) -> Iterator[Callable[[], None]]:
    """A function to call once a thing: a bar on a terminal, a line now and then elsewhere."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (*ProgressBars.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
        with ProgressBars(*columns, console=console, transient=True) as bars:
            task = bars.add_task(noun, total=total)
            yield lambda: bars.advance(task)
    else:
        seen, last = count(1), [time.monotonic()]

        def step() -> None:
            done = next(seen)
            if time.monotonic() - last[0] >= LINE_SECONDS:
                last[0] = time.monotonic()
                say(f"{done}/{total} {noun}")

        yield step


def line(progress: Progress, images: int, shards: Shards) -> str:
    """The state of a run in one line."""
    facts = [
        f"{progress.done}/{images} images",
        f"{progress.failed} failed",
        str(shards),
        f"{_rate(progress)} images/s",
        f"ETA {_eta(progress, images)}",
        ", ".join(f"{count} {stage}" for stage, count in stages(progress)),
        pools(progress),
    ]
    if progress.deaths:
        facts.append(f"{progress.deaths} worker deaths")
    return "; ".join(facts)


def final_line(progress: Progress, images: int, shards: Shards) -> str:
    """How a run ended, in one line."""
    done = f"{progress.done}/{images} images done; {progress.failed} failed; {shards}; {_rate(progress)} images/s"
    return f"{done}; {progress.deaths} worker deaths" if progress.deaths else done


def stages(progress: Progress) -> list[tuple[str, int]]:
    """Images by stage."""
    return [
        ("to score", progress.to_score),
        ("scoring", progress.scoring),
        ("to refine", progress.to_refine),
        ("refining", progress.refining),
    ]


def pools(progress: Progress) -> str:
    """The workers that are there."""
    return f"{counted(progress.front_ends, 'front end')}, {counted(progress.refiners, 'refiner')}"


def _panel(progress: Progress, images: int, shards: Shards) -> Group:
    queue = Table.grid(padding=(0, 3))
    heads = [*(stage for stage, _ in stages(progress)), "between the pools", "workers"]
    queue.add_row(*(Text(head, style="dim") for head in heads))
    between = f"{progress.waiting_bytes / 2**20:.1f} MB"
    queue.add_row(*(str(count) for _, count in stages(progress)), between, pools(progress))
    failed = Text(f"{progress.failed} failed", style="red" if progress.failed else "dim")
    deaths = Text(f"{progress.deaths} worker deaths", style="yellow" if progress.deaths else "dim")
    head = Table.grid(padding=(0, 3))
    head.add_row(
        Text(f"{progress.done}/{images} images", style="bold"),
        failed,
        str(shards),
        f"{_rate(progress)} images/s",
        f"ETA {_eta(progress, images)}",
        deaths,
    )
    return Group(head, ProgressBar(total=max(images, 1), completed=progress.done), queue)


def _rate(progress: Progress) -> str:
    rate = progress.steady_images_per_s
    return "–" if rate is None else f"{rate:.2f}"


def _eta(progress: Progress, images: int) -> str:
    rate = progress.steady_images_per_s
    if not rate:
        return "–"
    seconds = int((images - progress.done) / rate)
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
