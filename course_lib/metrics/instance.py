"""Scores of instance maps: which predicted object matches which ground-truth object, and how many have no match.

An instance map is an integer array in which 0 is background and each other value one object; values may have
gaps. Two objects match if their IoU is **greater than** the threshold, never at equality: so the Data Science
Bowl 2018 (Caicedo et al. 2019) and StarDist's paper (Schmidt et al. 2018) define it. (StarDist's released
code also takes equality. The two differ only where an IoU hits a threshold exactly, as 3 of 4 pixels do at
0.75.)

At 0.5 and above "greater than" makes the matching unique, so no search is needed. Were one object A to match
two disjoint objects P and Q, then |A ∩ P| > |A ∪ P| / 2 >= |A| / 2, the same for Q, and P and Q together
would hold more of A than there is. Below 0.5 an object may have several candidates, and the assignment with
the most matches is searched for.

*Ignored* regions, where nobody drew what is there, are given as boolean masks, such as `semantic == -1`. Their pixels
are taken out of both maps before the IoUs are formed. A predicted object that lies in them by more than half and
matches nothing is neither right nor wrong: it is left out, as panoptic quality has it for void. Of a true object the
part that is not ignored is to be found.

Empty predictions, as everywhere in the metrics: an image without any object on either side is 1.0, they agree;
and 0.0 where only one side has objects. An image without objects adds nothing to scores over all images
together.

References:
    Caicedo et al. 2019, Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl.
    Schmidt, Weigert, Broaddus, Myers 2018, Cell detection with star-convex polygons, MICCAI.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from course_lib._checks import array_of, in_range
from course_lib.metrics._labels import (
    check_same_shape,
    consecutive,
    contingency,
    label_map,
    paired_images,
    region,
    regions,
)

DSB_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""The ten IoU thresholds of the Data Science Bowl 2018 (and of COCO): 0.5, 0.55, …, 0.95."""


@dataclass(frozen=True, eq=False)
class Matching:
    """The matched objects of one image.

    Attributes:
        threshold: a match has an IoU greater than this.
        true_positives: predicted objects with a true partner.
        false_positives: predicted objects without one.
        false_negatives: true objects without one.
        pairs: int `(true_positives, 2)`: the ids of the true and of the predicted object, ascending.
        ious: float64 `(true_positives,)`: the IoU of each pair.
    """

    threshold: float
    true_positives: int
    false_positives: int
    false_negatives: int
    pairs: np.ndarray
    ious: np.ndarray


