"""Metrics of class maps as `keras.metrics.Metric`: logits and labels go in batch by batch, on every backend.

Keras has a `MeanIoU` of its own. It wants class ids, and given probabilities it doesn't complain: it casts
them to integers, nearly all to 0. It then scores pictures of class 0 alone, the same number after each epoch
and at most 1 / classes. (`OneHotMeanIoU` takes the argmax, but wants one-hot labels.) The metrics here take
what a segmentation network returns, logits `(…, C)`, and what a data set holds, integer labels with -1 for
pixels to ignore.

All of them keep a table of counts over all batches and divide at the end. The mean of each batch's IoU would
be another number, one that depends on how the images fell into batches.

What is empty is scored as in `course_lib.metrics.semantic`: a class in neither truth nor prediction is left
out of the mean, and before any pixel was judged the result is NaN.

These metrics run inside compiled steps. Those of outlines and of objects can't; they are in
`course_lib.metrics.per_image`.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from course_lib.metrics.semantic import IGNORE


class _StreamingTable(keras.metrics.Metric):
    """Adds up a small table of pixel counts over batches.

    float32 can't count past 2^24 one by one, which a few hundred images reach, and JAX has no int64 by
    default. So what each addition rounds off is kept in a second variable and added with the next (Kahan
    1965).
    """

    def __init__(self, table_shape: tuple[int, ...], name: str, dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.table = self.add_variable(table_shape, initializer="zeros", name="table")
        self.rounded_off = self.add_variable(table_shape, initializer="zeros", name="rounded_off")

    def add(self, counts, bad_label=False) -> None:
        """Add a batch's counts; `bad_label` (a bool tensor) turns the whole table into NaN."""
        counts = ops.where(bad_label, float("nan"), ops.cast(counts, self.table.dtype))
        missing = counts + self.rounded_off
        total = self.table + missing
        self.rounded_off.assign(missing - (total - self.table))
        self.table.assign(total)


class _ClassTable(_StreamingTable):
    """Accumulates the confusion matrix `(C, C)`, rows are the truth."""

    def __init__(self, num_classes: int, ignore: int | None, name: str, dtype=None):
        if num_classes < 2:
            raise ValueError(
                f"num_classes: at least 2 wanted, got {num_classes}; "
                "a binary map has the classes background and object."
            )
        super().__init__((num_classes, num_classes), name, dtype)
        self.num_classes = num_classes
        self.ignore = ignore

    def update_state(self, y_true, y_pred, sample_weight=None) -> None:
        """Count one batch.

        Args:
            y_true: integer class ids `(batch, …)`, or `(batch, …, 1)`.
            y_pred: logits (or probabilities) `(batch, …, C)`; the largest is the predicted class.
            sample_weight: what each pixel counts for: `(batch,)`, or any shape that broadcasts to the labels'
                from the left, such as one weight per pixel. 1 by default.

        Raises:
            ValueError: labels that aren't integers, shapes that don't go together, or not C logits. A label
                out of range can't raise inside a compiled step; it turns the result into NaN.
        """
        labels, logits = _labels_and_logits(y_true, y_pred, self.num_classes)
        weights, bad_label = _pixel_weights(labels, sample_weight, self.ignore, self.num_classes, self.dtype)
        labels = ops.clip(labels, 0, self.num_classes - 1)  # those changed here weigh nothing, or are bad
        predicted = ops.cast(ops.argmax(logits, axis=-1), "int32")
        pairs = ops.reshape(labels * self.num_classes + predicted, (-1,))
        counts = ops.segment_sum(ops.reshape(weights, (-1,)), pairs, num_segments=self.num_classes**2)
        self.add(ops.reshape(counts, (self.num_classes, self.num_classes)), bad_label)

    def get_config(self) -> dict:
        return {**super().get_config(), "num_classes": self.num_classes, "ignore": self.ignore}


class _ClassMean(_ClassTable):
    """The mean over the classes of a ratio of counts."""

    def __init__(
        self,
        num_classes: int,
        ignore: int | None,
        classes: Sequence[int] | None,
        name: str,
        dtype=None,
    ):
        super().__init__(num_classes, ignore, name, dtype)
        self.classes = checked_classes(classes, num_classes)

    def parts_and_wholes(self):
        """What is divided by what, `(C,)` each."""
        raise NotImplementedError

    def result(self):
        """The mean so far, a scalar in 0..1; NaN if no pixel was judged yet."""
        parts, wholes = self.parts_and_wholes()
        if self.classes is not None:
            parts = ops.take(parts, self.classes)
            wholes = ops.take(wholes, self.classes)
        return mean_over_present(parts, wholes)

    def per_class(self):
        """The score of each class so far, `(C,)`; NaN for a class without a pixel to be divided by."""
        return _ratio(*self.parts_and_wholes())

    def get_config(self) -> dict:
        classes = None if self.classes is None else list(self.classes)
        return {**super().get_config(), "classes": classes}


