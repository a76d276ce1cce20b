"""How wide a network must be to have a given number of parameters."""

from __future__ import annotations

from collections.abc import Callable


def nearest_width(parameters: int, count: Callable[[int], int]) -> int:
    """The width whose network comes nearest to a number of parameters, the smaller one of two that come equally near.

    A kernel has channels in times channels out. Where all channels are multiples of the width, the number of parameters is
    therefore a quadratic of it, and three narrow networks, which are built quickly, give that of any.

    Args:
        parameters: number of parameters to come near to, at least 1.
        count: the number of parameters at a width of 1, 2, 3 …, which must grow with it.

    Returns:
        int, at least 1.

    Raises:
        ValueError: if `parameters` is less than 1, or the counts are not those of a growing quadratic.
    """
    if parameters < 1:
        raise ValueError(f"parameters is {parameters}; it must be at least 1.")
    one, two, three = map(count, (1, 2, 3))
    if not 0 < two - one <= three - two:
        raise ValueError(
            f"count: widths 1, 2 and 3 have {one:,}, {two:,} and {three:,} parameters, which must grow faster and faster; "
            "make all numbers of channels multiples of the width."
        )

    def expected(width: int) -> int:
        # Newton's form, exact in whole numbers: the second difference times (w − 1) · (w − 2), one of which is even.
        return one + (width - 1) * (two - one) + (width - 1) * (width - 2) // 2 * (three - 2 * two + one)

    width = 1
    while expected(width + 1) <= parameters:
        width += 1
    width = min(width, width + 1, key=lambda near: abs(expected(near) - parameters))
    if (found := count(width)) != expected(width):
        raise ValueError(
            f"count: a width of {width} has {found:,} parameters where widths 1, 2 and 3 let expect {expected(width):,}; "
            "make all numbers of channels multiples of the width."
        )
    return width
