"""Encoding boxes relative to a reference box, decoding, clipping, and removing tiny boxes.

A head doesn't predict x1, y1, x2, y2. It predicts how far the centre lies from that of a reference (an anchor or a
proposal), in units of the reference's sides, and the logarithm of how much larger the sides are (Girshick et al. 2014,
R-CNN, appendix C, https://arxiv.org/abs/1311.2524):

    dx = wx · (x - x_ref) / width_ref      dw = ww · log(width / width_ref)
    dy = wy · (y - y_ref) / height_ref     dh = wh · log(height / height_ref)

So a number means the same for a small and for a large object. The weights bring the four targets to
about unit variance: 10, 10, 5, 5 for the box head, 1, 1, 1, 1 for the proposals.

Boxes are `x1, y1, x2, y2` in pixels; all arithmetic is float32, whatever the precision of the network around it.
"""

import math
from collections.abc import Sequence

import numpy as np
from keras import KerasTensor, ops

LARGEST_GROWTH = math.log(1000 / 16)
"""No predicted side is more than 62.5 times its reference's: what an untrained model says can't overflow `exp`."""


def encode_boxes(boxes, references, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0)):
    """The deltas from each reference to its box.

    Args:
        boxes: `(..., n, 4)`.
        references: `(..., n, 4)`, row for row; leading axes may broadcast.
        weights: of dx, dy, dw, dh.

    Returns:
        float32 `(..., n, 4)`: dx, dy, dw, dh. All four are 0 where the box or its reference is empty (so is the padding of
        a fixed number of boxes), and their gradient is finite there too.

    Raises:
        ValueError: if one of them is no list of boxes, or there are not four weights.
    """
    weights = _weights(weights)
    centre, sides = _centre_and_sides(float32_boxes("boxes", boxes))
    centre_ref, sides_ref = _centre_and_sides(float32_boxes("references", references))
    filled = ops.logical_and(
        ops.all(sides > 0, axis=-1, keepdims=True), ops.all(sides_ref > 0, axis=-1, keepdims=True)
    )
    sides, sides_ref = ops.where(filled, sides, 1.0), ops.where(filled, sides_ref, 1.0)
    shift = ops.where(filled, (centre - centre_ref) / sides_ref, 0.0)
    return ops.concatenate([shift, ops.log(sides / sides_ref)], axis=-1) * weights


def decode_boxes(deltas, references, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0)):
    """The boxes that the deltas encode: the inverse of `encode_boxes`.

    Args:
        deltas: `(..., n, 4)`: dx, dy, dw, dh. Growth is limited to `LARGEST_GROWTH`.
        references: `(..., n, 4)`, row for row; axes may broadcast: deltas per class `(n, classes, 4)` go with
            references `(n, 1, 4)`.
        weights: of dx, dy, dw, dh, as they were given to `encode_boxes`.

    Returns:
        float32 `(..., n, 4)`, not clipped to any image. An empty reference stays empty.

    Raises:
        ValueError: if one of them doesn't end in four numbers, or there are not four weights.
    """
    weights = _weights(weights)
    deltas = float32_boxes("deltas", deltas) / weights
    centre_ref, sides_ref = _centre_and_sides(float32_boxes("references", references))
    centre = deltas[..., :2] * sides_ref + centre_ref
    half = 0.5 * (ops.exp(ops.minimum(deltas[..., 2:], LARGEST_GROWTH)) * sides_ref)
    return ops.concatenate([centre - half, centre + half], axis=-1)


def clip_boxes(boxes, image_size):
    """Boxes clipped to the image. A box entirely outside becomes an empty one on the border.

    Args:
        boxes: `(..., n, 4)`.
        image_size: height and width in pixels; or `(batch, 2)` where images of several sizes are padded to one.

    Returns:
        float32 `(..., n, 4)`.

    Raises:
        ValueError: if boxes is no list of boxes, or the size doesn't end in two numbers.
    """
    boxes = float32_boxes("boxes", boxes)
    size = ops.cast(ops.convert_to_tensor(image_size), "float32")
    if not size.shape or size.shape[-1] != 2:
        raise ValueError(
            f"image_size has shape {tuple(size.shape)}; give height and width, (2,) or (batch, 2)."
        )
    limits = ops.stack([size[..., 1], size[..., 0], size[..., 1], size[..., 0]], axis=-1)[..., None, :]
    return ops.minimum(ops.maximum(boxes, 0.0), limits)


def large_enough(boxes, smallest: float):
    """Which boxes have both sides of at least `smallest` pixels: bool `(..., n)` for boxes `(..., n, 4)`."""
    boxes = float32_boxes("boxes", boxes)
    return ops.all(boxes[..., 2:] - boxes[..., :2] >= smallest, axis=-1)


def float32_boxes(name: str, boxes):
    """`boxes` as a float32 tensor `(..., n, 4)`.

    Raises:
        ValueError: if the last axis does not hold four numbers; it calls them `name`.
    """
    if not isinstance(boxes, KerasTensor):
        boxes = ops.convert_to_tensor(boxes)
    if len(boxes.shape) < 2 or boxes.shape[-1] != 4:
        raise ValueError(
            f"{name} has shape {tuple(boxes.shape)}; it must be (..., n, 4), four numbers per box. "
            f"Write a single box as one row, {name}[None]."
        )
    return ops.cast(boxes, "float32")


def _centre_and_sides(boxes):
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * sides, sides


def _weights(weights: Sequence[float]) -> np.ndarray:
    weights = np.asarray(weights, np.float32)
    if weights.shape != (4,) or not (weights > 0).all():
        raise ValueError(
            f"weights is {weights.tolist()}; it must be four positive numbers, for dx, dy, dw and dh."
        )
    return weights
