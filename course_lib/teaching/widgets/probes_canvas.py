"""What the widget of the probes computes and draws: what the linear probe of each level says of one pixel."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from course_lib.teaching.widgets.canvas import (
    BLACK,
    BLUE,
    COLOURS,
    DARK,
    GREEN,
    GREY,
    ORANGE,
    WHITE,
    Answer,
    Canvas,
    Plane,
)

WIDTH, HEIGHT, LEFT, TOP, SIDE = 900, 430, 15, 30, 385
"""Of the canvas, and where the image lies on it."""
LEVEL_COLOURS = [COLOURS[k % len(COLOURS)] for k in (1, 3, 4, 5, 6, 2, 0)]

# The image may be shown smaller than it is, with a margin to keep its proportions. The two number boxes are row and
# column; a change of theirs is what a person typing would make.
CLICK = (
    f"const r = this.getBoundingClientRect(), s = Math.min(r.width / {WIDTH}, r.height / {HEIGHT});"
    f"const at = (v, far, start) => Math.floor(((v - far) / s - start) * SIDE / {SIDE});"
    f"const x = at(event.clientX, r.left + (r.width - {WIDTH} * s) / 2, {LEFT});"
    f"const y = at(event.clientY, r.top + (r.height - {HEIGHT} * s) / 2, {TOP});"
    "if (x < 0 || y < 0 || x >= COLUMNS || y >= ROWS) return;"
    "const boxes = this.closest('.widget-vbox').querySelectorAll('input[type=number]');"
    "[y, x].forEach((v, k) => {boxes[k].value = v; boxes[k].dispatchEvent(new Event('change', {bubbles: true}))});"
)


def click(rows: int, columns: int) -> str:
    """JavaScript that sets row and column where the image, of so many pixels, is clicked."""
    known = {"SIDE": max(rows, columns), "ROWS": rows, "COLUMNS": columns}
    return re.sub("|".join(known), lambda found: str(known[found[0]]), CLICK)


def probes_answer(
    image: np.ndarray,
    scores: Mapping[str, np.ndarray],
    labels: np.ndarray,
    names: Sequence[str],
    row: int,
    column: int,
) -> Answer:
    """What each level says of one pixel.

    Args:
        image: `(height, width, 1 or 3)` in 0..1.
        scores: name of the level → what its probe gives, `(height / stride, width / stride, classes)`.
        labels: `(height, width)`, the class of each pixel from 0, -1 where it has none.
        names: of the classes.
        row, column: the pixel.

    Returns:
        The answer; its numbers are `row`, `column` and `label` of the pixel and, by level, `said` (the class with the
        highest score) and `scores`.
    """
    read = {}
    for level, one in scores.items():
        stride = len(labels) // len(one)
        read[level] = np.asarray(one[row // stride, column // stride], float)
    said = {level: int(one.argmax()) for level, one in read.items()}
    label = int(labels[row, column])
    truth = names[label] if label >= 0 else "background, which the probes do not know"
    words = f"Row {row}, column {column}; ground truth: {truth}. " + ", ".join(
        f"{level.replace('_', ' ')} says {names[kind]} ({read[level][kind]:.2f})"
        for level, kind in said.items()
    )
    numbers = {"row": row, "column": column, "label": label, "said": said, "scores": read}
    return Answer(numbers, words + ".", _draw(image, scores, names, numbers))


def _draw(image, scores, names, numbers: dict) -> Canvas:
    row, column = numbers["row"], numbers["column"]
    canvas = Canvas(WIDTH, HEIGHT)
    side = max(np.shape(image)[:2])
    plane = Plane(canvas, LEFT, TOP, SIDE / side)
    picture = np.broadcast_to(image, (*np.shape(image)[:2], 3))
    canvas.image(picture, (*plane.at(0, 0), *plane.at(picture.shape[1], picture.shape[0])))
    canvas.text(LEFT, 14, "click on a pixel; frames: the block that one feature stands for", 13, DARK)
    first = 545
    width = (WIDTH - first - 5) / len(names)
    for k, name in enumerate(names):
        true = k == numbers["label"]
        x = first + k * width
        canvas.text(x, 30, name, 14 if width > 62 else 11, GREEN if true else DARK, bold=true)
    step = min(330 / len(scores), 80)
    for k, (level, one) in reversed(list(enumerate(scores.items()))):  # the largest block below the others
        stride = picture.shape[0] // len(one)
        colour = LEVEL_COLOURS[k % len(LEVEL_COLOURS)]
        y1, x1 = row // stride * stride, column // stride * stride
        outer = (x1 - 0.15, y1 - 0.15, x1 + stride + 0.15, y1 + stride + 0.15)
        plane.box(outer, edge=BLACK, width=5)
        plane.box(outer, edge=colour, width=3)
        y = 55 + (k + 0.5) * step
        canvas.box((415, y - 8, 427, y + 8), fill=colour)
        canvas.text(433, y, level.replace("_", " "), 14)
        read = numbers["scores"][level]
        for kind, value in enumerate(read):
            x, best = first + kind * width, kind == numbers["said"][level]
            judged = BLUE if numbers["label"] < 0 else GREEN if kind == numbers["label"] else ORANGE
            canvas.bar(
                (x, y - 9, x + width - 8, y + 9), float(np.clip(value, 0, 1)), colour=judged if best else GREY
            )
            if best and width > 40:
                ink = WHITE if value > 0.6 else BLACK
                canvas.text(x + 4, y, f"{value:.2f}", 13, ink, bold=True)
    canvas.text(
        415, HEIGHT - 14, "highest score: green if right, orange if wrong, blue on the background", 13, DARK
    )
    return canvas
