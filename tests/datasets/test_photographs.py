"""`photographs`: scikit-image's bundled pictures and the course's outlines, read without a network."""

import json
import socket

import numpy as np
import pytest
from scipy import ndimage
from skimage.draw import polygon2mask

from course_lib.datasets import DataUnavailable, boxes_from_instances, collage, photographs

SHAPES = {
    "cat": (300, 451, 3),
    "coins": (303, 384, 1),
    "retina": (1411, 1411, 3),
    "astronaut": (512, 512, 3),
    "cell": (660, 550, 1),
}


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a picture asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize("name", SHAPES)
def test_contract(name, no_network):
    sample = getattr(photographs, name)()
    names = photographs.CLASS_NAMES[name]
    assert sample.name == name
    assert sample.image.shape == SHAPES[name] and sample.image.dtype == np.float32
    assert 0.0 <= sample.image.min() and 0.8 < sample.image.max() <= 1.0
    assert sample.semantic.shape == sample.instances.shape == SHAPES[name][:2]
    assert sample.semantic.dtype == sample.instances.dtype == sample.classes.dtype == np.int32
    assert np.array_equal(np.unique(sample.instances), np.arange(len(sample.classes) + 1))
    assert np.array_equal(np.unique(sample.semantic), np.arange(len(names)))
    assert np.array_equal(sample.semantic, np.append(0, sample.classes)[sample.instances])
    assert np.array_equal(sample.boxes, boxes_from_instances(sample.instances))


def test_the_coins_are_24_and_apart():
    sample = photographs.coins()
    assert len(sample.classes) == 24 == ndimage.label(sample.instances > 0, np.ones((3, 3)))[1]
    light = sample.image[..., 0]
    for number in range(1, 25):
        coin = sample.instances == number
        around = ndimage.binary_dilation(coin, iterations=4) & ~ndimage.binary_dilation(coin, iterations=1)
        # The outline is right where just inside is brighter than just outside.
        rim = coin & ~ndimage.binary_erosion(coin, iterations=3)
        assert light[rim].mean() > light[around].mean() + 0.08


def test_the_outlines_lie_where_the_things_are():
    cat = photographs.cat()
    assert cat.semantic[150, 200] == 1 and cat.semantic[20, 360] == 1 and cat.semantic[290, 60] == 1
    assert cat.semantic[50, 10] == 0 and cat.semantic[200, 400] == 0
    face = photographs.astronaut()
    assert face.semantic[120, 225] == 1 and face.semantic[50, 225] == 0 and face.semantic[400, 250] == 0
    retina = photographs.retina()
    assert retina.semantic[5, 5] == 0 and retina.semantic[700, 700] == 1 and retina.semantic[640, 230] == 2
    lit = retina.image.max(axis=2) > 40 / 255
    assert (lit == (retina.semantic > 0)).mean() > 0.998
    disc = retina.image[retina.semantic == 2].mean(0)
    assert (disc > retina.image[retina.semantic == 1].mean(0)).all()
    cell = photographs.cell()
    assert cell.image[cell.semantic == 1].mean() > 2.0 * cell.image[cell.semantic == 0].mean()


@pytest.mark.parametrize("path", sorted(photographs.POLYGONS.glob("*.json")), ids=lambda path: path.stem)
def test_polygon_files_are_well_formed(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["image"] == path.stem and content["note"]
    names = {name for names in photographs.CLASS_NAMES.values() for name in names} | set(collage.CLASS_NAMES)
    for outlined in content["objects"]:
        assert outlined["class"] in names
        corners = np.asarray(outlined["polygon"])
        assert corners.ndim == 2 and corners.shape[1] == 2 and len(corners) >= 8


def test_filled_agrees_with_scikit_image():
    rng = np.random.default_rng(4)
    for _ in range(20):
        corners = rng.uniform(-10, 50, (7, 2))  # star-like, crossing itself, partly outside
        expected = polygon2mask((40, 37), corners[:, ::-1] - 0.5)
        assert (photographs.filled(corners.tolist(), (40, 37)) == expected).all()


def test_filled_takes_the_pixels_whose_centre_is_inside():
    mask = photographs.filled([[1, 1], [4, 1], [4, 3], [1, 3]], (5, 6))
    assert mask.sum() == 6 and mask[1:3, 1:4].all()


def test_what_is_missing_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(photographs, "POLYGONS", tmp_path)
    with pytest.raises(DataUnavailable, match=r"data/polygons/chelsea\.json cannot be read"):
        photographs.cat()

    def broken():
        raise OSError("no such picture")

    monkeypatch.setattr(photographs.data, "coins", broken, raising=False)
    with pytest.raises(DataUnavailable, match="reinstall scikit-image"):
        photographs.coins()
