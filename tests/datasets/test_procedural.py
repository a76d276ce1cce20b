"""`cells` and `scenes`: the same everywhere, true to the contract, and every dial does what it says."""

import json
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from zlib import crc32

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import regionprops

from course_lib.datasets import boxes_from_instances, cells, scenes
from course_lib.datasets.cells import SMALLEST_CELL
from course_lib.datasets.scenes import SMALLEST_PART

MAKERS = [cells, scenes]

# CRC-32 of image, instance map, boxes and classes. They change only when the sets are changed on purpose,
# which makes all that was measured and trained on them stale.
GOLDEN = {
    "cells-train-0": 3332033457,
    "cells-train-7": 56556401,
    "cells-val-3": 221424911,
    "cells-rare-1": 3765332574,
    "scenes-train-0": 3605565686,
    "scenes-train-7": 913093371,
    "scenes-val-3": 2698491279,
    "scenes-hidden-1": 2962993605,
}


def fingerprint(sample):
    parts = (np.rint(255 * sample.image).astype(np.uint8), sample.instances, sample.boxes, sample.classes)
    code = 0
    for part in parts:
        code = crc32(np.ascontiguousarray(part).tobytes(), code)
    return code


def fingerprints():
    return {
        "cells-train-0": fingerprint(cells()[0]),
        "cells-train-7": fingerprint(cells()[7]),
        "cells-val-3": fingerprint(cells("val", size=(96, 160), seed=5)[3]),
        "cells-rare-1": fingerprint(cells(foreground=0.01, noise=0.1)[1]),
        "scenes-train-0": fingerprint(scenes()[0]),
        "scenes-train-7": fingerprint(scenes()[7]),
        "scenes-val-3": fingerprint(scenes("val", size=(96, 160), seed=5)[3]),
        "scenes-hidden-1": fingerprint(scenes(objects=30, occlusion=1.0, imbalance=0.5)[1]),
    }


def same(a, b):
    return fingerprint(a) == fingerprint(b) and np.array_equal(a.semantic, b.semantic) and a.name == b.name


# The same sample everywhere ---------------------------------------------------------------------------------


def test_samples_are_what_they_were():
    assert fingerprints() == GOLDEN


