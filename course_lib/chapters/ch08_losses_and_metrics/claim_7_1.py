"""Claim 7.1: IoU, Dice, pixel accuracy and mean IoU as they are defined, counted by hand and by the library."""

from collections.abc import Callable

import numpy as np

from course_lib.chapters.ch08_losses_and_metrics.scores import FOUND, TRUTH, mask
from course_lib.metrics import semantic
from course_lib.teaching.ledger import Result, demonstrated


def counts_by_hand(truth: np.ndarray, found: np.ndarray) -> dict[str, int]:
    """True and false, positives and negatives of two boolean masks, counted pixel by pixel."""
    names = {
        (True, True): "true_positives",
        (False, True): "false_positives",
        (True, False): "false_negatives",
        (False, False): "true_negatives",
    }
    counts = dict.fromkeys(names.values(), 0)
    for row in range(truth.shape[0]):
        for column in range(truth.shape[1]):
            counts[names[bool(truth[row, column]), bool(found[row, column])]] += 1
    return counts


def scores_by_hand(
    true_positives: int, false_positives: int, false_negatives: int, true_negatives: int
) -> dict[str, float]:
    """The four scores of the course, as it defines them, from the four counts."""
    wrong = false_positives + false_negatives
    iou = true_positives / (true_positives + wrong)
    iou_background = true_negatives / (true_negatives + wrong)
    return {
        "iou": iou,
        "dice": 2 * true_positives / (2 * true_positives + wrong),
        "pixel_accuracy": (true_positives + true_negatives) / (true_positives + true_negatives + wrong),
        "mean_iou": (iou + iou_background) / 2,
    }


def claim_7_1(progress: Callable[[str], None] = print) -> Result:
    """IoU, Dice, pixel accuracy and mean IoU are what the course defines them to be."""
    truth, found = mask(TRUTH), mask(FOUND)
    counts = counts_by_hand(truth, found)
    by_hand = scores_by_hand(**counts)
    matrix = semantic.confusion_matrix(truth, found, 2)
    library = {
        "iou": semantic.iou(truth, found),
        "dice": semantic.dice(truth, found),
        "pixel_accuracy": semantic.pixel_accuracy(matrix),
        "mean_iou": semantic.mean_iou(matrix),
    }
    apart = max(abs(by_hand[name] - library[name]) for name in by_hand)
    progress(f"{counts}: largest difference {apart:.1e}")
    agree = apart < 1e-12
    if not agree:
        raise AssertionError(f"the library's scores are off from those counted by hand by {apart:g}.")
    return demonstrated(
        "7.1",
        "IoU is the overlap over the union, Dice is twice the overlap over the sum of the areas, pixel accuracy is the "
        "fraction of correct pixels, and mean IoU is the average over the classes.",
        "largest difference between the scores counted by hand on 8 × 8 pixels and those of the library",
        "All four follow from four counts: true and false positives, true and false negatives.",
        {"counts": counts, "by_hand": by_hand, "library": library, "largest_difference": apart},
    )
