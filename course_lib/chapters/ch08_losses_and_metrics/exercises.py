"""Exercises of chapter 08: IoU and Dice, mean IoU, all pixels together, cross-entropy, soft Dice, thresholds, training."""

from functools import partial

import numpy as np
from scipy.special import expit, log_softmax, softmax

from course_lib.teaching.exercise import Case, Exercise, Form, array, number, same, varied


def _counts(true, predicted):
    """TP, FP, FN, TN of two masks."""
    return [
        np.sum(part) for part in (true & predicted, ~true & predicted, true & ~predicted, ~true & ~predicted)
    ]


def _ratio(part, whole, empty=1.0):
    return part / whole if whole else empty


# 08.1


def _pair(
    iou=lambda tp, fp, fn, tn: (tp, tp + fp + fn),
    dice=lambda tp, fp, fn: (2 * tp, 2 * tp + fp + fn),
    empty=1.0,
):
    def answer(true, predicted):
        counts = _counts(true, predicted)
        return _ratio(*iou(*counts), empty), _ratio(*dice(*counts[:3]), empty)

    return answer


def _mask(rows, columns, size=10):
    mask = np.zeros((size, size), bool)
    mask[rows, columns] = True
    return mask


_TRUE = _mask(np.s_[2:6], np.s_[1:5], 8)
_PREDICTED = np.roll(_TRUE, 1, axis=1)
_PREDICTED[2], _PREDICTED[7, 7] = False, True
_NONE = np.zeros((8, 8), bool)

IOU_AND_DICE = Exercise(
    number="08.1",
    name="iou_and_dice",
    form=array("two numbers, the IoU and the Dice coefficient"),
    answer=_pair(),
    cases=[
        Case("a block and the same block a column to the right, without its top row", _TRUE, _PREDICTED),
        Case("a mask and itself", _TRUE, _TRUE),
        Case("a mask and its larger copy", _TRUE, ~_NONE),
        Case("two masks that do not overlap", _TRUE, np.roll(_TRUE, 4, axis=1)),
        Case("a mask and an empty prediction", _TRUE, _NONE),
        Case("two empty masks", _NONE, _NONE, note="They agree: 1 and 1."),
    ],
    mistakes={
        "Your union counts the overlap twice: the sum of the two areas contains it twice.": _pair(
            iou=lambda tp, fp, fn, tn: (tp, 2 * tp + fp + fn)
        ),
        "Your Dice lacks its factor 2: twice the overlap over the sum of both areas.": _pair(
            dice=lambda tp, fp, fn: (tp, 2 * tp + fp + fn)
        ),
        "The numbers are correct but in the wrong order: first the IoU, then Dice. Dice is never smaller "
        "than the IoU.": (lambda *given: _pair()(*given)[::-1]),
        "Two empty masks agree, so both scores are 1; 0 / 0 is not a number.": _pair(empty=np.nan),
        "Two empty masks agree, so both scores are 1, not 0.": _pair(empty=0.0),
        "Your first number is the pixel accuracy; background pixels that are in neither mask do not count "
        "in the IoU.": _pair(iou=lambda tp, fp, fn, tn: (tp + tn, tp + fp + fn + tn)),
        "Your IoU ignores the false positive pixels; the union contains them too.": _pair(
            iou=lambda tp, fp, fn, tn: (tp, tp + fn)
        ),
    },
    hints=[
        "true & predicted gives the pixels in both masks, true | predicted those in either.",
        "Dice = 2 · overlap / (sum of the two areas).",
        "First ask whether the denominator is 0: then both masks are empty.",
    ],
)

# 08.2


def _class_ious(t, p, n, absent=np.nan, whole=lambda tp, true, predicted: true + predicted - tp, ignore=True):
    if ignore:
        t, p = t[t != -1], p[t != -1]
    parts = [(np.sum((t == k) & (p == k)), np.sum(t == k), np.sum(p == k)) for k in range(n)]
    return np.array([_ratio(each[0], whole(*each), absent) for each in parts])


_LABELS = np.array([[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1], [0, 0, 2, 2, 1, 1], [0, 0, 2, 2, 0, 0]])
_PREDICTION = np.array([[0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0], [0, 2, 2, 2, 1, 1], [0, 0, 0, 2, 0, 0]])

