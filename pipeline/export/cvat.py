"""CVAT for images 1.1: ``annotations.xml`` with a mask a class, ``labels.json`` for the raw view of its label editor.

The names of copied photographs begin with their rank, since CVAT sorts the images of a task by name.
"""

import json
import re
from collections.abc import Iterator
from xml.etree import ElementTree

import numpy as np

from pipeline.export import Described, Documents, Export, Labelled

PHOTOGRAPH = "images/{rank:06d}-{flat}.jpg"
MASK = None
POLYGONS = False
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def describe(image: Labelled, export: Export) -> bytes:
    """The image's element, without its number."""
    name = image.path(PHOTOGRAPH).removeprefix("images/") if export.photographs else _NO_XML.sub("_", image.image_id)
    element = ElementTree.Element("image", name=name, width=str(image.width), height=str(image.height))
    for each, pixels in image.masks(export):
        box, runs = cropped_rle(pixels)
        place = zip(("left", "top", "width", "height"), map(str, box), strict=True)
        attributes = {
            "label": each.name,
            "source": "auto",
            "occluded": "0",
            "rle": ", ".join(map(str, runs)),
            **dict(place),
        }
        ElementTree.SubElement(element, "mask", attributes, z_order="0")
    ElementTree.indent(element, level=1)
    return ElementTree.tostring(element, "utf-8")


def documents(export: Export, described: Described) -> Documents:
    """The annotations and the labels."""
    yield "annotations.xml", _annotations(export, described)
    labels = [{"name": each.name, "color": each.hex_colour, "type": "mask", "attributes": []} for each in export.things]
    yield "labels.json", [json.dumps(labels, indent=1).encode(), b"\n"]


def cropped_rle(pixels: np.ndarray) -> tuple[tuple[int, int, int, int], list[int]]:
    """(left, top, width, height) of a mask bool [H, W] that is not empty, and the lengths of the runs of its pixels in
    that box, row by row: outside, inside, outside, ... The first one is 0 where the box begins inside."""
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    top, left, bottom, right = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
    inside = np.concatenate([[False], pixels[top:bottom, left:right].ravel()])
    starts = np.flatnonzero(inside[1:] != inside[:-1])
    runs = np.diff(np.concatenate([[0], starts, [inside.size - 1]]))
    return (int(left), int(top), int(right - left), int(bottom - top)), runs.tolist()


def _annotations(export: Export, described: Described) -> Iterator[bytes]:
    meta = ElementTree.Element("meta")
    task = ElementTree.SubElement(meta, "task")
    for tag, text in (("name", f"densemask {export.recipe}"), ("size", str(len(described))), ("mode", "annotation")):
        ElementTree.SubElement(task, tag).text = text
    labels = ElementTree.SubElement(task, "labels")
    for each in export.things:
        label = ElementTree.SubElement(labels, "label")
        for tag, text in (("name", each.name), ("color", each.hex_colour), ("type", "mask"), ("attributes", "")):
            ElementTree.SubElement(label, tag).text = text
    ElementTree.indent(meta, level=1)
    yield b'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  '
    yield ElementTree.tostring(meta, "utf-8") + b"\n"
    for number, image in enumerate(described):
        yield b'  <image id="%d"' % number + image.removeprefix(b"<image") + b"\n"
    yield b"</annotations>\n"
