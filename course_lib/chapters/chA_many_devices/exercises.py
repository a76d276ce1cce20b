"""The exercise of appendix A: a training step that adds up gradients."""

from functools import cache

import numpy as np
from scipy.special import log_softmax

from course_lib.teaching.exercise import Case, Exercise, Form

# A.1


def train_step(
    model,
    optimizer,
    gradient_of,
    images,
    labels,
    parts,
    weight=lambda images, count: count,
    total=lambda weights: sum(weights),
    split=np.array_split,
    losses=lambda losses, counts: np.average(losses, weights=counts),
):
    """`weight` of a part's gradient; `total` is what their sum is divided by."""
    added, seen, weights, counts = None, [], [], []
    for some, their in zip(split(images, parts), split(labels, parts), strict=True):
        loss, gradients, count = gradient_of(some, their)
        weights.append(weight(some, count))
        seen.append(float(loss))
        counts.append(count)
        scaled = [weights[-1] * gradient for gradient in gradients]
        added = scaled if added is None else [a + b for a, b in zip(added, scaled, strict=True)]
    optimizer.apply([gradient / total(weights) for gradient in added], model.trainable_variables)
    return losses(seen, counts)


def _a_step_for_each(model, optimizer, gradient_of, images, labels, parts):
    parts = list(zip(np.array_split(images, parts), np.array_split(labels, parts), strict=True))
    found = []
    for some, their in parts:
        loss, gradients, count = gradient_of(some, their)
        optimizer.apply(gradients, model.trainable_variables)
        found.append((float(loss), count))
    return sum(loss * count for loss, count in found) / sum(count for _, count in found)


def _last_part_only(model, optimizer, gradient_of, images, labels, parts):
    found = []
    for some, their in zip(np.array_split(images, parts), np.array_split(labels, parts), strict=True):
        loss, gradients, count = gradient_of(some, their)
        found.append((float(loss), count))
    optimizer.apply(gradients, model.trainable_variables)
    return sum(loss * count for loss, count in found) / sum(count for _, count in found)


def _equal_parts(array, parts):
    size = len(array) // parts
    return [array[k * size : (k + 1) * size] for k in range(parts)]


def _no_step(model, optimizer, *given):
    return train_step(model, type("Idle", (), {"apply": lambda self, *_: None})(), *given)


def _plain_mean(losses, counts):
    return np.mean(losses)


def _plain_sum(losses, counts):
    return np.sum(losses)


def _how(**how):
    def step(model, optimizer, gradient_of, images, labels, parts):
        return train_step(model, optimizer, gradient_of, images, labels, parts, **how)

    return step


def _gradient_of(model, images, labels):
    """Loss, gradients and count of a network of one 1 × 1 convolution, by hand: fast, and the same on every backend."""
    from keras import ops

    kernel, bias = (one.astype(float) for one in model.get_weights())
    images, labels = (np.asarray(one)[np.asarray(labels) >= 0] for one in (images, labels))
    log_p, count = log_softmax(images @ kernel[0, 0] + bias, -1), len(labels)
    errors = (np.exp(log_p) - np.eye(2)[labels]) / max(count, 1)
    loss = -np.sum(log_p * np.eye(2)[labels]) / max(count, 1)
    gradients = (images.T @ errors)[None, None], errors.sum(0)
    return float(loss), [ops.convert_to_tensor(one.astype("float32")) for one in gradients], count


@cache
def _network():
    import keras

    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((6, 6, 3)), keras.layers.Conv2D(2, 1)])
    return model, model.get_weights()


def _step_behaviour(step, images, labels, parts):
    """The loss, the number of updates, the size of the largest part, and how each weight moved."""
    import keras

    (model, start), largest = _network(), [0]
    model.set_weights(start)

    def gradient_of(some, their):
        largest[0] = max(largest[0], len(some))
        return _gradient_of(model, some, their)

    optimizer = keras.optimizers.SGD(0.5)
    loss = step(model, optimizer, gradient_of, images, labels, parts)
    if loss is None or loss is ...:
        raise NotImplementedError
    moved = [np.ravel(a - b) for a, b in zip(model.get_weights(), start, strict=True)]
    return [float(loss), int(optimizer.iterations), largest[0], *np.concatenate(moved)]


