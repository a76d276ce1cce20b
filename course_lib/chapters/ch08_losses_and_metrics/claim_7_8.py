"""Claim 7.8: the balance of false positives and false negatives."""

from collections.abc import Callable

from course_lib.chapters.ch08_losses_and_metrics import great_table as table
from course_lib.teaching.ledger import Result

EXPERIMENTS = (table.EXPERIMENT,)


def claim_7_8(progress: Callable[[str], None] = print) -> Result:
    """The difference between predicted and true area at probability 0.5: cross-entropy against Dice."""

    def imbalance(run: dict) -> float:
        return abs(run["at_half"]["predicted"] - 1) if "at_half" in run else 1.0

    return table.result(
        "7.8",
        "Dice balances false positives and false negatives.",
        "|false positives - false negatives| divided by the ground-truth area, at probability 0.5, cross-entropy minus "
        "Dice",
        {table.name_of(f): table.difference("ce", "dice", f, imbalance) for f in table.FRACTIONS},
        table.gates(),
        table.missing(("ce", "dice")),
    )
