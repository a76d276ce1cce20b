"""FCN, the fully convolutional network of Long, Shelhamer and Darrell (2015), https://arxiv.org/abs/1411.4038.

A classifier takes the whole image and gives one prediction. Its fully connected layers are convolutions whose kernel
is as large as the feature map; written like this, the same weights predict at every location of a larger image,
once in 32 pixels (FCN-32s). Two finer feature maps of the same network add the location (FCN-16s, FCN-8s).

Read top to bottom: five stages of convolutions and pooling, the classifier as convolutions, the scores, the decoder.
"""

from collections.abc import Sequence
from pathlib import Path

import keras
from keras import layers

from course_lib._checks import one_of
from course_lib.models.arguments import (
    check_counts,
    check_dropout,
    check_image_shape,
    check_normalization,
    check_rows,
    plain_arguments,
)
from course_lib.models.backbone import batch_normalization
from course_lib.models.encoders import features_by_stride
from course_lib.models.fitting import checking
from course_lib.models.resize import Bilinear, CropTo, EdgePadding

STRIDES = (32, 16, 8)
PADDINGS = ("same", "paper")
NORMALIZATIONS = (None, "batch", "group")
LEARNED = ("intermediate", "all", "none")

BACKBONES = {
    # Configuration D of Simonyan and Zisserman (2015), https://arxiv.org/abs/1409.1556, with its two layers of 4096.
    "vgg16": {
        "widths": (64, 128, 256, 512, 512),
        "convolutions": (2, 2, 3, 3, 3),
        "head_filters": 4096,
        "head_size": 7,
    },
    "small": {
        "widths": (8, 16, 32, 64, 64),
        "convolutions": (2, 2, 2, 2, 2),
        "head_filters": 64,
        "head_size": 3,
    },
}
"""Sizes by name: channels and number of 3 × 3 convolutions of the five stages, channels of fc6 and fc7, side of fc6."""


