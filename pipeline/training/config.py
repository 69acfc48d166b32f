"""The training job's model."""

from typing import Any, Literal

from pydantic import Field, field_validator

from pipeline import storage
from pipeline.config import Config, Location, Source


class Augmentation(Config):
    """How a training photograph is varied."""

    scale: tuple[float, float] = Field((0.5, 2.0), description="The least and the largest random scale.")
    flip: bool = Field(True, description="Half of them are mirrored.")
    colour: float = Field(0.3, ge=0, le=1, description="Strength of the jitter of brightness, contrast, saturation.")
    paste: float = Field(0.0, ge=0, le=1, description="Share of photographs that get a rare object pasted in.")
    mix: float = Field(0.0, ge=0, le=1, description="Share of photographs that are half covered by another (CutMix).")


class Optimisation(Config):
    """How the weights move."""

    optimiser: Literal["adamw", "sgd"] = Field("adamw", description="AdamW, or SGD with momentum.")
    lr: float = Field(1e-3, gt=0, description="The largest learning rate.")
    init_lr: float = Field(0.3, ge=0, le=1, description="What tensors taken from --init learn at, as a share of lr.")
    freeze: tuple[str, ...] = Field((), description="Prefixes of tensors that do not learn, such as trunk.stem.")
    weight_decay: float = Field(0.01, ge=0, description="Pull towards zero.")
    schedule: Literal["poly", "cosine"] = Field("poly", description="How the learning rate falls.")
    warmup: float = Field(0.03, ge=0, lt=1, description="Share of the steps in which the learning rate rises.")
    clip: float = Field(5.0, gt=0, description="The gradient's largest norm.")
    ema: float = Field(0.995, ge=0, lt=1, description="Decay of the weights' moving average, which is the result.")
    class_weights: Literal["none", "median_frequency"] = Field(
        "none", description="median_frequency: rare classes weigh more in the loss."
    )
    class_weight_power: float = Field(1.0, gt=0, le=1, description="The class weights' exponent; a smaller is milder.")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: whichever is faster here.")


class Teacher(Config):
    """A trained network of the same classes, whose scores are learned beside the truth (Hinton et al. 2015)."""

    front_end: str = Field(description="A module of pipeline.frontends.")
    weights: Location = Field(description="Its native weights.")
    share: float = Field(0.5, gt=0, le=1, description="Its share of the loss.")
    scale: float = Field(1.0, gt=0, le=4, description="It sees the crops at this multiple of their size.")


class TrainJob(Config):
    """One training: the whole job file."""

    source: Source = Field(description="A labelled dataset: a location, or these keys.")
    output: Location = Field(description="Where weights, card, curves and checkpoints go.")
    val: Source | None = Field(None, description="The validation set; a held-out share of the source if left out.")
    val_share: float = Field(0.1, gt=0, lt=1, description="The share that is held out.")
    front_end: str = Field("upernet_lite", description="A module of pipeline.frontends.")
    architecture: dict[str, Any] = Field(default_factory=dict, description="The front end's Architecture, in part.")
    preprocessing: dict[str, Any] = Field(default_factory=dict, description="The front end's Preprocessing, in part.")
    classes: str | None = Field(None, description="A class set, a file with a name a line, or a count.")
    void: int = Field(255, ge=0, le=255, description="The truth's id for pixels that do not count.")
    init: Location | None = Field(None, description="Native weights to start from, or imagenet.")
    teacher: Teacher | None = Field(None, description="A network to learn from.")
    size: int = Field(320, ge=32, le=4096, description="The side of the crops that are trained on, in pixels.")
    batch: int = Field(8, ge=1, description="Crops a step.")
    epochs: int = Field(30, ge=1, description="Times through the dataset.")
    sample_rare: bool = Field(True, description="Draw photographs with rare classes more often.")
    augmentation: Augmentation = Field(Augmentation(), description="How photographs are varied.")
    optimisation: Optimisation = Field(Optimisation(), description="How the weights move.")
    validate_every: int = Field(1, ge=1, description="Epochs between two looks at the validation set.")
    patience: int | None = Field(None, ge=1, description="Stop after so many validations without a better mIoU.")
    keep: Literal["best", "last"] = Field("best", description="Which weights are the result, by validation mIoU.")
    checkpoint_minutes: float = Field(5.0, gt=0, description="Between two checkpoints.")
    max_failure_rate: float = Field(0.05, ge=0, le=1, description="Unreadable photographs are left out up to this.")
    half: bool = Field(False, description="Write the weights as float16.")
    seed: int = Field(0, ge=0, description="Of all that is random.")
    threads: int | None = Field(None, ge=1, description="Cores to use; all if left out.")
    device: str | None = Field(None, description="cpu or cuda; cuda where there is one if left out.")

    @field_validator("source", "val", mode="before")
    @classmethod
    def _by_location(cls, value: Any) -> Any:
        return {"location": value} if isinstance(value, str) else value

    @field_validator("output")
    @classmethod
    def _not_empty(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("an output folder or URL is needed")
        return storage.absolute(value)
