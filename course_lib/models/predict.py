"""From a model and one image of any size to a probability per class and pixel."""

import weakref
from collections.abc import Callable

import keras
import numpy as np

from course_lib._checks import one_of
from course_lib.models.folding import folded
from course_lib.ops.tiles import overlap_tile, reflect

AVERAGES = {
    "none": ((0, False),),
    "mirror": ((0, False), (0, True)),
    "flips": ((0, False), (0, True), (2, False), (2, True)),
    "turns": tuple((turns, flip) for flip in (False, True) for turns in range(4)),
}
"""Test-time augmentation: which quarter turns and left-right flips of the image are predicted and averaged."""

VIEW_PIXELS = 2**19
"""Pixels that go through a network together when views of an image are averaged."""


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities from logits `(…, classes)`, one channel counting as the second of two classes; float32."""
    logits = np.asarray(logits, np.float32)
    if logits.shape[-1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=-1)
    exponential = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponential / exponential.sum(axis=-1, keepdims=True)


_COMPILED: weakref.WeakKeyDictionary[keras.Model, keras.Model] = weakref.WeakKeyDictionary()
"""What `compiled` made of a model."""


def compiled(model: keras.Model, build: Callable[[keras.Model], keras.Model]) -> keras.Model:
    """A network of the model's own layers, and so of its weights of the moment, that `predict_on_batch` runs compiled.

    Its batch normalization is folded (see `folding`). The model itself keeps the optimizer and the losses that it was
    compiled with, if any. TensorFlow makes a graph of the network: one for the first size of images, and one more that
    serves all others. XLA would compile one for each size, which takes longer than most predictions; JAX has no other way.

    Args:
        model: whose network is made once, and forgotten with it.
        build: makes the network from the model's layers; it must not contain the model.
    """
    if model not in _COMPILED:
        network = folded(build(model))
        network.compile(jit_compile=False if keras.backend.backend() == "tensorflow" else "auto")
        _COMPILED[model] = network
    return _COMPILED[model]


def probabilities_of(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """`softmax` of a model's output for a batch `(batch, height, width, channels)`, whatever its size."""

    def build(model):
        logits = keras.ops.cast(model.outputs[0], "float32")
        if logits.shape[-1] == 1:
            logits = keras.ops.concatenate([keras.ops.zeros_like(logits), logits], axis=-1)
        return keras.Model(model.inputs, keras.ops.softmax(logits))

    return compiled(model, build).predict_on_batch(images)


def check_finite(probabilities: np.ndarray) -> np.ndarray:
    """The probabilities, or a `ValueError` if they are not finite numbers."""
    if not np.isfinite(probabilities).all():
        raise ValueError(
            "the network's output holds values that are not finite numbers; its weights are damaged, or its training "
            "diverged. Train it again, or get its weights again."
        )
    return probabilities


