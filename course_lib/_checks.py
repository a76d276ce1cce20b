"""Checks of arguments with messages of one form: `name is value; it must be …`, and what to do where that is not obvious.

Each returns the checked value in its plain form, so that a function's first lines read

    threshold = in_range("threshold", threshold, 0, 1, open_high=True)
    classes = whole_number("classes", classes, 2)
"""

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

KINDS = {"boolean": "b", "integer": "biu", "number": "biuf"}
"""What `array_of` may ask for, as the letters of NumPy's kinds; a boolean is an integer 0 or 1."""


def one_of(name: str, value: Any, allowed: Iterable) -> Any:
    """`value`, or a `ValueError` if it is none of those allowed.

    Args:
        name: the argument's name.
        value: what was given for it.
        allowed: the values that it may have.
    """
    allowed = list(allowed)
    if not any(type(value) is not bool and value == one or value is one for one in allowed):
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, allowed))}.")
    return value


def whole_number(name: str, value: Any, low: int | None = None, high: int | None = None) -> int:
    """`value` as an int, or a `TypeError` if it is not a whole number, a `ValueError` if it is out of range.

    Args:
        name: the argument's name.
        value: an int or a NumPy integer; not a bool, and not 3.0.
        low, high: the least and the largest number allowed; `None` for no limit.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    limits = _limits(low, high)
    if number is None or isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is {value!r}; it must be a whole number{limits and f', {limits}'}.")
    if (low is not None and number < low) or (high is not None and number > high):
        raise ValueError(f"{name} is {number}; it must be {limits}.")
    return number


def in_range(
    name: str,
    value: Any,
    low: float = -np.inf,
    high: float = np.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """`value` as a float, or a `TypeError` if it is not a number, a `ValueError` if it is out of range or not finite.

    Args:
        name: the argument's name.
        value: an int, a float or a NumPy number; not a bool.
        low, high: the limits; infinite for none.
        open_low, open_high: whether the limit itself is out.
    """
    number = np.asarray(value) if isinstance(value, (int, float, np.number, np.ndarray)) else np.asarray("")
    limits = _limits(low, high, open_low, open_high)
    if number.ndim or number.dtype.kind not in "iuf":
        raise TypeError(f"{name} is {value!r}; it must be a number{limits and f', {limits}'}.")
    number = number.item()
    inside = (low < number if open_low else low <= number) and (
        number < high if open_high else number <= high
    )
    if not (inside and np.isfinite(number)):
        raise ValueError(f"{name} is {value}; it must be {limits and f'{limits} and '}finite.")
    return float(number)


def array_of(
    name: str, values: Any, kind: str = "number", shape: Sequence[int | None] | None = None, instead: str = ""
) -> np.ndarray:
    """`values` as an array, or a `ValueError` if their type or shape is wrong.

    Args:
        name: the argument's name.
        values: an array, or what NumPy makes one of. An empty one is of any kind.
        kind: `"boolean"`, `"integer"` or `"number"`.
        shape: the length of each axis, `None` where any will do; `None` for any shape.
        instead: what to do about it, a clause that ends the message.
    """
    array = np.asarray(values)
    instead = instead and f"; {instead}"
    if array.dtype.kind not in KINDS[one_of("kind", kind, KINDS)] and array.size:
        held = ""
        if array.dtype.kind in "biuf":
            held = f" from {array.min():g} to {array.max():g}"
        raise ValueError(f"{name} is an array of {array.dtype}{held}; it must hold {kind} values{instead}.")
    if shape is not None and (
        array.ndim != len(shape)
        or any(wanted not in (None, side) for wanted, side in zip(shape, array.shape, strict=True))
    ):
        wanted = ", ".join("any" if side is None else str(side) for side in shape)
        raise ValueError(f"{name} is an array of shape {array.shape}; it must be ({wanted}){instead}.")
    return array


def _limits(low, high, open_low: bool = False, open_high: bool = False) -> str:
    """The limits in words, such as "at least 0 and below 1"."""
    words = []
    if low is not None and low > -np.inf:
        words.append(f"{'above' if open_low else 'at least'} {low}")
    if high is not None and high < np.inf:
        words.append(f"{'below' if open_high else 'at most'} {high}")
    return " and ".join(words)
