"""Exercises to chapter 07: smooth L1, the matcher, the sampler, the mask loss, COCO's AP, counting."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import expit, log_expit, log_softmax

from course_lib.teaching.exercise import Case, Exercise, Form, Mistake, array, number

# 07.1


def smooth_l1(difference, beta):
    return _smooth(difference, beta)


def _smooth(
    difference,
    beta,
    near=lambda size, beta: 0.5 * size**2 / beta,
    far=lambda size, beta: size - 0.5 * beta,
    size=np.abs,
):
    size = size(np.asarray(difference, float))
    return np.where(size < beta, near(size, beta), far(size, beta))


def _smooth_with(**how):
    return lambda difference, beta: _smooth(difference, beta, **how)


SMOOTH_L1 = Exercise(
    "07.1",
    "smooth_l1",
    array("an array of the shape of the differences"),
    lambda: [
        Case("differences of 0, 1 and 3 with beta 1", (np.array([0.0, 1.0, 3.0]), 1.0)),
        Case("differences of both signs with beta 1", (np.array([-2.0, -0.5, 0.25, 4.0]), 1.0)),
        Case("differences with beta 1/9, as in the boxes' losses", (np.array([-0.3, 0.05, 0.1, 0.7]), 1 / 9)),
        Case(
            "a table of differences with beta 2",
            (np.array([[-3.0, -1.0, 0.0, 1.5], [2.0, 2.5, -2.0, 9.0]]), 2.0),
        ),
    ],
    smooth_l1,
    (
        Mistake(
            "Negative differences come out wrong: -2 is as far off as 2. Take the absolute value first.",
            _smooth_with(size=lambda d: d),
        ),
        Mistake(
            "Your parabola is 0.5 · d², right for beta 1 only: divide it by beta, so that it meets the line.",
            _smooth_with(near=lambda size, beta: 0.5 * size**2),
        ),
        Mistake(
            "The half is missing in the parabola: 0.5 · d² / beta meets the line, in height and in slope.",
            _smooth_with(near=lambda size, beta: size**2 / beta),
        ),
        Mistake(
            "Your line jumps where it begins: subtract 0.5 · beta, so that it meets the parabola.",
            _smooth_with(far=lambda size, beta: size),
        ),
        Mistake(
            "Your line subtracts 0.5, right for beta 1 only; subtract 0.5 · beta.",
            _smooth_with(far=lambda size, beta: size - 0.5),
        ),
        Mistake(
            "That is the Huber loss, beta times as large; smooth L1 has the slope 1 beyond beta.",
            lambda d, beta: beta * smooth_l1(d, beta),
        ),
        Mistake(
            "Your loss is a parabola everywhere: a box that is far off would outweigh all others. Beyond beta "
            "it is |d| - 0.5 · beta.",
            _smooth_with(far=lambda size, beta: 0.5 * size**2 / beta),
        ),
        Mistake(
            "That is plain L1, |d|; below beta it is rounded off to a parabola, and lowered beyond.",
            _smooth_with(near=lambda size, beta: size, far=lambda size, beta: size),
        ),
        Mistake(
            "You return one number; return the loss of each difference, what is summed comes later.",
            lambda d, beta: np.sum(smooth_l1(d, beta)),
        ),
        Mistake(
            "You return one number; return the loss of each difference, what is summed comes later.",
            lambda d, beta: np.mean(smooth_l1(d, beta)),
        ),
    ),
    (
        "Two pieces: a parabola where |d| < beta, a straight line of slope 1 beyond.",
        "0.5 · d² / beta has at d = beta the height 0.5 · beta and the slope 1. What line goes on from there?",
        "np.where(abs(d) < beta, 0.5 * d**2 / beta, abs(d) - 0.5 * beta).",
    ),
)

# 07.2


def match_anchors(ious, high, low):
    return _match(ious, high, low)


def _match(
    ious,
    high,
    low,
    reach=np.greater_equal,
    below=np.less,
    between=-2,
    rescue="all",
    touched=lambda best: best > 0,
    owner="own",
    background=-1,
    far=-1,
):
    """torchvision's matcher, or what slips make of it."""
    ious = np.asarray(ious, float)
    if not len(ious):
        return np.full(ious.shape[1], background)
    best, of = ious.max(axis=0), ious.argmax(axis=0)
    found = np.where(reach(best, high), of, np.where(below(best, low), far, between))
    for row, overlaps in enumerate(ious):
        top = overlaps.max(initial=0)
        if rescue and touched(top):
            ties = np.flatnonzero(overlaps == top)
            ties = ties if rescue == "all" else ties[:1]
            found[ties] = of[ties] if owner == "own" else row
    return found


