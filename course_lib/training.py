"""Training: one loop for recipes, claims and notebooks, which can be stopped and resumed; then the checkpoint."""

import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from course_lib import checkpoints, hardware, models, resources
from course_lib._checks import in_range, whole_number
from course_lib.datasets.disk import locked
from course_lib.datasets.sample import fingerprint_of
from course_lib.files import check_writable, replacing, reserve, write_json
from course_lib.models.mask_rcnn.optimizer import FiniteMean, finite_steps
from course_lib.recipes import Recipe
from course_lib.segmenter import Segmenter
from course_lib.tasks import Objects

RUNS = resources.RUNS

# Keras leaves XLA off on a CPU, where compiling takes seconds; over a whole training a U-Net gains a fifth by it, a small
# one half. PyTorch's compiler is another matter.
JIT = "auto" if keras.backend.backend() == "torch" else True

# XLA takes minutes over a Mask R-CNN's step, whose sorting and gathering it does not make faster.
DETECTOR_JIT = "auto"

SKIPPED = 0.01
"""The fraction of a training's steps that may be left out because a gradient was not finite; one always may."""


class Interrupted(RuntimeError):
    """The time limit was reached before the last epoch; the run's state is kept."""


class Diverged(RuntimeError):
    """Too many steps had no finite gradient; the state before that epoch is kept."""


class DamagedState(RuntimeError):
    """The saved state of an unfinished run cannot be read."""


class StopWhenDiverged(keras.callbacks.Callback):
    """Counts the skipped steps, and stops training with a message when there are too many.

    A step whose gradient is not finite changes nothing (see `finite_steps`); one in a hundred is a rare batch, more are a
    fault. Keras's own TerminateOnNaN ends a training at the first, silently, after the callbacks that would keep the
    damaged weights.

    Args:
        name: what is trained, for the message.
        steps: of the whole training.
        skipped: steps that were left out before, in a training that goes on.
    """

    def __init__(self, name: str, steps: int, skipped: int = 0):
        super().__init__()
        self.name, self.allowed, self.skipped = name, max(1, int(SKIPPED * steps)), skipped
        self._steps, self._applied = 0, None

    def on_epoch_begin(self, epoch, logs=None):
        self._steps, self._applied = 0, self._count()

    def on_train_batch_end(self, batch, logs=None):
        self._steps += 1

    def on_epoch_end(self, epoch, logs=None):
        if self._applied is not None:
            self.skipped += max(0, self._steps - (self._count() - self._applied))
        # A metric may be NaN with reason: of a class that the validation set lacks.
        broken = [name for name, value in _scalars(logs) if "loss" in name and not math.isfinite(value)]
        if self.skipped > self.allowed or broken:
            what = (
                f"{', '.join(broken)} was not a finite number"
                if broken
                else "the gradient was not finite too often"
            )
            raise Diverged(
                f"{self.name}: in epoch {epoch + 1} {what}; {self.skipped} steps were skipped so far, of at "
                f"most {self.allowed}. Nothing of this epoch is kept. Look for a corrupted image, or train with a lower "
                "learning_rate or a smaller clip."
            )

    def _count(self) -> int | None:
        """The steps that the optimizer took."""
        optimizer = getattr(self.model, "optimizer", None)
        inner = getattr(optimizer, "inner_optimizer", None)
        return None if inner is None else int(inner.iterations)


