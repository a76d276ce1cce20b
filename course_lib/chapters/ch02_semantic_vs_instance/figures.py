"""One image in four descriptions, drawn for the chapters that show the same photograph; and a mask under water."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from course_lib import plot
from course_lib.chapters.ch02_semantic_vs_instance.instances import by_watershed
from course_lib.datasets import Sample
from course_lib.teaching import widgets
from course_lib.teaching.widgets.canvas import Answer, Canvas


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


STEPS = 20
"""From the lowest ground, step 0, to the highest, the water rises in this many steps."""


def flooding_answer(mask: np.ndarray, step: int, depth: float) -> Answer:
    """Water that rises over a mask whose ground lies lower the farther it is from the outline.

    Args:
        mask: bool `(height, width)`, with something in it.
        step: of the water, 0 to `STEPS`.
        depth: what `by_watershed` takes.

    Returns:
        The answer; its numbers are the water's `level` and the `lakes` at this level.
    """
    ground = -ndimage.distance_transform_edt(mask)
    level = float(ground.min() * (1 - step / STEPS)) + 0.0  # no -0.0
    lake = np.where(mask & (ground <= level), by_watershed(mask.astype(int), depth), 0)
    seen = np.full((*mask.shape, 3), 1.0)
    seen[mask] = 0.8
    seen[lake > 0] = plot.colour_labels(lake)[lake > 0]
    below, right = np.roll(lake, -1, 0), np.roll(lake, -1, 1)
    seen[(lake > 0) & ((below > 0) & (below != lake) | (right > 0) & (right != lake))] = 0  # a dam

    height, width = mask.shape
    unit = 340 / width
    canvas = Canvas(740, 290)
    canvas.text(180, 16, "from above", at="mm", bold=True)
    canvas.image(seen, (10, 34, 10 + unit * width, 34 + unit * height))
    row = int(mask.sum(1).argmax())
    canvas.line(
        [(10, 34 + unit * (row + 0.5)), (10 + unit * width, 34 + unit * (row + 0.5))], "#444444", 1, 4
    )
    canvas.text(560, 16, "cut along the dashed row", at="mm", bold=True)
    top, scale = 60, 190 / -ground.min()
    for column in range(width):
        x1, x2 = 380 + unit * column, 380 + unit * (column + 1)
        bottom = top - scale * ground[row, column]
        if lake[row, column]:
            colour = "#" + "".join(f"{round(255 * c):02X}" for c in seen[row, column])
            canvas.box((x1, top - scale * level, x2, bottom), fill=colour)
        canvas.box((x1, bottom, x2, 270), fill="#999999")
    lakes = len(np.unique(lake[lake > 0]))
    words = f"The water stands at {level:.1f}, the lowest ground at {ground.min():.1f}: {lakes} lake{'s' * (lakes != 1)}."
    return Answer({"level": level, "lakes": lakes}, words, canvas)


def flooding(mask: np.ndarray, step: int = 12, depth: float = 1.0) -> widgets.Live:
    """A mask to flood: a slider for the water, which also rises by itself, and one for the depth.

    Args:
        mask: bool `(height, width)`.
        step, depth: where the sliders stand at first.

    Raises:
        ValueError: if the mask is empty.
    """
    import ipywidgets

    mask = np.asarray(mask, bool)
    if mask.ndim != 2 or not mask.any():
        raise ValueError(
            f"mask has shape {mask.shape} and {mask.sum()} pixels; give one (height, width), not empty."
        )
    controls = {
        "step": ipywidgets.IntSlider(value=step, min=0, max=STEPS, description="water"),
        "depth": ipywidgets.FloatSlider(value=depth, min=0.5, max=8, step=0.5, description="depth"),
    }
    return widgets.Live(
        lambda step, depth: flooding_answer(mask, step, depth),
        controls,
        "A mask from above and cut along a row; lakes in colours, and a black dam where two of them meet.",
        plays="step",
    )
