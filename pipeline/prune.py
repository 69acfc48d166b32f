"""Recipes that nobody needs any more: what they hold, and their end."""

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from pipeline import plan, recipes, storage, succession
from pipeline.errors import AbsentError, ConfigError

# In the order of their deletion. After a crash in the middle the plans still say what the masks were to be, so that a
# labelling goes on instead of beginning beside what is left; and the recipe, which goes last, is still listed here.
PARTS = ("scores", "reports", "masks", "plans")
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")


class Superseded(BaseModel):
    """A recipe of an output, and what it takes up."""

    model_config = ConfigDict(frozen=True)

    recipe: str
    front_end: str
    back_end: str
    created: datetime
    images: int
    size: int  # bytes
    open_shards: int  # planned and not committed: a run is under way, or was broken off


class Candidate(NamedTuple):
    """What the choice between recipes goes by."""

    fingerprint: str
    created: datetime


def superseded(candidates: Sequence[Candidate], current: str, earlier: Sequence[str], keep: int) -> list[str]:
    """The recipes that may go, the oldest first: all but the current one and ``keep`` more.

    Kept are first the one that was current before, which `densemask promote --back` comes to, then the youngest.
    """
    others = sorted((one for one in candidates if one.fingerprint != current), key=lambda one: one.created)
    others.sort(key=lambda one: one.fingerprint == next(iter(earlier), None))
    return [one.fingerprint for one in others[: max(0, len(others) - keep)]]


def choose(output: str, keep: int, named: Sequence[str]) -> list[Superseded]:
    """The recipes that may go, or those that are named.

    Raises ConfigError for the current one and for one that is not there.
    """
    if named:
        for fingerprint in named:
            _check(output, fingerprint)
        return [measure(output, fingerprint) for fingerprint in dict.fromkeys(named)]
    documents = [recipes.read_document(output, fingerprint) for fingerprint in recipes.known(output)]
    candidates = [Candidate(document.fingerprint, document.created) for document in documents]
    return [
        measure(output, one)
        for one in superseded(candidates, recipes.current(output), succession.earlier(output), keep)
    ]


def measure(output: str, fingerprint: str) -> Superseded:
    """What a recipe holds. Lists all of its objects."""
    document = recipes.read_document(output, fingerprint)
    runs = plan.runs(output, fingerprint)
    return Superseded(
        recipe=fingerprint,
        front_end=document.recipe.front_end.name,
        back_end=document.recipe.back_end.name,
        created=document.created,
        images=sum(shard.images for run in runs for shard in plan.shards(output, fingerprint, run)),
        size=sum(entry.size for part in PARTS for entry in _objects(_folder(output, part, fingerprint))),
        open_shards=len(plan.pending(output, fingerprint)),
    )


def delete(output: str, fingerprint: str, show: Callable[[str], None]) -> None:
    """Deletes all that a recipe has made, and the recipe. Says each folder before it goes.

    Raises ConfigError where it is the current one by now.
    """
    _check(output, fingerprint)
    succession.forget(output, fingerprint)
    for part in PARTS:
        folder = _folder(output, part, fingerprint)
        for name in reversed(storage.names(folder)):  # the newest run first: whoever plans counts the runs before it
            show(storage.join(folder, name))
            storage.delete(storage.join(folder, name))
        storage.delete(folder)
    storage.delete(recipes.location(output, fingerprint))


def _check(output: str, fingerprint: str) -> None:
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise ConfigError(f"{fingerprint!r} is no recipe; a fingerprint has 16 hex digits")
    recipes.read_document(output, fingerprint)
    if recipes.current(output) == fingerprint:
        raise ConfigError(f"recipe {fingerprint} is the current one of {output}, which readers take")


def _folder(output: str, part: str, fingerprint: str) -> str:
    return storage.join(output, part, f"recipe={fingerprint}")


def _objects(folder: str) -> Iterator[storage.Entry]:
    try:
        yield from storage.walk(folder)
    except AbsentError:
        return
