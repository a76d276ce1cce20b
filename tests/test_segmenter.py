"""From an image to its label map in one line, whatever the image's numbers, and saved without the recipe."""

import dataclasses
import gc

import keras
import numpy as np
import pytest

import course_lib
from course_lib import checkpoints, recipes
from course_lib.losses import CrossEntropy
from course_lib.models import predict
from course_lib.models.predict import AVERAGES, predict_probabilities
from course_lib.segmenter import Segmenter, as_image, load
from course_lib.tasks import Borders, Semantic

pytestmark = pytest.mark.backend

SMALL = dataclasses.replace(
    recipes.CELLS, name="small", network_arguments={"base_filters": 2, "depth": 1}, loss=CrossEntropy()
)
VALUES = np.random.default_rng(0).random((20, 30, 4))


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter.of(SMALL, thresholds={"min_size": 3})


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1), (20, 30, 2), (20, 30, 3), (20, 30, 4)])
def test_every_kind_of_array(shape, channels):
    values = VALUES[..., : shape[-1]] if len(shape) == 3 else VALUES[..., 0]
    wanted = as_image(values, channels)
    assert wanted.shape == (20, 30, channels) and wanted.dtype == np.float32
    for dtype in (np.uint8, np.uint16):
        pixels = np.rint(values * np.iinfo(dtype).max).astype(dtype)
        np.testing.assert_allclose(as_image(pixels, channels), wanted, atol=0.005)
    np.testing.assert_allclose(as_image(values.astype(np.float16), channels), wanted, atol=0.001)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros(3), "image is an array of shape \\(3,\\)"),
        (np.zeros((2, 3, 30, 30)), "it must be one image"),
        (np.zeros((3, 30, 30)), "it must be one image"),
        (np.zeros((0, 30)), "it must be one image"),
        (np.full((4, 4), 255.0), "from 255 to 255; floats must be finite and in 0..1"),
        (np.full((4, 4), np.nan), "floats must be finite"),
        (np.zeros((4, 4), int), "image is an array of int64; it must be uint8, uint16, or floats"),
        ("cat.png", "image is an array of"),
    ],
)
def test_what_is_no_image(segmenter, image, message):
    with pytest.raises((TypeError, ValueError), match=message):
        segmenter.predict(image)


def test_an_output_that_is_no_number_is_told():
    broken = Segmenter.of(SMALL)
    broken.model.set_weights([np.full_like(one, 1e30) for one in broken.model.get_weights()])
    for answer in (broken.predict, lambda image: broken.predict_large(image[..., None])):
        with pytest.raises(
            ValueError, match="output holds values that are not finite numbers; its weights are damaged"
        ):
            answer(VALUES[..., 0])


def test_a_label_map_of_the_image_s_size(segmenter):
    labels = segmenter.predict((VALUES[..., 0] * 255).astype(np.uint8), min_size=1)
    assert labels.shape == (20, 30) and labels.dtype == np.int32
    with pytest.raises(ValueError, match="thresholds: a name is 'size'; it must be one of 'seed_threshold'"):
        segmenter.predict(VALUES[..., 0], size=1)


@pytest.mark.parametrize("task", [Borders(1.5, tta="flips"), Semantic()])
def test_saved_and_loaded_without_the_recipe(tmp_path, task):
    made = Segmenter.of(dataclasses.replace(SMALL, task=task), thresholds={})
    again = course_lib.load(made.save(tmp_path / "mine"))
    assert (
        again.task == made.task
        and again.thresholds == made.thresholds
        and again.class_names == made.class_names
    )
    np.testing.assert_array_equal(again.predict(VALUES), made.predict(VALUES))
    assert again.recipe is None
    with pytest.raises(ValueError, match="has no recipe"):
        again.evaluate("val")


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"task": {"class": "Other"}}', '{"task": {"class": "Semantic", "more": 1}}']
)
def test_a_damaged_folder_is_named(tmp_path, content):
    (tmp_path / "segmenter.json").write_text(content)
    with pytest.raises(checkpoints.CheckpointError, match=str(tmp_path)):
        load(tmp_path)


