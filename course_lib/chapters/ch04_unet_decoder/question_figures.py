"""The figures of this chapter's quiz, drawn when a question is shown."""

import numpy as np
from scipy import ndimage

from course_lib.datasets import cells
from course_lib.plot import COLOURS
from course_lib.teaching import ledger
from course_lib.teaching.quiz_figures import image_row, subplots

LEVELS = ("encoder_1", "encoder_2", "encoder_3", "bottleneck")


def stamps(inputs, kernel, stride):
    """How many stamps of a transposed convolution each output gets, along one side."""
    counts = np.zeros((inputs - 1) * stride + kernel, int)
    for k in range(inputs):
        counts[k * stride : k * stride + kernel] += 1
    return counts


def _a_row_of_stamps():
    figure, axis = subplots()
    counts = stamps(7, 4, 3)
    axis.bar(range(len(counts)), counts, color=[COLOURS[int(k == 2)] for k in counts])
    axis.set(xlabel="output", ylabel="stamps", xticks=range(0, len(counts), 3), yticks=(0, 1, 2))
    return figure


def seam(kernel=5, layers=5, channels=8):
    """How far the output of a tile is from that of the whole row, by the distance from the tile's edge."""
    rng = np.random.default_rng(0)
    weights = [
        rng.normal(0, np.sqrt(2 / kernel / channels), (kernel, channels, channels)) for _ in range(layers)
    ]

    def network(x):
        for one in weights:
            padded = np.pad(x, ((kernel // 2, kernel // 2), (0, 0)))
            x = np.maximum(sum(padded[k : k + len(x)] @ one[k] for k in range(kernel)), 0)
        return x

    row = rng.normal(size=(200, channels))
    return np.abs(network(row)[60:] - network(row[60:])).mean(1)[:70]


def _a_seam():
    figure, axis = subplots()
    difference = seam()[:21]
    there = np.flatnonzero(difference > 1e-12)
    axis.semilogy(there, difference[there], "o")
    axis.set(xlabel="distance from the tile's edge, in pixels (0 is the outermost)", xlim=(-0.5, 20.5))
    axis.set(ylabel="difference", xticks=range(0, 21, 2))
    axis.grid(axis="x", alpha=0.4)
    return figure


def three_masks():
    """A mask of cells, and three masks that differ from it each in its own way, by name."""
    truth = cells("test", length=1, size=96, seed=3, touching=0.0, radius=(10.0, 14.0), density=0.35)[
        0
    ].instances
    mask = truth > 0
    missed = truth.copy()
    missed[np.isin(truth, (2, 5))] = 0
    coarse = mask.reshape(12, 8, 12, 8).mean((1, 3))
    centres = (np.mgrid[:96, :96] - 3.5) / 8
    rough = ndimage.map_coordinates(coarse, centres, order=1, mode="nearest") > 0.5
    return {
        "ground truth": mask,
        "A": missed > 0,
        "B": rough,
        "C": ndimage.binary_erosion(mask, iterations=1),
    }


def _three_networks():
    masks = three_masks()
    figure, axes = image_row(masks)
    for axis in axes:
        axis.contour(masks["ground truth"], [0.5], colors=[COLOURS[5]], linewidths=1)
    return figure


def _two_probes():
    figure, axis = subplots()
    table = ledger.read("4.1").table
    for colour, name, found in (
        (COLOURS[0], "trained", table),
        (COLOURS[1], "untrained", table["untrained"]),
    ):
        axis.plot([np.mean(found[level]["what"]) for level in LEVELS], "o-", color=colour, label=name)
    axis.axhline(0.25, color="black", linestyle="--", linewidth=1)
    axis.text(2.9, 0.19, "chance", ha="right", va="top")
    axis.set(
        ylabel="accuracy of the probe",
        ylim=(0, 1),
        xticks=range(4),
        xticklabels=[n.replace("_", " ") for n in LEVELS],
    )
    axis.legend(loc="upper left")
    return figure


FIGURES = {"04-q9": _a_row_of_stamps, "04-q12": _a_seam, "04-q13": _three_networks, "04-q14": _two_probes}
