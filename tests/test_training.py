"""Recipes, checkpoints, and a training that survives being killed."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import contextmanager, nullcontext
from pathlib import Path

import imageio.v3 as imageio
import keras
import numpy as np
import pytest

from course_lib import checkpoints, files, hardware, metrics, recipes, training
from course_lib.datasets import cells
from course_lib.datasets.augmentation import Augmentation
from course_lib.datasets.loading import Batches
from course_lib.datasets.sample import fingerprint_of
from course_lib.losses import CrossEntropy, Dice
from course_lib.schedules import CosineCycles
from course_lib.segmenter import Segmenter
from course_lib.segmenter import load as segmenter_load
from course_lib.tasks import Borders, Objects, Semantic

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
def eagerly():
    """A context in which TensorFlow neither traces nor compiles a step: that takes longer than these trainings."""
    compile_model = training.compile_model

    def compile_eagerly(model, recipe, jit="auto"):
        compile_model(model, recipe, False)
        model.run_eagerly = True

    @contextmanager
    def context():
        with pytest.MonkeyPatch.context() as patch:
            if keras.backend.backend() == "tensorflow":
                patch.setattr(training, "compile_model", compile_eagerly)
            yield

    return context


@pytest.fixture(scope="module")
def trained(tmp_path_factory, eagerly):
    """The tiny recipe, trained without a break."""
    root = tmp_path_factory.mktemp("trained")
    with eagerly():
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
        with pytest.raises(ValueError, match="must have at least one cycle"):
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

    def test_stopped_and_resumed_is_the_same_as_never_stopped(self, trained, tmp_path, eagerly):
        root, card = trained
        arguments = {"runs": tmp_path / "runs", "root": tmp_path, "progress": False}
        with eagerly():
            for epoch in (1, 2):
                with pytest.raises(training.Interrupted, match=f"after epoch {epoch} of 4"):
                    training.train(TINY, minutes=1e-9, **arguments)
            resumed = training.train(TINY, **arguments)
        assert resumed["history"]["loss"] == pytest.approx(card["history"]["loss"], rel=1e-4)
        for name, expected in weights_of(root).items():
            np.testing.assert_allclose(
                weights_of(tmp_path)[name], expected, rtol=0.02, atol=2e-3, err_msg=name
            )

    @pytest.mark.slow
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

    def test_a_loss_that_is_not_finite_ends_it_and_keeps_nothing(self, tmp_path, eagerly):
        # A step as long as a number can be: the next forward pass overflows.
        wild = dataclasses.replace(TINY, learning_rate=1e38, warmup=0.0)
        with (
            eagerly(),
            pytest.raises(
                training.Diverged, match=r"tiny: in epoch 1 .*steps were skipped.*lower learning_rate"
            ),
        ):
            training.train(wild, runs=tmp_path / "runs", root=tmp_path, progress=False)
        assert not list(tmp_path.rglob("*.weights.h5")) and not list(tmp_path.rglob("card.json"))

    @pytest.mark.parametrize("compiled", [pytest.param(True, marks=pytest.mark.xla), False])
    def test_progress_is_lines_where_nobody_watches(self, tmp_path, capsys, compiled, eagerly):
        recipe = dataclasses.replace(TINY, name="short", epochs=1, steps=1)
        with nullcontext() if compiled else eagerly():
            training.train(recipe, runs=tmp_path / "runs", root=tmp_path)
        lines = capsys.readouterr().err.splitlines()
        assert any(line.startswith("epoch 1/1: loss") for line in lines) and not any(
            "\r" in line for line in lines
        )


def unnamed(input_shape, num_classes):
    """A network whose layers have no names of their own."""
    inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    x = keras.layers.BatchNormalization()(x)
    return keras.Model(inputs, keras.layers.Conv2D(num_classes, 1)(x))


PLAIN = dataclasses.replace(
    TINY, name="plain", network=unnamed, network_arguments={}, task=Semantic(), loss=CrossEntropy(), epochs=6
)


@pytest.fixture
def quick(monkeypatch):
    """Without XLA, whose compiling takes longer than these trainings."""
    monkeypatch.setattr(training, "JIT", False)


class Own(list):
    """Samples that know their classes and channels: the least that a recipe takes for a data set."""

    class_names, channels = ("background", "cell"), 1


def own_data(change):
    """A recipe whose first training sample is changed so."""

    def data(split):
        samples = Own(cells(split, 4, 32, seed=1))
        samples[0] = change(samples[0])
        return samples

    return dataclasses.replace(PLAIN, name="own", dataset=data, train_data={}, val_data=None, epochs=1)


@pytest.fixture
def eager(eagerly):
    with eagerly():
        yield


def write_folder(folder, labels=255):
    """Eight images of cells and their labels, which anybody may mend."""
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for k, sample in enumerate(cells("train", 8, 32, seed=1)):
        imageio.imwrite(folder / "images" / f"c{k}.png", (sample.image[..., 0] * 255).astype(np.uint8))
        imageio.imwrite(
            folder / "labels" / f"c{k}.png", (sample.semantic == (labels == 255)).astype(np.uint8)
        )
    lists = {"train": [f"c{k}" for k in range(6)], "val": ["c6", "c7"]}
    data = {"path": folder, "class_names": ("background", "cell"), "channels": 1, "splits": lists}
    return dataclasses.replace(PLAIN, name="own", dataset="folder", train_data=data, val_data=None, epochs=2)


@pytest.mark.usefixtures("quick", "eager")
class TestStateBelongsToTheData:
    def test_other_labels_are_trained_on_anew(self, tmp_path, capsys):
        recipe = write_folder(tmp_path / "mine")
        first = training.train(recipe, runs=tmp_path, root=tmp_path / "ck", progress=False)
        model = recipe.model()
        checkpoints.load(recipe, model, tmp_path / "ck")
        assert "has changed" not in capsys.readouterr().out
        assert write_folder(tmp_path / "mine", labels=0).digest == recipe.digest
        checkpoints.load(recipe, model, tmp_path / "ck")
        assert "training data of own has changed since these weights were trained" in capsys.readouterr().out
        again = training.train(recipe, runs=tmp_path, root=tmp_path / "ck", progress=False)
        assert "the data has changed since this run began; it begins anew" in capsys.readouterr().err
        assert again["history"] != first["history"] and again["data"] != first["data"]

    def test_an_interrupted_run_does_not_go_on_with_other_images(self, tmp_path):
        recipe = write_folder(tmp_path / "mine")
        with pytest.raises(training.Interrupted, match="after epoch 1 of 2"):
            training.train(recipe, runs=tmp_path, root=tmp_path, minutes=1e-9, progress=False)
        imageio.imwrite(tmp_path / "mine" / "images" / "c0.png", np.zeros((32, 32), np.uint8))
        with pytest.raises(training.Interrupted, match="after epoch 1 of 2"):
            training.train(recipe, runs=tmp_path, root=tmp_path, minutes=1e-9, progress=False)

    def test_a_name_alone_is_no_change(self, tmp_path):
        one, other = (cells("train", 3, 32, seed=1, density=density).fingerprint() for density in (0.2, 0.3))
        assert one != other and one == cells("train", 3, 32, seed=1, density=0.2).fingerprint()


@pytest.mark.usefixtures("quick")
class TestDataOfOnesOwn:
    """What a network would learn nothing from, or something else, without a word."""

    @pytest.mark.parametrize(
        ("part", "change", "message"),
        [
            ("semantic", lambda a: a * 255, "labels hold 255; they must be class ids, 0 to 1, or -1"),
            ("semantic", lambda a: np.where(a, 2, 0), "labels hold 2; they must be class ids"),
            ("semantic", lambda a: np.where(a, -2, 0), "labels hold -2"),
            ("semantic", lambda a: a.astype("float32"), "labels are float32 .*; they must be whole numbers"),
            ("semantic", lambda a: a[..., None], r"labels are int32 of shape \(32, 32, 1\)"),
            ("semantic", lambda a: a[:16], r"labels are .*one for each pixel of the image, \(32, 32\)"),
            ("image", lambda a: (a * 255).astype("uint8"), "image is uint8 of shape .*; it must be floats"),
            ("image", lambda a: a * 255, "image holds .*; it must be finite, in 0..1: divide it"),
            ("image", lambda a: a * np.nan, "image holds nan to nan; it must be finite"),
            ("image", lambda a: a[..., 0], r"image is float32 of shape \(32, 32\)"),
        ],
    )
    def test_is_refused_with_its_name(self, tmp_path, part, change, message):
        recipe = own_data(lambda one: dataclasses.replace(one, **{part: change(getattr(one, part))}))
        name = recipe.data("train")[0].name
        with pytest.raises(ValueError, match=f"{name}: the {message}"):
            recipe.batches("val", recipe.data("train"))[0]
        with pytest.raises(ValueError, match=f"{name}: the {message}"):
            training.train(recipe, tmp_path, tmp_path, progress=False)

    @pytest.mark.parametrize("sample", [{"image": 1}, (1, 2)], ids=repr)
    def test_samples_that_are_none(self, tmp_path, sample):
        with pytest.raises(TypeError, match=f"a sample is a {type(sample).__name__}; it must be"):
            training.train(own_data(lambda one: sample), tmp_path, tmp_path, progress=False)

    @pytest.mark.parametrize("change", ["order", "names", "labels", "images"])
    def test_of_which_something_changed_is_trained_on_anew(self, tmp_path, capsys, change):
        recipe = own_data(lambda one: one)
        with pytest.raises(training.Interrupted, match="after epoch 1 of 2"):
            training.train(
                recipe := dataclasses.replace(recipe, epochs=2), tmp_path, tmp_path, minutes=0, progress=False
            )
        samples = recipe.data("train")
        if change == "order":
            samples.reverse()
        elif change == "names":
            samples.class_names = ("background", "nucleus")
        else:
            part = {"labels": "semantic", "images": "image"}[change]
            samples[0] = dataclasses.replace(samples[0], **{part: 1 - getattr(samples[0], part)})
        again = training.Resume(
            tmp_path / f"own-{recipe.digest}", recipe.batches("train"), data=fingerprint_of(samples)
        )
        model = recipe.model(recipe.crop)
        training.compile_model(model, recipe, jit=False)
        assert again.restore(model) == 0 and "has changed" in capsys.readouterr().err
        same = training.Resume(again.folder, again.batches, data=fingerprint_of(recipe.data("train")))
        assert same.restore(model) == 1

    def test_one_in_which_nothing_counts(self, tmp_path):
        def ignored(one):
            return dataclasses.replace(one, semantic=np.full_like(one.semantic, -1))

        training.train(own_data(ignored), tmp_path, tmp_path, progress=False)  # the others do
        recipe = own_data(ignored)
        batches = Batches([ignored(one) for one in recipe.data("train")], 2, task=recipe.task)
        batches.on_epoch_end()  # nothing was drawn yet
        batches[0]
        with pytest.raises(ValueError, match="dataset holds no pixel that counts"):
            batches.on_epoch_end()


@pytest.mark.usefixtures("quick")
class TestTheEndOfATraining:
    def train(self, tmp_path, *callbacks, recipe=PLAIN, **more):
        return training.train(
            recipe, tmp_path / "runs", tmp_path, callbacks=callbacks, progress=False, **more
        )

    @pytest.mark.usefixtures("eager")
    def test_early_stopping_ends_it_well(self, tmp_path):
        stopping = keras.callbacks.EarlyStopping("val_loss", patience=1, min_delta=100)
        assert self.train(tmp_path, stopping)["epochs"] == 2
        assert self.train(tmp_path, stopping)["epochs"] == 2  # and is not gone on with
        assert Segmenter.of(PLAIN).fit(runs=tmp_path / "runs", root=tmp_path, progress=False)["epochs"] == 2

    @pytest.mark.usefixtures("eager")
    def test_the_best_weights_are_those_that_are_kept(self, tmp_path):
        kept = {}

        class Best(keras.callbacks.Callback):
            def on_train_end(self, logs=None):
                kept["weights"] = [np.zeros_like(one) for one in self.model.get_weights()]
                self.model.set_weights(kept["weights"])

        for _ in range(2):  # the second time from what is kept of the finished run
            self.train(tmp_path, Best())
            (tmp_path / "plain" / "card.json").unlink()
            with np.load(tmp_path / "plain" / "weights.npz") as file:
                assert not any(file[name].any() for name in file.files)

    @pytest.mark.parametrize("one", ["CSVLogger", "ModelCheckpoint", "TerminateOnNaN", "LambdaCallback"])
    @pytest.mark.usefixtures("eager")
    def test_other_callbacks(self, tmp_path, one):
        arguments = {"CSVLogger": (tmp_path / "log.csv",), "ModelCheckpoint": (tmp_path / "best.keras",)}
        callback = getattr(keras.callbacks, one)(*arguments.get(one, ()))
        recipe = dataclasses.replace(PLAIN, epochs=1)
        assert self.train(tmp_path, callback, recipe=recipe)["epochs"] == 1

    @pytest.mark.parametrize(
        ("callback", "message"),
        [
            ("stop", "callbacks holds 'stop'"),
            (keras.callbacks.EarlyStopping, "callbacks holds <class"),
            (keras.callbacks.ReduceLROnPlateau(), "sets the learning rate"),
            (keras.callbacks.LearningRateScheduler(abs), "sets the learning rate"),
            (keras.callbacks.BackupAndRestore("kept"), "state of the run is kept in"),
        ],
    )
    def test_callbacks_that_cannot_be(self, tmp_path, callback, message):
        with pytest.raises((TypeError, ValueError), match=message):
            self.train(tmp_path, callback)

    def fit(self, *, optimizer=None, metrics=(), epochs=2, batches=None, **more):
        model = PLAIN.model(PLAIN.crop)
        if optimizer != "none":
            loss = CrossEntropy()
            model.compile(optimizer or "adam", loss, metrics=list(metrics), jit_compile=False)
        return training.fit(model, PLAIN.batches("train") if batches is None else batches, epochs, **more)

    def test_a_rate_that_no_schedule_sets_may_be_lowered(self, tmp_path):
        plateau = keras.callbacks.ReduceLROnPlateau("loss", patience=0, min_delta=100)
        for epochs, rate in ((2, 1e-4), (4, 1e-5)):  # and stays so in a training that goes on
            self.fit(epochs=np.int64(epochs), folder=str(tmp_path / "run"), callbacks=[plateau])
            assert float(plateau.model.optimizer.learning_rate) == pytest.approx(rate)

    def test_a_metric_may_be_nan_or_a_matrix(self, tmp_path):
        absent = metrics.MeanIoU(2, ignore=0, classes=[1], name="absent")
        samples = [dataclasses.replace(one, semantic=0 * one.semantic) for one in cells("val", 2, 32)]
        fitted = self.fit(
            epochs=1,
            metrics=[absent, metrics.ConfusionMatrix(2)],
            folder=tmp_path / "run",
            validation_data=Batches(samples, 2),
            callbacks=None,
            progress=True,
        )
        assert np.isnan(fitted.history["val_absent"]) and np.isfinite(fitted.history["val_loss"])
        assert "confusion_matrix" not in fitted.history and fitted.finished

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"epochs": 2.5}, "epochs is 2.5; it must be a whole number"),
            ({"epochs": -1}, "epochs is -1"),
            ({"minutes": "5"}, "minutes is '5'; it must be a number"),
            ({"minutes": float("nan")}, "minutes is nan"),
            (
                {"batches": (np.zeros(2), np.zeros(2))},
                "batches is a tuple; it must be datasets.loading.Batches",
            ),
            ({"optimizer": "none"}, "which is not compiled; call its compile"),
        ],
    )
    def test_what_fit_cannot_take(self, given, message):
        with pytest.raises((TypeError, ValueError), match=message):
            self.fit(**given)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (("unet-cells",), "recipe is 'unet-cells'; it must be a Recipe"),
            ((PLAIN, None, None, -1), "minutes is -1"),
        ],
    )
    def test_what_train_cannot_take(self, given, message):
        with pytest.raises((TypeError, ValueError), match=message):
            training.train(*given)

    def test_a_callback_that_fails_leaves_the_state_of_its_epoch(self, tmp_path):
        def fail(epoch, logs):
            raise OSError("the callback's own")

        with pytest.raises(OSError, match="the callback's own"):
            self.train(tmp_path, keras.callbacks.LambdaCallback(on_epoch_end=fail))
        with pytest.raises(training.Interrupted, match="after epoch 2 of 6"):
            self.train(tmp_path, minutes=1e-9)

    def test_the_dtype_policy_is_given_back(self, tmp_path, monkeypatch):
        monkeypatch.setattr(hardware, "accelerators", lambda: ["gpu:0"])
        seen = []
        watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: seen.append(watch.model.compute_dtype))
        with pytest.raises(training.Interrupted):
            self.train(tmp_path, watch, minutes=1e-9)
        assert keras.config.dtype_policy().name == "float32" and seen == ["float16"]
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            with pytest.raises(training.Interrupted):
                self.train(tmp_path / "own", minutes=1e-9)
            assert keras.config.dtype_policy().name == "mixed_bfloat16"
        finally:
            keras.config.set_dtype_policy("float32")

    def test_one_batch_that_is_not_finite_is_left_out_and_counted(self, tmp_path):
        clean = training.train(PLAIN, tmp_path / "a", tmp_path / "a", progress=False)
        model = PLAIN.model(PLAIN.crop)
        training.compile_model(model, PLAIN, jit=False)
        batches = PLAIN.batches("train")
        count = iter(range(100))
        batches.transform = lambda images, labels, weights: (
            np.where(next(count) == 4, np.nan, 1).astype("float32") * images, labels
        )  # fmt: skip
        fitted = training.fit(model, batches, PLAIN.epochs)
        assert fitted.skipped == 1 and fitted.epochs == 6 and np.isfinite(fitted.history["loss"]).all()
        assert fitted.history["loss"][-1] == pytest.approx(clean["history"]["loss"][-1], rel=0.5)
        assert all(np.isfinite(one).all() for one in model.trainable_variables)

    def test_too_many_end_it(self, tmp_path):
        model = PLAIN.model(PLAIN.crop)
        training.compile_model(model, PLAIN, jit=False)
        batches = PLAIN.batches("train")
        batches.transform = lambda images, labels, weights: (np.full_like(images, np.nan), labels)
        with pytest.raises(
            training.Diverged, match="plain: in epoch 1 .* 3 steps were skipped so far, of at most 1"
        ):
            training.fit(model, batches, PLAIN.epochs, tmp_path / "run", name="plain")
        assert not list(tmp_path.rglob("*.weights.h5"))

    def test_several_trainings_compile_once(self, tmp_path):
        model = PLAIN.model(PLAIN.crop)
        training.compile_model(model, PLAIN, jit=False)
        losses = []
        for seed in (0, 1, 0):
            recipe = dataclasses.replace(PLAIN, seed=seed)
            training.start_again(model, recipe)
            losses.append(training.fit(model, recipe.batches("train"), 2).history["loss"])
        assert losses[0] == pytest.approx(losses[2], rel=1e-4) and losses[0] != pytest.approx(
            losses[1], rel=1e-4
        )

    @pytest.mark.parametrize(
        "damage", ["", "{}", "[]", "<html>", '{"weights": "x.weights.h5", "epoch": 1}', "cut", "gone", -1, 99]
    )
    @pytest.mark.usefixtures("eager")
    def test_a_damaged_state_names_the_folder_to_delete(self, tmp_path, damage):
        with pytest.raises(training.Interrupted):
            self.train(tmp_path, minutes=1e-9)
        folder = tmp_path / "runs" / f"plain-{PLAIN.digest}"
        (weights,) = folder.glob("*.weights.h5")
        if damage == "cut":
            weights.write_bytes(weights.read_bytes()[:500])
        elif damage == "gone":
            weights.unlink()
        elif isinstance(damage, int):
            state = json.loads((folder / "state.json").read_text())
            (folder / "state.json").write_text(json.dumps(state | {"epoch": damage}))
        else:
            (folder / "state.json").write_text(damage)
        with pytest.raises(
            training.DamagedState, match=f"{folder.name} holds .* cannot be read .*; delete this folder"
        ):
            self.train(tmp_path)

    @pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no room can be reserved here")
    def test_a_full_disk_is_told_before_hdf5_meets_it(self, tmp_path, monkeypatch):
        model = PLAIN.model()
        training.compile_model(model, PLAIN)
        resume = training.Resume(tmp_path, None)
        wanted = []

        def full(descriptor, start, size):
            wanted.append(size)
            raise OSError(28, "No space left on device")

        resume.keep(model)
        kept = {path: path.read_bytes() for path in tmp_path.iterdir()}
        resume.epoch = 1
        monkeypatch.setattr(os, "posix_fallocate", full)
        monkeypatch.setattr(model, "save_weights", None)
        with pytest.raises(OSError, match="No space left"):
            resume.keep(model)
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == kept
        assert wanted[0] >= max(map(len, kept.values()))

    @pytest.mark.slow
    def test_a_second_process_waits(self, tmp_path):
        """Twice the same training at once: both end, and one says that it waits."""
        script = tmp_path / "run.py"
        script.write_text(
            f"import sys; sys.path[:0] = {[str(Path(__file__).parent), str(Path(training.__file__).parents[1])]!r}\n"
            "import time, keras, dataclasses\nfrom test_training import PLAIN, training\ntraining.JIT = False\n"
            "slow = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: time.sleep(2))\n"
            f"card = training.train(PLAIN, {str(tmp_path / 'runs')!r}, {str(tmp_path)!r}, callbacks=slow, progress=False)\n"
            "print('done', card['epochs'])\n"
        )
        both = [
            subprocess.Popen(
                [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            for _ in range(2)
        ]
        said = [process.communicate(timeout=300) for process in both]
        assert [out.strip() for out, _ in said] == ["done 6"] * 2, said
        assert sum("waiting for another process" in err for _, err in said) == 1


class TestWeights:
    def test_layers_without_names_are_loaded_by_their_place(self, tmp_path):
        model = PLAIN.model()
        sha256 = checkpoints.save_weights(model, tmp_path / "w.npz")
        again = PLAIN.model()  # Keras has counted on: conv2d_2, conv2d_3 …
        assert again.layers[-1].name != model.layers[-1].name
        checkpoints.load_weights(again, tmp_path / "w.npz", sha256)
        for a, b in zip(model.get_weights(), again.get_weights()):
            np.testing.assert_allclose(a, b, atol=1e-3)

    def test_what_is_not_finite_is_neither_written_nor_read(self, tmp_path):
        model = PLAIN.model()
        checkpoints.save_weights(model, tmp_path / "w.npz")
        with np.load(tmp_path / "w.npz") as file:
            arrays = {name: file[name] for name in file.files}
        name = next(iter(arrays))
        arrays[name] = arrays[name].astype(float)
        for value in (np.nan, np.inf, 1e300):  # the last is infinite in float32
            arrays[name].flat[0] = value
            np.savez(tmp_path / "bad.npz", **arrays)
            with pytest.raises(checkpoints.CheckpointError, match="bad.npz is damaged: .* not finite"):
                checkpoints.load_weights(model, tmp_path / "bad.npz")
        model.set_weights([np.full_like(one, np.nan) for one in model.get_weights()])
        with pytest.raises(checkpoints.CheckpointError, match="nothing has been saved"):
            checkpoints.save_weights(model, tmp_path / "nan.npz")
        assert not (tmp_path / "nan.npz").exists()

    @pytest.mark.parametrize(
        "content",
        [b"", b"version https://git-lfs", b"<html>", b"PK\x03\x04", "npy", "pickle", "huge", "header"],
    )
    def test_a_file_of_another_kind_is_named(self, tmp_path, content):
        path = tmp_path / "weights.npz"
        model = PLAIN.model()
        if content == "npy":
            with open(path, "wb") as file:
                np.save(file, np.zeros(3))
        elif content == "pickle":
            np.savez(path, **{name: np.array([{}], object) for name in checkpoints._variables(model)})
        elif content in ("huge", "header"):
            shape = "(100000000000,)" if content == "huge" else "(((("
            header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
            member = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
            with zipfile.ZipFile(path, "w") as archive:
                for name in checkpoints._variables(model):
                    archive.writestr(f"{name}.npy", member)
        else:
            path.write_bytes(content)
        with pytest.raises(checkpoints.CheckpointError, match="weights.npz "):
            checkpoints.load_weights(model, path)

    @pytest.mark.parametrize(
        "content", ["", "{", "<html>", "\ufeff{}", "[]", "null", "{}", '{"digest": 3}', "\udcff"]
    )
    def test_a_card_of_another_kind_is_named(self, trained, tmp_path, content):
        shutil.copytree(trained[0] / "tiny", tmp_path / "tiny")
        (tmp_path / "tiny" / "card.json").write_bytes(content.encode("utf8", "surrogateescape"))
        for use in (checkpoints.card, segmenter_load):
            with pytest.raises(checkpoints.CheckpointError, match="card.json"):
                use(TINY, tmp_path)
        assert checkpoints.is_missing(TINY, tmp_path)

    @pytest.mark.parametrize("lacking", ["digest", "thresholds", "weights", "recipe", "seconds", "device"])
    def test_a_card_that_lacks_something(self, trained, tmp_path, lacking):
        shutil.copytree(trained[0] / "tiny", tmp_path / "tiny")
        card = json.loads((tmp_path / "tiny" / "card.json").read_text())
        for change in ({}, {lacking: None}):
            rest = {name: value for name, value in card.items() if name != lacking} | change
            (tmp_path / "tiny" / "card.json").write_text(json.dumps(rest))
            with pytest.raises(
                checkpoints.CheckpointError, match=f"card.json is damaged: {lacking!r} is missing"
            ):
                checkpoints.card(TINY, tmp_path)

    def test_altered_weights_are_refused(self, trained, tmp_path):
        shutil.copytree(trained[0] / "tiny", tmp_path / "tiny")
        model = TINY.model()
        checkpoints.load_weights(model, tmp_path / "tiny" / "weights.npz")
        first = model.trainable_variables[0]
        first.assign(first + 0.1)
        checkpoints.save_weights(model, tmp_path / "tiny" / "weights.npz")
        with pytest.raises(checkpoints.CheckpointError, match="is not the file that its card.json describes"):
            segmenter_load(TINY, tmp_path)


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
        with pytest.raises(checkpoints.CheckpointError, match="has no trained weights yet; train it"):
            checkpoints.load(TINY, TINY.model(), tmp_path)
        content = (checkpoints.folder(TINY, trained[0]) / "weights.npz").read_bytes()
        (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
        model = TINY.model()
        before = model.get_weights()
        with pytest.raises(checkpoints.CheckpointError, match="cut.npz contains no readable weights"):
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
