"""ResNet-50 and the pyramid against torchvision's outputs, with the weights of the fixtures' rule loaded by their names.

The seed and the names come from the file. `pytest -rP` prints the largest deviation of each map.
"""

import keras
import numpy as np
import pytest
from keras import layers, ops
from torchvision_rule import LEVELS, load_by_rule, read_reference

from course_lib.models.backbone import IMAGENET_MEAN, IMAGENET_STD, resnet50
from course_lib.models.mask_rcnn.fpn import fpn
from course_lib.models.mask_rcnn.torchvision_weights import torchvision_shapes

pytestmark = pytest.mark.backend

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def reference(fixtures):
    return read_reference(fixtures)


def names_of(reference, beginning):
    return {name for name in reference["names"].tolist() if name.startswith(beginning)}


def assert_close(name, got, expected):
    """Within the tolerance of the largest number in the reference; the measured share is printed."""
    assert got.shape == expected.shape
    deviation = np.abs(got - expected).max() / np.abs(expected).max()
    print(f"{name}: {deviation:.1e}")
    assert deviation <= TOLERANCE, name


@pytest.fixture(scope="module")
def image(reference):
    """What torchvision's network sees: normalized, zeros up to the next multiple of 32. Its size is the one asked for."""
    normalized = (reference["image"] - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    margins = [(0, -side % 32) for side in normalized.shape[:2]]
    return np.pad(normalized, [*margins, (0, 0)])[None].astype(np.float32)


@pytest.fixture(scope="module")
def backbone(reference, image):
    body = resnet50(image.shape[1:], normalization="frozen_batch", prefix="backbone-body-")
    pyramid = fpn([features.shape[-1] for features in body.outputs], prefix="backbone-fpn-")
    model = keras.Model(body.input, pyramid(body.outputs))
    load_by_rule(model, int(reference["seed"]))
    return model


def test_backbone_has_torchvisions_names(reference, backbone):
    assert set(torchvision_shapes(backbone)) == names_of(reference, "backbone.")


def test_pyramid_maps(reference, backbone, image):
    maps = backbone(image, training=False)
    for level, got in zip(LEVELS, maps, strict=True):
        assert_close(f"fpn_{level}", ops.convert_to_numpy(got)[0], reference[f"fpn_{level}"])


def conv(filters, size, name):
    return layers.Conv2D(filters, size, padding="same", kernel_initializer="zeros", name=name)


def dense(units, name):
    return layers.Dense(units, kernel_initializer="zeros", name=name)


def rpn_head(anchors):
    features = keras.Input((None, None, 256))
    x = ops.relu(conv(256, 3, "rpn-head-conv-0-0")(features))
    return keras.Model(
        features, [conv(anchors, 1, "rpn-head-cls_logits")(x), conv(4 * anchors, 1, "rpn-head-bbox_pred")(x)]
    )


def box_head(classes):
    pooled = keras.Input((7, 7, 256))
    x = ops.relu(dense(1024, "roi_heads-box_head-fc6")(layers.Flatten()(pooled)))
    x = ops.relu(dense(1024, "roi_heads-box_head-fc7")(x))
    logits = dense(classes, "roi_heads-box_predictor-cls_score")(x)
    return keras.Model(pooled, [logits, dense(4 * classes, "roi_heads-box_predictor-bbox_pred")(x)])


def mask_head(classes):
    pooled = x = keras.Input((14, 14, 256))
    for k in range(4):
        x = ops.relu(conv(256, 3, f"roi_heads-mask_head-{k}-0")(x))
    x = layers.Conv2DTranspose(256, 2, strides=2, name="roi_heads-mask_predictor-conv5_mask")(x)
    return keras.Model(pooled, conv(classes, 1, "roi_heads-mask_predictor-mask_fcn_logits")(ops.relu(x)))


def test_head_weights_are_found_by_name_and_their_axes_are_right(reference):
    """Plain layers with the heads' names compute torchvision's numbers from torchvision's inputs."""
    seed = int(reference["seed"])
    classes = reference["box_class_logits"].shape[1]
    rpn, box, mask = rpn_head(reference["rpn_objectness_0"].shape[-1]), box_head(classes), mask_head(classes)
    found = [name for model in (rpn, box, mask) for name in torchvision_shapes(model)]
    assert sorted(found) == sorted(names_of(reference, "rpn.") | names_of(reference, "roi_heads."))
    for model in (rpn, box, mask):
        load_by_rule(model, seed)

    for index, level in enumerate(LEVELS):
        objectness, deltas = rpn(reference[f"fpn_{level}"][None])
        assert_close(
            f"rpn_objectness_{index}",
            ops.convert_to_numpy(objectness)[0],
            reference[f"rpn_objectness_{index}"],
        )
        assert_close(f"rpn_deltas_{index}", ops.convert_to_numpy(deltas)[0], reference[f"rpn_deltas_{index}"])
    pooled = reference["box_pooled_first8"]
    logits, deltas = box(pooled)
    assert_close(
        "box_class_logits", ops.convert_to_numpy(logits), reference["box_class_logits"][: len(pooled)]
    )
    assert_close("box_deltas", ops.convert_to_numpy(deltas), reference["box_deltas"][: len(pooled)])
