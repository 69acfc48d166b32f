"""docs/job.md, made from the models that read job files: ``make docs``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from pipeline import backends
from pipeline.config import LabelJob
from pipeline.preprocessing import Preprocessing
from pipeline.reprocess import SETTINGS, ReprocessJob
from pipeline.training.config import TrainJob

FILE = Path(__file__).resolve().parents[2] / "docs" / "job.md"
HEAD = "| key | value | range | default | |\n|---|---|---|---|---|\n"
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
TYPES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "`true`, `false`",
    "object": "mapping",
}
OPENING = """\
# Job files

Made from the models that read job files, by `make docs`. Keys that are left out have the default.
A key that is not here is an error, and so is a value out of its range; both are found before anything starts. An
example is [deploy/job.yaml](../deploy/job.yaml).
"""
LABELLING = """
## Labelling

`densemask label --job FILE`, `densemask serve FILE`. The command line overrules the file.
"""
REPROCESSING = """
## Reprocessing

`densemask reprocess OUTPUT --recipe FILE`. The file is a recipe, with the keys of [`recipe`](#recipe), or has these
keys. Those that only a labelling needs (`source`, `output`, `golden`, `trend`) are passed over, so that a night's own
job file will do. Where there is no `evaluation`, that of the old recipe's newest run holds.
"""
TRAINING = """
## Training

`densemask train --job FILE`. The command line overrules the file.
"""
PARAMETERS = "recipe.back_end.parameters"


class Part(NamedTuple):
    """A model, and the key that it is found under; the top of a file has none."""

    key: str
    model: type[BaseModel]


def text() -> str:
    """The whole of docs/job.md."""
    known: dict[type[BaseModel], str] = {}
    blocks = [OPENING]
    for opening, job, keys in (
        (LABELLING, LabelJob, None),
        (REPROCESSING, ReprocessJob, SETTINGS),
        (TRAINING, TrainJob, None),
    ):
        below = list(parts(job, "", known))
        blocks += [opening, "\n", table(job, known, keys), *(section(part, known) for part in below)]
    return "".join(blocks)


def parts(model: type[BaseModel], key: str, known: dict[type[BaseModel], str]) -> Iterator[Part]:
    """The models below one that have not been shown, in the order of a file; they are known by their key then."""
    for name in ordered(model):
        inner = f"{key}.{name}".lstrip(".")
        if inner == PARAMETERS:
            yield from (Part(f"{inner} ({each})", backends.parameters(each)) for each in backends.names())
        below = nested(model, name)
        if below is not None and below not in known:
            known[below] = inner
            yield Part(inner, below)
            yield from parts(below, inner, known)


def ordered(model: type[BaseModel]) -> list[str]:
    """The model's keys: those that are needed first, its own before those that it shares with others."""
    fields = model.model_fields
    return sorted(fields, key=lambda name: (not fields[name].is_required(), name not in model.__annotations__))


def nested(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The model that a key holds, if it holds one."""
    if model is TrainJob and name == "preprocessing":  # a part of it, to be laid over the front end's own
        return Preprocessing
    annotation = model.model_fields[name].annotation
    for each in getattr(annotation, "__args__", (annotation,)):
        if isinstance(each, type) and issubclass(each, BaseModel):
            return each
    return None


def section(part: Part, known: dict[type[BaseModel], str]) -> str:
    """A model's heading, what it is and its table."""
    summary = " ".join((part.model.__doc__ or "").split("\n\n")[0].split())
    rows = f"\n{table(part.model, known)}" if part.model.model_fields else ""
    return f"\n### {part.key}\n\n{summary}\n{rows}"


def table(model: type[BaseModel], known: dict[type[BaseModel], str], keys: tuple[str, ...] | None = None) -> str:
    """A row a key."""
    properties = model.model_json_schema()["properties"]
    rows = [row(model, name, properties[name], known) for name in ordered(model) if keys is None or name in keys]
    return HEAD + "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def row(
    model: type[BaseModel], name: str, schema: dict[str, Any], known: dict[type[BaseModel], str]
) -> tuple[str, str, str, str, str]:
    """Key, value, range, default and description."""
    below = nested(model, name)
    plain = next(each for each in schema.get("anyOf", [schema]) if each.get("type") != "null")
    kind = words(plain) if below is None else f"[mapping](#{known[below].replace('.', '')})"  # as GitHub makes anchors
    return f"`{name}`", kind, limits(plain), default(model, name), model.model_fields[name].description or ""


def words(schema: dict[str, Any]) -> str:
    """What a value looks like."""
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") != "array":
        return TYPES[schema["type"]]
    item = schema.get("items") or schema["prefixItems"][0]
    count = len(schema["prefixItems"]) if "prefixItems" in schema else None
    plural = {"text": "texts", "number": "numbers", "whole number": "whole numbers"}[words(item)]
    return f"list of {count} {plural}" if count else f"list of {plural}"


def limits(schema: dict[str, Any]) -> str:
    """What range a number, or each number of a list, must be in."""
    inner = schema.get("items") or schema
    found = [f"{sign} {inner[bound]:.10g}" for bound, sign in BOUNDS.items() if bound in inner]
    if "minLength" in schema:
        found = [f"{schema['minLength']} to {schema['maxLength']} characters"]
    if schema.get("minItems") and "prefixItems" not in schema:
        found = [f"at least {schema['minItems']}", *found]
    return ", ".join(found)


def default(model: type[BaseModel], name: str) -> str:
    """The default, as YAML has it."""
    field = model.model_fields[name]
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return ""
    if isinstance(value, BaseModel) or value == {}:
        return "its defaults"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    FILE.write_text(text())
