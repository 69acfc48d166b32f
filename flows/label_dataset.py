"""The labelling flow: plan, one task run a shard over the two pools, report."""

import time
from collections.abc import Iterable

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectConcurrentFuture, PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner

from flows import artifacts, display, run_log
from flows.display import counted
from flows.outcome import Outcome, RedRun, TooManyFailed, missing_rows, nothing_new
from pipeline import masks, plan, recipes
from pipeline.config import Job, LabelJob
from pipeline.plan import Shard
from pipeline.prepare import Prepared, prepare, resume
from pipeline.report import Summary, write_report
from workers import cluster, running
from workers.dispatch import Dispatcher
from workers.work import Progress, ShardResult

OPEN_SHARDS = 8
POLL_SECONDS = 0.25


@flow(
    name="label-dataset",
    description="Labels what is new in a dataset: masks, plan, recipe and report go to the job's output.",
    task_runner=ThreadPoolTaskRunner(max_workers=OPEN_SHARDS),  # type: ignore[arg-type]
)
def label_dataset(job: LabelJob, planned: bool = False) -> Outcome:
    """Labels the job's source. ``planned``: the caller has listed and planned it a moment ago.

    Raises RedRun where rows are missing, TooManyFailed where more than max_failure_rate of a run's images have failed.
    """
    run_log.guard()
    started = time.monotonic()
    prepared = resume(job) if planned else prepare(job)
    if not prepared.runs:
        return nothing_new(prepared, time.monotonic() - started)
    run_log.write(get_run_logger(), [run_log.opening(prepared)])
    results, errors, progress = label_pending(job, prepared) if prepared.pending else ([], [], Progress())
    summaries = [write_report(job.output, prepared.recipe.fingerprint, run, job.prices) for run in prepared.runs]
    for summary in summaries:
        artifacts.publish(job.output, summary)
    outcome = _outcome(prepared, results, progress, summaries[-1], time.monotonic() - started)
    run_log.write(get_run_logger(), [run_log.ending(outcome)])
    _raise_if_red(job, outcome, summaries, errors)
    recipes.set_current_if_absent(job.output, prepared.recipe.fingerprint)
    return outcome


def label_pending(job: Job, prepared: Prepared) -> tuple[list[ShardResult], list[BaseException], Progress]:
    """All pending shards over the pools; the results of those that are committed, the errors of the rest."""
    shards = prepared.pending
    images = sum(shard.images for shard in shards)
    display.say(f"{counted(images, 'image')} in {counted(len(shards), 'shard')}; starting the workers")
    with (
        cluster.connected() as resources,
        running.dispatcher(job, prepared, resources) as dispatcher,
        display.shown(images) as show,
    ):
        label_shard = _shard_task(job, prepared.recipe.fingerprint, dispatcher)
        futures = [label_shard.submit(shard) for shard in shards]
        bar = artifacts.ProgressBar(images)
        logger = get_run_logger()
        while (ended := _counted(futures)).done + ended.failed < ended.total:
            show(dispatcher.progress, ended)
            bar.update(dispatcher.progress, ended)
            run_log.write(logger, dispatcher.journal.events())
            time.sleep(POLL_SECONDS)
        run_log.write(logger, [*dispatcher.journal.events(), *dispatcher.journal.left_out()])
        bar.finish(dispatcher.progress, ended)
        return *_sorted_out(futures), dispatcher.progress


def _shard_task(job: Job, fingerprint: str, dispatcher: Dispatcher):  # type: ignore[no-untyped-def]
    """The Prefect task that labels one shard; the shard object is the only truth, so nothing is cached."""

    @task(
        name="label-shard",
        task_run_name="{shard.run} shard-{shard.number:05d}",
        cache_policy=NO_CACHE,
        retries=2,
        retry_delay_seconds=[2, 10],
        retry_condition_fn=lambda *_: not dispatcher.ended,
        persist_result=False,
    )
    def label_shard(shard: Shard) -> ShardResult | None:
        """None where another run has committed the shard meanwhile."""
        with dispatcher.admission():
            if masks.is_committed(job.output, fingerprint, shard.run, shard.number):
                return None
            refs = plan.read_shard(job.output, fingerprint, shard.run, shard.number)
            future = dispatcher.submit(shard, refs)
        return future.result()

    return label_shard


def _counted(futures: list[PrefectConcurrentFuture]) -> display.Shards:
    """A Prefect future asks the server for its state; the one that it wraps just knows."""
    ended = [future.wrapped_future for future in futures if future.wrapped_future.done()]
    done = sum(not each.exception() and each.result().is_completed() for each in ended)
    return display.Shards(done, len(ended) - done, len(futures))


def _sorted_out(futures: Iterable[PrefectFuture]) -> tuple[list[ShardResult], list[BaseException]]:
    results, errors = [], []
    for future in futures:
        result = future.result(raise_on_failure=False)
        if isinstance(result, BaseException):
            errors.append(result)
        elif result is not None:
            results.append(ShardResult(*result))
    return results, errors


def _outcome(
    prepared: Prepared, results: list[ShardResult], progress: Progress, summary: Summary, seconds: float
) -> Outcome:
    images = sum(sum(result.statuses.values()) for result in results)
    ok = sum(result.statuses.get("ok", 0) for result in results)
    steady = progress.steady_images_per_s
    return Outcome(
        recipe=prepared.recipe.fingerprint,
        run=summary.run,
        images=images,
        ok=ok,
        failed=images - ok,
        shards=len(results),
        seconds=round(seconds, 3),
        images_per_s=round(images / seconds, 3),
        steady_images_per_s=None if steady is None else round(steady, 3),
        miou=summary.miou,
        classes=summary.classes if summary.miou is not None else None,
        report=summary.report,
        cost=summary.cost,
    )


def _raise_if_red(job: LabelJob, outcome: Outcome, summaries: list[Summary], errors: list[BaseException]) -> None:
    """Red is a run with rows missing, or with too many failures; whatever could be committed is."""
    if errors:
        raise RedRun(missing_rows(errors, outcome.shards), outcome)
    limit = job.execution.max_failure_rate
    for summary in summaries:
        if summary.failed > limit * summary.images:
            rate = f"{summary.failed} of {summary.images} images failed ({summary.failed / summary.images:.1%})"
            raise TooManyFailed(
                f"{rate}, more than max_failure_rate = {limit:.1%}; the reasons are in {summary.report}", outcome
            )
