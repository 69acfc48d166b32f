"""From a job to work: check the recipe, list the source, plan what is new; all that needs no actor."""

from datetime import UTC, datetime
from typing import NamedTuple

import pyarrow as pa

from pipeline import kept, plan, recipes, report, storage, weights
from pipeline.config import LabelJob
from pipeline.plan import Changes, Shard
from pipeline.recipes import RecipeDocument
from pipeline.sources import list_images, named
from pipeline.weights import Weights


class Prepared(NamedTuple):
    """A job's recipe, weights and open shards."""

    recipe: RecipeDocument
    weights: Weights
    pending: list[Shard]
    runs: list[str]  # that are to be reported on: those with open shards, and the newest if it has no report
    newest: str | None
    scores: kept.Source | None = None  # where score maps may lie that make the network superfluous


class _Listed(NamedTuple):
    """A job's recipe and weights, and its source's images as a table of REF_SCHEMA."""

    recipe: RecipeDocument
    weights: Weights
    images: pa.Table


def prepare(job: LabelJob) -> Prepared:
    """Checks the weights, lists the source, writes the recipe's document and the plan of the images that are new.

    Raises ConfigError, WeightsError, SourceError or StorageError; none leaves anything half done.
    """
    return _planned(job, _listed(job))


def prepare_night(job: LabelJob) -> tuple[Prepared, Changes]:
    """As `prepare`, and how the source differs from all that was planned before."""
    listed = _listed(job)
    changes = plan.changes(job.output, listed.recipe.fingerprint, listed.images, named(job.source))
    return _planned(job, listed), changes


def resume(job: LabelJob) -> Prepared:
    """As `prepare`, without listing: the shards that are planned and not committed."""
    loaded = weights.read_weights(job.recipe)
    document = recipes.document(job.recipe, loaded)
    return _prepared(job, document, loaded, None)


def _listed(job: LabelJob) -> _Listed:
    loaded = weights.read_weights(job.recipe)
    document = recipes.document(job.recipe, loaded)
    return _Listed(document, loaded, list_images(job.source, exclude=job.output))


def _planned(job: LabelJob, listed: _Listed) -> Prepared:
    storage.sweep(job.output)
    recipes.write_document(job.output, listed.recipe)
    run = plan.add_run(
        job.output, listed.recipe.fingerprint, listed.images, job.execution.shard_size, datetime.now(UTC).date(),
        source=named(job.source), evaluation=job.evaluation,
    )  # fmt: skip
    return _prepared(job, listed.recipe, listed.weights, run)


def _prepared(job: LabelJob, document: RecipeDocument, loaded: Weights, planned: str | None) -> Prepared:
    every = plan.runs(job.output, document.fingerprint)
    # An archive that is labelled anew goes by waves of its own, which a nightly run overtakes.
    planned_runs = [run for run in every if plan.origin(job.output, document.fingerprint, run) is None]
    pending = plan.pending(job.output, document.fingerprint, planned_runs)
    runs = {shard.run for shard in pending}
    newest = planned_runs[-1] if planned_runs else None
    if newest is not None and not storage.exists(report.page(job.output, document.fingerprint, newest)):
        runs.add(newest)
    return Prepared(document, loaded, _ordered(pending, planned), sorted(runs), newest)


def _ordered(pending: list[Shard], planned: str | None) -> list[Shard]:
    """Our own plan from its start, shards of others from their end: two runs at once meet in the middle."""
    own = [shard for shard in pending if shard.run == planned]
    return own + [shard for shard in reversed(pending) if shard.run != planned]
