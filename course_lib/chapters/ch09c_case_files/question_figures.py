"""The figures of chapter 9c's quiz. All images are synthetic."""

from functools import cache

import numpy as np
from matplotlib.patches import Patch
from scipy import ndimage
from skimage.segmentation import find_boundaries, watershed

from course_lib import plot
from course_lib.teaching.quiz_figures import image_row, subplots

BLUE, ORANGE, *_, RED = plot.COLOURS[:6]
SIDE = 128


def _iou(one, other):
    return (one & other).sum() / (one | other).sum()


def _tissue(seeds):
    """Instance map 1, 2, … of cells that fill the image: each pixel belongs to the nearest seed."""
    y, x = np.mgrid[:SIDE, :SIDE]
    return 1 + np.argmin([(y - row) ** 2 + (x - column) ** 2 for row, column in seeds], axis=0)


def copied_labels():
    """IoU of labels copied from a slice at a distance, for two stacks."""
    rng = np.random.default_rng(0)
    seeds, moves = rng.uniform(0, SIDE, (40, 2)), rng.normal(0, 2.5, (16, 40, 2))
    thin = [find_boundaries(_tissue(seeds + moves[:k].sum(0))) for k in range(16)]
    centres = rng.uniform(0, SIDE, (9, 2))
    y, x = np.mgrid[:SIDE, :SIDE]
    large = [
        np.min(
            [np.hypot(y - row, x - column) for row, column in centres + 0.3 * moves[:k, :9].sum(0)], axis=0
        )
        < 16
        for k in range(16)
    ]
    distances = range(1, 9)
    figure, axis = subplots(size=(6, 2.5))
    for stack, name, marker, colour in ((thin, "stack A", "o", BLUE), (large, "stack B", "s", ORANGE)):
        axis.plot(
            distances,
            [np.mean([_iou(stack[k], stack[k + d]) for k in range(16 - d)]) for d in distances],
            marker=marker,
            color=colour,
            label=name,
        )
    axis.set(xlabel="distance in slices", ylabel="IoU of copied labels", ylim=(0, 1), xticks=distances)
    axis.legend(loc="center right", bbox_to_anchor=(1, 0.6))
    return figure


def merges_and_splits():
    """Nine cells, and a prediction in which some are merged and some split."""
    rng = np.random.default_rng(4)
    grid = np.stack(np.meshgrid((21, 64, 107), (21, 64, 107), indexing="ij"), -1).reshape(-1, 2)
    truth = _tissue(grid + rng.uniform(-9, 9, (9, 2)))
    predicted = truth.copy()
    predicted[truth == 2] = 1
    predicted[truth == 9] = 6
    rows, columns = np.nonzero(truth == 7)
    predicted[rows[columns > columns.mean()], columns[columns > columns.mean()]] = 10
    shown = {}
    for title, labels in (("ground truth", truth), ("prediction", predicted)):
        walls = ndimage.binary_dilation(find_boundaries(labels, mode="inner"))
        shown[title] = np.where(walls, 0.15, 0.85)
    figure, axes = image_row(shown, size=(5.4, 2.8), vmin=0, vmax=1)
    for number in range(1, 10):
        row, column = ndimage.center_of_mass(truth == number)
        axes[0].text(column, row, "abcdefghi"[number - 1], ha="center", va="center")
    return figure


@cache
def _holes():
    """A tissue, the probability of cell with weak places in its membranes, and the Rand fractions over thresholds."""
    rng = np.random.default_rng(2)
    truth = _tissue(rng.uniform(0, SIDE, (30, 2)))
    membrane = ndimage.gaussian_filter(find_boundaries(truth).astype(float), 1)
    strength = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 4)
    strength = np.clip(0.85 + 0.35 * strength / strength.std(), 0.1, 1)
    texture = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 2)
    probability = 1 - np.clip(1.4 * membrane * strength + 0.06 * np.abs(texture) / texture.std(), 0, 1)
    thresholds, fractions = np.arange(0.3, 0.96, 0.05), []
    for threshold in thresholds:
        seeds, _ = ndimage.label(probability > threshold)
        found = watershed(-probability, seeds)
        pairs = np.zeros((truth.max() + 1, found.max() + 1))
        np.add.at(pairs, (truth.ravel(), found.ravel()), 1)
        both = (pairs**2).sum()
        fractions.append((both / (pairs.sum(0) ** 2).sum(), both / (pairs.sum(1) ** 2).sum()))
    return thresholds, np.array(fractions)


def thresholds():
    """The two fractions of pairs against the threshold from which a pixel is a seed."""
    at, fractions = _holes()
    figure, axis = subplots(size=(6, 2.6))
    for values, name, style, colour in (
        (fractions[:, 0], "predicted pairs that are right", "v-", BLUE),
        (fractions[:, 1], "true pairs that are kept", "^--", ORANGE),
    ):
        axis.plot(at, values, style, color=colour, label=name)
    axis.axvline(0.5, color="black", linestyle=":", linewidth=1.5)
    axis.set(xlabel="probability of cell from which a pixel is a seed", ylabel="fraction", ylim=(0, 1.05))
    axis.legend(loc="lower right", fontsize=10)
    return figure


