"""Scores of class maps: counts in a confusion matrix, and what is read from it.

What "empty" means, here and in every metric of the course:

1. **No pixel to judge** (all ignored, or no true foreground where a measure looks only there): NaN. Nothing
   was measured.
2. **Both empty** (both masks, no object in either instance map): they agree, 1.0. One empty, one
   not: 0.0. Where the measure is a distance: 0 pixels, and infinite.
3. **A class among several that neither ground truth nor prediction holds**: NaN, and it is left out of every mean.
   Counting it as 1 would flatter a model for classes that the images don't show; counting it as 0 would
   punish it for them.

Rules 2 and 3 differ on purpose. A pair of masks is one question (is this region right?), and "nothing there"
is right. A class table is many questions at once, and an absent class is a question that was
not asked.

Pixels whose *true* label is `ignore` (-1) don't count, whatever was predicted there.

A `matrix` is always a confusion matrix `(C, C)`, rows are the ground truth; what is not square or holds a negative count
raises a `ValueError`.
"""

from collections.abc import Sequence

import numpy as np

from course_lib._checks import whole_number
from course_lib.metrics._labels import check_class_range, check_same_shape, class_ids, integer_array

IGNORE = -1


def confusion_matrix(
    y_true: np.ndarray, y_pred: np.ndarray, num_classes: int, ignore: int | None = IGNORE
) -> np.ndarray:
    """Count pixels by true and predicted class.

    Args:
        y_true: integer class ids, any shape.
        y_pred: integer class ids of the same shape (of logits, take the argmax over the last axis first).
        num_classes: number of classes C; ids run from 0 to C - 1.
        ignore: pixels with this true label don't count; `None` counts all.

    Returns:
        int64 `(C, C)`: entry `[i, j]` counts the pixels of true class i that were predicted as j. Matrices of
        several images add up to the matrix of all of them.

    Raises:
        ValueError: shapes differ, an array is not of integers, or an id that counts is out of range.
    """
    num_classes = whole_number("num_classes", num_classes, 1)
    y_true, y_pred = _class_ids("y_true", y_true), _class_ids("y_pred", y_pred)
    check_same_shape("y_true", y_true, "y_pred", y_pred)
    if ignore is not None:
        judged = y_true != ignore
        y_true, y_pred = y_true[judged], y_pred[judged]
    check_class_range("y_true", y_true, num_classes, ignore)
    check_class_range("y_pred", y_pred, num_classes, None)
    pairs = y_true.astype(np.int64).ravel() * num_classes + y_pred.astype(np.int64).ravel()
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def iou_per_class(matrix: np.ndarray) -> np.ndarray:
    """Intersection over union of each class: TP / (TP + FP + FN), also called the Jaccard index.

    Returns float64 `(C,)` in 0..1; NaN for a class in neither ground truth nor prediction.
    """
    both, true, predicted = _counts(matrix)
    return _ratio(both, true + predicted - both)


def dice_per_class(matrix: np.ndarray) -> np.ndarray:
    """Dice coefficient of each class: 2 TP / (2 TP + FP + FN), the F1 score of its pixels.

    It orders two predictions as the IoU does: Dice = 2 IoU / (1 + IoU).

    Returns float64 `(C,)` in 0..1; NaN for a class in neither ground truth nor prediction.
    """
    both, true, predicted = _counts(matrix)
    return _ratio(2 * both, true + predicted)


def class_accuracy(matrix: np.ndarray) -> np.ndarray:
    """Fraction of each class's true pixels that were found (its recall).

    Returns float64 `(C,)` in 0..1; NaN for a class that the ground truth doesn't hold: it has no pixel to judge.
    """
    both, true, _ = _counts(matrix)
    return _ratio(both, true)


def mean_iou(matrix: np.ndarray, classes: Sequence[int] | None = None) -> float:
    """Mean of `iou_per_class` over the classes that occur.

    Args:
        matrix: confusion matrix.
        classes: the ids to average over, such as `[1]` for the cells alone; all by default.

    Returns:
        The mean in 0..1, or NaN if none of the classes occurs.

    Raises:
        ValueError: if a class id is out of range.
    """
    return _mean_of_present(iou_per_class(matrix), classes)


def mean_dice(matrix: np.ndarray, classes: Sequence[int] | None = None) -> float:
    """Mean of `dice_per_class` over the classes that occur; arguments and errors as in `mean_iou`."""
    return _mean_of_present(dice_per_class(matrix), classes)


def mean_class_accuracy(matrix: np.ndarray, classes: Sequence[int] | None = None) -> float:
    """Mean of `class_accuracy` over the classes that the ground truth holds, also called balanced accuracy.

    A class that is only predicted has no pixel to be found and is left out here, though not from `mean_iou`.

    Arguments and errors as in `mean_iou`. NaN if the ground truth holds none of the classes.
    """
    return _mean_of_present(class_accuracy(matrix), classes)


