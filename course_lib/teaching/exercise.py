"""What an exercise is: inputs, the right answer, the mistakes that people make, hints.

A chapter's `exercises.py` holds them as data. To write one, copy this:

    BOX_AREA = Exercise(
        number="01.7",
        name="box_area",
        form=number("a number, the area in pixels"),
        answer=lambda box: (box[2] - box[0]) * (box[3] - box[1]),
        cases=[Case("a box of 4 × 3", [2, 1, 6, 4]), Case("an empty box", [2, 1, 2, 4], note="Its area is 0.")],
        mistakes={
            "Your width is one too large: x2 is exclusive.": lambda box: (box[2] - box[0] + 1) * (box[3] - box[1]),
        },
        hints=["The width is x2 - x1."],
    )

The prompt and the empty function stand in the chapter's notebook in `notebooks/solutions`.
"""

import inspect
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np


class Case:
    """One input that the learner's function is tried on.

    Args:
        words: the input in words, such as `"two boxes that do not meet"`.
        *arguments: what the function is called with. Lists of numbers become arrays; tuples, which are sizes and shapes,
            and lists of arrays stay as they are. Every call gets a copy.
        note: what to think of where this case is wrong and no known mistake explains it.
    """

    def __init__(self, words: str, *arguments: Any, note: str = ""):
        self.words, self.note = words, note
        self.arguments = tuple(_as_array(one) if isinstance(one, list) else one for one in arguments)


def _as_array(values: list) -> np.ndarray | list:
    return values if any(isinstance(one, np.ndarray) for one in values) else np.array(values)


@dataclass(frozen=True)
class Form:
    """What an answer has to look like, and when two answers are the same.

    Attributes:
        words: what is expected, such as `"four numbers x1, y1, x2, y2"`.
        same: whether two arrays of the same shape are the same answer.
        ragged: whether answers may be of different lengths (a list of rows), so that a wrong length is a wrong answer
            and not a wrong form.
        contrast: says how two answers differ, `(given, right)`; by default the numbers are written out.
    """

    words: str
    same: Callable[[np.ndarray, np.ndarray], bool]
    ragged: bool = False
    contrast: Callable[[np.ndarray, np.ndarray], str] | None = None


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """An exercise with its check.

    Attributes:
        number: chapter and place in it, `"01.2"`.
        name: what the learner's function is called.
        form: what an answer looks like.
        answer: the right answer: the library's own function where there is one.
        cases: the inputs, the plainest first.
        mistakes: a sentence for the learner → a function that makes this mistake, or several that make it in different
            ways. Where the learner's function agrees with one of them on every case that went wrong, this was the
            mistake; where two fit equally well, the first is named.
        hints: unfold one at a time, from a nudge to nearly the answer.
        probe: looks at a function whose answers were all right; returns what is still wrong with it, or nothing.
        measure: for a function that does not return the numbers to compare: gets the function and a case's arguments, and
            returns what the function does as numbers.
        seconds: how long all calls together may take.
        passed: what a right answer is told, if not that it is right on all inputs.
        live: whether what the function returns cannot be sent to another process, such as a Keras model: then grading runs
            the check beside the learner's code, which is less safe.
    """

    number: str
    name: str
    form: Form
    answer: Callable[..., Any]
    cases: Sequence[Case]
    mistakes: dict[str, Callable[..., Any] | tuple[Callable[..., Any], ...]]
    hints: Sequence[str]
    probe: Callable[[Callable[..., Any]], str | None] | None = None
    measure: Callable[..., Any] | None = None
    seconds: float = 8.0
    passed: str = ""
    live: bool = False


def known(function: Callable, *found: float) -> Callable:
    """The function, marked with what the exercise's `measure` finds of it on every case: a check then does not train it
    again. The tests do, and compare."""
    function.found = found
    return function


def varied(function: Callable) -> Callable[..., Callable]:
    """Makes variants of a function for `mistakes`: `varied(f)(order=0)` is `f` called with `order=0`."""
    return partial(partial, function)


