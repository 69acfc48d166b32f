"""How the pools scale and what the driver costs, with stages that only sleep:

python -m tests.benchmarks.scale [--score-ms 15] [--refine-ms 120]      images/s from 1 to 32 refiners
python -m tests.benchmarks.scale --control-plane                        memory and time of the driver
"""

import argparse
import json
import math
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import ray

from pipeline import plan
from pipeline.config import Evaluation, Recipe
from pipeline.label import Scored
from pipeline.masks import failed_row
from pipeline.plan import Shard
from pipeline.scores import ScoreMap
from pipeline.sources import REF_SCHEMA, ImageRef
from tests.benchmarks.runs import machine
from workers.dispatch import Dispatcher
from workers.frontend import FrontEndWorker, ScoredFacts
from workers.metrics import Labels
from workers.pool import Pool
from workers.refiner import RefinerWorker, Target
from workers.rules import Sizes
from workers.running import actor

REFINERS = (1, 2, 4, 8, 16, 32)
LOGICAL_CPUS = 40
OPEN_SHARDS = 8
RECIPE = "0123456789abcdef"
PLOT = Path(__file__).resolve().parents[2] / "docs" / "images" / "scale.svg"


class SleepingFrontEnd(FrontEndWorker):
    """Sleeps as long as a network would take, a batch at a time."""

    def __init__(self, milliseconds: float) -> None:
        self._seconds, self._network = milliseconds / 1000, threading.Lock()
        self._scored = Scored(b"", ScoreMap(np.zeros((1, 1, 1), np.float16), ()), milliseconds)

    def score(self, refs: list[ImageRef]) -> tuple[Any, ...]:
        if self._seconds:
            with self._network:
                time.sleep(self._seconds * len(refs))
        return ([ScoredFacts(self._scored.nbytes)] * len(refs), *[self._scored] * len(refs))


class SleepingRefiner(RefinerWorker):
    """Sleeps as long as a field would take; its rows have the size of real ones."""

    def __init__(self, target: Target, milliseconds: float) -> None:
        super().__init__(Recipe(), Evaluation(), target, Labels())
        self._seconds = milliseconds / 1000

    def refine(self, images: list[tuple[ImageRef, int]], *scored: Scored) -> tuple[Any, ...]:
        rows = []
        for (ref, shard), scores in zip(images, scored, strict=True):
            if self._seconds:
                time.sleep(self._seconds)
            row = failed_row(ref.image_id, ref.uri, ref.etag, shard, "ok", "")
            mask = {"bytes": bytes(8000), "path": f"{ref.image_id}.png"}
            rows.append(row | {"mask": mask, "front_end_ms": scores.front_end_ms})
        return (["ok"] * len(rows), *rows)


class Cost(NamedTuple):
    """What a labelling of sleeping stages took."""

    images: int
    seconds: float
    driver_cpu_s: float


def scale(score_ms: float, refine_ms: float, seconds: float) -> None:
    """A labelling of about so many seconds at each number of refiners."""
    print(f"{machine()}; {score_ms:g} ms an image in a front end, {refine_ms:g} ms in a refiner, both asleep\n")
    print("| refiners | front ends | images/s | share of linear |\n|---|---|---|---|")
    rates: dict[int, float] = {}
    for refiners in REFINERS:
        front_ends = math.ceil(1.25 * refiners * score_ms / refine_ms)
        cost = labelled(int(seconds * refiners * 1000 / refine_ms), 200, front_ends, refiners, score_ms, refine_ms)
        rates[refiners] = cost.images / cost.seconds
        share = rates[refiners] / rates[1] / refiners
        print(f"| {refiners} | {front_ends} | {rates[refiners]:.1f} | {share:.1%} |", flush=True)
    PLOT.write_text(drawn(rates))
    print(json.dumps({"score_ms": score_ms, "refine_ms": refine_ms, "images_per_s": rates}))


def control_plane(images: int) -> None:
    """Stages that do nothing at all: what is left is the driver's work and Ray's."""
    cost = labelled(images, 1000, 1, 2, 0.0, 0.0)
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
    wall, cpu = (1000 * seconds / images for seconds in (cost.seconds, cost.driver_cpu_s))
    print(f"{machine()}; {images} images in shards of 1000, stages that do nothing\n")
    print("| driver's peak memory, MiB | driver's CPU ms an image | wall ms an image |\n|---|---|---|")
    print(f"| {peak:.0f} | {cpu:.2f} | {wall:.2f} |")
    print(json.dumps({"images": images, "driver_peak_mib": peak, "driver_cpu_ms": cpu, "wall_ms": wall}))


