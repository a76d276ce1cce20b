"""Metrics of outlines and of objects as `keras.metrics.Metric`: they stream over batches of concrete arrays.

Finding an outline's nearest neighbour, or matching the objects of two maps, is work for SciPy, which a compiled
training step can't call. So these metrics take arrays, image by image, and keep sums and counts in Keras variables, as
the metrics of `course_lib.metrics.streaming` do: `reset_state`, `result`, saving and averaging over batches work alike.
There are two ways to use them:

- after training: `metric.update_state(labels, model.predict(images))`, all at once or batch by batch;
- in `fit` and `evaluate`, with `model.compile(…, run_eagerly=True)`. Every step is slower then, which is bearable for
  `evaluate` only.

In a compiled step they raise a `TypeError` that says so. (PyTorch doesn't compile by default; there they run as is.)

A batch is an array with a leading axis, or a list of images that may differ in size. `sample_weight`, where given, is
one number per image.

What is empty is scored as in `course_lib.metrics.semantic`, and before any image was seen the result is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from course_lib.metrics import boundary, instance, panoptic
from course_lib.metrics._labels import check_class_range, check_same_shape, integer_array
from course_lib.metrics.semantic import IGNORE
from course_lib.metrics.streaming import _StreamingTable, checked_classes, mean_over_present


class _PerImage(_StreamingTable):
    """Adds up a small table of sums and counts over images."""

    def count(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        """What one image adds to the table."""
        raise NotImplementedError

    def update_state(self, y_true, y_pred, sample_weight=None) -> None:
        """Count one batch; see the class for what `y_true` and `y_pred` hold.

        Args:
            y_true: the truth, an array with a leading axis or a list of images.
            y_pred: the prediction, as many images.
            sample_weight: what each image counts for, `(batch,)`; 1 by default.

        Raises:
            TypeError: if called inside a compiled step.
            ValueError: if the images don't go together, or hold what they can't.
        """
        if _rehearsing():
            return
        y_true, y_pred = self._images("y_true", y_true), self._images("y_pred", y_pred)
        if len(y_true) != len(y_pred):
            raise ValueError(
                f"y_true has {len(y_true)} images but y_pred has {len(y_pred)}; one truth per prediction is wanted."
            )
        weights = self._weights(sample_weight, len(y_true))
        counts = np.zeros(self.table.shape)
        for image, (true, pred, weight) in enumerate(zip(y_true, y_pred, weights, strict=True)):
            try:
                counts += weight * self.count(true, pred)
            except ValueError as error:
                raise ValueError(f"image {image} of the batch: {error}") from None
        self.add(counts)

    def _weights(self, sample_weight, images: int) -> np.ndarray:
        if sample_weight is None:
            return np.ones(images)
        weights = self._array("sample_weight", sample_weight)
        if weights.size != images:
            raise ValueError(
                f"sample_weight: one weight per image wanted, shape ({images},), got {weights.shape}."
            )
        return weights.reshape(images)

    def _images(self, name: str, batch) -> list[np.ndarray]:
        if isinstance(batch, (list, tuple)):
            return [self._array(name, image) for image in batch]
        batch = self._array(name, batch)
        if not batch.ndim:
            raise ValueError(f"{name}: a batch of images wanted, got a single value.")
        return list(batch)

    def _array(self, name: str, values) -> np.ndarray:
        if isinstance(values, (np.ndarray, np.generic, list, tuple, int, float)):
            return np.asarray(values)
        try:
            return ops.convert_to_numpy(values)
        except Exception as error:  # each backend has an exception of its own for a tensor without values
            raise TypeError(
                f"{name}: {type(self).__name__} is computed with SciPy and wants concrete arrays, but it was called in "
                "a compiled step. Either leave it out of model.compile and call "
                "metric.update_state(y_true, model.predict(x)), or compile with run_eagerly=True."
            ) from error


class _OutlineOfClasses(_PerImage):
    """A score of two masks, averaged over the images that show a class, then over the classes.

    The table is `(C, 3)`: the sum of the finite scores of each class, how many these were, and how many were infinite.
    """

    def __init__(
        self,
        num_classes: int,
        ignore: int | None,
        classes: Sequence[int] | None,
        name: str,
        dtype=None,
    ):
        if num_classes < 2:
            raise ValueError(
                f"num_classes: at least 2 wanted, got {num_classes}; "
                "a binary map has the classes background and object."
            )
        super().__init__((num_classes, 3), name, dtype)
        self.num_classes = num_classes
        self.ignore = ignore
        self.classes = checked_classes(classes, num_classes)

    def score(self, mask_true: np.ndarray, mask_pred: np.ndarray) -> float:
        """The score of one class in one image."""
        raise NotImplementedError

    def count(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        labels, predicted, judged = self._class_maps(y_true, y_pred)
        table = np.zeros((self.num_classes, 3))
        for c in range(self.num_classes) if self.classes is None else self.classes:
            mask_true, mask_pred = labels == c, (predicted == c) & judged
            if mask_true.any() or mask_pred.any():
                score = self.score(mask_true, mask_pred)
                table[c] = (0, 0, 1) if np.isinf(score) else (score, 1, 0)
        return table

    def result(self):
        """The mean over the classes so far, a scalar; NaN if no image was counted yet."""
        return mean_over_present(*self._sums_and_images())

    def per_class(self):
        """The mean of each class over the images that show it, `(C,)`; NaN for a class that no image shows."""
        sums, images = self._sums_and_images()
        absent = ops.equal(images, 0)
        return ops.where(absent, float("nan"), sums / ops.where(absent, 1.0, images))

    def get_config(self) -> dict:
        config = {"num_classes": self.num_classes, "ignore": self.ignore}
        classes = None if self.classes is None else list(self.classes)
        return {**super().get_config(), **config, "classes": classes}

    def _sums_and_images(self):
        """The sum of each class's scores, infinite where one of them was, and the images that it is of."""
        table = ops.convert_to_tensor(self.table)
        return ops.where(table[:, 2] > 0, float("inf"), table[:, 0]), table[:, 1] + table[:, 2]

    def _class_maps(self, labels: np.ndarray, logits: np.ndarray):
        """True classes, predicted classes, and which pixels count, each `(height, width)`; or a `ValueError`."""
        labels = integer_array("y_true", labels, "integer class ids", "of one-hot labels take the argmax")
        if labels.ndim == logits.ndim and labels.shape[-1] == 1:
            labels = labels[..., 0]
        if logits.ndim != labels.ndim + 1 or logits.shape[-1] != self.num_classes:
            raise ValueError(
                f"y_pred: logits of shape (batch, …, {self.num_classes}) wanted, got {logits.shape} for one image; "
                "of class ids np.eye(num_classes)[ids] makes such an array."
            )
        predicted = logits.argmax(axis=-1)
        check_same_shape("y_true", labels, "y_pred", predicted)
        judged = np.ones(labels.shape, bool) if self.ignore is None else labels != self.ignore
        check_class_range("y_true", labels[judged], self.num_classes, self.ignore)
        return labels, predicted, judged


