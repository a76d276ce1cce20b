"""A point in, a mask out: the features at a point, the split into a heavy and a light part."""

import keras
import numpy as np
import pytest

from course_lib.models import prompted

pytestmark = pytest.mark.backend


def array(x):
    return keras.ops.convert_to_numpy(x)


def test_features_at_a_point_and_nearness():
    features = np.arange(2 * 4 * 4 * 1, dtype="float32").reshape(2, 4, 4, 1)
    points = np.array(
        [[[0.5, 0.5], [2.9, 1.0]], [[9.0, 3.5], [0.0, 3.0]]], "float32"
    )  # the third lies outside
    np.testing.assert_array_equal(array(prompted.AtPoint()([features, points]))[..., 0], [[0, 6], [31, 28]])
    near = array(prompted.Nearness(4)(points))
    assert near.shape == (2, 2, 4, 4, 3) and near[0, 0, 0, 0, 0] == pytest.approx(1.0)
    assert near[0, 0, 2, 1, 1] == pytest.approx(np.exp(-(2**2 + 1) / (2 * 36)))


def test_the_parts_are_the_whole_and_points_do_not_see_each_other():
    keras.utils.set_random_seed(0)
    whole = prompted.prompted_network(16, (4, 4, 4, 4), points=3)
    image = np.random.default_rng(0).random((1, 16, 16, 3), np.float32)
    points = np.array([[[3.5, 4.5], [10.2, 8.0], [15.5, 0.5]]], "float32")
    wanted = array(whole([image, points]))
    assert wanted.shape == (1, 3, 16, 16)
    one = prompted.mask_decoder(16, 4, points=1)
    one.set_weights(whole.get_layer("mask_decoder").get_weights())
    features = array(whole.get_layer("image_encoder")(image))
    for k in range(3):
        np.testing.assert_allclose(
            array(one([features, points[:, k : k + 1]]))[:, 0], wanted[:, k], atol=1e-4
        )


def test_it_saves_and_loads(tmp_path):
    model = prompted.prompted_network(16, (4, 4, 4, 4))
    model.save(tmp_path / "one.keras")
    inputs = [np.ones((1, 16, 16, 3), "float32"), np.ones((1, 1, 2), "float32")]
    np.testing.assert_allclose(
        array(model(inputs)), array(keras.models.load_model(tmp_path / "one.keras")(inputs)), atol=1e-4
    )
