"""What each level of any trained U-Net knows, and the same network with one skip cut."""

from __future__ import annotations

import keras
import numpy as np
from scipy import ndimage
from skimage.segmentation import find_boundaries

from course_lib.chapters.ch03_unet_encoder.scenes_networks import linear_probe

PROBE_PIXELS = 6000
"""Pixels drawn for fitting a probe and as many, from other pictures, for scoring it."""


def level_names(model: keras.Model) -> list[str]:
    """The outputs of the levels of a U-Net, in the order in which the picture passes them."""
    depth = sum(layer.name.startswith("encoder_") and layer.name.endswith("_pool") for layer in model.layers)
    down = [f"encoder_{level}" for level in range(1, depth + 1)]
    return [*down, "bottleneck", *(f"decoder_{level}" for level in range(depth, 0, -1))]


def level_features(model: keras.Model, images: np.ndarray) -> dict[str, np.ndarray]:
    """The feature maps of every level, `(images, height / stride, width / stride, channels)`."""
    names = level_names(model)
    viewer = keras.Model(model.input, [model.get_layer(name).output for name in names])
    return dict(zip(names, in_batches(viewer, images), strict=True))


def in_batches(model: keras.Model, images: np.ndarray, size: int = 16) -> list[np.ndarray]:
    """Each output of a model for many images, batch by batch. Called, not `predict`ed, which compiles each model anew."""
    parts = []
    for start in range(0, len(images), size):
        outputs = model(images[start : start + size], training=False)
        parts.append(
            [
                keras.ops.convert_to_numpy(one)
                for one in (outputs if isinstance(outputs, (list, tuple)) else [outputs])
            ]
        )
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def probe_levels(model: keras.Model, fit_on, score_on, seed: int) -> dict[str, dict[str, float]]:
    """For each level, how well a linear probe reads off what and where.

    What: which of the classes a pixel of an object belongs to, chance = 1 / object classes.
    Where: whether a pixel is on an outline (the last pixel of an object) or inside the same objects, at least 2 pixels
    from it, chance = 1/2. A level of stride s gives all s × s pixels below one feature the same answer.
    """
    drawn = {name: _drawn_pixels(dataset, seed) for name, dataset in (("fit", fit_on), ("score", score_on))}
    maps = {
        name: level_features(model, np.stack([sample.image for sample in dataset]))
        for name, dataset in (("fit", fit_on), ("score", score_on))
    }
    scores: dict[str, dict[str, float]] = {}
    side = fit_on[0].image.shape[0]
    for level in level_names(model):
        scores[level] = {}
        for question, classes in (("what", fit_on.num_classes - 1), ("where", 2)):
            pairs = []
            for part in ("fit", "score"):
                (image, row, column), answer = drawn[part][question]
                feature_map = maps[part][level]
                stride = side // feature_map.shape[1]
                pairs.append((feature_map[image, row // stride, column // stride].astype(np.float64), answer))
            scores[level][question] = linear_probe(*pairs, classes)
    return scores


def _drawn_pixels(dataset, seed: int) -> dict:
    """Pixels `(image, row, column)` and the right answers for both questions."""
    semantic = np.stack([sample.semantic for sample in dataset])
    outline = np.stack([find_boundaries(sample.instances, mode="inner") for sample in dataset])
    inside = np.stack([ndimage.distance_transform_cdt(~edge, "chessboard") >= 2 for edge in outline])
    rng = np.random.default_rng(seed)

    def draw(mask: np.ndarray, count: int) -> tuple[np.ndarray, ...]:
        places = np.argwhere(mask)
        return tuple(places[rng.choice(len(places), min(count, len(places)), replace=False)].T)

    classes = range(1, dataset.num_classes)
    what = [draw(semantic == k, PROBE_PIXELS // len(classes)) for k in classes]
    where = [draw(mask & (semantic > 0), PROBE_PIXELS // 2) for mask in (inside, outline)]
    return {
        "what": (
            np.concatenate(what, axis=1),
            np.concatenate([np.full(len(p[0]), k - 1) for k, p in zip(classes, what, strict=True)]),
        ),
        "where": (
            np.concatenate(where, axis=1),
            np.concatenate([np.full(len(p[0]), k) for k, p in enumerate(where)]),
        ),
    }


def cut_skip(model: keras.Model, level: int, images: np.ndarray) -> keras.Model:
    """The same net with one skip cut: its features are replaced by their mean, so that they say nothing any more.

    Zeros instead of the mean would also shift the level that the decoder is used to, and blame the skip for that. The
    cut is made in the weights: the convolution that reads the skip reads it no more, and the normalization after it is
    told the constant that is missing.

    Args:
        model: a U-Net with concatenated skips and batch normalization.
        level: 1 is the skip at full size.
        images: `(n, height, width, channels)`, normalised as the network is used to, to take the mean over.
    """
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    encoder = keras.Model(model.input, model.get_layer(f"encoder_{level}").output)
    (features,) = in_batches(encoder, images)
    mean = features.mean((0, 1, 2))
    convolution, norm = twin.get_layer(f"decoder_{level}_a_conv"), twin.get_layer(f"decoder_{level}_a_norm")
    kernel = np.array(keras.ops.convert_to_numpy(convolution.kernel))
    constant = np.einsum("hwio,i->o", kernel[:, :, : len(mean)], mean)
    kernel[:, :, : len(mean)] = 0
    convolution.kernel.assign(kernel)
    norm.moving_mean.assign(keras.ops.convert_to_numpy(norm.moving_mean) - constant)
    return twin
