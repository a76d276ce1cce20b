"""Claim 5.4: FCN and DeepLab as the general-purpose networks, by the mean IoU of classes."""

from collections.abc import Callable

from course_lib.chapters.ch05_unet_vs_fcn import five_networks
from course_lib.teaching.ledger import Result, judged
from course_lib.teaching.statistics import judge

EXPERIMENTS = (five_networks.EXPERIMENT,)


def claim_5_4(progress: Callable[[str], None] = print) -> Result:
    """FCN-8s and DeepLabV3+ against U-Net on scenes; street scenes (CamVid) are still to be made and count as missing."""
    of_network = {name: five_networks.results(name) for name in five_networks.NETWORKS}
    settings: dict[str, list[float]] = {}
    for name in ("FCN-8s", "DeepLabV3+"):
        ours, theirs = of_network["U-Net"], of_network[name]
        settings[f"{name} on scenes"] = [
            theirs[seed]["whole"]["mean_class_iou"] - ours[seed]["whole"]["mean_class_iou"]
            for seed in five_networks.SEEDS
            if seed in ours and seed in theirs
        ]
        settings[f"{name} on street scenes"] = []
    gate = five_networks.gate()
    lacking = five_networks.missing() + 3 * len(five_networks.SEEDS)
    table = {
        name: [run["whole"] | {"class_iou": run["class_iou"]} for run in runs.values()]
        for name, runs in of_network.items()
    }
    return judged(
        "5.4",
        "FCN and DeepLab are the more general-purpose networks.",
        "mean IoU over the classes, the other network minus U-Net, equal parameter counts",
        judge(settings, gate, len(five_networks.SEEDS)),
        table,
        gate,
        lacking,
    )
