"""The end of chapter 8: the portraits and the table of losses, and the forest plot of the great table."""

import inspect
from functools import lru_cache
from typing import NamedTuple

import keras
import numpy as np

from course_lib import losses
from course_lib.chapters.ch08_losses_and_metrics import great_table
from course_lib.plot import COLOURS
from course_lib.teaching.statistics import MARGIN

BLUE, ORANGE, GREEN = COLOURS[:3]
SIDE = 32
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE]
RADIUS = np.hypot(ROWS - 15.5, COLUMNS - 15.5)
OBJECTS = {"large object": RADIUS < 9.5, "small object": RADIUS < 2.5}
DISC = RADIUS < 6.5
LOGITS = np.linspace(-8, 8, 33)
RADII = np.linspace(0.5, 12, 47)


def value(loss: keras.losses.Loss, labels: np.ndarray, logits: np.ndarray) -> float:
    """A loss of one image: boolean labels and one logit per pixel, both `(height, width)`."""
    found = loss(labels[None].astype("int32"), logits[None, ..., None].astype("float32"))
    return float(keras.ops.convert_to_numpy(found))


@lru_cache
def pull(loss: keras.losses.Loss, kind: str) -> np.ndarray:
    """The size of the gradient with respect to the logit of one object pixel, at `LOGITS`, times the number of pixels.

    The pixel is the middle one of an object of `OBJECTS`; all other pixels are right, with logits of ±3.
    """
    truth, curve = OBJECTS[kind], []
    for z in LOGITS:
        logits = np.where(truth, 3.0, -3.0)
        logits[16, 16] = z
        curve.append(value(loss, truth, logits) * truth.size)
    return np.abs(np.gradient(curve, LOGITS))


@lru_cache
def cost(loss: keras.losses.Loss) -> tuple[np.ndarray, np.ndarray]:
    """The loss as a soft disc grows over a true one: predicted areas in pixels, and costs.

    The scale is the same for all losses: 0 is the lowest value on the way, 1 that of an empty prediction.
    """
    logits = [np.clip(2 * (radius - RADIUS), -8, 8) for radius in RADII]
    areas = np.array([np.sum(1 / (1 + np.exp(-z))) for z in logits])
    values = np.array([value(loss, DISC, z) for z in logits])
    empty = value(loss, DISC, np.full_like(RADIUS, -8.0))
    return areas, (values - values.min()) / (empty - values.min())


def draw_pull(axis, loss: keras.losses.Loss) -> None:
    """The gradient on one pixel, on the axes that all losses share."""
    for kind, style in zip(OBJECTS, ("-", "--"), strict=True):
        axis.semilogy(LOGITS, np.maximum(pull(loss, kind), 1e-4), style, color=ORANGE, lw=2.2)
    axis.set(xlim=(-7, 7), ylim=(3e-3, 1e2), yticks=[1e-2, 1, 1e2], xticks=[-7, 0, 7])
    axis.minorticks_off()
    axis.grid(alpha=0.3)


def draw_cost(axis, loss: keras.losses.Loss) -> None:
    """The cost of a predicted area, on the axes that all losses share; dotted the true area."""
    areas, costs = cost(loss)
    axis.plot(areas, costs, color=BLUE, lw=2.2)
    axis.plot(areas[costs.argmin()], 0, "o", color=BLUE, clip_on=False)
    axis.axvline(DISC.sum(), color="0.5", ls=":", lw=1.5)
    axis.set(xlim=(0, 400), ylim=(-0.05, 2), xticks=[0, 200, 400], yticks=[0, 1, 2])
    axis.grid(alpha=0.3)


def portraits(*names: str):
    """A column for each named loss of the table: its gradient on one pixel, and what a predicted area costs.

    All portraits share their axes.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(names), figsize=(4 * len(names), 6.4), sharey="row", squeeze=False)
    for name, above, below in zip(names, *axes, strict=True):
        loss = TABLE[name].loss
        draw_pull(above, loss)
        draw_cost(below, loss)
        above.set(title=name.replace("\n", " "), xlabel="logit of one object pixel")
        below.set_xlabel("predicted area (pixels)")
    axes[0, 0].set_ylabel("size of the gradient")
    axes[1, 0].set_ylabel("cost (1 = empty)")
    handles = [
        plt.Line2D([], [], color=ORANGE, ls=style, label=f"pixel of a {kind}")
        for kind, style in zip(OBJECTS, ("-", "--"), strict=True)
    ]
    handles.append(plt.Line2D([], [], color="0.5", ls=":", label="true area"))
    figure.legend(handles=handles, loc="outside upper left", ncols=3)
    return figure


# The table of losses


class Row(NamedTuple):
    """A loss as it stands in the table: the loss, its formula in Matplotlib's TeX, when to use it, and its paper."""

    loss: losses.SegmentationLoss
    formula: str
    when: str
    paper: str


