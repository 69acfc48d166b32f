"""Labels for training and for human review, in the formats of others. One file a format; its module name is its name.

A format's module has
    PHOTOGRAPH                      where an image's photograph lies in the export: a template of path()
    MASK                            where its mask lies, in the same way; None where masks are in the documents alone
    POLYGONS                        whether it can hold outlines in place of pixels
    describe(image, export)         the image's part of the documents: bytes. Raises ImageError where it can have none
    documents(export, described)    (path, chunks of bytes) of the files that are about all images

Paths are relative to the export's folder. ``described`` holds the images' parts, the least certain image first, and
may be iterated over several times; images that had to be left out are not in it.
"""

import pkgutil
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from pipeline import images
from pipeline.classes import Palette, palette
from pipeline.frontends import load_plugin


class Class(NamedTuple):
    """A class that masks are exported of: its label in masks, its name and its colour."""

    label: int
    name: str
    colour: tuple[int, int, int]

    @property
    def hex_colour(self) -> str:
        """The colour as in CSS."""
        return "#{:02x}{:02x}{:02x}".format(*self.colour)


class Export(NamedTuple):
    """What is exported and how."""

    folder: str  # where it goes: a local folder, absolute, or an fsspec URL
    recipe: str
    classes: tuple[Class, ...]
    photographs: bool = True  # False: they stay where they are
    polygons: bool = False

    @property
    def things(self) -> tuple[Class, ...]:
        """The classes but for the background, which is what no other class claims."""
        return tuple(each for each in self.classes if (each.label, each.name) != (0, "background"))


class Labelled(NamedTuple):
    """An image to export, with its mask."""

    rank: int  # 1 is the least certain
    name: str  # a relative path without suffix that no other image of the export has
    image_id: str
    uri: str  # with nothing secret in it
    whole: bool  # the photograph is all of the object at ``uri``, and no part of it
    run: str
    height: int
    width: int
    confidence: float
    entropy: float
    png: bytes

    def path(self, template: str) -> str:
        """A path of the image in the export."""
        return path(template, self.rank, self.name)

    def labels(self) -> np.ndarray:
        """The mask: uint8 [H, W]."""
        return images.decode_mask(self.png)

    def masks(self, export: Export) -> Iterator[tuple[Class, np.ndarray]]:
        """The things in the mask, each with its pixels: bool [H, W]."""
        labels = self.labels()
        present = np.bincount(labels.ravel(), minlength=256) > 0
        for each in export.things:
            if present[each.label]:
                yield each, labels == each.label


class Described(Protocol):
    """The images' parts of the documents."""

    def __iter__(self) -> Iterator[bytes]:
        """In the order of rank."""

    def __len__(self) -> int:
        """How many images there are."""


Documents = Iterator[tuple[str, Iterable[bytes]]]


def path(template: str, rank: int, name: str) -> str:
    """A path in the export, of a template that may hold {rank}, {name} and {flat}, the name without folders."""
    return template.format(rank=rank, name=name, flat=name.replace("/", "_"))


def classes(names: tuple[str, ...], own: Palette | None) -> tuple[Class, ...]:
    """A recipe's classes with the colours that they have in masks."""
    colours = palette(own).tolist()
    return tuple(Class(label, name, tuple(colours[label])) for label, name in enumerate(names))


def names() -> list[str]:
    """The formats that there are."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__) if not module.ispkg)


def load(name: str) -> Any:
    """The format's module. Raises ConfigError with the list for an unknown name."""
    return load_plugin(__name__, names(), name, "format")
