"""The figures of chapter 9b's quiz."""

import numpy as np
from matplotlib.patheffects import withStroke
from scipy.special import ndtr
from skimage.filters import gaussian
from skimage.measure import find_contours
from skimage.transform import resize

from course_lib import datasets, plot
from course_lib.teaching.quiz_figures import image_row, subplots

BLUE, ORANGE = plot.COLOURS[:2]
HALO = [withStroke(linewidth=4, foreground="black")]


def resized_labels():
    """A label map of classes 1 and 5 before and after it was resized by linear interpolation, with its numbers."""
    labels = np.ones((4, 6), int)
    labels[1:3, 2:4] = 5
    larger = np.rint(resize(labels.astype(float), (8, 12), order=1, preserve_range=True)).astype(int)
    figure, axes = subplots(2, size=(6, 2.3), width_ratios=(6, 12))
    for axis, shown, title in zip(axes, (labels, larger), ("label file", "after resizing"), strict=True):
        axis.imshow(shown, cmap="Blues", vmin=0, vmax=8, aspect="equal")
        for (row, column), value in np.ndenumerate(shown):
            axis.text(column, row, value, ha="center", va="center", fontsize=9)
        axis.set_title(title)
        axis.axis("off")
    return figure


def dishes():
    """IoU of five dishes against their contrast, each with its range of radii."""
    made = zip("abcde", ((4, 6), (5, 7), (6, 9), (7, 10), (9, 13)), (0.8, 0.6, 0.45, 0.3, 0.2), strict=True)
    figure, axis = subplots(size=(6, 2.5))
    for k, (dish, radius, contrast) in enumerate(made):
        ious = []
        for sample in datasets.cells(
            length=2, size=(96, 128), seed=21 + k, radius=radius, contrast=contrast, noise=0.02, density=0.25
        ):
            found, truth = gaussian(sample.image[..., 0], 1) > 0.2, sample.semantic == 1
            ious.append((found & truth).sum() / (found | truth).sum())
        axis.plot(contrast, np.mean(ious), "o", color=BLUE, markersize=9)
        axis.annotate(
            f"{dish}: radius {radius[0]}–{radius[1]}",
            (contrast, np.mean(ious)),
            (0, -16),
            textcoords="offset points",
            ha="center",
            fontsize=10,
        )
    axis.set(xlabel="contrast of the dish", ylabel="IoU of its cells", xlim=(0.1, 0.9), ylim=(0.2, 1))
    return figure


def two_inputs():
    """Histograms of one image as it enters the network in training and in another program."""
    image = datasets.cells(length=1, size=128, seed=3, contrast=0.25, noise=0.02)[0].image
    low, high = np.percentile(image, (1, 99.8))
    figure, axes = subplots(2, size=(6, 2.3), sharex=True)
    for axis, values, title in (
        (axes[0], np.clip((image - low) / (high - low), 0, 1), "in training"),
        (axes[1], image, "in the other program"),
    ):
        axis.hist(values.ravel(), np.linspace(0, 1, 51), color=BLUE)
        axis.set(xlabel="value that enters the network", title=title, yticks=[], xlim=(0, 1))
    axes[0].set_ylabel("pixels")
    return figure


def weighted():
    """Precision against recall: one network at all thresholds, and two networks at threshold 0.5."""
    rare, shift, z = 0.02, 2.2, np.linspace(-4, 7, 2000)  # scores: N(0, 1), for the rare class N(shift, 1)

    def above(z):
        found, false = rare * ndtr(shift - z), (1 - rare) * ndtr(-z)
        return found / rare, found / (found + false)

    def threshold(
        weight,
    ):  # where weight · rare class = the other one, as the loss with this weight learns it
        return shift / 2 + np.log((1 - rare) / (rare * weight)) / shift

    figure, axis = subplots(size=(6, 2.6))
    axis.plot(*above(z), color=BLUE, label="network 1 (weight 1), all thresholds")
    for weight, marker, colour in ((1, "o", BLUE), (20, "s", ORANGE)):
        axis.plot(
            *above(threshold(weight)),
            marker,
            color=colour,
            markersize=10,
            markeredgecolor="black",
            label=f"network {1 if weight == 1 else 2} (weight {weight}) at 0.5",
        )
    axis.set(xlabel="recall of the rare class", ylabel="precision", xlim=(0, 1), ylim=(0, 1.05))
    axis.legend(fontsize=10, loc="upper right")
    return figure


def outlines():
    """A synthetic scene, and the same with the outlines that a conversion read from its annotations."""
    sample = datasets.scenes(
        length=1, size=96, seed=4, objects=3, object_size=(22.0, 50.0), occlusion=0.0, contrast=0.5, thin=0.2
    )[0]
    shown = dict.fromkeys(("image", "outlines after the conversion"), sample.image)
    figure, axes = image_row(shown, size=(5.4, 2.7))
    for number in range(1, sample.instances.max() + 1):
        rows, columns = max(find_contours(sample.instances == number, 0.5), key=len).T
        axes[1].plot(rows, columns, color="white", linewidth=2, path_effects=HALO)  # x and y exchanged
    axes[1].set(xlim=axes[0].get_xlim(), ylim=axes[0].get_ylim())
    return figure


def ring():
    """A ring as it is in the image, and the polygon of its outline filled."""
    y, x = np.mgrid[-50:51, -50:51]
    radius = np.hypot(x, y)
    masks = {"ground truth": (radius < 40) & (radius >= 20), "polygon, filled": radius < 40}
    shown = {title: np.where(mask, 0.75, 0.1) for title, mask in masks.items()}
    figure, axes = image_row(shown, size=(5.2, 2.6), vmin=0, vmax=1)
    for end, name, height in ((40, "40", 46), (20, "20 pixels", -46)):
        axes[0].plot([50, 50 + end], [50 + height] * 2, color=ORANGE, linewidth=3)
        axes[0].text(52 + end, 50 + height, name, color="white", va="center", fontsize=10)
    return figure


FIGURES = {
    "09b-q6": resized_labels,
    "09b-q9": dishes,
    "09b-q10": two_inputs,
    "09b-q12": weighted,
    "09b-q13": outlines,
    "09b-q14": ring,
}
