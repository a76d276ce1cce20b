"""Streaming metrics against Keras's own, on whichever backend runs."""

import keras
import numpy as np
import pytest

from course_lib import metrics

pytestmark = pytest.mark.backend

CLASSES = 4


SHAPE = (3, 4, 5)  # one for all cases, since JAX compiles for each shape anew


def batches():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(*SHAPE, CLASSES)).astype("float32")
    one_pixel = np.full(SHAPE, -1)
    one_pixel[1, 2, 3] = 2
    yield "random", rng.integers(0, CLASSES, SHAPE), logits
    yield "ignore", rng.integers(-1, CLASSES, SHAPE), logits
    yield "absent class", rng.integers(0, 2, SHAPE), logits - np.array([0, 0, 99, 99], "float32")
    yield "one pixel", one_pixel, logits
    yield "all wrong", np.zeros(SHAPE, int), np.tile(np.array([0, 9, 0, 0], "float32"), (*SHAPE, 1))


CASES = [pytest.param(*case[1:], id=case[0]) for case in batches()]


def stream(metric, y_true, y_pred, **options):
    y_true = y_true.astype("int32")
    for i in range(len(y_true)):
        metric.update_state(
            y_true[i : i + 1], y_pred[i : i + 1], **{k: v[i : i + 1] for k, v in options.items()}
        )
    return float(metric.result())


@pytest.mark.parametrize(("y_true", "logits"), CASES)
def test_mean_iou(y_true, logits):
    ours = stream(metrics.MeanIoU(CLASSES), y_true, logits)
    theirs = stream(keras.metrics.MeanIoU(CLASSES, ignore_class=-1), y_true, logits.argmax(axis=-1))
    assert ours == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize(("y_true", "logits"), CASES)
def test_one_hot_mean_iou(y_true, logits):
    y_true = np.abs(y_true)  # one-hot labels have no place for the ignore label
    theirs = stream(keras.metrics.OneHotMeanIoU(CLASSES), np.eye(CLASSES)[y_true], logits)
    assert stream(metrics.MeanIoU(CLASSES), y_true, logits) == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("classes", [[1, 2]])
def test_iou_of_chosen_classes(classes):
    _, y_true, logits = next(batches())
    theirs = stream(keras.metrics.IoU(CLASSES, target_class_ids=classes), y_true, logits.argmax(axis=-1))
    assert stream(metrics.MeanIoU(CLASSES, classes=classes), y_true, logits) == pytest.approx(
        theirs, abs=1e-6
    )


@pytest.mark.parametrize(("y_true", "logits"), CASES)
def test_pixel_accuracy(y_true, logits):
    judged = (y_true >= 0).astype("float32")
    theirs = stream(
        keras.metrics.SparseCategoricalAccuracy(), np.maximum(y_true, 0), logits, sample_weight=judged
    )
    assert stream(metrics.PixelAccuracy(), y_true, logits) == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize(("y_true", "logits"), CASES[2:3])
def test_dice_is_the_f1_score_of_the_pixels(y_true, logits):
    matrix = metrics.confusion_matrix(y_true, logits.argmax(axis=-1), CLASSES)
    judged = y_true >= 0
    f1 = keras.metrics.F1Score(average=None)
    f1.update_state(
        np.eye(CLASSES, dtype="float32")[y_true[judged]],
        np.eye(CLASSES, dtype="float32")[logits.argmax(-1)[judged]],
    )
    theirs = np.array(keras.ops.convert_to_numpy(f1.result()))
    present = ~np.isnan(metrics.dice_per_class(matrix))
    np.testing.assert_allclose(metrics.dice_per_class(matrix)[present], theirs[present], rtol=0, atol=1e-6)
    # Keras scores an absent class 0; here it is left out of the mean.
    assert np.all(theirs[~present] == 0)
    assert stream(metrics.DiceScore(CLASSES), y_true, logits) == pytest.approx(
        theirs[present].mean(), abs=1e-6
    )


