"""The losses beside their formulas in NumPy (float64), beside scikit-learn, and beside SciPy's distance transform."""

import numpy as np
import pytest
from keras import ops
from scipy import ndimage
from sklearn import metrics as sk
from sklearn.utils.class_weight import compute_sample_weight

from course_lib.losses import (
    Boundary,
    CrossEntropy,
    Dice,
    Focal,
    FocalTversky,
    GeneralizedDice,
    Jaccard,
    LovaszSoftmax,
    Tversky,
    WeightedCrossEntropy,
    signed_distances,
)

pytestmark = pytest.mark.backend

RNG = np.random.default_rng(1)
CLASSES = 4
LOGITS = RNG.normal(scale=1.5, size=(3, 7, 6, CLASSES)).astype("float32")
LABELS = RNG.choice([-1, 0, 1, 2, 3], p=[0.1, 0.5, 0.25, 0.1, 0.05], size=(3, 7, 6)).astype("int32")
WEIGHTS = RNG.random(LABELS.shape).astype("float32")
COUNTED = LABELS >= 0


def softmax(logits):
    exponential = np.exp(logits.astype("float64") - logits.max(-1, keepdims=True))
    return exponential / exponential.sum(-1, keepdims=True)


def flat(weights=None):
    """Probabilities `(pixels, classes)`, labels and weights `(pixels,)` of the pixels that count."""
    weights = np.ones(LABELS.shape) if weights is None else weights.astype("float64")
    return softmax(LOGITS)[COUNTED], LABELS[COUNTED], weights[COUNTED]


def areas(weights=None):
    """TP, FP and FN per class, pixel by pixel."""
    hit, false, missed = np.zeros(CLASSES), np.zeros(CLASSES), np.zeros(CLASSES)
    for probabilities, label, weight in zip(*flat(weights), strict=True):
        for k in range(CLASSES):
            if k == label:
                hit[k] += weight * probabilities[k]
                missed[k] += weight * (1 - probabilities[k])
            else:
                false[k] += weight * probabilities[k]
    return hit, false, missed


def certain(labels, classes):
    """Logits of +80 at the label and -80 elsewhere: probabilities of exactly 1 and 0."""
    return (np.eye(classes, dtype="float32")[labels] * 160 - 80).astype("float32")


weighted = pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["", "weights"])


# Pixel by pixel


def test_cross_entropies_are_log_loss():
    probabilities, labels, _ = flat()
    expected = sk.log_loss(labels, probabilities)
    assert float(CrossEntropy()(LABELS, LOGITS)) == pytest.approx(expected, abs=1e-6)
    assert float(WeightedCrossEntropy((2,) * CLASSES)(LABELS, LOGITS)) == pytest.approx(expected, abs=1e-6)


@weighted
def test_weighted_cross_entropy_is_log_loss_with_weights(weights):
    probabilities, labels, pixel_weights = flat(weights)
    factors = (0.5, 1.0, 2.0, 7.0)
    expected = sk.log_loss(labels, probabilities, sample_weight=np.take(factors, labels) * pixel_weights)
    assert float(WeightedCrossEntropy(factors)(LABELS, LOGITS, weights)) == pytest.approx(expected, abs=1e-6)


def test_inverse_frequency_is_scikit_learns_balanced_weighting():
    probabilities, labels, _ = flat()
    balanced = compute_sample_weight("balanced", labels)
    expected = sk.log_loss(labels, probabilities, sample_weight=balanced)
    assert float(WeightedCrossEntropy()(LABELS, LOGITS)) == pytest.approx(expected, abs=1e-6)


def test_inverse_frequency_is_a_mean_of_means_over_the_classes_that_are_there():
    present = np.where(LABELS == 2, 0, LABELS)  # no pixel of class 2
    logarithm, weights = np.log(softmax(LOGITS)), WEIGHTS.astype("float64")
    means = [
        np.average(-logarithm[present == k, k], weights=weights[present == k]) for k in (0, 1, 3)
    ]  # fmt: skip
    loss = WeightedCrossEntropy()(present, LOGITS, WEIGHTS)
    assert float(loss) == pytest.approx(np.mean(means), abs=1e-6)


@weighted
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_is_the_formula(gamma, weights):
    probabilities, labels, pixel_weights = flat(weights)
    alpha = np.array([0.1, 0.2, 0.3, 0.4])
    true = probabilities[np.arange(len(labels)), labels]
    expected = np.mean(pixel_weights * -alpha[labels] * (1 - true) ** gamma * np.log(true))
    assert float(Focal(gamma, alpha)(LABELS, LOGITS, weights)) == pytest.approx(expected, abs=1e-6)


# By area


