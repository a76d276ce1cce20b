"""Checks that answer in words: what is wrong with a function, not only that something is.

A check runs the learner's function on a handful of inputs and compares with the right answer. Where something differs,
it asks whether one of the mistakes that people make gives the very same wrong numbers; if so, that mistake is named.

The function runs in a thread of its own, which works in a notebook's kernel and on every system alike: when the time is
up the check answers and stops the thread.
"""

import contextvars
import copy
import ctypes
import dis
import html
import inspect
import linecache
import os
import sys
import sysconfig
import threading
import time
import traceback
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from course_lib import resources
from course_lib.teaching import discovery, progress
from course_lib.teaching.exercise import Case, Exercise, Form

CHAPTERS = tuple(discovery.with_module("exercises"))
"""Chapters with exercises: those whose package has an `exercises.py`, which holds them as `EXERCISES`."""

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
    """`check("01.2", function)` or `check.box_iou(function)`; `check.hint("01.2")`; `check.case("01.2", 3)`."""

    def __init__(self):
        self._hints_given: dict[str, int] = {}

    def __call__(self, number: str, function: Any) -> Report:
        """Look at a function; the answer comes within ten seconds even if the function never ends.

        Args:
            number: of the exercise, such as `"01.2"`, or its name.
            function: the learner's, itself and not what it returns.

        Returns:
            A `Report`; in a notebook it shows itself when it is the last line of a cell.

        Raises:
            ValueError: if there is no such exercise.
        """
        return self._looked_at(find(number), function)

    def _looked_at(self, exercise: Exercise, function: Any) -> Report:
        report = judge(exercise, function)
        if report.state != "open":
            progress.exercise(exercise.number, report.ok)
        return report

    def hint(self, number: str) -> Report:
        """The next hint to an exercise; after the last one, the last again.

        Raises:
            ValueError: if there is no such exercise.
        """
        exercise = find(number)
        given = min(self._hints_given.get(exercise.number, 0) + 1, len(exercise.hints))
        self._hints_given[exercise.number] = given
        left = len(exercise.hints) - given
        more = f"{left} more to come." if left else "That was the last hint."
        title = f"{exercise.number} {exercise.name}, hint {given} of {len(exercise.hints)}"
        return Report("open", title, f"{exercise.hints[given - 1]} ({more})")

    def case(self, number: str, case: int) -> tuple:
        """The arguments of one of the inputs that a check tries: `box_iou(*check.case("01.2", 3))`.

        Args:
            number: of the exercise, such as `"01.2"`, or its name.
            case: number of the input, from 1, as the check names it.

        Returns:
            A copy of the arguments, to be passed on with a star.

        Raises:
            ValueError: if there is no such exercise or no such input.
        """
        cases = find(number).cases
        if isinstance(case, bool) or not isinstance(case, int) or not 1 <= case <= len(cases):
            raise ValueError(f"case is {case!r}; it must be a whole number from 1 to {len(cases)}.")
        return copy.deepcopy(cases[case - 1].arguments)

    def __getattr__(self, name: str) -> Callable[[Any], Report]:
        if name.startswith("_") or not (found := [e for e in exercises() if e.name == name]):
            raise AttributeError(f"check has no exercise {name!r}; it has {', '.join(self.__dir__())}.")
        return lambda function: self._looked_at(found[0], function)

    def __dir__(self) -> list[str]:
        return [*(exercise.name for exercise in exercises()), "hint", "case"]


check = Check()


def exercises(chapter: str | None = None) -> list[Exercise]:
    """The exercises of a chapter such as `"01"`, or all.

    Raises:
        ValueError: if the chapter has none.
    """
    if chapter is not None and chapter not in CHAPTERS:
        raise ValueError(f"chapter is {chapter!r}; it must be one with exercises: {', '.join(CHAPTERS)}.")
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
    state, text = _judged(exercise, function)
    return Report(state, f"{exercise.number} {exercise.name}", text)


