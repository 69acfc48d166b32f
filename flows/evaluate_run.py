"""Reports on demand: a run's report anew, as a flow."""

from prefect import flow

from flows import artifacts, run_log
from pipeline import storage
from pipeline.plan import newest_run
from pipeline.report import Summary, write_report


@flow(name="evaluate-run", description="Writes the report of a run anew, from its rows.")
def evaluate_run(output: str, recipe: str | None = None, run: str | None = None) -> Summary:
    """The newest run of the current recipe, if nothing else is named."""
    run_log.guard()
    output = storage.absolute(output)
    summary = write_report(output, *newest_run(output, recipe, run))
    artifacts.publish(output, summary)
    return summary
