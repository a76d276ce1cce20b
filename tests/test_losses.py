"""The losses: their laws, their gradients, and that a model can be fitted with each."""

import functools
import inspect

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from keras import ops

from course_lib import losses
from course_lib.losses import (
    Boundary,
    CrossEntropy,
    Dice,
    Focal,
    FocalTversky,
    GeneralizedDice,
    Jaccard,
    LovaszSoftmax,
    Tversky,
    WeightedCrossEntropy,
    WeightedSum,
)

pytestmark = pytest.mark.backend

BY_PIXEL = [
    CrossEntropy(),
    CrossEntropy(class_weights=(1.0, 2.0, 0.5), name="cross_entropy_weights"),
    WeightedCrossEntropy(),
    WeightedCrossEntropy((1.0, 2.0, 0.5), name="weighted_cross_entropy_weights"),
    Focal(),
    Focal(gamma=0.5, alpha=(0.2, 0.3, 0.5), name="focal_half"),
]
BY_AREA = [
    Dice(),
    Dice(background=False, name="dice_objects"),
    GeneralizedDice(),
    Jaccard(),
    Tversky(),
    FocalTversky(),
]
LOVASZ = [
    LovaszSoftmax(),
    LovaszSoftmax("all", per_image=True, background=False, name="lovasz_softmax_all"),
]
BOUNDARY = Boundary()
SUMS = [CrossEntropy() + 0.5 * Dice()]
ALL = [*BY_PIXEL, *BY_AREA, *LOVASZ, BOUNDARY, *SUMS]

OWN = keras.losses.SparseCategoricalCrossentropy

# One shape for all, so that each loss is compiled once.
SHAPE, CLASSES = (2, 4, 5), 3
laws = settings(deadline=None, max_examples=25, derandomize=True)
maps = hnp.arrays(np.int32, SHAPE, elements=st.integers(-1, CLASSES - 1))
predictions = hnp.arrays(np.float32, (*SHAPE, CLASSES), elements=st.floats(-20, 20, width=32))


def each(chosen):
    return pytest.mark.parametrize("loss", chosen, ids=lambda loss: loss.name)


