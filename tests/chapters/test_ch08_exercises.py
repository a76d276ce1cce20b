"""Chapter 08's checks: right answers pass, and each wrong one that people give is refused with its own sentence."""

import numpy as np
from scipy.special import softmax
from sklearn.metrics import f1_score, jaccard_score
from study_answers import class_of_tests

from course_lib import metrics

# 08.1


def both_by_the_course(true, found):
    return metrics.iou(true, found), metrics.dice(true, found)


def both_by_sklearn(true, found):
    true, found = true.ravel(), found.ravel()
    return [jaccard_score(true, found, zero_division=1), f1_score(true, found, zero_division=1)]


def both_union_twice(true, found):
    inter = (true & found).sum()
    total = true.sum() + found.sum()
    return (inter / total, 2 * inter / total) if total else (1, 1)


def both_without_two(true, found):
    inter = (true & found).sum()
    total = true.sum() + found.sum()
    return (metrics.iou(true, found), inter / total) if total else (1, 1)


def both_swapped(true, found):
    return metrics.dice(true, found), metrics.iou(true, found)


def both_nan_where_empty(true, found):
    inter, union = np.logical_and(true, found).sum(), np.logical_or(true, found).sum()
    return inter / union, 2 * inter / (true.sum() + found.sum())


def both_zero_where_empty(true, found):
    return (0.0, 0.0) if not (true | found).any() else both_by_the_course(true, found)


def both_with_accuracy(true, found):
    return np.mean(true == found), metrics.dice(true, found)


# 08.2


def mean_by_the_course(true, found, num_classes):
    return metrics.mean_iou(metrics.confusion_matrix(true, found, num_classes))


def mean_by_sklearn(true, found, num_classes):
    keep = true != -1
    return jaccard_score(true[keep], found[keep], average="macro")


def mean_over(true, found, num_classes, absent):
    table = metrics.iou_per_class(metrics.confusion_matrix(true, found, num_classes))
    return np.nan_to_num(table, nan=absent).mean()


def mean_absent_as_0(true, found, num_classes):
    return mean_over(true, found, num_classes, 0)


def mean_absent_as_1(true, found, num_classes):
    return mean_over(true, found, num_classes, 1)


def mean_with_smoothing(true, found, num_classes):
    """The epsilon that people add against 0 / 0 answers an absent class with 1."""
    keep, eps = true != -1, 1e-9
    true, found = true[keep], found[keep]
    return np.mean(
        [
            (np.sum((true == k) & (found == k)) + eps) / (np.sum((true == k) | (found == k)) + eps)
            for k in range(num_classes)
        ]
    )


def mean_with_ignored_pixels(true, found, num_classes):
    return jaccard_score(
        true.ravel(), found.ravel(), labels=np.unique([*true[true >= 0], *found.ravel()]), average="macro"
    )


def mean_without_background(true, found, num_classes):
    return np.nanmean(metrics.iou_per_class(metrics.confusion_matrix(true, found, num_classes))[1:])


def mean_accuracy(true, found, num_classes):
    return (true == found)[true != -1].mean()


def mean_recall(true, found, num_classes):
    return metrics.mean_class_accuracy(metrics.confusion_matrix(true, found, num_classes))


# 08.3


def pooled_by_joining(truths, founds):
    return metrics.iou(
        np.concatenate([t.ravel() for t in truths]), np.concatenate([f.ravel() for f in founds])
    )


def pooled_by_confusion(truths, founds):
    table = sum(metrics.confusion_matrix(t, f, 2) for t, f in zip(truths, founds))
    return metrics.iou_per_class(table)[1]


def pooled_as_mean(truths, founds):
    return np.mean([metrics.iou(t, f) for t, f in zip(truths, founds)])


def pooled_as_mean_with_zeros(truths, founds):
    return np.mean([np.sum(t & f) / max(np.sum(t | f), 1) for t, f in zip(truths, founds)])


def pooled_as_nanmean(truths, founds):
    return np.nanmean([np.sum(t & f) / np.sum(t | f) for t, f in zip(truths, founds)])


def pooled_union_twice(truths, founds):
    inter = sum(np.sum(t & f) for t, f in zip(truths, founds))
    return inter / (sum(np.sum(t) for t in truths) + sum(np.sum(f) for f in founds))


