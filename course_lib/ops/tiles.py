"""Overlap-tile prediction: images of any size through a model of one size (Ronneberger et al. 2015, figure 2).

Each tile of the result is predicted from a window that reaches `margin` pixels further on every side; where the window
leaves the image, the image is mirrored. With a margin as wide as the model can see, no seam is left.
"""

from collections.abc import Callable, Iterator

import numpy as np


def reflect(positions: np.ndarray, length: int) -> np.ndarray:
    """Positions outside 0..length-1 mirrored back inside, the edge pixel not repeated (NumPy's "reflect"); int."""
    if length == 1:
        return np.zeros_like(positions)
    period = 2 * (length - 1)
    positions = np.abs(positions) % period
    return np.where(positions >= length, period - positions, positions)


def tiles(size: tuple[int, int], tile: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Top-left corners of the tiles that cover an image of `size`, row by row; the last ones may reach beyond it."""
    for top in range(0, size[0], tile[0]):
        for left in range(0, size[1], tile[1]):
            yield top, left


def overlap_tile(
    predict: Callable[[np.ndarray], np.ndarray],
    image: np.ndarray,
    tile: tuple[int, int],
    margin: int,
    batch_size: int = 1,
    out: np.ndarray | None = None,
    progress: Callable | None = None,
) -> np.ndarray:
    """Predict an image of any size tile by tile.

    Args:
        predict: takes windows `(batch, tile + 2 · margin, …, channels)` and returns either the tile alone
            `(batch, *tile, k)`, as an unpadded model does, or all of the window, whose margin is then cut off.
        image: `(height, width, channels)`; read one window at a time, so it may be a memory map.
        tile: height and width of the result's tiles in pixels.
        margin: pixels of context on each side.
        batch_size: windows given to `predict` at once.
        out: where to write, `(height, width, k)`, for results too large for memory; by default a new array.
        progress: wraps the iteration over batches, as `tqdm.tqdm` does.

    Returns:
        `(height, width, k)`.

    Raises:
        ValueError: if a size is below 1, the margin negative, or `predict` returns another shape than these two.
    """
    if min(*tile, batch_size) < 1 or margin < 0:
        raise ValueError(
            f"tile is {tile}, margin {margin}, batch_size {batch_size}; tile and batch_size must be at least 1, "
            "margin at least 0."
        )
    height, width = image.shape[:2]
    corners = list(tiles((height, width), tile))
    batches = [corners[k : k + batch_size] for k in range(0, len(corners), batch_size)]
    window = tuple(side + 2 * margin for side in tile)
    for batch in progress(batches) if progress else batches:
        rows_columns = [
            (
                reflect(np.arange(top - margin, top + tile[0] + margin), height),
                reflect(np.arange(left - margin, left + tile[1] + margin), width),
            )
            for top, left in batch
        ]
        predicted = np.asarray(
            predict(np.stack([image[np.ix_(rows, columns)] for rows, columns in rows_columns]))
        )
        if predicted.shape[1:3] == window:
            predicted = predicted[:, margin : window[0] - margin, margin : window[1] - margin]
        if predicted.shape[1:3] != tuple(tile):
            raise ValueError(
                f"predict returned {predicted.shape[1:3]} for a window of {window}; it must return the window's size or "
                f"the tile's, {tuple(tile)}. For an unpadded U-Net, margin is half of the pixels that the model removes "
                "from a side."
            )
        if out is None:
            out = np.empty((height, width, predicted.shape[-1]), predicted.dtype)
        for (top, left), piece in zip(batch, predicted, strict=True):
            bottom, right = min(top + tile[0], height), min(left + tile[1], width)
            out[top:bottom, left:right] = piece[: bottom - top, : right - left]
    return out
