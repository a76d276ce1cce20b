"""Claim 6.4: faults that are made on purpose do what they say, and are seen."""

import dataclasses

import keras
import numpy as np
import pytest

from course_lib import training
from course_lib.chapters.ch07_mask_rcnn_training_and_limits import faults
from course_lib.models import MaskRCNN

# A few steps of a smaller net: enough to see that it runs, not that it learns.
QUICK = dataclasses.replace(
    faults.RECIPE,
    train_data=dict(faults.RECIPE.train_data) | {"length": 8},
    val_data=dict(faults.RECIPE.val_data) | {"length": 4},
    network_arguments=dict(faults.RECIPE.network_arguments)
    | {
        "backbone_arguments": {"widths": (8, 8, 8, 8), "blocks": (1, 1, 1, 1), "stem_stride": 2},
        "filters": 8,
        "box_units": 16,
        "mask_filters": 8,
        "mask_convolutions": 1,
    },
    epochs=1,
    steps=2,
    batch_size=2,
)


def batch():
    images, truth = QUICK.batches("train")[0][:2]
    return images, truth


@pytest.fixture
def eager(monkeypatch):
    """Trainings without tracing the step, which takes TensorFlow longer than these few steps."""
    compile_model = training.compile_model

    def compile_eagerly(model, recipe, jit="auto"):
        compile_model(model, recipe, jit)
        model.run_eagerly = keras.backend.backend() == "tensorflow"

    monkeypatch.setattr(training, "compile_model", compile_eagerly)


def test_every_fault_says_what_it_is_and_how_to_mend_it():
    for name, fault in faults.FAULTS.items():
        assert fault.what and (fault.mend or name == faults.SOUND)
        changed = faults.with_fault(fault) != faults.RECIPE or fault.batches or fault.images
        assert bool(changed) == (name != faults.SOUND)


class TestBatches:
    def test_rows_for_columns(self):
        images, truth = batch()
        same, wrong = faults.FAULTS["x and y"].batches(images, truth)
        np.testing.assert_array_equal(wrong["boxes"][..., 0], truth["boxes"][..., 1])
        assert same is images and wrong["masks"] is truth["masks"]

    def test_classes_from_zero_turns_the_first_into_background(self):
        images, truth = batch()
        truth = truth | {"classes": np.array([[1, 3, 0]])}
        _, wrong = faults.FAULTS["classes from 0"].batches(images, truth)
        assert wrong["classes"].tolist() == [[0, 2, 0]]

    def test_half_of_the_images_flipped_and_no_ground_truth(self):
        images, truth = batch()
        flipped, same = faults.FAULTS["flipped images"].batches(images, truth)
        np.testing.assert_array_equal(flipped[0], images[0][:, ::-1])
        np.testing.assert_array_equal(flipped[1], images[1])
        assert same is truth

    def test_the_training_receives_the_faulty_batches(self):
        _, truth = batch()
        _, wrong = faults.training_batches(faults.FAULTS["x and y"], QUICK)[0][:2]
        np.testing.assert_array_equal(wrong["boxes"][..., 0], truth["boxes"][..., 1])


@pytest.mark.slow
def test_a_training_and_what_is_seen_of_it(eager):
    sound = faults.FAULTS[faults.SOUND]
    trainee = faults.Trainee(QUICK)
    history, raised = trainee.train(sound, 0)
    assert raised == "" and {"loss", "loss_mask", "loss_objectness"} <= set(history)
    seen = trainee.look(sound, shown=True)
    assert 0 <= seen["proposed"] <= 1 and seen["objects"] >= 1 and 0 <= seen["box_ap_50"] <= 1
    # a fault of use only is seen on the same network, which is not trained again
    used = faults.FAULTS["0 to 255"]
    assert trainee.train(used, 0)[0] is history
    # the same seed gives the same training, whatever was trained in between
    trainee.train(faults.FAULTS["x and y"], 1)
    again, _ = trainee.train(sound, 0)
    assert again is not history
    for name, values in history.items():
        assert again[name] == pytest.approx(values, rel=1e-3)


def test_what_is_kept_of_an_image_is_text_of_its_size(eager, monkeypatch):
    monkeypatch.setattr(faults, "SHOWN", (1,))
    trainee = faults.Trainee(QUICK)
    kept = trainee.look(faults.FAULTS[faults.SOUND], shown=True)["images"]["1"]
    assert len(kept["map"]) == 64 == len(kept["map"][0])
    assert all(len(row.split()) == 4 for row in kept["proposals"] + kept["boxes"])


def test_without_positive_regions_the_heads_see_no_object(eager):
    fault = faults.FAULTS["background only"]
    history, _ = faults.Trainee(faults.with_fault(fault, QUICK)).train(fault, 0)
    assert history["loss_box_reg"] == history["loss_mask"] == [0.0]


def test_a_loss_that_is_not_finite_is_reported_in_words(monkeypatch):
    def fit(self, *_, callbacks, **__):  # an epoch that ends badly, without compiling a step for it
        told = keras.callbacks.CallbackList(callbacks, model=self)
        told.on_train_begin()
        told.on_epoch_begin(0)
        told.on_epoch_end(0, {"loss": 1.0, "loss_mask": float("nan")})

    monkeypatch.setattr(MaskRCNN, "fit", fit)
    history, raised = faults.Trainee(QUICK).train(faults.FAULTS[faults.SOUND], 0)
    assert "loss_mask was not a finite number" in raised and "learning_rate" in raised
    assert history["loss_mask"] == [None] and history["loss"] == [1.0]


@pytest.mark.parametrize("silent", [2, 1, 0])
def test_the_sentence_counts_the_silent_faults(silent):
    def fault(ap, raised=""):
        return {"raised": raised, "box_ap_50": [ap], "mask_ap_50": [ap]}

    found = {
        faults.SOUND: fault(0.8),
        "a": fault(0.1 if silent else 0.7),
        "b": fault(0.1 if silent == 2 else 0.0, "" if silent == 2 else "stop"),
    }
    teacher = faults.silence({"faults": found, "settings": dict.fromkeys(range(20))})
    assert f"{silent} raise no error" in teacher
