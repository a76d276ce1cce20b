"""Exercises of chapter 06: anchors, box encoding, NMS per class, the pyramid's levels, RoI Align, pasting a mask, the
mask head in Keras."""

import math
from functools import partial

import numpy as np
from scipy import ndimage

from course_lib.ops import by_hand
from course_lib.teaching.exercise import Case, Exercise, Form, array, measured, number, relus, rows, varied

# 06.1


def _by_area(size, ratio):
    return size / math.sqrt(ratio), size * math.sqrt(ratio)


def anchors_of_level(
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


_anchors = varied(anchors_of_level)

ANCHORS = Exercise(
    number="06.1",
    name="anchors_of_level",
    form=array("an array (anchors, 4)"),
    answer=anchors_of_level,
    cases=[
        Case("one location, one size, one square", (1, 1), 16, [32], [1.0]),
        Case("a feature map of 2 × 3 with squares", (2, 3), 8, [16], [1.0]),
        Case("one location and the ratios 1/4, 1 and 4", (1, 1), 8, [16], [0.25, 1.0, 4.0]),
        Case(
            "a feature map of 2 × 3, two sizes and the ratios 1/2, 1 and 2",
            (2, 3),
            4,
            [8, 32],
            [0.5, 1.0, 2.0],
        ),
        Case("a feature map of 3 × 1 with two ratios", (3, 1), 32, [64], [1.0, 3.0]),
    ],
    mistakes={
        "Width and height are swapped: the ratio is height / width, so a ratio of 2 is an upright anchor.": _anchors(
            shape=lambda s, r: _by_area(s, r)[::-1]
        ),
        "Your anchors of different ratios have different areas: use the square root of the ratio, size / "
        "√r wide and size · √r high.": (_anchors(shape=lambda s, r: (s / r, s * r))),
        "In your anchors only the height depends on the ratio, so the area changes with it: they are size "
        "/ √r wide and size · √r high.": _anchors(shape=lambda s, r: (s, s * r)),
        "All your anchors are squares; the ratio says how high an anchor is compared with its width.": _anchors(
            shape=lambda s, r: (s, s)
        ),
        "Your anchors are centred in a cell of stride pixels; here (as in torchvision) the location in "
        "row i and column j has its anchors centred at y = i · stride, x = j · stride.": _anchors(shift=0.5),
        "Your anchors are one pixel apart; neighbouring locations of the feature map are one stride apart "
        "in the image.": (
            lambda feature_size, stride, sizes, ratios: anchors_of_level(feature_size, 1, sizes, ratios)
        ),
        "Your anchors are twice as large: half of the width goes to each side of the centre.": _anchors(
            half=1.0
        ),
        "You go down the columns; the locations come row by row.": _anchors(order="xyrs"),
        "The anchors are correct but in a different order: all shapes of one location are grouped "
        "together, as the network's channels are.": (_anchors(order="rsyx")),
        "At each location the ratios come first: all sizes of the first ratio, then those of the second.": _anchors(
            order="yxsr"
        ),
        "You return centre and size; an anchor is x1, y1, x2, y2.": _anchors(
            write=lambda x, y, w, h: (x, y, 2 * w, 2 * h)
        ),
        "Rows and columns are swapped: a box is x1, y1, x2, y2, and x belongs to the column.": _anchors(
            write=lambda x, y, w, h: (y - h, x - w, y + h, x + w)
        ),
    },
    hints=[
        "Use four nested loops: over the rows, the columns, the ratios, the sizes. The innermost index "
        "changes fastest.",
        "An anchor of size s and ratio r = height / width must have the area s². How wide is it?",
        "It is s / √r wide and s · √r high, and is centred at x = column · stride, y = row · stride.",
    ],
)

# 06.2


def _encode(
    box,
    reference,
    point=lambda centre, sides: centre,
    units=lambda sides, reference: reference,
    growth=lambda sides, reference: np.log(sides / reference),
    weights=1.0,
):
    (centre, sides), (other, lengths) = (((b[:2] + b[2:]) / 2, b[2:] - b[:2]) for b in (box, reference))
    shift = (point(centre, sides) - point(other, lengths)) / units(sides, lengths)
    return np.concatenate([shift, growth(sides, lengths)]) * weights


ENCODE = Exercise(
    number="06.2",
    name="encode_box",
    form=array("four numbers dx, dy, dw, dh"),
    answer=by_hand.encode,
    cases=[
        Case("a box and itself as the reference", [4.0, 2, 14, 22], [4.0, 2, 14, 22]),
        Case("a box moved by 5 to the right", [9.0, 2, 19, 22], [4.0, 2, 14, 22]),
        Case("a box twice as wide around the same centre", [-1.0, 2, 19, 22], [4.0, 2, 14, 22]),
        Case("a box that is moved and shrinks", [6.0, 8, 10, 13], [4.0, 2, 14, 22]),
        Case("edges between the pixels", [0.5, 3.25, 7.0, 5.5], [1.0, 1.5, 5.0, 9.5]),
    ],
    mistakes={
        "The logarithm is missing: dw is the logarithm of width / reference width, so equal sides give 0.": partial(
            _encode, growth=lambda a, b: a / b
        ),
        "Your dw is the growth as a fraction of the reference; it is the logarithm of the ratio of the widths.": partial(
            _encode, growth=lambda a, b: (a - b) / b
        ),
        "Your logarithm has a different base; dw and dh use the natural logarithm, np.log.": (
            partial(_encode, growth=lambda a, b: np.log2(a / b)),
            partial(_encode, growth=lambda a, b: np.log10(a / b)),
        ),
        "You compare the corners x1, y1; dx and dy say how far the centre has moved.": partial(
            _encode, point=lambda centre, sides: centre - sides / 2
        ),
        "Your shift is in pixels; divide dx by the reference's width and dy by its height, so that it means the same for "
        "small and large objects.": partial(_encode, units=lambda a, b: 1.0),
        "Width and height are swapped: dx is divided by the reference's width, dy by its height.": partial(
            _encode, units=lambda a, b: b[::-1]
        ),
        "Width and height are swapped: dw comes before dh.": partial(
            _encode, growth=lambda a, b: np.log(a / b)[::-1]
        ),
        "You divide by the sides of the box; the network does not know them. Divide by those of the reference.": partial(
            _encode, units=lambda a, b: a
        ),
        "Your deltas lead from the box to its reference; they should lead from the reference to the box.": (
            lambda box, reference: _encode(reference, box)
        ),
        "Those are torchvision's box weights, 10, 10, 5, 5; here the four numbers stay as they are.": partial(
            _encode, weights=[10, 10, 5, 5]
        ),
    },
    hints=[
        "Take the centre, the width and the height of both boxes.",
        "dx and dy: the distance between the centres, in widths and heights of the reference.",
        "dw = np.log(width / reference width), and dh likewise.",
    ],
)

# 06.3


def _class_nms(
    boxes, scores, classes, threshold, rivals=np.equal, close=np.greater, against_all=False, sign=-1
):
    kept, seen = [], []
    for row in np.argsort(sign * scores, kind="stable").tolist():
        if not any(
            rivals(classes[row], classes[k]) and close(by_hand.iou(boxes[row], boxes[k]), threshold)
            for k in (seen if against_all else kept)
        ):
            kept.append(row)
        seen.append(row)
    return kept


_RIDER = np.array([[10, 0, 20, 30], [11, 1, 21, 31], [10, 2, 21, 30], [60, 0, 70, 30]], float)
_CHAIN = [[0.0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10], [4, 0, 14, 10]]

NMS_PER_CLASS = Exercise(
    number="06.3",
    name="nms_per_class",
    form=rows("a list of row indices, the box with the highest score first"),
    answer=lambda boxes, scores, classes, threshold: by_hand.nms(boxes, scores, threshold, classes),
    cases=[
        Case("two detections of one object", _RIDER[[0, 1, 3]], [0.6, 0.9, 0.8], [1, 1, 1], 0.5),
        Case(
            "two classes at one location, such as a rider on a horse",
            _RIDER[[0, 1, 3]],
            [0.9, 0.8, 0.7],
            [1, 2, 1],
            0.5,
        ),
        Case(
            "two classes with a duplicate each, mixed by score",
            _RIDER[[3, 0, 2, 0, 1]],
            [0.5, 0.6, 0.7, 0.8, 0.9],
            [1, 1, 1, 2, 2],
            0.5,
        ),
        Case("a chain of three boxes of one class", _CHAIN, [0.9, 0.8, 0.7, 0.6], [3, 3, 3, 1], 0.3),
        Case(
            "boxes whose IoU equals the threshold, so it is not above it",
            [[0.0, 0, 4, 4], [0, 0, 4, 2], [0, 0, 4, 2]],
            [0.9, 0.8, 0.7],
            [1, 1, 2],
            0.5,
        ),
        Case("no box at all", np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), 0.5, note="Return []."),
    ],
    mistakes={
        "In your NMS boxes of different classes suppress each other: a rider would suppress the horse. "
        "Only a box of the same class counts.": (partial(_class_nms, rivals=lambda a, b: True)),
        "Your comparison of the classes is the wrong way round: boxes of the same class suppress each other.": partial(
            _class_nms, rivals=np.not_equal
        ),
        "Your NMS compares with boxes that were already suppressed: only a box that is kept may suppress another.": partial(
            _class_nms, against_all=True
        ),
        "A box whose IoU equals the threshold stays: only an IoU above the threshold suppresses.": partial(
            _class_nms, close=np.greater_equal
        ),
        "You begin with the lowest score: np.argsort sorts in ascending order. Sort by -scores.": partial(
            _class_nms, sign=1
        ),
        "The boxes are correct, but class after class; the box with the highest score of all comes first.": (
            lambda boxes, scores, classes, threshold: sorted(
                _class_nms(boxes, scores, classes, threshold), key=lambda row: (classes[row], -scores[row])
            )
        ),
        "The boxes are correct, but sorted by row; the box with the highest score comes first.": lambda *given: (
            sorted(_class_nms(*given))
        ),
        "You keep one box of each class; a class may have many objects, and only duplicate detections go.": partial(
            _class_nms, close=lambda overlap, threshold: True
        ),
    },
    hints=[
        "It is the NMS of chapter 01 with one more condition.",
        "A box goes if a box that is kept has the same class and overlaps it by more than the threshold.",
        "Go through all boxes from the highest score to the lowest, whatever their class; then the order "
        "is correct, too.",
    ],
)

