"""Exercises to chapter 08: IoU and Dice, mean IoU, all pixels together, cross-entropy, soft Dice, the threshold."""

from __future__ import annotations

import numpy as np
from scipy.special import expit, log_softmax, softmax

from course_lib.teaching.exercise import Case, Exercise, Mistake, array, number


def _counts(true, found):
    """TP, FP, FN, TN of two masks."""
    true, found = np.asarray(true, bool), np.asarray(found, bool)
    return tuple(int(np.sum(part)) for part in (true & found, ~true & found, true & ~found, ~true & ~found))


def _ratio(part, whole, empty=1.0):
    return part / whole if whole else empty


# 08.1

_TRUE = np.zeros((8, 8), bool)
_TRUE[2:6, 1:5] = True
_FOUND = np.roll(_TRUE, 1, axis=1)
_FOUND[2] = False
_FOUND[7, 7] = True


def iou_and_dice(true, found):
    tp, fp, fn, _ = _counts(true, found)
    return _ratio(tp, tp + fp + fn), _ratio(2 * tp, 2 * tp + fp + fn)


def _pair_with(score):
    return lambda true, found: score(*_counts(true, found))


IOU_AND_DICE = Exercise(
    "08.1",
    "iou_and_dice",
    array("two numbers, the IoU and the Dice coefficient"),
    lambda: [
        Case("a block and the same block a column to the right, without its top row", (_TRUE, _FOUND)),
        Case("a mask and itself", (_TRUE, _TRUE)),
        Case("a mask and its larger copy", (_TRUE, np.ones((8, 8), bool))),
        Case("two masks that do not meet", (_TRUE, np.roll(_TRUE, 4, axis=1))),
        Case("a mask and an empty answer", (_TRUE, np.zeros((8, 8), bool))),
        Case("two empty masks", (np.zeros((4, 4), bool), np.zeros((4, 4), bool)), "They agree: 1 and 1."),
    ],
    iou_and_dice,
    (
        Mistake(
            "Your union counts the overlap twice: the sum of both areas holds it once too often.",
            _pair_with(
                lambda tp, fp, fn, tn: (_ratio(tp, 2 * tp + fp + fn), _ratio(2 * tp, 2 * tp + fp + fn))
            ),
        ),
        Mistake(
            "Your Dice lacks its factor 2: twice the overlap over the sum of both areas.",
            _pair_with(lambda tp, fp, fn, tn: (_ratio(tp, tp + fp + fn), _ratio(tp, 2 * tp + fp + fn))),
        ),
        Mistake(
            "The right numbers the wrong way round: the IoU first, then Dice. Dice is never the smaller one.",
            lambda true, found: iou_and_dice(true, found)[::-1],
        ),
        Mistake(
            "Two empty masks agree, so both scores are 1; 0 / 0 is no number.",
            _pair_with(
                lambda tp, fp, fn, tn: (
                    _ratio(tp, tp + fp + fn, np.nan),
                    _ratio(2 * tp, 2 * tp + fp + fn, np.nan),
                )
            ),
        ),
        Mistake(
            "Two empty masks agree, so both scores are 1; 0 / 0 is no number.",
            _pair_with(lambda tp, fp, fn, tn: (tp / (tp + fp + fn), 2 * tp / (2 * tp + fp + fn))),
        ),
        Mistake(
            "Two empty masks agree, so both scores are 1, not 0.",
            _pair_with(
                lambda tp, fp, fn, tn: (_ratio(tp, tp + fp + fn, 0), _ratio(2 * tp, 2 * tp + fp + fn, 0))
            ),
        ),
        Mistake(
            "Your first number is the pixel accuracy: the background that both leave alone is no "
            "part of the IoU.",
            _pair_with(
                lambda tp, fp, fn, tn: ((tp + tn) / (tp + fp + fn + tn), _ratio(2 * tp, 2 * tp + fp + fn))
            ),
        ),
        Mistake(
            "Your IoU forgets the pixels that were found where nothing is: the union holds them too.",
            _pair_with(lambda tp, fp, fn, tn: (_ratio(tp, tp + fn), _ratio(2 * tp, 2 * tp + fp + fn))),
        ),
    ),
    (
        "true & found are the pixels of both masks, true | found those of either.",
        "Dice = 2 · overlap / (area of the one + area of the other).",
        "Ask first whether the denominator is 0: then both masks are empty.",
    ),
)

