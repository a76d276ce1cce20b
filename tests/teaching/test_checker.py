"""What every check does, whatever the exercise: unwritten functions, errors, endless loops, shapes, hints."""

import os
import re
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from course_lib.teaching import check, checker
from course_lib.teaching.checker import CHAPTERS, Check, Report, exercises, find, judge

PROJECT = Path(__file__).resolve().parents[2]
EXERCISES = exercises()
# What builds and trains networks takes its time, and runs on every backend.
LIVE = [pytest.mark.slow, pytest.mark.backend]
ALL = [pytest.param(one, id=one.number, marks=LIVE if one.live else ()) for one in EXERCISES]


def ways(mistake):
    return mistake if isinstance(mistake, tuple) else (mistake,)


def small_iou(a, b):
    return find("01.2").answer(a, b)


@pytest.mark.parametrize("exercise", ALL)
@pytest.mark.slow
def test_the_inputs_tell_all_its_mistakes_apart(exercise):
    for sentence, mistake in exercise.mistakes.items():
        for way in ways(mistake):
            report = judge(exercise, way)
            assert report.state == "wrong" and report.text.startswith(sentence), report
            assert f"check.case({exercise.number!r}, " in report.text


@pytest.mark.parametrize("exercise", ALL)
def test_an_exercise_is_complete(exercise):
    assert len(exercise.mistakes) >= 3
    assert len(exercise.hints) >= 2 and all(hint.strip() for hint in exercise.hints)
    assert (
        len(exercise.cases) >= (1 if exercise.measure else 3)
        and exercise.number.partition(".")[0] in CHAPTERS
    )
    for case in exercise.cases:  # sizes are tuples, all other numbers arrays
        assert not any(isinstance(one, list) and np.isscalar(one[:1]) for one in case.arguments)
    assert getattr(check, exercise.name)(exercise.answer).ok


def test_the_chapters_have_their_exercises_in_order_and_no_name_twice():
    for chapter in CHAPTERS:
        numbers = [exercise.number for exercise in exercises(chapter)]
        assert numbers == [f"{chapter}.{k}" for k in range(1, len(numbers) + 1)]
        assert 6 <= len(numbers) <= 8 if chapter <= "08" else 1 <= len(numbers) <= 2
    names = [exercise.name for exercise in EXERCISES]
    assert len(set(names)) == len(names) and not set(names) & {"hint", "case"}


# Not written yet, or not returned


def not_implemented(mask):
    raise NotImplementedError


def dots(mask):
    """The box of a mask."""
    ...  # noqa: PIE790


@pytest.mark.parametrize("function", [None, ..., not_implemented, dots, lambda mask: None, lambda mask: ...])
def test_an_unwritten_function_is_told_what_is_still_to_do(function):
    report = check("01.1", function)
    assert report.state == "open" and not report
    assert (
        repr(report).startswith("○ 01.1 box_from_mask: still to do.") and "check.hint('01.1')" in report.text
    )


def forgets(mask):
    box = find("01.1").answer(mask)
    box = box + 0


def prints(mask):
    print(mask.sum())


def returns_sometimes(mask):
    if not mask.all():
        return find("01.1").answer(mask)


def test_a_forgotten_return_is_told_from_a_function_that_is_not_begun():
    assert check("01.1", forgets).text == "Your function returns nothing (None). Is a return missing?"
    assert "print shows a value, but does not return it" in check("01.1", prints).text
    assert check("01.1", returns_sometimes).text == (
        "Input 3 (a mask that fills the image): your function returns nothing (None). Is a return missing?"
    )
    assert [check("01.1", f).state for f in (forgets, prints, returns_sometimes)] == ["wrong"] * 3


# Functions that do not come back


def endless(a, b):
    while True:
        pass


def endless_and_stubborn(a, b):
    while True:
        try:
            a = a + 0
        except BaseException:
            pass


def asleep(a, b):
    time.sleep(4)


