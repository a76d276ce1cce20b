"""Mask classification with queries: attention, matching, the loss of a set, reading the output."""

import itertools

import keras
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from course_lib.models import queries

pytestmark = pytest.mark.backend


def array(x):
    return keras.ops.convert_to_numpy(x)


def test_attention_by_hand():
    rng = np.random.default_rng(0)
    query, tokens = rng.normal(size=(2, 3, 4)).astype("float32"), rng.normal(size=(2, 5, 6)).astype("float32")
    allowed = rng.random((2, 3, 5)) < 0.5
    allowed[0, 0] = False  # may attend to nothing, so to all
    layer = queries.Attention(8)
    mean, weights = map(array, layer(query, tokens, allowed))
    w_q, w_k, w_v = layer.get_weights()
    scores = (query @ w_q) @ (tokens @ w_k).swapaxes(1, 2) / np.sqrt(8)
    scores[~allowed & allowed.any(-1, keepdims=True)] = -np.inf
    wanted = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(weights, wanted, atol=1e-5)
    np.testing.assert_allclose(mean, wanted @ (tokens @ w_v), atol=1e-4)


@pytest.mark.parametrize(("objects", "count"), [(1, 1), (2, 5), (4, 8), (3, 3)])
def test_the_cheapest_is_scipys(objects, count):
    cost = np.random.default_rng(objects).normal(size=(20, objects, count)).astype("float32")
    found = array(queries.cheapest(keras.ops.convert_to_tensor(cost)))
    np.testing.assert_array_equal(found, [linear_sum_assignment(one)[1] for one in cost])


def test_too_many_to_try():
    for shape in ((1, 5, 8), (1, 3, 2)):
        with pytest.raises(ValueError, match=f"{shape[1]} objects and {shape[2]} queries"):
            queries.cheapest(keras.ops.ones(shape))


def by_hand(classes, masks, class_logits, mask_logits):
    """The loss of one image and one round, in loops, by every way to match."""
    probability = np.exp(class_logits) / np.exp(class_logits).sum(-1, keepdims=True)
    there = [k for k in range(len(classes)) if classes[k]]

    def fit(mask, logits):
        p = 1 / (1 + np.exp(-logits))
        entropy = -np.mean(mask * np.log(p) + (1 - mask) * np.log(1 - p))
        return 5 * entropy + 5 * (1 - (2 * (p * mask).sum() + 1) / (p.sum() + mask.sum() + 1))

    def price(way):
        return sum(fit(masks[k], mask_logits[q]) - 2 * probability[q, classes[k]] for k, q in zip(there, way))

    way = min(itertools.permutations(range(len(class_logits)), len(there)), key=price)
    wanted, weight = np.zeros(len(class_logits), int), np.full(len(class_logits), 0.1)
    for k, q in zip(there, way):
        wanted[q], weight[q] = classes[k], 1.0
    entropy = -np.log(probability[range(len(wanted)), wanted])
    of_masks = sum(fit(masks[k], mask_logits[q]) for k, q in zip(there, way)) / len(there)
    return 2 * (weight * entropy).sum() / weight.sum() + of_masks


def test_the_loss_of_a_set_by_hand():
    rng = np.random.default_rng(3)
    classes = np.array([[2, 1, 0]], "int32")
    masks = (rng.random((1, 3, 4, 4)) < 0.4).astype("float32")
    class_logits = rng.normal(size=(1, 2, 4, 3)).astype("float32")
    mask_logits = rng.normal(size=(1, 2, 4, 4, 4)).astype("float32")
    rounds = [
        by_hand(classes[0], masks[0].reshape(3, -1), class_logits[0, r], mask_logits[0, r].reshape(4, -1))
        for r in (0, 1)
    ]
    found = array(queries.set_loss(classes, masks, class_logits, mask_logits))
    assert float(found) == pytest.approx(np.mean(rounds), rel=1e-4)
    # A set has no order.
    shuffled = queries.set_loss(
        classes[:, [1, 2, 0]], masks[:, [1, 2, 0]], class_logits[:, :, ::-1], mask_logits[:, :, ::-1]
    )
    assert float(array(shuffled)) == pytest.approx(float(found), rel=1e-5)


@pytest.mark.slow
def test_the_network_learns_an_image_by_heart_and_reads_it():
    keras.utils.set_random_seed(0)
    model = queries.query_network(16, num_classes=3, queries=3, rounds=1, dim=8, filters=(4, 4, 4, 4))
    image = np.zeros((1, 16, 16, 3), "float32")
    image[0, 2:8, 2:8], image[0, 10:14, 4:14] = (1, 0, 0), (0, 0, 1)
    masks = np.zeros((1, 2, 8, 8), "float32")
    masks[0, 0, 1:4, 1:4] = masks[0, 1, 5:7, 2:7] = 1
    classes = np.array([[1, 2]], "int32")
    model.compile(keras.optimizers.Adam(0.02), jit_compile=False)
    losses = [float(model.train_on_batch(image, (classes, masks))) for _ in range(100)]
    assert losses[-1] < 0.2 * losses[0]
    output = model(image, training=True)  # with the statistics of this one image
    assert tuple(output["masks"].shape) == (1, 2, 3, 8, 8) and tuple(output["attention"].shape) == (
        1,
        3,
        4,
        4,
    )
    found = queries.read_queries(output)[0]
    assert sorted(found["classes"]) == [1, 2] and (np.diff(found["scores"]) <= 0).all()
    for kind, mask in zip(found["classes"], found["masks"]):
        true = (slice(2, 8), slice(2, 8)) if kind == 1 else (slice(10, 14), slice(4, 14))
        area = np.zeros((16, 16), bool)
        area[true] = True
        assert (mask & area).sum() / (mask | area).sum() > 0.6


def test_it_saves_and_loads(tmp_path):
    model = queries.query_network(16, 3, 3, 1, 8, (4, 4, 4, 4))
    model.save(tmp_path / "one.keras")
    again = keras.models.load_model(tmp_path / "one.keras")
    image = np.random.default_rng(1).random((1, 16, 16, 3), np.float32)
    for name, value in model(image).items():
        np.testing.assert_allclose(array(value), array(again(image)[name]), atol=1e-4)
