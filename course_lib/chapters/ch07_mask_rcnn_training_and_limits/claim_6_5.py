"""Claim 6.5: which sizes of object Mask R-CNN finds.

Fixed before the first run:

- Network: `maskrcnn-scenes` as it is shipped, one training. Nothing is trained and no threshold is chosen here.
  Gate: its mask AP at IoU 0.5 on the validation images, as its card says, is at least 0.5.
- Size of an object: the square root of its visible pixels. Images have 128 × 128 pixels, bins go by factors of two.
- Images: drawn as those of the training, from a seed that nothing was trained or chosen on. In the order in which
  they are drawn, an image is taken if it shows an object whose class and size are still short of `QUOTA` objects:
  that does not depend on any prediction.
- Classes: a score of a bin is the mean of its scores for five classes, whatever their numbers. Rods are in the
  images but count nowhere: one that fits into the image never covers 64 × 64 pixels.
- Recall: an object is found if the mask of any detection has an IoU above 0.5 with it. Its class does not matter,
  nor its score (from 0.05 on, the network's own limit).
- Ceiling: the recall of outlines that are half a pixel too wide for one half of the objects, and half a pixel too
  narrow for the other half.
- Verdict: recall of objects from 8 to 64 pixels (mean of three bins) minus recall of objects below 4 pixels, and
  of objects from 64 pixels on. A difference below 0.05 counts as none. The interval is that of a bootstrap over
  the images: it says nothing about other trainings.
- Beside it: AP, the recall at the score that the recipe chose, and the recall in the same images shown twice as
  large, which adds no detail.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import keras
import numpy as np
from scipy import ndimage

from course_lib import checkpoints
from course_lib.chapters.ch07_mask_rcnn_training_and_limits.limits import Step, detect_all, shipped
from course_lib.datasets import Sample, scenes
from course_lib.datasets.loading import normalize
from course_lib.metrics import COCOEvaluator
from course_lib.tasks import whole_masks
from course_lib.teaching.ledger import Result, judged
from course_lib.teaching.statistics import Gate, Resampled, judge

DETECTOR = "maskrcnn-scenes"
SEED, DRAWN, QUOTA = 11, 40_000, 40
"""Of the images; how many are drawn at most; objects of each class in each bin."""
SIZES = (2, 4, 8, 16, 32, 64, 128)
BINS = tuple(f"{low}-{high}" for low, high in zip(SIZES, SIZES[1:], strict=False))
SMALL, MIDDLE, LARGE = 0, slice(2, 5), 5
CLASSES = 5
"""All but the last, the rods."""
MARGIN, GATE, RESAMPLES = 0.05, 0.5, 2000


def bins_of(sample: Sample) -> np.ndarray:
    """The bin of each object, int `(objects,)`."""
    pixels = np.bincount(sample.instances.ravel(), minlength=len(sample.classes) + 1)[1:]
    return np.digitize(np.sqrt(pixels), SIZES) - 1


def choose(samples: Sequence[Sample], quota: int) -> Iterator[Sample]:
    """The images that are needed for `quota` objects of each class in each bin.

    Raises:
        ValueError: if there are not enough images.
    """
    lacking = np.full((CLASSES, len(BINS)), quota)
    for sample in samples:
        counted = sample.classes <= CLASSES
        cells = sample.classes[counted] - 1, bins_of(sample)[counted]
        if (lacking[cells] > 0).any():
            np.subtract.at(lacking, cells, 1)
            yield sample
        if lacking.max() <= 0:
            return
    raise ValueError(
        f"quota is {quota}; {len(samples)} images lack {lacking.max()} objects of a class in a bin."
    )


def enlarged(image: np.ndarray, factor: int) -> np.ndarray:
    """An image with each side `factor` times as long, interpolated linearly; no detail is added."""
    zoomed = ndimage.zoom(image, (factor, factor, 1), order=1, mode="nearest", grid_mode=True)
    return zoomed.astype(np.float32)


def best_ious(instances: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """For each object of an instance map the highest IoU of a mask `(masks, height, width)`, 0 without any."""
    objects = int(instances.max())
    overlap = np.stack(
        [np.bincount(instances[mask], minlength=objects + 1)[1:] for mask in masks]
        or [np.zeros(objects, int)]
    )
    pixels = np.bincount(instances.ravel(), minlength=objects + 1)[1:]
    covered = masks.sum((1, 2))[:, None] if len(masks) else 0
    return (overlap / (covered + pixels - overlap)).max(0)


def half_a_pixel(mask: np.ndarray) -> tuple[float, float]:
    """The IoU of a mask with itself half a pixel wider and half a pixel narrower all around."""
    fine = np.pad(mask, 1).repeat(2, 0).repeat(2, 1)
    around = np.ones((3, 3), bool)
    wide, narrow = (
        change(fine, around).sum() for change in (ndimage.binary_dilation, ndimage.binary_erosion)
    )
    return float(fine.sum() / wide), float(narrow / fine.sum())


def counts(samples: Sequence[Sample], values: Sequence[np.ndarray]) -> np.ndarray:
    """Sums of a value of each object: float `(images, classes, bins)`."""
    found = np.zeros((len(samples), CLASSES, len(BINS)))
    for one, sample, value in zip(found, samples, values, strict=True):
        counted = sample.classes <= CLASSES
        np.add.at(one, (sample.classes[counted] - 1, bins_of(sample)[counted]), value[counted])
    return found


def balanced(hits: np.ndarray, objects: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Means over the objects of a class, then over the classes, float `(n, bins)`, with weights `(n, images)`."""
    return (np.tensordot(weights, hits, 1) / np.tensordot(weights, objects, 1)).mean(1)


