"""The networks of claims 3.2 and 4.1 to 4.3: small U-Nets on synthetic scenes, with concatenated, added and no skips.

Fixed before the first run:

- Task: scenes of one or two objects of four shapes (disc, triangle, cross, ring), 48 × 48 pixels. Colour and
  texture are drawn alike for all classes, so a class shows in the shape alone. Each seed has its own 2,000
  training images, its own 200 images for the learning curve, its own 300 test images, and its own initial
  weights; within a seed all networks share the images.
- Networks: U-Net of depth 3 with batch normalisation. Channels per level are chosen so that the parameters
  agree within 2 %.
- Training: cross-entropy, Adam, 1,200 steps of 16 images, the same schedule for all.
- Gate: IoU of at least 0.5 for *every* class on the test images. A network below it can't tell what its levels
  know of the class that it has not learned: it is left out, the next seed takes its place, and its number is
  reported. (Of the first five, seed 4 never found the triangles; this rule, and no other, was added when that
  was seen.)
- Linear probes (ridge regression, equal class weights) are fitted on 200 training images and scored on the 300
  test images by balanced accuracy. *What*: the class of an object's pixel, chance 1/4. *Where*: the object's
  outermost pixel or at least two pixels inside, chance 1/2. Each level is read twice: block by block, and
  interpolated bilinearly to the image's size, so that what a level lost can be told from what its coarse grid hides.
- Cuts: the features of one skip, or of the bottleneck, are replaced by their mean over the training images.
"""

import itertools
from functools import lru_cache

import numpy as np
from scipy import ndimage
from skimage.segmentation import find_boundaries

from course_lib import checkpoints, datasets, losses, resources
from course_lib.metrics.boundary import boundary_iou
from course_lib.metrics.semantic import iou
from course_lib.models.unet import unet
from course_lib.teaching.experiments import Experiment, Trainee, fingerprint, key, run_model
from course_lib.teaching.statistics import Gate

CLASSES = ("disc", "triangle", "cross", "ring")
SIDE = 48
NETWORKS = 5
FILTERS = {"concat": (8, 16, 32, 64), "none": (8, 17, 34, 67), "add": (8, 17, 34, 67)}
STEPS, BATCH_SIZE, LEARNING_RATE, DEPTH = 1200, 16, 6e-3, 3
GATE = 0.5
LEVELS = ("encoder_1", "encoder_2", "encoder_3", "bottleneck", "decoder_3", "decoder_2", "decoder_1")
PROBE_PIXELS = 6000
SHIPPED = resources.DATA / "results" / "runs" / "scenes-networks" / "skip=concat,seed=0.npz"


