"""When a new recipe may take the place of the current one."""

from pydantic import Field

from pipeline.comparison import Comparison
from pipeline.config import Config


class Gate(Config):
    """How much worse, and how different, the masks of a new recipe may be."""

    max_miou_drop: float = Field(0.01, ge=0, le=1, description="mIoU that may be lost, where there is truth.")
    max_churn: float = Field(0.1, ge=0, le=1, description="The share of pixels that may change their class.")
    max_failure_rate: float = Field(
        0.01, ge=0, le=1, description="The share of images that may lose the mask that they had."
    )


def reasons(gate: Gate, found: Comparison) -> list[str]:
    """Why the new recipe may not pass; nothing where it may. What failed before and fails again is no reason."""
    against = []
    if found.compared == 0:
        lacking = "two masks of one size" if found.images else "a row of both recipes"
        against.append(f"no image has {lacking}, so nothing could be compared")
    if found.old_miou is not None and found.miou is not None and found.old_miou - found.miou > gate.max_miou_drop:
        fall = f"mIoU falls from {found.old_miou:.4f} to {found.miou:.4f}"
        against.append(f"{fall}, by more than max_miou_drop = {gate.max_miou_drop}")
    if found.truth_lost and not found.with_truth:
        against.append(f"{found.truth_lost} images could be held against truth before and none can now")
    if found.churn is not None and found.churn > gate.max_churn:
        against.append(
            f"{found.churn:.1%} of the pixels change their class, more than max_churn = {gate.max_churn:.1%}"
        )
    if found.images and found.masks_lost > gate.max_failure_rate * found.images:
        rate = f"{found.masks_lost} of {found.images} images ({found.masks_lost / found.images:.1%})"
        against.append(f"{rate} lose their mask, more than max_failure_rate = {gate.max_failure_rate:.1%}")
    return against
