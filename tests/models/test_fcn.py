"""FCN: the published numbers, where the pixels lie, bilinear interpolation, sizes."""

import keras
import numpy as np
import pytest
from keras import ops

from course_lib.models.analysis import receptive_field
from course_lib.models.fcn import fcn
from course_lib.models.resize import Bilinear, CropTo, EdgePadding, bilinear_kernel

pytestmark = pytest.mark.backend

NARROW = {"widths": (2, 2, 2, 2, 2), "head_filters": 2}  # VGG-16 with next to no channels
TINY = {"backbone": "small", "widths": (2, 2, 3, 3, 4), "convolutions": (1, 1, 1, 1, 1), "head_filters": 5}


@pytest.fixture(autouse=True)
def numpy_draws_the_weights(monkeypatch):
    """JAX would compile the drawing of random numbers anew for every shape of kernel: seconds for a small net."""
    rng = np.random.default_rng(0)

    def draw(initializer, shape, dtype=None):
        return ops.convert_to_tensor(rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape), dtype=dtype)

    monkeypatch.setattr(keras.initializers.HeNormal, "__call__", draw)


def count(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


def picture(*shape, seed=0):
    return np.random.default_rng(seed).random((1, *shape), np.float32)


def run(model, x):
    outputs = model.predict_on_batch(x)
    return [np.asarray(y) for y in outputs] if isinstance(outputs, list) else np.asarray(outputs)


def convolution(size, incoming, outgoing):
    return size * size * incoming * outgoing + outgoing


# The published network


def parameters_by_hand(stride, widths=(64, 128, 256, 512, 512), head_filters=4096):
    """Those that are learned, and those of the last upsampling, which stays bilinear."""
    total, incoming = 0, 3
    for width, repeats in zip(widths, (2, 2, 3, 3, 3)):
        for _ in range(repeats):
            total += convolution(3, incoming, width)
            incoming = width
    total += convolution(7, widths[4], head_filters) + convolution(1, head_filters, head_filters)
    total += convolution(1, head_filters, 21)
    for step, width in ((16, widths[3]), (8, widths[2])):
        if stride <= step:
            total += 4 * 4 * 21 * 21 + convolution(1, width, 21)
    return total, (2 * stride) ** 2 * 21 * 21


def test_parameters_of_the_published_network(monkeypatch):
    learned, fixed = parameters_by_hand(8)
    # VGG-16 without fully connected layers, fc6, fc7, three layers of scores, two small kernels; one large kernel.
    assert learned == 14_714_688 + 102_764_544 + 16_781_312 + 86_037 + 10_773 + 5_397 + 2 * 7_056
    assert learned + fixed == 134_489_759
    monkeypatch.setattr(
        keras.initializers.HeNormal, "__call__", lambda self, shape, dtype: ops.zeros(shape, dtype)
    )
    model = fcn(padding="paper")
    assert (count(model.trainable_weights), count(model.non_trainable_weights)) == (learned, fixed)


@pytest.mark.parametrize("padding", ["same", "paper"])
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_parameters_by_hand(stride, padding):
    model = fcn(stride=stride, padding=padding, **NARROW)
    found = count(model.trainable_weights), count(model.non_trainable_weights)
    assert found == parameters_by_hand(stride, **NARROW)


def test_crops_are_the_authors():
    """The offsets of the authors' nets, which their software works out: 19; 5 and 27; 5, 9 and 31."""
    for stride, offsets in ((32, [19]), (16, [5, 27]), (8, [5, 9, 31])):
        model = fcn(stride=stride, padding="paper", **NARROW)
        assert [layer.offset for layer in model.layers if isinstance(layer, CropTo)] == offsets


@pytest.mark.parametrize("learned", ["intermediate", "all", "none"])
def test_which_upsampling_is_learned(learned):
    model = fcn((64, 64, 3), 2, 8, **TINY, learned=learned)
    trained = {layer.name for layer in model.layers if layer.name.startswith("upscore") and layer.weights}
    trained = {name for name in trained if model.get_layer(name).trainable_weights}
    expected = {"intermediate": {"upscore2", "upscore_pool4"}, "none": set()}
    expected["all"] = expected["intermediate"] | {"upscore8"}
    assert trained == expected[learned]


def test_scores_start_at_zero_as_in_the_paper():
    assert not run(fcn((64, 64, 3), 3, 8, **TINY), picture(64, 64, 3)).any()
    assert run(fcn((64, 64, 3), 3, 8, **TINY, score_initializer="he_normal"), picture(64, 64, 3)).any()


def test_a_finer_net_starts_from_a_coarser_one_and_says_the_same():
    """Section 4.2: with scores of zero on pool4 and pool3, FCN-8s interpolates what FCN-32s says, in steps."""
    coarse = fcn((64, 96, 3), 2, 32, **TINY, score_initializer="he_normal")
    fine = fcn((64, 96, 3), 2, 8, **TINY)
    for layer in coarse.layers:
        if layer.weights and not layer.name.startswith("upscore"):
            fine.get_layer(layer.name).set_weights(layer.get_weights())
    x = picture(64, 96, 3)
    said = run(keras.Model(coarse.input, coarse.get_layer("score_fr").output), x)
    assert np.ptp(said) > 0
    names = ("score_fr", "fuse_pool4", "fuse_pool3")
    steps = run(keras.Model(fine.input, [fine.get_layer(name).output for name in names]), x)
    for step, size in zip(steps, ((2, 3), (4, 6), (8, 12))):
        expected = ops.convert_to_numpy(ops.image.resize(said, size, "bilinear"))
        np.testing.assert_allclose(step, expected, atol=1e-5)
        said = expected


# Where the pixels lie


@pytest.mark.parametrize("padding", ["same", "paper"])
@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.slow
def test_what_is_added_lies_at_the_same_place(stride, padding):
    """Read off the graph: the fields of two maps that are added have the same middle, those of the logits the pixel's."""
    side = 7 if padding == "paper" else 1
    net = fcn(stride=stride, padding=padding, head_size=side, convolutions=(1, 1, 1, 1, 1), **NARROW)
    for stage, up in ((4, "upscore2"), (3, "upscore_pool4"))[: {32: 0, 16: 1, 8: 2}[stride]]:
        pair = ("score_pool{}_crop", "{}") if padding == "paper" else ("score_pool{}", "{}_crop")
        finer, coarser = (receptive_field(net, name) for name in (pair[0].format(stage), pair[1].format(up)))
        assert finer.offset == coarser.offset and finer.stride == coarser.stride
    logits = receptive_field(net)
    assert logits.offset == (0, 0) and logits.stride == (1, 1)


@pytest.mark.parametrize("factor", [2, 8, 16])
def test_upsampling_is_bilinear_interpolation(factor):
    """Against Keras's own resize, to the border: pixels of the coarse map in the middle of `factor` fine ones each."""
    coarse = picture(3, 5, 2)
    inputs = [keras.Input((3, 5, 2)), keras.Input((3 * factor, 5 * factor, 1))]
    x = keras.layers.Conv2DTranspose(
        2, 2 * factor, strides=factor, use_bias=False, kernel_initializer=Bilinear()
    )(EdgePadding()(inputs[0]))
    model = keras.Model(inputs, CropTo(3 * factor // 2)([x, inputs[1]]))
    got = run(model, [coarse, np.zeros((1, 3 * factor, 5 * factor, 1), "float32")])
    expected = ops.convert_to_numpy(ops.image.resize(coarse, (3 * factor, 5 * factor), "bilinear"))
    np.testing.assert_allclose(got, expected, atol=1e-5)
    net = fcn((64, 64, 3), 3, 32, **TINY)
    assert [layer.offset for layer in net.layers if isinstance(layer, CropTo)] == [48]


def test_bilinear_kernel_by_hand():
    np.testing.assert_allclose(bilinear_kernel(4)[0], np.array([1, 3, 3, 1]) / 16)
    np.testing.assert_allclose(bilinear_kernel(4)[1], np.array([3, 9, 9, 3]) / 16)
    assert bilinear_kernel(64).sum() == pytest.approx(32**2)
    kernel = ops.convert_to_numpy(Bilinear()((4, 4, 3, 3)))
    for i in range(3):
        for j in range(3):
            np.testing.assert_array_equal(kernel[:, :, i, j], bilinear_kernel(4) * (i == j))
    with pytest.raises(ValueError, match="size is 3; it must be even"):
        bilinear_kernel(3)
    with pytest.raises(ValueError, match="as many channels in as out"):
        Bilinear()((4, 4, 3, 2))


@pytest.mark.parametrize("padding", ["same", "paper"])
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_logits_have_the_size_of_any_picture(stride, padding):
    sizes = {"head_size": 7} if padding == "paper" else {}
    model = fcn((None, None, 3), 4, stride, **TINY, **sizes, padding=padding)
    assert run(model, picture(33, 47, 3)).shape == (1, 33, 47, 4)
    for size in ((1, 2), (64, 96), (70, 31)):
        assert fcn((*size, 3), 4, stride, **TINY, **sizes, padding=padding).output_shape == (None, *size, 4)


def test_a_score_comes_out_where_its_object_is():
    """A bright square in the picture; fc7 and all scores made to pass brightness on: the logits are brightest there."""
    model = fcn((96, 128, 1), 1, 8, **TINY)
    for weight in model.weights:
        if not weight.path.startswith("upscore"):
            weight.assign(np.full(weight.shape, 0.1 if weight.name == "kernel" else 0.0))
    x = np.zeros((1, 96, 128, 1), "float32")
    x[0, 40:48, 80:88] = 1
    logits = run(model, x)[0, :, :, 0]
    row, column = np.unravel_index(logits.argmax(), logits.shape)
    assert abs(row - 43.5) <= 4 and abs(column - 83.5) <= 4


# The rest


def test_small_backbone_parameters_by_hand():
    widths, head = (8, 16, 32, 64, 64), 64
    total, incoming = 0, 3
    for width in widths:
        for size, before in ((3, incoming), (3, width)):
            total += size * size * before * width + 2 * width  # no bias; scale and shift
        incoming = width
    total += 9 * 64 * head + 2 * head + head * head + 2 * head
    total += sum(convolution(1, channels, 4) for channels in (head, 64, 32))
    total += 2 * 16 * 4 * 4
    model = fcn((64, 64, 3), 4, backbone="small", normalization="batch")
    assert count(model.trainable_weights) == total
    model = fcn((64, 64, 3), 4, backbone="small", normalization="group")
    assert count(model.weights) == total + 16 * 16 * 4 * 4
    assert [model.get_layer(f"conv{stage}_1_norm").groups for stage in range(1, 6)] == [1, 2, 4, 8, 8]


def test_one_step_of_training_changes_the_scores():
    model = fcn((32, 32, 1), 2, 16, **TINY | {"widths": (4, 4, 4, 4, 4), "head_filters": 4}, dropout=0.0)
    model.get_layer("fc7").bias.assign(np.ones(4))  # so that no ReLU is closed everywhere
    fixed = model.get_layer("upscore16").get_weights()[0]
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    labels = np.zeros((1, 32, 32), "int32")
    labels[:, :, 20:] = 1
    model.train_on_batch(picture(32, 32, 1), labels)
    for name in ("score_fr", "score_pool4"):
        assert np.abs(model.get_layer(name).get_weights()[0]).max() > 0
    np.testing.assert_array_equal(model.get_layer("upscore16").get_weights()[0], fixed)


def test_logits_are_float32_in_mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = fcn((32, 32, 3), 2, 8, **TINY)
        logits = run(model, picture(32, 32, 3))
    finally:
        keras.config.set_dtype_policy(before)
    assert logits.dtype == "float32"
    assert model.get_layer("fc7").compute_dtype == "float16"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "alexnet"}, "backbone is 'alexnet'.*'vgg16', 'small'"),
        ({"input_shape": (64, 64)}, "input_shape is"),
        ({"num_classes": 0}, "num_classes is 0"),
        ({"stride": 4}, "stride is 4.*32, 16, 8"),
        ({"padding": "valid"}, "padding is 'valid'"),
        ({"padding": "paper"}, "head_size is 3; padding='paper'"),
        ({"widths": (8, 8)}, "widths is .*five whole numbers"),
        ({"convolutions": (1, 1, 1, 1, 0)}, "convolutions is"),
        ({"head_filters": 2.5}, "head_filters is 2.5"),
        ({"head_size": 4}, "head_size is 4; it must be odd"),
        ({"normalization": "layer"}, "normalization is 'layer'"),
        ({"normalization": "group", "head_filters": 12}, "head_filters 12; .*multiples of 8"),
        ({"learned": "some"}, "learned is 'some'"),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        fcn(**({"input_shape": (64, 64, 3), "backbone": "small"} | arguments))


def test_a_part_beyond_the_map_is_refused():
    with pytest.raises(ValueError, match="crops 5 pixels from pixel 2; they must lie in a feature map of 6"):
        CropTo(2)([np.zeros((1, 6, 9, 1), "float32"), np.zeros((1, 5, 5, 1), "float32")])
