"""COCO's average precision: how well detections with scores find the objects of each class, by box or by mask.

A detection is a prediction with a score, and the user's threshold decides which detections count. Average precision
judges all thresholds at once. The detections of one class, over all images, are sorted by score; each is right
if it found an object that no better-scored one had taken (`greedy_matches`); and going down the list, recall grows
while precision falls. The area below that curve is the average precision (`interpolated_precision`,
`average_precision_101`). COCO takes it at ten IoUs and averages over them and over the classes.

These three functions are the idea. `COCOEvaluator` gives the twelve numbers that are published, from pycocotools,
whose rules go further:

- In each image and class at most 100 detections count, the best-scored.
- *Crowd*: a region that holds many objects nobody outlined. It is nothing to find, and detections in it are neither
  right nor wrong, however many they are. The IoU with a crowd is the part of the *detection* that lies in it,
  intersection / area of the detection.
- *Size ranges*: small is up to 32² pixels, medium from there to 96², large above; an object exactly on a limit
  belongs to both sides. Looking at one range, objects outside it are ignored just as crowds are (though
  each takes one detection only), and so are detections outside it that found nothing.

What is empty, as in `course_lib.metrics.semantic`: a class (or a size range of it) without objects is
NaN and left out of every mean, and a mean of nothing is NaN; pycocotools writes -1. Such a class is left out
even if it was detected somewhere: its false alarms cost nothing, since no recall can be measured (class maps
differ here, a class that is only predicted has IoU 0). A class with objects and no detection is 0. An image
without objects adds nothing to find, and its detections are false positives of the classes that have objects
elsewhere.

References:
    Lin et al. 2014, Microsoft COCO: Common objects in context, ECCV, https://arxiv.org/abs/1405.0312;
    the ten IoUs, size ranges and crowds: https://cocodataset.org/#detection-eval.
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from course_lib._checks import array_of, in_range, one_of, whole_number

# COCO's grids, rounded as COCO rounds them: its 0.7 is a little above 7 / 10, so a recall of 7 in 10 does not
# reach it, and only the same number reads the same precision there.
IOU_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())
"""COCO's ten IoU thresholds: 0.5, 0.55, …, 0.95."""

RECALLS = tuple(np.linspace(0.0, 1.0, 101).tolist())
"""The 101 recalls at which COCO reads the precision: 0, 0.01, …, 1."""

SIZE_LIMITS = (32.0**2, 96.0**2)
"""Areas in pixels that separate small, medium and large objects."""

SIZE_RANGES = ("all", "small", "medium", "large")

STATS = tuple(
    "ap ap_50 ap_75 ap_small ap_medium ap_large ar_1 ar_10 ar_100 ar_small ar_medium ar_large".split()
)
"""The twelve numbers, in the order of pycocotools."""

# The idea


