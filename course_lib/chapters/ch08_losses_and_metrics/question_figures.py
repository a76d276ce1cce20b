"""The figures of this chapter's quiz, drawn when a question is shown."""

import numpy as np

from course_lib.plot import COLOURS
from course_lib.teaching.quiz_figures import subplots

SIDE = 32
RADIUS = np.hypot(*(np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2))
DISC = RADIUS < 9.6


def cheapest_radius(loss):
    """The radius of the soft disc that costs least, for a function of the probabilities."""
    radii = np.arange(4, 16, 0.1)
    return radii[np.argmin([loss(1 / (1 + np.exp(RADIUS - r))) for r in radii])]


def cross_entropy(p):
    return -np.log(np.where(DISC, p, 1 - p)).mean()


def tversky(p, alpha, beta):
    hit, false, missed = p[DISC].sum(), p[~DISC].sum(), (1 - p[DISC]).sum()
    return 1 - hit / (hit + alpha * false + beta * missed)


def _cheapest_masks():
    figure, axes = subplots(3)
    for axis, letter, prices in zip(axes, "ABC", ((0.9, 0.1), (0.1, 0.9), (0.5, 0.5)), strict=True):
        radius = cheapest_radius(lambda p, prices=prices: tversky(p, *prices))
        axis.contourf(RADIUS, [0, radius], colors=["0.72"])
        axis.contour(RADIUS, [9.6], colors="black", linewidths=2)
        axis.set(title=letter, aspect="equal")
        axis.axis("off")
    return figure


def pull(loss, z, step=0.5):
    """The size of the gradient on the middle pixel's logit, times the number of pixels."""
    values = []
    for at in (z - step, z + step):
        logits = np.where(DISC, 3.0, -3.0)
        logits[SIDE // 2, SIDE // 2] = at
        values.append(loss(1 / (1 + np.exp(-logits))))
    return abs(values[1] - values[0]) / (2 * step) * DISC.size


def dice(p):
    return 1 - (2 * p[DISC].sum() + 1) / (p.sum() + DISC.sum() + 1)


def _two_gradients():
    figure, axis = subplots()
    logits = np.linspace(-7, 7, 57)
    for letter, loss, style, colour in (("A", cross_entropy, "-", COLOURS[0]), ("B", dice, "--", COLOURS[1])):
        axis.semilogy(logits, [pull(loss, z) for z in logits], style, color=colour, label=f"loss {letter}")
    axis.set(xlabel="logit of an object pixel", ylabel="gradient", xlim=(-7, 7), ylim=(3e-4, 4))
    axis.minorticks_off()
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def scores_of_images():
    """IoU of two networks on 40 synthetic images, `(2, 40)`, both with a mean of 0.80."""
    rng = np.random.default_rng(0)
    even = rng.normal(0, 0.03, 40)
    uneven = np.concatenate([rng.normal(0.86, 0.02, 36), rng.uniform(0.1, 0.3, 4)])
    return np.stack([even - even.mean(), uneven - uneven.mean()]) + 0.8


def _forty_images():
    figure, axis = subplots()
    for letter, scores, marker, colour in zip("AB", scores_of_images(), "os", COLOURS, strict=False):
        axis.plot(
            np.sort(scores),
            marker,
            color=colour,
            markersize=4,
            label=f"network {letter}\nmean {scores.mean():.2f}",
        )
    axis.set(xlabel="40 images, sorted", ylabel="IoU of the image", ylim=(0, 1), xticks=())
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def iou_at(thresholds):
    """IoU of two networks on synthetic pixels, a fifth of them object, at each threshold: `(2, thresholds)`."""
    rng = np.random.default_rng(1)
    truth = np.arange(20_000) < 4_000
    noise = rng.normal(0, 1, truth.size)
    curves = []
    for gap, shift in ((4.0, 0.0), (4.8, -1.8)):
        p = 1 / (1 + np.exp(-(np.where(truth, gap / 2, -gap / 2) + shift + noise)))
        curves.append([(truth & (p > t)).sum() / (truth | (p > t)).sum() for t in thresholds])
    return np.array(curves)


def _two_thresholds():
    figure, axis = subplots()
    thresholds = np.linspace(0.02, 0.98, 97)
    for letter, curve, style, colour in zip("AB", iou_at(thresholds), ("-", "--"), COLOURS, strict=False):
        axis.plot(thresholds, curve, style, color=colour, label=f"network {letter}")
    axis.axvline(0.5, color="grey", linestyle=":", linewidth=1.5)
    axis.set(xlabel="threshold", ylabel="IoU, validation set", xlim=(0, 1), ylim=(0, 1))
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _forest():
    figure, axis = subplots()
    axis.axvspan(-0.02, 0.02, color="0.88")
    axis.axvline(0, color="black", linewidth=1)
    for row, (mean, half) in enumerate(((-0.003, 0.012), (0.047, 0.019), (-0.012, 0.046), (-0.061, 0.026))):
        axis.plot([mean - half, mean + half], [row, row], color=COLOURS[0])
        axis.plot(mean, row, "D", color=COLOURS[0], markersize=8)
    axis.set_yticks(range(4), [f"loss {letter}" for letter in "ABCD"])
    axis.set_xticks([-0.1, -0.05, 0, 0.05, 0.1], [-0.1, -0.05, 0, 0.05, 0.1])
    axis.set(xlabel="IoU minus that of cross-entropy (grey: ±0.02)", xlim=(-0.1, 0.1), ylim=(3.5, -0.5))
    return figure


FIGURES = {
    "08-q9": _cheapest_masks,
    "08-q10": _two_gradients,
    "08-q12": _forty_images,
    "08-q14": _two_thresholds,
    "08-q15": _forest,
}
