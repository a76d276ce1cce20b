"""COCO's average precision: how well detections with scores find the objects of each class, by box or by mask.

A detection is a guess with a score, and which guesses count is left to the user's threshold. Average precision
judges all thresholds at once. The detections of one class, over all images, are sorted by score; each is right
if it found a true object that no better-scored one had taken; and going down the list, recall grows while
precision falls. The area below that curve is the average precision (`interpolated_precision`). COCO takes it
at ten IoUs and averages over them and over the classes.

The rules, as COCO's own evaluation has them:

- In each image and class at most 100 detections are looked at, the best-scored.
- In order of score, each takes the object with the highest IoU of those that are free. The IoU must **reach**
  the threshold; equality is enough. (Scores of instance maps, `course_lib.metrics.match`, want more than
  equality.) Of equal scores the first given goes first; of equal IoUs the last object is taken.
- *Crowd*: a true region that holds many objects nobody outlined. It is nothing to find, and detections in it
  are neither right nor wrong, however many they are. The IoU with a crowd is the part of the *detection* that
  lies in it, intersection / area of the detection.
- *Size ranges*: small is up to 32² pixels, medium from there to 96², large above; an object exactly on a limit
  belongs to both sides. Looking at one range, objects outside it are ignored just as crowds are (though
  each takes one detection only), and so are detections outside it that found nothing.

What is empty, as in `course_lib.metrics.semantic`: a class (or a size range of it) without true objects is
NaN and left out of every mean, and a mean of nothing is NaN; pycocotools writes -1. Such a class is left out
even if it was detected somewhere: its false alarms cost nothing, since no recall can be measured (class maps
differ here, a class that is only predicted has IoU 0). A class with true objects and no detection is 0. An
image without true objects adds nothing to find, and its detections are false positives of the classes that
have objects elsewhere.

References:
    Lin et al. 2014, Microsoft COCO: Common objects in context, ECCV, https://arxiv.org/abs/1405.0312;
    the ten IoUs, size ranges and crowds: https://cocodataset.org/#detection-eval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from course_lib.metrics._labels import check_same_shape, integer_array, label_map

# COCO's grids, rounded as COCO rounds them: its 0.7 is a little above 7 / 10, so a recall of 7 in 10 does not
# reach it, and only the same number reads the same precision there.
IOU_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())
"""COCO's ten IoU thresholds: 0.5, 0.55, …, 0.95."""

RECALLS = tuple(np.linspace(0.0, 1.0, 101).tolist())
"""The 101 recalls at which COCO reads the precision: 0, 0.01, …, 1."""

SIZE_LIMITS = (32.0**2, 96.0**2)
"""Areas in pixels that part small, medium and large objects."""

SIZE_RANGES = ("all", "small", "medium", "large")

STATS = tuple(
    "ap ap_50 ap_75 ap_small ap_medium ap_large ar_1 ar_10 ar_100 ar_small ar_medium ar_large".split()
)
"""The twelve numbers, in the order of pycocotools."""

FALSE_POSITIVE, TRUE_POSITIVE, IGNORED = 0, 1, -1


