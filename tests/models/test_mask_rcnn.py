"""The Mask R-CNN: what it accepts, that it trains, and that odd truths neither stop nor spoil it."""

import keras
import numpy as np
import pytest
from keras import ops

from course_lib.datasets import scenes
from course_lib.datasets.detection import instance_map, truth_from_maps, truth_from_samples
from course_lib.models.mask_rcnn import (
    LOSSES,
    MaskRCNN,
    Settings,
    box_head,
    mask_head,
    published,
    rpn_head,
    stages,
)
from course_lib.models.mask_rcnn.optimizer import FiniteSteps, finite_steps

pytestmark = pytest.mark.backend

SIZE = (64, 64)
PLACES = 6

EAGERLY = keras.backend.backend() == "tensorflow"
"""Tracing a Mask R-CNN's step takes TensorFlow as long as twenty steps without it."""


def small(with_mask=True, num_classes=7, normalization="group", stem_stride=4, **settings):
    """The smallest network that has every part."""
    return MaskRCNN(
        num_classes,
        backbone="small",
        backbone_arguments={
            "widths": (8, 8, 16, 16),
            "normalization": normalization,
            "stem_stride": stem_stride,
        },
        filters=16,
        box_units=32,
        mask_filters=8,
        mask_convolutions=1,
        with_mask=with_mask,
        settings={
            "anchor_sizes": (8.0, 16.0, 24.0, 32.0, 48.0),
            "rpn_batch_size_per_image": 32,
            "rpn_pre_nms_top_n": (24, 24),
            "rpn_post_nms_top_n": (16, 16),
            "box_batch_size_per_image": 12,
            "box_positive_fraction": 0.5,
            "canonical_box_size": 64.0,
            "box_detections_per_img": 8,
        }
        | settings,
    )


@pytest.fixture(scope="module")
def batch():
    data = scenes("train", 2, SIZE, seed=1, objects=(2, 4), object_size=(12.0, None))
    samples = [data[0], data[1]]
    return np.stack([sample.image for sample in samples]), truth_from_samples(samples, PLACES)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return small()


def changed(truth, **arrays):
    return {**truth, **arrays}


class TestAnswers:
    def test_shapes_and_ranges(self, model, batch):
        found = {name: ops.convert_to_numpy(value) for name, value in model(batch[0]).items()}
        assert found["boxes"].shape == (2, 8, 4) and found["masks"].shape == (2, 8, 28, 28)
        boxes = found["boxes"][found["valid"]]
        assert len(boxes) and (boxes[:, 2:] > boxes[:, :2]).all()
        assert boxes.min() >= 0 and (boxes[:, 2] <= SIZE[1]).all() and (boxes[:, 3] <= SIZE[0]).all()
        assert set(np.unique(found["classes"][found["valid"]])) <= set(range(1, 7))
        assert (np.diff(found["scores"], axis=1) <= 0).all()
        assert not found["scores"][~found["valid"]].any()

    def test_sizes_that_no_power_of_two_divides(self, model):
        found = model(np.random.default_rng(0).random((1, 50, 77, 3), np.float32))
        boxes = ops.convert_to_numpy(found["boxes"])
        assert boxes[..., 2].max() <= 77 and boxes[..., 3].max() <= 50

    @pytest.mark.parametrize("stem_stride", [2, 4])
    def test_anchors_of_odd_sizes_stand_where_their_map_looks(self, stem_stride):
        """A map's side is rounded up: the picture's side divided by the map's is not the stride."""
        model = small(stem_stride=stem_stride)
        assert model.strides == tuple(stem_stride * 2**level for level in range(5))
        found = {}
        for height, width in ((64, 128), (33, 77)):
            features = model.features(np.zeros((1, height, width, 3), np.float32))
            maps = [level.shape[1:3] for level in features["pyramid"]]
            found[height] = [
                level.reshape(*side, -1, 4)
                for level, side in zip(model.anchors((height, width), features), maps, strict=True)
            ]
        for odd, even in zip(found[33], found[64], strict=True):
            np.testing.assert_array_equal(odd, even[: odd.shape[0], : odd.shape[1]])

    def test_without_mask_head_it_is_faster_r_cnn(self, batch):
        model = small(with_mask=False)
        assert "masks" not in model(batch[0])
        truth = {name: batch[1][name] for name in ("boxes", "classes")}
        assert tuple(model.compute_losses(model.features(batch[0]), truth, SIZE)) == LOSSES[:4]

    def test_roi_pool_in_the_place_of_roi_align(self, batch):
        found = small(roi_op="pool")(batch[0])
        assert np.isfinite(ops.convert_to_numpy(found["masks"])).all()

    def test_saved_and_loaded_it_answers_alike(self, model, batch, tmp_path):
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
        assert loaded.settings == model.settings
        found = loaded(batch[0])
        for name, value in model(batch[0]).items():
            np.testing.assert_allclose(
                ops.convert_to_numpy(found[name]), ops.convert_to_numpy(value), atol=1e-5
            )


