"""What the widgets of masks compute and draw: a mask that is corrupted on purpose, and a threshold that is moved."""

import functools

import numpy as np
from scipy import ndimage

from course_lib import metrics
from course_lib.teaching.widgets.canvas import (
    BLACK,
    BLUE,
    DARK,
    GREEN,
    GREY,
    ORANGE,
    Answer,
    Canvas,
    Plane,
    rgb,
)

LEGEND = "grey: right     blue: too much     orange: missing"

# What is drawn in full length on a bar of a distance, in pixels.
FAR = 20


def three_discs(size: int = 72, radius: float = 13) -> np.ndarray:
    """Three discs that do not touch, an instance map, int `(size, size)`."""
    row, column = np.mgrid[:size, :size]
    objects = np.zeros((size, size), int)
    for number, (y, x) in enumerate(((20, 21), (22, 53), (53, 34)), start=1):
        objects[(row - y) ** 2 + (column - x) ** 2 <= radius**2] = number
    return objects


def corrupted(
    objects: np.ndarray, grow: int = 0, right: int = 0, down: int = 0, hole: float = 0
) -> np.ndarray:
    """The mask of some objects, with faults.

    Args:
        objects: int `(height, width)`, 0 = background.
        grow: pixels by which it is dilated; eroded, if below 0.
        right, down: pixels by which it is then moved. What leaves the image is gone.
        hole: radius in pixels of a hole in the middle of each object; 0 for none.

    Returns:
        bool `(height, width)`.
    """
    mask = objects > 0
    if grow:
        change = ndimage.binary_dilation if grow > 0 else ndimage.binary_erosion
        mask = change(mask, iterations=abs(grow))
    mask = ndimage.shift(mask.astype(np.uint8), (down, right), order=0) > 0
    row, column = np.mgrid[: mask.shape[0], : mask.shape[1]]
    middles = ndimage.center_of_mass(objects > 0, objects, np.unique(objects[objects > 0]))
    for y, x in middles if hole else []:
        mask &= np.hypot(row - np.rint(y) - down, column - np.rint(x) - right) > hole
    return mask


def all_scores(objects: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """The course's scores of a mask against the true objects; the mask's own objects are its connected pieces."""
    target, found = objects > 0, ndimage.label(mask)[0]
    return {
        "pixel accuracy": metrics.pixel_accuracy(metrics.confusion_matrix(target, mask, 2)),
        "IoU": metrics.iou(target, mask),
        "Dice": metrics.dice(target, mask),
        "boundary IoU": metrics.boundary_iou(target, mask, distance=2),
        "boundary F1": metrics.boundary_f1(target, mask, tolerance=2),
        "Hausdorff (px)": metrics.hausdorff(target, mask),
        "HD95 (px)": metrics.hausdorff(target, mask, percentile=95),
        "ASSD (px)": metrics.average_surface_distance(target, mask),
        "AP, mean": float(np.mean(metrics.average_precision([objects], [found]))),
        "PQ": metrics.panoptic_quality([objects], [found]).pq,
    }


def mask_answer(objects: np.ndarray, grow: int = 0, right: int = 0, down: int = 0, hole: float = 0) -> Answer:
    """A mask with faults and what each score makes of it; arguments as for `corrupted`.

    Returns:
        The answer; its numbers are those of `all_scores`, and `true pixels`, `found pixels` and `found objects`.
    """
    mask = corrupted(objects, grow, right, down, hole)
    scores = {name: float(value) for name, value in all_scores(objects, mask).items()}
    counts = {
        "true pixels": int((objects > 0).sum()),
        "found pixels": int(mask.sum()),
        "found objects": int(ndimage.label(mask)[1]),
    }
    words = (
        f"The true mask has {counts['true pixels']:,} pixels in {len(np.unique(objects[objects > 0]))} objects, the found "
        f"one {counts['found pixels']:,} in {counts['found objects']}. "
        + ", ".join(f"{name} {_shown(name, value)}" for name, value in scores.items())
        + "."
    )
    canvas = Canvas(900, 410)
    canvas.text(20, 14, LEGEND, 14, DARK)
    canvas.image(kinds(objects > 0, mask), _fitted(objects.shape, 20, 34, 365))
    for place, (name, value) in enumerate(scores.items()):
        y = 50 + 36 * place
        is_distance = "px" in name
        canvas.text(420, y, name, 16)
        limits = (0, FAR) if is_distance else (0, 1)
        canvas.bar((565, y - 9, 805, y + 9), value, limits, ORANGE if is_distance else GREEN)
        canvas.text(880, y, _shown(name, value), 17, at="rm")
    canvas.text(565, 399, f"green: 0 to 1     orange: 0 to {FAR} pixels", 12, DARK)
    return Answer(scores | counts, words, canvas)


def kinds(target: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Each pixel as a colour, float `(height, width, 3)`: grey in both, blue only found, orange only true, else white."""
    image = np.ones((*target.shape, 3))
    for where, colour in ((target & found, GREY), (found & ~target, BLUE), (target & ~found, ORANGE)):
        image[where] = rgb(colour)
    return 0.96 * image  # a tint that shows where the image ends


def _shown(name: str, value: float) -> str:
    if np.isinf(value):
        return "∞"
    return f"{value:.1f}" if "px" in name else f"{value:.2f}"


def _fitted(shape: tuple[int, ...], left: float, top: float, side: float) -> tuple[float, ...]:
    """The largest rectangle of an array's proportions in a square."""
    unit = side / max(shape[:2])
    return left, top, left + unit * shape[1], top + unit * shape[0]


# The threshold


def unsure_guess(target: np.ndarray, seed: int = 0) -> np.ndarray:
    """A probability for each pixel, as an unsure model might give it: less sure near outlines, and wrong here and there.

    Args:
        target: bool `(height, width)`.
        seed: of the mistakes.

    Returns:
        float `(height, width)` in 0..1.
    """
    inwards = ndimage.distance_transform_edt(target) - ndimage.distance_transform_edt(~target)
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=target.shape), 2.5)
    logits = np.clip(inwards, -6, 6) / 2.5 + 1.3 * noise / noise.std()
    return 1 / (1 + np.exp(-logits))


