"""The whole Mask R-CNN against torchvision's numbers: each stage from the stored output of the one before, and end to end.

Stage by stage, so that rounding in one can't hide in, or be blamed on, the next. `pytest -rP` prints what was measured.
"""

import keras
import numpy as np
import pytest
from keras import ops
from torchvision_rule import LEVELS, load_by_rule, partners, read_reference

from course_lib.models.mask_rcnn import LOSSES, MaskRCNN
from course_lib.models.mask_rcnn.torchvision_weights import torchvision_shapes
from course_lib.ops.masks import whole_image_masks

pytestmark = pytest.mark.backend

GRADIENTS = {
    "rpn.head.conv.0.0.weight": "rpn-head-conv-0-0/kernel",
    "roi_heads.mask_predictor.conv5_mask.weight": "roi_heads-mask_predictor-conv5_mask/kernel",
    "backbone.fpn.inner_blocks.0.0.weight": "backbone-fpn-inner_blocks-0-0/kernel",
    "backbone.body.conv1.weight": "backbone-body-conv1/kernel",
}


@pytest.fixture(scope="module")
def reference(fixtures):
    return read_reference(fixtures)


@pytest.fixture(scope="module")
def model(reference):
    """The fixtures' network, with the parameters of their rule."""
    settings = {
        "rpn_pre_nms_top_n": (200, 200),
        "rpn_post_nms_top_n": (50, 50),
        "box_detections_per_img": 20,
        "rpn_batch_size_per_image": 10**6,
        "box_batch_size_per_image": 10**6,
        "box_positive_fraction": 1.0,
    }
    classes = reference["box_class_logits"].shape[1]
    model = MaskRCNN(
        classes,
        backbone_arguments={"normalization": "frozen_batch"},
        settings=settings,
        torchvision_anchors=True,
    )
    assert set(torchvision_shapes(model)) == set(reference["names"].tolist())
    load_by_rule(model, int(reference["seed"]))
    return model


@pytest.fixture(scope="module")
def size(reference):
    return reference["image"].shape[:2]


@pytest.fixture(scope="module")
def features(reference):
    """torchvision's maps and RPN outputs."""
    return {
        "pyramid": [ops.convert_to_tensor(reference[f"fpn_{level}"][None]) for level in LEVELS],
        "objectness": [ops.convert_to_tensor(reference[f"rpn_objectness_{k}"][None]) for k in range(5)],
        "deltas": [ops.convert_to_tensor(reference[f"rpn_deltas_{k}"][None]) for k in range(5)],
    }


@pytest.fixture(scope="module")
def truth(reference):
    return {
        "boxes": reference["gt_boxes"][None],
        "classes": reference["gt_labels"][None].astype(np.int32),
        "masks": reference["gt_masks"][None],
    }


def close(name, got, expected, tolerance=1e-4):
    """Within the tolerance of the largest number of the reference."""
    got = ops.convert_to_numpy(got)
    assert got.shape == expected.shape
    deviation = float(np.abs(got - expected).max() / np.abs(expected).max())
    print(f"{name}: {deviation:.1e}")
    assert deviation <= tolerance, name


def test_rpn_outputs(model, reference, features):
    for k, level in enumerate(features["pyramid"]):
        objectness, deltas = model.rpn_head(level)
        close(f"rpn_objectness_{k}", objectness[0], reference[f"rpn_objectness_{k}"])
        close(f"rpn_deltas_{k}", deltas[0], reference[f"rpn_deltas_{k}"])


def test_proposals(model, reference, features, size):
    boxes, logits, valid = (ops.convert_to_numpy(part)[0] for part in model.propose(features, size))
    assert valid.sum() == len(reference["proposals"]) and (np.diff(logits[valid]) <= 0).all()
    ours, _, _ = partners(boxes[valid], reference["proposals"])
    close("proposals", boxes[valid][ours], reference["proposals"])
    probabilities = 1 / (1 + np.exp(-logits[valid][ours].astype(np.float64)))
    assert (np.diff(probabilities) <= 1e-5).all()  # in their order, but for those that are alike to them


