"""Every network saved as `.keras` and loaded again gives the same output."""

import json

import keras
import numpy as np
import pytest
from keras import ops

from course_lib.models.backbone import small_resnet
from course_lib.models.deeplab import deeplab
from course_lib.models.fcn import fcn
from course_lib.models.mask_rcnn.fpn import fpn
from course_lib.models.unet import unet

pytestmark = pytest.mark.backend


def pyramid():
    backbone = small_resnet(
        widths=(4, 4, 8, 8), blocks=(1, 1, 2, 2), normalization="frozen_batch", epsilon=0.5
    )
    return keras.Model(backbone.input, fpn((4, 4, 8, 8), 4)(backbone.outputs))


NETWORKS = {
    "unet": lambda: unet((None, None, 3), 3, base_filters=4, depth=2, normalization="group", dropout=0.2),
    "unet batch": lambda: unet((None, None, 3), 3, base_filters=2, depth=1, normalization="batch"),
    "fcn": lambda: fcn(
        (None, None, 3),
        2,
        8,
        "small",
        widths=(2, 2, 3, 3, 4),
        convolutions=(1, 1, 1, 1, 1),
        head_filters=5,
        score_initializer="he_normal",
    ),
    "deeplab": lambda: deeplab(
        (None, None, 3),
        2,
        "small",
        8,
        widths=(8, 8, 8, 8),
        aspp_filters=8,
        decoder_filters=(8, 8),
        normalization="group",
        multi_grid=(2,),
    ),
    "pyramid": pyramid,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_saved_and_loaded_again(name, tmp_path):
    model = NETWORKS[name]()
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    image = np.random.default_rng(3).random((1, 40, 32, 3), np.float32)
    outputs, loaded = (keras.tree.flatten(one(image, training=False)) for one in (model, again))
    for before, after in zip(outputs, loaded, strict=True):
        before = ops.convert_to_numpy(before)
        assert np.ptp(before) > 0
        np.testing.assert_allclose(ops.convert_to_numpy(after), before, atol=1e-5)
    assert [weight.shape for weight in again.trainable_weights] == [
        weight.shape for weight in model.trainable_weights
    ]


def test_a_unet_is_plain_keras_which_loads_without_the_course():
    for name in ("unet", "unet batch"):
        assert "course_lib" not in json.dumps(json.loads(NETWORKS[name]().to_json()))