@keras.saving.register_keras_serializable(package="course_lib")
class BoundaryF1(_OutlineOfClasses):
    """Boundary F1 of the classes, from logits: `course_lib.metrics.boundary_f1` of each class in each image.

    Averaged over the images that show the class (in truth or prediction), then over the classes (Csurka et al. 2013,
    section 3). An image in which only one side shows it counts as 0. Pixels to ignore are taken out of both masks.

    Args:
        num_classes: number of classes C, the length of the logits' last axis.
        tolerance: in pixels, or in the unit of `spacing`; at least 0.
        spacing: size of a pixel along each axis, or one number for all; 1 by default.
        ignore: pixels with this true label don't count; `None` counts all.
        classes: the ids to average over, such as `[1]` for the cells alone; all by default.
        name: shown in the progress bar.
        dtype: of the sums, float32 by default.

    `update_state` takes class ids `(batch, height, width)`, or `(batch, height, width, 1)`, and logits
    `(batch, height, width, C)`; the largest is the predicted class.

    Raises:
        ValueError: fewer than 2 classes, ids out of range, or a negative tolerance.

    Example:
        >>> metric = BoundaryF1(num_classes=2, tolerance=1, classes=[1])
        >>> truth = np.zeros((1, 8, 8), int)
        >>> truth[0, 2:6, 2:6] = 1
        >>> metric.update_state(truth, np.eye(2)[np.roll(truth, 1, axis=-1)])
        >>> float(metric.result())  # one pixel to the right is near enough
        1.0
    """

    def __init__(
        self,
        num_classes,
        tolerance=2.0,
        spacing=None,
        ignore=IGNORE,
        classes=None,
        name="boundary_f1",
        dtype=None,
    ):
        super().__init__(num_classes, ignore, classes, name, dtype)
        if not tolerance >= 0:
            raise ValueError(f"tolerance is {tolerance}; give a distance of 0 pixels or more.")
        self.tolerance = tolerance
        self.spacing = _checked_spacing(spacing)

    def score(self, mask_true, mask_pred):
        return boundary.boundary_f1(mask_true, mask_pred, self.tolerance, self.spacing)

    def get_config(self) -> dict:
        return {**super().get_config(), "tolerance": self.tolerance, "spacing": self.spacing}


