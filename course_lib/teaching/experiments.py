"""Experiments whose single runs are kept: contestants × settings × seeds, one small JSON file per run.

A run is a call `measure(**arguments)` of plain values that returns plain numbers. Its file in
`data/results/runs/<experiment>/` is named after the arguments and says which version of the code and which
data it comes from: where those have changed since, the run is *stale* and is made again. A killed process
loses the run it was in and nothing else; runs depend on their arguments alone, so a resumed experiment gives
what an uninterrupted one gives.
"""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from course_lib import resources
from course_lib.files import write_json

FOLDER = resources.DATA / "results" / "runs"

Arguments = Mapping[str, Any]
Results = Mapping[str, dict]


@dataclass(frozen=True)
class Experiment:
    """A set of runs that belong together.

    Attributes:
        name: of the folder of its runs.
        version: raised by hand when a change of the code changes what a run measures.
        measure: makes one run; returns numbers, lists and dictionaries of them.
        plan: from the results so far to the arguments of all runs now known to be needed, the most valuable
        first. It is
            asked again after each run, so that later runs may depend on earlier ones, as a comparison does on
            its tuning.
        data: a text that changes when the data does (see `fingerprint`).
        worth: experiments with a higher worth run first.
        total: of all runs, where the plan does not know them all from the start.
    """

    name: str
    version: int
    measure: Callable[..., dict]
    plan: Callable[[Results], Sequence[Arguments]]
    data: Callable[[], str] = lambda: ""
    worth: float = 0.0
    total: int = 0

    def path(self, arguments: Arguments, folder: Path | None = None) -> Path:
        """The file of a run's result."""
        return (folder or FOLDER) / self.name / f"{key(arguments)}.json"

    def stored(self, folder: Path | None = None) -> dict[str, dict]:
        """The files of all runs that were made, stale ones too, by their key."""
        paths = sorted(((folder or FOLDER) / self.name).glob("*.json"))
        return {path.stem: json.loads(path.read_text(encoding="utf8")) for path in paths}

    def results(self, folder: Path | None = None) -> dict[str, dict]:
        """What the valid runs measured, by key; stale runs are left out."""
        data = self.data()
        return {
            name: content["result"]
            for name, content in self.stored(folder).items()
            if (content["version"], content["data"]) == (self.version, data)
        }

    def missing(self, folder: Path | None = None) -> list[Arguments]:
        """Arguments of the runs that are still to be made, as far as is known now."""
        done = self.results(folder)
        return [arguments for arguments in self.plan(done) if key(arguments) not in done]

    def run(self, minutes: float | None = None, folder: Path | None = None, progress=None) -> int:
        """Make the missing runs one after the other; returns how many were made.

        Args:
            minutes: begin no run after this time.
            folder: of all experiments' runs, by default `data/results/runs`.
            progress: told a line after each run; by default a bar on standard error.
        """
        began, made = time.perf_counter(), 0
        while True:
            done = self.results(folder)
            planned = self.plan(done)
            missing = [arguments for arguments in planned if key(arguments) not in done]
            if not missing or (minutes is not None and time.perf_counter() - began > 60 * minutes):
                break
            arguments, start = missing[0], time.perf_counter()
            result = self.measure(**arguments)
            seconds = time.perf_counter() - start
            content = {
                "arguments": dict(arguments),
                "version": self.version,
                "data": self.data(),
                "seconds": round(seconds, 1),
                "result": rounded(result),
            }
            write_json(self.path(arguments, folder), content)
            made += 1
            (progress or _bar)(
                self.name, len(planned) - len(missing) + 1, len(planned), key(arguments), seconds
            )
        return made

    def status(self, folder: Path | None = None) -> dict[str, Any]:
        """How many runs are done, missing and stale, and the minutes that the missing ones need, judged by those made."""
        stored, done, missing = self.stored(folder), self.results(folder), self.missing(folder)
        seconds = [content["seconds"] for content in stored.values()]
        each = float(np.median(seconds)) if seconds else None
        lacking = max(len(missing), self.total - len(done))
        return {
            "experiment": self.name,
            "done": len(done),
            "missing": lacking,
            "stale": sum(key(arguments) in stored for arguments in missing),
            "minutes": None if each is None else round(lacking * each / 60, 1),
        }


def key(arguments: Arguments) -> str:
    """The arguments as a file name: `fraction=0.01,seed=3`."""
    return (
        ",".join(f"{name}={value}" for name, value in arguments.items()).replace(" ", "_").replace("/", "-")
    )


def search(
    first: Sequence[Arguments],
    then: Sequence[Callable[[dict], Sequence[Arguments]]],
    done: Results,
    score: str,
) -> tuple[list[dict], dict | None]:
    """A search for hyperparameters, one after the other, each with the best of those before.

    Args:
        first: arguments of the runs to begin with, such as one for each of three learning rates.
        then: each makes further ones from the arguments of the best run so far.
        done: the results so far.
        score: its name in a result; higher is better.

    Returns:
        Arguments of the runs that are known so far, and those of the best; `None` as long as a run is missing.
    """
    runs = list(first)
    for more in (*then, lambda best: ()):
        if any(key(run) not in done for run in runs):
            return runs, None
        best = max(runs, key=lambda run: done[key(run)][score])
        runs += more(best)
    return runs, best


