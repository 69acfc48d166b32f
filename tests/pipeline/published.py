"""The names and shapes of published checkpoints, as their projects define them."""

VGG = {  # convolution: output and input channels
    "conv1_1": (64, 3),
    "conv1_2": (64, 64),
    "conv2_1": (128, 64),
    "conv2_2": (128, 128),
    "conv3_1": (256, 128),
    "conv3_2": (256, 256),
    "conv3_3": (256, 256),
    "conv4_1": (512, 256),
    "conv4_2": (512, 512),
    "conv4_3": (512, 512),
    "conv5_1": (512, 512),
    "conv5_2": (512, 512),
    "conv5_3": (512, 512),
}
SEGNET_DECODER = {
    "conv5_3_D": (512, 512),
    "conv5_2_D": (512, 512),
    "conv5_1_D": (512, 512),
    "conv4_3_D": (512, 512),
    "conv4_2_D": (512, 512),
    "conv4_1_D": (256, 512),
    "conv3_3_D": (256, 256),
    "conv3_2_D": (256, 256),
    "conv3_1_D": (128, 256),
    "conv2_2_D": (128, 128),
    "conv2_1_D": (64, 128),
    "conv1_2_D": (64, 64),
}
SEGNET_BASIC = {
    "conv1": (64, 3),
    **dict.fromkeys(("conv2", "conv3", "conv4"), (64, 64)),
    **{f"conv_decode{level}": (64, 64) for level in (4, 3, 2, 1)},
}
Shapes = dict[str, tuple[int, ...]]


def convolution(name: str, out: int, into: int, kernel: int) -> Shapes:
    return {f"{name}.weight": (out, into, kernel, kernel), f"{name}.bias": (out,)}


def vgg() -> Shapes:
    return {key: shape for name, sizes in VGG.items() for key, shape in convolution(name, *sizes, 3).items()}


def wkentaro(front_end: str, classes: int = 21) -> Shapes:
    """torchfcn's FCN32s, FCN16s, FCN8s and FCN8sAtOnce."""
    upsampled = {"fcn32s": {"upscore": 64}, "fcn16s": {"upscore2": 4, "upscore16": 32}}
    upsampled["fcn8s"] = {"upscore2": 4, "upscore_pool4": 4, "upscore8": 16}
    shapes = vgg() | convolution("fc6", 4096, 512, 7) | convolution("fc7", 4096, 4096, 1)
    shapes |= convolution("score_fr", classes, 4096, 1)
    if front_end != "fcn32s":
        shapes |= convolution("score_pool4", classes, 512, 1)
    if front_end == "fcn8s":
        shapes |= convolution("score_pool3", classes, 256, 1)
    return shapes | {
        f"{name}.weight": (classes, classes, kernel, kernel) for name, kernel in upsampled[front_end].items()
    }


def crfasrnn() -> Shapes:
    """sadeepj's CrfRnnNet."""
    mean_field = {f"crfrnn.{name}": (21, 21) for name in ("spatial_ker_weights", "bilateral_ker_weights")}
    return wkentaro("fcn8s") | {"upscore2.bias": (21,)} | mean_field | {"crfrnn.compatibility_matrix": (21, 21)}


def caffe(shapes: Shapes, renamed: dict[str, str] | None = None) -> Shapes:
    """The same layers as blobs, under Caffe's names."""
    blobs = {}
    for key, shape in shapes.items():
        layer, _, kind = key.rpartition(".")
        blobs[f"{(renamed or {}).get(layer, layer)}.{('weight', 'bias').index(kind)}"] = shape
    return blobs


def caffe_2015(front_end: str) -> Shapes:
    """The model zoo's FCNs; CRF-RNN names its layers alike."""
    renamed = {"score_fr": "score-fr", "score_pool4": "score-pool4", "score_pool3": "score-pool3"}
    renamed |= {"upscore2": "score2", "upscore_pool4": "score4"}
    renamed |= dict.fromkeys(("upscore", "upscore16", "upscore8"), "upsample")
    biased = {} if front_end == "fcn32s" else {"score2.1": (21,)}
    return caffe(wkentaro(front_end), renamed) | biased


def caffe_segnet(front_end: str, classes: int = 11) -> Shapes:
    """SegNet-Tutorial's models; a BN layer has a scale and a shift."""
    layers, kernel = (VGG | SEGNET_DECODER, 3) if front_end == "segnet" else (SEGNET_BASIC, 7)
    blobs: Shapes = {}
    for name, sizes in layers.items():
        blobs |= caffe(convolution(name, *sizes, kernel))
        blobs |= {f"{name}_bn.{index}": (1, sizes[0], 1, 1) for index in (0, 1)}
    last = convolution("conv1_1_D", classes, 64, 3) if kernel == 3 else convolution("conv_classifier", classes, 64, 1)
    return blobs | caffe(last)