class Resume(keras.callbacks.Callback):
    """Saves the state of a run after each epoch, and resumes from it.

    Keras's own BackupAndRestore writes weights and epoch into two files in place, so that a kill between the two leaves
    a pair that does not belong together, and it forgets the history. Here the weights (the optimizer's too) go into a
    new file, and one small JSON file, replaced atomically, says which file counts.

    Args:
        folder: where the state lies; made if need be; `None` to keep none.
        batches: the training batches, whose epoch counter must go on too.
        minutes: stop after the epoch in which this time is over.
        data: the fingerprint of the training data; a state of other data is dropped.

    Attributes:
        history: quantity → its value after each epoch.
        epoch: epochs that are done.
        seconds: spent on them.
        finished: whether a callback has ended the training before its last epoch.
        out_of_time: whether `minutes` were over before.
    """

    def __init__(self, folder: Path | None, batches, minutes: float | None = None, data: str = ""):
        super().__init__()
        self.folder, self.batches, self.minutes, self.data = folder, batches, minutes, data
        self.history: dict[str, list[float]] = {}
        self.epoch, self.seconds, self.skipped = 0, 0.0, 0
        self.finished = self.out_of_time = False
        self.guard: StopWhenDiverged | None = None

    def restore(self, model: keras.Model) -> int:
        """Load the saved state into a compiled model; returns the epochs already done, 0 for a new run.

        Raises:
            DamagedState: if there is a state that cannot be read.
        """
        state = None if self.folder is None else self.folder / "state.json"
        if state is None or not state.is_file():
            return 0
        try:
            kept = json.loads(state.read_text(encoding="utf8"))
            history = {name: [float(one) for one in values] for name, values in kept["history"].items()}
            epoch, seconds, skipped = int(kept["epoch"]), float(kept["seconds"]), int(kept.get("skipped", 0))
            finished, data = bool(kept.get("finished", False)), kept.get("data", "")
            weights = self.folder / Path(kept["weights"]).name
            if epoch < 1 or any(len(values) != epoch for values in history.values()):
                raise ValueError("the history is not that of these epochs")
            if data != self.data:
                print(
                    f"{self.folder.name}: the data has changed since this run began; it begins anew.",
                    file=sys.stderr,
                )
                return 0
            model.optimizer.build(model.trainable_variables)
            model.load_weights(weights)
        except Exception as error:  # h5py and json raise what they like
            raise DamagedState(
                f"{self.folder} holds the state of an unfinished run that cannot be read ({type(error).__name__}): "
                "damaged, or of another network or optimizer; delete this folder to start the training again."
            ) from error
        self.history, self.epoch, self.seconds, self.skipped = history, epoch, seconds, skipped
        self.finished = finished
        self.batches.epoch = epoch
        return epoch

    def on_train_begin(self, logs=None):
        self._begun = time.perf_counter() - self.seconds
        self._limit = None if self.minutes is None else time.perf_counter() + 60 * self.minutes

    def on_epoch_end(self, epoch, logs=None):
        for name, value in _scalars(logs):
            self.history.setdefault(name, []).append(value)
        self.epoch, self.seconds = epoch + 1, time.perf_counter() - self._begun
        self.skipped = self.guard.skipped if self.guard else 0
        self.keep(self.model)
        if self._limit is not None and time.perf_counter() > self._limit:
            self.model.stop_training = self.out_of_time = True

    def keep(self, model: keras.Model, end: bool = False) -> None:
        """Write the state, at the `end` once more; the one before is there until this one is on the disk. Of several
        processes the first does."""
        if self.folder is None:
            return
        if _process():
            # All of them bring the state together: JAX waits until each process has asked for it.
            with tempfile.TemporaryDirectory() as nowhere:
                model.save_weights(Path(nowhere) / "not-kept.weights.h5")
            return
        weights = self.folder / f"epoch-{self.epoch:04d}{'-end' if end else ''}.weights.h5"
        values = [*model.variables, *model.optimizer.variables]
        with replacing(weights) as unfinished:
            # Where a disk is full, HDF5 takes the whole process with it.
            reserve(unfinished, sum(4 * math.prod(one.shape) + 4096 for one in values))
            model.save_weights(unfinished)
        state = {
            name: getattr(self, name)
            for name in ("epoch", "seconds", "skipped", "finished", "data", "history")
        }
        write_json(self.folder / "state.json", {"weights": weights.name, **state})
        for old in self.folder.glob("*.weights.h5"):
            if old != weights:
                old.unlink()


