"""COCO instances: an annotation a class and connected component, as pycocotools' RLE or as polygons.

Category ids count the classes from 1, without the background. Polygons rasterise to the very pixels of the mask.
"""

import json
from collections.abc import Iterator
from itertools import pairwise
from operator import itemgetter
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from pipeline.errors import ConfigError
from pipeline.export import Described, Documents, Export, Labelled

PHOTOGRAPH = "images/{name}.jpg"
MASK = None
POLYGONS = True


def describe(image: Labelled, export: Export) -> bytes:
    """The image and its annotations, without the ids of the latter: JSON."""
    where = image.path(PHOTOGRAPH).removeprefix("images/") if export.photographs else image.image_id
    entry = {
        "id": image.rank, "file_name": where, "height": image.height, "width": image.width,
        "coco_url": image.uri if image.whole else None,
        "source_id": image.image_id, "confidence": round(image.confidence, 6), "entropy": round(image.entropy, 6),
        "run": image.run,
    }  # fmt: skip
    categories = {each.label: number for number, each in enumerate(export.things, start=1)}
    annotations = [
        {"image_id": image.rank, "category_id": categories[each.label], "iscrowd": 0, **shape}
        for each, pixels in image.masks(export)
        for shape in _shapes(pixels, export.polygons)
    ]
    return json.dumps({"image": entry, "annotations": annotations}, separators=(",", ":")).encode()


def documents(export: Export, described: Described) -> Documents:
    """The annotations, where COCO itself has them."""
    yield "annotations/instances_train.json", _instances(export, described)


def _instances(export: Export, described: Described) -> Iterator[bytes]:
    info = {"description": f"masks of densemask, recipe {export.recipe}", "version": export.recipe}
    categories = [
        {"id": number, "name": each.name, "supercategory": "", "color": list(each.colour)}
        for number, each in enumerate(export.things, start=1)
    ]
    yield f'{{"info":{json.dumps(info)},\n"licenses":[],\n"categories":{json.dumps(categories)},\n"images":['.encode()
    yield from _listed(json.loads(part)["image"] for part in described)
    yield b'],\n"annotations":['
    annotations = (annotation for part in described for annotation in json.loads(part)["annotations"])
    yield from _listed({"id": number, **annotation} for number, annotation in enumerate(annotations, start=1))
    yield b"]}\n"


def _listed(entries: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    for number, entry in enumerate(entries):
        yield (b",\n" if number else b"\n") + json.dumps(entry, separators=(",", ":")).encode()


def _shapes(pixels: np.ndarray, polygons: bool) -> Iterator[dict[str, Any]]:
    """Segmentation, area and box of each connected component of a mask bool [H, W]."""
    components, _ = ndimage.label(pixels)
    for number, (rows, columns) in enumerate(ndimage.find_objects(components), start=1):
        component, top, left = components[rows, columns] == number, rows.start, columns.start
        box = [float(value) for value in (left, top, columns.stop - left, rows.stop - top)]
        shape = outlines(component, top, left) if polygons else rle(component, top, left, pixels.shape)
        yield {"segmentation": shape, "area": int(component.sum()), "bbox": box}


def rle(component: np.ndarray, top: int, left: int, size: tuple[int, ...]) -> dict[str, Any]:
    """The compressed RLE of a component [h, w] that is not empty, whose corner lies at (top, left) of ``size`` (H, W).

    Takes the time of the component, not of the image.
    """
    height, width = size
    columns, rows = np.nonzero(component.T)
    places = (columns + left) * height + rows + top  # COCO counts down the columns
    breaks = np.flatnonzero(np.diff(places) != 1)
    starts, ends = places[np.append(0, breaks + 1)], places[np.append(breaks, -1)] + 1
    edges = np.stack([starts, ends], 1).ravel()
    counts = np.diff(edges, prepend=0, append=height * width).tolist()
    (compressed,) = _pycocotools().frPyObjects([{"counts": counts, "size": [height, width]}], height, width)
    return {"size": [height, width], "counts": compressed["counts"].decode()}


def outlines(component: np.ndarray, top: int, left: int) -> list[list[float]]:
    """The polygons of a component [h, w] whose corner lies at (top, left): x, y, x, y, ... each, in pixels.

    A hole is part of the polygon around it, which goes there and back along one line: COCO knows no holes. Lines run
    half-way between the centres of pixels, so that no rasteriser can doubt.
    """
    contours = _contourpy()
    padded = np.pad(component.astype(np.float32), 1)
    generator = contours.contour_generator(z=padded, fill_type=contours.FillType.OuterOffset)
    corner = np.array([left - 0.5, top - 0.5])  # a pixel's centre lies at 0.5, the padding is 1
    polygons = []
    for points, offsets in zip(*generator.filled(0.5, 2.0), strict=True):
        outer, *holes = (_without_straight(points[start:end]) for start, end in pairwise(offsets))
        polygons.append((_with_holes(outer, holes) + corner).ravel().tolist())
    return polygons


def _with_holes(outer: np.ndarray, holes: list[np.ndarray]) -> np.ndarray:
    """One path of closed rings [N, 2]: the outer one, with a detour to each hole from the point that is nearest."""
    detours = []
    for hole in holes:
        distances, nearest = map(np.asarray, KDTree(outer).query(hole))
        start = int(distances.argmin())
        detours.append((int(nearest[start]), np.concatenate([hole[start:-1], hole[: start + 1]])))
    path, done = [], 0
    for point, detour in sorted(detours, key=itemgetter(0)):
        path += [outer[done : point + 1], detour, outer[point : point + 1]]
        done = point + 1
    return np.concatenate([*path, outer[done:]])


def _without_straight(ring: np.ndarray) -> np.ndarray:
    """A closed ring [N, 2] (its first point again at its end) without the points at which it goes straight on."""
    steps = np.diff(ring, axis=0)
    before, after = steps[:-1], steps[1:]
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    return ring[np.concatenate([[True], turns, [True]])]


def _pycocotools() -> Any:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise ConfigError("COCO is written by pycocotools: pip install 'densemask[export]'") from error
    return mask


def _contourpy() -> Any:
    try:
        import contourpy
    except ImportError as error:
        raise ConfigError("polygons are traced by contourpy: pip install 'densemask[export]'") from error
    return contourpy
