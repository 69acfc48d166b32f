"""The command by which labels leave."""

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.ending import plain_errors
from flows.commands.options import AsJson, Debug, OutputArgument, RecipeOption
from flows.display import counted, counting, say

if TYPE_CHECKING:
    from pipeline.export.job.run import Exported


def export(
    output: OutputArgument,
    format_name: Annotated[str, typer.Option("--format", "-f", help="voc, coco, label-studio or cvat.")],
    to: Annotated[str | None, typer.Option(help="A folder or URL; OUTPUT/export/FORMAT if left out.")] = None,
    where: Annotated[
        str | None, typer.Option(help="An SQL condition over the rows' columns, such as 'confidence < 0.8'.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The least certain so many; all if left out.")] = None,
    photographs: Annotated[bool, typer.Option(help="Copy photographs, or leave them where they are.")] = True,
    polygons: Annotated[bool, typer.Option("--polygons", help="coco: polygons in place of RLE.")] = False,
    recipe: RecipeOption = None,
    run: Annotated[
        str | None, typer.Option("--run", help="A run of the recipe; each image's newest row if left out.")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write masks for training or for review, the least certain images first."""
    with plain_errors(debug, as_json):
        from pipeline import storage
        from pipeline.export import load
        from pipeline.export.job.run import export_labels
        from pipeline.selection import select

        load(format_name)
        output = storage.absolute(output)
        with redirect_stdout(sys.stderr):
            say(f"reading rows of {storage.public(output)}")
            selection = select(output, recipe, run, where)
            total = min(len(selection.images), limit or len(selection.images))
            with counting("images", total) as step:
                exported = export_labels(
                    selection, format_name, to or storage.join(output, "export", format_name),
                    limit=limit, copy=photographs, polygons=polygons, progress=step,
                )  # fmt: skip
        if as_json:
            print(exported.model_dump_json(), flush=True)
        else:
            _conclude(exported)


def _conclude(exported: "Exported") -> None:
    """Says what was exported."""
    if exported.first_left_out is not None:
        say(f"{counted(exported.left_out, 'image')} left out (images.csv says why), such as {exported.first_left_out}")
    least, most = exported.confidence
    say(
        f"{counted(exported.images, 'image')} as {exported.format}, least certain first, confidence {least:.3f} to "
        f"{most:.3f}; recipe {exported.recipe}"
    )
    say(f"export: {exported.to}")
