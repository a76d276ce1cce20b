"""Chapter 03's checks: right answers pass, and each wrong one that people give is refused with its own sentence."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage, signal
from skimage.measure import block_reduce
from study_answers import class_of_tests

from course_lib.teaching.checker import find

# 03.1


def convolve_by_scipy(picture, kernel):
    return signal.correlate2d(picture, kernel, mode="valid")


def convolve_by_windows(picture, kernel):
    return np.einsum("hwij,ij->hw", sliding_window_view(picture, kernel.shape), kernel)


def convolve_flipped(picture, kernel):
    return signal.convolve2d(picture, kernel, mode="valid")


def convolve_same(picture, kernel):
    return ndimage.correlate(picture, kernel, mode="constant")


def convolve_without_the_last(picture, kernel):
    height, width = picture.shape[0] - kernel.shape[0], picture.shape[1] - kernel.shape[1]
    return np.array(
        [
            [(picture[r : r + kernel.shape[0], c : c + kernel.shape[1]] * kernel).sum() for c in range(width)]
            for r in range(height)
        ]
    )


def convolve_mean(picture, kernel):
    windows = sliding_window_view(picture, kernel.shape)
    return (windows * kernel).mean(axis=(2, 3))


# 03.2


def pool_by_skimage(x):
    height, width = x.shape[0] // 2 * 2, x.shape[1] // 2 * 2
    return block_reduce(x[:height, :width], (2, 2, 1), np.max)


def pool_by_maximum(x):
    height, width = x.shape[0] // 2 * 2, x.shape[1] // 2 * 2
    x = x[:height, :width]
    rows = np.maximum(x[::2], x[1::2])
    return np.maximum(rows[:, ::2], rows[:, 1::2])


def pool_mean(x):
    return block_reduce(x[: x.shape[0] // 2 * 2, : x.shape[1] // 2 * 2], (2, 2, 1), np.mean)


def pool_every_second(x):
    return x[::2, ::2]


def pool_the_channels_too(x):
    return pool_by_maximum(x).max(axis=2)


def pool_with_zeros(x):
    """block_reduce pads with zeros: what is left over makes a block, and beats negative numbers."""
    return block_reduce(x, (2, 2, 1), np.max)


def pool_with_stride_1(x):
    return sliding_window_view(x, (2, 2), axis=(0, 1)).max(axis=(-1, -2))


def pool_from_zero(x):
    best = np.zeros((x.shape[0] // 2, x.shape[1] // 2, x.shape[2]))
    for i in (0, 1):
        for j in (0, 1):
            best = np.maximum(best, x[i : x.shape[0] // 2 * 2 : 2, j : x.shape[1] // 2 * 2 : 2])
    return best


# 03.3


def parameters_of_keras(channels_in, channels_out, kernel, bias):
    import keras

    layer = keras.layers.Conv2D(channels_out, kernel, use_bias=bias)
    layer.build((None, None, None, channels_in))
    return layer.count_params()


def parameters_by_shape(channels_in, channels_out, kernel, bias):
    return int(np.prod((kernel, kernel, channels_in, channels_out))) + (channels_out if bias else 0)


def parameters_without_bias(channels_in, channels_out, kernel, bias):
    return kernel**2 * channels_in * channels_out


def parameters_of_one_channel(channels_in, channels_out, kernel, bias):
    return kernel**2 * channels_out + bias * channels_out


def parameters_kernel_once(channels_in, channels_out, kernel, bias):
    return kernel * channels_in * channels_out + bias * channels_out


def parameters_one_bias(channels_in, channels_out, kernel, bias):
    return kernel**2 * channels_in * channels_out + bias


def parameters_always_bias(channels_in, channels_out, kernel, bias):
    return (kernel**2 * channels_in + 1) * channels_out


# 03.4


def field_backwards(layers):
    """From the last layer to the first: n outputs need (n - 1) · stride + kernel inputs."""
    size = 1
    for kernel, stride in reversed(layers):
        size = (size - 1) * stride + kernel
    return size


def field_as_a_sum(layers):
    strides = [stride for _, stride in layers]
    return 1 + sum((kernel - 1) * int(np.prod(strides[:k])) for k, (kernel, _) in enumerate(layers))


def field_without_stride(layers):
    return 1 + sum(kernel - 1 for kernel, _ in layers)


def field_stride_first(layers):
    r, j = 1, 1
    for kernel, stride in layers:
        j *= stride
        r += (kernel - 1) * j
    return r


def field_whole_kernels(layers):
    r, j = 1, 1
    for kernel, stride in layers:
        r += kernel * j
        j *= stride
    return r


def field_as_product(layers):
    return int(np.prod([kernel for kernel, _ in layers]))


def field_from_zero(layers):
    return field_backwards(layers) - 1


# 03.5


def shapes_by_loop(size, depth, filters):
    shapes = [(size - 4, filters)]
    while len(shapes) <= depth:
        side, channels = shapes[-1]
        shapes.append((side // 2 - 4, 2 * channels))
    return shapes


def shapes_as_array(size, depth, filters):
    level = np.arange(depth + 1)
    return np.stack([(size - 4 * (2 ** (level + 1) - 1)) // 2**level, filters * 2**level], axis=1)


def shapes_padded(size, depth, filters):
    return [(size // 2**k, filters * 2**k) for k in range(depth + 1)]


def shapes_without_doubling(size, depth, filters):
    return [(side, filters) for side, _ in shapes_by_loop(size, depth, filters)]


def shapes_without_bottleneck(size, depth, filters):
    return shapes_by_loop(size, depth, filters)[:-1]


def shapes_after_pooling(size, depth, filters):
    return [(side // 2, channels) for side, channels in shapes_by_loop(size, depth, filters)]


def shapes_one_pixel_each(size, depth, filters):
    shapes = []
    for level in range(depth + 1):
        size -= 2
        shapes.append((size, filters * 2**level))
        size //= 2
    return shapes


# 03.6


def influence_by_polynomial(layers):
    return np.polynomial.polynomial.polypow([1, 1, 1], layers) / 3**layers


def influence_by_blurring(layers):
    lit = np.zeros(2 * layers + 1)
    lit[layers] = 1
    for _ in range(layers):
        lit = ndimage.convolve1d(lit, np.full(3, 1 / 3), mode="constant")
    return lit


def influence_of_a_box(layers):
    return np.ones(2 * layers + 1) / (2 * layers + 1)


def influence_as_paths(layers):
    return np.polynomial.polynomial.polypow([1, 1, 1], layers)


def influence_one_too_many(layers):
    seen = np.full(3, 1 / 3)
    for _ in range(layers):
        seen = np.convolve(seen, np.full(3, 1 / 3))
    return seen


def influence_same(layers):
    seen = np.ones(1)
    for _ in range(layers):
        seen = np.convolve(seen, np.full(3, 1 / 3), "same")
    return seen


RIGHT = {
    "03.1": [convolve_by_scipy, convolve_by_windows],
    "03.2": [pool_by_skimage, pool_by_maximum],
    "03.3": [parameters_of_keras, parameters_by_shape],
    "03.4": [field_backwards, field_as_a_sum],
    "03.5": [shapes_by_loop, shapes_as_array],
    "03.6": [influence_by_polynomial, influence_by_blurring],
}
WRONG = {
    "03.1": [
        (convolve_flipped, "Your kernel is flipped, as in mathematics"),
        (convolve_same, "You pad the picture with zeros and keep its size"),
        (convolve_without_the_last, "The last row and column are missing"),
        (convolve_mean, "You take the mean of the products"),
    ],
    "03.2": [
        (pool_mean, "You take the mean of each block"),
        (pool_every_second, "You keep every second pixel"),
        (pool_the_channels_too, "You take the largest over the channels, too"),
        (pool_with_stride_1, "Your blocks overlap"),
        (pool_from_zero, "Negative numbers become 0"),
        (pool_with_zeros, "A row or column that is left over is dropped"),
    ],
    "03.3": [
        (parameters_without_bias, "You forgot the bias"),
        (parameters_of_one_channel, "Each kernel goes through all channels in"),
        (parameters_kernel_once, "The kernel has k · k numbers, not k"),
        (parameters_one_bias, "There is one bias for each channel out, not a single one"),
        (parameters_always_bias, "You always add a bias"),
    ],
    "03.4": [
        (field_without_stride, "You forget the stride"),
        (field_stride_first, "A layer's own stride does not widen its own view"),
        (field_whole_kernels, "A layer adds k - 1 steps, not k"),
        (field_as_product, "The kernels do not multiply"),
        (field_from_zero, "You begin at 0"),
    ],
    "03.5": [
        (shapes_padded, "Your convolutions are padded and lose nothing"),
        (shapes_without_doubling, "The channels double from level to level"),
        (shapes_without_bottleneck, "The bottleneck is missing"),
        (shapes_after_pooling, "You give the sizes after the pooling"),
        (shapes_one_pixel_each, "Two unpadded convolutions take 4 pixels off a side"),
    ],
    "03.6": [
        (influence_of_a_box, "You give every pixel of the receptive field the same influence"),
        (influence_as_paths, "You count the paths"),
        (influence_one_too_many, "You apply a layer too many"),
        (influence_same, "np.convolve with mode='same' cuts the ends off"),
    ],
}

TestAnswers = class_of_tests("03", RIGHT, WRONG)


def test_the_shapes_are_those_of_the_live_unet():
    from course_lib.models.unet import unet

    for size, depth, filters in ((44, 2, 4), (188, 4, 2)):
        model = unet((size, size, 1), base_filters=filters, depth=depth, padding="valid")
        names = [f"encoder_{k}" for k in range(1, depth + 1)] + ["bottleneck"]
        live = [(shape[1], shape[3]) for shape in (model.get_layer(name).output.shape for name in names)]
        assert find("03.5").answer(size, depth, filters) == live
