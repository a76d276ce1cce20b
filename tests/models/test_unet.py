"""The U-Net: the published numbers, shapes, skips, sizes that do not fit."""

import keras
import numpy as np
import pytest

from course_lib.models.mask_rcnn.optimizer import finite_steps
from course_lib.models.predict import predict_probabilities
from course_lib.models.unet import (
    check_size,
    fits,
    output_size,
    skip_margin,
    unet,
)
from course_lib.ops.tiles import overlap_tile

pytestmark = pytest.mark.backend


def test_the_published_network():
    model = unet((572, 572, 1), 2, padding="valid")
    assert model.output_shape == (None, 388, 388, 2)
    assert model.count_params() == 31_030_658
    shapes = {
        name: model.get_layer(name).output.shape[1:] for name in ("encoder_1", "bottleneck", "decoder_1_crop")
    }
    # Figure 1 of the paper: 568², 28² × 1024, and 392² after cropping.
    assert shapes == {
        "encoder_1": (568, 568, 64),
        "bottleneck": (28, 28, 1024),
        "decoder_1_crop": (392, 392, 64),
    }


def test_parameters_by_hand():
    def convolution(size, incoming, outgoing):
        return size * size * incoming * outgoing + outgoing

    widths = [64, 128, 256, 512, 1024]
    total = convolution(3, 1, 64) + convolution(3, 64, 64)
    for narrow, wide in zip(widths, widths[1:]):
        total += convolution(3, narrow, wide) + convolution(3, wide, wide)  # down
        total += (
            convolution(2, wide, narrow) + convolution(3, wide, narrow) + convolution(3, narrow, narrow)
        )  # up
    assert unet((572, 572, 1), 2, padding="valid").count_params() == total + convolution(1, 64, 2)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("skip", ["concat", "add", "none"])
@pytest.mark.parametrize("up", ["transpose", "interpolate"])
def test_every_variant_gives_logits_of_the_stated_size(padding, skip, up):
    size = 32 if padding == "same" else 44
    model = unet(
        (size, size, 3), 4, base_filters=4, depth=2, padding=padding, skip=skip, up=up, normalization="batch"
    )
    out = model(np.zeros((2, size, size, 3), "float32"))
    assert tuple(out.shape) == (2, output_size(size, 2, padding), output_size(size, 2, padding), 4)


def test_both_ways_up_have_the_same_number_of_parameters():
    counts = {
        up: unet((64, 64, 1), base_filters=8, up=up).count_params() for up in ("transpose", "interpolate")
    }
    assert counts["transpose"] == counts["interpolate"]


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_stated_sizes_are_those_of_the_layers(depth):
    for size in range(1, 260):
        for padding in ("same", "valid"):
            if fits(size, depth, padding):
                sides = walk(size, depth, padding)
                assert sides[-1] == output_size(size, depth, padding) > 0
    size = next(s for s in range(1, 400) if fits(s, depth, "valid"))
    model = unet((size, size, 1), base_filters=1, depth=depth, padding="valid")
    assert model.output_shape[1] == output_size(size, depth, "valid")


