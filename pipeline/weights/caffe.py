"""Caffe's .caffemodel files, in both formats: V1 ``layers`` (2014) and V2 ``layer``.

The few fields of caffe.proto that hold weights are declared here. Floats are declared as bytes: a packed list of them
is the same on the wire, and a blob of a hundred million becomes an array at once.
"""

import math
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

# message -> (field, number, type, repeated)
SCHEMA = {
    "Shape": [("dim", 1, "int64", True)],
    "Blob": [
        ("num", 1, "int32", False),
        ("channels", 2, "int32", False),
        ("height", 3, "int32", False),
        ("width", 4, "int32", False),
        ("data", 5, "bytes", True),
        ("shape", 7, "Shape", False),
        ("double_data", 8, "bytes", True),
    ],
    "LayerV1": [("name", 4, "string", False), ("blobs", 6, "Blob", True)],
    "LayerV2": [("name", 1, "string", False), ("blobs", 7, "Blob", True)],
    "Net": [("name", 1, "string", False), ("layers", 2, "LayerV1", True), ("layer", 100, "LayerV2", True)],
}


def read(data: bytes) -> dict[str, "Tensor"]:
    """The blobs of a .caffemodel as float32 tensors in Caffe's shapes, named ``<layer>.<index>``.

    Raises WeightsError for a file that is not whole, or holds no layers with weights.
    """
    from google.protobuf.message import DecodeError

    try:
        net = messages()["Net"].FromString(data)
    except DecodeError as error:
        raise WeightsError(
            f"not a whole torch, safetensors or Caffe file ({len(data)} bytes, it starts with {data[:12]!r})"
        ) from error
    tensors = {}
    for layer in [*net.layers, *net.layer]:
        for index, blob in enumerate(layer.blobs):
            name = f"{layer.name}.{index}"
            if name in tensors:
                raise WeightsError(f"two layers with weights are called {layer.name!r}")
            tensors[name] = _tensor(name, blob)
    if not tensors:
        raise WeightsError(
            f"not a torch, safetensors or Caffe file: no layers with weights in its {len(data)} bytes, "
            f"which start with {data[:12]!r}"
        )
    return tensors


def _tensor(name: str, blob: Any) -> "Tensor":
    import torch

    doubles = b"".join(blob.double_data)
    values = np.frombuffer(doubles, "<f8") if doubles else np.frombuffer(b"".join(blob.data), "<f4")
    shape = list(blob.shape.dim) if blob.HasField("shape") else [blob.num, blob.channels, blob.height, blob.width]
    if math.prod(shape) != len(values):
        raise WeightsError(f"{name} is said to be {shape} and holds {len(values)} values; is the file whole?")
    return torch.from_numpy(values.astype(np.float32)).reshape(shape)


def layers(tensors: Mapping[str, "Tensor"]) -> list[str]:
    """The layers that have blobs, in order."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name in tensors))


def parameters(tensors: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    """The blobs by torch's names: <layer>.0 is a weight, <layer>.1 a bias [C]; any other keeps its name."""
    named = {}
    for name, tensor in tensors.items():
        layer, _, index = name.rpartition(".")
        if index == "0":
            named[f"{layer}.weight"] = tensor
        else:
            named[f"{layer}.bias" if index == "1" else name] = tensor.flatten()
    return named


def norm(name: str, channels: int, scale: "Tensor | None" = None, shift: "Tensor | None" = None) -> dict[str, "Tensor"]:
    """A torch batch norm that does scale * x + shift, or nothing at all where they are left out."""
    import torch

    return {
        f"{name}.weight": torch.ones(channels) if scale is None else scale.flatten(),
        f"{name}.bias": torch.zeros(channels) if shift is None else shift.flatten(),
        f"{name}.running_mean": torch.zeros(channels),
        f"{name}.running_var": torch.full((channels,), 1 - torch.nn.BatchNorm2d(1).eps),
    }


@cache
def messages() -> dict[str, Any]:
    """The message classes of SCHEMA, by name."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="densemask/caffe.proto", package="densemask.caffe")
    for message, fields in SCHEMA.items():
        declared = file.message_type.add(name=message)
        for name, number, kind, repeated in fields:
            added = declared.field.add(name=name, number=number)
            added.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            if kind in SCHEMA:
                added.type, added.type_name = field.TYPE_MESSAGE, f".densemask.caffe.{kind}"
            else:
                added.type = getattr(field, f"TYPE_{kind.upper()}")
            if kind == "int64":
                added.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"densemask.caffe.{name}")) for name in SCHEMA
    }
