"""Back ends: (photograph, class scores) -> refined probabilities. One file a field; its module name is its name.

A back end's module has
    Parameters                                   a frozen pydantic model
    refine(rgb, probabilities, parameters)       uint8 [H, W, 3], float32 [C, H, W] -> Refined
"""

import pkgutil
from typing import Any, NamedTuple

import numpy as np

from pipeline.frontends import load_plugin


class Refined(NamedTuple):
    """Refined probabilities float32 [K, H, W] of the K classes that took part, and which they are: int [K].

    The others' are zero everywhere.
    """

    kept: np.ndarray
    probabilities: np.ndarray

    def labels(self) -> np.ndarray:
        """The most probable class of each pixel: uint8 [H, W]."""
        return self.kept.astype(np.uint8)[self.probabilities.argmax(0)]


def names() -> list[str]:
    """The back ends that there are."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)


def load(name: str) -> Any:
    """The back end's module. Raises ConfigError with the list for an unknown name."""
    return load_plugin(__name__, names(), name, "back end")


def parameters(name: str) -> Any:
    """The back end's model of parameters."""
    return load(name).Parameters
