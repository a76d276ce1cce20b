"""The checks of arguments that the builders of networks share."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from course_lib._checks import in_range, one_of

WORDS = {4: "four", 5: "five"}


def plain(value: Any) -> Any:
    """`value` with Python's numbers and tuples for NumPy's numbers and arrays, also within lists and mappings."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return plain(tuple(value.tolist()))
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    return type(value)(map(plain, value)) if type(value) in (list, tuple) else value


def plain_arguments(builder: Callable) -> Callable:
    """The builder, which takes NumPy's numbers and arrays too: Keras could not write them into a saved model."""

    @functools.wraps(builder)
    def build(*arguments, **named):
        return builder(*map(plain, arguments), **plain(named))

    return build


def check_image_shape(input_shape: Sequence[int | None]) -> None:
    """Raise a `ValueError` unless `input_shape` is (height, width, channels), of which the first two may be `None`."""
    if not isinstance(input_shape, Sequence) or len(input_shape) != 3 or not _is_count(input_shape[2]):
        raise ValueError(
            f"input_shape is {input_shape!r}; it must be (height, width, channels), such as (256, 256, 3)."
        )


def check_counts(**numbers: int) -> None:
    """Raise a `ValueError` for the first that is no whole number, at least 1."""
    for name, number in numbers.items():
        if not _is_count(number):
            raise ValueError(f"{name} is {number!r}; it must be a whole number, at least 1.")


def check_rows(length: int | None, **rows: Sequence[int]) -> None:
    """Raise a `ValueError` for the first that is not so many whole numbers, each at least 1; `None` for any number."""
    for name, row in rows.items():
        if not len(row) or (length is not None and len(row) != length) or not all(map(_is_count, row)):
            many = "" if length is None else f"{WORDS.get(length, length)} "
            raise ValueError(f"{name} is {tuple(row)!r}; it must be {many}whole numbers, each at least 1.")


def check_normalization(normalization: str | None, allowed: Sequence, **filters: int | Sequence[int]) -> None:
    """Raise a `ValueError` for a normalization that is not allowed, or whose groups do not divide the channels.

    Args:
        normalization: its name.
        allowed: the names allowed.
        **filters: numbers of channels that are normalized, by the argument that they come from.
    """
    one_of("normalization", normalization, allowed)
    values = [value for row in filters.values() for value in (row if isinstance(row, Sequence) else [row])]
    if normalization == "group" and any(value % 8 for value in values):
        given = " and ".join(
            f"{name} {'is ' * (not k)}{row}" for k, (name, row) in enumerate(filters.items())
        )
        raise ValueError(
            f"{given}; normalization='group' needs groups of 8 channels: give "
            f"{'a multiple' if len(values) == 1 else 'multiples'} of 8."
        )


def check_dropout(dropout: float) -> None:
    """Raise an error unless `dropout` is a fraction below 1."""
    in_range("dropout", dropout, 0, 1, open_high=True)


def check_epsilon(epsilon: float) -> None:
    """Raise an error unless `epsilon` is 0 or more."""
    in_range("epsilon", epsilon, 0)


def _is_count(number) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 1
