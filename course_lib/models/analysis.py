"""What a network costs and what it sees, read off the live model: work, weights, memory, receptive fields.

Everything here follows the graph that Keras holds of a functional model, so it is true of the model as it was built.
Three questions, from cheap to dear:

- `costs`: per layer and in all, how many multiplications, parameters and bytes of activations one picture takes;
- `receptive_field`: which square of the picture an output can depend on at all, by its kernels and strides;
- `effective_receptive_field`: how much it does depend on each pixel of that square, by the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

FLOAT_BYTES = 4
"""Activations are counted as float32."""


# What it costs


@dataclass(frozen=True)
class Cost:
    """One layer at work on one picture: its output's shape (without the batch) and what that takes."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    activation_bytes: int

    @property
    def flops(self) -> int:
        """Floating-point operations: two for each multiply-add."""
        return 2 * self.multiply_adds


@dataclass(frozen=True)
class Costs:
    """What one picture takes, layer by layer in the order in which Keras runs them, and in all.

    `activation_bytes` is the sum of all layers' outputs: what training keeps for the way back, if it keeps everything.
    `peak_bytes` is what has to be there at the same time when the net only predicts: the input and output of the layer
    at work, and whatever waits for a later layer, as a skip does. Neither counts weights, gradients, or a convolution's
    scratch memory.
    """

    layers: tuple[Cost, ...]
    peak_bytes: int

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def flops(self) -> int:
        """Floating-point operations: two for each multiply-add."""
        return 2 * self.multiply_adds

    @property
    def activation_bytes(self) -> int:
        return sum(layer.activation_bytes for layer in self.layers)

    def table(self, largest: int | None = None) -> str:
        """The layers as plain text, a line each, with a line for all; with `largest`, only so many that work most."""
        shown = [layer for layer in self.layers if layer.parameters or layer.multiply_adds]
        if largest is not None:
            most = sorted(shown, key=lambda layer: -layer.multiply_adds)[:largest]
            shown = [layer for layer in shown if layer in most]
        rows = [("layer", "output", "parameters", "million multiply-adds", "activations in MB")]
        for layer in shown:
            output = " × ".join(map(str, layer.shape))
            rows.append((layer.name, output, *_numbers(layer)))
        rows.append(("all layers", "", *_numbers(self)))
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        lines = [
            "  ".join([f"{row[0]:<{widths[0]}}", *(f"{cell:>{w}}" for cell, w in zip(row[1:], widths[1:], strict=True))])
            for row in rows
        ]  # fmt: skip
        return "\n".join(lines)


def _numbers(cost: Cost | Costs) -> tuple[str, str, str]:
    return f"{cost.parameters:,}", f"{cost.multiply_adds / 1e6:,.2f}", f"{cost.activation_bytes / 1e6:,.2f}"


def costs(model, input_shape: Sequence[int] | None = None) -> Costs:
    """What one picture costs a network, counted from its graph; nothing is run.

    Counted are the multiply-adds of convolutions, transposed convolutions and dense layers, a kernel's zeros beyond the
    border included, as is the custom; not the additions of biases, normalization, ReLU, pooling and interpolation,
    which are a few per value. **One multiply-add is two FLOPs.** Papers that say FLOPs and mean multiply-adds have half
    of `flops`.

    Args:
        model: a functional `keras.Model` with one input; models within it are followed.
        input_shape: `(height, width)` or `(height, width, channels)` of the picture, needed where the model leaves them
            open.

    Returns:
        A `Costs`; a layer that is used several times costs each time, its parameters the first time only.

    Raises:
        ValueError: if the picture's size is open, or a layer has weights that this does not know how to count.
    """
    import keras

    shape = _picture_shape(model, input_shape)
    layers, steps, seen = [], [], set()

    def visit(operation, *arguments, **more):
        maps = [value for value in keras.tree.flatten((arguments, more)) if isinstance(value, _Map)]

        def plain(value):
            return keras.KerasTensor(value.shape, value.dtype) if isinstance(value, _Map) else value

        arguments, more = keras.tree.map_structure(plain, (arguments, more))
        result = operation.compute_output_spec(*arguments, **more)
        result = keras.tree.map_structure(lambda tensor: _Map(tuple(tensor.shape), tensor.dtype), result)
        outputs = keras.tree.flatten(result)
        parameters = 0 if operation in seen else _parameters(operation)
        seen.add(operation)
        layers.append(
            Cost(
                name=operation.name,
                kind=type(operation).__name__,
                shape=outputs[0].shape[1:],
                parameters=parameters,
                multiply_adds=_multiply_adds(operation, maps[0].shape, outputs[0].shape),
                activation_bytes=sum(output.bytes for output in outputs),
            )
        )
        steps.append((maps, outputs))
        return result

    picture = _Map((1, *shape), "float32")
    results = _follow(model, picture, visit)
    return Costs(tuple(layers), _peak_bytes(picture, steps, keras.tree.flatten(results)))


