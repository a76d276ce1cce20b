"""The two networks of chapter 12 that are trained here: queries on scenes, and prompts on cells and scenes.

Train one again, in a few minutes on one core, and write its weights and card to `data/networks`:

    python -m course_lib.chapters.ch12_pretrained_and_after.small_networks queries
"""

import sys
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import keras
import numpy as np
from keras import ops

import course_lib
from course_lib import checkpoints, datasets, hardware, resources
from course_lib.datasets.sample import Sample
from course_lib.files import write_json
from course_lib.models.prompted import mask_decoder, prompted_network
from course_lib.models.queries import query_network, read_queries
from course_lib.tasks import whole_masks
from course_lib.teaching.statistics import Interval

SIDE, OBJECTS, POINTS = 64, 4, 4
SCENES = {
    "objects": (1, OBJECTS),
    "object_size": (14.0, 48.0),
    "contrast": (0.3, 0.5),
    "noise": (0.0, 0.02),
    "occlusion": 0.2,
}
CELLS = {"radius": (4.0, 9.0)}
FOLDER = resources.DATA / "networks"
STEPS = {"queries": 3000, "prompted": 1500}
RATES = {"queries": 1e-3, "prompted": 2e-3}
BATCH_SIZE = 8


@lru_cache
def scenes(split: str, length: int) -> tuple[Sample, ...]:
    """Synthetic scenes of one to four objects."""
    data = datasets.scenes(split, length, SIDE, 12, **SCENES)
    return tuple(sample for sample in (data[k] for k in range(length)) if len(sample.classes))


@lru_cache
def cells(split: str, length: int) -> tuple[Sample, ...]:
    """Synthetic cells, grey repeated to three channels."""
    data = datasets.cells(split, length, SIDE, 12, **CELLS)
    return tuple(sample for sample in (data[k] for k in range(length)) if len(sample.classes))


