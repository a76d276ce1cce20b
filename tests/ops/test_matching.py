"""Matching boxes to objects: against the loop, thresholds, ties, padding, empty objects, crowds."""

import keras
import numpy as np
import pytest

from course_lib.ops import by_hand
from course_lib.ops.matching import BACKGROUND, IGNORED, covered_fraction, match, match_boxes

pytestmark = pytest.mark.backend


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def scattered(seed, count, side=30):
    """Boxes with whole edges, so that overlaps tie exactly and often."""
    rng = np.random.default_rng(seed)
    near = rng.integers(0, side, (count, 2))
    return np.concatenate([near, near + rng.integers(1, side // 2, (count, 2))], axis=1).astype(np.float32)


class TestAgainstTheLoop:
    @pytest.mark.parametrize("low_quality", [False, True])
    @pytest.mark.parametrize(("high", "low"), [(0.7, 0.3), (0.5, 0.5)])
    def test_many_images_at_once(self, high, low, low_quality):
        objects = np.stack([scattered(seed, 5) for seed in range(20)])
        boxes = np.stack([scattered(100 + seed, 60) for seed in range(20)])
        ours = numpy(match_boxes(objects, boxes, high, low, low_quality))
        assert ours.dtype == np.int32
        assert {BACKGROUND, 0, 4} <= set(ours.ravel()) and ((ours == IGNORED).any() == (low < high))
        for k in range(20):
            expected = by_hand.match(objects[k], boxes[k], high, low, low_quality)
            np.testing.assert_array_equal(ours[k], expected)


class TestRules:
    # Rows are objects, columns boxes.
    QUALITY = np.array([[0.7, 0.69, 0.3, 0.29, 0.5, 0.0], [0.1, 0.80, 0.3, 0.10, 0.5, 0.0]], np.float32)

    def test_thresholds_belong_to_the_better_side_and_the_first_of_a_tie_wins(self):
        assert numpy(match(self.QUALITY, 0.7, 0.3)).tolist() == [0, 1, -2, -1, -2, -1]
        assert numpy(match(self.QUALITY, 0.5, 0.5)).tolist() == [0, 1, -1, -1, 0, -1]

    def test_the_best_of_an_object_answers_however_low(self):
        quality = np.array([[0.2, 0.2, 0.1], [0.25, 0.05, 0.0]], np.float32)
        assert numpy(match(quality, 0.7, 0.3)).tolist() == [-1, -1, -1]
        # Both that tie for the first object answer, but box 0 for the second object, which it overlaps more.
        assert numpy(match(quality, 0.7, 0.3, allow_low_quality=True)).tolist() == [1, 0, -1]

    def test_an_object_that_nothing_touches_makes_no_positives(self):
        quality = np.array([[0.8, 0.1, 0.2], [0.0, 0.0, 0.0]], np.float32)
        assert numpy(match(quality, 0.7, 0.3, allow_low_quality=True)).tolist() == [0, -1, -1]

    def test_padding_is_never_matched(self):
        quality = self.QUALITY[::-1]
        found = numpy(match(quality, 0.7, 0.3, True, valid=[False, True]))
        assert found.tolist() == [1, -2, -2, -1, -2, -1]

    @pytest.mark.parametrize("low_quality", [False, True])
    def test_without_an_object_all_is_background(self, low_quality):
        assert numpy(match(self.QUALITY, 0.7, 0.3, low_quality, valid=[False, False])).tolist() == [-1] * 6
        assert numpy(match(np.zeros((3, 0, 2)), 0.7, 0.3, low_quality)).tolist() == [[-1, -1]] * 3
        nothing = np.zeros((0, 4), np.float32)
        assert numpy(match_boxes(nothing, scattered(0, 2), 0.7, 0.3, low_quality)).tolist() == [-1, -1]

    def test_without_a_box_nothing_is_matched(self):
        assert numpy(match_boxes(scattered(0, 2), np.zeros((0, 4)), 0.7, 0.3, True)).shape == (0,)


class TestBoxes:
    ANCHORS = np.array(
        [[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [20, 22, 30, 32], [50, 50, 60, 60]], np.float32
    )

    def test_one_list_of_anchors_serves_a_batch(self):
        objects = np.array([[[0, 0, 10, 10]], [[20, 20, 30, 30]]], np.float32)
        found = numpy(match_boxes(objects, self.ANCHORS, 0.7, 0.3))
        assert found.tolist() == [[0, -2, -1, -1, -1], [-1, -1, 0, -2, -1]]

    @pytest.mark.parametrize("empty", [[0, 0, 0, 0], [3, 3, 3, 8], [9, 9, 2, 2]])
    def test_empty_objects_match_nothing(self, empty):
        found = numpy(match_boxes([empty, [20, 20, 30, 30]], self.ANCHORS, 0.7, 0.3, True))
        assert found.tolist() == [-1, -1, 1, -2, -1]

    def test_padded_proposals_are_ignored(self):
        found = numpy(match_boxes([[0, 0, 10, 10]], self.ANCHORS, 0.5, 0.5, boxes_valid=[1, 1, 1, 0, 0]))
        assert found.tolist() == [0, -1, -1, -2, -2]

    def test_what_lies_in_a_crowd_is_no_background(self):
        objects = np.array([[0, 0, 10, 10], [18, 18, 40, 40], [0, 0, 60, 60]], np.float32)
        crowd = [False, True, True]
        valid = [True, True, False]  # the second crowd is padding
        found = match_boxes(objects, self.ANCHORS, 0.7, 0.3, True, valid, crowd)
        assert numpy(found).tolist() == [
            0,
            -2,
            -2,
            -2,
            -1,
        ]  # the second box by its IoU of 1/3, two by the crowd

    def test_an_object_in_a_crowd_is_matched_all_the_same(self):
        objects = np.array([[20, 20, 30, 30], [0, 0, 60, 60]], np.float32)
        found = numpy(match_boxes(objects, self.ANCHORS, 0.7, 0.3, crowd=[False, True]))
        assert found.tolist() == [-2, -2, 0, -2, -2]

    def test_less_of_a_box_in_the_crowd_than_its_share_stays_background(self):
        objects = np.array([[0, 0, 8, 10]], np.float32)  # holds 0.8 of the first box, 0.3 of the second
        for share, expected in ((0.9, [-1, -1]), (0.75, [-2, -1]), (0.25, [-2, -2])):
            found = match_boxes(objects, self.ANCHORS[:2], 0.7, 0.3, crowd=[True], crowd_fraction=share)
            assert numpy(found).tolist() == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: match(np.zeros(3), 0.7, 0.3), r"quality has shape \(3,\)"),
        (lambda: match(np.zeros((1, 3)), 0.3, 0.7), "low is 0.7; it must not exceed high, 0.3"),
        (lambda: match_boxes(np.zeros((1, 3)), np.zeros((1, 4)), 0.7, 0.3), r"objects has shape \(1, 3\)"),
        (lambda: match_boxes(np.zeros((1, 4)), np.zeros(4), 0.7, 0.3), r"boxes has shape \(4,\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


class TestPixelsThatDoNotCount:
    def test_the_fraction_is_that_of_counted_pixels(self):
        rng = np.random.default_rng(0)
        mask = rng.random((3, 20, 30)) < 0.4
        boxes = np.stack([scattered(seed, 25) for seed in range(3)]) - [4, 4, 0, 0]  # some begin outside
        expected = np.zeros((3, 25))
        for k, image in enumerate(boxes.astype(int)):
            for n, (x1, y1, x2, y2) in enumerate(np.clip(image, 0, [30, 20, 30, 20])):
                if x2 > x1 and y2 > y1:
                    expected[k, n] = mask[k, y1:y2, x1:x2].mean()
        np.testing.assert_allclose(numpy(covered_fraction(mask, boxes)), expected, atol=1e-6)
        one_list = numpy(covered_fraction(mask, boxes[:1]))
        np.testing.assert_allclose(one_list[0], expected[0], atol=1e-6)
        assert one_list.shape == (3, 25)

    def test_background_there_is_ignored_and_objects_are_not(self):
        ignore = np.zeros((1, 40, 40), bool)
        ignore[0, :, 20:] = True
        objects = np.array([[[22, 2, 32, 12]]], np.float32)  # lies in the region, but somebody outlined it
        boxes = np.array(
            [[[22, 2, 32, 12], [22, 20, 32, 30], [14, 20, 24, 30], [16, 20, 24, 30], [2, 2, 12, 12]]]
        )
        found = numpy(match_boxes(objects, boxes.astype(np.float32), 0.5, 0.5, ignore=ignore))[0]
        assert found.tolist() == [0, IGNORED, BACKGROUND, IGNORED, BACKGROUND]
        plain = numpy(match_boxes(objects, boxes.astype(np.float32), 0.5, 0.5, ignore=np.zeros_like(ignore)))[
            0
        ]
        assert plain.tolist() == [0] + 4 * [BACKGROUND]
