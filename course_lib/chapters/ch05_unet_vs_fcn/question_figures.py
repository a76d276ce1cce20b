"""The figures of this chapter's quiz, drawn when a question is shown."""

import numpy as np
from scipy import ndimage
from skimage import data

from course_lib.plot import COLOURS
from course_lib.teaching.quiz_figures import image_row, subplots


def best_at(mask, stride):
    """The mask that one right fraction for each block gives, interpolated and cut at a half."""
    rows, columns = mask.shape[0] // stride, mask.shape[1] // stride
    coarse = mask.reshape(rows, stride, columns, stride).mean((1, 3))
    centres = (np.indices(mask.shape) - (stride - 1) / 2) / stride
    return ndimage.map_coordinates(coarse, centres, order=1, mode="nearest") > 0.5


def _three_strides():
    horse = np.pad(~data.horse(), ((12, 12), (8, 8)))  # 352 × 416 pixels
    strides = {"A": 16, "B": 8, "C": 32}
    return image_row({"ground truth": horse} | {name: best_at(horse, one) for name, one in strides.items()})[
        0
    ]


def taps(rates):
    """Which pixels a row of 3 × 3 convolutions with these rates reads for one output, as a mask."""
    read = {(0, 0)}
    for rate in rates:
        steps = (-rate, 0, rate)
        read = {(row + down, column + right) for row, column in read for down in steps for right in steps}
    mask = np.zeros((11, 11), bool)
    for row, column in read:
        mask[5 + row, 5 + column] = True
    return mask


def _what_is_read():
    figure, axis = subplots()
    axis.pcolormesh(taps((2, 2)), cmap="Blues", edgecolors="grey", linewidth=0.8, vmax=1.4)
    axis.plot(5.5, 5.5, "o", color=COLOURS[5])
    axis.set(aspect="equal")
    axis.axis("off")
    return figure


def _two_learning_curves():
    figure, axis = subplots()
    step = np.linspace(0, 400, 100)
    axis.plot(step, 0.8 * (1 - np.exp(-step / 110)), label="A")
    axis.plot(step, 0.95 * (1 - np.exp(-step / 260)), label="B")
    axis.set(
        xlabel="training step",
        ylabel="IoU (validation)",
        xlim=(0, 400),
        ylim=(0, 1),
        xticks=range(0, 401, 100),
    )
    axis.legend()
    return figure


DIAMETERS = (8, 12, 16, 24, 32, 48, 64, 96, 128)


def best_ious(stride):
    """The best IoU at a stride for discs of these diameters, each a mean over locations."""
    rows, columns = np.mgrid[:192, :192]
    found = []
    for diameter in DIAMETERS:
        centres = np.random.default_rng(0).uniform(80, 112, (4, 2))
        discs = [(rows - y) ** 2 + (columns - x) ** 2 <= (diameter / 2) ** 2 for y, x in centres]
        pairs = [(disc, best_at(disc, stride)) for disc in discs]
        found.append(np.mean([(a & b).sum() / (a | b).sum() for a, b in pairs]))
    return found


def _by_diameter():
    figure, axis = subplots()
    for name, stride in (("A", 8), ("B", 32)):
        axis.semilogx(DIAMETERS, best_ious(stride), "o-", label=name)
    axis.set(xlabel="diameter of the disc in pixels", ylabel="best IoU", ylim=(0, 1.02))
    axis.set_xticks((8, 16, 32, 64, 128), ("8", "16", "32", "64", "128"))
    axis.minorticks_off()
    axis.legend()
    return figure


FIGURES = {
    "05-q9": _three_strides,
    "05-q11": _what_is_read,
    "05-q12": _two_learning_curves,
    "05-q14": _by_diameter,
}
