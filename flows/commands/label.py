"""The commands that label and that look at what was labelled."""

import sys
import time
from contextlib import nullcontext, redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows import janitor
from flows.commands.ending import conclude, miou_words, plain_errors
from flows.commands.options import AsJson, Debug, Job, OutputArgument, RecipeOption, RunOption
from flows.display import counted, say

if TYPE_CHECKING:
    from flows.outcome import Outcome
    from pipeline.config import LabelJob


def label(
    source: Annotated[
        str | None, typer.Argument(help="A folder, list, .tar or .parquet; local or an fsspec URL.")
    ] = None,
    output: Annotated[str | None, typer.Argument(help="Where masks, plans, recipes and reports go.")] = None,
    front_end: Annotated[str | None, typer.Option(help="The network; upernet_lite if left out.")] = None,
    weights: Annotated[str | None, typer.Option(help="A safetensors file; bundled weights if left out.")] = None,
    back_end: Annotated[str | None, typer.Option(help="The field; densecrf if left out.")] = None,
    split: Annotated[str | None, typer.Option(help="VOC layout: a name in ImageSets/Segmentation.")] = None,
    truth: Annotated[str | None, typer.Option(help="A folder of truth masks, paired by file stem.")] = None,
    job: Job = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Label what is new in SOURCE. Run it again to continue after a crash; what is done is not done twice."""
    with plain_errors(debug, as_json):
        from pipeline import job_files
        from pipeline.config import LabelJob

        overrides: dict[str, Any] = {
            "source": {"location": source, "split": split, "truth": truth},
            "output": output,
            "recipe": {"front_end": {"name": front_end, "weights": weights}, "back_end": {"name": back_end}},
        }
        with redirect_stdout(sys.stderr):  # stdout is for the JSON line alone
            outcome = run_label(job_files.load(LabelJob, job, overrides))
        conclude(outcome, as_json)


def evaluate(
    output: OutputArgument,
    recipe: RecipeOption = None,
    run: RunOption = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write a run's mIoU report anew, from its rows."""
    with plain_errors(debug, as_json):
        from pipeline.plan import newest_run

        fingerprint, run = newest_run(output, recipe, run)
        from flows import server
        from flows.evaluate_run import evaluate_run
        from pipeline import cost

        server.start().result()
        summary = evaluate_run(output, fingerprint, run)
        if as_json:
            print(summary.model_dump_json())
        else:
            words = miou_words(summary.miou, summary.classes)
            say(f"{counted(summary.images, 'image')}, {summary.failed} failed, {words}")
            say(cost.words(summary.cost))
            say(f"report: {summary.report}")


def show(
    output: OutputArgument,
    to: Annotated[str | None, typer.Option(help="A local folder; OUTPUT/show (or ./show) if left out.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Pictures at most.")] = 60,
    recipe: RecipeOption = None,
    run: RunOption = None,
    debug: Debug = False,
) -> None:
    """Write overlays as PNG, and a gallery page."""
    with plain_errors(debug):
        from pipeline import storage
        from pipeline.gallery import write_gallery
        from pipeline.plan import newest_run

        fingerprint, run = newest_run(output, recipe, run)
        folder = to or ("show" if storage.is_remote(output) else storage.join(storage.absolute(output), "show"))
        page = write_gallery(storage.absolute(output), fingerprint, run, folder, limit)
        say(f"gallery: {page}")


def demo(
    output: Annotated[str, typer.Argument(help="A folder for photographs and masks.")] = "densemask-demo",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Label the photographs that scikit-image carries and say where the page lies."""
    with plain_errors(debug, as_json):
        from flows.demo import write_photographs
        from pipeline import job_files, storage
        from pipeline.config import LabelJob
        from pipeline.gallery import write_gallery
        from pipeline.plan import newest_run

        folder = storage.absolute(output)
        photographs = write_photographs(storage.join(folder, "photographs"))
        content = {"source": {"location": photographs}, "output": storage.join(folder, "output")}
        job = job_files.load(LabelJob, None, content)
        with redirect_stdout(sys.stderr):
            outcome = run_label(job)
        page = write_gallery(
            job.output, *newest_run(job.output, outcome.recipe, None), storage.join(folder, "show"), 60
        )
        conclude(outcome, as_json)
        say(f"gallery: {page}")


def run_label(job: "LabelJob") -> "Outcome":
    """Plans the job here, where an error costs a second, and runs the flow only where there is work."""
    from flows.outcome import nothing_new
    from pipeline.prepare import prepare
    from workers import cluster

    started = time.monotonic()
    say(f"listing {job.source.location}")
    prepared = prepare(job)
    if not prepared.runs:
        return nothing_new(prepared, time.monotonic() - started)
    cluster.check_address()
    janitor.watch()
    from flows import server
    from flows.label_dataset import label_dataset

    ready = server.start()
    with cluster.connected() if prepared.pending else nullcontext():  # Ray starts while Prefect does
        ready.result()
        return label_dataset(job, planned=True)
