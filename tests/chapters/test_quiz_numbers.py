"""What the questions of chapters 06 to 09 say of their code and of their figures, computed."""

import io
from contextlib import redirect_stdout

import numpy as np
import pytest

from course_lib.chapters.ch06_mask_rcnn_components import question_figures as figures_06
from course_lib.chapters.ch07_mask_rcnn_training_and_limits import question_figures as figures_07
from course_lib.chapters.ch08_losses_and_metrics import question_figures as figures_08
from course_lib.chapters.ch09_one_real_case import question_figures as figures_09
from course_lib.ops import by_hand
from course_lib.teaching import questions, statistics

ASKED = {question.id: question for chapter in questions.load().quiz.values() for question in chapter}


def ran(name, **given):
    """A question's code, run: its names, and what it printed."""
    given |= {"np": np, "rng": np.random.default_rng(0)}
    with redirect_stdout(io.StringIO()) as printed:
        exec(ASKED[name].code, given)
    return given, printed.getvalue()


def right(name):
    return next(choice for choice in ASKED[name].choices if choice.right)


def test_the_matcher_takes_the_anchors_of_the_right_answer():
    matched = by_hand.match(
        figures_06.OBJECTS, list(figures_06.ANCHORS.values()), 0.7, 0.3, allow_low_quality=True
    )
    positive = [name for name, row in zip(figures_06.ANCHORS, matched, strict=True) if row >= 0]
    assert right("06-q8").answer == " and ".join(positive)
    assert list(matched) == [0, -2, -1, 1]


def test_suppression_before_decoding_leaves_duplicates_and_after_it_none():
    anchors = np.array([[0, 0, 16, 16], [16, 0, 32, 16.0]])
    target = [8, 0, 24, 16]
    deltas = np.array([by_hand.encode(target, anchor) for anchor in anchors])

    def decode(deltas, anchors):
        return np.array([by_hand.decode(*pair) for pair in zip(deltas, anchors, strict=True)])

    found, _ = ran(
        "06-q9",
        logits=np.array([2.0, 1.0]),
        anchors=anchors,
        deltas=deltas,
        decode=decode,
        suppress=by_hand.nms,
    )
    assert np.allclose(found["proposals"], [target, target])
    assert by_hand.nms(decode(deltas, anchors), [2.0, 1.0], 0.7) == [0]


def test_a_box_decoded_without_its_weights_moves_too_far():
    proposal = np.array([10.0, 10, 50, 30])
    four = by_hand.encode(proposal + [2, 0, 2, 0], proposal, weights=(10, 10, 5, 5))
    given = {
        "classes": [1],
        "deltas": np.array([[0, 0, 0, 0, *four]]),
        "proposals": [proposal],
        "boxes": [None],
    }
    found, _ = ran("06-q12", decode=by_hand.decode, **given)
    assert found["boxes"][0][0] - proposal[0] == pytest.approx(float(ASKED["06-q12"].choices[0].answer))


def test_the_anchors_of_a_wrong_stride_end_in_the_middle():
    _, printed = ran("07-q12", image_width=213, map_width=107)
    assert printed.split() == [ASKED["07-q12"].choices[0].answer]


def test_a_covered_nucleus_is_gone():
    masks = [np.zeros((9, 12), bool) for _ in range(3)]
    masks[0][3:5, 3:5] = masks[1][1:7, 1:7] = masks[2][2:5, 9:12] = True
    _, printed = ran("09-q7", masks=masks, shape=(9, 12))
    assert printed.split() == [ASKED["09-q7"].choices[0].answer]


def test_a_bootstrap_that_shuffles_has_no_width():
    scores = np.random.default_rng(1).random(45)
    found, _ = ran("09-q15", scores=scores)
    assert np.ptp(found["means"]) < 1e-12 < np.ptp([scores[:20].mean(), scores[20:].mean()])


def test_the_areas_under_the_two_curves():
    areas = []
    for hits in figures_07.DETECTORS.values():
        found = np.cumsum(hits)
        precision, recall = found / np.arange(1, len(hits) + 1), found / 20
        areas.append(np.mean([precision[recall >= r].max(initial=0) for r in np.linspace(0, 1, 101)]))
    assert right("07-q8").answer.startswith("B") and areas[1] > areas[0]
    assert right("07-q8").because.startswith(f"About {areas[1]:.2f} against {areas[0]:.1f}.")


def test_the_paired_interval_decides_where_the_two_intervals_overlap():
    a, b = figures_07.paired_scores()
    one, other, difference = (statistics.bootstrap(scores) for scores in (a, b, a - b))
    assert one.low < other.high and difference.low > 0
    assert f"by about {difference.mean:.2f}" in right("07-q14").answer
    assert f"leads on {(a > b).sum()} of the {len(a)}" in right("07-q14").because


def test_the_prices_of_tversky_move_the_cheapest_disc():
    small, large, fair = (
        figures_08.cheapest_radius(lambda p, prices=prices: figures_08.tversky(p, *prices))
        for prices in ((0.9, 0.1), (0.1, 0.9), (0.5, 0.5))
    )
    assert small < fair - 1 and abs(fair - 9.6) < 0.3 and large > fair + 1


def test_the_gradients_at_a_confidently_wrong_pixel():
    a, b = (figures_08.pull(loss, -6) for loss in (figures_08.cross_entropy, figures_08.dice))
    assert a == pytest.approx(1, abs=0.01) and a / b == pytest.approx(200, rel=0.1)


def test_the_numbers_of_the_forty_images():
    a, b = figures_08.scores_of_images()
    told = {choice.answer: choice.because for choice in ASKED["08-q12"].choices}
    for answer, number, words in (
        ("The median over the images", np.median, "{} for A and {} for B"),
        ("The mean of the best tenth", lambda x: np.sort(x)[-4:].mean(), "{} and {}"),
        ("The mean of the worst tenth", lambda x: np.sort(x)[:4].mean(), "{} for A, {} for B"),
        ("The mean Dice over the images", lambda x: np.mean(2 * x / (1 + x)), "{} and {}"),
    ):
        assert words.format(f"{number(a):.2f}", f"{number(b):.2f}") in told[answer]


def test_the_best_threshold_of_the_under_confident_network():
    thresholds = np.linspace(0.02, 0.98, 97)
    a, b = figures_08.iou_at(thresholds)
    assert f"{b.max():.2f} for B against {a.max():.2f} for A" in right("08-q14").because
    assert thresholds[b.argmax()] == pytest.approx(0.2, abs=0.03) and a[48] > b[48]


def test_the_numbers_of_the_real_case():
    case = figures_09.measured()
    images, scores = case["val"]["per_image"], case["val"]["scores"]["ap_50"]
    assert right("09-q11").answer.startswith(f"{scores['pooled']:.2f} counts all nuclei")
    assert f"mean over the images, {scores['mean_over_images']:.2f}" in right("09-q11").because
    narrow = [one for one in images if one["area"] and one["area"] < 0.85]
    assert len(narrow) == 5 and all(one["ap_75"] < 0.16 < 0.46 < one["ap_50"] for one in narrow)
    assert case["test"]["scores"]["ap_50"]["pooled"] > scores["pooled"]
    loss, validation = (np.array(figures_09.curves()[key]) for key in ("loss", "val_loss"))
    assert (
        (validation < loss).all()
        and (np.diff(validation) < 0).all()
        and validation[-2] / validation[-1] < 1.02
    )
