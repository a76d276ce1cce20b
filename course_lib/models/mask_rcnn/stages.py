"""What happens between the heads, stage by stage: from anchors to proposals, from proposals to losses or to detections.

Each stage is a function of arrays alone, with shapes that are known in advance: a fixed number of proposals, samples and
objects, and a Boolean for each that says whether the slot is filled. So the whole network compiles, once.

The targets of a batch are a dict of arrays, g objects for each image, padded (see `datasets.detection`):

    boxes `(batch, g, 4)`        x1, y1, x2, y2 in pixels; an empty box is padding
    classes `(batch, g)`         from 1; 0 is padding
    masks `(batch, g, h, w)`     0 or 1 (not needed without mask head)
    crowd `(batch, g)`           true where the box is around many objects that nobody outlined one by one (may be absent)
    ignore `(batch, h, w)`       true where pixels do not count (may be absent)
"""

from collections.abc import Mapping, Sequence

import numpy as np
from keras import ops

from course_lib.models.mask_rcnn.settings import Settings
from course_lib.ops.box_coding import clip_boxes, decode_boxes, encode_boxes, large_enough
from course_lib.ops.masks import crop_masks
from course_lib.ops.matching import match_boxes
from course_lib.ops.nms import nms
from course_lib.ops.roi import multilevel_roi_align, multilevel_roi_pool
from course_lib.ops.sampling import sample_balanced, take_rows

LOSSES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask")
"""torchvision's names: RPN's class and box, box head's class and box, mask."""

SMALLEST_PROPOSAL, SMALLEST_DETECTION = 1e-3, 1e-2
"""In pixels; torchvision's."""

BETA = 1 / 9
"""Where the smooth L1 loss turns from a parabola to a straight line."""


# From anchors to proposals


def propose(
    objectness: Sequence,
    deltas: Sequence,
    anchors: Sequence[np.ndarray],
    image_size: tuple[int, int],
    pre_nms_top_n: int,
    post_nms_top_n: int,
    nms_thresh: float,
):
    """The boxes that the RPN proposes: on each level those with the highest scores, moved as predicted, without duplicates.

    Args:
        objectness: per level the logits `(batch, height, width, k)`.
        deltas: per level `(batch, height, width, 4 · k)`.
        anchors: per level `(height · width · k, 4)`.
        image_size: height and width in pixels; boxes are cut off there.
        pre_nms_top_n: boxes of each level that go into NMS, those with the highest logits.
        post_nms_top_n: proposals of each image, over all levels the highest scored.
        nms_thresh: IoU threshold of the NMS, within each level.

    Returns:
        boxes: float32 `(batch, post_nms_top_n, 4)`, the highest scored first; no gradient goes through.
        logits: float32 `(batch, post_nms_top_n)`.
        valid: bool `(batch, post_nms_top_n)`: places that hold a proposal.
    """
    longest = min(pre_nms_top_n, max(len(level) for level in anchors))
    boxes, logits, valid = [], [], []
    for level_logits, level_deltas, level_anchors in zip(objectness, deltas, anchors, strict=True):
        number = len(level_anchors)
        scores = ops.cast(ops.reshape(ops.stop_gradient(level_logits), (-1, number)), "float32")
        moves = ops.reshape(ops.stop_gradient(level_deltas), (-1, number, 4))
        kept = min(pre_nms_top_n, number)
        scores, top = ops.top_k(scores, kept)
        decoded = decode_boxes(take_rows(moves, top), ops.take(level_anchors, top, axis=0))
        decoded = clip_boxes(decoded, image_size)
        rest = longest - kept
        boxes.append(ops.pad(decoded, [(0, 0), (0, rest), (0, 0)]))
        logits.append(ops.pad(scores, [(0, 0), (0, rest)]))
        valid.append(
            ops.pad(ops.cast(large_enough(decoded, SMALLEST_PROPOSAL), "int32"), [(0, 0), (0, rest)])
        )
    # Levels on an axis of their own: boxes of different levels don't suppress each other.
    boxes, logits, valid = ops.stack(boxes, 1), ops.stack(logits, 1), ops.cast(ops.stack(valid, 1), "bool")
    places = min(post_nms_top_n, longest)
    kept_rows, kept = nms(boxes, logits, nms_thresh, places, valid)
    rows = len(anchors) * places
    return _best(
        post_nms_top_n,
        ops.reshape(take_rows(logits, kept_rows), (-1, rows)),
        ops.reshape(kept, (-1, rows)),
        ops.reshape(take_rows(boxes, kept_rows), (-1, rows, 4)),
    )


