"""Chapter 07's checks: right answers pass, and each wrong one that people give is refused with its own sentence."""

import keras
import numpy as np
import pytest
from scipy.special import expit, log_softmax
from sklearn.metrics import log_loss, mean_absolute_error
from study_answers import class_of_tests

from course_lib import metrics
from course_lib.metrics import coco
from course_lib.models.mask_rcnn import stages
from course_lib.ops import by_hand, matching, sampling
from course_lib.teaching.checker import find

# 07.1


def smooth_by_the_course(difference, beta):
    return keras.ops.convert_to_numpy(stages.smooth_l1(difference.astype("float32"), beta))


def smooth_by_clipping(difference, beta):
    """The integral of the slope min(|d|, beta) / beta."""
    near = np.minimum(abs(difference), beta)
    return near**2 / (2 * beta) + abs(difference) - near


def smooth_without_abs(difference, beta):
    return np.where(difference < beta, difference**2 / (2 * beta), difference - beta / 2)


def smooth_of_beta_1(difference, beta):
    size = np.abs(difference)
    return np.where(size < beta, 0.5 * size**2, size - 0.5 * beta)


def smooth_that_jumps(difference, beta):
    size = np.abs(difference)
    return np.where(size < beta, 0.5 * size**2 / beta, size)


def smooth_minus_half(difference, beta):
    size = np.abs(difference)
    return np.where(size < beta, 0.5 * size**2 / beta, size - 0.5)


def huber(difference, beta):
    size = np.abs(difference)
    return np.where(size < beta, 0.5 * size**2, beta * (size - 0.5 * beta))


def smooth_l2(difference, beta):
    return difference**2 / (2 * beta)


def smooth_summed(difference, beta):
    return smooth_by_clipping(difference, beta).sum()


# 07.2


def match_by_the_course(ious, high, low):
    return keras.ops.convert_to_numpy(matching.match(ious.astype("float32"), high, low, True))


def match_by_loops(ious, high, low):
    answer = []
    for overlaps in ious.T.tolist():
        best = max(overlaps, default=0)
        rescued = any(
            iou and iou == max(of_object) for iou, of_object in zip(overlaps, ious.tolist(), strict=True)
        )
        if rescued or (overlaps and best >= high):
            answer.append(overlaps.index(best))
        else:
            answer.append(-1 if best < low else -2)
    return answer


def match_without_rescue(ious, high, low):
    if not ious.size:
        return -np.ones(ious.shape[1])
    best = ious.max(0)
    return np.select([best >= high, best < low], [ious.argmax(0), -1], -2)


def match_two_ways(ious, high, low):
    """What lies between the limits counted as background."""
    found = np.array(match_by_loops(ious, high, low))
    return np.where(found == -2, -1, found)


def match_above_high(ious, high, low):
    found = match_by_loops(ious, high + 1e-9, low)
    return found


def match_at_low(ious, high, low):
    return match_by_loops(ious, high, low + 1e-9)


def match_one_of_equals(ious, high, low):
    found = match_without_rescue(ious, high, low)
    for overlaps in ious:
        if overlaps.max() > 0:
            found[overlaps.argmax()] = ious[:, overlaps.argmax()].argmax()
    return found


def match_untouched_too(ious, high, low):
    found = match_without_rescue(ious, high, low)
    for overlaps in ious:
        rows = overlaps == overlaps.max()
        found[rows] = ious.argmax(0)[rows]
    return found


def match_to_the_object(ious, high, low):
    found = match_without_rescue(ious, high, low)
    for row, overlaps in enumerate(ious):
        found[(overlaps == overlaps.max()) & (overlaps > 0)] = row
    return found


def match_that_fails_without_objects(ious, high, low):
    ious.max(axis=0)
    return match_by_loops(ious, high, low)


# 07.3


def drawn(matches, positives, negatives, rng):
    answer = np.full(len(matches), -1)
    answer[rng.choice(np.flatnonzero(matches >= 0), positives, replace=False)] = 1
    answer[rng.choice(np.flatnonzero(matches == -1), negatives, replace=False)] = 0
    return answer


def numbers_of(matches):
    return np.count_nonzero(matches >= 0), np.count_nonzero(matches == -1)


