"""ResNet and the pyramid on it: shapes, counts, strides."""

import zlib

import keras
import numpy as np
import pytest
from keras import layers, ops

from course_lib.models.backbone import (
    FrozenBatchNormalization,
    convolution,
    normalization_layer,
    resnet,
    resnet50,
    small_resnet,
)
from course_lib.models.mask_rcnn.fpn import fpn
from course_lib.models.resize import Enlarge

pytestmark = pytest.mark.backend

RNG = np.random.default_rng(0)
TINY = {"widths": (4, 4, 8, 8), "blocks": (1, 1, 2, 2)}


def image(height, width, count=1):
    return np.random.default_rng(1).random((count, height, width, 3), np.float32)


def run(model, inputs):
    """The maps that a model gives, as arrays."""
    return [ops.convert_to_numpy(output) for output in model(inputs, training=False)]


def count(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


def set_rule(model):
    """Weights that are neither 0 nor 1, statistics included, the same for the same name in every model."""
    for weight in model.weights:
        rng = np.random.default_rng([2, zlib.crc32(weight.path.encode())])
        low, high = (0.5, 1.5) if weight.name in ("gamma", "moving_variance") else (-0.3, 0.3)
        weight.assign(rng.uniform(low, high, weight.shape))
    return model


# Numbers of parameters, shapes, names


def parameters_by_hand(widths, blocks, bottleneck):
    """Convolutions without bias and two numbers per normalized channel, block by block."""

    def normalized(size, incoming, outgoing):
        return size * size * incoming * outgoing + 2 * outgoing

    total, incoming = normalized(7, 3, widths[0]), widths[0]
    for stage, (width, repeats) in enumerate(zip(widths, blocks)):
        outgoing = 4 * width if bottleneck else width
        for index in range(repeats):
            if bottleneck:
                total += normalized(1, incoming, width) + normalized(3, width, width)
                total += normalized(1, width, outgoing)
            else:
                total += normalized(3, incoming, width) + normalized(3, width, width)
            if index == 0 and (stage > 0 or incoming != outgoing):
                total += normalized(1, incoming, outgoing)
            incoming = outgoing
    return total


def test_resnet50_has_the_published_number_of_parameters():
    model = resnet50()
    # 25,557,032 as published, less the classifier of 2048 · 1000 + 1000.
    assert count(model.trainable_weights) == 25_557_032 - 2_049_000 == 23_508_032
    assert parameters_by_hand((64, 128, 256, 512), (3, 4, 6, 3), bottleneck=True) == 23_508_032
    # A mean and a variance for each of 26,560 normalized channels.
    assert count(model.non_trainable_weights) == 2 * 26_560
    assert [tuple(output.shape) for output in model.outputs] == [
        (None, None, None, channels) for channels in (256, 512, 1024, 2048)
    ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, 309_456),
        # ResNet-18: 11,689,512 as published, less the classifier of 512 · 1000 + 1000.
        ({"widths": (64, 128, 256, 512), "blocks": (2, 2, 2, 2)}, 11_689_512 - 513_000),
    ],
)
def test_small_resnet_parameters(arguments, expected):
    sizes = {"widths": (16, 32, 64, 128), "blocks": (1, 1, 1, 1)} | arguments
    assert count(small_resnet(**arguments).trainable_weights) == expected
    assert parameters_by_hand(**sizes, bottleneck=False) == expected