def frequency_weighted_iou(matrix: np.ndarray) -> float:
    """Mean of `iou_per_class`, each class weighted by its fraction of the true pixels.

    Σ t_c IoU_c / Σ t_c with t_c the true pixels of class c (Long, Shelhamer, Darrell 2015, Fully convolutional
    networks for semantic segmentation, section 5). A class that is only predicted weighs nothing here; what it
    took from the others is felt in theirs.

    Returns the mean in 0..1, or NaN if no pixel was judged.
    """
    _, true, _ = _counts(matrix)
    held = true > 0
    return float(_ratio((true[held] * iou_per_class(matrix)[held]).sum(), true.sum()))


def pixel_accuracy(matrix: np.ndarray) -> float:
    """Fraction of the judged pixels whose class is right.

    Returns the fraction in 0..1, or NaN if no pixel was judged.
    """
    both, true, _ = _counts(matrix)
    return float(_ratio(both.sum(), true.sum()))


def pixel_error(y_true: np.ndarray, y_pred: np.ndarray, ignore: int | None = IGNORE) -> float:
    """Fraction of the judged pixels whose class is wrong: 1 - pixel accuracy.

    On two binary maps this is the mean squared difference, the pixel error of the ISBI 2012 challenge at a
    fixed threshold. (Its leader board took the best threshold of each submission.)

    Args:
        y_true: integer class ids, any shape.
        y_pred: integer class ids of the same shape.
        ignore: pixels with this true label don't count; `None` counts all.

    Returns:
        The fraction in 0..1, or NaN if no pixel was judged.

    Raises:
        ValueError: shapes differ, or an array is not of integers.
    """
    y_true, y_pred = _class_ids("y_true", y_true), _class_ids("y_pred", y_pred)
    check_same_shape("y_true", y_true, "y_pred", y_pred)
    judged = np.ones(y_true.shape, bool) if ignore is None else y_true != ignore
    return float(_ratio(np.count_nonzero((y_true != y_pred) & judged), np.count_nonzero(judged)))


def iou(mask_a: np.ndarray, mask_b: np.ndarray) -> float:
    """Intersection over union of two masks.

    Args:
        mask_a, mask_b: bool, or integers 0 and 1; any shape, the same for both.

    Returns:
        The IoU in 0..1; 1.0 if both are empty; NaN if they have no pixel at all.

    Raises:
        ValueError: shapes differ, or a mask holds anything but true and false.
    """
    both, a, b = _mask_counts(mask_a, mask_b)
    return _agreement(both, a + b - both, np.size(mask_a))


def dice(mask_a: np.ndarray, mask_b: np.ndarray) -> float:
    """Dice coefficient of two masks: twice the intersection over the sum of both areas; all else as in `iou`."""
    both, a, b = _mask_counts(mask_a, mask_b)
    return _agreement(2 * both, a + b, np.size(mask_a))


def _class_ids(name: str, values: np.ndarray) -> np.ndarray:
    return integer_array(
        name,
        values,
        "of logits or probabilities per class take np.argmax(…, axis=-1) first, "
        "one probability per pixel compare with a threshold such as 0.5",
    )


def _counts(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a confusion matrix: pixels right, pixels true, and pixels predicted of each class."""
    matrix = np.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(
            f"matrix is an array of shape {matrix.shape}; it must be a square confusion matrix: see confusion_matrix()."
        )
    if matrix.size and matrix.min() < 0:
        raise ValueError(f"matrix holds {matrix.min()}; it must hold counts, at least 0.")
    return np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part / whole` in float64, NaN where `whole` is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def _mean_of_present(scores: np.ndarray, classes: Sequence[int] | None) -> float:
    if classes is not None:
        scores = scores[class_ids(classes, len(scores))]
    present = scores[~np.isnan(scores)]
    return float(present.mean()) if present.size else float("nan")


def _mask_counts(mask_a: np.ndarray, mask_b: np.ndarray) -> tuple[int, int, int]:
    """Pixels in both masks, in `mask_a`, and in `mask_b`."""
    masks = []
    for name, given in (("mask_a", mask_a), ("mask_b", mask_b)):
        mask = integer_array(name, given, "compare it with a threshold first")
        if mask.size and (mask.min() < 0 or mask.max() > 1):
            wrong = mask.max() if mask.max() > 1 else mask.min()
            raise ValueError(
                f"{name} holds {wrong}; it must hold true and false, or 1 and 0: compare the label map with one class "
                "first."
            )
        masks.append(mask.astype(bool))
    a, b = masks
    check_same_shape("mask_a", a, "mask_b", b)
    return np.count_nonzero(a & b), np.count_nonzero(a), np.count_nonzero(b)


def _agreement(part: int, whole: int, pixels: int) -> float:
    if not pixels:
        return float("nan")
    return part / whole if whole else 1.0
