"""What was written, as a model; what is wrong with it in sentences that name the key, the value and what is allowed."""

from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pipeline import storage
from pipeline.errors import ConfigError

MAX_SHOWN = 120

M = TypeVar("M", bound=BaseModel)


def checked(model: type[M], content: Any, where: str) -> M:
    """The content as a model, or a ConfigError that names the key, the value and what is known there."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ConfigError("; ".join(_plain(problem, where, model) for problem in error.errors())) from error


def _plain(problem: Any, where: str, model: type[BaseModel]) -> str:
    """One pydantic problem as a sentence."""
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key '{key}'{_nearest(problem['loc'], model)}"
    if problem["type"] == "missing":
        return f"{where}: '{key}' is missing"
    given = problem["input"]
    written = repr(storage.public(given)) if isinstance(given, str) else storage.scrubbed(repr(given))
    shown = written if len(written) <= MAX_SHOWN else f"{written[:MAX_SHOWN]}..."
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "model_type":
        message = "a mapping of keys to values is needed"
    return f"{where}: {key} = {shown}: {message}" if key else f"{where}: {shown}: {message}"


def _nearest(location: tuple[Any, ...], model: Any) -> str:
    """The keys that exist where an unknown one was written."""
    for part in location[:-1]:
        field = getattr(model, "model_fields", {}).get(part)
        model = getattr(field, "annotation", None)
    known = list(getattr(model, "model_fields", {}))
    close = get_close_matches(str(location[-1]), known, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known here: {', '.join(known)}" if known else "; there are none here"
