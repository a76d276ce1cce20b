"""The right answers of the exercises are what Keras and the library's own networks compute."""

import keras
import numpy as np
import pytest
from test_exercises import but, solution

from course_lib.losses import Dice
from course_lib.models.backbone import small_resnet
from course_lib.models.fcn import fcn
from course_lib.models.unet import unet
from course_lib.ops import anchors, masks, matching, nms
from course_lib.teaching.checker import find, judge

pytestmark = pytest.mark.backend


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def cases(number):
    return [(find(number).answer, *case.arguments) for case in find(number).cases]


def test_parameters_and_sizes_are_those_of_keras():
    for answer, channels_in, channels_out, kernel, bias in cases("03.3"):
        layer = keras.layers.Conv2D(channels_out, kernel, use_bias=bias)
        layer.build((None, None, None, channels_in))
        assert answer(channels_in, channels_out, kernel, bias) == layer.count_params()
    for answer, x, kernel, stride in cases("04.2"):
        layer = keras.layers.Conv1DTranspose(1, len(kernel), strides=stride, use_bias=False)
        layer.build((None, len(x), 1))
        layer.set_weights([kernel[:, None, None]])
        out, right = numpy(layer(x[None, :, None].astype("float32")))[0, :, 0], answer(x, kernel, stride)
        np.testing.assert_allclose(out[: len(right)], right, rtol=1e-5)
        # Keras pads up to the stride where the kernel is narrower.
        assert len(out) == max(find("04.1").answer(len(x), len(kernel), stride), len(x) * stride)


def test_shapes_and_crops_are_those_of_the_live_unet():
    for size, depth, filters in ((44, 2, 4), (188, 4, 2)):
        model = unet((size, size, 1), base_filters=filters, depth=depth, padding="valid")
        names = [*(f"encoder_{k}" for k in range(1, depth + 1)), "bottleneck"]
        live = [model.get_layer(name).output.shape[1::2] for name in names]
        assert find("03.5").answer(size, depth, filters) == live
    for level in range(1, depth + 1):
        skip = np.random.default_rng(0).normal(size=model.get_layer(f"encoder_{level}").output.shape[1:])
        up = model.get_layer(f"decoder_{level}_up").output.shape[1:]
        cropped = numpy(model.get_layer(f"decoder_{level}_crop")(skip[None].astype("float32")))[0]
        ours = find("04.3").answer(skip, np.zeros(up))
        np.testing.assert_allclose(ours[..., : skip.shape[-1]], cropped, rtol=1e-6)


def test_the_kernel_answers_what_the_dense_layer_answers():
    for answer, weights, map_shape in cases("05.1"):
        image = np.random.default_rng(0).normal(size=(1, *map_shape)).astype("float32")
        layer = keras.layers.Conv2D(weights.shape[1], map_shape[:2], use_bias=False)
        layer.build(image.shape)
        layer.set_weights([answer(weights, map_shape)])
        np.testing.assert_allclose(numpy(layer(image)).ravel(), image.ravel() @ weights, atol=1e-4)


