"""`cells`: synthetic fluorescence microscopy of nuclei.

An image is built as a microscope makes one: nuclei of irregular outline and mottled chromatin, some against
each other, each of its own brightness; the blur of the optics and the haze of what lies out of focus; uneven
illumination; the noise of photons and camera. The ground truth is exact, because the outlines come first.
"""

from functools import lru_cache
from math import pi, sqrt

import numpy as np
from scipy import ndimage
from skimage.measure import label

from course_lib._checks import in_range
from course_lib.datasets.procedural import (
    ProceduralDataset,
    checked_range,
    checked_size,
    quantised,
    smooth_field,
    stretched,
)
from course_lib.datasets.sample import Dataset, Sample, boxes_from_instances

CLASS_NAMES = ("background", "cell")
SMALLEST_CELL = 8
"""Cells of which fewer pixels than this are seen are left out."""

_TRIES = 16
"""Places looked at for one cell before it is given up."""
_GAP = 2.0
"""Pixels kept free around a cell that touches none."""
_ATLAS = 192
"""Side of the stored chromatin textures, in pixels."""


def cells(
    split: str = "train",
    length: int = 64,
    size: int | tuple[int, int] = 128,
    seed: int = 0,
    *,
    radius: float | tuple[float, float] = (6.0, 14.0),
    density: float | tuple[float, float] = (0.1, 0.4),
    touching: float | tuple[float, float] = 0.4,
    contrast: float | tuple[float, float] = (0.3, 0.8),
    noise: float | tuple[float, float] = (0.01, 0.05),
    foreground: float | None = None,
) -> Dataset:
    """Synthetic fluorescence microscopy of nuclei: one channel, classes `("background", "cell")`.

    A parameter takes one number, or a pair `(low, high)` from which every image draws its own.

    Args:
        split: `"train"`, `"val"` or `"test"`: three disjoint streams of samples.
        length: samples in the set.
        size: side of the images in pixels, or `(height, width)`; at least 16.
        seed: another seed, other samples.
        radius: mean radius of the cells in pixels, 2 to 100. The cells of one image are of similar size.
        density: fraction of the image that cells cover, 0 to 0.6; less where no room is left.
        touching: fraction of the cells that touch another one, 0 (none does) to 1. Where free-standing cells
            find no room, more of them touch; with 0 they are left out.
        contrast: brightness of a typical cell above the background, 0.02 to 1 (of the full range).
        noise: standard deviation of the noise at half of the full brightness, 0 to 0.3. A fifth of its
            variance there is the camera's, the rest grows with the brightness as photon noise does.
        foreground: `None`, or the fraction of cell pixels in every image, 0.001 to 0.6, in place of `density`:
            the parameter for class imbalance. The last cell is made as small as the fraction asks for, below `radius`
            if need be.

    Returns:
        A `Dataset` whose samples have image `(h, w, 1)`, semantic map, instance map, boxes and classes.

    Raises:
        TypeError, ValueError: if an argument is no number, or outside its range.
    """
    height, width = checked_size(size)
    parameters = {
        "radius": checked_range("radius", radius, 2.0, 100.0),
        "density": checked_range("density", density, 0.0, 0.6),
        "touching": checked_range("touching", touching, 0.0, 1.0),
        "contrast": checked_range("contrast", contrast, 0.02, 1.0),
        "noise": checked_range("noise", noise, 0.0, 0.3),
        "foreground": None if foreground is None else in_range("foreground", foreground, 0.001, 0.6),
    }
    smallest = SMALLEST_CELL / (height * width)
    if foreground is not None and foreground < smallest:
        raise ValueError(
            f"foreground is {foreground:g}; of {height} × {width} pixels that is less than the smallest cell "
            f"({SMALLEST_CELL} pixels): ask for at least {smallest:.4f}, or for larger images."
        )
    return _Cells(split, length, (height, width), seed, parameters)


class _Cells(ProceduralDataset):
    name = "cells"
    class_names = CLASS_NAMES
    channels = 1

    def draw(self, rng: np.random.Generator, name: str) -> Sample:
        radius = rng.uniform(*self.parameters["radius"])
        density = rng.uniform(*self.parameters["density"])
        touching = rng.uniform(*self.parameters["touching"])
        contrast = rng.uniform(*self.parameters["contrast"])
        noise = rng.uniform(*self.parameters["noise"])

        plate = _Plate(self.size, rng)
        foreground = self.parameters["foreground"]
        fraction, exact = (density, False) if foreground is None else (foreground, True)
        plate.fill(radius, self.parameters["radius"], fraction, touching, exact)
        instances = plate.tidied()
        image = _photographed(instances, plate.depth, radius, contrast, noise, rng)
        return Sample(
            image=quantised(image)[..., None],
            semantic=(instances > 0).astype(np.int32),
            instances=instances,
            boxes=boxes_from_instances(instances),
            classes=np.ones(instances.max(), np.int32),
            name=name,
        )


