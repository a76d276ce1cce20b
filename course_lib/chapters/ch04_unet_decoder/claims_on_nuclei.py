"""Claims 3.1, 3.3, 3.4 and 5.2 on crops of nuclei: augmentation, border weights, and five networks.

Fixed before the first run:

- Data: one crop of 64 × 64 pixels from each image, where it shows most nuclei. Networks learn from 4, 16 or 64 crops,
  drawn by the seed from 256 of the set's training split; its other 130 images are the reported ones, the same for all
  seeds. Its validation split is for tuning, learning curves and thresholds. The crops of claim 8.1 are the same.
- Contestants (`CONTESTANTS`): each differs in one thing from a U-Net that learns background, nucleus and border from
  batches with flips and quarter turns. 3.3: no changes at all, or elastic deformation besides. 3.4: labels without a
  border class, as nucleus or background; with background between touching nuclei; and the latter with the published
  border weights (without their class weights, so that the border term alone is added). 3.1, 5.2: other networks, whose
  trainable parameters agree within 2 %.
- Training: cross-entropy, Adam, 200 steps of 8 crops with warm-up and cosine, for 4 crops and for 64.
- Tuning, the same rule for each contestant, on 16 crops and a seed that is not reported: three learning rates, one beyond
  the end of the grid where the best lies there, then the other values of its own hyperparameter, if it has one. Judged by
  the AP of the nuclei (mean over IoU 0.5 … 0.9) on validation crops.
- From probabilities to nuclei, the same for all: seeds are connected pieces where a nucleus is likelier than a first
  threshold; they grow by a watershed over all that is background less likely than 1 minus a second one. The two are
  chosen for each network, one after the other, by the AP on validation crops.
- Scores: AP for 3.3 and 5.2; boundary F1 within 2 pixels for 3.1; for 3.4 the recall (IoU above 0.5) of nuclei that touch
  another; for 5.2 also that of nuclei of under 8 pixels (the root of the area) that the crop does not cut. All others that
  `nuclei_crops.measured` gives are in the results' tables.
- Five seeds, each with its own crops to learn from and its own initial weights, shared by all contestants.
- Gate: AP at IoU 0.5 of at least 0.5 for the best contestant of a claim at its number of crops.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from course_lib import losses
from course_lib.chapters.ch04_unet_decoder.nuclei_crops import (
    BORDER,
    SIDE,
    crops,
    data_fingerprint,
    drawn,
    measured,
    scored,
)
from course_lib.chapters.ch05_unet_vs_fcn.five_networks import build
from course_lib.datasets.augmentation import Augmentation
from course_lib.datasets.targets import border_weights, encode_three_classes
from course_lib.teaching.experiments import Experiment, Trainee, batches, key, search
from course_lib.teaching.ledger import Result, judged
from course_lib.teaching.statistics import Gate, judge

STEPS, BATCH_SIZE = 200, 8
SEEDS, TUNING_SEED, TUNING_IMAGES = (0, 1, 2, 3, 4), 100, 16
IMAGES = (4, 16, 64)
RATES = (6e-3, 2e-3, 2e-2)
BEYOND = {2e-3: 6e-4, 2e-2: 6e-2}
"""The end of the grid → the learning rate that is tried beyond it."""
SEED_THRESHOLDS = (0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98, 0.99)
MASK_THRESHOLDS = (0.1, 0.2, 0.35, 0.5, 0.65)
GATE = 0.5


class Contestant(NamedTuple):
    """What is trained, and the values that are tried of its own hyperparameter, the usual one first."""

    network: str = "U-Net"
    labels: str = "border class"
    changes: str = "flips and turns"
    own: tuple[float, ...] = (0,)


CONTESTANTS = {
    "U-Net": Contestant(),
    "no changes": Contestant(changes="none"),
    "elastic": Contestant(changes="elastic", own=(4, 2, 8)),  # deviation of the shifts in pixels
    "foreground": Contestant(labels="foreground"),
    "separated": Contestant(labels="separated"),
    "border weights": Contestant(labels="weighted", own=(5, 2.5)),  # sigma in pixels
    "FCN-8s": Contestant("FCN-8s"),
    "DeepLabV3+": Contestant("DeepLabV3+"),
    "FCN-16s": Contestant("FCN-16s"),
    "FCN-32s": Contestant("FCN-32s"),
}
CELLS = {
    "3.3": [(name, images) for images in IMAGES for name in ("U-Net", "elastic", "no changes")],
    "3.4": [(name, 64) for name in ("U-Net", "foreground", "separated", "border weights")],
    "3.1": [(name, images) for images in IMAGES for name in ("U-Net", "FCN-8s")],
    "5.2": [(name, 64) for name in ("U-Net", "FCN-8s", "DeepLabV3+", "FCN-16s", "FCN-32s")],
}
"""Claim → contestant and number of crops of all that is reported, in the order of worth."""


def labels_of(instances: np.ndarray, labels: str) -> np.ndarray:
    """The label map of one crop: 0 = background, 1 = nucleus, 2 = border."""
    encoded = encode_three_classes(instances, BORDER)
    if labels == "border class":
        return encoded
    return (instances > 0).astype(np.int32) if labels == "foreground" else (encoded == 1).astype(np.int32)


def drawing(changes: str, own: float) -> Callable[..., Iterator[tuple]]:
    """How the batches are drawn, as `Trainee.train` takes it."""

    def unchanged(images, labels, steps, batch_size, seed):
        rng = np.random.default_rng([seed, 1505])
        for _ in range(steps):
            some = rng.integers(len(images), size=batch_size)
            yield images[some], labels[some]

    def elastic(images, labels, steps, batch_size, seed):
        rng, change = np.random.default_rng([seed, 303]), Augmentation(elastic=own)
        for batch in batches(images, labels, steps, batch_size, seed):
            pairs = [change.apply(x, [y], y.shape, rng) for x, y in zip(*batch, strict=True)]
            yield np.stack([x for x, _ in pairs]), np.stack([y for _, (y,) in pairs])

    return {"none": unchanged, "flips and turns": batches, "elastic": elastic}[changes]


def weighted(weights: np.ndarray) -> Callable[..., Iterator[tuple]]:
    """Batches with a weight for each pixel, which moves with the image."""

    def with_weights(images, *arguments):
        for batch, truth in batches(np.concatenate([images, weights[..., None]], -1), *arguments):
            yield batch[..., :1], truth, batch[..., 1]

    return with_weights


@lru_cache(maxsize=10)
def trainee(network: str, classes: int) -> Trainee:
    """One compiled network of each kind."""
    return Trainee(lambda: build(network, (SIDE, SIDE, 1), classes), losses.CrossEntropy())


def measure(contestant: str, own: float, images: int, rate: float, seed: int) -> dict:
    """Train one network and score it."""
    data, one = crops(), CONTESTANTS[contestant]
    inputs, instances = drawn(seed, images)
    labels = np.stack([labels_of(truth, one.labels) for truth in instances])
    draw = drawing(one.changes, own)
    if one.labels == "weighted":
        draw = weighted(np.stack([border_weights(y, sigma=own, class_weights=(1, 1)) for y in instances]))
    network = trainee(one.network, 3 if one.labels == "border class" else 2)
    network.start(seed)

    def on_val() -> float:
        return scored(network.logits(data["val"][0]), data["val"][1], 0.5)["ap_50"]

    untrained = on_val()
    try:
        curve = network.train(inputs, labels, STEPS, BATCH_SIZE, rate, seed, on_val, scored=5, draw=draw)
    except FloatingPointError as error:
        return {"diverged": str(error), "val": 0.0}
    logits = network.logits(data["val"][0])

    def best(thresholds: list[tuple[float, float]]) -> tuple[float, tuple[float, float]]:
        return max((scored(logits, data["val"][1], *both)["ap_mean"], both) for both in thresholds)

    _, (seeds, _) = best([(threshold, 0.5) for threshold in SEED_THRESHOLDS])
    on_val, thresholds = best([(seeds, threshold) for threshold in MASK_THRESHOLDS])
    return {
        "val": on_val,
        "thresholds": thresholds,
        "untrained": untrained,
        "curve": curve,
        "reported": measured(network.logits(data["reported"][0]), data["reported"][1], *thresholds),
        "learned_from": scored(network.logits(inputs), instances, *thresholds)["ap_mean"],
        "nuclei": int(sum(len(np.unique(truth)) - 1 for truth in instances)),
        "parameters": sum(int(np.prod(v.shape)) for v in network.model.trainable_variables),
    }


def tuning(contestant: str, done) -> tuple[list[dict], dict | None]:
    """The tuning runs of a contestant known so far, and the best of them once all have been made."""
    own = CONTESTANTS[contestant].own
    usual = {"contestant": contestant, "own": own[0], "images": TUNING_IMAGES}
    return search(
        [usual | {"rate": rate, "seed": TUNING_SEED} for rate in RATES],
        (
            lambda best: [best | {"rate": BEYOND[best["rate"]]}] if best["rate"] in BEYOND else [],
            lambda best: [best | {"own": value} for value in own[1:]],
        ),
        done,
        "val",
    )


def reported(contestant: str, images: int, done) -> list[dict]:
    """The arguments of the reported runs; none until the tuning is complete."""
    best = tuning(contestant, done)[1]
    return [best | {"images": images, "seed": seed} for seed in SEEDS] if best else []


def plan(done) -> list[dict]:
    """Claim by claim: the tuning of its contestants, then number by number and seed by seed a run of each."""
    runs: dict[str, dict] = {}
    for cells in CELLS.values():
        wanted = [run for name in dict.fromkeys(name for name, _ in cells) for run in tuning(name, done)[0]]
        for count in dict.fromkeys(count for _, count in cells):
            of = [reported(name, count, done) for name, number in cells if number == count]
            wanted += [run for same_seed in zip(*filter(None, of), strict=True) for run in same_seed]
        runs |= {key(run): run for run in wanted}
    return list(runs.values())


EXPERIMENT = Experiment(
    "nuclei-crops",
    1,
    measure,
    plan,
    data_fingerprint,
    worth=7.5,
    total=len({cell for cells in CELLS.values() for cell in cells}) * len(SEEDS)
    + sum(len(RATES) + len(one.own) - 1 for one in CONTESTANTS.values()),
)


EXPERIMENTS = (EXPERIMENT,)


# Read off the runs


def results(contestant: str, images: int) -> dict[int, dict]:
    """Seed → what a reported run measured, as far as it is there."""
    done = EXPERIMENT.results()
    return {run["seed"]: done[key(run)] for run in reported(contestant, images, done) if key(run) in done}


def score(run: dict, name: str) -> float:
    """A score of a run on the reported crops; 0 for a training that diverged."""
    return run["reported"][name] if "reported" in run else 0.0


def difference(first: str, second: str, images: int, name: str) -> list[float]:
    """Seed by seed the score of the first contestant minus that of the second."""
    ours, theirs = results(first, images), results(second, images)
    return [
        score(ours[seed], name) - score(theirs[seed], name)
        for seed in SEEDS
        if seed in ours and seed in theirs
    ]


def table(cells: Iterable[tuple[str, int]]) -> dict[str, list[dict]]:
    """Contestant and number of crops → for each seed the scores, the learning curve and what the run was."""
    return {
        f"{name}, {images}": [
            {k: v for k, v in run.items() if k != "reported"} | run.get("reported", {}) | {"seed": seed}
            for seed, run in results(name, images).items()
        ]
        for name, images in cells
    }


def gate(contestants: Iterable[str], images: int) -> Gate | None:
    """Whether the best of the contestants has learned at this number of crops; `None` before the first run."""
    of = [runs for name in contestants if (runs := results(name, images))]
    if not of:
        return None
    best = max(float(np.mean([score(run, "ap_50") for run in runs.values()])) for runs in of)
    untrained = max(run.get("untrained", 0.0) for runs in of for run in runs.values())
    return Gate("AP at IoU 0.5 of the best contestant", GATE, best, 0.0, untrained)


def missing(cells: Iterable[tuple[str, int]]) -> int:
    """How many runs of these cells are still missing, including the tuning runs known so far."""
    done = EXPERIMENT.results()
    tuned = [run for name in {name for name, _ in cells} for run in tuning(name, done)[0]]
    lacking = sum(len(SEEDS) - len(results(*cell)) for cell in cells)
    return lacking + sum(key(run) not in done for run in tuned)


def result(
    claim: str, statement: str, effect: str, comparisons: Mapping[str, tuple[str, str, int, str]]
) -> Result:
    """A claim's result: setting → the arguments of `difference`."""
    cells = CELLS[claim]
    gates = {
        name: one
        for name, (_, _, images, _) in comparisons.items()
        if (one := gate([contestant for contestant, count in cells if count == images], images))
    }
    settings = {name: difference(*one) for name, one in comparisons.items()}
    return judged(
        claim, statement, effect, judge(settings, gates, len(SEEDS)), table(cells), gates, missing(cells)
    )


