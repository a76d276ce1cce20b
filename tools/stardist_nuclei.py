"""The nuclei of chapter 9 by a method of others, so that "not this net" is measured and not only said.

StarDist (Schmidt et al. 2018, Cell Detection with Star-convex Polygons, https://arxiv.org/abs/1806.03535) learns for each
pixel the distances to the outline of its object in 32 directions, and keeps the best of the polygons by non-maximum
suppression: no border class, no watershed. Here its authors' own package is trained on the course's train split with the
settings of their examples, but for a learning rate that falls along a cosine; the epoch is chosen by its loss on val, the
two thresholds by the same score as those of `unet-nuclei`.

The package wants the Keras of before version 3, so it gets an environment of its own:

    python -m venv stardist && stardist/bin/pip install -c constraints.txt . stardist==0.9.2 tf-keras
    KERAS_BACKEND=tensorflow stardist/bin/python tools/stardist_nuclei.py

It writes `data/results/real-data/nuclei-stardist.json`, numbers and names of pictures, which
`real_data.read("nuclei-stardist")` reads.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, whose results are written
if __name__ == "__main__":
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # TensorFlow looks when it is imported, with Keras

from course_lib import datasets, hardware
from course_lib.chapters.ch09_real_data.real_data import FOLDER, pooled, rounded
from course_lib.files import write_json
from course_lib.metrics import instance

RATE = 3e-4
"""StarDist's default learning rate; here it falls along a cosine to a hundredth."""
CHOICES = {"prob_thresh": (0.3, 0.4, 0.5, 0.6, 0.7), "nms_thresh": (0.3, 0.4, 0.5)}
THRESHOLDS = np.linspace(0.5, 0.9, 9).round(2)
"""IoUs over whose mean the thresholds are chosen, as for `unet-nuclei`."""


def rate(epoch: int, epochs: int) -> float:
    """The learning rate of an epoch, counted from 0."""
    return RATE * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * (epoch + 0.5) / epochs)))


