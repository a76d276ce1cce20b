"""Metrics of class maps as `keras.metrics.Metric`: logits and labels go in batch by batch, on every backend.

Keras has a `MeanIoU` of its own. It wants class ids, and given probabilities it doesn't complain: it casts
them to integers, nearly all to 0. It then scores images of class 0 alone, the same number after each epoch
and at most 1 / classes. (`OneHotMeanIoU` takes the argmax, but wants one-hot labels.) The metrics here take
what a segmentation model returns, logits `(…, C)`, and what a data set holds, class ids with -1 for pixels to
ignore; they read both exactly as `course_lib.losses` do (`course_lib.ops.labels`).

All of them keep a table of counts over all batches and divide at the end. The mean of each batch's IoU would
be another number, one that depends on how the images fell into batches.

What is empty is scored as in `course_lib.metrics.semantic`: a class in neither ground truth nor prediction is
left out of the mean, and before any pixel was judged the result is NaN. It is NaN, too, after logits that are
NaN, and after a label out of range in a compiled step, which can raise no error; nothing wrong is left uncounted.

Higher is better for all but `ConfusionMatrix`, and Keras's callbacks are told so: `mode="auto"` of
`EarlyStopping(monitor="val_mean_iou")` is `"max"`.
"""

from collections.abc import Sequence

import keras
from keras import ops

from course_lib._checks import whole_number
from course_lib.metrics._labels import class_ids
from course_lib.metrics.semantic import IGNORE
from course_lib.ops.labels import Tensor, read_batch

PARTS = 64


