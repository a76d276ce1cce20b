"""The figures of chapter 02: what is written on an image stands on the object that it names."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from course_lib.chapters.ch02_semantic_vs_instance import figures
from course_lib.datasets import cells, collage


def test_four_descriptions_name_every_object_once():
    photo = collage.scene()
    figure, axes = figures.four_descriptions(photo, collage.CLASS_NAMES)
    boxes, classes, instances, panoptic = ({text.get_text() for text in axis.texts} for axis in axes)
    assert boxes == {"cat", "cup", "coin", "shuttle"} and classes == set(collage.CLASS_NAMES)
    assert instances == {str(k) for k in range(1, 11)}
    assert panoptic == {*figures.counted_names(photo, collage.CLASS_NAMES), "grass", "wall"}
    for text in axes[2].texts:
        column, row = text.get_position()
        assert photo.instances[row, column] == int(text.get_text())
    plt.close(figure)


def test_neighbouring_numbers_have_different_colours():
    sample = cells("test", 1, 128, seed=1)[0]
    image = figures.in_own_colours(sample.instances)
    assert (image[sample.instances == 0] == 0).all() and image.min() >= 0 and image.max() <= 1
    assert not np.allclose(image[sample.instances == 1][0], image[sample.instances == 2][0])


ROWS, COLUMNS = np.indices((48, 72))
PRESSED = ((ROWS - 24) ** 2 + (COLUMNS - 22) ** 2 <= 14**2) | (
    (ROWS - 24) ** 2 + (COLUMNS - 45) ** 2 <= 12**2
)


def test_the_water_rises_and_the_lakes_join_at_a_large_depth():
    """The basins are 14 and 12 deep, the saddle lies at 7: the shallower one reaches 5 below it."""
    lakes = {
        (step, depth): figures.flooding_answer(PRESSED, step, depth).numbers["lakes"]
        for step in (0, 1, 4, 20)
        for depth in (1.0, 5.0, 5.5)
    }
    assert lakes[0, 1.0] == lakes[1, 1.0] == 1 and lakes[4, 1.0] == lakes[20, 1.0] == 2
    assert lakes[20, 5.0] == 2 and lakes[20, 5.5] == 1
    levels = [figures.flooding_answer(PRESSED, step, 1.0).numbers["level"] for step in (0, 10, 20)]
    assert levels == pytest.approx([-14, -7, 0], abs=0.1)


def test_the_widget_follows_its_sliders_and_leaves_a_still():
    live = figures.flooding(PRESSED, step=20, depth=1.0)
    assert "2 lakes" in live.answer.words
    live.controls["depth"].value = 8.0
    assert "1 lake." in live.answer.words
    data, _ = live._repr_mimebundle_()
    assert data["text/plain"] == live.answer.words and data["image/png"]
    with pytest.raises(ValueError, match="mask has shape"):
        figures.flooding(np.zeros((4, 4)))
