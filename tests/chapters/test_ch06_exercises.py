"""Chapter 06's checks: right answers pass, and each wrong one that people give is refused with its own sentence."""

import math

import keras
import numpy as np
from scipy import ndimage
from scipy.interpolate import RegularGridInterpolator
from study_answers import class_of_tests

from course_lib.ops import anchors, box_coding, masks, nms, roi
from course_lib.teaching.checker import find

# 06.1


def anchors_by_grid(feature_size, stride, sizes, ratios):
    root = np.sqrt(ratios)
    shapes = np.stack([np.outer(1 / root, sizes), np.outer(root, sizes)], axis=-1).reshape(-1, 2)
    y, x = np.mgrid[: feature_size[0], : feature_size[1]] * stride
    centres = np.stack([x, y], axis=-1).reshape(-1, 1, 2)
    return np.concatenate([centres - shapes / 2, centres + shapes / 2], axis=-1).reshape(-1, 4)


def anchors_by_list(feature_size, stride, sizes, ratios):
    return [
        [j * stride - w / 2, i * stride - h / 2, j * stride + w / 2, i * stride + h / 2]
        for i in range(feature_size[0])
        for j in range(feature_size[1])
        for r in ratios
        for w, h in [(math.sqrt(s * s / r), math.sqrt(s * s * r)) for s in sizes]
    ]


def anchors_lying_down(feature_size, stride, sizes, ratios):
    return anchors_by_grid(feature_size, stride, sizes, 1 / np.asarray(ratios))


def anchors_of_other_areas(feature_size, stride, sizes, ratios):
    return anchors_by_grid(feature_size, stride, sizes, np.square(ratios))


def anchors_in_the_cells_middle(feature_size, stride, sizes, ratios):
    return anchors_by_grid(feature_size, stride, sizes, ratios) + stride / 2


def anchors_without_stride(feature_size, stride, sizes, ratios):
    return anchors_by_grid(feature_size, 1, sizes, ratios)


def anchors_down_the_columns(feature_size, stride, sizes, ratios):
    found = anchors_by_grid(feature_size, stride, sizes, ratios)
    return found.reshape(*feature_size, -1, 4).transpose(1, 0, 2, 3).reshape(-1, 4)


def anchors_shape_after_shape(feature_size, stride, sizes, ratios):
    found = anchors_by_grid(feature_size, stride, sizes, ratios)
    return found.reshape(-1, len(sizes) * len(ratios), 4).swapaxes(0, 1).reshape(-1, 4)


def anchors_as_centre_and_size(feature_size, stride, sizes, ratios):
    x1, y1, x2, y2 = anchors_by_grid(feature_size, stride, sizes, ratios).T
    return np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], axis=1)


def anchors_rows_first(feature_size, stride, sizes, ratios):
    return anchors_by_grid(feature_size, stride, sizes, ratios)[:, [1, 0, 3, 2]]


# 06.2


def encode_by_the_course(box, reference):
    rows = (np.array([each], "float32") for each in (box, reference))
    return keras.ops.convert_to_numpy(box_coding.encode_boxes(*rows))[0]


def encode_plainly(box, reference):
    w, h = box[2] - box[0], box[3] - box[1]
    w_ref, h_ref = reference[2] - reference[0], reference[3] - reference[1]
    dx = (box[0] + w / 2 - reference[0] - w_ref / 2) / w_ref
    dy = (box[1] + h / 2 - reference[1] - h_ref / 2) / h_ref
    return [dx, dy, math.log(w) - math.log(w_ref), math.log(h) - math.log(h_ref)]


def encode_without_log(box, reference):
    dx, dy, dw, dh = encode_plainly(box, reference)
    return dx, dy, math.exp(dw), math.exp(dh)


def encode_as_growth(box, reference):
    dx, dy, dw, dh = encode_plainly(box, reference)
    return dx, dy, math.expm1(dw), math.expm1(dh)


