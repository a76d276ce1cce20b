"""Claim 7.4: cross-entropy as the general choice."""

from collections.abc import Callable

from course_lib.chapters.ch08_losses_and_metrics import great_table as table
from course_lib.teaching.ledger import Result

EXPERIMENTS = (table.EXPERIMENT,)


def claim_7_4(progress: Callable[[str], None] = print) -> Result:
    """Never more than the margin worse than the loss that was best on the tuning seed, which is not reported."""
    done, settings = table.EXPERIMENT.results(), {}
    for fraction in table.FRACTIONS:
        on_tuning = {}
        for loss in set(table.LOSSES) - {"ce"}:
            runs = [
                done[name]
                for run in table.tuning(loss, fraction, done)[0]
                if (name := table.key(run)) in done
            ]
            on_tuning[loss] = max((run["val_iou"] for run in runs), default=0.0)
        rival = max(sorted(on_tuning), key=on_tuning.get)
        # Who the rival is, is known only when all losses are tuned.
        whole = not table.missing(fractions=(fraction,))
        settings[table.name_of(fraction)] = table.difference("ce", rival, fraction) if whole else []
    return table.result(
        "7.4",
        "Cross-entropy is the general choice.",
        "IoU with cross-entropy minus IoU with the other loss that was best on the tuning seed; the claim needs more than "
        f"-{table.MARGIN}",
        settings,
        table.gates(),
        table.missing(),
        null=-table.MARGIN,
        margin=None,
    )