@pytest.mark.parametrize("function", [endless, endless_and_stubborn, asleep])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["main thread", "another thread"])
def test_a_function_that_does_not_end_is_stopped(function, elsewhere, monkeypatch):
    exercise = find("01.2")
    monkeypatch.setitem(exercise.__dict__, "seconds", 0.3)
    reports, begin = [], time.monotonic()
    if elsewhere:
        thread = threading.Thread(target=lambda: reports.append(judge(exercise, function)))
        thread.start()
        thread.join()
    else:
        reports.append(judge(exercise, function))
    assert time.monotonic() - begin < 3
    assert reports[0].state == "wrong" and "was still running after 0.3 seconds in line " in reports[0].text
    assert "Is there a loop that never ends?" in reports[0].text
    assert judge(exercise, small_iou).ok


def test_a_check_answers_within_ten_seconds():
    assert max(exercise.seconds for exercise in EXERCISES if not exercise.measure) <= 8


@pytest.mark.parametrize(
    "leave", [sys.exit, lambda: os._exit(0), lambda: os.abort(), lambda: exec("raise KeyboardInterrupt")]
)
def test_a_function_that_would_end_the_program_gets_a_sentence(leave):
    report = check("01.2", lambda a, b: leave())
    assert report.state == "wrong" and re.search(
        "tried to end the program in line|KeyboardInterrupt", report.text
    )
    assert os._exit.__module__ == "posix" or os.name == "nt"


# Errors, shapes, types


def stops(a, b):
    width = a[2] - b[0]
    return width / columns  # noqa: F821


def test_an_error_is_one_sentence_with_its_input_and_the_learner_s_own_line():
    report = check("01.2", stops)
    line = stops.__code__.co_firstlineno + 2
    assert report.text == (
        "Input 1 (the boxes (2, 1, 6, 4) and (4, 2, 9, 5)): your function stopped in "
        f"line {line} of test_checker.py, 'return width / columns  # noqa: F821' with NameError: name 'columns' is not "
        "defined. To get this input: check.case('01.2', 1)"
    )


def test_a_cell_s_line_is_told_without_its_file():
    space = {}
    exec(compile("def f(a, b):\n    return a / None\n", "/" + "tmp/ipykernel_12/345.py", "exec"), space)
    assert "stopped in line 2 with TypeError" in check("01.2", space["f"]).text


def test_an_error_inside_numpy_is_told_with_the_line_that_called_it():
    report = check("01.2", lambda a, b: np.reshape(a, (3, 3)))
    assert "of test_checker.py" in report.text and "ValueError: cannot reshape array" in report.text


ANSWERS = {
    "a str": "0.2",
    "an array of text, not of real numbers": np.array(["0", "1"]),
    "an array of objects, not numbers": np.array([None, "x"], dtype=object),
    "a complex of complex numbers, not of real numbers": 1 + 2j,
    "a dict": {"iou": 0.2},
    "a set": {0.2},
    "a list whose parts do not have the same shape": [[1, 2], [3]],
    "an array of shape (3000, 3000)": np.zeros((3000, 3000)),
    "an array of shape (1,)": np.array([0.2]),
    "an array of shape (4, 1)": np.ones((4, 1)),
}


@pytest.mark.parametrize("words", ANSWERS)
def test_what_is_not_the_expected_kind_of_answer_is_named(words):
    report = check("01.2", lambda a, b: ANSWERS[words])
    assert report.state == "wrong"
    assert (
        f"expected a number, the IoU{', a single one' * ('shape (' in words)}; your function returns {words}."
        in report.text
    )


def test_a_generator_is_told_from_its_values():
    assert "a generator, which has not computed anything yet; turn it into a list with list(...)" in (
        check("01.5", lambda mask: (k for k in (1, 2))).text
    )


