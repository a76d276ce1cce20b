"""Exercises of chapter 03: convolution, pooling, parameters, receptive field, an encoder's shapes, what is
really seen, an encoder in Keras."""

from functools import partial

import numpy as np
from scipy import ndimage, signal

from course_lib.teaching.exercise import Case, Exercise, Form, array, measured, number, relus, same

# 03.1


def convolve(image, kernel, fewer=0, of=np.sum):
    windows = np.lib.stride_tricks.sliding_window_view(image, kernel.shape)
    return of(windows * kernel, axis=(2, 3))[: len(windows) - fewer, : windows.shape[1] - fewer]


def _image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 9, (height, width)).astype(float)


CONVOLVE = Exercise(
    number="03.1",
    name="convolve",
    form=array("an array"),
    answer=convolve,
    cases=[
        Case(
            "an image with one bright pixel",
            np.outer(np.eye(7)[3], np.eye(7)[3]),
            np.arange(9.0).reshape(3, 3),
        ),
        Case("an edge from dark to bright", [[0.0, 0, 0, 0, 1, 1, 1, 1]] * 6, [[-1.0, 0, 1]] * 3),
        Case("an image of 6 × 9", _image(6, 9), _image(3, 3, 1)),
        Case("a kernel of 5 × 5", _image(8, 7), _image(5, 5, 2)),
        Case("a kernel of 1 × 3", _image(4, 6), [[1.0, 2.0, 4.0]]),
        Case("a kernel of 2 × 3", _image(5, 6, 3), [[1.0, 2.0, 4.0], [0.0, -1.0, 3.0]]),
    ],
    mistakes={
        "Your kernel is flipped, as in the mathematical convolution; networks do not flip it.": lambda p, k: (
            convolve(p, k[::-1, ::-1])
        ),
        "Your kernel is transposed: its first axis goes down, as the image's does.": lambda p, k: convolve(
            p, k.T
        ),
        "You pad the image with zeros and keep its size; here the kernel is placed only where it fits (valid).": (
            partial(signal.correlate2d, mode="same"),
            partial(ndimage.correlate, mode="constant"),
        ),
        "The last row and column are missing: a kernel of side k fits size - k + 1 times.": partial(
            convolve, fewer=1
        ),
        "You take the mean of the products; a convolution sums them.": partial(convolve, of=np.mean),
    },
    hints=[
        "At how many locations does a kernel of width k fit into a row of n pixels?",
        "image[row : row + k, column : column + k] is the window; multiply it by the kernel element by "
        "element.",
        "The output has the shape (height - kernel height + 1, width - kernel width + 1).",
    ],
)

# 03.2


def max_pool(x, of=np.max):
    height, width = x.shape[0] // 2, x.shape[1] // 2
    return of(x[: height * 2, : width * 2].reshape(height, 2, width, 2, x.shape[2]), axis=(1, 3))


def _with_the_rest(x):
    return max_pool(np.pad(x, [(0, x.shape[0] % 2), (0, x.shape[1] % 2), (0, 0)], constant_values=-np.inf))


def _stride_one(x):
    return np.max([x[i : x.shape[0] - 1 + i, j : x.shape[1] - 1 + j] for i in (0, 1) for j in (0, 1)], axis=0)


def _maps(height, width, channels, seed=0):
    return np.random.default_rng(seed).normal(size=(height, width, channels)).round(2)


