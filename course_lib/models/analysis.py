"""Costs and receptive fields of a network, computed from the live model: operations, parameters, memory, receptive fields.

Everything here follows the graph that Keras holds of a functional model, so it is true of the model as it was built.

- `costs`: per layer and in all, how many multiply-adds, parameters and bytes of activations one image takes;
- `receptive_field`: which pixels of the image an output can depend on at all, by impulses;
- `effective_receptive_field`: how much it does depend on each of them, by the gradient.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

FLOAT_BYTES = 4
"""Activations are counted as float32."""


# What it costs


@dataclass(frozen=True)
class Cost:
    """The costs of one layer for one image: the shape of its output (without the batch), operations and memory."""

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
    """The costs of one image, layer by layer in the order in which Keras runs them, and in total.

    `activation_bytes` is the sum of all layers' outputs: what training keeps for the way back, if it keeps everything.
    `peak_bytes` is what has to be there at the same time when the model only predicts: the input and output of the layer
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
        """The layers as plain text, a line each, with a line for the total; with `largest`, only the most expensive
        ones."""
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
    """The costs of one image in a network, counted from its graph; nothing is run.

    Counted are the multiply-adds of convolutions, transposed convolutions and dense layers, a kernel's zeros beyond the
    border included, as is the custom; not the additions of biases, normalization, ReLU, pooling and interpolation,
    which are a few per value. **One multiply-add is two FLOPs.** Papers that say FLOPs and mean multiply-adds have half
    of `flops`.

    Args:
        model: a functional `keras.Model` with one input; models within it are followed.
        input_shape: `(height, width)` or `(height, width, channels)` of the image, needed where the model leaves them
            open.

    Returns:
        A `Costs`; a layer that is used several times costs each time, its parameters the first time only.

    Raises:
        ValueError: if the image's size is open, or a layer has weights that this does not know how to count.
    """
    import keras

    shape = _image_shape(model, input_shape)
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

    image = _Map((1, *shape), "float32")
    results = _follow(model, image, visit)
    return Costs(tuple(layers), _peak_bytes(image, steps, keras.tree.flatten(results)))


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
        # Every weight of the kernel once at each location of the output.
        return int(np.prod(outgoing[1:-1])) * size
    if kind in PER_INPUT:
        # Every weight once at each location of the input.
        return int(np.prod(incoming[1:-1])) * size
    raise ValueError(
        f"model has {operation.name!r}, a {kind}, for which no rule counts the multiplications; measure a part of the "
        "model without it."
    )


def _peak_bytes(image: _Map, steps, results) -> int:
    """The most bytes held at once when each map is let go after its last use."""
    last = {id(image): -1} | {id(value): index for index, (maps, _) in enumerate(steps) for value in maps}
    last |= {id(result): len(steps) for result in results}
    held = {id(image): image.bytes}
    peak = image.bytes
    for index, (_, outputs) in enumerate(steps):
        held |= {id(output): output.bytes for output in outputs}
        peak = max(peak, sum(held.values()))
        held = {key: size for key, size in held.items() if last.get(key, -1) > index}
    return peak


# What it can see


@dataclass(frozen=True)
class ReceptiveField:
    """The part of the image that one location of a feature map depends on, in pixels, for rows and columns.

    Attributes:
        size: height and width of the smallest rectangle that holds it, away from the image's border. Where neighbouring
            locations see differently much, as after upsampling, the largest. `None` for a whole image of any size.
        stride: from the field of one location to that of the next.
        offset: middle of the field of location (0, 0), where 0 is the middle of the image's first pixel: the field of
            location k has its middle at offset + stride · k, after upsampling on average.
    """

    size: tuple[int | None, int | None]
    stride: tuple[float | None, float | None]
    offset: tuple[float | None, float | None]


SIDES = (256, 512, 1024, 2048)
"""Images of about these sides are tried, until an impulse in the middle no longer reaches the border of the map."""

POINTWISE = (
    "Activation",
    "Dropout",
    "ELU",
    "Identity",
    "Noise",
    "Normalization",
    "ReLU",
    "Rescaling",
    "Softmax",
)
"""Parts of the names of layers that look at each location by itself. Normalization by an image's own statistics lets every
pixel reach every other a little; by custom that does not count."""

MERGING = ("Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract")


