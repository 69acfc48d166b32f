import numpy as np
import pytest

from pipeline.preprocessing import Preprocessing, prepare
from pipeline.scores import ScoreMap


@pytest.mark.parametrize(("size", "seen"), [((300, 400), (520, 693)), ((1, 1000), (2, 2080)), ((3000, 2), (2080, 1))])
def test_a_strip_is_not_blown_up_to_the_shorter_side(size: tuple[int, int], seen: tuple[int, int]) -> None:
    tensor, steps = prepare(np.zeros((*size, 3), np.uint8), Preprocessing(shorter=520))
    assert tensor.shape == (3, *seen)
    assert ScoreMap(np.zeros((1, 1, 1), np.float16), steps).size == size
