"""The detector's parts against torchvision's outputs, by hand and vectorised; the array's name says the setting.

`pytest -rP` prints the largest deviation of each kind.
"""

import re

import numpy as np
import pytest
from keras import ops
from torchvision_rule import partners

from course_lib.ops import by_hand
from course_lib.ops.anchors import pyramid_anchors
from course_lib.ops.box_coding import clip_boxes, decode_boxes, encode_boxes, large_enough
from course_lib.ops.boxes import box_giou, box_iou
from course_lib.ops.masks import paste_masks, whole_image_masks
from course_lib.ops.matching import BACKGROUND, match_boxes
from course_lib.ops.nms import nms
from course_lib.ops.roi import multilevel_roi_align, roi_align, roi_pool
from course_lib.ops.sampling import sample_balanced

pytestmark = pytest.mark.backend

ROI_ALIGN = r"roi_align_(\d+)x(\d+)_scale(\d+)_sampling(\d+)_aligned([01])"
ROI_POOL = r"roi_pool_(\d+)x(\d+)_scale(\d+)"
NMS = r"(batched_)?nms_keep_iou(0\.\d+)"
ANCHORS = r"anchors_(\d+)x(\d+)_strides([\d_]+)_sizes([\d_]+)"
INPUTS = (
    "roi_features roi_boxes roi_batch_index nms_boxes nms_scores nms_classes coder_reference coder_proposals coder_deltas "
    "paste_boxes paste_masks"
).split()
COMPARED = [
    ROI_ALIGN,
    ROI_POOL,
    NMS,
    ANCHORS,
    "box_iou",
    "generalized_box_iou",
    "coder_(en|de)coded",
    "pasted",
]
CODER_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
RATIOS = (0.5, 1.0, 2.0)


@pytest.fixture(scope="module")
def theirs(fixtures):
    with np.load(fixtures / "torchvision_ops.npz") as file:
        return {name: file[name] for name in file.files}


def iou_by_hand(boxes, others):
    return np.array([[by_hand.iou(box, other) for other in others] for box in boxes])


def settings(theirs, pattern):
    """The names that fit a pattern, with what it catches."""
    found = {name: caught.groups() for name in theirs if (caught := re.fullmatch(pattern, name))}
    assert found, f"no array is named {pattern}"
    return found


def agree(name, ours, expected, tolerance):
    """Every number within `tolerance`, relative to those above 1."""
    ours = np.asarray(ops.convert_to_numpy(ours))
    assert ours.shape == expected.shape
    assert np.isfinite(ours).all()
    deviation = np.max(np.abs(ours - expected) / np.maximum(np.abs(expected), 1), initial=0)
    print(f"{name}: largest deviation {deviation:.1e}")
    assert deviation <= tolerance, f"{name} deviates by {deviation}"


def test_every_array_is_compared(theirs):
    assert [n for n in theirs if n not in INPUTS and not any(re.fullmatch(p, n) for p in COMPARED)] == []
    assert [name for name in INPUTS if name not in theirs] == []


def of_its_image(theirs, function):
    """`function(features, boxes)` for all boxes on all images, then each box's own image."""
    features, boxes, image = (theirs[f"roi_{name}"] for name in ("features", "boxes", "batch_index"))
    everywhere = np.broadcast_to(boxes, (len(features), *boxes.shape))
    return ops.convert_to_numpy(function(features, everywhere))[image, np.arange(len(boxes))]


def test_roi_align(theirs):
    for name, setting in settings(theirs, ROI_ALIGN).items():
        rows, columns, stride, sampling, aligned = map(int, setting)
        ours = of_its_image(
            theirs,
            lambda f, b, rows=rows, columns=columns, stride=stride, sampling=sampling, aligned=aligned: (
                roi_align(f, b, (rows, columns), 1 / stride, sampling, bool(aligned))
            ),
        )
        agree(name, ours, theirs[name], 1e-5)


