"""Claims 1.1 to 1.3: what a box tells, what a mask tells, and what each of them costs."""

import json
from collections.abc import Callable, Iterable

import numpy as np
from keras import ops
from scipy import ndimage
from skimage import color, data, feature, filters

from course_lib._checks import one_of
from course_lib.datasets import (
    CAMVID_CLASSES,
    DataError,
    Sample,
    boxes_from_instances,
    camvid,
    cells,
    nuclei,
    photographs,
    scenes,
)
from course_lib.ops.boxes import box_iou
from course_lib.teaching.ledger import Result, demonstrated

ELONGATIONS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
"""Length of an object divided by its width."""
ROTATIONS = (0, 15, 30, 45, 60, 75, 90)
"""Degrees between an object's length and the rows of the image."""
SHAPES = ("ellipse", "rectangle")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
SMALLEST_PERSON = 50
"""Pieces of pedestrian of fewer pixels are left out: the images are 360 × 480, these cannot be told from errors."""


# A mask as bytes --------------------------------------------------------------------------------------------


def run_lengths(mask: np.ndarray) -> np.ndarray:
    """A mask as the lengths of its runs, column by column: off, on, off, on, … (COCO's uncompressed RLE).

    Args:
        mask: bool `(height, width)`.

    Returns:
        uint32 `(runs,)`; the first run is one of "off", of length 0 if the first pixel is on.
    """
    line = np.asarray(mask, bool).ravel(order="F")
    changes = np.flatnonzero(np.diff(line, prepend=False))
    return np.diff(changes, prepend=0, append=line.size).astype(np.uint32)


# A box as a mask --------------------------------------------------------------------------------------------


def drawn(shape: str, length: float, width: float, degrees: float) -> np.ndarray:
    """The pixels whose centre lies in an object, bool `(side, side)`, just large enough.

    Args:
        shape: `"ellipse"` or `"rectangle"`.
        length, width: its two axes or sides, in pixels.
        degrees: how far its length is turned from the x axis.

    Raises:
        ValueError: for another shape.
    """
    one_of("shape", shape, SHAPES)
    side = int(np.ceil(np.hypot(length, width))) + 2
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    angle = np.deg2rad(degrees)
    along = (np.cos(angle) * x + np.sin(angle) * y) / (length / 2)
    across = (np.cos(angle) * y - np.sin(angle) * x) / (width / 2)
    return along**2 + across**2 < 1 if shape == "ellipse" else np.maximum(abs(along), abs(across)) < 1


