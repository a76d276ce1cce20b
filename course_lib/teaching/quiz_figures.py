"""What the figures of the quiz share: their size, and images in a row."""

from collections.abc import Mapping

import numpy as np


def subplots(columns: int = 1, rows: int = 1, size: tuple[float, float] = (6, 2.4), **arguments):
    """`(figure, axes)` as `plt.subplots` gives them; `size` is width and height in inches."""
    import matplotlib.pyplot as plt

    return plt.subplots(rows, columns, figsize=size, **arguments)


def image_row(images: Mapping[str, np.ndarray], size: tuple[float, float] = (6, 2.4), **style):
    """`(figure, axes)` with images side by side, each below its title and without an axis; `style` is `imshow`'s."""
    figure, axes = subplots(len(images), size=size)
    for axis, (title, image) in zip(axes, images.items(), strict=True):
        axis.imshow(image, **style)
        axis.set_title(title)
        axis.axis("off")
    return figure, axes
