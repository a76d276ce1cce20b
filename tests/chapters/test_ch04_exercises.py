"""Chapter 04's checks: right answers pass, and each wrong one that people give is refused with its own sentence."""

import numpy as np
from scipy import ndimage
from scipy.signal import upfirdn
from scipy.spatial import cKDTree
from study_answers import class_of_tests

from course_lib.datasets.targets import border_weights as library_border_weights
from course_lib.ops.tiles import overlap_tile
from course_lib.teaching.checker import find

# 04.1


def size_by_formula(size, kernel, stride):
    return stride * (size - 1) + kernel


def size_by_stamping(size, kernel, stride):
    return max(k * stride + j for k in range(size) for j in range(kernel)) + 1


def size_times_stride(size, kernel, stride):
    return size * stride


def size_with_a_stride_too_many(size, kernel, stride):
    return size * stride + kernel


def size_without_the_kernel(size, kernel, stride):
    return (size - 1) * stride + 1


def size_of_a_convolution(size, kernel, stride):
    return (size - kernel) // stride + 1


# 04.2


def transposed_by_zeros(x, kernel, stride):
    """Put zeros between the inputs and convolve."""
    spread = np.zeros((len(x) - 1) * stride + 1)
    spread[::stride] = x
    return np.convolve(spread, kernel)


def transposed_by_scipy(x, kernel, stride):
    return upfirdn(kernel, x, up=stride)


def transposed_overwriting(x, kernel, stride):
    out = np.zeros((len(x) - 1) * stride + len(kernel))
    for k, value in enumerate(x):
        out[k * stride : k * stride + len(kernel)] = value * kernel
    return out


def transposed_flipped(x, kernel, stride):
    return transposed_by_zeros(x, kernel[::-1], stride)


def transposed_one_apart(x, kernel, stride):
    out = np.zeros((len(x) - 1) * stride + len(kernel))
    for k, value in enumerate(x):
        out[k : k + len(kernel)] += value * kernel
    return out


def transposed_cut_off(x, kernel, stride):
    return np.append(transposed_by_zeros(x, kernel, stride), np.zeros(9))[: len(x) * stride]


# 04.3


def skip_by_index(skip, up):
    h, w = up.shape[:2]
    y, x = (skip.shape[0] - h) // 2, (skip.shape[1] - w) // 2
    return np.dstack([skip[y : y + h, x : x + w], up])


