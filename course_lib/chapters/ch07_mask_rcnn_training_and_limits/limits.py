"""Claim 6.3, in its first edition: what a Mask R-CNN costs, stage by stage. The tools serve claims 2.3 and 6.5, too."""

from __future__ import annotations

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
from course_lib.models.predict import softmax
from course_lib.teaching.ledger import Result, interval, waiting
from course_lib.teaching.statistics import Gate

UNET, DETECTOR = "unet-nuclei", "maskrcnn-nuclei"
"""Two recipes for the same pictures: nuclei, told apart by a border class and one by one."""
PICTURE_SIDES = (128, 256, 384, 512)
"""Sides of the pictures that are timed, in pixels."""
SIDE = 256
"""Side of the picture for everything that is timed at one size only: that of most pictures of nuclei."""
PROPOSALS = (10, 100, 300, 1000)
"""Numbers of proposals, and as many candidates on each level."""
DETECTIONS = (25, 100, 400)
"""Numbers of places for detections, each of which gets a mask."""
ROUNDS = 8
"""Rounds of timing, in each of which everything has its turn."""
GATE = 0.5
PUBLISHED_PICTURE, PUBLISHED_TILE = (800, 1088), (572, 572)
"""What the published nets take: a photograph of 3 : 4 whose short side is made 800 pixels, the long one rounded up to a
multiple of 32 (Lin et al. 2017, https://arxiv.org/abs/1612.03144, section 5, and torchvision), and the U-Net paper's tile
(Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597, figure 1)."""


# Nets, compiled ----------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def shipped(name: str) -> tuple:
    """A recipe, its trained net and the settings that were chosen on val."""
    recipe = recipes.get(name)
    model = recipe.model()
    return recipe, model, checkpoints.load(recipe, model, quiet=True)["thresholds"]


class Step(keras.Model):
    """A function of arrays as a model, so that Keras compiles it as it does any model. One of these for each shape: of a
    second one TensorFlow makes a shape that is not known, which no detector can do with.

    Args:
        function: of one array, or one structure of them; returns another.
        *nets: the nets that it uses.
    """

    def __init__(self, function: Callable, *nets: keras.Model):
        super().__init__()
        self.function, self.nets = function, list(nets)
        # Keras's own choice, as for whoever compiles a model and says nothing of it.
        self.compile(jit_compile="auto")
        self.built = True

    def call(self, inputs):
        return self.function(inputs)


def with_settings(net: MaskRCNN, **changes) -> MaskRCNN:
    """The same net, weights and all, with other `Settings`."""
    twin = MaskRCNN.from_config(net.get_config() | {"settings": asdict(replace(net.settings, **changes))})
    twin.set_weights(net.get_weights())
    return twin


def detections(found: Mapping[str, np.ndarray], size: tuple[int, int]) -> list[dict[str, np.ndarray]]:
    """What a Mask R-CNN says of a batch, picture by picture, empty places left out; as `predict_detections` has it."""
    return [
        {name: value[k][found["valid"][k]] for name, value in found.items()} | {"size": np.asarray(size)}
        for k in range(len(found["valid"]))
    ]


def detect_all(step: Step, images: Sequence[np.ndarray], batch: int) -> list[dict[str, np.ndarray]]:
    """What the net finds in pictures of one size, batch by batch; the last batch is filled up, to compile once."""
    found = []
    for start in range(0, len(images), batch):
        part = np.stack(images[start : start + batch])
        filled = np.concatenate([part, np.zeros((batch - len(part), *part.shape[1:]), part.dtype)])
        found += detections(step.predict_on_batch(filled), part.shape[1:3])[: len(part)]
    return found


# What it costs (claim 6.3) -----------------------------------------------------------------------------------