def claim_3_3(progress: Callable[[str], None] = print) -> Result:
    """Elastic deformation in addition to flips and turns, at each number of crops; the table also has no augmentation."""
    return result(
        "3.3",
        "Elastic deformation is why few training images suffice.",
        "average precision of nuclei when elastic deformation is added to flips and rotations, minus without it",
        {f"{images} crops": ("elastic", "U-Net", images, "ap_mean") for images in IMAGES},
    )


def claim_3_4(progress: Callable[[str], None] = print) -> Result:
    """Border weights against plain labels and against the same labels without weights; the border class in the table."""
    return result(
        "3.4",
        "Border weights separate touching cells.",
        "recall (IoU above 0.5) of nuclei that touch another, with the published border weights minus without them",
        {
            "weights vs. plain labels": ("border weights", "foreground", 64, "recall_touching"),
            "weights vs. separated labels": ("border weights", "separated", 64, "recall_touching"),
        },
    )


def claim_3_1(progress: Callable[[str], None] = print) -> Result:
    """The outlines of U-Net beside those of FCN-8s, at each number of crops."""
    return result(
        "3.1",
        "U-Net localises precisely from few training images.",
        "boundary F1 within 2 pixels on nuclei, U-Net minus FCN-8s, equal parameter counts",
        {f"{images} crops": ("U-Net", "FCN-8s", images, "boundary_f1_2") for images in IMAGES},
    )


def claim_5_2(progress: Callable[[str], None] = print) -> Result:
    """All nuclei and the small ones, U-Net against FCN-8s and DeepLabV3+; all five networks in the table."""
    return result(
        "5.2",
        "U-Net is stronger on small objects and medical images.",
        "average precision of all nuclei and recall of nuclei under 8 pixels, U-Net minus the other network, equal "
        "parameter counts",
        {
            f"{what} vs. {other}": ("U-Net", other, 64, score)
            for what, score in (("all nuclei", "ap_mean"), ("small nuclei", "recall_under 8"))
            for other in ("FCN-8s", "DeepLabV3+")
        },
    )
