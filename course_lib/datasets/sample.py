"""The sample, which every data set returns: one image with everything that is known about it."""

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

IGNORE = -1
"""The semantic label of pixels that count neither in a loss nor in a metric."""


@dataclass(frozen=True)
class Sample:
    """One image and its ground truth.

    Attributes:
        image: float32 `(height, width, channels)` in 0..1.
        semantic: int32 `(height, width)`, a class id per pixel, -1 = ignore.
        instances: int32 `(height, width)`, 0 = background, 1..n = the objects; `None` where the set has none.
        boxes: float32 `(n, 4)`: `x1, y1, x2, y2` in pixels, `x2` and `y2` exclusive; row k is instance k + 1.
        classes: int32 `(n,)`: the class id of object k.
        name: what the sample is called in its set; unique within the set.
    """

    image: np.ndarray
    semantic: np.ndarray
    instances: np.ndarray | None
    boxes: np.ndarray
    classes: np.ndarray
    name: str

    @property
    def ignored(self) -> np.ndarray:
        """bool `(height, width)`: what counts neither in a loss nor in a metric, of whatever task: pixels that are marked
        so, and crowds, whose objects nobody has told apart."""
        return self.semantic == IGNORE


def check_sample(sample: Sample) -> None:
    """A `TypeError` or `ValueError`, with the sample's name, for an image or a label map that a `Sample` cannot have."""
    if not hasattr(sample, "image") or not hasattr(sample, "semantic"):
        raise TypeError(f"a sample is a {type(sample).__name__}; it must be a datasets.Sample.")
    image, labels = np.asarray(sample.image), np.asarray(sample.semantic)
    if image.ndim != 3 or image.dtype.kind != "f":
        raise ValueError(
            f"{sample.name}: the image is {image.dtype} of shape {image.shape}; it must be floats (height, width, "
            "channels) in 0..1, such as (image / 255)[..., None]."
        )
    if image.size and not (image.min() >= -1e-3 and image.max() <= 1.001):  # of NaN, too
        raise ValueError(
            f"{sample.name}: the image holds {image.min():g} to {image.max():g}; it must be finite, in 0..1: divide it by "
            "the largest value that there can be, such as 255."
        )
    if labels.shape != image.shape[:2] or labels.dtype.kind not in "iub":
        raise ValueError(
            f"{sample.name}: the labels are {labels.dtype} of shape {labels.shape}; they must be whole numbers, one for "
            f"each pixel of the image, {image.shape[:2]}."
        )


def boxes_from_instances(instances: np.ndarray) -> np.ndarray:
    """The tight bounding box of each instance.

    Args:
        instances: int `(height, width)`, 0 = background, ids 1..n without gaps.

    Returns:
        float32 `(n, 4)`: `x1, y1, x2, y2`, the far edges exclusive, row k for instance k + 1.

    Raises:
        ValueError: if the ids have a gap (relabel them first, as `skimage.segmentation.relabel_sequential` does).
    """
    boxes = []
    for instance, slices in enumerate(ndimage.find_objects(instances), start=1):
        if slices is None:
            raise ValueError(
                f"instances has no pixel with id {instance}, although higher ids exist; "
                "relabel the map to 1..n without gaps first."
            )
        rows, columns = slices
        boxes.append((columns.start, rows.start, columns.stop, rows.stop))
    return np.asarray(boxes, np.float32).reshape(-1, 4)


def merge_masks(masks: Iterable[np.ndarray], shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """One instance map from one mask per object.

    Where masks overlap, the smaller one keeps the pixel; of two of one size, the later one. Masks without a
    pixel of their own are left out, and the ids 1..n follow the order of those that remain.

    Args:
        masks: bool `(height, width)` each.
        shape: `(height, width)`, for when there is no mask at all.

    Returns:
        The instance map, int32 `(height, width)`, 0 = background; and which masks have a pixel of their own, int `(n,)`:
        instance k + 1 is mask `kept[k]`.
    """
    # Kept as indices of pixels: 300 masks of one large image would take half a gigabyte.
    pixels = [np.flatnonzero(mask) for mask in masks]
    instances = np.zeros(shape, np.int32)
    for index in sorted(range(len(pixels)), key=lambda index: -pixels[index].size):
        instances.flat[pixels[index]] = index + 1
    kept = np.unique(instances[instances > 0]) - 1
    new_ids = np.zeros(len(pixels) + 1, np.int32)
    new_ids[kept + 1] = np.arange(1, len(kept) + 1)
    return new_ids[instances], kept


def fingerprint(samples: Iterable[Sample], *facts: object) -> str:
    """16 hexadecimal digits that change whenever a sample or a fact does, such as a label that was corrected."""
    sha = hashlib.sha256(repr(facts).encode())
    for sample in samples:
        check_sample(sample)
        sha.update(str(sample.name).encode())
        # In 16 bits, so that the last bit of a mean, which differs between processors, is not taken for a new image.
        image = np.rint(np.nan_to_num(np.asarray(sample.image)) * 65535).astype(np.int64)
        for array in (image, sample.semantic, sample.instances, sample.boxes, sample.classes):
            if array is not None:
                array = np.ascontiguousarray(array)
                sha.update(f"{array.dtype.str}{array.shape}".encode())
                sha.update(array.data if array.size else b"")
    return sha.hexdigest()[:16]


def fingerprint_of(data: Sequence[Sample]) -> str:
    """The fingerprint of a data set, also of a list of samples, with its `class_names` where it has such."""
    if hasattr(data, "fingerprint"):
        return data.fingerprint()
    names = getattr(data, "class_names", None)
    return fingerprint(data) if names is None else fingerprint(data, tuple(names))


class Dataset(Sequence):
    """A sequence of samples with random access: `dataset[i]` is always the same sample.

    Attributes:
        name: name of the set, such as `"nuclei"`.
        split: `"train"`, `"val"` or `"test"`.
        class_names: one name per class id.
        channels: channels of the images, 1 or 3.
    """

    name: str
    split: str
    class_names: tuple[str, ...]
    channels: int

    @property
    def num_classes(self) -> int:
        """How many classes the semantic map has, background included."""
        return len(self.class_names)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample: ...

    def fingerprint(self) -> str:
        """What stands for the content of all samples (see `fingerprint`): a training goes on only with the data it began
        with. Reads them all; a set that knows its content otherwise says so more quickly."""
        return fingerprint(self, self.class_names)

    def checked_index(self, index: int) -> int:
        """`index` as a plain position, negative ones counted from the end, or an `IndexError` that says the length."""
        length = len(self)
        if not -length <= index < length:
            raise IndexError(
                f"index is {index}; it must be a sample of {self.name} {self.split}, 0 to {length - 1}."
            )
        return int(index) % length

    def __repr__(self) -> str:
        return f"<{self.name} {self.split}: {len(self)} images, classes {', '.join(self.class_names)}>"
