"""Random changes to a training image and, in step, to its labels.

All geometry is one mapping from the pixels of the result to locations in the source: flips, quarter turns, rotation,
scaling and U-Net's elastic deformation are composed first, and the image is sampled once. So labels move exactly with
the image, nothing is interpolated twice, and the crop costs nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from course_lib._checks import in_range
from course_lib.ops.tiles import reflect


@dataclass(frozen=True)
class Augmentation:
    """The random changes to a training image. The default is none.

    Attributes:
        flip: mirror left-right with probability 1/2, and top-bottom likewise where `turn` is on too.
        turn: turn by 0, 90, 180 or 270 degrees.
        rotate: turn further by up to this many degrees either way.
        scale: smallest and largest magnification, drawn evenly on the logarithm.
        elastic: standard deviation in pixels of the displacements on a coarse 3 × 3 grid, which are then interpolated
            smoothly; the U-Net paper takes 10.
        gain: the image is multiplied by a factor in 1 ± gain.
        offset: a constant in ± offset is added.
        color: each channel is multiplied by a factor of its own in 1 ± color: light of another colour.
        gamma: the image is raised to a power drawn evenly on the logarithm from 1 / gamma … gamma; 1 = none.
        noise: largest standard deviation of added Gaussian noise.
        blur: largest standard deviation, in pixels, of a Gaussian blur.
    """

    flip: bool = False
    turn: bool = False
    rotate: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    elastic: float = 0.0
    gain: float = 0.0
    offset: float = 0.0
    color: float = 0.0
    gamma: float = 1.0
    noise: float = 0.0
    blur: float = 0.0

    def __post_init__(self):
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError(
                f"scale is {self.scale}; it must be (smallest, largest) with 0 < smallest ≤ largest."
            )
        for name in ("rotate", "elastic", "gain", "offset", "color", "noise", "blur"):
            in_range(name, getattr(self, name), 0)
        in_range("gamma", self.gamma, 1)  # 1 = none

    def apply(
        self, image: np.ndarray, labels: Sequence[np.ndarray], crop: tuple[int, int], rng: np.random.Generator
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Draw one random crop of an image and of the label maps that belong to it.

        Args:
            image: float32 `(height, width, channels)` in 0..1.
            labels: arrays `(height, width)`; integer ones are sampled at the nearest pixel, floating ones linearly.
            crop: height and width of the result in pixels. Where the source is smaller, it is mirrored outward.
            rng: where the random numbers come from; the same state gives the same result.

        Returns:
            `(image, labels)`: float32 `(*crop, channels)` in 0..1, and a list of arrays `crop` of the given dtypes.

        Raises:
            ValueError: if a label map is not of the image's height and width.
        """
        for k, label in enumerate(labels):
            if label.shape != image.shape[:2]:
                raise ValueError(
                    f"labels[{k}] is {label.shape[0]} × {label.shape[1]} pixels and the image {image.shape[0]} × "
                    f"{image.shape[1]}; both must have the same size."
                )
        places = self._places(image.shape[:2], crop, rng)
        if _whole(places):
            rows, columns = (
                reflect(np.rint(axis).astype(int), n) for axis, n in zip(places, image.shape[:2], strict=True)
            )
            moved = image[rows, columns]
            moved_labels = [label[rows, columns] for label in labels]
        elif _upright(places):
            moved = _resample(image, places[0][:, 0], places[1][0])
            moved_labels = [_resample(label, places[0][:, 0], places[1][0]) for label in labels]
        else:
            moved = np.stack(
                [
                    ndimage.map_coordinates(image[..., channel], places, order=1, mode="mirror")
                    for channel in range(image.shape[-1])
                ],
                axis=-1,
            )
            moved_labels = [
                ndimage.map_coordinates(label, places, order=int(label.dtype.kind == "f"), mode="mirror")
                for label in labels
            ]
        return self._intensity(moved, rng).astype(np.float32), moved_labels

    def _places(self, source: tuple[int, int], crop: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """Row and column in the source for each pixel of the result, float64 `(2, *crop)`."""
        flip_x, flip_y = rng.random(2) < 0.5
        turns = int(rng.integers(4)) if self.turn else 0
        angle = np.deg2rad(rng.uniform(-self.rotate, self.rotate))
        magnification = np.exp(rng.uniform(*np.log(self.scale)))
        corner = rng.random(2)
        knots = rng.normal(size=(2, 3, 3))

        rows, columns = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in crop), indexing="ij")
        grid = np.stack([rows, columns])
        if self.elastic:
            # Cubic interpolation of a 3 × 3 grid of displacements, as in section 3.1 of the U-Net paper.
            where = np.meshgrid(*(np.linspace(0, 2, n) for n in crop), indexing="ij")
            grid = grid + self.elastic * np.stack(
                [ndimage.map_coordinates(knot, where, order=3, mode="nearest") for knot in knots]
            )
        if angle or magnification != 1:
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / magnification
            grid = np.einsum("ij,jhw->ihw", turn, grid)
        # Right-angle turns and flips in whole numbers, so that they alone never blur.
        for _ in range(turns):
            grid = np.stack([grid[1], -grid[0]])
        if self.flip and flip_x:
            grid = np.stack([grid[0], -grid[1]])
        if self.flip and self.turn and flip_y:
            grid = np.stack([-grid[0], grid[1]])
        # The centre is drawn so that the crop lies within the source where it fits, and is centred where it does not.
        extent = crop if turns % 2 == 0 else crop[::-1]
        for axis in range(2):
            side = extent[axis] / magnification
            slack = max(0.0, source[axis] - side)
            if magnification == 1 and not angle and not self.elastic:
                # On whole pixels, so that nothing is interpolated.
                start = np.floor(corner[axis] * (slack + 1)) if slack else np.floor((source[axis] - side) / 2)
                centre = start + (side - 1) / 2
            else:
                centre = (side - 1) / 2 + corner[axis] * slack if slack else (source[axis] - 1) / 2
            grid[axis] += centre
        return grid

    def _intensity(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        gain, offset, power, sigma, width = rng.uniform(-1, 1, 5)
        if self.blur:
            image = ndimage.gaussian_filter(image, (*2 * [abs(width) * self.blur], 0))
        if self.gamma > 1:
            image = np.clip(image, 0, 1) ** (self.gamma**power)
        image = image * (1 + self.gain * gain) + self.offset * offset
        if self.color:
            image = image * (1 + self.color * rng.uniform(-1, 1, image.shape[-1]))
        if self.noise:
            image = image + rng.normal(scale=abs(sigma) * self.noise, size=image.shape)
        return np.clip(image, 0, 1)


def _upright(places: np.ndarray) -> bool:
    """Whether rows stay rows and columns stay columns, as after scale and flip alone."""
    return bool(np.all(places[0] == places[0][:, :1]) and np.all(places[1] == places[1][:1]))


def _resample(source: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """What `map_coordinates` gives on the grid of these rows and columns, one axis after the other and so in less time."""
    for axis, at in enumerate((rows, columns)):
        if source.dtype.kind != "f":
            source = source.take(reflect(np.rint(at).astype(int), source.shape[axis]), axis)
            continue
        low = np.floor(at).astype(int)
        part = (at - low).astype(source.dtype).reshape([-1 if k == axis else 1 for k in range(source.ndim)])
        first, second = (source.take(reflect(low + k, source.shape[axis]), axis) for k in (0, 1))
        source = first + part * (second - first)
    return source


def _whole(places: np.ndarray) -> bool:
    corners = places[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    # The map is affine unless it is elastic, and an elastic one has no whole corner but by accident.
    return bool(
        np.all(corners == np.rint(corners)) and np.all(places[:, :1, :2] == np.rint(places[:, :1, :2]))
    )
