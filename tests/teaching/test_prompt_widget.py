"""The widget of prompts: the mask follows the pixel."""

import numpy as np
import pytest

from course_lib.teaching import widgets

IMAGE = np.random.default_rng(0).random((12, 16, 3))


def left_or_right(x, y):
    """A network that knows two objects, the left and the right half."""
    columns = np.broadcast_to(np.arange(16) + 0.5, (12, 16))
    return np.where((columns < 8) == (x < 8), 0.9, 0.1)


def test_the_mask_follows_the_pixel():
    live = widgets.prompted(IMAGE, left_or_right, row=2, column=3)
    assert live.answer.numbers == {"row": 2, "column": 3, "pixels": 96, "here": 0.9}
    before = live.answer.drawing.png
    live.controls["column"].value = 12
    assert live.answer.numbers["column"] == 12 and "column 12" in live.answer.words
    assert live.answer.drawing.png != before
    data, _ = live._repr_mimebundle_()
    assert "96 pixels" in data["text/plain"] and "onclick" in live._picture.value


def test_what_cannot_be():
    with pytest.raises(ValueError, match=r"image has shape \(4, 4\)"):
        widgets.prompted(np.zeros((4, 4)), left_or_right)
    with pytest.raises(ValueError, match="row is 12, column is 0; they must lie within the image of 12 × 16"):
        widgets.prompted(IMAGE, left_or_right, row=12)
