"""The commands about weights: bring a checkpoint in, and say what there is."""

import json
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.display import say
from pipeline import storage
from pipeline.catalogue import Model, describe, models
from pipeline.classes import read_classes
from pipeline.weights import hugging_face
from pipeline.weights.convert import Converted, File, convert_all

MOST_SHOWN = 6


def convert_checkpoint(
    given: Sequence[str], front_end: str, out: str, classes: str | None, layout: str | None, as_json: bool
) -> None:
    """Writes checkpoints as native weights, whole or not at all, and says what became of its tensors."""
    named = read_classes(classes) if classes is not None else None
    if front_end == hugging_face.FRONT_END and len(given) == 1 and storage.is_folder(given[0]):
        converted = hugging_face.convert_folder(storage.absolute(given[0]), named)
    else:
        files = [File(storage.public(each).rpartition("/")[2], storage.read(each)) for each in given]
        converted = convert_all(files, front_end, named, layout)
    storage.put(out, converted.data)
    if as_json:
        print(json.dumps({"weights": storage.public(out), "sha256": converted.sha256, **_facts(converted)}))
        return
    table = Table.grid(padding=(0, 3))
    for row in _lines(converted):
        table.add_row(*map(Text, row))  # a plain string would be read as markup
    Console(stderr=True, highlight=False, soft_wrap=True).print(table)
    say(f"now: densemask label SOURCE OUT --front-end {front_end} --weights {storage.public(out)}")


def show_models(as_json: bool) -> None:
    """What can be built, as a table or as a JSON line."""
    known = models()
    if as_json:
        print(json.dumps([model.model_dump(mode="json") for model in known]))
        return
    Console(highlight=False).print(listing(known))


def listing(known: Sequence[Model]) -> Table:
    """The models as a table for 80 columns and more."""
    table = Table(box=box.SIMPLE)
    table.add_column("front end")
    for head in ("classes", "parameters", "stride"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("weights", min_width=11)
    for model in known:
        table.add_row(*_cells(model))
    return table


def show_weights(location: str, as_json: bool) -> None:
    """What a native file says of itself."""
    facts = describe(location)
    if as_json:
        print(json.dumps(facts))
        return
    table = Table.grid(padding=(0, 3))
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), Text(value if isinstance(value, str) else json.dumps(value)))
    Console(highlight=False).print(table)


def _facts(converted: Converted) -> dict[str, object]:
    return {
        "layout": converted.layout,
        "used": converted.used,
        "left_over": converted.left_over,
        "parameters": converted.parameters,
        "classes": list(converted.notes.classes),
        "source_sha256": converted.notes.source_sha256,
    }


def _lines(converted: Converted) -> list[tuple[str, str]]:
    """What the user is told: a name and a value a line."""
    by_reason: dict[str, list[str]] = {}
    for name, why in converted.left_over.items():
        by_reason.setdefault(why, []).append(name)
    classes = converted.notes.classes
    return [
        ("layout", converted.layout),
        ("tensors used", f"{converted.used}"),
        *(("left over", f"{_few(names)} ({len(names)}): {why}") for why, names in by_reason.items()),
        ("classes", f"{len(classes)}: {_few(classes)}"),
        ("parameters", f"{converted.parameters:,}"),
        ("sha256", converted.sha256),
    ]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_SHOWN]) + (", ..." if len(names) > MOST_SHOWN else "")


def _cells(model: Model) -> list[Text]:
    """The model as a row of the table."""
    choices = ", ".join(f"{name}={value}" for name, value in model.architecture.items() if name != "classes")
    measured = [f"mIoU {miou:.3f} on {data}" for data, miou in model.measured.items()]
    about = "".join(f"\n{line}" for line in (model.network, choices, *measured) if line)
    return [
        Text.assemble((model.front_end, "bold"), about, "\n"),
        Text(str(model.classes)),
        Text("" if model.parameters is None else f"{model.parameters:,}"),
        Text("" if model.stride is None else str(model.stride)),
        Text(model.weights),
    ]
