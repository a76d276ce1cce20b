"""Chapter 7 of the claims, the losses: one table of losses × foreground shares, read three times (7.4 to 7.6).

The task is the same everywhere: cell or not, per pixel, on pictures of the course's own cells. Only the share of
foreground changes, and with it how much a loss that counts every pixel alike hears of the cells. Each repetition has its
own training pictures, own validation pictures and own initial weights; within a repetition all losses get the same ones,
the same batches, the same optimizer and the same learning rate (Adam's step hardly depends on the scale of a loss).

What the claims mean here was fixed before the table was trained:

- 7.4, "cross-entropy is the general choice": at the share where it does worst, it falls short of the loss that is best
  there on average by less than `TOLERANCE`.
- 7.5, "Dice and IoU losses for sparse objects": at the smallest share, the mean of Dice and Jaccard is above
  cross-entropy.
- 7.6, "focal loss for high imbalance": at the smallest share, focal is above cross-entropy.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from course_lib import datasets, losses, training
from course_lib.files import write_json
from course_lib.models.predict import softmax
from course_lib.models.unet import unet
from course_lib.teaching.ledger import Interval, Result, interval

SHARES = (0.3, 0.1, 0.02, 0.005)
SEEDS = (0, 1, 2, 3, 4)
TOLERANCE = 0.02
"""IoU that two losses may differ by before it would change anybody's choice."""
THRESHOLDS = tuple(round(0.05 * k, 2) for k in range(1, 20))


@dataclass(frozen=True)
class Setting:
    """What all trainings of the table share; change it, and the table is trained anew."""

    size: int = 64
    pictures: int = 192
    chosen_on: int = 48
    reported_on: int = 96
    radius: tuple[float, float] = (3.0, 6.0)
    contrast: tuple[float, float] = (0.15, 0.4)
    noise: tuple[float, float] = (0.05, 0.12)
    base_filters: int = 8
    depth: int = 2
    steps: int = 200
    batch_size: int = 8
    learning_rate: float = 3e-3

    @property
    def digest(self) -> str:
        """Changes whenever a number above does."""
        content = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def data(self, split: str, share: float, seed: int, length: int):
        """The pictures of one repetition, `(images, labels)`: float32 `(n, size, size, 1)`, int32 `(n, size, size)`."""
        samples = datasets.cells(
            split,
            length,
            self.size,
            seed,
            radius=self.radius,
            contrast=self.contrast,
            noise=self.noise,
            foreground=share,
        )
        pairs = [(sample.image, sample.semantic) for sample in samples]
        return tuple(np.stack(part) for part in zip(*pairs, strict=True))


def candidates() -> dict[str, losses.SegmentationLoss]:
    """The losses of the table, by the names that people know them by."""
    return {
        "cross-entropy": losses.CrossEntropy(),
        "weighted cross-entropy": losses.WeightedCrossEntropy(),
        "Dice": losses.Dice(background=False),
        "Jaccard": losses.Jaccard(background=False),
        "focal": losses.Focal(),
        "Tversky": losses.Tversky(background=False),
        "Lovász": losses.LovaszSoftmax(background=False),
        "cross-entropy + Dice": losses.CrossEntropy() + losses.Dice(background=False),
    }


class Trainee:
    """One network and one loss, compiled once and trained many times over: a fresh start puts all weights back."""

    def __init__(self, loss: losses.SegmentationLoss, setting: Setting):
        import keras

        self.model = unet(
            (setting.size, setting.size, 1), 2, setting.base_filters, setting.depth, normalization="batch"
        )
        schedule = keras.optimizers.schedules.CosineDecay(setting.learning_rate, setting.steps)
        self.model.compile(optimizer=keras.optimizers.Adam(schedule), loss=loss, jit_compile=training.JIT)
        self.setting = setting

    def train(self, initial: list[np.ndarray], images: np.ndarray, labels: np.ndarray, seed: int) -> None:
        """Train from `initial` on random flips of the pictures, the same batches for every loss."""
        self.model.set_weights(initial)
        self.model.optimizer.build(self.model.trainable_variables)
        for variable in self.model.optimizer.variables:
            variable.assign(np.zeros(variable.shape, str(variable.dtype)))
        rng = np.random.default_rng([seed, 74])
        for _ in range(self.setting.steps):
            chosen = rng.integers(len(images), size=self.setting.batch_size)
            batch, truth = images[chosen], labels[chosen]
            for axis in (1, 2):
                if rng.random() < 0.5:
                    batch, truth = np.flip(batch, axis), np.flip(truth, axis)
            loss = self.model.train_on_batch(np.ascontiguousarray(batch), np.ascontiguousarray(truth))
        if not np.isfinite(loss):
            raise FloatingPointError(f"the loss {self.model.loss.name} became {loss}.")

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """The probability of foreground, float32 `(n, size, size)`."""
        logits = [
            self.model.predict_on_batch(images[k : k + self.setting.batch_size])
            for k in range(0, len(images), self.setting.batch_size)
        ]
        return softmax(np.concatenate(logits))[..., 1]