@dataclass(frozen=True, eq=False)
class _Map:
    """A tensor that is never computed: only its shape. Two of them are the same only if they are one."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        return FLOAT_BYTES * int(np.prod(self.shape))


def _parameters(operation) -> int:
    return sum(int(np.prod(weight.shape)) for weight in getattr(operation, "weights", ()))


PER_OUTPUT = (
    "Conv1D", "Conv2D", "Conv3D", "DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D", "Dense"
)  # fmt: skip
PER_INPUT = ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
MULTIPLYING = (
    "Matmul",
    "Dot",
    "Tensordot",
    "Einsum",
    "Conv",
    "ConvTranspose",
    "DepthwiseConv",
    "SeparableConv",
)
"""Functions of `keras.ops` that multiply, and that a graph may hold beside its layers."""


def _multiply_adds(operation, incoming: tuple[int, ...], outgoing: tuple[int, ...]) -> int:
    """Multiply-adds of a layer that makes a map of shape `outgoing` from one of shape `incoming`."""
    kind = type(operation).__name__
    kernels = [weight for weight in getattr(operation, "weights", ()) if len(weight.shape) > 1]
    if not kernels and kind not in MULTIPLYING:
        return 0  # at most a scale and a shift per channel
    size = sum(int(np.prod(kernel.shape)) for kernel in kernels)
    if kind in PER_OUTPUT:
        # Every weight of the kernel once at each place of the output.
        return int(np.prod(outgoing[1:-1])) * size
    if kind in PER_INPUT:
        # Every weight once at each place of the input.
        return int(np.prod(incoming[1:-1])) * size
    raise ValueError(
        f"model: no rule to count the multiplications of {operation.name!r}, a {kind}; measure a part of the model "
        "without it."
    )


def _peak_bytes(picture: _Map, steps, results) -> int:
    """The most bytes held at once when each map is let go after its last use."""
    last = {id(picture): -1} | {id(value): index for index, (maps, _) in enumerate(steps) for value in maps}
    last |= {id(result): len(steps) for result in results}
    held = {id(picture): picture.bytes}
    peak = picture.bytes
    for index, (_, outputs) in enumerate(steps):
        held |= {id(output): output.bytes for output in outputs}
        peak = max(peak, sum(held.values()))
        held = {key: size for key, size in held.items() if last.get(key, -1) > index}
    return peak


# What it can see


@dataclass(frozen=True)
class ReceptiveField:
    """What the pixels of a layer's map see of the picture, in pixels of the picture, for rows and columns.

    Attributes:
        name: of the layer.
        size: sides of the smallest rectangle that holds all that a pixel can depend on; of the pixels away from the
            border, the one that sees most. `None`: the whole picture, whatever its size.
        stride: from one pixel's field to the next one's.
        offset: middle of the field of pixel (0, 0), were the picture without end, 0 being the middle of the picture's
            first
            pixel: the field of pixel k has its middle at offset + stride · k. Where neighbours see differently (after
            upsampling) it is so on average. `None` for the whole picture.
    """

    name: str
    size: tuple[int | None, int | None]
    stride: tuple[float, float]
    offset: tuple[float | None, float | None]


def receptive_field(model, layer: str | None = None, without: Sequence[str] = ()) -> ReceptiveField:
    """The theoretical receptive field of a layer's output, by default of the model's.

        >>> receptive_field(unet((572, 572, 1), padding="valid")).size
        (204, 204)

    Args:
        model, without: as for `receptive_fields`.
        layer: name of the layer; `None` is the last, which gives the model's output.

    Raises:
        ValueError: as `receptive_fields`, or if there is no such layer.
    """
    fields = receptive_fields(model, without)
    if layer is None:
        return list(fields.values())[-1]
    if layer not in fields:
        raise ValueError(f"layer is {layer!r}; the model's layers are {', '.join(fields)}.")
    return fields[layer]


def receptive_fields(model, without: Sequence[str] = ()) -> dict[str, ReceptiveField]:
    """The theoretical receptive field of every layer of a model.

    Along each axis, the first and the last pixel of the picture that each pixel of a map can see are followed through
    the graph: a kernel sees from the first of its first to the last of its last pixel, a sum or a concatenation what
    any of its inputs does. The picture is made so long that some pixels see no border. Normalization by the picture's
    own statistics lets every pixel reach every other a little, and is left out, as is the custom.

    Args:
        model: a functional `keras.Model` with one input; models within it are followed.
        without: names of layers that are taken to see nothing, such as `"aspp_pool"`, to ask what the rest sees.

    Returns:
        By the layer's name, in the order in which Keras runs them; of a layer used several times, the last time.

    Raises:
        ValueError: if the model has a layer without a rule in `RULES`, or no size of picture passes through.
    """
    names = {operation.name for operation in _operations(model)}
    if missing := set(without) - names:
        raise ValueError(f"without: the model has no layer {', '.join(map(repr, sorted(missing)))}.")
    rows, columns = (_fields_along(model, axis, tuple(without)) for axis in (0, 1))
    return {
        name: ReceptiveField(name, *((rows[name][part], columns[name][part]) for part in range(3)))
        for name in rows
    }


LONGEST = 2**16
"""Longest picture that is tried, in pixels."""


def _fields_along(model, axis: int, without: tuple[str, ...]) -> dict[str, tuple]:
    """Size, stride and offset by the layer's name, along one axis."""
    side = model.input_shape[1 + axis]
    # Strides are powers of two: with the same remainder, what fits once fits at every length.
    remainders = range(256) if side is None else [side % 256]
    length, remainder = 512, None
    while length <= LONGEST:
        for extra in remainders if remainder is None else [remainder]:
            try:
                sights = _sights(model, axis, length + extra, without)
            except _Misfit:
                continue
            remainder = extra
            fields = {name: sight.field() for name, sight in sights.items()}
            if all(field is not None for field in fields.values()):
                return fields
            break
        length *= 2
    raise ValueError(
        f"model: in pictures of up to {LONGEST:,} pixels, either none passes through {model.name!r} or no pixel of a layer "
        "sees no border; measure a part of the model."
    )


