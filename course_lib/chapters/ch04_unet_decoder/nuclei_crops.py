"""Crops of nuclei, and what is scored on them: the data of claims 3.1, 3.3, 3.4, 5.2 and 8.1.

One crop of 64 × 64 pixels from each image of the set, where it shows most nuclei.
"""

import hashlib
from functools import lru_cache

import numpy as np
from skimage.segmentation import relabel_sequential

from course_lib import datasets, resources
from course_lib.chapters.ch02_semantic_vs_instance.instances import touching_pairs
from course_lib.datasets.loading import normalize
from course_lib.datasets.targets import decode_three_classes
from course_lib.metrics.boundary import boundary_f1
from course_lib.metrics.instance import match
from course_lib.models.predict import softmax
from course_lib.tasks import instance_scores

SIDE, POOL, BORDER, SMALLEST = 64, 256, 1.5, 10
TOLERANCES = (1, 2, 4)
"""Of the boundary F1, in pixels."""
SIZES = {"under 8": (0, 8), "8 to 16": (8, 16), "16 and more": (16, np.inf)}
"""Roots of areas in pixels."""


@lru_cache(maxsize=1)
def crops() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images `(n, 64, 64, 1)` and instance maps: `"pool"` to learn from, `"reported"`, and `"val"`."""
    found = {}
    for split in ("train", "val"):
        pairs = []
        for sample in datasets.nuclei(split):
            image = normalize(sample.image.astype("float32"), "stretch")
            corners = [
                (y, x)
                for y in range(0, image.shape[0] - SIDE + 1, 16)
                for x in range(0, image.shape[1] - SIDE + 1, 16)
            ]
            y, x = max(
                corners,
                key=lambda at: len(np.unique(sample.instances[at[0] : at[0] + SIDE, at[1] : at[1] + SIDE])),
            )
            pairs.append((image[y : y + SIDE, x : x + SIDE], sample.instances[y : y + SIDE, x : x + SIDE]))
        order = np.random.default_rng(8).permutation(len(pairs)) if split == "train" else range(len(pairs))
        found[split] = tuple(np.stack([pairs[k][part] for k in order]) for part in (0, 1))
    pool, reported = ([part[some] for part in found["train"]] for some in (slice(POOL), slice(POOL, None)))
    return {"pool": tuple(pool), "reported": tuple(reported), "val": found["val"]}


def data_fingerprint() -> str:
    """Of the archive's manifest: the set itself need not be here to read what was measured on it."""
    return hashlib.sha256((resources.DATA / "manifests" / "nuclei.json").read_bytes()).hexdigest()[:12]


def drawn(seed: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    """The crops that a seed's networks learn from: images and instance maps."""
    chosen = np.random.default_rng([seed, 81]).permutation(POOL)[:images]
    return tuple(part[chosen] for part in crops()["pool"])


def scored(
    logits: np.ndarray, instances: np.ndarray, seed_threshold: float, mask_threshold: float = 0.5
) -> dict[str, float]:
    """AP and IoU of the nuclei that a network's logits give."""
    nothing = np.zeros((SIDE, SIDE), bool)
    return instance_scores(
        (truth, nuclei_of(one, seed_threshold, mask_threshold), nothing)
        for one, truth in zip(logits, instances, strict=True)
    )


def nuclei_of(logits: np.ndarray, seed_threshold: float, mask_threshold: float = 0.5) -> np.ndarray:
    """The instance map of one crop; a network of two classes gives no pixel to the border."""
    probabilities = softmax(logits)
    absent = np.zeros((*logits.shape[:2], 3 - logits.shape[-1]), probabilities.dtype)
    three = np.concatenate([probabilities, absent], -1)
    return decode_three_classes(three, seed_threshold, mask_threshold, SMALLEST)


def measured(
    logits: np.ndarray, instances: np.ndarray, seed_threshold: float, mask_threshold: float
) -> dict[str, float]:
    """All scores of a network on some crops.

    Returns:
        Those of `scored`; `boundary_f1_…` of nuclei against background (where the probability of background is below 0.5)
        within so many pixels, the mean over the crops; `recall_…` (IoU above 0.5) of the nuclei of a kind.
    """
    result = scored(logits, instances, seed_threshold, mask_threshold)
    mask = softmax(logits)[..., 0] < 0.5
    for tolerance in TOLERANCES:
        values = [boundary_f1(y > 0, x, tolerance) for y, x in zip(instances, mask, strict=True)]
        result[f"boundary_f1_{tolerance}"] = float(np.nanmean(values))
    pairs = [
        found_by_kind(truth, nuclei_of(one, seed_threshold, mask_threshold))
        for one, truth in zip(logits, instances, strict=True)
    ]
    hit = np.concatenate([found for _, found in pairs])
    for kind in pairs[0][0]:
        result[f"recall_{kind}"] = float(np.mean(hit[np.concatenate([kinds[kind] for kinds, _ in pairs])]))
    return result


def found_by_kind(truth: np.ndarray, found: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """For each nucleus of a crop, whether it is of a kind, and whether it was found (IoU above 0.5).

    Args:
        truth, found: instance maps.

    Returns:
        Kind (`"touching"`, `"alone"`, and the names in `SIZES` for those that the crop does not cut) → bool `(nuclei,)`,
        and bool `(nuclei,)`.
    """
    truth = relabel_sequential(truth)[0]
    size = np.sqrt(np.bincount(truth.ravel(), minlength=1)[1:])
    touching, whole, hit = np.zeros(len(size), bool), np.ones(len(size), bool), np.zeros(len(size), bool)
    touching[touching_pairs(truth).ravel() - 1] = True
    edge = np.concatenate([truth[0], truth[-1], truth[:, 0], truth[:, -1]])
    whole[edge[edge > 0] - 1] = False
    hit[match(truth, found, 0.5).pairs[:, 0] - 1] = True
    sizes = {name: whole & (low <= size) & (size < high) for name, (low, high) in SIZES.items()}
    return {"touching": touching, "alone": ~touching} | sizes, hit
