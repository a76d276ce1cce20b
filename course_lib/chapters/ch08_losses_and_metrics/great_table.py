"""The great table: eight losses × fractions of foreground, the evidence of claims 7.4 to 7.8 (and the networks of 7.2).

Fixed before the first run:

- Task: cell or not, per pixel, on synthetic 64 × 64 images. **Only the amount of background varies**: the
  cells have the same sizes, contrast and noise everywhere, and every training set has 1,000 of them. Fractions
  of foreground: 10, 1 and 0.3 %, which takes about 110, 1,250 and 4,300 images, most of them empty at 0.3 %.
  Debris (bright specks smaller than any cell, two in an image on average) is background: hard negatives.
- Contestants: cross-entropy, weighted cross-entropy, focal (α = 0.25, Lin et al. 2017), Dice, Jaccard, Lovász,
  Tversky, cross-entropy + Dice. Lovász counts among the IoU losses: it is a surrogate of the IoU.
- Network and training, the same for all losses: U-Net of depth 2 with 8 base filters, Adam, steps of 8 images
  with warm-up and cosine, 500 at 10 and 1 %, 1,000 at 0.3 %. The learning curve is kept, so that speed and
  final score can be told apart.
- Tuning, the same rule for each loss at each fraction, one step after the other, each with the best of the
  step before: three learning rates; where the best lies at the end of the grid, one beyond it; the output bias
  at the prior or at zero; another value of the loss's own hyperparameter (`LOSSES`), if it has one. One tuning
  seed, which is not reported, judged by the best IoU on validation images. Two of these rules came later, both
  because the comparison would not have been fair without: the rate beyond the grid when four tuning runs had
  shown that cross-entropy at 0.3 % wants the highest; the bias for all losses, which cross-entropy and focal
  alone had had, when four reported pairs at 1 % were seen.
- Threshold: on the difference of the logits, the best of *all* thresholds for the validation images (no grid,
  hence no end of a grid), applied to the test images. Beside it stand the score at probability 0.5 and two
  threshold-free scores: the pixel average precision and the best IoU over all thresholds on the test images.
- Report: five seeds, each with its own training, validation and test images and its own initial weights,
  shared by all losses within the seed; paired differences, Holm's correction over the fractions and
  comparisons of a claim; equivalence margin 0.02.
- Gate: the best loss at a fraction reaches a mean IoU of 0.5 there. A loss below it is a finding; a task that
  none has learned decides nothing.

The IoU is pooled: all pixels of the 300 test cells' images together.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from course_lib import datasets, losses
from course_lib.models.unet import unet
from course_lib.teaching.experiments import Experiment, Trainee, fingerprint, key, search
from course_lib.teaching.ledger import Result, judged
from course_lib.teaching.statistics import CONTRADICTED, SUPPORTED, Gate, judge, missing_runs

STEPS = {0.01: 500, 0.1: 500, 0.003: 1000}
FRACTIONS = tuple(STEPS)
"""In the order of worth."""
SEEDS = (0, 1, 2, 3, 4)
TUNING_SEED = 100
RATES = (3e-3, 1e-3, 1e-2)
BEYOND = {1e-3: 3e-4, 1e-2: 3e-2}
"""The end of the grid → the learning rate that is tried beyond it."""
SIDE, BATCH_SIZE, BASE_FILTERS, DEPTH = 64, 8, 8, 2
CELLS = {"train": 1000, "val": 300, "test": 300}
GATE = 0.5
MARGIN = 0.02
LOSSES = {
    "ce": ("cross-entropy", "none", (0,)),
    "ce_dice": ("cross-entropy + Dice", "factor of Dice", (1, 3)),
    "dice": ("Dice", "smooth, in pixels", (1, 100)),
    "lovasz": ("Lovász", "none", (0,)),
    "focal": ("focal", "gamma", (2, 1)),
    "weighted_ce": ("weighted cross-entropy", "power of the inverse frequency", (1, 0.5)),
    "jaccard": ("Jaccard", "smooth, in pixels", (1, 100)),
    "tversky": ("Tversky", "price of a missed pixel; a false one costs 1 minus it", (0.7, 0.3)),
}
"""Name in the files → name, its own hyperparameter, and the values that are tried, the usual one first."""


def loss_of(loss: str, own: float, fraction: float) -> losses.SegmentationLoss:
    """A contestant with a value of its own hyperparameter."""
    return {
        "ce": lambda: losses.CrossEntropy(),
        "ce_dice": lambda: losses.CrossEntropy() + own * losses.Dice(background=False),
        "dice": lambda: losses.Dice(smooth=own, background=False),
        "lovasz": lambda: losses.LovaszSoftmax(background=False),
        "focal": lambda: losses.Focal(own, alpha=(0.75, 0.25)),
        "weighted_ce": lambda: losses.WeightedCrossEntropy((1.0, ((1 - fraction) / fraction) ** own)),
        "jaccard": lambda: losses.Jaccard(smooth=own, background=False),
        "tversky": lambda: losses.Tversky(1 - own, own, background=False),
    }[loss]()


@lru_cache(maxsize=24)
def trainee(loss: str, own: float, fraction: float) -> Trainee:
    """One compiled network for each loss."""

    def build():
        return unet((SIDE, SIDE, 1), 2, BASE_FILTERS, DEPTH, normalization="batch")

    return Trainee(build, loss_of(loss, own, fraction))


@lru_cache(maxsize=3)
def images_of(split: str, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Images until the split's number of cells is reached, their label maps, and that number."""
    data = datasets.cells(
        split,
        200_000,
        SIDE,
        seed,
        radius=(3.0, 6.0),
        density=fraction,
        touching=0.0,
        contrast=(0.15, 0.4),
        noise=(0.05, 0.12),
    )
    images, labels, cells = [], [], 0
    while cells < CELLS[split]:
        sample = data[len(images)]
        rng = np.random.default_rng([seed, len(images), ("train", "val", "test").index(split), 1708])
        images.append(with_debris(sample.image, rng))
        labels.append(sample.semantic.astype("int32"))
        cells += len(sample.classes)
    return np.stack(images), np.stack(labels), cells


