"""Exercises to chapter 04: transposed convolution, skips that line up, border weights, tiles, the margin of a tile."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from course_lib.ops.tiles import overlap_tile
from course_lib.teaching.exercise import Case, Exercise, Mistake, array, number

# 04.1


def upsampled_size(size, kernel, stride):
    return (size - 1) * stride + kernel


UPSAMPLED_SIZE = Exercise(
    "04.1",
    "upsampled_size",
    number("a number, the size of the output"),
    lambda: [
        Case(f"{size} inputs, a kernel of {kernel} and a stride of {stride}", (size, kernel, stride))
        for size, kernel, stride in ((10, 4, 2), (28, 2, 2), (5, 3, 1), (7, 3, 2), (1, 4, 3), (6, 2, 3))
    ],
    upsampled_size,
    (
        Mistake(
            "That is size · stride, right only where the kernel is as wide as the stride: a wider "
            "stamp reaches further.",
            lambda n, k, s: n * s,
        ),
        Mistake(
            "You put a stride before the first stamp: n stamps have n - 1 strides between them.",
            lambda n, k, s: n * s + k,
        ),
        Mistake(
            "You forgot that the last stamp is as wide as the kernel: add kernel, not nothing.",
            lambda n, k, s: (n - 1) * s,
        ),
        Mistake(
            "You forgot that the last stamp is as wide as the kernel: add kernel, not 1.",
            lambda n, k, s: (n - 1) * s + 1,
        ),
        Mistake(
            "That is the size after an ordinary convolution, which makes the map smaller; this one "
            "is transposed.",
            lambda n, k, s: (n - k) // s + 1,
        ),
    ),
    (
        "The first stamp begins at 0, the next one a stride later. Where does the last of n stamps begin?",
        "It begins at (size - 1) · stride and is as long as the kernel.",
    ),
)

# 04.2


def transposed_convolution(x, kernel, stride):
    return _stamped(x, kernel, stride)


def _stamped(x, kernel, stride, add=True, step=None, length=None):
    out = np.zeros((len(x) - 1) * stride + len(kernel) if length is None else length)
    for k, value in enumerate(x):
        at = slice(k * (step or stride), k * (step or stride) + len(kernel))
        room = len(out[at])
        out[at] = (out[at] if add else 0) + (value * np.asarray(kernel, float))[:room]
    return out


TRANSPOSED = Exercise(
    "04.2",
    "transposed_convolution",
    array("an array, one number per output position"),
    lambda: [
        Case("one input", (np.array([2.0]), np.array([1.0, 2.0, 3.0]), 2)),
        Case("stamps side by side", (np.array([1.0, 2.0, 3.0]), np.array([1.0, 10.0]), 2)),
        Case("stamps that overlap", (np.array([1.0, 2.0, 3.0]), np.array([1.0, 10.0, 100.0]), 2)),
        Case("a stride of 1", (np.array([1.0, 0.0, -1.0, 2.0]), np.array([1.0, 2.0, 4.0]), 1)),
        Case("a stride wider than the kernel", (np.array([1.0, 2.0]), np.array([1.0, 3.0]), 3)),
    ],
    transposed_convolution,
    (
        Mistake(
            "A later stamp overwrites an earlier one; where stamps overlap they add up (use +=).",
            lambda x, k, s: _stamped(x, k, s, add=False),
        ),
        Mistake(
            "Your kernel is flipped: each input stamps the kernel as it is.",
            lambda x, k, s: _stamped(x, k[::-1], s),
        ),
        Mistake(
            "Your stamps lie one apart; stamp number k begins at k · stride.",
            lambda x, k, s: _stamped(x, k, s, step=1),
        ),
        Mistake(
            "You cut the output off at size · stride; the last stamp reaches to (size - 1) · stride + kernel.",
            lambda x, k, s: _stamped(x, k, s, length=len(x) * s),
        ),
        Mistake(
            "You put a 1 for each input: a stamp is the kernel times the input's value.",
            lambda x, k, s: _stamped(np.ones_like(x), k, s),
        ),
    ),
    (
        "Begin with zeros of length (len(x) - 1) · stride + len(kernel).",
        "Input number k adds x[k] · kernel to the positions k · stride and the following.",
    ),
)

# 04.3


def crop_and_concatenate(skip, up):
    return np.concatenate([_middle(skip, up), up], axis=-1)


def _middle(skip, up):
    top, left = ((skip.shape[k] - up.shape[k]) // 2 for k in (0, 1))
    return skip[top : top + up.shape[0], left : left + up.shape[1]]


def _resized(skip, up):
    rows, columns = (np.arange(up.shape[k]) * skip.shape[k] // up.shape[k] for k in (0, 1))
    return skip[rows][:, columns]


def _skip_cases():
    rng = np.random.default_rng(0)
    for skip, up, words in (
        ((8, 8, 2), (4, 4, 3), "a skip of 8 × 8 and features of 4 × 4"),
        ((5, 5, 1), (5, 5, 1), "a skip and features of one size"),
        ((10, 14, 3), (6, 8, 2), "a skip of 10 × 14 and features of 6 × 8"),
        ((7, 9, 2), (5, 3, 2), "a skip of 7 × 9 and features of 5 × 3"),
    ):
        yield Case(words, (rng.normal(size=skip), rng.normal(size=up)))


CROP_AND_CONCATENATE = Exercise(
    "04.3",
    "crop_and_concatenate",
    array("an array of the size of up, with the channels of both"),
    lambda: list(_skip_cases()),
    crop_and_concatenate,
    (
        Mistake(
            "You take the upper left corner of the skip; unpadded convolutions lose pixels on all "
            "sides, so take the middle.",
            lambda skip, up: np.concatenate([skip[: up.shape[0], : up.shape[1]], up], axis=-1),
        ),
        Mistake(
            "You resize the skip: its details then lie pixels away from where they belong. Cut out "
            "its middle instead.",
            lambda skip, up: np.concatenate([_resized(skip, up), up], axis=-1),
        ),
        Mistake(
            "The features come first in your answer; here the skip's channels come first (weights "
            "trained in one order are "
            "wrong in the other).",
            lambda skip, up: np.concatenate([up, _middle(skip, up)], axis=-1),
        ),
        Mistake(
            "You put them below each other; the channels are the last axis, axis=-1.",
            lambda skip, up: np.concatenate([_middle(skip, up), up], axis=0),
        ),
        Mistake(
            "You add the skip; U-Net concatenates: the channels stand side by side and the next "
            "convolution chooses.",
            lambda skip, up: _middle(skip, up) + up,
        ),
        Mistake(
            "You pad the small features with zeros; cut the skip instead, or the borders learn from "
            "numbers that are not there.",
            lambda skip, up: np.concatenate(
                [
                    skip,
                    np.pad(
                        up,
                        [((a - b) // 2,) * 2 for a, b in zip(skip.shape[:2], up.shape[:2], strict=True)]
                        + [(0, 0)],
                    ),
                ],
                axis=-1,
            ),
        ),
    ),
    (
        "How many rows has the skip more than up? Half of them go at the top.",
        "top = (skip.shape[0] - up.shape[0]) // 2, and then up.shape[0] rows from there. The same for columns.",
        "np.concatenate([cropped, up], axis=-1).",
    ),
)

# 04.4


def border_weights(instances, w0, sigma):
    return _weights(instances, w0, sigma)


def _weights(instances, w0, sigma, both=np.add, width=lambda s: 2 * s**2, inside=False, base=1.0, of="cells"):
    cells = [instances == k for k in np.unique(instances[instances != 0])]
    distances = [ndimage.distance_transform_edt(cell if of == "inside" else ~cell) for cell in cells]
    if len(distances) < 2:
        return np.ones(instances.shape)
    first, second = np.sort(distances, axis=0)[:2]
    term = w0 * np.exp(-(both(first, second) ** 2) / width(sigma))
    return base + (term if inside else term * (instances == 0))


def _border_cases():
    two = np.zeros((9, 14), int)
    two[2:7, 1:5], two[2:7, 7:12] = 1, 2
    yield Case("two cells with a gap of two pixels", (two, 10.0, 5.0))
    yield Case("the same with sigma 2", (two, 10.0, 2.0))
    yield Case("the same with w0 3 and other ids", (np.array([0, 4, 9])[two], 3.0, 5.0))
    three = two.copy()
    three[8, 3:6] = 5
    yield Case("three cells", (three, 10.0, 3.0))
    touching = np.zeros((6, 8), int)
    touching[1:5, 1:4], touching[1:5, 4:7] = 1, 2
    yield Case("two cells that touch", (touching, 10.0, 5.0))
    one = "One cell has no neighbour and no gap: all weights are 1."
    yield Case("a single cell", (np.where(two == 1, 1, 0), 10.0, 5.0), one)


BORDER_WEIGHTS = Exercise(
    "04.4",
    "border_weights",
    array("an array of the map's shape, the weight of each pixel", 1e-4),
    lambda: list(_border_cases()),
    border_weights,
    (
        Mistake(
            "You take the nearest cell only; the gap is measured to the two nearest ones, d1 + d2.",
            lambda m, w0, s: _weights(m, w0, s, both=lambda a, b: a),
        ),
        Mistake(
            "You take the nearest cell twice; d2 is the distance to the second nearest one.",
            lambda m, w0, s: _weights(m, w0, s, both=lambda a, b: 2 * a),
        ),
        Mistake(
            "You square the distances one by one; the sum d1 + d2 is squared.",
            lambda m, w0, s: _weights(m, w0, s, both=np.hypot),
        ),
        Mistake(
            "The exponent lacks its 2: (d1 + d2)² is divided by 2 σ².",
            lambda m, w0, s: _weights(m, w0, s, width=lambda sigma: sigma**2),
        ),
        Mistake(
            "σ is not squared: (d1 + d2)² is divided by 2 σ².",
            lambda m, w0, s: _weights(m, w0, s, width=lambda sigma: 2 * sigma),
        ),
        Mistake(
            "Your term is added within the cells, too; it belongs to the background, where the gap is.",
            lambda m, w0, s: _weights(m, w0, s, inside=True),
        ),
        Mistake(
            "The weight begins at 1: away from all gaps a pixel counts as any other.",
            lambda m, w0, s: _weights(m, w0, s, base=0.0),
        ),
        Mistake(
            "distance_transform_edt measures the way to the nearest zero: of instances == k it is 0 "
            "everywhere outside of the "
            "cell. Give it instances != k.",
            lambda m, w0, s: _weights(m, w0, s, of="inside"),
        ),
    ),
    (
        "ndimage.distance_transform_edt(instances != k) is each pixel's distance to cell k.",
        "Stack these maps and sort them along the first axis: the first two are d1 and d2.",
        "1 + (instances == 0) · w0 · exp(-(d1 + d2)² / (2 σ²)); and 1 everywhere where there are "
        "fewer than two cells.",
    ),
)

# 04.5


def by_tiles(net, image, tile, margin):
    def predict(windows):
        return np.stack([net(window[..., 0]) for window in windows])[..., None]

    return overlap_tile(predict, image[..., None], (tile, tile), margin)[..., 0]


def _tiled(net, image, tile, margin, mode="reflect", own_margin=None, starts=None):
    use = margin if own_margin is None else own_margin
    height, width = image.shape
    padded = np.pad(image, ((use, use + tile), (use, use + tile)), mode=mode)
    out = np.zeros(image.shape)
    for top in starts(height, tile) if starts else range(0, height, tile):
        for left in starts(width, tile) if starts else range(0, width, tile):
            found = net(padded[top : top + tile + 2 * use, left : left + tile + 2 * use])
            part = found[use : use + tile, use : use + tile]
            place = out[top : top + tile, left : left + tile]
            place[...] = part[: place.shape[0], : place.shape[1]]
    return out


def _corner(net, image, tile, margin):
    """The margin is given to the net, but the wrong part of its answer is kept: its upper left corner."""
    padded = np.pad(image, ((margin, margin + tile),) * 2, mode="reflect")
    out = np.zeros(image.shape)
    for top in range(0, image.shape[0], tile):
        for left in range(0, image.shape[1], tile):
            part = net(padded[top : top + tile + 2 * margin, left : left + tile + 2 * margin])[:tile, :tile]
            place = out[top : top + tile, left : left + tile]
            place[...] = part[: place.shape[0], : place.shape[1]]
    return out


def blur(picture):
    """A stand-in for a net: sees one pixel to each side, zeros outside, and answers in the same size."""
    return ndimage.uniform_filter(picture, 3, mode="constant")


def deep_blur(picture):
    for _ in range(3):
        picture = ndimage.uniform_filter(picture, 3, mode="constant")
    return picture


def _tile_cases():
    rng = np.random.default_rng(2)
    yield Case("a picture of 8 × 8 in tiles of 4", (blur, rng.random((8, 8)), 4, 1))
    yield Case("a picture of 12 × 6 in tiles of 6, margin 3", (deep_blur, rng.random((12, 6)), 6, 3))
    yield Case("a picture of 10 × 7, which tiles of 4 do not divide", (blur, rng.random((10, 7)), 4, 2))
    yield Case("a picture of 9 × 9 in one tile", (deep_blur, rng.random((9, 9)), 9, 3))


BY_TILES = Exercise(
    "04.5",
    "by_tiles",
    array("an array of the image's shape"),
    lambda: list(_tile_cases()),
    by_tiles,
    (
        Mistake(
            "Your tiles get no margin: where they meet, the net saw zeros instead of the neighbours. "
            "Give it the tile with "
            "margin pixels around it.",
            lambda net, image, tile, margin: _tiled(net, image, tile, margin, own_margin=0, mode="constant"),
        ),
        Mistake(
            "Outside of the picture you put zeros; mirror it there (np.pad with mode='reflect').",
            lambda net, image, tile, margin: _tiled(net, image, tile, margin, mode="constant"),
        ),
        Mistake(
            "Outside of the picture you repeat the edge pixel; mirror the picture there (np.pad with "
            "mode='reflect').",
            lambda net, image, tile, margin: _tiled(net, image, tile, margin, mode="edge"),
        ),
        Mistake(
            "Your mirror repeats the edge pixel (mode='symmetric'); mode='reflect' does not.",
            lambda net, image, tile, margin: _tiled(net, image, tile, margin, mode="symmetric"),
        ),
        Mistake(
            "The last tiles are missing where the tile does not divide the picture; they may reach "
            "beyond its edge.",
            lambda net, image, tile, margin: _tiled(
                net, image, tile, margin, starts=lambda n, t: range(0, n - t + 1, t)
            ),
        ),
        Mistake(
            "You keep the wrong part of the net's answer: cut margin pixels off on every side, so "
            "that only the tile is left.",
            _corner,
        ),
        Mistake(
            "You give the net the whole picture at once; the point is that it does not fit. At the "
            "edges, moreover, it saw "
            "zeros and not the mirrored picture.",
            lambda net, image, tile, margin: net(image),
        ),
    ),
    (
        "Pad the whole picture first: np.pad(image, margin, mode='reflect'). Where is the tile at "
        "(top, left) in it?",
        "The window is padded[top : top + tile + 2 · margin, …]; of the net's answer to it keep "
        "[margin : margin + tile, …].",
        "Pad a whole tile more on the far sides, so that the last tiles have something to read; cut "
        "the result to the picture.",
    ),
)

# 04.6


def smallest_margin(net, image, tile, tolerance):
    return _margin(net, image, tile, tolerance)


def _margin(net, image, tile, tolerance, inside=True, first=0, enough=None, step=1):
    whole, reach = net(image), tile
    area = np.s_[reach:-reach, reach:-reach] if inside else np.s_[:, :]
    for margin in range(first, tile + 1, step):
        apart = np.abs(by_tiles(net, image, tile, margin) - whole)[area]
        if (enough or np.max)(apart) <= tolerance:
            return margin
    return None


def _picture(seed=5, size=32):
    return np.random.default_rng(seed).random((size, size))


SMALLEST_MARGIN = Exercise(
    "04.6",
    "smallest_margin",
    number("a number, the margin in pixels"),
    lambda: [
        Case("a net that sees one pixel to each side", (blur, _picture(), 8, 1e-9)),
        Case("a net that sees three pixels to each side", (deep_blur, _picture(), 8, 1e-9)),
        Case("a net that looks at single pixels", (np.sqrt, _picture(), 8, 1e-9)),
        Case("a net that sees three pixels to each side, and a tolerance", (deep_blur, _picture(6), 8, 0.15)),
    ],
    smallest_margin,
    (
        Mistake(
            "You give the whole receptive field; to each side the net sees half of it.",
            lambda net, image, tile, tolerance: {0: 1}.get(
                m := _margin(net, image, tile, tolerance), 2 * m + 1
            ),
        ),
        Mistake(
            "You give twice the margin; the margin is on each side.",
            lambda *arguments: 2 * _margin(*arguments),
        ),
        Mistake(
            "You begin at a margin of 1; a net that looks at single pixels needs none.",
            lambda *arguments: _margin(*arguments, first=1),
        ),
        Mistake(
            "Your margin is one too large: the first margin whose difference is within the tolerance "
            "is enough.",
            lambda *arguments: _margin(*arguments) + 1,
        ),
        Mistake(
            "Your margin is one too small: you return the last one that is not enough.",
            lambda *arguments: _margin(*arguments) - 1,
        ),
        Mistake(
            "You judge by the mean difference, which hides the seams; take the largest one.",
            lambda *arguments: _margin(*arguments, enough=np.mean),
        ),
        Mistake(
            "You stop with a margin that depends on no tolerance: with 0.15 allowed, less is enough.",
            lambda net, image, tile, tolerance: _margin(net, image, tile, 1e-9),
        ),
    ),
    (
        "Compare by_tiles with net(image), for margins of 0, 1, 2, …",
        "At the edge of the picture the two differ for another reason, zeros against a mirror: leave "
        "tile pixels out on each side.",
        "Return the first margin whose largest difference is at most the tolerance.",
    ),
)

EXERCISES = (UPSAMPLED_SIZE, TRANSPOSED, CROP_AND_CONCATENATE, BORDER_WEIGHTS, BY_TILES, SMALLEST_MARGIN)
