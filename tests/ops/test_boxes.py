"""Areas and overlaps of boxes: by hand, by counting pixels, and against pycocotools."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from course_lib.datasets import boxes_from_instances
from course_lib.ops.boxes import box_area, box_giou, box_intersection, box_iou

pytestmark = pytest.mark.backend


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def random_boxes(rng, count, side=40.0, whole=False):
    """Boxes with positive sides, inside a picture of `side` pixels."""
    near = rng.uniform(0, side - 2, (count, 2))
    found = np.concatenate([near, near + rng.uniform(0.5, 1, (count, 2)) * (side - near)], axis=1)
    if whole:
        found = np.concatenate(
            [np.floor(found[:, :2]), np.floor(found[:, :2]) + 1 + np.floor(found[:, 2:] - near - 0.5)], 1
        )
    return found.astype(np.float32)


def counted_iou(a, b, side=48):
    """IoU of two boxes with whole edges, from the pixels that each holds."""
    masks = []
    for x1, y1, x2, y2 in (a, b):
        mask = np.zeros((side, side), bool)
        mask[int(y1) : int(y2), int(x1) : int(x2)] = True
        masks.append(mask)
    return (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()


class TestByHand:
    A = np.array([[2, 1, 6, 4]], "float32")  # 4 wide, 3 high
    B = np.array([[4, 2, 9, 5]], "float32")  # 5 wide, 3 high; they share 2 × 2

    def test_area(self):
        np.testing.assert_array_equal(numpy(box_area(np.concatenate([self.A, self.B]))), [12, 15])

    def test_one_pixel(self):
        assert numpy(box_area([[3, 5, 4, 6]])) == [1]

    def test_intersection(self):
        np.testing.assert_array_equal(numpy(box_intersection(self.A, self.B)), [[4]])

    def test_iou(self):
        np.testing.assert_allclose(numpy(box_iou(self.A, self.B)), [[4 / 23]], rtol=1e-6)

    def test_giou(self):
        # The box around both is 7 × 4; 28 - 23 pixels of it belong to neither.
        np.testing.assert_allclose(numpy(box_giou(self.A, self.B)), [[4 / 23 - 5 / 28]], rtol=1e-6)

    def test_boxes_that_share_an_edge_share_no_pixel(self):
        side_by_side = [[0, 0, 2, 2], [2, 0, 4, 2]]
        np.testing.assert_array_equal(numpy(box_iou(side_by_side, side_by_side)), np.eye(2))
        # Nothing between them is left empty, so the generalised IoU is 0 as well.
        assert numpy(box_giou(side_by_side, side_by_side))[0, 1] == 0

    def test_giou_falls_with_the_distance_where_iou_no_longer_does(self):
        away = [[10 + gap, 0, 20 + gap, 10] for gap in (0, 10, 90)]
        start = [[0, 0, 10, 10]]
        np.testing.assert_array_equal(numpy(box_iou(start, away)), [[0, 0, 0]])
        np.testing.assert_allclose(numpy(box_giou(start, away)), [[0, -1 / 3, -90 / 110]], rtol=1e-6)


class TestAgainstIndependentSoftware:
    def test_iou_counts_pixels(self):
        rng = np.random.default_rng(0)
        a, b = random_boxes(rng, 30, whole=True), random_boxes(rng, 40, whole=True)
        expected = [[counted_iou(one, other) for other in b] for one in a]
        np.testing.assert_allclose(numpy(box_iou(a, b)), expected, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("side", [40.0, 4000.0])
    def test_iou_is_that_of_pycocotools(self, side):
        rng = np.random.default_rng(1)
        a, b = random_boxes(rng, 50, side), random_boxes(rng, 60, side)
        b[:5] = a[:5]  # the same box
        a[10:15, 2:] = a[10:15, :2] + 0.01  # thinner than a pixel
        corner_and_sides = [
            np.concatenate([x[:, :2], x[:, 2:] - x[:, :2]], 1).astype(np.float64) for x in (a, b)
        ]
        expected = coco.iou(*corner_and_sides, [0] * len(b))
        assert 0 < expected.mean() < 1
        np.testing.assert_allclose(numpy(box_iou(a, b)), expected, rtol=0, atol=1e-6)

    def test_iou_of_filled_boxes_is_pycocotools_mask_iou(self):
        rng = np.random.default_rng(2)
        made = random_boxes(rng, 12, whole=True)
        masks = np.zeros((48, 48, len(made)), np.uint8, order="F")
        for k, (x1, y1, x2, y2) in enumerate(made.astype(int)):
            masks[y1:y2, x1:x2, k] = 1
        encoded = coco.encode(masks)
        np.testing.assert_allclose(
            numpy(box_iou(made, made)), coco.iou(encoded, encoded, [0] * len(made)), rtol=0, atol=1e-6
        )
        np.testing.assert_array_equal(numpy(box_area(made)), coco.area(encoded))
        # ... and the tight boxes that our data sets state are pycocotools' (which gives corner and sides).
        ours = np.concatenate([boxes_from_instances(masks[..., k].astype(int)) for k in range(len(made))])
        theirs = coco.toBbox(encoded)
        theirs[:, 2:] += theirs[:, :2]
        np.testing.assert_array_equal(ours, theirs)


edges = st.floats(-50, 50, width=32)
any_box = st.tuples(edges, edges, st.floats(0, 50, width=32), st.floats(0, 50, width=32)).map(
    lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
)
lists = st.lists(any_box, min_size=3, max_size=3).map(  # one length: JAX compiles each anew
    lambda rows: np.array(rows, np.float32)
)


class TestProperties:
    @settings(deadline=None, max_examples=25)
    @given(lists, lists)
    def test_bounded_and_symmetric(self, a, b):
        overlap, generalised = numpy(box_iou(a, b)), numpy(box_giou(a, b))
        assert overlap.shape == generalised.shape == (len(a), len(b))
        assert (overlap >= 0).all() and (overlap <= 1 + 1e-6).all()
        assert (generalised >= -1 - 1e-6).all() and (generalised <= overlap + 1e-6).all()
        np.testing.assert_allclose(overlap, numpy(box_iou(b, a)).T, atol=1e-6)
        np.testing.assert_allclose(generalised, numpy(box_giou(b, a)).T, atol=1e-6)

    def test_moving_and_scaling_both_changes_nothing(self):
        rng = np.random.default_rng(3)
        a, b = random_boxes(rng, 10), random_boxes(rng, 10)
        for measure in (box_iou, box_giou):
            np.testing.assert_allclose(
                numpy(measure(4 * a + 16, 4 * b + 16)), numpy(measure(a, b)), atol=1e-6
            )


class TestEmptyBoxes:
    PADDING = np.zeros((2, 4), np.float32)

    def test_they_match_nothing_not_even_each_other(self):
        real = np.array([[-1, -1, 5, 5]], np.float32)
        assert not numpy(box_iou(self.PADDING, self.PADDING)).any()
        assert not numpy(box_iou(self.PADDING, real)).any()
        assert not numpy(box_giou(self.PADDING, self.PADDING)).any()

    def test_a_box_the_wrong_way_round_is_empty(self):
        turned = [[5, 5, 1, 1]]
        assert numpy(box_area(turned)) == [0] and numpy(box_iou(turned, [[1, 1, 5, 5]])) == [[0]]

    def test_no_boxes_at_all(self):
        none = np.zeros((0, 4), np.float32)
        assert tuple(box_iou(none, [[0, 0, 1, 1]]).shape) == (0, 1)
        assert tuple(box_area(none).shape) == (0,)


class TestShapesAndTypes:
    def test_a_batch_is_its_images_one_by_one(self):
        rng = np.random.default_rng(4)
        a = random_boxes(rng, 15).reshape(3, 5, 4)
        b = random_boxes(rng, 12).reshape(3, 4, 4)
        for measure in (box_intersection, box_iou, box_giou):
            found = numpy(measure(a, b))
            assert found.shape == (3, 5, 4) and found.dtype == np.float32
            for image in range(3):
                np.testing.assert_allclose(found[image], numpy(measure(a[image], b[image])), rtol=1e-6)
        # One list of anchors serves every image of a batch.
        np.testing.assert_allclose(numpy(box_iou(a[0], b))[2], numpy(box_iou(a[0], b[2])), rtol=1e-6)

    @pytest.mark.parametrize("dtype", ["int32", "float16", "float64"])
    def test_any_number_type_gives_float32(self, dtype):
        large = np.array([[0, 0, 1000, 1000], [500, 0, 1500, 1000]], dtype)
        found = numpy(box_iou(large, large))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, [[1, 1 / 3], [1 / 3, 1]], rtol=1e-6)

    def test_symbolic_tensors(self):
        symbolic = keras.Input((5, 4))
        model = keras.Model(symbolic, box_giou(symbolic, symbolic))
        batch = random_boxes(np.random.default_rng(5), 10).reshape(2, 5, 4)
        np.testing.assert_allclose(
            numpy(model(batch)), [numpy(box_giou(one, one)) for one in batch], rtol=1e-5, atol=1e-6
        )

    @pytest.mark.parametrize("measure", [box_intersection, box_iou, box_giou])
    def test_a_single_box_or_another_width_is_refused(self, measure):
        with pytest.raises(ValueError, match=r"boxes_a has shape \(4,\); .* boxes\[None\]"):
            measure(np.zeros(4), np.zeros((1, 4)))
        with pytest.raises(ValueError, match=r"boxes_b has shape \(2, 5\)"):
            measure(np.zeros((1, 4)), np.zeros((2, 5)))

    def test_area_refuses_too(self):
        with pytest.raises(ValueError, match=r"boxes has shape \(3,\)"):
            box_area([1, 2, 3])


class Moved(keras.layers.Layer):
    """Holds boxes as weights and returns their generalised IoU with others: something to train."""

    def __init__(self, start, **arguments):
        super().__init__(**arguments)
        self.boxes = self.add_weight(shape=start.shape, initializer="zeros")
        self.boxes.assign(start)

    def call(self, others):
        return box_giou(self.boxes, others)


def test_a_gradient_pulls_a_box_to_its_target_from_afar_and_is_finite_for_padding():
    start = np.array([[0, 0, 4, 4], [0, 0, 0, 0]], np.float32)
    target = np.array([[8, 8, 14, 14], [0, 0, 0, 0]], np.float32)
    layer = Moved(start)
    model = keras.Sequential([keras.Input(batch_shape=(2, 4)), layer])
    model.compile(
        optimizer=keras.optimizers.SGD(2.0), jit_compile=False, loss=lambda y, giou: 1 - keras.ops.mean(giou)
    )
    before = numpy(box_giou(start, target))[0, 0]
    model.fit(target, np.zeros((2, 2)), batch_size=2, epochs=10, verbose=0, shuffle=False)
    after = numpy(layer.boxes.value + 0)
    assert np.isfinite(after).all()
    assert numpy(box_giou(after, target))[0, 0] > before
