"""What `compile` and `fit` say of a model with a class for each pixel where Keras would be silent or unclear."""

import functools
from collections.abc import Mapping

import keras

from course_lib.losses import check_takes_logits


def checking(model: keras.Model) -> keras.Model:
    """The model, which refuses losses that take probabilities, and a `class_weight`.

    Keras trains logits as if they were probabilities without a word. It turns `class_weight` into one weight per image;
    of a map of classes it can't, and says so in words about scalars. The methods are the instance's, not those of a class
    of its own: saved as `.keras` it stays a model that loads without the course.
    """
    model.compile = _taking_logits(model.compile)
    model.fit, model.train_on_batch = _refusing(model.fit), _refusing(model.train_on_batch)
    return model


def _taking_logits(method):
    @functools.wraps(method)
    def checked(optimizer="rmsprop", loss=None, *args, **kwargs):
        for one in keras.tree.flatten(loss):
            check_takes_logits(one)
        return method(optimizer, loss, *args, **kwargs)

    return checked


def _refusing(method):
    @functools.wraps(method)
    def checked(*args, class_weight=None, **kwargs):
        if class_weight is not None:
            given = class_weight if isinstance(class_weight, Mapping) else {}
            weights = [given[key] for key in range(len(given)) if isinstance(given.get(key), (int, float))]
            words = ", ".join(f"{weight:g}" for weight in weights if len(given) == len(weights) > 1) or "1, 5"
            raise ValueError(
                f"class_weight is {class_weight!r}; it must be None, because each pixel has its own class: give the "
                f"weights to the loss, such as losses.CrossEntropy(class_weights=({words})), "
                "or one per pixel as sample_weight."
            )
        return method(*args, **kwargs)

    return checked
