"""`scenes`: six shapes over photographic texture, one in front of another, from 4 pixels to the whole image.

Colour and texture have the same distribution in all classes: a network can distinguish the classes by shape alone.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import exp, log

import numpy as np

from course_lib._checks import in_range, whole_number
from course_lib.datasets.photographs import bundled_image
from course_lib.datasets.procedural import (
    ProceduralDataset,
    checked_range,
    checked_size,
    quantised,
    smooth_field,
)
from course_lib.datasets.sample import Dataset, Sample, boxes_from_instances

CLASS_NAMES = ("background", "disc", "triangle", "star", "cross", "ring", "rod")
SMALLEST_PART = 4
"""Objects of which fewer pixels than this can be seen are left out."""

_TRIES = 8
_BACKGROUNDS = ("astronaut", "brick", "chelsea", "coffee", "grass", "gravel", "immunohistochemistry")
"""Images inside scikit-image's package, stored without loss: every machine reads the same pixels."""
_MATERIALS = ("brick", "grass", "gravel", "coffee", "immunohistochemistry")


def scenes(
    split: str = "train",
    length: int = 64,
    size: int | tuple[int, int] = 128,
    seed: int = 0,
    *,
    objects: int | tuple[int, int] = (3, 8),
    object_size: tuple[float, float | None] = (4.0, None),
    occlusion: float | tuple[float, float] = 0.5,
    thin: float | tuple[float, float] = (0.2, 0.8),
    contrast: float | tuple[float, float] = (0.2, 0.5),
    noise: float | tuple[float, float] = (0.0, 0.04),
    imbalance: float = 0.0,
    class_names: Sequence[str] = CLASS_NAMES,
) -> Dataset:
    """Objects of up to six shapes over photographic texture: three channels, classes as in `CLASS_NAMES`.

    A parameter takes one number, or a pair `(low, high)` from which every image draws its own.

    Args:
        split: `"train"`, `"val"` or `"test"`: three disjoint streams of samples.
        length: samples in the set.
        size: side of the images in pixels, or `(height, width)`; at least 16.
        seed: another seed, other samples.
        objects: how many objects are laid down, 0 to 200. Some images show fewer: what finds no room, or is
            hidden but for fewer than 4 pixels, is left out.
        object_size: a pair, the least and the greatest length of an object in pixels, from 4 up (small and
            large are equally common: lengths are drawn evenly on a logarithmic scale). `None` as the greatest
            is the image's shorter side.
        occlusion: fraction of an object that those in front of it may hide, 0 (none overlap) to 1 (some are
            hidden altogether, and left out). The same fraction of the objects is laid close to another one.
        thin: how thin rings, rods, crosses and the spikes of stars are, 0 (sturdy) to 1 (about a pixel and a
            half in small objects).
        contrast: difference of an object's colour from what lies behind it, in the channel that differs most,
            0.02 to 0.5 (of the full range).
        noise: standard deviation of the noise, 0 to 0.3 (of the full range).
        imbalance: 0 (all object classes equally common) to 0.95: each class is rarer than the one before it
            in `class_names` by this fraction, so that at 0.5 there are 32 discs to a rod.
        class_names: `"background"`, then the shapes that are drawn, in the order of their labels.

    Returns:
        A `Dataset` whose samples have image `(h, w, 3)`, semantic map, instance map (the visible parts; what
        lies in front may cut one in two), boxes of the visible parts and classes, from the back to the front.

    Raises:
        TypeError, ValueError: if an argument is no number, or outside its range.
    """
    height, width = checked_size(size)
    if isinstance(objects, (tuple, list)):
        counts = tuple(whole_number("objects", count, 0, 200) for count in objects)
    else:
        counts = (whole_number("objects", objects, 0, 200),) * 2
    if len(counts) != 2 or counts[0] > counts[1]:
        raise ValueError(
            f"objects is {objects!r}; it must be a count or a pair (low, high) with low <= high."
        )
    if not isinstance(object_size, (tuple, list)) or len(object_size) != 2:
        raise ValueError(f"object_size is {object_size!r}; it must be a pair (least, greatest) in pixels.")
    least, greatest = object_size
    if greatest is None and isinstance(least, (int, float)):
        greatest = max(min(height, width), least)
    parameters = {
        "objects": counts,
        "object_size": checked_range("object_size", (least, greatest), 4.0, 2.0 * max(height, width)),
        "occlusion": checked_range("occlusion", occlusion, 0.0, 1.0),
        "thin": checked_range("thin", thin, 0.0, 1.0),
        "contrast": checked_range("contrast", contrast, 0.02, 0.5),
        "noise": checked_range("noise", noise, 0.0, 0.3),
        "imbalance": in_range("imbalance", imbalance, 0.0, 0.95),
    }
    names = class_names if isinstance(class_names, str) else tuple(class_names)
    shapes = names[1:]
    if names[:1] != CLASS_NAMES[:1] or not shapes or len({*shapes} & {*CLASS_NAMES[1:]}) != len(shapes):
        raise ValueError(
            f"class_names is {class_names!r}; it must be 'background' and then different ones of "
            f"{', '.join(CLASS_NAMES[1:])}."
        )
    if names != CLASS_NAMES:
        parameters["class_names"] = names
    return _Scenes(split, length, (height, width), seed, parameters)


