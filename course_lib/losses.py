"""Losses for segmentation, from logits.

All take labels `(batch, height, width)` with -1 = ignore, logits `(batch, height, width, classes)` (one channel counts
as "the second of two classes", a sigmoid), and optional sample weights, one per image or one per pixel.
They add up: `CrossEntropy() + 0.5 * Dice()`.

Three families, and the sums of them:

- pixel by pixel: `CrossEntropy`, `WeightedCrossEntropy`, `Focal`;
- by area, one ratio per class: `Dice`, `GeneralizedDice`, `Jaccard`, `Tversky`, `FocalTversky`, `LovaszSoftmax`;
- by distance: `Boundary`.

In the formulas p is the probability of a class (the softmax of the logits), y is 1 where the label is that class and 0
elsewhere, and a sum runs over all pixels of the batch that count, each times its weight. So with TP = Σ p·y,
FP = Σ p·(1 − y) and FN = Σ (1 − p)·y, Σ p is TP + FP and Σ y is TP + FN.

The same everywhere:

- An ignored pixel is not there: neither its logits nor its weight change the value, and its gradient is 0.
- A label that is neither ignored nor one of the classes (255 in a mask of two classes) is an error. Inside a compiled
  step, as in `fit`, nothing can be raised: there the value is NaN and the gradient 0, so nothing is learned from it.
- A batch in which nothing counts has the value 0 and the gradient 0.
- A class that neither the ground truth nor the prediction has is right: it adds 0. A class that the ground
  truth does not have and the prediction does, costs what is predicted, unless the loss says that it leaves absent
  classes out.
- Everything is computed in float32, whatever the logits' type; value and gradient are finite also where the softmax
  is exactly 0 or 1 (logits of ±80, ±10,000).

Keras's `fit(class_weight=…)` knows classes of images, not of pixels; here they are an argument of the loss:
`CrossEntropy(class_weights=(1, 5))`.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from course_lib._checks import array_of, in_range, one_of, whole_number
from course_lib.ops.labels import Tensor, check_no_probabilities, read_batch, scaled_as_keras


def check_takes_logits(loss) -> None:
    """A `ValueError` for a loss of Keras's, an object, a function or a name, that takes probabilities for logits."""
    if isinstance(loss, str):
        try:
            loss = keras.losses.get(loss)
        except ValueError:  # Keras says it
            return
    takes = getattr(loss, "from_logits", None)
    if isinstance(loss, types.FunctionType) and "from_logits" in inspect.signature(loss).parameters:
        takes = inspect.signature(loss).parameters["from_logits"].default
    if takes is False:
        name = getattr(loss, "__name__", type(loss).__name__)
        kind = "".join(word.title() for word in name.split("_")) if "_" in name else name
        raise ValueError(
            f"loss is {name} with from_logits=False; the network returns logits: give keras.losses.{kind}(from_logits=True)"
            ", or a loss of course_lib.losses."
        )


