"""Training a recipe: compile, fit, stop and go on, choose on val, write the checkpoint."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path

import keras

from course_lib import checkpoints, evaluation, hardware
from course_lib.recipes import Recipe

RUNS = Path(__file__).resolve().parents[1] / "runs"

# Keras leaves XLA off on a CPU, where compiling takes seconds; over a whole training a U-Net gains a fifth by it, a small
# one half. PyTorch's compiler is another matter.
JIT = "auto" if keras.backend.backend() == "torch" else True

# XLA takes minutes over a Mask R-CNN's step, whose sorting and gathering it does not make faster.
DETECTOR_JIT = "auto"


class Interrupted(RuntimeError):
    """The time limit was reached before the last epoch; the run's state is kept."""


class Diverged(RuntimeError):
    """The loss was no longer a finite number; the state before that epoch is kept."""


class StopWhenDiverged(keras.callbacks.Callback):
    """Ends a training whose loss is no longer finite, with a message that says so, instead of running on in vain.

    Keras's own TerminateOnNaN ends it silently, and after the callbacks that would keep the spoilt weights.

    Args:
        recipe: whose training it is.
    """

    def __init__(self, recipe: Recipe):
        super().__init__()
        self.recipe = recipe

    def on_epoch_end(self, epoch, logs=None):
        spoilt = [name for name, value in (logs or {}).items() if not math.isfinite(value)]
        if spoilt:
            clip = "no clip" if self.recipe.clip is None else f"clip {self.recipe.clip:g}"
            raise Diverged(
                f"{self.recipe.name}: in epoch {epoch + 1} {', '.join(spoilt)} was not a finite number. Nothing of this "
                "epoch is kept. Look for a broken picture, or train with a lower learning_rate (it is "
                f"{self.recipe.learning_rate:g}) or a clip (there is {clip})."
            )


class Resume(keras.callbacks.Callback):
    """Keeps the state of a run after each epoch, and goes on from it.

    Keras's own BackupAndRestore writes weights and epoch into two files in place, so that a kill between the two leaves
    a pair that does not belong together, and it forgets the history. Here the weights (the optimizer's too) go into a
    new file, and one small JSON file, replaced atomically, says which file counts.

    Args:
        folder: where the state lies; made if need be.
        batches: the training batches, whose epoch counter must go on too.
        minutes: stop after the epoch in which this time is over.
    """

    def __init__(self, folder: Path, batches, minutes: float | None = None):
        super().__init__()
        self.folder, self.batches, self.minutes = Path(folder), batches, minutes
        self.history: dict[str, list[float]] = {}
        self.epoch, self.seconds = 0, 0.0

    def restore(self, model: keras.Model) -> int:
        """Put the kept state into a compiled model; returns the epochs already done, 0 for a new run."""
        state = self.folder / "state.json"
        if not state.is_file():
            return 0
        kept = json.loads(state.read_text(encoding="utf8"))
        model.optimizer.build(model.trainable_variables)
        model.load_weights(self.folder / kept["weights"])
        self.history, self.epoch, self.seconds = kept["history"], kept["epoch"], kept["seconds"]
        self.batches.epoch = self.epoch
        return self.epoch

    def on_train_begin(self, logs=None):
        self._begun = time.perf_counter() - self.seconds
        self._limit = None if self.minutes is None else time.perf_counter() + 60 * self.minutes

    def on_epoch_end(self, epoch, logs=None):
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(float(value))
        self.epoch, self.seconds = epoch + 1, time.perf_counter() - self._begun
        self.folder.mkdir(parents=True, exist_ok=True)
        weights = self.folder / f"epoch-{self.epoch:04d}.weights.h5"
        self.model.save_weights(weights)
        state = {
            "weights": weights.name,
            "epoch": self.epoch,
            "seconds": self.seconds,
            "history": self.history,
        }
        checkpoints.write_json(self.folder / "state.json", state)
        for old in self.folder.glob("*.weights.h5"):
            if old != weights:
                old.unlink()
        if self._limit is not None and time.perf_counter() > self._limit:
            self.model.stop_training = True


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
        share = (batch + 1) / steps
        bar = "█" * round(20 * share) + "·" * (20 - round(20 * share))
        left = (now - self._begun) / self._done * ((self.epochs - self._epoch) * steps - batch - 1)
        line = f"epoch {self._epoch + 1}/{self.epochs} {bar} loss {_loss(logs):.4f}, about {left / 60:.1f} min left"
        if self._display is not None:
            self._display.update({"text/plain": line}, raw=True)
        elif self.stream.isatty():
            print(f"\r{line}  ", end="", file=self.stream, flush=True)

    def on_epoch_end(self, epoch, logs=None):
        if self._display is None:
            facts = ", ".join(f"{name} {value:.4f}" for name, value in (logs or {}).items())
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
    own = {} if recipe.detects else {"loss": recipe.loss()}
    model.compile(optimizer=recipe.optimizer(), jit_compile=jit, **own)


