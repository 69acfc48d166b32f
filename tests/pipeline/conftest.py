"""Small labelled outputs, made by the real functions around a front end that reads classes off colours."""

from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipeline import images, label, masks, plan, recipes
from pipeline.classes import Palette
from pipeline.config import Evaluation, Recipe
from pipeline.scores import ScoreMap
from pipeline.sources import REF_SCHEMA
from pipeline.weights import Weights

CLASSES = ("background", "red thing", "green thing", "</script><script>window.ran=1</script>", "never seen")
GREYS = np.array([[40, 40, 40], [220, 40, 40], [40, 220, 40], [40, 40, 220]], np.int64)
SOFTNESS = 200  # grey levels a unit of score: so unsure that a field mends single pixels


class ColourFrontEnd:
    """Scores a pixel by how near its colour is to each class's; the last class never wins."""

    def __init__(self, palette: Palette | None = None) -> None:
        self.palette = palette

    def score(self, photographs: Sequence[np.ndarray]) -> list[ScoreMap]:
        return [self._score(rgb.astype(np.int64)) for rgb in photographs]

    def _score(self, rgb: np.ndarray) -> ScoreMap:
        distance = np.abs(rgb[None] - GREYS[:, None, None]).sum(-1)
        never = np.full((1, *distance.shape[1:]), 2000)
        return ScoreMap((-np.concatenate([distance, never]) / SOFTNESS).astype(np.float16), ())


class Picture(NamedTuple):
    """An image of a small data set: its id, and its truth where it has one."""

    image_id: str
    classes: np.ndarray  # uint8 [H, W], of which the photograph is painted
    truth: np.ndarray | None


class Labelled(NamedTuple):
    """A labelled output, and where its photographs and truth masks are."""

    output: str
    recipe: str
    run: str
    photographs: dict[str, Path]
    truths: dict[str, Path]

    @property
    def key(self) -> tuple[str, str, str]:
        """What every reader of a run asks for."""
        return self.output, self.recipe, self.run


Labeller = Callable[..., Labelled]


def square(label_id: int, top: int, left: int, side: int, height: int = 40, width: int = 48) -> np.ndarray:
    """Class ids uint8 [height, width]: a square of one class on ground."""
    classes = np.zeros((height, width), np.uint8)
    classes[top : top + side, left : left + side] = label_id
    return classes


def shifted(classes: np.ndarray, pixels: int) -> np.ndarray:
    """A truth that lies some pixels to the right, with a void column at the left edge."""
    truth = np.roll(classes, pixels, 1)
    truth[:, 0] = 255
    return truth


@pytest.fixture
def label_pictures(tmp_path: Path) -> Labeller:
    """Labels pictures into a new output. A picture whose ``classes`` are empty becomes a broken file."""

    def build(
        pictures: Sequence[Picture],
        back_end: str = "argmax",
        shard_size: int = 4,
        output: str = str(tmp_path / "output"),
        palette: Palette | None = None,
    ) -> Labelled:
        photographs, truths, rows = {}, {}, []
        for number, picture in enumerate(pictures):
            photograph, truth = tmp_path / f"{number:03d}.png", tmp_path / f"{number:03d}-truth.png"
            if picture.classes.size:
                Image.fromarray(GREYS[picture.classes].astype(np.uint8)).save(photograph)
            else:
                photograph.write_bytes(b"no image at all")
            if picture.truth is not None:
                truth.write_bytes(images.encode_mask(picture.truth))
                truths[picture.image_id] = truth
            photographs[picture.image_id] = photograph
            truth_uri = str(truth) if picture.truth is not None else None
            rows.append((picture.image_id, str(photograph), "", f"etag-{number}", None, truth_uri, ""))
        listing = pa.Table.from_pylist([dict(zip(REF_SCHEMA.names, row, strict=True)) for row in rows], REF_SCHEMA)
        recipe = Recipe.model_validate({"back_end": back_end})
        document = recipes.document(recipe, Weights(b"", "0" * 64, "stub", CLASSES, palette))
        recipes.write_document(output, document)
        run = plan.add_run(output, document.fingerprint, listing, shard_size, date(2026, 3, 1))
        assert run is not None
        for shard in plan.shards(output, document.fingerprint, run):
            refs = plan.read_shard(output, document.fingerprint, run, shard.number)
            found = label.label_shard(refs, shard.number, ColourFrontEnd(palette), recipe, Evaluation())  # type: ignore[arg-type]
            masks.write_shard(output, document.fingerprint, run, shard.number, found)
        return Labelled(output, document.fingerprint, run, photographs, truths)

    return build