def _match_with(**how):
    return lambda ious, high, low: _match(ious, high, low, **how)


def _only_best(ious, high, low):
    """Only the best anchor of each object is positive, whatever else reaches the limit."""
    ious = np.asarray(ious, float)
    found = _match(ious, 2.0, low, rescue=None)
    for overlaps in ious:
        if overlaps.max(initial=0) > 0:
            ties = overlaps == overlaps.max()
            found[ties] = ious.argmax(axis=0)[ties]
    return found


def _match_cases():
    yield Case("one object, anchors of 0.8, 0.5 and 0.1", (np.array([[0.8, 0.5, 0.1]]), 0.7, 0.3))
    yield Case(
        "two objects and five anchors",
        (np.array([[0.9, 0.75, 0.4, 0.0, 0.1], [0.2, 0.1, 0.5, 0.8, 0.05]]), 0.7, 0.3),
    )
    yield Case("an object whose best anchor reaches only 0.4", (np.array([[0.1, 0.4, 0.35]]), 0.7, 0.3))
    yield Case("an object whose best anchor reaches only 0.2", (np.array([[0.1, 0.2, 0.15]]), 0.7, 0.3))
    yield Case("IoUs of exactly the limits", (np.array([[0.9, 0.7, 0.3]]), 0.7, 0.3))
    yield Case("two anchors that are both the best of an object", (np.array([[0.5, 0.5, 0.2]]), 0.7, 0.3))
    yield Case(
        "an object whose best anchor overlaps another object more",
        (np.array([[0.85, 0.1, 0.0], [0.45, 0.2, 0.0]]), 0.7, 0.3),
        "Such an anchor answers for the object that it overlaps most.",
    )
    yield Case(
        "an object that no anchor touches",
        (np.array([[0.8, 0.1, 0.0], [0.0, 0.0, 0.0]]), 0.7, 0.3),
        "Nothing can answer for it: a best IoU of 0 is none.",
    )
    yield Case("no object at all", (np.zeros((0, 4)), 0.7, 0.3), "All anchors are background.")


MATCH = Exercise(
    "07.2",
    "match_anchors",
    array("an array with a whole number for each anchor: a row of an object, -1 or -2"),
    lambda: list(_match_cases()),
    match_anchors,
    (
        Mistake(
            "An object that no anchor overlaps enough is lost in your answer: its best anchor is always positive, "
            "however low its IoU is.",
            _match_with(rescue=None),
        ),
        Mistake(
            "Anchors between the two limits are background in your answer; they are neither, -2, "
            "and not learned from.",
            _match_with(between=-1),
        ),
        Mistake(
            "Anchors below the low limit are to be learned from, as background: they are -1, not -2.",
            _match_with(far=-2),
        ),
        Mistake(
            "-1 and -2 are exchanged: -1 is background, -2 is neither.",
            _match_with(between=-1, far=-2, background=-2),
        ),
        Mistake(
            "An anchor whose IoU is exactly the high limit answers for its object: >=, not >.",
            _match_with(reach=np.greater),
        ),
        Mistake(
            "An anchor whose IoU is exactly the low limit is no background: only what is below it is.",
            _match_with(below=np.less_equal),
        ),
        Mistake(
            "Where several anchors are the best of an object, all of them answer for it; argmax names one only.",
            _match_with(rescue="first"),
        ),
        Mistake(
            "An object that no anchor touches has 0 as its best IoU, and every anchor that misses it reaches that. "
            "Ask for more than 0.",
            _match_with(touched=lambda best: True),
        ),
        Mistake(
            "An anchor answers for the object that it overlaps most, even if it is the best one of another object.",
            _match_with(owner="object"),
        ),
        Mistake(
            "Only the best anchor of each object is positive in your answer; every one that reaches the high limit is.",
            _only_best,
        ),
        Mistake(
            "Without an object all anchors are background, -1; the maximum of nothing is an error.",
            lambda ious, high, low: _match(ious, high, low) if len(ious) else np.zeros((0, 4)).max(axis=0),
        ),
    ),
    (
        "For each anchor: its best IoU, ious.max(axis=0), and the object it belongs to, argmax(axis=0).",
        "At least high: that object. Below low: -1. Else: -2. Then come the best anchors of the objects.",
        "For each object with a best IoU above 0: all anchors with ious[row] == ious[row].max() answer for "
        "the object that they overlap most. Look after a picture without objects first.",
    ),
)

