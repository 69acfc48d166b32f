"""The comparison of two recipes: Parquet tables and one HTML page that needs nothing else.

OUT/reports/recipe=<new>/against=<old>/{per_image,per_class,churn,summary}.parquet + comparison.html
"""

import html
import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import plotly.offline
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from markupsafe import Markup

from pipeline import archive, comparison, gallery, masks, pages, plan, plots, recipes, storage
from pipeline.comparison import IMAGE_SCHEMA, Compared, Comparison, Totals
from pipeline.errors import AbsentError
from pipeline.masks import Row
from pipeline.plots import FRONT, REFINED, Figure
from pipeline.recipes import RecipeDocument
from pipeline.report import one_row, parquet, read_table

SHOWN = 12
AT_ONCE = max(2, os.cpu_count() or 1)
Show = Callable[[int, int], None]  # images done, images in all
_CLASS_FIELDS: list[tuple[str, pa.DataType]] = [
    ("name", pa.string()),
    ("class_id", pa.int32()),  # in the new recipe; null for a class of the old one alone
    ("old_iou", pa.float64()),
    ("iou", pa.float64()),
    ("old_pixels", pa.int64()),
    ("pixels", pa.int64()),
    ("churn", pa.float64()),  # share of its old pixels that have another class now
]
_CHURN_FIELDS: list[tuple[str, pa.DataType]] = [("old", pa.string()), ("new", pa.string()), ("pixels", pa.int64())]


class Beside(NamedTuple):
    """An image's old overlay and its new one, uint8 [h, w, 3]; or None and the reason why there is none."""

    row: Row  # of comparison.IMAGE_SCHEMA
    old_labels: list[int]
    new_labels: list[int]
    pictures: tuple[np.ndarray, np.ndarray] | None
    missing: str | None


def folder(output: str, old: str, new: str) -> str:
    """Where the comparison of two recipes lies."""
    return storage.join(output, "reports", f"recipe={new}", f"against={old}")


def page(output: str, old: str, new: str) -> str:
    """Where its page lies; it is written last."""
    return storage.join(folder(output, old, new), "comparison.html")


def up_to_date(output: str, old: str, new: str) -> Comparison | None:
    """The comparison that is there, if it is of all rows that both recipes have now."""
    try:
        found = read(output, old, new)
    except AbsentError:
        return None
    before, after = archive.images(output, old), archive.images(output, new)
    counts = comparison.pairs(before, after).num_rows, comparison.missing(before, after)
    return found if counts == (found.images, found.missing) and storage.exists(found.report) else None


def read(output: str, old: str, new: str) -> Comparison:
    """The numbers of a comparison that was written. Raises AbsentError where there is none."""
    (numbers,) = read_table(storage.join(folder(output, old, new), "summary.parquet")).to_pylist()
    return Comparison.model_validate(numbers)


def write(output: str, old: str, new: str, show: Show) -> Comparison:
    """Compares all images that both recipes have rows of, and writes tables and page over any earlier ones."""
    before, after = (recipes.read_document(output, fingerprint) for fingerprint in (old, new))
    old_images, new_images = archive.images(output, old), archive.images(output, new)
    pairs, missing = comparison.pairs(old_images, new_images), comparison.missing(old_images, new_images)
    totals = Totals(before.classes, after.classes)
    place = folder(output, old, new)
    out, leading, churned = io.BytesIO(), IMAGE_SCHEMA.empty_table(), [np.empty(0)]
    with pq.ParquetWriter(out, IMAGE_SCHEMA, compression="zstd") as writer:
        for found in _compared(output, before, after, pairs):
            totals.add(found)
            writer.write_table(found.images)
            churned.append(found.images["churn"].drop_null().to_numpy().astype(np.float32))
            leading = _leading(pa.concat_tables([leading, found.images]), SHOWN)
            show(totals.images, len(pairs))
    storage.put(storage.join(place, "per_image.parquet"), out.getvalue())
    by_class = totals.by_class()
    for name, rows, schema in (
        ("per_class", by_class, pa.schema(_CLASS_FIELDS)),
        ("churn", _moves(totals), pa.schema(_CHURN_FIELDS)),
    ):
        storage.put(storage.join(place, f"{name}.parquet"), parquet(pa.Table.from_pylist(rows, schema)))
    summary = totals.comparison(old, new, missing, page(output, old, new))
    storage.put(storage.join(place, "summary.parquet"), parquet(one_row(summary)))
    drawn = figures(totals, np.concatenate(churned))
    storage.put(summary.report, _page(summary, (before, after), by_class, drawn, beside(output, old, new, leading)))
    return summary


def _compared(output: str, old: RecipeDocument, new: RecipeDocument, pairs: pa.Table) -> Iterator[Compared]:
    """A shard after the other; several are read and decoded at once, which is done outside of the GIL."""
    names = old.classes, new.classes

    def compare(members: pa.Table) -> Compared:
        return comparison.compare_shard(output, old.fingerprint, new.fingerprint, members, names)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(compare, comparison.shard_pairs(pairs))


def most_changed(output: str, old: str, new: str, count: int) -> pa.Table:
    """The images of a written comparison that changed most: a table of IMAGE_SCHEMA."""
    table = read_table(storage.join(folder(output, old, new), "per_image.parquet"))
    return _leading(table, count)


def _leading(images: pa.Table, count: int) -> pa.Table:
    changed = images.filter(pc.greater(images["churn"], 0))
    return changed.sort_by([("churn", "descending"), ("image_id", "ascending")]).slice(0, count)


