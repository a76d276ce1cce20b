"""Claim 6.4: faults that are made on purpose do what they say, and are seen."""

import dataclasses

import numpy as np
import pytest

from course_lib.chapters.ch07_mask_rcnn_training_and_limits import pipeline
from course_lib.models import MaskRCNN

# A few steps of a smaller net: enough to see that it runs, not that it learns.
QUICK = dataclasses.replace(
    pipeline.RECIPE,
    train_data=dict(pipeline.RECIPE.train_data) | {"length": 8},
    val_data=dict(pipeline.RECIPE.val_data) | {"length": 4},
    network_arguments=dict(pipeline.RECIPE.network_arguments)
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


def test_every_fault_says_what_it_is_and_how_to_mend_it():
    for name, fault in pipeline.FAULTS.items():
        assert fault.what and (fault.mend or name == "nothing")
        changed = (
            pipeline.spoilt(fault) != pipeline.RECIPE
            or fault.batches is not None
            or fault.pictures is not None
        )
        assert changed == (name != "nothing")


class TestBatches:
    def test_rows_for_columns(self):
        images, truth = batch()
        same, wrong = pipeline.FAULTS["x and y"].batches(images, truth)
        np.testing.assert_array_equal(wrong["boxes"][..., 0], truth["boxes"][..., 1])
        assert same is images and wrong["masks"] is truth["masks"]

    def test_classes_from_zero_turns_the_first_into_background(self):
        images, truth = batch()
        _, wrong = pipeline.FAULTS["classes from 0"].batches(
            images, truth | {"classes": np.array([[1, 3, 0]])}
        )
        assert wrong["classes"].tolist() == [[0, 2, 0]]

    def test_half_of_the_pictures_turned_and_no_truth(self):
        images, truth = batch()
        turned, same = pipeline.FAULTS["flipped pictures"].batches(images, truth)
        np.testing.assert_array_equal(turned[0], images[0][:, ::-1])
        np.testing.assert_array_equal(turned[1], images[1])
        assert same is truth


@pytest.mark.parametrize("name", ["nothing", "x and y"])
def test_training_and_symptoms(name):
    fault = pipeline.FAULTS[name]
    recipe, model, history, raised = pipeline.train(fault, QUICK)
    assert raised == "" and {"loss", "loss_mask", "loss_objectness"} <= set(history)
    seen = pipeline.symptoms(recipe, model, fault, pictures=2)
    assert 0 <= seen["proposed"] <= 1 and seen["objects"] >= 1 and 0 <= seen["box_ap_50"] <= 1


def test_without_positive_regions_the_heads_see_no_object():
    _, _, history, _ = pipeline.train(pipeline.FAULTS["no positive regions"], QUICK)
    assert history["loss_box_reg"] == history["loss_mask"] == [0.0]


def test_a_loss_that_is_not_finite_is_reported_in_words(monkeypatch):
    def fit(self, *_, callbacks, **__):  # an epoch that ends badly, without compiling a step for it
        for callback in callbacks:
            callback.on_epoch_begin(0)
            callback.on_epoch_end(0, {"loss": 1.0, "loss_mask": float("nan")})

    monkeypatch.setattr(MaskRCNN, "fit", fit)
    *_, raised = pipeline.train(pipeline.FAULTS["nothing"], QUICK)
    assert "loss_mask was not a finite number" in raised and "learning_rate" in raised


@pytest.mark.parametrize("silent", [2, 1, 0])
def test_the_sentence_counts_the_silent_faults(silent):
    def fault(ap, raised=""):
        return {"raised": raised, "symptoms": {"box_ap_50": ap, "mask_ap_50": ap}}

    faults = {
        "nothing": fault(0.8),
        "a": fault(0.1 if silent else 0.7),
        "b": fault(0.1 if silent == 2 else 0.0, "" if silent == 2 else "stop"),
    }
    teacher = pipeline.silence({"faults": faults, "settings": dict.fromkeys(range(20))})
    assert f"{silent} raise nothing" in teacher