# 07.3


def sample_anchors(matches, count, fraction, rng):
    return _sample(matches, count, fraction, rng)


def _sample(
    matches,
    count,
    fraction,
    rng,
    positives=lambda found, count, most: min(found, most),
    negatives=lambda found, count, chosen, most: min(found, count - chosen),
    background=lambda matches: matches == -1,
):
    matches = np.asarray(matches)
    positive, negative = np.flatnonzero(matches >= 0), np.flatnonzero(background(matches))
    most = int(count * fraction)
    chosen = positives(len(positive), count, most)
    others = negatives(len(negative), count, chosen, most)
    drawn = np.full(len(matches), -1)
    drawn[rng.permutation(negative)[:others]] = 0
    drawn[rng.permutation(positive)[:chosen]] = 1
    return drawn


def _sample_with(**how):
    return lambda matches, count, fraction, rng: _sample(matches, count, fraction, rng, **how)


def _as_many(a, b):
    """Of two draws: whether they have as many positives and as many negatives. Which ones is chance."""
    return all(np.count_nonzero(a == kind) == np.count_nonzero(b == kind) for kind in (-1, 0, 1))


def _draws_apart(given, wanted):
    yours, right = (
        f"{np.count_nonzero(one == 1)} positive and {np.count_nonzero(one == 0)} negative anchors"
        for one in (given, wanted)
    )
    return f"{right} are to be drawn; you draw {yours}"


def _sample_cases():
    def matches(positive, negative, ignored):
        rows = np.repeat([3, -1, -2], [positive, negative, ignored])
        return np.random.default_rng(positive).permutation(rows)

    for positive, negative, ignored, count, fraction in (
        (80, 300, 20, 64, 0.5),
        (5, 300, 20, 64, 0.5),
        (90, 200, 10, 64, 0.25),
        (0, 100, 5, 32, 0.5),
        (40, 6, 30, 32, 0.5),
        (3, 4, 9, 32, 0.25),
        (30, 60, 2, 10, 0.25),
    ):
        words = f"{positive} positive, {negative} negative and {ignored} ignored anchors, {count} to draw"
        yield Case(
            f"{words}, a share of {fraction}",
            (matches(positive, negative, ignored), count, fraction, np.random.default_rng(0)),
        )


def _drawn_fairly(function):
    matches = np.random.default_rng(1).permutation(np.repeat([0, 1, -1, -2], [30, 30, 200, 40]))

    def draw(seed):
        return np.asarray(function(matches.copy(), 40, 0.5, np.random.default_rng(seed)))

    first, second = draw(5), draw(6)
    if (matches[first == 1] < 0).any() or (matches[first == 0] != -1).any():
        return (
            "As many as there should be, but not the right ones: 1 belongs to anchors with an object, "
            "0 to background (-1)."
        )
    if np.array_equal(first, second):
        return (
            "Two different generators draw the very same anchors: draw at random, from the rng that is given."
        )
    if not np.array_equal(first, draw(5)):
        return "The same generator draws other anchors the next time: draw from the rng that is given."
    return None


