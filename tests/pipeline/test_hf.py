import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from pipeline import catalogue, weights
from pipeline.config import Recipe
from pipeline.errors import WeightsError
from pipeline.preprocessing import Preprocessing, prepare
from pipeline.scores import softmax
from pipeline.weights.convert import convert
from pipeline.weights.hugging_face import convert_folder, preprocessing

CONVNEXT = {"model_type": "convnext", "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
SWIN = {"model_type": "swin", "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
STAGES = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
UPERNET = {"model_type": "upernet", "hidden_size": 16, "auxiliary_channels": 8}
MODELS: dict[str, dict[str, Any]] = {
    "segformer": {
        "model_type": "segformer", "hidden_sizes": [8, 16, 20, 24], "depths": [1, 1, 1, 1], "decoder_hidden_size": 16,
    },
    "mobilenet_v2": {"model_type": "mobilenet_v2", "depth_multiplier": 0.35, "output_stride": 8},
    "dpt": {
        "model_type": "dpt", "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 64,
        "intermediate_size": 32, "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8, 8, 8, 8],
        "fusion_hidden_size": 8, "use_batch_norm_in_fusion_residual": True,
    },
    "upernet-convnext": {**UPERNET, "auxiliary_in_channels": 24, "backbone_config": CONVNEXT | STAGES},
    "upernet-swin": {**UPERNET, "auxiliary_in_channels": 32, "backbone_config": SWIN | STAGES},
}  # fmt: skip
NAMES = {0: "wall", 1: "sky", 2: "tree"}
SQUARE = {"do_resize": True, "size": {"height": 64, "width": 64}, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2] * 3}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def saved(folder: Path, name: str, preprocessor: dict[str, Any] = SQUARE) -> torch.nn.Module:
    """A random model of a kind, in a folder as transformers writes it."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(**MODELS[name], id2label=NAMES)
    model = transformers.AutoModelForSemanticSegmentation.from_config(config).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return model  # type: ignore[no-any-return]


@pytest.fixture
def segformer(tmp_path: Path) -> Path:
    saved(tmp_path / "segformer", "segformer")
    return tmp_path / "segformer"


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_becomes_one_file_that_gives_the_models_own_logits(name: str, tmp_path: Path) -> None:
    model = saved(tmp_path, name)
    converted = convert_folder(str(tmp_path))
    assert converted.notes.classes == ("wall", "sky", "tree")
    assert converted.parameters == sum(parameter.numel() for parameter in model.parameters())

    rgb = np.random.default_rng(0).integers(0, 256, (50, 90, 3)).astype(np.uint8)
    (scores,) = weights.open_front_end("hf", converted.data).score([rgb])
    assert scores.size == (50, 90)
    tensor, steps = prepare(rgb, converted.notes.preprocessing)
    with torch.inference_mode():
        logits = model(pixel_values=torch.from_numpy(tensor)[None]).logits[0]
    if scores.kept is None:
        np.testing.assert_allclose(scores.logits, logits.numpy(), atol=2e-3 * float(logits.abs().max()))
    else:
        assert scores.steps == steps
        expected = logits.softmax(0)[list(scores.kept.labels)]
        found = softmax(scores.logits.astype(np.float32))
        np.testing.assert_allclose(found, expected.numpy(), atol=5e-3)


def test_it_sees_what_transformers_own_processor_makes(segformer: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (50, 90, 3)).astype(np.uint8)
    processor = transformers.AutoImageProcessor.from_pretrained(segformer, use_fast=False)
    expected = processor(rgb, return_tensors="np")["pixel_values"][0]
    tensor, _ = prepare(rgb, convert_folder(str(segformer)).notes.preprocessing)
    np.testing.assert_allclose(tensor, expected, atol=1e-5)


def test_a_preprocessors_configuration_is_read() -> None:
    asked = {"size": {"shortest_edge": 513}, "crop_size": {"height": 513, "width": 513}, "do_normalize": True}
    asked |= {"rescale_factor": 1 / 255, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    assert preprocessing(asked) == Preprocessing(mean=(127.5,) * 3, std=(127.5,) * 3, shorter=513, pad_to=32)
    flipped = {"do_flip_channel_order": True, "size": {"height": 256, "width": 320}, "do_rescale": True}
    expected = Preprocessing(channels="bgr", mean=(0,) * 3, std=(255,) * 3, size=(256, 320), pad_to=32)
    assert preprocessing(flipped) == expected
    raw = {"do_rescale": False, "do_normalize": False, "do_resize": False, "size": 512}
    assert preprocessing(raw) == Preprocessing(mean=(0,) * 3, std=(1,) * 3, pad_to=32)


def with_pickle(folder: Path) -> str:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    return "holds no .safetensors file; pickled weights are not read$"


def with_half_a_file(folder: Path) -> str:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    return "transformers cannot load .*segformer: .+"


def without_config(folder: Path) -> str:
    (folder / "config.json").unlink()
    return "holds no config.json; a folder of a transformers model is needed$"


def without_preprocessor(folder: Path) -> str:
    (folder / "preprocessor_config.json").unlink()
    return "holds no preprocessor_config.json; "


def with_broken_config(folder: Path) -> str:
    (folder / "config.json").write_text("{")
    return "config.json is not JSON"


def with_another_model(folder: Path) -> str:
    (folder / "config.json").write_text('{"model_type": "bert"}')
    return "model_type 'bert' is no model of semantic segmentation; known: .*segformer"


def with_code(folder: Path) -> str:
    (folder / "evil.py").write_text(f"open({str(folder / 'run')!r}, 'w')")
    config = json.loads((folder / "config.json").read_text())
    remote = {"auto_map": {"AutoConfig": "evil.C", "AutoModelForSemanticSegmentation": "evil.M"}, "model_type": "evil"}
    (folder / "config.json").write_text(json.dumps(config | remote))
    return "model_type 'evil' is no model of semantic segmentation"


def with_a_named_backbone(folder: Path) -> str:
    (folder / "config.json").write_text('{"model_type": "upernet", "backbone": "facebook/convnext-tiny-224"}')
    return "its backbone is named, not configured .*, and nothing is downloaded$"


def with_twenty_classes(folder: Path) -> str:
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(index): f"c{index}" for index in range(20)}
    del config["label2id"]
    (folder / "config.json").write_text(json.dumps(config))
    return r"decode_head.classifier.bias is \[3\], the network has \[20\]"


def with_another_tensor(folder: Path) -> str:
    state = weights.parse((folder / "model.safetensors").read_bytes())
    del state["decode_head.classifier.bias"]
    data = weights.write(state | {"aux.weight": torch.zeros(1)}, convert_folder(str(folder)).notes)
    (folder / "model.safetensors").write_bytes(data)
    return "decode_head.classifier.bias is missing; aux.weight is not part of the network$"


def with_nan(folder: Path) -> str:
    state = weights.parse((folder / "model.safetensors").read_bytes())
    state["decode_head.classifier.bias"][1] = float("nan")
    (folder / "model.safetensors").write_bytes(weights.write(state, convert_folder(str(folder)).notes))
    return "model.decode_head.classifier.bias holds values that are not finite$"


@pytest.mark.parametrize(
    "spoil",
    [
        with_pickle, with_half_a_file, without_config, without_preprocessor, with_broken_config, with_another_model,
        with_code, with_a_named_backbone, with_twenty_classes, with_another_tensor, with_nan,
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_folder_is_one_line(segformer: Path, spoil: Any) -> None:
    said = spoil(segformer)
    with pytest.raises(WeightsError, match=said) as caught:
        convert_folder(str(segformer))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert not (segformer / "run").exists()


def test_a_configuration_that_builds_nothing_is_one_line() -> None:
    from pipeline.frontends import hf

    architecture = hf.Architecture(config={"model_type": "segformer", "depths": "many"})
    with pytest.raises(WeightsError, match="transformers cannot build segformer: "):
        hf.Network(architecture)


def test_without_transformers_it_is_said_what_to_install(segformer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = convert_folder(str(segformer)).data
    monkeypatch.setitem(sys.modules, "transformers", None)
    said = r"front end 'hf' needs transformers: pip install 'densemask\[hf\]'$"
    for action in (lambda: convert_folder(str(segformer)), lambda: weights.open_network("hf", data)):
        with pytest.raises(WeightsError, match=said):
            action()
    model = catalogue.model("hf")
    assert model.parameters is None and "pip install 'densemask[hf]'" in model.weights


def test_a_file_instead_of_a_folder_needs_names_of_the_default_model(segformer: Path) -> None:
    with pytest.raises(WeightsError, match="are in no layout that is known"):
        convert((segformer / "model.safetensors").read_bytes(), "model.safetensors", "hf")


def test_a_folder_as_weights_leads_to_convert(segformer: Path) -> None:
    recipe = Recipe.model_validate({"front_end": {"name": "hf", "weights": str(segformer)}})
    with pytest.raises(WeightsError, match="it is a folder; `densemask convert` makes one file of it$"):
        weights.read_weights(recipe)