@functools.cache
def compiled(loss):
    """A compiled function of logits, labels and weights that gives the loss and its gradient by the logits."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(jax.value_and_grad(lambda logits, labels, weights: loss(labels, logits, weights)))
    import tensorflow as tf

    @tf.function
    def both(logits, labels, weights):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(labels, logits, weights)
        return value, tape.gradient(value, logits)

    return both


def value_and_gradient(loss, labels, logits, weights=None):
    weights = np.ones(labels.shape, "float32") if weights is None else weights
    value, gradient = compiled(loss)(*map(ops.convert_to_tensor, (logits, labels, weights)))
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    return float(value), ops.convert_to_numpy(gradient)


def value_of(loss, labels, logits, weights=None):
    return value_and_gradient(loss, labels, logits, weights)[0]


def random_case(seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, CLASSES, SHAPE).astype("int32")
    return labels, rng.normal(size=(*SHAPE, CLASSES)).astype("float32")


def test_every_loss_is_tested_here():
    named = {
        name
        for name, member in vars(losses).items()
        if inspect.isclass(member) and hasattr(member, "from_config") and member.__module__ == losses.__name__
    }
    without_formula = {"SegmentationLoss", "AreaLoss"}
    assert {type(loss).__name__ for loss in ALL} == named - without_formula


# Laws


@each([*BY_PIXEL, *BY_AREA, *LOVASZ])
@laws
@given(labels=maps, logits=predictions)
def test_bounds(loss, labels, logits):
    value = value_of(loss, labels, logits)
    assert value >= -1e-6
    if loss not in BY_PIXEL:
        assert value <= 1 + 1e-6


@each([*BY_PIXEL, *BY_AREA, LOVASZ[0]])
@laws
@given(labels=maps, logits=predictions, seed=st.integers(0, 99))
def test_where_a_pixel_lies_does_not_matter(loss, labels, logits, seed):
    order = np.random.default_rng(seed).permutation(labels.size)
    moved = (labels.ravel()[order].reshape(SHAPE), logits.reshape(-1, CLASSES)[order].reshape(logits.shape))
    assert value_of(loss, *moved) == pytest.approx(value_of(loss, labels, logits), abs=1e-5)


@laws
@given(labels=maps, logits=predictions)
def test_boundary_is_that_of_the_image_turned_over(labels, logits):
    turned = labels[:, ::-1, ::-1].copy(), logits[:, ::-1, ::-1].copy()
    assert value_of(BOUNDARY, *turned) == pytest.approx(value_of(BOUNDARY, labels, logits), abs=1e-5)


@each(ALL)
@laws
@given(labels=maps, logits=predictions, other=predictions)
def test_the_logits_of_ignored_pixels_do_not_matter(loss, labels, logits, other):
    changed = np.where(labels[..., None] < 0, other, logits)
    value, gradient = value_and_gradient(loss, labels, logits)
    assert value_of(loss, labels, changed) == pytest.approx(value, abs=1e-5)
    assert not gradient[labels < 0].any()


@each(ALL)
@laws
@given(labels=maps, logits=predictions, constant=st.sampled_from([-16.0, -1.0, 0.5, 8.0]))
def test_a_constant_added_to_a_pixels_logits_changes_nothing(loss, labels, logits, constant):
    value = value_of(loss, labels, logits)
    moved = value_of(loss, labels, logits + np.float32(constant))
    assert moved == pytest.approx(value, rel=1e-5, abs=2e-5)


@pytest.mark.parametrize(
    ("loss", "same"),
    [
        (Tversky(0.5, 0.5, smooth=0.5), Dice(smooth=1.0)),
        (Tversky(1.0, 1.0, smooth=2.0), Jaccard(smooth=2.0)),
        (FocalTversky(0.2, 0.6, gamma=1.0), Tversky(0.2, 0.6)),
        (Focal(gamma=0.0), CrossEntropy()),
        (Focal(gamma=0.0, alpha=(1, 2, 3)), CrossEntropy(class_weights=(1, 2, 3))),
        (WeightedCrossEntropy((3.0, 3.0, 3.0)), CrossEntropy()),
        (WeightedCrossEntropy((1.0, 2.0, 4.0)), WeightedCrossEntropy((10.0, 20.0, 40.0))),
    ],
    ids=lambda loss: type(loss).__name__,
)
@laws
@given(labels=maps, logits=predictions)
def test_one_loss_is_a_case_of_another(loss, same, labels, logits):
    assert value_of(loss, labels, logits) == pytest.approx(value_of(same, labels, logits), rel=1e-5, abs=1e-6)


@each([CrossEntropy(), Focal(), Dice(), LovaszSoftmax(), Boundary()])
def test_one_channel_is_two_channels_of_which_the_first_is_zero(loss):
    labels, logits = random_case()
    labels, one = np.minimum(labels, 1), logits[..., :1]
    two = np.concatenate([np.zeros_like(one), one], axis=-1)
    value, gradient = value_and_gradient(loss, labels, one)
    expected, of_two = value_and_gradient(loss, labels, two)
    assert value == pytest.approx(expected, abs=1e-6)
    np.testing.assert_allclose(gradient[..., 0], of_two[..., 1], atol=1e-6)
    assert value_of(loss, labels[..., None], one, np.ones(SHAPE, "float32")) == value


@each([WeightedCrossEntropy(), Focal(), GeneralizedDice(), LovaszSoftmax()])
def test_a_class_that_nobody_has_adds_nothing_to_a_sum(loss):
    labels, logits = random_case()
    more = np.concatenate([logits, np.full((*SHAPE, 1), -1e4, "float32")], axis=-1)
    assert value_of(loss, labels, more) == pytest.approx(value_of(loss, labels, logits), abs=1e-6)


@each([Dice(), FocalTversky(), Boundary(), LovaszSoftmax("all")])
def test_a_class_that_nobody_has_adds_zero_to_a_mean(loss):
    labels, logits = random_case()
    more = np.concatenate([logits, np.full((*SHAPE, 1), -1e4, "float32")], axis=-1)
    expected = value_of(loss, labels, logits) * CLASSES / (CLASSES + 1)
    assert value_of(loss, labels, more) == pytest.approx(expected, abs=1e-6)


@each([loss for loss in ALL if isinstance(loss, (WeightedCrossEntropy, losses.AreaLoss, LovaszSoftmax))])
def test_a_pixel_of_weight_zero_is_an_ignored_one(loss):
    labels, logits = random_case()
    weights = np.random.default_rng(1).integers(0, 2, SHAPE).astype("float32")
    expected = value_of(loss, np.where(weights == 0, -1, labels), logits)
    assert value_of(loss, labels, logits, weights) == pytest.approx(expected, abs=1e-6)


# Gradients

GROUND_TRUTHS = {
    "mixed": random_case()[0],
    "background": np.zeros(SHAPE, "int32"),
    "full": np.full(SHAPE, CLASSES - 1, "int32"),
    "absent": np.minimum(random_case()[0], 1),
    "one pixel": np.eye(1, np.prod(SHAPE), 7, dtype="int32").reshape(SHAPE),
    "ignored": np.full(SHAPE, -1, "int32"),
}


@each(ALL)
@pytest.mark.parametrize("kind", GROUND_TRUTHS)
def test_value_and_gradient_are_finite(loss, kind):
    """Where the ground truth lacks a class or all, and where the model is certain, rightly, wrongly or of one class."""
    labels = GROUND_TRUTHS[kind]
    right = np.eye(CLASSES)[np.maximum(labels, 0)] * 2 - 1
    one_class = np.broadcast_to(np.array([-1.0, 1.0, -1.0]), right.shape)
    for prediction in (right, np.roll(right, 1, axis=-1), one_class):
        for scale in (0, 1, 80, 1e4):
            for dtype in ("float32", "float16"):
                value, gradient = value_and_gradient(loss, labels, (prediction * scale).astype(dtype))
                assert np.isfinite(value)
                assert gradient.dtype == dtype
                assert np.isfinite(gradient).all()
                if kind == "ignored":
                    assert value == 0 and not gradient.any()


@each(ALL)
def test_the_gradient_is_the_difference_quotient(loss):
    labels, logits = random_case(3)
    weights = np.random.default_rng(4).random(SHAPE).astype("float32")
    _, gradient = value_and_gradient(loss, labels, logits, weights)
    for seed in range(5):
        direction = np.random.default_rng(seed).normal(size=logits.shape).astype("float32")
        direction /= np.linalg.norm(direction)
        step = np.float32(0.02)
        ahead = value_of(loss, labels, logits + step * direction, weights)
        behind = value_of(loss, labels, logits - step * direction, weights)
        assert (gradient * direction).sum() == pytest.approx(
            (ahead - behind) / (2 * step), rel=5e-3, abs=1e-4
        )


def test_a_pixel_that_is_wrong_pulls_towards_its_own_class():
    labels, logits = random_case(6)
    labels = np.maximum(labels, 0)
    for loss in (
        CrossEntropy(),
        Focal(),
        WeightedCrossEntropy(),
        Dice(),
        Jaccard(),
        Tversky(),
        LovaszSoftmax(),
    ):
        _, gradient = value_and_gradient(loss, labels, logits)
        own = np.take_along_axis(gradient, labels[..., None], -1)
        assert (own <= 1e-7).all(), loss.name


# In a model


@pytest.fixture
def half_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


@each([loss for loss in ALL if loss in SUMS or loss.name == type(loss)().name])
@pytest.mark.slow
def test_a_model_learns_with_it_in_half_precision(loss, half_precision):
    keras.utils.set_random_seed(0)
    labels = np.maximum(random_case()[0], 0)
    images = np.eye(CLASSES, dtype="float32")[labels]
    labels[:, 0] = -1
    model = keras.Sequential([keras.Input((None, None, CLASSES)), keras.layers.Conv2D(CLASSES, 1)])
    assert model.layers[0].compute_dtype == "float16"
    model.compile(keras.optimizers.Adam(0.05), loss)
    history = model.fit(images, labels, epochs=20, batch_size=2, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert all(np.isfinite(ops.convert_to_numpy(weight)).all() for weight in model.weights)
    assert history[-1] < history[0] - 0.05 * abs(history[0])


class TwoSizes(keras.utils.PyDataset):
    """One batch of small images, one of larger ones."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        size = (2, 6 + 2 * index, 5 + index)
        labels = np.random.default_rng(index).integers(-1, CLASSES, size)
        return np.eye(CLASSES, dtype="float32")[labels], labels


