"""Claim 4.3: cut one skip, or the bottleneck, in trained networks and see what is lost."""

from collections.abc import Callable

import numpy as np

from course_lib.chapters.ch03_unet_encoder import scenes_networks as networks
from course_lib.teaching.ledger import Result, judged
from course_lib.teaching.statistics import judge

EXPERIMENTS = (networks.EXPERIMENT,)
SCORES = ("region_iou", "boundary_iou", "class_accuracy", "mean_class_iou")


def lost(run: dict, cut: str, score: str) -> float:
    """The fraction of a score that a cut costs."""
    return 1 - run["cut"][cut][score] / run["whole"][score]


def claim_4_3(progress: Callable[[str], None] = print) -> Result:
    """Cutting the finest skip costs the outline more than the class; cutting the bottleneck the other way round."""
    runs = networks.runs("concat")
    names = {f"encoder_{k}": f"without_skip_{k}" for k in range(1, networks.DEPTH + 1)} | {
        "bottleneck": "without_bottleneck"
    }
    table: dict = {"whole": {score: [run["whole"][score] for run in runs.values()] for score in SCORES}}
    for cut, name in names.items():
        table[name] = {score: [run["cut"][cut][score] for run in runs.values()] for score in SCORES}
        table[name] |= {f"{score}_lost": [lost(run, cut, score) for run in runs.values()] for score in SCORES}
    table["boundary_loss_minus_region_loss_skip_1"] = np.subtract(
        table["without_skip_1"]["boundary_iou_lost"], table["without_skip_1"]["region_iou_lost"]
    )

    def edge_minus_class(name: str) -> np.ndarray:
        return np.subtract(table[name]["boundary_iou_lost"], table[name]["class_accuracy_lost"])

    gate = networks.gate(runs)
    return judged(
        "4.3",
        "The skips carry edges; the deep path carries context.",
        "relative loss of boundary IoU minus relative loss of class accuracy (sign reversed where the bottleneck is cut)",
        judge(
            {
                "finest skip cut": edge_minus_class("without_skip_1"),
                "bottleneck cut": -edge_minus_class("without_bottleneck"),
            },
            gate,
            networks.NETWORKS,
        ),
        table,
        gate,
        len(networks.EXPERIMENT.missing()),
        networks.left_out(),
    )
