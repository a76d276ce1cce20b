"""What the widgets of boxes compute and draw: two boxes and how well they agree; anchors and what they fit."""

from collections.abc import Sequence

import keras
import numpy as np

from course_lib import metrics
from course_lib.ops.anchors import base_anchors, grid_anchors
from course_lib.ops.boxes import box_area, box_giou, box_intersection, box_iou
from course_lib.teaching.widgets.canvas import (
    BLACK,
    BLUE,
    DARK,
    GREEN,
    GREY,
    ORANGE,
    WHITE,
    Answer,
    Canvas,
    Plane,
)

COLUMNS, ROWS = 16, 10
"""Squares of the grid on which the two boxes lie."""


def boxes_answer(a: Sequence[int], b: Sequence[int]) -> Answer:
    """Two boxes on a grid, the squares they share, and IoU, GIoU and Dice.

    Args:
        a, b: `x1, y1, x2, y2` in squares, far edges exclusive, within 16 × 10.

    Returns:
        The answer; its numbers are `IoU`, `GIoU`, `Dice`, and the counts of squares `both`, `any` and `around`.

    Raises:
        ValueError: if a box reaches out of the grid or its edges are exchanged.
    """
    for name, (x1, y1, x2, y2) in (("a", a), ("b", b)):
        if not (0 <= x1 <= x2 <= COLUMNS and 0 <= y1 <= y2 <= ROWS):
            raise ValueError(
                f"{name} is {(x1, y1, x2, y2)}; give x1 ≤ x2 within 0..{COLUMNS} and y1 ≤ y2 within 0..{ROWS}."
            )
    one, other = np.array([a], "float32"), np.array([b], "float32")
    both = round(_number(box_intersection(one, other)))
    area_a, area_b = (round(_number(box_area(box))) for box in (one, other))
    edges = np.concatenate([np.minimum(a[:2], b[:2]), np.maximum(a[2:], b[2:])])
    around = int(np.prod(edges[2:] - edges[:2]))
    numbers = {
        "IoU": _number(box_iou(one, other)),
        "GIoU": _number(box_giou(one, other)),
        # As box_iou does, and not as masks do: two empty boxes match nothing.
        "Dice": float(metrics.dice(_squares(a), _squares(b))) if area_a or area_b else 0.0,
        "both": both,
        "any": area_a + area_b - both,
        "around": around,
    }
    return Answer(numbers, _boxes_words(numbers, area_a, area_b), _draw_boxes(a, b, edges, numbers))


def _number(tensor) -> float:
    return float(keras.ops.convert_to_numpy(tensor).reshape(()))


def _squares(box: Sequence[int]) -> np.ndarray:
    """The box as a mask, bool `(ROWS, COLUMNS)`."""
    x1, y1, x2, y2 = box
    mask = np.zeros((ROWS, COLUMNS), bool)
    mask[y1:y2, x1:x2] = True
    return mask


def _boxes_words(numbers: dict, area_a: int, area_b: int) -> str:
    both, some, around = numbers["both"], numbers["any"], numbers["around"]
    if not area_a or not area_b:
        return "A box is empty: it has no area and matches nothing."
    return (
        f"Both boxes hold {both} squares, at least one holds {some}: IoU = {both} / {some} = {numbers['IoU']:.3f}. "
        f"The smallest box around both has {around} squares, {around - some} of them in neither: "
        f"GIoU = {numbers['IoU']:.3f} − {around - some} / {around} = {numbers['GIoU']:.3f}. "
        f"Dice = 2 · {both} / ({area_a} + {area_b}) = {numbers['Dice']:.3f}."
    ).replace("= -", "= −")


def _draw_boxes(a: Sequence[int], b: Sequence[int], edges: np.ndarray, numbers: dict) -> Canvas:
    canvas = Canvas(900, 390)
    plane = Plane(canvas, 30, 36, 33)
    canvas.text(30, 16, "box a: blue and green     box b: orange and green     dashed: around both", 14, DARK)
    mask_a, mask_b = _squares(a), _squares(b)
    for row, column in np.argwhere(mask_a | mask_b):
        colour = (
            GREEN if mask_a[row, column] and mask_b[row, column] else BLUE if mask_a[row, column] else ORANGE
        )
        plane.box((column, row, column + 1, row + 1), fill=colour)
    plane.grid(COLUMNS, ROWS, every=2)
    plane.box(a, edge=BLUE, width=4)
    plane.box(b, edge=ORANGE, width=4)
    plane.box(edges + np.array([-0.1, -0.1, 0.1, 0.1]), edge=BLACK, width=2, dash=8)
    left, right = 590, 880
    for place, name in enumerate(("IoU", "GIoU", "Dice")):
        y = 90 + 100 * place
        canvas.text(left, y - 22, name, 19, bold=True)
        canvas.text(right, y - 22, f"{numbers[name]:.3f}".replace("-", "−"), 19, at="rm")
        canvas.bar((left, y, right, y + 20), numbers[name], (-1, 1), GREEN)
    middle = (left + right) / 2
    canvas.line([(middle, 84), (middle, 316)], DARK, 1.5)
    for x, tick in ((left, "−1"), (middle, "0"), (right, "1")):
        canvas.text(x, 332, tick, 14, DARK, at="mm")
    return canvas


# Anchors


