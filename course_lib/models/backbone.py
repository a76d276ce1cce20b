"""ResNet, the network of He et al. (2016), https://arxiv.org/abs/1512.03385, as the backbone of other networks.

A backbone takes the image and returns four feature maps, C2 to C5: at a quarter, an eighth, a sixteenth and a
32nd of the image's size, each with more channels than the one before. Mask R-CNN and DeepLab build on them.

Read top to bottom: the networks, then the stages and blocks that they are made of, then the normalization. `resnet50` is
torchvision's, number by number: the stride sits in the block's 3 × 3 convolution ("v1.5"), and zeros pad all sides alike.

A layer that stands for torchvision's module `layer1.0.conv1` is named `layer1-0-conv1`: PyTorch, one of Keras's
backends, allows no dot in the name of a parameter.
"""

import functools
from collections.abc import Sequence

import keras
from keras import layers, ops

from course_lib._checks import one_of
from course_lib.models.arguments import check_epsilon, check_image_shape, check_normalization, check_rows

BLOCKS = ("basic", "bottleneck")
NORMALIZATIONS = ("batch", "group", "frozen_batch")
OUTPUT_STRIDES = (8, 16, 32)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of red, green and blue over ImageNet's images, 0..1: what torchvision's weights were trained to see as 0."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation of red, green and blue over ImageNet's images: what those weights see as 1."""


def resnet50(
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    normalization: str = "batch",
    output_stride: int = 32,
    multi_grid: Sequence[int] | None = None,
    epsilon: float = 1e-5,
    prefix: str = "",
    name: str = "resnet50",
) -> keras.Model:
    """ResNet-50 without its classifier: 23,508,032 trainable parameters with `normalization="batch"`.

        >>> body = resnet50((224, 224, 3))
        >>> [tuple(features.shape[1:]) for features in body.outputs]
        [(56, 56, 256), (28, 28, 512), (14, 14, 1024), (7, 7, 2048)]

    Args:
        input_shape: `(height, width, channels)`; height and width may be `None` for images of any size.
        normalization: `"batch"`, `"group"` (groups of 8 channels, at most 32), which does not depend on how many
            images are in a batch, or `"frozen_batch"`: for weights that were trained elsewhere, whose statistics the two
            images of a step in detection would corrupt.
        output_stride: pixels of the image per pixel of C5. At 16, the last stage does not halve the map but spreads its
            3 × 3 kernels by 2 (atrous convolution: Chen et al. 2017, https://arxiv.org/abs/1706.05587); at 8, the last two
            stages do so. The number of parameters stays, and so do the features: every second (fourth) row and column of
            the larger map is the smaller one.
        multi_grid: factors of the dilation in the blocks of the last stage, such as `(1, 2, 4)` (section 3.1 there: at
            output stride 16, rates of 2, 4 and 8). `None` leaves the first block with the rate of the stage before, as
            torchvision does; only so does what `output_stride` says of the features hold.
        epsilon: added to the variance before the root. torchvision's Mask R-CNN weights of 2019 (`COCO_V1`) want 0.0.
        prefix: put before the name of every layer.
        name: name of the model.

    Returns:
        A `keras.Model`, float32 `(batch, height, width, channels)` in, the list `[C2, C3, C4, C5]` out, with 256, 512, 1024
        and 2048 channels and ⌈height / stride⌉ rows; the layers that give them are named `C2` to `C5`.

    Raises:
        ValueError: for an argument that is none of the above.
    """
    return resnet(
        "bottleneck", (64, 128, 256, 512), (3, 4, 6, 3), input_shape, normalization, output_stride, multi_grid,
        epsilon, prefix, name,
    )  # fmt: skip


def small_resnet(
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    widths: Sequence[int] = (16, 32, 64, 128),
    blocks: Sequence[int] = (1, 1, 1, 1),
    normalization: str = "batch",
    output_stride: int = 32,
    multi_grid: Sequence[int] | None = None,
    epsilon: float = 1e-5,
    prefix: str = "",
    name: str = "small_resnet",
    stem_stride: int = 4,
) -> keras.Model:
    """A ResNet of basic blocks (two 3 × 3 convolutions), small enough to train on a CPU.

    As it stands it has 309,456 trainable parameters. With `widths=(64, 128, 256, 512)` and `blocks=(2, 2, 2, 2)` it is
    ResNet-18 without its classifier (11,176,512).

    Args:
        widths: channels of C2 to C5; the stem has those of C2.
        blocks: blocks in each of the four stages.
        input_shape, normalization, output_stride, multi_grid, epsilon, prefix, name: as for `resnet50`.
        stem_stride: 4 as in the paper, or 2: without the stem's max pooling. Then all maps have twice the rows and
            columns that are said here, for objects of a few pixels.

    Returns:
        As `resnet50`, with `widths` channels.

    Raises:
        ValueError: for an argument that is none of the above.
    """
    return resnet(
        "basic", widths, blocks, input_shape, normalization, output_stride, multi_grid, epsilon, prefix, name,
        stem_stride,
    )  # fmt: skip


