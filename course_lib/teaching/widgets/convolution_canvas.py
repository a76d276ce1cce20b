"""What the widget of the sliding kernel computes and draws: a convolution, one product after the other."""

from collections.abc import Mapping

import numpy as np

from course_lib.teaching.widgets.canvas import (
    BLACK,
    BLUE,
    DARK,
    GREY,
    ORANGE,
    PALE,
    WHITE,
    Answer,
    Canvas,
    Plane,
    rgb,
)

KERNELS = {
    "edge: dark to bright": np.array([[-1, 0, 1]] * 3, float),
    "edge: top to bottom": np.array([[-1, 0, 1]] * 3, float).T,
    "point": np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]], float),
    "mean": np.full((3, 3), 1 / 9),
}
LARGEST = 16
"""Side of the largest image whose numbers can still be read."""


def corner() -> np.ndarray:
    """A dark image with a bright lower right corner, float `(7, 9)`."""
    image = np.zeros((7, 9))
    image[3:, 4:] = 1
    return image


def convolution_answer(
    image: np.ndarray, kernels: Mapping[str, np.ndarray], kernel: str, rate: int, step: int
) -> Answer:
    """The convolution of an image without padding, stopped after so many products.

    Args:
        image: `(height, width)`.
        kernels: name → `(3, 3)`.
        kernel: the name of the one that slides.
        rate: pixels from one of its weights to the next; 1 is an ordinary convolution.
        step: products computed so far, from 1; those after the last location are left out.

    Returns:
        The answer; its numbers are `row` and `column` of the location in the feature map, `products` (the ones computed
        there), their `sum`, and `map`, NaN where the kernel has not been.
    """
    weights = kernels[kernel]
    rows, columns = (side - 2 * rate for side in image.shape)
    done = min(step, 9 * rows * columns) - 1
    row, column = divmod(done // 9, columns)
    windows = np.lib.stride_tricks.sliding_window_view(image, (2 * rate + 1, 2 * rate + 1))[
        ..., ::rate, ::rate
    ]
    whole = (windows * weights).sum((-1, -2))
    feature_map = np.full(rows * columns, np.nan)
    feature_map[: done // 9] = whole.ravel()[: done // 9]
    feature_map = feature_map.reshape(rows, columns)
    products = (windows[row, column] * weights).ravel()[: done % 9 + 1]
    feature_map[row, column] = products.sum()
    pixel, weight = windows[row, column].ravel()[done % 9], weights.ravel()[done % 9]
    times = f"({_short(weight)})" if weight < 0 else _short(weight)
    words = (
        f"Rate {rate}. Row {row}, column {column} of the feature map, product {len(products)} of 9: "
        f"{_short(pixel)} · {times} = {_short(products[-1])}. The sum so far is {_short(products.sum())}."
    )
    numbers = {"row": row, "column": column, "products": products, "sum": products.sum(), "map": feature_map}
    return Answer(numbers, words, _draw(image, weights, rate, numbers, np.abs(whole).max()))


def _draw(image, weights, rate: int, numbers: dict, largest: float) -> Canvas:
    canvas = Canvas(900, 400)
    row, column, products = numbers["row"], numbers["column"], numbers["products"]
    last = divmod(len(products) - 1, 3)

    unit = min(38, 342 / image.shape[1], 330 / image.shape[0])
    low, high = image.min(), image.max()
    plane = Plane(canvas, 15, 40, unit)
    canvas.text(15, 20, "image", 17, bold=True)
    _numbers(plane, image, lambda value: _grey((value - low) / max(high - low, 1e-9)))
    for k in range(9):
        y, x = row + k // 3 * rate, column + k % 3 * rate
        plane.box((x, y, x + 1, y + 1), edge=ORANGE, width=5 if (k // 3, k % 3) == last else 2.5)

    def small(top: float, title: str, values, shade):
        board = Plane(canvas, 400, top, 44)
        canvas.text(400, top - 20, title, 17, bold=True)
        _numbers(board, values, shade)
        board.box((last[1], last[0], last[1] + 1, last[0] + 1), edge=ORANGE, width=5)

    small(40, "kernel", weights, _signed(np.abs(weights).max()))
    shown = np.full(9, np.nan)
    shown[: len(products)] = products
    small(220, "pixel · weight", shown.reshape(3, 3), _signed(np.abs(weights).max() * np.abs(image).max()))
    canvas.text(400, 374, f"sum so far: {_short(numbers['sum'])}", 17, bold=True)

    found = numbers["map"]
    unit = min(44, 310 / found.shape[1], 330 / found.shape[0])
    plane = Plane(canvas, 575, 40, unit)
    canvas.text(575, 20, "feature map", 17, bold=True)
    _numbers(plane, found, _signed(largest))
    plane.box((column, row, column + 1, row + 1), edge=ORANGE, width=5)
    canvas.text(15, 374, "orange: the pixels below the kernel", 13, DARK)
    return canvas


def _numbers(plane: Plane, values, shade) -> None:
    """A table of numbers on coloured squares; an empty square for a NaN."""
    size = 15 if plane.unit > 34 else 11
    for (row, column), value in np.ndenumerate(values):
        colour = None if np.isnan(value) else shade(value)
        plane.box((column, row, column + 1, row + 1), fill=colour or WHITE)
        if colour:
            ink = WHITE if rgb(colour).mean() < 0.5 else BLACK
            plane.canvas.text(*plane.at(column + 0.5, row + 0.5), _short(value), size, ink, at="mm")
    plane.grid(np.shape(values)[1], np.shape(values)[0], GREY)


def _short(value: float) -> str:
    """At most two decimals, with a true minus."""
    return f"{round(float(value), 2) + 0.0:g}".replace("-", "−")


def _grey(fraction: float) -> str:
    return "#" + 3 * f"{round(255 * (0.25 + 0.75 * fraction)):02X}"


def _signed(most: float):
    """From a number to a colour: the stronger, the larger; orange above zero, blue below."""

    def shade(value: float) -> str:
        strength = min(abs(value) / max(most, 1e-9), 1)
        mixed = (1 - strength) * rgb(WHITE if value else PALE) + strength * rgb(ORANGE if value > 0 else BLUE)
        return "#" + "".join(f"{round(255 * part):02X}" for part in mixed)

    return shade
