"""Chapter 02's checks: right answers pass, and each wrong one that people give is refused with its own sentence."""

from itertools import permutations

import numpy as np
import pytest
from scipy import ndimage
from scipy.special import log_softmax, softmax
from skimage.measure import label, regionprops
from sklearn.metrics import adjusted_rand_score
from study_answers import class_of_tests

from course_lib import metrics
from course_lib.teaching.checker import find

# 02.1


def count_ids(m):
    return np.unique(m[m > 0]).size


def count_by_regionprops(m):
    return len(regionprops(m.astype(int)))


def count_highest(m):
    return m.max()


def count_with_background(m):
    return len(np.unique(m))


def count_minus_one(m):
    return len(np.unique(m)) - 1


def count_pieces(m):
    return label(m, background=0).max()


# 02.2


def components_by_skimage(mask):
    return label(mask, connectivity=2)


def components_by_spreading(mask):
    """Every pixel takes the highest number around it until nothing changes."""
    found = np.arange(1, mask.size + 1).reshape(mask.shape) * mask
    while True:
        spread = ndimage.maximum_filter(found, size=3, mode="constant") * mask
        if np.array_equal(spread, found):
            return found
        found = spread


def components_4(mask):
    return label(mask, connectivity=1)


def components_wrapped(mask):
    found, count = np.zeros(mask.shape, int), 0
    for start in zip(*np.nonzero(mask)):
        if found[start]:
            continue
        count += 1
        stack = [start]
        while stack:
            r, c = stack.pop()
            if mask[r, c] and not found[r, c]:
                found[r, c] = count
                stack += [
                    ((r + i) % mask.shape[0], (c + j) % mask.shape[1]) for i in (-1, 0, 1) for j in (-1, 0, 1)
                ]
    return found