@keras.saving.register_keras_serializable(package="course_lib")
class ConfusionMatrix(_ClassTable):
    """The confusion matrix, from logits, over all pixels of all batches.

    Its result is a matrix. So is what `fit` and `evaluate` log under its name; the progress bar, which has room for
    one number, shows the mean of its entries. The functions of `course_lib.metrics.semantic` read scores from it.

    Args:
        num_classes: number of classes C, the length of the logits' last axis.
        ignore: pixels with this true label don't count; `None` counts all.
        name: the key in the logs.
        dtype: of the counts, float32 by default.

    Raises:
        ValueError: fewer than 2 classes.
    """

    def __init__(self, num_classes, ignore=IGNORE, name="confusion_matrix", dtype=None):
        super().__init__(num_classes, ignore, name, dtype)

    def result(self):
        """The counts so far, `(C, C)`: entry `[i, j]` those of true class i that were predicted as j."""
        return ops.copy(self.table)  # not the variable itself, which later batches change


@keras.saving.register_keras_serializable(package="course_lib")
class MeanIoU(_ClassMean):
    """Mean intersection over union of the classes, from logits, over all pixels of all batches.

    Args:
        num_classes: number of classes C, the length of the logits' last axis.
        ignore: pixels with this true label don't count; `None` counts all.
        classes: the ids to average over, such as `[1]` for the cells alone; all by default.
        name: shown in the progress bar.
        dtype: of the counts, float32 by default.

    Raises:
        ValueError: fewer than 2 classes, or ids out of range.

    Example:
        >>> metric = MeanIoU(num_classes=2)
        >>> metric.update_state([[0, 1, 1, -1]], [[[2., 1.], [0., 3.], [1., 0.], [5., 0.]]])
        >>> float(metric.result())  # both classes: 1 pixel in common of 2
        0.5
    """

    def __init__(self, num_classes, ignore=IGNORE, classes=None, name="mean_iou", dtype=None):
        super().__init__(num_classes, ignore, classes, name, dtype)

    def parts_and_wholes(self):
        both, true, predicted = _marginals(self.table)
        return both, true + predicted - both


@keras.saving.register_keras_serializable(package="course_lib")
class Dice(_ClassMean):
    """Mean Dice coefficient of the classes, from logits, over all pixels of all batches.

    This is the *hard* Dice, of predicted classes. The soft Dice of a loss is made of probabilities and is
    another number. Arguments and errors as in `MeanIoU`.
    """

    def __init__(self, num_classes, ignore=IGNORE, classes=None, name="dice", dtype=None):
        super().__init__(num_classes, ignore, classes, name, dtype)

    def parts_and_wholes(self):
        both, true, predicted = _marginals(self.table)
        return 2 * both, true + predicted


@keras.saving.register_keras_serializable(package="course_lib")
class ClassAccuracy(_ClassMean):
    """Mean over the classes of the share of their true pixels that were found, from logits, over all batches.

    Also called balanced accuracy. A class that the truth doesn't hold has no pixel to be found and is left out of the
    mean. Arguments and errors as in `MeanIoU`.
    """

    def __init__(self, num_classes, ignore=IGNORE, classes=None, name="class_accuracy", dtype=None):
        super().__init__(num_classes, ignore, classes, name, dtype)

    def parts_and_wholes(self):
        both, true, _ = _marginals(self.table)
        return both, true


@keras.saving.register_keras_serializable(package="course_lib")
class FrequencyWeightedIoU(_ClassTable):
    """Mean IoU of the classes, each weighted by its share of the true pixels, from logits, over all batches.

    See `course_lib.metrics.frequency_weighted_iou`.

    Args:
        num_classes: number of classes C, the length of the logits' last axis.
        ignore: pixels with this true label don't count; `None` counts all.
        name: shown in the progress bar.
        dtype: of the counts, float32 by default.

    Raises:
        ValueError: fewer than 2 classes.
    """

    def __init__(self, num_classes, ignore=IGNORE, name="frequency_weighted_iou", dtype=None):
        super().__init__(num_classes, ignore, name, dtype)

    def result(self):
        """The mean so far, a scalar in 0..1; NaN if no pixel was judged yet."""
        both, true, predicted = _marginals(self.table)
        union = true + predicted - both
        iou = both / ops.where(ops.equal(union, 0), 1.0, union)  # an absent class weighs 0
        return ops.sum(true * iou) / ops.sum(true)


