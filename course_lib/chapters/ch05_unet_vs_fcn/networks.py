"""Claim 5.1, and the first edition's five networks: U-Net beside FCN-32s, FCN-16s, FCN-8s and DeepLabV3+.

The same images, loss, schedule, optimizer and seeds, no dropout. Five networks, each trained from three seeds on cells and
on scenes; two networks on ever fewer images. They do not meet the rules of the claims, so nothing follows:

- trainable parameters differ from U-Net's by up to 8 %, the rate was tuned for none, and 300 or 400 steps are short;
- on cells FCN-32s and FCN-16s are below the gate (an IoU of 0.5 for every class), on scenes all five are.

`five_networks` and `ch04_unet_decoder.claims_on_nuclei` are the experiments that keep to the rules.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
from skimage.segmentation import expand_labels

from course_lib import checkpoints, recipes, resources, training
from course_lib.chapters.ch01_detection_vs_segmentation.detection import must
from course_lib.datasets.augmentation import Augmentation
from course_lib.datasets.loading import normalize
from course_lib.datasets.sample import Sample
from course_lib.losses import CrossEntropy, Dice
from course_lib.metrics import semantic
from course_lib.metrics.boundary import boundary_f1
from course_lib.models.predict import softmax
from course_lib.models.width import nearest_width
from course_lib.teaching.ledger import Result, demonstrated

SEEDS = (0, 1, 2)
FCNS = ("FCN-32s", "FCN-16s", "FCN-8s")
NETWORKS = (*FCNS, "DeepLabV3+", "U-Net")
BASE_FILTERS = 6
"""Of the U-Net, with the published depth of four; the others are made as large as it is."""

SIZES = (0, 8, 16, 32, math.inf)
"""Limits of the bins of an object's size, the root of its visible pixels: FCN-8s, 16s and 32s give one score per 8, 16
and 32 pixels, so that an object of the first bin is smaller than what any of the three has a score for."""
SIZE_NAMES = ("under 8", "8 to 16", "16 to 32", "32 and more")
SURROUNDINGS = 4
"""Pixels around an object that count when it is asked whether it was found."""
TOLERANCES = (1, 2, 4)
"""Of the boundary F1, in pixels."""
IMAGES = (2, 4, 8, 16, 32, 64)
"""Training images of `FEW_CELLS`."""

CELLS = recipes.Recipe(
    name="networks-cells",
    title="Five networks on cells of many sizes, for chapter 5",
    dataset="cells",
    train_data={"length": 256, "size": 96, "seed": 6, "radius": (2.0, 14.0)},
    val_data={"length": 64, "size": 96, "seed": 6, "radius": (2.0, 14.0)},
    network_arguments={"base_filters": BASE_FILTERS, "depth": 4, "normalization": "batch"},
    augmentation=Augmentation(flip=True, turn=True, gain=0.1, offset=0.05),
    loss=CrossEntropy() + Dice(),
    epochs=1,
    steps=300,
    batch_size=8,
    crop=(96, 96),
    learning_rate=3e-3,
)

SCENES = replace(
    CELLS,
    name="networks-scenes",
    title="Five networks on scenes, for chapter 5",
    dataset="scenes",
    train_data={"length": 1024, "size": 96, "seed": 6, "contrast": (0.3, 0.5)},
    val_data={"length": 96, "size": 96, "seed": 6, "contrast": (0.3, 0.5)},
    steps=400,
)

SETS = {"cells": CELLS, "scenes": SCENES}

SHIPPED = resources.DATA / "networks"
"""The weights of the five networks of the first seed on cells: what notebook 05 looks at."""

# As many steps on two images as on sixty-four, so that nothing but the data changes.
FEW_CELLS = replace(CELLS, name="few-cells", title="U-Net and FCN-8s on few cells", steps=200)


# Networks of one size ----------------------------------------------------------------------------------------


def builder_of(name: str, width: int) -> tuple[str, dict[str, Any]]:
    """Builder and arguments of a network of this width, the channels of its finest level (DeepLabV3+: of C2).

    Raises:
        ValueError: for a name that is none of `NETWORKS`.
    """
    if name == "U-Net":
        return "unet", {"base_filters": width, "depth": 4, "normalization": "batch"}
    if name in FCNS:
        return "fcn", {
            "stride": int(name.removeprefix("FCN-").removesuffix("s")),
            "backbone": "small",
            "widths": tuple(width * factor for factor in (1, 2, 4, 8, 8)),
            "head_filters": 8 * width,
            "normalization": "batch",
            "dropout": 0.0,
        }
    if name == "DeepLabV3+":
        return "deeplab", {
            "backbone": "small",
            "output_stride": 8,
            "widths": tuple(width * factor for factor in (1, 2, 4, 8)),
            "aspp_filters": 4 * width,
            "decoder_filters": (2 * width, 4 * width),
            # The map has a side of 12: as published for 513 pixels (33), in proportion.
            "rates": (2, 4, 6),
            "dropout": 0.0,
        }
    raise ValueError(f"network is {name!r}; it must be one of {', '.join(map(repr, NETWORKS))}.")


@cache
def width_of(name: str, dataset: str) -> int:
    """The width at which a network's number of trainable parameters is nearest to the U-Net's."""
    recipe = SETS[dataset]
    if name == "U-Net":
        return BASE_FILTERS

    def count(width: int) -> int:
        return trainable_parameters(_with(recipe, name, width).model(recipe.crop))

    return nearest_width(trainable_parameters(recipe.model(recipe.crop)), count)


def _with(recipe: recipes.Recipe, name: str, width: int) -> recipes.Recipe:
    builder, arguments = builder_of(name, width)
    return replace(recipe, name=f"{recipe.name}-{name.lower()}", network=builder, network_arguments=arguments)


def with_network(
    recipe: recipes.Recipe, name: str, seed: int = 0, images: int | None = None
) -> recipes.Recipe:
    """The recipe with another of the five networks and another seed; or with `images` images, drawn by the seed."""
    own = _with(recipe, name, width_of(name, recipe.dataset.__name__))
    if images is not None:
        own = replace(own, train_data={**own.train_data, "length": images, "seed": 100 + seed})
    return replace(own, seed=seed)


def trainable_parameters(model: keras.Model) -> int:
    """Parameters that training changes: without fixed bilinear kernels and the statistics of normalizations."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