class TestLosses:
    def test_finite_and_positive(self, model, batch):
        losses = model.compute_losses(model.features(batch[0]), batch[1], SIZE)
        assert tuple(losses) == LOSSES
        assert all(0 < float(value) < 100 for value in losses.values())

    def test_without_objects_only_background_is_learned(self, model, batch):
        nothing = {name: np.zeros_like(array) for name, array in batch[1].items()}
        losses = {
            name: float(v)
            for name, v in model.compute_losses(model.features(batch[0]), nothing, SIZE).items()
        }
        assert losses["loss_objectness"] > 0 and losses["loss_classifier"] > 0
        assert losses["loss_rpn_box_reg"] == losses["loss_box_reg"] == losses["loss_mask"] == 0

    def test_places_left_over_change_nothing(self, model, batch):
        images, truth = batch
        features = model.features(images)
        more = {
            name: np.pad(array, [(0, 0), (0, 3)] + [(0, 0)] * (array.ndim - 2))
            for name, array in truth.items()
        }
        anchors = model.anchors(SIZE, features)
        random = np.random.default_rng(0).random(sum(map(len, anchors))).astype(np.float32)
        a, b = (
            stages.rpn_losses(
                features["objectness"], features["deltas"], anchors, one, model.settings, random
            )
            for one in (truth, more)
        )
        np.testing.assert_allclose([float(v) for v in a], [float(v) for v in b], rtol=1e-6)

    def test_degenerate_boxes_are_no_objects(self, model, batch):
        images, truth = batch
        boxes = np.zeros_like(truth["boxes"])
        boxes[:, 0] = 5, 5, 5, 5  # no area
        boxes[:, 1] = 30, 30, 10, 10  # inside out
        odd = changed(truth, boxes=boxes, classes=np.ones_like(truth["classes"]))
        losses = model.compute_losses(model.features(images), odd, SIZE)
        assert all(np.isfinite(float(value)) for value in losses.values())
        assert float(losses["loss_mask"]) == float(losses["loss_box_reg"]) == 0

    def test_a_crowd_is_neither_object_nor_background(self, model, batch):
        images, truth = batch
        whole = np.zeros_like(truth["boxes"])
        whole[:, 0] = 0, 0, SIZE[1], SIZE[0]
        one = np.zeros_like(truth["classes"])
        one[:, 0] = 1
        crowd = changed(truth, boxes=whole, classes=one, crowd=one > 0)
        losses = model.compute_losses(model.features(images), crowd, SIZE)
        # All lies in the crowd: there is nothing to learn.
        inside = {name: float(value) for name, value in losses.items()}
        assert inside["loss_classifier"] == inside["loss_mask"] == inside["loss_box_reg"] == 0


