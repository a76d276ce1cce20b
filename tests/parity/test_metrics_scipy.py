"""Mask scores and label counts against SciPy."""

import itertools

import numpy as np
import pytest
from scipy import ndimage, stats
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree, distance

from course_lib import metrics


@pytest.mark.parametrize("density", [0.01, 0.3, 0.9])
def test_masks(density):
    rng = np.random.default_rng(0)
    a, b = rng.random(900) < density, rng.random(900) < 0.5
    assert metrics.iou(a, b) == pytest.approx(1 - distance.jaccard(a, b), abs=1e-6)
    assert metrics.dice(a, b) == pytest.approx(1 - distance.dice(a, b), abs=1e-6)


def test_pixel_error_is_the_hamming_distance_and_the_mean_squared_difference():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 2, 500), rng.integers(0, 2, 500)
    assert metrics.pixel_error(a, b) == pytest.approx(distance.hamming(a, b), abs=1e-6)
    assert metrics.pixel_error(a, b) == pytest.approx(distance.sqeuclidean(a, b) / 500, abs=1e-6)


def test_confusion_matrix_is_a_contingency_table():
    rng = np.random.default_rng(2)
    true, pred = rng.integers(0, 5, 400), rng.integers(0, 5, 400)
    table = stats.contingency.crosstab(true, pred, levels=(range(5), range(5))).count
    np.testing.assert_array_equal(metrics.confusion_matrix(true, pred, 5), table)


def test_information_score_from_scipy_entropies():
    rng = np.random.default_rng(3)
    truth, prediction = rng.integers(0, 7, (30, 30)), rng.integers(0, 4, (30, 30))
    judged = truth > 0
    joint = stats.contingency.crosstab(prediction[judged], truth[judged]).count
    entropy_s, entropy_t = stats.entropy(joint.sum(axis=1)), stats.entropy(joint.sum(axis=0))
    information = entropy_s + entropy_t - stats.entropy(joint.ravel())
    ours = metrics.information_score(truth, prediction)
    assert ours.split == pytest.approx(information / entropy_s, abs=1e-6)
    assert ours.merge == pytest.approx(information / entropy_t, abs=1e-6)
    assert ours.f_score == pytest.approx(information / ((entropy_s + entropy_t) / 2), abs=1e-6)


def test_count_error():
    rng = np.random.default_rng(4)
    (true, n), (pred, m) = (ndimage.label(rng.random((40, 40)) < share) for share in (0.3, 0.4))
    assert metrics.count_error(true, pred) == m - n


# --- Outlines: SciPy gets the same points, found in another way ---


def mask_pairs():
    rng = np.random.default_rng(5)
    full, empty = np.ones((9, 12), bool), np.zeros((9, 12), bool)
    corner, pixel, edge = empty.copy(), empty.copy(), empty.copy()
    corner[:4, :5] = pixel[4, 6] = edge[:, -3:] = True
    y, x = np.mgrid[:31, :40]
    disc = (y - 15) ** 2 + (x - 20) ** 2 < 120
    yield "noise", rng.random((20, 30)) < 0.5, rng.random((20, 30)) < 0.2
    yield "discs", disc, (y - 14) ** 2 + (x - 24) ** 2 < 90
    yield "ring in disc", disc & ((y - 15) ** 2 + (x - 20) ** 2 > 40), disc
    yield "one pixel each", pixel, np.roll(pixel, 3)
    yield "one pixel, whole image", pixel, full
    yield "whole image twice", full, full
    yield "at the border", corner, edge
    yield "all but one pixel", ~pixel, full
    yield "the same", disc, disc
    yield "one row", rng.random((1, 40)) < 0.5, rng.random((1, 40)) < 0.5


PAIRS = [pytest.param(*pair[1:], id=pair[0]) for pair in mask_pairs()]
PLUS = ndimage.generate_binary_structure(2, 1).astype(int)


def outline_points(mask):
    """Pixels of the mask with fewer than four neighbours in it, (n, 2)."""
    return np.argwhere(mask & (ndimage.convolve(mask.astype(int), PLUS, mode="constant") < 5))


