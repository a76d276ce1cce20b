"""The width with which a model has about as many parameters as another."""

from functools import cache

import numpy as np
import pytest

from course_lib.models.fcn import fcn
from course_lib.models.unet import unet
from course_lib.models.width import nearest_width

pytestmark = pytest.mark.backend


@cache
def fcn_parameters(width):
    widths = [width * factor for factor in (1, 2, 4, 8, 8)]
    model = fcn((96, 96, 1), 4, 16, "small", widths=widths, convolutions=(1,) * 5, head_filters=8 * width)
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


@cache
def unet_parameters(filters):
    return unet((None, None, 1), base_filters=filters, depth=2, skip="add").count_params()


@pytest.mark.parametrize("count", [fcn_parameters, unet_parameters])
def test_the_nearest_of_two_neighbours(count):
    three, four = count(3), count(4)
    assert nearest_width(three, count) == 3
    assert nearest_width((three + four) // 2 - 2, count) == 3
    assert nearest_width((three + four) // 2 + 2, count) == 4
    assert nearest_width(1, count) == 1


def test_errors():
    with pytest.raises(ValueError, match="parameters is 0"):
        nearest_width(0, unet_parameters)
    with pytest.raises(ValueError, match="make all numbers of channels multiples of the width"):
        nearest_width(50_000, lambda width: max(2, width) ** 2)
