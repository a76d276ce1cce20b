"""The statistics of the claims, written once: intervals, tests, power, and the verdict that follows from them.

Two runs with the same seed share data and initial weights, so their difference is compared, seed by seed.
The tests are those of SciPy and statsmodels; only the rules that lead from them to the five verdicts are the
course's own:

- **supported**: the effect has the claimed sign at a significance level of 5 % (two-sided, Holm over a claim's
  comparisons);
- **supported when …**: supported in some of the settings only;
- **equivalent**: the 95 % interval lies within a margin fixed beforehand, and a TOST at 5 %, Holm-corrected, agrees;
- **contradicted**: the effect has the opposite sign at that level;
- **undecided**: none of these, or runs are missing, or the networks have not learned their task (the gate).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import stats
from scipy.optimize import brentq

LEVEL = 0.05
POWER = 0.8
MARGIN = 0.02
WORDS = SUPPORTED, EQUIVALENT, CONTRADICTED, UNDECIDED = (
    "supported",
    "equivalent",
    "contradicted",
    "undecided",
)


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval, `low` ≤ `mean` ≤ `high`."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def interval(values: Sequence[float]) -> Interval:
    """Mean and 95 % interval of independent repetitions, by Student's t distribution.

    Raises:
        ValueError: for fewer than three values: an interval from two says nothing.
    """
    values = np.asarray(values, float)
    if values.ndim != 1 or len(values) < 3:
        raise ValueError(f"values has shape {values.shape}; an interval needs at least 3 repetitions.")
    mean = float(values.mean())
    if not np.ptp(values):
        return Interval(mean, mean, mean)
    low, high = stats.t.interval(1 - LEVEL, len(values) - 1, loc=mean, scale=stats.sem(values))
    return Interval(mean, float(low), float(high))


def bootstrap(
    values: Sequence[float], groups: Sequence | None = None, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Mean over images and its 95 % bootstrap interval, for one trained network: it says nothing about other trainings.

    Args:
        values: one per image.
        groups: to which dish, patient or film an image belongs; groups are drawn whole. `None`: each image by itself.
        resamples: how many are drawn.
        seed: of the draws.

    Raises:
        ValueError: if there are fewer than three groups, or not as many labels as values.
    """
    values = np.asarray(values, float)
    groups = np.arange(len(values)) if groups is None else np.asarray(groups)
    if len(groups) != len(values):
        raise ValueError(f"groups has {len(groups)} entries for {len(values)} values; give one each.")
    _, index = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(index, values), np.bincount(index)
    if len(counts) < 3:
        raise ValueError(f"groups has {len(counts)} different entries; a bootstrap needs at least 3.")
    found = stats.bootstrap(
        (sums, counts),
        lambda total, count, axis=-1: total.sum(axis) / count.sum(axis),
        paired=True,
        n_resamples=resamples,
        confidence_level=1 - LEVEL,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(values.mean()), float(found.low), float(found.high))


@dataclass(frozen=True, eq=False)
class Resampled:
    """An effect of networks trained once, and a bootstrap over the images: it says nothing about other trainings.

    Attributes:
        effect: on all images.
        resamples: float `(n,)`, the same of images drawn with replacement; with groups, of groups drawn whole.
        images: how many were drawn from.
    """

    effect: float
    resamples: np.ndarray
    images: int

    def __len__(self) -> int:
        return self.images


def power(effect: float, deviation: float, runs: int, level: float = LEVEL) -> float:
    """The probability that a paired t-test with this number of runs detects an effect."""
    from statsmodels.stats.power import TTestPower

    found = TTestPower().power(abs(effect) / deviation, runs, level, alternative="two-sided")
    # SciPy's noncentral t is NaN far out, where the power is 1.
    return float(np.nan_to_num(np.squeeze(found), nan=1.0))


@lru_cache(maxsize=256)
def _detectable(runs: int, level: float, wanted: float) -> float:
    return brentq(lambda effect: power(effect, 1.0, runs, level) - wanted, 1e-4, 30.0)


def detectable(deviation: float, runs: int, level: float = LEVEL, wanted: float = POWER) -> float:
    """The smallest effect that a paired t-test with this number of runs detects with a probability of `wanted`."""
    return deviation * _detectable(runs, level, wanted)


