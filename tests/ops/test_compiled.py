"""The detector's parts compiled (XLA): the same numbers, gradients that are right and never NaN, and inside a model."""

import keras
import numpy as np
import pytest

from course_lib.ops.box_coding import clip_boxes, decode_boxes, encode_boxes
from course_lib.ops.masks import crop_masks, paste_masks
from course_lib.ops.matching import match_boxes
from course_lib.ops.nms import nms
from course_lib.ops.roi import multilevel_roi_align, multilevel_roi_pool, roi_align
from course_lib.ops.sampling import sample_balanced

pytestmark = pytest.mark.backend

BACKEND = keras.backend.backend()
if BACKEND not in ("tensorflow", "jax"):
    pytest.skip("compiles by tf.function or jax.jit", allow_module_level=True)

# XLA on TensorFlow takes seconds to compile these.
LONG = ("roi_pool", "nms of a long list")

RNG = np.random.default_rng(0)
NEAR = RNG.uniform(-10, 90, (2, 30, 2))
BOXES = np.concatenate([NEAR, NEAR + RNG.uniform(0, 60, (2, 30, 2))], axis=-1).astype(np.float32)
BOXES[:, ::7] = np.floor(BOXES[:, ::7])
BOXES[:, 3] = 0  # padding
BOXES[0, 5, 2:] = BOXES[0, 5, :2] - 3  # the wrong way round
SCORES = (RNG.integers(0, 10, (2, 30)) / 10).astype(np.float32)  # they tie
OBJECTS = BOXES[:, :6] + RNG.normal(size=(2, 6, 4)).astype(np.float32)
PYRAMID = [RNG.normal(size=(2, 24 >> k, 32 >> k, 3)).astype(np.float32) for k in range(3)]
SCALES = (1 / 4, 1 / 8, 1 / 16)
MASKS = RNG.random((2, 6, 48, 64)) > 0.5
GRIDS = RNG.random((2, 30, 5, 5)).astype(np.float32)
DELTAS = RNG.normal(size=(2, 30, 4)).astype(np.float32)


def align(*features):
    return multilevel_roi_align(features, BOXES, 3, SCALES, canonical_box_size=30)


def pool(*features):
    return multilevel_roi_pool(features, BOXES, 3, SCALES, canonical_box_size=30)


PARTS = {
    "encode_boxes": (encode_boxes, (BOXES, BOXES[:, ::-1])),
    "decode_boxes": (decode_boxes, (DELTAS, BOXES)),
    "clip_boxes": (lambda boxes: clip_boxes(boxes, (48, 64)), (BOXES,)),
    "nms": (lambda boxes, scores: nms(boxes, scores, 0.4, 20), (BOXES, SCORES)),
    "nms per class": (
        lambda boxes, scores, classes: nms(boxes, scores, 0.2, 40, groups=classes),
        (BOXES, SCORES, RNG.integers(0, 3, (2, 30))),
    ),
    "nms of a long list": (
        lambda boxes, scores: nms(boxes, scores, 0.4, 20),
        (
            np.tile(BOXES, (1, 20, 1)) + np.arange(600, dtype=np.float32)[:, None] // 30,
            np.tile(SCORES, (1, 20)),
        ),
    ),
    "roi_align": (align, PYRAMID),
    "roi_align, adaptive": (lambda level: roi_align(level, BOXES, 3, 1 / 4, 0), PYRAMID[:1]),
    "roi_pool": (pool, PYRAMID),
    "paste_masks": (lambda grids, boxes: paste_masks(grids, boxes, (48, 64)), (GRIDS, BOXES)),
    "crop_masks": (
        lambda masks, objects, boxes: crop_masks(masks, objects, boxes, 7),
        (MASKS, RNG.integers(-2, 6, (2, 30)), BOXES),
    ),
    "match_boxes": (
        lambda objects, boxes, valid, crowd: match_boxes(objects, boxes, 0.6, 0.2, True, valid, crowd),
        (OBJECTS, BOXES, np.arange(6) < [[4], [6]], np.arange(6) == [[1], [0]]),
    ),
    "sample_balanced": (
        lambda positive, negative, random: sample_balanced(positive, negative, 12, 0.25, random),
        (SCORES > 0.7, SCORES < 0.5, RNG.random((2, 30))),
    ),
}


def compiled(function):
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
    import jax

    return jax.jit(function)