def _steps(given, right):
    words = []
    if not np.isclose(given[0], right[0], rtol=2e-3):
        words.append(f"the loss of the batch: expected {right[0]:.4f}, got {given[0]:.4f}")
    if given[1] != right[1]:
        words.append(f"steps of the optimizer: expected 1, got {given[1]:g}")
    if given[2] != right[2]:
        words.append(f"images in the largest part: expected {right[2]:g}, got {given[2]:g}")
    apart = np.linalg.norm(given[3:] - right[3:]) / np.linalg.norm(right[3:])
    if apart > 1e-3:
        words.append(f"the step is off by {apart:.0%} of the one that the whole batch makes")
    return "; ".join(words)


def _batch(count, seed, ignored=()):
    """Images `(count, 6, 6, 3)` and labels 0 or 1; `ignored` rows of the images are -1."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (count, 6, 6))
    images = (labels[..., None] + rng.normal(size=(count, 6, 6, 3))).astype("float32")
    for k, rows in enumerate(ignored):
        labels[k, :rows] = -1
    return images, labels.astype("int32")


TRAIN_STEP = Exercise(
    number="A.1",
    name="train_step",
    form=Form(
        "a number, the loss of the batch",
        lambda a, b: bool(np.allclose(a, b, rtol=2e-3, atol=2e-4)),
        contrast=_steps,
    ),
    answer=train_step,
    measure=_step_behaviour,
    live=True,
    seconds=40.0,
    passed="right: the parts lead where the whole batch leads.",
    cases=[
        Case("7 images in 3 parts", *_batch(7, 2), 3),
        Case("8 images in 4 parts, with ignored pixels (-1)", *_batch(8, 3, (6, 5, 5, 0, 0, 0, 2, 0)), 4),
        Case("4 images in 2 parts, one of which has no pixel that counts", *_batch(4, 4, (6, 6, 0, 1)), 2),
    ],
    mistakes={
        "The whole batch goes through the network at once, which is what memory does not allow: give gradient_of one part "
        "at a time.": _how(split=lambda array, parts: [array]),
        "Each part makes a step of its own; add up the gradients of all parts, then let the optimizer make one step.": (
            _a_step_for_each
        ),
        "You add up the gradients and do not divide: the step is as many times too long.": (
            _how(total=lambda weights: 1.0),
            _how(weight=lambda images, count: 1.0, total=lambda weights: 1.0),
            _how(weight=lambda images, count: 1.0, total=lambda weights: 1.0, losses=_plain_mean),
            _how(weight=lambda images, count: 1.0, total=lambda weights: 1.0, losses=_plain_sum),
        ),
        "You take the mean of the parts' means; the parts are not equal. Weight each by its number of counted pixels.": (
            _how(weight=lambda images, count: 1.0),
            _how(weight=lambda images, count: 1.0, losses=_plain_mean),
        ),
        "You weight each part by its number of images; what the loss averages over are the counted pixels.": (
            _how(weight=lambda images, count: len(images)),
            _how(weight=lambda images, count: len(images), losses=_plain_mean),
        ),
        "Only the gradient of the last part is used; add up those of all parts.": _last_part_only,
        "The images that are left over when the batch does not divide evenly are lost.": _how(
            split=_equal_parts
        ),
        "Nothing is learned: call optimizer.apply(gradients, model.trainable_variables) once, at the end.": _no_step,
        "The step is right; the loss that you return is not the mean over all counted pixels.": (
            _how(losses=_plain_mean),
            _how(losses=_plain_sum),
            _how(losses=lambda losses, counts: losses[-1]),
            _how(losses=lambda losses, counts: np.dot(losses, counts)),
        ),
    },
    hints=[
        "np.array_split(images, parts) also splits what does not divide evenly.",
        "Turn each mean back into a sum: count · gradient. Add these sums, add the counts, divide once.",
        "optimizer.apply(gradients, model.trainable_variables) takes a list with one tensor for each variable.",
    ],
)

EXERCISES = (TRAIN_STEP,)
