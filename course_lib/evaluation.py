"""Reading an answer off a net's probabilities, and measuring it: the same code for choosing on val and for reporting."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from course_lib.datasets.detection import instance_map
from course_lib.datasets.loading import normalize, window_normalizer
from course_lib.datasets.reading import LARGE
from course_lib.datasets.targets import decode_three_classes
from course_lib.metrics import COCOEvaluator, instance, partition, semantic
from course_lib.models.predict import predict_classes_tiled, predict_detections, predict_probabilities
from course_lib.ops.masks import whole_image_masks
from course_lib.recipes import Recipe

if TYPE_CHECKING:
    import keras


PREDICTION_BYTES = 256 * 2**20
"""What `Predictions` keeps in memory."""


class Predictions(Sequence):
    """What the net says of each sample's whole picture, like a list of what `predict_one` returns.

    The first that fit into `limit` bytes are kept, and so are predicted once. The others are predicted each time they are
    asked for: of CamVid at full size, the probabilities of val alone are 0.8 GB.

    Args:
        recipe, model, dataset: as for `predict_one`; the model's weights must not change while this is in use.
        progress: wraps the iteration over the samples that are kept, as `tqdm.tqdm` does.
        limit: in bytes.
    """

    def __init__(
        self, recipe: Recipe, model: keras.Model, dataset: Sequence, progress=None, limit: int = PREDICTION_BYTES
    ):  # fmt: skip
        self.recipe, self.model, self.dataset = recipe, model, dataset
        self._kept: list = []
        samples = range(len(dataset))
        for index in progress(samples) if progress else samples:
            one = self._predict(index)
            limit -= sum(part.nbytes for part in (one.values() if isinstance(one, dict) else [one]))
            if limit < 0:
                break
            self._kept.append(one)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> np.ndarray | dict[str, np.ndarray]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"prediction {index}: there are {len(self)}.")
        index %= len(self)
        return self._kept[index] if index < len(self._kept) else self._predict(index)

    def _predict(self, index: int):
        return predict_one(self.recipe, self.model, self.dataset[index].image)


def predict_all(recipe: Recipe, model: keras.Model, dataset: Sequence, progress=None) -> Predictions:
    """What the net says of each sample's whole picture; see `Predictions`."""
    return Predictions(recipe, model, dataset, progress)


def predict_one(recipe: Recipe, model: keras.Model, image: np.ndarray) -> np.ndarray | dict[str, np.ndarray]:
    """What the net says of one picture `(height, width, channels)` as a data set hands it out.

    Returns:
        Probabilities, float32 `(height, width, classes)`; of a detector, its detections (see `predict_detections`).
    """
    if recipe.detects:
        return predict_detections(model, normalize(image, recipe.normalization))
    return predict_probabilities(model, normalize(image, recipe.normalization), recipe.prediction.average)


def predict_large(
    recipe: Recipe, model: keras.Model, picture, out: np.ndarray | None = None, progress=None
) -> np.ndarray:
    """The class of each pixel of a large picture, read and predicted a window at a time.

    Classes, also where the recipe tells objects apart: an object may be anywhere in the picture, and numbering them takes
    all of it at once.

    Args:
        recipe, model: as for `predict_one`.
        picture: a `LargeImage`, as the file has it: normalized here, by the percentiles of the whole picture.
        out, progress: see `predict_classes_tiled`.

    Returns:
        Class ids `(height, width)`.

    Raises:
        ValueError: for a detector, whose boxes belong to whole pictures.
    """
    if recipe.detects:
        raise ValueError(
            f"{recipe.name} finds objects in whole pictures, and {picture.shape[0]} × {picture.shape[1]} pixels are too "
            f"many for that; cut the picture into pieces of at most {LARGE // 10**6} million pixels."
        )
    prepare = window_normalizer(picture, recipe.normalization)
    return predict_classes_tiled(model, picture, out, prepare, recipe.prediction.average, progress=progress)


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
    if recipe.detects or recipe.target.get("kind") == "three_classes":
        truths = [dataset[index] for index in range(len(dataset))]
        scores = _instance_metrics(truths, [answer(recipe, one, chosen) for one in probabilities])
        return scores | (coco_metrics(recipe, truths, probabilities) if recipe.detects else {})
    names = recipe.class_names()
    # One picture at a time: neither the pictures of a large set nor the answers are held together.
    indices = range(len(dataset))
    matrix = sum(
        semantic.confusion_matrix(dataset[index].semantic, answer(recipe, one, chosen), len(names))
        for index, one in zip(indices, probabilities, strict=True)
    )
    iou = semantic.iou_per_class(matrix)
    scores: dict[str, float] = {}
    if recipe.dataset == "membranes":
        truths = (dataset[index] for index in indices)
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
    truths: Iterable, probabilities: Sequence[np.ndarray], chosen: Mapping[str, float]
) -> tuple[float, float]:
    rand, information = [], []
    for truth, probability in zip(truths, probabilities, strict=True):
        true_segments = partition.segments_from_labels(truth.semantic)
        segments = partition.segments_from_probability(probability[..., 1], chosen["segment_threshold"])
        rand.append(partition.rand_score(true_segments, segments).f_score)
        information.append(partition.information_score(true_segments, segments).f_score)
    return float(np.mean(rand)), float(np.mean(information))
