"""Anchors: by hand, rounding, order, and maps that don't divide the image."""

import numpy as np
import pytest

from course_lib.ops import by_hand
from course_lib.ops.anchors import base_anchors, grid_anchors, pyramid_anchors


@pytest.mark.parametrize(
    ("image_size", "feature_size", "sizes", "ratios"),
    [
        ((64, 96), (8, 12), [16], [0.5, 1, 2]),
        ((64, 64), (2, 2), [32, 40, 50], [1]),
        ((50, 70), (7, 9), [11, 23], [0.3, 1, 3]),  # the stride, 7, divides neither side
    ],
)
def test_the_loops_give_the_same(image_size, feature_size, sizes, ratios):
    (ours,) = pyramid_anchors(image_size, [feature_size], [sizes], ratios)
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, by_hand.anchors(image_size, feature_size, sizes, ratios))


def test_three_shapes_of_one_area():
    boxes = base_anchors(64, (0.25, 1, 4))
    np.testing.assert_array_equal(boxes, [[-64, -16, 64, 16], [-32, -32, 32, 32], [-16, -64, 16, 64]])


def test_halves_are_rounded_to_the_even_number():
    np.testing.assert_array_equal(base_anchors((5, 7), (1,)), [[-2, -2, 2, 2], [-4, -4, 4, 4]])


def test_the_order_is_that_of_a_head_with_its_channels_last():
    base = base_anchors((8, 16), (0.5, 1, 2))
    height, width, k = 3, 5, len(base)
    anchors = grid_anchors(base, (height, width), (4, 10)).reshape(height, width, k * 4)
    # Reshaped as a head's output (height, width, k · 4) would be: position (1, 3) holds the six boxes around y = 4, x = 30.
    np.testing.assert_array_equal(anchors[1, 3].reshape(k, 4), base + [30, 4, 30, 4])


def test_strides_that_are_given_hold_where_a_map_is_rounded_up():
    """213 pixels, stride 2, 107 positions: 213 // 107 is 1."""
    (level,) = pyramid_anchors((6, 213), [(3, 107)], [8], (1,), strides=[2])
    np.testing.assert_array_equal((level[:107, 0] + level[:107, 2]) / 2, np.arange(0, 214, 2))
    np.testing.assert_array_equal((level[::107, 1] + level[::107, 3]) / 2, [0, 2, 4])
    with pytest.raises(
        ValueError, match=r"strides is \(2, 4\); it must have one positive number for each of the 1 levels"
    ):
        pyramid_anchors((6, 213), [(3, 107)], [8], (1,), strides=[2, 4])


def test_every_level_has_its_own_stride_and_size():
    levels = pyramid_anchors((64, 128), [(16, 32), (8, 16), (4, 8)], [(8,), (16,), (32,)], (1,))
    assert [len(level) for level in levels] == [512, 128, 32]
    for level, stride, side in zip(levels, (4, 8, 16), (8, 16, 32)):
        np.testing.assert_array_equal(level[:, 2] - level[:, 0], side)
        np.testing.assert_array_equal(np.unique((level[:, 0] + level[:, 2]) / 2), np.arange(0, 128, stride))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((64, 64), [(8, 8)], [8, 16]), "sizes has 2 entries for 1 levels"),
        (((64, 64), [(8, 8)], [0]), r"sizes is \[0.0\]"),
        (((64, 64), [(8, 8)], [8], (1, -1)), r"aspect_ratios is \[1.0, -1.0\]"),
        (((64, 64), [(8, 8)], [()]), r"sizes is \[\]"),
        (((64, 64), [(8, 128)], [8]), r"a map of \(8, 128\) for an image of \(64, 64\)"),
        (((64, 64), [(0, 8)], [8]), r"a map of \(0, 8\)"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        pyramid_anchors(*arguments)
