"""DeepLabV3+, the network of Chen et al. (2018), https://arxiv.org/abs/1802.02611.

A classifier's last maps are coarse because it halves them. Here the last halvings are left out, and the kernels after
them are spread (*atrous*: with holes) so that each sees as far as before. On the last map, five branches look at the
same place at different scales; a short decoder brings the answer back to a quarter of the size, where the boundary
still is.

Read top to bottom: the backbone, the branches (ASPP, atrous spatial pyramid pooling), the decoder.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import layers, ops

from course_lib.models.backbone import normalization_layer, resnet50, small_resnet
from course_lib.models.class_weight import refuse_class_weight

BACKBONES = ("resnet50", "small")
OUTPUT_STRIDES = (8, 16)
NORMALIZATIONS = ("batch", "group")
RATES = (6, 12, 18)
"""Of the three atrous branches at output stride 16, in pixels of the last map."""


def deeplab(
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    num_classes: int = 21,
    backbone: str = "resnet50",
    output_stride: int = 16,
    aspp_filters: int = 256,
    rates: Sequence[int] | None = None,
    decoder_filters: tuple[int, int] = (48, 256),
    widths: Sequence[int] | None = None,
    blocks: Sequence[int] | None = None,
    multi_grid: Sequence[int] | None = None,
    normalization: str = "batch",
    dropout: float = 0.1,
    name: str = "deeplab",
) -> keras.Model:
    """A DeepLabV3+ that returns one logit per class and pixel, for pictures of any size.

    `deeplab()` with its ResNet-50 has 40,352,181 trainable parameters. The paper's largest has another backbone,
    Xception, and its atrous convolutions separable.

    Args:
        input_shape: `(height, width, channels)`; height and width may be `None` for pictures of any size.
        num_classes: classes, the background included.
        backbone: `"resnet50"`, or `"small"`, a `small_resnet` with few channels, for a CPU.
        output_stride: pixels of the picture per pixel of the map that the branches look at: 16, or 8 for four times the
            work in the last stages and finer answers.
        aspp_filters: channels of each of the five branches and of what they are brought together to.
        rates: dilation of the three 3 × 3 branches in pixels of that map; `None` is 6, 12 and 18, doubled at output
            stride 8, as published for pictures of 513 pixels. A rate as large as the map's side leaves only the middle
            of the kernel inside, and the branch becomes a 1 × 1 convolution: give smaller ones for small pictures.
        decoder_filters: channels that C2 is brought to (so many that it counts, so few that it does not outweigh the
            answer from below), and channels of the decoder's two 3 × 3 convolutions.
        widths, blocks: of the small backbone (see `small_resnet`), which has its own if these are `None`.
        multi_grid: factors of the dilation in the last stage (see `resnet50`).
        normalization: `"batch"` or `"group"` before each ReLU. In the image-pooling branch one picture is one pixel, so
            `"batch"` needs batches of several pictures to train.
        dropout: share of the features dropped after the branches (the authors' code: 0.1).
        name: name of the model.

    Returns:
        A `keras.Model`, float32 `(batch, height, width, channels)` in, logits `(batch, height, width, num_classes)`
        out. Beside the backbone's layers (`C2` … `C5`), those that end a part are named `aspp_1x1`, `aspp_<rate>` three
        times, `aspp_pool`, `aspp`, `decoder_low`, `decoder_skip`, `decoder`, `logits`.

    Raises:
        ValueError: for an argument that is none of the above.
    """
    if rates is None:
        rates = [rate * 2 for rate in RATES] if output_stride == 8 else RATES
    _check_arguments(
        num_classes, backbone, output_stride, aspp_filters, rates, decoder_filters, widths, blocks, normalization,
    dropout )  # fmt: skip

    def convolution(x, filters, size, name, rate=1):
        """Convolution, normalization, ReLU; `name` is the name of what comes out."""
        x = layers.Conv2D(
            filters,
            size,
            padding="same",
            dilation_rate=rate,
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"{name}_conv",
        )(x)
        x = normalization_layer(normalization, filters, f"{name}_norm")(x)
        return layers.Activation("relu", name=name)(x)

    # The backbone: C2 at a quarter of the size knows where, C5 at the output stride knows what.
    arguments = {"normalization": normalization, "output_stride": output_stride, "multi_grid": multi_grid}
    if backbone == "resnet50":
        body = resnet50(input_shape, **arguments)
    else:
        sizes = {"widths": widths, "blocks": blocks}
        body = small_resnet(input_shape, **{k: v for k, v in sizes.items() if v is not None}, **arguments)
    low, _, _, features = body.outputs

    # ASPP: the same place at five scales, from one pixel to the whole picture.
    branches = [convolution(features, aspp_filters, 1, "aspp_1x1")]
    branches += [convolution(features, aspp_filters, 3, f"aspp_{rate}", rate) for rate in rates]
    pooled = layers.GlobalAveragePooling2D(keepdims=True, name="aspp_pool_mean")(features)
    pooled = convolution(pooled, aspp_filters, 1, "aspp_pool_features")
    branches.append(SpreadOver(name="aspp_pool")([pooled, features]))
    x = layers.Concatenate(name="aspp_branches")(branches)
    x = convolution(x, aspp_filters, 1, "aspp")
    if dropout:
        x = layers.Dropout(dropout, name="aspp_dropout")(x)

    # Decoder: the answer at a quarter of the size, beside what the backbone saw there early on.
    low = convolution(low, decoder_filters[0], 1, "decoder_low")
    x = Interpolate(output_stride // 4, name="decoder_up")([x, low])
    x = layers.Concatenate(name="decoder_skip")([low, x])
    x = convolution(x, decoder_filters[1], 3, "decoder_a")
    x = convolution(x, decoder_filters[1], 3, "decoder")
    # float32 whatever the rest computes in: these are the logits.
    x = layers.Conv2D(num_classes, 1, kernel_initializer="he_normal", dtype="float32", name="scores")(x)
    logits = Interpolate(4, dtype="float32", name="logits")([x, body.input])
    return refuse_class_weight(keras.Model(body.input, logits, name=name))


@keras.saving.register_keras_serializable(package="course_lib")
class Interpolate(layers.Layer):
    """A coarse map interpolated bilinearly to the places of a map that is `factor` times as fine.

    The backbone's strided layers put pixel i of a coarse map in the middle of pixel `factor` · i of the fine one,
    whatever the size. Here it goes back there; between two pixels, each counts by its nearness, and beyond the last,
    the last. For sides of `factor` · n + 1, such as the paper's 513, this is interpolation "with aligned corners", as
    in the authors' code; a general resize would set every feature aside by half a coarse pixel less half a fine one.

    Args:
        factor: how many times as fine, at least 1.
        **arguments: of every Keras layer (name, dtype).

    Call:
        `[coarse, fine]`, both `(batch, height, width, channels)`, with ⌈side / factor⌉ pixels to each side of `fine`;
        returns `coarse` in the height and width of `fine`. Raises ValueError if the sides are known and do not belong
        together.
    """

    def __init__(self, factor: int, **arguments):
        super().__init__(**arguments)
        self.factor = factor

    def call(self, inputs):
        coarse, fine = inputs
        self._check(coarse.shape, fine.shape)
        rows, columns = ops.shape(fine)[1:3]
        return self._along(self._along(coarse, 1)[:, :rows], 2)[:, :, :columns]

    def _along(self, x, axis):
        """`factor` pixels for each along one axis: x[i] + t · (x[i + 1] − x[i]) for t = 0, 1/factor, …"""
        following = ops.concatenate([x[:, 1:], x[:, -1:]] if axis == 1 else [x[:, :, 1:], x[:, :, -1:]], axis)
        step = ops.expand_dims(following - x, axis + 1)
        share = np.arange(self.factor, dtype=np.float32) / self.factor
        share = ops.cast(share.reshape((-1, 1, 1) if axis == 1 else (-1, 1)), x.dtype)
        between = ops.expand_dims(x, axis + 1) + share * step
        shape = list(ops.shape(x))
        shape[axis] = shape[axis] * self.factor
        return ops.reshape(between, shape)

    def compute_output_shape(self, input_shape):
        coarse, fine = input_shape
        self._check(coarse, fine)
        return (coarse[0], *fine[1:3], coarse[3])

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}

    def _check(self, coarse, fine):
        for small, large in zip(coarse[1:3], fine[1:3], strict=True):
            if small is not None and large is not None and small != -(-large // self.factor):
                raise ValueError(
                    f"{self.name}: a map of {tuple(coarse[1:3])} does not belong to one of {tuple(fine[1:3])} that is "
                    f"{self.factor} times as fine: each side must be the finer one's divided by {self.factor}, rounded up."
                )


@keras.saving.register_keras_serializable(package="course_lib")
class SpreadOver(layers.Layer):
    """One pixel repeated at every place of a map.

    Call:
        `[pixel, map]`, `(batch, 1, 1, channels)` and `(batch, height, width, …)`; returns `(batch, height, width,
        channels)`.
    """

    def call(self, inputs):
        pixel, features = inputs
        batch, rows, columns = ops.shape(features)[:3]
        return ops.broadcast_to(pixel, (batch, rows, columns, pixel.shape[-1]))

    def compute_output_shape(self, input_shape):
        pixel, features = input_shape
        return (*features[:3], pixel[3])


def _check_arguments(
    num_classes, backbone, output_stride, aspp_filters, rates, decoder_filters, widths, blocks, normalization, dropout
):  # fmt: skip
    for label, value, allowed in (
        ("backbone", backbone, BACKBONES),
        ("output_stride", output_stride, OUTPUT_STRIDES),
        ("normalization", normalization, NORMALIZATIONS),
    ):
        if value not in allowed:
            raise ValueError(f"{label} is {value!r}; it must be one of {', '.join(map(repr, allowed))}.")
    if backbone != "small" and (widths is not None or blocks is not None):
        raise ValueError(
            "widths and blocks are sizes of the small backbone; leave them out, or give backbone='small'."
        )
    for label, value in (("num_classes", num_classes), ("aspp_filters", aspp_filters)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{label} is {value!r}; it must be a whole number, at least 1.")
    for label, value, count in (("rates", rates, 3), ("decoder_filters", decoder_filters, 2)):
        if len(value) != count or not all(isinstance(number, int) and number >= 1 for number in value):
            raise ValueError(f"{label} is {value!r}; it must be {count} whole numbers, each at least 1.")
    if len(set(rates)) < len(rates):
        raise ValueError(f"rates is {tuple(rates)!r}; give different ones, or two branches see the same.")
    if normalization == "group" and any(filters % 8 for filters in (aspp_filters, *decoder_filters)):
        raise ValueError(
            f"aspp_filters is {aspp_filters} and decoder_filters {tuple(decoder_filters)}; normalization='group' takes "
            "groups of 8 channels: give multiples of 8."
        )
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout!r}; it must lie in 0 ≤ dropout < 1.")