def _best(count: int, scores, valid, *values):
    """The `count` rows with the highest scores: values in order, scores, valid; places left over hold zeros."""
    rows = scores.shape[-1]
    lowest = float(np.finfo(np.float32).min)
    ranked, order = ops.top_k(ops.where(valid, scores, lowest), min(count, rows))
    filled = take_rows(valid, order)
    rest = [(0, 0), (0, count - min(count, rows))]

    def pad(array):
        return ops.pad(array, rest + [(0, 0)] * (len(array.shape) - 2))

    chosen = []
    for array in values:
        array = take_rows(array, order)
        shape = (*filled.shape[:2], *[1] * (len(array.shape) - 2))
        mask = ops.reshape(filled, (-1, *shape[1:]))
        chosen.append(pad(ops.where(mask, array, ops.zeros_like(array))))
    return *chosen, pad(ops.where(filled, ranked, 0.0)), ops.cast(pad(ops.cast(filled, "int32")), "bool")


# Cutting regions out of the pyramid


def roi_features(pyramid: Sequence, boxes, strides: Sequence[int], size: int, settings: Settings):
    """The features under each box, each from its level of the pyramid, in a grid of fixed size.

    Args:
        pyramid: the maps `(batch, height, width, channels)` that regions are read from, the finest first.
        boxes: `(batch, n, 4)`.
        strides: pixels of the image per location of each map.
        size: rows and columns of the result.
        settings: says by RoI Align or by RoI Pool.

    Returns:
        `(batch, n, size, size, channels)`.
    """
    scales = [1 / stride for stride in strides]
    canonical = settings.canonical_box_size
    if settings.roi_op == "pool":
        return multilevel_roi_pool(pyramid, boxes, size, scales, canonical_box_size=canonical)
    return multilevel_roi_align(
        pyramid, boxes, size, scales, settings.sampling_ratio, canonical_box_size=canonical
    )


# What the RPN learns


def rpn_losses(
    objectness: Sequence,
    deltas: Sequence,
    anchors: Sequence[np.ndarray],
    targets: Mapping,
    settings: Settings,
    random,
):
    """The RPN's two losses, over a few anchors of each image, drawn at random, foreground and background in balance.

    Args:
        objectness, deltas, anchors: as for `propose`.
        targets: of the batch.
        settings: `rpn_fg_iou_thresh`, `rpn_bg_iou_thresh`, `rpn_batch_size_per_image`, `rpn_positive_fraction`.
        random: as for `ops.sampling.sample_balanced`.

    Returns:
        Two float32 scalars, finite for any targets: the binary cross-entropy of the objectness, mean over the anchors that
        were drawn; the smooth L1 loss of dx, dy, dw, dh of those that are objects, sum over them divided by the number of
        *all* that were drawn, as torchvision weighs it.
    """
    every = np.concatenate(anchors)
    logits = _flat(objectness, 1)[..., 0]
    moves = _flat(deltas, 4)
    objects = match_boxes(
        targets["boxes"],
        every[None],
        settings.rpn_fg_iou_thresh,
        settings.rpn_bg_iou_thresh,
        allow_low_quality=True,
        **_objects(targets),
    )
    chosen, positive, negative = sample_balanced(
        objects >= 0, objects == -1, settings.rpn_batch_size_per_image, settings.rpn_positive_fraction, random
    )
    drawn = ops.cast(ops.logical_or(positive, negative), "float32")
    number = ops.maximum(ops.sum(drawn), 1.0)
    each = ops.binary_crossentropy(ops.cast(positive, "float32"), take_rows(logits, chosen), from_logits=True)
    loss_class = ops.sum(drawn * each) / number
    boxes = take_rows(targets["boxes"], ops.maximum(take_rows(objects, chosen), 0))
    encoded = encode_boxes(boxes, ops.take(every, chosen, axis=0))
    loss_box = _box_loss(take_rows(moves, chosen), encoded, positive) / number
    return loss_class, loss_box


# What the heads learn