SAMPLE = Exercise(
    "07.3",
    "sample_anchors",
    Form("an array with 1, 0 or -1 for each anchor", _as_many, contrast=_draws_apart),
    lambda: list(_sample_cases()),
    sample_anchors,
    (
        Mistake(
            "Places that positives leave free stay empty in your draw; negatives take them.",
            _sample_with(negatives=lambda found, count, chosen, most: min(found, count - most)),
        ),
        Mistake(
            "You draw as many negatives as positives; the share is the most for positives, "
            "and negatives fill up the rest.",
            _sample_with(negatives=lambda found, count, chosen, most: min(found, chosen)),
        ),
        Mistake(
            "You draw every positive; at most count · fraction of them may be.",
            _sample_with(positives=lambda found, count, most: min(found, count)),
        ),
        Mistake(
            "You fill up with positives where negatives are missing; the share stays the most for positives.",
            lambda matches, count, fraction, rng: _sample(
                matches,
                count,
                fraction,
                rng,
                positives=lambda found, count, most: min(
                    found, max(most, count - np.count_nonzero(matches == -1))
                ),
            ),
        ),
        Mistake(
            "You draw ignored anchors (-2) as negatives; they are neither.",
            _sample_with(background=lambda matches: matches < 0),
        ),
        Mistake(
            "You draw count negatives beside the positives; both together are to be count.",
            _sample_with(negatives=lambda found, count, chosen, most: min(found, count)),
        ),
        Mistake(
            "You round the number of positives up; count · fraction is rounded down, int(...).",
            lambda matches, count, fraction, rng: _sample(
                matches,
                count,
                fraction,
                rng,
                positives=lambda found, count, most: min(found, math.ceil(count * fraction)),
            ),
        ),
        Mistake(
            "You draw without regard to the kind: nearly all are then background. "
            "Draw positives and negatives apart.",
            lambda matches, count, fraction, rng: _drawn_together(matches, count, rng),
        ),
    ),
    (
        "Rows of positives: np.flatnonzero(matches >= 0); of negatives: matches == -1. What is -2?",
        "Positives: as many as there are, but no more than int(count * fraction). Negatives: what is left of count.",
        "rng.permutation(rows)[:number] draws; write 1 and 0 there into np.full(len(matches), -1).",
    ),
    _drawn_fairly,
)


def _drawn_together(matches, count, rng):
    drawn = np.full(len(matches), -1)
    rows = rng.permutation(np.flatnonzero(matches != -2))[:count]
    drawn[rows] = matches[rows] >= 0
    return drawn


# 07.4


def mask_loss(logits, classes, targets):
    return _mask_loss(logits, classes, targets)


def _entropy(logits, targets):
    """The binary cross-entropy of each pixel, from logits, without overflow."""
    return -(targets * log_expit(logits) + (1 - targets) * log_expit(-logits))


def _own_channel(logits, classes):
    return np.take_along_axis(logits, np.asarray(classes)[:, None, None, None], axis=-1)[..., 0]


def _mask_loss(
    logits,
    classes,
    targets,
    pick=_own_channel,
    each=_entropy,
    keep=lambda classes: classes > 0,
    count=lambda kept, classes: kept,
    total=np.mean,
    empty=0.0,
):
    keep = keep(np.asarray(classes))
    if not keep.any():
        return empty
    paid = each(pick(logits, classes)[keep], np.asarray(targets, float)[keep])
    return total(paid) * keep.sum() / count(keep.sum(), classes)


def _mask_loss_with(**how):
    return lambda logits, classes, targets: _mask_loss(logits, classes, targets, **how)


def _all_channels(logits, classes, targets):
    keep = classes > 0
    if not keep.any():
        return 0.0
    own = np.eye(logits.shape[-1])[classes[keep]][:, None, None] * targets[keep][..., None]
    return np.mean(_entropy(logits[keep], own))