# 06.4


def _level(
    box,
    size=lambda w, h: math.sqrt(w * h),
    logarithm=math.log2,
    whole=math.floor,
    limits=(2, 5),
    sign=1,
    first=4,
):
    found = whole(first + sign * logarithm(size(box[2] - box[0], box[3] - box[1]) / 224))
    return min(max(found, limits[0]), limits[1])


def _sized(width, height, note=""):
    return Case(f"a box of {width} × {height}", [5.0, 3, 5 + width, 3 + height], note=note)


PYRAMID_LEVEL = Exercise(
    number="06.4",
    name="pyramid_level",
    form=number("a number, the level"),
    answer=by_hand.pyramid_level,
    cases=[
        *(
            _sized(*size)
            for size in ((224, 224), (112, 112), (200, 200), (448, 112), (300, 300), (500, 500), (60, 400))
        ),
        _sized(8, 8, "The finest level is 2: there is no finer map."),
        _sized(1500, 900, "The coarsest level is 5: there is no coarser map."),
    ],
    mistakes={
        "There is no such level: the pyramid has levels 2 to 5. Set smaller levels to 2 and larger ones to 5.": partial(
            _level, limits=(-99, 99)
        ),
        "You round to the nearest level; the formula rounds down.": partial(_level, whole=round),
        "You round up; the formula rounds down.": partial(_level, whole=math.ceil),
        "You truncate towards 4, as int does to a negative logarithm; round the whole sum down, math.floor.": partial(
            _level, whole=lambda level: 4 + int(level - 4)
        ),
        "You compare the area with 224; take the square root of the area, √(width · height).": partial(
            _level, size=lambda w, h: w * h
        ),
        "You take the longer side; a long thin box has less area than that. Take √(width · height).": partial(
            _level, size=max
        ),
        "You take the shorter side; the level depends on the area. Take √(width · height).": partial(
            _level, size=min
        ),
        "Your logarithm has a different base: from one level to the next the stride doubles, so take "
        "math.log2.": partial(_level, logarithm=math.log),
        "Your levels are the wrong way round: a large box is read from a coarse map, which has a higher "
        "level.": partial(_level, sign=-1),
        "You begin at level 0; a box of 224 pixels belongs to level k0 = 4.": partial(_level, first=0),
    },
    hints=[
        "A box twice as wide and twice as high goes one level up. Which function counts doublings?",
        "math.floor(4 + math.log2(√(width · height) / 224)).",
        "Below 2 it becomes 2, above 5 it becomes 5.",
    ],
)

