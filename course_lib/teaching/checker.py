"""Checks that answer in words: what is wrong with a function, not only that something is.

A check runs the learner's function on a handful of inputs and compares with the right answer. Where something differs,
it asks whether one of the mistakes that people make gives the very same wrong numbers; if so, that mistake is named.
"""

from __future__ import annotations

import copy
import html
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from course_lib.teaching import discovery
from course_lib.teaching.exercise import Case, Exercise, Form

CHAPTERS = tuple(discovery.with_module("exercises"))
"""Chapters with exercises. `chapter_<number>.py` in this folder holds them, as a tuple `EXERCISES`."""

COLOURS = {"right": "#009E73", "wrong": "#D55E00", "open": "#767676"}
MARKS = {"right": "✓", "wrong": "✗", "open": "○"}


@dataclass(frozen=True)
class Report:
    """What a check found.

    Attributes:
        state: `"right"`, `"wrong"`, or `"open"` where nothing was written yet.
        title: number and name of the exercise.
        text: one or two sentences.
    """

    state: str
    title: str
    text: str

    @property
    def ok(self) -> bool:
        return self.state == "right"

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        return f"{MARKS[self.state]} {self.title}: {self.text}"

    def _repr_html_(self) -> str:
        colour = COLOURS[self.state]
        return (
            f'<div style="border-left: 5px solid {colour}; padding: 4px 12px; margin: 4px 0">'
            f'<b style="color: {colour}">{MARKS[self.state]} {html.escape(self.title)}</b><br>'
            f"{html.escape(self.text)}</div>"
        )


class Check:
    """`check("01.2", function)`, or by name `check.box_iou(function)`; and `check.hint("01.2")`."""

    def __init__(self):
        self._hints_given: dict[str, int] = {}

    def __call__(self, number: str, function: Any) -> Report:
        """Look at a function.

        Args:
            number: of the exercise, such as `"01.2"`, or its name.
            function: the learner's, itself and not what it returns.

        Returns:
            A `Report`; in a notebook it shows itself when it is the last line of a cell.

        Raises:
            ValueError: if there is no such exercise.
        """
        return judge(find(number), function)

    def hint(self, number: str) -> Report:
        """The next hint to an exercise; after the last one, the last again.

        Raises:
            ValueError: if there is no such exercise.
        """
        exercise = find(number)
        given = min(self._hints_given.get(exercise.number, 0) + 1, len(exercise.hints))
        self._hints_given[exercise.number] = given
        left = len(exercise.hints) - given
        more = f"{left} more where this came from." if left else "That was the last hint."
        title = f"{exercise.number} {exercise.name}, hint {given} of {len(exercise.hints)}"
        return Report("open", title, f"{exercise.hints[given - 1]} ({more})")

    def __getattr__(self, name: str) -> Callable[[Any], Report]:
        if name.startswith("_") or not (found := [e for e in exercises() if e.name == name]):
            raise AttributeError(f"check has no exercise {name!r}; it has {', '.join(self.__dir__())}.")
        return lambda function: judge(found[0], function)

    def __dir__(self) -> list[str]:
        return [*(exercise.name for exercise in exercises()), "hint"]


check = Check()


def exercises(chapter: str | None = None) -> list[Exercise]:
    """The exercises of a chapter such as `"01"`, or all.

    Raises:
        ValueError: if the chapter has none.
    """
    if chapter is not None and chapter not in CHAPTERS:
        raise ValueError(f"chapter is {chapter!r}; there are exercises for {', '.join(CHAPTERS)}.")
    found = []
    for each in CHAPTERS if chapter is None else [chapter]:
        found += import_module(discovery.with_module("exercises")[each]).EXERCISES
    return found


def find(number: str) -> Exercise:
    """The exercise of this number or name, or a `ValueError` that lists what there is."""
    chapter = str(number).partition(".")[0]
    for exercise in exercises(chapter if chapter in CHAPTERS else None):
        if number in (exercise.number, exercise.name):
            return exercise
    known = ", ".join(f"{exercise.number} ({exercise.name})" for exercise in exercises())
    raise ValueError(f"there is no exercise {number!r}; there are {known}.")


def judge(exercise: Exercise, function: Any) -> Report:
    """Look at one function; see `Check.__call__`."""

    def report(state, text):
        return Report(state, f"{exercise.number} {exercise.name}", text)

    to_do = f"still to do. Fill in the function, run its cell and this one again; a hint: check.hint({exercise.number!r})"
    if function is None or function is ...:
        return report("open", to_do)
    if not callable(function):
        kind = type(function).__name__
        words = (
            f"check wants the function itself, without brackets behind its name; this is of the type {kind}."
        )
        return report("wrong", words)

    cases = exercise.cases()
    given = [attempt(function, case) for case in cases]
    if all(isinstance(one, NotWritten) for one in given):
        return report("open", to_do)
    for case, one in zip(cases, given, strict=True):
        if isinstance(one, NotWritten):
            return report("wrong", f"For {case.words} your function returns nothing. Is a return missing?")

    wanted = [as_array(exercise.answer(*copy.deepcopy(case.arguments))) for case in cases]
    wrong = [k for k in range(len(cases)) if not agrees(exercise.form, given[k], wanted[k])]
    if wrong:
        if sentence := recognised(exercise, cases, given, wrong):
            return report("wrong", sentence)
        return report("wrong", described(exercise.form, cases[wrong[0]], given[wrong[0]], wanted[wrong[0]]))
    if changed := [case for case in cases if changes_its_input(function, case)]:
        words = f"Right, but for {changed[0].words} your function changed what it was given; work on a copy."
        return report("wrong", words)
    if exercise.probe and (sentence := exercise.probe(function)):
        return report("wrong", sentence)
    return report("right", f"right on all {len(cases)} inputs.")


