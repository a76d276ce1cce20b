"""What the course trains, as data: network, data, target, loss, schedule, seed. Nothing here runs until it is asked to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from course_lib.datasets.augmentation import Augmentation


@dataclass(frozen=True)
class Prediction:
    """How the trained net's probabilities become an answer. Thresholds are chosen on val, from these, and kept in the card.

    Attributes:
        average: views of each picture that are averaged (see `models.predict`).
        choices: name of a setting → the values to choose from.
        choose_by: the metric that decides, higher is better.
    """

    average: str = "none"
    choices: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    choose_by: str = ""


@dataclass(frozen=True)
class Recipe:
    """One training, completely: the same recipe and seed give the same net, up to the rounding of the device.

    Attributes:
        name: what the command line calls it.
        title: one line for people.
        dataset: name of a function in `course_lib.datasets`.
        train_data, val_data: arguments for it beside the split.
        network: name of a builder in `course_lib.models`, and its arguments in `network_arguments`.
        target: arguments of `datasets.loading.Target`.
        normalization: `"none"` or `"stretch"`.
        augmentation: what happens to the training pictures.
        losses: name of a loss in `course_lib.losses` → its factor.
        epochs, steps, batch_size, crop: how long and on what; `steps` batches make an epoch, `crop` is in pixels.
        learning_rate, warmup, weight_decay: AdamW; the rate climbs for `warmup` of all steps (a share), then falls
            to zero along a cosine.
        prediction: how the answer is read off.
        sampling: how often each training picture is taken (see `datasets.loading.Batches`).
        clip: longest gradient, over all weights together, that a step may follow; a longer one is shortened.
        restarts: epochs after which the rate starts falling anew, from half the height before; see `CosineCycles`.
        seed: decides initial weights, order, crops and augmentation.
    """

    name: str
    title: str
    dataset: str
    train_data: Mapping[str, Any] = field(default_factory=dict)
    val_data: Mapping[str, Any] = field(default_factory=dict)
    network: str = "unet"
    network_arguments: Mapping[str, Any] = field(default_factory=dict)
    target: Mapping[str, Any] = field(default_factory=dict)
    normalization: str = "none"
    augmentation: Augmentation = Augmentation()
    losses: Mapping[str, float] = field(default_factory=lambda: {"CrossEntropy": 1.0})
    epochs: int = 10
    steps: int = 100
    batch_size: int = 8
    crop: tuple[int, int] = (128, 128)
    learning_rate: float = 1e-3
    warmup: float = 0.05
    weight_decay: float = 1e-4
    prediction: Prediction = Prediction()
    sampling: str = "pictures"
    clip: float | None = None
    restarts: tuple[int, ...] = ()
    seed: int = 0

    @property
    def digest(self) -> str:
        """12 hexadecimal digits that change whenever anything does that the weights depend on."""
        content = asdict(self)
        # A new title, or another way to read the answer, needs no new training.
        for unrelated in ("title", "prediction", "val_data"):
            del content[unrelated]
        # These fields came after nets had been trained: where one is at its default, they are what they were.
        for later, default in (("sampling", "pictures"), ("clip", None), ("restarts", ())):
            if content[later] == default:
                del content[later]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def detects(self) -> bool:
        """Whether the net finds objects one by one, rather than giving each pixel a class."""
        return self.target.get("kind") == "objects"

    def data(self, split: str = "train"):
        """The data set of this split, a `datasets.Dataset`."""
        from course_lib import datasets

        return getattr(datasets, self.dataset)(
            split, **(self.train_data if split == "train" else self.val_data)
        )

    def batches(self, split: str = "train", dataset=None):
        """Batches of this split for `fit`: augmented and shuffled for train, the same fixed crops for val."""
        from course_lib.datasets.loading import Batches, Target

        dataset = self.data(split) if dataset is None else dataset
        train = split == "train"
        return Batches(
            dataset,
            self.batch_size,
            self.crop,
            steps=self.steps if train else None,
            target=Target(**self.target),
            augmentation=self.augmentation if train else None,
            normalization=self.normalization,
            seed=self.seed,
            sampling=self.sampling if train else "pictures",
        )

    def class_names(self) -> tuple[str, ...]:
        """The classes that the net answers with."""
        from course_lib.datasets import class_names
        from course_lib.datasets.targets import THREE_CLASSES

        if self.target.get("kind") == "three_classes":
            return THREE_CLASSES
        # Of one's own pictures (`datasets.folder`, `datasets.coco`) no list knows the classes but the arguments do.
        return tuple(self.train_data.get("class_names") or class_names(self.dataset))

    def model(self, input_size: tuple[int | None, int | None] = (None, None)):
        """The untrained network, its weights drawn from the seed."""
        import keras

        from course_lib import datasets, models

        keras.utils.set_random_seed(self.seed)
        builder = getattr(models, self.network)
        classes = len(self.class_names())
        channels = self.train_data.get("channels") or datasets.channels(self.dataset)
        if self.detects:
            return builder(classes, channels, seed=self.seed, **self.network_arguments)
        return builder((*input_size, channels), classes, **self.network_arguments)

    def loss(self):
        """The loss, a `losses.SegmentationLoss`; `None` for a net that brings its own."""
        from course_lib import losses

        if self.detects:
            return None

        parts = [factor * getattr(losses, name)() for name, factor in self.losses.items()]
        return sum(parts[1:], parts[0])

    def optimizer(self):
        """AdamW with the recipe's schedule."""
        import keras

        from course_lib.schedules import CosineCycles

        ends = (*self.restarts, self.epochs)
        lengths = [(end - start) * self.steps for start, end in zip((0, *self.restarts), ends, strict=True)]
        warmup = max(1, round(self.warmup * lengths[0]))
        schedule = CosineCycles(self.learning_rate, (max(lengths[0], warmup + 1), *lengths[1:]), warmup)
        optimizer = keras.optimizers.AdamW(
            schedule, weight_decay=self.weight_decay, global_clipnorm=self.clip
        )
        # Decay pulls kernels towards zero; biases and normalization scales have no reason to be small.
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        return optimizer


