"""A detector from its recipe to its metrics: trained, decoded, chosen, measured; and trained against the odds."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

from course_lib import checkpoints, recipes, training
from course_lib.datasets import scenes
from course_lib.datasets.detection import truth_from_samples
from course_lib.ops.masks import crop_masks
from course_lib.segmenter import Segmenter
from course_lib.tasks import Objects

pytestmark = pytest.mark.backend

NETWORK = {
    "backbone": "small",
    "backbone_arguments": {"widths": (8, 8, 16, 16), "blocks": (1, 1, 1, 1)},
    "filters": 16,
    "box_units": 32,
    "mask_filters": 8,
    "mask_convolutions": 1,
    "settings": {
        "anchor_sizes": (8.0, 16.0, 24.0, 32.0, 48.0),
        "rpn_batch_size_per_image": 32,
        "rpn_pre_nms_top_n": (24, 24),
        "rpn_post_nms_top_n": (16, 16),
        "box_batch_size_per_image": 12,
        "box_positive_fraction": 0.5,
        "canonical_box_size": 64.0,
        "box_detections_per_img": 8,
        "box_score_thresh": 0.01,
    },
}
TINY = recipes.Recipe(
    name="tiny-detector",
    title="for tests",
    dataset="scenes",
    train_data={"length": 8, "size": 64, "seed": 5, "objects": (1, 3), "object_size": (12.0, None)},
    val_data={"length": 3, "size": 64, "seed": 5, "objects": (1, 3), "object_size": (12.0, None)},
    network="MaskRCNN",
    network_arguments=NETWORK,
    task=Objects(
        4,
        choices={"score_threshold": (0.05, 0.5), "mask_threshold": (0.5,), "min_size": (1,)},
        choose_by="ap_mean",
    ),
    epochs=1,
    steps=2,
    batch_size=2,
    crop=(64, 64),
    clip=5.0,
)
TASK, CLASSES = TINY.task, TINY.class_names()
CHOSEN = {"score_threshold": 0.5, "mask_threshold": 0.5, "min_size": 1}


GRID = 28

EAGERLY = keras.backend.backend() == "tensorflow"
"""Tracing a Mask R-CNN's step takes TensorFlow as long as twenty steps without it."""


@pytest.fixture(scope="module")
def eagerly():
    """Models are compiled as for a training, but their steps are not traced."""
    compile_model = training.compile_model

    def compile_eagerly(model, recipe, jit="auto"):
        compile_model(model, recipe, jit)
        model.run_eagerly = EAGERLY

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "compile_model", compile_eagerly)
        yield


def perfect(sample) -> dict[str, np.ndarray]:
    """What a detector would say that knows the ground truth: the mask head's own targets."""
    targets = truth_from_samples([sample], len(sample.classes))
    boxes = targets["boxes"]
    masks = crop_masks(targets["masks"], np.arange(len(sample.classes))[None], boxes, GRID)
    return {
        "boxes": boxes[0],
        "classes": targets["classes"][0],
        "scores": np.linspace(0.9, 0.8, len(sample.classes), dtype=np.float32),
        "valid": np.ones(len(sample.classes), bool),
        "masks": ops.convert_to_numpy(masks)[0],
        "size": np.asarray(sample.instances.shape),
    }


