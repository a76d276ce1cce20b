"""Scores of outlines on masks that can be counted by hand, and the Keras metrics that take arrays only."""

import keras
import numpy as np
import pytest

from course_lib import metrics
from course_lib.metrics.boundary import outline, rim

CLASSES = 3
EMPTY, FULL = np.zeros((10, 10), bool), np.ones((10, 10), bool)


def square(top=3, left=3, size=4):
    mask = EMPTY.copy()
    mask[top : top + size, left : left + size] = True
    return mask


# --- Plain functions ---


def test_the_outline_by_hand():
    assert outline(square()).sum() == 12  # a ring of 4 x 4 pixels without the 2 x 2 inside
    assert outline(FULL).sum() == 36  # the edge of the picture is outline too
    np.testing.assert_array_equal(outline(square(size=1)), square(size=1))
    cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)
    assert not outline(np.pad(cross, 1))[
        2, 2
    ]  # its four neighbours are in the mask; the diagonal ones don't count
    for mask in (square(), FULL, EMPTY, square(0, 0, 7)):
        np.testing.assert_array_equal(outline(mask), rim(mask, 1))


def test_a_shift_by_one_column_by_hand():
    # Of the true ring, the left column (4 pixels) and the inner 2 of the right one are 1 pixel from the other ring.
    there, back = metrics.surface_distances(square(), square(left=4))
    assert sorted(there) == sorted(back) == [0] * 6 + [1] * 6
    assert metrics.average_surface_distance(square(), square(left=4)) == pytest.approx(0.5)
    assert metrics.hausdorff(square(), square(left=4)) == 1
    assert metrics.hausdorff(square(), square(left=4), percentile=50) == 0.5
    assert metrics.boundary_f1(square(), square(left=4), tolerance=0) == pytest.approx(0.5)
    assert metrics.boundary_f1(square(), square(left=4), tolerance=0.99) == pytest.approx(0.5)
    assert metrics.boundary_f1(square(), square(left=4), tolerance=1) == 1


def test_spacing_by_hand():
    # Rows are 2 apart and columns 3: the inner 2 of the right column now have their nearest above or below.
    there, back = metrics.surface_distances(square(), square(left=4), spacing=(2, 3))
    assert sorted(there) == sorted(back) == [0] * 6 + [2] * 2 + [3] * 4
    assert metrics.average_surface_distance(square(), square(left=4), (2, 3)) == pytest.approx(16 / 12)
    assert metrics.hausdorff(square(), square(left=4), spacing=(2, 3)) == 3
    assert metrics.boundary_f1(square(), square(left=4), 2, (2, 3)) == pytest.approx(8 / 12)


def test_a_tolerance_is_reached_however_the_distance_was_computed():
    # Three pixels of 0.1 are 0.30000000000000004.
    a, b = square(size=1), square(left=6, size=1)
    assert metrics.boundary_f1(a, b, tolerance=0.3, spacing=0.1) == 1
    assert metrics.boundary_f1(a, b, tolerance=0.2999, spacing=0.1) == 0


def test_precision_and_recall_are_told_apart():
    # One stray pixel beside a right answer: of 13 predicted pixels 12 are near, of 12 true ones all.
    stray = square() | square(9, 9, 1)
    assert metrics.boundary_f1(square(), stray, 1) == pytest.approx(2 * 12 / 13 / (12 / 13 + 1))
    assert metrics.hausdorff(square(), stray) == pytest.approx(np.hypot(3, 3))
    assert metrics.hausdorff(square(), stray, 90) == 0
    assert metrics.average_surface_distance(square(), stray) == pytest.approx(np.hypot(3, 3) / 25)


def test_percentiles_are_of_each_direction():
    # 1 of the 2 true pixels is 4 away, the one predicted pixel is right: 95 % of each, then the larger.
    true, pred = np.array([[1, 0, 0, 0, 1]], bool), np.array([[1, 0, 0, 0, 0]], bool)
    assert metrics.hausdorff(true, pred, 95) == pytest.approx(0.95 * 4)
    assert metrics.hausdorff(pred, true, 95) == pytest.approx(0.95 * 4)