def sample_by_choice(matches, count, fraction, rng):
    positives, negatives = numbers_of(matches)
    most = min(positives, int(count * fraction))
    return drawn(matches, most, min(negatives, count - most), rng)


def sample_by_the_course(matches, count, fraction, rng):
    numbers = rng.random(len(matches), "float32")
    found = sampling.sample_balanced(matches >= 0, matches == -1, count, fraction, numbers)
    indices, is_positive, is_negative = (keras.ops.convert_to_numpy(each) for each in found)
    answer = np.full(len(matches), -1)
    answer[indices[is_positive]], answer[indices[is_negative]] = 1, 0
    return answer


def sample_by_hand(matches, count, fraction, rng):
    rows = [np.flatnonzero(matches >= 0), np.flatnonzero(matches == -1)]
    positives, negatives = by_hand.sample(*rows, count, fraction, rng)
    return [1 if k in positives else 0 if k in negatives else -1 for k in range(len(matches))]


def sample_fixed_halves(matches, count, fraction, rng):
    positives, negatives = numbers_of(matches)
    most = int(count * fraction)
    return drawn(matches, min(positives, most), min(negatives, count - most), rng)


def sample_one_to_one(matches, count, fraction, rng):
    positives, negatives = numbers_of(matches)
    most = min(positives, int(count * fraction))
    return drawn(matches, most, min(negatives, most), rng)


def sample_all_positives(matches, count, fraction, rng):
    positives, negatives = numbers_of(matches)
    most = min(positives, count)
    return drawn(matches, most, min(negatives, count - most), rng)


def sample_ignored_too(matches, count, fraction, rng):
    return sample_by_choice(np.where(matches == -2, -1, matches), count, fraction, rng)


def sample_count_negatives(matches, count, fraction, rng):
    positives, negatives = numbers_of(matches)
    return drawn(matches, min(positives, int(count * fraction)), min(negatives, count), rng)


def sample_the_first(matches, count, fraction, rng):
    """The right numbers, not at random."""
    answer = np.full(len(matches), -1)
    most = min(numbers_of(matches)[0], int(count * fraction))
    answer[np.flatnonzero(matches >= 0)[:most]] = 1
    answer[np.flatnonzero(matches == -1)[: count - most]] = 0
    return answer


def sample_from_elsewhere(matches, count, fraction, rng):
    return sample_by_choice(matches, count, fraction, np.random.default_rng())


def sample_exchanged(matches, count, fraction, rng):
    """As many as there should be, of the wrong kinds."""
    return rng.permutation(sample_by_choice(matches, count, fraction, rng))


# 07.4


def own(logits, classes):
    return np.stack([one[..., k] for one, k in zip(logits, classes, strict=True)])


def entropy(z, y):
    return np.maximum(z, 0) - y * z + np.log1p(np.exp(-np.abs(z)))


def mask_loss_plainly(logits, classes, targets):
    keep = classes > 0
    return entropy(own(logits, classes), targets)[keep].mean() if keep.any() else 0


def mask_loss_by_keras(logits, classes, targets):
    """Pixel by pixel from a weighted mean over everything."""
    weights = np.broadcast_to((classes > 0)[:, None, None], targets.shape).astype(float)
    paid = keras.ops.binary_crossentropy(
        targets.astype("float32"), own(logits, classes).astype("float32"), from_logits=True
    )
    return (keras.ops.convert_to_numpy(paid) * weights).sum() / max(weights.sum(), 1)


def mask_loss_of_all_classes(logits, classes, targets):
    paid = [
        entropy(z[..., k], y if k == label else 0 * y)
        for z, label, y in zip(logits, classes, targets, strict=True)
        if label
        for k in range(logits.shape[-1])
    ]
    return np.mean(paid) if paid else 0


def mask_loss_with_background(logits, classes, targets):
    return entropy(own(logits, classes), targets).mean()


def mask_loss_over_all_regions(logits, classes, targets):
    return (entropy(own(logits, classes), targets) * (classes > 0)[:, None, None]).mean()


