"""Chapter 01's checks: right answers pass, and each wrong one that people give is refused with its own sentence."""

import numpy as np
import pytest
from skimage.measure import regionprops
from study_answers import class_of_tests

from course_lib.datasets import boxes_from_instances
from course_lib.metrics import iou as mask_iou
from course_lib.ops import by_hand
from course_lib.teaching.checker import find

# 01.1


def box_by_where(mask):
    y, x = np.where(mask)
    return [x.min(), y.min(), x.max() + 1, y.max() + 1]


def box_by_regionprops(mask):
    top, left, bottom, right = regionprops(mask.astype(int))[0].bbox
    return left, top, right, bottom


def box_inclusive(mask):
    y, x = np.where(mask)
    return x.min(), y.min(), x.max(), y.max()


def box_rows_first(mask):
    return regionprops(mask.astype(int))[0].bbox


def box_axes_exchanged_and_inclusive(mask):
    x, y = np.where(mask)
    return x.min(), y.min(), x.max(), y.max()


def box_coco(mask):
    y, x = np.where(mask)
    return x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1


def box_from_slices(mask):
    y, x = np.where(mask)
    return x.min(), x.max() + 1, y.min(), y.max() + 1


# 01.2


def iou_by_pixels(a, b):
    """Draw both boxes on a fine grid and count."""
    grids = []
    for box in (a, b):
        x1, y1, x2, y2 = (round(4 * edge) for edge in box)
        grid = np.zeros((60, 60), bool)
        grid[y1:y2, x1:x2] = True
        grids.append(grid)
    return mask_iou(*grids)


def iou_by_clip(a, b):
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a, b
    inside = np.clip(min(ax2, bx2) - max(ax1, bx1), 0, None) * np.clip(min(ay2, by2) - max(ay1, by1), 0, None)
    return np.float32(inside / ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - inside))


def area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


def shared(a, b):
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)


def iou_union_twice(a, b):
    return shared(a, b) / (area(a) + area(b))


def iou_without_clamp(a, b):
    inside = (min(a[2], b[2]) - max(a[0], b[0])) * (min(a[3], b[3]) - max(a[1], b[1]))
    return inside / (area(a) + area(b) - inside)


def iou_clamped_after_the_product(a, b):
    inside = max(0, (min(a[2], b[2]) - max(a[0], b[0])) * (min(a[3], b[3]) - max(a[1], b[1])))
    return inside / (area(a) + area(b) - inside)


def iou_plus_one(a, b):
    w = max(0, min(a[2], b[2]) - max(a[0], b[0]) + 1)
    h = max(0, min(a[3], b[3]) - max(a[1], b[1]) + 1)
    total = (a[2] - a[0] + 1) * (a[3] - a[1] + 1) + (b[2] - b[0] + 1) * (b[3] - b[1] + 1)
    return w * h / (total - w * h)


def iou_as_dice(a, b):
    return 2 * shared(a, b) / (area(a) + area(b))


def iou_of_the_smaller(a, b):
    return shared(a, b) / min(area(a), area(b))


def iou_of_the_hull(a, b):
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return shared(a, b) / hull


# 01.3


def share_by_corners(length, width, degrees):
    t = np.deg2rad(degrees)
    turn = np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
    corners = turn @ (np.array([[length], [width]]) / 2 * np.array([[1, 1, -1, -1], [1, -1, 1, -1]]))
    return length * width / np.prod(np.ptp(corners, axis=1))


def share_by_complex_numbers(length, width, degrees):
    turn = np.exp(1j * np.pi * degrees / 180)
    corners = np.array([length + 1j * width, length - 1j * width]) / 2 * turn
    return length * width / (4 * np.abs(corners.real).max() * np.abs(corners.imag).max())


def share_in_radians(length, width, degrees):
    c, s = abs(np.cos(degrees)), abs(np.sin(degrees))
    return length * width / ((length * c + width * s) * (length * s + width * c))