def detector_costs(net: MaskRCNN, size: tuple[int, int]) -> dict[str, dict[str, int]]:
    """What one picture takes, by part of the net: body, neck, rpn, boxes, masks, and `all`.

    The first three see the picture once; the box head works on every proposal, the mask head on every place for a
    detection, filled or not. Counted as in `show.measure.costs`; neither NMS nor RoI Align are counted, which compare and
    interpolate.

    Args:
        net: with a mask head.
        size: height and width of the picture in pixels.

    Returns:
        part → `parameters`, `multiply_adds`, `activation_bytes` (all outputs of all layers, once each) and, for `boxes`,
        `masks` and `all`, `peak_bytes`: the most that has to be there at the same time, the pyramid included.
    """
    picture = keras.Input((*size, net.channels))
    pyramid = net.fpn(net.backbone(picture))
    answers = [answer for level in pyramid for answer in net.rpn_head(level)]
    whole = analysis.costs(keras.Model(picture, [*pyramid, *answers]))
    parts = {}
    for part, prefix in (("body", "backbone-body-"), ("neck", "backbone-fpn-"), ("rpn", "rpn-head-")):
        mine = [layer for layer in whole.layers if layer.name.startswith(prefix)]
        parts[part] = {
            name: sum(getattr(layer, name) for layer in mine)
            for name in ("parameters", "multiply_adds", "activation_bytes")
        }
    held = sum(analysis.FLOAT_BYTES * int(np.prod(level.shape[1:])) for level in pyramid)
    counts = {
        "boxes": (net.box_head, net.settings.rpn_post_nms_top_n[1]),
        "masks": (net.mask_head, net.settings.box_detections_per_img),
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
    """The same numbers of a functional net; see `show.measure.costs`."""
    one = analysis.costs(model, size)
    return {
        name: getattr(one, name) for name in ("parameters", "multiply_adds", "activation_bytes", "peak_bytes")
    }


def published_costs() -> dict[str, dict]:
    """The published nets, built and counted, not run.

    Returns:
        `mask_rcnn` (ResNet-50 and pyramid, 91 classes, 1000 proposals, 100 detections) on `PUBLISHED_PICTURE`; `unet` (64
        filters, unpadded) on `PUBLISHED_TILE`; `unet_same_picture`, the same net, padded, on the picture of the former;
        each with its `size`.
    """
    detector = published("COCO_V1")
    return {
        "mask_rcnn": {"size": list(PUBLISHED_PICTURE), **detector_costs(detector, PUBLISHED_PICTURE)},
        "unet": {
            "size": list(PUBLISHED_TILE),
            **network_costs(unet((*PUBLISHED_TILE, 1), 2, padding="valid"), PUBLISHED_TILE),
        },
        "unet_same_picture": {
            "size": list(PUBLISHED_PICTURE),
            **network_costs(unet((*PUBLISHED_PICTURE, 3), 2), PUBLISHED_PICTURE),
        },
    }


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


STAGES = ("features", "propose", "look_at", "choose", "outline", "read")
"""From the picture to the instance map; see `stages_of`."""


def stages_of(
    net: MaskRCNN, picture: np.ndarray, chosen: Mapping[str, float], recipe
) -> dict[str, Callable[[], object]]:
    """Each stage of a prediction as a call of its own, compiled, on what the stage before gave.

    `features`: backbone, pyramid and RPN head; `propose`: the best anchors moved, and NMS; `look_at`: RoI Align and box
    head; `choose`: detections by class, and NMS; `outline`: RoI Align and mask head; `read`: masks pasted into the
    picture, and made one map, in NumPy.

    Args:
        net: with a mask head.
        picture: float32 `(height, width, channels)`, normalized.
        chosen: the settings chosen on val.
        recipe: whose net it is.
    """
    size, one = picture.shape[:2], picture[None]
    features = Step(net.features, net)
    known = features.predict_on_batch(one)
    pyramid, asked = {"pyramid": known["pyramid"]}, known

    def propose(f):
        return net.propose(f, size)

    def look_at(given):
        return net.predict_boxes(given[0], given[1])

    def choose(given):
        return stages.postprocess_detections(*given, size, net.settings)

    def outline(given):
        return stages.masks_of_classes(net.predict_masks(given[0], given[1]), given[2])

    steps = {name: Step(function, net) for name, function in
             (("propose", propose), ("look_at", look_at), ("choose", choose), ("outline", outline))}  # fmt: skip
    proposals, _, valid = steps["propose"].predict_on_batch(asked)
    logits, deltas = steps["look_at"].predict_on_batch((pyramid, proposals))
    boxes, classes, scores, kept = steps["choose"].predict_on_batch((logits, deltas, proposals, valid))
    masks = steps["outline"].predict_on_batch((pyramid, boxes, classes))
    found = {"boxes": boxes, "classes": classes, "scores": scores, "valid": kept, "masks": masks}
    (answer,) = detections(found, size)
    return {
        "features": lambda: features.predict_on_batch(one),
        "propose": lambda: steps["propose"].predict_on_batch(asked),
        "look_at": lambda: steps["look_at"].predict_on_batch((pyramid, proposals)),
        "choose": lambda: steps["choose"].predict_on_batch((logits, deltas, proposals, valid)),
        "outline": lambda: steps["outline"].predict_on_batch((pyramid, boxes, classes)),
        "read": lambda: recipe.task.decode(answer, **chosen),
    }


def predictions_of(nets: Mapping[str, tuple], picture: np.ndarray) -> dict[str, Callable[[], np.ndarray]]:
    """From a picture to its instance map with each net, compiled: the net once, and reading its answer.

    Args:
        nets: `"unet"` and `"mask_rcnn"` → what `shipped` returns.
        picture: `(height, width, channels)`, normalized; the U-Net needs sides that are multiples of 16.
    """
    size, one = picture.shape[:2], picture[None]
    recipe, net, chosen = nets["unet"]
    detector_recipe, detector, detector_chosen = nets["mask_rcnn"]
    pixels, objects = (
        Step(lambda x: net(x, training=False), net),
        Step(lambda x: detector(x, training=False), detector),
    )

    def by_unet() -> np.ndarray:
        return recipe.task.decode(softmax(pixels.predict_on_batch(one)[0]), **chosen)

    def by_detector() -> np.ndarray:
        (found,) = detections(objects.predict_on_batch(one), size)
        return detector_recipe.task.decode(found, **detector_chosen)

    return {"unet": by_unet, "mask_rcnn": by_detector}


def made_picture(side: int, recipe) -> np.ndarray:
    """Cells that the course draws, as the nets for nuclei want them: a picture of any size."""
    return normalize(cells("test", 1, side, seed=5, density=0.3)[0].image, recipe.normalization)


def at_side(nets: Mapping[str, tuple], side: int, rounds: int) -> dict:
    """Both nets on one picture: seconds of each round, whole and by stage, their ratio, and the costs that are counted."""
    recipe, net, chosen = nets["mask_rcnn"]
    picture = made_picture(side, recipe)
    both = predictions_of(nets, picture)
    seconds = take_turns(both | stages_of(net, picture, chosen, recipe), rounds)
    return {
        "unet": {"seconds": seconds["unet"], **network_costs(nets["unet"][1], (side, side))},
        "mask_rcnn": {
            "seconds": seconds["mask_rcnn"],
            "objects": int(both["mask_rcnn"]().max()),
            "stages": {name: seconds[name] for name in STAGES},
            "costs": detector_costs(net, (side, side)),
        },
        "ratio": np.divide(seconds["mask_rcnn"], seconds["unet"]).tolist(),
    }


def over_counts(nets: Mapping[str, tuple], side: int, rounds: int) -> dict[str, dict]:
    """How the stages that work on regions grow with the number of proposals, and the mask head with that of detections."""
    recipe, net, chosen = nets["mask_rcnn"]
    picture = made_picture(side, recipe)
    calls, work = {}, {}
    for number in PROPOSALS:
        twin = with_settings(
            net,
            rpn_pre_nms_top_n=(net.settings.rpn_pre_nms_top_n[0], number),
            rpn_post_nms_top_n=(net.settings.rpn_post_nms_top_n[0], number),
        )
        mine = stages_of(twin, picture, chosen, recipe)
        calls |= {("proposals", number, name): mine[name] for name in ("propose", "look_at", "choose")}
        work["proposals", number] = detector_costs(twin, (side, side))["boxes"]["multiply_adds"]
    for number in DETECTIONS:
        twin = with_settings(net, box_detections_per_img=number)
        calls["detections", number, "outline"] = stages_of(twin, picture, chosen, recipe)["outline"]
        work["detections", number] = detector_costs(twin, (side, side))["masks"]["multiply_adds"]
    seconds = take_turns(calls, rounds)
    found: dict = {"proposals": {}, "detections": {}}
    for (dial, number, stage), values in seconds.items():
        entry = found[dial].setdefault(str(number), {"stages": {}, "multiply_adds": work[dial, number]})
        entry["stages"][stage] = values
    return found


def weights() -> str:
    """The weights that are timed."""
    return ",".join(checkpoints.card(recipes.get(name))["weights"][:12] for name in (UNET, DETECTOR))


def gate() -> Gate:
    """Whether both networks have learned to separate nuclei."""
    reached = min(checkpoints.card(recipes.get(name))["val"]["ap_50"] for name in (UNET, DETECTOR))
    return Gate("AP at IoU 0.5 on the validation images, the lower of the two", GATE, reached, 0.0)


def claim_6_3(progress: Callable[[str], None] = print) -> Result:
    """Mask R-CNN is computationally expensive and slow at inference.

    One picture at a time, from the picture to its map of objects, with the nets for nuclei: `maskrcnn-nuclei`, and
    `unet-nuclei` looking once (its recipe averages four views, which takes four times as long). The rounds are repetitions
    in one process on one machine: their interval is that of the ratio here, not of all machines.

    The table:
        sizes: side → `unet` (`seconds` per round, `parameters`, `multiply_adds`, `activation_bytes`, `peak_bytes`),
            `mask_rcnn` (`seconds`; `objects` found; `stages`: name in `STAGES` → seconds per round; `costs`: see
            `detector_costs`) and `ratio` per round.
        proposals, detections: number → `stages` (name → seconds per round) and `multiply_adds` of the head in question.
        published: see `published_costs`; `published_ratio`: multiply-adds of Mask R-CNN over those of the U-Net, `each`
            on its own input, and on the `same_picture`.
        ratio: per round, at `settings.side`.
    """
    nets = {"unet": shipped(UNET), "mask_rcnn": shipped(DETECTOR)}
    settings = nets["mask_rcnn"][1].settings
    table: dict = {
        "settings": {
            "side": SIDE,
            "candidates": settings.rpn_pre_nms_top_n[1],
            "proposals": settings.rpn_post_nms_top_n[1],
            "detections": settings.box_detections_per_img,
            "published_picture": list(PUBLISHED_PICTURE),
        },
        "sizes": {},
    }
    for side in PICTURE_SIDES:
        table["sizes"][str(side)] = at_side(nets, side, ROUNDS)
        progress(
            f"{side} × {side}: Mask R-CNN takes {np.mean(table['sizes'][str(side)]['ratio']):.1f} times as long"
        )
    table |= over_counts(nets, SIDE, ROUNDS)
    table["published"] = papers = published_costs()
    work = papers["mask_rcnn"]["all"]["multiply_adds"]
    table["published_ratio"] = {
        "each": work / papers["unet"]["multiply_adds"],
        "same_picture": work / papers["unet_same_picture"]["multiply_adds"],
    }
    table["ratio"] = table["sizes"][str(SIDE)]["ratio"]
    return waiting(
        "6.3",
        "Mask R-CNN is computationally expensive and slow at inference.",
        f"time from a picture of {SIDE} × {SIDE} to its objects, small Mask R-CNN over small U-Net (1: as long)",
        interval(table["ratio"]),
        ROUNDS,
        table,
        "the U-Net was timed with one view; the accuracy that 2.2 reports takes four",
        8,
    )