def pooled_dice(truths, founds):
    return 2 * pooled_union_twice(truths, founds)


# 08.4


def ce_by_hand(labels, logits):
    moved = logits - logits.max(axis=-1, keepdims=True)
    log_p = moved - np.log(np.exp(moved).sum(axis=-1, keepdims=True))
    one_hot = np.eye(logits.shape[-1])[labels] * (labels != -1)[..., None]
    return -(one_hot * log_p).sum() / (labels != -1).sum()


def ce_by_the_course(labels, logits):
    from course_lib.losses import CrossEntropy

    return CrossEntropy()(labels, logits.astype("float32"))


def ce_softmax_twice(labels, logits):
    return ce_by_hand(labels, softmax(logits, axis=-1))


def ce_naive(labels, logits):
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    keep = labels >= 0
    return -np.log(np.take_along_axis(p, np.maximum(labels, 0)[..., None], -1))[..., 0][keep].mean()


def ce_over_all_pixels(labels, logits):
    return ce_by_hand(labels, logits) * (labels != -1).mean()


def ce_with_the_last_class(labels, logits):
    moved = logits - logits.max(axis=-1, keepdims=True)
    log_p = moved - np.log(np.exp(moved).sum(axis=-1, keepdims=True))
    return -(np.eye(logits.shape[-1])[labels] * log_p).sum(-1).mean()


def ce_without_minus(labels, logits):
    return -ce_by_hand(labels, logits)


def ce_summed(labels, logits):
    return ce_by_hand(labels, logits) * (labels != -1).sum()


def ce_in_bits(labels, logits):
    return ce_by_hand(labels, logits) / np.log(2)


def ce_clipped(labels, logits):
    p = np.clip(softmax(logits, axis=-1), 1e-7, 1 - 1e-7)
    keep = labels >= 0
    return -np.log(np.take_along_axis(p, np.maximum(labels, 0)[..., None], -1))[..., 0][keep].mean()


# 08.5


def soft_dice_by_hand(mask, probabilities, smooth):
    mask = mask.astype(float).ravel()
    p = probabilities.ravel()
    return 1.0 - (2 * mask @ p + smooth) / (mask.sum() + p.sum() + smooth)


def soft_dice_by_the_course(mask, probabilities, smooth):
    from course_lib.losses import Dice

    p = np.clip(probabilities, 1e-9, 1 - 1e-9)
    logits = (np.log(p) - np.log1p(-p)).astype("float32")
    return Dice(smooth=smooth, background=False)(mask[None].astype(int), logits[None, ..., None])


def soft_dice_score(mask, probabilities, smooth):
    return 1 - soft_dice_by_hand(mask, probabilities, smooth)


def soft_dice_hard(mask, probabilities, smooth):
    return soft_dice_by_hand(mask, (probabilities >= 0.5001).astype(float), smooth)


def soft_dice_without_two(mask, probabilities, smooth):
    return 1 - ((mask * probabilities).sum() + smooth) / (mask.sum() + probabilities.sum() + smooth)


def soft_dice_smooth_below(mask, probabilities, smooth):
    return 1 - 2 * (mask * probabilities).sum() / (mask.sum() + probabilities.sum() + smooth)


def soft_dice_without_smooth(mask, probabilities, smooth):
    return 1 - 2 * (mask * probabilities).sum() / (mask.sum() + probabilities.sum())


def soft_dice_squared(mask, probabilities, smooth):
    return 1 - (2 * (mask * probabilities).sum() + smooth) / (mask.sum() + (probabilities**2).sum() + smooth)


def soft_jaccard(mask, probabilities, smooth):
    both = (mask * probabilities).sum()
    return 1 - (both + smooth) / (mask.sum() + probabilities.sum() - both + smooth)


# 08.6


def threshold_by_loop(probabilities, truths, thresholds):
    best, best_score = None, -1
    for t in thresholds:
        score = pooled_by_joining(truths, [p > t for p in probabilities])
        if score > best_score:
            best, best_score = t, score
    return best


def threshold_by_max(probabilities, truths, thresholds):
    p, y = (np.concatenate([one.ravel() for one in many]) for many in (probabilities, truths))
    return max(thresholds, key=lambda t: metrics.iou(y, p > t))


