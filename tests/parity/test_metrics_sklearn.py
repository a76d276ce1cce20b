"""Class and partition scores against scikit-learn."""

import warnings

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics
from sklearn.metrics.cluster import pair_confusion_matrix

from course_lib import metrics

CLASSES = 4
TOLERANCE = {"rtol": 0, "atol": 1e-6}


def class_maps():
    rng = np.random.default_rng(0)
    yield "random", rng.integers(-1, CLASSES, (32, 32)), rng.integers(0, CLASSES, (32, 32))
    yield "absent class", rng.integers(0, 2, (16, 16)), rng.integers(0, 2, (16, 16))
    yield "class only in truth", rng.integers(0, 4, (16, 16)), rng.integers(0, 2, (16, 16))
    yield "one pixel", np.array([[2]]), np.array([[1]])
    yield "one pixel counts", np.array([[2, -1]]), np.array([[2, 0]])
    yield "all one class", np.zeros((8, 8), int), np.zeros((8, 8), int)
    yield "all wrong", np.zeros((8, 8), int), np.ones((8, 8), int)


def partitions():
    rng = np.random.default_rng(1)
    blocks = np.kron(np.arange(16).reshape(4, 4), np.ones((8, 8), int))
    yield "random", rng.integers(0, 6, (24, 24)), rng.integers(0, 9, (24, 24))
    yield "blocks", blocks, np.where(rng.random(blocks.shape) < 0.1, 3, blocks // 2)
    yield "all one segment", rng.integers(0, 6, (12, 12)), np.ones((12, 12), int)
    yield "truth one segment", np.ones((12, 12), int), rng.integers(0, 6, (12, 12))
    yield "each pixel a segment", blocks, np.arange(blocks.size).reshape(blocks.shape)
    yield "both one segment", np.ones((5, 5), int), np.full((5, 5), 8)
    yield "one pixel", np.array([[0, 3]]), np.array([[4, 4]])


def named(cases):
    return [pytest.param(*case[1:], id=case[0]) for case in cases]


@pytest.mark.parametrize(("y_true", "y_pred"), named(class_maps()))
def test_confusion_matrix_and_its_scores(y_true, y_pred):
    matrix = metrics.confusion_matrix(y_true, y_pred, CLASSES)
    judged = y_true >= 0
    true, pred, labels = y_true[judged], y_pred[judged], range(CLASSES)
    np.testing.assert_array_equal(matrix, sklearn_metrics.confusion_matrix(true, pred, labels=labels))

    options = {"labels": labels, "average": None, "zero_division": np.nan}
    np.testing.assert_allclose(
        metrics.dice_per_class(matrix), sklearn_metrics.f1_score(true, pred, **options), **TOLERANCE
    )
    recall = sklearn_metrics.recall_score(true, pred, **options)
    np.testing.assert_allclose(metrics.class_accuracy(matrix), recall, **TOLERANCE)
    # jaccard_score has no NaN for an absent class: compare the classes that occur.
    present = np.unique(np.concatenate([true, pred]))
    jaccard = sklearn_metrics.jaccard_score(true, pred, labels=present, average=None)
    iou = metrics.iou_per_class(matrix)
    np.testing.assert_allclose(iou[present], jaccard, **TOLERANCE)
    assert np.isnan(np.delete(iou, present)).all()
    assert metrics.mean_iou(matrix) == pytest.approx(jaccard.mean(), abs=1e-6)
    accuracy = sklearn_metrics.accuracy_score(true, pred)
    assert metrics.pixel_accuracy(matrix) == pytest.approx(accuracy, abs=1e-6)
    assert metrics.pixel_error(y_true, y_pred) == pytest.approx(1 - accuracy, abs=1e-6)
    weighted = sklearn_metrics.jaccard_score(
        true, pred, average="weighted"
    )  # by the true pixels of each class
    assert metrics.frequency_weighted_iou(matrix) == pytest.approx(weighted, abs=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it says so where a class is only predicted
        balanced = sklearn_metrics.balanced_accuracy_score(true, pred)
    assert metrics.mean_class_accuracy(matrix) == pytest.approx(balanced, abs=1e-6)


@pytest.mark.parametrize("density", [0.0, 0.01, 0.5, 1.0])
def test_masks(density):
    rng = np.random.default_rng(2)
    a, b = rng.random((20, 20)) < 0.5, rng.random((20, 20)) < density
    assert metrics.iou(a, b) == pytest.approx(sklearn_metrics.jaccard_score(a.ravel(), b.ravel()), abs=1e-6)
    assert metrics.dice(a, b) == pytest.approx(sklearn_metrics.f1_score(a.ravel(), b.ravel()), abs=1e-6)


@pytest.mark.parametrize(("truth", "prediction"), named(partitions()))
def test_information_score(truth, prediction):
    ours = metrics.information_score(truth, prediction)
    true, pred = truth[truth > 0], prediction[truth > 0]
    # In the language of clusters: nothing merged is homogeneous, nothing split is complete.
    merge, split, f_score = sklearn_metrics.homogeneity_completeness_v_measure(true, pred)
    assert (ours.merge, ours.split, ours.f_score) == pytest.approx((merge, split, f_score), abs=1e-6)
    # The formula, from scikit-learn's parts.
    entropy_s = sklearn_metrics.mutual_info_score(pred, pred)
    entropy_t = sklearn_metrics.mutual_info_score(true, true)
    if entropy_s + entropy_t > 1e-12:
        expected = sklearn_metrics.mutual_info_score(true, pred) / (0.5 * entropy_s + 0.5 * entropy_t)
        assert ours.f_score == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("truth", "prediction"), named(partitions()))
def test_rand_score(truth, prediction):
    ours = metrics.rand_score(truth, prediction)
    true, pred = truth[truth > 0], prediction[truth > 0]
    # scikit-learn counts pairs of *different* pixels; in the paper's formula a pixel is its own partner, too.
    together = pair_confusion_matrix(true, pred)[1, 1] + true.size
    same_true = pair_confusion_matrix(true, true)[1, 1] + true.size
    same_pred = pair_confusion_matrix(pred, pred)[1, 1] + true.size
    assert ours.split == pytest.approx(together / same_true, abs=1e-6)
    assert ours.merge == pytest.approx(together / same_pred, abs=1e-6)
    assert ours.f_score == pytest.approx(2 * together / (same_true + same_pred), abs=1e-6)
