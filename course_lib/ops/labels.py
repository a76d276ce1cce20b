"""Labels, logits and pixel weights as `fit` passes them, read in the same way by losses and metrics.

Ground truth comes as class ids `(batch, height, width)` or `(batch, height, width, 1)`, of any integer type, boolean, or
float if they are whole numbers. A model of one output channel stands for two classes: sigmoid(z) is the softmax of
(0, z), so class 1 is predicted where z > 0. Sample weights come as Keras takes them: one per image or one per pixel.
"""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

Tensor = Any
"""A backend's tensor, or what it makes one of."""


class Batch(NamedTuple):
    """One batch, read.

    Attributes:
        labels: int32 `(batch, height, width)`; -1 where the label does not count or is none of the classes.
        logits: `(batch, height, width, classes)`, two classes or more, of the type that was given.
        weights: `(batch, height, width)`: what each pixel counts for, 0 where the label is ignored.
        counted: bool `(batch, height, width)`: where the label is not ignored.
        impossible: a boolean scalar: whether a label that counts is none of the classes (only in a compiled step; else
            that is an error), or a weight is NaN.
    """

    labels: Tensor
    logits: Tensor
    weights: Tensor
    counted: Tensor
    impossible: Tensor


def read_batch(
    y_true: Tensor,
    y_pred: Tensor,
    sample_weight: Tensor | None = None,
    ignore: int | None = -1,
    dtype: str = "float32",
) -> Batch:
    """Labels, logits and weights in one form.

    Args:
        y_true: class ids `(batch, height, width)` or `(batch, height, width, 1)`, of any number of axes in between.
        y_pred: logits `(batch, height, width, classes)`; one channel counts as the second of two classes.
        sample_weight: one number per image `(batch,)`, or one per pixel, with or without a channel axis; axes of
            length 1 are repeated.
        ignore: label that does not count; `None` if all count.
        dtype: of the weights.

    Returns:
        What `Batch` says. Inside a compiled step nothing can be raised about values; then `impossible` says it, and the
        caller makes its result NaN.

    Raises:
        ValueError: if shapes do not belong together or, outside of compiled steps, a label is none of the classes.
    """
    if getattr(getattr(y_true, "dtype", None), "kind", "i") in "OSU":
        raise ValueError(f"y_true is an array of {y_true.dtype}; it must hold class ids, whole numbers.")
    labels, logits = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
    if _rank_unknown(labels):
        labels = ops.reshape(labels, ops.shape(logits)[:-1])
    if len(labels.shape) == len(logits.shape) and labels.shape[-1] == 1:
        labels = ops.squeeze(labels, -1)
    _check_shapes(labels, logits)
    if logits.shape[-1] == 1:
        check_no_probabilities(y_pred)
        logits = ops.concatenate([ops.zeros_like(logits), logits], axis=-1)
    classes = logits.shape[-1]

    if isinstance(y_true, np.ndarray) and y_true.dtype.kind in "iu" and y_true.size:
        # Of a whole number of 64 bits JAX takes the lower half: 2³² − 1 would be −1.
        for extreme in (int(y_true.min()), int(y_true.max())):
            if not -(2**31) <= extreme < 2**31:
                raise ValueError(_no_class(extreme, classes, ignore))
    ids, given = ops.cast(labels, "int32"), keras.backend.standardize_dtype(labels.dtype)
    # A number that is not whole, or too large for int32, does not come back from it.
    same = ops.ones_like(ids, "bool") if given == "bool" else ops.equal(ops.cast(ids, given), labels)
    if given.startswith("uint"):
        same = ops.logical_and(same, ids >= 0)
    possible = ops.logical_and(same, ops.logical_and(ids >= 0, ids < classes))
    counted = ops.ones_like(possible)
    if ignore is not None:
        counted = ops.logical_not(ops.logical_and(same, ops.equal(ids, ignore)))
    impossible = ops.any(ops.logical_and(counted, ops.logical_not(possible)))
    if known(impossible):
        held = ops.convert_to_numpy(labels)
        wrong = held[ops.convert_to_numpy(counted) & ~ops.convert_to_numpy(possible)][0].item()
        raise ValueError(_no_class(wrong, classes, ignore))
    weights = ops.cast(counted, dtype)
    if sample_weight is not None:
        weights = ops.where(counted, _pixel_weights(sample_weight, labels, dtype), ops.zeros_like(weights))
        impossible = ops.logical_or(impossible, ops.any(ops.isnan(weights)))
    ids = ops.where(ops.logical_and(counted, possible), ids, -1)
    return Batch(ids, logits, weights, counted, impossible)


