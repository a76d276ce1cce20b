"""Batch normalization folded into convolutions: the same predictions, with the weights of the moment."""

import keras
import numpy as np
import pytest
from keras import layers

from course_lib import models
from course_lib.models.folding import Folded, folded

pytestmark = pytest.mark.backend

IMAGES = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)


def shaken(model):
    """The model with weights as if it were trained: no variance 1, no mean 0."""
    rng = np.random.default_rng(1)
    model.set_weights([w + (0.1 + rng.random(w.shape) * 0.4).astype("float32") for w in model.get_weights()])
    return model


def kinds(model):
    """The classes of its layers, also those within."""
    found = []
    for layer in model.layers:
        found += kinds(layer) if isinstance(layer, keras.Model) else [type(layer)]
    return found


def assert_the_same(model, quick):
    wanted = keras.ops.convert_to_numpy(model(IMAGES, training=False))
    found = keras.ops.convert_to_numpy(quick(IMAGES, training=False))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize(
    "network",
    [
        lambda: models.unet((None, None, 3), 3, base_filters=4, depth=2, normalization="batch"),
        lambda: models.deeplab(
            (32, 32, 3),
            3,
            backbone="small",
            widths=(4, 4, 4, 4),
            aspp_filters=4,
            decoder_filters=(4, 4),
            rates=(1, 2, 3),
        ),
    ],
)
def test_the_same_with_the_weights_of_the_moment(network):
    model = network()
    quick = folded(model)
    assert layers.BatchNormalization in kinds(model) and layers.BatchNormalization not in kinds(quick)
    assert_the_same(model, quick)
    assert_the_same(shaken(model), quick)


def test_a_model_within():
    inputs = keras.Input((None, None, 3))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, strides=2, padding="same")(inputs))
    body = keras.Model(inputs, x, name="encoder")
    model = keras.Model(inputs, layers.Conv2D(2, 1)(body(inputs)))
    quick = folded(shaken(model))
    assert Folded in kinds(quick) and Folded not in kinds(model)
    assert_the_same(model, quick)


@pytest.mark.parametrize("between", [lambda: layers.Activation("relu"), lambda: layers.DepthwiseConv2D(3)])
def test_what_follows_no_plain_convolution_stays(between):
    inputs = keras.Input((32, 32, 3))
    x = layers.BatchNormalization()(between()(layers.Conv2D(4, 3)(inputs)))
    x = layers.BatchNormalization(scale=False, center=False)(layers.Conv2D(4, 1, activation="relu")(x))
    model = shaken(keras.Model(inputs, x))
    quick = folded(model)
    assert kinds(quick).count(layers.BatchNormalization) == 2 and Folded not in kinds(quick)
    assert_the_same(model, quick)


def test_without_scale_shift_and_bias():
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(4, 3, use_bias=False, dilation_rate=2)(inputs)
    model = shaken(keras.Model(inputs, layers.BatchNormalization(scale=False, center=False)(x)))
    quick = folded(model)
    assert Folded in kinds(quick)
    assert_the_same(model, quick)
