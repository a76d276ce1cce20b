"""Exercises to chapter 02: counting, components, instance maps without an order, AP, a loss without an order."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.special import log_softmax

from course_lib.teaching.exercise import Case, Exercise, Form, Mistake, array, labels, number

# 02.1

_MAP = np.array([[0, 0, 1, 1, 0], [2, 2, 0, 1, 0], [2, 2, 0, 0, 3]])


def count_objects(instances):
    return len(np.setdiff1d(instances, [0]))


COUNT = Exercise(
    "02.1",
    "count_objects",
    number("a number, how many objects"),
    lambda: [
        Case("a map with the objects 1, 2 and 3", (_MAP,)),
        Case("a map with the objects 3, 7 and 8", (np.array([0, 7, 3, 8])[_MAP],)),
        Case("a map without any object", (np.zeros((3, 4), int),)),
        Case("a map with two objects and no background", (np.array([[1, 1, 2], [1, 2, 2]]),)),
        Case("an object of two separate parts", (np.array([[4, 0, 4], [4, 0, 4]]),)),
    ],
    count_objects,
    (
        Mistake(
            "You return the highest id. Where objects were removed, ids have gaps: count the different ids.",
            lambda m: int(m.max()),
        ),
        Mistake("You count the background: id 0 is no object.", lambda m: len(np.unique(m))),
        Mistake(
            "You always subtract one for the background; a map may have none left. Leave out the id 0 itself.",
            lambda m: len(np.unique(m)) - 1,
        ),
        Mistake(
            "You count connected pieces; one object may be in two pieces, where something lies in front of it.",
            lambda m: sum(ndimage.label(m == k)[1] for k in np.unique(m) if k),
        ),
        Mistake(
            "You count pixels; every pixel of one object has the same id.", lambda m: int(np.count_nonzero(m))
        ),
    ),
    (
        "np.unique lists the different numbers in an array.",
        "Is 0 always among them? Try a map that objects fill completely.",
    ),
)

# 02.2


def _grid(*lines):
    return np.array([[pixel == "#" for pixel in line] for line in lines])


def components(mask):
    return ndimage.label(mask, structure=np.ones((3, 3)))[0]


def _components_across_the_edge(mask):
    """Neighbours by index - 1 and modulo: the left edge touches the right one."""
    found = components(np.tile(mask, (3, 3)))
    height, width = mask.shape
    parts = list(range(found.max() + 1))

    def root(k):
        while parts[k] != k:
            k = parts[k]
        return k

    for row, column in np.argwhere(mask):
        copies = {root(found[row + i * height, column + j * width]) for i in range(3) for j in range(3)}
        for k in copies:
            parts[k] = min(copies)
    return np.array([root(k) for k in range(len(parts))])[found[height : 2 * height, width : 2 * width]]


def _rows_only(mask):
    return ndimage.label(mask, structure=[[0, 0, 0], [1, 1, 1], [0, 0, 0]])[0]


def _one_pass(mask):
    """Each pixel takes the number of a neighbour that came before it; two numbers that meet later stay two."""
    found = np.zeros((mask.shape[0] + 1, mask.shape[1] + 2), int)
    count = 0
    for row, column in np.argwhere(mask):
        r, c = row + 1, column + 1
        before = [
            k for k in (found[r - 1, c - 1], found[r - 1, c], found[r - 1, c + 1], found[r, c - 1]) if k
        ]
        if not before:
            count += 1
        found[r, c] = min(before) if before else count
    return found[1:, 1:-1]


COMPONENTS = Exercise(
    "02.2",
    "components",
    labels("an instance map of the mask's shape, 0 = background"),
    lambda: [
        Case("two blocks apart", (_grid("##....", "##.##.", "...##."),)),
        Case("two pixels that meet at a corner", (_grid("#...", ".#..", "...."),)),
        Case("a diagonal from the upper right to the lower left", (_grid("...#", "..#.", ".#..", "#..."),)),
        Case("a U, whose two arms meet at the bottom", (_grid("#.#.", "#.#.", "###.", "...."),)),
        Case("pixels on opposite edges", (_grid("#..#", "....", "....", "....", "..#."),)),
        Case("an empty mask", (np.zeros((3, 4), bool),)),
    ],
    components,
    (
        Mistake(
            "You take 4 neighbours; here a common corner is enough, so a pixel has 8 neighbours.",
            lambda m: ndimage.label(m)[0],
        ),
        Mistake(
            "Your neighbours wrap around the edge: index -1 is the last row or column. Check 0 <= "
            "row < height.",
            _components_across_the_edge,
        ),
        Mistake("You join pixels along a row only; those above and below are neighbours too.", _rows_only),
        Mistake(
            "Two numbers that meet later stay two objects: where the arms of a U meet, they have to "
            "become one.",
            _one_pass,
        ),
        Mistake(
            "You number the background as well; pixels that are off keep 0.", lambda m: components(m) + 1
        ),
        Mistake(
            "Every pixel is one object; neighbours share a number.",
            lambda m: np.cumsum(m).reshape(m.shape) * m,
        ),
    ),
    (
        "Start at a pixel without a number, give it a new one, and let the paint run to its neighbours.",
        "Keep a list of pixels to visit. Each gives its number to those of its 8 neighbours that are "
        "on and have none.",
        "Leave out neighbours outside of the picture: 0 <= row < height and 0 <= column < width.",
    ),
)

# 02.3


def same_objects(a, b):
    pairs = set(zip(np.ravel(a).tolist(), np.ravel(b).tolist(), strict=True))
    firsts, seconds = {x for x, _ in pairs}, {y for _, y in pairs}
    return all((x == 0) == (y == 0) for x, y in pairs) and len(pairs) == len(firsts) == len(seconds)


def _areas(m):
    return sorted(np.unique(m[m > 0], return_counts=True)[1].tolist())


def _partition_with_background(a, b):
    pairs = set(zip(a.ravel().tolist(), b.ravel().tolist(), strict=True))
    return len(pairs) == len({x for x, _ in pairs}) == len({y for _, y in pairs})


def _one_way(a, b):
    """Each object of a has one id in b, but two of them may have the same."""
    return np.array_equal(a > 0, b > 0) and all(len(np.unique(b[a == k])) == 1 for k in np.unique(a))


SAME_OBJECTS = Exercise(
    "02.3",
    "same_objects",
    Form("True or False", lambda x, y: bool(x) == bool(y)),
    lambda: [
        Case("a map and itself", (_MAP, _MAP)),
        Case("the same objects with other numbers", (_MAP, np.array([0, 3, 1, 2])[_MAP])),
        Case("the same objects with gaps in the numbers", (_MAP, np.array([0, 9, 4, 70])[_MAP])),
        Case("two objects that became one", (_MAP, np.array([0, 1, 1, 3])[_MAP])),
        Case("one object that became two", (np.array([0, 1, 1, 3])[_MAP], _MAP)),
        Case("the same pixels, parted otherwise", (np.array([[1, 1, 2, 2]]), np.array([[1, 2, 1, 2]]))),
        Case("an object exchanged with the background", (np.array([[0, 0, 1, 1]]), np.array([[1, 1, 0, 0]]))),
        Case("as many objects, of other sizes", (np.array([[1, 1, 1, 2]]), np.array([[1, 1, 2, 2]]))),
        Case(
            "objects of the same sizes in other places", (np.array([[1, 1, 0, 2]]), np.array([[1, 0, 2, 2]]))
        ),
    ],
    same_objects,
    (
        Mistake(
            "You compare ids. They have no order: the same objects may bear other numbers.",
            lambda a, b: np.array_equal(a, b),
        ),
        Mistake(
            "You compare the number of objects; they must also be of the same pixels.",
            lambda a, b: len(np.unique(a)) == len(np.unique(b)),
        ),
        Mistake(
            "You compare the objects' areas; two maps can have the same areas in other places.",
            lambda a, b: _areas(a) == _areas(b),
        ),
        Mistake(
            "You compare which pixels belong to any object; which of them belong together is the question.",
            lambda a, b: np.array_equal(a > 0, b > 0),
        ),
        Mistake(
            "You let the background change places with an object; 0 means the same in every map.",
            _partition_with_background,
        ),
        Mistake(
            "You look in one direction only: two objects of the one map may be a single object of the other. "
            "Ask both ways.",
            _one_way,
        ),
    ),
    (
        "Look at the pairs (id in a, id in b) of all pixels. How many different pairs are there if "
        "the maps agree?",
        "Each id of a meets one id of b only, and each id of b one id of a; and 0 meets 0 only.",
    ),
)

# 02.4


def _matched(true, predicted, threshold, background=False, same_id=False, overlap="iou", at=False):
    """True and predicted objects, and how many pairs match."""
    ids = [[k for k in np.unique(m) if k or background] for m in (true, predicted)]
    found = 0
    for k in ids[0]:
        for j in ids[1]:
            both = np.sum((true == k) & (predicted == j))
            area = {
                "iou": np.sum((true == k) | (predicted == j)),
                "own": np.sum(true == k),
                "sum": np.sum(true == k) + np.sum(predicted == j),
            }[overlap]
            value = both / area
            found += bool((value >= threshold if at else value > threshold) and (not same_id or k == j))
    return len(ids[0]), len(ids[1]), found


def _ap_with(score=lambda n, m, tp: tp / (n + m - tp), empty=1.0, **how):
    def answer(true, predicted, threshold):
        n, m, tp = _matched(true, predicted, threshold, **how)
        if not n and not m and empty is not None:
            return empty
        return float(score(n, m, tp))

    return answer


average_precision = _ap_with()


def _ap_cases():
    true = np.zeros((8, 12), int)
    true[1:5, 1:4], true[1:5, 6:9], true[6:8, 1:9] = 1, 2, 3
    shifted = np.zeros_like(true)
    # Two objects found, one invented, and the long one missed.
    shifted[1:5, 1:4], shifted[2:6, 6:9], shifted[0:2, 10:12] = 3, 1, 2
    yield Case("a map and itself", (true, true, 0.5))
    yield Case("two of three objects found and one invented", (true, shifted, 0.5))
    yield Case("the same at a threshold of 0.7", (true, shifted, 0.7))
    half = np.where(np.arange(12) < 5, true, 0)  # the long object loses half of its 16 pixels
    yield Case("an object whose IoU is the threshold itself, which is not above it", (true, half, 0.5))
    yield Case("an answer in which all objects are one", (true, (true > 0).astype(int), 0.4))
    yield Case("an empty answer", (true, np.zeros_like(true), 0.5))
    empty = "There is nothing to find and nothing was found: they agree, so 1."
    yield Case("two empty maps", (np.zeros((3, 3), int), np.zeros((3, 3), int), 0.5), empty)


AP = Exercise(
    "02.4",
    "average_precision",
    number("a number, the AP"),
    lambda: list(_ap_cases()),
    average_precision,
    (
        Mistake(
            "You match objects by their ids; ids have no order. An object is found where some "
            "predicted one overlaps it enough.",
            _ap_with(same_id=True),
        ),
        Mistake("The background counts as an object; leave out the id 0.", _ap_with(background=True)),
        Mistake(
            "That is the precision, TP / (TP + FP): objects that were missed cost nothing. Add FN below.",
            _ap_with(lambda n, m, tp: tp / m),
        ),
        Mistake(
            "That is the precision, TP / (TP + FP): objects that were missed cost nothing. Add FN below.",
            _ap_with(lambda n, m, tp: tp / m if m else 0.0),
        ),
        Mistake(
            "That is the recall, TP / (TP + FN): invented objects cost nothing. Add FP below.",
            _ap_with(lambda n, m, tp: tp / n),
        ),
        Mistake(
            "That is the F1 score, which counts TP twice; AP of one threshold is TP / (TP + FP + FN).",
            _ap_with(lambda n, m, tp: 2 * tp / (n + m)),
        ),
        Mistake(
            "Your denominator counts the objects that were found twice: all true plus all predicted "
            "objects holds TP twice.",
            _ap_with(lambda n, m, tp: tp / (n + m)),
        ),
        Mistake(
            "An object is found where the IoU is above the threshold, not where it equals it.",
            _ap_with(at=True),
        ),
        Mistake(
            "You divide the overlap by the true object's area: one large answer that covers "
            "everything finds all. Divide by the union.",
            _ap_with(overlap="own"),
        ),
        Mistake("Two empty maps agree: their AP is 1, where 0 / 0 is no number.", _ap_with(empty=None)),
        Mistake("Two empty maps agree: their AP is 1.", _ap_with(empty=0.0)),
    ),
    (
        "For each true and each predicted object, count the pixels of both and of either: their IoU.",
        "TP is the number of pairs above the threshold (at 0.5 and above no object has two partners). "
        "FN is the number of true objects minus TP; FP the predicted ones minus TP.",
        "TP / (TP + FP + FN); and 1 where there are no objects on either side.",
    ),
)

# 02.5


def component_bounds(cells, touching):
    if not touching:
        return cells, cells
    return cells - touching + 1, cells - touching + touching // 2


COMPONENT_BOUNDS = Exercise(
    "02.5",
    "component_bounds",
    array("two numbers, the fewest and the most components"),
    lambda: [
        Case(f"{cells} cells of which {touching} touch another", (cells, touching))
        for cells, touching in ((100, 60), (10, 10), (7, 2), (9, 3), (20, 0), (50, 25))
    ],
    component_bounds,
    (
        Mistake(
            "You leave out the cells that touch nothing; each of them is a component of its own.",
            lambda n, t: (1, t // 2) if t else (0, 0),
        ),
        Mistake(
            "The clump itself is a component: cells - touching + 1, where any touch.",
            lambda n, t: (n - t, component_bounds(n, t)[1]),
        ),
        Mistake(
            "With an odd number one pair has to be three: the most is touching // 2, rounded down.",
            lambda n, t: (component_bounds(n, t)[0], n - t + -(-t // 2)),
        ),
        Mistake(
            "With an odd number one pair has to be three: the most is touching // 2, rounded down.",
            lambda n, t: (component_bounds(n, t)[0], n - t + t / 2),
        ),
        Mistake(
            "Where no cell touches another, there is no clump to add.",
            lambda n, t: (n - t + 1, n - t + t // 2),
        ),
        Mistake(
            "The right numbers the wrong way round: the fewest first.",
            lambda n, t: component_bounds(n, t)[::-1],
        ),
        Mistake(
            "You count the cells that are missing from the count; the question is how many "
            "components there are.",
            lambda n, t: (t - t // 2, max(t - 1, 0)),
        ),
    ),
    (
        "Cells that touch nothing are components of their own: how many are these?",
        "Fewest: all that touch hang together in one clump. Most: they come in pairs.",
        "Three cells that touch cannot be a pair and a half: round down.",
    ),
)

# 02.6


def _costs(truth, logits):
    """Cross-entropy, summed over pixels, of calling true id a by the logit b; `(K + 1, K + 1)`."""
    each = -log_softmax(logits, axis=-1)
    return np.array([each[truth == k].sum(axis=0) for k in range(logits.shape[-1])])


def matched_cross_entropy(truth, logits):
    costs = _costs(truth, logits)
    rows, columns = linear_sum_assignment(costs[1:, 1:])
    return (costs[0, 0] + costs[1:, 1:][rows, columns].sum()) / truth.size


def _with_background_matched(truth, logits):
    costs = _costs(truth, logits)
    return costs[linear_sum_assignment(costs)].sum() / truth.size


def _two_to_one(truth, logits):
    costs = _costs(truth, logits)
    return (costs[0, 0] + costs[1:, 1:].min(axis=1).sum()) / truth.size


def _greedy(truth, logits):
    costs, total, free = _costs(truth, logits), 0.0, set(range(1, logits.shape[-1]))
    for k in range(1, logits.shape[-1]):
        best = min(free, key=lambda j: costs[k, j])
        free.remove(best)
        total += costs[k, best]
    return (total + costs[0, 0]) / truth.size


def _plain(truth, logits):
    return np.trace(_costs(truth, logits)) / truth.size


def _matched_cases():
    rng = np.random.default_rng(3)
    truth = np.array([[0, 1, 1, 0, 2, 2], [0, 1, 1, 0, 2, 2], [3, 3, 0, 0, 0, 2]])
    sure = 6.0 * np.eye(4)[truth]
    yield Case("a sure and right answer, numbered like the truth", (truth, sure))
    yield Case("the same answer, the truth numbered otherwise", (np.array([0, 3, 1, 2])[truth], sure))
    yield Case("an unsure answer", (truth, sure / 3 + rng.normal(0, 1, sure.shape)))
    # Objects 1 and 2 both look like the answer's 1; object 3 wants 3 a little, 2 much less.
    torn = np.zeros((1, 8, 4))
    torn[0, 2:4] = [0, 3, 2.5, 0]
    torn[0, 4:6] = [0, 4, 0, 0]
    torn[0, 6:8] = [0, 0, 0, 3]
    yield Case("two objects that want the same number", (np.array([[0, 0, 1, 1, 2, 2, 3, 3]]), torn))
    swapped = 6.0 * np.eye(4)[np.array([1, 0, 2, 3])[truth]]
    yield Case("an answer that calls the background an object", (truth, swapped))


MATCHED = Exercise(
    "02.6",
    "matched_cross_entropy",
    number("a number, the loss", 1e-5),
    lambda: list(_matched_cases()),
    matched_cross_entropy,
    (
        Mistake(
            "That is the plain cross-entropy: it changes when the true objects are numbered otherwise.",
            _plain,
        ),
        Mistake(
            "The background takes part in the matching; 0 means background in every map and keeps its number.",
            _with_background_matched,
        ),
        Mistake(
            "Two true objects may choose the same number; in an order each number is used once.", _two_to_one
        ),
        Mistake(
            "You let the objects choose one after the other, the first one best; the order with the "
            "smallest total is "
            "wanted (linear_sum_assignment finds it).",
            _greedy,
        ),
        Mistake(
            "You add up over the pixels; take the mean, so that large pictures do not cost more.",
            lambda truth, logits: matched_cross_entropy(truth, logits) * truth.size,
        ),
    ),
    (
        "-log_softmax(logits) is what each pixel pays for each number. Add it up over the pixels of "
        "each true object: a table of costs.",
        "Leave the background out of the table; its row and column 0 stay together.",
        "scipy.optimize.linear_sum_assignment finds the cheapest pairs; divide the total by the "
        "number of pixels.",
    ),
)

EXERCISES = (COUNT, COMPONENTS, SAME_OBJECTS, AP, COMPONENT_BOUNDS, MATCHED)
