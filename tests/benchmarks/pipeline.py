"""images/s and memory beside the Ray Data baseline and a bare loop, in turn:

python -m tests.benchmarks.pipeline ../shared [RUNS] [IMAGES]
"""

import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from pipeline import label
from pipeline.config import Evaluation, Recipe, Source
from pipeline.sources import ImageRef, list_images, refs
from tests.benchmarks.runs import Run, machine, run
from workers.cluster import WORKER_ENVIRONMENT

FRONT_END = "deeplab_v3_mobilenet_v2"
_process: dict[str, Any] = {}


def main(shared: Path, repeats: int, images: int) -> None:
    """The same images, network, field and cores for all three."""
    voc = shared / "data" / "voc"
    weights = str(shared / "weights" / "deeplabv3_mobilenetv2_x0.5_voc21.safetensors")
    split = voc / "ImageSets" / "Segmentation" / "val.txt"
    runs: dict[str, list[Run]] = {"densemask": [], "Ray Data + pydensecrf": [], "bare loop": []}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            script = str(shared / "bench" / "ray_data_baseline.py")
            command = [sys.executable, script, str(voc), str(split), weights, folder, "--limit", str(images)]
            runs["Ray Data + pydensecrf"].append(run(command))
        with tempfile.TemporaryDirectory() as folder:
            listed = _list(voc, split.read_text().split()[:images], Path(folder))
            runs["bare loop"].append(
                run([sys.executable, "-m", "tests.benchmarks.pipeline", "--bare", listed, weights])
            )
            command = [str(Path(sys.executable).with_name("densemask")), "label", listed, f"{folder}/out"]
            runs["densemask"].append(run([*command, "--front-end", FRONT_END, "--weights", weights, "--json"]))
    print(f"{machine()}; {images} images of voc val, DeepLab v3 MobileNetV2 x0.5, DenseCRF 67/3/4 + 1/3")
    print(f"medians of {repeats} runs in turn\n")
    print("| | steady images/s | images/s with start-up | peak memory of the process tree, MiB | mIoU |")
    print("|---|---|---|---|---|")
    table = {name: _medians(of, images) for name, of in runs.items()}
    for name, row in table.items():
        miou = "" if row["miou"] is None else f"{row['miou']:.4f}"
        print(f"| {name} | {row['steady']:.2f} | {row['whole']:.2f} | {row['peak_mib']:.0f} | {miou} |")
    ratios = {}
    for name in ("Ray Data + pydensecrf", "bare loop"):
        pairs = zip(runs["densemask"], runs[name], strict=True)
        ratios[name] = statistics.median(_steady(ours) / _steady(other) for ours, other in pairs)
        print(f"| steady rate over that of {name}, median of pairs | {ratios[name]:.2f} | | | |")
    print(json.dumps(table | {"ratios": ratios}))


def bare(listed: str, weights: str) -> None:
    """The functions that the actors call, in as many processes as cores, without Ray, Prefect or commits."""
    images = list(refs(list_images(Source(location=listed))))
    os.environ.update(WORKER_ENVIRONMENT)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context, _prepare, (weights,)) as pool:
        ends = sorted(pool.map(_label_one, images))
    print(json.dumps({"steady_images_per_s": (len(ends) - 1) / (ends[-1] - ends[0])}))


def _prepare(weights: str) -> None:
    import torch

    from pipeline.weights import open_front_end

    torch.set_num_threads(1)
    recipe = Recipe.model_validate({"front_end": {"name": FRONT_END, "weights": weights}})
    _process.update(recipe=recipe, front_end=open_front_end(FRONT_END, Path(weights).read_bytes()))


def _label_one(ref: ImageRef) -> float:
    (row,) = label.label_shard([ref], 0, _process["front_end"], _process["recipe"], Evaluation())
    assert row["status"] == "ok"
    return time.monotonic()


def _list(voc: Path, ids: list[str], folder: Path) -> str:
    lines = [f"{voc}/JPEGImages/{one}.jpg,{voc}/SegmentationClass/{one}.png" for one in ids]
    (folder / "list.csv").write_text("\n".join(["uri,truth", *lines]))
    return str(folder / "list.csv")


def _steady(of: Run) -> float:
    return float(of.outcome["steady_images_per_s"])


def _medians(runs: list[Run], images: int) -> dict[str, Any]:
    mious = [one.outcome["miou"] for one in runs if "miou" in one.outcome]
    return {
        "steady": statistics.median(_steady(one) for one in runs),
        "whole": statistics.median(images / one.seconds for one in runs),
        "peak_mib": statistics.median(one.peak_mib for one in runs),
        "miou": statistics.median(mious) if mious else None,
    }


if __name__ == "__main__":
    if sys.argv[1] == "--bare":
        bare(*sys.argv[2:])
    else:
        numbers = [int(value) for value in sys.argv[2:]]
        main(Path(sys.argv[1]).resolve(), *(numbers + [3, 64][len(numbers) :]))
