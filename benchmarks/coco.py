"""COCO's average precision beside pycocotools: 1,000 images, 10 objects and 20 detections each, one core.

    python benchmarks/coco.py [--images 1000] [--objects 10] [--detections 20] [--classes 5] [--size 256] [--rounds 3]

The two take turns within each round, on the same objects, and their twelve numbers are compared. Of both only
the scoring is timed. For pycocotools that is `evaluate` and `accumulate` (its IoUs, in C, included), on masks
that were run-length encoded and indexed beforehand; for the course's evaluator it is `update` of each image
and `result`, from boxes and from boolean masks. So the run-length encoding, which a user of pycocotools has
to wait for as well, is printed beside the ratio and isn't part of it.

The masks of 1,000 images would fill gigabytes, so they are drawn anew for each image, outside of the clock.
The ratio is the course's seconds over pycocotools' seconds, median over the rounds: below 1 is quicker.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import sys
import time
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
from _shared import row, save  # noqa: E402
from pycocotools import mask as rle  # noqa: E402
from pycocotools.coco import COCO  # noqa: E402
from pycocotools.cocoeval import COCOeval  # noqa: E402

from course_lib.metrics import COCOEvaluator, CocoScores  # noqa: E402


class Stopwatch:
    """Adds up the seconds of its `with` blocks, by the clock and by the core."""

    def __init__(self):
        self.wall = self.core = 0.0

    def __enter__(self):
        self._start = time.perf_counter(), time.process_time()

    def __exit__(self, *error):
        self.wall += time.perf_counter() - self._start[0]
        self.core += time.process_time() - self._start[1]


def picture(rng: np.random.Generator, options: argparse.Namespace) -> dict:
    """Ellipses as boxes with classes; three of four detections are a true object a little off."""
    n, m, size = options.objects, options.detections, options.size
    radii = np.exp(rng.uniform(np.log(5), np.log(size / 4), (n, 1))) * rng.uniform(0.8, 1.2, (n, 2))
    centres = rng.uniform(radii, size - radii)
    source = rng.integers(0, n, m)
    found = (rng.random(m) < 0.75)[:, None]
    their_radii = radii[source] * rng.uniform(0.85, 1.15, (m, 2))
    their_centres = np.where(
        found, centres[source] + rng.normal(0, 0.1, (m, 2)) * radii[source], rng.uniform(0, size, (m, 2))
    )
    classes = rng.integers(0, options.classes, n)
    wrong_class = rng.random(m) < 0.1
    return {
        "boxes_true": np.hstack([centres - radii, centres + radii]).round().clip(0, size),
        "classes_true": classes,
        "boxes_pred": np.hstack([their_centres - their_radii, their_centres + their_radii])
        .round()
        .clip(0, size),
        "classes_pred": np.where(wrong_class, rng.integers(0, options.classes, m), classes[source]),
        "scores": rng.random(m),
        "crowd": rng.random(n) < 0.02,
    }


def ellipses(boxes: np.ndarray, size: int) -> np.ndarray:
    """bool `(n, size, size)`: the ellipse in each box."""
    x1, y1, x2, y2 = boxes.T[..., None, None]
    across = np.arange(size) + 0.5
    x = (2 * across - x1 - x2) / np.maximum(x2 - x1, 1)
    y = (2 * across[:, None] - y1 - y2) / np.maximum(y2 - y1, 1)
    return x**2 + y**2 < 1


def with_masks(image: dict, size: int) -> dict:
    masks = {f"masks_{side}": ellipses(image[f"boxes_{side}"], size) for side in ("true", "pred")}
    return {**image, **masks}


def as_coco(images: list[dict], kind: str, options: argparse.Namespace) -> tuple[COCO, COCO, float]:
    """The images as pycocotools wants them, and the seconds that run-length encoding took."""
    truth, detections, encoding = [], [], Stopwatch()
    for number, image in enumerate(images, start=1):
        for side, rows in (("true", truth), ("pred", detections)):
            boxes = image[f"boxes_{side}"]
            masks = ellipses(boxes, options.size) if kind == "masks" else [None] * len(boxes)
            for k, (box, mask) in enumerate(zip(boxes, masks, strict=True)):
                row = {"image_id": number, "category_id": int(image[f"classes_{side}"][k])}
                if kind == "masks":
                    with encoding:
                        row["segmentation"] = rle.encode(np.asfortranarray(mask, np.uint8))
                else:
                    row["bbox"] = [*box[:2], *(box[2:] - box[:2])]
                if side == "true":
                    area = (
                        row["bbox"][2] * row["bbox"][3] if kind == "boxes" else rle.area(row["segmentation"])
                    )
                    row.update(id=len(truth) + 1, iscrowd=int(image["crowd"][k]), area=float(area))
                else:
                    row["score"] = float(image["scores"][k])
                rows.append(row)
    coco = COCO()
    coco.dataset = {
        "images": [{"id": k + 1, "height": options.size, "width": options.size} for k in range(len(images))],
        "categories": [{"id": k} for k in range(options.classes)],
        "annotations": truth,
    }
    coco.createIndex()
    return coco, coco.loadRes(detections), encoding.core


def theirs(truth: COCO, detections: COCO, kind: str) -> tuple[np.ndarray, Stopwatch]:
    watch = Stopwatch()
    evaluation = COCOeval(truth, detections, "bbox" if kind == "boxes" else "segm")
    with watch:
        evaluation.evaluate()
        evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats, watch


def ours(images: list[dict], kind: str, options: argparse.Namespace) -> tuple[CocoScores, Stopwatch]:
    watch = Stopwatch()
    evaluator = COCOEvaluator(options.classes, kind)
    for image in images:
        drawn = with_masks(image, options.size) if kind == "masks" else image
        with watch:
            evaluator.update(**drawn)
    with watch:
        scores = evaluator.result()
    return scores, watch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--objects", type=int, default=10)
    parser.add_argument("--detections", type=int, default=20)
    parser.add_argument("--classes", type=int, default=5)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    rows = []
    rng = np.random.default_rng(0)
    images = [picture(rng, options) for _ in range(options.images)]
    print(
        f"{options.images} images of {options.size} x {options.size}, {options.objects} objects and "
        f"{options.detections} detections each, {options.classes} classes, {options.rounds} rounds"
    )
    for kind in ("boxes", "masks"):
        with contextlib.redirect_stdout(io.StringIO()):
            truth, detections, encoding = as_coco(images, kind, options)
        rounds = []
        for _ in range(options.rounds):
            with contextlib.redirect_stdout(io.StringIO()):
                expected, their_watch = theirs(truth, detections, kind)
            scores, our_watch = ours(images, kind, options)
            rounds.append((our_watch, their_watch))
        difference = np.nanmax(np.abs(np.where(expected == -1, np.nan, expected) - scores.stats))
        if not difference <= 1e-6 or np.any((expected == -1) != np.isnan(scores.stats)):
            raise SystemExit(f"{kind}: the results differ by {difference:.2g}, so the times mean nothing.")
        for clock in ("core", "wall"):
            pairs = [(getattr(our, clock), getattr(their, clock)) for our, their in rounds]
            ratio = statistics.median(our / their for our, their in pairs)
            mine, other = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
            print(
                f"{kind}, seconds of {clock}: ratio {ratio:.2f} "
                f"(course {mine:.2f}, pycocotools {other:.2f}"
                + (f", its encoding {encoding:.2f} on top)" if kind == "masks" and clock == "core" else ")")
            )
        print(
            f"{kind}: AP {scores.ap:.4f}, the twelve numbers differ by {difference:.1g} at most", flush=True
        )
        seconds = [[watch.wall for watch in pair] for pair in rounds]
        what = f"COCO AP of {options.images} images, {kind}"
        rows.append(
            row(what, *map(list, zip(*seconds, strict=True)), "pycocotools", encoding=round(encoding, 3))
        )
    save("coco", rows, **{k: v for k, v in vars(options).items()})


if __name__ == "__main__":
    main()
