"""Recipes: data, network, task, loss, schedule and seed of a training in one object. Creating one runs nothing."""

import dataclasses
import inspect
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras

from course_lib import configuration, datasets, models
from course_lib._checks import in_range, one_of, whole_number
from course_lib.datasets.augmentation import Augmentation
from course_lib.datasets.loading import NORMALIZATIONS, SAMPLINGS, Batches
from course_lib.losses import CrossEntropy, Dice, check_takes_logits
from course_lib.models.arguments import plain
from course_lib.schedules import CosineCycles
from course_lib.tasks import DECODING, Borders, Membranes, Objects, Semantic, Task

_SHIPPED = (datasets.cells, datasets.scenes, datasets.nuclei, datasets.membranes, datasets.camvid)
DATASETS: dict[str, Callable] = {one.__name__: one for one in (*_SHIPPED, datasets.folder, datasets.coco)}
_BUILDERS = (models.unet, models.fcn, models.deeplab, models.MaskRCNN)
NETWORKS: dict[str, Callable] = {one.__name__: one for one in _BUILDERS}


@dataclass(frozen=True)
class Recipe:
    """One training, completely: the same recipe, data and seed give the same network, up to the rounding of the device.

    It is checked when it is made: what cannot be is said before any work is lost, with the argument's name.

    Attributes:
        name: what the command line calls it, and the name of its folder of weights.
        title: one line for people.
        dataset: a function `(split, **arguments) -> Dataset`, such as `datasets.cells`; or the name of one of `DATASETS`.
        train_data, val_data: its arguments beside the split, for the training set and for the other splits; `val_data` is
            by default `train_data`.
        network: a function that builds the network, such as `models.unet`, or the name of one of `NETWORKS`; it is called
            with the input's shape `(height, width, channels)` and the number of classes.
        network_arguments: its further arguments.
        task: what is learned of a sample and how the output is read (see `tasks`).
        normalization: `"none"` or `"stretch"`.
        augmentation: what happens to the training images.
        loss: a Keras loss of class ids and logits, such as `CrossEntropy() + 0.5 * Dice()`; by default the task's.
        epochs, steps, batch_size, crop: how long and on what; `steps` batches make an epoch, `crop` is in pixels.
        learning_rate, warmup, weight_decay: AdamW; the rate climbs for `warmup` of all steps (a fraction), then falls
            to zero along a cosine.
        sampling: how often each training image is taken (see `datasets.loading.Batches`).
        clip: longest gradient, over all weights together, that a step may follow; a longer one is shortened.
        restarts: epochs after which the rate starts falling anew, from half the height before; see `CosineCycles`.
        seed: decides initial weights, order, crops and augmentation.

    Raises:
        TypeError, ValueError: for an argument that cannot be.
    """

    name: str
    title: str
    dataset: Callable | str
    train_data: Mapping[str, Any] = field(default_factory=dict)
    val_data: Mapping[str, Any] | None = None
    network: Callable | str = models.unet
    network_arguments: Mapping[str, Any] = field(default_factory=dict)
    task: Task = Semantic()
    normalization: str = "none"
    augmentation: Augmentation = Augmentation()
    loss: Callable | None = None
    epochs: int = 10
    steps: int = 100
    batch_size: int = 8
    crop: tuple[int, int] = (128, 128)
    learning_rate: float = 1e-3
    warmup: float = 0.05
    weight_decay: float = 1e-4
    sampling: str = "uniform"
    clip: float | None = None
    restarts: tuple[int, ...] = ()
    seed: int = 0

    def __post_init__(self):
        if not isinstance(self.name, str) or not self.name.strip(". ") or set(self.name) & set("/\\:\0\n"):
            raise ValueError(f"name is {self.name!r}; it must be a string that can be the name of a folder.")
        if not isinstance(self.title, str):
            raise TypeError(f"title is {self.title!r}; it must be a string.")
        self._set("dataset", _named("dataset", self.dataset, DATASETS))
        self._set("network", _named("network", self.network, NETWORKS))
        _check_arguments("train_data", self.train_data, "dataset", self.dataset, 1)
        if self.val_data is not None:
            _check_arguments("val_data", self.val_data, "dataset", self.dataset, 1)
        if not isinstance(self.task, Task):
            raise TypeError(
                f"task is {self.task!r}; it must be one of course_lib.tasks, such as Semantic() or Borders()."
            )
        self.task.check_network(self.network)
        _check_arguments("network_arguments", self.network_arguments, "network", self.network, 2)
        if not isinstance(self.augmentation, Augmentation):
            raise TypeError(
                f"augmentation is {self.augmentation!r}; it must be an Augmentation, such as Augmentation(flip=True)."
            )
        if self.loss is not None and (isinstance(self.loss, type) or not callable(self.loss)):
            raise TypeError(
                f"loss is {self.loss!r}; it must be a loss object, such as CrossEntropy() + Dice()."
            )
        if isinstance(self.loss, keras.metrics.Metric):
            raise TypeError(f"loss is {self.loss!r}; a metric has no gradient, give a loss such as Dice().")
        if self.loss is not None:
            check_takes_logits(self.loss)
        if self.loss is not None and self.task.loss() is None:
            raise ValueError(
                f"loss is {self.loss!r}; a network for {type(self.task).__name__} brings its own loss: leave it out."
            )
        one_of("normalization", self.normalization, NORMALIZATIONS)
        one_of("sampling", self.sampling, SAMPLINGS)
        for name in ("epochs", "steps", "batch_size"):
            self._set(name, whole_number(name, getattr(self, name), 1))
        self._set("crop", plain(self.crop))
        self._set("network_arguments", plain(self.network_arguments))
        if not isinstance(self.crop, Sequence) or isinstance(self.crop, str) or len(self.crop) != 2:
            raise TypeError(
                f"crop is {self.crop!r}; it must be a height and a width in pixels, such as (128, 128)."
            )
        self._set("crop", tuple(whole_number("crop: a side", side, 1) for side in self.crop))
        in_range("learning_rate", self.learning_rate, 0, open_low=True)
        in_range("warmup", self.warmup, 0, 1, open_high=True)
        in_range("weight_decay", self.weight_decay, 0)
        if self.clip is not None:
            in_range("clip", self.clip, 0, open_low=True)
        self._set(
            "restarts",
            tuple(whole_number("restarts: an epoch", epoch, 1, self.epochs - 1) for epoch in self.restarts),
        )
        if list(self.restarts) != sorted(set(self.restarts)):
            raise ValueError(f"restarts is {self.restarts}; its numbers must increase.")
        self._set("seed", whole_number("seed", self.seed, 0))
        self.configuration()  # refuses an object of which it cannot be told whether it changes

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def configuration(self) -> dict[str, Any]:
        """What the weights depend on, as plain JSON: all except the title, the validation data and the decoding of
        the output."""
        task = {"class": type(self.task).__name__} | {
            name: value for name, value in _given(self.task).items() if name not in DECODING
        }
        known = {function: name for name, function in (DATASETS | NETWORKS).items()}
        content = _given(self, "title", "val_data") | {"task": task, "loss": self.loss_or_default()}
        for name in ("dataset", "network"):
            value = getattr(self, name)
            content[name] = known.get(value, value)
        return {name: configuration.plain(value, name) for name, value in content.items()}

    @property
    def digest(self) -> str:
        """12 hexadecimal digits that change whenever the configuration does. The content of the data has its own, its
        `fingerprint`."""
        return configuration.digest(self.configuration())

    def data(self, split: str = "train"):
        """The data set of this split, a `datasets.Dataset`."""
        other = self.train_data if self.val_data is None else self.val_data
        data = self.dataset(split, **(self.train_data if split == "train" else other))
        if not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
            raise TypeError(
                f"dataset returned {data!r} for {split!r}; it must return a Dataset or a list of Samples."
            )
        return data

    def batches(self, split: str = "train", dataset=None) -> Batches:
        """Batches of this split for `fit`: augmented and shuffled for training, the same fixed crops otherwise."""
        train = split == "train"
        return Batches(
            self.data(split) if dataset is None else dataset,
            self.batch_size,
            self.crop,
            steps=self.steps if train else None,
            task=self.task,
            augmentation=self.augmentation if train else None,
            normalization=self.normalization,
            seed=self.seed,
            sampling=self.sampling if train else "uniform",
            classes=None if self.task.loss() is None else len(self.class_names()),
        )

    def class_names(self) -> tuple[str, ...]:
        """The classes that the network distinguishes."""
        return self.task.class_names(self._of_data("class_names"))

    def channels(self) -> int:
        """The channels of the images, 1 or 3."""
        return self._of_data("channels")

    @property
    def ships_data(self) -> bool:
        """Whether the data is one of the course's own sets, which are the same everywhere."""
        return self.dataset in [DATASETS[name] for name in datasets.CLASSES_AND_CHANNELS]

    def _of_data(self, name: str) -> Any:
        """What is known of the data without opening it, where that is enough."""
        if self.train_data.get(name):
            return self.train_data[name]
        known = {DATASETS[name]: facts for name, facts in datasets.CLASSES_AND_CHANNELS.items()}
        if self.dataset in known:
            return dict(zip(("class_names", "channels"), known[self.dataset], strict=True))[name]
        data = self.data("train")
        if not hasattr(data, name):
            raise ValueError(
                f"dataset returned a {type(data).__name__} that lacks {name!r}; it must return a datasets.Dataset, or a "
                "list with the attributes class_names and channels."
            )
        return getattr(data, name)

    def model(self, input_size: tuple[int | None, int | None] = (None, None)) -> keras.Model:
        """The untrained network, its weights drawn from the seed."""
        # Keras draws the seed of each initializer and of each dropout from Python's generator.
        state = random.getstate()
        random.seed(self.seed)
        try:
            shape, classes = (*input_size, self.channels()), len(self.class_names())
            model = self.task.build(self.network, shape, classes, self.seed, **self.network_arguments)
            if not isinstance(model, keras.Model):
                raise TypeError(f"network returned {model!r}; it must return a keras.Model.")
            self.task.check_model(model, classes, shape[-1])
            return model
        finally:
            random.setstate(state)

    def loss_or_default(self) -> Callable | None:
        """The loss, or the task's; `None` for a network that brings its own."""
        return self.loss or self.task.loss()

    def optimizer(self) -> keras.optimizers.Optimizer:
        """AdamW with the recipe's schedule."""
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


