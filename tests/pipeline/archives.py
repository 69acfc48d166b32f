"""Outputs as labellings leave them, of masks that a test makes up."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline import images, masks, plan, recipes, storage
from pipeline.classes import Palette
from pipeline.config import Recipe
from pipeline.sources import REF_SCHEMA
from pipeline.weights import Weights

CLASSES = ("background", "red thing", "green & <blue> thing")


class Shot(NamedTuple):
    """An image of a run: its mask uint8 [H, W] (None: it failed) and how sure the network was."""

    image_id: str
    uri: str
    labels: np.ndarray | None
    confidence: float = 0.5
    part: str = ""


class Archive(NamedTuple):
    """An output, the recipe and the run that were written last."""

    output: str
    recipe: str
    run: str


def write_run(
    output: str,
    shots: Sequence[Shot],
    shard_size: int = 2,
    classes: tuple[str, ...] = CLASSES,
    palette: Palette | None = None,
    back_end: str = "argmax",
) -> Archive:
    """Plans and commits a run of the images as a labelling does."""
    recipe = Recipe.model_validate({"back_end": back_end})
    document = recipes.document(recipe, Weights(b"", "0" * 64, "stub", classes, palette))
    recipes.write_document(output, document)
    recipes.set_current_if_absent(output, document.fingerprint)
    facts = [storage.stat(shot.uri) for shot in shots]
    refs = [
        dict.fromkeys(REF_SCHEMA.names)
        | {"image_id": shot.image_id, "uri": shot.uri, "part": shot.part, "etag": fact.etag, "bytes": fact.size}
        for shot, fact in zip(shots, facts, strict=True)
    ]
    listing = pa.Table.from_pylist(refs, REF_SCHEMA)
    run = plan.add_run(output, document.fingerprint, listing, shard_size, date(2026, 3, 1))
    assert run is not None
    found = {(shot.uri, shot.part): shot for shot in shots}
    for shard in plan.shards(output, document.fingerprint, run):
        planned = plan.read_shard(output, document.fingerprint, run, shard.number)
        rows = [_row(found[ref.uri, ref.part], ref.etag, shard.number, palette) for ref in planned]
        masks.write_shard(output, document.fingerprint, run, shard.number, rows)
    return Archive(output, document.fingerprint, run)


def _row(shot: Shot, etag: str, shard: int, palette: Palette | None) -> masks.Row:
    if shot.labels is None:
        return masks.failed_row(shot.image_id, shot.uri, etag, shard, "unreadable", "no image")
    return masks.failed_row(shot.image_id, shot.uri, etag, shard, "ok", "") | {
        "error": None,
        "height": shot.labels.shape[0],
        "width": shot.labels.shape[1],
        "mask": {"bytes": images.encode_mask(shot.labels, palette), "path": masks.mask_path(shot.image_id)},
        "labels": np.unique(shot.labels).astype(np.int16),
        "confidence": shot.confidence,
        "entropy": 1 - shot.confidence,
        "changed": 0.0,
    }


def write_photograph(path: Path, height: int, width: int, seed: int = 0, orientation: int = 1) -> str:
    """A photograph of noise at the path, JPEG or what its suffix says; where it lies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return str(path)


def blobs(seed: int, height: int = 40, width: int = 48, classes: int = 3) -> np.ndarray:
    """A mask uint8 [height, width] of blobs with holes, some of one pixel."""
    noise = np.random.default_rng(seed).normal(size=(height, width))
    smooth = noise + 2 * (np.roll(noise, 1, 0) + np.roll(noise, 1, 1) + np.roll(noise, -1, 0) + np.roll(noise, -1, 1))
    return np.digitize(smooth, np.quantile(smooth, np.linspace(0.5, 1, classes - 1, endpoint=False))).astype(np.uint8)
