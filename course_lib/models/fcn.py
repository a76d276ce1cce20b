"""FCN, the fully convolutional network of Long, Shelhamer and Darrell (2015), https://arxiv.org/abs/1411.4038.

A classifier looks at the whole picture and gives one answer. Its fully connected layers are convolutions whose kernel
happens to be as large as the map that they see; written so, the same weights answer at every place of a larger picture,
once in 32 pixels (FCN-32s). Two finer maps of the same network add where things are (FCN-16s, FCN-8s).

Read top to bottom: five stages of convolutions and pooling, the classifier as convolutions, the scores, the way up.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import layers, ops

from course_lib.models.class_weight import refuse_class_weight

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
    name: str | None = None,
) -> keras.Model:
    """An FCN-32s, FCN-16s or FCN-8s that returns one logit per class and pixel, for pictures of any size.

    `fcn(padding="paper")` is the published FCN-8s for the 21 classes of PASCAL VOC: 134,489,759 parameters, of which
    the last upsampling's 112,896 stay as they are.

    Args:
        input_shape: `(height, width, channels)`; height and width may be `None` for pictures of any size.
        num_classes: classes, the background included.
        stride: pixels of the picture per pixel of the finest map that scores are read from: 32 (fc7 alone), 16 (and
            pool4) or 8 (and pool3).
        backbone: `"vgg16"` (the paper) or `"small"`, the same stages and heads with few channels, for a CPU.
        padding: `"same"`: each map is the picture's size divided by its stride, rounded up, and at the border the
            outermost scores are repeated before they are interpolated. `"paper"`: 100 zeros around the picture and fc6
            without padding (7 × 7: `head_size=7`), cropped at the end; on small pictures most of the work goes into
            zeros.
        widths: channels of the five stages, if not the backbone's own.
        convolutions: 3 × 3 convolutions in each of the five stages, if not the backbone's own.
        head_filters: channels of fc6 and fc7, if not the backbone's own.
        head_size: side of fc6's kernel, odd, if not the backbone's own (VGG-16 has 7, the small one 3).
        normalization: `None` (the paper), `"batch"` or `"group"` (groups of 8 channels) before each ReLU.
        dropout: share of the features dropped after fc6 and after fc7 (the paper: 0.5).
        learned: which upsampling is learned from its bilinear start: `"intermediate"` (the paper: the last one is fixed
            to bilinear interpolation, those before it are learned), `"all"`, or `"none"` (the authors' later code,
            which found no significant difference).
        score_initializer: of the 1 × 1 convolutions that give scores. The paper sets them to zero: every skip added to
            a trained net starts by changing nothing. An untrained net then answers 0 everywhere.
        name: name of the model; `"fcn8s"` and the like by default.

    Returns:
        A `keras.Model`, float32 `(batch, height, width, channels)` in, logits `(batch, height, width, num_classes)`
        out. Layers bear the paper's names: `conv1_1` … `conv5_3`, `pool1` … `pool5`, `fc6`, `fc7`, `score_fr`,
        `score_pool4`, `score_pool3`, `upscore2`, `upscore_pool4`, `upscore<stride>`; those that are in nets of two
        strides have the same weights, so that one net can start from another as in the paper.

    Raises:
        ValueError: for an argument that is none of the above.
    """
    if backbone not in BACKBONES:
        raise ValueError(f"backbone is {backbone!r}; it must be one of {', '.join(map(repr, BACKBONES))}.")
    own = BACKBONES[backbone]
    widths = tuple(own["widths"] if widths is None else widths)
    convolutions = tuple(own["convolutions"] if convolutions is None else convolutions)
    head_filters = own["head_filters"] if head_filters is None else head_filters
    head_size = own["head_size"] if head_size is None else head_size
    _check_arguments(
        input_shape, num_classes, stride, padding, widths, convolutions, head_filters, head_size, normalization,
        dropout, learned,
    )  # fmt: skip

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
            # Momentum 0.9 as in the U-Net: the runs of this course have few steps.
            x = layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)
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

    # Five stages, each ending at half the size. `start` is where in the picture the middle of a map's first pixel lies.
    start = 0.0
    pools = {}
    for stage, (filters, count) in enumerate(zip(widths, convolutions, strict=True), start=1):
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

    # The classifier, at every place.
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
    return refuse_class_weight(keras.Model(inputs, logits, name=name or f"fcn{stride}s"))


def bilinear_kernel(size: int) -> np.ndarray:
    """The kernel of a transposed convolution, of even side, that interpolates bilinearly at half its side as stride.

    A tent: each output pixel between the middles of two inputs takes from both, the nearer the more.

    Returns:
        float32 `(size, size)`; its sum is `(size / 2)²`, so that a constant map stays what it was.
    """
    if size < 2 or size % 2:
        raise ValueError(f"size is {size}; it must be even and at least 2.")
    places = np.arange(size) + 0.5
    tent = 1 - np.abs(places - size / 2) / (size / 2)
    return np.outer(tent, tent).astype(np.float32)


@keras.saving.register_keras_serializable(package="course_lib")
class Bilinear(keras.initializers.Initializer):
    """Starts a `Conv2DTranspose` as bilinear interpolation of each channel alone (`bilinear_kernel`)."""

    def __call__(self, shape, dtype=None):
        rows, columns, outgoing, incoming = shape
        if rows != columns or outgoing != incoming:
            raise ValueError(
                f"shape is {tuple(shape)}; a bilinear kernel is square, with as many channels in as out."
            )
        kernel = bilinear_kernel(rows)[:, :, None, None] * np.eye(outgoing, dtype=np.float32)
        return ops.convert_to_tensor(kernel, dtype=dtype or keras.config.floatx())


@keras.saving.register_keras_serializable(package="course_lib")
class EdgePadding(layers.Layer):
    """A frame of one pixel that repeats the outermost ones: what is beyond the border is as at the border.

    Zeros instead would fade the interpolated scores to nothing over half a step of the coarse map.

    Call:
        `(batch, height, width, channels)` in, `(batch, height + 2, width + 2, channels)` out.
    """

    def call(self, inputs):
        x = ops.concatenate([inputs[:, :1], inputs, inputs[:, -1:]], axis=1)
        return ops.concatenate([x[:, :, :1], x, x[:, :, -1:]], axis=2)

    def compute_output_shape(self, input_shape):
        batch, *sides, channels = input_shape
        return (batch, *(None if side is None else side + 2 for side in sides), channels)


@keras.saving.register_keras_serializable(package="course_lib")
class CropTo(layers.Layer):
    """The part of a map that begins `offset` pixels from the top and from the left, in the height and width of another.

    Args:
        offset: in pixels, 0 or more.
        **arguments: of every Keras layer (name, dtype).

    Call:
        `[map, other]`, both `(batch, height, width, channels)`; returns the part of `map`. Raises ValueError if the
        sides are known and the part reaches beyond the map.
    """

    def __init__(self, offset: int, **arguments):
        super().__init__(**arguments)
        self.offset = offset

    def call(self, inputs):
        x, other = inputs
        self._check(x.shape, other.shape)
        rows, columns = ops.shape(other)[1:3]
        return x[:, self.offset : self.offset + rows, self.offset : self.offset + columns]

    def compute_output_shape(self, input_shape):
        shape, other = input_shape
        self._check(shape, other)
        return (shape[0], *other[1:3], shape[3])

    def get_config(self):
        return {**super().get_config(), "offset": self.offset}

    def _check(self, shape, other):
        for side, wanted in zip(shape[1:3], other[1:3], strict=True):
            if side is not None and wanted is not None and side < self.offset + wanted:
                raise ValueError(
                    f"{self.name}: a side of {wanted} from pixel {self.offset} on does not lie within a map of {side}."
                )


def _check_arguments(
    input_shape, num_classes, stride, padding, widths, convolutions, head_filters, head_size, normalization, dropout,
    learned,
):  # fmt: skip
    if len(input_shape) != 3 or not input_shape[2]:
        raise ValueError(
            f"input_shape is {input_shape!r}; it must be (height, width, channels), such as (256, 256, 3)."
        )
    for label, value in (("widths", widths), ("convolutions", convolutions)):
        if len(value) != 5 or not all(isinstance(number, int) and number >= 1 for number in value):
            raise ValueError(f"{label} is {value!r}; it must be five whole numbers, each at least 1.")
    for label, value in (
        ("num_classes", num_classes),
        ("head_filters", head_filters),
        ("head_size", head_size),
    ):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{label} is {value!r}; it must be a whole number, at least 1.")
    if head_size % 2 == 0:
        raise ValueError(f"head_size is {head_size}; it must be odd, so that the kernel has a middle.")
    if padding == "paper" and head_size != 7:
        raise ValueError(
            f"head_size is {head_size}; padding='paper' puts 100 zeros around the picture for a 7 × 7 kernel: give "
            "head_size=7, or padding='same'."
        )
    for label, value, allowed in (
        ("stride", stride, STRIDES),
        ("padding", padding, PADDINGS),
        ("normalization", normalization, NORMALIZATIONS),
        ("learned", learned, LEARNED),
    ):
        if value not in allowed:
            raise ValueError(f"{label} is {value!r}; it must be one of {', '.join(map(repr, allowed))}.")
    if normalization == "group" and any(filters % 8 for filters in (*widths, head_filters)):
        raise ValueError(
            f"widths is {widths!r} and head_filters {head_filters}; normalization='group' takes groups of 8 channels: "
            "give multiples of 8."
        )
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout!r}; it must lie in 0 ≤ dropout < 1.")
