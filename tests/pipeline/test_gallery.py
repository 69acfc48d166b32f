"""Which images are picked, what their overlays show, and a folder of them."""

import io
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline import gallery, masks, pages, picks, report
from pipeline.classes import palette
from pipeline.errors import ConfigError
from tests.pipeline.conftest import Labeller, Picture, shifted, square

NASTY = (
    "../../x",
    "/etc/passwd",
    "..",
    "<script>alert(1)</script>.png",
    'it\'s "quoted" & 100 %.jpg',
    "a#b?c=%2e%2e/d.jpg",
    "tab\tand\nnewline",
    "日本/猫.jpg",
    "x" * 400,
    "C:\\windows\\system32",
)


class Links(HTMLParser):
    """Every src and href of a page, and the tags that it has."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]


def plain(count: int, truth_shift: int | None = None) -> list[Picture]:
    """Pictures of squares of a growing size; their truth lies ``truth_shift`` pixels a picture further off."""
    pictures = []
    for number in range(count):
        classes = square(1 + number % 3, 5, 5, 10 + number)
        truth = None if truth_shift is None else shifted(classes, truth_shift * number)
        pictures.append(Picture(f"image-{number}", classes, truth))
    return pictures


def broken(name: str) -> Picture:
    return Picture(name, np.empty((0, 0), np.uint8), None)


def groups(found: list[picks.Pick]) -> dict[str, list[str]]:
    return {group: [pick.image_id for pick in found if pick.group == group] for group in picks.RANKINGS}


def test_best_and_worst_by_miou(label_pictures: Labeller) -> None:
    labelled = label_pictures([*plain(7, truth_shift=1), broken("broken")])
    found = groups(picks.pick_extremes(*labelled.key, count=2))
    assert found["Best mIoU"] == ["image-0", "image-1"]
    assert set(found["Worst mIoU"]) <= {"image-4", "image-5", "image-6"} and len(found["Worst mIoU"]) == 2
    assert found["Most confident"] == found["Least confident"] == []


def test_no_image_is_best_and_worst_at_once(label_pictures: Labeller) -> None:
    labelled = label_pictures(plain(3, truth_shift=1))
    found = groups(picks.pick_extremes(*labelled.key, count=2))
    assert (found["Best mIoU"], found["Worst mIoU"]) == (["image-0", "image-1"], ["image-2"])


def test_without_truth_by_confidence(label_pictures: Labeller) -> None:
    labelled = label_pictures(plain(4))
    found = groups(picks.pick_extremes(*labelled.key, count=1))
    assert len(found["Most confident"]) == len(found["Least confident"]) == 1
    assert found["Best mIoU"] == found["Worst mIoU"] == []


def test_without_a_field_nothing_is_most_changed(label_pictures: Labeller) -> None:
    labelled = label_pictures(plain(4), back_end="argmax")
    assert groups(picks.pick_extremes(*labelled.key))["Most changed by the field"] == []


def test_nothing_to_pick(label_pictures: Labeller) -> None:
    labelled = label_pictures([broken("one"), broken("two")])
    assert picks.pick_extremes(*labelled.key) == []
    assert picks.pick_spread(*labelled.key, limit=5) == []


@pytest.mark.parametrize(("limit", "expected"), [(0, 0), (1, 1), (3, 3), (5, 5), (9, 9), (50, 10)])
def test_a_spread_takes_as_many_as_there_are(label_pictures: Labeller, limit: int, expected: int) -> None:
    pictures = [broken("first"), broken("second"), *plain(10)]
    labelled = label_pictures(pictures, shard_size=3)
    found = picks.pick_spread(*labelled.key, limit=limit)
    assert len({pick.image_id for pick in found}) == len(found) == expected


def test_a_spread_comes_from_different_shards(label_pictures: Labeller) -> None:
    labelled = label_pictures(plain(12), shard_size=3)
    assert [pick.shard for pick in picks.pick_spread(*labelled.key, limit=2)] == [0, 2]


def test_overlays_show_the_mask(label_pictures: Labeller) -> None:
    classes = square(1, 10, 10, 20)
    labelled = label_pictures([Picture("one", classes, None)])
    (overlay,) = gallery.overlays(*labelled.key, picks.pick_spread(*labelled.key, limit=1))
    assert overlay.picture is not None and overlay.picture.shape == (40, 48, 3)
    assert overlay.picture[0, 0].tolist() == [40, 40, 40]  # background stays as it is
    assert overlay.picture[20, 20, 1] < 40 and overlay.picture[20, 20, 0] > 128  # VOC's dark red over red
    assert overlay.picture[10, 15].tolist() == [255, 255, 255]  # the edge
    assert (
        overlay.caption == f"confidence {pages.number(overlay.pick.confidence)} · changed 0.0 % · background, red thing"
    )


def test_the_classes_own_colours_are_in_masks_pictures_and_pages(label_pictures: Labeller, tmp_path: Path) -> None:
    own = ((1, 2, 3), (9, 8, 250), (0, 0, 0), (4, 4, 4), (5, 5, 5))
    labelled = label_pictures([Picture("one", square(1, 10, 10, 20), None)], palette=own)
    (rows,) = masks.read_rows(*labelled.key)
    with Image.open(io.BytesIO(rows["mask"][0]["bytes"].as_py())) as mask:
        assert mask.getpalette()[:6] == [1, 2, 3, 9, 8, 250]  # type: ignore[index]
        assert mask.getpalette()[15:18] == palette()[5].tolist()  # type: ignore[index]
    (overlay,) = gallery.overlays(*labelled.key, picks.pick_spread(*labelled.key, limit=1))
    assert overlay.picture is not None and overlay.picture[20, 20, 2] > 128  # blue over red
    page = Path(gallery.write_gallery(*labelled.key, str(tmp_path / "show"), 1)).read_text()
    assert "rgb(9, 8, 250)" in page
    report.write_report(*labelled.key)
    assert "rgb(9, 8, 250)" in Path(report.page(*labelled.key)).read_text()


def test_large_photographs_are_shown_small(label_pictures: Labeller) -> None:
    labelled = label_pictures([Picture("large", square(1, 100, 100, 400, 700, 1400), None)])
    (overlay,) = gallery.overlays(*labelled.key, picks.pick_spread(*labelled.key, limit=1))
    assert overlay.picture is not None and overlay.picture.shape == (320, 640, 3)


def test_a_lost_photograph_costs_only_its_picture(label_pictures: Labeller, tmp_path: Path) -> None:
    labelled = label_pictures(plain(4))
    labelled.photographs["image-0"].unlink()
    labelled.photographs["image-1"].write_bytes(b"rubbish")
    Image.new("RGB", (9, 9)).save(labelled.photographs["image-2"])
    found = {one.image_id: one for one in gallery.overlays(*labelled.key, picks.pick_spread(*labelled.key, limit=4))}
    assert "does not exist" in (found["image-0"].missing or "")
    assert "not an image" in (found["image-1"].missing or "")
    assert "9x9, not 48x40" in (found["image-2"].missing or "")
    assert found["image-3"].missing is None and found["image-3"].picture is not None
    page = Path(gallery.write_gallery(*labelled.key, str(tmp_path / "shown"), 4)).read_text()
    assert page.count("No picture: ") == 3


def test_a_lost_plan_costs_only_the_pictures(label_pictures: Labeller) -> None:
    labelled = label_pictures(plain(2))
    (place,) = Path(labelled.output, "plans").rglob("*.parquet")
    place.unlink()
    found = list(gallery.overlays(*labelled.key, picks.pick_spread(*labelled.key, limit=2)))
    assert [one.picture for one in found] == [None, None]
    assert "plan" in (found[0].missing or "")


def test_a_gallery_stays_in_its_folder(label_pictures: Labeller, tmp_path: Path) -> None:
    labelled = label_pictures([Picture(name, square(3, 5, 5, 20), None) for name in NASTY])
    before = set(tmp_path.rglob("*"))
    folder = tmp_path / "shown here"
    index = Path(gallery.write_gallery(*labelled.key, str(folder), 50))
    assert index == folder / "index.html"
    new = set(tmp_path.rglob("*")) - before - {folder}
    assert {path.parent for path in new} == {folder}
    assert len(new) == len(NASTY) + 1
    parsed = Links(index.read_text())
    pictures = {path.name for path in new if path.suffix == ".png"}
    relative = [link for link in parsed.links if not link.startswith("data:")]
    assert {unquote(link) for link in relative} == pictures
    assert all(urlsplit(link).path == link for link in relative)
    assert "script" not in parsed.tags


def test_a_gallery_names_what_it_shows(label_pictures: Labeller, tmp_path: Path) -> None:
    labelled = label_pictures([Picture("<i>one</i>", square(1, 5, 5, 20), square(1, 5, 5, 20))])
    page = Path(gallery.write_gallery(*labelled.key, str(tmp_path / "shown"), 5)).read_text()
    assert "&lt;i&gt;one&lt;/i&gt;" in page and "<i>" not in page
    assert "rgb(128, 0, 0)" in page and "red thing" in page
    assert "<dt>mIoU</dt><dd>1.000</dd>" in page and "1 image spread" in page


def test_a_gallery_of_nothing_says_so(label_pictures: Labeller, tmp_path: Path) -> None:
    labelled = label_pictures([broken("one")])
    index = gallery.write_gallery(*labelled.key, str(tmp_path / "shown"), 5)
    assert "No image of this run has a mask." in Path(index).read_text()


def test_a_gallery_is_local(label_pictures: Labeller) -> None:
    labelled = label_pictures(plain(1))
    with pytest.raises(ConfigError, match="s3://bucket/shown is a URL"):
        gallery.write_gallery(*labelled.key, "s3://bucket/shown", 5)


def test_a_gallery_that_cannot_be_written(label_pictures: Labeller, tmp_path: Path) -> None:
    labelled = label_pictures(plain(1))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match=r"cannot write the gallery to .*/file"):
        gallery.write_gallery(*labelled.key, str(tmp_path / "file"), 5)


@given(st.text(max_size=300), st.integers(1, 9999))
def test_file_names_are_plain_and_fit_on_a_disk(image_id: str, number: int) -> None:
    name = gallery.file_name(image_id, number)
    assert "/" not in name and "\\" not in name and "\x00" not in name
    assert name.startswith(f"{number:04d}-") and name.endswith(".png")
    assert len(name.encode("utf-8", "surrogatepass")) <= 255


def test_data_uris_hold_jpegs() -> None:
    assert gallery.data_uri(np.zeros((4, 4, 3), np.uint8)).startswith("data:image/jpeg;base64,/9j/")
