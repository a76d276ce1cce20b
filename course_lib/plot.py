"""The figures that several notebooks share: large, with few colours, safe for colour-blind readers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from skimage.segmentation import find_boundaries

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
"""Okabe and Ito's palette (2008), which colour-blind eyes tell apart; yellow last, it is pale on white."""


def style() -> None:
    """Matplotlib as the course uses it: readable from the last row, no box around images."""
    import matplotlib.pyplot as plt
    from cycler import cycler

    plt.rcParams.update(
        {
            "figure.dpi": 90,
            "figure.constrained_layout.use": True,
            "font.size": 13,
            "axes.titlesize": 14,
            "axes.labelsize": 13,
            "axes.prop_cycle": cycler(color=COLOURS),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "image.cmap": "gray",
            "image.interpolation": "nearest",
            "lines.linewidth": 2.5,
            "legend.frameon": False,
        }
    )


def palette(count: int) -> np.ndarray:
    """`count` colours as float `(count, 3)`: the palette, then again darker and lighter."""
    base = np.array([[int(colour[k : k + 2], 16) for k in (1, 3, 5)] for colour in COLOURS]) / 255
    rounds = -(-count // len(base))
    shades = [1.0, 0.7, 1.3, 0.85, 1.15]
    return np.concatenate([np.clip(base * shades[k % len(shades)], 0, 1) for k in range(rounds)])[:count]


def colour_labels(labels: np.ndarray, ignore: int = -1) -> np.ndarray:
    """A label or instance map as an image, float `(height, width, 3)`: 0 black, each label a colour, ignore grey.

    Neighbouring ids get different colours; far apart, colours repeat.
    """
    colours = np.vstack([[0, 0, 0], palette(35)])
    image = colours[np.where(labels > 0, (labels - 1) % 35 + 1, 0)]
    image[labels == ignore] = 0.5
    return image


def overlay(image: np.ndarray, labels: np.ndarray, strength: float = 0.35) -> np.ndarray:
    """An image with its labels laid over it: tinted, and outlined where labels meet.

    Args:
        image: float `(height, width, 1 or 3)` in 0..1. Its contrast is stretched by percentiles.
        labels: int `(height, width)`, 0 = untouched, -1 = does not count: grey.
        strength: of the tint, 0..1.

    Returns:
        float `(height, width, 3)` in 0..1.
    """
    floor, top = np.percentile(image, (0.5, 99.8))
    grey = np.clip((image - floor) / max(top - floor, 1e-6), 0, 1)
    tinted = np.repeat(grey, 3, axis=-1) if image.shape[-1] == 1 else grey
    colours = colour_labels(labels)
    inside = (labels != 0)[..., None]
    tinted = np.where(inside, (1 - strength) * tinted + strength * colours, tinted)
    outline = find_boundaries(labels, mode="inner")
    tinted[outline] = np.clip(colours[outline] * 0.8 + 0.2, 0, 1)
    return tinted


def save_image(path: Path, image: np.ndarray) -> None:
    """A float image in 0..1 as an 8-bit PNG."""
    import imageio.v3 as imageio

    imageio.imwrite(path, np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8), extension=".png")


def images(
    images: Sequence[np.ndarray],
    titles: Sequence[str],
    columns: int | None = None,
    width: float = 12.0,
    **arguments,
):
    """Images in a row or a grid, each with its title, without axes.

    Args:
        images: `(height, width)`, `(height, width, 1)` or `(height, width, 3)`.
        titles: one for each.
        columns: how many in a row; by default all.
        width: of the figure in inches.
        **arguments: for `imshow`.

    Returns:
        `(figure, axes)`, the axes as a flat list.

    Raises:
        ValueError: if there are no images, or not as many titles.
    """
    import matplotlib.pyplot as plt

    if not len(images):
        raise ValueError("images is empty; it must hold at least one.")
    if len(images) != len(titles):
        raise ValueError(
            f"titles has {len(titles)} entries for {len(images)} images; it must have one for each."
        )
    columns = columns or len(images)
    rows = -(-len(images) // columns)
    height, across = np.shape(images[0])[:2]
    size = width / columns
    figure, axes = plt.subplots(
        rows, columns, figsize=(width, rows * (size * height / across + 0.45)), squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, title in zip(axes.flat, images, titles, strict=False):
        image = np.asarray(image)
        axis.imshow(image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image, **arguments)
        axis.set_title(title)
    return figure, list(axes.flat)


def draw_boxes(
    axis, boxes: np.ndarray, names: Sequence[str] = (), colour: str = "white", width: float = 2.5, **line
) -> None:
    """Bounding boxes as frames with a dark halo, which are seen on any photograph.

    Args:
        axis: one that shows an image, as `images` returns them.
        boxes: `(n, 4)`: `x1, y1, x2, y2` in pixels, the far edges exclusive.
        names: written inside, at the upper left; none, or one for each box.
        colour, width: of the lines.
        **line: for `axis.plot`.
    """
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=width + 2.5, foreground="black")]
    view = axis.get_xlim(), axis.get_ylim()
    # imshow puts the middle of the first pixel at 0, its edge at -0.5
    for k, (x1, y1, x2, y2) in enumerate(np.asarray(boxes, float).reshape(-1, 4) - 0.5):
        axis.plot(
            [x1, x2, x2, x1, x1],
            [y1, y1, y2, y2, y1],
            color=colour,
            linewidth=width,
            path_effects=halo,
            **line,
        )
        if len(names):
            text = axis.text(x1 + 4, y1 + 4, names[k], color=colour, fontsize=11, weight="bold", va="top")
            text.set_path_effects([withStroke(linewidth=3, foreground="black")])
    axis.set(xlim=view[0], ylim=view[1])
