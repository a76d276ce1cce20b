"""Claim 2.1: what a class map still tells about objects, and what is lost."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import ndimage
from skimage.measure import label
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed

from course_lib.datasets import Sample, cells, scenes
from course_lib.datasets.cells import SMALLEST_CELL
from course_lib.datasets.targets import decode_three_classes, encode_three_classes
from course_lib.metrics.instance import matching_scores
from course_lib.teaching.ledger import Result, judged
from course_lib.teaching.statistics import judge

SEEDS = tuple(range(8))
TOUCHING = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Levels of the dial `touching` of `cells`."""
OCCLUSION = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Levels of the dial `occlusion` of `scenes`."""
KINDS = {"six_classes": 0.0, "mostly_one_class": 0.95}
"""Two worlds of scenes, by their dial `imbalance`."""
CELL_PICTURES, SCENE_PICTURES = 16, 12
"""Of each level and seed."""
DENSITY = 0.3
DENSITIES = (0.1, 0.2, 0.4, 0.5)
"""Beside `DENSITY`: touching cells may also come from a crowd, at the dial's default."""
CROWD = 0.4
DEPTHS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""What the watershed's one parameter is chosen from, in pixels."""
BORDER = 1.5
"""Half the width of the border class, as in the recipe of the network that segments cells."""


# From a class map to objects --------------------------------------------------------------------------------


