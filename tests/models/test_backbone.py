"""ResNet, the pyramid on it, and torchvision's weights: shapes, counts, strides, files."""

import base64
import io
import json
import pickle
import zipfile
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
from course_lib.models.mask_rcnn.torchvision_weights import (
    current_name,
    load_torchvision,
    read_state_dict,
    torchvision_shapes,
)
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


def test_saved_and_loaded_again(tmp_path):
    body = set_rule(small_resnet(**TINY, normalization="frozen_batch", epsilon=0.5))
    pyramid = set_rule(fpn(TINY["widths"], 4))
    model = keras.Model(body.input, pyramid(body.outputs))
    model.save(tmp_path / "pyramid.keras")
    again = keras.models.load_model(tmp_path / "pyramid.keras")
    for before, after in zip(run(model, image(40, 32)), run(again, image(40, 32))):
        assert np.ptp(before) > 0
        np.testing.assert_allclose(after, before, atol=1e-6)


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
    with pytest.raises(ValueError, match=r"a map of \(4, 4\) does not belong to one of \(4, 4\)"):
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


# torchvision's names and axes


def heads():
    """A layer of each kind, named after torchvision's modules."""
    pooled = keras.Input((7, 7, 3))
    x = layers.Dense(5, name="roi_heads-box_head-fc6")(layers.Flatten()(pooled))
    mask = layers.Conv2DTranspose(4, 2, strides=2, name="roi_heads-mask_predictor-conv5_mask")(pooled)
    mask = layers.BatchNormalization(name="roi_heads-mask_head-0-1")(mask)
    return keras.Model(
        pooled, [layers.Dense(2, name="roi_heads-box_predictor-cls_score")(x), mask], name="heads"
    )


def state_of(model):
    rng = np.random.default_rng(3)
    return {
        name: rng.standard_normal(shape).astype("float32")
        for name, shape in torchvision_shapes(model).items()
    }


def test_names_and_shapes_are_torchvisions():
    assert torchvision_shapes(heads()) == {
        "roi_heads.box_head.fc6.weight": (5, 3 * 7 * 7),
        "roi_heads.box_head.fc6.bias": (5,),
        "roi_heads.mask_predictor.conv5_mask.weight": (3, 4, 2, 2),
        "roi_heads.mask_predictor.conv5_mask.bias": (4,),
        "roi_heads.mask_head.0.1.weight": (4,),
        "roi_heads.mask_head.0.1.bias": (4,),
        "roi_heads.mask_head.0.1.running_mean": (4,),
        "roi_heads.mask_head.0.1.running_var": (4,),
        "roi_heads.box_predictor.cls_score.weight": (2, 5),
        "roi_heads.box_predictor.cls_score.bias": (2,),
    }
    shapes = torchvision_shapes(small_resnet(**TINY, prefix="backbone-body-"))
    assert shapes["backbone.body.layer2.0.downsample.0.weight"] == (4, 4, 1, 1)
    assert shapes["backbone.body.layer3.0.conv1.weight"] == (8, 4, 3, 3)


def test_loaded_layers_compute_what_torchvisions_compute():
    model = heads()
    state = state_of(model)
    # What PyTorch keeps beside: a count of batches.
    load_torchvision(model, state | {"roi_heads.mask_head.0.1.num_batches_tracked": np.array(7)})
    pooled = RNG.standard_normal((2, 7, 7, 3)).astype("float32")
    channels_first = pooled.transpose(0, 3, 1, 2)

    def dense(x, name):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    expected = dense(
        dense(channels_first.reshape(2, -1), "roi_heads.box_head.fc6"), "roi_heads.box_predictor.cls_score"
    )
    logits = keras.Model(model.input, model.outputs[0])(pooled)
    np.testing.assert_allclose(ops.convert_to_numpy(logits), expected, rtol=1e-4, atol=1e-4)

    # A transposed convolution of size and stride 2: each pixel becomes a block of 2 × 2.
    name = "roi_heads.mask_predictor.conv5_mask"
    blocks = np.einsum("bihw,iojk->bohjwk", channels_first, state[f"{name}.weight"]).reshape(2, 4, 14, 14)
    upsampled = keras.Model(model.input, model.get_layer(name.replace(".", "-")).output)(pooled)
    np.testing.assert_allclose(
        ops.convert_to_numpy(upsampled), blocks.transpose(0, 2, 3, 1) + state[f"{name}.bias"], atol=1e-5
    )