class SegmentationLoss(keras.losses.Loss):
    """The base of all losses: one channel or many, ignored pixels, pixel weights, sums.

    A subclass writes `value(one_hot, logits, weights, counted)`. Keras's own reductions are not used: they would divide
    by the number of all pixels, the ignored ones too, and cannot weight pixels inside a ratio such as Dice.

    Args:
        ignore: label that does not count; `None` if all count.
        name: shown where Keras names a loss.
    """

    def __init__(self, ignore: int | None = -1, name: str | None = None):
        super().__init__(name=name, reduction="sum")
        self.ignore = None if ignore is None else whole_number("ignore", ignore)

    def __call__(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """The loss of a batch, a float32 scalar.

        Args:
            y_true: class ids `(batch, height, width)` or `(batch, height, width, 1)`.
            y_pred: logits `(batch, height, width, classes)`.
            sample_weight: one number per image `(batch,)`, or one per pixel, with or without a channel axis.

        Raises:
            ValueError: if shapes do not belong together, `y_pred` comes from a softmax or a sigmoid, or a label is none of
                the classes (NaN in a compiled step).
        """
        check_no_probabilities(y_pred)
        batch = read_batch(y_true, y_pred, sample_weight, self.ignore)
        if 0 in batch.logits.shape:  # an empty batch
            return ops.zeros((), "float32")
        counted = ops.cast(batch.counted, "float32")
        logits = ops.cast(batch.logits, "float32")
        logits = ops.where(ops.expand_dims(batch.counted, -1), logits, 0.0)
        one_hot = ops.one_hot(batch.labels, logits.shape[-1], dtype="float32")  # of -1 a row of zeros
        value = self.value(one_hot, logits, batch.weights, counted)
        return scaled_as_keras(ops.where(batch.impossible, float("nan"), value))

    def call(self, y_true, y_pred):
        return self(y_true, y_pred)

    def value(self, one_hot: Tensor, logits: Tensor, weights: Tensor, counted: Tensor) -> Tensor:
        """The loss, a float32 scalar.

        Args:
            one_hot: `(batch, height, width, classes)`, a row of zeros where the label is ignored.
            logits: `(batch, height, width, classes)`, two classes or more.
            weights: `(batch, height, width)`, the pixel weights, 0 where the label is ignored.
            counted: `(batch, height, width)`, 1 where the label counts.
        """
        raise NotImplementedError

    __array_ufunc__ = None  # so that a NumPy number leaves `number * loss` to the loss

    def __add__(self, other: keras.losses.Loss) -> SegmentationLoss:
        if isinstance(other, keras.losses.Loss):
            return WeightedSum([self, other])
        # sum() starts from 0.
        return self if isinstance(other, (int, float)) and other == 0 else NotImplemented

    def __radd__(self, other) -> SegmentationLoss:
        return WeightedSum([other, self]) if isinstance(other, keras.losses.Loss) else self + other

    def __mul__(self, factor: float) -> SegmentationLoss:
        return WeightedSum([self], [factor])

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> SegmentationLoss:
        return self * (1 / in_range("divisor", divisor, 0, open_low=True))

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        given = [
            f"{name}={value!r}"
            for name, value in self.get_config().items()
            if name != "name" and (name not in defaults or value != defaults[name].default)
        ]
        return f"{type(self).__name__}({', '.join(given)})"

    def get_config(self):
        return {"ignore": self.ignore, "name": self.name}


# Pixel by pixel


def factors_of(factors: Sequence[float], name: str, classes: int) -> Tensor:
    """One factor per class as a tensor `(classes,)`; raises ValueError if there are not as many as classes."""
    if len(factors) != classes:
        raise ValueError(f"{name} is {factors}; it must have one number for each of the {classes} classes.")
    return ops.convert_to_tensor(factors, "float32")


def checked_factors(factors: Sequence[float] | None, name: str) -> tuple[float, ...] | None:
    """`None` or a tuple of floats, 0 or more; raises TypeError for a number or a dict, ValueError for a negative one."""
    if factors is None:
        return None
    if np.ndim(factors) == 0:  # of a dict, too
        raise TypeError(
            f"{name} is {factors!r}; it must be one number per class, in order, such as (0.25, 0.75)."
        )
    factors = tuple(array_of(name, factors, shape=(None,)).astype(float).tolist())
    if not all(0 <= factor < float("inf") for factor in factors):
        raise ValueError(f"{name} is {factors}; each must be at least 0 and finite.")
    return factors


def ratio(above: Tensor, below: Tensor) -> Tensor:
    """`above / below`, and 0 with gradient 0 where `below` is 0."""
    there = ops.logical_or(below > 0, ops.isnan(below))  # NaN stays NaN
    return ops.where(there, above, 0.0) / ops.where(there, below, 1.0)


def power(base: Tensor, exponent: float) -> Tensor:
    """`base ** exponent` for a base of 0 or more, with gradient 0 at 0, where an exponent below 1 has an infinite one.

    An infinite gradient there would be multiplied by the zero gradient of a softmax that is certain: not a number.
    """
    if exponent == 0:
        return ops.ones_like(base)
    there = ops.logical_or(base > 1e-7, ops.isnan(base))  # NaN stays NaN
    return ops.where(there, ops.power(ops.where(there, base, 1.0), exponent), 0.0)


@keras.saving.register_keras_serializable("course_lib")
class CrossEntropy(SegmentationLoss):
    """Cross-entropy: the mean of −w_y · log p_y over the pixels that count.

    Args:
        class_weights: one factor per class, or `None` for 1 each. The mean stays one over pixels: a weight of 2
            doubles what the class adds (Ronneberger et al. 2015, eq. 1, https://arxiv.org/abs/1505.04597, up to the
            division by the number of pixels). `WeightedCrossEntropy` divides by the sum of the weights instead.
        ignore: label that does not count.
    """

    def __init__(
        self,
        class_weights: Sequence[float] | None = None,
        ignore: int | None = -1,
        name: str = "cross_entropy",
    ):
        super().__init__(ignore, name)
        self.class_weights = checked_factors(class_weights, "class_weights")

    def value(self, one_hot: Tensor, logits: Tensor, weights: Tensor, counted: Tensor) -> Tensor:
        if self.class_weights is not None:
            factors = factors_of(self.class_weights, "class_weights", logits.shape[-1])
            weights = weights * ops.sum(one_hot * factors, axis=-1)
        per_pixel = -ops.sum(one_hot * ops.log_softmax(logits, axis=-1), axis=-1)
        return ops.sum(weights * per_pixel) / ops.maximum(ops.sum(counted), 1.0)

    def get_config(self):
        return super().get_config() | {"class_weights": self.class_weights}


@keras.saving.register_keras_serializable("course_lib")
class WeightedCrossEntropy(SegmentationLoss):
    """Cross-entropy as a weighted mean: Σ w_y · (−log p_y) / Σ w_y over the pixels that count.

    The division by the sum of the weights, PyTorch's convention, is what differs from `CrossEntropy(class_weights=...)`,
    which divides by the number of pixels. Here ten times the weights are the same loss, and a batch that holds only a
    class of small weight counts in full; there it counts little.

    Args:
        class_weights: one factor per class, 0 or more; or `None` for the inverse frequency of the class in the batch,
            w_c = 1 / Σ y_c. Every class that the batch has then counts the same: the loss is the mean over these
            classes of the mean over the class's pixels. A class that the batch does not have gets no weight. Pixel
            weights are part of the frequency.
        ignore: label that does not count.

    Raises:
        TypeError: if `class_weights` is a single number.
        ValueError: if a class weight is negative or not finite; in a call, if there are not as many as classes.
    """

    def __init__(
        self,
        class_weights: Sequence[float] | None = None,
        ignore: int | None = -1,
        name: str = "weighted_cross_entropy",
    ):
        super().__init__(ignore, name)
        self.class_weights = checked_factors(class_weights, "class_weights")

    def value(self, one_hot: Tensor, logits: Tensor, weights: Tensor, counted: Tensor) -> Tensor:
        of_class = ops.expand_dims(weights, -1) * one_hot
        axes = tuple(range(len(logits.shape) - 1))
        total, pixels = ops.sum(-of_class * ops.log_softmax(logits, axis=-1), axes), ops.sum(of_class, axes)
        if self.class_weights is None:
            factors = ratio(ops.ones_like(pixels), pixels)
        else:
            factors = factors_of(self.class_weights, "class_weights", logits.shape[-1])
        return ratio(ops.sum(factors * total), ops.sum(factors * pixels))

    def get_config(self):
        return super().get_config() | {"class_weights": self.class_weights}


@keras.saving.register_keras_serializable("course_lib")
class Focal(SegmentationLoss):
    """Focal loss: the mean of −α_y · (1 − p_y)^γ · log p_y over the pixels that count.

    Lin et al. (2017), eq. 4 and 5, https://arxiv.org/abs/1708.02002, with the softmax in place of the sigmoid (for one
    channel they are the same). They divide by the number of anchors that hold an object; here it is the number of
    pixels, as in `CrossEntropy`, which is the case γ = 0.

    Args:
        gamma: γ, 0 or more. The larger it is, the less a pixel counts that is already right.
        alpha: α, one factor per class, or `None` for 1 each. Their balanced α = 0.25 for the object is
            `alpha=(0.75, 0.25)`.
        ignore: label that does not count.

    Raises:
        TypeError: if `alpha` is a single number.
        ValueError: if `gamma` or an entry of `alpha` is negative; in a call, if there are not as many as classes.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: Sequence[float] | None = None,
        ignore: int | None = -1,
        name: str = "focal",
    ):
        super().__init__(ignore, name)
        self.gamma, self.alpha = in_range("gamma", gamma, 0), checked_factors(alpha, "alpha")

    def value(self, one_hot: Tensor, logits: Tensor, weights: Tensor, counted: Tensor) -> Tensor:
        if self.alpha is not None:
            weights = weights * ops.sum(one_hot * factors_of(self.alpha, "alpha", logits.shape[-1]), axis=-1)
        logarithm = ops.sum(one_hot * ops.log_softmax(logits, axis=-1), axis=-1)
        # 1 − p from the logarithm keeps its digits where p is nearly 1.
        per_pixel = -power(-ops.expm1(logarithm), self.gamma) * logarithm
        return ops.sum(weights * per_pixel) / ops.maximum(ops.sum(counted), 1.0)

    def get_config(self):
        return super().get_config() | {"gamma": self.gamma, "alpha": self.alpha}


# By area


class AreaLoss(SegmentationLoss):
    """The base of the losses that compare a class's predicted area with its area in the ground truth.

    The sums run over all pixels of the batch, so an image without a class does not decide the class's value alone.
    Each loss is 1 − a ratio of the form (hits + s) / (hits + errors + s). It is computed as errors / (hits + errors + s),
    which is the same number and keeps its digits where the prediction is nearly right.
    """

    def __init__(self, smooth: float, background: bool, ignore: int | None, name: str):
        super().__init__(ignore, name)
        # Of 0 an empty class would divide by zero.
        self.smooth, self.background = in_range("smooth", smooth, 0, open_low=True), bool(background)

    def areas(self, one_hot: Tensor, logits: Tensor, weights: Tensor) -> list[Tensor]:
        """TP, FP and FN of each class, three tensors `(classes,)`; the background is left out if it does not count."""
        weights = ops.expand_dims(weights, -1)
        probabilities = ops.softmax(logits, axis=-1)
        axes = tuple(range(len(logits.shape) - 1))
        first = 0 if self.background else 1
        return [
            ops.sum(weights * part, axis=axes)[first:]
            for part in (
                probabilities * one_hot,
                probabilities * (1.0 - one_hot),
                (1.0 - probabilities) * one_hot,
            )
        ]

    def get_config(self):
        return super().get_config() | {"smooth": self.smooth, "background": self.background}


@keras.saving.register_keras_serializable("course_lib")
class Dice(AreaLoss):
    """Soft Dice loss: 1 − the mean over classes of (2 Σ p·y + s) / (Σ p + Σ y + s).

    Milletari et al. (2016), https://arxiv.org/abs/1606.04797, with p in the denominator instead of p².

    Args:
        smooth: `s`, in pixels. It makes the ratio 1, and its gradient finite, where ground truth and prediction are empty.
        background: whether class 0 counts too.
        ignore: label that does not count.
    """

    def __init__(
        self, smooth: float = 1.0, background: bool = True, ignore: int | None = -1, name: str = "dice"
    ):
        super().__init__(smooth, background, ignore, name)

    def value(self, one_hot: Tensor, logits: Tensor, weights: Tensor, counted: Tensor) -> Tensor:
        hit, false, missed = self.areas(one_hot, logits, weights)
        error = false + missed
        return ops.mean(error / (2 * hit + error + self.smooth))


@keras.saving.register_keras_serializable("course_lib")
class GeneralizedDice(AreaLoss):
    """Generalised Dice loss: 1 − (2 Σ_c w_c Σ p·y + s) / (Σ_c w_c (Σ p + Σ y) + s), with w_c ∝ 1 / (Σ y)².

    Sudre et al. (2017), https://arxiv.org/abs/1707.03237. One ratio for all classes, in which a class counts by the
    inverse square of its true area, so that a small class weighs as much as a large one.

    Only the proportions of the weights matter, so they are scaled: the rarest class that the batch has gets 1. A class
    that it does not have, for which 1 / 0² would be infinite, gets 1 too; what is predicted of it counts like false
    pixels of the rarest class.

    Args:
        smooth: `s`, in pixels of the rarest class. It makes the ratio 1, and its gradient finite, where ground truth and
            prediction are both empty.
        background: whether class 0 counts too.
        ignore: label that does not count.
    """

    def __init__(
        self,
        smooth: float = 1.0,
        background: bool = True,
        ignore: int | None = -1,
        name: str = "generalized_dice",
    ):
        super().__init__(smooth, background, ignore, name)

    def value(self, one_hot: Tensor, logits: Tensor, weights: Tensor, counted: Tensor) -> Tensor:
        hit, false, missed = self.areas(one_hot, logits, weights)
        volume = ops.stop_gradient(hit + missed)
        present = volume > 0
        rarest = ops.min(ops.where(present, volume, ops.max(volume)))
        factors = ops.where(present, ops.square(rarest / ops.where(present, volume, 1.0)), 1.0)
        hit, error = ops.sum(factors * hit), ops.sum(factors * (false + missed))
        return error / (2 * hit + error + self.smooth)


@keras.saving.register_keras_serializable("course_lib")
class Jaccard(AreaLoss):
    """Soft Jaccard (IoU) loss: 1 − the mean over classes of (Σ p·y + s) / (Σ p + Σ y − Σ p·y + s).

    Rahman and Wang (2016), https://doi.org/10.1007/978-3-319-50835-1_22.

    Args:
        smooth: `s`, in pixels. It makes the ratio 1, and its gradient finite, where ground truth and prediction are empty.
        background: whether class 0 counts too.
        ignore: label that does not count.
    """

    def __init__(
        self, smooth: float = 1.0, background: bool = True, ignore: int | None = -1, name: str = "jaccard"
    ):
        super().__init__(smooth, background, ignore, name)

    def value(self, one_hot: Tensor, logits: Tensor, weights: Tensor, counted: Tensor) -> Tensor:
        hit, false, missed = self.areas(one_hot, logits, weights)
        error = false + missed
        return ops.mean(error / (hit + error + self.smooth))


@keras.saving.register_keras_serializable("course_lib")
class Tversky(AreaLoss):
    """Tversky loss: 1 − the mean over classes of (TP + s) / (TP + α · FP + β · FN + s).

    Salehi et al. (2017), https://arxiv.org/abs/1706.05721: α is the price of a false pixel, β that of a
    missed one. α = β = 1 is `Jaccard(s)`; α = β = ½ is `Dice(2 s)`, since Dice counts each hit twice.

    Args:
        alpha: α, 0 or more. Their best for small lesions was 0.3 with β = 0.7.
        beta: β, 0 or more.
        smooth: `s`, in pixels. It makes the ratio 1, and its gradient finite, where ground truth and prediction are empty.
        background: whether class 0 counts too.
        ignore: label that does not count.

    Raises:
        ValueError: if `alpha` or `beta` is negative, or `smooth` not positive.
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        smooth: float = 1.0,
        background: bool = True,
        ignore: int | None = -1,
        name: str = "tversky",
    ):
        super().__init__(smooth, background, ignore, name)
        self.alpha, self.beta = in_range("alpha", alpha, 0), in_range("beta", beta, 0)

    def errors(self, one_hot: Tensor, logits: Tensor, weights: Tensor) -> Tensor:
        """1 − the Tversky index of each class, `(classes,)`."""
        hit, false, missed = self.areas(one_hot, logits, weights)
        error = self.alpha * false + self.beta * missed
        return error / (hit + error + self.smooth)

    def value(self, one_hot: Tensor, logits: Tensor, weights: Tensor, counted: Tensor) -> Tensor:
        return ops.mean(self.errors(one_hot, logits, weights))

    def get_config(self):
        return super().get_config() | {"alpha": self.alpha, "beta": self.beta}


