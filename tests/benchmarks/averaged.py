"""The mean of what one training's checkpoints average:  python -m tests.benchmarks.averaged JOB.yaml CHECKPOINT...

Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization". Measured on the job's
validation set and written beside its weights, as averaged.safetensors.
"""

import sys
from pathlib import Path

from safetensors.torch import load_file

from pipeline.job_files import load
from pipeline.training import loop, results
from pipeline.training.config import TrainJob

PREFIX = "ema.module."
NAME = "averaged.safetensors"


def main(job_file: str, checkpoints: list[Path]) -> None:
    """Batch norms' statistics are averaged with the weights."""
    job = load(TrainJob, job_file, {})
    prepared = loop.prepare(job)
    network = prepared.start.network
    states = [load_file(path) for path in checkpoints]
    mean = {name: sum(state[PREFIX + name].float() for state in states) / len(states) for name in network.state_dict()}
    network.load_state_dict(mean)
    counts = loop.validate(network, prepared, job.void, "cpu")
    results.write_weights(job, prepared, network, counts.miou, NAME)
    print(f"mIoU {counts.miou:.4f} over {counts.classes} classes, pixel accuracy {counts.pixel_accuracy:.4f}")
    for name, iou in zip(prepared.classes.names, counts.iou, strict=True):
        print(f"{name}: {iou:.4f}")


if __name__ == "__main__":
    main(sys.argv[1], [Path(argument) for argument in sys.argv[2:]])