TABLE = {
    "cross-entropy": Row(
        losses.CrossEntropy(),
        r"$-\,\frac{1}{N}\sum \log\,p_y$",
        "the start; classes of similar size",
        "Ronneberger\n2015, eq. 1",
    ),
    "weighted\ncross-entropy": Row(
        losses.WeightedCrossEntropy(),
        r"$-\,\frac{\sum w_y \,\log\,p_y}{\sum w_y}$",
        "missing the rare class is the\nworse error; masks get larger",
        "Sudre 2017, section 2",
    ),
    "focal": Row(
        losses.Focal(),
        r"$-\,\frac{1}{N}\sum \alpha_y\,(1-p_y)^\gamma\,\log\,p_y$",
        "many easy negatives; with α\nand the bias at the prior",
        "Lin 2017, eq. 5",
    ),
    "Dice": Row(
        losses.Dice(background=False),
        r"$1-\frac{2\,\sum p\,y + s}{\sum p + \sum y + s}$",
        "small foreground, scored by\nDice; rarely alone",
        "Milletari 2016",
    ),
    "cross-entropy\n+ Dice": Row(
        losses.CrossEntropy() + losses.Dice(background=False),
        "the sum of both",
        "the first choice in practice",
        "Isensee 2021\n(nnU-Net)",
    ),
    "generalised Dice": Row(
        losses.GeneralizedDice(),
        r"$1-\frac{2\,\sum_c w_c \sum p\,y + s}{\sum_c w_c\,(\sum p + \sum y) + s},\; w_c \propto (\sum y)^{-2}$",
        "many classes of very\ndifferent size",
        "Sudre 2017",
    ),
    "Jaccard (IoU)": Row(
        losses.Jaccard(background=False),
        r"$1-\frac{\sum p\,y + s}{\sum p + \sum y - \sum p\,y + s}$",
        "as Dice, if scored by IoU",
        "Rahman and\nWang 2016",
    ),
    "Lovász-softmax": Row(
        losses.LovaszSoftmax(background=False),
        r"$\sum_k e_k\,(\Delta_k - \Delta_{k-1})$, errors $e$ sorted,"
        "\n"
        r"$\Delta_k$ = 1 − IoU if the first $k$ were wrong",
        "fine-tuning for IoU\nafter cross-entropy",
        "Berman 2018",
    ),
    "Tversky": Row(
        losses.Tversky(background=False),
        r"$1-\frac{TP + s}{TP + \alpha\,FP + \beta\,FN + s}$",
        "missed and false pixels have\ndifferent prices (β and α)",
        "Salehi 2017",
    ),
    "focal Tversky": Row(
        losses.FocalTversky(background=False),
        r"$(1-TI)^{1/\gamma}$, TI the fraction above",
        "as Tversky; small lesions",
        "Abraham and\nKhan 2018",
    ),
    "boundary": Row(
        losses.Boundary(background=False),
        r"$\frac{1}{N}\sum p\,\varphi$, $\varphi$ the signed distance"
        "\n"
        "to the true outline",
        "beside Dice with a small factor,\nwhere the outline is scored",
        "Kervadec 2019",
    ),
}
"""The losses of the library as a practitioner looks them up."""


def defaults(loss: losses.SegmentationLoss) -> str:
    """The hyperparameters that a loss has of its own, one on a line, as they are if nothing is said; a dash for none."""
    if isinstance(loss, losses.WeightedSum):
        return "factors 1 and 1"
    given = inspect.signature(type(loss)).parameters
    own = [name for name in given if name not in ("ignore", "name", "background", "per_image", "classes")]
    values = {name: given[name].default for name in own}
    shown = {name: f"{x:.3g}" if isinstance(x, float) else x for name, x in values.items()}
    return "\n".join(f"{name}={x}" for name, x in shown.items()) or "–"