@dataclass(frozen=True, eq=False)
class MatchingScores:
    """Matching scores of a set of images, one entry per IoU threshold in each array.

    Attributes:
        thresholds: float64 `(t,)`.
        true_positives, false_positives, false_negatives: int64 `(t,)`, counted over all images together.
        mean_matched_iou: float64 `(t,)`, mean IoU of the matched pairs of all images; NaN where nothing
            matched.
        per_image: float64 `(images, t)`, the average precision of each image alone.
    """

    thresholds: np.ndarray
    true_positives: np.ndarray
    false_positives: np.ndarray
    false_negatives: np.ndarray
    mean_matched_iou: np.ndarray
    per_image: np.ndarray

    @property
    def average_precision(self) -> np.ndarray:
        """float64 `(t,)`: TP / (TP + FP + FN) over all images together."""
        return _fraction(
            self.true_positives, self.true_positives + self.false_positives + self.false_negatives
        )

    @property
    def precision(self) -> np.ndarray:
        """float64 `(t,)`: TP / (TP + FP), the fraction of predicted objects that are right."""
        return _fraction(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> np.ndarray:
        """float64 `(t,)`: TP / (TP + FN), the fraction of true objects that were found."""
        return _fraction(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> np.ndarray:
        """float64 `(t,)`: 2 TP / (2 TP + FP + FN)."""
        return _fraction(
            2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives
        )

    def at(self, threshold: float) -> float:
        """The average precision at one of the thresholds.

        Raises:
            ValueError: if the scores were not taken at `threshold`.
        """
        found = np.flatnonzero(np.isclose(self.thresholds, threshold, rtol=0, atol=1e-9))
        if not found.size:
            taken = ", ".join(f"{t:g}" for t in self.thresholds)
            raise ValueError(
                f"threshold is {threshold:g}; it must be one of the thresholds of the scores, {taken}."
            )
        return float(self.average_precision[found[0]])


def iou_matrix(instances_true: np.ndarray, instances_pred: np.ndarray) -> np.ndarray:
    """IoU of each true object with each predicted one, in time proportional to the pixels.

    Args:
        instances_true: integer map, 0 = background.
        instances_pred: integer map of the same shape.

    Returns:
        float64 `(n, m)`: rows are the true objects, columns the predicted ones, each ascending by id.

    Raises:
        ValueError: shapes differ, an id is negative, or a map is not of integers.
    """
    overlap = _Overlap(instances_true, instances_pred)
    return overlap.dense(overlap.ious)


def match(
    instances_true: np.ndarray,
    instances_pred: np.ndarray,
    threshold: float = 0.5,
    ignore: np.ndarray | None = None,
) -> Matching:
    """Pair the objects of two instance maps.

    Args:
        instances_true: integer map, 0 = background.
        instances_pred: integer map of the same shape.
        threshold: a pair needs an IoU greater than this, 0 <= threshold < 1. Below 0.5 each object may have
            several candidates; then the most pairs are formed that can be, among those the ones with the
            highest IoUs.
        ignore: boolean map of the same shape, pixels that don't count; `None` counts all.

    Returns:
        The counts and the pairs.

    Raises:
        ValueError: shapes differ, an id is negative, a map is not of integers, or the threshold is out of
            range.
    """
    (threshold,) = checked_thresholds([threshold])
    overlap = _Overlap(instances_true, instances_pred, ignore)
    chosen = overlap.matches(threshold)
    pairs = np.stack(
        [overlap.true_ids[overlap.rows[chosen]], overlap.pred_ids[overlap.columns[chosen]]], axis=-1
    )
    return Matching(
        threshold=float(threshold),
        true_positives=len(chosen),
        false_positives=overlap.false_positives(chosen),
        false_negatives=len(overlap.true_ids) - len(chosen),
        pairs=pairs,
        ious=overlap.ious[chosen],
    )


def matching_scores(
    instances_true: Iterable[np.ndarray],
    instances_pred: Iterable[np.ndarray],
    thresholds: float | Sequence[float] = DSB_THRESHOLDS,
    ignore: Iterable[np.ndarray | None] | None = None,
) -> MatchingScores:
    """Match the objects of many images and count.

    Args:
        instances_true: one integer map per image, 0 = background.
        instances_pred: one integer map per image, in the same order; each of its true map's shape.
        thresholds: IoU thresholds, each 0 <= t < 1.
        ignore: one boolean map per image, pixels that don't count (`None` where all do); `None` counts all.

    Returns:
        Counts over all images together and the scores made of them, and the average precision of each image.

    Raises:
        ValueError: no image, different numbers of images, shapes that differ, bad ids, or a threshold out of
            range.
    """
    thresholds = checked_thresholds(np.atleast_1d(thresholds))
    instances_true, instances_pred = paired_images(
        "instances_true", instances_true, "instances_pred", instances_pred
    )
    counts = np.zeros((len(instances_true), len(thresholds), 3), np.int64)  # TP, FP, FN
    matched_iou = np.zeros(len(thresholds))
    ignore = regions(ignore, len(instances_true))
    for image, (true, pred, void) in enumerate(zip(instances_true, instances_pred, ignore, strict=True)):
        try:
            overlap = _Overlap(true, pred, void)
        except ValueError as error:
            raise ValueError(f"image {image}: {error}") from None
        for k, threshold in enumerate(thresholds):
            chosen = overlap.matches(threshold)
            matched = len(chosen)
            counts[image, k] = matched, overlap.false_positives(chosen), len(overlap.true_ids) - matched
            matched_iou[k] += overlap.ious[chosen].sum()

    tp, fp, fn = np.moveaxis(counts.sum(axis=0), -1, 0)
    mean_matched_iou = np.divide(matched_iou, tp, out=np.full(len(thresholds), np.nan), where=tp > 0)
    per_image = _fraction(counts[..., 0], counts.sum(axis=-1))
    return MatchingScores(thresholds, tp, fp, fn, mean_matched_iou, per_image)


def average_precision(
    instances_true: Iterable[np.ndarray],
    instances_pred: Iterable[np.ndarray],
    thresholds: float | Sequence[float] = DSB_THRESHOLDS,
    ignore: Iterable[np.ndarray | None] | None = None,
) -> float | np.ndarray:
    """TP / (TP + FP + FN) over all images together: the average precision of DSB 2018 and StarDist.

    It shares only its name with COCO's average precision, which integrates over confidences.

    Arguments and errors as in `matching_scores`, which tells more.

    Returns:
        A float for one threshold, float64 `(t,)` for a sequence.
    """
    scores = matching_scores(instances_true, instances_pred, thresholds, ignore).average_precision
    return float(scores[0]) if np.ndim(thresholds) == 0 else scores


def aggregated_jaccard(
    instances_true: np.ndarray, instances_pred: np.ndarray, ignore: np.ndarray | None = None
) -> float:
    """The aggregated Jaccard index (AJI) of one image: one IoU for all its objects.

    Each true object G_i takes the predicted object S_j(i) with which it has the highest IoU. Then

        AJI = Σ_i |G_i ∩ S_j(i)| / (Σ_i |G_i ∪ S_j(i)| + Σ_unused |S_k|)

    (Kumar et al. 2017, A dataset and a technique for generalized nuclear segmentation for computational
    pathology, IEEE TMI 36:7, algorithm 1.) What the paper leaves open is done as in the script of the MoNuSeg
    challenge: a predicted object may be taken by several true ones, and then counts in the union of each; a true
    object that meets no prediction adds its area to the denominator; so does each predicted object that nobody
    took. Where two predictions have the same IoU with a true object, the one that shares more pixels with it is
    taken, and if these are as many, the one whose first pixel comes first in reading order: names of objects
    don't matter. (The script takes the lower id.)

    There is no threshold. A true object is charged for its best candidate however bad that is, and a large
    prediction over many small objects is charged to each of them. The index isn't symmetric.

    Arguments and errors as in `match`.

    Returns:
        The index in 0..1; 1.0 if neither map has an object, 0.0 if only one has.
    """
    overlap = _Overlap(instances_true, instances_pred, ignore)
    if not len(overlap.true_ids) and overlap.excused.all():
        return 1.0
    index, first = np.unique(overlap.pred_index, return_index=True)
    first_pixel = first[index >= 0]
    best_first = np.lexsort((first_pixel[overlap.columns], -overlap.shared, -overlap.ious, overlap.rows))
    _, first_of_row = np.unique(overlap.rows[best_first], return_index=True)
    taken = best_first[first_of_row]
    missed = np.delete(overlap.true_areas, overlap.rows[taken]).sum()
    unused = np.delete(np.where(overlap.excused, 0, overlap.pred_areas), overlap.columns[taken]).sum()
    return float(overlap.shared[taken].sum() / (overlap.unions[taken].sum() + missed + unused))


def count_error(
    instances_true: np.ndarray, instances_pred: np.ndarray, ignore: np.ndarray | None = None
) -> int:
    """How many objects were predicted in excess (negative: too few), regardless of their location.

    Arguments and errors as in `match`.
    """
    overlap = _Overlap(instances_true, instances_pred, ignore)
    return np.count_nonzero(~overlap.excused) - len(overlap.true_ids)


class _Overlap:
    """The pairs of objects that overlap.

    `rows` and `columns` are their positions in `true_ids` and `pred_ids`; `shared` the pixels that both hold,
    `unions` those that either does, `ious` their ratio. `true_areas` and `pred_areas` are of the objects,
    `pred_index` is flat: the position in `pred_ids` of each pixel's predicted object, -1 for background. All of this
    is of the pixels that are not ignored; `excused` are the predicted objects that lie in ignored ones by more than half.
    """

    def __init__(
        self, instances_true: np.ndarray, instances_pred: np.ndarray, ignore: np.ndarray | None = None
    ):
        true = label_map("instances_true", instances_true)
        pred = label_map("instances_pred", instances_pred)
        check_same_shape("instances_true", true, "instances_pred", pred)
        whole_ids, _, whole_areas = _objects(pred)
        ignore = region(ignore, true.shape)
        if ignore is not None:
            true, pred = np.where(ignore, 0, true), np.where(ignore, 0, pred)
        self.true_ids, true_index, self.true_areas = _objects(true)
        self.pred_ids, self.pred_index, self.pred_areas = _objects(pred)
        self.excused = 2 * self.pred_areas < whole_areas[np.searchsorted(whole_ids, self.pred_ids)]
        both = (true_index >= 0) & (self.pred_index >= 0)
        table = contingency(true_index[both], self.pred_index[both], (len(self.true_ids), len(self.pred_ids)))
        self.rows, self.columns = table.coords
        self.shared = table.data
        self.unions = self.true_areas[self.rows] + self.pred_areas[self.columns] - self.shared
        self.ious = self.shared / self.unions

    def dense(self, values: np.ndarray) -> np.ndarray:
        """`(n, m)`: `values` of the pairs, 0 where two objects have no pixel in common."""
        matrix = np.zeros((len(self.true_ids), len(self.pred_ids)))
        matrix[self.rows, self.columns] = values
        return matrix

    def false_positives(self, chosen: np.ndarray) -> int:
        """How many predicted objects are in none of these pairs, those excused not counted."""
        unmatched = ~self.excused
        unmatched[self.columns[chosen]] = False
        return np.count_nonzero(unmatched)

    def matches(self, threshold: float) -> np.ndarray:
        """Which pairs match, as positions in `rows`, `columns` and `ious`."""
        # The margin keeps a tie a tie: 0.5 + 3 * 0.05 isn't exactly 13 / 20 in floating point.
        candidates = np.flatnonzero(self.ious > threshold + 1e-12)
        if threshold >= 0.5 or not candidates.size:
            return candidates
        # A pair is worth 1 and a little for its IoU, all of those littles less than one pair more.
        worth = np.zeros(len(self.ious))
        worth[candidates] = 1 + self.ious[candidates] / (2 * min(len(self.true_ids), len(self.pred_ids)))
        rows, columns = linear_sum_assignment(self.dense(worth), maximize=True)
        partner = np.full(len(self.true_ids), -1)
        partner[rows] = columns
        return candidates[partner[self.rows[candidates]] == self.columns[candidates]]


def _objects(instances: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`consecutive`, without the background: its pixels get the index -1."""
    ids, index, areas = consecutive(instances)
    if ids.size and ids[0] == 0:
        return ids[1:], index - 1, areas[1:]
    return ids, index, areas


def _fraction(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part / whole`, 1 where there is nothing to find and nothing found."""
    return np.divide(part, whole, out=np.ones(np.shape(whole)), where=whole > 0)


def checked_thresholds(thresholds: Sequence[float]) -> np.ndarray:
    """IoU thresholds as float64 `(t,)`, or a `ValueError`."""
    thresholds = array_of("thresholds", thresholds, shape=(None,)).astype(np.float64)
    if not thresholds.size:
        raise ValueError("thresholds is empty; it must hold at least one number.")
    for threshold in thresholds:
        in_range("threshold", threshold, 0, 1, open_high=True)  # no IoU is greater than 1
    return thresholds
