"""Experiments run by run: kept, resumed after a kill, made again where what defines them has changed."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from course_lib import resources
from course_lib.teaching.experiments import Experiment, Trainee, batches, fingerprint, key, rounded


def tiny(seeds=4, **changes) -> Experiment:
    def measure(seed, loss):
        return {"score": np.random.default_rng([seed, len(loss)]).random(), "loss": loss}

    def plan(done):
        tuning = [{"seed": 100, "loss": loss} for loss in ("dice", "focal")]
        if any(key(run) not in done for run in tuning):
            return tuning
        best = max(tuning, key=lambda run: done[key(run)]["score"])["loss"]
        return tuning + [{"seed": seed, "loss": best} for seed in range(seeds)]

    return replace(Experiment("tiny", 1, measure, plan, lambda: "data1"), **changes)


def quiet(*_):
    pass


def test_each_run_is_kept_and_the_plan_may_depend_on_the_runs_before(tmp_path):
    experiment, told = tiny(), []
    assert experiment.run(folder=tmp_path, progress=lambda *line: told.append(line)) == 6
    assert experiment.missing(tmp_path) == [] and len(experiment.results(tmp_path)) == 6
    assert experiment.run(folder=tmp_path, progress=quiet) == 0
    chosen = {run["loss"] for name, run in experiment.results(tmp_path).items() if "seed=100" not in name}
    assert len(chosen) == 1
    content = json.loads((tmp_path / "tiny" / "seed=100,loss=dice.json").read_text())
    assert content["arguments"] == {"seed": 100, "loss": "dice"} and content["version"] == 1
    assert [line[1:3] for line in told] == [(1, 2), (2, 2), (3, 6), (4, 6), (5, 6), (6, 6)]


def test_a_new_version_or_other_data_makes_runs_stale(tmp_path):
    tiny().run(folder=tmp_path, progress=quiet)
    for changed in (tiny(version=2), tiny(data=lambda: "data2")):
        assert changed.results(tmp_path) == {}
        assert changed.status(tmp_path)["stale"] == changed.status(tmp_path)["missing"] == 2
    changed.run(folder=tmp_path, progress=quiet)
    assert changed.status(tmp_path)["stale"] == 0 and tiny().results(tmp_path) == {}


def test_minutes_stop_between_runs_and_status_says_what_is_left(tmp_path):
    experiment = tiny()
    assert experiment.run(minutes=0, folder=tmp_path, progress=quiet) == 0
    assert experiment.status(tmp_path) == {
        "experiment": "tiny", "done": 0, "missing": 2, "stale": 0, "minutes": None,
    }  # fmt: skip
    slow = tiny(measure=lambda seed, loss: time.sleep(0.4) or {"score": 0.0})
    assert slow.run(minutes=0.5 / 60, folder=tmp_path, progress=quiet) == 2


SCRIPT = """
import sys, time, pathlib
import numpy as np
from course_lib.teaching.experiments import Experiment
def measure(seed):
    time.sleep(0.15)
    return {"score": np.random.default_rng(seed).normal(size=3)}
plan = lambda done: [{"seed": seed} for seed in range(8)]
Experiment("killed", 1, measure, plan).run(folder=pathlib.Path(sys.argv[1]))
"""


def test_a_killed_experiment_goes_on_and_gives_what_an_uninterrupted_one_gives(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(resources.PACKAGE.parent)}

    def start(folder):
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / folder)]
        return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)

    whole, killed = start("whole"), start("killed")
    runs = tmp_path / "killed" / "killed"
    while len(list(runs.glob("seed*.json"))) < 3 and killed.poll() is None:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = {path.name: path.stat().st_mtime_ns for path in runs.glob("seed*.json")}
    assert 3 <= len(before) < 8
    assert start("killed").wait() == whole.wait() == 0

    def results(folder):
        paths = (tmp_path / folder / "killed").glob("seed*.json")
        return {path.name: json.loads(path.read_text())["result"] for path in paths}

    assert results("killed") == results("whole") and len(results("whole")) == 8
    assert all((runs / name).stat().st_mtime_ns == when for name, when in before.items())


def test_keys_fingerprints_and_rounding():
    assert key({"loss": "ce", "rate": 1e-3, "seed": 0}) == "loss=ce,rate=0.001,seed=0"
    ones = np.ones((2, 2), "float32")
    assert fingerprint(ones) == fingerprint(ones.copy()) != fingerprint(ones.astype("float64"))
    assert fingerprint(ones) != fingerprint(ones.reshape(4))
    found = rounded({1: np.float32(0.123456789), "a": (np.int64(3), True, None)})
    assert json.loads(json.dumps(found)) == {"1": 0.12346, "a": [3, True, None]}


@pytest.mark.backend
class TestTrainee:
    def made(self):
        import keras

        from course_lib import losses
        from course_lib.models.unet import unet

        keras.utils.set_random_seed(7)  # whatever came before
        return Trainee(lambda: unet((8, 8, 1), 2, 2, 1, normalization="batch"), losses.CrossEntropy())

    def data(self):
        labels = np.zeros((12, 8, 8), "int32")
        labels[:, 2:6, 3:7] = 1
        return labels[..., None] * 0.8 + np.random.default_rng(0).random((12, 8, 8, 1)).astype(
            "float32"
        ) * 0.2, labels

    @pytest.mark.slow
    def test_a_network_used_again_gives_what_a_new_one_gives(self):
        images, labels = self.data()
        first, again = self.made(), self.made()
        again.start(1)
        again.train(images, labels, 5, 4, 1e-2, seed=1)
        logits = []
        for one in (first, again):
            one.start(0)
            curve = one.train(images, labels, 12, 4, 1e-2, seed=0, score=lambda: 0.5, scored=3)
            logits.append(one.logits(images))
        np.testing.assert_allclose(*logits, atol=1e-5)
        assert curve == [(4, 0.5), (8, 0.5), (12, 0.5)]

    def test_a_loss_that_is_not_finite_says_so(self):
        images, labels = self.data()
        one = self.made()
        one.start(0)
        with pytest.raises(FloatingPointError, match="the loss is nan at step 0"):
            one.train(images * np.nan, labels, 3, 4, 1e-2, seed=0)


def test_batches_are_the_same_for_every_contestant_and_turn_image_and_labels_together():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (6, 4, 4)).astype("int32")
    images = labels[..., None].astype("float32")
    one, other = (list(batches(images, labels, 5, 3, seed=2)) for _ in range(2))
    for (a, b), (c, d) in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)
        np.testing.assert_array_equal(a[..., 0], b)
