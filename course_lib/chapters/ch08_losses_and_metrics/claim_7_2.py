"""Claim 7.2: Dice and IoU rank two masks alike, their means can rank two models differently."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import numpy as np

from course_lib.chapters.ch08_losses_and_metrics import great_table as table
from course_lib.teaching.ledger import Result

EXPERIMENTS = (table.EXPERIMENT,)


def claim_7_2(progress: Callable[[str], None] = print) -> Result:
    """Among close pairs of really different trained networks (same data, another loss): how often the means disagree."""
    close, often = 0.01, 0.05
    done, rates = table.EXPERIMENT.results(), []
    for seed in table.SEEDS:
        flips = []
        for fraction in table.FRACTIONS:
            runs = (table.reported(loss, fraction, seed, done) for loss in table.LOSSES)
            found = (done.get(table.key(run), {}) for run in runs if run)
            for one, other in combinations([run["per_image"] for run in found if "per_image" in run], 2):
                by_iou, by_dice = one["iou"] - other["iou"], one["dice"] - other["dice"]
                if abs(by_iou) < close:
                    flips.append(by_iou * by_dice < 0)
        if flips:
            rates.append(float(np.mean(flips)))
    lacking = table.missing()
    settings = {f"pairs closer than {close} in mean IoU": [] if lacking else rates}
    gates = sorted(table.gates().values(), key=lambda gate: gate.reached)
    result = table.result(
        "7.2",
        "IoU and Dice rank two masks alike; their means over images can rank two models differently.",
        f"fraction of pairs of networks that mean IoU and mean Dice rank differently; to be above {often}",
        settings,
        dict.fromkeys(settings, gates[0]) if gates else {},
        lacking,
        null=often,
        margin=None,
    )
    return replace(result, table={} if lacking else {"flips": rates})