def encode_by_corners(box, reference):
    w_ref, h_ref = reference[2] - reference[0], reference[3] - reference[1]
    return [
        (box[0] - reference[0]) / w_ref,
        (box[1] - reference[1]) / h_ref,
        *encode_plainly(box, reference)[2:],
    ]


def encode_in_pixels(box, reference):
    dx, dy, dw, dh = encode_plainly(box, reference)
    return dx * (reference[2] - reference[0]), dy * (reference[3] - reference[1]), dw, dh


def encode_swapped(box, reference):
    dx, dy, dw, dh = encode_plainly(box, reference)
    return dx, dy, dh, dw


def encode_units_swapped(box, reference):
    dx, dy, dw, dh = encode_in_pixels(box, reference)
    return dx / (reference[3] - reference[1]), dy / (reference[2] - reference[0]), dw, dh


def encode_backwards(box, reference):
    return encode_plainly(reference, box)


def encode_in_units_of_the_box(box, reference):
    return [
        -encode_plainly(reference, box)[0],
        -encode_plainly(reference, box)[1],
        *encode_plainly(box, reference)[2:],
    ]


# 06.3


def iou(a, b):
    width, height = (max(0, min(a[k + 2], b[k + 2]) - max(a[k], b[k])) for k in (0, 1))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def class_nms_by_shifting(boxes, scores, classes, limit):
    """torchvision's trick: move each class to a place of its own, then suppress all at once."""
    return plain_nms(boxes + 1000.0 * np.asarray(classes, float)[:, None], scores, limit)


def class_nms_by_class(boxes, scores, classes, limit):
    classes = np.asarray(classes)
    kept = []
    for one in set(classes.tolist()):
        rows = np.flatnonzero(classes == one)
        kept += [int(rows[k]) for k in plain_nms(boxes[rows], np.asarray(scores)[rows], limit)]
    return sorted(kept, key=lambda row: -scores[row])


def plain_nms(boxes, scores, limit, at=False, against_all=False):
    waiting = sorted(range(len(boxes)), key=lambda row: -scores[row])
    kept, gone = [], []
    for row in waiting:
        overlaps = [iou(boxes[row], boxes[other]) for other in (kept + gone if against_all else kept)]
        (gone if any(o >= limit if at else o > limit for o in overlaps) else kept).append(row)
    return kept


def class_nms_without_classes(boxes, scores, classes, limit):
    return plain_nms(boxes, scores, limit)


def class_nms_suppressed_suppress(boxes, scores, classes, limit):
    return plain_nms(boxes + 1000.0 * np.asarray(classes, float)[:, None], scores, limit, against_all=True)


def class_nms_at_the_limit(boxes, scores, classes, limit):
    return plain_nms(boxes + 1000.0 * np.asarray(classes, float)[:, None], scores, limit, at=True)


def class_nms_class_after_class(boxes, scores, classes, limit):
    kept = class_nms_by_class(boxes, scores, classes, limit)
    return [row for one in sorted(set(classes)) for row in kept if classes[row] == one]


def class_nms_other_class_only(boxes, scores, classes, limit):
    kept = []
    for row in sorted(range(len(boxes)), key=lambda row: -scores[row]):
        if all(classes[row] == classes[k] or iou(boxes[row], boxes[k]) <= limit for k in kept):
            kept.append(row)
    return kept


# 06.4


def level_by_the_course(box):
    found = roi.roi_levels(np.array([[box]], "float32"), [1 / 4, 1 / 8, 1 / 16, 1 / 32])
    return 2 + int(keras.ops.convert_to_numpy(found)[0, 0])


def level_by_halving(box):
    area, level = (box[2] - box[0]) * (box[3] - box[1]), 5
    while level > 2 and area < (224 * 2.0 ** (level - 4)) ** 2:
        level -= 1
    return level


def level_unlimited(box):
    return math.floor(4 + math.log2(math.sqrt((box[2] - box[0]) * (box[3] - box[1])) / 224))