def mask_loss_softmax(logits, classes, targets):
    keep = classes > 0
    if not keep.any():
        return 0
    p = np.exp(own(log_softmax(logits, axis=-1), classes))[keep].ravel()
    with np.errstate(all="ignore"):
        y = targets[keep].ravel()
        return np.mean(-y * np.log(p) - (1 - y) * np.log(np.maximum(1 - p, 1e-300)))


def mask_loss_no_number(logits, classes, targets):
    return entropy(own(logits, classes), targets)[classes > 0].mean()


def mask_loss_naive(logits, classes, targets):
    if not classes.any():
        return 0.0
    p, y = 1 / (1 + np.exp(-own(logits, classes)[classes > 0])), targets[classes > 0]
    return -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()


def mask_loss_one_channel_off(logits, classes, targets):
    return mask_loss_plainly(np.roll(logits, 1, axis=-1), classes, targets)


def mask_loss_summed(logits, classes, targets):
    return mask_loss_plainly(logits, classes, targets) * np.count_nonzero(classes) * targets[0].size


def mask_loss_sigmoid_twice(logits, classes, targets):
    return mask_loss_plainly(expit(logits), classes, targets)


# 07.5


def ap_by_the_course(ious, scores, threshold):
    order = np.argsort(-scores, kind="stable")
    right = coco.greedy_matches(ious[order], threshold)
    return coco.average_precision_101(scores[order], right, ious.shape[1])


def hits_of(ious, scores, threshold, once=True):
    taken, hits = set(), []
    for row in sorted(range(len(scores)), key=lambda row: -scores[row]):
        reach = [k for k in range(ious.shape[1]) if ious[row, k] >= threshold and not (once and k in taken)]
        hits.append(bool(reach))
        taken |= {max(reach, key=lambda k: ious[row, k])} if reach else set()
    return hits


def curve(hits, objects):
    return [(sum(hits[: k + 1]) / objects, sum(hits[: k + 1]) / (k + 1)) for k in range(len(hits))]


def ap_plainly(ious, scores, threshold, once=True, objects=None):
    points = curve(hits_of(ious, scores, threshold, once), objects or ious.shape[1])
    return np.mean([max((p for r, p in points if r >= k / 100 - 1e-12), default=0) for k in range(101)])


def ap_twice_counts(ious, scores, threshold):
    return ap_plainly(ious, scores, threshold, once=False)


def ap_in_list_order(ious, scores, threshold):
    return ap_plainly(ious, -np.arange(len(scores)), threshold)


def ap_worst_first(ious, scores, threshold):
    return ap_plainly(ious, -scores, threshold)


def ap_not_interpolated(ious, scores, threshold):
    points = curve(hits_of(ious, scores, threshold), ious.shape[1])
    return np.mean([next((p for r, p in points if r >= k / 100 - 1e-12), 0) for k in range(101)])


def ap_at_11(ious, scores, threshold):
    points = curve(hits_of(ious, scores, threshold), ious.shape[1])
    return np.mean([max((p for r, p in points if r >= k / 10 - 1e-12), default=0) for k in range(11)])


def ap_area(ious, scores, threshold):
    points = [(0, 0), *curve(hits_of(ious, scores, threshold), ious.shape[1])]
    return sum(
        (points[k][0] - points[k - 1][0]) * max(p for _, p in points[k:]) for k in range(1, len(points))
    )


def ap_of_found_objects(ious, scores, threshold):
    return ap_plainly(ious, scores, threshold, objects=sum(hits_of(ious, scores, threshold)))


def ap_above(ious, scores, threshold):
    return ap_plainly(ious, scores, threshold + 1e-9)


def ap_of_voc(ious, scores, threshold):
    """Each detection asks for its best object alone, taken or not."""
    only_best = np.where(ious == ious.max(axis=1, keepdims=True, initial=0), ious, 0)
    return ap_plainly(only_best, scores, threshold)


def ap_as_precision(ious, scores, threshold):
    hits = hits_of(ious, scores, threshold)
    return np.mean(hits) if hits else 0


# 07.6


def counted(scores, threshold):
    return np.array([sum(score > threshold for score in one) for one in scores])


