"""Chapter 9c: what single changes of the recipe `unet-nuclei` buy, on the validation images of each source.

Fixed before the first run:

- The recipe at a size that allows many trainings: a quarter of its parameters, crops of 112 × 112 pixels, 600 steps. Each
  contestant (`CHANGES`) differs in one thing; "four views" and "averaged weights" read the recipe's own trainings in
  another way. No contestant is tuned, the learning rate is the recipe's for all.
- Three seeds: each decides initial weights, order, crops and augmentation; differences are taken within a seed.
- Thresholds: of each image they are those with the highest AP (mean over IoU 0.5 … 0.9) on the *other* half of the
  validation set, one after the other as in claim 5.2, so no image chooses its own.
- Scores: TP / (TP + FP + FN) over all nuclei of a source together, at IoU 0.5 and 0.75.

The runs lie in `data/results/runs/nuclei-changes/`; with the data here, this makes those that are missing:

    python -m course_lib.chapters.ch09_one_real_case.nuclei_changes
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import keras
import numpy as np

from course_lib import datasets, recipes, training
from course_lib.chapters.ch04_unet_decoder.nuclei_crops import data_fingerprint
from course_lib.chapters.ch09_one_real_case.real_data import WIDE, bright_share
from course_lib.datasets import Sample
from course_lib.datasets.augmentation import Augmentation
from course_lib.metrics.instance import matching_scores
from course_lib.segmenter import Segmenter
from course_lib.tasks import IOU_THRESHOLDS
from course_lib.teaching.experiments import Experiment, key
from course_lib.teaching.statistics import Interval, interval

SEEDS = (0, 1, 2)
DECAY = 0.99
"""Of the averaged weights: how much of the average remains after a step."""
SOURCES = ("256 × 256", "360 × 360", "520 × 696")
"""Those with more than one validation image; the two others are in `"all"` only."""

RECIPE = replace(
    recipes.NUCLEI,
    name="unet-nuclei-changes",
    title="unet-nuclei at a quarter of its size, for comparisons",
    network_arguments={"base_filters": 8, "depth": 4, "normalization": "batch"},
    task=replace(
        recipes.NUCLEI.task,
        tta="none",
        choices={
            "min_size": (20,),
            "seed_threshold": (0.5, 0.6, 0.7, 0.8, 0.9),
            "mask_threshold": (0.25, 0.35, 0.45),
        },
    ),
    epochs=8,
    steps=75,
    crop=(112, 112),
)
CHANGES: dict[str, Mapping[str, Any]] = {
    "the recipe": {},
    "flips and turns only": {"augmentation": Augmentation(flip=True, turn=True)},
    "larger crops": {"crop": (160, 160), "batch_size": 4},
    "without wide labels": {},
    "twice as long": {"epochs": 16},
    "twice as wide": {"network_arguments": {"base_filters": 16, "depth": 4, "normalization": "batch"}},
    "images drawn evenly": {"sampling": "uniform"},
}
"""Contestant → what it changes; as many pixels a step for all. "without wide labels" leaves training images out whose
bright area is below 0.75 of the labelled one, a rule that uses no network."""
READINGS = ("four views", "averaged weights")
"""Other readings of the recipe's own trainings."""


@lru_cache(maxsize=2)
def samples(split: str) -> list[Sample]:
    """The nuclei of a split, read once."""
    return list(datasets.nuclei(split))


def is_wide(sample: Sample) -> bool:
    """Whether the labels of an image are drawn wide."""
    return bright_share(sample.image[..., 0], sample.instances) < WIDE


class Average(keras.callbacks.Callback):
    """An exponential average of the weights, one value a step. (Keras's `use_ema` leaves the statistics of batch
    normalization out.)"""

    def on_train_begin(self, logs=None):
        self.weights = self.model.get_weights()

    def on_train_batch_end(self, batch, logs=None):
        for mean, now in zip(self.weights, self.model.get_weights(), strict=True):
            mean += (1 - DECAY) * (now - mean)


def measure(change: str, seed: int) -> dict:
    """Train one network and score it.

    Returns:
        Reading (`"plain"`, and those in `READINGS` for the recipe itself) → group → TP, FP and FN at IoU 0.5 and at 0.75.
        The groups are `"all"`, the sources, `"wide"` and `"not wide"`. And the last `loss` and the number of `parameters`.
    """
    keras.utils.clear_session()
    recipe = replace(RECIPE, seed=seed, **CHANGES[change])
    learned = samples("train")
    if change == "without wide labels":
        learned = [sample for sample in learned if not is_wide(sample)]
    model, average = recipe.model(recipe.crop), Average()
    loss = _fit(recipe, model, learned, [average] if change == "the recipe" else [])
    found = {"plain": read(recipe, model.get_weights())}
    if change == "the recipe":
        found["four views"] = read(
            replace(recipe, task=replace(recipe.task, tta="flips")), model.get_weights()
        )
        found["averaged weights"] = read(recipe, average.weights)
    return found | {"loss": loss, "parameters": model.count_params()}


