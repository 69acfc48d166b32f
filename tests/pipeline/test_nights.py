"""The files of a night, made of real runs where numbers come from rows."""

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import golden, nights, report, storage
from pipeline.config import LabelJob, Trend
from pipeline.errors import ConfigError
from pipeline.golden import Golden
from pipeline.plan import Changes
from pipeline.trend import Night
from tests.pipeline.conftest import CLASSES, Labelled, Labeller, Picture, shifted, square
from tests.pipeline.test_gallery import broken
from tests.pipeline.test_report import assert_calm, without_scripts
from tests.pipeline.test_trend import night

RULES = Trend(nights=3, at_least=2)
SCRIPT = "<script>alert(1)</script>.jpg"


def gone(*images: str) -> Changes:
    uris = [f"/set/{image}" for image in images]
    return Changes(2, 1, pa.table({"image_id": pa.array(images, pa.string()), "uri": pa.array(uris, pa.string())}))


def pictures() -> list[Picture]:
    """Two with truth, one without, one broken: a quarter of each mask is of one class."""
    quarter = square(1, 0, 0, 20, 40, 40)
    return [
        Picture("one", quarter, shifted(quarter, 1)),
        Picture("two", square(2, 0, 0, 20, 40, 40), shifted(square(2, 0, 0, 20, 40, 40), 2)),
        Picture("three", square(1, 0, 0, 0, 40, 40), None),
        broken("broken"),
    ]


@pytest.fixture
def labelled(label_pictures: Labeller) -> Labelled:
    made = label_pictures(pictures())
    report.write_report(*made.key)
    return made


def of(labelled: Labelled, day: int, **measures: Any) -> Night:
    return night(day, recipe=labelled.recipe, **measures)


def table(output: str, name: str, file: str) -> list[dict[str, Any]]:
    place = storage.join(nights.folder(output, name), file)
    return list(pq.read_table(io.BytesIO(storage.read(place))).to_pylist())


def test_a_night_is_named_by_its_beginning() -> None:
    names = [nights.name(datetime(2026, 3, day, hour, 5, 7, tzinfo=UTC)) for day, hour in ((1, 2), (1, 23), (2, 0))]
    assert names[0] == "2026-03-01T02-05-07Z"
    assert names == sorted(names)


def test_a_record_holds_what_the_reports_say(labelled: Labelled) -> None:
    finished = nights.finished(*labelled.key)
    made = nights.record("2026-03-01T02-00-00Z", labelled.recipe, [finished], gone(), Golden(0.5, 3), None)
    assert (made.images, made.failed, made.new, made.altered, made.gone) == (4, 1, 2, 1, 0)
    assert (made.confidence, made.entropy, made.changed) == (
        finished.summary.confidence, finished.summary.entropy, finished.summary.changed,
    )  # fmt: skip
    assert (made.golden_miou, made.golden_classes) == (0.5, 3)
    assert list(made.areas) == list(CLASSES)
    assert [made.areas[name] for name in CLASSES[:3]] == pytest.approx([1 - 0.5 / 3, 0.25 / 3, 0.25 / 3])
    assert made.areas[CLASSES[4]] == 0


def test_several_runs_of_a_night_count_by_their_masks(labelled: Labelled) -> None:
    one = nights.finished(*labelled.key)
    other = one._replace(
        summary=one.summary.model_copy(update={"ok": 1, "images": 1, "confidence": 0.2}), areas={CLASSES[0]: 0.0}
    )
    made = nights.record("2026-03-01T02-00-00Z", labelled.recipe, [one, other], gone(), None, None)
    assert made.images == 5
    assert one.summary.confidence is not None
    assert made.confidence == pytest.approx((3 * one.summary.confidence + 0.2) / 4)
    assert made.areas[CLASSES[0]] == pytest.approx(0.75 * one.areas[CLASSES[0]])


def test_a_quiet_night_has_no_means(labelled: Labelled) -> None:
    made = nights.record("2026-03-01T02-00-00Z", labelled.recipe, [], gone(), None, None)
    assert (made.images, made.confidence, made.golden_miou, made.areas) == (0, None, None, {})


