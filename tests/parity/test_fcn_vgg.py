"""The converted classifier against the classifier: an FCN with VGG-16's weights gives VGG's answer at one position.

The weights are random. Keras's own VGG-16 runs on a picture of 96 pixels, where its first fully connected layer sees
3 × 3; with the published 7 × 7 it has the same layers with a tenth of the channels. `pytest -rP` prints the largest
deviations.
"""

import keras
import numpy as np
import pytest
from keras import layers, ops

from course_lib.models.fcn import fcn, load_vgg16

pytestmark = pytest.mark.backend

WIDTHS = (6, 8, 12, 16, 16)
CONVOLUTIONS = (2, 2, 3, 3, 3)


@pytest.fixture(autouse=True)
def numpy_draws_the_weights(monkeypatch):
    """JAX would compile the drawing of random numbers anew for every shape of kernel."""
    rng = np.random.default_rng(0)

    def draw(initializer, shape, dtype=None):
        kernel = rng.standard_normal(shape, np.float32) * np.sqrt(2 / np.prod(shape[:-1]))
        return ops.convert_to_tensor(kernel, dtype=dtype)

    for initializer in (keras.initializers.HeNormal, keras.initializers.GlorotUniform):
        monkeypatch.setattr(initializer, "__call__", draw)


def narrow_vgg(side=224, classes=10, fully_connected=40, name="narrow_vgg"):
    """VGG-16 as Keras names its layers, with few channels."""
    x = inputs = keras.Input((side, side, 3))
    for stage, (width, count) in enumerate(zip(WIDTHS, CONVOLUTIONS), start=1):
        for index in range(1, count + 1):
            x = layers.Conv2D(
                width, 3, padding="same", activation="relu", kernel_initializer="he_normal",
                name=f"block{stage}_conv{index}",
            )(x)  # fmt: skip
        x = layers.MaxPooling2D(2, name=f"block{stage}_pool")(x)
    x = layers.Flatten(name="flatten")(x)
    for name_of in ("fc1", "fc2"):
        x = layers.Dense(fully_connected, activation="relu", kernel_initializer="he_normal", name=name_of)(x)
    return keras.Model(inputs, layers.Dense(classes, name="predictions")(x), name=name)


def with_biases(model):
    """Biases that are not 0, so that a forgotten one shows."""
    rng = np.random.default_rng(5)
    for weight in model.weights:
        if weight.name == "bias":
            weight.assign(rng.uniform(-0.1, 0.1, weight.shape))
    return model


def output(model, layer, picture):
    part = keras.Model(model.input, model.get_layer(layer).output)
    return np.asarray(part.predict_on_batch(picture))


def deviation(name, got, expected):
    share = np.abs(got - expected).max() / np.abs(expected).max()
    print(f"{name}: {share:.1e}")
    return share


def test_keras_vgg16_becomes_an_fcn():
    classifier = with_biases(
        keras.applications.VGG16(
            weights=None, input_shape=(96, 96, 3), classes=10, classifier_activation=None
        )
    )
    net = fcn((96, 96, 3), 10, 32, head_size=3)
    assert load_vgg16(net, classifier, classifier=True) is net
    picture = keras.applications.vgg16.preprocess_input(
        np.random.default_rng(0).uniform(0, 255, (1, 96, 96, 3)).astype("float32")
    )
    # The 3 × 3 kernel of fc6 sees the whole of pool5 from its middle, and there alone.
    expected = output(classifier, "fc2", picture)
    assert (expected > 0).mean() > 0.1
    assert deviation("fc7", output(net, "fc7_relu", picture)[:, 1, 1], expected) < 1e-4
    scores = output(net, "score_fr", picture)
    answer = np.asarray(classifier.predict_on_batch(picture))
    assert np.ptp(answer) > 0 and deviation("classes", scores[:, 1, 1], answer) < 1e-4
    assert deviation("elsewhere", scores[:, 0, 1], scores[:, 1, 1]) > 1e-2


def test_the_published_kernel_of_7_pixels():
    classifier = with_biases(narrow_vgg())
    for stride in (8, 32):
        net = fcn((None, None, 3), 10, stride, widths=WIDTHS, head_filters=40)
        load_vgg16(net, classifier, classifier=True)
        picture = np.random.default_rng(1).uniform(-1, 1, (2, 224, 224, 3)).astype("float32")
        expected = np.asarray(classifier.predict_on_batch(picture))
        assert np.ptp(expected) > 0
        assert deviation("classes", output(net, "score_fr", picture)[:, 3, 3], expected) < 1e-4


def test_weights_from_a_file_and_without_the_last_layer(tmp_path, monkeypatch):
    classifier = with_biases(narrow_vgg(side=32))
    classifier.save_weights(tmp_path / "vgg.weights.h5")

    def vgg16(weights):
        model = narrow_vgg(side=32)
        model.load_weights(weights)
        return model

    monkeypatch.setattr(keras.applications, "VGG16", vgg16)
    net = fcn((None, None, 3), 4, 16, widths=WIDTHS, head_filters=40, head_size=1)
    load_vgg16(net, tmp_path / "vgg.weights.h5")
    np.testing.assert_array_equal(
        net.get_layer("fc7").get_weights()[0][0, 0], classifier.get_layer("fc2").get_weights()[0]
    )
    assert not net.get_layer("score_fr").get_weights()[0].any()
    with pytest.raises(ValueError, match="weights is .*nowhere.h5.*'imagenet', the path"):
        load_vgg16(net, tmp_path / "nowhere.h5")


def test_no_network_is_one_sentence(monkeypatch):
    def fails(weights):
        raise Exception(f"URL fetch failure on {weights}")

    monkeypatch.setattr(keras.applications, "VGG16", fails)
    net = fcn((None, None, 3), 4, 16, widths=WIDTHS, head_filters=40, head_size=1)
    with pytest.raises(
        RuntimeError, match=r"could not be had \(URL fetch failure.*connect to the network once"
    ):
        load_vgg16(net)


def other(**arguments):
    return fcn(
        **(
            {"input_shape": (None, None, 3), "num_classes": 10, "widths": WIDTHS, "head_filters": 40}
            | arguments
        )
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widths": (6, 8, 12, 16, 20)}, "layer 'conv5_1' has weights of shapes.*the classifier's widths"),
        ({"head_size": 5}, "layer 'fc6' has weights"),
        ({"head_filters": 41}, "layer 'fc6' has weights"),
        ({"num_classes": 4}, "layer 'score_fr' has weights.*its number of classes"),
        ({"normalization": "batch"}, "layer 'conv1_1' has weights.*normalization=None"),
        ({"convolutions": (2, 2, 2, 3, 3)}, "has not the layers that 'narrow_vgg' has weights for"),
        ({"convolutions": (2, 2, 3, 3, 4)}, "has not the layers"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_changed(arguments, message):
    net = other(**{"head_size": 1} | arguments)
    before = net.get_layer("conv2_1").get_weights()[0]
    with pytest.raises(ValueError, match=message):
        load_vgg16(net, narrow_vgg(side=32), classifier=True)
    np.testing.assert_array_equal(net.get_layer("conv2_1").get_weights()[0], before)


def test_a_classifier_without_its_head_is_refused():
    vgg = narrow_vgg(side=32)
    body = keras.Model(vgg.input, vgg.get_layer("block5_pool").output, name="body")
    with pytest.raises(ValueError, match="'body' has no layer 'fc1'.*include_top=True"):
        load_vgg16(other(), body)
