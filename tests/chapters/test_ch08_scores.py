"""The experiments on metrics: counting by hand, flips of two means, and imbalance."""

import dataclasses

import keras
import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, jaccard_score

from course_lib import recipes
from course_lib.chapters.ch08_losses_and_metrics import scores
from course_lib.datasets import cells
from course_lib.metrics import semantic
from course_lib.teaching import ledger


def random_masks(seed):
    rng = np.random.default_rng(seed)
    return rng.random((2, 8, 8)) < rng.uniform(0.2, 0.8, (2, 1, 1))


class TestByHand:
    def test_a_drawing_becomes_a_mask(self):
        found = scores.mask("#.\n.#\n..")
        np.testing.assert_array_equal(found, [[True, False], [False, True], [False, False]])
        assert scores.mask(scores.TRUTH).shape == scores.mask(scores.FOUND).shape == (8, 8)

    @pytest.mark.parametrize("drawing", ["#.\n#", "#x", ""])
    def test_a_drawing_that_is_none(self, drawing):
        with pytest.raises(ValueError, match="drawing: lines of one length wanted, of # and . only"):
            scores.mask(drawing)

    def test_the_counts_on_two_by_two(self):
        counts = scores.counts_by_hand(scores.mask("##\n.."), scores.mask("#.\n#."))
        assert set(counts.values()) == {1} and len(counts) == 4
        found = scores.scores_by_hand(**counts)
        assert found == pytest.approx(
            {"iou": 1 / 3, "dice": 1 / 2, "pixel_accuracy": 1 / 2, "mean_iou": 1 / 3}
        )

    @pytest.mark.parametrize("seed", [None, 0, 1, 2])
    def test_they_are_scikit_learns_and_keras_s(self, seed):
        drawn = scores.mask(scores.TRUTH), scores.mask(scores.FOUND)
        truth, found = drawn if seed is None else random_masks(seed)
        by_hand = scores.scores_by_hand(**scores.counts_by_hand(truth, found))
        flat = truth.ravel(), found.ravel()
        assert by_hand["iou"] == pytest.approx(jaccard_score(*flat))
        assert by_hand["dice"] == pytest.approx(f1_score(*flat))
        assert by_hand["pixel_accuracy"] == pytest.approx(accuracy_score(*flat))
        assert by_hand["mean_iou"] == pytest.approx(jaccard_score(*flat, average="macro"))
        metric = keras.metrics.MeanIoU(num_classes=2)
        metric.update_state(truth.astype("int32"), found.astype("int32"))
        assert by_hand["mean_iou"] == pytest.approx(float(metric.result()), abs=1e-6)

    def test_the_claim_is_demonstrated(self):
        result = scores.claim_7_1(lambda line: None)
        assert result.verdict == "holds" and result.interval is None and result.repetitions == 1
        assert sum(result.table["counts"].values()) == 64
        assert result.table["by_hand"] == pytest.approx(result.table["library"], abs=1e-12)

    def test_a_library_that_counts_otherwise_is_found_out(self, monkeypatch):
        monkeypatch.setattr(semantic, "dice", semantic.iou)
        assert scores.claim_7_1(lambda line: None).verdict == "not seen here"


# IoU (models, images): the first is steady, the second better on average and less steady.
STEADY_AND_NOT = np.array([[0.75, 0.75], [0.95, 0.57]])


def as_dice(iou):
    return 2 * iou / (1 + iou)


class TestFlips:
    def test_two_models_by_hand(self):
        iou, dice = STEADY_AND_NOT, as_dice(STEADY_AND_NOT)
        assert iou.mean(1)[1] > iou.mean(1)[0] and dice.mean(1)[1] < dice.mean(1)[0]
        assert scores.share_of_flips(iou.mean(1), dice.mean(1)) == 1
        assert scores._flips_to_the_steadier(iou, dice) == 1

    def test_the_share_is_kendalls(self):
        rng = np.random.default_rng(0)
        first, second = rng.normal(size=(2, 12))
        tau = stats.kendalltau(first, second).statistic
        assert scores.share_of_flips(first, second) == pytest.approx((1 - tau) / 2)

    def test_some_pairs_only(self):
        first, second = (
            np.array([1.0, 2, 3]),
            np.array([2.0, 1, 3]),
        )  # of the pairs 01, 02, 12 the first flips
        assert scores.share_of_flips(first, second) == pytest.approx(1 / 3)
        assert scores.share_of_flips(first, second, np.array([True, False, True])) == pytest.approx(1 / 2)

    def test_a_tie_is_no_flip(self):
        assert scores.share_of_flips(np.array([1.0, 1]), np.array([1.0, 2])) == 0

    def test_random_masks_agree_well_and_badly_and_are_ordered_alike(self):
        pairs = scores.random_masks(100)
        iou = np.array([semantic.iou(*pair) for pair in pairs])
        dice = np.array([semantic.dice(*pair) for pair in pairs])
        assert iou.min() < 0.45 and iou.max() > 0.9
        np.testing.assert_array_equal(np.argsort(iou, kind="stable"), np.argsort(dice, kind="stable"))
        assert scores._discordant_within_images(iou[:, None], dice[:, None]) == 0

    def test_another_order_within_an_image_is_counted(self):
        iou = np.array([[0.1, 0.5], [0.2, 0.5], [0.3, 0.6]])
        dice = iou.copy()
        dice[0, 0] = 0.25  # now above the second, still below the third
        assert scores._discordant_within_images(iou, dice) == 1

    def test_overlaps_are_those_of_each_picture(self):
        rng = np.random.default_rng(1)
        truths, founds = rng.random((2, 3, 9, 7)) < 0.5
        both, either = scores.overlaps(truths, founds)
        for k in range(3):
            assert both[k] / either[k] == pytest.approx(semantic.iou(truths[k], founds[k]))

    @pytest.mark.parametrize(
        ("verdict", "apart", "uneven"),
        [
            ("holds", 0.003, 0.25),  # twenty models as good as each other, some steady, some not
            ("holds when the models are close", 0.05, 0.25),
            ("not seen here", 0.1, 0.0),
        ],
    )
    def test_the_verdict_follows_the_numbers(self, monkeypatch, verdict, apart, uneven):
        result = self.claim_with(monkeypatch, apart, uneven)
        assert result.verdict == verdict
        assert ledger.interval(result.table["flips"]) == result.interval
        assert result.table["flips_of_pooled"] == [0.0] * result.repetitions  # pooled is the mean here

    def test_seldom_is_not_often(self, monkeypatch):
        result = self.claim_with(monkeypatch, 0.05, 0.08)
        assert 0 < result.interval.low and result.interval.mean < scores.OFTEN
        assert result.verdict.startswith("holds when two masks are ranked")

    def claim_with(self, monkeypatch, apart, uneven):
        """Claim 7.2 with made-up models whose mean IoU is `apart`, and who are up to `uneven` from image to image."""

        def made_up(model, seed):
            rng = np.random.default_rng(seed)
            noise = rng.normal(size=(20, 16)) * rng.uniform(0, uneven, (20, 1))
            noise -= noise.mean(1, keepdims=True)
            iou = np.clip(0.65 + apart * rng.normal(size=(20, 1)) + noise, 0.02, 1)
            return iou, as_dice(iou), iou.mean(1)

        monkeypatch.setattr(scores, "_cells_net", lambda: None)
        monkeypatch.setattr(scores, "_scores_of_models", made_up)
        return scores.claim_7_2(lambda line: None)


