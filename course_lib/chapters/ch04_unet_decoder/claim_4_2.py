"""Claim 4.2: the location of outlines in the decoder's levels, with the bottleneck's own resolution as a control."""

from collections.abc import Callable

import numpy as np

from course_lib.chapters.ch03_unet_encoder import scenes_networks as networks
from course_lib.chapters.ch03_unet_encoder.claim_4_1 import probe_table
from course_lib.teaching.ledger import Result, judged
from course_lib.teaching.statistics import judge

EXPERIMENTS = (networks.EXPERIMENT, networks.SKIPS)


def claim_4_2(progress: Callable[[str], None] = print) -> Result:
    """How much better a probe finds the outline at the end of the decoder than in the bottleneck interpolated to full size.

    The control matters: block by block a coarse level must score lower, whatever it knows. The claim is about each step,
    so each step is tested beside the whole; the table also has the decoder without skips.
    """
    runs, without = networks.runs("concat"), networks.runs("none")
    table = probe_table(runs)
    up = ("bottleneck", *networks.LEVELS[networks.DEPTH + 1 :])
    for question in ("what", "where"):
        table[f"{question}_decoder_1_minus_bottleneck"] = np.subtract(
            table["decoder_1"][question], table["bottleneck"][question]
        )
    where = {level: np.array(table[level]["where_interpolated"]) for level in up}
    table["steps"] = {f"{a} to {b}": where[b] - where[a] for a, b in zip(up, up[1:], strict=False)}
    if without:
        table["without_skips"] = probe_table(without)
    gate = networks.gate(runs)
    return judged(
        "4.2",
        "Each step of the decoder doubles the size; it refines where things are.",
        "balanced accuracy of a linear probe for outline pixels, later minus earlier level, both interpolated to full "
        "resolution",
        judge(
            {"whole decoder": where["decoder_1"] - where["bottleneck"]} | table["steps"],
            gate,
            networks.NETWORKS,
        ),
        table,
        gate,
        len(networks.EXPERIMENT.missing()),
        networks.left_out(),
    )
