"""Feature pyramid network of Lin et al. (2017), https://arxiv.org/abs/1612.03144.

A backbone's fine maps know where, its coarse maps know what. The pyramid takes what the coarse ones know down to the fine
ones, so that small objects can be found on fine maps and large ones on coarse maps, all with the same heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers, ops

from course_lib.models.backbone import NORMALIZATIONS, normalization_layer


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
    is enlarged and added, and a 3 × 3 convolution smooths what comes out (`layer_blocks`). There is no ReLU.

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
    _check_arguments(channels, filters, normalization, epsilon)

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


@keras.saving.register_keras_serializable(package="course_lib")
class Enlarge(layers.Layer):
    """Each pixel of a coarse map four times, cut to the size of a finer one: nearest-neighbour interpolation.

    A backbone halves a side of h to ⌈h / 2⌉, so twice the coarse side is the fine one, or one more. Then the nearest
    coarse pixel of the fine pixel i, ⌊i · ⌈h / 2⌉ / h⌋, is ⌊i / 2⌋ for every i, for even and for odd h.

    Call:
        `[coarse, fine]`, both `(batch, height, width, channels)`; returns `coarse` in the height and width of `fine`.
        Raises ValueError if the sides are known and do not belong together.
    """

    def call(self, inputs):
        coarse, fine = inputs
        _check_neighbours(coarse.shape, fine.shape)
        rows, columns = ops.shape(fine)[1:3]
        return ops.repeat(ops.repeat(coarse, 2, axis=1), 2, axis=2)[:, :rows, :columns]

    def compute_output_shape(self, input_shape):
        coarse, fine = input_shape
        _check_neighbours(coarse, fine)
        return (coarse[0], *fine[1:3], coarse[3])


def _check_neighbours(coarse, fine):
    for small, large in zip(coarse[1:3], fine[1:3], strict=True):
        if small is not None and large is not None and small != -(-large // 2):
            raise ValueError(
                f"maps of {tuple(fine[1:3])} and {tuple(coarse[1:3])} are no neighbours in a pyramid: each side must be "
                "half the finer one's, rounded up. Give the maps of a backbone with output stride 32, the finest first."
            )


def _check_arguments(channels, filters, normalization, epsilon):
    if len(channels) < 1 or not all(isinstance(count, int) and count >= 1 for count in channels):
        raise ValueError(f"channels is {channels!r}; it must be whole numbers, at least 1, one for each map.")
    if not isinstance(filters, int) or filters < 1:
        raise ValueError(f"filters is {filters!r}; it must be a whole number, at least 1.")
    if normalization not in (None, *NORMALIZATIONS):
        raise ValueError(
            f"normalization is {normalization!r}; it must be one of None, {', '.join(map(repr, NORMALIZATIONS))}."
        )
    if normalization == "group" and filters % 8:
        raise ValueError(
            f"filters is {filters}; normalization='group' takes groups of 8 channels: give a multiple of 8."
        )
    if not epsilon >= 0:
        raise ValueError(f"epsilon is {epsilon!r}; it must be 0 or more.")
