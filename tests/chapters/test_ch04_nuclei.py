"""The crops of nuclei, what is scored on them, and claims 3.1, 3.3, 3.4 and 5.2 with runs that are made up."""

import numpy as np
import pytest

from course_lib.chapters.ch04_unet_decoder import claims_on_nuclei as claims
from course_lib.chapters.ch04_unet_decoder import nuclei_crops
from course_lib.teaching.experiments import Experiment, batches, key

pytestmark = pytest.mark.backend


@pytest.fixture
def crop():
    """A small nucleus alone, one that the edge cuts, and two that touch."""
    instances = np.zeros((64, 64), int)
    instances[10:16, 40:46] = 3
    instances[0:9, 0:9] = 5
    instances[30:50, 10:22], instances[30:50, 22:40] = 7, 9
    return instances


def perfect(labels, classes):
    return 9.0 * np.eye(classes, dtype="float32")[labels]


class TestScores:
    def test_the_ground_truth_scores_one(self, crop):
        logits = perfect(claims.labels_of(crop, "border class"), 3)[None]
        found = nuclei_crops.measured(logits, crop[None], 0.5, 0.5)
        assert found["ap_50"] == found["recall_touching"] == found["recall_under 8"] == 1
        assert found["boundary_f1_1"] == found["recall_16 and more"] == 1

    def test_merged_nuclei_count_against_those_that_touch_alone(self, crop):
        found = nuclei_crops.measured(perfect((crop > 0).astype(int), 2)[None], crop[None], 0.5, 0.5)
        assert found["recall_touching"] <= 0.5 and found["recall_alone"] == 1

    def test_kinds(self, crop):
        kinds, hit = nuclei_crops.found_by_kind(crop, np.where(crop == 7, 1, 0))
        assert hit.tolist() == [False, False, True, False]
        assert kinds["touching"].tolist() == [False, False, True, True]
        assert kinds["under 8"].tolist() == [True, False, False, False]  # what the edge cuts has no size
        assert kinds["8 to 16"].tolist() == [False, False, True, False]
        assert kinds["16 and more"].tolist() == [False, False, False, True]


class TestContestants:
    def test_labels_differ_in_the_border_alone(self, crop):
        three, foreground, separated = (
            claims.labels_of(crop, name) for name in ("border class", "foreground", "separated")
        )
        assert ((foreground != separated) == ((three == 2) & (crop > 0))).all() and (three == 2).any()
        assert ((separated == 1) == (three == 1)).all()

    def test_weights_move_with_their_images(self, crop):
        images = np.random.default_rng(0).random((3, 64, 64, 1)).astype("float32")
        labels = (images[..., 0] > 0.5).astype(int)
        drawn = list(claims.weighted(images[..., 0])(images, labels, 4, 2, 7))
        for (x, y, w), (same, truth) in zip(drawn, batches(images, labels, 4, 2, 7), strict=True):
            np.testing.assert_array_equal(x, same)
            np.testing.assert_array_equal(y, truth)
            np.testing.assert_array_equal(w, x[..., 0])

    def test_changes(self):
        images = np.random.default_rng(0).random((3, 64, 64, 1)).astype("float32")
        labels = (images[..., 0] > 0.5).astype(int)
        none, elastic = (
            next(claims.drawing(name, 4)(images, labels, 1, 8, 0)) for name in ("none", "elastic")
        )
        assert all(any(np.array_equal(x, one) for one in images) for x in none[0])
        assert not any(np.array_equal(x, one) for x in elastic[0] for one in images)
        assert elastic[0].shape == (8, 64, 64, 1) and elastic[1].shape == (8, 64, 64)
        assert elastic[1].dtype == labels.dtype and set(np.unique(elastic[1])) == {0, 1}

    def test_networks_are_equally_large_within_two_percent(self):
        counts = {}
        for name in {one.network for one in claims.CONTESTANTS.values()}:
            model = claims.build(name, (64, 64, 1), 3)
            counts[name] = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
        assert all(abs(count / counts["U-Net"] - 1) < 0.02 for count in counts.values()), counts


GAIN = {"elastic": 0.05, "no changes": -0.1, "border weights": 0.1, "U-Net": 0.0, "separated": 0.01}


def made_up(run, low=0.0):
    rng = np.random.default_rng([run["images"], run["seed"], len(run["contestant"])])
    at = 0.6 - low + GAIN.get(run["contestant"], -0.05) + 0.002 * rng.normal() - 0.01 * run["own"]
    names = ("ap_mean", "recall_touching", "boundary_f1_2", "recall_under 8")
    return {"val": at + (run["rate"] == 2e-2), "reported": dict.fromkeys(names, at) | {"ap_50": at}}


def all_runs(**more):
    done = {}
    while left := [run for run in claims.plan(done) if key(run) not in done]:
        done[key(left[0])] = made_up(left[0], **more)
    return done


class TestClaims:
    def test_the_plan_begins_with_the_tuning_of_the_first_claim_and_knows_its_length(self):
        first = claims.plan({})
        assert {run["seed"] for run in first} == {claims.TUNING_SEED}
        assert [run["contestant"] for run in first[:9:3]] == ["U-Net", "elastic", "no changes"]
        done = all_runs()
        beyond = sum("rate=0.06" in name for name in done if f"seed={claims.TUNING_SEED}" in name)
        assert len(done) - beyond == claims.EXPERIMENT.total

    def test_verdicts_follow_from_the_runs(self, monkeypatch):
        done = all_runs()
        monkeypatch.setattr(Experiment, "results", lambda self, folder=None: done)
        found = {claim: getattr(claims, f"claim_{claim.replace('.', '_')}")() for claim in claims.CELLS}
        assert {one.missing for one in found.values()} == {0}
        assert found["3.3"].comparisons["4 crops"]["mean"] == pytest.approx(0.03, abs=0.005)
        assert {one.verdict for one in found.values()} == {"supported"}
        assert len(found["5.2"].table["FCN-32s, 64"]) == len(claims.SEEDS)

    def test_no_verdict_from_networks_that_have_not_learned(self, monkeypatch):
        done = all_runs(low=0.3)
        monkeypatch.setattr(Experiment, "results", lambda self, folder=None: done)
        for claim in claims.CELLS:
            result = getattr(claims, f"claim_{claim.replace('.', '_')}")()
            assert result.verdict == "undecided" and "not learned" in result.reason

    def test_without_runs_each_claim_waits(self, monkeypatch):
        monkeypatch.setattr(Experiment, "results", lambda self, folder=None: {})
        for claim, cells in claims.CELLS.items():
            result = getattr(claims, f"claim_{claim.replace('.', '_')}")()
            contestants = {name for name, _ in cells}
            assert result.verdict == "undecided"
            assert result.missing == 5 * len(cells) + 3 * len(contestants)
