"""Mask scores and label counts against SciPy."""

import numpy as np
import pytest
from scipy import ndimage, stats
from scipy.spatial import distance

from course_lib import metrics


@pytest.mark.parametrize("density", [0.01, 0.3, 0.9])
def test_masks(density):
    rng = np.random.default_rng(0)
    a, b = rng.random(900) < density, rng.random(900) < 0.5
    assert metrics.iou(a, b) == pytest.approx(1 - distance.jaccard(a, b), abs=1e-6)
    assert metrics.dice(a, b) == pytest.approx(1 - distance.dice(a, b), abs=1e-6)


def test_pixel_error_is_the_hamming_distance_and_the_mean_squared_difference():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 2, 500), rng.integers(0, 2, 500)
    assert metrics.pixel_error(a, b) == pytest.approx(distance.hamming(a, b), abs=1e-6)
    assert metrics.pixel_error(a, b) == pytest.approx(distance.sqeuclidean(a, b) / 500, abs=1e-6)


def test_confusion_matrix_is_a_contingency_table():
    rng = np.random.default_rng(2)
    true, pred = rng.integers(0, 5, 400), rng.integers(0, 5, 400)
    table = stats.contingency.crosstab(true, pred, levels=(range(5), range(5))).count
    np.testing.assert_array_equal(metrics.confusion_matrix(true, pred, 5), table)


def test_information_score_from_scipy_entropies():
    rng = np.random.default_rng(3)
    truth, prediction = rng.integers(0, 7, (30, 30)), rng.integers(0, 4, (30, 30))
    judged = truth > 0
    joint = stats.contingency.crosstab(prediction[judged], truth[judged]).count
    entropy_s, entropy_t = stats.entropy(joint.sum(axis=1)), stats.entropy(joint.sum(axis=0))
    information = entropy_s + entropy_t - stats.entropy(joint.ravel())
    ours = metrics.information_score(truth, prediction)
    assert ours.split == pytest.approx(information / entropy_s, abs=1e-6)
    assert ours.merge == pytest.approx(information / entropy_t, abs=1e-6)
    assert ours.f_score == pytest.approx(information / ((entropy_s + entropy_t) / 2), abs=1e-6)


def test_count_error():
    rng = np.random.default_rng(4)
    (true, n), (pred, m) = (ndimage.label(rng.random((40, 40)) < share) for share in (0.3, 0.4))
    assert metrics.count_error(true, pred) == m - n