def test_pooled_features(model, reference, features, size):
    few = reference["box_pooled_first8"]
    pooled = model.roi_features(features, reference["proposals"][None, : len(few)], few.shape[1])
    close("box_pooled", pooled[0], few)


def test_head_outputs(model, reference, features, size):
    logits, deltas = model.predict_boxes(features, reference["proposals"][None])
    close("box_class_logits", logits[0], reference["box_class_logits"])
    close("box_deltas", deltas[0], reference["box_deltas"])
    masks = model.predict_masks(features, reference["detection_boxes"][None])
    close("mask_logits", masks[0], reference["mask_logits"])


def check_detections(reference, model, found, size):
    found = {name: ops.convert_to_numpy(value)[0] for name, value in found.items()}
    found = {name: value[found["valid"]] for name, value in found.items()}
    their_boxes, their_scores = reference["detection_boxes"], reference["detection_scores"]
    ours, theirs, distance = partners(
        found["boxes"], their_boxes, found["classes"], reference["detection_labels"]
    )
    near = distance <= 0.05
    # What has no partner must lie at the border of being answered at all, where the last digit of a score decides.
    settings = model.settings
    border = (
        their_scores[-1]
        if len(their_scores) == settings.box_detections_per_img
        else settings.box_score_thresh
    )
    for scores, paired in ((found["scores"], ours[near]), (their_scores, theirs[near])):
        alone = np.delete(scores, paired)
        assert len(alone) <= 2 and (np.abs(alone - border) <= 1e-3).all(), alone
    ours, theirs = ours[near], theirs[near]
    boxes = distance[near].max()
    scores = np.abs(found["scores"][ours] - their_scores[theirs]).max()
    # Pasted into the reference's boxes: they are cut to whole pixels, so where an edge lies near one, the rounding of the
    # last digit would move a row by a pixel. Pasting itself is held against torchvision in test_torchvision_ops.py.
    pasted = whole_image_masks(found["masks"][ours], their_boxes[theirs], size, threshold=None)
    masks = np.abs(255 * pasted - reference["detection_masks_u8"][theirs]).max()
    print(f"boxes: {boxes:.1e} pixels, scores: {scores:.1e}, masks: {masks:.2f} / 255, of {len(ours)}")
    assert boxes <= 0.05 and scores <= 1e-3 and masks <= 2


def test_detections(model, reference, features, size):
    check_detections(reference, model, model.detect(features, size), size)


def test_detections_from_the_image(model, reference, size):
    check_detections(reference, model, model(reference["image"][None]), size)


def check_losses(reference, losses):
    assert tuple(losses) == LOSSES
    for name, value in losses.items():
        deviation = abs(float(value) / float(reference[name]) - 1)
        print(f"{name}: {deviation:.1e}")
        assert deviation <= 1e-3, name


def test_training_losses(model, reference, features, truth, size):
    check_losses(reference, model.compute_losses(features, truth, size))


def test_losses_and_gradients_of_a_training_step(model, reference, truth):
    """One step of plain gradient descent at learning rate 1, from the image: the weights move by their gradient."""

    def kernels():
        by_path = {"/".join(weight.path.split("/")[-2:]): weight for weight in model.weights}
        return {
            name: ops.convert_to_numpy(by_path[ours]).astype(np.float64) for name, ours in GRADIENTS.items()
        }

    before = kernels()
    # Tracing this one step takes TensorFlow longer than the step.
    model.compile(keras.optimizers.SGD(1.0), run_eagerly=keras.backend.backend() == "tensorflow")
    logs = model.train_on_batch(reference["image"][None], truth, return_dict=True)
    check_losses(reference, {name: logs[name] for name in LOSSES})
    for name, kernel in kernels().items():
        deviation = abs(np.linalg.norm(kernel - before[name]) / reference[f"grad_norm/{name}"] - 1)
        print(f"gradient of {name}: {deviation:.1e}")
        assert deviation <= 0.01, name
