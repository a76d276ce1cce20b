"""COCO's average precision: what it is on detections that can be judged by hand, its laws, and its errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.metrics import COCOEvaluator, CocoScores, coco

laws = settings(deadline=None, max_examples=25)


def evaluated(*images, num_classes=1, kind="boxes", **options) -> CocoScores:
    evaluator = COCOEvaluator(num_classes, kind, **options)
    for image in images:
        evaluator.update(**image)
    return evaluator.result()


def image(truth=(), detections=(), scores=(), **more):
    """An image of class 0."""
    return {
        "boxes_true": list(truth),
        "classes_true": [0] * len(truth),
        "boxes_pred": list(detections),
        "classes_pred": [0] * len(detections),
        "scores": list(scores),
        **more,
    }


# --- By hand ---


def test_three_detections_of_two_objects():
    # Right, wrong, right: precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1. Up to a recall of 0.5 (51 of the 101)
    # the best precision from there on is 1, behind it (50) it is 2/3.
    expected = (51 * 1 + 50 * 2 / 3) / 101
    scores, matches = [0.7, 0.9, 0.8], [True, True, False]  # in no order
    precision = coco.interpolated_precision(scores, matches, num_objects=2)
    np.testing.assert_allclose(precision, [1.0] * 51 + [2 / 3] * 50)
    assert coco.average_precision_101(scores, matches, num_objects=2) == pytest.approx(expected)

    truth = [[0, 0, 10, 10], [20, 0, 30, 10]]
    # The first has IoU 1 with the left object; the second lies apart; the third has 8/10 with the right one.
    detections = [[0, 0, 10, 10], [40, 40, 50, 50], [20, 0, 30, 8]]
    found = evaluated(image(truth, detections, [0.9, 0.8, 0.7]))
    assert found.ap_50 == found.ap_75 == pytest.approx(expected)
    # At 0.85, 0.9 and 0.95 the right object isn't found: precision 1 up to a recall of 1/2, then 0.
    assert found.ap == pytest.approx((7 * expected + 3 * 51 / 101) / 10)
    assert found.per_class.tolist() == [found.ap]
    assert found.ap_small == found.ap
    assert found.ar_1 == pytest.approx(1 / 2)
    assert found.ar_10 == found.ar_100 == pytest.approx((7 * 1 + 3 * 1 / 2) / 10)
    assert np.isnan(found.ap_medium) and np.isnan(found.ar_large)
    assert found.num_objects.tolist() == [[2, 2, 0, 0]]


def test_an_iou_equal_to_the_threshold_is_enough():
    half = image([[0, 0, 10, 10]], [[0, 0, 10, 5]], [1.0])
    assert evaluated(half).ap_50 == 1
    assert evaluated(half).ap == pytest.approx(1 / 10)
    assert evaluated(half, iou_thresholds=[0.55]).ap == 0
    exact = image([[0, 0, 10, 10]], [[0, 0, 10, 10]], [1.0])
    assert evaluated(exact, iou_thresholds=[1.0]).ap == 1


def test_an_object_is_found_once_and_by_the_better_score():
    truth, worse = [0, 0, 10, 10], [0, 0, 10, 9]
    # The better-scored box is the worse one, and takes the object; the other is a false alarm.
    twice = evaluated(image([truth], [truth, worse], [0.5, 0.9]))
    at = np.isclose(twice.iou_thresholds, 0.95)
    assert twice.precision[at, 0, 0, 0, 2] == 1 / 2  # 0.9 IoU is too little there: wrong, then right
    assert twice.ap == pytest.approx((9 * 1 + 1 / 2) / 10)


def test_a_detection_takes_the_best_free_object():
    left, right = [0, 0, 10, 10], [2, 0, 12, 10]
    # Both want the right object at 0.6; the second has to take the left one, IoU 8/12.
    both = evaluated(image([left, right], [right, right], [0.9, 0.8]), iou_thresholds=[0.6])
    assert both.ap == 1
    assert evaluated(image([left, right], [right, right], [0.9, 0.8]), iou_thresholds=[0.7]).ar_100 == 1 / 2


def test_of_equal_ious_the_last_object_is_taken():
    left, right, between = [0, 0, 10, 10], [4, 0, 14, 10], [2, 0, 12, 10]
    for then, recall in ((left, 1), (right, 1 / 2)):
        found = evaluated(image([left, right], [between, then], [0.9, 0.8]), iou_thresholds=[0.5])
        assert found.ar_100 == recall


def test_detections_in_a_crowd_count_neither_way():
    crowd, single = [0, 0, 50, 50], [60, 60, 80, 80]
    inside = [[1, 1, 9, 9], [1, 1, 9, 9], [45, 10, 55, 20]]  # the last lies half in the crowd
    seen = image([crowd, single], [*inside, single], [0.9, 0.8, 0.7, 0.1], crowd=[True, False])
    assert evaluated(seen).ap_50 == 1
    assert evaluated(seen).num_objects[0, 0] == 1
    assert evaluated(seen).ap_75 == pytest.approx(
        1 / 2
    )  # half in the crowd is too little here: a false alarm
    assert evaluated(seen).num_crowds == 1
    seen["crowd"] = [1, 1]
    assert np.isnan(evaluated(seen).ap)


def test_an_object_that_counts_goes_before_a_crowd():
    box = [0, 0, 10, 10]
    for truth, crowd in (([box, [0, 0, 90, 90]], [False, True]), ([[0, 0, 90, 90], box], [True, False])):
        assert evaluated(image(truth, [[0, 0, 10, 6]], [1.0], crowd=crowd)).ar_100 == pytest.approx(3 / 10)


def test_size_ranges():
    small, large = [0, 0, 10, 10], [100, 100, 300, 300]
    guess, far_and_small, far_and_large = [100, 100, 300, 300], [50, 50, 60, 60], [400, 0, 600, 200]
    found = evaluated(image([small, large], [far_and_large, far_and_small, guess], [0.9, 0.8, 0.7]))
    assert found.ap == pytest.approx(51 / 101 / 3)
    assert found.ap_small == 0
    assert found.ap_large == 1 / 2  # the small false alarm isn't looked at
    assert np.isnan(found.ap_medium)
    on_the_limit = evaluated(image([[0, 0, 32, 32]], [[0, 0, 32, 32]], [1.0]))
    assert on_the_limit.ap_small == on_the_limit.ap_medium == 1
    assert evaluated(image([small], [small], [1.0]), size_limits=(50, 200)).num_objects.tolist() == [
        [1, 0, 1, 0]
    ]
    assert evaluated(image([small], [small], [1.0], areas=[2000.0])).num_objects.tolist() == [[1, 0, 1, 0]]


def test_masks_are_judged_by_their_pixels():
    square, ring = np.zeros((2, 9, 11), bool)
    square[1:7, 1:7] = ring[1:7, 1:7] = True
    ring[2:6, 2:6] = False
    seen = {
        "classes_true": [0],
        "masks_true": square[None],
        "classes_pred": [0],
        "masks_pred": ring[None],
        "scores": [1.0],
        "boxes_true": [[1, 1, 7, 7]],
        "boxes_pred": [[1, 1, 7, 7]],
    }
    assert evaluated(seen, kind="masks", iou_thresholds=[0.6]).ap == 0
    assert evaluated(seen, kind="masks", iou_thresholds=[20 / 36]).ap == 1
    assert evaluated(seen, kind="boxes").ap == 1


def test_what_is_empty():
    box = [[0, 0, 10, 10]]
    assert np.all(np.isnan(evaluated().stats))
    assert np.all(np.isnan(evaluated(image()).stats))
    assert np.isnan(evaluated(image([], box, [1.0])).ap)  # nothing to find
    missed = evaluated(image(box))
    assert missed.ap == missed.ar_100 == missed.ap_small == 0
    good = image(box, box, [0.5])
    assert evaluated(good).ap == evaluated(good, image()).ap == 1
    assert evaluated(good, image([], box, [0.9])).ap == pytest.approx(1 / 2)  # a false alarm elsewhere
    assert evaluated(image(box, [[3, 3, 3, 8]], [0.5])).ap == 0  # a box without width
    # A class that is only detected, and one that is nowhere, are left out; pixels of class maps differ here.
    detected_only = {**image(box, box * 2, [0.5, 0.9]), "classes_pred": [0, 2]}
    scores = evaluated(detected_only, num_classes=3)
    np.testing.assert_array_equal(scores.per_class, [1, np.nan, np.nan])
    assert scores.ap == 1
    assert np.isnan(coco.average_precision_101([0.5], [False], num_objects=0))
    assert coco.average_precision_101([], [], num_objects=3) == 0


def test_only_the_best_scored_detections_are_looked_at():
    boxes = [[20 * k, 0, 20 * k + 10, 10] for k in range(30)]
    scores = np.linspace(0, 1, 30)
    found = evaluated(image(boxes, boxes, scores), max_detections=25)
    assert (found.ar_1, found.ar_10, found.ar_100) == pytest.approx((1 / 30, 10 / 30, 25 / 30))
    assert found.max_detections == (1, 10, 25)
    assert evaluated(image(boxes, boxes, scores)).ap == 1


def test_reset_forgets_and_a_result_is_of_the_images_so_far():
    good, bad = image([[0, 0, 9, 9]], [[0, 0, 9, 9]], [0.5]), image([[0, 0, 9, 9]], [[5, 5, 9, 9]], [0.4])
    evaluator = COCOEvaluator(1)
    evaluator.update(**good)
    first = evaluator.result()
    evaluator.update(**bad)
    assert (first.ap, evaluator.result().ar_100) == (1, 0.5)
    assert first.num_objects.tolist() == [[1, 1, 0, 0]]
    evaluator.reset()
    assert np.isnan(evaluator.result().ap)
    evaluator.update(**bad)
    assert evaluator.result().ap == 0


def test_the_twelve_numbers_can_be_printed():
    scores = evaluated(image([[0, 0, 9, 9]], [[0, 0, 9, 9]], [0.5]))
    assert str(scores).splitlines()[0].split() == ["ap", "1.000"]
    assert len(str(scores).splitlines()) == len(scores.stats) == 12
    assert scores.precision.shape == (10, 101, 1, 4, 3)
    assert scores.recall.shape == (10, 1, 4, 3)
    assert len(repr(scores)) < 1000


def test_thresholds_that_were_not_taken_are_nan():
    scores = evaluated(image([[0, 0, 9, 9]], [[0, 0, 9, 9]], [0.5]), iou_thresholds=[0.3, 0.75])
    assert np.isnan(scores.ap_50)
    assert scores.ap_75 == scores.ap == 1


# --- Laws ---

CLASSES = 2


@st.composite
def images(draw, most=4):
    """Some images with boxes on a small grid, all scores of all images different."""
    counts = draw(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=1, max_size=most))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores = rng.permutation(sum(m for _, m in counts)) / 100 + 0.1
    made = []
    for n, m in counts:
        low = rng.integers(0, 4, (n + m, 2))
        boxes = np.concatenate([low, low + rng.integers(1, 5, (n + m, 2))], axis=-1)
        made.append(
            {
                "boxes_true": boxes[:n],
                "classes_true": rng.integers(0, CLASSES, n),
                "crowd": rng.random(n) < 0.2,
                "areas": rng.choice([10.0, 5000.0, 20000.0], n),
                "boxes_pred": boxes[n:],
                "classes_pred": rng.integers(0, CLASSES, m),
                "scores": scores[:m],
            }
        )
        scores = scores[m:]
    return made


@laws
@given(images())
def test_the_idea_in_three_functions_gives_the_evaluators_numbers(seen):
    """`greedy_matches` in each image, then one curve per class: COCO's AP where there is neither crowd nor size."""
    for image in seen:
        image["crowd"] = np.zeros(len(image["classes_true"]), bool)
    scores = evaluated(*seen, num_classes=CLASSES)
    for k in range(CLASSES):
        for t, threshold in enumerate(scores.iou_thresholds):
            found, hits, objects = [], [], 0
            for image in seen:
                order = np.argsort(-image["scores"], kind="stable")
                order = order[image["classes_pred"][order] == k]
                boxes = image["boxes_true"][image["classes_true"] == k]
                found.extend(image["scores"][order])
                hits.extend(coco.greedy_matches(ious(image["boxes_pred"][order], boxes), threshold))
                objects += len(boxes)
            expected = coco.interpolated_precision(found, hits, objects)
            np.testing.assert_allclose(scores.precision[t, :, k, 0, -1], expected, atol=1e-12)


