"""images/s and memory beside the Ray Data baseline, in turn:  python -m tests.benchmarks.pipeline ../shared [RUNS]"""

import json
import statistics
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.runs import Run, machine, run

IMAGES = 32


def main(shared: Path, repeats: int) -> None:
    """The same images, network, field and cores for both."""
    voc = shared / "data" / "voc"
    weights = str(shared / "weights" / "deeplabv3_mobilenetv2_x0.5_voc21.safetensors")
    split = voc / "ImageSets" / "Segmentation" / "val.txt"
    ours: list[Run] = []
    theirs: list[Run] = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            script = str(shared / "bench" / "ray_data_baseline.py")
            command = [sys.executable, script, str(voc), str(split), weights, folder, "--limit", str(IMAGES)]
            theirs.append(run(command))
        with tempfile.TemporaryDirectory() as folder:
            ours.append(run(_ours(voc, split.read_text().split()[:IMAGES], weights, Path(folder))))
    print(f"{machine()}; {IMAGES} images of voc val, DeepLab v3 MobileNetV2 x0.5, DenseCRF 67/3/4 + 1/3, 10 iterations")
    print(f"medians of {repeats} runs in turn\n")
    print("| | steady images/s | images/s with start-up | peak memory of the process tree, MiB | mIoU |")
    print("|---|---|---|---|---|")
    table = {"densemask": _medians(ours), "Ray Data + pydensecrf": _medians(theirs)}
    for name, row in table.items():
        print(f"| {name} | {row['steady']:.2f} | {row['whole']:.2f} | {row['peak_mib']:.0f} | {row['miou']:.4f} |")
    ratio = statistics.median(
        one.outcome["steady_images_per_s"] / other.outcome["steady_images_per_s"]
        for one, other in zip(ours, theirs, strict=True)
    )
    print(f"| ratio of a pair's steady rates, median | {ratio:.2f} | | | |")
    print(json.dumps(table | {"ratio": ratio}))


def _ours(voc: Path, ids: list[str], weights: str, folder: Path) -> list[str]:
    lines = [f"{voc}/JPEGImages/{one}.jpg,{voc}/SegmentationClass/{one}.png" for one in ids]
    (folder / "list.csv").write_text("\n".join(["uri,truth", *lines]))
    command = [str(Path(sys.executable).with_name("densemask")), "label", str(folder / "list.csv"), str(folder / "out")]
    return [*command, "--front-end", "deeplab_v3_mobilenet_v2", "--weights", weights, "--json"]


def _medians(runs: list[Run]) -> dict[str, float]:
    return {
        "steady": statistics.median(one.outcome["steady_images_per_s"] for one in runs),
        "whole": statistics.median(IMAGES / one.seconds for one in runs),
        "peak_mib": statistics.median(one.peak_mib for one in runs),
        "miou": statistics.median(one.outcome["miou"] for one in runs),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else 3)
