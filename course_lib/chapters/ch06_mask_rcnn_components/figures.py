"""Two drawings that notebooks 06 and 06b use throughout: where in the network a section is, and boxes over an image."""

from collections.abc import Collection

import numpy as np

from course_lib.plot import COLOURS

PARTS = ("backbone\n+ FPN", "RPN", "RoI Align", "box head", "mask head")
"""Numbered from 1, as in `drawings.draw_mask_rcnn`."""
BETWEEN = ("image", "feature\nmaps", "proposals", "regions", "class,\nbox", "mask")
"""What goes into the first part, and what comes out of each."""


def you_are_here(parts: int | Collection[int], width: float = 12.0):
    """The parts of Mask R-CNN in a row, with those of a section filled.

    Args:
        parts: number or numbers of the parts, 1 to 5.
        width: of the figure in inches.

    Returns:
        The Matplotlib figure.

    Raises:
        ValueError: if there is no such part.
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import Circle, FancyBboxPatch

    here = {parts} if isinstance(parts, int) else set(parts)
    if not here or here - set(range(1, 6)):
        raise ValueError(f"parts is {parts!r}; it must be numbers of parts, from 1 to 5.")
    figure, axis = plt.subplots(figsize=(width, 0.09 * width))
    step = 2.3
    for k, name in enumerate(PARTS):
        x, on = step * k + 1.1, k + 1 in here
        axis.add_patch(
            FancyBboxPatch(
                (x, 0.1),
                1.3,
                0.8,
                boxstyle="round,pad=0,rounding_size=0.12",
                facecolor=COLOURS[0] if on else "#F2F2F2",
                edgecolor="black" if on else "0.6",
                linewidth=1.5,
            )
        )
        axis.add_patch(Circle((x + 0.02, 0.9), 0.17, facecolor="black" if on else "0.6", zorder=3))
        axis.text(
            x + 0.02, 0.89, str(k + 1), color="white", ha="center", va="center", zorder=4, weight="bold"
        )
        words = {"ha": "center", "va": "center", "fontsize": 12, "linespacing": 1.05}
        axis.text(
            x + 0.68, 0.47, name, color="white" if on else "0.35", weight="bold" if on else None, **words
        )
    for k, name in enumerate(BETWEEN):
        x = step * k + 0.1
        axis.text(x + 0.5, 0.5, name, ha="center", va="center", fontsize=11, color="0.2", linespacing=1.05)
    axis.set_xlim(0, step * 5 + 1.1)
    axis.set_ylim(-0.02, 1.12)
    axis.axis("off")
    return figure


def frame(axis, box, colour: str, text: str = "", **style) -> None:
    """A box on an image shown by Matplotlib, whose first pixel has its centre at 0, 0.

    Args:
        axis: of the image.
        box: `x1, y1, x2, y2` in pixels.
        colour: of its edge.
        text: written at its upper left corner.
        **style: for `Rectangle`, such as `linestyle`.
    """
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    x1, y1, x2, y2 = np.asarray(box, float) - 0.5
    line = {"linewidth": 2.5} | style
    # A dark halo, so that the frame is seen on any image.
    halo = [withStroke(linewidth=1.6 * line["linewidth"], foreground="black", alpha=0.5)]
    axis.add_patch(
        Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, path_effects=halo, **line)
    )
    if text:
        halo = [withStroke(linewidth=3, foreground="black")]
        axis.text(
            max(x1, 0), max(y1 - 1, 7), text, fontsize=12, color="white", va="bottom", path_effects=halo
        )