# 06.5


def _clamped(feature_map, row, column):
    return feature_map[min(max(row, 0), len(feature_map) - 1), min(max(column, 0), feature_map.shape[1] - 1)]


def _four(feature_map, y, x, weights=lambda t: (1 - t, t), get=_clamped):
    """The four neighbours, weighted; `get` may fail at the end of the map."""
    top, left = math.floor(y), math.floor(x)
    return sum(
        a * b * get(feature_map, top + i, left + j)
        for i, a in enumerate(weights(y - top))
        for j, b in enumerate(weights(x - left))
    )


def read_region(feature_map, box, size, stride, shift=0.0, at=0.5, before=float, read=_four, swapped=False):
    """RoI Align with one point in each bin, or what a slip makes of it."""
    x1, y1, x2, y2 = (before(edge / stride) - shift for edge in box)
    if swapped:
        x1, y1, x2, y2 = y1, x1, y2, x2
    steps = (np.arange(size) + at) / size
    return np.array(
        [[read(feature_map, y, x) for x in x1 + steps * (x2 - x1)] for y in y1 + steps * (y2 - y1)]
    )


_region = varied(read_region)


def _round_half_up(value):
    return float(math.floor(value + 0.5))


_RAMP = np.add.outer(10.0 * np.arange(7), np.arange(9.0))
_VALUES = np.random.default_rng(6).normal(0, 3, (8, 10)).round(2)

