"""Claim 7.5: Dice and IoU losses where objects are sparse."""

from collections.abc import Callable

from course_lib.chapters.ch08_losses_and_metrics import great_table as table
from course_lib.teaching.ledger import Result

EXPERIMENTS = (table.EXPERIMENT,)


def claim_7_5(progress: Callable[[str], None] = print) -> Result:
    """The mean of Dice, Jaccard and Lovász against cross-entropy at 1 and 0.3 % foreground."""
    rare, losses = (0.003, 0.01), ("dice", "jaccard", "lovasz")
    return table.result(
        "7.5",
        "Dice and IoU losses suit sparse objects.",
        "IoU with Dice, Jaccard and Lovász (mean of the three) minus IoU with cross-entropy",
        {table.name_of(fraction): table.difference(losses, "ce", fraction) for fraction in rare},
        table.gates(rare),
        table.missing(("ce", *losses), rare),
    )