def select_training_samples(proposals, proposals_valid, targets: Mapping, settings: Settings, random):
    """The training regions of the heads: a random sample of the proposals, to which the ground-truth boxes are added.

    Without the ground-truth boxes an untrained RPN would give the heads nothing to learn a mask from.

    Args:
        proposals: `(batch, n, 4)`.
        proposals_valid: bool `(batch, n)`.
        targets: of the batch.
        settings: `box_fg_iou_thresh`, `box_bg_iou_thresh`, `box_batch_size_per_image`, `box_positive_fraction`.
        random: as for `ops.sampling.sample_balanced`.

    Returns:
        `(boxes, objects, positive, negative)`, with s the smaller of `box_batch_size_per_image` and all there are: boxes
        `(batch, s, 4)`, those of objects first; int32 `(batch, s)`, the row of the object that each is matched to, 0 for
        background; bool `(batch, s)`, it is matched to an object; bool `(batch, s)`, it is background. A box that is
        neither is an empty slot.
    """
    known = _objects(targets)
    boxes = ops.concatenate([proposals, ops.cast(targets["boxes"], "float32")], axis=1)
    single = known["valid"]
    if known["crowd"] is not None:
        single = ops.logical_and(single, ops.logical_not(known["crowd"]))
    valid = ops.logical_and(
        ops.concatenate([proposals_valid, single], axis=1), large_enough(boxes, SMALLEST_PROPOSAL)
    )
    objects = match_boxes(
        targets["boxes"],
        boxes,
        settings.box_fg_iou_thresh,
        settings.box_bg_iou_thresh,
        boxes_valid=valid,
        **known,
    )
    chosen, positive, negative = sample_balanced(
        objects >= 0, objects == -1, settings.box_batch_size_per_image, settings.box_positive_fraction, random
    )
    return (
        ops.stop_gradient(take_rows(boxes, chosen)),
        ops.where(positive, take_rows(objects, chosen), 0),
        positive,
        negative,
    )


def box_losses(logits, deltas, boxes, objects, positive, negative, targets: Mapping, settings: Settings):
    """The box head's two losses.

    Args:
        logits: `(batch, s, num_classes)`.
        deltas: `(batch, s, 4 · num_classes)`.
        boxes, objects, positive, negative: from `select_training_samples`.
        targets: of the batch.
        settings: `bbox_reg_weights`.

    Returns:
        Two float32 scalars: the cross-entropy over the classes, mean over the regions; the smooth L1 loss of
        the true class's dx, dy, dw, dh, sum over the regions of objects divided by the number of all regions.
    """
    count, num_classes = logits.shape[1:]
    number = ops.maximum(ops.sum(ops.cast(ops.logical_or(positive, negative), "float32")), 1.0)
    classes = ops.where(positive, take_rows(ops.cast(targets["classes"], "int32"), objects), 0)
    each = ops.sparse_categorical_crossentropy(classes, ops.cast(logits, "float32"), from_logits=True)
    loss_class = ops.sum(ops.where(ops.logical_or(positive, negative), each, 0.0)) / number

    deltas = ops.reshape(deltas, (-1, count, num_classes, 4))
    of_class = ops.take_along_axis(deltas, classes[..., None, None], axis=2)[:, :, 0]
    encoded = encode_boxes(take_rows(targets["boxes"], objects), boxes, settings.bbox_reg_weights)
    return loss_class, _box_loss(of_class, encoded, positive) / number


def mask_loss(logits, boxes, objects, positive, targets: Mapping):
    """The mask head's loss: each pixel's binary cross-entropy in the channel of the true class alone.

    Args:
        logits: `(batch, s, m, m, num_classes)`.
        boxes, objects, positive: from `select_training_samples`, only those first places that can hold objects.
        targets: of the batch.

    Returns:
        A float32 scalar: the mean over the pixels that count of all regions that are objects; 0 if there is none.
    """
    classes = ops.where(positive, take_rows(ops.cast(targets["classes"], "int32"), objects), 0)
    logits = ops.cast(logits, "float32")
    of_class = ops.take_along_axis(logits, classes[..., None, None, None], axis=-1)[..., 0]
    masks = crop_masks(targets["masks"], objects, boxes, logits.shape[2])
    counted = ops.ones_like(masks)
    if targets.get("ignore") is not None:
        counted -= crop_masks(targets["ignore"][:, None], ops.zeros_like(objects), boxes, logits.shape[2])
        masks = ops.minimum(masks / ops.maximum(counted, 1e-6), 1.0)  # of the part of a cell that counts
    each = counted * ops.binary_crossentropy(masks, of_class, from_logits=True)
    each = ops.sum(each, axis=(-1, -2)) / ops.maximum(ops.sum(counted, axis=(-1, -2)), 1.0)
    number = ops.maximum(ops.sum(ops.cast(positive, "float32")), 1.0)
    return ops.sum(ops.where(positive, each, 0.0)) / number