MEAN_IOU = Exercise(
    number="08.2",
    name="mean_iou",
    form=number("a number, the mean IoU"),
    answer=lambda *given: np.nanmean(_class_ious(*given)),
    cases=[
        Case("three classes that all occur", _LABELS, _PREDICTION, 3),
        Case("a perfect prediction", _LABELS, _LABELS, 3),
        Case("five classes, two of which do not occur", _LABELS, _PREDICTION, 5),
        Case(
            "a class that is predicted but does not occur",
            _LABELS,
            np.where(_PREDICTION == 2, 3, _PREDICTION),
            4,
        ),
        Case("pixels to ignore (-1)", np.where(_LABELS == 1, -1, _LABELS), _PREDICTION, 3),
        Case("two classes, the second one rare", (_LABELS == 2).astype(int), np.zeros_like(_LABELS), 2),
    ],
    mistakes={
        "In your mean a class that is in neither map counts as 0; leave it out of the mean.": (
            lambda *given: np.mean(_class_ious(*given, absent=0.0))
        ),
        "In your mean a class that is in neither map counts as 1 and raises the score; leave it out of "
        "the mean.": (lambda *given: np.mean(_class_ious(*given, absent=1.0))),
        "You count pixels whose true label is -1 as errors of the class predicted there; leave them out "
        "altogether.": (lambda *given: np.nanmean(_class_ious(*given, ignore=False))),
        "You leave out the background; it is a class like the others.": lambda *given: np.nanmean(
            _class_ious(*given)[1:]
        ),
        "That is the pixel accuracy; the IoU of each class comes first, then their mean.": lambda t, p, n: (
            np.mean((t == p)[t != -1])
        ),
        "You divide by the true pixels of each class (its recall); the union also contains false positives.": (
            lambda *given: np.nanmean(_class_ious(*given, whole=lambda tp, true, predicted: true))
        ),
        "Your union counts the overlap twice: the sum of the two areas contains it twice.": (
            lambda *given: np.nanmean(_class_ious(*given, whole=lambda tp, true, predicted: true + predicted))
        ),
        "That is mean Dice, twice the overlap over the sum of the areas.": lambda *given: np.nanmean(
            2 * _class_ious(*given, whole=lambda tp, true, predicted: true + predicted)
        ),
        "You take the mean over the true classes only: a class that is predicted but does not occur has "
        "the IoU 0 and counts.": (lambda t, p, n: np.mean(_class_ious(t, p, n)[np.unique(t[t >= 0])])),
    },
    hints=[
        "First leave out the pixels whose true label is -1, in both maps.",
        "Then for each class: the number of pixels where both maps have it, divided by the number where "
        "either has it.",
        "Where the union is 0 the class does not occur at all: NaN, and np.nanmean.",
    ],
)

# 08.3


def pooled_iou(true, predicted):
    tp, fp, fn, _ = np.sum([_counts(t, p) for t, p in zip(true, predicted, strict=True)], axis=0)
    return _ratio(tp, tp + fp + fn)


def _mean_over_images(true, predicted, empty=1.0, weights=None):
    counts = [_counts(t, p)[:3] for t, p in zip(true, predicted, strict=True)]
    ious = np.array([_ratio(tp, tp + fp + fn, empty) for tp, fp, fn in counts])
    weights = np.array([weights(t) for t in true], float) if weights else np.ones(len(ious))
    keep = ~np.isnan(ious)
    return np.average(ious[keep], weights=weights[keep]) if weights[keep].sum() else 1.0


_BIG, _TINY, _EMPTY = _mask(np.s_[1:8], np.s_[1:9]), _mask(4, np.s_[4:6]), np.zeros((10, 10), bool)

