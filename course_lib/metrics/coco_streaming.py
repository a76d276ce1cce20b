"""COCO's average precision as a `keras.metrics.Metric`, for loops that hand it batches with values.

Sorting and greedy matching over a growing list of detections is no work for a compiled graph, so this metric
runs in NumPy: call it in a loop of your own or in a callback, not in a compiled train or test step. Its state
is not in Keras variables but in an evaluator (`metric.evaluator`), and is not saved with a model.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from course_lib.metrics.coco import IOU_THRESHOLDS, SIZE_LIMITS, STATS, COCOEvaluator


@keras.saving.register_keras_serializable(package="course_lib")
class CocoAP(keras.metrics.Metric):
    """One of COCO's twelve numbers over all batches so far.

    Args:
        num_classes: number of classes K; ids run from 0 to K - 1, and -1 marks a row that only fills up a batch.
        kind: `"boxes"` or `"masks"`.
        score: which of the twelve, such as `"ap"`, `"ap_50"` or `"ar_100"` (see `CocoScores`).
        iou_thresholds, size_limits, max_detections: as in `COCOEvaluator`.
        name: shown in the progress bar.
        dtype: of the result, float32 by default.

    Raises:
        ValueError: a score that doesn't exist, or as `COCOEvaluator`.
    """

    def __init__(
        self,
        num_classes,
        kind="boxes",
        score="ap",
        iou_thresholds=IOU_THRESHOLDS,
        size_limits=SIZE_LIMITS,
        max_detections=100,
        name="coco_ap",
        dtype=None,
    ):
        super().__init__(name=name, dtype=dtype)
        if score not in STATS:
            raise ValueError(f"score: one of {', '.join(STATS)} wanted, got {score!r}.")
        self.score = score
        self.options = {
            "num_classes": num_classes,
            "kind": kind,
            "iou_thresholds": list(iou_thresholds),
            "size_limits": list(size_limits),
            "max_detections": max_detections,
        }
        self.evaluator = COCOEvaluator(**self.options)

    def update_state(self, y_true, y_pred, sample_weight=None) -> None:
        """Add a batch.

        Args:
            y_true: dict of `"classes"` int `(batch, n)` and, as `kind` wants, `"boxes"` `(batch, n, 4)` or
                `"masks"` bool `(batch, n, h, w)`; `"crowd"` and `"areas"`, both `(batch, n)`, may be added.
                Rows of class -1 are left out.
            y_pred: dict of `"classes"` `(batch, m)`, `"scores"` `(batch, m)`, and `"boxes"` or `"masks"`.
            sample_weight: not supported; no definition says what half an image counts.

        Raises:
            TypeError: tensors without values, as inside a compiled step.
            ValueError: a sample weight, an entry that is missing, or as `COCOEvaluator.update`, with the
                image's number. Images before that one are counted then.
        """
        if sample_weight is not None:
            raise ValueError("sample_weight: COCO's average precision has no weights; leave it out.")
        shape = self.options["kind"]
        true = _arrays("y_true", y_true, ("classes", shape), ("crowd", "areas", "masks"))
        pred = _arrays("y_pred", y_pred, ("classes", "scores", shape), ())
        if len(true["classes"]) != len(pred["classes"]):
            raise ValueError(
                f"y_true has {len(true['classes'])} images but y_pred {len(pred['classes'])}; "
                "both must be of the same batch."
            )
        for number in range(len(true["classes"])):
            rows_true, rows_pred = _rows(true, number), _rows(pred, number)
            image = {name: rows_true[name] for name in ("crowd", "areas") if name in rows_true}
            image["scores"] = rows_pred["scores"]
            for side, rows in (("true", rows_true), ("pred", rows_pred)):
                for name in ("classes", "boxes", "masks"):
                    if name in rows:
                        image[f"{name}_{side}"] = rows[name]
            try:
                self.evaluator.update(**image)
            except ValueError as error:
                raise ValueError(f"image {number} of the batch: {error}") from None

    def result(self):
        """The score so far, a scalar in 0..1; NaN where there was nothing to find."""
        return ops.convert_to_tensor(getattr(self.evaluator.result(), self.score), dtype=self.dtype)

    def reset_state(self) -> None:
        """Forget all batches."""
        self.evaluator.reset()

    def get_config(self) -> dict:
        return {**super().get_config(), **self.options, "score": self.score}


def _arrays(name: str, values: dict, wanted: tuple[str, ...], possible: tuple[str, ...]) -> dict:
    """The entries that are looked at, as NumPy arrays."""
    missing = [key for key in wanted if not isinstance(values, dict) or key not in values]
    if missing:
        raise ValueError(
            f"{name}: a dict with the keys {', '.join(wanted)} wanted; {missing[0]!r} is missing."
        )
    arrays = {}
    for key in (*wanted, *possible):
        if values.get(key) is None:
            continue
        try:
            arrays[key] = np.asarray(ops.convert_to_numpy(values[key]))
        except Exception as error:  # each backend has an error of its own for this
            raise TypeError(
                f"{name}[{key!r}]: an array or a tensor with values wanted. CocoAP can't run inside a compiled "
                "step: call it in a loop or a callback, on what model.predict returned."
            ) from error
    for key, array in arrays.items():
        if array.shape[:2] != arrays["classes"].shape:
            raise ValueError(
                f"{name}[{key!r}]: shape {array.shape} doesn't go with the classes' "
                f"{arrays['classes'].shape}; (batch, objects, …) is wanted, filled up with class -1."
            )
    return arrays


def _rows(arrays: dict, number: int) -> dict:
    """The arrays of one image, without the rows that only fill up the batch."""
    real = arrays["classes"][number] != -1
    return {name: values[number][real] for name, values in arrays.items()}
