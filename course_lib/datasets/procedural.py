"""What `cells` and `scenes` have in common: random access, the checks of their parameters, smooth random fields.

A sample is the same array on every machine, for three reasons:

- all randomness of sample i comes from one generator, seeded with (seed, set, split, i);
- only draws whose number never depends on a rounded result are used in bulk (no rejection sampling with a
  computed rate, hence noise by the normal approximation of the Poisson distribution);
- the image is rounded to 8 bits at the end, so that a last bit which differs between processors is rounded
  away.
"""

from abc import abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from numbers import Integral
from zlib import crc32

import numpy as np

from course_lib._checks import in_range, one_of, whole_number
from course_lib.datasets.sample import Dataset, Sample, fingerprint
from course_lib.datasets.splits import SPLITS


class ProceduralDataset(Dataset):
    """A data set whose sample i is computed on access, from the seed, the split, the parameters and i alone.

    Attributes:
        size: `(height, width)` of every image.
        seed: the seed that all samples are drawn from.
        parameters: what the set was asked for, as checked: each parameter's name and value.
    """

    def __init__(
        self,
        split: str,
        length: int,
        size: int | tuple[int, int],
        seed: int,
        parameters: Mapping[str, object],
    ):
        self.split = one_of("split", split, SPLITS)
        self._length = whole_number("length", length, 0)
        self.size = checked_size(size)
        self.seed = whole_number("seed", seed, 0)
        self.parameters = dict(parameters)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Sample:
        index = self.checked_index(index)
        rng = np.random.default_rng([self.seed, crc32(self.name.encode()), crc32(self.split.encode()), index])
        return self.draw(rng, f"{self.split}-{index:05d}")

    def fingerprint(self) -> str:
        """The arguments and the first sample stand for all: who draws that one as before draws the others so."""
        facts = (self.name, self.split, self._length, self.size, self.seed, sorted(self.parameters.items()))
        return fingerprint([self[0]] if len(self) else [], *facts)

    @abstractmethod
    def draw(self, rng: np.random.Generator, name: str) -> Sample:
        """The sample that the generator's state stands for."""


# Parameters ------------------------------------------------------------------------------------------------------


def checked_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """`size` as `(height, width)`, each side at least 16 pixels.

    Raises:
        ValueError: if it is neither one side nor two, or a side is too small.
    """
    sides = (size, size) if isinstance(size, Integral) else size
    valid = isinstance(sides, (tuple, list)) and len(sides) == 2
    if not valid or any(isinstance(s, bool) or not isinstance(s, Integral) or s < 16 for s in sides):
        raise ValueError(
            f"size is {size!r}; it must be a side or (height, width), whole numbers of at least 16 pixels."
        )
    return int(sides[0]), int(sides[1])


def checked_range(
    name: str, value: float | tuple[float, float], low: float, high: float
) -> tuple[float, float]:
    """A parameter that is one number, or a pair (low, high) from which every image draws its own, as a pair.

    Raises:
        TypeError, ValueError: if it is neither, lies outside `low..high`, or the pair is the wrong way round.
    """
    pair = value if isinstance(value, (tuple, list)) and len(value) == 2 else (value, value)
    first, last = (in_range(name, one, low, high) for one in pair)
    if first > last:
        raise ValueError(f"{name} is {value!r}; it must be a number or a pair (low, high) with low <= high.")
    return first, last


# Pixels -----------------------------------------------------------------------------------------------------


def quantised(image: np.ndarray) -> np.ndarray:
    """`image` clipped to 0..1 and rounded to the 256 levels of an 8-bit file, float32."""
    return (np.rint(255.0 * np.clip(image, 0.0, 1.0)) / 255.0).astype(np.float32)


@lru_cache(maxsize=64)
def _interpolation(points: int, pixels: int) -> np.ndarray:
    """Weights `(pixels, points)` that stretch `points` values over `pixels`, by Catmull-Rom splines."""
    position = np.linspace(0.0, points - 1.0, pixels)
    left = np.minimum(position.astype(int), max(points - 2, 0))
    t = position - left
    weights = np.zeros((pixels, points))
    taps = (
        -0.5 * t + t**2 - 0.5 * t**3,
        1 - 2.5 * t**2 + 1.5 * t**3,
        0.5 * t + 2 * t**2 - 1.5 * t**3,
        0.5 * (t**3 - t**2),
    )
    for offset, tap in zip((-1, 0, 1, 2), taps, strict=True):
        np.add.at(weights, (np.arange(pixels), np.clip(left + offset, 0, points - 1)), tap)
    return weights


def stretched(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`values` `(rows, columns)` interpolated smoothly to `size` `(height, width)`, corners on corners."""
    return _interpolation(values.shape[0], size[0]) @ values @ _interpolation(values.shape[1], size[1]).T


def smooth_field(rng: np.random.Generator, size: tuple[int, int], points: int) -> np.ndarray:
    """A smooth random field `(height, width)` around 0, by `points` knots of deviation 1 along each side."""
    return stretched(rng.standard_normal((points, points)), size)
