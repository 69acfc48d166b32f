"""The SegNet paper's networks, trained by the command on CamVid:  python -m tests.benchmarks.camvid ../shared

Each is trained at a small budget, labels the 233 test images with and without the dense CRF, and is held against the
truth: global accuracy (G), class accuracy (C), mIoU and boundary F (BF), beside Table 3 of Badrinarayanan et al. 2017.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import yaml
from PIL import Image

from pipeline import images, metrics
from pipeline.metrics import Counts
from tests.benchmarks.runs import machine, run

VOID, CLASSES = 11, 11
DENSEMASK = str(Path(sys.executable).with_name("densemask"))
LIGHT = {"trunk": "efficientnet_lite0"}


class Candidate(NamedTuple):
    """A network as it is trained here, and the paper's G / C / mIoU / BF for its like."""

    front_end: str
    architecture: dict[str, Any]
    init: str | None
    size: int
    paper: str


CANDIDATES = {
    "SegNet": Candidate("segnet", {"width": 0.125}, None, 256, "90.40 / 71.20 / 60.10 / 46.84"),
    "SegNet-Basic": Candidate("segnet_basic", {"width": 0.25}, None, 256, "–"),
    "FCN-8s": Candidate("fcn8s", LIGHT, "imagenet", 256, "83.27 / 59.56 / 49.83 / 27.99"),
    "DeconvNet": Candidate("deconvnet", {"width": 0.0625, "windows": []}, None, 224, "89.58 / 70.24 / 59.77 / 52.23"),
    "DeepLab v1": Candidate("deeplab_v1", LIGHT, "imagenet", 256, "88.20 / 62.53 / 53.88 / 32.77"),
    "DeepLab v2": Candidate("deeplab_v2", LIGHT, "imagenet", 256, "–"),
    "DeepLab v3": Candidate("deeplab_v3", LIGHT | {"output_stride": 16}, "imagenet", 256, "–"),
}


class Measured(NamedTuple):
    """Percentages of one labelling of the test set."""

    g: float
    c: float
    miou: float
    bf: float

    def __str__(self) -> str:
        return " / ".join(f"{100 * value:.2f}" for value in self)


def main() -> None:
    """One training and two labellings a network."""
    parser = argparse.ArgumentParser()
    parser.add_argument("shared", type=Path)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--networks", nargs="*", default=list(CANDIDATES), choices=list(CANDIDATES))
    parser.add_argument("--keep", type=Path, help="a folder in which trainings stay and go on")
    arguments = parser.parse_args()
    camvid = arguments.shared.resolve() / "data" / "camvid"
    print(f"{machine()}\n\n| network | trained | raw: G / C / mIoU / BF | DenseCRF | Table 3 |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.networks:
            folder = (arguments.keep or Path(temporary)).resolve() / name.replace(" ", "-")
            trained = train(CANDIDATES[name], camvid, folder, arguments.epochs)
            raw, refined = (
                measure(CANDIDATES[name], camvid, folder, trained["weights"], back_end)
                for back_end in ("argmax", "densecrf")
            )
            one = CANDIDATES[name]
            how = f"{one.architecture}, {trained['epochs']} epochs of {one.size}², {trained['seconds'] / 60:.0f} min"
            print(f"| {name} | {how} | {raw} | {refined} | {one.paper} |", flush=True)


def train(one: Candidate, camvid: Path, folder: Path, epochs: int) -> dict[str, Any]:
    """Trains by the command; its last line."""
    folder.mkdir(parents=True, exist_ok=True)
    job: dict[str, Any] = {
        "source": {"location": str(camvid / "train"), "truth": str(camvid / "trainannot")},
        "output": str(folder / "training"),
        "front_end": one.front_end,
        "architecture": one.architecture,
        "init": one.init,
        "classes": "CamVid-11",
        "void": VOID,
        "size": one.size,
        "epochs": epochs,
        "keep": "last",
        "validate_every": epochs,
        "optimisation": {"class_weights": "median_frequency", "class_weight_power": 0.5},
    }
    file = folder / "train.yaml"
    file.write_text(yaml.safe_dump(job))
    return run([DENSEMASK, "train", "--job", str(file), "--json"]).outcome


def measure(one: Candidate, camvid: Path, folder: Path, weights: str, back_end: str) -> Measured:
    """Labels the test set by the command and holds its masks against the truth."""
    output = folder / back_end
    job = {
        "source": {"location": str(camvid / "test"), "truth": str(camvid / "testannot")},
        "output": str(output),
        "recipe": {"front_end": {"name": one.front_end, "weights": weights}, "back_end": back_end},
        "evaluation": {"void": VOID},
    }
    file = folder / f"{back_end}.yaml"
    file.write_text(yaml.safe_dump(job))
    run([DENSEMASK, "label", "--job", str(file), "--json"])
    counts, boundaries = Counts.zero(CLASSES), []
    for shard in sorted((output / "masks").rglob("*.parquet")):
        for row in pq.read_table(shard, columns=["image_id", "mask"]).to_pylist():
            labels = images.decode_mask(row["mask"]["bytes"])
            truth = np.asarray(Image.open(camvid / "testannot" / Path(row["image_id"]).with_suffix(".png").name))
            counts += metrics.count(truth, labels, CLASSES, truth != VOID)
            boundaries.append(np.nanmean(metrics.boundary_f(truth, labels, CLASSES, VOID)))
    assert counts.pixel_accuracy is not None and counts.class_accuracy is not None and counts.miou is not None
    return Measured(counts.pixel_accuracy, counts.class_accuracy, counts.miou, float(np.mean(boundaries)))


if __name__ == "__main__":
    main()