# Training ----------------------------------------------------------------------------------------------------


def trained(variants: Sequence[recipes.Recipe], progress: Callable[[str], None] = print) -> list:
    """The networks of recipes that differ in seed and data alone, trained; `(recipe, model)` each.

    The network is compiled once for all of them: XLA takes as long over a small one as a third of its training. What has
    been trained is kept in `runs/`, and read from there the next time; five of the networks are part of the course.

    Raises:
        ValueError: if the recipes differ in anything else.
    """
    first = variants[0]
    for other in variants:
        if replace(other, seed=0, train_data={}, name="any") != replace(
            first, seed=0, train_data={}, name="any"
        ):
            raise ValueError(
                f"variants: {other.name} differs from {first.name} in more than seed and training data; compile it apart."
            )
    learner, found = None, []
    for recipe in variants:
        path = weights_of(recipe)
        if not path.is_file():
            if learner is None:
                learner = first.model(first.crop)
                training.compile_model(learner, first, jit=training.JIT)
            training.start_again(learner, recipe)
            history = learner.fit(recipe.batches("train"), epochs=recipe.epochs, verbose=0, shuffle=False)
            checkpoints.save_weights(learner, path)
            progress(f"{recipe.name}, seed {recipe.seed}: loss {history.history['loss'][-1]:.3f}")
        model = recipe.model(recipe.crop)
        checkpoints.load_weights(model, path)
        found.append((recipe, model))
    return found


def weights_of(recipe: recipes.Recipe) -> Path:
    """The file of a network's weights: the shipped one if there is one, else the place for it in `runs/`."""
    name = f"{recipe.name}-{recipe.digest}.npz"
    return SHIPPED / name if (SHIPPED / name).is_file() else training.RUNS / name


def shipped_network(name: str) -> tuple[recipes.Recipe, keras.Model]:
    """One of the five networks as it is shipped: trained on cells, from the first seed."""
    return trained([with_network(CELLS, name, SEEDS[0])])[0]


# What is measured --------------------------------------------------------------------------------------------


