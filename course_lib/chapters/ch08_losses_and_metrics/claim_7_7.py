"""Claim 7.7: cross-entropy + Dice, the usual choice in practice."""

from collections.abc import Callable

from course_lib.chapters.ch08_losses_and_metrics import great_table as table
from course_lib.teaching.ledger import Result

EXPERIMENTS = (table.EXPERIMENT,)


def claim_7_7(progress: Callable[[str], None] = print) -> Result:
    """Not worse than cross-entropy by more than the margin at any fraction, and better at 1 and 0.3 %."""
    settings, gates, null, margin = {}, {}, {}, {}
    parts = (
        (table.FRACTIONS, "no harm at ", -table.MARGIN, None),
        ((0.003, 0.01), "a gain at ", 0.0, table.MARGIN),
    )
    for fractions, prefix, least, equal in parts:
        gates |= table.gates(fractions, prefix)
        for fraction in fractions:
            name = prefix + table.name_of(fraction)
            settings[name] = table.difference("ce_dice", "ce", fraction)
            null[name], margin[name] = least, equal
    return table.result(
        "7.7",
        "Cross-entropy + Dice is never worse than cross-entropy, and better where foreground is rare.",
        "IoU with cross-entropy + Dice minus IoU with cross-entropy",
        settings,
        gates,
        table.missing(("ce", "ce_dice")),
        null=null,
        margin=margin,
    )