def test_missing_extra_and_misshapen_names_are_listed_and_the_model_is_left_as_it_was():
    model = set_rule(heads())
    before = [ops.convert_to_numpy(weight) for weight in model.weights]
    state = state_of(model)
    del state["roi_heads.box_head.fc6.bias"]
    state["roi_heads.box_head.fc8.bias"] = np.zeros(3)
    state["roi_heads.box_predictor.cls_score.weight"] = np.zeros((91, 5))
    with pytest.raises(ValueError) as caught:
        load_torchvision(model, state)
    assert str(caught.value).splitlines() == [
        "These weights do not fit the model heads: 1 names missing, 1 extra, 1 misshapen (shapes as in torchvision). "
        "Build the model that they belong to, or name what shall be left out in `ignore`.",
        "missing: roi_heads.box_head.fc6.bias (5,)",
        "extra: roi_heads.box_head.fc8.bias (3,)",
        "misshapen: roi_heads.box_predictor.cls_score.weight is (91, 5), the model's (2, 5)",
    ]
    for weight, value in zip(model.weights, before):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), value)


def test_a_flattened_map_of_another_size_is_refused():
    inputs = keras.Input((75,))
    model = keras.Model(inputs, layers.Dense(5, name="roi_heads-box_head-fc6")(inputs))
    with pytest.raises(ValueError, match="fc6.weight takes 75 numbers, which are no map of 7 × 7"):
        load_torchvision(model, state_of(model))


def test_what_is_ignored_is_neither_wanted_nor_taken():
    model = set_rule(heads())
    before = ops.convert_to_numpy(model.get_layer("roi_heads-box_predictor-cls_score").kernel)
    state = state_of(model)
    state["roi_heads.box_predictor.cls_score.weight"] = np.zeros((91, 5))
    del state["roi_heads.box_predictor.cls_score.bias"]
    load_torchvision(model, state, ignore=("roi_heads.box_predictor.",))
    after = ops.convert_to_numpy(model.get_layer("roi_heads-box_predictor-cls_score").kernel)
    np.testing.assert_array_equal(after, before)
    bias = ops.convert_to_numpy(model.get_layer("roi_heads-box_head-fc6").bias)
    np.testing.assert_array_equal(bias, state["roi_heads.box_head.fc6.bias"])


def test_two_layers_of_one_name_are_refused():
    bodies = [small_resnet(**TINY, name=name) for name in ("one", "two")]
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, [body(inputs)[3] for body in bodies])
    with pytest.raises(ValueError, match="two variables for torchvision's conv1.weight"):
        torchvision_shapes(model)


@pytest.mark.parametrize(
    ("old", "today"),
    [
        ("backbone.fpn.inner_blocks.3.weight", "backbone.fpn.inner_blocks.3.0.weight"),
        ("backbone.fpn.layer_blocks.0.bias", "backbone.fpn.layer_blocks.0.0.bias"),
        ("rpn.head.conv.weight", "rpn.head.conv.0.0.weight"),
        ("roi_heads.mask_head.mask_fcn1.weight", "roi_heads.mask_head.0.0.weight"),
        ("roi_heads.mask_head.mask_fcn4.bias", "roi_heads.mask_head.3.0.bias"),
        ("roi_heads.mask_predictor.mask_fcn_logits.bias", None),
        ("backbone.fpn.inner_blocks.3.0.weight", None),
        ("rpn.head.conv.0.0.weight", None),
    ],
)
def test_names_of_2019(old, today):
    assert current_name(old) == (today or old)


# Files

