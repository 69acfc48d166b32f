"""The report's tables against computations over pixels, and its page as a browser sees it."""

import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline import gallery, images, masks, pages, picks, report, storage
from pipeline.errors import ConfigError
from pipeline.metrics import boundary_band
from tests.pipeline.conftest import CLASSES, Labelled, Labeller, Picture, shifted, square
from tests.pipeline.test_gallery import Links, broken

SCRIPT_ID = "<script>alert(1)</script>.png"


def measured_pictures() -> list[Picture]:
    """Six images with truth, one of which the field mends; one without, one with a truth too small, one broken."""
    pictures = [
        Picture(f"image-{shift}", square(1 + shift % 3, 6, 6, 20), shifted(square(1 + shift % 3, 6, 6, 20), shift))
        for shift in range(5)
    ]
    speckled = square(3, 10, 4, 25)
    speckled[::4, 36::4] = 1
    script = Picture(SCRIPT_ID, speckled, shifted(square(3, 12, 4, 25), 2))
    no_truth = Picture("no-truth", square(2, 5, 5, 9), None)
    other_size = Picture("other-size", square(2, 5, 5, 9), np.zeros((3, 3), np.uint8))
    return [*pictures, script, no_truth, other_size, broken("broken")]


@pytest.fixture
def measured(label_pictures: Labeller) -> Labelled:
    return label_pictures(measured_pictures(), back_end="densecrf")


def table(labelled: Labelled, name: str) -> list[dict[str, Any]]:
    place = storage.join(report.folder(*labelled.key), f"{name}.parquet")
    return list(pq.ParquetFile(io.BytesIO(storage.read(place))).read().to_pylist())


def page_of(summary: report.Summary) -> str:
    return storage.read(summary.report).decode()


def without_scripts(page: str) -> str:
    """The page without its scripts, its styles and the bytes of its pictures."""
    return re.sub(r"<(script|style)\b.*?</\1>|data:image[^\"]*", "", page, flags=re.DOTALL)


def drawn(page: str) -> dict[str, Any]:
    """The figures in the page by their id."""
    found = re.search(r"const figures = (\[.*\]);\n", page)
    assert found is not None
    figures = json.loads(found[1], parse_constant=lambda name: pytest.fail(f"{name} in a figure"))
    return {figure["id"]: figure for figure in figures}


def pixels(labelled: Labelled, image_id: str) -> tuple[np.ndarray, np.ndarray]:
    """The stored mask of an image, and its truth."""
    rows = [row for rows in masks.read_rows(*labelled.key) for row in rows.to_pylist() if row["image_id"] == image_id]
    truth = images.decode_mask(labelled.truths[image_id].read_bytes())
    return images.decode_mask(rows[0]["mask"]["bytes"]), truth


def expected_iou(pairs: list[tuple[np.ndarray, np.ndarray]], where: Any) -> dict[int, float]:
    """The IoU of each class with truth over all pixels of the (mask, truth) pairs."""
    found = np.concatenate([mask[where(truth)] for mask, truth in pairs])
    real = np.concatenate([truth[where(truth)] for _, truth in pairs])
    return {
        int(index): float(((found == index) & (real == index)).sum() / ((found == index) | (real == index)).sum())
        for index in np.unique(real)
    }


def not_void(truth: np.ndarray) -> np.ndarray:
    return np.asarray(truth != 255)


def near_boundary(truth: np.ndarray) -> np.ndarray:
    return np.asarray(not_void(truth) & boundary_band(truth, 5))


