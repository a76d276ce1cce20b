"""Chapters 9 and 9c: numbers measured on the three real data sets, for the notebooks where the data are not available.

The classes, sizes and splits of each set, and the errors of the networks that the course trained on it: by class, by size,
and image by image. Numbers and names of images only; no pixel of a set is kept. The results lie in
`data/results/real-data/`, a file for each, made by

    python -m course_lib.chapters.ch09_one_real_case.real_data membranes nuclei camvid by-source

which measures those that are named, or all whose data is here.
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from skimage.transform import resize

from course_lib import checkpoints, datasets, hardware, recipes
from course_lib._checks import one_of
from course_lib.chapters.ch02_semantic_vs_instance.instances import touching_pairs
from course_lib.datasets import Sample, archive
from course_lib.files import write_json
from course_lib.metrics import instance, partition, semantic
from course_lib.segmenter import Segmenter
from course_lib.teaching import ledger

FOLDER = ledger.FOLDER / "real-data"
STREETS = ("unet-camvid-small", "fcn8-camvid-small", "deeplab-camvid-small")
"""The recipes that are compared on CamVid."""
COUNTABLE = ("pole", "sign", "car", "pedestrian", "cyclist")
"""Classes of CamVid of which a connected piece is a thing, or nearly."""
MOST_SIMILAR = 0.95
"""Correlation of two thumbnails from which two images are called twins."""
WIDE = 0.75
"""Bright fraction (`bright_share`) below which an image's labels are called wide."""
HABITS = (0.03, 0.06, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Mask thresholds at which the answers on the nuclei are read off once more."""

Progress = Callable[[str], None]


def here() -> tuple[str, ...]:
    """The real sets whose train and val are on this machine; nothing is downloaded or unpacked to find out."""
    return tuple(row["name"] for row in archive.status() if {"train", "val"} <= set(row["splits"]))


def read(name: str, folder: Path | None = None) -> dict[str, Any]:
    """What was measured: one of `MEASURES`.

    Raises:
        ValueError: if there is no such set.
        FileNotFoundError: if it has not been measured; the message says how to.
    """
    one_of("name", name, MEASURES)
    path = (folder or FOLDER) / f"{name}.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{name} has not been measured; with the data here: python -m {__spec__.name} {name}"
        )
    return json.loads(path.read_text(encoding="utf8"))


def measure(name: str, progress: Progress = print, folder: Path | None = None) -> dict[str, Any]:
    """Measure a set and write its file.

    Raises:
        ValueError: if there is no such set.
        DataError: if the set is not here.
        CheckpointError: if the network that its errors are of has no weights.
    """
    one_of("name", name, MEASURES)
    content = rounded(MEASURES[name](progress)) | {"device": hardware.describe()}
    write_json((folder or FOLDER) / f"{name}.json", content)
    return content


def rounded(value: Any) -> Any:
    """`value` with its floats rounded to five digits and NumPy's numbers as Python's; not a number becomes `None`."""
    if isinstance(value, dict):
        return {str(key): rounded(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [rounded(one) for one in value]
    if isinstance(value, (float, np.floating)):
        return round(float(value), 5) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


# By size ------------------------------------------------------------------------------------------------------


def equal_bins(values: Sequence[float], count: int) -> np.ndarray:
    """Edges of `count` bins that hold about equally many of the values each, float `(count + 1,)`, ascending."""
    edges = np.quantile(np.asarray(values, float), np.linspace(0, 1, count + 1))
    return np.unique(edges)


def in_bins(values: Sequence[float], edges: np.ndarray) -> np.ndarray:
    """The number of the bin in which each value lies; what is beyond the ends belongs to the outermost bins."""
    return np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)


def diameter(pixels: np.ndarray) -> np.ndarray:
    """The diameter in pixels of the disc with as many pixels."""
    return 2 * np.sqrt(np.asarray(pixels, float) / np.pi)


def size_table(sizes: np.ndarray, edges: np.ndarray, **shares: np.ndarray) -> dict[str, list]:
    """For each bin how many there are, and the mean of each of `shares` over them (`None` where there is none)."""
    place = in_bins(sizes, edges)
    table = {"edges": edges.tolist(), "count": [int((place == k).sum()) for k in range(len(edges) - 1)]}
    for name, values in shares.items():
        means = [values[place == k].mean() if (place == k).any() else np.nan for k in range(len(edges) - 1)]
        table[name] = means
    return table


# Membranes ----------------------------------------------------------------------------------------------------


def membranes(progress: Progress = print) -> dict[str, Any]:
    """Membranes: how similar neighbouring slices are, and the errors of `unet-membranes` on the four slices of val.

    Returns:
        `slices`: per slice `name`, `split`, the membrane's share, mean and deviation of the grey.
        `copied`: distance in slices → IoU of the membrane when a slice gets the labels of another one so far away.
        `thresholds`: threshold of the probability → Rand and information F-score (means over val), the two parts of the
        former, `split` (falls when cells are cut) and `merge` (falls when they run together), and `chosen`.
        `worst`: per slice of val the pixel error, Rand (with what splitting and merging costs), information.
        `edges`: by distance to the nearest true boundary between membrane and cell: share of all pixels, share of these
        that are wrong, share of all errors.
        `cells`: by size: how many, how many found (IoU above 0.5).
        `membrane`: pixels of membrane that were missed, pixels of cell that were taken for membrane.
    """
    recipe = recipes.MEMBRANES
    both = {split: list(datasets.membranes(split)) for split in ("train", "val")}
    stack = sorted((int(sample.name), split, sample) for split, samples in both.items() for sample in samples)
    slices = [
        {
            "name": str(number),
            "split": split,
            "membrane": (sample.semantic == 0).mean(),
            "grey": sample.image.mean(),
            "contrast": sample.image.std(),
        }
        for number, split, sample in stack
    ]
    copied = {}
    for distance in range(1, 13):
        pairs = zip(stack[distance:], stack, strict=False)
        scores = [semantic.iou(a.semantic == 0, b.semantic == 0) for (_, _, a), (_, _, b) in pairs]
        copied[distance] = np.mean(scores)

    model = recipe.model()
    card = checkpoints.load(recipe, model, quiet=True)
    threshold = card["thresholds"]["segment_threshold"]
    progress("membranes: predicting val")
    found = Segmenter.of(recipe, model).outputs(both["val"])
    thresholds = [0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    curve = {
        "threshold": thresholds,
        "rand": [],
        "split": [],
        "merge": [],
        "information": [],
        "chosen": threshold,
        "digest": recipe.digest,
    }
    for value in thresholds:
        scores = [_partition(sample, one, value) for sample, one in zip(both["val"], found, strict=True)]
        curve["rand"].append(np.mean([rand.f_score for rand, _ in scores]))
        curve["split"].append(np.mean([rand.split for rand, _ in scores]))
        curve["merge"].append(np.mean([rand.merge for rand, _ in scores]))
        curve["information"].append(np.mean([information.f_score for _, information in scores]))

    worst, distances, wrong, cells, hit = [], [], [], [], []
    missed = invented = 0
    for sample, one in zip(both["val"], found, strict=True):
        rand, information = _partition(sample, one, threshold)
        answer = one.argmax(-1)
        error = answer != sample.semantic
        missed += int((error & (sample.semantic == 0)).sum())
        invented += int((error & (sample.semantic == 1)).sum())
        worst.append(
            {
                "name": sample.name,
                "pixel_error": error.mean(),
                "rand": rand.f_score,
                "split": rand.split,
                "merge": rand.merge,
                "information": information.f_score,
            }
        )
        distances.append(_to_the_boundary(sample.semantic))
        wrong.append(error)
        segments = partition.segments_from_probability(one[..., 1], threshold)
        truth = partition.segments_from_labels(sample.semantic)
        areas = np.bincount(truth.ravel())[1:]
        # Only where there is truth: predicted segments have no width of border, the true ones have.
        pairs = instance.match(truth, np.where(truth > 0, segments, 0), 0.5).pairs
        cells += areas.tolist()
        hit += np.isin(np.arange(1, len(areas) + 1), pairs[:, 0]).tolist()
    distances, wrong = np.stack(distances), np.stack(wrong)
    edges = np.array([0.5, 1.5, 2.5, 4.5, 8.5, 512])
    place = in_bins(distances.ravel(), edges)
    counts = np.bincount(place, minlength=len(edges) - 1)
    errors = np.bincount(place, weights=wrong.ravel(), minlength=len(edges) - 1)
    sizes = diameter(np.array(cells))
    return {
        "slices": slices,
        "copied": copied,
        "thresholds": curve,
        "worst": worst,
        "edges": {
            "distance": ["1", "2", "3 to 4", "5 to 8", "9 and more"],
            "pixels": counts / counts.sum(),
            "wrong": errors / counts,
            "of_all_errors": errors / errors.sum(),
        },
        "cells": size_table(sizes, equal_bins(sizes, 6), found=np.array(hit)),
        "membrane": {"missed": missed, "invented": invented},
    }


def _partition(sample: Sample, probabilities: np.ndarray, threshold: float):
    truth = partition.segments_from_labels(sample.semantic)
    segments = partition.segments_from_probability(probabilities[..., 1], threshold)
    return partition.rand_score(truth, segments), partition.information_score(truth, segments)


def _to_the_boundary(labels: np.ndarray) -> np.ndarray:
    """Each pixel's distance in pixels to the nearest one of the other of two classes."""
    inside = labels == 1
    return np.where(inside, ndimage.distance_transform_edt(inside), ndimage.distance_transform_edt(~inside))


# Nuclei -------------------------------------------------------------------------------------------------------


def nuclei(progress: Progress = print) -> dict[str, Any]:
    """Nuclei: what kinds of image there are, and the errors of `unet-nuclei` on val.

    A kind is the images of one size; they often come from one source, which the archive does not say.

    Returns:
        `kinds`: size → for train and val the images, their nuclei and (train) their fraction of the crops when images are
        drawn evenly and by the root of their area, as the recipe does.
        `diameters`: `edges` in pixels, and how many nuclei of train and of val lie in each bin.
        `twins`: images of val that look like one of train (correlation of thumbnails above `MOST_SIMILAR`), pairs within
        train that do, and the highest correlation of val with train.
        `per_image`: for each image of val `name`, `kind`, `nuclei`, `found` (the network's objects, right or wrong),
        `right_50` and `right_75` (how many of them match at IoU 0.5 and 0.75), AP at both, the nuclei's median diameter,
        their contrast, `area`: the median of a found object's area over the true one among those matched at 0.5; and
        `bright`: the same for the bright area, without any network (`bright_share`).
        `in_train`: the network on the images that it was trained on: `scores` as below, and `per_image`: a list
        over all of them for each of some keys of `per_image` above.
        `scores`: AP over all nuclei together, the mean over the images, and the 95 % interval of the former by the
        bootstrap over images (see `pooled`).
        `habits`: the same answers read off at other thresholds of the mask: for the images whose labels are drawn `wide`
        (`bright` below `WIDE`) and for the others how many there are, AP at 0.5 and 0.75 at each of the `thresholds`, and
        at the one that the card has `chosen`; and `told`: both APs of all images together if each of the two groups had
        the threshold of its own highest AP at 0.75. The network is not told which group an image belongs to, so
        `told` is no score of it: it says what not knowing costs.
        `sizes`: by diameter: how many, how many found at IoU 0.5 and 0.75 (`found_75_others`: of those in images whose
        labels are not wide); `predicted`: how many objects of that size were found in all, and how many of them are true
        at 0.5.
        `touching`: the same two shares for nuclei that touch another one, and that do not.
    """
    recipe = recipes.NUCLEI
    both = {split: list(datasets.nuclei(split)) for split in ("train", "val")}
    kinds = _kinds(both)
    areas = {
        split: np.concatenate([np.bincount(s.instances.ravel())[1:] for s in samples])
        for split, samples in both.items()
    }
    edges = np.array([4, 6, 8, 11, 16, 22, 32, 45, 64, 90, 128])
    diameters = {"edges": edges} | {
        split: np.histogram(diameter(sizes), edges)[0] for split, sizes in areas.items()
    }
    progress("nuclei: looking for twins")
    thumbs = {split: np.stack([_thumbnail(sample.image) for sample in both[split]]) for split in both}
    across = thumbs["val"] @ thumbs["train"].T
    within = np.triu(thumbs["train"] @ thumbs["train"].T, 1)

    model = recipe.model()
    card = checkpoints.load(recipe, model, quiet=True)
    progress("nuclei: predicting val")
    cuts = [card["thresholds"] | {"mask_threshold": value} for value in HABITS]
    per_image, counts, rows, read_off = [], [], [], []
    for sample in both["val"]:
        one = Segmenter.of(recipe, model).output(sample.image)
        answer, at, count = _answer(recipe, sample, one, card["thresholds"])
        per_image.append(_nuclei_row(sample, answer, at))
        counts.append(count)
        rows.append((sample, answer, at))
        read_off.append([count, *(_answer(recipe, sample, one, cut)[2] for cut in cuts)])
    wide = np.array([row["bright"] for row in per_image]) < WIDE
    progress("nuclei: predicting train")
    seen, seen_counts = [], []
    for sample in both["train"]:
        one = Segmenter.of(recipe, model).output(sample.image)
        answer, at, count = _answer(recipe, sample, one, card["thresholds"])
        row = _nuclei_row(sample, answer, at)
        seen.append(row)
        seen_counts.append(count)
    return {
        "digest": recipe.digest,
        "kinds": kinds,
        "diameters": diameters,
        "twins": {
            "val_in_train": int((across.max(1) > MOST_SIMILAR).sum()),
            "pairs_in_train": int((within > MOST_SIMILAR).sum()),
            "closest": across.max(),
        },
        "per_image": per_image,
        "in_train": {
            "per_image": {
                key: [row[key] for row in seen]
                for key in ("nuclei", "found", "right_50", "right_75", "area", "bright")
            },
            "scores": pooled(np.array(seen_counts)),
        },
        "scores": pooled(np.array(counts)),
        "habits": _habits(np.array(read_off), wide),
        **_nuclei_by_size(rows, wide),
    }


def _answer(recipe: recipes.Recipe, sample: Sample, probabilities: np.ndarray, chosen) -> tuple:
    """The instance map, its matchings at IoU 0.5 and 0.75, and their true positives, false positives, false negatives."""
    answer = recipe.task.decode(probabilities, **chosen)
    at = {t: instance.match(sample.instances, answer, t) for t in (0.5, 0.75)}
    return answer, at, [(m.true_positives, m.false_positives, m.false_negatives) for m in at.values()]


def _habits(counts: np.ndarray, wide: np.ndarray) -> dict:
    """From int `(images, 1 + thresholds, 2, 3)`, the chosen threshold first, and which images have wide labels."""
    groups, told = {"thresholds": HABITS}, 0
    for name, mask in (("wide", wide), ("others", ~wide)):
        total = counts[mask].sum(0)
        precision = total[..., 0] / np.maximum(1, total.sum(-1))
        best = 1 + _best(total[1:])
        told = told + total[best]
        groups[name] = {
            "images": int(mask.sum()),
            "ap_50": precision[1:, 0],
            "ap_75": precision[1:, 1],
            "chosen": {"ap_50": precision[0, 0], "ap_75": precision[0, 1]},
            "best": HABITS[best - 1],
        }
    return groups | {"told": dict(zip(("ap_50", "ap_75"), told[:, 0] / told.sum(-1), strict=True))}


def _best(counts: np.ndarray) -> int:
    """Of int `(thresholds, 2, 3)`, the threshold with the highest AP at IoU 0.75."""
    return int((counts[:, 1, 0] / np.maximum(1, counts[:, 1].sum(-1))).argmax())


def _kinds(both: dict[str, list[Sample]]) -> dict[str, dict]:
    kinds: dict[str, dict] = {}
    for split, samples in both.items():
        roots = np.array([np.sqrt(sample.semantic.size) for sample in samples])
        for root, sample in zip(roots, samples, strict=True):
            height, width = sample.semantic.shape
            kind = kinds.setdefault(f"{height} × {width}", {})
            one = kind.setdefault(split, {"images": 0, "nuclei": 0, "evenly": 0.0, "by_root": 0.0})
            one["images"] += 1
            one["nuclei"] += len(sample.classes)
            one["evenly"] += 1 / len(samples)
            one["by_root"] += root / roots.sum()
    return dict(sorted(kinds.items(), key=lambda item: -item[1].get("train", {}).get("images", 0)))


def _thumbnail(image: np.ndarray, side: int = 48) -> np.ndarray:
    """An image made small, its brightness and contrast taken out: a vector of length 1, whose product with another
    image's is their correlation."""
    small = np.log(resize(image[..., 0], (side, side), anti_aliasing=True) + 0.01)
    small = small - small.mean()
    return (small / (np.linalg.norm(small) + 1e-9)).ravel()


def _nuclei_row(sample: Sample, answer: np.ndarray, at: dict) -> dict:
    areas = np.bincount(sample.instances.ravel())[1:]
    found = np.bincount(answer.ravel())
    inside = sample.instances > 0
    image = sample.image[..., 0]
    height, width = sample.semantic.shape

    def precision(one) -> float:
        return one.true_positives / max(1, one.true_positives + one.false_positives + one.false_negatives)

    return {
        "name": sample.name,
        "kind": f"{height} × {width}",
        "nuclei": len(areas),
        "found": int(answer.max()),
        "right_50": at[0.5].true_positives,
        "right_75": at[0.75].true_positives,
        "ap_50": precision(at[0.5]),
        "ap_75": precision(at[0.75]),
        "diameter": np.median(diameter(areas)),
        "area": np.median([found[q] / areas[t - 1] for t, q in at[0.5].pairs])
        if len(at[0.5].pairs)
        else np.nan,
        "contrast": image[inside].mean() - image[~inside].mean(),
        "bright": bright_share(image, sample.instances),
    }


def bright_share(image: np.ndarray, instances: np.ndarray, margin: int = 6, least: int = 20) -> float:
    """How wide the labels of an image are drawn, measured without a network: the median over its objects of bright area
    over labelled area.

    Bright is what exceeds half the height between the background (the median of all pixels without a label) and the object
    (the upper quartile of its own pixels). Where labels run along the middle of the slope the share is near 1, where they
    run outside the slope it is below.

    Args:
        image: float `(height, width)`, bright objects on a dark background.
        instances: int `(height, width)`: 0 background, 1..n objects.
        margin: pixels around a label in which its bright area is looked for; another label's pixels are left out.
        least: objects of fewer pixels are passed over, a pixel more or less would decide.

    Returns:
        The median, `nan` where no object is large enough or nothing is background.
    """
    if instances.all():
        return np.nan
    background = np.median(image[instances == 0])
    shares = []
    for number, box in enumerate(ndimage.find_objects(instances), start=1):
        if box is None:
            continue
        box = tuple(slice(max(0, side.start - margin), side.stop + margin) for side in box)
        own = instances[box] == number
        if own.sum() < least:
            continue
        near = ndimage.binary_dilation(own, iterations=margin) & ((instances[box] == 0) | own)
        height = (background + np.percentile(image[box][own], 75)) / 2
        shares.append((near & (image[box] > height)).sum() / own.sum())
    return float(np.median(shares)) if shares else np.nan


def pooled(counts: np.ndarray, draws: int = 2000) -> dict[str, dict[str, float]]:
    """AP over all objects together, its 95 % interval by the bootstrap over images, and the mean over the images.

    Args:
        counts: int `(images, 2, 3)`: at IoU 0.5 and 0.75 the true positives, false positives, false negatives.
        draws: of the bootstrap.

    Returns:
        `ap_50` and `ap_75`, each with `pooled`, `low`, `high`, `mean_over_images`.
    """

    def precision(one: np.ndarray) -> np.ndarray:
        return one[..., 0] / np.maximum(1, one.sum(-1))

    rng = np.random.default_rng(0)
    drawn = counts[rng.integers(0, len(counts), (draws, len(counts)))].sum(1)
    low, high = np.quantile(precision(drawn), (0.025, 0.975), axis=0)
    together, means = precision(counts.sum(0)), precision(counts).mean(0)
    return {
        name: {"pooled": together[k], "low": low[k], "high": high[k], "mean_over_images": means[k]}
        for k, name in enumerate(("ap_50", "ap_75"))
    }


def _nuclei_by_size(rows: Sequence[tuple], wide: np.ndarray) -> dict:
    in_wide = np.repeat(wide, [sample.instances.max() for sample, *_ in rows])
    sizes, hits, touching, predicted, right = [], {0.5: [], 0.75: []}, [], [], []
    for sample, answer, at in rows:
        areas = np.bincount(sample.instances.ravel())[1:]
        ids = np.arange(1, len(areas) + 1)
        sizes.append(diameter(areas))
        touching.append(np.isin(ids, np.unique(touching_pairs(sample.instances))))
        for threshold, one in at.items():
            hits[threshold].append(np.isin(ids, one.pairs[:, 0]))
        found = np.bincount(answer.ravel(), minlength=1)[1:]
        predicted.append(diameter(found))
        right.append(np.isin(np.arange(1, len(found) + 1), at[0.5].pairs[:, 1]))
    sizes, touching = np.concatenate(sizes), np.concatenate(touching)
    found_50, found_75 = (np.concatenate(hits[t]).astype(float) for t in (0.5, 0.75))
    edges = equal_bins(sizes, 6)
    table = size_table(sizes, edges, found_50=found_50, found_75=found_75)
    table["found_75_others"] = size_table(sizes[~in_wide], edges, found=found_75[~in_wide])["found"]
    extra = size_table(np.concatenate(predicted), edges, right=np.concatenate(right).astype(float))
    return {
        "sizes": table,
        "predicted": {"count": extra["count"], "right": extra["right"]},
        "touching": {
            name: {
                "count": int(mask.sum()),
                "found_50": found_50[mask].mean(),
                "found_75": found_75[mask].mean(),
            }
            for name, mask in (("touch another", touching), ("stand alone", ~touching))
        },
    }


def by_source(progress: Progress = print) -> dict[str, Any]:
    """Nuclei split by source: `unet-nuclei-by-source` on its validation images, and on the source that was held out.

    This opens the test set. Run it once, when everything is chosen.

    Returns:
        `digest`; for `train`, `val`, `test` the `images` and `nuclei`; for the last two also `scores` (see `pooled`),
        `count_error`, `per_image` (a dict for each, see `nuclei`), `sizes`, `predicted` and `touching`.
        `closest`: the highest correlation of a test image with a training image (see `_thumbnail`).
        `seen`: the `scores` of `unet-nuclei`, a larger network that was trained on the images of the test set. No test:
        it says what a network reaches that knows this source.
    """
    recipe = recipes.NUCLEI_BY_SOURCE
    segmenter = Segmenter.of(recipe)
    segmenter._take(None)
    result: dict[str, Any] = {"digest": recipe.digest}
    for split in ("train", "val", "test"):
        samples = recipe.data(split)
        nuclei_of = [len(sample.classes) for sample in samples]
        result[split] = {"images": len(samples), "nuclei": sum(nuclei_of)}
        if split == "train":
            continue
        progress(f"by-source: predicting {split}")
        rows, counts, per_image = [], [], []
        for sample in samples:
            answer, at, count = _answer(recipe, sample, segmenter.output(sample.image), segmenter.thresholds)
            rows.append((sample, answer, at))
            counts.append(count)
            per_image.append(_nuclei_row(sample, answer, at))
        wide = np.array([row["bright"] for row in per_image]) < WIDE
        wrong = sum(abs(row["found"] - row["nuclei"]) for row in per_image)
        result[split] |= {
            "scores": pooled(np.array(counts)),
            "count_error": wrong / sum(nuclei_of),
            "per_image": per_image,
            **_nuclei_by_size(rows, wide),
        }
    test, train = (
        np.stack([_thumbnail(one.image) for one in recipe.data(split)]) for split in ("test", "train")
    )
    table = read("nuclei")["in_train"]["per_image"]
    size = recipe.train_data["held_out"]
    known = np.array([sample.image.shape[:2] == size for sample in datasets.nuclei("train")])
    nuclei_of, found, *right = (
        np.array(table[key])[known] for key in ("nuclei", "found", "right_50", "right_75")
    )
    seen = np.stack([np.stack([one, found - one, nuclei_of - one], -1) for one in right], 1)
    return result | {"closest": (test @ train.T).max(), "seen": {"scores": pooled(seen)}}


# Streets ------------------------------------------------------------------------------------------------------


def median_frequency_weights(pixels: Sequence[float], pixels_where_present: Sequence[float]) -> np.ndarray:
    """Weights of classes by median frequency balancing (Eigen and Fergus, "Predicting depth, surface normals and semantic
    labels with a common multi-scale convolutional architecture", ICCV 2015).

    The frequency of a class is its fraction of the pixels of those images in which it occurs; its weight is the median of
    all frequencies divided by its own.

    Args:
        pixels: of each class, over all images.
        pixels_where_present: of each class: labelled pixels in all images that hold it.

    Returns:
        float64 `(classes,)`; a class that never occurs gets 0: there is nothing to weigh.
    """
    pixels, around = np.asarray(pixels, float), np.asarray(pixels_where_present, float)
    frequency = np.divide(pixels, around, out=np.zeros_like(pixels), where=around > 0)
    there = frequency > 0
    weights = np.zeros_like(frequency)
    weights[there] = np.median(frequency[there]) / frequency[there]
    return weights


def camvid(progress: Progress = print) -> dict[str, Any]:
    """Street scenes at half size: classes, drives, what copying scores, and the errors of each network that has weights.

    Returns:
        `classes`: per class `pixels` and `pixels_where_present` (train), `images` (of train that hold it), `val_pixels`,
        and the `weight` of median frequency balancing; `ignored`: share of pixels of train without a label.
        `drives`: drive → images of train and val, first and last frame.
        `gap`: for val: frames to the nearest frame of train (least, median, most), and how many frames val spans.
        `copied`: mean IoU on val when each image gets the labels of an image of train: the `nearest` in time; and on
        images drawn at random from all (`shuffled`), each with the labels of the nearest that is left.
        `networks`: recipe → its digest, IoU per class, `per_image` of val the mean IoU of the classes in it (name → score),
        by size of the things of `COUNTABLE` the fraction of their pixels that are right, and the confusion matrix.
    """
    both = {split: list(datasets.camvid(split, shrink=2)) for split in ("train", "val")}
    names = datasets.CAMVID_CLASSES
    counts = {
        split: np.stack([np.bincount(s.semantic[s.semantic >= 0], minlength=len(names)) for s in samples])
        for split, samples in both.items()
    }
    train = counts["train"]
    pixels = train.sum(0)
    around = ((train > 0) * train.sum(1, keepdims=True)).sum(0)
    weights = median_frequency_weights(pixels, around)
    classes = {
        name: {
            "pixels": pixels[k],
            "pixels_where_present": around[k],
            "images": int((train[:, k] > 0).sum()),
            "val_pixels": counts["val"][:, k].sum(),
            "weight": weights[k],
        }
        for k, name in enumerate(names)
    }
    total = sum(sample.semantic.size for sample in both["train"])
    progress("camvid: copying labels")
    return {
        "classes": classes,
        "ignored": 1 - pixels.sum() / total,
        "images": {split: len(samples) for split, samples in both.items()},
        **_drives(both),
        "copied": _copied(both),
        "networks": {name: one for name in STREETS if (one := _street_errors(name, both["val"], progress))},
    }


def frame_of(name: str) -> tuple[str, int]:
    """Drive and number of a frame of CamVid: `"0006R0_f00930"` is frame 930 of drive 0006R0."""
    drive, _, number = name.partition("_")
    return drive, int(number.removeprefix("f"))


def _drives(both: dict[str, list[Sample]]) -> dict:
    drives: dict[str, dict] = {}
    for split, samples in both.items():
        for sample in samples:
            drive, number = frame_of(sample.name)
            one = drives.setdefault(drive, {}).setdefault(
                split, {"images": 0, "first": number, "last": number}
            )
            one["images"] += 1
            one["first"], one["last"] = min(one["first"], number), max(one["last"], number)
    train = [frame_of(sample.name) for sample in both["train"]]
    gaps = []
    for sample in both["val"]:
        drive, number = frame_of(sample.name)
        gaps.append(min((abs(number - other) for same, other in train if same == drive), default=np.nan))
    return {"drives": drives, "gap": {"least": min(gaps), "median": np.median(gaps), "most": max(gaps)}}


def _copied(both: dict[str, list[Sample]], draws: int = 5) -> dict[str, Any]:
    nearest = _copy_score(both["val"], both["train"])
    everything = both["train"] + both["val"]
    shuffled = []
    for seed in range(draws):
        order = np.random.default_rng(seed).permutation(len(everything))
        held = order[: len(both["val"])]
        left = [everything[k] for k in order[len(both["val"]) :]]
        shuffled.append(_copy_score([everything[k] for k in held], left))
    # A drive of its own, that nothing learned comes from: the fairest question that this archive allows.
    other = [sample for sample in both["train"] if frame_of(sample.name)[0] == "0006R0"]
    rest = [sample for sample in both["train"] if frame_of(sample.name)[0] != "0006R0"]
    return {"nearest": nearest, "shuffled": shuffled, "other_drive": _copy_score(other, rest)}


def _copy_score(asked: Sequence[Sample], known: Sequence[Sample]) -> float:
    """Mean IoU when each image is answered with the labels of the nearest known frame of its drive (where there is none,
    with those of the known image that looks most like it)."""
    matrix = 0
    thumbs = None
    for sample in asked:
        drive, number = frame_of(sample.name)
        same = [one for one in known if frame_of(one.name)[0] == drive]
        if same:
            answer = min(same, key=lambda one: abs(frame_of(one.name)[1] - number))
        else:
            if thumbs is None:
                thumbs = np.stack([_thumbnail(one.image.mean(-1, keepdims=True)) for one in known])
            answer = known[int((thumbs @ _thumbnail(sample.image.mean(-1, keepdims=True))).argmax())]
        # What nobody labelled in the other image is an answer of no class, and wrong: none of ours is taken for it.
        labels = np.where(answer.semantic < 0, (sample.semantic + 1) % 11, answer.semantic)
        matrix = matrix + semantic.confusion_matrix(sample.semantic, labels, 11)
    return semantic.mean_iou(matrix)


def _street_errors(name: str, val: Sequence[Sample], progress: Progress) -> dict | None:
    """The errors of one network, or `None` where it has no weights."""
    recipe = recipes.get(name)
    if checkpoints.is_missing(recipe):
        progress(f"camvid: {name} has no weights here; left out")
        return None
    progress(f"camvid: predicting val with {name}")
    model = recipe.model()
    checkpoints.load(recipe, model, quiet=True)
    answers = [Segmenter.of(recipe, model).output(sample.image).argmax(-1) for sample in val]
    names = datasets.CAMVID_CLASSES
    tables = [
        semantic.confusion_matrix(sample.semantic, answer, len(names))
        for sample, answer in zip(val, answers, strict=True)
    ]
    matrix = sum(tables)
    sizes, shares = [], []
    for sample, answer in zip(val, answers, strict=True):
        for kind in COUNTABLE:
            number = names.index(kind)
            pieces, count = ndimage.label(sample.semantic == number, np.ones((3, 3)))
            if count:
                sizes += np.bincount(pieces.ravel())[1:].tolist()
                shares += ndimage.mean(answer == number, pieces, np.arange(1, count + 1)).tolist()
    edges = np.array([1, 4, 8, 16, 32, 64, 240])
    return {
        "digest": recipe.digest,
        "iou": dict(zip(names, semantic.iou_per_class(matrix), strict=True)),
        "mean_iou": semantic.mean_iou(matrix),
        "pixel_accuracy": semantic.pixel_accuracy(matrix),
        "per_image": {
            sample.name: semantic.mean_iou(table) for sample, table in zip(val, tables, strict=True)
        },
        "sizes": size_table(diameter(np.array(sizes)), edges, right=np.array(shares)),
        "confusion": matrix,
    }


MEASURES: dict[str, Callable[[Progress], dict[str, Any]]] = {
    "membranes": membranes,
    "nuclei": nuclei,
    "camvid": camvid,
    "by-source": by_source,
}


def main(names: Sequence[str]) -> int:
    """Measure the named sets, or all that are here; the exit status: 1 where one cannot be measured."""
    chosen = tuple(names) or tuple(name for name in MEASURES if name in here())
    if not chosen:
        print("None of the real sets is here; fetch one: python -m course_lib data nuclei", file=sys.stderr)
        return 1
    for name in chosen:
        try:
            measure(name, lambda line: print(line, file=sys.stderr, flush=True))
        except (ValueError, RuntimeError) as problem:
            print(problem, file=sys.stderr)
            return 1
        print(f"{name}: measured")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
