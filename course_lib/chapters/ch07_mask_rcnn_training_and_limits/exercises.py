"""Exercises of chapter 07: smooth L1, the matcher, the sampler, the mask loss, COCO's AP, counting, a loss in Keras."""

import math
from functools import partial

import numpy as np
from scipy.special import expit, log_expit, log_softmax

from course_lib.teaching.exercise import Case, Exercise, Form, array, number, varied

# 07.1


def smooth_l1(
    difference,
    beta,
    near=lambda size, beta: 0.5 * size**2 / beta,
    far=lambda size, beta: size - 0.5 * beta,
    size=np.abs,
):
    size = size(difference)
    return np.where(size < beta, near(size, beta), far(size, beta))


SMOOTH_L1 = Exercise(
    number="07.1",
    name="smooth_l1",
    form=array("an array of the shape of the differences"),
    answer=smooth_l1,
    cases=[
        Case("differences of 0, 1 and 3 with beta 1", [0.0, 1.0, 3.0], 1.0),
        Case("differences of both signs with beta 1", [-2.0, -0.5, 0.25, 4.0], 1.0),
        Case("differences with beta 1/9, as in the box losses", [-0.3, 0.05, 0.1, 0.7], 1 / 9),
        Case("a table of differences with beta 2", [[-3.0, -1.0, 0.0, 1.5], [2.0, 2.5, -2.0, 9.0]], 2.0),
    ],
    mistakes={
        "Negative differences give an incorrect loss: -2 is as large an error as 2. Take the absolute "
        "value first.": partial(smooth_l1, size=lambda d: d),
        "Your parabola is 0.5 · d², which is correct for beta = 1 only: divide it by beta, so that it "
        "meets the line.": partial(smooth_l1, near=lambda size, beta: 0.5 * size**2),
        "The factor 0.5 is missing in the parabola: 0.5 · d² / beta meets the line, in height and in "
        "slope.": partial(smooth_l1, near=lambda size, beta: size**2 / beta),
        "Your loss jumps where the line begins: subtract 0.5 · beta, so that it meets the parabola.": partial(
            smooth_l1, far=lambda size, beta: size
        ),
        "Your line subtracts 0.5, which is correct for beta = 1 only; subtract 0.5 · beta.": partial(
            smooth_l1, far=lambda size, beta: size - 0.5
        ),
        "That is the Huber loss, beta times as large; smooth L1 has the slope 1 beyond beta.": (
            lambda d, beta: beta * smooth_l1(d, beta)
        ),
        "Your loss is a parabola everywhere: a box that is far off would outweigh all others. Beyond beta it is "
        "|d| - 0.5 · beta.": partial(smooth_l1, far=lambda size, beta: 0.5 * size**2 / beta),
        "That is plain L1, |d|; smooth L1 is a parabola below beta, and |d| - 0.5 · beta beyond.": lambda d, beta: (
            np.abs(d)
        ),
        "You return one number; return the loss of each difference. It is summed later.": (
            lambda d, beta: np.sum(smooth_l1(d, beta)),
            lambda d, beta: np.mean(smooth_l1(d, beta)),
        ),
    },
    hints=[
        "The loss has two pieces: a parabola where |d| < beta, a straight line of slope 1 beyond.",
        "At d = beta, 0.5 · d² / beta has the height 0.5 · beta and the slope 1. What line continues from there?",
        "np.where(abs(d) < beta, 0.5 * d**2 / beta, abs(d) - 0.5 * beta).",
    ],
)

# 07.2


def match_anchors(
    ious,
    high,
    low,
    reach=np.greater_equal,
    below=np.less,
    between=-2,
    far=-1,
    rescue="all",
    touched=lambda best: best > 0,
    owner=lambda best_object, row: best_object,
):
    """torchvision's matcher, or what a slip makes of it."""
    if not len(ious):
        return np.full(ious.shape[1], far)
    best, best_object = ious.max(axis=0), ious.argmax(axis=0)
    matches = np.where(reach(best, high), best_object, np.where(below(best, low), far, between))
    for row, overlaps in enumerate(ious):
        if rescue and touched(overlaps.max()):
            rescued = np.flatnonzero(overlaps == overlaps.max())[: None if rescue == "all" else 1]
            matches[rescued] = owner(best_object[rescued], row)
    return matches


