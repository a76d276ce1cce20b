"""What every label metric does first: check the label maps, number the labels, count the pixels of each pair of labels."""

from collections.abc import Iterable

import numpy as np
from scipy import sparse

from course_lib._checks import array_of, whole_number


def integer_array(name: str, values: np.ndarray, instead: str) -> np.ndarray:
    """`values` as an integer array, booleans as 0 and 1, or a `ValueError` that says what to do instead."""
    values = array_of(name, values, "integer", instead=instead)
    return values if np.issubdtype(values.dtype, np.integer) else values.astype(np.uint8)


def label_map(name: str, values: np.ndarray) -> np.ndarray:
    """`values` as an integer map of ids 0, 1, 2, …, or a `ValueError`."""
    values = integer_array(
        name, values, "threshold it and label its components first, or cast it if it holds whole numbers"
    )
    if values.size and values.min() < 0:
        raise ValueError(
            f"{name} holds {values.min()}; it must hold ids from 0. Set pixels that belong to nothing to 0, and mark "
            "pixels that do not count with `ignore`, where there is such an argument."
        )
    return values


def check_class_range(name: str, ids: np.ndarray, num_classes: int, ignore: int | None) -> None:
    """A `ValueError` if a class id is out of range; `ignore` is only named in it, its pixels are left out before."""
    if not ids.size:
        return
    low, high = ids.min(), ids.max()
    if low < 0 or high >= num_classes:
        wrong = high if high >= num_classes else low
        but = "" if ignore is None else f", or {ignore} for pixels to ignore"
        raise ValueError(f"{name} holds {wrong}; it must hold class ids, 0 to {num_classes - 1}{but}.")


def class_ids(classes: Iterable[int], num_classes: int) -> list[int]:
    """The ids to average over, each once; a `TypeError` for what is no id, a `ValueError` for one out of range."""
    if np.ndim(classes) == 0 and not isinstance(classes, (set, frozenset)):  # a text, too
        raise TypeError(f"classes is {classes!r}; it must be ids in a list, such as [1], or None for all.")
    ids = [whole_number("classes: an id", one) for one in classes]
    if not ids or len(set(ids)) < len(ids) or not all(0 <= one < num_classes for one in ids):
        raise ValueError(
            f"classes is {ids}; it must hold ids from 0 to {num_classes - 1}, each once, or be left out for all."
        )
    return ids


def check_same_shape(name_a: str, a: np.ndarray, name_b: str, b: np.ndarray) -> None:
    """A `ValueError` if two maps that are compared pixel by pixel differ in shape."""
    if np.shape(a) != np.shape(b):
        raise ValueError(
            f"{name_a} has shape {np.shape(a)} and {name_b} {np.shape(b)}; "
            "both must show the same pixels: crop or resize one of them first."
        )


def region(ignore: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray | None:
    """`ignore` as a boolean map of this shape, `None` where nothing is marked, or a `ValueError`."""
    if ignore is None:
        return None
    ignore = array_of("ignore", ignore, "boolean", instead="give a mask such as semantic == -1")
    if ignore.shape != shape:
        raise ValueError(
            f"ignore is an array of shape {ignore.shape}; it must have the shape of the label maps, {shape}."
        )
    return ignore if ignore.any() else None


def paired_images(name_a: str, a: Iterable, name_b: str, b: Iterable) -> tuple[list, list]:
    """Two lists of as many maps, one per image, or a `ValueError`."""
    for name, maps in ((name_a, a), (name_b, b)):
        if isinstance(maps, np.ndarray) and maps.ndim < 3:  # its rows would pass for images
            raise ValueError(
                f"{name} is one array of shape {maps.shape}; it must be a list with one label map per image, even for "
                "a single image."
            )
    a, b = list(a), list(b)
    if len(a) != len(b):
        raise ValueError(f"{name_a} holds {len(a)} maps and {name_b} {len(b)}; each must hold one per image.")
    if not a:
        raise ValueError(f"{name_a} is empty; it must hold at least one label map, one per image.")
    return a, b


def regions(ignore: Iterable[np.ndarray | None] | None, images: int) -> list[np.ndarray | None]:
    """One region to ignore per image, `None` where there is none, or a `ValueError`."""
    if ignore is None:
        return [None] * images
    if isinstance(ignore, np.ndarray) and ignore.ndim < 3:
        raise ValueError(
            f"ignore is one array of shape {ignore.shape}; it must be a list, one mask per image."
        )
    ignore = list(ignore)
    if len(ignore) != images:
        raise ValueError(
            f"ignore holds {len(ignore)} masks; it must hold one for each of the {images} images."
        )
    return ignore


def consecutive(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number the labels of a map without gaps.

    Args:
        labels: integers >= 0, any shape.

    Returns:
        `ids` `(n,)`, the labels that occur, ascending; `index`, flat, each pixel's position in `ids`;
        `areas` `(n,)`, pixels of each label.
    """
    labels = labels.ravel()
    if not labels.size:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64)
    if (
        labels.max() > 4 * labels.size + 1024
    ):  # ids far apart: a table up to the largest would not fit in memory
        return np.unique(labels, return_inverse=True, return_counts=True)
    areas = np.bincount(labels)
    ids = np.flatnonzero(areas)
    position = np.zeros(len(areas), np.int64)
    position[ids] = np.arange(len(ids))
    return ids, position[labels], areas[ids]


def contingency(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sparse.coo_array:
    """How many pixels have each pair of labels.

    Args:
        rows, columns: `(pixels,)`, each pixel's label in the one map and in the other, without gaps.
        shape: number of labels in each.

    Returns:
        A sparse int64 `shape` that stores each pair which occurs once: few, since most segments never meet.
    """
    table = sparse.coo_array((np.ones(len(rows), np.int64), (rows, columns)), shape=shape).tocsr()
    return table.tocoo()
