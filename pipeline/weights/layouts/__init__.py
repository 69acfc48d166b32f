"""Layouts: how published checkpoints name their tensors. One file a layout; its module name is its name.

A layout's module has
    FRONT_ENDS            the front ends whose weights are published in it
    PREPROCESSING         what its photographs look like, if not as the front end's own (may be left out)
    fits(names)           whether tensors of these names are in this layout
    translate(tensors)    -> Translation; a name that it does not know goes through as it is, and is refused later

All of them are pure functions of names and tensors.
"""

import pkgutil
from collections.abc import Collection
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor


class Translation(NamedTuple):
    """The tensors by the network's names, and what is left over on purpose: name -> why."""

    state: dict[str, "Tensor"]
    left_over: dict[str, str]


def names() -> list[str]:
    """The layouts that there are."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Any:
    """The layout's module."""
    return import_module(f"{__name__}.{name}")


def recognise(tensors: Collection[str], front_end: str, chosen: str | None = None) -> str | None:
    """The layout that tensors of these names are in, or the ``chosen`` one; None for none of them.

    Raises WeightsError where it is of other front ends, or where more than one fits.
    """
    if chosen is not None:
        if chosen not in names() or front_end not in load(chosen).FRONT_ENDS:
            known = [name for name in names() if front_end in load(name).FRONT_ENDS]
            raise WeightsError(f"it has no layout {chosen!r}; there is {', '.join(known) or 'none'}")
        return chosen
    fitting = [name for name in names() if load(name).fits(tensors)]
    own = [name for name in fitting if front_end in load(name).FRONT_ENDS]
    if len(own) == 1:
        return own[0]
    if own:
        raise WeightsError(f"its names fit the layouts {', '.join(own)}; choose one with --layout")
    if fitting:
        others = sorted({other for name in fitting for other in load(name).FRONT_ENDS})
        raise WeightsError(f"it is in the layout {' or '.join(fitting)}, of {', '.join(others)}")
    return None
