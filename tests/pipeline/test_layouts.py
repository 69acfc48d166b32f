import math
import re
from argparse import Namespace
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import safetensors.torch
import torch

from pipeline import frontends, weights
from pipeline.errors import WeightsError
from pipeline.weights import layouts
from pipeline.weights.convert import Converted, File, convert, convert_all
from tests.pipeline import published
from tests.pipeline.checkpoints import caffemodel, torch_file
from tests.pipeline.published import Shapes

State = dict[str, torch.Tensor]
COUNTER = "num_batches_tracked"
FULL_SIZE: list[tuple[str, str, Shapes]] = [
    ("wkentaro", "fcn32s", published.wkentaro("fcn32s")),
    ("wkentaro", "fcn16s", published.wkentaro("fcn16s")),
    ("wkentaro", "fcn8s", published.wkentaro("fcn8s")),
    ("wkentaro", "fcn8s", published.wkentaro("fcn8s", classes=60)),
    ("crfasrnn", "fcn8s", published.crfasrnn()),
    ("caffe_fcn", "fcn32s", published.caffe(published.wkentaro("fcn32s"))),
    ("caffe_fcn", "fcn16s", published.caffe(published.wkentaro("fcn16s"))),
    ("caffe_fcn", "fcn8s", published.caffe(published.wkentaro("fcn8s"))),
    ("caffe_fcn", "fcn32s", published.caffe_2015("fcn32s")),
    ("caffe_fcn", "fcn16s", published.caffe_2015("fcn16s")),
    ("caffe_fcn", "fcn8s", published.caffe_2015("fcn8s") | {"inference1.0": (1, 1, 21, 21)}),
    ("torchvision", "fcn_resnet", published.torchvision("fcn_resnet50")),
    ("torchvision", "fcn_resnet", published.torchvision("fcn_resnet101")),
    ("torchvision", "deeplab_v3", published.torchvision("deeplabv3_resnet50")),
    ("torchvision", "deeplab_v3", published.torchvision("deeplabv3_resnet101", classes=7)),
    ("torchvision", "deeplab_v3", published.torchvision("deeplabv3_mobilenet_v3_large")),
    ("torchvision", "lraspp", published.torchvision("lraspp_mobilenet_v3_large")),
    ("kazuto1011", "deeplab_v2", published.kazuto1011()),
    ("kazuto1011", "deeplab_v2", published.kazuto1011("", classes=182)),
    ("isht7", "deeplab_v2", published.isht7()),
    ("isht7", "deeplab_v2", published.isht7("")),
    ("caffe_deeplab_vgg", "deeplab_v1", published.caffe_deeplab_vgg("deeplab_v1")),
    ("caffe_deeplab_vgg", "deeplab_v2", published.caffe_deeplab_vgg("deeplab_v2")),
    ("caffe_deeplab_resnet", "deeplab_v2", published.caffe_deeplab_resnet()),
    ("caffe_deconvnet", "deconvnet", published.caffe_deconvnet()),
    ("caffe_segnet", "segnet", published.caffe_segnet("segnet")),
    ("caffe_segnet", "segnet", published.caffe_segnet("segnet", classes=21)),
    ("caffe_segnet", "segnet_basic", published.caffe_segnet("segnet_basic")),
]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("layout", "front_end", "shapes"), FULL_SIZE)
def test_a_published_checkpoint_at_full_size_is_recognised_and_fills_the_network(
    layout: str, front_end: str, shapes: Shapes
) -> None:
    tensors = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}
    assert layouts.recognise(tensors, front_end) == layout
    assert [name for name in layouts.names() if layouts.load(name).fits(tensors)] == [layout]
    state, left_over = layouts.load(layout).translate(
        {name: tensor for name, tensor in tensors.items() if COUNTER not in name}
    )
    module = frontends.load(front_end)
    with torch.device("meta"):
        network = module.Network(module.architecture_of(state))
    expected = {name: tensor.shape for name, tensor in network.state_dict().items() if COUNTER not in name}
    assert {name: tensor.shape for name, tensor in state.items()} == expected
    assert not set(left_over) & set(state)


def test_a_layout_of_other_front_ends_is_named() -> None:
    with pytest.raises(WeightsError, match=r"^it is in the layout wkentaro, of fcn16s, fcn32s, fcn8s$"):
        layouts.recognise(published.wkentaro("fcn8s"), "segnet")


