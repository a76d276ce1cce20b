"""`guess`: takes a number or a choice, keeps the result to itself, then says how far off the guess was."""

import builtins
import math

import pytest

from course_lib.teaching import guess as the_guesses
from course_lib.teaching.guess import Guesses


@pytest.fixture
def ask():
    return Guesses()


def test_without_a_guess_the_result_stands_alone(ask, capsys):
    q = ask("How many cells?", low=0, high=40)
    assert capsys.readouterr().out == "Your guess: How many cells? (from 0 to 40)\n"
    q.reveal(31)
    assert capsys.readouterr().out == "Result: 31 (How many cells?)\n"
    ask.summary()
    assert capsys.readouterr().out.startswith("1 results, no guess of yours.")


@pytest.mark.parametrize(
    ("question", "label"),
    [
        ("Which reason is the most common here?", "Which reason is the most common here?"),
        ("The byte 200 is there. You add 100. What is it then?", "What is it then?"),
        ("The AP at IoU 0.5 of the components?", "The AP at IoU 0.5 of the components?"),
        ("At which place is her face? (1 is the best)", "At which place is her face?"),
        ("The mask is bytes. The AP of objects …", "The AP of objects …"),
    ],
)
def test_a_result_says_what_it_is_the_result_of(ask, question, label):
    assert ask(question, low=0, high=9).label == label


@pytest.mark.parametrize(
    ("answer", "value", "said"),
    [
        (35, 31, "Your guess: 35, 4 too high."),
        ("20", 31, "Your guess: 20, 11 too low."),
        (31, 31, "Your guess: 31, which is right."),
        (0.5, 0.25, "Your guess: 0.5, 0.25 too high."),
    ],
)
def test_a_number_is_compared(ask, capsys, answer, value, said):
    ask("How many?", low=0, high=40, answer=answer).reveal(value)
    assert capsys.readouterr().out.splitlines()[-1] == said


def test_a_wide_range_is_judged_by_the_factor(ask, capsys):
    q = ask("How many parameters?", low=1e4, high=1e8, answer="1,000,000")
    q.reveal(10_000_000)
    assert capsys.readouterr().out.endswith(
        "Result: 10,000,000 (How many parameters?)\nYour guess: 1,000,000, too low by a factor of 10.\n"
    )
    assert q.score == pytest.approx(0.75)


def test_choices_and_the_summary(ask, capsys):
    ask("Which?", choices=["a", "b"], answer="b").reveal("b")
    ask("Which one?", choices=["a", "b", "c", "d"], answer="b").reveal("c")
    ask("Percent?", low=0, high=100, unit="%", answer=30).reveal(50)
    ask("Never revealed?", low=0, high=1, answer=1)
    ask("Not guessed?", low=0, high=1).reveal(0.5)
    assert "Your guess: b, which is not right." in (said := capsys.readouterr().out)
    assert "Result: 50% (Percent?)\nYour guess: 30%, 20% too low." in said
    ask.summary()
    assert capsys.readouterr().out.splitlines() == [
        "You guessed 3 of 4.",
        "Choices: 1 of 2 right; blind guessing gives 0.8.",
        "Numbers: off by 20% of the range on average; too high 0 times, too low 1 times.",
        "Calibration score: 60 of 100.",
    ]


def test_a_guess_after_the_result_does_not_count(ask):
    q = ask("How many?", low=0, high=10, answer=3)
    q.reveal(7)
    q.take(7)
    assert q.answer == 3
    again = ask("How many?", low=0, high=10)  # the cell runs again
    assert again.answer is None and len(ask._asked) == 1


@pytest.mark.parametrize("answer", ["many", 41, -1, math.nan, [3], ""])
def test_what_is_no_guess_is_refused(ask, answer):
    with pytest.raises(ValueError, match="it must be a number from 0 to 40"):
        ask("How many?", low=0, high=40, answer=answer)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"low": 0}, {"low": 1, "high": 1}, {"choices": ["a"]}, {"choices": ["a", "a"]}]
    + [{"low": 0, "high": 1, "choices": ["a", "b"]}],
)
def test_a_question_needs_a_range_or_choices(ask, arguments):
    with pytest.raises(ValueError, match="either low < high or at least two different choices"):
        ask("What?", **arguments)


@pytest.mark.parametrize(("of", "value"), [({"choices": "ab"}, "c"), ({"low": 0, "high": 1}, math.nan)])
def test_a_result_that_answers_nothing_is_refused(ask, of, value):
    with pytest.raises(ValueError, match="it must be"):
        ask("What?", **of).reveal(value)


def test_the_field_takes_the_guess_and_never_knows_the_result(ask):
    widgets = pytest.importorskip("ipywidgets")
    q = ask("How many?", low=0, high=40)
    _, control, said = q._field(widgets).children
    assert control.value == ""
    control.value = "fifty"
    assert q.answer is None and "a number from 0 to 40" in said.value
    control.value = "12"
    assert q.answer == 12 and said.value == "Taken."
    q.reveal(31)
    control.value = "31"
    assert q.answer == 12 and "stays" in said.value

    choice = ask("Which?", choices=["a", "b"])
    _, buttons, _ = choice._field(widgets).children
    assert buttons.value is None
    buttons.value = "b"
    assert choice.answer == "b"


class Shell:
    kernel = None


@pytest.mark.parametrize("installed", [True, False])
def test_a_notebook_shows_the_field_and_leaves_the_question_as_text(ask, monkeypatch, installed):
    ipython = pytest.importorskip("IPython")
    shown = []
    monkeypatch.setattr(ipython, "get_ipython", Shell)
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    if not installed:
        real = builtins.__import__

        def without(name, *rest, **more):
            if name == "ipywidgets":
                raise ImportError(name)
            return real(name, *rest, **more)

        monkeypatch.setattr(builtins, "__import__", without)
    ask("How many?", low=0, high=40)
    (data,) = shown
    assert data["text/plain"] == "Your guess: How many? (from 0 to 40)"
    assert ("application/vnd.jupyter.widget-view+json" in data) == installed


def test_the_course_has_one_of_them():
    assert isinstance(the_guesses, Guesses)
