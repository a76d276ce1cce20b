"""Ignored regions in the scores of the tasks that tell objects apart."""

import numpy as np
import pytest

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
