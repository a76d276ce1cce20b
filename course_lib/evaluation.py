"""Reading an answer off a net's probabilities, and measuring it: the same code for choosing on val and for reporting."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from course_lib.datasets.detection import instance_map
from course_lib.datasets.loading import normalize
from course_lib.datasets.targets import decode_three_classes
from course_lib.metrics import COCOEvaluator, instance, partition, semantic
from course_lib.models.predict import predict_detections, predict_probabilities
from course_lib.ops.masks import whole_image_masks
from course_lib.recipes import Recipe

if TYPE_CHECKING:
    import keras


def predict_all(recipe: Recipe, model: keras.Model, dataset: Sequence, progress=None) -> list:
    """What the net says of each sample's whole picture; see `predict_one`."""
    samples = range(len(dataset))
    return [
        predict_one(recipe, model, dataset[index].image)
        for index in (progress(samples) if progress else samples)
    ]


def predict_one(recipe: Recipe, model: keras.Model, image: np.ndarray) -> np.ndarray | dict[str, np.ndarray]:
    """What the net says of one picture `(height, width, channels)` as a data set hands it out.

    Returns:
        Probabilities, float32 `(height, width, classes)`; of a detector, its detections (see `predict_detections`).
    """
    if recipe.detects:
        return predict_detections(model, normalize(image, recipe.normalization))
    return predict_probabilities(model, normalize(image, recipe.normalization), recipe.prediction.average)


def answer(recipe: Recipe, probabilities: np.ndarray, chosen: Mapping[str, float]) -> np.ndarray:
    """The label map a user gets, int32 `(height, width)`: instances where the recipe has borders, classes otherwise.

    Args:
        recipe: whose net it is.
        probabilities: what `predict_one` returned.
        chosen: the settings chosen on val, from the checkpoint's card.
    """
    if recipe.detects:
        masks = whole_masks(probabilities, chosen["mask_threshold"])
        return instance_map(probabilities, masks, chosen["score_threshold"], int(chosen["min_size"]))[0]
    if recipe.target.get("kind") == "three_classes":
        return decode_three_classes(
            probabilities, chosen["seed_threshold"], chosen["mask_threshold"], int(chosen["min_size"])
        )
    return probabilities.argmax(-1).astype(np.int32)


def measure(
    recipe: Recipe, dataset: Sequence, probabilities: Sequence[np.ndarray], chosen: Mapping[str, float]
) -> dict[str, float]:
    """The metrics of a recipe's answers on a data set.

    Instances: AP (TP / (TP + FP + FN) over all images together) at IoU 0.5, 0.75 and their mean over 0.5, 0.55 … 0.9,
    the mean absolute counting error as a share of the true count, and the IoU of the foreground. Membranes: pixel
    error, foreground-restricted Rand and information F-scores (mean over slices), IoU. Otherwise: mean IoU and pixel
    accuracy over all pixels together, and the IoU of each class.

    Returns:
        metric → value, in 0..1.
    """
    truths = [dataset[index] for index in range(len(dataset))]
    answers = [answer(recipe, one, chosen) for one in probabilities]
    if recipe.detects:
        return _instance_metrics(truths, answers) | coco_metrics(recipe, truths, probabilities)
    if recipe.target.get("kind") == "three_classes":
        return _instance_metrics(truths, answers)
    names = recipe.class_names()
    matrix = sum(
        semantic.confusion_matrix(truth.semantic, found, len(names))
        for truth, found in zip(truths, answers, strict=True)
    )
    iou = semantic.iou_per_class(matrix)
    scores: dict[str, float] = {}
    if recipe.dataset == "membranes":
        rand, information = _partition_scores(truths, probabilities, chosen)
        scores |= {
            "pixel_error": 1 - semantic.pixel_accuracy(matrix),
            "rand": rand,
            "information": information,
        }
    else:
        scores |= {"mean_iou": float(np.nanmean(iou)), "pixel_accuracy": semantic.pixel_accuracy(matrix)}
    scores |= {f"iou_{name}": float(value) for name, value in zip(names, iou, strict=True)}
    return {name: round(float(value), 5) for name, value in scores.items()}


