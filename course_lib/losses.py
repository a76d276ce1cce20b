"""Losses for segmentation, from logits.

All take labels `(batch, height, width)` with -1 = ignore, logits `(batch, height, width, classes)` (one channel counts
as "the second of two classes", a sigmoid), and optional pixel weights `(batch, height, width)` as Keras's `sample_weight`.
They add up: `CrossEntropy() + 0.5 * Dice()`.
"""

from __future__ import annotations

import keras
from keras import ops


class SegmentationLoss(keras.losses.Loss):
    """What all losses here share: ignored pixels, pixel weights, and the choice of classes.

    A subclass writes `value(one_hot, logits, weights)`. Keras's own reduction is not used: it would divide by the
    number of all pixels, the ignored ones too, and it cannot weight pixels inside a ratio such as Dice.
    """

    def __init__(self, ignore: int = -1, name: str | None = None):
        super().__init__(name=name, reduction="sum")
        self.ignore = ignore

    def __call__(self, y_true, y_pred, sample_weight=None):
        """The loss of a batch, a float32 scalar.

        Args:
            y_true: int `(batch, height, width)` or `(batch, height, width, 1)`.
            y_pred: logits `(batch, height, width, classes)`.
            sample_weight: float `(batch, height, width)` or anything that broadcasts to it.

        Raises:
            ValueError: if the shapes do not belong together.
        """
        logits = ops.cast(y_pred, "float32")
        if logits.shape[-1] == 1:
            # sigmoid(z) is the softmax of (0, z): one formula serves both.
            logits = ops.concatenate([ops.zeros_like(logits), logits], axis=-1)
        labels = ops.cast(y_true, "int32")
        if len(labels.shape) == len(logits.shape):
            labels = ops.squeeze(labels, -1)
        if len(labels.shape) != len(logits.shape) - 1:
            raise ValueError(
                f"y_true has shape {tuple(labels.shape)} and y_pred {tuple(logits.shape)}; labels have no channel axis: "
                "(batch, height, width) beside (batch, height, width, classes)."
            )
        counted = ops.cast(ops.not_equal(labels, self.ignore), "float32")
        weights = counted
        if sample_weight is not None:
            weights = counted * ops.cast(sample_weight, "float32")
        # An ignored pixel's label (-1) is no class; one_hot makes it a row of zeros, as it should be.
        labels = ops.where(ops.equal(labels, self.ignore), -1, labels)
        one_hot = ops.one_hot(labels, logits.shape[-1], dtype="float32")
        return self.value(one_hot, logits, weights, counted)

    def call(self, y_true, y_pred):
        return self(y_true, y_pred)

    def value(self, one_hot, logits, weights, counted):
        raise NotImplementedError

    def __add__(self, other: SegmentationLoss) -> SegmentationLoss:
        return WeightedSum([self, other])

    def __rmul__(self, factor: float) -> SegmentationLoss:
        return WeightedSum([self], [factor])

    def get_config(self):
        return {"ignore": self.ignore, "name": self.name}


@keras.saving.register_keras_serializable("course_lib.losses")
class CrossEntropy(SegmentationLoss):
    """Cross-entropy: the mean of −w_y · log p_y over the pixels that count.

    Args:
        class_weights: one factor per class, or `None` for 1 each. The mean stays one over pixels: a weight of 2
            doubles what the class adds (Ronneberger et al. 2015, eq. 1, up to the division by the number of pixels).
        ignore: label that does not count.
    """

    def __init__(self, class_weights=None, ignore: int = -1, name: str = "cross_entropy"):
        super().__init__(ignore, name)
        self.class_weights = None if class_weights is None else tuple(map(float, class_weights))

    def value(self, one_hot, logits, weights, counted):
        if self.class_weights is not None:
            if len(self.class_weights) != logits.shape[-1]:
                raise ValueError(
                    f"class_weights has {len(self.class_weights)} entries for {logits.shape[-1]} classes; give one each."
                )
            weights = weights * ops.sum(
                one_hot * ops.convert_to_tensor(self.class_weights, "float32"), axis=-1
            )
        per_pixel = -ops.sum(one_hot * ops.log_softmax(logits, axis=-1), axis=-1)
        return ops.sum(weights * per_pixel) / ops.maximum(ops.sum(counted), 1.0)

    def get_config(self):
        return super().get_config() | {"class_weights": self.class_weights}


@keras.saving.register_keras_serializable("course_lib.losses")
class Dice(SegmentationLoss):
    """Soft Dice loss: 1 − the mean over classes of (2 Σ p·y + s) / (Σ p + Σ y + s).

    Milletari et al. (2016), https://arxiv.org/abs/1606.04797, with p in the denominator instead of p².

    The sums run over all pixels of the batch, so that a picture without a class does not decide the class's value alone.

    Args:
        smooth: `s`, in pixels. It makes the ratio 1, and its gradient finite, where truth and prediction are both empty.
        background: whether class 0 counts too.
        ignore: label that does not count.
    """

    def __init__(self, smooth: float = 1.0, background: bool = True, ignore: int = -1, name: str = "dice"):
        super().__init__(ignore, name)
        if smooth <= 0:
            raise ValueError(
                f"smooth is {smooth}; it must be positive, or an empty class would divide by zero."
            )
        self.smooth, self.background = float(smooth), bool(background)

    def value(self, one_hot, logits, weights, counted):
        weights = ops.expand_dims(weights, -1)
        probabilities = ops.softmax(logits, axis=-1)
        axes = tuple(range(len(logits.shape) - 1))
        overlap = ops.sum(weights * probabilities * one_hot, axis=axes)
        total = ops.sum(weights * (probabilities + one_hot), axis=axes)
        dice = (2 * overlap + self.smooth) / (total + self.smooth)
        return 1.0 - ops.mean(dice if self.background else dice[1:])

    def get_config(self):
        return super().get_config() | {"smooth": self.smooth, "background": self.background}


@keras.saving.register_keras_serializable("course_lib.losses")
class WeightedSum(SegmentationLoss):
    """A sum of losses, each with its factor; made by `a + 0.5 * b`."""

    def __init__(self, losses, factors=None, ignore: int = -1, name: str = "sum"):
        super().__init__(ignore, name)
        losses = [
            keras.saving.deserialize_keras_object(loss) if isinstance(loss, dict) else loss for loss in losses
        ]
        self.losses = losses
        self.factors = [1.0] * len(losses) if factors is None else [float(factor) for factor in factors]

    def __call__(self, y_true, y_pred, sample_weight=None):
        return sum(
            factor * loss(y_true, y_pred, sample_weight)
            for factor, loss in zip(self.factors, self.losses, strict=True)
        )

    def get_config(self):
        return super().get_config() | {
            "losses": [keras.saving.serialize_keras_object(loss) for loss in self.losses],
            "factors": self.factors,
        }
