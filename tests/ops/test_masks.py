"""Masks pasted into the image and cut out of it: by hand, in NumPy, on the keras backend."""

import keras
import numpy as np
import pytest

from course_lib.ops import by_hand
from course_lib.ops.masks import crop_masks, paste_masks, whole_image_masks

pytestmark = pytest.mark.backend

SIZE = (40, 50)
# Inside, across three borders, outside, larger than the image, one pixel, empty.
BOXES = np.array(
    [
        [5.3, 7.9, 30.2, 28.4],
        [-10.7, 3.1, 12.3, 60.2],
        [60, 10, 80, 30],
        [-20.3, -10.6, 70.4, 60.9],
        [8.2, 8.2, 9.1, 9.1],
        [20.4, 20.4, 20.4, 20.4],
    ],
    np.float32,
)
GRIDS = np.random.default_rng(0).random((6, 7, 7)).astype(np.float32)


def run(function, *arrays, **settings):
    """The result. On JAX compiled as a whole: op by op, every new shape would compile a hundred small programs."""

    def call(*arrays):
        return function(*arrays, **settings)

    if keras.backend.backend() == "jax":
        import jax

        call = jax.jit(call)
    return keras.ops.convert_to_numpy(call(*map(np.asarray, arrays)))


def disc(size, y, x, radius):
    rows, columns = np.mgrid[: size[0], : size[1]]
    return (rows + 0.5 - y) ** 2 + (columns + 0.5 - x) ** 2 <= radius**2


class TestPasting:
    def test_three_ways_give_the_same(self):
        by_loop = np.array([by_hand.paste_mask(grid, box, SIZE) for grid, box in zip(GRIDS, BOXES)])
        assert by_loop[:2].any((1, 2)).all() and not by_loop[2].any()
        ours = run(paste_masks, GRIDS, BOXES, image_size=SIZE)
        assert ours.shape == (6, *SIZE)
        np.testing.assert_allclose(ours, by_loop, atol=1e-5)
        host = whole_image_masks(GRIDS, BOXES, SIZE, threshold=None)
        np.testing.assert_allclose(host, by_loop, atol=1e-5)
        np.testing.assert_array_equal(whole_image_masks(GRIDS, BOXES, SIZE, 0.3), host >= 0.3)

    def test_a_full_grid_fills_its_box(self):
        pasted = whole_image_masks(np.ones((1, 28, 28)), np.array([[10, 5, 38, 33]]), SIZE)[0]
        # The far edge is taken for the last pixel, so the mask has one more to the right and below (as torchvision's has).
        expected = np.zeros(SIZE, bool)
        expected[5:34, 10:39] = True
        np.testing.assert_array_equal(pasted, expected)

    def test_padding_is_empty_and_a_batch_is_its_images(self):
        valid = np.array([[True, False, True], [False, True, True]])
        grids, boxes = GRIDS.reshape(2, 3, 7, 7), BOXES.reshape(2, 3, 4)
        ours = run(paste_masks, grids, boxes, image_size=SIZE, valid=valid)
        expected = run(paste_masks, GRIDS, BOXES, image_size=SIZE).reshape(2, 3, *SIZE)
        np.testing.assert_allclose(ours, np.where(valid[..., None, None], expected, 0), atol=1e-6)

    def test_a_box_that_is_not_finite_gives_an_empty_mask(self):
        boxes = np.array([[0, 0, np.nan, 9], [0, np.nan, 9, 9]], np.float32)
        assert not whole_image_masks(np.ones((2, 5, 5)), boxes, SIZE).any()
        assert not run(paste_masks, np.ones((2, 5, 5)), boxes, image_size=SIZE).any()
        assert not whole_image_masks(np.ones((1, 5, 5)), np.array([[0, 0, np.inf, 9]]), SIZE).any()

    def test_no_masks(self):
        none = whole_image_masks(np.zeros((0, 28, 28)), np.zeros((0, 4)), SIZE)
        assert none.shape == (0, *SIZE) and none.dtype == bool

    @pytest.mark.parametrize("paste", [paste_masks, whole_image_masks])
    def test_bad_input(self, paste):
        with pytest.raises(ValueError, match=r"masks has shape \(2, 7, 7\) for boxes of \(3, 4\)"):
            paste(np.zeros((2, 7, 7)), np.zeros((3, 4)), SIZE)
        with pytest.raises(ValueError, match="a square grid"):
            paste(np.zeros((3, 7, 6)), np.zeros((3, 4)), SIZE)
        with pytest.raises(ValueError, match=r"boxes has shape \(3, 5\)"):
            paste(np.zeros((3, 7, 7)), np.zeros((3, 5)), SIZE)