def test_summary_is_what_the_pixels_say(measured: Labelled) -> None:
    summary = report.write_report(*measured.key)
    pairs = [pixels(measured, image_id) for image_id in measured.truths if image_id != "other-size"]
    iou = expected_iou(pairs, not_void)
    assert (summary.images, summary.ok, summary.failed, summary.unreadable) == (9, 8, 1, 1)
    assert (summary.with_truth, summary.classes) == (6, len(iou))
    assert summary.miou == pytest.approx(np.mean(list(iou.values())))
    assert summary.boundary_miou == pytest.approx(np.mean(list(expected_iou(pairs, near_boundary).values())))
    right = sum(int((mask == truth)[not_void(truth)].sum()) for mask, truth in pairs)
    assert summary.pixel_accuracy == pytest.approx(right / sum(int(not_void(truth).sum()) for _, truth in pairs))
    rows = [row for row in table(measured, "per_image") if row["status"] == "ok"]
    assert summary.confidence == pytest.approx(np.mean([row["confidence"] for row in rows]))
    assert summary.changed == pytest.approx(np.mean([row["changed"] for row in rows]))
    assert summary.back_end_ms == pytest.approx(np.median([row["back_end_ms"] for row in rows]))
    assert table(measured, "summary") == [summary.model_dump()]


def test_every_class_has_a_row(measured: Labelled) -> None:
    report.write_report(*measured.key)
    rows = table(measured, "per_class")
    pairs = [pixels(measured, image_id) for image_id in measured.truths if image_id != "other-size"]
    iou = expected_iou(pairs, not_void)
    assert [row["name"] for row in rows] == list(CLASSES)
    for row in rows:
        assert row["iou"] == (pytest.approx(iou[row["class_id"]]) if row["class_id"] in iou else None)
        assert row["predicted_pixels"] == sum(
            int((mask[not_void(truth)] == row["class_id"]).sum()) for mask, truth in pairs
        )
    assert rows[4] == {
        "class_id": 4, "name": "never seen", "iou": None, "iou_front": None, "boundary_iou": None, "accuracy": None,
        "accuracy_front": None, "truth_pixels": 0, "predicted_pixels": 0, "images": 0,
        "area": 0.0,
    }  # fmt: skip
    assert rows[0]["images"] == 8


def test_every_class_has_its_share_of_an_image(measured: Labelled) -> None:
    report.write_report(*measured.key)
    rows = [row for part in masks.read_rows(*measured.key) for row in part.to_pylist() if row["status"] == "ok"]
    found = [images.decode_mask(row["mask"]["bytes"]) for row in rows]
    for row in table(measured, "per_class"):
        assert row["area"] == pytest.approx(np.mean([(mask == row["class_id"]).mean() for mask in found]), abs=1e-6)


def test_rows_of_before_there_were_areas_still_have_a_report(measured: Labelled) -> None:
    for shard in masks.committed(*measured.key):
        location = masks.shard_location(*measured.key, shard)
        pq.write_table(pq.read_table(location, partitioning=None).drop_columns("areas"), location)
    assert report.write_report(*measured.key).ok == 8
    assert {row["area"] for row in table(measured, "per_class")} == {None}


def test_every_image_has_a_row(measured: Labelled) -> None:
    report.write_report(*measured.key)
    rows = {row["image_id"]: row for row in table(measured, "per_image")}
    assert list(rows) == [picture.image_id for picture in measured_pictures()]
    for image_id in measured.truths:
        if image_id != "other-size":
            iou = expected_iou([pixels(measured, image_id)], not_void)
            assert rows[image_id]["miou"] == pytest.approx(np.mean(list(iou.values())))
    assert rows["broken"]["status"] == "unreadable" and rows["broken"]["confidence"] is None
    assert rows["no-truth"]["miou"] is None and rows["no-truth"]["labels"] == [0, 2]
    assert rows["other-size"]["miou"] is None and "3x3" in rows["other-size"]["error"]
    assert (rows["image-0"]["height"], rows["image-0"]["width"], rows["image-0"]["shard"]) == (40, 48, 0)


