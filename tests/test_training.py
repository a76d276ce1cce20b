"""Recipes, checkpoints, and a training that survives being killed."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from course_lib import checkpoints, files, hardware, recipes, training
from course_lib.datasets.augmentation import Augmentation
from course_lib.losses import CrossEntropy, Dice
from course_lib.schedules import CosineCycles
from course_lib.segmenter import Segmenter
from course_lib.tasks import Borders, Objects

pytestmark = pytest.mark.backend

TINY = recipes.Recipe(
    name="tiny",
    title="for tests",
    dataset="cells",
    train_data={"length": 8, "size": 32, "seed": 5},
    val_data={"length": 3, "size": 32, "seed": 5},
    network_arguments={"base_filters": 4, "depth": 2, "normalization": "batch"},
    task=Borders(
        choices={"seed_threshold": (0.3, 0.5), "mask_threshold": (0.5,), "min_size": (5,)},
        choose_by="ap_mean",
    ),
    augmentation=Augmentation(flip=True, turn=True),
    loss=CrossEntropy() + 0.5 * Dice(),
    epochs=4,
    steps=3,
    batch_size=2,
    crop=(32, 32),
)


def weights_of(root):
    with np.load(checkpoints.folder(TINY, root) / "weights.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module", autouse=True)
def numpy_draws_the_first_weights():
    """Not here: some of these trainings run in a process of their own and have to begin with the same weights."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The tiny recipe, trained without a break."""
    root = tmp_path_factory.mktemp("trained")
    return root, training.train(TINY, runs=root / "runs", root=root, progress=False)


class TestRecipe:
    def test_digest_changes_with_what_the_weights_depend_on(self):
        for change in (
            {"seed": 1},
            {"epochs": 5},
            {"crop": (16, 16)},
            {"loss": Dice()},
            {"augmentation": Augmentation()},
        ):
            assert dataclasses.replace(TINY, **change).digest != TINY.digest, change

    def test_digest_stays_where_the_weights_do(self):
        for change in ({"title": "other"}, {"task": Borders()}, {"val_data": {"length": 5}}):
            assert dataclasses.replace(TINY, **change).digest == TINY.digest, change

    def test_unknown_recipe_lists_those_there_are(self):
        with pytest.raises(ValueError, match="recipe is 'unet-cats'; there are unet-cells"):
            recipes.get("unet-cats")

    def test_same_seed_same_initial_weights(self):
        first, second = (TINY.model().get_weights() for _ in range(2))
        for a, b in zip(first, second):
            np.testing.assert_array_equal(a, b)

    def test_learning_rate_climbs_and_falls_to_zero(self):
        schedule = dataclasses.replace(TINY, epochs=10, steps=20, warmup=0.1).optimizer()._learning_rate
        rates = [float(schedule(step)) for step in (0, 10, 20, 110, 199)]
        assert rates[0] < rates[1] < rates[2] == pytest.approx(TINY.learning_rate, rel=1e-3)
        assert rates[2] > rates[3] > rates[4] < 0.01 * TINY.learning_rate

    def test_without_a_restart_it_is_keras_s_cosine_decay(self):
        ours = CosineCycles(2e-3, [100], warmup=10)
        keras_s = keras.optimizers.schedules.CosineDecay(2e-5, 90, warmup_target=2e-3, warmup_steps=10)
        for step in (0, 1, 9, 10, 11, 50, 99, 100, 200):
            assert float(ours(step)) == pytest.approx(float(keras_s(step)), rel=1e-4, abs=1e-10)

    def test_each_restart_is_half_as_high_as_the_one_before(self):
        ours = CosineCycles(1.0, [100, 50, 25])
        keras_s = keras.optimizers.schedules.CosineDecayRestarts(1.0, 100, t_mul=0.5, m_mul=0.5)
        for step in (0, 30, 99, 100, 120, 149, 150, 170):
            assert float(ours(step)) == pytest.approx(float(keras_s(step)), rel=1e-3, abs=1e-4)
        assert float(ours(175)) == float(ours(1000)) == 0

    def test_the_first_cycle_is_that_of_the_recipe_without_restart(self):
        """So a finished training can go on: up to the restart nothing has changed."""
        once = dataclasses.replace(TINY, epochs=4, steps=10)
        twice = dataclasses.replace(once, epochs=6, restarts=(4,))
        assert once.digest != twice.digest
        one, two = (recipe.optimizer()._learning_rate for recipe in (once, twice))
        assert [float(one(step)) for step in range(40)] == [float(two(step)) for step in range(40)]
        assert float(two(40)) == pytest.approx(0.5 * TINY.learning_rate) and float(two(59)) < float(two(45))

    @pytest.mark.parametrize("lengths", [[], [0], [10, 0], [5]])
    def test_cycles_that_cannot_be(self, lengths):
        with pytest.raises(ValueError, match="give at least one cycle"):
            CosineCycles(1.0, lengths, warmup=5)

    def test_a_schedule_survives_saving(self):
        ours = CosineCycles(1e-3, [10, 5], warmup=2)
        again = CosineCycles.from_config(ours.get_config())
        assert [float(again(step)) for step in range(15)] == [float(ours(step)) for step in range(15)]

    @pytest.mark.parametrize("recipe", recipes.RECIPES.values(), ids=lambda recipe: recipe.name)
    def test_every_recipe_builds(self, recipe):
        model = recipe.model()
        assert model.count_params() * 2 < 16e6  # float16, as it is committed
        classes = len(recipe.class_names())
        if isinstance(recipe.task, Objects):
            assert model.num_classes == classes and recipe.loss is None
        else:
            assert model.output_shape[-1] == classes
            assert (
                recipe.loss_or_default()(np.zeros((1, 4, 4), int), np.zeros((1, 4, 4, classes), "float32"))
                > 0
            )


