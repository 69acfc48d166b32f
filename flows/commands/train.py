"""The command that trains."""

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows import janitor
from flows.commands.ending import miou_words, plain_errors
from flows.commands.options import AsJson, Debug, Job
from flows.display import counted, say
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.training.config import TrainJob
    from pipeline.training.results import Trained


def train(
    source: Annotated[
        str | None, typer.Argument(metavar="DATASET", help="A labelled dataset, laid out as for label.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Where weights, card, curves and checkpoints go.")
    ] = None,
    front_end: Annotated[str | None, typer.Option(help="The network; upernet_lite if left out.")] = None,
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
        from pipeline.job_files import load
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
            words = miou_words(trained.miou, trained.classes)
            say(f"{counted(trained.epochs, 'epoch')}, {trained.seconds:.0f} s; {words}")
            say(f"weights: {trained.weights}")


def _key_and_value(written: str) -> tuple[str, Any]:
    """``key=value`` with the value read as YAML: a number is one."""
    import yaml

    key, equals, value = written.partition("=")
    if not equals:
        raise ConfigError(f"architecture {written!r}: key=value is needed, such as width=0.5")
    return key, yaml.safe_load(value)


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
