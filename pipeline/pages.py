"""HTML pages from the templates in pipeline/templates. All that is data is escaped."""

import secrets
from typing import Any

import jinja2

from pipeline.classes import Palette, palette

MISSING = "\N{EN DASH}"


def render(template: str, **content: Any) -> bytes:
    """The page, UTF-8. Its scripts run by a nonce that no data can know; whatever else is in it cannot load or run."""
    return _environment().get_template(template).render(nonce=secrets.token_urlsafe(16), **content).encode()


def number(value: float | None, digits: int = 3) -> str:
    """The value with so many decimals and thousands set apart; a dash for none."""
    return MISSING if value is None else f"{value:,.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage; a dash for none."""
    return MISSING if value is None else f"{value * 100:.{digits}f} %"


def colour(label: int, own: Palette | None) -> str:
    """The class's colour in masks, as CSS."""
    return "rgb({}, {}, {})".format(*palette(own)[label % 256])


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "percent": percent, "colour": colour}
    return environment