def error_plainly(true_counts, scores, threshold):
    return sum(abs(counted(scores, threshold) - true_counts)) / sum(true_counts)


def error_by_sklearn(true_counts, scores, threshold):
    found = [(np.array(one) > threshold).sum() for one in scores]
    return mean_absolute_error(true_counts, found) / np.mean(true_counts)


def error_that_cancels(true_counts, scores, threshold):
    return abs(counted(scores, threshold).sum() - sum(true_counts)) / sum(true_counts)


def error_with_a_sign(true_counts, scores, threshold):
    return (counted(scores, threshold) - true_counts).sum() / sum(true_counts)


def error_of_pictures(true_counts, scores, threshold):
    true = np.array(true_counts)
    return np.mean(abs(counted(scores, threshold) - true) / np.where(true, true, 1))


def error_per_picture(true_counts, scores, threshold):
    return mean_absolute_error(true_counts, counted(scores, threshold))


def error_squared(true_counts, scores, threshold):
    return np.sum((counted(scores, threshold) - true_counts) ** 2) / sum(true_counts)


def error_at_the_threshold(true_counts, scores, threshold):
    return error_plainly(true_counts, scores, threshold - 1e-9)


def error_of_all(true_counts, scores, threshold):
    return sum(abs(len(one) - n) for one, n in zip(scores, true_counts, strict=True)) / sum(true_counts)


RIGHT = {
    "07.1": [smooth_by_the_course, smooth_by_clipping],
    "07.2": [match_by_the_course, match_by_loops],
    "07.3": [sample_by_choice, sample_by_the_course, sample_by_hand],
    "07.4": [mask_loss_plainly, mask_loss_by_keras],
    "07.5": [ap_by_the_course, ap_plainly],
    "07.6": [error_plainly, error_by_sklearn],
}
WRONG = {
    "07.1": [
        (smooth_without_abs, "Negative differences come out wrong"),
        (smooth_of_beta_1, "right for beta 1 only: divide it by beta"),
        (smooth_that_jumps, "Your line jumps where it begins"),
        (smooth_minus_half, "Your line subtracts 0.5"),
        (huber, "That is the Huber loss"),
        (smooth_l2, "Your loss is a parabola everywhere"),
        (smooth_summed, "You return one number"),
        (lambda difference, beta: abs(difference), "That is plain L1"),
    ],
    "07.2": [
        (match_without_rescue, "An object that no anchor overlaps enough is lost"),
        (match_two_ways, "Anchors between the two limits are background in your answer"),
        (match_above_high, "exactly the high limit"),
        (match_at_low, "exactly the low limit"),
        (match_one_of_equals, "argmax names one only"),
        (match_untouched_too, "An object that no anchor touches has 0 as its best IoU"),
        (match_to_the_object, "An anchor answers for the object that it overlaps most"),
        (match_that_fails_without_objects, "Without an object all anchors are background"),
    ],
    "07.3": [
        (sample_one_to_one, "You draw as many negatives as positives"),
        (sample_fixed_halves, "Places that positives leave free stay empty"),
        (sample_all_positives, "You draw every positive"),
        (sample_ignored_too, "You draw ignored anchors (-2) as negatives"),
        (sample_count_negatives, "You draw count negatives beside the positives"),
        (sample_the_first, "Two different generators draw the very same anchors"),
        (sample_from_elsewhere, "The same generator draws other anchors the next time"),
        (sample_exchanged, "but not the right ones"),
    ],
    "07.4": [
        (mask_loss_of_all_classes, "Masks of all classes are taught in your loss"),
        (mask_loss_with_background, "Regions of background count in your loss"),
        (mask_loss_over_all_regions, "You divide by all regions"),
        (mask_loss_softmax, "You let the classes compete by a softmax"),
        (mask_loss_no_number, "Without an object your loss is no number"),
        (mask_loss_naive, "Large logits overflow"),
        (mask_loss_one_channel_off, "You are one channel off"),
        (mask_loss_summed, "You add up over the pixels"),
        (mask_loss_sigmoid_twice, "A sigmoid was applied twice"),
    ],
    "07.5": [
        (ap_twice_counts, "Two detections of one object both count as right"),
        (ap_in_list_order, "You go through the detections in the order of the list"),
        (ap_worst_first, "You begin with the lowest score"),
        (ap_not_interpolated, "You read the precision where a recall is first reached"),
        (ap_at_11, "You read the curve at 11 recalls"),
        (ap_area, "That is the exact area under the curve"),
        (ap_of_found_objects, "You divide by the objects that were found"),
        (ap_above, "An IoU of exactly the threshold is enough"),
        (ap_of_voc, "A detection whose best object is taken may take another one"),
        (ap_as_precision, "That is the precision of all detections together"),
    ],
    "07.6": [
        (error_that_cancels, "Too many in one picture and too few in another cancel out"),
        (error_with_a_sign, "Your error has a sign"),
        (error_of_pictures, "You take the mean of the pictures' shares"),
        (error_per_picture, "You give the errors of a picture"),
        (error_squared, "You square the errors"),
        (error_at_the_threshold, "exactly the threshold does not count"),
        (error_of_all, "You count every detection"),
    ],
}