def scenes(split: str, count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first `count` scenes that show only `CLASSES`: images, label maps (0 = background) and instance maps."""
    data = datasets.scenes(
        split,
        6 * count,
        SIDE,
        seed,
        objects=(1, 2),
        object_size=(0.45 * SIDE, 0.9 * SIDE),
        occlusion=0.1,
        thin=(0.2, 0.5),
        contrast=(0.4, 0.5),
        noise=(0.0, 0.02),
    )
    ids = [data.class_names.index(name) for name in CLASSES]
    new_label = np.zeros(data.num_classes, np.int32)
    new_label[ids] = range(1, len(ids) + 1)
    found = []
    for index in range(len(data)):
        sample = data[index]
        if len(sample.classes) and set(sample.classes.tolist()) <= set(ids):
            found.append((sample.image.astype("float32"), new_label[sample.semantic], sample.instances))
        if len(found) == count:
            return tuple(map(np.stack, zip(*found, strict=True)))
    raise ValueError(
        f"count is {count}; only {len(found)} of {len(data)} scenes show {', '.join(CLASSES)} alone."
    )


@lru_cache(maxsize=3)
def images_of(split: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The images of a repetition."""
    return scenes(split, {"train": 2000, "val": 200, "test": 300}[split], seed)


@lru_cache(maxsize=1)
def data_fingerprint() -> str:
    return fingerprint(*(part for split in ("train", "test") for part in scenes(split, 4, 0)))


@lru_cache(maxsize=3)
def trainee(skip: str) -> Trainee:
    """One compiled network for each kind of skip."""
    return Trainee(lambda: build_network(skip), losses.CrossEntropy())


def build_network(skip: str):
    """An untrained network with one kind of skip."""
    return unet(
        (SIDE, SIDE, 3),
        len(CLASSES) + 1,
        depth=DEPTH,
        filters=FILTERS[skip],
        skip=skip,
        normalization="batch",
    )


def shipped():
    """The network of seed 0 with concatenated skips, trained as above; notebook 04 asks its levels what they know."""
    model = build_network("concat")
    checkpoints.load_weights(model, SHIPPED)
    return model


def measure(skip: str, seed: int) -> dict:
    """Train one network and measure everything that the claims need."""
    images, labels, instances = images_of("train", seed)
    val_images, val_labels, _ = images_of("val", seed)
    test = images_of("test", seed)
    network = trainee(skip)
    network.start(seed)
    probes = {"untrained": probe_levels(network.model, (images, labels, instances), test, seed)}
    untrained = class_ious(network.logits(test[0]).argmax(-1), test[1])
    curve = network.train(
        images,
        labels,
        STEPS,
        BATCH_SIZE,
        LEARNING_RATE,
        seed,
        lambda: float(np.mean(class_ious(network.logits(val_images).argmax(-1), val_labels))),
    )
    probes["trained"] = probe_levels(network.model, (images, labels, instances), test, seed)
    found = network.logits(test[0]).argmax(-1)
    result = {
        "parameters": network.model.count_params(),
        "class_iou": class_ious(found, test[1]),
        "class_iou_untrained": untrained,
        "class_iou_background_only": class_ious(np.zeros_like(found), test[1]),
        "train_class_iou": class_ious(network.logits(images[:300]).argmax(-1), labels[:300]),
        "curve": curve,
        "whole": scores(found, test[1]),
        "probes": probes,
    }
    if skip == "concat":
        means = {
            name: features.mean((0, 1, 2))
            for name, features in level_features(network.model, images[:200], LEVELS[: DEPTH + 1]).items()
        }
        result["cut"] = {
            name: scores(run_cut(network.model, test[0], {name: mean}).argmax(-1), test[1])
            for name, mean in means.items()
        }
    return result


def class_ious(found: np.ndarray, labels: np.ndarray) -> list[float]:
    """The IoU of each class over all pixels, the background first."""
    classes = len(CLASSES) + 1
    counts = np.bincount((labels * classes + found).ravel(), minlength=classes**2).reshape(classes, classes)
    both = np.diag(counts)
    return (both / np.maximum(1, counts.sum(0) + counts.sum(1) - both)).tolist()


def scores(found: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Object against background: IoU of the area, and of its rim 1 and 2 pixels wide, means over the images; and the
    fraction of the right class among the pixels that are rightly called object."""
    pairs = [(truth > 0, answer > 0) for truth, answer in zip(labels, found, strict=True)]
    both = (labels > 0) & (found > 0)
    return {
        "region_iou": float(np.mean([iou(*pair) for pair in pairs])),
        "boundary_iou": float(np.mean([boundary_iou(*pair, 1.0) for pair in pairs])),
        "boundary_iou_2": float(np.mean([boundary_iou(*pair, 2.0) for pair in pairs])),
        "class_accuracy": float(np.mean((labels == found)[both])) if both.any() else 0.0,
        "mean_class_iou": float(np.mean(class_ious(found, labels)[1:])),
    }


def level_features(model, images: np.ndarray, names=LEVELS) -> dict[str, np.ndarray]:
    """The feature maps of some levels, `(images, height / stride, width / stride, channels)`."""
    import keras

    viewer = keras.Model(model.input, [model.get_layer(name).output for name in names])
    return dict(zip(names, run_model(viewer, images), strict=True))


def run_cut(model, images: np.ndarray, replaced: dict[str, np.ndarray]) -> np.ndarray:
    """The network's logits with some levels' features replaced by a constant vector on their way into the decoder only.

    The mean and not zeros: zeros would also shift the level that the decoder is used to.
    """
    import keras

    names = LEVELS[: DEPTH + 1]
    decoder = keras.Model([model.get_layer(name).output for name in names], model.output)
    features = level_features(model, images, names)
    for name, value in replaced.items():
        features[name] = np.broadcast_to(value, features[name].shape)
    return run_model(decoder, [features[name] for name in names])


def probe_levels(model, fit_on: tuple, score_on: tuple, seed: int) -> dict[str, dict[str, float]]:
    """For each level the balanced accuracy of linear probes for what and where, block by block and interpolated."""
    fit_on = tuple(part[:200] for part in fit_on)
    drawn = [drawn_pixels(part[1], part[2], seed) for part in (fit_on, score_on)]
    maps = [level_features(model, part[0]) for part in (fit_on, score_on)]
    found: dict[str, dict[str, float]] = {}
    for level in LEVELS:
        found[level] = {}
        for (question, classes), way in itertools.product(
            (("what", len(CLASSES)), ("where", 2)), ("block", "interpolated")
        ):
            pairs = []
            for pixels, features in zip(drawn, maps, strict=True):
                places, answer = pixels[question]
                pairs.append((read_features(features[level], places, way), answer))
            name = question if way == "block" else f"{question}_interpolated"
            found[level][name] = linear_probe(*pairs, classes)
    return found


def linear_probe(
    train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], classes: int
) -> float:
    """How well a linear map predicts classes from features: balanced accuracy on `test`, 1 / classes is chance.

    A ridge regression onto one-hot classes, each class weighted alike (Alain and Bengio 2016 introduced linear
    probes, https://arxiv.org/abs/1610.01644). It has a closed form, so that nothing about the probe depends on luck.

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


def read_features(features: np.ndarray, places: np.ndarray, way: str) -> np.ndarray:
    """The features `(n, channels)` at places `(3, n)` (image, row, column) of the full-size images."""
    image, row, column = places
    stride = SIDE // features.shape[1]
    if way == "block" or stride == 1:
        return features[image, row // stride, column // stride].astype(np.float64)
    # A pixel's centre on the coarse grid, whose own pixels' centres are whole numbers.
    y, x = (np.clip((at + 0.5) / stride - 0.5, 0, features.shape[1] - 1) for at in (row, column))
    top, left = (np.minimum(at.astype(int), features.shape[1] - 2) for at in (y, x))
    down, right = (y - top)[:, None], (x - left)[:, None]
    return (
        (1 - down) * ((1 - right) * features[image, top, left] + right * features[image, top, left + 1])
        + down * ((1 - right) * features[image, top + 1, left] + right * features[image, top + 1, left + 1])
    ).astype(np.float64)


def drawn_pixels(
    labels: np.ndarray, instances: np.ndarray, seed: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pixels `(3, n)` and the right answers `(n,)` for both questions, as many of each answer as can be had."""
    outline = np.stack([find_boundaries(one, mode="inner") for one in instances])
    inside = np.stack([ndimage.distance_transform_cdt(~edge, "chessboard") >= 2 for edge in outline])
    masks = {
        "what": [labels == k for k in range(1, len(CLASSES) + 1)],
        "where": [mask & (labels > 0) for mask in (inside, outline)],
    }
    rng = np.random.default_rng(seed)
    drawn = {}
    for question, of_answer in masks.items():
        places = [np.argwhere(mask) for mask in of_answer]
        count = min(PROBE_PIXELS // len(places), *map(len, places))
        picked = [one[rng.choice(len(one), count, replace=False)] for one in places]
        drawn[question] = np.concatenate(picked).T, np.repeat(np.arange(len(picked)), count)
    return drawn


def learned(result: dict) -> bool:
    """Whether a network passes the gate."""
    return min(result["class_iou"]) >= GATE


def plan(done) -> list[dict]:
    """Seed after seed until `NETWORKS` networks have learned every class."""
    runs, count = [], 0
    for seed in itertools.count():
        runs.append({"skip": "concat", "seed": seed})
        count += key(runs[-1]) not in done or learned(done[key(runs[-1])])
        if count == NETWORKS:
            return runs


def plan_skips(done) -> list[dict]:
    """The seeds whose network with concatenated skips has learned, without skips and with added ones."""
    return [{"skip": skip, "seed": seed} for seed in runs("concat") for skip in ("none", "add")]


def runs(skip: str, folder=None) -> dict[int, dict]:
    """Seed → result of one kind of skip, for the seeds whose network with concatenated skips has learned."""
    done = EXPERIMENT.results(folder)
    seeds = [one["seed"] for one in plan(done) if key(one) in done and learned(done[key(one)])]
    if skip != "concat":
        done = SKIPS.results(folder)
    return {seed: done[name] for seed in seeds if (name := key({"skip": skip, "seed": seed})) in done}


EXPERIMENT = Experiment("scenes-networks", 1, measure, plan, data_fingerprint, worth=10)
SKIPS = Experiment("scenes-skips", 1, measure, plan_skips, data_fingerprint, worth=8)


def left_out(folder=None) -> list[int]:
    """The seeds whose network with concatenated skips is below the gate."""
    done = EXPERIMENT.results(folder)
    return [one["seed"] for one in plan(done) if key(one) in done and not learned(done[key(one)])]


def gate(found: dict[int, dict]) -> Gate | None:
    """Whether networks have learned their task: the lowest IoU of a class, in the worst network."""
    if not found:
        return None
    lowest = [
        min(min(run[name]) for run in found.values()) for name in ("class_iou", "class_iou_background_only")
    ]
    untrained = max(min(run["class_iou_untrained"]) for run in found.values())
    return Gate("lowest class IoU of the worst network", GATE, lowest[0], lowest[1], untrained)