@dataclass(frozen=True, eq=False)
class CocoScores:
    """COCO's twelve numbers, each 0..1 or NaN where there was nothing to find, and the curves below them.

    Attributes:
        ap: average precision, the mean over IoU thresholds and classes, all sizes.
        ap_50, ap_75: the same at IoU 0.5 and 0.75 alone; NaN if these aren't among the thresholds.
        ap_small, ap_medium, ap_large: `ap` of the objects of one size.
        ar_1, ar_10, ar_100: average recall, the mean over IoU thresholds and classes of the share of objects
            found, with at most 1, 10 and `max_detections` (100 by default) detections per image and class.
        ar_small, ar_medium, ar_large: `ar_100` of the objects of one size.
        per_class: float64 `(K,)`: `ap` of each class.
        precision: float64 `(T, R, K, A, M)`: interpolated precision at each IoU threshold, recall, class,
            size range (all, small, medium, large) and number of detections (1, 10, `max_detections`).
        recall: float64 `(T, K, A, M)`: share of objects found.
        truths: int64 `(K, A)`: number of objects to find.
        iou_thresholds: float64 `(T,)`.
        recalls: float64 `(R,)`.
        max_detections: the three numbers of detections.
    """

    ap: float
    ap_50: float
    ap_75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar_1: float
    ar_10: float
    ar_100: float
    ar_small: float
    ar_medium: float
    ar_large: float
    per_class: np.ndarray
    precision: np.ndarray = field(repr=False)
    recall: np.ndarray = field(repr=False)
    truths: np.ndarray
    iou_thresholds: np.ndarray
    recalls: np.ndarray = field(repr=False)
    max_detections: tuple[int, int, int]

    @property
    def stats(self) -> np.ndarray:
        """float64 `(12,)`: the twelve numbers in the order of pycocotools."""
        return np.array([getattr(self, name) for name in STATS])

    def __str__(self) -> str:
        return "\n".join(f"{name:9}  {value:.3f}" for name, value in zip(STATS, self.stats, strict=True))


