"""Claim 7.6: focal loss where the classes are far out of balance."""

from collections.abc import Callable

from course_lib.chapters.ch08_losses_and_metrics import great_table as table
from course_lib.teaching.ledger import Result

EXPERIMENTS = (table.EXPERIMENT,)


def claim_7_6(progress: Callable[[str], None] = print) -> Result:
    """Focal loss with α and the prior bias against cross-entropy at 1 and 0.3 % foreground."""
    rare = (0.003, 0.01)
    return table.result(
        "7.6",
        "Focal loss suits data that is highly imbalanced.",
        "IoU with focal loss minus IoU with cross-entropy",
        {table.name_of(fraction): table.difference("focal", "ce", fraction) for fraction in rare},
        table.gates(rare),
        table.missing(("ce", "focal"), rare),
    )