# 08.2


def _class_ious(true, found, num_classes, absent=np.nan, of=None):
    table = np.zeros((num_classes, num_classes), int)
    keep = true != -1
    np.add.at(table, (true[keep], found[keep]), 1)
    tp, t, p = np.diagonal(table), table.sum(1), table.sum(0)
    whole = of(tp, t, p) if of else t + p - tp
    return np.array([a / b if b else absent for a, b in zip(tp, whole, strict=True)])


def mean_iou(true, found, num_classes):
    return np.nanmean(_class_ious(true, found, num_classes))


def _mean_iou_with_ignored(true, found, num_classes):
    """Pixels without a true label count as wrong for the class that was found there."""
    ious = []
    for k in range(num_classes):
        both, either = np.sum((true == k) & (found == k)), np.sum((true == k) | (found == k))
        ious.append(both / either if either else np.nan)
    return np.nanmean(ious)


def _pixel_accuracy(true, found, num_classes):
    return np.mean((true == found)[true != -1])


_LABELS = np.array([[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1], [0, 0, 2, 2, 1, 1], [0, 0, 2, 2, 0, 0]])
_ANSWER = np.array([[0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0], [0, 2, 2, 2, 1, 1], [0, 0, 0, 2, 0, 0]])

MEAN_IOU = Exercise(
    "08.2",
    "mean_iou",
    number("a number, the mean IoU"),
    lambda: [
        Case("three classes that all occur", (_LABELS, _ANSWER, 3)),
        Case("a perfect answer", (_LABELS, _LABELS, 3)),
        Case("five classes, two of which nobody has", (_LABELS, _ANSWER, 5)),
        Case("a class that was found and is not there", (_LABELS, np.where(_ANSWER == 2, 3, _ANSWER), 4)),
        Case("pixels to ignore (-1)", (np.where(_LABELS == 1, -1, _LABELS), _ANSWER, 3)),
        Case("two classes, the second one rare", ((_LABELS == 2).astype(int), np.zeros_like(_LABELS), 2)),
    ],
    mean_iou,
    (
        Mistake(
            "A class that neither truth nor answer has counts as 0; it was not asked for: leave it "
            "out of the mean.",
            lambda t, f, n: _class_ious(t, f, n, absent=0).mean(),
        ),
        Mistake(
            "A class that neither truth nor answer has counts as 1 and flatters the answer: leave it "
            "out of the mean.",
            lambda t, f, n: _class_ious(t, f, n, absent=1).mean(),
        ),
        Mistake(
            "Pixels whose true label is -1 count as mistakes of what was found there; leave them out "
            "altogether.",
            _mean_iou_with_ignored,
        ),
        Mistake(
            "You leave out the background; it is a class like the others.",
            lambda t, f, n: np.nanmean(_class_ious(t, f, n)[1:]),
        ),
        Mistake(
            "That is the pixel accuracy; the IoU of each class comes first, then their mean.", _pixel_accuracy
        ),
        Mistake(
            "You divide by the true pixels of each class (its recall); the union also holds what was "
            "wrongly called so.",
            lambda t, f, n: np.nanmean(_class_ious(t, f, n, of=lambda tp, t, p: t)),
        ),
        Mistake(
            "Your union counts the overlap twice: the sum of both areas holds it once too often.",
            lambda t, f, n: np.nanmean(_class_ious(t, f, n, of=lambda tp, t, p: t + p)),
        ),
        Mistake(
            "That is mean Dice, twice the overlap over the sum of the areas.",
            lambda t, f, n: np.nanmean(2 * _class_ious(t, f, n, of=lambda tp, t, p: t + p)),
        ),
        Mistake(
            "You take the mean over the classes of the truth only: a class that was found and is not "
            "there has the IoU 0 and counts.",
            lambda t, f, n: np.mean([_class_ious(t, f, n)[k] for k in np.unique(t[t >= 0])]),
        ),
    ),
    (
        "First leave out the pixels whose true label is -1, in both maps.",
        "Then for each class: pixels where both say it, over pixels where either does.",
        "Where the union is 0 the class is not there at all: NaN, and np.nanmean.",
    ),
)