_match = varied(match_anchors)

MATCH = Exercise(
    number="07.2",
    name="match_anchors",
    form=array("an array with an integer for each anchor: the row of an object, -1 or -2"),
    answer=match_anchors,
    cases=[
        Case("one object, anchors of 0.8, 0.5 and 0.1", [[0.8, 0.5, 0.1]], 0.7, 0.3),
        Case(
            "two objects and five anchors", [[0.9, 0.75, 0.4, 0.0, 0.1], [0.2, 0.1, 0.5, 0.8, 0.05]], 0.7, 0.3
        ),
        Case("an object whose best anchor reaches only 0.4", [[0.1, 0.4, 0.35]], 0.7, 0.3),
        Case("an object whose best anchor reaches only 0.2", [[0.1, 0.2, 0.15]], 0.7, 0.3),
        Case("IoUs that equal the thresholds", [[0.9, 0.7, 0.3]], 0.7, 0.3),
        Case("two anchors that are both the best match of an object", [[0.5, 0.5, 0.2]], 0.7, 0.3),
        Case(
            "an object whose best anchor overlaps another object more",
            [[0.85, 0.1, 0.0], [0.45, 0.2, 0.0]],
            0.7,
            0.3,
            note="Such an anchor is assigned to the object that it overlaps most.",
        ),
        Case(
            "an object that no anchor touches",
            [[0.8, 0.1, 0.0], [0.0, 0.0, 0.0]],
            0.7,
            0.3,
            note="No anchor can be assigned to it: an IoU of 0 is not a match.",
        ),
        Case("no object at all", np.zeros((0, 4)), 0.7, 0.3, note="All anchors are background."),
    ],
    mistakes={
        "You lose an object that no anchor overlaps enough; its best anchor is always positive, however "
        "low its IoU is.": (_match(rescue="")),
        "You make anchors between the two thresholds background; they are neither, -2, and nothing is learned from them.": (
            _match(between=-1)
        ),
        "Anchors below the low threshold teach the network what background is: they are -1, not -2.": (
            lambda ious, high, low: (
                match_anchors(ious, high, low, far=-2) if len(ious) else np.full(ious.shape[1], -1)
            )
        ),
        "-1 and -2 are exchanged: -1 is background, -2 is neither background nor object.": _match(
            between=-1, far=-2
        ),
        "An anchor whose IoU equals the high threshold is positive: >=, not >.": _match(reach=np.greater),
        "An anchor whose IoU equals the low threshold is not background: only anchors below the threshold "
        "are.": _match(below=np.less_equal),
        "If several anchors share the best IoU of an object, all of them are positive; argmax returns "
        "only one.": _match(rescue="first"),
        "An object that no anchor touches has a best IoU of 0, which every anchor reaches that misses it. "
        "Require more than 0.": _match(touched=lambda best: True),
        "An anchor is assigned to the object that it overlaps most, even if it is the best one of another object.": _match(
            owner=lambda best_object, row: row
        ),
        "Only the best anchor of each object is positive in your result; every one that reaches the high threshold is.": (
            lambda ious, high, low: match_anchors(ious, 2.0, low, between=-2)
        ),
        "Without an object all anchors are background, -1; the maximum of an empty array is an error.": (
            lambda ious, high, low: match_anchors(ious, high, low) if len(ious) else ious.max(axis=0)
        ),
    },
    hints=[
        "For each anchor: its best IoU, ious.max(axis=0), and the object it belongs to, argmax(axis=0).",
        "At least high: that object. Below low: -1. Otherwise: -2. Then come the best anchors of the objects.",
        "For each object with a best IoU above 0: all anchors with ious[row] == ious[row].max() are assigned to the object "
        "that they overlap most. Handle an image without objects first.",
    ],
)

# 07.3


