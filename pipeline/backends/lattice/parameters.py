"""What the fully connected CRF of Krähenbühl and Koltun (NIPS 2011) is told, whichever engine infers it."""

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

# pydensecrf's own floor for probabilities that become energies.
PROBABILITY_FLOOR = 1e-5
# The lattice counts in integers: a far smaller deviation overflows them, and takes pydensecrf's process with it.
MIN_STD, MAX_STD, MAX_WEIGHT = 0.1, 1e6, 1e6

Normalization = Literal["symmetric", "before", "after", "none"]


class Parameters(BaseModel):
    """The field. The defaults are those of kazuto1011/deeplab-pytorch (DeepLab v2).

    Five dials trade exactness for time; what each costs and gains is measured in docs/results.md. ``exact`` turns all
    of them off.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    iterations: int = Field(10, ge=1, le=1000, description="Of mean-field inference.")
    spatial_std: float = Field(1.0, ge=MIN_STD, le=MAX_STD, description="Pixels.")
    spatial_weight: float = Field(3.0, ge=0, le=MAX_WEIGHT, description="Of nearness.")
    bilateral_xy_std: float = Field(67.0, ge=MIN_STD, le=MAX_STD, description="Pixels.")
    bilateral_rgb_std: float = Field(3.0, ge=MIN_STD, le=MAX_STD, description="Grey levels of 255.")
    bilateral_weight: float = Field(4.0, ge=0, le=MAX_WEIGHT, description="Of nearness in place and colour.")
    normalization: Normalization = Field("symmetric", description="Of the kernels, as pydensecrf has it.")
    engine: Literal["cpu", "torch", "pydensecrf"] = Field("cpu", description="torch takes a GPU where there is one.")
    keep_label_above: float = Field(
        0.05, ge=0, lt=1, description="Labels whose probability nowhere passes this take no part in the field."
    )
    settled_above: float = Field(
        0.97, ge=0, lt=1, description="cpu: pixels whose most probable label passes this leave the iteration; 0: none."
    )
    longest_step: float = Field(
        1.75, ge=1, lt=2, description="cpu: iterations that a step may be worth, so that there are fewer; 1: plain."
    )
    stop_when_unchanged: float = Field(
        0.0, ge=0, lt=1, description="cpu: stop when an iteration moves fewer pixels' probabilities by over 0.02."
    )
    spatial_kernel: Literal["gaussian", "lattice"] = Field(
        "gaussian", description="cpu: the spatial kernel as an exact Gaussian, or by a lattice as pydensecrf has it."
    )
    exact: bool = Field(False, description="All labels, all iterations, lattices: pydensecrf's result.")

    def resolved(self) -> "Parameters":
        """The parameters with the dials where ``exact`` puts them."""
        if not self.exact:
            return self
        return self.model_copy(
            update={
                "keep_label_above": 0.0,
                "settled_above": 0.0,
                "longest_step": 1.0,
                "stop_when_unchanged": 0.0,
                "spatial_kernel": "lattice",
            }
        )


def energies(probabilities: np.ndarray) -> np.ndarray:
    """The unary of probabilities: -log p, float32 of the same shape."""
    energy = np.clip(probabilities, PROBABILITY_FLOOR, 1.0).astype(np.float32, copy=False)
    np.log(energy, out=energy)
    return np.negative(energy, out=energy)
