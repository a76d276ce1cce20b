"""`class_weight`, which Keras knows for classes of images only."""

import keras
import numpy as np
import pytest

from course_lib import losses, models

pytestmark = pytest.mark.backend


@pytest.mark.parametrize("make", [models.unet, models.fcn, models.deeplab], ids=lambda make: make.__name__)
@pytest.mark.slow
def test_class_weight_is_refused_with_what_to_pass_instead(make):
    model = make((32, 32, 1), 2)
    model.compile("sgd", losses.CrossEntropy())
    data = np.zeros((1, 32, 32, 1), "float32"), np.zeros((1, 32, 32), "int32")
    words = r"class_weight is \{0: 1.0, 1: 5.0\}; it must be None.*CrossEntropy\(class_weights=\(1, 5\)\)"
    for call in (model.fit, model.train_on_batch):
        with pytest.raises(ValueError, match=words):
            call(*data, class_weight={0: 1.0, 1: 5.0})
    assert type(model) is type(keras.Model(model.input, model.output))  # no class that a file would need


def test_a_model_is_fitted_as_ever():
    model = models.unet((16, 16, 1), 2, base_filters=2, depth=1)
    model.compile("sgd", losses.CrossEntropy(class_weights=(1, 5)))
    data = np.zeros((2, 16, 16, 1), "float32"), np.zeros((2, 16, 16), "int32")
    assert len(model.fit(*data, epochs=2, verbose=0, class_weight=None).history["loss"]) == 2
