"""Checkpoints as other projects publish them, written byte by byte or by torch, with random tensors."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

Blobs = Mapping[str, list[np.ndarray]]


def torch_file(content: Any, **how: Any) -> bytes:
    out = io.BytesIO()
    torch.save(content, out, **how)
    return out.getvalue()


def caffemodel(layers: Blobs, version: int = 2) -> bytes:
    """NetParameter on the wire, by the field numbers of caffe.proto; a V1 file tells shapes in four numbers."""
    name, blobs, layer = (4, 6, 2) if version == 1 else (1, 7, 100)
    parts = [_bytes(1, b"a net")]
    for title, arrays in layers.items():
        content = _bytes(name, title.encode()) + b"".join(_bytes(blobs, _blob(array, version)) for array in arrays)
        parts.append(_bytes(layer, content + (_number(5, 4) if version == 1 else _bytes(2, b"Convolution"))))
    return b"".join(parts)


def _blob(array: np.ndarray, version: int) -> bytes:
    data = _bytes(5, array.astype("<f4").tobytes())
    if version == 1:
        four = (1,) * (4 - array.ndim) + array.shape
        return b"".join(_number(field, size) for field, size in enumerate(four, start=1)) + data
    return _bytes(7, _bytes(1, b"".join(_varint(size) for size in array.shape))) + data


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