def test_weights_of_pixels():
    _, y_true, logits = next(batches())
    weights = np.random.default_rng(3).integers(0, 4, y_true.shape)  # Keras casts them to integers
    theirs = stream(keras.metrics.MeanIoU(CLASSES), y_true, logits.argmax(-1), sample_weight=weights)
    assert stream(metrics.MeanIoU(CLASSES), y_true, logits, sample_weight=weights) == pytest.approx(
        theirs, abs=1e-6
    )


def test_what_keras_mean_iou_says_to_probabilities():
    """The trap that our docstring tells of: given probabilities, it scores pictures of class 0 alone."""
    y_true = np.random.default_rng(5).integers(0, 2, SHAPE)
    probabilities = np.where(y_true == 1, 0.98, 0.02).astype("float32")  # every pixel right
    stuck = stream(keras.metrics.MeanIoU(CLASSES), y_true, probabilities)
    assert stuck == pytest.approx(np.mean(y_true == 0) / 2, abs=1e-6)
    logits = np.stack([1 - probabilities, probabilities, *[np.zeros(SHAPE)] * 2], axis=-1).astype("float32")
    assert stream(metrics.MeanIoU(CLASSES), y_true, logits) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("y_true", "logits"), CASES)
def test_confusion_matrix_and_iou_of_each_class(y_true, logits):
    table, mean = metrics.ConfusionMatrix(CLASSES), metrics.MeanIoU(CLASSES)
    stream(mean, y_true, logits)
    theirs = keras.metrics.MeanIoU(CLASSES, ignore_class=-1)
    stream(theirs, y_true, logits.argmax(axis=-1))
    for i in range(len(y_true)):
        table.update_state(y_true[i : i + 1].astype("int32"), logits[i : i + 1])
    counts = keras.ops.convert_to_numpy(theirs.total_cm)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(table.result()), counts, rtol=0, atol=1e-6)
    per_class = keras.ops.convert_to_numpy(mean.per_class())
    for c in np.flatnonzero(~np.isnan(per_class)):
        one = keras.metrics.IoU(CLASSES, target_class_ids=[c], ignore_class=-1)
        assert per_class[c] == pytest.approx(stream(one, y_true, logits.argmax(axis=-1)), abs=1e-6)
    # Frequency-weighted IoU has no counterpart; Keras's counts and its IoU of each class are the parts of it.
    fractions = counts.sum(axis=1) / counts.sum()
    weighted = metrics.frequency_weighted_iou(counts)
    assert weighted == pytest.approx(np.sum(fractions * np.nan_to_num(per_class)), abs=1e-6)


@pytest.mark.parametrize(("y_true", "logits"), CASES)
def test_class_accuracy_is_the_recall_of_each_class(y_true, logits):
    judged = y_true >= 0
    one_hot = np.eye(CLASSES, dtype="float32")[y_true.clip(0)]
    ours = metrics.class_accuracy(metrics.confusion_matrix(y_true, logits.argmax(axis=-1), CLASSES))
    for c in np.unique(y_true[judged]):
        theirs = keras.metrics.Recall(class_id=int(c), top_k=1)
        theirs.update_state(one_hot[judged], logits[judged])
        assert ours[c] == pytest.approx(float(theirs.result()), abs=1e-6)


@pytest.mark.parametrize(("y_true", "logits"), CASES)
def test_pixel_accuracy_of_one_hot_labels(y_true, logits):
    one_hot, judged = np.eye(CLASSES)[y_true.clip(0)], (y_true >= 0).astype("float32")
    theirs = stream(keras.metrics.CategoricalAccuracy(), one_hot, logits, sample_weight=judged)
    assert stream(metrics.PixelAccuracy(), y_true, logits) == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("channels", [1, 2])
def test_the_iou_of_objects_in_a_binary_map(channels):
    _, y_true, logits = next(batches())
    y_true = y_true % 2
    score = logits[..., 1] - logits[..., 0]
    theirs = stream(keras.metrics.BinaryIoU(target_class_ids=[1], threshold=0.0), y_true, score)
    given = logits[..., :2] if channels == 2 else score[..., None]
    assert stream(metrics.MeanIoU(2, classes=[1]), y_true, given) == pytest.approx(theirs, abs=1e-6)
