"""No field: the front end's probabilities as they are."""

import numpy as np
from pydantic import BaseModel, ConfigDict


class Parameters(BaseModel):
    """There are none."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def refine(rgb: np.ndarray, probabilities: np.ndarray, parameters: Parameters) -> np.ndarray:
    """The probabilities: float32 [C, H, W]."""
    return probabilities
