"""Chapter 2 of the claims, with trained nets: who tells touching objects apart, and what that takes."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

import course_lib
from course_lib import recipes, training
from course_lib.chapters.ch02_semantic_vs_instance.instances import (
    DEPTHS,
    by_watershed,
    components,
    touching_pairs,
)
from course_lib.chapters.ch07_mask_rcnn_training_and_limits.limits import (
    DETECTOR,
    UNET,
    detector_costs,
    net_costs,
    shipped,
    take_turns,
)
from course_lib.datasets.targets import drop_small
from course_lib.metrics.instance import match
from course_lib.segmenter import Segmenter
from course_lib.teaching.ledger import Interval, Result, interval, waiting

METHODS = ("components", "watershed", "border", "mask_rcnn")
"""From a picture to objects: the U-Net's foreground and its connected pieces; the same, cut by a watershed; the U-Net with
its border class, as it is shipped; Mask R-CNN."""
FOR_DEPTH = 40
"""Pictures of the train split that the watershed's one parameter is chosen on."""
RESAMPLES = 2000

SIDE, BATCH, ROUNDS = 128, 8, 8
"""Of what is timed for claim 2.3: pixels, pictures in a step, rounds."""
LINES = {
    "unet": ("models/unet.py",),
    "mask_rcnn": (
        "models/backbone.py",
        "models/mask_rcnn/fpn.py",
        "models/mask_rcnn/model.py",
        "models/mask_rcnn/optimizer.py",
        "models/mask_rcnn/heads.py",
        "models/mask_rcnn/stages.py",
        "models/mask_rcnn/settings.py",
        "ops/anchors.py",
        "ops/boxes.py",
        "ops/box_coding.py",
        "ops/matching.py",
        "ops/sampling.py",
        "ops/nms.py",
        "ops/roi.py",
        "ops/masks.py",
        "datasets/detection.py",
    ),
}
"""The files without which the net could be neither trained nor used; Keras's own are not counted."""


# Telling touching objects apart (claim 2.2) ------------------------------------------------------------------


def touching(instances: np.ndarray) -> np.ndarray:
    """Of each object of a map, whether a pixel of another one is its neighbour: bool `(objects,)`."""
    found = np.zeros(int(instances.max(initial=0)), bool)
    found[touching_pairs(instances).ravel() - 1] = True
    return found


def tallies(truth: np.ndarray, answer: np.ndarray) -> dict[str, int]:
    """What a picture adds to the figures: counts of objects, in all and of those that touch another.

    Args:
        truth, answer: instance maps, ids 1..n.

    Returns:
        `true`, `found`; `hits_50`, `hits_75`: pairs with an IoU above that; `touching`, `touching_hits`: true objects that
        touch another, and those of them that were found (IoU above 0.5).
    """
    touch = touching(truth)
    half = match(truth, answer, 0.5)
    return {
        "true": int(truth.max(initial=0)),
        "found": int(answer.max(initial=0)),
        "hits_50": half.true_positives,
        "hits_75": match(truth, answer, 0.75).true_positives,
        "touching": int(touch.sum()),
        "touching_hits": int(touch[half.pairs[:, 0] - 1].sum()),
    }