@keras.saving.register_keras_serializable(package="course_lib")
class PixelAccuracy(_StreamingTable):
    """Share of the judged pixels whose class is right, from logits, over all batches.

    Args:
        ignore: pixels with this true label don't count; `None` counts all.
        name: shown in the progress bar.
        dtype: of the counts, float32 by default.
    """

    def __init__(self, ignore: int | None = IGNORE, name: str = "pixel_accuracy", dtype=None):
        super().__init__((2,), name, dtype)  # pixels right, pixels judged
        self.ignore = ignore

    def update_state(self, y_true, y_pred, sample_weight=None) -> None:
        """Count one batch; arguments and errors as in `MeanIoU.update_state`, C taken from the logits."""
        labels, logits = _labels_and_logits(y_true, y_pred)
        weights, bad_label = _pixel_weights(labels, sample_weight, self.ignore, logits.shape[-1], self.dtype)
        right = ops.equal(ops.cast(ops.argmax(logits, axis=-1), "int32"), labels)
        self.add(ops.stack([ops.sum(ops.where(right, weights, 0.0)), ops.sum(weights)]), bad_label)

    def result(self):
        """The share so far, a scalar in 0..1; NaN if no pixel was judged yet."""
        return self.table[0] / self.table[1]

    def get_config(self) -> dict:
        return {**super().get_config(), "ignore": self.ignore}


def _labels_and_logits(y_true, y_pred, num_classes: int | None = None):
    """Both as tensors, labels int32 without a last axis of length 1, or a `ValueError`."""
    y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
    label_dtype = keras.backend.standardize_dtype(y_true.dtype)
    if "int" not in label_dtype and label_dtype != "bool":
        raise ValueError(
            f"y_true: integer class ids wanted, got {label_dtype}; "
            "of one-hot labels take the argmax over the last axis."
        )
    if len(y_true.shape) == len(y_pred.shape) and y_true.shape[-1] == 1:
        y_true = ops.squeeze(y_true, axis=-1)
    classes = y_pred.shape[-1] if len(y_pred.shape) else None
    if num_classes is not None and classes != num_classes or len(y_pred.shape) != len(y_true.shape) + 1:
        raise ValueError(
            f"y_pred: logits of shape (batch, …, {num_classes or 'C'}) wanted for labels of shape "
            f"{tuple(y_true.shape)}, got {tuple(y_pred.shape)}; "
            "class ids are for course_lib.metrics.confusion_matrix."
        )
    for axis, (of_labels, of_logits) in enumerate(zip(y_true.shape, y_pred.shape[:-1], strict=True)):
        if of_labels is not None and of_logits is not None and of_labels != of_logits:
            raise ValueError(
                f"y_true has shape {tuple(y_true.shape)} but the logits {tuple(y_pred.shape)}: "
                f"axis {axis} differs; crop the labels to the logits' height and width."
            )
    return ops.cast(y_true, "int32"), y_pred


def _pixel_weights(labels, sample_weight, ignore: int | None, num_classes: int, dtype: str):
    """What each pixel counts for, 0 where it is ignored; and whether a label that counts is out of range."""
    weights = ops.ones(ops.shape(labels), dtype=dtype)
    if sample_weight is not None:
        sample_weight = ops.cast(ops.convert_to_tensor(sample_weight), dtype)
        missing = len(labels.shape) - len(sample_weight.shape)
        if missing == -1 and sample_weight.shape[-1] == 1:
            sample_weight, missing = ops.squeeze(sample_weight, axis=-1), 0
        if missing < 0:
            raise ValueError(
                f"sample_weight: a shape that goes with the labels' {tuple(labels.shape)} wanted, "
                f"got {tuple(sample_weight.shape)}; give one weight per image or per pixel."
            )
        weights = weights * ops.reshape(sample_weight, (*ops.shape(sample_weight), *[1] * missing))
    impossible = ops.logical_or(labels < 0, labels >= num_classes)
    if ignore is not None:
        ignored = ops.equal(labels, ignore)
        weights = ops.where(ignored, 0.0, weights)
        impossible = ops.logical_and(impossible, ops.logical_not(ignored))
    return weights, ops.any(impossible)


def _marginals(table):
    """Of a confusion matrix: pixels right, pixels true, and pixels predicted of each class."""
    return ops.diagonal(table), ops.sum(table, axis=1), ops.sum(table, axis=0)


def checked_classes(classes: Sequence[int] | None, num_classes: int) -> tuple[int, ...] | None:
    """The ids to average over, or a `ValueError`."""
    wrong = [c for c in classes or () if not 0 <= c < num_classes]
    if wrong or (classes is not None and not len(classes)):
        raise ValueError(
            f"classes: ids from 0 to {num_classes - 1} wanted, got {list(classes)}; "
            "leave it out to average over all."
        )
    return None if classes is None else tuple(int(c) for c in classes)


def mean_over_present(parts, wholes):
    """Mean of `parts / wholes` over the classes whose whole isn't 0."""
    absent = ops.equal(wholes, 0)  # not "> 0": NaN, the mark of a bad label, must stay in the mean
    scores = ops.where(absent, 0.0, parts / ops.where(absent, 1.0, wholes))
    return ops.sum(scores) / ops.sum(ops.cast(ops.logical_not(absent), scores.dtype))


def _ratio(parts, wholes):
    """`parts / wholes`, NaN where the whole is 0."""
    absent = ops.equal(wholes, 0)
    return ops.where(absent, float("nan"), parts / ops.where(absent, 1.0, wholes))
