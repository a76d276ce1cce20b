"""Border weights and the three-class form, beside brute force."""

import numpy as np
import pytest
from scipy import ndimage

from course_lib.datasets import cells
from course_lib.datasets.detection import truth_from_maps
from course_lib.datasets.targets import (
    border_weights,
    decode_three_classes,
    drop_small,
    encode_three_classes,
    nearest_two_distances,
)
from course_lib.metrics import average_precision


@pytest.fixture(scope="module")
def sample():
    return cells("train", length=4, size=96, seed=3)[1]


def brute_distances(instances):
    """To each cell on its own, over the whole picture; then sorted."""
    each = [ndimage.distance_transform_edt(instances != k) for k in range(1, instances.max() + 1)]
    return np.sort(each, axis=0)[:2]


def test_distances_are_those_of_brute_force_within_reach(sample):
    assert sample.instances.max() >= 3
    nearest, second = nearest_two_distances(sample.instances, reach=12)
    for found, brute in zip((nearest, second), brute_distances(sample.instances)):
        np.testing.assert_allclose(found, np.where(brute <= 12, brute, np.inf))


def test_border_weights_are_equation_2(sample):
    weights = border_weights(sample.instances, w0=10, sigma=5, class_weights=(1, 2))
    d1, d2 = brute_distances(sample.instances)
    background = sample.instances == 0
    expected = np.where(background, 1 + 10 * np.exp(-((d1 + d2) ** 2) / 50), 2)
    np.testing.assert_allclose(weights, expected, atol=2e-3)
    assert weights.dtype == np.float32


def test_border_weights_balance_the_classes_by_default():
    instances = np.zeros((20, 20), int)
    instances[:2] = 1
    weights = border_weights(instances)  # one cell only: no border term
    assert weights[instances == 0].sum() == pytest.approx(weights[instances == 1].sum(), rel=1e-5)
    assert weights.mean() == pytest.approx(1)
    np.testing.assert_array_equal(border_weights(np.zeros((4, 4), int)), 1)


def test_the_gap_between_two_cells_weighs_most():
    instances = np.zeros((21, 41), int)
    instances[5:16, 5:19], instances[5:16, 22:36] = 1, 2
    weights = border_weights(instances, class_weights=(1, 1))
    # In the middle of the gap of 3 pixels: d1 = d2 = 2.
    assert weights[10, 20] == pytest.approx(1 + 10 * np.exp(-(4**2) / 50), abs=1e-4)
    assert weights[10, 20] > 8 and weights[0, 0] < 1.1 and weights[10, 10] == 1


def test_three_classes_there_and_back(sample):
    encoded = encode_three_classes(sample.instances, border=1.5)
    assert set(np.unique(encoded)) == {0, 1, 2}
    decoded = decode_three_classes(np.eye(3)[encoded], min_size=5)
    assert average_precision([sample.instances], [decoded], [0.75])[0] == 1


def test_border_is_where_two_cells_are_near():
    instances = np.zeros((10, 20), int)
    instances[2:8, 2:10], instances[2:8, 10:18] = 1, 2
    encoded = encode_three_classes(instances, border=2)
    assert (encoded[4, 8:12] == 2).all() and encoded[4, 7] == 1 and encoded[4, 12] == 1
    alone = encode_three_classes(np.where(instances == 2, 0, instances), border=2)
    assert set(np.unique(alone)) == {0, 1}


def test_plain_components_merge_what_three_classes_separate(sample):
    merged, count = ndimage.label(sample.instances > 0)
    separate = decode_three_classes(np.eye(3)[encode_three_classes(sample.instances, 1.5)], min_size=5)
    assert count < separate.max() == sample.instances.max()


def test_small_objects_are_dropped_and_ids_closed():
    instances = np.array([[1, 1, 0, 2], [1, 1, 0, 0], [0, 0, 3, 3]])
    np.testing.assert_array_equal(drop_small(instances, 2), [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 2, 2]])


def test_empty_and_bad_input():
    empty = np.zeros((8, 8), int)
    assert (encode_three_classes(empty) == 0).all()
    assert decode_three_classes(np.eye(3)[empty]).max() == 0
    with pytest.raises(ValueError, match="border is 0.5"):
        encode_three_classes(empty, border=0.5)
    with pytest.raises(ValueError, match="sigma 0"):
        border_weights(empty, sigma=0)
    with pytest.raises(ValueError, match=r"must be \(height, width, 3\)"):
        decode_three_classes(np.zeros((4, 4, 2)))
    with pytest.raises(ValueError, match="seed_threshold is 1.5"):
        decode_three_classes(np.zeros((4, 4, 3)), seed_threshold=1.5)


def test_what_does_not_count_has_no_class_and_no_weight():
    instances = np.zeros((24, 24), np.int32)
    instances[4:12, 4:12], instances[4:12, 12:20] = 1, 2
    ignored = np.zeros((24, 24), bool)
    ignored[14:] = True
    plain, marked = encode_three_classes(instances), encode_three_classes(instances, ignore=ignored)
    np.testing.assert_array_equal(marked, np.where(ignored, -1, plain))
    weights = border_weights(instances, 10, 3, (1, 1), ignored)
    np.testing.assert_array_equal(weights, np.where(ignored, 0, border_weights(instances, 10, 3, (1, 1))))
    balanced = border_weights(instances, 0, ignore=ignored)
    cells = instances > 0
    assert balanced[cells].sum() == pytest.approx(balanced[~cells].sum())
    assert balanced[~ignored].mean() == pytest.approx(1) and (balanced[ignored] == 0).all()
    assert (border_weights(instances, ignore=np.ones_like(ignored)) == 0).all()


def test_a_detector_is_told_what_does_not_count():
    instances = np.zeros((2, 10, 10), np.int32)
    instances[:, 1:5, 1:5], instances[:, 6:9, 1:5] = 1, 2
    semantic = np.where(instances == 2, 3, instances)
    semantic[1, :, 6:] = -1
    semantic[1, 6:8, 1:5] = -1  # most of an object
    truth = truth_from_maps(instances, semantic, 3)
    np.testing.assert_array_equal(truth["ignore"], semantic == -1)
    np.testing.assert_array_equal(truth["classes"], [[1, 3, 0], [1, 3, 0]])
    np.testing.assert_array_equal(truth["crowd"], [[False, False, False], [False, True, False]])
