"""Chapter 7 of the claims, the metrics: what IoU, Dice and pixel accuracy count, and where they disagree."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
from scipy import ndimage, stats

from course_lib import checkpoints, recipes
from course_lib.chapters.ch03_unet_encoder.encoder_decoder import in_batches
from course_lib.datasets import cells
from course_lib.datasets.loading import normalize
from course_lib.metrics import semantic
from course_lib.models.predict import softmax
from course_lib.teaching.ledger import Result, interval

TRUTH = """
........
..####..
..####..
..####..
..####..
........
........
........
"""
"""A true mask of 8 × 8 pixels, `#` is foreground."""

FOUND = """
........
........
...####.
...####.
...####.
........
.#......
........
"""
"""A prediction for it: moved, too low, with one speck where nothing is."""


def mask(drawing: str) -> np.ndarray:
    """A drawing of `#` and `.` as a boolean mask `(height, width)`.

    Raises:
        ValueError: if the lines differ in length, or hold another sign.
    """
    rows = drawing.split()
    if set("".join(rows)) - set("#.") or len({len(row) for row in rows}) != 1:
        raise ValueError("drawing: lines of one length wanted, of # and . only.")
    return np.array([[sign == "#" for sign in row] for row in rows])


def counts_by_hand(truth: np.ndarray, found: np.ndarray) -> dict[str, int]:
    """True and false, positives and negatives of two boolean masks, counted pixel by pixel."""
    names = {
        (True, True): "true_positives",
        (False, True): "false_positives",
        (True, False): "false_negatives",
        (False, False): "true_negatives",
    }
    counts = dict.fromkeys(names.values(), 0)
    for row in range(truth.shape[0]):
        for column in range(truth.shape[1]):
            counts[names[bool(truth[row, column]), bool(found[row, column])]] += 1
    return counts


def scores_by_hand(
    true_positives: int, false_positives: int, false_negatives: int, true_negatives: int
) -> dict[str, float]:
    """The four scores of the course, as it defines them, from the four counts."""
    wrong = false_positives + false_negatives
    iou = true_positives / (true_positives + wrong)
    iou_background = true_negatives / (true_negatives + wrong)
    return {
        "iou": iou,
        "dice": 2 * true_positives / (2 * true_positives + wrong),
        "pixel_accuracy": (true_positives + true_negatives) / (true_positives + true_negatives + wrong),
        "mean_iou": (iou + iou_background) / 2,
    }


def claim_7_1(progress: Callable[[str], None] = print) -> Result:
    """IoU, Dice, pixel accuracy and mean IoU are what the course defines them to be."""
    truth, found = mask(TRUTH), mask(FOUND)
    counts = counts_by_hand(truth, found)
    by_hand = scores_by_hand(**counts)
    matrix = semantic.confusion_matrix(truth, found, 2)
    library = {
        "iou": semantic.iou(truth, found),
        "dice": semantic.dice(truth, found),
        "pixel_accuracy": semantic.pixel_accuracy(matrix),
        "mean_iou": semantic.mean_iou(matrix),
    }
    apart = max(abs(by_hand[name] - library[name]) for name in by_hand)
    progress(f"{counts}: largest difference {apart:.1e}")
    agree = apart < 1e-12
    return Result(
        "7.1",
        "IoU is overlap over union, Dice twice the overlap over the sum of areas, pixel accuracy the share of right "
        "pixels, mean IoU the average over the classes.",
        "largest difference between the scores counted by hand on 8 × 8 pixels and the library's",
        None,
        "holds" if agree else "not seen here",
        "All four come from four counts: right and wrong, inside and outside."
        if agree
        else "The library does not give what the definitions give.",
        1,
        {"counts": counts, "by_hand": by_hand, "library": library, "largest_difference": apart},
    )


# 7.2: which of two models is better --------------------------------------------------------------------------

SEEDS = tuple(range(8))
IMAGES = 32
CLOSE = 0.02
"""Two models count as close if their mean IoU differs by no more than this."""
OFTEN = 0.1
"""What the course's "often" is taken to mean: one pair of models in ten. Set before anything was measured."""
THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)


