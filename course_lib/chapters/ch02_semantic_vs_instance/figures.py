"""One image, four descriptions: drawn for the chapters that show the same photograph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from course_lib import plot
from course_lib.datasets import Sample


def write_on(axis, mask: np.ndarray, text: str) -> None:
    """Write on an object, where there is most room.

    Args:
        axis: one that shows the image of the mask.
        mask: bool `(height, width)`.
        text: a word or two.
    """
    from matplotlib.patheffects import withStroke

    room = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(room.argmax(), room.shape)
    axis.text(
        column,
        row,
        text,
        color="white",
        ha="center",
        va="center",
        fontsize=12,
        weight="bold",
        path_effects=[withStroke(linewidth=3, foreground="black")],
    )


def counted_names(sample: Sample, class_names: Sequence[str]) -> list[str]:
    """What to call each object: `"cat 1"`, `"cat 2"`, `"cup 1"`; the numbers begin anew in each class."""
    kinds = sample.classes.tolist()
    return [f"{class_names[kind]} {1 + kinds[:k].count(kind)}" for k, kind in enumerate(kinds)]


def in_own_colours(instances: np.ndarray) -> np.ndarray:
    """An instance map in pale colours, which stand for no class; 0 is black. Float `(height, width, 3)`."""
    import matplotlib.pyplot as plt

    colours = np.vstack([[0, 0, 0], plt.get_cmap("Set3").colors, plt.get_cmap("Pastel1").colors])
    return colours[np.where(instances > 0, (instances - 1) % (len(colours) - 1) + 1, 0)]


def four_descriptions(sample: Sample, class_names: Sequence[str], width: float = 13.0):
    """Boxes, class map, instance map and panoptic map of one image, two by two.

    Args:
        sample: with instances.
        class_names: of the semantic map, in order of class id.
        width: of the figure in inches.

    Returns:
        `(figure, axes)`.
    """
    by_class = plot.colour_labels(sample.semantic + 1)
    both = by_class.copy()
    both[ndimage.grey_dilation(sample.instances, 3) != ndimage.grey_erosion(sample.instances, 3)] = 1
    figure, axes = plot.images(
        [sample.image, by_class, in_own_colours(sample.instances), both],
        [
            "detection: a class and a box per object",
            "semantic: a class per pixel",
            "instances: a number per pixel",
            "panoptic: both",
        ],
        columns=2,
        width=width,
    )
    names = counted_names(sample, class_names)
    order = np.argsort(-np.prod(sample.boxes[:, 2:] - sample.boxes[:, :2], axis=1))  # small boxes on top
    plot.draw_boxes(axes[0], sample.boxes[order], [names[k].split()[0] for k in order])
    for kind, name in enumerate(class_names):
        write_on(axes[1], sample.semantic == kind, name)
    for k, name in enumerate(names):
        write_on(axes[2], sample.instances == k + 1, str(k + 1))
        write_on(axes[3], sample.instances == k + 1, name)
    for kind in set(range(len(class_names))) - set(sample.classes.tolist()):
        write_on(axes[3], sample.semantic == kind, class_names[kind])
    return figure, axes