# Outlines ---------------------------------------------------------------------------------------------------


class _Outline:
    """A star-shaped outline: an ellipse whose radius is waved by a few harmonics.

    Points are complex numbers x + iy relative to the centre, so that cos(k angle) is the real part of a power
    of the unit vector and no angle is ever computed.
    """

    def __init__(self, radius: float, rng: np.random.Generator):
        stretch = sqrt(1.0 + 0.8 * rng.random() ** 1.5)
        self.turn = _direction(rng)
        self.axes = (radius * stretch, radius / stretch)
        self.waves = (rng.standard_normal((4, 2)) @ (1.0, 1j) * (0.035, 0.034, 0.017, 0.009)).tolist()
        swell = 1.0 + sum(abs(wave) for wave in self.waves)
        self.extent = self.axes[0] * swell
        (a, b), cos, sin = self.axes, self.turn.real, self.turn.imag
        self.box = (
            swell * sqrt((a * cos) ** 2 + (b * sin) ** 2),
            swell * sqrt((a * sin) ** 2 + (b * cos) ** 2),
        )

    def distance(self, points: np.ndarray | complex) -> np.ndarray | float:
        """How far out each point lies: 0 at the centre, 1 on the outline."""
        turned = points * self.turn
        scaled = turned.real / self.axes[0] + 1j * (turned.imag / self.axes[1])
        length = abs(scaled) + 1e-9
        unit = scaled / length
        c2, c3, c4, c5 = self.waves
        wave = unit * unit * (c2 + unit * (c3 + unit * (c4 + unit * c5)))
        return length / (1.0 + wave.real)

    def reach(self, direction: complex) -> float:
        """Pixels from the centre to the outline in a direction (a complex number of length 1)."""
        return 1.0 / self.distance(direction)


def _direction(rng: np.random.Generator) -> complex:
    """A random complex number of length 1."""
    point = complex(*rng.standard_normal(2))
    return point / abs(point)


