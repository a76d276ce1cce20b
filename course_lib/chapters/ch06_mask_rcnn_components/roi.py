"""Claims 6.1 and 6.2: Mask R-CNN as Faster R-CNN with an extra head, and how a region is read from the feature map."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from course_lib import recipes, training
from course_lib.chapters.ch07_mask_rcnn_training_and_limits.limits import Step, detect_all
from course_lib.datasets.loading import normalize
from course_lib.ops.roi import roi_align, roi_pool
from course_lib.tasks import Objects, coco_scores
from course_lib.teaching.ledger import Result, demonstrated, interval, waiting

SEEDS = (0, 1, 2)
READERS = ("align", "pool")
MAPS = {"fine": 96.0, "coarse": 24.0}
"""`canonical_box_size` of the model: a cell of 12 pixels is read from the map of stride 2, so 6 positions wide, or from
that of stride 8, 1.5 positions wide. The paper too compares the two on a coarse map, of stride 32 (He et al. 2017,
https://arxiv.org/abs/1703.06870, table 2d)."""
SCORES = ("box_ap", "box_ap_50", "box_ap_75", "mask_ap", "mask_ap_50", "mask_ap_75")

SMALL = recipes.Recipe(
    name="maskrcnn-roi",
    title="A tiny Mask R-CNN on cells, for claims 6.1 and 6.2, which train it many times",
    dataset="cells",
    train_data={"length": 800, "size": 64, "seed": 21},
    val_data={"length": 128, "size": 64, "seed": 21},
    network="MaskRCNN",
    network_arguments={
        "backbone": "small",
        "backbone_arguments": {"widths": (16, 24, 32, 48), "blocks": (1, 1, 1, 1), "stem_stride": 2},
        "filters": 32,
        "box_units": 64,
        "mask_filters": 24,
        "mask_convolutions": 2,
        "settings": {
            "anchor_sizes": (8.0, 14.0, 20.0, 28.0, 40.0),
            "aspect_ratios": (1.0,),
            "rpn_batch_size_per_image": 64,
            "rpn_pre_nms_top_n": (32, 32),
            "rpn_post_nms_top_n": (32, 32),
            "box_batch_size_per_image": 24,
            "box_positive_fraction": 0.5,
            "box_detections_per_img": 24,
        },
    },
    task=Objects(24),
    normalization="stretch",
    augmentation=recipes.Augmentation(flip=True, turn=True),
    epochs=1,
    steps=300,
    batch_size=8,
    crop=(64, 64),
    learning_rate=3e-3,
    clip=5.0,
)


def variant(reader: str = "align", read_from: str = "fine", with_mask: bool = True) -> recipes.Recipe:
    """The small recipe with another way to read regions, from another map, or without the mask head."""
    arguments = dict(SMALL.network_arguments) | {"with_mask": with_mask}
    arguments["settings"] = arguments["settings"] | {"roi_op": reader, "canonical_box_size": MAPS[read_from]}
    return dataclasses.replace(SMALL, network_arguments=arguments)


class Bench:
    """One network that is trained from several seeds, compiled only once.

    Args:
        recipe: its seed is of no account.
    """

    def __init__(self, recipe: recipes.Recipe):
        self.recipe, self.model = recipe, recipe.model()
        training.compile_model(self.model, recipe, jit=training.DETECTOR_JIT)

    def train(self, seed: int):
        """The network, trained from this seed's weights, data order and chance; one trained before is only loaded."""
        recipe = dataclasses.replace(self.recipe, seed=seed)
        kept = training.RUNS / f"{recipe.name}-{recipe.digest}.weights.h5"
        if kept.is_file():
            self.model.load_weights(kept)
            return self.model
        training.start_again(self.model, recipe)
        self.model.fit(recipe.batches("train"), epochs=recipe.epochs, verbose=0, shuffle=False)
        training.RUNS.mkdir(exist_ok=True)
        self.model.save_weights(kept)
        return self.model


def scores(recipe: recipes.Recipe, model) -> dict[str, float]:
    """COCO's scores on the validation set: of the boxes, and of the masks where there are any."""
    val = list(recipe.data("val"))
    step = Step(lambda images: model(images, training=False), model)
    found = detect_all(step, [normalize(sample.image, recipe.normalization) for sample in val], 16)
    return coco_scores(val, found, len(recipe.class_names()) - 1)


# Claim 6.1 ---------------------------------------------------------------------------------------------------


def parameters_by_part(model) -> dict[str, int]:
    """Parameters of the parts: backbone, pyramid, RPN, box head and, if there is one, mask head."""
    parts = {
        "backbone": model.backbone,
        "pyramid": model.fpn,
        "rpn": model.rpn_head,
        "boxes": model.box_head,
        "masks": model.mask_head,
    }
    return {name: part.count_params() for name, part in parts.items() if part is not None}


def claim_6_1(progress: Callable[[str], None] = print) -> Result:
    """Mask R-CNN = Faster R-CNN + a mask head: the same class with `with_mask=False` is built, trained and scored.

    The table: `with`, `without` → `parameters` by part, `losses` (their names), `answers` (the names of what is found for
    each object), `scores` (COCO's validation AP of one small network, seed 0, trained as in claim 6.2).
    """
    table = {}
    for name, mask_head in (("with", True), ("without", False)):
        bench = Bench(variant(with_mask=mask_head))
        model = bench.train(SEEDS[0])
        found = model.predict_on_batch(bench.recipe.batches("val")[0][0])
        table[name] = {
            "parameters": parameters_by_part(model),
            "losses": list(model.loss_names),
            "answers": sorted(found),
            "scores": scores(bench.recipe, model),
        }
        progress(f"{name} mask head: {table[name]['scores']}")
    more = sum(table["with"]["parameters"].values()) - sum(table["without"]["parameters"].values())
    same = all(
        table["with"]["parameters"][part] == number for part, number in table["without"]["parameters"].items()
    )
    gone = set(table["with"]["losses"]) - set(table["without"]["losses"])
    works = min(table[name]["scores"]["box_ap_50"] for name in table) > 0.3
    if not (same and gone == {"loss_mask"} and works):
        raise AssertionError(f"without its mask head the detector lost {gone}, or its boxes: {table}")
    return demonstrated(
        "6.1",
        "Mask R-CNN is Faster R-CNN with a mask head.",
        "the detector is built, trained and scored without its mask head",
        f"Without its mask head ({more:,} parameters, one of five losses) the detector still trains and predicts boxes: "
        f"box AP is {table['without']['scores']['box_ap']:.2f} without the head and "
        f"{table['with']['scores']['box_ap']:.2f} with it.",
        table,
    )


# Claim 6.2 ---------------------------------------------------------------------------------------------------


def ramp_errors(shifts: int = 40, size: float = 6.4, bins: int = 4, side: int = 24) -> dict[str, dict]:
    """What a box reads from a feature map whose value is its own column, while the box moves by fractions of a location.

    On such a ramp the mean over a cell is known: the column of its middle. RoI Pool takes the maximum and so reads too
    much; that would be the same everywhere and is no fault, so each cell's mean error over the shifts is taken off.

    Args:
        shifts: how many places, from 0 up to 2 positions to the right.
        size: width and height of the box in positions.
        bins: cells along a side.
        side: of the map, in positions.

    Returns:
        `shifts`, in positions, and for each of `READERS` a dict: `first`, the error of the first cell at each shift, and
        `rms`, over all cells and shifts; in positions, the mean over the shifts taken off. Beside RoI Align as Mask R-CNN's
        code first had it, `aligned` holds the variant that is right to the half pixel.
    """
    places = np.linspace(0, 2, shifts, endpoint=False)
    near = 5.0 + places
    boxes = np.stack([near, np.full(shifts, 5.0), near + size, np.full(shifts, 5.0 + size)], -1)
    columns = np.broadcast_to(np.arange(side, dtype=np.float32)[None, None, :, None], (1, side, side, 1))
    # The value at index i stands for the stretch i to i + 1, whose middle is at i + 0.5.
    true = near[:, None] + (np.arange(bins) + 0.5) * size / bins - 0.5
    read = {
        "align": roi_align(columns, boxes[None].astype(np.float32), bins),
        "aligned": roi_align(columns, boxes[None].astype(np.float32), bins, aligned=True),
        "pool": roi_pool(columns, boxes[None].astype(np.float32), bins),
    }
    found: dict = {"shifts": places.tolist()}
    for name, values in read.items():
        error = ops.convert_to_numpy(values)[0, :, 0, :, 0] - true
        error = error - error.mean(axis=0)
        found[name] = {"first": error[:, 0].tolist(), "rms": float(np.sqrt((error**2).mean()))}
    return found


def claim_6_2(progress: Callable[[str], None] = print) -> Result:
    """RoI Align against RoI Pool: on a ramp, and in networks that differ in nothing else, from the same seeds.

    The effect is the difference of mask AP at IoU 0.75 where regions are read from coarse maps.

    The table:
        ramp: see `ramp_errors`.
        fine, coarse: reader → score in `SCORES` → one value per seed.
        gain: map → score → align minus pool, per seed.
        effect: the gain that decides, per seed.
        settings: `seeds`, `steps`, `canonical_box_size` of the maps.
    """
    table: dict = {
        "ramp": ramp_errors(),
        "settings": {"seeds": list(SEEDS), "steps": SMALL.epochs * SMALL.steps, "canonical_box_size": MAPS},
        "gain": {},
    }
    for read_from in MAPS:
        table[read_from] = {}
        for reader in READERS:
            bench = Bench(variant(reader, read_from))
            rows = []
            for seed in SEEDS:
                rows.append(scores(bench.recipe, bench.train(seed)))
                progress(f"{read_from} map, RoI {reader}, seed {seed}: {rows[-1]}")
            table[read_from][reader] = {score: [row[score] for row in rows] for score in SCORES}
            keras.backend.clear_session()
        mine = table[read_from]
        table["gain"][read_from] = {
            score: np.subtract(mine["align"][score], mine["pool"][score]).tolist() for score in SCORES
        }
    table["effect"] = table["gain"]["coarse"]["mask_ap_75"]
    return waiting(
        "6.2",
        "RoI Align is better than RoI Pool.",
        "mask AP at IoU 0.75, RoI Align minus RoI Pool, features from coarse maps (stride 8 for an object of 12 pixels)",
        interval(table["effect"]),
        len(SEEDS),
        table,
        "three seeds, short trainings and no gate",
        20,
    )
