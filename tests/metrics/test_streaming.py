"""The Keras metrics: what they count, what they take, and how Keras's callbacks and files get on with them."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from course_lib import losses, metrics

pytestmark = pytest.mark.backend

CLASSES = 3
ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
"""Where a step need not be compiled: for one step, that takes longer than the step."""


def logits_of(classes: np.ndarray, num_classes: int = CLASSES) -> np.ndarray:
    """Logits whose largest is the given class."""
    return (np.eye(num_classes, dtype="float32")[classes] * 5 - 2).astype("float32")


def scalars():
    return metrics.MeanIoU(CLASSES), metrics.DiceScore(CLASSES), metrics.PixelAccuracy()


def numpy_scores(y_true, y_pred):
    matrix = metrics.confusion_matrix(y_true, y_pred, CLASSES)
    return metrics.mean_iou(matrix), metrics.mean_dice(matrix), metrics.pixel_accuracy(matrix)


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 2**32 - 1), st.sets(st.integers(1, 2)))
def test_any_split_into_batches_gives_the_score_of_all_pixels(seed, cuts):
    rng = np.random.default_rng(seed)
    y_true = rng.integers(-1, CLASSES, (3, 4, 5)).astype("int32")
    y_pred = rng.integers(0, CLASSES, (3, 4, 5))
    streaming = scalars()
    for true, pred in zip(np.split(y_true, sorted(cuts)), np.split(y_pred, sorted(cuts)), strict=True):
        for metric in streaming:
            metric.update_state(true, logits_of(pred))
    results = [float(metric.result()) for metric in streaming]
    np.testing.assert_allclose(results, numpy_scores(y_true, y_pred), rtol=1e-6)
    assert [int(metric.ignored_pixels()) for metric in streaming] == [np.sum(y_true == -1)] * 3


def test_nan_before_any_pixel_and_anew_after_a_reset():
    y_true, y_pred = np.array([[0, 1, 2]]), np.array([[0, 2, 2]])
    for metric, expected in zip(scalars(), numpy_scores(y_true, y_pred), strict=True):
        metric.update_state(np.zeros((0, 3), int), np.zeros((0, 3, CLASSES), "float32"))
        assert np.isnan(float(metric.result()))
        metric.update_state(y_true, logits_of(np.array([[1, 0, 0]])))
        metric.reset_state()
        metric.update_state(y_true, logits_of(y_pred))
        assert float(metric.result()) == pytest.approx(expected, rel=1e-6)


def test_absent_classes_are_left_out_and_chosen_ones_taken():
    y_true, y_pred = np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 1]])
    metric = metrics.MeanIoU(5)
    metric.update_state(y_true, logits_of(y_pred, 5))
    assert float(metric.result()) == pytest.approx((1 / 2 + 2 / 3) / 2, rel=1e-6)
    metric = metrics.DiceScore(5, classes=[1, 4])
    metric.update_state(y_true, logits_of(y_pred, 5))
    assert float(metric.result()) == pytest.approx(4 / 5, rel=1e-6)
    np.testing.assert_allclose(
        ops.convert_to_numpy(metric.per_class())[:3], [2 / 3, 4 / 5, np.nan], rtol=1e-6
    )


def test_the_confusion_matrix_stays_what_it_was_when_given_out():
    y_true, y_pred = np.array([[0, 0, 1, 1, -1]]), np.array([[0, 1, 1, 1, 2]])
    table = metrics.ConfusionMatrix(4)
    table.update_state(y_true, logits_of(y_pred, 4))
    result = table.result()
    table.reset_state()
    np.testing.assert_array_equal(ops.convert_to_numpy(result), metrics.confusion_matrix(y_true, y_pred, 4))


def test_counting_goes_on_where_float32_cannot_add_one():
    metric = metrics.PixelAccuracy()
    right, wrong = logits_of(np.array([[0]])), logits_of(np.array([[1]]))
    metric.update_state(np.array([[0]]), right, sample_weight=np.array([2.0**24], "float32"))
    for _ in range(16):
        metric.update_state(np.array([[0]]), wrong)
    # In plain float32, 2^24 + 1 is 2^24 again: the 16 wrong pixels would be lost.
    assert float(metric.counts[0]) == 16


# Shapes, types and channels


@pytest.mark.parametrize(
    ("dtype", "side"), [("float16", 64), pytest.param("float32", 4608, marks=pytest.mark.slow)]
)
def test_one_batch_may_hold_more_pixels_than_its_type_counts_one_by_one(dtype, side):
    """A sum of ones ends at 2048 in float16 and at 2^24 in float32."""
    metric = metrics.ConfusionMatrix(2, dtype=dtype)
    metric.update_state(np.zeros((1, side, side), "uint8"), np.zeros((1, side, side, 2), "float16"))
    assert ops.convert_to_numpy(metric.result()).tolist() == [[side**2, 0], [0, 0]]


@pytest.mark.parametrize("shape", [(), (4,), (4, 1), (4, 1, 1), (1, 3, 5), (4, 3, 5), (4, 3, 5, 1)])
def test_a_weight_counts_like_that_many_copies(shape):
    rng = np.random.default_rng(1)
    y_true, y_pred = rng.integers(-1, CLASSES, (4, 3, 5)), rng.integers(0, CLASSES, (4, 3, 5))
    weights = rng.integers(1, 4, shape)
    if weights.ndim == 4:
        per_pixel = weights[..., 0]
    else:
        per_pixel = weights.reshape(*shape, *[1] * (3 - len(shape))) * np.ones((4, 3, 5), int)
    copied = [np.repeat(ids.ravel(), per_pixel.ravel()) for ids in (y_true, y_pred)]
    for metric, expected in zip(scalars(), numpy_scores(*copied), strict=True):
        metric.update_state(y_true, logits_of(y_pred), sample_weight=weights.astype("float32"))
        assert float(metric.result()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool", "float32", "float64", "float16"])
@pytest.mark.parametrize("channel", [False, True])
def test_labels_of_every_type_and_with_a_channel_axis(dtype, channel):
    y_true, y_pred = np.array([[[0, 1], [1, 1]]]), np.array([[[0, 2], [1, 1]]])
    for metric, expected in zip(scalars(), numpy_scores(y_true, y_pred), strict=True):
        given = y_true.astype(dtype)
        metric.update_state(given[..., None] if channel else given, logits_of(y_pred))
        assert float(metric.result()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_one_channel_is_a_sigmoid(dtype):
    y_true = np.array([[[0, 0, 1], [1, 1, -1]]])
    logits = np.array([[[-2, 0, 0.5], [3, -1, 9]]], dtype)[..., None]  # predicted 0 0 1, 1 0 (1)
    matrix = np.array([[2, 0], [1, 2]])
    for metric, expected in (
        (metrics.PixelAccuracy(), 4 / 5),
        (metrics.MeanIoU(2), metrics.mean_iou(matrix)),
        (metrics.DiceScore(2, classes=[1]), 4 / 5),
        (metrics.ConfusionMatrix(2), matrix),
    ):
        metric.update_state(y_true, logits)
        np.testing.assert_allclose(ops.convert_to_numpy(metric.result()), expected, rtol=1e-6)
    # The loss and the metrics agree on which class a logit above 0 is.
    sure, ids = np.full((1, 2, 2, 1), 9, dtype), np.ones((1, 2, 2), int)
    metric = metrics.PixelAccuracy()
    metric.update_state(ids, sure)
    assert float(metric.result()) == 1 and float(losses.CrossEntropy()(ids, sure)) < 0.01


# What would be silently wrong


@pytest.mark.parametrize("bad", [CLASSES, -2, 255, 0.5, float("nan")])
def test_a_label_that_is_no_class_is_an_error(bad):
    for metric in (*scalars(), metrics.MeanIoU(CLASSES, classes=[0])):
        with pytest.raises(ValueError, match=f"y_true holds {bad}; it must hold class ids, 0 to 2, or -1"):
            metric.update_state(np.array([[0, 1, bad]]), logits_of(np.array([[0, 1, 1]])))
        metric.update_state(np.array([[0, 1, -1]]), logits_of(np.array([[0, 1, 1]])))
        assert float(metric.result()) == 1  # nothing was counted of what was refused


def test_what_a_sigmoid_returns_is_no_logit():
    """It is above 0 everywhere: all would be class 1."""
    y_pred = keras.activations.sigmoid(ops.convert_to_tensor(np.full((1, 2, 1), -3.0, "float32")))
    if keras.backend.backend() != "jax":  # its arrays carry no logits
        with pytest.raises(ValueError, match="y_pred comes from a softmax or a sigmoid"):
            metrics.PixelAccuracy().update_state(np.zeros((1, 2), "int32"), y_pred)


def test_logits_that_are_nan_give_no_score():
    logits = logits_of(np.array([[0, 1, 1]]))
    logits[0, 1, 0] = np.nan
    for metric in scalars():
        metric.update_state(np.array([[0, -1, 1]]), logits)
        assert float(metric.result()) == 1  # under an ignored pixel they do not matter
        metric.update_state(np.array([[0, 1, 1]]), logits)
        assert np.isnan(float(metric.result()))


def small_model():
    inputs = keras.Input((8, 8, 1))
    return keras.Model(inputs, keras.layers.Conv2D(CLASSES, 3, padding="same")(inputs))


@pytest.mark.parametrize("jit_compile", [pytest.param(True, marks=pytest.mark.xla), False])
def test_in_fit(jit_compile):
    rng = np.random.default_rng(2)
    images = rng.normal(size=(6, 8, 8, 1)).astype("float32")
    y_true = rng.integers(-1, CLASSES, (6, 8, 8)).astype("int32")
    weights = rng.integers(0, 2, (6, 8, 8)).astype("float32")
    model = small_model()
    model.compile(
        # learns nothing, so the epoch's metrics are those of the model after it
        keras.optimizers.SGD(0.0),
        losses.CrossEntropy(),
        metrics=[*scalars(), metrics.ConfusionMatrix(CLASSES)],
        weighted_metrics=[metrics.MeanIoU(CLASSES, name="weighted_iou")],
        jit_compile=jit_compile,
    )
    logs = model.fit(images, y_true, sample_weight=weights, batch_size=3, verbose=0).history
    y_pred = ops.convert_to_numpy(model(images)).argmax(axis=-1)
    results = [logs[metric.name][0] for metric in scalars()]
    np.testing.assert_allclose(results, numpy_scores(y_true, y_pred), rtol=1e-6)
    matrix = metrics.confusion_matrix(y_true, y_pred, CLASSES)
    np.testing.assert_array_equal(logs["confusion_matrix"][0], matrix)
    weighted = metrics.confusion_matrix(np.where(weights > 0, y_true, -1), y_pred, CLASSES)
    assert logs["weighted_iou"][0] == pytest.approx(metrics.mean_iou(weighted), rel=1e-6)

    y_true[4, 2, 2] = 255  # in the second batch only
    if not jit_compile and keras.backend.backend() != "tensorflow":  # a step that is not compiled
        with pytest.raises(ValueError, match="y_true holds 255"):
            model.evaluate(images, y_true, batch_size=3, verbose=0)
        return
    logs = model.evaluate(images, y_true, batch_size=3, verbose=0, return_dict=True)
    assert all(np.isnan(logs[metric.name]) for metric in scalars()) and np.isnan(logs["loss"])


@pytest.mark.slow
def test_a_model_may_be_fitted_with_labels_and_weights_of_one_shape_then_of_another():
    # TensorFlow then knows the rank of neither inside of the compiled step.
    rng = np.random.default_rng(2)
    images, y_true = rng.normal(size=(4, 8, 8, 1)).astype("float32"), rng.integers(-1, CLASSES, (4, 8, 8))
    per_pixel = rng.random((4, 8, 8, 1)).astype("float32")
    per_image = per_pixel[:, 0, 0, 0]
    spread = np.broadcast_to(per_image[:, None, None], y_true.shape)
    model = small_model()
    options = {"batch_size": 4, "verbose": 0}
    model.compile(
        keras.optimizers.SGD(0.0), losses.CrossEntropy(), weighted_metrics=[metrics.MeanIoU(CLASSES)]
    )
    logs = [
        model.fit(images, labels, sample_weight=weights, **options).history
        for labels in (y_true, y_true[..., None])
        for weights in (per_image, per_pixel, spread)
    ]
    for name in ("loss", "mean_iou"):
        image, pixel, also_image, *again = (log[name][0] for log in logs)
        assert image == pytest.approx(also_image, rel=1e-5) and image != pytest.approx(pixel, rel=1e-5)
        assert again == pytest.approx([image, pixel, also_image], rel=1e-5)


# Keras's callbacks and files


@pytest.mark.parametrize("metric", scalars(), ids=lambda metric: metric.name)
def test_callbacks_know_that_higher_is_better(metric):
    model = small_model()
    model.compile("sgd", losses.CrossEntropy(), metrics=[metric], run_eagerly=ON_TENSORFLOW)
    callback = keras.callbacks.EarlyStopping(f"val_{metric.name}")
    callback.set_model(model)
    data = np.zeros((1, 8, 8, 1), "float32"), np.zeros((1, 8, 8), "int32")
    model.fit(*data, validation_data=data, verbose=0, callbacks=[callback])
    assert callback.monitor_op(2.0, 1.0)


@pytest.mark.slow
def test_a_compiled_model_loads_in_a_process_that_has_imported_the_packages(tmp_path):
    model = small_model()
    model.compile(
        "sgd", losses.CrossEntropy() + losses.Dice(), metrics=[*scalars(), metrics.ConfusionMatrix(3)]
    )
    model.save(tmp_path / "model.keras")
    code = (
        "import keras, sys; from course_lib import losses, metrics; m = keras.models.load_model(sys.argv[1]); "
        "print(type(m.loss).__name__, [x.name for x in m._compile_metrics._user_metrics])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "model.keras"], capture_output=True, text=True, check=False
    )
    expected = "WeightedSum ['mean_iou', 'dice_score', 'pixel_accuracy', 'confusion_matrix']"
    assert done.stdout.strip() == expected, done.stderr


@pytest.mark.parametrize(
    "metric",
    [
        metrics.MeanIoU(4, ignore=255, classes=[1, 3], name="cells"),
        metrics.DiceScore(2, ignore=None),
        metrics.PixelAccuracy(ignore=None, name="fraction"),
        metrics.ConfusionMatrix(3, ignore=np.int64(7)),
    ],
    ids=lambda metric: type(metric).__name__,
)
def test_a_metric_comes_back_from_its_configuration(metric):
    kept = keras.metrics.serialize(metric)
    assert kept["registered_name"] == f"course_lib>{type(metric).__name__}"
    copy = keras.metrics.deserialize(kept)
    assert type(copy) is type(metric)
    assert copy.get_config() == metric.get_config()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics.MeanIoU(1), "num_classes is 1; it must be at least 2: even a model with one output"),
        (lambda: metrics.DiceScore(3, classes=[3]), r"classes is \[3\]; it must hold ids from 0 to 2"),
        (lambda: metrics.MeanIoU(3, classes=[]), r"classes is \[\]"),
        (lambda: metrics.MeanIoU(3, classes=[1, 1]), r"classes is \[1, 1\]; .*each once"),
        (lambda: metrics.MeanIoU(3, classes=1), "classes is 1; it must be ids in a list"),
        (lambda: metrics.MeanIoU(3, classes="12"), "classes is '12'; it must be ids in a list"),
        (lambda: metrics.MeanIoU(3, classes=[1.5]), "classes: an id is 1.5"),
        (lambda: metrics.MeanIoU(3, classes=[True]), "classes: an id is True"),
        (lambda: metrics.mean_iou(np.eye(3), [1.0]), "classes: an id is 1.0"),
        (
            lambda: metrics.MeanIoU(3).update_state(np.zeros((1, 2), int), np.zeros((1, 2, 4))),
            "num_classes is 3; it must be 4",
        ),
        (
            lambda: metrics.MeanIoU(3).update_state(np.zeros((1, 2), int), np.zeros((1, 2, 1))),
            "num_classes is 3; it must be 2",
        ),
    ],
)
def test_bad_arguments(call, words):
    with pytest.raises((TypeError, ValueError), match=words):
        call()


@pytest.mark.parametrize(
    ("y_true", "y_pred", "weights", "words"),
    [
        ((2, 4, 5, 3), (2, 4, 5, 3), None, r"y_true has shape \(2, 4, 5, 3\) .*np.argmax\(y_true, axis=-1\)"),
        ((2, 4, 5), (2, 4, 5), None, r"y_pred\[..., None\]"),
        ((4, 5), (1, 4, 5, 3), None, r"their batch axis too: y_true\[None\]"),
        ((2, 4, 4), (2, 4, 5, 3), None, r"\(2, 4, 4\) and y_pred \(2, 4, 5, 3\).*crop or resize the labels"),
        ((2, 5, 5), (2, 3, 5, 5), None, "channels last"),
        (
            (2, 4, 5),
            (2, 4, 5, 3),
            (4, 5),
            r"sample_weight has shape \(4, 5\) for labels of shape \(2, 4, 5\)",
        ),
        ((2, 4, 5), (2, 4, 5, 3), (3,), r"sample_weight has shape \(3,\) .*one number per image"),
        ((2, 4, 5), (2, 4, 5, 3), (2, 4, 5, 3), "Factors per class belong to the loss: `class_weights`"),
        (
            (5, 5, 5),
            (5, 5, 5, 3),
            (5, 5),
            "sample_weight has shape",
        ),  # of images and rows, or rows and columns?
    ],
)
def test_losses_and_metrics_refuse_the_same_shapes_in_the_same_words(y_true, y_pred, weights, words):
    arrays = np.zeros(y_true, int), np.zeros(y_pred, "float32"), None if weights is None else np.ones(weights)
    for call in (
        metrics.MeanIoU(3).update_state,
        metrics.PixelAccuracy().update_state,
        losses.CrossEntropy(),
        losses.Dice() + losses.Boundary(),
    ):
        with pytest.raises(ValueError, match=words):
            call(*arrays)
