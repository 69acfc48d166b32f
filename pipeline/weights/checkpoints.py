"""A published checkpoint's bytes -> tensors by name, whatever the format; told by the content, not by the suffix."""

from typing import TYPE_CHECKING, NamedTuple

from pipeline.errors import WeightsError
from pipeline.weights import BATCH_COUNTER, NOTES, caffe, metadata, parse, torch_files

if TYPE_CHECKING:
    from torch import Tensor

ZIP, PICKLE = b"PK", b"\x80"
MAX_HEADER = 2**27  # bytes of JSON at the head of a safetensors file
WRAPPER = "module."  # of torch's DataParallel


class Checkpoint(NamedTuple):
    """float32 tensors by the names they have in the file, and what is left over on purpose: name -> why."""

    tensors: dict[str, "Tensor"]
    left_over: dict[str, str]


def read(data: bytes) -> Checkpoint:
    """The tensors of a torch, safetensors or Caffe file. Nothing in the file is executed.

    Prefixes of wrappers are taken off and counters of batches left over. Raises WeightsError.
    """
    left_over: dict[str, str] = {}
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") < MAX_HEADER:
        tensors = parse(data)
        if NOTES in metadata(data):
            raise WeightsError("it is native already, to be used with --weights as it is")
    elif data.startswith((ZIP, PICKLE)):
        tensors, left_over = torch_files.read(data)
    else:
        tensors = caffe.read(data)
    while tensors and all(name.startswith(WRAPPER) for name in tensors):
        tensors = {name.removeprefix(WRAPPER): tensor for name, tensor in tensors.items()}
    counters = [name for name in tensors if name.rpartition(".")[2] == BATCH_COUNTER]
    left_over |= dict.fromkeys(counters, "a counter of training batches")
    return Checkpoint({name: tensor.float() for name, tensor in tensors.items() if name not in counters}, left_over)