def resnet(
    block: str,
    widths: Sequence[int],
    blocks: Sequence[int],
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    normalization: str = "batch",
    output_stride: int = 32,
    multi_grid: Sequence[int] | None = None,
    epsilon: float = 1e-5,
    prefix: str = "",
    name: str = "resnet",
    stem_stride: int = 4,
) -> keras.Model:
    """A ResNet of any size: a stem and four stages of blocks.

    Args:
        block: `"basic"` (two 3 × 3 convolutions) or `"bottleneck"` (a 3 × 3 between two 1 × 1, with four times the width
            coming out).
        widths: width of the blocks in each of the four stages; the stem has that of the first.
        blocks: number of blocks in each of the four stages.
        input_shape, normalization, output_stride, multi_grid, epsilon, prefix, name: as for `resnet50`.
        stem_stride: as for `small_resnet`.

    Returns:
        As `resnet50`.

    Raises:
        ValueError: for an argument that is none of the above.
    """
    one_of("block", block, BLOCKS)
    check_image_shape(input_shape)
    check_rows(4, widths=widths, blocks=blocks)
    check_normalization(normalization, NORMALIZATIONS, widths=tuple(widths))
    one_of("output_stride", output_stride, OUTPUT_STRIDES)
    check_epsilon(epsilon)
    one_of("stem_stride", stem_stride, (2, 4))
    if multi_grid is not None:
        if len(multi_grid) != blocks[3]:
            raise ValueError(
                f"multi_grid is {multi_grid!r}; it must be one factor for each of the {blocks[3]} blocks of the last stage."
            )
        check_rows(None, multi_grid=multi_grid)
        if output_stride == 32:
            raise ValueError(
                f"multi_grid is {multi_grid!r}; it must be None with output_stride=32: the last stage then has a stride "
                "and no dilation to multiply. Set output_stride to 8 or 16."
            )

    def convolve(x, filters, size, name, stride=1, dilation=1):
        return convolution(x, filters, size, prefix + name, stride, dilation)

    def normalize(x, name):
        return normalization_layer(normalization, x.shape[-1], prefix + name, epsilon)(x)

    def relu(x, name):
        return layers.Activation("relu", name=prefix + name)(x)

    def shortcut(x, filters, stride, project, name):
        """The block's input, or where it would not fit the sum, a 1 × 1 convolution of it."""
        if not project and x.shape[-1] == filters:
            return x
        return normalize(convolve(x, filters, 1, f"{name}-downsample-0", stride), f"{name}-downsample-1")

    def bottleneck(x, filters, stride, first, rest, project, name):
        """1 × 1 to fewer channels, 3 × 3 among them, 1 × 1 to four times as many."""
        y = relu(normalize(convolve(x, filters, 1, f"{name}-conv1"), f"{name}-bn1"), f"{name}-relu1")
        y = convolve(y, filters, 3, f"{name}-conv2", stride, first)
        y = relu(normalize(y, f"{name}-bn2"), f"{name}-relu2")
        y = normalize(convolve(y, 4 * filters, 1, f"{name}-conv3"), f"{name}-bn3")
        x = shortcut(x, 4 * filters, stride, project, name)
        return layers.Add(name=f"{prefix}{name}-sum")([y, x])

    def basic(x, filters, stride, first, rest, project, name):
        """3 × 3 twice: the one that may have the stride with dilation `first`, the other with `rest`."""
        y = convolve(x, filters, 3, f"{name}-conv1", stride, first)
        y = relu(normalize(y, f"{name}-bn1"), f"{name}-relu1")
        y = normalize(convolve(y, filters, 3, f"{name}-conv2", dilation=rest), f"{name}-bn2")
        x = shortcut(x, filters, stride, project, name)
        return layers.Add(name=f"{prefix}{name}-sum")([y, x])

    build = {"basic": basic, "bottleneck": bottleneck}[block]
    inputs = keras.Input(input_shape, name=f"{prefix}image")

    # Stem: a quarter of the size before the first block.
    x = convolve(inputs, widths[0], 7, "conv1", stride=2)
    x = relu(normalize(x, "bn1"), "relu")
    if stem_stride == 4:
        # Zeros pad here as well as minus infinity would: after a ReLU, nothing is below them.
        x = layers.ZeroPadding2D(1, name=f"{prefix}maxpool-padding")(x)
        x = layers.MaxPooling2D(3, strides=2, name=f"{prefix}maxpool")(x)

    outputs = []
    reached, dilation = 4, 1
    for stage, (filters, repeats) in enumerate(zip(widths, blocks, strict=True), start=1):
        stride, before = 1, dilation
        if stage > 1 and reached < output_stride:
            stride = 2
            reached *= 2
        elif stage > 1:
            # In place of a stride: what comes after it reaches twice as far.
            dilation *= 2
        for index in range(repeats):
            first, rest = (before if index == 0 else dilation), dilation
            if multi_grid is not None and stage == 4:
                first = rest = dilation * multi_grid[index]
            block_name = f"layer{stage}-{index}"
            # A stage that dilates has the weights of one that halves: its first block projects as well.
            project = stage > 1 and index == 0
            x = build(x, filters, stride if index == 0 else 1, first, rest, project, block_name)
            # The last of a stage is what comes out, and bears its name.
            x = relu(x, f"{block_name}-relu" if index < repeats - 1 else f"C{stage + 1}")
        outputs.append(x)
    return keras.Model(inputs, outputs, name=name)