def test_images_may_differ_in_size_from_batch_to_batch():
    model = keras.Sequential([keras.Input((None, None, CLASSES)), keras.layers.Conv2D(CLASSES, 1)])
    model.compile("sgd", sum([LovaszSoftmax(per_image=True), Boundary()], start=GeneralizedDice()))
    history = model.fit(TwoSizes(), epochs=2, verbose=0).history["loss"]
    assert np.isfinite(history).all()


# What would be silently wrong


@each(ALL)
def test_a_label_that_is_no_class_is_an_error_and_nan_in_a_compiled_step(loss):
    labels, logits = random_case()
    for bad in (CLASSES, -2, 255):
        labels[0, 0, 0] = bad
        value, gradient = value_and_gradient(loss, labels, logits)
        assert np.isnan(value) and not gradient.any()
    with pytest.raises(
        ValueError, match="y_true holds 255; it must hold class ids, 0 to 2, or -1 for pixels"
    ):
        loss(labels, logits)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
@each([CrossEntropy(), Dice() + Focal()])
def test_nothing_is_learned_from_masks_of_0_and_255(loss, dtype):
    images = np.random.default_rng(0).random((4, 4, 5, CLASSES), "float32")
    model = keras.Sequential([keras.Input((4, 5, CLASSES)), keras.layers.Conv2D(2, 1)])
    before = [ops.convert_to_numpy(weight) for weight in model.weights]
    model.compile(keras.optimizers.Adam(0.1), loss)
    history = model.fit(images, ((images[..., 0] > 0.5) * 255).astype(dtype), epochs=2, verbose=0)
    assert np.isnan(history.history["loss"]).all()
    for old, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), old)


