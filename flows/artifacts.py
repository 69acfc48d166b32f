"""What the Prefect dashboard shows of a run: progress, a mIoU table, a markdown report, overlays."""

import html
import time
from pathlib import Path
from typing import Any

from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from flows.display import Shards, final_line, line
from pipeline import cost, storage, trend
from pipeline.gallery import data_uri, overlays
from pipeline.pages import number, percent
from pipeline.picks import pick_extremes
from pipeline.report import Summary, read_per_class
from pipeline.trend import Night
from workers.work import Progress

UPDATE_SECONDS = 5.0
PICTURES_A_GROUP = 2


class ProgressBar:
    """The progress artifact of a flow run, updated every few seconds."""

    def __init__(self, images: int) -> None:
        self._images = images
        self._artifact: Any = create_progress_artifact(progress=0.0, key="images", description="0 images done")
        self._updated = time.monotonic()

    def update(self, progress: Progress, shards: Shards) -> None:
        """Shows the state, if it was not shown a moment ago."""
        if time.monotonic() - self._updated >= UPDATE_SECONDS:
            self._updated = time.monotonic()
            self._show(progress, line(progress, self._images, shards))

    def finish(self, progress: Progress, shards: Shards) -> None:
        """Shows how it ended."""
        self._show(progress, final_line(progress, self._images, shards))

    def _show(self, progress: Progress, description: str) -> None:
        share = 100.0 * progress.done / max(1, self._images)
        update_progress_artifact(self._artifact, min(100.0, share), description)


def publish(output: str, summary: Summary) -> None:
    """Shows a finished run: its mIoU table, its report in short, and the pictures worth a look."""
    if summary.miou is not None:
        create_table_artifact(key="miou", table=_miou_table(output, summary), description=f"IoU of run {summary.run}")
    create_markdown_artifact(key="report", markdown=markdown(summary), description=f"Report of run {summary.run}")
    create_link_artifact(
        key="report-page", link=link(summary.report), link_text=summary.report, description=f"Page of run {summary.run}"
    )
    picks = pick_extremes(output, summary.recipe, summary.run, PICTURES_A_GROUP)
    for index, overlay in enumerate(overlays(output, summary.recipe, summary.run, picks), 1):
        if overlay.picture is not None:
            create_image_artifact(
                key=f"overlay-{index}",
                image_url=data_uri(overlay.picture),
                description=f"{overlay.pick.group}: {overlay.caption}",
            )


def link(location: str) -> str:
    """Where a browser finds it: a URL as it is, a local file by its file: URL."""
    return location if storage.is_remote(location) else Path(location).as_uri()


def markdown(summary: Summary) -> str:
    """The summary as a page of the dashboard."""
    rows = [
        ("mIoU, front end -> refined", f"{number(summary.miou_front)} -> {number(summary.miou)}"),
        ("over classes, of images", f"{summary.classes}, {summary.with_truth}"),
        ("mIoU at boundaries", number(summary.boundary_miou)),
        ("pixel accuracy", f"{number(summary.pixel_accuracy_front)} -> {number(summary.pixel_accuracy)}"),
        ("class accuracy", f"{number(summary.class_accuracy_front)} -> {number(summary.class_accuracy)}"),
        ("frequency-weighted IoU", number(summary.frequency_weighted_iou)),
        ("confidence", number(summary.confidence)),
        ("entropy", number(summary.entropy)),
        ("changed by the field", percent(summary.changed)),
    ]
    failures = ", ".join(f"{getattr(summary, status)} {status}" for status in ("unreadable", "rejected", "quarantined"))
    million, prices = cost.million_words(summary.cost), summary.prices
    lines = [
        f"# Run {summary.run}",
        f"{summary.images} images, {summary.ok} labelled, {failures}; recipe `{summary.recipe}`",
        "",
        "| measure | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows),
        "",
        "| an image takes | core-seconds | GPU-seconds | bytes |",
        "|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in cost.table(summary.cost)),
        "",
        *([f"At {cost.price_list(prices)}, {million}.", ""] if million and prices else []),
        f"The whole report: [{summary.report}](<{link(summary.report)}>)",
    ]
    return "\n".join(lines)


def publish_night(night: Night, page: str) -> None:
    """Shows a night beside those before it."""
    create_markdown_artifact(key="night", markdown=night_markdown(night, page), description=f"Night {night.night}")


def night_markdown(night: Night, page: str) -> str:
    """The night as a page of the dashboard."""
    rows = [
        ("images", f"{night.images}: {night.new} new, {night.altered} changed; {night.gone} gone"),
        ("failed", f"{night.failed}"),
        ("mIoU on the golden set", number(night.golden_miou)),
        ("confidence", number(night.confidence)),
        ("entropy", number(night.entropy)),
        ("changed by the field", percent(night.changed)),
    ]
    shifts = [f"- **{html.escape(trend.words(shift))}**" for shift in night.shifts] or ["nothing"]
    lines = [
        f"# Night {night.night}",
        f"recipe `{night.recipe}`" + (f"; ended red: {night.error}" if night.error else ""),
        "",
        "Shifted:",
        "",
        *shifts,
        "",
        "| measure | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows),
        "",
        f"The trend: `{page}`",
    ]
    return "\n".join(lines)


def _miou_table(output: str, summary: Summary) -> list[dict[str, Any]]:
    """A row a class with truth."""
    measures = ("iou_front", "iou", "boundary_iou", "accuracy")
    rows = [row for row in read_per_class(output, summary.recipe, summary.run).to_pylist() if row["iou"] is not None]
    return [{"class": row["name"]} | {name: number(row[name], 4) for name in measures} for row in rows]