def _same_truth_for_all(logits, classes, targets):
    keep = classes > 0
    return np.mean(_entropy(logits[keep], targets[keep][..., None])) if keep.any() else 0.0


def _softmax_of_classes(logits, classes, targets):
    keep = classes > 0
    if not keep.any():
        return 0.0
    log_p = _own_channel(log_softmax(logits, axis=-1), classes)[keep]
    other = np.log(np.maximum(-np.expm1(log_p), 1e-300))
    return np.mean(-(targets[keep] * log_p + (1 - targets[keep]) * other))


def _naive_entropy(logits, targets):
    p = 1 / (1 + np.exp(-logits))
    return -(targets * np.log(p) + (1 - targets) * np.log(1 - p))


def _clipped_entropy(logits, targets, epsilon=1e-7):
    p = np.clip(expit(logits), epsilon, 1 - epsilon)
    return -(targets * np.log(p) + (1 - targets) * np.log(1 - p))


def _mask_cases():
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 2, (5, 4, 4, 3))
    targets = (rng.random((5, 4, 4)) > 0.5).astype(float)
    yield Case("one object, all logits 0", (np.zeros((1, 4, 4, 3)), np.array([2]), targets[:1]))
    yield Case("three objects of two classes", (logits[:3], np.array([1, 2, 1]), targets[:3]))
    yield Case("two objects and three regions of background", (logits, np.array([2, 0, 1, 0, 0]), targets))
    soft = rng.random((2, 4, 4)).round(2)
    yield Case("targets between 0 and 1", (logits[3:], np.array([1, 2]), soft))
    yield Case(
        "background only", (logits[:2], np.array([0, 0]), targets[:2]), "There is no object: the loss is 0."
    )
    large = 1000.0 * (2 * targets[:2, ..., None] - 1) * np.ones(3)
    large[0, 0, 0] *= -1
    yield Case(
        "logits of -1000 and 1000",
        (large, np.array([1, 2]), targets[:2]),
        "exp(1000) is infinite. np.logaddexp(0, z) is log(1 + exp(z)) without overflow.",
    )


MASK_LOSS = Exercise(
    "07.4",
    "mask_loss",
    number("a number, the mean over the pixels of all objects", 1e-5),
    lambda: list(_mask_cases()),
    mask_loss,
    (
        Mistake(
            "Masks of all classes are taught in your loss, those of other classes to be empty: then classes compete. "
            "Only the true class's mask counts.",
            _all_channels,
        ),
        Mistake(
            "All classes are taught the same mask in your loss; only the true class's mask counts.",
            _same_truth_for_all,
        ),
        Mistake(
            "Regions of background count in your loss; they have no mask to learn. Keep only those with a class above 0.",
            _mask_loss_with(keep=lambda classes: classes >= 0),
        ),
        Mistake(
            "You divide by all regions; the mean is over the objects' pixels alone, or a picture with much background "
            "teaches less.",
            _mask_loss_with(count=lambda kept, classes: len(classes)),
        ),
        Mistake(
            "You let the classes compete by a softmax; each class's mask has a sigmoid of its own.",
            _softmax_of_classes,
        ),
        Mistake(
            "You take the mask of the class with the largest logits; while training, the true class is known.",
            _mask_loss_with(
                pick=lambda logits, classes: _own_channel(logits, logits.mean(axis=(1, 2)).argmax(axis=-1))
            ),
        ),
        Mistake(
            "You are one channel off: the channels are the classes with background first, so class k has channel k.",
            _mask_loss_with(pick=lambda logits, classes: _own_channel(logits, classes - 1)),
        ),
        Mistake(
            "Without an object your loss is no number: the mean of nothing. It is 0.",
            _mask_loss_with(empty=np.nan),
        ),
        Mistake(
            "Large logits overflow: log(1 - p) is infinite where p is rounded to 1. Compute it from the logits, "
            "by np.logaddexp.",
            _mask_loss_with(each=_naive_entropy),
        ),
        Mistake(
            "You cut the probabilities away from 0 and 1; a sure and wrong pixel then costs too little. "
            "Compute the logarithms from the logits, by np.logaddexp.",
            _mask_loss_with(each=_clipped_entropy),
        ),
        Mistake(
            "A sigmoid was applied twice: the logits went through it, and what came out went through it again.",
            _mask_loss_with(each=lambda z, y: _entropy(expit(z), y)),
        ),
        Mistake(
            "You add up over the pixels; take the mean, so that a larger grid does not weigh more.",
            _mask_loss_with(total=np.sum),
        ),
    ),
    (
        "First leave out the regions whose class is 0. What is the loss if none is left?",
        "Take the channel of the true class of each: logits[k, :, :, classes[k]].",
        "The cross-entropy of a logit z with a target y is np.logaddexp(0, z) - y · z. Take the mean.",
    ),
)

