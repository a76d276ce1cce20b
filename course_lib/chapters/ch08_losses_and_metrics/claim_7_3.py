"""Claim 7.3: pixel accuracy under imbalance."""

from collections.abc import Callable

from course_lib.chapters.ch08_losses_and_metrics import great_table as table
from course_lib.teaching.ledger import Result

EXPERIMENTS = (table.EXPERIMENT,)


def accuracy(run: dict) -> float:
    """Pixel accuracy of a run at its chosen threshold; 0 for a training that diverged."""
    return run["chosen"]["accuracy"] if "chosen" in run else 0.0


def kappa(run: dict) -> float:
    """Cohen's kappa: the accuracy, corrected for what chance agreement with these areas would reach."""
    if "chosen" not in run:
        return 0.0
    true, predicted = run["test_foreground"] / run["test_pixels"], run["chosen"]["predicted"]
    by_chance = true**2 * predicted + (1 - true) * (1 - true * predicted)
    return (accuracy(run) - by_chance) / (1 - by_chance)


def claim_7_3(progress: Callable[[str], None] = print) -> Result:
    """Pixel accuracy minus Cohen's kappa, for the networks of cross-entropy."""

    def flattery(run: dict) -> float:
        return accuracy(run) - kappa(run)

    return table.result(
        "7.3",
        "Pixel accuracy flatters a model under imbalance.",
        "pixel accuracy minus Cohen's kappa of networks trained with cross-entropy",
        {table.name_of(f): list(table.scores("ce", f, flattery).values()) for f in table.FRACTIONS},
        table.gates(),
        table.missing(("ce",)),
    )
