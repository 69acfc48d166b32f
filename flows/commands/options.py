"""Options that several commands have."""

from typing import Annotated

import typer

Job = Annotated[str | None, typer.Option("--job", help="A YAML job file; the command line goes before it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON line at the end, on a red end too.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
OutputArgument = Annotated[str, typer.Argument(help="The output of a labelling: a folder or an fsspec URL.")]
RecipeOption = Annotated[
    str | None, typer.Option("--recipe", help="A fingerprint; the output's current one if left out.")
]
RunOption = Annotated[str | None, typer.Option("--run", help="A run of the recipe; the newest if left out.")]