@pytest.mark.parametrize("spacing", [None, 0.3, (2.0, 0.7)])
@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_surface_distances(a, b, spacing):
    points_a, points_b = (outline_points(mask) * (1 if spacing is None else spacing) for mask in (a, b))
    from_a, from_b = cKDTree(points_b).query(points_a)[0], cKDTree(points_a).query(points_b)[0]
    ours = metrics.surface_distances(a, b, spacing)
    np.testing.assert_allclose(ours[0], from_a, rtol=0, atol=1e-6)
    np.testing.assert_allclose(ours[1], from_b, rtol=0, atol=1e-6)

    directed = [
        distance.directed_hausdorff(*points)[0] for points in ((points_a, points_b), (points_b, points_a))
    ]
    assert metrics.hausdorff(a, b, spacing=spacing) == pytest.approx(max(directed), abs=1e-6)
    for percentile in (95, 50, 12.5):
        expected = max(
            stats.mstats.mquantiles(d, percentile / 100, alphap=1, betap=1)[0] for d in (from_a, from_b)
        )
        assert metrics.hausdorff(a, b, percentile, spacing) == pytest.approx(expected, abs=1e-6)
    mean = np.append(from_a, from_b).mean()
    assert metrics.average_surface_distance(a, b, spacing) == pytest.approx(mean, abs=1e-6)


@pytest.mark.parametrize("tolerance", [0, 1, 2**0.5, 2, 5**0.5, 7.5])
@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_boundary_f1(a, b, tolerance):
    points_a, points_b = outline_points(a), outline_points(b)
    tree_a, tree_b = cKDTree(points_a), cKDTree(points_b)
    near = tolerance + 1e-9
    recall = np.mean([bool(found) for found in tree_b.query_ball_point(points_a, near)])
    precision = np.mean([bool(found) for found in tree_a.query_ball_point(points_b, near)])
    harmonic = stats.hmean([precision, recall])
    assert metrics.boundary_f1(a, b, tolerance) == pytest.approx(harmonic, abs=1e-6)


@pytest.mark.parametrize("width", [1, 1.5, 2, 3, 50])
@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_boundary_iou(a, b, width):
    rims = []
    for mask in (a, b):
        outside = np.argwhere(~np.pad(mask, 1)) - 1
        depth = cKDTree(outside).query(np.argwhere(mask))[0]
        near = np.zeros(mask.shape, bool)
        near[mask] = depth <= width + 1e-9
        rims.append(near.ravel())
    assert metrics.boundary_iou(a, b, width) == pytest.approx(1 - distance.jaccard(*rims), abs=1e-6)


# --- Objects: each IoU by SciPy, one pair at a time, and the matching by its assignment ---


def instance_pairs():
    rng = np.random.default_rng(6)
    labels, _ = ndimage.label(rng.random((24, 24)) < 0.55)
    blocks = np.kron(np.arange(16).reshape(4, 4), np.ones((5, 5), int))
    noisy = np.where(rng.random(blocks.shape) < 0.3, rng.integers(0, 16, blocks.shape), blocks)
    halves = np.repeat([[1, 1, 2, 2, 3, 3]], 4, axis=0)
    yield "components", labels, ndimage.label(labels * (rng.random((24, 24)) < 0.8))[0]
    yield "blocks", blocks, noisy
    yield "blocks shifted", blocks, np.roll(blocks, 2, axis=1)
    yield "random", rng.integers(0, 5, (8, 9)), rng.integers(0, 6, (8, 9))
    yield "IoU of exactly one half", halves, np.repeat([[1, 0, 2, 0, 0, 0]], 4, axis=0)
    yield "one over all", halves, np.ones_like(halves)
    yield "one pixel", np.eye(3, dtype=int), np.diag([1, 0, 4])
    yield "nothing predicted", blocks, np.zeros_like(blocks)
    yield "nothing true", np.zeros_like(blocks), blocks
    yield "whole image", np.ones((4, 4), int), np.full((4, 4), 7)


OBJECTS = [pytest.param(*pair[1:], id=pair[0]) for pair in instance_pairs()]


def objects(instances):
    return [(instances == k).ravel() for k in np.unique(instances[instances > 0])]


def jaccard(a, b):
    return 1 - distance.jaccard(a, b)