def share_without_abs(length, width, degrees):
    t = np.radians(degrees)
    return (length * width) / (
        (length * np.cos(t) + width * np.sin(t)) * (length * np.sin(t) + width * np.cos(t))
    )


def share_never_turned(length, width, degrees):
    return (length * width) / (length * width)


def share_upside_down(length, width, degrees):
    return 1 / share_by_corners(length, width, degrees)


# 01.4


def nms_of_the_course(boxes, scores, limit):
    return by_hand.nms(boxes, scores, limit)


def nms_with_a_table(boxes, scores, limit):
    alive, kept = np.ones(len(boxes), bool), []
    for row in np.argsort(-np.array(scores), kind="stable"):
        if alive[row]:
            kept.append(row)
            alive &= np.array([by_hand.iou(boxes[row], other) <= limit for other in boxes], bool)
    return np.array(kept, int)


def nms_suppressed_suppress(boxes, scores, limit):
    order = sorted(range(len(boxes)), key=lambda row: -scores[row])
    return [
        row
        for place, row in enumerate(order)
        if all(by_hand.iou(boxes[row], boxes[better]) <= limit for better in order[:place])
    ]


def nms_in_list_order(boxes, scores, limit):
    kept = []
    for row in range(len(boxes)):
        if all(by_hand.iou(boxes[row], boxes[other]) <= limit for other in kept):
            kept.append(row)
    return kept


def nms_worst_first(boxes, scores, limit):
    kept = []
    for row in np.argsort(scores, kind="stable"):
        if all(by_hand.iou(boxes[row], boxes[other]) <= limit for other in kept):
            kept.append(row)
    return kept


def nms_at_the_limit(boxes, scores, limit):
    return by_hand.nms(boxes, scores, limit - 1e-9)


def nms_sorted_by_row(boxes, scores, limit):
    return sorted(by_hand.nms(boxes, scores, limit))


def nms_returns_boxes(boxes, scores, limit):
    return boxes[by_hand.nms(boxes, scores, limit)]


# 01.5


def runs_by_changes(mask):
    line = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(line, prepend=False))
    return np.diff(changes, prepend=0, append=line.size)


def runs_by_groups(mask):
    from itertools import groupby

    line = mask.T.ravel().tolist()
    counts = [len(list(group)) for _, group in groupby(line)]
    return [0, *counts] if line[0] else counts


def runs_along_rows(mask):
    line = mask.ravel()
    changes = np.flatnonzero(np.diff(line, prepend=False))
    return np.diff(changes, prepend=0, append=line.size)


def runs_from_the_first_pixel(mask):
    from itertools import groupby

    return [len(list(group)) for _, group in groupby(mask.T.ravel().tolist())]


def runs_without_the_last(mask):
    counts, run, value = [], 0, False
    for pixel in mask.T.ravel():
        if pixel != value:
            counts.append(run)
            run, value = 0, pixel
        run += 1
    return counts


def runs_of_on_pixels(mask):
    return runs_by_groups(mask)[1::2]


# 01.6


def clicks_all_at_once(side, sigma, trials, rng):
    edges = np.array([0, 0, side, side]) + rng.normal(0, sigma, (trials, 4))
    return np.mean([by_hand.iou([0, 0, side, side], box) for box in edges])


def clicks_edge_by_edge(side, sigma, trials, rng):
    total = 0.0
    for _ in range(trials):
        left, top, right, bottom = (sigma * rng.standard_normal() for _ in range(4))
        total += by_hand.iou([0, 0, side, side], [left, top, side + right, side + bottom])
    return total / trials


def clicks_of_one_corner(side, sigma, trials, rng):
    far = side + rng.normal(0, sigma, (trials, 2))
    return np.mean([by_hand.iou([0, 0, side, side], [0, 0, x, y]) for x, y in far])


def clicks_with_the_variance(side, sigma, trials, rng):
    return clicks_all_at_once(side, sigma**2, trials, rng)


def clicks_own_generator(side, sigma, trials, rng):
    return clicks_all_at_once(side, sigma, trials, np.random.default_rng(0))