def greedy_matches(ious: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Which detections of one image and class match an object.

    In order of score, each takes the object with the highest IoU of those that are free. The IoU must **reach** the
    threshold; equality is enough. (Scores of instance maps, `course_lib.metrics.match`, want more than equality.)

    Args:
        ious: float `(m, n)`, rows are the detections, best-scored first, columns the objects.
        threshold: the IoU that a match must reach, above 0.

    Returns:
        bool `(m,)`. Of equal IoUs the last object is taken, as pycocotools does.

    Example:
        >>> greedy_matches([[0.9, 0.6], [0.8, 0.0], [0.7, 0.6]]).tolist()  # the first object is taken once
        [True, False, True]
    """
    ious = array_of("ious", ious)
    threshold = in_range("threshold", threshold, 0, 1, open_low=True)
    found, taken = np.zeros(len(ious), bool), np.zeros(ious.shape[-1], bool)
    for k, row in enumerate(ious):
        free = np.where(taken, -1, row)[::-1]
        best = len(row) - 1 - int(free.argmax()) if free.size else 0
        if free.size and not taken[best] and row[best] >= min(threshold, 1 - 1e-10):
            found[k] = taken[best] = True
    return found


def interpolated_precision(
    scores: np.ndarray, is_match: np.ndarray, num_objects: int, recalls: Sequence[float] = RECALLS
) -> np.ndarray:
    """The best precision that one class reaches at each recall or a higher one.

    Args:
        scores: `(n,)`, the scores of all detections, of all images together; higher is more certain.
        is_match: bool `(n,)`, whether the detection found an object.
        num_objects: number of objects to find.
        recalls: `(R,)`, the recalls to read the precision at, ascending.

    Returns:
        float64 `(R,)`: 0 at recalls that are never reached. Their mean is the average precision. All NaN if
        there is nothing to find.

    Raises:
        ValueError: shapes differ, a score is not finite, or there are more matches than objects.

    Example:
        >>> precision = interpolated_precision([0.9, 0.8, 0.7], [True, False, True], num_objects=2)
        >>> float(precision.mean())  # of 51 × 1, 50 × 2/3
        0.834983...
    """
    scores, is_match = _finite("scores", scores, (None,)), np.asarray(is_match, bool)
    array_of("is_match", is_match, shape=scores.shape, instead="give one entry per score")
    matches = np.count_nonzero(is_match)
    if num_objects < matches:
        raise ValueError(
            f"num_objects is {num_objects}; it must be at least {matches}, the number of matches: an object is matched "
            "once, by the detection with the highest score."
        )
    if num_objects == 0:
        return np.full(len(recalls), np.nan)

    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(is_match[order])
    recall = found / num_objects
    precision = found / np.arange(1, len(order) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    first = np.searchsorted(recall, recalls)  # the detection that brought the recall so far
    return np.append(best_from_here, 0.0)[first]


def average_precision_101(scores: np.ndarray, is_match: np.ndarray, num_objects: int) -> float:
    """The average precision of one class at one IoU threshold: the mean precision at 101 recalls.

    Args:
        scores: `(n,)`, the scores of all detections.
        is_match: bool `(n,)`, whether the detection found an object.
        num_objects: number of objects to find.

    Returns:
        0..1; NaN if there is nothing to find.

    Raises:
        ValueError: as `interpolated_precision`.
    """
    return float(interpolated_precision(scores, is_match, num_objects).mean())


# The twelve numbers


@dataclass(frozen=True, eq=False)
class CocoScores:
    """COCO's twelve numbers, each 0..1 or NaN where there was nothing to find, and the curves below them.

    Attributes:
        ap: average precision, the mean over IoU thresholds and classes, all sizes.
        ap_50, ap_75: the same at IoU 0.5 and 0.75 alone; NaN if these aren't among the thresholds.
        ap_small, ap_medium, ap_large: `ap` of the objects of one size.
        ar_1, ar_10, ar_100: average recall, the mean over IoU thresholds and classes of the fraction of objects
            found, with at most 1, 10 and `max_detections` (100 by default) detections per image and class.
        ar_small, ar_medium, ar_large: `ar_100` of the objects of one size.
        per_class: float64 `(K,)`: `ap` of each class.
        precision: float64 `(T, R, K, A, M)`: interpolated precision at each IoU threshold, recall, class,
            size range (all, small, medium, large) and number of detections (1, 10, `max_detections`).
        recall: float64 `(T, K, A, M)`: fraction of objects found.
        num_objects: int64 `(K, A)`: number of objects to find.
        num_crowds: number of crowds, in which detections count neither way.
        iou_thresholds: float64 `(T,)`.
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
    num_objects: np.ndarray
    num_crowds: int
    iou_thresholds: np.ndarray
    max_detections: tuple[int, int, int]

    @property
    def stats(self) -> np.ndarray:
        """float64 `(12,)`: the twelve numbers in the order of pycocotools."""
        return np.array([getattr(self, name) for name in STATS])

    def __str__(self) -> str:
        return "\n".join(f"{name:9}  {value:.3f}" for name, value in zip(STATS, self.stats, strict=True))


class COCOEvaluator:
    """COCO's average precision over a set of images, added one by one.

    Masks are kept run-length encoded, images not at all.

    Args:
        num_classes: number of classes K; ids run from 0 to K - 1. There is no class for the background.
        kind: which IoU decides, that of `"boxes"` or of `"masks"`.
        iou_thresholds: each 0 < t <= 1; COCO's ten by default.
        size_limits: areas in pixels that separate small from medium and medium from large objects.
        max_detections: how many detections per image and class count, the best-scored. Raise COCO's
            100 for images that hold more objects than that; recall can't reach 1 otherwise.

    Raises:
        ValueError: a number out of range, or a `kind` that doesn't exist.

    Example:
        >>> evaluator = COCOEvaluator(num_classes=1, kind="boxes")
        >>> evaluator.update(
        ...     boxes_true=[[0, 0, 10, 10]], classes_true=[0],
        ...     boxes_pred=[[0, 0, 10, 8]], classes_pred=[0], scores=[0.9],
        ... )
        >>> round(evaluator.result().ap, 6)  # IoU 0.8 is enough for 7 of the 10 thresholds
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
        self.num_classes = whole_number("num_classes", num_classes, 1)
        self.kind = one_of("kind", kind, ("boxes", "masks"))
        thresholds = array_of("iou_thresholds", iou_thresholds, shape=(None,)).astype(np.float64)
        if not thresholds.size or not np.all((thresholds > 0) & (thresholds <= 1)):
            raise ValueError(f"iou_thresholds is {iou_thresholds}; it must hold numbers above 0, at most 1.")
        self.iou_thresholds = thresholds
        if len(size_limits) != 2 or not 0 <= size_limits[0] <= size_limits[1]:
            raise ValueError(
                f"size_limits is {tuple(size_limits)}; it must be two ascending areas in pixels (COCO's: 1024, 9216)."
            )
        # The recall with 1 and with 10 detections is told beside it.
        self.max_detections = (1, 10, whole_number("max_detections", max_detections, 10))
        small, large = size_limits
        self._ranges = np.array([(0, np.inf), (0, small), (small, large), (large, np.inf)])
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self._images: list[dict] = []
        self._objects: list[dict] = []
        self._detections: list[dict] = []

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
        """Add one image: n objects in the ground truth and m detections, either of them 0.

        Args:
            classes_true: int `(n,)`, 0..K-1.
            classes_pred: int `(m,)`, 0..K-1.
            scores: float `(m,)`, any finite numbers; only their order counts.
            boxes_true, boxes_pred: float `(n, 4)` and `(m, 4)`, x1, y1, x2, y2 in pixels; wanted for
                `kind="boxes"`, not looked at otherwise. A box may have no width or height; it meets nothing.
            masks_true, masks_pred: bool `(n, height, width)` and `(m, height, width)`, wanted for `kind="masks"`. With
                boxes, `masks_true` may be given for the objects' areas. A mask may be empty; it meets nothing.
            crowd: bool `(n,)`, true where a region is a crowd; none by default.
            areas: float `(n,)`, the areas of the objects, which decide on their size range. By default
                the pixels of their masks, or the area of their boxes where no masks are given. (COCO takes
                the area of the outline for boxes, too.)

        Raises:
            ValueError: arrays that don't go together, ids out of range, numbers that aren't finite, boxes
                with x2 < x1 or y2 < y1, masks that aren't boolean. Nothing of the image is added then.
        """
        classes_true = self._class_ids("classes_true", classes_true)
        classes_pred = self._class_ids("classes_pred", classes_pred)
        n, m = len(classes_true), len(classes_pred)
        scores = _finite("scores", scores, (m,))
        crowd = np.zeros(n) if crowd is None else _finite("crowd", crowd, (n,))
        if not np.all((crowd == 0) | (crowd == 1)):
            raise ValueError(f"crowd is {crowd.tolist()}; it must be true or false per object.")
        size = (1, 1)
        if self.kind == "boxes":
            true, pred = _boxes("boxes_true", boxes_true, n), _boxes("boxes_pred", boxes_pred, m)
            sizes = [w * h for _, _, w, h in true]
            if masks_true is not None:
                sizes = _masks("masks_true", masks_true, n).sum((1, 2))
        else:
            true, pred = _masks("masks_true", masks_true, n), _masks("masks_pred", masks_pred, m)
            if n and m and true.shape[1:] != pred.shape[1:]:
                raise ValueError(
                    f"masks_pred is an array of shape {pred.shape}; its height and width must be those of masks_true, "
                    f"{true.shape[1:]}."
                )
            sizes, size = true.sum((1, 2)), (true if n else pred).shape[1:]
            true, pred = _encoded(true), _encoded(pred)
        if areas is not None:
            sizes = _finite("areas", areas, (n,))
            if np.any(sizes < 0):
                raise ValueError(f"areas is {sizes.tolist()}; each must be at least 0, an area in pixels.")

        shape = "bbox" if self.kind == "boxes" else "segmentation"
        number = len(self._images) + 1
        self._images.append({"id": number, "height": size[0], "width": size[1]})
        for k in range(n):
            row = {"image_id": number, "category_id": int(classes_true[k]), shape: true[k]}
            row |= {"area": float(sizes[k]), "iscrowd": int(crowd[k]), "id": len(self._objects) + 1}
            self._objects.append(row)
        for k in range(m):
            row = {"image_id": number, "category_id": int(classes_pred[k]), shape: pred[k]}
            row |= {"score": float(scores[k])}
            self._detections.append(row)

    def result(self) -> CocoScores:
        """The scores of all images so far; more may follow."""
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        with contextlib.redirect_stdout(io.StringIO()):  # it reports each step
            ground_truth, found = COCO(), COCO()
            categories = [{"id": k} for k in range(self.num_classes)]
            ground_truth.dataset = {
                "images": self._images,
                "categories": categories,
                "annotations": self._objects,
            }
            ground_truth.createIndex()
            if self._detections:  # loadRes looks at the first
                found = ground_truth.loadRes([dict(row) for row in self._detections])
            else:
                found.dataset = {**ground_truth.dataset, "annotations": []}
                found.createIndex()
            evaluation = COCOeval(ground_truth, found, "bbox" if self.kind == "boxes" else "segm")
            evaluation.params.iouThrs = self.iou_thresholds
            evaluation.params.recThrs = np.array(RECALLS)
            evaluation.params.maxDets = list(self.max_detections)
            evaluation.params.areaRng = self._ranges.tolist()
            evaluation.evaluate()
            evaluation.accumulate()
        # Its -1 says that there was nothing to find, and 2e-16 in its denominators keeps 1 from being 1.
        precision, recall = (
            np.where(curve == -1, np.nan, curve.round(12))
            for curve in (evaluation.eval["precision"], evaluation.eval["recall"])
        )
        at = {t: np.isclose(self.iou_thresholds, t, rtol=0, atol=1e-9) for t in (0.5, 0.75)}
        ap, ar = (
            [_mean(curve[..., a, -1]) for a in range(len(SIZE_RANGES))] for curve in (precision, recall)
        )
        counted = [row for row in self._objects if not row["iscrowd"]]
        num_objects = np.zeros((self.num_classes, len(SIZE_RANGES)), np.int64)
        for row in counted:
            num_objects[row["category_id"]] += (self._ranges[:, 0] <= row["area"]) & (
                row["area"] <= self._ranges[:, 1]
            )
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
            num_objects=num_objects,
            num_crowds=len(self._objects) - len(counted),
            iou_thresholds=self.iou_thresholds.copy(),
            max_detections=self.max_detections,
        )

    def _class_ids(self, name: str, values: np.ndarray) -> np.ndarray:
        ids = array_of(name, values, "integer", (None,), "give one class id per object")
        wrong = ids[(ids < 0) | (ids >= self.num_classes)]
        if wrong.size:
            raise ValueError(
                f"{name} holds {wrong[0]}; ids must run from 0 to {self.num_classes - 1}: drop rows that only pad a "
                "batch, and background rows."
            )
        return ids


def _mean(values: np.ndarray) -> float:
    """The mean of those that aren't NaN; NaN if there are none."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")


def _finite(name: str, values: np.ndarray, shape: tuple[int | None, ...]) -> np.ndarray:
    """`values` as finite float64 of this shape, or a `ValueError`; an empty list has any shape that holds nothing."""
    values = np.asarray(values)
    if values.size == 0 and shape[0] in (0, None):
        return np.zeros((0, *shape[1:]))
    values = array_of(name, values, shape=shape, instead="give one entry per object or class id")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} contains NaN or infinity; all its values must be finite.")
    return values.astype(np.float64)


