"""The ``densemask`` command."""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows import janitor
from flows.display import counted, say
from pipeline.errors import ConfigError, DensemaskError

if TYPE_CHECKING:
    from flows.outcome import Outcome
    from pipeline.config import LabelJob
    from pipeline.training.config import TrainJob
    from pipeline.training.results import Trained

app = typer.Typer(
    help="Labels image archives: a segmentation network, a dense CRF behind it, masks and mIoU reports in Parquet.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Job = Annotated[str | None, typer.Option("--job", help="A YAML job file; the command line goes before it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON line at the end, on a red end too.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
OutputArgument = Annotated[str, typer.Argument(help="The output of a labelling: a folder or an fsspec URL.")]
RecipeOption = Annotated[
    str | None, typer.Option("--recipe", help="A fingerprint; the output's current one if left out.")
]
RunOption = Annotated[str | None, typer.Option("--run", help="A run of the recipe; the newest if left out.")]


@app.command()
def label(
    source: Annotated[
        str | None, typer.Argument(help="A folder, list, .tar or .parquet; local or an fsspec URL.")
    ] = None,
    output: Annotated[str | None, typer.Argument(help="Where masks, plans, recipes and reports go.")] = None,
    front_end: Annotated[str | None, typer.Option(help="The network; fcn8s_lite if left out.")] = None,
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
        from pipeline.config import load_job

        overrides: dict[str, Any] = {
            "source": {"location": source, "split": split, "truth": truth},
            "output": output,
            "recipe": {"front_end": {"name": front_end, "weights": weights}, "back_end": {"name": back_end}},
        }
        with redirect_stdout(sys.stderr):  # stdout is for the JSON line alone
            outcome = run_label(load_job(job, overrides))
        conclude(outcome, as_json)


@app.command()
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

        server.start().result()
        summary = evaluate_run(output, fingerprint, run)
        if as_json:
            print(summary.model_dump_json())
        else:
            say(f"{counted(summary.images, 'image')}, {summary.failed} failed, {_miou(summary.miou, summary.classes)}")
            say(f"report: {summary.report}")


@app.command()
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


@app.command()
def train(
    source: Annotated[
        str | None, typer.Argument(metavar="DATASET", help="A labelled dataset, laid out as for label.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Where weights, card, curves and checkpoints go.")
    ] = None,
    front_end: Annotated[str | None, typer.Option(help="The network; fcn8s_lite if left out.")] = None,
    init: Annotated[str | None, typer.Option(help="Native weights to start from, or imagenet.")] = None,
    classes: Annotated[str | None, typer.Option(help="A class set, a file with a name a line, or a count.")] = None,
    architecture: Annotated[
        list[str] | None, typer.Option(help="key=value of the front end's architecture; again for more.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="VOC layout: the split to train on.")] = None,
    truth: Annotated[str | None, typer.Option(help="A folder of truth masks, paired by file stem.")] = None,
    val: Annotated[str | None, typer.Option(help="The validation set; a held-out share if left out.")] = None,
    val_split: Annotated[str | None, typer.Option(help="VOC layout: the split to validate on.")] = None,
    val_truth: Annotated[str | None, typer.Option(help="The truth masks of --val.")] = None,
    void: Annotated[int | None, typer.Option(help="The truth's id for pixels that do not count; 255.")] = None,
    size: Annotated[int | None, typer.Option(help="The side of the crops, in pixels.")] = None,
    batch: Annotated[int | None, typer.Option(help="Crops a step.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Times through the dataset.")] = None,
    lr: Annotated[float | None, typer.Option(help="The largest learning rate.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of all that is random.")] = None,
    threads: Annotated[int | None, typer.Option(help="Cores to use; all if left out.")] = None,
    half: Annotated[bool | None, typer.Option("--half", help="Write the weights as float16.")] = None,
    job: Job = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train a front end on DATASET. Run it again to continue after a crash."""
    with plain_errors(debug, as_json):
        from pipeline.config import load
        from pipeline.training.config import TrainJob

        validation = {"location": val or (source if val_split else None), "split": val_split, "truth": val_truth}
        overrides: dict[str, Any] = {
            "source": {"location": source, "split": split, "truth": truth},
            "val": validation,
            "output": output, "front_end": front_end, "init": init, "classes": classes, "void": void, "size": size,
            "batch": batch, "epochs": epochs, "seed": seed, "threads": threads, "half": half,
            "architecture": dict(map(_key_and_value, architecture or ())),
            "optimisation": {"lr": lr},
        }  # fmt: skip

        with redirect_stdout(sys.stderr):
            trained = run_train(load(TrainJob, job, overrides))
        if as_json:
            print(trained.model_dump_json(), flush=True)
        else:
            say(f"{counted(trained.epochs, 'epoch')}, {trained.seconds:.0f} s; {_miou(trained.miou, trained.classes)}")
            say(f"weights: {trained.weights}")


def _key_and_value(written: str) -> tuple[str, Any]:
    """``key=value`` with the value read as YAML: a number is one."""
    import yaml

    key, equals, value = written.partition("=")
    if not equals:
        raise ConfigError(f"architecture {written!r}: key=value is needed, such as width=0.5")
    return key, yaml.safe_load(value)


@app.command()
def demo(
    output: Annotated[str, typer.Argument(help="A folder for photographs and masks.")] = "densemask-demo",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Label the photographs that scikit-image carries and say where the page lies."""
    with plain_errors(debug, as_json):
        from flows.demo import write_photographs
        from pipeline import storage
        from pipeline.config import load_job
        from pipeline.gallery import write_gallery
        from pipeline.plan import newest_run

        folder = storage.absolute(output)
        photographs = write_photographs(storage.join(folder, "photographs"))
        job = load_job(None, {"source": {"location": photographs}, "output": storage.join(folder, "output")})
        with redirect_stdout(sys.stderr):
            outcome = run_label(job)
        page = write_gallery(
            job.output, *newest_run(job.output, outcome.recipe, None), storage.join(folder, "show"), 60
        )
        conclude(outcome, as_json)
        say(f"gallery: {page}")


@app.command()
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


@app.command()
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


def run_train(job: "TrainJob") -> "Trained":
    """Reads and checks data and weights here, where an error costs little, and runs the flow on them."""
    from pipeline.training.loop import prepare

    say(f"reading {job.source.location}")
    prepared = prepare(job)
    janitor.watch()
    from flows import server, training_display
    from flows.train_model import training

    server.start().result()
    say(training_display.opening(job, prepared))
    return training(prepared)(job)


def conclude(outcome: "Outcome", as_json: bool) -> None:
    """Says what came of a labelling."""
    if as_json:
        print(outcome.model_dump_json(), flush=True)
    elif outcome.images == 0:
        say(f"nothing new: every image has its row (recipe {outcome.recipe})")
    else:
        rate = f", {outcome.images_per_s:.2f} images/s" if outcome.images_per_s else ""
        say(
            f"{counted(outcome.images, 'image')} in {counted(outcome.shards, 'shard')}, {outcome.failed} failed, "
            f"{outcome.seconds:.1f} s{rate}; {_miou(outcome.miou, outcome.classes)}; "
            f"recipe {outcome.recipe}, run {outcome.run}"
        )
        say(f"report: {outcome.report}")


def _miou(miou: float | None, classes: int | None) -> str:
    return "no truth, so no mIoU" if miou is None else f"mIoU {miou:.4f} over {classes} classes"


@contextmanager
def plain_errors(debug: bool, as_json: bool = False) -> Iterator[None]:
    """Errors become one line on stderr and an exit code: 2 cannot be run as asked, 1 ran and ended red."""
    signal.signal(signal.SIGTERM, _interrupted)
    signal.signal(signal.SIGINT, _interrupted)
    try:
        yield
    except DensemaskError as error:
        _say_error(error, str(error), debug, as_json)
        raise typer.Exit(error.exit_code) from None
    except Exception as error:
        hint = "" if debug else "; --debug shows where"
        _say_error(error, f"unexpected {type(error).__name__}: {error}{hint}", debug, as_json)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        say("densemask: interrupted; run the same command again to continue")
        raise typer.Exit(130) from None


def _interrupted(*_: object) -> None:
    """The first Ctrl-C ends the run in order; the second ends the process, and the janitor tidies up."""
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: os._exit(130))
    raise KeyboardInterrupt


def _say_error(error: Exception, message: str, debug: bool, as_json: bool) -> None:
    outcome = getattr(error, "outcome", None)
    if as_json:
        fields = json.loads(outcome.model_dump_json()) if outcome is not None else {}
        print(json.dumps(fields | {"error": message}), flush=True)
    if debug:
        traceback.print_exception(error)
    say(f"densemask: {' '.join(message.split())}")


def main() -> None:
    """The console script."""
    sys.exit(app())


if __name__ == "__main__":
    main()