def runs_needed(effect: float, deviation: float, level: float = LEVEL, wanted: float = POWER) -> int:
    """How many runs detect an effect of this size with a probability of `wanted`; at least 3.

    Do not pass the effect that was just measured (its "observed power" tells nothing new), but one that matters.
    """
    if effect == 0:
        raise ValueError(
            "effect is 0; it must be the smallest effect that matters: no number of runs detects an effect of 0."
        )
    normal = stats.norm.ppf(1 - level / 2) + stats.norm.ppf(wanted)
    runs = max(
        3, int(np.ceil((normal * deviation / effect) ** 2))
    )  # a little too few: t is wider than the normal
    while power(effect, deviation, runs, level) < wanted:
        runs += max(1, runs // 100)
    return runs


def compare(
    differences: Sequence[float] | Resampled,
    null: float = 0.0,
    margin: float | None = MARGIN,
    ratio: bool = False,
) -> dict:
    """One paired comparison: effect, interval, p-values, and the effect that it could have detected.

    Args:
        differences: first minus second, one per seed; with `ratio`, first over second. Or a bootstrap of it: then
            interval and p-values are read off the resamples, and `"runs"` counts images.
        null: what "no effect" is (1 for a ratio; `-margin` to ask whether something is *not worse*).
        margin: within which of the null effects count as none; `None` for no equivalence test.
        ratio: compare logarithms, so that twice and half are equally far from 1.

    Raises:
        ValueError: for fewer than three differences, or a ratio that is not positive.
    """
    resampled = isinstance(differences, Resampled)
    values = np.asarray(differences.resamples if resampled else differences, float)
    if ratio and not (values > 0).all():
        raise ValueError(f"differences has the ratio {values.min():g}; ratios must be positive.")
    values, centre = (np.log(values), np.log(null)) if ratio else (values, null)
    deviation = float(values.std(ddof=1))
    if resampled:
        runs, effect = differences.images, np.log(differences.effect) if ratio else differences.effect
        found = Interval(effect, *np.quantile(values, (LEVEL / 2, 1 - LEVEL / 2)))
        deviation *= np.sqrt(runs)  # of one image
    else:
        runs, found = len(values), interval(values)

    def p_value(at: float, side: str) -> float:
        if not resampled:
            return float(stats.ttest_1samp(values, at, alternative=side).pvalue)
        beyond = {"greater": np.sum(values <= at), "less": np.sum(values >= at)}
        beyond["two-sided"] = 2 * min(beyond.values())
        return float(min(1.0, (1 + beyond[side]) / (1 + len(values))))

    back = np.exp if ratio else float
    result: dict[str, Any] = {
        "mean": float(back(found.mean)),
        "low": float(back(found.low)),
        "high": float(back(found.high)),
        "runs": runs,
        "deviation": deviation,
        "null": float(null),
        "ratio": ratio,
        "p": 1.0 if deviation == 0 and values[0] == centre else p_value(centre, "two-sided"),
        "detectable": float(back(detectable(deviation, runs))) if deviation else float(back(0.0)),
    }
    if resampled:
        result["bootstrap"] = True
    if margin is not None:
        half = np.log1p(margin) if ratio else margin
        result["margin"] = margin
        result["p_equivalent"] = max(p_value(centre - half, "greater"), p_value(centre + half, "less"))
        result["within"] = bool(centre - half < found.low and found.high < centre + half)
    return result


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979): the smallest times n, the next times n - 1, …, never falling.

    As statsmodels's `multipletests`, which collects all garbage at each call.
    """
    order = np.argsort(p_values)
    steps = np.maximum.accumulate(np.asarray(p_values)[order] * np.arange(len(order), 0, -1))
    return np.minimum(1.0, steps)[np.argsort(order)].tolist()


@dataclass(frozen=True)
class Gate:
    """Whether the networks have learned their task.

    Attributes:
        score: what was measured, such as `"lowest IoU of a class, mean over the seeds"`.
        needed: fixed beforehand.
        reached: by the reference networks.
        constant: the score of the best constant prediction.
        untrained: that of untrained networks; `None` where it was not measured.
    """

    score: str
    needed: float
    reached: float
    constant: float
    untrained: float | None = None

    @property
    def passed(self) -> bool:
        return self.reached >= self.needed


@dataclass(frozen=True)
class Verdict:
    """The verdict that follows from a claim's comparisons.

    Attributes:
        word: one of the five; `"supported when …"` names the settings.
        comparisons: setting → what `compare` found, with `"p_holm"` and a `"verdict"` of its own.
        reason: why the verdict is undecided, else `""`.
    """

    word: str
    comparisons: dict[str, dict]
    reason: str = ""


def judge(
    settings: Mapping[str, Sequence[float] | Resampled],
    gates: Gate | Mapping[str, Gate] | None = None,
    planned: int = 5,
    null: float | Mapping[str, float] = 0.0,
    margin: float | None | Mapping[str, float | None] = MARGIN,
    ratio: bool = False,
) -> Verdict:
    """The verdict on a claim that says: the difference is greater than `null` in every setting.

    Args:
        settings: setting, such as `"1 % foreground"` → differences, one per seed, or their bootstrap over images.
        gates: of all settings or of each; a setting whose networks have not learned decides nothing.
        planned: how many runs were planned beforehand; with fewer there is no verdict yet.
        null, margin: as for `compare`, for all settings or for each.
        ratio: as for `compare`.
    """

    def each(value) -> Mapping:
        return value if isinstance(value, Mapping) else dict.fromkeys(settings, value)

    of_setting, null, margin = each(gates), each(null), each(margin)
    shut = [name for name in settings if of_setting.get(name) is not None and not of_setting[name].passed]
    short = {name: planned - len(values) for name, values in settings.items() if len(values) < planned}
    found = {
        name: compare(values, null[name], margin[name], ratio)
        for name, values in settings.items()
        if len(values) >= 3
    }
    whole = [name for name in found if name not in short and name not in shut]
    # Settings that wait still count in the correction: their tests will come.
    for kind, corrected in (("p", "p_holm"), ("p_equivalent", "p_equivalent_holm")):
        waiting = [1.0] * (len(settings) - len(found))
        values = [one.get(kind, 1.0) for one in found.values()]
        for one, value in zip(found.values(), holm(values + waiting), strict=False):
            one[corrected] = value
    for name, one in found.items():
        one["verdict"] = _of_one(one) if name in whole else UNDECIDED
        if one["verdict"] == UNDECIDED and margin[name] and one["deviation"]:
            # The smallest effect that matters is the margin; the measured one would only repeat its own p-value.
            matters = np.log1p(margin[name]) if ratio else margin[name]
            one["runs_to_decide"] = runs_needed(matters, one["deviation"])
    words = [found[name]["verdict"] if name in found else UNDECIDED for name in settings]
    supported = [name for name in whole if found[name]["verdict"] == SUPPORTED]
    if words and all(word == SUPPORTED for word in words):
        return Verdict(SUPPORTED, found)
    if supported:
        return Verdict(f"{SUPPORTED} when: {_listed(supported)}", found)
    if shut and len(shut) == len(settings):
        return Verdict(UNDECIDED, found, "the networks have not learned their task")
    if short:
        return Verdict(UNDECIDED, found, missing_runs(sum(short.values())))
    if CONTRADICTED in words and set(words) <= {CONTRADICTED, EQUIVALENT}:
        return Verdict(CONTRADICTED, found)
    if words and all(word == EQUIVALENT for word in words):
        return Verdict(EQUIVALENT, found)
    reason = "the interval is too wide"
    if shut:
        reason = f"the networks have not learned their task ({_listed(shut)})"
    elif len(set(words)) > 1:
        reason = "the settings disagree"
    return Verdict(UNDECIDED, found, reason)


def _of_one(one: dict) -> str:
    if one.get("within") and one["p_equivalent_holm"] <= LEVEL:
        return EQUIVALENT
    if one["p_holm"] > LEVEL:
        return UNDECIDED
    return SUPPORTED if one["mean"] > one["null"] else CONTRADICTED


def missing_runs(number: int) -> str:
    """How many runs are missing, in words."""
    return "1 run is missing" if number == 1 else f"{number} runs are missing"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def numbers(one: Mapping[str, Any]) -> str:
    """The mean of what `compare` found, and its interval."""
    sign = "" if one["ratio"] else "+"
    return f"{one['mean']:{sign}.3f} [{one['low']:{sign}.3f}, {one['high']:{sign}.3f}]"


def sentence(effect: str, verdict: str, comparisons: Mapping[str, dict], reason: str = "") -> str:
    """A claim's result in words, made only from the numbers of its comparisons."""
    parts = []
    for name, one in comparisons.items():
        setting = f" ({name})" if name else ""
        unit = "images, bootstrap" if "bootstrap" in one else "runs"
        text = f"{numbers(one)}{setting}, {one['runs']} {unit}"
        if len(comparisons) > 1:
            text += f": {one['verdict']}"
        if one["verdict"] == UNDECIDED and "runs_to_decide" in one:
            text += f" (an effect of {one['margin']:g} would take {one['runs_to_decide']} {unit.partition(',')[0]})"
        parts.append(text)
    why = f": {reason}" if reason else ""
    if not parts:
        return f"{verdict[0].upper()}{verdict[1:]}{why}."
    return f"{verdict[0].upper()}{verdict[1:]}{why}. {effect[0].upper()}{effect[1:]}: {'; '.join(parts)}."
