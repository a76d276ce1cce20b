"""Claim 5.3: the boundaries of an FCN beside those of U-Net, by tolerance."""

from collections.abc import Callable

from course_lib.chapters.ch05_unet_vs_fcn import five_networks
from course_lib.teaching.ledger import Result, judged
from course_lib.teaching.statistics import judge

EXPERIMENTS = (five_networks.EXPERIMENT,)


def claim_5_3(progress: Callable[[str], None] = print) -> Result:
    """U-Net against FCN-8s, the sharpest of the three FCNs, within 1, 2 and 4 pixels; all five networks in the table."""
    scores = {
        name: {
            str(tolerance): {seed: run["boundary_f1"][str(tolerance)] for seed, run in found.items()}
            for tolerance in five_networks.TOLERANCES
        }
        for name in five_networks.NETWORKS
        if (found := five_networks.results(name))
    }
    settings = {}
    for tolerance in map(str, five_networks.TOLERANCES):
        ours, theirs = (scores.get(name, {}).get(tolerance, {}) for name in ("U-Net", "FCN-8s"))
        settings[f"within {tolerance} px"] = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    gate, lacking = five_networks.gate(), five_networks.missing()
    return judged(
        "5.3",
        "The boundaries of an FCN are coarser.",
        "boundary F1 on scenes, U-Net minus FCN-8s, equal parameter counts",
        judge(settings, gate, len(five_networks.SEEDS)),
        scores,
        gate,
        lacking,
    )
