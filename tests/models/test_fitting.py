"""What `compile` and `fit` refuse where Keras would be silent or unclear, and the numbers that a builder takes."""

import keras
import numpy as np
import pytest

from course_lib import losses, models

pytestmark = pytest.mark.backend

DATA = np.zeros((1, 32, 32, 1), "float32"), np.zeros((1, 32, 32), "int32")
OWN = keras.losses.SparseCategoricalCrossentropy


@pytest.mark.parametrize("make", [models.unet, models.fcn, models.deeplab], ids=lambda make: make.__name__)
@pytest.mark.slow
def test_class_weight_is_refused_with_what_to_pass_instead(make):
    model = make((32, 32, 1), 2)
    model.compile("sgd", losses.CrossEntropy())
    words = r"class_weight is \{0: 1.0, 1: 5.0\}; it must be None.*CrossEntropy\(class_weights=\(1, 5\)\)"
    for call in (model.fit, model.train_on_batch):
        with pytest.raises(ValueError, match=words):
            call(*DATA, class_weight={0: 1.0, 1: 5.0})
    with pytest.raises(ValueError, match="loss is sparse_categorical_crossentropy with from_logits=False"):
        model.compile("sgd", "sparse_categorical_crossentropy")
    assert type(model) is type(keras.Model(model.input, model.output))  # no class that a file would need


@pytest.fixture(scope="module")
def unet():
    return models.unet((16, 16, 1), 2, base_filters=2, depth=1)


@pytest.mark.parametrize(
    "weights", ["balanced", [1, 5], {}, {0: "a", 1: 2}, {"cell": 5}, {5: 1}, {np.int64(0): 1, np.int64(1): 5}]
)
def test_class_weight_in_any_form(unet, weights):
    with pytest.raises(ValueError, match=r"class_weight is .*CrossEntropy\(class_weights=\(1, 5\)\)"):
        unet.fit(*DATA, class_weight=weights)


@pytest.mark.parametrize(
    "loss",
    [
        "sparse_categorical_crossentropy",
        "SparseCategoricalCrossentropy",
        "binary_crossentropy",
        keras.losses.categorical_crossentropy,
        OWN(),
        [keras.losses.BinaryFocalCrossentropy()],
        {"logits": OWN(ignore_class=-1)},
    ],
)
def test_a_loss_that_takes_probabilities_is_refused(unet, loss):
    with pytest.raises(ValueError, match=r"from_logits=False; .*give keras.losses.\w+\(from_logits=True\)"):
        unet.compile("sgd", loss)


@pytest.mark.parametrize(
    "loss", [None, "mse", OWN(from_logits=True), losses.Dice(), lambda y, p: p[0, 0, 0, 0]]
)
def test_other_losses_are_taken(unet, loss):
    unet.compile("sgd", loss)
    unet.compile(optimizer="sgd", loss=loss)


def test_a_model_is_fitted_as_ever():
    model = models.unet((16, 16, 1), 2, base_filters=2, depth=1)
    model.compile("sgd", losses.CrossEntropy(class_weights=(1, 5)))
    data = np.zeros((2, 16, 16, 1), "float32"), np.zeros((2, 16, 16), "int32")
    assert len(model.fit(*data, epochs=2, verbose=0, class_weight=None).history["loss"]) == 2


def test_builders_take_numpys_numbers_and_arrays(tmp_path):
    model = models.unet(np.array([8, 8, 1]), np.int64(2), filters=np.array([2, 4]), depth=np.uint8(1))
    model.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").output_shape == (None, 8, 8, 2)
    detector = models.MaskRCNN(np.int64(2), np.int32(1), "small", filters=np.int64(8))
    assert type(detector.num_classes) is int


@pytest.mark.parametrize("shape", [8, "8x8", (8, 8), (8, 8, "3"), (8, 8, None), None])
def test_a_shape_that_is_none(shape):
    with pytest.raises(ValueError, match="input_shape is .*; it must be"):
        models.unet(shape, 2)