# 07.5


def coco_ap(ious, scores, threshold):
    return _ap(ious, scores, threshold)


def _ap(
    ious,
    scores,
    threshold,
    reaches=np.greater_equal,
    once=True,
    second_choice=True,
    order=lambda scores: np.argsort(-scores, kind="stable"),
    area=None,
    objects=None,
):
    ious, scores = np.asarray(ious, float), np.asarray(scores, float)
    taken, right = set(), []
    for row in order(scores):
        free = [k for k in range(ious.shape[1]) if k not in taken or not once or not second_choice]
        best = max(free, key=lambda k: ious[row, k], default=None)
        found = best is not None and bool(reaches(ious[row, best], threshold))
        right.append(found and not (once and best in taken))
        if found:
            taken.add(best)
    hits = np.cumsum(right)
    number = ious.shape[1] if objects is None else max(objects(ious, hits), 1)
    recall, precision = hits / number, hits / np.arange(1, len(hits) + 1)
    return (area or _at_101)(recall, precision)


def _at_101(recall, precision):
    return np.mean([precision[recall >= r].max(initial=0) for r in np.linspace(0, 1, 101)])


def _at_101_without_envelope(recall, precision):
    """The precision where each recall is first reached, instead of the best from there on."""
    return np.mean([precision[recall >= r][0] if (recall >= r).any() else 0 for r in np.linspace(0, 1, 101)])


def _at_11(recall, precision):
    return np.mean([precision[recall >= r].max(initial=0) for r in np.linspace(0, 1, 11)])


def _reached_only(recall, precision):
    read = [precision[recall >= r].max() for r in np.linspace(0, 1, 101) if (recall >= r).any()]
    return np.mean(read) if read else 0.0


def _exact_area(recall, precision):
    best = [precision[k:].max() for k in range(len(precision))]
    return np.sum(np.diff(recall, prepend=0) * best)


def _last_point(recall, precision):
    return precision[-1] if len(precision) else 0.0


def _ap_with(**how):
    return lambda ious, scores, threshold: _ap(ious, scores, threshold, **how)