# Written by PyTorch 2.13 with `torch.save`: zip, and the format of before 2020. In both: a kernel, a transposed view and a
# slice of one storage, half precision, bfloat16, a 64-bit scalar, an array without elements.
PTH_ZIP = """
c-p0v-*4Mg6vuCz#7W%_Shub%urXkO3u{{Ehm*oeIuCi1j6@rRu=WzUj@wvs>>T@MFr-P9pp|$V5)v;6@d$qbkK4ZhLhv$a4?IjrNbtO
u?OtEkwbNu($90@U_WgX%_g<fKysl+)2o;Oy(3nKCD3F#q1~y9l8;+`+Le~$E9nLg8$FWRodu||n<aaFJ>U?0ESOB!pf{dv1MC^v;yOs
l-i9O%!mf8bsJAu&lt<8b$blTW*1J7^YEDMkoMZG|XfXp<uEyyuMP#w>}AG3=B<n;`hvkbhRCBJ5W00oW5P~6avsBv0`99aw#qLvMh3<
lxrF7-2sVX6fubb(;lH{77_1y%>1>yo(LT$kxe@O(Gadx7W?oZEwwRB;ccnaU{)r&}<i=c!T0HZ3@_FVKz9*$qN)yD&$;<{9=PhL>9Kv
QBm!bq!|=&N3=m;x%$9Ug5dWNf}-tavX;9)Co~~Rm<$cYfSES3>RAPhE5;e<`&%_NrpF5l8VYM$FgsQvK0`S>_Q~_HkEyc$zH^;*n(2H
IMW-r7?x6+AA0U~thXHMRY4+pWS7fCZ()JyR4`OqPz!aeULW5AIkn3*s1pcbXiyV~Ztn_xR(tR+6L=59r53CXZo~Wf1OeJT3mY^ap&8y
^(`lZ<<=dcyDRa~E1CoVsMau+1uvuEy3dP=uM<>7M5TfV$*j%4R7ig}RwmiRQ;C3XWD(6R~d}>HE$S?oi|B|kVp5ueepi5zpD6`v!V{f
}X%f+hFI5N(-Ay=t^=4bFXSs>z`YG4ZGsDaH}*z#zdstQ7mjj>}<josD1=4q+&Pt}+}SN6NY(z2>FpV@dch~zzlcJ4CuohJEOBcC<u=)
1=cuFjDQb4NImVn>pyETZGaPsJtw$@ya#fA-G9Z;ltgeEj$gbdSdR>Sz59Z40?0V&&sl6;;Wg>!`UF^11(9>v()M<O|Uqs?q=Bp+})&t
bs;qT#hwrs<Qh3GGM${f$Tep6W8MDk%1}#b^hxQ+n*er|MRFG7GP*SuzZ_T;1>pcakcG^s#Kn3B~n>#)Z}_)MP8As<S5IMB+0VeXjCLw
s;)@YhFq7V26g%A)w6$!#D^HV%uutj&t#vPJmfs_9v%jhy=OWF{llRVO>LM@wvL$;zmY|w`_-^SvU5zOBz|KOamN`ZlNCOZBG2T|L7y4
Ml7*SZeoA1{FqW*bG$!T`u<|gLEUh&5Z33$dW65etW4|Y`>OMBQ)RJS4Kfr3k(UKJ)q_7=^jd}dZoSaWTJI0N!mUWHiFGds3Wfv2#nDp
;mwl?&6VZY7r;lFz1k-ahVJY%N9`E2eJIFli8
"""
PTH_LEGACY = """
c-noF*>2N76o$PuZ4HI8Q`WLOEFp2y#9?bFRfS}>nj7CB%XOx;!L@Vjait<f%1tZa8Mxq*x1g`XBOr0X8IKz^5aDG!J~Q+ENB^7|NMF?
O_t%wQ^Y6dEnX3$>mp^4}`ygoctRM)zB&M+!ht3vB(jbmN#0mBcj)VcFA#q654crK%PqvCdy4@pA8hj)v$bC>Wdjf;0A14$hOv#q<FNi
3VOvP3hBaSv;(p0hxH9eFGiAPZ-RbMAvl929l;87KXvIU}MmvF@gl0+l~$)j=N`4uOlL71veLe{b%>^hW0X`DD)x(c$U*^^8iXSy2%6u
v}V31gSO<v|rD>?1g*-Kgm`y`k%^c3ZDPDNoevWtdy(6@{r)Q_xJw6!DfROlzi`-y#L|v(K_SMB%UnGu(s3jnZD6k}e$aF$-Vu52)02!
!VkydJ~TNoIZ<mgh{(_jPZBjIA@-qaMFTP+`=&M2%P>O?o5F@yNVQP2j*CFj-$>~xM0D>+;iUz*WnT;6_z~5(9n^~BaWaa)rJA{2$v9k
h2@IetERXE*Esw-g&P*!w5M>{+B$Q$)`VLl0!u4AJQUGJMH)uKs6x3Axm}3dVIp_A$UO=b3-0G;cyWd`R2@-xft56**GB0Jbz`9kI?_d
?*O6W>b83Uaf(6Z-N;Z3R8(RNb%n-Gz-qOK9gn)=POHg22^?+5uE<EJ8M-(1g@FeTQqCJhvolQdBu1j6$<l|3m3<|K+hi7?d?w_e;Q%u
uz4bQ+kcJ9Vhq&O}eY1~f9<D6B-88WttN~FS$S#j+N!r%w*4i>TL;M3V3l=eG@us7^4cJ{=gJ6U`W@c!Zq@cq{L1Fv5e4g
"""
PTH_CONTENT = {
    "kernel": np.arange(-2, 4, dtype="float32").reshape(2, 1, 1, 3),
    "transposed": np.array([[0, 3], [1, 4], [2, 5]], "float32"),
    "slice": np.array([1, 3], "float32"),
    "half": np.array([0.5, -2], "float16"),
    "bfloat16": np.array([0.5, -3], "float32"),
    "count": np.array(7),
    "empty": np.zeros((0, 3), "float32"),
}


