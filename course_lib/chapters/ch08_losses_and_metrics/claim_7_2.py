"""Claim 7.2: Dice and IoU rank two masks alike; their means can rank two models differently."""

from collections.abc import Callable
from itertools import combinations

import numpy as np

from course_lib.chapters.ch08_losses_and_metrics import great_table as table
from course_lib.teaching.ledger import Result

EXPERIMENTS = (table.EXPERIMENT,)
CLOSE, OFTEN = 0.01, 0.05


def leads(seed: int) -> np.ndarray:
    """By how much one network leads another in mean IoU and in mean Dice over the images.

    The pairs are all networks of a seed that saw the same images and learned with different losses.

    Returns:
        float `(pairs, 2)`, the lead in IoU first; no rows where there are no pairs yet.
    """
    done, pairs = table.EXPERIMENT.results(), []
    for fraction in table.FRACTIONS:
        runs = (table.reported(loss, fraction, seed, done) for loss in table.LOSSES)
        found = (done.get(table.key(run), {}) for run in runs if run)
        for one, other in combinations([run["per_image"] for run in found if "per_image" in run], 2):
            pairs.append([one["iou"] - other["iou"], one["dice"] - other["dice"]])
    return np.reshape(pairs, (-1, 2))


def claim_7_2(progress: Callable[[str], None] = print) -> Result:
    """How often the means disagree among close pairs of networks that were trained differently."""
    rates = []
    for seed in table.SEEDS:
        of_seed = leads(seed)
        close = of_seed[np.abs(of_seed[:, 0]) < CLOSE]
        if len(close):
            rates.append(float(np.mean(close[:, 0] * close[:, 1] < 0)))
    lacking = table.missing()
    settings = {f"pairs closer than {CLOSE} in mean IoU": [] if lacking else rates}
    gates = sorted(table.gates().values(), key=lambda gate: gate.reached)
    return table.result(
        "7.2",
        "IoU and Dice rank two masks alike; their means over images can rank two models differently.",
        f"fraction of pairs of networks that mean IoU and mean Dice rank differently; the claim needs more than {OFTEN}",
        settings,
        dict.fromkeys(settings, gates[0]) if gates else {},
        lacking,
        null=OFTEN,
        margin=None,
    )