def test_an_image_is_newly_gone_once(labelled: Labelled) -> None:
    first = nights.write(labelled.output, of(labelled, 1), gone("a", "b"), RULES)
    second = nights.write(labelled.output, of(labelled, 2), gone("a", "b", "c"), RULES)
    third = nights.write(labelled.output, of(labelled, 3), gone("c"), RULES)
    assert (first.gone, second.gone, third.gone) == (2, 1, 0)
    since = {row["image_id"]: row["since"] for row in table(labelled.output, second.night, "gone.parquet")}
    assert since == {"a": first.night, "b": first.night, "c": second.night}
    assert [row["image_id"] for row in table(labelled.output, third.night, "gone.parquet")] == ["c"]


def test_a_night_is_held_against_those_before_it(labelled: Labelled) -> None:
    for day in range(1, 6):
        nights.write(labelled.output, of(labelled, day), gone(), RULES)
    written = nights.write(labelled.output, of(labelled, 6, areas={"sky": 0.1, "cat": 0.1}), gone(), RULES)
    assert [(shift.measure, shift.name) for shift in written.shifts] == [("area", "sky")]
    assert nights.read(labelled.output, "9999", 2)[-1] == written
    assert [one.night[8:10] for one in nights.read(labelled.output, written.night, 3)] == ["03", "04", "05"]
    rows = table(labelled.output, written.night, "trend.parquet")
    assert [row["class"] for row in rows if row["shifted"]] == ["sky"]
    assert len({row["night"] for row in rows}) == 4


def test_a_night_that_was_not_written_to_its_end_is_no_night(labelled: Labelled) -> None:
    storage.put(nights.page(labelled.output, "2026-03-01T02-00-00Z"), b"half")
    assert nights.read(labelled.output, "9999", 5) == []
    storage.put(storage.join(nights.folder(labelled.output, "2026-03-01T02-00-00Z"), "night.json"), b"{}")
    with pytest.raises(ConfigError, match=r"night\.json is broken: Field required; remove it"):
        nights.read(labelled.output, "9999", 5)


def test_the_page_says_what_has_shifted_and_escapes_what_is_data(labelled: Labelled, browser: Any) -> None:
    for day in range(1, 4):
        nights.write(labelled.output, of(labelled, day, areas={SCRIPT: 0.5}), gone(), RULES)
    reports = (report.page(*labelled.key),)
    tonight = of(labelled, 4, areas={SCRIPT: 0.1}, images=10, reports=reports, error="<b>red</b>")
    written = nights.write(labelled.output, tonight, gone(SCRIPT), RULES)
    page = nights.page(labelled.output, written.night)
    text = without_scripts(storage.read(page).decode())
    assert "area of &lt;script&gt;alert(1)&lt;/script&gt;.jpg: 10.0%, usually 50.0%" in text
    assert "images: 10, usually 500" in text and "&lt;b&gt;red&lt;/b&gt;" in text
    browser.get(Path(page).as_uri())
    assert_calm(browser, pictures=False)
    drawn = browser.execute_script(
        "return figures.map(one => place(one).querySelectorAll('svg.main-svg .point').length)"
    )
    assert len(drawn) == 8 and all(drawn)
    browser.find_element("css selector", "main a").click()
    assert f"Run {labelled.run}" in browser.find_element("css selector", "h1").text


def test_golden_miou_is_over_what_the_set_holds_now(label_pictures: Labeller, tmp_path: Path) -> None:
    labelled = label_pictures(pictures()[:2])
    whole = report.write_report(*labelled.key)
    listed = tmp_path / "list.jsonl"
    job = LabelJob.model_validate({"source": str(listed), "output": labelled.output})

    def measured(*names: str) -> Golden:
        lines = [
            {"uri": str(path), "etag": f"etag-{number}"}
            for number, (name, path) in enumerate(labelled.photographs.items())
            if name in names
        ]
        listed.write_text("\n".join(map(json.dumps, lines)))
        return golden.measure(job, labelled.recipe)

    assert measured("one", "two") == (whole.miou, whole.classes) == (pytest.approx(whole.miou), 3)
    assert measured("one").classes == 2


def test_the_golden_job_is_the_same_recipe_on_another_set() -> None:
    job = LabelJob.model_validate(
        {"source": "/in", "output": "/out", "golden": {"location": "/set", "truth": "/truth"}}
    )
    on_golden = golden.golden_job(job)
    assert on_golden is not None
    assert (on_golden.source.location, on_golden.output, on_golden.recipe) == ("/set", "/out/golden", job.recipe)
    assert golden.golden_job(on_golden) is None
