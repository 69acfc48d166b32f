"""The front-end actor: holds the network and scores batches of images."""

from typing import Any, NamedTuple

import ray

from pipeline.config import Recipe
from pipeline.label import Failed, Scored, score_images
from pipeline.sources import ImageRef
from pipeline.stopwatch import Stopwatch
from pipeline.weights import open_front_end
from workers.metrics import Counters, Labels


class ScoredFacts(NamedTuple):
    """The small part of a scored image, which the dispatcher reads."""

    nbytes: int


class FrontEndWorker:
    """Scores images. Two batches may be under way at once: one is read while the other is in the network."""

    def __init__(self, recipe: Recipe, weights: bytes, labels: Labels) -> None:
        import torch

        torch.set_num_threads(1)
        device = "cuda" if ray.get_gpu_ids() and torch.cuda.is_available() else "cpu"
        self._recipe, self._counters = recipe, Counters(labels)
        self._front_end = open_front_end(recipe.front_end.name, weights, device, recipe.front_end)

    def ready(self) -> str:
        """The node it runs on, once it can work."""
        return ray.get_runtime_context().get_node_id()

    def score(self, refs: list[ImageRef]) -> tuple[Any, ...]:
        """What became of each image, then the Scored of each (None where it failed), as separate objects."""
        watch = Stopwatch()
        scored = score_images(refs, self._front_end, self._recipe, watch)
        self._counters.add_scored(watch, [item for item in scored if isinstance(item, Scored)])
        facts = [item if isinstance(item, Failed) else ScoredFacts(item.nbytes) for item in scored]
        return (facts, *(item if isinstance(item, Scored) else None for item in scored))