def _judged(exercise: Exercise, function: Any) -> tuple[str, str]:
    number, cases, form = exercise.number, exercise.cases, exercise.form
    to_do = f"still to do. Fill in the function, run its cell and then this one again. For a hint: check.hint({number!r})"
    if function is None or function is ...:
        return "open", to_do
    if not callable(function):
        kind = _a(type(function).__name__)
        call = f"check({number!r}, {exercise.name})"
        return (
            "wrong",
            f"check needs the function itself, without brackets after its name: {call}. This is {kind}.",
        )
    if words := _wrong_parameters(function, exercise):
        return "wrong", words

    deadline = time.monotonic() + exercise.seconds
    tried: list[Attempt] = []
    for case in cases:
        tried.append(attempt(exercise, function, case, deadline))
        if isinstance(tried[-1].value, Late):
            text = f"{_input(cases, len(tried) - 1)}: your function was still running after {exercise.seconds:g} seconds"
            return (
                "wrong",
                f"{text}{_in_line(tried[-1].value.where)} and was stopped. Is there a loop that never ends?",
            )
    nothing = [k for k, one in enumerate(tried) if isinstance(one.value, NotWritten)]
    if len(nothing) == len(cases) and (tried[0].value.announced or _is_empty(function)):
        return "open", to_do
    if nothing:
        everywhere = (
            "Your function" if len(nothing) == len(cases) else f"{_input(cases, nothing[0])}: your function"
        )
        shown = (
            " print shows a value, but does not return it." if _names(function) & {"print", "display"} else ""
        )
        return "wrong", f"{everywhere} returns nothing (None). Is a return missing?{shown}"

    answers = [_ours(exercise, exercise.answer, k) for k in range(len(cases))]
    wrong = [k for k in range(len(cases)) if not agrees(form, tried[k].value, answers[k])]
    if wrong:
        given, first = [one.value for one in tried], wrong[0]
        words = recognised(exercise, given, wrong) or described(
            form, cases, first, given[first], answers[first]
        )
        also = " It also changes its input: work on a copy." if any(one.changed for one in tried) else ""
        return "wrong", f"{words}{also} To get this input: check.case({number!r}, {first + 1})"
    if changed := [k for k, one in enumerate(tried) if one.changed]:
        words = "the answer is right, but your function changes what it was given. Work on a copy"
        return "wrong", f"{_input(cases, changed[0])}: {words}, such as np.array(x)."
    if exercise.probe:
        found = run(exercise.probe, (function,), time.monotonic() + exercise.seconds)
        if isinstance(found, (Late, Failed)):
            return "wrong", f"Your function was right on all inputs, but then it {_went_wrong(found)}."
        if found:
            return "wrong", found
    return "right", exercise.passed or f"right on all {len(cases)} inputs."


# One call of the learner's function


@dataclass(frozen=True)
class NotWritten:
    """The answer of a function that returns nothing; `announced` where it raised `NotImplementedError`."""

    announced: bool = False


@dataclass(frozen=True)
class Failed:
    """The answer of a function that stopped with an error, and the learner's line in which it did."""

    error: BaseException
    where: str = ""


@dataclass(frozen=True)
class Late:
    """The answer of a function that did not end in time, and the learner's line in which it was."""

    where: str = ""


@dataclass(frozen=True)
class Odd:
    """An answer that is not numbers, in words."""

    words: str


@dataclass(frozen=True)
class Attempt:
    """What a function answered (an array, or one of the above), and whether it changed its input."""

    value: Any
    changed: bool = False


class _Stop(SystemExit):
    """Raised in a thread whose time is up. (A thread may end with a `SystemExit` without a word.)"""


def attempt(exercise: Exercise, function: Callable, case: Case, deadline: float = np.inf) -> Attempt:
    """Call a function on a copy of a case's arguments, or measure what it does."""
    given, call = copy.deepcopy(case.arguments), function
    if exercise.measure:
        call = partial(exercise.measure, function)
    value = run(lambda: as_array(call(*given)), (), deadline)
    if isinstance(value, Failed) and isinstance(value.error, NotImplementedError):
        value = NotWritten(announced=True)
    changed = any(not _equal(old, new) for old, new in zip(case.arguments, given, strict=True))
    return Attempt(value, changed)


_measured: dict[tuple, Any] = {}


def _ours(exercise: Exercise, function: Callable, k: int) -> Any:
    """What a function of the exercise itself gives for a case; what takes long to measure is measured once."""
    if not exercise.measure:
        return attempt(exercise, function, exercise.cases[k]).value
    if hasattr(function, "found"):  # marked with `exercise.known`
        return np.array(function.found)
    key = exercise.number, function, k
    if key not in _measured:
        _measured[key] = attempt(exercise, function, exercise.cases[k]).value
    return _measured[key]