@pytest.mark.parametrize(
    "kind", [np.float32, np.float64, Fraction, float, lambda x: np.array(x), lambda x: np.float16(x)]
)
def test_a_right_number_passes_in_every_type_that_holds_it(kind):
    report = check("01.2", lambda a, b: kind(small_iou(a, b)))
    assert report.ok or "expected 0.1739, got 0.174." in report.text  # float16 has three digits


def test_a_wrong_shape_is_told_which_one_is_expected():
    assert check("03.2", lambda x: x).text.startswith(
        "Input 1 (a feature map of 4 × 6 with one channel): expected an array, half as high and wide, shape (2, 3, 1); "
        "your function returns an array of shape (4, 6, 1)."
    )


def test_wrong_parameters_are_told():
    assert check("01.2", lambda box: 0).text == (
        "Your function is called with 2 arguments; it is written for (box). Keep the parameters as given."
    )


def test_a_mistake_that_nobody_foresaw_is_shown_by_its_numbers():
    assert "expected 0.1739, got 0.2802." in check("01.2", lambda a, b: small_iou(a, b) ** 2 + 0.25).text
    # As many digits as tell the two apart.
    assert "expected 0.17391304, got 0.17389304." in check("01.2", lambda a, b: small_iou(a, b) - 2e-5).text


def test_a_function_that_changes_its_input_is_refused():
    def greedy(instances):
        count = len(np.unique(instances[instances > 0]))
        instances[:] = 0
        return count

    right, wrong = check("02.1", greedy), check("02.1", lambda m: m.fill(3) or 7)
    assert "the answer is right, but your function changes what it was given" in right.text
    assert "It also changes its input: work on a copy." in wrong.text
    assert check("02.1", lambda m: 7).state == "wrong" and find("02.1").cases[0].arguments[0].max() == 3


def test_the_result_in_place_of_the_function_is_refused():
    assert check("02.1", 3).text == (
        "check needs the function itself, without brackets after its name: check('02.1', count_objects). This is an int."
    )


def test_the_input_that_failed_can_be_had():
    a, b = check.case("01.2", 3)
    assert a.tolist() == [0, 0, 10, 10] and b.tolist() == [2, 3, 6, 8]
    a[:] = 7
    assert check.case("box_iou", 3)[0].tolist() == [0, 0, 10, 10]
    for case in (0, 8, "1", True):
        with pytest.raises(
            ValueError, match=re.escape(f"case is {case!r}; it must be a whole number from 1 to 7.")
        ):
            check.case("01.2", case)


def test_an_exercise_that_does_not_exist_is_an_error_that_lists_what_there_is():
    with pytest.raises(ValueError, match=r"there is no exercise '01.9'; there are 01.1 \(box_from_mask\)"):
        check("01.9", len)
    with pytest.raises(AttributeError, match="check has no exercise 'boxes'; it has box_from_mask"):
        check.boxes(len)
    with pytest.raises(ValueError, match="chapter is '99'; it must be one with exercises: 01, "):
        exercises("99")


# How it shows itself


def test_a_report_shows_itself_in_colours_and_in_words():
    right = check("02.1", find("02.1").answer)
    assert repr(right) == "✓ 02.1 count_objects: right on all 5 inputs." and right
    assert "#009E73" in right._repr_html_() and "right on all 5 inputs" in right._repr_html_()
    wrong = Report("wrong", "01.1 x", "a < b & c")
    assert "a &lt; b &amp; c" in wrong._repr_html_() and "#D55E00" in wrong._repr_html_()


def test_hints_unfold_one_at_a_time_and_the_last_stays():
    own, hints = Check(), find("01.1").hints
    given = [own.hint("01.1") for _ in range(len(hints) + 1)]
    assert [report.title for report in given] == [
        f"01.1 box_from_mask, hint {min(k, len(hints))} of {len(hints)}" for k in range(1, len(hints) + 2)
    ]
    assert hints[0] in given[0].text and "2 more to come." in given[0].text
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


def test_the_line_is_known_whatever_a_library_does_in_between():
    assert checker._OTHERS and np.__file__.startswith(checker._OTHERS)