@keras.saving.register_keras_serializable(package="course_lib")
class BoundaryIoU(_OutlineOfClasses):
    """Boundary IoU of the classes, from logits: `course_lib.metrics.boundary_iou` of each class in each image.

    Averages, empty classes, arguments and errors as in `BoundaryF1`; `distance`, the width of the rims in pixels, is at
    least 1.
    """

    def __init__(
        self, num_classes, distance=2.0, ignore=IGNORE, classes=None, name="boundary_iou", dtype=None
    ):
        super().__init__(num_classes, ignore, classes, name, dtype)
        if not distance >= 1:
            raise ValueError(f"distance is {distance}; the outermost pixel of a mask is at distance 1.")
        self.distance = distance

    def score(self, mask_true, mask_pred):
        return boundary.boundary_iou(mask_true, mask_pred, self.distance)

    def get_config(self) -> dict:
        return {**super().get_config(), "distance": self.distance}


class _DistanceOfClasses(_OutlineOfClasses):
    """A distance of outlines, infinite where only one side shows the class, or what `missing` says."""

    def __init__(self, num_classes, spacing, missing, ignore, classes, name, dtype=None):
        super().__init__(num_classes, ignore, classes, name, dtype)
        if missing is not None and not missing >= 0:
            raise ValueError(f"missing is {missing}; give a distance such as the picture's diagonal.")
        self.spacing = _checked_spacing(spacing)
        self.missing = missing

    def distance(self, mask_true: np.ndarray, mask_pred: np.ndarray) -> float:
        raise NotImplementedError

    def score(self, mask_true, mask_pred):
        distance = self.distance(mask_true, mask_pred)
        return self.missing if np.isinf(distance) and self.missing is not None else distance

    def missed(self):
        """In how many images only one side showed each class, `(C,)`; 0 throughout where `missing` is given."""
        return ops.convert_to_tensor(self.table)[:, 2]

    def get_config(self) -> dict:
        return {**super().get_config(), "spacing": self.spacing, "missing": self.missing}