def test_an_unknown_layout_is_refused_with_those_that_there_are() -> None:
    said = r"^it has no layout 'wkentaroo'; there is caffe_fcn, crfasrnn, wkentaro, wkentaro_at_once$"
    with pytest.raises(WeightsError, match=said):
        layouts.recognise(published.wkentaro("fcn8s"), "fcn8s", "wkentaroo")


def random_state(front_end: str, **architecture: object) -> State:
    """A narrow network's weights, all of them random, its upsampling too."""
    torch.manual_seed(0)
    module = frontends.load(front_end)
    state = dict(module.Network(module.Architecture(**{"width": 1 / 16, "classes": 5} | architecture)).state_dict())
    for name, tensor in state.items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif tensor.is_floating_point():
            tensor.add_(torch.randn(tensor.shape), alpha=0.1)
    return state


def outputs(front_end: str, data: bytes) -> torch.Tensor:
    """What the network gives for a fixed input, in training's precision."""
    torch.manual_seed(1)
    with torch.inference_mode():
        return weights.open_network(front_end, data).module.eval()(torch.randn(1, 3, 41, 70) * 30)


def assert_same(front_end: str, state: State, converted: Converted, **architecture: object) -> None:
    """The converted network against the one that has the state directly."""
    module = frontends.load(front_end)
    network = module.Network(module.Architecture(**{"width": 1 / 16, "classes": 5} | architecture))
    network.load_state_dict(state)
    torch.manual_seed(1)
    with torch.inference_mode():
        expected = network.eval()(torch.randn(1, 3, 41, 70) * 30)
    found = outputs(front_end, converted.data)
    assert expected.std() > 0
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def blobs_of(state: State, rename: Callable[[str], str] = str) -> dict[str, list[np.ndarray]]:
    """Weights and biases as a Caffe net's layers."""
    layers: dict[str, list[np.ndarray]] = {}
    for key, tensor in state.items():
        layers.setdefault(rename(key.rpartition(".")[0]), []).append(tensor.numpy())
    return layers


@pytest.mark.parametrize("front_end", ["fcn32s", "fcn16s", "fcn8s"])
def test_wkentaro(front_end: str) -> None:
    state = random_state(front_end)
    data = torch_file({"epoch": 1, "arch": "FCN", "optim_state_dict": {}, "model_state_dict": state})
    converted = convert(data, "model_best.pth.tar", front_end)
    assert converted.layout == "wkentaro"
    assert set(converted.left_over) == {"epoch", "arch", "optim_state_dict"}
    assert_same(front_end, state, converted)


def test_wkentaro_at_once_is_chosen_and_scales_its_pools() -> None:
    state = random_state("fcn8s")
    converted = convert(torch_file(state), "atonce.pth", "fcn8s", layout="wkentaro_at_once")
    assert_same("fcn8s", state, converted, at_once=True)


def test_crfasrnn_has_a_bias_and_a_mean_field() -> None:
    state = random_state("fcn8s")
    bias = torch.randn(5)
    field = {f"crfrnn.{name}": torch.eye(5) for name in ("spatial_ker_weights", "compatibility_matrix")}
    converted = convert(torch_file(state | field | {"upscore2.bias": bias}), "crfasrnn_weights.pth", "fcn8s")
    assert converted.left_over == dict.fromkeys(field, "of the mean field")
    assert converted.used == len(state) + 1
    assert converted.notes.preprocessing.longest == 500
    assert_same("fcn8s", state | {"score_pool4.bias": state["score_pool4.bias"] + bias}, converted)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("front_end", ["fcn32s", "fcn16s", "fcn8s"])
def test_caffe_fcn_of_2016(front_end: str, version: int) -> None:
    state = random_state(front_end)
    converted = convert(caffemodel(blobs_of(state), version), "fcn.caffemodel", front_end)
    assert converted.layout == "caffe_fcn" and converted.left_over == {}
    assert_same(front_end, state, converted)
    assert converted.notes.preprocessing.channels == "bgr"


def test_caffe_fcn_trained_at_once_carries_its_scales() -> None:
    state = random_state("fcn8s")
    scales = {"scale_pool4": [np.array([0.01], np.float32)], "scale_pool3": [np.array([0.0001], np.float32)]}
    converted = convert(caffemodel(blobs_of(state) | scales), "fcn.caffemodel", "fcn8s")
    assert converted.used == len(state) + 2
    assert_same("fcn8s", state, converted, at_once=True)