@plain_arguments
def fcn(
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    num_classes: int = 21,
    stride: int = 8,
    backbone: str = "vgg16",
    padding: str = "same",
    widths: Sequence[int] | None = None,
    convolutions: Sequence[int] | None = None,
    head_filters: int | None = None,
    head_size: int | None = None,
    normalization: str | None = None,
    dropout: float = 0.5,
    learned: str = "intermediate",
    score_initializer: str = "zeros",
    encoder: str | None = None,
    weights: str | Path | None = None,
    keep_statistics: bool | None = None,
    name: str | None = None,
) -> keras.Model:
    """An FCN-32s, FCN-16s or FCN-8s that returns one logit per class and pixel, for images of any size.

    `fcn(padding="paper")` is the published FCN-8s for the 21 classes of PASCAL VOC: 134,489,759 parameters, of which
    the last upsampling's 112,896 stay as they are.

    Args:
        input_shape: `(height, width, channels)`; height and width may be `None` for images of any size.
        num_classes: classes, the background included.
        stride: pixels of the image per pixel of the finest map that scores are read from: 32 (fc7 alone), 16 (and
            pool4) or 8 (and pool3).
        backbone: `"vgg16"` (the paper) or `"small"`, the same stages and heads with few channels, for a CPU.
        padding: `"same"`: each map is the image's size divided by its stride, rounded up, and at the border the
            outermost scores are repeated before they are interpolated. `"paper"`: 100 zeros around the image and fc6
            without padding (7 × 7: `head_size=7`), cropped at the end; on small images most of the work goes into
            zeros.
        widths: channels of the five stages, if not the backbone's own.
        convolutions: 3 × 3 convolutions in each of the five stages, if not the backbone's own.
        head_filters: channels of fc6 and fc7, if not the backbone's own.
        head_size: side of fc6's kernel, odd, if not the backbone's own (VGG-16 has 7, the small one 3).
        normalization: `None` (the paper), `"batch"` or `"group"` (groups of 8 channels) before each ReLU.
        dropout: fraction of the features dropped after fc6 and after fc7 (the paper: 0.5).
        learned: which upsampling is learned from its bilinear start: `"intermediate"` (the paper: the last one is fixed
            to bilinear interpolation, those before it are learned), `"all"`, or `"none"` (the authors' later code,
            which found no significant difference).
        score_initializer: of the 1 × 1 convolutions that give scores. The paper sets them to zero: every skip added to
            a trained model starts by changing nothing. An untrained model then predicts 0 everywhere.
        encoder: in place of the five stages, a classifier of `keras.applications` (see `models.encoders`), for sides that
            are multiples of 32. All but `"vgg16"` lay their pixels half a pixel apart from a pooling's; the learned
            upsampling can make up for it.
        weights, keep_statistics: of that encoder (see `unet`).
        name: name of the model; `"fcn8s"` and the like by default.

    Returns:
        A `keras.Model`, float32 `(batch, height, width, channels)` in, logits `(batch, height, width, num_classes)`
        out. Layers bear the paper's names: `conv1_1` … `conv5_3`, `pool1` … `pool5`, `fc6`, `fc7`, `score_fr`,
        `score_pool4`, `score_pool3`, `upscore2`, `upscore_pool4`, `upscore<stride>`; those that are in models of two
        strides have the same weights, so that one model can start from another as in the paper.

    Raises:
        ValueError: for an argument that is none of the above.
    """
    check_image_shape(input_shape)
    one_of("backbone", backbone, BACKBONES)
    own = BACKBONES[backbone]
    widths = tuple(own["widths"] if widths is None else widths)
    convolutions = tuple(own["convolutions"] if convolutions is None else convolutions)
    head_filters = own["head_filters"] if head_filters is None else head_filters
    head_size = own["head_size"] if head_size is None else head_size
    one_of("stride", stride, STRIDES)
    one_of("padding", padding, PADDINGS)
    one_of("learned", learned, LEARNED)
    check_rows(5, widths=widths, convolutions=convolutions)
    check_counts(num_classes=num_classes, head_filters=head_filters, head_size=head_size)
    if head_size % 2 == 0:
        raise ValueError(f"head_size is {head_size}; it must be odd, so that the kernel has a centre.")
    if padding == "paper" and head_size != 7:
        raise ValueError(
            f"head_size is {head_size}; padding='paper' puts 100 zeros around the image for a 7 × 7 kernel: give "
            "head_size=7, or padding='same'."
        )
    check_normalization(normalization, NORMALIZATIONS, widths=widths, head_filters=head_filters)
    check_dropout(dropout)

    def convolution(x, filters, size, name, padding="same"):
        """Convolution, normalization if any, ReLU; `name` is the name of the convolution."""
        x = layers.Conv2D(
            filters,
            size,
            padding=padding,
            kernel_initializer="he_normal",
            use_bias=normalization is None,
            name=name,
        )(x)
        if normalization == "batch":
            x = batch_normalization(f"{name}_norm")(x)
        elif normalization == "group":
            x = layers.GroupNormalization(groups=max(1, filters // 8), name=f"{name}_norm")(x)
        return layers.Activation("relu", name=f"{name}_relu")(x)

    def score(x, name):
        return layers.Conv2D(num_classes, 1, kernel_initializer=score_initializer, name=name)(x)

    def upsample(x, start, step, factor, name):
        """Scores every `step` pixels, the first at `start`, made `factor` times as dense; also their new start."""
        last = name == f"upscore{stride}"
        if padding == "same":
            x = EdgePadding(name=f"{name}_padding")(x)
            start -= step
        x = layers.Conv2DTranspose(
            num_classes,
            2 * factor,
            strides=factor,
            use_bias=False,
            kernel_initializer=Bilinear(),
            trainable=learned == "all" or (learned == "intermediate" and not last),
            # float32 whatever the rest computes in: these are the logits.
            dtype="float32" if last else None,
            name=name,
        )(x)
        # The middle of a kernel of 2 · factor lies factor − ½ of the new, finer pixels after its first.
        return x, start - (step // factor) * (factor - 0.5)

    inputs = keras.Input(input_shape, name="image")
    x = inputs

    # Five stages, each ending at half the size. `start` is where in the image the middle of a map's first pixel lies.
    start = 0.0
    pools = {}
    if encoder is not None:
        if padding == "paper":
            raise ValueError(f"encoder is {encoder!r} with padding='paper'; give padding='same'.")
        found = features_by_stride(encoder, inputs, weights, 32, keep_statistics)
        # A map of stride 2^k holds the middles of blocks of 2^k pixels.
        pools = {stage: (found[2**stage], (2**stage - 1) / 2) for stage in (3, 4, 5)}
        (x, start), widths = pools[5], ()
    for stage, (filters, count) in enumerate(
        zip(widths, convolutions if widths else (), strict=True), start=1
    ):
        for index in range(1, count + 1):
            around = "same"
            if padding == "paper" and stage == index == 1:
                x = layers.ZeroPadding2D(100, name="padding")(x)
                around = "valid"
                start -= 99
            x = convolution(x, filters, 3, f"conv{stage}_{index}", around)
        # "same" pools an odd last row alone, as the paper's software does.
        x = layers.MaxPooling2D(2, padding="same", name=f"pool{stage}")(x)
        start += 2 ** (stage - 1) / 2
        pools[stage] = x, start

    # The classifier, at every location.
    x = convolution(x, head_filters, head_size, "fc6", "same" if padding == "same" else "valid")
    if padding == "paper":
        start += 32 * (head_size // 2)
    if dropout:
        x = layers.Dropout(dropout, name="drop6")(x)
    x = convolution(x, head_filters, 1, "fc7")
    if dropout:
        x = layers.Dropout(dropout, name="drop7")(x)
    x = score(x, "score_fr")

    # Back up: twice as dense, and what a finer map says is added where it says it.
    step = 32
    for stage, up in ((4, "upscore2"), (3, "upscore_pool4")):
        if step == stride:
            break
        x, start = upsample(x, start, step, 2, up)
        step //= 2
        finer, finer_start = score(pools[stage][0], f"score_pool{stage}"), pools[stage][1]
        offset = round((finer_start - start) / step)
        if offset >= 0:
            x, start = CropTo(offset, name=f"{up}_crop")([x, finer]), finer_start
        else:
            finer = CropTo(-offset, name=f"score_pool{stage}_crop")([finer, x])
        x = layers.Add(name=f"fuse_pool{stage}")([x, finer])
    x, start = upsample(x, start, step, step, f"upscore{step}")
    logits = CropTo(round(-start), dtype="float32", name="logits")([x, inputs])
    return checking(keras.Model(inputs, logits, name=name or f"fcn{stride}s"))