def test_trimmed_detections_are_the_same_without_the_empty_places(batch):
    keras.utils.set_random_seed(0)
    model = small(
        rpn_pre_nms_top_n=(24, 60),
        rpn_post_nms_top_n=(16, 150),
        box_detections_per_img=400,
        box_score_thresh=0.15,
    )
    features = model.features(batch[0])
    whole = {name: ops.convert_to_numpy(value) for name, value in model.detect(features, SIZE).items()}
    found = {
        name: ops.convert_to_numpy(value) for name, value in model.detect(features, SIZE, trim=True).items()
    }
    places = found["valid"].shape[1]
    most = whole["valid"].sum(axis=1).max()
    assert whole["valid"].shape[1] == 400 and 0 < most <= places <= max(16, 1.25 * most)
    assert not whole["valid"][:, places:].any() and np.array_equal(found["valid"], whole["valid"][:, :places])
    for name, value in found.items():
        np.testing.assert_allclose(
            value[found["valid"]], whole[name][whole["valid"]], rtol=1e-4, atol=1e-4, err_msg=name
        )


class TestTraining:
    @pytest.mark.slow
    def test_it_learns_a_batch_and_compiles_once(self, batch):
        keras.utils.set_random_seed(0)
        model, traced = small(), []
        compute_losses = model.compute_losses
        model.compute_losses = lambda *arguments: traced.append(1) or compute_losses(*arguments)
        # TensorFlow traces without XLA here: compiling takes longer than these steps.
        model.compile(keras.optimizers.Adam(3e-3, global_clipnorm=5.0), jit_compile="auto")
        images, truth = batch
        few = {name: array.copy() for name, array in truth.items()}
        for array in few.values():
            array[:, 1:] = 0
        logs = [
            model.train_on_batch(images, few if k % 3 == 2 else truth, return_dict=True) for k in range(30)
        ]
        first, last = logs[0], logs[-3]
        assert set(LOSSES) <= set(first)
        assert float(last["loss"]) < float(first["loss"])
        # Keras itself may call it once more, to see shapes; other numbers of objects don't.
        assert len(traced) <= 2

    def test_a_step_that_is_not_finite_is_left_out(self, batch):
        """All weights, also the means and variances that batch normalization keeps without any gradient."""
        model = small(normalization="batch")
        model.compile(keras.optimizers.SGD(0.1), run_eagerly=EAGERLY)
        images, truth = batch
        broken = images.copy()
        broken[1, 3, 4, 0] = np.nan
        before = [ops.convert_to_numpy(weight).copy() for weight in model.weights]
        model.train_on_batch(broken, truth)
        for weight, old in zip(model.weights, before, strict=True):
            np.testing.assert_array_equal(ops.convert_to_numpy(weight), old, err_msg=weight.path)
        model.train_on_batch(images, truth)
        for weight, old in zip(model.weights, before, strict=True):
            assert np.isfinite(ops.convert_to_numpy(weight)).all()
            if "moving" in weight.path:
                assert (ops.convert_to_numpy(weight) != old).any()

    def test_fit_shows_the_losses_of_training_and_validation(self, batch):
        model = small()
        model.compile("sgd", run_eagerly=EAGERLY)
        history = model.fit(*batch, validation_data=batch, verbose=0).history
        assert set(history) == {f"{split}{name}" for split in ("", "val_") for name in ("loss", *LOSSES)}

    def test_regularizers_count_and_sample_weights_are_refused(self, batch):
        images, targets = batch
        model = small()
        features = model.features(images)
        plain = float(model.compute_loss(images, targets, features, training=False))
        model.rpn_head.get_layer("rpn-head-cls_logits").kernel.regularizer = keras.regularizers.L2(100.0)
        (penalty,) = model.losses
        both = float(model.compute_loss(images, targets, features, training=False))
        assert float(penalty) > 0 and both == pytest.approx(plain + float(penalty), rel=1e-5)
        with pytest.raises(ValueError, match="sample_weight is given; it must be None"):
            model.compute_loss(images, targets, features, sample_weight=np.ones(2))

    def test_truth_without_masks_is_refused(self, model, batch):
        images, truth = batch
        with pytest.raises(
            ValueError,
            match="targets has no masks; it must have them, or the model must be built with with_mask=False",
        ):
            model.compute_loss(images, {name: truth[name] for name in ("boxes", "classes")}, {})
        with pytest.raises(ValueError, match="Give batches \\(images, targets\\)"):
            model.compute_loss(images, truth["boxes"], {})


