"""Non-maximum suppression: of duplicate boxes, keep the one with the highest score.

The greedy rule (Felzenszwalb et al. 2010, Object Detection with Discriminatively Trained Part-Based Models, section 7.2,
there with another measure of overlap): go through the boxes from the highest score down; keep a box unless its IoU with
one already kept is above a threshold. As a loop it takes one step for each box, each waiting for the one before.

Here the same result comes from a matrix (Cluster-NMS, Zheng et al. 2020, https://arxiv.org/abs/2005.03572). Let S[i, j] be
true where i has the higher score and overlaps j too much. A box is kept exactly if no *kept* box stands over it:

    keep[j] = not any over i (keep[i] and S[i, j])

Since S only points downwards, this equation has one solution, the greedy one. Put all boxes in for `keep` on the right,
compute the left, put that in again: after k rounds the first k boxes are certainly right, so it ends; in practice after
as many rounds as the longest chain "a removes b, which would have removed c, ...", a handful. Each round is one product
of a matrix with a vector, with shapes that are known before: it compiles, for a whole batch at once.

The matrix of 4,000 boxes has 16 million entries, most of them needless: the result only needs the first
`max_output` boxes that are kept. So the list is taken in blocks, highest scores first. A block is compared with what has
been kept so far, then with itself, by the equation above; and as soon as every list's places are full, it ends.

Outside a compiled function the boxes are at hand, and most of the matrix need not be computed: sorted from left to right,
a box can only overlap those that begin before it ends. Few pairs are left, and the equation is solved for those.
"""

import numpy as np
from keras import ops

from course_lib.ops import labels
from course_lib.ops.box_coding import float32_boxes
from course_lib.ops.boxes import box_iou
from course_lib.ops.sampling import take_rows

BLOCK = 256
"""Boxes that are processed at once. The result does not depend on it."""


def nms(boxes, scores, iou_threshold: float, max_output: int, valid=None, groups=None):
    """Greedy non-maximum suppression, exact, of fixed size, for any number of lists at once.

    Equal scores are taken in the order of their rows, as torchvision does. No gradient goes through: what is kept is a
    decision. The work grows with n · (`max_output` + 256), n being the valid rows; it is less where the places fill up.

    Args:
        boxes: `(..., n, 4)`.
        scores: `(..., n)`; probabilities or logits, only their order counts.
        iou_threshold: a box goes if its IoU with a kept one is *above* this.
        max_output: length of the result.
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
            "there must be one score for each box, and the number of boxes must be known in advance."
        )
    if not 0 <= iou_threshold <= 1 or max_output < 1:
        raise ValueError(
            f"iou_threshold is {iou_threshold} and max_output {max_output}; the threshold must lie in 0..1, "
            "and max_output must be at least 1."
        )
    if count == 0:
        nothing = ops.zeros((*ops.shape(scores)[:-1], max_output), "int32")
        return nothing, ops.cast(nothing, "bool")

    usable = ops.logical_and(
        ops.logical_not(ops.isnan(scores)), ops.all(ops.logical_not(ops.isnan(boxes)), axis=-1)
    )
    if valid is not None:
        usable = ops.logical_and(usable, ops.cast(valid, "bool"))
    # Usable boxes stand in front: what comes after the longest list of them need not be looked at.
    longest = ops.max(ops.sum(ops.cast(usable, "int32"), axis=-1))
    if known(longest):
        return _of_arrays(boxes, scores, usable, iou_threshold, max_output, groups)

    order = ops.argsort(ops.where(usable, -scores, float("inf")), axis=-1)
    listed = {"boxes": take_rows(boxes, order), "usable": take_rows(usable, order), "rows": order}
    if groups is not None:
        listed["groups"] = take_rows(ops.cast(ops.convert_to_tensor(groups), "int32"), order)
    listed = {name: _in_blocks(value, len(scores.shape) - 1, BLOCK) for name, value in listed.items()}
    blocks, size = listed["rows"].shape[0], listed["rows"].shape[-1]

    # The slots of the result, all free at first. They are made from the input, so that they have its leading axes.
    free = ops.zeros_like(scores[..., :1]) + ops.zeros((max_output,))
    places = {
        "boxes": ops.zeros_like(boxes[..., :1, :]) + ops.zeros((max_output, 1)),
        "rows": ops.cast(free, "int32"),
        "kept": ops.cast(free, "bool"),
    }
    if groups is not None:
        places["groups"] = ops.cast(free, "int32")

    def unfinished(number, places):
        return ops.logical_and(number * size < longest, ops.logical_not(ops.all(places["kept"])))

    def next_block(number, places):
        block = {name: ops.take(value, number, axis=0) for name, value in listed.items()}
        over = ops.logical_and(places["kept"][..., None], _overlapping(places, block, iou_threshold))
        candidates = ops.logical_and(block["usable"], ops.logical_not(ops.any(over, axis=-2)))
        block["kept"] = _greedy(candidates, _overlapping(block, block, iou_threshold))
        return number + 1, _first_kept(places, block)

    if blocks == 1:
        _, places = next_block(0, places)
    else:
        _, places = ops.while_loop(unfinished, next_block, (ops.convert_to_tensor(0), places))
    return ops.where(places["kept"], places["rows"], 0), places["kept"]


def known(tensor) -> bool:
    """Whether a tensor's values are at hand, that is, outside a compiled function."""
    return labels.known(ops.any(tensor)) is not None


