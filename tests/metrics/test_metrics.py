"""Metrics: what they are worth on maps that can be counted by hand, their laws, and their errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from course_lib import metrics
from course_lib.metrics import semantic

CLASSES = 3
laws = settings(deadline=None, max_examples=60)
shapes = st.tuples(st.integers(1, 6), st.integers(1, 7))


def maps(low: int, high: int, count: int = 2):
    """`count` integer maps of the same random shape, values low..high."""
    return shapes.flatmap(
        lambda shape: st.tuples(*[hnp.arrays(np.int32, shape, elements=st.integers(low, high))] * count)
    )


# --- Class maps ---


def test_class_scores_by_hand():
    y_true = np.array([[0, 0, 0, 1], [1, 1, 2, -1]])
    y_pred = np.array([[0, 0, 1, 1], [1, 0, 0, 2]])
    matrix = metrics.confusion_matrix(y_true, y_pred, num_classes=4)
    assert matrix.dtype == np.int64
    np.testing.assert_array_equal(matrix, [[2, 1, 0, 0], [1, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(metrics.iou_per_class(matrix), [2 / 5, 2 / 4, 0, np.nan])
    np.testing.assert_allclose(metrics.dice_per_class(matrix), [4 / 7, 4 / 6, 0, np.nan])
    np.testing.assert_allclose(metrics.class_accuracy(matrix), [2 / 3, 2 / 3, 0, np.nan])
    assert metrics.mean_iou(matrix) == pytest.approx((2 / 5 + 2 / 4 + 0) / 3)
    assert metrics.mean_iou(matrix, classes=[1]) == pytest.approx(2 / 4)
    assert metrics.mean_dice(matrix, classes=[0, 1, 3]) == pytest.approx((4 / 7 + 4 / 6) / 2)
    assert metrics.mean_class_accuracy(matrix) == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert metrics.mean_class_accuracy(matrix, classes=[1, 3]) == pytest.approx(2 / 3)
    assert metrics.frequency_weighted_iou(matrix) == pytest.approx(3 / 7 * 2 / 5 + 3 / 7 * 2 / 4)
    assert metrics.pixel_accuracy(matrix) == pytest.approx(4 / 7)
    assert metrics.pixel_error(y_true, y_pred) == pytest.approx(3 / 7)


def test_a_class_only_predicted_has_iou_zero_and_no_accuracy():
    matrix = metrics.confusion_matrix(np.zeros(4, int), np.array([0, 0, 0, 1]), num_classes=2)
    assert metrics.iou_per_class(matrix)[1] == 0
    assert np.isnan(metrics.class_accuracy(matrix)[1])
    assert metrics.mean_iou(matrix) == pytest.approx(3 / 8)
    assert (
        metrics.mean_class_accuracy(matrix) == metrics.frequency_weighted_iou(matrix) == pytest.approx(3 / 4)
    )


def test_what_is_under_an_ignored_pixel_does_not_matter():
    y_true = np.array([0, 1, -1])
    for prediction in (0, 1, 99, -7):
        matrix = metrics.confusion_matrix(y_true, np.array([0, 1, prediction]), num_classes=2)
        np.testing.assert_array_equal(matrix, np.eye(2))


def test_empty_answers_of_class_maps():
    nothing_judged = metrics.confusion_matrix(np.full((2, 2), -1), np.zeros((2, 2), int), num_classes=2)
    assert np.isnan(metrics.mean_iou(nothing_judged))
    assert np.isnan(metrics.pixel_accuracy(nothing_judged))
    assert np.isnan(metrics.mean_class_accuracy(nothing_judged))
    assert np.isnan(metrics.frequency_weighted_iou(nothing_judged))
    assert np.isnan(metrics.pixel_error(np.full((2, 2), -1), np.zeros((2, 2), int)))
    empty, full = np.zeros((3, 3), bool), np.ones((3, 3), bool)
    for score in (metrics.iou, metrics.dice):
        assert score(empty, empty) == 1.0
        assert score(empty, full) == 0.0
        assert score(full, full) == 1.0
        assert np.isnan(score(np.zeros((0, 3), bool), np.zeros((0, 3), bool)))


def test_masks_by_hand():
    a, b = np.array([1, 1, 1, 0]), np.array([0, 1, 1, 1])
    assert metrics.iou(a, b) == pytest.approx(2 / 4)
    assert metrics.dice(a, b) == pytest.approx(4 / 6)


@laws
@given(maps(0, 1))
def test_mask_laws(pair):
    a, b = pair
    iou, dice = metrics.iou(a, b), metrics.dice(a, b)
    assert 0 <= iou <= dice <= 1
    assert dice == pytest.approx(2 * iou / (1 + iou))
    assert iou == metrics.iou(b, a)
    assert dice == metrics.dice(b, a)
    assert metrics.iou(a, a) == 1


@laws
@given(maps(-1, CLASSES - 1), st.permutations(range(CLASSES)))
def test_class_score_laws(pair, order):
    y_true, y_pred = pair[0], np.maximum(pair[1], 0)
    matrix = metrics.confusion_matrix(y_true, y_pred, CLASSES)
    iou, dice = metrics.iou_per_class(matrix), metrics.dice_per_class(matrix)
    np.testing.assert_allclose(dice, 2 * iou / (1 + iou))
    np.testing.assert_allclose(iou, metrics.iou_per_class(matrix.T))
    present = iou[~np.isnan(iou)]
    assert np.all((present >= 0) & (present <= 1))
    # Other names for the classes change nothing but the order.
    order = np.array(order)
    renamed = metrics.confusion_matrix(np.where(y_true < 0, -1, order[y_true]), order[y_pred], CLASSES)
    np.testing.assert_allclose(metrics.iou_per_class(renamed)[order], iou)
    judged = np.count_nonzero(y_true >= 0)
    if judged:
        assert metrics.mean_iou(matrix) == pytest.approx(present.mean())
        assert metrics.pixel_accuracy(matrix) == pytest.approx(1 - metrics.pixel_error(y_true, y_pred))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: metrics.confusion_matrix(np.zeros((2, 2), int), np.zeros((2, 3), int), 2),
            r"\(2, 2\).*\(2, 3\)",
        ),
        (
            lambda: metrics.confusion_matrix(np.array([0, 5]), np.array([0, 0]), 2),
            "y_true holds 5; .*0 to 1, or -1",
        ),
        (
            lambda: metrics.confusion_matrix(np.array([0, -2]), np.array([0, 0]), 2),
            "y_true holds -2; .*-1 for pixels",
        ),
        (
            lambda: metrics.confusion_matrix(np.array([0, 1]), np.array([0, -1]), 2),
            "y_pred holds -1; .*0 to 1",
        ),
        (
            lambda: metrics.confusion_matrix(np.array([0, 1]), np.array([0.2, 0.9]), 2),
            "y_pred is an array .*from 0.2 to 0.9.*argmax",
        ),
        (lambda: metrics.confusion_matrix(np.array([0]), np.array([0]), 0), "num_classes"),
        (
            lambda: metrics.pixel_error(np.array([0.5]), np.array([1])),
            "y_true is an array of float64.*must hold integer",
        ),
        (lambda: metrics.iou(np.array([0, 2]), np.array([0, 1])), "mask_a holds 2; it must"),
        (lambda: metrics.dice(np.array([0, 1]), np.array([0.0, 1.0])), "mask_b is an array .*threshold"),
        (lambda: metrics.iou(np.ones((2, 2), bool), np.ones((2, 3), bool)), "mask_a has shape"),
        (lambda: metrics.iou_per_class(np.ones((2, 3))), "square confusion matrix"),
        (lambda: metrics.iou_per_class(np.array([[1, -1], [0, 1]])), "matrix holds -1"),
        (lambda: metrics.mean_iou(np.eye(2), classes=[2]), r"classes is \[2\]; .*0 to 1"),
        (lambda: metrics.mean_class_accuracy(np.eye(2), classes=[-1]), r"classes is \[-1\]; .*0 to 1"),
        (lambda: metrics.frequency_weighted_iou(np.ones(4)), "square confusion matrix"),
    ],
)
def test_class_map_errors(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# --- Instance maps ---

TRUE = np.array(
    [
        [1, 1, 1, 1, 0, 0],
        [2, 2, 2, 2, 0, 7],
        [0, 0, 0, 0, 0, 7],
    ]
)
PRED = np.array(
    [
        [5, 5, 5, 0, 0, 3],
        [9, 9, 0, 0, 0, 0],
        [0, 0, 0, 4, 0, 8],
    ]
)  # IoU: 1-5 3/4; 2-9 2/4; 7-8 1/2; 3 and 4 meet nothing


def test_iou_matrix_by_hand():
    expected = np.zeros((3, 5))  # rows 1, 2, 7; columns 3, 4, 5, 8, 9
    expected[0, 2], expected[1, 4], expected[2, 3] = 3 / 4, 2 / 4, 1 / 2
    np.testing.assert_allclose(metrics.iou_matrix(TRUE, PRED), expected)


@pytest.mark.parametrize(
    ("threshold", "pairs"),
    [
        (0.0, [[1, 5], [2, 9], [7, 8]]),
        (0.49, [[1, 5], [2, 9], [7, 8]]),
        (0.5, [[1, 5]]),  # an IoU of exactly 0.5 is no match
        (0.74, [[1, 5]]),
        (0.75, []),  # nor is one of exactly 0.75
    ],
)
def test_match_by_hand(threshold, pairs):
    found = metrics.match(TRUE, PRED, threshold)
    np.testing.assert_array_equal(found.pairs, np.reshape(pairs, (-1, 2)))
    assert (found.true_positives, found.false_positives, found.false_negatives) == (
        len(pairs),
        5 - len(pairs),
        3 - len(pairs),
    )
    np.testing.assert_allclose(found.ious, [3 / 4, 2 / 4, 1 / 2][: len(pairs)])


def test_a_tie_with_the_threshold_is_no_match_however_the_threshold_was_computed():
    true = np.repeat([1, 0], [20, 5])
    pred = np.repeat([1, 0], [13, 12])  # IoU 13 / 20
    for threshold in (0.65, 0.5 + 3 * 0.05, np.arange(0.5, 1, 0.05)[3], np.linspace(0.5, 0.95, 10)[3]):
        assert metrics.match(true, pred, threshold).true_positives == 0
    assert metrics.match(true, pred, 0.6499).true_positives == 1


def test_below_half_the_most_pairs_are_formed():
    # Object 1 overlaps both predictions, object 2 only the one that overlaps object 1 best.
    true = np.array([1, 1, 1, 1, 1, 2, 2])
    pred = np.array([4, 4, 3, 3, 3, 3, 0])
    np.testing.assert_allclose(metrics.iou_matrix(true, pred), [[3 / 6, 2 / 5], [1 / 5, 0]])
    found = metrics.match(true, pred, 0.1)
    np.testing.assert_array_equal(found.pairs, [[1, 4], [2, 3]])
    np.testing.assert_allclose(found.ious, [2 / 5, 1 / 5])


def test_average_precision_by_hand():
    nothing = np.zeros_like(TRUE)
    true, pred = [TRUE, TRUE, nothing, nothing], [PRED, TRUE * 3, nothing, PRED]
    scores = metrics.matching_scores(true, pred, [0.25, 0.5])
    np.testing.assert_array_equal(scores.true_positives, [6, 4])
    np.testing.assert_array_equal(scores.false_positives, [7, 9])
    np.testing.assert_array_equal(scores.false_negatives, [0, 2])
    np.testing.assert_allclose(scores.average_precision, [6 / 13, 4 / 15])
    np.testing.assert_allclose(scores.precision, [6 / 13, 4 / 13])
    np.testing.assert_allclose(scores.recall, [1, 4 / 6])
    np.testing.assert_allclose(scores.f1, [12 / 19, 8 / 19])
    np.testing.assert_allclose(scores.mean_matched_iou, [(3 / 4 + 1 / 2 + 1 / 2 + 3) / 6, (3 / 4 + 3) / 4])
    np.testing.assert_allclose(scores.per_image, [[3 / 5, 1 / 7], [1, 1], [1, 1], [0, 0]])
    assert scores.at(0.5) == pytest.approx(4 / 15)
    np.testing.assert_allclose(metrics.average_precision(true, pred, [0.25, 0.5]), [6 / 13, 4 / 15])
    assert metrics.average_precision(true, pred, 0.5) == pytest.approx(4 / 15)
    assert metrics.average_precision(true, pred).shape == (10,)


def test_empty_answers_of_instance_maps():
    nothing, something = np.zeros((4, 4), int), np.eye(4, dtype=int)
    assert metrics.iou_matrix(nothing, something).shape == (0, 1)
    assert metrics.average_precision([nothing], [nothing], 0.5) == 1.0
    assert metrics.average_precision([nothing], [something], 0.5) == 0.0
    assert metrics.average_precision([something], [nothing], 0.3) == 0.0
    assert np.isnan(metrics.matching_scores([something], [nothing]).mean_matched_iou).all()
    assert metrics.match(nothing, nothing, 0.3).pairs.shape == (0, 2)
    assert metrics.aggregated_jaccard(nothing, nothing) == 1.0
    assert (
        metrics.aggregated_jaccard(nothing, something) == metrics.aggregated_jaccard(something, nothing) == 0
    )
    score = metrics.panoptic_quality([nothing], [nothing])
    assert (score.pq, score.sq, score.rq) == (1, 1, 1)
    for true, pred in ((nothing, something), (something, nothing)):
        score = metrics.panoptic_quality([true, nothing], [pred, nothing])
        assert (score.pq, score.sq, score.rq) == (0, 0, 0)
    void = panoptic(np.full((2, 2), -1), np.zeros((2, 2), int))
    assert np.isnan(metrics.panoptic_quality_per_class([void], [void], 2).mean()).all()


AJI_TRUE = np.array([[1, 1, 1, 0, 2, 2, 0, 3]])
AJI_PRED = np.array([[5, 5, 6, 6, 6, 0, 7, 0]])


def test_aggregated_jaccard_by_hand():
    # 1 takes 5 (2/3, not 6: 1/5), 2 takes 6 (1/4), 3 meets nothing (+1), 7 is unused (+1).
    assert metrics.aggregated_jaccard(AJI_TRUE, AJI_PRED) == pytest.approx((2 + 1) / (3 + 4 + 1 + 1))
    assert metrics.aggregated_jaccard(TRUE, TRUE * 3) == 1.0


def test_one_prediction_over_two_objects_is_charged_to_both():
    true, pred = np.array([[1, 1, 2, 2, 2]]), np.full((1, 5), 4)
    assert metrics.aggregated_jaccard(true, pred) == pytest.approx((2 + 3) / (5 + 5))


def test_ties_of_aggregated_jaccard():
    # Object 1 has an IoU of 1/4 with both, 1 pixel of 4 and 2 of 8: the one that shares 2 is taken.
    true = np.repeat([[1, 0, 1, 0]], [1, 0, 3, 6], axis=-1)
    pred = np.array([[5, 6, 6, 0, 6, 6, 6, 6, 0, 0]])
    np.testing.assert_allclose(metrics.iou_matrix(true, pred), [[1 / 4, 2 / 8]])
    assert metrics.aggregated_jaccard(true, pred) == pytest.approx(2 / (8 + 1))
    # The same object halved: as many pixels, so the one that comes first, whatever its name. Object 2 takes it, too.
    true = np.array([[1, 1, 1, 1, 0, 0], [2, 0, 0, 0, 0, 0]])
    for first, second in ((5, 6), (6, 5)):
        pred = np.array([[first, first, second, second, 0, 0], [first, 0, 0, 0, second, 0]])
        np.testing.assert_allclose(metrics.iou_matrix(true, pred)[0], [2 / 5, 2 / 5])
        # 1 and 2 take the first: intersections 2 + 1, unions 5 + 3; the second has 3 pixels.
        assert metrics.aggregated_jaccard(true, pred) == pytest.approx((2 + 1) / (5 + 3 + 3))


def test_panoptic_quality_by_hand():
    nothing = np.zeros_like(TRUE)
    score = metrics.panoptic_quality([TRUE, nothing, TRUE], [PRED, nothing, TRUE * 3])
    assert (score.true_positives, score.false_positives, score.false_negatives) == (4, 4, 2)
    assert score.sq == pytest.approx((3 / 4 + 3) / 4)
    assert score.rq == pytest.approx(4 / (4 + 4 / 2 + 2 / 2))
    assert score.pq == pytest.approx((3 / 4 + 3) / 7)


def panoptic(classes, instances):
    return np.stack([np.array(classes), np.array(instances)], axis=-1)


def test_panoptic_quality_per_class_by_hand():
    # Classes: 0 background and 1 road are stuff; 2 and 3 are things.
    true = panoptic([[0, 0, 1, 1, 2, 2, 2, 3, 3, 3]], [[0, 9, 0, 0, 1, 1, 1, 1, 1, 2]])
    pred = panoptic([[0, 0, 0, 1, 2, 2, 3, 2, 3, 3]], [[0, 0, 5, 0, 4, 4, 4, 4, 1, 2]])
    # Stuff 0: IoU 2/3. Stuff 1: 1/2, no match. Thing 2: 2 of 4. Thing 3: 1 of 2 (no), 1 of 1, and one wrong pixel.
    scores = metrics.panoptic_quality_per_class([true], [pred], 5, stuff=(0, 1))
    np.testing.assert_array_equal(scores.true_positives, [1, 0, 0, 1, 0])
    np.testing.assert_array_equal(scores.false_positives, [0, 1, 1, 2, 0])
    np.testing.assert_array_equal(scores.false_negatives, [0, 1, 1, 1, 0])
    np.testing.assert_allclose(scores.matched_iou, [2 / 3, 0, 0, 1, 0])
    np.testing.assert_allclose(scores.pq, [2 / 3, 0, 0, 1 / 2.5, np.nan])
    np.testing.assert_allclose(scores.sq, [2 / 3, 0, 0, 1, np.nan])
    np.testing.assert_allclose(scores.rq, [1, 0, 0, 1 / 2.5, np.nan])
    assert scores.mean() == pytest.approx(((2 / 3 + 0.4) / 4, (2 / 3 + 1) / 4, 1.4 / 4))
    assert scores.mean([2, 3, 4]) == pytest.approx((0.2, 0.5, 0.2))
    assert np.isnan(scores.mean([4])).all()


def test_void_and_groups_of_panoptic_quality():
    # One row each: void takes pixels out of the prediction; an unmatched prediction mostly on void or on a group of its
    # own class is no false positive; half is not most; a group of another class excuses nothing.
    def counts(classes_true, instances_true, classes_pred, instances_pred):
        true, pred = panoptic([classes_true], [instances_true]), panoptic([classes_pred], [instances_pred])
        scores = metrics.panoptic_quality_per_class([true], [pred], 3, stuff=(0,))
        return tuple(
            array[1] for array in (scores.true_positives, scores.false_positives, scores.false_negatives)
        ) + (scores.matched_iou[1],)

    assert counts([1, 1, -1, -1], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]) == (1, 0, 0, 1.0)
    assert counts([1, 0, -1, -1], [1, 0, 0, 0], [0, 1, 1, 1], [0, 1, 1, 1]) == (0, 0, 1, 0.0)
    assert counts([1, 0, 0, -1], [1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]) == (0, 1, 1, 0.0)
    assert counts([1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1], [7, 7, 7, 7]) == (0, 0, 0, 0.0)
    assert counts([2, 2, 2, 0], [0, 0, 0, 0], [1, 1, 1, 1], [7, 7, 7, 7]) == (0, 1, 0, 0.0)
    # No answer: neither right nor wrong.
    assert counts([1, 1, 1, 0], [1, 1, 1, 0], [-1, 1, 1, 1], [0, 2, 2, 0]) == (1, 0, 0, pytest.approx(2 / 3))


def test_each_pixel_an_object():
    pixels = np.arange(1, 64 * 64 + 1).reshape(64, 64)
    found = metrics.match(pixels, pixels[::-1, ::-1])
    assert found.true_positives == 64 * 64
    assert np.all(found.ious == 1)


def test_ids_far_apart_need_no_memory():
    true, pred = np.array([0, 2**40, 2**40, 3]), np.array([2**50, 2**50, 2**50, 0])
    np.testing.assert_allclose(metrics.iou_matrix(true, pred), [[0], [2 / 3]])
    np.testing.assert_array_equal(metrics.match(true, pred).pairs, [[2**40, 2**50]])


def test_count_error_has_a_sign():
    assert metrics.count_error(TRUE, PRED) == 2
    assert metrics.count_error(PRED, TRUE) == -2


@laws
@given(maps(0, 5), st.sampled_from([0.0, 0.2, 0.4, 0.5, 0.7]), st.permutations(range(1, 6)))
def test_matching_laws(pair, threshold, names):
    true, pred = pair
    matrix = metrics.iou_matrix(true, pred)
    # One IoU at a time, by the definition.
    for i, a in enumerate(np.unique(true[true > 0])):
        for j, b in enumerate(np.unique(pred[pred > 0])):
            assert matrix[i, j] == pytest.approx(metrics.iou(true == a, pred == b))
    np.testing.assert_allclose(matrix, metrics.iou_matrix(pred, true).T)

    found, mirrored = metrics.match(true, pred, threshold), metrics.match(pred, true, threshold)
    assert found.true_positives == mirrored.true_positives
    assert found.ious.sum() == pytest.approx(mirrored.ious.sum())
    assert len(np.unique(found.pairs[:, 0])) == len(np.unique(found.pairs[:, 1])) == found.true_positives
    assert np.all(found.ious > threshold)
    assert found.true_positives + found.false_negatives == matrix.shape[0]
    assert found.true_positives + found.false_positives == matrix.shape[1]

    renamed = np.array([0, *names])[pred] * 10
    again = metrics.match(true, renamed, threshold)
    assert again.true_positives == found.true_positives
    assert again.ious.sum() == pytest.approx(found.ious.sum())
    assert 0 <= metrics.average_precision([true], [pred], threshold) <= 1
    assert metrics.average_precision([true], [true], threshold) == 1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics.match(TRUE, PRED[:, 1:]), "instances_true has shape"),
        (lambda: metrics.match(TRUE, -PRED), "instances_pred holds -9; it must hold ids from 0"),
        (lambda: metrics.match(TRUE, PRED / 10), "instances_pred is .*float64.*label its components"),
        (lambda: metrics.match(TRUE, PRED, 1.0), "threshold is 1.0; it must be at least 0 and below 1"),
        (lambda: metrics.match(TRUE, PRED, -0.1), "threshold is -0.1"),
        (lambda: metrics.match(TRUE, PRED, np.nan), "threshold is nan"),
        (
            lambda: metrics.average_precision([TRUE], [PRED, PRED]),
            "instances_true holds 1 maps and instances_pred 2",
        ),
        (lambda: metrics.average_precision([], []), "instances_true is empty"),
        (
            lambda: metrics.average_precision(TRUE, PRED),
            r"instances_true is one array of shape \(3, 6\); it must be a list",
        ),
        (lambda: metrics.panoptic_quality([TRUE], PRED), "instances_pred is one array"),
        (lambda: metrics.panoptic_quality([TRUE, TRUE], [PRED, -PRED]), "image 1: instances_pred holds -9"),
        (lambda: metrics.aggregated_jaccard(TRUE, PRED[1:]), "instances_true has shape"),
        (
            lambda: metrics.panoptic_quality_per_class([TRUE], [PRED], 3),
            r"image 0: panoptic_true is .*\(height, width, 2\)",
        ),
        (
            lambda: metrics.panoptic_quality_per_class([panoptic(TRUE, TRUE)], [panoptic(PRED, PRED)], 8),
            "panoptic_pred holds 9; it must hold class ids, 0 to 7",
        ),
        (
            lambda: metrics.panoptic_quality_per_class([panoptic(TRUE, -TRUE)], [panoptic(TRUE, PRED)], 8),
            "panoptic_true holds instance -7",
        ),
        (
            lambda: metrics.panoptic_quality_per_class([panoptic(TRUE, TRUE)], [panoptic([[1]], [[1]])], 8),
            "panoptic_true has shape",
        ),
        (
            lambda: metrics.panoptic_quality_per_class([panoptic(TRUE, TRUE)], [panoptic(TRUE, PRED) / 2], 8),
            "panoptic_pred is an array of float64",
        ),
        (
            lambda: metrics.panoptic_quality_per_class([TRUE], [PRED], 3, stuff=(3,)),
            r"stuff is \(3,\)|stuff is \[3\]",
        ),
        (lambda: metrics.panoptic_quality_per_class([TRUE], [PRED], 0), "num_classes"),
        (
            lambda: metrics.panoptic_quality_per_class(
                [panoptic(TRUE, TRUE)], [panoptic(TRUE, TRUE)], 8
            ).mean([8]),
            r"classes is \[8\]",
        ),
        (lambda: metrics.average_precision([TRUE], [PRED], []), "thresholds"),
        (
            lambda: metrics.average_precision([TRUE, TRUE], [PRED, -PRED]),
            "image 1: instances_pred holds -9",
        ),
        (lambda: metrics.matching_scores([TRUE], [PRED]).at(0.51), "threshold is 0.51; .*0.5, 0.55"),
        (lambda: metrics.count_error(TRUE, PRED[1:]), "shape"),
    ],
)
def test_instance_errors(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# --- Segments ---


def scores_of(truth, prediction):
    return metrics.rand_score(truth, prediction), metrics.information_score(truth, prediction)


def test_splits_and_merges_are_told_apart():
    two = np.repeat([[1] * 4 + [2] * 4], 4, axis=0)
    one, four = np.ones_like(two), two * 2 + (np.arange(4) > 1)[:, None]
    for merged in scores_of(two, one):
        assert merged.split == 1
        assert merged.merge < 1
    for cut in scores_of(two, four):
        assert cut.merge == pytest.approx(1)
        assert cut.split < 1
    # By hand: p_ij = 1/2 twice, s = 1, t = 1/2 twice.
    rand, information = scores_of(two, one)
    assert (rand.split, rand.merge) == (1, 0.5)
    assert rand.f_score == pytest.approx(2 / 3)
    assert (information.split, information.merge, information.f_score) == (1, 0, 0)
    rand, information = scores_of(two, four)
    assert (rand.split, rand.merge) == (0.5, 1)
    assert information.split == pytest.approx(np.log(2) / np.log(4))
    assert information.f_score == pytest.approx(2 * 0.5 / 1.5)


def test_border_pixels_of_the_truth_are_not_judged():
    truth = np.array([[1, 1, 0, 2, 2]])
    for left_out in (0, 1, 2, 77):
        prediction = np.array([[1, 1, left_out, 2, 2]])
        for score in scores_of(truth, prediction):
            assert score.f_score == pytest.approx(1)


def test_empty_and_single_segments():
    nothing, one, pixels = np.zeros((3, 3), int), np.ones((3, 3), int), np.arange(9).reshape(3, 3) + 1
    for score in scores_of(nothing, one):
        assert np.isnan([score.f_score, score.split, score.merge]).all()
    for truth in (one, pixels):
        for score in scores_of(truth, truth):
            assert (score.f_score, score.split, score.merge) == pytest.approx((1, 1, 1))
    rand, information = scores_of(one, pixels)
    assert (rand.split, rand.merge) == pytest.approx((1 / 9, 1))
    assert (information.split, information.merge, information.f_score) == (0, 1, 0)


@laws
@given(maps(0, 4), st.permutations(range(5)))
def test_partition_laws(pair, names):
    truth, prediction = pair
    for score, again, mirrored in zip(
        scores_of(truth, prediction),
        scores_of(truth * 3, np.array(names)[prediction]),
        scores_of(prediction + 1, truth + 1),
        strict=True,
    ):
        if np.isnan(score.f_score):
            assert not truth.any()
            assert np.isnan(again.f_score)
            continue
        values = (score.f_score, score.split, score.merge)
        assert (again.f_score, again.split, again.merge) == pytest.approx(values, abs=1e-9)
        assert all(0 <= value <= 1 for value in values)
        if score.split + score.merge:
            harmonic = 2 * score.split * score.merge / (score.split + score.merge)
            assert score.f_score == pytest.approx(harmonic, abs=1e-9)
        assert 0 <= mirrored.f_score <= 1
    # Where all pixels are judged, to change sides is to change split and merge.
    for here, there in zip(scores_of(truth + 1, prediction), scores_of(prediction + 1, truth), strict=True):
        assert (here.f_score, here.split, here.merge) == pytest.approx(
            (there.f_score, there.merge, there.split), abs=1e-9
        )


def test_true_segments_are_four_connected():
    semantic_map = np.array([[1, 0, 1], [0, 1, 1], [-1, 0, 1]])
    segments = metrics.segments_from_labels(semantic_map)
    assert segments.dtype == np.int32
    np.testing.assert_array_equal(segments, [[1, 0, 2], [0, 2, 2], [0, 0, 2]])
    np.testing.assert_array_equal(metrics.segments_from_labels(semantic_map, cell=0) > 0, semantic_map == 0)


def test_segments_fill_the_picture_and_meet_at_the_ridge():
    probability = np.tile(np.array([0.9, 0.8, 0.3, 0.1, 0.2, 0.7, 0.9], "float32"), (4, 1))
    segments = metrics.segments_from_probability(probability, 0.5)
    assert segments.dtype == np.int32
    np.testing.assert_array_equal(segments[:, :3], 1)
    np.testing.assert_array_equal(segments[:, 4:], 2)
    assert set(np.unique(segments)) == {1, 2}
    # A wider border on either side changes no segment: that is what thinning is for.
    wider = np.where(probability < 0.85, probability / 4, probability)
    np.testing.assert_array_equal(metrics.segments_from_probability(wider, 0.5), segments)
    # A threshold below the ridge opens it.
    assert metrics.segments_from_probability(probability, 0.05).max() == 1


def test_segments_without_seed_and_with_small_seeds():
    assert np.all(metrics.segments_from_probability(np.full((3, 4), 0.2)) == 1)
    probability = np.full((5, 9), 0.1)
    probability[1:4, 1:4] = probability[1:4, 6:8] = 0.9
    probability[0, 8] = 0.8
    assert metrics.segments_from_probability(probability).max() == 3
    assert metrics.segments_from_probability(probability, min_size=2).max() == 2
    assert metrics.segments_from_probability(probability, min_size=7).max() == 1
    assert np.all(metrics.segments_from_probability(probability, min_size=99) == 1)


def test_the_wide_border_of_a_good_map_costs_nothing():
    truth = np.array([[1, 1, 1, 1, 0, 2, 2, 2, 2]])
    probability = np.array([[0.9, 0.9, 0.3, 0.3, 0.1, 0.3, 0.3, 0.9, 0.9]])
    for score in scores_of(truth, metrics.segments_from_probability(probability)):
        assert score.f_score == pytest.approx(1)
    unthinned = (probability > 0.5).astype(int) * np.array([[1] * 5 + [2] * 4])
    assert metrics.rand_score(truth, unthinned).f_score < 0.8


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics.rand_score(np.ones((2, 2), int), np.ones((2, 3), int)), "segments_true has shape"),
        (
            lambda: metrics.rand_score(np.full((2, 2), -1), np.ones((2, 2), int)),
            "segments_true holds -1; it must hold ids from 0",
        ),
        (
            lambda: metrics.information_score(np.ones((2, 2), int), np.full((2, 2), 0.4)),
            "segments_pred is .*float64",
        ),
        (lambda: metrics.segments_from_probability(np.full((2, 2), 1.5)), "cell_probability holds .*sigmoid"),
        (lambda: metrics.segments_from_probability(np.full((2, 2), np.nan)), "cell_probability"),
        (
            lambda: metrics.segments_from_probability(np.ones((2, 2), int)),
            "cell_probability is an array of int64; it must hold float",
        ),
        (lambda: metrics.segments_from_probability(np.ones((2, 2, 2))), r"\(height, width\)"),
        (lambda: metrics.segments_from_probability(np.ones((2, 2)), 1.0), "threshold"),
        (lambda: metrics.segments_from_probability(np.ones((2, 2)), min_size=0), "min_size"),
        (lambda: metrics.segments_from_labels(np.ones((2, 2))), "semantic is an array of float64"),
        (lambda: metrics.segments_from_labels(np.ones((1, 2, 2), int)), r"\(height, width\)"),
    ],
)
def test_partition_errors(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_the_ignore_label_is_the_one_of_the_data_sets():
    from course_lib.datasets.sample import IGNORE

    assert semantic.IGNORE == IGNORE


# --- Ignored regions ---


def test_what_is_ignored_neither_helps_nor_harms_an_object():
    true = np.array([[1, 1, 1, 0, 0, 2, 2, 0, 0, 0]])
    pred = np.array([[4, 4, 4, 4, 0, 5, 5, 5, 5, 6]])
    void = np.array([[0, 0, 0, 1, 0, 0, 0, 1, 1, 1]], bool)
    # 4 loses its pixel too many and fits; 5 is half ignored and fits; 6 lies in void and counts neither way.
    found = metrics.match(true, pred, 0.9, void)
    np.testing.assert_array_equal(found.pairs, [[1, 4], [2, 5]])
    assert (found.false_positives, found.false_negatives) == (0, 0)
    assert metrics.match(true, pred, 0.6).true_positives == 1
    assert metrics.aggregated_jaccard(true, pred, void) == 1
    assert metrics.panoptic_quality([true], [pred], [void]).pq == 1
    assert metrics.average_precision([true, true], [pred, true], 0.9, ignore=[void, None]) == 1
    assert (metrics.count_error(true, pred), metrics.count_error(true, pred, void)) == (1, 0)


def test_a_false_alarm_is_excused_where_more_than_half_of_it_is_ignored():
    nothing, pred = np.zeros((1, 4), int), np.array([[3, 3, 3, 3]])
    for ignored, wrong in ((1, 1), (2, 1), (3, 0), (4, 0)):
        void = np.arange(4)[None] < ignored
        assert metrics.match(nothing, pred, 0.5, void).false_positives == wrong
        assert metrics.panoptic_quality([nothing], [pred], [void]).false_positives == wrong
        assert metrics.aggregated_jaccard(nothing, pred, void) == 1 - wrong
        assert metrics.count_error(nothing, pred, void) == wrong


def test_an_object_under_an_ignored_region_is_nothing_to_find():
    true, void = np.array([[1, 1, 2, 2]]), np.array([[1, 1, 1, 0]], bool)
    found = metrics.match(true, np.zeros_like(true), 0.5, void)
    assert (found.true_positives, found.false_negatives) == (0, 1)


@laws
@given(maps(0, 5, 3), st.integers(0, 2**32 - 1))
def test_what_is_predicted_under_an_ignored_region_does_not_change_what_is_found(three, seed):
    true, pred, other = three
    void = np.random.default_rng(seed).random(true.shape) < 0.4
    here, there = (metrics.match(true, p, 0.5, void) for p in (pred, np.where(void, other, pred)))
    assert here.true_positives == there.true_positives
    assert here.false_negatives == there.false_negatives
    np.testing.assert_allclose(here.ious, there.ious)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics.match(TRUE, PRED, ignore=PRED[1:] > 0), r"ignore is an array of shape \(2, 6\)"),
        (
            lambda: metrics.match(TRUE, PRED, ignore=PRED),
            "ignore is an array of int64 .* boolean .*semantic == -1",
        ),
        (lambda: metrics.average_precision([TRUE], [PRED], ignore=PRED > 0), "ignore is one array .*a list"),
        (
            lambda: metrics.panoptic_quality([TRUE], [PRED], ignore=[]),
            "ignore holds 0 masks; it must hold one",
        ),
    ],
)
def test_ignored_regions_that_do_not_fit(call, words):
    with pytest.raises(ValueError, match=words):
        call()
