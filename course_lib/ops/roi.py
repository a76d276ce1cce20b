"""RoI Align and RoI Pool: from a box of any size on a feature map to a grid of fixed size.

**RoI Pool** (Girshick 2015, Fast R-CNN, section 2.1) rounds the box to whole positions of the map, cuts it into bins of
whole positions and takes the maximum of each. With a stride of 16, rounding moves an edge by up to 8 pixels of the image.

**RoI Align** (He et al. 2017, Mask R-CNN, section 3) rounds nothing: it reads the map at a few regularly spaced points of
each bin, between positions by bilinear interpolation, and takes their mean.

With a **feature pyramid** each box is read from one level only, by its size (Lin et al. 2017, Feature Pyramid Networks,
equation 1). Here all levels are laid end to end, so that one gather serves boxes of all levels.

What is read has gradients with respect to the features; the boxes' coordinates get none, as in torchvision and in the
papers. Feature maps are `(batch, height, width, channels)`, boxes `(batch, n, 4)`: `x1, y1, x2, y2` in pixels of the image.
The arithmetic is float32, the result has the type of the features.
"""

import math
from collections.abc import Sequence

import numpy as np
from keras import ops

from course_lib.ops.box_coding import float32_boxes
from course_lib.ops.boxes import box_area
from course_lib.ops.nms import known

MOST_TAPS = 3
"""Points of a bin, along one axis, up to which they are read one by one."""
MOST_VALUES = 2**25
"""Features that stand in memory at once outside a compiled function: 128 MB."""


def roi_levels(
    boxes, spatial_scales: Sequence[float], canonical_box_size: float = 224.0, canonical_level: int = 4
):
    """Which level of the pyramid each box is read from: `k = floor(k0 + log2(√area / 224))`, within the levels there are.

    A box as large as an ImageNet image, 224 pixels, goes to level 4, stride 16, one half as wide to level 3. As in
    torchvision, 1e-6 is added before rounding, so that a box of exactly 224 doesn't fall to the level below.

    Args:
        boxes: `(..., n, 4)`.
        spatial_scales: positions per pixel on each level, finest first, as 1/4, 1/8, 1/16, 1/32.
        canonical_box_size: in pixels.
        canonical_level: level of a box of that size; level k has the stride 2^k.

    Returns:
        int32 `(..., n)`: 0 is the first of `spatial_scales`. An empty box goes there.
    """
    finest, coarsest = int(-math.log2(spatial_scales[0])), int(-math.log2(spatial_scales[-1]))
    area = box_area(boxes)
    sides = ops.sqrt(
        ops.where(area > 0, area, 1e-12)
    )  # an empty box has no logarithm, nor one that is not a number
    level = ops.floor(canonical_level + ops.log2(sides / canonical_box_size) + 1e-6)
    return ops.cast(ops.clip(level, finest, coarsest) - finest, "int32")


def roi_align(
    features,
    boxes,
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 2,
    aligned: bool = False,
    max_samples: int | None = None,
):
    """RoI Align on one feature map.

    Args:
        features: `(batch, height, width, channels)`.
        boxes: `(batch, n, 4)`, in pixels of the image; each image's boxes are read from its own map. Points more than one
            position outside the map read 0, the others the nearest edge.
        output_size: bins downwards and to the right, or one number for both.
        spatial_scale: positions of the map per pixel of the image, 1 / stride.
        sampling_ratio: points per bin, along each axis. 0 or less: as many as positions fall into a bin, rounded up; see
            `max_samples`.
        aligned: whether the value at position 0 stands for the pixel 0..1 and so lies at 0.5 (right to the half pixel), or
            at 0 as in the paper's first code. If not, a box is also made at least one position wide and high.
        max_samples: limit for the adaptive number of points, since shapes are fixed. By default as many as a box of the
            size of the map needs, so the limit changes only boxes that reach beyond the image. The work grows with
            its square.

    Returns:
        `(batch, n, rows, columns, channels)`, never NaN for finite features: an empty box reads points that lie close
        together, or 0 where adaptive sampling takes none; a box with an edge that is not a number reads 0.

    Raises:
        ValueError: if the shapes do not fit.
    """
    return multilevel_roi_align(
        [features], boxes, output_size, [spatial_scale], sampling_ratio, aligned, max_samples
    )


