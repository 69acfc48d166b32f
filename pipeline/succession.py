"""Which recipe readers take, which ones they took before it, and how one follows the other.

OUT/current.json     {"recipe": the current one, "earlier": [those before it, the latest first]}
"""

import json
from typing import Any

from pipeline import plan, recipes, storage
from pipeline.errors import AbsentError, ConfigError


def earlier(output: str) -> list[str]:
    """The recipes that were current before and are still there, the latest first."""
    there = recipes.known(output)
    return [fingerprint for fingerprint in _read(output).get("earlier", []) if fingerprint in there]


def current(output: str) -> str | None:
    """The current recipe; None where none was chosen yet."""
    return _read(output).get("recipe")


def promote(output: str, fingerprint: str) -> str | None:
    """Makes a recipe the current one; the one that was, None where there was none."""
    before = current(output)
    if before != fingerprint:
        _write(output, fingerprint, [before, *earlier(output)] if before is not None else [])
    return before


def check_whole(output: str, fingerprint: str) -> None:
    """Raises ConfigError for a recipe that is not there, has labelled nothing, or has shards that are not committed."""
    recipes.read_document(output, fingerprint)
    runs = plan.runs(output, fingerprint)
    unfinished = plan.pending(output, fingerprint, runs)
    if unfinished:
        raise ConfigError(f"recipe {fingerprint} has {len(unfinished)} shards that are not committed; finish it first")
    if not runs:
        raise ConfigError(f"recipe {fingerprint} has labelled nothing in {output}")


def youngest(output: str) -> str:
    """The recipe that was made last. Raises ConfigError where there is none."""
    documents = [recipes.read_document(output, fingerprint) for fingerprint in recipes.known(output)]
    if not documents:
        raise ConfigError(f"there is no recipe in {output}; label something into it first")
    return max(documents, key=lambda document: document.created).fingerprint


def move_back(output: str) -> tuple[str, str]:
    """Makes the recipe the current one that was it before: (the one that was now, the one that is).

    Raises ConfigError where there is none.
    """
    history = earlier(output)
    if not history:
        raise ConfigError(f"no recipe was current in {output} before this one; name one with --recipe")
    before = recipes.current(output)
    _write(output, history[0], history[1:])
    return before, history[0]


def forget(output: str, fingerprint: str) -> None:
    """Takes a recipe out of those that `move_back` may come to."""
    history = earlier(output)
    if fingerprint in history:
        _write(output, recipes.current(output), [one for one in history if one != fingerprint])


def _read(output: str) -> dict[str, Any]:
    try:
        return dict(json.loads(storage.read(recipes.current_location(output))))
    except AbsentError:
        return {}


def _write(output: str, fingerprint: str, history: list[str]) -> None:
    # A recipe stands in the history once, where it was current last.
    others = [one for one in dict.fromkeys(history) if one != fingerprint]
    content = json.dumps({"recipe": fingerprint, "earlier": others})
    storage.put(recipes.current_location(output), content.encode())
