"""Costs and receptive fields against hand counts, receptive fields against every column tried, gradients by hand."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from scipy.signal import convolve2d

from course_lib.models.analysis import costs, effective_receptive_field, receptive_field
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
    """15.5 thousand million multiply-adds, 31 thousand million FLOPs for an image of 224 pixels."""
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
    with pytest.raises(ValueError, match="takes images of any size: give one"):
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
        ValueError,
        match="model has 'look', a MultiHeadAttention, for which no rule counts the multiplications",
    ):
        costs(keras.Model(inputs, layers.MultiHeadAttention(1, 2, name="look")(inputs, inputs)))
    with pytest.raises(ValueError, match="a Matmul"):
        costs(keras.Model(inputs, ops.matmul(inputs, ops.transpose(inputs, (0, 2, 1)))))
    with pytest.raises(ValueError, match="with 2 inputs"):
        costs(keras.Model([inputs, other := keras.Input((8, 4))], inputs + other))
    with pytest.raises(ValueError, match="model must be a functional or sequential"):
        costs("unet")


# Receptive fields


@pytest.mark.slow
def test_vgg16_receptive_fields():
    model = fcn((None, None, 3), 2, 32, **FCN | {"convolutions": (2, 2, 3, 3, 3), "head_size": 7})
    size, stride = 1, 1
    for repeats in (2, 2, 3, 3, 3):
        size += repeats * 2 * stride + stride  # convolutions, and a pooling
        stride *= 2
    field = receptive_field(model, "pool5")
    assert field.size == (size, size) == (212, 212) and field.stride == (stride, stride) == (32, 32)
    assert field.offset == ((stride - 1) / 2,) * 2
    # Long et al. (2015), table 1: FCN-VGG16 has a receptive field of 404 and a stride of 32.
    assert receptive_field(model, "fc7").size == (size + 6 * 32,) * 2 == (404, 404)


def test_resnet_receptive_field():
    size, stride = 7 + 2 * 2, 4
    for stage, repeats in enumerate((1, 2, 2, 1)):
        if stage:  # the first block's first 3 × 3 has the stride
            size, stride = size + 2 * stride, 2 * stride
        size += (2 * repeats - bool(stage)) * 2 * stride
    field = receptive_field(small_resnet(widths=(1, 1, 1, 1), blocks=(1, 2, 2, 1)), "C5")
    assert field.size == (size, size)
    assert (field.stride, field.offset) == ((32, 32), (0, 0))


@pytest.mark.parametrize(("depth", "size"), [(1, 18), (2, 44), (3, 100), (4, 204)])
def test_unet_receptive_field(depth, size):
    """One output: how many pixels of each level lie under it, then what one at the bottom sees."""
    pixels = 1
    for _ in range(depth):
        pixels += 4  # two convolutions
        pixels = (pixels - 2) // 2 + 2  # at most so many pixels of the level below lie under these
    down = (
        sum(5 * 2**level for level in range(depth)) + 4 * 2**depth
    )  # of one pixel at the bottom, beyond itself
    assert 1 + down + (pixels - 1) * 2**depth == size
    field = receptive_field(unet((None, None, 1), base_filters=1, depth=depth))
    assert field.size == (size, size) and field.offset == (0, 0)


@pytest.mark.slow
def test_receptive_field_of_the_published_unet_and_of_interpolation():
    valid = receptive_field(unet((572, 572, 1), padding="valid", base_filters=1))
    assert valid.size == (204, 204) and valid.offset == (92, 92)
    # Bilinear interpolation reads a second pixel of the coarse map, and the 2 × 2 convolution one more.
    assert receptive_field(unet((None, None, 1), base_filters=1, up="interpolate")).size == (252, 252)


def test_rows_and_columns_are_told_apart():
    model = chain((None, None, 1), layers.Conv2D(1, (3, 5), strides=(1, 2)), layers.MaxPooling2D((4, 1)))
    field = receptive_field(model)
    assert (field.size, field.stride, field.offset) == ((6, 5), (4, 2), (2.5, 2))


@pytest.mark.slow
def test_parts_left_out():
    model = deeplab((None, None, 3), 2, **DEEPLAB, rates=(1, 2, 4))
    assert receptive_field(model).size == (None, None)  # image pooling
    branches = [f"aspp_{rate}" for rate in (1, 2, 4)]
    plain = receptive_field(model, "aspp", without=["aspp_pool", *branches]).size[0]
    assert receptive_field(model, "aspp", without=["aspp_pool"]).size[0] == plain + 2 * 4 * 16


def tried(model, length):
    """By changing one column after the other of the model itself: the most columns that an output in the middle sees."""
    for weight in model.weights:  # kernels above 0 and no bias: what a column reaches becomes more than 0
        if weight.name in ("bias", "beta", "moving_mean"):
            weight.assign(np.zeros(weight.shape))
        else:
            weight.assign(np.full(weight.shape, 1.0 if weight.name == "moving_variance" else 0.5))
    images = np.zeros((length, model.input_shape[1], length, 1), "float32")
    images[np.arange(length), :, np.arange(length)] = 1
    # PyTorch's interpolation gives a weight of 0 as a rounding error.
    reached = np.asarray(model.predict_on_batch(images)).max(axis=(1, 3)) > 1e-7
    columns = np.arange(length)[:, None]
    first = np.where(reached, columns, length).min(0)
    last = np.where(reached, columns, -1).max(0)
    middle = slice(reached.shape[1] * 2 // 5, reached.shape[1] * 3 // 5)
    return (last - first)[middle].max() + 1


STACKS = {
    "strides": [layers.Conv2D(1, 3, strides=2, padding="same"), layers.Conv2D(1, 5, strides=3)],
    "dilation": [layers.Conv2D(1, 3, dilation_rate=3, padding="same"), layers.Conv2D(1, 2, dilation_rate=4)],
    "pooling": [layers.MaxPooling2D(3, strides=2, padding="same"), layers.AveragePooling2D((1, 2))],
    "transposed": [layers.MaxPooling2D(2), layers.Conv2DTranspose(1, 3, strides=2, padding="same")],
    "transposed with gaps": [layers.Conv2D(1, 3), layers.Conv2DTranspose(1, 2, strides=3)],
    "nearest": [layers.MaxPooling2D(2), layers.UpSampling2D(3), layers.Conv2D(1, 3)],
    "bilinear": [layers.Conv2D(1, 3, strides=2), layers.UpSampling2D(3, interpolation="bilinear")],
    "padding": [
        layers.ZeroPadding2D(((1, 1), (5, 2))),
        layers.Conv2D(1, 3, activation="sigmoid", use_bias=False),
    ],
    "separable": [layers.SeparableConv2D(1, 3, strides=2), layers.DepthwiseConv2D(3, padding="same")],
}


@pytest.mark.parametrize("name", STACKS)
def test_layers_see_what_every_column_tried_shows(name):
    stack = [type(layer).from_config(layer.get_config()) for layer in STACKS[name]]
    model = chain((12, 48, 1), *stack)
    if name == "padding":  # a sigmoid of 0 is not 0
        model = keras.Model(model.input, model.output - 0.5)
        expected = tried(model, 48)
        model = chain((12, 48, 1), *stack)
    else:
        expected = tried(model, 48)
    assert receptive_field(model).size[1] == expected


@pytest.mark.parametrize(
    ("build", "length"),
    [
        (lambda: unet((8, 128, 1), 1, base_filters=1, depth=2, up="interpolate", skip="add"), 128),
        (lambda: unet((44, 124, 1), 1, base_filters=1, depth=2, padding="valid"), 124),
        (
            lambda: keras.Sequential([keras.Input((8, 32, 1)), unet((8, 32, 1), 1, base_filters=1, depth=1)]),
            32,
        ),
    ],
    ids=["interpolating", "valid", "nested"],
)
def test_models_see_what_every_column_tried_shows(build, length):
    model = build()
    assert receptive_field(model).size[1] == tried(model, length)


def test_what_cannot_be_measured_is_named():
    small = unet((32, 32, 1), base_filters=1, depth=1)
    with pytest.raises(ValueError, match="layer is 'C6'; the model's layers are"):
        receptive_field(small, "C6")
    with pytest.raises(ValueError, match="without is 'C6'; the model's layers are"):
        receptive_field(small, without=["C6"])
    with pytest.raises(ValueError, match="no pixel reaches the output"):
        receptive_field(small, without=["encoder_1"])
    two = keras.Input((8, 8, 1))
    beside = keras.Model(two, layers.Concatenate(axis=1, name="beside")([two, two]))
    with pytest.raises(ValueError, match="'beside' concatenates along axis 1"):
        receptive_field(beside)


# Effective receptive fields


def test_the_gradient_of_a_linear_model_by_hand():
    rng = np.random.default_rng(2)
    first, second = (rng.normal(size=(3, 3)).astype("float32") for _ in range(2))
    model = chain((11, 13, 1), *(layers.Conv2D(1, 3, padding="same", use_bias=False) for _ in range(2)))
    for layer, kernel in zip(model.layers[1:], (first, second)):
        layer.set_weights([kernel[:, :, None, None]])
    expected = np.zeros((11, 13))
    expected[3:8, 4:9] = np.abs(convolve2d(first, second))
    images = rng.random((3, 11, 13, 1), np.float32)
    np.testing.assert_allclose(effective_receptive_field(model, images), expected, atol=1e-6)
    moved = effective_receptive_field(model, images[:1], location=(4, 8))
    np.testing.assert_allclose(moved[2:7, 6:11], expected[3:8, 4:9], atol=1e-6)


def test_the_gradient_lies_within_the_theoretical_field_and_the_model_stays_as_it_was():
    model = unet((64, 64, 1), 2, base_filters=4, depth=1, normalization="batch", dropout=0.5)
    before = [ops.convert_to_numpy(weight) for weight in model.weights]
    images = np.random.default_rng(4).random((4, 64, 64, 1), np.float32)
    field = effective_receptive_field(model, images)
    rows, columns = np.flatnonzero(field.any(axis=1)), np.flatnonzero(field.any(axis=0))
    side = receptive_field(model).size[0]
    assert side - 2 <= np.ptp(rows) + 1 <= side and side - 2 <= np.ptp(columns) + 1 <= side
    np.testing.assert_allclose(effective_receptive_field(model, images), field, atol=1e-6)  # no dropout
    assert 0 < (effective_receptive_field(model, images, "encoder_1") > 0).sum() <= 5 * 5
    for weight, array in zip(model.weights, before):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), array)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": "C6"}, "layer is 'C6'"),
        ({"location": (16, 0)}, r"location is \(16, 0\); it must lie in the feature map of 16 rows"),
        ({"images": np.zeros((16, 16, 1))}, "images has shape"),
        ({"images": np.zeros((1, 16, 16, 3))}, "images has shape"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    arguments = {"images": np.zeros((1, 16, 16, 1)), **arguments}
    with pytest.raises(ValueError, match=message):
        effective_receptive_field(unet((16, 16, 1), base_filters=1, depth=1), **arguments)
