"""Class names and colours."""

from functools import cache

import numpy as np

VOC_21 = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
CAMVID_11 = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
CLASS_SETS = {"VOC-21": VOC_21, "CamVid-11": CAMVID_11}


def class_names(count: int, named: str | None = None) -> tuple[str, ...]:
    """The names of ``count`` classes: those of the set ``named`` where it fits, else numbers."""
    names = CLASS_SETS.get(named or "")
    if names is None or len(names) != count:
        return tuple(f"class {index}" for index in range(count))
    return names


@cache
def palette() -> np.ndarray:
    """The 256 colours of the PASCAL VOC development kit: uint8 [256, 3]."""
    index = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((index >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    colours.setflags(write=False)
    return colours