def labelled(images: int, shard_size: int, front_ends: int, refiners: int, score_ms: float, refine_ms: float) -> Cost:
    """Plans and labels images as the flow does, once all actors are there; from the first shard to the last commit."""
    with tempfile.TemporaryDirectory() as output:
        name = planned(output, images, shard_size)
        shards = plan.shards(output, RECIPE, name)
        with sleeping(output, front_ends, refiners, score_ms, refine_ms) as dispatcher:

            def label(shard: Shard) -> int:
                with dispatcher.admission():
                    refs = plan.read_shard(output, RECIPE, shard.run, shard.number)
                    future = dispatcher.submit(shard, refs)
                return future.result().statuses["ok"]

            started, cpu = time.monotonic(), time.process_time()
            with ThreadPoolExecutor(OPEN_SHARDS) as threads:
                done = sum(threads.map(label, shards))
            seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    assert done == images
    return Cost(images, seconds, cpu)


def planned(output: str, images: int, shard_size: int) -> str:
    """The name of a run over images that nobody will read."""
    numbers = [f"{index:08d}" for index in range(images)]
    columns: dict[str, Any] = {
        "image_id": numbers,
        "uri": [f"s3://photographs/incoming/{number}.jpg" for number in numbers],
        "part": [""] * images,
        "etag": [f'"{number:0>32}"' for number in numbers],
        "bytes": [100_000] * images,
        "truth_uri": [None] * images,
        "truth_part": [None] * images,
    }
    name = plan.add_run(output, RECIPE, pa.table(columns, REF_SCHEMA), shard_size, date(2026, 1, 1))
    assert name is not None
    return name


@contextmanager
def sleeping(output: str, front_ends: int, refiners: int, score_ms: float, refine_ms: float) -> Iterator[Dispatcher]:
    """A dispatcher whose actors are all ready."""
    network = actor(SleepingFrontEnd, num_cpus=1, max_concurrency=2)
    field = actor(SleepingRefiner, num_cpus=1)
    target = Target(output, RECIPE)
    networks = Pool("front end", lambda: network.remote(score_ms))
    fields = Pool("back end", lambda: field.remote(target, refine_ms))
    dispatcher = Dispatcher(networks, fields, 8, 256 * 2**20, lambda _: Sizes(front_ends, refiners))
    try:
        while len(networks.workers) < front_ends or len(fields.workers) < refiners:
            time.sleep(0.1)
        yield dispatcher
    finally:
        dispatcher.close()


def drawn(rates: dict[int, float]) -> str:
    """The rates over the refiners as an SVG, both axes by powers of two, with the linear rate behind."""
    width, height, left, bottom = 560, 360, 64, 52
    most, least = max(rates) * rates[1], rates[1]

    def place(refiners: float, rate: float) -> str:
        across = math.log2(refiners) / math.log2(max(rates))
        up = math.log2(rate / least) / math.log2(most / least)
        return f"{left + across * (width - left - 24):.1f},{height - bottom - up * (height - bottom - 24):.1f}"

    def text(at: str, words: str, anchor: str, down: int = 0, right: int = 0) -> str:
        x, y = (float(part) for part in at.split(","))
        return f'<text x="{x + right:.1f}" y="{y + down:.1f}" text-anchor="{anchor}">{words}</text>'

    lines = " ".join(place(refiners, rate) for refiners, rate in rates.items())
    parts = [
        f'<polyline points="{place(1, least)} {place(max(rates), most)}" stroke="#9aa5b1" stroke-dasharray="5 4"/>',
        f'<polyline points="{lines}" stroke="#3f7fd6" stroke-width="2"/>',
    ]
    for refiners, rate in rates.items():
        x, y = place(refiners, rate).split(",")
        parts.append(f'<circle cx="{x}" cy="{y}" r="4" fill="#3f7fd6"/>')
        parts.append(text(place(refiners, least), str(refiners), "middle", down=24))
        parts.append(text(place(1, refiners * least), f"{refiners * least:.0f}", "end", down=4, right=-12))
    parts.append(f'<text x="{(left + width) / 2:.0f}" y="{height - 8}" text-anchor="middle">refiners</text>')
    parts.append(text(place(1, most), "images/s; dashed: linear", "start", down=4, right=12))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" fill="none" '
        f'font-family="sans-serif" font-size="13"><rect width="100%" height="100%" fill="#fff"/>'
        f'<g fill="none">{"".join(part for part in parts if not part.startswith("<text"))}</g>'
        f'<g fill="#52606d">{"".join(part for part in parts if part.startswith("<text"))}</g></svg>\n'
    )


def main() -> None:
    """One of the two measurements, on a Ray of this machine that believes in 40 cores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--score-ms", type=float, default=15)
    parser.add_argument("--refine-ms", type=float, default=120)
    parser.add_argument("--seconds", type=float, default=20, help="of each labelling")
    parser.add_argument("--control-plane", action="store_true")
    parser.add_argument("--images", type=int, default=100_000, help="of the control plane's labelling")
    options = parser.parse_args()
    ray.init(
        address="local",
        num_cpus=LOGICAL_CPUS,
        include_dashboard=False,
        object_store_memory=2**30,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        _system_config={"enable_worker_prestart": False, "prestart_worker_first_driver": False},
    )
    if options.control_plane:
        control_plane(options.images)
    else:
        scale(options.score_ms, options.refine_ms, options.seconds)


if __name__ == "__main__":
    main()