def interpolated_precision(
    scores: np.ndarray, is_match: np.ndarray, n_truth: int, recalls: Sequence[float] = RECALLS
) -> np.ndarray:
    """The best precision that one class reaches at each recall or a higher one.

    Args:
        scores: `(n,)`, the scores of all detections, of all images together; higher is more certain.
        is_match: bool `(n,)`, whether the detection found an object.
        n_truth: number of objects to find.
        recalls: `(R,)`, the recalls to read the precision at, ascending.

    Returns:
        float64 `(R,)`: 0 at recalls that are never reached. Their mean is the average precision. All NaN if
        there is nothing to find.

    Raises:
        ValueError: shapes differ, or there are more matches than objects.

    Example:
        >>> float(interpolated_precision([0.9, 0.8, 0.7], [True, False, True], n_truth=2).mean())  # of 51 × 1, 50 × 2/3
        0.834983...
    """
    scores, is_match = np.asarray(scores, np.float64), np.asarray(is_match, bool)
    if scores.ndim != 1 or scores.shape != is_match.shape:
        raise ValueError(
            f"is_match: one entry per score wanted, got {is_match.shape} for scores of shape {scores.shape}."
        )
    if n_truth < np.count_nonzero(is_match):
        raise ValueError(
            f"n_truth: {n_truth} objects but {np.count_nonzero(is_match)} matches; "
            "an object is found once, by the best-scored detection."
        )
    if n_truth == 0:
        return np.full(len(recalls), np.nan)

    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(is_match[order])
    recall = found / n_truth
    precision = found / np.arange(1, len(order) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    first = np.searchsorted(recall, recalls)  # the detection that brought the recall so far
    return np.append(best_from_here, 0.0)[first]


def average_precision_101(scores: np.ndarray, is_match: np.ndarray, n_truth: int) -> float:
    """The average precision of one class at one IoU threshold: the mean precision at 101 recalls.

    Args:
        scores: `(n,)`, the scores of all detections.
        is_match: bool `(n,)`, whether the detection found an object.
        n_truth: number of objects to find.

    Returns:
        0..1; NaN if there is nothing to find.

    Raises:
        ValueError: as `interpolated_precision`.
    """
    return float(interpolated_precision(scores, is_match, n_truth).mean())


def coco_average_precision(
    num_classes: int,
    *,
    classes_true: Sequence[np.ndarray],
    classes_pred: Sequence[np.ndarray],
    scores: Sequence[np.ndarray],
    boxes_true: Sequence[np.ndarray] | None = None,
    boxes_pred: Sequence[np.ndarray] | None = None,
    masks_true: Sequence[np.ndarray] | None = None,
    masks_pred: Sequence[np.ndarray] | None = None,
    crowd: Sequence[np.ndarray] | None = None,
    areas: Sequence[np.ndarray] | None = None,
    kind: str = "boxes",
    **options,
) -> CocoScores:
    """COCO's scores of many images in one call.

    Args:
        num_classes: number of classes K; ids run from 0 to K - 1.
        classes_true, classes_pred, scores, boxes_true, boxes_pred, masks_true, masks_pred, crowd, areas: one
            entry per image, each as in `COCOEvaluator.update`.
        kind: `"boxes"` or `"masks"`.
        **options: `iou_thresholds`, `size_limits` and `max_detections` of `COCOEvaluator`.

    Returns:
        The scores over all images together.

    Raises:
        ValueError: different numbers of images, or as `COCOEvaluator.update`, with the image's number.
    """
    evaluator = COCOEvaluator(num_classes, kind, **options)
    lists = {
        "classes_true": classes_true,
        "classes_pred": classes_pred,
        "scores": scores,
        "boxes_true": boxes_true,
        "boxes_pred": boxes_pred,
        "masks_true": masks_true,
        "masks_pred": masks_pred,
        "crowd": crowd,
        "areas": areas,
    }
    _for_each_image(evaluator.update, lists)
    return evaluator.result()


class COCOEvaluator:
    """COCO's average precision over a set of images, which are given one by one.

    Boxes, masks and pictures are not kept: of each detection only its score and, for each size range and IoU
    threshold, whether it was right.

    Args:
        num_classes: number of classes K; ids run from 0 to K - 1. There is no class for the background.
        kind: which IoU decides, that of `"boxes"` or of `"masks"`.
        iou_thresholds: each 0 < t <= 1; COCO's ten by default.
        size_limits: areas in pixels that part small from medium and medium from large objects.
        max_detections: how many detections per image and class are looked at, the best-scored. Raise COCO's
            100 for images that hold more objects than that; recall can't reach 1 otherwise.

    Raises:
        ValueError: a number out of range, or a `kind` that doesn't exist.

    Example:
        >>> evaluator = COCOEvaluator(num_classes=1, kind="boxes")
        >>> evaluator.update(
        ...     boxes_true=[[0, 0, 10, 10]], classes_true=[0],
        ...     boxes_pred=[[0, 0, 10, 8]], classes_pred=[0], scores=[0.9],
        ... )
        >>> evaluator.result().ap  # IoU 0.8 is enough for 7 of the 10 thresholds
        0.7
    """

    def __init__(
        self,
        num_classes: int,
        kind: str = "boxes",
        iou_thresholds: Sequence[float] = IOU_THRESHOLDS,
        size_limits: tuple[float, float] = SIZE_LIMITS,
        max_detections: int = 100,
    ):
        if num_classes < 1:
            raise ValueError(f"num_classes: at least 1 wanted, got {num_classes}.")
        if kind not in ("boxes", "masks"):
            raise ValueError(f"kind: 'boxes' or 'masks' wanted, got {kind!r}.")
        thresholds = np.asarray(iou_thresholds, np.float64)
        if thresholds.ndim != 1 or not thresholds.size or not np.all((thresholds > 0) & (thresholds <= 1)):
            raise ValueError(
                f"iou_thresholds: a list of numbers with 0 < t <= 1 wanted, got {iou_thresholds}; "
                "of one threshold give a list of length 1."
            )
        if len(size_limits) != 2 or not 0 <= size_limits[0] <= size_limits[1]:
            raise ValueError(
                f"size_limits: two ascending areas in pixels wanted, got {tuple(size_limits)}; "
                "COCO's are (1024, 9216)."
            )
        if max_detections < 10:
            raise ValueError(
                f"max_detections: at least 10 wanted, got {max_detections}; the result tells the recall with 1 "
                "and with 10 detections beside it."
            )
        self.num_classes = int(num_classes)
        self.kind = kind
        self.iou_thresholds = thresholds
        self.max_detections = (1, 10, int(max_detections))
        small, large = size_limits
        self._ranges = np.array([(0, np.inf), (0, small), (small, large), (large, np.inf)])
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self._truths = np.zeros((self.num_classes, len(SIZE_RANGES)), np.int64)
        # Of each image's detections, by descending score: their classes, scores, places within their class
        # (0 = its best), and outcomes (A, T, detections).
        nothing = np.zeros((len(SIZE_RANGES), len(self.iou_thresholds), 0), np.int8)
        self._detections = [(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64), nothing)]

    @classmethod
    def from_instances(
        cls,
        num_classes: int,
        *,
        instances_true: Iterable[np.ndarray],
        classes_true: Iterable[np.ndarray],
        instances_pred: Iterable[np.ndarray],
        classes_pred: Iterable[np.ndarray],
        scores: Iterable[np.ndarray],
        crowd: Iterable[np.ndarray] | None = None,
        kind: str = "masks",
        **options,
    ) -> COCOEvaluator:
        """An evaluator that has seen a list of images given as instance maps.

        Args:
            num_classes: number of classes K.
            instances_true, classes_true, instances_pred, classes_pred, scores, crowd: one entry per image,
                each as in `update_instances`.
            kind: `"masks"` or `"boxes"`.
            **options: `iou_thresholds`, `size_limits` and `max_detections`.

        Raises:
            ValueError: different numbers of images, or as `update_instances`, with the image's number.
        """
        evaluator = cls(num_classes, kind, **options)
        lists = {
            "instances_true": instances_true,
            "classes_true": classes_true,
            "instances_pred": instances_pred,
            "classes_pred": classes_pred,
            "scores": scores,
            "crowd": crowd,
        }
        _for_each_image(evaluator.update_instances, lists)
        return evaluator

    def update(
        self,
        *,
        classes_true: np.ndarray,
        classes_pred: np.ndarray,
        scores: np.ndarray,
        boxes_true: np.ndarray | None = None,
        boxes_pred: np.ndarray | None = None,
        masks_true: np.ndarray | None = None,
        masks_pred: np.ndarray | None = None,
        crowd: np.ndarray | None = None,
        areas: np.ndarray | None = None,
    ) -> None:
        """Add one image: n true objects and m detections, either of them 0.

        Args:
            classes_true: int `(n,)`, 0..K-1.
            classes_pred: int `(m,)`, 0..K-1.
            scores: float `(m,)`, any finite numbers; only their order counts.
            boxes_true, boxes_pred: float `(n, 4)` and `(m, 4)`, x1, y1, x2, y2 in pixels; wanted for
                `kind="boxes"`, not looked at otherwise. A box may have no width or height; it meets nothing.
            masks_true, masks_pred: bool `(n, h, w)` and `(m, h, w)`, wanted for `kind="masks"`. With boxes,
                `masks_true` may be given for the objects' areas. A mask may be empty; it meets nothing.
            crowd: bool `(n,)`, true where a true region is a crowd; none by default.
            areas: float `(n,)`, the areas of the true objects, which decide on their size range. By default
                the pixels of their masks, or the area of their boxes where no masks are given. (COCO takes
                the area of the outline for boxes, too.)

        Raises:
            ValueError: arrays that don't go together, ids out of range, numbers that aren't finite, boxes
                with x2 < x1 or y2 < y1, masks that aren't boolean. Nothing of the image is added then.
        """
        classes_true, classes_pred, scores, crowd = self._checked(classes_true, classes_pred, scores, crowd)
        n, m = len(classes_true), len(classes_pred)
        same_class = classes_pred[:, None] == classes_true
        if self.kind == "boxes":
            true, pred = _boxes("boxes_true", boxes_true, n), _boxes("boxes_pred", boxes_pred, m)
            true_areas, pred_areas = _box_areas(true), _box_areas(pred)
            shared = _box_intersections(pred, true)
            sizes = true_areas if masks_true is None else _masks("masks_true", masks_true, n).sum((1, 2))
        else:
            true, pred = _masks("masks_true", masks_true, n), _masks("masks_pred", masks_pred, m)
            if n and m:
                check_same_shape("masks_true of one object", true[0], "masks_pred of one object", pred[0])
            true, pred = _packed(true), _packed(pred)
            sizes = true_areas = _bit_counts(true)
            pred_areas = _bit_counts(pred)
            shared = _mask_intersections(pred, true, same_class)
        if areas is not None:
            sizes = _finite("areas", areas, (n,))
            if np.any(sizes < 0):
                raise ValueError(f"areas: {sizes.min():g} given; an area in pixels is 0 or more.")
        ious = _ious(shared, pred_areas, true_areas, crowd)
        self._add(classes_true, classes_pred, scores, crowd, sizes, pred_areas, ious)

    def update_instances(
        self,
        instances_true: np.ndarray,
        classes_true: np.ndarray,
        instances_pred: np.ndarray,
        classes_pred: np.ndarray,
        scores: np.ndarray,
        crowd: np.ndarray | None = None,
    ) -> None:
        """Add one image whose objects and detections are instance maps; much quicker than as stacks of masks.

        An id of which the map has no pixel is no object; its class and score are not looked at. With
        `kind="boxes"` the boxes are those of the pixels, and the sizes of true objects their pixels.

        Args:
            instances_true: integer map `(h, w)`, 0 = background.
            classes_true: int `(n,)`, entry k is the class of object k + 1.
            instances_pred: integer map `(h, w)`, 0 = background.
            classes_pred: int `(m,)`, entry k is the class of detection k + 1.
            scores: float `(m,)`, entry k is the score of detection k + 1.
            crowd: bool `(n,)`, true where a true region is a crowd; none by default.

        Raises:
            ValueError: as `update`; maps that differ in shape, aren't of integers, or hold an id without
                class.
        """
        classes_true, classes_pred, scores, crowd = self._checked(classes_true, classes_pred, scores, crowd)
        n, m = len(classes_true), len(classes_pred)
        true = _map_of("instances_true", instances_true, "classes_true", n)
        pred = _map_of("instances_pred", instances_pred, "classes_pred", m)
        check_same_shape("instances_true", true, "instances_pred", pred)
        pairs = pred.astype(np.int64) * (n + 1) + true
        pixels = np.bincount(pairs.ravel(), minlength=(n + 1) * (m + 1)).reshape(m + 1, n + 1)
        sizes, pred_areas, shared = pixels.sum(axis=0)[1:], pixels.sum(axis=1)[1:], pixels[1:, 1:]
        in_true, in_pred = sizes > 0, pred_areas > 0
        sizes, pred_areas, shared = sizes[in_true], pred_areas[in_pred], shared[np.ix_(in_pred, in_true)]
        true_areas = sizes
        if self.kind == "boxes":
            true, pred = _boxes_of_map(true), _boxes_of_map(pred)
            true_areas, pred_areas = _box_areas(true), _box_areas(pred)
            shared = _box_intersections(pred, true)
        classes_true, crowd = classes_true[in_true], crowd[in_true]
        classes_pred, scores = classes_pred[in_pred], scores[in_pred]
        ious = _ious(shared, pred_areas, true_areas, crowd)
        self._add(classes_true, classes_pred, scores, crowd, sizes, pred_areas, ious)

    def result(self) -> CocoScores:
        """The scores of all images so far; more may follow."""
        sizes, counts = len(SIZE_RANGES), len(self.max_detections)
        thresholds = len(self.iou_thresholds)
        precision = np.full((thresholds, len(RECALLS), self.num_classes, sizes, counts), np.nan)
        recall = np.full((thresholds, self.num_classes, sizes, counts), np.nan)
        all_classes, all_scores, all_places, all_outcomes = (
            np.concatenate(parts, axis=-1) for parts in zip(*self._detections, strict=True)
        )
        for k in range(self.num_classes):
            mine = np.flatnonzero(all_classes == k)
            mine = mine[np.argsort(-all_scores[mine], kind="stable")]
            scores, place, outcomes = all_scores[mine], all_places[mine], all_outcomes[..., mine]
            for a in np.flatnonzero(self._truths[k]):
                for m, count in enumerate(self.max_detections):
                    seen = place < count
                    for t in range(thresholds):
                        judged = seen & (outcomes[a, t] != IGNORED)
                        right = outcomes[a, t, judged] == TRUE_POSITIVE
                        truths = int(self._truths[k, a])
                        precision[t, :, k, a, m] = interpolated_precision(scores[judged], right, truths)
                        recall[t, k, a, m] = np.count_nonzero(right) / truths
        return self._summary(precision, recall)

    def _checked(self, classes_true, classes_pred, scores, crowd):
        """The arguments that each way of adding an image has, as arrays."""
        classes_true = _class_ids("classes_true", classes_true, self.num_classes)
        classes_pred = _class_ids("classes_pred", classes_pred, self.num_classes)
        scores = _finite("scores", scores, classes_pred.shape)
        if crowd is None:
            return classes_true, classes_pred, scores, np.zeros(len(classes_true), bool)
        crowd = _finite("crowd", crowd, classes_true.shape)
        if not np.all((crowd == 0) | (crowd == 1)):
            raise ValueError("crowd: true or false (or 1 and 0) per object wanted; areas go into `areas`.")
        return classes_true, classes_pred, scores, crowd.astype(bool)

    def _add(self, classes_true, classes_pred, scores, crowd, sizes, pred_sizes, ious) -> None:
        """Match the image's detections and keep what came out."""
        ignored = crowd | self._outside(sizes)  # (A, n)
        np.add.at(self._truths, classes_true, ~ignored.T)
        order = np.argsort(-scores, kind="stable")
        place = _places(classes_pred[order])
        order, place = order[place < self.max_detections[-1]], place[place < self.max_detections[-1]]
        classes_pred, scores = classes_pred[order], scores[order]
        # All classes at once: objects of another class are out of reach, since no threshold is 0.
        ious = np.where(classes_pred[:, None] == classes_true, ious[order], 0)
        right, on_ignored = greedy_matches(ious, self.iou_thresholds, ignored, crowd)
        left_out = on_ignored | (self._outside(pred_sizes[order])[:, None] & ~right)
        outcomes = np.where(left_out, IGNORED, np.where(right, TRUE_POSITIVE, FALSE_POSITIVE))
        self._detections.append((classes_pred, scores, place, outcomes.astype(np.int8)))

    def _outside(self, areas: np.ndarray) -> np.ndarray:
        """bool `(A, objects)`: whose area lies outside each size range."""
        low, high = self._ranges.T[..., None]
        return (areas < low) | (areas > high)

    def _summary(self, precision: np.ndarray, recall: np.ndarray) -> CocoScores:
        """The scores made of the curves."""
        at = {t: np.isclose(self.iou_thresholds, t, rtol=0, atol=1e-9) for t in (0.5, 0.75)}
        ap = [_mean(precision[..., a, -1]) for a in range(len(SIZE_RANGES))]
        ar = [_mean(recall[..., a, -1]) for a in range(len(SIZE_RANGES))]
        return CocoScores(
            ap=ap[0],
            ap_50=_mean(precision[at[0.5], :, :, 0, -1]),
            ap_75=_mean(precision[at[0.75], :, :, 0, -1]),
            ap_small=ap[1],
            ap_medium=ap[2],
            ap_large=ap[3],
            ar_1=_mean(recall[..., 0, 0]),
            ar_10=_mean(recall[..., 0, 1]),
            ar_100=ar[0],
            ar_small=ar[1],
            ar_medium=ar[2],
            ar_large=ar[3],
            per_class=precision[..., 0, -1].mean(axis=(0, 1)),  # a class is NaN at all thresholds or at none
            precision=precision,
            recall=recall,
            truths=self._truths.copy(),
            iou_thresholds=self.iou_thresholds.copy(),
            recalls=np.array(RECALLS),
            max_detections=self.max_detections,
        )