def smooth_l1(difference, beta: float = BETA):
    """The absolute difference minus β / 2, and a parabola below β (Girshick 2015, Fast R-CNN, equation 3, for β = 1)."""
    size = ops.abs(difference)
    return ops.where(size < beta, 0.5 * size * size / beta, size - 0.5 * beta)


def _box_loss(deltas, encoded, positive):
    """Sum of the smooth L1 loss over the rows that are objects."""
    each = ops.sum(smooth_l1(ops.cast(deltas, "float32") - encoded), axis=-1)
    return ops.sum(ops.where(positive, each, 0.0))


def _flat(levels: Sequence, width: int):
    """Per level `(batch, h, w, k · width)` to `(batch, all anchors, width)`, in the order of the anchors."""
    rows = [
        ops.reshape(level, (-1, level.shape[1] * level.shape[2] * (level.shape[3] // width), width))
        for level in levels
    ]
    return ops.cast(ops.concatenate(rows, axis=1), "float32")


def _objects(targets: Mapping) -> dict:
    """Which rows of the targets are objects, which crowds, and which pixels do not count."""
    valid = ops.cast(targets["classes"], "int32") > 0
    return {"valid": valid, "crowd": targets.get("crowd"), "ignore": targets.get("ignore")}


# From the heads' outputs to detections


def postprocess_detections(
    logits, deltas, proposals, proposals_valid, image_size: tuple[int, int], settings: Settings
):
    """From the box head's outputs to detections: every region may be one of every class; NMS removes duplicates by class.

    Args:
        logits: `(batch, n, num_classes)`.
        deltas: `(batch, n, 4 · num_classes)`.
        proposals, proposals_valid: `(batch, n, 4)` and bool `(batch, n)`.
        image_size: height and width in pixels.
        settings: `bbox_reg_weights`, `box_score_thresh`, `box_nms_thresh`, `box_detections_per_img`.

    Returns:
        boxes: float32 `(batch, box_detections_per_img, 4)`, the highest scored first.
        classes: int32 `(batch, box_detections_per_img)`; 0 in empty places.
        scores: float32 `(batch, box_detections_per_img)`, probabilities; 0 in empty places.
        valid: bool `(batch, box_detections_per_img)`.
    """
    count, num_classes = logits.shape[1:]
    scores = ops.softmax(ops.cast(logits, "float32"), axis=-1)
    boxes = decode_boxes(
        ops.reshape(deltas, (-1, count, num_classes, 4)), proposals[:, :, None], settings.bbox_reg_weights
    )
    # (batch, class, region): each class is a list of its own; background is left out.
    scores = ops.transpose(scores, (0, 2, 1))[:, 1:]
    boxes = ops.transpose(boxes, (0, 2, 1, 3))[:, 1:]
    boxes = clip_boxes(ops.reshape(boxes, (-1, (num_classes - 1) * count, 4)), image_size)
    boxes = ops.reshape(boxes, (-1, num_classes - 1, count, 4))
    valid = ops.logical_and(scores > settings.box_score_thresh, large_enough(boxes, SMALLEST_DETECTION))
    valid = ops.logical_and(valid, proposals_valid[:, None])
    places = min(settings.box_detections_per_img, count)
    kept_rows, kept = nms(boxes, scores, settings.box_nms_thresh, places, valid)
    classes = ops.zeros_like(kept_rows) + ops.arange(1, num_classes, dtype="int32")[:, None]
    rows = (num_classes - 1) * places
    boxes, classes, scores, valid = _best(
        settings.box_detections_per_img,
        ops.reshape(take_rows(scores, kept_rows), (-1, rows)),
        ops.reshape(kept, (-1, rows)),
        ops.reshape(take_rows(boxes, kept_rows), (-1, rows, 4)),
        ops.reshape(classes, (-1, rows)),
    )
    return boxes, classes, scores, valid


def masks_of_classes(logits, classes):
    """The probabilities `(batch, n, m, m)` of each region's own class, from mask logits `(batch, n, m, m, num_classes)`."""
    of_class = ops.take_along_axis(ops.cast(logits, "float32"), classes[..., None, None, None], axis=-1)
    return ops.sigmoid(of_class[..., 0])
