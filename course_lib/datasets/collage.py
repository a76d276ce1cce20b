"""`collage`: objects cut out of photographs and pasted into another one, with exact masks.

    from course_lib.datasets import collage
    photo = collage.scene()                    # two cats, two cups, five coins and a shuttle on a wall, before grass
    cup = collage.cutout("coffee", "cup")
    mask = collage.paste(image, cup, at=(200, 150), scale=0.4)

This is **copy-paste augmentation**: where objects are outlined once, new images with overlapping objects and their ground
truth cost nothing. A network that trains on them sees old objects at new locations, in front of each other; the objects
themselves are not new.

Ghiasi, Cui, Srinivas, Qian, Lin, Cubuk, Le, Zoph 2021, Simple Copy-Paste is a Strong Data Augmentation Method for Instance
Segmentation, CVPR.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from course_lib.datasets.photographs import bundled_image, filled, outlines
from course_lib.datasets.sample import Sample, boxes_from_instances

CLASS_NAMES = ("grass", "wall", "cat", "cup", "coin", "shuttle")
"""The classes of `scene`. The first two are stuff, which has no instances; the others are things."""

_SIZE = 384, 600
_WALL_TOP = 214
_SHADOW = 0.45
_GOLD, _COPPER = (1.25, 1.0, 0.55), (1.2, 0.75, 0.5)
_BEHIND_THE_WALL = (
    ("cat", {"at": (438, 116), "scale": 0.86, "mirror": True, "tint": (0.72, 0.72, 0.78)}),
    ("cat", {"at": (170, 116), "scale": 0.86}),
)
_ON_THE_WALL = (
    ("cup", {"at": (238, 246), "scale": 0.42, "mirror": True, "tint": (0.55, 0.8, 1.6)}),
    ("cup", {"at": (136, 276), "scale": 0.52}),
    ("shuttle", {"at": (452, 270), "scale": 0.86, "degrees": 66}),
    ("coin 5", {"at": (466, 272), "scale": 1.26, "tint": _COPPER}),  # the shuttle is seen in two pieces
    ("coin 2", {"at": (300, 348), "scale": 1.2, "tint": _GOLD}),
    ("coin 9", {"at": (340, 338), "scale": 1.2, "tint": _GOLD}),
    ("coin 14", {"at": (556, 336), "scale": 1.3, "tint": _GOLD}),
    ("coin 7", {"at": (504, 346), "scale": 1.2, "tint": _COPPER}),
)


@dataclass(frozen=True)
class Cutout:
    """An object and the photograph that it comes from.

    Attributes:
        image: float64 `(height, width, 3)` in 0..1.
        polygon: its corners `x, y` in pixels, `(n, 2)`.
    """

    image: np.ndarray
    polygon: np.ndarray


def cutout(source: str, kind: str, number: int = 0) -> Cutout:
    """An outlined object in one of scikit-image's photographs.

    Args:
        source: the photograph, such as `"coffee"`.
        kind: the class of the object, as in `data/polygons`.
        number: which of the objects of that class.

    Raises:
        ValueError: if the photograph has no such object.
        DataUnavailable: if the photograph or its outlines are missing.
    """
    found = [outlined["polygon"] for outlined in outlines(source) if outlined["class"] == kind]
    if not 0 <= number < len(found):
        raise ValueError(
            f"number is {number}; {source!r} has {len(found)} outlined objects of class {kind!r}, counted from 0."
        )
    image = bundled_image(source) / 255.0
    return Cutout(np.repeat(image, 3 // image.shape[2], axis=2), np.asarray(found[number]))


def paste(
    image: np.ndarray,
    cut: Cutout,
    at: tuple[float, float],
    scale: float = 1.0,
    degrees: float = 0.0,
    mirror: bool = False,
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> np.ndarray:
    """Paste an object into an image, in place, with a soft shadow.

    Args:
        image: float `(height, width, 3)` in 0..1; it is changed.
        cut: the object.
        at: where the middle of its box before turning goes, `x, y` in pixels; parts outside the image are cut off.
        scale: its size over that in its photograph.
        degrees: how far it is turned, clockwise.
        mirror: left and right exchanged.
        tint: factors for red, green and blue.

    Returns:
        The mask of the object, bool `(height, width)`.
    """
    middle = (cut.polygon.min(0) + cut.polygon.max(0)) / 2
    turn = np.deg2rad(degrees)
    forward = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    forward = forward @ np.diag([-1.0 if mirror else 1.0, 1.0])
    mask = filled(((cut.polygon - middle) @ forward.T + at).tolist(), image.shape[:2])

    shadow = ndimage.gaussian_filter(ndimage.shift(mask.astype(float), (5, 4), order=0), 5)
    image *= (1 - _SHADOW * shadow)[..., None]
    rows, columns = np.nonzero(mask)
    x, y = (
        np.linalg.inv(forward) @ (np.stack([columns, rows]) + 0.5 - np.array(at)[:, None]) + middle[:, None]
    )
    blur = max(0.0, 0.5 / scale - 0.5)  # no pixel of the photograph is skipped
    soft = ndimage.gaussian_filter(mask.astype(float), 0.7)[mask]  # the edge fades inwards
    for channel, factor in enumerate(tint):
        source = ndimage.gaussian_filter(cut.image[..., channel], blur)
        values = np.clip(
            factor * ndimage.map_coordinates(source, (y - 0.5, x - 0.5), order=1, mode="nearest"), 0, 1
        )
        image[mask, channel] += soft * (values - image[mask, channel])
    return mask


def scene() -> Sample:
    """Two cats look over a wall: image `(384, 600, 3)`, ten things that overlap and touch, and two kinds of stuff.

    Class 0 is grass, class 1 the wall; neither has instances. The cats are one photograph twice, and so are the cups.

    Raises:
        DataUnavailable: if a photograph or an outline is missing.
    """
    image = _texture("grass", (0.5, 0.75, 0.3))
    semantic, instances = np.zeros(_SIZE, np.int32), np.zeros(_SIZE, np.int32)
    sources = {"cat": ("chelsea", "cat"), "cup": ("coffee", "cup"), "shuttle": ("astronaut", "shuttle")}
    classes: list[int] = []

    def add(objects: tuple) -> None:
        for name, placed in objects:
            kind, _, number = name.partition(" ")
            cut = cutout(*sources.get(kind, ("coins", "coin")), int(number or 0))
            mask = paste(image, cut, **placed)
            classes.append(CLASS_NAMES.index(kind))
            semantic[mask], instances[mask] = classes[-1], len(classes)

    add(_BEHIND_THE_WALL)
    wall = slice(_WALL_TOP, None)
    image[wall] = _texture("brick", (1.5, 1.15, 0.95))[wall]
    semantic[wall], instances[wall] = 1, 0
    add(_ON_THE_WALL)
    return Sample(
        image=(np.rint(image * 255) / 255).astype(np.float32),
        semantic=semantic,
        instances=instances,
        boxes=boxes_from_instances(instances),
        classes=np.asarray(classes, np.int32),
        name="collage",
    )


def _texture(source: str, tint: tuple[float, float, float]) -> np.ndarray:
    """A grey photograph, coloured, as large as the scene: the part below its top, mirrored on the right."""
    grey = bundled_image(source)[: _SIZE[0], :, 0] / 255.0
    wide = np.concatenate([grey, grey[:, ::-1]], axis=1)[:, : _SIZE[1]]
    return np.clip(wide[..., None] * tint, 0, 1)