def _ap_cases():
    yield Case("two objects, both found", (np.array([[0.9, 0.0], [0.0, 0.8]]), np.array([0.9, 0.8]), 0.5))
    yield Case(
        "two objects, a wrong detection between the right ones",
        (np.array([[0.9, 0.0], [0.1, 0.0], [0.0, 0.7]]), np.array([0.9, 0.8, 0.7]), 0.5),
    )
    yield Case(
        "three objects of which one is missed",
        (np.array([[0.9, 0.0, 0.1], [0.0, 0.7, 0.2]]), np.array([0.6, 0.9]), 0.5),
    )
    yield Case(
        "three objects, one missed, and a wrong detection between the right ones",
        (np.array([[0.9, 0.0, 0.1], [0.0, 0.3, 0.2], [0.0, 0.7, 0.0]]), np.array([0.9, 0.7, 0.6]), 0.5),
    )
    yield Case(
        "an object that is found twice",
        (np.array([[0.9, 0.0], [0.8, 0.0], [0.0, 0.9]]), np.array([0.9, 0.85, 0.5]), 0.5),
    )
    yield Case(
        "detections in no order of score",
        (
            np.array([[0.2, 0.0, 0.1], [0.0, 0.6, 0.0], [0.0, 0.0, 0.9], [0.7, 0.1, 0.0], [0.0, 0.3, 0.2]]),
            np.array([0.5, 0.4, 0.9, 0.3, 0.8]),
            0.5,
        ),
    )
    yield Case(
        "a detection whose best object is taken, but that reaches another one",
        (np.array([[0.9, 0.2], [0.7, 0.6], [0.1, 0.0]]), np.array([0.9, 0.8, 0.7]), 0.5),
        "It may take the free object: the best of those that are free and reach the threshold.",
    )
    yield Case(
        "an IoU of exactly the threshold",
        (np.array([[0.75, 0.0], [0.0, 0.9]]), np.array([0.9, 0.8]), 0.75),
    )
    yield Case(
        "no detection at all", (np.zeros((0, 2)), np.zeros(0), 0.5), "Objects and no detection: the AP is 0."
    )


COCO_AP = Exercise(
    "07.5",
    "coco_ap",
    number("a number, the AP"),
    lambda: list(_ap_cases()),
    coco_ap,
    (
        Mistake(
            "Two detections of one object both count as right; an object is found once, by the best scored, "
            "and the second is a false alarm.",
            _ap_with(once=False, objects=lambda ious, hits: ious.shape[1]),
        ),
        Mistake(
            "You go through the detections in the order of the list; the highest score comes first.",
            _ap_with(order=lambda scores: range(len(scores))),
        ),
        Mistake(
            "You begin with the lowest score: np.argsort sorts upwards. Sort by -scores.",
            _ap_with(order=lambda scores: np.argsort(scores, kind="stable")),
        ),
        Mistake(
            "You read the precision where a recall is first reached; the best one at that recall or a higher "
            "one is wanted, so that the curve never rises.",
            _ap_with(area=_at_101_without_envelope),
        ),
        Mistake(
            "You read the curve at 11 recalls, as PASCAL VOC did until 2009; COCO reads it at 101.",
            _ap_with(area=_at_11),
        ),
        Mistake(
            "That is the exact area under the curve; COCO reads it at the 101 recalls 0, 0.01, …, 1 and takes the mean.",
            _ap_with(area=_exact_area),
        ),
        Mistake(
            "You leave out the recalls that are never reached; there the precision is 0, or missed objects "
            "cost nothing.",
            _ap_with(area=_reached_only),
        ),
        Mistake(
            "You divide by the objects that were found; recall is a share of all true objects, or missed ones "
            "cost nothing.",
            _ap_with(objects=lambda ious, hits: int(hits[-1]) if len(hits) else 1),
        ),
        Mistake(
            "You divide by the number of detections; recall is a share of the true objects, the second axis of ious.",
            _ap_with(objects=lambda ious, hits: len(ious)),
        ),
        Mistake(
            "An IoU of exactly the threshold is enough here: COCO asks for >=.",
            _ap_with(reaches=np.greater),
        ),
        Mistake(
            "A detection whose best object is taken may take another one that is free and reaches the threshold.",
            _ap_with(second_choice=False),
        ),
        Mistake(
            "That is the precision of all detections together; AP goes down the list and reads a whole curve.",
            _ap_with(area=_last_point),
        ),
        Mistake(
            "Without a detection your function stops or gives no number; objects that nobody looked for are an AP of 0.",
            lambda ious, scores, threshold: coco_ap(ious, scores, threshold) if len(scores) else np.nan,
        ),
    ),
    (
        "Go through the detections from the best score on. Each takes the free object that it overlaps most, if the "
        "IoU reaches the threshold: right. Else it is wrong.",
        "After each detection: recall is right so far / objects, precision right so far / detections so far.",
        "np.mean([precision[recall >= r].max(initial=0) for r in np.linspace(0, 1, 101)]).",
    ),
)