def anchors_answer(
    image: np.ndarray,
    boxes: np.ndarray,
    side: float,
    ratio: float,
    stride: int,
    three: bool = False,
    names: Sequence[str] = (),
    high: float = 0.7,
    low: float = 0.3,
) -> Answer:
    """Anchors of one side and shape at all positions of a map, and how well the best of them fits each object.

    Args:
        image: float `(height, width, 1 or 3)` in 0..1.
        boxes: the objects, `(n, 4)` in pixels.
        side: root of the anchors' area, in pixels.
        ratio: height / width.
        stride: pixels from one position of the map to the next.
        three: whether there are also square anchors and ones of 1 / `ratio`.
        names: of the objects; numbers by default.
        high: from this IoU on an anchor counts as an object in training.
        low: below this IoU it counts as background.

    Returns:
        The answer; its numbers are `anchors`, how many there are, `best`, the highest IoU of each object `(n,)`, and
        `matched`, how many objects reach `high`.
    """
    ratios = sorted({ratio, 1.0, 1 / ratio}) if three else [ratio]
    places = image.shape[0] // stride, image.shape[1] // stride
    base = base_anchors(side, ratios)
    everywhere = grid_anchors(base, places, (stride, stride))
    overlaps = keras.ops.convert_to_numpy(box_iou(np.asarray(boxes, np.float32), everywhere))
    best = overlaps.max(1)
    numbers = {"anchors": len(everywhere), "best": best, "matched": int((best >= high).sum())}
    shapes = f"{len(ratios)} shape{'s' if len(ratios) > 1 else ''}"
    words = (
        f"{places[0]} × {places[1]} positions × {shapes} = {len(everywhere):,} anchors of side {side:.0f}, height / width "
        f"{', '.join(f'{one:.2f}' for one in ratios)}. {numbers['matched']} of {len(boxes)} objects have one with an IoU "
        f"of at least {high:g}; for {(best < low).sum()} even the best stays below {low:g}."
    )
    canvas = Canvas(900, 420)
    _draw_anchors(canvas, image, boxes, base, everywhere[overlaps.argmax(1)], places, stride)
    _draw_best(canvas, boxes, best, names, high, low)
    return Answer(numbers, words, canvas)


def _draw_anchors(
    canvas: Canvas,
    image: np.ndarray,
    boxes: np.ndarray,
    base: np.ndarray,
    fitting: np.ndarray,
    places: tuple[int, int],
    stride: int,
) -> None:
    """The image with its positions and objects, the anchors of the middle position, and each object's best anchor."""
    height, width = image.shape[:2]
    side, top = 385, 28
    unit = side / (1.2 * max(height, width))  # anchors reach beyond the image
    plane = Plane(canvas, 15 + (side - unit * width) / 2, top + (side - unit * height) / 2, unit)
    pale = 0.6 + 0.4 * (image[..., 0] if image.shape[-1] == 1 else image)  # so that the frames stand out
    canvas.image(pale, (*plane.at(0, 0), *plane.at(width, height)))
    for row in range(places[0]):
        for column in range(places[1]):
            plane.dot(column * stride, row * stride, 1, DARK)
    for number, (box, anchor) in enumerate(zip(boxes, fitting, strict=True), start=1):
        plane.box(box, edge=BLACK, width=2)
        plane.box(anchor, edge=BLUE, width=2.5, dash=6)
        canvas.text(*plane.at(*(box[:2] + 1)), str(number), 14, BLACK, "la", True)
    middle = np.array([places[1] // 2, places[0] // 2] * 2) * stride
    for anchor in base + middle:
        plane.box(anchor, edge=ORANGE, width=4)
    # What reaches beyond the panel is cut off.
    for margin in (
        (0, 0, 15, canvas.height),
        (15 + side, 0, canvas.width, canvas.height),
        (0, 0, canvas.width, top),
        (0, top + side, canvas.width, canvas.height),
    ):
        canvas.box(margin, fill=WHITE)
    canvas.text(15, 14, "black: objects   blue: best anchor   orange: one position", 13, DARK)


def _draw_best(
    canvas: Canvas, boxes: np.ndarray, best: np.ndarray, names: Sequence[str], high: float, low: float
) -> None:
    """A bar for each object: the IoU of its best anchor."""
    left, right, top, bottom = 610, 830, 52, 395
    step = min((bottom - top) / len(boxes), 40)
    canvas.text(430, 14, "IoU of the best anchor", 16, bold=True)
    for place, (box, overlap) in enumerate(zip(boxes, best, strict=True)):
        y = top + step * (place + 0.5)
        name = f"{place + 1} {names[place]}" if len(names) else f"object {place + 1}"
        canvas.text(430, y, name, 14)
        canvas.text(600, y, f"{box[2] - box[0]:.0f} × {box[3] - box[1]:.0f}", 13, DARK, at="rm")
        colour = GREEN if overlap >= high else GREY if overlap >= low else ORANGE
        canvas.bar((left, y - 0.3 * step, right, y + 0.3 * step), overlap, colour=colour)
        canvas.text(885, y, f"{overlap:.2f}", 15, at="rm")
    for limit in (low, high):
        x = left + limit * (right - left)
        canvas.line([(x, top - 6), (x, top + step * len(boxes))], BLACK, 1.5, dash=4)
        canvas.text(x, top - 9, f"{limit:g}", 13, DARK, at="ms")
