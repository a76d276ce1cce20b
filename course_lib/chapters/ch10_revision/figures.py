"""The figures of the revision, drawn from `data/results` alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from course_lib.chapters.ch10_revision.revision import MARKS, SUMMARY, Entry
from course_lib.plot import COLOURS
from course_lib.teaching.ledger import Result, interval

KIND_COLOURS = {
    "demonstrated": "white",
    "supported": COLOURS[0],
    "supported when": COLOURS[4],
    "equivalent": COLOURS[2],
    "contradicted": COLOURS[1],
    "undecided": "0.85",
    "not measured yet": "0.95",
}
"""The colour of each kind of verdict; its mark says the same without colour."""


def draw_verdicts(entries: Sequence[Entry], width: float = 12.0):
    """All claims at a glance: a row for each topic, a tile for each claim, its mark and colour the verdict.

    Args:
        entries: as `revision.ledger` gives them.
        width: of the figure in inches.

    Returns:
        The Matplotlib figure.
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle

    topics = sorted({entry.claim[0] for entry in entries})
    most = max(sum(entry.claim[0] == topic for entry in entries) for topic in topics)
    figure, axis = plt.subplots(figsize=(width, 0.62 * len(topics) + 1.4))
    for row, topic in enumerate(topics):
        axis.text(-0.1, row, SUMMARY[int(topic) - 1].topic, ha="right", va="center", fontsize=14)
        for column, entry in enumerate(entry for entry in entries if entry.claim[0] == topic):
            dark = entry.kind == "supported"
            axis.add_patch(
                Rectangle(
                    (column + 0.03, row - 0.44),
                    0.94,
                    0.88,
                    facecolor=KIND_COLOURS[entry.kind],
                    edgecolor="0.25",
                )
            )
            axis.text(
                column + 0.5,
                row,
                f"{MARKS[entry.kind]}  {entry.claim}",
                ha="center",
                va="center",
                fontsize=15,
                color="white" if dark else "black",
            )
    counts = {kind: sum(entry.kind == kind for entry in entries) for kind in MARKS}
    shown = [kind for kind in MARKS if counts[kind]]
    handles = [Rectangle((0, 0), 1, 1, facecolor=KIND_COLOURS[kind], edgecolor="0.25") for kind in shown]
    words = {"supported when": "supported when …"}
    labels = [f"{MARKS[kind]} {words.get(kind, kind)}: {counts[kind]}" for kind in shown]
    figure.legend(handles, labels, loc="outside lower center", ncols=len(shown), fontsize=14)
    axis.set(xlim=(-2.2, most + 0.02), ylim=(len(topics) - 0.5, -0.5))
    axis.axis("off")
    axis.set_title(f"The {len(entries)} claims, and what was found")
    return figure


class Gap(NamedTuple):
    """How a loss compares with the best one at a fraction of foreground.

    Attributes:
        mean: its mean IoU over the seeds.
        behind: mean of its IoU minus that of the loss with the best mean, seed by seed; 0 for that loss itself.
        open: whether it may be as good: the 95 % interval of that difference contains 0.
    """

    mean: float
    behind: float
    open: bool


def loss_gaps(result: Result, measure: str = "iou") -> dict[str, dict[float, Gap]]:
    """Loss → fraction of foreground → how far it is behind the best one there, from the table of claims 7.4 to 7.6.

    Args:
        result: of claim 7.4, 7.5 or 7.6, which have one table.
        measure: `"iou"`, with the threshold 0.5, or `"iou_chosen"`, with one chosen for each network.

    Raises:
        ValueError: if the result has no such table.
    """
    if "losses" not in result.table or measure not in result.table:
        raise ValueError(
            f"claim {result.claim} has no table of losses with {measure!r}; it must be 7.4, 7.5 or 7.6, with iou "
            "or iou_chosen."
        )
    gaps: dict[str, dict[float, Gap]] = {name: {} for name in result.table["losses"]}
    for share in result.table["shares"]:
        values = {name: np.array(result.table[measure][name][str(share)]) for name in gaps}
        best = max(values, key=lambda name: values[name].mean())
        for name in gaps:
            behind = interval(values[name] - values[best])
            gaps[name][share] = Gap(float(values[name].mean()), behind.mean, behind.high >= 0)
    return gaps


def draw_losses(result: Result, width: float = 13.0):
    """How far each loss is behind the best one, over the fraction of foreground, with the threshold 0.5 and a chosen one.

    Pale is the best mean, dark is far behind. A dot marks the losses that the runs have not shown to be worse than the
    best. They are sorted by how far they are behind in total at the threshold 0.5, the least first.

    Args:
        result: of claim 7.4, 7.5 or 7.6, which have one table.
        width: of the figure in inches.

    Returns:
        The Matplotlib figure.
    """
    import matplotlib.pyplot as plt

    panels = {
        "threshold 0.5": loss_gaps(result),
        "threshold chosen for each network": loss_gaps(result, "iou_chosen"),
    }
    first, shares = next(iter(panels.values())), result.table["shares"]
    order = sorted(first, key=lambda name: -sum(gap.behind for gap in first[name].values()))
    deepest = min(gap.behind for gaps in panels.values() for one in gaps.values() for gap in one.values())
    figure, axes = plt.subplots(1, 2, figsize=(width, 0.56 * len(order) + 1.6), sharey=True)
    for axis, (title, gaps) in zip(axes, panels.items(), strict=True):
        behind = np.array([[gaps[name][share].behind for share in shares] for name in order])
        # Half as deep again as the deepest: the numbers stay legible on it.
        image = axis.imshow(-behind, cmap="Oranges", vmin=0, vmax=-1.5 * deepest or 1, aspect="auto")
        for (row, column), value in np.ndenumerate(behind):
            gap = gaps[order[row]][shares[column]]
            words = f"{gap.mean:.2f} best" if value == 0 else f"−{-value:.3f}"
            axis.text(column, row, words + (" •" if gap.open else ""), ha="center", va="center", fontsize=13)
        axis.set_xticks(range(len(shares)), [f"{100 * share:g} %" for share in shares])
        axis.set(title=title, xlabel="foreground (fraction of the pixels)")
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    axes[0].set_yticks(range(len(order)), order)
    bar = figure.colorbar(image, ax=axes, pad=0.01, fraction=0.03, label="IoU behind the best")
    bar.ax.set_ylim(0, -deepest or 1)
    return figure
