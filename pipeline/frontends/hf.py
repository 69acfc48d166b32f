"""Any semantic segmentation model of Hugging Face's transformers; SegFormer-B0 (Xie et al. 2021) if none is named.

`densemask convert FOLDER --front-end hf` makes native weights of a folder; its config.json becomes the architecture.
"""

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline import frontends
from pipeline.errors import WeightsError
from pipeline.preprocessing import Preprocessing
from pipeline.scores import Resize, Step

WEIGHTS = None
CLASSES = "VOC-21"
SMALLEST = 32  # pixels a side; several models have no smaller features than one of 32
PREPROCESSING = Preprocessing(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), pad_to=SMALLEST)
FULL_SIZE = ("dpt", "upernet")  # their logits are at the size of the image


class Architecture(frontends.Architecture):
    """What varies: the number of classes, and transformers' configuration of the model."""

    config: dict[str, Any] = Field({"model_type": "segformer"}, description="As in config.json, without class names.")


class Network(nn.Module):
    """float32 [N, 3, H, W] -> logits [N, C, h, w]."""

    foldable = False  # batch norms need not follow their convolutions in the order that layers are registered in

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        transformers = library()
        about = {**architecture.config, "num_labels": architecture.classes}
        check(about)
        with torch.device("cpu"):  # tables that no file holds are computed here, whatever the weights are built on
            try:
                config = transformers.AutoConfig.for_model(**about)
                self.model = transformers.AutoModelForSemanticSegmentation.from_config(config, trust_remote_code=False)
            except Exception as error:  # a configuration is checked by the model that it is of, in its own way
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise WeightsError(f"transformers cannot build {about['model_type']}: {reason}") from error
        self.full_size = about["model_type"] in FULL_SIZE

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(pixel_values=x).logits
        if self.full_size and logits.shape[-2:] != x.shape[-2:]:
            logits = F.interpolate(logits, x.shape[-2:], mode="bilinear")
        return logits

    def steps(self, height: int, width: int) -> tuple[Step, ...]:
        return () if self.full_size else (Resize(height, width, align_corners=False),)


def architecture_of(state: Mapping[str, Tensor]) -> Architecture:
    """SegFormer-B0: weights that carry no notes do not say what they are of."""
    classifier = state.get("model.decode_head.classifier.bias")
    return Architecture(classes=21 if classifier is None else len(classifier))


def library() -> Any:
    """transformers, silent and without a download. Raises WeightsError where it is not installed."""
    try:
        import transformers
    except ImportError as error:
        raise WeightsError("front end 'hf' needs transformers: pip install 'densemask[hf]'") from error
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def check(config: Mapping[str, Any]) -> None:
    """Raises WeightsError for a model that is not semantic segmentation's, or whose parts would be downloaded."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES as KNOWN

    kind = config.get("model_type")
    if kind not in KNOWN:
        raise WeightsError(f"model_type {kind!r} is no model of semantic segmentation; known: {', '.join(KNOWN)}")
    if config.get("backbone") or config.get("use_timm_backbone"):
        raise WeightsError("its backbone is named, not configured (backbone_config), and nothing is downloaded")