# 08.3


def pooled_iou(truths, founds):
    counts = np.sum([_counts(t, f) for t, f in zip(truths, founds, strict=True)], axis=0)
    return _ratio(counts[0], counts[:3].sum())


def _iou_of(true, found, empty):
    tp, fp, fn, _ = _counts(true, found)
    return _ratio(tp, tp + fp + fn, empty)


def _mean_with(empty):
    def answer(truths, founds):
        scores = [_iou_of(t, f, empty) for t, f in zip(truths, founds, strict=True)]
        return np.nanmean(scores)

    return answer


def _weighted_by_truth(truths, founds):
    weights = [np.sum(t) for t in truths]
    scores = [_iou_of(t, f, 0.0) for t, f in zip(truths, founds, strict=True)]
    return np.average(scores, weights=weights) if sum(weights) else 1.0


def _blob(rows, columns, size=10):
    mask = np.zeros((size, size), bool)
    mask[rows, columns] = True
    return mask


def _pooled_cases():
    big, tiny, none = _blob(np.s_[1:8], np.s_[1:9]), _blob(4, np.s_[4:6]), np.zeros((10, 10), bool)
    yield Case("a large object found and a tiny one missed", ([big, tiny], [big, none]))
    yield Case(
        "three pictures, each partly right", ([big, tiny, tiny], [_blob(np.s_[2:9], np.s_[1:9]), tiny, none])
    )
    yield Case(
        "a picture in which nothing is, and nothing found",
        ([big, none], [_blob(np.s_[1:5], np.s_[1:9]), none]),
    )
    yield Case("a picture in which nothing is, and something found", ([big, none], [big, tiny]))
    yield Case("one picture", ([big], [_blob(np.s_[1:8], np.s_[3:10])]))
    yield Case(
        "pictures of two sizes",
        ([big, np.ones((3, 4), bool)], [big, np.zeros((3, 4), bool)]),
        "Sum up counts, picture by picture; masks of different sizes cannot be stacked.",
    )


POOLED_IOU = Exercise(
    "08.3",
    "pooled_iou",
    number("a number, the IoU of all pixels together"),
    lambda: list(_pooled_cases()),
    pooled_iou,
    (
        Mistake(
            "You average over images; over all pixels together it is the sum of the overlaps over "
            "the sum of the unions.",
            _mean_with(1.0),
        ),
        Mistake(
            "You average over images (and an empty one counts 0); over all pixels together it is the "
            "sum of the overlaps "
            "over the sum of the unions.",
            _mean_with(0.0),
        ),
        Mistake(
            "You average over the images that hold anything; over all pixels together it is the sum "
            "of the overlaps over "
            "the sum of the unions.",
            _mean_with(np.nan),
        ),
        Mistake(
            "You weight each image's IoU by its true pixels; what was found where nothing is then "
            "costs nothing. "
            "Add up overlaps and unions instead.",
            _weighted_by_truth,
        ),
        Mistake(
            "Your union counts the overlap twice: the sum of both areas holds it once too often.",
            lambda t, f: pooled_iou(t, f) / (1 + pooled_iou(t, f)),
        ),
        Mistake(
            "That is Dice of all pixels together: twice the overlap over the sum of the areas.",
            lambda t, f: 2 * pooled_iou(t, f) / (1 + pooled_iou(t, f)),
        ),
    ),
    (
        "Add up the pixels of both masks over all pictures, and those of either.",
        "Divide once, at the very end.",
    ),
)

# 08.4


def cross_entropy(labels, logits):
    return _ce(labels, log_softmax(logits, axis=-1))


