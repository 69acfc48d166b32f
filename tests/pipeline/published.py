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
