import io
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from pipeline import frontends, images, label, weights
from pipeline.classes import CLASS_SETS, VOC_21
from pipeline.config import Evaluation, Recipe, Source
from pipeline.errors import ConfigError, WeightsError
from pipeline.frontends import FrontEnd
from pipeline.frontends.trunks import Trunk
from pipeline.preprocessing import Preprocessing, prepare
from pipeline.scores import LOWEST, Kept, ScoreMap, full_logits, softmax
from pipeline.sources import list_images, refs

# Exact, as published, and what the published network varies in.
PARAMETERS = [
    ("fcn8s_lite", {}, 2_949_095),
    ("deeplab_v3_mobilenet_v2", {}, 688_357),
    ("fcn32s", {}, 136_152_917),
    ("fcn16s", {}, 134_815_994),
    ("fcn8s", {}, 134_489_759),
    ("fcn8s", {"trunk": "efficientnet_lite0"}, 2_949_095),
    ("hf", {}, 3_719_541),
    ("segnet", {}, 29_449_355),
    ("segnet_basic", {}, 1_416_587),
    ("deconvnet", {}, 251_805_653),
    ("deconvnet_ensemble", {}, 251_805_653 + 134_489_759),
    ("deeplab_v1", {}, 20_505_429),
    ("deeplab_v2", {"trunk": "vgg16"}, 37_877_652),
    ("deeplab_v2", {}, 44_048_532),
    ("fcn_resnet", {"auxiliary": True}, 35_322_218),
    ("fcn_resnet", {"auxiliary": True, "trunk": "resnet101"}, 54_314_346),
    ("deeplab_v3", {"auxiliary": True}, 42_004_074),
    ("deeplab_v3", {"auxiliary": True, "trunk": "resnet101"}, 60_996_202),
    ("deeplab_v3", {"auxiliary": True, "trunk": "mobilenet_v3"}, 11_029_328),
    ("lraspp", {}, 3_221_538),
    ("upernet_lite", {}, 3_822_341),
]
WITH_AND_WITHOUT_NORM = ("segnet_basic", "fcn8s_lite")
ON_ANY_TRUNK = ("fcn32s", "fcn16s", "fcn8s", "fcn_resnet", "deeplab_v1", "deeplab_v2", "deeplab_v3")
TRUNKS = get_args(Trunk)
# MobileNets have a least number of channels, and one width where tensors tell it.
WIDTHS = {"deeplab_v3_mobilenet_v2": 1 / 4, "lraspp": 1 / 10, "mobilenet_v2": 1 / 4, "mobilenet_v3": 1 / 10}
# Pixel accuracy on every 5th of VOC val is 0.931 (0.941 on all 200, as the card says).
BUNDLED_ACCURACY = 0.925
BUNDLED = ("upernet_efficientnet_lite0_camvid11.safetensors", "upernet_efficientnet_lite0_voc21.safetensors")
SIZES = ((1, 1), (1, 40), (31, 33), (133, 217))
State = dict[str, torch.Tensor]


def narrow(name: str, classes: int = 21, **varied: Any) -> Any:
    """A small architecture of a front end, so that tests are fast."""
    architecture = frontends.load(name).Architecture
    width = WIDTHS.get(varied.get("trunk", name), 1 / 16)
    if "width" in architecture.model_fields and varied.get("trunk") != "efficientnet_lite0":
        varied["width"] = width
    if "head" in architecture.model_fields:
        varied["head"] = 8
    return architecture(classes=classes, **varied)


def random_state(name: str, classes: int = 21) -> State:
    """Weights of the narrow network that are near its initial ones, with none of its layers silent."""
    torch.manual_seed(0)
    state = frontends.load(name).Network(narrow(name, classes)).state_dict()
    for key, tensor in state.items():
        if key.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif tensor.is_floating_point() and "upscore" not in key:
            tensor.add_(torch.randn(tensor.shape), alpha=0.05)
    return state


def front_end_of(name: str, state: State) -> FrontEnd:
    return weights.open_front_end(name, safetensors.torch.save(state))


@pytest.fixture(scope="module", params=frontends.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def state(name: str) -> State:
    return random_state(name)


@pytest.fixture(scope="module")
def front_end(name: str, state: State) -> FrontEnd:
    return front_end_of(name, state)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3)).astype(np.uint8)


def recipe_for(name: str, path: Path) -> Recipe:
    return Recipe.model_validate({"front_end": {"name": name, "weights": str(path)}, "back_end": "argmax"})


def test_every_front_end_is_in_these_tests() -> None:
    assert frontends.names() == sorted({name for name, _, _ in PARAMETERS})