def sample_anchors(
    matches,
    count,
    fraction,
    rng,
    whole=int,
    positives=lambda found, count, most, negative: min(found, most),
    negatives=lambda count, chosen, most: count - chosen,
    background=lambda matches: matches == -1,
):
    positive, negative = np.flatnonzero(matches >= 0), np.flatnonzero(background(matches))
    most = whole(count * fraction)
    chosen = positives(len(positive), count, most, len(negative))
    drawn = np.full(len(matches), -1)
    drawn[rng.permutation(negative)[: negatives(count, chosen, most)]] = 0
    drawn[rng.permutation(positive)[:chosen]] = 1
    return drawn


def _drawn_together(matches, count, fraction, rng):
    drawn = np.full(len(matches), -1)
    rows = rng.permutation(np.flatnonzero(matches != -2))[:count]
    drawn[rows] = matches[rows] >= 0
    return drawn


def _kinds(drawn):
    return [np.count_nonzero(drawn == kind) for kind in (1, 0, -1)]


def _sample_case(positive, negative, ignored, count, fraction):
    words = f"{positive} positive, {negative} negative, {ignored} ignored anchors; {count} to draw, {fraction} positive"
    matches = np.random.default_rng(positive).permutation(
        np.repeat([3, -1, -2], [positive, negative, ignored])
    )
    return Case(words, matches, count, fraction, np.random.default_rng(0))


def _drawn_fairly(function):
    matches = np.random.default_rng(1).permutation(np.repeat([0, 1, -1, -2], [30, 30, 200, 40]))
    first, again, other = (
        np.asarray(function(matches.copy(), 40, 0.5, np.random.default_rng(seed))) for seed in (5, 5, 6)
    )
    if (matches[first == 1] < 0).any() or (matches[first == 0] != -1).any():
        return (
            "The number of anchors is correct, but they are the wrong ones: 1 belongs to anchors with "
            "an object, 0 to background."
        )
    if np.array_equal(first, other):
        return (
            "Two different generators give the same anchors: draw at random, from the rng that is passed in."
        )
    if not np.array_equal(first, again):
        return (
            "The same generator gives different anchors the next time: draw from the rng that is passed in."
        )
    return None


SAMPLE = Exercise(
    number="07.3",
    name="sample_anchors",
    form=Form(
        "an array with 1, 0 or -1 for each anchor",
        lambda a, b: _kinds(a) == _kinds(b),  # which ones is chance
        contrast=lambda given, right: "expected {} positive and {} negative anchors, got {} and {}".format(
            *_kinds(right)[:2], *_kinds(given)[:2]
        ),
    ),
    answer=sample_anchors,
    cases=[
        _sample_case(*numbers)
        for numbers in (
            (80, 300, 20, 64, 0.5),
            (5, 300, 20, 64, 0.5),
            (90, 200, 10, 64, 0.25),
            (0, 100, 5, 32, 0.5),
            (40, 6, 30, 32, 0.5),
            (3, 4, 9, 32, 0.25),
            (30, 60, 2, 10, 0.25),
        )
    ],
    mistakes={
        "You leave places empty if there are too few positives; fill these places with negatives.": partial(
            sample_anchors, negatives=lambda count, chosen, most: count - most
        ),
        "You draw as many negatives as positives; the fraction is the maximum for positives, and "
        "negatives fill the rest.": (partial(sample_anchors, negatives=lambda count, chosen, most: chosen)),
        "You draw every positive; at most count · fraction of them may be drawn.": partial(
            sample_anchors, positives=lambda found, count, most, negative: min(found, count)
        ),
        "You fill up with positives if there are too few negatives; the fraction remains the maximum for "
        "positives.": partial(
            sample_anchors,
            positives=lambda found, count, most, negative: min(found, max(most, count - negative)),
        ),
        "You draw ignored anchors (-2) as negatives; they are neither.": partial(
            sample_anchors, background=lambda matches: matches < 0
        ),
        "You draw count negatives in addition to the positives; both together should be count.": partial(
            sample_anchors, negatives=lambda count, chosen, most: count
        ),
        "You round the number of positives up; count · fraction is rounded down, int(...).": partial(
            sample_anchors, whole=math.ceil
        ),
        "You draw from all anchors alike, so nearly all drawn anchors are background. Draw positives and "
        "negatives separately.": (_drawn_together),
    },
    hints=[
        "Rows of positives: np.flatnonzero(matches >= 0); of negatives: matches == -1. What is -2?",
        "Positives: as many as there are, but no more than int(count * fraction). Negatives: what is left of count.",
        "rng.permutation(rows)[:number] draws; write 1 and 0 there into np.full(len(matches), -1).",
    ],
    probe=_drawn_fairly,
)

