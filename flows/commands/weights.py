"""The commands about weights."""

from typing import Annotated

import typer

from flows.commands.ending import plain_errors
from flows.commands.options import AsJson, Debug


def convert(
    checkpoint: Annotated[
        list[str], typer.Argument(help="A torch, safetensors or Caffe file; one for each network of an ensemble.")
    ],
    front_end: Annotated[str, typer.Option(help="The network that it is of; `densemask models` lists them.")],
    out: Annotated[str, typer.Option("--out", "-o", help="Where the native .safetensors file goes.")],
    classes: Annotated[
        str | None, typer.Option(help="VOC-21, CamVid-11, or a file with a line a class: name or name,R,G,B.")
    ] = None,
    layout: Annotated[str | None, typer.Option(help="How its tensors are named, where the names do not tell.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Make native weights of a published checkpoint, every tensor accounted for. Nothing in it is executed."""
    with plain_errors(debug, as_json):
        from flows.weights import convert_checkpoint

        convert_checkpoint(checkpoint, front_end, out, classes, layout, as_json)


def models(
    weights: Annotated[
        str | None, typer.Argument(help="A native .safetensors file to tell of; the front ends if left out.")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show what front ends can be built and where their weights are, or what a weights file says of itself."""
    with plain_errors(debug, as_json):
        from flows.weights import show_models, show_weights

        show_models(as_json) if weights is None else show_weights(weights, as_json)
