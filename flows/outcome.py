"""What a labelling command has done: its last line, green or red."""

from pydantic import BaseModel, ConfigDict

from pipeline.cost import Cost
from pipeline.errors import RunError
from pipeline.prepare import Prepared


class Outcome(BaseModel):
    """What a command that labels has done. Rates are of this command; mIoU and cost are of its newest run as a
    whole."""

    model_config = ConfigDict(frozen=True)

    recipe: str
    run: str | None
    images: int
    ok: int
    failed: int
    shards: int
    seconds: float
    images_per_s: float | None
    steady_images_per_s: float | None
    miou: float | None
    classes: int | None
    report: str | None
    cost: Cost | None


class RedRun(RunError):
    """A run that ended red, with what it has done all the same."""

    def __init__(self, message: str, outcome: Outcome) -> None:
        super().__init__(message)
        self.outcome = outcome


class TooManyFailed(RedRun):
    """Every row is there, but too many of a run's images have failed; a second try would change nothing."""


def nothing_new(prepared: Prepared, seconds: float) -> Outcome:
    """The outcome where every image has its row."""
    return Outcome(
        recipe=prepared.recipe.fingerprint, run=prepared.newest, images=0, ok=0, failed=0, shards=0,
        seconds=round(seconds, 3), images_per_s=None, steady_images_per_s=None, miou=None, classes=None, report=None,
        cost=None,
    )  # fmt: skip