class Progress(keras.callbacks.Callback):
    """A live line while training; afterwards one tidy line. In a notebook the live line is replaced, not kept.

    Args:
        epochs: how many there will be.
        stream: where to write outside notebooks.
    """

    def __init__(self, epochs: int, stream=None):
        super().__init__()
        self.epochs, self.stream = epochs, stream or sys.stderr
        self._display = None

    def on_train_begin(self, logs=None):
        self._begun = time.perf_counter()
        self._done, self._epoch, self._last = 0, 0, 0.0
        if _in_notebook():
            from IPython.display import display

            self._display = display({"text/plain": "training …"}, raw=True, display_id=True)

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        self._done += 1
        now = time.perf_counter()
        if now - self._last < 0.5:
            return
        self._last = now
        steps = self.params.get("steps") or 1
        fraction = (batch + 1) / steps
        bar = "█" * round(20 * fraction) + "·" * (20 - round(20 * fraction))
        left = (now - self._begun) / self._done * ((self.epochs - self._epoch) * steps - batch - 1)
        line = f"epoch {self._epoch + 1}/{self.epochs} {bar} loss {_loss(logs):.4f}, about {left / 60:.1f} min left"
        if self._display is not None:
            self._display.update({"text/plain": line}, raw=True)
        elif self.stream.isatty():
            print(f"\r{line}  ", end="", file=self.stream, flush=True)

    def on_epoch_end(self, epoch, logs=None):
        if self._display is None:
            facts = ", ".join(f"{name} {value:.4f}" for name, value in _scalars(logs))
            start = "\r" if self.stream.isatty() else ""
            seconds = time.perf_counter() - self._begun
            print(
                f"{start}epoch {epoch + 1}/{self.epochs}: {facts} ({seconds:.0f} s)",
                file=self.stream,
                flush=True,
            )

    def on_train_end(self, logs=None):
        if self._display is not None:
            self._display.update({"text/plain": f"trained for {self._epoch + 1} epochs"}, raw=True)


def compile_model(model: keras.Model, recipe: Recipe, jit: bool | str = "auto") -> None:
    """Give the model the recipe's optimizer and loss; `jit` is Keras's `jit_compile`."""
    half = (
        "float16" in keras.config.dtype_policy().name and "bfloat16" not in keras.config.dtype_policy().name
    )
    loss = recipe.loss_or_default()
    own = {} if loss is None else {"loss": loss}
    model.compile(optimizer=finite_steps(recipe.optimizer(), half), jit_compile=jit, **own)
    if getattr(model, "_loss_tracker", None) is not None:
        model._loss_tracker = FiniteMean(name="loss")


def _jit(recipe: Recipe) -> bool | str:
    """Whether `train` lets XLA compile a step. On a CPU its atrous convolutions are slow: one step of the small
    DeepLabV3+ takes 1.3 s with it and 0.8 s without."""
    if isinstance(recipe.task, Objects):
        return DETECTOR_JIT
    return "auto" if recipe.network is models.deeplab else JIT


def start_again(model: keras.Model, recipe: Recipe) -> None:
    """Give a compiled model the first weights of the recipe's seed and the optimizer the state that it had when this was
    first called, so before any training: several trainings of one network compile once."""
    for variable, first in zip(model.variables, recipe.model(recipe.crop).variables, strict=True):
        variable.assign(first)
    optimizer = model.optimizer
    if not hasattr(optimizer, "first_state"):
        optimizer.build(model.trainable_variables)
        optimizer.first_state = tuple(checkpoints.keras_numpy(variable) for variable in optimizer.variables)
    for variable, first in zip(optimizer.variables, optimizer.first_state, strict=True):
        variable.assign(first)


@dataclass(frozen=True)
class Fitted:
    """The result of `fit`.

    Attributes:
        history: quantity → its value after each epoch.
        epochs: how many are done, those of earlier calls included.
        seconds: spent on them.
        skipped: steps that were left out because a gradient was not finite.
        finished: whether the training has come to its end; otherwise the time was over.
    """

    history: dict[str, list[float]]
    epochs: int
    seconds: float
    skipped: int
    finished: bool


