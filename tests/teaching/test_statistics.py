"""The verdicts' statistics against SciPy and statsmodels, and on simulated data whose truth is known."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW

from course_lib.teaching import statistics
from course_lib.teaching.statistics import Gate, judge

SIMULATIONS = 500


def simulated(effect, deviation, runs, seed, settings=1):
    """`SIMULATIONS` claims of several settings, each with normal differences around the same effect."""
    rng = np.random.default_rng(seed)
    for _ in range(SIMULATIONS):
        yield {str(k): rng.normal(effect, deviation, runs) for k in range(settings)}


def frequencies(effect, deviation, runs, seed, settings=1, **arguments):
    words = [
        judge(one, planned=runs, **arguments).word.split(" when")[0]
        for one in simulated(effect, deviation, runs, seed, settings)
    ]
    return {word: words.count(word) / SIMULATIONS for word in set(words)}


class TestAgainstLibraries:
    values = np.array([0.01, 0.05, 0.03, 0.09, 0.02, 0.04])

    def test_paired_t_and_its_interval(self):
        found, expected = statistics.compare(self.values), stats.ttest_1samp(self.values, 0)
        low, high = expected.confidence_interval(0.95)
        assert (found["mean"], found["low"], found["high"]) == pytest.approx((self.values.mean(), low, high))
        assert found["p"] == pytest.approx(expected.pvalue)

    def test_a_ratio_is_compared_on_a_logarithmic_scale_against_1(self):
        ratios = np.array([1.9, 2.2, 2.0, 2.4])
        found, inverse = (statistics.compare(one, null=1, ratio=True) for one in (ratios, 1 / ratios))
        assert (
            found["p"]
            == pytest.approx(inverse["p"])
            == pytest.approx(stats.ttest_1samp(np.log(ratios), 0).pvalue)
        )
        assert found["mean"] == pytest.approx(stats.gmean(ratios)) == pytest.approx(1 / inverse["mean"])
        assert found["low"] > 1 > inverse["high"] > 0

    def test_equivalence_is_statsmodels_tost(self):
        p, _, _ = DescrStatsW(self.values).ttost_mean(-0.06, 0.06)
        assert statistics.compare(self.values, margin=0.06)["p_equivalent"] == pytest.approx(p)

    def test_detectable_effect_has_the_power_it_says(self):
        found = statistics.detectable(0.2, 7)
        assert TTestPower().power(found / 0.2, 7, 0.05) == pytest.approx(0.8, abs=1e-4)

    @pytest.mark.parametrize("effect, deviation", [(0.05, 0.19), (0.05, 0.12), (0.02, 0.01)])
    def test_runs_needed_is_the_least_number(self, effect, deviation):
        runs = statistics.runs_needed(effect, deviation)
        power = TTestPower()
        assert power.power(effect / deviation, runs, 0.05) >= 0.8
        assert runs == 3 or power.power(effect / deviation, runs - 1, 0.05) < 0.8

    def test_bootstrap_by_group_sees_that_images_of_a_dish_are_alike(self):
        rng = np.random.default_rng(0)
        dishes = np.repeat(np.arange(12), 20)
        values = rng.normal(0, 1, 12)[dishes] + rng.normal(0, 0.1, len(dishes))
        alone, grouped = statistics.bootstrap(values), statistics.bootstrap(values, dishes)
        assert grouped.high - grouped.low > 2.5 * (alone.high - alone.low)
        assert alone.mean == grouped.mean == pytest.approx(values.mean())

    def test_holm_is_statsmodels(self):
        rng = np.random.default_rng(0)
        for count in (1, 2, 7):
            p_values = rng.random(count) ** 3
            assert statistics.holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])

    def test_a_bootstrap_of_means_is_near_the_t_test(self):
        values = np.random.default_rng(0).normal(0.04, 0.2, 300)
        drawn = values[np.random.default_rng(1).integers(0, 300, (4000, 300))].mean(1)
        found = statistics.compare(statistics.Resampled(values.mean(), drawn, 300), margin=0.08)
        expected = statistics.compare(values, margin=0.08)
        for name in ("mean", "low", "high", "p", "p_equivalent", "detectable"):
            assert found[name] == pytest.approx(expected[name], abs=3e-3), name
        ratio = statistics.Resampled(2.0, np.exp(np.log(2) + drawn - values.mean()), 300)
        assert statistics.compare(ratio, null=1, ratio=True)["mean"] == pytest.approx(2)
        text = statistics.sentence(
            "A minus B", "supported", judge({"": ratio}, null=1, ratio=True).comparisons
        )
        assert text.endswith("300 images, bootstrap.")

    def test_bad_input(self):
        with pytest.raises(ValueError, match="groups has 2 different entries"):
            statistics.bootstrap([1.0, 2.0, 3.0], [0, 0, 1])
        with pytest.raises(ValueError, match="effect is 0"):
            statistics.runs_needed(0, 1)
        with pytest.raises(ValueError, match="ratios must be positive"):
            statistics.compare([1.0, 2.0, 0.0], ratio=True)


class TestRules:
    """What each rule says, on numbers that leave no doubt."""

    sure = (0.1, 0.11, 0.12, 0.1, 0.11)
    none = (0.001, -0.001, 0.002, -0.002, 0.0)
    wide = (0.3, -0.2, 0.1, -0.1, 0.05)

    def test_the_five(self):
        assert judge({"": self.sure}).word == "supported"
        assert judge({"": np.negative(self.sure)}).word == "contradicted"
        assert judge({"": self.none}).word == "equivalent"
        assert judge({"": self.wide}).word == "undecided"
        assert judge({"1 %": self.sure, "10 %": self.none}).word == "supported when: 1 %"
        assert judge({"1 %": self.wide, "10 %": self.none}).reason == "the settings disagree"

    def test_a_significant_effect_that_is_too_small_to_matter_is_equivalence(self):
        assert judge({"": (0.005, 0.006, 0.005, 0.007, 0.006)}).word == "equivalent"

    def test_not_worse_asks_against_the_margin(self):
        assert judge({"": self.none}, null=-0.02, margin=None).word == "supported"
        assert judge({"": np.subtract(self.none, 0.1)}, null=-0.02, margin=None).word == "contradicted"

    def test_no_verdict_from_networks_that_have_not_learned(self):
        shut, open_ = Gate("IoU", 0.5, 0.18, 0.1), Gate("IoU", 0.5, 0.7, 0.1)
        found = judge({"": self.sure}, shut)
        assert (found.word, found.reason) == ("undecided", "the networks have not learned their task")
        assert (
            judge({"1 %": self.sure, "10 %": self.sure}, {"1 %": shut, "10 %": open_}).word
            == "supported when: 10 %"
        )

    def test_missing_runs_are_said(self):
        found = judge({"1 %": self.sure, "10 %": self.none[:2]})
        assert found.word == "supported when: 1 %"
        found = judge({"1 %": self.sure[:4], "10 %": self.none[:2]})
        assert (found.word, found.reason) == ("undecided", "4 runs are missing")
        assert judge({"": self.sure[:4]}).reason == "1 run is missing"

    def test_the_sentence_has_the_numbers_beside_it(self):
        found = judge({"1 %": self.sure, "10 %": self.wide})
        text = statistics.sentence("IoU of A minus B", found.word, found.comparisons, found.reason)
        for one in found.comparisons.values():
            assert f"{one['mean']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]" in text
        assert text.startswith("Supported when: 1 %. IoU of A minus B: ")


@pytest.mark.slow
class TestSimulated:
    """How often a verdict is wrong, and how often it comes when it should."""

    def test_false_positive_rates(self, capsys):
        rates = {}
        for settings in (1, 3):
            # No effect, and a scatter too wide for equivalence: neither sign may be claimed too often.
            found = frequencies(0.0, 0.1, 5, seed=1, settings=settings)
            rates[f"supported, no effect, {settings} settings"] = found.get("supported", 0.0)
            rates[f"contradicted, no effect, {settings} settings"] = found.get("contradicted", 0.0)
            # An effect at the margin is not equivalence.
            found = frequencies(0.02, 0.01, 8, seed=2, settings=settings)
            rates[f"equivalent, effect at the margin, {settings} settings"] = found.get("equivalent", 0.0)
        found = frequencies(-0.02, 0.02, 5, seed=3, null=-0.02, margin=None)
        rates["not worse, worse by the margin"] = found.get("supported", 0.0)
        with capsys.disabled():
            print("\nfalse positive rates:", {name: round(rate, 4) for name, rate in rates.items()})
        assert max(rates.values()) <= 0.05

    @pytest.mark.parametrize("runs", [5, 10])
    def test_power_is_as_stated(self, runs, capsys):
        deviation = 0.05
        effect = statistics.detectable(deviation, runs)
        found = frequencies(effect, deviation, runs, seed=4)
        with capsys.disabled():
            print(f"\npower at the detectable effect, {runs} runs: {found['supported']:.3f}")
        assert found["supported"] == pytest.approx(0.8, abs=0.06)  # three standard errors of 500 simulations

    def test_the_interval_covers_as_often_as_it_says(self):
        rng = np.random.default_rng(0)
        found = [statistics.interval(rng.normal(1, 2, 3)) for _ in range(4000)]
        assert np.mean([one.low <= 1 <= one.high for one in found]) == pytest.approx(0.95, abs=0.015)
