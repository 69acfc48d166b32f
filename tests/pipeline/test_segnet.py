import pytest
import torch

from pipeline import frontends
from pipeline.scores import probable

FIRST_AND_LAST = {"segnet": ("conv1_2_bn", "conv1_2_D"), "segnet_basic": ("conv1_bn", "conv_decode1")}


@pytest.mark.parametrize("name", FIRST_AND_LAST)
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (12, 9)])
def test_the_decoder_puts_values_where_the_maxima_were(name: str, size: tuple[int, int]) -> None:
    module, (first, last) = frontends.load(name), FIRST_AND_LAST[name]
    network, seen = module.Network(module.Architecture(classes=2, width=1 / 16)).eval(), {}
    network.get_submodule(first).register_forward_hook(lambda *_: seen.update(before=_[2].clone()))
    network.get_submodule(last).register_forward_pre_hook(lambda *_: seen.update(after=_[1][0]))
    with torch.inference_mode():
        assert network(torch.rand(1, 3, *size) * 255).shape == (1, 2, *size)
    assert seen["after"].shape == seen["before"].shape
    activations, unpooled = seen["before"].relu()[0], seen["after"][0]
    for channel, row, column in unpooled.nonzero().tolist():
        top, left = row // 2 * 2, column // 2 * 2
        window = activations[channel, top : top + 2, left : left + 2]
        assert activations[channel, row, column] == window.max()


def test_only_probable_labels_are_sent() -> None:
    logits = torch.zeros(5, 2, 2)
    logits[1] += 6
    logits[3, 1, 1] = 3.2  # 0.057 of the pixel
    logits[4, 1, 1] = 2.9  # 0.042
    planes, kept = probable(logits)
    assert kept == ((1, 3), 5)
    torch.testing.assert_close(planes, logits.log_softmax(0)[[1, 3]])


def test_the_first_label_of_each_pixel_is_sent_however_improbable() -> None:
    _, kept = probable(torch.zeros(200, 1, 2).index_fill(0, torch.tensor([7]), 0.1))
    assert kept == ((7,), 200)