def train(
    recipe: Recipe,
    runs: Path | None = None,
    root: Path | None = None,
    minutes: float | None = None,
    callbacks: tuple = (),
    progress: bool = True,
) -> dict:
    """Train a recipe to its end and write its checkpoint; go on where an earlier call was stopped or killed.

    Args:
        recipe: what to train.
        runs: folder for the state of unfinished runs, by default `runs/` in the project.
        root: folder of checkpoints, by default the course's.
        minutes: stop after this time, between two epochs; the next call goes on.
        callbacks: further Keras callbacks.
        progress: write progress to standard error.

    Returns:
        The card of the checkpoint.

    Raises:
        Interrupted: if `minutes` were over before the last epoch.
        Diverged: if the loss was not finite.
        DataUnavailable: if the data is not here.
    """
    data = recipe.data("train")
    val = recipe.data("val")
    # On a GPU half precision is twice as fast and as good; on a CPU it is slower. The logits stay float32.
    keras.mixed_precision.set_global_policy("mixed_float16" if hardware.accelerators() else "float32")
    model = recipe.model(recipe.crop)
    compile_model(model, recipe, jit=DETECTOR_JIT if recipe.detects else JIT)
    batches = recipe.batches("train", data)
    resume = Resume((runs or RUNS) / f"{recipe.name}-{recipe.digest}", batches, minutes)
    done = resume.restore(model)
    if done and progress:
        print(f"{recipe.name}: going on after epoch {done} of {recipe.epochs}", file=sys.stderr, flush=True)
    if done < recipe.epochs:
        model.fit(
            batches,
            validation_data=recipe.batches("val", val),
            initial_epoch=done,
            epochs=recipe.epochs,
            verbose=0,
            # Keras would shuffle the batches once more, from a state of chance that a resumed run does not have.
            shuffle=False,
            # The first may refuse what the second would keep.
            callbacks=[
                StopWhenDiverged(recipe),
                resume,
                *([Progress(recipe.epochs)] if progress else []),
                *callbacks,
            ],
        )
    if resume.epoch < recipe.epochs:
        raise Interrupted(
            f"{recipe.name}: stopped after epoch {resume.epoch} of {recipe.epochs}, as asked; "
            "the same command goes on from there."
        )
    return finish(recipe, model, resume, val, root, progress)


def finish(
    recipe: Recipe, model: keras.Model, resume: Resume, val, root: Path | None, progress: bool
) -> dict:
    """Round the weights, choose the thresholds on val, measure, write the checkpoint. Returns the card."""
    keras.mixed_precision.set_global_policy("float32")
    shipped = recipe.model()
    for variable, trained in zip(shipped.weights, model.weights, strict=True):
        variable.assign(checkpoints.rounded(checkpoints.keras_numpy(trained)).astype("float32"))
    if progress:
        print(f"{recipe.name}: choosing thresholds and measuring on val", file=sys.stderr, flush=True)
    probabilities = evaluation.predict_all(recipe, shipped, val)
    chosen = evaluation.choose(recipe, val, probabilities)
    metrics = evaluation.measure(recipe, val, probabilities, chosen)
    content = {
        **hardware.describe(),
        "parameters": shipped.count_params(),
        "epochs": resume.epoch,
        "seconds": round(resume.seconds),
        "chosen": chosen,
        "val": metrics,
        "history": {name: [round(value, 5) for value in values] for name, values in resume.history.items()},
    }
    checkpoints.save(recipe, shipped, content, root)
    return checkpoints.card(recipe, root)


def _loss(logs) -> float:
    return float((logs or {}).get("loss", float("nan")))


def _in_notebook() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    shell = get_ipython()
    return shell is not None and "ipykernel" in type(shell).__module__
