"""Box coding: by hand, there and back, limits, empty boxes."""

import math

import keras
import numpy as np
import pytest

from course_lib.ops import by_hand
from course_lib.ops.box_coding import clip_boxes, decode_boxes, encode_boxes, large_enough

pytestmark = pytest.mark.backend

WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def random_boxes(seed, shape, side=200.0):
    rng = np.random.default_rng(seed)
    near = rng.uniform(-10, side, (*shape, 2))
    return np.concatenate([near, near + rng.uniform(0.5, side, (*shape, 2))], axis=-1).astype(np.float32)


class TestCoding:
    def test_a_box_by_hand(self):
        # Its centre lies 10 px to the right of the reference's, 20 px wide; it is twice as wide and half as high.
        encoded = numpy(encode_boxes([[10, 20, 50, 30]], [[10, 15, 30, 35]]))
        np.testing.assert_allclose(encoded, [[0.5, 0, math.log(2), -math.log(2)]], atol=1e-6)

    def test_the_loops_give_the_same(self):
        boxes, references = random_boxes(0, (30,)), random_boxes(1, (30,))
        deltas = np.random.default_rng(2).normal(size=(30, 4)).astype(np.float32) * 3
        rows = range(30)
        np.testing.assert_allclose(
            numpy(encode_boxes(boxes, references, WEIGHTS)),
            [by_hand.encode(boxes[k], references[k], WEIGHTS) for k in rows],
            rtol=1e-5,
            atol=1e-5,
        )
        np.testing.assert_allclose(
            numpy(decode_boxes(deltas, references, WEIGHTS)),
            [by_hand.decode(deltas[k], references[k], WEIGHTS) for k in rows],
            rtol=1e-5,
            atol=1e-3,
        )
        np.testing.assert_allclose(
            numpy(clip_boxes(boxes, (90, 120))), [by_hand.clip(box, (90, 120)) for box in boxes]
        )

    @pytest.mark.parametrize("weights", [(1, 1, 1, 1), WEIGHTS])
    def test_decoding_undoes_encoding(self, weights):
        boxes, references = random_boxes(3, (2, 20)), random_boxes(4, (2, 20))
        back = numpy(decode_boxes(encode_boxes(boxes, references, weights), references, weights))
        np.testing.assert_allclose(back, boxes, atol=2e-3)

    def test_no_deltas_give_the_reference(self):
        references = random_boxes(5, (10,))
        np.testing.assert_allclose(numpy(decode_boxes(np.zeros((10, 4)), references)), references, atol=1e-4)

    def test_growth_is_limited(self):
        grown = numpy(decode_boxes([[0, 0, 1e4, 1e4]], [[0, 0, 16, 16]]))
        np.testing.assert_allclose(grown[:, 2:] - grown[:, :2], [[1000, 1000]], rtol=1e-5)

    def test_deltas_per_class(self):
        references = random_boxes(6, (5,))
        deltas = np.random.default_rng(7).normal(size=(5, 3, 4)).astype(np.float32)
        decoded = numpy(decode_boxes(deltas, references[:, None], WEIGHTS))
        assert decoded.shape == (5, 3, 4)
        for k in range(3):
            np.testing.assert_allclose(
                decoded[:, k], numpy(decode_boxes(deltas[:, k], references, WEIGHTS)), rtol=1e-6
            )

    def test_in_half_precision_the_arithmetic_is_not(self):
        box = np.array([[0, 0, 2000, 2000]], "float16")
        decoded = numpy(decode_boxes(np.zeros((1, 4), "float16"), box))
        assert decoded.dtype == np.float32
        np.testing.assert_array_equal(decoded, box)


class TestEmptyBoxes:
    FULL, EMPTY, TURNED = [0, 0, 4, 4], [3, 3, 3, 9], [5, 5, 1, 1]

    @pytest.mark.parametrize("empty", [EMPTY, TURNED, [0, 0, 0, 0]])
    def test_their_deltas_are_0(self, empty):
        encoded = numpy(encode_boxes([empty, self.FULL, empty], [self.FULL, empty, empty], WEIGHTS))
        np.testing.assert_array_equal(encoded, np.zeros((3, 4)))
        np.testing.assert_array_equal(by_hand.encode(empty, self.FULL), np.zeros(4))

    def test_an_empty_reference_stays_empty(self):
        decoded = numpy(decode_boxes([[1, 1, 9, 9]], [[7, 7, 7, 7]]))
        np.testing.assert_array_equal(decoded, [[7, 7, 7, 7]])


class TestClipping:
    def test_each_image_of_a_batch_has_its_size(self):
        boxes = np.broadcast_to(np.array([[-5, -5, 500, 500]], np.float32), (2, 1, 4))
        np.testing.assert_array_equal(
            numpy(clip_boxes(boxes, np.array([[60, 80], [100, 50]]))), [[[0, 0, 80, 60]], [[0, 0, 50, 100]]]
        )

    def test_a_box_outside_becomes_empty(self):
        clipped = numpy(clip_boxes([[90, 10, 120, 20], [-9, -9, -1, -1]], (60, 80)))
        np.testing.assert_array_equal(clipped, [[80, 10, 80, 20], [0, 0, 0, 0]])
        assert not numpy(large_enough(clipped, 1e-3)).any()

    def test_large_enough_needs_both_sides(self):
        boxes = [[0, 0, 2, 2], [0, 0, 2, 1], [0, 0, 1, 2], [2, 2, 0, 0], [0, 0, math.nan, 9]]
        np.testing.assert_array_equal(numpy(large_enough(boxes, 2)), [True, False, False, False, False])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: encode_boxes(np.zeros(4), np.zeros((1, 4))), r"boxes has shape \(4,\).*boxes\[None\]"),
        (lambda: encode_boxes(np.zeros((1, 4)), np.zeros((1, 5))), r"references has shape \(1, 5\)"),
        (lambda: decode_boxes(np.zeros((1, 3)), np.zeros((1, 4))), r"deltas has shape \(1, 3\)"),
        (lambda: decode_boxes(np.zeros((1, 4)), np.zeros((1, 4)), (1, 1)), r"weights is \[1.0, 1.0\]"),
        (lambda: encode_boxes(np.zeros((1, 4)), np.zeros((1, 4)), (1, 1, 0, 1)), "four positive numbers"),
        (lambda: clip_boxes(np.zeros((1, 4)), (1, 2, 3)), r"image_size has shape \(3,\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