def _no_class(wrong: float, classes: int, ignore: int | None) -> str:
    return (
        f"y_true holds {wrong}; it must hold class ids, 0 to {classes - 1}"
        f"{'' if ignore is None else f', or {ignore} for pixels to ignore'}. Give each class its id (a mask of 0 and "
        f"255 as mask > 127), and give a label that must not count as `ignore={wrong}`."
    )


def check_no_probabilities(y_pred: Tensor) -> None:
    """A `ValueError` for what comes from a softmax or a sigmoid: Keras's activations leave the logits with it."""
    if hasattr(y_pred, "_keras_logits"):
        raise ValueError(
            "y_pred comes from a softmax or a sigmoid; it must be logits: the last layer has no activation, and the loss "
            "and course_lib.models.predict apply the softmax."
        )


def _rank_unknown(tensor: Tensor) -> bool:
    """Whether TensorFlow has lost it, as in the step of a model that was fitted with one rank, then with another."""
    try:
        len(tensor.shape)
    except ValueError:
        return True
    return False


def known(condition: Tensor) -> bool | None:
    """Whether a boolean scalar is true; `None` inside a compiled step, where it has no value yet."""
    try:
        return bool(np.asarray(ops.convert_to_numpy(condition)))
    except Exception:  # each backend has its own for a tensor without a value
        return None


class _AsKeras(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return y_pred


def scaled_as_keras(value: Tensor) -> Tensor:
    """A loss that is already reduced to a scalar, scaled as Keras scales its own where several devices add theirs up.

    Under TensorFlow's `MirroredStrategy` that is a factor of one over their number; everywhere else it is 1.
    """
    value = ops.expand_dims(value, 0)
    return _AsKeras(name="scaled", dtype="float32")(value, value)


def _check_shapes(labels: Tensor, logits: Tensor) -> None:
    of_labels, of_logits = tuple(labels.shape), tuple(logits.shape)
    if len(of_labels) == len(of_logits) - 1:
        pairs = zip(of_labels, of_logits, strict=False)
        if all(a == b or a is None or b is None for a, b in pairs):
            return
        what = "both must show the same pixels, channels last: crop or resize the labels"
    elif len(of_labels) == len(of_logits):
        what = (
            "one-hot labels are given as ids, np.argmax(y_true, axis=-1), and one logit per pixel with a channel axis, "
            "y_pred[..., None]"
        )
    elif len(of_labels) == len(of_logits) - 2:
        what = "labels need their batch axis too: y_true[None]"
    else:
        what = "labels of one image are one number per pixel"
    raise ValueError(
        f"y_true has shape {of_labels} and y_pred {of_logits}; they must be (batch, height, width) and (batch, height, "
        f"width, classes): {what}."
    )


def _pixel_weights(sample_weight: Tensor, labels: Tensor, dtype: str) -> Tensor:
    """Weights that broadcast to the labels, their first axis the labels' first."""
    weights = ops.cast(ops.convert_to_tensor(sample_weight), dtype)
    if _rank_unknown(weights):  # per image or per pixel, its length tells
        flat = ops.reshape(ops.ones_like(labels, dtype), (ops.shape(labels)[0], -1))
        return ops.reshape(flat * ops.reshape(weights, (ops.shape(labels)[0], -1)), ops.shape(labels))
    shape, wanted = tuple(weights.shape), tuple(labels.shape)
    given = shape
    if len(given) == len(wanted) + 1 and given[-1] == 1:
        weights, given = ops.squeeze(weights, -1), given[:-1]
    aligned = len(given) == len(wanted) or all(side == 1 for side in given[1:])
    fits = all(a in (1, None, b) or b is None for a, b in zip(given, wanted, strict=False))
    if len(given) > len(wanted) or not aligned or not fits:
        raise ValueError(
            f"sample_weight has shape {shape} for labels of shape {wanted}; it must be one number "
            "per image (batch,), or one per pixel, like the labels. (Factors per class belong to the loss: "
            "`class_weights`.)"
        )
    for _ in range(len(wanted) - len(given)):
        weights = ops.expand_dims(weights, -1)
    return weights