def fingerprint(*arrays: np.ndarray) -> str:
    """12 hexadecimal digits of some samples: they change where the generator of the data does."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(str((array.shape, array.dtype)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:12]


def rounded(value: Any, digits: int = 5) -> Any:
    """Plain Python numbers with a few digits, through lists and dictionaries."""
    if isinstance(value, Mapping):
        return {str(name): rounded(one, digits) for name, one in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [rounded(one, digits) for one in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    return round(float(value), digits) if isinstance(value, (float, np.floating)) else value


def _bar(name: str, done: int, total: int, run: str, seconds: float) -> None:
    filled = round(20 * done / max(total, 1))
    print(
        f"{name} {'█' * filled}{'·' * (20 - filled)} {done}/{total}  {run} ({seconds:.0f} s)",
        file=sys.stderr,
        flush=True,
    )


class Trainee:
    """A network compiled once for one loss and trained many times over, each time from fresh weights.

    Args:
        build: makes the network; called under the seed of each training for its initial weights.
        loss: what is minimised.
    """

    def __init__(self, build: Callable[[], Any], loss):
        import keras

        self.build = build
        self.model = build()
        self.model.compile(optimizer=keras.optimizers.Adam(1e-3, global_clipnorm=10.0), loss=loss)
        self.model.optimizer.build(self.model.trainable_variables)

    def start(self, seed: int, prepare: Callable[[Any], None] | None = None) -> None:
        """Fresh weights from the seed; `prepare` may change them, and the optimizer remembers nothing."""
        import keras

        keras.utils.set_random_seed(seed)
        fresh = self.build()
        if prepare:
            prepare(fresh)
        self.model.set_weights(fresh.get_weights())
        for variable in self.model.optimizer.variables:
            variable.assign(np.zeros(variable.shape, str(variable.dtype)))

    def train(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        steps: int,
        batch_size: int,
        learning_rate: float,
        seed: int,
        score: Callable[[], float] | None = None,
        scored: int = 8,
        draw: Callable[..., Iterator[tuple]] | None = None,
    ) -> list[tuple[int, float]]:
        """Train on random flips and quarter turns of square images with a linear warm-up and a cosine to zero.

        Args:
            images: float32 `(n, side, side, channels)`.
            labels: int32 `(n, side, side)`.
            steps: gradient steps.
            batch_size: images a step.
            learning_rate: its highest value.
            seed: of the order of the images.
            score: called `scored` times on the way; its values are the learning curve.
            draw: what gives the batches instead of `batches`, with its arguments; a batch may have weights for its pixels.

        Returns:
            `(step, score)` pairs.

        Raises:
            FloatingPointError: if the loss was no finite number.
        """
        curve = []
        for step, batch in enumerate((draw or batches)(images, labels, steps, batch_size, seed)):
            warm = min(1.0, (step + 1) / (0.05 * steps))
            self.model.optimizer.learning_rate.assign(
                learning_rate * warm * 0.5 * (1 + np.cos(np.pi * step / steps))
            )
            loss = float(self.model.train_on_batch(*batch))
            if not np.isfinite(loss):
                raise FloatingPointError(
                    f"the loss is {loss} at step {step}; it must be finite: lower the learning rate."
                )
            if score and (step + 1) % max(1, steps // scored) == 0:
                curve.append((step + 1, score()))
        return curve

    def logits(self, images: np.ndarray) -> np.ndarray:
        """The network's output for many images, float32 `(n, height, width, classes)`."""
        return run_model(self.model, images)


def run_model(model, images: np.ndarray, size: int = 32):
    """A model's outputs for many images as arrays; the last batch is filled up, so that one shape is compiled."""
    parts = []
    inputs = images if isinstance(images, (list, tuple)) else [images]
    count = len(inputs[0])
    for start in range(0, count, size):
        piece = [one[start : start + size] for one in inputs]
        short = size - len(piece[0])
        if short:
            piece = [np.concatenate([one, np.repeat(one[-1:], short, 0)]) for one in piece]
        outputs = model.predict_on_batch(piece if len(piece) > 1 else piece[0])
        outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        parts.append([np.asarray(one)[: size - short] for one in outputs])
    joined = [np.concatenate(part) for part in zip(*parts, strict=True)]
    return joined[0] if len(joined) == 1 else joined


def batches(
    images: np.ndarray, labels: np.ndarray, steps: int, batch_size: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Random batches, flipped and turned at random: the same for every contestant with the same seed."""
    rng = np.random.default_rng([seed, 1505])
    for _ in range(steps):
        chosen = rng.integers(len(images), size=batch_size)
        batch, truth = images[chosen], labels[chosen]
        for axis in (1, 2):
            if rng.random() < 0.5:
                batch, truth = np.flip(batch, axis), np.flip(truth, axis)
        if rng.random() < 0.5:
            batch, truth = batch.swapaxes(1, 2), truth.swapaxes(1, 2)
        yield np.ascontiguousarray(batch), np.ascontiguousarray(truth)
