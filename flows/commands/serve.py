"""The command that labels every night."""

from typing import Annotated

import typer

from flows import janitor
from flows.commands.ending import plain_errors
from flows.commands.options import Debug


def serve(
    job: Annotated[str, typer.Argument(metavar="JOB", help="A YAML job file, read anew each night.")],
    cron: Annotated[str, typer.Option(help="When, as cron has it: minute, hour, day, month, weekday.")] = "0 2 * * *",
    timezone: Annotated[str, typer.Option(help="Whose clock, such as Europe/Berlin.")] = "UTC",
    name: Annotated[str, typer.Option(help="The deployment's name.")] = "nightly",
    retries: Annotated[int, typer.Option(min=0, help="Further tries of a night whose failure may pass.")] = 2,
    time_limit: Annotated[float, typer.Option(min=0, help="Hours after which a night is given up.")] = 8.0,
    now: Annotated[bool, typer.Option("--now", help="Also label once at once.")] = False,
    debug: Debug = False,
) -> None:
    """Label what is new in the JOB's source every night, for as long as this command runs."""
    with plain_errors(debug):
        from flows.serving import Nightly, serve_nightly

        nightly = Nightly(
            job=job, cron=cron, timezone=timezone, name=name, retries=retries, time_limit_hours=time_limit
        )
        janitor.watch()
        serve_nightly(nightly, now)
