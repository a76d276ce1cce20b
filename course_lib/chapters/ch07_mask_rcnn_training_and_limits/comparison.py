"""Claim 2.2: touching nuclei, separated by a U-Net and by Mask R-CNN, and the time that each of them takes."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial

import numpy as np

from course_lib import recipes
from course_lib.chapters.ch02_semantic_vs_instance.instances import by_watershed, components, touching_pairs
from course_lib.chapters.ch07_mask_rcnn_training_and_limits.limits import (
    DETECTOR,
    UNET,
    shipped,
    weights,
    with_settings,
)
from course_lib.datasets.loading import normalize
from course_lib.datasets.targets import drop_small
from course_lib.metrics.instance import match
from course_lib.teaching import ledger
from course_lib.teaching.experiments import Experiment, key
from course_lib.teaching.ledger import Interval, Result, waiting

# Touching nuclei (claim 2.2)

SMALLEST = 20
"""Objects of fewer pixels are dropped, whoever finds them."""
FOREGROUND = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
DEPTHS = (0.5, 0.75, 1.0, 1.5)
RESAMPLES = 2000
FOLDS = 2


@dataclass(frozen=True)
class Method:
    """A way from an image to its objects.

    Attributes:
        label: for figures.
        reading: how the output becomes objects: `"components"`, `"watershed"` or `"border"` of a U-Net, or `"objects"` of
            a Mask R-CNN.
        tta: the views that a U-Net averages (see `predict_probabilities`).
        proposals, detections: places of a Mask R-CNN.
    """

    label: str
    reading: str
    tta: str = "none"
    proposals: int = 1000
    detections: int = 400


METHODS = {
    "border": Method("U-Net with border class", "border", tta="flips"),
    "components": Method("U-Net, connected components", "components", tta="flips"),
    "watershed": Method("U-Net, watershed", "watershed", tta="flips"),
    "mask_rcnn": Method("Mask R-CNN", "objects"),
    "border_1": Method("U-Net with border class, 1 view", "border"),
    "mask_rcnn_100": Method("Mask R-CNN, 100 proposals", "objects", proposals=100),
    "mask_rcnn_25": Method("Mask R-CNN, 25 detections", "objects", detections=25),
}


def touching(instances: np.ndarray) -> np.ndarray:
    """For each object of an instance map, whether one of its pixels is a neighbour of another object: bool `(objects,)`."""
    found = np.zeros(int(instances.max(initial=0)), bool)
    found[touching_pairs(instances).ravel() - 1] = True
    return found


def tallies(truth: np.ndarray, found: np.ndarray) -> dict[str, int]:
    """What an image adds to the scores.

    Args:
        truth, found: instance maps, ids 1..n.

    Returns:
        `true`, `found`: objects; `hits_50`, `hits_75`: pairs with an IoU above that; `touching`, `touching_hits`: true
        objects that touch another, and those of them that were found (IoU above 0.5).
    """
    touch = touching(truth)
    half = match(truth, found, 0.5)
    return {
        "true": int(truth.max(initial=0)),
        "found": int(found.max(initial=0)),
        "hits_50": half.true_positives,
        "hits_75": match(truth, found, 0.75).true_positives,
        "touching": int(touch.sum()),
        "touching_hits": int(touch[half.pairs[:, 0] - 1].sum()),
    }


def by_name(rows: Sequence[Mapping[str, int]]) -> dict[str, np.ndarray]:
    """A list of tallies as one array for each name."""
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def scores_of(rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Scores from tallies `(..., images)`, summed over the images.

    Returns:
        `ap_50`, `ap_75` (TP / (TP + FP + FN)), `count_error` (objects too many or too few in each image, as a fraction of
        the true ones), `recall_touching`, `recall_alone`, each `(...)`.
    """
    total = {name: counts.sum(-1) for name, counts in rows.items()}
    alone = total["true"] - total["touching"]
    union = {hits: total["true"] + total["found"] - total[hits] for hits in ("hits_50", "hits_75")}
    return {
        "ap_50": total["hits_50"] / np.maximum(union["hits_50"], 1),
        "ap_75": total["hits_75"] / np.maximum(union["hits_75"], 1),
        "count_error": np.abs(rows["found"] - rows["true"]).sum(-1) / np.maximum(total["true"], 1),
        "recall_touching": total["touching_hits"] / np.maximum(total["touching"], 1),
        "recall_alone": (total["hits_50"] - total["touching_hits"]) / np.maximum(alone, 1),
    }