@pytest.mark.parametrize(
    ("score", "agree", "differ"),
    [
        (metrics.boundary_iou, 1, 0),
        (metrics.boundary_f1, 1, 0),
        (metrics.hausdorff, 0, np.inf),
        (lambda a, b: metrics.hausdorff(a, b, 95), 0, np.inf),
        (metrics.average_surface_distance, 0, np.inf),
    ],
    ids=["boundary_iou", "boundary_f1", "hausdorff", "hausdorff 95", "average_surface_distance"],
)
def test_empty_full_and_no_masks(score, agree, differ):
    assert score(EMPTY, EMPTY) == score(FULL, FULL) == score(square(size=1), square(size=1)) == agree
    for mask in (FULL, square(), square(0, 0, 1)):
        assert score(EMPTY, mask) == score(mask, EMPTY) == differ
    assert np.isnan(score(np.zeros((0, 4), bool), np.zeros((0, 4), bool)))


def test_distances_to_an_empty_mask():
    there, back = metrics.surface_distances(square(), EMPTY)
    assert np.isinf(there).all() and len(there) == 12 and len(back) == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics.boundary_f1(square(), square()[1:]), "mask_true has shape"),
        (lambda: metrics.hausdorff(square() * 1, square()), "mask_true is of int64.*labels == class_id"),
        (lambda: metrics.average_surface_distance(square(), square() * 0.5), "mask_pred is of float64"),
        (lambda: metrics.hausdorff(np.True_, np.True_), "mask_true is a single value"),
        (lambda: metrics.boundary_f1(square(), square(), -1), "tolerance is -1"),
        (lambda: metrics.boundary_f1(square(), square(), np.nan), "tolerance is nan"),
        (lambda: metrics.hausdorff(square(), square(), 0), "percentile is 0"),
        (lambda: metrics.hausdorff(square(), square(), 101), "percentile is 101"),
        (lambda: metrics.hausdorff(square(), square(), spacing=0), "spacing is 0"),
        (lambda: metrics.average_surface_distance(square(), square(), (1, 2, 3)), r"spacing is \(1, 2, 3\)"),
        (lambda: metrics.boundary_iou(square(), square(), 0.5), "distance is 0.5"),
    ],
)
def test_errors(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# --- Keras metrics ---


def logits_of(classes):
    return (np.eye(CLASSES, dtype="float32")[classes] * 5 - 2).astype("float32")


def outline_metrics(**options):
    return (
        metrics.BoundaryF1(CLASSES, tolerance=1, **options),
        metrics.BoundaryIoU(CLASSES, distance=1, **options),
        metrics.Hausdorff(CLASSES, percentile=95, missing=20.0, **options),
        metrics.AverageSurfaceDistance(CLASSES, missing=20.0, **options),
    )


OUTLINE_SCORES = (
    lambda a, b: metrics.boundary_f1(a, b, 1),
    lambda a, b: metrics.boundary_iou(a, b, 1),
    lambda a, b: min(metrics.hausdorff(a, b, 95), 20),
    lambda a, b: min(metrics.average_surface_distance(a, b), 20),
)


def class_means(score, y_true, y_pred):
    """The mean of each class over the images that show it, one mask at a time."""
    means = []
    for c in range(CLASSES):
        masks = [(t == c, (p == c) & (t != -1)) for t, p in zip(y_true, y_pred)]
        scores = [score(a, b) for a, b in masks if a.any() or b.any()]
        means.append(np.mean(scores) if scores else np.nan)
    return means


def class_maps(seed, images=3, shape=(6, 7)):
    """Maps in which some images lack a class, some pixels are to be ignored."""
    rng = np.random.default_rng(seed)
    y_true, y_pred = rng.integers(-1, CLASSES, (images, *shape)), rng.integers(0, CLASSES, (images, *shape))
    y_true[0][y_true[0] == 2] = 0
    y_pred[:2][y_pred[:2] == 2] = 1
    return y_true.astype("int32"), y_pred


@pytest.mark.parametrize("cuts", [[], [1], [2], [1, 2]])
def test_streamed_outlines_are_the_means_of_the_plain_functions(cuts):
    y_true, y_pred = class_maps(0)
    for metric, score in zip(outline_metrics(), OUTLINE_SCORES):
        for true, pred in zip(np.split(y_true, cuts), np.split(y_pred, cuts)):
            metric.update_state(true, logits_of(pred))
        expected = class_means(score, y_true, y_pred)
        np.testing.assert_allclose(keras.ops.convert_to_numpy(metric.per_class()), expected, rtol=1e-6)
        assert float(metric.result()) == pytest.approx(np.nanmean(expected), rel=1e-6)


def test_outlines_start_anew_after_reset_and_are_nan_before_any_image():
    y_true, y_pred = class_maps(1)
    for metric, score in zip(outline_metrics(classes=[1]), OUTLINE_SCORES):
        assert np.isnan(float(metric.result()))
        metric.update_state(y_true, logits_of(np.zeros_like(y_pred)))
        metric.reset_state()
        metric.update_state(y_true, logits_of(y_pred))
        assert float(metric.result()) == pytest.approx(class_means(score, y_true, y_pred)[1], rel=1e-6)


def test_images_without_a_class_are_left_out_and_missed_ones_are_not():
    y_true = np.stack([square(), EMPTY, square()]).astype("int32")
    y_pred = np.stack([square(), EMPTY, EMPTY]).astype(int)
    f1, distance = metrics.BoundaryF1(CLASSES), metrics.Hausdorff(CLASSES)
    for metric in (f1, distance):
        metric.update_state(y_true, logits_of(y_pred))
    per_class = keras.ops.convert_to_numpy(f1.per_class())
    assert per_class[1] == pytest.approx(0.5) and np.isnan(per_class[2])
    per_class = keras.ops.convert_to_numpy(distance.per_class())
    assert np.isinf(per_class[1]) and np.isinf(float(distance.result())) and per_class[0] < 10
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(distance.missed()), [0, 1, 0])
    distance.reset_state()
    distance.update_state(y_true[2:], logits_of(y_pred[2:]))  # the only image, and missed
    assert np.isinf(keras.ops.convert_to_numpy(distance.per_class())[1])
    priced = metrics.Hausdorff(CLASSES, missing=8, classes=[1])
    priced.update_state(y_true, logits_of(y_pred))
    assert float(priced.result()) == pytest.approx((0 + 8) / 2)