def greedy_matches(
    ious: np.ndarray, thresholds: np.ndarray, ignored: np.ndarray, crowd: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Match the detections of one image to its true objects, all thresholds and size ranges at once.

    In order of score, each detection takes the free object with the highest IoU that reaches the threshold,
    one that counts before one that is ignored. A crowd stays free.

    Args:
        ious: float `(m, n)`, rows are the detections, best-scored first; 0 between different classes.
        thresholds: float `(T,)`, IoUs above 0 that a match must reach.
        ignored: bool `(A, n)`, objects that don't count in each size range.
        crowd: bool `(n,)`, objects that many detections may match.

    Returns:
        Two bool `(A, T, m)`: which detections matched an object that counts, and which an ignored one.
    """
    (m, n), ranges = ious.shape, len(ignored)
    right, on_ignored = np.zeros((2, ranges, len(thresholds), m), bool)
    if not m or not n:
        return right, on_ignored
    # COCO lowers a threshold of 1 a little, so that rounding doesn't part what is equal.
    reaches = ious[:, None] >= np.minimum(thresholds, 1 - 1e-10)[:, None]  # (m, T, n)
    # Which object a detection would rather have: ranks, not IoUs, so that those that count can be put first
    # and of equal IoUs the last.
    wish = np.argsort(np.argsort(ious, axis=1, kind="stable"), axis=1)[:, None] + np.where(ignored, 0, n)
    taken = np.zeros((ranges, len(thresholds), n), bool)
    a, t = np.ogrid[:ranges, : len(thresholds)]
    for d in np.flatnonzero(reaches.any(axis=(1, 2))):
        free = reaches[d] & ~taken
        chosen = np.where(free, wish[d][:, None], -1).argmax(axis=-1)  # (A, T)
        found = free.any(axis=-1)
        right[..., d] = found & ~ignored[a, chosen]
        on_ignored[..., d] = found & ignored[a, chosen]
        taken[a, t, chosen] |= found & ~crowd[chosen]
    return right, on_ignored


def _places(classes: np.ndarray) -> np.ndarray:
    """int `(m,)`: how many of the same class come before each."""
    grouped = np.argsort(classes, kind="stable")
    first_of_class = np.searchsorted(classes[grouped], classes[grouped])
    places = np.empty(len(classes), np.int64)
    places[grouped] = np.arange(len(classes)) - first_of_class
    return places


def _ious(
    shared: np.ndarray, pred_areas: np.ndarray, true_areas: np.ndarray, crowd: np.ndarray
) -> np.ndarray:
    """float64 `(m, n)` of the intersections; with a crowd, intersection / area of the detection."""
    pred_areas = pred_areas[:, None]
    union = np.where(crowd, pred_areas, pred_areas + true_areas - shared)
    return np.divide(shared, union, out=np.zeros(shared.shape), where=union > 0)


def _box_areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _box_intersections(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float64 `(len(a), len(b))`: the area that each two boxes share."""
    corner = np.maximum(a[:, None, :2], b[None, :, :2])
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - corner
    return sides.clip(0).prod(axis=-1)


def _boxes_of_map(instances: np.ndarray) -> np.ndarray:
    """float64 `(objects, 4)`: x1, y1, x2, y2 of the ids that occur, ascending."""
    found = [slices for slices in ndimage.find_objects(instances) if slices is not None]
    boxes = [(x.start, y.start, x.stop, y.stop) for y, x in found]
    return np.array(boxes, np.float64).reshape(-1, 4)


def _packed(masks: np.ndarray) -> np.ndarray:
    """uint64 `(n, words)`: the pixels of each mask, 64 in a word. Of these a computer counts many at once."""
    height, width = masks.shape[1:]
    bits = np.packbits(masks.reshape(len(masks), height * width), axis=-1)
    words = np.zeros((len(masks), -(-bits.shape[1] // 8)), np.uint64)
    words.view(np.uint8)[:, : bits.shape[1]] = bits
    return words


def _bit_counts(words: np.ndarray) -> np.ndarray:
    return np.bitwise_count(words).sum(axis=-1, dtype=np.int64)


def _mask_intersections(a: np.ndarray, b: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """int64 `(len(a), len(b))`: the pixels that two packed masks share, counted where `wanted`, else 0."""
    shared = np.zeros(wanted.shape, np.int64)
    for j, mask in enumerate(b):
        words = np.flatnonzero(mask)
        rows = np.flatnonzero(wanted[:, j])
        if words.size and rows.size:
            # A mask's words lie close together, the rows of pixels from its top to its bottom.
            there = slice(words[0], words[-1] + 1)
            shared[rows, j] = _bit_counts(a[rows, there] & mask[there])
    return shared


def _mean(values: np.ndarray) -> float:
    """The mean of those that aren't NaN; NaN if there are none."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")


def _for_each_image(update: Callable[..., None], lists: dict[str, Iterable | None]) -> None:
    """Call `update` with the entries of the lists; what it raises gets the image's number."""
    lists = {name: list(values) for name, values in lists.items() if values is not None}
    lengths = {name: len(values) for name, values in lists.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"one entry per image is wanted in each list, but their lengths differ: {told}.")
    for number, entries in enumerate(zip(*lists.values(), strict=True)):
        try:
            update(**dict(zip(lists, entries, strict=True)))
        except ValueError as error:
            raise ValueError(f"image {number}: {error}") from None


def _class_ids(name: str, values: np.ndarray, num_classes: int) -> np.ndarray:
    if np.size(values) == 0:  # an empty list has no integers to show
        return np.zeros(0, np.int64)
    ids = integer_array(name, values, "integer class ids, one per object,", "cast them if they are whole")
    if ids.ndim != 1:
        raise ValueError(f"{name}: one class id per object wanted, shape (objects,), got {ids.shape}.")
    wrong = ids[(ids < 0) | (ids >= num_classes)]
    if wrong.size:
        raise ValueError(
            f"{name}: class id {wrong[0]} given, but ids run from 0 to {num_classes - 1}; "
            "drop rows that only fill up a batch, and what is background."
        )
    return ids


def _finite(name: str, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`values` as finite float64 of this shape, or a `ValueError`."""
    values = np.asarray(values, np.float64)
    if values.size == 0 and 0 in shape:
        return np.zeros(shape)
    if values.shape != shape:
        raise ValueError(
            f"{name}: shape {shape} wanted, one entry per object or class id, got {values.shape}."
        )
    if not np.isfinite(values).all():
        raise ValueError(
            f"{name}: finite numbers wanted, but there is a NaN or infinity; look for its source."
        )
    return values


def _boxes(name: str, boxes: np.ndarray | None, count: int) -> np.ndarray:
    if boxes is None:
        raise ValueError(f"{name}: missing; kind='boxes' wants the boxes of truth and detections.")
    boxes = _finite(name, boxes, (count, 4))
    if np.any(boxes[:, 2:] < boxes[:, :2]):
        row = np.flatnonzero((boxes[:, 2:] < boxes[:, :2]).any(axis=1))[0]
        raise ValueError(
            f"{name}: box {row} is {boxes[row].tolist()}, but x1, y1, x2, y2 with x2 >= x1 and y2 >= y1 is "
            "wanted; COCO's files hold x, y, width, height."
        )
    return boxes


def _masks(name: str, masks: np.ndarray | None, count: int) -> np.ndarray:
    if masks is None:
        raise ValueError(f"{name}: missing; kind='masks' wants the masks of truth and detections.")
    masks = np.asarray(masks)
    if masks.size == 0 and count == 0:
        return np.zeros((0, 0, 0), bool)
    if masks.dtype != bool or masks.ndim != 3 or len(masks) != count:
        raise ValueError(
            f"{name}: boolean (objects, h, w) wanted for {count} class ids, got {masks.dtype} of shape "
            f"{masks.shape}; of an instance map `update_instances` is made."
        )
    return masks


def _map_of(name: str, instances: np.ndarray, classes_name: str, count: int) -> np.ndarray:
    """An instance map `(h, w)` whose ids all have a class."""
    instances = label_map(name, instances)
    if instances.ndim != 2:
        raise ValueError(f"{name}: one map (h, w) per image wanted, got shape {instances.shape}.")
    if instances.size and instances.max() > count:
        raise ValueError(
            f"{name}: the map holds id {instances.max()}, but {classes_name} has {count} entries; "
            "entry k is the class of id k + 1."
        )
    return instances
