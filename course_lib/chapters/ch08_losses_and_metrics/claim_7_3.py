"""Claim 7.3: pixel accuracy under imbalance."""

from collections.abc import Callable
from dataclasses import replace

from course_lib.chapters.ch08_losses_and_metrics import great_table as table
from course_lib.teaching.ledger import Result

EXPERIMENTS = (table.EXPERIMENT,)


def claim_7_3(progress: Callable[[str], None] = print) -> Result:
    """Pixel accuracy beside Cohen's kappa, the same agreement corrected for chance, for the networks of cross-entropy."""

    def flattery(run: dict) -> float:
        """Accuracy minus kappa, from the areas over the true one."""
        at, true = run["chosen"], run["test_foreground"] / run["test_pixels"]
        by_chance = true**2 * at["predicted"] + (1 - true) * (1 - true * at["predicted"])
        return at["accuracy"] - (at["accuracy"] - by_chance) / (1 - by_chance)

    settings = {table.name_of(f): list(table.scores("ce", f, flattery).values()) for f in table.FRACTIONS}
    lacking = table.missing(("ce",))
    found = table.result(
        "7.3",
        "Pixel accuracy flatters a model under imbalance.",
        "pixel accuracy minus Cohen's kappa of networks trained with cross-entropy",
        settings,
        table.gates(),
        lacking,
    )
    return replace(found, table={} if lacking else {"flattery": settings})