def test_images_of_different_sizes_and_weights_of_images():
    maps = [class_maps(seed, 1, shape) for seed, shape in enumerate([(5, 6), (8, 3), (4, 4)])]
    y_true, y_pred = [true[0] for true, _ in maps], [pred[0] for _, pred in maps]
    for metric, score in zip(outline_metrics(), OUTLINE_SCORES):
        metric.update_state(y_true, [logits_of(pred) for pred in y_pred], sample_weight=[2, 0, 1])
        expected = np.nanmean(class_means(score, [*y_true[:1] * 2, y_true[2]], [*y_pred[:1] * 2, y_pred[2]]))
        assert float(metric.result()) == pytest.approx(expected, rel=1e-6)


def test_labels_may_have_a_channel_axis():
    y_true, y_pred = class_maps(2)
    for metric, score in zip(outline_metrics(), OUTLINE_SCORES):
        metric.update_state(y_true[..., None], logits_of(y_pred))
        assert float(metric.result()) == pytest.approx(
            np.nanmean(class_means(score, y_true, y_pred)), rel=1e-6
        )


def instance_maps(seed, images=4):
    """Blocks, and a prediction of them with noise; the last image has no object on either side."""
    rng = np.random.default_rng(seed)
    true = np.kron(rng.integers(0, 6, (images, 4, 4)), np.ones((1, 3, 3), int)).astype("int32")
    pred = np.where(rng.random(true.shape) < 0.15, rng.integers(0, 6, true.shape), true).astype("int32")
    true[-1] = pred[-1] = 0
    return true, pred


