"""The engines of the dense CRF side by side:  python -m tests.benchmarks.densecrf ../shared [IMAGES]

Seconds are CPU seconds of one thread, so that waiting for a busy core does not count; set-up and unary are in them.
pydensecrf runs on all labels, as its users run it. All variants see the same scores of an image, one after the other.
"""

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from pipeline import images, metrics
from pipeline.backends import Refined, densecrf
from pipeline.backends.lattice import reference
from pipeline.backends.lattice.parameters import Parameters
from pipeline.metrics import Counts
from pipeline.scores import full_logits, softmax
from pipeline.weights import open_front_end, read_location

VARIANTS = {
    "default": {},
    "settled_above 0": {"settled_above": 0.0},
    "settled_above 0, spatial_kernel lattice": {"settled_above": 0.0, "spatial_kernel": "lattice"},
    "longest_step 1": {"longest_step": 1.0},
    "keep_label_above 0": {"keep_label_above": 0.0},
    "stop_when_unchanged 0.005": {"stop_when_unchanged": 0.005},
    "exact": {"exact": True},
}
CAMVID_WEIGHTS = "package:upernet_efficientnet_lite0_camvid11.safetensors"
SETS = {  # of the papers, see the parameters' table in docs/guide.md
    "67 / 3 / 4 + 1 / 3 (default)": {},
    "DeepLab v1: 50 / 3 / 5 + 3 / 3, after": {
        "bilateral_xy_std": 50.0, "bilateral_weight": 5.0, "spatial_std": 3.0, "normalization": "after",
    },
    "DeconvNet: 20 / 3 / 5 + 3 / 3": {"bilateral_xy_std": 20.0, "bilateral_weight": 5.0, "spatial_std": 3.0},
    "G-CRF: 31 / 4 / 3 + 1 / 3": {"bilateral_xy_std": 31.0, "bilateral_rgb_std": 4.0, "bilateral_weight": 3.0},
    "CRF-as-RNN: 160 / 3 / 5 + 3 / 3, after": {
        "bilateral_xy_std": 160.0, "bilateral_weight": 5.0, "spatial_std": 3.0, "normalization": "after",
    },
    "pydensecrf README: 80 / 13 / 10 + 3 / 3, 5 iterations": {
        "bilateral_xy_std": 80.0, "bilateral_rgb_std": 13.0, "bilateral_weight": 10.0, "spatial_std": 3.0,
        "iterations": 5,
    },
}  # fmt: skip


class Case(NamedTuple):
    """A photograph uint8 [H, W, 3], class probabilities float32 [C, H, W], truth uint8 [H, W] and its void id."""

    rgb: np.ndarray
    probabilities: np.ndarray
    truth: np.ndarray
    void: int


def main(shared: Path, limit: int | None) -> None:
    """Both data sets by variant, then sizes, parameter sets and memory on a few images of VOC."""
    results: dict[str, Any] = {}
    for name, cases in {"VOC val": voc_cases(shared, limit), "CamVid test": camvid_cases(shared, limit)}.items():
        results[name] = compare(name, cases)
    few = list(voc_cases(shared, 5))
    results["sizes"] = by_size(few)
    results["parameters"] = by_parameters(few)
    results["memory"] = memory(list(voc_cases(shared, 8)))
    print(json.dumps(results))


def voc_cases(shared: Path, limit: int | None) -> Iterator[Case]:
    """VOC val with the scores of the DeepLab v3 weights."""
    voc = shared / "data" / "voc"
    weights = str(shared / "weights" / "deeplabv3_mobilenetv2_x0.5_voc21.safetensors")
    ids = (voc / "ImageSets" / "Segmentation" / "val.txt").read_text().split()
    pairs = [(voc / "JPEGImages" / f"{one}.jpg", voc / "SegmentationClass" / f"{one}.png") for one in ids]
    yield from _scored("deeplab_v3_mobilenet_v2", weights, pairs, 255, limit)


def camvid_cases(shared: Path, limit: int | None) -> Iterator[Case]:
    """CamVid test with the scores of the weights in the package."""
    camvid = shared / "data" / "camvid"
    pairs = [(file, camvid / "testannot" / f"{file.stem}.png") for file in sorted((camvid / "test").glob("*.jpg"))]
    yield from _scored("upernet_lite", CAMVID_WEIGHTS, pairs, 11, limit)