@keras.saving.register_keras_serializable("course_lib")
class FocalTversky(Tversky):
    """Focal Tversky loss: the mean over classes of (1 − TI)^(1/γ), TI = (TP + s) / (TP + α · FP + β · FN + s).

    Abraham and Khan (2018), https://arxiv.org/abs/1810.07842. The exponent is 1/γ as they print it, not γ: their
    best γ = 4/3 means (1 − TI)^0.75, and γ = 1 is `Tversky`. They sum over classes; here it is the mean. They swap the
    letters: their α = 0.7 prices what is missed and is β here.

    An exponent below 1 has an infinite slope where a class is perfect; there (1 − TI below 1e-7) the gradient is 0.

    Args:
        alpha: α, the price of a false pixel, 0 or more.
        beta: β, the price of a missed pixel, 0 or more.
        gamma: γ, positive. Above 1 a class that is nearly right keeps a larger gradient; below 1 a smaller one.
        smooth: `s`, in pixels. It makes the ratio 1, and its gradient finite, where ground truth and prediction are empty.
        background: whether class 0 counts too.
        ignore: label that does not count.

    Raises:
        ValueError: if `gamma` or `smooth` is not positive, or `alpha` or `beta` negative.
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 4 / 3,
        smooth: float = 1.0,
        background: bool = True,
        ignore: int | None = -1,
        name: str = "focal_tversky",
    ):
        super().__init__(alpha, beta, smooth, background, ignore, name)
        self.gamma = in_range("gamma", gamma, 0, open_low=True)

    def value(self, one_hot: Tensor, logits: Tensor, weights: Tensor, counted: Tensor) -> Tensor:
        return ops.mean(power(self.errors(one_hot, logits, weights), 1 / self.gamma))

    def get_config(self):
        return super().get_config() | {"gamma": self.gamma}


@keras.saving.register_keras_serializable("course_lib")
class LovaszSoftmax(SegmentationLoss):
    """Lovász-softmax loss: the mean over classes of the Lovász extension of 1 − IoU, at the errors |y − p|.

    Berman et al. (2018), https://arxiv.org/abs/1705.08790. A prediction that misses the set M of pixels has
    1 − IoU = |M| / |T ∪ M|, T the pixels of the ground truth. That function of sets becomes one of errors e between 0
    and 1 like this: with the pixels sorted by falling error, Δ_k = 1 − IoU if the first k were wrong, the loss is
    Σ_k e_k · (Δ_k − Δ_{k−1}). For errors of 0 and 1 it is 1 − IoU itself; in between it is the largest convex function
    of the errors that agrees with it there.

    Pixel weights turn the number of pixels in a set into the sum of their weights, which leaves all of this true.

    Args:
        classes: "present" leaves a class out that the ground truth does not have (their choice); "all" keeps it, at the
            largest probability that a pixel gives it.
        per_image: take the loss of each image by itself, then the mean over the images in which a pixel counts,
            instead of one loss for all pixels of the batch.
        background: whether class 0 counts too.
        ignore: label that does not count.

    Raises:
        ValueError: if `classes` is neither "present" nor "all".
    """

    def __init__(
        self,
        classes: str = "present",
        per_image: bool = False,
        background: bool = True,
        ignore: int | None = -1,
        name: str = "lovasz_softmax",
    ):
        super().__init__(ignore, name)
        self.classes = one_of("classes", classes, ("present", "all"))
        self.per_image, self.background = bool(per_image), bool(background)

    def value(self, one_hot: Tensor, logits: Tensor, weights: Tensor, counted: Tensor) -> Tensor:
        first = 0 if self.background else 1
        errors = ops.abs(one_hot - ops.softmax(logits, axis=-1))
        # (images, classes, pixels), where the whole batch counts as one image unless per_image is set.
        images = ops.shape(logits)[0] if self.per_image else 1
        errors, y_true, weights = (
            ops.swapaxes(ops.reshape(part, (images, -1, part.shape[-1])), 1, 2)
            for part in (errors[..., first:], one_hot[..., first:], ops.expand_dims(weights, -1))
        )
        weights = ops.broadcast_to(weights, ops.shape(errors))

        order = ops.argsort(-ops.stop_gradient(errors), axis=-1)
        errors, y_true, weights = (ops.take_along_axis(part, order, -1) for part in (errors, y_true, weights))
        area = ops.sum(weights * y_true, axis=-1, keepdims=True)
        before = area - ops.cumsum(weights * y_true, axis=-1) + weights * y_true
        union = area + ops.cumsum(weights * (1.0 - y_true), axis=-1)
        # Δ_k − Δ_{k−1} in closed form; as a difference of two numbers near 1 it would be mostly rounding. A missed pixel
        # takes w out of the intersection; a false one adds w to a union that held the intersection up to then.
        earlier_union = union - weights * (1.0 - y_true)
        earlier_iou = ops.where(earlier_union > 0, ratio(before, earlier_union), 1.0)
        step = ratio(weights * ops.where(y_true > 0, 1.0, earlier_iou), union)
        per_class = ops.sum(errors * ops.stop_gradient(step), axis=-1)

        present = ops.cast(area[..., 0] > 0, "float32")
        if self.classes == "all":
            present = ops.ones_like(present)
        of_image = ratio(ops.sum(present * per_class, axis=-1), ops.sum(present, axis=-1))
        there = ops.cast(ops.any(weights > 0, axis=(1, 2)), "float32")
        return ratio(ops.sum(there * of_image), ops.sum(there))

    def get_config(self):
        return super().get_config() | {
            "classes": self.classes,
            "per_image": self.per_image,
            "background": self.background,
        }


# By distance


def squared_distances(seeds: Tensor) -> Tensor:
    """Squared distance of each pixel to the nearest seed, exact, in float32.

    The nearest seed is found along each row first, then over the rows of each column: min_r (f(r, column) + (row − r)²)
    (Felzenszwalb and Huttenlocher 2012, https://doi.org/10.4086/toc.2012.v008a019). They find the minimum in one walk
    along the column; here all r are tried at once, which needs no loop.

    Args:
        seeds: bool `(height, width)`.

    Returns:
        `(height, width)`, in pixels squared; more than 1e8 where there is no seed at all.
    """

    def along_rows(f):
        place = ops.cumsum(ops.ones_like(f[0]))  # 1, 2, ..., also where the width is not known beforehand
        apart = ops.square(ops.expand_dims(place, 0) - ops.expand_dims(place, 1))
        return ops.min(ops.expand_dims(f, 1) + apart, axis=-1)

    # Far more than any square of a distance, and small enough that float32 still adds.
    nearest = along_rows(ops.where(seeds, 0.0, 1e9))
    return ops.transpose(along_rows(ops.transpose(nearest)))


def signed_distances(inside: Tensor, outside: Tensor) -> Tensor:
    """The distance of each pixel from the boundary of a class: positive outside the class, 0 or negative inside.

    Outside it is the distance to the nearest pixel of the class; inside, 1 − the distance to the nearest pixel that is
    not of the class: a pixel on the edge of the class has 0. An image that has no edge, because all or none of it is
    the class, has 0 everywhere. A pixel that is on neither side (ignored) is no one's nearest pixel.

    The cost is height · width · (height + width) operations per image and class, and, where the backend does not fuse
    them, height · width · max(height, width) floats of memory: 8 MB for 128 × 128 pixels, 67 MB for 256 × 256.

    Args:
        inside: bool `(..., height, width)`, the pixels of the class.
        outside: bool `(..., height, width)`, the pixels of all other classes.

    Returns:
        float32 `(..., height, width)`, in pixels.
    """

    def one(pair):
        inside, outside = pair[0] > 0, pair[1] > 0
        to_class, to_others = ops.sqrt(squared_distances(inside)), ops.sqrt(squared_distances(outside))
        signed = ops.where(inside, 1.0 - to_others, to_class)
        return ops.where(ops.logical_and(ops.any(inside), ops.any(outside)), signed, 0.0)

    pairs = ops.cast(ops.stack([inside, outside], axis=-3), "float32")
    shape = ops.shape(pairs)
    # One image and class after the other: all at once would take the memory of all at once.
    planes = ops.map(one, ops.reshape(pairs, (-1, *shape[-3:])))
    return ops.stop_gradient(ops.reshape(planes, ops.shape(inside)))


@keras.saving.register_keras_serializable("course_lib")
class Boundary(SegmentationLoss):
    """Boundary loss: the mean of p · φ over pixels and classes, φ the signed distance to the class's true edge.

    Kervadec et al. (2019), https://arxiv.org/abs/1812.07032. A false pixel costs its distance to the class,
    a pixel inside earns its depth; `signed_distances` says what φ is at the edge, and that a class without an edge in a
    image adds nothing there. The value is in pixels and can be negative: lowest, not 0, is best.

    By itself it can stop at an empty prediction, which costs 0. They use it beside an area loss, with a factor that starts
    small: `Dice() + 0.01 * Boundary()`.

    φ comes from the labels in the compiled step itself, so they are the ordinary ones; what it costs is said in
    `signed_distances`.

    Args:
        background: whether class 0 counts too. Of two classes it adds nothing new: its φ is 1 minus that of the other.
        ignore: label that does not count; such a pixel is on neither side of an edge.
    """

    def __init__(self, background: bool = True, ignore: int | None = -1, name: str = "boundary"):
        super().__init__(ignore, name)
        self.background = bool(background)

    def value(self, one_hot: Tensor, logits: Tensor, weights: Tensor, counted: Tensor) -> Tensor:
        if len(logits.shape) != 4:
            raise ValueError(
                f"y_pred has shape {tuple(logits.shape)}; the boundary loss needs images: "
                "(batch, height, width, classes)."
            )
        first = 0 if self.background else 1
        inside = ops.transpose(one_hot[..., first:], (0, 3, 1, 2)) > 0
        outside = ops.logical_and(ops.logical_not(inside), ops.expand_dims(counted, 1) > 0)
        distances = ops.transpose(signed_distances(inside, outside), (0, 2, 3, 1))
        per_pixel = ops.mean(ops.softmax(logits, axis=-1)[..., first:] * distances, axis=-1)
        return ops.sum(weights * per_pixel) / ops.maximum(ops.sum(counted), 1.0)

    def get_config(self):
        return super().get_config() | {"background": self.background}


# Sums


@keras.saving.register_keras_serializable("course_lib")
class WeightedSum(SegmentationLoss):
    """A sum of losses, each with its factor; made by `a + 0.5 * b` or `sum([a, b])`. Each part keeps its own `ignore`.

    Args:
        losses: the parts, losses of this module or Keras's own.
        factors: one finite number each; 1 by default.
        name: shown where Keras names a loss.

    Raises:
        TypeError: if a factor is no number, or a part no loss object.
        ValueError: if a factor is not finite, or there are not as many as losses; if a part takes probabilities or does
            not give one number.
    """

    def __init__(
        self, losses: Sequence[keras.losses.Loss], factors: Sequence[float] | None = None, name: str = "sum"
    ):
        super().__init__(name=name)
        self.losses = [
            keras.saving.deserialize_keras_object(loss) if isinstance(loss, dict) else loss for loss in losses
        ]
        if not self.losses:
            raise ValueError("losses is empty; it must hold at least one loss.")
        for loss in self.losses:
            check_takes_logits(loss)
            if not isinstance(loss, keras.losses.Loss):
                raise TypeError(f"losses holds {loss!r}; each must be a loss object, such as Dice().")
            if not isinstance(loss, SegmentationLoss) and loss.reduction in (None, "none"):
                raise ValueError(
                    f"losses holds {loss!r} with reduction={loss.reduction!r}; each must give one number."
                )
        factors = [1.0] * len(self.losses) if factors is None else factors
        self.factors = [in_range("factor", factor) for factor in factors]
        if len(self.factors) != len(self.losses):
            raise ValueError(
                f"factors is {self.factors}; it must have one number for each of {len(self.losses)} losses."
            )

    def __call__(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """The sum of the parts' values, a float32 scalar; arguments and errors as of each part."""
        return sum(
            factor * loss(y_true, y_pred, sample_weight)
            for factor, loss in zip(self.factors, self.losses, strict=True)
        )

    def __repr__(self) -> str:
        parts = zip(self.factors, self.losses, strict=True)
        return " + ".join(f"{loss!r}" if factor == 1 else f"{factor:g} * {loss!r}" for factor, loss in parts)

    def get_config(self):
        return {
            "losses": [keras.saving.serialize_keras_object(loss) for loss in self.losses],
            "factors": self.factors,
            "name": self.name,
        }