def unpacked(text):
    return zlib.decompress(base64.b85decode("".join(text.split())))


def assert_same(got, expected):
    assert list(got) == list(expected)
    for name, array in expected.items():
        assert got[name].dtype == array.dtype and got[name].shape == array.shape, name
        np.testing.assert_array_equal(got[name], array)


@pytest.mark.parametrize("content", [PTH_ZIP, PTH_LEGACY], ids=["zip", "legacy"])
def test_pth(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(unpacked(content))
    assert_same(read_state_dict(path), PTH_CONTENT)


@pytest.mark.parametrize("content", [PTH_ZIP, PTH_LEGACY], ids=["zip", "legacy"])
def test_a_cut_pth_is_refused(tmp_path, content):
    whole = unpacked(content)
    path = tmp_path / "weights.pth"
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="weights.pth cannot be read as weights"):
            read_state_dict(path)


class Harmful:
    def __reduce__(self):
        return print, ("executed",)


def pth_of(pickled, numbers=b""):
    """A file as PyTorch lays it out."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/data/0", numbers)
    return buffer.getvalue()


def view_of(count=4, offset=0, shape=(2, 2), strides=(2, 1), name=b"FloatStorage"):
    """The pickle of a state dict with one array, opcode by opcode."""

    def text(value):
        return b"X" + len(value).to_bytes(4, "little") + value

    def number(value):
        return b"J" + value.to_bytes(4, "little", signed=True)

    def numbers(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = (
        b"("
        + text(b"storage")
        + b"ctorch\n"
        + name
        + b"\n"
        + text(b"0")
        + text(b"cpu")
        + number(count)
        + b"tQ"
    )
    view = b"(" + storage + number(offset) + numbers(shape) + numbers(strides) + b"\x89Nt"
    return b"\x80\x02}" + text(b"a") + b"ctorch._utils\n_rebuild_tensor_v2\n" + view + b"Rs."


def test_a_pth_written_by_hand(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(pth_of(view_of(), np.arange(4, dtype="<f4").tobytes()))
    assert_same(read_state_dict(path), {"a": np.array([[0, 1], [2, 3]], "float32")})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pth_of(pickle.dumps({"a": Harmful()})), "asks for builtins.print"),
        (pickle.dumps(Harmful()), "asks for builtins.print"),
        (pth_of(pickle.dumps({"model": {}, "epoch": 3})), "it holds 'model', 'epoch', not arrays by name"),
        (pth_of(pickle.dumps([1])), "it holds list"),
        (pickle.dumps({"a": 1}), "no file of PyTorch's"),
        (pth_of(view_of(name=b"QInt8Storage"), bytes(16)), "asks for torch.QInt8Storage"),
        (pth_of(view_of(), bytes(12)), "does not lie in its storage"),
        (pth_of(view_of(offset=1), bytes(16)), "does not lie in its storage"),
        (pth_of(view_of(offset=-1), bytes(16)), "does not lie in its storage"),
        (pth_of(view_of(strides=(-2, 1)), bytes(16)), "does not lie in its storage"),
        (pth_of(view_of(shape=(2**20, 2**20), strides=(0, 0)), bytes(16)), "does not lie in its storage"),
    ],
)
def test_a_pth_that_is_no_state_dict_is_refused_and_nothing_is_executed(tmp_path, capsys, content, reason):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        read_state_dict(path)
    assert capsys.readouterr().out == ""


def safetensors_of(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_safetensors(tmp_path):
    arrays = {name: array for name, array in PTH_CONTENT.items() if name != "bfloat16"}
    header, data = {"__metadata__": {"format": "pt"}}, b""
    types = {"float32": "F32", "float16": "F16", "int64": "I64"}
    for name, array in arrays.items():
        start, data = len(data), data + array.tobytes()
        header[name] = {
            "dtype": types[str(array.dtype)],
            "shape": array.shape,
            "data_offsets": [start, len(data)],
        }
    # 0.5 and -3 in bfloat16: the upper halves of their float32.
    header["bfloat16"] = {"dtype": "BF16", "shape": [2], "data_offsets": [len(data), len(data) + 4]}
    data += bytes.fromhex("003f40c0")
    path = tmp_path / "weights.safetensors"
    path.write_bytes(safetensors_of(header, data))
    assert_same(read_state_dict(path), arrays | {"bfloat16": PTH_CONTENT["bfloat16"]})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be read"),
        (b"\xff" * 8, "its header claims"),
        (safetensors_of(b"{", b""), "cannot be read"),
        (
            safetensors_of({"a": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}, b"0"),
            "type F8_E4M3",
        ),
        (
            safetensors_of({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, bytes(8)),
            "does not lie",
        ),
        (
            safetensors_of({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(4)),
            "does not lie",
        ),
    ],
)
def test_a_damaged_safetensors_is_refused(tmp_path, content, reason):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        read_state_dict(path)


def test_weights_from_a_file(tmp_path):
    model, again = set_rule(heads()), heads()
    state = state_of(model)
    np.savez(tmp_path / "weights.npz", **state)
    load_torchvision(model, state)
    load_torchvision(again, tmp_path / "weights.npz")
    for weight, other in zip(model.weights, again.weights):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), ops.convert_to_numpy(other))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="source is weights.h5; a file of weights ends in .npz"):
        read_state_dict(tmp_path / "weights.h5")
    with pytest.raises(FileNotFoundError, match="download the weights"):
        read_state_dict(tmp_path / "weights.pth")
    (tmp_path / "weights.npz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="weights.npz cannot be read"):
        read_state_dict(tmp_path / "weights.npz")
    np.savez(tmp_path / "weights.npz", a=np.array([Harmful()], dtype=object))
    with pytest.raises(ValueError, match="weights.npz cannot be read"):
        read_state_dict(tmp_path / "weights.npz")