def pooled_scores(probabilities: np.ndarray, labels: np.ndarray, threshold: float) -> dict[str, float]:
    """IoU, precision and recall of the foreground, and pixel accuracy, over all pixels together."""
    found, truth = probabilities > threshold, labels == 1
    both, either = np.count_nonzero(found & truth), np.count_nonzero(found | truth)
    return {
        "iou": both / max(1, either),
        "precision": both / max(1, np.count_nonzero(found)),
        "recall": both / max(1, np.count_nonzero(truth)),
        "accuracy": float(np.mean(found == truth)),
    }


def best_threshold(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The threshold of `THRESHOLDS` with the highest pooled IoU."""
    return max(THRESHOLDS, key=lambda threshold: pooled_scores(probabilities, labels, threshold)["iou"])


def table(
    progress: Callable[[str], None] = print,
    setting: Setting = Setting(),
    shares: tuple[float, ...] = SHARES,
    seeds: tuple[int, ...] = SEEDS,
    folder=None,
) -> dict:
    """Train every loss at every foreground share, once per seed. What is done is kept: a stopped run goes on.

    Args:
        progress: told each line of progress.
        setting: what all trainings share.
        shares: foreground shares.
        seeds: repetitions.
        folder: where unfinished work lies, by default in `runs/`.

    Returns:
        A table: `"losses"`, `"shares"`, `"seeds"`; and for each measure `"iou"`, `"precision"`, `"recall"`, `"accuracy"`
        (at threshold 0.5), `"iou_chosen"` and `"threshold"` (chosen on further training pictures): loss → share, as
        text → one value per seed.
    """
    import keras

    path = (folder or training.RUNS) / f"losses-{setting.digest}.json"
    done = json.loads(path.read_text(encoding="utf8")) if path.is_file() else {}
    trainees: dict[str, Trainee] = {}
    for seed in seeds:
        for share in shares:
            missing = [name for name in candidates() if f"{name}/{share}/{seed}" not in done]
            if not missing:
                continue
            images, labels = setting.data("train", share, seed, setting.pictures + setting.chosen_on)
            shown, kept = slice(setting.pictures), slice(setting.pictures, None)
            val_images, val_labels = setting.data("val", share, seed, setting.reported_on)
            for name in missing:
                if name not in trainees:
                    trainees[name] = Trainee(candidates()[name], setting)
                trainee = trainees[name]
                keras.utils.set_random_seed(seed)
                initial = Trainee(candidates()[name], setting).model.get_weights()
                trainee.train(initial, images[shown], labels[shown], seed)
                threshold = best_threshold(trainee.probabilities(images[kept]), labels[kept])
                found = trainee.probabilities(val_images)
                scores = pooled_scores(found, val_labels, 0.5)
                scores |= {
                    "iou_chosen": pooled_scores(found, val_labels, threshold)["iou"],
                    "threshold": threshold,
                }
                done[f"{name}/{share}/{seed}"] = {key: round(value, 5) for key, value in scores.items()}
                write_json(path, done)
                progress(f"seed {seed}, share {share:g}, {name}: IoU {scores['iou']:.3f}")
    names = list(candidates())
    measures = ("iou", "precision", "recall", "accuracy", "iou_chosen", "threshold")
    return {
        "losses": names,
        "shares": list(shares),
        "seeds": list(seeds),
        "setting": dataclasses.asdict(setting),
        **{
            measure: {
                name: {
                    str(share): [done[f"{name}/{share}/{seed}"][measure] for seed in seeds]
                    for share in shares
                }
                for name in names
            }
            for measure in measures
        },
    }


def difference(
    found: dict, first: str | tuple[str, ...], second: str, share: float, measure: str = "iou"
) -> list[float]:
    """Per seed, how much `first` (a loss, or the mean of several) is above `second` at a share."""
    firsts = (first,) if isinstance(first, str) else first
    mean = np.mean([found[measure][name][str(share)] for name in firsts], axis=0)
    return (mean - np.array(found[measure][second][str(share)])).tolist()


def best_loss(found: dict, share: float, measure: str = "iou") -> str:
    """The loss with the highest mean over the seeds at a share."""
    return max(found["losses"], key=lambda name: np.mean(found[measure][name][str(share)]))


def claim_7_4(progress: Callable[[str], None] = print) -> Result:
    """Cross-entropy as the general choice: how far is it from the best, at the share where it does worst?"""
    return general_choice(table(progress))


def general_choice(found: dict) -> Result:
    """Claim 7.4, read off the table."""
    shortfall = {
        share: difference(found, "cross-entropy", best_loss(found, share), share) for share in found["shares"]
    }
    worst = min(shortfall, key=lambda share: np.mean(shortfall[share]))
    effect = interval(shortfall[worst])
    near = [share for share in found["shares"] if interval(shortfall[share]).low > -TOLERANCE]
    # Shares fall along the table: the condition holds from the largest down to the last one without a gap.
    unbroken = [share for k, share in enumerate(found["shares"]) if near[: k + 1] == found["shares"][: k + 1]]
    chosen = difference(found, "cross-entropy", best_loss(found, worst, "iou_chosen"), worst, "iou_chosen")
    after = f"With a threshold chosen for each net on further pictures the difference there is {interval(chosen)}."
    best = best_loss(found, worst)
    behind = f"it is behind {best}"
    if effect.high >= 0:
        behind = f"its mean is {-effect.mean:.2f} below that of {best}, which the runs do not settle"
    if len(near) == len(shortfall):
        verdict = "holds"
        teacher = f"Cross-entropy is nowhere more than {TOLERANCE} IoU behind the best loss. {after}"
    elif unbroken:
        verdict = f"holds when at least {100 * unbroken[-1]:g} % of the pixels are foreground"
        teacher = (
            f"Down to {100 * unbroken[-1]:g} % foreground cross-entropy is, with its whole interval, within "
            f"{TOLERANCE} IoU of the best loss; at {100 * worst:g} % {behind}. {after}"
        )
    else:
        verdict = "not seen here"
        teacher = (
            f"At {100 * worst:g} % foreground {behind}; five runs cannot show cross-entropy within {TOLERANCE} IoU of "
            f"the best at the largest share either. {after}"
        )
    return _result(
        "7.4",
        "Cross-entropy is the general choice.",
        f"IoU of cross-entropy minus that of the best loss, at the share where it does worst ({100 * worst:g} %)",
        effect,
        verdict,
        teacher,
        found | {"shortfall": shortfall[worst], "shortfall_chosen": chosen},
    )


def claim_7_5(progress: Callable[[str], None] = print) -> Result:
    """Dice and Jaccard losses where objects are sparse."""
    return against_cross_entropy(
        table(progress),
        "7.5",
        "Dice and IoU losses suit sparse objects.",
        ("Dice", "Jaccard"),
        "the mean of Dice and Jaccard",
    )


def claim_7_6(progress: Callable[[str], None] = print) -> Result:
    """Focal loss where the classes are far out of balance."""
    return against_cross_entropy(
        table(progress),
        "7.6",
        "Focal loss suits data that is highly imbalanced.",
        ("focal",),
        "focal loss",
    )


def against_cross_entropy(
    found: dict, claim: str, statement: str, firsts: tuple[str, ...], words: str
) -> Result:
    """Claims 7.5 and 7.6, read off the table: some losses against cross-entropy at the smallest share."""
    gains = {share: difference(found, firsts, "cross-entropy", share) for share in found["shares"]}
    sparsest = min(gains)
    effect = interval(gains[sparsest])
    chosen = difference(found, firsts, "cross-entropy", sparsest, "iou_chosen")
    after = interval(chosen)
    better = [share for share in gains if interval(gains[share]).low > 0]
    if effect.low > 0 and after.low > 0:
        verdict = "holds"
        teacher = (
            f"At {100 * sparsest:g} % foreground {words} gives the better masks, and still does ({after}) when each net "
            "gets the threshold that suits it."
        )
    elif effect.low > 0:
        verdict = "holds when the threshold stays at 0.5"
        teacher = (
            f"At {100 * sparsest:g} % foreground {words} gives the better masks at threshold 0.5. With a threshold chosen "
            f"for each net on further pictures the difference is {after}: much of the gain is where the threshold lies."
        )
    else:
        verdict = "not seen here"
        sparse = f"At {100 * sparsest:g} % foreground {words} is not shown to be better than cross-entropy"
        if effect.high < 0:
            sparse = f"At {100 * sparsest:g} % foreground {words} is worse than cross-entropy"
        teacher = f"{sparse}; with a threshold chosen for each net the difference is {after}."
        if better:
            teacher += f" It is better at {', '.join(f'{100 * share:g} %' for share in better)}."
    return _result(
        claim,
        statement,
        f"IoU of {words} minus that of cross-entropy, at {100 * sparsest:g} % foreground",
        effect,
        verdict,
        teacher,
        found | {"gain": gains[sparsest], "gain_chosen": chosen},
    )


def _result(
    claim: str, statement: str, effect: str, measured: Interval, verdict: str, teacher: str, found: dict
) -> Result:
    return Result(
        claim, statement, effect, measured, verdict, teacher, len(found["seeds"]), found, Setting().digest
    )
