"""Chapter 6 of the claims: what there is to get wrong when a Mask R-CNN is trained, and how it looks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import keras
import numpy as np

from course_lib import recipes, training
from course_lib.chapters.ch06_mask_rcnn_components.roi import SMALL
from course_lib.chapters.ch07_mask_rcnn_training_and_limits.limits import Step, detect_all
from course_lib.datasets.loading import normalize
from course_lib.models.mask_rcnn.settings import Settings
from course_lib.models.mask_rcnn.stages import LOSSES
from course_lib.ops.boxes import box_iou
from course_lib.tasks import coco_scores
from course_lib.teaching.ledger import Result, demonstrated

RECIPE = dataclasses.replace(
    SMALL,
    name="maskrcnn-sabotaged",
    title="The tiny Mask R-CNN of claim 6.2, for claim 6.4, which spoils it in one way after the other",
    epochs=4,
    steps=50,
)
PICTURES = 64
"""Of val, on which the symptoms are looked for."""
SURE = 0.5
"""Probability from which a detection counts as one, for the number of detections."""

Change = Callable[[np.ndarray, dict], tuple[np.ndarray, dict]]


@dataclasses.dataclass(frozen=True)
class Fault:
    """One thing done wrong.

    Attributes:
        what: what was done, for people.
        mend: what puts it right.
        recipe: changes of the recipe's fields.
        settings: changes of the network's settings.
        batches: `(pictures, truth) -> (pictures, truth)`, done to each training batch.
        pictures: done to each picture when the net is used.
    """

    what: str
    mend: str
    recipe: Mapping = dataclasses.field(default_factory=dict)
    settings: Mapping = dataclasses.field(default_factory=dict)
    batches: Change | None = None
    pictures: Callable[[np.ndarray], np.ndarray] | None = None


def _rows_for_columns(images, truth):
    return images, truth | {"boxes": truth["boxes"][..., [1, 0, 3, 2]]}


def _classes_from_zero(images, truth):
    return images, truth | {"classes": np.maximum(truth["classes"] - 1, 0)}


def _only_the_picture_turned(images, truth):
    turned = np.arange(len(images)) % 2 == 0
    return np.where(turned[:, None, None, None], images[:, :, ::-1], images), truth


FAULTS: dict[str, Fault] = {
    "nothing": Fault("nothing: the training as it should be", ""),
    "learning rate": Fault(
        "a learning rate 30 times as high, gradients not clipped",
        "lower the learning_rate, give a warmup and a clip",
        recipe={"learning_rate": 30 * RECIPE.learning_rate, "clip": None},
    ),
    "x and y": Fault(
        "the boxes given as y1, x1, y2, x2",
        "x1, y1, x2, y2: draw a few boxes of a batch over their pictures",
        batches=_rows_for_columns,
    ),
    "classes from 0": Fault(
        "the first class numbered 0, which is the background (here it is the only class)",
        "count objects' classes from 1: print those of a batch",
        batches=_classes_from_zero,
    ),
    "flipped pictures": Fault(
        "half of the pictures mirrored, their boxes and masks not",
        "augment picture and truth together: draw both after augmentation",
        batches=_only_the_picture_turned,
    ),
    "anchors": Fault(
        "anchors four times too large",
        "anchor_sizes from the sizes of your objects: look at each object's best anchor",
        settings={
            "anchor_sizes": tuple(4 * side for side in RECIPE.network_arguments["settings"]["anchor_sizes"])
        },
    ),
    "no balance": Fault(
        "the RPN learns from all anchors, of which nearly all are background",
        "rpn_batch_size_per_image small, half of them objects where there are so many",
        settings={"rpn_batch_size_per_image": 5000},
    ),
    "no positive regions": Fault(
        "the heads learn from background alone",
        "box_positive_fraction above 0: count the positive regions of a step",
        settings={"box_positive_fraction": 0.0},
    ),
    "one loss": Fault(
        "the mask loss counted a hundred times",
        "loss_weights of 1, unless val says otherwise",
        settings={"loss_weights": (1.0, 1.0, 1.0, 1.0, 100.0)},
    ),
    "0 to 255": Fault(
        "pictures in 0 to 255 when the net is used, 0 to 1 when it was trained",
        "the same normalization in both: print the largest value",
        pictures=lambda image: image * 255,
    ),
}
"""What is done wrong, one thing at a time."""


def spoilt(fault: Fault, recipe: recipes.Recipe = RECIPE) -> recipes.Recipe:
    """The recipe with this fault's own fields and settings."""
    arguments = dict(recipe.network_arguments)
    arguments["settings"] = arguments["settings"] | dict(fault.settings)
    return dataclasses.replace(recipe, network_arguments=arguments, **fault.recipe)


