"""The figures of this chapter's quiz, drawn when a question is shown."""

import numpy as np

from course_lib.plot import COLOURS
from course_lib.teaching.quiz_figures import image_row, subplots


def _frame(axis, box, colour, name=""):
    """A box `x1, y1, x2, y2` with its name beside its far corner."""
    x1, y1, x2, y2 = box
    axis.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], color=colour)
    axis.text(x2 + 1.5, y2, name, color=colour, va="center", fontweight="bold")


def _two_people():
    from matplotlib.patches import Ellipse

    figure, axis = subplots()
    for k, (left, score) in enumerate(((20, 0.95), (32, 0.9))):
        axis.add_patch(Ellipse((left + 20, 50), 36, 76, color=COLOURS[k], alpha=0.35))
        axis.plot(left + 20, 50, "o", color=COLOURS[k])
        _frame(axis, (left, 10, left + 40, 90), COLOURS[k])
        axis.text(
            left + 40 * k - 2 + 4 * k, 50, f"{'AB'[k]}: {score}", color="black", ha="left" if k else "right"
        )
    axis.set(xlim=(0, 92), ylim=(95, 5), aspect="equal")
    axis.axis("off")
    return figure


def _iou_of_a_shift():
    figure, axis = subplots()
    shift = np.linspace(0, 20, 81)
    axis.plot(shift, np.maximum(30 - shift, 0) / (30 + shift))
    axis.axhline(0.5, color="grey", linestyle="--", linewidth=1)
    axis.set(
        xlabel="shift to the right in pixels", ylabel="IoU", xlim=(0, 20), ylim=(0, 1), xticks=range(0, 21, 5)
    )
    return figure


def _two_histograms():
    figure, axis = subplots()
    rng = np.random.default_rng(1)
    bins = np.linspace(-8, 6, 57)
    for mean, scatter, name in ((-4, 1.2, "patches kept aside"), (-2, 1.8, "windows of photographs")):
        axis.hist(
            rng.normal(mean, scatter, 20_000), bins, histtype="step", linewidth=2.5, density=True, label=name
        )
    axis.axvline(-1.2, color="black", linestyle="--", linewidth=1.5)
    axis.text(-1.05, 0.31, "threshold")
    axis.set(xlabel="score of a window without a face", ylabel="frequency", ylim=(0, 0.36))
    axis.legend(loc="center right")
    return figure


def _four_shapes():
    y, x = np.mgrid[-1:1:200j, -1:1:200j]
    shapes = {
        "A": x**2 + y**2 <= 1,
        "B": np.abs(x) <= (y + 1) / 2,
        "C": (np.abs(x) <= 1 / 3) | (np.abs(y) <= 1 / 3),
        "D": (x**2 + y**2 <= 1) & (x**2 + y**2 >= 0.5**2),
    }
    shown = {name: np.where(mask, 0.35, 1.0) for name, mask in shapes.items()}
    figure, axes = image_row(shown, cmap="gray", vmin=0, vmax=1)
    for axis in axes:
        axis.plot([0, 199, 199, 0, 0], [0, 0, 199, 199, 0], color=COLOURS[5], clip_on=False)
    return figure


def _one_line_four_boxes():
    figure, axis = subplots()
    for box, name, colour in (
        ((30, 20, 80, 50), "A", COLOURS[0]),
        ((5, 5, 55, 35), "B", COLOURS[1]),
        ((30, 20, 50, 30), "C", COLOURS[2]),
        ((20, 30, 50, 80), "D", COLOURS[3]),
    ):
        _frame(axis, box, colour, name)
    axis.set(xlim=(0, 160), ylim=(85, 0), xlabel="x", ylabel="y", aspect="equal", xticks=range(0, 161, 20))
    return figure


FIGURES = {
    "01-q8": _two_people,
    "01-q9": _iou_of_a_shift,
    "01-q12": _two_histograms,
    "01-q13": _four_shapes,
    "01-q15": _one_line_four_boxes,
}
