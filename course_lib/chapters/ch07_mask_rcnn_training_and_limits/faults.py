"""Claim 6.4: what can go wrong when a Mask R-CNN is trained, and how to recognise it.

Each fault is one change to one recipe, trained from the same seeds. A run is kept as one file with its losses,
its scores and, for the first seed, what the network says of two images, so that the gallery of notebook 07
needs no training: `python -m course_lib claims --run 6.4 --write` makes the runs that are missing.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping

import keras
import numpy as np

from course_lib import recipes, training
from course_lib.chapters.ch06_mask_rcnn_components.roi import SMALL
from course_lib.chapters.ch07_mask_rcnn_training_and_limits.limits import detections
from course_lib.datasets.loading import normalize
from course_lib.models.mask_rcnn.settings import Settings
from course_lib.models.mask_rcnn.stages import LOSSES
from course_lib.ops.boxes import box_iou
from course_lib.tasks import coco_scores
from course_lib.teaching.experiments import Experiment, fingerprint, key, rounded
from course_lib.teaching.ledger import Result, demonstrated
from course_lib.teaching.statistics import Gate

RECIPE = dataclasses.replace(
    SMALL,
    name="maskrcnn-faults",
    title="The tiny Mask R-CNN of claim 6.2, trained with one fault after the other",
    epochs=4,
    steps=30,
)
SEEDS = (0, 1, 2)
VALIDATION = 64
"""Images of the validation set that are scored."""
SHOWN = (11, 23)
"""Images of the validation set whose predictions are kept."""
CONFIDENT = 0.5
"""The score from which a detection is counted and shown."""
BATCH = 16
GATE = 0.7
"""The mask AP50 that the sound training must reach: what a fault costs cannot be seen on a network that has not learned."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """One fault in the training.

    Attributes:
        what: what was done.
        mend: what puts it right.
        recipe: changes of the recipe's fields.
        settings: changes of the network's settings.
        batches: `(images, truth) -> (images, truth)`, done to each training batch.
        images: done to each image when the network is used.
    """

    what: str
    mend: str
    recipe: Mapping = dataclasses.field(default_factory=dict)
    settings: Mapping = dataclasses.field(default_factory=dict)
    batches: Callable | None = None
    images: Callable[[np.ndarray], np.ndarray] | None = None


def _rows_for_columns(images, truth):
    return images, truth | {"boxes": truth["boxes"][..., [1, 0, 3, 2]]}


def _classes_from_zero(images, truth):
    return images, truth | {"classes": np.maximum(truth["classes"] - 1, 0)}


def _only_images_flipped(images, truth):
    flipped = np.arange(len(images)) % 2 == 0
    return np.where(flipped[:, None, None, None], images[:, :, ::-1], images), truth


SOUND = "sound"
FAULTS: dict[str, Fault] = {
    SOUND: Fault("nothing: the training as it should be", ""),
    "0 to 255": Fault(
        "images in 0 to 255 when the network is used, in 0 to 1 when it was trained",
        "the same normalization in both: print the largest value",
        images=lambda image: image * 255,
    ),
    "x and y": Fault(
        "the boxes given as y1, x1, y2, x2",
        "x1, y1, x2, y2: draw the boxes of a batch on their images",
        batches=_rows_for_columns,
    ),
    "classes from 0": Fault(
        "the first class numbered 0, which is the background (here it is the only class)",
        "number the classes of objects from 1: print those of a batch",
        batches=_classes_from_zero,
    ),
    "flipped images": Fault(
        "half of the images flipped, their boxes and masks not",
        "augment image and ground truth together: draw both after augmentation",
        batches=_only_images_flipped,
    ),
    "learning rate": Fault(
        "a learning rate 30 times as high, gradients not clipped",
        "lower the learning_rate, add a warm-up and clip",
        recipe={"learning_rate": 30 * RECIPE.learning_rate, "clip": None},
    ),
    "anchors": Fault(
        "anchors four times too large",
        "choose anchor_sizes by the sizes of your objects: print each object's best anchor",
        settings={
            "anchor_sizes": tuple(4 * side for side in RECIPE.network_arguments["settings"]["anchor_sizes"])
        },
    ),
    "no balance": Fault(
        "the RPN learns from all anchors, nearly all of which are background",
        "a small rpn_batch_size_per_image, up to half of it positive",
        settings={"rpn_batch_size_per_image": 5000},
    ),
    "background only": Fault(
        "the heads learn from background regions only",
        "box_positive_fraction above 0: count the positive regions of a step",
        settings={"box_positive_fraction": 0.0},
    ),
    "one loss": Fault(
        "the mask loss multiplied by 100",
        "loss_weights of 1, unless the validation set says otherwise",
        settings={"loss_weights": (1.0, 1.0, 1.0, 1.0, 100.0)},
    ),
}
"""What is done wrong, one thing at a time."""


def with_fault(fault: Fault, recipe: recipes.Recipe = RECIPE) -> recipes.Recipe:
    """The recipe with this fault's own fields and settings."""
    arguments = dict(recipe.network_arguments)
    arguments["settings"] = arguments["settings"] | dict(fault.settings)
    return dataclasses.replace(recipe, network_arguments=arguments, **fault.recipe)


