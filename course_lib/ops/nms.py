"""Non-maximum suppression: of boxes that say the same thing, keep the one that says it loudest.

The greedy rule (Felzenszwalb et al. 2010, Object Detection with Discriminatively Trained Part-Based Models, section 7.2,
there with another measure of overlap): go through the boxes from the highest score down; keep a box unless its IoU with
one already kept is above a threshold. As a loop it takes one step for each box, each waiting for the one before.

Here the same answer comes from a matrix (Cluster-NMS, Zheng et al. 2020, https://arxiv.org/abs/2005.03572). Let S[i, j] be
true where i has the higher score and overlaps j too much. A box is kept exactly if no *kept* box stands over it:

    keep[j] = not any over i (keep[i] and S[i, j])

Since S only points downwards, this equation has one solution, the greedy one. Put all boxes in for `keep` on the right,
compute the left, put that in again: after k rounds the first k boxes are certainly right, so it ends; in practice after
as many rounds as the longest chain "a removes b, which would have removed c, ...", a handful. Each round is one product
of a matrix with a vector, with shapes that are known before: it compiles, for a whole batch at once.
"""

from __future__ import annotations

from keras import ops

from course_lib.ops.box_coding import float32_boxes
from course_lib.ops.boxes import box_iou
from course_lib.ops.sampling import take_rows


def nms(boxes, scores, iou_threshold: float, max_output: int, valid=None, groups=None):
    """Greedy non-maximum suppression, exact, of fixed size, for any number of lists at once.

    Equal scores are taken in the order of their rows, as torchvision does. No gradient goes through: what is kept is a
    decision. It holds a matrix of n² truth values for each list; put the levels of a pyramid on an axis of their own
    instead of into one long list.

    Args:
        boxes: `(..., n, 4)`.
        scores: `(..., n)`; probabilities or logits, only their order counts.
        iou_threshold: a box goes if its IoU with a kept one is *above* this.
        max_output: how many places the answer has.
        valid: bool `(..., n)`, the rows that are boxes at all; the others (padding) are never kept and remove nothing.
            By default all. A row with a score or an edge that is not a number is never valid.
        groups: integers `(..., n)`, as the class of each box: only boxes of one group remove each other.

    Returns:
        indices: int32 `(..., max_output)`: rows of the boxes kept, highest score first; 0 in places that are left over.
        kept: bool `(..., max_output)`: which places hold a box.

    Raises:
        ValueError: if the shapes do not fit, the threshold lies outside 0..1 or max_output is below 1.
    """
    boxes = ops.stop_gradient(float32_boxes("boxes", boxes))
    scores = ops.stop_gradient(ops.cast(ops.convert_to_tensor(scores), "float32"))
    count = boxes.shape[-2]
    if count is None or scores.shape[-1] != count or len(scores.shape) != len(boxes.shape) - 1:
        raise ValueError(
            f"scores has shape {tuple(scores.shape)} for boxes of {tuple(boxes.shape)}; "
            "there must be one score for each box, and a number of boxes that is known beforehand."
        )
    if not 0 <= iou_threshold <= 1 or max_output < 1:
        raise ValueError(
            f"iou_threshold is {iou_threshold} and max_output {max_output}; the threshold must lie in 0..1, "
            "and at least one place is needed."
        )
    if count == 0:
        nothing = ops.zeros((*ops.shape(scores)[:-1], max_output), "int32")
        return nothing, ops.cast(nothing, "bool")

    usable = ops.logical_and(
        ops.logical_not(ops.isnan(scores)), ops.all(ops.logical_not(ops.isnan(boxes)), axis=-1)
    )
    if valid is not None:
        usable = ops.logical_and(usable, ops.cast(valid, "bool"))
    order = ops.argsort(ops.where(usable, -scores, float("inf")), axis=-1)
    boxes, usable = take_rows(boxes, order), take_rows(usable, order)

    position = ops.arange(count, dtype="int32")
    removes = ops.logical_and(box_iou(boxes, boxes) > iou_threshold, position[:, None] < position)
    if groups is not None:
        groups = take_rows(ops.cast(ops.convert_to_tensor(groups), "int32"), order)
        removes = ops.logical_and(removes, groups[..., :, None] == groups[..., None, :])

    def next_round(keep, before):
        removed = ops.any(ops.logical_and(keep[..., :, None], removes), axis=-2)
        return ops.logical_and(usable, ops.logical_not(removed)), keep

    keep, _ = ops.while_loop(
        lambda keep, before: ops.any(keep != before), next_round, (usable, ops.logical_not(usable))
    )

    # Kept boxes have the keys n, n - 1, ... down the list, the others 0: the largest keys are the first ones kept.
    keys, places = ops.top_k(ops.where(keep, count - position, 0), min(max_output, count))
    kept = keys > 0
    indices = ops.where(kept, take_rows(order, places), 0)
    left_over = [(0, 0)] * (len(kept.shape) - 1) + [(0, max_output - min(max_output, count))]
    return ops.pad(indices, left_over), ops.cast(ops.pad(ops.cast(kept, "int32"), left_over), "bool")
