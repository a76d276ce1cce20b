"""Mask classification with learned queries: the idea of MaskFormer (Cheng et al. 2021, https://arxiv.org/abs/2107.06278).

Mask R-CNN proposes a thousand boxes and discards most of them. Here a few **queries**, vectors that are learned like any
weight, predict one object each: whether there is one, its class, and its pixels. Their predictions are a *set*: in
training each object is matched with exactly one query, and the queries without an object learn to predict
"no object". So there are no anchors, no proposals, and no duplicates to suppress.

Read top to bottom: the network (U-Net features, rounds of attention, two small heads), the matching, the loss, the reading
of its output. Each query attends to what its own mask of the round before covers, as in Mask2Former (Cheng et al. 2022,
https://arxiv.org/abs/2112.01527); there is one attention head, and one scale of features.
"""

import itertools
from functools import lru_cache

import keras
import numpy as np
from keras import layers, ops

from course_lib.models.arguments import check_counts
from course_lib.models.unet import unet

CLASS_COST, MASK_COST, DICE_COST, NO_OBJECT = 2.0, 5.0, 5.0, 0.1
"""Weights of the loss and of the matching, and of the class loss of queries without an object, as in Mask2Former."""


@keras.saving.register_keras_serializable(package="course_lib")
class Learned(layers.Layer):
    """Vectors that depend on no input, one set for each image of a batch: the queries, or what a location is called.

    Args:
        count, dim: how many vectors, and of how many numbers.

    Call:
        anything `(batch, …)` in, `(batch, count, dim)` out.
    """

    def __init__(self, count: int, dim: int, **arguments):
        super().__init__(**arguments)
        self.count, self.dim = count, dim

    def build(self, input_shape):
        self.vectors = self.add_weight(
            shape=(self.count, self.dim), initializer=keras.initializers.RandomNormal(0.5)
        )

    def call(self, inputs):
        return ops.broadcast_to(self.vectors, (ops.shape(inputs)[0], self.count, self.dim))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.count, self.dim)

    def get_config(self):
        return {**super().get_config(), "count": self.count, "dim": self.dim}


@keras.saving.register_keras_serializable(package="course_lib")
class Attention(layers.Layer):
    """Each query takes a weighted mean of values; the weights come from how well its question fits their keys.

    `softmax(question · keyᵀ / √dim) · value`, Vaswani et al. (2017), https://arxiv.org/abs/1706.03762, with one head.

    Args:
        dim: length of questions, keys and values.

    Call:
        `queries (batch, q, d)`, `tokens (batch, t, e)` and, if only some may be attended to, `allowed (batch, q, t)`, bool
        (a query that is allowed nothing may attend to all); returns `(batch, q, dim)` and the weights `(batch, q, t)`.
    """

    def __init__(self, dim: int, **arguments):
        super().__init__(**arguments)
        self.dim = dim
        self.question, self.key, self.value = (
            layers.Dense(dim, use_bias=False, name=name) for name in ("question", "key", "value")
        )

    def build(self, queries_shape, tokens_shape, allowed_shape=None):
        self.question.build(queries_shape)
        self.key.build(tokens_shape)
        self.value.build(tokens_shape)

    def call(self, queries, tokens, allowed=None):
        scores = ops.matmul(self.question(queries), ops.swapaxes(self.key(tokens), 1, 2)) / self.dim**0.5
        if allowed is not None:
            nothing = ops.logical_not(ops.any(allowed, axis=-1, keepdims=True))
            scores = ops.where(ops.logical_or(allowed, nothing), scores, -1e9)
        weights = ops.softmax(scores, axis=-1)
        return ops.matmul(weights, self.value(tokens)), weights

    def compute_output_shape(self, queries_shape, tokens_shape, allowed_shape=None):
        batch, count = queries_shape[:2]
        return (batch, count, self.dim), (batch, count, tokens_shape[1])

    def get_config(self):
        return {**super().get_config(), "dim": self.dim}


