"""Batches of augmented crops, made in threads while the network computes. What a step sees depends on (seed, step)."""

import os
import threading
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from pipeline.errors import ConfigError
from pipeline.preprocessing import Preprocessing
from pipeline.training.config import Augmentation, TrainJob
from pipeline.training.data import Example, Examples, repeat_factors

AHEAD = 4  # batches that are ready or being made
RARE_SHARE = 1.0  # a class in fewer images than this is drawn more often
PASTE_SHARE = 0.05  # a class in fewer images than this is pasted


class Batch(NamedTuple):
    """Photographs uint8 [N, S, S, 3] and their truth uint8 [N, S, S]."""

    rgb: np.ndarray
    truth: np.ndarray


class Batches:
    """The training batches of (seed, step), with this process's share of each."""

    def __init__(
        self,
        job: TrainJob,
        examples: Examples,
        preprocessing: Preprocessing,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._examples, self._seed, self._void, self._augmentation = examples, job.seed, job.void, job.augmentation
        self._batch, self._mine = job.batch, range(rank, job.batch, world)
        self._transform = _Transforms(job.size, job.void, preprocessing, job.augmentation)
        self.steps_per_epoch = max(1, len(examples) // job.batch)
        share = (examples.pixels > 0).mean(0)
        self._rare = (share > 0) & (share < PASTE_SHARE)
        factors = repeat_factors(examples.pixels, RARE_SHARE)
        self._weights = factors if job.sample_rare else np.ones(len(examples))
        pasted = np.where((examples.pixels > 0) & self._rare, 1 / np.maximum(share, 1e-12), 0).max(1, initial=0.0)
        self._paste_weights = np.sqrt(pasted)

    def stream(self, start: int, stop: int, threads: int) -> Generator[Batch]:
        """The batches of steps [start, stop)."""
        waiting: deque[list[Future[Example]]] = deque()
        with ThreadPoolExecutor(threads, "augment") as pool:
            try:
                for step in range(start, stop):
                    waiting.append([pool.submit(self._example, *place) for place in self._places(step)])
                    if len(waiting) > AHEAD:
                        yield _stacked([future.result() for future in waiting.popleft()])
                while waiting:
                    yield _stacked([future.result() for future in waiting.popleft()])
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _places(self, step: int) -> list[tuple[int, int]]:
        """(seed, example) of this process's share of a step."""
        epoch, within = divmod(step, self.steps_per_epoch)
        order = self._order(epoch)
        start = within * self._batch
        return [((epoch << 32) + start + place, int(order[(start + place) % len(order)])) for place in self._mine]

    def _order(self, epoch: int) -> np.ndarray:
        """The examples of an epoch: drawn evenly along the sum of their weights, then shuffled."""
        random = np.random.default_rng([self._seed, epoch])
        count = len(self._weights)
        edges = np.cumsum(self._weights) / self._weights.sum()
        drawn = np.searchsorted(edges, (np.arange(count) + random.random()) / count)
        return random.permutation(np.minimum(drawn, count - 1))

    def _example(self, place: int, index: int) -> Example:
        random = np.random.default_rng([self._seed, place])
        example = self._transform(self._examples[index], random)
        if self._paste_weights.any() and random.random() < self._augmentation.paste:
            example = self._pasted(example, self._drawn(self._paste_weights, random))
        if self._augmentation.mix and random.random() < self._augmentation.mix:
            example = mixed(example, self._drawn(self._weights, random), random)
        return example

    def _drawn(self, weights: np.ndarray, random: np.random.Generator) -> Example:
        """Another example, augmented, drawn by the weights."""
        return self._transform(self._examples[int(random.choice(len(weights), p=weights / weights.sum()))], random)

    def _pasted(self, example: Example, other: Example) -> Example:
        """The other's objects of rare classes laid over the example (Ghiasi et al. 2021)."""
        is_rare = np.zeros(256, bool)
        is_rare[: len(self._rare)] = self._rare
        is_rare[self._void] = False
        on_top = is_rare[other.truth]
        rgb = np.where(on_top[..., None], other.rgb, example.rgb)
        return Example(rgb, np.where(on_top, other.truth, example.truth))


def mixed(example: Example, other: Example, random: np.random.Generator) -> Example:
    """A rectangle of the other, half the area, laid over the example (CutMix, Yun et al. 2019; French et al. 2020)."""
    height, width = example.truth.shape
    tall = round(random.uniform(height / 2, height))
    wide = round(height * width / 2 / tall)
    top, left = int(random.integers(height - tall + 1)), int(random.integers(width - wide + 1))
    place = np.s_[top : top + tall, left : left + wide]
    rgb, truth = example.rgb.copy(), example.truth.copy()
    rgb[place], truth[place] = other.rgb[place], other.truth[place]
    return Example(rgb, truth)


def _stacked(examples: list[Example]) -> Batch:
    return Batch(np.stack([example.rgb for example in examples]), np.stack([example.truth for example in examples]))


class _Transforms:
    """Scale, crop, flip and jitter by albumentations; one composition a thread, for each holds its random state."""

    def __init__(self, size: int, void: int, preprocessing: Preprocessing, augmentation: Augmentation) -> None:
        self._options = size, void, preprocessing, augmentation
        self._local = threading.local()
        self._composed()

    def __call__(self, example: Example, random: np.random.Generator) -> Example:
        if not hasattr(self._local, "compose"):
            self._local.compose = self._composed()
        self._local.compose.set_random_seed(int(random.integers(2**31)))
        made = self._local.compose(image=example.rgb, mask=example.truth)
        return Example(made["image"], made["mask"])

    def _composed(self) -> Any:
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for a newer version
        try:
            import albumentations as A
            import cv2
        except ImportError as error:
            raise ConfigError(f"training needs {error.name}: pip install 'densemask[train]'") from error
        cv2.setNumThreads(1)
        size, void, preprocessing, augmentation = self._options
        near = {"interpolation": cv2.INTER_LINEAR, "mask_interpolation": cv2.INTER_NEAREST, "p": 1}
        resized = []
        if preprocessing.size is not None:
            resized = [A.Resize(*preprocessing.size, **near)]
        elif preprocessing.longest is not None:
            resized = [A.LongestMaxSize(preprocessing.longest, **near)]
        elif preprocessing.shorter is not None:
            resized = [A.SmallestMaxSize(preprocessing.shorter, **near)]
        mean = preprocessing.mean[:: -1 if preprocessing.channels == "bgr" else 1]
        low, high = augmentation.scale
        strength = augmentation.colour
        return A.Compose(
            [
                *resized,
                A.RandomScale((low - 1, high - 1), **near),
                A.PadIfNeeded(
                    size, size, position="random", border_mode=cv2.BORDER_CONSTANT, fill=mean, fill_mask=void
                ),
                A.RandomCrop(size, size),
                A.HorizontalFlip(p=0.5 if augmentation.flip else 0),
                A.ColorJitter(strength, strength, strength, strength / 10, p=0.8 if strength else 0),
            ]
        )