@pytest.mark.parametrize(("name", "varied", "count"), PARAMETERS)
def test_the_number_of_parameters_is_exact(name: str, varied: dict[str, Any], count: int) -> None:
    module = frontends.load(name)
    with torch.device("meta"):
        network = module.Network(module.Architecture(**varied))
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_a_front_end_has_what_the_contract_asks_for(name: str) -> None:
    module = frontends.load(name)
    assert module.__doc__
    assert module.WEIGHTS is None or Path(weights.__file__).with_name(module.WEIGHTS).is_file()
    assert module.CLASSES in CLASS_SETS


@pytest.mark.parametrize("size", SIZES)
def test_scores_come_to_the_size_of_the_image(name: str, front_end: FrontEnd, size: tuple[int, int]) -> None:
    (scores,) = front_end.score([noise(*size)])
    assert scores.logits.dtype == np.float16 and scores.logits.flags.c_contiguous
    assert scores.size == size
    kept = scores.kept or Kept(tuple(range(21)), 21)
    full = full_logits(scores)
    assert full.shape == (len(kept.labels), *size) and np.isfinite(full).all() and kept.classes == 21


def test_the_architecture_is_read_off_the_tensors(name: str, state: State) -> None:
    assert frontends.load(name).architecture_of(state) == narrow(name)
    assert frontends.load(name).architecture_of({}).classes in (11, 21)


def test_what_is_scored_is_what_the_network_gives(name: str, state: State, front_end: FrontEnd) -> None:
    """Batch norm folded, its layers in another order for speed, labels left out: still the same network."""
    module = frontends.load(name)
    network = weights.load_strict(lambda: module.Network(narrow(name)), state).eval()
    rgb = noise(70, 45)
    tensor, own = prepare(rgb, module.PREPROCESSING)
    with torch.inference_mode():
        logits = network(torch.from_numpy(tensor)[None])[0]
    (scores,) = front_end.score([rgb])
    assert scores.steps == (*network.steps(*tensor.shape[-2:]), *own)
    if scores.kept is not None:
        logits = logits.log_softmax(0).clamp(min=LOWEST)[list(scores.kept.labels)]
    close = np.isclose(scores.logits, logits, atol=2e-3 * float(logits.abs().max()))
    assert close.mean() > 0.99  # where two values of a pool are nearly the same, rounding decides where it unpools to


def test_batch_norm_is_folded_exactly(name: str, state: State) -> None:
    module = frontends.load(name)
    network = weights.load_strict(lambda: module.Network(narrow(name)), state).eval().double()
    x = torch.randn(1, 3, 45, 70, dtype=torch.double)
    with torch.inference_mode():
        expected = network(x)
        if getattr(network, "foldable", True):
            network = frontends.fold_batch_norm(network)
            assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in network.modules())
        torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("name", ON_ANY_TRUNK)
def test_a_head_stands_on_any_trunk(name: str, trunk: str) -> None:
    module, architecture = frontends.load(name), narrow(name, 2, trunk=trunk)
    network = module.Network(architecture).eval()
    for size in ((1, 1), (33, 50)):
        with torch.inference_mode():
            logits = network(torch.randn(1, 3, *size))[0].numpy()
        assert full_logits(ScoreMap(logits, network.steps(*size))).shape == (2, *size)
    read_off = module.architecture_of(network.state_dict())
    assert (read_off.classes, read_off.trunk, read_off.width) == (2, trunk, architecture.width)


