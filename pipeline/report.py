"""A run's report: Parquet tables and one HTML page that needs nothing else.

OUT/reports/recipe=<fingerprint>/run=<run>/{per_class,per_image,summary}.parquet + report.html
"""

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
import plotly.offline
import pyarrow as pa
import pyarrow.parquet as pq
from markupsafe import Markup
from pydantic import BaseModel, ConfigDict

from pipeline import cost, gallery, masks, pages, plots, recipes, storage
from pipeline.config import Prices
from pipeline.cost import Cost
from pipeline.errors import AbsentError
from pipeline.gallery import Card
from pipeline.picks import RANKINGS, Leaders, Pick
from pipeline.recipes import RecipeDocument
from pipeline.tally import COLUMNS, IMAGE_SCHEMA, Tally

_CLASS_FIELDS: list[tuple[str, pa.DataType]] = [
    ("class_id", pa.int32()),
    ("name", pa.string()),
    ("iou", pa.float64()),  # null where no truth holds the class, as are the other shares
    ("iou_front", pa.float64()),
    ("boundary_iou", pa.float64()),
    ("accuracy", pa.float64()),
    ("accuracy_front", pa.float64()),
    ("truth_pixels", pa.int64()),
    ("predicted_pixels", pa.int64()),  # of the pixels that count in images with truth
    ("images", pa.int64()),  # whose mask holds the class, with truth or without
    ("area", pa.float64()),  # the class's share of an image, mean over all masks
]
CLASS_SCHEMA = pa.schema(_CLASS_FIELDS)
ROW_GROUP = 50_000


class Summary(BaseModel):
    """A run in numbers. Means over nothing are None: the mIoU family without truth, the rest without a mask."""

    model_config = ConfigDict(frozen=True)

    recipe: str
    run: str
    report: str  # where report.html is
    images: int
    ok: int
    unreadable: int
    rejected: int
    quarantined: int
    with_truth: int  # images that took part in the mIoU
    classes: int  # how many classes the means are over
    miou: float | None
    miou_front: float | None
    boundary_miou: float | None
    pixel_accuracy: float | None
    pixel_accuracy_front: float | None
    class_accuracy: float | None
    class_accuracy_front: float | None
    frequency_weighted_iou: float | None
    frequency_weighted_iou_front: float | None
    confidence: float | None
    entropy: float | None
    changed: float | None
    front_end_ms: float | None
    back_end_ms: float | None
    cost: Cost
    prices: Prices | None

    @property
    def failed(self) -> int:
        """Images without a mask."""
        return self.images - self.ok


def folder(output: str, fingerprint: str, run: str) -> str:
    """Where a run's report lies."""
    return storage.join(output, "reports", f"recipe={fingerprint}", f"run={run}")


def page(output: str, fingerprint: str, run: str) -> str:
    """Where the report's page lies; it is written last."""
    return storage.join(folder(output, fingerprint, run), "report.html")


def write_report(output: str, fingerprint: str, run: str, prices: Prices | None = None) -> Summary:
    """Writes the report of the run's committed shards over any earlier one, whose prices it keeps if it is given none.

    Raises ConfigError for an unknown recipe and StorageError where the output cannot be read or written.
    """
    document = recipes.read_document(output, fingerprint)
    place = folder(output, fingerprint, run)
    tally, leaders = Tally(len(document.classes)), Leaders()
    storage.put(storage.join(place, "per_image.parquet"), _per_image(output, fingerprint, run, tally, leaders))
    by_class = per_class(tally, document.classes)
    storage.put(storage.join(place, "per_class.parquet"), parquet(by_class))
    place_of_summary = storage.join(place, "summary.parquet")
    prices = prices or _earlier_prices(place_of_summary)
    summary = summarize(tally, fingerprint, run, page(output, fingerprint, run), prices)
    storage.put(place_of_summary, parquet(one_row(summary)))
    cards = _cards(output, fingerprint, run, leaders.picks())
    storage.put(summary.report, _page(summary, document, tally, by_class, cards))
    return summary


def read_per_class(output: str, fingerprint: str, run: str) -> pa.Table:
    """The table of CLASS_SCHEMA that `write_report` wrote."""
    return read_table(storage.join(folder(output, fingerprint, run), "per_class.parquet"))


def read_table(location: str) -> pa.Table:
    """A table of a report."""
    return pq.read_table(io.BytesIO(storage.read(location)))


def read_summary(output: str, fingerprint: str, run: str) -> Summary:
    """The summary that `write_report` wrote."""
    place = storage.join(folder(output, fingerprint, run), "summary.parquet")
    return Summary.model_validate(read_table(place).to_pylist()[0])


def per_class(tally: Tally, classes: Iterable[str]) -> pa.Table:
    """The table of CLASS_SCHEMA, a row a class."""
    refined, front, boundary = (tally.counts[name] for name in ("refined", "front", "boundary"))
    names = list(classes)
    columns = [
        np.arange(len(names)),
        names,
        refined.iou,
        front.iou,
        boundary.iou,
        refined.accuracy,
        front.accuracy,
        refined.truth,
        refined.tp + refined.fp,
        tally.images_with,
        tally.areas,
    ]
    typed = zip(columns, CLASS_SCHEMA.types, strict=True)
    return pa.table([pa.array(column, kind, from_pandas=True) for column, kind in typed], schema=CLASS_SCHEMA)