# 07.6, the open one


def counting_error(true_counts, scores, threshold):
    return _counting(true_counts, scores, threshold)


def _counting(
    true_counts,
    scores,
    threshold,
    above=np.greater,
    error=lambda true, found: np.abs(found - true).sum(),
    share=lambda true, found: true.sum(),
):
    true = np.asarray(true_counts, float)
    found = np.array([np.count_nonzero(above(np.asarray(one), threshold)) for one in scores], float)
    return error(true, found) / share(true, found)


def _counting_with(**how):
    return lambda true_counts, scores, threshold: _counting(true_counts, scores, threshold, **how)


def _counting_cases():
    yield Case("one picture, counted right", ([2], [[0.9, 0.8, 0.1]], 0.5))
    yield Case(
        "a picture with one too many and one with one too few", ([2, 3], [[0.9, 0.8, 0.7], [0.9, 0.6]], 0.5)
    )
    yield Case(
        "a picture of 2 objects and one of 20, of which 16 are found",
        ([2, 20], [[0.9, 0.8, 0.7, 0.6], [0.7] * 16], 0.5),
    )
    yield Case("a score of exactly the threshold, which is not above it", ([3], [[0.9, 0.5, 0.5]], 0.5))
    yield Case("a picture without objects and one with 4", ([0, 4], [[0.6, 0.2], [0.9, 0.8, 0.3]], 0.4))
    yield Case("a picture without a detection", ([3, 1], [[], [0.9, 0.7]], 0.3))


COUNTING = Exercise(
    "07.6",
    "counting_error",
    number("a number, the counting error"),
    lambda: list(_counting_cases()),
    counting_error,
    (
        Mistake(
            "Too many in one picture and too few in another cancel out in your answer; take the absolute error of "
            "each picture first.",
            _counting_with(error=lambda t, f: abs(f.sum() - t.sum())),
        ),
        Mistake(
            "Your error has a sign: too many and too few cancel out. Take the absolute error of each picture.",
            _counting_with(error=lambda t, f: (f - t).sum()),
        ),
        Mistake(
            "You take the mean of the pictures' shares, so one object in a picture of two weighs as much as ten in "
            "one of twenty; add up the errors, then divide by all true objects.",
            _counting_with(
                error=lambda t, f: np.mean(np.abs(f - t) / np.maximum(t, 1)), share=lambda t, f: 1.0
            ),
        ),
        Mistake(
            "You give the errors of a picture; divide by the true objects, so that sets can be compared.",
            _counting_with(share=lambda t, f: len(t)),
        ),
        Mistake(
            "You add the errors up; divide by the true objects, so that sets can be compared.",
            _counting_with(share=lambda t, f: 1.0),
        ),
        Mistake(
            "You divide by the objects that were found; divide by those that there are.",
            _counting_with(share=lambda t, f: f.sum()),
        ),
        Mistake(
            "You square the errors; here each object that is too many or too few counts alike.",
            _counting_with(error=lambda t, f: ((f - t) ** 2).sum()),
        ),
        Mistake(
            "A detection whose score is exactly the threshold does not count: only those above it.",
            _counting_with(above=np.greater_equal),
        ),
        Mistake(
            "You count every detection; only those with a score above the threshold count.",
            _counting_with(above=lambda scores, threshold: scores > -1),
        ),
        Mistake(
            "You count the pictures that are counted wrong; how far off a count is matters, too.",
            _counting_with(error=lambda t, f: np.count_nonzero(f != t), share=lambda t, f: len(t)),
        ),
    ),
    (
        "How many scores of each picture lie above the threshold? np.count_nonzero(np.asarray(one) > threshold).",
        "Add up the absolute differences to the true counts, and divide by the sum of the true counts.",
    ),
)

EXERCISES = (SMOOTH_L1, MATCH, SAMPLE, MASK_LOSS, COCO_AP, COUNTING)