# One call of the learner's function


class NotWritten:
    """The answer of a function that nobody has written yet."""


@dataclass(frozen=True)
class Failed:
    """The answer of a function that stopped with an error."""

    error: Exception


def attempt(function: Callable, case: Case) -> np.ndarray | NotWritten | Failed | Any:
    """What the function answers for a case: an array where it can be read as one."""
    try:
        # A warning about 0 / 0 would say the same as the check, only less plainly.
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            answer = function(*copy.deepcopy(case.arguments))
    except NotImplementedError:
        return NotWritten()
    except Exception as error:  # whatever a learner's function does wrong becomes a sentence
        return Failed(error)
    return NotWritten() if answer is None or answer is ... else as_array(answer)


def as_array(answer: Any) -> Any:
    """An answer as a NumPy array of numbers; what cannot be one is returned as it is."""
    try:
        read = np.asarray(answer)
    except (TypeError, ValueError):
        return answer
    return read if read.dtype.kind in "biuf" else answer


def agrees(form: Form, given: Any, wanted: np.ndarray) -> bool:
    if not isinstance(given, np.ndarray):
        return False
    return (form.ragged or given.shape == wanted.shape) and form.same(given, wanted)


def changes_its_input(function: Callable, case: Case) -> bool:
    """Whether the arrays or lists that the function is given are others afterwards."""
    given = copy.deepcopy(case.arguments)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        function(*given)
    return any(not _equal(old, new) for old, new in zip(case.arguments, given, strict=True))


def _equal(old: Any, new: Any) -> bool:
    if isinstance(old, (list, tuple)):
        return len(old) == len(new) and all(map(_equal, old, new))
    # Anything else, such as a generator of random numbers, may well change.
    return not isinstance(old, np.ndarray) or np.array_equal(old, new, equal_nan=old.dtype.kind == "f")


# What is wrong, in words


def recognised(exercise: Exercise, cases: list[Case], given: list, wrong: list[int]) -> str | None:
    """The sentence of the mistake that gives the same wrong answers, or nothing."""
    best, sentence = 0, None
    for mistake in exercise.mistakes:
        theirs = [attempt(mistake.answer, case) for case in cases]
        alike = [_alike(exercise.form, a, b) for a, b in zip(given, theirs, strict=True)]
        # A mistake that explains every wrong answer; of several, the one that is like the function on most inputs.
        if all(alike[k] for k in wrong) and sum(alike) > best:
            best, sentence = sum(alike), mistake.sentence
    return sentence


def _alike(form: Form, a: Any, b: Any) -> bool:
    if isinstance(a, Failed) and isinstance(b, Failed):
        return type(a.error) is type(b.error)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.shape == b.shape and form.same(a, b)
    return False


def described(form: Form, case: Case, given: Any, wanted: np.ndarray) -> str:
    """What went wrong on one case, where no known mistake explains it."""
    note = f" {case.note}" if case.note else ""
    if isinstance(given, Failed):
        error = f"{type(given.error).__name__}: {given.error}".rstrip(": ").rstrip(".")
        return f"For {case.words} your function stopped with an error, {error}.{note}"
    if not isinstance(given, np.ndarray):
        return f"For {case.words} {form.words} is wanted; your function returns a {type(given).__name__}."
    if given.shape != wanted.shape and not form.ragged:
        if not given.shape and not wanted.shape:
            return f"For {case.words} {form.words} is wanted."
        return (
            f"For {case.words} {form.words} is wanted, shape {wanted.shape}; "
            f"your function returns shape {given.shape}.{note}"
        )
    if form.contrast:
        return f"For {case.words} {form.contrast(given, wanted)}.{note}"
    if wanted.ndim <= 1 and wanted.size <= 12 and given.size <= 24:
        return f"For {case.words} the answer is {written(wanted)}; yours is {written(given)}.{note}"
    apart = np.argwhere(~np.isclose(given, wanted, rtol=1e-5, atol=1e-5, equal_nan=True))
    place = tuple(int(k) for k in apart[0]) if len(apart) else ()
    return (
        f"For {case.words} {len(apart)} of {wanted.size} numbers are wrong; the first is at {list(place)}: "
        f"{written(wanted[place])} is right, yours is {written(given[place])}.{note}"
    )


def written(values: np.ndarray) -> str:
    """Numbers as one would write them: whole ones without a point, others with four digits."""
    if values.dtype == bool:
        texts = [str(bool(value)) for value in values.ravel()]
    else:
        texts = [f"{value:.4g}" if abs(value) < 1e5 else f"{value:.6g}" for value in values.ravel().tolist()]
    return texts[0] if not values.shape else f"[{', '.join(texts)}]"
