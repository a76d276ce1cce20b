"""Batch normalization folded into the convolution before it, for prediction.

After training, batch normalization multiplies each channel by a constant and adds another: γ / √(variance + ε), and
β less the moving mean times that. A convolution is linear, so its kernel may be multiplied instead, and one pass over the
feature map is saved (Jacob et al. 2018, https://arxiv.org/abs/1712.05877, section 3.2 and figure C.6). The result is the
same up to rounding.
"""

import keras
from keras import layers, ops


def folded(model: keras.Model) -> keras.Model:
    """A functional network of the model's own layers for prediction, its batch normalization folded where it follows a
    convolution, also in functional models within. The kernels are multiplied at each call: the weights are those of the
    moment."""

    def inner(layer):
        return folded(layer) if _functional(layer) else layer

    def call(layer, *arguments, **named):
        convolution = _convolution_before(layer, *arguments[:1])
        if convolution is None:
            return layer(*arguments, **named)
        history = arguments[0]._keras_history
        inputs = convolution._inbound_nodes[history.node_index].input_tensors
        return Folded(convolution, layer)(*inputs)

    return keras.models.clone_model(model, clone_function=inner, call_function=call)


@keras.saving.register_keras_serializable(package="course_lib")
class Folded(layers.Layer):
    """A convolution and the batch normalization after it, in one; both keep their weights."""

    def __init__(self, convolution: layers.Conv2D, normalization: layers.BatchNormalization):
        super().__init__(dtype=convolution.dtype_policy)
        self.convolution, self.normalization = convolution, normalization
        self.built = True

    def call(self, inputs):
        convolution, norm = self.convolution, self.normalization
        scale = ops.rsqrt(norm.moving_variance + norm.epsilon) * (norm.gamma if norm.scale else 1.0)
        shift = (norm.beta if norm.center else 0.0) - norm.moving_mean * scale
        if convolution.use_bias:
            shift = shift + convolution.bias * scale
        return convolution.convolution_op(inputs, convolution.kernel * scale) + shift

    def compute_output_shape(self, input_shape):
        return self.convolution.compute_output_shape(input_shape)


def _functional(layer) -> bool:
    return isinstance(layer, keras.Model) and hasattr(layer, "operations") and hasattr(layer, "output")


def _convolution_before(layer, inputs=None) -> layers.Conv2D | None:
    """The convolution that a layer can be folded into, if any."""
    if type(layer) is not layers.BatchNormalization or inputs is None or layer.compute_dtype != "float32":
        return None
    before = inputs._keras_history.operation
    plain = type(before) is layers.Conv2D and before.activation is keras.activations.linear
    return before if plain and before.data_format == "channels_last" and layer.axis in (-1, 3) else None