def colour(image: np.ndarray) -> np.ndarray:
    """An image with three channels, float32."""
    return np.repeat(image, 3 // image.shape[-1], -1).astype("float32")


def turned(rng: np.random.Generator, *maps: np.ndarray) -> list[np.ndarray]:
    """Maps `(height, width, …)`, all flipped and turned alike, at random."""
    turns, flip = rng.integers(4), rng.random() < 0.5
    return [np.rot90(one[:, ::-1] if flip else one, turns) for one in maps]


def objects_of(instances: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a network of queries learns of an instance map: the classes of up to four objects, 0 for none, and their masks
    at half the size."""
    masks = np.zeros((OBJECTS, SIDE // 2, SIDE // 2), np.float32)
    ids = np.zeros(OBJECTS, np.int32)
    for number, kind in enumerate(classes[:OBJECTS]):
        whole = instances == number + 1
        masks[number] = whole.reshape(SIDE // 2, 2, SIDE // 2, 2).mean((1, 3)) >= 0.5
        ids[number] = kind if masks[number].any() else 0
    return ids, masks


def query_batches(samples: tuple[Sample, ...], steps: int, seed: int) -> Iterator[tuple]:
    """Images and `(classes, masks)`."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        images, classes, masks = [], [], []
        for k in rng.integers(len(samples), size=BATCH_SIZE):
            image, instances = turned(rng, colour(samples[k].image), samples[k].instances)
            images.append(image)
            for kept, one in zip((classes, masks), objects_of(instances, samples[k].classes), strict=True):
                kept.append(one)
        yield np.stack(images), (np.stack(classes), np.stack(masks))


def prompt_batches(samples: tuple[Sample, ...], steps: int, seed: int) -> Iterator[tuple]:
    """`[images, points]` and the masks of the objects at the points, each a random pixel of a random object."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        images, points, masks = [], [], []
        for k in rng.integers(len(samples), size=BATCH_SIZE):
            image, instances = turned(rng, colour(samples[k].image), samples[k].instances)
            images.append(image)
            for number in rng.choice(np.unique(instances[instances > 0]), POINTS):
                rows, columns = np.nonzero(instances == number)
                at = rng.integers(len(rows))
                points.append((columns[at] + 0.5, rows[at] + 0.5))
                masks.append(instances == number)
        shape = (BATCH_SIZE, POINTS)
        where = np.array(points, np.float32).reshape(*shape, 2)
        yield [np.stack(images), where], np.array(masks, np.float32).reshape(*shape, SIDE, SIDE)


def mask_loss(masks, logits):
    """Mean binary cross-entropy + Dice loss of each mask, `(batch, points, height, width)`."""
    entropy = ops.mean(ops.softplus(logits) - logits * masks, axis=(2, 3))
    area = ops.sigmoid(logits)
    both = ops.sum(area, axis=(2, 3)) + ops.sum(masks, axis=(2, 3))
    return entropy + 1 - (2 * ops.sum(area * masks, axis=(2, 3)) + 1) / (both + 1)


def train(
    model: keras.Model,
    batches: Iterator[tuple],
    steps: int,
    rate: float,
    said: Callable = lambda step, loss: None,
) -> list[float]:
    """Follow the batches with a learning rate that climbs for a twentieth of the steps and falls to 0 along a cosine.

    Returns:
        The mean loss of each twentieth of the steps.
    """
    losses: list[float] = []
    for step, (inputs, targets) in enumerate(batches):
        warm = min(1.0, (step + 1) / (0.05 * steps))
        model.optimizer.learning_rate.assign(rate * warm * 0.5 * (1 + np.cos(np.pi * step / steps)))
        losses.append(float(model.train_on_batch(inputs, targets)))
        if (step + 1) % max(1, steps // 20) == 0:
            said(step + 1, float(np.mean(losses[-max(1, steps // 20) :])))
    return [float(np.mean(part)) for part in np.array_split(losses, min(20, len(losses)))]


def network(name: str) -> keras.Model:
    """The untrained network `"queries"` or `"prompted"`, compiled."""
    model = query_network(SIDE) if name == "queries" else prompted_network(SIDE, points=POINTS)
    model.compile(
        keras.optimizers.AdamW(RATES[name], weight_decay=1e-4, global_clipnorm=1.0),
        None if name == "queries" else mask_loss,
    )
    return model


def loaded(name: str) -> tuple[keras.Model, dict[str, Any]]:
    """A trained network and its card: `steps`, `seconds`, `losses`, `device`."""
    model = network(name)
    checkpoints.load_weights(model, FOLDER / f"ch12-{name}.npz")
    return model, checkpoints.read_json(FOLDER / f"ch12-{name}.json")


# What they are worth -------------------------------------------------------------------------------------------


def counted(found: dict, sample: Sample, iou: float) -> tuple[int, int, int]:
    """True positives, false positives and missed objects of one image: the best first, each takes the object of its class
    that it overlaps most, if by at least `iou`."""
    truth = sample.instances == np.arange(1, len(sample.classes) + 1)[:, None, None]
    free, hits = np.ones(len(truth), bool), 0
    for kind, mask in zip(found["classes"], found["masks"], strict=True):
        both = (truth & mask).sum((1, 2)) / np.maximum(1, (truth | mask).sum((1, 2)))
        both = np.where(free & (sample.classes == kind), both, 0)
        if len(both) and both.max() >= iou:
            free[both.argmax()] = False
            hits += 1
    return hits, len(found["classes"]) - hits, int(free.sum())


def precision(counts: np.ndarray) -> float:
    """TP / (TP + FP + FN) of `(images, 3)` counts together, the average precision of the nuclei challenge of 2018."""
    hits, false, missed = counts.sum(0)
    return float(hits / max(1, hits + false + missed))


def by_queries(model: keras.Model, samples: tuple[Sample, ...]) -> list[dict]:
    """What the network of queries finds in each image, down to a score of 0.1."""
    return read_queries(model.predict_on_batch(np.stack([colour(sample.image) for sample in samples])), 0.1)


def by_mask_rcnn(samples: tuple[Sample, ...]) -> list[dict]:
    """What the course's Mask R-CNN finds in each image, down to a score of 0.1. It was trained on larger scenes."""
    segmenter, found = course_lib.load("maskrcnn-scenes"), []
    for sample in samples:
        output = segmenter.output(sample.image)
        kept = output["scores"] >= 0.1
        masks = whole_masks(output)[kept]
        found.append({"classes": output["classes"][kept], "scores": output["scores"][kept], "masks": masks})
    return found


def above(found: dict, least: float) -> dict:
    """The objects with at least this score."""
    kept = found["scores"] >= least
    return {name: value[kept] for name, value in found.items()}


LEAST = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
IOUS = (0.5, 0.75)


def judged_on(find: Callable[[tuple[Sample, ...]], list[dict]], images: int = 100) -> dict[str, Any]:
    """Counts of each test image at IoU 0.5 and 0.75, with the least score chosen on as many validation images."""
    val, test = scenes("val", images), scenes("test", images)
    on_val = find(val)

    def score(least: float) -> float:
        return precision(
            np.array([counted(above(one, least), s, 0.5) for one, s in zip(on_val, val, strict=True)])
        )

    least = max(LEAST, key=score)
    found = [above(one, least) for one in find(test)]
    counts = {str(iou): [counted(one, s, iou) for one, s in zip(found, test, strict=True)] for iou in IOUS}
    return {"least": least, "counts": counts}


def interval_of(score: Callable[..., float], *counts: np.ndarray) -> Interval:
    """A score of counts `(images, 3)`, and its 95 % bootstrap interval over the images, drawn for all counts alike."""
    rng, images = np.random.default_rng(0), len(counts[0])
    drawn = [score(*(one[chosen] for one in counts)) for chosen in rng.integers(images, size=(2000, images))]
    return Interval(score(*counts), *map(float, np.percentile(drawn, [2.5, 97.5])))


def clicks(model: keras.Model, samples: tuple[Sample, ...]) -> list[float]:
    """The IoU of the mask at one random pixel of one random object of each image."""
    parts = parts_of(model)
    ious = []
    for number, sample in enumerate(samples):
        rng = np.random.default_rng([12, number])
        chosen = rng.choice(np.unique(sample.instances[sample.instances > 0]))
        rows, columns = np.nonzero(sample.instances == chosen)
        at = rng.integers(len(rows))
        mask = mask_at(parts, embedded(parts, sample.image), columns[at] + 0.5, rows[at] + 0.5) > 0
        truth = sample.instances == chosen
        ious.append(float((mask & truth).sum() / (mask | truth).sum()))
    return ious


def parts_of(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """The image encoder and a mask decoder for one point, of a trained network."""
    channels = model.get_layer("image_encoder").output_shape[-1]
    decoder = mask_decoder(SIDE, channels, 1)
    decoder.set_weights(model.get_layer("mask_decoder").get_weights())
    return model.get_layer("image_encoder"), decoder


def embedded(parts: tuple[keras.Model, keras.Model], image: np.ndarray) -> np.ndarray:
    """The embeddings of one image, computed once."""
    return ops.convert_to_numpy(parts[0](colour(image)[None], training=False))


def mask_at(parts: tuple[keras.Model, keras.Model], embeddings: np.ndarray, x: float, y: float) -> np.ndarray:
    """Mask logits `(side, side)` of the object at a point."""
    point = np.array([[[x, y]]], np.float32)
    return ops.convert_to_numpy(parts[1]([embeddings, point], training=False))[0, 0]


def main(name: str, steps: int | None = None) -> None:
    """Train a network and write its weights and card."""
    keras.utils.set_random_seed(12)
    steps = steps or STEPS[name]
    samples = scenes("train", 2000)
    if name == "prompted":
        samples = (*samples[:1000], *cells("train", 700))
    model, began = network(name), time.perf_counter()
    batches = (query_batches if name == "queries" else prompt_batches)(samples, steps, 12)
    losses = train(
        model,
        batches,
        steps,
        RATES[name],
        lambda step, loss: print(f"{name} {step}/{steps} loss {loss:.4f}", flush=True),
    )
    FOLDER.mkdir(parents=True, exist_ok=True)
    checkpoints.save_weights(model, FOLDER / f"ch12-{name}.npz")
    card = {
        "steps": steps,
        "images": len(samples),
        "seconds": round(time.perf_counter() - began),
        "losses": [round(loss, 4) for loss in losses],
    }
    model = network(name)  # measured as the file has it: rounded
    checkpoints.load_weights(model, FOLDER / f"ch12-{name}.npz")
    write_json(FOLDER / f"ch12-{name}.json", card | {"device": hardware.describe()} | measured(name, model))


def measured(name: str, model: keras.Model) -> dict[str, Any]:
    """The scores of a trained network on test images, for the card."""
    if name == "queries":
        return {
            "queries": judged_on(lambda samples: by_queries(model, samples)),
            "mask_rcnn": judged_on(by_mask_rcnn),
        }
    return {
        kind: np.round(clicks(model, data("test", 100)), 4).tolist()
        for kind, data in (("scenes", scenes), ("cells", cells))
    }


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