def _ce(labels, logarithms, count=None, total=np.mean):
    keep = labels != -1
    picked = -np.take_along_axis(logarithms, np.where(keep, labels, 0)[..., None], -1)[..., 0][keep]
    return total(picked) if count is None else np.sum(picked) / count(labels)


def _with_the_last_class(labels, logits):
    return -np.take_along_axis(
        log_softmax(logits, axis=-1), (labels % logits.shape[-1])[..., None], -1
    ).mean()


def _naive(labels, logits):
    e = np.exp(logits)
    return _ce(labels, np.log(e / e.sum(axis=-1, keepdims=True)))


def _ce_cases():
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 3, (2, 5, 6))
    logits = rng.normal(0, 2, (2, 5, 6, 3))
    ignoring = np.where(rng.random(labels.shape) < 0.3, -1, labels)
    yield Case("an answer that knows nothing, all logits 0", (labels, np.zeros((2, 5, 6, 3))))
    yield Case("random labels and logits", (labels, logits))
    yield Case("labels with pixels to ignore (-1)", (ignoring, logits))
    yield Case("a right and sure answer", (labels, 20.0 * np.eye(3)[labels]))
    large = "exp(1000) is infinite. Subtract the largest logit of each pixel first, or use log_softmax."
    yield Case("logits of 0 and 1000", (labels, 1000.0 * np.eye(3)[(labels + (labels == 1)) % 3]), large)


CROSS_ENTROPY = Exercise(
    "08.4",
    "cross_entropy",
    number("a number, the mean cross-entropy", 1e-4),
    lambda: list(_ce_cases()),
    cross_entropy,
    (
        Mistake(
            "softmax was applied twice: the logits went through it, and what came out went through it again.",
            lambda y, z: _ce(y, log_softmax(softmax(z, axis=-1), axis=-1)),
        ),
        Mistake(
            "Large logits overflow: exp(1000) is infinite. Subtract the largest logit of each pixel "
            "first, or use log_softmax.",
            _naive,
        ),
        Mistake(
            "Ignored pixels are left out of the sum, but still counted: divide by the number of "
            "pixels that count.",
            lambda y, z: _ce(y, log_softmax(z, axis=-1), count=np.size),
        ),
        Mistake(
            "The label -1 picks the last class, as an index of -1 does; leave these pixels out.",
            _with_the_last_class,
        ),
        Mistake(
            "You add up over the pixels; take the mean, so that the loss does not grow with the picture.",
            lambda y, z: _ce(y, log_softmax(z, axis=-1), total=np.sum),
        ),
        Mistake(
            "The sign: the logarithm of a probability is negative, and a loss falls towards 0. Put a "
            "minus before it.",
            lambda y, z: -cross_entropy(y, z),
        ),
        Mistake(
            "You take a sigmoid of each logit; here one class of several is true, so a softmax over "
            "the last axis.",
            lambda y, z: _ce(y, np.log(np.maximum(expit(z), 1e-300))),
        ),
        Mistake(
            "Your logarithm has another base; the loss takes the natural one, np.log.",
            lambda y, z: cross_entropy(y, z) / np.log(2),
        ),
        Mistake(
            "Your logarithm has another base; the loss takes the natural one, np.log.",
            lambda y, z: cross_entropy(y, z) / np.log(10),
        ),
        Mistake(
            "You adjust the probability away from 0 before the logarithm; a sure and wrong answer "
            "then costs too little. "
            "Compute the logarithm directly, by log_softmax.",
            lambda y, z: _ce(y, np.log(np.clip(softmax(z, axis=-1), 1e-7, 1 - 1e-7))),
        ),
    ),
    (
        "log_softmax(z) = z - max - log(sum(exp(z - max))): the largest logit is subtracted first.",
        "np.take_along_axis picks the logarithm of the true class. What does it pick for the label -1?",
        "Use only the pixels with labels != -1, in the sum and in the number that you divide by.",
    ),
)

# 08.5


def soft_dice_loss(mask, probabilities, smooth):
    return _soft_dice(mask, probabilities, smooth)