def test_the_page_says_it_all(measured: Labelled) -> None:
    summary = report.write_report(*measured.key)
    page = page_of(summary)
    text = without_scripts(page)
    assert f"Run {measured.run}" in text and measured.recipe in text and "upernet_lite → densecrf" in text
    assert f"{summary.miou:.3f}" in text and f"{summary.miou_front:.3f}" in text
    assert "over the 4 of 5 classes with truth, 6 images" in text
    assert "1 failed: 1 unreadable" in text and "labelled, not measured" in text
    assert "not an image: it starts with" in text
    assert [group for group in picks.RANKINGS if f"<h2>{group}</h2>" in text][:2] == ["Best mIoU", "Worst mIoU"]
    assert set(drawn(page)) == {"iou", "area", "miou", "confidence", "entropy", "changed"}
    assert "&#34;weights_sha256&#34;" in text and "nan" not in text.lower()


def test_the_page_loads_nothing_and_runs_no_data(measured: Labelled) -> None:
    page = page_of(report.write_report(*measured.key))
    links = Links(page).links
    assert len(links) > 6 and all(link.startswith("data:") for link in links)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;.png" in page
    assert "<script>" not in page and page.count("<script nonce=") == page.count("</script>") == 2
    names = [name for figure in drawn(page).values() for trace in figure["data"] for name in trace.get("text", [])]
    assert "&lt;/script&gt;&lt;script&gt;window.ran=1&lt;/script&gt;" in names


def test_without_truth_there_are_dashes(label_pictures: Labeller) -> None:
    labelled = label_pictures([picture._replace(truth=None) for picture in measured_pictures()])
    summary = report.write_report(*labelled.key)
    page = page_of(summary)
    assert summary.miou is summary.boundary_miou is summary.frequency_weighted_iou_front is None
    assert (summary.with_truth, summary.classes) == (0, 0) and summary.confidence is not None
    assert table(labelled, "summary") == [summary.model_dump()]
    assert set(drawn(page)) == {"images", "confidence", "entropy"}
    text = without_scripts(page)
    assert "no image of this run has truth" in text and f'<p class="value">{pages.MISSING}</p>' in text
    assert "Boundary mIoU" not in text and "nan" not in text.lower()
    assert drawn(page)["images"]["data"][0]["x"] == [8, 4, 3, 2]


def test_truth_of_nothing_but_void_takes_no_part(label_pictures: Labeller) -> None:
    void = Picture("void", square(1, 5, 5, 20), np.full((40, 48), 255, np.uint8))
    summary = report.write_report(*label_pictures([void]).key)
    assert (summary.with_truth, summary.miou) == (0, None)


def test_a_run_without_a_mask(label_pictures: Labeller) -> None:
    labelled = label_pictures([broken("one"), broken("two")])
    summary = report.write_report(*labelled.key)
    assert (summary.images, summary.ok, summary.failed) == (2, 0, 2)
    assert summary.confidence is summary.front_end_ms is summary.miou is None
    text = without_scripts(page_of(summary))
    assert "there is nothing to draw" in text and "2 failed: 2 unreadable" in text and f"{pages.MISSING} ms" in text
    assert "nan" not in text.lower() and "None" not in text


def test_a_run_without_a_shard(label_pictures: Labeller) -> None:
    labelled = label_pictures([broken("one")])
    summary = report.write_report(labelled.output, labelled.recipe, "2026-03-02-0002")
    assert (summary.images, summary.failed, summary.changed) == (0, 0, None)
    empty = labelled._replace(run="2026-03-02-0002")
    assert table(empty, "per_image") == [] and len(table(empty, "per_class")) == len(CLASSES)
    assert "there is nothing to draw" in page_of(summary)


def test_a_lost_photograph_leaves_a_report(measured: Labelled) -> None:
    measured.photographs["image-0"].unlink()
    assert "No picture: " in page_of(report.write_report(*measured.key))


def test_many_failures_are_cut_short(label_pictures: Labeller) -> None:
    labelled = label_pictures([broken(f"broken-{number:03d}") for number in range(103)], shard_size=40)
    text = without_scripts(page_of(report.write_report(*labelled.key)))
    assert "103 images without a mask" in text and "the first 100 are listed" in text
    assert "broken-099" in text and "broken-100" not in text


