"""The whole path of an image on one page: bytes -> photograph -> scores -> field -> row.

``label_shard`` runs it in one process; the Ray actors call the same two functions, and a test holds both equal.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from pipeline import backends, images, masks, metrics
from pipeline.classes import Palette
from pipeline.config import Evaluation, Recipe
from pipeline.errors import ImageError, TruthError
from pipeline.frontends import FrontEnd
from pipeline.masks import Row
from pipeline.scores import ScoreMap, posterior
from pipeline.sources import ImageRef
from pipeline.sources.reading import read_part
from pipeline.stopwatch import Stopwatch

READERS = 4


class Scored(NamedTuple):
    """What crosses from front end to back end: the encoded photograph, its score map, and the classes' own colours."""

    data: bytes
    scores: ScoreMap
    front_end_ms: float
    palette: Palette | None = None
    front_end_cpu_ms: float = 0.0

    @property
    def nbytes(self) -> int:
        """Bytes on the wire, near enough."""
        return len(self.data) + self.scores.logits.nbytes


class Failed(NamedTuple):
    """An image that cannot be labelled, and why; ``kind`` is the reason in a word."""

    status: str
    reason: str
    kind: str = "broken"


def score_images(
    refs: Sequence[ImageRef], front_end: FrontEnd, recipe: Recipe, watch: Stopwatch | None = None
) -> list[Scored | Failed]:
    """Reads, decodes and scores images. One that cannot be read becomes Failed; a store that does not answer raises.

    ``watch`` learns how long it took to "read" and decode them all, and how long they were in the "network".
    """

    def load(ref: ImageRef) -> tuple[tuple[bytes, np.ndarray] | Failed, float]:
        started = time.thread_time()
        return _loaded(ref, recipe), time.thread_time() - started

    watch = watch or Stopwatch()
    with ThreadPoolExecutor(READERS) as pool:
        loaded, seconds = zip(*pool.map(load, refs), strict=True)
    watch.elsewhere_s += sum(seconds)
    watch.lap("read")
    scores = iter(front_end.score([item[1] for item in loaded if not isinstance(item, Failed)]))
    watch.lap("network")
    ms, cpu_ms, own = watch.ms / len(refs), watch.cpu_ms / len(refs), front_end.palette
    return [item if isinstance(item, Failed) else Scored(item[0], next(scores), ms, own, cpu_ms) for item in loaded]


def _loaded(ref: ImageRef, recipe: Recipe) -> tuple[bytes, np.ndarray] | Failed:
    """The image's bytes, and its pixels as the network takes them."""
    try:
        data = read_part(ref.uri, ref.part)
        return data, images.decode(data, recipe.max_pixels, recipe.max_side).rgb
    except ImageError as error:
        return Failed(error.status, str(error), error.kind)


def refine_image(
    ref: ImageRef,
    scored: Scored,
    shard: int,
    recipe: Recipe,
    evaluation: Evaluation,
    watch: Stopwatch | None = None,
) -> Row:
    """The image's row: its mask after the field, and what can be measured of it. Any truth is read here.

    ``watch`` learns how long it took to "decode" it, in the "field", to "encode" the mask, and to hold it against the
    "truth".
    """
    watch = watch or Stopwatch()
    photograph = images.decode(scored.data, recipe.max_pixels, recipe.max_side)
    size = photograph.height, photograph.width
    watch.lap("decode")
    before = posterior(scored.scores)
    planes, classes = scored.scores.labels, scored.scores.classes
    front = planes[before.probabilities.argmax(0)]
    back_end = backends.load(recipe.back_end.name)
    parameters = back_end.Parameters.model_validate(recipe.back_end.parameters)
    refined = planes[back_end.refine(photograph.rgb, before.probabilities, parameters).labels()]
    watch.lap("field")
    labels = images.enlarge_labels(refined, size)
    mask = images.encode_mask(labels, scored.palette)
    present, pixels = np.unique(labels, return_counts=True)
    row = masks.failed_row(ref.image_id, ref.uri, ref.etag, shard, "ok", "") | {
        "error": None,
        "height": size[0],
        "width": size[1],
        "mask": {"bytes": mask, "path": masks.mask_path(ref.image_id)},
        "labels": present.astype(np.int16),
        "areas": (pixels / labels.size).astype(np.float32),
        "confidence": before.confidence,
        "entropy": before.entropy,
        "changed": float((front != refined).mean()),
        "front_end_ms": scored.front_end_ms,
        "front_end_cpu_ms": scored.front_end_cpu_ms,
        "front_end_gpu_ms": scored.scores.gpu_ms,
        "bytes_read": len(scored.data),
        "bytes_scores": scored.scores.logits.nbytes,
        "bytes_written": len(mask),
    }
    watch.lap("encode")
    if ref.truth_uri is not None:
        row |= _against_truth(ref, labels, images.enlarge_labels(front, size), classes, evaluation)
        watch.lap("truth")
    return row | {"back_end_ms": watch.ms, "back_end_cpu_ms": watch.cpu_ms}


def label_shard(
    refs: Sequence[ImageRef], shard: int, front_end: FrontEnd, recipe: Recipe, evaluation: Evaluation
) -> list[Row]:
    """The rows of one shard, made in this process."""
    rows = []
    for ref, scored in zip(refs, score_images(refs, front_end, recipe), strict=True):
        if isinstance(scored, Failed):
            rows.append(masks.failed_row(ref.image_id, ref.uri, ref.etag, shard, scored.status, scored.reason))
        else:
            rows.append(refine_image(ref, scored, shard, recipe, evaluation))
    return rows


def _against_truth(ref: ImageRef, labels: np.ndarray, front: np.ndarray, classes: int, evaluation: Evaluation) -> Row:
    """The counts against the truth mask; or the reason why there are none."""
    assert ref.truth_uri is not None
    try:
        truth = images.decode_mask(read_part(ref.truth_uri, ref.truth_part or ""), labels.shape)
        metrics.check_truth(truth, labels.shape, classes, evaluation.void)
    except TruthError as error:
        return {"error": str(error)}
    except ImageError as error:
        return {"error": f"truth: {error}"}
    counted = truth != evaluation.void
    band = metrics.boundary_band(truth, evaluation.boundary_width) & counted
    counts = {
        "refined": metrics.count(truth, labels, classes, counted),
        "front": metrics.count(truth, front, classes, counted),
        "boundary": metrics.count(truth, labels, classes, band),
    }
    return {name: masks.counts_cell(value) for name, value in counts.items()}
