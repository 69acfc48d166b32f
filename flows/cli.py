"""The ``densemask`` command."""

import sys

import typer

from flows.commands.export import export
from flows.commands.label import demo, evaluate, label, show
from flows.commands.reprocess import promote, prune, reprocess
from flows.commands.serve import serve
from flows.commands.train import train
from flows.commands.weights import convert, models

app = typer.Typer(
    help="Labels image archives: a segmentation network, a dense CRF behind it, masks and mIoU reports in Parquet.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (label, evaluate, show, export, serve, reprocess, promote, prune, train, demo, convert, models):
    app.command()(command)


def main() -> None:
    """The console script."""
    sys.exit(app())


if __name__ == "__main__":
    main()
