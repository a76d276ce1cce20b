"""Four tasks: what a network learns from a sample, and how its output becomes the label map that a user gets.

    task = Borders(border=2.0)
    labels = task.encode(sample)                       # what the loss compares the logits with
    output = task.output(model, image)                 # probabilities; of a detector, its detections
    instances = task.decode(output, seed_threshold=0.7)
    task.score(samples, outputs, class_names)          # metric → value, in 0..1

`Semantic` gives each pixel a class; `Borders` separates touching objects by a class for the border between them;
`Objects` finds objects one by one (Mask R-CNN); `Membranes` is `Semantic` with the metrics of ISBI 2012.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import keras
import numpy as np

from course_lib._checks import in_range, one_of, whole_number
from course_lib.datasets.detection import counted_detections, instance_map, truth_from_maps
from course_lib.datasets.reading import LARGE
from course_lib.datasets.sample import Sample
from course_lib.datasets.targets import (
    THREE_CLASSES,
    border_weights,
    decode_three_classes,
    encode_three_classes,
)
from course_lib.losses import CrossEntropy, Dice, SegmentationLoss
from course_lib.metrics import COCOEvaluator, instance, partition, semantic
from course_lib.models import MaskRCNN
from course_lib.models.predict import (
    AVERAGES,
    predict_classes_tiled,
    predict_detections,
    predict_probabilities,
)
from course_lib.ops.masks import whole_image_masks

Output = np.ndarray | dict[str, np.ndarray]
"""What a network predicts for one image: probabilities `(height, width, classes)`, or a detector's detections."""

IOU_THRESHOLDS = np.linspace(0.5, 0.9, 9).round(2)
"""Where `ap_mean` is averaged."""


@dataclass(frozen=True)
class Task:
    """The base of the four tasks.

    Attributes:
        choices: a threshold's name → the values that are tried on the validation set; the others keep their default.
        choose_by: the metric that decides among them, higher is better.
        tta: test-time augmentation, the views of an image that are averaged: `"none"`, `"mirror"`, `"flips"` or `"turns"`
            (see `models.predict`).

    Raises:
        TypeError, ValueError: for a field that cannot be, with its name.
    """

    choices: Mapping[str, Sequence[float]] = field(default_factory=dict, kw_only=True)
    choose_by: str = field(default="", kw_only=True)
    tta: str = field(default="none", kw_only=True)

    thresholds: ClassVar[Mapping[str, float]] = {}
    """What `decode` may be told, with its defaults."""
    metrics: ClassVar[tuple[str, ...]] = ()
    """What `choose_by` may be."""
    counts_objects: ClassVar[bool] = False
    """Whether `decode` numbers objects; otherwise it gives classes."""

    def __post_init__(self):
        one_of("tta", self.tta, AVERAGES)
        if not isinstance(self.choices, Mapping):
            raise TypeError(
                f"choices is {self.choices!r}; it must map a threshold's name to the values to try, such as "
                '{"mask_threshold": (0.4, 0.5, 0.6)}.'
            )
        for name, values in self.choices.items():
            one_of("choices: a name", name, self.thresholds)
            if isinstance(values, str) or not isinstance(values, Sequence) or not len(values):
                raise TypeError(
                    f"choices[{name!r}] is {values!r}; it must be the values to try, at least one."
                )
            for value in values:
                self.check(name, value)
        if self.choices:
            one_of("choose_by", self.choose_by, self.metrics)

    @staticmethod
    def check(name: str, value: float) -> None:
        """Refuse a threshold outside 0..1, or a `min_size` below 0."""
        if name == "min_size":
            whole_number(name, value, 0)
        else:
            in_range(name, value, 0, 1)

    def complete(self, thresholds: Mapping[str, float]) -> dict[str, float]:
        """The thresholds, checked, and the default of each that is not given."""
        for name, value in thresholds.items():
            one_of("thresholds: a name", name, self.thresholds)
            self.check(name, value)
        return {**self.thresholds, **thresholds}

    def class_names(self, of_data: Sequence[str]) -> tuple[str, ...]:
        """The classes that the network distinguishes, from those of the data."""
        return tuple(of_data)

    def loss(self) -> SegmentationLoss | None:
        """The loss if a recipe names none; `None` for a network with its own loss."""
        return CrossEntropy()

    def build(
        self, network: Callable, input_shape: tuple, num_classes: int, seed: int, **arguments: Any
    ) -> keras.Model:
        """The untrained network: what a builder of `models` makes for this task."""
        return network(input_shape, num_classes, **arguments)

    def check_network(self, network: Callable) -> None:
        """Raise a `ValueError` for a network that is made for another task."""
        if network is MaskRCNN:
            raise ValueError(
                f"network is MaskRCNN; {type(self).__name__} needs a network with a class for each pixel, such as unet. "
                "A Mask R-CNN learns the task Objects()."
            )

    def check_model(self, model: keras.Model, classes: int, channels: int) -> None:
        """Raise a `ValueError` for a model of other classes or channels than the data's."""
        for name, wanted in (
            ("outputs", (classes, 1) if classes == 2 else (classes,)),
            ("inputs", (channels, None)),
        ):
            sides = getattr(model, name, None)  # a model of one's own class may not know them
            if sides and sides[0].shape[-1] not in wanted:
                raise ValueError(
                    f"network has {sides[0].shape[-1]} channels in its {name}; it must have {wanted[0]}, as the data has "
                    f"{classes} classes and {channels} channels."
                )

    def encode(self, sample: Sample) -> tuple[np.ndarray, ...]:
        """The targets, maps `(height, width)`: int32 labels, and float32 weights where the task has them."""
        raise NotImplementedError

    def collate(self, images: np.ndarray, *maps: np.ndarray) -> tuple:
        """What `fit` takes, from a batch of images and of what `encode` made, cropped alike."""
        return images, *maps

    def output(self, model: keras.Model, image: np.ndarray) -> Output:
        """What the network predicts for one normalized image `(height, width, channels)` of any size."""
        return predict_probabilities(model, image, self.tta)

    def classes_tiled(self, model: keras.Model, image, out, prepare: Callable, progress=None) -> np.ndarray:
        """The class of each pixel of an image too large for memory; see `predict_classes_tiled`."""
        return predict_classes_tiled(model, image, out, prepare, self.tta, progress=progress)

    def decode(self, output: Output, **thresholds: float) -> np.ndarray:
        """The label map, int32 `(height, width)`, from what `output` returned."""
        raise NotImplementedError

    def score(
        self,
        samples: Iterable[Sample],
        outputs: Iterable[Output],
        class_names: Sequence[str],
        **thresholds: float,
    ) -> dict[str, float]:
        """The metrics of a data set's predictions: name → value in 0..1. Both are iterated over once, together."""
        raise NotImplementedError

    def quick_score(self, samples, outputs, class_names, **thresholds) -> dict[str, float]:
        """Those of `score` that depend on a threshold."""
        return self.score(samples, outputs, class_names, **thresholds)

    def choose(
        self, samples: Sequence[Sample], outputs: Sequence[Output], class_names: Sequence[str]
    ) -> dict[str, float]:
        """All thresholds: of `choices` the combination with the best `choose_by` on these samples, defaults otherwise."""
        best, chosen = -np.inf, self.complete({})
        names = list(self.choices)
        for values in itertools.product(*self.choices.values()) if names else ():
            tried = self.complete(dict(zip(names, values, strict=True)))
            value = self.quick_score(samples, outputs, class_names, **tried)[self.choose_by]
            if value > best:
                best, chosen = value, tried
        return chosen