def run_elsewhere(**environment):
    """The fingerprints and the loaded modules, from a process of its own."""
    program = (
        "import json, sys\n"
        f"sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
        "import course_lib.datasets\n"
        "import test_procedural as t\n"
        "backends = [m for m in ('keras', 'tensorflow', 'jax', 'torch') if m in sys.modules]\n"
        "print(json.dumps([t.fingerprints(), backends]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_samples_are_the_same_without_wide_vector_instructions():
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    wide = [feature for feature in __cpu_dispatch__ if __cpu_features__.get(feature)]
    if not wide:
        pytest.skip("numpy uses no optional vector instructions on this machine")
    found, _ = run_elsewhere(NPY_DISABLE_CPU_FEATURES=" ".join(wide))
    assert found == GOLDEN


def test_samples_are_the_same_with_another_backend_and_none_is_loaded():
    found, loaded = run_elsewhere(KERAS_BACKEND="jax")
    assert found == GOLDEN
    assert loaded == []


@pytest.mark.parametrize("make", MAKERS)
def test_a_sample_depends_on_its_index_alone(make):
    long, short = make(length=40, size=48), make(length=4, size=48)
    backwards = [long[i] for i in (3, 2, 1, 0)][::-1]
    assert all(same(short[i], backwards[i]) for i in range(4))
    assert same(short[-1], short[3])
    assert same(long[np.int64(2)], short[2])
    with pytest.raises(IndexError, match="a sample of .*, 0 to 3"):
        short[4]
    with pytest.raises(IndexError):
        short[-5]
    assert len(list(short)) == 4


@pytest.mark.parametrize("make", MAKERS)
def test_samples_differ_by_index_seed_and_split(make):
    codes = {
        fingerprint(make(split, length=3, size=48, seed=seed)[i])
        for split in ("train", "val", "test")
        for seed in (0, 1)
        for i in range(3)
    }
    assert len(codes) == 18


@pytest.mark.parametrize("make", MAKERS)
def test_threads_and_copies_read_the_same(make):
    dataset = make(length=24, size=48)
    serial = [fingerprint(dataset[i]) for i in range(24)]
    with ThreadPoolExecutor(8) as pool:
        assert [fingerprint(s) for s in pool.map(dataset.__getitem__, range(24))] == serial
    assert fingerprint(pickle.loads(pickle.dumps(dataset))[5]) == serial[5]


# The contract -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [64, (40, 100), (16, 16)])
@pytest.mark.parametrize("make", MAKERS)
def test_contract(make, size):
    dataset = make("val", length=8, size=size, seed=3)
    height, width = (size, size) if isinstance(size, int) else size
    assert (len(dataset), dataset.split, dataset.num_classes) == (8, "val", len(dataset.class_names))
    for sample in dataset:
        assert sample.image.shape == (height, width, dataset.channels) and sample.image.dtype == np.float32
        assert 0.0 <= sample.image.min() and sample.image.max() <= 1.0
        levels = 255.0 * sample.image.astype(np.float64)
        assert np.abs(levels - np.rint(levels)).max() < 1e-4
        assert sample.semantic.shape == sample.instances.shape == (height, width)
        assert sample.semantic.dtype == sample.instances.dtype == sample.classes.dtype == np.int32
        count = len(sample.classes)
        assert np.array_equal(np.unique(np.append(sample.instances, 0)), np.arange(count + 1))
        assert np.array_equal(
            sample.boxes, boxes_from_instances(sample.instances)
        ) and sample.boxes.shape == (count, 4)
        assert sample.boxes.dtype == np.float32
        assert ((sample.classes >= 1) & (sample.classes < dataset.num_classes)).all()
        assert np.array_equal(sample.semantic, np.append(0, sample.classes)[sample.instances])
        least = SMALLEST_CELL if make is cells else SMALLEST_PART
        assert (np.bincount(sample.instances.ravel(), minlength=count + 1)[1:] >= least).all()
    assert len({sample.name for sample in dataset}) == 8


def test_a_cell_is_in_one_piece():
    for sample in cells(length=12, density=0.5, touching=1.0):
        for number in range(1, sample.instances.max() + 1):
            assert ndimage.label(sample.instances == number)[1] == 1


@pytest.mark.parametrize("make", MAKERS)
def test_an_image_may_be_empty(make):
    sample = (cells(density=0.0) if make is cells else scenes(objects=0))[0]
    assert sample.boxes.shape == (0, 4) and sample.classes.shape == (0,)
    assert not sample.semantic.any() and not sample.instances.any()


# Dials of cells ---------------------------------------------------------------------------------------------


def coverage(dataset):
    return np.mean([(sample.instances > 0).mean() for sample in dataset])


def neighbours(instances):
    """The pairs of instances of which pixels touch, corners included."""
    padded = np.pad(instances, 1)
    h, w = instances.shape
    pairs = set()
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shifted = padded[1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w]
        meet = (instances > 0) & (shifted > 0) & (instances != shifted)
        pairs |= {tuple(sorted(pair)) for pair in np.stack([instances[meet], shifted[meet]], 1).tolist()}
    return pairs


def touching_share(dataset):
    touched = total = 0
    for sample in dataset:
        touched += len({number for pair in neighbours(sample.instances) for number in pair})
        total += len(sample.classes)
    return touched / total


def grain(dataset):
    """Deviation of the noise: differences of horizontal neighbours in the background, far from cells."""
    values = []
    for sample in dataset:
        far = ~ndimage.binary_dilation(sample.instances > 0, iterations=6)
        difference = np.diff(sample.image[..., 0].astype(np.float64), axis=1)
        values.append(difference[far[:, 1:] & far[:, :-1]].std() / np.sqrt(2.0))
    return np.mean(values)


def test_density_sets_the_share_covered():
    shares = [coverage(cells(length=12, density=density)) for density in (0.05, 0.2, 0.4)]
    np.testing.assert_allclose(shares, (0.05, 0.2, 0.4), atol=0.035)


def test_touching_sets_the_share_of_cells_in_contact():
    shares = [
        touching_share(cells(length=10, density=0.25, touching=touching)) for touching in (0.0, 0.3, 0.6, 1.0)
    ]
    assert shares[0] == 0.0
    np.testing.assert_allclose(shares[1:3], (0.3, 0.6), atol=0.15)
    assert shares[3] > 0.9


def test_radius_sets_the_size():
    for radius in (4.0, 8.0, 16.0):
        areas = []
        for sample in cells(length=8, size=160, radius=radius, touching=0.0, density=0.2):
            inside = (sample.boxes[:, :2] > 0).all(1) & (sample.boxes[:, 2:] < 160).all(1)
            areas += np.bincount(sample.instances.ravel())[1:][inside].tolist()
        assert np.mean(np.sqrt(np.array(areas) / np.pi)) == pytest.approx(radius, rel=0.05)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.3])
def test_foreground_sets_the_share_of_every_image(share):
    for sample in cells(length=8, foreground=share):
        assert (sample.instances > 0).mean() == pytest.approx(share, rel=0.08, abs=SMALLEST_CELL / 2 / 128**2)