@keras.saving.register_keras_serializable(package="course_lib")
class Hausdorff(_DistanceOfClasses):
    """Hausdorff distance of the classes, from logits: `course_lib.metrics.hausdorff` of each class in each image.

    Averaged over the images that show the class (in truth or prediction), then over the classes. One image in which
    only one side shows it makes the mean infinite: no distance is long enough for an object that isn't there. Where a
    finite price is wanted, say which: `missing`, such as the picture's diagonal.

    Args:
        num_classes: number of classes C, the length of the logits' last axis.
        percentile: 100 is the Hausdorff distance itself, 95 the usual "HD95".
        spacing: size of a pixel along each axis, or one number for all; 1 by default.
        missing: the distance that counts where only one side shows a class; infinity by default.
        ignore, classes, name, dtype: as in `BoundaryF1`.

    Raises:
        ValueError: fewer than 2 classes, ids out of range, a percentile out of range, or a negative `missing`.
    """

    def __init__(
        self,
        num_classes,
        percentile=100.0,
        spacing=None,
        missing=None,
        ignore=IGNORE,
        classes=None,
        name="hausdorff",
        dtype=None,
    ):
        super().__init__(num_classes, spacing, missing, ignore, classes, name, dtype)
        if not 0 < percentile <= 100:
            raise ValueError(f"percentile is {percentile}; give one above 0, 100 at most, such as 95.")
        self.percentile = percentile

    def distance(self, mask_true, mask_pred):
        return boundary.hausdorff(mask_true, mask_pred, self.percentile, self.spacing)

    def get_config(self) -> dict:
        return {**super().get_config(), "percentile": self.percentile}


@keras.saving.register_keras_serializable(package="course_lib")
class AverageSurfaceDistance(_DistanceOfClasses):
    """Average distance of the classes' outlines, from logits: `course_lib.metrics.average_surface_distance`.

    Averages, empty classes, arguments and errors as in `Hausdorff`, without the percentile.
    """

    def __init__(
        self,
        num_classes,
        spacing=None,
        missing=None,
        ignore=IGNORE,
        classes=None,
        name="average_surface_distance",
        dtype=None,
    ):
        super().__init__(num_classes, spacing, missing, ignore, classes, name, dtype)

    def distance(self, mask_true, mask_pred):
        return boundary.average_surface_distance(mask_true, mask_pred, self.spacing)


@keras.saving.register_keras_serializable(package="course_lib")
class AveragePrecision(_PerImage):
    """Matching AP, TP / (TP + FP + FN) over all images together, from instance maps; the mean over the thresholds.

    The streaming form of `course_lib.metrics.average_precision`; COCO's average precision is another measure.

    Args:
        thresholds: IoU thresholds, each 0 <= t < 1; by default the ten of the Data Science Bowl 2018.
        name: the key in the logs.
        dtype: of the counts, float32 by default.

    `update_state` takes instance maps `(batch, height, width)`, integers, 0 = background, for both.

    Raises:
        ValueError: a threshold out of range.
    """

    def __init__(self, thresholds=instance.DSB_THRESHOLDS, name="average_precision", dtype=None):
        self.thresholds = tuple(float(t) for t in instance.checked_thresholds(np.atleast_1d(thresholds)))
        super().__init__((len(self.thresholds), 4), name, dtype)  # TP, FP, FN, images

    def count(self, y_true, y_pred):
        scores = instance.matching_scores([_map(y_true)], [_map(y_pred)], self.thresholds)
        counts = scores.true_positives, scores.false_positives, scores.false_negatives
        return np.stack([*counts, np.ones(len(self.thresholds))], axis=-1)

    def result(self):
        """The mean over the thresholds so far, a scalar in 0..1."""
        return ops.mean(self.per_threshold())

    def per_threshold(self):
        """The average precision at each threshold so far, `(t,)`."""
        table = ops.convert_to_tensor(self.table)
        return _or_perfect(table[:, 0], table[:, 0] + table[:, 1] + table[:, 2], table[:, 3])

    def get_config(self) -> dict:
        return {**super().get_config(), "thresholds": list(self.thresholds)}