READ_REGION = Exercise(
    number="06.5",
    name="read_region",
    form=array("an array (size, size)"),
    answer=read_region,
    cases=[
        Case("a ramp and a box of one bin", _RAMP, [8.0, 4, 20, 16], 1, 4),
        Case("a ramp and a box with edges between the locations", _RAMP, [5.0, 3, 23, 17], 2, 4),
        Case("a map of random numbers, 2 × 2 bins", _VALUES, [7.0, 9, 30, 26], 2, 4),
        Case("a map of random numbers, 3 × 3 bins and a stride of 8", _VALUES, [13.0, 9, 50, 41], 3, 8),
        Case(
            "a point on the last row and column of the map",
            _VALUES[:, :8],
            [12.0, 12, 16, 16],
            1,
            2,
            note="At the last row or column there is no next neighbour: use the last row or column again.",
        ),
    ],
    mistakes={
        "You read the nearest location; interpolate bilinearly between the locations.": _region(
            read=lambda f, y, x: _clamped(f, math.floor(y + 0.5), math.floor(x + 0.5))
        ),
        "You read only the upper left neighbour; all four neighbours count, and nearer ones count more.": _region(
            read=lambda f, y, x: _clamped(f, math.floor(y), math.floor(x))
        ),
        "Your box is rounded to whole locations, as RoI Pool does; RoI Align rounds nothing.": (
            _region(before=_round_half_up),
            _region(before=math.floor),
        ),
        "That is RoI Pool: it rounds the box and takes the largest value. RoI Align interpolates between "
        "the locations.": (
            lambda f, box, size, stride: by_hand.roi_pool(f[..., None], box, size, 1 / stride)[..., 0]
        ),
        "Your samples are half a location off: here the value of row i and column j lies at i and j "
        "themselves, so nothing is subtracted.": _region(shift=0.5),
        "x and y are swapped: a box is x1, y1, x2, y2, and the map's first axis is y.": _region(swapped=True),
        "The weights are exchanged: the nearer neighbour counts more, with 1 - t instead of t.": _region(
            read=partial(_four, weights=lambda t: (t, 1 - t))
        ),
        "You give all four neighbours the same weight; nearer neighbours must count more.": _region(
            read=partial(_four, weights=lambda t: (0.5, 0.5))
        ),
        "You sample at the beginning of each bin; sample at its centre.": _region(at=0.0),
        "Your neighbour lies outside the map: at the last row or column use that row or column again.": _region(
            read=partial(_four, get=lambda f, row, column: f[row, column])
        ),
        "Pixels are not locations of the map: divide the box by the stride first.": (
            lambda f, box, size, stride: read_region(f, box, size, 1)
        ),
    },
    hints=[
        "Divide the box by the stride, and do not round. Bin number k of n begins at y1 + k · (y2 - y1) / n.",
        "Around its middle, at y, x, lie four neighbours: rows floor(y) and floor(y) + 1, columns likewise.",
        "With t = y - floor(y), the upper row has the weight 1 - t and the lower row t; columns likewise. "
        "np.clip keeps the rows inside the map.",
    ],
)

