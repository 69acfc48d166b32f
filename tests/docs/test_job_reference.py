"""docs/job.md says what the models say."""

from pydantic import BaseModel

from pipeline.config import LabelJob
from pipeline.reprocess import ReprocessJob
from pipeline.training.config import TrainJob
from tests.docs import reference


def test_the_reference_is_what_the_models_say() -> None:
    assert reference.FILE.read_text() == reference.text(), "make docs writes it anew"


def test_every_key_of_every_job_is_described() -> None:
    models: list[type[BaseModel]] = [LabelJob, ReprocessJob, TrainJob]
    models += [part.model for model in list(models) for part in reference.parts(model, "", {})]
    bare = [f"{model.__name__}.{name}" for model in models for name, field in model.model_fields.items()
            if not field.description]  # fmt: skip
    assert len(models) > 15 and not bare


def test_a_changed_default_or_range_changes_the_reference() -> None:
    text = reference.text()
    assert "| `max_side` | whole number | ≥ 32 | `1024` |" in text
    assert "| `longest_step` | number | ≥ 1, < 2 | `1.75` |" in text
    assert "| `optimiser` | `adamw`, `sgd` |  | `adamw` |" in text