def gradient(function, *at, jit=True):
    """Gradients of a scalar function, on TensorFlow compiled only if asked."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        def found(*values):
            with tf.GradientTape() as tape:
                tape.watch(values)
                result = function(*values)
            gradients = tape.gradient(result, values, unconnected_gradients="zero")
            return [tf.convert_to_tensor(one) for one in gradients]

        found = tf.function(found, jit_compile=True) if jit else found
        return [one.numpy() for one in found(*map(tf.constant, at))]
    import jax

    return [np.asarray(one) for one in jax.jit(jax.grad(function, argnums=tuple(range(len(at)))))(*at)]


def flat(found):
    return [
        keras.ops.convert_to_numpy(one) for one in (found if isinstance(found, tuple | list) else [found])
    ]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.xla if name in LONG else []) for name in PARTS]
)
def test_compiled_gives_the_same(name):
    function, inputs = PARTS[name]
    inputs = [keras.ops.convert_to_tensor(one) for one in inputs]
    for plain, quick in zip(flat(function(*inputs)), flat(compiled(function)(*inputs)), strict=True):
        assert plain.any()
        if plain.dtype == np.float32:
            assert np.isfinite(plain).all()
            np.testing.assert_allclose(quick, plain, rtol=1e-5, atol=1e-5)
        else:
            np.testing.assert_array_equal(quick, plain)


@pytest.mark.parametrize("read", [align, pool])
@pytest.mark.xla
def test_gradients_of_the_features(read):
    """What is read doubles when the features do, so it is the sum of the features, each times its gradient."""
    weights = RNG.normal(size=(2, 30, 3, 3, 3)).astype(np.float32)

    def read_and_weighted(*features):
        return keras.ops.sum(read(*features) * weights)

    gradients = gradient(read_and_weighted, *PYRAMID)
    score = compiled(read_and_weighted)
    assert all(one.any() and np.isfinite(one).all() for one in gradients)
    total = sum((one * level).sum() for one, level in zip(gradients, PYRAMID))
    np.testing.assert_allclose(total, np.float64(score(*PYRAMID)), rtol=1e-3)
    # The largest gradient of the finest map against a difference quotient.
    place = np.unravel_index(np.abs(gradients[0]).argmax(), gradients[0].shape)
    moved = [level.copy() for level in PYRAMID]
    moved[0][place] += 1e-3
    quotient = (np.float64(score(*moved)) - np.float64(score(*PYRAMID))) / 1e-3
    np.testing.assert_allclose(gradients[0][place], quotient, rtol=0.05)


def test_gradients_of_box_coding_are_finite_for_empty_boxes_too():
    empty = np.zeros((1, 4), np.float32)
    boxes, references = np.concatenate([BOXES[0], empty]), np.concatenate([BOXES[1], empty])

    def distance(boxes, references):
        return keras.ops.sum(encode_boxes(boxes, references) ** 2)

    for one in gradient(distance, boxes, references):
        assert np.isfinite(one).all() and one.any() and not one[3].any() and not one[-1].any()

    def area(deltas):
        return keras.ops.sum(clip_boxes(decode_boxes(deltas, references), (48, 64)) ** 2)

    (one,) = gradient(area, np.full((31, 4), 1e3, np.float32))
    assert np.isfinite(one).all()


def test_choosing_has_no_gradient():
    """Boxes and scores decide what is kept; what comes after takes its gradient from the features alone."""

    def score(boxes, scores, features):
        indices, kept = nms(boxes, scores, 0.4, 8)
        chosen = keras.ops.take_along_axis(boxes, indices[..., None], axis=1)
        pooled = roi_align(features, chosen, 2, 1 / 4)
        return keras.ops.sum(keras.ops.where(kept[..., None, None, None], pooled, 0.0) ** 2)

    boxes, scores, features = gradient(score, BOXES, SCORES, PYRAMID[0], jit=False)
    assert not boxes.any() and not scores.any()
    assert np.isfinite(features).all() and features.any()


def test_gradients_of_pasted_masks():
    (one,) = gradient(lambda grids: keras.ops.sum(paste_masks(grids, BOXES, (48, 64)) ** 2), GRIDS)
    assert np.isfinite(one).all() and one.any()


class Walk(keras.layers.Layer):
    """All parts in a row, as a detector calls them."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.seed = keras.random.SeedGenerator(0)

    def call(self, inputs):
        deltas, boxes, scores, objects, masks, features = inputs
        boxes = clip_boxes(decode_boxes(deltas * 0.1, boxes), (48, 64))
        indices, kept = nms(boxes, scores, 0.5, 10)
        boxes = keras.ops.take_along_axis(boxes, indices[..., None], axis=1)
        matches = match_boxes(objects, boxes, 0.5, 0.5, boxes_valid=kept)
        rows, is_positive, _ = sample_balanced(matches >= 0, matches == -1, 6, 0.5, self.seed)
        boxes = keras.ops.take_along_axis(boxes, rows[..., None], axis=1)
        matches = keras.ops.take_along_axis(matches, rows, axis=1)
        targets = crop_masks(masks, matches, boxes, 7)
        pooled = multilevel_roi_align(features, boxes, 3, SCALES)
        return boxes, is_positive, targets, pooled


@pytest.mark.xla
def test_in_a_model_of_any_batch_size():
    arrays = [DELTAS, BOXES, SCORES, OBJECTS, MASKS, PYRAMID]
    inputs = keras.tree.map_structure(lambda one: keras.Input(one.shape[1:], dtype=one.dtype.name), arrays)
    model = keras.Model(inputs, Walk()(inputs))
    assert [tuple(one.shape) for one in model.outputs] == [
        (None, 6, 4),
        (None, 6),
        (None, 6, 7, 7),
        (None, 6, 3, 3, 3),
    ]
    model.compile(jit_compile=True)
    boxes, is_positive, targets, pooled = model.predict(arrays, batch_size=2, verbose=0)
    assert is_positive.any() and np.isfinite(boxes).all() and np.isfinite(pooled).all()
    np.testing.assert_allclose(
        pooled, keras.ops.convert_to_numpy(multilevel_roi_align(PYRAMID, boxes, 3, SCALES)), atol=1e-4
    )
    assert (targets >= 0).all() and (targets <= 1 + 1e-5).all()
