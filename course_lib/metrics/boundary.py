"""Scores of the outline of a mask only, to which an area score such as IoU is hardly sensitive.

The **outline** of a mask, here and in every measure of this module, is its own outermost pixels: those with a
neighbour above, below, left or right that isn't in the mask. The edge of the image counts as outline too, as if
nothing were beyond it. Distances are Euclidean, between the centres of pixels, in pixels or in the unit of
`spacing`. Each library draws the outline in its own way (some between the pixels, some one pixel outside, some not
along the edge of the image), so distances of two libraries agree only where their outlines do.

Empty masks are scored as everywhere in the metrics (see `course_lib.metrics.semantic`). Two empty masks agree: 1, or
a distance of 0. One empty mask: 0, or a distance of infinity, since no outline is near. Masks without any pixel:
NaN.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from course_lib._checks import array_of, in_range
from course_lib.metrics._labels import check_same_shape


def boundary_iou(mask_true: np.ndarray, mask_pred: np.ndarray, distance: float = 2.0) -> float:
    """The IoU of two masks' rims: of the pixels of each mask that lie within `distance` of its own outline.

    Cheng et al. (2021), "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation",
    https://arxiv.org/abs/2103.16562, eq. 3. As there, the edge of the image counts as outline too.

    Args:
        mask_true, mask_pred: boolean `(height, width)`.
        distance: in pixels; 1 is the outermost pixel of the mask. Must be at least 1.

    Returns:
        0..1; 1 for two empty masks.

    Raises:
        ValueError: if the shapes differ, a mask is not boolean, or `distance` is below 1.
    """
    mask_true, mask_pred = _checked_masks(mask_true, mask_pred)
    if not mask_true.size:
        return float("nan")
    rim_true, rim_pred = rim(mask_true, distance), rim(mask_pred, distance)
    union = np.count_nonzero(rim_true | rim_pred)
    return np.count_nonzero(rim_true & rim_pred) / union if union else 1.0


def boundary_f1(
    mask_true: np.ndarray,
    mask_pred: np.ndarray,
    tolerance: float = 2.0,
    spacing: float | Sequence[float] | None = None,
) -> float:
    """The F1 score of the boundary: how much of each outline lies close to the other.

    Csurka, Larlus, Perronnin (2013), "What is a good evaluation measure for semantic segmentation?", BMVC,
    section 3. Precision is the fraction of the predicted outline's pixels that have a pixel of the true outline at a
    distance of at most `tolerance`, recall the fraction of the true outline's pixels that have a predicted one so near,
    and the score 2 · precision · recall / (precision + recall). Pixels aren't paired off one to one: several may
    lie near the same one. (The paper asks for less than the tolerance; "at most" lets 0 mean the same pixel. It
    takes 0.75 % of the image's diagonal: 2.7 pixels at 256 × 256.)

    Args:
        mask_true, mask_pred: boolean `(height, width)`, or of any number of axes.
        tolerance: in pixels, or in the unit of `spacing`; at least 0.
        spacing: size of a pixel along each axis, or one number for all; 1 by default.

    Returns:
        0..1; 1 for two empty masks, 0 if one is empty.

    Raises:
        ValueError: if the shapes differ, a mask is not boolean, `tolerance` is negative or `spacing` not positive.
    """
    tolerance = in_range("tolerance", tolerance, 0)
    from_true, from_pred = surface_distances(mask_true, mask_pred, spacing)
    if not len(from_true) or not len(from_pred):
        return _empty_score(mask_true, mask_pred, agree=1.0, differ=0.0)
    # The margin keeps a tie a tie: with a spacing of 0.1, three pixels are 0.30000000000000004.
    near = tolerance * (1 + 1e-9)
    recall, precision = np.mean(from_true <= near), np.mean(from_pred <= near)
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def hausdorff(
    mask_true: np.ndarray,
    mask_pred: np.ndarray,
    percentile: float = 100.0,
    spacing: float | Sequence[float] | None = None,
) -> float:
    """The Hausdorff distance of two outlines: the largest distance of a pixel of one from the other.

    max(max_a d(a, B), max_b d(b, A)) over the pixels a of one outline and b of the other. One stray pixel decides it.
    With `percentile=95` ("HD95") the farthest 5 % of each outline are forgiven: the percentile of the distances is
    taken in each direction (linearly between two of them), then the larger of the two (as MONAI does; MedPy takes
    one percentile of both directions together).

    Args:
        mask_true, mask_pred: boolean `(height, width)`, or of any number of axes.
        percentile: 0 < percentile <= 100; 100 is the Hausdorff distance itself.
        spacing: size of a pixel along each axis, or one number for all; 1 by default.

    Returns:
        The distance in pixels, or in the unit of `spacing`; 0 for two empty masks, infinity if one is empty.

    Raises:
        ValueError: if the shapes differ, a mask is not boolean, `percentile` is out of range or `spacing` not
            positive.
    """
    percentile = in_range("percentile", percentile, 0, 100, open_low=True)
    from_true, from_pred = surface_distances(mask_true, mask_pred, spacing)
    if not len(from_true) or not len(from_pred):
        return _empty_score(mask_true, mask_pred, agree=0.0, differ=float("inf"))
    return float(max(np.percentile(distances, percentile) for distances in (from_true, from_pred)))


def average_surface_distance(
    mask_true: np.ndarray, mask_pred: np.ndarray, spacing: float | Sequence[float] | None = None
) -> float:
    """The average symmetric surface distance (ASSD): the mean distance between the outlines, in both directions.

    (Σ_a d(a, B) + Σ_b d(b, A)) / (|A| + |B|) over the pixels a of one outline and b of the other: each outline pixel
    counts once (Heimann et al. 2009, Comparison and evaluation of methods for liver segmentation from CT datasets,
    IEEE TMI 28:8; MedPy does the same). The mean of the two directions' means, in which a short outline weighs as
    much as a long one, is another number; `surface_distances` gives what is needed for it.

    Arguments, result and errors as in `hausdorff`.
    """
    from_true, from_pred = surface_distances(mask_true, mask_pred, spacing)
    if not len(from_true) or not len(from_pred):
        return _empty_score(mask_true, mask_pred, agree=0.0, differ=float("inf"))
    return float(np.concatenate([from_true, from_pred]).mean())


def surface_distances(
    mask_true: np.ndarray, mask_pred: np.ndarray, spacing: float | Sequence[float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The distance of each pixel of each outline from the other outline.

    Args:
        mask_true, mask_pred: boolean `(height, width)`, or of any number of axes.
        spacing: size of a pixel along each axis, or one number for all; 1 by default.

    Returns:
        Two float64 arrays, in reading order: of each pixel of the true outline the distance to the nearest pixel of
        the predicted one, and the other way round. Infinite where the other mask is empty.

    Raises:
        ValueError: if the shapes differ, a mask is not boolean, or `spacing` is not positive.
    """
    mask_true, mask_pred = _checked_masks(mask_true, mask_pred)
    spacing = checked_spacing(spacing, mask_true.ndim)
    outline_true, outline_pred = outline(mask_true), outline(mask_pred)
    return (
        _distance_to(outline_pred, spacing)[outline_true],
        _distance_to(outline_true, spacing)[outline_pred],
    )


def outline(mask: np.ndarray) -> np.ndarray:
    """The outermost pixels of a boolean mask, boolean, same shape: `rim(mask, 1)`, of any number of axes."""
    return mask & ~ndimage.binary_erosion(mask) if mask.size else mask


def rim(mask: np.ndarray, distance: float) -> np.ndarray:
    """The pixels of a boolean mask within `distance` pixels of its outline, boolean, same shape."""
    distance = in_range("distance", distance, 1)  # the outermost pixel of a mask is at 1
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    return mask & (depth <= distance)


def _checked_masks(mask_true: np.ndarray, mask_pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mask_true, mask_pred = (
        array_of(name, mask, "boolean", instead="give a mask (height, width), such as labels == class_id")
        for name, mask in (("mask_true", mask_true), ("mask_pred", mask_pred))
    )
    if not mask_true.ndim:
        raise ValueError(f"mask_true is {mask_true}; it must be a mask (height, width).")
    check_same_shape("mask_true", mask_true, "mask_pred", mask_pred)
    return mask_true, mask_pred


def checked_spacing(spacing: float | Sequence[float] | None, axes: int) -> np.ndarray:
    """The size of a pixel along each axis, float64 `(axes,)`, or a `ValueError`."""
    given = np.asarray(1.0 if spacing is None else spacing, np.float64)
    if given.shape not in ((), (axes,)) or not np.all((given > 0) & np.isfinite(given)):
        raise ValueError(
            f"spacing is {spacing}; it must be the size of a pixel, above 0: one number, or one for each of the {axes} "
            "axes."
        )
    return np.broadcast_to(given, (axes,))


def _distance_to(pixels: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """For each location, the distance to the nearest of the given pixels; infinite if there is none."""
    if not pixels.any():
        return np.full(pixels.shape, np.inf)
    return ndimage.distance_transform_edt(~pixels, sampling=spacing)


def _empty_score(mask_true: np.ndarray, mask_pred: np.ndarray, agree: float, differ: float) -> float:
    if not np.size(mask_true):
        return float("nan")
    return differ if np.any(mask_true) or np.any(mask_pred) else agree
