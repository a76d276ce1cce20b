"""What the tests of all chapters' checks have in common: answers that pass, and answers that are refused in words."""

import pytest

from course_lib.teaching.checker import exercises, find, judge


def class_of_tests(chapter, right, wrong):
    """A class of tests for one chapter.

    Args:
        chapter: its number, `"01"`.
        right: for each exercise's number the functions that its check has to pass.
        wrong: for each exercise's number pairs of a function and a part of the sentence that refuses it.
    """

    class TestAnswers:
        @pytest.mark.parametrize(("number", "function"), [(n, f) for n in right for f in right[n]])
        def test_a_right_answer_passes(self, number, function):
            report = judge(find(number), function)
            assert report.state == "right", report

        @pytest.mark.parametrize(
            ("number", "function", "sentence"), [(n, *pair) for n in wrong for pair in wrong[n]]
        )
        def test_a_wrong_answer_is_refused_with_its_own_sentence(self, number, function, sentence):
            report = judge(find(number), function)
            assert report.state == "wrong" and sentence in report.text, report

        def test_every_check_is_tried_with_three_wrong_and_two_right_answers(self):
            numbers = [exercise.number for exercise in exercises(chapter)]
            assert list(right) == list(wrong) == numbers
            assert all(len(set(functions)) >= 2 for functions in right.values())
            assert all(len({sentence for _, sentence in pairs}) >= 3 for pairs in wrong.values())

    return TestAnswers
