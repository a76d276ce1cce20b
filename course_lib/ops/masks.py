"""Masks between the image and the grid of a box: pasted into the image for predictions, cropped for training targets.

The mask head predicts a small grid, 28 × 28, for each box. To become a mask of the image it is stretched to the box
and pasted there; the ground truth goes the other way, cropped from the image and reduced to the grid (He et al. 2017, Mask
R-CNN, section 3). Both ways are separable: rows and columns are stretched alone, each by a matrix of interpolation weights,
and the mask stands between the two.

Boxes are `x1, y1, x2, y2` in pixels of the image.
"""

import math

import numpy as np
from keras import ops

from course_lib.ops.box_coding import float32_boxes
from course_lib.ops.roi import sample_positions
from course_lib.ops.sampling import take_rows


def paste_masks(masks, boxes, image_size: tuple[int, int], valid=None):
    """The grids of all boxes, stretched and pasted into an empty image each, as torchvision does.

    The grid gets a border of one cell of zeros, and its box grows with it, so that a mask ends softly. The box is cut to
    whole pixels towards 0, both ends included, and the grid is stretched to them bilinearly, cells and pixels having
    their values at their middle. Pixels outside are 0. (Where an edge of the grown box lies on a whole pixel, a rounding
    of the seventh digit decides which way it is cut.)

    Args:
        masks: `(..., n, m, m)`, probabilities.
        boxes: `(..., n, 4)`.
        image_size: height and width in pixels.
        valid: bool `(..., n)`; the masks of other rows (padding) are 0 everywhere. By default all.

    Returns:
        float32 `(..., n, height, width)`. It holds every pixel of every mask: for many masks of a large image, paste on
        the host, with `whole_image_masks`.

    Raises:
        ValueError: if the shapes do not fit.
    """
    masks = ops.cast(ops.convert_to_tensor(masks), "float32")
    boxes = ops.stop_gradient(float32_boxes("boxes", boxes))
    _check_grids(masks, boxes)
    cells = masks.shape[-1]
    edges = _grown(boxes, cells, ops)
    if valid is not None:
        masks = ops.where(ops.cast(valid, "bool")[..., None, None], masks, 0.0)
    rows = _stretching(edges[..., 1], edges[..., 3], cells, image_size[0])
    columns = _stretching(edges[..., 0], edges[..., 2], cells, image_size[1])
    return ops.matmul(ops.matmul(rows, masks), ops.swapaxes(columns, -1, -2))


