"""The operations of a detector beside other software, each against its size: NMS, RoI Align, IoU, matching, pasting.

    python benchmarks/operations.py [--rounds 7]

On TensorFlow, whose own operations stand beside ours: `tf.image.non_max_suppression` for NMS, `tf.image.crop_and_resize`
and a mean for RoI Align (with one sample a bin edge they compute the same). Box IoU beside pycocotools, matching beside
SciPy's assignment on the same IoUs, mask pasting beside one `skimage.transform.resize` a mask. Each pair's answers are
compared first: where they differ, the times mean nothing and the run stops. Both sides run compiled (`tf.function`) where
they are TensorFlow's, as they would within a network. Where torchvision's operations load, theirs are timed as well.
"""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from _shared import finish, in_turns, parser, row  # noqa: I001

import numpy as np
import tensorflow as tf
from pycocotools import mask as rle
from scipy.optimize import linear_sum_assignment
from skimage.transform import resize

from course_lib.metrics import matching_scores
from course_lib.ops.boxes import box_iou
from course_lib.ops.masks import paste_masks
from course_lib.ops.nms import nms
from course_lib.ops.roi import roi_align


def boxes_of(rng: np.random.Generator, count: int, side: float = 512.0) -> np.ndarray:
    corner = rng.uniform(0, side * 0.8, (count, 2))
    return np.hstack([corner, corner + rng.uniform(8, side * 0.2, (count, 2))]).astype(np.float32)


def agree(name: str, ours, theirs, tolerance: float) -> None:
    difference = np.abs(np.asarray(ours, float) - np.asarray(theirs, float)).max()
    if not difference <= tolerance:
        raise SystemExit(f"{name}: the answers differ by {difference:.3g}, so the times mean nothing.")


def nms_rows(rng, rounds):
    for count in (100, 1000, 4000):
        boxes, scores = boxes_of(rng, count), rng.permutation(count).astype(np.float32)
        inputs, keep = (tf.constant(boxes), tf.constant(scores)), min(count, 200)
        ours = tf.function(lambda b, s, keep=keep: nms(b[None], s[None], 0.5, keep))
        theirs = tf.function(lambda b, s, keep=keep: tf.image.non_max_suppression(b, s, keep, 0.5))
        indices, valid = ours(*inputs)
        agree("NMS", indices[0][valid[0]], theirs(*inputs), 0)
        mine, other = in_turns(rounds, lambda: ours(*inputs)[0].numpy(), lambda: theirs(*inputs).numpy())
        yield row(f"NMS, {count} boxes, at most {keep} kept", mine, other, "TensorFlow", boxes=count)


def roi_rows(rng, rounds):
    size, samples = 7, 2
    for count, channels in ((50, 64), (200, 64), (1000, 64), (200, 256)):
        features = tf.constant(rng.standard_normal((1, 64, 64, channels)), tf.float32)
        boxes = tf.constant(boxes_of(rng, count, 500.0))

        @tf.function
        def ours(features, boxes):
            return roi_align(features, boxes[None], size, 1 / 8, samples)

        @tf.function
        def theirs(features, boxes):
            # Sample points lie in the middles of `size * samples` steps; crop_and_resize wants the first and the last.
            x1, y1, x2, y2 = tf.unstack(boxes / 8, axis=1)
            step_x, step_y = (x2 - x1) / (size * samples), (y2 - y1) / (size * samples)
            first = tf.stack([y1 + step_y / 2, x1 + step_x / 2, y2 - step_y / 2, x2 - step_x / 2], 1) / 63.0
            crops = tf.image.crop_and_resize(
                features, first, tf.zeros(len(boxes), tf.int32), [size * samples] * 2
            )
            return tf.nn.avg_pool2d(crops, samples, samples, "VALID")

        agree("RoI Align", ours(features, boxes)[0], theirs(features, boxes), 1e-3)
        mine, other = in_turns(
            rounds, lambda: ours(features, boxes).numpy(), lambda: theirs(features, boxes).numpy()
        )
        yield row(
            f"RoI Align, {count} boxes, {channels} channels",
            mine,
            other,
            "TensorFlow",
            boxes=count,
            channels=channels,
        )