def convolution(x, filters: int, size: int, name: str, stride: int = 1, dilation: int = 1):
    """A convolution without bias, padded by the same zeros on all sides as PyTorch pads.

    Args:
        x: `(batch, height, width, channels)`.
        filters: channels out.
        size: side of the kernel, odd.
        name: name of the layer.
        stride, dilation: of which one is 1.

    Returns:
        `(batch, ⌈height / stride⌉, ⌈width / stride⌉, filters)`.
    """
    padding = "same"
    if stride > 1:
        # Keras's "same" would pad an even side on the right alone, and see every feature half a pixel aside.
        if size > 1:
            x = layers.ZeroPadding2D(size // 2, name=f"{name}-padding")(x)
        padding = "valid"
    return layers.Conv2D(
        filters,
        size,
        strides=stride,
        padding=padding,
        dilation_rate=dilation,
        use_bias=False,
        # He et al. (2015) with the outgoing nodes, as torchvision: it keeps the variance of the gradients.
        kernel_initializer=keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
        name=name,
    )(x)


def normalization_layer(normalization: str, filters: int, name: str, epsilon: float = 1e-5) -> layers.Layer:
    """The layer for one of `NORMALIZATIONS`, over `filters` channels."""
    if normalization == "batch":
        return batch_normalization(name, epsilon)
    if normalization == "group":
        groups = max(number for number in range(1, 33) if filters % number == 0 and filters >= 8 * number)
        return layers.GroupNormalization(groups=groups, epsilon=epsilon, name=name)
    return FrozenBatchNormalization(epsilon=epsilon, name=name)


def batch_normalization(name: str, epsilon: float = 1e-3) -> layers.BatchNormalization:
    """Keras's, whose moving mean and variance stay as they were where a batch would make them NaN or infinite.

    They are weights that no gradient reaches: an optimizer that leaves out a step whose gradient is not finite leaves them
    corrupted all the same, and with them every prediction from then on. The method is the instance's, not that of a class
    of its own: a model with it, saved as `.keras`, loads without the course.

    Args:
        name: name of the layer.
        epsilon: added to the variance before the root.
    """
    # Momentum 0.9, which PyTorch calls 0.1: after the few hundred to few thousand steps of this course, Keras's 0.99 would
    # still remember the first, meaningless statistics.
    layer = layers.BatchNormalization(momentum=0.9, epsilon=epsilon, name=name)
    call = layer.call

    @functools.wraps(call)
    def finite(inputs, training=None, mask=None):
        if not training or not layer.trainable:
            return call(inputs, training=training, mask=mask)
        statistics = (layer.moving_mean, layer.moving_variance)
        before = [ops.copy(ops.convert_to_tensor(variable)) for variable in statistics]
        outputs = call(inputs, training=training, mask=mask)
        for variable, kept in zip(statistics, before, strict=True):
            now = ops.convert_to_tensor(variable)
            variable.assign(ops.where(ops.isfinite(now), now, kept))
        return outputs

    layer.call = finite
    return layer


@keras.saving.register_keras_serializable(package="course_lib")
class FrozenBatchNormalization(layers.Layer):
    """Batch normalization whose four vectors stay as they were loaded: `gamma · (x − mean) / √(variance + ε) + beta`.

    For fine-tuning: the statistics come from a large batch long ago, and a step with two images does not change them, nor
    the scale and shift learned with them. A fresh one changes next to nothing, so a network that is to learn from the
    start needs another normalization.

    Args:
        epsilon: added to the variance before the root.
        **arguments: of every Keras layer (name, dtype).

    Call:
        `(…, channels)` in, the same shape out.
    """

    def __init__(self, epsilon: float = 1e-5, **arguments):
        super().__init__(**arguments)
        self.epsilon = epsilon

    def build(self, input_shape):
        def vector(name, initializer):
            # Not cast by mixed precision: small variances would lose their digits before the root is taken.
            return self.add_weight(
                shape=(input_shape[-1],), initializer=initializer, trainable=False, autocast=False, name=name
            )

        self.gamma = vector("gamma", "ones")
        self.beta = vector("beta", "zeros")
        self.moving_mean = vector("moving_mean", "zeros")
        self.moving_variance = vector("moving_variance", "ones")
        super().build(input_shape)

    def call(self, inputs):
        scale = self.gamma * ops.rsqrt(self.moving_variance + self.epsilon)
        shift = self.beta - self.moving_mean * scale
        return inputs * ops.cast(scale, inputs.dtype) + ops.cast(shift, inputs.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}