# 06.6, the research exercise


def paste_mask(
    grid,
    box,
    image_size,
    order=1,
    at=lambda fraction, cells: fraction * cells - 0.5,
    pixel=0.5,
    edge=lambda value: value,
    cut=lambda value: value >= 0.5,
    inside=True,
):
    x1, y1, x2, y2 = (edge(value) for value in box)
    down = (np.arange(image_size[0]) + pixel - y1) / (y2 - y1)
    across = (np.arange(image_size[1]) + pixel - x1) / (x2 - x1)
    points = np.meshgrid(at(down, len(grid)), at(across, len(grid)), indexing="ij")
    value = ndimage.map_coordinates(grid.astype(float), points, order=order, mode="nearest")
    if inside:
        value = value * np.logical_and.outer((down >= 0) & (down <= 1), (across >= 0) & (across <= 1))
    return cut(value)


_paste = varied(paste_mask)

_SLOPE = np.add.outer(np.linspace(0.05, 0.6, 6), np.linspace(0.0, 0.5, 6)) ** 1.1
_SOFT = ndimage.gaussian_filter(np.random.default_rng(1).random((7, 7)), 1.0)
_SOFT = (_SOFT - _SOFT.min()) / (_SOFT.max() - _SOFT.min())

PASTE_MASK = Exercise(
    number="06.6",
    name="paste_mask",
    form=Form(
        "a bool mask of the image's size",
        lambda a, b: bool(np.allclose(a, b)),
        contrast=lambda given, right: (
            f"{np.count_nonzero(np.abs(given - right.astype(float)) > 1e-6)} of {right.size} pixels are wrong"
        ),
    ),
    answer=paste_mask,
    cases=[
        Case("a full grid and a box of whole pixels", np.ones((4, 4)), [3.0, 2.0, 9.0, 6.0], (10, 12)),
        Case("a sloping grid in a box of 12 × 9", _SLOPE, [2.0, 3.0, 14.0, 12.0], (16, 18)),
        Case("a box with edges between the pixels", _SLOPE, [2.7, 3.4, 13.6, 11.7], (16, 18)),
        Case("a blurred blob, stretched", _SOFT, [1.3, 0.6, 22.6, 13.4], (15, 24)),
        Case("a box smaller than its grid", _SOFT, [5.2, 4.3, 9.9, 9.8], (14, 14)),
        Case(
            "a box that reaches beyond the image",
            _SLOPE,
            [-4.0, 5.0, 9.0, 20.0],
            (12, 14),
            note="Pixels outside the image are left out; the others stay where they are.",
        ),
    ],
    mistakes={
        "x and y are swapped in your grid: its first axis goes down, as the image's does.": (
            lambda grid, box, image_size: paste_mask(grid.T, box, image_size)
        ),
        "You take the nearest cell of the grid; interpolate bilinearly between the cells.": _paste(order=0),
        "Your box is rounded to whole pixels: the mask moves by up to half a pixel and is stretched, which "
        "matters most for "
        "a small object. Use the box as it is.": _paste(edge=_round_half_up),
        "Your box is truncated to whole pixels, as int does: the mask moves by up to a pixel. Use the box "
        "as it is.": _paste(edge=int),
        "You align the centres of the outer cells with the edges of the box; a cell has a width, so the "
        "first centre lies half a cell inside: fraction · cells - 0.5.": _paste(
            at=lambda fraction, cells: fraction * (cells - 1)
        ),
        "Your grid is half a cell off: the value of cell k lies at k + 0.5 cells from the box's edge; "
        "subtract 0.5.": _paste(at=lambda fraction, cells: fraction * cells),
        "Your mask is half a pixel off: the centre of pixel j lies at j + 0.5.": _paste(pixel=0.0),
        "You return probabilities; a mask is True where they reach 0.5.": _paste(cut=lambda value: value),
        "You threshold the grid at 0.5 before you resize it, so the grid's steps appear in the outline. "
        "Resize first.": (lambda grid, box, image_size: paste_mask(grid >= 0.5, box, image_size)),
        "You resize the grid to the whole image; it belongs inside its box.": (
            lambda grid, box, size: paste_mask(grid, (0, 0, size[1], size[0]), size)
        ),
        "Your mask extends beyond its box; outside the box it must be False.": _paste(inside=False),
    },
    hints=[
        "Work backwards: for each pixel of the image, find where in the grid its centre lies.",
        "Column j lies at the fraction (j + 0.5 - x1) / (x2 - x1) of the box. Which cell is that?",
        "At fraction · cells - 0.5, since a cell has its value at its centre. "
        "ndimage.map_coordinates(grid, [rows, columns], order=1, mode='nearest') reads there; then "
        "threshold at 0.5, and keep only pixels whose centre lies in the box.",
    ],
)

