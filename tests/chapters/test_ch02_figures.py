"""The figures of chapter 02: what is written on an image stands on the object that it names."""

import matplotlib.pyplot as plt
import numpy as np

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
