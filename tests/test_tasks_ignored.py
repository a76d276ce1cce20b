"""Ignored regions in the scores of the tasks that tell objects apart."""

import numpy as np
import pytest

from course_lib import tasks
from course_lib.datasets import cells
from course_lib.datasets.sample import IGNORE, Sample, boxes_from_instances
from course_lib.tasks import instance_scores


def test_what_is_ignored_counts_neither_as_object_nor_as_false_alarm():
    true = np.zeros((4, 12), int)
    true[:2, :3], true[:2, 9:] = 1, 2
    pred = np.where(true == 1, 1, 0)
    pred[2:, 5:9] = 2  # a false alarm
    nothing = np.zeros(true.shape, bool)
    scores = instance_scores([(true, pred, nothing)])
    assert (scores["ap_50"], scores["count_error"]) == pytest.approx((1 / 3, 0), abs=1e-5)
    assert scores["iou_foreground"] == pytest.approx(6 / 20, abs=1e-5)
    void = np.zeros(true.shape, bool)
    void[:, 5:] = True  # the missed object, too
    assert set(instance_scores([(true, pred, void)]).values()) == {1.0, 0.0}
    assert instance_scores([(true, pred, void)])["count_error"] == 0


def void_on_the_right(sample):
    """The sample with its right third void, and what is void."""
    void = np.zeros(sample.semantic.shape, bool)
    void[:, 2 * void.shape[1] // 3 :] = True
    ids, instances = np.unique(np.where(void, 0, sample.instances), return_inverse=True)
    instances = instances.reshape(void.shape).astype(np.int32)
    semantic = np.where(void, IGNORE, sample.semantic).astype(np.int32)
    boxes = boxes_from_instances(instances)
    return Sample(sample.image, semantic, instances, boxes, sample.classes[ids[1:] - 1], sample.name), void


@pytest.mark.parametrize(
    "task", [tasks.Semantic(), tasks.Semantic(border_weight=5.0), tasks.Borders(), tasks.Membranes()]
)
def test_no_score_depends_on_what_is_predicted_in_the_void(task):
    rng = np.random.default_rng(0)
    data = cells("val", length=3, size=48, seed=1)
    pairs = [void_on_the_right(sample) for sample in data]
    samples, voids = zip(*pairs, strict=True)
    classes = len(task.class_names(data.class_names))

    def noise(void):
        return rng.dirichlet(np.ones(classes), void.shape)

    clear = [np.eye(classes)[np.maximum(task.encode(sample)[0], 0)] for sample in samples]
    outputs = [0.6 * one + 0.4 * noise(void) for one, void in zip(clear, voids, strict=True)]
    # Next to the void an object may reach into it, so that its seed changes: only deep inside it is anything predicted.
    deep = [void & np.roll(void, 6, 1) for void in voids]
    others = [np.where(void[..., None], noise(void), one) for one, void in zip(outputs, deep, strict=True)]
    before, after = (task.score(samples, found, data.class_names) for found in (outputs, others))
    assert before == pytest.approx(after, abs=0.02) and 0 < before[task.metrics[0]] <= 1
    whole = task.score(list(data), others, data.class_names)
    assert whole[task.metrics[0]] < before[task.metrics[0]] - 0.02, (
        "else nothing that counts was predicted there"
    )