def _fit(recipe: recipes.Recipe, model: keras.Model, learned: list[Sample], callbacks: list) -> float:
    """Train, and return the loss of the last epoch."""
    training.compile_model(model, recipe, jit=False)
    batches = recipe.batches("train", learned)
    history = model.fit(batches, epochs=recipe.epochs, verbose=0, shuffle=False, callbacks=callbacks)
    return history.history["loss"][-1]


def read(recipe: recipes.Recipe, weights: list[np.ndarray]) -> dict[str, list]:
    """Group → TP, FP and FN at IoU 0.5 and 0.75 on the validation images, each with the thresholds of the other half."""
    val, model = samples("val"), recipe.model()  # for images of any size
    model.set_weights(weights)
    outputs = Segmenter.of(recipe, model).outputs(val)
    outputs = [outputs[k] for k in range(len(val))]
    known: dict[tuple, np.ndarray] = {}

    def counts(thresholds: Mapping[str, float]) -> np.ndarray:
        """TP, FP and FN of each image at each IoU, int `(images, 9, 3)`."""
        name = tuple(thresholds.items())
        if name not in known:
            rows = []
            for sample, output in zip(val, outputs, strict=True):
                answer = recipe.task.decode(output, **thresholds)
                one = matching_scores([sample.instances], [answer], IOU_THRESHOLDS, ignore=[sample.ignored])
                rows.append(np.stack([one.true_positives, one.false_positives, one.false_negatives], -1))
            known[name] = np.stack(rows)
        return known[name]

    half = halves([kind(sample) for sample in val])
    total = np.zeros((len(val), len(IOU_THRESHOLDS), 3), int)
    for side in (0, 1):
        chosen = {name: values[len(values) // 2] for name, values in recipe.task.choices.items()}
        for name, values in recipe.task.choices.items():
            tried = [chosen | {name: value} for value in values]
            # Python's max takes the first of equals.
            chosen = max(tried, key=lambda one, side=side: precision(counts(one)[half != side].sum(0)).mean())
        total[half == side] = counts(chosen)[half == side]
    at = total[:, [list(IOU_THRESHOLDS).index(0.5), list(IOU_THRESHOLDS).index(0.75)]]
    return {name: at[mask].sum(0).tolist() for name, mask in groups(val).items()}


def kind(sample: Sample) -> str:
    """The size of an image, which stands for its source."""
    return " × ".join(map(str, sample.semantic.shape))


def halves(kinds: list[str]) -> np.ndarray:
    """0 or 1 for each image, in turn within each kind."""
    kinds = np.array(kinds)
    half = np.zeros(len(kinds), int)
    for one in np.unique(kinds):
        where = np.flatnonzero(kinds == one)
        half[where] = np.arange(len(where)) % 2
    return half


def groups(val: list[Sample]) -> dict[str, np.ndarray]:
    """Name → which of the images belong to it."""
    kinds, wide = np.array([kind(sample) for sample in val]), np.array([is_wide(sample) for sample in val])
    of_source = {source: kinds == source for source in SOURCES}
    return {"all": np.ones(len(val), bool)} | of_source | {"wide": wide, "not wide": ~wide}


def precision(counts) -> np.ndarray:
    """TP / (TP + FP + FN) of int `(…, 3)`."""
    counts = np.asarray(counts, float)
    return counts[..., 0] / np.maximum(1, counts.sum(-1))


def plan(done) -> list[dict]:
    """Seed by seed all contestants."""
    return [{"change": change, "seed": seed} for seed in SEEDS for change in CHANGES]


EXPERIMENT = Experiment("nuclei-changes", 1, measure, plan, data_fingerprint)


class Row(NamedTuple):
    """A contestant's AP over the seeds.

    Attributes:
        scores: AP of each seed.
        score: their mean and 95 % interval.
        differences: within each seed, from the recipe.
        change: their mean and 95 % interval.
    """

    scores: tuple[float, ...]
    score: Interval
    differences: tuple[float, ...]
    change: Interval


def table(
    group: str = "all", threshold: float = 0.5, results: Mapping[str, dict] | None = None
) -> dict[str, Row]:
    """AP of each contestant, and its difference from the recipe.

    Args:
        group: one of those of `measure`.
        threshold: IoU, 0.5 or 0.75.
        results: of the runs; by default those in the project.

    Returns:
        Contestant → its row, the recipe first. Contestants with fewer than three seeds are left out.
    """
    results = EXPERIMENT.results() if results is None else results
    place = (0.5, 0.75).index(threshold)

    def scores(change: str, reading: str = "plain") -> dict[int, float]:
        runs = {seed: results.get(key({"change": change, "seed": seed})) for seed in SEEDS}
        return {seed: float(precision(run[reading][group][place])) for seed, run in runs.items() if run}

    of = {change: scores(change) for change in CHANGES}
    of |= {reading: scores("the recipe", reading) for reading in READINGS}
    base, rows = of["the recipe"], {}
    for name, values in of.items():
        both = [seed for seed in values if seed in base]
        if len(both) >= 3:
            own = [values[seed] for seed in both]
            less = [values[seed] - base[seed] for seed in both]
            rows[name] = Row(tuple(own), interval(own), tuple(less), interval(less))
    return rows


if __name__ == "__main__":
    print(f"{EXPERIMENT.run()} runs made")