def level_rounded(box):
    area = (box[2] - box[0]) * (box[3] - box[1])
    return int(np.clip(np.rint(4 + np.log2(np.sqrt(area) / 224)), 2, 5))


def level_cut(box):
    area = (box[2] - box[0]) * (box[3] - box[1])
    return int(np.clip(4 + int(np.log2(np.sqrt(area) / 224)), 2, 5))


def level_of_the_area(box):
    area = (box[2] - box[0]) * (box[3] - box[1])
    return int(np.clip(np.floor(4 + np.log2(area / 224)), 2, 5))


def level_of_the_longer_side(box):
    return level_by_halving([0, 0, *[max(box[2] - box[0], box[3] - box[1])] * 2])


def level_by_natural_logarithm(box):
    area = (box[2] - box[0]) * (box[3] - box[1])
    return int(np.clip(np.floor(4 + np.log(np.sqrt(area) / 224)), 2, 5))


# 06.5


def region_by_the_course(feature_map, box, size, stride):
    found = roi.roi_align(
        feature_map[None, ..., None].astype("float32"), np.array([[box]], "float32"), size, 1 / stride, 1
    )
    return keras.ops.convert_to_numpy(found)[0, 0, ..., 0]


def points_of(box, size, stride, place=0.5):
    x1, y1, x2, y2 = np.asarray(box) / stride
    share = (np.arange(size) + place) / size
    return np.meshgrid(y1 + share * (y2 - y1), x1 + share * (x2 - x1), indexing="ij")


def region_by_scipy(feature_map, box, size, stride):
    axes = [np.arange(side) for side in feature_map.shape]
    read = RegularGridInterpolator(axes, feature_map)
    return read(np.stack(points_of(box, size, stride), axis=-1))


def read(feature_map, points, order=1):
    return ndimage.map_coordinates(feature_map, points, order=order, mode="nearest")


def region_of_the_nearest(feature_map, box, size, stride):
    rows, columns = (np.floor(points + 0.5).astype(int) for points in points_of(box, size, stride))
    return feature_map[rows, columns]


def region_of_the_upper_left(feature_map, box, size, stride):
    rows, columns = (points.astype(int) for points in points_of(box, size, stride))
    return feature_map[rows, columns]


def region_rounded(feature_map, box, size, stride):
    whole = np.floor(np.asarray(box) / stride + 0.5)
    return read(feature_map, points_of(whole, size, 1))


def region_half_off(feature_map, box, size, stride):
    return read(feature_map, [points - 0.5 for points in points_of(box, size, stride)])


def region_swapped(feature_map, box, size, stride):
    return read(feature_map, points_of([box[1], box[0], box[3], box[2]], size, stride))


def region_from_the_bins_beginning(feature_map, box, size, stride):
    return read(feature_map, points_of(box, size, stride, place=0))


def region_without_clamp(feature_map, box, size, stride, wrong=False):
    out = np.zeros((size, size))
    for place in np.ndindex(size, size):
        y, x = (points[place] for points in points_of(box, size, stride))
        r, c = int(y), int(x)
        t, s = (1 - y + r, 1 - x + c) if wrong else (y - r, x - c)
        if wrong:
            quad = np.pad(feature_map, (0, 1), mode="edge")[r : r + 2, c : c + 2]
        else:
            quad = np.array([[feature_map[r + i, c + j] for j in (0, 1)] for i in (0, 1)])
        out[place] = [1 - t, t] @ quad @ [1 - s, s]
    return out


def region_with_weights_exchanged(feature_map, box, size, stride):
    return region_without_clamp(feature_map, box, size, stride, wrong=True)


def region_pooled(feature_map, box, size, stride):
    found = roi.roi_pool(
        feature_map[None, ..., None].astype("float32"), np.array([[box]], "float32"), size, 1 / stride
    )
    return keras.ops.convert_to_numpy(found)[0, 0, ..., 0]