class TestCropping:
    MASKS = np.stack(
        [[disc(SIZE, 20, 25, 12), disc(SIZE, 5, 5, 9)], [disc(SIZE, 35, 40, 15), np.ones(SIZE, bool)]]
    )
    OBJECTS = np.array([[0, 1, 0, 0, 1, 1], [1, 0, 1, 0, 0, 0]])

    @pytest.mark.parametrize("kind", ["bool", "uint8"])
    def test_the_loop_gives_the_same(self, kind):
        boxes = np.stack([BOXES, BOXES[::-1]])
        ours = run(crop_masks, self.MASKS.astype(kind), self.OBJECTS, boxes, output_size=5, max_samples=19)
        assert ours.shape == (2, 6, 5, 5) and ours.dtype == np.float32
        expected = [
            [by_hand.crop_mask(self.MASKS[k, one], box, 5) for one, box in zip(self.OBJECTS[k], boxes[k])]
            for k in range(2)
        ]
        np.testing.assert_allclose(ours, expected, atol=1e-5)

    def test_the_default_limit_changes_only_boxes_larger_than_the_image(self):
        full = run(crop_masks, self.MASKS[:1], self.OBJECTS[:1], BOXES[None], output_size=5, max_samples=19)
        ours = run(crop_masks, self.MASKS[:1], self.OBJECTS[:1], BOXES[None], output_size=5)
        inside = [0, 2, 4, 5]
        np.testing.assert_allclose(ours[:, inside], full[:, inside], atol=1e-6)

    def test_a_fixed_number_of_readings(self):
        ours = run(
            crop_masks, self.MASKS, [[0], [0]], np.stack([BOXES[:1]] * 2), output_size=5, sampling_ratio=2
        )
        expected = by_hand.roi_align(self.MASKS[0, 0][..., None] * 1.0, BOXES[0], 5, 1, 2)[..., 0]
        np.testing.assert_allclose(ours[0, 0], expected, atol=1e-5)

    def test_rows_without_an_object_are_defined(self):
        ours = run(crop_masks, self.MASKS, [[-1, -2, 7], [0, 0, 0]], BATCH_OF_BAD_BOXES, output_size=4)
        assert np.isfinite(ours).all() and (ours >= 0).all() and (ours <= 1 + 1e-6).all()

    def test_pasting_a_crop_gives_the_object_back(self):
        mask = self.MASKS[0, 0]
        box = np.array([[13, 8, 37, 32]], np.float32)
        target = run(crop_masks, mask[None, None], [[0]], box[None], output_size=28)[0]
        back = whole_image_masks(target, box, SIZE)[0]
        assert (back & mask).sum() / (back | mask).sum() > 0.9

    @pytest.mark.parametrize("radius", [3, 5, 12])
    def test_exact_pasting_is_the_inverse_of_cropping(self, radius):
        """Small discs at many places: exactly pasted they come back, in torchvision's way small ones do not."""
        overlap = {}
        for edges in ("exact", "whole"):
            ratios = []
            for shift in (0.0, 0.25, 0.5, 0.75):
                mask = disc(SIZE, 20 + shift, 25 - shift, radius)
                (ys,), (xs,) = np.nonzero(mask.any(1)), np.nonzero(mask.any(0))
                box = np.array([[xs[0], ys[0], xs[-1] + 1, ys[-1] + 1]], np.float32)
                target = run(crop_masks, mask[None, None], [[0]], box[None], output_size=28)[0]
                back = whole_image_masks(target, box, SIZE, edges=edges)[0]
                ratios.append((back & mask).sum() / (back | mask).sum())
            overlap[edges] = np.mean(ratios)
        assert overlap["exact"] > (0.85 if radius == 3 else 0.95)
        assert overlap["exact"] > overlap["whole"] + (0.02 if radius == 12 else 0.1)

    def test_exact_pasting_of_a_box_without_area_or_outside_is_empty(self):
        boxes = np.array([[3, 3, 3, 9], [9, 9, 2, 2], [300, 300, 400, 400], [0, 0, np.nan, 9]], np.float32)
        assert not whole_image_masks(np.ones((4, 5, 5)), boxes, SIZE, edges="exact").any()

    def test_another_way_to_paste_is_refused(self):
        with pytest.raises(ValueError, match="edges is 'round'; it must be 'whole' or 'exact'"):
            whole_image_masks(GRIDS, BOXES, SIZE, edges="round")

    def test_an_image_needs_a_mask_though_it_may_be_empty(self):
        assert not run(crop_masks, np.zeros((1, 1, *SIZE)), [[0]], BOXES[None, :1], output_size=4).any()
        with pytest.raises(ValueError, match=r"masks has shape \(1, 0, 40, 50\).*at least one"):
            crop_masks(np.zeros((1, 0, *SIZE)), [[0]], BOXES[None, :1], 4)


BATCH_OF_BAD_BOXES = np.array(
    [
        [[0, 0, 0, 0], [np.nan, 1, 5, 5], [300, 300, 400, 400]],
        [[9, 9, 2, 2], [-50, -50, -9, -9], [0, 0, 50, 40]],
    ],
    np.float32,
)