def choose(recipe: Recipe, dataset: Sequence, probabilities: Sequence[np.ndarray]) -> dict[str, float]:
    """The settings, of those the recipe names, with the best value of the recipe's deciding metric on this data set."""
    if not recipe.prediction.choices:
        return {}
    names, values = zip(*recipe.prediction.choices.items(), strict=True)
    truths = [dataset[index] for index in range(len(dataset))]
    best: tuple[float, dict[str, Any]] = (-np.inf, {})
    for combination in itertools.product(*values):
        chosen = dict(zip(names, combination, strict=True))
        if recipe.detects:  # COCO's figures depend on no threshold
            scores = _instance_metrics(truths, [answer(recipe, one, chosen) for one in probabilities])
        else:
            scores = measure(recipe, dataset, probabilities, chosen)
        value = scores[recipe.prediction.choose_by]
        if value > best[0]:
            best = (value, chosen)
    return best[1]


def _instance_metrics(truths: Sequence, answers: Sequence[np.ndarray]) -> dict[str, float]:
    true_maps = [truth.instances for truth in truths]
    thresholds = np.linspace(0.5, 0.9, 9).round(2)
    precision = instance.average_precision(true_maps, answers, thresholds)
    counts = np.array([[truth.max(), found.max()] for truth, found in zip(true_maps, answers, strict=True)])
    both = sum(
        np.count_nonzero((truth > 0) & (found > 0)) for truth, found in zip(true_maps, answers, strict=True)
    )
    either = sum(
        np.count_nonzero((truth > 0) | (found > 0)) for truth, found in zip(true_maps, answers, strict=True)
    )
    scores = {
        "ap_50": precision[0],
        "ap_75": precision[5],
        "ap_mean": precision.mean(),
        "count_error": np.abs(counts[:, 1] - counts[:, 0]).sum() / max(1, counts[:, 0].sum()),
        "iou_foreground": both / max(1, either),
    }
    return {name: round(float(value), 5) for name, value in scores.items()}


def whole_masks(detections: Mapping[str, np.ndarray], threshold: float = 0.5) -> np.ndarray:
    """The masks of a picture's detections in the whole picture, bool `(n, height, width)`."""
    size = tuple(int(side) for side in detections["size"])
    return whole_image_masks(detections["masks"], detections["boxes"], size, threshold, edges="exact")


def coco_metrics(recipe: Recipe, truths: Sequence, detections: Sequence[Mapping]) -> dict[str, float]:
    """COCO's average precision by box and, of a net that has them, by mask.

    Args:
        recipe: whose net it is.
        truths: the samples.
        detections: of each, from `predict_one`.

    Returns:
        `box_ap`, `box_ap_50`, `box_ap_75`, and `mask_…` likewise, in 0..1.
    """
    most = max(100, *(len(found["scores"]) for found in detections))
    scores = {}
    for kind in ("masks", "boxes") if "masks" in detections[0] else ("boxes",):
        evaluator = COCOEvaluator(len(recipe.class_names()) - 1, kind, max_detections=most)
        for truth, found in zip(truths, detections, strict=True):
            ids = np.arange(1, len(truth.classes) + 1)[:, None, None]
            # COCO knows no class for the background: class 1 is its 0.
            evaluator.update(
                classes_true=truth.classes - 1,
                classes_pred=found["classes"] - 1,
                scores=found["scores"],
                boxes_true=truth.boxes,
                boxes_pred=found["boxes"],
                masks_true=truth.instances == ids,
                masks_pred=whole_masks(found) if kind == "masks" else None,
            )
        result = evaluator.result()
        name = {"masks": "mask", "boxes": "box"}[kind]
        for stat in ("ap", "ap_50", "ap_75"):
            scores[f"{name}_{stat}"] = round(float(getattr(result, stat)), 5)
    return scores


def _partition_scores(
    truths: Sequence, probabilities: Sequence[np.ndarray], chosen: Mapping[str, float]
) -> tuple[float, float]:
    rand, information = [], []
    for truth, probability in zip(truths, probabilities, strict=True):
        true_segments = partition.segments_from_labels(truth.semantic)
        segments = partition.segments_from_probability(probability[..., 1], chosen["segment_threshold"])
        rand.append(partition.rand_score(true_segments, segments).f_score)
        information.append(partition.information_score(true_segments, segments).f_score)
    return float(np.mean(rand)), float(np.mean(information))