def run(function: Callable, arguments: tuple, deadline: float = np.inf) -> Any:
    """What a function returns; `Failed` or `Late` where it does not."""
    result: list[Any] = []

    def work():
        try:
            result.append(function(*arguments))
        except _Stop:
            pass
        except BaseException as error:  # whatever a learner's function does wrong becomes a sentence
            result.append(Failed(error, _own_line(traceback.walk_tb(error.__traceback__))))

    # A warning about 0 / 0 would say the same as the check, only less plainly.
    with warnings.catch_warnings(), np.errstate(all="ignore"), _no_way_out():
        warnings.simplefilter("ignore")
        thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True)
        thread.start()
        where = ""
        try:
            while thread.is_alive() and time.monotonic() < deadline:
                thread.join(min(0.5, deadline - time.monotonic()) if deadline < np.inf else 0.5)
            if thread.is_alive() and (frame := sys._current_frames().get(thread.ident)):
                where = _own_line(reversed(list(traceback.walk_stack(frame))))
        finally:  # also where the learner interrupts the check
            for _ in range(10):
                if thread.is_alive():
                    stop = ctypes.py_object(_Stop)
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), stop)
                    thread.join(0.05)
    return result[0] if result else Late(where)


@contextmanager
def _no_way_out() -> Iterator[None]:
    """While a learner's function runs, what would end the whole process is an error."""

    def leave(*_):
        raise SystemExit("the process was to be ended")

    kept = {name: getattr(os, name) for name in ("_exit", "abort")}
    for name in kept:
        setattr(os, name, leave)
    try:
        yield
    finally:
        for name, function in kept.items():
            setattr(os, name, function)


def as_array(answer: Any) -> np.ndarray | NotWritten | Odd:
    """An answer as an array of numbers, or what it is instead."""
    if answer is None or answer is ... or answer is NotImplemented:
        return NotWritten()
    kind = _a(type(answer).__name__)
    if isinstance(answer, Iterator):
        return Odd(f"{kind}, which has not computed anything yet; turn it into a list with list(...)")
    if isinstance(answer, (str, bytes, dict, set, frozenset, types.FunctionType, type)):
        return Odd(kind)
    try:
        read = np.asarray(answer)
        if read.dtype == object:  # fractions, or numbers of several kinds
            read = read.astype(float)
    except (TypeError, ValueError):
        ragged = isinstance(answer, (list, tuple)) and any(np.ndim(one) for one in answer if _is_plain(one))
        return Odd(
            f"{kind} whose parts do not have the same shape" if ragged else f"{kind} of objects, not numbers"
        )
    if read.dtype.kind in "biuf":
        return read
    kinds = {"U": "text", "S": "text", "c": "complex numbers"}
    return Odd(f"{kind} of {kinds.get(read.dtype.kind, str(read.dtype))}, not of real numbers")


def _is_plain(one: Any) -> bool:
    return isinstance(one, (np.ndarray, int, float)) or (
        isinstance(one, (list, tuple)) and not any(map(np.ndim, one))
    )


def agrees(form: Form, given: Any, right: np.ndarray) -> bool:
    """Whether an answer is right."""
    if not isinstance(given, np.ndarray):
        return False
    return (form.ragged or given.shape == right.shape) and form.same(given, right)


def _equal(old: Any, new: Any) -> bool:
    if isinstance(old, (list, tuple)):
        return len(old) == len(new) and all(map(_equal, old, new))
    # Anything else, such as a generator of random numbers, may well change.
    if not isinstance(old, np.ndarray):
        return True
    return old.dtype == new.dtype and np.array_equal(old, new, equal_nan=old.dtype.kind == "f")


# What a function is, before it is called


def _names(function: Any) -> set[str]:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return set(code.co_names) if code else set()


def _is_empty(function: Any) -> bool:
    """Whether there is nothing in a function but a docstring, `...`, `pass`, or a bare `return`."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    idle = {
        "RESUME",
        "NOP",
        "LOAD_CONST",
        "RETURN_VALUE",
        "RETURN_CONST",
        "POP_TOP",
        "COPY_FREE_VARS",
        "MAKE_CELL",
    }
    return code is not None and {step.opname for step in dis.get_instructions(code)} <= idle


def _wrong_parameters(function: Callable, exercise: Exercise) -> str | None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some built-in functions have none
        return None
    positional = [one for one in signature.parameters.values() if one.kind is not one.KEYWORD_ONLY]
    signature = signature.replace(parameters=positional, return_annotation=signature.empty)
    try:
        count = len(exercise.cases[0].arguments)
        if exercise.measure:
            asked = inspect.signature(exercise.answer).parameters.values()
            count = sum(one.default is one.empty for one in asked)
        signature.bind(*range(count))
    except TypeError:
        them = f"{count} argument{'s' if count > 1 else ''}"
        return f"Your function is called with {them}; it is written for {signature}. Keep the parameters as given."
    return None


# The learner's own line

_OTHERS = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def _own_line(frames: Iterable[tuple[Any, int]]) -> str:
    """The innermost line that is the learner's own, such as `line 3, "return x / 0"`, or an empty text."""
    found = ""
    for frame, line in frames:
        file, name = frame.f_code.co_filename, Path(frame.f_code.co_filename).name
        ours = file.startswith((*_OTHERS, str(resources.PACKAGE), "<frozen"))
        text = linecache.getline(file, line).strip()
        # A cell's code has a file with a name that means nothing to anybody.
        place = "" if file.startswith("<") or "ipykernel" in file else f" of {name}"
        found = found if ours else f"line {line}{place}{f', {text!r}' if text else ''}"
    return found


