import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from pipeline import classes, frontends, weights
from pipeline.classes import CAMVID_11, PALETTES, VOC_21, ClassSet
from pipeline.config import Recipe
from pipeline.errors import ConfigError, WeightsError
from pipeline.weights import layouts
from pipeline.weights.convert import convert
from tests.pipeline.checkpoints import caffemodel, torch_file

State = dict[str, torch.Tensor]
LITE = "fcn8s_lite"


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Networks this small gain nothing from a second core, and wait for it where others run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def state_of(front_end: str, **architecture: object) -> State:
    """The network's initial weights."""
    torch.manual_seed(0)
    module = frontends.load(front_end)
    return dict(module.Network(module.Architecture(**architecture)).state_dict())


@pytest.fixture(scope="module")
def lite() -> State:
    return state_of(LITE)


def test_a_state_by_the_networks_own_names_becomes_native_weights(lite: State) -> None:
    data = torch_file({"state_dict": {f"module.{name}": tensor for name, tensor in lite.items()}})
    converted = convert(data, "mine.pth", LITE)
    assert converted.layout == "densemask"
    assert converted.used == len(lite) and converted.left_over == {}
    assert converted.parameters == 2_949_095
    assert converted.sha256 == hashlib.sha256(converted.data).hexdigest()
    module = frontends.load(LITE)
    assert weights.notes(converted.data) == weights.Notes(
        front_end=LITE,
        architecture={"classes": 21},
        preprocessing=module.PREPROCESSING,
        classes=VOC_21,
        source="mine.pth, layout densemask",
        source_sha256=hashlib.sha256(data).hexdigest(),
    )
    rgb = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    (direct,) = weights.open_front_end(LITE, safetensors.torch.save(lite)).score([rgb])
    (scores,) = weights.open_front_end(LITE, converted.data).score([rgb])
    np.testing.assert_array_equal(scores.logits, direct.logits)


def test_converted_weights_are_a_recipes_like_any_other(lite: State, tmp_path: Path) -> None:
    converted = convert(torch_file(lite), "mine.pth", LITE)
    (tmp_path / "w.safetensors").write_bytes(converted.data)
    recipe = Recipe.model_validate({"front_end": {"name": LITE, "weights": str(tmp_path / "w.safetensors")}})
    assert weights.read_weights(recipe).classes == VOC_21


def test_the_same_checkpoint_becomes_the_same_bytes(lite: State) -> None:
    data = torch_file(lite)
    assert convert(data, "mine.pth", LITE).sha256 == convert(data, "mine.pth", LITE).sha256


def test_classes_and_colours_are_those_named(tmp_path: Path) -> None:
    data = torch_file(state_of(LITE, classes=3))
    assert weights.notes(convert(data, "x", LITE).data).classes == ("class 0", "class 1", "class 2")  # type: ignore[union-attr]
    (tmp_path / "classes.txt").write_text("road, 1, 2, 3\n\nsky,4,5,6\nfish,255,0,0\n")
    named = classes.read_classes(str(tmp_path / "classes.txt"))
    about = convert(data, "x", LITE, named).notes
    assert about.classes == ("road", "sky", "fish")
    assert about.palette == ((1, 2, 3), (4, 5, 6), (255, 0, 0))


def test_the_named_colours_are_those_of_masks() -> None:
    own = ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    data = convert(torch_file(state_of(LITE, classes=3)), "x", LITE, ClassSet(("a", "b", "c"), own)).data
    assert weights.open_network(LITE, data).palette == own
    assert weights.open_front_end(LITE, data).palette == own
    state = weights.parse(data)
    about = weights.notes(data)
    assert about is not None
    few = weights.write(state, about.model_copy(update={"palette": own[:2]}))
    with pytest.raises(WeightsError, match="they name 2 colours for 3 classes"):
        weights.open_network(LITE, few)
    wrong = weights.write(state, about.model_copy(update={"palette": ((0, 0, 256),) * 3}))
    with pytest.raises(WeightsError, match="their notes: palette.0.2 = 256: .*less than or equal to 255"):
        weights.open_network(LITE, wrong)


def test_a_class_set_is_known_by_name_or_read_from_a_file(tmp_path: Path) -> None:
    assert classes.read_classes("CamVid-11") == ClassSet(CAMVID_11, PALETTES["CamVid-11"])
    assert classes.read_classes("VOC-21") == ClassSet(VOC_21, None)
    (tmp_path / "names.txt").write_text("road\nsky")
    assert classes.read_classes(str(tmp_path / "names.txt")) == ClassSet(("road", "sky"), None)


