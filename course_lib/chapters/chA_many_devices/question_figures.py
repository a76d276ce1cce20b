"""The figures of the appendix's quiz."""

import numpy as np

from course_lib import plot
from course_lib.teaching.quiz_figures import subplots

BLUE, ORANGE = plot.COLOURS[:2]


def _pixels():
    """Sixteen images of 64 pixels with three features each, and labels that the features explain in part."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(16, 64, 3)).astype(np.float32)
    fraction = rng.uniform(-2.5, 0.5, (16, 1))  # images differ in how much foreground they have
    labels = features @ [1.0, -1.0, 0.5] + fraction + rng.normal(size=(16, 64)) > 0
    return features, labels.astype(np.float32)


def _dice(weights, features, labels):
    """Soft Dice loss of a linear model on some images, and its gradient."""
    p = 1 / (1 + np.exp(-(features @ weights)))
    overlap, area = 2 * (p * labels).sum(), p.sum() + labels.sum()
    slope = -(2 * labels * area - overlap) / area**2 * p * (1 - p)
    return 1 - overlap / area, np.tensordot(slope, features, 2)


def _entropy(weights, features, labels):
    """Cross-entropy of the same model, and its gradient."""
    p = 1 / (1 + np.exp(-(features @ weights)))
    loss = -np.mean(labels * np.log(p) + (1 - labels) * np.log(1 - p))
    return loss, np.tensordot((p - labels) / p.size, features, 2)


def _mean_of_shards(loss, weights, features, labels, shards):
    parts = zip(np.split(features, shards), np.split(labels, shards), strict=True)
    return np.mean([loss(weights, *part)[1] for part in parts], axis=0)


def shard_sizes():
    """How far the mean of the shards' gradients is from that of the batch, against the shard's size, for two losses."""
    features, labels = _pixels()
    weights, sizes = np.full(3, 0.1, np.float32), (1, 2, 4, 8)
    figure, axis = subplots(size=(6, 2.5))
    for loss, name, marker, colour in ((_entropy, "loss A", "o", BLUE), (_dice, "loss B", "s", ORANGE)):
        whole = loss(weights, features, labels)[1]
        off = [
            np.linalg.norm(_mean_of_shards(loss, weights, features, labels, 16 // size) - whole)
            / np.linalg.norm(whole)
            for size in sizes
        ]
        axis.semilogy(sizes, off, marker=marker, color=colour, label=name)
    axis.set(
        xscale="log", xlabel="images in each shard (the batch has 16)", ylabel="distance from\nthe gradient"
    )
    axis.set(ylim=(1e-8, 1), yticks=[1e-8, 1e-6, 1e-4, 1e-2, 1])
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.minorticks_off()
    axis.legend(loc="center right", bbox_to_anchor=(1, 0.5))
    return figure


def ring():
    """How many gradients each piece sums on each of four devices: at the start, and after two messages."""
    counts = np.ones((4, 4), int)
    states = [counts.copy()]
    for turn in range(2):
        moved = [(device, (device - turn) % 4) for device in range(4)]
        sent = [counts[device, piece] for device, piece in moved]
        for (device, piece), count in zip(moved, sent, strict=True):
            counts[(device + 1) % 4, piece] += count
        states.append(counts.copy())
    figure, axes = subplots(2, size=(5.6, 2.6))
    for axis, shown, title in (
        (axes[0], states[0], "start"),
        (axes[1], states[2], "after two messages each"),
    ):
        axis.imshow(shown, cmap="Blues", vmin=0, vmax=5)
        for (row, column), count in np.ndenumerate(shown):
            axis.text(column, row, count, ha="center", va="center")
        axis.set(title=title, xticks=range(4), yticks=range(4), xlabel="piece", ylabel="device")
    return figure


def _over_devices(devices):
    figure, axis = subplots(size=(6, 2.5))
    axis.set(xscale="log", xlabel="devices")
    axis.set_xticks(devices[::2], [str(n) for n in devices[::2]])
    axis.minorticks_off()
    return figure, axis


def two_clusters():
    """Efficiency of two clusters against the number of devices."""
    devices = 2 ** np.arange(11)

    def efficiency(bandwidth, latency, compute=0.1, size=2e8, overlap=0.5):
        sending = 2 * (devices - 1) / devices * size / bandwidth + 2 * (devices - 1) * latency
        return compute / (compute + np.maximum(0, sending - overlap * compute))

    figure, axis = _over_devices(devices)
    axis.plot(devices, 100 * efficiency(2.5e9, 1e-6), "o-", color=BLUE, label="cluster A")
    axis.plot(devices, 100 * efficiency(1e11, 2e-4), "s--", color=ORANGE, label="cluster B")
    axis.set(ylabel="efficiency (%)", ylim=(0, 108))
    axis.legend(loc="lower left")
    return figure


def speed_up():
    """Speed-up against the number of devices, which levels off at a dotted line."""
    devices, serial = 2 ** np.arange(11), 0.05
    figure, axis = _over_devices(devices)
    axis.plot(devices, 1 / (serial + (1 - serial) / devices), "o-", color=BLUE)
    axis.axhline(1 / serial, color="black", linestyle=":", linewidth=1.5)
    axis.set(ylabel="speed-up", ylim=(0, 22), yticks=range(0, 25, 5))
    return figure


def two_checks():
    """Difference of the losses of one and of eight devices over the steps, for two programs."""
    features, labels = _pixels()

    def sums(weights, features, labels):
        """Of what Dice is made: overlap and areas, and the derivatives of both."""
        p = 1 / (1 + np.exp(-(features @ weights)))
        slope = p * (1 - p)
        of_overlap, of_area = (np.tensordot(part, features, 2) for part in (2 * slope * labels, slope))
        return 2 * (p * labels).sum(), p.sum() + labels.sum(), of_overlap, of_area

    def dice(overlap, area, of_overlap, of_area):
        return 1 - overlap / area, (overlap * of_area - area * of_overlap) / area**2

    def one(weights):
        return dice(*sums(weights, features, labels))

    def parts(weights):
        return [sums(weights, *part) for part in zip(np.split(features, 8), np.split(labels, 8), strict=True)]

    def added(weights):  # the sums of the shards, and only then the ratio
        return dice(*(sum(column) for column in zip(*parts(weights), strict=True)))

    def averaged(weights):  # the mean of eight ratios
        return (
            np.mean(column, axis=0) for column in zip(*(dice(*part) for part in parts(weights)), strict=True)
        )

    def losses(step, steps=30):
        weights, seen = np.full(3, 0.1, np.float32), []
        for _ in range(steps):
            loss, gradient = step(weights)
            seen.append(float(loss))
            weights = (weights - 2 * gradient).astype(np.float32)
        return np.array(seen)

    figure, axis = subplots(size=(6, 2.5))
    for step, name, marker, colour in ((added, "program A", "o", BLUE), (averaged, "program B", "s", ORANGE)):
        off = np.abs(losses(step) - losses(one))
        at = np.flatnonzero(off)
        axis.semilogy(1 + at, off[at], marker, color=colour, label=name, markersize=5)
    axis.set(xlabel="step (no dot: difference exactly 0)", ylabel="difference of losses,\n1 and 8 devices")
    axis.set(ylim=(1e-9, 1), yticks=[1e-8, 1e-6, 1e-4, 1e-2, 1])
    axis.legend(loc="center right", bbox_to_anchor=(1, 0.5))
    return figure


FIGURES = {"A-q6": shard_sizes, "A-q9": ring, "A-q10": two_clusters, "A-q11": speed_up, "A-q13": two_checks}
