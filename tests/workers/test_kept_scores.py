"""The two actors' own methods, in this process: scores that one run keeps serve the next in place of the network."""

from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from pipeline import kept, masks, storage
from pipeline.config import Evaluation, Recipe
from pipeline.errors import StorageError
from pipeline.masks import Row
from pipeline.sources import ImageRef, Origin
from pipeline.weights import read_weights
from workers.frontend import FrontEndWorker
from workers.metrics import Labels
from workers.refiner import RefinerWorker, Target

pytestmark = pytest.mark.usefixtures(
    "ray_cluster"
)  # a front end asks Ray for its GPUs, which starts one if there is none

OLD, NEW, RUN = "0123456789abcdef", "fedcba9876543210", "2026-01-01-0001"
DENSECRF, ARGMAX = (Recipe.model_validate({"back_end": name}) for name in ("densecrf", "argmax"))


def photographs(folder: Path) -> list[ImageRef]:
    """Two photographs with a broken one between them."""
    refs = []
    for index, image in enumerate((skimage.data.astronaut(), None, skimage.data.chelsea())):
        path = folder / f"{index}.jpg"
        path.write_bytes(b"no image")
        if image is not None:
            Image.fromarray(image).resize((160, 120)).save(path)
        refs.append(ImageRef(path.name, str(path), "", "e", None, None, None, Origin(RUN, 0, index)))
    return refs


def rows(refs: list[ImageRef], front_end: FrontEndWorker, refiner: RefinerWorker) -> list[Row]:
    """What the dispatcher makes of a shard."""
    facts, *scored = front_end.score(refs)
    made = []
    for ref, fact, one in zip(refs, facts, scored, strict=True):
        if one is None:
            made.append(masks.failed_row(ref.image_id, ref.uri, ref.etag, 0, fact.status, fact.reason))
        else:
            made += refiner.refine([(ref, 0)], one)[1:]
    return made


def committed(output: str, fingerprint: str) -> list[Row]:
    return list(masks.read_shard(output, fingerprint, RUN, 0).to_pylist())


def test_masks_by_kept_scores_are_those_of_the_network_which_need_not_be_there(tmp_path: Path) -> None:
    output, refs = str(tmp_path / "out"), photographs(tmp_path)
    weights = read_weights(DENSECRF).data
    keeping = RefinerWorker(DENSECRF, Evaluation(), Target(output, OLD, keep_scores=True), Labels())
    assert keeping.commit(RUN, 0, rows(refs, FrontEndWorker(DENSECRF, weights, Labels()), keeping)).written

    whole = [refs[0], refs[2]]  # the broken one was never scored, and would be asked of the network
    no_weights = FrontEndWorker(ARGMAX, b"", Labels(), kept.Source(output, OLD, None))
    with_network = FrontEndWorker(ARGMAX, weights, Labels())
    plain = RefinerWorker(ARGMAX, Evaluation(), Target(output, NEW), Labels())
    by_scores, by_network = (rows(whole, front_end, plain) for front_end in (no_weights, with_network))

    assert [row["mask"] for row in by_scores] == [row["mask"] for row in by_network]
    assert [row["status"] for row in committed(output, OLD)] == ["ok", "unreadable", "ok"]
    assert plain.commit(RUN, 0, by_scores).written
    assert not storage.exists(kept.folder(output, NEW))


def test_scores_are_there_before_the_masks_are(tmp_path: Path) -> None:
    output, refs = str(tmp_path / "out"), photographs(tmp_path)
    keeping = RefinerWorker(DENSECRF, Evaluation(), Target(output, OLD, keep_scores=True), Labels())
    made = rows(refs, FrontEndWorker(DENSECRF, read_weights(DENSECRF).data, Labels()), keeping)
    Path(output).mkdir()
    Path(output, "scores").write_text("a file where the folder should be")
    with pytest.raises(StorageError):
        keeping.commit(RUN, 0, made)
    assert masks.committed(output, OLD, RUN) == set()