def test_a_second_report_replaces_the_first(measured: Labelled) -> None:
    first = report.write_report(*measured.key)
    shutil.rmtree(masks.folder(*measured.key))
    second = report.write_report(*measured.key)
    assert first.report == second.report and second.images == 0
    assert table(measured, "per_image") == []


def test_without_a_field_no_change_is_drawn(label_pictures: Labeller) -> None:
    labelled = label_pictures([Picture("one", square(1, 6, 6, 20), None)], back_end="argmax")
    figures = drawn(page_of(report.write_report(*labelled.key)))
    assert set(figures) == {"images", "confidence", "entropy"}
    low, high = figures["confidence"]["layout"]["xaxis"]["range"]
    assert 0 <= low < high < 1.1


def test_on_an_object_store(label_pictures: Labeller, bucket_folder: str, tmp_path: Path) -> None:
    labelled = label_pictures(measured_pictures(), output=bucket_folder)
    summary = report.write_report(*labelled.key)
    assert summary.report == f"{bucket_folder}/reports/recipe={labelled.recipe}/run={labelled.run}/report.html"
    assert table(labelled, "summary") == [summary.model_dump()]
    assert f"{summary.miou:.3f}" in page_of(summary)
    assert Path(gallery.write_gallery(*labelled.key, str(tmp_path / "shown"), 3)).is_file()


def test_an_unknown_recipe_is_named(measured: Labelled) -> None:
    with pytest.raises(ConfigError, match=f"no recipe 'other' in .*; there is {measured.recipe}"):
        report.write_report(measured.output, "other", measured.run)


def test_masks_are_read_only_for_pictures(measured: Labelled, monkeypatch: pytest.MonkeyPatch) -> None:
    read = masks.read_rows
    asked: list[Any] = []

    def spy(output: str, fingerprint: str, run: str, columns: Any = None) -> Iterator[Any]:
        asked.append(columns)
        return read(output, fingerprint, run, columns)

    monkeypatch.setattr(masks, "read_rows", spy)
    report.write_report(*measured.key)
    assert len(asked) == 1 and "mask" not in asked[0]


def test_in_a_browser(measured: Labelled, browser: Any, tmp_path: Path) -> None:
    summary = report.write_report(*measured.key)
    browser.get(Path(summary.report).as_uri())
    plots = browser.execute_script(
        "return figures.map(figure => place(figure).querySelectorAll('svg.main-svg .point').length)"
    )
    assert len(plots) == 6 and all(points > 0 for points in plots)
    assert "window.ran=1" in browser.execute_script("return document.getElementById('plot-iou').textContent")
    assert_calm(browser, pictures=True)
    browser.get(Path(gallery.write_gallery(*measured.key, str(tmp_path / "100 % #1?"), 20)).as_uri())
    assert len(browser.find_elements("css selector", "figure img")) == 8
    assert_calm(browser, pictures=True)


def test_an_empty_report_in_a_browser(label_pictures: Labeller, browser: Any) -> None:
    browser.get(Path(report.write_report(*label_pictures([broken("one")]).key).report).as_uri())
    assert "nothing to draw" in browser.find_element("css selector", "body").text
    assert_calm(browser, pictures=False)


def assert_calm(browser: Any, pictures: bool) -> None:
    """No script of the data ran, nothing was complained about or loaded, all pictures show, nothing sticks out."""
    assert browser.execute_script("return window.ran === undefined")
    assert browser.get_log("browser") == []
    fetched = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert all(name.startswith(("data:", "file:")) for name in fetched)
    widths = browser.execute_async_script(
        "const done = arguments[0], shown = [...document.images]; shown.forEach(image => image.loading = 'eager');"
        "Promise.all(shown.map(image => image.decode())).then(() => done(shown.map(image => image.naturalWidth)));"
    )
    assert bool(widths) == pictures and all(widths)
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