class _PixelCounts(keras.metrics.Metric):
    """Adds up counts of pixels over batches: `kinds` of them, and those that were ignored.

    float32 can't count past 2^24 one by one, which a few hundred images reach, and JAX has no int64 by
    default. So what each addition rounds off is kept in a second variable and added with the next (Kahan
    1965).
    """

    def __init__(self, kinds: int, ignore: int | None, name: str, dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.ignore = None if ignore is None else whole_number("ignore", ignore)
        self.counts = self.add_variable((kinds + 1,), initializer="zeros", name="counts")
        self.rounded_off = self.add_variable((kinds + 1,), initializer="zeros", name="rounded_off")
        self._direction = "up"  # what Keras's callbacks read where their mode is "auto"

    def kinds_of(self, labels: Tensor, predicted: Tensor) -> Tensor:
        """The cell of the table that counts each pixel, int32, from true and predicted class ids; labels of -1 have
        weight 0."""
        raise NotImplementedError

    def check_classes(self, classes: int) -> None:
        """A `ValueError` if the metric is not made for as many classes as the logits have."""

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> None:
        """Count one batch.

        Args:
            y_true: class ids `(batch, height, width)`, or `(batch, height, width, 1)`.
            y_pred: logits `(batch, height, width, C)`; the largest is the predicted class. Of one channel a logit
                above 0 is class 1, any other class 0.
            sample_weight: what each pixel counts for: one number per image `(batch,)`, or one per pixel, with or
                without a channel axis. 1 by default.

        Raises:
            ValueError: shapes that don't belong together, or a label that is none of the classes. Inside a compiled
                step a label can't raise; it turns the result into NaN.
        """
        batch = read_batch(y_true, y_pred, sample_weight, self.ignore, self.counts.dtype)
        self.check_classes(batch.logits.shape[-1])
        predicted = ops.cast(ops.argmax(batch.logits, axis=-1), "int32")
        kinds = ops.reshape(self.kinds_of(batch.labels, predicted), (-1,))
        last = self.counts.shape[0] - 1
        # In 64 parts: one sum of ones would stop at 2^24, which four images of 2048 × 2048 pixels reach.
        part = ops.cumsum(ops.ones_like(kinds)) % PARTS
        counts = ops.segment_sum(
            ops.reshape(batch.weights, (-1,)), part * last + kinds, num_segments=PARTS * last
        )
        counts = ops.sum(ops.reshape(counts, (PARTS, last)), axis=0)
        ignored = ops.sum(ops.cast(ops.logical_not(batch.counted), counts.dtype))
        unclear = ops.logical_and(ops.any(ops.isnan(batch.logits), axis=-1), batch.counted)
        bad = ops.logical_or(batch.impossible, ops.any(unclear))
        counts = ops.where(bad, float("nan"), ops.append(counts, ignored))
        missing = ops.cast(counts, self.counts.dtype) + self.rounded_off
        total = self.counts + missing
        self.rounded_off.assign(missing - (total - self.counts))
        self.counts.assign(total)

    def ignored_pixels(self) -> Tensor:
        """How many pixels were ignored so far, a scalar."""
        return ops.copy(self.counts[-1])

    def get_config(self) -> dict:
        return {**super().get_config(), "ignore": self.ignore}


class _ClassTable(_PixelCounts):
    """Accumulates the confusion matrix `(C, C)`, rows are the ground truth."""

    def __init__(self, num_classes: int, ignore: int | None, name: str, dtype=None):
        if num_classes == 1:
            raise ValueError(
                "num_classes is 1; it must be at least 2: even a model with one output channel has two classes, "
                "background and object."
            )
        self.num_classes = whole_number("num_classes", num_classes, 2)
        super().__init__(self.num_classes**2, ignore, name, dtype)

    def kinds_of(self, labels, predicted):
        return ops.maximum(labels, 0) * self.num_classes + predicted

    def check_classes(self, classes):
        if classes != self.num_classes:
            raise ValueError(
                f"num_classes is {self.num_classes}; it must be {classes}, the number of classes that the "
                "last axis of the logits stands for (two if it has one channel)."
            )

    def table(self) -> Tensor:
        """The confusion matrix so far, `(C, C)`."""
        return ops.reshape(self.counts[:-1], (self.num_classes, self.num_classes))

    def get_config(self) -> dict:
        return {**super().get_config(), "num_classes": self.num_classes}


class _ClassMean(_ClassTable):
    """The mean over the classes of a ratio of counts."""

    def __init__(
        self, num_classes: int, ignore: int | None, classes: Sequence[int] | None, name: str, dtype=None
    ):
        super().__init__(num_classes, ignore, name, dtype)
        self.classes = None if classes is None else class_ids(classes, self.num_classes)

    def parts_and_wholes(self) -> tuple[Tensor, Tensor]:
        """Numerators and denominators, `(C,)` each."""
        raise NotImplementedError

    def result(self) -> Tensor:
        """The mean so far, a scalar in 0..1; NaN if no pixel was judged yet."""
        parts, wholes = self.parts_and_wholes()
        if self.classes is not None:
            parts, wholes = ops.take(parts, self.classes), ops.take(wholes, self.classes)
        absent = ops.equal(wholes, 0)  # not "> 0": NaN must stay in the mean
        scores = ops.where(absent, 0.0, parts / ops.where(absent, 1.0, wholes))
        return ops.sum(scores) / ops.sum(ops.cast(ops.logical_not(absent), scores.dtype))

    def per_class(self) -> Tensor:
        """The score of each class so far, `(C,)`; NaN for a class in neither ground truth nor prediction."""
        parts, wholes = self.parts_and_wholes()
        absent = ops.equal(wholes, 0)
        return ops.where(absent, float("nan"), parts / ops.where(absent, 1.0, wholes))

    def marginals(self) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels right, pixels in the ground truth, and pixels predicted of each class, `(C,)` each."""
        table = self.table()
        return ops.diagonal(table), ops.sum(table, axis=1), ops.sum(table, axis=0)

    def get_config(self) -> dict:
        return {**super().get_config(), "classes": self.classes}


@keras.saving.register_keras_serializable("course_lib")
class ConfusionMatrix(_ClassTable):
    """The confusion matrix, from logits, over all pixels of all batches.

    Its result is a matrix. So is what `fit` and `evaluate` log under its name; the progress bar, which has room for
    one number, shows the mean of its entries. The functions of `course_lib.metrics.semantic` read scores from it.

    Args:
        num_classes: number of classes C; 2 for a model of one output channel.
        ignore: pixels with this true label don't count; `None` counts all.
        name: the key in the logs.
        dtype: of the counts, float32 by default.

    Raises:
        ValueError: fewer than 2 classes.
    """

    def __init__(
        self, num_classes: int, ignore: int | None = IGNORE, name: str = "confusion_matrix", dtype=None
    ):
        super().__init__(num_classes, ignore, name, dtype)
        del self._direction  # a matrix can't be monitored

    def result(self) -> Tensor:
        """The counts so far, `(C, C)`: entry `[i, j]` those of true class i that were predicted as j."""
        return self.table()


@keras.saving.register_keras_serializable("course_lib")
class MeanIoU(_ClassMean):
    """Mean intersection over union of the classes, from logits, over all pixels of all batches.

    Args:
        num_classes: number of classes C; 2 for a model of one output channel.
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

    def __init__(
        self,
        num_classes: int,
        ignore: int | None = IGNORE,
        classes: Sequence[int] | None = None,
        name: str = "mean_iou",
        dtype=None,
    ):
        super().__init__(num_classes, ignore, classes, name, dtype)

    def parts_and_wholes(self):
        both, true, predicted = self.marginals()
        return both, true + predicted - both


@keras.saving.register_keras_serializable("course_lib")
class DiceScore(_ClassMean):
    """Mean Dice coefficient of the classes, from logits, over all pixels of all batches.

    This is the *hard* Dice, of predicted classes. The soft Dice of a loss is made of probabilities and is
    another number. Arguments and errors as in `MeanIoU`.
    """

    def __init__(
        self,
        num_classes: int,
        ignore: int | None = IGNORE,
        classes: Sequence[int] | None = None,
        name: str = "dice_score",
        dtype=None,
    ):
        super().__init__(num_classes, ignore, classes, name, dtype)

    def parts_and_wholes(self):
        both, true, predicted = self.marginals()
        return 2 * both, true + predicted


@keras.saving.register_keras_serializable("course_lib")
class PixelAccuracy(_PixelCounts):
    """Fraction of the judged pixels whose class is right, from logits, over all batches.

    Args:
        ignore: pixels with this true label don't count; `None` counts all.
        name: shown in the progress bar.
        dtype: of the counts, float32 by default.
    """

    def __init__(self, ignore: int | None = IGNORE, name: str = "pixel_accuracy", dtype=None):
        super().__init__(2, ignore, name, dtype)  # pixels wrong, pixels right

    def kinds_of(self, labels, predicted):
        return ops.cast(ops.equal(labels, predicted), "int32")

    def result(self) -> Tensor:
        """The fraction so far, a scalar in 0..1; NaN if no pixel was judged yet."""
        return self.counts[1] / (self.counts[0] + self.counts[1])
