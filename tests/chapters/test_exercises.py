"""The checks of all chapters: what is right passes in every usual style, and what people get wrong is refused in words.

`TRIED` has for each exercise right functions, and wrong ones with a part of the sentence that has to refuse them. Most
of the wrong ones are the course's own solution with a slip in it: `but(old, new, ...)`. The solution itself, and its result
in float32 and as a list, are tried for all.
"""

import json
import math
from functools import cache
from itertools import groupby, permutations
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage, signal
from scipy.spatial import cKDTree
from scipy.special import log_softmax, logsumexp, softmax
from skimage.measure import block_reduce, label, regionprops
from sklearn.metrics import adjusted_rand_score, confusion_matrix, jaccard_score

from course_lib import metrics
from course_lib.datasets import boxes_from_instances
from course_lib.datasets.targets import border_weights
from course_lib.ops import by_hand
from course_lib.ops.tiles import overlap_tile
from course_lib.teaching.checker import exercises, find, judge

SOLUTIONS = Path(__file__).resolve().parents[2] / "notebooks" / "solutions"


def but(*slips):
    """The solution with its text changed: old, new, old, new, ..."""
    return slips


@cache
def code_of(chapter):
    """The code cells of a chapter's solution that import or define something, without what they show."""
    [path] = SOLUTIONS.glob(f"{chapter}_*.ipynb")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    sources = [source.split("\n\n\nmask =")[0] for source in sources]
    return [s for s in sources if s.startswith(("import", "from", "def", "class")) and "print(" not in s]


def solution(number, slips=()):
    """The course's own solution, with some of its text changed."""
    exercise, space = find(number), {}
    for source in code_of(number.partition(".")[0]):
        if f"def {exercise.name}(" in source or f"class {exercise.name}(" in source:
            for old, new in zip(slips[::2], slips[1::2], strict=True):
                assert old in source, f"{old!r} is not in the solution to {number}"
                source = source.replace(old, new)
        exec(compile(source, f"<solution {number}>", "exec"), space)
    return space[exercise.name]


# 01


def iou_on_a_grid(a, b):
    grids = []
    for box in (a, b):
        x1, y1, x2, y2 = (round(4 * edge) for edge in box)
        grids.append(np.zeros((60, 60), bool))
        grids[-1][y1:y2, x1:x2] = True
    return metrics.iou(*grids)


def iou_vectorised(a, b):
    sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    return sides.prod() / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - sides.prod())


def nms_vectorised(boxes, scores, threshold):
    """As it stands in many repositories."""
    x1, y1, x2, y2 = boxes.T
    areas, order, keep = (x2 - x1) * (y2 - y1), scores.argsort()[::-1], []
    while order.size > 0:
        i, rest = order[0], order[1:]
        keep.append(i)
        w = np.maximum(0.0, np.minimum(x2[i], x2[rest]) - np.maximum(x1[i], x1[rest]))
        h = np.maximum(0.0, np.minimum(y2[i], y2[rest]) - np.maximum(y1[i], y1[rest]))
        order = rest[w * h / (areas[i] + areas[rest] - w * h) <= threshold]
    return keep


def fraction_by_corners(length, width, degrees):
    t = np.deg2rad(degrees)
    corners = [[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]] @ (
        np.array([[length], [width]]) / 2 * [[1, 1, -1, -1], [1, -1, 1, -1]]
    )
    return length * width / np.prod(np.ptp(corners, axis=1))


def area_of_hull(a, b, d):
    turn = np.exp(1j * np.pi * d / 180)
    corners = np.array([a + 1j * b, a - 1j * b]) / 2 * turn
    return 4 * np.abs(corners.real).max() * np.abs(corners.imag).max()


def runs_by_changes(mask):
    line = mask.ravel(order="F")
    return np.diff(np.flatnonzero(np.diff(line, prepend=False)), prepend=0, append=line.size)


def runs_by_groups(mask):
    counts = [len(list(group)) for _, group in groupby(mask.T.ravel().tolist())]
    return [0, *counts] if mask[0, 0] else counts


def clicks_at_once(side, sigma, trials, rng):
    edges = np.array([0, 0, side, side]) + rng.normal(0, sigma, (trials, 4))
    return np.mean([by_hand.iou([0, 0, side, side], box) for box in edges])


def clicks_with(noise):
    def clicks(side, sigma, trials, rng):
        box = np.array([0, 0, side, side])
        return np.mean([by_hand.iou(box, box + noise(rng, sigma)) for _ in range(trials)])

    return clicks


TRIED = {
    "01.1": (
        [
            lambda m: [f(a) + (f is max) for f in (min, max) for a in np.nonzero(m)[::-1]],
            lambda m: [regionprops(m.astype(int))[0].bbox[k] for k in (1, 0, 3, 2)],
            lambda m: boxes_from_instances(m.astype(np.int32))[0],
        ],
        [
            (but("columns[-1] + 1, rows[-1] + 1", "columns[-1], rows[-1]"), "x2 and y2 are exclusive"),
            (lambda m: regionprops(m.astype(int))[0].bbox, "Rows and columns are swapped: an array"),
            (
                but("axis=0", "axis=9", "axis=1", "axis=0", "axis=9", "axis=1"),
                "Rows and columns are swapped: an array",
            ),
            (
                lambda m: [f(a) for f in (min, max) for a in np.nonzero(m)],
                "and the right and bottom edges are one pixel too small",
            ),
            (
                but("columns[-1] + 1, rows[-1] + 1", "len(columns), len(rows)"),
                "expected [3, 1, 4, 2], got [3, 1, 1, 1]",
            ),
            (
                but("columns[-1] + 1, rows[-1] + 1", "np.ptp(columns) + 1, np.ptp(rows) + 1"),
                "You return x, y, width, height, as COCO does",
            ),
            (but("rows[0], columns[-1] + 1", "columns[-1] + 1, rows[0]"), "in the order x1, x2, y1, y2"),
            (
                but("columns[0], rows[0]", "columns[0] - 1, rows[0] - 1"),
                "one pixel too large at the left and top edges",
            ),
        ],
    ),
    "01.2": (
        [iou_on_a_grid, iou_vectorised, by_hand.iou, but("return shared /", "return np.float32(shared) /")],
        [
            (but("area_b - shared", "area_b"), "Your union counts the overlap twice"),
            (
                but("max(width, 0) * max(height, 0)", "width * height"),
                "Boxes that do not overlap get an incorrect value",
            ),
            (but("max(width, 0) * max(height, 0)", "max(width * height, 0)"), "their product is positive"),
            (
                but(
                    "- max(a[0], b[0])", "- max(a[0], b[0]) + 1", "- max(a[1], b[1])", "- max(a[1], b[1]) + 1"
                )
                + ("a[2] - a[0]", "a[2] - a[0] + 1", "a[3] - a[1]", "a[3] - a[1] + 1")
                + ("b[2] - b[0]", "b[2] - b[0] + 1", "b[3] - b[1]", "b[3] - b[1] + 1"),
                "Your widths are one too large",
            ),
            (
                but("return shared / (area_a + area_b - shared)", "return 2 * shared / (area_a + area_b)"),
                "That is Dice",
            ),
            (but("(area_a + area_b - shared)", "min(area_a, area_b)"), "by the area of the smaller box"),
            (but("(area_a + area_b - shared)", "area_a"), "by the area of the first box only"),
            (
                but("min(a[2], b[2])", "max(a[2], b[2])"),
                "Input 1 (the boxes (2, 1, 6, 4) and (4, 2, 9, 5)): expected 0.1",
            ),
        ],
    ),
    "01.3": (
        [
            fraction_by_corners,
            lambda a, b, d: a * b / area_of_hull(a, b, d),
        ],
        [
            (but("np.deg2rad(degrees)", "degrees"), "np.cos and np.sin take radians"),
            (
                but("abs(np.cos(np.deg2rad(degrees)))", "np.cos(np.deg2rad(degrees))"),
                "Beyond 90 degrees a cosine is negative",
            ),
            (lambda a, b, d: a * b / (a * b), "Your result does not change when the rectangle is turned"),
            (
                but("length * width /", "1 / (length * width) *"),
                "You return how many times larger the box is",
            ),
            (
                but("length * c + width * s", "length * c", "length * s + width * c", "length * s"),
                "only as wide as the long side",
            ),
            (but("length * s + width * c", "length * c + width * s"), "You treat the box as a square"),
            (but("length * width", "np.pi / 4 * length * width"), "expected 1, got 0.7854"),
        ],
    ),
    "01.4": (
        [
            nms_vectorised,
            by_hand.nms,
            lambda b, s, t: np.array(by_hand.nms(b.tolist(), s.tolist(), t), int),
        ],
        [
            (
                but(
                    "for other in kept",
                    "for other in np.argsort(-scores)[: list(np.argsort(-scores)).index(row)]",
                ),
                "already supp",
            ),
            (but('np.argsort(-scores, kind="stable")', "range(len(scores))"), "in the order of the list"),
            (but("-scores", "scores"), "You begin with the lowest score"),
            (but("<= threshold", "< threshold"), "A box whose IoU equals the threshold stays"),
            (but("return kept", "return sorted(kept)"), "The boxes are correct, but sorted by row"),
            (but("return kept", "return boxes[kept]"), "return their row indices"),
            (but("<= threshold", ">= threshold"), "Your comparison is the wrong way round"),
            (but("in kept)", "in kept[-1:])"), "only with the one kept last"),
            (but("return kept", "return np.zeros((3000, 3000))"), "an array of shape (3000, 3000)"),
        ],
    ),
    "01.5": (
        [runs_by_changes, runs_by_groups, but("mask.ravel(order=", "mask.astype(int).ravel(order=")],
        [
            (but('order="F"', 'order="C"'), "You read the mask row by row"),
            (
                but("return counts", "return counts[counts[0] == 0 :]"),
                "The first run must consist of off pixels",
            ),
            (but("return counts", "return counts[:-1]"), "The last run is missing"),
            (but("return counts", "return counts[1::2]"), "You list only the runs of on pixels"),
            (but("return counts", "return np.cumsum(counts)"), "You return where the runs end"),
            (but("counts.append(0)", "counts.append(1)"), "got [2, 4, 2]"),
        ],
    ),
    "01.6": (
        [clicks_at_once, clicks_with(lambda rng, sigma: sigma * rng.standard_normal(4))],
        [
            (clicks_with(lambda rng, s: [0, 0, *rng.normal(0, s, 2)]), "Only one corner varies"),
            (
                but("rng.normal(0, sigma, 4)", "rng.normal(0, sigma**2, 4)"),
                "takes the standard deviation sigma",
            ),
            (
                but("rng.normal(0, sigma, 4)", "rng.normal(0, sigma**0.5, 4)"),
                "takes the standard deviation sigma",
            ),
            (
                but("    box =", "    rng = np.random.default_rng(0)\n    box ="),
                "Two different generators",
            ),
            (but("rng.normal", "np.random.normal"), "The same generator gives two different numbers"),
            (
                clicks_with(lambda rng, s: np.tile(rng.normal(0, s, 2), 2)),
                "You shift the whole box by two random numbers",
            ),
            (clicks_with(lambda rng, s: rng.normal(0, s)), "You shift the whole box"),
            (but("return np.mean", "return 1 - np.mean"), "You return the loss in IoU"),
            (but("sigma, 4)", "sigma * side / 20, 4)"), "yours grows with the side"),
        ],
    ),
}


