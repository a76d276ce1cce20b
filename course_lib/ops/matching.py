"""Which object each anchor or proposal is assigned to, if any.

Every box gets the object that it overlaps most. With an IoU of at least `high` it is assigned to that object, below `low`
it is background, and in between it is not used for training (Ren et al. 2015, Faster R-CNN, section 3.1.2: 0.7 and
0.3 for anchors; Girshick 2015, Fast R-CNN, section 2.3: 0.5 for proposals). An object that no anchor overlaps by `high`
would be lost, so an anchor is also assigned to an object if no anchor overlaps that object more (`allow_low_quality`).

Objects are padded to a fixed number; padding, empty boxes and crowds are never matched.
"""

from keras import ops

from course_lib.ops.box_coding import float32_boxes
from course_lib.ops.boxes import box_area, box_intersection, box_iou

BACKGROUND = -1
IGNORED = -2

CLOSE = 1 - 1e-6
"""Two IoUs that differ by less are a tie. Compiled, one overlap can be computed twice with another rounding, and an exact
comparison of an object's best overlap with itself would then fail."""


def match(quality, high: float, low: float, allow_low_quality: bool = False, valid=None):
    """The object of each box, from their overlaps; torchvision's `Matcher`.

    Args:
        quality: `(..., g, n)`: overlap of each of g objects with each of n boxes, at least 0.
        high: from this IoU on, a box is assigned to its best object.
        low: below this it is background.
        allow_low_quality: also assign the boxes that have the highest overlap with an object (all that tie) to *their own*
            best object, however low the overlap is.
        valid: bool `(..., g)`: the rows that are objects; by default all.

    Returns:
        int32 `(..., n)`: the object's row, or `BACKGROUND` (-1), or `IGNORED` (-2). Of objects that overlap a box equally
        the first is taken. Without a valid object all is background. An object that no box touches stays
        unassigned (in torchvision all boxes that miss it would then be assigned to the object that they overlap most).

    Raises:
        ValueError: if low is above high, or the shapes do not fit.
    """
    quality = ops.stop_gradient(ops.cast(ops.convert_to_tensor(quality), "float32"))
    if len(quality.shape) < 2:
        raise ValueError(f"quality has shape {tuple(quality.shape)}; give objects × boxes, (..., g, n).")
    if not low <= high:
        raise ValueError(f"low is {low}; it must not exceed high, {high}.")
    if 0 in quality.shape[-2:]:
        return ops.full((*ops.shape(quality)[:-2], ops.shape(quality)[-1]), BACKGROUND, dtype="int32")
    if valid is not None:
        quality = ops.where(ops.cast(valid, "bool")[..., None], quality, -1.0)
    best = ops.max(quality, axis=-2)
    best_object = ops.cast(ops.argmax(quality, axis=-2), "int32")
    matches = ops.where(best >= high, best_object, ops.where(best < low, BACKGROUND, IGNORED))
    if allow_low_quality:
        best_of_object = ops.max(quality, axis=-1, keepdims=True)
        is_best = ops.logical_and(quality >= best_of_object * CLOSE, best_of_object > 0)
        matches = ops.where(ops.any(is_best, axis=-2), best_object, matches)
    return matches


def match_boxes(
    objects,
    boxes,
    high: float,
    low: float,
    allow_low_quality: bool = False,
    valid=None,
    crowd=None,
    crowd_fraction: float = 0.5,
    boxes_valid=None,
    ignore=None,
):
    """`match` by IoU, minding padding, empty boxes, crowds and pixels that do not count.

    A crowd is a box around many objects that nobody drew one by one. What lies in it is neither an object that we know nor
    background: a box that would be background but has at least `crowd_fraction` of its area in one crowd is ignored. So is
    a box that has as much of its area in pixels that do not count.

    Args:
        objects: `(..., g, 4)`, the true boxes, padded; an empty one matches nothing.
        boxes: `(..., n, 4)`, anchors or proposals; leading axes may broadcast, so that one list of anchors serves a batch.
        high: as for `match`.
        low: as for `match`.
        allow_low_quality: as for `match`.
        valid: bool `(..., g)`: the rows of `objects` that aren't padding; by default all.
        crowd: bool `(..., g)`: which of them are crowds; by default none.
        crowd_fraction: 0..1.
        boxes_valid: bool `(..., n)`: the rows of `boxes` that aren't padding; the others are ignored. By default all.
        ignore: bool `(batch, height, width)`: pixels of the image that do not count; by default none.

    Returns:
        int32 `(..., n)`: row of the object, `BACKGROUND` or `IGNORED`.

    Raises:
        ValueError: if low is above high, or one of the lists is no list of boxes.
    """
    objects = ops.stop_gradient(float32_boxes("objects", objects))
    boxes = ops.stop_gradient(float32_boxes("boxes", boxes))
    real = ops.all(objects[..., 2:] > objects[..., :2], axis=-1)
    if valid is not None:
        real = ops.logical_and(real, ops.cast(valid, "bool"))
    single = real
    if crowd is not None:
        crowd = ops.logical_and(real, ops.cast(crowd, "bool"))
        single = ops.logical_and(real, ops.logical_not(crowd))
    matches = match(box_iou(objects, boxes), high, low, allow_low_quality, single)
    if crowd is not None and objects.shape[-2] != 0:
        inside = box_intersection(objects, boxes) >= crowd_fraction * box_area(boxes)[..., None, :]
        inside = ops.any(ops.logical_and(inside, crowd[..., None]), axis=-2)
        matches = ops.where(ops.logical_and(matches == BACKGROUND, inside), IGNORED, matches)
    if ignore is not None:
        inside = covered_fraction(ignore, boxes) >= crowd_fraction
        matches = ops.where(ops.logical_and(matches == BACKGROUND, inside), IGNORED, matches)
    if boxes_valid is not None:
        matches = ops.where(ops.cast(boxes_valid, "bool"), matches, IGNORED)
    return matches


def covered_fraction(mask, boxes):
    """The fraction of each box's area that lies in a mask: one table of sums for each image (Crow 1984) serves all boxes.

    Args:
        mask: bool `(batch, height, width)`.
        boxes: `(batch or 1, n, 4)`, rounded to whole pixels and cut off at the image's edge.

    Returns:
        float32 `(batch, n)` in 0..1; 0 for boxes that are empty then. No gradient goes through.
    """
    height, width = mask.shape[1:]
    sums = ops.cumsum(ops.cumsum(ops.cast(mask, "int32"), axis=1), axis=2)
    sums = ops.reshape(ops.pad(sums, [(0, 0), (1, 0), (1, 0)]), (-1, (height + 1) * (width + 1)))
    corners = ops.cast(ops.round(ops.stop_gradient(ops.cast(boxes, "float32"))), "int32")
    corners = corners + ops.zeros_like(sums[:, :1])[..., None]  # one list of boxes for all images
    x1, x2 = (ops.clip(corners[..., k], 0, width) for k in (0, 2))
    y1, y2 = (ops.clip(corners[..., k], 0, height) for k in (1, 3))

    def at(rows, columns):
        return ops.take_along_axis(sums, rows * (width + 1) + columns, axis=1)

    inside = at(y2, x2) - at(y1, x2) - at(y2, x1) + at(y1, x1)
    area = ops.maximum((y2 - y1) * (x2 - x1), 1)
    return ops.cast(inside, "float32") / ops.cast(area, "float32")
