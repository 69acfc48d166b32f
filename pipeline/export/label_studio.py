"""Label Studio: ``tasks.json`` with masks as brush predictions, ``labels.xml`` with the labelling interface.

Each prediction's score is the image's confidence. Photographs of a local export are served by Label Studio's local
files (LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT is the folder that the export lies in), those of a remote one by a source
storage of its bucket.
"""

import json
from collections.abc import Iterator
from pathlib import PurePosixPath
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np

from pipeline import storage
from pipeline.errors import ImageError
from pipeline.export import Described, Documents, Export, Labelled

PHOTOGRAPH = "images/{name}.jpg"
MASK = None
POLYGONS = False
LOCAL_FILES = "/data/local-files/?d="
# Bits of a run's length, of which each run names one; those that Label Studio itself writes.
LENGTH_BITS = (3, 4, 8, 16)
WORD_BITS = 8


def describe(image: Labelled, export: Export) -> bytes:
    """The image's task: JSON."""
    regions = [
        {
            "id": f"class-{each.label}", "type": "brushlabels", "from_name": "label", "to_name": "image",
            "original_width": image.width, "original_height": image.height, "image_rotation": 0,
            "value": {"format": "rle", "rle": list(brush_rle(pixels)), "brushlabels": [each.name]},
        }
        for each, pixels in image.masks(export)
    ]  # fmt: skip
    score = round(image.confidence, 6)
    task = {
        "data": {
            "image": _served(image, export), "image_id": image.image_id, "confidence": score,
            "entropy": round(image.entropy, 6), "run": image.run,
        },
        "predictions": [{"model_version": export.recipe, "score": score, "result": regions}],
    }  # fmt: skip
    return json.dumps(task, separators=(",", ":")).encode()


def documents(export: Export, described: Described) -> Documents:
    """The tasks and the labelling interface."""
    yield "tasks.json", _tasks(described)
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image", zoom="true", zoomControl="true")
    labels = ElementTree.SubElement(view, "BrushLabels", name="label", toName="image")
    for each in export.things:
        ElementTree.SubElement(labels, "Label", value=each.name, background=each.hex_colour)
    ElementTree.indent(view)
    yield "labels.xml", [ElementTree.tostring(view, "utf-8"), b"\n"]


def brush_rle(pixels: np.ndarray) -> bytes:
    """A mask bool [H, W] as Label Studio's brushes have it: RGBA of 0 or 255, run-length encoded bit by bit.

    The count of values in 32 bits, the bits of a value less one in 5, the four LENGTH_BITS less one in 4 each; then a
    run is 1, the index of its length's bits in 2 bits, its length less one, its value. (The format of the JavaScript
    package rle-pack, of which Label Studio's editor is a reader.)
    """
    flat = np.repeat(pixels.ravel(), 4)
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]), flat.size - 1)
    bits = [f"{flat.size:032b}{WORD_BITS - 1:05b}", *(f"{size - 1:04b}" for size in LENGTH_BITS)]
    for length, value in zip(np.diff(ends, prepend=-1).tolist(), flat[ends].tolist(), strict=True):
        while length > 0:
            index = next((index for index, size in enumerate(LENGTH_BITS) if length <= 1 << size), 3)
            taken = min(length, 1 << LENGTH_BITS[index])
            bits.append(f"1{index:02b}{taken - 1:0{LENGTH_BITS[index]}b}{255 * value:08b}")
            length -= taken
    joined = "".join(bits)
    joined += "0" * (-len(joined) % 8)
    return int(joined, 2).to_bytes(len(joined) // 8)


def _tasks(described: Described) -> Iterator[bytes]:
    for number, task in enumerate(described):
        yield (b",\n" if number else b"[\n") + task
    yield b"\n]\n"


def _served(image: Labelled, export: Export) -> str:
    """The URL by which Label Studio gets the photograph."""
    if not export.photographs:
        if not image.whole:
            raise ImageError(f"the photograph lies inside {image.uri}; it has to be copied out")
        if storage.is_remote(image.uri):
            return image.uri
        return LOCAL_FILES + quote(image.uri.lstrip("/"))
    if storage.is_remote(export.folder):
        return storage.public(storage.join(export.folder, image.path(PHOTOGRAPH)))
    return LOCAL_FILES + quote(f"{PurePosixPath(export.folder).name}/{image.path(PHOTOGRAPH)}")
