"""An error for `fit(class_weight=…)` with a model that predicts a class for each pixel."""

import functools

import keras


def refuse_class_weight(model: keras.Model) -> keras.Model:
    """The model, whose `fit` and `train_on_batch` raise a ValueError for a `class_weight`.

    Keras turns `class_weight` into one weight per image. Of a map of classes it can't, and says so in words about
    scalars. The methods are the instance's, not those of a class of its own: saved as `.keras` it stays a model that
    loads without the course.
    """
    model.fit, model.train_on_batch = _refusing(model.fit), _refusing(model.train_on_batch)
    return model


def _refusing(method):
    @functools.wraps(method)
    def checked(*args, class_weight=None, **kwargs):
        if class_weight is not None:
            weights = "1, 5"
            if isinstance(class_weight, dict) and all(isinstance(key, int) for key in class_weight):
                weights = ", ".join(
                    f"{class_weight.get(k, 1):g}" for k in range(max(class_weight, default=0) + 1)
                )
            raise ValueError(
                f"class_weight is {class_weight}; it must be None, because each pixel has its own class: give the "
                f"weights to the loss, such as losses.CrossEntropy(class_weights=({weights})), or one per pixel as "
                "sample_weight."
            )
        return method(*args, **kwargs)

    return checked
