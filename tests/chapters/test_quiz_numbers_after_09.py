"""What the questions of chapters 09b, 09c, 12 and A say of their code and of their figures, computed."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from course_lib.chapters.ch09b_your_own_data import question_figures as figures_09b
from course_lib.chapters.ch09c_case_files import question_figures as figures_09c
from course_lib.chapters.ch12_pretrained_and_after import question_figures as figures_12
from course_lib.chapters.chA_many_devices import question_figures as figures_A
from course_lib.teaching import questions

ASKED = {question.id: question for chapter in questions.load().quiz.values() for question in chapter}


def ran(name, **given):
    """The names that a question's code leaves."""
    given["np"] = np
    exec(ASKED[name].code, given)
    return given


def right(name):
    return next(choice.answer for choice in ASKED[name].choices if choice.right)


def told(name, figure):
    """Whether each number of a figure's lines that its alternative text names is drawn there, to two digits."""
    drawn = np.concatenate(
        [
            np.concatenate([line.get_xdata(), line.get_ydata()])
            for axis in figure.axes
            for line in axis.get_lines()
        ]
    )
    numbers = [float(number) for number in re.findall(r"\d+\.\d+", ASKED[name].figure)]
    return numbers and all(np.isclose(drawn, number, rtol=0.02, atol=0.006).any() for number in numbers)


def test_a_missing_label_leaves_one_pair_right(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for part in ("images", "labels"):
        (tmp_path / "mine" / part).mkdir(parents=True)
        for dish in "abcde":
            for field in (1, 2):
                Path("mine", part, f"dish-{dish}-{field}.png").touch()
    Path("mine/labels/dish-a-2.png").unlink()
    pairs = ran("09b-q7", Path=Path)["pairs"]
    assert sum(image.name == label.name for image, label in pairs) == float(right("09b-q7"))


def test_the_expression_that_matches_the_whole_name_keeps_nothing_together():
    groups = []

    def check_folder(path, classes, group):
        groups.append(group)

    ran("09b-q8", datasets=SimpleNamespace(check_folder=check_folder))
    names = [f"P{patient:02d}_slice_{number:03d}" for patient in range(40) for number in range(25)]
    assert len({re.search(groups[0], name)[0] for name in names}) == 1000
    assert len({re.search(r"P\d+", name)[0] for name in names}) == 40


def test_the_ring_without_its_hole():
    truth, filled = (axis.get_images()[0].get_array() > 0.5 for axis in figures_09b.ring().axes)
    assert (truth & filled).sum() / (truth | filled).sum() == pytest.approx(0.75, abs=0.005)


def test_a_resized_label_map_has_classes_between():
    before, after = (axis.get_images()[0].get_array() for axis in figures_09b.resized_labels().axes)
    assert set(np.unique(before)) == {1, 5} and set(np.unique(after)) == {1, 2, 3, 4, 5}


def test_the_second_network_lies_on_the_curve_of_the_first():
    curve, first, second = figures_09b.weighted().axes[0].get_lines()
    for point in (first, second):
        recall, precision = point.get_data()
        assert np.interp(recall, curve.get_xdata()[::-1], curve.get_ydata()[::-1]) == pytest.approx(
            precision, abs=0.01
        )
    assert second.get_xdata() > first.get_xdata()


def test_exchanged_denominators_make_a_merge_a_split():
    truth = np.array([1, 1, 1, 2, 2, 2])
    first, second, score = ran("09c-q8")["rand"](truth, np.ones(6))
    assert (first, second) == (1.0, 0.5)  # right must be 0.5 and kept 1
    assert score == pytest.approx(float(right("09c-q9")), abs=0.005)


def test_the_nearest_image_is_the_image_itself():
    names = ["a", "b", "c"]
    found = ran(
        "09c-q14",
        frames={"a": 1, "b": 3, "c": 5},
        labels={name: name for name in names},
        val=["b"],
        iou=lambda one, other: float(one == other),
    )
    assert found["copied"] == [1.0]


def test_the_shifted_pole():
    truth = np.zeros((20, 10), bool)
    truth[2:18, 4:6] = True
    assert figures_09c._iou(truth, np.roll(truth, 1, 1)) == pytest.approx(float(right("09c-q13")), abs=0.01)


@pytest.mark.parametrize(
    ("name", "draw"),
    [
        ("09b-q9", figures_09b.dishes),
        ("09b-q12", figures_09b.weighted),
        ("09c-q5", figures_09c.copied_labels),
        ("09c-q7", figures_09c.thresholds),
        ("09c-q12", figures_09c.two_conventions),
        ("A-q6", figures_A.shard_sizes),
    ],
)
def test_an_alternative_text_names_numbers_that_are_drawn(name, draw):
    assert told(name, draw())


def test_each_objects_cheapest_query_and_the_matching():
    cost = np.array(figures_12.costs().axes[0].get_images()[0].get_array())
    assert ran("12-q13", cost=cost)["query"].tolist() == [0, 1, 1]
    rows, columns = linear_sum_assignment(cost)
    assert columns.tolist() == [0, 2, 1] and cost[rows, columns].tolist() == [0.4, 1.3, 0.6]


def test_the_loss_of_the_batch_from_sums_and_counts():
    shards = [
        SimpleNamespace(labels=np.array([0] * 100)),
        SimpleNamespace(labels=np.array([1] * 300 + [-1] * 9)),
    ]
    given = ran(
        "A-q7", model=None, shards=shards, loss_sum=lambda _, shard: 80.0 if shard is shards[0] else 120.0
    )
    results = {}
    for choice in ASKED["A-q7"].choices:
        exec(choice.answer, given)
        results[choice.answer] = given["loss"]
    assert results.pop(right("A-q7")) == pytest.approx(float(right("A-q8")))
    assert all(abs(value - 0.5) > 0.05 for value in results.values())


def test_the_ring_after_two_messages_needs_four_more():
    counts = np.array(figures_A.ring().axes[1].get_images()[0].get_array())
    assert ASKED["A-q9"].figure.endswith(
        "; ".join(f"device {k} has {', '.join(map(str, row))}" for k, row in enumerate(counts)) + "."
    )
    assert counts.max() == 3  # of four: one message more completes a piece, three more hand it to all
    assert float(right("A-q9")) == (4 - counts.max()) + 3


def test_the_speed_up_approaches_one_over_the_serial_fraction():
    curve, limit = figures_A.speed_up().axes[0].get_lines()
    assert curve.get_ydata()[-1] < limit.get_ydata()[0] == 100 / float(right("A-q11"))


def test_rounding_is_far_below_another_loss():
    rounding, other = (line.get_ydata() for line in figures_A.two_checks().axes[0].get_lines())
    assert rounding.max() < 1e-6 < 1e-3 < other.min()


@pytest.fixture(autouse=True)
def closed():
    """No figure stays open."""
    import matplotlib.pyplot as plt

    yield
    plt.close("all")
