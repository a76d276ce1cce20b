"""Checks of arguments: what passes, in which form, and what is said about what does not."""

import numpy as np
import pytest

from course_lib._checks import array_of, in_range, one_of, whole_number


def test_what_is_right_comes_back_in_its_plain_form():
    assert one_of("mode", "max", ("min", "max")) == "max"
    assert one_of("normalization", None, (None, "batch")) is None
    assert type(whole_number("depth", np.int64(4), 1)) is int
    assert type(in_range("alpha", np.float32(0.5), 0, 1)) is float
    assert in_range("alpha", np.array(2)) == 2
    assert array_of("boxes", [[0, 1, 2, 3]], shape=(None, 4)).shape == (1, 4)
    assert array_of("mask", np.ones(3, bool), "integer").dtype == bool
    assert array_of("ids", [], "integer").shape == (0,)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: one_of("mode", "mx", ("min", "max")),
            ValueError,
            r"^mode is 'mx'; it must be one of 'min', 'max'\.$",
        ),
        (lambda: one_of("stride", True, (1, 2)), ValueError, "stride is True; it must be one of 1, 2"),
        (
            lambda: whole_number("depth", 2.0, 1),
            TypeError,
            r"depth is 2\.0; it must be a whole number, at least 1",
        ),
        (lambda: whole_number("depth", True), TypeError, r"depth is True; it must be a whole number\."),
        (lambda: whole_number("depth", "4"), TypeError, "depth is '4'; it must be a whole number"),
        (
            lambda: whole_number("depth", 0, 1, 8),
            ValueError,
            "depth is 0; it must be at least 1 and at most 8",
        ),
        (lambda: in_range("rate", "1"), TypeError, "rate is '1'; it must be a number"),
        (lambda: in_range("rate", True), TypeError, "rate is True; it must be a number"),
        (lambda: in_range("rate", [1.0]), TypeError, r"rate is \[1.0\]; it must be a number"),
        (lambda: in_range("rate", np.nan, 0), ValueError, "rate is nan; it must be at least 0 and finite"),
        (lambda: in_range("rate", np.inf), ValueError, r"rate is inf; it must be finite\."),
        (
            lambda: in_range("rate", 0, 0, open_low=True),
            ValueError,
            "rate is 0; it must be above 0 and finite",
        ),
        (
            lambda: in_range("t", 1.0, 0, 1, open_high=True),
            ValueError,
            "t is 1.0; it must be at least 0 and below 1",
        ),
        (
            lambda: array_of("labels", np.array([0.5, 2]), "integer", instead="take the argmax first"),
            ValueError,
            "labels is an array of float64 from 0.5 to 2; it must hold integer values; take the argmax first",
        ),
        (
            lambda: array_of("mask", [0, 1], "boolean"),
            ValueError,
            "mask is an array of int64 .*must hold boolean",
        ),
        (
            lambda: array_of("boxes", np.zeros((2, 5)), shape=(None, 4)),
            ValueError,
            r"boxes is an array of shape \(2, 5\); it must be \(any, 4\)",
        ),
    ],
)
def test_what_is_wrong_is_named_with_what_it_must_be(call, error, words):
    with pytest.raises(error, match=words):
        call()
