"""The parts of Mask R-CNN in their simplest form: plain loops over boxes, points and pixels.

Every function here has a fast counterpart in this package (`anchors`, `box_coding`, `nms`, `roi`, `masks`, `matching`,
`sampling`) that gives the same numbers; the tests compare them. These are for reading: one image, no batch, no padding.
Boxes are `x1, y1, x2, y2` in pixels; feature maps `(height, width, channels)`.
"""

import math

import numpy as np


def iou(a, b) -> float:
    """Intersection over union of two boxes `(4,)`; 0 where one of them is empty."""
    a, b = [float(edge) for edge in a], [float(edge) for edge in b]
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    area_a = (a[2] - a[0]) * (a[3] - a[1])
    area_b = (b[2] - b[0]) * (b[3] - b[1])
    return shared / (area_a + area_b - shared)


def anchors(image_size, feature_size, sizes, aspect_ratios) -> np.ndarray:
    """The anchors of one feature map, `(height · width · ratios · sizes, 4)`.

    Args:
        image_size: height and width in pixels.
        feature_size: height and width of the map.
        sizes: sides of the square anchors in pixels.
        aspect_ratios: height / width of each shape.
    """
    stride_y, stride_x = image_size[0] // feature_size[0], image_size[1] // feature_size[1]
    found = []
    for row in range(feature_size[0]):
        for column in range(feature_size[1]):
            for ratio in aspect_ratios:
                for size in sizes:
                    half_width = round(size / math.sqrt(ratio) / 2)
                    half_height = round(size * math.sqrt(ratio) / 2)
                    x, y = column * stride_x, row * stride_y
                    found.append([x - half_width, y - half_height, x + half_width, y + half_height])
    return np.array(found, np.float32)


def encode(box, reference, weights=(1, 1, 1, 1)) -> np.ndarray:
    """dx, dy, dw, dh from a reference box to another, `(4,)`."""
    width, height = box[2] - box[0], box[3] - box[1]
    width_ref, height_ref = reference[2] - reference[0], reference[3] - reference[1]
    if min(width, height, width_ref, height_ref) <= 0:
        return np.zeros(4)
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    x_ref, y_ref = (reference[0] + reference[2]) / 2, (reference[1] + reference[3]) / 2
    return np.array(
        [
            weights[0] * (x - x_ref) / width_ref,
            weights[1] * (y - y_ref) / height_ref,
            weights[2] * math.log(width / width_ref),
            weights[3] * math.log(height / height_ref),
        ]
    )


def decode(deltas, reference, weights=(1, 1, 1, 1)) -> np.ndarray:
    """The box `(4,)` that dx, dy, dw, dh encode relative to a reference."""
    dx, dy, dw, dh = (delta / weight for delta, weight in zip(deltas, weights, strict=True))
    width_ref, height_ref = reference[2] - reference[0], reference[3] - reference[1]
    x = (reference[0] + reference[2]) / 2 + dx * width_ref
    y = (reference[1] + reference[3]) / 2 + dy * height_ref
    width = width_ref * math.exp(min(dw, math.log(1000 / 16)))  # an untrained model may say anything
    height = height_ref * math.exp(min(dh, math.log(1000 / 16)))
    return np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])


def clip(box, image_size) -> np.ndarray:
    """The part of a box `(4,)` that lies in the image of `image_size` (height, width)."""
    height, width = image_size
    return np.array(
        [
            min(max(box[0], 0), width),
            min(max(box[1], 0), height),
            min(max(box[2], 0), width),
            min(max(box[3], 0), height),
        ]
    )


def nms(boxes, scores, iou_threshold, classes=None) -> list[int]:
    """Rows of the boxes that non-maximum suppression keeps, highest score first.

    With `classes`, only boxes of one class remove each other.
    """
    waiting = sorted(range(len(boxes)), key=lambda row: -scores[row])  # equal scores stay in their order
    kept = []
    while waiting:
        best = waiting.pop(0)
        kept.append(best)
        waiting = [
            row
            for row in waiting
            if (classes is not None and classes[row] != classes[best])
            or iou(boxes[best], boxes[row]) <= iou_threshold
        ]
    return kept


