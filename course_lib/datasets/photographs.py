"""`photographs`: images that scikit-image includes, so nothing is downloaded, with masks made for the course.

The outlines are kept as polygons in `data/polygons/<image>.json`: a list of objects, each with its class
and its corners `[x, y]` in pixels (the centre of the first pixel is at 0.5, 0.5). An object covers those that
stand before it in the list.
"""

import json

import numpy as np
from skimage import data

from course_lib import resources
from course_lib.datasets.sample import Sample, boxes_from_instances

POLYGONS = resources.DATA / "polygons"

CLASS_NAMES = {
    "cat": ("background", "cat"),
    "coins": ("background", "coin"),
    "retina": ("background", "retina", "optic disc"),
    "astronaut": ("background", "face"),
    "cell": ("background", "cell"),
}
"""The class names of each image's semantic map, in order of class id."""


def cat() -> Sample:
    """Chelsea the cat: image `(300, 451, 3)`, one object, the cat as far as it is in the image.

    Raises:
        DataUnavailable: if the image or its outline is missing.
    """
    return _photograph("cat", "chelsea")


def coins() -> Sample:
    """Greek coins from Pompeii: image `(303, 384, 1)`, 24 objects that never touch, under uneven light.

    Raises:
        DataUnavailable: if the image or its outlines are missing.
    """
    return _photograph("coins", "coins")


def retina() -> Sample:
    """A fundus photograph: image `(1411, 1411, 3)`, two objects, the retina in view and the optic disc on it.

    Raises:
        DataUnavailable: if the image or its outlines are missing.
    """
    return _photograph("retina", "retina")


def astronaut() -> Sample:
    """The astronaut Eileen Collins: image `(512, 512, 3)`, one object, her face.

    Raises:
        DataUnavailable: if the image or its outline is missing.
    """
    return _photograph("astronaut", "astronaut")


def cell() -> Sample:
    """A cell by digital holography: image `(660, 550, 1)`, one object that covers 4 % of the image.

    Raises:
        DataUnavailable: if the image or its outline is missing.
    """
    return _photograph("cell", "cell")


def filled(polygon: list[list[float]], size: tuple[int, int]) -> np.ndarray:
    """The pixels whose centre lies inside a polygon, by the even-odd rule.

    Scikit-image has this as `draw.polygon2mask`, which asks every pixel about every edge: seconds for the
    retina.

    Args:
        polygon: corners `[x, y]` in pixels; the last is joined to the first.
        size: `(height, width)` of the mask.

    Returns:
        bool `(height, width)`.
    """
    height, width = size
    crossings = np.zeros((height, width + 1), np.int32)
    for (x0, y0), (x1, y1) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        low, high = np.clip(np.ceil(np.array([min(y0, y1), max(y0, y1)]) - 0.5), 0, height).astype(int)
        if low < high:
            rows = np.arange(low, high)
            x = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            crossings[rows, np.clip(np.ceil(x - 0.5), 0, width).astype(int)] += 1
    return np.cumsum(crossings[:, :width], axis=1) % 2 == 1


def _photograph(name: str, source: str) -> Sample:
    """The sample of an image of scikit-image and its polygons."""
    image = bundled_image(source)
    instances = np.zeros(image.shape[:2], np.int32)
    classes = []
    for outlined in outlines(source):
        if outlined["class"] in CLASS_NAMES[name]:
            classes.append(CLASS_NAMES[name].index(outlined["class"]))
            instances[filled(outlined["polygon"], instances.shape)] = len(classes)
    classes = np.asarray(classes, np.int32)
    return Sample(
        image=(image / 255.0).astype(np.float32),
        semantic=np.concatenate([[0], classes]).astype(np.int32)[instances],
        instances=instances,
        boxes=boxes_from_instances(instances),
        classes=classes,
        name=name,
    )


def bundled_image(source: str) -> np.ndarray:
    """An image that scikit-image includes, uint8 `(h, w, channels)`.

    Raises:
        DataUnavailable: if it cannot be read.
    """
    try:
        image = getattr(data, source)()
    except (AttributeError, ImportError, OSError, ValueError) as problem:
        from course_lib.datasets.archive import DataUnavailable

        raise DataUnavailable(
            f"The image {source!r} of scikit-image cannot be read ({problem}); "
            "reinstall scikit-image: version 0.26 includes it."
        ) from problem
    return image[..., None] if image.ndim == 2 else image


def outlines(source: str) -> list[dict]:
    """The objects in an image's polygon file, each with its `"class"` and its corners, `"polygon"`.

    Raises:
        DataUnavailable: if the file cannot be read.
    """
    path = POLYGONS / f"{source}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))["objects"]
    except (OSError, ValueError, KeyError) as problem:
        from course_lib.datasets.archive import DataUnavailable

        raise DataUnavailable(
            f"The outlines data/polygons/{path.name} cannot be read ({problem}); "
            "they are part of the course's repository: install it from a checkout."
        ) from problem
