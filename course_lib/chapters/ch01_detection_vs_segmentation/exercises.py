"""Exercises of chapter 01: boxes, their overlap, non-maximum suppression, run lengths, the price of a careless click."""

from functools import partial

import numpy as np

from course_lib.ops import by_hand
from course_lib.teaching.exercise import Case, Exercise, Form, array, number, rows, varied

# 01.1


def _mask(height, width, *parts):
    mask = np.zeros((height, width), bool)
    for part in parts:
        mask[part] = True
    return mask


def box_from_mask(mask):
    row, column = np.nonzero(mask)
    return np.array([column.min(), row.min(), column.max() + 1, row.max() + 1])


BOX_FROM_MASK = Exercise(
    number="01.1",
    name="box_from_mask",
    form=array("four numbers x1, y1, x2, y2"),
    answer=box_from_mask,
    cases=[
        Case("a mask with one pixel, at row 1, column 3", _mask(5, 6, (1, 3))),
        Case("a block of rows 1 to 3 and columns 2 to 5", _mask(6, 9, np.s_[1:4, 2:6])),
        Case("a mask that fills the image", np.ones((3, 7), bool)),
        Case("two pixels in opposite corners", _mask(6, 8, (0, 7), (5, 0))),
        Case("an L of three pixels", _mask(9, 5, np.s_[6:8, 1], (7, 2))),
    ],
    mistakes={
        "Your box is one pixel too small at the right and bottom edges: x2 and y2 are exclusive, one "
        "beyond the last column and row.": lambda m: box_from_mask(m) - [0, 0, 1, 1],
        "Rows and columns are swapped: an array is indexed row first, a box begins with x, the column.": (
            lambda m: box_from_mask(m)[[1, 0, 3, 2]]
        ),
        "Rows and columns are swapped, and the right and bottom edges are one pixel too small.": (
            lambda m: (box_from_mask(m) - [0, 0, 1, 1])[[1, 0, 3, 2]]
        ),
        "You return x, y, width, height, as COCO does; here a box is x1, y1, x2, y2.": (
            lambda m: box_from_mask(m) - [0, 0, *box_from_mask(m)[:2]]
        ),
        "The numbers are correct, but in the order x1, x2, y1, y2; a box is x1, y1, x2, y2.": (
            lambda m: box_from_mask(m)[[0, 2, 1, 3]]
        ),
        "Your box is one pixel too large at the left and top edges: x1 and y1 are the first column and "
        "row with a pixel.": (lambda m: box_from_mask(m) - [1, 1, 0, 0]),
        "You measure the right and bottom edges from the far side of the image: count x2 from the left "
        "and y2 from the top.": (
            lambda m: np.array([*box_from_mask(m)[:2], *(m.shape[::-1] - box_from_mask(m)[2:])])
        ),
    },
    hints=[
        "Which columns contain a pixel of the mask at all? mask.any(axis=0) tells you for each column.",
        "np.flatnonzero gives the indices of these columns; the first of them is x1.",
        "A box around a single pixel in column 3 goes from 3 to 4, so x2 is the last column plus 1. The "
        "same holds for rows.",
    ],
)

# 01.2


def _areas(*boxes):
    return [(box[2] - box[0]) * (box[3] - box[1]) for box in boxes]


def _shared(a, b, lengths=lambda w, h: (max(w, 0), max(h, 0)), extra=0):
    return np.prod(lengths(*(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]) + extra)))


def _over(a, b, whole, factor=1):
    return factor * _shared(a, b) / whole(*_areas(a, b))


def _iou_from(a, b, **how):
    shared = _shared(a, b, **how)
    return shared / (sum(_areas(a, b)) - shared)


def _only_if_both_negative(w, h):
    return (w, h) if w < 0 and h < 0 else (max(w, 0), max(h, 0))


def _iou_inclusive(a, b):
    shared = _shared(a, b, extra=1)
    return shared / (sum(_areas(a + [0, 0, 1, 1], b + [0, 0, 1, 1])) - shared)