@pytest.mark.parametrize(("true", "pred"), OBJECTS)
def test_panoptic_quality(true, pred):
    masks_true, masks_pred = objects(true), objects(pred)
    ious = np.array([jaccard(a, b) for a, b in itertools.product(masks_true, masks_pred)])
    ious = ious.reshape(len(masks_true), len(masks_pred))
    ious[ious <= 0.5 + 1e-12] = 0
    rows, columns = linear_sum_assignment(ious, maximize=True)
    matched = ious[rows, columns][ious[rows, columns] > 0]
    ours = metrics.panoptic_quality([true], [pred])
    assert ours.true_positives == len(matched)
    assert ours.rq == pytest.approx(2 * len(matched) / (len(masks_true) + len(masks_pred)), abs=1e-6)
    assert ours.sq == pytest.approx(matched.mean() if len(matched) else 0, abs=1e-6)
    assert ours.pq == pytest.approx(2 * matched.sum() / (len(masks_true) + len(masks_pred)), abs=1e-6)


def panoptic_pairs():
    """Blocks of a class and an instance each, with void, groups and pixels without an answer."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        coarse = np.stack([rng.integers(-1, 4, (2, 4, 4)), rng.integers(0, 4, (2, 4, 4))], axis=-1)
        true = np.kron(coarse, np.ones((1, 4, 4, 1), int))
        noise = rng.random(true.shape[:3]) < 0.07 * seed
        noisy = np.stack([rng.integers(-1, 4, noise.shape), rng.integers(0, 4, noise.shape)], axis=-1)
        pred = np.where(noise[..., None], noisy, np.roll(true, seed % 2, axis=2))
        yield pytest.param(true, pred, id=f"seed {seed}")


@pytest.mark.parametrize(("true", "pred"), list(panoptic_pairs()))
def test_panoptic_quality_per_class(true, pred):
    stuff, counts = (0, 1), np.zeros((4, 4))
    for one_true, one_pred in zip(true, pred):
        void = (one_true[..., 0] == -1).ravel()
        for c in range(4):
            of_class = [(m[..., 0] == c).ravel() for m in (one_true, one_pred)]
            if c in stuff:
                segments = [[m] if m.any() else [] for m in of_class]
                group = np.zeros_like(void)
            else:
                ids = [m[..., 1].ravel() for m in (one_true, one_pred)]
                segments = [[m & (i == k) for k in np.unique(i[m & (i > 0)])] for m, i in zip(of_class, ids)]
                group = of_class[0] & (ids[0] == 0)
            ious = np.array([jaccard(t[~void], p[~void]) for t, p in itertools.product(*segments)])
            ious = np.where(ious > 0.5 + 1e-12, ious, 0).reshape(len(segments[0]), len(segments[1]))
            rows, columns = linear_sum_assignment(ious, maximize=True)
            found = ious[rows, columns] > 0
            wrong = [
                k
                for k, segment in enumerate(segments[1])
                if k not in columns[found] and np.mean((void | group)[segment]) <= 0.5
            ]
            tp = np.count_nonzero(found)
            counts[c] += tp, len(wrong), len(segments[0]) - tp, ious[rows, columns].sum()
    ours = metrics.panoptic_quality_per_class(true, pred, 4, stuff)
    np.testing.assert_array_equal(
        np.stack([ours.true_positives, ours.false_positives, ours.false_negatives], axis=-1), counts[:, :3]
    )
    pq = counts[:, 3] / (counts[:, 0] + counts[:, 1] / 2 + counts[:, 2] / 2)
    np.testing.assert_allclose(ours.pq, pq, rtol=0, atol=1e-6)
    assert ours.mean()[0] == pytest.approx(pq.mean(), abs=1e-6)


@pytest.mark.parametrize(("true", "pred"), OBJECTS)
def test_aggregated_jaccard(true, pred):
    """The algorithm of Kumar et al. as it is written: one object after another."""
    masks_true, masks_pred = objects(true), objects(pred)
    masks_pred.sort(
        key=lambda mask: mask.argmax()
    )  # of equal ones max() takes the first: that of the first pixel
    shared, union, used = 0, 0, set()
    for a in masks_true:
        ranked = [(round(jaccard(a, b), 12), np.sum(a & b), -k) for k, b in enumerate(masks_pred)]
        best = max(ranked, default=(0, 0, 0))
        if best[0] == 0:
            union += a.sum()
            continue
        b = masks_pred[-best[2]]
        shared, union = shared + np.sum(a & b), union + np.sum(a | b)
        used.add(-best[2])
    union += sum(b.sum() for k, b in enumerate(masks_pred) if k not in used)
    assert metrics.aggregated_jaccard(true, pred) == pytest.approx(shared / union, abs=1e-6)
