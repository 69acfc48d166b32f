"""The front-end actor: holds the network and scores batches of images."""

import threading
from typing import Any, NamedTuple

import ray

from pipeline import kept
from pipeline.config import Recipe
from pipeline.frontends import FrontEnd
from pipeline.label import Failed, Scored, score_images
from pipeline.sources import ImageRef
from pipeline.stopwatch import Stopwatch
from pipeline.weights import open_front_end
from workers.metrics import Counters, Labels


class ScoredFacts(NamedTuple):
    """The small part of a scored image, which the dispatcher reads."""

    nbytes: int


class FrontEndWorker:
    """Scores images. Two batches may be under way at once: one is read while the other is in the network.

    With a source of kept scores it reads those, and opens the network at the first image that has none.
    """

    def __init__(self, recipe: Recipe, weights: bytes, labels: Labels, scores: kept.Source | None = None) -> None:
        self._recipe, self._weights, self._scores = recipe, weights, scores
        self._counters = Counters(labels)
        self._opening = threading.Lock()
        self._opened: FrontEnd | None = None
        if scores is None:
            self._front_end()

    def ready(self) -> str:
        """The node it runs on, once it can work."""
        return ray.get_runtime_context().get_node_id()

    def score(self, refs: list[ImageRef]) -> tuple[Any, ...]:
        """What became of each image, then the Scored of each (None where it failed), as separate objects."""
        watch = Stopwatch()
        if self._scores is None:
            scored = score_images(refs, self._front_end(), self._recipe, watch)
        else:
            scored = kept.score_images(refs, self._front_end, self._recipe, self._scores, watch)
        self._counters.add_scored(watch, [item for item in scored if isinstance(item, Scored)])
        facts = [item if isinstance(item, Failed) else ScoredFacts(item.nbytes) for item in scored]
        return (facts, *(item if isinstance(item, Scored) else None for item in scored))

    def _front_end(self) -> FrontEnd:
        import torch

        with self._opening:
            if self._opened is None:
                torch.set_num_threads(1)
                device = "cuda" if ray.get_gpu_ids() and torch.cuda.is_available() else "cpu"
                how = self._recipe.front_end
                self._opened = open_front_end(how.name, self._weights, device, how)
            return self._opened
