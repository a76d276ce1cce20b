"""The fixtures' rule for parameters (`../shared/fixtures/README.md`), for all tests that hold a network against them."""

import zlib

import numpy as np
import pytest

from course_lib.models.mask_rcnn.torchvision_weights import load_torchvision, torchvision_shapes

LEVELS = ("0", "1", "2", "3", "pool")


def read_reference(fixtures):
    path = fixtures / "torchvision_mask_rcnn.npz"
    if not path.is_file():
        pytest.skip(f"no reference outputs of torchvision: {path.name} is missing")
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def parameter(name, shape, seed):
    """The array that the fixtures' README gives to a parameter or buffer, in PyTorch's layout."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if name.endswith("running_mean"):
        array = 0.1 * rng.standard_normal(shape)
    elif name.endswith("running_var"):
        array = rng.uniform(0.5, 1.5, shape)
    elif len(shape) == 1 and name.endswith("weight"):
        array = rng.uniform(0.1, 0.3, shape) if ".bn3." in name else rng.uniform(0.5, 1.0, shape)
    elif len(shape) == 1:
        array = 0.05 * rng.standard_normal(shape)
    else:
        array = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    return array.astype(np.float32)


def load_by_rule(model, seed):
    shapes = torchvision_shapes(model)
    load_torchvision(model, {name: parameter(name, shape, seed) for name, shape in shapes.items()})