def augmented(
    image: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Right-angle turns, flips, brightness and noise, as in the examples of StarDist's authors."""
    turns, flip = rng.integers(4), rng.random() < 0.5
    image, labels = np.rot90(image, turns), np.rot90(labels, turns)
    if flip:
        image, labels = image[::-1], labels[::-1]
    image = image * rng.uniform(0.6, 2) + rng.uniform(-0.2, 0.2)
    return image + rng.normal(scale=rng.uniform(0, 0.02), size=image.shape), labels


def train(folder: Path, epochs: int, steps: int, progress: Callable[[str], None] = print):
    """Train StarDist on the train split; its validation loss is that of val.

    Args:
        folder: for its weights.
        epochs, steps: how long; a batch is 4 crops of 256 × 256 pixels.
        progress: told of each epoch.

    Returns:
        The trained `StarDist2D`, with the weights of its lowest validation loss (as its authors do), and the seconds.

    Raises:
        ModuleNotFoundError: without StarDist; the module's docstring says how to get it.
        DataUnavailable: if the pictures are not here.
    """
    import tf_keras
    from csbdeep.utils import normalize
    from stardist import fill_label_holes
    from stardist.models import Config2D, StarDist2D

    sets = {}
    for split in ("train", "val"):
        samples = list(datasets.nuclei(split))
        sets[split] = (
            [normalize(sample.image[..., 0], 1, 99.8) for sample in samples],
            [fill_label_holes(sample.instances) for sample in samples],
        )
    settings = Config2D(
        n_rays=32,
        grid=(2, 2),
        n_channel_in=1,
        train_patch_size=(256, 256),
        train_batch_size=4,
        train_epochs=epochs,
        train_steps_per_epoch=steps,
        train_learning_rate=RATE,
        train_reduce_lr=None,
        train_tensorboard=False,
    )
    model = StarDist2D(settings, name="nuclei", basedir=str(folder))
    model.prepare_for_training()
    rng, begun = np.random.default_rng(0), time.perf_counter()

    class Epochs(tf_keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.optimizer.learning_rate = rate(epoch, epochs)

        def on_epoch_end(self, epoch, logs=None):
            losses = ", ".join(f"{name} {logs[name]:.4f}" for name in ("loss", "val_loss"))
            progress(f"epoch {epoch + 1}/{epochs}: {losses} ({time.perf_counter() - begun:.0f} s)")

    model.callbacks.append(Epochs())
    model.train(
        *sets["train"],
        validation_data=sets["val"],
        augmenter=lambda image, labels: augmented(image, labels, rng),
    )
    return model, time.perf_counter() - begun


def answers(
    model, images: Sequence[np.ndarray], progress: Callable[[str], None] = print
) -> dict[tuple[float, float], list[np.ndarray]]:
    """For each pair of thresholds in `CHOICES`, an instance map of each picture; the net runs once for all."""
    from csbdeep.utils import normalize

    found: dict[tuple[float, float], list[np.ndarray]] = {}
    for number, image in enumerate(images, start=1):
        height, width = image.shape
        # The net wants sides that it can halve; what is added is cut off again on the grid of its answers.
        padded = np.pad(normalize(image, 1, 99.8), [(0, -side % 16) for side in image.shape], mode="reflect")
        probability, distances = model.predict(padded)
        grid = np.s_[: -(-height // 2), : -(-width // 2)]
        for first in CHOICES["prob_thresh"]:
            for second in CHOICES["nms_thresh"]:
                labels, _ = model._instances_from_prediction(
                    image.shape, probability[grid], distances[grid], prob_thresh=first, nms_thresh=second
                )
                found.setdefault((first, second), []).append(labels.astype(np.int32))
        progress(f"val: {number} of {len(images)} pictures")
    return found


def report(names: Sequence[str], truths: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> dict[str, Any]:
    """What `real_data.nuclei` says of the course's net, as far as it can be said of any.

    Args:
        names: of the pictures.
        truths, found: their instance maps.

    Returns:
        `pictures`: of each `name`, `nuclei`, `found`, and how many are `right_50` and `right_75` (at IoU 0.5 and 0.75);
        `scores`: as in `real_data.nuclei`.
    """
    rows, counts = [], []
    for name, truth, answer in zip(names, truths, found, strict=True):
        at = [instance.match(truth, answer, threshold) for threshold in (0.5, 0.75)]
        counts.append([(m.true_positives, m.false_positives, m.false_negatives) for m in at])
        right = {f"right_{key}": m.true_positives for key, m in zip((50, 75), at, strict=True)}
        nuclei = at[0].true_positives + at[0].false_negatives
        rows.append(
            {"name": name, "nuclei": nuclei, "found": at[0].true_positives + at[0].false_positives} | right
        )
    return {"pictures": rows, "scores": pooled(np.array(counts))}


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, choose on val, measure, write."""
    parser = argparse.ArgumentParser(description="StarDist on the nuclei, beside the course's nets.")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--steps", type=int, default=100, help="in an epoch")
    options = parser.parse_args(arguments)
    try:
        import stardist
    except ModuleNotFoundError as missing:
        print(f"{missing.name} is not installed.\n\n{__doc__}", file=sys.stderr)
        return 1
    say = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    val = list(datasets.nuclei("val"))
    truths = [sample.instances for sample in val]
    with tempfile.TemporaryDirectory() as folder:
        model, seconds = train(Path(folder), options.epochs, options.steps, say)
        found = answers(model, [sample.image[..., 0] for sample in val], say)
    means = {
        pair: np.mean(instance.average_precision(truths, maps, THRESHOLDS)) for pair, maps in found.items()
    }
    best = max(means, key=means.get)
    content = {
        "stardist": stardist.__version__,
        "epochs": options.epochs,
        "steps": options.steps,
        "seconds": round(seconds),
        "parameters": int(model.keras_model.count_params()),
        "chosen": dict(zip(CHOICES, best, strict=True)),
        "ap_mean": means[best],
        **report([sample.name for sample in val], truths, found[best]),
        "device": hardware.describe(),
    }
    write_json(FOLDER / "nuclei-stardist.json", rounded(content))
    for name, one in content["scores"].items():
        print(f"{name}: {one['pooled']:.3f} [{one['low']:.3f}, {one['high']:.3f}]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