def picture_of_truth(sample):
    """A sample whose picture is its mask: a net that sees it can answer perfectly."""
    return dataclasses.replace(sample, image=sample.semantic[..., None].astype(np.float32))


class TestImbalance:
    def test_the_share_is_what_was_asked_and_the_cells_are_of_one_size(self):
        rare, common = list(scores.cells_at(0.001, 0)), list(scores.cells_at(0.1, 0))
        for samples, share in ((rare, 0.001), (common, 0.1)):
            assert np.mean([sample.semantic for sample in samples]) == pytest.approx(share, rel=0.05)
        sizes = [
            np.mean([np.bincount(sample.instances.ravel())[1:].mean() for sample in samples])
            for samples in (rare, common)
        ]
        assert sizes[0] == pytest.approx(sizes[1], rel=0.2)

    def test_the_exposure_is_that_of_ordinary_pictures(self):
        low, high = scores.exposure(0)
        values = np.concatenate([sample.image.ravel() for sample in scores.cells_at(0.3, 0)])
        assert np.mean(values < low) <= 0.01 and np.mean(values > high) <= 0.002 and 0 <= low < high <= 1

    @pytest.mark.parametrize(
        ("net", "verdict"),
        [
            (lambda model, images: images[..., 0], "holds when the model misses the rare class"),
            (lambda model, images: 0 * images[..., 0], "holds"),
        ],
        ids=["a perfect net", "a net that finds nothing"],
    )
    def test_the_verdict_follows_the_numbers(self, monkeypatch, net, verdict):
        def small(share, seed):
            return [picture_of_truth(cells("test", 1, 64, seed, radius=4.0, foreground=max(share, 0.003))[0])]

        monkeypatch.setattr(scores, "cells_at", small)
        monkeypatch.setattr(scores, "_cells_net", lambda: None)
        monkeypatch.setattr(scores, "foreground", net)
        result = scores.claim_7_3(lambda line: None)
        assert result.verdict == verdict
        assert len(result.table["flattery_grown"]) == result.repetitions == len(scores.DATA_SEEDS)
        for share in map(str, scores.SHARES):
            background = 1 - np.array(result.table["shares"][share])
            nothing = result.table["all_background"]
            np.testing.assert_allclose(nothing["pixel_accuracy"][share], background)
            np.testing.assert_allclose(nothing["mean_iou"][share], background / 2)

    def test_a_net_s_probabilities_of_foreground(self):
        model = recipes.CELLS.model()
        images = np.random.default_rng(0).random((3, 16, 24, 1)).astype("float32")
        found = scores.foreground(model, images)
        logits = keras.ops.convert_to_numpy(model(images, training=False)).astype(float)
        exponential = np.exp(logits)
        np.testing.assert_allclose(found, 1 - exponential[..., 0] / exponential.sum(-1), atol=1e-5)


class TestWhatLiesInTheResults:
    @pytest.mark.parametrize("claim", ["7.2", "7.3"])
    def test_it_was_measured_with_the_net_that_is_shipped(self, claim):
        assert ledger.read(claim).recipe == recipes.CELLS.digest

    def test_on_one_picture_the_order_was_always_the_same(self):
        masks = ledger.read("7.2").table["masks"]
        assert masks["rank_correlation"] == pytest.approx(1, abs=1e-12)
        assert masks["models_ranked_differently_on_one_image"] == 0
        assert masks["largest_difference_to_the_formula"] < 1e-12

    def test_the_shares_were_reached(self):
        shares = ledger.read("7.3").table["shares"]
        assert list(map(float, shares)) == list(scores.SHARES)
        for asked, reached in shares.items():
            assert np.mean(reached) == pytest.approx(float(asked), rel=0.1)
