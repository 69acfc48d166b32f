"""The labelled photographs of a training: read once, checked, counted, and kept decoded where memory allows."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import psutil

from pipeline import images, metrics
from pipeline.config import Source
from pipeline.errors import ImageError, SourceError, TruthError
from pipeline.sources import ImageRef, list_images, refs
from pipeline.sources.reading import read_part

READERS = 4
MAX_SIDE = 1024
MAX_PIXELS = 100_000_000
MEMORY_SHARE = 4  # decoded photographs may take a quarter of the free memory


class Example(NamedTuple):
    """A photograph uint8 [H, W, 3] and its truth uint8 [H, W]."""

    rgb: np.ndarray
    truth: np.ndarray


class Examples:
    """The examples of a dataset, by index. ``pixels`` counts each one's truth by class: int64 [N, C]."""

    def __init__(self, found: Sequence[ImageRef], pixels: np.ndarray, kept: dict[int, Example]) -> None:
        self.refs, self.pixels, self._kept = found, pixels, kept

    def __len__(self) -> int:
        return len(self.refs)

    def __getitem__(self, index: int) -> Example:
        return self._kept.get(index) or read(self.refs[index])

    def take(self, indices: np.ndarray) -> "Examples":
        """Some of the examples."""
        kept = {place: self._kept[index] for place, index in enumerate(indices.tolist()) if index in self._kept}
        return Examples([self.refs[index] for index in indices.tolist()], self.pixels[indices], kept)


def read(ref: ImageRef) -> Example:
    """The example behind a reference, its longest side at most MAX_SIDE. Raises ImageError or TruthError."""
    photograph = images.decode(read_part(ref.uri, ref.part), MAX_PIXELS, MAX_SIDE)
    assert ref.truth_uri is not None
    truth = images.decode_mask(read_part(ref.truth_uri, ref.truth_part or ""), (photograph.height, photograph.width))
    return Example(photograph.rgb, images.enlarge_labels(truth, photograph.rgb.shape[:2]))


def load(source: Source, classes: int, void: int, max_failure_rate: float) -> Examples:
    """The source's examples, each read and checked once.

    Raises SourceError where there are no masks, where too many files cannot be read, and TruthError for a class id
    that is not among the classes.
    """
    labelled = [ref for ref in refs(list_images(source)) if ref.truth_uri is not None]
    if not labelled:
        raise SourceError(
            f"no image in {source.location} has a mask; name their folder with --truth, or use a VOC layout"
        )
    budget = psutil.virtual_memory().available // MEMORY_SHARE
    found: list[ImageRef] = []
    pixels: list[np.ndarray] = []
    kept: dict[int, Example] = {}
    failures: list[str] = []
    with ThreadPoolExecutor(READERS) as pool:
        for ref, example in zip(labelled, pool.map(_read_or_error, labelled), strict=True):
            if isinstance(example, Exception):
                failures.append(f"{ref.uri}: {example}")
                continue
            try:
                metrics.check_truth(example.truth, example.truth.shape, classes, void)
            except TruthError as error:
                raise TruthError(f"{ref.truth_uri}: {error}") from error
            counted = np.bincount(example.truth[example.truth != void], minlength=classes)
            budget -= example.rgb.nbytes + example.truth.nbytes
            if budget > 0:
                kept[len(found)] = example
            found.append(ref)
            pixels.append(counted)
    if len(failures) > max_failure_rate * len(labelled):
        raise SourceError(f"{len(failures)} of {len(labelled)} images cannot be trained on; the first: {failures[0]}")
    return Examples(found, np.array(pixels), kept)


def _read_or_error(ref: ImageRef) -> Example | ImageError | TruthError:
    try:
        return read(ref)
    except (ImageError, TruthError) as error:
        return error


def split(examples: Examples, share: float, seed: int) -> tuple[Examples, Examples]:
    """(to train on, held out): the same split for the same seed."""
    order = np.random.default_rng(seed).permutation(len(examples))
    held_out = max(1, round(share * len(examples)))
    return examples.take(np.sort(order[held_out:])), examples.take(np.sort(order[:held_out]))


def median_frequency(pixels: np.ndarray) -> np.ndarray:
    """Class weights float32 [C] (Eigen and Fergus 2015): the median of the classes' frequencies over each one's own.

    A class's frequency is its pixels over all pixels of the images that hold it; a class without pixels weighs 1.
    """
    present = pixels.sum(0) > 0
    of_images = np.where(pixels > 0, pixels.sum(1, keepdims=True), 0).sum(0)
    frequency = np.divide(pixels.sum(0), of_images, out=np.ones(pixels.shape[1]), where=present)
    median = np.median(frequency[present]) if present.any() else 1.0
    return np.where(present, median / frequency, 1.0).astype(np.float32)


def repeat_factors(pixels: np.ndarray, threshold: float) -> np.ndarray:
    """How often each example is drawn, float64 [N] (repeat factor sampling, Gupta et al. 2019, LVIS).

    A class that is in a share f of the images has the factor max(1, sqrt(threshold / f)); an example has the largest
    one of its classes.
    """
    holds = pixels > 0
    share = np.maximum(holds.mean(0), 1e-12)
    factors = np.maximum(1.0, np.sqrt(threshold / share))
    return np.where(holds, factors, 1.0).max(1)
