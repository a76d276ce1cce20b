"""Exercises of chapter 04: transposed convolution, aligned skips, border weights, tiles, an up-block, augmentation."""

from functools import partial

import numpy as np
from scipy import ndimage

from course_lib.teaching.exercise import Case, Exercise, Form, array, measured, number, relus

# 04.1

UPSAMPLED_SIZE = Exercise(
    number="04.1",
    name="upsampled_size",
    form=number("a number, the size of the output"),
    answer=lambda n, k, s: (n - 1) * s + k,
    cases=[
        Case(f"{size} inputs, a kernel of {kernel} and a stride of {stride}", size, kernel, stride)
        for size, kernel, stride in ((10, 4, 2), (28, 2, 2), (5, 3, 1), (7, 3, 2), (1, 4, 3), (6, 2, 3))
    ],
    mistakes={
        "That is size · stride, which is correct only if the kernel is as wide as the stride: a wider "
        "stamp reaches further.": (lambda n, k, s: n * s),
        "You put a stride before the first stamp: n stamps have n - 1 strides between them.": lambda n, k, s: (
            n * s + k
        ),
        "You forgot that the last stamp is as wide as the kernel: add the kernel size.": lambda n, k, s: (
            (n - 1) * s
        ),
        "You forgot that the last stamp is as wide as the kernel: add the kernel size, not 1.": lambda n, k, s: (
            (n - 1) * s + 1
        ),
        "That is the size after an ordinary convolution, which makes the feature map smaller; this one is transposed.": (
            lambda n, k, s: (n - k) // s + 1
        ),
        "That is Keras's size, which is never below size · stride; here nothing is added after the last "
        "stamp.": (lambda n, k, s: n * s + max(k - s, 0)),
    },
    hints=[
        "The first stamp begins at 0, the next one a stride later. Where does the last of n stamps begin?",
        "It begins at (size - 1) · stride and is as long as the kernel.",
    ],
)

# 04.2


def transposed_convolution(x, kernel, stride, add=True, step=None, length=None):
    length = (len(x) - 1) * stride + len(kernel) if length is None else length
    out = np.zeros(length + len(kernel))  # a stamp may reach beyond a length that is too short
    for k, value in enumerate(x):
        at = slice(k * (step or stride), k * (step or stride) + len(kernel))
        out[at] = (out[at] if add else 0) + value * kernel
    return out[:length]


TRANSPOSED = Exercise(
    number="04.2",
    name="transposed_convolution",
    form=array("an array, one number per output location"),
    answer=transposed_convolution,
    cases=[
        Case("one input", [2.0], [1.0, 2.0, 3.0], 2),
        Case("stamps side by side", [1.0, 2.0, 3.0], [1.0, 10.0], 2),
        Case("stamps that overlap", [1.0, 2.0, 3.0], [1.0, 10.0, 100.0], 2),
        Case("a stride of 1", [1.0, 0.0, -1.0, 2.0], [1.0, 2.0, 4.0], 1),
        Case("a stride larger than the kernel", [1.0, 2.0], [1.0, 3.0], 3),
    ],
    mistakes={
        "A later stamp overwrites an earlier one; where stamps overlap they add up (use +=).": partial(
            transposed_convolution, add=False
        ),
        "Your kernel is flipped: each input stamps the kernel as it is.": lambda x, k, s: (
            transposed_convolution(x, k[::-1], s)
        ),
        "Your stamps lie one pixel apart; stamp number k begins at k · stride.": partial(
            transposed_convolution, step=1
        ),
        "You cut the output off at size · stride; the last stamp reaches to (size - 1) · stride + kernel.": (
            lambda x, k, s: transposed_convolution(x, k, s, length=min(len(x) * s, (len(x) - 1) * s + len(k)))
        ),
        "Your output is size · stride long, whatever the kernel; the last stamp ends at (size - 1) · stride + kernel.": (
            lambda x, k, s: transposed_convolution(x, k, s, length=len(x) * s)
        ),
        "Your output continues beyond the last stamp, as Keras's does for a stride larger than the "
        "kernel; it ends at (size - 1) · stride + kernel.": lambda x, k, s: np.pad(
            transposed_convolution(x, k, s), (0, max(s - len(k), 0))
        ),
        "You add the plain kernel for each input; a stamp is the kernel times the input's value.": lambda x, k, s: (
            transposed_convolution(np.ones_like(x), k, s)
        ),
    },
    hints=[
        "Begin with zeros of length (len(x) - 1) · stride + len(kernel).",
        "Input number k adds x[k] · kernel to the locations from k · stride on.",
    ],
)