@pytest.fixture(scope="module")
def images():
    return list(scenes("val", 6, 64, seed=4, objects=(2, 4), object_size=(10.0, None)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, eagerly):
    root = tmp_path_factory.mktemp("detector")
    return root, training.train(TINY, runs=root / "runs", root=root, progress=False)


class TestEvaluation:
    def test_who_knows_the_ground_truth_has_full_marks(self, images):
        scores = TASK.score(images, [perfect(sample) for sample in images], CLASSES, **CHOSEN)
        assert scores["box_ap"] == scores["mask_ap_75"] == scores["ap_75"] == 1.0
        assert scores["count_error"] == 0.0 and scores["iou_foreground"] > 0.95

    def test_a_wrong_class_costs_coco_s_figures_and_not_the_instances(self, images):
        said = [perfect(sample) for sample in images]
        for one in said:
            one["classes"] = one["classes"] % 6 + 1
        scores = TASK.score(images, said, CLASSES, **CHOSEN)
        assert scores["ap_75"] == 1.0 and scores["mask_ap"] < 0.2 and scores["box_ap"] < 0.2

    def test_nothing_found(self, images):
        nothing = {name: array if name == "size" else array[:0] for name, array in perfect(images[0]).items()}
        scores = TASK.score(images, [nothing] * len(images), CLASSES, **CHOSEN)
        assert scores["mask_ap"] == scores["box_ap"] == scores["ap_50"] == scores["iou_foreground"] == 0.0
        assert scores["count_error"] == 1.0

    def test_the_threshold_is_chosen_that_serves_best(self, images):
        """Sure of the objects, unsure of as many phantoms: the higher threshold leaves these out."""
        said = []
        for sample in images:
            one = perfect(sample)
            phantoms = {name: array for name, array in one.items() if name != "size"}
            phantoms["boxes"] = phantoms["boxes"] * 0.3
            phantoms["scores"] = np.full_like(phantoms["scores"], 0.1)
            both = {name: np.concatenate([one[name], phantoms[name]]) for name in phantoms}
            said.append(both | {"size": one["size"]})
        assert TASK.choose(images, said, CLASSES)["score_threshold"] == 0.5

    def test_the_label_map_numbers_the_objects(self, images):
        found = TASK.decode(perfect(images[0]), **CHOSEN)
        assert found.dtype == np.int32 and found.max() == len(images[0].classes)

    def test_detections_of_one_image(self):
        model = TINY.model()
        image = np.random.default_rng(0).random((50, 70, 3), np.float32)
        found = Segmenter.of(TINY, model).output(image)
        assert found["valid"].all() and found["boxes"].shape == (len(found["scores"]), 4)
        assert tuple(found["size"]) == (50, 70)
        with pytest.raises(ValueError, match="this model takes \\(height, width, 3\\)"):
            Segmenter.of(TINY, model).output(image[..., :1])


class TestTraining:
    @pytest.mark.slow
    def test_the_card_has_the_losses_and_the_figures(self, trained):
        _, card = trained
        assert {"ap_50", "ap_75", "count_error", "mask_ap", "box_ap"} <= set(card["val"])
        assert {"loss_mask", "val_loss_rpn_box_reg"} <= set(card["history"])

    def test_its_weights_give_the_card_s_figures(self, trained):
        root, card = trained
        model = TINY.model()
        checkpoints.load(TINY, model, root, quiet=True)
        images = TINY.data("val")
        segmenter = Segmenter.of(TINY, model, card["thresholds"])
        again = segmenter.evaluate(images)
        assert again == pytest.approx(card["val"], abs=1e-3)


class TestAgainstTheOdds:
    """A few steps under conditions that end many a training. `STEPS` is 300 where it is looked at for its own sake."""

    STEPS = 6

    @pytest.mark.parametrize("odds", ["ten times the learning rate", "no objects", "half precision"])
    @pytest.mark.slow
    def test_no_nan_reaches_the_weights(self, odds, eagerly):
        half = odds == "half precision"
        keras.mixed_precision.set_global_policy("mixed_float16" if half else "float32")
        try:
            rate = 10 * TINY.learning_rate if odds == "ten times the learning rate" else TINY.learning_rate
            recipe = dataclasses.replace(TINY, learning_rate=rate, clip=None, steps=self.STEPS)
            model = recipe.model()
            training.compile_model(model, recipe)
            before = [ops.convert_to_numpy(weight) for weight in model.trainable_weights]
            samples = list(recipe.data("train"))
            for step in range(self.STEPS):
                two = [samples[(2 * step + k) % len(samples)] for k in range(2)]
                targets = truth_from_samples(two, 4)
                if odds == "no objects":
                    targets = {name: np.zeros_like(array) for name, array in targets.items()}
                model.train_on_batch(np.stack([sample.image for sample in two]), targets)
        finally:
            keras.mixed_precision.set_global_policy("float32")
        after = [ops.convert_to_numpy(weight) for weight in model.weights]
        assert all(np.isfinite(weight).all() for weight in after)
        trainable = [ops.convert_to_numpy(weight) for weight in model.trainable_weights]
        assert any((old != new).any() for old, new in zip(before, trainable, strict=True))  # it did go on
