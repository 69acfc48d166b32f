"""The commands that take an archive from one recipe to the next."""

import json
import sys
import time
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated

import typer

from flows import janitor
from flows.commands.ending import plain_errors
from flows.commands.options import AsJson, Debug, OutputArgument
from flows.display import counted, say
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from flows.reprocess_archive import Reprocessed
    from pipeline.prune import Superseded
    from pipeline.reprocess import ReprocessJob


def reprocess(
    output: OutputArgument,
    recipe: Annotated[
        str,
        typer.Option(help="A YAML file with the new recipe, or a job file that holds it."),
    ],
    where: Annotated[
        str | None, typer.Option(help="An SQL condition on the old rows, such as \"run >= '2026-01-01'\".")
    ] = None,
    origin: Annotated[
        str | None,
        typer.Option("--from", help="The recipe that made the old masks; the current one if left out."),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Label the images of OUTPUT by a new recipe, compare, and promote it past a gate. Run it again to continue."""
    with plain_errors(debug, as_json):
        from pipeline.reprocess import load_job

        with redirect_stdout(sys.stderr):
            outcome = run_reprocess(load_job(output, recipe, where, origin))
        _conclude(outcome, as_json)


def promote(
    output: OutputArgument,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="Its fingerprint; the youngest recipe if left out.")
    ] = None,
    back: Annotated[bool, typer.Option("--back", help="Return to the recipe that was current before.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Make a recipe the one that readers take, whatever the gate says; --back undoes it."""
    with plain_errors(debug, as_json):
        from pipeline import storage, succession

        output = storage.absolute(output)
        before: str | None
        if back:
            before, now = succession.move_back(output)
        else:
            now = recipe or succession.youngest(output)
            succession.check_whole(output, now)
            before = succession.promote(output, now)
        if as_json:
            print(json.dumps({"before": before, "recipe": now}), flush=True)
        elif before == now:
            say(f"recipe {now} is the current one already")
        else:
            say(f"recipe {now} is the current one now; before it was {before or 'none'}")


def prune(
    output: OutputArgument,
    recipes: Annotated[
        list[str] | None, typer.Argument(help="Fingerprints; all that are superseded if left out.")
    ] = None,
    keep: Annotated[
        int,
        typer.Option(min=0, help="Recipes that stay beside the current one: that before it, then the youngest."),
    ] = 1,
    delete: Annotated[bool, typer.Option("--delete", help="Delete them, after asking; else they are shown.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; for scripts.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show the recipes that the current one has superseded, and with --delete remove all that they made."""
    with plain_errors(debug, as_json):
        from pipeline import storage
        from pipeline.prune import choose
        from pipeline.prune import delete as delete_recipe

        output = storage.absolute(output)
        chosen = choose(output, keep, recipes or ())
        for one in chosen:
            say(_line(one))
        skipped = [one for one in chosen if one.open_shards and one.recipe not in (recipes or ())]
        going = [one for one in chosen if one not in skipped]
        for one in skipped:
            say(f"recipe {one.recipe} stays: a run of it is under way or was broken off; name it if it is the latter")
        sure = delete and bool(going) and (yes or _is_sure(going))
        for one in going if sure else ():
            delete_recipe(output, one.recipe, lambda folder: say(f"deleting {storage.public(folder)}"))
        _conclude_pruning(going, sure, delete, as_json)


def run_reprocess(job: "ReprocessJob") -> "Reprocessed":
    """Plans here, where an error costs a second, and runs the flow only where there is work."""
    from pipeline import comparison_report
    from pipeline.reprocess import prepare
    from workers import cluster

    started = time.monotonic()
    found = prepare(job)
    fingerprint = found.recipe.fingerprint
    compared = None if found.pending else comparison_report.up_to_date(job.output, job.origin, fingerprint)
    ready = compared is not None or fingerprint == job.origin
    if not ready:
        cluster.check_address()
        janitor.watch()
    from flows.reprocess_archive import reprocess_archive, settle, unchanged

    if ready:
        return unchanged(found, started) if compared is None else settle(job, found, compared, started)
    images = counted(sum(shard.images for shard in found.pending), "image")
    say(f"recipe {job.origin} -> {fingerprint}: {images} in {counted(len(found.pending), 'shard')}")
    from flows import server

    server.start().result()
    return reprocess_archive(job, planned=True)


def _conclude(outcome: "Reprocessed", as_json: bool) -> None:
    from pipeline.pages import number, percent

    if as_json:
        print(outcome.model_dump_json(), flush=True)
        return
    if outcome.recipe == outcome.origin:
        say(f"nothing to do: recipe {outcome.recipe} is the archive's own")
        return
    rate = f", {outcome.images_per_s:.2f} images/s" if outcome.images_per_s else ""
    say(f"{counted(outcome.images, 'image')}, {outcome.failed} failed, {outcome.seconds:.1f} s{rate}")
    truth = "no truth" if outcome.miou is None else f"mIoU {number(outcome.old_miou, 4)} -> {number(outcome.miou, 4)}"
    say(f"{truth}; {percent(outcome.churn, 2)} of the pixels changed their class; {outcome.comparison}")
    if outcome.promoted:
        say(f"recipe {outcome.recipe} is the current one now; `densemask promote --back` returns to {outcome.origin}")
    else:
        why = f"{outcome.missing} images of {outcome.origin} have no new row yet"
        say(
            f"the current recipe stays: {why if outcome.missing else f'it is not {outcome.origin}, which was compared'}"
        )


def _line(one: "Superseded") -> str:
    names = f"{one.front_end} -> {one.back_end}"
    made = f"{one.created:%Y-%m-%d %H:%M}"
    return f"recipe {one.recipe}: {names}, {counted(one.images, 'image')}, {_size(one.size)}, made {made}"


def _size(size: int) -> str:
    from rich.filesize import decimal

    return decimal(size)


def _is_sure(going: "list[Superseded]") -> bool:
    total = _size(sum(one.size for one in going))
    what = f"{counted(len(going), 'recipe')} with all masks, scores and reports, {total}"
    try:
        return typer.confirm(f"Delete {what}?", err=True)
    except typer.Abort:
        say("")
        raise ConfigError("nobody answered, so nothing is deleted; --yes deletes without asking") from None


def _conclude_pruning(going: "list[Superseded]", deleted: bool, asked: bool, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"recipes": [one.model_dump(mode="json") for one in going], "deleted": deleted}), flush=True)
        return
    count = counted(len(going), "recipe")
    if not going:
        say("nothing to prune")
    elif deleted:
        say(f"{count} deleted")
    else:
        say("nothing deleted" if asked else f"{count} could go; nothing is deleted without --delete")
