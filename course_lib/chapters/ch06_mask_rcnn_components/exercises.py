"""Exercises to chapter 06: anchors, box codes, NMS per class, the pyramid's levels, RoI Align, pasting a mask."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from course_lib.ops import by_hand
from course_lib.teaching.exercise import Case, Exercise, Form, Mistake, array, number, rows

# 06.1


def anchors_of_level(feature_size, stride, sizes, ratios):
    return _anchors(feature_size, stride, sizes, ratios)


def _by_area(size, ratio):
    return size / math.sqrt(ratio), size * math.sqrt(ratio)


def _anchors(
    feature_size,
    stride,
    sizes,
    ratios,
    shape=_by_area,
    shift=0.0,
    half=0.5,
    order="yxrs",
    write=lambda x, y, w, h: (x - w, y - h, x + w, y + h),
):
    """All anchors; `order` says which of row y, column x, ratio r and size s changes slowest, and so on."""
    of_axis = {"y": range(feature_size[0]), "x": range(feature_size[1]), "r": ratios, "s": sizes}
    found = []
    for index in np.ndindex(*(len(of_axis[axis]) for axis in order)):
        at = {axis: of_axis[axis][k] for axis, k in zip(order, index, strict=True)}
        width, height = shape(at["s"], at["r"])
        x, y = (at["x"] + shift) * stride, (at["y"] + shift) * stride
        found.append(write(x, y, half * width, half * height))
    return np.array(found, float)


def _anchors_with(**how):
    return lambda feature_size, stride, sizes, ratios: _anchors(feature_size, stride, sizes, ratios, **how)


ANCHORS = Exercise(
    "06.1",
    "anchors_of_level",
    array("an array (anchors, 4)"),
    lambda: [
        Case("one position, one size, one square", ((1, 1), 16, [32], [1.0])),
        Case("a map of 2 × 3 with squares", ((2, 3), 8, [16], [1.0])),
        Case("one position and the ratios 1/4, 1 and 4", ((1, 1), 8, [16], [0.25, 1.0, 4.0])),
        Case("a map of 2 × 3, two sizes and the ratios 1/2, 1 and 2", ((2, 3), 4, [8, 32], [0.5, 1.0, 2.0])),
        Case("a map of 3 × 1 with two ratios", ((3, 1), 32, [64], [1.0, 3.0])),
    ],
    anchors_of_level,
    (
        Mistake(
            "Width and height are swapped: the ratio is height / width, so a ratio of 2 is an upright anchor.",
            _anchors_with(shape=lambda s, r: _by_area(s, r)[::-1]),
        ),
        Mistake(
            "Your anchors of other ratios have other areas: take the root of the ratio, "
            "size / √r wide and size · √r high.",
            _anchors_with(shape=lambda s, r: (s / r, s * r)),
        ),
        Mistake(
            "Only the height follows the ratio in your anchors, and the area with it: "
            "they are size / √r wide and size · √r high.",
            _anchors_with(shape=lambda s, r: (s, s * r)),
        ),
        Mistake(
            "All your anchors are squares; the ratio says how high an anchor is beside its width.",
            _anchors_with(shape=lambda s, r: (s, s)),
        ),
        Mistake(
            "Your anchors stand in the middle of a cell of stride pixels; here (as in torchvision) the "
            "position in row i "
            "and column j has its anchors around y = i · stride, x = j · stride.",
            _anchors_with(shift=0.5),
        ),
        Mistake(
            "Your anchors stand one pixel apart: two neighbouring positions of the map are a stride apart "
            "in the picture.",
            lambda f, stride, sizes, ratios: _anchors(f, 1, sizes, ratios),
        ),
        Mistake(
            "Your anchors are twice as large: half of the width goes to each side of the centre.",
            _anchors_with(half=1.0),
        ),
        Mistake(
            "You go down the columns; the positions come row by row.",
            _anchors_with(order="xyrs"),
        ),
        Mistake(
            "The right anchors in another order: all shapes of one position stand together, "
            "as the net's channels do.",
            _anchors_with(order="rsyx"),
        ),
        Mistake(
            "At each position the ratios come first: all sizes of the first ratio, then those of the second.",
            _anchors_with(order="yxsr"),
        ),
        Mistake(
            "You give centre and size; an anchor is x1, y1, x2, y2.",
            _anchors_with(write=lambda x, y, w, h: (x, y, 2 * w, 2 * h)),
        ),
        Mistake(
            "Rows and columns are mixed up: a box is x1, y1, x2, y2, and x belongs to the column.",
            _anchors_with(write=lambda x, y, w, h: (y - h, x - w, y + h, x + w)),
        ),
    ),
    (
        "Four loops: over the rows, the columns, the ratios, the sizes. The innermost runs fastest.",
        "An anchor of size s and ratio r = height / width is to have the area s². How wide is it?",
        "It is s / √r wide and s · √r high, and lies around x = column · stride, y = row · stride.",
    ),
)

# 06.2


def encode_box(box, reference):
    return by_hand.encode(box, reference)


def _centre_and_sides(box):
    box = np.asarray(box, float)
    return (box[:2] + box[2:]) / 2, box[2:] - box[:2]


def _encode_with(
    point=lambda centre, sides: centre,
    units=lambda sides, reference: reference,
    growth=lambda sides, reference: np.log(sides / reference),
):
    def answer(box, reference):
        (centre, sides), (other, lengths) = _centre_and_sides(box), _centre_and_sides(reference)
        shift = (point(centre, sides) - point(other, lengths)) / units(sides, lengths)
        return np.concatenate([shift, growth(sides, lengths)])

    return answer


ENCODE = Exercise(
    "06.2",
    "encode_box",
    array("four numbers dx, dy, dw, dh"),
    lambda: [
        Case("a box and itself as the reference", ([4, 2, 14, 22], [4, 2, 14, 22])),
        Case("a box moved by 5 to the right", ([9, 2, 19, 22], [4, 2, 14, 22])),
        Case("a box twice as wide around the same centre", ([-1, 2, 19, 22], [4, 2, 14, 22])),
        Case("a box that is moved and shrinks", ([6, 8, 10, 13], [4, 2, 14, 22])),
        Case("edges between the pixels", ([0.5, 3.25, 7.0, 5.5], [1.0, 1.5, 5.0, 9.5])),
    ],
    encode_box,
    (
        Mistake(
            "The logarithm is missing: dw is the logarithm of width / reference width, so that equal sides give 0.",
            _encode_with(growth=lambda a, b: a / b),
        ),
        Mistake(
            "Your dw is the growth as a share of the reference; it is the logarithm of the ratio of the widths.",
            _encode_with(growth=lambda a, b: (a - b) / b),
        ),
        Mistake(
            "Your logarithm has another base; dw and dh take the natural one, np.log.",
            _encode_with(growth=lambda a, b: np.log2(a / b)),
        ),
        Mistake(
            "Your logarithm has another base; dw and dh take the natural one, np.log.",
            _encode_with(growth=lambda a, b: np.log10(a / b)),
        ),
        Mistake(
            "You compare the corners x1, y1; dx and dy say how far the centre has moved.",
            _encode_with(point=lambda centre, sides: centre - sides / 2),
        ),
        Mistake(
            "Your shift is in pixels; divide dx by the reference's width and dy by its height, "
            "so that it means the same for small and large objects.",
            _encode_with(units=lambda a, b: 1.0),
        ),
        Mistake(
            "Width and height are swapped: dx is divided by the reference's width, dy by its height.",
            _encode_with(units=lambda a, b: b[::-1]),
        ),
        Mistake(
            "Width and height are swapped: dw comes before dh.",
            _encode_with(growth=lambda a, b: np.log(a / b)[::-1]),
        ),
        Mistake(
            "You divide by the sides of the box; the net does not know them. Divide by those of the reference.",
            _encode_with(units=lambda a, b: a),
        ),
        Mistake(
            "You lead from the box to its reference; the code leads from the reference to the box.",
            lambda box, reference: by_hand.encode(reference, box),
        ),
    ),
    (
        "Take the centre, the width and the height of both boxes.",
        "dx and dy: the way between the centres, in widths and heights of the reference.",
        "dw = np.log(width / reference width), and dh likewise.",
    ),
)

# 06.3


def nms_per_class(boxes, scores, classes, limit):
    return _class_nms(boxes, scores, classes, limit)


def _class_nms(
    boxes,
    scores,
    classes,
    limit,
    rivals=lambda a, b: a == b,
    close=lambda overlap, limit: overlap > limit,
    against_all=False,
    sign=-1,
):
    kept, seen = [], []
    for row in np.argsort(sign * np.asarray(scores, float), kind="stable").tolist():
        others = seen if against_all else kept
        if not any(
            rivals(classes[row], classes[other]) and close(by_hand.iou(boxes[row], boxes[other]), limit)
            for other in others
        ):
            kept.append(row)
        seen.append(row)
    return kept


def _class_nms_with(**how):
    return lambda boxes, scores, classes, limit: _class_nms(boxes, scores, classes, limit, **how)


def _class_nms_cases():
    rider = np.array([[10, 0, 20, 30], [11, 1, 21, 31], [10, 2, 21, 30], [60, 0, 70, 30]], float)
    yield Case("two near copies of one class", (rider[[0, 1, 3]], [0.6, 0.9, 0.8], [1, 1, 1], 0.5))
    yield Case(
        "two classes in one place, as a rider on a horse", (rider[[0, 1, 3]], [0.9, 0.8, 0.7], [1, 2, 1], 0.5)
    )
    yield Case(
        "two classes with a near copy each, mixed by score",
        (rider[[3, 0, 2, 0, 1]], [0.5, 0.6, 0.7, 0.8, 0.9], [1, 1, 1, 2, 2], 0.5),
    )
    chain = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10], [4, 0, 14, 10]], float)
    yield Case("a chain of three boxes of one class", (chain, [0.9, 0.8, 0.7, 0.6], [3, 3, 3, 1], 0.3))
    half = np.array([[0, 0, 4, 4], [0, 0, 4, 2], [0, 0, 4, 2]], float)
    yield Case(
        "boxes whose IoU is the limit itself, which is not above it", (half, [0.9, 0.8, 0.7], [1, 1, 2], 0.5)
    )
    yield Case("no box at all", (np.zeros((0, 4)), [], [], 0.5), "Answer [].")


NMS_PER_CLASS = Exercise(
    "06.3",
    "nms_per_class",
    rows("a list of rows, the best box first"),
    lambda: list(_class_nms_cases()),
    nms_per_class,
    (
        Mistake(
            "Boxes of another class suppress each other in your answer: a rider would lose the horse. "
            "Only a box of the same class counts.",
            _class_nms_with(rivals=lambda a, b: True),
        ),
        Mistake(
            "Your comparison of the classes is the wrong way round: boxes of the same class suppress each other.",
            _class_nms_with(rivals=lambda a, b: a != b),
        ),
        Mistake(
            "Your NMS compares with boxes that were already suppressed: only a box that is kept may "
            "suppress another.",
            _class_nms_with(against_all=True),
        ),
        Mistake(
            "A box whose IoU is exactly the limit stays: only what is above the limit is suppressed.",
            _class_nms_with(close=lambda overlap, limit: overlap >= limit),
        ),
        Mistake(
            "You begin with the lowest score: np.argsort sorts upwards. Sort by -scores.",
            _class_nms_with(sign=1),
        ),
        Mistake(
            "The right boxes, but class after class; the best box of all comes first.",
            lambda boxes, scores, classes, limit: sorted(
                _class_nms(boxes, scores, classes, limit), key=lambda row: (classes[row], -scores[row])
            ),
        ),
        Mistake(
            "The right boxes, but sorted by row; the best box comes first.",
            lambda boxes, scores, classes, limit: sorted(_class_nms(boxes, scores, classes, limit)),
        ),
        Mistake(
            "You keep one box of each class; a class may have many objects, and only near copies go.",
            _class_nms_with(close=lambda overlap, limit: True),
        ),
    ),
    (
        "It is the NMS of chapter 01 with one condition more.",
        "A box goes if a box that is kept has the same class and overlaps it by more than the limit.",
        "Go through all boxes from the best to the worst, whatever their class; then the order is right, too.",
    ),
)

# 06.4


def pyramid_level(box):
    return by_hand.pyramid_level(box)


def _level_with(
    size=lambda w, h: math.sqrt(w * h),
    logarithm=math.log2,
    whole=math.floor,
    limits=(2, 5),
    sign=1,
    first=4,
):
    def answer(box):
        found = whole(first + sign * logarithm(size(box[2] - box[0], box[3] - box[1]) / 224))
        return min(max(found, limits[0]), limits[1])

    return answer


PYRAMID_LEVEL = Exercise(
    "06.4",
    "pyramid_level",
    number("a number, the level"),
    lambda: [
        Case("a box of 224 × 224", ([0, 0, 224, 224],)),
        Case("a box of 112 × 112", ([10, 20, 122, 132],)),
        Case("a box of 200 × 200, a little smaller than 224", ([0, 0, 200, 200],)),
        Case("a box of 448 × 112, as large as 224 × 224", ([0, 0, 448, 112],)),
        Case("a box of 300 × 300", ([0, 0, 300, 300],)),
        Case("a box of 500 × 500", ([30, 30, 530, 530],)),
        Case("a box of 60 × 400", ([5, 5, 65, 405],)),
        Case(
            "a box of 8 × 8", ([3, 3, 11, 11],), "The finest level is 2: there is no finer one to read from."
        ),
        Case(
            "a box of 1500 × 900",
            ([0, 0, 1500, 900],),
            "The coarsest level is 5: there is no coarser one to read from.",
        ),
    ],
    pyramid_level,
    (
        Mistake(
            "There is no such level: the pyramid has levels 2 to 5. Put smaller levels to 2 and larger ones to 5.",
            _level_with(limits=(-99, 99)),
        ),
        Mistake(
            "You round to the nearest level; the formula rounds down.",
            _level_with(whole=round),
        ),
        Mistake("You round up; the formula rounds down.", _level_with(whole=math.ceil)),
        Mistake(
            "You cut towards 4, as int does to a negative logarithm; round the whole sum down, math.floor.",
            _level_with(whole=lambda level: 4 + int(level - 4)),
        ),
        Mistake(
            "You compare the area with 224; take the root of the area, √(width · height).",
            _level_with(size=lambda w, h: w * h),
        ),
        Mistake(
            "You take the longer side; a long thin box has less area than that. Take √(width · height).",
            _level_with(size=max),
        ),
        Mistake(
            "You take the shorter side; the level goes by the area. Take √(width · height).",
            _level_with(size=min),
        ),
        Mistake(
            "Your logarithm has another base: one level more is a stride twice as large, so take math.log2.",
            _level_with(logarithm=math.log),
        ),
        Mistake(
            "The wrong way round: a large box is read from a coarse map, which has the higher level.",
            _level_with(sign=-1),
        ),
        Mistake(
            "You begin at level 0; a box of 224 pixels belongs to level k0 = 4.",
            _level_with(first=0),
        ),
    ),
    (
        "A box twice as wide and twice as high goes one level up. Which function counts doublings?",
        "math.floor(4 + math.log2(√(width · height) / 224)).",
        "Below 2 it becomes 2, above 5 it becomes 5.",
    ),
)

# 06.5


def read_region(feature_map, box, size, stride):
    return _read_region(feature_map, box, size, stride)


def _read_region(
    feature_map, box, size, stride, shift=0.0, place=0.5, before=float, read=None, swapped=False
):
    """RoI Align with one point in each bin, or what slips make of it."""
    x1, y1, x2, y2 = (before(edge / stride) - shift for edge in box)
    if swapped:
        x1, y1, x2, y2 = y1, x1, y2, x2
    out = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            y = y1 + (i + place) * (y2 - y1) / size
            x = x1 + (j + place) * (x2 - x1) / size
            out[i, j] = (read or _bilinear)(feature_map, y, x)
    return out


def _bilinear(feature_map, y, x):
    return by_hand.bilinear(feature_map[..., None], y, x)[0]


def _clamped(feature_map, row, column):
    return feature_map[
        min(max(row, 0), feature_map.shape[0] - 1), min(max(column, 0), feature_map.shape[1] - 1)
    ]


def _nearest(feature_map, y, x):
    return _clamped(feature_map, math.floor(y + 0.5), math.floor(x + 0.5))


def _upper_left(feature_map, y, x):
    return _clamped(feature_map, math.floor(y), math.floor(x))


def _four(feature_map, y, x, weights=lambda t: (1 - t, t), get=_clamped):
    """The four neighbours, weighted; `get` may fail at the end of the map."""
    top, left = math.floor(y), math.floor(x)
    return sum(
        a * b * get(feature_map, top + i, left + j)
        for i, a in enumerate(weights(y - top))
        for j, b in enumerate(weights(x - left))
    )


def _region_with(**how):
    return lambda feature_map, box, size, stride: _read_region(feature_map, box, size, stride, **how)


def _pooled_region(feature_map, box, size, stride):
    return by_hand.roi_pool(feature_map[..., None], box, size, 1 / stride)[..., 0]


def _rounded_edge(value):
    return float(math.floor(value + 0.5))


def _region_cases():
    rng = np.random.default_rng(6)
    ramp = np.add.outer(10.0 * np.arange(7), np.arange(9.0))
    values = rng.normal(0, 3, (8, 10)).round(2)
    yield Case("a ramp, a box of one bin", (ramp, [8, 4, 20, 16], 1, 4))
    yield Case("a ramp, a box with edges between the positions", (ramp, [5, 3, 23, 17], 2, 4))
    yield Case("a map of random numbers, 2 × 2 bins", (values, [7, 9, 30, 26], 2, 4))
    yield Case("a map of random numbers, 3 × 3 bins and a stride of 8", (values, [13, 9, 50, 41], 3, 8))
    edge = "At the last row or column there is no neighbour further on: take the last one itself."
    yield Case("a point on the last row and column of the map", (values[:, :8], [12, 12, 16, 16], 1, 2), edge)


READ_REGION = Exercise(
    "06.5",
    "read_region",
    array("an array (size, size)"),
    lambda: list(_region_cases()),
    read_region,
    (
        Mistake(
            "You read the nearest position; read between the positions, by bilinear interpolation.",
            _region_with(read=_nearest),
        ),
        Mistake(
            "You read the upper left neighbour; all four count, each the more the nearer it is.",
            _region_with(read=_upper_left),
        ),
        Mistake(
            "Your box is rounded to whole positions, as RoI Pool does; RoI Align rounds nothing.",
            _region_with(before=_rounded_edge),
        ),
        Mistake(
            "Your box is rounded to whole positions, as RoI Pool does; RoI Align rounds nothing.",
            _region_with(before=math.floor),
        ),
        Mistake(
            "That is RoI Pool: it rounds the box and takes the largest number. RoI Align reads between "
            "the positions.",
            _pooled_region,
        ),
        Mistake(
            "You are half a position off: here the value of row i and column j lies at i and j themselves, "
            "so nothing is subtracted.",
            _region_with(shift=0.5),
        ),
        Mistake(
            "x and y are swapped: a box is x1, y1, x2, y2, and the map's first axis is y.",
            _region_with(swapped=True),
        ),
        Mistake(
            "The wrong neighbours get the weights: the nearer one counts more, 1 - t and not t.",
            _region_with(read=lambda f, y, x: _four(f, y, x, weights=lambda t: (t, 1 - t))),
        ),
        Mistake(
            "All four neighbours count alike in your answer; each counts the more the nearer it is.",
            _region_with(read=lambda f, y, x: _four(f, y, x, weights=lambda t: (0.5, 0.5))),
        ),
        Mistake(
            "You read at the beginning of each bin; read in its middle.",
            _region_with(place=0.0),
        ),
        Mistake(
            "Your neighbour lies outside of the map: on the last row or column take the last one itself.",
            _region_with(read=lambda f, y, x: _four(f, y, x, get=lambda f, row, column: f[row, column])),
        ),
        Mistake(
            "Pixels are not positions: divide the box by the stride first.",
            lambda feature_map, box, size, stride: _read_region(feature_map, box, size, 1),
        ),
    ),
    (
        "Divide the box by the stride, and do not round. Bin number k of n begins at y1 + k · (y2 - y1) / n.",
        "In its middle, at y, x, lie four neighbours: rows floor(y) and floor(y) + 1, columns likewise.",
        "With t = y - floor(y) the upper row counts 1 - t and the lower one t; columns likewise. "
        "np.clip keeps the rows within the map.",
    ),
)

# 06.6, the open one


def paste_mask(grid, box, image_size):
    return _pasted(grid, box, image_size)


def _pasted(
    grid,
    box,
    image_size,
    order=1,
    place=lambda share, cells: share * cells - 0.5,
    pixel=0.5,
    edge=lambda value: value,
    transposed=False,
    cut=lambda value: value >= 0.5,
    inside=True,
):
    grid = np.asarray(grid, float).T if transposed else np.asarray(grid, float)
    x1, y1, x2, y2 = (edge(value) for value in box)
    down = (np.arange(image_size[0]) + pixel - y1) / (y2 - y1)
    across = (np.arange(image_size[1]) + pixel - x1) / (x2 - x1)
    points = np.meshgrid(place(down, len(grid)), place(across, len(grid)), indexing="ij")
    value = ndimage.map_coordinates(grid, points, order=order, mode="nearest")
    if inside:
        value = value * np.logical_and.outer((down >= 0) & (down <= 1), (across >= 0) & (across <= 1))
    return cut(value)


def _paste_with(**how):
    return lambda grid, box, image_size: _pasted(grid, box, image_size, **how)


def _pasted_into_all(grid, box, image_size):
    return _pasted(grid, (0, 0, image_size[1], image_size[0]), image_size)


def _paste_cases():
    full = np.ones((4, 4))
    rng = np.random.default_rng(1)
    slope = np.add.outer(np.linspace(0.05, 0.6, 6), np.linspace(0.0, 0.5, 6)) ** 1.1
    soft = ndimage.gaussian_filter(rng.random((7, 7)), 1.0)
    soft = (soft - soft.min()) / (soft.max() - soft.min())
    yield Case("a full grid and a box of whole pixels", (full, (3.0, 2.0, 9.0, 6.0), (10, 12)))
    yield Case("a sloping grid in a box of 12 × 9", (slope, (2.0, 3.0, 14.0, 12.0), (16, 18)))
    yield Case("a box with edges between the pixels", (slope, (2.7, 3.4, 13.6, 11.7), (16, 18)))
    yield Case("a blurred blob, stretched", (soft, (1.3, 0.6, 22.6, 13.4), (15, 24)))
    yield Case("a small box, smaller than its grid", (soft, (5.2, 4.3, 9.9, 9.8), (14, 14)))
    outside = "Pixels that the picture does not have are left out; the others stay where they are."
    yield Case("a box that reaches beyond the picture", (slope, (-4.0, 5.0, 9.0, 20.0), (12, 14)), outside)


PASTE_MASK = Exercise(
    "06.6",
    "paste_mask",
    Form(
        "a bool mask of the picture's size",
        lambda a, b: a.shape == b.shape and bool(np.allclose(a, b)),
        contrast=lambda given, wanted: (
            f"{np.count_nonzero(np.abs(given - wanted.astype(float)) > 1e-6)} of {wanted.size} pixels are wrong"
            if given.shape == wanted.shape
            else f"shape {wanted.shape} is wanted"
        ),
    ),
    lambda: list(_paste_cases()),
    paste_mask,
    (
        Mistake(
            "x and y are swapped in your grid: its first axis goes down, as the picture's does.",
            _paste_with(transposed=True),
        ),
        Mistake(
            "You take the nearest cell of the grid; read between the cells, by bilinear interpolation.",
            _paste_with(order=0),
        ),
        Mistake(
            "Your box is rounded to whole pixels: the mask moves by up to half a pixel and is stretched, "
            "which a small object feels most. Use the box as it is.",
            _paste_with(edge=lambda value: float(math.floor(value + 0.5))),
        ),
        Mistake(
            "Your box is cut to whole pixels, as int does: the mask moves by up to a pixel. Use the box as it is.",
            _paste_with(edge=lambda value: float(int(value))),
        ),
        Mistake(
            "You lay the outer cells' middles on the box's edges; a cell has a width, so the first middle lies "
            "half a cell within: share · cells - 0.5.",
            _paste_with(place=lambda share, cells: share * (cells - 1)),
        ),
        Mistake(
            "You are half a cell off: the value of cell k lies at k + 0.5 cells from the box's edge; "
            "subtract 0.5.",
            _paste_with(place=lambda share, cells: share * cells),
        ),
        Mistake(
            "You are half a pixel off: the middle of pixel j lies at j + 0.5.",
            _paste_with(pixel=0.0),
        ),
        Mistake(
            "You return probabilities; a mask is True where they reach 0.5.",
            _paste_with(cut=lambda value: value),
        ),
        Mistake(
            "You cut the grid at 0.5 before you stretch it: its steps become steps of the outline. "
            "Stretch first, then cut.",
            lambda grid, box, image_size: _pasted(np.asarray(grid) >= 0.5, box, image_size),
        ),
        Mistake(
            "You stretch the grid to the whole picture; it belongs into its box.",
            _pasted_into_all,
        ),
        Mistake(
            "Your mask goes on outside of its box; there it is False.",
            _paste_with(inside=False),
        ),
    ),
    (
        "Go backwards: for each pixel of the picture ask where in the grid its middle lies.",
        "Column j lies at the share (j + 0.5 - x1) / (x2 - x1) of the box. Which cell is that?",
        "At share · cells - 0.5, since a cell has its value at its middle. "
        "ndimage.map_coordinates(grid, [rows, columns], order=1, mode='nearest') reads there; "
        "then cut at 0.5, and keep only pixels whose middle lies in the box.",
    ),
)

EXERCISES = (ANCHORS, ENCODE, NMS_PER_CLASS, PYRAMID_LEVEL, READ_REGION, PASTE_MASK)
