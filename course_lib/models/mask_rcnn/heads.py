"""The three heads of Mask R-CNN: small networks that read features and predict.

- The **RPN head** slides over every level of the pyramid (Ren et al. 2015, https://arxiv.org/abs/1506.01497, section 3.1)
  and predicts for each anchor whether it contains an object, and how to move it onto the object.
- The **box head** reads a region of 7 × 7 features (Girshick 2015, https://arxiv.org/abs/1504.08083) and predicts its
  class, and for each class how the region must move.
- The **mask head** reads a region of 14 × 14 features (He et al. 2017, https://arxiv.org/abs/1703.06870, section 3 and
  figure 4, right) and predicts for each class which of its pixels belong to the object.

All return logits. Layers have the names of torchvision's modules, with `-` instead of dots. Notebooks 06 and 06b write them
again in a few lines each.
"""

import keras
from keras import layers

from course_lib.models.arguments import check_counts
from course_lib.models.backbone import normalization_layer


def rpn_head(
    channels: int = 256, anchors: int = 3, convolutions: int = 1, prefix: str = "", name: str = "rpn_head"
) -> keras.Model:
    """Objectness and deltas of each anchor at each location of a feature map.

    Args:
        channels: of the map.
        anchors: anchors at each location.
        convolutions: 3 × 3 convolutions before the outputs: 1 in the papers, 2 in torchvision's weights of 2022.
        prefix: put before the name of every layer.
        name: name of the model.

    Returns:
        A `keras.Model`, a map `(batch, height, width, channels)` of any size in; out come the objectness logits
        `(batch, height, width, anchors)` and the box deltas `(batch, height, width, 4 · anchors)`, dx, dy, dw, dh for each
        anchor in turn.
    """
    check_counts(channels=channels, anchors=anchors, convolutions=convolutions)
    features = x = keras.Input((None, None, channels), name=f"{prefix}features")
    for k in range(convolutions):
        x = _conv(channels, 3, f"{prefix}conv-{k}-0", stddev=0.01)(x)
        x = layers.Activation("relu", name=f"{prefix}conv-{k}-relu")(x)
    objectness = _conv(anchors, 1, f"{prefix}cls_logits", stddev=0.01)(x)
    deltas = _conv(4 * anchors, 1, f"{prefix}bbox_pred", stddev=0.01)(x)
    return keras.Model(features, [objectness, deltas], name=name)


def box_head(
    num_classes: int,
    channels: int = 256,
    pooled: int = 7,
    units: int = 1024,
    convolutions: int = 0,
    normalization: str | None = None,
    prefix: str = "",
    name: str = "box_head",
) -> keras.Model:
    """Class and box of each region.

    Args:
        num_classes: background included.
        channels: of the regions.
        pooled: their rows and columns.
        units: of the dense layers: two of them (`fc6` and `fc7`); with convolutions before, one.
        convolutions: 3 × 3 convolutions before the dense layer: 0 in the papers, 4 in torchvision's weights of 2022.
        normalization: after each of them, which then has no bias; see `models.backbone`.
        prefix: put before the name of every layer.
        name: name of the model.

    Returns:
        A `keras.Model`, regions `(n, pooled, pooled, channels)` in; out come class logits `(n, num_classes)`, class 0 for
        background, and box deltas `(n, 4 · num_classes)`, four for each class in turn.
    """
    check_counts(num_classes=num_classes, channels=channels, pooled=pooled, units=units)
    features = x = keras.Input((pooled, pooled, channels), name=f"{prefix}regions")
    for k in range(convolutions):
        x = _normalized_conv(x, channels, f"{prefix}box_head-{k}", normalization)
    x = layers.Flatten(name=f"{prefix}box_head-flatten")(x)
    for dense in (f"box_head-{convolutions + 1}",) if convolutions else ("box_head-fc6", "box_head-fc7"):
        x = layers.Dense(units, kernel_initializer="he_normal", name=prefix + dense)(x)
        x = layers.Activation("relu", name=f"{prefix}{dense}-relu")(x)
    # Small to begin with: at first every region is about as likely of every class, and stays where it is.
    logits = layers.Dense(
        num_classes, kernel_initializer=_normal(0.01), name=f"{prefix}box_predictor-cls_score"
    )(x)
    deltas = layers.Dense(
        4 * num_classes, kernel_initializer=_normal(0.001), name=f"{prefix}box_predictor-bbox_pred"
    )(x)
    return keras.Model(features, [logits, deltas], name=name)


def mask_head(
    num_classes: int,
    channels: int = 256,
    pooled: int | None = 14,
    filters: int = 256,
    convolutions: int = 4,
    normalization: str | None = None,
    prefix: str = "",
    name: str = "mask_head",
) -> keras.Model:
    """A mask of each region for each class: a small fully convolutional network.

    Args:
        num_classes: background included; its mask is never used, and there only so that class k has channel k.
        channels: of the regions.
        pooled: their rows and columns; `None` for any.
        filters: channels inside.
        convolutions: number of 3 × 3 convolutions.
        normalization: after each of them, which then has no bias; see `models.backbone`.
        prefix: put before the name of every layer.
        name: name of the model.

    Returns:
        A `keras.Model`, regions `(n, pooled, pooled, channels)` in, mask logits `(n, 2 · pooled, 2 · pooled, num_classes)`
        out. Each class has a sigmoid of its own: the masks do not compete, because the box head predicts the class.
    """
    check_counts(num_classes=num_classes, channels=channels, filters=filters)
    features = x = keras.Input((pooled, pooled, channels), name=f"{prefix}mask_regions")
    for k in range(convolutions):
        x = _normalized_conv(x, filters, f"{prefix}mask_head-{k}", normalization)
    x = layers.Conv2DTranspose(
        filters, 2, strides=2, kernel_initializer="he_normal", name=f"{prefix}mask_predictor-conv5_mask"
    )(x)
    x = layers.Activation("relu", name=f"{prefix}mask_predictor-relu")(x)
    logits = _conv(num_classes, 1, f"{prefix}mask_predictor-mask_fcn_logits", stddev=0.01)(x)
    return keras.Model(features, logits, name=name)


def _conv(filters: int, size: int, name: str, stddev: float) -> layers.Conv2D:
    return layers.Conv2D(filters, size, padding="same", kernel_initializer=_normal(stddev), name=name)


def _normalized_conv(x, filters: int, name: str, normalization: str | None):
    x = layers.Conv2D(
        filters,
        3,
        padding="same",
        use_bias=normalization is None,
        kernel_initializer="he_normal",
        name=f"{name}-0",
    )(x)
    if normalization is not None:
        x = normalization_layer(normalization, filters, f"{name}-1")(x)
    return layers.Activation("relu", name=f"{name}-relu")(x)


def _normal(stddev: float) -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=stddev)