def named_in_2015(layer: str) -> str:
    names = {"upscore2": "score2", "upscore_pool4": "score4"} | dict.fromkeys(
        ("upscore", "upscore16", "upscore8"), "upsample"
    )
    return names.get(layer, layer.replace("_", "-") if layer.startswith("score") else layer)


@pytest.mark.parametrize("front_end", ["fcn32s", "fcn16s", "fcn8s"])
def test_caffe_fcn_of_2015_and_crf_rnn(front_end: str) -> None:
    state = random_state(front_end)
    layers = blobs_of(state, named_in_2015) | {"inference1": [np.eye(5, dtype=np.float32)]}
    layers["upsample"].append(np.zeros(5, np.float32))
    if "score2" in layers:
        layers["score2"].append(np.arange(5, dtype=np.float32))
        state["score_pool4.bias"] = state["score_pool4.bias"] + torch.arange(5)
    crops = caffemodel({"crop": []}, 1)
    converted = convert(caffemodel(layers, 1) + crops + crops, "fcn.caffemodel", front_end)
    assert set(converted.left_over.values()) == {"of the mean field", "zeros, not learnt"}
    assert_same(front_end, state, converted)


def segnet_layers(state: State) -> dict[str, list[np.ndarray]]:
    """As compute_bn_statistics.py leaves them: the statistics of a norm are in its scale and shift."""
    layers = {}
    for key in [key.removesuffix(".weight") for key in state if key.endswith(".weight")]:
        weight, bias = state[f"{key}.weight"], state[f"{key}.bias"]
        if key.endswith("_bn"):
            scale = weight / torch.sqrt(state[f"{key}.running_var"] + 1e-5)
            shift = bias - scale * state[f"{key}.running_mean"]
            layers[key] = [scale.view(1, -1, 1, 1).numpy(), shift.view(1, -1, 1, 1).numpy()]
        else:
            layers[key] = [weight.numpy(), bias.numpy()]
    return layers


@pytest.mark.parametrize("front_end", ["segnet", "segnet_basic"])
def test_caffe_segnet(front_end: str) -> None:
    state = random_state(front_end)
    converted = convert(caffemodel(segnet_layers(state)), "segnet.caffemodel", front_end)
    assert converted.layout == "caffe_segnet" and converted.left_over == {}
    assert_same(front_end, state, converted)


@pytest.mark.parametrize("dropped", [False, True])
def test_caffe_segnet_with_absorbed_norms(dropped: bool) -> None:
    state = random_state("segnet")
    layers = segnet_layers(state)
    for norm in [name for name in layers if name.endswith("_bn")]:
        scale, shift = (blob.reshape(-1) for blob in layers[norm])
        weight, bias = layers[norm.removesuffix("_bn")]
        layers[norm.removesuffix("_bn")] = [weight * scale[:, None, None, None], bias * scale + shift]
        layers[norm] = [np.zeros((1, len(scale), 1, 1), np.float32)] * 2
        if dropped:
            del layers[norm]
    converted = convert(caffemodel(layers), "bn_conv_merged_weights.caffemodel", "segnet")
    assert len(converted.left_over) == (0 if dropped else 50)
    assert_same("segnet", state, converted)


def test_a_norm_that_one_layer_lacks_is_missing() -> None:
    layers = segnet_layers(random_state("segnet_basic"))
    del layers["conv3_bn"]
    with pytest.raises(WeightsError, match=r"conv3_bn.weight is missing; conv3_bn.bias is missing; .*\(and \d more\)$"):
        convert(caffemodel(layers), "segnet.caffemodel", "segnet_basic")


TORCHVISION = [
    ("fcn_resnet50", 35_322_218),
    ("fcn_resnet101", 54_314_346),
    ("deeplabv3_resnet50", 42_004_074),
    ("deeplabv3_resnet101", 60_996_202),
    ("deeplabv3_mobilenet_v3_large", 11_029_328),
    ("lraspp_mobilenet_v3_large", 3_221_538),
]


@pytest.mark.parametrize(("model", "count"), TORCHVISION)
def test_the_table_of_torchvisions_names_has_its_number_of_parameters(model: str, count: int) -> None:
    shapes = {name: shape for name, shape in published.torchvision(model).items() if "running" not in name}
    assert sum(math.prod(shape) for name, shape in shapes.items() if COUNTER not in name) == count