def clicks_as_a_loss(side, sigma, trials, rng):
    return 1 - clicks_all_at_once(side, sigma, trials, rng)


RIGHT = {
    "01.1": [box_by_where, box_by_regionprops],
    "01.2": [iou_by_pixels, iou_by_clip],
    "01.3": [share_by_corners, share_by_complex_numbers],
    "01.4": [nms_of_the_course, nms_with_a_table],
    "01.5": [runs_by_changes, runs_by_groups],
    "01.6": [clicks_all_at_once, clicks_edge_by_edge],
}
WRONG = {
    "01.1": [
        (box_inclusive, "Your box is one pixel too small on the far edges: x2 and y2 are exclusive"),
        (box_rows_first, "Rows and columns are exchanged: an array is indexed row first"),
        (box_axes_exchanged_and_inclusive, "Rows and columns are exchanged, and the far edges are one pixel"),
        (box_coco, "You return x, y, width, height, as COCO does"),
        (box_from_slices, "in the order x1, x2, y1, y2"),
    ],
    "01.2": [
        (iou_union_twice, "Your union counts the overlap twice"),
        (iou_without_clamp, "Boxes that do not meet get a wrong answer"),
        (iou_clamped_after_the_product, "both lengths are negative and their product is positive"),
        (iou_plus_one, "Your widths are one too large: x2 is exclusive"),
        (iou_as_dice, "That is Dice"),
        (iou_of_the_smaller, "You divide by the area of the smaller box"),
        (iou_of_the_hull, "You divide by the box around both"),
    ],
    "01.3": [
        (share_in_radians, "np.cos and np.sin want radians"),
        (share_without_abs, "Beyond 90 degrees a cosine is negative"),
        (share_never_turned, "Your answer does not change when the rectangle is turned"),
        (share_upside_down, "You give how many times larger the box is"),
    ],
    "01.4": [
        (nms_suppressed_suppress, "Your NMS compares with boxes that were already suppressed"),
        (nms_in_list_order, "You go through the boxes in the order of the list"),
        (nms_worst_first, "You begin with the lowest score"),
        (nms_at_the_limit, "A box whose IoU is exactly the limit stays"),
        (nms_sorted_by_row, "The right boxes, but sorted by row"),
        (nms_returns_boxes, "You return the boxes; return their rows"),
    ],
    "01.5": [
        (runs_along_rows, "You go along the rows"),
        (runs_from_the_first_pixel, "The first run has to be one of off pixels"),
        (runs_without_the_last, "The last run is missing"),
        (runs_of_on_pixels, "You list only the runs of on pixels"),
    ],
    "01.6": [
        (clicks_of_one_corner, "Only one corner scatters"),
        (clicks_with_the_variance, "rng.normal wants the standard deviation sigma"),
        (clicks_own_generator, "Two different generators give the very same number"),
        (clicks_as_a_loss, "You return the loss of IoU"),
    ],
}

TestAnswers = class_of_tests("01", RIGHT, WRONG)


# The right answers are held against the course's own, which are held against independent software.


def test_the_box_is_that_of_the_library():
    for case in find("01.1").cases():
        wanted = boxes_from_instances(case.arguments[0].astype(np.int32))[0]
        np.testing.assert_array_equal(find("01.1").answer(*case.arguments), wanted)


def test_the_share_and_the_run_lengths_are_those_of_the_experiments():
    from course_lib.chapters.ch01_detection_vs_segmentation import detection

    for case in find("01.3").cases():
        length, width, degrees = case.arguments
        assert find("01.3").answer(*case.arguments) == pytest.approx(
            detection.formula("rectangle", length / width, degrees)
        )
    for case in find("01.5").cases():
        np.testing.assert_array_equal(
            find("01.5").answer(*case.arguments), detection.run_lengths(case.arguments[0])
        )


def test_nms_is_that_of_the_library():
    for case in find("01.4").cases():
        assert find("01.4").answer(*case.arguments) == by_hand.nms(*case.arguments)