@keras.saving.register_keras_serializable(package="course_lib")
class QueryModel(keras.Model):
    """A functional model of `query_network`, trained with `set_loss`: `fit` takes images and `(classes, masks)`, the
    objects' class ids `(batch, g)`, 0 where there is none, and their masks `(batch, g, height / 2, width / 2)`, 0 or 1."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        classes, masks = y
        return set_loss(classes, masks, y_pred["classes"], y_pred["masks"])


def query_network(
    side: int = 64,
    num_classes: int = 7,
    queries: int = 8,
    rounds: int = 3,
    dim: int = 64,
    filters: tuple[int, ...] = (12, 24, 48, 96),
) -> QueryModel:
    """A small network that predicts a set of masks, each with a class.

    Args:
        side: of the square images in pixels, a multiple of 8.
        num_classes: classes, the background (class 0, here "no object") included.
        queries: how many objects it can find at most.
        rounds: of attention; each ends with a prediction of its own, on which the loss also counts.
        dim: length of a query.
        filters: channels of the U-Net's four levels.

    Returns:
        A model, float32 images `(batch, side, side, 3)` in; out a dict of `"classes"`, logits `(batch, rounds + 1, queries,
        num_classes)`, `"masks"`, logits `(batch, rounds + 1, queries, side / 2, side / 2)`, and `"attention"`, the last
        round's weights `(batch, queries, side / 4, side / 4)`. The last of the rounds is the prediction.
    """
    check_counts(num_classes=num_classes, queries=queries, rounds=rounds, dim=dim)
    body = unet((side, side, 3), 1, depth=3, filters=filters, normalization="batch")
    fine, coarse = (body.get_layer(name).output for name in ("decoder_2", "decoder_3"))

    # What the queries look at: a token for each block of 4 × 4 pixels, which also knows where it is.
    tokens = layers.Reshape((-1, dim), name="tokens")(layers.Conv2D(dim, 1, name="tokens_1x1")(coarse))
    keys = layers.Add(name="tokens_placed")([tokens, Learned((side // 4) ** 2, dim, name="places")(tokens)])
    # What they are compared with: an embedding of each block of 2 × 2 pixels.
    pixels = layers.Conv2D(dim, 1, name="pixels")(fine)

    to_class = layers.Dense(num_classes, name="to_class")
    to_mask = keras.Sequential([layers.Dense(dim, activation="relu"), layers.Dense(dim)], name="to_mask")

    def read(query):
        """The class logits and the mask logits of each query."""
        return to_class(query), ops.einsum("bqd,bhwd->bqhw", to_mask(query), pixels) / dim**0.5

    def follow(query, change, name):
        """Add what was learned and normalize, as in a transformer."""
        return layers.LayerNormalization(name=name)(layers.Add()([query, change]))

    query = Learned(queries, dim, name="queries")(tokens)
    predictions = [read(query)]
    for number in range(1, rounds + 1):
        covered = ops.mean(
            ops.reshape(predictions[-1][1], (-1, queries, side // 4, 2, side // 4, 2)), axis=(3, 5)
        )
        allowed = ops.reshape(covered, (-1, queries, (side // 4) ** 2)) > 0
        seen, weights = Attention(dim, name=f"cross_{number}")(query, keys, allowed)
        query = follow(query, seen, f"cross_{number}_norm")
        told, _ = Attention(dim, name=f"self_{number}")(query, query)
        query = follow(query, told, f"self_{number}_norm")
        thought = layers.Dense(dim, name=f"think_{number}_b")(
            layers.Dense(2 * dim, activation="relu", name=f"think_{number}_a")(query)
        )
        query = follow(query, thought, f"think_{number}_norm")
        predictions.append(read(query))
    classes, masks = (ops.stack(parts, axis=1) for parts in zip(*predictions, strict=True))
    attention = ops.reshape(weights, (-1, queries, side // 4, side // 4))
    return QueryModel(
        body.input, {"classes": classes, "masks": masks, "attention": attention}, name="queries"
    )


# Which query is matched with which object


def mask_cost(masks, mask_logits):
    """How badly each query's mask fits each object: 5 · mean cross-entropy + 5 · Dice loss.

    Args:
        masks: float `(batch, g, n)`, 0 or 1, flattened.
        mask_logits: `(batch, q, n)`.

    Returns:
        float32 `(batch, g, q)`.
    """
    wide = ops.swapaxes(mask_logits, -1, -2)
    # Cross-entropy of a logit x is softplus(x) − x · mask; the second part is a matrix product over the pixels.
    entropy = ops.sum(ops.softplus(mask_logits), axis=-1)[:, None, :] - ops.matmul(masks, wide)
    area = ops.sigmoid(wide)
    both = ops.sum(masks, axis=-1)[..., None] + ops.sum(area, axis=-2)[:, None, :]
    dice = 1 - (2 * ops.matmul(masks, area) + 1) / (both + 1)
    return MASK_COST * entropy / masks.shape[-1] + DICE_COST * dice


def matching_cost(classes, masks, class_logits, mask_logits):
    """The cost of assigning each query to each object: `mask_cost` − 2 · probability of the object's class.

    Args:
        classes: int `(batch, g)`, 0 where there is no object.
        masks, mask_logits: as for `mask_cost`.
        class_logits: `(batch, q, num_classes)`.

    Returns:
        float32 `(batch, g, q)`, 0 for what is no object.
    """
    probability = ops.swapaxes(ops.softmax(class_logits, axis=-1), -1, -2)
    of_class = ops.matmul(ops.one_hot(classes, class_logits.shape[-1]), probability)
    cost = mask_cost(masks, mask_logits) - CLASS_COST * of_class
    return cost * ops.cast(classes > 0, cost.dtype)[..., None]


@lru_cache
def _choices(queries: int, objects: int) -> np.ndarray:
    return np.array(list(itertools.permutations(range(queries), objects)), np.int32)


def cheapest(cost):
    """The query of each object such that no query is used twice and the total cost is minimal, by exhaustive search.

    The Hungarian algorithm (`scipy.optimize.linear_sum_assignment`) finds it in a time that grows with the cube of their
    number, but a compiled training step cannot call SciPy. With 8 queries there are 1,680 ways for up to 4 objects, and a
    step tries them all at once.

    Args:
        cost: `(batch, g, q)`, with g at most 4.

    Returns:
        int32 `(batch, g)`.
    """
    objects, queries = cost.shape[-2:]
    if not objects <= queries or objects > 4:
        raise ValueError(
            f"cost has {objects} objects and {queries} queries; it must have at most 4 objects, because every assignment "
            "is tried, and no more objects than queries."
        )
    ways = _choices(queries, objects)
    total = sum(ops.take(cost[:, number], ways[:, number], axis=-1) for number in range(objects))
    return ops.take(ops.convert_to_tensor(ways), ops.argmin(total, axis=-1), axis=0)


def set_loss(classes, masks, class_logits, mask_logits):
    """The loss of a set: match, then class loss over all queries and mask loss over the matched ones, for every round.

    Args:
        classes, masks: as `QueryModel` takes them.
        class_logits, mask_logits: as `query_network` returns them.
    """
    rounds = class_logits.shape[1]
    masks = ops.reshape(ops.cast(masks, "float32"), (*ops.shape(masks)[:2], int(np.prod(masks.shape[2:]))))
    valid = ops.cast(classes > 0, "float32")
    objects = ops.maximum(ops.sum(valid), 1.0)
    total = 0.0
    for number in range(rounds):
        logits = class_logits[:, number]
        flat = ops.reshape(mask_logits[:, number], (-1, logits.shape[1], masks.shape[-1]))
        cost = ops.stop_gradient(matching_cost(classes, masks, logits, flat))
        chosen = ops.one_hot(cheapest(cost), logits.shape[1]) * valid[..., None]  # (batch, objects, queries)
        # The class of each query: that of its object, 0 for none.
        wanted = ops.cast(ops.einsum("bgq,bg->bq", chosen, ops.cast(classes, "float32")) + 0.5, "int32")
        weight = ops.where(wanted > 0, 1.0, NO_OBJECT)
        entropy = keras.losses.sparse_categorical_crossentropy(wanted, logits, from_logits=True)
        total += CLASS_COST * ops.sum(weight * entropy) / ops.sum(weight)
        total += ops.sum(chosen * mask_cost(masks, flat)) / objects
    return total / rounds


def read_queries(output: dict, least: float = 0.5) -> list[dict[str, np.ndarray]]:
    """The objects that a query network predicts in each image.

    Args:
        output: what the model returns for a batch.
        least: score from which a query counts.

    Returns:
        For each image `classes (n,)`, `scores (n,)`, the best first, `masks (n, height, width)`, bool at the image's size,
        and `queries (n,)`, which of them it was. A score is the probability of the class times the mean probability of the
        mask's pixels.
    """
    classes, masks = (keras.ops.convert_to_numpy(output[name])[:, -1] for name in ("classes", "masks"))
    found = []
    for logits, small in zip(classes, masks, strict=True):
        probability = keras.ops.convert_to_numpy(ops.softmax(logits))[:, 1:]
        size = (2 * small.shape[1], 2 * small.shape[2])
        large = ops.image.resize(small[..., None], size, "bilinear")[..., 0]
        sure, inside = (keras.ops.convert_to_numpy(part) for part in (ops.sigmoid(large), large > 0))
        scores = probability.max(-1) * (sure * inside).sum((1, 2)) / np.maximum(1, inside.sum((1, 2)))
        order = [k for k in np.argsort(-scores) if scores[k] >= least and inside[k].any()]
        found.append(
            {
                "classes": 1 + probability[order].argmax(-1),
                "scores": scores[order],
                "masks": inside[order],
                "queries": np.array(order, int),
            }
        )
    return found
