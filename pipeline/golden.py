"""The golden set: images with truth that every recipe is held against, night after night.

OUT/golden/     its own output, laid out as any other
"""

from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import masks, plan, recipes, storage
from pipeline.config import LabelJob
from pipeline.metrics import Counts
from pipeline.sources import list_images
from pipeline.tally import match


class Golden(NamedTuple):
    """A recipe on the golden set."""

    miou: float | None
    classes: int


def golden_job(job: LabelJob) -> LabelJob | None:
    """The job that labels the golden set with the job's recipe; None where the job names no such set."""
    if job.golden is None:
        return None
    output = storage.join(job.output, "golden")
    return job.model_copy(update={"source": job.golden, "output": output, "golden": None})


def measure(golden: LabelJob, fingerprint: str) -> Golden:
    """The mIoU over the rows of the images that the set holds now, whichever runs they are of."""
    listing = list_images(golden.source, exclude=golden.output)
    # Rows name locations without what is secret in them.
    public = pa.array([storage.public(uri) for uri in listing["uri"].to_pylist()], pa.string())
    held = plan.row_keys(pa.table({"uri": public, "etag": listing["etag"]}), ("uri", "etag"))
    classes = len(recipes.read_document(golden.output, fingerprint).classes)
    counts = Counts.zero(classes)
    for run in plan.runs(golden.output, fingerprint):
        for rows in masks.read_rows(golden.output, fingerprint, run, ("uri", "etag", "refined", "front", "boundary")):
            there = rows.filter(pc.is_in(plan.row_keys(rows, ("uri", "etag")), value_set=held))
            counts += Counts(*match(there, classes)["refined"].pixels.sum(1))
    return Golden(counts.miou, counts.classes)