def threshold_by_accuracy(probabilities, truths, thresholds):
    p, y = (np.concatenate([one.ravel() for one in many]) for many in (probabilities, truths))
    return max(thresholds, key=lambda t: np.mean(y == (p > t)))


def threshold_by_mean(probabilities, truths, thresholds):
    return max(thresholds, key=lambda t: pooled_as_mean(truths, [p > t for p in probabilities]))


def threshold_last(probabilities, truths, thresholds):
    best, best_score = None, -1
    for t in thresholds:
        score = pooled_by_joining(truths, [p > t for p in probabilities])
        if score >= best_score:
            best, best_score = t, score
    return best


def threshold_score(probabilities, truths, thresholds):
    return max(pooled_by_joining(truths, [p > t for p in probabilities]) for t in thresholds)


def threshold_place(probabilities, truths, thresholds):
    return np.argmax([pooled_by_joining(truths, [p > t for p in probabilities]) for t in thresholds])


def threshold_half(probabilities, truths, thresholds):
    return 0.5


RIGHT = {
    "08.1": [both_by_the_course, both_by_sklearn],
    "08.2": [mean_by_the_course, mean_by_sklearn],
    "08.3": [pooled_by_joining, pooled_by_confusion],
    "08.4": [ce_by_hand, ce_by_the_course],
    "08.5": [soft_dice_by_hand, soft_dice_by_the_course],
    "08.6": [threshold_by_loop, threshold_by_max],
}
WRONG = {
    "08.1": [
        (both_union_twice, "Your union counts the overlap twice"),
        (both_without_two, "Your Dice lacks its factor 2"),
        (both_swapped, "The right numbers the wrong way round"),
        (both_nan_where_empty, "Two empty masks agree, so both scores are 1; 0 / 0 is no number"),
        (both_zero_where_empty, "Two empty masks agree, so both scores are 1, not 0"),
        (both_with_accuracy, "Your first number is the pixel accuracy"),
    ],
    "08.2": [
        (mean_absent_as_0, "counts as 0; it was not asked for"),
        (mean_absent_as_1, "counts as 1 and flatters the answer"),
        (mean_with_smoothing, "counts as 1 and flatters the answer"),
        (mean_with_ignored_pixels, "Pixels whose true label is -1 count as mistakes"),
        (mean_without_background, "You leave out the background"),
        (mean_accuracy, "That is the pixel accuracy"),
        (mean_recall, "You divide by the true pixels of each class (its recall)"),
    ],
    "08.3": [
        (pooled_as_mean, "You average over images; over all pixels together"),
        (pooled_as_mean_with_zeros, "You average over images (and an empty one counts 0)"),
        (pooled_as_nanmean, "You average over the images that hold anything"),
        (pooled_union_twice, "Your union counts the overlap twice"),
        (pooled_dice, "That is Dice of all pixels together"),
    ],
    "08.4": [
        (ce_softmax_twice, "softmax was applied twice"),
        (ce_naive, "Large logits overflow"),
        (ce_over_all_pixels, "Ignored pixels are left out of the sum, but still counted"),
        (ce_with_the_last_class, "The label -1 picks the last class"),
        (ce_without_minus, "The sign: the logarithm of a probability is negative"),
        (ce_summed, "You add up over the pixels; take the mean"),
        (ce_in_bits, "Your logarithm has another base"),
        (ce_clipped, "away from 0 before the logarithm"),
    ],
    "08.5": [
        (soft_dice_score, "That is the score; the loss is 1 minus it"),
        (soft_dice_hard, "You make a mask of the probabilities first"),
        (soft_dice_without_two, "The overlap lacks its factor 2"),
        (soft_dice_smooth_below, "smooth stands below the line only"),
        (soft_dice_without_smooth, "smooth is missing"),
        (soft_dice_squared, "You square the probabilities below the line"),
        (soft_jaccard, "That is the soft Jaccard"),
    ],
    "08.6": [
        (threshold_by_accuracy, "You choose by pixel accuracy"),
        (threshold_by_mean, "You choose by the mean of the images' IoUs"),
        (threshold_last, "Where several thresholds are equally good you take the last"),
        (threshold_score, "You return the best score"),
        (threshold_place, "You return the place of the best threshold"),
        (threshold_half, "You always answer 0.5"),
    ],
}

TestAnswers = class_of_tests("08", RIGHT, WRONG)