def bilinear(feature_map, y, x) -> np.ndarray:
    """The value `(channels,)` of a feature map between its locations; 0 more than one location outside."""
    height, width = feature_map.shape[:2]
    if y < -1 or y > height or x < -1 or x > width:
        return np.zeros(feature_map.shape[2])
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = math.floor(y), math.floor(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, across = y - top, x - left
    return (
        (1 - down) * (1 - across) * feature_map[top, left]
        + (1 - down) * across * feature_map[top, right]
        + down * (1 - across) * feature_map[bottom, left]
        + down * across * feature_map[bottom, right]
    )


def sample_points(box, size, spatial_scale, sampling_ratio=2, aligned=False) -> np.ndarray:
    """Where RoI Align reads: `(size, size, points, 2)`, y and x in positions of the map, for each bin all its points.

    A `sampling_ratio` of 0 or less takes as many along each axis as positions fall into a bin, rounded up.
    """
    x1, y1, x2, y2 = (edge * spatial_scale - (0.5 if aligned else 0) for edge in box)
    width, height = x2 - x1, y2 - y1
    if not aligned:
        width, height = max(width, 1), max(height, 1)
    bin_width, bin_height = width / size, height / size
    across = sampling_ratio if sampling_ratio > 0 else max(math.ceil(bin_width), 0)
    down = sampling_ratio if sampling_ratio > 0 else max(math.ceil(bin_height), 0)
    points = np.zeros((size, size, down * across, 2))
    for row in range(size):
        for column in range(size):
            for i in range(down):
                for j in range(across):
                    y = y1 + row * bin_height + (i + 0.5) * bin_height / down
                    x = x1 + column * bin_width + (j + 0.5) * bin_width / across
                    points[row, column, i * across + j] = y, x
    return points


def roi_align(feature_map, box, size, spatial_scale, sampling_ratio=2, aligned=False) -> np.ndarray:
    """RoI Align of one box: the mean over the points of each bin, `(size, size, channels)`."""
    points = sample_points(box, size, spatial_scale, sampling_ratio, aligned)
    read = np.zeros((size, size, feature_map.shape[2]))
    for row in range(size):
        for column in range(size):
            for y, x in points[row, column]:
                read[row, column] += bilinear(feature_map, y, x) / points.shape[2]
    return read


def roi_pool(feature_map, box, size, spatial_scale) -> np.ndarray:
    """RoI Pool of one box: the maximum over the whole positions of each bin, `(size, size, channels)`; 0 for none."""
    height, width = feature_map.shape[:2]
    x1, y1, x2, y2 = (_round_half_away(edge * spatial_scale) for edge in box)
    columns, rows = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
    pooled = np.zeros((size, size, feature_map.shape[2]))
    for i in range(size):
        for j in range(size):
            top, bottom = y1 + math.floor(i * rows / size), y1 + math.ceil((i + 1) * rows / size)
            left, right = x1 + math.floor(j * columns / size), x1 + math.ceil((j + 1) * columns / size)
            top, bottom = max(top, 0), min(bottom, height)
            left, right = max(left, 0), min(right, width)
            if top < bottom and left < right:
                pooled[i, j] = feature_map[top:bottom, left:right].max(axis=(0, 1))
    return pooled


def pyramid_level(box, finest=2, coarsest=5) -> int:
    """The level of the feature pyramid that a box is read from; level k has the stride 2^k."""
    area = max(box[2] - box[0], 0) * max(box[3] - box[1], 0)
    if area == 0:
        return finest
    level = math.floor(4 + math.log2(math.sqrt(area) / 224) + 1e-6)
    return min(max(level, finest), coarsest)


def paste_mask(mask, box, image_size) -> np.ndarray:
    """A mask head's grid `(m, m)` stretched to its box, in an image `(height, width)` of zeros."""
    cells = len(mask)
    framed = np.zeros((cells + 2, cells + 2))  # a frame of zeros, so that the mask ends softly
    framed[1:-1, 1:-1] = mask
    grow = (cells + 2) / cells
    half_width, half_height = (box[2] - box[0]) / 2 * grow, (box[3] - box[1]) / 2 * grow
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    x1, y1, x2, y2 = int(x - half_width), int(y - half_height), int(x + half_width), int(y + half_height)
    width, height = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
    image = np.zeros(image_size)
    for row in range(max(y1, 0), min(y2 + 1, image_size[0])):
        for column in range(max(x1, 0), min(x2 + 1, image_size[1])):
            # The middle of this pixel, in cells of the grid; a cell has its value at its middle.
            down = (row - y1 + 0.5) * (cells + 2) / height - 0.5
            across = (column - x1 + 0.5) * (cells + 2) / width - 0.5
            image[row, column] = bilinear(framed[..., None], max(down, 0), max(across, 0))[0]
    return image


def crop_mask(mask, box, size) -> np.ndarray:
    """The part of a true mask `(height, width)` in a box, as a grid `(size, size)` in 0..1: a training target."""
    return roi_align(np.asarray(mask, float)[..., None], box, size, spatial_scale=1, sampling_ratio=0)[..., 0]


def match(objects, boxes, high, low, allow_low_quality=False) -> np.ndarray:
    """For each box the row of its object, -1 for background, -2 for neither; int `(n,)`."""
    overlaps = np.array([[iou(one, box) for one in objects] for box in boxes]).reshape(
        len(boxes), len(objects)
    )
    matches = np.full(len(boxes), -1)
    for row, overlap in enumerate(overlaps):
        best = overlap.max(initial=0)
        if best >= high:
            matches[row] = overlap.argmax()
        elif best >= low:
            matches[row] = -2
    if allow_low_quality:
        for one in range(len(objects)):
            best = overlaps[:, one].max(initial=0)
            for row in range(len(boxes)):
                if best > 0 and overlaps[row, one] == best:
                    matches[row] = overlaps[row].argmax()
    return matches


def sample(positive, negative, count, positive_fraction, rng) -> tuple[list[int], list[int]]:
    """Up to `count` rows at random: positives up to their fraction, negatives for the rest.

    Args:
        positive: rows to choose positives from.
        negative: rows to choose negatives from.
        count: how many in all.
        positive_fraction: of `count`, for positives at most.
        rng: a NumPy generator.
    """
    number_positive = min(len(positive), int(count * positive_fraction))
    number_negative = min(len(negative), count - number_positive)
    return (
        [int(row) for row in rng.permutation(positive)[:number_positive]],
        [int(row) for row in rng.permutation(negative)[:number_negative]],
    )


def _round_half_away(value) -> int:
    """Halves away from 0; Python's own `round` takes them to the even number."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))
