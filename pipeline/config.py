"""The job file's models. Everything that changes a mask is in the recipe, and only that is in its fingerprint."""

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline import storage
from pipeline.validation import checked

# Raised by one when the same recipe gives other rows than before (masks, or what is measured of them), so that archives
# are labelled anew and no recipe's rows mean two things; SCORES_REVISION when it gives other score maps.
REVISION = 2
SCORES_REVISION = 1


class Config(BaseModel):
    """A frozen part of a job; a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def _without_secret(location: str) -> str:
    """A job is shown on the dashboard and kept with its output, so it must not hold what opens a store."""
    if storage.has_secret(location):
        raise ValueError("it carries credentials; put them into the environment instead")
    return location


Location = Annotated[str, AfterValidator(_without_secret)]


class Source(Config):
    """Where the images are, and their truth if there is any."""

    location: Location = Field(description="A folder, list, .tar or .parquet, local or at any fsspec URL.")
    layout: Literal["auto", "folder", "voc", "list", "webdataset", "parquet"] = Field(
        "auto", description="What the location holds; auto: it is told by its name and its folders."
    )
    split: str | None = Field(None, description="VOC layout: a name in ImageSets/Segmentation, such as val.")
    truth: Location | None = Field(
        None, description="A folder of index masks, paired with the images by path without suffix."
    )
    uri_column: str = Field("uri", description="List: the column of locations.")
    image_column: str = Field("image", description="Parquet: the column of encoded images.")
    truth_column: str = Field("truth", description="List and Parquet: the column of truth.")

    @field_validator("location")
    @classmethod
    def _not_empty(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("a folder, list, .tar, .parquet or URL is needed")
        return value


class Inference(Config):
    """How often a photograph goes through the network; what it gives is averaged."""

    scales: tuple[Annotated[float, Field(gt=0, le=4)], ...] = Field(
        (1.0,), min_length=1, description="Scores at these multiples of the size that the network is used to."
    )
    flip: bool = Field(False, description="Scores the mirror image too.")
    window: int | None = Field(
        None, ge=64, description="Scores larger photographs in overlapping windows of so many pixels a side."
    )
    overlap: float = Field(0.25, ge=0, le=0.9, description="The share of a window that the next one sees too.")


class FrontEnd(Inference):
    """The front end: image -> class scores."""

    name: str = Field("upernet_lite", description="A module of pipeline.frontends.")
    weights: Location | None = Field(None, description="A safetensors file, or package:NAME; bundled ones if left out.")


class BackEnd(Config):
    """The back end: (image, scores) -> refined probabilities."""

    name: str = Field("densecrf", description="A module of pipeline.backends.")
    parameters: dict[str, Any] = Field(default_factory=dict, description="The back end's own parameters.")

    @model_validator(mode="before")
    @classmethod
    def _with_defaults(cls, value: Any) -> Any:
        from pipeline import backends

        if isinstance(value, str):
            value = {"name": value}
        if isinstance(value, dict):
            name = value.get("name", cls.model_fields["name"].default)
            given = value.get("parameters") or {}
            if isinstance(name, str):
                parameters = checked(backends.parameters(name), given, f"the parameters of back end {name}")
                value = {**value, "name": name, "parameters": parameters.model_dump()}
        return value


class Recipe(Config):
    """Front end + weights + back end + their parameters: all that a mask depends on besides its image."""

    front_end: FrontEnd = Field(FrontEnd(), description="A name, or these keys.")
    back_end: BackEnd = Field(default_factory=lambda: BackEnd.model_validate({}), description="A name, or these keys.")
    max_side: int = Field(
        1024, ge=32, description="Larger images are scored at this longest side; masks keep full size."
    )
    max_pixels: int = Field(100_000_000, ge=1, description="Images with more pixels are rejected, unread.")

    @field_validator("front_end", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    def fingerprint(self, weights_sha256: str) -> str:
        """16 hex digits that change with anything that changes a row; where the weights lie does not count."""
        return _hashed(self._content(weights_sha256) | {"revision": REVISION})

    def scores_fingerprint(self, weights_sha256: str) -> str:
        """16 hex digits that change with anything that changes a score map; the back end has no part in it."""
        content = self._content(weights_sha256)
        del content["back_end"]
        return _hashed(content | {"revision": SCORES_REVISION})

    def _content(self, weights_sha256: str) -> dict[str, Any]:
        content = self.model_dump(mode="json")
        # Scoring once has no keys, as before there were more ways.
        inference = self.front_end.model_dump(mode="json", exclude={"name", "weights"}, exclude_defaults=True)
        content["front_end"] = {"name": self.front_end.name, "weights_sha256": weights_sha256, **inference}
        return content


def _hashed(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


class Evaluation(Config):
    """How masks are held against the truth; has no part in the masks."""

    void: int = Field(255, ge=0, le=255, description="The truth's id for pixels that do not count.")
    boundary_width: int = Field(5, ge=1, description="Half the width of the boundary band, in pixels.")


class Bounds(Config):
    """A number that may change while a run goes on."""

    min: int = Field(1, ge=1, description="As many there are always.")
    max: int | None = Field(None, ge=1, description="As many as the cluster has cores if left out.")

    @model_validator(mode="after")
    def _in_order(self) -> "Bounds":
        if self.max is not None and self.max < self.min:
            raise ValueError(f"max = {self.max} is below min = {self.min}")
        return self


class Scale(Config):
    """What a run may ask of a cluster that scales by demand."""

    cpus: int = Field(0, ge=0, description="Cores; 0: those that are there.")
    gpus: int = Field(0, ge=0, description="GPUs; 0: those that are there.")


class Execution(Config):
    """How the work is spread; has no part in the masks."""

    shard_size: int = Field(500, ge=1, description="Images an output object.")
    front_ends: int | None = Field(
        None, ge=1, description="Front-end actors; one a GPU, or one for eight cores, if left out."
    )
    refiners: Bounds = Field(Bounds(), description="Refiner actors: a number, or {min: 1, max: 32}.")
    scale_to: Scale = Field(Scale(), description="What a cluster that scales by demand may grow to for the run.")
    batch_size: int = Field(8, ge=1, description="Images a front-end call.")
    in_flight_mb: int = Field(256, ge=1, description="Scores and images between the two pools, at most.")
    max_failure_rate: float = Field(
        0.05, ge=0, le=1, description="A run with a larger share of failed images ends red."
    )
    keep_scores: bool = Field(
        False, description="Writes the score maps beside the masks, so that another back end needs no network."
    )

    @field_validator("refiners", mode="before")
    @classmethod
    def _by_number(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return {"min": value, "max": value}
        if not isinstance(value, dict | Bounds):
            raise ValueError("a number from 1 on is needed, or a mapping such as {min: 1, max: 32}")
        return value


class Prices(Config):
    """What resources cost; has no part in the masks. A price that is left out is not counted."""

    core_hour: float | None = Field(None, ge=0, description="Of one processor core at work.")
    gpu_hour: float | None = Field(None, ge=0, description="Of one GPU at work.")
    gb_read: float | None = Field(None, ge=0, description="Of a gigabyte of photographs that is read.")
    gb_written: float | None = Field(None, ge=0, description="Of a gigabyte of masks that is written.")
    currency: str = Field("USD", min_length=1, max_length=8, description="Of all of them; printed beside sums.")


class Floors(Config):
    """The least spread that counts as usual, so that a quiet fortnight does not make every night a shift."""

    images: float = Field(0.1, ge=0, description="A share of the usual number of images.")
    failures: float = Field(0.005, ge=0, description="Of the share of images that fail.")
    confidence: float = Field(0.01, ge=0, description="Of the mean confidence.")
    entropy: float = Field(0.01, ge=0, description="Of the mean entropy.")
    changed: float = Field(0.005, ge=0, description="Of the share of pixels that the field changes.")
    golden_miou: float = Field(0.005, ge=0, description="Of the golden set's mIoU.")
    area: float = Field(0.01, ge=0, description="Of a class's share of an image.")


class Trend(Config):
    """What a night is held against, and what counts as a shift; has no part in the masks."""

    nights: int = Field(14, ge=2, description="The last nights that a night is held against.")
    at_least: int = Field(5, ge=2, description="With fewer nights of the same recipe there are no shifts.")
    threshold: float = Field(5.0, gt=0, description="A shift is further from the median, in spreads.")
    floors: Floors = Field(Floors(), description="The least spread of each measure that counts as usual.")

    @model_validator(mode="after")
    def _can_be_reached(self) -> "Trend":
        if self.at_least > self.nights:
            raise ValueError(f"at_least = {self.at_least} is above nights = {self.nights}, so there would be no shifts")
        return self


class Job(Config):
    """What labelling needs to know, wherever its images come from."""

    output: Location = Field(description="Where masks, plans, recipes and reports go: a folder or URL.")
    recipe: Recipe = Field(default_factory=Recipe, description="All that changes a mask.")
    evaluation: Evaluation = Field(Evaluation(), description="How masks are held against the truth.")
    execution: Execution = Field(Execution(), description="How the work is spread.")
    prices: Prices | None = Field(None, description="What resources cost; no cost is counted if left out.")

    @field_validator("output")
    @classmethod
    def _not_empty(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("an output folder or URL is needed")
        return storage.absolute(value)


class LabelJob(Job):
    """One labelling of a dataset: the whole job file."""

    source: Source = Field(description="The images: a location, or these keys.")
    golden: Source | None = Field(None, description="Images with truth, whose mIoU is followed night by night.")
    trend: Trend = Field(Trend(), description="What a night is held against.")

    @field_validator("source", "golden", mode="before")
    @classmethod
    def _by_location(cls, value: Any) -> Any:
        return {"location": value} if isinstance(value, str) else value