# 06.7, with Keras


def mask_head(
    features,
    classes,
    filters,
    convolutions=2,
    activation="relu",
    up=lambda layers, filters: layers.Conv2DTranspose(filters, 2, strides=2, activation="relu"),
    last=None,
    kernel=1,
    apart=True,
):
    """`apart`: each box by itself; otherwise all boxes of an image are one box with many channels."""
    from keras import layers, ops

    boxes, side, _, channels = features.shape[1:]
    if apart:
        x = ops.reshape(features, (-1, side, side, channels))
    else:
        x = ops.reshape(ops.transpose(features, (0, 2, 3, 1, 4)), (-1, side, side, boxes * channels))
    for _ in range(convolutions):
        x = layers.Conv2D(filters, 3, padding="same", activation=activation)(x)
    x = up(layers, filters)(x)
    x = layers.Conv2D(classes * (1 if apart else boxes), kernel, padding="same", activation=last)(x)
    side = x.shape[1]
    if apart:
        return ops.reshape(x, (-1, boxes, side, side, classes))
    return ops.transpose(ops.reshape(x, (-1, side, side, boxes, classes)), (0, 3, 1, 2, 4))


def _head_behaviour(head, boxes, side, channels, classes):
    """Shape, parameters, the sign and spread of the output, and whether all boxes share the weights but not the mask."""
    import keras

    keras.utils.set_random_seed(0)
    inputs, rng = keras.Input((boxes, side, side, channels)), np.random.default_rng(0)
    out = head(inputs, classes, 6)
    if out is None or out is ...:
        raise NotImplementedError
    model = keras.Model(inputs, out)
    given = rng.normal(size=(2, *inputs.shape[1:])).astype("float32")
    given[:, 1] = given[:, 0]  # two boxes with the same features
    other = given.copy()
    other[0, -1] += 1

    def predicted(arrays):
        return keras.ops.convert_to_numpy(model(arrays))

    before, after = predicted(given), predicted(other)
    if before.ndim != 5 or before.shape[:2] != (2, boxes):
        raise ValueError(
            f"expected an output (batch, {boxes} boxes, height, width, classes), got the shape {before.shape}"
        )
    moved = ~np.isclose(before, after, atol=1e-6).all((2, 3, 4))
    return [
        *before.shape[2:],
        model.count_params(),
        before.min() < 0 and not np.allclose(before.sum(-1), 1),
        np.allclose(before[:, 0], before[:, 1], atol=1e-5),
        moved.sum() == 1 and moved[0, -1],
        relus(model, [np.abs(given)]),
    ]