def ious(a, b):
    """Of all pairs of boxes, by counting pixels."""
    y, x = np.mgrid[:9, :9]

    def filled(boxes):
        return [(x >= x1) & (x < x2) & (y >= y1) & (y < y2) for x1, y1, x2, y2 in boxes]

    table = [[np.sum(p & q) / np.sum(p | q) for q in filled(b)] for p in filled(a)]
    return np.reshape(table, (len(a), len(b)))


@laws
@given(images())
def test_boxes_and_the_masks_that_fill_them_score_the_same(seen):
    y, x = np.mgrid[:9, :9]
    by_box = evaluated(*seen, num_classes=CLASSES)
    for image in seen:
        for side in ("true", "pred"):
            boxes = image.pop(f"boxes_{side}").reshape(-1, 4)
            image[f"masks_{side}"] = np.array(
                [(x >= a) & (x < c) & (y >= b) & (y < d) for a, b, c, d in boxes], bool
            ).reshape(-1, 9, 9)
    np.testing.assert_array_equal(
        evaluated(*seen, num_classes=CLASSES, kind="masks").precision, by_box.precision
    )


# --- Errors ---

BOX = [[0, 0, 4, 4]]
MASKS = {"classes_true": [0], "classes_pred": [0], "scores": [1.0], "masks_true": np.ones((1, 4, 4), bool)}
MAP = np.ones((4, 4), int)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: COCOEvaluator(0), "num_classes is 0; it must be at least 1"),
        (lambda: COCOEvaluator(1, "polygons"), "kind is 'polygons'; it must be one of 'boxes', 'masks'"),
        (lambda: COCOEvaluator(1, iou_thresholds=[0.0]), r"iou_thresholds is \[0.0\]; it must hold"),
        (
            lambda: COCOEvaluator(1, iou_thresholds=0.5),
            r"iou_thresholds is an array of shape \(\); it must be \(any",
        ),
        (lambda: COCOEvaluator(1, size_limits=(96, 32)), "size_limits is .* two ascending"),
        (lambda: COCOEvaluator(1, max_detections=5), "max_detections is 5; it must be at least 10"),
        (
            lambda: evaluated(image(BOX, BOX, [1.0, 0.5])),
            r"scores is an array of shape \(2,\); it must be \(1\)",
        ),
        (lambda: evaluated(image(BOX, BOX, [np.nan])), "scores contains NaN"),
        (lambda: evaluated(image(BOX, [[0, 0, np.inf, 1]], [1.0])), "boxes_pred contains NaN or infinity"),
        (
            lambda: evaluated(image([[5, 0, 4, 4]], BOX, [1.0])),
            r"boxes_true holds .* in row 0.*x, y, width, height",
        ),
        (
            lambda: evaluated(image(BOX, BOX * 2, [1.0], classes_pred=[0])),
            r"boxes_pred .*shape \(2, 4\).*\(1, 4\)",
        ),
        (lambda: evaluated(image(BOX, boxes_true=None)), "boxes_true is None"),
        (lambda: evaluated(image(BOX, classes_true=[1])), "classes_true holds 1; ids must run from 0 to 0"),
        (lambda: evaluated(image([], BOX, [1.0], classes_pred=[-1])), "classes_pred holds -1"),
        (lambda: evaluated(image(BOX, classes_true=[0.5])), "classes_true is an array of float64"),
        (lambda: evaluated(image(BOX, classes_true=[[0]])), r"classes_true is an array of shape \(1, 1\)"),
        (lambda: evaluated(image(BOX, crowd=[True, False])), r"crowd is an array of shape \(2,\)"),
        (lambda: evaluated(image(BOX, crowd=[64.0])), r"crowd is \[64.0\]; it must be true or false"),
        (lambda: evaluated(image(BOX, areas=[-1.0])), r"areas is \[-1.0\]; each must be at least 0"),
        (lambda: evaluated(image(BOX), kind="masks"), "masks_true is None"),
        (lambda: evaluated({**MASKS, "masks_pred": np.ones((1, 4, 4))}, kind="masks"), "must hold boolean"),
        (
            lambda: evaluated({**MASKS, "masks_pred": np.ones((4, 4), bool)}, kind="masks"),
            "one mask .* per class id",
        ),
        (
            lambda: evaluated({**MASKS, "masks_pred": np.ones((1, 4, 5), bool)}, kind="masks"),
            r"masks_pred .*\(1, 4, 5\); its height and width .*\(4, 4\)",
        ),
        (lambda: coco.interpolated_precision([0.5], [True, False], 3), "is_match .*one entry per score"),
        (lambda: coco.interpolated_precision([np.nan], [True], 3), "scores contains NaN"),
        (
            lambda: coco.interpolated_precision([0.5, 0.4], [True, True], 1),
            "num_objects is 1; it must be at least 2",
        ),
        (lambda: coco.greedy_matches([[0.5]], 0), "threshold is 0; it must be above 0 and at most 1"),
    ],
)
def test_errors(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_an_image_that_was_refused_leaves_no_trace():
    evaluator = COCOEvaluator(2)
    evaluator.update(**image(BOX, BOX, [0.5]))
    with pytest.raises(ValueError, match="areas"):
        evaluator.update(**image(BOX * 2, BOX, [0.5], areas=[1.0, -1.0]))
    assert evaluator.result().ap == 1
    assert evaluator.result().num_objects.sum() == 2  # one object, in two ranges: all and small


def test_the_arrays_that_were_given_are_not_changed():
    seen = {name: np.asarray(values) for name, values in image(BOX * 2, BOX * 3, [0.1, 0.3, 0.2]).items()}
    seen["crowd"] = np.array([True, False])
    before = {name: values.copy() for name, values in seen.items()}
    evaluated(seen)
    for name, values in seen.items():
        np.testing.assert_array_equal(values, before[name])
