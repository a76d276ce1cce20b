"""What two questions of chapter 12 say of freezing, on the backend at hand."""

import keras
import numpy as np
import pytest
from keras import layers

from course_lib.teaching import questions

pytestmark = pytest.mark.backend

CODE = {question.id: question.code for question in questions.load().quiz["12"]}


def test_a_model_compiled_while_its_encoder_was_frozen_keeps_it_frozen():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(1)(layers.Dense(8, name="encoder")(inputs)))
    given = {"model": model, "keras": keras, "loss": "mse"}
    given |= {"images": np.ones((16, 4), "float32"), "labels": np.zeros((16, 1), "float32")}
    if keras.backend.backend() == "jax":  # after the error the model's weights cannot be read
        with pytest.raises(ValueError, match="1:1 to the trainable variables"):
            exec(CODE["12-q9"], given)
    elif keras.backend.backend() == "tensorflow":
        before = model.get_layer("encoder").get_weights()
        exec(CODE["12-q9"], given)
        assert all(map(np.array_equal, before, model.get_layer("encoder").get_weights()))
    else:
        pytest.skip("the question is about TensorFlow and JAX")


def test_moving_means_move_though_the_base_is_called_with_training_false():
    inside, inputs = keras.Input((4, 4, 3)), keras.Input((4, 4, 3))
    base = keras.Model(inside, layers.BatchNormalization()(inside))
    given = {"base": base, "inputs": inputs, "head": layers.Dense(1), "keras": keras, "loss": "mse"}
    given |= {"images": np.full((8, 4, 4, 3), 100.0), "labels": np.zeros((8, 4, 4, 1))}
    exec(CODE["12-q3"], given)
    assert np.all(np.array(base.layers[-1].get_weights()[2]) > 0.5)