def _soft_dice(mask, p, smooth, factor=2.0, power=1, above=True, below=True, union=False):
    both = np.sum(mask * p)
    whole = np.sum(mask) + np.sum(p**power) - (both if union else 0)
    return 1 - (factor * both + above * smooth) / (whole + below * smooth)


def _dice_cases():
    p = np.clip(0.1 + 0.7 * _TRUE + 0.15 * np.sin(np.arange(64)).reshape(8, 8), 0, 1)
    yield Case("a rather good answer, smooth 1", (_TRUE, p, 1.0))
    yield Case("the same with smooth 10", (_TRUE, p, 10.0))
    yield Case("a perfect and sure answer", (_TRUE, _TRUE.astype(float), 1.0))
    yield Case("one probability everywhere, 0.5", (_TRUE, np.full((8, 8), 0.5), 1.0))
    yield Case("an empty mask and an empty answer", (np.zeros((8, 8), bool), np.zeros((8, 8)), 1.0))
    yield Case("an empty mask and an answer that finds something", (np.zeros((8, 8), bool), p, 1.0))


SOFT_DICE = Exercise(
    "08.5",
    "soft_dice_loss",
    number("a number, the loss"),
    lambda: list(_dice_cases()),
    soft_dice_loss,
    (
        Mistake(
            "That is the score; the loss is 1 minus it, so that training makes the score larger.",
            lambda m, p, s: 1 - soft_dice_loss(m, p, s),
        ),
        Mistake(
            "You make a mask of the probabilities first; a step has no gradient to learn from. Use "
            "the probabilities "
            "themselves.",
            lambda m, p, s: soft_dice_loss(m, (p > 0.5).astype(float), s),
        ),
        Mistake(
            "The overlap lacks its factor 2: a perfect answer would be left with a loss of one half.",
            lambda m, p, s: _soft_dice(m, p, s, factor=1.0),
        ),
        Mistake(
            "smooth stands below the line only: an empty mask and an empty answer agree, and their "
            "loss is 0. Add it above, too.",
            lambda m, p, s: _soft_dice(m, p, s, above=False),
        ),
        Mistake(
            "smooth is missing: an empty mask and an empty answer give 0 / 0.",
            lambda m, p, s: _soft_dice(m, p, s, above=False, below=False),
        ),
        Mistake(
            "You square the probabilities below the line, as Milletari et al. do; here it is the plain sum.",
            lambda m, p, s: _soft_dice(m, p, s, power=2),
        ),
        Mistake(
            "That is the soft Jaccard (IoU) loss: below the line is the sum of both areas, overlap "
            "counted twice.",
            lambda m, p, s: _soft_dice(m, p, s, factor=1.0, union=True),
        ),
        Mistake(
            "Your smooth belongs to the whole sum above the line: 2 · overlap + smooth, not 2 · "
            "(overlap + smooth).",
            lambda m, p, s: 1 - 2 * (np.sum(m * p) + s) / (np.sum(m) + np.sum(p) + s),
        ),
    ),
    (
        "The soft overlap is sum(mask · p), the soft area of the answer sum(p).",
        "(2 · overlap + smooth) / (area of the mask + area of the answer + smooth) is the score.",
        "The loss is 1 minus the score.",
    ),
)

# 08.6


def best_threshold(probabilities, truths, thresholds):
    scores = [pooled_iou(truths, [p > t for p in probabilities]) for t in thresholds]
    return thresholds[int(np.argmax(scores))]


def _threshold_by(score, better=np.argmax, returns=lambda thresholds, scores, k: thresholds[k]):
    def answer(probabilities, truths, thresholds):
        scores = [score(truths, [p > t for p in probabilities]) for t in thresholds]
        k = int(better(scores))
        return returns(thresholds, scores, k)

    return answer


def _accuracy(truths, founds):
    return np.mean([np.mean(t == f) for t, f in zip(truths, founds, strict=True)])


def _best_of_each(probabilities, truths, thresholds):
    return np.mean([best_threshold([p], [t], thresholds) for p, t in zip(probabilities, truths, strict=True)])


