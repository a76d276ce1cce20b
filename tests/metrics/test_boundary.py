"""Scores of outlines on masks that can be counted by hand."""

import numpy as np
import pytest

from course_lib import metrics
from course_lib.metrics.boundary import outline, rim

EMPTY, FULL = np.zeros((10, 10), bool), np.ones((10, 10), bool)


def square(top=3, left=3, size=4):
    mask = EMPTY.copy()
    mask[top : top + size, left : left + size] = True
    return mask


# --- Plain functions ---


def test_the_outline_by_hand():
    assert outline(square()).sum() == 12  # a ring of 4 x 4 pixels without the 2 x 2 inside
    assert outline(FULL).sum() == 36  # the edge of the picture is outline too
    np.testing.assert_array_equal(outline(square(size=1)), square(size=1))
    cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)
    assert not outline(np.pad(cross, 1))[
        2, 2
    ]  # its four neighbours are in the mask; the diagonal ones don't count
    for mask in (square(), FULL, EMPTY, square(0, 0, 7)):
        np.testing.assert_array_equal(outline(mask), rim(mask, 1))


def test_a_shift_by_one_column_by_hand():
    # Of the true ring, the left column (4 pixels) and the inner 2 of the right one are 1 pixel from the other ring.
    there, back = metrics.surface_distances(square(), square(left=4))
    assert sorted(there) == sorted(back) == [0] * 6 + [1] * 6
    assert metrics.average_surface_distance(square(), square(left=4)) == pytest.approx(0.5)
    assert metrics.hausdorff(square(), square(left=4)) == 1
    assert metrics.hausdorff(square(), square(left=4), percentile=50) == 0.5
    assert metrics.boundary_f1(square(), square(left=4), tolerance=0) == pytest.approx(0.5)
    assert metrics.boundary_f1(square(), square(left=4), tolerance=0.99) == pytest.approx(0.5)
    assert metrics.boundary_f1(square(), square(left=4), tolerance=1) == 1


def test_spacing_by_hand():
    # Rows are 2 apart and columns 3: the inner 2 of the right column now have their nearest above or below.
    there, back = metrics.surface_distances(square(), square(left=4), spacing=(2, 3))
    assert sorted(there) == sorted(back) == [0] * 6 + [2] * 2 + [3] * 4
    assert metrics.average_surface_distance(square(), square(left=4), (2, 3)) == pytest.approx(16 / 12)
    assert metrics.hausdorff(square(), square(left=4), spacing=(2, 3)) == 3
    assert metrics.boundary_f1(square(), square(left=4), 2, (2, 3)) == pytest.approx(8 / 12)


def test_a_tolerance_is_reached_however_the_distance_was_computed():
    # Three pixels of 0.1 are 0.30000000000000004.
    a, b = square(size=1), square(left=6, size=1)
    assert metrics.boundary_f1(a, b, tolerance=0.3, spacing=0.1) == 1
    assert metrics.boundary_f1(a, b, tolerance=0.2999, spacing=0.1) == 0


def test_precision_and_recall_are_told_apart():
    # One stray pixel beside a right answer: of 13 predicted pixels 12 are near, of 12 true ones all.
    stray = square() | square(9, 9, 1)
    assert metrics.boundary_f1(square(), stray, 1) == pytest.approx(2 * 12 / 13 / (12 / 13 + 1))
    assert metrics.hausdorff(square(), stray) == pytest.approx(np.hypot(3, 3))
    assert metrics.hausdorff(square(), stray, 90) == 0
    assert metrics.average_surface_distance(square(), stray) == pytest.approx(np.hypot(3, 3) / 25)


def test_percentiles_are_of_each_direction():
    # 1 of the 2 true pixels is 4 away, the one predicted pixel is right: 95 % of each, then the larger.
    true, pred = np.array([[1, 0, 0, 0, 1]], bool), np.array([[1, 0, 0, 0, 0]], bool)
    assert metrics.hausdorff(true, pred, 95) == pytest.approx(0.95 * 4)
    assert metrics.hausdorff(pred, true, 95) == pytest.approx(0.95 * 4)


@pytest.mark.parametrize(
    ("score", "agree", "differ"),
    [
        (metrics.boundary_iou, 1, 0),
        (metrics.boundary_f1, 1, 0),
        (metrics.hausdorff, 0, np.inf),
        (lambda a, b: metrics.hausdorff(a, b, 95), 0, np.inf),
        (metrics.average_surface_distance, 0, np.inf),
    ],
    ids=["boundary_iou", "boundary_f1", "hausdorff", "hausdorff 95", "average_surface_distance"],
)
def test_empty_full_and_no_masks(score, agree, differ):
    assert score(EMPTY, EMPTY) == score(FULL, FULL) == score(square(size=1), square(size=1)) == agree
    for mask in (FULL, square(), square(0, 0, 1)):
        assert score(EMPTY, mask) == score(mask, EMPTY) == differ
    assert np.isnan(score(np.zeros((0, 4), bool), np.zeros((0, 4), bool)))


def test_distances_to_an_empty_mask():
    there, back = metrics.surface_distances(square(), EMPTY)
    assert np.isinf(there).all() and len(there) == 12 and len(back) == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics.boundary_f1(square(), square()[1:]), "mask_true has shape"),
        (
            lambda: metrics.hausdorff(square() * 1, square()),
            "mask_true is an array of int64.*labels == class_id",
        ),
        (
            lambda: metrics.average_surface_distance(square(), square() * 0.5),
            "mask_pred is an array of float64",
        ),
        (lambda: metrics.hausdorff(np.True_, np.True_), "mask_true is True; it must be a mask"),
        (lambda: metrics.boundary_f1(square(), square(), -1), "tolerance is -1"),
        (lambda: metrics.boundary_f1(square(), square(), np.nan), "tolerance is nan"),
        (lambda: metrics.hausdorff(square(), square(), 0), "percentile is 0"),
        (lambda: metrics.hausdorff(square(), square(), 101), "percentile is 101"),
        (lambda: metrics.hausdorff(square(), square(), spacing=0), "spacing is 0"),
        (lambda: metrics.average_surface_distance(square(), square(), (1, 2, 3)), r"spacing is \(1, 2, 3\)"),
        (lambda: metrics.boundary_iou(square(), square(), 0.5), "distance is 0.5"),
    ],
)
def test_errors(call, words):
    with pytest.raises(ValueError, match=words):
        call()
