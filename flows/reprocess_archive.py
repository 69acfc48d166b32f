"""An archive labelled anew: waves, reports, a comparison, and a gate before the new recipe becomes the current one."""

import time
from contextlib import nullcontext
from datetime import UTC, datetime

from prefect import flow

from flows import artifacts, comparison_artifacts, run_log, waves
from flows.display import LINE_SECONDS, counted, say
from flows.outcome import Done, RedRun
from pipeline import comparison_report, gate, masks, storage, succession
from pipeline.comparison import Comparison
from pipeline.errors import RunError
from pipeline.plan import Shard
from pipeline.report import page, write_report
from pipeline.reprocess import Archive, ReprocessJob, kept_scores, prepare, resume
from pipeline.reprocess import waves as cut
from workers import cluster


class Reprocessed(Done):
    """What a reprocessing has done. Its measures are of all images of both recipes."""

    origin: str  # the recipe whose images were labelled anew
    missing: int | None = None  # images of the old recipe that the new one has no row of
    old_miou: float | None = None
    miou: float | None = None
    classes: int | None = None
    churn: float | None = None
    promoted: bool
    reasons: list[str]  # why the gate did not let it pass
    comparison: str | None = None


@flow(
    name="reprocess-archive",
    description="Labels the images of an archive by a new recipe, compares old and new, and promotes it past a gate.",
)
def reprocess_archive(job: ReprocessJob, planned: bool = False) -> Reprocessed:
    """``planned``: the caller has planned it a moment ago.

    Raises RedRun where rows are missing or the gate does not let the new recipe pass.
    """
    run_log.guard()
    started = time.monotonic()
    found = resume(job) if planned else prepare(job)
    fingerprint = found.recipe.fingerprint
    try:
        if found.pending:
            _run_waves(job, found)
    except RunError as error:
        raise RedRun(str(error), _reprocessed(job, found, started)) from None
    for run in _to_report(job, found):
        artifacts.publish(job.output, write_report(job.output, fingerprint, run, job.prices))
    compared = comparison_report.write(job.output, job.origin, fingerprint, _Show())
    comparison_artifacts.publish(job.output, compared, gate.reasons(job.gate, compared))
    return settle(job, found, compared, started)


def settle(job: ReprocessJob, found: Archive, compared: Comparison, started: float) -> Reprocessed:
    """Makes the new recipe the current one, if it is whole, was compared with that, and the gate lets it pass.

    Raises RedRun where the gate does not. A part of an archive is no failure, and no successor.
    """
    reasons = gate.reasons(job.gate, compared)
    replaceable = (None, job.origin, found.recipe.fingerprint)
    passes = not reasons and compared.missing == 0 and succession.current(job.output) in replaceable
    if passes:
        succession.promote(job.output, found.recipe.fingerprint)
    outcome = _reprocessed(job, found, started, compared, passes, reasons)
    if reasons:
        way_out = f"look at {compared.report}, then `densemask promote` takes it all the same"
        raise RedRun(f"recipe {outcome.recipe} did not pass the gate: {'; '.join(reasons)}; {way_out}", outcome)
    return outcome


def unchanged(found: Archive, started: float) -> Reprocessed:
    """The outcome where the archive is the recipe's own."""
    fingerprint, seconds = found.recipe.fingerprint, round(time.monotonic() - started, 3)
    return Reprocessed(recipe=fingerprint, origin=fingerprint, seconds=seconds, missing=0, promoted=True, reasons=[])


def _to_report(job: ReprocessJob, found: Archive) -> list[str]:
    """The runs that had open shards, and those whose report a kill has cost."""
    worked_on = {shard.run for shard in found.pending}
    there = {run for run in found.runs if storage.exists(page(job.output, found.recipe.fingerprint, run))}
    return [run for run in found.runs if run in worked_on or run not in there]


def _run_waves(job: ReprocessJob, found: Archive) -> None:
    """One wave after the other, each by its deployment where there is one, else here."""
    deployed = waves.is_deployed()
    run_wave: waves.Run = waves.run_deployed if deployed else waves.run_here
    ordered = cut(found.pending, job.wave_shards)
    if kept_scores(job.output, found.recipe, job.origin) is not None:
        say("scores are kept and still right: the network is needed for none but images without them")
    since = datetime.now(UTC)
    with nullcontext() if deployed else cluster.connected():
        for number, wave in enumerate(ordered, start=1):
            images = counted(sum(shard.images for shard in wave.shards), "image")
            say(f"wave {number} of {len(ordered)}: {images}, run {wave.run}")
            run_wave(job, found.recipe.fingerprint, wave)
            if number < len(ordered):
                since = waves.let_pass(since)


def _reprocessed(
    job: ReprocessJob,
    found: Archive,
    started: float,
    compared: Comparison | None = None,
    promoted: bool = False,
    reasons: list[str] | None = None,
) -> Reprocessed:
    done = _committed(job.output, found.recipe.fingerprint, found.pending)
    statuses = [
        status
        for shard in done
        for status in masks.read_shard(job.output, found.recipe.fingerprint, shard.run, shard.number, ["status"])[
            "status"
        ].to_pylist()
    ]
    seconds = time.monotonic() - started
    measures = {} if compared is None else compared.model_dump(include={"missing", "old_miou", "miou", "churn"})
    return Reprocessed(
        recipe=found.recipe.fingerprint,
        origin=job.origin,
        images=len(statuses),
        ok=statuses.count("ok"),
        failed=len(statuses) - statuses.count("ok"),
        shards=len(done),
        seconds=round(seconds, 3),
        images_per_s=round(len(statuses) / seconds, 3) if statuses else None,
        classes=None if compared is None or compared.miou is None else compared.classes,
        promoted=promoted,
        reasons=reasons or [],
        comparison=None if compared is None else compared.report,
        **measures,
    )


def _committed(output: str, fingerprint: str, shards: list[Shard]) -> list[Shard]:
    done = {run: masks.committed(output, fingerprint, run) for run in {shard.run for shard in shards}}
    return [shard for shard in shards if shard.number in done[shard.run]]


class _Show:
    """A line now and then about a comparison that takes long."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def __call__(self, done: int, images: int) -> None:
        if time.monotonic() - self._said >= LINE_SECONDS:
            self._said = time.monotonic()
            say(f"{done}/{images} images compared")