class TestFiniteSteps:
    @pytest.mark.parametrize("half", [False, True])
    def test_the_scale_stops_at_1_and_a_good_step_is_taken_after_bad_ones(self, half):
        weight = keras.Variable(np.array([1.0, 2.0], np.float32))
        optimizer = finite_steps(keras.optimizers.SGD(0.5), half)
        optimizer.build([weight])

        def apply(gradient):
            gradient = ops.convert_to_tensor(np.array(gradient, np.float32))
            gradient = optimizer.scale_loss(gradient)  # a scaled loss has scaled gradients
            # JAX's trainer calls the optimizer as a function of its state; in the others it changes its state itself.
            if keras.backend.backend() != "jax":
                return optimizer.apply([gradient], [weight])
            values, state = optimizer.stateless_apply(
                [variable.value for variable in optimizer.variables], [gradient], [weight.value]
            )
            for variable, value in zip([weight, *optimizer.variables], [*values, *state], strict=True):
                variable.assign(value)

        optimizer.dynamic_scale.assign(2.0)
        for _ in range(3):
            apply([np.nan, 1.0])
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), [1.0, 2.0])
        # Halved each time it would be at 1 / 4 now, and sooner or later at 0, by which no gradient can be divided.
        assert float(optimizer.dynamic_scale) == 1 and int(optimizer.iterations) == 0
        apply([1.0, -2.0])
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), [0.5, 3.0])

    def test_half_precision_alone_scales_the_loss(self):
        assert finite_steps("adam", True).initial_scale > 1 == finite_steps("adam", False).initial_scale
        own = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=8.0)
        assert finite_steps(own, False) is own

    @pytest.mark.parametrize(
        ("policy", "scale"), [("float32", 1), ("mixed_bfloat16", 1), ("mixed_float16", 2**15)]
    )
    def test_every_policy_has_it(self, policy, scale):
        """The model's own policy counts, not what the global one is by the time of compiling."""
        keras.mixed_precision.set_global_policy(policy)
        try:
            model = small(with_mask=False)
        finally:
            keras.mixed_precision.set_global_policy("float32")
        model.compile("sgd")
        assert type(model.optimizer) is FiniteSteps and model.optimizer.initial_scale == scale

    def test_a_model_is_loaded_with_it_and_its_state(self, tmp_path):
        model = small(with_mask=False)
        model.compile(keras.optimizers.Adam(0.01))
        model.optimizer.build(model.trainable_variables)
        model.optimizer.inner_optimizer.iterations.assign(7)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert type(loaded.optimizer) is FiniteSteps and int(loaded.optimizer.iterations) == 7
        assert float(loaded.optimizer.learning_rate) == pytest.approx(0.01)

    def test_saved_and_loaded_it_is_the_same(self):
        optimizer = finite_steps(keras.optimizers.Adam(0.01), True)
        loaded = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
        assert type(loaded) is FiniteSteps and loaded.get_config() == optimizer.get_config()