@pytest.mark.parametrize("cuts", [[], [1], [1, 3], [1, 2, 3]])
def test_streamed_objects_are_the_plain_functions(cuts):
    true, pred = instance_maps(0)
    kinds = true % CLASSES
    panoptic_true, panoptic_pred = np.stack([kinds, true], -1), np.stack([np.roll(kinds, 1, 1), pred], -1)
    ap, pq, aji = metrics.AveragePrecision(), metrics.PanopticQuality(), metrics.AggregatedJaccard()
    per_class = metrics.PanopticQuality(CLASSES, stuff=(0,))
    parts = [np.split(array, cuts) for array in (true, pred, panoptic_true, panoptic_pred)]
    for some_true, some_pred, some_panoptic_true, some_panoptic_pred in zip(*parts):
        for metric in (ap, pq, aji):
            metric.update_state(some_true, some_pred)
        per_class.update_state(some_panoptic_true, some_panoptic_pred)
    expected = metrics.average_precision(true, pred)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(ap.per_threshold()), expected, rtol=1e-6)
    assert float(ap.result()) == pytest.approx(expected.mean(), rel=1e-6)
    expected = metrics.panoptic_quality(true, pred)
    assert float(pq.result()) == pytest.approx(expected.pq, rel=1e-6)
    assert (pq.scores().sq, pq.scores().rq) == pytest.approx((expected.sq, expected.rq), rel=1e-6)
    expected = metrics.panoptic_quality_per_class(panoptic_true, panoptic_pred, CLASSES)
    assert 0 < expected.mean()[0] < 1
    assert float(per_class.result()) == pytest.approx(expected.mean()[0], rel=1e-6)
    np.testing.assert_allclose(per_class.scores().pq, expected.pq, rtol=1e-6)
    np.testing.assert_array_equal(per_class.scores().false_positives, expected.false_positives)
    expected = np.mean([metrics.aggregated_jaccard(t, p) for t, p in zip(true, pred)])
    assert float(aji.result()) == pytest.approx(expected, rel=1e-6)