BOX_IOU = Exercise(
    number="01.2",
    name="box_iou",
    form=number("a number, the IoU"),
    answer=by_hand.iou,
    cases=[
        Case("the boxes (2, 1, 6, 4) and (4, 2, 9, 5)", [2.0, 1, 6, 4], [4.0, 2, 9, 5]),
        Case("a box and itself", [3.0, 3, 8, 5], [3.0, 3, 8, 5]),
        Case("a box inside another", [0.0, 0, 10, 10], [2.0, 3, 6, 8]),
        Case("two boxes apart in x only", [0.0, 0, 4, 4], [6.0, 1, 9, 3]),
        Case("two boxes apart in x and in y", [0.0, 0, 4, 4], [7.0, 6, 9, 11]),
        Case("two boxes that touch along a side", [0.0, 0, 4, 4], [4.0, 0, 8, 4]),
        Case("edges between the pixels", [0.5, 0.0, 2.0, 1.5], [1.25, 0.25, 3.0, 1.0]),
    ],
    mistakes={
        "Your union counts the overlap twice, because the sum of the two areas contains it twice. "
        "Subtract it once.": (lambda a, b: _over(a, b, lambda x, y: x + y)),
        "Boxes apart in x and in y get an overlap: there both lengths are negative and their product is positive. "
        "Set a negative length to 0 before you multiply.": lambda a, b: _iou_from(
            a, b, lengths=_only_if_both_negative
        ),
        "Boxes that do not overlap get an incorrect value: a negative width or height means no overlap. "
        "Set it to 0.": (lambda a, b: _iou_from(a, b, lengths=lambda w, h: (w, h))),
        "Your widths are one too large: x2 is exclusive, so the width is x2 - x1, without + 1.": _iou_inclusive,
        "That is Dice, twice the overlap over the sum of the areas; IoU divides the overlap by the union.": (
            lambda a, b: _over(a, b, lambda x, y: x + y, factor=2)
        ),
        "You divide by the area of the smaller box, so a box inside another gets 1; divide by the union.": (
            lambda a, b: _over(a, b, min)
        ),
        "You divide by the area of the first box only; divide by the union, so that the order does not matter.": (
            lambda a, b: _over(a, b, lambda x, y: x)
        ),
        "You divide by the area of the box around both; the union is smaller: the sum of both areas minus "
        "the overlap.": (
            lambda a, b: _shared(a, b) / np.prod(np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2]))
        ),
    },
    hints=[
        "The overlap begins where the later box begins, and ends where the earlier one ends.",
        "Its width is min(a[2], b[2]) - max(a[0], b[0]). What does a negative width mean?",
        "The union is area a + area b - overlap.",
    ],
)

# 01.3


def box_fraction(
    length,
    width,
    degrees,
    unit=np.deg2rad,
    side=np.abs,
    box=lambda a, b, c, s: (a * c + b * s, a * s + b * c),
):
    c, s = side(np.cos(unit(degrees))), side(np.sin(unit(degrees)))
    return length * width / np.prod(box(length, width, c, s))


BOX_FRACTION = Exercise(
    number="01.3",
    name="box_fraction",
    form=number("a number, the fraction of the box that the rectangle fills"),
    answer=box_fraction,
    cases=[
        Case("a rectangle of 8 × 2 that lies flat", 8, 2, 0),
        Case("8 × 2, turned by 45 degrees", 8, 2, 45),
        Case("8 × 2, standing upright at 90 degrees", 8, 2, 90),
        Case("a square of 5, turned by 30 degrees", 5, 5, 30),
        Case("8 × 2, turned by 120 degrees", 8, 2, 120),
        Case("6 × 1, turned by 20 degrees", 6, 1, 20),
    ],
    mistakes={
        "np.cos and np.sin take radians; you gave them degrees. np.deg2rad converts.": (
            partial(box_fraction, unit=float),
            partial(box_fraction, unit=np.rad2deg),
        ),
        "Beyond 90 degrees a cosine is negative, and a length never is: take the absolute value.": partial(
            box_fraction, side=float
        ),
        "Your result does not change when the rectangle is turned; its box does.": lambda a, b, degrees: 1.0,
        "That is correct for an ellipse; a rectangle has corners, and its box is length · cos + width · "
        "sin wide.": (
            lambda *given: (
                np.pi
                / 4
                * box_fraction(
                    *given, box=lambda a, b, c, s: (np.hypot(a * c, b * s), np.hypot(a * s, b * c))
                )
            )
        ),
        "Your box is only as wide as the long side reaches; the short side reaches outwards too: "
        "length · cos + width · sin.": partial(box_fraction, box=lambda a, b, c, s: (a * c, a * s)),
        "You treat the box as a square; its height is different: length · sin + width · cos.": partial(
            box_fraction, box=lambda a, b, c, s: (a * c + b * s, a * c + b * s)
        ),
        "You return how many times larger the box is; the fraction is the inverse: the object's area over the "
        "box's.": lambda *given: 1 / box_fraction(*given),
    },
    hints=[
        "Draw it: how far does the long side reach to the right, how far the short side?",
        "The box is length · |cos| + width · |sin| wide. Its height is the same with cos and sin exchanged.",
        "The area of the rectangle does not change; divide length · width by the area of the box.",
    ],
)