def receptive_field(model, layer: str | None = None, without: Sequence[str] = ()) -> ReceptiveField:
    """The receptive field of a layer's output, by default of the model's, measured by impulses.

        >>> receptive_field(unet((None, None, 1), base_filters=2)).size
        (204, 204)

    Every layer is replaced by one of a single channel whose weights are all 1, and after each it only counts whether a
    value is zero. In an image that is zero but for one pixel, the values that are not zero are then exactly those that
    depend on this pixel: nothing cancels, and no ReLU or maximum hides anything. With one impulse for each pixel of the
    period in which the network's pattern repeats (the product of its strides) all fields are known.

    Args:
        model: a functional `keras.Model` with one input; models within it are followed.
        layer: name of the layer.
        without: names of layers whose output is taken to be 0, such as `"aspp_pool"`, to ask what the others see.

    Raises:
        ValueError: if there is no such layer, no image passes through, or the output depends on no pixel.
    """
    names = [operation.name for operation in _operations(model)]
    for label, wanted in (("layer", [layer] if layer is not None else []), ("without", without)):
        for name in wanted:
            if name not in names:
                raise ValueError(f"{label} is {name!r}; the model's layers are {', '.join(names)}.")
    network = _Impulses(model, layer, frozenset(without))
    for about in SIDES:
        side = network.fitting(about)
        period, middle = network.period, side // 2
        reached: list[tuple[np.ndarray, np.ndarray]] = []
        for phase in range(period):
            reached.append(network.reached(side, middle + phase))
            if any(axis[0] or axis[-1] for axis in reached[-1]):
                break  # at the border: in a larger image it may reach further
        else:
            break
    else:
        return ReceptiveField((None, None), (None, None), (None, None))
    some = next((phase for phase, one in enumerate(reached) if one[0].any()), None)
    if some is None:
        raise ValueError(
            f"model is {model.name!r}; it must depend on its input, but no pixel reaches {layer or 'the output'}."
        )
    again = network.reached(side, middle + some + period)
    fields = []
    for axis in (0, 1):
        # So many locations later the pattern is the same.
        locations = np.argmax(again[axis]) - np.argmax(reached[some][axis])
        low, high = np.full(locations, np.inf), np.full(locations, -np.inf)
        for phase, one in enumerate(reached):
            at = np.flatnonzero(one[axis])
            pixel = middle + phase - at // locations * period
            np.minimum.at(low, at % locations, pixel)
            np.maximum.at(high, at % locations, pixel)
        stride = period / locations
        seen = np.flatnonzero(low <= high)  # a transposed convolution can leave gaps
        low, high = low[seen], high[seen]
        offset = np.mean((low + high) / 2 - stride * seen)
        fields.append((int((high - low).max()) + 1, float(stride), float(offset)))
    return ReceptiveField(*zip(*fields, strict=True))


@dataclass(frozen=True, eq=False)
class _Trace:
    """Zeros and ones at a place in the graph, and the period in which the pattern so far repeats."""

    values: Any
    period: int