class _Plate:
    """The image plane while cells are laid on it.

    Attributes:
        owner: int32 `(h, w)`, the number of the cell that a pixel belongs to, 0 = none.
        depth: float64 `(h, w)`, how far out in its cell a pixel lies, 0 at the centre to 1 on the outline and
            beyond.
    """

    def __init__(self, size: tuple[int, int], rng: np.random.Generator):
        self.size = size
        self.rng = rng
        self.owner = np.zeros(size, np.int32)
        self.depth = np.ones(size)
        self.cells: list[tuple[complex, _Outline]] = []
        self.in_contact: list[bool] = []

    def fill(
        self, radius: float, limits: tuple[float, float], fraction: float, touching: float, exact: bool
    ) -> None:
        """Place cells of about `radius` until they cover `fraction` of the plane or no space is left.

        `exact` sizes the last cell to what is missing; otherwise it is laid or not so that the fraction is right
        on average.
        """
        missing = fraction * self.owner.size
        enough = max(SMALLEST_CELL, 0.03 * missing) if exact else 0.0
        while missing > enough:
            size = min(max(radius * (1.0 + 0.14 * self.rng.standard_normal()), limits[0]), limits[1])
            area = pi * size**2
            if exact and missing < 1.4 * area:
                size = sqrt(missing / pi)
            elif not exact and missing < self.rng.random() * area:
                break
            gained = self._lay(size, touching, whole=exact)
            if not gained:
                break
            missing -= gained

    def _lay(self, radius: float, touching: float, whole: bool) -> int:
        """Find a location for one more cell; the pixels that it gained, 0 if none was found."""
        wanted = self.cells and sum(self.in_contact) < touching * (len(self.cells) + 1) - 0.5
        ways = (True, False) if wanted else (False, True) if touching > 0 and self.cells else (False,)
        outline = _Outline(radius, self.rng)
        for against in ways:
            for _ in range(_TRIES):
                centre = self._beside(outline) if against else self._anywhere(outline, whole)
                if self._crowded(centre, outline, against):
                    continue
                gained = self._stamp(centre, outline, against)
                if gained:
                    return gained
        return 0

    def _anywhere(self, outline: _Outline, whole: bool) -> complex:
        """A random centre; `whole` keeps the cell inside the image, else the edge may cut it."""
        h, w = self.size
        margin = min(outline.extent, 0.5 * h, 0.5 * w) if whole else -0.6 * outline.extent
        across, down = self.rng.random(2).tolist()
        return complex(margin + (w - 2.0 * margin) * across, margin + (h - 2.0 * margin) * down)

    def _beside(self, outline: _Outline) -> complex:
        """The centre that puts the cell against a random one already laid, slightly pressed into it."""
        centre, neighbour = self.cells[int(self.rng.random() * len(self.cells))]
        direction = _direction(self.rng)
        apart = neighbour.reach(direction) + outline.reach(-direction)
        return centre + direction * apart * (0.96 - 0.12 * self.rng.random())

    def _crowded(self, centre: complex, outline: _Outline, against: bool) -> bool:
        """Whether a cell would come too close to another one: a quick look before its pixels are drawn."""
        for other, placed in self.cells:
            apart = abs(centre - other)
            if apart > outline.extent + placed.extent + _GAP:
                continue
            if apart < 0.8 * (outline.axes[1] + placed.axes[1]):
                return True
            direction = (centre - other) / apart
            reach = placed.reach(direction) + outline.reach(-direction)
            if apart < (0.8 * reach if against else reach + 0.5 * _GAP):
                return True
        return False

    def _stamp(self, centre: complex, outline: _Outline, against: bool) -> int:
        """Lay the cell there unless it lies badly: the pixels that it gained, or 0."""
        h, w = self.size
        across, down = (half + _GAP for half in outline.box)
        left, right = max(int(centre.real - across), 0), min(int(centre.real + across) + 1, w)
        top, bottom = max(int(centre.imag - down), 0), min(int(centre.imag + down) + 1, h)
        if left >= right or top >= bottom:
            return 0
        window = (slice(top, bottom), slice(left, right))
        owner, depth = self.owner[window], self.depth[window]
        columns = np.arange(left + 0.5, right) - centre.real
        rows = np.arange(top + 0.5, bottom) - centre.imag
        distance = outline.distance(columns + 1j * rows[:, None])
        near = owner[distance < 1.0 + _GAP / outline.axes[1]]
        neighbours = set(near.tolist()) - {0} if near.any() else set()
        if bool(neighbours) is not against:
            return 0

        # Where two cells press on each other, a pixel goes to the one in which it lies less far out.
        won = (distance < 1.0) & (distance < depth)
        pixels = np.count_nonzero(won)
        taken = np.count_nonzero(won & (owner > 0)) if against else 0
        if pixels < SMALLEST_CELL:
            return 0
        if against and taken + np.count_nonzero(distance < 1.0) - pixels > 0.25 * pixels:
            return 0
        self.cells.append((centre, outline))
        self.in_contact.append(against)
        for neighbour in neighbours:
            self.in_contact[neighbour - 1] = True
        owner[won] = len(self.cells)
        depth[won] = distance[won]
        return pixels - taken

    def tidied(self) -> np.ndarray:
        """The instance map int32 `(h, w)` in the order of placing, without fragments cut off by a neighbour."""
        parts, count = label(self.owner, connectivity=1, return_num=True)
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        owners = np.zeros(count + 1, np.int32)
        owners[parts] = self.owner
        # By owner, the largest part first: each owner keeps that one, if it is large enough.
        order = np.lexsort((-sizes, owners))
        kept = order[np.append(True, np.diff(owners[order]) > 0)]
        kept = kept[(owners[kept] > 0) & (sizes[kept] >= SMALLEST_CELL)]
        ids = np.zeros(count + 1, np.int32)
        ids[kept] = np.arange(1, len(kept) + 1)
        self.owner = ids[parts]
        self.depth[self.owner == 0] = 1.0
        return self.owner


# Light ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=32)
def _chromatin(grain: int) -> np.ndarray:
    """Textures `(3, side, side)`: mottled, netted, holed, of deviation 1, grains of `grain` / 4 pixels."""
    rng = np.random.default_rng([1804, grain])
    scale = grain / 4.0

    def field(sigma: float) -> np.ndarray:
        noise = ndimage.gaussian_filter(rng.standard_normal((_ATLAS, _ATLAS)), sigma, mode="wrap")
        return noise / noise.std()

    mottled = field(0.7 * scale) + 0.8 * field(1.6 * scale)
    netted = -np.abs(field(1.1 * scale)) + 0.4 * field(0.6 * scale)
    holed = 0.5 * field(0.7 * scale) - 2.2 * np.clip(field(1.8 * scale) - 1.2, 0.0, 0.9)
    textures = np.stack([mottled, netted, holed])
    return (textures - textures.mean((1, 2), keepdims=True)) / textures.std((1, 2), keepdims=True)


