"""torch's own files (zip archives since 1.6, pickles before). Only tensors are read: nothing in them is executed."""

import argparse
import io
import pickle
import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy._core.multiarray import scalar

from pipeline.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

# Where training scripts keep the network's state, beside the optimizer's and their own.
NESTS = ("state_dict", "model_state_dict", "model")
# What training scripts put beside tensors and which does nothing when it is read.
HARMLESS = (
    argparse.Namespace,
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
    np.dtypes.Int64DType,
    (scalar, "numpy.core.multiarray.scalar"),
    (scalar, "numpy._core.multiarray.scalar"),
)


def read(data: bytes) -> tuple[dict[str, "Tensor"], dict[str, str]]:
    """The network's tensors, and what else lies beside them with the reason why it is left over.

    Raises WeightsError for a file that is not whole, that needs code to be run, or that holds no state dict.
    """
    import torch

    try:
        with torch.serialization.safe_globals(list(HARMLESS)), warnings.catch_warnings(action="ignore"):
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        needs = f"it asks for {code[1]}" if code else "it is no pickle of tensors"
        raise WeightsError(
            f"it holds more than tensors ({needs}); nothing in it was run; save the network's state_dict() alone"
        ) from error
    except Exception as error:  # the zip reader and the unpickler raise whatever a broken file leads them to
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"not a whole torch file ({len(data)} bytes): {reason}") from error
    return unnested(content)


def unnested(content: Any) -> tuple[dict[str, "Tensor"], dict[str, str]]:
    """The state dict in what a training script saved, and the reasons for what is left over."""
    left_over: dict[str, str] = {}
    while isinstance(content, Mapping):
        nest = next((key for key in NESTS if isinstance(content.get(key), Mapping)), None)
        if nest is None:
            break
        left_over |= {str(key): "not of the network's state" for key in content if key != nest}
        content = content[nest]
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"it holds {type(content).__name__} {str(content)[:40]!r}, not a state dict")
    return _tensors(content), left_over


def _tensors(state: Mapping[Any, Any]) -> dict[str, "Tensor"]:
    import torch

    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise WeightsError(f"{name} is a {type(value).__name__}, not a tensor; the state dict alone is needed")
    return {str(name): value.detach() for name, value in state.items()}