@keras.saving.register_keras_serializable(package="course_lib")
class PanopticQuality(_PerImage):
    """Panoptic quality over all images together, of one class or of several.

    Without `num_classes`, the streaming form of `course_lib.metrics.panoptic_quality`: `update_state` takes instance maps
    `(batch, height, width)`, integers, 0 = background. With it, that of `panoptic_quality_per_class`: `update_state`
    takes maps `(batch, height, width, 2)` of each pixel's class and instance, and the result is the mean over the
    classes that occur. `scores()` gives the two factors, the counts, and the classes one by one.

    Args:
        num_classes: number of classes, or `None` for instance maps of one class.
        stuff: the classes without instances; by default the background, 0.
        ignore: the class id of void; `None` if there is none.
        name: the key in the logs.
        dtype: of the counts, float32 by default.

    Raises:
        ValueError: no class, or a class of stuff out of range.
    """

    def __init__(self, num_classes=None, stuff=(0,), ignore=IGNORE, name="panoptic_quality", dtype=None):
        if num_classes is not None:
            panoptic.check_classes(num_classes, stuff)
        super().__init__((num_classes or 1, 5), name, dtype)  # TP, FP, FN, sum of matched IoUs, images
        self.num_classes = num_classes
        self.stuff = tuple(int(c) for c in stuff)
        self.ignore = ignore

    def count(self, y_true, y_pred):
        if self.num_classes is None:
            counts = panoptic.count_instances(_map(y_true), _map(y_pred))[None]
        else:
            counts = panoptic.count_segments(y_true, y_pred, self.num_classes, self.stuff, self.ignore)
        return np.concatenate([counts, np.ones((len(counts), 1))], axis=-1)

    def result(self):
        """The panoptic quality so far, a scalar in 0..1."""
        table = ops.convert_to_tensor(self.table)
        weights = table[:, 0] + 0.5 * (table[:, 1] + table[:, 2])
        if self.num_classes is None:
            return _or_perfect(table[:, 3], weights, table[:, 4])[0]
        return mean_over_present(table[:, 3], weights)

    def scores(self) -> panoptic.PanopticScore | panoptic.PanopticScores:
        """The scores so far as those of the plain functions; without `num_classes`, one image is wanted before.

        Raises:
            ValueError: if no image was counted yet.
        """
        table = ops.convert_to_numpy(self.table).astype(np.float64)
        if not table[:, 4].any():
            raise ValueError("No image was counted yet; call update_state first.")
        if self.num_classes is None:
            return panoptic.one_class(table[0, :4])
        return panoptic.per_class(table[:, :4])

    def get_config(self) -> dict:
        config = {"num_classes": self.num_classes, "stuff": list(self.stuff), "ignore": self.ignore}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="course_lib")
class AggregatedJaccard(_PerImage):
    """Mean over the images of `course_lib.metrics.aggregated_jaccard`, from instance maps.

    An image without objects on either side counts as 1. `update_state` takes instance maps `(batch, height, width)`,
    integers, 0 = background, for both.

    Args:
        name: the key in the logs.
        dtype: of the sums, float32 by default.
    """

    def __init__(self, name="aggregated_jaccard", dtype=None):
        super().__init__((2,), name, dtype)  # sum, images

    def count(self, y_true, y_pred):
        return np.array([instance.aggregated_jaccard(_map(y_true), _map(y_pred)), 1.0])

    def result(self):
        """The mean so far, a scalar in 0..1; NaN if no image was counted yet."""
        return self.table[0] / self.table[1]


def _rehearsing() -> bool:
    """Whether Keras only asks for shapes, as it does once before the first step on JAX, also if that runs eagerly."""
    with keras.SymbolicScope() as scope:
        return scope.original_scope is not None


def _map(instances: np.ndarray) -> np.ndarray:
    """An instance map without a channel axis of length 1."""
    return instances[..., 0] if instances.ndim == 3 and instances.shape[-1] == 1 else instances


def _or_perfect(part, whole, images):
    """`part / whole`; 1 where there was nothing to find and nothing was found, NaN where there was no image."""
    nothing = ops.equal(whole, 0)
    empty = ops.where(ops.equal(images, 0), float("nan"), 1.0)
    return ops.where(nothing, empty, part / ops.where(nothing, 1.0, whole))


def _checked_spacing(spacing: float | Sequence[float] | None) -> float | list[float] | None:
    """A spacing as a config can hold it, or a `ValueError`."""
    if spacing is None:
        return None
    boundary.checked_spacing(spacing, np.size(spacing))
    return np.asarray(spacing, np.float64).tolist()
