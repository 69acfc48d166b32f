"""How a command ends: its last words, its exit code, its errors in one line."""

import json
import os
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from flows.display import counted, say
from pipeline import storage
from pipeline.errors import DensemaskError

if TYPE_CHECKING:
    from flows.outcome import Outcome


def conclude(outcome: "Outcome", as_json: bool) -> None:
    """Says what came of a labelling."""
    if as_json:
        print(outcome.model_dump_json(), flush=True)
    elif outcome.images == 0:
        say(f"nothing new: every image has its row (recipe {outcome.recipe})")
    else:
        rate = f", {outcome.images_per_s:.2f} images/s" if outcome.images_per_s else ""
        say(
            f"{counted(outcome.images, 'image')} in {counted(outcome.shards, 'shard')}, {outcome.failed} failed, "
            f"{outcome.seconds:.1f} s{rate}; {miou_words(outcome.miou, outcome.classes)}; "
            f"recipe {outcome.recipe}, run {outcome.run}"
        )
        if outcome.cost is not None:
            from pipeline.cost import words

            say(words(outcome.cost))
        say(f"report: {outcome.report}")


def miou_words(miou: float | None, classes: int | None) -> str:
    """An mIoU in words."""
    return "no truth, so no mIoU" if miou is None else f"mIoU {miou:.4f} over {classes} classes"


@contextmanager
def plain_errors(debug: bool, as_json: bool = False) -> Iterator[None]:
    """Errors become one line on stderr and an exit code: 2 cannot be run as asked, 1 ran and ended red."""
    signal.signal(signal.SIGTERM, _interrupted)
    signal.signal(signal.SIGINT, _interrupted)
    try:
        yield
    except DensemaskError as error:
        _say_error(error, str(error), debug, as_json)
        raise typer.Exit(error.exit_code) from None
    except Exception as error:
        hint = "" if debug else "; --debug shows where"
        _say_error(error, f"unexpected {type(error).__name__}: {error}{hint}", debug, as_json)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        say("densemask: interrupted; run the same command again to continue")
        raise typer.Exit(130) from None


def _interrupted(*_: object) -> None:
    """The first Ctrl-C ends the run in order; the second ends the process, and the janitor tidies up."""
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: os._exit(130))
    raise KeyboardInterrupt


def _say_error(error: Exception, message: str, debug: bool, as_json: bool) -> None:
    outcome, message = getattr(error, "outcome", None), storage.scrubbed(message)
    if as_json:
        fields = json.loads(outcome.model_dump_json()) if outcome is not None else {}
        print(json.dumps(fields | {"error": message}), flush=True)
    if debug:
        say(storage.scrubbed("".join(traceback.format_exception(error))))
    say(f"densemask: {' '.join(message.split())}")