def test_contrast_sets_the_brightness_of_cells():
    def step(contrast):
        samples = cells(length=10, contrast=contrast, noise=0.01)
        return np.mean([s.image[s.semantic == 1].mean() - s.image[s.semantic == 0].mean() for s in samples])

    steps = [step(contrast) for contrast in (0.1, 0.3, 0.6)]
    np.testing.assert_allclose(np.array(steps) / (0.1, 0.3, 0.6), 0.7, atol=0.2)


def test_noise_sets_the_grain():
    grains = [grain(cells(length=6, noise=noise, contrast=0.4)) for noise in (0.02, 0.05, 0.1)]
    # In the dark background the deviation is between that of the camera alone (0.45) and that of half
    # brightness (1).
    assert all(0.4 < value / noise < 0.85 for value, noise in zip(grains, (0.02, 0.05, 0.1), strict=True))
    assert grain(cells(length=6, noise=0.0)) < 0.004


def test_a_pair_gives_every_image_its_own_value():
    shares = [(sample.instances > 0).mean() for sample in cells(length=24, density=(0.05, 0.45), radius=6.0)]
    assert min(shares) < 0.15 and max(shares) > 0.33


# Dials of scenes --------------------------------------------------------------------------------------------

LARGE = {"object_size": (24, 48), "size": 128, "length": 12}


def solidity(dataset):
    """Mean share of its convex hull that an object fills: 1 for a whole disc, less where it is hidden."""
    return np.mean([region.solidity for sample in dataset for region in regionprops(sample.instances)])


def test_occlusion_hides_parts():
    # With the imbalance at its end nearly all objects are discs, which are convex unless a part is hidden.
    whole, half, most = (
        solidity(scenes(objects=8, imbalance=0.95, occlusion=o, **LARGE)) for o in (0.0, 0.4, 0.9)
    )
    assert whole > 0.96
    assert whole - 0.02 > half > most + 0.02


def test_without_occlusion_nothing_is_cut():
    for sample in scenes(objects=8, imbalance=0.95, occlusion=0.0, **LARGE):
        for region, kind in zip(regionprops(sample.instances), sample.classes, strict=True):
            assert kind != 1 or region.solidity > 0.9


def test_what_is_hidden_is_dropped():
    dataset = scenes(length=8, size=48, objects=40, object_size=(10, 48), occlusion=1.0)
    counts = [len(sample.classes) for sample in dataset]
    assert max(counts) < 40 and min(counts) > 3


def test_thin_thins():
    # Discs and triangles have no thin parts; among all classes together the covered share still falls.
    shares = [coverage(scenes(objects=3, thin=thin, occlusion=0.0, **LARGE)) for thin in (0.0, 0.5, 1.0)]
    assert shares[0] > shares[1] > shares[2]
    rods = {}
    for thin in (0.0, 1.0):
        found = [
            (s.instances == k + 1).sum()
            for s in scenes(objects=6, thin=thin, **LARGE)
            for k in np.flatnonzero(s.classes == 6)
        ]
        rods[thin] = np.mean(found)
    assert rods[1.0] < 0.4 * rods[0.0]


def test_object_size_bounds_the_boxes():
    for sample in scenes(length=16, objects=6, object_size=(10, 20), occlusion=0.0):
        sides = sample.boxes[:, 2:] - sample.boxes[:, :2]
        inside = (sample.boxes[:, :2] > 0).all(1) & (sample.boxes[:, 2:] < 128).all(1)
        # A cross or a triangle that stands askew may be a little longer or shorter than its nominal length.
        assert (sides <= 1.25 * 20 + 1).all()
        assert (sides[inside].max(1) >= 0.6 * 10 - 1).all()


def test_default_sizes_reach_from_four_pixels_to_the_whole_image():
    sides = [
        side for sample in scenes(length=60) for side in (sample.boxes[:, 2:] - sample.boxes[:, :2]).max(1)
    ]
    assert min(sides) <= 5 and max(sides) >= 100


def test_objects_sets_the_count():
    counts = [
        len(sample.classes)
        for sample in scenes(length=12, size=160, objects=(4, 6), object_size=(8, 24), occlusion=0.0)
    ]
    assert set(counts) <= {3, 4, 5, 6} and len(set(counts)) > 1


def test_imbalance_makes_later_classes_rarer():
    def counts(imbalance):
        classes = [
            sample.classes
            for sample in scenes(length=60, size=64, objects=6, object_size=(6, 12), imbalance=imbalance)
        ]
        return np.bincount(np.concatenate(classes), minlength=7)[1:]

    even, skewed = counts(0.0), counts(0.5)
    assert even.min() > 0.5 * even.max()
    assert skewed[0] > 1.4 * skewed[1] > 1.4 * skewed[3] and skewed[5] < 0.15 * skewed[0]