MASK_HEAD = Exercise(
    number="06.7",
    name="mask_head",
    form=measured(
        "a Keras tensor",
        *("height", "width", "classes", "parameters", "logits, of both signs (1: yes)"),
        "boxes with the same features get the same mask (1: yes)",
        "a box changes its own mask only (1: yes)",
        "layers with a ReLU",
    ),
    answer=mask_head,
    measure=_head_behaviour,
    live=True,
    seconds=40.0,
    cases=[
        Case("3 boxes with features of 7 × 7 × 5, 4 classes", 3, 7, 5, 4),
        Case("2 boxes with features of 4 × 4 × 3, 2 classes", 2, 4, 3, 2),
    ],
    mistakes={
        "The boxes of an image are mixed: all of them go through the same layers, each by itself. Make them the batch.": (
            partial(mask_head, apart=False)
        ),
        "Only one 3 × 3 convolution; there are two.": partial(mask_head, convolutions=1),
        "Your 3 × 3 convolutions have no ReLU.": partial(mask_head, activation=None),
        "The mask has the size of the features; a transposed convolution doubles it.": partial(
            mask_head, up=lambda layers, filters: layers.Identity()
        ),
        "Your upsampling has no weights; here it is a transposed convolution, which has.": partial(
            mask_head, up=lambda layers, filters: layers.UpSampling2D(2)
        ),
        "Your transposed convolution has another kernel; here it is 2 × 2 with stride 2.": (
            partial(
                mask_head,
                up=lambda layers, filters: layers.Conv2DTranspose(
                    filters, 3, strides=2, padding="same", activation="relu"
                ),
            ),
            partial(
                mask_head,
                up=lambda layers, filters: layers.Conv2DTranspose(filters, 3, strides=2, padding="same"),
            ),
        ),
        "The last layer has an activation; return logits, the loss applies the sigmoid.": (
            partial(mask_head, last="sigmoid"),
            partial(mask_head, last="relu"),
            partial(mask_head, last="softmax"),
        ),
        "The last convolution is 1 × 1; yours is 3 × 3.": partial(mask_head, kernel=3),
    },
    hints=[
        "Boxes are independent, like images: keras.ops.reshape(features, (-1, side, side, channels)) makes them the batch.",
        "Two Conv2D(filters, 3, padding='same', activation='relu'), a Conv2DTranspose(filters, 2, strides=2, "
        "activation='relu'), a Conv2D(classes, 1).",
        "At the end reshape to (-1, boxes, 2 · side, 2 · side, classes). keras.layers.TimeDistributed does both reshapes.",
    ],
)

EXERCISES = (ANCHORS, ENCODE, NMS_PER_CLASS, PYRAMID_LEVEL, READ_REGION, PASTE_MASK, MASK_HEAD)