NUCLEI = Recipe(
    name="unet-nuclei",
    title="U-Net with a border class, on fluorescence nuclei of the 2018 Data Science Bowl",
    dataset="nuclei",
    network_arguments={"base_filters": 16, "depth": 4, "normalization": "batch"},
    target={"kind": "three_classes", "border": 2.0},
    normalization="stretch",
    augmentation=Augmentation(
        flip=True,
        turn=True,
        rotate=45,
        scale=(0.75, 1.33),
        elastic=3.0,
        gain=0.1,
        offset=0.02,
        gamma=1.2,
        noise=0.02,
        blur=0.5,
    ),
    losses={"CrossEntropy": 1.0, "Dice": 1.0},
    epochs=40,
    steps=75,
    batch_size=8,
    crop=(144, 144),
    learning_rate=2e-3,
    sampling="root_area",
    prediction=Prediction(
        average="flips",
        choices={
            "seed_threshold": (0.6, 0.7, 0.8, 0.85, 0.9),
            "mask_threshold": (0.25, 0.3, 0.35, 0.4),
            "min_size": (20,),
        },
        choose_by="ap_mean",
    ),
)

MEMBRANES = Recipe(
    name="unet-membranes",
    title="U-Net on the electron-microscopy slices it was published on (ISBI 2012)",
    dataset="membranes",
    network_arguments={"base_filters": 16, "depth": 4, "normalization": "batch"},
    augmentation=Augmentation(
        flip=True,
        turn=True,
        rotate=45,
        scale=(0.8, 1.25),
        elastic=6.0,
        gain=0.15,
        offset=0.1,
        gamma=1.2,
        noise=0.03,
    ),
    losses={"CrossEntropy": 1.0},
    epochs=20,
    steps=50,
    batch_size=4,
    crop=(224, 224),
    learning_rate=2e-3,
    prediction=Prediction(
        average="turns",
        choices={"segment_threshold": tuple(round(0.4 + 0.025 * k, 3) for k in range(23))},
        choose_by="rand",
    ),
)

CELLS = Recipe(
    name="unet-cells",
    title="U-Net with a border class, on cells that the course makes itself",
    dataset="cells",
    train_data={"length": 256, "size": 128, "seed": 1},
    val_data={"length": 32, "size": 128, "seed": 1},
    network_arguments={"base_filters": 16, "depth": 3, "normalization": "batch"},
    target={"kind": "three_classes", "border": 1.5},
    normalization="stretch",
    augmentation=Augmentation(flip=True, turn=True, gain=0.1, offset=0.05),
    losses={"CrossEntropy": 1.0, "Dice": 1.0},
    epochs=10,
    steps=32,
    batch_size=8,
    crop=(128, 128),
    learning_rate=3e-3,
    prediction=Prediction(
        choices={"seed_threshold": (0.3, 0.5, 0.7), "mask_threshold": (0.4, 0.5, 0.6), "min_size": (10, 20)},
        choose_by="ap_mean",
    ),
)

