"""Anchors: the reference boxes of a region proposal network (Ren et al. 2015, Faster R-CNN, section 3.1.1).

Each location of a feature map has a few boxes of fixed sizes and shapes. The network doesn't say where an object
is; it predicts which anchors contain one and by how much to move them. Each level of a feature pyramid has one size of its
own (Lin et al. 2017, Feature Pyramid Networks, section 4.1).

Anchors depend only on the sizes of the feature maps, not on their values: plain NumPy, made once, constants in the graph.
Boxes are `x1, y1, x2, y2` in pixels of the image.
"""

from collections.abc import Sequence

import numpy as np


def base_anchors(
    sizes: float | Sequence[float], aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0)
) -> np.ndarray:
    """The anchors of one location, around the origin, their edges rounded to whole pixels.

    An anchor of size s and aspect ratio r is s / √r wide and s · √r high: all ratios have the area s². Halves are
    rounded to the even number, as NumPy and torchvision do.

    Args:
        sizes: side in pixels of the square anchor, or several.
        aspect_ratios: height / width of each shape.

    Returns:
        float32 `(len(aspect_ratios) · len(sizes), 4)`, all sizes of the first ratio first.

    Raises:
        ValueError: if a size or a ratio is not positive, or none is given.
    """
    sizes = _positive("sizes", np.atleast_1d(sizes))
    ratios = _positive("aspect_ratios", np.atleast_1d(aspect_ratios))
    stretch = np.sqrt(ratios)[:, None]
    widths = (1 / stretch * sizes).reshape(-1)
    heights = (stretch * sizes).reshape(-1)
    return np.round(np.stack([-widths, -heights, widths, heights], axis=1) / 2)


def grid_anchors(base: np.ndarray, feature_size: tuple[int, int], strides: tuple[int, int]) -> np.ndarray:
    """The anchors of all locations of one feature map.

    Args:
        base: `(k, 4)`, from `base_anchors`.
        feature_size: height and width of the map.
        strides: pixels of the image between two neighbouring positions, downwards and to the right.

    Returns:
        float32 `(height · width · k, 4)`: row by row, at each position all k. A head's output `(height, width, k · d)`
        reshaped to `(height · width · k, d)` is in the same order.
    """
    y, x = np.meshgrid(
        np.arange(feature_size[0], dtype=np.float32) * strides[0],
        np.arange(feature_size[1], dtype=np.float32) * strides[1],
        indexing="ij",
    )
    corners = np.stack([x, y, x, y], axis=-1).reshape(-1, 1, 4)
    return (corners + np.asarray(base, np.float32)).reshape(-1, 4)


def pyramid_anchors(
    image_size: tuple[int, int],
    feature_sizes: Sequence[tuple[int, int]],
    sizes: Sequence[float | Sequence[float]],
    aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0),
    strides: Sequence[int] | None = None,
) -> list[np.ndarray]:
    """The anchors of all levels of a feature pyramid.

    Args:
        image_size: height and width in pixels.
        feature_sizes: height and width of each level's map.
        sizes: per level one anchor size in pixels, or several.
        aspect_ratios: height / width of each shape, the same on all levels.
        strides: per level the pixels between two positions. By default the image's side divided by the map's, rounded
            down, for height and width each, as in torchvision, which pads its images so that nothing is left to round.
            Give them where sides can be odd: a map of stride 2 has 107 positions for 213 pixels, and 213 // 107 is 1.

    Returns:
        Per level float32 `(height · width · k, 4)`.

    Raises:
        ValueError: if there are not as many sizes or strides as levels, or a map is empty or larger than the image.
    """
    if len(sizes) != len(feature_sizes):
        raise ValueError(
            f"sizes has {len(sizes)} entries for {len(feature_sizes)} levels; give each level one size, or a tuple of "
            "sizes."
        )
    if strides is not None and (
        len(strides) != len(feature_sizes) or not all(stride > 0 for stride in strides)
    ):
        raise ValueError(
            f"strides is {tuple(strides)}; it must have one positive number for each of the {len(feature_sizes)} levels."
        )
    levels = []
    for level, (feature_size, size) in enumerate(zip(feature_sizes, sizes, strict=True)):
        if not all(0 < side <= whole for side, whole in zip(feature_size, image_size, strict=True)):
            raise ValueError(
                f"feature_sizes has a map of {tuple(feature_size)} for an image of {tuple(image_size)}; "
                "a feature map has at least one location, and no more locations than the image has pixels."
            )
        if strides is None:
            steps = image_size[0] // feature_size[0], image_size[1] // feature_size[1]
        else:
            steps = strides[level], strides[level]
        levels.append(grid_anchors(base_anchors(size, aspect_ratios), feature_size, steps))
    return levels


def _positive(name: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float32)
    if values.ndim != 1 or not values.size or not (values > 0).all():
        raise ValueError(f"{name} is {values.tolist()}; it must be one positive number or a list of them.")
    return values