# 07.4


def _entropy(logits, targets):
    """The binary cross-entropy of each pixel, from logits, without overflow."""
    return -(targets * log_expit(logits) + (1 - targets) * log_expit(-logits))


def _from_probabilities(logits, targets, probability=lambda z: 1 / (1 + np.exp(-z))):
    p = probability(logits)
    return -(targets * np.log(p) + (1 - targets) * np.log(1 - p))


def _own(logits, classes, targets):
    return logits[np.arange(len(classes)), :, :, classes], targets


def _own_softmax(logits, classes, targets):
    log_p = _own(log_softmax(logits, axis=-1), classes, targets)[0]
    return log_p - np.log(np.maximum(-np.expm1(log_p), 1e-300)), targets  # the logit of this probability


def mask_loss(
    logits,
    classes,
    targets,
    pick=_own,
    each=_entropy,
    keep=lambda classes: classes > 0,
    count=lambda kept, classes: kept,
    total=np.mean,
    empty=0.0,
):
    keep = keep(classes)
    if not keep.any():
        return empty
    paid = each(*pick(logits[keep], classes[keep], targets[keep]))
    return total(paid) * keep.sum() / count(keep.sum(), classes)


_loss = varied(mask_loss)

_RNG = np.random.default_rng(3)
_LOGITS, _MASKS = _RNG.normal(0, 2, (5, 4, 4, 3)), (_RNG.random((5, 4, 4)) > 0.5).astype(float)
_LARGE = 1000.0 * (2 * _MASKS[:2, ..., None] - 1) * np.ones(3)
_LARGE[0, 0, 0] *= -1

MASK_LOSS = Exercise(
    number="07.4",
    name="mask_loss",
    form=number("a number, the mean over the pixels of all objects"),
    answer=mask_loss,
    cases=[
        Case("one object, all logits 0", np.zeros((1, 4, 4, 3)), [2], _MASKS[:1]),
        Case("three objects of two classes", _LOGITS[:3], [1, 2, 1], _MASKS[:3]),
        Case("two objects and three regions of background", _LOGITS, [2, 0, 1, 0, 0], _MASKS),
        Case("targets between 0 and 1", _LOGITS[3:], [1, 2], _RNG.random((2, 4, 4)).round(2)),
        Case("background only", _LOGITS[:2], [0, 0], _MASKS[:2], note="There is no object: the loss is 0."),
        Case(
            "logits of -1000 and 1000",
            _LARGE,
            [1, 2],
            _MASKS[:2],
            note="exp(1000) is infinite. np.logaddexp(0, z) is log(1 + exp(z)) without overflow.",
        ),
    ],
    mistakes={
        "Your loss trains the masks of all classes, those of the other classes to be empty, so the "
        "classes compete. Only the true class's mask counts.": _loss(
            pick=lambda z, c, y: (z, np.eye(z.shape[-1])[c][:, None, None] * y[..., None])
        ),
        "Your loss trains the same mask for all classes; only the true class's mask counts.": _loss(
            pick=lambda z, c, y: (z, y[..., None])
        ),
        "Background regions count in your loss, but they have no mask to learn. Keep only regions with a "
        "class above 0.": _loss(keep=lambda classes: classes >= 0),
        "You divide by all regions; take the mean over the pixels of objects only, or images with many "
        "background regions count less.": _loss(count=lambda kept, classes: len(classes)),
        "You let the classes compete by a softmax; each class's mask has a sigmoid of its own.": _loss(
            pick=_own_softmax
        ),
        "You take the mask of the class with the largest logits; during training the true class is known.": _loss(
            pick=lambda z, c, y: _own(z, z.mean(axis=(1, 2)).argmax(axis=-1), y)
        ),
        "Your channel is off by one: the channels are the classes with background first, so class k has "
        "channel k.": _loss(pick=lambda z, c, y: _own(z, c - 1, y)),
        "Without an object your loss is NaN, the mean of an empty array. It must be 0.": _loss(empty=np.nan),
        "Large logits overflow: log(1 - p) is infinite where p is rounded to 1. Compute it from the logits, by "
        "np.logaddexp.": (
            _loss(each=_from_probabilities),
            _loss(each=lambda z, y: np.where(y > 0.5, -np.log(expit(z)), -np.log(1 - expit(z)))),
        ),
        "You clip the probabilities away from 0 and 1; a confident, misclassified pixel then costs too "
        "little. Compute the logarithms from the logits, by np.logaddexp.": (
            _loss(each=partial(_from_probabilities, probability=lambda z: np.clip(expit(z), 1e-7, 1 - 1e-7))),
        ),
        "You apply the sigmoid twice: the output of the first sigmoid goes through a second one.": _loss(
            each=lambda z, y: _entropy(expit(z), y)
        ),
        "You sum over the pixels; take the mean, so that a larger grid does not weigh more.": _loss(
            total=np.sum
        ),
    },
    hints=[
        "First leave out the regions whose class is 0. What is the loss if none is left?",
        "Take the channel of the true class of each: logits[k, :, :, classes[k]].",
        "The cross-entropy of a logit z with a target y is np.logaddexp(0, z) - y · z. Take the mean.",
    ],
)