@pytest.mark.parametrize("line", ["fish", "fish,1,2", "fish,1,2,256", "fish,1,2,-3", "fish,a,b,c"])
def test_a_broken_line_of_a_class_file_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "classes.txt"
    file.write_text(f"road,1,2,3\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        classes.read_classes(str(file))
    assert str(caught.value) == f"class 2 of {file} is {line!r}; each line is a name, or each is name,R,G,B"


def test_twenty_classes_for_a_head_of_twenty_one_are_refused(lite: State) -> None:
    with pytest.raises(WeightsError, match=r"^mine.pth has 21 classes, and 20 are named$"):
        convert(torch_file(lite), "mine.pth", LITE, ClassSet(VOC_21[:20], None))
    mixed = lite | {"head.score3.weight": lite["head.score3.weight"][:20]}
    with pytest.raises(WeightsError, match=r"head.score3.weight is \[20, 40, 1, 1\], the network has \[21, 40, 1, 1\]"):
        convert(torch_file(mixed), "mine.pth", LITE)


def test_a_missing_an_additional_and_a_spoilt_tensor_are_named(lite: State) -> None:
    spoilt = dict(lite)
    del spoilt["trunk.stem.bias"]
    spoilt["aux.weight"] = torch.zeros(1)
    spoilt["head.score4.weight"] = torch.full_like(lite["head.score4.weight"], float("nan"))
    with pytest.raises(WeightsError) as caught:
        convert(torch_file(spoilt), "mine.pth", LITE)
    assert str(caught.value) == (
        f"mine.pth does not fit front end '{LITE}': trunk.stem.bias is missing; aux.weight is not part of the network; "
        "head.score4.weight holds values that are not finite"
    )


@pytest.mark.parametrize(
    "data",
    [
        torch_file({"encoder.0.weight": torch.zeros(2), "b": torch.zeros(1)}),
        safetensors.torch.save({"encoder.0.weight": torch.zeros(2), "b": torch.zeros(1)}),
        caffemodel({"ip1": [np.zeros((2, 2), np.float32)]}),
    ],
)
def test_a_checkpoint_of_no_known_layout_is_said(data: bytes) -> None:
    with pytest.raises(WeightsError, match=rf"^x does not fit front end '{LITE}': its tensors \(.+\) are in no layout"):
        convert(data, "x", LITE)


def test_a_checkpoint_without_tensors_is_said() -> None:
    with pytest.raises(WeightsError, match=r"its tensors \(none\) are in no layout"):
        convert(safetensors.torch.save({}), "x", LITE)


def test_native_weights_need_no_conversion(lite: State) -> None:
    native = convert(torch_file(lite), "mine.pth", LITE).data
    with pytest.raises(WeightsError, match="w.safetensors does not fit .*: it is native already, to be used with"):
        convert(native, "w.safetensors", LITE)


def test_notes_with_twenty_classes_for_twenty_one_are_refused(lite: State) -> None:
    about = convert(torch_file(lite), "mine.pth", LITE).notes
    data = weights.write(lite, about.model_copy(update={"classes": VOC_21[:20]}))
    with pytest.raises(WeightsError, match="they name 20 classes and have 21"):
        weights.open_network(LITE, data)


def test_a_torch_file_as_weights_leads_to_convert(lite: State, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(torch_file(lite))
    recipe = Recipe.model_validate({"front_end": {"name": LITE, "weights": str(tmp_path / "w.pth")}})
    with pytest.raises(WeightsError, match="not a whole safetensors file .*; `densemask convert` reads torch's files$"):
        weights.read_weights(recipe)


@pytest.mark.parametrize("shape", [(), (9_999_999, 0, 1, 1)])
def test_shapes_that_no_network_has_are_one_line(shape: tuple[int, ...]) -> None:
    state = {"conv1_1_D.weight": torch.zeros(shape), "conv5_3.weight": torch.zeros(shape)}
    for data in (torch_file(state), safetensors.torch.save(state)):
        with pytest.raises(WeightsError, match="x does not fit front end 'segnet': its tensors have shapes") as caught:
            convert(data, "x", "segnet")
        assert "\n" not in str(caught.value)
    with pytest.raises(WeightsError, match="its tensors have shapes that no such network has"):
        weights.open_network("segnet", safetensors.torch.save(state))


def test_the_documented_layouts_are_those_that_there_are() -> None:
    page = (Path(__file__).parents[2] / "docs" / "weights.md").read_text()
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    documented = {row[1].strip(" `"): {name.strip(" `") for name in row[3].split(",")} for row in rows}
    assert documented.pop("densemask") == {"any"}
    assert documented == {name: set(layouts.load(name).FRONT_ENDS) for name in layouts.names()}


def test_every_layout_has_what_the_contract_asks_for() -> None:
    for name in layouts.names():
        layout = layouts.load(name)
        assert layout.__doc__
        assert set(layout.FRONT_ENDS) <= set(frontends.names())
        assert not layout.fits(["nonsense.weight"])
        passed = layout.translate({"nonsense.weight": torch.zeros(1)})
        assert list(passed.state) == ["nonsense.weight"] and passed.left_over == {}