def multilevel_roi_align(
    features: Sequence,
    boxes,
    output_size: int | tuple[int, int],
    spatial_scales: Sequence[float],
    sampling_ratio: int = 2,
    aligned: bool = False,
    max_samples: int | None = None,
    canonical_box_size: float = 224.0,
    canonical_level: int = 4,
):
    """RoI Align on a feature pyramid: each box is read from its level alone.

    Args:
        features: per level `(batch, height, width, channels)`, finest first, with as many channels each.
        boxes: as for `roi_align`.
        output_size: as for `roi_align`.
        spatial_scales: per level, positions of the map per pixel of the image.
        sampling_ratio: as for `roi_align`.
        aligned: as for `roi_align`.
        max_samples: as for `roi_align`; by default what the largest map needs.
        canonical_box_size: as for `roi_levels`.
        canonical_level: as for `roi_levels`.

    Returns:
        `(batch, n, rows, columns, channels)`.

    Raises:
        ValueError: if the shapes do not fit.
    """
    features, boxes = _checked(features, boxes, spatial_scales)
    bins_y, bins_x = _pair(output_size)
    heights, widths = ([level.shape[axis] for level in features] for axis in (1, 2))
    count, channels, kind = boxes.shape[1], features[0].shape[-1], features[0].dtype

    if count == 0:
        return ops.zeros((ops.shape(boxes)[0], 0, bins_y, bins_x, channels), kind)

    # What belongs to the level of each box, (batch, n).
    level = _levels(features, boxes, spatial_scales, canonical_box_size, canonical_level)
    scale = ops.take(np.asarray(spatial_scales, np.float32), level)
    height, width = (ops.take(np.asarray(sides, np.int32), level) for sides in (heights, widths))
    positions = [
        ops.reshape(feature_map, (-1, h * w, channels))
        for feature_map, h, w in zip(features, heights, widths, strict=True)
    ]
    pyramid, start, image = _end_to_end(positions, level)

    placed = boxes * scale[..., None] - (0.5 if aligned else 0.0)
    neighbours = []
    for near, far, bins, sides, length in (
        (placed[..., 1], placed[..., 3], bins_y, heights, height),
        (placed[..., 0], placed[..., 2], bins_x, widths, width),
    ):
        most = max_samples or math.ceil(max(sides) / bins)
        positions, weights = sample_positions(near, far, bins, sampling_ratio, aligned, most)
        neighbours.append(_neighbours(positions, weights, length))

    start, width = (start + image)[..., None, None], width[..., None, None]
    taps_y, taps_x = (_taps(found, bins) for found, bins in zip(neighbours, (bins_y, bins_x), strict=True))
    if known(start):
        read = _read_at_once(pyramid, start, width, taps_y, taps_x)
    else:
        read = 0.0
        for row, weight_y in taps_y:
            for column, weight_x in taps_x:
                place = start + row[..., :, None] * width + column[..., None, :]
                weight = weight_y[..., :, None] * weight_x[..., None, :]
                read = read + ops.cast(ops.take(pyramid, place, axis=0), "float32") * weight[..., None]
    each_y, each_x = read.shape[2] // bins_y, read.shape[3] // bins_x
    if each_y * each_x > 1:
        read = ops.reshape(read, (-1, count, bins_y, each_y, bins_x, each_x, channels))
        read = ops.sum(read, axis=(3, 5))
    return ops.cast(read, kind)