def precision_and_recall(target: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """The fraction of the found pixels that are true, and of the true pixels that are found; NaN where there is none."""
    matrix = metrics.confusion_matrix(target, found, 2)
    # Recall is the accuracy of class 1. With rows and columns exchanged, target and prediction change places.
    return float(metrics.class_accuracy(matrix.T)[1]), float(metrics.class_accuracy(matrix)[1])


def threshold_curve(target: np.ndarray, probability: np.ndarray, steps: int = 50) -> np.ndarray:
    """Precision and recall at thresholds 0, 1 / steps, ... 1, float `(steps + 1, 2)`."""
    return np.array([precision_and_recall(target, probability > k / steps) for k in range(steps + 1)])


def threshold_answer(
    target: np.ndarray, probability: np.ndarray, threshold: float, curve: np.ndarray | None = None
) -> Answer:
    """The mask above a threshold, its precision and recall, and where it lies on the curve of all thresholds.

    Args:
        target: bool `(height, width)`.
        probability: float `(height, width)` in 0..1.
        threshold: a pixel above it is called object.
        curve: what `threshold_curve` gave, so that it is not computed each time.

    Returns:
        The answer; its numbers are `precision`, `recall`, `IoU`, `Dice` and `found pixels`.
    """
    curve = threshold_curve(target, probability) if curve is None else curve
    found = probability > threshold
    precision, recall = precision_and_recall(target, found)
    numbers = {
        "precision": precision,
        "recall": recall,
        "IoU": float(metrics.iou(target, found)),
        "Dice": float(metrics.dice(target, found)),
        "found pixels": int(found.sum()),
    }
    words = (
        f"Above {threshold:.2f} lie {numbers['found pixels']:,} pixels; {target.sum():,} are true, "
        f"{(found & target).sum():,} are both. Precision {_percent(precision)}, recall {_percent(recall)}, "
        f"IoU {numbers['IoU']:.2f}, Dice {numbers['Dice']:.2f}."
    )
    canvas = Canvas(900, 400)
    canvas.text(20, 14, "probability of “object”", 14, DARK)
    canvas.image(probability, _fitted(target.shape, 20, 30, 270))
    canvas.text(310, 14, f"mask above {threshold:.2f}", 14, DARK)
    canvas.image(kinds(target, found), _fitted(target.shape, 310, 30, 270))
    canvas.text(20, 318, LEGEND, 13, DARK)
    for place, name in enumerate(("precision", "recall", "IoU", "Dice")):
        x = 20 + 145 * place
        canvas.text(x, 350, name, 15)
        canvas.text(
            x + 125, 350, "–" if np.isnan(numbers[name]) else f"{numbers[name]:.2f}", 16, at="rm", bold=True
        )
        canvas.bar((x, 364, x + 125, 380), numbers[name], colour=GREEN)
    _draw_curve(canvas, curve, precision, recall)
    return Answer(numbers, words, canvas)


def _percent(fraction: float) -> str:
    return "has no value" if np.isnan(fraction) else f"{fraction:.0%}"


def _draw_curve(canvas: Canvas, curve: np.ndarray, precision: float, recall: float) -> None:
    plane = Plane(canvas, 640, 30, 24)
    canvas.text(640, 14, "precision against recall", 14, DARK)
    plane.grid(10, 10)
    drawn = curve[~np.isnan(curve).any(1)]
    canvas.line([plane.at(10 * r, 10 - 10 * p) for p, r in drawn], BLUE, 3)
    if not np.isnan(precision) and not np.isnan(recall):
        x, y = 10 * recall, 10 - 10 * precision
        canvas.line([plane.at(x, y), plane.at(x, 10)], ORANGE, 1.5, dash=5)
        canvas.line([plane.at(0, y), plane.at(x, y)], ORANGE, 1.5, dash=5)
        plane.dot(x, y, 8, ORANGE, BLACK)
    for k in (0, 5, 10):
        canvas.text(plane.at(k, 10)[0], plane.at(k, 10)[1] + 4, f"{k / 10:g}", 12, DARK, at="ma")
        canvas.text(plane.at(0, 10 - k)[0] - 6, plane.at(0, 10 - k)[1], f"{k / 10:g}", 12, DARK, at="rm")
    canvas.text(760, 308, "recall →", 14, DARK, at="mm")


@functools.cache
def example() -> tuple[np.ndarray, np.ndarray]:
    """Cells and an unsure guess: target bool and probability float, both `(96, 96)`."""
    from course_lib.datasets import cells

    target = cells("val", length=1, size=96, seed=3, density=0.3)[0].semantic == 1
    return target, unsure_guess(target)