# 01.4


def _nms(boxes, scores, threshold, sign=-1, order=None, close=np.greater, rivals=lambda kept, seen: kept):
    kept, seen = [], []
    for row in np.argsort(sign * scores, kind="stable") if order is None else order(scores):
        if not any(close(by_hand.iou(boxes[row], boxes[k]), threshold) for k in rivals(kept, seen)):
            kept.append(int(row))
        seen.append(int(row))
    return kept


_CHAIN = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10], [40, 0, 50, 10]], float)
_MIXED = [[40.0, 2, 52, 12], [0, 0, 10, 10], [41, 1, 50, 12], [2, 0, 12, 10], [80, 0, 90, 9]]

NMS = Exercise(
    number="01.4",
    name="nms",
    form=rows("a list of row indices, the box with the highest score first"),
    answer=by_hand.nms,
    cases=[
        Case("three boxes that hardly overlap", _CHAIN[[3, 0, 2]], [0.3, 0.9, 0.5], 0.5),
        Case("the same box twice", _CHAIN[[0, 0, 3]], [0.6, 0.7, 0.65], 0.5),
        Case(
            "a chain of three boxes; the first and the last do not overlap", _CHAIN, [0.9, 0.8, 0.7, 0.6], 0.3
        ),
        Case("five boxes in no order", _MIXED, [0.2, 0.75, 0.95, 0.9, 0.5], 0.3),
        Case(
            "two boxes whose IoU equals the threshold, so it is not above it",
            [[0.0, 0, 4, 4], [0, 0, 4, 2]],
            [0.9, 0.8],
            0.5,
        ),
        Case(
            "two detections of one object, and another object between them by score",
            [[0.0, 0, 10, 10], [50, 50, 60, 60], [1, 0, 11, 10]],
            [0.9, 0.8, 0.7],
            0.3,
        ),
        Case(
            "no box at all",
            np.zeros((0, 4)),
            np.zeros(0),
            0.5,
            note="An image without a detection is common: return [].",
        ),
    ],
    mistakes={
        "Your NMS compares with boxes that were already suppressed: only a box that is kept may suppress another.": (
            partial(_nms, rivals=lambda kept, seen: seen)
        ),
        "You go through the boxes in the order of the list; the box with the highest score comes first.": partial(
            _nms, order=lambda scores: range(len(scores))
        ),
        "You begin with the lowest score: np.argsort sorts in ascending order. Sort by -scores.": partial(
            _nms, sign=1
        ),
        "A box whose IoU equals the threshold stays: only an IoU above the threshold suppresses.": partial(
            _nms, close=np.greater_equal
        ),
        "You compare a box only with the one kept last; compare it with every box that is kept.": partial(
            _nms, rivals=lambda kept, seen: kept[-1:]
        ),
        "The boxes are correct, but sorted by row; the box with the highest score comes first.": lambda *given: (
            sorted(_nms(*given))
        ),
        "Your comparison is the wrong way round: a box goes if its IoU with a kept one is above the threshold.": (
            partial(_nms, close=np.less)
        ),
        "You return the boxes; return their row indices, so that scores and classes can be looked up too.": (
            lambda boxes, scores, threshold: boxes[_nms(boxes, scores, threshold)]
        ),
    },
    hints=[
        "np.argsort(-scores) gives the rows from the best to the worst.",
        "Keep a list. A row joins it unless its box overlaps too much with a box in that list.",
        "An IoU above the threshold suppresses. Ignore boxes that are already suppressed: they must not "
        "suppress others.",
    ],
)

# 01.5


def run_lengths(mask, order="F"):
    counts, current = [0], False
    for pixel in mask.ravel(order=order):
        if pixel != current:
            counts.append(0)
            current = pixel
        counts[-1] += 1
    return counts