def _read_at_once(pyramid, start, width, taps_y, taps_x):
    """What the taps of each bin read, weighted and summed, by one product of matrices: half the time of one tap after the
    other where nothing is compiled."""
    taps = [(*y, *x) for y in taps_y for x in taps_x]
    places = ops.stack(
        [start + row[..., :, None] * width + column[..., None, :] for row, _, column, _ in taps], -1
    )
    weights = ops.stack([y[..., :, None] * x[..., None, :] for _, y, _, x in taps], -1)[..., None, :]
    values = places.shape[0] * int(np.prod(places.shape[2:])) * pyramid.shape[-1]
    step = max(1, MOST_VALUES // values)
    read = [
        ops.matmul(few, ops.cast(ops.take(pyramid, at, axis=0), "float32"))[..., 0, :]
        for at, few in (
            (places[:, k : k + step], weights[:, k : k + step]) for k in range(0, places.shape[1], step)
        )
    ]
    return ops.concatenate(read, axis=1)


def _taps(neighbours, bins: int):
    """The places and weights that are read one after the other, each `(batch, n, bins)`.

    Summed up as they are read, the values of a bin never stand beside one another in memory, which made most of the time.
    Where a bin has many points (adaptive sampling), that would be hundreds of steps to compile: all points of a bin stay in
    one step then, `(batch, n, bins · points)`, and are summed up afterwards.
    """
    points = neighbours[0][0].shape[-1] // bins
    if points > MOST_TAPS:
        return neighbours
    return [
        tuple(ops.reshape(value, (*ops.shape(value)[:2], bins, points))[..., k] for value in pair)
        for pair in neighbours
        for k in range(points)
    ]


def sample_positions(
    near, far, bins: int, sampling_ratio: int = 2, aligned: bool = False, max_samples: int | None = None
):
    """Along one axis, where RoI Align reads and with which weight: the points of each bin lie in the middle of equal parts.

    Args:
        near: near edges `(...)` in positions of the map; with `aligned`, less one half.
        far: far edges, likewise.
        bins: how many bins.
        sampling_ratio: points per bin; 0 or less: the length of a bin in positions, rounded up.
        aligned: see `roi_align`.
        max_samples: limit for the adaptive number of points; needed for it.

    Returns:
        `(positions, weights)`, float32 `(..., bins · points)` each; the weights are the same for all points of a bin and
        add up to 1 in each (or to 0, where adaptive sampling takes no point).

    Raises:
        ValueError: if the number of points is adaptive and has no limit.
    """
    if sampling_ratio <= 0 and not max_samples:
        raise ValueError(
            "max_samples is missing; shapes are fixed, so an adaptive number of points needs a limit."
        )
    length = (far - near if aligned else ops.maximum(far - near, 1.0))[..., None]
    points = sampling_ratio if sampling_ratio > 0 else max_samples
    point = np.arange(points, dtype=np.float32)
    if sampling_ratio > 0:
        taken = ops.ones_like(length * point)
    else:
        # Point k is needed if k bins are shorter than the box. Not by dividing: compiled, a division by `bins` may become a
        # product with its reciprocal, and a whole number of positions per bin be rounded up to one more.
        taken = ops.cast(length > point * bins, "float32")
    number = ops.maximum(ops.sum(taken, axis=-1, keepdims=True), 1.0)
    # For the same reason a divisor of the array's own shape: one number would become its reciprocal, and round twice.
    bin_length = length / ops.where(ops.isnan(length), 1.0, float(bins))
    bin_start = near[..., None] + np.arange(bins, dtype=np.float32) * bin_length
    positions = bin_start[..., :, None] + ((point + 0.5) * (bin_length / number))[..., None, :]
    weights = ops.zeros_like(positions) + (taken / number)[..., None, :]
    shape = (*ops.shape(near), bins * points)
    return ops.reshape(positions, shape), ops.reshape(weights, shape)


def roi_pool(features, boxes, output_size: int | tuple[int, int], spatial_scale: float = 1.0):
    """RoI Pool on one feature map.

    The box's edges are rounded to positions (halves away from 0), both ends included. Of its s positions, bin i of n holds
    those from floor(i · s / n) up to ceil((i + 1) · s / n), so bins may overlap. What lies outside the map is left out.

    Args:
        features: `(batch, height, width, channels)`.
        boxes: `(batch, n, 4)` in pixels of the image.
        output_size: bins downwards and to the right, or one number for both.
        spatial_scale: positions of the map per pixel of the image, 1 / stride.

    Returns:
        `(batch, n, rows, columns, channels)`; 0 for a bin that lies outside the map.

    Raises:
        ValueError: if the shapes do not fit.
    """
    return multilevel_roi_pool([features], boxes, output_size, [spatial_scale])


def multilevel_roi_pool(
    features: Sequence,
    boxes,
    output_size: int | tuple[int, int],
    spatial_scales: Sequence[float],
    canonical_box_size: float = 224.0,
    canonical_level: int = 4,
):
    """RoI Pool on a feature pyramid, as a replacement for `multilevel_roi_align`: the same arguments and result.

    Bins have all sizes, shapes must be fixed. So the maxima over windows of 1, 2, 4, 8, ... rows and columns are computed
    once for the whole map, and each bin read as four of them, which overlap and together are the bin. They take
    the memory of the map log2(height) · log2(width) times over.
    """
    features, boxes = _checked(features, boxes, spatial_scales)
    bins_y, bins_x = _pair(output_size)
    heights, widths = ([level.shape[axis] for level in features] for axis in (1, 2))
    count, channels = boxes.shape[1], features[0].shape[-1]
    if count == 0:
        return ops.zeros((ops.shape(boxes)[0], 0, bins_y, bins_x, channels), features[0].dtype)

    level = _levels(features, boxes, spatial_scales, canonical_box_size, canonical_level)
    scale = ops.take(np.asarray(spatial_scales, np.float32), level)
    height, width = (ops.take(np.asarray(sides, np.int32), level) for sides in (heights, widths))
    tables = [_window_maxima(feature_map) for feature_map in features]
    windows, start, image = _end_to_end(tables, level)

    edges = _rounded(boxes * scale[..., None])
    power_y, rows, some_rows = _bin_windows(edges[..., 1], edges[..., 3], bins_y, height, max(heights))
    power_x, columns, some_columns = _bin_windows(edges[..., 0], edges[..., 2], bins_x, width, max(widths))
    powers_x = ops.take(np.asarray([side.bit_length() for side in widths], np.int32), level)
    height, width, powers_x = (values[..., None, None] for values in (height, width, powers_x))
    table = power_y[..., :, None] * powers_x + power_x[..., None, :]
    start = (start + image)[..., None, None] + table * height * width
    read = [
        ops.take(windows, start + row[..., :, None] * width + column[..., None, :], axis=0)
        for row in rows
        for column in columns
    ]
    pooled = ops.maximum(ops.maximum(read[0], read[1]), ops.maximum(read[2], read[3]))
    filled = ops.logical_and(some_rows[..., :, None], some_columns[..., None, :])
    return ops.where(filled[..., None], pooled, ops.zeros_like(pooled))


def _levels(features, boxes, spatial_scales, canonical_box_size, canonical_level):
    """The level of each box, int32 `(batch, n)`."""
    if len(features) == 1:
        return ops.zeros_like(boxes[..., 0], dtype="int32")
    return roi_levels(boxes, spatial_scales, canonical_box_size, canonical_level)


def _end_to_end(tables, level):
    """Tables `(batch, rows, channels)` of all levels and images as one `(all rows, channels)`, for a single gather.

    Also where each box's level starts in its image's part, `(batch, n)`, and where the image's part starts, `(batch, 1)`.
    """
    lengths = [table.shape[1] for table in tables]
    joined = ops.concatenate(tables, axis=1)
    start = ops.take(np.cumsum([0, *lengths[:-1]]).astype(np.int32), level)
    image = ops.arange(ops.shape(joined)[0], dtype="int32")[:, None] * sum(lengths)
    return ops.reshape(joined, (-1, joined.shape[-1])), start, image


def _window_maxima(feature_map):
    """The maxima over 2^k rows and 2^l columns from each position on, `(batch, K · L · height · width, channels)`."""
    tables = [feature_map]
    for axis in (1, 2):
        grown = []
        for table in tables:
            grown.append(table)
            for power in range(feature_map.shape[axis].bit_length() - 1):
                # Two windows of half the length. Those that reach beyond the map hold what roll puts there; none is read.
                table = ops.maximum(table, ops.roll(table, -(2**power), axis=axis))
                grown.append(table)
        tables = grown
    rows = len(tables) * feature_map.shape[1] * feature_map.shape[2]
    return ops.reshape(ops.stack(tables, axis=1), (-1, rows, feature_map.shape[-1]))


def _bin_windows(near, far, bins: int, length, longest: int):
    """Each bin as two windows of 2^power positions, the first from its start, the second up to its end.

    In whole numbers: a compiler may turn a division by `bins` into a product with its reciprocal, which is not quite the
    same, and a bin would gain or lose a position.

    Returns:
        The power, the starts of both windows, and whether the bin holds anything, all `(batch, n, bins)`.
    """
    near, size, length = near[..., None], ops.maximum(far - near + 1, 1)[..., None], length[..., None]
    k = np.arange(bins, dtype=np.int32)
    first = ops.clip(near + (k * size) // bins, 0, length)
    end = ops.clip(near + ((k + 1) * size + bins - 1) // bins, 0, length)
    held = end - first
    larger = 2 ** np.arange(1, longest.bit_length(), dtype=np.int32)
    power = ops.sum(ops.cast(held[..., None] >= larger, "int32"), axis=-1)
    second = end - ops.take(2 ** np.arange(longest.bit_length(), dtype=np.int32), power)
    starts = tuple(ops.clip(start, 0, length - 1) for start in (first, second))
    return power, starts, held > 0


def _neighbours(positions, weights, length):
    """The two whole positions around each point, with the weight that each has in the value read there."""
    length = ops.cast(length, "int32")[..., None]
    size = ops.cast(length, "float32")
    inside = ops.logical_and(positions >= -1.0, positions <= size)  # not so for what is not a number
    weights = ops.where(inside, weights, 0.0)
    positions = ops.minimum(ops.maximum(ops.where(inside, positions, 0.0), 0.0), size - 1)
    low = ops.floor(positions)
    part = positions - low
    low = ops.cast(low, "int32")
    return (low, weights * (1 - part)), (ops.minimum(low + 1, length - 1), weights * part)


def _rounded(values):
    """Whole numbers, halves away from 0 (as C does; Python and NumPy round halves to the even one), within ±10^6."""
    size = ops.minimum(ops.abs(ops.where(ops.isfinite(values), values, 0.0)), 1e6)
    whole = ops.floor(size)
    whole = whole + ops.cast(size - whole >= 0.5, "float32")
    return ops.cast(ops.where(values < 0, -whole, whole), "int32")


def _pair(output_size: int | tuple[int, int]) -> tuple[int, int]:
    return (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)


def _checked(features: Sequence, boxes, spatial_scales: Sequence[float]):
    features = [ops.convert_to_tensor(level) for level in features]
    boxes = ops.stop_gradient(float32_boxes("boxes", boxes))
    if len(features) != len(spatial_scales):
        raise ValueError(
            f"spatial_scales has {len(spatial_scales)} entries for {len(features)} feature maps; it must have one for each."
        )
    for level in features:
        if len(level.shape) != 4 or None in level.shape[1:] or level.shape[-1] != features[0].shape[-1]:
            raise ValueError(
                f"features has a feature map of shape {tuple(level.shape)}; all must be (batch, height, width, "
                "channels) with fixed sizes and the same number of channels."
            )
    if len(boxes.shape) != 3 or boxes.shape[1] is None:
        raise ValueError(f"boxes has shape {tuple(boxes.shape)}; RoIs are (batch, n, 4), with a fixed n.")
    return features, boxes
