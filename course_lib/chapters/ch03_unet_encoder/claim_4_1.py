"""Claim 4.1: what each level of the encoder knows, by linear probes on networks that have learned their task."""

from collections.abc import Callable

import numpy as np

from course_lib.chapters.ch03_unet_encoder import scenes_networks as networks
from course_lib.teaching.ledger import Result, judged
from course_lib.teaching.statistics import judge

EXPERIMENTS = (networks.EXPERIMENT,)
QUESTIONS = ("what", "where", "what_interpolated", "where_interpolated")


def probe_table(runs: dict[int, dict]) -> dict:
    """Level → question → one balanced accuracy per network; the untrained networks' under `untrained`."""

    def of(kind: str, level: str) -> dict:
        return {q: [run["probes"][kind][level][q] for run in runs.values()] for q in QUESTIONS}

    return {level: of("trained", level) for level in networks.LEVELS} | {
        "untrained": {level: of("untrained", level) for level in networks.LEVELS},
        "class_iou": [run["class_iou"] for run in runs.values()],
        "curve": [run["curve"] for run in runs.values()],
        "seeds": list(runs),
    }


def gained(runs: dict[int, dict], question: str, to: str, start: str) -> np.ndarray:
    """Per network: how much more a probe finds at one level than at another, beyond the untrained network."""

    def rise(kind: str) -> np.ndarray:
        return np.array(
            [
                run["probes"][kind][to][question] - run["probes"][kind][start][question]
                for run in runs.values()
            ]
        )

    return rise("trained") - rise("untrained")


def claim_4_1(progress: Callable[[str], None] = print) -> Result:
    """How much *what* rises from level to level of the encoder, beyond the untrained network."""
    runs = networks.runs("concat")
    levels = networks.LEVELS[: networks.DEPTH + 1]
    steps = {f"{a} to {b}": gained(runs, "what", b, a) for a, b in zip(levels, levels[1:], strict=False)}
    table = probe_table(runs)
    for question in ("what", "where"):
        table[f"{question}_bottleneck_minus_encoder_1"] = np.subtract(
            table["bottleneck"][question], table["encoder_1"][question]
        )
    gate = networks.gate(runs)
    return judged(
        "4.1",
        "Each step of the encoder halves the size and adds channels; it captures what is in the image.",
        "gain in a linear probe's balanced accuracy for the class from one level to the next, trained minus untrained "
        "network",
        judge(steps, gate, networks.NETWORKS),
        table,
        gate,
        len(networks.EXPERIMENT.missing()),
        networks.left_out(),
    )
