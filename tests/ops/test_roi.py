"""RoI Align and RoI Pool: against the loops, on a ramp whose values are known, on boxes that lie badly, on pyramids."""

import keras
import numpy as np
import pytest

from course_lib.ops import by_hand
from course_lib.ops.roi import (
    multilevel_roi_align,
    multilevel_roi_pool,
    roi_align,
    roi_levels,
    roi_pool,
    sample_positions,
)

pytestmark = pytest.mark.backend

SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)
MAPS = np.random.default_rng(0).normal(size=(2, 9, 12, 3)).astype(np.float32)
# On an image of 72 × 96: inside, across the border, outside, larger than the image, thin, empty, the wrong way round.
BOXES = np.array(
    [
        [10.3, 5.2, 60.1, 50.9],
        [-20, -13, 30, 31],
        [80, 60, 120, 99],
        [200, 10, 260, 50],
        [-90, -70, 190, 150],
        [20, 20, 20.5, 60],
        [33, 33, 33, 33],
        [60, 50, 10, 5],
        [0, 0, 96, 72],
    ],
    np.float32,
)
BATCH = np.stack([BOXES, BOXES[::-1] + 1.7])


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def read(function, features, boxes, *settings, **more):
    """What is read. On JAX compiled as a whole: op by op, every new shape would compile a hundred small programs."""

    def call(features, boxes):
        return function(features, boxes, *settings, **more)

    if keras.backend.backend() == "jax":
        import jax

        call = jax.jit(call)
    return numpy(call(features, boxes))


def by_loop(function, *settings):
    return [[function(MAPS[k], box, *settings) for box in BATCH[k]] for k in range(2)]


class TestAgainstTheLoop:
    @pytest.mark.parametrize(("sampling_ratio", "aligned"), [(1, True), (2, False), (3, True)])
    def test_roi_align(self, sampling_ratio, aligned):
        ours = read(roi_align, MAPS, BATCH, 3, 1 / 8, sampling_ratio, aligned)
        assert ours.shape == (2, 9, 3, 3, 3) and ours.dtype == np.float32
        np.testing.assert_allclose(
            ours, by_loop(by_hand.roi_align, 3, 1 / 8, sampling_ratio, aligned), atol=1e-5
        )

    @pytest.mark.parametrize("aligned", [False, True])
    def test_adaptive_sampling(self, aligned):
        # The largest box is 35 positions wide: 12 points in each of 3 bins.
        ours = read(roi_align, MAPS, BATCH, 3, 1 / 8, 0, aligned, max_samples=12)
        np.testing.assert_allclose(ours, by_loop(by_hand.roi_align, 3, 1 / 8, 0, aligned), atol=1e-5)

    def test_adaptive_sampling_is_limited_for_boxes_larger_than_the_map_only(self):
        ours = read(roi_align, MAPS, BATCH, 3, 1 / 8, -1)
        expected = np.array(by_loop(by_hand.roi_align, 3, 1 / 8, 0))
        fits = ((BATCH[..., 2:] - BATCH[..., :2]) <= [96, 72]).all(axis=-1)
        assert fits.sum() == 16
        np.testing.assert_allclose(ours[fits], expected[fits], atol=1e-5)
        # 4 points a bin are the most there are, along both axes: 12 positions / 3 bins, and as many for 9 / 3 at most.
        assert np.isfinite(ours).all()

    @pytest.mark.parametrize("size", [1, 7])
    def test_roi_pool(self, size):
        ours = read(roi_pool, MAPS, BATCH, size, 1 / 8)
        np.testing.assert_array_equal(ours, np.float32(by_loop(by_hand.roi_pool, size, 1 / 8)))

    def test_the_points_are_those_of_the_loop(self):
        for box in BOXES:
            points = by_hand.sample_points(box, 3, 1 / 8, 2).reshape(3, 3, 2, 2, 2)
            y, weights = (numpy(v) for v in sample_positions(box[1:2] / 8, box[3:4] / 8, 3, 2))
            np.testing.assert_allclose(y.reshape(3, 2), points[:, 0, :, 0, 0], atol=1e-5)
            np.testing.assert_allclose(weights, 0.5)

    def test_levels(self):
        sides = np.array([0.5, 30, 111.9, 112, 200, 223.99, 224, 300, 447, 448, 5000], np.float32)
        boxes = np.stack([0 * sides, 0 * sides, sides, sides], axis=1)
        levels = numpy(roi_levels(boxes, SCALES))
        assert levels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3]
        assert (levels + 2).tolist() == [by_hand.pyramid_level(box) for box in boxes]
        assert numpy(roi_levels([[5, 5, 5, 9]], SCALES)) == [0] and by_hand.pyramid_level([5, 5, 5, 9]) == 2


