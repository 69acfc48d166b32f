"""What a labelling command has done: its last line, green or red."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from pipeline import storage
from pipeline.cost import Cost
from pipeline.errors import DensemaskError, RunError
from pipeline.prepare import Prepared


class Done(BaseModel):
    """What a command has done that gives images rows of a recipe: its own counts and rates."""

    model_config = ConfigDict(frozen=True)

    recipe: str
    images: int = 0
    ok: int = 0
    failed: int = 0
    shards: int = 0
    seconds: float
    images_per_s: float | None = None


class Outcome(Done):
    """What a labelling has done. Its mIoU and cost are of its newest run as a whole."""

    run: str | None
    steady_images_per_s: float | None = None
    miou: float | None = None
    classes: int | None = None
    report: str | None = None
    cost: Cost | None = None


def missing_rows(errors: Sequence[BaseException], committed: int) -> str:
    """What to say of shards that could not be committed."""
    kinds = list(dict.fromkeys(str(error) if isinstance(error, DensemaskError) else repr(error) for error in errors))
    message = f"{len(errors)} of {len(errors) + committed} shards are not committed: {'; '.join(kinds[:3])}"
    return f"{storage.scrubbed(message)}. Run the same command again to continue."


class RedRun(RunError):
    """A run that ended red, with what it has done all the same."""

    def __init__(self, message: str, outcome: Done) -> None:
        super().__init__(message)
        self.outcome = outcome


class TooManyFailed(RedRun):
    """Every row is there, but too many of a run's images have failed; a second try would change nothing."""


def nothing_new(prepared: Prepared, seconds: float) -> Outcome:
    """The outcome where every image has its row."""
    return Outcome(recipe=prepared.recipe.fingerprint, run=prepared.newest, seconds=round(seconds, 3))