class _Scenes(ProceduralDataset):
    name = "scenes"
    channels = 3

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.parameters.get("class_names", CLASS_NAMES)

    def draw(self, rng: np.random.Generator, name: str) -> Sample:
        low, high = self.parameters["objects"]
        count = low + int(rng.random() * (high - low + 1))
        occlusion = rng.uniform(*self.parameters["occlusion"])
        thin = rng.uniform(*self.parameters["thin"])
        contrast = rng.uniform(*self.parameters["contrast"])
        noise = rng.uniform(*self.parameters["noise"])
        least, greatest = (log(length) for length in self.parameters["object_size"])
        lengths = [exp(rng.uniform(least, greatest)) for _ in range(count)]
        # What is large tends to lie behind: else one object would often be all there is to see.
        lengths = [
            lengths[k] for k in np.argsort(-np.log(lengths) + 0.6 * rng.standard_normal(count), kind="stable")
        ]
        shapes = [CLASS_NAMES.index(shape) for shape in self.class_names]
        weights = (1.0 - self.parameters["imbalance"]) ** np.arange(len(shapes) - 1)
        classes = 1 + np.searchsorted(np.cumsum(weights) / weights.sum(), rng.random(count), side="right")

        stage = _Stage(self.size, rng)
        for kind, length in zip(np.minimum(classes, len(shapes) - 1).tolist(), lengths, strict=True):
            stage.add(kind, shapes[kind], length, thin, contrast, occlusion)
        instances, classes = stage.seen()
        image = stage.image + noise * rng.standard_normal(stage.image.shape)
        return Sample(
            image=quantised(image),
            semantic=np.concatenate([[0], classes]).astype(np.int32)[instances],
            instances=instances,
            boxes=boxes_from_instances(instances),
            classes=classes,
            name=name,
        )


# Shapes -----------------------------------------------------------------------------------------------------


def _outside(kind: int, points: np.ndarray, half: float, thin: float) -> np.ndarray:
    """How far each point lies outside a shape, in pixels; negative inside.

    Args:
        kind: its index in `CLASS_NAMES`.
        points: complex, x + iy from the shape's centre.
        half: half of the shape's length in pixels.
        thin: the parameter, 0 to 1.
    """
    name = CLASS_NAMES[kind]
    x, y = points.real, points.imag
    if name == "disc":
        return abs(points) - half
    if name == "ring":
        width = max(half * (0.55 - 0.43 * thin), 1.5)
        return abs(abs(points) - (half - 0.5 * width)) - 0.5 * width
    if name == "rod":
        width = max(half * (0.25 - 0.2 * thin), 0.8)
        return np.hypot(np.maximum(abs(x) - (half - width), 0.0), y) - width
    if name == "cross":
        width = max(half * (0.38 - 0.3 * thin), 0.8)
        x, y = abs(x), abs(y)
        return np.minimum(np.maximum(x - half, y - width), np.maximum(x - width, y - half))
    if name == "triangle":
        slope = 0.5 * np.sqrt(3.0)
        return np.maximum(abs(x) * slope + 0.5 * y, -y) - 0.5 * half
    # A star: fold the plane into one half of one spike, which a straight edge bounds.
    fold = np.pi / 5.0
    angle = fold - abs(np.arctan2(y, x) % (2.0 * fold) - fold)
    inner = (0.62 - 0.3 * thin) * half
    tip, dent = half + 0.0j, inner * complex(np.cos(fold), np.sin(fold))
    edge = (dent - tip) / abs(dent - tip)
    length = abs(points)
    return (length * np.cos(angle) - tip.real) * edge.imag - length * np.sin(angle) * edge.real