def cross_fitted(counts: Sequence[Sequence[Mapping[str, int]]]) -> tuple[list[int], list[Mapping[str, int]]]:
    """Settings chosen on one half of the images and reported on the other, both ways round.

    Args:
        counts: of each setting the tallies of each image.

    Returns:
        The best setting (mean of AP at IoU 0.5 and 0.75) for each fold, chosen on the images outside it; and for
        each image its tallies with the setting of its fold. Image k belongs to fold k mod 2.
    """
    chosen, images = [], len(counts[0])
    for fold in range(FOLDS):
        others = [k for k in range(images) if k % FOLDS != fold]
        scores = [scores_of(by_name([setting[k] for k in others])) for setting in counts]
        chosen.append(int(np.argmax([one["ap_50"] + one["ap_75"] for one in scores])))
    return chosen, [counts[chosen[k % FOLDS]][k] for k in range(images)]


def readings(method: Method, recipe: recipes.Recipe) -> Iterator[tuple[dict, Callable]]:
    """Every setting that is tried for a method, and how an output becomes an instance map with it."""
    if method.reading == "components":
        for threshold in FOREGROUND:
            yield {"threshold": threshold}, partial(_of_foreground, threshold=threshold, separate=components)
    elif method.reading == "watershed":
        for threshold, depth in itertools.product(FOREGROUND[2:11:2], DEPTHS):
            separate = partial(by_watershed, depth=depth)
            yield (
                {"threshold": threshold, "depth": depth},
                partial(_of_foreground, threshold=threshold, separate=separate),
            )
    else:
        for values in itertools.product(*recipe.task.choices.values()):
            setting = dict(zip(recipe.task.choices, values, strict=True)) | {"min_size": SMALLEST}
            yield setting, partial(recipe.task.decode, **setting)


def _of_foreground(probabilities: np.ndarray, threshold: float, separate: Callable) -> np.ndarray:
    """The objects of a U-Net's foreground: all pixels whose probability of background is low enough."""
    return drop_small(separate((1 - probabilities[..., 0] >= threshold).astype(np.int32)), SMALLEST)


def network(reading: str, tta: str, proposals: int, detections: int) -> Callable:
    """From an image as a data set has it to a network's output."""
    recipe, model, _ = shipped(DETECTOR if reading == "objects" else UNET)
    task = recipe.task
    if reading == "objects":
        settings = model.settings
        model = with_settings(
            model,
            rpn_post_nms_top_n=(settings.rpn_post_nms_top_n[0], proposals),
            box_detections_per_img=detections,
        )
    else:
        task = replace(task, tta=tta)
    return lambda image: task.output(model, normalize(image, recipe.normalization))


@cache
def validation() -> list:
    return list(recipes.get(UNET).data("val"))


@lru_cache(1)
def predictions(*of_network) -> tuple[list, list[float]]:
    """The outputs of a network for all images, and the seconds of one core that each took."""
    samples, predict = validation(), network(*of_network)
    predict(samples[0].image)  # the first one also pays for what is set up once
    outputs, seconds = [], []
    for sample in samples:
        began = time.process_time()
        outputs.append(predict(sample.image))
        seconds.append(time.process_time() - began)
    return outputs, seconds


def measure(method: str) -> dict:
    """A method on the nuclei of the validation set.

    Returns:
        `tallies`: one row for each image, with settings chosen on the other half; `settings`: those of each half;
        `seconds`: of one core for each image, from the image to its instance map.
    """
    one, samples = METHODS[method], validation()
    reading = one.reading if one.reading == "objects" else "classes"
    outputs, seconds = predictions(reading, one.tta, one.proposals, one.detections)
    seconds = list(seconds)
    recipe = recipes.get(DETECTOR if one.reading == "objects" else UNET)
    settings, counts = [], []
    for setting, read in readings(one, recipe):
        settings.append((setting, read))
        counts.append([tallies(s.instances, read(o)) for s, o in zip(samples, outputs, strict=True)])
    chosen, rows = cross_fitted(counts)
    for k, output in enumerate(outputs):
        began = time.process_time()
        settings[chosen[k % FOLDS]][1](output)
        seconds[k] += time.process_time() - began
    return {
        "tallies": {name: values.tolist() for name, values in by_name(rows).items()},
        "settings": [settings[number][0] for number in chosen],
        "tried": len(settings),
        "seconds": seconds,
    }


