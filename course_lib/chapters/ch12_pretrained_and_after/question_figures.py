"""The figures of chapter 12's quiz."""

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage import data

from course_lib import datasets, plot
from course_lib.teaching.quiz_figures import image_row, subplots

BLUE, ORANGE = plot.COLOURS[:2]


def three_inputs():
    """The same photograph as three pipelines hand it on."""
    image = data.astronaut()[:200:2, 130:330:2] / 255
    return image_row({"A": image, "B": image[..., ::-1], "C": image / 255}, size=(6, 2.3), vmin=0, vmax=1)[0]


def first_steps():
    """How far encoder and decoder move in Adam's first step, in three trainings."""
    rng = np.random.default_rng(0)

    def step(rate):  # Adam's first step: its two means are the gradient and the gradient's square
        gradient = rng.normal(size=1000)
        return np.median(np.abs(rate * gradient / (np.sqrt(gradient**2) + 1e-7)))

    rates = {"A": (1e-3, 1e-3), "B": (0.0, 1e-3), "C": (1e-4, 1e-3)}
    figure, axis = subplots(size=(6, 2.4))
    for shift, part, colour in ((-0.2, 0, BLUE), (0.2, 1, ORANGE)):
        heights = [1000 * step(pair[part]) for pair in rates.values()]
        bars = axis.bar(np.arange(3) + shift, heights, 0.4, color=colour, label=("encoder", "decoder")[part])
        axis.bar_label(bars, [f"{height:.1f}" if height else "0" for height in heights], fontsize=10)
    axis.set_xticks(range(3), [f"training {name}" for name in rates])
    axis.set(ylabel="first step of a\nweight (× 0.001)", ylim=(0, 1.2), xlim=(-0.5, 3.6))
    axis.legend(loc="center right")
    return figure


def costs():
    """Costs of three objects (rows) for four queries (columns)."""
    cost = np.array([[0.4, 2.1, 3.0, 2.8], [2.7, 0.9, 1.3, 3.1], [2.9, 0.6, 3.3, 2.5]])
    figure, axis = subplots(size=(5.2, 2.4))
    axis.imshow(cost, cmap="Blues", vmin=0, vmax=6, aspect="auto")
    for (row, column), value in np.ndenumerate(cost):
        axis.text(column, row, f"{value:.1f}", ha="center", va="center")
    axis.set_xticks(range(4), [f"query {k}" for k in range(4)])
    axis.set_yticks(range(3), [f"object {name}" for name in "ABC"])
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    return figure


def five_queries():
    """A scene of two objects, and the masks of four queries with class and probability."""
    y, x = np.mgrid[:64, :64]
    disc, box = np.hypot(y - 20, x - 18) < 12, (abs(y - 42) < 12) & (abs(x - 44) < 11)
    scene = 0.15 + 0.6 * disc + 0.4 * box
    rng = np.random.default_rng(1)

    def soft(mask, shift=0):
        return np.clip(
            gaussian_filter(np.roll(mask, shift, 1).astype(float), 2) + rng.normal(0, 0.03, mask.shape), 0, 1
        )

    shown = {
        "image": scene,
        "query 1\ndisc 0.94": soft(disc),
        "query 2\nsquare 0.91": soft(box),
        "query 3\ndisc 0.83": soft(disc, 2),
        "query 4\nno object 0.97": soft(disc | box) * 0.4,
    }
    return image_row(shown, size=(7, 1.9), vmin=0, vmax=1)[0]


def clicked():
    """Cells with a click on one, what the decoder compares, and the mask that it returns."""
    sample = datasets.cells(
        length=1, size=96, seed=11, radius=(9, 13), touching=0.0, density=0.25, contrast=0.6
    )[0]
    inside = sample.instances > 0
    number = np.argmax(np.bincount(sample.instances[inside]))
    row, column = np.argwhere(sample.instances == number).mean(0)
    mask = np.where(inside, 1, 0)
    shown = {
        "image and click": sample.image[..., 0],
        "cosine with the\nclicked pixel": np.where(inside, 0.95, 0.1),
        "mask returned": plot.overlay(sample.image, mask, 0.6),
    }
    figure, axes = image_row(shown, size=(6.4, 2.5))
    for axis in axes:
        axis.plot(column, row, "o", color=ORANGE, markersize=9, markeredgecolor="black")
    return figure


FIGURES = {
    "12-q11": three_inputs,
    "12-q12": first_steps,
    "12-q13": costs,
    "12-q14": five_queries,
    "12-q15": clicked,
}