def iou_rows(rng, rounds):
    for count in (100, 1000, 3000):
        a, b = boxes_of(rng, count), boxes_of(rng, count)
        sides = [np.hstack([x[:, :2], x[:, 2:] - x[:, :2]]).astype(float) for x in (a, b)]
        crowd = np.zeros(count, np.uint8)
        ours = tf.function(box_iou)
        inputs = tf.constant(a), tf.constant(b)
        agree("IoU", ours(*inputs), rle.iou(*sides, crowd), 1e-4)
        mine, other = in_turns(rounds, lambda: ours(*inputs).numpy(), lambda: rle.iou(*sides, crowd))
        yield row(f"IoU of {count} x {count} boxes", mine, other, "pycocotools", boxes=count)


def matching_rows(rng, rounds):
    for objects in (16, 64, 196):
        side = int(objects**0.5)
        cells = np.kron(np.arange(1, objects + 1).reshape(side, side), np.ones((16, 16), int)).astype(
            np.int32
        )
        yy, xx = np.mgrid[: 16 * side, : 16 * side] % 16
        true = np.where((yy - 8) ** 2 + (xx - 8) ** 2 < 36, cells, 0)
        pred = np.roll(true, (1, 2), (0, 1))
        thresholds = np.arange(10, 20) / 20

        def scipy_way(true=true, pred=pred, objects=objects):
            pairs = np.bincount(true.ravel() * (objects + 1) + pred.ravel(), minlength=(objects + 1) ** 2)
            pairs = pairs.reshape(objects + 1, objects + 1)
            union = pairs.sum(1)[1:, None] + pairs.sum(0)[None, 1:] - pairs[1:, 1:]
            iou = pairs[1:, 1:] / np.maximum(union, 1)
            found = []
            for threshold in thresholds:
                rows, columns = linear_sum_assignment(-(iou > threshold).astype(float))
                found.append((iou[rows, columns] > threshold).sum())
            return np.array(found)

        ours = matching_scores([true], [pred], thresholds)
        agree(
            "matching",
            ours.true_positives[:, 0] if ours.true_positives.ndim > 1 else ours.true_positives,
            scipy_way(),
            0,
        )
        mine, other = in_turns(rounds, lambda: matching_scores([true], [pred], thresholds), scipy_way)
        yield row(
            f"matching, {objects} objects, 10 thresholds", mine, other, "NumPy and SciPy", objects=objects
        )


def pasting_rows(rng, rounds):
    for count, side in ((10, 256), (100, 256), (100, 512)):
        masks = rng.random((count, 28, 28)).astype(np.float32)
        corner = rng.integers(0, side // 2, (count, 2))
        boxes = np.hstack([corner, corner + rng.integers(8, side // 2, (count, 2))]).astype(np.float32)

        def skimage_way():
            out = np.zeros((count, side, side), np.float32)
            for mask, (x1, y1, x2, y2), canvas in zip(masks, boxes.astype(int), out, strict=True):
                canvas[y1:y2, x1:x2] = resize(
                    mask, (y2 - y1, x2 - x1), order=1, mode="edge", anti_aliasing=False
                )
            return out

        ours = tf.function(lambda m, b: paste_masks(m[None], b[None], (side, side)))
        inputs = tf.constant(masks), tf.constant(boxes)
        mine_now, theirs_now = ours(*inputs).numpy()[0], skimage_way()
        if (
            np.mean(np.abs(mine_now - theirs_now)) > 0.02
        ):  # they differ at the rim of a box, where ours fades out
            raise SystemExit("pasting: the answers differ, so the times mean nothing.")
        mine, other = in_turns(rounds, lambda: ours(*inputs).numpy(), skimage_way)
        yield row(
            f"pasting {count} masks into {side} x {side}",
            mine,
            other,
            "scikit-image",
            objects=count,
            side=side,
        )


def main() -> None:
    options = parser(__doc__, rounds=7).parse_args()
    rng = np.random.default_rng(0)
    rows = []
    for make in (nms_rows, roi_rows, iou_rows, matching_rows, pasting_rows):
        rows += make(rng, options.rounds)
    finish("operations", rows)


if __name__ == "__main__":
    main()
