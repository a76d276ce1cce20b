"""What a detector learns from: the objects of each image, padded to a fixed number."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage

from course_lib.datasets.sample import IGNORE, Sample
from course_lib.ops.by_hand import iou

SMALLEST = 4
"""Objects of which a crop leaves fewer pixels than this are not asked for, nor held against anyone."""


def truth_from_maps(
    instances: np.ndarray, semantic: np.ndarray, max_objects: int, masks: bool = True
) -> dict[str, np.ndarray]:
    """The ground truth of a batch in the form that a detector needs, from its segmentation maps.

    Args:
        instances: integers `(batch, height, width)`, 0 = background; ids may have gaps, as a crop leaves them.
        semantic: integers of the same shape: the class of each pixel; an object's is that of most of its pixels.
        max_objects: places for each image. Of more objects than that the largest are taken; so that none is lost, give as
            many places as the fullest image has objects.
        masks: whether masks are wanted.

    Returns:
        `boxes` float32 `(batch, max_objects, 4)`, tight, x2 and y2 exclusive; `classes` int32 `(batch, max_objects)`;
        `crowd` bool `(batch, max_objects)`, true for what is left of an object with fewer than `SMALLEST` pixels:
        neither object nor background; `ignore` bool `(batch, height, width)`, pixels that do not count (-1 in `semantic`);
        `masks` uint8 `(batch, max_objects, height, width)`. Empty places hold 0.

    Raises:
        ValueError: if the maps differ in shape, or `max_objects` is below 1.
    """
    if instances.shape != semantic.shape or instances.ndim != 3:
        raise ValueError(
            f"instances has shape {instances.shape} and semantic {semantic.shape}; both must be (batch, height, width)."
        )
    if max_objects < 1:
        raise ValueError(f"max_objects is {max_objects}; it must be at least 1.")
    count = len(instances)
    ground_truth = {
        "boxes": np.zeros((count, max_objects, 4), np.float32),
        "classes": np.zeros((count, max_objects), np.int32),
        "crowd": np.zeros((count, max_objects), bool),
        "ignore": semantic == IGNORE,
    }
    if masks:
        ground_truth["masks"] = np.zeros((count, max_objects, *instances.shape[1:]), np.uint8)
    for k, (ids, kinds) in enumerate(zip(instances, semantic, strict=True)):
        found = [
            (int(np.count_nonzero(ids[slices] == number)), number, slices)
            for number, slices in enumerate(ndimage.find_objects(ids), start=1)
            if slices is not None
        ]
        for place, (pixels, number, slices) in enumerate(sorted(found, key=_largest)[:max_objects]):
            inside = ids[slices] == number
            rows, columns = slices
            ground_truth["boxes"][k, place] = columns.start, rows.start, columns.stop, rows.stop
            votes = np.bincount(kinds[slices][inside] + 1, minlength=2)
            ground_truth["classes"][k, place] = max(1, votes[1:].argmax())
            ground_truth["crowd"][k, place] = pixels < SMALLEST or 2 * votes[0] > pixels
            if masks:
                ground_truth["masks"][k, place][slices] = inside
    return ground_truth


def truth_from_samples(samples: Sequence, max_objects: int, masks: bool = True) -> dict[str, np.ndarray]:
    """`truth_from_maps` for samples of the same size."""
    return truth_from_maps(
        np.stack([sample.instances for sample in samples]),
        np.stack([sample.semantic for sample in samples]),
        max_objects,
        masks,
    )


def instance_map(
    detections: Mapping[str, np.ndarray],
    masks: np.ndarray,
    score_threshold: float = 0.5,
    smallest: int = 1,
    least_left: float = 0.5,
) -> tuple[np.ndarray, np.ndarray]:
    """Detections as an instance map in which every pixel belongs to at most one object, the most confident one.

    Args:
        detections: of one image, `scores`, `classes`, `valid`, each `(n,)`.
        masks: bool `(n, height, width)`, in the whole image.
        score_threshold: detections below it are left out.
        smallest: objects of which fewer pixels are left are dropped.
        least_left: so are those of whose pixels more confident ones have taken more than the rest.

    Returns:
        instances: int32 `(height, width)`, 0 = background, 1, 2, … in the order of the scores.
        kept: the rows of the detections that these are, int64 `(number of instances,)`.
    """
    instances = np.zeros(masks.shape[1:], np.int32)
    kept: list[int] = []
    for row in np.argsort(-detections["scores"], kind="stable"):
        if not detections["valid"][row] or detections["scores"][row] < score_threshold:
            continue
        free = masks[row] & (instances == 0)
        pixels = np.count_nonzero(free)
        if pixels >= max(smallest, 1, least_left * np.count_nonzero(masks[row])):
            kept.append(int(row))
            instances[free] = len(kept)
    return instances, np.asarray(kept, np.int64)


def counted_detections(sample: Sample, boxes: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
    """Which detections are right or wrong: all but those of which more than half lies where nothing counts, unless their
    box has an IoU of 0.5 or more with an object's.

    Args:
        sample: the ground truth.
        boxes: float `(n, 4)`.
        masks: bool `(n, height, width)`, in the whole image; without them the boxes are measured.

    Returns:
        bool `(n,)`.
    """
    ignored, counted = sample.ignored, np.ones(len(boxes), bool)
    if not ignored.any():
        return counted
    for row, box in enumerate(boxes):
        x1, y1, x2, y2 = np.rint(box).astype(int)
        window = (slice(max(y1, 0), max(y2, 0)), slice(max(x1, 0), max(x2, 0)))
        inside = ignored[window] if masks is None else ignored[window][masks[row][window]]
        known = any(iou(box, other) >= 0.5 for other in sample.boxes)
        counted[row] = known or not inside.size or inside.mean() <= 0.5
    return counted


def _largest(entry: tuple) -> tuple:
    return -entry[0], entry[1]
