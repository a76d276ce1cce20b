"""An optimizer that skips the steps that would corrupt the weights, and a mean that skips their losses."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="course_lib")
class FiniteSteps(keras.optimizers.LossScaleOptimizer):
    """Takes a step only if every gradient is finite; otherwise weights and the inner optimizer's state stay as they were.

    Keras's class for half precision does that, and also scales the loss, so that small gradients don't vanish in float16.
    But it halves the scale after every step that it leaves out, without end: 150 of them in a row make it 0, and the next
    good gradient, 0 / 0, puts NaN into every weight. Here the scale is never less than 1.

    Args:
        inner_optimizer: the optimizer that takes the steps.
        initial_scale: of the loss; 1 where nothing is computed in float16.
        dynamic_growth_steps: after so many good steps in a row the scale is doubled.
        **arguments: `name`, as of every optimizer.
    """

    def apply(self, grads, trainable_variables=None):
        super().apply(grads, trainable_variables)
        self.dynamic_scale.assign(ops.maximum(self.dynamic_scale, 1.0))

    def stateless_apply(self, optimizer_variables, grads, trainable_variables):
        trainable_variables, optimizer_variables = super().stateless_apply(
            optimizer_variables, grads, trainable_variables
        )
        state = [
            ops.maximum(value, 1.0) if variable is self.dynamic_scale else value
            for variable, value in zip(self.variables, optimizer_variables, strict=True)
        ]
        return trainable_variables, state


@keras.saving.register_keras_serializable(package="course_lib")
class FiniteMean(keras.metrics.Mean):
    """The mean of the finite values: a skipped step does not make the epoch's loss NaN."""

    def update_state(self, values, sample_weight=None):
        values = ops.convert_to_tensor(values, self.dtype)
        finite = ops.cast(ops.isfinite(values), self.dtype)
        weights = finite if sample_weight is None else finite * ops.cast(sample_weight, self.dtype)
        return super().update_state(ops.where(finite > 0, values, 0.0), weights)


def finite_steps(optimizer, half_precision: bool) -> keras.optimizers.Optimizer:
    """The optimizer, wrapped in a class that skips such steps unless it already is.

    Args:
        optimizer: an optimizer, its name, or its configuration.
        half_precision: whether float16 is computed with, which needs the loss scaled.
    """
    optimizer = keras.optimizers.get(optimizer)
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return optimizer
    if half_precision:
        return FiniteSteps(optimizer)
    # The scale stays at 1: growth would come after more steps than anyone trains.
    return FiniteSteps(optimizer, initial_scale=1.0, dynamic_growth_steps=10**9)
