"""Exercises to chapter 03: convolution, pooling, parameters, receptive field, an encoder's sizes, what is really seen."""

from __future__ import annotations

import numpy as np

from course_lib.teaching.exercise import Case, Exercise, Mistake, array, number

# 03.1


def convolve(picture, kernel):
    return _convolved(picture, kernel)


def _convolved(picture, kernel, fewer=0, same=False):
    kernel = np.asarray(kernel, float)
    if same:
        picture = np.pad(picture, [(side // 2, side // 2) for side in kernel.shape])
    height, width = (picture.shape[k] - kernel.shape[k] + 1 - fewer for k in (0, 1))
    out = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            out[row, column] = (
                picture[row : row + kernel.shape[0], column : column + kernel.shape[1]] * kernel
            ).sum()
    return out


def _picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 9, (height, width)).astype(float)


CONVOLVE = Exercise(
    "03.1",
    "convolve",
    array("an array"),
    lambda: [
        Case(
            "a picture with one lit pixel",
            (np.eye(7)[3][:, None] * np.eye(7)[3], np.arange(9.0).reshape(3, 3)),
        ),
        Case(
            "an edge from dark to bright",
            (np.repeat([[0, 0, 0, 0, 1, 1, 1, 1]], 6, axis=0).astype(float), np.array([[-1.0, 0, 1]] * 3)),
        ),
        Case("a picture of 6 × 9", (_picture(6, 9), _picture(3, 3, 1))),
        Case("a kernel of 5 × 5", (_picture(8, 7), _picture(5, 5, 2))),
        Case("a kernel of 1 × 3", (_picture(4, 6), np.array([[1.0, 2.0, 4.0]]))),
    ],
    convolve,
    (
        Mistake(
            "Your kernel is flipped, as in mathematics; networks do not flip it.",
            lambda p, k: _convolved(p, k[::-1, ::-1]),
        ),
        Mistake(
            "Your kernel is transposed: its first axis goes down, as the picture's does.",
            lambda p, k: _convolved(p, k.T),
        ),
        Mistake(
            "You pad the picture with zeros and keep its size; here the kernel is put only where it "
            "fits (valid).",
            lambda p, k: _convolved(p, k, same=True),
        ),
        Mistake(
            "The last row and column are missing: a kernel of side k fits size - k + 1 times.",
            lambda p, k: _convolved(p, k, fewer=1),
        ),
        Mistake(
            "You take the mean of the products; a convolution adds them up.",
            lambda p, k: _convolved(p, k) / np.size(k),
        ),
    ),
    (
        "At how many places does a kernel of side k fit into a row of n pixels?",
        "picture[row : row + k, column : column + k] is the window; multiply it with the kernel, "
        "number by number.",
        "The answer is (height - kernel height + 1, width - kernel width + 1).",
    ),
)


# 03.2


def max_pool(x):
    return _pooled(x, np.max)


def _pooled(x, of):
    height, width = x.shape[0] // 2 * 2, x.shape[1] // 2 * 2
    blocks = x[:height, :width].reshape(height // 2, 2, width // 2, 2, x.shape[2])
    return of(blocks, axis=(1, 3))


def _pooled_with_the_rest(x):
    height, width = (-(-side // 2) * 2 for side in x.shape[:2])
    padded = np.full((height, width, x.shape[2]), -np.inf)
    padded[: x.shape[0], : x.shape[1]] = x
    return _pooled(padded, np.max)


def _stride_one(x):
    return np.max([x[i : x.shape[0] - 1 + i, j : x.shape[1] - 1 + j] for i in (0, 1) for j in (0, 1)], axis=0)


def _maps(height, width, channels, seed=0):
    return np.random.default_rng(seed).normal(size=(height, width, channels)).round(2)


MAX_POOL = Exercise(
    "03.2",
    "max_pool",
    array("an array, half as high and wide"),
    lambda: [
        Case("a map of 4 × 6 with one channel", (_maps(4, 6, 1),)),
        Case("a map of 6 × 4 with three channels", (_maps(6, 4, 3, 1),)),
        Case("a map of negative numbers", (-1 - np.abs(_maps(4, 4, 2, 2)),)),
        Case(
            "a map of 5 × 7, which does not divide",
            (_maps(5, 7, 2, 3),),
            "A row or column that is left over is dropped.",
        ),
    ],
    max_pool,
    (
        Mistake(
            "You take the mean of each block; max pooling keeps the largest number.",
            lambda x: _pooled(x, np.mean),
        ),
        Mistake(
            "You keep every second pixel, whatever the other three of its block say; take the largest.",
            lambda x: x[: x.shape[0] // 2 * 2 : 2, : x.shape[1] // 2 * 2 : 2],
        ),
        Mistake(
            "You keep every second pixel, whatever the other three of its block say; take the largest.",
            lambda x: x[::2, ::2],
        ),
        Mistake(
            "You take the largest over the channels, too; each channel is pooled by itself.",
            lambda x: max_pool(x).max(axis=-1),
        ),
        Mistake("Your blocks overlap: the step from one to the next is 2, not 1.", _stride_one),
        Mistake(
            "A row or column that is left over makes a block of its own in your answer; here it is "
            "dropped, as in Keras.",
            _pooled_with_the_rest,
        ),
        Mistake(
            "Negative numbers become 0: the largest of four negative numbers is negative (the ReLU "
            "is another layer).",
            lambda x: np.maximum(max_pool(x), 0),
        ),
    ),
    (
        "x.reshape(height // 2, 2, width // 2, 2, channels) puts each block on two axes of its own.",
        "Then the maximum over axes 1 and 3. Before that, cut off a row or column that is left over.",
    ),
)

# 03.3


def parameters(channels_in, channels_out, kernel, bias):
    return kernel * kernel * channels_in * channels_out + bias * channels_out


PARAMETERS = Exercise(
    "03.3",
    "parameters",
    number("a number, how many parameters"),
    lambda: [
        Case(
            f"{a} channels in, {b} out, a kernel of {k} × {k}, {'a' if bias else 'no'} bias", (a, b, k, bias)
        )
        for a, b, k, bias in (
            (1, 64, 3, True),
            (64, 128, 3, True),
            (3, 8, 3, False),
            (1024, 512, 2, True),
            (64, 2, 1, True),
        )
    ],
    parameters,
    (
        Mistake(
            "You forgot the bias: one number for each channel out, where there is one.",
            lambda a, b, k, bias: k * k * a * b,
        ),
        Mistake(
            "You always add a bias; the last argument says whether there is one.",
            lambda a, b, k, bias: k * k * a * b + b,
        ),
        Mistake(
            "Each kernel goes through all channels in: multiply by channels_in, too.",
            lambda a, b, k, bias: k * k * b + bias * b,
        ),
        Mistake("The kernel has k · k numbers, not k.", lambda a, b, k, bias: k * a * b + bias * b),
        Mistake(
            "There is one bias for each channel out, not for each channel in.",
            lambda a, b, k, bias: k * k * a * b + bias * a,
        ),
        Mistake(
            "There is one bias for each channel out, not a single one.",
            lambda a, b, k, bias: k * k * a * b + bias,
        ),
        Mistake(
            "There is one bias for each channel out, not for each pair of channels.",
            lambda a, b, k, bias: (k * k + bias) * a * b,
        ),
    ),
    (
        "How many numbers has one kernel? It looks at a k × k window of every channel in.",
        "There is one kernel, and one bias, for each channel out.",
    ),
)

# 03.4


def receptive_field(layers):
    return _field(layers)


def _field(layers, step=lambda r, j, k, s: (r + (k - 1) * j, j * s)):
    r, j = 1, 1
    for k, s in layers:
        r, j = step(r, j, k, s)
    return r


_LEVEL = [(3, 1), (3, 1), (2, 2)]

RECEPTIVE_FIELD = Exercise(
    "03.4",
    "receptive_field",
    number("a number of pixels"),
    lambda: [
        Case("no layer at all", ([],), "Without a layer a feature is its pixel: 1."),
        Case("one 3 × 3 convolution", ([(3, 1)],)),
        Case("two 3 × 3 convolutions", ([(3, 1), (3, 1)],)),
        Case("a level of U-Net and a convolution", ([*_LEVEL, (3, 1)],)),
        Case("four levels of U-Net and two convolutions", ([*_LEVEL * 4, (3, 1), (3, 1)],)),
        Case(
            "a 7 × 7 convolution with stride 2, a 3 × 3 pooling with stride 2, two convolutions",
            ([(7, 2), (3, 2), (3, 1), (3, 1)],),
        ),
        Case("a 1 × 1 convolution between two others", ([(3, 1), (1, 1), (5, 1)],)),
    ],
    receptive_field,
    (
        Mistake(
            "You forget the stride: after a pooling, each step of a later layer is twice as long in "
            "the picture.",
            lambda layers: _field(layers, lambda r, j, k, s: (r + (k - 1), j)),
        ),
        Mistake(
            "A layer's own stride does not widen its own view: first r grows by (k - 1) · j, then j "
            "is multiplied by the stride.",
            lambda layers: _field(layers, lambda r, j, k, s: (r + (k - 1) * j * s, j * s)),
        ),
        Mistake(
            "A layer adds k - 1 steps, not k: one position is the one it stands on.",
            lambda layers: _field(layers, lambda r, j, k, s: (r + k * j, j * s)),
        ),
        Mistake(
            "The kernels do not multiply: each layer adds (k - 1) steps.",
            lambda layers: _field(layers, lambda r, j, k, s: (r * k, j)),
        ),
        Mistake(
            "The stride adds up in your answer; strides multiply, two poolings make steps of 4.",
            lambda layers: _field(layers, lambda r, j, k, s: (r + (k - 1) * j, j + s - 1)),
        ),
        Mistake(
            "You begin at 0; before the first layer a feature sees one pixel.",
            lambda layers: _field(layers) - 1,
        ),
        Mistake(
            "You give the reach to one side; the receptive field is the whole width.",
            lambda layers: (_field(layers) - 1) / 2,
        ),
    ),
    (
        "Keep two numbers: r, the receptive field, and j, how many pixels lie between two "
        "neighbouring features.",
        "Both begin at 1. A layer (k, s) makes r larger by (k - 1) · j.",
        "After that, j is multiplied by s.",
    ),
)

# 03.5


def encoder_shapes(size, depth, filters):
    return _shapes(size, depth, filters)


def _shapes(size, depth, filters, loss=4, growth=2, bottleneck=True, pool_first=False):
    shapes, channels = [], filters
    for level in range(depth + 1):
        if level or pool_first:
            size //= 2
        size -= loss
        shapes.append((size, channels))
        channels *= growth
    return shapes if bottleneck else shapes[:-1]


ENCODER_SHAPES = Exercise(
    "03.5",
    "encoder_shapes",
    array("a list of pairs (side, channels), one for each level and the bottleneck"),
    lambda: [
        Case(
            f"a picture of {size} pixels, depth {depth}, {filters} channels at first", (size, depth, filters)
        )
        for size, depth, filters in ((572, 4, 64), (188, 4, 8), (44, 2, 16), (20, 1, 4))
    ],
    encoder_shapes,
    (
        Mistake(
            "Your convolutions are padded and lose nothing; here each 3 × 3 convolution takes a "
            "frame of one pixel.",
            lambda *a: _shapes(*a, loss=0),
        ),
        Mistake(
            "Two unpadded convolutions take 4 pixels off a side, one at both ends each; you take 2.",
            lambda *a: _shapes(*a, loss=2),
        ),
        Mistake("The channels double from level to level.", lambda *a: _shapes(*a, growth=1)),
        Mistake(
            "The bottleneck is missing: after the last pooling come two more convolutions.",
            lambda *a: _shapes(*a, bottleneck=False),
        ),
        Mistake(
            "You pool before the first convolutions; on each level the convolutions come first.",
            lambda *a: _shapes(*a, pool_first=True),
        ),
        Mistake(
            "You give the sizes after the pooling; the skip, and the level's output, are what comes "
            "out of the convolutions.",
            lambda *a: [(side // 2, channels) for side, channels in _shapes(*a)],
        ),
    ),
    (
        "On each level: two unpadded 3 × 3 convolutions (a side loses 2 pixels each), note the "
        "shape, then halve.",
        "The channels begin at filters and double from level to level.",
        "After depth levels comes the bottleneck: halved once more, two convolutions, twice the "
        "channels. That makes depth + 1 pairs.",
    ),
)

# 03.6


def influence(layers):
    return _spread(layers)


def _spread(layers, kernel=(1 / 3, 1 / 3, 1 / 3)):
    seen = np.ones(1)
    for _ in range(layers):
        seen = np.convolve(seen, kernel)
    return seen


def _spread_same(layers):
    seen = np.ones(1)
    for _ in range(layers):
        seen = np.convolve(seen, np.full(3, 1 / 3), mode="same")
    return seen


def _gauss(layers):
    x = np.arange(-layers, layers + 1)
    bell = np.exp(-(x**2) / (2 * max(2 * layers / 3, 1e-9)))
    return bell / bell.sum()


INFLUENCE = Exercise(
    "03.6",
    "influence",
    array("an array of 2 · layers + 1 numbers"),
    lambda: [
        Case(f"{layers} layers" if layers != 1 else "one layer", (layers,)) for layers in (1, 2, 3, 6, 0)
    ],
    influence,
    (
        Mistake(
            "You give every pixel of the receptive field the same influence; the middle is reached "
            "by more paths than the ends.",
            lambda n: np.full(2 * n + 1, 1 / (2 * n + 1)),
        ),
        Mistake(
            "You count the paths; divide by 3 for each layer, so that the influences add up to 1.",
            lambda n: _spread(n, (1, 1, 1)),
        ),
        Mistake("You apply a layer too many: no layer at all leaves [1].", lambda n: _spread(n + 1)),
        Mistake(
            "np.convolve with mode='same' cuts the ends off: after n layers 2 · n + 1 pixels have an "
            "influence.",
            lambda n: _spread(n) if n < 2 else _spread_same(n),
        ),
        Mistake(
            "That is a bell curve of the right width; the influence is only nearly one. Let the "
            "layers make it.",
            _gauss,
        ),
        Mistake(
            "You weigh the middle of each kernel twice; here its three numbers are alike, 1/3 each.",
            lambda n: _spread(n, (0.25, 0.5, 0.25)),
        ),
    ),
    (
        "Without a layer a feature depends on its own pixel: [1].",
        "A layer spreads each number over itself and its two neighbours, a third each: "
        "np.convolve(seen, [1/3, 1/3, 1/3]).",
    ),
)

EXERCISES = (CONVOLVE, MAX_POOL, PARAMETERS, RECEPTIVE_FIELD, ENCODER_SHAPES, INFLUENCE)
