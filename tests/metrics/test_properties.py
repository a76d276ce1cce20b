"""Laws that every mask, class map and instance map obeys: symmetric, bounded, blind to names and to place."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from course_lib import metrics

CLASSES = 3
laws = settings(deadline=None, max_examples=50, derandomize=True)
shapes = st.tuples(st.integers(1, 6), st.integers(1, 7))


def maps(low: int, high: int, count: int = 2):
    """`count` integer maps of the same random shape, values low..high."""
    return shapes.flatmap(
        lambda shape: st.tuples(*[hnp.arrays(np.int32, shape, elements=st.integers(low, high))] * count)
    )


def masks(count: int = 2):
    """`count` boolean masks of the same random shape."""
    return maps(0, 1, count).map(lambda arrays: tuple(array.astype(bool) for array in arrays))


def moved(array, rows: int, columns: int):
    """The same picture on a larger, empty canvas."""
    return np.pad(array, ((rows, 3 - rows), (columns, 3 - columns)))


AGREEMENTS = {
    "iou": metrics.iou,
    "dice": metrics.dice,
    "boundary_iou": metrics.boundary_iou,
    "boundary_f1": metrics.boundary_f1,
}
DISTANCES = {
    "hausdorff": metrics.hausdorff,
    "hd95": lambda a, b: metrics.hausdorff(a, b, 95),
    "assd": metrics.average_surface_distance,
}


# --- Masks ---


@pytest.mark.parametrize("name", AGREEMENTS)
@laws
@given(masks(), st.integers(0, 3), st.integers(0, 3))
def test_agreements_of_masks(name, pair, rows, columns):
    score, (a, b) = AGREEMENTS[name], pair
    assert 0 <= score(a, b) <= 1
    assert score(a, b) == pytest.approx(score(b, a))
    assert score(a, a) == 1
    assert score(moved(a, rows, columns), moved(b, rows, columns)) == pytest.approx(score(a, b))


@pytest.mark.parametrize("name", DISTANCES)
@laws
@given(masks(), st.integers(0, 3), st.integers(0, 3), st.sampled_from([0.1, 0.5, 3]))
def test_distances_of_masks(name, pair, rows, columns, spacing):
    distance, (a, b) = DISTANCES[name], pair
    assert distance(a, b) >= 0
    assert distance(a, b) == pytest.approx(distance(b, a))
    assert distance(a, a) == 0
    assert distance(moved(a, rows, columns), moved(b, rows, columns)) == pytest.approx(distance(a, b))
    assert np.isinf(distance(a, b)) == (a.any() != b.any())
    if name == "hausdorff":
        assert metrics.hausdorff(a, b, spacing=spacing) == pytest.approx(spacing * distance(a, b))


@laws
@given(masks(), st.floats(0.5, 100), st.floats(0.5, 100))
def test_distances_are_in_order(pair, one, other):
    a, b = pair
    low, high = sorted([one, other])
    assert 0 <= metrics.hausdorff(a, b, low) <= metrics.hausdorff(a, b, high) + 1e-9
    assert metrics.hausdorff(a, b, high) <= metrics.hausdorff(a, b) + 1e-9
    assert metrics.average_surface_distance(a, b) <= metrics.hausdorff(a, b)


@laws
@given(masks(3))
def test_the_triangle_inequality(three):
    assume(all(mask.any() for mask in three))
    a, b, c = three
    assert metrics.hausdorff(a, c) <= metrics.hausdorff(a, b) + metrics.hausdorff(b, c) + 1e-9


@laws
@given(masks(), st.lists(st.floats(0, 12), min_size=2, max_size=4).map(sorted))
def test_a_larger_tolerance_never_costs(pair, tolerances):
    a, b = pair
    scores = [metrics.boundary_f1(a, b, tolerance) for tolerance in tolerances]
    assert np.all(np.diff(scores) >= 0)
    if a.any() and b.any():
        assert metrics.boundary_f1(a, b, metrics.hausdorff(a, b)) == 1


# --- Class maps ---


@laws
@given(maps(-1, CLASSES - 1), st.permutations(range(CLASSES)))
def test_class_scores(pair, order):
    y_true, y_pred = pair[0], np.maximum(pair[1], 0)
    matrix = metrics.confusion_matrix(y_true, y_pred, CLASSES)
    iou = metrics.iou_per_class(matrix)
    weighted, accuracy = metrics.frequency_weighted_iou(matrix), metrics.mean_class_accuracy(matrix)
    if not np.any(y_true >= 0):
        assert np.isnan([weighted, accuracy]).all()
        return
    assert 0 <= weighted <= 1 and 0 <= accuracy <= 1
    assert weighted <= metrics.pixel_accuracy(matrix) + 1e-12  # no class's IoU is above its accuracy
    assert weighted <= np.nanmax(iou) + 1e-12
    assert metrics.mean_iou(matrix) <= accuracy + 1e-12
    order = np.array(order)
    renamed = metrics.confusion_matrix(np.where(y_true < 0, -1, order[y_true]), order[y_pred], CLASSES)
    assert metrics.frequency_weighted_iou(renamed) == pytest.approx(weighted)
    assert metrics.mean_class_accuracy(renamed) == pytest.approx(accuracy)


# --- Instance maps ---

names_of_objects = st.permutations(range(1, 6)).map(lambda names: np.array([0, *names]) * 10)


@laws
@given(maps(0, 5), names_of_objects, names_of_objects, st.integers(0, 3), st.integers(0, 3))
def test_panoptic_quality_of_one_class(pair, names, other_names, rows, columns):
    true, pred = pair
    score = metrics.panoptic_quality([true], [pred])
    assert 0 <= score.pq <= score.rq <= 1 and 0 <= score.sq <= 1
    assert score.pq == pytest.approx(score.sq * score.rq)
    assert score.sq == 0 or score.sq > 0.5  # a match has an IoU above 0.5
    assert metrics.panoptic_quality([true], [true]).pq == 1
    mirrored = metrics.panoptic_quality([pred], [true])
    assert mirrored.pq == pytest.approx(score.pq)
    assert mirrored.false_positives == score.false_negatives
    renamed = metrics.panoptic_quality([names[true]], [other_names[pred]])
    assert renamed.pq == pytest.approx(score.pq)
    shifted = metrics.panoptic_quality([moved(true, rows, columns)], [moved(pred, rows, columns)])
    assert shifted.pq == pytest.approx(score.pq)
    # Its factors are the F1 score and the mean IoU of the matching at 0.5.
    matching = metrics.matching_scores([true], [pred], 0.5)
    assert matching.f1[0] == pytest.approx(score.rq)
    if score.true_positives:
        assert matching.mean_matched_iou[0] == pytest.approx(score.sq)


@laws
@given(maps(0, 5), st.lists(st.floats(0, 0.999), min_size=2, max_size=5).map(sorted))
def test_average_precision_falls_with_the_threshold(pair, thresholds):
    scores = metrics.average_precision([pair[0]], [pair[1]], thresholds)
    assert np.all(np.diff(scores) <= 0)
    assert np.all((scores >= 0) & (scores <= 1))
    assert np.all(scores <= metrics.matching_scores([pair[0]], [pair[1]], thresholds).f1)


@laws
@given(maps(0, 5), names_of_objects, names_of_objects, st.integers(0, 3), st.integers(0, 3))
def test_aggregated_jaccard(pair, names, other_names, rows, columns):
    true, pred = pair
    score = metrics.aggregated_jaccard(true, pred)
    assert 0 <= score <= 1
    assert metrics.aggregated_jaccard(names[true], other_names[pred]) == pytest.approx(score)
    assert metrics.aggregated_jaccard(true, names[true]) == 1
    shifted = metrics.aggregated_jaccard(moved(true, rows, columns), moved(pred, rows, columns))
    assert shifted == pytest.approx(score)
    # It charges for more than the foreground's IoU does.
    assert score <= metrics.iou(true > 0, pred > 0) + 1e-12
    if not np.array_equal(true > 0, pred > 0):
        assert score < 1


@laws
@given(maps(0, 5), st.permutations(range(CLASSES)))
def test_panoptic_quality_of_several_classes(pair, order):
    true, pred = (np.stack([instances % CLASSES, instances], axis=-1) for instances in pair)
    scores = metrics.panoptic_quality_per_class([true], [pred], CLASSES, stuff=(0,))
    mirrored = metrics.panoptic_quality_per_class([pred], [true], CLASSES, stuff=(0,))
    for name in ("pq", "sq", "rq"):
        score = getattr(scores, name)
        assert np.all(np.isnan(score) | ((score >= 0) & (score <= 1)))
        np.testing.assert_allclose(getattr(mirrored, name), score)
    np.testing.assert_allclose(scores.pq, scores.sq * scores.rq)
    # Other names for the classes change nothing but the order.
    order = np.array(order)
    true, pred = (np.stack([order[m[..., 0]], m[..., 1]], axis=-1) for m in (true, pred))
    renamed = metrics.panoptic_quality_per_class([true], [pred], CLASSES, stuff=(order[0],))
    np.testing.assert_allclose(renamed.pq[order], scores.pq)
    assert renamed.mean() == pytest.approx(scores.mean(), nan_ok=True)


@laws
@given(maps(0, 5))
def test_one_class_of_things_is_panoptic_quality(pair):
    # Background is no segment where it is predicted as no answer and is void in the truth.
    true, pred = (np.stack([np.where(m > 0, 1, -1), m], axis=-1) for m in pair)
    judged = pair[0] > 0
    scores = metrics.panoptic_quality_per_class([true], [pred], 2, stuff=())
    expected = metrics.panoptic_quality([pair[0]], [np.where(judged, pair[1], 0)])
    assert scores.true_positives[1] == expected.true_positives
    assert scores.false_negatives[1] == expected.false_negatives
    assert scores.matched_iou[1] == pytest.approx(expected.sq * expected.true_positives)
    assert scores.false_positives[1] <= expected.false_positives
    assert np.isnan(scores.pq[0])


@laws
@given(maps(0, 5, 3), st.integers(0, 2**32 - 1))
def test_what_is_predicted_on_void_finds_and_loses_nothing(three, seed):
    true, pred, other = (np.stack([instances % CLASSES, instances], axis=-1) for instances in three)
    void = np.random.default_rng(seed).random(three[0].shape) < 0.4
    true[void] = (-1, 0)
    changed = np.where(void[..., None], other, pred)
    here, there = (metrics.panoptic_quality_per_class([true], [p], CLASSES) for p in (pred, changed))
    np.testing.assert_array_equal(here.true_positives, there.true_positives)
    np.testing.assert_array_equal(here.false_negatives, there.false_negatives)
    np.testing.assert_allclose(here.matched_iou, there.matched_iou)