@pytest.mark.parametrize(
    "labels",
    [np.array([one]) for one in (0.5, 1 / 255, np.nan, np.inf, -1.5, 2**31, 2**32 - 1, np.uint32(2**32 - 1))],
    ids=repr,
)
def test_labels_that_are_not_whole_or_too_large_are_errors(labels):
    with pytest.raises(ValueError, match="y_true holds .*; it must hold class ids, 0 to 1"):
        CrossEntropy()(labels.reshape(1, 1, 1), np.zeros((1, 1, 1, 2), "float32"))


@pytest.mark.parametrize("labels", [np.array([["a"]]), np.array([[None]])], ids=repr)
def test_labels_that_are_no_numbers(labels):
    with pytest.raises(ValueError, match="y_true is an array of .*; it must hold class ids"):
        CrossEntropy()(labels, np.zeros((1, 1, 2), "float32"))


def test_what_only_looks_like_the_ignored_label_is_an_error():
    labels = np.array([[[255.7, 0]]])
    with pytest.raises(ValueError, match=r"y_true holds 255\.[67]"):
        CrossEntropy(ignore=255)(labels, np.zeros((1, 1, 2, 2), "float32"))


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX's arrays carry no logits")
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@each([CrossEntropy(), Dice() + Focal()])
def test_probabilities_are_refused_where_keras_tells_them(loss, activation):
    classes = {"softmax": CLASSES, "sigmoid": 1}[activation]
    model = keras.Sequential([keras.Input((4, 5, 2)), keras.layers.Conv2D(classes, 1, activation=activation)])
    model.compile("sgd", loss)
    with pytest.raises(ValueError, match="y_pred comes from a softmax or a sigmoid; it must be logits"):
        model.fit(np.zeros((2, 4, 5, 2), "float32"), np.zeros((2, 4, 5), "int32"), verbose=0)


@each(ALL)
def test_what_is_not_finite_under_an_ignored_pixel_does_not_matter(loss):
    labels, logits = random_case()
    expected = value_and_gradient(loss, labels, logits)
    weights = np.ones(SHAPE, "float32")
    logits[labels == -1], weights[labels == -1] = np.nan, np.inf
    value, gradient = value_and_gradient(loss, labels, logits, weights)
    assert value == pytest.approx(expected[0], abs=1e-6)
    np.testing.assert_allclose(gradient, expected[1], atol=1e-6)


