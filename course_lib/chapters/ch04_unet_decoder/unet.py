"""Chapter 3 of the claims: what U-Net's parts are good for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache

import numpy as np

from course_lib import recipes, training
from course_lib.metrics.boundary import boundary_iou
from course_lib.metrics.semantic import iou
from course_lib.models.unet import unet
from course_lib.models.width import nearest_width
from course_lib.segmenter import Segmenter
from course_lib.teaching.ledger import Result, interval

SEEDS = (0, 1, 2)
SKIP_SEEDS = (0, 1, 2, 3, 4)
SKIPS = ("concat", "add", "none")

CELLS_FOR_SKIPS = dataclasses.replace(
    recipes.CELLS,
    name="unet-cells-skips",
    title="A quarter of unet-cells, for claim 3.2, which trains it fifteen times",
    network_arguments=dict(recipes.CELLS.network_arguments) | {"base_filters": 8},
)


def with_skip(recipe: recipes.Recipe, skip: str, seed: int) -> recipes.Recipe:
    """The recipe with another kind of skip, as many parameters (as near as the width allows), and another seed."""
    arguments = dict(recipe.network_arguments)
    if skip != "concat":
        classes = len(recipe.class_names())
        shape = (None, None, recipe.model().input_shape[-1])
        parameters = recipe.model().count_params()
        del arguments["base_filters"]
        arguments["skip"] = skip

        def count(filters: int) -> int:
            return unet(shape, classes, filters, **arguments).count_params()

        arguments["base_filters"] = nearest_width(parameters, count)
    return dataclasses.replace(recipe, network_arguments=arguments, seed=seed)


def trained(recipe: recipes.Recipe):
    """The recipe's net, trained to the end; a run that was stopped goes on, a finished one is only loaded."""
    model = recipe.model(recipe.crop)
    training.compile_model(model, recipe, jit=training.JIT)
    folder = training.RUNS / f"{recipe.name}-{recipe.digest}"
    training.fit(model, recipe.batches("train"), recipe.epochs, folder, name=recipe.name)
    whole = recipe.model()
    whole.set_weights(model.get_weights())
    return whole


def region_and_boundary(recipe: recipes.Recipe, model, dataset, distance: float = 2.0) -> tuple[float, float]:
    """The IoU of the objects' area and the IoU of its rim, `distance` pixels wide: means over the pictures.

    Both look at objects against background, whichever their class: the same mask, once whole and once its outline.
    """
    areas, rims = [], []
    for sample, probabilities in zip(dataset, Segmenter.of(recipe, model).outputs(dataset), strict=True):
        truth, found = sample.semantic > 0, probabilities.argmax(-1) > 0
        areas.append(iou(truth, found))
        rims.append(boundary_iou(truth, found, distance))
    return float(np.mean(areas)), float(np.mean(rims))


@cache
def net(skip: str, seed: int) -> tuple:
    """One of the nets of claims 4.1 to 4.3, `(recipe, model)`, trained when it is first asked for."""
    recipe = with_skip(recipes.SCENES, skip, seed)
    return recipe, trained(recipe)


def claim_3_2(progress: Callable[[str], None] = print) -> Result:
    """Skip connections by concatenation, by addition, and none: as many parameters, same data, schedule and seeds."""
    val = CELLS_FOR_SKIPS.data("val")
    table: dict = {"parameters": {}}
    for skip in SKIPS:
        scores = []
        for seed in SKIP_SEEDS:
            recipe = with_skip(CELLS_FOR_SKIPS, skip, seed)
            model = trained(recipe)
            scores.append(region_and_boundary(recipe, model, val))
            progress(f"skip {skip}, seed {seed}: region and boundary IoU {scores[-1]}")
        table["parameters"][skip] = model.count_params()
        table[skip] = {"region_iou": [s[0] for s in scores], "boundary_iou": [s[1] for s in scores]}
    gain = {
        other: np.subtract(table["concat"]["boundary_iou"], table[other]["boundary_iou"])
        for other in ("none", "add")
    }
    table["gain_over_none"], table["gain_over_add"] = gain["none"].tolist(), gain["add"].tolist()
    effect, beside_add = interval(gain["none"]), interval(gain["add"])
    if effect.low <= 0:
        verdict, teacher = (
            "not seen here",
            "Five runs cannot tell nets with skips from nets without, on these cells.",
        )
    elif beside_add.low > 0:
        verdict = "holds"
        teacher = "Skips restore the outline, and concatenating the encoder's features does it better than adding them."
    else:
        verdict = "holds when the choice is between skips and no skips"
        teacher = (
            "Skips restore the outline; whether they are concatenated or added makes no difference that five runs of "
            "equally large nets could show."
        )
    return Result(
        "3.2",
        "The skip connections, by concatenation, are what restores the detail.",
        "boundary IoU (2 pixels) with concatenated skips minus without skips, equal parameters",
        effect,
        verdict,
        teacher,
        len(SKIP_SEEDS),
        table,
        CELLS_FOR_SKIPS.digest,
    )
