"""Partition and instance scores against scikit-image."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from skimage import measure, morphology, segmentation
from skimage import metrics as skimage_metrics
from skimage.data import binary_blobs

from course_lib import metrics


def partitions():
    rng = np.random.default_rng(1)
    blobs = measure.label(binary_blobs(96, 0.06, volume_fraction=0.45, rng=3), connectivity=1)
    moved = measure.label(np.roll(binary_blobs(96, 0.06, volume_fraction=0.5, rng=3), 2), connectivity=1)
    yield "blobs", blobs, moved
    yield "random", rng.integers(0, 6, (24, 24)), rng.integers(0, 9, (24, 24))
    yield "all one segment", rng.integers(0, 6, (12, 12)), np.ones((12, 12), int)
    yield "each pixel a segment", blobs, np.arange(blobs.size).reshape(blobs.shape)
    yield "truth each pixel", np.arange(1, 101).reshape(10, 10), rng.integers(0, 3, (10, 10))
    yield "nothing predicted", blobs, np.zeros_like(blobs)


CASES = [pytest.param(*case[1:], id=case[0]) for case in partitions()]


@pytest.mark.parametrize(("truth", "prediction"), CASES)
def test_rand_score(truth, prediction):
    ours = metrics.rand_score(truth, prediction)
    with np.errstate(invalid="ignore"):  # 0 / 0 where each pixel is a segment
        error, of_true, of_pred = skimage_metrics.adapted_rand_error(truth, prediction, ignore_labels=(0,))
    # scikit-image's "precision" is divided by the pairs of its first argument, the truth; its docstring says
    # otherwise. And it counts pairs of different pixels, n² - n, where the paper's formula takes any two, n².
    judged, pred = truth[truth > 0], prediction[truth > 0]
    size = judged.size
    same_true = float(np.sum(np.bincount(judged).astype(float) ** 2))
    same_pred = float(np.sum(np.bincount(pred).astype(float) ** 2))

    def of_different_pixels(share, whole):
        return (share * whole - size) / (whole - size)

    if same_true > size:
        assert of_different_pixels(ours.split, same_true) == pytest.approx(of_true, abs=1e-6)
    if same_pred > size:
        assert of_different_pixels(ours.merge, same_pred) == pytest.approx(of_pred, abs=1e-6)
    both = 0.5 * same_pred + 0.5 * same_true
    assert of_different_pixels(ours.f_score, both) == pytest.approx(1 - error, abs=1e-6)


@pytest.mark.parametrize(("truth", "prediction"), CASES)
def test_information_score(truth, prediction):
    ours = metrics.information_score(truth, prediction)
    # In bits: H(S | T) grows with splits, H(T | S) with merges.
    given_truth, given_prediction = skimage_metrics.variation_of_information(
        truth, prediction, ignore_labels=(0,)
    )
    judged, pred = truth[truth > 0], prediction[truth > 0]
    entropy_s, entropy_t = measure.shannon_entropy(pred), measure.shannon_entropy(judged)
    if entropy_s > 0:
        assert ours.split == pytest.approx(1 - given_truth / entropy_s, abs=1e-6)
    if entropy_t > 0:
        assert ours.merge == pytest.approx(1 - given_prediction / entropy_t, abs=1e-6)
    information = entropy_s - given_truth
    assert ours.f_score == pytest.approx(information / (0.5 * entropy_s + 0.5 * entropy_t), abs=1e-6)


@pytest.mark.parametrize(("truth", "prediction"), CASES[:3])
def test_iou_matrix(truth, prediction):
    truth_ids, pred_ids = np.unique(truth[truth > 0]), np.unique(prediction[prediction > 0])
    table = skimage_metrics.contingency_table(truth, prediction).toarray()[np.ix_(truth_ids, pred_ids)]
    true_areas = np.array([region.area for region in measure.regionprops(truth)])
    pred_areas = np.array([region.area for region in measure.regionprops(prediction)])
    expected = table / (true_areas[:, None] + pred_areas[None] - table)
    np.testing.assert_allclose(metrics.iou_matrix(truth, prediction), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.3, 0.5, 0.6, 0.75])
@pytest.mark.parametrize(("truth", "prediction"), CASES[:3])
def test_matching_is_an_optimal_assignment(truth, prediction, threshold):
    found = metrics.match(truth, prediction, threshold)
    ious = metrics.iou_matrix(truth, prediction)
    # One assignment for the number of pairs alone, by SciPy; ours may have no fewer, at any threshold.
    rows, columns = linear_sum_assignment((ious > threshold).astype(float), maximize=True)
    assert found.true_positives == np.count_nonzero(ious[rows, columns] > threshold)


@pytest.mark.parametrize("shape", [(64, 64), (33, 50)])
def test_true_segments(shape):
    semantic = np.random.default_rng(0).integers(-1, 2, shape)
    ours = metrics.segments_from_labels(semantic)
    expected = measure.label(semantic == 1, connectivity=1)
    for score in (metrics.rand_score(ours, expected), metrics.rand_score(expected, ours)):
        assert (score.f_score, score.split, score.merge) == (1, 1, 1)
    np.testing.assert_array_equal(ours > 0, expected > 0)


def test_seeds_are_kept_whole_and_small_ones_dropped():
    rng = np.random.default_rng(4)
    cells = binary_blobs(80, 0.1, volume_fraction=0.4, rng=4)
    probability = np.where(cells, rng.uniform(0.6, 1, cells.shape), rng.uniform(0, 0.5, cells.shape))
    seeds = measure.label(morphology.remove_small_objects(cells, max_size=19, connectivity=1), connectivity=1)
    segments = metrics.segments_from_probability(probability, 0.55, min_size=20)
    assert segments.min() == 1
    assert segments.max() == seeds.max()
    kept = seeds > 0
    assert metrics.rand_score(seeds, segments).f_score == 1
    assert len(np.unique(segments[kept])) == seeds.max()


# --- Outlines ---


def mask_pairs():
    blobs = binary_blobs(64, 0.12, volume_fraction=0.4, rng=5)
    other = binary_blobs(64, 0.12, volume_fraction=0.3, rng=6)
    pixel, empty, full = np.zeros((64, 64), bool), np.zeros((64, 64), bool), np.ones((64, 64), bool)
    pixel[0, 63] = True
    yield "blobs", blobs, other
    yield "shifted", blobs, np.roll(blobs, (2, 3), axis=(0, 1))
    yield "eroded", blobs, morphology.erosion(blobs, morphology.disk(2))
    yield "one pixel at the border", pixel, blobs
    yield "whole image", full, other
    yield "the same", blobs, blobs
    yield "nothing predicted", blobs, empty
    yield "nothing true", empty, blobs
    yield "nothing at all", empty, empty


PAIRS = [pytest.param(*pair[1:], id=pair[0]) for pair in mask_pairs()]


def outline(mask):
    """scikit-image draws no outline along the edge of the picture; a frame of background makes it do so."""
    return segmentation.find_boundaries(np.pad(mask, 1), connectivity=1, mode="inner")[1:-1, 1:-1]


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_hausdorff(a, b):
    theirs = skimage_metrics.hausdorff_distance(outline(a), outline(b))
    assert metrics.hausdorff(a, b) == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize(("a", "b"), PAIRS[:6])
def test_modified_hausdorff_is_the_larger_mean_of_the_surface_distances(a, b):
    theirs = skimage_metrics.hausdorff_distance(outline(a), outline(b), method="modified")
    from_a, from_b = metrics.surface_distances(a, b)
    assert max(from_a.mean(), from_b.mean()) == pytest.approx(theirs, abs=1e-6)
    # The average of all distances lies between the means of the two directions.
    pooled = (from_a.sum() + from_b.sum()) / (outline(a).sum() + outline(b).sum())
    assert metrics.average_surface_distance(a, b) == pytest.approx(pooled, abs=1e-6)
    assert metrics.average_surface_distance(a, b) <= theirs + 1e-9


@pytest.mark.parametrize(("a", "b"), PAIRS[:6])
@pytest.mark.parametrize("tolerance", [1, 2, 3.5])
def test_boundary_f1_by_dilating_the_outlines(a, b, tolerance):
    # As Csurka's measure is often programmed: what lies under the other outline, drawn with a disc of that radius.
    y, x = np.mgrid[-4:5, -4:5]
    disc = (y**2 + x**2 <= tolerance**2).astype(np.uint8)
    outline_a, outline_b = outline(a), outline(b)
    recall = morphology.dilation(outline_b, disc)[outline_a].mean()
    precision = morphology.dilation(outline_a, disc)[outline_b].mean()
    expected = 2 * precision * recall / (precision + recall) if precision + recall else 0
    assert metrics.boundary_f1(a, b, tolerance) == pytest.approx(expected, abs=1e-6)


# --- Objects ---


@pytest.mark.parametrize(("truth", "prediction"), [*CASES[:3], CASES[5]])
def test_panoptic_quality_from_the_contingency_table(truth, prediction):
    truth_ids, pred_ids = np.unique(truth[truth > 0]), np.unique(prediction[prediction > 0])
    table = skimage_metrics.contingency_table(truth, prediction).toarray()
    shared = table[np.ix_(truth_ids, pred_ids)]
    union = table.sum(axis=1)[truth_ids][:, None] + table.sum(axis=0)[pred_ids][None] - shared
    matched = (shared / union)[shared > 0.5 * union]
    weight = (len(truth_ids) + len(pred_ids)) / 2
    ours = metrics.panoptic_quality([truth], [prediction])
    assert ours.pq == pytest.approx(matched.sum() / weight, abs=1e-6)
    assert ours.rq == pytest.approx(len(matched) / weight, abs=1e-6)
    assert ours.sq == pytest.approx(matched.mean() if len(matched) else 0, abs=1e-6)


@pytest.mark.parametrize(("truth", "prediction"), [*CASES[:3], CASES[5]])
def test_aggregated_jaccard_from_the_contingency_table(truth, prediction):
    truth_ids, pred_ids = np.unique(truth[truth > 0]), np.unique(prediction[prediction > 0])
    table = skimage_metrics.contingency_table(truth, prediction).toarray()
    areas = table.sum(axis=0)
    shared, union, used = 0, 0, []
    for row in truth_ids:
        unions = table[row].sum() + areas[pred_ids] - table[row, pred_ids]
        ious = table[row, pred_ids] / unions
        if not ious.any():
            union += table[row].sum()
            continue
        best = ious.argmax()
        assert np.count_nonzero(ious == ious[best]) == 1  # no tie here; ties are in the unit tests
        shared, union = shared + table[row, pred_ids[best]], union + unions[best]
        used.append(pred_ids[best])
    union += areas[np.setdiff1d(pred_ids, used)].sum()
    assert metrics.aggregated_jaccard(truth, prediction) == pytest.approx(shared / union, abs=1e-6)
