"""Learning-rate schedules."""

import math
from collections.abc import Sequence

import keras
from keras import ops


@keras.saving.register_keras_serializable("course_lib")
class CosineCycles(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up, a decay to zero along half a cosine, and the same decay from a lower peak for each restart.

    A restart continues a finished training: the rate jumps up, the network leaves the minimum that it had found, and often
    finds a better one (Loshchilov and Hutter 2017, SGDR: Stochastic Gradient Descent with Warm Restarts, equation 5,
    https://arxiv.org/abs/1608.03983).

    Args:
        peak: the highest rate.
        lengths: steps of each cycle, the climb included in the first.
        warmup: steps of the climb, a straight line from a hundredth of the peak.
        again: the peak of each cycle as a fraction of the one before.

    Raises:
        ValueError: if a length is below 1, or the first is not longer than the climb.
    """

    def __init__(self, peak: float, lengths: Sequence[int], warmup: int = 0, again: float = 0.5):
        super().__init__()
        self.peak, self.lengths = float(peak), tuple(int(length) for length in lengths)
        self.warmup, self.again = int(warmup), float(again)
        if not self.lengths or min(self.lengths) < 1 or self.lengths[0] <= self.warmup:
            raise ValueError(
                f"lengths is {lengths!r} with a warmup of {warmup}; it must have at least one cycle, each of at least "
                "one step, the first longer than the warmup."
            )

    def __call__(self, step):
        """The rate of a step, a float32 scalar; 0 after the last cycle."""
        step = ops.cast(step, "float32")
        start, height = float(self.lengths[0]), self.peak * self.again
        climb = self.peak * (0.01 + 0.99 * step / max(1, self.warmup))
        rate = ops.where(
            step < self.warmup, climb, _fall(self.peak, step - self.warmup, self.lengths[0] - self.warmup)
        )
        for length in self.lengths[1:]:
            rate = ops.where(step < start, rate, _fall(height, step - start, length))
            start, height = start + length, height * self.again
        return rate

    def get_config(self) -> dict:
        return {"peak": self.peak, "lengths": self.lengths, "warmup": self.warmup, "again": self.again}


def _fall(height: float, step, length: int):
    """Half a cosine from `height` to 0 within `length` steps, and 0 from there on."""
    done = ops.clip(step / length, 0.0, 1.0)
    return 0.5 * height * (1.0 + ops.cos(math.pi * done))
