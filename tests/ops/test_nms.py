"""Non-maximum suppression: the matrix form against the loop, ties, padding, groups, batches."""

import importlib

import keras
import numpy as np
import pytest

from course_lib.ops import by_hand
from course_lib.ops.nms import BLOCK, nms

pytestmark = pytest.mark.backend

ROWS = 40


def numpy(tensors):
    return [keras.ops.convert_to_numpy(tensor) for tensor in tensors]


def kept_rows(*arguments, **settings):
    """The rows kept of one list, as a list."""
    indices, kept = numpy(nms(*arguments, **settings))
    return indices[kept].tolist()


def crowded(seed):
    """Many boxes on few places: overlaps and scores tie often, and removals form chains."""
    rng = np.random.default_rng(seed)
    near = rng.integers(0, 12, (ROWS, 2))
    boxes = np.concatenate([near, near + rng.integers(0, 9, (ROWS, 2))], axis=1).astype(np.float32)
    return boxes, rng.integers(0, 8, ROWS).astype(np.float32) / 8, rng.integers(0, 3, ROWS)


@pytest.fixture(params=[True, False], ids=["arrays", "as compiled"])
def both_ways(request, monkeypatch):
    """Outside a compiled function, and what is compiled, run as if it were."""
    monkeypatch.setattr(importlib.import_module("course_lib.ops.nms"), "known", lambda tensor: request.param)


