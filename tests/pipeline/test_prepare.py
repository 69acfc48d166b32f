"""From a job to a plan."""

from pathlib import Path

import pytest

from pipeline import masks, plan, recipes, reprocess
from pipeline.config import Evaluation, LabelJob
from pipeline.prepare import prepare, prepare_night
from tests.pipeline.archives import write_photograph


@pytest.fixture
def job(tmp_path: Path) -> LabelJob:
    for name in ("a", "b"):
        write_photograph(tmp_path / "in" / f"{name}.jpg", 40, 48)
    content = {"source": str(tmp_path / "in"), "output": str(tmp_path / "out"), "evaluation": {"void": 11}}
    return LabelJob.model_validate(content)


def test_a_night_knows_what_has_changed_since_the_last_listing(job: LabelJob, tmp_path: Path) -> None:
    prepared, changes = prepare_night(job)
    assert (prepared.pending[0].images, changes.new, changes.changed, changes.gone.num_rows) == (2, 2, 0, 0)
    write_photograph(tmp_path / "in/a.jpg", 40, 50)
    write_photograph(tmp_path / "in/c.jpg", 40, 48)
    (tmp_path / "in/b.jpg").unlink()
    prepared, changes = prepare_night(job)
    assert [shard.images for shard in prepared.pending] == [2, 2]
    assert (changes.new, changes.changed, changes.gone["image_id"].to_pylist()) == (1, 1, ["b.jpg"])


def test_the_evaluation_goes_from_the_job_through_its_plan_into_a_reprocessing(job: LabelJob, tmp_path: Path) -> None:
    prepared = prepare(job)
    recipes.set_current_if_absent(job.output, prepared.recipe.fingerprint)
    (tmp_path / "new.yaml").write_text("{back_end: argmax}")
    again = reprocess.load_job(job.output, str(tmp_path / "new.yaml"), None, None)
    assert again.evaluation == job.evaluation == Evaluation(void=11)
    (shard,) = prepared.pending
    refs = plan.read_shard(job.output, prepared.recipe.fingerprint, shard.run, 0)
    rows = [masks.failed_row(ref.image_id, ref.uri, ref.etag, 0, "ok", "") for ref in refs]
    masks.write_shard(job.output, prepared.recipe.fingerprint, shard.run, 0, rows)
    found = reprocess.prepare(again)
    assert plan.evaluation(job.output, found.recipe.fingerprint, found.runs[0]) == job.evaluation
