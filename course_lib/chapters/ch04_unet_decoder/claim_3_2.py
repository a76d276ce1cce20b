"""Claim 3.2: skips by concatenation, by addition, and none, in networks of the same size."""

from collections.abc import Callable

import numpy as np

from course_lib.chapters.ch03_unet_encoder import scenes_networks as networks
from course_lib.teaching.ledger import Result, judged
from course_lib.teaching.statistics import judge

EXPERIMENTS = (networks.EXPERIMENT, networks.SKIPS)


def claim_3_2(progress: Callable[[str], None] = print) -> Result:
    """Boundary IoU with concatenated skips against none and against added ones; parameters within 2 %."""
    of_skip = {skip: networks.runs(skip) for skip in networks.FILTERS}
    seeds = [seed for seed in of_skip["concat"] if all(seed in runs for runs in of_skip.values())]
    table: dict = {
        "parameters": {
            skip: next(iter(runs.values()))["parameters"] for skip, runs in of_skip.items() if runs
        }
    }
    for skip, runs in of_skip.items():
        table[skip] = {
            score: [runs[seed]["whole"][score] for seed in seeds]
            for score in ("region_iou", "boundary_iou", "boundary_iou_2", "mean_class_iou")
        }
    gain = {
        other: np.subtract(table["concat"]["boundary_iou"], table[other]["boundary_iou"])
        for other in ("none", "add")
    }
    table["gain_over_none"], table["gain_over_add"] = gain["none"], gain["add"]
    gate, missing = (
        networks.gate(of_skip["concat"]),
        len(networks.EXPERIMENT.missing()) + len(networks.SKIPS.missing()),
    )
    return judged(
        "3.2",
        "Concatenated skip connections are what restores the detail.",
        "boundary IoU (1 pixel) with concatenated skips minus boundary IoU of the other network, equal parameter counts",
        judge(
            {"concatenated vs. no skips": gain["none"], "concatenated vs. added skips": gain["add"]},
            gate,
            networks.NETWORKS,
        ),
        table if not missing else {},
        gate,
        missing,
        networks.left_out(),
    )
