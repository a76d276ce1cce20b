"""A recipe checks itself, says what it is made of, and leaves the process as it was."""

import contextlib
import dataclasses
import functools
import random
from pathlib import Path

import keras
import numpy as np
import pytest

from course_lib import datasets, metrics, models, recipes, tasks
from course_lib.losses import CrossEntropy, Dice
from course_lib.recipes import CELLS, SCENES, Recipe

pytestmark = pytest.mark.backend

OWN = {"path": "mine", "class_names": ("background", "cell"), "channels": 1}


def own(**more) -> Recipe:
    return Recipe(name="m", title="t", dataset="folder", train_data=OWN | more)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "name is ''"),
        ({"name": "a/b"}, "name is 'a/b'"),
        ({"name": ".."}, "name is '..'"),
        ({"title": 3}, "title is 3"),
        ({"dataset": "celsl"}, "dataset is 'celsl'; it must be one of 'cells', 'scenes'"),
        ({"dataset": 3}, "dataset is 3; it must be a function"),
        ({"network": "Unet"}, "network is 'Unet'; it must be one of 'unet'"),
        ({"train_data": {"lenght": 3}}, "train_data holds 'lenght'; cells takes length"),
        ({"train_data": 3}, "train_data is 3"),
        ({"val_data": {"size": 3, "path": 1}}, "val_data holds 'path'"),
        ({"dataset": "folder", "train_data": {}}, "train_data lacks 'path', which folder needs"),
        ({"network_arguments": {"base_filter": 3}}, "network_arguments holds 'base_filter'; unet takes"),
        ({"task": "borders"}, "task is 'borders'"),
        ({"task": tasks.Borders}, "task is <class"),
        ({"network": "MaskRCNN", "network_arguments": {}}, "Mask R-CNN learns the task Objects"),
        ({"task": tasks.Objects(), "loss": None}, "network is unet; Objects needs a detector"),
        ({"loss": "Dice"}, "loss is 'Dice'"),
        ({"loss": Dice}, "loss is <class"),
        ({"loss": metrics.MeanIoU(2)}, "loss is <MeanIoU.*a metric has no gradient"),
        ({"loss": keras.losses.BinaryCrossentropy()}, "with from_logits=False; the network returns logits"),
        ({"loss": keras.losses.sparse_categorical_crossentropy}, "with from_logits=False"),
        ({"normalization": "mean"}, "normalization is 'mean'"),
        ({"augmentation": {"flip": True}}, "augmentation is {'flip': True}"),
        ({"epochs": 0}, "epochs is 0; it must be at least 1"),
        ({"steps": 2.5}, "steps is 2.5; it must be a whole number"),
        ({"batch_size": True}, "batch_size is True"),
        ({"crop": (0, 0)}, "crop: a side is 0"),
        ({"crop": 128}, "crop is 128; it must be a height and a width"),
        ({"learning_rate": -1}, "learning_rate is -1"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"warmup": 1.0}, "warmup is 1.0"),
        ({"weight_decay": -1}, "weight_decay is -1"),
        ({"sampling": "all"}, "sampling is 'all'"),
        ({"clip": 0}, "clip is 0"),
        ({"restarts": (20,)}, "restarts: an epoch is 20"),
        ({"epochs": 9, "restarts": (4, 2)}, r"restarts is \(4, 2\)"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_what_cannot_be_is_said_when_it_is_made(change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        dataclasses.replace(CELLS, **change)


@pytest.mark.parametrize("task", tasks.TASKS.values())
def test_every_task_has_thresholds_without_a_choice(task):
    """A recipe without choices was trained to the end, and then failed for want of a threshold."""
    assert task().choose([], [], ()) == task.thresholds
    assert set(task().complete({})) == set(task.thresholds)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tasks.Borders(0.5), "border is 0.5"),
        (
            lambda: tasks.Borders(choices={"score_threshold": (0.5,)}, choose_by="ap_mean"),
            "choices: a name is 'score",
        ),
        (lambda: tasks.Borders(choices={"mask_threshold": (2,)}, choose_by="ap_mean"), "mask_threshold is 2"),
        (
            lambda: tasks.Borders(choices={"mask_threshold": 0.5}, choose_by="ap_mean"),
            "must be the values to try",
        ),
        (
            lambda: tasks.Borders(choices={"mask_threshold": (0.5,)}),
            "choose_by is ''; it must be one of 'ap_mean'",
        ),
        (lambda: tasks.Semantic(tta="all"), "tta is 'all'"),
        (lambda: tasks.Semantic(border_weight=-1), "border_weight is -1"),
        (lambda: tasks.Objects(0), "max_objects is 0"),
        (lambda: tasks.Objects(tta="flips"), "cannot be averaged"),
        (lambda: tasks.Borders().complete({"border": 1}), "thresholds: a name is 'border'"),
    ],
)
def test_a_task_that_cannot_be(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_names_stand_for_objects():
    named = dataclasses.replace(CELLS, dataset="cells", network="unet")
    assert named.dataset is datasets.cells and named.network is models.unet and named.digest == CELLS.digest


def test_the_digest_takes_what_people_write():
    assert own(path=Path("mine")).digest == own().digest
    assert (
        own(values={np.uint8(0): 0, np.uint8(255): 1}).digest
        == own(values={0: 0, 255: 1}).digest
        != own().digest
    )
    assert own(splits={"train": np.array(["a"])}).digest == own(splits={"train": ("a",)}).digest
    assert own(splits={"train": {"b", "a"}}).digest == own(splits={"train": {"a", "b"}}).digest
    with pytest.raises(
        TypeError, match=r"train_data\['group'\] is <object.*a recipe can hold numbers, strings, paths"
    ):
        own(group=object())


def test_the_digest_knows_functions_by_what_they_do():
    first, same, other = (lambda name: name[:3]), (lambda name: name[:3]), (lambda name: name[:2])
    assert own(group=first).digest == own(group=same).digest != own(group=other).digest

    def upto(count):
        return lambda name: name[:count]

    assert own(group=upto(3)).digest == own(group=upto(3)).digest != own(group=upto(2)).digest
    network = functools.partial(models.unet, depth=1)
    assert dataclasses.replace(CELLS, network=network).digest != CELLS.digest


FACTOR = 2


def helper(name):
    return name[:FACTOR]


def test_the_digest_knows_what_a_function_uses_of_its_module(monkeypatch):
    def group(name):
        return helper(name) if name else group(name)  # itself, too

    digests = {own(group=group).digest, own(group=group).digest}
    monkeypatch.setitem(globals(), "FACTOR", 3)
    digests.add(own(group=group).digest)
    monkeypatch.setitem(globals(), "helper", lambda name: name)
    digests.add(own(group=group).digest)
    assert len(digests) == 3


def test_numpys_numbers_and_arrays_are_taken_for_what_they_are():
    taken = dataclasses.replace(
        CELLS, crop=np.array([128, 128]), epochs=np.int64(3), network_arguments={"base_filters": np.int64(4)}
    )
    plain = dataclasses.replace(CELLS, crop=(128, 128), epochs=3, network_arguments={"base_filters": 4})
    assert taken.digest == plain.digest and taken.crop == (128, 128)


@pytest.mark.parametrize(
    ("outputs", "channels", "error", "words"),
    [
        (5, 1, ValueError, "network has 5 channels in its outputs; it must have 2"),
        (2, 3, ValueError, "network has 3 channels in its inputs; it must have 1"),
        (1, 1, None, ""),
        (0, 1, TypeError, "network returned None; it must return a keras.Model"),
    ],
)
def test_a_network_that_does_not_fit_the_data(outputs, channels, error, words):
    def network(input_shape, num_classes):
        inputs = keras.Input((8, 8, channels))
        return keras.Model(inputs, keras.layers.Conv2D(outputs, 1)(inputs)) if outputs else None

    recipe = dataclasses.replace(own(), network=network)
    with pytest.raises(error, match=words) if error else contextlib.nullcontext():
        recipe.model()


@pytest.mark.parametrize(
    ("returned", "error", "words"),
    [
        (None, TypeError, "dataset returned None for 'train'; it must return a Dataset or a list of Samples"),
        ([1], ValueError, "dataset returned a list that lacks 'class_names'"),
    ],
)
def test_a_dataset_that_is_none(returned, error, words):
    recipe = Recipe("m", "t", lambda split: returned)
    with pytest.raises(error, match=words):
        recipe.class_names()


def test_the_digest_knows_a_loss_by_its_arguments():
    digests = {
        dataclasses.replace(CELLS, loss=loss).digest
        for loss in (
            CrossEntropy(),
            CrossEntropy((1, 2, 3)),
            Dice(),
            Dice(background=False),
            0.5 * Dice(),
            None,
        )
    }
    assert len(digests) == 6
    assert dataclasses.replace(CELLS, loss=None).digest == CELLS.digest


def test_building_a_model_leaves_every_generator_alone():
    for seeded, draw in ((random.seed, random.random), (np.random.seed, np.random.rand)):
        seeded(123)
        wanted = [draw() for _ in range(2)]
        seeded(123)
        first = draw()
        small = dataclasses.replace(SCENES, network_arguments={"base_filters": 2, "depth": 1})
        small.model()
        assert [first, draw()] == wanted
    assert all(np.array_equal(a, b) for a, b in zip(small.model().get_weights(), small.model().get_weights()))


def test_val_data_follows_train_data_where_it_is_not_given():
    recipe = Recipe("m", "t", "cells", {"length": 3, "size": 32})
    assert len(recipe.data("val")) == 3 and recipe.data("val").split == "val"


def test_a_network_of_ones_own_needs_no_registration():
    def network(input_shape, num_classes, filters=2):
        inputs = keras.Input(input_shape)
        return keras.Model(inputs, keras.layers.Conv2D(num_classes, filters, padding="same")(inputs))

    recipe = dataclasses.replace(SCENES, network=network, network_arguments={"filters": 3})
    assert recipe.model().output_shape[-1] == len(recipe.class_names())
    with pytest.raises(ValueError, match="network_arguments holds 'depth'; network takes filters"):
        dataclasses.replace(recipe, network_arguments={"depth": 1})


def test_every_shipped_recipe_is_its_own():
    every = [*recipes.RECIPES.values(), *recipes.FOR_A_GPU.values()]
    assert len({recipe.digest for recipe in every}) == len(every)