# 07.5


def _read(recalls, read):
    """AP from a curve: `read` gets the precisions at a recall and beyond, and is asked only where there are any."""

    def area(recall, precision):
        return np.mean([read(precision[recall >= r]) if (recall >= r).any() else 0 for r in recalls])

    return area


_101 = np.linspace(0, 1, 101)


def _reached_only(recall, precision):
    return np.mean([precision[recall >= r].max() for r in _101 if (recall >= r).any()] or [0])


def _exact_area(recall, precision):
    return np.sum(np.diff(recall, prepend=0) * [precision[k:].max() for k in range(len(precision))])


def coco_ap(
    ious,
    scores,
    threshold,
    reaches=np.greater_equal,
    once=True,
    second_choice=True,
    order=lambda scores: np.argsort(-scores, kind="stable"),
    area=None,
    objects=lambda ious, hits: ious.shape[1],
):
    taken, right = set(), []
    for row in order(scores):
        free = [k for k in range(ious.shape[1]) if k not in taken or not (once and second_choice)]
        best = max(free, key=lambda k: ious[row, k], default=None)
        found = best is not None and bool(reaches(ious[row, best], threshold))
        right.append(found and not (once and best in taken))
        taken |= {best} if found else set()
    hits = np.cumsum(right)
    return (area or _read(_101, np.max))(
        hits / max(objects(ious, hits), 1), hits / np.arange(1, len(hits) + 1)
    )


_coco = varied(coco_ap)


def _ap_case(words, ious, scores, threshold=0.5, note=""):
    return Case(words, ious, scores, threshold, note=note)


