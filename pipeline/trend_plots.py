"""The figures of a night's page, as the plain dictionaries that plotly.js draws."""

import html
from collections.abc import Sequence

from pipeline import trend
from pipeline.config import Trend
from pipeline.plots import FRONT, REFINED, Figure, Json
from pipeline.trend import AREA, MEASURES, Night, Usual

SHIFTED = "#d0453b"
BAND = "rgba(63, 127, 214, 0.13)"
MOST_CLASSES = 40
PERCENT = ("failures", "changed", AREA)


def figures(nights: Sequence[Night], rules: Trend) -> list[Figure]:
    """A small plot a measure that any of the nights has, one a shifted class, and tonight's classes; oldest first."""
    tonight = nights[-1]
    held = trend.expected(tonight, nights[:-1], rules)
    classes = [shift.name for shift in tonight.shifts if shift.measure == AREA]
    keys: list[tuple[str, str | None]] = [(measure, None) for measure in MEASURES]
    keys += [(AREA, name) for name in classes]
    drawn = [
        _line(f"trend-{index}", key, nights, held.get(key), rules)
        for index, key in enumerate(keys)
        if any(trend.values(night).get(key) is not None for night in nights)
    ]
    if any(tonight.areas.values()):
        drawn.append(_areas(tonight, held, rules))
    return drawn


def _line(
    place: str, key: tuple[str, str | None], nights: Sequence[Night], usual: Usual | None, rules: Trend
) -> Figure:
    """The measure night by night; the band is where a night of tonight's recipe is no shift."""
    measure, name = key
    points = [(night, value) for night in nights if (value := trend.values(night).get(key)) is not None]
    tick = ".3~%" if measure in PERCENT else ",d" if measure == "images" else ".3~f"
    recipe = nights[-1].recipe
    trace = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [_date(night) for night, _ in points],
        "y": [value for _, value in points],
        "line": {"color": FRONT, "width": 1.5},
        "marker": {
            "size": [11 if _is_shifted(night, key) else 7 for night, _ in points],
            "color": [
                SHIFTED if _is_shifted(night, key) else REFINED if night.recipe == recipe else FRONT
                for night, _ in points
            ],
        },
        "text": [night.recipe for night, _ in points],
        "hovertemplate": f"%{{x|%d %b %H:%M}}: %{{y:{tick}}}<br>recipe %{{text}}<extra></extra>",
    }
    layout: Json = {
        "height": 220,
        "xaxis": {"type": "date", "nticks": 5, "tickformat": "%d %b"},
        "yaxis": {"tickformat": tick, "nticks": 5}
        | ({"rangemode": "tozero"} if measure in ("images", "failures") else {}),
        "showlegend": False,
    }
    if usual is not None:
        layout["shapes"] = _band(usual, rules, measure)
    return Figure(place, trend.label(measure, name), [trace], layout)


def _band(usual: Usual, rules: Trend, measure: str) -> list[Json]:
    reach = rules.threshold * usual.spread
    low = usual.middle - reach if measure not in ("images", *PERCENT) else max(0.0, usual.middle - reach)
    across: Json = {"xref": "paper", "x0": 0, "x1": 1, "layer": "below"}
    return [
        across | {"type": "rect", "y0": low, "y1": usual.middle + reach, "fillcolor": BAND, "line": {"width": 0}},
        across | {
            "type": "line", "y0": usual.middle, "y1": usual.middle, "line": {"color": FRONT, "width": 1, "dash": "dot"},
        },
    ]  # fmt: skip


def _areas(tonight: Night, held: dict[tuple[str, str | None], Usual], rules: Trend) -> Figure:
    """Each class's share tonight, with the range that is usual; the shifted ones first, then the largest."""
    shifted = [shift.name for shift in tonight.shifts if shift.measure == AREA]
    largest = sorted(tonight.areas, key=lambda name: -max(tonight.areas[name], _middle(held, name)))
    names = list(dict.fromkeys([*(name for name in shifted if name), *largest]))
    names = [name for name in names if tonight.areas[name] or _middle(held, name)][:MOST_CLASSES]
    places = list(range(len(names)))
    usual = [held.get((AREA, name)) for name in names]
    ranges = [
        (max(0.0, one.middle - rules.threshold * one.spread), one.middle + rules.threshold * one.spread)
        if one
        else (0.0, 0.0)
        for one in usual
    ]
    bars = {
        "type": "bar", "orientation": "h", "name": "usual", "y": places,
        "base": [low for low, _ in ranges], "x": [high - low for low, high in ranges],
        "marker": {"color": BAND, "line": {"width": 0}}, "hoverinfo": "skip", "width": 0.6,
    }  # fmt: skip
    dots = {
        "type": "scatter", "mode": "markers", "name": "tonight", "y": places,
        "x": [tonight.areas[name] for name in names],
        "text": [html.escape(name) for name in names],
        "marker": {"size": 9, "color": [SHIFTED if name in shifted else REFINED for name in names]},
        "hovertemplate": "%{text}: %{x:.2%}<extra></extra>",
    }  # fmt: skip
    layout = {
        "height": 90 + 24 * len(names),
        "margin": {"l": 20, "r": 16, "t": 8, "b": 28},
        "xaxis": {"tickformat": ".1~%", "rangemode": "tozero"},
        "yaxis": {
            "range": [len(names) - 0.5, -0.5], "automargin": True, "showgrid": False, "zeroline": False,
            "tickvals": places, "ticktext": dots["text"],
        },
        "showlegend": any(usual),
    }  # fmt: skip
    return Figure("areas", "share of an image by class", [*([bars] if any(usual) else []), dots], layout)


def _middle(held: dict[tuple[str, str | None], Usual], name: str) -> float:
    usual = held.get((AREA, name))
    return usual.middle if usual else 0.0


def _is_shifted(night: Night, key: tuple[str, str | None]) -> bool:
    return any((shift.measure, shift.name) == key for shift in night.shifts)


def _date(night: Night) -> str:
    """The night's beginning as plotly.js reads it."""
    day, time = night.night.rstrip("Z").split("T")
    return f"{day} {time.replace('-', ':')}"
