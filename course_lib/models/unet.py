"""U-Net, the network of Ronneberger, Fischer and Brox (2015), https://arxiv.org/abs/1505.04597.

Read top to bottom: the encoder halves the image and doubles the channels, the bottleneck sits at the bottom of the U,
the decoder climbs back up and takes at every level the encoder's features of the same size across the skip connection.
"""

import functools
from pathlib import Path

import keras
from keras import layers

from course_lib._checks import one_of
from course_lib.models.arguments import (
    check_counts,
    check_dropout,
    check_image_shape,
    check_normalization,
    plain_arguments,
)
from course_lib.models.backbone import batch_normalization
from course_lib.models.encoders import features_by_stride
from course_lib.models.fitting import checking

SKIPS = ("concat", "add", "none")
UPS = ("transpose", "interpolate")
NORMALIZATIONS = (None, "batch", "group")


@plain_arguments
def unet(
    input_shape: tuple[int | None, int | None, int] = (572, 572, 1),
    num_classes: int = 2,
    base_filters: int = 64,
    depth: int = 4,
    padding: str = "same",
    skip: str = "concat",
    up: str = "transpose",
    normalization: str | None = None,
    dropout: float = 0.0,
    filters: tuple[int, ...] | None = None,
    encoder: str | None = None,
    weights: str | Path | None = None,
    keep_statistics: bool | None = None,
    name: str = "unet",
) -> keras.Model:
    """A U-Net that returns one logit per class and pixel.

    `unet((572, 572, 1), 2, padding="valid")` is the published network: 388 × 388 × 2 logits, 31,030,658 parameters.

    Args:
        input_shape: `(height, width, channels)`; height and width may be `None` for images of any size that fits.
        num_classes: classes, the background included.
        base_filters: channels of the first level; each level down has twice as many.
        depth: how many times the image is halved.
        padding: `"valid"` (the paper: each 3 × 3 convolution loses a frame of one pixel) or `"same"` (zeros around).
        skip: how the decoder takes the encoder's features: `"concat"` (the paper), `"add"`, or `"none"`.
        up: `"transpose"`, a 2 × 2 transposed convolution with stride 2, or `"interpolate"`, bilinear interpolation and
            a 2 × 2 convolution. Both have the same number of parameters.
        normalization: `None` (the paper), `"batch"` or `"group"` (groups of 8 channels) before each ReLU.
        dropout: fraction of the features dropped at the end of the encoder (the paper drops there, at a rate that it
            does not give).
        filters: channels of each level from the first to the bottleneck, `depth + 1` numbers, in place of
            `base_filters`: networks with different skips can so have the same number of parameters.
        encoder: in place of the U-Net's own, a classifier of `keras.applications` (see `models.encoders`), such as
            `"resnet50"`; `depth` is then at most 5. `filters` and `normalization` are the decoder's, and a level of
            which the encoder has no features has no skip.
        weights: of that encoder: `None` for random ones, `"imagenet"`, `"hed"`, or the path of a file.
        keep_statistics: whether the encoder's batch normalization keeps the statistics it was loaded with, whatever else
            is trained; by default if there are weights.
        name: name of the model.

    Returns:
        A `keras.Model`, float32 `(batch, height, width, channels)` in, logits `(batch, height', width', num_classes)`
        out. The outputs of its levels bear the names `encoder_1` … `encoder_<depth>`, `bottleneck`,
        `decoder_<depth>` … `decoder_1`, so that `model.get_layer("encoder_2").output` is what it says. An encoder from
        elsewhere is one layer, `"encoder"`: `model.get_layer("encoder").trainable = False` freezes it.

    Raises:
        ValueError: for an argument that is none of the above, or a size that `depth` does not divide; the message
            names the nearest sizes that work. Where the size is free, a call says so.
    """
    check_image_shape(input_shape)
    check_counts(num_classes=num_classes, base_filters=base_filters, depth=depth)
    one_of("padding", padding, ("same", "valid"))
    one_of("skip", skip, SKIPS)
    one_of("up", up, UPS)
    given = {"base_filters": base_filters} if filters is None else {"filters": filters}
    if filters is None:
        filters = tuple(base_filters * 2**level for level in range(depth + 1))
    if len(filters) != depth + 1 or not all(isinstance(one, int) and one >= 1 for one in filters):
        raise ValueError(
            f"filters is {filters!r}; it must be {depth + 1} whole numbers of at least 1: one for each of the {depth} "
            "levels and one for the bottleneck."
        )
    uneven = any(channels % max(1, channels // 8) for channels in filters)
    check_normalization(normalization, NORMALIZATIONS, **(given if uneven else {}))
    check_dropout(dropout)
    if encoder is not None and (padding == "valid" or skip == "add" or depth > 5):
        raise ValueError(
            f"encoder is {encoder!r} with padding={padding!r}, skip={skip!r}, depth={depth}; give padding='same', "
            "skip='concat' or 'none', and depth 1 to 5."
        )
    for side in input_shape[:2]:
        if side is not None:
            check_size(side, depth, padding)

    def convolution(x, channels, name):
        """3 × 3 convolution, normalization if any, ReLU; `name` is the name of what comes out."""
        x = layers.Conv2D(
            channels,
            3,
            padding=padding,
            # He et al. (2015), as the paper asks: standard deviation sqrt(2 / incoming nodes) keeps the variance
            # of the features alike from level to level under ReLU.
            kernel_initializer="he_normal",
            use_bias=normalization is None,
            name=f"{name}_conv",
        )(x)
        if normalization == "batch":
            x = batch_normalization(f"{name}_norm")(x)
        elif normalization == "group":
            x = layers.GroupNormalization(groups=max(1, channels // 8), name=f"{name}_norm")(x)
        return layers.Activation("relu", name=name)(x)

    def double_convolution(x, channels, name):
        x = convolution(x, channels, f"{name}_a")
        return convolution(x, channels, name)

    def upsample(x, channels, name):
        if up == "transpose":
            return layers.Conv2DTranspose(channels, 2, strides=2, kernel_initializer="he_normal", name=name)(
                x
            )
        x = layers.UpSampling2D(2, interpolation="bilinear", name=f"{name}_bilinear")(x)
        return layers.Conv2D(channels, 2, padding="same", kernel_initializer="he_normal", name=name)(x)

    inputs = keras.Input(input_shape, name="image")
    x = inputs

    # Encoder: what is in the image. Size down, channels up.
    skips: list = [None] * depth
    if encoder is not None:
        found = features_by_stride(encoder, inputs, weights, 2**depth, keep_statistics)
        named = {2**level: f"encoder_{level + 1}" for level in range(depth)} | {2**depth: "bottleneck"}
        found = {stride: layers.Identity(name=named[stride])(features) for stride, features in found.items()}
        skips = [found.get(2**level) for level in range(depth)]
        x = found[2**depth]
    for level in range(1, depth + 1 if encoder is None else 1):
        x = double_convolution(x, filters[level - 1], f"encoder_{level}")
        skips[level - 1] = x
        if dropout and level == depth:
            x = layers.Dropout(dropout, name=f"encoder_{level}_dropout")(x)
        x = layers.MaxPooling2D(2, name=f"encoder_{level}_pool")(x)

    if encoder is None:
        x = double_convolution(x, filters[depth], "bottleneck")
    if dropout:
        x = layers.Dropout(dropout, name="bottleneck_dropout")(x)

    # Decoder: where it is. Size up, channels down, detail from across the U.
    for level in range(depth, 0, -1):
        channels = filters[level - 1]
        x = upsample(x, channels, f"decoder_{level}_up")
        if skip != "none" and skips[level - 1] is not None:
            across = skips[level - 1]
            if padding == "valid":
                margin = skip_margin(level, depth)
                across = layers.Cropping2D(margin, name=f"decoder_{level}_crop")(across)
            if skip == "concat":
                x = layers.Concatenate(name=f"decoder_{level}_skip")([across, x])
            else:
                x = layers.Add(name=f"decoder_{level}_skip")([across, x])
        x = double_convolution(x, channels, f"decoder_{level}")

    # float32 whatever the rest computes in: a softmax over half-precision logits loses the small probabilities.
    logits = layers.Conv2D(num_classes, 1, kernel_initializer="he_normal", dtype="float32", name="logits")(x)
    model = checking(keras.Model(inputs, logits, name=name))
    return _checking_size(model, depth, padding) if None in input_shape[:2] else model


def fits(size: int, depth: int = 4, padding: str = "same") -> bool:
    """Whether an image side of `size` pixels passes through a U-Net of this depth without a remainder."""
    step = 2**depth
    if padding == "same":
        return size > 0 and size % step == 0
    # Going back up from the bottom (s pixels before its two convolutions), each level doubles and adds the four
    # pixels that its own two convolutions take: 2^depth · s + 4 · (2^depth − 1).
    return (size - 4 * (step - 1)) % step == 0 and output_size(size, depth, padding) > 0


def output_size(size: int, depth: int = 4, padding: str = "same") -> int:
    """The side of the output for an input side of `size` pixels (572 gives 388 for the published network)."""
    if padding == "same":
        return size
    step = 2**depth
    # 4 pixels a level on the way down, at the bottom, and on the way up, each worth 2^level pixels of the image.
    return size - 4 * (step - 1) - 4 * step - 4 * (step - 1)


def check_size(size: int, depth: int = 4, padding: str = "same") -> None:
    """Raise a `ValueError` that names the nearest sizes that work where `size` does not fit (see `fits`)."""
    if fits(size, depth, padding):
        return
    step = 2**depth
    smaller = next((s for s in range(size - 1, max(0, size - step) - 1, -1) if fits(s, depth, padding)), None)
    larger = next(s for s in range(max(size, 0) + 1, max(size, 0) + 14 * step) if fits(s, depth, padding))
    nearest = f"{smaller} or {larger}" if smaller else f"{larger}, the smallest"
    if padding == "same":
        must, instead = f"be a multiple of {step}", ", or let course_lib.models.predict do it"
    else:
        must, instead = "leave a whole number at every level", ""
    raise ValueError(
        f"image has a side of {size} pixels; with depth={depth} and padding={padding!r} it must {must}; the nearest that "
        f"work: {nearest}. Crop or pad the image{instead}."
    )


def skip_margin(level: int, depth: int) -> int:
    """Pixels to crop from each side of the skip at `level` (1 = full size) when convolutions are unpadded."""
    # Below this level the image loses 2 pixels a side in each of the two-convolution blocks: once going down and
    # once coming up for the levels between, once at the bottom, each worth 2^(steps below) pixels of this level.
    below = depth - level
    return 2 * 2 ** (below + 1) + sum(4 * 2**k for k in range(1, below + 1))


def _checking_size(model: keras.Model, depth: int, padding: str) -> keras.Model:
    """The model, whose call raises the error of `check_size` for images that do not fit.

    Without it a backend would say that two maps in the decoder differ by one row. The method is the instance's, not that of
    a class or layer of its own: saved as `.keras` it stays a model that loads without the course.
    """
    call = model.call

    @functools.wraps(call)
    def checked(inputs, *args, **kwargs):
        for side in getattr(inputs, "shape", (None,) * 3)[1:3]:
            if isinstance(side, int):  # within a compiled function it may be open
                check_size(side, depth, padding)
        return call(inputs, *args, **kwargs)

    model.call = checked
    return model