COCO_AP = Exercise(
    number="07.5",
    name="coco_ap",
    form=number("a number, the AP"),
    answer=coco_ap,
    cases=[
        _ap_case("two objects, both found", [[0.9, 0.0], [0.0, 0.8]], [0.9, 0.8]),
        _ap_case(
            "two objects, a false detection between the correct ones",
            [[0.9, 0.0], [0.1, 0.0], [0.0, 0.7]],
            [0.9, 0.8, 0.7],
        ),
        _ap_case("three objects, one of them missed", [[0.9, 0.0, 0.1], [0.0, 0.7, 0.2]], [0.6, 0.9]),
        _ap_case(
            "three objects, one missed, and a false detection between the correct ones",
            [[0.9, 0.0, 0.1], [0.0, 0.3, 0.2], [0.0, 0.7, 0.0]],
            [0.9, 0.7, 0.6],
        ),
        _ap_case("an object that is detected twice", [[0.9, 0.0], [0.8, 0.0], [0.0, 0.9]], [0.9, 0.85, 0.5]),
        _ap_case(
            "detections in no order of score",
            [[0.2, 0.0, 0.1], [0.0, 0.6, 0.0], [0.0, 0.0, 0.9], [0.7, 0.1, 0.0], [0.0, 0.3, 0.2]],
            [0.5, 0.4, 0.9, 0.3, 0.8],
        ),
        _ap_case(
            "a detection whose best object is already matched, but that also overlaps another one enough",
            [[0.9, 0.2], [0.7, 0.6], [0.1, 0.0]],
            [0.9, 0.8, 0.7],
            note="It may take the free object: the best of those that are free and reach the threshold.",
        ),
        _ap_case("an IoU that equals the threshold", [[0.75, 0.0], [0.0, 0.9]], [0.9, 0.8], 0.75),
        _ap_case(
            "no detection at all",
            np.zeros((0, 2)),
            np.zeros(0),
            note="There are objects but no detections: the AP is 0.",
        ),
    ],
    mistakes={
        "In your AP two detections of one object both count as true positives; an object is matched once, "
        "by the detection with the highest score, and the second is a false positive.": _coco(once=False),
        "You go through the detections in the order of the list; the highest score comes first.": _coco(
            order=lambda scores: range(len(scores))
        ),
        "You begin with the lowest score: np.argsort sorts in ascending order. Sort by -scores.": _coco(
            order=lambda scores: np.argsort(scores, kind="stable")
        ),
        "You read the precision where a recall is first reached; use the best one at that recall or a higher "
        "one, so that the "
        "curve never rises.": _coco(area=_read(_101, lambda beyond: beyond[0])),
        "You read the curve at 11 recall values, as PASCAL VOC did until 2009; COCO reads it at 101.": _coco(
            area=_read(np.linspace(0, 1, 11), np.max)
        ),
        "That is the exact area under the curve; COCO reads the curve at the 101 recall values 0, 0.01, "
        "…, 1 and takes the mean.": _coco(area=_exact_area),
        "You leave out the recall values that are never reached; the precision there is 0, or missed "
        "objects would cost nothing.": _coco(area=_reached_only),
        "You divide by the number of objects found; recall is a fraction of all true objects, or missed "
        "objects would cost nothing.": (_coco(objects=lambda ious, hits: hits[-1] if len(hits) else 1)),
        "You divide by the number of detections; recall is a fraction of the true objects, the second axis of ious.": _coco(
            objects=lambda ious, hits: len(ious)
        ),
        "An IoU that equals the threshold is enough here: COCO asks for >=.": _coco(reaches=np.greater),
        "A detection whose best object is already matched may match another object that is free and "
        "reaches the threshold.": _coco(second_choice=False),
        "That is the precision of all detections together; AP goes down the list and reads a whole curve.": _coco(
            area=lambda recall, precision: precision[-1] if len(precision) else 0.0
        ),
        "Without a detection your function stops or returns NaN; objects that nobody detected give an AP of 0.": (
            lambda ious, scores, threshold: coco_ap(ious, scores, threshold) if len(scores) else np.nan,
            lambda ious, scores, threshold: coco_ap(ious, scores, threshold) if len(scores) else ious.max(),
        ),
    },
    hints=[
        "Go through the detections from the highest score down. Each matches the free object that it "
        "overlaps most, if the IoU reaches the threshold: a true positive. Otherwise it is a false "
        "positive.",
        "After each detection: recall is true positives so far / objects, precision is true positives so "
        "far / detections so far.",
        "np.mean([precision[recall >= r].max(initial=0) for r in np.linspace(0, 1, 101)]).",
    ],
)

# 07.6, the research exercise


def counting_error(
    true_counts,
    scores,
    threshold,
    above=np.greater,
    error=lambda true, found: np.abs(found - true).sum(),
    whole=lambda true, found: true.sum(),
):
    found = np.array([np.count_nonzero(above(one, threshold)) for one in scores], float)
    return error(true_counts, found) / whole(true_counts, found)


_error = varied(counting_error)


def _images(words, counts, *scores, threshold=0.5):
    return Case(words, counts, [np.array(one, float) for one in scores], threshold)