def components_that_index_minus_one(mask):
    """The plain slip: row - 1 is -1 in the first row; beyond the last row it stops."""
    found, count = np.zeros(mask.shape, int), 0
    for start in zip(*np.nonzero(mask)):
        if found[start]:
            continue
        count += 1
        stack = [start]
        while stack:
            r, c = stack.pop()
            if not (r < mask.shape[0] and c < mask.shape[1]) or not mask[r, c] or found[r, c]:
                continue
            found[r, c] = count
            stack += [(r + i, c + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    return found


def components_in_one_pass(mask):
    found, count = np.zeros(mask.shape, int), 0
    for r, c in np.argwhere(mask):
        above = found[max(r - 1, 0) : r, max(c - 1, 0) : c + 2]
        before = [*above[above > 0].tolist(), *([found[r, c - 1]] if c and found[r, c - 1] else [])]
        if not before:
            count += 1
        found[r, c] = min(before, default=count)
    return found


def components_of_rows(mask):
    return ndimage.label(mask, structure=[[0, 0, 0], [1, 1, 1], [0, 0, 0]])[0]


# 02.3


def same_by_rand(a, b):
    return np.array_equal(a == 0, b == 0) and adjusted_rand_score(a.ravel(), b.ravel()) > 1 - 1e-12


def same_by_renumbering(a, b):
    def renumbered(m):
        _, first, inverse = np.unique(m, return_index=True, return_inverse=True)
        return np.argsort(np.argsort(first))[inverse.ravel()]

    return bool(np.array_equal(a == 0, b == 0) and np.array_equal(renumbered(a), renumbered(b)))


def same_by_equals(a, b):
    return (a == b).all()


def same_by_count(a, b):
    return count_ids(a) == count_ids(b)


def same_by_area(a, b):
    return (
        sorted(np.bincount(a.ravel())[1:]) == sorted(np.bincount(b.ravel())[1:])
        if a.max() == b.max()
        else (
            sorted(n for n in np.bincount(a.ravel())[1:] if n)
            == sorted(n for n in np.bincount(b.ravel())[1:] if n)
        )
    )


def same_foreground(a, b):
    return bool(((a > 0) == (b > 0)).all())


def same_partition(a, b):
    return bool(adjusted_rand_score(a.ravel(), b.ravel()) == 1)


# 02.4


def ap_of_the_course(true, predicted, threshold):
    return metrics.average_precision([true], [predicted], threshold)


def ap_by_table(true, predicted, threshold):
    table = metrics.iou_matrix(true, predicted)
    if not sum(table.shape):
        return 1
    tp = (table > threshold).sum()
    return np.float64(tp / (sum(table.shape) - tp))


def ap_same_ids(true, predicted, threshold):
    ids = [k for k in np.unique(true) if k]
    others = [k for k in np.unique(predicted) if k]
    tp = sum(metrics.iou(true == k, predicted == k) > threshold for k in ids if k in others)
    return tp / (len(ids) + len(others) - tp) if ids or others else 1.0


def ap_precision(true, predicted, threshold):
    table = metrics.iou_matrix(true, predicted)
    return (table > threshold).sum() / table.shape[1] if table.shape[1] else float(not table.shape[0])


def ap_f1(true, predicted, threshold):
    table = metrics.iou_matrix(true, predicted)
    return 2 * (table > threshold).sum() / sum(table.shape) if sum(table.shape) else 1.0


def ap_with_background(true, predicted, threshold):
    return metrics.average_precision([true + 1], [predicted + 1], threshold)


def ap_of_the_own_area(true, predicted, threshold):
    ids, others = np.unique(true[true > 0]), np.unique(predicted[predicted > 0])
    tp = sum(np.mean(predicted[true == k] == j) > threshold for k in ids for j in others)
    return tp / (len(ids) + len(others) - tp) if len(ids) + len(others) else 1.0


def ap_at_the_threshold(true, predicted, threshold):
    table = metrics.iou_matrix(true, predicted)
    tp = (table >= threshold).sum()
    return tp / (sum(table.shape) - tp) if sum(table.shape) else 1.0


def ap_of_nothing(true, predicted, threshold):
    table = metrics.iou_matrix(true, predicted).tolist()
    n, m = len(np.unique(true[true > 0])), len(np.unique(predicted[predicted > 0]))
    tp = sum(value > threshold for row in table for value in row)
    return tp / (n + m - tp)


# 02.5


def bounds_by_counting(cells, touching):
    """Try every number of clumps."""
    possible = [k for k in range(touching + 1) if (k == 0) == (touching == 0) and 2 * k <= touching]
    return cells - touching + min(possible), cells - touching + max(possible)


def bounds_by_max(cells, touching):
    return np.array([cells - max(touching - 1, 0), cells - (touching + 1) // 2])


def bounds_without_the_rest(cells, touching):
    return (1, touching // 2) if touching else (0, 0)


def bounds_without_the_clump(cells, touching):
    return cells - touching, cells - touching + touching // 2


def bounds_not_rounded(cells, touching):
    return (cells - touching + 1 if touching else cells), cells - touching / 2


def bounds_always_a_clump(cells, touching):
    return cells - touching + 1, cells - (touching + 1) // 2


# 02.6


def cross_entropy(truth, logits):
    return -np.take_along_axis(log_softmax(logits, axis=-1), truth[..., None], -1).mean()


def matched_by_trying_all(truth, logits):
    orders = permutations(range(1, logits.shape[-1]))
    return min(cross_entropy(np.array([0, *order])[truth], logits) for order in orders)


def matched_by_moving_logits(truth, logits):
    orders = permutations(range(1, logits.shape[-1]))
    probabilities = [softmax(logits[..., [0, *order]], axis=-1) for order in orders]
    return min(-np.log(np.take_along_axis(p, truth[..., None], -1)).mean() for p in probabilities)


def matched_with_background(truth, logits):
    orders = permutations(range(logits.shape[-1]))
    return min(cross_entropy(np.array(order)[truth], logits) for order in orders)


def matched_two_to_one(truth, logits):
    paid = -log_softmax(logits, axis=-1)
    total = paid[truth == 0][:, 0].sum()
    for k in range(1, logits.shape[-1]):
        total += paid[truth == k].sum(axis=0)[1:].min()
    return total / truth.size


def matched_as_a_sum(truth, logits):
    return matched_by_trying_all(truth, logits) * truth.size


RIGHT = {
    "02.1": [count_ids, count_by_regionprops],
    "02.2": [components_by_skimage, components_by_spreading],
    "02.3": [same_by_rand, same_by_renumbering],
    "02.4": [ap_of_the_course, ap_by_table],
    "02.5": [bounds_by_counting, bounds_by_max],
    "02.6": [matched_by_trying_all, matched_by_moving_logits],
}
WRONG = {
    "02.1": [
        (count_highest, "You return the highest id"),
        (count_with_background, "You count the background"),
        (count_minus_one, "You always subtract one for the background"),
        (count_pieces, "You count connected pieces"),
    ],
    "02.2": [
        (components_4, "You take 4 neighbours"),
        (components_wrapped, "Your neighbours wrap around the edge"),
        (components_that_index_minus_one, "Your neighbours wrap around the edge"),
        (components_in_one_pass, "Two numbers that meet later stay two objects"),
        (components_of_rows, "You join pixels along a row only"),
    ],
    "02.3": [
        (same_by_equals, "You compare ids. They have no order"),
        (same_by_count, "You compare the number of objects"),
        (same_by_area, "You compare the objects' areas"),
        (same_foreground, "You compare which pixels belong to any object"),
        (same_partition, "You let the background change places with an object"),
    ],
    "02.4": [
        (ap_same_ids, "You match objects by their ids"),
        (ap_precision, "That is the precision"),
        (ap_f1, "That is the F1 score"),
        (ap_with_background, "The background counts as an object"),
        (ap_of_the_own_area, "You divide the overlap by the true object's area"),
        (ap_at_the_threshold, "above the threshold, not where it equals it"),
        (ap_of_nothing, "Two empty maps agree: their AP is 1, where 0 / 0 is no number"),
    ],
    "02.5": [
        (bounds_without_the_rest, "You leave out the cells that touch nothing"),
        (bounds_without_the_clump, "The clump itself is a component"),
        (bounds_not_rounded, "With an odd number one pair has to be three"),
        (bounds_always_a_clump, "Where no cell touches another, there is no clump to add"),
    ],
    "02.6": [
        (cross_entropy, "That is the plain cross-entropy"),
        (matched_with_background, "The background takes part in the matching"),
        (matched_two_to_one, "Two true objects may choose the same number"),
        (matched_as_a_sum, "You add up over the pixels"),
    ],
}

TestAnswers = class_of_tests("02", RIGHT, WRONG)


def test_ap_is_that_of_the_library():
    for case in find("02.4").cases():
        true, predicted, threshold = case.arguments
        wanted = metrics.average_precision([true], [predicted], threshold)
        assert find("02.4").answer(*case.arguments) == pytest.approx(wanted)


def test_the_course_finds_components_between_the_bounds():
    from course_lib.chapters.ch02_semantic_vs_instance.instances import components, touching_share
    from course_lib.datasets import cells

    for sample in cells("train", 4, size=96, seed=2, touching=0.6, density=0.3):
        count = int(sample.instances.max())
        touching = round(touching_share([sample]) * count)
        fewest, most = find("02.5").answer(count, touching)
        assert fewest <= components(sample.semantic).max() <= most