EXPERIMENT = Experiment(
    "touching-nuclei",
    version=2,
    measure=measure,
    plan=lambda _: [{"method": method} for method in METHODS],
    data=weights,
)
EXPERIMENTS = (EXPERIMENT,)


def middle_95(mean: float, values: np.ndarray) -> list[float]:
    """`[mean, low, high]`, the last two the ends of the middle 95 % of resampled values."""
    low, high = np.quantile(values, (0.025, 0.975))
    return [float(mean), float(min(low, mean)), float(max(high, mean))]


def with_intervals(counts: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, dict]:
    """The scores of each method, and how much higher those of Mask R-CNN are, with intervals.

    The intervals are those of a bootstrap over the images (Efron 1979), the same resampled images for all methods, so
    that differences are paired. They say what other images would give these networks, not what other trainings would.

    Args:
        counts: method → name → one count for each image, as `tallies` names them.

    Returns:
        `methods`: method → score → `[mean, low, high]`; `gain`: the same for Mask R-CNN minus each other method.
    """
    images = len(counts["mask_rcnn"]["true"])
    drawn = np.random.default_rng(0).integers(0, images, (RESAMPLES, images))
    means = {method: scores_of(rows) for method, rows in counts.items()}
    resampled = {
        method: scores_of({name: values[drawn] for name, values in rows.items()})
        for method, rows in counts.items()
    }
    ours = resampled["mask_rcnn"]
    return {
        "methods": {
            method: {
                score: middle_95(mean, resampled[method][score]) for score, mean in means[method].items()
            }
            for method in counts
        },
        "gain": {
            method: {
                score: middle_95(mean - means[method][score], ours[score] - resampled[method][score])
                for score, mean in means["mask_rcnn"].items()
            }
            for method in counts
            if method != "mask_rcnn"
        },
    }


def claim_2_2(progress: Callable[[str], None] = print) -> Result:
    """Instance segmentation separates objects of one class: Mask R-CNN beside a U-Net, on the nuclei of the validation set.

    The table:
        images, nuclei, touching: how many.
        methods, gain: see `with_intervals`.
        labels: of the methods; settings: of each fold; seconds: of one core for an image, the mean over the images.
        tallies: method → name → one count per image.
    """
    runs = EXPERIMENT.results()
    found = {name: runs[key({"method": name})] for name in METHODS if key({"method": name}) in runs}
    if not {"border", "mask_rcnn"} <= set(found):
        return ledger.read("2.2")  # until the runs are made, what the ledger has stands
    counts = {
        name: {row: np.array(values) for row, values in one["tallies"].items()} for name, one in found.items()
    }
    table = {
        "images": len(found["mask_rcnn"]["seconds"]),
        "nuclei": int(counts["mask_rcnn"]["true"].sum()),
        "touching": int(counts["mask_rcnn"]["touching"].sum()),
        "labels": {name: METHODS[name].label for name in found},
        "settings": {name: one["settings"] for name, one in found.items()},
        "seconds": {name: float(np.mean(one["seconds"])) for name, one in found.items()},
        **with_intervals(counts),
        "tallies": {name: one["tallies"] for name, one in found.items()},
    }
    for name in found:
        means = ", ".join(f"{score} {row[0]:.3f}" for score, row in table["methods"][name].items())
        progress(f"{name}: {means}, {table['seconds'][name]:.2f} s")
    effect = (
        "recall (IoU above 0.5) of nuclei that touch another, Mask R-CNN minus U-Net with a border class and four views; "
        "bootstrap over the images"
    )
    found_here = waiting(
        "2.2",
        "Instance segmentation separates objects of the same class.",
        effect,
        Interval(*table["gain"]["border"]["recall_touching"]),
        table["images"],
        table,
        "each network was trained only once, so the interval is a bootstrap over the images",
        10,
    )
    return replace(found_here, effect=effect)