def probabilities(recipe: recipes.Recipe, model: keras.Model, dataset: Sequence[Sample]) -> np.ndarray:
    """Of images of one size, float32 `(images, height, width, classes)`."""
    images = np.stack([normalize(sample.image, recipe.normalization) for sample in dataset])
    # Called, not `predict`ed, which compiles each model anew.
    parts = [model(images[start : start + 16], training=False) for start in range(0, len(images), 16)]
    return softmax(np.concatenate([keras.ops.convert_to_numpy(part) for part in parts]))


def found_objects(sample: Sample, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which objects of an image are found by a mask of all objects.

    Of each object only its surroundings count: its own pixels and those up to `SURROUNDINGS` pixels away that are no
    other object's and nearer to none. There, mask and object must have an IoU of at least 0.5: a blank finds nothing, a
    blot over everything only objects that are large or crowded.

    Args:
        sample: with its instance map, ids 1..n.
        mask: boolean `(height, width)`.

    Returns:
        Sizes (roots of the visible pixels), float `(n,)`, and whether each was found, bool `(n,)`.
    """
    count = int(sample.instances.max())
    around = expand_labels(sample.instances, SURROUNDINGS)
    size = np.bincount(sample.instances.ravel(), minlength=count + 1)[1:]
    hit = np.bincount(sample.instances[mask], minlength=count + 1)[1:]
    claimed = np.bincount(around[mask], minlength=count + 1)[1:]
    return np.sqrt(size), hit / np.maximum(size + claimed - hit, 1) >= 0.5


def measured(recipe: recipes.Recipe, model: keras.Model, dataset: Sequence[Sample]) -> dict[str, Any]:
    """How good a network is, as a whole, at the boundary, and by size of object.

    Returns:
        `mean_iou` over the classes, all pixels together; of objects against background (called an object where the
        background is given less than half): `foreground_iou`, `boundary_f1` (tolerance → mean over the images) and
        `recall` (name of the bin of size → fraction of its objects that were found).
    """
    classes = len(recipe.class_names())
    matrix, scores = 0, {tolerance: [] for tolerance in TOLERANCES}
    inside, sizes, found = np.zeros(2), [], []
    for sample, one in zip(dataset, probabilities(recipe, model, dataset), strict=True):
        matrix = matrix + semantic.confusion_matrix(sample.semantic, one.argmax(-1).astype(np.int32), classes)
        truth, mask = sample.semantic > 0, one[..., 0] < 0.5
        inside += (truth & mask).sum(), (truth | mask).sum()
        for tolerance, values in scores.items():
            values.append(boundary_f1(truth, mask, tolerance))
        size, hit = found_objects(sample, mask)
        sizes.append(size)
        found.append(hit)
    bins = np.digitize(np.concatenate(sizes), SIZES) - 1
    hits = np.concatenate(found)
    return {
        "mean_iou": float(np.nanmean(semantic.iou_per_class(matrix))),
        "foreground_iou": float(inside[0] / inside[1]),
        "boundary_f1": {str(tolerance): float(np.nanmean(values)) for tolerance, values in scores.items()},
        "recall": {
            name: float(hits[bins == k].mean()) for k, name in enumerate(SIZE_NAMES) if (bins == k).any()
        },
    }


def first_edition() -> dict[str, Any]:
    """What `measured` said of the first edition's networks.

    Returns:
        `networks`: set → network → scores, one value per seed; `curves`: network → number of training images → scores;
        `gain`: number of training images → U-Net minus FCN-8s in boundary F1 within 2 pixels, one value per seed.
    """
    return json.loads((SHIPPED / "first-edition.json").read_text(encoding="utf8"))


def _points(value: float) -> str:
    return f"{100 * value:.0f} %"


# The claims --------------------------------------------------------------------------------------------------


def structure(model: keras.Model) -> dict[str, Any]:
    """The structure of a segmentation network's encoder and decoder, read from its layers in order.

    Returns:
        `parameters`; `down` and `up`, the parameters of the layers before and after the coarsest map was last made
        (1 × 1 score layers on a skip, as FCN's, belong to the way up); `deepest`, `(side, channels)` of that map;
        `merges`, one `{"kind", "stride", "skip_channels", "other_channels"}` for each place where a finer map of the way
        down joins, from coarse to fine; `learned_up`, the trainable parameters of transposed convolutions.
    """
    side = model.input.shape[1]
    if side is None:
        raise ValueError(
            "model: it was built for any size; build it with a height and a width, to see its maps."
        )
    maps = [layer for layer in model.layers if len(getattr(layer.output, "shape", ())) == 4]
    coarsest = min(layer.output.shape[1] for layer in maps)
    last = max(k for k, layer in enumerate(maps) if layer.output.shape[1] == coarsest)
    merges = []
    for layer in maps[last + 1 :]:
        if isinstance(layer, (keras.layers.Concatenate, keras.layers.Add)):
            skip, other = _skip_first(layer, coarsest)
            merges.append(
                {
                    "kind": type(layer).__name__.lower(),
                    "stride": round(side / layer.output.shape[1]),
                    "skip_channels": int(skip.shape[-1]),
                    "other_channels": int(other.shape[-1]),
                }
            )
    up = {layer.name for layer in maps[last + 1 :]} | {
        layer.name for layer in maps if layer.name.startswith("score_")
    }
    count = {name: 0 for name in ("down", "up")}
    for layer in maps:
        count["up" if layer.name in up else "down"] += layer.count_params()
    transposed = [layer for layer in maps if isinstance(layer, keras.layers.Conv2DTranspose)]
    return {
        "parameters": model.count_params(),
        **count,
        "deepest": [
            int(coarsest),
            max(int(one.output.shape[-1]) for one in maps if one.output.shape[1] == coarsest),
        ],
        "merges": merges,
        "learned_up": sum(math.prod(v.shape) for layer in transposed for v in layer.trainable_variables),
    }


def _skip_first(layer: keras.layers.Layer, coarsest: int) -> tuple:
    """The two inputs of a merge: first the one that comes from the way down, which has seen no coarser map."""
    one, other = layer.input
    return (one, other) if not _comes_from(one, coarsest) else (other, one)


def _comes_from(tensor, side: int) -> bool:
    """Whether a map of this side lies on some way from the image to this map."""
    seen, ahead = set(), [tensor]
    while ahead:
        one = ahead.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if len(one.shape) == 4 and one.shape[1] == side:
            return True
        source = one._keras_history.operation
        inputs = source.input if not isinstance(source, keras.layers.InputLayer) else []
        ahead += inputs if isinstance(inputs, (list, tuple)) else [inputs]
    return False


PUBLISHED_SIDES = {"U-Net": 256, "FCN-8s": 256}
"""Both with maps of the image's size, so that their shapes can be laid side by side."""


def claim_5_1(progress: Callable[[str], None] = print) -> Result:
    """U-Net is symmetric with concatenation; FCN interpolates and fuses few features: read from the published networks."""
    from course_lib.models import fcn, unet

    side = PUBLISHED_SIDES
    table = {
        "U-Net": structure(unet((side["U-Net"], side["U-Net"], 3), 21)),
        "FCN-8s": structure(fcn((side["FCN-8s"], side["FCN-8s"], 3), 21)),
    }
    ours, theirs = table["U-Net"], table["FCN-8s"]
    must([one["stride"] for one in ours["merges"]] == [8, 4, 2, 1], "U-Net merges at every stride down to 1")
    must({one["kind"] for one in ours["merges"]} == {"concatenate"}, "U-Net concatenates")
    must(
        all(one["skip_channels"] == one["other_channels"] for one in ours["merges"]),
        "U-Net's halves are alike",
    )
    must([one["stride"] for one in theirs["merges"]] == [16, 8], "FCN-8s merges at strides 16 and 8 alone")
    must({one["kind"] for one in theirs["merges"]} == {"add"}, "FCN-8s adds")
    must({one["skip_channels"] for one in theirs["merges"]} == {21}, "FCN-8s adds scores, one map per class")
    fraction = {name: one["up"] / one["parameters"] for name, one in table.items()}
    return demonstrated(
        "5.1",
        "U-Net is symmetric and concatenates; FCN interpolates and fuses few features.",
        "where, how and with how many channels finer feature maps enter the decoder of the published networks",
        f"U-Net's decoder holds {_points(fraction['U-Net'])} of the parameters and concatenates {len(ours['merges'])} "
        f"skips with {ours['merges'][0]['skip_channels']} to {ours['merges'][-1]['skip_channels']} channels, down to "
        f"stride 1. The decoder of FCN-8s holds {100 * fraction['FCN-8s']:.1f} %, adds {len(theirs['merges'])} score "
        f"maps and interpolates from stride {theirs['merges'][-1]['stride']}.",
        table,
    )
