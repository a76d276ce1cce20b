"""COCO's average precision against pycocotools."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from course_lib.metrics import COCOEvaluator, coco_average_precision

CLASSES = 3
SIDE = 140  # holds objects of all three sizes


def encoded(mask):
    return rle.encode(np.asfortranarray(mask.astype(np.uint8)))


def xywh(boxes):
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=-1).tolist()


def their_evaluation(images, kind, classes=CLASSES, max_detections=100):
    """pycocotools on COCO dictionaries made of the arguments of `COCOEvaluator.update`, a dict per image."""
    truth, detections = [], []
    for number, image in enumerate(images, start=1):
        n, m = len(image["classes_true"]), len(image["classes_pred"])
        crowd = image.get("crowd", np.zeros(n, bool))
        areas = image.get("areas")
        boxes = xywh(image["boxes_true"]) if kind == "boxes" else None
        for k in range(n):
            row = {"image_id": number, "category_id": int(image["classes_true"][k]), "iscrowd": int(crowd[k])}
            if "masks_true" in image:
                row["segmentation"] = encoded(image["masks_true"][k])
                row["area"] = float(rle.area(row["segmentation"]))
            if kind == "boxes":
                row["bbox"] = boxes[k]
                row.setdefault("area", boxes[k][2] * boxes[k][3])
            if areas is not None:
                row["area"] = float(areas[k])
            truth.append({"id": len(truth) + 1, **row})
        boxes = xywh(image["boxes_pred"]) if kind == "boxes" else None
        for k in range(m):
            guess = (
                {"bbox": boxes[k]} if kind == "boxes" else {"segmentation": encoded(image["masks_pred"][k])}
            )
            row = {"image_id": number, "category_id": int(image["classes_pred"][k])}
            detections.append({**row, "score": float(image["scores"][k]), **guess})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": k + 1, "height": SIDE, "width": SIDE} for k in range(len(images))],
            "categories": [{"id": k} for k in range(classes)],
            "annotations": truth,
        }
        coco.createIndex()
        if detections:
            results = coco.loadRes(detections)
        else:  # loadRes looks at the first detection
            results = COCO()
            results.dataset = {**coco.dataset, "annotations": []}
            results.createIndex()
        evaluation = COCOeval(coco, results, "bbox" if kind == "boxes" else "segm")
        evaluation.params.maxDets = [1, 10, max_detections]
        evaluation.evaluate()
        evaluation.accumulate()
        if max_detections == 100:  # else its summary looks for a 100 in vain
            evaluation.summarize()
    return evaluation


def check(ours, theirs):
    """Every number that pycocotools has; its -1 is our NaN."""
    for mine, other in (
        (ours.stats, theirs.stats),
        (ours.precision, theirs.eval["precision"]),
        (ours.recall, theirs.eval["recall"]),
    ):
        np.testing.assert_allclose(mine, np.where(other == -1, np.nan, other), rtol=0, atol=1e-6)
    per_class = theirs.eval["precision"][..., 0, 2].mean(axis=(0, 1))
    np.testing.assert_allclose(ours.per_class, np.where(per_class == -1, np.nan, per_class), atol=1e-6)


def evaluated(images, kind, **options):
    evaluator = COCOEvaluator(CLASSES, kind, **options)
    for image in images:
        evaluator.update(**image)
    return evaluator.result()


def corners(rng, count, whole):
    """Boxes inside of the picture; their sides are of all three size ranges equally often."""
    side = rng.uniform(*np.array([(1, 30), (34, 90), (115, 130)])[rng.integers(0, 3, count)].T)
    sides = np.minimum(side[:, None] * rng.uniform(0.9, 1.1, (count, 2)), SIDE)
    start = rng.uniform(0, SIDE - sides)
    boxes = np.concatenate([start, start + sides], axis=-1)
    if whole:
        boxes = np.floor(boxes)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    return boxes


def filled(boxes, holes):
    """Masks of boxes with every few pixels missing, so that a mask is not its box."""
    y, x = np.mgrid[:SIDE, :SIDE]
    masks = np.zeros((len(boxes), SIDE, SIDE), bool)
    for mask, (x1, y1, x2, y2), step in zip(masks, boxes, holes):
        mask[:] = (x >= x1) & (x < x2) & (y >= y1) & (y < y2) & ((x + 2 * y) % step != 0)
    return masks


def random_image(rng, kind, truths=8, detections=20, tied=False, whole=True, crowds=0.0, classes=CLASSES):
    """One picture; most detections are a true object a little moved, the others lie anywhere."""
    n, m = rng.integers(0, truths + 1), rng.integers(0, detections + 1)
    boxes_true = corners(rng, n, whole)
    classes_true = rng.integers(0, classes, n)
    boxes_pred, classes_pred = corners(rng, m, whole), rng.integers(0, classes, m)
    if n:
        source = rng.integers(0, n, m)
        near = rng.random(m) < 0.8
        extent = (boxes_true[:, 2:] - boxes_true[:, :2]).max(axis=1)[source, None]
        moved = boxes_true[source] + rng.normal(0, 0.08, (m, 4)) * extent
        moved = np.round(moved) if whole else moved
        moved = np.clip(moved, 0, SIDE)
        near &= (moved[:, 2:] > moved[:, :2]).all(axis=1)
        boxes_pred[near] = moved[near]
        classes_pred = np.where(near & (rng.random(m) < 0.9), classes_true[source], classes_pred)
    image = {
        "classes_true": classes_true,
        "classes_pred": classes_pred,
        "scores": rng.integers(0, 4, m) / 4 if tied else rng.random(m),
        "crowd": rng.random(n) < crowds,
    }
    if kind == "masks":
        masks_true = filled(boxes_true, rng.integers(7, 12, n))
        return {**image, "masks_true": masks_true, "masks_pred": filled(boxes_pred, rng.integers(7, 12, m))}
    return {**image, "boxes_true": boxes_true, "boxes_pred": boxes_pred}


KINDS = pytest.mark.parametrize("kind", ["boxes", "masks"])


@KINDS
@pytest.mark.parametrize("crowds", [0.0, 0.4])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_random_images(kind, crowds, tied, seed):
    rng = np.random.default_rng(seed)
    images = [random_image(rng, kind, tied=tied, crowds=crowds) for _ in range(12)]
    ours = evaluated(images, kind)
    check(ours, their_evaluation(images, kind))
    assert np.all((ours.stats > 0) & (ours.stats < 1))


@pytest.mark.parametrize("seed", range(3))
def test_boxes_that_are_not_whole_numbers(seed):
    rng = np.random.default_rng(seed)
    images = [random_image(rng, "boxes", whole=False, crowds=0.2) for _ in range(30)]
    check(evaluated(images, "boxes"), their_evaluation(images, "boxes"))


@pytest.mark.parametrize("seed", range(6))
def test_ties_of_scores_and_ious_and_ious_on_a_threshold(seed):
    # On a grid this small nearly every IoU occurs twice, and 1/2, 3/5, 3/4 and 4/5 are common.
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(25):
        n, m = rng.integers(0, 7), rng.integers(0, 30)
        low = rng.integers(0, 3, (n + m, 2))
        boxes = np.concatenate([low, low + rng.integers(1, 6, (n + m, 2))], axis=-1)
        images.append(
            {
                "boxes_true": boxes[:n],
                "classes_true": rng.integers(0, CLASSES, n),
                "crowd": rng.random(n) < 0.2,
                "areas": rng.choice(
                    [1.0, 1024.0, 1025.0, 9216.0, 9217.0], n
                ),  # on the limits and beside them
                "boxes_pred": boxes[n:],
                "classes_pred": rng.integers(0, CLASSES, m),
                "scores": rng.integers(0, 3, m) / 2,
            }
        )
    ours, theirs = evaluated(images, "boxes"), their_evaluation(images, "boxes")
    check(ours, theirs)
    assert 0 < ours.ap < 1


@KINDS
def test_more_than_100_detections(kind):
    rng = np.random.default_rng(5)
    images = []
    for _ in range(2):
        image = random_image(rng, kind, truths=12, detections=5, classes=2)
        boxes = corners(rng, 300, True)
        more = {
            "classes_pred": rng.integers(0, 2, 300),
            "scores": rng.integers(0, 200, 300) / 200,
            "boxes_pred": boxes,
            "masks_pred": filled(boxes, [9] * 300),
        }
        image["scores"] = image["scores"] / 2
        for name in more.keys() & image.keys():
            image[name] = np.concatenate([image[name], more[name]])
        images.append(image)
    assert all(np.bincount(image["classes_pred"]).min() > 120 for image in images)
    ours = evaluated(images, kind)
    check(ours, their_evaluation(images, kind))
    theirs = their_evaluation(images, kind, max_detections=120)
    of_120 = evaluated(images, kind, max_detections=120)
    for mine, other in ((of_120.precision, "precision"), (of_120.recall, "recall")):
        other = theirs.eval[other]
        np.testing.assert_allclose(mine, np.where(other == -1, np.nan, other), rtol=0, atol=1e-6)
    assert of_120.ar_100 > ours.ar_100


def nothing(kind):
    empty = {"classes_true": [], "classes_pred": [], "scores": []}
    if kind == "boxes":
        return {**empty, "boxes_true": [], "boxes_pred": []}
    return {**empty, "masks_true": np.zeros((0, 9, 9), bool), "masks_pred": np.zeros((0, 9, 9), bool)}


def without(image, side):
    """The image without its truth ("true") or its detections ("pred")."""
    kept = {name: values for name, values in image.items() if not name.endswith(side)}
    kept.pop("crowd" if side == "true" else "scores")
    return {**{name: values[:0] for name, values in image.items()}, **kept}


def nasty(kind):
    rng = np.random.default_rng(7)
    plain = [random_image(rng, kind, crowds=0.1) for _ in range(4)]
    first_class = [random_image(rng, kind, classes=1) for _ in range(4)]
    yield "no image has anything", [nothing(kind)] * 2
    yield "no detections", [without(image, "pred") for image in plain]
    yield "no ground truth", [without(image, "true") for image in plain]
    yield "an empty image", [*plain, nothing(kind), *plain]
    yield "an image without truth", [*plain, without(plain[0], "true")]
    yield "an image without detections", [without(plain[0], "pred"), *plain]
    yield "absent classes", first_class
    only_detected = [{**i, "classes_pred": rng.integers(0, 3, len(i["classes_pred"]))} for i in first_class]
    yield "classes that are detected only", only_detected
    yield "crowds alone", [{**image, "crowd": np.ones(len(image["classes_true"]), bool)} for image in plain]

    twice = [
        {
            name: np.concatenate([values, values]) if name.endswith("pred") or name == "scores" else values
            for name, values in image.items()
        }
        for image in plain
    ]
    yield "each detection twice", twice
    truth_twice = [
        {
            name: np.concatenate([values, values]) if name.endswith("true") or name == "crowd" else values
            for name, values in image.items()
        }
        for image in plain
    ]
    yield "each object twice", truth_twice

    pixels = np.array([[3, 4, 4, 5], [3, 5, 4, 6], [7, 7, 8, 8], [8, 7, 9, 8]])
    classes, scores = np.array([0, 0, 1, 2]), np.array([0.5, 0.5, 0.1, 0.9])
    found = np.array([0, 2, 3, 3])
    degenerate = np.array([[3, 4, 3, 9], [5, 5, 5, 5], [2, 7, 8, 7], [0, 0, 2, 2]])
    for name, boxes in (("one pixel", pixels), ("no extent", degenerate)):
        image = {"classes_true": classes, "classes_pred": classes[found], "scores": scores}
        if kind == "boxes":
            yield name, [{**image, "boxes_true": boxes, "boxes_pred": boxes[found]}] * 2
        else:
            masks = filled(boxes, [99] * 4)
            yield name, [{**image, "masks_true": masks, "masks_pred": masks[found]}] * 2

    # The first detection lies evenly between two objects; which one it takes, the second one tells.
    between = np.array([[1, 1, 11, 11], [5, 1, 15, 11]])
    for name, other in (("left", 0), ("right", 1)):
        guesses = np.array([[3, 1, 13, 11], between[other]])
        image = {"classes_true": [0, 0], "classes_pred": [0, 0], "scores": [0.9, 0.8]}
        if kind == "boxes":
            yield f"between two, then {name}", [{**image, "boxes_true": between, "boxes_pred": guesses}]
        else:
            masks = {"masks_true": filled(between, [99] * 2), "masks_pred": filled(guesses, [99] * 2)}
            yield f"between two, then {name}", [{**image, **masks}]

    # Of ten objects k are found, then comes a false alarm, then one more: precision falls right after a recall
    # of k / 10, some of which aren't quite the number in COCO's grid.
    row = np.array([[14 * k, 5, 14 * k + 9, 9] for k in range(10)])
    images = []
    for class_id, k in enumerate((3, 6, 7)):
        guesses = np.concatenate([row[:k], row[:1] + [0, 50, 0, 50], row[k : k + 1]])
        image = {
            "classes_true": [class_id] * 10,
            "classes_pred": [class_id] * (k + 2),
            "scores": np.linspace(1, 0.5, k + 2),
        }
        if kind == "boxes":
            images.append({**image, "boxes_true": row, "boxes_pred": guesses})
        else:
            masks = {"masks_true": filled(row, [99] * 10), "masks_pred": filled(guesses, [99] * (k + 2))}
            images.append({**image, **masks})
    yield "recalls on the grid", images

    # A crowd over the left half, with a common object in it: detections inside, across its border, outside.
    boxes = np.array([[0, 0, 70, 140], [10, 10, 50, 50], [100, 10, 130, 40]])
    guesses = [[9, 9, 50, 51], [12, 10, 52, 50], [10, 80, 40, 120], [50, 80, 90, 120], [62, 90, 80, 99]]
    guesses = np.array([*guesses, [101, 10, 130, 40], [100, 12, 130, 40], [100, 80, 120, 99]])
    image = {
        "classes_true": [1, 1, 1],
        "crowd": [True, False, False],
        "classes_pred": [1] * 8,
        "scores": np.array([6, 7, 8, 5, 5, 4, 9, 8]) / 10,
    }
    if kind == "boxes":
        yield "a crowd", [{**image, "boxes_true": boxes, "boxes_pred": guesses}]
    else:
        yield (
            "a crowd",
            [{**image, "masks_true": filled(boxes, [9] * 3), "masks_pred": filled(guesses, [9] * 8)}],
        )


NASTY = [
    pytest.param(kind, images, id=f"{kind}: {name}")
    for kind in ("boxes", "masks")
    for name, images in nasty(kind)
]


@pytest.mark.parametrize(("kind", "images"), NASTY)
def test_nasty_images(kind, images):
    check(evaluated(images, kind), their_evaluation(images, kind))


def test_areas_of_masks_decide_on_the_size_of_boxes():
    rng = np.random.default_rng(11)
    images = [random_image(rng, "boxes", truths=10) for _ in range(8)]
    for image in images:
        image["masks_true"] = filled(image["boxes_true"], rng.integers(2, 4, len(image["boxes_true"])))
    ours = evaluated(images, "boxes")
    check(ours, their_evaluation(images, "boxes"))
    for image in images:
        del image["masks_true"]
    assert np.any(evaluated(images, "boxes").truths != ours.truths)


@KINDS
def test_instance_maps(kind):
    rng = np.random.default_rng(2)
    maps, images = [], []
    for _ in range(6):
        n, m = 5, 9
        instances_true, instances_pred = np.zeros((2, SIDE, SIDE), np.int32)
        boxes = corners(rng, n, True).astype(int)
        guesses = np.concatenate(
            [boxes + rng.integers(-1, 3, boxes.shape), corners(rng, m - n, True).astype(int)]
        )
        for instances, rectangles in ((instances_true, boxes), (instances_pred, guesses.clip(0, SIDE))):
            for k, (x1, y1, x2, y2) in enumerate(rectangles):
                instances[y1:y2, x1:x2] = k + 1  # may hide others, wholly, too
        seen = {
            "classes_true": rng.integers(0, CLASSES, n),
            "classes_pred": np.concatenate([[0] * (m - n), rng.integers(0, CLASSES, n)]),
            "scores": rng.random(m),
            "crowd": rng.random(n) < 0.2,
        }
        seen["classes_pred"][:n] = seen["classes_true"]
        maps.append({"instances_true": instances_true, "instances_pred": instances_pred, **seen})
        image = {}
        for side, count, instances in (("true", n, instances_true), ("pred", m, instances_pred)):
            masks = instances == np.arange(1, count + 1)[:, None, None]
            there = masks.any(axis=(1, 2))
            image[f"masks_{side}"] = masks[there]
            image[f"classes_{side}"] = seen[f"classes_{side}"][there]
            image[f"boxes_{side}"] = np.array(
                [(x.min(), y.min(), x.max() + 1, y.max() + 1) for y, x in map(np.nonzero, masks[there])]
            )
            for name in ("crowd",) if side == "true" else ("scores",):
                image[name] = seen[name][there]
        images.append(image)
    lists = {name: [image[name] for image in maps] for name in maps[0]}
    ours = COCOEvaluator.from_instances(CLASSES, **lists, kind=kind).result()
    check(ours, their_evaluation(images, kind))
    assert 0 < ours.ap < 1
    lists = {name: [image[name] for image in images] for name in images[0]}
    check(coco_average_precision(CLASSES, **lists, kind=kind), their_evaluation(images, kind))
