"""Photographs and their masks for torch: by index (`MaskDataset`), or shard by shard (`MaskStream`).

An item is a dict: the tensors ``image`` uint8 [3, H, W] and ``mask`` uint8 [H, W], ``image_id``, ``confidence``. Both
pictures have the photograph's full size and are right way up. ``transform`` takes them as arrays, uint8 [H, W, 3] and
uint8 [H, W], and returns what goes into the item in their place; arrays become tensors.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from pipeline import images, masks, photographs, storage
from pipeline.archive import by_shard
from pipeline.errors import ImageError
from pipeline.selection import reference, select

T = TypeVar("T")
Item = dict[str, Any]
Transform = Callable[[np.ndarray, np.ndarray], tuple[Any, Any]]
GROUPS = 16  # row groups of masks that stay in memory
logger = logging.getLogger(__name__)


class _Labelled:
    """The images of an output, and how an item is made of one. Holds no open file: a copy may go to any process."""

    def __init__(
        self, output: str, recipe: str | None, run: str | None, where: str | None, transform: Transform | None
    ) -> None:
        selection = select(storage.absolute(output), recipe, run, where)
        self.classes, self.palette = selection.recipe.classes, selection.recipe.palette
        self._output, self._recipe, self._images = selection.output, selection.recipe.fingerprint, selection.images
        self._transform = transform

    def __len__(self) -> int:
        return len(self._images)

    def _item(self, image: dict[str, Any], png: bytes) -> Item:
        """Raises ImageError, which names the image, where its photograph is gone or was changed."""
        try:
            rgb = photographs.pixels(photographs.read(reference(image)), (image["height"], image["width"]))
        except ImageError as error:
            raise ImageError(f"{image['image_id']}: {error}") from error
        found: tuple[Any, Any] = np.array(rgb), images.decode_mask(png)
        if self._transform is not None:
            found = self._transform(*found)
        photograph, mask = map(_tensor, found)
        return {"image": photograph, "mask": mask, "image_id": image["image_id"], "confidence": image["confidence"]}


class MaskDataset(_Labelled, Dataset[Item]):
    """A map-style dataset: the images of an output for which a condition holds, in the order of runs and shards.

    ``output`` is a folder or an fsspec URL; the current recipe and each image's newest row count, where no ``recipe``
    or ``run`` is named. A mask is read together with up to 63 neighbours, which stay in memory for a while. Raises
    ConfigError as `pipeline.selection.select` does, and on access ImageError where a photograph is gone or was changed.
    """

    def __init__(
        self,
        output: str,
        *,
        recipe: str | None = None,
        run: str | None = None,
        where: str | None = None,
        transform: Transform | None = None,
    ) -> None:
        super().__init__(output, recipe, run, where, transform)
        self._groups: dict[tuple[str, int, int], list[bytes | None]] = {}  # by run, shard and first row

    def __getitem__(self, index: int) -> Item:
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} images; {index} is none of them")
        (image,) = self._images.slice(index % len(self), 1).to_pylist()
        return self._item(image, self._png(image["run"], image["shard"], image["row"]))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_groups": {}}

    def _png(self, run: str, shard: int, row: int) -> bytes:
        """The mask of a row, of a row group that was read before or is read now."""
        for key in list(self._groups):
            if key[:2] == (run, shard) and 0 <= row - key[2] < len(self._groups[key]):
                break
        else:
            first, pngs = masks.read_neighbours(self._output, self._recipe, run, shard, row)
            key = (run, shard, first)
            self._groups[key] = pngs
        self._groups[key] = self._groups.pop(key)  # the last one is the one that was used last
        if len(self._groups) > GROUPS:
            del self._groups[next(iter(self._groups))]
        png = self._groups[key][row - key[2]]
        assert png is not None, "a labelled row has a mask"
        return png


class MaskStream(_Labelled, IterableDataset[Item]):
    """An iterable dataset of the same images: every shard is read once, by one of the DataLoader's workers.

    With a ``seed`` shards come in random order and images through a buffer of ``buffer`` of them, another order for
    each epoch (`set_epoch`); without one in the order of runs and shards. A photograph that is gone or was changed is
    left out, with a warning in the log.
    """

    def __init__(
        self,
        output: str,
        *,
        recipe: str | None = None,
        run: str | None = None,
        where: str | None = None,
        transform: Transform | None = None,
        seed: int | None = None,
        buffer: int = 1000,
    ) -> None:
        super().__init__(output, recipe, run, where, transform)
        self._seed, self._buffer = seed, buffer
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # workers that persist see it change

    def set_epoch(self, epoch: int) -> None:
        """Another order from the next iteration on."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[Item]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info is not None else (0, 1)
        shards = list(by_shard(self._images))
        if self._seed is not None:
            shards = [shards[index] for index in self._random(0).permutation(len(shards))]
        rows = (row for shard in shards[worker::workers] for row in self._rows(*shard))
        for image, png in rows if self._seed is None else shuffled(rows, self._random(1 + worker), self._buffer):
            try:
                yield self._item(image, png)
            except ImageError as error:
                logger.warning("left out %s", error)

    def _random(self, *what: int) -> np.random.Generator:
        assert self._seed is not None
        return np.random.default_rng((self._seed, int(self._epoch), *what))

    def _rows(self, run: str, shard: int, members: pa.Table) -> Iterator[tuple[dict[str, Any], bytes]]:
        """The images of one shard with their masks, which are read at once."""
        rows = members.to_pylist()
        pngs = masks.read_masks(self._output, self._recipe, run, shard, [row["row"] for row in rows])
        yield from zip(rows, pngs, strict=True)


def shuffled(things: Iterator[T], random: np.random.Generator, size: int) -> Iterator[T]:
    """The things in random order, as far as a buffer of that size lets them change places."""
    held: list[T] = []
    for thing in things:
        held.append(thing)
        if len(held) > size:
            place = int(random.integers(len(held)))
            held[place], held[-1] = held[-1], held[place]
            yield held.pop()
    for place in random.permutation(len(held)):
        yield held[place]


def _tensor(value: Any) -> Any:
    """An array as a tensor, colours first; anything else as it is."""
    if not isinstance(value, np.ndarray):
        return value
    return torch.from_numpy(np.ascontiguousarray(value.transpose(2, 0, 1) if value.ndim == 3 else value))