# Few, large, clear objects: the experiments ask what a net's parts are for, and that shows in nets that have learned
# their task within minutes. The dials of `scenes` make it as hard as one likes.
PLAIN_SCENES = {
    "object_size": (20.0, None),
    "objects": (1, 3),
    "contrast": (0.4, 0.5),
    "noise": (0.0, 0.02),
    "occlusion": 0.2,
}

SCENES = Recipe(
    name="unet-scenes",
    title="U-Net on scenes of six kinds of object; the experiments of chapters 3 and 4 vary it",
    dataset="scenes",
    train_data={"length": 768, "size": 64, "seed": 2} | PLAIN_SCENES,
    val_data={"length": 96, "size": 64, "seed": 2} | PLAIN_SCENES,
    network_arguments={"base_filters": 8, "depth": 3, "normalization": "batch"},
    augmentation=Augmentation(flip=True, turn=True, gain=0.1, offset=0.05),
    losses={"CrossEntropy": 1.0, "Dice": 0.5},
    epochs=8,
    steps=40,
    batch_size=16,
    crop=(64, 64),
    learning_rate=4e-3,
)

# For a CPU: a hundredth of the published network's parameters, all its parts. Objects of a few pixels need finer maps
# than the published strides of 4 to 32, so the stem does not pool.
SMALL_MASK_RCNN = {
    "backbone": "small",
    "filters": 64,
    "box_units": 256,
    "mask_filters": 48,
}

MASK_RCNN_SCENES = Recipe(
    name="maskrcnn-scenes",
    title="A small Mask R-CNN on scenes of six kinds of object, from 4 pixels to the whole picture",
    dataset="scenes",
    train_data={"length": 4000, "size": 128, "seed": 3, "contrast": (0.3, 0.5)},
    val_data={"length": 128, "size": 128, "seed": 3, "contrast": (0.3, 0.5)},
    network="MaskRCNN",
    network_arguments=SMALL_MASK_RCNN
    | {
        "backbone_arguments": {"widths": (24, 48, 96, 128), "blocks": (1, 1, 1, 1), "stem_stride": 2},
        "settings": {
            "anchor_sizes": (8.0, 16.0, 32.0, 64.0, 120.0),
            "rpn_batch_size_per_image": 64,
            "rpn_pre_nms_top_n": (256, 128),
            "rpn_post_nms_top_n": (128, 64),
            "box_batch_size_per_image": 32,
            "canonical_box_size": 96.0,
            "box_detections_per_img": 32,
        },
    },
    target={"kind": "objects", "max_objects": 10},
    augmentation=Augmentation(flip=True, turn=True, gain=0.1, offset=0.05),
    losses={},
    epochs=45,
    restarts=(30,),
    steps=125,
    batch_size=8,
    crop=(128, 128),
    learning_rate=2e-3,
    clip=5.0,
    prediction=Prediction(
        choices={"score_threshold": (0.3, 0.4, 0.5, 0.6, 0.7), "mask_threshold": (0.5,), "min_size": (1,)},
        choose_by="ap_mean",
    ),
)

MASK_RCNN_NUCLEI = Recipe(
    name="maskrcnn-nuclei",
    title="A small Mask R-CNN on fluorescence nuclei of the 2018 Data Science Bowl",
    dataset="nuclei",
    network="MaskRCNN",
    network_arguments=SMALL_MASK_RCNN
    | {
        "backbone_arguments": {"widths": (24, 48, 96, 128), "blocks": (1, 1, 1, 1), "stem_stride": 2},
        "settings": {
            "anchor_sizes": (8.0, 16.0, 32.0, 64.0, 128.0),
            "aspect_ratios": (0.7, 1.4),
            "rpn_batch_size_per_image": 128,
            "rpn_pre_nms_top_n": (500, 1000),
            "rpn_post_nms_top_n": (200, 1000),
            "box_batch_size_per_image": 64,
            "box_positive_fraction": 0.5,
            "canonical_box_size": 96.0,
            "box_detections_per_img": 400,
        },
    },
    target={"kind": "objects", "max_objects": 100},
    normalization="stretch",
    augmentation=NUCLEI.augmentation,
    losses={},
    epochs=30,
    steps=100,
    batch_size=8,
    crop=(128, 128),
    learning_rate=2e-3,
    clip=5.0,
    sampling="root_area",
    prediction=Prediction(
        choices={
            "score_threshold": (0.3, 0.4, 0.5, 0.6, 0.7),
            "mask_threshold": (0.4, 0.5, 0.6),
            "min_size": (20,),
        },
        choose_by="ap_mean",
    ),
)