@pytest.mark.parametrize(
    ("front_end", "varied"), [("fcn_resnet", {}), ("deeplab_v3", {"auxiliary": True}), ("lraspp", {"width": 1.0})]
)
def test_torchvision(front_end: str, varied: dict[str, object]) -> None:
    state = random_state(front_end, **varied)
    data = torch_file({"model": {f"module.{name}": tensor for name, tensor in state.items()}, "args": Namespace(lr=1)})
    converted = convert(data, "model_29.pth", front_end)
    assert converted.layout == "torchvision"
    assert_same(front_end, state, converted, **varied)
    assert converted.notes.preprocessing.shorter == 520 and converted.notes.preprocessing.channels == "rgb"


@pytest.mark.parametrize("wrapper", ["", "base."])
def test_kazuto1011(wrapper: str) -> None:
    state = random_state("deeplab_v2", trunk="resnet50")
    data = torch_file({f"{wrapper}{name}": tensor for name, tensor in state.items() if COUNTER not in name})
    converted = convert(data, "deeplabv2_resnet101_msc-vocaug-20000.pth", "deeplab_v2")
    assert converted.layout == "kazuto1011"
    assert_same("deeplab_v2", state, converted, trunk="resnet50")


def named_by_isht7(name: str) -> str:
    for ours, theirs in (
        ("layer1.conv1.conv.", "conv1."), ("layer1.conv1.bn.", "bn1."), ("aspp.c", "layer5.conv2d_list."),
        ("reduce.conv.", "conv1."), ("conv3x3.conv.", "conv2."), ("increase.conv.", "conv3."), ("reduce.bn.", "bn1."),
        ("conv3x3.bn.", "bn2."), ("increase.bn.", "bn3."), ("shortcut.conv.", "downsample.0."),
        ("shortcut.bn.", "downsample.1."),
    ):  # fmt: skip
        name = name.replace(ours, theirs)
    return re.sub(r"^layer(\d)\.block(\d+)", lambda found: f"layer{int(found[1]) - 1}.{int(found[2]) - 1}", name)


@pytest.mark.parametrize("wrapper", ["", "Scale."])
def test_isht7_and_speedinghzl(wrapper: str) -> None:
    state = random_state("deeplab_v2", trunk="resnet50")
    data = torch_file({f"{wrapper}{named_by_isht7(name)}": tensor for name, tensor in state.items()})
    converted = convert(data, "MS_DeepLab_resnet_trained_VOC.pth", "deeplab_v2")
    assert converted.layout == "isht7"
    assert set(converted.left_over.values()) == {"a counter of training batches"}
    assert_same("deeplab_v2", state, converted, trunk="resnet50")
    assert converted.notes.preprocessing.channels == "bgr"


@pytest.mark.parametrize("front_end", ["deeplab_v1", "deeplab_v2"])
def test_caffe_deeplab_on_vgg(front_end: str) -> None:
    state = random_state(front_end, trunk="vgg16")
    blobs = blobs_of(state, lambda layer: layer.replace("fc8", "fc8_voc12"))
    converted = convert(caffemodel(blobs, 1), "train_iter_6000.caffemodel", front_end)
    assert converted.layout == "caffe_deeplab_vgg"
    assert_same(front_end, state, converted, trunk="vgg16")


def resnet_layers(state: State, seen: float) -> dict[str, list[np.ndarray]]:
    """Caffe's layers: statistics are sums over a moving window of ``seen`` batches."""
    layers: dict[str, list[np.ndarray]] = {}
    for name in [name.removesuffix(".conv.weight") for name in state if name.endswith(".conv.weight")]:
        if name == "layer1.conv1":
            kinds = ["conv1", "bn_conv1", "scale_conv1"]
        else:
            layer, block, part = name.split(".")
            number, stage = int(block.removeprefix("block")), layer.removeprefix("layer")
            letter = "a" if number == 1 else f"b{number - 1}" if stage in "34" else "abc"[number - 1]
            branch = {"reduce": "2a", "conv3x3": "2b", "increase": "2c", "shortcut": "1"}[part]
            kinds = [f"{kind}{stage}{letter}_branch{branch}" for kind in ("res", "bn", "scale")]
        sums = [state[f"{name}.bn.{statistic}"].numpy() * seen for statistic in ("running_mean", "running_var")]
        layers[kinds[0]] = [state[f"{name}.conv.weight"].numpy()]
        layers[kinds[1]] = [*sums, np.array([seen], np.float32)]
        layers[kinds[2]] = [state[f"{name}.bn.{kind}"].numpy() for kind in ("weight", "bias")]
    for branch in range(4):
        layers[f"fc1_voc12_c{branch}"] = [state[f"aspp.c{branch}.{kind}"].numpy() for kind in ("weight", "bias")]
    return layers


