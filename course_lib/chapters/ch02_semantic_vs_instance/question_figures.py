"""The figures of this chapter's quiz, drawn when a question is shown."""

import numpy as np

from course_lib.plot import COLOURS, colour_labels
from course_lib.teaching.quiz_figures import image_row, subplots

GRID = np.array(
    [
        [1, 1, 0, 0, 0, 1, 1, 0, 0, 0],
        [1, 0, 0, 1, 1, 0, 0, 0, 1, 0],
        [0, 0, 0, 1, 0, 0, 1, 0, 1, 1],
        [0, 1, 1, 0, 0, 1, 1, 0, 0, 0],
        [0, 0, 1, 0, 0, 1, 0, 0, 0, 1],
    ]
)


def _maps(maps):
    """Label maps side by side, each with its title."""
    return image_row({title: colour_labels(labels) for title, labels in maps.items()})[0]


def _pixels_that_meet():
    figure, axis = subplots()
    axis.pcolormesh(GRID, cmap="Blues", edgecolors="grey", linewidth=0.8, vmax=1.4)
    axis.set(aspect="equal", ylim=(len(GRID), 0))
    axis.axis("off")
    return figure


def two_squares():
    """The ground truth and three predictions of two squares, as masks, by name."""
    truth = np.zeros((13, 17), int)
    truth[3:10, 1:8], truth[3:10, 9:16] = 1, 2
    a, c = (truth > 0).astype(int), np.zeros_like(truth)
    a[6, 8] = 1
    c[4:9, 1:8], c[4:9, 9:16] = 1, 1
    return {"ground truth": truth, "A": a, "B": (truth == 1).astype(int), "C": c}


def _three_predictions():
    return _maps({name: 4 * labels for name, labels in two_squares().items()})


def _a_landscape():
    figure, axis = subplots()
    x = np.linspace(0, 44, 300)
    axis.fill_between(
        x, np.interp(x, [0, 6, 18, 24, 32, 40, 44], [0, 0, -10, -4, -7, 0, 0]), -12, color="0.75"
    )
    axis.set(
        xlabel="column", ylabel="minus the distance", xlim=(0, 44), ylim=(-12, 1), yticks=(0, -4, -7, -10)
    )
    axis.grid(axis="y", alpha=0.5)
    return figure


def _three_intervals():
    figure, axis = subplots()
    effects = {"A": (0.05, 0.02), "B": (0.04, 0.06), "C": (0.002, 0.006)}
    for k, (mean, half) in enumerate(effects.values()):
        axis.errorbar(mean, k, xerr=half, fmt="o", color=COLOURS[0], capsize=4, linewidth=2.5)
    axis.axvline(0, color="black", linewidth=1)
    axis.axvspan(-0.01, 0.01, color="0.88")
    axis.set(
        yticks=range(3),
        yticklabels=effects,
        ylim=(2.6, -0.6),
        xlabel="effect on the IoU, with its 95 % interval",
    )
    return figure


def _three_maps():
    y, x = np.mgrid[:60, :80]
    discs = [(y - 30) ** 2 + (x - column) ** 2 <= 14**2 for column in (20, 47)]
    square = (np.abs(y - 30) <= 9) & (np.abs(x - 69) <= 7)
    ground = (y > 44).astype(int)

    def put(background, first, second, third):
        return np.select([*discs, square], [first, second, third], background)

    return _maps(
        {"A": put(0 * y, 1, 2, 3), "B": put(4 + 2 * ground, 1, 1, 2), "C": put(4 + 2 * ground, 1, 8, 2)}
    )


FIGURES = {
    "02-q8": _pixels_that_meet,
    "02-q9": _three_predictions,
    "02-q11": _a_landscape,
    "02-q12": _three_intervals,
    "02-q14": _three_maps,
}