@each(ALL)
def test_logits_and_weights_that_are_nan_give_no_loss(loss):
    labels, logits = random_case()
    labels[0, 0, 0] = 1
    weights = np.ones(SHAPE, "float32")
    weights[0, 0, 0] = np.nan
    assert np.isnan(value_of(loss, labels, logits, weights))
    logits[0, 0, 0, 1] = np.nan
    assert np.isnan(value_of(loss, labels, logits))


@each(ALL)
def test_an_empty_batch_costs_nothing(loss):
    assert float(loss(np.zeros((0, 4, 5), "int32"), np.zeros((0, 4, 5, CLASSES), "float32"))) == 0


@each([CrossEntropy(), WeightedCrossEntropy(), Dice(), LovaszSoftmax()])
@pytest.mark.parametrize("shape", [(2,), (2, 1), (2, 1, 1), (2, 4, 5, 1)])
def test_weights_of_images_and_with_a_channel_axis(loss, shape):
    labels, logits = random_case()
    weights = np.random.default_rng(1).random(shape).astype("float32")
    per_pixel = (weights.reshape(2, 1, 1) if weights.size == 2 else weights[..., 0]) * np.ones(
        SHAPE, "float32"
    )
    assert float(loss(labels, logits, weights)) == pytest.approx(
        value_of(loss, labels, logits, per_pixel), rel=1e-5
    )


def test_losses_are_multiplied_divided_and_summed():
    labels, logits = random_case()
    one, other = (float(loss(labels, logits)) for loss in (CrossEntropy(), Dice()))
    own = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    for loss, expected in (
        (CrossEntropy() * 0.5, one / 2),
        (0.5 * CrossEntropy(), one / 2),
        (np.float32(0.5) * CrossEntropy(), one / 2),
        (CrossEntropy() * np.float64(0.5), one / 2),
        (CrossEntropy() / 2, one / 2),
        (sum([CrossEntropy(), Dice()]), one + other),
        ((CrossEntropy() + Dice()) * 2 + Dice(), 2 * one + 3 * other),
        (own + Dice(), one + other),
        (Dice() + own, one + other),
    ):
        assert isinstance(loss, losses.SegmentationLoss)
        assert float(loss(labels, logits)) == pytest.approx(expected, rel=1e-5)


# Configuration and errors


