"""The PASCAL VOC layout: JPEGImages/, SegmentationClass/, ImageSets/Segmentation/train.txt.

Masks are the PNGs of the shards, byte for byte. ``labelmap.txt`` is what CVAT and Datumaro read, ``classes.txt`` what
``densemask train --classes`` reads.
"""

from pipeline.export import Described, Documents, Export, Labelled

PHOTOGRAPH = "JPEGImages/{name}.jpg"
MASK = "SegmentationClass/{name}.png"
POLYGONS = False


def describe(image: Labelled, export: Export) -> bytes:
    """The image's line in the list."""
    return f"{image.name}\n".encode()


def documents(export: Export, described: Described) -> Documents:
    """The list of images and the classes."""
    yield "ImageSets/Segmentation/train.txt", described
    colours = [",".join(map(str, each.colour)) for each in export.classes]
    named = [each.name.replace(",", ";").replace(":", ";") for each in export.classes]  # both files set fields apart
    lines = [f"{name}:{colour}::\n" for name, colour in zip(named, colours, strict=True)]
    yield "labelmap.txt", [b"# label:color_rgb:parts:actions\n", *(line.encode() for line in lines)]
    yield "classes.txt", [f"{name},{colour}\n".encode() for name, colour in zip(named, colours, strict=True)]
