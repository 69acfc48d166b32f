"""The compiled engine (src/module.cpp). Arrays are C-contiguous; the GIL is released while it works."""

import numpy as np
from numpy.typing import NDArray

def instruction_set() -> str: ...

class Lattice:
    @property
    def vertices(self) -> int: ...
    @property
    def pixels(self) -> int: ...
    def filter(self, values: NDArray[np.float32], out: NDArray[np.float32], reversed: bool = False) -> None: ...

def lattice(features: NDArray[np.float32], height: int, width: int) -> Lattice: ...
def bilateral(rgb: NDArray[np.uint8], deviations: list[float]) -> Lattice: ...

class Field:
    def __init__(self, labels: int, height: int, width: int) -> None: ...
    def add_lattice(self, lattice: Lattice, weight: float, matrix: list[float], normalization: str) -> None: ...
    def add_gaussian(
        self, y_std: float, x_std: float, weight: float, matrix: list[float], normalization: str
    ) -> None: ...
    def infer(
        self,
        unary: NDArray[np.float32],
        q: NDArray[np.float32],
        iterations: int,
        stop_when_unchanged: float,
        resume: bool,
        settled_above: float = 0.0,
        longest_step: float = 1.0,
    ) -> int: ...
    def refine(
        self,
        probabilities: NDArray[np.float32],
        kept: list[int],
        floor: float,
        q: NDArray[np.float32],
        iterations: int,
        stop_when_unchanged: float,
        settled_above: float,
        longest_step: float,
    ) -> int: ...
