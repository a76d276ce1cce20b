"""How wide a model must be to have a given number of parameters, for comparisons at equal size."""

from collections.abc import Callable

from course_lib._checks import whole_number


def nearest_width(parameters: int, count: Callable[[int], int]) -> int:
    """The width whose model has the number of parameters nearest to a given one; of two equally near, the smaller.

        >>> nearest_width(500_000, lambda filters: unet((None, None, 1), base_filters=filters).count_params())
        8

    A kernel has channels in times channels out. Where all channels are multiples of the width, the number of parameters is
    a quadratic of it, and three narrow models, which are built quickly, give that of any.

    Args:
        parameters: number of parameters to come near to, at least 1.
        count: the number of parameters at a width of 1, 2, 3 …, which must grow with it.

    Returns:
        int, at least 1.

    Raises:
        ValueError: if `parameters` is less than 1, or the counts do not grow.
    """
    whole_number("parameters", parameters, 1)
    one, two, three = map(count, (1, 2, 3))
    if not 0 < two - one <= three - two:
        raise ValueError(
            f"count is {one:,}, {two:,} and {three:,} at widths 1, 2 and 3; its growth must increase with the width: "
            "make all numbers of channels multiples of the width."
        )

    def expected(width: int) -> int:
        # Newton's form, exact in whole numbers: the second difference times (w − 1) · (w − 2), one of which is even.
        return one + (width - 1) * (two - one) + (width - 1) * (width - 2) // 2 * (three - 2 * two + one)

    width = 1
    while expected(width + 1) <= parameters:
        width += 1
    return min(width, width + 1, key=lambda near: abs(expected(near) - parameters))