# 06.6


def hats(length, near, far, cells):
    """Interpolation weights of each pixel, and 0 for pixels whose middle lies outside."""
    share = (np.arange(length) + 0.5 - near) / (far - near)
    at = np.clip(share * cells - 0.5, 0, cells - 1)[:, None]
    return np.maximum(1 - np.abs(at - np.arange(cells)), 0) * ((share >= 0) & (share <= 1))[:, None]


def paste_by_weights(grid, box, image_size):
    rows, columns = (hats(image_size[k], box[1 - k], box[3 - k], len(grid)) for k in (0, 1))
    return rows @ grid @ columns.T >= 0.5


def paste_pixel_by_pixel(grid, box, image_size):
    n = len(grid)
    inner = RegularGridInterpolator([np.arange(n)] * 2, grid)
    out = np.zeros(image_size, bool)
    for row, column in np.ndindex(*image_size):
        x, y = column + 0.5, row + 0.5
        if box[0] <= x <= box[2] and box[1] <= y <= box[3]:
            at = [(y - box[1]) / (box[3] - box[1]) * n - 0.5, (x - box[0]) / (box[2] - box[0]) * n - 0.5]
            out[row, column] = inner(np.clip(at, 0, n - 1))[0] >= 0.5
    return out


def paste_transposed(grid, box, image_size):
    return paste_by_weights(grid.T, box, image_size)


def paste_nearest(grid, box, image_size):
    out = np.zeros(image_size, bool)
    for row, column in np.ndindex(*image_size):
        i = math.floor((row + 0.5 - box[1]) / (box[3] - box[1]) * len(grid))
        j = math.floor((column + 0.5 - box[0]) / (box[2] - box[0]) * len(grid))
        if 0 <= min(i, j) and max(i, j) < len(grid):
            out[row, column] = grid[i, j] >= 0.5
    return out


def paste_rounded(grid, box, image_size):
    return paste_by_weights(grid, np.floor(np.asarray(box) + 0.5), image_size)


def paste_cut_box(grid, box, image_size):
    return paste_by_weights(grid, np.trunc(box), image_size)


def paste_cut_first(grid, box, image_size):
    return paste_by_weights((grid >= 0.5).astype(float), box, image_size)


def paste_half_a_pixel_off(grid, box, image_size):
    return paste_by_weights(grid, np.asarray(box) + 0.5, image_size)


def paste_probabilities(grid, box, image_size):
    rows, columns = (hats(image_size[k], box[1 - k], box[3 - k], len(grid)) for k in (0, 1))
    return rows @ grid @ columns.T