def relus(model: Any, inputs: Sequence[np.ndarray]) -> int:
    """How many kernels of a Keras model have a ReLU behind them, told from its last output on inputs that are not negative.

    All kernels are made positive but one and the next: a ReLU behind the first of the two then stops everything, and the
    output no longer depends on the inputs. Without it, two signs cancel and the inputs come through. Weights change.
    """
    from keras import ops

    kernels = [one for one in model.trainable_variables if len(one.shape) > 1]
    sizes = [np.abs(ops.convert_to_numpy(one)) + 0.05 for one in kernels]
    for one in model.trainable_variables:
        one.assign(np.zeros(one.shape))
    found = 0
    for k in range(len(kernels)):
        for j, (kernel, size) in enumerate(zip(kernels, sizes, strict=True)):
            kernel.assign(-size if j in (k, k + 1) else size)
        outs = [model([scale * one for one in inputs]) for scale in (1, 2)]
        last = [ops.convert_to_numpy(out[-1] if isinstance(out, (list, tuple)) else out) for out in outs]
        found += np.allclose(*last, rtol=1e-3, atol=1e-9)
    return found


def close(tolerance: float) -> Callable[[np.ndarray, np.ndarray], bool]:
    """Whether two arrays agree within a tolerance, absolute and relative; NaN agrees with NaN."""

    def same(a: np.ndarray, b: np.ndarray) -> bool:
        return bool(np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True))

    return same


def number(words: str = "a number", tolerance: float = 1e-5) -> Form:
    """One number."""
    return Form(words, close(tolerance))


def array(words: str, tolerance: float = 1e-5) -> Form:
    """An array of a known shape."""
    return Form(words, close(tolerance))


def rows(words: str) -> Form:
    """A list of whole numbers, as long as it comes out."""
    return Form(words, lambda a, b: a.shape == b.shape and bool(np.array_equal(a, b)), ragged=True)


def truth(words: str = "True or False") -> Form:
    """A truth value."""
    return Form(words, lambda a, b: bool(a) == bool(b))


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays are equal, number by number."""
    return bool(np.array_equal(a, b))


def measured(words: str, *names: str) -> Form:
    """What `measure` finds, number by number; `names` say what each number is."""

    def contrast(given: np.ndarray, right: np.ndarray) -> str:
        pairs = zip(names, right, given, strict=True)
        return ", ".join(f"{name}: expected {a:g}, got {b:g}" for name, a, b in pairs if a != b)

    return Form(words, same, contrast=contrast)


def facts(words: str, sentences: Sequence[str]) -> Form:
    """How far each of these sentences is true, as `measure` finds it; 1: it is."""

    def contrast(given: np.ndarray, right: np.ndarray) -> str:
        untrue = (one for one, a, b in zip(sentences, given, right, strict=True) if a != b)
        return f"not true yet: {'; '.join(untrue)}"

    return Form(words, same, contrast=contrast)


def labels(words: str) -> Form:
    """Instance maps: the same where they divide the pixels alike, whatever the ids; 0 stays 0."""

    def contrast(given: np.ndarray, right: np.ndarray) -> str:
        yours, ours = (len(np.unique(one[one != 0])) for one in (given, right))
        if yours == ours:
            return f"the number of objects is right, {ours}, but they do not consist of the right pixels"
        return f"expected {ours} objects, got {yours}"

    return Form(words, same_partition, contrast=contrast)


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two instance maps hold the same objects, up to their ids; 0 is background in both."""
    pairs = set(zip(np.ravel(a).tolist(), np.ravel(b).tolist(), strict=True))
    if any((x == 0) != (y == 0) for x, y in pairs):
        return False
    return len(pairs) == len({x for x, _ in pairs}) == len({y for _, y in pairs})


def calls(function: Callable, *arguments: Any) -> set[tuple[str, str]]:
    """The functions that a call runs, as pairs of module and name."""
    seen = set()

    def spy(frame, event, called):
        if event == "call":
            seen.add((frame.f_globals.get("__name__", ""), frame.f_code.co_name))
        elif event == "c_call":
            seen.add((str(getattr(called, "__module__", "")), getattr(called, "__name__", "")))

    sys.setprofile(spy)
    try:
        function(*arguments)
    finally:
        sys.setprofile(None)
    return seen


def without(case: Case, names: Collection[str], packages: tuple[str, ...], sentence: str) -> Callable:
    """A probe that refuses a function which has the work done by one of these functions of these packages."""

    def probe(function: Callable) -> str | None:
        used = calls(function, *case.arguments)
        if any(module.startswith(packages) and name in names for module, name in used):
            return sentence
        # Where the function runs in another process, as in grading, its names are all that can be seen of it.
        named = set(getattr(getattr(inspect.unwrap(function), "__code__", None), "co_names", ()))
        return sentence if named & set(names) and named & {*packages, "ndimage", "measure"} else None

    return probe