def _boxes(name: str, boxes: np.ndarray | None, count: int) -> list[list[float]]:
    """The boxes as COCO has them: x, y, width, height."""
    if boxes is None:
        raise ValueError(f"{name} is None; kind='boxes' needs the boxes of ground truth and detections.")
    boxes = _finite(name, boxes, (count, 4))
    wrong = np.flatnonzero((boxes[:, 2:] < boxes[:, :2]).any(axis=1))
    if wrong.size:
        raise ValueError(
            f"{name} holds {boxes[wrong[0]].tolist()} in row {wrong[0]}; it must be x1, y1, x2, y2 with x2 >= x1 and "
            "y2 >= y1 (COCO's files hold x, y, width, height)."
        )
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).tolist()


def _masks(name: str, masks: np.ndarray | None, count: int) -> np.ndarray:
    if masks is None:
        raise ValueError(f"{name} is None; kind='masks' needs the masks of ground truth and detections.")
    masks = np.asarray(masks)
    if masks.size == 0 and count == 0:
        return np.zeros((0, 1, 1), bool)
    return array_of(name, masks, "boolean", (count, None, None), "give one mask (height, width) per class id")


def _encoded(masks: np.ndarray) -> list[dict]:
    """The masks, run-length encoded."""
    from pycocotools import mask

    return mask.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8))) if len(masks) else []
