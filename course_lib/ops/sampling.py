"""Choosing the few boxes that a training step learns from, positives and negatives in balance.

Of the thousands of anchors on an image nearly all are background. If all of them counted, background would dominate
the loss. So each image gives a fixed number: as many positives as there are, up to a fraction of it, and negatives for the
rest (Ren et al. 2015, Faster R-CNN, section 3.1.3: 256 anchors, up to half positive; Girshick 2015, Fast R-CNN, section
2.3: a quarter of the RoIs positive).

The number of slots is fixed, and a mask says which are filled, so that every step has the same shapes.
"""

import keras
from keras import ops


def sample_balanced(positive, negative, count: int, positive_fraction: float, random=None):
    """Choose up to `count` rows at random: positives up to their fraction, negatives for the rest.

    Where there are fewer positives than places for them, negatives take those places; where there are fewer of both than
    places, places stay empty. If there are at least as many places as rows for both kinds, all are chosen and nothing is
    random. Positives come first: the first `int(count · positive_fraction)` places hold all of them, which is what a mask
    head needs to see.

    Args:
        positive: bool `(..., n)`, the rows that may be chosen as positives.
        negative: bool `(..., n)`, those that may be chosen as negatives; rows in neither are never chosen. A row in both
            counts as a positive.
        count: places for each list.
        positive_fraction: fraction of the places that positives may take, 0..1; the number is rounded down.
        random: a `keras.random.SeedGenerator`; or numbers `(..., n)` drawn by the caller, of which the largest win; or
            None: the first rows win.

    Returns:
        indices: int32 `(..., min(count, n))`: the rows chosen; 0 in empty places.
        is_positive: bool of the same shape: places that hold a positive.
        is_negative: bool of the same shape: places that hold a negative.

    Raises:
        ValueError: if the shapes do not fit, count is below 1 or the fraction lies outside 0..1.
    """
    positive, negative = (ops.cast(ops.convert_to_tensor(mask), "bool") for mask in (positive, negative))
    rows = positive.shape[-1]
    if rows is None or negative.shape[-1] != rows:
        raise ValueError(
            f"positive has shape {tuple(positive.shape)} and negative {tuple(negative.shape)}; "
            "both must have one boolean for each row, and the number of rows must be known in advance."
        )
    if count < 1 or not 0 <= positive_fraction <= 1:
        raise ValueError(
            f"count is {count} and positive_fraction {positive_fraction}; count must be at least 1, "
            "the fraction must lie in 0..1."
        )
    negative = ops.logical_and(negative, ops.logical_not(positive))
    places = min(count, rows)
    most = min(int(count * positive_fraction), rows)
    if rows == 0:
        empty = ops.cast(positive, "int32")
        return empty, positive, negative
    if most == rows:
        random = None

    if random is None:
        random = ops.cast(ops.arange(rows, 0, -1, dtype="int32"), "float32")
    elif isinstance(random, keras.random.SeedGenerator):
        random = keras.random.uniform(ops.shape(positive), seed=random, dtype="float32")
    else:
        random = ops.cast(ops.convert_to_tensor(random), "float32")

    lowest = float("-inf")
    _, positives = ops.top_k(ops.where(positive, random, lowest), max(most, 1))
    _, negatives = ops.top_k(ops.where(negative, random, lowest), places)
    found = ops.sum(ops.cast(positive, "int32"), axis=-1, keepdims=True)
    number_positive = ops.minimum(found, most)
    found = ops.sum(ops.cast(negative, "int32"), axis=-1, keepdims=True)
    number_negative = ops.minimum(found, count - number_positive)

    place = ops.zeros_like(negatives) + ops.arange(places, dtype="int32")
    is_positive = place < number_positive
    is_negative = ops.logical_and(ops.logical_not(is_positive), place < number_positive + number_negative)
    from_positives = take_rows(positives, ops.minimum(place, max(most, 1) - 1))
    from_negatives = take_rows(negatives, ops.maximum(place - number_positive, 0))
    chosen = ops.where(is_positive, from_positives, ops.where(is_negative, from_negatives, 0))
    return ops.cast(chosen, "int32"), is_positive, is_negative


def take_rows(values, indices):
    """The rows that were chosen, list by list: `result[..., j, :] = values[..., indices[..., j], :]`.

    Args:
        values: `(..., n, *rest)`, with n known in advance.
        indices: integers `(..., k)` in 0..n-1; its leading axes are those of `values`.

    Returns:
        `(..., k, *rest)`, of the type of `values`.
    """
    values, indices = ops.convert_to_tensor(values), ops.cast(ops.convert_to_tensor(indices), "int32")
    lead = len(indices.shape) - 1
    rows, rest = values.shape[lead], values.shape[lead + 1 :]
    lists = 1
    for length in ops.shape(indices)[:-1]:
        lists = lists * length
    # One gather of whole rows from all lists laid end to end.
    chosen = ops.reshape(indices, (-1, indices.shape[-1]))
    chosen = chosen + rows * ops.arange(lists, dtype="int32")[:, None]
    taken = ops.take(ops.reshape(values, (-1, *rest)), chosen, axis=0)
    return ops.reshape(taken, (*ops.shape(indices), *rest))
