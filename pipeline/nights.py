"""What came of each night of an output: a record, what is gone, the trend, and a page that shows them.

OUT/nights/<night>/{gone.parquet, trend.parquet, report.html, night.json}     a night is named by its beginning, UTC
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import plotly.offline
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup
from pydantic import ValidationError

from pipeline import pages, recipes, report, storage, trend, trend_plots
from pipeline.config import Trend
from pipeline.errors import AbsentError, ConfigError
from pipeline.golden import Golden
from pipeline.plan import Changes
from pipeline.report import Summary
from pipeline.trend import Night

GONE_SCHEMA = pa.schema([("image_id", pa.string()), ("uri", pa.string()), ("since", pa.string())])
GONE_SHOWN = 100


class Finished(NamedTuple):
    """A run that was finished in a night."""

    summary: Summary
    areas: dict[str, float]  # each class's share of an image, mean over the masks


def name(began: datetime) -> str:
    """The night's name, of a time in UTC; names sort as nights follow each other."""
    return began.strftime("%Y-%m-%dT%H-%M-%SZ")


def folder(output: str, night: str) -> str:
    """Where a night's files lie."""
    return storage.join(output, "nights", night)


def page(output: str, night: str) -> str:
    """Where the night's page lies."""
    return storage.join(folder(output, night), "report.html")


def read(output: str, before: str, count: int) -> list[Night]:
    """The last nights before the one named, the oldest first; one that was not written to its end is left out.

    Raises ConfigError for a record that is none.
    """
    found: list[Night] = []
    for night in reversed(storage.names(storage.join(output, "nights"))):
        if night >= before or len(found) == count:
            continue
        location = storage.join(folder(output, night), "night.json")
        try:
            found.append(Night.model_validate_json(storage.read(location)))
        except AbsentError:
            continue
        except ValidationError as error:
            raise ConfigError(f"{location} is broken: {error.errors()[0]['msg']}; remove it") from error
    return found[::-1]


def finished(output: str, fingerprint: str, run: str) -> Finished:
    """The numbers of a run, as its report tells them."""
    classes = report.read_per_class(output, fingerprint, run)
    areas = dict(zip(classes["name"].to_pylist(), classes["area"].to_pylist(), strict=True))
    return Finished(
        report.read_summary(output, fingerprint, run), {key: area for key, area in areas.items() if area is not None}
    )


def record(
    night: str,
    fingerprint: str,
    runs: Sequence[Finished],
    changes: Changes,
    golden: Golden | None,
    error: str | None,
) -> Night:
    """The night's record, before it is held against other nights. Means of several runs are weighted by their masks."""
    summaries = [run.summary for run in runs]
    return Night(
        night=night,
        recipe=fingerprint,
        reports=tuple(summary.report for summary in summaries),
        images=sum(summary.images for summary in summaries),
        failed=sum(summary.failed for summary in summaries),
        new=changes.new,
        altered=changes.changed,
        gone=0,
        confidence=_mean([(summary.confidence, summary.ok) for summary in summaries]),
        entropy=_mean([(summary.entropy, summary.ok) for summary in summaries]),
        changed=_mean([(summary.changed, summary.ok) for summary in summaries]),
        golden_miou=golden.miou if golden else None,
        golden_classes=golden.classes if golden else None,
        areas={
            key: _mean([(run.areas.get(key), run.summary.ok) for run in runs]) or 0.0
            for key in {key: None for run in runs for key in run.areas}
        },
        error=error,
    )


def _mean(weighted: Sequence[tuple[float | None, int]]) -> float | None:
    known = [(value, weight) for value, weight in weighted if value is not None and weight]
    return sum(value * weight for value, weight in known) / sum(weight for _, weight in known) if known else None


def write(output: str, night: Night, changes: Changes, rules: Trend) -> Night:
    """Holds the night against those before it and writes its files; the night with its shifts and what is newly gone.

    Raises StorageError where the output cannot be read or written.
    """
    earlier = read(output, night.night, rules.nights)
    gone = _gone(output, earlier, changes.gone, night.night)
    newly = gone.filter(pc.equal(gone["since"], night.night))
    night = night.model_copy(update={"gone": newly.num_rows})
    night = night.model_copy(update={"shifts": tuple(trend.shifts(night, earlier, rules))})
    place = folder(output, night.night)
    table = trend.table([*earlier, night], rules)
    storage.put(storage.join(place, "gone.parquet"), report.parquet(gone))
    storage.put(storage.join(place, "trend.parquet"), report.parquet(table))
    storage.put(page(output, night.night), _page(output, [*earlier, night], rules, newly))
    storage.put(storage.join(place, "night.json"), night.model_dump_json(indent=1).encode())
    return night


def _gone(output: str, earlier: Sequence[Night], gone: pa.Table, night: str) -> pa.Table:
    """All that is gone as a table of GONE_SCHEMA, with the night in which it was first missed."""
    table = gone.append_column("since", pa.array([night] * gone.num_rows, pa.string())).cast(GONE_SCHEMA)
    if not earlier:
        return table
    location = storage.join(folder(output, earlier[-1].night), "gone.parquet")
    known = report.read_table(location)
    dated = gone.join(known, ["image_id", "uri"], join_type="left outer").sort_by("uri")
    return dated.set_column(2, "since", pc.fill_null(dated["since"], night)).cast(GONE_SCHEMA)


def _page(output: str, nights: Sequence[Night], rules: Trend, newly_gone: pa.Table) -> bytes:
    tonight = nights[-1]
    document = recipes.read_document(output, tonight.recipe)
    alike = sum(night.recipe == tonight.recipe for night in nights[:-1])
    return pages.render(
        "night.html.j2",
        night=tonight,
        document=document,
        rules=rules,
        alike=alike,
        shifts=[trend.words(shift) for shift in tonight.shifts],
        shifted={shift.measure for shift in tonight.shifts},
        reports=[_from_page(output, location) for location in tonight.reports],
        gone=newly_gone.slice(0, GONE_SHOWN).to_pylist(),
        figures=[figure._asdict() for figure in trend_plots.figures(nights, rules)],
        plotly=Markup(plotly.offline.get_plotlyjs()),
    )


def _from_page(output: str, location: str) -> str:
    """The location as a night's page names it: both lie in the output, wherever that is opened."""
    return "../.." + location.removeprefix(storage.join(output))
