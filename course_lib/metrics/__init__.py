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
    "iou": "semantic",
    "iou_per_class": "semantic",
    "mean_dice": "semantic",
    "mean_iou": "semantic",
    "pixel_accuracy": "semantic",
    "pixel_error": "semantic",
    "DSB_THRESHOLDS": "instance",
    "Matching": "instance",
    "MatchingScores": "instance",
    "average_precision": "instance",
    "count_error": "instance",
    "iou_matrix": "instance",
    "match": "instance",
    "matching_scores": "instance",
    "PartitionScore": "partition",
    "information_score": "partition",
    "rand_score": "partition",
    "segments_from_labels": "partition",
    "segments_from_probability": "partition",
    "Dice": "streaming",
    "MeanIoU": "streaming",
    "PixelAccuracy": "streaming",
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
