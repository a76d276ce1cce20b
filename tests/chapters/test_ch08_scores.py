"""The experiments on metrics: counting by hand, flips of two means, and imbalance."""

import keras
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, jaccard_score

from course_lib.chapters.ch08_losses_and_metrics import claim_7_1, scores
from course_lib.metrics import semantic


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
        counts = claim_7_1.counts_by_hand(scores.mask("##\n.."), scores.mask("#.\n#."))
        assert set(counts.values()) == {1} and len(counts) == 4
        found = claim_7_1.scores_by_hand(**counts)
        assert found == pytest.approx(
            {"iou": 1 / 3, "dice": 1 / 2, "pixel_accuracy": 1 / 2, "mean_iou": 1 / 3}
        )

    @pytest.mark.parametrize("seed", [None, 0, 1, 2])
    def test_they_are_scikit_learns_and_keras_s(self, seed):
        drawn = scores.mask(scores.TRUTH), scores.mask(scores.FOUND)
        truth, found = drawn if seed is None else random_masks(seed)
        by_hand = claim_7_1.scores_by_hand(**claim_7_1.counts_by_hand(truth, found))
        flat = truth.ravel(), found.ravel()
        assert by_hand["iou"] == pytest.approx(jaccard_score(*flat))
        assert by_hand["dice"] == pytest.approx(f1_score(*flat))
        assert by_hand["pixel_accuracy"] == pytest.approx(accuracy_score(*flat))
        assert by_hand["mean_iou"] == pytest.approx(jaccard_score(*flat, average="macro"))
        metric = keras.metrics.MeanIoU(num_classes=2)
        metric.update_state(truth.astype("int32"), found.astype("int32"))
        assert by_hand["mean_iou"] == pytest.approx(float(metric.result()), abs=1e-6)

    def test_the_claim_is_demonstrated(self):
        result = claim_7_1.claim_7_1()
        assert result.verdict == "demonstrated" and result.interval is None and result.repetitions == 1
        assert sum(result.table["counts"].values()) == 64
        assert result.table["by_hand"] == pytest.approx(result.table["library"], abs=1e-12)

    def test_a_library_that_counts_otherwise_is_found_out(self, monkeypatch):
        monkeypatch.setattr(semantic, "dice", semantic.iou)
        with pytest.raises(AssertionError, match="the library's scores are off"):
            claim_7_1.claim_7_1()


def test_random_masks_agree_well_and_badly_and_are_ordered_alike():
    pairs = scores.random_masks(100)
    iou = np.array([semantic.iou(*pair) for pair in pairs])
    dice = np.array([semantic.dice(*pair) for pair in pairs])
    assert iou.min() < 0.45 and iou.max() > 0.9
    np.testing.assert_array_equal(np.argsort(iou, kind="stable"), np.argsort(dice, kind="stable"))