@dataclass(frozen=True)
class Semantic(Task):
    """A class for each pixel.

    Attributes:
        border_weight: `w0` of the U-Net paper's weight map (see `datasets.targets.border_weights`); 0 = all pixels count
            alike.
        sigma: the width of that map's border term in pixels.
    """

    border_weight: float = field(default=0.0, kw_only=True)
    sigma: float = field(default=5.0, kw_only=True)

    metrics = ("mean_iou", "pixel_accuracy")

    def __post_init__(self):
        super().__post_init__()
        in_range("border_weight", self.border_weight, 0)
        in_range("sigma", self.sigma, 0, open_low=True)

    def encode(self, sample):
        if not self.border_weight:
            return (self._labels(sample),)
        instances = _instances(sample)
        weights = border_weights(instances, self.border_weight, self.sigma, (1.0, 1.0), sample.ignored)
        return self._labels(sample), weights

    def _labels(self, sample: Sample) -> np.ndarray:
        return sample.semantic

    def decode(self, output, **thresholds):
        return output.argmax(-1).astype(np.int32)

    def score(self, samples, outputs, class_names, **thresholds):
        """Mean IoU and pixel accuracy over all pixels together, and the IoU of each class."""
        matrix = np.zeros((len(class_names),) * 2, np.int64)
        # One image at a time: neither the images of a large set nor the predictions are held together.
        for sample, output in zip(samples, outputs, strict=True):
            matrix += semantic.confusion_matrix(sample.semantic, self.decode(output), len(class_names))
        iou = semantic.iou_per_class(matrix)
        scores = {"mean_iou": np.nanmean(iou), "pixel_accuracy": semantic.pixel_accuracy(matrix)}
        return _rounded(scores | _by_class(class_names, iou))


