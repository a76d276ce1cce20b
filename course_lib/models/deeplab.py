"""DeepLabV3+, the network of Chen et al. (2018), https://arxiv.org/abs/1802.02611.

A classifier's last feature maps are coarse because it halves them repeatedly. Here the last halvings are left out, and the
kernels after them are dilated (*atrous*: with holes) to keep their receptive field. On the last feature map, five branches
cover the same location at different scales; a short decoder brings the prediction back to a quarter of the image's size,
where boundaries are still visible.

Read top to bottom: the backbone, the branches (ASPP, atrous spatial pyramid pooling), the decoder.
"""

from collections.abc import Sequence
from pathlib import Path

import keras
from keras import layers

from course_lib._checks import one_of
from course_lib.models.arguments import (
    check_counts,
    check_dropout,
    check_normalization,
    check_rows,
    plain_arguments,
)
from course_lib.models.backbone import normalization_layer, resnet50, small_resnet
from course_lib.models.encoders import features_by_stride
from course_lib.models.fitting import checking
from course_lib.models.resize import Interpolate, SpreadOver

BACKBONES = ("resnet50", "small")
OUTPUT_STRIDES = (8, 16)
NORMALIZATIONS = ("batch", "group")
RATES = (6, 12, 18)
"""Of the three atrous branches at output stride 16, in pixels of the last map."""


@plain_arguments
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
    encoder: str | None = None,
    weights: str | Path | None = None,
    keep_statistics: bool | None = None,
    name: str = "deeplab",
) -> keras.Model:
    """A DeepLabV3+ that returns one logit per class and pixel, for images of any size.

    `deeplab()` with its ResNet-50 has 40,352,181 trainable parameters. The paper's largest has another backbone,
    Xception, and its atrous convolutions separable.

    Args:
        input_shape: `(height, width, channels)`; height and width may be `None` for images of any size.
        num_classes: classes, the background included.
        backbone: `"resnet50"`, or `"small"`, a `small_resnet` with few channels, for a CPU.
        output_stride: pixels of the image per pixel of the map that the branches look at: 16, or 8 for four times the
            work in the last stages and finer predictions.
        aspp_filters: channels of each of the five branches and of what they are brought together to.
        rates: dilation of the three 3 × 3 branches in pixels of that map; `None` is 6, 12 and 18, doubled at output
            stride 8, as published for images of 513 pixels. A rate as large as the map's side leaves only the middle
            of the kernel inside, and the branch becomes a 1 × 1 convolution: give smaller ones for small images.
        decoder_filters: channels that C2 is brought to (so many that it counts, so few that it does not outweigh the
            coarse features), and channels of the decoder's two 3 × 3 convolutions.
        widths, blocks: of the small backbone (see `small_resnet`), which has its own if these are `None`.
        multi_grid: factors of the dilation in the last stage (see `resnet50`).
        normalization: `"batch"` or `"group"` before each ReLU. In the image-pooling branch one image is one pixel, so
            `"batch"` needs batches of several images to train.
        dropout: fraction of the features dropped after the branches (the authors' code: 0.1).
        encoder: in place of the backbone, a classifier of `keras.applications` (see `models.encoders`). What comes after
            `output_stride` in it is left out, not made atrous.
        weights, keep_statistics: of that encoder (see `unet`).
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
    one_of("backbone", backbone, BACKBONES)
    one_of("output_stride", output_stride, OUTPUT_STRIDES)
    if backbone != "small" and (widths is not None or blocks is not None):
        raise ValueError(
            "widths and blocks configure the small backbone; leave them out, or give backbone='small'."
        )
    check_counts(num_classes=num_classes, aspp_filters=aspp_filters)
    check_rows(3, rates=rates)
    check_rows(2, decoder_filters=decoder_filters)
    if len(set(rates)) < len(rates):
        raise ValueError(
            f"rates is {tuple(rates)!r}; its numbers must differ, or two branches would be alike."
        )
    check_normalization(
        normalization, NORMALIZATIONS, aspp_filters=aspp_filters, decoder_filters=tuple(decoder_filters)
    )
    check_dropout(dropout)

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
    if encoder is not None:
        if backbone != "resnet50" or multi_grid is not None:
            raise ValueError(
                f"encoder is {encoder!r}; leave out backbone and multi_grid, which do not apply to it."
            )
        inputs = keras.Input(input_shape, name="image")
        found = features_by_stride(encoder, inputs, weights, output_stride, keep_statistics)
        low, features = found[4], found[output_stride]
    else:
        arguments = {"normalization": normalization, "output_stride": output_stride, "multi_grid": multi_grid}
        if backbone == "resnet50":
            body = resnet50(input_shape, **arguments)
        else:
            sizes = {"widths": widths, "blocks": blocks}
            body = small_resnet(input_shape, **{k: v for k, v in sizes.items() if v is not None}, **arguments)
        inputs, (low, _, _, features) = body.input, body.outputs

    # ASPP: the same location at five scales, from one pixel to the whole image.
    branches = [convolution(features, aspp_filters, 1, "aspp_1x1")]
    branches += [convolution(features, aspp_filters, 3, f"aspp_{rate}", rate) for rate in rates]
    pooled = layers.GlobalAveragePooling2D(keepdims=True, name="aspp_pool_mean")(features)
    pooled = convolution(pooled, aspp_filters, 1, "aspp_pool_features")
    branches.append(SpreadOver(name="aspp_pool")([pooled, features]))
    x = layers.Concatenate(name="aspp_branches")(branches)
    x = convolution(x, aspp_filters, 1, "aspp")
    if dropout:
        x = layers.Dropout(dropout, name="aspp_dropout")(x)

    # Decoder: the prediction at a quarter of the size, concatenated with early features of the backbone.
    low = convolution(low, decoder_filters[0], 1, "decoder_low")
    x = Interpolate(output_stride // 4, name="decoder_up")([x, low])
    x = layers.Concatenate(name="decoder_skip")([low, x])
    x = convolution(x, decoder_filters[1], 3, "decoder_a")
    x = convolution(x, decoder_filters[1], 3, "decoder")
    # float32 whatever the rest computes in: these are the logits.
    x = layers.Conv2D(num_classes, 1, kernel_initializer="he_normal", dtype="float32", name="scores")(x)
    logits = Interpolate(4, dtype="float32", name="logits")([x, inputs])
    return checking(keras.Model(inputs, logits, name=name))
