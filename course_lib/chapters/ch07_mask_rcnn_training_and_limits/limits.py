"""Claim 6.3: what a Mask R-CNN costs, stage by stage, beside a U-Net with the views that its accuracy needs.

Fixed before the first run:

- Networks: `maskrcnn-nuclei` and `unet-nuclei` as they are shipped, on one image of synthetic cells. Claim 2.2 reports
  the accuracy of the U-Net with four views, so its time is that of four views; one view stands beside it. Gate: both
  have an AP at IoU 0.5 of at least 0.5 on the validation images, as their cards say.
- Time: from the image to its label map by `Segmenter.predict`, in seconds of processor time, which counts neither other
  programs nor waiting. What is compared takes turns in one process, `ROUNDS` times, after two calls that compile.
- Verdict: the geometric mean of Mask R-CNN over U-Net with four views, for each image size; no effect is 1. The rounds
  are repetitions on one machine.
- Stages are timed each by itself, compiled, over image sizes; those that work on regions also over the number of
  proposals and of places for detections. Multiply-adds and memory are counted from the graphs.

After a change of the library that makes predictions faster or slower, raise `EXPERIMENT`'s version and run it again.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache

import keras
import numpy as np

from course_lib import checkpoints, recipes
from course_lib.datasets import cells
from course_lib.datasets.loading import normalize
from course_lib.models import MaskRCNN, analysis, unet
from course_lib.models.mask_rcnn import published, stages
from course_lib.models.predict import AVERAGES
from course_lib.segmenter import Segmenter
from course_lib.teaching.experiments import Experiment, key
from course_lib.teaching.ledger import Result, judged
from course_lib.teaching.statistics import Gate, judge

UNET, DETECTOR = "unet-nuclei", "maskrcnn-nuclei"
"""Two recipes for the same images: nuclei, told apart by a border class and one by one."""
SIDES = (128, 256, 512)
"""Sides of the images that are timed, in pixels."""
SIDE = 256
"""Side of the image for everything that is timed at one size only: that of most images of nuclei."""
PROPOSALS = (10, 100, 300, 1000)
"""Numbers of proposals, and as many candidates on each level."""
DETECTIONS = (25, 100, 400)
"""Numbers of places for detections, each of which gets a mask."""
ROUNDS = 8
"""Rounds of timing, in each of which everything has its turn."""
GATE = 0.5
PUBLISHED_IMAGE, PUBLISHED_TILE = (800, 1088), (572, 572)
"""What the published networks take: a photograph of 3 : 4 whose short side is made 800 pixels, the long one rounded up to
a multiple of 32 (Lin et al. 2017, https://arxiv.org/abs/1612.03144, section 5, and torchvision), and the U-Net paper's
tile (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597, figure 1)."""
STAGES = {
    "features": "backbone, pyramid, RPN",
    "propose": "choose proposals (NMS)",
    "box_head": "RoI Align, box head",
    "choose": "choose detections (NMS)",
    "mask_head": "RoI Align, mask head",
    "paste": "paste the masks",
}
"""From the image to the instance map: name → what happens; see `stages_of`."""


# Networks, compiled


@lru_cache(maxsize=4)
def shipped(name: str) -> tuple:
    """A recipe, its trained network and the thresholds that were chosen on the validation set."""
    recipe = recipes.get(name)
    model = recipe.model()
    return recipe, model, checkpoints.load(recipe, model, quiet=True)["thresholds"]


class Step(keras.Model):
    """A function of arrays as a model, so that Keras compiles it as it does any model. One of these for each shape: of a
    second one TensorFlow makes a shape that is not known, which no detector can do with.

    Args:
        function: of one array, or one structure of them; returns another.
        *models: those that it uses.
    """

    def __init__(self, function: Callable, *models: keras.Model):
        super().__init__()
        self.function, self.models = function, list(models)
        # Keras's own choice, as for whoever compiles a model and says nothing of it.
        self.compile(jit_compile="auto")
        self.built = True

    def call(self, inputs):
        return self.function(inputs)


def with_settings(model: MaskRCNN, **changes) -> MaskRCNN:
    """The same network, weights and all, with other `Settings`."""
    changed = MaskRCNN.from_config(
        model.get_config() | {"settings": asdict(replace(model.settings, **changes))}
    )
    changed.set_weights(model.get_weights())
    return changed


def detections(found: Mapping[str, np.ndarray], size: tuple[int, int]) -> list[dict[str, np.ndarray]]:
    """A Mask R-CNN's predictions for a batch, image by image, empty places left out; as `predict_detections` has it."""
    return [
        {name: value[k][found["valid"][k]] for name, value in found.items()} | {"size": np.asarray(size)}
        for k in range(len(found["valid"]))
    ]


def detect_all(step: Step, images: Sequence[np.ndarray], batch: int) -> list[dict[str, np.ndarray]]:
    """The detections in images of one size, batch by batch; the last batch is filled up, to compile once."""
    found = []
    for start in range(0, len(images), batch):
        part = np.stack(images[start : start + batch])
        filled = np.concatenate([part, np.zeros((batch - len(part), *part.shape[1:]), part.dtype)])
        found += detections(step.predict_on_batch(filled), part.shape[1:3])[: len(part)]
    return found


# What is counted


def detector_costs(model: MaskRCNN, size: tuple[int, int]) -> dict[str, dict[str, int]]:
    """What one image takes, by part of the network: body, neck, rpn, boxes, masks, and `all`.

    The first three see the image once; the box head works on every proposal, the mask head on every place for a
    detection, filled or not. Counted as in `models.analysis.costs`; neither NMS nor RoI Align are counted, which compare
    and interpolate.

    Args:
        model: with a mask head.
        size: height and width of the image in pixels.

    Returns:
        part → `parameters`, `multiply_adds`, `activation_bytes` (all outputs of all layers, once each) and, for `boxes`,
        `masks` and `all`, `peak_bytes`: the most that has to be there at the same time, the pyramid included.
    """
    image = keras.Input((*size, model.channels))
    pyramid = model.fpn(model.backbone(image))
    outputs = [output for level in pyramid for output in model.rpn_head(level)]
    whole = analysis.costs(keras.Model(image, [*pyramid, *outputs]))
    parts = {}
    for part, prefix in (("body", "backbone-body-"), ("neck", "backbone-fpn-"), ("rpn", "rpn-head-")):
        mine = [layer for layer in whole.layers if layer.name.startswith(prefix)]
        parts[part] = {
            name: sum(getattr(layer, name) for layer in mine)
            for name in ("parameters", "multiply_adds", "activation_bytes")
        }
    held = sum(analysis.FLOAT_BYTES * int(np.prod(level.shape[1:])) for level in pyramid)
    counts = {
        "boxes": (model.box_head, model.settings.rpn_post_nms_top_n[1]),
        "masks": (model.mask_head, model.settings.box_detections_per_img),
    }
    for part, (head, number) in counts.items():
        one = analysis.costs(head)
        parts[part] = {
            "parameters": one.parameters,
            "multiply_adds": number * one.multiply_adds,
            "activation_bytes": number * one.activation_bytes,
            "peak_bytes": held + number * one.peak_bytes,
        }
    parts["all"] = {
        name: sum(part[name] for part in parts.values())
        for name in ("parameters", "multiply_adds", "activation_bytes")
    } | {"peak_bytes": max(whole.peak_bytes, parts["boxes"]["peak_bytes"], parts["masks"]["peak_bytes"])}
    return parts


def network_costs(model: keras.Model, size: tuple[int, int]) -> dict[str, int]:
    """The same numbers of a functional model; see `models.analysis.costs`."""
    one = analysis.costs(model, size)
    return {
        name: getattr(one, name) for name in ("parameters", "multiply_adds", "activation_bytes", "peak_bytes")
    }


def published_costs() -> dict[str, dict]:
    """The published networks, built and counted, not run.

    Returns:
        `mask_rcnn` (ResNet-50 and pyramid, 91 classes, 1000 proposals, 100 detections) on `PUBLISHED_IMAGE`; `unet` (64
        filters, unpadded) on `PUBLISHED_TILE`; `unet_same_image`, the same network, padded, on the image of the former;
        each with its `size`.
    """
    detector = published("COCO_V1")
    return {
        "mask_rcnn": {"size": list(PUBLISHED_IMAGE), **detector_costs(detector, PUBLISHED_IMAGE)},
        "unet": {
            "size": list(PUBLISHED_TILE),
            **network_costs(unet((*PUBLISHED_TILE, 1), 2, padding="valid"), PUBLISHED_TILE),
        },
        "unet_same_image": {
            "size": list(PUBLISHED_IMAGE),
            **network_costs(unet((*PUBLISHED_IMAGE, 3), 2), PUBLISHED_IMAGE),
        },
    }


# What is timed


def take_turns(calls: Mapping[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Seconds of processor time of each call, round by round, in alternating order.

    Args:
        calls: name → what is timed. Each is called twice beforehand, which compiles it.
        rounds: in each, everything has its turn.

    Returns:
        name → one number per round.
    """
    for call in calls.values():
        call(), call()
    seconds = {name: [] for name in calls}
    for number in range(rounds):
        for name in list(calls)[:: -1 if number % 2 else 1]:
            began = time.process_time()
            calls[name]()
            seconds[name].append(time.process_time() - began)
    return seconds


def stages_of(model: MaskRCNN, image: np.ndarray) -> dict[str, Callable[[], object]]:
    """Each stage of a prediction as a call of its own, compiled, on what the stage before gave.

    `features`: backbone, pyramid and RPN head; `propose`: the best anchors moved, and NMS; `box_head`: RoI Align and box
    head; `choose`: detections by class, and NMS; `mask_head`: RoI Align and mask head; `paste`: masks pasted into the
    image, and made one map, in NumPy.

    Args:
        model: `maskrcnn-nuclei`, with its own or other settings.
        image: float32 `(height, width, channels)` in 0..1.
    """
    recipe, _, chosen = shipped(DETECTOR)
    size, one = image.shape[:2], normalize(image, recipe.normalization)[None]

    def propose(features):
        return model.propose(features, size)

    def box_head(inputs):
        return model.predict_boxes(*inputs)

    def choose(inputs):
        return stages.postprocess_detections(*inputs, size, model.settings)

    def mask_head(inputs):
        return stages.masks_of_classes(model.predict_masks(*inputs[:2]), inputs[2])

    functions = (("features", model.features), ("propose", propose), ("box_head", box_head),
                 ("choose", choose), ("mask_head", mask_head))  # fmt: skip
    steps = {name: Step(function, model) for name, function in functions}
    features = steps["features"].predict_on_batch(one)
    pyramid = {"pyramid": features["pyramid"]}
    proposals, _, valid = steps["propose"].predict_on_batch(features)
    logits, deltas = steps["box_head"].predict_on_batch((pyramid, proposals))
    boxes, classes, scores, kept = steps["choose"].predict_on_batch((logits, deltas, proposals, valid))
    masks = steps["mask_head"].predict_on_batch((pyramid, boxes, classes))
    found = {"boxes": boxes, "classes": classes, "scores": scores, "valid": kept, "masks": masks}
    (detected,) = detections(found, size)
    inputs = {
        "features": one,
        "propose": features,
        "box_head": (pyramid, proposals),
        "choose": (logits, deltas, proposals, valid),
        "mask_head": (pyramid, boxes, classes),
    }
    calls = {name: lambda name=name: steps[name].predict_on_batch(inputs[name]) for name in steps}
    return calls | {"paste": lambda: recipe.task.decode(detected, **chosen)}


def synthetic_image(side: int) -> np.ndarray:
    """Synthetic cells: an image of any size, with more objects the larger it is."""
    return cells("test", 1, side, seed=5, density=0.3)[0].image


def prediction(name: str, tta: str = "none") -> Callable[[np.ndarray], np.ndarray]:
    """From an image to its label map with a shipped network, which averages these views."""
    recipe, model, chosen = shipped(name)
    return Segmenter.of(replace(recipe, task=replace(recipe.task, tta=tta)), model, chosen).predict


def measure(factor: str, value: int) -> dict:
    """All rounds with one image size, number of proposals or number of places for detections; or the published networks.

    Returns:
        For `"side"`: `unet` (four views), `unet_1` (one view) and `mask_rcnn` with `seconds` per round and the counted
        `costs`, the last also with `objects` found and `stages`, name → seconds per round. For `"proposals"` and
        `"detections"`: `stages` and `multiply_adds` of the head in question. For `"published"`: see `published_costs`.
    """
    if factor == "published":
        return published_costs()
    model = shipped(DETECTOR)[1]
    if factor == "side":
        image = synthetic_image(value)
        whole = {
            "unet": prediction(UNET, "flips"),
            "unet_1": prediction(UNET),
            "mask_rcnn": prediction(DETECTOR),
        }
        calls = {name: lambda name=name: whole[name](image) for name in whole}
        seconds = take_turns(calls | stages_of(model, image))
        one_view = network_costs(shipped(UNET)[1], image.shape[:2])
        work = {"multiply_adds": len(AVERAGES["flips"]) * one_view["multiply_adds"]}
        return {
            "unet": {"seconds": seconds["unet"], "costs": one_view | work},
            "unet_1": {"seconds": seconds["unet_1"], "costs": one_view},
            "mask_rcnn": {
                "seconds": seconds["mask_rcnn"],
                "costs": detector_costs(model, image.shape[:2]),
                "objects": int(calls["mask_rcnn"]().max()),
                "stages": {name: seconds[name] for name in STAGES},
            },
        }
    if factor == "proposals":
        first, second = model.settings.rpn_pre_nms_top_n[0], model.settings.rpn_post_nms_top_n[0]
        changed = with_settings(model, rpn_pre_nms_top_n=(first, value), rpn_post_nms_top_n=(second, value))
        head, names = "boxes", ("propose", "box_head", "choose")
    else:
        changed, head, names = with_settings(model, box_detections_per_img=value), "masks", ("mask_head",)
    calls = stages_of(changed, synthetic_image(SIDE))
    return {
        "stages": take_turns({name: calls[name] for name in names}),
        "multiply_adds": detector_costs(changed, (SIDE, SIDE))[head]["multiply_adds"],
    }


PLAN = [
    {"factor": factor, "value": value}
    for factor, values in (
        ("side", SIDES),
        ("proposals", PROPOSALS),
        ("detections", DETECTIONS),
        ("published", (0,)),
    )
    for value in values
]


def weights() -> str:
    """The weights that are timed."""
    return ",".join(checkpoints.card(recipes.get(name))["weights"][:12] for name in (UNET, DETECTOR))


EXPERIMENT = Experiment("cost", 1, measure, lambda _: PLAN, weights, worth=3)
EXPERIMENTS = (EXPERIMENT,)


def gate() -> Gate:
    """Whether both networks have learned to separate nuclei."""
    reached = min(checkpoints.card(recipes.get(name))["val"]["ap_50"] for name in (UNET, DETECTOR))
    return Gate("AP at IoU 0.5 on the validation images, the lower of the two", GATE, reached, 0.0)


def claim_6_3(progress: Callable[[str], None] = print) -> Result:
    """Mask R-CNN is computationally expensive and slow at inference.

    The table:
        settings: `side` where nothing else is said; `rounds`; `published_image`.
        side, proposals, detections: value → see `measure`.
        published: see `published_costs`; `published_ratio`: multiply-adds of Mask R-CNN over those of the U-Net, `each`
            on its own input, and on the `same_image`.
    """
    done = EXPERIMENT.results()
    table: dict = {"settings": {"side": SIDE, "rounds": ROUNDS, "published_image": list(PUBLISHED_IMAGE)}}
    for run in PLAN:
        if key(run) in done:
            table.setdefault(run["factor"], {})[str(run["value"])] = done[key(run)]
    settings = {}
    for side in SIDES:
        one = table.get("side", {}).get(str(side))
        seconds = [one[name]["seconds"] for name in ("mask_rcnn", "unet")] if one else ([], [])
        settings[f"{side} × {side}"] = np.divide(*seconds).tolist()
    if "published" in table:
        table["published"] = papers = table["published"]["0"]
        work = papers["mask_rcnn"]["all"]["multiply_adds"]
        table["published_ratio"] = {
            "each": work / papers["unet"]["multiply_adds"],
            "same_image": work / papers["unet_same_image"]["multiply_adds"],
        }
    return judged(
        "6.3",
        "Mask R-CNN is computationally expensive and slow at inference.",
        "prediction time of a small Mask R-CNN divided by that of a small U-Net with four views, geometric mean "
        "(1 = equal)",
        judge(settings, gate(), ROUNDS, null=1.0, margin=0.1, ratio=True),
        table,
        gate(),
        len(EXPERIMENT.missing()),
    )