MAX_POOL = Exercise(
    number="03.2",
    name="max_pool",
    form=array("an array, half as high and wide"),
    answer=max_pool,
    cases=[
        Case("a feature map of 4 × 6 with one channel", _maps(4, 6, 1)),
        Case("a feature map of 6 × 4 with three channels", _maps(6, 4, 3, 1)),
        Case("a feature map of negative numbers", -1 - np.abs(_maps(4, 4, 2, 2))),
        Case(
            "a feature map of 5 × 7, whose sides are odd",
            _maps(5, 7, 2, 3),
            note="A row or column that is left over is dropped.",
        ),
    ],
    mistakes={
        "You take the mean of each block; max pooling keeps the largest value.": partial(
            max_pool, of=np.mean
        ),
        "You keep every second pixel and ignore the other three of its block; take the largest of the "
        "four.": (lambda x: x[: x.shape[0] // 2 * 2 : 2, : x.shape[1] // 2 * 2 : 2], lambda x: x[::2, ::2]),
        "You take the maximum over the channels, too; each channel is pooled separately.": lambda x: max_pool(
            x
        ).max(axis=-1),
        "Your blocks overlap: the step from one to the next is 2, not 1.": _stride_one,
        "A row or column that is left over becomes a block of its own; here it is dropped, as in Keras.": _with_the_rest,
        "Negative numbers become 0: the largest of four negative numbers is negative (the ReLU is another layer).": (
            lambda x: np.maximum(max_pool(x), 0)
        ),
    },
    hints=[
        "x.reshape(height // 2, 2, width // 2, 2, channels) gives each block two axes of its own.",
        "Then take the maximum over axes 1 and 3. Before that, cut off a row or column that is left over.",
    ],
)

# 03.3

PARAMETERS = Exercise(
    number="03.3",
    name="parameters",
    form=number("a number, how many parameters"),
    answer=lambda a, b, k, bias: k * k * a * b + bias * b,
    cases=[
        Case(f"{a} channels in, {b} out, a kernel of {k} × {k}, {'a' if bias else 'no'} bias", a, b, k, bias)
        for a, b, k, bias in (
            (1, 64, 3, True),
            (64, 128, 3, True),
            (3, 8, 3, False),
            (1024, 512, 2, True),
            (64, 2, 1, True),
        )
    ],
    mistakes={
        "You forgot the bias: if there is one, it has one value for each output channel.": lambda a, b, k, bias: (
            k * k * a * b
        ),
        "You always add a bias; the last argument says whether there is one.": lambda a, b, k, bias: (
            k * k * a * b + b
        ),
        "Each kernel covers all input channels: multiply by channels_in, too.": lambda a, b, k, bias: (
            k * k * b + bias * b
        ),
        "The kernel has k · k weights, not k.": lambda a, b, k, bias: k * a * b + bias * b,
        "There is one bias for each output channel, not for each input channel.": (
            lambda a, b, k, bias: k * k * a * b + bias * a
        ),
        "There is one bias for each output channel, not a single one.": lambda a, b, k, bias: (
            k * k * a * b + bias
        ),
        "There is one bias for each output channel, not for each pair of channels.": (
            lambda a, b, k, bias: (k * k + bias) * a * b
        ),
    },
    hints=[
        "How many weights does one kernel have? It covers a k × k window of every input channel.",
        "There is one kernel, and one bias, for each output channel.",
    ],
)

# 03.4


def receptive_field(layers, step=lambda r, j, k, s: (r + (k - 1) * j, j * s)):
    r, j = 1, 1
    for k, s in layers:
        r, j = step(r, j, k, s)
    return r


def _field(step):
    return partial(receptive_field, step=step)


_LEVEL = [(3, 1), (3, 1), (2, 2)]

RECEPTIVE_FIELD = Exercise(
    number="03.4",
    name="receptive_field",
    form=number("a number of pixels"),
    answer=receptive_field,
    cases=[
        Case("one 3 × 3 convolution", [(3, 1)]),
        Case("two 3 × 3 convolutions", [(3, 1), (3, 1)]),
        Case("a level of U-Net and a convolution", [*_LEVEL, (3, 1)]),
        Case("four levels of U-Net and two convolutions", [*_LEVEL * 4, (3, 1), (3, 1)]),
        Case(
            "a 7 × 7 convolution and a 3 × 3 pooling, both with stride 2, two convolutions",
            [(7, 2), (3, 2), (3, 1), (3, 1)],
        ),
        Case("a 1 × 1 convolution between two others", [(3, 1), (1, 1), (5, 1)]),
        Case("no layer at all", np.zeros((0, 2), int), note="Without a layer a feature is its pixel: 1."),
    ],
    mistakes={
        "You forget the stride: after a pooling, each step of a later layer is twice as long in the image.": _field(
            lambda r, j, k, s: (r + k - 1, j)
        ),
        "A layer's stride does not enlarge its own receptive field: first r grows by (k - 1) · j, then j "
        "is multiplied by the stride.": _field(lambda r, j, k, s: (r + (k - 1) * j * s, j * s)),
        "A layer adds k - 1 steps, not k: one of the k locations was there already.": _field(
            lambda r, j, k, s: (r + k * j, j * s)
        ),
        "The kernel sizes do not multiply: each layer adds (k - 1) steps.": _field(
            lambda r, j, k, s: (r * k, j)
        ),
        "You add the strides; strides multiply: two poolings make steps of 4.": _field(
            lambda r, j, k, s: (r + (k - 1) * j, j + s - 1)
        ),
        "You begin at 0; before the first layer a feature sees one pixel.": lambda layers: (
            receptive_field(layers) - 1
        ),
        "You return the distance to one side; the receptive field is the full width.": (
            lambda layers: (receptive_field(layers) - 1) / 2,
            lambda layers: receptive_field(layers) // 2,
        ),
    },
    hints=[
        "Keep two numbers: r, the receptive field, and j, the distance in pixels between two neighbouring "
        "features.",
        "Both begin at 1. A layer (k, s) makes r larger by (k - 1) · j.",
        "After that, j is multiplied by s.",
    ],
)

# 03.5


def encoder_shapes(size, depth, filters, loss=4, growth=2, pool_first=False, half=lambda size: size // 2):
    shapes = []
    for level in range(depth + 1):
        size = half(size) if level or pool_first else size
        size -= loss
        shapes.append((size, filters * growth**level))
    return shapes


ENCODER_SHAPES = Exercise(
    number="03.5",
    name="encoder_shapes",
    form=array("a list of pairs (side, channels), one for each level and the bottleneck"),
    answer=encoder_shapes,
    cases=[
        Case(f"an image of {size} pixels, depth {depth}, {filters} channels at first", size, depth, filters)
        for size, depth, filters in ((572, 4, 64), (188, 4, 8), (44, 2, 16), (20, 1, 4), (49, 2, 8))
    ],
    mistakes={
        "Your convolutions are padded and keep the size; here each 3 × 3 convolution removes a frame of "
        "one pixel.": partial(encoder_shapes, loss=0),
        "Two unpadded convolutions make a side 4 pixels shorter, each by one pixel at both ends; you "
        "subtract 2.": partial(encoder_shapes, loss=2),
        "The channels double from level to level.": partial(encoder_shapes, growth=1),
        "The bottleneck is missing: two more convolutions follow the last pooling.": lambda *given: (
            encoder_shapes(*given)[:-1]
        ),
        "You pool before the first convolutions; on each level the convolutions come first.": partial(
            encoder_shapes, pool_first=True
        ),
        "You return the sizes after the pooling; the skip, and the level's output, are what the convolutions produce.": (
            lambda *given: [(side // 2, channels) for side, channels in encoder_shapes(*given)]
        ),
        "A side must be a whole number of pixels: pooling drops a row that is left over, so divide with "
        "// 2.": partial(encoder_shapes, half=lambda size: size / 2),
        "You round half a pixel up; pooling drops the row that is left over, so divide with // 2.": partial(
            encoder_shapes, half=lambda size: -(-size // 2)
        ),
    },
    hints=[
        "On each level: two unpadded 3 × 3 convolutions (a side loses 2 pixels each), note the shape, then halve.",
        "The channels begin at filters and double from level to level.",
        "After depth levels comes the bottleneck: halved once more, two convolutions, twice the channels. That makes "
        "depth + 1 pairs.",
    ],
)

# 03.6


def influence(layers, kernel=(1 / 3, 1 / 3, 1 / 3), mode="full"):
    seen = np.ones(1)
    for _ in range(layers):
        seen = np.convolve(seen, kernel, mode)
    return seen


def _gauss(layers):
    x = np.arange(-layers, layers + 1)
    bell = np.exp(-(x**2) / (2 * max(2 * layers / 3, 1e-9)))
    return bell / bell.sum()


INFLUENCE = Exercise(
    number="03.6",
    name="influence",
    form=array("an array of 2 · layers + 1 numbers"),
    answer=influence,
    cases=[Case(f"{n} layer{'s' * (n != 1)}", n) for n in (1, 2, 3, 6, 0)],
    mistakes={
        "You give every pixel of the receptive field the same influence; more paths lead to the middle "
        "than to the ends.": (lambda n: np.full(2 * n + 1, 1 / (2 * n + 1))),
        "You count the paths; divide by 3 for each layer, so that the influences add up to 1.": partial(
            influence, kernel=(1, 1, 1)
        ),
        "You apply one layer too many: no layer at all leaves [1].": lambda n: influence(n + 1),
        "np.convolve with mode='same' cuts the ends off: after n layers 2 · n + 1 pixels have an influence.": partial(
            influence, mode="same"
        ),
        "That is a Gaussian of the correct width; the influence is close to it but not equal. Compute it "
        "layer by layer.": _gauss,
        "You give the middle of each kernel double weight; here its three weights are equal, 1/3 each.": partial(
            influence, kernel=(0.25, 0.5, 0.25)
        ),
    },
    hints=[
        "Without a layer a feature depends on its own pixel: [1].",
        "A layer spreads each value over its own location and its two neighbours, a third each: "
        "np.convolve(seen, [1/3, 1/3, 1/3]).",
    ],
)

# 03.7, with Keras


def encoder(
    x,
    filters,
    depth,
    convolutions=2,
    activation="relu",
    padding="same",
    growth=2,
    skip=lambda before, after: before,
    pool=lambda layers: layers.MaxPooling2D(2),
    bottleneck=True,
):
    from keras import layers

    outputs = []
    for level in range(depth + bottleneck):
        for _ in range(convolutions):
            x = layers.Conv2D(filters * growth**level, 3, padding=padding, activation=activation)(x)
        before = x
        if level < depth:
            x = pool(layers)(x)
        outputs.append(skip(before, x))
    return outputs if bottleneck else [*outputs, x]


def _encoder_behaviour(function, size, filters, depth):
    """Number of outputs, their heights and channels, the parameters, and the layers with a ReLU."""
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((size, size, 3))
    found = function(inputs, filters, depth)
    if found is None or found is ...:
        raise NotImplementedError
    outputs = keras.tree.flatten(found)
    model = keras.Model(inputs, outputs)
    image = np.random.default_rng(0).normal(size=(1, size, size, 3)).astype("float32")
    arrays = [keras.ops.convert_to_numpy(one) for one in keras.tree.flatten(model(image))]
    if any(one.ndim != 4 for one in arrays):
        raise ValueError("each output must be a feature map (batch, height, width, channels)")
    sides = [k for one in arrays for k in one.shape[1::2]]
    sides = (sides + [0] * 2 * depth + [0, 0])[: 2 * depth + 2]
    return [len(arrays), *sides, model.count_params(), relus(model, [np.abs(image)])]


def _encoders(given, right):
    levels = [
        f"{part} of output {k + 1}" for k in range((len(right) - 3) // 2) for part in ("height", "channels")
    ]
    return measured("", "outputs", *levels, "parameters", "layers with a ReLU").contrast(given, right)


ENCODER = Exercise(
    number="03.7",
    name="encoder",
    form=Form("a list of Keras tensors", same, contrast=_encoders),
    answer=encoder,
    measure=_encoder_behaviour,
    live=True,
    seconds=40.0,
    cases=[
        Case("an image of 16 × 16, two levels of 4 and 8 channels", 16, 4, 2),
        Case("an image of 24 × 24, three levels of 2, 4 and 8 channels", 24, 2, 3),
    ],
    mistakes={
        "Your skips come after the pooling; keep the features from before it, at full size.": partial(
            encoder, skip=lambda before, after: after
        ),
        "Only one convolution in each level; there are two.": partial(encoder, convolutions=1),
        "Your convolutions lose a frame of one pixel each; padding='same' keeps the size.": partial(
            encoder, padding="valid"
        ),
        "Your convolutions have no ReLU.": partial(encoder, activation=None),
        "The number of channels stays the same; it doubles from level to level.": partial(encoder, growth=1),
        "The bottleneck has no convolutions: after the last pooling there are two more.": partial(
            encoder, bottleneck=False
        ),
        "Nothing is pooled: halve height and width between the levels.": partial(
            encoder, pool=lambda layers: layers.Identity()
        ),
        "Your pooling has weights; here it is a max pooling of 2 × 2, which has none.": partial(
            encoder, pool=lambda layers: layers.Conv2D(4, 2, strides=2)
        ),
        "The bottleneck is missing from what you return: it is the last of the list.": (
            lambda x, filters, depth: encoder(x, filters, depth)[:-1]
        ),
    },
    hints=[
        "In each level: two Conv2D(filters · 2**level, 3, padding='same', activation='relu'), append it, then pool.",
        "After the last pooling come two more convolutions with filters · 2**depth channels; append their result, too.",
    ],
)

EXERCISES = (CONVOLVE, MAX_POOL, PARAMETERS, RECEPTIVE_FIELD, ENCODER_SHAPES, INFLUENCE, ENCODER)
