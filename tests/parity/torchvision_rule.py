"""The fixtures' rule for parameters, for their script and for all tests that hold a network against them."""

import zlib

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

LEVELS = ("0", "1", "2", "3", "pool")


def read_reference(fixtures):
    path = fixtures / "torchvision_mask_rcnn.npz"
    if not path.is_file():
        pytest.skip(f"no reference outputs of torchvision: {path.name} is missing")
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def parameter(name, shape, seed):
    """The array of a parameter or buffer, in PyTorch's layout: from its name and the seed alone, so no file of weights."""
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
    from course_lib.models.mask_rcnn.torchvision_weights import load_torchvision, torchvision_shapes

    shapes = torchvision_shapes(model)
    load_torchvision(model, {name: parameter(name, shape, seed) for name, shape in shapes.items()})


def partners(boxes, expected, classes=None, expected_classes=None):
    """Which of our boxes stands for each of theirs, and how far each pair is apart in pixels; one of another class is far.

    Both are ranked by scores, and torchvision by probabilities: float32 holds no difference between a logit of 17 and one
    of 20 there. So two neighbours in the list may have changed places without either being wrong; of boxes that are alike
    the one of the same rank is taken.
    """
    distance = np.abs(boxes[:, None] - expected[None]).max(-1).astype(np.float64)
    if classes is not None:
        distance += 1e6 * (classes[:, None] != expected_classes[None])
    ranks = np.abs(np.arange(len(boxes))[:, None] - np.arange(len(expected))[None])
    ours, theirs = linear_sum_assignment(distance + 1e-7 * ranks)
    order = np.argsort(theirs)
    return ours[order], theirs[order], distance[ours, theirs][order]