POOLED_IOU = Exercise(
    number="08.3",
    name="pooled_iou",
    form=number("a number, the IoU of all pixels together"),
    answer=pooled_iou,
    cases=[
        Case("a large object found and a tiny one missed", [_BIG, _TINY], [_BIG, _EMPTY]),
        Case(
            "three images, each partly correct",
            [_BIG, _TINY, _TINY],
            [_mask(np.s_[2:9], np.s_[1:9]), _TINY, _EMPTY],
        ),
        Case(
            "an image without an object, and nothing predicted",
            [_BIG, _EMPTY],
            [_mask(np.s_[1:5], np.s_[1:9]), _EMPTY],
        ),
        Case("an image without an object, and something predicted", [_BIG, _EMPTY], [_BIG, _TINY]),
        Case("one image", [_BIG], [_mask(np.s_[1:8], np.s_[3:10])]),
        Case(
            "images of two sizes",
            [_BIG, np.ones((3, 4), bool)],
            [_BIG, np.zeros((3, 4), bool)],
            note="Sum up counts, image by image; masks of different sizes cannot be stacked.",
        ),
        Case(
            "two images without an object, and nothing predicted",
            [_EMPTY, _EMPTY],
            [_EMPTY, _EMPTY],
            note="They agree: 1.",
        ),
    ],
    mistakes={
        "No mask contains a pixel: they agree, so the IoU is 1.": lambda true, predicted: (
            pooled_iou(true, predicted) if np.any([t.any() for t in true]) else 0.0
        ),
        "You average over images; for all pixels together divide the sum of the overlaps by the sum of the unions.": (
            _mean_over_images
        ),
        "You average over images (and an empty one counts 0); for all pixels together divide the sum of the "
        "overlaps by the "
        "sum of the unions.": partial(_mean_over_images, empty=0.0),
        "You average over the images that contain anything; for all pixels together divide the sum of the "
        "overlaps by the sum "
        "of the unions.": partial(_mean_over_images, empty=np.nan),
        "You weight each image's IoU by its true pixels; false positives in images without an object then "
        "cost nothing. Sum the overlaps and the unions instead.": partial(
            _mean_over_images, empty=0.0, weights=np.sum
        ),
        "Your union counts the overlap twice: the sum of the two areas contains it twice.": lambda *given: (
            pooled_iou(*given) / (1 + pooled_iou(*given))
        ),
        "That is Dice of all pixels together: twice the overlap over the sum of the areas.": lambda *given: (
            2 * pooled_iou(*given) / (1 + pooled_iou(*given))
        ),
    },
    hints=[
        "Sum over all images the number of pixels in both masks, and the number in either mask.",
        "Divide once, at the very end.",
    ],
)

# 08.4


def cross_entropy(labels, logits, log=lambda z: log_softmax(z, axis=-1), count=None, total=np.mean):
    keep = labels != -1
    picked = -np.take_along_axis(log(logits), np.where(keep, labels, 0)[..., None], -1)[..., 0][keep]
    return total(picked) if count is None else np.sum(picked) / count(labels)


_ce = varied(cross_entropy)


def _naive(logits):
    e = np.exp(logits)
    return np.log(e / e.sum(axis=-1, keepdims=True))


_RNG = np.random.default_rng(4)
_CLASSES, _LOGITS = _RNG.integers(0, 3, (2, 5, 6)), _RNG.normal(0, 2, (2, 5, 6, 3))