TestAnswers = class_of_tests("07", RIGHT, WRONG)


def test_the_matcher_is_that_of_the_library_on_random_overlaps():
    rng = np.random.default_rng(0)
    for objects in (0, 1, 4):
        ious = (rng.random((objects, 50)) * (rng.random((objects, 50)) < 0.7)).round(1)
        wanted = keras.ops.convert_to_numpy(matching.match(ious.astype("float32"), 0.7, 0.3, True))
        # float32's 0.7 is a little less than 0.7; numbers of one decimal show it.
        high, low = np.float64(np.float32(0.7)), np.float64(np.float32(0.3))
        ours = find("07.2").answer(ious.astype("float32"), high, low)
        np.testing.assert_array_equal(ours, wanted)


def test_ap_is_that_of_the_library_on_random_detections():
    rng = np.random.default_rng(0)
    for detections, objects in ((1, 1), (12, 5), (30, 9), (4, 12)):
        ious = rng.random((detections, objects)) ** 2
        scores = rng.random(detections)
        for threshold in (0.5, 0.75):
            wanted = ap_by_the_course(ious, scores, threshold)
            assert find("07.5").answer(ious, scores, threshold) == pytest.approx(wanted)


def test_the_mask_loss_is_that_of_mask_rcnn():
    """On regions that are their objects' own boxes, of whole pixels, so that the targets are the masks themselves."""
    rng = np.random.default_rng(0)
    true = (rng.random((1, 3, 4, 4)) > 0.5).astype("float32")
    logits = rng.normal(size=(1, 3, 4, 4, 3)).astype("float32")
    truth = {"classes": np.array([[1, 2, 2]]), "masks": true}
    boxes, objects = np.tile(np.array([0, 0, 4, 4], "float32"), (1, 3, 1)), np.array([[0, 1, 2]])
    positive = np.array([[True, True, False]])
    wanted = float(stages.mask_loss(logits, boxes, objects, positive, truth))
    targets = keras.ops.convert_to_numpy(stages.crop_masks(true, objects, boxes, 4))[0]
    assert find("07.4").answer(logits[0], np.array([1, 2, 0]), targets) == pytest.approx(wanted, rel=1e-5)
    pixels = targets[:2].ravel() > 0.5
    probabilities = expit(own(logits[0], [1, 2, 0])[:2].ravel())
    hard = find("07.4").answer(logits[0], np.array([1, 2, 0]), (targets > 0.5).astype(float))
    assert hard == pytest.approx(log_loss(pixels, probabilities), rel=1e-5)


def test_the_counting_error_is_that_of_the_metrics():
    """One pixel for each object and for each detection above the threshold."""
    for case in find("07.6").cases():
        true_counts, scores, threshold = case.arguments
        maps = [[np.arange(30) * (np.arange(30) <= n)] for n in true_counts]
        found = [[np.arange(30) * (np.arange(30) <= n)] for n in counted(scores, threshold)]
        wrong = [abs(metrics.count_error(*map(np.array, pair))) for pair in zip(maps, found, strict=True)]
        assert find("07.6").answer(*case.arguments) == pytest.approx(sum(wrong) / sum(true_counts))