def training_batches(fault: Fault, recipe: recipes.Recipe = RECIPE):
    """The training batches as a network with this fault receives them: `(images, truth, …)`."""
    batches = with_fault(fault, recipe).batches("train")
    if fault.batches is not None:
        batches.transform = lambda images, truth, weights: (*fault.batches(images, truth), weights)
    return batches


class Trainee:
    """A network that is compiled once and trained from several seeds.

    Args:
        recipe: its seed does not matter.
    """

    def __init__(self, recipe: recipes.Recipe):
        self.recipe, self.model = recipe, recipe.model()
        training.compile_model(self.model, recipe, jit=training.DETECTOR_JIT)
        self._trained: tuple = ()

    def train(self, fault: Fault, seed: int) -> tuple[dict[str, list[float]], str]:
        """Train with the fault from fresh weights.

        Returns:
            The history (loss → one number per epoch), and the sentence of the error that stopped it, or "".
        """
        if self._trained[:2] == (fault.batches, seed):  # a fault that only shows when the network is used
            return self._trained[2]
        recipe = dataclasses.replace(self.recipe, seed=seed)
        training.start_again(self.model, recipe)
        log, raised = keras.callbacks.History(), ""
        stop = training.StopWhenDiverged(recipe.name, recipe.epochs * recipe.steps)
        try:
            self.model.fit(
                training_batches(fault, recipe),
                epochs=recipe.epochs,
                verbose=0,
                shuffle=False,
                callbacks=[log, stop],
            )
        except training.Diverged as stopped:
            raised = str(stopped)
        # JSON knows no NaN; where there was one, `raised` says so.
        history = {
            name: [float(one) if math.isfinite(one) else None for one in values]
            for name, values in log.history.items()
        }
        self._trained = fault.batches, seed, (history, raised)
        return history, raised

    def look(self, fault: Fault, shown: bool) -> dict:
        """What is seen on the validation set.

        Returns:
            `proposed`: fraction of the objects that a proposal covers with an IoU of 0.5 or more; `detections`: confident
            ones per image; `objects` per image; `box_ap_50`, `mask_ap_50`, `mask_ap`; with `shown`, also `images`: for
            each of `SHOWN` its `proposals` and the `boxes` of confident detections, `x1 y1 x2 y2` in pixels, and the
            instance `map` of their masks, a row of pixels as a string with one character for each pixel.
        """
        recipe = self.recipe
        samples = list(recipe.data("val"))[:VALIDATION]
        images = [normalize(sample.image, recipe.normalization) for sample in samples]
        images = np.stack([fault.images(image) if fault.images else image for image in images])
        proposals, found = [], []
        for start in range(0, len(images), BATCH):
            # Called, not compiled: each network is used once.
            features, size = self.model.features(images[start : start + BATCH]), images.shape[1:3]
            boxes, _, valid = map(keras.ops.convert_to_numpy, self.model.propose(features, size))
            proposals += [one[there] for one, there in zip(boxes, valid, strict=True)]
            batch = self.model.detect(features, size)
            found += detections({name: keras.ops.convert_to_numpy(one) for name, one in batch.items()}, size)
        best = [
            keras.ops.convert_to_numpy(box_iou(sample.boxes, mine)).max(1, initial=0)
            for sample, mine in zip(samples, proposals, strict=True)
        ]
        scores = coco_scores(samples, found, len(recipe.class_names()) - 1)
        numbers = {
            "proposed": float((np.concatenate(best) >= 0.5).mean()),
            "objects": float(np.mean([len(sample.boxes) for sample in samples])),
            "detections": float(np.mean([(one["scores"] >= CONFIDENT).sum() for one in found])),
            **{name: scores[name] for name in ("box_ap_50", "mask_ap_50", "mask_ap")},
        }
        if shown:
            numbers["images"] = {
                str(k): self._text(proposals[k], found[k]) for k in SHOWN if k < len(samples)
            }
        return numbers

    def _text(self, proposals: np.ndarray, found: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
        labels = self.recipe.task.decode(found, score_threshold=CONFIDENT)

        def rows(boxes):
            return [" ".join(f"{edge:.1f}" for edge in box) for box in boxes]

        return {
            "proposals": rows(proposals),
            "boxes": rows(found["boxes"][found["scores"] >= CONFIDENT]),
            "map": ["".join(chr(ord("A") + one - 1) if one else "." for one in row) for row in labels],
        }


_trainees: dict[str, Trainee] = {}


def trainee(fault: Fault, recipe: recipes.Recipe = RECIPE) -> Trainee:
    """The network for this fault; faults that leave the network as it is share one, which spares compiling it again."""
    name = f"{dict(fault.recipe)} {dict(fault.settings)} {recipe.digest}"
    if name not in _trainees:
        _trainees[name] = Trainee(with_fault(fault, recipe))
    return _trainees[name]


def measure(fault: str, seed: int) -> dict:
    """One training with one fault: its `losses` per epoch, what was `raised`, and what `Trainee.look` sees."""
    one = FAULTS[fault]
    network = trainee(one)
    losses, raised = network.train(one, seed)
    return {"losses": losses, "raised": raised, **network.look(one, shown=seed == SEEDS[0])}


def _data() -> str:
    sample = RECIPE.data("val")[SHOWN[0]]
    return fingerprint(sample.image, sample.instances)


EXPERIMENT = Experiment(
    "faults",
    version=1,
    measure=measure,
    plan=lambda _: [{"fault": fault, "seed": seed} for seed in SEEDS for fault in FAULTS],
    data=_data,
)
EXPERIMENTS = (EXPERIMENT,)


def claim_6_4(progress: Callable[[str], None] = print) -> Result:
    """Its training pipeline is complex: what has to be set, and what happens if one thing is wrong.

    A demonstration: each fault from the same seeds, a short training.

    The table:
        losses: names; samplers: settings that choose what is learned from; settings: all of a Mask R-CNN, name → default.
        steps: of each training; missing: names of faults without a run, which are left out.
        faults: name → `what`, `mend`, `raised` (the sentence of an error, or ""), `losses` (name → per epoch, of the first
            seed), `loss` (the last total loss) and what `Trainee.look` sees, each one number per seed; `images` of the
            first seed.
    """
    runs = EXPERIMENT.results()
    names = [name for name in FAULTS if key({"fault": name, "seed": SEEDS[0]}) in runs]
    if SOUND not in names:
        raise RuntimeError(
            "the sound training is missing; make the runs: python -m course_lib claims --run 6.4"
        )
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
        "missing": [name for name in FAULTS if name not in names],
        "faults": {},
    }
    for name in names:
        fault = FAULTS[name]
        keys = [key({"fault": name, "seed": seed}) for seed in SEEDS]
        mine = [runs[run] for run in keys if run in runs]
        first = mine[0]
        table["faults"][name] = {
            "what": fault.what,
            "mend": fault.mend,
            "raised": first["raised"],
            "losses": first["losses"],
            "loss": [one["losses"]["loss"][-1] for one in mine],
            **{
                score: [one[score] for one in mine]
                for score in ("proposed", "objects", "detections", "box_ap_50", "mask_ap_50", "mask_ap")
            },
            "images": first["images"],
        }
    found = demonstrated(
        "6.4",
        "The training pipeline of Mask R-CNN is complex.",
        "one fault at a time: the error that it raises, and its symptoms",
        silence(table),
        table,
    )
    reached = float(np.mean(table["faults"][SOUND]["mask_ap_50"]))
    gate = Gate("mask AP50 of the sound training", GATE, reached, 0.0)
    return dataclasses.replace(found, gate={"": rounded(dataclasses.asdict(gate) | {"passed": gate.passed})})


def silence(table: Mapping) -> str:
    """The lesson of the faults: how many raise no error and yet cost at least half of the AP at IoU 0.5."""
    faults = {name: one for name, one in table["faults"].items() if name != SOUND}
    sound = table["faults"][SOUND]
    costly = [
        not one["raised"]
        and any(np.mean(one[score]) <= 0.5 * np.mean(sound[score]) for score in ("box_ap_50", "mask_ap_50"))
        for one in faults.values()
    ]
    return (
        f"Five losses, two samplers, {len(table['settings'])} hyperparameters. Of {len(faults)} faults, {sum(costly)} "
        "raise no error and cost at least half of the AP. Check the batches, the proposals and each loss."
    )