class _Misfit(Exception):
    """A picture of this length does not pass through."""


@dataclass(frozen=True, eq=False)
class _Sight:
    """Along one axis of a map: the first and the last pixel of the picture that each of its pixels can see.

    Attributes:
        low, high: int64 `(pixels,)`; `low > high` where nothing is seen.
        cut: bool `(pixels,)`, whether something beyond the border would be seen, were there anything.
        stride: pixels of the picture from one to the next.
        coarsest: the largest stride on the way here; the pattern of what is seen repeats with it.
        whole: whether all see the whole picture.
    """

    low: np.ndarray
    high: np.ndarray
    cut: np.ndarray
    stride: Fraction
    coarsest: Fraction
    whole: bool = False

    def __len__(self) -> int:
        return len(self.low)

    def through(self, taps: np.ndarray, rate: Fraction | int = 1) -> _Sight:
        """The sight of a layer whose pixel p takes the pixels `taps[p]`; `rate` times the stride.

        Args:
            taps: int `(pixels, taps)`; below 0 and from `len(self)` on is beyond the border, `ABSENT` is no tap at all.
        """
        if len(taps) < 1:
            raise _Misfit
        stride = self.stride * rate
        if self.whole:
            return _whole(self, len(taps), stride)
        inside = (taps >= 0) & (taps < len(self))
        places = np.where(inside, taps, 0)
        return _Sight(
            np.where(inside, self.low[places], NOWHERE).min(1),
            np.where(inside, self.high[places], -NOWHERE).max(1),
            ((taps != ABSENT) & ~inside).any(1) | (inside & self.cut[places]).any(1),
            stride,
            max(self.coarsest, stride),
        )

    def field(self) -> tuple[int | None, float, float | None] | None:
        """Size, stride and offset, from whole periods of pixels that see no border; `None` if there are too few."""
        if self.whole:
            return None, float(self.stride), None
        period = int(self.coarsest / self.stride)
        free = np.flatnonzero(~self.cut)
        if len(free) < period:
            return None
        free = free[(len(free) - period) // 2 :][:period]
        if free[-1] - free[0] != period - 1:
            return None
        low, high = self.low[free], self.high[free]
        if (low > high).any():
            return 0, float(self.stride), 0.0
        offset = np.mean((low + high) / 2 - free * float(self.stride))
        return int((high - low).max()) + 1, float(self.stride), float(offset)


ABSENT = -(2**40)
NOWHERE = 2**40


def _sights(model, axis: int, length: int, without: tuple[str, ...] = ()) -> dict[str, _Sight]:
    """The sight of each layer for a picture of `length` pixels along an axis (0: rows, 1: columns)."""
    import keras

    sights = {}

    def visit(operation, *arguments, **more):
        kind = type(operation).__name__
        if kind not in RULES:
            raise ValueError(
                f"model: no rule for what {operation.name!r}, a {kind}, sees; add one to course_lib.models.analysis.RULES."
            )
        inputs = [value for value in keras.tree.flatten((arguments, more)) if isinstance(value, _Sight)]
        sight = RULES[kind](operation, axis, *inputs)
        if operation.name in without:
            nothing = np.full(len(sight), NOWHERE)
            sight = _Sight(nothing, -nothing, np.zeros(len(sight), bool), sight.stride, sight.coarsest)
        sights[operation.name] = sight
        return sight

    here = np.arange(length)
    _follow(model, _Sight(here, here, np.zeros(length, bool), Fraction(1), Fraction(1)), visit)
    return sights


# How each kind of layer sees: a function of the layer, the axis, and the sight of each of its inputs.


def _elementwise(layer, axis, *inputs: _Sight) -> _Sight:
    """A sum, a product or a concatenation: what any of the inputs sees at the same place."""
    longest = max(inputs, key=len)
    inputs = [
        _whole(value, len(longest), longest.stride) if value.whole and len(value) == 1 else value
        for value in inputs
    ]
    if any(len(value) != len(longest) for value in inputs):
        raise _Misfit
    if any(value.whole for value in inputs):
        return _whole(longest, len(longest), longest.stride)
    return _Sight(
        np.min([value.low for value in inputs], axis=0),
        np.max([value.high for value in inputs], axis=0),
        np.any([value.cut for value in inputs], axis=0),
        longest.stride,
        max(value.coarsest for value in inputs),
    )


def _concatenation(layer, axis, *inputs: _Sight) -> _Sight:
    if layer.axis not in (-1, 3):
        raise ValueError(
            f"model: {layer.name!r} concatenates along axis {layer.axis}; only channels (-1) can be followed."
        )
    return _elementwise(layer, axis, *inputs)


def _window(length: int, size: int, stride: int, dilation: int, padding: str) -> np.ndarray:
    """The taps of a convolution or pooling."""
    reach = (size - 1) * dilation + 1
    if padding == "same":
        count = -(-length // stride)
        before = max((count - 1) * stride + reach - length, 0) // 2
    else:
        count, before = (length - reach) // stride + 1, 0
    return (np.arange(count) * stride - before)[:, None] + np.arange(size) * dilation


def _convolution(layer, axis, sight: _Sight) -> _Sight:
    stride = layer.strides if isinstance(layer.strides, int) else layer.strides[axis]
    dilation = layer.dilation_rate if isinstance(layer.dilation_rate, int) else layer.dilation_rate[axis]
    return sight.through(
        _window(len(sight), layer.kernel_size[axis], stride, dilation, layer.padding), stride
    )


def _pooling(layer, axis, sight: _Sight) -> _Sight:
    stride = layer.strides[axis]
    return sight.through(_window(len(sight), layer.pool_size[axis], stride, 1, layer.padding), stride)


def _transposed(layer, axis, sight: _Sight) -> _Sight:
    size, stride = layer.kernel_size[axis], layer.strides[axis]
    if layer.output_padding is not None or layer.dilation_rate[axis] != 1:
        raise ValueError(f"model: {layer.name!r} has an output_padding or a dilation, which is not followed.")
    if layer.padding == "same":
        count, before = len(sight) * stride, max(size - stride, 0) // 2
    else:
        count, before = (len(sight) - 1) * stride + max(size, stride), 0
    # Pixel p of the input reaches the pixels stride · p … stride · p + size − 1 of the output.
    first = (np.arange(count) + before)[:, None] - np.arange(size)
    return sight.through(np.where(first % stride == 0, first // stride, ABSENT), Fraction(1, stride))


def _upsampling(layer, axis, sight: _Sight) -> _Sight:
    factor = layer.size[axis]
    places = np.arange(len(sight) * factor)
    if layer.interpolation == "nearest":
        taps = (places // factor)[:, None]
    elif layer.interpolation == "bilinear":
        # Twice the place, to stay with whole numbers: 2 · factor · place = 2p + 1 − factor.
        doubled = 2 * places + 1 - factor
        below = doubled // (2 * factor)
        taps = np.stack([below, np.where(doubled % (2 * factor) == 0, ABSENT, below + 1)], axis=1)
    else:
        raise ValueError(
            f"model: {layer.name!r} interpolates {layer.interpolation!r}; only nearest and bilinear can be followed."
        )
    return sight.through(taps, Fraction(1, factor))


def _interpolate(layer, axis, coarse: _Sight, fine: _Sight) -> _Sight:
    places = np.arange(len(fine))
    below = places // layer.factor
    if below[-1] >= len(coarse):
        raise _Misfit
    return coarse.through(
        np.stack([below, np.where(places % layer.factor == 0, ABSENT, below + 1)], axis=1),
        Fraction(1, layer.factor),
    )


def _enlarge(layer, axis, coarse: _Sight, fine: _Sight) -> _Sight:
    return coarse.through((np.arange(len(fine)) // 2)[:, None], Fraction(1, 2))


def _shift(before: int, count: int, sight: _Sight) -> _Sight:
    """The pixels from `before` on, of which those beyond the border are padding."""
    return sight.through((np.arange(max(count, 0)) + before)[:, None])


def _padding(layer, axis, sight: _Sight) -> _Sight:
    before, after = layer.padding[axis]
    return _shift(-before, len(sight) + before + after, sight)


def _edge_padding(layer, axis, sight: _Sight) -> _Sight:
    return _shift(-1, len(sight) + 2, sight)


def _cropping(layer, axis, sight: _Sight) -> _Sight:
    before, after = layer.cropping[axis]
    return _shift(before, len(sight) - before - after, sight)


def _crop_to(layer, axis, sight: _Sight, other: _Sight) -> _Sight:
    if len(sight) < layer.offset + len(other):
        raise _Misfit
    return _shift(layer.offset, len(other), sight)


def _global(layer, axis, sight: _Sight) -> _Sight:
    return _whole(sight, 1, sight.stride)


def _spread_over(layer, axis, pixel: _Sight, features: _Sight) -> _Sight:
    return _whole(pixel, len(features), features.stride)


def _whole(sight: _Sight, count: int, stride: Fraction) -> _Sight:
    """`count` pixels that all see everything that the pixels of `sight` see together."""
    return _Sight(
        np.full(count, sight.low.min()),
        np.full(count, sight.high.max()),
        np.ones(count, bool),
        stride,
        stride,
        whole=True,
    )


RULES: dict[str, Callable[..., _Sight]] = {
    "Conv2D": _convolution,
    "DepthwiseConv2D": _convolution,
    "SeparableConv2D": _convolution,
    "Conv2DTranspose": _transposed,
    "MaxPooling2D": _pooling,
    "AveragePooling2D": _pooling,
    "UpSampling2D": _upsampling,
    "ZeroPadding2D": _padding,
    "Cropping2D": _cropping,
    "Concatenate": _concatenation,
    "GlobalAveragePooling2D": _global,
    "GlobalMaxPooling2D": _global,
    "Flatten": _global,
    "EdgePadding": _edge_padding,
    "CropTo": _crop_to,
    "Interpolate": _interpolate,
    "SpreadOver": _spread_over,
    "Enlarge": _enlarge,
} | dict.fromkeys(
    (
        "Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax", "Dropout", "SpatialDropout2D", "BatchNormalization",
        "GroupNormalization", "LayerNormalization", "FrozenBatchNormalization", "Identity", "Rescaling", "Normalization",
        "Dense", "Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum",
    ),
    _elementwise,
)  # fmt: skip
"""By the name of a layer's class, how it sees: what it gives from the layer, the axis (0: rows, 1: columns) and the
sights of its inputs."""


# What it does see


def effective_receptive_field(
    model,
    inputs: np.ndarray | None = None,
    layer: str | None = None,
    position: tuple[int, int] | None = None,
    channel: int | None = None,
    input_shape: Sequence[int] | None = None,
    count: int = 16,
    seed: int = 0,
) -> np.ndarray:
    """How much one pixel of a layer's map depends on each pixel of the picture: the mean size of the gradient.

    Luo et al. (2016), https://arxiv.org/abs/1701.04128, section 3: of all that an output can see, it depends chiefly on
    the middle. The gradient is exact: a picture that is zero is added to the input as weights, and the loss is the
    output in question; after one step of gradient descent at a learning rate of 1, these weights are the gradient with
    its sign turned. The model itself is not changed; dropout is off, and normalization uses what it has learned.

    Args:
        model: a functional `keras.Model` with one input.
        inputs: float32 `(count, height, width, channels)`; by default noise, uniform in 0..1.
        layer: name of the layer; `None` is the model's output.
        position: row and column in the layer's map; by default the middle.
        channel: which output; by default one after the other, one for each picture.
        input_shape: `(height, width)` or `(height, width, channels)` of the noise, needed where the model leaves them
            open.
        count: number of pictures of noise.
        seed: of the noise.

    Returns:
        float32 `(height, width)`: for each pixel |∂ output / ∂ input|, summed over the picture's channels, mean over
        the pictures.

    Raises:
        ValueError: if an argument does not fit the model, or every gradient is 0 (an untrained FCN's scores are).
    """
    import keras

    if layer is not None:
        names = [operation.name for operation in model.operations]
        if layer not in names:
            raise ValueError(f"layer is {layer!r}; the model's layers are {', '.join(names)}.")
        model = keras.Model(model.inputs, model.get_layer(layer).output)
    if inputs is None:
        if count < 1:
            raise ValueError(f"count is {count}; it must be at least 1.")
        shape = _picture_shape(model, input_shape)
        inputs = np.random.default_rng(seed).random((count, *shape), np.float32)
    inputs = np.asarray(inputs, np.float32)
    if inputs.ndim != 4 or not len(inputs) or inputs.shape[-1] != model.inputs[0].shape[-1]:
        raise ValueError(
            f"inputs has shape {inputs.shape}; it must be (count, height, width, {model.inputs[0].shape[-1]})."
        )
    _, rows, columns, channels = model.compute_output_shape((1, *inputs.shape[1:]))
    row, column = (rows // 2, columns // 2) if position is None else position
    if not (0 <= row < rows and 0 <= column < columns):
        raise ValueError(f"position is {position}; the map has {rows} rows and {columns} columns.")
    if channel is not None and not 0 <= channel < channels:
        raise ValueError(f"channel is {channel}; the map has {channels} channels.")
    wanted = np.arange(len(inputs)) % channels if channel is None else np.full(len(inputs), channel)

    # A function, not a layer: Keras would train the weights of a layer that it finds here.
    def output(pictures):
        return model(pictures, training=False)[:, row, column]

    probe = _probe(output, inputs)
    probe.train_on_batch(np.eye(channels, dtype=np.float32)[wanted], np.zeros(len(inputs), np.float32))
    gradient = -keras.ops.convert_to_numpy(probe.change)
    field = np.abs(gradient).sum(axis=-1).mean(axis=0)
    if not field.any():
        raise ValueError(
            "model: every gradient is 0, so the output depends on no pixel of these pictures; train it first, or, for "
            "an FCN, build it with score_initializer='he_normal'."
        )
    return field


def _probe(output: Callable, pictures: np.ndarray):
    """A model whose only weights are added to `pictures`, ready for one step down the gradient of chosen outputs."""
    import keras
    from keras import ops

    class Probe(keras.Model):
        def __init__(self):
            super().__init__(dtype="float32")
            self.change = self.add_weight(shape=pictures.shape, initializer="zeros", name="change")

        def call(self, choice):
            return ops.sum(ops.cast(output(self.change + pictures), "float32") * choice, axis=-1)

    probe = Probe()
    # One step is not worth compiling, except to JAX, which would compile every operation by itself instead.
    compiled = keras.backend.backend() == "jax"
    probe.compile(
        keras.optimizers.SGD(1.0),
        loss=lambda _, chosen: ops.sum(chosen),
        run_eagerly=not compiled,
        jit_compile=compiled,
        auto_scale_loss=False,
    )
    return probe


def side_holding(field: np.ndarray, share: float = 0.95) -> int:
    """The side of the smallest square around a field's middle that holds a share of it: one number to compare nets by.

    Args:
        field: `(height, width)`, not negative, as of `effective_receptive_field`.
        share: in 0..1.

    Returns:
        The odd side in pixels; the middle is the pixel nearest to the centre of mass. Beyond the picture's border there
        is nothing.

    Raises:
        ValueError: if `field` is nowhere above 0 or somewhere below, or `share` does not lie in 0..1.
    """
    field = np.asarray(field, np.float64)
    if field.ndim != 2 or (field < 0).any() or not field.any():
        raise ValueError(
            f"field, of shape {field.shape}, must be (height, width), nowhere below 0 and somewhere above."
        )
    if not 0 < share <= 1:
        raise ValueError(f"share is {share!r}; it must lie in 0 < share ≤ 1.")
    rows, columns = np.indices(field.shape)
    total = field.sum()
    row, column = round((rows * field).sum() / total), round((columns * field).sum() / total)
    # Chessboard distance: the ring that a pixel adds to the square.
    ring = np.maximum(np.abs(rows - row), np.abs(columns - column))
    held = np.cumsum(np.bincount(ring.ravel(), weights=field.ravel()))
    # Against rounding: all of it is held when the rest is less than what double precision can tell.
    return 2 * int(np.argmax(held >= share * total * (1 - 1e-12))) + 1


# Through the graph


def _follow(model, value, visit: Callable):
    """Runs `visit(operation, *inputs)` instead of each layer, in the order of the graph, from one value for the
    picture.

    What `visit` returns goes on to the layers that come after. Models within the model are followed likewise.
    """
    import keras

    def step(operation):
        def run(*arguments, **more):
            if isinstance(operation, keras.Model):
                return _follow(operation, arguments[0], visit)
            return visit(operation, *arguments, **more)

        return run

    # Keras has no public function for this; `model.call` is the same with the layers themselves.
    return _functional(model)._run_through_graph(value, operation_fn=step)


def _functional(model):
    """The model as a graph from one or more inputs."""
    import keras

    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise ValueError(
            "model must be a functional or sequential keras.Model; a model class of one's own has no graph."
        )
    if hasattr(model, "_run_through_graph"):
        return model
    return keras.Model(model.inputs, model.outputs, name=model.name)


def _operations(model) -> list:
    """All layers of a model, those of models within it included."""
    import keras

    found = []
    for operation in _functional(model).operations:
        found += _operations(operation) if isinstance(operation, keras.Model) else [operation]
    return found


def _picture_shape(model, input_shape: Sequence[int] | None) -> tuple[int, ...]:
    """Height, width and channels of the picture."""
    inputs = _functional(model).inputs
    if len(inputs) != 1:
        raise ValueError(
            f"model: {model.name!r} has {len(inputs)} inputs; only models with one can be measured."
        )
    own = tuple(inputs[0].shape[1:])
    shape = own if input_shape is None else tuple(input_shape)
    if len(shape) == len(own) - 1:
        shape = (*shape, own[-1])
    if len(shape) != len(own) or any(b is not None and a != b for a, b in zip(shape, own, strict=True)):
        raise ValueError(f"input_shape is {shape}; {model.name!r} takes {own}.")
    if None in shape:
        raise ValueError(
            f"input_shape: {model.name!r} takes pictures of any size; give one, such as (224, 224)."
        )
    return shape
