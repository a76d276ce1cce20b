"""The figures of this chapter's quiz, drawn when a question is shown."""

import numpy as np

from course_lib.ops import by_hand
from course_lib.plot import COLOURS
from course_lib.teaching.quiz_figures import subplots

OBJECTS = np.array([[20, 14, 60, 62], [128, 34, 148, 48]])
ANCHORS = {"A": (16, 16, 60, 60), "B": (28, 26, 72, 70), "C": (50, 6, 94, 50), "D": (118, 24, 150, 56)}


def _four_anchors():
    from matplotlib.patches import Rectangle

    figure, axis = subplots()
    for x1, y1, x2, y2 in OBJECTS:
        axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, color="0.75"))
    iou = [max(by_hand.iou(anchor, box) for box in OBJECTS) for anchor in ANCHORS.values()]
    for k, (name, (x1, y1, x2, y2)) in enumerate(ANCHORS.items()):
        colour = COLOURS[(0, 5, 2, 3)[k]]
        axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=2.5))
        x, y, side = {"A": (x1 - 2, 38, "right"), "B": (x2 + 2, y2 - 5, "left")}.get(
            name, (x2, y1 - 4, "right")
        )
        axis.text(x, y, f"{name}: IoU {iou[k]:.2f}", color=colour, ha=side, va="center", fontweight="bold")
    axis.set(xlim=(-22, 156), ylim=(72, -2), aspect="equal")
    axis.axis("off")
    return figure


def _reading_of_a_moving_region():
    figure, axis = subplots()
    ramp = np.tile(np.arange(24.0), (24, 1))[..., None]
    edges = np.linspace(5, 7, 81)
    boxes = [(x, 5, x + 6.4, 11.4) for x in edges]
    correct = edges + 6.4 / 4 / 2 - 0.5  # a location's value lies in its middle
    axis.plot(edges, correct, "k:", label="correct value")
    for name, read in (
        ("A", lambda box: by_hand.roi_pool(ramp, box, 4, 1.0)),
        ("B", lambda box: by_hand.roi_align(ramp, box, 4, 1.0)),
    ):
        values = np.array([read(box)[0, 0, 0] for box in boxes])
        values[np.append(False, np.abs(np.diff(values)) > 0.5)] = np.nan  # a jump is no line
        axis.plot(edges, values, color=COLOURS["AB".index(name)], label=f"method {name}")
    axis.set(xlabel="left edge of the region (locations)", ylabel="value of its first cell", xlim=(5, 7))
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _six_masks():
    y, x = np.mgrid[-1.2:1.2:28j, -1.2:1.2:28j]
    radius, angle = np.hypot(y, x), np.arctan2(y, x)
    shapes = {  # how far a pixel lies inside each class's shape
        "as disc": 1.05 - radius,
        "as ring": 0.28 - np.abs(radius - 0.75),
        "as star": 0.65 + 0.3 * np.cos(5 * angle) - radius,
    }
    logits = 10 * np.stack(list(shapes.values())) + np.array([0, 1.5, 0])[:, None, None]
    scores = np.exp(logits)
    rows = {"A": 1 / (1 + np.exp(-logits)), "B": scores / (1 + scores.sum(axis=0))}  # 1: background
    figure, axes = subplots(3, 2)
    for (letter, masks), row in zip(rows.items(), axes, strict=True):
        row[0].text(-10, 14, letter, fontsize=15, fontweight="bold", va="center")
        for axis, name, mask in zip(row, shapes, masks, strict=True):
            shown = axis.imshow(mask, cmap="viridis", vmin=0, vmax=1)
            axis.set_title(name if letter == "A" else "")
            axis.axis("off")
    figure.colorbar(shown, ax=axes, label="probability", shrink=0.9, ticks=[0, 1])
    return figure


def _four_steps():
    parts = ("backbone", "FPN", "RPN", "box head", "mask head")
    changed = {"A": (1, 1, 1, 0, 0), "B": (1, 1, 0, 1, 0), "C": (1, 1, 1, 0, 1), "D": (1, 1, 0, 0, 1)}
    figure, axis = subplots()
    for row, marks in enumerate(changed.values()):
        for column, mark in enumerate(marks):
            axis.plot(
                column, row, "s", markersize=16, color=COLOURS[0] if mark else "white", markeredgecolor="0.4"
            )
    axis.set_xticks(range(5), parts)
    axis.set_yticks(range(4), changed)
    axis.set(xlim=(-0.6, 4.6), ylim=(3.6, -0.6), title="filled: its weights changed in the step")
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return figure


FIGURES = {
    "06-q8": _four_anchors,
    "06-q11": _reading_of_a_moving_region,
    "06-q13": _six_masks,
    "06-q14": _four_steps,
}
