"""DeepLabV3+: atrous convolution, strides, where the pixels lie, parameters by hand."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from course_lib.models.analysis import receptive_field
from course_lib.models.deeplab import deeplab
from course_lib.models.resize import Interpolate, SpreadOver

pytestmark = pytest.mark.backend

TINY = {
    "backbone": "small",
    "widths": (4, 4, 4, 4),
    "aspp_filters": 4,
    "decoder_filters": (4, 4),
    "rates": (1, 2, 3),
}


@pytest.fixture(autouse=True)
def numpy_draws_the_weights(monkeypatch):
    """JAX would compile the drawing of random numbers anew for every shape of kernel: seconds for a small net."""
    rng = np.random.default_rng(0)

    def draw(initializer, shape, dtype=None):
        return ops.convert_to_tensor(rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape), dtype=dtype)

    for initializer in (keras.initializers.HeNormal, keras.initializers.VarianceScaling):
        monkeypatch.setattr(initializer, "__call__", draw)


def count(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


def picture(*shape, seed=0):
    return np.random.default_rng(seed).random((1, *shape), np.float32)


def run(model, x):
    return np.asarray(model.predict_on_batch(x))


# Atrous convolution


@pytest.mark.parametrize("rate", [2, 6])
def test_atrous_convolution_is_convolution_with_a_kernel_filled_with_zeros(rate):
    """The layer that the branches are made of, as it is built, against an ordinary one; also where the picture is small."""
    net = deeplab((None, None, 3), 2, **TINY | {"rates": (1, rate, 18)})
    atrous = net.get_layer(f"aspp_{rate}_conv")
    kernel = ops.convert_to_numpy(atrous.kernel)
    assert kernel.shape == (3, 3, 4, 4) and atrous.dilation_rate == (rate, rate)
    filled = np.zeros((2 * rate + 1, 2 * rate + 1, 4, 4), "float32")
    filled[::rate, ::rate] = kernel
    for size in ((15, 20), (4, 7)):
        x = picture(*size, 4)
        plain = layers.Conv2D(4, 2 * rate + 1, padding="same", use_bias=False)
        plain.build(x.shape)
        plain.set_weights([filled])
        expected = ops.convert_to_numpy(plain(x))
        assert np.ptp(expected) > 0
        np.testing.assert_allclose(ops.convert_to_numpy(atrous(x)), expected, atol=1e-5)


@pytest.mark.parametrize(("output_stride", "rates"), [(16, [6, 12, 18]), (8, [12, 24, 36])])
@pytest.mark.slow
def test_rates_are_doubled_at_output_stride_8(output_stride, rates):
    net = deeplab(
        (None, None, 3), 2, "small", output_stride, aspp_filters=4, decoder_filters=(4, 4), rates=(1, 2, 3)
    )
    for name, stride in (("C5", output_stride), ("decoder_up", 4), ("logits", 1)):
        field = receptive_field(net, name, without=["aspp_pool"])
        assert field.stride == (stride, stride) and field.offset == (0, 0), name


@pytest.mark.parametrize(("factor", "side"), [(4, 1), (4, 9), (4, 10), (4, 12), (2, 5)])
def test_interpolation_against_numpy(factor, side):
    coarse = picture(-(-side // factor), 3, 2)
    fine = np.zeros((1, side, 2 * factor + 1, 1), "float32")
    got = ops.convert_to_numpy(Interpolate(factor)([coarse, fine]))[0]
    rows, columns = np.arange(side) / factor, np.arange(2 * factor + 1) / factor
    for channel in range(2):
        down = [np.interp(rows, np.arange(coarse.shape[1]), coarse[0, :, j, channel]) for j in range(3)]
        expected = [np.interp(columns, np.arange(3), row) for row in np.stack(down, axis=1)]
        np.testing.assert_allclose(got[..., channel], expected, atol=1e-6)


def test_interpolation_refuses_maps_that_do_not_belong_together():
    with pytest.raises(ValueError, match=r"got feature maps of \(4, 3\) and \(20, 12\); .* divided by 4"):
        Interpolate(4)([np.zeros((1, 4, 3, 1), "float32"), np.zeros((1, 20, 12, 1), "float32")])


@pytest.mark.slow
def test_image_pooling_sees_the_whole_picture_and_is_everywhere_the_same():
    net = deeplab((48, 64, 3), 2, **TINY)
    part = keras.Model(
        net.input, [net.get_layer(name).output for name in ("C5", "aspp_pool_mean", "aspp_pool")]
    )
    features, mean, spread = (np.asarray(y) for y in part.predict_on_batch(picture(48, 64, 3)))
    np.testing.assert_allclose(mean[0, 0, 0], features[0].mean((0, 1)), rtol=1e-5)
    assert spread.shape == (1, 3, 4, 4) and np.ptp(spread, axis=(1, 2)).max() == 0 and spread.any()
    assert receptive_field(net).size == (None, None)


# The rest


def test_parameters_by_hand():
    """ResNet-50 with its 23,508,032, and a convolution without bias and two numbers per channel for each normalized one."""

    def normalized(size, incoming, outgoing):
        return size * size * incoming * outgoing + 2 * outgoing

    aspp = 2 * normalized(1, 2048, 256) + 3 * normalized(3, 2048, 256) + normalized(1, 5 * 256, 256)
    decoder = normalized(1, 256, 48) + normalized(3, 256 + 48, 256) + normalized(3, 256, 256)
    assert count(deeplab().trainable_weights) == 23_508_032 + aspp + decoder + 256 * 21 + 21 == 40_352_181
    counts = [deeplab((64, 64, 3), **TINY, output_stride=stride).count_params() for stride in (8, 16)]
    assert counts[0] == counts[1]


def test_one_step_of_training():
    net = deeplab((33, 32, 1), 2, **TINY, normalization="batch", dropout=0.1)
    before = {weight.path: ops.convert_to_numpy(weight) for weight in net.trainable_weights}
    net.compile(
        keras.optimizers.SGD(0.1),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=keras.backend.backend() == "tensorflow",  # tracing takes longer than this one step
    )
    labels = np.zeros((4, 33, 32), "int32")
    labels[:, :, 20:] = 1
    x = np.random.default_rng(1).random((4, 33, 32, 1), np.float32)
    net.train_on_batch(x, labels)
    still = [w.path for w in net.trainable_weights if np.array_equal(ops.convert_to_numpy(w), before[w.path])]
    assert not still


def test_logits_are_float32_in_mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        net = deeplab((32, 32, 3), 2, **TINY)
        logits = run(net, picture(32, 32, 3))
    finally:
        keras.config.set_dtype_policy(before)
    assert logits.dtype == "float32"
    assert net.get_layer("decoder_up").compute_dtype == "float16"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "xception"}, "backbone is 'xception'.*'resnet50', 'small'"),
        ({"output_stride": 32}, "output_stride is 32.*8, 16"),
        ({"normalization": "frozen_batch"}, "normalization is 'frozen_batch'"),
        ({"backbone": "resnet50"}, "widths and blocks configure the small backbone"),
        ({"num_classes": 0}, "num_classes is 0"),
        ({"aspp_filters": 1.5}, "aspp_filters is 1.5"),
        ({"rates": (6, 12)}, "rates is .*3 whole numbers"),
        ({"rates": (6, 6, 12)}, "rates is .*its numbers must differ"),
        ({"decoder_filters": (48,)}, "decoder_filters is .*2 whole numbers"),
        ({"normalization": "group"}, "aspp_filters is 4 and.*multiples of 8"),
        ({"dropout": -0.1}, "dropout is -0.1"),
        ({"widths": (4, 4)}, "widths is .*four whole numbers"),
        ({"input_shape": (64, 64)}, "input_shape is"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        deeplab(**({"input_shape": (64, 64, 3), **TINY} | arguments))


def test_one_pixel_is_spread_over_a_map():
    pixel, features = picture(1, 1, 3), picture(4, 5, 2)
    got = ops.convert_to_numpy(SpreadOver()([pixel, features]))
    np.testing.assert_array_equal(got, np.broadcast_to(pixel, (1, 4, 5, 3)))