def walk(size, depth, padding):
    """The side after each stage, counted one by one; fails on an odd side before a halving."""
    loss = 4 if padding == "valid" else 0
    sides = [size]
    for _ in range(depth):
        assert (sides[-1] - loss) % 2 == 0
        sides.append((sides[-1] - loss) // 2)
    sides.append(sides[-1] - loss)
    for _ in range(depth):
        sides.append(sides[-1] * 2 - loss)
    return sides


def test_a_size_that_does_not_fit_is_refused_with_the_nearest_that_do():
    with pytest.raises(ValueError, match="side of 100 pixels.*96 or 112"):
        unet((100, 96, 1))
    with pytest.raises(ValueError, match="it must be a multiple of 16"):
        unet((100, 96, 1))
    with pytest.raises(ValueError, match="side of 570 pixels.*556 or 572"):
        unet((572, 570, 1), padding="valid")
    with pytest.raises(ValueError, match="16, the smallest"):
        check_size(3)
    smallest = next(s for s in range(1, 400) if fits(s, 4, "valid"))
    with pytest.raises(ValueError, match=f"{smallest}, the smallest"):
        check_size(smallest - 1, 4, "valid")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"skip": "sum"}, "skip is 'sum'.*'concat', 'add', 'none'"),
        ({"up": "nearest"}, "up is 'nearest'"),
        ({"padding": "full"}, "padding is 'full'"),
        ({"normalization": "layer"}, "normalization is 'layer'"),
        ({"depth": 0}, "depth is 0"),
        ({"num_classes": 2.0}, "num_classes is 2.0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"input_shape": (64, 64)}, "input_shape is"),
        ({"base_filters": 28, "normalization": "group"}, "base_filters is 28; .*give a multiple of 8"),
        ({"base_filters": 7, "normalization": "group"}, "base_filters is 7; .*give a multiple of 8"),
        ({"filters": (8, 17), "depth": 1, "normalization": "group"}, "filters .*; normalization='group'"),
        ({"filters": (8, 16), "depth": 2}, r"filters is \(8, 16\); it must be 3 whole numbers"),
        ({"filters": (8, 0), "depth": 1}, r"filters is \(8, 0\); it must be 2 whole numbers"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        unet(**({"input_shape": (64, 64, 1)} | arguments))


def test_the_skip_without_which_detail_is_lost_is_really_connected():
    model = unet((16, 16, 1), 2, base_filters=2, depth=1)
    skip = model.get_layer("decoder_1_skip")
    assert [tensor.shape[-1] for tensor in skip.input] == [2, 2]
    assert not any(
        "skip" in layer.name for layer in unet((16, 16, 1), 2, base_filters=2, depth=1, skip="none").layers
    )


@pytest.mark.usefixtures("keras_draws_the_first_weights")
def test_he_initialisation():
    keras.utils.set_random_seed(0)
    kernel = keras.ops.convert_to_numpy(
        unet((32, 32, 1), base_filters=64, depth=1).get_layer("encoder_1_conv").kernel
    )
    assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.03)


@pytest.mark.parametrize(
    ("padding", "shape", "message"),
    [
        ("same", (15, 16), "side of 15 pixels.*multiple of 4; the nearest that work: 12 or 16"),
        ("valid", (62, 64), "side of 62 pixels.*nearest that work: 60 or 64"),
    ],
)
def test_a_call_with_a_size_that_does_not_fit_says_which_do(padding, shape, message):
    model = unet((None, None, 1), 2, base_filters=2, depth=2, padding=padding)
    image = np.zeros((1, *shape, 1), "float32")
    with pytest.raises(ValueError, match=f"(?s){message}"):
        model(image)
    model(np.zeros((1, 60, 60, 1), "float32"))
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=f"(?s){message}"):
        model.fit(image, np.zeros((1, *shape, 2), "float32"), verbose=0)


def test_a_batch_that_is_not_finite_leaves_the_statistics_of_normalization_as_they_were():
    model = unet((8, 8, 1), 2, base_filters=2, depth=1, normalization="batch")
    model.compile(finite_steps("sgd", False), "mse", jit_compile=False)
    before = [keras.ops.convert_to_numpy(weight).copy() for weight in model.weights]
    image, targets = np.zeros((2, 8, 8, 1), "float32"), np.zeros((2, 8, 8, 2), "float32")
    image[0, 3, 4] = np.nan
    model.train_on_batch(image, targets)
    for weight, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), old, err_msg=weight.path)
    model.train_on_batch(np.random.default_rng(0).random((2, 8, 8, 1), np.float32), targets)
    for weight, old in zip(model.weights, before, strict=True):
        new = keras.ops.convert_to_numpy(weight)
        assert np.isfinite(new).all() and ("moving" not in weight.path or (new != old).any()), weight.path


