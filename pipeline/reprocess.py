"""From an archive and a new recipe to work: its images planned anew, and cut into waves."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, NamedTuple

from pydantic import Field

from pipeline import archive, kept, plan, recipes, storage, weights, where
from pipeline.config import Evaluation, Job, LabelJob
from pipeline.gate import Gate
from pipeline.job_files import read_yaml
from pipeline.plan import Shard
from pipeline.prepare import Prepared
from pipeline.recipes import RecipeDocument
from pipeline.validation import checked
from pipeline.weights import Weights


class ReprocessJob(Job):
    """One labelling of an archive by a new recipe."""

    origin: str = Field(description="The recipe whose images are labelled anew.")
    where: str | None = Field(None, description="An SQL condition on its rows.")
    wave_shards: int = Field(8, ge=1, description="Shards between which a nightly run may not come.")
    gate: Gate = Field(Gate(), description="How much worse, and how different, new masks may be.")


SETTINGS = [name for name in ReprocessJob.model_fields if name not in ("output", "origin", "where")]
# Of a job file, which may be the nightly run's own.
IGNORED = {"output", *LabelJob.model_fields}.difference(SETTINGS)
HINT = "it holds a recipe, or a job file's keys: " + ", ".join(SETTINGS)


class Wave(NamedTuple):
    """Shards of one run that are labelled together."""

    run: str
    number: int  # in the run's plan
    shards: list[Shard]


class Archive(NamedTuple):
    """A new recipe, its weights, and what of an archive it has still to label."""

    recipe: RecipeDocument
    weights: Weights
    runs: list[str]  # that label an archive anew
    pending: list[Shard]


def load_job(output: str, recipe_file: str, condition: str | None, origin: str | None) -> ReprocessJob:
    """The job of a recipe's YAML file, or of a whole job file. The archive is the current recipe's if none is named.

    Where the file has no evaluation, that of the archive's newest run holds. Raises ConfigError for what cannot be run
    as written.
    """
    content = read_yaml(recipe_file, HINT)
    if any(key in content for key in (*SETTINGS, *IGNORED)):
        content = {key: value for key, value in content.items() if key not in IGNORED}
    else:
        content = {"recipe": content}
    output = storage.absolute(output)
    where.check(condition)
    asked: dict[str, Any] = {"output": output, "where": condition, "origin": origin or recipes.current(output)}
    recipes.read_document(output, asked["origin"])
    if "evaluation" not in content:
        asked["evaluation"] = _evaluation(output, asked["origin"])
    return checked(ReprocessJob, content | asked, recipe_file)


def _evaluation(output: str, origin: str) -> Evaluation:
    runs = plan.runs(output, origin)
    return plan.evaluation(output, origin, runs[-1]) if runs else Evaluation()


def prepare(job: ReprocessJob) -> Archive:
    """Plans the archive's images that the new recipe has no plan for; what is there already is gone on with.

    There is nothing to do where the archive is the recipe's own. Raises ConfigError, WeightsError or StorageError; none
    leaves anything half done.
    """
    loaded = weights.read_weights(job.recipe)
    document = recipes.document(job.recipe, loaded)
    if document.fingerprint == job.origin:
        return Archive(document, loaded, [], [])
    listing = archive.select(job.output, job.origin, archive.images(job.output, job.origin), job.where)
    listing = listing.rename_columns(dict(zip(archive.PLACE_COLUMNS, plan.ORIGIN_COLUMNS, strict=True)))
    storage.sweep(job.output)
    recipes.write_document(job.output, document)
    plan.add_run(
        job.output, document.fingerprint, listing, job.execution.shard_size, datetime.now(UTC).date(),
        evaluation=job.evaluation, origin=job.origin,
    )  # fmt: skip
    return resume(job)


def resume(job: ReprocessJob) -> Archive:
    """As `prepare`, without planning."""
    loaded = weights.read_weights(job.recipe)
    document = recipes.document(job.recipe, loaded)
    every = plan.runs(job.output, document.fingerprint)
    runs = [run for run in every if plan.origin(job.output, document.fingerprint, run) is not None]
    return Archive(document, loaded, runs, plan.pending(job.output, document.fingerprint, runs))


def waves(shards: Sequence[Shard], size: int) -> list[Wave]:
    """The shards in waves of ``size``. A shard is always in the same wave of its run, whichever others are done."""
    ordered = sorted(shards)
    return [
        Wave(run, number, list(members))
        for (run, number), members in groupby(ordered, key=lambda shard: (shard.run, shard.number // size))
    ]


def prepare_wave(job: ReprocessJob, run: str, numbers: Sequence[int]) -> Prepared:
    """Those shards of a run that are not committed, ready for the two pools."""
    found = resume(job)
    pending = [shard for shard in found.pending if shard.run == run and shard.number in numbers]
    scores = kept_scores(job.output, found.recipe, plan.origin(job.output, found.recipe.fingerprint, run))
    return Prepared(found.recipe, found.weights, pending, [run], run, scores=scores)


def kept_scores(output: str, recipe: RecipeDocument, origin: str | None) -> kept.Source | None:
    """Where score maps of the archive lie that the recipe's own front end would make; None where there are none."""
    if origin is None or not storage.exists(kept.folder(output, origin)):
        return None
    before = recipes.read_document(output, origin)
    if before.scores_fingerprint is None or before.scores_fingerprint != recipe.scores_fingerprint:
        return None
    return kept.Source(output, origin, recipe.palette)