@dataclass(frozen=True)
class Membranes(Semantic):
    """Two classes, membrane and cell; the cells are the regions between the membranes.

    Attributes:
        border_weight, sigma: as for `Semantic`.
    """

    thresholds = {"segment_threshold": 0.5}
    metrics = ("rand", "information", "pixel_error")

    def score(self, samples, outputs, class_names, *, segment_threshold=0.5):
        """The metrics of ISBI 2012: pixel error, foreground-restricted Rand and information F-scores (means over the
        slices, at `segment_threshold`); and the IoU of each class."""
        matrix = np.zeros((len(class_names),) * 2, np.int64)
        rand, information = [], []
        for sample, output in zip(samples, outputs, strict=True):
            matrix += semantic.confusion_matrix(sample.semantic, self.decode(output), len(class_names))
            wanted = partition.segments_from_labels(sample.semantic)
            found = partition.segments_from_probability(output[..., 1], segment_threshold)
            rand.append(partition.rand_score(wanted, found).f_score)
            information.append(partition.information_score(wanted, found).f_score)
        scores = {
            "pixel_error": 1 - semantic.pixel_accuracy(matrix),
            "rand": np.mean(rand),
            "information": np.mean(information),
        }
        return _rounded(scores | _by_class(class_names, semantic.iou_per_class(matrix)))


@dataclass(frozen=True)
class Borders(Semantic):
    """Objects of one class, separated by an extra class for the border between touching ones (`THREE_CLASSES`).

    Attributes:
        border: half the border's width in pixels.
        border_weight, sigma: as for `Semantic`.
    """

    border: float = 2.0

    thresholds = {"seed_threshold": 0.5, "mask_threshold": 0.5, "min_size": 20}
    metrics = ("ap_mean", "ap_50", "ap_75", "iou_foreground")
    counts_objects = True

    def __post_init__(self):
        super().__post_init__()
        in_range("border", self.border, 1)

    def class_names(self, of_data):
        return THREE_CLASSES

    def loss(self):
        return CrossEntropy() + Dice()

    def _labels(self, sample):
        return encode_three_classes(_instances(sample), self.border, sample.ignored)

    def decode(self, output, *, seed_threshold=0.5, mask_threshold=0.5, min_size=20):
        return decode_three_classes(output, seed_threshold, mask_threshold, int(min_size))

    def score(self, samples, outputs, class_names, **thresholds):
        """The metrics of `instance_scores`."""
        pairs = zip(samples, outputs, strict=True)
        return instance_scores(
            (sample.instances, self.decode(one, **thresholds), sample.ignored) for sample, one in pairs
        )


@dataclass(frozen=True)
class Objects(Task):
    """Objects detected one by one, each with its bounding box, class and mask: the task of a `MaskRCNN`.

    Attributes:
        max_objects: places for the objects of a crop.
    """

    max_objects: int = 32

    thresholds = {"score_threshold": 0.5, "mask_threshold": 0.5, "min_size": 1}
    metrics = Borders.metrics
    counts_objects = True

    def __post_init__(self):
        super().__post_init__()
        whole_number("max_objects", self.max_objects, 1)
        if self.tta != "none":
            raise ValueError(
                f"tta is {self.tta!r}; a detector's boxes cannot be averaged over views: leave it out."
            )

    def loss(self):
        return None

    def build(self, network, input_shape, num_classes, seed, **arguments):
        return network(num_classes, input_shape[-1], seed=seed, **arguments)

    def check_network(self, network):
        from course_lib.models import deeplab, fcn, unet

        if network in (unet, fcn, deeplab):
            raise ValueError(
                f"network is {network.__name__}; Objects needs a detector, MaskRCNN. A network with a class for each pixel "
                "separates objects by the task Borders()."
            )

    def check_model(self, model, classes, channels):
        """A detector has boxes for outputs, and checks its images itself."""

    def encode(self, sample):
        """The instance and the class map; `collate` makes boxes, classes and masks of them once they are cropped."""
        return _instances(sample), sample.semantic

    def collate(self, images, *maps):
        return images, truth_from_maps(*maps, self.max_objects)

    def output(self, model, image):
        return predict_detections(model, image)

    def classes_tiled(self, model, image, out, prepare, progress=None):
        raise ValueError(
            f"image has {image.shape[0]} × {image.shape[1]} pixels; a detector finds objects in whole images of at most "
            f"{LARGE // 10**6} million pixels. Cut it into pieces."
        )

    def decode(self, output, *, score_threshold=0.5, mask_threshold=0.5, min_size=1):
        masks = whole_masks(output, mask_threshold)
        return instance_map(output, masks, score_threshold, int(min_size))[0]

    def score(self, samples, outputs, class_names, **thresholds):
        """The metrics of `instance_scores` and of `coco_scores`."""
        samples, outputs = list(samples), list(outputs)
        scores = self.quick_score(samples, outputs, class_names, **thresholds)
        return scores | coco_scores(samples, outputs, len(class_names) - 1)

    def quick_score(self, samples, outputs, class_names, **thresholds):
        # COCO's metrics depend on no threshold.
        pairs = zip(samples, outputs, strict=True)
        return instance_scores(
            (sample.instances, self.decode(one, **thresholds), sample.ignored) for sample, one in pairs
        )


