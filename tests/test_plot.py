"""Figures: what is drawn is what is there."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from course_lib import plot
from course_lib.models.unet import unet
from course_lib.teaching import drawings

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_the_drawing_follows_the_model():
    for depth in (1, 2, 4):
        model = unet((64, 64, 1), 3, base_filters=4, depth=depth)
        figure = drawings.draw_unet(model)
        drawn = texts(figure)
        for k in range(1, depth + 1):
            assert drawn.count(f"{64 // 2 ** (k - 1)}² × {4 * 2 ** (k - 1)}") == 2  # encoder and decoder
        assert f"{64 // 2**depth}² × {4 * 2**depth}" in drawn
        assert "1 × 1 convolution: 3 logits" in drawn
        assert f"{model.count_params():,}" in figure.axes[0].get_title()


def test_the_published_sizes_are_drawn():
    drawn = texts(drawings.draw_unet(unet((572, 572, 1), 2, padding="valid")))
    for label in ("568² × 64", "64² × 512", "28² × 1024", "52² × 512", "388² × 64", "skip: concatenate"):
        assert label in drawn


def test_no_skip_no_arrow():
    assert not any(
        "skip" in text for text in texts(drawings.draw_unet(unet((32, 32, 1), depth=2, skip="none")))
    )
    with pytest.raises(ValueError, match="give a model that `unet` built"):
        import keras

        drawings.draw_unet(keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]))


def test_colours_tell_neighbours_apart():
    picture = plot.colour_labels(np.array([[0, 1, 2, 8, -1]]))
    assert (picture[0, 0] == 0).all() and (picture[0, 4] == 0.5).all()
    assert len({tuple(colour) for colour in picture[0]}) == 5
    assert len({tuple(colour) for colour in plot.palette(35)}) == 35


def test_overlay_keeps_the_picture_where_there_is_no_label():
    image = np.random.default_rng(0).random((12, 12, 1))
    labels = np.zeros((12, 12), int)
    labels[3:8, 3:8] = 2
    laid = plot.overlay(image, labels)
    assert laid.shape == (12, 12, 3) and laid.min() >= 0 and laid.max() <= 1
    np.testing.assert_array_equal(laid[9:, :, 0], laid[9:, :, 1])
    assert (laid[3:8, 3:8, 0] != laid[3:8, 3:8, 1]).all()


def test_images_have_titles_and_hidden_axes():
    figure, axes = plot.images(
        [np.zeros((4, 6)), np.zeros((4, 6, 1)), np.zeros((4, 6, 3))], ["a", "b", "c"], columns=2
    )
    assert [axis.get_title() for axis in axes] == ["a", "b", "c", ""]
    with pytest.raises(ValueError, match="titles has 1 for 2 images; it must have one for each"):
        plot.images([np.zeros((2, 2))] * 2, ["one"])


def test_save_image(tmp_path):
    import imageio.v3 as imageio

    plot.save_image(tmp_path / "a.png", np.full((3, 4, 3), 0.5))
    assert (imageio.imread(tmp_path / "a.png") == 128).all()
