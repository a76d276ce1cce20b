"""What an exercise is: inputs, the right answer, the mistakes that people make, hints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    """One input that the learner's function is tried on.

    Attributes:
        words: the input in words, fit to follow "for": `"two boxes that do not meet"`.
        arguments: what the function is called with. A copy is given, so that nothing can be changed in place.
        note: what to think of where this case is wrong and no known mistake explains it.
    """

    words: str
    arguments: tuple
    note: str = ""


@dataclass(frozen=True)
class Mistake:
    """A mistake that people make, as a function that makes it.

    Attributes:
        sentence: what the learner is told.
        answer: gives what one gets by making the mistake, for the arguments of any case. Where the learner's function
            agrees with it on every case that went wrong, this was the mistake.
    """

    sentence: str
    answer: Callable[..., Any]


@dataclass(frozen=True)
class Form:
    """What an answer has to look like, and when two answers are the same.

    Attributes:
        words: what is wanted, such as `"four numbers x1, y1, x2, y2"`.
        same: whether two arrays of the same shape are the same answer.
        ragged: whether answers may be of different lengths (a list of rows), so that a wrong length is a wrong answer
            and no wrong form.
        contrast: says how two answers differ, `(given, wanted)`; by default the numbers are written out.
    """

    words: str
    same: Callable[[np.ndarray, np.ndarray], bool]
    ragged: bool = False
    contrast: Callable[[np.ndarray, np.ndarray], str] | None = None


@dataclass(frozen=True)
class Exercise:
    """An exercise with its check.

    Attributes:
        number: chapter and place in it, `"01.2"`.
        name: what the learner's function is called.
        form: what an answer looks like.
        cases: makes the inputs, the plainest first.
        answer: the right answer. It is an implementation of its own; the tests hold it against `course_lib` and against
            independent software.
        mistakes: those that are recognised; where two fit equally well the first is named.
        hints: unfold one at a time, from a nudge to nearly the answer.
        probe: looks at a function whose answers were all right; returns what is still wrong with it, or nothing.
    """

    number: str
    name: str
    form: Form
    cases: Callable[[], Sequence[Case]]
    answer: Callable[..., Any]
    mistakes: tuple[Mistake, ...]
    hints: tuple[str, ...]
    probe: Callable[[Callable[..., Any]], str | None] | None = None


def close(tolerance: float) -> Callable[[np.ndarray, np.ndarray], bool]:
    """Whether two arrays agree within a tolerance, absolute and relative; NaN agrees with NaN."""

    def same(a, b):
        return bool(np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True))

    return same


def number(words: str = "a number", tolerance: float = 1e-6) -> Form:
    return Form(words, close(tolerance))


def array(words: str, tolerance: float = 1e-5) -> Form:
    return Form(words, close(tolerance))


def rows(words: str) -> Form:
    return Form(words, lambda a, b: a.shape == b.shape and bool(np.array_equal(a, b)), ragged=True)


def labels(words: str) -> Form:
    """Maps of objects: the same where they part the pixels alike, whatever the numbers; 0 stays 0."""

    def same(a, b):
        pairs = set(zip(a.ravel().tolist(), b.ravel().tolist(), strict=True))
        if any((x == 0) != (y == 0) for x, y in pairs):
            return False
        return len(pairs) == len({x for x, _ in pairs}) == len({y for _, y in pairs})

    def contrast(given, wanted):
        yours, right = (len(np.unique(one[one != 0])) for one in (given, wanted))
        if yours == right:
            return f"there are {right} objects, as in your answer, but not of the same pixels"
        return f"there are {right} objects; your answer has {yours}"

    return Form(words, same, contrast=contrast)