def test_fpn_parameters_by_hand():
    channels = (256, 512, 1024, 2048)
    lateral = sum(256 * incoming + 256 for incoming in channels)
    assert fpn(channels).count_params() == lateral + 4 * (9 * 256 * 256 + 256) == 3_344_384


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("size", [(64, 96), (33, 47), (1, 2)])
def test_sides_are_those_of_the_strides_rounded_up(block, output_stride, size):
    model = resnet(block, **TINY, input_shape=(*size, 3), output_stride=output_stride)
    widths = [width * (4 if block == "bottleneck" else 1) for width in TINY["widths"]]
    for output, width, stride in zip(model.outputs, widths, (4, 8, 16, 32)):
        stride = min(stride, output_stride)
        assert tuple(output.shape) == (None, -(-size[0] // stride), -(-size[1] // stride), width)


def test_the_same_model_takes_any_size():
    model = small_resnet(**TINY)
    pyramid = fpn(TINY["widths"], 4)
    for height, width in ((32, 64), (35, 50)):
        maps = run(model, image(height, width))
        assert [m.shape[1:3] for m in maps] == [(-(-height // s), -(-width // s)) for s in (4, 8, 16, 32)]
        levels = run(pyramid, maps)
        assert [m.shape[1:3] for m in levels] == [
            (-(-height // s), -(-width // s)) for s in (4, 8, 16, 32, 64)
        ]
        assert all(m.shape[3] == 4 for m in levels)


def test_outputs_bear_their_names():
    model = small_resnet(**TINY, prefix="body-")
    assert [
        model.get_layer(f"body-C{level}").output is output
        for level, output in zip(range(2, 6), model.outputs)
    ]
    assert all(layer.name.startswith("body-") for layer in model.layers)
    pyramid = fpn((4, 8), 4)
    assert [pyramid.get_layer(name).output for name in ("P2", "P3", "pool")] == pyramid.outputs


# What the layers compute


def correlate(x, kernel, stride=1, dilation=1):
    """Convolution as the networks mean it, with the same zeros on all sides; (h, w, in), (k, k, in, out)."""
    reach = dilation * (kernel.shape[0] - 1)
    padded = np.pad(x, ((reach // 2, reach // 2), (reach // 2, reach // 2), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (reach + 1, reach + 1), axis=(0, 1))
    windows = windows[::stride, ::stride, :, ::dilation, ::dilation]
    return np.einsum("hwcij,ijco->hwo", windows, kernel)


@pytest.mark.parametrize("size", [(16, 20), (15, 21)])
def test_the_stem_pads_all_sides_alike(size):
    """Against NumPy: zeros around the 7 × 7 convolution, minus infinity around the pooling."""
    body = set_rule(small_resnet(**TINY))
    stem = keras.Model(body.input, body.get_layer("maxpool").output)
    picture = image(*size)
    kernel = ops.convert_to_numpy(body.get_layer("conv1").kernel)
    norm = body.get_layer("bn1")
    gamma, beta, mean, variance = (
        ops.convert_to_numpy(v) for v in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
    )
    x = np.maximum((correlate(picture[0], kernel, 2) - mean) / np.sqrt(variance + 1e-5) * gamma + beta, 0)
    x = np.pad(x, ((1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    expected = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(0, 1))[::2, ::2].max((3, 4))
    got = ops.convert_to_numpy(stem(picture, training=False))[0]
    assert (got > 0).any() and (got == 0).any()
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "stride", "dilation"), [(1, 2, 1), (3, 1, 1), (3, 2, 1), (3, 1, 2), (3, 1, 4), (7, 2, 1)]
)
@pytest.mark.parametrize("sides", [(9, 12), (2, 3)])
def test_convolution(size, stride, dilation, sides):
    inputs = keras.Input((None, None, 2))
    model = keras.Model(inputs, convolution(inputs, 3, size, "conv", stride, dilation))
    x = RNG.standard_normal((1, *sides, 2)).astype("float32")
    expected = correlate(x[0], ops.convert_to_numpy(model.get_layer("conv").kernel), stride, dilation)
    np.testing.assert_allclose(ops.convert_to_numpy(model(x))[0], expected, atol=1e-5)


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize("size", [(64, 64), (67, 81)])
@pytest.mark.slow
def test_dilation_in_place_of_stride_gives_the_same_features_more_densely(block, size):
    """Every second or fourth row and column of the dense map is the map of the ordinary network, to the edges."""
    models = {
        stride: set_rule(resnet(block, **TINY, normalization="frozen_batch", output_stride=stride))
        for stride in (8, 16, 32)
    }
    assert len({frozenset(weight.path for weight in model.weights) for model in models.values()}) == 1
    ordinary = run(models[32], image(*size))
    assert np.ptp(ordinary[3]) > 0
    for output_stride, steps in ((16, (1, 1, 1, 2)), (8, (1, 1, 2, 4))):
        for dense, sparse, step in zip(run(models[output_stride], image(*size)), ordinary, steps):
            np.testing.assert_allclose(dense[:, ::step, ::step], sparse, rtol=1e-5, atol=1e-5)


def rates(model, stage, convolution_name="conv2"):
    return [
        layer.dilation_rate[0]
        for layer in model.layers
        if layer.name.startswith(f"layer{stage}-") and layer.name.endswith(convolution_name)
    ]


def test_rates():
    tiny = {"widths": (1, 1, 1, 1), "blocks": (1, 1, 3, 3)}
    dense = resnet("bottleneck", **tiny, output_stride=8)
    assert (rates(dense, 2), rates(dense, 3), rates(dense, 4)) == ([1], [1, 2, 2], [2, 4, 4])
    # Chen et al. (2017), section 3.1: at output stride 16 and multi-grid (1, 2, 4), rates of 2, 4 and 8.
    for block in ("basic", "bottleneck"):
        grid = resnet(block, **tiny, output_stride=16, multi_grid=(1, 2, 4))
        assert (rates(grid, 3), rates(grid, 4)) == ([1, 1, 1], [2, 4, 8])
    assert rates(resnet("basic", **tiny, output_stride=16, multi_grid=(1, 2, 4)), 4, "conv1") == [2, 4, 8]


@pytest.mark.parametrize("normalization", ["batch", "group", "frozen_batch"])
def test_normalization(normalization):
    x = RNG.normal(3, 2, (2, 3, 4, 24)).astype("float32")
    layer = normalization_layer(normalization, 24, "norm", epsilon=0.25)
    layer.build(x.shape)
    set_rule(layer)
    values = {weight.name: ops.convert_to_numpy(weight) for weight in layer.weights}
    if normalization == "group":
        grouped = x.reshape(2, 3, 4, 3, 8)
        mean, variance = (f((1, 2, 4), keepdims=True) for f in (grouped.mean, grouped.var))
        standard = ((grouped - mean) / np.sqrt(variance + 0.25)).reshape(x.shape)
    else:
        standard = (x - values["moving_mean"]) / np.sqrt(values["moving_variance"] + 0.25)
    expected = standard * values["gamma"] + values["beta"]
    np.testing.assert_allclose(ops.convert_to_numpy(layer(x, training=False)), expected, atol=1e-5)


def test_group_normalization_does_not_see_the_rest_of_the_batch():
    model = set_rule(small_resnet(widths=(8, 8, 8, 264), normalization="group"))
    both = image(32, 32, 2)
    alone = model(both[:1], training=True)[3]
    np.testing.assert_allclose(
        ops.convert_to_numpy(model(both, training=True)[3])[:1], ops.convert_to_numpy(alone), atol=1e-5
    )
    assert model.get_layer("layer4-0-bn1").groups == 24  # of the divisors of 264, the largest up to 32


def test_frozen_statistics_and_scales_stay_while_the_kernels_learn():
    body = set_rule(small_resnet(**TINY, normalization="frozen_batch"))
    head = layers.Dense(1)(layers.GlobalAveragePooling2D()(body.outputs[-1]))
    model = keras.Model(body.input, head)
    assert [w.name for w in body.trainable_weights] == ["kernel"] * len(body.trainable_weights)
    frozen = {w.path: ops.convert_to_numpy(w) for w in body.non_trainable_weights}
    assert len(frozen) == 4 * sum(isinstance(layer, FrozenBatchNormalization) for layer in body.layers)
    kernel = ops.convert_to_numpy(body.get_layer("conv1").kernel)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(image(32, 32, 2), np.array([[3.0], [-3.0]]), epochs=2, verbose=0)
    for weight in body.non_trainable_weights:
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), frozen[weight.path])
    assert np.abs(ops.convert_to_numpy(body.get_layer("conv1").kernel) - kernel).max() > 0


def test_initialisation_keeps_the_gradients():
    keras.utils.set_random_seed(0)
    kernels = {
        w.path: ops.convert_to_numpy(w)
        for w in resnet("basic", (32, 32, 32, 32), (1, 1, 1, 1)).weights
        if w.name == "kernel"
    }
    for name in ("layer2-0-conv1/kernel", "layer3-0-conv1/kernel"):
        assert kernels[name].std() == pytest.approx(np.sqrt(2 / (9 * 32)), rel=0.05)
    assert np.abs(kernels["layer2-0-conv1/kernel"] - kernels["layer3-0-conv1/kernel"]).max() > 0


@pytest.mark.parametrize("normalization", ["batch", "group", "frozen_batch"])
@pytest.mark.slow
def test_mixed_precision(normalization):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        body = small_resnet(widths=(8, 8, 8, 8), normalization=normalization)
        pyramid = fpn([output.shape[-1] for output in body.outputs], 8, normalization=normalization)
        picture = image(64, 64)
        maps = pyramid(body(picture))
    finally:
        keras.config.set_dtype_policy(before)
    assert all(keras.backend.standardize_dtype(m.dtype) == "float16" for m in maps)
    assert all(weight.dtype == "float32" for weight in (*body.weights, *pyramid.weights))
    assert all(np.isfinite(ops.convert_to_numpy(m)).all() for m in maps)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"block": "dense"}, "block is 'dense'.*'basic', 'bottleneck'"),
        ({"widths": (4, 8)}, "widths is .*four whole numbers"),
        ({"blocks": (1, 1, 0, 1)}, "blocks is"),
        ({"input_shape": (64, 64)}, "input_shape is"),
        ({"normalization": "layer"}, "normalization is 'layer'.*'batch', 'group', 'frozen_batch'"),
        ({"normalization": "group"}, "widths is .*multiples of 8"),
        ({"output_stride": 4}, "output_stride is 4"),
        ({"multi_grid": (1, 2)}, "it must be None with output_stride=32"),
        ({"multi_grid": (1, 2, 4), "output_stride": 16}, "multi_grid is .*2 blocks"),
        ({"epsilon": -1.0}, "epsilon is -1.0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        resnet(**({"block": "basic", **TINY} | arguments))


# The pyramid


@pytest.mark.slow
def test_enlarging_is_nearest_neighbour_interpolation_for_every_side():
    for side in range(1, 40):
        small = -(-side // 2)
        coarse = np.arange(small * 3, dtype="float32").reshape(1, small, 3, 1)
        got = ops.convert_to_numpy(Enlarge()([coarse, np.zeros((1, side, 5, 1), "float32")]))
        rows, columns = np.arange(side) * small // side, np.arange(5) * 3 // 5
        np.testing.assert_array_equal(got[0], coarse[0][np.ix_(rows, columns)])


def test_pyramid_by_hand():
    channels = (2, 3)
    model = set_rule(fpn(channels, 4))
    maps = [
        RNG.standard_normal((1, *size, c)).astype("float32") for size, c in zip(((5, 8), (3, 4)), channels)
    ]

    def convolve(x, name):
        layer = model.get_layer(name)
        return correlate(x, ops.convert_to_numpy(layer.kernel)) + ops.convert_to_numpy(layer.bias)

    fine, coarse = (convolve(x[0], f"inner_blocks-{k}-0") for k, x in enumerate(maps))
    fine = fine + coarse.repeat(2, 0).repeat(2, 1)[:5, :8]
    expected = [convolve(fine, "layer_blocks-0-0"), convolve(coarse, "layer_blocks-1-0")]
    expected.append(expected[-1][::2, ::2])
    for got, compiled, wanted in zip(run(model, maps), model.predict_on_batch(maps), expected, strict=True):
        np.testing.assert_allclose(got[0], wanted, atol=1e-5)
        np.testing.assert_allclose(compiled[0], wanted, atol=1e-5)


def test_pyramid_variants():
    names = [
        layer.name for layer in fpn((4, 8), 8, normalization="batch", prefix="neck-").layers if layer.weights
    ]
    assert sorted(names) == [
        f"neck-{kind}_blocks-{level}-{k}" for kind in ("inner", "layer") for level in (0, 1) for k in (0, 1)
    ]
    assert len(fpn((4, 8), 8, pool=False).outputs) == 2
    dilated = small_resnet(**TINY, input_shape=(64, 64, 3), output_stride=16)
    with pytest.raises(ValueError, match=r"got feature maps of \(4, 4\) and \(4, 4\)"):
        fpn(TINY["widths"], 4)(dilated.outputs)
    for arguments, message in (
        ({"channels": ()}, "channels is"),
        ({"filters": 0}, "filters is 0"),
        ({"normalization": "layer"}, "normalization is 'layer'"),
        ({"filters": 12, "normalization": "group"}, "filters is 12"),
        ({"epsilon": -1}, "epsilon is -1"),
    ):
        with pytest.raises(ValueError, match=message):
            fpn(**arguments)