def test_caffe_deeplab_on_resnet() -> None:
    state = random_state("deeplab_v2", trunk="resnet50")
    layers = resnet_layers(state, seen=999.9824)
    suffixes = ("_res075", "_res05")
    copies = {
        published.copy_of(name, suffix): [blob * 0 for blob in blobs]
        for suffix in suffixes
        for name, blobs in layers.items()
    }
    converted = convert(caffemodel(layers | copies), "train2_iter_20000.caffemodel", "deeplab_v2")
    assert converted.layout == "caffe_deeplab_resnet"
    assert converted.used == len(converted.left_over) / 2 == sum(map(len, layers.values()))
    assert set(converted.left_over.values()) == {"a copy for another scale, with the same weights"}
    assert_same("deeplab_v2", state, converted, trunk="resnet50")


def test_caffe_deconvnet() -> None:
    state = random_state("deconvnet")
    layers = {}
    for key in [key.removesuffix(".weight") for key in state if key.endswith(".weight")]:
        weight, bias = state[f"{key}.weight"], state[f"{key}.bias"]
        layers[key] = [weight.numpy(), bias.view(1, 1, 1, -1).numpy()]
        if f"{key}.running_var" in state:
            scale = weight / torch.sqrt(state[f"{key}.running_var"] + 1e-5)
            shift = bias - scale * state[f"{key}.running_mean"]
            layers[key] = [blob.view(1, -1, 1, 1).numpy() for blob in (scale, shift)]
    converted = convert(caffemodel(layers, 1), "DeconvNet_trainval_inference.caffemodel", "deconvnet")
    assert converted.layout == "caffe_deconvnet"
    assert_same("deconvnet", state, converted)


def test_an_ensemble_takes_a_checkpoint_of_each_network() -> None:
    front_end, state = "deconvnet_ensemble", random_state("deconvnet_ensemble")
    files = []
    for prefix, name in (("deconvnet.", "deconvnet.pth"), ("fcn.", "fcn8s.pth")):
        own = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
        files.append(File(name, torch_file(own)))
    converted = convert_all(files, front_end)
    assert converted.layout == "densemask, wkentaro"
    assert_same(front_end, state, converted)
    with pytest.raises(WeightsError, match="takes one of deconvnet, then one of fcn8s; deconvnet.pth was given$"):
        convert_all(files[:1], front_end)
    with pytest.raises(
        WeightsError, match="^fcn8s.pth does not fit front end 'deconvnet': it is in the layout wkentaro"
    ):
        convert_all(files[::-1], front_end)


def test_a_published_checkpoint_cut_to_other_shapes_is_named() -> None:
    state = random_state("fcn8s")
    state["fc6.weight"] = state["fc6.weight"][..., :3, :3]
    with pytest.raises(WeightsError, match=r"fc6.weight is \[256, 32, 3, 3\], the network has \[256, 32, 7, 7\]"):
        convert(torch_file(state), "x", "fcn8s")
    mixed = random_state("fcn8s")
    mixed["score_pool4.weight"] = mixed["score_pool4.weight"][:4]
    with pytest.raises(WeightsError, match=r"score_pool4.weight is \[4, 32, 1, 1\], the network has \[5, 32, 1, 1\]"):
        convert(torch_file(mixed), "x", "fcn8s")


OWN: list[tuple[str, dict[str, object]]] = [
    ("segnet", {}),
    ("fcn8s", {"trunk": "mobilenet_v2", "width": 0.25}),
    ("deeplab_v3", {"form": "paper", "trunk": "resnet50", "output_stride": 16}),
]


@pytest.mark.parametrize(("front_end", "varied"), OWN)
def test_a_networks_own_file_comes_back_as_it_is(front_end: str, varied: dict[str, object]) -> None:
    state = random_state(front_end, **varied)
    converted = convert(safetensors.torch.save(state), "trained.safetensors", front_end)
    assert converted.layout == "densemask"
    assert_same(front_end, state, converted, **varied)
