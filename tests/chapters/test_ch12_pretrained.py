"""Chapter 12: what its small networks learn from and are judged by, and the experiment of claim 8.1."""

import numpy as np
import pytest

from course_lib.chapters.ch12_pretrained_and_after import claim_8_1, small_networks
from course_lib.teaching.experiments import Experiment, key


class Truth:
    """A sample with a disc-like square of class 2 and one of class 5."""

    instances = np.zeros((64, 64), int)
    instances[4:12, 4:12], instances[30:50, 30:50] = 1, 2
    classes = np.array([2, 5])
    image = np.zeros((64, 64, 1))


def found(*objects):
    masks = np.zeros((len(objects), 64, 64), bool)
    for mask, (_, rows, columns) in zip(masks, objects):
        mask[slice(*rows), slice(*columns)] = True
    kinds = np.array([kind for kind, _, _ in objects], int)
    return {"classes": kinds, "masks": masks, "scores": np.linspace(0.9, 0.5, len(objects))}


def test_each_object_counts_once_and_by_its_class():
    right, large = (2, (4, 12), (4, 12)), (5, (30, 50), (30, 50))
    assert small_networks.counted(found(right, large), Truth, 0.5) == (2, 0, 0)
    assert small_networks.counted(found(right, right), Truth, 0.5) == (1, 1, 1)  # a duplicate is false
    assert small_networks.counted(found((5, *right[1:])), Truth, 0.5) == (0, 1, 2)  # and so is another class
    shifted = (2, (4, 12), (6, 14))  # overlap 6 × 8 of 10 × 8
    assert small_networks.counted(found(shifted), Truth, 0.5) == (1, 0, 1)
    assert small_networks.counted(found(shifted), Truth, 0.75) == (0, 1, 2)
    assert small_networks.counted(found(), Truth, 0.5) == (0, 0, 2)


def test_precision_and_its_interval():
    counts = np.array([[2, 0, 0], [1, 1, 1], [0, 0, 1]])
    assert small_networks.precision(counts) == pytest.approx(3 / 6)
    many = np.repeat(counts, 40, axis=0)
    interval = small_networks.interval_of(small_networks.precision, many)
    assert interval.low < 0.5 < interval.high and interval.high - interval.low < 0.3
    same = small_networks.interval_of(
        lambda a, b: small_networks.precision(a) - small_networks.precision(b), many, many
    )
    assert (same.low, same.mean, same.high) == (0, 0, 0)  # drawn alike


def test_what_a_network_of_queries_learns_from():
    ids, masks = small_networks.objects_of(Truth.instances, Truth.classes)
    assert ids.tolist() == [2, 5, 0, 0] and masks.shape == (4, 32, 32)
    assert masks.sum((1, 2)).tolist() == [16, 100, 0, 0]
    images, (classes, _) = next(small_networks.query_batches(small_networks.scenes("train", 6), 1, 0))
    assert images.shape == (8, 64, 64, 3) and (classes > 0).any(1).all()


def test_a_prompt_lies_on_its_object():
    for samples in (small_networks.scenes("val", 4), small_networks.cells("val", 4)):
        (images, points), masks = next(small_networks.prompt_batches(samples, 1, 0))
        assert images.shape == (8, 64, 64, 3) and points.shape == (8, 4, 2)
        x, y = points[..., 0].astype(int), points[..., 1].astype(int)
        assert np.take_along_axis(masks.reshape(8, 4, -1), (y * 64 + x)[..., None], -1).all()


class TestClaim:
    def run_of(self, ap):
        scores = {"ap_mean": ap, "ap_50": ap + 0.2}
        return {"val": ap, "untrained": 0.0, "reported": scores, "curve": [], "nuclei": 9}

    def made_up(self, gain):
        """All runs; a pretrained encoder gains `gain` with 8 images and nothing with more."""
        rng, done = np.random.default_rng(0), {}
        for contestant in claim_8_1.CONTESTANTS:
            for run in claim_8_1.tuning(contestant, {})[0]:
                done[key(run)] = self.run_of(0.5 + 0.1 * (run["rate"] == 1e-3))
        for run in claim_8_1.plan(done):
            ap = 0.5 + 0.01 * rng.normal() + gain * (run["contestant"] != "scratch") * (run["images"] == 8)
            done.setdefault(key(run), self.run_of(ap))
        return done

    def test_the_plan_tunes_first_and_then_runs_the_best_rate(self):
        runs = claim_8_1.plan({})
        assert len(runs) == 9 and {run["seed"] for run in runs} == {claim_8_1.TUNING_SEED}
        runs = claim_8_1.plan(self.made_up(0.0))
        assert len(runs) == claim_8_1.EXPERIMENT.total == 54
        assert {run["rate"] for run in runs[9:]} == {1e-3} and runs[9]["images"] == 8
        assert len(claim_8_1.CONTROL.plan({})) == 3

    @pytest.mark.parametrize(
        ("gain", "verdict"),
        [(0.2, "supported when: fine-tuned on 8 images and frozen on 8 images"), (-0.2, "undecided")],
    )
    def test_the_verdict(self, monkeypatch, gain, verdict):
        done = self.made_up(gain)
        monkeypatch.setattr(
            Experiment, "results", lambda self, folder=None: done if self.name == "pretrained" else {}
        )
        result = claim_8_1.claim_8_1()
        assert result.verdict == verdict and result.missing == 0
        assert result.comparisons["frozen on 8 images"]["mean"] == pytest.approx(gain, abs=0.02)
        assert all(gate["passed"] for gate in result.gate.values())

    def test_without_runs_it_waits(self, monkeypatch):
        monkeypatch.setattr(Experiment, "results", lambda self, folder=None: {})
        result = claim_8_1.claim_8_1()
        assert result.verdict == "undecided" and result.missing == 54
