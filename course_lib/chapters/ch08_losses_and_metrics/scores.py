"""Masks to count by hand, and random ones: what chapter 8's metrics are tried on."""

import numpy as np
from scipy import ndimage

TRUTH = """
........
..####..
..####..
..####..
..####..
........
........
........
"""
"""A true mask of 8 × 8 pixels, `#` is foreground."""

FOUND = """
........
........
...####.
...####.
...####.
........
.#......
........
"""
"""A prediction for it: moved, too low, with one speck where nothing is."""


def mask(drawing: str) -> np.ndarray:
    """A drawing of `#` and `.` as a boolean mask `(height, width)`.

    Raises:
        ValueError: if the lines differ in length, or hold another sign.
    """
    rows = drawing.split()
    if set("".join(rows)) - set("#.") or len({len(row) for row in rows}) != 1:
        raise ValueError("drawing: lines of one length wanted, of # and . only.")
    return np.array([[sign == "#" for sign in row] for row in rows])


def random_masks(count: int, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of masks that agree more or less: smooth blobs, and the same with more or less of other blobs mixed in."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        fields = ndimage.gaussian_filter(rng.normal(size=(2, 24, 24)), (0, 2, 2))
        mixed = fields[0] + rng.uniform(0, 2) * fields[1]
        level = rng.uniform(-0.1, 0.1)
        pairs.append((fields[0] > level, mixed > level))
    return pairs
