import pytest
import torch
from pydantic import ValidationError

from pipeline.frontends.trunks import TrunkArchitecture, build, resnet_caffe, trunk_of
from pipeline.frontends.trunks.resnet import ResNet
from pipeline.frontends.trunks.vgg16 import VGG16


class CaffeResNet(resnet_caffe.Layers):
    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return self.features(x)


def with_statistics(network: torch.nn.Module) -> torch.nn.Module:
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.fill_(0.8)
            module.running_var.fill_(1.3)
    return network.eval()


@pytest.mark.parametrize("family", [ResNet, CaffeResNet])
def test_a_dilated_resnet_computes_the_same_at_more_places(family: type[torch.nn.Module]) -> None:
    torch.manual_seed(0)
    strided = with_statistics(family("resnet50", 1 / 16))
    dilated = family("resnet50", 1 / 16, output_stride=8).eval()
    dilated.load_state_dict(strided.state_dict())
    with torch.inference_mode():
        few, many = (network(torch.ones(1, 3, 97, 65).cumsum(2) / 97)[-1] for network in (strided, dilated))
    assert few.shape[-2:] == (4, 3) and many.shape[-2:] == (13, 9) and few.std() > 0
    torch.testing.assert_close(many[..., ::4, ::4], few, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("trunk", ["vgg16", "resnet50", "mobilenet_v2", "mobilenet_v3", "efficientnet_lite0"])
def test_features_have_the_strides_and_channels_that_are_told(trunk: str) -> None:
    width = 1.0 if trunk == "efficientnet_lite0" else 0.25
    for output_stride in (8, 16, 32):
        network = build(TrunkArchitecture(trunk=trunk, width=width), output_stride).eval()
        with torch.inference_mode():
            features = network(torch.zeros(1, 3, 128, 192))
        assert tuple(feature.shape[1] for feature in features) == network.channels
        if trunk == "vgg16" and output_stride < 32:  # its 3x3 pools give one more
            continue
        strides = [min(stride, output_stride) for stride in (8, 16, 32)]
        assert [(128 // s, 192 // s) for s in strides] == [tuple(feature.shape[-2:]) for feature in features]


def test_513_pixels_are_65_at_stride_8_of_deeplabs_vgg() -> None:
    features = VGG16(1 / 64, output_stride=8)(torch.zeros(1, 3, 513, 320))
    assert [tuple(feature.shape[-2:]) for feature in features] == [(65, 41)] * 3


def test_a_trunk_of_one_width_has_no_other() -> None:
    with pytest.raises(ValidationError, match="efficientnet_lite0 has one width"):
        TrunkArchitecture(trunk="efficientnet_lite0", width=0.5)


def test_no_tensors_are_of_no_trunk() -> None:
    assert trunk_of({"x.weight": torch.zeros(1)}) == {}
