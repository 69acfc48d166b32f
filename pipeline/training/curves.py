"""A training's loss and mIoU by epoch: as a page, and as a small picture."""

from typing import Any

LOSS, MIOU = "#9aa5b1", "#3f7fd6"
WIDTH, HEIGHT, MARGIN = 480, 200, 24


def page(history: list[dict[str, Any]]) -> bytes:
    """An HTML page that needs nothing else."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for name, colour, axis, (epochs, values) in (
        ("training loss", LOSS, "y", _series(history, "loss")),
        ("validation mIoU", MIOU, "y2", _series(history, "miou")),
    ):
        figure.add_scatter(x=epochs, y=values, name=name, yaxis=axis, line={"color": colour})
    second = {"title": "mIoU", "overlaying": "y", "side": "right", "showgrid": False}
    figure.update_layout(xaxis_title="epoch", yaxis_title="loss", yaxis2=second)
    return figure.to_html(include_plotlyjs=True).encode()


def picture(history: list[dict[str, Any]]) -> bytes:
    """Both lines as SVG, each scaled from 0 to its largest value."""
    lines = []
    for key, name, colour, row in (("loss", "loss", LOSS, 0), ("miou", "mIoU", MIOU, 1)):
        epochs, values = _series(history, key)
        if not values:
            continue
        across, up = (WIDTH - 2 * MARGIN) / max(1, epochs[-1] - 1), (HEIGHT - 3 * MARGIN) / (max(values) or 1.0)
        points = " ".join(
            f"{MARGIN + across * (epoch - 1):.1f},{HEIGHT - MARGIN - up * value:.1f}"
            for epoch, value in zip(epochs, values, strict=True)
        )
        lines += [
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>',
            f'<text x="{MARGIN + 200 * row}" y="{MARGIN}" fill="{colour}">{name} {values[-1]:.4f}, '
            f"largest {max(values):.4f}</text>",
        ]
    style = 'font-family="sans-serif" font-size="12"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {style}>'
    return f"{head}{''.join(lines)}</svg>".encode()


def _series(history: list[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """(epochs, values) of the rows that have the key."""
    rows = [row for row in history if row.get(key) is not None]
    return [row["epoch"] for row in rows], [row[key] for row in rows]