def _blurred(images: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(images, (0, 1.5, 1.5, 0))


def _noisy(images: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.clip(images + rng.normal(0, 0.08, images.shape), 0, 1).astype(np.float32)


def _shaded(images: np.ndarray) -> np.ndarray:
    return images * np.linspace(0.3, 1, images.shape[2], dtype=np.float32)[:, None]


WAYS = {"as it is": np.asarray, "blurred": _blurred, "noisy": _noisy, "shaded": _shaded}
"""How the net gets to see the pictures."""


def foreground(model, images: np.ndarray) -> np.ndarray:
    """The probability that a pixel belongs to a cell or to the border between two.

    Args:
        model: the net of `recipes.CELLS`.
        images: float32 `(images, height, width, 1)`, normalized as the net wants them.

    Returns:
        float32 `(images, height, width)`.
    """
    (logits,) = in_batches(model, images, size=8)
    return 1 - softmax(logits)[..., 0]


def _cells_net():
    model = recipes.CELLS.model()
    checkpoints.load(recipes.CELLS, model, quiet=True)
    return model


def overlaps(truths: np.ndarray, founds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels in both masks and in either of them, for each picture; boolean `(images, height, width)` in."""
    return (truths & founds).sum((1, 2)), (truths | founds).sum((1, 2))


def share_of_flips(first: np.ndarray, second: np.ndarray, of: np.ndarray | None = None) -> float:
    """The share of pairs that two scores, one value for each model, put in opposite order.

    Args:
        first, second: `(models,)`.
        of: boolean, one entry for each pair as `itertools.combinations` gives them; all pairs by default.
    """
    opposite = np.array([(first[a] - first[b]) * (second[a] - second[b]) < 0 for a, b in _pairs(first)])
    return float(opposite.mean() if of is None else opposite[of].mean())


def _pairs(scores: np.ndarray) -> list[tuple[int, int]]:
    return list(combinations(range(len(scores)), 2))


def random_masks(count: int, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of masks that agree more or less: smooth blobs, and the same with more or less of other blobs mixed in."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        fields = ndimage.gaussian_filter(rng.normal(size=(2, 24, 24)), (0, 2, 2))
        mixed = fields[0] + rng.uniform(0, 2) * fields[1]
        level = rng.uniform(-0.1, 0.1)
        pairs.append((fields[0] > level, mixed > level))
    return pairs


def claim_7_2(progress: Callable[[str], None] = print) -> Result:
    """Dice = 2 IoU / (1 + IoU): the same order of masks, not always of models.

    The models are twenty versions of one trained net: it sees the pictures in four `WAYS` and answers at five
    `THRESHOLDS`. A repetition is another set of `IMAGES` pictures of cells, some easy, some hard.
    """
    pairs = random_masks(500)
    iou = np.array([semantic.iou(*pair) for pair in pairs])
    dice = np.array([semantic.dice(*pair) for pair in pairs])
    table: dict = {
        "masks": {
            "pairs": len(pairs),
            "rank_correlation": float(stats.spearmanr(iou, dice).statistic),
            "largest_difference_to_the_formula": float(np.abs(dice - 2 * iou / (1 + iou)).max()),
        }
    }
    names = [f"{way}, threshold {threshold}" for way in WAYS for threshold in THRESHOLDS]
    lists: dict[str, list[float]] = {
        name: [] for name in ("flips", "flips_of_close", "close", "flips_of_pooled", "flips_to_the_steadier")
    }
    means: dict[str, dict[str, list[float]]] = {
        name: {"iou": [], "dice": [], "pooled_iou": []} for name in names
    }
    discordant = 0
    model = _cells_net()
    for seed in SEEDS:
        iou, dice, pooled = _scores_of_models(model, seed)
        discordant += _discordant_within_images(iou, dice)
        mean_iou, mean_dice = iou.mean(1), dice.mean(1)
        close = np.array([abs(mean_iou[a] - mean_iou[b]) <= CLOSE for a, b in _pairs(mean_iou)])
        lists["flips"].append(share_of_flips(mean_iou, mean_dice))
        lists["flips_of_close"].append(share_of_flips(mean_iou, mean_dice, close))
        lists["close"].append(float(close.mean()))
        lists["flips_of_pooled"].append(share_of_flips(mean_iou, pooled))
        lists["flips_to_the_steadier"].append(_flips_to_the_steadier(iou, dice))
        for name, row in zip(
            names, np.stack([mean_iou, mean_dice, pooled], 1).round(5).tolist(), strict=True
        ):
            for score, value in zip(means[name], row, strict=True):
                means[name][score].append(value)
        progress(f"pictures {seed}: {lists['flips'][-1]:.1%} of the pairs flip")
    table["masks"]["models_ranked_differently_on_one_image"] = discordant
    table |= lists | {"models": means}
    effect, effect_close = interval(lists["flips"]), interval(lists["flips_of_close"])
    same = table["masks"]["rank_correlation"] > 1 - 1e-12 and not discordant
    if not same or effect.low <= 0:
        verdict = "not seen here"
        teacher = (
            "Mean Dice and mean IoU ordered our models alike."
            if same
            else "Dice and IoU ordered two masks differently: one of them is computed wrongly."
        )
    elif effect.low >= OFTEN:
        verdict, teacher = (
            "holds",
            "On one picture Dice and IoU always agree which mask is better; their means over many pictures often do not "
            "agree which model is.",
        )
    elif effect_close.low >= OFTEN:
        verdict = "holds when the models are close"
        teacher = (
            "On one picture Dice and IoU always agree which mask is better. Their means part over models that are "
            "nearly as good, and seldom over others."
        )
    else:
        verdict = "holds when two masks are ranked; that two models are often ranked differently was not seen"
        teacher = (
            "On one picture Dice and IoU always agree which mask is better. Their means over many pictures can disagree "
            "which of two models is, but among ours they seldom did."
        )
    return Result(
        "7.2",
        "Dice = 2 IoU / (1 + IoU): never a different ranking of two masks, often of two models.",
        "share of the pairs of models that mean Dice and mean IoU over the pictures put in opposite order",
        effect,
        verdict,
        teacher,
        len(SEEDS),
        table,
        recipes.CELLS.digest,
    )


def _scores_of_models(model, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """IoU and Dice `(models, images)`, and the IoU of all pixels together `(models,)`."""
    dataset = cells(
        "test", length=IMAGES, size=96, seed=seed, radius=(4, 14), contrast=(0.1, 0.8), noise=(0.01, 0.12)
    )
    samples = [dataset[index] for index in range(len(dataset))]
    truths = np.stack([sample.semantic == 1 for sample in samples])
    images = np.stack([sample.image for sample in samples])
    both, either = [], []
    for way in WAYS.values():
        seen = np.stack([normalize(image, recipes.CELLS.normalization) for image in way(images)])
        probability = foreground(model, seen)
        for threshold in THRESHOLDS:
            counts = overlaps(truths, probability > threshold)
            both.append(counts[0])
            either.append(counts[1])
    both, either = np.array(both), np.array(either)
    return both / either, 2 * both / (either + both), both.sum(1) / either.sum(1)


def _discordant_within_images(iou: np.ndarray, dice: np.ndarray) -> int:
    """How often two models are ordered differently by their IoU and by their Dice on the same image."""
    differences = [scores[:, None] - scores[None] for scores in (iou, dice)]
    return int(np.count_nonzero(differences[0] * differences[1] < 0)) // 2


def _flips_to_the_steadier(iou: np.ndarray, dice: np.ndarray) -> float:
    """The share of the pairs that flip *and* of which mean Dice prefers the one whose IoU varies less."""
    mean_iou, mean_dice, spread = iou.mean(1), dice.mean(1), iou.std(1)
    steadier = 0
    for a, b in _pairs(spread):
        by_dice, other = (a, b) if mean_dice[a] > mean_dice[b] else (b, a)
        steadier += mean_iou[by_dice] < mean_iou[other] and spread[by_dice] < spread[other]
    return steadier / len(_pairs(spread))


# 7.3: imbalance ----------------------------------------------------------------------------------------------

SHARES = (0.5, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
DATA_SEEDS = (0, 1, 2, 3, 4)


def cells_at(share: float, seed: int):
    """Three pictures with this share of foreground, in cells of the same size whatever the share.

    The pictures are large because one cell of ordinary size is a thousandth of them: so imbalance is varied, and nothing
    else.
    """
    return cells(
        "test", length=3, size=320, seed=seed, radius=6.0, contrast=0.5, noise=0.03, foreground=share
    )


def exposure(seed: int) -> tuple[float, float]:
    """What counts as black and as white in the pictures of a seed: the limits of those that are 30 % cells.

    The recipe stretches each picture between its own percentiles. On a picture with next to nothing on it that makes the
    noise as bright as a cell, and the net would fail for that reason and not for the imbalance.
    """
    low, high = np.percentile([sample.image for sample in cells_at(0.3, seed)], (1.0, 99.8))
    return float(low), float(high)


def claim_7_3(progress: Callable[[str], None] = print) -> Result:
    """Pixel accuracy and mean IoU of "all background" and of a trained net, from half foreground to a thousandth."""
    model = _cells_net()
    limits = {seed: exposure(seed) for seed in DATA_SEEDS}
    table: dict = {"shares": {}, "net": {}, "all_background": {}}
    for share in SHARES:
        rows: dict[str, list[float]] = {"share": []}
        for seed in DATA_SEEDS:
            samples = list(cells_at(share, seed))
            truth = np.stack([sample.semantic for sample in samples])
            low, high = limits[seed]
            images = np.stack([(sample.image - low) / (high - low) for sample in samples])
            found = foreground(model, np.clip(images, 0, 1).astype(np.float32)) > 0.5
            rows["share"].append(float(truth.mean()))
            for who, answer in (("net", found), ("all_background", np.zeros_like(truth))):
                matrix = semantic.confusion_matrix(truth, answer, 2)
                for name, value in (
                    ("pixel_accuracy", semantic.pixel_accuracy(matrix)),
                    ("mean_iou", semantic.mean_iou(matrix)),
                    ("iou_cell", float(semantic.iou_per_class(matrix)[1])),
                ):
                    table[who].setdefault(name, {}).setdefault(str(share), []).append(value)
        table["shares"][str(share)] = rows["share"]
        progress(
            f"foreground {share:.1%}: net accuracy {np.mean(table['net']['pixel_accuracy'][str(share)]):.4f}, "
            f"mean IoU {np.mean(table['net']['mean_iou'][str(share)]):.3f}"
        )

    def flattery(who: str, share: float) -> np.ndarray:
        accuracy, mean_iou = (table[who][name][str(share)] for name in ("pixel_accuracy", "mean_iou"))
        return np.subtract(accuracy, mean_iou)

    def lead(name: str, share: float) -> np.ndarray:
        return np.subtract(table["net"][name][str(share)], table["all_background"][name][str(share)])

    rare, even = SHARES[-1], SHARES[0]
    grown = flattery("net", rare) - flattery("net", even)
    table["flattery_grown"] = grown.tolist()
    table["flattery_grown_all_background"] = (
        flattery("all_background", rare) - flattery("all_background", even)
    ).tolist()
    table["lead_of_the_net_in_accuracy"] = lead("pixel_accuracy", rare).tolist()
    table["lead_of_the_net_in_mean_iou"] = lead("mean_iou", rare).tolist()
    effect, of_nothing = interval(grown), interval(table["flattery_grown_all_background"])
    if effect.low > 0 and of_nothing.low > 0:
        verdict = "holds"
        teacher = (
            "The rarer the foreground, the further pixel accuracy lies above mean IoU, for a trained net as for an "
            "answer that finds nothing."
        )
    elif of_nothing.low > 0:
        verdict = "holds when the model misses the rare class"
        teacher = (
            "Pixel accuracy calls an answer that finds nothing nearly perfect where foreground is rare. Whether it also "
            "flatters a net that does find the rare cells, five runs do not settle."
        )
    else:
        verdict, teacher = (
            "not seen here",
            "Pixel accuracy and mean IoU kept the same distance at every share.",
        )
    return Result(
        "7.3",
        "Pixel accuracy flatters a model under imbalance.",
        f"pixel accuracy minus mean IoU of a trained net, at {rare:.1%} foreground minus at {even:.0%}",
        effect,
        verdict,
        teacher,
        len(DATA_SEEDS),
        table,
        recipes.CELLS.digest,
    )
