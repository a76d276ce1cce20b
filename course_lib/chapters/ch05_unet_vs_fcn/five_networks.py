"""Five networks on scenes of four classes that they can learn: evidence of claims 5.3 and 5.4.

Fixed before the first run: images, labels and schedule are those of `scenes_networks` (48 × 48 pixels, 1,200
steps of 16 images); the numbers of trainable parameters agree within 2 %; each network tries three learning
rates on a tuning seed that is not reported, judged by the mean IoU on validation images; five seeds are
reported, each with its own images and initial weights, shared by all networks; gate: the best network reaches
an IoU of 0.5 for every class.
"""

from functools import lru_cache

import numpy as np

from course_lib import losses, models
from course_lib.chapters.ch03_unet_encoder import scenes_networks as scenes
from course_lib.metrics.boundary import boundary_f1
from course_lib.teaching.experiments import Experiment, Trainee, key, search
from course_lib.teaching.statistics import Gate

SEEDS = (0, 1, 2, 3, 4)
TUNING_SEED = 100
RATES = (6e-3, 2e-3, 2e-2)
TOLERANCES = (1, 2, 4)
"""Of the boundary F1, in pixels."""
NETWORKS = ("U-Net", "FCN-8s", "DeepLabV3+", "FCN-16s", "FCN-32s")


def build(
    network: str,
    shape: tuple[int, int, int] = (scenes.SIDE, scenes.SIDE, 3),
    classes: int = len(scenes.CLASSES) + 1,
):
    """A network with 121,213 trainable parameters, within 2 %; a little less for fewer channels and classes."""
    if network == "U-Net":
        return models.unet(
            shape, classes, depth=scenes.DEPTH, filters=scenes.FILTERS["concat"], normalization="batch"
        )
    if network == "DeepLabV3+":
        return models.deeplab(
            shape,
            classes,
            backbone="small",
            output_stride=8,
            widths=(7, 14, 28, 56),
            aspp_filters=26,
            decoder_filters=(14, 26),
            rates=(1, 2, 3),
            dropout=0.0,
        )
    return models.fcn(
        shape,
        classes,
        stride=int(network.removeprefix("FCN-").removesuffix("s")),
        backbone="small",
        widths=(6, 12, 24, 48, 48),
        head_filters=74,
        normalization="batch",
        dropout=0.0,
    )


@lru_cache(maxsize=5)
def trainee(network: str) -> Trainee:
    """One compiled network of each kind."""
    return Trainee(lambda: build(network), losses.CrossEntropy())


def measure(network: str, rate: float, seed: int) -> dict:
    """Train one network; the IoU of each class, area, outline and class of the objects as `scenes.scores` has them, and the
    boundary F1 of objects against background."""
    images, labels, _ = scenes.images_of("train", seed)
    val_images, val_labels, _ = scenes.images_of("val", seed)
    test_images, test_labels, _ = scenes.images_of("test", seed)
    one = trainee(network)
    one.start(seed)

    def on_val() -> float:
        return float(np.mean(scenes.class_ious(one.logits(val_images).argmax(-1), val_labels)))

    try:
        curve = one.train(images, labels, scenes.STEPS, scenes.BATCH_SIZE, rate, seed, on_val)
    except FloatingPointError as error:
        return {"diverged": str(error), "val": 0.0}
    found = one.logits(test_images).argmax(-1)
    return {
        "parameters": sum(int(np.prod(variable.shape)) for variable in one.model.trainable_variables),
        "curve": curve,
        "val": on_val(),
        "class_iou": scenes.class_ious(found, test_labels),
        "whole": scenes.scores(found, test_labels),
        "boundary_f1": {
            str(tolerance): float(
                np.nanmean(
                    [boundary_f1(y > 0, x > 0, tolerance) for y, x in zip(test_labels, found, strict=True)]
                )
            )
            for tolerance in TOLERANCES
        },
    }


def tuning(network: str) -> list[dict]:
    """The learning rates that are tried."""
    return [{"network": network, "rate": rate, "seed": TUNING_SEED} for rate in RATES]


def reported(network: str, done) -> list[dict]:
    """The reported runs' arguments, as soon as the learning rate is chosen."""
    best = search(tuning(network), (), done, "val")[1]
    return [best | {"seed": seed} for seed in SEEDS] if best else []


def plan(done) -> list[dict]:
    """The tuning of all networks, then network by network the reported seeds."""
    first = [run for name in NETWORKS for run in tuning(name)]
    return first + [run for name in NETWORKS for run in reported(name, done)]


def results(network: str) -> dict[int, dict]:
    """Seed → what a reported run measured, as far as it is there."""
    done = EXPERIMENT.results()
    return {run["seed"]: done[key(run)] for run in reported(network, done) if key(run) in done}


def gate() -> Gate | None:
    """Whether the best network has learned every class; None before the first reported run."""
    lowest = [min(run["class_iou"]) for name in NETWORKS for run in results(name).values()]
    return Gate("lowest class IoU of the best network", 0.5, max(lowest), 0.0) if lowest else None


def missing() -> int:
    """Runs that are still to be made."""
    return EXPERIMENT.total - len(EXPERIMENT.results())


EXPERIMENT = Experiment(
    "five-networks",
    1,
    measure,
    plan,
    scenes.data_fingerprint,
    worth=7,
    total=len(NETWORKS) * (len(RATES) + len(SEEDS)),
)