def _named(name: str, value: Any, known: Mapping[str, Callable]) -> Callable:
    """A function, or the one of this name."""
    if isinstance(value, str):
        return known[one_of(name, value, known)]
    if not callable(value):
        raise TypeError(
            f"{name} is {value!r}; it must be a function, or one of {', '.join(map(repr, known))}."
        )
    return value


def _check_arguments(name: str, given: Any, kind: str, function: Callable, first: int) -> None:
    """Refuse arguments that the function does not take, and the lack of one that it needs; the `first` ones are ours."""
    if not isinstance(given, Mapping):
        raise TypeError(
            f"{name} is {given!r}; it must be a mapping of the arguments of {kind}, such as {{}}."
        )
    try:
        parameters = list(inspect.signature(function).parameters.values())[first:]
    except (TypeError, ValueError):  # a function that Python cannot look into says it when it is called
        return
    title = getattr(function, "__name__", repr(function))
    named = [one for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    if not any(one.kind is one.VAR_KEYWORD for one in parameters):
        for key in given:
            if key not in [one.name for one in named]:
                takes = ", ".join(one.name for one in named) or "no such arguments"
                raise ValueError(f"{name} holds {key!r}; {title} takes {takes}.")
    for one in named:
        if one.default is one.empty and one.name not in given and one.name != "seed":
            raise ValueError(f"{name} lacks {one.name!r}, which {title} needs.")


def _given(value: Any, *without: str) -> dict[str, Any]:
    """The fields of a dataclass that are not at their default."""
    kept = {}
    for one in dataclasses.fields(value):
        default = one.default if one.default_factory is dataclasses.MISSING else one.default_factory()
        if one.name not in without and repr(getattr(value, one.name)) != repr(default):
            kept[one.name] = getattr(value, one.name)
    return kept


NUCLEI = Recipe(
    name="unet-nuclei",
    title="U-Net with a border class, on fluorescence nuclei of the 2018 Data Science Bowl",
    dataset=datasets.nuclei,
    network_arguments={"base_filters": 16, "depth": 4, "normalization": "batch"},
    task=Borders(
        2.0,
        tta="flips",
        choices={
            "seed_threshold": (0.6, 0.7, 0.8, 0.85, 0.9),
            "mask_threshold": (0.25, 0.3, 0.35, 0.4),
            "min_size": (20,),
        },
        choose_by="ap_mean",
    ),
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
    loss=CrossEntropy() + Dice(),
    epochs=40,
    steps=75,
    batch_size=8,
    crop=(144, 144),
    learning_rate=2e-3,
    sampling="root_area",
)

# Chapter 9: trained in minutes, without the second largest source of images, which is its test set. No choice was made
# on that set; the thresholds are chosen on the validation images of the other sources.
NUCLEI_BY_SOURCE = replace(
    NUCLEI,
    name="unet-nuclei-by-source",
    title="A small U-Net on the nuclei of all sources but one, which is held out for the test",
    train_data={"held_out": (520, 696)},
    network_arguments={"base_filters": 8, "depth": 4, "normalization": "batch"},
    task=replace(NUCLEI.task, tta="none"),
    epochs=8,
    steps=40,
    crop=(112, 112),
)

MEMBRANES = Recipe(
    name="unet-membranes",
    title="U-Net on the electron-microscopy slices it was published on (ISBI 2012)",
    dataset=datasets.membranes,
    network_arguments={"base_filters": 16, "depth": 4, "normalization": "batch"},
    task=Membranes(
        tta="turns",
        choices={"segment_threshold": tuple(round(0.4 + 0.025 * k, 3) for k in range(23))},
        choose_by="rand",
    ),
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
    loss=CrossEntropy(),
    epochs=20,
    steps=50,
    batch_size=4,
    crop=(224, 224),
    learning_rate=2e-3,
)

CELLS = Recipe(
    name="unet-cells",
    title="U-Net with a border class, on cells that the course makes itself",
    dataset=datasets.cells,
    train_data={"length": 256, "size": 128, "seed": 1},
    val_data={"length": 32, "size": 128, "seed": 1},
    network_arguments={"base_filters": 16, "depth": 3, "normalization": "batch"},
    task=Borders(
        1.5,
        choices={"seed_threshold": (0.3, 0.5, 0.7), "mask_threshold": (0.4, 0.5, 0.6), "min_size": (10, 20)},
        choose_by="ap_mean",
    ),
    normalization="stretch",
    augmentation=Augmentation(flip=True, turn=True, gain=0.1, offset=0.05),
    loss=CrossEntropy() + Dice(),
    epochs=10,
    steps=32,
    batch_size=8,
    crop=(128, 128),
    learning_rate=3e-3,
)

# Few, large, clear objects of four shapes: a small network learns each class within minutes. The parameters of
# `scenes` make it as hard as one likes. Data, size and schedule are those of the experiments of chapters 3 and 4.
PLAIN_SCENES = {
    "size": 48,
    "seed": 2,
    "class_names": ("background", "disc", "triangle", "cross", "ring"),
    "objects": (1, 2),
    "object_size": (21.6, 43.2),
    "occlusion": 0.1,
    "thin": (0.2, 0.5),
    "contrast": (0.4, 0.5),
    "noise": (0.0, 0.02),
}

SCENES = Recipe(
    name="unet-scenes",
    title="U-Net on scenes of four kinds of object",
    dataset=datasets.scenes,
    train_data={"length": 2000} | PLAIN_SCENES,
    val_data={"length": 200} | PLAIN_SCENES,
    network_arguments={"base_filters": 8, "depth": 3, "normalization": "batch"},
    augmentation=Augmentation(flip=True, turn=True),
    epochs=12,
    steps=100,
    batch_size=16,
    crop=(48, 48),
    learning_rate=6e-3,
    weight_decay=0.0,
    clip=10.0,
)

# For a CPU: a hundredth of the published network's parameters, all its parts. Objects of a few pixels need finer maps
# than the published strides of 4 to 32, so the stem does not pool.
SMALL_MASK_RCNN = {"backbone": "small", "filters": 64, "box_units": 256, "mask_filters": 48}

MASK_RCNN_SCENES = Recipe(
    name="maskrcnn-scenes",
    title="A small Mask R-CNN on scenes of six kinds of object, from 4 pixels to the whole image",
    dataset=datasets.scenes,
    train_data={"length": 4000, "size": 128, "seed": 3, "contrast": (0.3, 0.5)},
    val_data={"length": 128, "size": 128, "seed": 3, "contrast": (0.3, 0.5)},
    network=models.MaskRCNN,
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
    task=Objects(
        10,
        choices={"score_threshold": (0.3, 0.4, 0.5, 0.6, 0.7), "mask_threshold": (0.5,), "min_size": (1,)},
        choose_by="ap_mean",
    ),
    augmentation=Augmentation(flip=True, turn=True, gain=0.1, offset=0.05),
    epochs=45,
    restarts=(30,),
    steps=125,
    batch_size=8,
    crop=(128, 128),
    learning_rate=2e-3,
    clip=5.0,
)

MASK_RCNN_NUCLEI = Recipe(
    name="maskrcnn-nuclei",
    title="A small Mask R-CNN on fluorescence nuclei of the 2018 Data Science Bowl",
    dataset=datasets.nuclei,
    network=models.MaskRCNN,
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
    task=Objects(
        100,
        choices={
            "score_threshold": (0.3, 0.4, 0.5, 0.6, 0.7),
            "mask_threshold": (0.4, 0.5, 0.6),
            "min_size": (20,),
        },
        choose_by="ap_mean",
    ),
    normalization="stretch",
    augmentation=NUCLEI.augmentation,
    epochs=30,
    steps=100,
    batch_size=8,
    crop=(128, 128),
    learning_rate=2e-3,
    clip=5.0,
    sampling="root_area",
)

UNET_CAMVID_SMALL = Recipe(
    name="unet-camvid-small",
    title="U-Net on the street scenes of CamVid at half size, from scratch",
    dataset=datasets.camvid,
    train_data={"shrink": 2},
    val_data={"shrink": 2},
    network_arguments={"base_filters": 12, "depth": 4, "normalization": "batch"},
    # A street is never upside down: mirrored left to right, nearer and farther, in other light, and no more.
    augmentation=Augmentation(flip=True, scale=(0.75, 1.5), gain=0.2, offset=0.1, gamma=1.3, noise=0.02),
    loss=CrossEntropy() + Dice(),
    epochs=25,
    steps=92,
    batch_size=4,
    crop=(176, 240),
    learning_rate=2e-3,
)

# The same data, loss, schedule and seed, and as near as it goes as many parameters.
FCN8_CAMVID_SMALL = replace(
    UNET_CAMVID_SMALL,
    name="fcn8-camvid-small",
    title="FCN-8s on the street scenes of CamVid at half size, from scratch",
    network=models.fcn,
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
    network=models.deeplab,
    network_arguments={
        "backbone": "small",
        "output_stride": 8,
        "widths": (24, 48, 96, 128),
        "aspp_filters": 96,
        "decoder_filters": (32, 96),
        "rates": (3, 6, 9),
    },
)

# Full size. Streets are mostly road, buildings, sky and trees: a class weighs the square root of median frequency over
# frequency (Eigen and Fergus 2015, https://arxiv.org/abs/1411.4734, have no root), counted on the frames of two drives.
CAMVID_WEIGHTS = (0.6, 0.4, 2.4, 0.4, 0.9, 0.7, 2.2, 1.3, 1.0, 2.5, 2.0)
DEEPLAB_CAMVID = replace(
    UNET_CAMVID_SMALL,
    name="deeplab-camvid",
    title="DeepLabV3+ on the street scenes of CamVid, from scratch",
    train_data={},
    val_data={},
    network=models.deeplab,
    network_arguments={
        "backbone": "small",
        "output_stride": 16,
        "widths": (32, 64, 96, 128),
        "blocks": (1, 2, 3, 2),
        "aspp_filters": 64,
        "decoder_filters": (32, 48),
        "rates": (3, 6, 9),
    },
    task=Semantic(tta="mirror"),
    augmentation=Augmentation(flip=True, scale=(0.6, 1.6), gain=0.25, offset=0.1, color=0.1, gamma=1.5),
    loss=CrossEntropy(class_weights=CAMVID_WEIGHTS) + Dice(),
    epochs=75,
    steps=100,
    batch_size=6,
    crop=(224, 304),
    learning_rate=2e-3,
    weight_decay=1e-2,
)

# The same, validated on a drive of which the network has seen no frame: the score that holds for another street.
DEEPLAB_CAMVID_BY_DRIVE = replace(
    DEEPLAB_CAMVID,
    name="deeplab-camvid-by-drive",
    title="DeepLabV3+ on the street scenes of CamVid, one drive held out, from scratch",
    train_data={"held_out": "0006R0"},
    val_data={"held_out": "0006R0"},
)


def _full_size(recipe: Recipe, name: str | None = None, **network_arguments: Any) -> Recipe:
    """A CamVid recipe at the size of the published results, for a GPU: the whole image, a wider network, longer."""
    return replace(
        recipe,
        name=name or recipe.name.removesuffix("-small"),
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
        NUCLEI_BY_SOURCE,
        MASK_RCNN_SCENES,
        MASK_RCNN_NUCLEI,
        UNET_CAMVID_SMALL,
        FCN8_CAMVID_SMALL,
        DEEPLAB_CAMVID_SMALL,
        DEEPLAB_CAMVID,
        DEEPLAB_CAMVID_BY_DRIVE,
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
            name="deeplab-camvid-large",
        ),
    )
}
"""Recipes that can be trained and are not shipped yet; they take days on a CPU. A file of weights stays under 16 MB."""


def get(name: str) -> Recipe:
    """The recipe of this name, or a `ValueError` that lists them all."""
    known = RECIPES | FOR_A_GPU
    if name not in known:
        raise ValueError(f"recipe is {name!r}; there are {', '.join(known)}.")
    return known[name]