def draw_table():
    """The table of losses as one page: name, formula, two sketches, defaults, when, and reference."""
    import matplotlib.pyplot as plt

    columns = {
        "loss": 0.0,
        "formula": 0.12,
        "gradient": 0.385,
        "area": 0.475,
        "defaults here": 0.57,
        "when": 0.7,
        "reference": 0.9,
    }
    high = 1.08
    figure = plt.figure(figsize=(17, high * (len(TABLE) + 0.75)), layout="none")
    height = figure.get_size_inches()[1]
    for name, x in columns.items():
        figure.text(0.01 + 0.98 * x, 1 - 0.3 / height, name, fontsize=15, weight="bold", va="center")
    for line, (loss, row) in enumerate(TABLE.items()):
        top = 1 - (0.6 + high * line) / height
        middle = top - high / 2 / height
        if line % 2 == 0:
            stripe = (0, top - high / height), 1, high / height
            figure.add_artist(plt.Rectangle(*stripe, color="0.95", transform=figure.transFigure, zorder=-1))
        cells = {
            "loss": loss,
            "formula": row.formula,
            "defaults here": defaults(row.loss),
            "when": row.when,
            "reference": row.paper.replace(", ", ",\n"),
        }
        for name, words in cells.items():
            size = 19 if r"\frac" in words else 13
            size = 16 if r"\varphi" in words or "sum_c" in words else size
            weight = "bold" if name == "loss" else "normal"
            figure.text(0.01 + 0.98 * columns[name], middle, words, fontsize=size, weight=weight, va="center")
        for name, draw in (("gradient", draw_pull), ("area", draw_cost)):
            axis = figure.add_axes(
                (0.01 + 0.98 * columns[name], middle - 0.36 / height, 0.072, 0.72 / height), facecolor="white"
            )
            draw(axis, row.loss)
            axis.tick_params(labelbottom=False, labelleft=False, length=0)
            axis.spines[:].set_visible(True)
            axis.spines[:].set_color("0.7")
    return figure


# The forest plot


def draw_forest(pairs: dict[float, dict[str, great_table.Against]] | None = None):
    """IoU of each loss minus that of cross-entropy, a panel for each fraction of foreground, as far as there are runs.

    Args:
        pairs: as `great_table.against_cross_entropy` gives them; by default those of the committed runs.

    Returns:
        The Matplotlib figure. A dot is a seed, a diamond their mean with its 95 % interval, a hollow diamond the
        mean at probability 0.5; the grey band is what counts as no difference.
    """
    import matplotlib.pyplot as plt

    pairs = great_table.against_cross_entropy() if pairs is None else pairs
    colours = {"better": BLUE, "worse": ORANGE, "equivalent": GREEN}
    names = [great_table.LOSSES[loss][0] for loss in next(iter(pairs.values()))]
    figure, axes = plt.subplots(1, len(pairs), figsize=(14, 2 + 0.72 * len(names)), sharey=True)
    for axis, (fraction, of) in zip(axes, pairs.items(), strict=True):
        seen = [x for one in of.values() for x in (*one.differences, *one.at_half)]
        reach = max(1.5 * MARGIN, 1.1 * max(map(abs, seen), default=0))  # each panel has its own scale
        axis.axvspan(-MARGIN, MARGIN, color="0.92", label=f"within {MARGIN:g}: no difference that matters")
        axis.axvline(0, color="0.5", lw=1.2)
        for line, one in enumerate(of.values()):
            colour, seeds = colours.get(one.verdict, "0.35"), one.differences
            axis.plot(seeds, [line + 0.22] * len(seeds), "o", color=colour, ms=5, alpha=0.6)
            if one.at_half:
                axis.plot(np.mean(one.at_half), line + 0.22, "D", ms=8, mfc="none", mec="black", mew=1.3)
            if one.found:
                axis.plot([one.found["low"], one.found["high"]], [line, line], color=colour, lw=3)
                axis.plot(one.found["mean"], line, "D", color=colour, ms=7)
            axis.text(0, line - 0.28, one.verdict, ha="center", va="center", fontsize=12, color=colour)
        axis.set(
            xlim=(-reach, reach), ylim=(len(names) - 0.5, -0.6), xlabel="IoU minus that of cross-entropy"
        )
        axis.set_title(great_table.name_of(fraction))
        axis.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(names)), names)
    handles = [
        axes[0].get_legend_handles_labels()[0][0],
        plt.Line2D([], [], marker="D", color="0.35", lw=3, label="mean and 95 % interval"),
        plt.Line2D([], [], marker="o", color="0.35", ls="", alpha=0.6, label="one seed"),
        plt.Line2D([], [], marker="D", mfc="none", mec="black", ls="", label="mean at probability 0.5"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=12)
    return figure
