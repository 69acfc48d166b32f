"""A comparison against computations over pixels, its gate, and its page."""

from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline import archive, comparison, comparison_report, images, masks, storage
from pipeline.comparison import Comparison
from pipeline.gate import Gate, reasons
from tests.pipeline.conftest import CLASSES, Labelled, Labeller, Picture, shifted, square
from tests.pipeline.test_gallery import broken

SCRIPT_ID = "<script>alert(1)</script>.png"


def speckled(label_id: int) -> np.ndarray:
    """A square with single pixels beside it, which a field mends and argmax does not."""
    classes = square(label_id, 10, 4, 25)
    classes[::4, 36::4] = 1
    return classes


def pictures() -> list[Picture]:
    same = [
        Picture(f"plain-{n}", square(1 + n % 3, 6, 6, 20), shifted(square(1 + n % 3, 6, 6, 20), n)) for n in range(4)
    ]
    other = [Picture(f"noisy-{n}", speckled(1 + n % 3), shifted(speckled(1 + n % 3), 1)) for n in range(3)]
    return [*same, *other, Picture(SCRIPT_ID, speckled(2), None), broken("broken")]


@pytest.fixture
def both(label_pictures: Labeller) -> tuple[Labelled, Labelled]:
    """The same images by two recipes in one output."""
    return label_pictures(pictures(), back_end="densecrf"), label_pictures(pictures(), back_end="argmax", shard_size=3)


def write(both: tuple[Labelled, Labelled]) -> Comparison:
    return comparison_report.write(both[0].output, both[0].recipe, both[1].recipe, lambda *_: None)


def table(both: tuple[Labelled, Labelled], name: str) -> list[dict[str, Any]]:
    place = comparison_report.folder(both[0].output, both[0].recipe, both[1].recipe)
    return list(pq.read_table(storage.join(place, f"{name}.parquet")).to_pylist())


def masks_of(labelled: Labelled) -> dict[str, np.ndarray]:
    rows = [row for rows in masks.read_rows(*labelled.key) for row in rows.to_pylist() if row["mask"] is not None]
    return {row["image_id"]: images.decode_mask(row["mask"]["bytes"]) for row in rows}


def iou(masks: dict[str, np.ndarray], labelled: Labelled) -> float:
    pairs = [(masks[name], images.decode_mask(path.read_bytes())) for name, path in labelled.truths.items()]
    found, real = (np.concatenate([pair[side][pair[1] != 255] for pair in pairs]) for side in (0, 1))
    values = [((found == c) & (real == c)).sum() / ((found == c) | (real == c)).sum() for c in np.unique(real)]
    return float(np.mean(values))


def test_the_numbers_are_what_the_pixels_say(both: tuple[Labelled, Labelled]) -> None:
    found = write(both)
    old, new = masks_of(both[0]), masks_of(both[1])
    changed = {name: float((old[name] != new[name]).mean()) for name in old}
    total = sum(mask.size for mask in old.values())
    assert (found.images, found.compared, found.missing, found.failed, found.old_failed) == (9, 8, 0, 1, 1)
    assert (found.masks_lost, found.with_truth, found.truth_lost) == (0, 7, 0)
    assert 0 < found.changed == sum(share > 0 for share in changed.values()) < 8
    assert found.churn == pytest.approx(sum(int((old[name] != new[name]).sum()) for name in old) / total)
    assert found.old_miou == pytest.approx(iou(old, both[0]))
    assert found.miou == pytest.approx(iou(new, both[1]))
    rows = {row["image_id"]: row for row in table(both, "per_image")}
    assert {name: rows[name]["churn"] for name in old} == pytest.approx(changed)
    assert rows["broken"]["churn"] is None and rows["broken"]["status"] == "unreadable"
    assert rows[SCRIPT_ID]["miou"] is None and rows["plain-0"]["old_miou"] == pytest.approx(1)
    moves = {(row["old"], row["new"]): row["pixels"] for row in table(both, "churn")}
    assert sum(moves.values()) == total
    gone = sum(int(((old[name] == 0) & (new[name] == 1)).sum()) for name in old)
    assert moves[CLASSES[0], CLASSES[1]] == gone > 0
    left = {row["name"]: row["churn"] for row in table(both, "per_class")}
    ground = sum(int((mask == 0).sum()) for mask in old.values())
    stayed = sum(int(((old[name] == 0) & (new[name] == 0)).sum()) for name in old)
    assert left[CLASSES[0]] == pytest.approx(1 - stayed / ground)
    assert left[CLASSES[4]] is None