def figures_of(rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Scores from tallies, added up over the last axis.

    Args:
        rows: name → counts `(..., pictures)`, of `tallies`.

    Returns:
        `ap_50`, `ap_75` (TP / (TP + FP + FN)), `count_error` (objects too many or too few in each picture, as a share of
        the true ones), `recall`, `recall_touching`, `recall_alone`, each `(...)`.
    """
    total = {name: counts.sum(-1) for name, counts in rows.items()}
    alone = total["true"] - total["touching"]
    union = {hits: total["true"] + total["found"] - total[hits] for hits in ("hits_50", "hits_75")}
    return {
        "ap_50": total["hits_50"] / np.maximum(union["hits_50"], 1),
        "ap_75": total["hits_75"] / np.maximum(union["hits_75"], 1),
        "count_error": np.abs(rows["found"] - rows["true"]).sum(-1) / np.maximum(total["true"], 1),
        "recall": total["hits_50"] / np.maximum(total["true"], 1),
        "recall_touching": total["touching_hits"] / np.maximum(total["touching"], 1),
        "recall_alone": (total["hits_50"] - total["touching_hits"]) / np.maximum(alone, 1),
    }


def choose_depth(recipe: recipes.Recipe, net, smallest: int) -> tuple[float, dict[str, float]]:
    """The watershed's depth with the best AP at IoU 0.5 on pictures of the train split, and every depth's AP."""
    train = recipe.data("train")
    # Evenly over the split, which is sorted by kind; not the few huge ones, which would take most of the time.
    rows = np.linspace(0, len(train) - 1, FOR_DEPTH).round().astype(int)
    samples = [sample for sample in (train[int(row)] for row in rows) if sample.semantic.size <= 400 * 400]
    maps = [foreground(Segmenter.of(recipe, net).output(sample.image)).astype(np.int32) for sample in samples]
    found = {}
    for depth in DEPTHS:
        counts = [
            tallies(sample.instances, drop_small(by_watershed(one, depth), smallest))
            for sample, one in zip(samples, maps, strict=True)
        ]
        found[f"{depth:g}"] = float(figures_of(by_name(counts))["ap_50"])
    return float(max(found, key=found.get)), found


def foreground(probabilities: np.ndarray) -> np.ndarray:
    """Which pixels are more likely some object than background, bool, from the U-Net's three classes."""
    return probabilities[..., 0] < 0.5


def by_name(rows: Sequence[Mapping[str, int]]) -> dict[str, np.ndarray]:
    """A list of tallies as one array for each name."""
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def resampled(rows: Mapping[str, np.ndarray], chance: np.ndarray) -> dict[str, np.ndarray]:
    """The scores of as many other sets of pictures, drawn from these with replacement (Efron 1979, the bootstrap).

    Args:
        rows: name → counts `(pictures,)`.
        chance: int `(resamples, pictures)`, which pictures each set has; the same for all methods, so that their
            differences are paired.
    """
    return figures_of({name: counts[chance] for name, counts in rows.items()})


def middle_95(mean: float, values: np.ndarray) -> list[float]:
    """`[mean, low, high]`, the last two the ends of the middle 95 % of resampled values."""
    low, high = np.quantile(values, (0.025, 0.975))
    return [float(mean), float(min(low, mean)), float(max(high, mean))]


def with_intervals(counts: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, dict]:
    """The scores of each method, and how much higher they are for Mask R-CNN, with the bootstrap's intervals.

    Args:
        counts: method → name → one count per picture, as `tallies` has them.

    Returns:
        `methods` and `gain`, as in the table of `claim_2_2`.
    """
    pictures = len(counts["mask_rcnn"]["true"])
    chance = np.random.default_rng(0).integers(0, pictures, (RESAMPLES, pictures))
    means = {method: figures_of(of_method) for method, of_method in counts.items()}
    drawn = {method: resampled(of_method, chance) for method, of_method in counts.items()}
    methods = {
        method: {score: middle_95(mean, drawn[method][score]) for score, mean in means[method].items()}
        for method in counts
    }
    gain = {
        method: {
            score: middle_95(mean - means[method][score], drawn["mask_rcnn"][score] - drawn[method][score])
            for score, mean in means["mask_rcnn"].items()
        }
        for method in counts
        if method != "mask_rcnn"
    }
    return {"methods": methods, "gain": gain}


def of_table(table: Mapping) -> Interval:
    """The effect of claim 2.2, made anew from the counts in its table."""
    counts = {
        method: {name: np.array(values) for name, values in of_method.items()}
        for method, of_method in table["tallies"].items()
    }
    return Interval(*with_intervals(counts)["gain"]["components"]["recall_touching"])


def claim_2_2(progress: Callable[[str], None] = print) -> Result:
    """Instance segmentation separates objects of one class: Mask R-CNN beside a U-Net, on the nuclei of val.

    The intervals are the bootstrap's, over the pictures: what other pictures of the kind would give these nets, not what
    other trainings would. It holds if Mask R-CNN finds more of the touching nuclei than the connected pieces of the
    foreground, and than the watershed (both intervals above 0); `holds when …` if only than the pieces.

    The table:
        pictures, nuclei, touching: how many; `depth` of the watershed and its AP on train, `depths`.
        methods: of `METHODS` → score (see `figures_of`) → `[mean, low, high]`.
        gain: method → score → Mask R-CNN minus that method, `[mean, low, high]`.
        tallies: method → name → one count per picture.
    """
    recipe, net, chosen = shipped(UNET)
    detector_recipe, detector, detector_chosen = shipped(DETECTOR)
    val = list(recipe.data("val"))
    smallest = int(chosen["min_size"])
    depth, depths = choose_depth(recipe, net, smallest)
    progress(f"watershed: depth {depth:g}, AP on train {depths}")
    rows: dict[str, list] = {method: [] for method in METHODS}
    for sample in val:
        said = Segmenter.of(recipe, net).output(sample.image)
        inside = foreground(said).astype(np.int32)
        found = Segmenter.of(detector_recipe, detector).output(sample.image)
        answers = {
            "components": drop_small(components(inside), smallest),
            "watershed": drop_small(by_watershed(inside, depth), smallest),
            "border": recipe.task.decode(said, **chosen),
            "mask_rcnn": detector_recipe.task.decode(found, **detector_chosen),
        }
        for method, answer in answers.items():
            rows[method].append(tallies(sample.instances, answer))
    counts = {method: by_name(of_method) for method, of_method in rows.items()}
    table = {
        "pictures": len(val),
        "nuclei": int(counts["mask_rcnn"]["true"].sum()),
        "touching": int(counts["mask_rcnn"]["touching"].sum()),
        "depth": depth,
        "depths": depths,
        **with_intervals(counts),
        "tallies": {
            method: {name: values.tolist() for name, values in of_method.items()}
            for method, of_method in counts.items()
        },
    }
    for method in METHODS:
        means = {score: row[0] for score, row in table["methods"][method].items()}
        progress(f"{method}: " + ", ".join(f"{score} {mean:.3f}" for score, mean in means.items()))
    return waiting(
        "2.2",
        "Instance segmentation separates objects of one class.",
        "recall (IoU above 0.5) of nuclei that touch another: Mask R-CNN minus connected pieces of a U-Net's foreground; "
        "bootstrap over the pictures",
        of_table(table),
        len(val),
        table,
        "a bootstrap over the images of one training each, the U-Net with four views and the detector with one, thresholds "
        "chosen on the reported images",
        10,
    )


# What it takes (claim 2.3) -----------------------------------------------------------------------------------


def lines_of_code(files: Sequence[str]) -> int:
    """Lines of these files of `course_lib`, comments, docstrings and line breaks within a statement left out."""
    total = 0
    for name in files:
        tree = ast.parse((Path(course_lib.__file__).parent / name).read_text(encoding="utf8"))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            # A bare string is a docstring, of whatever stands before it.
            if isinstance(body, list):
                node.body = [line for line in body if not _is_text(line)] or [ast.Pass()]
        total += sum(bool(line.strip()) for line in ast.unparse(tree).splitlines())
    return total


def _is_text(line: ast.stmt) -> bool:
    return (
        isinstance(line, ast.Expr)
        and isinstance(line.value, ast.Constant)
        and isinstance(line.value.value, str)
    )


def steps_to_time(side: int, batch: int) -> dict[str, Callable[[], object]]:
    """One training step and one look at a batch for both nets, on the same pictures of cells.

    Both are compiled as Keras does by default, so that neither has the better of a compiler.

    Returns:
        `("unet" | "mask_rcnn", "train" | "look")` → a call.
    """
    calls = {}
    for name, shipped_name in (("unet", UNET), ("mask_rcnn", DETECTOR)):
        recipe = dataclasses.replace(
            recipes.get(shipped_name),
            dataset="cells",
            train_data={"length": batch, "size": side, "seed": 1},
            batch_size=batch,
            crop=(side, side),
            sampling="pictures",
            steps=1,
        )
        net = recipe.model(recipe.crop)
        training.compile_model(net, recipe)
        pictures, truth = recipe.batches("train")[0][:2]
        calls[name, "train"] = lambda net=net, x=pictures, y=truth: net.train_on_batch(x, y)
        calls[name, "look"] = lambda net=net, x=pictures: net.predict_on_batch(x)
    return calls


def hyper_parameters(net: keras.Model) -> int:
    """How many numbers there are to choose beside layers and schedule: a Mask R-CNN's settings, none for a U-Net."""
    return len(dataclasses.fields(net.settings)) if hasattr(net, "settings") else 0


def claim_2_3(progress: Callable[[str], None] = print) -> Result:
    """Semantic segmentation is simpler, instance segmentation more complex: two small nets for nuclei, counted and timed.

    The rounds are repetitions in one process on one machine.

    The table:
        unet, mask_rcnn: `parameters`, `multiply_adds` and `activation_bytes` (one picture of `side`²), `lines` of code,
            `hyper_parameters`, `train` and `look` (seconds per round, `batch` pictures).
        ratio: of the numbers Mask R-CNN over U-Net, one per round for the timed ones; not of the hyper-parameters, of
            which a U-Net has none.
        effect: the ratio of `train`; side, batch.
    """
    nets = {"unet": shipped(UNET)[1], "mask_rcnn": shipped(DETECTOR)[1]}
    seconds = take_turns(steps_to_time(SIDE, BATCH), ROUNDS, repeats=1)
    table: dict = {"side": SIDE, "batch": BATCH, "ratio": {}}
    for name, net in nets.items():
        counted = net_costs(net, (SIDE, SIDE)) if name == "unet" else detector_costs(net, (SIDE, SIDE))["all"]
        table[name] = {
            "parameters": net.count_params(),
            "multiply_adds": counted["multiply_adds"],
            "activation_bytes": counted["activation_bytes"],
            "lines": lines_of_code(LINES[name]),
            "hyper_parameters": hyper_parameters(net),
            "train": seconds[name, "train"],
            "look": seconds[name, "look"],
        }
        progress(f"{name}: {table[name]}")
    for row in ROWS:
        table["ratio"][row] = np.divide(table["mask_rcnn"][row], table["unet"][row]).tolist()
    table["effect"] = table["ratio"]["train"]
    return waiting(
        "2.3",
        "Semantic segmentation is simpler, instance segmentation more complex.",
        f"time of a training step, {BATCH} pictures of {SIDE} × {SIDE}: Mask R-CNN over U-Net (1: as long)",
        interval(table["effect"]),
        ROUNDS,
        table,
        "the networks timed are not those, with those views, whose accuracy 2.2 reports",
        10,
    )


ROWS = {
    "lines": "lines of code",
    "train": "time of a training step",
    "look": "time of a prediction",
    "multiply_adds": "multiplications",
    "activation_bytes": "memory of all maps",
    "parameters": "parameters",
}
"""What is compared, in words."""
