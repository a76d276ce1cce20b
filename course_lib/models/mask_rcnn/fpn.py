"""Feature pyramid network of Lin et al. (2017), https://arxiv.org/abs/1612.03144.

A backbone's fine feature maps tell where, its coarse ones tell what. The pyramid passes information from coarse maps to
fine ones, never back. So small objects are detected on fine maps and large ones on coarse maps, all by the same heads.
"""

from collections.abc import Sequence

import keras
from keras import layers

from course_lib.models.arguments import check_counts, check_epsilon, check_normalization, check_rows
from course_lib.models.backbone import NORMALIZATIONS, normalization_layer
from course_lib.models.resize import Enlarge


def fpn(
    channels: Sequence[int] = (256, 512, 1024, 2048),
    filters: int = 256,
    normalization: str | None = None,
    pool: bool = True,
    epsilon: float = 1e-5,
    prefix: str = "",
    name: str = "fpn",
) -> keras.Model:
    """The pyramid on top of a backbone, as torchvision's `FeaturePyramidNetwork` with `LastLevelMaxPool`.

        >>> body = resnet50((96, 128, 3))
        >>> pyramid = fpn([features.shape[-1] for features in body.outputs])
        >>> [tuple(features.shape[1:3]) for features in pyramid(body.outputs)]
        [(24, 32), (12, 16), (6, 8), (3, 4), (2, 2)]

    From the coarsest map down: a 1 × 1 convolution brings each map to `filters` channels (`inner_blocks`), the coarser sum
    is enlarged and added, and a 3 × 3 convolution smooths the sum (`layer_blocks`). There is no ReLU.

    Args:
        channels: of the backbone's maps, from the finest.
        filters: channels of every map that comes out.
        normalization: after each convolution, which then has no bias: `None` (the paper, and torchvision's weights of 2019,
            `COCO_V1`), `"batch"` (`COCO_V2`), `"group"` or `"frozen_batch"`.
        pool: whether a last, coarser map is added: every second row and column of the coarsest, for the largest anchors.
        epsilon: of the normalization.
        prefix: put before the name of every layer.
        name: name of the model.

    Returns:
        A `keras.Model`, the list of maps `(batch, height, width, channels)` in, each with twice the rows and columns of the
        next or one fewer; the list `[P2, P3, P4, P5, pool]` out, each `(batch, height, width, filters)`. The layers that
        give them bear these names.

    Raises:
        ValueError: for an argument that is none of the above.
    """
    check_rows(None, channels=channels)
    check_counts(filters=filters)
    check_normalization(normalization, (None, *NORMALIZATIONS), filters=filters)
    check_epsilon(epsilon)

    def convolve(x, size, name):
        x = layers.Conv2D(
            filters,
            size,
            padding="same",
            use_bias=normalization is None,
            kernel_initializer=keras.initializers.VarianceScaling(1.0, "fan_in", "uniform"),
            name=f"{prefix}{name}-0",
        )(x)
        if normalization is None:
            return x
        return normalization_layer(normalization, filters, f"{prefix}{name}-1", epsilon)(x)

    inputs = [
        keras.Input((None, None, count), name=f"{prefix}C{level}")
        for level, count in enumerate(channels, start=2)
    ]
    outputs = []
    inner = None
    for index in reversed(range(len(channels))):
        lateral = convolve(inputs[index], 1, f"inner_blocks-{index}")
        if inner is None:
            inner = lateral
        else:
            enlarged = Enlarge(name=f"{prefix}enlarged-{index}")([inner, lateral])
            inner = layers.Add(name=f"{prefix}inner-{index}")([lateral, enlarged])
        smooth = convolve(inner, 3, f"layer_blocks-{index}")
        outputs.insert(0, layers.Identity(name=f"{prefix}P{index + 2}")(smooth))
    if pool:
        outputs.append(layers.MaxPooling2D(1, strides=2, name=f"{prefix}pool")(outputs[-1]))
    return keras.Model(inputs, outputs, name=name)