def test_a_comparison_is_up_to_date_until_either_recipe_has_more_rows(
    both: tuple[Labelled, Labelled], label_pictures: Labeller
) -> None:
    names = both[0].output, both[0].recipe, both[1].recipe
    assert comparison_report.up_to_date(*names) is None
    found = write(both)
    assert comparison_report.up_to_date(*names) == found
    label_pictures([*pictures(), Picture("new", square(1, 2, 2, 9), None)], back_end="densecrf")
    assert comparison_report.up_to_date(*names) is None
    assert write(both).missing == 1


def test_images_pair_only_with_the_same_etag(both: tuple[Labelled, Labelled]) -> None:
    old, new = (archive.images(*labelled.key[:2]) for labelled in both)
    etags = ["other" if etag == "etag-0" else etag for etag in new["etag"].to_pylist()]
    changed = new.set_column(new.schema.get_field_index("etag"), "etag", [etags])
    assert comparison.pairs(old, changed).num_rows == 8
    assert comparison.missing(old, changed) == 0
    assert comparison.missing(old, changed.slice(2)) == 2


def test_the_most_changed_images_are_laid_side_by_side(both: tuple[Labelled, Labelled]) -> None:
    write(both)
    names = both[0].output, both[0].recipe, both[1].recipe
    leading = comparison_report.most_changed(*names, 2)
    shares = leading["churn"].to_pylist()
    assert len(shares) == 2 and shares == sorted(shares, reverse=True)
    for one in comparison_report.beside(*names, leading):
        assert one.pictures is not None
        assert one.pictures[0].shape == one.pictures[1].shape == (40, 48, 3)
        assert not np.array_equal(*one.pictures)


def test_the_page_escapes_what_is_data(both: tuple[Labelled, Labelled]) -> None:
    page = storage.read(write(both).report).decode()
    assert "alert(1)</script>" not in page and "window.ran=1</script>" not in page
    assert page.count("data:image/jpeg;base64,") == 2 * len([row for row in table(both, "per_image") if row["churn"]])
    assert "IoU by class, old and new" in page and "Churn by class" in page


def test_a_photograph_that_is_gone_costs_its_picture_alone(both: tuple[Labelled, Labelled]) -> None:
    write(both)
    leading = comparison_report.most_changed(both[0].output, both[0].recipe, both[1].recipe, 1)
    both[0].photographs[leading["image_id"][0].as_py()].unlink()
    page = storage.read(write(both).report).decode()
    assert page.count("No picture:") == 1


def test_classes_of_another_name_have_changed() -> None:
    old, new = ("a", "b"), ("b", "a", "c")
    totals = comparison.Totals(old, new)
    totals.pixels += np.array([[6, 3, 0], [1, 0, 0]])
    found = totals.comparison("0", "1", 0, "")
    assert found.churn == pytest.approx(0.6)
    assert {row["name"]: row["churn"] for row in totals.by_class()} == {
        "a": pytest.approx(1 - 3 / 9), "b": 0.0, "c": None,
    }  # fmt: skip


FINE = Comparison(
    old="0", recipe="1", report="", images=1000, missing=0, compared=990, changed=400, churn=0.04, old_failed=10,
    failed=10, masks_lost=0, with_truth=50, truth_lost=0, classes=20, old_miou=0.6, miou=0.595,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"miou": 0.7, "missing": 3}, ""),
        ({"failed": 300, "old_failed": 300}, ""),
        ({"old_miou": None, "miou": None}, ""),
        ({"miou": 0.589}, "mIoU falls from 0.6000 to 0.5890, by more than max_miou_drop = 0.01"),
        ({"churn": 0.11}, "11.0% of the pixels change their class, more than max_churn = 10.0%"),
        ({"masks_lost": 11}, "11 of 1000 images (1.1%) lose their mask, more than max_failure_rate = 1.0%"),
        ({"truth_lost": 50, "with_truth": 0}, "50 images could be held against truth before and none can now"),
        (
            {"images": 0, "compared": 0, "churn": None},
            "no image has a row of both recipes, so nothing could be compared",
        ),
        ({"churn": None, "compared": 0}, "no image has two masks of one size, so nothing could be compared"),
    ],
)
def test_the_gate_says_why_not(changes: dict[str, Any], said: str) -> None:
    assert "; ".join(reasons(Gate(), FINE.model_copy(update=changes))) == said


def test_the_limits_are_the_jobs() -> None:
    worse = FINE.model_copy(update={"miou": 0.1, "churn": 0.9, "masks_lost": 900})
    assert len(reasons(Gate(), worse)) == 3
    assert reasons(Gate(max_miou_drop=0.5, max_churn=0.9, max_failure_rate=0.9), worse) == []
