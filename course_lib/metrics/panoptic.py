"""Panoptic quality: one score for found, and found well, of things that can be counted and stuff that can't.

Kirillov, He, Girshick, Rother, Dollár 2019, Panoptic segmentation, CVPR, eq. 1 and 2. A predicted and a true segment
match if their IoU is greater than 0.5, which makes the matching unique (see `course_lib.metrics.instance`). Then, for
each class,

    PQ = Σ IoU of the matched pairs / (TP + FP / 2 + FN / 2) = SQ · RQ
    SQ = Σ IoU of the matched pairs / TP                       how well the found ones fit
    RQ = TP / (TP + FP / 2 + FN / 2)                           how many were found: the F1 score of segments

counted over all images together. PQ of several classes is the mean over the classes; the mean of SQ times the mean of
RQ is *not* that number.

What is empty, as everywhere in the metrics: of one class, no segment on either side is 1.0, segments on one side only
0.0. Among several classes one that neither ground truth nor prediction holds is NaN and left out of the mean. Where
segments are there but none match, SQ is 0, so that PQ = SQ · RQ holds.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from course_lib._checks import whole_number
from course_lib.metrics._labels import (
    check_class_range,
    check_same_shape,
    consecutive,
    integer_array,
    paired_images,
    regions,
)
from course_lib.metrics.instance import _Overlap
from course_lib.metrics.semantic import IGNORE

THRESHOLD = 0.5
"""A match has an IoU greater than this."""


@dataclass(frozen=True)
class PanopticScore:
    """Panoptic quality of one class, over all images.

    Attributes:
        pq: panoptic quality, `sq * rq`.
        sq: segmentation quality, the mean IoU of the matched pairs; 0 if there is none.
        rq: recognition quality, the F1 score of the segments.
        true_positives, false_positives, false_negatives: matched pairs, and segments without a partner.
    """

    pq: float
    sq: float
    rq: float
    true_positives: int
    false_positives: int
    false_negatives: int


@dataclass(frozen=True, eq=False)
class PanopticScores:
    """Panoptic quality of several classes, over all images: one entry per class in each array.

    Attributes:
        true_positives, false_positives, false_negatives: int64 `(C,)`.
        matched_iou: float64 `(C,)`, the sum of the matched pairs' IoUs.
    """

    true_positives: np.ndarray
    false_positives: np.ndarray
    false_negatives: np.ndarray
    matched_iou: np.ndarray

    @property
    def pq(self) -> np.ndarray:
        """float64 `(C,)`: panoptic quality, NaN for a class on neither side."""
        return self._fraction(self.matched_iou)

    @property
    def rq(self) -> np.ndarray:
        """float64 `(C,)`: recognition quality, NaN for a class on neither side."""
        return self._fraction(self.true_positives)

    @property
    def sq(self) -> np.ndarray:
        """float64 `(C,)`: segmentation quality, 0 where nothing matched, NaN for a class on neither side."""
        mean = self.matched_iou / np.maximum(self.true_positives, 1)
        return np.where(self._weights() > 0, mean, np.nan)

    def mean(self, classes: Sequence[int] | None = None) -> tuple[float, float, float]:
        """PQ, SQ and RQ, each averaged over the classes that occur.

        Args:
            classes: the ids to average over, such as those of the things alone; all by default.

        Returns:
            Three numbers in 0..1, NaN if none of the classes occurs.

        Raises:
            ValueError: if a class id is out of range.
        """
        wrong = [c for c in classes or () if not 0 <= c < len(self.matched_iou)]
        if wrong:
            raise ValueError(
                f"classes is {list(classes)}; it must hold class ids, 0 to {len(self.matched_iou) - 1}."
            )
        chosen = np.isfinite(self.pq)
        if classes is not None:
            chosen &= np.isin(np.arange(len(chosen)), classes)
        if not chosen.any():
            return float("nan"), float("nan"), float("nan")
        pq, sq, rq = (float(score[chosen].mean()) for score in (self.pq, self.sq, self.rq))
        return pq, sq, rq

    def _weights(self) -> np.ndarray:
        return self.true_positives + 0.5 * self.false_positives + 0.5 * self.false_negatives

    def _fraction(self, part: np.ndarray) -> np.ndarray:
        weights = self._weights()
        return np.divide(part, weights, out=np.full(len(weights), np.nan), where=weights > 0)


def panoptic_quality(
    instances_true: Iterable[np.ndarray],
    instances_pred: Iterable[np.ndarray],
    ignore: Iterable[np.ndarray | None] | None = None,
) -> PanopticScore:
    """Panoptic quality of the objects of one class, over all images together.

    Args:
        instances_true: one integer map per image, 0 = background.
        instances_pred: one integer map per image, in the same order; each of its true map's shape.
        ignore: one boolean map per image, pixels that don't count; `None` counts all.

    Returns:
        PQ with its two factors, and the counts.

    Raises:
        ValueError: no image, different numbers of images, shapes that differ, or bad ids.
    """
    true, pred = paired_images("instances_true", instances_true, "instances_pred", instances_pred)
    images = zip(true, pred, regions(ignore, len(true)), strict=True)
    tp, fp, fn, matched_iou = sum(
        _counted(image, _count_instances, *maps) for image, maps in enumerate(images)
    )
    if not tp + fp + fn:
        return PanopticScore(1.0, 1.0, 1.0, 0, 0, 0)
    weight = tp + 0.5 * fp + 0.5 * fn
    sq = matched_iou / tp if tp else 0.0
    return PanopticScore(
        float(matched_iou / weight), float(sq), float(tp / weight), int(tp), int(fp), int(fn)
    )


def panoptic_quality_per_class(
    panoptic_true: Iterable[np.ndarray],
    panoptic_pred: Iterable[np.ndarray],
    num_classes: int,
    stuff: Sequence[int] = (0,),
    ignore: int | None = IGNORE,
) -> PanopticScores:
    """Panoptic quality of each class, things and stuff, over all images together.

    A map has two channels: each pixel's class, and its instance. A segment is the pixels of one class and one instance;
    all pixels of a class of stuff are one segment, whatever their instance. `np.stack([semantic, instances], -1)` makes
    such a map. (An instance that is predicted over two classes is two segments.)

    Pixels without a segment:

    - True class `ignore`: void. These pixels are taken out of the prediction before the IoUs are formed.
    - True class of things, instance 0: a group whose members nobody told apart (a crowd). It is matched with nothing.
    - An unmatched predicted segment of which more than half lies on void and on groups of its own class is no false
      positive: there is no telling whether it is right.
    - Predicted class `ignore`, or predicted class of things with instance 0: no prediction; the pixel is in no segment.

    Args:
        panoptic_true: one integer map `(height, width, 2)` per image.
        panoptic_pred: one integer map `(height, width, 2)` per image, in the same order.
        num_classes: number of classes C; ids run from 0 to C - 1.
        stuff: the classes without instances; by default the background, 0.
        ignore: the class id of void; `None` if there is none.

    Returns:
        The counts of each class, and the scores made of them. `.mean()` is the PQ of the whole.

    Raises:
        ValueError: no image, different numbers of images, shapes that differ, or ids out of range.
    """
    check_classes(num_classes, stuff)
    images = zip(*paired_images("panoptic_true", panoptic_true, "panoptic_pred", panoptic_pred), strict=True)
    counts = sum(
        _counted(image, _count_segments, *pair, num_classes, stuff, ignore)
        for image, pair in enumerate(images)
    )
    tp, fp, fn = counts[:, :3].round().astype(np.int64).T
    return PanopticScores(tp, fp, fn, counts[:, 3])


def _count_instances(
    instances_true: np.ndarray, instances_pred: np.ndarray, ignore: np.ndarray | None
) -> np.ndarray:
    """Of one image, float64 `(4,)`: TP, FP, FN, and the sum of the matched IoUs."""
    overlap = _Overlap(instances_true, instances_pred, ignore)
    matched = overlap.matches(THRESHOLD)
    wrong, missed = overlap.false_positives(matched), len(overlap.true_ids) - len(matched)
    return np.array([len(matched), wrong, missed, overlap.ious[matched].sum()])


def _count_segments(
    panoptic_true: np.ndarray,
    panoptic_pred: np.ndarray,
    num_classes: int,
    stuff: Sequence[int],
    ignore: int | None,
) -> np.ndarray:
    """Of one image, float64 `(C, 4)`: TP, FP, FN, and the sum of the matched IoUs of each class."""
    class_true, true = _segments("panoptic_true", panoptic_true, num_classes, stuff, ignore)
    class_pred, pred = _segments("panoptic_pred", panoptic_pred, num_classes, stuff, ignore)
    check_same_shape("panoptic_true", panoptic_true, "panoptic_pred", panoptic_pred)
    void = np.zeros(true.shape, bool) if ignore is None else class_true == ignore
    group = (true == 0) & ~void & (class_true == class_pred)

    # Void pixels are out of every area from here on, so that the IoUs are those of the judged pixels.
    overlap = _Overlap(true[~void], pred[~void])
    matched = overlap.matches(THRESHOLD)
    true_found, pred_found = (
        overlap.true_ids[overlap.rows[matched]],
        overlap.pred_ids[overlap.columns[matched]],
    )
    of_one_class = _class_of(true_found, num_classes) == _class_of(pred_found, num_classes)
    matched, true_found, pred_found = (
        matched[of_one_class],
        true_found[of_one_class],
        pred_found[of_one_class],
    )

    ids, index, areas = consecutive(pred)
    unjudged = np.bincount(index[(void | group).ravel()], minlength=len(ids))
    wrong = ids[(ids > 0) & ~np.isin(ids, pred_found) & (unjudged <= 0.5 * areas)]
    missed = np.setdiff1d(overlap.true_ids, true_found)

    tp, fp, fn = (
        np.bincount(_class_of(found, num_classes), minlength=num_classes)
        for found in (true_found, wrong, missed)
    )
    iou = np.bincount(_class_of(true_found, num_classes), overlap.ious[matched], minlength=num_classes)
    return np.stack([tp, fp, fn, iou], axis=-1).astype(np.float64)


def check_classes(num_classes: int, stuff: Sequence[int]) -> None:
    """A `ValueError` if there is no class, or a class of stuff is none of them."""
    whole_number("num_classes", num_classes, 1)
    wrong = [c for c in stuff if not 0 <= c < num_classes]
    if wrong:
        raise ValueError(f"stuff is {list(stuff)}; it must hold class ids, 0 to {num_classes - 1}.")


def _segments(
    name: str, panoptic: np.ndarray, num_classes: int, stuff: Sequence[int], ignore: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Of a map `(…, 2)` each pixel's class, and the number of its segment: 0 for none, see `_class_of`."""
    panoptic = integer_array(name, panoptic, "take the argmax of logits and label the components first")
    if panoptic.ndim < 2 or panoptic.shape[-1] != 2:
        raise ValueError(
            f"{name} is an array of shape {panoptic.shape}; it must be (height, width, 2), each pixel's class and "
            "instance: np.stack([semantic, instances], axis=-1)."
        )
    classes, instances = panoptic[..., 0].astype(np.int64), panoptic[..., 1].astype(np.int64)
    predicted = np.ones(classes.shape, bool) if ignore is None else classes != ignore
    check_class_range(name, classes[predicted], num_classes, ignore)
    if instances.size and instances.min() < 0:
        raise ValueError(
            f"{name} holds instance {instances.min()}; its instances must be ids from 0, and 0 where there is none."
        )
    instances = np.where(np.isin(classes, list(stuff)), 1, instances)
    segments = np.where(predicted & (instances > 0), 1 + classes + num_classes * (instances - 1), 0)
    return classes, segments


def _class_of(segments: np.ndarray, num_classes: int) -> np.ndarray:
    """The classes of numbered segments."""
    return (segments - 1) % num_classes


def _counted(image: int, count, *arguments) -> np.ndarray:
    try:
        return count(*arguments)
    except ValueError as error:
        raise ValueError(f"image {image}: {error}") from None
