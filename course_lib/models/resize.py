"""Aligning feature maps of two sizes: which pixel of the coarse map lies where in the fine one?

A pixel of a feature map is a square, and a kernel is applied at its centre. Let a layer of stride s make a fine
map of n pixels coarse. Two conventions are common, and mixing them up moves every feature by a fraction of a coarse pixel:

- **A pooling, or a kernel of even side, covers blocks.** Coarse pixel i covers the fine pixels s · i to s · i + s − 1; its
  middle lies between pixels, at s · i + (s − 1) / 2. The way back is a resize with half-pixel centres: VGG and the FCN
  (`Bilinear`, `EdgePadding`, `CropTo`), and nearest neighbours (`Enlarge`).
- **A kernel of odd side, padded alike on both sides, looks at pixels.** Coarse pixel i has its middle on the fine pixel
  s · i. The way back is an interpolation that leaves these pixels what they are ("aligned corners" where
  n = s · k + 1): ResNet and DeepLab (`Interpolate`).

In both a side of n becomes ⌈n / s⌉, and the way back cuts off what is too much. `models.analysis.receptive_field` shows
that it is right: its offset is 0 for the logits of every network here.
"""

import keras
import numpy as np
from keras import layers, ops


def check_sides(name: str, coarse, fine, factor: int) -> None:
    """Raise a `ValueError` unless each side of the coarse map is the finer one's divided by the factor, rounded up."""
    for small, large in zip(coarse[1:3], fine[1:3], strict=True):
        if small is not None and large is not None and small != -(-large // factor):
            raise ValueError(
                f"{name} got feature maps of {tuple(coarse[1:3])} and {tuple(fine[1:3])}; each side of the coarser map "
                f"must be that of the finer one divided by {factor}, rounded up."
            )


@keras.saving.register_keras_serializable(package="course_lib")
class Interpolate(layers.Layer):
    """A coarse map interpolated bilinearly to the locations of a map that is `factor` times as fine.

    Pixel i of the coarse map goes to pixel `factor` · i of the fine one; between two pixels, each counts by its nearness,
    and beyond the last, the last. For sides of `factor` · n + 1, such as the 513 of Chen et al. (2018), this is
    interpolation "with aligned corners", as in the authors' code.

    Args:
        factor: how many times as fine, at least 1.
        **arguments: of every Keras layer (name, dtype).

    Call:
        `[coarse, fine]`, both `(batch, height, width, channels)`, with ⌈side / factor⌉ pixels to each side of `fine`;
        returns `coarse` in the height and width of `fine`. Raises ValueError if the sides are known and do not belong
        together.
    """

    def __init__(self, factor: int, **arguments):
        super().__init__(**arguments)
        self.factor = factor

    def call(self, inputs):
        coarse, fine = inputs
        check_sides(self.name, coarse.shape, fine.shape, self.factor)
        rows, columns = ops.shape(fine)[1:3]
        return self._along(self._along(coarse, 1)[:, :rows], 2)[:, :, :columns]

    def _along(self, x, axis):
        """`factor` pixels for each along one axis: x[i] + t · (x[i + 1] − x[i]) for t = 0, 1/factor, …"""
        following = ops.concatenate([x[:, 1:], x[:, -1:]] if axis == 1 else [x[:, :, 1:], x[:, :, -1:]], axis)
        step = ops.expand_dims(following - x, axis + 1)
        weight = np.arange(self.factor, dtype=np.float32) / self.factor
        weight = ops.cast(weight.reshape((-1, 1, 1) if axis == 1 else (-1, 1)), x.dtype)
        between = ops.expand_dims(x, axis + 1) + weight * step
        shape = list(ops.shape(x))
        shape[axis] = shape[axis] * self.factor
        return ops.reshape(between, shape)

    def compute_output_shape(self, input_shape):
        coarse, fine = input_shape
        check_sides(self.name, coarse, fine, self.factor)
        return (coarse[0], *fine[1:3], coarse[3])

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


def bilinear_kernel(size: int) -> np.ndarray:
    """The kernel of a transposed convolution, of even side, that interpolates bilinearly at half its side as stride.

    A tent: each output pixel between the middles of two inputs takes from both, the nearer the more.

    Returns:
        float32 `(size, size)`; its sum is `(size / 2)²`, so that a constant map stays what it was.
    """
    if size < 2 or size % 2:
        raise ValueError(f"size is {size}; it must be even and at least 2.")
    places = np.arange(size) + 0.5
    tent = 1 - np.abs(places - size / 2) / (size / 2)
    return np.outer(tent, tent).astype(np.float32)


@keras.saving.register_keras_serializable(package="course_lib")
class Bilinear(keras.initializers.Initializer):
    """Initialises a `Conv2DTranspose` as bilinear interpolation of each channel separately (`bilinear_kernel`)."""

    def __call__(self, shape, dtype=None):
        rows, columns, outgoing, incoming = shape
        if rows != columns or outgoing != incoming:
            raise ValueError(
                f"shape is {tuple(shape)}; a bilinear kernel is square, with as many channels in as out."
            )
        kernel = bilinear_kernel(rows)[:, :, None, None] * np.eye(outgoing, dtype=np.float32)
        return ops.convert_to_tensor(kernel, dtype=dtype or keras.config.floatx())


@keras.saving.register_keras_serializable(package="course_lib")
class EdgePadding(layers.Layer):
    """Padding by one pixel that repeats the outermost pixels.

    Zeros instead would fade the interpolated scores to nothing over half a step of the coarse map.

    Call:
        `(batch, height, width, channels)` in, `(batch, height + 2, width + 2, channels)` out.
    """

    def call(self, inputs):
        x = ops.concatenate([inputs[:, :1], inputs, inputs[:, -1:]], axis=1)
        return ops.concatenate([x[:, :, :1], x, x[:, :, -1:]], axis=2)

    def compute_output_shape(self, input_shape):
        batch, *sides, channels = input_shape
        return (batch, *(None if side is None else side + 2 for side in sides), channels)


@keras.saving.register_keras_serializable(package="course_lib")
class CropTo(layers.Layer):
    """The part of a map that begins `offset` pixels from the top and from the left, in the height and width of another.

    Args:
        offset: in pixels, 0 or more.
        **arguments: of every Keras layer (name, dtype).

    Call:
        `[map, other]`, both `(batch, height, width, channels)`; returns the part of `map`. Raises ValueError if the
        sides are known and the part reaches beyond the map.
    """

    def __init__(self, offset: int, **arguments):
        super().__init__(**arguments)
        self.offset = offset

    def call(self, inputs):
        x, other = inputs
        self._check(x.shape, other.shape)
        rows, columns = ops.shape(other)[1:3]
        return x[:, self.offset : self.offset + rows, self.offset : self.offset + columns]

    def compute_output_shape(self, input_shape):
        shape, other = input_shape
        self._check(shape, other)
        return (shape[0], *other[1:3], shape[3])

    def get_config(self):
        return {**super().get_config(), "offset": self.offset}

    def _check(self, shape, other):
        for side, wanted in zip(shape[1:3], other[1:3], strict=True):
            if side is not None and wanted is not None and side < self.offset + wanted:
                raise ValueError(
                    f"{self.name} crops {wanted} pixels from pixel {self.offset}; they must lie in a feature map of {side}."
                )


@keras.saving.register_keras_serializable(package="course_lib")
class Enlarge(layers.Layer):
    """Each pixel of a coarse map four times, cut to the size of a finer one: nearest-neighbour interpolation.

    A backbone halves a side of h to ⌈h / 2⌉, so twice the coarse side is the fine one, or one more. Then the nearest
    coarse pixel of the fine pixel i, ⌊i · ⌈h / 2⌉ / h⌋, is ⌊i / 2⌋ for every i, for even and for odd h.

    Call:
        `[coarse, fine]`, both `(batch, height, width, channels)`; returns `coarse` in the height and width of `fine`.
        Raises ValueError if the sides are known and do not belong together.
    """

    def call(self, inputs):
        coarse, fine = inputs
        check_sides(self.name, coarse.shape, fine.shape, 2)
        rows, columns = ops.shape(fine)[1:3]
        return ops.repeat(ops.repeat(coarse, 2, axis=1), 2, axis=2)[:, :rows, :columns]

    def compute_output_shape(self, input_shape):
        coarse, fine = input_shape
        check_sides(self.name, coarse, fine, 2)
        return (coarse[0], *fine[1:3], coarse[3])


@keras.saving.register_keras_serializable(package="course_lib")
class SpreadOver(layers.Layer):
    """One pixel repeated at every location of a map.

    Call:
        `[pixel, map]`, `(batch, 1, 1, channels)` and `(batch, height, width, …)`; returns `(batch, height, width,
        channels)`.
    """

    def call(self, inputs):
        pixel, features = inputs
        batch, rows, columns = ops.shape(features)[:3]
        return ops.broadcast_to(pixel, (batch, rows, columns, pixel.shape[-1]))

    def compute_output_shape(self, input_shape):
        pixel, features = input_shape
        return (*features[:3], pixel[3])
