"""What every check does, whatever the exercise: unwritten functions, errors, shapes, hints, and its own mistakes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from course_lib.teaching import check
from course_lib.teaching.checker import CHAPTERS, Check, Report, exercises, find, judge

PROJECT = Path(__file__).resolve().parents[2]
EXERCISES = exercises()
IDS = [exercise.number for exercise in EXERCISES]


@pytest.mark.parametrize("exercise", EXERCISES, ids=IDS)
def test_the_answer_that_the_check_compares_with_passes_it(exercise):
    assert judge(exercise, exercise.answer).state == "right"


@pytest.mark.parametrize("exercise", EXERCISES, ids=IDS)
def test_the_inputs_tell_all_its_mistakes_apart(exercise):
    for mistake in exercise.mistakes:
        report = judge(exercise, mistake.answer)
        assert (report.state, report.text) == ("wrong", mistake.sentence)


@pytest.mark.parametrize("exercise", EXERCISES, ids=IDS)
def test_an_exercise_is_complete(exercise):
    assert len({mistake.sentence for mistake in exercise.mistakes}) >= 3
    assert len(exercise.hints) >= 2 and all(hint.strip() for hint in exercise.hints)
    assert len(exercise.cases()) >= 3
    assert exercise.number.startswith(tuple(CHAPTERS))
    assert getattr(check, exercise.name)(exercise.answer).ok


def test_each_chapter_has_four_to_six_exercises_in_order_and_no_name_twice():
    for chapter in CHAPTERS:
        numbers = [exercise.number for exercise in exercises(chapter)]
        assert numbers == [f"{chapter}.{k}" for k in range(1, len(numbers) + 1)] and 4 <= len(numbers) <= 6
    names = [exercise.name for exercise in EXERCISES]
    assert len(set(names)) == len(names) and not set(names) & {"hint"}


# Not written yet


def not_implemented(mask):
    raise NotImplementedError


def dots(mask):
    return ...


@pytest.mark.parametrize("function", [None, ..., not_implemented, dots, lambda mask: None])
def test_an_unwritten_function_is_told_what_is_still_to_do(function):
    report = check("01.1", function)
    assert report.state == "open" and not report
    assert (
        repr(report).startswith("○ 01.1 box_from_mask: still to do.") and "check.hint('01.1')" in report.text
    )


def test_a_branch_without_a_return_is_named():
    def half(mask):
        if mask.all():
            return None
        return find("01.1").answer(mask)

    assert check("01.1", half).text == (
        "For a mask that fills the picture your function returns nothing. Is a return missing?"
    )


# Errors, shapes, types


def test_an_error_is_one_sentence_with_its_input_and_no_traceback():
    report = check("01.2", lambda a, b: a["x1"])
    assert report.text == (
        "For the boxes (2, 1, 6, 4) and (4, 2, 9, 5) your function stopped with an error, "
        "TypeError: list indices must be integers or slices, not str."
    )


def test_a_wrong_shape_is_told_which_one_is_wanted():
    report = check("03.2", lambda x: x)
    assert report.text == (
        "For a map of 4 × 6 with one channel an array, half as high and wide is wanted, shape (2, 3, 1); "
        "your function returns shape (4, 6, 1)."
    )


def test_an_answer_that_is_no_number_is_named():
    assert check("01.2", lambda a, b: "0.2").text == (
        "For the boxes (2, 1, 6, 4) and (4, 2, 9, 5) a number, the IoU is wanted; your function returns a str."
    )


def test_a_mistake_that_nobody_foresaw_is_shown_by_its_numbers():
    def unforeseen(a, b):
        return find("01.2").answer(a, b) ** 2 + 0.25

    assert check("01.2", unforeseen).text == (
        "For the boxes (2, 1, 6, 4) and (4, 2, 9, 5) the answer is 0.1739; yours is 0.2802."
    )


def test_of_a_large_array_the_first_wrong_place_is_shown():
    def unforeseen(picture, kernel):
        right = find("03.1").answer(picture, kernel)
        right[-1, -1] += 3
        return right

    assert "1 of 25 numbers are wrong; the first is at [4, 4]:" in check("03.1", unforeseen).text


def test_a_function_that_changes_its_input_is_refused():
    def greedy(instances):
        count = len(np.unique(instances[instances > 0]))
        instances[:] = 0
        return count

    report = check("02.1", greedy)
    assert report.state == "wrong" and "your function changed what it was given" in report.text


def test_the_result_in_place_of_the_function_is_refused():
    assert check("02.1", 3).text == (
        "check wants the function itself, without brackets behind its name; this is of the type int."
    )


def test_an_exercise_that_does_not_exist_is_an_error_that_lists_what_there_is():
    with pytest.raises(ValueError, match=r"there is no exercise '01.9'; there are 01.1 \(box_from_mask\)"):
        check("01.9", len)
    with pytest.raises(AttributeError, match="check has no exercise 'boxes'; it has box_from_mask"):
        check.boxes(len)
    with pytest.raises(ValueError, match="chapter is '11'"):
        exercises("11")


# How it shows itself


def test_a_report_shows_itself_in_colours_and_in_words():
    right = check("02.1", find("02.1").answer)
    assert repr(right) == "✓ 02.1 count_objects: right on all 5 inputs." and right
    assert "#009E73" in right._repr_html_() and "right on all 5 inputs" in right._repr_html_()
    wrong = Report("wrong", "01.1 x", "a < b & c")
    assert "a &lt; b &amp; c" in wrong._repr_html_() and "#D55E00" in wrong._repr_html_()


def test_hints_unfold_one_at_a_time_and_the_last_stays():
    own = Check()
    hints = find("01.1").hints
    given = [own.hint("01.1") for _ in range(len(hints) + 1)]
    assert [report.title for report in given] == [
        f"01.1 box_from_mask, hint {min(k, len(hints))} of {len(hints)}" for k in range(1, len(hints) + 2)
    ]
    assert hints[0] in given[0].text and "2 more where this came from" in given[0].text
    assert hints[1] not in given[0].text and "That was the last hint" in given[-1].text
    assert own.hint("02.1").title.endswith("hint 1 of 2")


def test_checks_load_no_framework():
    code = (
        "import sys; from course_lib.teaching import check; "
        "check('01.1', None), check('08.1', None); "
        "print(*{'keras', 'tensorflow', 'IPython', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
