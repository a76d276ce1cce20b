"""How an instance map becomes a target that a U-Net can learn, and how a prediction becomes an instance map again.

A U-Net predicts a class per pixel, so two touching cells of one class merge into one. Two remedies, both from practice:
the border weights of the U-Net paper make the thin gap between cells expensive to miss; the three-class form makes the
border between touching cells a class of its own, so that what is left of each cell stands alone.
"""

import numpy as np
from scipy import ndimage
from skimage.segmentation import relabel_sequential, watershed

from course_lib.datasets.sample import IGNORE

THREE_CLASSES = ("background", "cell", "border")


def nearest_two_distances(instances: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """The distance of every pixel to the nearest and to the second nearest cell, up to `reach`.

    Args:
        instances: int `(height, width)`, 0 = background.
        reach: in pixels; beyond it both distances are infinite. It bounds the work: each cell is looked at only in a
            window `reach` wider than itself.

    Returns:
        `(d1, d2)`, float64 `(height, width)`, in pixels; `d1` is 0 inside a cell.
    """
    nearest = np.full(instances.shape, np.inf)
    second = np.full(instances.shape, np.inf)
    pad = int(np.ceil(reach)) + 1
    for instance, window in enumerate(ndimage.find_objects(instances), start=1):
        if window is None:
            continue
        window = tuple(slice(max(0, side.start - pad), side.stop + pad) for side in window)
        distance = ndimage.distance_transform_edt(instances[window] != instance)
        distance[distance > reach] = np.inf
        first, other = nearest[window], second[window]
        np.minimum(other, np.maximum(first, distance), out=other)
        np.minimum(first, distance, out=first)
    return nearest, second


def border_weights(
    instances: np.ndarray,
    w0: float = 10.0,
    sigma: float = 5.0,
    class_weights: tuple[float, float] | None = None,
    ignore: np.ndarray | None = None,
) -> np.ndarray:
    """The weight map of the U-Net paper: w(x) = w_c(x) + w0 · exp(−(d1 + d2)² / (2 σ²)) (Ronneberger et al. 2015, eq. 2).

    `d1` and `d2` are the distances to the nearest two cells. The second term is added on background only, where it is
    meant: in the gap that separates two cells.

    Args:
        instances: int `(height, width)`, 0 = background.
        w0: height of the border term.
        sigma: its width in pixels.
        class_weights: `w_c` of background and of cell; by default each class gets the same total, mean 1 over the pixels
            that count.
        ignore: bool `(height, width)`, pixels that do not count (`Sample.ignored`); by default none.

    Returns:
        float32 `(height, width)`; 0 where a pixel does not count.

    Raises:
        ValueError: for a `w0` below 0 or a `sigma` that is not positive.
    """
    if w0 < 0 or sigma <= 0:
        raise ValueError(f"w0 is {w0} and sigma {sigma}; w0 must be at least 0 and sigma positive.")
    background = instances == 0
    counted = np.ones(instances.shape, bool) if ignore is None else ~ignore
    if class_weights is None:
        fraction = background[counted].mean() if counted.any() else 0
        # A class that is absent needs no weight, and 1 / 0 would give it an infinite one.
        class_weights = (0.5 / fraction, 0.5 / (1 - fraction)) if 0 < fraction < 1 else (1.0, 1.0)
    weights = np.where(background, class_weights[0], class_weights[1])
    if w0 > 0:
        # Where d1 + d2 is beyond this reach, the term is below a thousandth of a weight of one.
        reach = sigma * np.sqrt(2 * np.log(max(w0, 1.0) / 1e-3))
        nearest, second = nearest_two_distances(instances, reach)
        both = np.where(np.isfinite(second), nearest + second, np.inf)
        weights = weights + np.where(background, w0 * np.exp(-(both**2) / (2 * sigma**2)), 0.0)
    return np.where(counted, weights, 0).astype(np.float32)


def encode_three_classes(
    instances: np.ndarray, border: float = 2.0, ignore: np.ndarray | None = None
) -> np.ndarray:
    """Background, cell, and the border between touching (or nearly touching) cells, as classes 0, 1, 2.

    A pixel is border where two different cells lie within `border` pixels of it (its own cell counts, at distance 0).

    Args:
        instances: int `(height, width)`, 0 = background.
        border: in pixels; half the width of the border.
        ignore: bool `(height, width)`, pixels that do not count (`Sample.ignored`); by default none.

    Returns:
        int32 `(height, width)` with the ids of `THREE_CLASSES`; -1 where a pixel does not count.
    """
    if border < 1:
        raise ValueError(
            f"border is {border}; it must be at least 1 pixel, or touching cells would have no border."
        )
    _, second = nearest_two_distances(instances, border)
    encoded = (instances > 0).astype(np.int32)
    encoded[second <= border] = 2
    if ignore is not None:
        encoded[ignore] = IGNORE
    return encoded


def decode_three_classes(
    probabilities: np.ndarray, seed_threshold: float = 0.5, mask_threshold: float = 0.5, min_size: int = 20
) -> np.ndarray:
    """An instance map from the three classes' probabilities.

    Every connected piece of confident cell (probability of class 1 above `seed_threshold`) is one object; the objects then
    grow by watershed over everything that is cell or border, so that the border is shared out among its neighbours.

    Args:
        probabilities: float `(height, width, 3)`, in the order of `THREE_CLASSES`.
        seed_threshold: how confident a seed must be, 0..1.
        mask_threshold: a pixel belongs to some object where 1 − the background's probability exceeds this, 0..1.
        min_size: objects of fewer pixels are dropped.

    Returns:
        int32 `(height, width)`, 0 = background, ids 1..n without gaps.

    Raises:
        ValueError: if `probabilities` does not have three channels or a threshold lies outside 0..1.
    """
    if probabilities.ndim != 3 or probabilities.shape[-1] != 3:
        raise ValueError(
            f"probabilities has shape {probabilities.shape}; it must be (height, width, 3): {', '.join(THREE_CLASSES)}."
        )
    for name, value in (("seed_threshold", seed_threshold), ("mask_threshold", mask_threshold)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}; it must be a probability from 0 to 1.")
    mask = 1 - probabilities[..., 0] > mask_threshold
    seeds, _ = ndimage.label((probabilities[..., 1] > seed_threshold) & mask)
    # A small object seen whole is kept even if its seed is small: size is judged after growing, specks of a
    # pixel or two are not seeds.
    seeds = drop_small(seeds, min(4, min_size))
    grown = watershed(-probabilities[..., 1], seeds, mask=mask)
    return drop_small(grown, min_size)


def drop_small(instances: np.ndarray, min_size: int) -> np.ndarray:
    """`instances` without the objects of fewer than `min_size` pixels, ids 1..n again, as int32."""
    sizes = np.bincount(instances.ravel())
    small = sizes < min_size
    small[0] = False
    kept = np.where(small[instances], 0, instances)
    return relabel_sequential(kept)[0].astype(np.int32)