def whole_image_masks(
    masks: np.ndarray,
    boxes: np.ndarray,
    image_size: tuple[int, int],
    threshold: float | None = 0.5,
    edges: str = "whole",
) -> np.ndarray:
    """`paste_masks` in NumPy, for an image's detections: works only inside each box, and cuts at a threshold.

    torchvision's way cuts the box to whole pixels and counts both ends in, and so it stretches and moves the mask by about
    a pixel: little for an object of 200 pixels, but a perfect mask of an object of 10 pixels comes back with an IoU of
    about 0.7. `edges="exact"` is the inverse of `crop_masks`: it reads each cell's value where the target was read, from
    the box as it is (RoI Align without its half-pixel shift takes a pixel's value to lie at its index).

    Args:
        masks: `(n, m, m)`, probabilities.
        boxes: `(n, 4)`; a box that is not finite or lies outside the image gives an empty mask.
        image_size: height and width in pixels.
        threshold: a pixel from here on belongs to the object; None: leave the probabilities.
        edges: `"whole"`, torchvision's way, or `"exact"`.

    Returns:
        bool `(n, height, width)`, or float32 without a threshold.

    Raises:
        ValueError: if the shapes do not fit, or for another way.
    """
    if edges not in ("whole", "exact"):
        raise ValueError(f"edges is {edges!r}; it must be 'whole' or 'exact'.")
    masks, boxes = np.asarray(masks, np.float32), np.asarray(boxes, np.float32)
    if boxes.shape[-1:] != (4,) or boxes.ndim != 2:
        raise ValueError(f"boxes has shape {boxes.shape}; give the boxes of one image, (n, 4).")
    _check_grids(masks, boxes)
    height, width = image_size
    cells = masks.shape[-1]
    whole = np.zeros((len(masks), height, width), np.float32 if threshold is None else bool)
    sound = np.isfinite(boxes).all(axis=1)
    boxes = np.where(sound[:, None], boxes, 0)
    bounds = np.clip(_grown(boxes, cells, np), -1e9, 1e9).astype(int)
    if edges == "exact":
        # Where the grid ends a mask falls to 0 over half a cell, so a pixel may still belong to it just outside of the box.
        sound &= (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    for k in np.flatnonzero(sound):
        x1, y1, x2, y2 = bounds[k]
        rows = np.arange(max(y1, 0), min(y2 + 1, height))
        columns = np.arange(max(x1, 0), min(x2 + 1, width))
        if not (rows.size and columns.size):
            continue
        if edges == "exact":
            down, across = (
                _read(p, boxes[k, a], boxes[k, a + 2], cells) for p, a in ((rows, 1), (columns, 0))
            )
        else:
            down, across = _hats(rows, y1, y2, cells), _hats(columns, x1, x2, cells)
        patch = down @ masks[k] @ across.T
        place = whole[k, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        place[...] = patch if threshold is None else patch >= threshold
    return whole


def crop_masks(
    masks, objects, boxes, output_size: int, sampling_ratio: int = 0, max_samples: int | None = None
):
    """The ground-truth mask of each box's object, cropped and reduced to the mask head's grid: its training target.

    RoI Align with scale 1 on the object's mask, as torchvision makes its targets (`sampling_ratio` 0: one reading per
    pixel and more). The target is the fraction of each cell that the object covers, not cut to 0 and 1.

    Args:
        masks: `(batch, g, height, width)`, 0 and 1 of any type: one for each object, padding included; g at least 1.
        objects: integers `(batch, n)`: which object each box belongs to; rows that belong to none (any number, as the
            matcher's -1) get some object's target, and don't count in the loss.
        boxes: `(batch, n, 4)`.
        output_size: cells along each side.
        sampling_ratio: readings per cell along each axis; 0 or less: as many as pixels fall into a cell, rounded up.
        max_samples: limit for the adaptive number of readings; by default what a box of the image's size needs.

    Returns:
        float32 `(batch, n, output_size, output_size)` in 0..1. No gradient goes through.

    Raises:
        ValueError: if the shapes do not fit.
    """
    masks = ops.convert_to_tensor(masks)
    boxes = ops.stop_gradient(float32_boxes("boxes", boxes))
    if len(masks.shape) != 4 or not masks.shape[1] or len(boxes.shape) != 3:
        raise ValueError(
            f"masks has shape {tuple(masks.shape)} and boxes {tuple(boxes.shape)}; give (batch, g, height, width) with "
            "at least one, possibly empty, mask an image, and (batch, n, 4)."
        )
    objects = ops.clip(ops.cast(ops.convert_to_tensor(objects), "int32"), 0, masks.shape[1] - 1)
    height, width = masks.shape[2:]
    rows, columns = (
        _reading(boxes[..., axis], boxes[..., axis + 2], output_size, length, sampling_ratio, max_samples)
        for axis, length in ((1, height), (0, width))
    )
    of_box = ops.cast(masks if masks.shape[1] == 1 else take_rows(masks, objects), "float32")
    return ops.stop_gradient(ops.matmul(ops.matmul(rows, of_box), ops.swapaxes(columns, -1, -2)))


def _grown(boxes, cells: int, numpy):
    """Whole-pixel edges of the boxes grown by one cell on each side, cut towards 0; `numpy` is keras.ops or NumPy."""
    half = (boxes[..., 2:] - boxes[..., :2]) * 0.5 * ((cells + 2) / cells)
    centre = (boxes[..., 2:] + boxes[..., :2]) * 0.5
    return numpy.trunc(numpy.concatenate([centre - half, centre + half], axis=-1))


def _stretching(near, far, cells: int, length: int):
    """Interpolation weights `(..., length, cells)` from a grid's cells to an image's pixels; 0 outside near..far."""
    pixels = np.arange(length, dtype=np.float32)
    near, far = near[..., None], far[..., None]
    size = ops.maximum(far - near + 1, 1.0)
    source = (pixels - near + 0.5) * ((cells + 2) / size) - 0.5  # in cells of the grid with its border
    source = ops.clip(source, 0.0, cells + 1.0)[..., None]
    weights = ops.maximum(1.0 - ops.abs(source - np.arange(1, cells + 1, dtype=np.float32)), 0.0)
    inside = ops.logical_and(pixels >= near, pixels <= far)
    return ops.where(inside[..., None], weights, 0.0)


def _hats(pixels: np.ndarray, near: int, far: int, cells: int) -> np.ndarray:
    """The rows of `_stretching` for the pixels given, in NumPy."""
    source = (pixels - near + np.float32(0.5)) * np.float32(
        (cells + 2) / max(far - near + 1, 1)
    ) - np.float32(0.5)
    source = np.clip(source, 0, cells + 1)[:, None]
    return np.maximum(1 - np.abs(source - np.arange(1, cells + 1)), 0).astype(np.float32)


def _read(pixels: np.ndarray, near: float, far: float, cells: int) -> np.ndarray:
    """Interpolation weights from the cells of a grid that spans near..far to the pixels with these indices."""
    source = ((pixels - near) * (cells / (far - near)) - 0.5)[:, None]
    return np.maximum(1 - np.abs(source - np.arange(cells)), 0).astype(np.float32)


def _reading(near, far, bins: int, length: int, sampling_ratio: int, max_samples: int | None):
    """Weights `(..., bins, length)` with which RoI Align's bins read the positions of an axis."""
    positions, weights = sample_positions(
        near, far, bins, sampling_ratio, max_samples=max_samples or math.ceil(length / bins)
    )
    inside = ops.logical_and(positions >= -1.0, positions <= length)
    positions = ops.clip(ops.where(inside, positions, 0.0), 0.0, length - 1.0)[..., None]
    weight = ops.maximum(1.0 - ops.abs(positions - np.arange(length, dtype=np.float32)), 0.0)
    weight = weight * ops.where(inside, weights, 0.0)[..., None]
    points = positions.shape[-2] // bins
    return ops.sum(ops.reshape(weight, (*ops.shape(near), bins, points, length)), axis=-2)


def _check_grids(masks, boxes) -> None:
    if (
        len(masks.shape) != len(boxes.shape) + 1
        or masks.shape[-1] != masks.shape[-2]
        or (masks.shape[-3] != boxes.shape[-2])
    ):
        raise ValueError(
            f"masks has shape {tuple(masks.shape)} for boxes of {tuple(boxes.shape)}; give a square grid for each box, "
            "(..., n, m, m) for (..., n, 4)."
        )