RUN_LENGTHS = Exercise(
    number="01.5",
    name="run_lengths",
    form=rows("a list of run lengths"),
    answer=run_lengths,
    cases=[
        Case("the row 0 0 1 1 1 0", np.array([[0, 0, 1, 1, 1, 0]], bool)),
        Case("a block in a mask of 4 × 5", _mask(4, 5, np.s_[1:3, 1:4])),
        Case("a mask whose first pixel is on", _mask(3, 4, (0, 0), (1, 0), (2, 3))),
        Case("a mask that is all on", np.ones((2, 3), bool)),
        Case("an empty mask", np.zeros((3, 3), bool)),
    ],
    mistakes={
        "You read the mask row by row; COCO's run lengths go down the columns: mask.ravel(order='F').": partial(
            run_lengths, order="C"
        ),
        "The first run must consist of off pixels; its length is 0 if the first pixel is on. Otherwise it "
        "is not clear which runs are on.": lambda m: run_lengths(m)[run_lengths(m)[0] == 0 :],
        "The last run is missing: it ends at the end of the mask, not at a change of value.": lambda m: (
            run_lengths(m)[:-1]
        ),
        "You list only the runs of on pixels; the off runs between them say where they are.": lambda m: (
            run_lengths(m)[1::2]
        ),
        "You return where the runs end; a run length is the distance from the previous end.": lambda m: (
            np.cumsum(run_lengths(m))
        ),
    },
    hints=[
        "First turn the mask into one line: mask.ravel(order='F') goes down the columns.",
        "Walk along the line with a counter. At each change of value, store the count and begin a new one.",
        "Begin with the value off. If the first pixel is on, the first run has length 0. Store the last "
        "run too.",
    ],
)

# 01.6, the research exercise


def mean_iou_of_clicks(side, sigma, trials, rng, noise=lambda rng, sigma, side: rng.normal(0, sigma, 4)):
    box = np.array([0, 0, side, side], float)
    return np.mean([by_hand.iou(box, box + noise(rng, sigma, side)) for _ in range(trials)])


_clicks = varied(mean_iou_of_clicks)


def _scatter(function):
    """The standard deviation of the IoU of single clicks: a shift of the whole box has 1.35 times as much."""
    return np.std([function(20, 2.0, 1, np.random.default_rng(seed)) for seed in range(400)])


def _draws_from_rng(function):
    one, again, other = (float(function(20, 2.0, 200, np.random.default_rng(seed))) for seed in (5, 5, 6))
    if one == other:
        return (
            "Two different generators give the very same number: draw from the rng that is passed in, "
            "not from one of your own."
        )
    if one != again:
        return "The same generator gives two different numbers: draw from the rng that is passed in, not from np.random."
    if _scatter(function) > 1.15 * _scatter(mean_iou_of_clicks):
        return (
            "You shift the whole box by two random numbers; each of its four edges varies "
            "independently, so draw four."
        )
    return None


CLICKS = Exercise(
    number="01.6",
    name="mean_iou_of_clicks",
    form=Form("a number, the mean IoU", lambda a, b: bool(np.allclose(a, b, rtol=0, atol=0.03))),
    answer=mean_iou_of_clicks,
    cases=[
        Case(
            f"a box of {side} pixels, clicks with a standard deviation of {sigma}",
            side,
            sigma,
            800,
            np.random.default_rng(1),
        )
        for side, sigma in ((20, 0.0), (20, 2.0), (100, 2.0), (100, 10.0), (40, 1.0))
    ],
    mistakes={
        "Only one corner varies; both corners were clicked, so all four edges vary.": _clicks(
            noise=lambda rng, sigma, side: np.append([0, 0], rng.normal(0, sigma, 2))
        ),
        "rng.normal takes the standard deviation sigma, not its square or its square root.": (
            _clicks(noise=lambda rng, sigma, side: rng.normal(0, sigma**2, 4)),
            _clicks(noise=lambda rng, sigma, side: rng.normal(0, np.sqrt(sigma), 4)),
        ),
        "The noise is in pixels, the same for small and large boxes; yours grows with the side length.": _clicks(
            noise=lambda rng, sigma, side: rng.normal(0, sigma * side / 20, 4)
        ),
        "You return the loss in IoU; return the mean IoU itself, which is 1 for clicks without noise.": (
            lambda *given: 1 - mean_iou_of_clicks(*given)
        ),
    },
    hints=[
        "rng.normal(0, sigma, 4) gives the noise of the four edges; add it to [0, 0, side, side].",
        "Compute the IoU with the true box, trials times, and return the mean.",
    ],
    probe=_draws_from_rng,
)

EXERCISES = (BOX_FROM_MASK, BOX_IOU, BOX_FRACTION, NMS, RUN_LENGTHS, CLICKS)