def two_groups():
    """Predicted against bright area, both divided by the labelled area, for two groups of images."""
    rng = np.random.default_rng(5)
    figure, axis = subplots(size=(6, 2.7))
    for centre, count, name, marker, colour in (
        ((1.0, 1.0), 25, "group A", "o", BLUE),
        ((1.0, 0.7), 7, "group B", "s", ORANGE),
    ):
        points = rng.normal(centre, 0.03, (count, 2))
        axis.plot(*points.T, marker, color=colour, label=name, markersize=8, markeredgecolor="black")
    axis.plot([0.5, 1.15], [0.5, 1.15], color="black", linewidth=1, linestyle=":", label="equal")
    axis.set(xlim=(0.5, 1.15), ylim=(0.5, 1.15), ylabel="predicted area\n/ labelled area")
    axis.set_xlabel("bright area / labelled area (no network)")
    axis.legend(loc="upper left")
    return figure


def two_conventions():
    """IoU against the threshold for soft discs whose labels are drawn at the edge, or three pixels wider."""
    y, x = np.mgrid[-40:41, -40:41]
    at, radius = np.linspace(0.05, 0.95, 19), np.hypot(x, y)
    figure, axis = subplots(size=(6, 2.5))
    for wider, name, style, colour in (
        (0, "group A: 40 images", "o-", BLUE),
        (3, "group B: 10 images", "s--", ORANGE),
    ):
        ious = [
            np.mean([_iou(1 / (1 + np.exp((radius - r) / 2)) > t, radius < r + wider) for r in range(10, 20)])
            for t in at
        ]
        axis.plot(at, ious, style, color=colour, label=name, markersize=5)
    axis.set(xlabel="threshold of the probability of foreground", ylabel="mean IoU", ylim=(0.4, 1.02))
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=10)
    return figure


def shifted_pole():
    """A pole two pixels wide and a sign, predicted one pixel too far to the right."""
    truth = np.zeros((20, 32), bool)
    truth[2:18, 4:6] = True
    y, x = np.mgrid[:20, :32]
    truth |= np.hypot(y - 9.5, x - 20.5) < 8
    predicted = np.roll(truth, 1, axis=1)
    paint = np.array(
        [[int(c[k : k + 2], 16) / 255 for k in (1, 3, 5)] for c in ("#F0F0F0", "#999999", BLUE, RED)]
    )
    figure, axis = subplots(size=(6, 2.7))
    axis.imshow(paint[np.where(truth & predicted, 1, np.where(predicted, 2, np.where(truth, 3, 0)))])
    axis.set(xticks=np.arange(-0.5, 32), yticks=np.arange(-0.5, 20))
    axis.grid(color="white", linewidth=0.5)
    axis.tick_params(length=0, labelbottom=False, labelleft=False)
    handles = [
        Patch(color=c, label=n) for c, n in zip(paint[1:], ("right", "too much", "missed"), strict=True)
    ]
    figure.legend(handles=handles, loc="outside right center")
    return figure


def errors_by_distance():
    """Percentage of pixels and of errors by distance from the true boundary, for a prediction with two holes."""
    rng = np.random.default_rng(7)
    truth = _tissue(rng.uniform(0, SIDE, (16, 2)))
    edge = find_boundaries(truth)
    predicted = find_boundaries(
        ndimage.map_coordinates(truth, np.mgrid[:SIDE, :SIDE] + _wobble(rng), order=0, mode="nearest")
    )
    for row, column in np.argwhere(edge & (ndimage.gaussian_filter(edge.astype(float), 3) < 0.3))[::300]:
        predicted[row - 3 : row + 4, column - 3 : column + 4] = False  # a hole
    away = np.rint(ndimage.distance_transform_edt(~edge)).astype(int)
    wrong = edge != predicted
    bins = np.minimum(away, 4)
    figure, axis = subplots(size=(6, 2.5))
    for shift, mask, name, colour in (
        (-0.2, np.ones_like(edge), "of all pixels", BLUE),
        (0.2, wrong, "of all errors", ORANGE),
    ):
        heights = 100 * np.bincount(bins[mask], minlength=5) / mask.sum()
        axis.bar_label(
            axis.bar(np.arange(5) + shift, heights, 0.4, color=colour, label=name), fmt="%.0f", fontsize=10
        )
    axis.set_xticks(range(5), ["0", "1", "2", "3", "4 or more"])
    axis.set(xlabel="distance from the true boundary (pixels)", ylabel="%", ylim=(0, 90))
    axis.legend(loc="upper center")
    return figure


def _wobble(rng):
    """Displacements of about a pixel that change slowly over the image."""
    moves = ndimage.gaussian_filter(rng.normal(size=(2, SIDE, SIDE)), (0, 6, 6))
    return moves / moves.std()


FIGURES = {
    "09c-q5": copied_labels,
    "09c-q6": merges_and_splits,
    "09c-q7": thresholds,
    "09c-q11": two_groups,
    "09c-q12": two_conventions,
    "09c-q13": shifted_pole,
    "09c-q15": errors_by_distance,
}