COUNTING = Exercise(
    number="07.6",
    name="counting_error",
    form=number("a number, the counting error"),
    answer=counting_error,
    cases=[
        _images("one image, counted right", [2], [0.9, 0.8, 0.1]),
        _images(
            "one image with an extra object and one with a missing object",
            [2, 3],
            [0.9, 0.8, 0.7],
            [0.9, 0.6],
        ),
        _images(
            "an image of 2 objects and one of 20, 16 of which are found",
            [2, 20],
            [0.9, 0.8, 0.7, 0.6],
            [0.7] * 16,
        ),
        _images("a score that equals the threshold, so it is not above it", [3], [0.9, 0.5, 0.5]),
        _images(
            "an image without objects and one with 4", [0, 4], [0.6, 0.2], [0.9, 0.8, 0.3], threshold=0.4
        ),
        _images("an image without a detection", [3, 1], [], [0.9, 0.7], threshold=0.3),
    ],
    mistakes={
        "Too many in one image and too few in another cancel out; take the absolute error of each image first.": _error(
            error=lambda t, f: abs(f.sum() - t.sum())
        ),
        "Your error has a sign: too many and too few cancel out. Take the absolute error of each image.": _error(
            error=lambda t, f: (f - t).sum()
        ),
        "You average the images' relative errors, so one object in an image of two weighs as much as ten in one "
        "of twenty; add "
        "up the errors, then divide by all true objects.": _error(
            error=lambda t, f: np.mean(np.abs(f - t) / np.maximum(t, 1)), whole=lambda t, f: 1.0
        ),
        "You return the errors per image; divide by the number of true objects, so that data sets can be "
        "compared.": _error(whole=lambda t, f: len(t)),
        "You sum the errors; divide by the number of true objects, so that data sets can be compared.": _error(
            whole=lambda t, f: 1.0
        ),
        "You divide by the number of objects found; divide by the number of true objects.": _error(
            whole=lambda t, f: f.sum()
        ),
        "You square the errors; here each extra or missing object counts the same.": _error(
            error=lambda t, f: ((f - t) ** 2).sum()
        ),
        "A detection whose score equals the threshold does not count: only those above it.": _error(
            above=np.greater_equal
        ),
        "You count every detection; only those with a score above the threshold count.": _error(
            above=lambda scores, threshold: scores > -1
        ),
        "You count the images with an incorrect count; the size of the error matters, too.": _error(
            error=lambda t, f: np.count_nonzero(f != t), whole=lambda t, f: len(t)
        ),
    },
    hints=[
        "How many scores of each image lie above the threshold? np.count_nonzero(one > threshold).",
        "Add up the absolute differences from the true counts, and divide by the sum of the true counts.",
    ],
)

# 07.7, a loss of one's own in Keras


def detector(
    inputs,
    outputs,
    objects=lambda classes: classes > 0,
    count=lambda ops, objects: ops.maximum(ops.sum(objects), 1),
    size=lambda ops, difference: ops.sum(ops.abs(difference), axis=-1),
    over_classes=lambda ops, each: ops.mean(each),
    from_logits=True,
    weights=(1.0, 2.0),
):
    """A model whose `compute_loss` is cross-entropy of the classes + 2 · the error of the boxes of objects."""
    import keras
    from keras import ops

    class Detector(keras.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            each = keras.losses.sparse_categorical_crossentropy(
                y["classes"], y_pred["classes"], from_logits=from_logits
            )
            kept = ops.cast(objects(y["classes"]), "float32")
            errors = size(ops, y_pred["boxes"] - y["boxes"]) * kept
            parts = over_classes(ops, each), ops.sum(errors) / count(ops, kept)
            return weights[0] * parts[0] + weights[1] * parts[1]

    return Detector(inputs, outputs)


def _two_headed(kind):
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 6))
    heads = {"classes": keras.layers.Dense(3), "boxes": keras.layers.Dense(4)}
    return kind(inputs, {name: head(inputs) for name, head in heads.items()})


def _loss_of(kind, classes, boxes, logits, predicted):
    import keras
    from keras import ops

    given = [ops.convert_to_tensor(one.astype("float32")) for one in (boxes, logits, predicted)]
    y = {"classes": ops.convert_to_tensor(classes.astype("int32")), "boxes": given[0]}
    plain = {
        "classes": keras.Input((5, 3)),
        "boxes": keras.Input((5, 4)),
    }  # nothing to build: it is the loss that counts
    model = kind(plain, plain)
    if not hasattr(model, "compute_loss"):
        raise TypeError("Detector must be a keras.Model with a method compute_loss")
    found = model.compute_loss(x=None, y=y, y_pred={"classes": given[1], "boxes": given[2]})
    if found is None or found is ...:
        raise NotImplementedError
    return ops.convert_to_numpy(found)