TASKS = {task.__name__: task for task in (Semantic, Borders, Objects, Membranes)}
DECODING = tuple(attribute.name for attribute in dataclasses.fields(Task))
"""The fields of a task on which trained weights don't depend."""


def instance_scores(maps: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Metrics of instance maps.

    Args:
        maps: of each image the true and the predicted map, int `(height, width)`, 0 = background, ids 1..n, and what is
            ignored, bool `(height, width)` (see `course_lib.metrics.instance`).

    Returns:
        `ap_50`, `ap_75`, `ap_mean`: TP / (TP + FP + FN) over all images together, at IoU 0.5, 0.75 and the mean over 0.5,
        0.55 … 0.9; `count_error`: the mean absolute error in counting, as a fraction of the true count; `iou_foreground`.
    """
    maps = list(maps)
    true, pred, ignored = zip(*maps, strict=True) if maps else ((), (), ())
    precision = instance.average_precision(true, pred, IOU_THRESHOLDS, ignored)
    objects = sum(np.count_nonzero(np.unique(t[~void])) for t, _, void in maps)
    errors = sum(abs(instance.count_error(*one)) for one in maps)
    both = sum(np.count_nonzero((t > 0) & (p > 0) & ~void) for t, p, void in maps)
    either = sum(np.count_nonzero(((t > 0) | (p > 0)) & ~void) for t, p, void in maps)
    return _rounded(
        {
            "ap_50": precision[0],
            "ap_75": precision[5],
            "ap_mean": precision.mean(),
            "count_error": errors / max(1, objects),
            "iou_foreground": both / max(1, either),
        }
    )


def coco_scores(
    samples: Sequence[Sample], detections: Sequence[Mapping[str, np.ndarray]], num_classes: int
) -> dict[str, float]:
    """COCO's average precision by box and, where there are masks, by mask. Detections in pixels that do not count are left
    out, as COCO leaves out those in a crowd.

    Args:
        samples: with their instance maps.
        detections: of each, what `predict_detections` returned.
        num_classes: without the background.

    Returns:
        `box_ap`, `box_ap_50`, `box_ap_75`, and `mask_…` likewise, in 0..1.
    """
    most = max([100, *(len(found["scores"]) for found in detections)])
    scores = {}
    for kind in ("masks", "boxes") if all("masks" in found for found in detections) else ("boxes",):
        evaluator = COCOEvaluator(num_classes, kind, max_detections=most)
        for sample, found in zip(samples, detections, strict=True):
            ids = np.arange(1, len(sample.classes) + 1)[:, None, None]
            measured = "masks" in found and (kind == "masks" or sample.ignored.any())
            masks = whole_masks(found) if measured else None
            kept = counted_detections(sample, found["boxes"], masks)
            # COCO knows no class for the background: class 1 is its 0.
            evaluator.update(
                classes_true=sample.classes - 1,
                classes_pred=found["classes"][kept] - 1,
                scores=found["scores"][kept],
                boxes_true=sample.boxes,
                boxes_pred=found["boxes"][kept],
                masks_true=sample.instances == ids,
                masks_pred=masks[kept] if kind == "masks" else None,
            )
        result = evaluator.result()
        name = {"masks": "mask", "boxes": "box"}[kind]
        scores |= {f"{name}_{stat}": getattr(result, stat) for stat in ("ap", "ap_50", "ap_75")}
    return _rounded(scores)


def whole_masks(detections: Mapping[str, np.ndarray], threshold: float = 0.5) -> np.ndarray:
    """The masks of an image's detections in the whole image, bool `(n, height, width)`."""
    size = tuple(int(side) for side in detections["size"])
    return whole_image_masks(detections["masks"], detections["boxes"], size, threshold, edges="exact")


def _instances(sample: Sample) -> np.ndarray:
    if sample.instances is None:
        raise ValueError(
            f"{sample.name} has no instances; a task on objects needs a data set with instance ids."
        )
    return sample.instances


def _by_class(names: Sequence[str], values: np.ndarray) -> dict[str, float]:
    return {f"iou_{name}": value for name, value in zip(names, values, strict=True)}


def _rounded(scores: Mapping[str, float]) -> dict[str, float]:
    return {name: round(float(value), 5) for name, value in scores.items()}