def as_mask(box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The pixels in a box `x1, y1, x2, y2` with whole edges, as bool `(height, width)`."""
    x1, y1, x2, y2 = (int(edge) for edge in box)
    mask = np.zeros(size, bool)
    mask[y1:y2, x1:x2] = True
    return mask


def formula(shape: str, elongation: float, degrees: float) -> float:
    """The IoU of an object with the tight box around it, by geometry: the fraction of the box that the object fills.

    An ellipse with axes a and b fills (π / 4) a b; its box is √(a² cos² + b² sin²) by √(a² sin² + b² cos²). A rectangle
    fills a b; its box is a cos + b sin by a sin + b cos.
    """
    a, b = elongation, 1.0
    c, s = abs(np.cos(np.deg2rad(degrees))), abs(np.sin(np.deg2rad(degrees)))
    if shape == "ellipse":
        return float(np.pi / 4 * a * b / (np.hypot(a * c, b * s) * np.hypot(a * s, b * c)))
    return float(a * b / ((a * c + b * s) * (a * s + b * c)))


def filled_fractions(samples: Iterable[Sample]) -> dict[str, list[float]]:
    """For each class, the fraction of its tight box that each object fills: the IoU of the box, taken as a mask, with it.

    Args:
        samples: with instances and classes.

    Returns:
        class id as text → one fraction for each object.
    """
    fractions: dict[str, list[float]] = {}
    for sample in samples:
        areas = np.bincount(sample.instances.ravel(), minlength=len(sample.classes) + 1)[1:]
        sides = sample.boxes[:, 2:] - sample.boxes[:, :2]
        for kind, fraction in zip(sample.classes, areas / sides.prod(1), strict=True):
            fractions.setdefault(str(kind), []).append(float(fraction))
    return fractions


def _summary(fractions: list[float]) -> dict[str, float]:
    return {
        "objects": len(fractions),
        "least": float(np.min(fractions)),
        "median": float(np.median(fractions)),
        "greatest": float(np.max(fractions)),
    }


def real_shapes(progress: Callable[[str], None] = print) -> dict[str, dict]:
    """How much of its box an object fills, in the coins and in our data sets; real nuclei where they are here."""
    found = {"coins": filled_fractions([photographs.coins()])["1"]}
    for dataset in (cells("val", 64), scenes("val", 64)):
        for kind, fractions in sorted(filled_fractions(dataset).items()):
            name = dataset.class_names[int(kind)]
            found["cells" if name == "cell" else f"{dataset.name}: {name}"] = fractions
    try:
        found["real nuclei"] = filled_fractions(nuclei("val"))["1"]
    except DataError as problem:
        progress(f"without real nuclei: {problem}")
    return {
        name: {"objects": len(fractions), "quantiles": np.quantile(fractions, QUANTILES).round(4).tolist()}
        for name, fractions in found.items()
    }


# The claims -------------------------------------------------------------------------------------------------


def must(shown: bool, what: str) -> None:
    """Raise an error if a demonstration does not show what it claims.

    Raises:
        AssertionError: says what was not so.
    """
    if not shown:
        raise AssertionError(f"not shown: {what}")


def claim_1_1(progress: Callable[[str], None] = print) -> Result:
    """Detection predicts a box and a class, segmentation a class per pixel: array shapes and bytes for the cat."""
    cat = photographs.cat()
    mask = cat.semantic == 1
    (box,) = cat.boxes
    outline = json.loads((photographs.POLYGONS / "chelsea.json").read_text(encoding="utf-8"))
    corners = sum(len(one["polygon"]) for one in outline["objects"])
    sizes = {
        "label map, int32": cat.semantic.nbytes,
        "run lengths, uint32": run_lengths(mask).nbytes,
        "the polygon it was drawn as": corners * 2 * 4,
    }
    box_bytes = cat.boxes.nbytes + cat.classes.nbytes
    progress(f"box and class: {box_bytes} bytes; mask: {', '.join(f'{n} {b:,}' for n, b in sizes.items())}")

    must(cat.boxes.shape == (1, 4) and cat.classes.shape == (1,), "one object, one box, one class")
    must(cat.semantic.shape == cat.image.shape[:2], "a class for each pixel")
    must(np.array_equal(boxes_from_instances(mask.astype(np.int32))[0], box), "the mask gives the box")
    must(not np.array_equal(as_mask(box, mask.shape), mask), "the box does not give the mask")
    must(box_bytes < min(sizes.values()), "box and class take fewer bytes than any form of the mask")
    return demonstrated(
        "1.1",
        "Detection predicts a class and a bounding box for each object; segmentation predicts a class for each pixel.",
        "array shapes and sizes in bytes of both outputs for one photograph, the cat",
        "Detection stores a few numbers for each object, segmentation one for each pixel. A mask determines its box; a "
        "box does not determine the mask.",
        {
            "image": {"name": "cat", "shape": list(cat.image.shape)},
            "detection": {
                "boxes": {"shape": list(cat.boxes.shape), "dtype": str(cat.boxes.dtype)},
                "classes": {"shape": list(cat.classes.shape), "dtype": str(cat.classes.dtype)},
                "bytes": box_bytes,
            },
            "segmentation": {
                "labels": {"shape": list(cat.semantic.shape), "dtype": str(cat.semantic.dtype)},
                "bytes": sizes,
            },
        },
    )


def claim_1_2(progress: Callable[[str], None] = print) -> Result:
    """A box is coarse, a mask is fine: the fraction of its box that an object fills, by geometry and in real shapes.

    Nothing here is random, so there is no interval. That pixels and geometry agree is checked on large objects.
    """
    geometry = {shape: [[formula(shape, e, r) for r in ROTATIONS] for e in ELONGATIONS] for shape in SHAPES}
    for shape in SHAPES:
        for degrees in ROTATIONS:
            mask = drawn(shape, 400, 100, degrees)
            (box,) = boxes_from_instances(mask.astype(np.int32))
            counted = mask.sum() / np.prod(box[2:] - box[:2])
            must(
                abs(counted - formula(shape, 4, degrees)) < 0.02,
                f"geometry holds for {shape} at {degrees} degrees",
            )
    disc, thin = geometry["ellipse"][0][0], geometry["ellipse"][-1][ROTATIONS.index(45)]
    return demonstrated(
        "1.2",
        "A bounding box is coarse, a mask is fine.",
        "the fraction of its bounding box that an object fills, over elongation and rotation, and for real shapes",
        f"An upright rectangle fills its box. A disc fills {disc:.0%} of it, an ellipse {ELONGATIONS[-1]:g} times as long "
        f"as wide, at 45 degrees, {thin:.0%}.",
        {
            "levels": {"elongation": list(ELONGATIONS), "rotation": list(ROTATIONS)},
            "fraction_by_geometry": geometry,
            "fraction_of_the_box_filled": real_shapes(progress),
        },
    )


def faces() -> dict:
    """A face detector from before deep learning, applied to a real photograph: scikit-image's cascade on the astronaut."""
    sample = photographs.astronaut()
    detector = feature.Cascade(data.lbp_frontal_face_cascade_filename())
    found = detector.detect_multi_scale(
        img=data.astronaut(), scale_factor=1.2, step_ratio=1, min_size=(60, 60), max_size=(200, 200)
    )
    boxes = np.array(
        [[one["c"], one["r"], one["c"] + one["width"], one["r"] + one["height"]] for one in found], np.float32
    ).reshape(-1, 4)
    must(len(boxes) == 1, f"the detector finds the one face; it found {len(boxes)}")
    iou = float(ops.convert_to_numpy(box_iou(boxes, sample.boxes)).item())
    must(iou >= 0.5, f"its box is on the face; the IoU is {iou:.2f}")
    return {
        "picture": "the astronaut, from scikit-image",
        "question": "Is there a face, how many, and where?",
        "answer": "box",
        "boxes": boxes.astype(int).tolist(),
        "drawn_by_hand": sample.boxes.astype(int).tolist(),
        "iou": iou,
    }


def medicine() -> dict:
    """Two questions of a physician, answered from a box and from a mask: how large is it, and how much of it is there?"""
    retina = photographs.retina()
    disc = photographs.CLASS_NAMES["retina"].index("optic disc")
    (fills,) = filled_fractions([retina])[str(disc)]
    stained = stained_tissue(data.immunohistochemistry())
    (box,) = boxes_from_instances(stained.astype(np.int32))
    held = as_mask(box, stained.shape)
    must(1 / fills > 1.1, "the box overstates the optic disc's area by more than a tenth")
    must(stained[held].mean() < 0.9, "more than a tenth of the box around the stain is not stained")
    return {
        "optic disc": {
            "picture": "a retina, from scikit-image",
            "question": "How large is the optic disc?",
            "answer": "mask",
            "pixels": int((retina.semantic == disc).sum()),
            "box_area_over_mask_area": 1 / fills,
        },
        "stained tissue": {
            "picture": "stained tissue under the microscope, from scikit-image",
            "question": "What share of the tissue is stained brown?",
            "answer": "mask",
            "share_by_mask": float(stained.mean()),
            "share_by_box": float(held.mean()),
        },
    }


def stained_tissue(image: np.ndarray) -> np.ndarray:
    """Where tissue took the brown stain (DAB): its fraction of the colour, cut by Otsu's threshold.

    The stains are told apart by how they absorb light (Ruifrok and Johnston 2001).

    Args:
        image: uint8 or float `(height, width, 3)`.

    Returns:
        bool `(height, width)`.
    """
    brown = color.rgb2hed(image)[..., 2]
    return brown > filters.threshold_otsu(brown)


def street() -> dict:
    """Pedestrians and the road in CamVid's validation images, as numbers.

    Raises:
        DataError: if CamVid is not here.
    """
    pedestrian, road = CAMVID_CLASSES.index("pedestrian"), CAMVID_CLASSES.index("road")
    fills, centred, off_road, uncountable, labelled = [], [], [], 0, 0
    countable = [CAMVID_CLASSES.index(name) for name in ("pole", "sign", "car", "pedestrian", "cyclist")]
    pictures = camvid("val")
    for sample in pictures:
        pieces, _ = ndimage.label(sample.semantic == pedestrian, structure=np.ones((3, 3)))
        for number, box in enumerate(boxes_from_instances(pieces), start=1):
            window = as_mask(box, pieces.shape)
            if (pixels := (pieces == number).sum()) >= SMALLEST_PERSON:
                fills.append(float(pixels / window.sum()))
                x, y = int((box[0] + box[2]) / 2), int((box[1] + box[3]) / 2)
                centred.append(bool(pieces[y, x] == number))
        if (sample.semantic == road).any():
            (box,) = boxes_from_instances((sample.semantic == road).astype(np.int32))
            inside = sample.semantic[as_mask(box, pieces.shape)]
            off_road.append(float((inside[inside >= 0] != road).mean()))
        known = sample.semantic[sample.semantic >= 0]
        uncountable += int((~np.isin(known, countable)).sum())
        labelled += known.size
    must(
        len(centred) > 0 and np.mean(centred) > 0.5,
        "the middle of a pedestrian's box is mostly on the pedestrian",
    )
    must(float(np.median(off_road)) > 0.1, "more than a tenth of the box around the road is not road")
    return {
        "pedestrians": {
            "picture": f"CamVid, {len(pictures)} street scenes of val",
            "question": "Is somebody there, and where?",
            "answer": "box",
            "pieces": len(fills),
            "share_of_the_box_that_is_person": _summary(fills),
            "middle_of_the_box_on_the_person": float(np.mean(centred)),
        },
        "driving": {
            "picture": f"CamVid, {len(pictures)} street scenes of val",
            "question": "Which part of what lies ahead is road?",
            "answer": "mask",
            "share_of_the_box_around_the_road_that_is_not": _summary(off_road),
            "share_of_pixels_in_classes_that_nobody_counts": uncountable / labelled,
        },
    }


def claim_1_3(progress: Callable[[str], None] = print) -> Result:
    """Detection serves faces and pedestrians, segmentation medicine and driving: a real image for each use."""
    table = {"faces": faces()}
    progress(f"face: IoU {table['faces']['iou']:.2f}")
    table["medicine"] = medicine()
    teacher = (
        "Ask what the output is needed for. Boxes are enough to locate and count objects. To measure size or shape, or to "
        "separate parts, you need masks. A self-driving car needs both."
    )
    try:
        table |= street()
    except DataError as problem:
        progress(f"without street scenes: {problem}")
        table["not shown"] = {"pedestrians, driving": "CamVid is not here: python -m course_lib data camvid"}
        teacher += " (Shown for faces and medicine only: the street scenes are not installed.)"
    return demonstrated(
        "1.3",
        "Detection serves faces and pedestrians; segmentation serves medicine and driving.",
        "for each use, the same question answered from a box and from a mask, in real images",
        teacher,
        table,
    )