def test_objects_are_nan_before_any_image_and_perfect_where_there_are_none():
    nothing = np.zeros((2, 5, 5), "int32")
    for metric in (metrics.AveragePrecision(0.5), metrics.PanopticQuality(), metrics.AggregatedJaccard()):
        assert np.isnan(float(metric.result()))
        metric.update_state(nothing, nothing[..., None])
        assert float(metric.result()) == 1
        metric.reset_state()
        assert np.isnan(float(metric.result()))
    with pytest.raises(ValueError, match="No image was counted yet"):
        metric = metrics.PanopticQuality()
        metric.scores()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics.BoundaryF1(1), "num_classes: at least 2"),
        (lambda: metrics.BoundaryF1(3, tolerance=-2), "tolerance is -2"),
        (lambda: metrics.BoundaryF1(3, spacing=-1), "spacing is -1"),
        (lambda: metrics.BoundaryIoU(3, distance=0), "distance is 0"),
        (lambda: metrics.Hausdorff(3, percentile=0), "percentile is 0"),
        (lambda: metrics.Hausdorff(3, missing=-1), "missing is -1"),
        (lambda: metrics.AverageSurfaceDistance(3, classes=[3]), "classes: ids from 0 to 2"),
        (lambda: metrics.AveragePrecision([1.5]), "threshold: 1.5"),
        (lambda: metrics.PanopticQuality(3, stuff=[3]), "stuff: class id 3"),
        (
            lambda: metrics.BoundaryF1(3).update_state(np.zeros((2, 4, 4), int), np.zeros((1, 4, 4, 3))),
            "y_true has 2 images but y_pred has 1",
        ),
        (
            lambda: metrics.BoundaryF1(3).update_state(np.zeros((1, 4, 4), int), np.zeros((1, 4, 4, 2))),
            r"image 0 of the batch: y_pred: logits of shape \(batch, …, 3\)",
        ),
        (
            lambda: metrics.BoundaryF1(3).update_state(np.zeros((1, 4, 4), int), np.zeros((1, 4, 4), int)),
            "y_pred: logits",
        ),
        (
            lambda: metrics.BoundaryF1(3).update_state(np.zeros((1, 5, 4), int), np.zeros((1, 4, 4, 3))),
            "y_true has shape",
        ),
        (
            lambda: metrics.BoundaryF1(3).update_state(np.zeros((1, 4, 4)), np.zeros((1, 4, 4, 3))),
            "y_true: integer class ids wanted",
        ),
        (
            lambda: metrics.BoundaryF1(3).update_state(np.full((1, 4, 4), 3), np.zeros((1, 4, 4, 3))),
            "y_true: class id 3 found",
        ),
        (
            lambda: metrics.AggregatedJaccard().update_state(
                np.zeros((2, 4, 4), int), np.zeros((2, 4, 4), int), sample_weight=np.ones(3)
            ),
            r"sample_weight: one weight per image wanted, shape \(2,\)",
        ),
        (
            lambda: metrics.PanopticQuality().update_state(np.zeros((1, 4, 4), int), np.zeros((1, 4, 4))),
            "instances_pred: .*label its components",
        ),
        (lambda: metrics.AggregatedJaccard().update_state(3, 4), "y_true: a batch of images wanted"),
    ],
)
def test_streaming_errors(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def model_with(outputs, loss, metric_list, **options):
    inputs = keras.Input((6, 7, 1))
    model = keras.Model(inputs, outputs(inputs))
    # It learns nothing, so that the epoch's metrics are those of the model after it.
    model.compile(keras.optimizers.SGD(0.0), loss, metrics=metric_list, **options)
    return model


def segmenter(metric_list, **options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    return model_with(keras.layers.Conv2D(CLASSES, 3, padding="same"), loss, metric_list, **options)


def test_outlines_in_eager_fit_and_evaluate():
    y_true, _ = class_maps(3, images=4)
    images = np.random.default_rng(3).normal(size=(4, 6, 7, 1)).astype("float32")
    model = segmenter(list(outline_metrics()), run_eagerly=True)
    logs = model.fit(images, y_true, batch_size=2, verbose=0).history
    evaluated = model.evaluate(images, y_true, batch_size=3, verbose=0, return_dict=True)
    y_pred = keras.ops.convert_to_numpy(model(images)).argmax(axis=-1)
    for metric, score in zip(outline_metrics(), OUTLINE_SCORES):
        expected = np.nanmean(class_means(score, y_true, y_pred))
        assert logs[metric.name][0] == pytest.approx(expected, rel=1e-6)
        assert evaluated[metric.name] == pytest.approx(expected, rel=1e-6)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch runs each step eagerly")
@pytest.mark.parametrize("step", ["fit", "evaluate"])
def test_a_compiled_step_is_one_clear_error(step):
    y_true, _ = class_maps(4)
    images = np.zeros((3, 6, 7, 1), "float32")
    model = segmenter([metrics.Hausdorff(CLASSES)], jit_compile=True)
    with pytest.raises(TypeError, match=r"Hausdorff is computed with SciPy.*compiled step.*run_eagerly=True"):
        getattr(model, step)(images, y_true, verbose=0)


def test_objects_want_arrays_too():
    for metric in (metrics.AveragePrecision(), metrics.PanopticQuality(), metrics.AggregatedJaccard()):
        with pytest.raises(TypeError, match=rf"y_true: {type(metric).__name__} is computed with SciPy"):
            metric.update_state(keras.Input((5, 5), dtype="int32"), keras.Input((5, 5), dtype="int32"))


def test_tensors_of_the_backend_are_arrays():
    true, pred = instance_maps(1)
    metric = metrics.AggregatedJaccard()
    metric.update_state(keras.ops.convert_to_tensor(true), keras.ops.convert_to_tensor(pred))
    expected = np.mean([metrics.aggregated_jaccard(t, p) for t, p in zip(true, pred)])
    assert float(metric.result()) == pytest.approx(expected, rel=1e-6)
