"""`collage`: cut-outs of photographs pasted into another one; masks are exact, and the scene is the same everywhere."""

import numpy as np
import pytest
from scipy import ndimage

from course_lib.datasets import boxes_from_instances, collage

THINGS = collage.CLASS_NAMES[2:]


@pytest.fixture(scope="module")
def scene():
    return collage.scene()


def test_the_scene_keeps_the_contract_of_a_sample(scene):
    assert scene.image.shape == (384, 600, 3) and scene.image.dtype == np.float32
    assert scene.image.min() >= 0 and scene.image.max() <= 1
    assert scene.semantic.dtype == scene.instances.dtype == scene.classes.dtype == np.int32
    assert np.array_equal(np.unique(scene.semantic), np.arange(len(collage.CLASS_NAMES)))
    assert np.array_equal(np.unique(scene.instances), np.arange(len(scene.classes) + 1))
    assert np.array_equal(scene.boxes, boxes_from_instances(scene.instances))


def test_things_have_instances_and_stuff_has_none(scene):
    is_thing = scene.semantic >= 2
    assert np.array_equal(is_thing, scene.instances > 0)
    assert np.array_equal(scene.classes[scene.instances[is_thing] - 1], scene.semantic[is_thing])


def test_it_shows_what_the_chapters_say(scene):
    """Two cats and two cups overlap, two of five coins do, and a coin lies across the shuttle."""
    objects = [int(np.sum(scene.classes == collage.CLASS_NAMES.index(kind))) for kind in THINGS]
    pieces = [
        ndimage.label(scene.semantic == collage.CLASS_NAMES.index(kind), np.ones((3, 3)))[1]
        for kind in THINGS
    ]
    assert dict(zip(THINGS, objects, strict=True)) == {"cat": 2, "cup": 2, "coin": 5, "shuttle": 1}
    assert dict(zip(THINGS, pieces, strict=True)) == {"cat": 1, "cup": 1, "coin": 4, "shuttle": 2}


def test_two_calls_give_the_same_arrays_of_their_own(scene):
    again = collage.scene()
    assert np.array_equal(scene.image, again.image) and np.array_equal(scene.instances, again.instances)
    again.image[:] = 0
    assert scene.image.max() > 0.8


def test_the_mask_lies_where_the_pixels_changed():
    cup = collage.cutout("coffee", "cup")
    image = np.zeros((120, 160, 3))  # a shadow on black changes nothing
    mask = collage.paste(image, cup, at=(80, 60), scale=0.25)
    assert image[~mask].max() == 0 and (image[mask].max(1) > 0).mean() > 0.99
    box = boxes_from_instances(mask.astype(int))[0]
    size = 0.25 * np.ptp(cup.polygon, axis=0)
    assert np.allclose(box, [80 - size[0] / 2, 60 - size[1] / 2, 80 + size[0] / 2, 60 + size[1] / 2], atol=1)


def test_mirroring_and_turning_move_mask_and_image_alike():
    cup = collage.cutout("coffee", "cup")
    images = np.zeros((3, 200, 200, 3))
    plain = collage.paste(images[0], cup, at=(100, 100), scale=0.4)
    mirrored = collage.paste(images[1], cup, at=(100, 100), scale=0.4, mirror=True)
    turned = collage.paste(images[2], cup, at=(100, 100), scale=0.4, degrees=90)
    assert (mirrored == plain[:, ::-1]).mean() > 0.995 and (turned == np.rot90(plain, -1)).mean() > 0.995
    assert np.abs(images[1] - images[0][:, ::-1]).mean() < 0.01
    assert np.abs(images[2] - np.rot90(images[0], -1)).mean() < 0.01


def test_an_object_may_hang_over_the_border():
    image = np.full((50, 50, 3), 0.5)
    mask = collage.paste(image, collage.cutout("coins", "coin", 3), at=(0, 25))
    assert mask[:, 0].any() and not mask[:, -1].any()


@pytest.mark.parametrize(
    ("source", "kind", "number"), [("coffee", "cat", 0), ("coins", "coin", 24), ("coins", "coin", -1)]
)
def test_an_object_that_is_not_outlined_is_refused(source, kind, number):
    with pytest.raises(ValueError, match="outlined objects of class"):
        collage.cutout(source, kind, number)
