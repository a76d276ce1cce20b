"""The losses beside Keras's own and beside the formula in NumPy, on the backend that is set."""

import keras
import numpy as np
import pytest
from keras import ops

from course_lib.losses import CrossEntropy, Dice, Focal, SegmentationLoss, Tversky

pytestmark = pytest.mark.backend

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(scale=3, size=(2, 5, 6, 4)).astype("float32")
LABELS = RNG.integers(0, 4, (2, 5, 6)).astype("int32")


def numpy_softmax(logits):
    exponential = np.exp(logits.astype("float64") - logits.max(-1, keepdims=True))
    return exponential / exponential.sum(-1, keepdims=True)


def test_cross_entropy_is_keras_own():
    own = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(LABELS, LOGITS)
    assert float(CrossEntropy()(LABELS, LOGITS)) == pytest.approx(float(own), abs=1e-6)


def test_binary_logits_are_a_sigmoid():
    labels, logits = LABELS % 2, LOGITS[..., :1]
    own = keras.losses.BinaryCrossentropy(from_logits=True)(labels[..., None].astype("float32"), logits)
    assert float(CrossEntropy()(labels, logits)) == pytest.approx(float(own), abs=1e-6)


@pytest.mark.parametrize("shape", [(2, 5, 6), (2, 5, 6, 1), (2, 1, 1)])
def test_weights_are_those_of_keras(shape):
    weights = RNG.random(shape).astype("float32")
    own = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(LABELS, LOGITS, sample_weight=weights)
    assert float(CrossEntropy()(LABELS, LOGITS, weights)) == pytest.approx(float(own), abs=1e-6)


def test_ignored_pixels_do_not_count():
    ignored = LABELS.copy()
    ignored[:, :2] = -1
    kept = CrossEntropy()(LABELS[:, 2:], LOGITS[:, 2:])
    assert float(CrossEntropy()(ignored, LOGITS)) == pytest.approx(float(kept), abs=1e-6)
    kept = Dice()(LABELS[:, 2:], LOGITS[:, 2:])
    assert float(Dice()(ignored, LOGITS)) == pytest.approx(float(kept), abs=1e-6)


def test_class_weights():
    weights = (0.5, 1.0, 2.0, 4.0)
    logarithm = np.log(numpy_softmax(LOGITS))
    per_pixel = -np.take_along_axis(logarithm, LABELS[..., None], -1)[..., 0] * np.take(weights, LABELS)
    assert float(CrossEntropy(class_weights=weights)(LABELS, LOGITS)) == pytest.approx(
        per_pixel.mean(), abs=1e-5
    )
    with pytest.raises(ValueError, match=r"class_weights is .* each of the 4 classes"):
        CrossEntropy(class_weights=(1, 2))(LABELS, LOGITS)


def test_dice_is_the_formula_and_keras_own():
    probabilities, one_hot = numpy_softmax(LOGITS), np.eye(4)[LABELS]
    overlap, total = (probabilities * one_hot).sum((0, 1, 2)), (probabilities + one_hot).sum((0, 1, 2))
    assert float(Dice(smooth=1)(LABELS, LOGITS)) == pytest.approx(
        1 - ((2 * overlap + 1) / (total + 1)).mean(), abs=1e-6
    )
    without = 1 - ((2 * overlap + 1) / (total + 1))[1:].mean()
    assert float(Dice(smooth=1, background=False)(LABELS, LOGITS)) == pytest.approx(without, abs=1e-6)
    # Keras's Dice sums over all classes at once where axis is None; over one class it is the same number.
    own = keras.losses.Dice(axis=(0, 1, 2))(one_hot.astype("float32"), probabilities.astype("float32"))
    assert float(Dice(smooth=1e-7)(LABELS, LOGITS)) == pytest.approx(float(ops.mean(own)), abs=1e-5)


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.5), (0.3, 0.7), (0.9, 0.2)])
def test_tversky_is_keras_own(alpha, beta):
    # Keras up to 3.15 has the two factors the other way round from its documentation; later ones do not.
    missed_one_of_two = keras.losses.tversky(np.float32([1, 1]), np.float32([1, 0]), alpha=1.0, beta=0.0)
    prices = (beta, alpha) if float(missed_one_of_two) > 0.4 else (alpha, beta)
    own = keras.losses.Tversky(*prices, axis=(0, 1, 2))(
        np.eye(4, dtype="float32")[LABELS], numpy_softmax(LOGITS).astype("float32")
    )
    loss = Tversky(alpha, beta, smooth=1e-7)
    assert float(loss(LABELS, LOGITS)) == pytest.approx(float(own), abs=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 3.0])
def test_focal_is_keras_own_of_many_classes(gamma):
    alpha = (0.1, 0.2, 0.3, 0.4)
    own = keras.losses.CategoricalFocalCrossentropy(alpha=alpha, gamma=gamma, from_logits=True)
    expected = float(own(np.eye(4, dtype="float32")[LABELS], LOGITS))
    assert float(Focal(gamma, alpha)(LABELS, LOGITS)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 2.0, 3.0])
def test_focal_is_keras_own_of_one_channel(gamma):
    labels, logits = LABELS % 2, LOGITS[..., :1]
    y_true = labels[..., None].astype("float32")
    own = keras.losses.BinaryFocalCrossentropy(gamma=gamma, from_logits=True)(y_true, logits)
    assert float(Focal(gamma)(labels, logits)) == pytest.approx(float(own), abs=1e-6)
    own = keras.losses.BinaryFocalCrossentropy(True, alpha=0.25, gamma=gamma, from_logits=True)(
        y_true, logits
    )
    assert float(Focal(gamma, (0.75, 0.25))(labels, logits)) == pytest.approx(float(own), abs=1e-6)


def test_sum_weights_and_serialisation():
    loss = CrossEntropy(class_weights=(1, 2, 3, 4)) + 0.25 * Dice(smooth=2.0)
    expected = float(CrossEntropy(class_weights=(1, 2, 3, 4))(LABELS, LOGITS)) + 0.25 * float(
        Dice(smooth=2.0)(LABELS, LOGITS)
    )
    assert float(loss(LABELS, LOGITS)) == pytest.approx(expected, abs=1e-6)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert isinstance(again, SegmentationLoss)
    assert float(again(LABELS, LOGITS)) == pytest.approx(expected, abs=1e-6)


def test_shapes_that_do_not_belong_together():
    with pytest.raises(ValueError, match="labels need their batch axis too"):
        CrossEntropy()(LABELS[0], LOGITS)
    with pytest.raises(ValueError, match="smooth is 0"):
        Dice(smooth=0)


def test_in_fit_with_pixel_weights_and_mixed_precision():
    keras.utils.set_random_seed(0)
    policy = "mixed_bfloat16"
    model = keras.Sequential([keras.Input((5, 6, 4)), keras.layers.Conv2D(4, 1, dtype=policy)])
    model.compile(keras.optimizers.Adam(0.05), CrossEntropy() + 1.0 * Dice())
    weights = np.ones(LABELS.shape, "float32")
    history = model.fit(
        np.eye(4, dtype="float32")[LABELS], LABELS, sample_weight=weights, epochs=30, verbose=0
    )
    assert history.history["loss"][-1] < 0.5 * history.history["loss"][0]
