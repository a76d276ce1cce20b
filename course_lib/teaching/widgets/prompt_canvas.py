"""What the widget of prompts draws: a clicked point, and the mask that a network predicts for it."""

from collections.abc import Callable

import numpy as np

from course_lib.teaching.widgets.canvas import BLACK, BLUE, DARK, ORANGE, WHITE, Answer, Canvas, Plane, rgb
from course_lib.teaching.widgets.probes_canvas import HEIGHT, LEFT, SIDE, TOP, WIDTH


def prompt_answer(
    image: np.ndarray, predict: Callable[[float, float], np.ndarray], row: int, column: int
) -> Answer:
    """The mask for a click on one pixel.

    Args:
        image: `(height, width, 1 or 3)` in 0..1.
        predict: from x and y in pixels to the probability of each pixel, `(height, width)`.
        row, column: the pixel.

    Returns:
        The answer; its numbers are `row`, `column`, `pixels` of the mask, and `here`, the probability at the click.
    """
    probability = np.asarray(predict(column + 0.5, row + 0.5), float)
    mask = probability > 0.5
    numbers = {
        "row": row,
        "column": column,
        "pixels": int(mask.sum()),
        "here": float(probability[row, column]),
    }
    words = f"Row {row}, column {column}: a mask of {mask.sum():,} pixels; probability {numbers['here']:.2f} at the click."
    canvas, colour = Canvas(WIDTH, HEIGHT), np.broadcast_to(image, (*mask.shape, 3))
    tinted = np.where(mask[..., None], 0.4 * colour + 0.6 * rgb(BLUE), colour)
    canvas.text(LEFT, 14, "click on an object: its mask", 13, DARK)
    canvas.text(LEFT + SIDE + 40, 14, "probability of each pixel: black 0, white 1", 13, DARK)
    for left, shown in ((LEFT, tinted), (LEFT + SIDE + 40, probability)):
        plane = Plane(canvas, left, TOP, SIDE / max(mask.shape))
        canvas.image(shown, (*plane.at(0, 0), *plane.at(mask.shape[1], mask.shape[0])))
        for radius, ink in ((7, BLACK), (5, WHITE), (3, ORANGE)):
            plane.dot(column + 0.5, row + 0.5, radius, ink)
    return Answer(numbers, words, canvas)
