"""The events of a run as lines of the flow run's log: one an event, key=value, so that both people and programs read
them."""

import json
import logging
import re
from collections.abc import Iterable
from typing import Any

from flows.outcome import Outcome
from pipeline import storage
from pipeline.cost import words
from pipeline.prepare import Prepared
from workers.journal import Event

LEVELS = {
    "shard.failed": logging.ERROR,
    "shard.commit_retried": logging.WARNING,
    "worker.died": logging.WARNING,
    "image.unreadable": logging.WARNING,
    "image.rejected": logging.WARNING,
    "image.quarantined": logging.WARNING,
}
PREFECT_LOGGERS = ("", "prefect", "prefect.flow_runs", "prefect.task_runs")
_PLAIN = re.compile(r"[^\s\"=\\]+")


class _Scrubbing(logging.Filter):
    """Takes what URLs hide out of a record: out of its message, and out of its traceback with all that led to it."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = storage.scrubbed(record.getMessage()), ()
        if record.exc_info:
            record.exc_text = storage.scrubbed(logging.Formatter().formatException(record.exc_info))
        return True


def guard() -> None:
    """Sees to it that Prefect, which logs the traceback of what fails, keeps no secret of it."""
    for name in PREFECT_LOGGERS:
        for handler in logging.getLogger(name).handlers:
            if not any(isinstance(each, _Scrubbing) for each in handler.filters):
                handler.addFilter(_Scrubbing())


def write(logger: Any, events: Iterable[Event]) -> None:
    """Writes the events to a logger of Prefect's."""
    for event in events:
        logger.log(LEVELS.get(event.kind, logging.INFO), line(event))


def opening(prepared: Prepared) -> Event:
    """What the run is about to do."""
    images = sum(shard.images for shard in prepared.pending)
    facts = {"recipe": prepared.recipe.fingerprint, "images": images, "shards": len(prepared.pending)}
    return Event("run.started", prepared.newest or "", facts=facts)


def ending(outcome: Outcome) -> Event:
    """What the run has done."""
    wanted = {"recipe", "images", "ok", "failed", "shards", "seconds", "images_per_s", "miou", "report"}
    facts = outcome.model_dump(include=wanted) | {"miou": None if outcome.miou is None else round(outcome.miou, 4)}
    return Event("run.ended", outcome.run or "", facts=facts | {"cost": words(outcome.cost) if outcome.cost else None})


def line(event: Event) -> str:
    """``event=image.unreadable run=2026-01-01-0001 shard=3 image=a/b.jpg reason="the file is empty"``."""
    named = {"event": event.kind, "run": event.run, "shard": event.shard, "image": event.image}
    present = {name: value for name, value in named.items() if value not in ("", None)}
    return " ".join(f"{name}={_value(value)}" for name, value in (present | event.facts).items())


def _value(value: Any) -> str:
    """As it is where it is one word; else as JSON, which has no line breaks."""
    plain = value if isinstance(value, str) else json.dumps(value)
    printable = plain.isprintable()
    return plain if printable and _PLAIN.fullmatch(plain) else json.dumps(value, ensure_ascii=not printable)