class TestArguments:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"rpn_fg_iou_thresh": 0.2}, "rpn_bg_iou_thresh is 0.3; it must not exceed rpn_fg_iou_thresh"),
            ({"box_bg_iou_thresh": 0.6}, "box_bg_iou_thresh is 0.6; it must not exceed box_fg_iou_thresh"),
            ({"roi_op": "crop"}, "roi_op"),
            ({"box_detections_per_img": 0}, "box_detections_per_img"),
            ({"rpn_post_nms_top_n": (10,)}, "rpn_post_nms_top_n"),
            ({"loss_weights": (1.0,)}, "loss_weights"),
            ({"box_fg_iou_thresh": 1.5}, "box_fg_iou_thresh"),
        ],
    )
    def test_settings(self, settings, message):
        with pytest.raises(ValueError, match=message):
            Settings(**settings)

    def test_network(self):
        with pytest.raises(ValueError, match="num_classes is 1"):
            MaskRCNN(1)
        with pytest.raises(ValueError, match="backbone is 'vgg'"):
            MaskRCNN(2, backbone="vgg")
        with pytest.raises(ValueError, match="weights is 'COCO'"):
            published("COCO")
        with pytest.raises(ValueError, match="anchor_sizes is .*; it must be 5 sizes"):
            small(anchor_sizes=(8.0, 16.0))

    def test_images_of_other_channels(self, model):
        with pytest.raises(ValueError, match=r"images has shape \(1, 64, 64, 1\)"):
            model(np.zeros((1, 64, 64, 1), np.float32))

    def test_heads_run_alone(self):
        objectness, deltas = rpn_head(8, 3)(np.zeros((1, 5, 7, 8), np.float32))
        assert objectness.shape == (1, 5, 7, 3) and deltas.shape == (1, 5, 7, 12)
        logits, deltas = box_head(4, 8, units=16)(np.zeros((2, 7, 7, 8), np.float32))
        assert logits.shape == (2, 4) and deltas.shape == (2, 16)
        assert mask_head(4, 8, filters=8)(np.zeros((2, 14, 14, 8), np.float32)).shape == (2, 28, 28, 4)


class TestPixelsThatDoNotCount:
    """What lies in a crowd, or in a region that is marked, is neither right nor wrong for any of the losses."""

    SETTINGS = Settings(anchor_sizes=(8.0, 8.0, 8.0, 8.0, 8.0))

    def targets(self, ignore):
        masks = np.zeros((1, 1, 32, 32), np.uint8)
        masks[0, 0, 4:12, 4:20] = 1  # wider than its box: RoI Align reads half a pixel beside
        return {
            "boxes": np.array([[[4, 4, 12, 12]]], np.float32),
            "classes": np.array([[1]], np.int32),
            "crowd": np.zeros((1, 1), bool),
            "masks": masks,
            "ignore": ignore,
        }

    def test_no_region_there_is_a_sample(self):
        ignore = np.zeros((1, 32, 32), bool)
        ignore[:, :, 16:] = True
        proposals = np.array(
            [[[4, 4, 12, 12], [18, 4, 28, 14], [4, 18, 12, 28], [20, 20, 30, 30]]], np.float32
        )
        for marked, number in ((ignore, 1), (np.zeros_like(ignore), 3)):
            _, _, positive, negative = stages.select_training_samples(
                proposals,
                np.ones((1, 4), bool),
                self.targets(marked),
                self.SETTINGS,
                keras.random.SeedGenerator(0),
            )
            assert (
                ops.convert_to_numpy(positive).sum() == 2 and ops.convert_to_numpy(negative).sum() == number
            )

    def test_no_anchor_there_is_background(self):
        ignore = np.ones((1, 32, 32), bool)
        ignore[:, :16, :16] = False
        grid = [[x, y, x + 8, y + 8] for y in range(4, 32, 8) for x in range(4, 32, 8)]
        anchors = np.array(grid, np.float32)
        logits = np.zeros((1, 4, 4, 1), np.float32)
        logits[0, 2:, 2:] = 50.0  # objects, says the network, where nobody knows
        deltas = np.zeros((1, 4, 4, 4), np.float32)
        loss = {}
        for name, marked in (("marked", ignore), ("plain", np.zeros_like(ignore))):
            found, _ = stages.rpn_losses(
                [logits],
                [deltas],
                [anchors],
                self.targets(marked),
                self.SETTINGS,
                keras.random.SeedGenerator(0),
            )
            loss[name] = float(ops.convert_to_numpy(found))
        assert loss["marked"] < 0.7 < 5 < loss["plain"]

    def test_no_cell_of_a_mask_there_is_wrong(self):
        ignore = np.zeros((1, 32, 32), bool)
        ignore[:, 12:, :] = True
        boxes, chosen = np.array([[[4, 4, 12, 20]]], np.float32), np.zeros((1, 1), np.int32)
        logits = np.full((1, 1, 8, 8, 2), 4.0, np.float32)  # object everywhere: wrong below row 12
        positive = np.ones((1, 1), bool)
        loss = [
            float(ops.convert_to_numpy(stages.mask_loss(logits, boxes, chosen, positive, targets)))
            for targets in (self.targets(ignore), self.targets(np.zeros_like(ignore)))
        ]
        assert loss[0] == pytest.approx(np.log1p(np.exp(-4)), rel=1e-3) and loss[1] > 1.9
        without = {name: value for name, value in self.targets(ignore).items() if name != "ignore"}
        plain = ops.convert_to_numpy(stages.mask_loss(logits, boxes, chosen, positive, without))
        assert float(plain) == pytest.approx(loss[1])