def skip_by_margins(skip, up):
    y, x = ((a - b) // 2 for a, b in zip(skip.shape[:2], up.shape[:2]))
    inner = skip[y : skip.shape[0] - y, x : skip.shape[1] - x]
    return np.concatenate((inner, up), axis=2)


def skip_corner(skip, up):
    return np.concatenate([skip[: up.shape[0], : up.shape[1]], up], axis=-1)


def skip_after_the_features(skip, up):
    return skip_by_index(skip, up)[..., np.r_[skip.shape[2] : skip.shape[2] + up.shape[2], : skip.shape[2]]]


def skip_resized(skip, up):
    h, w = up.shape[:2]
    rows, columns = np.arange(h) * skip.shape[0] // h, np.arange(w) * skip.shape[1] // w
    return np.concatenate([skip[np.ix_(rows, columns)], up], axis=-1)


def skip_added(skip, up):
    return skip_by_index(skip, up)[..., : skip.shape[2]] + up


def skip_minus_index(skip, up):
    """The slip with a margin of 0: [0:-0] is empty."""
    y, x = ((a - b) // 2 for a, b in zip(skip.shape[:2], up.shape[:2]))
    return np.concatenate([skip[y:-y, x:-x], up], axis=-1)


# 04.4


def weights_by_trees(instances, w0, sigma):
    """Distances from pixel to pixel, without a distance transform."""
    weights = np.ones(instances.shape)
    trees = [cKDTree(np.argwhere(instances == k)) for k in np.unique(instances) if k]
    if len(trees) < 2:
        return weights
    for place in np.argwhere(instances == 0):
        d1, d2 = sorted(tree.query(place)[0] for tree in trees)[:2]
        weights[tuple(place)] += w0 * np.exp(-((d1 + d2) ** 2) / (2 * sigma**2))
    return weights


def edt_sorted(instances):
    maps = [ndimage.distance_transform_edt(instances != k) for k in np.unique(instances) if k]
    return np.sort(maps, axis=0) if len(maps) > 1 else None


def weights_by_sorting(instances, w0, sigma, both=lambda a, b: a + b, inside=False, scale=2.0, power=2):
    maps = edt_sorted(instances)
    if maps is None:
        return np.ones(instances.shape)
    term = w0 * np.exp(-(both(maps[0], maps[1]) ** 2) / (scale * sigma**power))
    return 1 + (term if inside else np.where(instances == 0, term, 0))


def weights_of_the_nearest(instances, w0, sigma):
    return weights_by_sorting(instances, w0, sigma, both=lambda a, b: a)


def weights_of_squares(instances, w0, sigma):
    return weights_by_sorting(instances, w0, sigma, both=lambda a, b: np.sqrt(a**2 + b**2))


def weights_inside(instances, w0, sigma):
    return weights_by_sorting(instances, w0, sigma, inside=True)


def weights_without_the_2(instances, w0, sigma):
    return weights_by_sorting(instances, w0, sigma, scale=1.0)


def weights_sigma_not_squared(instances, w0, sigma):
    return weights_by_sorting(instances, w0, sigma, power=1)


def weights_of_a_single_cell(instances, w0, sigma):
    maps = np.sort(
        [ndimage.distance_transform_edt(instances != k) for k in np.unique(instances) if k], axis=0
    )
    return 1 + (instances == 0) * w0 * np.exp(-((maps[0] + maps[1]) ** 2) / (2 * sigma**2))


def weights_turned_round(instances, w0, sigma):
    maps = [ndimage.distance_transform_edt(instances == k) for k in np.unique(instances) if k]
    if len(maps) < 2:
        return np.ones(instances.shape)
    d1, d2 = np.sort(maps, axis=0)[:2]
    return 1 + (instances == 0) * w0 * np.exp(-((d1 + d2) ** 2) / (2 * sigma**2))


# 04.5


def tiles_of_the_course(net, image, tile, margin):
    def predict(windows):
        return np.stack([net(window[..., 0])[..., None] for window in windows])

    return overlap_tile(predict, image[..., None], (tile, tile), margin)[..., 0]


def tiles_by_padding(net, image, tile, margin, mode="reflect", keep=True):
    height, width = image.shape
    far = [-side % tile for side in (height, width)]
    padded = np.pad(image, [(margin, margin + more) for more in far], mode=mode)
    out = np.zeros([height + far[0], width + far[1]])
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            window = net(padded[top : top + tile + 2 * margin, left : left + tile + 2 * margin])
            out[top : top + tile, left : left + tile] = (
                window[margin : margin + tile, margin : margin + tile] if keep else window[:tile, :tile]
            )
    return out[:height, :width]


def tiles_without_margin(net, image, tile, margin):
    out = np.zeros_like(image)
    for top in range(0, len(image), tile):
        for left in range(0, image.shape[1], tile):
            out[top : top + tile, left : left + tile] = net(image[top : top + tile, left : left + tile])
    return out


def tiles_with_zeros(net, image, tile, margin):
    return tiles_by_padding(net, image, tile, margin, mode="constant")


def tiles_with_the_edge_twice(net, image, tile, margin):
    return tiles_by_padding(net, image, tile, margin, mode="symmetric")


def tiles_without_the_last(net, image, tile, margin):
    whole = [side // tile * tile for side in image.shape]
    out = np.zeros_like(image)
    out[: whole[0], : whole[1]] = tiles_by_padding(net, image, tile, margin)[: whole[0], : whole[1]]
    return out


def tiles_of_the_corner(net, image, tile, margin):
    return tiles_by_padding(net, image, tile, margin, keep=False)


def tiles_not_at_all(net, image, tile, margin):
    return net(image)


# 04.6


def margin_upwards(net, image, tile, tolerance):
    margin = 0
    while (
        np.abs(tiles_by_padding(net, image, tile, margin) - net(image))[tile:-tile, tile:-tile].max()
        > tolerance
    ):
        margin += 1
    return margin


def margin_downwards(net, image, tile, tolerance):
    whole = net(image)
    fits = [
        np.allclose(
            tiles_of_the_course(net, image, tile, m)[tile:-tile, tile:-tile],
            whole[tile:-tile, tile:-tile],
            rtol=0,
            atol=tolerance,
        )
        for m in range(tile)
    ]
    return fits.index(True)


def margin_as_receptive_field(net, image, tile, tolerance):
    return {0: 1}.get(m := margin_upwards(net, image, tile, tolerance), 2 * m + 1)


def margin_twice(net, image, tile, tolerance):
    return 2 * margin_upwards(net, image, tile, tolerance)


def margin_from_one(net, image, tile, tolerance):
    return max(margin_upwards(net, image, tile, tolerance), 1)


def margin_of_the_mean(net, image, tile, tolerance):
    margin = 0
    while (
        np.abs(tiles_by_padding(net, image, tile, margin) - net(image))[tile:-tile, tile:-tile].mean()
        > tolerance
    ):
        margin += 1
    return margin


def margin_one_more(net, image, tile, tolerance):
    margin, apart = -1, np.inf
    while apart > tolerance:
        margin += 1
        apart = np.abs(tiles_by_padding(net, image, tile, margin) - net(image))[tile:-tile, tile:-tile].max()
    return margin + 1


RIGHT = {
    "04.1": [size_by_formula, size_by_stamping],
    "04.2": [transposed_by_zeros, transposed_by_scipy],
    "04.3": [skip_by_index, skip_by_margins],
    "04.4": [weights_by_trees, weights_by_sorting],
    "04.5": [tiles_of_the_course, tiles_by_padding],
    "04.6": [margin_upwards, margin_downwards],
}
WRONG = {
    "04.1": [
        (size_times_stride, "That is size · stride"),
        (size_with_a_stride_too_many, "You put a stride before the first stamp"),
        (size_without_the_kernel, "You forgot that the last stamp is as wide as the kernel"),
        (size_of_a_convolution, "That is the size after an ordinary convolution"),
    ],
    "04.2": [
        (transposed_overwriting, "A later stamp overwrites an earlier one"),
        (transposed_flipped, "Your kernel is flipped"),
        (transposed_one_apart, "Your stamps lie one apart"),
        (transposed_cut_off, "You cut the output off at size · stride"),
    ],
    "04.3": [
        (skip_corner, "You take the upper left corner of the skip"),
        (skip_after_the_features, "The features come first in your answer"),
        (skip_resized, "You resize the skip"),
        (skip_added, "You add the skip; U-Net concatenates"),
        (
            skip_minus_index,
            "For a skip and features of one size your function stopped with an error, ValueError",
        ),
    ],
    "04.4": [
        (weights_of_the_nearest, "You take the nearest cell only"),
        (weights_of_squares, "You square the distances one by one"),
        (weights_inside, "Your term is added within the cells, too"),
        (weights_without_the_2, "The exponent lacks its 2"),
        (weights_sigma_not_squared, "σ is not squared"),
        (weights_turned_round, "distance_transform_edt measures the way to the nearest zero"),
        (weights_of_a_single_cell, "One cell has no neighbour and no gap"),
    ],
    "04.5": [
        (tiles_without_margin, "Your tiles get no margin"),
        (tiles_with_zeros, "Outside of the picture you put zeros"),
        (tiles_with_the_edge_twice, "Your mirror repeats the edge pixel"),
        (tiles_without_the_last, "The last tiles are missing"),
        (tiles_of_the_corner, "You keep the wrong part of the net's answer"),
        (tiles_not_at_all, "You give the net the whole picture at once"),
    ],
    "04.6": [
        (margin_as_receptive_field, "You give the whole receptive field"),
        (margin_twice, "You give twice the margin"),
        (margin_from_one, "You begin at a margin of 1"),
        (margin_of_the_mean, "You judge by the mean difference"),
        (margin_one_more, "Your margin is one too large"),
    ],
}

TestAnswers = class_of_tests("04", RIGHT, WRONG)


def test_the_border_weights_are_those_of_the_library():
    for case in find("04.4").cases():
        instances, w0, sigma = case.arguments
        wanted = library_border_weights(instances.astype(np.int32), w0, sigma, class_weights=(1, 1))
        # The library's term ends where it falls below a thousandth.
        np.testing.assert_allclose(find("04.4").answer(*case.arguments), wanted, atol=2e-3)


def test_sizes_and_stamps_are_those_of_keras():
    import keras

    for case in find("04.2").cases():
        x, kernel, stride = case.arguments
        layer = keras.layers.Conv1DTranspose(1, len(kernel), strides=stride, use_bias=False)
        layer.build((None, len(x), 1))
        layer.set_weights([kernel[:, None, None]])
        out = keras.ops.convert_to_numpy(layer(x[None, :, None].astype("float32")))[0, :, 0]
        wanted = find("04.2").answer(x, kernel, stride)
        np.testing.assert_allclose(out[: len(wanted)], wanted, rtol=1e-5)
        # Keras pads up to the stride where the kernel is narrower.
        assert len(out) == max(find("04.1").answer(len(x), len(kernel), stride), len(x) * stride)
        assert not out[len(wanted) :].any()


def test_the_cropped_skip_is_that_of_the_live_unet():
    from course_lib.models.unet import unet

    model = unet((44, 44, 1), base_filters=2, depth=2, padding="valid")
    for level in (1, 2):
        skip, up = (
            model.get_layer(name).output.shape[1] for name in (f"encoder_{level}", f"decoder_{level}_up")
        )
        cropped = model.get_layer(f"decoder_{level}_crop").output.shape[1]
        skip_map = np.arange(skip * skip, dtype=float).reshape(skip, skip, 1)
        ours = find("04.3").answer(skip_map, np.zeros((up, up, 1)))[..., 0]
        margin = model.get_layer(f"decoder_{level}_crop").cropping[0][0]
        assert cropped == up
        np.testing.assert_array_equal(ours, skip_map[margin:-margin, margin:-margin, 0])
