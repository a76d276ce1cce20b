"""The figures of this chapter's quiz, drawn when a question is shown."""

import json

import numpy as np

from course_lib import resources
from course_lib.plot import COLOURS
from course_lib.teaching import statistics
from course_lib.teaching.quiz_figures import subplots

DETECTORS = {  # right or wrong, the highest score first; 20 objects
    "A": [1] * 10,
    "B": [1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 1, 0, 1, 1, 1, 0, 1, 1, 0, 1, 1, 0, 1, 0, 1],
}


def _measured(claim):
    """The table of a claim's results, read without the ledger, which needs Keras."""
    path = resources.DATA / "results" / f"{claim}.json"
    return json.loads(path.read_text(encoding="utf-8"))["table"]


def _two_detectors():
    figure, axis = subplots()
    for (name, right), colour in zip(DETECTORS.items(), COLOURS[:2], strict=True):
        found = np.cumsum(right)
        precision, recall = found / np.arange(1, len(found) + 1), found / 20
        grid = np.linspace(0, 1, 401)
        best = [precision[recall >= r].max(initial=0) for r in grid]
        axis.plot(grid, best, "-" if name == "A" else "--", color=colour, label=f"detector {name}")
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.08))
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _five_losses():
    losses = _measured("6.4")["faults"]["background only"]["losses"]
    figure, axes = subplots(2, sharex=True, sharey=True)
    for axis, title, names in zip(
        axes,
        ("region proposal network", "the two heads"),
        (("objectness", "rpn_box_reg"), ("classifier", "box_reg", "mask")),
        strict=True,
    ):
        for name, style, colour in zip(names, ("o-", "s--", "^:"), COLOURS[2:], strict=False):
            curve = losses[f"loss_{name}"]
            axis.plot(
                range(1, 1 + len(curve)), curve, style, color=colour, label=name, linewidth=2, clip_on=False
            )
        axis.set(title=title, xlabel="epoch", ylim=(0, 0.45), xticks=range(1, 5))
        axis.legend()
    axes[0].set_ylabel("loss")
    return figure


def _a_batch():
    from matplotlib.patches import Rectangle
    from skimage.draw import ellipse

    rng = np.random.default_rng(3)
    figure, axes = subplots(3)
    cells = (  # row, column, half height, half width
        ((14, 12, 5, 9), (34, 46, 9, 6), (52, 18, 7, 6)),
        ((16, 48, 9, 6), (44, 14, 6, 10), (50, 50, 5, 5)),
        ((22, 13, 10, 7), (12, 40, 6, 8), (48, 44, 7, 11)),
    )
    for axis, listed in zip(axes, cells, strict=True):
        image = rng.normal(0.2, 0.05, (64, 64))
        for k, (row, column, high, wide) in enumerate(listed):
            mask = np.zeros((64, 64))
            mask[ellipse(row, column, high, wide)] = 1
            image += 0.5 * mask
            colour = ("cyan", "yellow", "magenta")[k]
            axis.contour(mask, [0.5], colors=[colour], linewidths=2)
            left = 63 - column - wide  # the mistake that the question is about
            axis.add_patch(
                Rectangle((left, row - high), 2 * wide, 2 * high, fill=False, edgecolor=colour, linewidth=1.5)
            )
        axis.imshow(image, vmin=0, vmax=1)
        axis.axis("off")
    return figure


def _best_anchors():
    rng = np.random.default_rng(5)
    sides = rng.uniform(8, 20, (300, 2))
    middles = rng.uniform(16, 112, (300, 2))
    objects = np.concatenate([middles - sides / 2, middles + sides / 2], axis=1)
    grid = np.stack(np.meshgrid(np.arange(0, 128, 8), np.arange(0, 128, 8)), axis=-1).reshape(-1, 2)
    best = np.zeros(len(objects))
    for ratio in (0.5, 1, 2):
        half = 16 * np.array([ratio**-0.5, ratio**0.5])
        low, high = grid - half, grid + half
        shared = np.prod(
            np.clip(np.minimum(high, objects[:, None, 2:]) - np.maximum(low, objects[:, None, :2]), 0, None),
            -1,
        )
        union = np.prod(2 * half) + np.prod(sides, axis=1)[:, None] - shared
        best = np.maximum(best, (shared / union).max(axis=1))
    figure, axis = subplots()
    axis.hist(best, np.linspace(0, 1, 41), color=COLOURS[0])
    axis.axvline(0.3, color="black", linestyle=":", linewidth=1.5)
    axis.axvline(0.7, color="black", linestyle="--", linewidth=1.5)
    axis.text(0.31, 55, "negative\nbelow 0.3", va="top")
    axis.text(0.71, 55, "positive\nfrom 0.7", va="top")
    axis.set(xlabel="IoU of an object with its best anchor", ylabel="objects", xlim=(0, 1), ylim=(0, 58))
    return figure


def paired_scores():
    """AP of two networks on the same 16 synthetic images, `(2, 16)`."""
    rng = np.random.default_rng(2)
    hard = rng.uniform(0.35, 0.95, 16)
    return np.clip(np.stack([hard + rng.normal(0.025, 0.02, 16), hard]), 0, 1)


def _paired():
    scores = paired_scores()
    figure, (left, right) = subplots(2)
    for k, one in enumerate(scores):
        found = statistics.bootstrap(one)
        left.plot([k, k], [found.low, found.high], color=COLOURS[k], linewidth=3)
        left.plot(k, found.mean, "o", color=COLOURS[k], markersize=9)
    left.set(xlim=(-0.6, 1.6), ylim=(0, 1), ylabel="mean AP, 95 % interval", xticks=(0, 1))
    left.set_xticklabels(["network A", "network B"])
    difference = scores[0] - scores[1]
    found = statistics.bootstrap(difference)
    right.axvspan(found.low, found.high, color="0.85")
    right.axvline(0, color="black", linewidth=1)
    right.plot(np.sort(difference), range(16), "o", color=COLOURS[2], markersize=5)
    right.set(xlabel="AP of A − AP of B", ylabel="images, sorted", yticks=())
    right.set_title("grey: 95 % interval of the mean", fontsize=10)
    return figure


def _sizes():
    bins = _measured("6.5")["bins"]
    figure, axis = subplots()
    for place, one in enumerate(bins.values()):
        mean, low, high = one["recall"]
        axis.plot([place, place], [low, high], color=COLOURS[0], linewidth=2)
        axis.plot(place, mean, "o", color=COLOURS[0], markersize=4)
    axis.set_xticks(range(len(bins)), [f"{name}\n{sum(one['objects'])}" for name, one in bins.items()])
    axis.set(
        ylabel="recall at IoU 0.5",
        ylim=(0.65, 1.02),
        xlabel="size of the objects in pixels, and how many there are",
    )
    return figure


FIGURES = {
    "07-q8": _two_detectors,
    "07-q9": _five_losses,
    "07-q10": _a_batch,
    "07-q13": _best_anchors,
    "07-q14": _paired,
    "07-q15": _sizes,
}