RIGHT = {
    "06.1": [anchors_by_grid, anchors_by_list],
    "06.2": [encode_by_the_course, encode_plainly],
    "06.3": [class_nms_by_shifting, class_nms_by_class],
    "06.4": [level_by_the_course, level_by_halving],
    "06.5": [region_by_the_course, region_by_scipy],
    "06.6": [paste_by_weights, paste_pixel_by_pixel],
}
WRONG = {
    "06.1": [
        (anchors_lying_down, "Width and height are swapped"),
        (anchors_of_other_areas, "Your anchors of other ratios have other areas"),
        (anchors_in_the_cells_middle, "Your anchors stand in the middle of a cell"),
        (anchors_without_stride, "Your anchors stand one pixel apart"),
        (anchors_down_the_columns, "You go down the columns"),
        (anchors_shape_after_shape, "all shapes of one position stand together"),
        (anchors_as_centre_and_size, "You give centre and size"),
        (anchors_rows_first, "Rows and columns are mixed up"),
    ],
    "06.2": [
        (encode_without_log, "The logarithm is missing"),
        (encode_as_growth, "Your dw is the growth as a share"),
        (encode_by_corners, "You compare the corners"),
        (encode_in_pixels, "Your shift is in pixels"),
        (encode_swapped, "Width and height are swapped: dw comes before dh"),
        (encode_units_swapped, "Width and height are swapped: dx is divided by the reference's width"),
        (encode_backwards, "You lead from the box to its reference"),
        (encode_in_units_of_the_box, "You divide by the sides of the box"),
    ],
    "06.3": [
        (class_nms_without_classes, "Boxes of another class suppress each other"),
        (class_nms_other_class_only, "Your comparison of the classes is the wrong way round"),
        (class_nms_suppressed_suppress, "Your NMS compares with boxes that were already suppressed"),
        (class_nms_at_the_limit, "A box whose IoU is exactly the limit stays"),
        (class_nms_class_after_class, "The right boxes, but class after class"),
    ],
    "06.4": [
        (level_unlimited, "There is no such level"),
        (level_rounded, "You round to the nearest level"),
        (level_cut, "You cut towards 4, as int does"),
        (level_of_the_area, "You compare the area with 224"),
        (level_of_the_longer_side, "You take the longer side"),
        (level_by_natural_logarithm, "Your logarithm has another base"),
    ],
    "06.5": [
        (region_of_the_nearest, "You read the nearest position"),
        (region_of_the_upper_left, "You read the upper left neighbour"),
        (region_rounded, "Your box is rounded to whole positions, as RoI Pool does"),
        (region_half_off, "You are half a position off"),
        (region_swapped, "x and y are swapped"),
        (region_from_the_bins_beginning, "You read at the beginning of each bin"),
        (region_without_clamp, "Your neighbour lies outside of the map"),
        (region_with_weights_exchanged, "The wrong neighbours get the weights"),
        (region_pooled, "That is RoI Pool"),
    ],
    "06.6": [
        (paste_transposed, "x and y are swapped in your grid"),
        (paste_nearest, "You take the nearest cell of the grid"),
        (paste_rounded, "Your box is rounded to whole pixels"),
        (paste_cut_box, "Your box is cut to whole pixels, as int does"),
        (paste_cut_first, "You cut the grid at 0.5 before you stretch it"),
        (paste_half_a_pixel_off, "You are half a pixel off"),
        (paste_probabilities, "You return probabilities"),
    ],
}

TestAnswers = class_of_tests("06", RIGHT, WRONG)


def test_the_anchors_are_those_of_the_library_but_for_its_rounding():
    for case in find("06.1").cases():
        feature_size, stride, sizes, ratios = case.arguments
        wanted = anchors.grid_anchors(anchors.base_anchors(sizes, ratios), feature_size, (stride, stride))
        assert np.abs(find("06.1").answer(*case.arguments) - wanted).max() <= 0.5


def test_nms_is_that_of_the_library_class_by_class():
    for case in find("06.3").cases():
        boxes, scores, classes, limit = case.arguments
        for one in set(classes):
            rows = np.flatnonzero(np.asarray(classes) == one)
            kept, valid = nms.nms(
                boxes[rows].astype("float32"), np.asarray(scores, "float32")[rows], limit, len(rows)
            )
            kept, valid = keras.ops.convert_to_numpy(kept), keras.ops.convert_to_numpy(valid)
            ours = [row for row in find("06.3").answer(*case.arguments) if classes[row] == one]
            assert ours == rows[kept[valid]].tolist()


def test_a_pasted_mask_is_the_librarys_exact_one_moved_by_its_half_pixel():
    """The library's pixels have their values at their index; beyond the grid's outer cells it falls to 0."""
    for case in find("06.6").cases():
        grid, box, image_size = case.arguments
        framed = np.pad(grid, 2)
        value = masks.whole_image_masks(framed[None], np.array([box]) - 0.5, image_size, None, "exact")[0]
        clear = np.abs(value - 0.5) > 1e-5  # the library computes in float32
        assert clear.mean() > 0.9
        np.testing.assert_array_equal(
            find("06.6").answer(framed, box, image_size)[clear], value[clear] >= 0.5
        )