@pytest.mark.parametrize("sampling", [1, 2])
@pytest.mark.parametrize("aligned", [0, 1])
def test_roi_align_by_hand(theirs, sampling, aligned):
    name = f"roi_align_7x7_scale8_sampling{sampling}_aligned{aligned}"
    some = slice(0, 12)
    ours = [
        by_hand.roi_align(theirs["roi_features"][image], box, 7, 1 / 8, sampling, bool(aligned))
        for box, image in zip(theirs["roi_boxes"][some], theirs["roi_batch_index"][some], strict=True)
    ]
    agree(f"{name} by hand", ours, theirs[name][some], 1e-5)


def test_roi_pool(theirs):
    for name, setting in settings(theirs, ROI_POOL).items():
        rows, columns, stride = map(int, setting)
        ours = of_its_image(
            theirs,
            lambda f, b, rows=rows, columns=columns, stride=stride: roi_pool(
                f, b, (rows, columns), 1 / stride
            ),
        )
        agree(name, ours, theirs[name], 0)


def test_roi_pool_by_hand(theirs):
    ours = [
        by_hand.roi_pool(theirs["roi_features"][image], box, 7, 1 / 8)
        for box, image in zip(theirs["roi_boxes"], theirs["roi_batch_index"], strict=True)
    ]
    agree("roi_pool by hand", ours, theirs["roi_pool_7x7_scale8"], 0)


def test_nms(theirs):
    boxes, scores = theirs["nms_boxes"], theirs["nms_scores"]
    for name, (per_class, threshold) in settings(theirs, NMS).items():
        classes = theirs["nms_classes"] if per_class else None
        indices, kept = nms(boxes, scores, float(threshold), len(boxes), groups=classes)
        indices, kept = ops.convert_to_numpy(indices), ops.convert_to_numpy(kept)
        np.testing.assert_array_equal(indices[kept], theirs[name], err_msg=name)
        assert not kept[kept.sum() :].any()
        assert by_hand.nms(boxes, scores, float(threshold), classes) == theirs[name].tolist()
        print(f"{name}: the same {kept.sum()} of {len(boxes)} boxes in the same order")


@pytest.mark.parametrize(
    ("name", "measure", "tolerance"),
    [("box_iou", box_iou, 1e-6), ("generalized_box_iou", box_giou, 1e-6), ("box_iou", iou_by_hand, 1e-6)],
)
def test_overlaps(theirs, name, measure, tolerance):
    # The file holds no boxes of their own for these: they are the first 50 of the NMS boxes against the next 40.
    rows, columns = theirs[name].shape
    boxes = theirs["nms_boxes"]
    agree(name, measure(boxes[:rows], boxes[rows : rows + columns]), theirs[name], tolerance)


def test_box_coding(theirs):
    reference, proposals, deltas = (theirs[f"coder_{n}"] for n in ("reference", "proposals", "deltas"))
    encoded = encode_boxes(reference, proposals, CODER_WEIGHTS)
    agree("coder_encoded", encoded, theirs["coder_encoded"], 1e-5)
    by_loop = [by_hand.encode(b, r, CODER_WEIGHTS) for b, r in zip(reference, proposals, strict=True)]
    agree("coder_encoded by hand", by_loop, theirs["coder_encoded"], 1e-5)
    # An edge is centre - half a side, and of a large box it is as exact as these are: in units of the box.
    expected = theirs["coder_decoded"]
    unit = np.abs(expected).max(axis=-1, keepdims=True)
    decoded = ops.convert_to_numpy(decode_boxes(deltas, proposals, CODER_WEIGHTS))
    agree("coder_decoded", decoded / unit, expected / unit, 1e-6)
    by_loop = [by_hand.decode(d, r, CODER_WEIGHTS) for d, r in zip(deltas, proposals, strict=True)]
    agree("coder_decoded by hand", by_loop / unit, expected / unit, 1e-6)


