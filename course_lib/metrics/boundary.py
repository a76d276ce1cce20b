"""Scores that look at the outline of a mask only, where an area score such as IoU hardly looks.

Conventions for empty masks are those of `metrics.semantic`: two empty masks agree perfectly, 1.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from course_lib.metrics._labels import check_same_shape


def boundary_iou(mask_true: np.ndarray, mask_pred: np.ndarray, distance: float = 2.0) -> float:
    """The IoU of two masks' rims: of the pixels of each mask that lie within `distance` of its own outline.

    Cheng et al. (2021), "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation",
    https://arxiv.org/abs/2103.16562, eq. 3. As there, the edge of the picture counts as outline too.

    Args:
        mask_true, mask_pred: boolean `(height, width)`.
        distance: in pixels; 1 is the outermost pixel of the mask. Must be at least 1.

    Returns:
        0..1; 1 for two empty masks.

    Raises:
        ValueError: if the shapes differ, a mask is not boolean, or `distance` is below 1.
    """
    for name, mask in (("mask_true", mask_true), ("mask_pred", mask_pred)):
        if np.asarray(mask).dtype != bool:
            raise ValueError(
                f"{name} is of {np.asarray(mask).dtype}; give a boolean mask, such as labels == class_id."
            )
    check_same_shape("mask_true", mask_true, "mask_pred", mask_pred)
    rim_true, rim_pred = rim(mask_true, distance), rim(mask_pred, distance)
    union = np.count_nonzero(rim_true | rim_pred)
    return np.count_nonzero(rim_true & rim_pred) / union if union else 1.0


def rim(mask: np.ndarray, distance: float) -> np.ndarray:
    """The pixels of a boolean mask within `distance` pixels of its outline, boolean, same shape."""
    if distance < 1:
        raise ValueError(f"distance is {distance}; the outermost pixel of a mask is at distance 1.")
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    return mask & (depth <= distance)