class TestTraining:
    def test_card_says_where_it_comes_from(self, trained):
        root, card = trained
        assert card["digest"] == TINY.digest and card["backend"] == keras.backend.backend()
        assert card["epochs"] == len(card["history"]["loss"]) == len(card["history"]["val_loss"]) == 4
        assert card["history"]["loss"][-1] < card["history"]["loss"][0]
        assert card["parameters"] == TINY.model().count_params()
        assert set(card["thresholds"]) == {"seed_threshold", "mask_threshold", "min_size"}

    def test_stopped_and_resumed_is_the_same_as_never_stopped(self, trained, tmp_path):
        root, card = trained
        runs, calls = tmp_path / "runs", 0
        while True:
            calls += 1
            try:
                resumed = training.train(TINY, runs=runs, root=tmp_path, minutes=1e-9, progress=False)
                break
            except training.Interrupted as stop:
                assert f"after epoch {calls} of 4" in str(stop)
        assert calls == 4
        assert resumed["history"]["loss"] == pytest.approx(card["history"]["loss"], rel=1e-4)
        for name, expected in weights_of(root).items():
            np.testing.assert_allclose(
                weights_of(tmp_path)[name], expected, rtol=0.02, atol=2e-3, err_msg=name
            )

    def test_killed_in_the_middle_goes_on(self, trained, tmp_path):
        """A real SIGKILL, some time after the first epoch's state appears."""
        root, card = trained
        script = tmp_path / "run.py"
        script.write_text(
            "import sys, time, keras\n"
            f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            "from pathlib import Path\n"
            "from test_training import TINY, training\n"
            "slow = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: time.sleep(0.3))\n"
            f"training.train(TINY, runs=Path({str(tmp_path / 'runs')!r}), root=Path({str(tmp_path)!r}), "
            "callbacks=(slow,), progress=False)\n"
        )
        process = subprocess.Popen(
            [sys.executable, script], env=os.environ | {"PYTHONPATH": str(checkpoints.FOLDER.parents[1])}
        )
        state = tmp_path / "runs" / f"tiny-{TINY.digest}" / "state.json"
        deadline = time.monotonic() + 180
        while not state.is_file():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = json.loads(state.read_text())["epoch"]
        assert 1 <= done < 4
        assert not (tmp_path / "tiny").exists()
        resumed = training.train(TINY, runs=tmp_path / "runs", root=tmp_path, progress=False)
        assert len(resumed["history"]["loss"]) == 4
        assert resumed["history"]["loss"] == pytest.approx(card["history"]["loss"], rel=1e-3)

    def test_a_finished_run_trains_no_more(self, trained):
        root, card = trained
        again = training.train(TINY, runs=root / "runs", root=root, progress=False)
        assert again["history"] == card["history"] and again["val"] == card["val"]

    def test_a_loss_that_is_not_finite_ends_it_and_keeps_nothing(self, tmp_path):
        # A step as long as a number can be: the next forward pass overflows.
        wild = dataclasses.replace(TINY, learning_rate=1e38, warmup=0.0)
        with pytest.raises(
            training.Diverged, match=r"tiny: in epoch 1 .*steps were left out.*lower learning_rate"
        ):
            training.train(wild, runs=tmp_path / "runs", root=tmp_path, progress=False)
        assert not list(tmp_path.rglob("*.weights.h5")) and not list(tmp_path.rglob("card.json"))

    def test_progress_is_lines_where_nobody_watches(self, tmp_path, capsys):
        recipe = dataclasses.replace(TINY, name="short", epochs=1, steps=1)
        training.train(recipe, runs=tmp_path / "runs", root=tmp_path)
        lines = capsys.readouterr().err.splitlines()
        assert any(line.startswith("epoch 1/1: loss") for line in lines) and not any(
            "\r" in line for line in lines
        )