@pytest.mark.usefixtures("both_ways")
class TestAgainstTheLoop:
    @pytest.mark.parametrize("threshold", [0.0, 0.25, 0.5, 0.75])
    @pytest.mark.parametrize("per_class", [False, True])
    def test_many_lists_at_once(self, threshold, per_class):
        lists = [crowded(seed) for seed in range(25)]
        boxes, scores, classes = (np.stack(values) for values in zip(*lists))
        indices, kept = numpy(nms(boxes, scores, threshold, ROWS, groups=classes if per_class else None))
        assert 0 < kept.sum() < kept.size
        for k, one in enumerate(lists):
            expected = by_hand.nms(one[0], one[1], threshold, one[2] if per_class else None)
            assert indices[k][kept[k]].tolist() == expected

    def test_padding_removes_nothing(self):
        boxes, scores, _ = crowded(0)
        valid = np.arange(ROWS) % 3 != 0
        rows = np.flatnonzero(valid)
        expected = rows[by_hand.nms(boxes[valid], scores[valid], 0.3)].tolist()
        assert kept_rows(boxes, scores, 0.3, ROWS, valid=valid) == expected

    def test_batch_and_levels_are_two_leading_axes(self):
        lists = [crowded(seed)[:2] for seed in range(6)]
        boxes, scores = (np.stack(values).reshape(2, 3, ROWS, *values[0].shape[1:]) for values in zip(*lists))
        indices, kept = numpy(nms(boxes, scores, 0.4, 10))
        assert indices.shape == kept.shape == (2, 3, 10)
        for k, one in enumerate(lists):
            expected = by_hand.nms(*one, 0.4)[:10]
            assert indices[k // 3, k % 3][: len(expected)].tolist() == expected


@pytest.mark.usefixtures("both_ways")
class TestInBlocks:
    """Lists longer than the block that is taken at once."""

    @pytest.mark.parametrize(
        ("count", "places"), [(2 * BLOCK, 30), (2 * BLOCK + 37, 2 * BLOCK), (BLOCK + 1, 9)]
    )
    @pytest.mark.parametrize("per_class", [False, True])
    def test_equal_to_the_loop(self, count, places, per_class):
        rng = np.random.default_rng(count)
        near = rng.integers(0, 300, (2, count, 2))
        boxes = np.concatenate([near, near + rng.integers(10, 60, (2, count, 2))], axis=-1).astype(np.float32)
        scores = rng.integers(0, 50, (2, count)).astype(np.float32)
        classes, valid = rng.integers(0, 3, (2, count)), rng.random((2, count)) > 0.1
        groups = classes if per_class else None
        indices, kept = numpy(nms(boxes, scores, 0.3, places, valid, groups))
        assert indices.shape == (2, places)
        for k in range(2):
            rows = np.flatnonzero(valid[k])
            found = by_hand.nms(boxes[k][rows], scores[k][rows], 0.3, classes[k][rows] if per_class else None)
            assert indices[k][kept[k]].tolist() == rows[found][:places].tolist()

    def test_one_list_full_while_another_goes_on(self):
        apart = 20 * np.arange(2 * BLOCK, dtype=np.float32)
        spread = np.stack([apart, 0 * apart, apart + 9, 0 * apart + 9], axis=-1)
        alike = spread.copy()
        alike[: BLOCK + 5] = spread[0]  # the second block holds what fills the places
        scores = -apart
        indices, kept = numpy(nms(np.stack([spread, alike]), np.stack([scores, scores]), 0.5, 4))
        assert indices.tolist() == [[0, 1, 2, 3], [0, BLOCK + 5, BLOCK + 6, BLOCK + 7]] and kept.all()


def test_outside_a_compiled_function_there_is_no_loop_to_compile(monkeypatch):
    """JAX would compile a `while_loop` anew at every call, which took it longer than all else that a detector does."""
    boxes, scores, _ = crowded(0)
    many, high = np.tile(boxes, (BLOCK // ROWS + 1, 1)), np.tile(scores, BLOCK // ROWS + 1)
    expected = by_hand.nms(many, high, 0.5)

    def refuse(*_, **__):
        pytest.fail("nms made a loop for a compiler although its arrays are at hand.")

    monkeypatch.setattr(keras.ops, "while_loop", refuse)
    assert len(many) > BLOCK and kept_rows(many, high, 0.5, len(many)) == expected


@pytest.mark.usefixtures("both_ways")
class TestRules:
    def test_what_is_removed_removes_nothing(self):
        # The first removes the second, which alone overlaps the third.
        boxes = [[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]]
        assert kept_rows(boxes, [0.9, 0.8, 0.7], 0.4, 3) == [0, 2]

    def test_the_longest_chain(self):
        shift = 4 * np.arange(31, dtype=np.float32)
        boxes = np.stack([shift, 0 * shift, shift + 10, 0 * shift + 10], axis=1)
        assert kept_rows(boxes, -shift, 0.4, 31) == list(range(0, 31, 2))

    def test_equal_scores_are_taken_in_the_order_of_their_rows(self):
        boxes = np.tile(np.array([[0, 0, 8, 8], [20, 0, 28, 8], [40, 0, 48, 8]], np.float32), (4, 1))
        assert kept_rows(boxes, np.full(12, 0.5), 0.5, 12) == [0, 1, 2]
        assert kept_rows(boxes, np.full(12, -3.0), 0.5, 12) == [0, 1, 2]

    def test_exactly_the_threshold_is_kept(self):
        boxes = [[0, 0, 4, 4], [0, 0, 4, 2]]  # IoU 1/2, without rounding
        assert kept_rows(boxes, [2, 1], 0.5, 2) == [0, 1]
        assert kept_rows(boxes, [2, 1], 0.499, 2) == [0]

    def test_only_one_group_removes(self):
        boxes, scores = np.tile(np.array([[0, 0, 9, 9]], np.float32), (4, 1)), [0.1, 0.2, 0.3, 0.4]
        assert kept_rows(boxes, scores, 0.5, 4, groups=[7, 3, 7, 3]) == [3, 2]

    def test_empty_boxes_neither_remove_nor_go(self):
        assert kept_rows([[3, 3, 3, 3], [3, 3, 3, 3], [0, 0, 9, 9]], [3, 2, 1], 0.1, 3) == [0, 1, 2]


class TestFixedSize:
    BOXES = np.array([[0, 0, 4, 4], [10, 0, 14, 4], [20, 0, 24, 4]], np.float32)

    def test_the_best_fill_the_places(self):
        indices, kept = numpy(nms(self.BOXES, [0.1, 0.9, 0.5], 0.5, 2))
        assert indices.tolist() == [1, 2] and kept.tolist() == [True, True]
        assert indices.dtype == np.int32 and kept.dtype == bool

    def test_more_places_than_boxes(self):
        indices, kept = numpy(nms(self.BOXES, [0.1, 0.9, 0.5], 0.5, 5))
        assert indices.tolist() == [1, 2, 0, 0, 0]
        assert kept.tolist() == [True, True, True, False, False]

    def test_no_valid_box(self):
        indices, kept = numpy(nms(self.BOXES, [0.1, 0.9, 0.5], 0.5, 2, valid=[False] * 3))
        assert indices.tolist() == [0, 0] and not kept.any()

    def test_no_boxes_at_all(self):
        indices, kept = numpy(nms(np.zeros((2, 0, 4)), np.zeros((2, 0)), 0.5, 3))
        assert indices.shape == kept.shape == (2, 3) and not kept.any()

    def test_what_is_not_a_number_is_never_kept(self):
        boxes = np.vstack([self.BOXES, [[0, np.nan, 4, 4]]])
        assert kept_rows(boxes, [np.nan, 0.9, 0.5, 1.0], 0.5, 4) == [1, 2]

    def test_the_lowest_score_of_all_is_still_a_score(self):
        assert kept_rows(self.BOXES, [-np.inf, 0.9, 0.5], 0.5, 3) == [1, 2, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((3, 5)), np.zeros(3), 0.5, 1), r"boxes has shape \(3, 5\)"),
        ((np.zeros((3, 4)), np.zeros(2), 0.5, 1), r"scores has shape \(2,\) for boxes of \(3, 4\)"),
        ((np.zeros((3, 4)), np.zeros((1, 3)), 0.5, 1), r"scores has shape \(1, 3\)"),
        ((np.zeros((3, 4)), np.zeros(3), 1.5, 1), "iou_threshold is 1.5"),
        ((np.zeros((3, 4)), np.zeros(3), 0.5, 0), "max_output 0"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        nms(*arguments)