# 02


def components_wrapped(mask, modulo):
    """`modulo`: neighbours wrap around both edges; otherwise index -1 does, and what is beyond the last row is left out."""
    height, width = mask.shape
    ids, count = np.zeros(mask.shape, int), 0
    for start in np.argwhere(mask):
        count += 1
        stack = [tuple(start)]
        while stack:
            r, c = stack.pop()
            if modulo:
                r, c = r % height, c % width
            if r < height and c < width and mask[r, c] and not ids[r, c]:
                ids[r, c] = count
                stack += [(r + i, c + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    return ids


def components_in_one_pass(mask):
    ids, count = np.zeros(mask.shape, int), 0
    for r, c in np.argwhere(mask):
        above = ids[max(r - 1, 0) : r, max(c - 1, 0) : c + 2]
        before = [*above[above > 0].tolist(), *([ids[r, c - 1]] if c and ids[r, c - 1] else [])]
        count += not before
        ids[r, c] = min(before, default=count)
    return ids


def components_by_union(mask):
    parent = {(r, c): (r, c) for r, c in np.argwhere(mask).tolist()}

    def root(p):
        while parent[p] != p:
            p = parent[p]
        return p

    for r, c in parent:
        for other in ((r - 1, c - 1), (r - 1, c), (r - 1, c + 1), (r, c - 1)):
            if other in parent:
                parent[root(other)] = root((r, c))
    ids, roots = np.zeros(mask.shape), sorted({root(p) for p in parent})
    for p in parent:
        ids[p] = 1 + roots.index(root(p))
    return ids


def components_by_spreading(mask):
    ids = np.arange(1, mask.size + 1).reshape(mask.shape) * mask
    for _ in range(mask.size):
        ids = ndimage.maximum_filter(ids, 3, mode="constant") * mask
    return ids


def same_by_renumbering(a, b):
    def renumbered(m):
        _, first, inverse = np.unique(m, return_index=True, return_inverse=True)
        return np.argsort(np.argsort(first))[inverse.ravel()]

    return bool(np.array_equal(a == 0, b == 0) and np.array_equal(renumbered(a), renumbered(b)))


def props(m, *names):
    return sorted(tuple(np.hstack([r[name] for name in names])) for r in regionprops(m.astype(int)))


def by_props(*names):
    return lambda a, b: bool(np.array_equal(a > 0, b > 0)) and props(a, *names) == props(b, *names)


def ap_by_table(true, predicted, threshold):
    table = metrics.iou_matrix(true, predicted)
    tp = (table > threshold).sum()
    return np.float64(tp / (sum(table.shape) - tp)) if sum(table.shape) else 1


def plain_cross_entropy(targets, logits):
    return -np.take_along_axis(log_softmax(logits, axis=-1), targets[..., None], -1).mean()


def matched_by_trying(targets, logits, first=1):
    orders = permutations(range(first, logits.shape[-1]))
    return min(plain_cross_entropy(np.array([0, *o][1 - first :])[targets], logits) for o in orders)


GREEDY = """rows, columns, free = range(K), [], list(range(K))
    for row in rows:
        columns.append(min(free, key=lambda j: costs[1 + row, 1 + j]))
        free.remove(columns[-1])
    rows = list(rows)"""
AP_END = "return found / (len(true_ids) + len(predicted_ids) - found)"

TRIED |= {
    "02.1": (
        [lambda m: np.unique(m[m > 0]).size, lambda m: len(set(m.ravel().tolist()) - {0})],
        [
            (lambda m: m.max(), "You return the highest id"),
            (but("instances[instances != 0]", "instances"), "You count the background"),
            (lambda m: len(np.unique(m)) - 1, "You always subtract one for the background"),
            (lambda m: label(m, background=0).max(), "You count connected components"),
            (lambda m: np.count_nonzero(m), "You count pixels"),
        ],
    ),
    "02.2": (
        [components_by_union, components_by_spreading],
        [
            (lambda m: label(m, connectivity=2), "it was made by a library's label function"),
            (lambda m: ndimage.label(m, np.ones((3, 3)))[0], "it was made by a library's label function"),
            (lambda m: label(m, connectivity=1), "You use 4 neighbours"),
            (lambda m: components_wrapped(m, True), "Your neighbours wrap around the edge"),
            (lambda m: components_wrapped(m, False), "Your neighbours wrap around the edge"),
            (components_in_one_pass, "Two ids that meet later remain two objects"),
            (
                but("range(max(row - 1, 0), min(row + 2, mask.shape[0]))", "[row]"),
                "You join pixels along a row only",
            ),
            (but("return numbers", "return numbers + 1"), "You number the background as well"),
        ],
    ),
    "02.3": (
        [
            same_by_renumbering,
            lambda a, b: (
                np.array_equal(a == 0, b == 0) and adjusted_rand_score(a.ravel(), b.ravel()) > 1 - 1e-12
            ),
        ],
        [
            (lambda a, b: (a == b).all(), "You compare ids. They have no order"),
            (lambda a, b: len(np.unique(a)) == len(np.unique(b)), "You compare the number of objects"),
            (lambda a, b: props(a, "area") == props(b, "area"), "You compare the objects' areas"),
            (lambda a, b: ((a > 0) == (b > 0)).all(), "You compare which pixels belong to any object"),
            (lambda a, b: adjusted_rand_score(a.ravel(), b.ravel()) == 1, "exchanged with an object"),
            (but("== len({y for _, y in pairs})", ""), "You check in one direction only"),
            (by_props("bbox", "area"), "You compare boxes, areas or centroids"),
            (by_props("centroid"), "You compare boxes, areas or centroids"),
        ],
    ),
    "02.4": (
        [ap_by_table, lambda t, p, threshold: metrics.average_precision([t], [p], threshold)],
        [
            (
                but(
                    "a, b = true == k, predicted == j", "a, b = true == k, predicted == (j if j == k else -1)"
                ),
                "by their ids",
            ),
            (
                but(AP_END, "return found / len(predicted_ids) if len(predicted_ids) else 0"),
                "That is the precision",
            ),
            (but(AP_END, "return found / len(true_ids) if len(true_ids) else 0"), "That is the recall"),
            (but(AP_END, "return 2 * found / (len(true_ids) + len(predicted_ids))"), "That is the F1 score"),
            (
                but("len(predicted_ids) - found)", "len(predicted_ids))"),
                "counts the matched objects twice",
            ),
            (but("m[m > 0]", "m"), "You count the background as an object"),
            (but("np.sum(a | b)", "np.sum(a)"), "You divide the overlap by the true object's area"),
            (but("> threshold", ">= threshold"), "above the threshold, not if it equals"),
            (but("return 1.0", "return 0.0"), "Two empty maps agree: their AP is 1."),
            (but("return 1.0", "return float('nan')"), "where 0 / 0 is not a number"),
        ],
    ),
    "02.5": (
        [
            lambda n, t: np.array([n - max(t - 1, 0), n - (t + 1) // 2]),
            lambda n, t: [
                n - t + f(k for k in range(t + 1) if (k == 0) == (t == 0) and 2 * k <= t) for f in (min, max)
            ],
        ],
        [
            (
                but("alone = cells - touching", "alone = 0"),
                "You leave out the cells that touch no other cell",
            ),
            (but("alone + 1,", "alone,"), "The clump itself is a component"),
            (but("touching // 2", "touching / 2"), "With an odd number, one of the groups has three cells"),
            (
                but("touching // 2", "-(-touching // 2)"),
                "With an odd number, one of the groups has three cells",
            ),
            (but("touching == 0", "touching < 0"), "there is no clump to add"),
            (
                but("alone + 1, alone + touching // 2", "alone + touching // 2, alone + 1"),
                "The numbers are correct but in the wrong order",
            ),
        ],
    ),
    "02.6": (
        [
            matched_by_trying,
            lambda t, z: min(
                -np.log(np.take_along_axis(softmax(z[..., [0, *o]], -1), t[..., None], -1)).mean()
                for o in permutations(range(1, z.shape[-1]))
            ),
        ],
        [
            (plain_cross_entropy, "That is the plain cross-entropy"),
            (lambda t, z: matched_by_trying(t, z, 0), "You include the background in the matching"),
            (
                but("costs[1:, 1:][rows, columns].sum()", "costs[1:, 1:].min(axis=1).sum()"),
                "may get the same number",
            ),
            (but(" / targets.size", ""), "You sum over the pixels"),
            (but("targets.size", "np.count_nonzero(targets)"), "You divide by the pixels of the objects"),
            (but("-log_softmax(logits, axis=-1)", "-logits"), "Input 1 (a confident, correct prediction"),
            (but("rows, columns = linear_sum_assignment(costs[1:, 1:])", GREEDY), "one after the other"),
        ],
    ),
}

# 03


def convolve_at_once(image, kernel):
    return np.einsum("hwij,ij->hw", sliding_window_view(image, kernel.shape), kernel)


def even(x):
    return x[: x.shape[0] // 2 * 2, : x.shape[1] // 2 * 2]


def pool_by_maximum(x, of=np.maximum):
    rows = of(even(x)[::2], even(x)[1::2])
    return of(rows[:, ::2], rows[:, 1::2])


def field_backwards(layers):
    size = 1
    for kernel, stride in layers[::-1]:
        size = (size - 1) * stride + kernel
    return size


def shapes_recursively(size, depth, filters):
    rest = shapes_recursively((size - 4) // 2, depth - 1, 2 * filters) if depth else []
    return [(size - 4, filters), *rest]


def influence_by_blurring(layers):
    seen = np.eye(2 * layers + 1)[layers]
    for _ in range(layers):
        seen = ndimage.uniform_filter1d(seen, 3, mode="constant")
    return seen


def bell(n):
    x = np.arange(-n, n + 1)
    weights = np.exp(-(x**2) / (4 * n / 3)) if n else np.ones(1)
    return weights / weights.sum()


PAIR = "shapes.append((size, filters * 2**level))"

TRIED |= {
    "03.1": (
        [convolve_at_once, lambda p, k: signal.correlate2d(p, k, mode="valid")],
        [
            (lambda p, k: signal.convolve2d(p, k, mode="valid"), "Your kernel is flipped"),
            (lambda p, k: signal.correlate2d(p, k, mode="same"), "You pad the image with zeros"),
            (but("a - b + 1", "a - b"), "The last row and column are missing"),
            (but(".sum()", ".mean()"), "You take the mean of the products"),
            (lambda p, k: convolve_at_once(p, k.T), "Your kernel is transposed"),
            (
                but("out[row, column] = (window * kernel).sum()", "out[-1, -1] += 3"),
                "25 numbers are wrong. The first is at [",
            ),
        ],
    ),
    "03.2": (
        [lambda x: block_reduce(even(x), (2, 2, 1), np.max), pool_by_maximum],
        [
            (but("blocks.max", "blocks.mean"), "You take the mean of each block"),
            (lambda x: x[::2, ::2], "You keep every second pixel"),
            (
                but("blocks.max(axis=(1, 3))", "blocks.max(axis=(1, 3, 4))"),
                "You take the maximum over the channels, too",
            ),
            (
                lambda x: block_reduce(x, (2, 2, 1), np.max, cval=-np.inf),
                "A row or column that is left over becomes",
            ),
            (lambda x: sliding_window_view(x, (2, 2), axis=(0, 1)).max(axis=(-1, -2)), "Your blocks overlap"),
            (
                but("blocks.max(axis=(1, 3))", "np.maximum(blocks.max(axis=(1, 3)), 0)"),
                "Negative numbers become 0",
            ),
            (
                lambda x: x,
                "half as high and wide, shape (2, 3, 1); your function returns an array of shape (4, 6, 1)",
            ),
        ],
    ),
    "03.3": (
        [
            lambda a, b, k, bias: np.prod((k, k, a, b)) + (b if bias else 0),
            lambda a, b, k, bias: sum([k * k * a + bias] * b),
        ],
        [
            (but(" + bias", ""), "You forgot the bias"),
            (but("kernel * channels_in", "kernel"), "Each kernel covers all input channels"),
            (but("kernel * kernel", "kernel"), "The kernel has k · k weights"),
            (lambda a, b, k, bias: k * k * a * b + bias, "not a single one"),
            (but("+ bias", "+ 1"), "You always add a bias"),
            (lambda a, b, k, bias: k * k * a * b + bias * a, "not for each input channel"),
            (lambda a, b, k, bias: (k * k + bias) * a * b, "not for each pair of channels"),
        ],
    ),
    "03.4": (
        [field_backwards, lambda x: 1 + sum((k - 1) * np.prod(x[:n, 1]) for n, (k, _) in enumerate(x))],
        [
            (lambda x: 1 + sum(k - 1 for k, _ in x), "You forget the stride"),
            (
                but("(kernel - 1) * j, j", "(kernel - 1) * j * stride, j"),
                "A layer's stride does not enlarge its own receptive field",
            ),
            (but("(kernel - 1) * j", "kernel * j"), "A layer adds k - 1 steps, not k"),
            (lambda x: np.prod(x[:, 0]), "The kernel sizes do not multiply"),
            (but("r, j = 1, 1", "r, j = 0, 1"), "You begin at 0"),
            (but("j * stride", "j + stride - 1"), "You add the strides"),
            (but("return r", "return r // 2"), "You return the distance to one side"),
        ],
    ),
    "03.5": (
        [shapes_recursively, lambda *given: np.array(shapes_recursively(*given))],
        [
            (but("size -= 4", "size -= 0"), "Your convolutions are padded"),
            (but("filters * 2**level", "filters"), "The channels double"),
            (but("depth + 1", "depth"), "The bottleneck is missing"),
            (
                but(PAIR, "", "size //= 2", "size //= 2\n        " + PAIR),
                "You return the sizes after the pooling",
            ),
            (but("size -= 4", "size -= 2"), "each by one pixel at both ends; you subtract 2"),
            (but("size //= 2", "size /= 2"), "A side must be a whole number of pixels"),
            (but("size //= 2", "size = round(size / 2 + 0.1)"), "You round half a pixel up"),
        ],
    ),
    "03.6": (
        [influence_by_blurring, lambda n: np.polynomial.polynomial.polypow([1 / 3, 1 / 3, 1 / 3], n)],
        [
            (
                lambda n: np.ones(2 * n + 1) / (2 * n + 1),
                "You give every pixel of the receptive field the same influence",
            ),
            (but("[1 / 3, 1 / 3, 1 / 3]", "[1, 1, 1]"), "You count the paths"),
            (but("range(layers)", "range(layers + 1)"), "You apply one layer too many"),
            (but("1 / 3])", '1 / 3], "same")'), "mode='same' cuts the ends off"),
            (bell, "That is a Gaussian"),
            (
                but("[1 / 3, 1 / 3, 1 / 3]", "[0.25, 0.5, 0.25]"),
                "You give the middle of each kernel double weight",
            ),
        ],
    ),
}

# 04


def transposed_by_zeros(x, kernel, stride):
    spread = np.zeros((len(x) - 1) * stride + 1)
    spread[::stride] = x
    return np.convolve(spread, kernel)


def weights_by_trees(instances, w0, sigma):
    cells = [np.argwhere(instances == k) for k in np.unique(instances[instances > 0])]
    weights = np.ones(instances.shape)
    if len(cells) > 1:
        background = np.argwhere(instances == 0)
        d = np.sort([cKDTree(cell).query(background)[0] for cell in cells], axis=0)
        weights[instances == 0] += w0 * np.exp(-((d[0] + d[1]) ** 2) / (2 * sigma**2))
    return weights


def tiles_of_the_library(model, image, tile, margin):
    def predict(windows):
        return np.stack([model(window[..., 0]) for window in windows])[..., None]

    return overlap_tile(predict, image[..., None], (tile, tile), margin)[..., 0]


def margin_downwards(model, image, tile, tolerance):
    by_tiles = solution("04.5")

    def apart(margin):
        return np.abs(by_tiles(model, image, tile, margin) - model(image))[tile:-tile, tile:-tile].max()

    return max([m + 1 for m in range(tile) if apart(m) > tolerance], default=0)


CROPPED = "np.concatenate([skip[top : top + height, left : left + width], up], axis=-1)"
PADDING = "(margin, margin + -height % tile), (margin, margin + -width % tile)"

TRIED |= {
    "04.1": (
        [
            lambda n, k, s: len(np.convolve(np.zeros((n - 1) * s + 1), np.ones(k))),
            lambda n, k, s: n * s + k - s,
        ],
        [
            (but("(size - 1) * stride + kernel", "size * stride"), "That is size · stride"),
            (but("(size - 1)", "size"), "You put a stride before the first stamp"),
            (but(" + kernel", ""), "add the kernel size."),
            (but("+ kernel", "+ 1"), "add the kernel size, not 1"),
            (lambda n, k, s: (n - k) // s + 1, "That is the size after an ordinary convolution"),
            (lambda n, k, s: n * s + max(k - s, 0), "That is Keras's size"),
        ],
    ),
    "04.2": (
        [
            transposed_by_zeros,
            lambda x, k, s: signal.upfirdn(k, x, s),
            lambda x, k, s: sum(np.pad(v * k, (i * s, (len(x) - 1 - i) * s)) for i, v in enumerate(x)),
        ],
        [
            (but("+= value", "= value"), "A later stamp overwrites an earlier one"),
            (but("value * kernel", "value * kernel[::-1]"), "Your kernel is flipped"),
            (
                but("[k * stride : k * stride + len(kernel)]", "[k : k + len(kernel)]"),
                "Your stamps lie one pixel apart",
            ),
            (but("return out", "return out[: len(x) * stride]"), "You cut the output off at size · stride"),
            (but("value * kernel", "kernel"), "You add the plain kernel for each input"),
            (
                lambda x, k, s: np.pad(transposed_by_zeros(x, k, s), (0, max(s - len(k), 0))),
                "as Keras's does",
            ),
        ],
    ),
    "04.3": (
        [
            lambda s, u: np.dstack(
                [s[(len(s) - len(u)) // 2 :][: len(u), (s.shape[1] - u.shape[1]) // 2 :][:, : u.shape[1]], u]
            ),
            but(
                CROPPED,
                "np.concatenate([skip[top : len(skip) - top, left : skip.shape[1] - left], up], axis=2)",
            ),
        ],
        [
            (but("top, left =", "top, left = 0, 0  #"), "You crop the upper left corner"),
            (but("axis=-1", "axis=0"), "You stack them vertically"),
            (but("left + width], up]", "left + width], up][::-1]"), "In your result the features come first"),
            (
                lambda s, u: np.dstack(
                    [ndimage.zoom(s, [a / b for a, b in zip(u.shape[:2], s.shape)] + [1], order=0), u]
                ),
                "Input 1",
            ),
            (
                but(CROPPED, "skip[top : top + height, left : left + width] + up"),
                "You add the skip; U-Net concatenates",
            ),
            (
                but("[top : top + height, left : left + width]", "[top:-top, left:-left]"),
                "A slice such as [0:-0] is empty",
            ),
        ],
    ),
    "04.4": (
        [weights_by_trees, lambda m, w0, s: border_weights(m.astype(np.int32), w0, s, class_weights=(1, 1))],
        [
            (but("d1 + d2", "d1"), "You use the nearest cell only"),
            (but("d1 + d2", "d1 + d1"), "You use the nearest cell twice"),
            (but("(d1 + d2) ** 2", "d1**2 + d2**2"), "You square the distances separately"),
            (but("(2 * sigma**2)", "sigma**2"), "The exponent lacks its 2"),
            (but("sigma**2", "sigma"), "σ is not squared"),
            (but("(instances == 0) * ", ""), "Your term is added inside the cells, too"),
            (but("1 + (inst", "(inst"), "The smallest weight is 1"),
            (but("instances != k", "instances == k"), "measures the distance to the nearest zero"),
            (but("if len(distances) < 2:", "if len(distances) < 1:"), "One cell has no neighbour"),
        ],
    ),
    "04.5": (
        [
            tiles_of_the_library,
            but(PADDING, "(margin, margin + tile), (margin, margin + tile)"),
        ],
        [
            (lambda f, x, t, m: solution("04.5")(f, x, t, 0), "Your tiles get no margin"),
            (but('mode="reflect"', 'mode="constant"'), "Outside the image you put zeros"),
            (but('mode="reflect"', 'mode="edge"'), "Outside the image you repeat the edge pixel"),
            (but('mode="reflect"', 'mode="symmetric"'), "Your mirror repeats the edge pixel"),
            (
                but(
                    "(0, height, tile)",
                    "(0, height - tile + 1, tile)",
                    "(0, width, tile)",
                    "(0, width - tile + 1, tile)",
                ),
                "last tiles",
            ),
            (
                but("window[margin : margin + tile, margin : margin + tile]", "window[:tile, :tile]"),
                "wrong part of the prediction",
            ),
            (lambda f, x, t, m: f(x), "You give the model the whole image at once"),
        ],
    ),
    "04.6": (
        [margin_downwards, but("margin = model(image), 0", "margin = model(image.copy()), 0")],
        [
            (but("return margin", "return 2 * margin + 1"), "You return the whole receptive field"),
            (but("return margin", "return 2 * margin"), "You return twice the margin"),
            (but("model(image), 0", "model(image), 1"), "You begin at a margin of 1"),
            (but(".max()", ".mean()"), "You use the mean difference"),
            (but("return margin", "return margin + 1"), "Your margin is one too large"),
            (but("return margin", "return margin - 1"), "Your margin is one too small"),
            (but("> tolerance", "> 1e-9"), "Your margin does not depend on the tolerance"),
        ],
    ),
}

# 05


def kernel_location_by_location(weights, shape):
    kernel = np.zeros((*shape, weights.shape[1]))
    for y, x, c in np.ndindex(*shape):
        kernel[y, x, c] = weights[(y * shape[1] + x) * shape[2] + c]
    return kernel


def kernel_by_overlapping_blocks(factor):
    """A tent is what two blocks make that slide over each other, read in the middle between whole steps."""
    tent = np.convolve(np.ones(2 * factor), np.ones(2 * factor))[::2] / (2 * factor)
    return tent[:, None] @ tent[None, :]


def fused_by_stamps(coarse, fine, frame="edge", crop=3, join=np.add):
    """As in an FCN: a frame of the outermost scores, a transposed convolution (kernel 4, stride 2), the crop."""
    if frame:
        coarse = np.pad(coarse, ((1, 1), (1, 1), (0, 0)), mode=frame)
    spread = np.zeros((2 * coarse.shape[0] - 1, 2 * coarse.shape[1] - 1, coarse.shape[2]))
    spread[::2, ::2] = coarse
    kernel = kernel_by_overlapping_blocks(2)
    up = np.stack([signal.convolve2d(one, kernel) for one in np.moveaxis(spread, 2, 0)], axis=-1)
    return join(up[crop : crop + fine.shape[0], crop : crop + fine.shape[1]], fine)


def fused_by_indices(coarse, fine):
    """Three quarters of the own coarse score, one quarter of the next neighbour's, along each axis."""
    for axis in (0, 1):
        k = np.arange(fine.shape[axis])
        near, far = k // 2, np.clip(k // 2 + np.where(k % 2, 1, -1), 0, coarse.shape[axis] - 1)
        coarse = 0.75 * coarse.take(near, axis) + 0.25 * coarse.take(far, axis)
    return coarse + fine


def plan_from_the_end(strides, output_stride):
    """Each rate is the stride that the stage's map would have, over the one that it has."""
    plan = []
    for k in range(len(strides)):
        would, before = np.prod(strides[: k + 1]), np.prod(strides[:k])
        plan.append((min(would, output_stride) // min(before, output_stride), max(1, would // output_stride)))
    return plan


def f1_of_pairs(truth, predicted, tolerance, p=2):
    a, b = (np.argwhere(m & ~ndimage.binary_erosion(m)) for m in (truth, predicted))
    if not len(a) or not len(b):
        return float(len(a) == len(b))
    recall, precision = (np.mean(cKDTree(y).query(x, p=p)[0] <= tolerance) for x, y in ((a, b), (b, a)))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0


def comparison(one_row):
    return lambda seeds, draw: [one_row(seed, draw) for seed in seeds]


def two_scores(masks, size=2):
    return [
        np.mean([ndimage.binary_opening(m, iterations=k).sum() / m.sum() for m in masks]) for k in (1, size)
    ]


def by_seed(seed, draw):
    return two_scores([m > 0 for m in draw(seed)])


def one_generator(seeds, draw):
    rng = np.random.default_rng(0)
    return noisy(lambda seed: rng)(seeds, draw)


def noisy(rng):
    return comparison(lambda seed, draw: np.array(by_seed(seed, draw)) * rng(seed).uniform(0.9, 1))


ROWS = "return np.array(rows)"

TRIED |= {
    "05.1": (
        [lambda w, s: np.reshape(w, (*s, w.shape[1])), kernel_location_by_location],
        [
            (
                lambda w, s: np.moveaxis(w.reshape(s[2], s[0], s[1], -1), 0, 2),
                "You read the rows channel by channel",
            ),
            (lambda w, s: w.reshape(s[1], s[0], s[2], -1).swapaxes(0, 1), "You go down the columns"),
            (lambda w, s: w.reshape((*s, w.shape[1]), order="F"), "order='F'"),
            (but("weights.reshape", "weights.T.reshape"), "You transpose before you reshape"),
            (lambda w, s: w.T.reshape(w.shape[1], *s), "Your kernel begins with the outputs"),
            (but("channels, -1)", "channels, -1)[::-1, ::-1]"), "You rotate the kernel by 180 degrees"),
            (lambda w, s: w[None, None], "Yours is a 1 × 1 kernel"),
        ],
    ),
    "05.2": (
        [
            kernel_by_overlapping_blocks,
            lambda f: np.prod(np.meshgrid(*[(0.5 + np.r_[:f, f - 1 : -1 : -1]) / f] * 2), axis=0),
        ],
        [
            (but(" + 0.5", ""), "Your tent has its peak on a pixel"),
            (but("np.arange(2 * factor) + 0.5", "np.arange(1, 2 * factor)"), "Your kernel has an odd side"),
            (but("np.outer(tent, tent)", "np.outer(tent, tent) / factor**2"), "Your kernel sums to 1"),
            (
                but("np.outer(tent, tent)", "np.outer(tent, tent) / tent.max() ** 2"),
                "so that its largest value is 1",
            ),
            (
                but("np.outer(tent, tent)", "0 * np.outer(tent, tent) + 0.25"),
                "All values of your kernel are equal",
            ),
            (
                but("np.outer(tent, tent)", "np.add.outer(tent, tent) / 2"),
                "You take the mean of the two tents",
            ),
            (
                lambda f: np.clip(1 - np.hypot(*np.mgrid[0.5 - f : f, 0.5 - f : f]) / f, 0, 1),
                "Your kernel is a round cone",
            ),
            (but("np.outer(tent, tent)", "tent"), "That is one axis"),
        ],
    ),
    "05.3": (
        [fused_by_stamps, fused_by_indices],
        [
            (
                lambda c, f: np.kron(c, np.ones((2, 2, 1)))[: len(f), : f.shape[1]] + f,
                "You repeat each coarse score in a block",
            ),
            (
                lambda c, f: ndimage.zoom(c, [a / b for a, b in zip(f.shape, c.shape)], order=1) + f,
                "aligned corners",
            ),
            (but("/ 2 - 0.25", "/ 2"), "You are half a fine pixel off"),
            (lambda c, f: fused_by_stamps(c, f, None, 0), "Your coarse scores are shifted by one fine pixel"),
            (lambda c, f: fused_by_stamps(c, f, crop=2), "Your coarse scores are shifted by one fine pixel"),
            (lambda c, f: fused_by_stamps(c, f, None, 1), "At the border your coarse scores fade to 0"),
            (
                lambda c, f: fused_by_stamps(c, f, join=lambda a, b: np.concatenate([a, b], -1)),
                "You concatenate the scores",
            ),
            (lambda c, f: fused_by_stamps(c / 2, f / 2), "You take the mean of the two scores"),
            (but(" + fine", " * fine"), "You multiply the scores"),
            (but(" + fine", ""), "The fine scores are missing"),
        ],
    ),
    "05.4": (
        [plan_from_the_end, but("rate *= stride", "rate = int(rate * stride)")],
        [
            (
                but("plan.append((1, rate))", "plan.append((1, 1))"),
                "You leave out strides and dilate no kernel",
            ),
            (but("plan.append((1, rate))", "plan.append((1, stride))"), "the stage's own stride only"),
            (but("rate *= stride", "rate += stride - (rate == 1)"), "You add the strides left out"),
            (
                but(
                    "rate *= stride\n            plan.append((1, rate))",
                    "plan.append((1, rate))\n            rate *= stride",
                ),
                "late",
            ),
            (but("<= output_stride", "< output_stride"), "Your map ends at less than the output stride"),
            (but("<= output_stride", "<= 999"), "You keep all strides"),
            (
                but("return plan", "return [(s, plan[-1][1] if r > 1 else 1) for s, r in plan]"),
                "have the rate of the last",
            ),
            (
                but("in strides", "in strides[::-1]", "return plan", "return plan[::-1]"),
                "You leave out the first strides",
            ),
        ],
    ),
    "05.5": (
        [f1_of_pairs, metrics.boundary_f1],
        [
            (
                lambda t, p, d: 2 * (t & p).sum() / (t.sum() + p.sum()) if (t | p).any() else 1.0,
                "Dice coefficient of the areas",
            ),
            (
                lambda t, p, d: (t & p).sum() / (t | p).sum() if (t | p).any() else 1.0,
                "That is the IoU of the areas",
            ),
            (but("<= tolerance", "<= 0"), "Your result does not change with the tolerance"),
            (but("<= tolerance", "< tolerance"), "A pixel at exactly the tolerance counts as near"),
            (but("return 2 *", "return precision if 1 else 2 *"), "That is the precision alone"),
            (but("return 2 *", "return recall if 1 else 2 *"), "That is the recall alone"),
            (but("return 2 *", "return (precision + recall) / 2 if 1 else 2 *"), "You take the plain mean"),
            (lambda t, p, d: f1_of_pairs(t, p, d, 1), "Your distance counts steps to the four neighbours"),
            (lambda t, p, d: f1_of_pairs(t, p, d, np.inf), "Your distance counts a diagonal step as 1"),
            (but("binary_erosion(mask)", "binary_erosion(mask, np.ones((3, 3)))"), "only at a corner"),
            (
                but("binary_erosion(mask)", "binary_erosion(mask, border_value=1)"),
                "Your outline breaks off at the edge",
            ),
            (
                but("mask & ~ndimage.binary_erosion(mask)", "ndimage.binary_dilation(mask) & ~mask"),
                "Your outline lies outside",
            ),
            (
                but("== prediction.any()", "!= prediction.any()"),
                "Input 8 (two empty masks): expected 1, got 0.",
            ),
        ],
    ),
    "05.6": (
        [comparison(by_seed), noisy(np.random.default_rng)],
        [
            (but(ROWS, "return np.subtract(*np.transpose(rows))"), "You return the differences alone"),
            (but(ROWS, "return np.mean(rows, axis=0)"), "You return one mean of A and one of B"),
            (but(ROWS, "return np.mean(rows)"), "You return a single number"),
            (but(ROWS, "return np.transpose(rows)"), "Your seeds are in the columns"),
            (but(ROWS, "return 100 * np.array(rows)"), "A score of yours is above 1"),
            (but(ROWS, "return np.log(rows)"), "A score of yours is below 0"),
            (
                but("total = np.zeros(2), 0", "total = np.zeros(2), np.nan"),
                "A score of yours is not a number",
            ),
            (but("enumerate((8, 16))", "enumerate((8, 8))"), "A and B have the same score for every seed"),
            (comparison(lambda seed, draw: [0.7, 0.5]), "Every seed gives the same row"),
            (noisy(lambda seed: np.random), "The same seeds gave two different results"),
            (one_generator, "A seed's row depends on the seeds around"),
            (
                comparison(lambda seed, draw: np.random.default_rng(seed).random(2)),
                "you never call draw(seed)",
            ),
            (
                comparison(lambda seed, draw: [by_seed(seed, draw)[0], by_seed(seed + 1000, draw)[1]]),
                "have to see the same images",
            ),
            (
                comparison(lambda seed, draw: (draw(seed), np.random.default_rng(seed).random(2))[1]),
                "do not change with the images",
            ),
            (
                lambda seeds, draw: {seed: by_seed(seed, draw) for seed in seeds},
                "your function returns a dict",
            ),
            (
                lambda seeds: np.zeros((3, 2)),
                "Your function is called with 2 arguments; it is written for (seeds)",
            ),
        ],
    ),
}

# 06


def anchors_by_grid(feature_size, stride, sizes, ratios):
    root = np.sqrt(ratios)
    shapes = np.stack([np.outer(1 / root, sizes), np.outer(root, sizes)], axis=-1).reshape(-1, 2)
    y, x = np.mgrid[: feature_size[0], : feature_size[1]] * stride
    centres = np.stack([x, y], axis=-1).reshape(-1, 1, 2)
    return np.concatenate([centres - shapes / 2, centres + shapes / 2], axis=-1).reshape(-1, 4)


def log_sides(box):
    return np.log(box[2:] - box[:2])


def class_nms_by_class(boxes, scores, classes, threshold):
    rows = [np.flatnonzero(classes == one) for one in np.unique(classes)]
    kept = [int(r[k]) for r in rows for k in by_hand.nms(boxes[r], scores[r], threshold)]
    return sorted(kept, key=lambda row: -scores[row])


def level_by_halving(box):
    area, level = (box[2] - box[0]) * (box[3] - box[1]), 5
    while level > 2 and area < (224 * 2.0 ** (level - 4)) ** 2:
        level -= 1
    return level


def points_of(box, size, stride):
    x1, y1, x2, y2 = box / stride
    steps = (np.arange(size) + 0.5) / size
    return np.meshgrid(y1 + steps * (y2 - y1), x1 + steps * (x2 - x1), indexing="ij")


def region_by_scipy(feature_map, box, size, stride):
    return ndimage.map_coordinates(feature_map, points_of(box, size, stride), order=1, mode="nearest")


def region_by_hats(feature_map, box, size, stride):
    rows, columns = points_of(box, size, stride)
    down, across = (
        np.clip(1 - abs(x[:, None] - np.arange(n)), 0, 1)
        for x, n in zip((rows[:, 0], columns[0]), feature_map.shape)
    )
    return down @ feature_map @ across.T


def paste_by_pixels(grid, box, image_size):
    """Pixel by pixel; the grid framed by copies of its outer cells."""
    framed, n, out = np.pad(grid, 1, mode="edge"), len(grid), np.zeros(image_size, bool)
    for row, column in np.ndindex(*image_size):
        x, y = column + 0.5, row + 0.5
        if box[0] <= x <= box[2] and box[1] <= y <= box[3]:
            down, across = (
                (y - box[1]) / (box[3] - box[1]) * n + 0.5,
                (x - box[0]) / (box[2] - box[0]) * n + 0.5,
            )
            out[row, column] = by_hand.bilinear(framed[..., None], down, across)[0] >= 0.5
    return out


CORNERS = "[x - width / 2, y - height / 2, x + width / 2, y + height / 2]"
LOOPS = "for ratio in ratios:\n                for size in sizes:"
SIDES = "size / math.sqrt(ratio), size * math.sqrt(ratio)"
CLAMP = "min(max(math.floor(4 + math.log2(side / 224)), 2), 5)"
SIDE = "math.sqrt((box[2] - box[0]) * (box[3] - box[1]))"
READ = "(1 - t) * above + t * below"

TRIED |= {
    "06.1": (
        [
            anchors_by_grid,
            lambda f, d, s, r: [
                (j * d - a / b, i * d - a * b, j * d + a / b, i * d + a * b)
                for i in range(f[0])
                for j in range(f[1])
                for b in r**0.5
                for a in s / 2
            ],
        ],
        [
            (but(SIDES, "size * math.sqrt(ratio), size / math.sqrt(ratio)"), "Width and height are swapped"),
            (
                but(SIDES, "size / ratio, size * ratio"),
                "Your anchors of different ratios have different areas",
            ),
            (but(SIDES, "size, size * ratio"), "In your anchors only the height depends on the ratio"),
            (but(SIDES, "size, size"), "All your anchors are squares"),
            (
                but("column * stride, row * stride", "(column + 0.5) * stride, (row + 0.5) * stride"),
                "centred in a cell",
            ),
            (but("column * stride, row * stride", "column, row"), "Your anchors are one pixel apart"),
            (but(" / 2", ""), "Your anchors are twice as large"),
            (
                but(LOOPS, "for size in sizes:\n                for ratio in ratios:"),
                "At each location the ratios come first",
            ),
            (but(CORNERS, "[x, y, width, height]"), "You return centre and size"),
            (
                but(CORNERS, "[y - height / 2, x - width / 2, y + height / 2, x + width / 2]"),
                "Rows and columns are swapped",
            ),
        ],
    ),
    "06.2": (
        [
            by_hand.encode,
            lambda b, r: [
                *(((b[2:] + b[:2] - r[2:] - r[:2]) / 2) / (r[2:] - r[:2])),
                *(log_sides(b) - log_sides(r)),
            ],
        ],
        [
            (but("np.log(sides / sides_ref)", "sides / sides_ref"), "The logarithm is missing"),
            (
                but("np.log(sides / sides_ref)", "sides / sides_ref - 1"),
                "Your dw is the growth as a fraction",
            ),
            (but("np.log(", "np.log2("), "Your logarithm has a different base"),
            (
                but("(box[2:] + box[:2]) / 2, (reference[2:] + reference[:2]) / 2", "box[:2], reference[:2]"),
                "the corners",
            ),
            (but("(centre - centre_ref) / sides_ref", "centre - centre_ref"), "Your shift is in pixels"),
            (but("np.log(sides / sides_ref)", "np.log(sides / sides_ref)[::-1]"), "dw comes before dh"),
            (but("_ref) / sides_ref", "_ref) / sides_ref[::-1]"), "dx is divided by the reference's width"),
            (but("_ref) / sides_ref", "_ref) / sides"), "You divide by the sides of the box"),
            (lambda b, r: by_hand.encode(r, b), "Your deltas lead from the box to its reference"),
            (lambda b, r: by_hand.encode(b, r, (10, 10, 5, 5)), "Those are torchvision's box weights"),
        ],
    ),
    "06.3": (
        [class_nms_by_class, lambda b, s, c, t: nms_vectorised(b + 1000.0 * c[:, None], s, t)],
        [
            (
                but("if classes[other] == classes[row]", ""),
                "In your NMS boxes of different classes suppress each other",
            ),
            (
                but("== classes[row]", "!= classes[row]"),
                "Your comparison of the classes is the wrong way round",
            ),
            (
                but("in kept if", "in np.argsort(-scores)[: np.argsort(-scores).tolist().index(row)] if"),
                "already suppressed",
            ),
            (but("<= threshold", "< threshold"), "A box whose IoU equals the threshold stays"),
            (but("-scores", "scores"), "You begin with the lowest score"),
            (but("return kept", "return sorted(kept, key=lambda k: classes[k])"), "class after class"),
            (but("return kept", "return sorted(kept)"), "sorted by row"),
            (but("<= threshold for", "< 0 for"), "You keep one box of each class"),
        ],
    ),
    "06.4": (
        [
            level_by_halving,
            lambda b: np.clip(np.floor(4 + np.log2(np.sqrt(np.prod(b[2:] - b[:2])) / 224)), 2, 5),
        ],
        [
            (but(CLAMP, "math.floor(4 + math.log2(side / 224))"), "There is no such level"),
            (but("math.floor(", "round("), "You round to the nearest level"),
            (but("math.floor(", "math.ceil("), "You round up"),
            (
                but("math.floor(4 + math.log2(side / 224))", "4 + int(math.log2(side / 224))"),
                "You truncate towards 4",
            ),
            (but("math.sqrt(", "("), "You compare the area with 224"),
            (but(SIDE, "max(box[2] - box[0], box[3] - box[1])"), "You take the longer side"),
            (but(SIDE, "min(box[2] - box[0], box[3] - box[1])"), "You take the shorter side"),
            (but("math.log2", "math.log"), "Your logarithm has a different base"),
            (but("4 + math", "4 - math"), "Your levels are the wrong way round"),
            (but("(4 + ", "("), "You begin at level 0"),
        ],
    ),
    "06.5": (
        [region_by_scipy, region_by_hats],
        [
            (
                lambda f, *g: f[tuple(np.floor(np.array(points_of(*g)) + 0.5).astype(int))],
                "You read the nearest location",
            ),
            (but(READ, "feature_map[top, left]"), "You read only the upper left neighbour"),
            (but("box / stride", "np.floor(box / stride + 0.5)"), "Your box is rounded to whole locations"),
            (but("box / stride", "box // stride"), "Your box is rounded to whole locations"),
            (but("box / stride", "box / stride - 0.5"), "Your samples are half a location off"),
            (but("x1, y1, x2, y2 =", "y1, x1, y2, x2 ="), "x and y are swapped"),
            (but("(i + 0.5)", "i", "(j + 0.5)", "j"), "You sample at the beginning of each bin"),
            (but("y - top, x - left", "1 - y + top, 1 - x + left"), "The weights are exchanged"),
            (but("y - top, x - left", "0.5, 0.5"), "You give all four neighbours the same weight"),
            (
                but("min(top + 1, rows - 1), min(left + 1, columns - 1)", "top + 1, left + 1"),
                "Your neighbour lies outside the map",
            ),
            (lambda f, b, s, d: by_hand.roi_pool(f[..., None], b, s, 1 / d)[..., 0], "That is RoI Pool"),
        ],
    ),
    "06.6": (
        [paste_by_pixels, but("map_coordinates(grid,", "map_coordinates(grid.tolist(),")],
        [
            (but("map_coordinates(grid,", "map_coordinates(grid.T,"), "x and y are swapped in your grid"),
            (but("order=1", "order=0"), "You take the nearest cell of the grid"),
            (but("= box", "= np.floor(box + 0.5)"), "Your box is rounded to whole pixels"),
            (but("= box", "= box.astype(int)"), "Your box is truncated to whole pixels"),
            (
                but("map_coordinates(grid,", "map_coordinates(np.where(grid >= 0.5, 1.0, 0.0),"),
                "You threshold the grid at 0.5",
            ),
            (but("+ 0.5 - y1", "- y1", "+ 0.5 - x1", "- x1"), "Your mask is half a pixel off"),
            (but("(value >= 0.5) & inside", "value * inside"), "You return probabilities"),
            (but(" & inside", ""), "Your mask extends beyond its box"),
            (but(" * len(grid) - 0.5", " * len(grid)"), "Your grid is half a cell off"),
            (but(" * len(grid) - 0.5", " * (len(grid) - 1)"), "You align the centres of the outer cells"),
        ],
    ),
}


# 07


def match_by_loops(ious, high, low):
    matches = []
    for overlaps in ious.T.tolist():
        best = max(overlaps, default=0)
        rescued = any(iou and iou == max(row) for iou, row in zip(overlaps, ious.tolist()))
        near = rescued or (overlaps and best >= high)
        matches.append(overlaps.index(best) if near else -1 if best < low else -2)
    return matches


def sample_by_hand(matches, count, fraction, rng):
    rows = [np.flatnonzero(matches >= 0), np.flatnonzero(matches == -1)]
    positives, negatives = by_hand.sample(*rows, count, fraction, rng)
    return [1 if k in positives else 0 if k in negatives else -1 for k in range(len(matches))]


def sample_by_choice(matches, count, fraction, rng):
    drawn, left = np.full(len(matches), -1), count
    for kind, rows, most in ((1, matches >= 0, int(count * fraction)), (0, matches == -1, count)):
        rows = np.flatnonzero(rows)
        chosen = rng.choice(rows, min(len(rows), most, left), replace=False)
        drawn[chosen], left = kind, left - len(chosen)
    return drawn


def mask_loss_pixel_by_pixel(logits, classes, targets):
    z = [one[..., k] for one, k in zip(logits, classes) if k]
    y = [one for one, k in zip(targets, classes) if k]
    paid = [max(a, 0) - a * b + math.log1p(math.exp(-abs(a))) for a, b in zip(np.ravel(z), np.ravel(y))]
    return sum(paid) / len(paid) if paid else 0


def ap_plainly(ious, scores, threshold):
    taken, hits = set(), []
    for row in sorted(range(len(scores)), key=lambda row: -scores[row]):
        reach = [k for k in range(ious.shape[1]) if ious[row, k] >= threshold and k not in taken]
        hits.append(bool(reach))
        taken |= {max(reach, key=lambda k: ious[row, k])} if reach else set()
    points = [(sum(hits[: k + 1]) / ious.shape[1], sum(hits[: k + 1]) / (k + 1)) for k in range(len(hits))]
    return np.mean([max((p for r, p in points if r >= k / 100 - 1e-12), default=0) for k in range(101)])


Z_Y = "logits[rows, :, :, classes[rows]], targets[rows]"
PAID = "np.logaddexp(0, z) - y * z"
P = "1 / (1 + np.exp(-z))"
AREA = "np.mean([precision[recall >= r].max(initial=0) for r in np.linspace(0, 1, 101)])"
ERRORS = "np.abs(found - true_counts).sum() / np.sum(true_counts)"
RESCUED = "(of_object == of_object.max()) & (of_object > 0)"

TRIED |= {
    "07.1": (
        [
            lambda d, b: np.minimum(abs(d), b) ** 2 / (2 * b) + np.maximum(abs(d) - b, 0),
            np.vectorize(lambda d, b: d * d / b / 2 if abs(d) < b else abs(d) - b / 2),
        ],
        [
            (but("np.abs(difference)", "difference"), "Negative differences give an incorrect loss"),
            (but(" / beta,", ","), "correct for beta = 1 only: divide it by beta"),
            (but("0.5 * size**2", "size**2"), "The factor 0.5 is missing in the parabola"),
            (but("size - 0.5 * beta", "size"), "Your loss jumps where the line begins"),
            (but("size - 0.5 * beta", "size - 0.5"), "Your line subtracts 0.5"),
            (lambda d, b: np.where(abs(d) < b, d**2 / 2, b * (abs(d) - b / 2)), "That is the Huber loss"),
            (lambda d, b: d**2 / (2 * b), "Your loss is a parabola everywhere"),
            (lambda d, b: abs(d), "That is plain L1"),
            (but("size - 0.5 * beta)", "size - 0.5 * beta).mean()"), "You return one number"),
        ],
    ),
    "07.2": (
        [match_by_loops, but("ious.max(axis=0)", "np.array([max(one) for one in ious.T])")],
        [
            (but(RESCUED, RESCUED + " & False"), "You lose an object that no anchor overlaps enough"),
            (but("best < low, -1, -2", "best < high, -1, -2"), "background; they are neither, -2"),
            (but("best < low, -1, -2", "best < low, -2, -2"), "they are -1, not -2"),
            (
                but("best < low, -1, -2", "best < low, -2, -1", "ious.shape[1], -1", "ious.shape[1], -2"),
                "-1 and -2 are exchanged",
            ),
            (but("best >= high", "best > high"), "equals the high threshold"),
            (but("best < low", "best <= low"), "equals the low threshold"),
            (but(RESCUED, "np.arange(len(of_object)) == of_object.argmax()"), "argmax returns only one"),
            (but(" & (of_object > 0)", ""), "An object that no anchor touches has a best IoU of 0"),
            (
                but("of_object in ious", "k, of_object in enumerate(ious)", "= best_object[rescued]", "= k"),
                "even if it is the best one of another object",
            ),
            (but("best >= high", "best > 2"), "every one that reaches the high threshold is"),
            (but("if len(ious) == 0:", "if False:"), "Without an object all anchors are background"),
        ],
    ),
    "07.3": (
        [sample_by_hand, sample_by_choice],
        [
            (but("count - number", "number"), "You draw as many negatives as positives"),
            (but("count - number", "count - int(count * fraction)"), "You leave places empty"),
            (but("int(count * fraction)", "count"), "You draw every positive"),
            (but("matches == -1", "matches < 0"), "You draw ignored anchors (-2) as negatives"),
            (but("[: count - number]", "[:count]"), "You draw count negatives in addition to the positives"),
            (
                but("int(count * fraction)", "-int(-count * fraction // 1)"),
                "You round the number of positives up",
            ),
            (
                but("rng.permutation(positives)", "positives", "rng.permutation(negatives)", "negatives"),
                "Two different generators",
            ),
            (but("rng.permutation", "np.random.permutation"), "The same generator gives different anchors"),
            (
                lambda *given: sample_by_hand(*given)[::-1],
                "wrong ones",
            ),
        ],
    ),
    "07.4": (
        [
            mask_loss_pixel_by_pixel,
            but(PAID, "np.maximum(z, 0) - z * y + np.log1p(np.exp(-abs(z)))"),
        ],
        [
            (
                but(
                    Z_Y,
                    "logits[rows], np.eye(logits.shape[-1])[classes[rows]][:, None, None] * targets[rows][..., None]",
                ),
                "of all",
            ),
            (
                but(Z_Y, "logits[rows], targets[rows][..., None]"),
                "Your loss trains the same mask for all classes",
            ),
            (but("classes > 0", "classes >= 0"), "Background regions count in your loss"),
            (but(f"np.mean({PAID})", f"np.sum({PAID}) / targets.size"), "You divide by all regions"),
            (but("return 0.0", "return float('nan')"), "Without an object your loss is NaN"),
            (but(PAID, f"-(y * np.log({P}) + (1 - y) * np.log(1 - {P}))"), "Large logits overflow"),
            (but("classes[rows]]", "classes[rows] - 1]"), "Your channel is off by one"),
            (but(f"np.mean({PAID})", f"np.sum({PAID})"), "You sum over the pixels"),
            (but(PAID, f"np.logaddexp(0, {P}) - y * {P}"), "You apply the sigmoid twice"),
            (
                but(
                    PAID,
                    f"-(y * np.log(np.clip({P}, 1e-7, 1 - 1e-7)) + (1 - y) * np.log(1 - np.clip({P}, 1e-7, 1 - 1e-7)))",
                ),
                "clip",
            ),
        ],
    ),
    "07.5": (
        [ap_plainly, but("-scores", "-np.array(scores.tolist())")],
        [
            (but("free[best] &= not right[-1]", ""), "In your AP two detections of one object both count"),
            (but('np.argsort(-scores, kind="stable")', "range(len(scores))"), "in the order of the list"),
            (but("-scores", "scores"), "You begin with the lowest score"),
            (
                but(
                    AREA,
                    "np.mean([precision[recall >= r][0] if (recall >= r).any() else 0 for r in np.linspace(0, 1, 101)])",
                ),
                "first",
            ),
            (but("1, 101)", "1, 11)"), "You read the curve at 11 recall values"),
            (
                but("hits / ious.shape[1]", "hits / max(hits[-1:].sum(), 1)"),
                "You divide by the number of objects found",
            ),
            (but("hits / ious.shape[1]", "hits / len(ious)"), "You divide by the number of detections"),
            (but("best] >= threshold", "best] > threshold"), "An IoU that equals the threshold is enough"),
            (but("np.where(free, ious[row], -1)", "ious[row]"), "may match another object that is free"),
            (
                but(AREA, "precision[-1] if len(precision) else 0"),
                "That is the precision of all detections together",
            ),
            (
                but("free, right =", "ious.max()\n    free, right ="),
                "Without a detection your function stops or returns NaN",
            ),
        ],
    ),
    "07.6": (
        [
            lambda n, s, t: sum(abs(k - sum(x > t for x in one)) for k, one in zip(n, s)) / sum(n),
            lambda n, s, t: np.mean([abs(k - (one > t).sum()) for k, one in zip(n.tolist(), s)]) / n.mean(),
        ],
        [
            (
                but(ERRORS, "abs(found.sum() - true_counts.sum()) / np.sum(true_counts)"),
                "Too many in one image",
            ),
            (but("np.abs(found - true_counts)", "(found - true_counts)"), "Your error has a sign"),
            (
                but(ERRORS, "np.mean(np.abs(found - true_counts) / np.maximum(true_counts, 1))"),
                "You average the images' relative errors",
            ),
            (but("np.sum(true_counts)", "len(true_counts)"), "You return the errors per image"),
            (but(" / np.sum(true_counts)", ""), "You sum the errors"),
            (but("/ np.sum(true_counts)", "/ np.sum(found)"), "You divide by the number of objects found"),
            (but("np.abs(found - true_counts)", "((found - true_counts) ** 2)"), "You square the errors"),
            (
                but("> threshold", ">= threshold"),
                "A detection whose score equals the threshold does not count",
            ),
            (but("np.count_nonzero(one > threshold)", "len(one)"), "You count every detection"),
            (but(ERRORS, "np.mean(found != true_counts)"), "You count the images with an incorrect count"),
        ],
    ),
}

# 08


def mean_by_sklearn(true, predicted, n):
    t, p = true[true >= 0], predicted[true >= 0]
    return jaccard_score(t, p, labels=np.union1d(t, p), average="macro")


def ce_by_logsumexp(labels, logits):
    t, z = labels[labels != -1], logits[labels != -1]
    return np.mean(logsumexp(z, axis=-1) - z[np.arange(len(t)), t])


def pooled_by_confusion(true, predicted):
    t, p = (np.concatenate([m.ravel() for m in masks]) for masks in (true, predicted))
    (_, fp), (fn, tp) = confusion_matrix(t, p, labels=[False, True])
    return tp / (tp + fp + fn) if tp + fp + fn else 1.0


def threshold_by_loop(probabilities, true, thresholds):
    best, chosen = -1, None
    for t in thresholds:
        score = pooled_by_confusion(true, [p > t for p in probabilities])
        if score > best:
            best, chosen = score, t
    return chosen


BOTH = "return both / either, 2 * both / (np.sum(ground_truth) + np.sum(prediction))"
POOLED = "return both / either if either else 1.0"
IOUS = "(np.sum(t & p) / max(np.sum(t | p), 1) for t, p in zip(ground_truths, predictions))"
CHOSEN = "thresholds[int(np.argmax(scores))]"
SCORES = "pooled_iou(ground_truths, [p > t for p in probabilities])"
DICE = "1 - (2 * both + smooth) / (np.sum(mask) + np.sum(probabilities) + smooth)"

TRIED |= {
    "08.1": (
        [
            lambda t, p: (metrics.iou(t, p), metrics.dice(t, p)),
            lambda t, p: np.array(
                [k * metrics.iou(t, p) / (1 + (k - 1) * metrics.iou(t, p)) for k in (1, 2)]
            ),
        ],
        [
            (
                but("both / either,", "both / (np.sum(ground_truth) + np.sum(prediction)),"),
                "Your union counts the overlap twice",
            ),
            (but("2 * both", "both"), "Your Dice lacks its factor 2"),
            (
                but(BOTH, "return 2 * both / (both + either), both / either"),
                "The numbers are correct but in the wrong order",
            ),
            (but("return 1.0, 1.0", "return np.nan, np.nan"), "so both scores are 1; 0 / 0 is not a number"),
            (but("return 1.0, 1.0", "return 0.0, 0.0"), "so both scores are 1, not 0"),
            (
                but("both / either,", "np.mean(ground_truth == prediction),"),
                "Your first number is the pixel accuracy",
            ),
            (
                but("both / either,", "both / np.sum(ground_truth),"),
                "Your IoU ignores the false positive pixels",
            ),
        ],
    ),
    "08.2": (
        [mean_by_sklearn, lambda t, p, n: metrics.mean_iou(metrics.confusion_matrix(t, p, n))],
        [
            (
                but(
                    "if either:\n            ious.append(both / either)", "ious.append(both / max(either, 1))"
                ),
                "counts as 0",
            ),
            (
                but(
                    "if either:\n            ious.append(both / either)",
                    "ious.append((both + 1e-7) / (either + 1e-7))",
                ),
                "counts as 1",
            ),
            (
                but("keep = ground_truth != -1", "keep = ground_truth > -9"),
                "You count pixels whose true label is -1 as errors",
            ),
            (but("range(num_classes)", "range(1, num_classes)"), "You leave out the background"),
            (but("return np.mean(ious)", "return np.mean(true == predicted)"), "That is the pixel accuracy"),
            (
                but("np.sum((true == k) | (predicted == k))", "np.sum(true == k)"),
                "by the true pixels of each class",
            ),
            (
                but("np.sum((true == k) | (predicted == k))", "np.sum(true == k) + np.sum(predicted == k)"),
                "counts the overlap twice",
            ),
            (but("range(num_classes)", "np.unique(true)"), "You take the mean over the true classes only"),
        ],
    ),
    "08.3": (
        [
            pooled_by_confusion,
            lambda t, p: metrics.iou(*(np.concatenate([m.ravel() for m in masks]) for masks in (t, p))),
        ],
        [
            (
                lambda t, p: np.mean([metrics.iou(a, b) for a, b in zip(t, p)]),
                "You average over images; for all pixels",
            ),
            (
                but(POOLED, f"return np.mean([*{IOUS}])"),
                "You average over images (and an empty one counts 0)",
            ),
            (but("if either else 1.0", "if either else 0.0"), "No mask contains a pixel"),
            (
                but(POOLED, "return 2 * both / (both + either) if either else 1.0"),
                "That is Dice of all pixels together",
            ),
            (
                lambda t, p: np.average(
                    [metrics.iou(a, b) for a, b in zip(t, p)], weights=[a.sum() + 1e-9 for a in t]
                ),
                "You weight",
            ),
            (
                lambda t, p: metrics.iou(np.stack(t), np.stack(p)),
                "masks of different sizes cannot be stacked",
            ),
        ],
    ),
    "08.4": (
        [
            ce_by_logsumexp,
            lambda y, z: (
                sum(logsumexp(z[i]) - z[i][y[i]] for i in np.ndindex(y.shape) if y[i] >= 0) / (y >= 0).sum()
            ),
        ],
        [
            (lambda y, z: ce_by_logsumexp(y, softmax(z, axis=-1)), "You apply softmax twice"),
            (
                but("moved = logits - logits.max(axis=-1, keepdims=True)", "moved = logits"),
                "Large logits overflow",
            ),
            (but("-picked[keep].mean()", "-picked[keep].sum() / labels.size"), "but still counted"),
            (
                but("np.where(keep, labels, 0)", "labels", "picked[keep]", "picked"),
                "The label -1 picks the last class",
            ),
            (but("-picked", "picked"), "the logarithm of a probability is negative"),
            (but(".mean()", ".sum()"), "You sum over the pixels"),
            (
                but("-picked[keep].mean()", "-picked[keep].mean() / np.log(2)"),
                "Your logarithm has a different base",
            ),
            (
                but("picked[keep].mean()", "np.log(np.exp(picked[keep]) + 1e-7).mean()"),
                "You clip the probability away from 0",
            ),
        ],
    ),
    "08.5": (
        [
            lambda m, p, s: (m.sum() + p.sum() - 2 * (m * p).sum()) / (m.sum() + p.sum() + s),
            lambda m, p, s: 1 - (2 * np.vdot(m, p) + s) / (np.count_nonzero(m) + float(p.sum()) + s),
        ],
        [
            (but("1 - (2", "(2"), "That is the score; the loss is 1 minus it"),
            (
                but("both =", "probabilities = probabilities > 0.5\n    both ="),
                "You threshold the probabilities first",
            ),
            (but("2 * both", "both"), "The overlap lacks its factor 2"),
            (but("(2 * both + smooth)", "2 * both"), "smooth is in the denominator only"),
            (but(" + smooth", ""), "smooth is missing"),
            (
                but("np.sum(probabilities)", "np.sum(probabilities**2)"),
                "You square the probabilities in the denominator",
            ),
            (
                but(DICE, "1 - (both + smooth) / (np.sum(mask) + np.sum(probabilities) - both + smooth)"),
                "the soft Jaccard",
            ),
            (but("2 * both + smooth", "2 * (both + smooth)"), "Your smooth belongs to the whole numerator"),
        ],
    ),
    "08.6": (
        [
            threshold_by_loop,
            lambda p, g, t: max(t, key=lambda x: pooled_by_confusion(g, [one > x for one in p])),
        ],
        [
            (but("p > t", "p >= t"), "A probability that equals the threshold is not above it"),
            (
                but(SCORES, "np.mean([np.mean(g == (p > t)) for g, p in zip(ground_truths, probabilities)])"),
                "pixel accuracy",
            ),
            (
                but(
                    SCORES,
                    "np.mean([np.sum(g & (p > t)) / max(np.sum(g | (p > t)), 1) for g, p in zip(ground_truths, "
                    "probabilities)])",
                ),
                "the images' IoUs",
            ),
            (
                but(CHOSEN, "thresholds[::-1][int(np.argmax(scores[::-1]))]"),
                "you return the last; return the first",
            ),
            (but(CHOSEN, "max(scores)"), "You return the best score"),
            (but(CHOSEN, "int(np.argmax(scores))"), "You return the index of the best threshold"),
            (but(CHOSEN, "0.5"), "You always return 0.5"),
            (but("argmax", "argmin"), "You search for the smallest score"),
        ],
    ),
}


# What holds for all


def made(number, how):
    return solution(number, how) if isinstance(how, tuple) else how


@pytest.mark.parametrize("number", TRIED)
def test_right_functions_pass_in_every_style(number):
    own, form = solution(number), find(number).form
    styles = [
        own,
        lambda *given: np.asarray(own(*given)).tolist(),
        *(made(number, how) for how in TRIED[number][0]),
    ]
    if not form.ragged:
        styles.append(lambda *given: np.asarray(own(*given), "float32"))
    for function in styles:
        report = judge(find(number), function)
        assert report.state == "right", report
    assert len(styles) >= 4


@pytest.mark.parametrize("number", TRIED)
def test_a_wrong_function_is_refused_with_its_own_sentence(number):
    wrong = TRIED[number][1]
    for how, sentence in wrong:
        report = judge(find(number), made(number, how))
        assert report.state == "wrong" and sentence in report.text, (how, report)
    assert len(wrong) >= 5 and len({sentence for _, sentence in wrong}) >= 5


def test_every_exercise_is_tried():
    assert list(TRIED) == [exercise.number for exercise in exercises() if not exercise.measure]
