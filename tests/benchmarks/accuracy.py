"""mIoU of both models on VOC val, raw and refined:  python -m tests.benchmarks.accuracy ../shared"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from pipeline import masks
from pipeline.metrics import Counts
from tests.benchmarks.runs import machine, run

MODELS = {"upernet_lite": None, "deeplab_v3_mobilenet_v2": "deeplabv3_mobilenetv2_x0.5_voc21.safetensors"}


def main(shared: Path) -> None:
    """One labelling a model; its rows hold the counts before and after the field."""
    voc = shared / "data" / "voc"
    ids = (voc / "ImageSets" / "Segmentation" / "val.txt").read_text().split()
    subsets = {"all": ids, "every third of the first 180": ids[:180:3]}
    print(f"{machine()}\n\n| model | images | classes | raw | DenseCRF | pixel accuracy, raw | DenseCRF |")
    print("|---|---|---|---|---|---|---|")
    results = []
    for name, weights in MODELS.items():
        with tempfile.TemporaryDirectory() as output:
            command = [str(Path(sys.executable).with_name("densemask")), "label", str(voc), output, "--json"]
            command += ["--split", "val", "--front-end", name]
            command += ["--weights", str(shared / "weights" / weights)] if weights else []
            outcome = run(command).outcome
            counts = _counts(output, outcome["recipe"], outcome["run"])
        for subset, chosen in subsets.items():
            raw, refined = (sum((counts[one][part] for one in chosen), Counts.zero(21)) for part in (0, 1))
            results.append({"model": name, "subset": subset, "raw": raw.miou, "densecrf": refined.miou})
            print(
                f"| {name} | {len(chosen)} ({subset}) | {raw.classes} | {raw.miou:.4f} | {refined.miou:.4f} "
                f"| {raw.pixel_accuracy:.4f} | {refined.pixel_accuracy:.4f} |"
            )
    print(json.dumps(results))


def _counts(output: str, fingerprint: str, run_name: str) -> dict[str, tuple[Counts, Counts]]:
    """(raw, refined) counts by image."""
    found = {}
    for table in masks.read_rows(output, fingerprint, run_name, ["image_id", "front", "refined"]):
        for row in table.to_pylist():
            parts = (row["front"], row["refined"])
            raw, refined = (Counts(*(np.array(part[name]) for name in ("tp", "fp", "fn"))) for part in parts)
            found[row["image_id"]] = raw, refined
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
