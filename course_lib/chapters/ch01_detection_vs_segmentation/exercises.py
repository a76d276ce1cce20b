"""Exercises to chapter 01: boxes, their overlap, non-maximum suppression, run lengths, the price of a sloppy click."""

from __future__ import annotations

import numpy as np

from course_lib.ops import by_hand
from course_lib.teaching.exercise import Case, Exercise, Form, Mistake, array, number, rows

# 01.1


def _mask(height, width, pixels):
    mask = np.zeros((height, width), bool)
    for part in pixels:
        mask[part] = True
    return mask


def box_from_mask(mask):
    row, column = np.nonzero(mask)
    return np.array([column.min(), row.min(), column.max() + 1, row.max() + 1])


def _box_cases():
    yield Case("a mask with one pixel, row 1, column 3", (_mask(5, 6, [(1, 3)]),))
    yield Case("a block of rows 1 to 3 and columns 2 to 5", (_mask(6, 9, [np.s_[1:4, 2:6]]),))
    yield Case("a mask that fills the picture", (np.ones((3, 7), bool),))
    yield Case("two pixels in opposite corners", (_mask(6, 8, [(0, 7), (5, 0)]),))
    yield Case("an L of three pixels", (_mask(9, 5, [np.s_[6:8, 1], (7, 2)]),))


BOX_FROM_MASK = Exercise(
    "01.1",
    "box_from_mask",
    array("four numbers x1, y1, x2, y2"),
    lambda: list(_box_cases()),
    box_from_mask,
    (
        Mistake(
            "Your box is one pixel too small on the far edges: x2 and y2 are exclusive, so they lie "
            "one behind the "
            "last column and row.",
            lambda m: box_from_mask(m) - [0, 0, 1, 1],
        ),
        Mistake(
            "Rows and columns are exchanged: an array is indexed row first, a box says x, the column, first.",
            lambda m: box_from_mask(m)[[1, 0, 3, 2]],
        ),
        Mistake(
            "Rows and columns are exchanged, and the far edges are one pixel too small.",
            lambda m: (box_from_mask(m) - [0, 0, 1, 1])[[1, 0, 3, 2]],
        ),
        Mistake(
            "You return x, y, width, height, as COCO does; here a box is x1, y1, x2, y2.",
            lambda m: box_from_mask(m) - [0, 0, *box_from_mask(m)[:2]],
        ),
        Mistake(
            "The numbers are right but in the order x1, x2, y1, y2; a box is x1, y1, x2, y2.",
            lambda m: box_from_mask(m)[[0, 2, 1, 3]],
        ),
        Mistake(
            "Your box is one pixel too large on the near edges: x1 and y1 are the first column and "
            "row that hold a pixel.",
            lambda m: box_from_mask(m) - [1, 1, 0, 0],
        ),
        Mistake(
            "You measure the far edges from the far side of the picture: count x2 and y2 from the "
            "left and from the top.",
            lambda m: np.array([*box_from_mask(m)[:2], *(m.shape[::-1] - box_from_mask(m)[2:])]),
        ),
    ),
    (
        "Which columns hold a pixel at all? mask.any(axis=0) says it for each column.",
        "np.flatnonzero gives the numbers of these columns; the first of them is x1.",
        "A box around a single pixel in column 3 goes from 3 to 4: so x2 is the last column plus 1. "
        "The same for rows and y.",
    ),
)

# 01.2


def _box_iou_with(shared_of=None, union_of=None):
    """An IoU of two boxes with one of its steps done wrongly."""

    def answer(a, b):
        a, b = np.asarray(a, float), np.asarray(b, float)
        width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
        area_a, area_b = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
        shared = shared_of(width, height) if shared_of else max(width, 0) * max(height, 0)
        return shared / (union_of(area_a, area_b, shared, a, b) if union_of else area_a + area_b - shared)

    return answer


def _inclusive_iou(a, b):
    width, height = (max(min(a[k + 2], b[k + 2]) - max(a[k], b[k]) + 1, 0) for k in (0, 1))
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def _hull(area_a, area_b, shared, a, b):
    width, height = np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2])
    return width * height