def _scored(
    front_end: str, weights: str, pairs: list[tuple[Path, Path]], void: int, limit: int | None
) -> Iterator[Case]:
    import torch

    torch.set_num_threads(1)
    network = open_front_end(front_end, read_location(weights))
    for photograph, mask in pairs[:: max(1, len(pairs) // limit) if limit else 1][:limit]:
        rgb = images.decode(photograph.read_bytes(), 10**8, 10**5).rgb
        truth = images.decode_mask(mask.read_bytes())
        yield Case(rgb, softmax(full_logits(network.score([rgb])[0])), truth, void)


def compare(name: str, cases: Iterator[Case]) -> dict[str, dict[str, float]]:
    """Each variant against pydensecrf on the same scores: the table and its numbers."""
    seconds: dict[str, list[float]] = {variant: [] for variant in ("pydensecrf", *VARIANTS)}
    agreement: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    counts: dict[str, Counts] = {}
    kept = []
    for number, case in enumerate(cases, 1):
        classes = len(case.probabilities)
        expected = _labels(reference.mean_field, case, Parameters(), seconds["pydensecrf"])
        found = {"raw": case.probabilities.argmax(0), "pydensecrf": expected}
        for variant, dials in VARIANTS.items():
            found[variant] = _labels(densecrf.refine, case, Parameters(**dials), seconds[variant])
            agreement[variant].append(float((found[variant] == expected).mean()))
        where = case.truth != case.void
        for variant, labels in found.items():
            new = metrics.count(case.truth, labels.astype(np.uint8), classes, where)
            counts[variant] = counts[variant] + new if variant in counts else new
        kept.append(len(densecrf.kept_labels(case.probabilities, Parameters().keep_label_above)))
        print(f"\r{name}: {number} images", end="", file=sys.stderr, flush=True)
    theirs = np.array(seconds["pydensecrf"])
    print(f"\n{name}, {len(theirs)} images, {np.mean(kept):.2f} of {classes} labels above 0.05 on average; raw mIoU "
          f"{counts['raw'].miou:.4f}\n")  # fmt: skip
    print("| engine | seconds, median | worst | x pydensecrf, median | worst | labels equal, mean | worst | mIoU |")
    print("|---|---|---|---|---|---|---|---|")
    print(
        f"| pydensecrf | {np.median(theirs):.3f} | {theirs.max():.3f} | 1 | 1 | | | {counts['pydensecrf'].miou:.4f} |"
    )
    rows = {}
    for variant in VARIANTS:
        own, same = np.array(seconds[variant]), np.array(agreement[variant])
        ratio = theirs / own
        rows[variant] = {
            "seconds": float(np.median(own)), "ratio": float(np.median(ratio)), "worst_ratio": float(ratio.min()),
            "agreement": float(same.mean()), "worst_agreement": float(same.min()),
            "miou": counts[variant].miou, "miou_difference": counts[variant].miou - counts["pydensecrf"].miou,
        }  # fmt: skip
        print(
            f"| {variant} | {np.median(own):.3f} | {own.max():.3f} | {np.median(ratio):.1f} | {ratio.min():.1f} "
            f"| {same.mean():.3%} | {same.min():.2%} | {counts[variant].miou:.4f} |"
        )
    return rows


def by_size(cases: list[Case]) -> list[dict[str, Any]]:
    """The same photographs smaller and larger, with few labels and with all."""
    rows = []
    print("\n| size | labels | pydensecrf, s | cpu, settled_above 0, s | ratio |\n|---|---|---|---|---|")
    for scale in (0.5, 1.0, 2.0):
        scaled = [_scaled(case, scale) for case in cases]
        for labels in (2, 5, 21):
            times: list[list[float]] = [[], []]
            for case in scaled:
                few = _first_labels(case, labels)
                _labels(reference.mean_field, few, Parameters(), times[0])
                dials = Parameters(settled_above=0.0, keep_label_above=0.0)
                _labels(densecrf.refine, few, dials, times[1])
            theirs, own = (float(np.median(one)) for one in times)
            height, width = scaled[0].truth.shape
            rows.append({"height": height, "width": width, "labels": labels, "pydensecrf": theirs, "cpu": own})
            print(f"| {width}x{height} | {labels} | {theirs:.3f} | {own:.3f} | {theirs / own:.1f} |")
    return rows


def by_parameters(cases: list[Case]) -> list[dict[str, Any]]:
    """The papers' parameter sets, default dials."""
    rows = []
    print("\n| parameters | pydensecrf, s | cpu, s | ratio | labels equal, worst |\n|---|---|---|---|---|")
    for name, parameters in SETS.items():
        times: list[list[float]] = [[], []]
        same = []
        for case in cases:
            expected = _labels(reference.mean_field, case, Parameters(**parameters), times[0])
            same.append(float((_labels(densecrf.refine, case, Parameters(**parameters), times[1]) == expected).mean()))
        theirs, own = (float(np.median(one)) for one in times)
        rows.append({"parameters": name, "pydensecrf": theirs, "cpu": own, "worst_agreement": min(same)})
        print(f"| {name} | {theirs:.3f} | {own:.3f} | {theirs / own:.1f} | {min(same):.2%} |")
    return rows


def memory(cases: list[Case]) -> dict[str, dict[str, float]]:
    """Bytes a pixel that a process gains at its peak, each time in a process of its own."""
    rows = {}
    print(f"\n| engine | peak, bytes a pixel, median of {len(cases)} images | worst |\n|---|---|---|")
    for variant, dials in {"pydensecrf": {"engine": "pydensecrf", "exact": True}, **VARIANTS}.items():
        peaks = [_peak_of(case, dials) for case in cases]
        rows[variant] = {"median": float(np.median(peaks)), "worst": max(peaks)}
        print(f"| {variant} | {rows[variant]['median']:.0f} | {rows[variant]['worst']:.0f} |")
    return rows


def _peak_of(case: Case, dials: dict[str, Any]) -> float:
    packed = io.BytesIO()
    np.savez(packed, rgb=case.rgb, probabilities=case.probabilities)
    command = [sys.executable, "-m", "tests.benchmarks.densecrf", "--peak", json.dumps(dials)]
    return float(subprocess.run(command, input=packed.getvalue(), capture_output=True, check=True).stdout)


def peak(dials: dict[str, Any]) -> None:
    """In the child: what one refinement adds to the process's largest resident set, by pixel."""
    arrays = np.load(io.BytesIO(sys.stdin.buffer.read()))
    rgb, probabilities = arrays["rgb"], arrays["probabilities"]
    parameters = Parameters(**dials)
    densecrf.refine(rgb[:64, :64], probabilities[:, :64, :64], parameters)  # imports and code pages
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    densecrf.refine(rgb, probabilities, parameters)
    print((_status("VmHWM") - before) * 1024 / rgb[..., 0].size)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def _labels(refine: Any, case: Case, parameters: Parameters, seconds: list[float]) -> np.ndarray:
    started = time.thread_time()
    refined = refine(case.rgb, case.probabilities, parameters)
    seconds.append(time.thread_time() - started)
    return refined.labels() if isinstance(refined, Refined) else refined.argmax(0)


def _scaled(case: Case, scale: float) -> Case:
    size = round(case.rgb.shape[1] * scale), round(case.rgb.shape[0] * scale)
    rgb = np.asarray(Image.fromarray(case.rgb).resize(size, Image.Resampling.BILINEAR))
    planes = [np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BILINEAR)) for one in case.probabilities]
    return Case(rgb, np.stack(planes), np.zeros(size[::-1], np.uint8), case.void)


def _first_labels(case: Case, count: int) -> Case:
    """Only the most probable labels of the image."""
    order = np.argsort(-case.probabilities.mean((1, 2)))[:count]
    chosen = np.ascontiguousarray(case.probabilities[order])
    return case._replace(probabilities=chosen / chosen.sum(0))


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    if sys.argv[1] == "--peak":
        peak(json.loads(sys.argv[2]))
    else:
        main(Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else None)