def components(semantic: np.ndarray, connectivity: int = 8) -> np.ndarray:
    """Every connected piece of one class is an object.

    Args:
        semantic: int `(height, width)`, 0 = background, negative = ignore.
        connectivity: 8, pixels that meet at a corner belong together, or 4, only those that share a side.

    Returns:
        int32 `(height, width)`, 0 = background, ids 1..n.

    Raises:
        ValueError: for another connectivity.
    """
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity is {connectivity!r}; a pixel has 4 or 8 neighbours.")
    return label(np.maximum(semantic, 0), background=0, connectivity=connectivity // 4).astype(np.int32)


def by_watershed(semantic: np.ndarray, depth: float) -> np.ndarray:
    """Cut the pieces of each class at their necks: a watershed on the distance to the outline.

    A pixel's height is its distance to the nearest pixel that is not of its class. Every summit that rises at least
    `depth` above the pass to a higher one is an object (an h-maximum); the others are part of their neighbour
    (Soille 2003, Morphological image analysis; Vincent and Soille 1991 for the flooding).

    Args:
        semantic: int `(height, width)`, 0 = background, negative = ignore.
        depth: in pixels; the larger, the fewer cuts.

    Returns:
        int32 `(height, width)`, 0 = background, ids 1..n.

    Raises:
        ValueError: for a depth that is not positive.
    """
    if depth <= 0:
        raise ValueError(f"depth is {depth}; it is a height in pixels and must be positive.")
    found = np.zeros(semantic.shape, np.int32)
    for kind in np.unique(semantic[semantic > 0]):
        mask = semantic == kind
        height = ndimage.distance_transform_edt(mask)
        # Not skimage's `h_maxima`: of two equally high summits of one hill it keeps both, apart.
        summits = local_maxima(reconstruction(height - depth, height), connectivity=2) & mask
        # A piece lower than `depth` has no such summit: it stays whole.
        pieces = label(mask, connectivity=2)
        bare = np.isin(pieces, np.setdiff1d(pieces[mask], pieces[summits]))
        summits = label(summits | bare, connectivity=2)
        objects = watershed(-height, summits, connectivity=2, mask=mask)
        found[mask] = objects[mask] + found.max()
    return found


def at_best_with_borders(instances: np.ndarray) -> np.ndarray:
    """The best objects that a network with a border class could predict: its three classes known without error."""
    known = np.eye(3)[encode_three_classes(instances, BORDER)]
    return decode_three_classes(known, min_size=SMALLEST_CELL)


# What touches -----------------------------------------------------------------------------------------------


def touching_pairs(instances: np.ndarray) -> np.ndarray:
    """Which objects have pixels that are neighbours, corners included.

    Args:
        instances: int `(height, width)`, 0 = background.

    Returns:
        int `(pairs, 2)`, the smaller id first, each pair once.
    """
    meetings = [np.zeros((0, 2), int)]
    for here, there in (
        (instances[1:], instances[:-1]),
        (instances[:, 1:], instances[:, :-1]),
        (instances[1:, 1:], instances[:-1, :-1]),
        (instances[1:, :-1], instances[:-1, 1:]),
    ):
        meet = (here > 0) & (there > 0) & (here != there)
        meetings.append(np.stack([here[meet], there[meet]], axis=1))
    return np.unique(np.sort(np.concatenate(meetings), axis=1), axis=0)


def touching_share(samples: Sequence[Sample], same_class: bool = True) -> float:
    """The fraction of all objects that touch another one, of their own class or of any."""
    touching = total = 0
    for sample in samples:
        pairs = touching_pairs(sample.instances)
        if same_class:
            kinds = sample.classes[pairs - 1]
            pairs = pairs[kinds[:, 0] == kinds[:, 1]]
        touching += len(np.unique(pairs))
        total += len(sample.classes)
    return touching / max(1, total)


# Scores -----------------------------------------------------------------------------------------------------


def counted(truths: Sequence[np.ndarray], answers: Sequence[np.ndarray]) -> dict[str, float]:
    """How well objects were counted and found, over several images.

    Args:
        truths, answers: one instance map for each image.

    Returns:
        `count_error`: objects too many or too few in each image, summed, as a fraction of the true objects;
        `count_bias`: the same, but too many and too few cancel, negative = too few;
        `ap_50`, `ap_75`: TP / (TP + FP + FN) over all images at IoU 0.5 and 0.75.
    """
    wrong = np.array([answer.max() - truth.max() for truth, answer in zip(truths, answers, strict=True)])
    total = max(1, sum(int(truth.max()) for truth in truths))
    ap_50, ap_75 = matching_scores(truths, answers, (0.5, 0.75)).average_precision
    return {
        "count_error": float(np.abs(wrong).sum() / total),
        "count_bias": float(wrong.sum() / total),
        "ap_50": float(ap_50),
        "ap_75": float(ap_75),
    }


def merged_and_split(samples: Sequence[Sample]) -> dict[str, float]:
    """How the components of a perfect class map differ from the objects, as fractions of the true objects.

    Of every object one can see one piece or, where something lies in front, several: these are `split`. Pieces of one
    class that touch are one piece of the class map: these are `merged`. Pieces counted = objects + split − merged.
    """
    objects = seen = counts = 0
    for sample in samples:
        objects += len(sample.classes)
        seen += int(components(sample.instances).max())
        counts += int(components(sample.semantic).max())
    return {"merged": (seen - counts) / max(1, objects), "split": (seen - objects) / max(1, objects)}


def pairs_merged(samples: Sequence[Sample]) -> dict[str, dict[str, int]]:
    """Of the pairs of objects that touch, how many lie in one piece of the perfect class map: of one class, of two."""
    counts = {kind: {"pairs": 0, "merged": 0} for kind in ("same_class", "other_class")}
    for sample in samples:
        pieces = components(sample.semantic)
        inside = sample.instances > 0
        lies_in = set(zip(sample.instances[inside].tolist(), pieces[inside].tolist(), strict=True))
        of = {k: {piece for one, piece in lies_in if one == k} for k in range(1, len(sample.classes) + 1)}
        for one, other in touching_pairs(sample.instances).tolist():
            same = sample.classes[one - 1] == sample.classes[other - 1]
            kind = counts["same_class" if same else "other_class"]
            kind["pairs"] += 1
            kind["merged"] += bool(of[one] & of[other])
    return counts


def choose_depth() -> tuple[float, dict[str, float]]:
    """The depth with the best AP at IoU 0.5 on images of the training set, of all levels together; and every depth's."""
    samples = [
        sample
        for level in TOUCHING
        for sample in cells("train", CELL_PICTURES, seed=0, touching=level, density=DENSITY)
    ]
    truths = [sample.instances for sample in samples]
    scores = {
        depth: counted(truths, [by_watershed(sample.semantic, depth) for sample in samples])["ap_50"]
        for depth in DEPTHS
    }
    return max(scores, key=scores.get), {f"{depth:g}": score for depth, score in scores.items()}


def _collect(into: dict, values: Mapping) -> None:
    """Append each number to the list of the same name, in nested tables too."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            _collect(into.setdefault(name, {}), value)
        else:
            into.setdefault(name, []).append(value)


# The claim --------------------------------------------------------------------------------------------------


def count_cells(level: float, seed: int, depth: float, images: int = CELL_PICTURES) -> dict:
    """One repetition at one level of touching: the fraction that really touch, and the scores of each method, from
    perfect masks."""
    samples = list(cells("val", images, seed=seed, touching=level, density=DENSITY))
    truths = [sample.instances for sample in samples]
    answers = {
        "components": [components(sample.semantic) for sample in samples],
        "watershed": [by_watershed(sample.semantic, depth) for sample in samples],
        "three_classes": [at_best_with_borders(truth) for truth in truths],
    }
    return {"touching": touching_share(samples), "objects": sum(int(truth.max()) for truth in truths)} | {
        way: counted(truths, found) for way, found in answers.items()
    }


def count_crowd(density: float, seed: int, images: int = CELL_PICTURES) -> dict:
    """One repetition at one density: the fraction that really touch, and the score of connected components."""
    samples = list(cells("val", images, seed=seed, touching=CROWD, density=density))
    truths = [sample.instances for sample in samples]
    return {
        "touching": touching_share(samples),
        "components": counted(truths, [components(sample.semantic) for sample in samples]),
    }


def count_scenes(
    level: float, imbalance: float, seed: int, depth: float, images: int = SCENE_PICTURES
) -> dict:
    """One repetition at one level of occlusion: what touches, and what the pieces of the perfect class map miss."""
    samples = list(scenes("val", images, seed=seed, occlusion=level, imbalance=imbalance))
    truths = [sample.instances for sample in samples]
    return {
        "touching_same_class": touching_share(samples),
        "touching_any_class": touching_share(samples, same_class=False),
        **merged_and_split(samples),
        **pairs_merged(samples),
        "components": counted(truths, [components(sample.semantic) for sample in samples]),
        "watershed": counted(truths, [by_watershed(sample.semantic, depth) for sample in samples]),
    }


def claim_2_1(progress: Callable[[str], None] = print) -> Result:
    """Semantic segmentation gives every pixel a class and merges touching objects."""
    depth, depths = choose_depth()
    progress(f"watershed: depth {depth:g} pixels, chosen on train")
    table: dict = {
        "settings": {
            "cell_pictures": CELL_PICTURES,
            "scene_pictures": SCENE_PICTURES,
            "density": DENSITY,
            "watershed_depth": depth,
            "ap_50_on_train_by_depth": depths,
        },
        "cells": {f"{level:g}": {} for level in TOUCHING},
        "crowds": {f"{density:g}": {} for density in DENSITIES},
        "scenes": {kind: {f"{level:g}": {} for level in OCCLUSION} for kind in KINDS},
    }
    for seed in SEEDS:
        for level in TOUCHING:
            _collect(table["cells"][f"{level:g}"], count_cells(level, seed, depth))
        for density in DENSITIES:
            _collect(table["crowds"][f"{density:g}"], count_crowd(density, seed))
        for kind, imbalance in KINDS.items():
            for level in OCCLUSION:
                _collect(table["scenes"][kind][f"{level:g}"], count_scenes(level, imbalance, seed, depth))
        last = table["cells"][f"{TOUCHING[-1]:g}"]
        progress(f"seed {seed}: at full touching, {last['components']['count_error'][-1]:.0%} miscounted")

    none, full = (table["cells"][f"{level:g}"] for level in (TOUCHING[0], TOUCHING[-1]))
    for way in ("components", "watershed", "three_classes"):
        table[f"{way}_full_minus_none"] = np.subtract(
            full[way]["count_error"], none[way]["count_error"]
        ).tolist()
    return merging(table)


def merging(table: dict) -> Result:
    """Claim 2.1, read off the table: what touching costs objects of one class, and objects of different classes."""
    worlds = [entry for world in table["scenes"].values() for entry in world.values()]
    merged, pairs = (
        np.sum([entry["other_class"][count] for entry in worlds], axis=0) for count in ("merged", "pairs")
    )
    return judged(
        "2.1",
        "Semantic segmentation gives every pixel a class and merges objects that touch.",
        "fraction of cells miscounted in a perfect label map, almost all touching minus none touching (one class); "
        "fraction of touching pairs that are merged (different classes)",
        judge(
            {
                "objects of one class": table["components_full_minus_none"],
                "objects of different classes": merged / np.maximum(1, pairs),
            },
            planned=len(SEEDS),
        ),
        table,
    )