def fit(
    model: keras.Model,
    batches,
    epochs: int,
    folder: Path | str | None = None,
    *,
    validation_data=None,
    callbacks: Sequence[keras.callbacks.Callback] | None = None,
    minutes: float | None = None,
    progress: bool = False,
    name: str = "",
    data: str = "",
) -> Fitted:
    """Keras's `fit` for a compiled model, with a state that is saved after each epoch and resumed.

    A callback that ends the training, such as EarlyStopping, ends it well. Its own memory, such as how many epochs there
    was no progress, begins anew when a stopped training goes on.

    Args:
        model: compiled, such as by `compile_model`.
        batches: `datasets.loading.Batches`.
        epochs: how many there are in all.
        folder: where the state is kept, for one process at a time; `None` to keep none.
        validation_data: more batches, to measure on after each epoch.
        callbacks: Keras's or your own.
        minutes: stop after the epoch in which this time is over; the next call goes on.
        progress: write progress to standard error.
        name: what is trained, for messages; by default the model's name.
        data: the fingerprint of the training data; a state of other data is dropped.

    Raises:
        Diverged: if more than one step in a hundred had no finite gradient, or a loss was not finite.
        DamagedState: if the kept state cannot be read.
        TypeError, ValueError: for an argument that cannot be, such as a callback that sets the learning rate where a
            schedule does.
    """
    name, folder = name or model.name, None if folder is None else Path(folder)
    if not isinstance(batches, keras.utils.PyDataset):
        raise TypeError(f"batches is a {type(batches).__name__}; it must be datasets.loading.Batches.")
    if not getattr(model, "compiled", False):
        raise ValueError(
            f"model is {name}, which is not compiled; call its compile() or training.compile_model first."
        )
    epochs, minutes = whole_number("epochs", epochs, 0), _minutes(minutes)
    callbacks = _checked(callbacks, model, folder)
    lock = (
        nullcontext()
        if folder is None or _process()
        else locked(folder.with_name(f"{folder.name}.lock"), name, "name another folder for the runs")
    )
    with lock:
        resume = Resume(folder, batches, minutes, data)
        done = resume.restore(model)
        over = resume.finished or done >= epochs
        if progress and done and over:
            print(
                f"{name}: nothing to train, the run in {folder} is finished; delete it to train anew.",
                file=sys.stderr,
            )
        elif progress and done:
            print(f"{name}: going on after epoch {done} of {epochs}", file=sys.stderr, flush=True)
        if not over:
            resume.guard = StopWhenDiverged(name, epochs * len(batches), resume.skipped)
            model.fit(
                batches,
                validation_data=validation_data,
                initial_epoch=done,
                epochs=epochs,
                verbose=0,
                # Keras would shuffle the batches once more, from a state of chance that a resumed run does not have.
                shuffle=False,
                # The first may refuse what the second would keep.
                callbacks=[resume.guard, resume, *([Progress(epochs)] if progress else []), *callbacks],
            )
            resume.finished = resume.epoch < epochs and not resume.out_of_time
            if resume.finished or resume.epoch >= epochs:
                resume.keep(model, end=True)  # a callback may have put other weights in at the end
    return Fitted(
        resume.history,
        resume.epoch,
        resume.seconds,
        resume.skipped,
        resume.finished or resume.epoch >= epochs,
    )


def train(
    recipe: Recipe,
    runs: Path | str | None = None,
    root: Path | str | None = None,
    minutes: float | None = None,
    callbacks: Sequence[keras.callbacks.Callback] | None = None,
    progress: bool = True,
    devices: int | str | None = None,
) -> dict[str, Any]:
    """Train a recipe to its end and write its checkpoint; resume where an earlier call was stopped or killed.

    The state belongs to the recipe and to the content of its training data: with other labels the training begins anew.

    Args:
        recipe: what to train.
        runs: folder for the state of unfinished runs, by default `runs/` in the project.
        root: folder of checkpoints, by default the course's.
        minutes: stop after this time, between two epochs; the next call goes on.
        callbacks: further Keras callbacks.
        progress: write progress to standard error.
        devices: divide each batch among so many devices, or `"all"` (see `hardware.several`); the losses are those of one
            device up to rounding, except that an incomplete last batch of the validation set is filled up.

    Returns:
        The card of the checkpoint.

    Raises:
        TypeError, ValueError: for an argument that cannot be, data that is none, or devices that cannot be used.
        OSError: if the state or the checkpoint could not be written; before any training.
        Interrupted: if `minutes` were over before the last epoch.
        Diverged: if the loss was not finite.
        DamagedState: if the state of an unfinished run cannot be read.
        DataUnavailable: if the data is not here.
    """
    if not isinstance(recipe, Recipe):
        raise TypeError(f"recipe is {recipe!r}; it must be a Recipe, such as recipes.get('unet-cells').")
    minutes = _minutes(minutes)
    folder = Path(runs or RUNS) / f"{recipe.name}-{recipe.digest}"
    for place in (folder, checkpoints.target(recipe, root)):
        check_writable(place)  # now, and not after hours
    data, val = recipe.data("train"), recipe.data("val")
    # A list of samples will do as a data set; it is read once more.
    content = fingerprint_of(data)
    parallel = None if devices is None else hardware.several(devices, recipe.batch_size)
    batches, validation = recipe.batches("train", data), recipe.batches("val", val)
    with nullcontext() if parallel is None else parallel.scope():
        with _half_precision():
            model = recipe.model(recipe.crop)
            compile_model(model, recipe, jit=_jit(recipe))
        if parallel is not None:
            for one in (batches, validation):
                one.divide(parallel.device_mesh.devices.size, _process(), parallel.num_processes)
        fitted = fit(
            model,
            batches,
            recipe.epochs,
            folder,
            validation_data=validation,
            callbacks=callbacks,
            minutes=minutes,
            progress=progress and not _process(),
            name=recipe.name,
            data=content,
        )
        first, used = not _process(), 1 if parallel is None else parallel.device_mesh.devices.size
    if not fitted.finished:
        raise Interrupted(
            f"{recipe.name}: stopped after epoch {fitted.epochs} of {recipe.epochs}, as asked; "
            "run the same command to continue."
        )
    return finish(recipe, model, fitted, val, root, progress, content, used, first)