def caffe_deeplab_vgg(front_end: str, classes: int = 21) -> Shapes:
    """LargeFOV of DeepLab v1 and ASPP-L of v2."""
    shapes = vgg()
    for branch in ("",) if front_end == "deeplab_v1" else ("_1", "_2", "_3", "_4"):
        shapes |= convolution(f"fc6{branch}", 1024, 512, 3) | convolution(f"fc7{branch}", 1024, 1024, 1)
        shapes |= convolution(f"fc8_voc12{branch}", classes, 1024, 1)
    return caffe(shapes)


def caffe_deconvnet() -> Shapes:
    """DeconvNet_trainval_inference; a BN layer has a scale and a shift, a deconvolution its inputs first."""
    layers = [(name, f"bn{name[4:]}", (*sizes, 3, 3), sizes[0]) for name, sizes in VGG.items()]
    layers += [("fc6", "bnfc6", (4096, 512, 7, 7), 4096), ("fc7", "bnfc7", (4096, 4096, 1, 1), 4096)]
    layers += [("fc6-deconv", "fc6-deconv-bn", (4096, 512, 7, 7), 512)]
    into = 512
    for stage, channels in (
        (5, (512, 512, 512)),
        (4, (512, 512, 256)),
        (3, (256, 256, 128)),
        (2, (128, 64)),
        (1, (64, 64)),
    ):
        for number, out in enumerate(channels, 1):
            layers.append((f"deconv{stage}_{number}", f"debn{stage}_{number}", (into, out, 3, 3), out))
            into = out
    blobs: Shapes = {}
    for name, norm, shape, out in layers:
        blobs |= {f"{name}.0": shape, f"{name}.1": (1, 1, 1, out)}
        blobs |= {f"{norm}.{index}": (1, out, 1, 1) for index in (0, 1)}
    return blobs | caffe(convolution("seg-score-voc", 21, 64, 1))


def norm(name: str, channels: int) -> Shapes:
    kinds = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{kind}": (channels,) for kind in kinds}, f"{name}.num_batches_tracked": ()}


def conv_norm(conv: str, bn: str, out: int, into: int, kernel: int) -> Shapes:
    return {f"{conv}.weight": (out, into, kernel, kernel), **norm(bn, out)}


def resnet(blocks: tuple[int, ...]) -> Shapes:
    """torchvision's resnet50 and resnet101 without their classifier."""
    shapes, into = conv_norm("conv1", "bn1", 64, 3, 7), 64
    for layer, repeats in enumerate(blocks, 1):
        inner = 32 * 2**layer
        for block in range(repeats):
            name = f"layer{layer}.{block}"
            shapes |= conv_norm(f"{name}.conv1", f"{name}.bn1", inner, into, 1)
            shapes |= conv_norm(f"{name}.conv2", f"{name}.bn2", inner, inner, 3)
            shapes |= conv_norm(f"{name}.conv3", f"{name}.bn3", 4 * inner, inner, 1)
            if block == 0:
                shapes |= conv_norm(f"{name}.downsample.0", f"{name}.downsample.1", 4 * inner, into, 1)
            into = 4 * inner
    return shapes


MOBILENET_V3 = (  # input channels, kernel, expanded, output channels, squeeze-excite's
    (16, 3, 16, 16, 0), (16, 3, 64, 24, 0), (24, 3, 72, 24, 0), (24, 5, 72, 40, 24), (40, 5, 120, 40, 32),
    (40, 5, 120, 40, 32), (40, 3, 240, 80, 0), (80, 3, 200, 80, 0), (80, 3, 184, 80, 0), (80, 3, 184, 80, 0),
    (80, 3, 480, 112, 120), (112, 3, 672, 112, 168), (112, 5, 672, 160, 168), (160, 5, 960, 160, 240),
    (160, 5, 960, 160, 240),
)  # fmt: skip


def mobilenet_v3() -> Shapes:
    """torchvision's mobilenet_v3_large without its classifier."""
    shapes = conv_norm("0.0", "0.1", 16, 3, 3)
    for index, (into, kernel, expanded, out, squeezed) in enumerate(MOBILENET_V3, 1):
        parts: list[Shapes] = []
        if expanded != into:
            parts.append(conv_norm("0", "1", expanded, into, 1))
        parts.append(conv_norm("0", "1", expanded, 1, kernel))
        if squeezed:
            parts.append(convolution("fc1", squeezed, expanded, 1) | convolution("fc2", expanded, squeezed, 1))
        parts.append(conv_norm("0", "1", out, expanded, 1))
        for place, part in enumerate(parts):
            shapes |= {f"{index}.block.{place}.{name}": shape for name, shape in part.items()}
    return shapes | conv_norm("16.0", "16.1", 960, 160, 1)


def fcn_head(name: str, channels: int, classes: int) -> Shapes:
    inner = channels // 4
    return conv_norm(f"{name}.0", f"{name}.1", inner, channels, 3) | convolution(f"{name}.4", classes, inner, 1)


