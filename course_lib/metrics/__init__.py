"""Metrics: plain functions on arrays, and Keras metrics that stream over batches.

Names are loaded when they are first asked for, so `from course_lib.metrics import iou` loads neither Keras
nor a backend.
"""

from importlib import import_module

_MODULE_OF = {
    "class_accuracy": "semantic",
    "confusion_matrix": "semantic",
    "dice": "semantic",
    "dice_per_class": "semantic",
    "frequency_weighted_iou": "semantic",
    "iou": "semantic",
    "iou_per_class": "semantic",
    "mean_class_accuracy": "semantic",
    "mean_dice": "semantic",
    "mean_iou": "semantic",
    "pixel_accuracy": "semantic",
    "pixel_error": "semantic",
    "average_surface_distance": "boundary",
    "boundary_f1": "boundary",
    "boundary_iou": "boundary",
    "hausdorff": "boundary",
    "surface_distances": "boundary",
    "DSB_THRESHOLDS": "instance",
    "Matching": "instance",
    "MatchingScores": "instance",
    "aggregated_jaccard": "instance",
    "average_precision": "instance",
    "count_error": "instance",
    "iou_matrix": "instance",
    "match": "instance",
    "matching_scores": "instance",
    "PanopticScore": "panoptic",
    "PanopticScores": "panoptic",
    "panoptic_quality": "panoptic",
    "panoptic_quality_per_class": "panoptic",
    "PartitionScore": "partition",
    "information_score": "partition",
    "rand_score": "partition",
    "segments_from_labels": "partition",
    "segments_from_probability": "partition",
    "COCOEvaluator": "coco",
    "CocoScores": "coco",
    "interpolated_precision": "coco",
    "CocoAP": "coco_streaming",
    "coco_average_precision": "coco",
    "ClassAccuracy": "streaming",
    "ConfusionMatrix": "streaming",
    "Dice": "streaming",
    "FrequencyWeightedIoU": "streaming",
    "MeanIoU": "streaming",
    "PixelAccuracy": "streaming",
    "AggregatedJaccard": "per_image",
    "AveragePrecision": "per_image",
    "AverageSurfaceDistance": "per_image",
    "BoundaryF1": "per_image",
    "BoundaryIoU": "per_image",
    "Hausdorff": "per_image",
    "PanopticQuality": "per_image",
}

__all__ = list(_MODULE_OF)


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
