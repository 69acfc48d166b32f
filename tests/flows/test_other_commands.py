import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.flows.conftest import Command


def test_demo_show_and_evaluate_lead_from_nothing_to_pages(
    densemask: Command, configured: dict[str, str], tmp_path: Path
) -> None:
    demo = densemask("demo", str(tmp_path / "demo"), "--json", env=configured)

    assert demo.code == 0, demo.err
    assert demo.json["ok"] == demo.json["images"] == 6
    assert Path(demo.json["report"]).read_text().startswith("<!doctype html>")
    gallery = Path(demo.err.splitlines()[-1].removeprefix("gallery: "))
    assert gallery == tmp_path / "demo" / "show" / "index.html"
    pictures = sorted(path.name for path in gallery.parent.glob("*.png"))
    assert [name.partition("-")[2] for name in pictures] == [
        "astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "motorcycle_right.png", "rocket.png",
    ]  # fmt: skip
    cat = np.asarray(Image.open(gallery.parent / pictures[1]).convert("RGB"), int)
    plain = np.asarray(Image.open(tmp_path / "demo" / "photographs" / "chelsea.png").convert("RGB"), int)
    assert np.abs(cat - plain).mean() > 10  # most of it is cat, and wears its colour

    output = str(tmp_path / "demo" / "output")
    show = densemask("show", output, "--to", str(tmp_path / "few"), "--limit", "2", env=configured)
    assert show.code == 0, show.err
    assert len(list((tmp_path / "few").glob("*.png"))) == 2
    page = Path(demo.json["report"])
    page.unlink()
    evaluated = densemask("evaluate", output, "--json", env=configured)
    assert evaluated.code == 0, evaluated.err
    assert json.loads(evaluated.out)["images"] == 6
    assert page.exists()

    again = densemask("demo", str(tmp_path / "demo"), "--json", env=configured)
    assert again.code == 0, again.err
    assert again.json["images"] == 0


def test_a_report_that_a_kill_has_cost_is_written_by_the_next_command(
    densemask: Command, configured: dict[str, str], photographs: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    first = densemask("label", str(photographs), str(output), "--json", env=configured)
    assert first.code == 0, first.err
    page, current = Path(first.json["report"]), output / "current.json"
    page.unlink()
    current.unlink()

    second = densemask("label", str(photographs), str(output), "--json", env=configured)

    assert second.code == 0, second.err
    assert second.json["images"] == 0
    assert second.json["report"] == str(page)
    assert page.exists()
    assert current.exists()
