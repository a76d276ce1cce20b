"""Chapter 4 of the claims: what each level of a trained U-Net knows, and what crosses its skips."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from scipy import ndimage
from skimage.segmentation import find_boundaries

from course_lib import recipes
from course_lib.chapters.ch04_unet_decoder.unet import SEEDS, net, region_and_boundary
from course_lib.teaching.ledger import Result, interval

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


def linear_probe(
    train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], classes: int
) -> float:
    """How well a linear map reads classes off features: balanced accuracy on `test`, 1 / classes is chance.

    A ridge regression onto one-hot classes, each class weighted alike (Alain and Bengio 2016 introduced linear probes,
    https://arxiv.org/abs/1610.01644). It has a closed form, so that nothing about the probe depends on luck.

    Args:
        train, test: `(features (n, channels), classes (n,))`.
        classes: how many there are.
    """
    features, labels = train
    mean, spread = features.mean(0), features.std(0) + 1e-6

    def prepared(x: np.ndarray) -> np.ndarray:
        return np.hstack([(x - mean) / spread, np.ones((len(x), 1))])

    x, y = prepared(features), np.eye(classes)[labels]
    weight = (
        (1 / np.maximum(np.bincount(labels, minlength=classes), 1))[labels][:, None] * len(labels) / classes
    )
    ridge = 1e-3 * len(x) * np.eye(x.shape[1])
    solution = np.linalg.solve(x.T @ (weight * x) + ridge, x.T @ (weight * y))
    found = (prepared(test[0]) @ solution).argmax(1)
    return float(np.mean([np.mean(found[test[1] == k] == k) for k in range(classes) if (test[1] == k).any()]))


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


def probe_table(progress: Callable[[str], None] = print) -> dict:
    """`level → question → one score per seed`, on the nets with concatenated skips."""
    fit_on, score_on = recipes.SCENES.data("train"), recipes.SCENES.data("val")
    fit_on = _First(fit_on, 128)
    runs = [probe_levels(net("concat", seed)[1], fit_on, score_on, seed) for seed in SEEDS]
    return {
        level: {question: [run[level][question] for run in runs] for question in ("what", "where")}
        for level in runs[0]
    }


class _First:
    """The first samples of a data set, held in memory: the probes go over them once per level."""

    def __init__(self, dataset, count: int):
        self.samples = [dataset[index] for index in range(min(count, len(dataset)))]
        self.num_classes = dataset.num_classes

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int):
        return self.samples[index]


def claim_4_1(progress: Callable[[str], None] = print) -> Result:
    """Each encoder step: size down, depth up; it captures what."""
    table = probe_table(progress)
    what = np.subtract(table["bottleneck"]["what"], table["encoder_1"]["what"])
    where = np.subtract(table["bottleneck"]["where"], table["encoder_1"]["where"])
    effect, lost = interval(what), interval(where)
    if effect.low > 0 and lost.high < 0:
        verdict, teacher = (
            "holds",
            "On the way down, a linear probe reads the class better and the outline worse: what is bought with where.",
        )
    elif effect.low > 0:
        verdict = "holds when only the class is asked for"
        teacher = (
            "On the way down the class becomes easier to read; how much of the outline is lost, three runs do not "
            "settle."
        )
    else:
        verdict, teacher = (
            "not seen here",
            "Three runs do not show that the deepest features of these small nets tell the class better than the first.",
        )
    table["what_bottleneck_minus_encoder_1"], table["where_bottleneck_minus_encoder_1"] = (
        what.tolist(),
        where.tolist(),
    )
    return Result(
        "4.1",
        "Each step of the encoder halves the size and deepens the features; it captures what is in the picture.",
        "balanced accuracy of a linear probe for the class, bottleneck minus first encoder level",
        effect,
        verdict,
        teacher,
        len(SEEDS),
        table,
        recipes.SCENES.digest,
    )


def claim_4_2(progress: Callable[[str], None] = print) -> Result:
    """Each decoder step: size up; it refines where."""
    table = probe_table(progress)
    where = np.subtract(table["decoder_1"]["where"], table["bottleneck"]["where"])
    kept = np.subtract(table["decoder_1"]["what"], table["bottleneck"]["what"])
    effect, what = interval(where), interval(kept)
    table["where_decoder_1_minus_bottleneck"], table["what_decoder_1_minus_bottleneck"] = (
        where.tolist(),
        kept.tolist(),
    )
    if effect.low > 0:
        verdict = "holds"
        if what.low > -0.05:
            extra = " and the class is not lost again"
        elif what.high < 0:
            extra = ", though some of the class's readability goes"
        else:
            extra = "; what becomes of the class, three runs do not settle"
        teacher = f"On the way up, a linear probe finds the outline better with every level{extra}."
        steps = [
            np.mean(table[f"decoder_{level}"]["where"])
            for level in range(1, 10)
            if f"decoder_{level}" in table
        ]
        if sorted(steps, reverse=True) != steps:
            teacher = (
                f"From the bottom to the top of the decoder a linear probe finds the outline better{extra}."
            )
    else:
        verdict, teacher = (
            "not seen here",
            "The decoder's last features did not show the outline better than the bottleneck's.",
        )
    return Result(
        "4.2",
        "Each step of the decoder doubles the size; it refines where things are.",
        "balanced accuracy of a linear probe for outline pixels, last decoder level minus bottleneck",
        effect,
        verdict,
        teacher,
        len(SEEDS),
        table,
        recipes.SCENES.digest,
    )


def cut_skip(model: keras.Model, level: int, images: np.ndarray) -> keras.Model:
    """The same net with one skip cut: its features are replaced by their mean, so that they say nothing any more.

    Zeros instead of the mean would also shift the level that the decoder is used to, and blame the skip for that. The
    cut is made in the weights: the convolution that reads the skip reads it no more, and the normalization after it is
    told the constant that is missing.

    Args:
        model: a U-Net with concatenated skips and batch normalization.
        level: 1 is the skip at full size.
        images: `(n, height, width, channels)`, to take the mean over.
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


def claim_4_3(progress: Callable[[str], None] = print) -> Result:
    """Skips carry edges, the deep path carries context: cut one skip at a time in a trained net."""
    train, val = recipes.SCENES.data("train"), recipes.SCENES.data("val")
    images = np.stack([train[index].image for index in range(64)])
    table: dict = {"whole": {"region_iou": [], "boundary_iou": []}}
    for seed in SEEDS:
        recipe, model = net("concat", seed)
        depth = recipe.network_arguments["depth"]
        for name, one in [
            ("whole", model),
            *((f"without_skip_{k}", cut_skip(model, k, images)) for k in range(1, depth + 1)),
        ]:
            region, boundary = region_and_boundary(recipe, one, val)
            entry = table.setdefault(name, {"region_iou": [], "boundary_iou": []})
            entry["region_iou"].append(region)
            entry["boundary_iou"].append(boundary)
            progress(f"seed {seed}, {name}: region {region:.3f}, boundary {boundary:.3f}")

    def relative_loss(name: str, score: str) -> np.ndarray:
        whole = np.array(table["whole"][score])
        return (whole - np.array(table[name][score])) / whole

    # Edges, if the outline suffers more than the region when the finest skip is cut.
    difference = relative_loss("without_skip_1", "boundary_iou") - relative_loss(
        "without_skip_1", "region_iou"
    )
    table["boundary_loss_minus_region_loss_skip_1"] = difference.tolist()
    for name in [key for key in table if key.startswith("without")]:
        for score in ("region_iou", "boundary_iou"):
            table[name][f"{score}_lost"] = relative_loss(name, score).tolist()
    effect = interval(difference)
    if effect.low > 0:
        verdict, teacher = (
            "holds",
            "Cut the finest skip and the outline suffers more than the area: that skip carries edges.",
        )
    elif effect.high < 0:
        verdict = "not seen here"
        teacher = (
            "Cut the finest skip and the area suffers even more than the outline: in these nets the skip carries more "
            "than edges."
        )
    else:
        verdict = "not seen here"
        teacher = "Cutting the finest skip hurts outline and area; three runs do not show that it hurts the outline more."
    return Result(
        "4.3",
        "The skips carry edges, the deep path carries context.",
        "share of the boundary IoU lost minus share of the region IoU lost when the finest skip is cut",
        effect,
        verdict,
        teacher,
        len(SEEDS),
        table,
        recipes.SCENES.digest,
    )