UNET_CAMVID_SMALL = Recipe(
    name="unet-camvid-small",
    title="U-Net on the street scenes of CamVid at half size, from scratch",
    dataset="camvid",
    train_data={"shrink": 2},
    val_data={"shrink": 2},
    network_arguments={"base_filters": 12, "depth": 4, "normalization": "batch"},
    # A street is never upside down: mirrored left to right, nearer and farther, in other light, and no more.
    augmentation=Augmentation(flip=True, scale=(0.75, 1.5), gain=0.2, offset=0.1, gamma=1.3, noise=0.02),
    losses={"CrossEntropy": 1.0, "Dice": 1.0},
    epochs=25,
    steps=92,
    batch_size=4,
    crop=(176, 240),
    learning_rate=2e-3,
    prediction=Prediction(average="none"),
)

# The same data, loss, schedule and seed, and as near as it goes as many parameters.
FCN8_CAMVID_SMALL = replace(
    UNET_CAMVID_SMALL,
    name="fcn8-camvid-small",
    title="FCN-8s on the street scenes of CamVid at half size, from scratch",
    network="fcn",
    network_arguments={
        "stride": 8,
        "backbone": "small",
        "widths": (18, 36, 72, 144, 144),
        "head_filters": 216,
        "normalization": "batch",
    },
)

DEEPLAB_CAMVID_SMALL = replace(
    UNET_CAMVID_SMALL,
    name="deeplab-camvid-small",
    title="DeepLabV3+ on the street scenes of CamVid at half size, from scratch",
    network="deeplab",
    network_arguments={
        "backbone": "small",
        "output_stride": 8,
        "widths": (24, 48, 96, 128),
        "aspp_filters": 96,
        "decoder_filters": (32, 96),
        "rates": (3, 6, 9),
    },
)


def _full_size(recipe: Recipe, **network_arguments: Any) -> Recipe:
    """A CamVid recipe at the size of the published results, for a GPU: the whole picture, a wider net, longer."""
    return replace(
        recipe,
        name=recipe.name.removesuffix("-small"),
        title=recipe.title.replace(" at half size", ""),
        train_data={},
        val_data={},
        network_arguments=network_arguments,
        epochs=150,
        steps=46,
        batch_size=8,
        crop=(352, 480),
        learning_rate=1e-3,
    )


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        CELLS,
        SCENES,
        MEMBRANES,
        NUCLEI,
        MASK_RCNN_SCENES,
        MASK_RCNN_NUCLEI,
        UNET_CAMVID_SMALL,
        FCN8_CAMVID_SMALL,
        DEEPLAB_CAMVID_SMALL,
    )
}
"""The recipes whose trained weights are part of the course."""

FOR_A_GPU: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        _full_size(UNET_CAMVID_SMALL, base_filters=32, depth=4, normalization="batch"),
        _full_size(
            FCN8_CAMVID_SMALL,
            stride=8,
            backbone="small",
            widths=(42, 84, 168, 336, 336),
            convolutions=(2, 2, 3, 3, 3),
            head_filters=344,
            normalization="batch",
        ),
        _full_size(
            DEEPLAB_CAMVID_SMALL,
            backbone="small",
            output_stride=8,
            widths=(44, 88, 176, 352),
            blocks=(2, 2, 2, 2),
            aspp_filters=160,
            decoder_filters=(48, 160),
            rates=(6, 12, 18),
        ),
    )
}
"""Recipes that take days on a CPU: they can be trained, and are not shipped yet. A file of weights stays under 16 MB."""


def get(name: str) -> Recipe:
    """The recipe of this name, or a `ValueError` that lists them all."""
    known = RECIPES | FOR_A_GPU
    if name not in known:
        raise ValueError(f"recipe is {name!r}; there are {', '.join(known)}.")
    return known[name]