def _threshold_cases():
    grid = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    big, tiny = _blob(np.s_[1:8], np.s_[1:9]), _blob(4, np.s_[4:6])
    halo, row = _blob(np.s_[0:9], np.s_[0:10]), _blob(np.s_[2:7], np.s_[3:8])
    sure = np.where(big, 0.85, 0.05)
    yield Case(
        "a sure and right net",
        ([sure], [big], grid),
        "Every threshold from 0.1 to 0.8 is as good; take the first.",
    )
    yield Case("a timid net", ([np.where(big, 0.35, 0.15)], [big], [0.1, 0.3, 0.5, 0.7]))
    yield Case(
        "a bold net with a halo",
        ([np.where(big, 0.95, np.where(halo, 0.65, 0.1))], [big], [0.2, 0.4, 0.6, 0.75, 0.9]),
    )
    yield Case(
        "a net that finds an object's half with 0.45 and as many others with it",
        (
            [np.where(tiny, 0.45, np.where(row, 0.42, 0.05)) + 0.1 * _blob(4, 4)],
            [_blob(4, np.s_[3:8])],
            [0.1, 0.41, 0.5, 0.6],
        ),
    )
    yield Case(
        "a large object that wants a high threshold and a tiny one that wants a low one",
        (
            [np.where(big, 0.9, np.where(halo, 0.6, 0.1)), np.where(tiny, 0.35, 0.05)],
            [big, tiny],
            [0.2, 0.3, 0.5, 0.7, 0.8],
        ),
    )
    rare = np.where(tiny, 0.45, np.where(_blob(np.s_[3:5], np.s_[4:7]), 0.4, 0.05))
    yield Case(
        "a rare object that the net finds with too little", ([rare], [tiny | _blob(8, 8)], [0.2, 0.43, 0.5])
    )
    worse = np.where(tiny, 0.4, np.where(_blob(5, np.s_[4:7]), 0.4, 0.05))
    yield Case(
        "a rare object found together with as many wrong pixels and one more", ([worse], [tiny], [0.2, 0.5])
    )


BEST_THRESHOLD = Exercise(
    "08.6",
    "best_threshold",
    number("a number, one of the thresholds"),
    lambda: list(_threshold_cases()),
    best_threshold,
    (
        Mistake(
            "You choose by pixel accuracy, which prefers to find nothing where the object is rare; "
            "choose by the IoU of "
            "all pixels together.",
            _threshold_by(_accuracy),
        ),
        Mistake(
            "You choose by the mean of the images' IoUs, so the tiny object decides as much as the "
            "large one; choose by the "
            "IoU of all pixels together.",
            _threshold_by(_mean_with(1.0)),
        ),
        Mistake(
            "You return the best score; return the threshold that reaches it.",
            _threshold_by(pooled_iou, returns=lambda thresholds, scores, k: scores[k]),
        ),
        Mistake(
            "You return the place of the best threshold in the list; return the threshold itself.",
            _threshold_by(pooled_iou, returns=lambda thresholds, scores, k: k),
        ),
        Mistake(
            "Where several thresholds are equally good you take the last; take the first.",
            _threshold_by(pooled_iou, better=lambda s: len(s) - 1 - np.argmax(s[::-1])),
        ),
        Mistake(
            "You choose a threshold for each image and take their mean; one threshold has to serve all.",
            _best_of_each,
        ),
        Mistake("You always answer 0.5; look which threshold is the best.", lambda p, t, thresholds: 0.5),
        Mistake(
            "You look for the smallest score; the best IoU is the largest.",
            _threshold_by(pooled_iou, better=np.argmin),
        ),
    ),
    (
        "For each threshold, make masks of all pictures: probability > threshold.",
        "Score them with the IoU of all pixels together (exercise 3), and keep the first threshold "
        "with the best score.",
    ),
)

EXERCISES = (IOU_AND_DICE, MEAN_IOU, POOLED_IOU, CROSS_ENTROPY, SOFT_DICE, BEST_THRESHOLD)