def predict_probabilities(
    model: keras.Model,
    image: np.ndarray,
    tta: str = "none",
    largest: int = 1400,
    tile: int = 512,
    margin: int = 96,
    multiple: int = 32,
) -> np.ndarray:
    """The class probabilities of one image of any size.

    An image whose sides are at most `largest` goes through in one piece, mirrored at the right and the bottom up to the
    next multiple of `multiple`; a larger one by overlapping tiles.

    Args:
        model: takes `(batch, height, width, channels)`, returns logits of the same height and width.
        image: float32 `(height, width, channels)`, normalized as in training.
        tta: test-time augmentation: `"none"`, `"mirror"` (2 views, the second with left and right swapped), `"flips"` (4
            views) or `"turns"` (the 8 views of a square). The views' probabilities are averaged, as the U-Net paper does
            with rotated images.
        largest: in pixels; images with a longer side are tiled.
        tile, margin: the tiles' size and context in pixels (see `overlap_tile`).
        multiple: what the model needs sides to be a multiple of.

    Returns:
        float32 `(height, width, classes)`.

    Raises:
        ValueError: if `tta` is unknown, the image's channels are not the model's, or the model returns a map of another
            size, as an unpadded U-Net does.
    """
    one_of("tta", tta, AVERAGES)
    channels, image = model.input_shape[-1], _floats(image)
    if image.ndim != 3 or image.shape[-1] != channels:
        raise ValueError(f"image has shape {image.shape}; this model takes (height, width, {channels}).")

    def predict(windows: np.ndarray) -> np.ndarray:
        return probabilities_of(model, windows)

    def whole(views: np.ndarray) -> np.ndarray:
        height, width = views.shape[1:3]
        if max(height, width) > largest:
            return np.stack([overlap_tile(predict, view, (tile, tile), margin) for view in views])
        rows = reflect(np.arange(-(-height // multiple) * multiple), height)
        columns = reflect(np.arange(-(-width // multiple) * multiple), width)
        windows = views[:, rows][:, :, columns]
        probabilities = predict(windows)
        if probabilities.shape[1:3] != windows.shape[1:3]:
            lost = (windows.shape[1] - probabilities.shape[1]) // 2
            raise ValueError(
                f"model returns a score map of {probabilities.shape[1:3]} for an image of {windows.shape[1:3]}; both must "
                "have the same size. For an unpadded U-Net call course_lib.ops.tiles.overlap_tile with a window that "
                f"fits, margin={lost}."
            )
        return probabilities[:, :height, :width]

    views = [np.rot90(image, turns) for turns, _ in AVERAGES[tta]]
    views = [view[:, ::-1] if flip else view for view, (_, flip) in zip(views, AVERAGES[tta], strict=True)]
    found: list[np.ndarray] = [None] * len(views)
    for shape in {view.shape[:2] for view in views}:
        alike = [k for k, view in enumerate(views) if view.shape[:2] == shape]
        # All views of a shape in one forward pass, as long as that is not too much for memory.
        step = max(1, VIEW_PIXELS // (shape[0] * shape[1]))
        for start in range(0, len(alike), step):
            few = alike[start : start + step]
            for k, one in zip(few, whole(np.stack([views[k] for k in few])), strict=True):
                found[k] = one
    total = 0.0
    for (turns, flip), one in zip(AVERAGES[tta], found, strict=True):
        total = total + np.rot90(one[:, ::-1] if flip else one, -turns)
    return total / len(views)


def _floats(image) -> np.ndarray:
    """`image` as an array of floats; integers would be 255 times what the network was trained with."""
    image = np.asarray(image)
    if image.dtype.kind != "f":
        raise TypeError(
            f"image is an array of {image.dtype}; it must be floats, normalized as in training: such as image / 255. "
            "course_lib.segmenter.as_image does it."
        )
    return image


def predict_classes_tiled(
    model: keras.Model,
    image,
    out: np.ndarray | None = None,
    prepare: Callable[[np.ndarray], np.ndarray] = lambda windows: windows,
    tta: str = "none",
    tile: int = 512,
    margin: int = 96,
    progress: Callable | None = None,
) -> np.ndarray:
    """The class of each pixel of an image too large for memory: the one with the highest probability.

    Only a window of the image and its probabilities are in memory at a time. The result is that of
    `predict_probabilities` by tiles of the same size; views are averaged window by window.

    Args:
        model: as for `predict_probabilities`.
        image: float32 `(height, width, channels)` or what reads like it: an array, a memory map, or a
            `datasets.reading.LargeImage`.
        out: integers `(height, width)` to write to, such as a memory map; by default a new array of uint8.
        prepare: what happens to the windows `(batch, side, side, channels)` first, such as their normalization.
        tta: as for `predict_probabilities`.
        tile, margin: in pixels (see `overlap_tile`); tile + 2 · margin is what the model sees.
        progress: wraps the iteration over the tiles, as `tqdm.tqdm` does.

    Returns:
        `out`.

    Raises:
        ValueError: if `tta` is unknown, the image's channels are not the model's, `out` has another shape than the image or
            cannot hold all classes, or the probabilities are not finite numbers.
    """
    one_of("tta", tta, AVERAGES)
    channels, classes = model.input_shape[-1], max(2, model.output_shape[-1])
    if len(image.shape) != 3 or image.shape[-1] != channels:
        raise ValueError(f"image has shape {image.shape}; this model takes (height, width, {channels}).")
    size = tuple(image.shape[:2])
    if out is None:
        out = np.zeros(size, np.uint8 if classes <= 256 else np.uint16)
    if out.shape != size or out.dtype.kind not in "iu" or classes - 1 > np.iinfo(out.dtype).max:
        raise ValueError(
            f"out is {out.dtype} {out.shape}; it must hold integers up to {classes - 1} in the shape {size}."
        )

    def predict(windows: np.ndarray) -> np.ndarray:
        windows, total = prepare(windows), 0.0
        for turns, flip in AVERAGES[tta]:
            view = np.rot90(windows, turns, axes=(1, 2))
            view = np.ascontiguousarray(view[:, :, ::-1] if flip else view)
            probabilities = probabilities_of(model, view)
            total = total + np.rot90(
                probabilities[:, :, ::-1] if flip else probabilities, -turns, axes=(1, 2)
            )
        return check_finite(total).argmax(-1)[..., None]

    overlap_tile(predict, image, (tile, tile), margin, out=out[..., None], progress=progress)
    return out


def predict_detections(model: keras.Model, image: np.ndarray) -> dict[str, np.ndarray]:
    """The detections of a model in one image of any size.

    Args:
        model: a `MaskRCNN`.
        image: float32 `(height, width, channels)`, normalized as in training.

    Returns:
        `boxes` float32 `(n, 4)`, `classes` int32 `(n,)`, `scores` float32 `(n,)`, the highest first, `valid` bool
        `(n,)`, `masks` float32 `(n, m, m)` within the boxes (with a mask head), empty places left out; and `size`, the
        image's height and width.

    Raises:
        ValueError: if the image's channels are not the model's.
    """
    image = _floats(image)
    if image.ndim != 3 or image.shape[-1] != model.channels:
        raise ValueError(
            f"image has shape {image.shape}; this model takes (height, width, {model.channels})."
        )
    # What comes after the features is not compiled: how many regions there are is known only on the way.
    whole = keras.ops.convert_to_numpy(model.filled_up(image[None]))
    features = compiled(model, lambda model: model.features_model()).predict_on_batch(whole)
    features = keras.tree.map_structure(keras.ops.convert_to_tensor, features)
    detections = model.detect(features, image.shape[:2], trim=True)
    detections = {name: keras.ops.convert_to_numpy(value)[0] for name, value in detections.items()}
    detections = {name: value[detections["valid"]] for name, value in detections.items()}
    return detections | {"size": np.asarray(image.shape[:2])}