@pytest.mark.parametrize("shape", [(64, 96), (65, 47)])
def test_fused_scores_are_those_that_an_fcn_16s_adds_up(shape):
    model = fcn((*shape, 1), 3, 16, "small", score_initializer="he_normal", dropout=0, learned="none")
    names = ("score_fr", "score_pool4", "fuse_pool4")
    inner = keras.Model(model.input, [model.get_layer(name).output for name in names])
    image = np.random.default_rng(1).normal(size=(1, *shape, 1)).astype("float32")
    coarse, fine, fused = (numpy(scores)[0] for scores in inner(image))
    assert np.abs(coarse).max() > 0.1 and np.abs(fine).max() > 0.1
    np.testing.assert_allclose(find("05.3").answer(coarse, fine), fused, atol=1e-4)


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_the_plan_is_that_of_the_backbone(output_stride):
    body = small_resnet((64, 64, 1), output_stride=output_stride)
    sides = [64, *(features.shape[1] for features in body.outputs)]
    strides = [a // b for a, b in zip(sides[:-1], sides[1:], strict=True)]
    # The second convolution of a stage's first block; the first one still has the rate of the stage before.
    rates = [body.get_layer(f"layer{stage}-0-conv2").dilation_rate[0] for stage in (1, 2, 3, 4)]
    assert list(zip(strides, rates, strict=True)) == find("05.4").answer([4, 2, 2, 2], output_stride)


def test_anchors_nms_and_pasted_masks_are_those_of_mask_rcnn():
    for answer, feature_size, stride, sizes, ratios in cases("06.1"):
        right = anchors.grid_anchors(anchors.base_anchors(sizes, ratios), feature_size, (stride, stride))
        assert np.abs(answer(feature_size, stride, sizes, ratios) - right).max() <= 0.5  # the library rounds
    for answer, boxes, scores, classes, threshold in cases("06.3"):
        for one in np.unique(classes):
            rows = np.flatnonzero(classes == one)
            kept, valid = nms.nms(
                boxes[rows].astype("float32"), scores[rows].astype("float32"), threshold, len(rows)
            )
            ours = [row for row in answer(boxes, scores, classes, threshold) if classes[row] == one]
            assert ours == rows[numpy(kept)[numpy(valid)]].tolist()
    for answer, grid, box, image_size in cases("06.6"):
        # The library's pixels have their values at their index; beyond the grid's outer cells it falls to 0.
        framed = np.pad(grid, 2)
        value = masks.whole_image_masks(framed[None], np.array([box]) - 0.5, image_size, None, "exact")[0]
        clear = np.abs(value - 0.5) > 1e-5  # the library computes in float32
        assert clear.mean() > 0.9
        np.testing.assert_array_equal(answer(framed, box, image_size)[clear], value[clear] >= 0.5)


def test_the_matcher_is_that_of_the_library_on_random_overlaps():
    rng = np.random.default_rng(0)
    # float32's 0.7 is a little less than 0.7; numbers of one decimal show it.
    high, low = (np.float64(np.float32(threshold)) for threshold in (0.7, 0.3))
    for objects in (0, 1, 4):
        ious = (rng.random((objects, 50)) * (rng.random((objects, 50)) < 0.7)).round(1).astype("float32")
        right = numpy(matching.match(ious, 0.7, 0.3, True))
        np.testing.assert_array_equal(find("07.2").answer(ious, high, low), right)


# The exercises about Keras models and pipelines: the course's own solution with slips in it, as in `test_exercises`.

RELU = 'padding="same", activation="relu")'
FLIP = "image, labels = image[:, ::-1], labels[:, ::-1]"
TURN = "return np.rot90(image, quarters), np.rot90(labels, quarters)"
SUMS = "ops.sum(p * y, axis=(0, 1, 2)), ops.sum(p + y, axis=(0, 1, 2))"
LOSS = "1 - ops.mean((2 * both + 1) / (whole + 1))"
SLIPS = {
    "04.7": [
        (but("Concatenate", "Add"), "You add the skip"),
        (but("x = keras.layers.Concatenate()([skip, x])", ""), "The skip is not used"),
        (but("range(2)", "range(1)"), "Only one convolution follows"),
        (but(RELU, 'padding="same")'), "Your convolutions have no ReLU"),
        (but("Conv2DTranspose(filters, 2, strides=2)", "UpSampling2D()"), "Your upsampling has no weights"),
        (but('padding="same", ', ""), "Your convolutions lose a frame"),
    ],
    "04.8": [
        (but(FLIP, "image = image[:, ::-1]"), "% still have the label"),
        (but(TURN, "return np.rot90(image, quarters), labels"), "% still have the label"),
        (but(TURN, "return image, labels"), "You flip, but never rotate"),
        (but("rng.random() < 0.5", "False"), "You rotate, but never flip"),
        (
            but("    flip,", "    rng = np.random.default_rng(3)\n    flip,"),
            "Your function always does the same",
        ),
        (
            but("np.rot90(labels, quarters)", "np.rot90(labels, quarters).astype(float)"),
            "The labels come back as floats",
        ),
    ],
    "08.7": [
        (but("1 - ops.mean", "ops.mean"), "That is the score"),
        (but("ops.softmax(logits, axis=-1)", "logits"), "The softmax is missing"),
        (
            but("ops.softmax(logits, axis=-1)", "ops.one_hot(ops.argmax(logits, -1), logits.shape[-1])"),
            "You decide first",
        ),
        (but("axis=-1) * counted", "axis=-1)"), "Ignored pixels count as predictions"),
        (but("axis=(0, 1, 2)", "axis=(1, 2)"), "You sum within each image"),
        (but(LOSS, "1 - ops.mean(2 * both / (whole + 1))"), "smooth is missing in the numerator"),
        (but("ops.sum(p + y,", "ops.sum(p**2 + y,"), "You square the probabilities"),
        (but("softmax(logits, axis=-1)", "sigmoid(logits)"), "You take a sigmoid"),
    ],
    "08.8": [
        (but("Conv2D(2, 1)", 'Conv2D(2, 1, activation="softmax")'), "The outputs do not fit the loss"),
        (
            but("images[order], masks[order]", "images[order], masks"),
            "do images and masks still belong together",
        ),
        (but("Adam(0.01)", "Adam(10.0)"), "The learning rate is far"),
    ],
}
QUICK = [pytest.param(n, marks=pytest.mark.slow if find(n).live else ()) for n in SLIPS]


@pytest.mark.parametrize("number", QUICK)
def test_the_solution_passes_and_each_slip_is_named(number):
    report = judge(find(number), solution(number))
    assert report.state == "right", report
    for slips, sentence in SLIPS[number]:
        report = judge(find(number), solution(number, slips))
        assert report.state == "wrong" and sentence in report.text, (slips, report)


def test_the_dice_loss_is_the_library_s():
    for case in find("08.7").cases:
        labels, logits = case.arguments
        found = float(numpy(Dice()(labels, logits.astype("float32"))))
        assert find("08.7").answer(labels, logits) == pytest.approx(found, abs=1e-5)