def finish(
    recipe: Recipe,
    model: keras.Model,
    fitted: Fitted,
    val,
    root: Path | None,
    progress: bool,
    data: str,
    devices: int = 1,
    write: bool = True,
) -> dict[str, Any]:
    """Round the weights, choose the thresholds on the validation set, measure, write the checkpoint. Returns the card."""
    with _policy("float32"):
        shipped = recipe.model()
    for variable, trained in zip(shipped.weights, model.weights, strict=True):
        variable.assign(checkpoints.rounded(checkpoints.keras_numpy(trained)).astype("float32"))
    if progress and write:
        print(f"{recipe.name}: choosing thresholds and measuring on val", file=sys.stderr, flush=True)
    segmenter = Segmenter.of(recipe, shipped)
    outputs = segmenter.outputs(val)
    content = {
        **hardware.describe(devices),
        "parameters": shipped.count_params(),
        "epochs": fitted.epochs,
        "seconds": round(fitted.seconds),
        "skipped": fitted.skipped,
        "data": data,
        "thresholds": segmenter.choose_thresholds(val, outputs),
        "val": segmenter.score(val, outputs),
        "history": {name: [round(value, 5) for value in values] for name, values in fitted.history.items()},
    }
    if not write:
        return content
    checkpoints.save(recipe, shipped, content, root)
    return checkpoints.card(recipe, root)


def _process() -> int:
    """The number of this process among those that train together; 0 where there is no other."""
    parallel = keras.distribution.distribution()
    return 0 if parallel is None else parallel.data_shard_id


def _checked(callbacks, model: keras.Model, folder: Path | None) -> list[keras.callbacks.Callback]:
    callbacks = [callbacks] if isinstance(callbacks, keras.callbacks.Callback) else list(callbacks or ())
    # Of the optimizer that FiniteSteps holds, where it does.
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    scheduled = isinstance(optimizer._learning_rate, keras.optimizers.schedules.LearningRateSchedule)
    for one in callbacks:
        if not isinstance(one, keras.callbacks.Callback):
            raise TypeError(
                f"callbacks holds {one!r}; each must be a Keras callback, such as EarlyStopping()."
            )
        if scheduled and isinstance(
            one, (keras.callbacks.ReduceLROnPlateau, keras.callbacks.LearningRateScheduler)
        ):
            raise ValueError(
                f"callbacks holds a {type(one).__name__}; the optimizer's schedule sets the learning rate. Leave it out."
            )
        if folder is not None and isinstance(one, keras.callbacks.BackupAndRestore):
            raise ValueError(
                f"callbacks holds a BackupAndRestore; the state of the run is kept in {folder} already. Leave it out."
            )
    return callbacks


def _minutes(minutes: float | None) -> float | None:
    return None if minutes is None else in_range("minutes", minutes, 0)


def _scalars(logs) -> list[tuple[str, float]]:
    """What Keras logs, without what is no number, such as a confusion matrix."""
    return [(name, float(value)) for name, value in (logs or {}).items() if np.ndim(value) == 0]


@contextmanager
def _policy(name: str) -> Iterator[None]:
    """Another dtype policy within the block."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _half_precision():
    """On a GPU half precision is twice as fast and as good; on a CPU it is slower. The logits stay float32. Whoever has
    chosen a policy keeps it."""
    kinds = {device.partition(":")[0] for device in hardware.accelerators()}
    if not kinds or keras.config.dtype_policy().name != "float32":
        return nullcontext()
    return _policy("mixed_bfloat16" if "tpu" in kinds else "mixed_float16")


def _loss(logs) -> float:
    return float((logs or {}).get("loss", float("nan")))


def _in_notebook() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    shell = get_ipython()
    return shell is not None and "ipykernel" in type(shell).__module__
