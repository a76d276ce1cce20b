"""The figures of this chapter's quiz, drawn when a question is shown."""

import numpy as np
from scipy import ndimage

from course_lib.datasets import cells
from course_lib.teaching.quiz_figures import image_row, subplots

LEVELS = ("encoder 1", "encoder 2", "encoder 3", "encoder 4", "bottleneck")


def _an_edge():
    image = np.zeros((20, 30))
    image[5:15, 8:22] = 1
    rim = ndimage.correlate(image, [[-1, -1, -1], [0, 0, 0], [1, 1, 1]])
    return image_row({"image": image, "convolution, then ReLU": np.maximum(rim, 0)})[0]


def _three_initialisations():
    figure, axis = subplots()
    for name, factor in (("A", 4), ("B", 2), ("C", 1)):
        rng = np.random.default_rng(0)
        x, scales = rng.normal(size=(64, 256)), []
        for _ in range(21):
            scales.append(np.sqrt(np.mean(x**2)))
            x = np.maximum(x @ rng.normal(0, np.sqrt(factor / 256), (256, 256)), 0)
        axis.semilogy(scales, label=name)
        axis.text(20.3, scales[-1], name, va="center")
    axis.set(xlabel="layer", ylabel="scale of the features", xlim=(0, 21.5), xticks=range(0, 21, 5))
    return figure


def parameters_and_work():
    """Millions of weights and billions of multiplications of each level of the published U-Net's encoder."""
    weights, work, channels, side = [], [], 1, 572
    for filters in (64, 128, 256, 512, 1024):
        pair = 9 * channels * filters, 9 * filters * filters
        weights.append(sum(pair) / 1e6)
        work.append((pair[0] * (side - 2) ** 2 + pair[1] * (side - 4) ** 2) / 1e9)
        channels, side = filters, (side - 4) // 2
    return weights, work


def _two_bar_charts():
    figure, axes = subplots(2, sharey=True)
    for axis, values, name in zip(axes, parameters_and_work(), "AB", strict=True):
        axis.barh(LEVELS, values)
        axis.set(title=name, xticks=[], xlabel="amount")
    axes[0].invert_yaxis()
    return figure


def blocky(mask, block):
    """The mask in which every pixel gets the class of the majority of its block."""
    side = mask.shape[0] // block
    return (mask.reshape(side, block, side, block).mean((1, 3)) > 0.5).repeat(block, 0).repeat(block, 1)


def _the_best_blocks():
    figure, axes = subplots(2)
    mask = cells("val", length=1, size=64, seed=4, radius=(8.0, 12.0))[0].semantic == 1
    for axis, shown, title in zip(
        axes, (mask, blocky(mask, 8)), ("ground truth", "best coarse mask"), strict=True
    ):
        axis.imshow(shown, cmap="gray", extent=(0, 64, 64, 0))
        axis.set(title=title, xticks=range(0, 65, 16), yticks=range(0, 65, 16))
    return figure


FIGURES = {
    "03-q10": _an_edge,
    "03-q11": _three_initialisations,
    "03-q14": _two_bar_charts,
    "03-q15": _the_best_blocks,
}