class TestOnARamp:
    """A map whose value is known everywhere: 3 y + 2 x, at position (0, 0) the middle of the first pixel."""

    RAMP = (3 * np.arange(20.0)[:, None] + 2 * np.arange(30.0))[None, ..., None].astype(np.float32)
    ROI = np.array([[[4.3, 2.9, 25.1, 16.7]]], np.float32)

    def middles(self, rows, columns):
        x1, y1, x2, y2 = self.ROI[0, 0]
        y = y1 + (np.arange(rows) + 0.5) * (y2 - y1) / rows
        x = x1 + (np.arange(columns) + 0.5) * (x2 - x1) / columns
        return 3 * y[:, None] + 2 * x

    def test_roi_align_reads_the_middle_of_each_bin(self):
        ours = read(roi_align, self.RAMP, self.ROI, (4, 6), 1.0, 2)[0, 0, ..., 0]
        np.testing.assert_allclose(ours, self.middles(4, 6), rtol=1e-5)

    def test_aligned_reads_half_a_position_before(self):
        ours = read(roi_align, self.RAMP, self.ROI, (4, 6), 1.0, 2, aligned=True)[0, 0, ..., 0]
        np.testing.assert_allclose(ours, self.middles(4, 6) - 0.5 * 3 - 0.5 * 2, rtol=1e-5)

    def test_roi_pool_does_not_follow_a_shift_below_half_a_position(self):
        shifted = self.ROI + np.float32(0.15)
        pooled = [read(roi_pool, self.RAMP, roi, 3) for roi in (self.ROI, shifted)]
        np.testing.assert_array_equal(*pooled)
        aligned = [read(roi_align, self.RAMP, roi, 3) for roi in (self.ROI, shifted)]
        np.testing.assert_allclose(aligned[1] - aligned[0], 0.15 * (3 + 2), rtol=1e-3)


class TestPyramid:
    FEATURES = [
        np.random.default_rng(k).normal(size=(2, 96 >> k, 128 >> k, 2)).astype(np.float32) for k in range(4)
    ]
    SIDES = np.array([20, 130, 250, 600], np.float32)  # one box for each level
    ROIS = np.stack(
        [[[10.5, 7.5, 10.5 + side, 7.5 + side] for side in sides] for sides in (SIDES, SIDES[::-1])]
    )

    @pytest.mark.parametrize(
        ("pyramid", "single"), [(multilevel_roi_align, roi_align), (multilevel_roi_pool, roi_pool)]
    )
    def test_each_box_is_read_from_its_level(self, pyramid, single):
        ours = read(pyramid, self.FEATURES, self.ROIS, 3, SCALES)
        assert ours.shape == (2, 4, 3, 3, 2)
        for k, (feature_map, scale) in enumerate(zip(self.FEATURES, SCALES)):
            alone = read(single, feature_map, self.ROIS, 3, scale)
            np.testing.assert_allclose(ours[0, k], alone[0, k], atol=1e-5)
            np.testing.assert_allclose(ours[1, 3 - k], alone[1, 3 - k], atol=1e-5)

    def test_the_canonical_size_moves_the_levels(self):
        boxes = self.ROIS[0]
        assert numpy(roi_levels(boxes, SCALES)).tolist() == [0, 1, 2, 3]
        assert numpy(roi_levels(boxes, SCALES, canonical_box_size=56)).tolist() == [0, 3, 3, 3]
        assert numpy(roi_levels(boxes, SCALES[:2])).tolist() == [0, 1, 1, 1]


class TestBadBoxes:
    BAD = np.array([[[np.nan, 0, 9, 9], [0, 0, np.nan, np.nan], [0, 0, np.inf, 9], [0, 0, 0, 0]]], np.float32)

    @pytest.mark.parametrize("sampling_ratio", [0, 2])
    def test_what_is_not_a_number_reads_0(self, sampling_ratio):
        found = read(roi_align, MAPS[:1], self.BAD, 2, 1 / 8, sampling_ratio)
        np.testing.assert_array_equal(found[0, :2], 0)
        assert np.isfinite(found).all() and found[0, 3].any()

    def test_none_is_nan_with_pool_or_on_a_pyramid(self):
        assert np.isfinite(read(roi_pool, MAPS[:1], self.BAD, 2, 1 / 8)).all()
        levels = [MAPS[:1], MAPS[:1, ::2, ::2]]
        assert np.isfinite(read(multilevel_roi_align, levels, self.BAD, 2, (1 / 8, 1 / 16))).all()

    def test_no_box_at_all(self):
        none = np.zeros((2, 0, 4), np.float32)
        assert tuple(roi_pool(MAPS, none, 2).shape) == (2, 0, 2, 2, 3)
        assert tuple(roi_align(MAPS, none, 2).shape) == (2, 0, 2, 2, 3)


def test_the_features_give_the_type():
    half = MAPS.astype("float16")
    for function in (roi_align, roi_pool):
        found = function(half, BATCH, 2, 1 / 8)
        assert keras.backend.standardize_dtype(found.dtype) == "float16"
        np.testing.assert_allclose(numpy(found), read(function, MAPS, BATCH, 2, 1 / 8), atol=5e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sample_positions(BOXES[:, 0], BOXES[:, 2], 7, 0), "max_samples is missing"),
        (lambda: roi_align(MAPS[0], BATCH, 2), r"features has a feature map of shape \(9, 12, 3\)"),
        (lambda: roi_pool(MAPS, BOXES, 2), r"boxes has shape \(9, 4\); RoIs are \(batch, n, 4\)"),
        (
            lambda: multilevel_roi_align([MAPS], BATCH, 2, SCALES),
            "spatial_scales has 4 entries for 1 feature maps",
        ),
        (
            lambda: multilevel_roi_pool([MAPS, MAPS[..., :1]], BATCH, 2, (1, 0.5)),
            "the same number of channels",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
