"""Photographs with their masks over them: pictures for a page, or a folder of them to browse."""

import base64
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
from PIL import Image

from pipeline import images, masks, pages, photographs, plan, recipes, storage
from pipeline.errors import ConfigError, ImageError, StorageError
from pipeline.masks import Row
from pipeline.picks import Pick, pick_spread
from pipeline.recipes import RecipeDocument
from pipeline.sources import ImageRef
from pipeline.sources.reading import read_part

MAX_SIDE = 640
JPEG_QUALITY = 82
NAME_LENGTH = 60  # letters of up to four bytes; file systems end at 255


class Overlay(NamedTuple):
    """A picked image's photograph with its mask over it, uint8 [h, w, 3]; or None and the reason why there is none."""

    pick: Pick
    caption: str
    picture: np.ndarray | None
    missing: str | None

    @property
    def image_id(self) -> str:
        """The image's id."""
        return self.pick.image_id


class Card(NamedTuple):
    """An overlay as a page shows it: ``src`` is a link or a data URI, None where there is no picture."""

    overlay: Overlay
    src: str | None


def overlays(output: str, fingerprint: str, run: str, picks: Iterable[Pick]) -> Iterator[Overlay]:
    """One overlay a pick, a shard at a time in order; no side is longer than MAX_SIDE.

    A photograph that cannot be read any more, or is not the one that was labelled, costs its picture and no more.
    """
    document = recipes.read_document(output, fingerprint)
    by_shard = attrgetter("shard")
    for shard, members in groupby(sorted(picks, key=by_shard), key=by_shard):
        picked = list(members)
        rows = masks.read_images(output, fingerprint, run, [(shard, pick.image_id) for pick in picked])
        refs = _references(output, fingerprint, run, shard, rows)
        for pick in picked:
            text = caption(pick, document.classes)
            try:
                laid = picture(refs.get(pick.image_id), rows[pick.image_id], document)
            except Exception as error:  # a source that was changed since can lead its readers to anything
                yield Overlay(pick, text, None, str(error) or type(error).__name__)
            else:
                yield Overlay(pick, text, laid, None)


def caption(pick: Pick, classes: Sequence[str]) -> str:
    """The image's measures and labels in one line of plain text."""
    parts = [] if pick.miou is None else [f"mIoU {pages.number(pick.miou)}"]
    parts += [f"confidence {pages.number(pick.confidence)}", f"changed {pages.percent(pick.changed)}"]
    return " · ".join([*parts, ", ".join(classes[label] for label in pick.labels)])


def data_uri(picture: np.ndarray) -> str:
    """The picture, uint8 [h, w, 3], as a JPEG in a data: URI."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"


def write_gallery(output: str, fingerprint: str, run: str, folder: str, limit: int) -> str:
    """Writes overlays of at most ``limit`` images, spread over the run, as PNGs with an index.html; its path.

    Raises ConfigError where ``folder`` is not a local one or cannot be written.
    """
    if storage.is_remote(folder):
        raise ConfigError(f"a gallery is written to a local folder, and {storage.public(folder)} is a URL")
    root = Path(storage.absolute(folder))
    document = recipes.read_document(output, fingerprint)
    picks = pick_spread(output, fingerprint, run, limit)
    try:
        root.mkdir(parents=True, exist_ok=True)
        cards = [
            _written(overlay, root, number)
            for number, overlay in enumerate(overlays(output, fingerprint, run, picks), start=1)
        ]
        index = root / "index.html"
        index.write_bytes(pages.render("gallery.html.j2", run=run, document=document, cards=cards))
    except OSError as error:
        raise ConfigError(f"cannot write the gallery to {root}: {error.strerror or error}") from error
    return str(index)


def file_name(image_id: str, number: int) -> str:
    """A PNG's name made of letters, digits, '_', '-' and '.', for the ``number``-th image of a gallery; all differ."""
    name = re.sub(r"[^\w.-]+", "_", masks.mask_path(image_id).removesuffix(".png"))[-NAME_LENGTH:]
    return f"{number:04d}-{name}.png"


def _written(overlay: Overlay, folder: Path, number: int) -> Card:
    if overlay.picture is None:
        return Card(overlay, None)
    name = file_name(overlay.image_id, number)
    Image.fromarray(overlay.picture).save(folder / name, "PNG")
    return Card(overlay._replace(picture=None), quote(name))


def _references(output: str, fingerprint: str, run: str, shard: int, wanted: Iterable[str]) -> dict[str, ImageRef]:
    """The references of the wanted images of a shard; none where its plan cannot be read."""
    try:
        refs = plan.read_shard(output, fingerprint, run, shard)
    except StorageError:
        return {}
    return {ref.image_id: ref for ref in refs if ref.image_id in wanted}


def picture(ref: ImageRef | None, row: Row, document: RecipeDocument) -> np.ndarray:
    """The overlay, uint8 [h, w, 3]. Raises ImageError and whatever a changed source leads its readers to."""
    if ref is None:
        raise ImageError("the run's plan does not say where it is")
    photograph = images.decode(read_part(ref.uri, ref.part), document.recipe.max_pixels, MAX_SIDE)
    photographs.check_size((photograph.height, photograph.width), (row["height"], row["width"]))
    labels = images.decode_mask(row["mask"]["bytes"])
    clear = 0 if document.classes[0] == "background" else None
    labels = images.enlarge_labels(labels, photograph.rgb.shape[:2])
    return images.overlay(photograph.rgb, labels, clear, own=document.palette)
