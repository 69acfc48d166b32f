"""Workers that do what the bytes of an image tell them: real actors, real deaths, no pixels."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Evaluation, Recipe
from pipeline.label import Failed, Scored
from pipeline.masks import failed_row
from pipeline.scores import ScoreMap
from pipeline.sources import ImageRef
from pipeline.sources.reading import read_part
from workers.frontend import FrontEndWorker, ScoredFacts
from workers.metrics import Labels
from workers.refiner import RefinerWorker, Target


class StubFrontEnd(FrontEndWorker):
    """Kills itself at an image that says so, calls others bad, scores the rest with nothing."""

    def __init__(self) -> None:
        pass

    def score(self, refs: list[ImageRef]) -> tuple[Any, ...]:
        facts: list[Any] = []
        outputs: list[Any] = []
        for ref in refs:
            data = read_part(ref.uri, ref.part)
            if data.startswith(b"front-exit"):
                os._exit(1)
            if data.startswith(b"front-raise"):
                raise ValueError("the front end cannot stand this image")
            if data.startswith(b"bad"):
                facts.append(Failed("unreadable", "it says that it is bad"))
                outputs.append(None)
            else:
                scored = Scored(data, ScoreMap(np.zeros((2, 4, 4), np.float16), ()), 1.0)
                facts.append(ScoredFacts(scored.nbytes))
                outputs.append(scored)
        return (facts, *outputs)


class StubRefiner(RefinerWorker):
    """Kills itself at an image that says so; else makes a row without a mask."""

    def __init__(self, target: Target, seconds: float = 0.0) -> None:
        super().__init__(Recipe(), Evaluation(), target, Labels())
        self._seconds = seconds

    def pid(self) -> int:
        return os.getpid()

    def refine(self, images: list[tuple[ImageRef, int]], *scored: Scored) -> tuple[Any, ...]:
        for each in scored:
            time.sleep(self._seconds)
            if each.data.startswith(b"back-segfault"):
                os.kill(os.getpid(), signal.SIGSEGV)
            if each.data.startswith(b"back-raise"):
                raise ValueError("the field cannot stand this image")
        rows = [failed_row(ref.image_id, ref.uri, ref.etag, shard, "ok", "") for ref, shard in images]
        return (["ok"] * len(rows), *rows)


class NeverStarts(StubFrontEnd):
    """An actor that cannot be made, as on a node without the right driver."""

    def __init__(self) -> None:
        raise RuntimeError("no such device")


def images(folder: Path, contents: list[bytes]) -> list[ImageRef]:
    """Files with these bytes."""
    refs = []
    for index, content in enumerate(contents):
        path = folder / f"image-{index:03d}"
        path.write_bytes(content)
        refs.append(ImageRef(path.name, str(path), "", "e", len(content), None, None))
    return refs


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Waits for it."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)
