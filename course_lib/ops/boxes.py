"""Boxes as arrays: area, intersection, IoU and generalised IoU of all pairs.

A box is `x1, y1, x2, y2` in pixels of the image. The far edges are exclusive: a box that holds the one pixel of column 3
and row 5 is `3, 5, 4, 6`, and its area is 1. Edges may lie between pixels. A box whose far edge does not lie beyond its
near edge is empty, with area 0: so the rows that pad a fixed number of boxes match nothing.

All arithmetic is in float32, whatever the precision of the network around it: in half precision, the area of a box of
256 × 256 pixels is already infinite.
"""

from keras import KerasTensor, ops


def box_area(boxes):
    """Area of each box, in pixels.

    Args:
        boxes: `(..., n, 4)`.

    Returns:
        float32 `(..., n)`.

    Raises:
        ValueError: if the last axis does not hold four numbers.
    """
    boxes = _checked("boxes", boxes)
    sides = ops.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    return sides[..., 0] * sides[..., 1]


def box_intersection(boxes_a, boxes_b):
    """Area of the intersection of each box of one list with each of another, in pixels.

    Args:
        boxes_a: `(..., n, 4)`.
        boxes_b: `(..., m, 4)`, with the same leading axes or ones that broadcast.

    Returns:
        float32 `(..., n, m)`.

    Raises:
        ValueError: if one of them is no list of boxes.
    """
    boxes_a, boxes_b = _pairs(boxes_a, boxes_b)
    near = ops.maximum(boxes_a[..., :2], boxes_b[..., :2])
    far = ops.minimum(boxes_a[..., 2:], boxes_b[..., 2:])
    sides = ops.maximum(far - near, 0.0)
    return sides[..., 0] * sides[..., 1]


def box_iou(boxes_a, boxes_b):
    """Intersection over union of each box of one list with each of another (the Jaccard index of their pixels).

    Args:
        boxes_a: `(..., n, 4)`.
        boxes_b: `(..., m, 4)`, with the same leading axes or ones that broadcast.

    Returns:
        float32 `(..., n, m)` in 0..1; 0 where a box is empty, also for two empty ones.

    Raises:
        ValueError: if one of them is no list of boxes.
    """
    return _iou_and_union(boxes_a, boxes_b)[0]


def box_giou(boxes_a, boxes_b):
    """Generalised IoU (Rezatofighi et al. 2019, https://arxiv.org/abs/1902.09630, algorithm 1).

    IoU minus the fraction of the smallest box around both that neither covers. IoU is 0 for all boxes that do not meet;
    this goes on falling as they move apart, so that a loss made of it still has a gradient.

    Args:
        boxes_a: `(..., n, 4)`.
        boxes_b: `(..., m, 4)`, with the same leading axes or ones that broadcast.

    Returns:
        float32 `(..., n, m)` in -1..1, at most the IoU; 0 where both boxes are empty and coincide.

    Raises:
        ValueError: if one of them is no list of boxes.
    """
    shared, union = _iou_and_union(boxes_a, boxes_b)
    boxes_a, boxes_b = _pairs(boxes_a, boxes_b)
    near = ops.minimum(boxes_a[..., :2], boxes_b[..., :2])
    far = ops.maximum(boxes_a[..., 2:], boxes_b[..., 2:])
    sides = ops.maximum(far - near, 0.0)
    around = sides[..., 0] * sides[..., 1]
    return shared - _ratio(around - union, around)


def _iou_and_union(boxes_a, boxes_b):
    shared = box_intersection(boxes_a, boxes_b)
    union = box_area(boxes_a)[..., :, None] + box_area(boxes_b)[..., None, :] - shared
    return _ratio(shared, union), union


def _ratio(part, whole):
    """`part / whole`, 0 where there is no whole; its gradient is finite there too, which an `inf` chosen away is not."""
    some = whole > 0
    return ops.where(some, part / ops.where(some, whole, 1.0), 0.0)


def _pairs(boxes_a, boxes_b):
    """Both lists in float32, with an axis each for the other: `(..., n, 1, 4)` and `(..., 1, m, 4)`."""
    return _checked("boxes_a", boxes_a)[..., :, None, :], _checked("boxes_b", boxes_b)[..., None, :, :]


def _checked(name: str, boxes):
    """`boxes` as float32 `(..., n, 4)`."""
    if not isinstance(boxes, KerasTensor):
        boxes = ops.convert_to_tensor(boxes)
    if len(boxes.shape) < 2 or boxes.shape[-1] != 4:
        raise ValueError(
            f"{name} has shape {tuple(boxes.shape)}; boxes are (..., n, 4): x1, y1, x2, y2. "
            "Write a single box as one row, boxes[None]."
        )
    return ops.cast(boxes, "float32")