def test_only_some_shapes_are_drawn_under_labels_of_their_own():
    names = ("background", "ring", "disc")
    data, all_shapes = (
        scenes(objects=3, class_names=names, **LARGE),
        scenes(objects=3, **LARGE),
    )
    assert data.class_names == names and data.fingerprint() != all_shapes.fingerprint()
    assert {int(label) for sample in data for label in sample.classes} == {1, 2}
    # Rings have a hole, discs none, where the image's edge does not cut them open.
    plain = scenes(length=40, objects=1, occlusion=0.0, class_names=names, size=96, object_size=(30, 50))
    whole = [s for s in plain if s.boxes.min() > 0 and s.boxes.max() < 96]
    holes = {1: [], 2: []}
    for sample in whole:
        shape = sample.instances == 1
        holes[int(sample.classes[0])].append(ndimage.binary_fill_holes(shape).sum() - shape.sum())
    assert min(holes[1]) > 0 and max(holes[2]) == 0


def test_contrast_and_noise_of_scenes():
    def step(contrast):
        differences = []
        for sample in scenes(objects=1, imbalance=0.95, noise=0.0, contrast=contrast, **LARGE):
            around = ndimage.binary_dilation(sample.instances > 0, iterations=8)
            around &= ~ndimage.binary_dilation(sample.instances > 0, iterations=4)
            change = sample.image[sample.instances > 0].mean(0) - sample.image[around].mean(0)
            differences.append(np.abs(change).max())
        return np.mean(differences)

    steps = [step(contrast) for contrast in (0.1, 0.25, 0.5)]
    assert steps[0] + 0.05 < steps[1] < steps[2] - 0.1
    quiet, loud = scenes(length=4, noise=0.0), scenes(length=4, noise=0.1)
    for a, b in zip(quiet, loud, strict=True):
        assert np.array_equal(a.instances, b.instances)
        inside = (a.image > 0.3) & (a.image < 0.7)
        assert (b.image.astype(np.float64) - a.image)[inside].std() == pytest.approx(0.1, rel=0.05)


# Bad parameters -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "parameters", "message"),
    [
        (cells, {"split": "dev"}, "split is .dev.; it must be one of"),
        (cells, {"length": -1}, "length is -1; it must be at least 0"),
        (cells, {"length": 2.5}, "length is 2.5"),
        (cells, {"size": 8}, "size is 8; .* at least 16"),
        (scenes, {"size": (64, 64, 3)}, "size is "),
        (scenes, {"size": "64"}, "size is "),
        (cells, {"seed": -1}, "seed is -1; it must be at least 0"),
        (cells, {"radius": 1.0}, "radius is 1.0; it must be at least 2.0 and at most 100.0"),
        (cells, {"radius": (9, 5)}, "radius is .* low <= high"),
        (cells, {"density": 0.7}, "density is 0.7; .* at most 0.6"),
        (cells, {"density": "high"}, "density is .high.; it must be a number"),
        (cells, {"touching": 1.1}, "touching is 1.1; .* at most 1.0"),
        (cells, {"contrast": 0.0}, "contrast is 0.0; .* at least 0.02"),
        (cells, {"noise": -0.1}, "noise is -0.1; .* at least 0.0"),
        (cells, {"noise": float("nan")}, "noise is "),
        (cells, {"foreground": 0.0}, "foreground is 0.0; .* at least 0.001"),
        (
            cells,
            {"foreground": 0.001, "size": 64},
            "foreground is 0.001; .* smallest cell .* at least 0.0020",
        ),
        (scenes, {"objects": (5, 2)}, "objects is .* low <= high"),
        (scenes, {"objects": 1.5}, "objects is 1.5"),
        (scenes, {"class_names": ("disc", "ring")}, "class_names is .*; it must be .background. and then"),
        (scenes, {"class_names": ("background", "disc", "disc")}, "class_names is "),
        (scenes, {"class_names": "disc"}, "class_names is "),
        (scenes, {"object_size": 12}, "object_size is 12; it must be a pair"),
        (scenes, {"object_size": (2, 20)}, "object_size is 2; .* at least 4.0"),
        (scenes, {"occlusion": 2}, "occlusion is 2; .* at most 1.0"),
        (scenes, {"thin": -0.5}, "thin is "),
        (scenes, {"contrast": 0.6}, "contrast is 0.6; .* at most 0.5"),
        (scenes, {"noise": True}, "noise is "),
        (scenes, {"imbalance": 1.0}, "imbalance is 1.0; .* at most 0.95"),
    ],
)
def test_a_bad_parameter_is_one_clear_error(make, parameters, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make(**parameters)