# 04.3


def _middle(skip, up):
    top, left = ((skip.shape[k] - up.shape[k]) // 2 for k in (0, 1))
    return skip[top : top + up.shape[0], left : left + up.shape[1]]


def _resized(skip, up):
    rows, columns = (np.arange(up.shape[k]) * skip.shape[k] // up.shape[k] for k in (0, 1))
    return skip[rows][:, columns]


def crop_and_concatenate(skip, up, crop=_middle, join=lambda a, b: np.concatenate([a, b], axis=-1)):
    return join(crop(skip, up), up)


def _padded_up(skip, up):
    frame = [((skip.shape[k] - up.shape[k]) // 2,) * 2 for k in (0, 1)]
    return np.concatenate([skip, np.pad(up, [*frame, (0, 0)])], axis=-1)


def _features(skip, up, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=skip), rng.normal(size=up)


CROP_AND_CONCATENATE = Exercise(
    number="04.3",
    name="crop_and_concatenate",
    form=array("an array of the size of up, with the channels of both"),
    answer=crop_and_concatenate,
    cases=[
        Case("a skip of 8 × 8 and features of 4 × 4", *_features((8, 8, 2), (4, 4, 3))),
        Case(
            "a skip and features of one size",
            *_features((5, 5, 1), (5, 5, 1)),
            note="A slice such as [0:-0] is empty: count from the front, top : top + height.",
        ),
        Case("a skip of 10 × 14 and features of 6 × 8", *_features((10, 14, 3), (6, 8, 2))),
        Case("a skip of 7 × 9 and features of 5 × 3", *_features((7, 9, 2), (5, 3, 2))),
    ],
    mistakes={
        "You crop the upper left corner of the skip; unpadded convolutions lose pixels on all sides, so "
        "crop the middle.": (
            partial(crop_and_concatenate, crop=lambda skip, up: skip[: up.shape[0], : up.shape[1]])
        ),
        "You resize the skip, so its details lie pixels away from where they belong. Crop its middle "
        "instead.": partial(crop_and_concatenate, crop=_resized),
        "In your result the features come first; here the skip's channels do (weights trained in one "
        "order do not fit the other).": (
            partial(crop_and_concatenate, join=lambda a, b: np.concatenate([b, a], axis=-1))
        ),
        "You stack them vertically; the channels are the last axis, axis=-1.": partial(
            crop_and_concatenate, join=lambda a, b: np.concatenate([a, b], axis=0)
        ),
        "You add the skip; U-Net concatenates: the channels stand side by side, and the next convolution "
        "learns what to use.": partial(crop_and_concatenate, join=np.add),
        "You pad the small features with zeros; crop the skip instead, or the network learns from made-up "
        "values at the borders.": _padded_up,
    },
    hints=[
        "How many more rows does the skip have than up? Half of them are removed at the top.",
        "top = (skip.shape[0] - up.shape[0]) // 2, and then up.shape[0] rows from there. The same for columns.",
        "np.concatenate([cropped, up], axis=-1).",
    ],
)

# 04.4


def border_weights(
    instances, w0, sigma, both=np.add, width=lambda s: 2 * s**2, inside=False, base=1.0, turned=False
):
    cells = [instances == k for k in np.unique(instances[instances != 0])]
    if len(cells) < 2:
        return np.ones(instances.shape)
    distances = [ndimage.distance_transform_edt(cell if turned else ~cell) for cell in cells]
    first, second = np.sort(distances, axis=0)[:2]
    term = w0 * np.exp(-(both(first, second) ** 2) / width(sigma))
    return base + (term if inside else term * (instances == 0))


_TWO = np.zeros((9, 14), int)
_TWO[2:7, 1:5], _TWO[2:7, 7:12] = 1, 2
_THREE = _TWO.copy()
_THREE[8, 3:6] = 5
_TOUCHING = np.zeros((6, 8), int)
_TOUCHING[1:5, 1:4], _TOUCHING[1:5, 4:7] = 1, 2

BORDER_WEIGHTS = Exercise(
    number="04.4",
    name="border_weights",
    form=array("an array of the map's shape with the weight of each pixel", 1e-4),
    answer=border_weights,
    cases=[
        Case("two cells with a gap of two pixels", _TWO, 10.0, 5.0),
        Case("the same with sigma 2", _TWO, 10.0, 2.0),
        Case("the same with w0 3 and different ids", np.array([0, 4, 9])[_TWO], 3.0, 5.0),
        Case("three cells", _THREE, 10.0, 3.0),
        Case("two cells that touch", _TOUCHING, 10.0, 5.0),
        Case(
            "a single cell",
            np.where(_TWO == 1, 1, 0),
            10.0,
            5.0,
            note="One cell has no neighbour and no gap: all weights are 1.",
        ),
    ],
    mistakes={
        "You use the nearest cell only; the gap is measured to the two nearest ones, d1 + d2.": partial(
            border_weights, both=lambda a, b: a
        ),
        "You use the nearest cell twice; d2 is the distance to the second nearest one.": partial(
            border_weights, both=lambda a, b: 2 * a
        ),
        "You square the distances separately; square their sum d1 + d2.": partial(
            border_weights, both=np.hypot
        ),
        "The exponent lacks its 2: (d1 + d2)² is divided by 2 σ².": partial(
            border_weights, width=lambda s: s**2
        ),
        "σ is not squared: (d1 + d2)² is divided by 2 σ².": partial(border_weights, width=lambda s: 2 * s),
        "Your term is added inside the cells, too; it belongs to the background, where the gap is.": partial(
            border_weights, inside=True
        ),
        "The smallest weight is 1: far from all gaps, a pixel counts like any other.": partial(
            border_weights, base=0.0
        ),
        "distance_transform_edt measures the distance to the nearest zero: of instances == k it is 0 everywhere outside "
        "the cell. Give it instances != k.": partial(border_weights, turned=True),
    },
    hints=[
        "ndimage.distance_transform_edt(instances != k) is each pixel's distance to cell k.",
        "Stack these maps and sort them along the first axis: the first two are d1 and d2.",
        "1 + (instances == 0) · w0 · exp(-(d1 + d2)² / (2 σ²)); and 1 everywhere if there are fewer than two cells.",
    ],
)

# 04.5


def by_tiles(model, image, tile, margin, mode="reflect", keep=None, starts=lambda n, tile: range(0, n, tile)):
    """`keep` is where the kept part of a window's prediction begins; by default behind the margin."""
    height, width = image.shape
    padded = np.pad(image, (margin, margin + tile), mode=mode)
    out, first = np.zeros((height + tile, width + tile)), margin if keep is None else keep
    for top in starts(height, tile):
        for left in starts(width, tile):
            window = model(padded[top : top + tile + 2 * margin, left : left + tile + 2 * margin])
            out[top : top + tile, left : left + tile] = window[first : first + tile, first : first + tile]
    return out[:height, :width]


def blur(image, times=1):
    """A stand-in for a network: sees a pixel to each side each time, zeros outside; its output has the image's size."""
    for _ in range(times):
        image = ndimage.uniform_filter(image, 3, mode="constant")
    return image


_blur_3 = partial(blur, times=3)
_random = np.random.default_rng(2).random

BY_TILES = Exercise(
    number="04.5",
    name="by_tiles",
    form=array("an array of the image's shape"),
    answer=by_tiles,
    cases=[
        Case("an image of 8 × 8 in tiles of 4", blur, _random((8, 8)), 4, 1),
        Case("an image of 12 × 6 in tiles of 6, margin 3", _blur_3, _random((12, 6)), 6, 3),
        Case("an image of 10 × 7, whose sides are not multiples of 4", blur, _random((10, 7)), 4, 2),
        Case("an image of 9 × 9 in one tile", _blur_3, _random((9, 9)), 9, 3),
    ],
    mistakes={
        "Your tiles get no margin: where they meet, the model saw zeros instead of the neighbours. Give it the tile with "
        "margin pixels around it.": (
            lambda model, image, tile, margin: by_tiles(model, image, tile, 0, mode="constant"),
            lambda model, image, tile, margin: by_tiles(model, image, tile, 0),
        ),
        "Outside the image you put zeros; mirror the image there (np.pad with mode='reflect').": partial(
            by_tiles, mode="constant"
        ),
        "Outside the image you repeat the edge pixel; mirror the image there (np.pad with mode='reflect').": partial(
            by_tiles, mode="edge"
        ),
        "Your mirror repeats the edge pixel (mode='symmetric'); mode='reflect' does not.": partial(
            by_tiles, mode="symmetric"
        ),
        "The last tiles are missing if the tile size does not divide the image size; they may reach "
        "beyond the image's edge.": partial(by_tiles, starts=lambda n, tile: range(0, n - tile + 1, tile)),
        "You keep the wrong part of the prediction: cut margin pixels off on every side, so that only the tile is left.": (
            partial(by_tiles, keep=0)
        ),
        "You give the model the whole image at once; here we assume that it does not fit into memory. "
        "Besides, at the edges the model saw zeros instead of the mirrored image.": lambda model, image, tile, margin: (
            model(image)
        ),
    },
    hints=[
        "Pad the whole image first: np.pad(image, margin, mode='reflect'). Where is the tile at (top, left) in it?",
        "The window is padded[top : top + tile + 2 · margin, …]; of the model's prediction for it keep "
        "[margin : margin + tile, …].",
        "Pad one more tile on the right and at the bottom, so that the last tiles are complete; crop the "
        "result to the image.",
    ],
)

# 04.6


def smallest_margin(model, image, tile, tolerance, first=0, enough=np.max):
    whole, inside = model(image), np.s_[tile:-tile, tile:-tile]
    for margin in range(first, tile + 1):
        if enough(np.abs(by_tiles(model, image, tile, margin) - whole)[inside]) <= tolerance:
            return margin
    return None


def _image(seed=5):
    return np.random.default_rng(seed).random((32, 32))


SMALLEST_MARGIN = Exercise(
    number="04.6",
    name="smallest_margin",
    form=number("a number, the margin in pixels"),
    answer=smallest_margin,
    cases=[
        Case("a model that sees one pixel to each side", blur, _image(), 8, 1e-9),
        Case("a model that sees three pixels to each side", _blur_3, _image(), 8, 1e-9),
        Case("a model that looks at single pixels", np.sqrt, _image(), 8, 1e-9),
        Case("a model that sees three pixels to each side, and a tolerance", _blur_3, _image(6), 8, 0.15),
    ],
    mistakes={
        "You return the whole receptive field; to each side the model sees half of it.": lambda *given: (
            2 * smallest_margin(*given) + 1
        ),
        "You return twice the margin; the margin is the width on one side.": lambda *given: (
            2 * smallest_margin(*given)
        ),
        "You begin at a margin of 1; a model that looks at single pixels needs none.": partial(
            smallest_margin, first=1
        ),
        "Your margin is one too large: the first margin whose difference is within the tolerance is enough.": (
            lambda *given: smallest_margin(*given) + 1
        ),
        "Your margin is one too small: you return the last one that is not enough.": lambda *given: (
            smallest_margin(*given) - 1
        ),
        "You use the mean difference, which hides the seams; take the largest difference.": partial(
            smallest_margin, enough=np.mean
        ),
        "Your margin does not depend on the tolerance: with 0.15 allowed, less is enough.": (
            lambda model, image, tile, tolerance: smallest_margin(model, image, tile, 1e-9)
        ),
    },
    hints=[
        "Compare by_tiles with model(image), for margins of 0, 1, 2, …",
        "At the edge of the image the two differ for another reason, zero padding against mirroring: "
        "leave out `tile` pixels on each side.",
        "Return the first margin whose largest difference is at most the tolerance.",
    ],
)

# 04.7, with Keras


def up_block(
    x,
    skip,
    filters,
    up=lambda layers, filters: layers.Conv2DTranspose(filters, 2, strides=2),
    join=lambda layers, a, b: layers.Concatenate()([a, b]),
    convolutions=2,
    activation="relu",
    padding="same",
):
    from keras import layers

    x = join(layers, skip, up(layers, filters)(x)) if skip is not None else up(layers, filters)(x)
    for _ in range(convolutions):
        x = layers.Conv2D(filters, 3, padding=padding, activation=activation)(x)
    return x


def _block_behaviour(block, size, channels, filters):
    """Shape, parameters, how many layers have a ReLU, and how many inputs and weights change it."""
    import keras

    keras.utils.set_random_seed(0)
    inputs = [keras.Input((size, size, channels)), keras.Input((2 * size, 2 * size, filters))]
    out = block(*inputs, filters)
    if out is None or out is ...:
        return None
    model, rng = keras.Model(inputs, out), np.random.default_rng(0)
    given = [rng.normal(size=(1, *one.shape[1:])).astype("float32") for one in inputs]

    def predicted(arrays):
        return keras.ops.convert_to_numpy(model(arrays))

    before, live = predicted(given), 0
    for k in (0, 1):
        live += not np.allclose(predicted([one + (j == k) for j, one in enumerate(given)]), before)
    for weight in model.trainable_variables:
        value = keras.ops.convert_to_numpy(weight)
        weight.assign(value + 0.5)
        live += not np.allclose(predicted(given), before)
        weight.assign(value)
    return [*before.shape[1:], model.count_params(), relus(model, [np.abs(given[0]), 0 * given[1]]), live]


UP_BLOCK = Exercise(
    number="04.7",
    name="up_block",
    form=measured(
        "a Keras tensor",
        *("height", "width", "channels", "parameters", "layers with a ReLU", "inputs and weights that count"),
    ),
    answer=up_block,
    measure=_block_behaviour,
    live=True,
    seconds=40.0,
    cases=[
        Case("features of 4 × 4 × 8 and a skip of 8 × 8 × 4", 4, 8, 4),
        Case("features of 3 × 3 × 6 and a skip of 6 × 6 × 3", 3, 6, 3),
    ],
    mistakes={
        "You add the skip; U-Net concatenates, so that the first convolution sees the channels of both.": partial(
            up_block, join=lambda layers, a, b: layers.Add()([a, b])
        ),
        "The skip is not used: concatenate it with the upsampled features.": (
            partial(up_block, join=lambda layers, a, b: b),
            lambda x, skip, filters: up_block(x, None, filters),
        ),
        "Only one convolution follows the concatenation; there are two.": partial(up_block, convolutions=1),
        "Your convolutions have no ReLU.": partial(up_block, activation=None),
        "Your convolutions lose a frame of one pixel each; padding='same' keeps the size.": partial(
            up_block, padding="valid"
        ),
        "Your upsampling has no weights; use a transposed convolution, which has weights.": partial(
            up_block, up=lambda layers, filters: layers.UpSampling2D(2)
        ),
        "Your transposed convolution has a different kernel; here it is 2 × 2 with stride 2.": partial(
            up_block, up=lambda layers, filters: layers.Conv2DTranspose(filters, 3, strides=2, padding="same")
        ),
        "Your transposed convolution keeps the number of channels; it has to halve it, to filters.": partial(
            up_block, up=lambda layers, filters: layers.Conv2DTranspose(2 * filters, 2, strides=2)
        ),
    },
    hints=[
        "keras.layers.Conv2DTranspose(filters, 2, strides=2)(x) doubles the size.",
        "keras.layers.Concatenate()([skip, x]), then two Conv2D(filters, 3, padding='same', activation='relu').",
    ],
)

# 04.8, a pipeline


def augment(
    image,
    labels,
    rng,
    turn=lambda array, flip, quarters: np.rot90(array[:, ::-1] if flip else array, quarters),
):
    flip, quarters = rng.random() < 0.5, rng.integers(4)
    return turn(image, flip, quarters), turn(labels, flip, quarters)


def _with_float_labels(*given):
    image, labels = augment(*given)
    return image, labels.astype(float)


def _augmented_separately(image, labels, rng):
    return augment(image, image, rng)[0], augment(labels, labels, rng)[0]


def _augmentation_behaviour(function, image, labels):
    """Fraction of aligned pixels, number of new labels and of results over 100 seeds, whether labels stay whole."""
    code = dict(zip(labels.ravel().tolist(), image.ravel().tolist(), strict=True))
    aligned, new, kinds, whole = [], 0, set(), True
    for seed in range(100):
        found = function(image.copy(), labels.copy(), np.random.default_rng(seed))
        if found is None or found is ...:
            return None
        one, other = (np.asarray(part) for part in found)
        if one.shape != image.shape or other.shape != labels.shape:
            return [0, 0, 0, 0]
        aligned.append(
            np.mean([abs(code.get(k, np.inf) - v) < 1e-6 for k, v in zip(other.flat, one.flat, strict=True)])
        )
        new = max(new, len(set(other.ravel().tolist()) - set(code)))
        kinds.add(other.tobytes())
        whole &= other.dtype.kind in "iub"
    return [np.mean(aligned), new, len(kinds), whole]


def _augmentations(given, right):
    return (
        f"of the pixels, {given[0]:.0%} still have the label of their object (100 % expected), {given[1]:g} "
        "labels are new (0), "
        f"100 seeds give {given[2]:g} different results (8)"
    )


def _smoothed(image, labels, rng):
    angle = rng.uniform(0, 360)
    return tuple(ndimage.rotate(one.astype(float), angle, reshape=False, order=1) for one in (image, labels))


_MAP = np.arange(36).reshape(6, 6) // 3

AUGMENT = Exercise(
    number="04.8",
    name="augment",
    form=Form(
        "an image and its labels", lambda a, b: bool(np.allclose(a, b, atol=0.02)), contrast=_augmentations
    ),
    answer=augment,
    measure=_augmentation_behaviour,
    cases=[
        Case("an image of 6 × 6 whose values tell its labels", 0.1 + _MAP / 20, _MAP),
        Case(
            "an image of 4 × 4 with the labels 0, 5 and 9",
            [[0.9, 0.1, 0.1, 0.1]] * 2 + [[0.1] * 4, [0.5] + [0.1] * 3],
            [[9, 0, 0, 0]] * 2 + [[0] * 4, [5, 0, 0, 0]],
        ),
    ],
    mistakes={
        "Only the image is changed; its labels have to move with it.": lambda image, labels, rng: (
            augment(image, labels, rng)[0],
            labels,
        ),
        "Image and labels are changed by two independent random draws; draw once and apply the result to "
        "both.": _augmented_separately,
        "You flip, but never rotate: over many draws there are eight different results, not two.": partial(
            augment, turn=lambda array, flip, quarters: array[:, ::-1] if flip else array
        ),
        "You rotate, but never flip: over many draws there are eight different results, not four.": partial(
            augment, turn=lambda array, flip, quarters: np.rot90(array, quarters)
        ),
        "Your labels are interpolated, but there is no id between two ids. Move whole pixels instead.": _smoothed,
        "Your function always does the same thing, or nothing; draw from the rng that is passed in.": (
            lambda image, labels, rng: augment(image, labels, np.random.default_rng(3)),
            lambda image, labels, rng: (image, labels),
        ),
        "The labels come back as floats; they are class ids, so keep them as integers.": _with_float_labels,
    },
    hints=[
        "Draw first: flip = rng.random() < 0.5, quarters = rng.integers(4). Then do the same to both arrays.",
        "array[:, ::-1] flips, np.rot90(array, quarters) rotates by quarter turns.",
    ],
)

EXERCISES = (
    UPSAMPLED_SIZE,
    TRANSPOSED,
    CROP_AND_CONCATENATE,
    BORDER_WEIGHTS,
    BY_TILES,
    SMALLEST_MARGIN,
    UP_BLOCK,
    AUGMENT,
)