BOX_IOU = Exercise(
    "01.2",
    "box_iou",
    number("a number, the IoU"),
    lambda: [
        Case("the boxes (2, 1, 6, 4) and (4, 2, 9, 5)", ([2, 1, 6, 4], [4, 2, 9, 5])),
        Case("a box and itself", ([3, 3, 8, 5], [3, 3, 8, 5])),
        Case("a box within another", ([0, 0, 10, 10], [2, 3, 6, 8])),
        Case("two boxes apart in x only", ([0, 0, 4, 4], [6, 1, 9, 3])),
        Case("two boxes apart in x and in y", ([0, 0, 4, 4], [7, 6, 9, 11])),
        Case("two boxes that touch along a side", ([0, 0, 4, 4], [4, 0, 8, 4])),
        Case("edges between the pixels", ([0.5, 0.0, 2.0, 1.5], [1.25, 0.25, 3.0, 1.0])),
    ],
    by_hand.iou,
    (
        Mistake(
            "Your union counts the overlap twice: the sum of both areas holds it once too often. Subtract it.",
            _box_iou_with(union_of=lambda a, b, shared, *_: a + b),
        ),
        Mistake(
            "Boxes apart in x and in y get an overlap: there both lengths are negative and their "
            "product is positive. "
            "Set a negative length to 0 before you multiply.",
            _box_iou_with(shared_of=lambda w, h: w * h if w < 0 and h < 0 else max(w, 0) * max(h, 0)),
        ),
        Mistake(
            "Boxes that do not meet get a wrong answer: a negative width or height means no overlap. "
            "Set it to 0.",
            _box_iou_with(shared_of=lambda w, h: w * h),
        ),
        Mistake(
            "Your widths are one too large: x2 is exclusive, so the width is x2 - x1, without + 1.",
            _inclusive_iou,
        ),
        Mistake(
            "That is Dice, twice the overlap over the sum of the areas; IoU divides the overlap by the union.",
            _box_iou_with(
                shared_of=lambda w, h: 2 * max(w, 0) * max(h, 0), union_of=lambda a, b, shared, *_: a + b
            ),
        ),
        Mistake(
            "You divide by the area of the smaller box, so a box within another gets 1; divide by the union.",
            _box_iou_with(union_of=lambda a, b, *_: min(a, b)),
        ),
        Mistake(
            "You divide by the area of the first box only; divide by the union, so that the order "
            "does not matter.",
            _box_iou_with(union_of=lambda a, b, *_: a),
        ),
        Mistake(
            "You divide by the box around both; the union is smaller: both areas minus the overlap.",
            _box_iou_with(union_of=_hull),
        ),
    ),
    (
        "The overlap begins where the later box begins, and ends where the earlier one ends.",
        "Its width is min(a[2], b[2]) - max(a[0], b[0]). What does a negative width mean?",
        "The union is area a + area b - overlap.",
    ),
)

# 01.3


def box_share(length, width, degrees):
    angle = np.deg2rad(degrees)
    c, s = abs(np.cos(angle)), abs(np.sin(angle))
    return length * width / ((length * c + width * s) * (length * s + width * c))


def _box_share_with(
    degrees_of=lambda d: d, shape=lambda a, b, c, s: (a * c + b * s, a * s + b * c), part=1.0
):
    def answer(length, width, degrees):
        angle = np.deg2rad(degrees_of(degrees))
        box = shape(length, width, abs(np.cos(angle)), abs(np.sin(angle)))
        return part * length * width / (box[0] * box[1])

    return answer


def _share_without_abs(length, width, degrees):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return length * width / ((length * c + width * s) * (length * s + width * c))


BOX_SHARE = Exercise(
    "01.3",
    "box_share",
    number("a number, the share of the box that the rectangle fills"),
    lambda: [
        Case("a rectangle of 8 by 2 that lies flat", (8, 2, 0)),
        Case("one of 8 by 2, turned by 45 degrees", (8, 2, 45)),
        Case("one of 8 by 2 that stands upright, turned by 90 degrees", (8, 2, 90)),
        Case("a square of 5, turned by 30 degrees", (5, 5, 30)),
        Case("one of 8 by 2, turned by 120 degrees", (8, 2, 120)),
        Case("one of 6 by 1, turned by 20 degrees", (6, 1, 20)),
    ],
    box_share,
    (
        Mistake(
            "np.cos and np.sin want radians; you gave them degrees. np.deg2rad turns one into the other.",
            _box_share_with(degrees_of=np.rad2deg),
        ),
        Mistake(
            "Beyond 90 degrees a cosine is negative, and a length never is: take the absolute value.",
            _share_without_abs,
        ),
        Mistake(
            "Your answer does not change when the rectangle is turned; its box does.",
            lambda length, width, degrees: 1.0,
        ),
        Mistake(
            "That is an ellipse: a rectangle has corners, and its box is length · cos + width · sin wide.",
            _box_share_with(
                shape=lambda a, b, c, s: (np.hypot(a * c, b * s), np.hypot(a * s, b * c)), part=np.pi / 4
            ),
        ),
        Mistake(
            "The box is only as wide as the long side reaches; the short side reaches outwards too: "
            "length · cos + width · sin.",
            _box_share_with(shape=lambda a, b, c, s: (a * c, a * s)),
        ),
        Mistake(
            "You take the box for a square: its height is another number, length · sin + width · cos.",
            _box_share_with(shape=lambda a, b, c, s: (a * c + b * s, a * c + b * s)),
        ),
        Mistake(
            "You give how many times larger the box is; the share is the other way round: the "
            "object's area over the box's.",
            lambda length, width, degrees: 1 / box_share(length, width, degrees),
        ),
    ),
    (
        "Draw it: how far does the long side reach to the right, how far the short side?",
        "The box is length · |cos| + width · |sin| wide. Its height is the same with cos and sin exchanged.",
        "The area of the rectangle does not change; divide length · width by the area of the box.",
    ),
)