def torchvision(model: str, classes: int = 21) -> Shapes:
    """torchvision.models.segmentation, with the auxiliary head that its published weights hold."""
    blocks = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}.get(model.partition("_")[2])
    backbone = mobilenet_v3() if blocks is None else resnet(blocks)
    shapes = {f"backbone.{name}": shape for name, shape in backbone.items()}
    channels, auxiliary = (960, 40) if blocks is None else (2048, 1024)
    if model.startswith("lraspp"):
        shapes |= conv_norm("classifier.cbr.0", "classifier.cbr.1", 128, 960, 1)
        shapes |= {"classifier.scale.1.weight": (128, 960, 1, 1)}
        shapes |= convolution("classifier.low_classifier", classes, 40, 1)
        return shapes | convolution("classifier.high_classifier", classes, 128, 1)
    shapes |= fcn_head("aux_classifier", auxiliary, classes)
    if model.startswith("fcn"):
        return shapes | fcn_head("classifier", channels, classes)
    aspp = "classifier.0"
    for branch, kernel in enumerate((1, 3, 3, 3)):
        shapes |= conv_norm(f"{aspp}.convs.{branch}.0", f"{aspp}.convs.{branch}.1", 256, channels, kernel)
    shapes |= conv_norm(f"{aspp}.convs.4.1", f"{aspp}.convs.4.2", 256, channels, 1)
    shapes |= conv_norm(f"{aspp}.project.0", f"{aspp}.project.1", 256, 1280, 1)
    shapes |= conv_norm("classifier.1", "classifier.2", 256, 256, 3)
    return shapes | convolution("classifier.4", classes, 256, 1)


def isht7(wrapper: str = "Scale.", classes: int = 21) -> Shapes:
    """Res_Deeplab of isht7 and, without the wrapper, of speedinghzl; both older than counters of batches."""
    shapes = resnet((3, 4, 23, 3))
    for branch in range(4):
        shapes |= convolution(f"layer5.conv2d_list.{branch}", classes, 2048, 3)
    return {f"{wrapper}{name}": shape for name, shape in shapes.items() if "num_batches" not in name}


def kazuto1011(wrapper: str = "base.", classes: int = 21) -> Shapes:
    """DeepLabV2_ResNet101, in the multi-scale wrapper as published."""
    shapes, into = conv_norm("layer1.conv1.conv", "layer1.conv1.bn", 64, 3, 7), 64
    for layer, repeats in zip((2, 3, 4, 5), (3, 4, 23, 3), strict=True):
        inner = 16 * 2**layer
        for block in range(1, repeats + 1):
            name = f"layer{layer}.block{block}"
            parts = [("reduce", inner, into, 1), ("conv3x3", inner, inner, 3), ("increase", 4 * inner, inner, 1)]
            if block == 1:
                parts.append(("shortcut", 4 * inner, into, 1))
            for part, *sizes in parts:
                shapes |= conv_norm(f"{name}.{part}.conv", f"{name}.{part}.bn", *sizes)
            into = 4 * inner
    for branch in range(4):
        shapes |= convolution(f"aspp.c{branch}", classes, 2048, 3)
    return {f"{wrapper}{name}": shape for name, shape in shapes.items()}


def caffe_deeplab_resnet(classes: int = 21) -> Shapes:
    """train2_iter_20000 of DeepLab v2: every layer three times, the copies for scales 0.75 and 0.5."""
    blobs: Shapes = {"conv1.0": (64, 3, 7, 7), **_caffe_norm("bn_conv1", "scale_conv1", 64)}
    into = 64
    for stage, repeats in zip((2, 3, 4, 5), (3, 4, 23, 3), strict=True):
        inner = 16 * 2**stage
        numbered = [f"b{number}" for number in range(1, repeats)] if stage in (3, 4) else ["b", "c"]
        for letter in ["a", *numbered]:
            parts = [("2a", inner, into, 1), ("2b", inner, inner, 3), ("2c", 4 * inner, inner, 1)]
            if letter == "a":
                parts.append(("1", 4 * inner, into, 1))
            for part, out, channels, kernel in parts:
                place = f"{stage}{letter}_branch{part}"
                blobs |= {f"res{place}.0": (out, channels, kernel, kernel)}
                blobs |= _caffe_norm(f"bn{place}", f"scale{place}", out)
            into = 4 * inner
    for branch in range(4):
        blobs |= caffe(convolution(f"fc1_voc12_c{branch}", classes, 2048, 3))
    copies = {}
    for suffix in ("_res075", "_res05"):
        for name, shape in blobs.items():
            layer, _, index = name.rpartition(".")
            copies[f"{copy_of(layer, suffix)}.{index}"] = shape
    return blobs | copies


def copy_of(layer: str, suffix: str) -> str:
    """What the layer is called at another scale: res2a_branch1_res05, fc1_voc12_res05_c0."""
    return layer.replace("_c", f"{suffix}_c") if layer.startswith("fc1") else f"{layer}{suffix}"


def _caffe_norm(statistics: str, scale: str, channels: int) -> Shapes:
    return {
        f"{statistics}.0": (channels,), f"{statistics}.1": (channels,), f"{statistics}.2": (1,),
        f"{scale}.0": (channels,), f"{scale}.1": (channels,),
    }  # fmt: skip
