"""Figures: what is drawn is what is there."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from course_lib import plot
from course_lib.teaching import drawings

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_a_drawing_wants_a_unet():
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


def test_what_does_not_count_is_grey_over_the_image():
    image = np.random.default_rng(0).random((12, 12, 1))
    labels = np.zeros((12, 12), int)
    labels[3:8, 3:8] = -1
    plain, laid = plot.overlay(image, np.zeros_like(labels)), plot.overlay(image, labels)
    inside, untouched = (slice(4, 7), slice(4, 7)), (slice(9, 12), slice(0, 12))
    np.testing.assert_allclose(laid[inside], 0.65 * plain[inside] + 0.35 * 0.5)
    np.testing.assert_array_equal(laid[untouched], plain[untouched])


def test_images_have_titles_and_hidden_axes():
    figure, axes = plot.images(
        [np.zeros((4, 6)), np.zeros((4, 6, 1)), np.zeros((4, 6, 3))], ["a", "b", "c"], columns=2
    )
    assert [axis.get_title() for axis in axes] == ["a", "b", "c", ""]
    with pytest.raises(ValueError, match="titles has 1 entries for 2 images; it must have one for each"):
        plot.images([np.zeros((2, 2))] * 2, ["one"])


def test_save_image(tmp_path):
    import imageio.v3 as imageio

    plot.save_image(tmp_path / "a.png", np.full((3, 4, 3), 0.5))
    assert (imageio.imread(tmp_path / "a.png") == 128).all()


def test_boxes_are_drawn_on_the_edges_of_pixels_with_their_names():
    figure, axes = plot.images([np.zeros((10, 12))], ["boxes"])
    before = axes[0].get_xlim(), axes[0].get_ylim()
    plot.draw_boxes(axes[0], np.array([[2, 1, 6, 4], [0, 0, 12, 10]]), ["cat", "wall"])
    assert [line.get_xydata().min(0).tolist() for line in axes[0].lines] == [[1.5, 0.5], [-0.5, -0.5]]
    assert [line.get_xydata().max(0).tolist() for line in axes[0].lines] == [[5.5, 3.5], [11.5, 9.5]]
    assert [text.get_text() for text in axes[0].texts] == ["cat", "wall"]
    assert (axes[0].get_xlim(), axes[0].get_ylim()) == before