def _in_line(where: str) -> str:
    return f" in {where}" if where else ""


def _went_wrong(found: Failed | Late) -> str:
    if isinstance(found, Late):
        return f"did not end{_in_line(found.where)}"
    if isinstance(found.error, SystemExit):
        return f"tried to end the program{_in_line(found.where)}; let it return its answer instead"
    text = f"{type(found.error).__name__}: {found.error}".rstrip(": ").rstrip(".")
    return f"stopped{_in_line(found.where)} with {text}"


# What is wrong, in words


def recognised(exercise: Exercise, given: list, wrong: list[int]) -> str | None:
    """The sentence of the mistake that gives the same wrong answers, or nothing."""
    best, found = 0, None
    for sentence, ways in exercise.mistakes.items():
        for way in ways if isinstance(ways, tuple) else (ways,):
            theirs = [_ours(exercise, way, k) for k in range(len(exercise.cases))]
            alike = [_alike(exercise.form, a, b) for a, b in zip(given, theirs, strict=True)]
            # A mistake that explains every wrong answer; of several, the one that is like the function on most inputs.
            if all(alike[k] for k in wrong) and sum(alike) > best:
                best, found = sum(alike), sentence
    return found


def _alike(form: Form, a: Any, b: Any) -> bool:
    if isinstance(a, Failed) and isinstance(b, Failed):
        return type(a.error) is type(b.error)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.shape == b.shape and form.same(a, b)
    return False


def _input(cases: list[Case], k: int) -> str:
    return f"Input {k + 1} ({cases[k].words})"


def described(form: Form, cases: list[Case], k: int, given: Any, right: np.ndarray) -> str:
    """What went wrong on one case, where no known mistake explains it."""
    note = f" {cases[k].note}" if cases[k].note else ""
    return f"{_input(cases, k)}: {_difference(form, given, right)}.{note}"


def _difference(form: Form, given: Any, right: np.ndarray) -> str:
    if isinstance(given, Failed):
        return f"your function {_went_wrong(given)}"
    if isinstance(given, Odd):
        return f"expected {form.words}; your function returns {given.words}"
    flat = form.ragged and given.ndim <= 1 and right.ndim <= 1
    if given.shape != right.shape and not flat:
        shape = "" if form.ragged else f", shape {right.shape}" if right.shape else ", a single one"
        return f"expected {form.words}{shape}; your function returns an array of shape {given.shape}"
    if form.contrast:
        return form.contrast(given, right)
    if right.ndim <= 1 and right.size <= 12 and given.size <= 24:
        return f"expected {written(right, given)}, got {written(given, right)}"
    if given.shape != right.shape:
        return f"expected {right.size} numbers, got {given.size}"
    apart = np.argwhere(~np.isclose(given, right, rtol=1e-5, atol=1e-5, equal_nan=True))
    at = tuple(int(k) for k in apart[0]) if len(apart) else (0,) * right.ndim
    return (
        f"{len(apart)} of {right.size} numbers are wrong. The first is at {list(at)}: "
        f"expected {written(right[at], given[at])}, got {written(given[at], right[at])}"
    )


def written(values: np.ndarray, other: np.ndarray) -> str:
    """Numbers as one would write them, with as many digits as tell them from the others."""
    for digits in (4, 8, 17):
        if (text := _written(values, digits)) != _written(other, digits):
            break
    return text


def _written(values: np.ndarray, digits: int) -> str:
    if values.dtype == bool:
        texts = [str(bool(value)) for value in values.ravel()]
    else:
        texts = [f"{v:.{digits if abs(v) < 1e5 else max(digits, 6)}g}" for v in values.ravel().tolist()]
    return texts[0] if not values.shape else f"[{', '.join(texts)}]"


def _a(name: str) -> str:
    article = "an" if name[0] in "aeioAEIO" else "a"
    return f"{article} {'array' if name == 'ndarray' else name}".replace("a array", "an array")