def average_precision(samples: Sequence[Sample], found: Sequence[Mapping]) -> list[dict[str, float]]:
    """COCO's mask AP for each bin, mean over the classes; all other objects, and detections of other sizes, are ignored."""
    table = []
    for low, high in zip(SIZES, SIZES[1:], strict=False):
        # COCO counts both limits in; an area is a whole number, so that one less separates the bins.
        evaluator = COCOEvaluator(CLASSES + 1, "masks", size_limits=(low**2, high**2 - 1))
        for sample, one in zip(samples, found, strict=True):
            evaluator.update(
                classes_true=sample.classes - 1,  # COCO knows no class for the background
                classes_pred=one["classes"] - 1,
                scores=one["scores"],
                masks_true=sample.instances == np.arange(1, len(sample.classes) + 1)[:, None, None],
                masks_pred=whole_masks(one),
            )
        result = evaluator.result()
        there = np.flatnonzero(result.num_objects[:CLASSES, 2])  # COCO's middle range is the bin
        precision = result.precision[:, :, there, 2, -1]
        half = precision[np.isclose(result.iou_thresholds, 0.5)]
        values = {"ap": precision, "ap_50": half}
        table.append({name: float(one.mean()) if len(there) else np.nan for name, one in values.items()})
    return table


def claim_6_5(progress: Callable[[str], None] = print) -> Result:
    """Mask R-CNN scales badly to very small or very large objects.

    The table:
        settings: `anchors`, the sides of the anchors; `strides`, pixels of the image per location of each level;
            `images`; `classes`.
        bins: size → `objects` of each class; `[mean, low, high]` of `recall`, `confident` (the recall at the score
            that the recipe chose) and `enlarged` (the recall in images twice as large); `ceiling`; `best_iou`, the mean of
            the highest IoU of each object, and `ceiling_iou`; `ap`, `ap_50`.
    """
    recipe, model, chosen = shipped(DETECTOR)
    parameters = {name: value for name, value in recipe.val_data.items() if name not in ("length", "seed")}
    samples = list(choose(scenes("test", DRAWN, seed=SEED, **parameters), QUOTA))
    progress(f"{len(samples)} images")
    images = [normalize(sample.image, recipe.normalization) for sample in samples]
    plain = detect_all(Step(lambda x: model(x, training=False), model), images, 10)
    progress("detected")
    large = detect_all(
        Step(lambda x: model(x, training=False), model), [enlarged(image, 2) for image in images], 5
    )
    progress("detected in images twice as large")

    masks = [whole_masks(one) for one in plain]
    sure = [mask[one["scores"] >= chosen["score_threshold"]] for mask, one in zip(masks, plain, strict=True)]
    twice = [sample.instances.repeat(2, 0).repeat(2, 1) for sample in samples]
    ious = [best_ious(sample.instances, mask) for sample, mask in zip(samples, masks, strict=True)]
    limits = [
        np.array([half_a_pixel(sample.instances == k) for k in range(1, len(sample.classes) + 1)])
        for sample in samples
    ]
    values = {
        "recall": [one > 0.5 for one in ious],
        "confident": [best_ious(s.instances, mask) > 0.5 for s, mask in zip(samples, sure, strict=True)],
        "enlarged": [best_ious(s, whole_masks(one)) > 0.5 for s, one in zip(twice, large, strict=True)],
        "ceiling": [(one > 0.5).mean(1) for one in limits],
        "best_iou": ious,
        "ceiling_iou": [one.mean(1) for one in limits],
    }
    objects = counts(samples, [np.ones(len(sample.classes)) for sample in samples])
    drawn = np.random.default_rng(0).multinomial(
        len(samples), np.full(len(samples), 1 / len(samples)), RESAMPLES
    )
    mean, resampled = {}, {}
    for name, value in values.items():
        hits = counts(samples, value)
        mean[name] = balanced(hits, objects, np.ones((1, len(samples))))[0]
        resampled[name] = balanced(hits, objects, drawn)
    precision = average_precision(samples, plain)
    table: dict = {
        "settings": {
            "anchors": list(model.settings.anchor_sizes),
            "strides": strides(model, parameters["size"]),
            "images": len(samples),
            "classes": list(recipe.class_names()[1 : CLASSES + 1]),
        },
        "bins": {},
    }
    for k, name in enumerate(BINS):
        table["bins"][name] = {"objects": objects.sum(0)[:, k].astype(int).tolist()} | precision[k]
        for score in ("recall", "confident", "enlarged"):
            low, high = np.quantile(resampled[score][:, k], (0.025, 0.975))
            table["bins"][name][score] = [mean[score][k], low, high]
        for score in ("ceiling", "best_iou", "ceiling_iou"):
            table["bins"][name][score] = mean[score][k]
        progress(f"{name}: {table['bins'][name]}")

    def shortfall(recall: np.ndarray, extreme: int) -> np.ndarray:
        return recall[..., MIDDLE].mean(-1) - recall[..., extreme]

    settings = {
        name: Resampled(
            float(shortfall(mean["recall"], extreme)), shortfall(resampled["recall"], extreme), len(samples)
        )
        for name, extreme in (("objects below 4 pixels", SMALL), ("objects of 64 pixels or more", LARGE))
    }
    gate = Gate(
        "mask AP at IoU 0.5 on the validation images",
        GATE,
        checkpoints.card(recipe)["val"]["mask_ap_50"],
        0.0,
    )
    return judged(
        "6.5",
        "Mask R-CNN scales badly to very small or very large objects.",
        "recall at IoU 0.5 (mean over the classes) of objects of 8 to 64 pixels (square root of the area, images of "
        "128 × 128) minus recall of very small or very large objects, one trained network",
        judge(settings, gate, margin=MARGIN),
        table,
        gate,
    )


def strides(model, side: int) -> list[int]:
    """Pixels of the image per location of each level of the pyramid."""
    pyramid = model.fpn(model.backbone(keras.Input((side, side, model.channels))))
    return [2 ** round(float(np.log2(side / level.shape[1]))) for level in pyramid]