def _of_arrays(boxes, scores, usable, iou_threshold: float, max_output: int, groups):
    """`nms` of what is at hand, list by list, in NumPy."""
    leading = tuple(scores.shape[:-1])
    boxes, scores, usable = (ops.convert_to_numpy(value) for value in (boxes, scores, usable))
    groups = (
        np.zeros_like(scores)
        if groups is None
        else np.broadcast_to(ops.convert_to_numpy(groups), scores.shape)
    )
    indices = np.zeros((*leading, max_output), np.int32)
    kept = np.zeros(indices.shape, bool)
    for one in np.ndindex(leading):
        rows = np.flatnonzero(usable[one])
        rows = rows[np.argsort(-scores[one][rows], kind="stable")]
        above, below = _removing(boxes[one][rows], groups[one][rows], iou_threshold)
        keep, before = np.ones(len(rows), bool), None
        while before is None or (keep != before).any():
            keep, before = np.ones(len(rows), bool), keep
            keep[below[before[above]]] = False
        rows = rows[keep][:max_output]
        indices[one][: len(rows)], kept[one][: len(rows)] = rows, True
    return ops.convert_to_tensor(indices), ops.convert_to_tensor(kept)


def _removing(boxes: np.ndarray, groups: np.ndarray, iou_threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """The rows of all pairs that overlap too much, the first `(pairs,)` above the second, of boxes `(n, 4)`."""
    order = np.argsort(boxes[:, 0], kind="stable")
    x1, y1, x2, y2 = boxes[order].T
    area = np.maximum(x2 - x1, 0) * np.maximum(y2 - y1, 0)
    ends = np.searchsorted(x1, x2)  # of each box, the first that begins where it ends
    found = []
    for start in range(0, len(order), BLOCK):
        few = np.arange(start, min(start + BLOCK, len(order)))
        counts = np.maximum(ends[few] - few - 1, 0)
        a = np.repeat(few, counts)
        b = a + 1 + np.arange(len(a)) - np.repeat(np.cumsum(counts) - counts, counts)
        near = (np.minimum(y2[a], y2[b]) > np.maximum(y1[a], y1[b])) & (groups[order[a]] == groups[order[b]])
        a, b = a[near], b[near]
        # As `box_iou`, step by step, so that the same boxes are removed, to the last bit.
        shared = (np.minimum(x2[a], x2[b]) - np.maximum(x1[a], x1[b])).clip(0) * (
            np.minimum(y2[a], y2[b]) - np.maximum(y1[a], y1[b])
        )
        union = area[a] + area[b] - shared
        over = shared / np.where(union > 0, union, 1) > np.float32(iou_threshold)
        found.append(order[np.stack([a[over], b[over]])])
    pairs = np.concatenate(found, axis=1) if found else np.zeros((2, 0), int)
    return pairs.min(axis=0), pairs.max(axis=0)


def _in_blocks(values, axis: int, size: int):
    """`(..., n, ...)` as `(blocks, ..., block, ...)` along `axis`, filled up with zeros: rows that are not usable."""
    count = values.shape[axis]
    size = min(size, count)
    missing = -count % size
    if missing:
        kind = values.dtype
        padding = [(0, missing if k == axis else 0) for k in range(len(values.shape))]
        values = ops.cast(
            ops.pad(ops.cast(values, "int32") if "bool" in str(kind) else values, padding), kind
        )
    shape = ops.shape(values)
    values = ops.reshape(values, (*shape[:axis], (count + missing) // size, size, *shape[axis + 1 :]))
    return ops.moveaxis(values, axis, 0)


def _overlapping(first, second, iou_threshold: float):
    """bool `(..., n, m)`: which of the first would remove which of the second, if they are kept and higher up."""
    found = box_iou(first["boxes"], second["boxes"]) > iou_threshold
    if "groups" in first:
        found = ops.logical_and(found, first["groups"][..., :, None] == second["groups"][..., None, :])
    return found


def _greedy(candidates, overlapping):
    """bool `(..., n)`: which of the candidates, highest score first, are kept: the equation at the top of this file."""
    position = ops.arange(candidates.shape[-1], dtype="int32")
    removes = ops.logical_and(overlapping, position[:, None] < position)

    def next_round(keep, before):
        removed = ops.any(ops.logical_and(keep[..., :, None], removes), axis=-2)
        return ops.logical_and(candidates, ops.logical_not(removed)), keep

    keep, _ = ops.while_loop(
        lambda keep, before: ops.any(keep != before), next_round, (candidates, ops.logical_not(candidates))
    )
    return keep


def _first_kept(places, block):
    """The places after this block: what was kept before, then what is kept of the block, as far as there is room."""
    room = places["kept"].shape[-1]
    joined = {
        name: ops.concatenate([value, block[name]], axis=len(places["kept"].shape) - 1)
        for name, value in places.items()
    }
    # What is kept has the keys n, n - 1, ... down the list, the others 0: the largest keys are the first ones kept.
    count = joined["kept"].shape[-1]
    keys = ops.where(joined["kept"], count - ops.arange(count, dtype="int32"), 0)
    keys, chosen = ops.top_k(keys, room)
    return {name: take_rows(value, chosen) for name, value in joined.items() if name != "kept"} | {
        "kept": keys > 0
    }
