"""The report's figures, as the plain dictionaries that plotly.js draws. The page gives them its fonts and colours."""

import html
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline.metrics import Counts
from pipeline.tally import Tally

BINS = 20
MOST_CLASSES = 60
FRONT, REFINED = "#9aa5b1", "#3f7fd6"
Json = dict[str, Any]


class Figure(NamedTuple):
    """One plot: its place in the page, its heading, and what plotly.js takes."""

    id: str
    title: str
    data: list[Json]
    layout: Json


def figures(tally: Tally, classes: Sequence[str]) -> list[Figure]:
    """The figures that the tally has numbers for; those that need truth only where there is some."""
    drawn = []
    refined = tally.counts["refined"]
    if refined.classes:
        drawn += [
            _iou_by_class(tally.counts["front"], refined, classes),
            _area_by_class(refined, classes),
            _miou_by_image(tally.measure("miou_front"), tally.measure("miou")),
        ]
    elif tally.images_with.any():
        drawn.append(_images_by_class(tally.images_with, classes))
    confidence = tally.measure("confidence")
    if len(confidence):
        drawn += [
            histogram("confidence", "Confidence by image", confidence, "mean top probability before the field", ".3~f"),
            histogram("entropy", "Entropy by image", tally.measure("entropy"), "0 certain, 1 uniform", ".3~f"),
        ]
    changed = tally.measure("changed")
    if changed.any():
        drawn.append(histogram("changed", "Changed by the field", changed, "share of an image", ".2~%"))
    return drawn


def _iou_by_class(front: Counts, refined: Counts, classes: Sequence[str]) -> Figure:
    shown = leading(refined.present, refined.iou)
    traces = [
        class_bars("after the field", REFINED, classes, shown, refined.iou, ".3f"),
        class_bars("before", FRONT, classes, shown, front.iou, ".3f"),
    ]
    return by_class("iou", "IoU by class, before and after the field", traces, {"range": [0, 1]})


def _area_by_class(refined: Counts, classes: Sequence[str]) -> Figure:
    predicted = refined.tp + refined.fp
    shown = leading(predicted + refined.truth > 0, refined.truth)
    total = refined.truth.sum()
    traces = [
        class_bars("masks", REFINED, classes, shown, predicted / total, ".2%"),
        class_bars("truth", FRONT, classes, shown, refined.truth / total, ".2%"),
    ]
    return by_class("area", "Area by class, in masks and in truth", traces, {"tickformat": ".0%"})


def _images_by_class(images_with: np.ndarray, classes: Sequence[str]) -> Figure:
    shown = leading(images_with > 0, images_with)
    traces = [class_bars("images", REFINED, classes, shown, images_with, ",d")]
    return by_class("images", "Images that hold a class", traces, _whole_ticks(int(images_with.max())))


def _miou_by_image(front: np.ndarray, refined: np.ndarray) -> Figure:
    figure = histogram("miou", "mIoU by image, before and after", refined, "mIoU of an image", ".2~f", (0, 1))
    counts, edges = np.histogram(front, BINS, (0, 1))
    steps = {
        "type": "scatter",
        "mode": "lines",
        "name": "before",
        "x": edges.tolist(),
        "y": [*counts.tolist(), int(counts[-1])],
        "line": {"shape": "hv", "color": FRONT, "width": 2},
    }
    figure.data[0]["name"] = "after the field"
    return figure._replace(data=[*figure.data, steps], layout=figure.layout | {"showlegend": True})


def histogram(
    name: str, title: str, values: np.ndarray, axis: str, tick: str, span: tuple[float, float] | None = None
) -> Figure:
    """Counted here, so that the page stays small whatever the number of images."""
    low, high = span or (float(values.min()), float(values.max()))
    if low == high:
        low, high = max(0.0, low - 0.01), high + 0.01
    counts, edges = np.histogram(values.astype(np.float64), BINS, (low, high))
    bars = {
        "type": "bar",
        "x": ((edges[1:] + edges[:-1]) / 2).tolist(),
        "y": counts.tolist(),
        "width": np.diff(edges).tolist(),
        "marker": {"color": REFINED, "line": {"width": 0}},
        "hovertemplate": f"%{{x:{tick}}}: %{{y:,d}} images<extra></extra>",
    }
    layout = {
        "height": 280,
        "bargap": 0.06,
        "xaxis": {"title": {"text": axis}, "tickformat": tick, "range": [float(edges[0]), float(edges[-1])]},
        "yaxis": {"title": {"text": "images"}, "rangemode": "tozero"} | _whole_ticks(int(counts.max())),
        "showlegend": False,
    }
    return Figure(name, title, [bars], layout)


def _whole_ticks(largest: int) -> Json:
    """An axis of counts; left to itself it would mark halves of small ones."""
    return {"dtick": 1} if largest <= 5 else {"tickformat": ",d"}


def by_class(name: str, title: str, traces: list[Json], axis: Json) -> Figure:
    """Horizontal bars, the first class on top."""
    layout = {
        "height": 70 + len(traces[0]["y"]) * (14 + 10 * len(traces)),
        "margin": {"l": 20, "r": 16, "t": 8, "b": 28},
        "bargap": 0.3,
        "barmode": "group",
        "xaxis": {"rangemode": "tozero"} | axis,
        "yaxis": {
            "autorange": "reversed",
            "automargin": True,
            "showgrid": False,
            "zeroline": False,
            "tickvals": traces[0]["y"],
            "ticktext": traces[0]["text"],
        },
        "showlegend": len(traces) > 1,
    }
    return Figure(name, title, traces, layout)


def class_bars(
    name: str, colour: str, classes: Sequence[str], shown: np.ndarray, values: np.ndarray, tick: str
) -> Json:
    """One bar a class of those shown, in their order."""
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "x": values[shown].tolist(),
        "y": list(range(len(shown))),
        "text": [html.escape(classes[index]) for index in shown],  # plotly.js reads its texts as HTML
        "textposition": "none",
        "marker": {"color": colour, "line": {"width": 0}},
        "hovertemplate": f"%{{text}}: %{{x:{tick}}}<extra>{name}</extra>",
    }


def leading(present: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The classes that are present, the largest value first, at most MOST_CLASSES of them."""
    order = np.argsort(-np.where(present, values, -np.inf), kind="stable")
    return order[: min(int(present.sum()), MOST_CLASSES)]
