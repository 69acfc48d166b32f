"""Job files: YAML, with the command line's values laid over it."""

from typing import Any, TypeVar

import yaml
from pydantic import BaseModel

from pipeline import storage
from pipeline.errors import ConfigError
from pipeline.validation import checked

M = TypeVar("M", bound=BaseModel)


def load(model: type[M], job_file: str | None, overrides: dict[str, Any]) -> M:
    """The job of a YAML file (or of nothing) with the command line's values laid over it.

    Raises ConfigError with the key, the value and what is allowed.
    """
    content = {} if job_file is None else read_yaml(job_file, "a job starts with 'source:' and 'output:'")
    return checked(model, _overlay(content, overrides), job_file or "the command line")


def read_yaml(location: str, hint: str) -> dict[str, Any]:
    """The mapping that a YAML file holds. Raises ConfigError, with the hint where it is something else."""
    try:
        content = yaml.safe_load(storage.read(location)) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        place = getattr(error, "problem_mark", None)
        line = f" in line {place.line + 1}" if place else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{location} is not YAML: {problem}{line}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{location} holds no mapping; {hint}")
    return content


def _overlay(base: Any, over: dict[str, Any]) -> dict[str, Any]:
    """``over`` on ``base``; None in ``over`` means not given."""
    merged = dict(base) if isinstance(base, dict) else {}
    for key, value in over.items():
        if isinstance(value, dict):
            current = merged.get(key)
            if key in ("source", "val", "front_end", "back_end") and isinstance(current, str):
                current = {"location" if key in ("source", "val") else "name": current}
            if any(leaf is not None for leaf in value.values()) and (current is None or isinstance(current, dict)):
                merged[key] = _overlay(current, value)
        elif value is not None:
            merged[key] = value
    return merged