CROSS_ENTROPY = Exercise(
    number="08.4",
    name="cross_entropy",
    form=number("a number, the mean cross-entropy", 1e-4),
    answer=cross_entropy,
    cases=[
        Case("an uninformative prediction, all logits 0", _CLASSES, np.zeros((2, 5, 6, 3))),
        Case("random labels and logits", _CLASSES, _LOGITS),
        Case(
            "labels with pixels to ignore (-1)",
            np.where(_RNG.random(_CLASSES.shape) < 0.3, -1, _CLASSES),
            _LOGITS,
        ),
        Case("a correct and confident prediction", _CLASSES, 20.0 * np.eye(3)[_CLASSES]),
        Case(
            "logits of 0 and 1000",
            _CLASSES,
            1000.0 * np.eye(3)[(_CLASSES + (_CLASSES == 1)) % 3],
            note="exp(1000) is infinite. Subtract the largest logit of each pixel first, or use log_softmax.",
        ),
    ],
    mistakes={
        "You apply softmax twice: the output of the first softmax goes through a second one.": _ce(
            log=lambda z: log_softmax(softmax(z, axis=-1), axis=-1)
        ),
        "Large logits overflow: exp(1000) is infinite. Subtract the largest logit of each pixel first, or use "
        "log_softmax.": (_ce(log=_naive), _ce(log=lambda z: np.log(softmax(z, axis=-1)))),
        "Ignored pixels are left out of the sum, but still counted: divide by the number of pixels that count.": _ce(
            count=np.size
        ),
        "The label -1 picks the last class, as an index of -1 does; leave these pixels out.": (
            lambda labels, logits: cross_entropy(labels % 3, logits)
        ),
        "You sum over the pixels; take the mean, so that the loss does not grow with the image size.": _ce(
            total=np.sum
        ),
        "Your loss has the wrong sign: the logarithm of a probability is negative, and a loss falls "
        "towards 0. Add a minus sign.": (lambda *given: -cross_entropy(*given)),
        "You apply a sigmoid to each logit; here exactly one class is true, so use a softmax over the last axis.": _ce(
            log=lambda z: np.log(np.maximum(expit(z), 1e-300))
        ),
        "Your logarithm has a different base; the loss uses the natural logarithm, np.log.": (
            lambda *given: cross_entropy(*given) / np.log(2),
            lambda *given: cross_entropy(*given) / np.log(10),
        ),
        "You clip the probability away from 0 before the logarithm; a confident, incorrect prediction "
        "then costs too little. Compute the logarithm directly, by log_softmax.": _ce(
            log=lambda z: np.log(np.clip(softmax(z, axis=-1), 1e-7, 1 - 1e-7))
        ),
    },
    hints=[
        "log_softmax(z) = z - max - log(sum(exp(z - max))): the largest logit is subtracted first.",
        "np.take_along_axis picks the logarithm of the true class. What does it pick for the label -1?",
        "Use only the pixels with labels != -1, both in the sum and in the number by which you divide.",
    ],
)

# 08.5


def soft_dice_loss(mask, p, smooth, factor=2.0, power=1, above=1.0, below=1.0, union=False):
    both = np.sum(mask * p)
    whole = np.sum(mask) + np.sum(p**power) - union * both
    return 1 - (factor * both + above * smooth) / (whole + below * smooth)


_dice = varied(soft_dice_loss)

_P = np.clip(0.1 + 0.7 * _TRUE + 0.15 * np.sin(np.arange(64)).reshape(8, 8), 0, 1)

SOFT_DICE = Exercise(
    number="08.5",
    name="soft_dice_loss",
    form=number("a number, the loss"),
    answer=soft_dice_loss,
    cases=[
        Case("a rather good prediction, smooth 1", _TRUE, _P, 1.0),
        Case("the same with smooth 10", _TRUE, _P, 10.0),
        Case("a perfect and confident prediction", _TRUE, _TRUE.astype(float), 1.0),
        Case("one probability everywhere, 0.5", _TRUE, np.full((8, 8), 0.5), 1.0),
        Case("an empty mask and an empty prediction", _NONE, np.zeros((8, 8)), 1.0),
        Case("an empty mask and a prediction that finds something", _NONE, _P, 1.0),
    ],
    mistakes={
        "That is the score; the loss is 1 minus it, so that training makes the score larger.": (
            lambda *given: 1 - soft_dice_loss(*given)
        ),
        "You threshold the probabilities first; a step function has no gradient to learn from. Use the "
        "probabilities themselves.": (
            lambda m, p, s: soft_dice_loss(m, (p > 0.5).astype(float), s),
            lambda m, p, s: soft_dice_loss(m, (p >= 0.5).astype(float), s),
        ),
        "The overlap lacks its factor 2: a perfect prediction would still have a loss of one half.": _dice(
            factor=1.0
        ),
        "smooth is in the denominator only: an empty mask and an empty prediction agree, and their loss is 0. "
        "Add it to the "
        "numerator, too.": _dice(above=0.0),
        "smooth is missing: an empty mask and an empty prediction give 0 / 0.": _dice(above=0.0, below=0.0),
        "You square the probabilities in the denominator, as Milletari et al. do; here it is the plain sum.": _dice(
            power=2
        ),
        "That is the soft Jaccard (IoU) loss: the denominator is the sum of both areas, overlap counted twice.": _dice(
            factor=1.0, union=True
        ),
        "Your smooth belongs to the whole numerator: 2 · overlap + smooth, not 2 · (overlap + smooth).": _dice(
            above=2.0
        ),
    },
    hints=[
        "The soft overlap is sum(mask · p), the soft area of the prediction sum(p).",
        "(2 · overlap + smooth) / (area of the mask + area of the prediction + smooth) is the score.",
        "The loss is 1 minus the score.",
    ],
)