# 01.4


def _iou(a, b):
    return by_hand.iou(a, b)


def _nms_with(order_of=None, too_close=None, against="kept"):
    def answer(boxes, scores, limit):
        order = order_of(scores) if order_of else np.argsort(-np.asarray(scores), kind="stable")
        close = too_close or (lambda overlap, limit: overlap > limit)
        kept, seen = [], []
        for row in order:
            rivals = {"kept": kept, "seen": seen, "last": kept[-1:]}[against]
            if not any(close(_iou(boxes[row], boxes[other]), limit) for other in rivals):
                kept.append(int(row))
            seen.append(int(row))
        return kept

    return answer


_nms = _nms_with()
_CHAIN = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10], [40, 0, 50, 10]], float)
_NMS_ROWS = "a list of rows, the best box first"


def _nms_cases():
    chain = [0.9, 0.8, 0.7, 0.6]
    yield Case("three boxes that hardly meet", (_CHAIN[[3, 0, 2]], [0.3, 0.9, 0.5], 0.5))
    yield Case("the same box twice", (_CHAIN[[0, 0, 3]], [0.6, 0.7, 0.65], 0.5))
    yield Case("a chain of three boxes, of which the first and the last do not meet", (_CHAIN, chain, 0.3))
    yield Case(
        "five boxes in no order",
        (
            np.array(
                [[40, 2, 52, 12], [0, 0, 10, 10], [41, 1, 50, 12], [2, 0, 12, 10], [80, 0, 90, 9]], float
            ),
            [0.2, 0.75, 0.95, 0.9, 0.5],
            0.3,
        ),
    )
    yield Case(
        "two boxes whose IoU is the limit itself, which is not above it",
        (np.array([[0, 0, 4, 4], [0, 0, 4, 2]], float), [0.9, 0.8], 0.5),
    )
    yield Case(
        "two near copies of a box, with another between them by score",
        (np.array([[0, 0, 10, 10], [50, 50, 60, 60], [1, 0, 11, 10]], float), [0.9, 0.8, 0.7], 0.3),
    )
    yield Case(
        "no box at all", (np.zeros((0, 4)), [], 0.5), "A picture without a detection is common: answer []."
    )


def _nms_boxes(boxes, scores, limit):
    return np.asarray(boxes)[_nms(boxes, scores, limit)]


NMS = Exercise(
    "01.4",
    "nms",
    rows(_NMS_ROWS),
    lambda: list(_nms_cases()),
    _nms,
    (
        Mistake(
            "Your NMS compares with boxes that were already suppressed: only a box that is kept may "
            "suppress another.",
            _nms_with(against="seen"),
        ),
        Mistake(
            "You go through the boxes in the order of the list; the box with the highest score comes first.",
            _nms_with(order_of=lambda scores: range(len(scores))),
        ),
        Mistake(
            "You begin with the lowest score: np.argsort sorts upwards. Sort by -scores.",
            _nms_with(order_of=lambda scores: np.argsort(scores, kind="stable")),
        ),
        Mistake(
            "A box whose IoU is exactly the limit stays: only what is above the limit is suppressed.",
            _nms_with(too_close=lambda overlap, limit: overlap >= limit),
        ),
        Mistake(
            "You compare a box with the one kept last only; compare it with every box that is kept.",
            _nms_with(against="last"),
        ),
        Mistake(
            "The right boxes, but sorted by row; the best box comes first.",
            lambda boxes, scores, limit: sorted(_nms(boxes, scores, limit)),
        ),
        Mistake(
            "Your comparison is the wrong way round: a box goes if its IoU with a kept one is above the limit.",
            _nms_with(too_close=lambda overlap, limit: overlap < limit),
        ),
        Mistake(
            "You return the boxes; return their rows, so that scores and classes can be looked up too.",
            _nms_boxes,
        ),
    ),
    (
        "np.argsort(-scores) gives the rows from the best to the worst.",
        "Keep a list. A row joins it unless its box overlaps too much with a box in that list.",
        "IoU above the limit suppresses. Whatever is suppressed is forgotten: it must not suppress "
        "in its turn.",
    ),
)

# 01.5