@each(
    [
        CrossEntropy((1, 2, 3), ignore=9, name="a"),
        WeightedCrossEntropy((1, 2, 3), ignore=9, name="b"),
        Focal(1.5, (1, 2, 3), ignore=9, name="c"),
        Dice(2.0, False, ignore=9, name="d"),
        GeneralizedDice(2.0, False, ignore=9, name="e"),
        Jaccard(2.0, False, ignore=9, name="f"),
        Tversky(0.1, 0.2, 3.0, False, ignore=9, name="g"),
        FocalTversky(0.1, 0.2, 3.0, 4.0, False, ignore=9, name="h"),
        LovaszSoftmax("all", True, False, ignore=9, name="i"),
        Boundary(False, ignore=9, name="j"),
        WeightedCrossEntropy(ignore=9) + 0.3 * Boundary(False, ignore=9),
    ]
)
def test_a_loss_comes_back_from_its_configuration(loss):
    kept = keras.saving.serialize_keras_object(loss)
    assert kept["registered_name"] == f"course_lib>{type(loss).__name__}"
    again = keras.saving.deserialize_keras_object(kept)
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()
    assert set(inspect.signature(type(loss)).parameters) == set(loss.get_config())
    labels, logits = random_case()
    labels[labels < 0] = 9
    assert float(again(labels, logits)) == float(loss(labels, logits))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Dice() * None, TypeError, "factor is None; it must be a number"),
        (lambda: Dice() + None, TypeError, "unsupported operand"),
        (lambda: Dice() - Dice(), TypeError, "unsupported operand"),
        (lambda: WeightedSum([]), ValueError, "losses is empty"),
        (lambda: WeightedSum([Dice]), TypeError, "losses holds <class"),
        (
            lambda: WeightedSum([OWN(from_logits=True).fn]),
            ValueError,
            "from_logits=False; the network returns",
        ),
        (
            lambda: OWN() + Dice(),
            ValueError,
            r"give keras.losses.SparseCategoricalCrossentropy\(from_logits=True\)",
        ),
        (lambda: Dice() + OWN(from_logits=True, reduction=None), ValueError, "each must give one number"),
        (lambda: Dice()(*random_case(), [1, 1, 1]), ValueError, r"sample_weight has shape \(3,\)"),
        (
            lambda: WeightedCrossEntropy(2.0),
            TypeError,
            r"class_weights is 2.0; it must be one number per class, in order",
        ),
        (lambda: WeightedCrossEntropy((1, -1)), ValueError, r"class_weights is \(1.0, -1.0\); each must be"),
        (lambda: CrossEntropy(2.0), TypeError, "class_weights is 2.0; it must be one number per class"),
        (
            lambda: CrossEntropy({0: 1.0, 1: 5.0}),
            TypeError,
            r"class_weights is \{0: 1.0, 1: 5.0\}; it must be one",
        ),
        (
            lambda: CrossEntropy((1, -1)),
            ValueError,
            r"class_weights is \(1.0, -1.0\); each must be at least 0",
        ),
        (lambda: CrossEntropy((1, np.nan)), ValueError, r"class_weights is \(1.0, nan\); each must be"),
        (lambda: CrossEntropy("12"), TypeError, "class_weights is '12'; it must be one number per class"),
        (lambda: CrossEntropy([[1, 2]]), ValueError, r"class_weights is an array of shape \(1, 2\)"),
        (lambda: CrossEntropy((1, 2))(*random_case()), ValueError, "one number for each of the 3 classes"),
        (lambda: Focal(alpha=0.25), TypeError, "alpha is 0.25; it must be one number per class"),
        (lambda: Focal(gamma=-1), ValueError, "gamma is -1; it must be at least 0"),
        (lambda: Focal(gamma="2"), TypeError, "gamma is '2'; it must be a number"),
        (lambda: Jaccard(smooth=0), ValueError, "smooth is 0; it must be above 0"),
        (lambda: Tversky(alpha=-0.1), ValueError, "alpha is -0.1; it must be at least 0 and finite"),
        (lambda: Tversky(beta=float("nan")), ValueError, "beta is nan; it must be at least 0 and finite"),
        (lambda: FocalTversky(gamma=0), ValueError, "gamma is 0; it must be above 0"),
        (lambda: Dice(ignore=0.5), TypeError, "ignore is 0.5; it must be a whole number"),
        (lambda: Dice() * float("inf"), ValueError, "factor is inf; it must be finite"),
        (lambda: Dice() * "2", TypeError, "factor is '2'; it must be a number"),
        (lambda: Dice() / 0, ValueError, "divisor is 0; it must be above 0"),
        (lambda: Dice() + 1, TypeError, "unsupported operand"),
        (
            lambda: losses.WeightedSum([Dice()], [1, 2]),
            ValueError,
            r"factors is \[1.0, 2.0\]; it must have one",
        ),
        (
            lambda: LovaszSoftmax(classes="some"),
            ValueError,
            "classes is 'some'; it must be one of 'present', 'all'",
        ),
        (
            lambda: Focal(alpha=(1, 1))(*random_case()),
            ValueError,
            r"alpha is \(1.0, 1.0\); it must have one number for each of the 3 classes",
        ),
        (
            lambda: WeightedCrossEntropy((1,))(*random_case()),
            ValueError,
            r"class_weights is \(1.0,\); it must",
        ),
        (
            lambda: Boundary()(np.zeros((4, 5), "int32"), np.zeros((4, 5, 3), "float32")),
            ValueError,
            r"y_pred has shape \(4, 5, 3\); the boundary loss needs images",
        ),
    ],
)
def test_bad_input_is_one_clear_error(make, error, words):
    with pytest.raises(error, match=words):
        make()