class _Impulses:
    """A model of which it only counts what reaches what: one channel, weights of 1."""

    def __init__(self, model, layer: str | None, without: frozenset[str]):
        self.model, self.layer, self.without = model, layer, without
        self.layers: dict = {}
        self.period = 1

    def run(self, image):
        """From an image `(1, side, side, 1)` of zeros and ones, or the shape of one, to the layer's map."""
        import keras
        from keras import ops

        seen = []

        def visit(operation, *arguments, **more):
            given = [value for value in keras.tree.flatten((arguments, more)) if isinstance(value, _Trace)]
            if operation not in self.layers:
                self.layers[operation] = _single_channel(operation)
            more = {name: value for name, value in more.items() if name not in ("mask", "training")}
            arguments, more = keras.tree.map_structure(
                lambda value: value.values if isinstance(value, _Trace) else value, (arguments, more)
            )
            # The threshold is far below the least weight of an interpolation, and above the rounding of its zeros.
            result = ops.cast(ops.abs(self.layers[operation](*arguments, **more)) > 1e-6, "float32")
            if operation.name in self.without:
                result = ops.zeros_like(result)
            result = _Trace(result, math.lcm(*(value.period for value in given)) * _step(operation))
            if operation.name == self.layer:
                seen.append(result)
            return result

        result = keras.tree.flatten(_follow(self.model, _Trace(image, 1), visit))[0]
        return seen[-1] if seen else result

    def fitting(self, side: int) -> int:
        """The smallest side from this one on that passes through the model, which also says the period."""
        import keras

        own = self.model.input_shape[1]
        last: Exception | None = None
        for extra in range(128) if own is None else [(own - side) % 128]:
            try:
                self.period = self.run(keras.KerasTensor((1, side + extra, side + extra, 1))).period
            except ValueError as error:
                last = error
            else:
                return side + extra
        raise ValueError(
            f"model is {self.model.name!r}; a square image must pass through it layer by layer, but: {last}"
        ) from last

    def reached(self, side: int, place: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows and the columns of the map that depend on the pixel (place, place)."""
        import keras

        image = np.zeros((1, side, side, 1), np.float32)
        image[0, place, place] = 1
        values = keras.ops.convert_to_numpy(self.run(keras.ops.convert_to_tensor(image)).values)[0] > 0
        if values.ndim != 3:  # flattened or pooled to a vector: no location is left
            values = np.full((1, 1, 1), values.any())
        return values.any(axis=(1, 2)), values.any(axis=(0, 2))


def _single_channel(operation):
    """The replacement for a layer."""
    import keras

    kind = type(operation).__name__
    if not isinstance(operation, keras.layers.Layer):
        return operation
    if any(word in kind for word in POINTWISE):
        return keras.layers.Identity()
    if kind in MERGING:
        if getattr(operation, "axis", -1) not in (-1, 3):
            raise ValueError(
                f"{operation.name!r} concatenates along axis {operation.axis}, not the channels (-1)."
            )
        return keras.layers.Add()
    new = {"use_bias": False, "activation": "linear", "dtype": "float32"}
    new |= dict.fromkeys(("filters", "units", "groups", "depth_multiplier"), 1)
    config = {name: new.get(name, value) for name, value in operation.get_config().items()}
    for name in config:
        if name.endswith("_initializer"):
            config[name] = "ones"
        elif name.endswith(("_regularizer", "_constraint")):
            config[name] = None
    if kind.endswith("AveragePooling2D"):  # the mean over a large map would be too small a number
        return getattr(keras.layers, kind.replace("Average", "Max"))(**config)
    return type(operation).from_config(config)


def _step(operation) -> int:
    """The stride of a layer that makes maps smaller."""
    strides = getattr(operation, "strides", None) or 1
    if "Transpose" in type(operation).__name__:
        return 1
    return math.lcm(*strides) if isinstance(strides, (tuple, list)) else strides


# What it does see


def effective_receptive_field(
    model, images: np.ndarray, layer: str | None = None, location: tuple[int, int] | None = None
) -> np.ndarray:
    """How much one location of a layer's map depends on each pixel of the image: the mean size of the gradient.

    Luo et al. (2016), https://arxiv.org/abs/1701.04128, section 3: of all that an output can see, it depends chiefly on
    the middle. Keras has no gradient that works on every backend, but training has: an image of zeros is added to the
    input as weights, and the loss is the output in question. After one step of gradient descent at a learning rate of 1
    these weights are the gradient with its sign turned. The model itself is not changed.

    Args:
        model: a functional `keras.Model` with one input.
        images: float32 `(count, height, width, channels)`, at which the gradient is taken.
        layer: name of the layer; by default the model's output.
        location: row and column in the layer's map; by default the middle.

    Returns:
        float32 `(height, width)`: for each pixel |∂ output / ∂ input|, summed over the image's channels, mean over the
        images; the output is the sum over the map's channels.

    Raises:
        ValueError: if an argument does not fit the model.
    """
    import keras
    from keras import ops

    if layer is not None:
        names = [operation.name for operation in model.operations]
        if layer not in names:
            raise ValueError(f"layer is {layer!r}; the model's layers are {', '.join(names)}.")
        model = keras.Model(model.inputs, model.get_layer(layer).output)
    images = np.asarray(images, np.float32)
    channels = model.inputs[0].shape[-1]
    if images.ndim != 4 or images.shape[-1] != channels:
        raise ValueError(f"images has shape {images.shape}; it must be (count, height, width, {channels}).")
    rows, columns = model.compute_output_shape((1, *images.shape[1:]))[1:3]
    row, column = (rows // 2, columns // 2) if location is None else location
    if not (0 <= row < rows and 0 <= column < columns):
        raise ValueError(
            f"location is {location}; it must lie in the feature map of {rows} rows and {columns} columns."
        )

    def output(
        shifted,
    ):  # a function, not a layer: Keras would train the weights of a layer that it finds here
        return ops.sum(ops.cast(model(shifted, training=False)[:, row, column], "float32"), axis=-1)

    class Probe(keras.Model):
        def __init__(self):
            super().__init__(dtype="float32")
            self.change = self.add_weight(shape=images.shape, initializer="zeros", name="change")

        def call(self, inputs):
            return output(self.change + images)

    probe = Probe()
    # One step is not worth compiling, except to JAX, which would compile every operation by itself instead.
    compiled = keras.backend.backend() == "jax"
    probe.compile(
        keras.optimizers.SGD(1.0),
        loss=lambda _, outputs: ops.sum(outputs),
        run_eagerly=not compiled,
        jit_compile=compiled,
        auto_scale_loss=False,
    )
    nothing = np.zeros(len(images), np.float32)
    probe.train_on_batch(nothing, nothing)
    return np.abs(ops.convert_to_numpy(probe.change)).sum(axis=-1).mean(axis=0)


# Through the graph


def _follow(model, value, visit: Callable):
    """Runs `visit(operation, *inputs)` instead of each layer, in the order of the graph, from one value for the
    image.

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
            "model must be a functional or sequential keras.Model; a model class of your own has no graph."
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


def _image_shape(model, input_shape: Sequence[int] | None) -> tuple[int, ...]:
    """Height, width and channels of the image."""
    inputs = _functional(model).inputs
    if len(inputs) != 1:
        raise ValueError(f"model is {model.name!r} with {len(inputs)} inputs; it must have exactly one.")
    own = tuple(inputs[0].shape[1:])
    shape = own if input_shape is None else tuple(input_shape)
    if len(shape) == len(own) - 1:
        shape = (*shape, own[-1])
    if len(shape) != len(own) or any(b is not None and a != b for a, b in zip(shape, own, strict=True)):
        raise ValueError(f"input_shape is {shape}; {model.name!r} takes {own}.")
    if None in shape:
        raise ValueError(
            f"input_shape is missing; {model.name!r} takes images of any size: give one, such as (224, 224)."
        )
    return shape
