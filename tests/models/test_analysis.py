"""Costs and receptive fields against hand counts, receptive fields against every pixel tried, gradients against slopes."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from scipy.signal import convolve2d

from course_lib.models import analysis
from course_lib.models.analysis import (
    costs,
    effective_receptive_field,
    receptive_field,
    receptive_fields,
    side_holding,
)
from course_lib.models.backbone import resnet50, small_resnet
from course_lib.models.deeplab import deeplab
from course_lib.models.fcn import fcn
from course_lib.models.mask_rcnn.fpn import fpn
from course_lib.models.unet import unet

pytestmark = pytest.mark.backend

FCN = {"backbone": "small", "widths": (1, 1, 1, 1, 1), "convolutions": (1, 1, 1, 1, 1), "head_filters": 1}
DEEPLAB = {"backbone": "small", "widths": (2, 2, 2, 2), "aspp_filters": 2, "decoder_filters": (2, 2)}


@pytest.fixture(autouse=True)
def numpy_draws_the_weights(monkeypatch):
    """JAX would compile the drawing of random numbers anew for every shape of kernel: seconds for a small net."""
    rng = np.random.default_rng(0)

    def draw(initializer, shape, dtype=None):
        size = int(np.prod(shape))
        # Large kernels are here to be counted only.
        kernel = (
            rng.normal(0, np.sqrt(2 * shape[-1] / size), shape)
            if size < 100_000
            else np.zeros(shape, "float32")
        )
        return ops.convert_to_tensor(kernel, dtype=dtype)

    for name in ("HeNormal", "VarianceScaling", "GlorotUniform"):
        monkeypatch.setattr(getattr(keras.initializers, name), "__call__", draw)


def chain(shape, *stack):
    x = inputs = keras.Input(shape)
    for layer in stack:
        x = layer(x)
    return keras.Model(inputs, x)


# Costs


@pytest.mark.parametrize(
    ("layer", "shape", "multiply_adds", "parameters"),
    [
        # 10 × 12 pixels of 6 channels in.
        (layers.Conv2D(7, 3, padding="same"), (10, 12, 7), 120 * 9 * 6 * 7, 9 * 6 * 7 + 7),
        (layers.Conv2D(7, 3, strides=2, use_bias=False), (4, 5, 7), 20 * 9 * 6 * 7, 9 * 6 * 7),
        (layers.Conv2D(8, (1, 3), groups=2), (10, 10, 8), 100 * 3 * 3 * 8, 3 * 3 * 8 + 8),
        (layers.Conv2D(7, 3, padding="same", dilation_rate=2), (10, 12, 7), 120 * 9 * 6 * 7, 9 * 6 * 7 + 7),
        (layers.Conv2DTranspose(5, 2, strides=2), (20, 24, 5), 120 * 4 * 6 * 5, 4 * 6 * 5 + 5),
        (layers.DepthwiseConv2D(3, depth_multiplier=2), (8, 10, 12), 80 * 9 * 12, 9 * 12 + 12),
        (layers.SeparableConv2D(7, 3), (8, 10, 7), 80 * (9 * 6 + 6 * 7), 9 * 6 + 6 * 7 + 7),
        (layers.Dense(9), (10, 12, 9), 120 * 6 * 9, 6 * 9 + 9),
        (layers.BatchNormalization(), (10, 12, 6), 0, 4 * 6),
        (layers.MaxPooling2D(2), (5, 6, 6), 0, 0),
    ],
)
def test_one_layer_by_hand(layer, shape, multiply_adds, parameters):
    (cost,) = costs(chain((10, 12, 6), layer)).layers
    assert (cost.name, cost.kind, cost.shape) == (layer.name, type(layer).__name__, shape)
    assert (cost.multiply_adds, cost.flops, cost.parameters) == (multiply_adds, 2 * multiply_adds, parameters)
    assert cost.activation_bytes == 4 * np.prod(shape)


def test_vgg16_has_the_published_work():
    """15.5 thousand million multiply-adds, 31 thousand million FLOPs for a picture of 224 pixels."""
    by_hand, incoming, side = 0, 3, 224
    for width, repeats in zip((64, 128, 256, 512, 512), (2, 2, 3, 3, 3)):
        for _ in range(repeats):
            by_hand += side * side * 9 * incoming * width
            incoming = width
        side //= 2
    by_hand += 7 * 7 * 512 * 4096 + 4096 * 4096 + 4096 * 1000
    cost = costs(keras.applications.VGG16(weights=None))
    assert cost.multiply_adds == by_hand == 15_470_264_320
    assert cost.flops == 30_940_528_640
    assert cost.parameters == 138_357_544
    # Two maps of 224 × 224 × 64 are there at once, and nothing waits.
    assert cost.peak_bytes == 2 * 224 * 224 * 64 * 4


def test_resnet50_has_torchvisions_work():
    """4,089,184,256 multiply-adds at 224 pixels with the classifier of 2048 × 1000 that the backbone lacks."""
    assert costs(resnet50((224, 224, 3))).multiply_adds + 2_048_000 == 4_089_184_256


def test_the_published_unet_by_hand():
    total, side, widths = 0, 572, (1, 64, 128, 256, 512, 1024)
    for level, (incoming, width) in enumerate(zip(widths, widths[1:])):
        total += (side - 2) ** 2 * 9 * incoming * width + (side - 4) ** 2 * 9 * width * width
        side = (side - 4) // 2 if level < 4 else side - 4
    for width in (512, 256, 128, 64):
        total += side * side * 4 * 2 * width * width
        side = 2 * side - 4
        total += (side + 2) ** 2 * 9 * 2 * width * width + side**2 * 9 * width * width
    total += 388 * 388 * 64 * 2
    cost = costs(unet((572, 572, 1), 2, padding="valid"))
    assert cost.multiply_adds == total
    assert cost.parameters == 31_030_658


@pytest.mark.parametrize(
    "build", [lambda: fcn((None, None, 3), 4, 8, "small"), lambda: deeplab((None, None, 3), 4, **DEEPLAB)]
)
def test_totals_and_any_size(build):
    model = build()
    small, large = costs(model, (64, 96)), costs(model, (128, 192, 3))
    assert small.parameters == large.parameters == model.count_params()
    assert 3 * small.multiply_adds < large.multiply_adds <= 4 * small.multiply_adds
    assert small.layers[-1].shape == (64, 96, 4)
    with pytest.raises(ValueError, match="takes pictures of any size; give one"):
        costs(model)
    with pytest.raises(ValueError, match=r"input_shape is \(64, 64, 1\)"):
        costs(model, (64, 64, 1))


def test_memory_by_hand():
    """A skip waits while the branch beside it is at work."""
    inputs = keras.Input((8, 8, 2))
    skip = layers.Conv2D(4, 1)(inputs)  # 256 values
    x = layers.MaxPooling2D(2)(skip)  # 64
    x = layers.Conv2D(32, 1)(x)  # 512
    x = layers.Conv2D(4, 1)(x)  # 64
    x = layers.UpSampling2D(2)(x)  # 256
    x = layers.Concatenate()([skip, x])  # 512
    cost = costs(keras.Model(inputs, x))
    assert cost.activation_bytes == 4 * (256 + 64 + 512 + 64 + 256 + 512)
    # At the concatenation: the skip, the enlarged map and the two side by side.
    assert cost.peak_bytes == 4 * (256 + 256 + 512)
    # Without the skip, nothing is larger than the two widest neighbours and the map before.
    straight = costs(chain((8, 8, 2), layers.Conv2D(4, 1), layers.Conv2D(8, 1), layers.Conv2D(1, 1)))
    assert straight.peak_bytes == 4 * (256 + 512)


def test_a_shared_layer_works_twice_and_has_its_parameters_once():
    shared = layers.Conv2D(3, 3, padding="same")
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, shared(shared(inputs)))
    cost = costs(model)
    assert cost.parameters == model.count_params() == 84
    assert [layer.multiply_adds for layer in cost.layers] == [64 * 81, 64 * 81]
    assert receptive_field(model).size == (5, 5)


def test_models_within_models_and_sequential_ones():
    body = small_resnet((64, 64, 3), widths=(2, 2, 2, 2))
    pyramid = fpn((2, 2, 2, 2), 3)
    model = keras.Model(body.input, pyramid(body.outputs))
    assert costs(model).parameters == body.count_params() + pyramid.count_params()
    fields = receptive_fields(model)
    assert fields["P5"].stride == (32, 32) and fields["P2"].stride == (4, 4)
    # P5 smooths C5 with 3 × 3, 32 pixels apart.
    assert fields["P5"].size == (fields["C5"].size[0] + 2 * 32,) * 2
    stack = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(2, 3), layers.Conv2D(2, 3)])
    assert costs(stack).multiply_adds == 36 * 9 * 2 + 16 * 9 * 4
    assert receptive_field(stack).size == (5, 5)


def test_table():
    cost = costs(
        chain((8, 8, 1), layers.Conv2D(4, 3, name="first"), layers.ReLU(), layers.Conv2D(1, 1, name="second"))
    )
    assert cost.table().splitlines() == [
        "layer          output  parameters  million multiply-adds  activations in MB",
        "first       6 × 6 × 4          40                   0.00               0.00",
        "second      6 × 6 × 1           5                   0.00               0.00",
        "all layers                     45                   0.00               0.00",
    ]
    assert [line.split()[0] for line in cost.table(largest=1).splitlines()] == ["layer", "first", "all"]


def test_what_cannot_be_counted_is_named():
    inputs = keras.Input((8, 4))
    with pytest.raises(
        ValueError, match="no rule to count the multiplications of 'look', a MultiHeadAttention"
    ):
        costs(keras.Model(inputs, layers.MultiHeadAttention(1, 2, name="look")(inputs, inputs)))
    with pytest.raises(ValueError, match="a Matmul"):
        costs(keras.Model(inputs, ops.matmul(inputs, ops.transpose(inputs, (0, 2, 1)))))
    with pytest.raises(ValueError, match="has 2 inputs"):
        costs(keras.Model([inputs, other := keras.Input((8, 4))], inputs + other))
    with pytest.raises(ValueError, match="model must be a functional or sequential"):
        costs("unet")


# Receptive fields by hand


def test_vgg16_receptive_fields():
    model = fcn((None, None, 3), 2, 32, **FCN | {"convolutions": (2, 2, 3, 3, 3), "head_size": 7})
    fields = receptive_fields(model)
    size, stride = 1, 1
    for stage, repeats in enumerate((2, 2, 3, 3, 3), start=1):
        size += repeats * 2 * stride
        assert fields[f"conv{stage}_{repeats}"].size == (size, size)
        size, stride = size + stride, 2 * stride
        assert fields[f"pool{stage}"].size == (size, size) and fields[f"pool{stage}"].stride == (
            stride,
            stride,
        )
        assert fields[f"pool{stage}"].offset == ((stride - 1) / 2,) * 2
    assert size == 212
    # Long et al. (2015), table 1: FCN-VGG16 has a receptive field of 404 and a stride of 32.
    assert fields["fc6"].size == fields["fc7"].size == (size + 6 * 32,) * 2 == (404, 404)
    # An output between two of these sees both.
    assert fields["logits"].size == (436, 436)


def test_resnet50_receptive_field():
    size, stride = 7 + 2 * 2, 4
    for stage, repeats in enumerate((3, 4, 6, 3)):
        if stage:  # the first block's 3 × 3 has the stride
            size, stride, repeats = size + 2 * stride, 2 * stride, repeats - 1
        size += repeats * 2 * stride
    field = receptive_field(resnet50(), "C5")
    assert field.size == (size, size) == (427, 427)
    assert (field.stride, field.offset) == ((32, 32), (0, 0))


def test_unet_receptive_field():
    """One output of the published net: how many pixels of each level lie under it, then what one at the bottom sees."""
    pixels = 1
    for _ in range(4):
        pixels += 4  # two convolutions
        pixels = (pixels - 2) // 2 + 2  # at most so many pixels of the level below lie under these
    down = sum(5 * 2**level for level in range(4)) + 4 * 16  # of one pixel at the bottom, beyond itself
    expected = 1 + down + (pixels - 1) * 16
    for shape, padding, offset in (((572, 572, 1), "valid", 92), ((None, None, 1), "same", 0)):
        field = receptive_field(unet(shape, base_filters=1, padding=padding))
        assert field.size == (expected, expected) == (204, 204)
        assert field.offset == (offset, offset)


def test_rows_and_columns_are_told_apart():
    model = chain((None, None, 1), layers.Conv2D(1, (3, 5), strides=(1, 2)), layers.MaxPooling2D((4, 1)))
    field = receptive_field(model)
    assert (field.size, field.stride, field.offset) == ((6, 5), (4, 2), (2.5, 2))


def test_parts_left_out():
    model = deeplab((None, None, 3), 2, **DEEPLAB)
    assert receptive_field(model).size == (None, None)  # image pooling
    atrous = receptive_field(model, without=["aspp_pool"])
    branches = [f"aspp_{rate}" for rate in (6, 12, 18)]
    plain = receptive_field(model, "aspp", without=["aspp_pool", *branches])
    assert receptive_field(model, "aspp", without=["aspp_pool"]).size[0] == plain.size[0] + 2 * 18 * 16
    assert atrous.size[0] > plain.size[0]


# Receptive fields against every pixel tried


def rising(model):
    """Kernels above 0 and no bias: a picture of zeros gives zeros, and what a pixel reaches becomes more than 0."""
    for weight in model.weights:
        if weight.name in ("bias", "beta", "moving_mean"):
            weight.assign(np.zeros(weight.shape))
        elif not weight.path.startswith("upscore"):
            weight.assign(np.full(weight.shape, 1.0 if weight.name == "moving_variance" else 0.5))
    return model


def tried(model, length):
    """The first and the last column of the picture that each output column sees, by lighting up one after the other."""
    rows = model.input_shape[1]
    pictures = np.zeros((length, rows, length, model.input_shape[3]), "float32")
    pictures[np.arange(length), :, np.arange(length)] = 1
    # By input and output column. What is meant is larger; PyTorch's interpolation gives a share of 0 as a rounding error.
    reached = np.asarray(model.predict_on_batch(pictures)).max(axis=(1, 3)) > 1e-7
    columns = np.arange(length)[:, None]
    return np.where(reached, columns, analysis.NOWHERE).min(0), np.where(
        reached, columns, -analysis.NOWHERE
    ).max(0)


def check(model, length, without=()):
    low, high = tried(rising(model), length)
    sight = list(analysis._sights(model, 1, length, tuple(without)).values())[-1]
    np.testing.assert_array_equal(sight.low, low)
    np.testing.assert_array_equal(sight.high, high)
    return low, high, ~sight.cut


STACKS = {
    "strides": [layers.Conv2D(1, 3, strides=2, padding="same"), layers.Conv2D(1, 5, strides=3)],
    "dilation": [layers.Conv2D(1, 3, dilation_rate=3, padding="same"), layers.Conv2D(1, 2, dilation_rate=4)],
    "pooling": [layers.MaxPooling2D(3, strides=2, padding="same"), layers.AveragePooling2D((1, 2))],
    "transposed same": [
        layers.MaxPooling2D(2, padding="same"),
        layers.Conv2DTranspose(1, 3, strides=2, padding="same"),
    ],
    "transposed even": [
        layers.MaxPooling2D(2, padding="same"),
        layers.Conv2DTranspose(1, 4, strides=2, padding="same"),
    ],
    "transposed valid": [layers.Conv2D(1, 3), layers.Conv2DTranspose(1, 5, strides=3)],
    "transposed with gaps": [layers.Conv2D(1, 3), layers.Conv2DTranspose(1, 2, strides=3)],
    "nearest": [layers.MaxPooling2D(2), layers.UpSampling2D(3), layers.Conv2D(1, 3)],
    "bilinear": [layers.Conv2D(1, 3, strides=2), layers.UpSampling2D(4, interpolation="bilinear")],
    "bilinear odd": [layers.Conv2D(1, 3, strides=2), layers.UpSampling2D(3, interpolation="bilinear")],
    "padding": [
        layers.ZeroPadding2D(((1, 1), (5, 2))),
        layers.Conv2D(1, 3),
        layers.Cropping2D(((0, 0), (2, 4))),
    ],
    "separable": [layers.SeparableConv2D(1, 3, strides=2), layers.DepthwiseConv2D(3, padding="same")],
}


@pytest.mark.parametrize("name", STACKS)
def test_layers_see_what_every_pixel_tried_shows(name):
    stack = [type(layer).from_config(layer.get_config()) for layer in STACKS[name]]
    check(chain((12, 31, 1), *stack), 31)


@pytest.mark.parametrize(
    ("build", "length"),
    [
        (lambda: unet((8, 64, 1), 1, base_filters=1, depth=2), 64),
        (lambda: unet((8, 64, 1), 1, base_filters=1, depth=2, up="interpolate", skip="add"), 64),
        (lambda: unet((44, 84, 1), 1, base_filters=1, depth=2, padding="valid"), 84),
        (lambda: fcn((8, 230, 1), 1, 8, **FCN | {"head_size": 1}, score_initializer="ones"), 230),
        (lambda: fcn((8, 230, 1), 1, 32, **FCN | {"head_size": 1}, score_initializer="ones"), 230),
        (
            lambda: fcn(
                (4, 40, 1), 1, 8, **FCN | {"head_size": 7}, padding="paper", score_initializer="ones"
            ),
            40,
        ),
        (lambda: small_c5((8, 161, 1)), 161),
    ],
    ids=["unet", "unet interpolating", "unet valid", "fcn8s", "fcn32s", "fcn8s paper", "resnet"],
)
def test_models_see_what_every_pixel_tried_shows(build, length):
    model = build()
    low, high, free = check(model, length)
    if free.any():
        assert receptive_field(model).size[1] >= (high - low)[free].max() + 1


def small_c5(shape):
    body = small_resnet(shape, widths=(1, 1, 1, 1), output_stride=16)
    return keras.Model(body.input, body.outputs[-1])


def test_deeplab_without_image_pooling_sees_what_every_pixel_tried_shows():
    model = rising(deeplab((4, 301, 1), 1, **DEEPLAB, rates=(1, 2, 3), output_stride=8))
    silent = model.get_layer("aspp_pool_features_conv")
    kernel = silent.get_weights()[0]
    silent.set_weights([0 * kernel])
    low, high = tried(model, 301)
    sight = analysis._sights(model, 1, 301, ("aspp_pool",))["logits"]
    np.testing.assert_array_equal(sight.low, low)
    np.testing.assert_array_equal(sight.high, high)
    assert (~sight.cut).any()
    size = receptive_field(model, without=["aspp_pool"]).size[1]
    assert size == (high - low)[~sight.cut].max() + 1
    silent.set_weights([kernel])
    assert (tried(model, 301)[1] == 300).all()  # with it, every output sees the last column


def test_what_cannot_be_followed_is_named():
    model = chain((8, 8, 1), layers.Conv2DTranspose(1, 3, strides=2, output_padding=1, name="up"))
    with pytest.raises(ValueError, match="'up' has an output_padding"):
        receptive_field(model)
    with pytest.raises(ValueError, match="no rule for what 'turn', a Permute, sees"):
        receptive_field(chain((8, 8, 1), layers.Permute((2, 1, 3), name="turn")))
    with pytest.raises(ValueError, match="interpolates 'bicubic'"):
        receptive_field(chain((8, 8, 1), layers.UpSampling2D(2, interpolation="bicubic")))
    with pytest.raises(ValueError, match="layer is 'C6'; the model's layers are"):
        receptive_field(unet((32, 32, 1), base_filters=1, depth=1), "C6")
    with pytest.raises(ValueError, match="the model has no layer 'C6'"):
        receptive_field(unet((32, 32, 1), base_filters=1, depth=1), without=["C6"])


# Effective receptive fields


def test_the_gradient_of_a_linear_net_by_hand():
    rng = np.random.default_rng(2)
    first, second = (rng.normal(size=(3, 3)).astype("float32") for _ in range(2))
    model = chain((11, 13, 1), *(layers.Conv2D(1, 3, padding="same", use_bias=False) for _ in range(2)))
    for layer, kernel in zip(model.layers[1:], (first, second)):
        layer.set_weights([kernel[:, :, None, None]])
    expected = np.zeros((11, 13))
    expected[3:8, 4:9] = np.abs(convolve2d(first, second))
    field = effective_receptive_field(model, count=3)
    np.testing.assert_allclose(field, expected, atol=1e-6)
    moved = effective_receptive_field(model, count=1, position=(4, 8))
    np.testing.assert_allclose(moved[2:7, 6:11], expected[3:8, 4:9], atol=1e-6)


def bent_net():
    """Everything that a gradient may stumble over: two outputs, normalization with statistics, dropout, a skip."""
    inputs = keras.Input((12, 12, 2))
    skip = layers.Conv2D(4, 3, padding="same", activation="tanh", name="skip")(inputs)
    x = layers.BatchNormalization(name="norm")(layers.AveragePooling2D(2)(skip))
    x = layers.Dropout(0.5)(x)
    x = layers.Conv2DTranspose(3, 2, strides=2, activation="tanh")(x)
    x = layers.Conv2D(2, 3, padding="same")(layers.Concatenate()([skip, x]))
    model = keras.Model(inputs, x)
    rng = np.random.default_rng(3)
    model.get_layer("norm").set_weights([rng.uniform(0.5, 1.5, 4) for _ in range(4)])
    return model


def test_the_gradient_against_differences():
    model = bent_net()
    x = np.random.default_rng(4).random((1, 12, 12, 2), np.float32)
    step = 0.02
    moved = np.repeat(x, 2 * x.size, axis=0)
    for k in range(x.size):
        moved[2 * k].flat[k] += step
        moved[2 * k + 1].flat[k] -= step
    outputs = np.asarray(model.predict_on_batch(moved))[:, 6, 6]
    for channel in (0, 1):
        slope = (outputs[::2, channel] - outputs[1::2, channel]).reshape(x.shape) / (2 * step)
        expected = np.abs(slope[0]).sum(-1)
        assert expected.max() > 0.1
        field = effective_receptive_field(model, x, channel=channel)
        np.testing.assert_allclose(field, expected, atol=2e-3 * expected.max())


def test_pictures_take_turns_and_the_model_stays_as_it_was():
    model = bent_net()
    model.get_layer("skip").trainable = False
    before = [ops.convert_to_numpy(weight) for weight in model.weights]
    trainable = [weight.path for weight in model.trainable_weights]
    x = np.random.default_rng(5).random((4, 12, 12, 2), np.float32)
    mean = effective_receptive_field(model, x)
    # Channels 0, 1, 0, 1.
    parts = [effective_receptive_field(model, x[k::2], channel=k) for k in (0, 1)]
    np.testing.assert_allclose(mean, np.mean(parts, axis=0), atol=1e-6)
    for weight, array in zip(model.weights, before):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), array)
    assert [weight.path for weight in model.trainable_weights] == trainable


def test_the_effective_field_lies_within_the_theoretical_one():
    model = unet((64, 64, 1), 2, base_filters=4, depth=1, normalization="batch")
    field = effective_receptive_field(model, count=4)
    sight = analysis._sights(model, 0, 64)["logits"]
    inside = np.zeros((64, 64), bool)
    seen = slice(sight.low[32], sight.high[32] + 1)
    inside[seen, seen] = True
    assert (field[~inside] == 0).all() and (field[inside] > 0).mean() > 0.9
    assert side_holding(field, 0.5) < side_holding(field, 0.95) <= receptive_field(model).size[0] + 1
    skip = effective_receptive_field(model, layer="encoder_1", count=4)
    assert 0 < (skip > 0).sum() <= 5 * 5
    again = effective_receptive_field(model, count=4)
    np.testing.assert_allclose(field, again, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": "C6"}, "layer is 'C6'"),
        ({"position": (12, 0)}, r"position is \(12, 0\); the map has 12 rows"),
        ({"channel": 2}, "channel is 2; the map has 2 channels"),
        ({"inputs": np.zeros((12, 12, 2))}, "inputs has shape"),
        ({"inputs": np.zeros((1, 12, 12, 3))}, "inputs has shape"),
        ({"input_shape": (8, 8)}, r"input_shape is \(8, 8, 2\)"),
        ({"count": 0}, "count is 0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        effective_receptive_field(bent_net(), **arguments)


def test_scores_of_zero_have_no_gradient_and_it_is_said():
    with pytest.raises(ValueError, match="every gradient is 0.*score_initializer"):
        effective_receptive_field(fcn((16, 16, 1), 2, 32, **FCN), count=1)


def test_side_holding():
    field = np.zeros((21, 31))
    field[8:13, 12:17] = 1
    assert side_holding(field, 1.0) == 5
    assert side_holding(field, 9 / 25) == 3
    assert side_holding(field, 0.04) == 1
    gauss = np.exp(-((np.arange(61) - 30) ** 2) / (2 * 6.0**2))
    assert side_holding(np.outer(gauss, gauss), 0.95) == pytest.approx(2 * 2.236 * 6 + 1, abs=2)
    for wrong in (np.zeros((4, 4)), -field, field[0]):
        with pytest.raises(ValueError, match="field"):
            side_holding(wrong)
    with pytest.raises(ValueError, match="share is 0"):
        side_holding(field, 0)
