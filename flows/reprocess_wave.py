"""A wave: some shards of an archive that is labelled anew. Between two waves a nightly run has its turn."""

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows import run_log
from flows.label_dataset import OPEN_SHARDS, label_pending
from flows.outcome import missing_rows
from pipeline.errors import RunError
from pipeline.reprocess import ReprocessJob, prepare_wave


@flow(
    name="reprocess-wave",
    description="Labels some shards of an archive by a new recipe; `densemask reprocess` starts one after the other.",
    task_runner=ThreadPoolTaskRunner(max_workers=OPEN_SHARDS),  # type: ignore[arg-type]
)
def reprocess_wave(job: ReprocessJob, run: str, shards: list[int]) -> None:
    """Labels those of a run's shards that are not committed. Raises RunError where some are not in the end."""
    run_log.guard()
    prepared = prepare_wave(job, run, shards)
    if not prepared.pending:
        return
    results, errors, _ = label_pending(job, prepared)
    if errors:
        raise RunError(missing_rows(errors, len(results)))