def run_lengths(mask, order="F"):
    counts, current = [0], False
    for pixel in np.asarray(mask, bool).ravel(order=order):
        if pixel != current:
            counts.append(0)
            current = pixel
        counts[-1] += 1
    return counts


def _runs_from_the_first_pixel(mask):
    counts = run_lengths(mask)
    return counts if counts[0] else counts[1:]


RUN_LENGTHS = Exercise(
    "01.5",
    "run_lengths",
    rows("a list of run lengths"),
    lambda: [
        Case("the row 0 0 1 1 1 0", (np.array([[0, 0, 1, 1, 1, 0]], bool),)),
        Case("a block in a mask of 4 by 5", (_mask(4, 5, [np.s_[1:3, 1:4]]),)),
        Case("a mask whose first pixel is on", (_mask(3, 4, [(0, 0), (1, 0), (2, 3)]),)),
        Case("a mask that is all on", (np.ones((2, 3), bool),)),
        Case("an empty mask", (np.zeros((3, 3), bool),)),
    ],
    run_lengths,
    (
        Mistake(
            "You go along the rows; COCO's run lengths go down the columns, mask.ravel(order='F').",
            lambda m: run_lengths(m, "C"),
        ),
        Mistake(
            "The first run has to be one of off pixels, of length 0 if the first pixel is on: "
            "otherwise nobody knows "
            "what the runs mean.",
            _runs_from_the_first_pixel,
        ),
        Mistake(
            "The last run is missing: no change ends it, the end of the mask does.",
            lambda m: run_lengths(m)[:-1],
        ),
        Mistake(
            "You list only the runs of on pixels; the off ones between them say where they are.",
            lambda m: run_lengths(m)[1::2],
        ),
        Mistake(
            "You give where the runs end; a run length is how far that is from the end before.",
            lambda m: np.cumsum(run_lengths(m)),
        ),
    ),
    (
        "Make one line of the mask first: mask.ravel(order='F') goes down the columns.",
        "Walk along the line with a counter; at each change of value write it down and begin a new one.",
        "Begin with the value off. If the first pixel is on, the first run has the length 0. Write "
        "the last run down too.",
    ),
)

# 01.6, the open one


def _mean_iou_with(noise):
    def answer(side, sigma, trials, rng):
        box = np.array([0, 0, side, side], float)
        return np.mean([_iou(box, box + noise(rng, sigma, side)) for _ in range(trials)])

    return answer


mean_iou_of_clicks = _mean_iou_with(lambda rng, sigma, side: rng.normal(0, sigma, 4))


def _same_clicks_each_time(function):
    first, second = (float(function(20, 2.0, 200, np.random.default_rng(seed))) for seed in (5, 6))
    if first == second:
        return (
            "Two different generators give the very same number: draw from the rng that is given, "
            "not from one of your own."
        )
    return None


CLICKS = Exercise(
    "01.6",
    "mean_iou_of_clicks",
    Form("a number, the mean IoU", lambda a, b: bool(np.allclose(a, b, rtol=0, atol=0.03, equal_nan=True))),
    lambda: [
        Case(
            f"a box of {side} pixels and clicks that scatter by {sigma}",
            (side, sigma, 800, np.random.default_rng(1)),
        )
        for side, sigma in ((20, 0.0), (20, 2.0), (100, 2.0), (100, 10.0), (40, 1.0))
    ],
    mean_iou_of_clicks,
    (
        Mistake(
            "Only one corner scatters; both corners were clicked, so all four edges do.",
            _mean_iou_with(lambda rng, sigma, side: np.append([0, 0], rng.normal(0, sigma, 2))),
        ),
        Mistake(
            "rng.normal wants the standard deviation sigma, not its square and not its root.",
            _mean_iou_with(lambda rng, sigma, side: rng.normal(0, sigma**2, 4)),
        ),
        Mistake(
            "rng.normal wants the standard deviation sigma, not its square and not its root.",
            _mean_iou_with(lambda rng, sigma, side: rng.normal(0, np.sqrt(sigma), 4)),
        ),
        Mistake(
            "The scatter is in pixels, the same for a small box and a large one; yours grows with the side.",
            _mean_iou_with(lambda rng, sigma, side: rng.normal(0, sigma * side / 20, 4)),
        ),
        Mistake(
            "You return the loss of IoU; return the mean IoU itself, 1 for clicks without scatter.",
            lambda *arguments: 1 - mean_iou_of_clicks(*arguments),
        ),
    ),
    (
        "rng.normal(0, sigma, 4) scatters the four edges; add it to [0, 0, side, side].",
        "Take the IoU with the true box, trials times, and return the mean.",
    ),
    _same_clicks_each_time,
)

EXERCISES = (BOX_FROM_MASK, BOX_IOU, BOX_SHARE, NMS, RUN_LENGTHS, CLICKS)