class _Stage:
    """The image while objects are painted on it, from the back to the front.

    Attributes:
        image: float64 `(h, w, 3)`.
        owner: int32 `(h, w)`, the object that a pixel shows, 0 = none.
    """

    def __init__(self, size: tuple[int, int], rng: np.random.Generator):
        self.size = size
        self.rng = rng
        self.owner = np.zeros(size, np.int32)
        photograph = _photograph(_BACKGROUNDS[int(rng.random() * len(_BACKGROUNDS))])
        lamp = rng.uniform(0.7, 1.05) * (1.0 + 0.08 * smooth_field(rng, size, 3))
        self.image = _crop(photograph, size, rng) / 255.0 * lamp[..., None]
        self.placed: list[tuple[complex, float]] = []
        self.kinds = [0]
        self.whole = [0]
        self.visible = np.zeros(1, np.int64)

    def add(
        self, kind: int, shape: int, length: float, thin: float, contrast: float, occlusion: float
    ) -> None:
        """Paint an object where it hides at most the fraction `occlusion` of another, if there is such a location."""
        half = 0.5 * length
        turn = complex(*self.rng.standard_normal(2))
        turn /= abs(turn)
        for _ in range(_TRIES):
            centre = self._centre(half, occlusion)
            rows = _window(centre.imag, half + 3.0, self.size[0])
            columns = _window(centre.real, half + 3.0, self.size[1])
            points = (np.arange(columns.start, columns.stop) + 0.5 - centre.real) + 1j * (
                np.arange(rows.start, rows.stop) + 0.5 - centre.imag
            )[:, None]
            outside = _outside(shape, points * turn, half, thin)
            mask = outside < 0.0
            pixels = np.count_nonzero(mask)
            if pixels < SMALLEST_PART:
                continue
            left = self.visible - np.bincount(self.owner[rows, columns][mask], minlength=len(self.visible))
            if (left[1:] >= (1.0 - occlusion) * np.asarray(self.whole[1:])).all():
                break
        else:
            return
        self.owner[rows, columns][mask] = len(self.kinds)
        self.kinds.append(kind)
        self.whole.append(pixels)
        self.visible = np.append(left, pixels)
        self.placed.append((centre, half))
        self._paint(self.image[rows, columns], outside, points / half, contrast)

    def _centre(self, half: float, occlusion: float) -> complex:
        """Where to try an object: anywhere, or (in `occlusion` of the cases) close to one already laid."""
        h, w = self.size
        if self.placed and self.rng.random() < occlusion:
            centre, other = self.placed[int(self.rng.random() * len(self.placed))]
            step = complex(*self.rng.standard_normal(2))
            centre += step / abs(step) * (self.rng.uniform(0.5, 1.0) * other + 0.5 * half)
            if 0.0 <= centre.real < w and 0.0 <= centre.imag < h:
                return centre
        return complex(self.rng.random() * w, self.rng.random() * h)

    def _paint(self, under: np.ndarray, outside: np.ndarray, across: np.ndarray, contrast: float) -> None:
        """Lay colour, grain, shading and a soft shadow of one object over `under`, a view of the image."""
        cover = np.clip(0.5 - outside, 0.0, 1.0)
        behind = np.einsum("ij,ijk->k", cover, under) / max(cover.sum(), 1e-9)
        change = self.rng.uniform(-1.0, 1.0, 3)
        change *= contrast / abs(change).max()
        change = np.where(abs(behind + change - 0.5) > 0.5, -change, change)
        material = _material(_MATERIALS[int(self.rng.random() * len(_MATERIALS))])
        grain = _crop(material, outside.shape, self.rng)
        tilt = complex(*self.rng.standard_normal(2)) * 0.04
        shade = 1.0 + tilt.real * across.real + tilt.imag * across.imag + self.rng.uniform(0.15, 0.6) * grain
        # The shadow lies outside the cover; under it, the paint hides it.
        shadow = 1.0 - 0.7 * contrast * np.clip(1.0 - outside / 3.0, 0.0, 1.0)
        under *= (shadow * (1.0 - cover))[..., None]
        under += (cover * shade)[..., None] * (behind + change)

    def seen(self) -> tuple[np.ndarray, np.ndarray]:
        """The instance map int32 `(h, w)` and the classes int32 `(n,)` of the objects that can be seen."""
        kept = self.visible >= SMALLEST_PART
        ids = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
        return ids[self.owner], np.asarray(self.kinds, np.int32)[kept]


def _window(at: float, reach: float, side: int) -> slice:
    """The pixels of a side within `reach` of a position."""
    return slice(max(int(at - reach), 0), min(int(at + reach) + 2, side))


# Photographs ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def _photograph(name: str) -> tuple[np.ndarray, np.ndarray]:
    """An image of scikit-image as uint8 `(h, w, 3)`, and the same at half its size."""
    image = bundled_image(name)
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    h, w = (side // 2 * 2 for side in image.shape[:2])
    half = image[:h, :w].reshape(h // 2, 2, w // 2, 2, 3).mean((1, 3))
    return image, np.rint(half).astype(np.uint8)


@lru_cache(maxsize=16)
def _material(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The grain of an image, float64 `(h, w)` of mean 0, and the same at half its size."""
    return tuple((image.mean(2) - image.mean()) / 255.0 for image in _photograph(name))


def _crop(
    images: tuple[np.ndarray, np.ndarray], size: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """A random piece `(h, w, ...)` of one of the images, mirrored at random, continued where too small."""
    image = images[int(rng.random() * len(images))]
    picks = []
    for side, available in zip(size, image.shape[:2], strict=True):
        start = int(rng.random() * max(available - side + 1, 1))
        position = (start + np.arange(side)) % (2 * available)
        picks.append(np.minimum(position, 2 * available - 1 - position))
    rows, columns = picks
    return image[rows[:, None], columns[::-1] if rng.random() < 0.5 else columns]