def test_predict_refuses_a_model_that_returns_less_than_the_image():
    model = unet((None, None, 1), 2, base_filters=2, depth=1, padding="valid")
    with pytest.raises(ValueError, match=r"map of \(48, 48\) for an image of \(64, 64\).*margin=8"):
        predict_probabilities(model, np.zeros((64, 64, 1), "float32"))
    image = np.random.default_rng(0).random((40, 50, 1), np.float32)
    tiled = overlap_tile(model.predict_on_batch, image, (24, 24), margin=8)
    assert tiled.shape == (40, 50, 2)


class TestOverlapTile:
    """Figure 2 of the paper: tiles give what one big pass gives."""

    def test_valid_network_equals_one_pass_everywhere_on_the_mirrored_picture(self):
        keras.utils.set_random_seed(1)
        # base 4, depth 2: an input of s gives s − 40.
        model = unet((None, None, 1), 2, base_filters=4, depth=2, padding="valid")
        rng = np.random.default_rng(0)
        image = rng.random((100, 120, 1), np.float32)
        margin = (44 + 4 * 15 - output_size(44 + 4 * 15, 2, "valid")) // 2
        tile = 24
        assert fits(tile + 2 * margin, 2, "valid")
        tiled = overlap_tile(model.predict_on_batch, image, (tile, tile), margin, batch_size=3)
        extended = np.pad(image, ((margin, margin + 20), (margin, margin), (0, 0)), mode="reflect")
        assert fits(extended.shape[0], 2, "valid") and fits(extended.shape[1], 2, "valid")
        whole = np.asarray(model.predict_on_batch(extended[None]))[0]
        np.testing.assert_allclose(tiled, whole[:100, :120], atol=1e-5)

    def test_same_network_equals_one_pass_in_the_interior(self):
        keras.utils.set_random_seed(2)
        depth = 2
        model = unet((None, None, 1), 2, base_filters=4, depth=depth)
        image = np.random.default_rng(1).random((160, 192, 1), np.float32)
        margin = 24  # half of a receptive field of 44, and a multiple of 4
        tiled = overlap_tile(model.predict_on_batch, image, (32, 48), margin)
        whole = np.asarray(model.predict_on_batch(image[None]))[0]
        inside = (slice(margin, -margin), slice(margin, -margin))
        assert whole[inside].size > 0
        np.testing.assert_allclose(tiled[inside], whole[inside], atol=1e-5)

    def test_any_size_and_a_given_array(self):
        image = np.random.default_rng(2).random((37, 5, 2)).astype("float32")
        out = np.zeros((37, 5, 2), "float32")
        result = overlap_tile(lambda windows: windows, image, (16, 16), 7, batch_size=2, out=out)
        assert result is out
        np.testing.assert_array_equal(out, image)

    def test_bad_arguments(self):
        image = np.zeros((8, 8, 1), "float32")
        with pytest.raises(ValueError, match="margin -1"):
            overlap_tile(lambda windows: windows, image, (4, 4), -1)
        with pytest.raises(ValueError, match="it must return the window's size or the tile's"):
            overlap_tile(lambda windows: windows[:, 1:], image, (4, 4), 2)


def test_skip_margin_of_the_paper():
    assert [skip_margin(level, 4) for level in (1, 2, 3, 4)] == [88, 40, 16, 4]


def test_filters_of_each_level_make_networks_with_different_skips_equally_large():
    shape, depth = (None, None, 3), 3
    sizes = {
        skip: unet(shape, 5, depth=depth, filters=filters, skip=skip, normalization="batch").count_params()
        for skip, filters in {
            "concat": (8, 16, 32, 64),
            "none": (8, 17, 34, 67),
            "add": (8, 17, 34, 67),
        }.items()
    }
    assert max(sizes.values()) / min(sizes.values()) < 1.02
    doubled = unet(shape, 5, base_filters=8, depth=depth, normalization="batch").count_params()
    assert sizes["concat"] == doubled
