"""What an image takes and costs: measured in rows, added up in summaries, priced; and rows written before that."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline import cost, gallery, job_files, label, masks, picks, report
from pipeline.config import Evaluation, Inference, LabelJob, Prices, Recipe
from pipeline.cost import Cost, Usage, priced
from pipeline.errors import ConfigError
from pipeline.frontends import FrontEnd
from pipeline.preprocessing import Preprocessing
from pipeline.sources import ImageRef
from pipeline.stopwatch import Stopwatch
from tests.pipeline.conftest import ColourFrontEnd, Labelled, Labeller, Picture, shifted, square
from tests.pipeline.test_gallery import broken
from tests.pipeline.test_inference import Pointwise, noise

USAGE = Usage(
    front_end_core_s=0.36, front_end_gpu_s=0.018, back_end_core_s=0.72, bytes_read=100_000, bytes_scores=250_000,
    bytes_written=4_000,
)  # fmt: skip
PRICES = Prices(core_hour=0.05, gpu_hour=2.0, gb_read=0.02, gb_written=0.5, currency="EUR")
NEW = ("front_end_cpu_ms", "front_end_gpu_ms", "back_end_cpu_ms", "bytes_read", "bytes_scores", "bytes_written")


@pytest.fixture
def labelled(label_pictures: Labeller) -> Labelled:
    pictures = [
        Picture(f"image-{side}", square(1, 5, 5, side), shifted(square(1, 5, 5, side), 2)) for side in (8, 12, 16)
    ]
    return label_pictures([*pictures, broken("broken")], shard_size=2)


@pytest.mark.parametrize(
    ("prices", "million"),
    [
        (PRICES, 15 + 10 + 2 + 2),  # 300 core-hours, 5 GPU-hours, 100 GB read, 4 GB written
        (Prices(gpu_hour=4.0), 20),
        (Prices(gpu_hour=0.0), 0),
        (Prices(), None),
        (None, None),
    ],
)
def test_a_million_images_cost_what_a_calculator_says(prices: Prices | None, million: float | None) -> None:
    found = priced(USAGE, prices).million
    assert found == (million if million is None else pytest.approx(million))


def test_a_priced_quantity_that_was_not_measured_makes_the_cost_unknown() -> None:
    unmeasured = USAGE.model_copy(update={"back_end_core_s": None})
    assert priced(unmeasured, PRICES).million is None
    assert priced(unmeasured, Prices(gpu_hour=2.0)).million == pytest.approx(10)


def test_the_cost_in_words() -> None:
    assert cost.words(priced(USAGE, PRICES)) == (
        "an image takes 1.0800 core-s, 0.0180 GPU-s, 100 kB read, 250 kB of scores, 4 kB written; "
        "a million images cost 29.00 EUR"
    )
    assert cost.price_list(Prices(core_hour=0.04, gb_read=1)) == "0.04 USD a core-hour, 1 USD a GB read"
    unknown = Usage.model_validate(dict.fromkeys(Usage.model_fields))
    assert cost.words(priced(unknown, PRICES)).startswith("an image takes – core-s, – GPU-s, – read")


def test_prices_are_no_part_of_the_recipe() -> None:
    jobs = [
        job_files.load(LabelJob, None, {"source": "/x", "output": "/y", "prices": prices})
        for prices in (None, {"core_hour": 1})
    ]
    assert jobs[0].recipe.fingerprint("0") == jobs[1].recipe.fingerprint("0")
    with pytest.raises(ConfigError, match="prices.gpu_hour = -1"):
        job_files.load(LabelJob, None, {"source": "/x", "output": "/y", "prices": {"gpu_hour": -1}})


def test_a_row_says_what_its_image_took(labelled: Labelled) -> None:
    for table in masks.read_rows(*labelled.key):
        for row in table.to_pylist():
            if row["status"] != "ok":
                assert [row[name] for name in NEW] == [None] * len(NEW)
                continue
            assert row["bytes_read"] == labelled.photographs[row["image_id"]].stat().st_size
            assert row["bytes_scores"] == 5 * row["height"] * row["width"] * 2  # five classes in float16
            assert row["bytes_written"] == len(row["mask"]["bytes"])
            assert row["front_end_gpu_ms"] == 0
            assert row["back_end_cpu_ms"] > 0
            assert row["front_end_cpu_ms"] > 0


def test_processor_time_of_another_thread_is_not_counted() -> None:
    idle = Stopwatch()
    spent: list[float] = []

    def spin() -> None:
        own = Stopwatch()
        while own.cpu_ms < 100:
            pass
        spent.append(own.cpu_ms)

    spinning = threading.Thread(target=spin)
    spinning.start()
    spinning.join()
    idle.lap("waiting")
    assert idle.cpu_ms < 50 < spent[0]
    assert 0 < idle.laps["waiting"] * 1000 <= idle.ms


def test_stages_are_timed_one_after_the_other(labelled: Labelled) -> None:
    recipe = Recipe.model_validate({"back_end": "argmax"})
    photograph, truth = labelled.photographs["image-8"], labelled.truths["image-8"]
    ref = ImageRef("image-8", str(photograph), "", "e", None, str(truth), "")
    scoring, refining = Stopwatch(), Stopwatch()
    (scored,) = label.score_images([ref], ColourFrontEnd(), recipe, scoring)  # type: ignore[arg-type]
    assert isinstance(scored, label.Scored)
    row = label.refine_image(ref, scored, 0, recipe, Evaluation(), refining)
    assert list(scoring.laps) == ["read", "network"]
    assert list(refining.laps) == ["decode", "field", "encode", "truth"]
    assert 0 < sum(scoring.laps.values()) * 1000 <= row["front_end_ms"]
    assert 0 < sum(refining.laps.values()) * 1000 <= row["back_end_ms"]


@pytest.mark.parametrize(
    ("device", "how"), [("cpu", {}), ("cpu:0", {}), ("cpu:0", {"window": 64, "flip": True}), ("cpu", {"flip": True})]
)
def test_the_time_that_a_device_is_held_goes_to_its_images(device: str, how: dict[str, Any]) -> None:
    front_end = FrontEnd(Pointwise(), Preprocessing(), device, how=Inference.model_validate(how))  # cpu:0 is held
    scores = front_end.score([noise(70, 80), noise(70, 80), noise(30, 30)])
    held = [each.gpu_ms for each in scores]
    if device == "cpu":
        assert held == [0, 0, 0]
    else:
        assert min(held) > 0
        assert (held[0] == held[1]) == (not how)  # two of one size share their turn, if they go as they are


def test_a_summary_says_what_its_rows_add_up_to(labelled: Labelled) -> None:
    summary = report.write_report(*labelled.key, PRICES)
    rows = [row for table in masks.read_rows(*labelled.key) for row in table.to_pylist() if row["status"] == "ok"]
    assert summary.cost.bytes_read == np.mean([row["bytes_read"] for row in rows])
    assert summary.cost.bytes_scores == np.mean([row["bytes_scores"] for row in rows])
    assert summary.cost.bytes_written == np.mean([row["bytes_written"] for row in rows])
    core_s = np.mean([row["front_end_cpu_ms"] + row["back_end_cpu_ms"] for row in rows]) / 1000
    assert summary.cost.core_s == pytest.approx(core_s)
    usage = Usage.model_validate(summary.cost.model_dump(include=set(Usage.model_fields)))
    assert summary.cost == priced(usage, PRICES)
    page = Path(summary.report).read_text()
    assert f"{summary.cost.million:,.2f} EUR" in page
    assert "0.05 EUR a core-hour" in page


def test_a_report_written_anew_keeps_the_prices_unless_it_is_given_others(labelled: Labelled) -> None:
    first = report.write_report(*labelled.key, PRICES)
    assert report.write_report(*labelled.key) == first
    assert report.write_report(*labelled.key, Prices(core_hour=1)).prices == Prices(core_hour=1)


def test_shards_and_summaries_without_the_columns_are_still_read(labelled: Labelled, tmp_path: Path) -> None:
    for path in Path(masks.folder(*labelled.key)).iterdir():
        pq.write_table(pq.ParquetFile(path).read().drop_columns(list(NEW)), path)
    summary = report.write_report(*labelled.key, PRICES)
    earlier = Path(summary.report).with_name("summary.parquet")
    pq.write_table(pq.read_table(earlier).drop_columns(["cost", "prices"]), earlier)

    summary = report.write_report(*labelled.key)
    assert (summary.ok, summary.failed, summary.prices) == (3, 1, None)
    assert summary.cost == Cost.model_validate(dict.fromkeys(Cost.model_fields))
    assert "an image takes" in Path(summary.report).read_text()
    assert len(picks.pick_extremes(*labelled.key)) == 3
    assert len(picks.pick_spread(*labelled.key, 10)) == 3
    assert Path(gallery.write_gallery(*labelled.key, str(tmp_path / "shown"), 3)).is_file()