@weighted
@pytest.mark.parametrize("background", [True, False])
def test_area_losses_are_the_formulas(background, weights):
    hit, false, missed = (part[0 if background else 1 :] for part in areas(weights))
    chosen = {"background": background}

    dice = (2 * hit + 0.5) / (2 * hit + false + missed + 0.5)
    loss = Dice(0.5, **chosen)(LABELS, LOGITS, weights)
    assert float(loss) == pytest.approx(1 - dice.mean(), abs=1e-6)

    jaccard = (hit + 0.5) / (hit + false + missed + 0.5)
    loss = Jaccard(0.5, **chosen)(LABELS, LOGITS, weights)
    assert float(loss) == pytest.approx(1 - jaccard.mean(), abs=1e-6)

    tversky = (hit + 0.5) / (hit + 0.2 * false + 0.9 * missed + 0.5)
    loss = Tversky(0.2, 0.9, 0.5, **chosen)(LABELS, LOGITS, weights)
    assert float(loss) == pytest.approx(1 - tversky.mean(), abs=1e-6)

    for gamma in (0.5, 4 / 3, 3):
        loss = FocalTversky(0.2, 0.9, gamma, 0.5, **chosen)(LABELS, LOGITS, weights)
        assert float(loss) == pytest.approx(((1 - tversky) ** (1 / gamma)).mean(), abs=1e-6)

    # Sudre's formula as printed, with 1 / volume², and nothing added; so next to nothing here.
    volume = hit + missed
    ratio = (2 / volume**2 * hit).sum() / (1 / volume**2 * (2 * hit + false + missed)).sum()
    loss = GeneralizedDice(1e-7, **chosen)(LABELS, LOGITS, weights)
    assert float(loss) == pytest.approx(1 - ratio, abs=1e-6)


def test_generalized_dice_gives_an_absent_class_the_weight_of_the_rarest():
    labels = np.zeros((1, 10, 10), "int32")
    labels[0, :2, :5] = 1  # 90 pixels, 10 pixels, none
    answer = labels.copy()
    answer[0, 5, :4], answer[0, 9, 9] = 2, 1
    # Per class hits 85, 10, 0 and errors 5, 1, 4; scaled weights 1/81, 1, 1; smooth 1.
    hits, errors = 85 / 81 + 10, 5 / 81 + 1 + 4
    expected = 1 - (2 * hits + 1) / (2 * hits + errors + 1)
    assert float(GeneralizedDice()(labels, certain(answer, 3))) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_certain_answers_score_as_scikit_learn_says(seed):
    rng = np.random.default_rng(seed)
    labels, answer = rng.integers(0, CLASSES, (2, *LABELS.shape))
    logits, truth, predicted = certain(answer, 4), labels.ravel(), answer.ravel()
    tiny = 1e-6
    expected = 1 - sk.jaccard_score(truth, predicted, average="macro")
    assert float(Jaccard(tiny)(labels, logits)) == pytest.approx(expected, abs=1e-6)
    assert float(LovaszSoftmax()(labels, logits)) == pytest.approx(expected, abs=1e-6)
    expected = 1 - sk.f1_score(truth, predicted, average="macro")
    assert float(Dice(tiny)(labels, logits)) == pytest.approx(expected, abs=1e-6)
    # F2 prices a missed pixel four times as high as a false one.
    expected = 1 - sk.fbeta_score(truth, predicted, beta=2, average="macro")
    assert float(Tversky(1 / 5, 4 / 5, tiny)(labels, logits)) == pytest.approx(expected, abs=1e-6)
    without = 1 - sk.jaccard_score(truth, predicted, average="macro", labels=[1, 2, 3])
    assert float(Jaccard(tiny, background=False)(labels, logits)) == pytest.approx(without, abs=1e-6)
    assert float(LovaszSoftmax(background=False)(labels, logits)) == pytest.approx(without, abs=1e-6)


# The Lovász extension


def jaccard_loss_of_set(wrong, truth, weights):
    """1 - IoU of the answer that differs from the truth in the pixels of `wrong`; 0 where both are empty."""
    answer = truth ^ wrong
    union = weights[truth | answer].sum()
    return 1 - weights[truth & answer].sum() / union if union else 0.0


def lovasz_extension(errors, truth, weights):
    """The Choquet integral: over t from 0 to 1, the set function of the pixels with an error above t."""
    levels = np.unique(np.concatenate([[0.0], errors]))
    return sum(
        (high - low) * jaccard_loss_of_set(errors > low, truth, weights)
        for low, high in zip(levels[:-1], levels[1:])
    )


