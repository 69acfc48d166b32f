"""Class names and colours."""

from functools import cache
from typing import NamedTuple

import numpy as np

from pipeline import storage
from pipeline.errors import ConfigError

VOC_21 = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
CAMVID_11 = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
CLASS_SETS = {"VOC-21": VOC_21, "CamVid-11": CAMVID_11}
Palette = tuple[tuple[int, int, int], ...]
PALETTES: dict[str, Palette] = {  # of the sets whose colours are not VOC's
    "CamVid-11": (
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0), (192, 128, 128),
        (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
}  # fmt: skip


def class_names(count: int, named: str | None = None) -> tuple[str, ...]:
    """The names of ``count`` classes: those of the set ``named`` where it fits, else numbers."""
    names = CLASS_SETS.get(named or "")
    if names is None or len(names) != count:
        return tuple(f"class {index}" for index in range(count))
    return names


def class_palette(count: int, named: str | None) -> Palette | None:
    """The colours of the set ``named`` where it has its own and fits the ``count`` of classes."""
    colours = PALETTES.get(named or "")
    return colours if colours is not None and len(colours) == count else None


class ClassSet(NamedTuple):
    """Classes as a user names them: what they are called and, where told, what colours they have."""

    names: tuple[str, ...]
    palette: Palette | None


def read_classes(chosen: str) -> ClassSet:
    """The class set of that name, or of a text file with a class a line: ``name`` or ``name,R,G,B``.

    Raises ConfigError for a line that is neither, StorageError for a file that cannot be read.
    """
    if chosen in CLASS_SETS:
        return ClassSet(CLASS_SETS[chosen], PALETTES.get(chosen))
    lines = [line.strip() for line in storage.read(chosen).decode(errors="replace").splitlines() if line.strip()]
    rows = [[cell.strip() for cell in line.split(",")] for line in lines]
    if all(len(row) == 1 for row in rows):
        return ClassSet(tuple(lines), None)
    for number, row in enumerate(rows, start=1):
        if len(row) != 4 or not all(cell.isdecimal() and int(cell) < 256 for cell in row[1:]):
            raise ConfigError(
                f"class {number} of {chosen} is {lines[number - 1]!r}; each line is a name, or each is name,R,G,B"
            )
    return ClassSet(tuple(row[0] for row in rows), tuple((int(row[1]), int(row[2]), int(row[3])) for row in rows))


@cache
def palette(own: Palette | None = None) -> np.ndarray:
    """The 256 colours of masks: uint8 [256, 3]. Those of the PASCAL VOC development kit, behind the classes' own."""
    index = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((index >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    if own is not None:
        colours[: len(own)] = own
    colours.setflags(write=False)
    return colours
