"""The exercise of chapter 12: freeze an encoder, then fine-tune until a required IoU."""

from functools import partial

import numpy as np

from course_lib.teaching.exercise import Case, Exercise, facts, known

# 12.1

REQUIRED, ON_NEW_IMAGES = 0.85, 0.78
"""The IoU to reach on the validation images, and what it then has to be on images that nobody has chosen by."""


def discs(count, seed):
    """Noisy images of bright discs `(count, 32, 32, 1)` and their masks: the new task, which has few labels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :32]
    centres, radii = rng.uniform(8, 24, (2, count, 1, 1)), rng.uniform(4, 9, (count, 1, 1))
    masks = (np.hypot(y - centres[0], x - centres[1]) < radii).astype("int32")
    return (0.4 * masks + rng.normal(0.3, 0.25, masks.shape)).astype("float32")[..., None], masks


def iou_of(model, images, masks):
    from keras import ops

    found = ops.convert_to_numpy(model(images)).argmax(-1)
    return np.sum(found & masks) / max(np.sum(found | masks), 1)


def pretrained_model():
    """The first two levels of `unet-cells`, trained on cells, as the layer `"encoder"`; behind it a new, random head."""
    import keras
    from keras import layers

    from course_lib import checkpoints, recipes

    network = recipes.CELLS.model()
    checkpoints.load(recipes.CELLS, network, quiet=True)
    encoder = keras.Model(network.input, network.get_layer("encoder_2").output, name="encoder")
    keras.utils.set_random_seed(0)
    inputs = keras.Input((32, 32, 1))
    x = layers.UpSampling2D(2, interpolation="bilinear")(encoder(inputs))
    return keras.Model(inputs, layers.Conv2D(2, 3, padding="same", name="head")(x))


def fine_tune(model, train, val, required, freeze=True, thaw=True, slower=0.1, keep=True, also=(), rounds=20):
    import keras

    images, masks = (np.concatenate(parts) for parts in zip(train, *also, strict=True))
    encoder, loss = model.get_layer("encoder"), keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def norms(trainable):
        for layer in encoder.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = trainable

    encoder.trainable = not freeze
    norms(False)
    model.compile(keras.optimizers.Adam(1e-2), loss)
    model.fit(images, masks, batch_size=4, epochs=5, verbose=0)
    if not rounds:
        return model
    encoder.trainable = thaw
    norms(thaw and not keep)
    model.compile(keras.optimizers.Adam(1e-2 * slower), loss)
    for _ in range(rounds):
        model.fit(images, masks, batch_size=4, epochs=5, verbose=0)
        if iou_of(model, *val) >= required:
            break
    return model


FACTS = (
    f"the IoU on the validation images reaches {REQUIRED}, and on new images {ON_NEW_IMAGES}",
    "in the first training only the head learns",
    "the encoder learns afterwards",
    "the encoder learns at a rate of at most a fifth of the head's first one",
    "batch normalisation keeps its statistics",
    "no validation image is trained on",
)


def _fine_tuning_behaviour(function, required):
    """How far each of `FACTS` is true, 1: it is. The IoU counts only where the others are true."""
    import keras

    model, new = pretrained_model(), discs(32, 99)
    encoder, trainings = model.get_layer("encoder"), []
    train, val = discs(8, 1), discs(16, 2)

    def numbers(variables):
        return np.concatenate([np.ravel(keras.ops.convert_to_numpy(one)) for one in variables])

    def all_numbers():
        norms = [one for one in encoder.layers if isinstance(one, keras.layers.BatchNormalization)]
        means = [value for one in norms for value in (one.moving_mean, one.moving_variance)]
        fixed = {id(one) for one in means}
        learned = [one for one in encoder.weights if id(one) not in fixed]
        return numbers(learned), numbers(means), numbers(model.get_layer("head").weights)

    def recorded(method):
        def call(*args, **arguments):
            before, x = all_numbers(), np.asarray(args[0] if args else arguments["x"])
            found = method(*args, **arguments)
            moved = [not np.array_equal(a, b) for a, b in zip(before, all_numbers(), strict=True)]
            seen = any((image == x).reshape(len(x), -1).all(1).any() for image in val[0])
            trainings.append((*moved, float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)), seen))
            return found

        return call

    model.fit, model.train_on_batch = recorded(model.fit), recorded(model.train_on_batch)
    copies = [tuple(one.copy() for one in part) for part in (train, val)]
    found = function(model, *copies, required)
    if found is None or found is ...:
        raise NotImplementedError
    if not hasattr(found, "get_layer") or not trainings:
        raise ValueError("return the model after training it with model.fit or model.train_on_batch")
    first, rates = trainings[0], [one[3] for one in trainings if one[0]]
    steps = [
        not first[0] and first[2],
        bool(rates),
        all(rate <= 0.2 * first[3] + 1e-12 for rate in rates) or first[0],
        not any(one[1] for one in trainings),
        not any(one[4] for one in trainings),
    ]
    reached = iou_of(found, *val) >= required and iou_of(found, *new) >= ON_NEW_IMAGES
    return [reached or not all(steps), *steps]


FINE_TUNE = Exercise(
    number="12.1",
    name="fine_tune",
    form=facts("the trained model", FACTS),
    answer=known(fine_tune, 1, 1, 1, 1, 1, 1),
    measure=_fine_tuning_behaviour,
    live=True,
    seconds=55.0,
    passed="right: the head was trained alone, then everything slowly, until the IoU was reached.",
    cases=[Case(f"8 labelled images, a required IoU of {REQUIRED}", REQUIRED)],
    mistakes={
        "The encoder is not frozen in the first training: the random head's gradients harm it. Set encoder.trainable = "
        "False before you compile.": known(partial(fine_tune, freeze=False, rounds=1), 1, 0, 1, 1, 1, 1),
        "The encoder never learns. Set encoder.trainable = True, compile again (compile decides what is trained), and "
        "train on.": known(partial(fine_tune, thaw=False, rounds=1), 1, 1, 0, 1, 1, 1),
        "The encoder learns as fast as the head: compile with a rate of a tenth before you train everything.": known(
            partial(fine_tune, slower=1.0, rounds=1), 1, 1, 1, 0, 1, 1
        ),
        "Batch normalisation has changed its statistics, to those of eight images. encoder.trainable = True reaches every "
        "layer inside: set trainable = False again for the BatchNormalization layers.": known(
            partial(fine_tune, keep=False, rounds=1), 1, 1, 1, 1, 0, 1
        ),
        "You train on the validation images: they only say when to stop.": known(
            partial(fine_tune, also=[discs(16, 2)], rounds=1), 1, 1, 1, 1, 1, 0
        ),
        f"All steps are right, but the training stops before the IoU of {REQUIRED} is reached: train on in a loop until it "
        "is.": known(partial(fine_tune, slower=1e-6, rounds=1), 0, 1, 1, 1, 1, 1),
    },
    hints=[
        "encoder = model.get_layer('encoder'); encoder.trainable = False; compile with a rate of 0.01; fit a few epochs.",
        "Then encoder.trainable = True, but layer.trainable = False for each BatchNormalization in encoder.layers; compile "
        "again, with a rate of 0.001.",
        "while iou(model, *val) < required: model.fit(*train, batch_size=4, epochs=5, verbose=0)",
    ],
)

EXERCISES = (FINE_TUNE,)