def with_debris(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image with two bright specks on average, smaller than the smallest cell."""
    image = image.astype("float32")
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    for _ in range(rng.poisson(2)):
        y, x = rng.uniform(0, image.shape[:2])
        width = rng.uniform(0.6, 1.1)
        speck = rng.uniform(0.1, 0.5) * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * width**2))
        image = image + speck[..., None].astype("float32")
    return np.clip(image, 0, 1)


@lru_cache(maxsize=1)
def data_fingerprint() -> str:
    """Of a few images with cells and debris."""
    data = datasets.cells(
        "train",
        8,
        SIDE,
        0,
        radius=(3.0, 6.0),
        density=0.1,
        touching=0.0,
        contrast=(0.15, 0.4),
        noise=(0.05, 0.12),
    )
    rng = np.random.default_rng(0)
    return fingerprint(
        *(with_debris(data[k].image, rng) for k in range(3)), *(data[k].semantic for k in range(3))
    )


def measure(loss: str, own: float, prior: int, fraction: float, rate: float, seed: int) -> dict:
    """Train one network and score it."""
    images, labels, cells = images_of("train", fraction, seed)
    val, test = images_of("val", fraction, seed), images_of("test", fraction, seed)
    network = trainee(loss, own, fraction)

    def start_at_prior(model):
        if prior:
            model.get_layer("logits").bias.assign(np.log([1 - fraction, fraction]))

    def margins(some: np.ndarray) -> np.ndarray:
        logits = network.logits(some)
        return logits[..., 1] - logits[..., 0]

    network.start(seed, start_at_prior)
    result = {
        "training_cells": cells,
        "training_images": len(images),
        "foreground": float(np.mean(labels)),
        "cell_area": float(labels.sum() / cells),
        "parameters": network.model.count_params(),
    }
    try:
        result["curve"] = network.train(
            images,
            labels,
            STEPS[fraction],
            BATCH_SIZE,
            rate,
            seed,
            lambda: ThresholdFree(margins(val[0][:300]), val[1][:300]).best_iou,
            scored=5,
        )
    except FloatingPointError as error:
        return result | {"diverged": str(error), "val_iou": 0.0}
    on_val, on_test = ThresholdFree(margins(val[0]), val[1]), ThresholdFree(margins(test[0]), test[1])
    shown = slice(500)
    return result | {
        "val_iou": on_val.best_iou,
        "train_iou": ThresholdFree(margins(images[shown]), labels[shown]).best_iou,
        "threshold": on_val.best_threshold,
        "ap": on_test.average_precision,
        "best_iou": on_test.best_iou,
        "at_half": on_test.at(0.0),
        "chosen": on_test.at(on_val.best_threshold),
        "per_image": per_image(on_test.margins.reshape(test[1].shape) > on_val.best_threshold, test[1] == 1),
        "test_pixels": test[1].size,
        "test_foreground": on_test.true,
    }


def per_image(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Mean IoU and mean Dice over the images that show a cell, as claim 7.2 compares them."""
    found, truth = found[truth.any((1, 2))], truth[truth.any((1, 2))]
    hits, both = (found & truth).sum((1, 2)), found.sum((1, 2)) + truth.sum((1, 2))
    return {"iou": float(np.mean(hits / (both - hits))), "dice": float(np.mean(2 * hits / both))}


class ThresholdFree:
    """Scores of a binary prediction at every threshold at once.

    Args:
        margins: float, the logit of the foreground minus that of the background, any shape.
        labels: 1 = foreground, the same shape.
    """

    def __init__(self, margins: np.ndarray, labels: np.ndarray):
        self.margins, self.labels = np.ravel(margins), np.ravel(labels) == 1
        order = np.argsort(-self.margins, kind="stable")
        ranked = self.margins[order]
        last = np.append(ranked[1:] != ranked[:-1], True)  # equal margins are called foreground together
        hits = np.cumsum(self.labels[order])[last]
        found = np.flatnonzero(last) + 1
        self.true = int(self.labels.sum())
        self.iou = hits / (found + self.true - hits)
        self.best = int(np.argmax(self.iou))
        self.best_iou = float(self.iou[self.best])
        distinct = ranked[last]
        below = distinct[self.best + 1] if self.best + 1 < len(distinct) else distinct[self.best] - 1.0
        self.best_threshold = float((distinct[self.best] + below) / 2)
        """Pixels with a larger margin are called foreground; halfway to the next margin that occurs."""
        recall = hits / max(1, self.true)
        self.average_precision = float(np.sum(np.diff(recall, prepend=0.0) * hits / found))

    def at(self, threshold: float) -> dict[str, float]:
        """Scores at one threshold of the margin, 0 being probability 0.5; areas in pixels over the true area."""
        found = self.margins > threshold
        hits = np.count_nonzero(found & self.labels)
        count, true = np.count_nonzero(found), max(1, self.true)
        return {
            "iou": hits / max(1, count + self.true - hits),
            "dice": 2 * hits / max(1, count + self.true),
            "accuracy": float(np.mean(found == self.labels)),
            "false_positives": (count - hits) / true,
            "false_negatives": (self.true - hits) / true,
            "predicted": count / true,
        }


def tuning(loss: str, fraction: float, done) -> tuple[list[dict], dict | None]:
    """The tuning runs of a loss at a fraction as far as they are known, and the best of them once all are there.

    They are the learning rates, one more beyond the end of the grid where the best lies there, the other
    initial bias, and the other value of the loss's own hyperparameter if it has one.
    """
    own = LOSSES[loss][2]
    usual = {"loss": loss, "own": own[0], "prior": int(loss == "focal"), "fraction": fraction}
    return search(
        [usual | {"rate": rate, "seed": TUNING_SEED} for rate in RATES],
        (
            lambda best: [best | {"rate": BEYOND[best["rate"]]}] if best["rate"] in BEYOND else [],
            lambda best: [best | {"prior": 1 - best["prior"]}],
            lambda best: [best | {"own": value} for value in own[1:]],
        ),
        done,
        "val_iou",
    )


def reported(loss: str, fraction: float, seed: int, done) -> dict | None:
    """The arguments of a reported run, with the best of the tuning runs; `None` as long as one of those is missing."""
    best = tuning(loss, fraction, done)[1]
    return best and best | {"seed": seed}


def plan(done) -> list[dict]:
    """The losses of claim 7.7 first; fraction by fraction the tuning, then seed by seed a run of each."""
    runs, names = [], list(LOSSES)
    for some in (names[:2], names[2:5], names[5:]):
        for fraction in FRACTIONS:
            for loss in some:
                runs += tuning(loss, fraction, done)[0]
            for seed in SEEDS:
                runs += filter(None, (reported(loss, fraction, seed, done) for loss in some))
    return runs


EXPERIMENT = Experiment(
    "great-table",
    1,
    measure,
    plan,
    data_fingerprint,
    worth=9,
    total=len(FRACTIONS) * sum(len(RATES) + len(values) + len(SEEDS) for _, _, values in LOSSES.values()),
)


# Read off the runs


def name_of(fraction: float) -> str:
    """The setting's name in the results."""
    return f"{100 * fraction:g} % foreground"


def scores(loss: str, fraction: float, score: Callable[[dict], float]) -> dict[int, float]:
    """Seed → a score of the reported runs of a loss at a fraction, as far as they are there."""
    done = EXPERIMENT.results()
    runs = {seed: reported(loss, fraction, seed, done) for seed in SEEDS}
    return {seed: score(done[key(run)]) for seed, run in runs.items() if run and key(run) in done}


def chosen_iou(run: dict) -> float:
    """The IoU at the threshold chosen on validation images; 0 for a training that diverged."""
    return run["chosen"]["iou"] if "chosen" in run else 0.0


def half_iou(run: dict) -> float:
    """The IoU at probability 0.5; 0 for a training that diverged."""
    return run["at_half"]["iou"] if "at_half" in run else 0.0


def difference(
    first: str | tuple[str, ...], second: str, fraction: float, score: Callable[[dict], float] = chosen_iou
) -> list[float]:
    """Seed by seed the score of the first loss (or the mean of several) minus that of the second."""
    of_first = [scores(loss, fraction, score) for loss in ((first,) if isinstance(first, str) else first)]
    of_second = scores(second, fraction, score)
    seeds = [seed for seed in SEEDS if all(seed in some for some in (*of_first, of_second))]
    return [float(np.mean([some[seed] for some in of_first]) - of_second[seed]) for seed in seeds]


def gates(fractions=FRACTIONS, prefix: str = "") -> dict[str, Gate]:
    """For each fraction that has runs whether the task has been learned: by the loss with the best mean."""
    found = {}
    for fraction in fractions:
        if means := [
            np.mean(list(some.values())) for loss in LOSSES if (some := scores(loss, fraction, chosen_iou))
        ]:
            found[prefix + name_of(fraction)] = Gate(
                "IoU of the best loss", GATE, float(max(means)), fraction
            )
    return found


def missing(losses_used=tuple(LOSSES), fractions=FRACTIONS) -> int:
    """How many runs these losses still need at these fractions, the tuning included; one beyond the grid may be added."""
    done, count = EXPERIMENT.results(), 0
    for loss in losses_used:
        for fraction in fractions:
            runs, best = tuning(loss, fraction, done)
            lacking = sum(key(run) not in done for run in runs)
            if not best:  # the steps that are not planned yet, one run each
                lacking += max(0, len(RATES) + len(LOSSES[loss][2]) - len(runs))
            count += lacking
            of_seed = [reported(loss, fraction, seed, done) for seed in SEEDS]
            count += sum(run is None or key(run) not in done for run in of_seed)
    return count


class Against(NamedTuple):
    """A loss beside cross-entropy at one fraction of foreground.

    Attributes:
        differences: seed by seed its IoU minus that of cross-entropy, both at the chosen threshold.
        at_half: the same at probability 0.5.
        missing: runs of the two that are still to be made.
        found: what `statistics.compare` says of the differences, with a verdict; {} for fewer than three of them.
    """

    differences: list[float]
    at_half: list[float]
    missing: int
    found: dict

    @property
    def verdict(self) -> str:
        """Better, worse, equivalent or undecided, in words."""
        if self.missing:
            return f"undecided: {missing_runs(self.missing)}"
        words = {SUPPORTED: "better", CONTRADICTED: "worse"}
        return words.get(self.found["verdict"], self.found["verdict"])


def against_cross_entropy() -> dict[float, dict[str, Against]]:
    """Fraction of foreground → loss → how it compares with cross-entropy, Holm-corrected over all of them."""
    others = [loss for loss in LOSSES if loss != "ce"]
    pairs = {(fraction, loss): difference(loss, "ce", fraction) for fraction in FRACTIONS for loss in others}
    found = judge(
        {f"{fraction} {loss}": values for (fraction, loss), values in pairs.items()}, planned=len(SEEDS)
    ).comparisons
    return {
        fraction: {
            loss: Against(
                pairs[fraction, loss],
                difference(loss, "ce", fraction, half_iou),
                missing(("ce", loss), (fraction,)),
                found.get(f"{fraction} {loss}", {}),
            )
            for loss in others
        }
        for fraction in sorted(FRACTIONS, reverse=True)
    }


def chosen_settings(loss: str, fraction: float) -> dict | None:
    """Learning rate, initial bias and own hyperparameter that the tuning chose; `None` until it is whole."""
    run = reported(loss, fraction, SEEDS[0], EXPERIMENT.results())
    return run and {name: run[name] for name in ("rate", "prior", "own")}


def result(
    claim: str,
    statement: str,
    effect: str,
    settings: dict[str, list[float]],
    gate: dict[str, Gate],
    lacking: int,
    **arguments,
) -> Result:
    """A claim's result from its paired differences."""
    verdict = judge(settings, gate, len(SEEDS), **arguments)
    return judged(claim, statement, effect, verdict, {}, gate, lacking)