def lovasz(probabilities, labels, weights, chosen, classes="present"):
    """The mean of the extension over classes, of `(pixels, classes)`."""
    values = [
        lovasz_extension(np.abs((labels == k) - probabilities[:, k]), labels == k, weights)
        for k in chosen
        if classes == "all" or weights[labels == k].sum() > 0
    ]
    return np.mean(values) if values else 0.0


@weighted
@pytest.mark.parametrize("classes", ["present", "all"])
@pytest.mark.parametrize("chosen", [range(CLASSES), range(1, CLASSES)], ids=["", "no background"])
def test_lovasz_is_the_integral_over_sets(classes, chosen, weights):
    labels = np.where(LABELS == 2, -1, LABELS)  # one class is nowhere, many pixels are ignored
    counted = labels >= 0
    pixel_weights = np.ones(LABELS.shape) if weights is None else weights.astype("float64")
    arrays = softmax(LOGITS), labels, pixel_weights
    loss = LovaszSoftmax(classes, background=0 in chosen)(labels, LOGITS, weights)
    expected = lovasz(*(array[counted] for array in arrays), chosen, classes)
    assert float(loss) == pytest.approx(expected, abs=1e-6)

    loss = LovaszSoftmax(classes, per_image=True, background=0 in chosen)(labels, LOGITS, weights)
    expected = np.mean(
        [lovasz(*(array[i][counted[i]] for array in arrays), chosen, classes) for i in range(len(labels))]
    )
    assert float(loss) == pytest.approx(expected, abs=1e-6)


def test_lovasz_per_image_leaves_out_a_picture_in_which_nothing_counts():
    labels = LABELS.copy()
    labels[1] = -1
    expected = [
        lovasz(
            softmax(LOGITS[i])[COUNTED[i]], labels[i][COUNTED[i]], np.ones(COUNTED[i].sum()), range(CLASSES)
        )
        for i in (0, 2)
    ]
    assert float(LovaszSoftmax(per_image=True)(labels, LOGITS)) == pytest.approx(np.mean(expected), abs=1e-6)


# By distance


def scipy_signed_distances(inside, outside):
    if not (inside.any() and outside.any()):
        return np.zeros(inside.shape)
    to_class = ndimage.distance_transform_edt(~inside)
    to_others = ndimage.distance_transform_edt(~outside)
    return np.where(inside, 1 - to_others, to_class)


@pytest.mark.parametrize("density", [0.002, 0.05, 0.5, 0.98])
def test_distances_are_scipys(density):
    rng = np.random.default_rng(2)
    inside = rng.random((2, 33, 70)) < density
    inside[0, 3, 4] = True
    outside = ~inside & (rng.random(inside.shape) < 0.9)  # the rest is on neither side
    distances = ops.convert_to_numpy(signed_distances(inside, outside))
    expected = [scipy_signed_distances(*pair) for pair in zip(inside, outside)]
    assert distances.dtype == np.float32
    np.testing.assert_allclose(distances, expected, atol=1e-5)


def test_distances_across_a_large_picture_are_exact():
    inside = np.zeros((1, 5, 600), bool)
    inside[0, 0, 0] = True
    distances = ops.convert_to_numpy(signed_distances(inside, ~inside))
    np.testing.assert_allclose(distances[0], scipy_signed_distances(inside[0], ~inside[0]), rtol=1e-6)
    assert distances[0, 4, 599] == pytest.approx(np.hypot(4, 599), rel=1e-6)


@pytest.mark.parametrize("side", ["inside", "outside"])
def test_a_class_without_an_edge_has_distance_zero(side):
    everywhere, nowhere = np.ones((1, 4, 5), bool), np.zeros((1, 4, 5), bool)
    pair = (everywhere, nowhere) if side == "inside" else (nowhere, everywhere)
    np.testing.assert_array_equal(ops.convert_to_numpy(signed_distances(*pair)), np.zeros((1, 4, 5)))


@weighted
@pytest.mark.parametrize("first", [0, 1], ids=["", "no background"])
def test_boundary_is_the_mean_of_probability_times_distance(first, weights):
    labels = LABELS.copy()
    labels[0][labels[0] == 3] = 0  # one picture without class 3
    probabilities, counted = softmax(LOGITS), labels >= 0
    pixel_weights = np.ones(LABELS.shape) if weights is None else weights.astype("float64")
    total = 0.0
    for i in range(len(labels)):
        for k in range(first, CLASSES):
            inside = labels[i] == k
            distances = scipy_signed_distances(inside, counted[i] & ~inside)
            total += (pixel_weights[i] * counted[i] * probabilities[i, ..., k] * distances).sum()
    expected = total / counted.sum() / (CLASSES - first)
    loss = Boundary(background=first == 0)(labels, LOGITS, weights)
    assert float(loss) == pytest.approx(expected, abs=1e-6)