class TestCheckpoint:
    def test_loaded_weights_give_the_metrics_of_the_card(self, trained):
        root, card = trained
        model = TINY.model()
        checkpoints.load(TINY, model, root, quiet=True)
        metrics = Segmenter.of(TINY, model, card["thresholds"]).evaluate("val")
        assert metrics == pytest.approx(card["val"], abs=1e-4)

    def test_the_line_that_says_where(self, trained, capsys):
        checkpoints.load(TINY, TINY.model(), trained[0])
        assert "Trained weights of tiny: 4 epochs" in capsys.readouterr().out

    def test_a_stale_checkpoint_is_refused(self, trained):
        changed = dataclasses.replace(TINY, seed=9)
        assert checkpoints.is_missing(changed, trained[0]) and not checkpoints.is_missing(TINY, trained[0])
        with pytest.raises(
            checkpoints.CheckpointError,
            match="tiny has changed since its weights were trained.*train it again",
        ):
            checkpoints.load(changed, changed.model(), trained[0])

    def test_a_missing_or_damaged_one_is_refused_and_the_model_left_alone(self, trained, tmp_path):
        with pytest.raises(checkpoints.CheckpointError, match="has no trained weights here; train it"):
            checkpoints.load(TINY, TINY.model(), tmp_path)
        content = (checkpoints.folder(TINY, trained[0]) / "weights.npz").read_bytes()
        (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
        model = TINY.model()
        before = model.get_weights()
        with pytest.raises(checkpoints.CheckpointError, match="cut.npz holds no weights that can be read"):
            checkpoints.load_weights(model, tmp_path / "cut.npz")
        checkpoints.save_weights(
            dataclasses.replace(
                TINY, network_arguments={"base_filters": 5, "depth": 2, "normalization": "batch"}
            ).model(),
            tmp_path / "wide.npz",
        )
        with pytest.raises(checkpoints.CheckpointError, match="does not belong to this model.*shape"):
            checkpoints.load_weights(model, tmp_path / "wide.npz")
        checkpoints.save_weights(
            dataclasses.replace(TINY, network_arguments={"base_filters": 4, "depth": 1}).model(),
            tmp_path / "flat.npz",
        )
        with pytest.raises(checkpoints.CheckpointError, match="variables differ"):
            checkpoints.load_weights(model, tmp_path / "flat.npz")
        for a, b in zip(before, model.get_weights()):
            np.testing.assert_array_equal(a, b)

    def test_same_weights_same_bytes(self, tmp_path):
        for name in ("a", "b"):
            checkpoints.save_weights(TINY.model(), tmp_path / name)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

    def test_a_write_that_fails_leaves_the_old_file(self, tmp_path, monkeypatch):
        target = tmp_path / "card.json"
        files.write_json(target, {"old": 1})

        def full(descriptor):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(files.os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            files.write_json(target, {"new": 2})
        assert json.loads(target.read_text()) == {"old": 1}
        assert [path.name for path in tmp_path.iterdir()] == ["card.json"]


class TestHardware:
    def test_the_wish_decides(self, monkeypatch):
        for wish, expected in (("1", True), ("0", False)):
            monkeypatch.setenv("COURSE_TRAIN", wish)
            assert hardware.train_here() is expected
        monkeypatch.setenv("COURSE_TRAIN", "yes")
        with pytest.raises(ValueError, match="COURSE_TRAIN is 'yes'; set it to 1"):
            hardware.train_here()

    def test_without_a_wish_the_gpu_decides(self, monkeypatch):
        monkeypatch.delenv("COURSE_TRAIN", raising=False)
        for found in ([], ["gpu:0"]):
            monkeypatch.setattr(hardware, "accelerators", lambda found=found: found)
            assert hardware.train_here() is bool(found)

    def test_summary(self):
        assert keras.backend.backend() in hardware.summary() and keras.__version__ in hardware.summary()