def _cropped(texture: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A piece `(h, w)` of a texture that repeats itself, from a random corner on."""
    corner = (rng.random(2) * texture.shape).astype(int)
    rows, columns = ((start + np.arange(side)) % _ATLAS for start, side in zip(corner, size, strict=True))
    return texture[rows[:, None], columns]


def _photographed(
    owner: np.ndarray,
    depth: np.ndarray,
    radius: float,
    contrast: float,
    noise: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """The image `(h, w)` that a camera makes of the cells."""
    size = owner.shape
    number = int(owner.max()) + 1

    # Dye: each nucleus has its own amount, some (dying, dividing) far more; thin at the rim, mottled inside.
    amount = 0.75 * np.exp(rng.uniform(0.08, 0.32) * rng.standard_normal(number))
    amount[rng.random(number) < 0.1 * rng.random() ** 2] *= 1.8
    amount[0] = 0.0
    thin = 1.0 - depth * depth
    roundness = rng.uniform(0.2, 0.8)
    profile = roundness * np.sqrt(thin) + (1.0 - roundness) * (1.0 - (1.0 - thin) ** 4)
    mix = rng.random(3) ** 2 + 0.01
    mix *= rng.uniform(0.08, 0.3) / np.sqrt((mix**2).sum())
    grain = round(4.0 * (0.55 + 0.09 * min(radius, 40.0)))
    texture = sum(weight * kind for weight, kind in zip(mix, _chromatin(grain), strict=True))
    # Two crops, so that the grain of a nucleus seldom runs on in the one that touches it.
    other = (rng.random(number) < 0.5)[owner]
    mottling = np.where(other, _cropped(texture, size, rng), _cropped(texture, size, rng))
    light = amount[owner] * profile * np.clip(1.0 + mottling, 0.15, 2.0)
    _add_debris(light, rng)

    # Optics: the sharp plane, and the haze of it and of nuclei above and below.
    blurred = light[1::4, 1::4].copy()
    _add_out_of_focus(blurred, radius / 4.0, rng)
    haze = ndimage.gaussian_filter(blurred, max(1.1, 0.16 * radius), truncate=3.0)[::2, ::2]
    lit = ndimage.gaussian_filter(light, rng.uniform(0.5, 0.85) + 0.025 * min(radius, 20.0), truncate=3.0)
    lit += rng.uniform(0.04, 0.22) * stretched(haze, size) * (1.0 + 0.25 * smooth_field(rng, size, 7))
    lamp = 1.0 + 0.09 * smooth_field(rng, size, 3)
    signal = rng.uniform(0.02, 0.09) * (1.0 + 0.15 * smooth_field(rng, size, 4)) + contrast * lit * lamp

    # Camera: photon noise (Poisson, by its normal approximation) and read noise.
    variance = noise**2 * (0.2 + 1.6 * np.clip(signal, 0.0, 1.0))
    return signal + np.sqrt(variance) * rng.standard_normal(size)


def _add_debris(light: np.ndarray, rng: np.random.Generator) -> None:
    """A few bright specks, smaller than any cell: they are background."""
    h, w = light.shape
    for _ in range(int(4.0 * rng.random() ** 2 * (1.0 + h * w / 40_000))):
        y, x = int(rng.random() * (h - 1)), int(rng.random() * (w - 1))
        light[y : y + 2, x : x + 2] += rng.uniform(0.1, 1.0) * rng.random((2, 2))


def _add_out_of_focus(plane: np.ndarray, radius: float, rng: np.random.Generator) -> None:
    """Nuclei above or below the focus, on a coarse plane: only their glow will be seen."""
    h, w = plane.shape
    for _ in range(int(4.0 * rng.random() ** 2)):
        y, x = rng.random(2) * (h, w)
        square = (np.arange(h) - y)[:, None] ** 2 + (np.arange(w) - x) ** 2
        plane += rng.uniform(0.3, 0.9) * np.clip(1.0 - square / (1.3 * radius + 1.0) ** 2, 0.0, None)
