import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from flows.cli import app
from flows.weights import listing
from pipeline import frontends, weights
from pipeline.catalogue import Model
from tests.pipeline.checkpoints import torch_file

LITE = "fcn8s_lite"


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Networks this small gain nothing from a second core, and wait for it where others run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments: object) -> str:
    ended = run(*arguments)
    assert ended.exit_code == 2, ended.output
    (line,) = ended.stderr.splitlines()
    assert line.startswith("densemask: ")
    return line


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    module = frontends.load(LITE)
    state = module.Network(module.Architecture(classes=11)).state_dict()
    path = tmp_path_factory.mktemp("checkpoints") / "street.pth"
    path.write_bytes(torch_file({"epoch": 3, "state_dict": state}))
    return path


def test_convert_writes_weights_and_says_what_became_of_the_tensors(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "street.safetensors"
    ended = run("convert", checkpoint, "--front-end", LITE, "-o", out, "--classes", "CamVid-11")
    assert ended.exit_code == 0, ended.output
    assert ended.stdout == ""
    said = ended.stderr
    assert "layout         densemask" in said
    assert "left over      epoch (1): not of the network's state" in said
    assert "classes        11: sky, building, pole, road, pavement, tree, ..." in said
    assert said.endswith(f"now: densemask label SOURCE OUT --front-end {LITE} --weights {out}\n")
    about = weights.notes(out.read_bytes())
    assert about is not None and about.palette is not None and about.palette[8] == (64, 0, 128)

    shown = run("models", out, "--json")
    facts = json.loads(shown.stdout)
    assert facts["source"] == "street.pth, layout densemask"
    assert facts["classes"][0] == "sky"
    assert facts["sha256"] in said
    assert "street.pth" in run("models", out).stdout


def test_convert_ends_with_one_json_line(checkpoint: Path, tmp_path: Path) -> None:
    ended = run("convert", checkpoint, "--front-end", LITE, "-o", tmp_path / "w.safetensors", "--json")
    assert ended.stderr == ""
    facts = json.loads(ended.stdout)
    assert facts["weights"] == str(tmp_path / "w.safetensors")
    assert facts["layout"] == "densemask" and facts["left_over"] == {"epoch": "not of the network's state"}
    assert facts["classes"][10] == "class 10"


def test_what_cannot_be_converted_is_one_line_and_writes_nothing(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "w.safetensors"
    half = tmp_path / "half.pth"
    half.write_bytes(checkpoint.read_bytes()[:100_000])
    nan = tmp_path / "nan.pth"
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    nan.write_bytes(torch_file(state | {"head.score3.bias": torch.full((11,), float("nan"))}))
    few = tmp_path / "classes.txt"
    few.write_text("\n".join("abcdefghij"))
    to = ("-o", out)

    assert "not a whole torch file (100000 bytes)" in refused("convert", half, "--front-end", LITE, *to)
    assert "head.score3.bias holds values that are not finite" in refused("convert", nan, "--front-end", LITE, *to)
    line = refused("convert", checkpoint, "--front-end", "deeplab_v3_mobilenet_v2", *to)
    assert "street.pth does not fit front end 'deeplab_v3_mobilenet_v2'" in line
    line = refused("convert", checkpoint, "--front-end", LITE, *to, "--classes", few)
    assert line == "densemask: street.pth has 11 classes, and 10 are named"
    assert "unknown front end 'fcn8s_light'" in refused("convert", checkpoint, "--front-end", "fcn8s_light", *to)
    assert "it does not exist" in refused("convert", tmp_path / "none.pth", "--front-end", LITE, *to)
    assert "cannot read" in refused("convert", tmp_path, "--front-end", LITE, *to)
    assert not out.parent.exists()


def test_models_lists_every_front_end(tmp_path: Path) -> None:
    listed = {model["front_end"]: model for model in json.loads(run("models", "--json").stdout)}
    assert sorted(listed) == frontends.names()
    lite = listed["upernet_lite"]
    assert (lite["classes"], lite["parameters"], lite["stride"], lite["weights"]) == (21, 3_822_341, 8, "bundled")
    assert listed["deeplab_v3_mobilenet_v2"]["architecture"] == {"classes": 21, "width": 0.5}
    assert all(0 < miou < 1 for miou in lite["measured"].values()) and lite["measured"]
    page = Console(width=80, record=True, file=io.StringIO())
    page.print(listing([Model(**model) for model in listed.values()]))
    lines = page.export_text().splitlines()
    assert all(any(line.split()[:1] == [name] for line in lines) for name in frontends.names())
    assert any("3,822,341" in line and "bundled" in line for line in lines)
    page.print(listing([Model(**listed["hf"]).model_copy(update={"weights": "'densemask[hf]'", "stride": None})]))
    assert "'densemask[hf]'" in page.export_text()


def test_weights_without_notes_say_nothing_of_themselves(tmp_path: Path) -> None:
    module = frontends.load(LITE)
    bare = tmp_path / "bare.safetensors"
    safetensors.torch.save_file(module.Network(module.Architecture()).state_dict(), bare)
    assert "carries no notes of densemask" in refused("models", bare)
    assert "not a whole safetensors file" in refused("models", Path(__file__))
