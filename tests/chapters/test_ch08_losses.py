"""The table of losses (claims 7.4 to 7.6): trained in small here, and its verdicts on tables made up for the purpose."""

import json

import numpy as np
import pytest

from course_lib import training
from course_lib.chapters.ch08_losses_and_metrics import losses
from course_lib.teaching import ledger

SMALL = losses.Setting(
    size=16,
    pictures=6,
    chosen_on=4,
    reported_on=4,
    radius=(2.0, 3.0),
    base_filters=2,
    depth=1,
    steps=3,
    batch_size=2,
)


@pytest.fixture
def three(monkeypatch):
    """Three of the losses, without XLA: compiling all eight would take longer than all the rest."""
    everything = losses.candidates
    some = ("cross-entropy", "Dice", "focal")
    monkeypatch.setattr(losses, "candidates", lambda: {name: everything()[name] for name in some})
    monkeypatch.setattr(training, "JIT", False)


def made_up(cross_entropy, best, dice, focal, chosen=None):
    """A table of two shares in which cross-entropy, Lovász, Dice and Jaccard, and focal have these IoUs, others 0.1."""
    given = {"cross-entropy": cross_entropy, "Lovász": best, "Dice": dice, "Jaccard": dice, "focal": focal}
    names = list(losses.candidates())
    wobble = np.array([-0.002, 0.0, 0.002])
    iou = {
        name: {
            str(share): (np.array(given.get(name, (0.1, 0.1))[k]) + wobble * (1 + (name == "focal"))).tolist()
            for k, share in enumerate((0.3, 0.005))
        }
        for name in names
    }
    after = iou if chosen is None else {name: dict.fromkeys(("0.3", "0.005"), chosen) for name in names}
    return {"losses": names, "shares": [0.3, 0.005], "seeds": [0, 1, 2], "iou": iou, "iou_chosen": after}


class TestScores:
    def test_by_hand(self):
        truth = np.array([[[1, 1, 0, 0]]])
        scores = losses.pooled_scores(np.array([[[0.9, 0.2, 0.7, 0.1]]]), truth, 0.5)
        assert scores == {"iou": 1 / 3, "precision": 1 / 2, "recall": 1 / 2, "accuracy": 1 / 2}

    def test_nothing_found_and_nothing_there(self):
        empty = np.zeros((1, 2, 2))
        assert losses.pooled_scores(empty, empty.astype(int), 0.5)["iou"] == 0

    def test_the_best_threshold_separates(self):
        probabilities = np.array([[[0.05, 0.12, 0.31, 0.33]]])
        assert 0.12 < losses.best_threshold(probabilities, np.array([[[0, 0, 1, 1]]])) <= 0.31


class TestTable:
    def test_a_stopped_table_goes_on_and_the_same_seeds_give_the_same(self, tmp_path, three):
        lines = []
        arguments = {"setting": SMALL, "shares": (0.3, 0.1), "seeds": (0,)}
        found = losses.table(lines.append, folder=tmp_path, **arguments)
        trainings = 2 * len(losses.candidates())
        assert len(lines) == trainings and "seed 0, share 0.3, cross-entropy: IoU" in lines[0]
        for measure in ("iou", "precision", "recall", "accuracy", "iou_chosen", "threshold"):
            values = [
                found[measure][name][str(share)] for name in found["losses"] for share in found["shares"]
            ]
            assert np.shape(values) == (trainings, 1) and np.all(
                (0 <= np.array(values)) & (np.array(values) <= 1)
            )

        (path,) = tmp_path.iterdir()
        kept = json.loads(path.read_text())
        # Two are taken away that come after others: a fresh start must not remember what was trained before it.
        for key in ("Dice/0.1/0", "focal/0.3/0"):
            del kept[key]
        path.write_text(json.dumps(kept))
        lines.clear()
        again = losses.table(lines.append, folder=tmp_path, **arguments)
        assert [line.split(":")[0] for line in lines] == [
            "seed 0, share 0.3, focal",
            "seed 0, share 0.1, Dice",
        ]
        for measure in ("iou", "accuracy"):
            for name in ("Dice", "focal"):
                for share in ("0.3", "0.1"):
                    assert again[measure][name][share] == pytest.approx(found[measure][name][share], abs=0.02)

    def test_another_setting_is_another_table(self):
        assert SMALL.digest != losses.Setting().digest

    def test_losses_that_differ_train_differently(self, tmp_path, three):
        found = losses.table(lambda line: None, setting=SMALL, shares=(0.3,), seeds=(1,), folder=tmp_path)
        ious = [found["iou"][name]["0.3"][0] for name in found["losses"]]
        assert len(set(ious)) > 1


class TestVerdicts:
    def test_cross_entropy_near_the_best_everywhere(self):
        result = losses.general_choice(made_up((0.8, 0.6), (0.8, 0.605), (0.7, 0.5), (0.7, 0.5)))
        assert result.verdict == "holds" and -0.02 < result.interval.low

    def test_cross_entropy_far_behind_where_it_is_sparse(self):
        result = losses.general_choice(made_up((0.8, 0.3), (0.8, 0.6), (0.7, 0.5), (0.7, 0.5)))
        assert result.verdict == "holds when at least 30 % of the pixels are foreground"
        assert result.interval.mean == pytest.approx(-0.3) and "behind Lovász" in result.teacher

    def test_cross_entropy_behind_everywhere(self):
        result = losses.general_choice(made_up((0.5, 0.3), (0.8, 0.6), (0.7, 0.5), (0.7, 0.5)))
        assert result.verdict == "not seen here"

    def test_dice_better_and_better_at_any_threshold(self):
        found = made_up((0.8, 0.3), (0.8, 0.3), (0.7, 0.5), (0.7, 0.3))
        result = losses.against_cross_entropy(found, "7.5", "s", ("Dice", "Jaccard"), "Dice")
        assert result.verdict == "holds" and result.interval.mean == pytest.approx(0.2)

    def test_dice_better_only_at_one_half(self):
        found = made_up((0.8, 0.3), (0.8, 0.3), (0.7, 0.5), (0.7, 0.3), chosen=[0.5, 0.5, 0.5])
        result = losses.against_cross_entropy(found, "7.5", "s", ("Dice", "Jaccard"), "Dice")
        assert result.verdict == "holds when the threshold stays at 0.5"

    def test_focal_worse(self):
        found = made_up((0.8, 0.5), (0.8, 0.5), (0.7, 0.5), (0.9, 0.3))
        result = losses.against_cross_entropy(found, "7.6", "s", ("focal",), "focal loss")
        assert (
            result.verdict == "not seen here"
            and "is worse" in result.teacher
            and "better at 30 %" in result.teacher
        )

    @pytest.mark.parametrize("claim", ["7.4", "7.5", "7.6"])
    def test_the_committed_result_is_what_its_table_says(self, claim):
        if claim in ledger.NOT_YET:
            pytest.skip(f"claim {claim} has no result yet")
        result = ledger.read(claim)
        made = {
            "7.4": lambda: losses.general_choice(result.table),
            "7.5": lambda: losses.against_cross_entropy(
                result.table, "7.5", result.statement, ("Dice", "Jaccard"), "the mean of Dice and Jaccard"
            ),
            "7.6": lambda: losses.against_cross_entropy(
                result.table, "7.6", result.statement, ("focal",), "focal loss"
            ),
        }[claim]()
        assert (made.verdict, made.teacher, made.interval) == (
            result.verdict,
            result.teacher,
            result.interval,
        )
        assert result.recipe == losses.Setting().digest