class TestTruth:
    def test_from_maps(self):
        instances = np.zeros((1, 8, 8), np.int32)
        instances[0, 1:3, 2:6] = 4
        instances[0, 5:8, 0:5] = 9
        instances[0, 0, 7] = 2
        semantic = np.where(instances == 9, 3, np.where(instances > 0, 1, 0))
        truth = truth_from_maps(instances, semantic, 4)
        np.testing.assert_array_equal(truth["boxes"][0, :3], [[0, 5, 5, 8], [2, 1, 6, 3], [7, 0, 8, 1]])
        np.testing.assert_array_equal(truth["classes"], [[3, 1, 1, 0]])
        np.testing.assert_array_equal(truth["crowd"], [[False, False, True, False]])
        np.testing.assert_array_equal(truth["masks"][0, 1], instances[0] == 4)

    def test_of_more_objects_than_places_the_largest_stay(self):
        instances = np.array([[[1, 2, 2, 3, 3, 3]]])
        truth = truth_from_maps(instances, (instances > 0).astype(int), 2, masks=False)
        np.testing.assert_array_equal(truth["boxes"][0], [[3, 0, 6, 1], [1, 0, 3, 1]])
        assert "masks" not in truth

    def test_errors(self):
        with pytest.raises(ValueError, match="must be \\(batch, height, width\\)"):
            truth_from_maps(np.zeros((8, 8), int), np.zeros((8, 8), int), 3)
        with pytest.raises(ValueError, match="max_objects is 0"):
            truth_from_maps(np.zeros((1, 8, 8), int), np.zeros((1, 8, 8), int), 0)

    def test_instance_map_gives_a_pixel_to_the_surest(self):
        masks = np.zeros((3, 4, 6), bool)
        masks[0, :, :4] = masks[1, :, 2:] = masks[2, :2, 1:3] = True
        found = {
            "scores": np.array([0.6, 0.9, 0.7]),
            "valid": np.ones(3, bool),
            "classes": np.ones(3, int),
        }
        instances, kept = instance_map(found, masks, score_threshold=0.5)
        # The third has lost half of its pixels to the surest, the first then half and a little of its own.
        np.testing.assert_array_equal(kept, [1, 2])
        assert (instances[:, 2:] == 1).all() and (instances[:2, 1] == 2).all() and not instances[2:, :2].any()
        assert len(instance_map(found, masks, 0.8)[1]) == 1


@pytest.mark.parametrize("size", [(96, 128), (128, 128), (96, 130)])
def test_the_anchors_of_a_level_are_one_stride_apart_or_where_torchvision_has_them(size):
    for torchvision_anchors in (False, True):
        model = MaskRCNN(
            2,
            backbone="small",
            filters=8,
            box_units=8,
            with_mask=False,
            backbone_arguments={"widths": (8, 8, 8, 8), "blocks": (1, 1, 1, 1)},
            torchvision_anchors=torchvision_anchors,
        )
        features = model.features(np.zeros((1, *size, 3), "float32"))
        rows, columns = features["pyramid"][-1].shape[1:3]
        last = model.anchors(size, features)[-1].reshape(rows, columns, -1, 4)
        down, across = last[1, 0, 0, 1] - last[0, 0, 0, 1], last[0, 1, 0, 0] - last[0, 0, 0, 0]
        expected = (size[0] // rows, size[1] // columns) if torchvision_anchors else (64, 64)
        assert (down, across) == expected