def train(fault: Fault, recipe: recipes.Recipe = RECIPE) -> tuple:
    """Train with the fault from scratch.

    Returns:
        The recipe, the net, the history (loss → one number per epoch) and what was raised, a sentence or "".
    """
    recipe = spoilt(fault, recipe)
    model = recipe.model()
    training.compile_model(model, recipe, jit=training.DETECTOR_JIT)
    batches = recipe.batches("train")
    if fault.batches is not None:
        batches.transform = lambda images, truth, weights: (*fault.batches(images, truth), weights)
    log = keras.callbacks.History()
    raised = ""
    try:
        model.fit(
            batches, epochs=recipe.epochs, verbose=0, shuffle=False,
            callbacks=[training.StopWhenDiverged(recipe.name, recipe.epochs * recipe.steps), log],
        )  # fmt: skip
    except training.Diverged as stopped:
        raised = str(stopped)
    return recipe, model, {name: [float(v) for v in values] for name, values in log.history.items()}, raised


def symptoms(recipe: recipes.Recipe, model, fault: Fault, pictures: int = PICTURES) -> dict[str, float]:
    """What is seen on val when the trained net is used.

    Returns:
        `proposed`: share of the objects that a proposal covers with an IoU of 0.5 and more; `detections` per
        picture with a probability of `SURE` and more (`objects`: how many there are); `box_ap_50`, `mask_ap_50`.
    """
    val = list(recipe.data("val"))[:pictures]
    images = [normalize(sample.image, recipe.normalization) for sample in val]
    if fault.pictures is not None:
        images = [fault.pictures(image) for image in images]
    step = Step(lambda x: model(x, training=False), model)
    size = images[0].shape[:2]
    proposing = Step(lambda x: model.propose(model.features(x, training=False), size), model)
    batch = 16
    covered = total = 0
    for start in range(0, len(images), batch):
        few = np.stack(images[start : start + batch])
        boxes, _, valid = proposing.predict_on_batch(few)
        for sample, mine, there in zip(val[start : start + batch], boxes, valid, strict=True):
            overlaps = keras.ops.convert_to_numpy(box_iou(sample.boxes, mine)) * there
            covered += int((overlaps.max(axis=1) >= 0.5).sum())
            total += len(sample.boxes)
    found = detect_all(step, images, batch)
    scores = coco_scores(val, found, len(recipe.class_names()) - 1)
    return {
        "proposed": covered / max(1, total),
        "objects": total / len(val),
        "detections": float(np.mean([(one["scores"] >= SURE).sum() for one in found])),
        "box_ap_50": scores["box_ap_50"],
        "mask_ap_50": scores["mask_ap_50"],
    }


def claim_6_4(progress: Callable[[str], None] = print) -> Result:
    """Its training pipeline is complex: what there is to set, and what happens where one thing of it is wrong.

    A demonstration: each fault once, from the same seed, a short training.

    The table:
        losses: names; samplers: settings that choose what is learned from; settings: all of a Mask R-CNN, name
        → default.
        faults: name → `what`, `mend`, `raised` (the sentence of an error, or ""), `losses` (name → per epoch),
        and the
            `symptoms`.
    """
    table: dict = {
        "losses": list(LOSSES),
        "samplers": {
            "anchors": [
                "rpn_fg_iou_thresh",
                "rpn_bg_iou_thresh",
                "rpn_batch_size_per_image",
                "rpn_positive_fraction",
            ],
            "regions": [
                "box_fg_iou_thresh",
                "box_bg_iou_thresh",
                "box_batch_size_per_image",
                "box_positive_fraction",
            ],
        },
        "settings": {field.name: field.default for field in dataclasses.fields(Settings)},
        "steps": RECIPE.epochs * RECIPE.steps,
        "faults": {},
    }
    for name, fault in FAULTS.items():
        recipe, model, history, raised = train(fault)
        seen = symptoms(recipe, model, fault)
        table["faults"][name] = {
            "what": fault.what,
            "mend": fault.mend,
            "raised": raised,
            # JSON knows no NaN; where there was one, `raised` says so.
            "losses": {
                loss: [value if math.isfinite(value) else None for value in values]
                for loss, values in history.items()
            },
            "symptoms": seen,
        }
        progress(f"{name}: {seen} {raised}")
        keras.backend.clear_session()
    return demonstrated(
        "6.4",
        "Its training pipeline is complex.",
        "demonstration: one thing wrong at a time, what is raised and what is seen",
        silence(table),
        table,
    )


def silence(table: Mapping) -> str:
    """What the faults teach: how many raise no error and yet cost at least half of an AP at IoU 0.5."""
    sound = table["faults"]["nothing"]["symptoms"]
    faults = {name: one for name, one in table["faults"].items() if name != "nothing"}
    costly = [
        any(one["symptoms"][score] <= 0.5 * sound[score] for score in ("box_ap_50", "mask_ap_50"))
        and not one["raised"]
        for one in faults.values()
    ]
    return (
        f"Five losses, two samplers, {len(table['settings'])} settings. Of {len(faults)} things done wrong, {sum(costly)} "
        "raise nothing and cost at least half of the AP: look at the batches, at the proposals and at each loss by itself."
    )