def summarize(tally: Tally, fingerprint: str, run: str, report: str, prices: Prices | None) -> Summary:
    """The run's summary."""
    refined, front = tally.counts["refined"], tally.counts["front"]
    statuses = {status: tally.statuses[status] for status in masks.STATUSES}
    return Summary(
        recipe=fingerprint,
        run=run,
        report=report,
        images=tally.statuses.total(),
        **statuses,
        with_truth=tally.with_truth,
        classes=refined.classes,
        miou=refined.miou,
        miou_front=front.miou,
        boundary_miou=tally.counts["boundary"].miou,
        pixel_accuracy=refined.pixel_accuracy,
        pixel_accuracy_front=front.pixel_accuracy,
        class_accuracy=refined.class_accuracy,
        class_accuracy_front=front.class_accuracy,
        frequency_weighted_iou=refined.frequency_weighted_iou,
        frequency_weighted_iou_front=front.frequency_weighted_iou,
        confidence=_mean(tally.measure("confidence")),
        entropy=_mean(tally.measure("entropy")),
        changed=_mean(tally.measure("changed")),
        front_end_ms=_median(tally.measure("front_end_ms")),
        back_end_ms=_median(tally.measure("back_end_ms")),
        cost=cost.priced(tally.usage(), prices),
        prices=prices,
    )


def _earlier_prices(summary: str) -> Prices | None:
    """The prices in a summary that is there already."""
    try:
        (row,) = read_table(summary).to_pylist()
    except AbsentError:
        return None
    return Prices.model_validate(row["prices"]) if row.get("prices") else None


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean(dtype=np.float64)) if len(values) else None


def _median(values: np.ndarray) -> float | None:
    return float(np.median(values)) if len(values) else None


def _per_image(output: str, fingerprint: str, run: str, tally: Tally, leaders: Leaders) -> bytes:
    """The per-image table as a Parquet file; every shard goes through the tally and the leaders on its way."""
    out = io.BytesIO()
    with pq.ParquetWriter(out, IMAGE_SCHEMA, compression="zstd") as writer:
        waiting = [IMAGE_SCHEMA.empty_table()]
        for rows in masks.read_rows(output, fingerprint, run, COLUMNS):
            images = tally.add(rows)
            leaders.add(images)
            waiting.append(images)
            if sum(map(len, waiting)) >= ROW_GROUP:
                writer.write_table(pa.concat_tables(waiting))
                waiting = []
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
    return out.getvalue()


def parquet(table: pa.Table) -> bytes:
    """The table as a Parquet file."""
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    return out.getvalue()


def one_row(summary: BaseModel) -> pa.Table:
    """A summary as a table; the types do not depend on which means there are."""
    kinds: dict[Any, pa.DataType] = {int: pa.int64(), float | None: pa.float64()}
    kinds |= dict.fromkeys((str, str | None), pa.string())

    def fields(model: type[BaseModel]) -> list[pa.Field]:
        return [pa.field(name, kinds[field.annotation]) for name, field in model.model_fields.items()]

    kinds |= {Cost: pa.struct(fields(Cost)), Prices | None: pa.struct(fields(Prices))}
    return pa.Table.from_pylist([summary.model_dump()], pa.schema(fields(type(summary))))


def _cards(output: str, fingerprint: str, run: str, picks: list[Pick]) -> dict[str, list[Card]]:
    """The gallery's pictures by why they were picked, the first one first."""
    order = {pick: place for place, pick in enumerate(picks)}
    groups: dict[str, list[Card]] = {group: [] for group in RANKINGS}
    for overlay in sorted(gallery.overlays(output, fingerprint, run, picks), key=lambda one: order[one.pick]):
        src = None if overlay.picture is None else gallery.data_uri(overlay.picture)
        groups[overlay.pick.group].append(Card(overlay, src))
    return {group: cards for group, cards in groups.items() if cards}


def _page(
    summary: Summary, document: RecipeDocument, tally: Tally, by_class: pa.Table, groups: dict[str, list[Card]]
) -> bytes:
    shown = [row for row in by_class.to_pylist() if row["truth_pixels"] or row["predicted_pixels"] or row["images"]]
    figures = [figure._asdict() for figure in plots.figures(tally, document.classes)]
    return pages.render(
        "report.html.j2",
        summary=summary,
        document=document,
        classes=shown,
        figures=figures,
        groups=groups,
        problems=tally.problems,
        problem_count=tally.problem_count,
        usage=cost.table(summary.cost),
        million=cost.million_words(summary.cost),
        prices=None if summary.prices is None else cost.price_list(summary.prices),
        plotly=Markup(plotly.offline.get_plotlyjs()),
    )
