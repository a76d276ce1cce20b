"""Claim 2.3: what semantic and instance segmentation cost, with the networks and settings whose accuracy 2.2 reports.

Fixed before the first run:

- Networks: the U-Net with a border class that averages four views, and Mask R-CNN with 1000 proposals and places for
  400 detections, both as in `comparison.METHODS`. Gate: as for claim 6.3.
- A training step: 8 images of 128 × 128 pixels of synthetic cells for both, in seconds of processor time, in turns in one
  process, eight rounds: repetitions on one machine.
- A prediction: the seconds of one core that claim 2.2 took for each image of the validation set, from the image to its
  objects. The interval is that of a bootstrap over the images.
- Verdict: Mask R-CNN over U-Net for both; no effect is 1. Parameters, multiply-adds and memory are counted from the
  graphs, for an image of 256 × 256: numbers without an interval. Memory is the most that has to be there at a time.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from course_lib import datasets, recipes, training
from course_lib.chapters.ch07_mask_rcnn_training_and_limits import comparison
from course_lib.chapters.ch07_mask_rcnn_training_and_limits.limits import (
    DETECTOR,
    ROUNDS,
    SIDE,
    UNET,
    detector_costs,
    gate,
    network_costs,
    shipped,
    take_turns,
    weights,
    with_settings,
)
from course_lib.models.predict import AVERAGES
from course_lib.teaching.experiments import Experiment, key
from course_lib.teaching.ledger import Result, judged
from course_lib.teaching.statistics import Resampled, judge

STEP = {"side": 128, "batch": 8}
"""Of the training step: pixels, images."""
RESAMPLES = 2000


def counted() -> dict[str, dict[str, int]]:
    """Parameters, multiply-adds and memory in bytes of both networks, for one image of `SIDE` × `SIDE`."""
    ours, theirs = comparison.METHODS["border"], comparison.METHODS["mask_rcnn"]
    unet, detector = shipped(UNET)[1], shipped(DETECTOR)[1]
    detector = with_settings(
        detector,
        rpn_post_nms_top_n=(detector.settings.rpn_post_nms_top_n[0], theirs.proposals),
        box_detections_per_img=theirs.detections,
    )
    views = len(AVERAGES[ours.tta])  # all of them in one batch
    one_view, whole = network_costs(unet, (SIDE, SIDE)), detector_costs(detector, (SIDE, SIDE))["all"]
    return {
        "unet": {
            "parameters": unet.count_params(),
            "multiply_adds": views * one_view["multiply_adds"],
            "memory": views * one_view["peak_bytes"],
        },
        "mask_rcnn": {
            "parameters": detector.count_params(),
            "multiply_adds": whole["multiply_adds"],
            "memory": whole["peak_bytes"],
        },
    }


def training_step(name: str, side: int, batch: int) -> Callable[[], object]:
    """One training step of a recipe's network on synthetic cells, compiled as Keras does by default."""
    recipe = replace(
        recipes.get(name),
        dataset=datasets.cells,
        train_data={"length": batch, "size": side, "seed": 1},
        batch_size=batch,
        crop=(side, side),
        sampling="uniform",
        steps=1,
    )
    model = recipe.model(recipe.crop)
    training.compile_model(model, recipe)
    images, targets = recipe.batches("train")[0][:2]
    return partial(model.train_on_batch, images, targets)


def measure(side: int, batch: int) -> dict:
    """`seconds` of a training step, one per round, and what is `counted`, of `unet` and `mask_rcnn`."""
    steps = {
        name: training_step(recipe, side, batch) for name, recipe in (("unet", UNET), ("mask_rcnn", DETECTOR))
    }
    return {"seconds": take_turns(steps), "counted": counted()}


EXPERIMENT = Experiment("training-step", 1, measure, lambda _: [STEP], weights, worth=3)
EXPERIMENTS = (EXPERIMENT, comparison.EXPERIMENT)


def claim_2_3(progress: Callable[[str], None] = print) -> Result:
    """Semantic segmentation is simpler, instance segmentation more complex.

    The table:
        unet, mask_rcnn: `parameters`, `multiply_adds`, `memory` (bytes), `step` (seconds per round), `prediction` (seconds
            per image), `recall_touching` and `ap_50` (see claim 2.2); what was not measured yet is not there.
        ratio: of these numbers, Mask R-CNN over U-Net, means for what was timed.
    """
    table: dict = {"unet": {}, "mask_rcnn": {}}
    settings: dict = {"a training step": [], "a prediction": []}
    done = EXPERIMENT.results().get(key(STEP))
    if done:
        for name, row in table.items():
            row |= done["counted"][name] | {"step": done["seconds"][name]}
        settings["a training step"] = np.divide(table["mask_rcnn"]["step"], table["unet"]["step"]).tolist()
    runs = comparison.EXPERIMENT.results()
    found = [runs.get(key({"method": name})) for name in ("border", "mask_rcnn")]
    if all(found):
        for row, run in zip(table.values(), found, strict=True):
            counts = {name: np.array(values) for name, values in run["tallies"].items()}
            scores = comparison.scores_of(counts)
            row |= {"prediction": run["seconds"]} | {
                name: scores[name] for name in ("recall_touching", "ap_50")
            }
        seconds = np.array([row["prediction"] for row in table.values()])
        images = seconds.shape[1]
        drawn = seconds[:, np.random.default_rng(0).integers(0, images, (RESAMPLES, images))].sum(-1)
        settings["a prediction"] = Resampled(
            float(seconds[1].sum() / seconds[0].sum()), drawn[1] / drawn[0], images
        )
    table["ratio"] = {
        name: float(np.mean(value) / np.mean(table["unet"][name]))
        for name, value in table["mask_rcnn"].items()
    }
    return judged(
        "2.3",
        "Semantic segmentation is simpler; instance segmentation is more complex.",
        "processor time of Mask R-CNN divided by that of a U-Net with a border class and four views (1 = equal)",
        judge(settings, gate(), ROUNDS, null=1.0, margin=0.1, ratio=True),
        table,
        gate(),
        sum(len(experiment.missing()) for experiment in EXPERIMENTS),
    )