def beside(output: str, old: str, new: str, images: pa.Table) -> Iterator[Beside]:
    """Old and new overlays of images of IMAGE_SCHEMA, in their order."""
    documents = recipes.read_document(output, old), recipes.read_document(output, new)
    for image in images.to_pylist():
        before = _row(output, old, image["old_run"], image["old_shard"], image)
        after = _row(output, new, image["run"], image["shard"], image)
        refs = plan.read_shard(output, new, image["run"], image["shard"])
        ref = next((ref for ref in refs if ref.image_id == image["image_id"]), None)
        try:
            pictures = tuple(
                gallery.picture(ref, row, document) for row, document in zip((before, after), documents, strict=True)
            )
        except Exception as error:  # a source that was changed since can lead its readers to anything
            yield Beside(image, before["labels"], after["labels"], None, str(error) or type(error).__name__)
        else:
            yield Beside(image, before["labels"], after["labels"], (pictures[0], pictures[1]), None)


def _row(output: str, fingerprint: str, run: str, shard: int, image: Row) -> Row:
    return masks.read_images(output, fingerprint, run, [(shard, image["image_id"])])[image["image_id"]]


def figures(totals: Totals, churned: np.ndarray) -> list[Figure]:
    """The comparison's figures, as far as there are numbers for them."""
    drawn = []
    if totals.new.classes and list(totals.old_classes) == list(totals.classes):
        shown = plots.leading(totals.new.present, totals.new.iou)
        traces = [
            plots.class_bars("new", REFINED, totals.classes, shown, totals.new.iou, ".3f"),
            plots.class_bars("old", FRONT, totals.classes, shown, totals.old.iou, ".3f"),
        ]
        drawn.append(plots.by_class("iou", "IoU by class, old and new", traces, {"range": [0, 1]}))
    areas = totals.pixels.sum(1)
    if areas.any():
        drawn += [_churn_by_class(totals, areas), _matrix(totals, areas)]
    if len(churned):
        drawn.append(plots.histogram("churned", "Churn by image", churned, "share of an image", ".2~%"))
    return drawn


def _churn_by_class(totals: Totals, areas: np.ndarray) -> Figure:
    left = np.divide((totals.pixels * ~totals.same).sum(1), areas, out=np.zeros(len(areas)), where=areas > 0)
    shown = plots.leading(areas > 0, left)
    traces = [plots.class_bars("left", REFINED, totals.old_classes, shown, left, ".2%")]
    title = "Churn by class: the share of its old pixels that left it"
    return plots.by_class("churn", title, traces, {"tickformat": ".0%"})


def _matrix(totals: Totals, areas: np.ndarray) -> Figure:
    """Where the pixels of each old class went, those that stayed left out."""
    rows = plots.leading(areas > 0, areas)
    columns = plots.leading(totals.pixels.sum(0) > 0, totals.pixels.sum(0))
    moved = np.where(totals.same, 0, totals.pixels)[np.ix_(rows, columns)]
    shares = moved / areas[rows][:, None]
    trace = {
        "type": "heatmap",
        "z": np.where(totals.same[np.ix_(rows, columns)], np.nan, shares).tolist(),
        "hoverongaps": False,
        "colorscale": [[0, "rgba(63,127,214,0.06)"], [1, REFINED]],
        "colorbar": {"tickformat": ".1%", "thickness": 12, "outlinewidth": 0},
        "hovertemplate": "%{y} to %{x}: %{z:.3%} of its old pixels<extra></extra>",
        "x": [html.escape(totals.classes[index]) for index in columns],
        "y": [html.escape(totals.old_classes[index]) for index in rows],
        "xgap": 1,
        "ygap": 1,
    }
    trace["z"] = [[None if np.isnan(share) else share for share in row] for row in trace["z"]]
    axis = {"automargin": True, "showgrid": False, "zeroline": False, "type": "category"}
    layout = {
        "height": 160 + 22 * len(rows),
        "margin": {"l": 20, "r": 16, "t": 8, "b": 28},
        "xaxis": axis | {"title": {"text": "new class"}, "tickangle": -45},
        "yaxis": axis | {"title": {"text": "old class"}, "autorange": "reversed"},
    }
    return Figure("matrix", "Where the pixels that left a class went, as shares of it", [trace], layout)


def _moves(totals: Totals) -> list[Row]:
    """How many pixels went from which class to which; those that stayed too."""
    return [
        {"old": totals.old_classes[old], "new": totals.classes[new], "pixels": int(totals.pixels[old, new])}
        for old, new in zip(*np.nonzero(totals.pixels), strict=True)
    ]


def _page(
    found: Comparison,
    documents: tuple[RecipeDocument, RecipeDocument],
    by_class: list[Row],
    drawn: list[Figure],
    leading: Iterator[Beside],
) -> bytes:
    cards = [
        one._asdict()
        | dict(zip(("old", "new"), map(gallery.data_uri, one.pictures) if one.pictures else (None, None), strict=True))
        for one in leading
    ]
    return pages.render(
        "comparison.html.j2",
        found=found,
        old=documents[0],
        new=documents[1],
        classes=[row for row in by_class if row["old_pixels"] or row["pixels"] or row["iou"] is not None],
        cards=cards,
        figures=[figure._asdict() for figure in drawn],
        plotly=Markup(plotly.offline.get_plotlyjs()),
    )
