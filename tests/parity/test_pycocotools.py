"""The evaluator against pycocotools as its own documentation has it used: the conversions, options and means are ours."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from course_lib.metrics import COCOEvaluator

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


def random_image(rng, kind, objects=8, detections=20, tied=False, whole=True, crowds=0.0, classes=CLASSES):
    """One picture; most detections are a true object a little moved, the others lie anywhere."""
    n, m = rng.integers(0, objects + 1), rng.integers(0, detections + 1)
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


@KINDS
def test_more_than_100_detections(kind):
    rng = np.random.default_rng(5)
    images = []
    for _ in range(2):
        image = random_image(rng, kind, objects=12, detections=5, classes=2)
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


def test_areas_of_masks_decide_on_the_size_of_boxes():
    rng = np.random.default_rng(11)
    images = [random_image(rng, "boxes", objects=10) for _ in range(8)]
    for image in images:
        image["masks_true"] = filled(image["boxes_true"], rng.integers(2, 4, len(image["boxes_true"])))
    ours = evaluated(images, "boxes")
    check(ours, their_evaluation(images, "boxes"))
    for image in images:
        del image["masks_true"]
    assert np.any(evaluated(images, "boxes").num_objects != ours.num_objects)