def test_a_network_learns_from_its_initial_weights(name: str) -> None:
    torch.manual_seed(0)
    network = frontends.load(name).Network(narrow(name, 3)).train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    photographs, losses = torch.randn(2, 3, 40, 40), []
    for _ in range(5):
        logits = network(photographs)
        truth = torch.arange(logits.shape[-1]).mul(3).div(logits.shape[-1]).long().expand(2, *logits.shape[-2:])
        loss = torch.nn.functional.cross_entropy(logits, truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_photographs_look_as_the_architecture_wants_them() -> None:
    def preprocessing(name: str, **varied: Any) -> Preprocessing:
        module = frontends.load(name)
        return frontends.preprocessing_of(module, module.Architecture(**varied))

    light = preprocessing("fcn8s_lite")
    for name in ON_ANY_TRUNK:
        assert preprocessing(name) == frontends.load(name).PREPROCESSING
        assert preprocessing(name, trunk="efficientnet_lite0") == light
    assert preprocessing("deeplab_v3", form="paper").channels == "bgr"
    assert preprocessing("deeplab_v3", form="paper", trunk="efficientnet_lite0") == light


def test_what_is_prepared_is_what_the_network_takes(name: str) -> None:
    tensor, steps = prepare(noise(60, 90), frontends.load(name).PREPROCESSING)
    assert tensor.dtype == np.float32 and tensor.shape[0] == 3 and np.abs(tensor).max() <= 255
    assert ScoreMap(np.zeros((1, 1, 1), np.float16), steps).size == (60, 90)


def test_a_batch_of_mixed_sizes_scores_as_one_by_one(front_end: FrontEnd) -> None:
    photographs = [noise(40, 64), noise(64, 40), noise(40, 64)]
    together, alone = front_end.score(photographs), [front_end.score([rgb])[0] for rgb in photographs]
    for one, other in zip(together, alone, strict=True):
        assert one.steps == other.steps and one.kept == other.kept
        assert np.isclose(one.logits.astype(np.float32), other.logits, atol=1e-2, rtol=1e-2).mean() > 0.99


def test_no_photographs_have_no_scores(front_end: FrontEnd) -> None:
    assert front_end.score([]) == []


def test_a_read_only_photograph_is_scored(front_end: FrontEnd) -> None:
    rgb = noise(40, 40)
    rgb.setflags(write=False)
    assert front_end.score([rgb])[0].size == (40, 40)


@pytest.mark.parametrize("classes", [1, 30])
def test_the_number_of_classes_is_that_of_the_weights(name: str, tmp_path: Path, classes: int) -> None:
    state = random_state(name, classes)
    safetensors.torch.save_file(state, tmp_path / "w.safetensors", {"classes": "VOC-21"})
    loaded = weights.read_weights(recipe_for(name, tmp_path / "w.safetensors"))
    assert loaded.classes == tuple(f"class {index}" for index in range(classes))
    scores = weights.open_front_end(name, loaded.data).score([noise(9, 9)])[0]
    assert (len(scores.logits) if scores.kept is None else scores.kept.classes) == classes


def test_more_classes_than_a_mask_can_hold_are_refused(tmp_path: Path) -> None:
    for classes, allowed in ((256, True), (257, False)):
        safetensors.torch.save_file(random_state("fcn8s_lite", classes), tmp_path / "w.safetensors")
        if allowed:
            assert len(weights.read_weights(recipe_for("fcn8s_lite", tmp_path / "w.safetensors")).classes) == 256
            continue
        with pytest.raises(WeightsError, match=r"w.safetensors has 257 classes; a mask holds 1 to 256$"):
            weights.read_weights(recipe_for("fcn8s_lite", tmp_path / "w.safetensors"))


def with_wrong_shape(state: State) -> str:
    key = next(iter(state))
    state[key] = torch.zeros(7, 2)
    return rf"{key} is \[7, 2\], the network has \[\d+, \d+, \d+, \d+\]"


def with_scalar(state: State) -> str:
    key = next(key for key in state if key.endswith("bias"))
    state[key] = torch.tensor(1.0)
    return rf"{key} is \[\], the network has \[\d+\]"


def without_one(state: State) -> str:
    key = next(iter(state))
    del state[key]
    return f"{key} is missing"


def without_any(state: State) -> str:
    key, count = next(iter(state)), sum(weights.BATCH_COUNTER not in name for name in state)
    state.clear()
    return rf"{key} is missing; .*\(and {count - 3} more\)$"


def with_one_more(state: State) -> str:
    state["aux.weight"] = torch.zeros(1)
    return "aux.weight is not part of the network"


def with_nan(state: State) -> str:
    key = next(iter(state))
    state[key] = state[key].clone()
    state[key].view(-1)[7] = float("nan")
    return f"{key} holds values that are not finite"


@pytest.mark.parametrize("name", WITH_AND_WITHOUT_NORM, indirect=True)
@pytest.mark.parametrize("spoil", [with_wrong_shape, with_scalar, without_one, without_any, with_one_more, with_nan])
def test_weights_that_do_not_fit_are_named_tensor_by_tensor(
    name: str, state: State, tmp_path: Path, spoil: Callable[[State], str]
) -> None:
    spoilt = dict(state)
    problem = spoil(spoilt)
    safetensors.torch.save_file(spoilt, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=rf"w.safetensors does not fit front end '{name}': .*{problem}") as caught:
        weights.read_weights(recipe_for(name, tmp_path / "w.safetensors"))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("name", WITH_AND_WITHOUT_NORM, indirect=True)
@pytest.mark.parametrize("spoil", [lambda data: data[:-1], lambda data: data[:4], lambda _: b"", lambda _: b"\x80\x04"])
def test_a_file_that_is_not_whole_is_named(
    name: str, state: State, tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    data = spoil(safetensors.torch.save(state))
    (tmp_path / "w.safetensors").write_bytes(data)
    with pytest.raises(WeightsError, match=rf"not a whole safetensors file \({len(data)} bytes\)") as caught:
        weights.read_weights(recipe_for(name, tmp_path / "w.safetensors"))
    assert "\n" not in str(caught.value)


def test_weights_of_the_other_network_are_refused(tmp_path: Path) -> None:
    safetensors.torch.save_file(random_state("fcn8s_lite"), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="does not fit front end 'deeplab_v3_mobilenet_v2'"):
        weights.read_weights(recipe_for("deeplab_v3_mobilenet_v2", tmp_path / "w.safetensors"))


def test_absent_weights_are_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"^no weights: cannot read .*/none.safetensors: it does not exist$"):
        weights.read_weights(recipe_for(name, tmp_path / "none.safetensors"))


def test_a_front_end_without_bundled_weights_asks_for_some() -> None:
    with pytest.raises(WeightsError, match=r"has no bundled weights; name a .safetensors file with --weights$"):
        weights.read_weights(Recipe.model_validate({"front_end": "deeplab_v3_mobilenet_v2"}))


def test_an_unknown_front_end_is_named_with_its_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        frontends.load("fcn8s_light")
    assert str(caught.value) == (
        f"unknown front end 'fcn8s_light'; did you mean 'fcn8s_lite'? known: {', '.join(frontends.names())}"
    )


@pytest.mark.parametrize("unknown", ["trunks", "os", "../weights", "", "FCN8S_LITE"])
def test_nothing_but_a_front_end_can_be_loaded(unknown: str) -> None:
    with pytest.raises(ConfigError, match="unknown front end"):
        frontends.load(unknown)


def test_the_bundled_weights_fit_and_name_their_classes() -> None:
    loaded = weights.read_weights(Recipe())
    assert loaded.classes == VOC_21
    assert loaded.location == "package:upernet_efficientnet_lite0_voc21.safetensors"
    assert loaded.sha256 == "bb98679ce64147cd0bdaa6612866bf7d514fb62dbb10d153d7b846f49d4fa781"


def test_bundled_weights_can_be_named() -> None:
    assert tuple(weights.bundled()) == BUNDLED
    for name in BUNDLED:
        front_end = {"name": "upernet_lite", "weights": f"package:{name}"}
        assert weights.read_weights(Recipe.model_validate({"front_end": front_end})).location == f"package:{name}"
    with pytest.raises(WeightsError, match=r"^no bundled weights 'none'; there are .*\.safetensors$"):
        weights.read_weights(Recipe.model_validate({"front_end": {"name": "upernet_lite", "weights": "package:none"}}))


def photographs_of(voc_root: Path, count: int) -> list[np.ndarray]:
    names = (voc_root / "ImageSets/Segmentation/val.txt").read_text().split()[:count]
    found = [(voc_root / "JPEGImages" / f"{name}.jpg").read_bytes() for name in names]
    return [images.decode(data, 10**8, 1024).rgb for data in found]


def test_deeplab_scores_as_an_independent_implementation_does(shared: Path, voc_root: Path) -> None:
    file = shared / "weights/deeplabv3_mobilenetv2_x0.5_voc21.safetensors"
    other = runpy.run_path(str(shared / "bench/ray_data_baseline.py"))["FrontEnd"]
    reference = other(str(file), torch.get_num_threads())
    ours = weights.open_front_end("deeplab_v3_mobilenet_v2", file.read_bytes())
    for rgb in photographs_of(voc_root, 2):
        expected = reference({"image": rgb})["probabilities"].astype(np.float32)
        probabilities = softmax(full_logits(ours.score([rgb])[0]))
        assert np.abs(probabilities - expected).max() < 0.02
        assert (probabilities.argmax(0) == expected.argmax(0)).mean() > 0.9995


def test_the_bundled_weights_label_real_photographs(voc_root: Path) -> None:
    front_end = weights.open_front_end("upernet_lite", weights.read_weights(Recipe()).data)
    listed = list(refs(list_images(Source(location=str(voc_root), split="val"))))[::5]
    recipe = Recipe.model_validate({"back_end": "argmax"})
    rows = label.label_shard(listed, 0, front_end, recipe, Evaluation())
    right = sum(row["refined"]["tp"].sum() for row in rows)
    assert right / sum((row["refined"]["tp"] + row["refined"]["fn"]).sum() for row in rows) > BUNDLED_ACCURACY


def test_a_mask_of_a_real_photograph_has_its_size(voc_root: Path) -> None:
    path = sorted((voc_root / "JPEGImages").iterdir())[0]
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        size = image.size[::-1]
    photograph = images.decode(path.read_bytes(), 10**8, 100)
    (scores,) = weights.open_front_end("upernet_lite", weights.read_weights(Recipe()).data).score([photograph.rgb])
    labels = full_logits(scores).argmax(0).astype(np.uint8)
    assert images.enlarge_labels(labels, (photograph.height, photograph.width)).shape == size
