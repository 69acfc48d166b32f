"""A folder of a transformers model (config.json, preprocessor_config.json, *.safetensors) -> native weights."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.classes import ClassSet
from pipeline.errors import WeightsError
from pipeline.preprocessing import Preprocessing, Triple
from pipeline.weights import Notes, write
from pipeline.weights.convert import Converted

FRONT_END = "hf"
CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
# Of a configuration: what says nothing of the network.
NOT_OF_THE_NETWORK = ("transformers_version", "_name_or_path", "architectures", "dtype", "id2label", "label2id")


def convert_folder(folder: str, classes: ClassSet | None = None) -> Converted:
    """Native weights of front end ``hf``, with the folder's class names unless others are named.

    Only safetensors are read, nothing is downloaded, no code of the folder runs.

    Raises WeightsError where a file is missing or broken, or the tensors are not exactly those of the model.
    """
    from pipeline.frontends import hf

    root, transformers = Path(folder), hf.library()
    config, preprocessor = (_json(root, name) for name in (CONFIG, PREPROCESSOR))
    files = sorted(root.glob("*.safetensors"))
    if not files:
        raise WeightsError(f"{folder} holds no .safetensors file; pickled weights are not read")
    hf.check(config)
    try:
        model, about = transformers.AutoModelForSemanticSegmentation.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, output_loading_info=True,
            ignore_mismatched_sizes=True, dtype="float32",
        )  # fmt: skip
    except Exception as error:  # transformers and safetensors raise whatever a broken folder leads them to
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"transformers cannot load {folder}: {reason}") from error
    _check_loaded(folder, about)
    state = {f"model.{name}": tensor.clone() for name, tensor in model.state_dict().items()}
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise WeightsError(f"{folder}: {name} holds values that are not finite")
    kept = {name: value for name, value in model.config.to_diff_dict().items() if name not in NOT_OF_THE_NETWORK}
    count, labels = model.config.num_labels, model.config.id2label
    named = classes or ClassSet(tuple(str(labels[index]) for index in range(count)), None)
    if len(named.names) != count:
        raise WeightsError(f"{folder} has {count} classes, and {len(named.names)} are named")
    architecture = hf.Architecture(classes=count, config=json.loads(json.dumps(kept)))
    notes = Notes(
        front_end=FRONT_END,
        architecture=architecture.model_dump(mode="json"),
        preprocessing=preprocessing(preprocessor),
        classes=named.names,
        palette=named.palette,
        source=f"{root.resolve().name}, {config['model_type']} of transformers",
        source_sha256=_fingerprint([root / CONFIG, root / PREPROCESSOR, *files]),
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Converted(write(state, notes), notes, "transformers", len(state), {}, parameters)


def preprocessing(config: Mapping[str, Any]) -> Preprocessing:
    """What a preprocessor_config.json asks for; a centre crop is not done, so that the whole image has scores."""
    from pipeline.frontends.hf import SMALLEST

    scale = 1 / config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0
    mean, std = (0.0,) * 3, (1.0,) * 3
    if config.get("do_normalize", "image_mean" in config):
        mean, std = config["image_mean"], config["image_std"]
    size = config.get("size") or {}
    if isinstance(size, int):
        size = {"shortest_edge": size}
    resized = size if config.get("do_resize", True) else {}
    fixed = "height" in resized and "shortest_edge" not in resized
    return Preprocessing(
        channels="bgr" if config.get("do_flip_channel_order") else "rgb",
        mean=_scaled(mean, scale),
        std=_scaled(std, scale),
        size=(resized["height"], resized["width"]) if fixed else None,
        shorter=resized.get("shortest_edge"),
        pad_to=SMALLEST,
    )


def _scaled(levels: Any, scale: float) -> Triple:
    red, green, blue = (float(level) * scale for level in levels)
    return red, green, blue


def _json(root: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads((root / name).read_bytes())
    except OSError as error:
        raise WeightsError(f"{root} holds no {name}; a folder of a transformers model is needed") from error
    except ValueError as error:
        raise WeightsError(f"{root / name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{root / name} holds no object")
    return content


def _check_loaded(folder: str, about: Mapping[str, Any]) -> None:
    """Raises WeightsError unless every tensor of the model was in the files, and none besides."""
    problems = [f"{name} is missing" for name in sorted(about["missing_keys"])]
    problems += [f"{name} is not part of the network" for name in sorted(about["unexpected_keys"])]
    for name, found, expected in sorted(about["mismatched_keys"]):
        problems.append(f"{name} is {list(found)}, the network has {list(expected)}")
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise WeightsError(f"{folder}: {'; '.join(problems[:3])}{more}")


def _fingerprint(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