def test_what_there_is_not():
    with pytest.raises(ValueError, match="recipe is 'unet-cats'; there are unet-cells"):
        course_lib.load("unet-cats")


@pytest.mark.parametrize("tta", AVERAGES)
def test_views_go_through_together_and_mean_the_same(segmenter, monkeypatch, tta):
    passes = []
    whole = predict.probabilities_of
    monkeypatch.setattr(
        predict, "probabilities_of", lambda model, images: passes.append(len(images)) or whole(model, images)
    )
    together = predict_probabilities(segmenter.model, as_image(VALUES[:, :20], 1), tta)
    assert passes == [len(AVERAGES[tta])]
    monkeypatch.setattr(predict, "VIEW_PIXELS", 1)
    apart = predict_probabilities(segmenter.model, as_image(VALUES[:, :20], 1), tta)
    np.testing.assert_allclose(together, apart, atol=1e-5)


def test_what_is_compiled_follows_the_weights_and_goes_with_the_model():
    inputs = keras.Input((None, None, 1))
    model = keras.Model(inputs, keras.layers.Conv2D(2, 1, kernel_initializer="zeros")(inputs))
    for size in ((4, 6), (8, 4), (2, 10)):
        assert (predict.probabilities_of(model, np.ones((1, *size, 1), np.float32)) == 0.5).all()
    model.set_weights([np.ones((1, 1, 1, 2), np.float32), np.array([0, 1], np.float32)])
    found = predict.probabilities_of(model, np.ones((2, 4, 6, 1), np.float32))
    assert found.shape == (2, 4, 6, 2)
    np.testing.assert_allclose(found, np.broadcast_to(predict.softmax([1.0, 2.0]), found.shape), rtol=1e-6)
    assert not model.compiled
    before = len(predict._COMPILED)
    del model
    gc.collect()
    assert len(predict._COMPILED) < before


@pytest.mark.parametrize(
    "installed, settings, told, chosen",
    [
        ({"tensorflow", "jax"}, "", {}, None),
        ({"jax", "torch"}, "", {}, "jax"),
        ({"torch"}, '{"backend": "tensorflow"}', {}, "torch"),
        ({"jax", "torch"}, '{"backend": "torch"}', {}, None),
        ({"jax"}, "[]", {}, "jax"),
        (set(), "", {}, None),
        ({"jax"}, "", {"KERAS_BACKEND": "torch"}, "torch"),
    ],
)
def test_keras_is_told_of_the_backend_that_is_here(monkeypatch, tmp_path, installed, settings, told, chosen):
    """A reader without TensorFlow got `No module named 'tensorflow'` from deep inside Keras."""
    environment = {"KERAS_HOME": str(tmp_path)} | told
    if settings:
        (tmp_path / "keras.json").write_text(settings)
    monkeypatch.setattr(course_lib.os, "environ", environment)
    monkeypatch.setattr(course_lib.importlib.util, "find_spec", lambda name: name in installed or None)
    course_lib._choose_backend()
    assert environment.get("KERAS_BACKEND") == chosen


@pytest.mark.parametrize(
    ("names", "channels", "message"),
    [
        (("a", "b"), 1, "network has 3 channels in its outputs; it must have 2"),
        ("abc", 3, "1 channels in its inputs"),
    ],
)
def test_a_model_of_other_classes_or_channels(segmenter, names, channels, message):
    with pytest.raises(ValueError, match=message):
        Segmenter(segmenter.model, Semantic(), names, channels)


def test_images_that_a_data_set_cannot_hold_are_not_measured_on(segmenter):
    sample = SMALL.data("val")[0]
    grey = dataclasses.replace(sample, image=(sample.image * 255).astype(np.uint8))
    with pytest.raises(ValueError, match=f"{sample.name}: the image is uint8"):
        segmenter.evaluate([grey])
    with pytest.raises(TypeError, match="a sample is a ndarray; it must be a datasets.Sample"):
        segmenter.evaluate(np.zeros((2, 8, 8)))