def _learns(kind):
    """Whether a training with this loss moves both heads."""
    from keras import ops

    model, rng = _two_headed(kind), np.random.default_rng(0)
    model.compile(optimizer="sgd")
    before = [ops.convert_to_numpy(one) for one in model.trainable_variables]
    y = {"classes": rng.integers(0, 3, (8, 5)), "boxes": rng.normal(size=(8, 5, 4)).astype("float32")}
    model.fit(rng.normal(size=(8, 5, 6)).astype("float32"), y, batch_size=4, verbose=0)
    still = [
        one.path
        for one, old in zip(model.trainable_variables, before, strict=True)
        if np.allclose(ops.convert_to_numpy(one), old)
    ]
    return (
        f"The values are right, but in fit {' and '.join(still)} did not move: compute with keras.ops only."
        if still
        else None
    )


def _anchors(classes, seed):
    rng, shape = np.random.default_rng(seed), np.shape(classes)
    return np.array(classes), *(rng.normal(size=(*shape, k)) for k in (4, 3, 4))


_detector = varied(detector)

DETECTOR = Exercise(
    number="07.7",
    name="Detector",
    form=number("a scalar tensor, the loss", 1e-4),
    answer=detector,
    measure=_loss_of,
    probe=_learns,
    live=True,
    seconds=40.0,
    passed="right: both heads learn from it.",
    cases=[
        Case("two images of five anchors", *_anchors([[0, 1, 0, 2, 0], [0, 0, 0, 1, 0]], 1)),
        Case("objects only", *_anchors([[1, 2, 1, 2, 1]], 2)),
        Case("background only", *_anchors([[0, 0, 0, 0, 0], [0, 0, 0, 0, 0]], 3)),
    ],
    mistakes={
        "In your loss the boxes of background anchors count, but they have no object to fit. Keep only "
        "anchors with a class above 0.": _detector(objects=lambda classes: classes >= 0),
        "You divide the boxes' error by all anchors; the mean is over the objects' anchors alone.": _detector(
            count=lambda ops, objects: float(np.prod(objects.shape))
        ),
        "Without an object your loss is 0 / 0, not a number. Divide by at least 1.": _detector(
            count=lambda ops, objects: ops.sum(objects)
        ),
        "The box error is not weighted: multiply it by 2.": _detector(weights=(1.0, 1.0)),
        "The weight of 2 belongs to the box error, not to the class loss.": (
            _detector(weights=(2.0, 1.0)),
            _detector(weights=(2.0, 2.0)),
        ),
        "You take the mean of the four differences; sum them.": _detector(
            size=lambda ops, difference: ops.mean(ops.abs(difference), axis=-1)
        ),
        "You square the differences; take their absolute values.": _detector(
            size=lambda ops, difference: ops.sum(difference**2, axis=-1)
        ),
        "The differences keep their sign and cancel each other; take their absolute values.": _detector(
            size=lambda ops, difference: ops.sum(difference, axis=-1)
        ),
        "The cross-entropy treats your logits as probabilities: set from_logits=True.": _detector(
            from_logits=False
        ),
        "You sum the cross-entropies; take their mean over all anchors.": _detector(
            over_classes=lambda ops, each: ops.sum(each)
        ),
        "Only the boxes are in your loss; the classes are missing.": _detector(weights=(0.0, 2.0)),
        "Only the classes are in your loss; the boxes are missing.": _detector(weights=(1.0, 0.0)),
    },
    hints=[
        "y and y_pred are dictionaries: y['classes'], y_pred['boxes'].",
        "keras.losses.sparse_categorical_crossentropy(y['classes'], y_pred['classes'], from_logits=True) "
        "gives one value for each anchor.",
        "Make the objects' anchors a tensor of 0 and 1, ops.cast(y['classes'] > 0, 'float32'), and multiply by it.",
    ],
)

EXERCISES = (SMOOTH_L1, MATCH, SAMPLE, MASK_LOSS, COCO_AP, COUNTING, DETECTOR)