# 08.6, the research exercise


def best_threshold(
    probabilities,
    true,
    thresholds,
    score=pooled_iou,
    better=np.argmax,
    above=np.greater,
    returns=lambda thresholds, scores, k: thresholds[k],
):
    scores = [score(true, [above(p, t) for p in probabilities]) for t in thresholds]
    return returns(thresholds, scores, int(better(scores)))


_threshold = varied(best_threshold)


def _accuracy(true, predicted):
    return np.mean([np.mean(t == p) for t, p in zip(true, predicted, strict=True)])


def _on(*pairs, outside=0.05):
    """Probabilities: each mask's value, the first mask that covers a pixel counts."""
    return np.select([mask for mask, _ in pairs], [value for _, value in pairs], outside)


_HALO, _BLOCK, _ROW = _mask(np.s_[0:9], np.s_[0:10]), _mask(np.s_[2:7], np.s_[3:8]), _mask(4, np.s_[3:8])

BEST_THRESHOLD = Exercise(
    number="08.6",
    name="best_threshold",
    form=number("a number, one of the thresholds"),
    answer=best_threshold,
    cases=[
        Case(
            "a confident and correct model",
            [_on((_BIG, 0.85))],
            [_BIG],
            [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
            note="Every threshold from 0.1 to 0.8 is equally good; take the first.",
        ),
        Case("an under-confident model", [_on((_BIG, 0.35), outside=0.15)], [_BIG], [0.1, 0.3, 0.5, 0.7]),
        Case(
            "an over-confident model with a halo",
            [_on((_BIG, 0.95), (_HALO, 0.65), outside=0.1)],
            [_BIG],
            [0.2, 0.4, 0.6, 0.75, 0.9],
        ),
        Case(
            "a model that at 0.45 finds half of an object together with as many false positives",
            [_on((_TINY, 0.45), (_BLOCK, 0.42)) + 0.1 * _mask(4, 4)],
            [_ROW],
            [0.1, 0.41, 0.5, 0.6],
        ),
        Case(
            "a large object that needs a high threshold and a tiny one that needs a low one",
            [_on((_BIG, 0.9), (_HALO, 0.6), outside=0.1), _on((_TINY, 0.35))],
            [_BIG, _TINY],
            [0.2, 0.3, 0.5, 0.7, 0.8],
        ),
        Case(
            "a rare object of which the model finds too little",
            [_on((_TINY, 0.45), (_mask(np.s_[3:5], np.s_[4:7]), 0.4))],
            [_TINY | _mask(8, 8)],
            [0.2, 0.43, 0.5],
        ),
        Case(
            "a rare object found together with one more false positive than it has pixels",
            [_on((_TINY, 0.4), (_mask(5, np.s_[4:7]), 0.4))],
            [_TINY],
            [0.2, 0.5],
        ),
        Case(
            "probabilities that equal a threshold, so they are not above it",
            [_on((_BIG, 0.75), (_HALO, 0.5))],
            [_BIG],
            [0.25, 0.5, 0.75],
        ),
    ],
    mistakes={
        "You choose by pixel accuracy, which favours an empty prediction when the object is rare; choose "
        "by the IoU of all pixels together.": _threshold(score=_accuracy),
        "You choose by the mean of the images' IoUs, so the tiny object counts as much as the large one; "
        "choose by the IoU of all pixels together.": _threshold(score=_mean_over_images),
        "You return the best score; return the threshold that reaches it.": _threshold(
            returns=lambda thresholds, scores, k: scores[k]
        ),
        "You return the index of the best threshold; return the threshold itself.": _threshold(
            returns=lambda thresholds, scores, k: k
        ),
        "If several thresholds are equally good, you return the last; return the first.": _threshold(
            better=lambda s: len(s) - 1 - np.argmax(s[::-1])
        ),
        "You choose a threshold for each image and take their mean; one threshold has to be used for all "
        "images.": (
            lambda probabilities, true, thresholds: np.mean(
                [best_threshold([p], [t], thresholds) for p, t in zip(probabilities, true, strict=True)]
            )
        ),
        "You always return 0.5; find out which threshold is best.": lambda p, t, thresholds: 0.5,
        "You search for the smallest score; the best IoU is the largest.": _threshold(better=np.argmin),
        "A probability that equals the threshold is not above it: > and not >=.": _threshold(
            above=np.greater_equal
        ),
    },
    hints=[
        "For each threshold, make masks of all images: probability > threshold.",
        "Score them with the IoU of all pixels together (exercise 3), and keep the first threshold with the best score.",
    ],
)

# 08.7, with Keras


def dice_loss(
    labels,
    logits,
    probabilities=lambda logits: softmax(logits, axis=-1),
    ignore=True,
    axes=(0, 1, 2),
    classes=slice(None),
    smooth=(1.0, 1.0),
    power=1,
    pooled=False,
):
    y = (labels[..., None] == np.arange(logits.shape[-1]))[..., classes].astype(float)
    p = probabilities(logits)[..., classes] * ((labels != -1)[..., None] if ignore else 1)
    both, whole = np.sum(y * p, axes), np.sum(y, axes) + np.sum(p**power, axes)
    if pooled:
        both, whole = both.sum(), whole.sum()
    return np.mean(1 - (2 * both + smooth[0]) / (whole + smooth[1]))


_dice_like = varied(dice_loss)


def _value_and_slope(function, labels, logits, step=0.01):
    """The loss, and how it changes along a direction; a loss of decisions does not change at all."""
    direction = np.random.default_rng(7).normal(size=logits.shape)

    def value(shift):
        found = function(labels, (logits + shift * direction).astype("float32"))
        if found is None or found is ...:
            raise NotImplementedError
        return float(np.asarray(found))

    return [value(0.0), (value(step) - value(-step)) / (2 * step)]


DICE_LOSS = Exercise(
    number="08.7",
    name="dice_loss",
    form=Form(
        "a scalar tensor, the loss",
        lambda a, b: bool(np.allclose(a, b, atol=2e-3)),
        contrast=lambda given, right: (
            f"expected {right[0]:.4f} with a slope of {right[1]:.4f}; got {given[0]:.4f} with a slope of {given[1]:.4f}"
        ),
    ),
    answer=dice_loss,
    measure=_value_and_slope,
    seconds=40.0,
    cases=[
        Case("two images of three classes", _CLASSES, _LOGITS),
        Case("labels with pixels to ignore (-1)", np.where(_CLASSES == 1, -1, _CLASSES), _LOGITS),
        Case(
            "two images of which one has no object",
            np.array([[[0, 1], [1, 1]], [[0, 0], [0, 0]]]),
            3 * _LOGITS[:, :2, :2, :2],
        ),
        Case(
            "a class that is in neither labels nor prediction",
            np.zeros((1, 2, 2), int),
            np.array([9.0, 0, -60]) * np.ones((1, 2, 2, 1)),
        ),
    ],
    mistakes={
        "That is the score; the loss is 1 minus it.": lambda *given: 1 - dice_loss(*given),
        "The softmax is missing: logits are not probabilities.": _dice_like(probabilities=lambda z: z),
        "You take decisions first (argmax, rounding), so the loss has no gradient to learn from. Use the "
        "probabilities.": _dice_like(probabilities=lambda z: np.eye(z.shape[-1])[z.argmax(-1)]),
        "Ignored pixels count as predictions: set their probabilities to 0, too.": _dice_like(ignore=False),
        "You sum within each image and average over images; here all pixels of the batch are summed.": _dice_like(
            axes=(1, 2)
        ),
        "You leave out the background; it is a class like the others.": _dice_like(classes=slice(1, None)),
        "smooth is missing in the numerator: an absent class then costs 1.": _dice_like(smooth=(0.0, 1.0)),
        "You square the probabilities in the denominator, as Milletari et al. do; here it is the plain sum.": _dice_like(
            power=2
        ),
        "You compute one ratio for all classes together; compute one for each class, then take their mean.": _dice_like(
            pooled=True
        ),
        "You take a sigmoid of each logit; the classes are mutually exclusive, so use a softmax.": _dice_like(
            probabilities=expit
        ),
    },
    hints=[
        "keras.ops.softmax(logits), keras.ops.one_hot(labels, classes); one_hot of -1 is 0 everywhere.",
        "Multiply the probabilities by keras.ops.cast(labels != -1, 'float32')[..., None].",
        "Sum over axes (0, 1, 2): a ratio for each class, then 1 - the mean.",
    ],
)

# 08.8, three planted bugs


def disc_images(count, seed):
    """Noisy images of bright discs `(count, 32, 32, 1)` and their masks."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :32]
    centres, radii = rng.uniform(8, 24, (2, count, 1, 1)), rng.uniform(4, 8, (count, 1, 1))
    masks = (np.hypot(y - centres[0], x - centres[1]) < radii).astype("int32")
    return (0.5 * masks + rng.normal(0.25, 0.2, masks.shape)).astype("float32")[..., None], masks


def mended_training(images, masks, rate=0.01, last=None, shuffle=False):
    import keras

    if shuffle:
        images = np.random.default_rng(0).permutation(images)
    hidden = [keras.layers.Conv2D(8, 3, padding="same", activation="relu") for _ in range(2)]
    model = keras.Sequential(
        [keras.Input(images.shape[1:]), *hidden, keras.layers.Conv2D(2, 1, activation=last)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(rate), loss=loss)
    model.fit(images, masks, batch_size=8, epochs=15, verbose=0)
    return model


def _model_behaviour(train, count):
    """Whether the model finds discs in other images, the learning rate is fit for Adam, and the outputs fit the loss."""
    import keras

    keras.utils.set_random_seed(0)
    model = train(*disc_images(count, 1))
    if model is None or model is ...:
        return None
    images, masks = disc_images(32, 99)
    out = keras.ops.convert_to_numpy(model(images))
    found, rate = out.argmax(-1), float(np.asarray(model.optimizer.learning_rate))
    iou = np.sum(found & masks) / max(np.sum(found | masks), 1)
    probabilities = out.min() >= 0 and np.allclose(out.sum(-1), 1, atol=1e-3)
    from_logits = model.loss.get_config().get("from_logits", True)
    return [iou > 0.8, 1e-4 <= rate <= 0.1, bool(from_logits) != probabilities]


BUGS = Exercise(
    number="08.8",
    name="mended_training",
    form=Form(
        "a trained Keras model",
        same,
        contrast=lambda given, right: (
            f"the IoU on other images is {'above' if given[0] else 'below'} 0.8; the learning rate is "
            f"{'fit' if given[1] else 'not fit'} for Adam; the outputs {'fit' if given[2] else 'do not fit'} the loss"
        ),
    ),
    answer=mended_training,
    measure=_model_behaviour,
    live=True,
    seconds=90.0,
    passed="right: the model finds the discs in other images.",
    cases=[Case("64 images of discs", 64)],
    mistakes={
        "The outputs do not fit the loss: from_logits=True expects logits, so the last layer must have no "
        "softmax.": partial(mended_training, last="softmax"),
        "The model does not learn although learning rate and outputs are fine: do images and masks still belong "
        "together?": (partial(mended_training, shuffle=True)),
        "The learning rate is far from what Adam needs, about 0.001 to 0.01.": (
            partial(mended_training, rate=10.0),
            partial(mended_training, rate=1e-7),
        ),
    },
    hints=[
        "Check three things in this order: do images and masks still belong together, do the outputs fit the "
        "loss, is the step "
        "size sensible?",
        "rng.permutation(images) shuffles the images and leaves the masks where they are.",
        "from_logits=True means that the loss applies the softmax; a learning rate of 10 is a thousand times too large.",
    ],
)

EXERCISES = (IOU_AND_DICE, MEAN_IOU, POOLED_IOU, CROSS_ENTROPY, SOFT_DICE, BEST_THRESHOLD, DICE_LOSS, BUGS)