def test_anchors(theirs):
    for name, (height, width, strides, sizes) in settings(theirs, ANCHORS).items():
        image = int(height), int(width)
        sizes = [int(size) for size in sizes.split("_")]
        maps = [(image[0] // int(stride), image[1] // int(stride)) for stride in strides.split("_")]
        ours = np.concatenate(pyramid_anchors(image, maps, sizes, RATIOS))
        agree(name, ours, theirs[name], 0)
        by_loop = [
            by_hand.anchors(image, level, [size], RATIOS) for level, size in zip(maps, sizes, strict=True)
        ]
        agree(f"{name} by hand", np.concatenate(by_loop), theirs[name], 0)


def test_mask_pasting(theirs):
    masks, boxes, expected = theirs["paste_masks"], theirs["paste_boxes"], theirs["pasted"]
    size = expected.shape[1:]
    agree("pasted", paste_masks(masks, boxes, size), expected, 1e-5)
    agree("pasted in NumPy", whole_image_masks(masks, boxes, size, threshold=None), expected, 1e-5)
    by_loop = [by_hand.paste_mask(mask, box, size) for mask, box in zip(masks, boxes, strict=True)]
    agree("pasted by hand", by_loop, expected, 1e-5)
    clear = np.abs(expected - 0.5) > 1e-5  # a pixel on the threshold may fall either way
    np.testing.assert_array_equal(whole_image_masks(masks, boxes, size)[clear], expected[clear] >= 0.5)


# The parts in a row, each fed with what torchvision's Mask R-CNN has there; the settings are those of the README.

SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)
ANCHOR_SIZES = (32, 64, 128, 256, 512)
LEVELS = ("0", "1", "2", "3", "pool")


@pytest.fixture(scope="module")
def model(fixtures):
    with np.load(fixtures / "torchvision_mask_rcnn.npz") as file:
        return {name: file[name] for name in file.files if name != "names"}


def rpn_outputs(model):
    """Objectness `(n,)`, deltas `(n, 4)` and anchors `(n, 4)`, of each level."""
    maps = [model[f"rpn_objectness_{k}"].shape[:2] for k in range(5)]
    anchors = pyramid_anchors(model["image"].shape[:2], maps, ANCHOR_SIZES, RATIOS)
    return [
        (model[f"rpn_objectness_{k}"].reshape(-1), model[f"rpn_deltas_{k}"].reshape(-1, 4), anchors[k])
        for k in range(5)
    ]


def same_boxes(name, ours, expected, tolerance):
    """As many boxes, each of theirs among ours. (Their order hangs on the last digit of scores near to 1.)"""
    assert ours.shape == expected.shape
    distance = np.abs(ours[:, None] - expected).max(axis=-1)
    print(f"{name}: {len(ours)} boxes, largest deviation {distance.min(axis=0).max():.1e} px")
    assert max(distance.min(axis=0).max(), distance.min(axis=1).max()) <= tolerance


def test_proposals(model):
    boxes, scores, levels = [], [], []
    for k, (objectness, deltas, anchors) in enumerate(rpn_outputs(model)):
        best = np.argsort(-objectness, kind="stable")[:200]
        boxes.append(ops.convert_to_numpy(decode_boxes(deltas[best], anchors[best])))
        scores.append(ops.convert_to_numpy(ops.sigmoid(objectness[best])))
        levels.append(np.full(len(best), k))
    boxes = clip_boxes(np.concatenate(boxes), model["image"].shape[:2])
    indices, kept = nms(
        boxes, np.concatenate(scores), 0.7, 50, large_enough(boxes, 1e-3), np.concatenate(levels)
    )
    ours = ops.convert_to_numpy(boxes)[ops.convert_to_numpy(indices)[ops.convert_to_numpy(kept)]]
    same_boxes("proposals", ours, model["proposals"], 0.05)


def test_pooled_features_of_a_pyramid(model):
    expected = model["box_pooled_first8"]
    pyramid = [model[f"fpn_{level}"][None] for level in LEVELS[:4]]
    ours = multilevel_roi_align(pyramid, model["proposals"][None, : len(expected)], 7, SCALES, 2)
    agree("box_pooled_first8", ours[0], expected, 1e-5)


def test_detections(model):
    size, proposals = model["image"].shape[:2], model["proposals"]
    classes = model["box_class_logits"].shape[1]
    deltas = model["box_deltas"].reshape(-1, classes, 4)
    boxes = clip_boxes(decode_boxes(deltas, proposals[:, None], CODER_WEIGHTS), size)[:, 1:]
    scores = ops.softmax(model["box_class_logits"])[:, 1:]
    boxes, scores = ops.reshape(boxes, (-1, 4)), ops.reshape(scores, (-1,))
    labels = np.tile(np.arange(1, classes), len(proposals))
    valid = ops.logical_and(scores > 0.05, large_enough(boxes, 1e-2))
    indices, kept = (ops.convert_to_numpy(v) for v in nms(boxes, scores, 0.5, 20, valid, labels))
    indices = indices[kept]
    found, their_labels = ops.convert_to_numpy(boxes)[indices], model["detection_labels"]
    assert len(found) == len(their_labels)
    ours, _, distance = partners(found, model["detection_boxes"], labels[indices], their_labels)
    print(f"detections: {len(found)} boxes, largest deviation {distance.max():.1e} px")
    assert distance.max() <= 0.05  # which says that the labels are the same
    agree("detection scores", ops.convert_to_numpy(scores)[indices][ours], model["detection_scores"], 1e-5)


def test_pasted_detections(model):
    logits, labels = model["mask_logits"], model["detection_labels"]
    masks = 1 / (1 + np.exp(-logits[np.arange(len(labels)), :, :, labels].astype(np.float64)))
    size = model["image"].shape[:2]
    for ours in (
        whole_image_masks(masks, model["detection_boxes"], size, threshold=None),
        ops.convert_to_numpy(paste_masks(masks, model["detection_boxes"], size)),
    ):
        deviation = np.abs(ours * 255 - model["detection_masks_u8"]).max()
        print(f"detection_masks_u8: largest deviation {deviation:.2f} of 255")
        assert deviation <= 1  # the file's are whole numbers


def test_losses_of_the_region_proposals(model):
    """What the anchors are matched to decides both losses: torchvision's own outputs, our matcher, sampler and coding."""
    objectness, deltas, anchors = (np.concatenate(values) for values in zip(*rpn_outputs(model), strict=True))
    matches = match_boxes(model["gt_boxes"], anchors, 0.7, 0.3, allow_low_quality=True)
    by_loop = by_hand.match(model["gt_boxes"], anchors, 0.7, 0.3, allow_low_quality=True)
    np.testing.assert_array_equal(ops.convert_to_numpy(matches), by_loop)
    rows, is_positive, is_negative = (
        ops.convert_to_numpy(v) for v in sample_balanced(matches >= 0, matches == BACKGROUND, 10**6, 1.0)
    )
    sampled, positive = rows[is_positive | is_negative], rows[is_positive]
    logits, truth = objectness[sampled].astype(np.float64), by_loop[sampled] >= 0
    loss = np.mean(np.logaddexp(0, logits) - logits * truth)
    agree("loss_objectness", loss, model["loss_objectness"], 1e-5)
    targets = ops.convert_to_numpy(encode_boxes(model["gt_boxes"][by_loop[positive]], anchors[positive]))
    off = np.abs(deltas[positive] - targets)
    smooth = np.where(off < 1 / 9, 0.5 * off**2 * 9, off - 0.5 / 9)
    agree("loss_rpn_box_reg", np.float64(smooth.sum() / len(sampled)), model["loss_rpn_box_reg"], 1e-5)
