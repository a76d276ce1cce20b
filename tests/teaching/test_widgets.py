"""The widgets: what they compute, that a moved control moves image and numbers, and that a still image is left."""

import base64
import builtins
import html
import io
import re
import time

import keras
import numpy as np
import pytest
from PIL import Image

from course_lib import metrics
from course_lib.models.analysis import receptive_field
from course_lib.models.unet import unet
from course_lib.ops.anchors import pyramid_anchors
from course_lib.ops.boxes import box_giou, box_iou
from course_lib.ops.roi import roi_align, roi_pool
from course_lib.teaching import widgets
from course_lib.teaching.widgets.boxes_canvas import anchors_answer, boxes_answer
from course_lib.teaching.widgets.canvas import SCALE, Canvas, Plane, rgb
from course_lib.teaching.widgets.convolution_canvas import KERNELS, convolution_answer, corner
from course_lib.teaching.widgets.field_canvas import Field, field_answer, grown_fields, half_side
from course_lib.teaching.widgets.masks_canvas import (
    corrupted,
    example,
    mask_answer,
    precision_and_recall,
    three_discs,
    threshold_answer,
    unsure_guess,
)
from course_lib.teaching.widgets.regions_canvas import roi_answer, slope
from course_lib.teaching.widgets.unet_canvas import unet_answer


def probes():
    """The widget of the probes with scores that anybody can recompute."""
    labels = np.full((16, 16), -1)
    labels[2:9, 3:12], labels[10:15, 1:6] = 0, 1
    shares = np.stack([labels == 0, labels == 1], -1).astype(float)
    scores = {f"level_{s}": shares.reshape(16 // s, s, 16 // s, s, 2).mean((1, 3)) for s in (1, 2, 4)}
    return widgets.probes((labels[..., None] + 1) / 2, scores, labels, ["disc", "ring"])


ALL = {
    name: getattr(widgets, name)
    for name in (
        "boxes",
        "mask_metrics",
        "threshold",
        "anchors",
        "roi_align",
        "unet_shapes",
        "convolution",
        "receptive_field",
    )
} | {"probes": probes}


def pixels(answer):
    """The image of an answer as an array `(height, width, 3)`."""
    return np.asarray(Image.open(io.BytesIO(answer.drawing.png)).convert("RGB"))


# Two boxes


def test_equal_boxes_score_one_and_boxes_apart_only_differ_in_giou():
    same = boxes_answer((2, 1, 6, 4), (2, 1, 6, 4)).numbers
    assert (same["IoU"], same["GIoU"], same["Dice"]) == (1, 1, 1)
    near, far = (boxes_answer((0, 0, 2, 2), (x, 0, x + 2, 2)).numbers for x in (3, 9))
    assert near["IoU"] == far["IoU"] == near["Dice"] == far["Dice"] == 0
    assert near["GIoU"] == pytest.approx(-2 / 10) and far["GIoU"] == pytest.approx(-14 / 22)


def test_the_boxes_of_notebook_01_are_those_that_one_counts():
    answer = boxes_answer((2, 1, 6, 4), (4, 2, 9, 5))
    numbers = answer.numbers
    assert (numbers["both"], numbers["any"], numbers["around"]) == (4, 23, 28)
    assert numbers["IoU"] == pytest.approx(4 / 23)
    assert numbers["Dice"] == pytest.approx(2 * numbers["IoU"] / (1 + numbers["IoU"]))
    assert numbers["GIoU"] == pytest.approx(4 / 23 - 5 / 28, abs=1e-6)
    assert "IoU = 4 / 23 = 0.174" in answer.words and "GIoU = 0.174 − 5 / 28 = −0.005" in answer.words


@pytest.mark.parametrize("b", [(3, 3, 3, 6), (0, 0, 0, 0), (16, 10, 16, 10)])
def test_an_empty_box_matches_nothing(b):
    for a in ((2, 1, 6, 4), (5, 5, 5, 5)):
        answer = boxes_answer(a, b)
        assert answer.numbers["IoU"] == answer.numbers["Dice"] == 0
        assert "empty" in answer.words


@pytest.mark.parametrize("box", [(-1, 0, 2, 2), (0, 0, 17, 2), (3, 0, 2, 2), (0, 0, 2, 11)])
def test_a_box_off_the_grid_is_named(box):
    with pytest.raises(ValueError, match=r"b is \("):
        boxes_answer((0, 0, 1, 1), box)


def test_the_picture_of_two_boxes_has_the_colours_of_its_legend():
    image = pixels(boxes_answer((2, 1, 6, 4), (4, 2, 9, 5)))

    def at(x, y):  # a quarter into the square, off its lines
        left, top = (round(SCALE * value) for value in (30 + 33 * (x + 0.4), 36 + 33 * (y + 0.4)))
        return image[top, left] / 255

    for square, colour in (
        ((3, 1), "#0072B2"),
        ((5, 3), "#009E73"),
        ((7, 4), "#E69F00"),
        ((12, 8), "#FFFFFF"),
    ):
        assert np.allclose(at(*square), rgb(colour), atol=0.01), square


# A mask with faults


def test_without_faults_every_score_has_its_best_value():
    discs = three_discs()
    numbers = mask_answer(discs).numbers
    for name, value in numbers.items():
        if "pixels" not in name and "objects" not in name:
            assert value == (0 if "px" in name else 1), name
    assert numbers["found pixels"] == numbers["true pixels"] == (discs > 0).sum()
    assert numbers["found objects"] == 3


def test_erosion_lowers_dice_and_a_shift_keeps_the_area():
    discs = three_discs()
    dice = [mask_answer(discs, grow=-k).numbers["Dice"] for k in range(5)]
    assert dice == sorted(dice, reverse=True) and len(set(dice)) == 5
    for right, down in ((3, 0), (0, -4), (-2, 2)):
        moved = mask_answer(discs, right=right, down=down).numbers
        assert moved["found pixels"] == moved["true pixels"]
        assert moved["IoU"] < 1
        mask = np.roll(discs > 0, (down, right), axis=(0, 1))  # the discs do not reach the edge
        assert np.array_equal(corrupted(discs, right=right, down=down), mask)


def test_growing_and_shrinking_are_by_single_pixels():
    point = np.zeros((9, 9), int)
    point[4, 4] = 7
    assert corrupted(point, grow=1).sum() == 5 and corrupted(point, grow=2).sum() == 13
    assert corrupted(point, grow=-1).sum() == 0
    assert mask_answer(point, grow=-1).numbers["Hausdorff (px)"] == np.inf


def test_a_hole_lies_in_the_middle_of_each_object_and_moves_with_it():
    discs = three_discs()
    gone = (discs > 0) & ~corrupted(discs, hole=4)
    assert sorted(np.unique(discs[gone])) == [1, 2, 3]
    for k in (1, 2, 3):
        middle, hole = (np.argwhere(where).mean(0) for where in (discs == k, gone & (discs == k)))
        assert np.allclose(middle, hole, atol=0.01)
    assert np.array_equal(corrupted(discs, hole=4, right=5), np.roll(corrupted(discs, hole=4), 5, axis=1))


def test_what_leaves_the_picture_is_gone_and_does_not_come_back_on_the_other_side():
    edge = np.zeros((8, 8), int)
    edge[:, 6:] = 1
    assert corrupted(edge, right=1).sum() == 8 and corrupted(edge, right=2).sum() == 0


# A threshold


def test_precision_and_recall_by_counting():
    target = np.array([1, 1, 1, 1, 0, 0, 0, 0], bool)
    found = np.array([1, 1, 1, 0, 1, 0, 0, 0], bool)
    assert precision_and_recall(target, found) == (3 / 4, 3 / 4)
    assert precision_and_recall(target, np.ones(8, bool)) == (1 / 2, 1)
    precision, recall = precision_and_recall(target, np.zeros(8, bool))
    assert np.isnan(precision) and recall == 0


def test_a_higher_threshold_never_raises_recall_and_one_best_serves_iou_and_dice():
    target, probability = example()
    answers = [threshold_answer(target, probability, k / 20).numbers for k in range(21)]
    recall = [numbers["recall"] for numbers in answers]
    assert recall == sorted(recall, reverse=True) and recall[0] == 1 and recall[-1] == 0
    assert np.argmax([n["IoU"] for n in answers]) == np.argmax([n["Dice"] for n in answers])
    assert answers[10]["IoU"] == metrics.iou(target, probability > 0.5)


def test_nothing_found_has_no_precision_and_says_so():
    target, probability = example()
    assert "Precision has no value, recall 0%" in threshold_answer(target, probability, 1.0).words


def test_the_unsure_guess_is_a_probability_and_the_same_every_time():
    target, probability = example()
    assert probability.shape == target.shape and 0 <= probability.min() and probability.max() <= 1
    assert np.array_equal(probability, unsure_guess(target))
    assert probability[target].mean() > 0.5 > probability[~target].mean()


# Anchors


def test_the_anchors_are_those_of_the_library_and_so_is_their_best_iou():
    boxes = np.array([[10, 10, 42, 42], [60, 20, 76, 52], [90, 90, 96, 97]], float)
    image = np.zeros((128, 128, 1))
    numbers = anchors_answer(image, boxes, 32, 2.0, 8, three=True).numbers
    (every,) = pyramid_anchors((128, 128), [(16, 16)], [32], (0.5, 1.0, 2.0))
    assert numbers["anchors"] == len(every) == 16 * 16 * 3
    assert np.allclose(numbers["best"], np.asarray(box_iou(boxes, every)).max(1), atol=1e-6)


def test_the_sides_of_the_frames_are_pixels_and_not_exponents():
    first, *_, last = widgets.anchors().frames("side").values()
    assert "anchors of side 4," in first.words and "anchors of side 128," in last.words


def test_a_slider_with_two_ends_is_moved_as_a_whole():
    frames = widgets.boxes((2, 1, 6, 4), (4, 2, 9, 5)).frames("b_x", "b_y", most=3)
    assert len(frames) == 9 and max(frames) == (2, 2)
    for places, left, top in (((0, 0), 0, 0), ((2, 1), 11, 4), ((2, 2), 11, 7)):
        expected = boxes_answer((2, 1, 6, 4), (left, top, left + 5, top + 3))
        assert frames[places].numbers == expected.numbers


def test_an_anchor_like_the_object_fits_it_and_one_twice_as_large_reaches_a_quarter():
    boxes = np.array([[48, 48, 80, 80]], float)  # around a position of the map
    image = np.zeros((128, 128, 3))
    assert anchors_answer(image, boxes, 32, 1.0, 8).numbers["best"] == pytest.approx([1])
    answer = anchors_answer(image, boxes, 64, 1.0, 8)
    assert answer.numbers["best"] == pytest.approx([0.25]) and answer.numbers["matched"] == 0
    assert "256 anchors of side 64, height / width 1.00" in answer.words
    assert "for 1 even the best stays below 0.3" in answer.words


# RoI Align


@pytest.mark.parametrize(("cells", "points"), [(1, 1), (3, 2), (7, 4)])
def test_the_region_is_read_as_the_fast_operations_read_it(cells, points):
    chart = np.random.default_rng(0).random((12, 10)).astype("float32")
    numbers = roi_answer(chart, (2.3, 8.7), (3.1, 8.4), cells, points).numbers
    box, features = np.array([[[2.3, 3.1, 8.7, 8.4]]], "float32"), chart[None, ..., None]
    for name, read in (
        ("align", roi_align(features, box, cells, sampling_ratio=points)),
        ("pool", roi_pool(features, box, cells)),
    ):
        assert np.allclose(numbers[name], np.asarray(read)[0, 0, ..., 0], atol=1e-5), name
    assert numbers["points"].shape == ((cells * points) ** 2, 2)


def test_a_tenth_of_a_position_moves_align_and_not_pool():
    ramp = np.tile(np.arange(12, dtype="float32"), (12, 1))
    here, there = (roi_answer(ramp, (x, x + 4), (2, 6), 2, 2).numbers for x in (3.1, 3.2))
    assert np.allclose(there["align"] - here["align"], 0.1, atol=1e-5)
    assert np.array_equal(there["pool"], here["pool"])
    assert roi_answer(ramp, (3.6, 7.6), (2, 6), 2, 2).numbers["pool"][0, 0] > here["pool"][0, 0]


def test_a_region_without_width_is_read_as_one_position_wide():
    points = roi_answer(slope(), (4.0, 4.0), (2.0, 6.0), 2, 1).numbers["points"]
    assert sorted(set(points[:, 1])) == [4.25, 4.75]


# U-Net's shapes


@pytest.mark.parametrize(
    ("side", "depth", "padding", "filters", "skip"),
    [(572, 4, "valid", 4, "concat"), (64, 2, "same", 8, "add")],
)
def test_the_shapes_are_those_of_the_network(side, depth, padding, filters, skip):
    numbers = unet_answer(side, depth, padding, filters, skip).numbers
    model = unet((side, side, 1), 2, filters, depth, padding=padding, skip=skip)
    assert numbers["parameters"] == model.count_params()
    assert (numbers["output"], 2) == model.output_shape[2:]
    assert (numbers["bottleneck"], numbers["channels"]) == model.get_layer("bottleneck").output.shape[2:]


def test_a_side_that_does_not_fit_is_refused_with_those_that_do():
    answer = unet_answer(500, 4, "valid", 64, "concat")
    assert answer.numbers == {"fits": False}
    assert "492 or 508" in answer.words
    assert (answer.drawing.width, answer.drawing.height) == (900, 527)
    assert pixels(answer).shape == pixels(unet_answer(508, 4, "valid", 64, "concat")).shape


def test_no_figure_is_left_open_that_the_notebook_would_show_a_second_time():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    live = widgets.unet_shapes()
    live.controls["depth"].value = 3
    live._repr_mimebundle_()
    assert plt.get_fignums() == before


# A kernel that slides


@pytest.mark.parametrize("rate", [1, 2, 3])
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_full_feature_map_is_the_convolution_of_keras(kernel, rate):
    image = np.random.default_rng(0).normal(size=(8, 10))
    numbers = convolution_answer(image, KERNELS, kernel, rate, 10**6).numbers
    weights = KERNELS[kernel][..., None, None].astype("float32")
    wanted = keras.ops.conv(image[None, ..., None].astype("float32"), weights, dilation_rate=rate)
    assert np.allclose(numbers["map"], keras.ops.convert_to_numpy(wanted)[0, ..., 0], atol=1e-5)


def test_product_by_product_a_sum_grows_and_then_the_kernel_moves_on():
    sums = [
        convolution_answer(corner(), KERNELS, "edge: dark to bright", 1, k).numbers
        for k in range(1, 9 * 35 + 1)
    ]
    first = sums[
        9 * (7 + 2) : 9 * (7 + 2) + 9
    ]  # rows 1 to 3, columns 2 to 4: the corner of the bright part only
    assert [len(one["products"]) for one in first] == list(range(1, 10))
    assert [one["sum"] for one in first] == [0] * 8 + [1]
    assert {(one["row"], one["column"]) for one in first} == {(1, 2)}
    assert np.isnan(first[-1]["map"]).sum() == 5 * 7 - 10
    assert not np.isnan(sums[-1]["map"]).any() and (sums[-1]["row"], sums[-1]["column"]) == (4, 6)


# A receptive field that grows


def test_the_fields_are_those_that_impulses_measure():
    model = unet((None, None, 1), base_filters=2, depth=3)
    for field in grown_fields(model):
        measured = receptive_field(model, field.layer)
        assert (field.size, field.stride) == (measured.size[0], measured.stride[0]), field.layer
        assert field.start + (field.size - 1) / 2 == measured.offset[0], field.layer


def test_half_of_an_even_gradient_needs_most_of_the_field_and_half_of_a_point_only_the_point():
    field = Field("any", 21, 1, -10)
    even, point = np.zeros((41, 41)), np.zeros((41, 41))
    even[10:31, 10:31] = 1 / 21**2
    point[20, 20] = 1
    assert half_side(even, field) == 15  # 15² is the first odd square above 21² / 2
    assert half_side(point, field) == 1
    answer = field_answer(np.zeros((41, 41)), [field], {"even": [even], "point": [point]}, "any", "point")
    assert "Half of the gradient of the point network lies within 1 × 1 pixels" in answer.words


def test_no_gradient_lies_outside_the_receptive_field(lives):
    network = lives["receptive_field"]._answer_to
    _, fields, effective = network.args
    for gradients in effective.values():
        for field, gradient in zip(fields, gradients, strict=True):
            low = field.start + 48 // field.stride * field.stride
            assert gradient[low : low + field.size, low : low + field.size].sum() == pytest.approx(
                1, abs=1e-5
            )


# Probes


def test_each_level_gives_a_pixel_what_its_block_has():
    live = probes()
    live.controls["row"].value, live.controls["column"].value = 9, 3
    numbers = live.answer.numbers
    assert numbers["label"] == -1 and "background" in live.answer.words
    assert numbers["scores"]["level_1"].tolist() == [0, 0]
    assert numbers["scores"]["level_2"].tolist() == [
        0.25,
        0,
    ]  # of rows 8, 9 and columns 2, 3 one pixel is a disc's
    assert numbers["scores"]["level_4"].tolist() == [1 / 16, 6 / 16] and numbers["said"]["level_4"] == 1


def test_at_first_a_pixel_of_an_object_is_shown():
    assert probes().answer.numbers["label"] == 0


# All of them


def other(control):
    """A value of the control that is not the one it has."""
    if hasattr(control, "options"):
        return next(option for option in control.options if option != control.value)
    if isinstance(control.value, bool):
        return not control.value
    if isinstance(control.value, tuple):
        return control.value[0], control.value[1] - control.step
    if hasattr(control, "base"):  # its step is one of the exponent
        return control.value * control.base**control.step
    return control.value + control.step


@pytest.fixture(scope="module")
def lives():
    """Each widget once, for they are built in some tenths of a second."""
    return {name: make() for name, make in ALL.items()}


@pytest.mark.parametrize("name", ALL)
def test_moving_any_control_moves_picture_numbers_and_words(name, lives, record_property):
    live, took = lives[name], []
    for control in live.controls.values():
        first, start, shown = live.answer, control.value, live._picture.value
        value, began = other(control), time.perf_counter()
        control.value = value
        took.append(1000 * (time.perf_counter() - began))
        assert live.answer.words != first.words, control.description
        assert live._picture.value != shown, control.description
        assert re.sub(r"<[^>]*>", "", html.unescape(live._words.value)) == live.answer.words
        assert repr(live.answer.numbers) != repr(first.numbers), control.description
        control.value = start
        assert live.answer.words == first.words and live._picture.value == shown
    # A report and no verdict: the time depends on what else the machine does. `pytest --junit-xml` writes it down.
    record_property("milliseconds for an answer, median", round(float(np.median(took)), 1))


@pytest.mark.parametrize("name", ALL)
def test_the_output_holds_the_widget_and_a_still_picture_of_it(name, lives):
    live = lives[name]
    data, metadata = live._repr_mimebundle_()
    assert set(data) == {"text/plain", "image/png", "application/vnd.jupyter.widget-view+json"}
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == live.widget.model_id
    assert data["text/plain"] == live.answer.words
    still = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    size = metadata["image/png"]
    assert still.size == (SCALE * size["width"], SCALE * size["height"])
    assert np.asarray(still.convert("L")).std() > 10  # something is drawn on it
    assert len(data["image/png"]) < 300_000


@pytest.mark.parametrize("name", ALL)
def test_a_still_picture_is_the_same_every_time(name, lives):
    again = ALL[name]()
    assert again.answer.drawing.png == lives[name].answer.drawing.png
    assert again._picture.value == lives[name]._picture.value


@pytest.mark.parametrize("name", ALL)
def test_it_can_be_used_without_eyes_and_without_a_mouse(name, lives):
    live = lives[name]
    assert all(control.description for control in live.controls.values())
    assert len({control.description for control in live.controls.values()}) == len(live.controls)
    # Sliders, menus and boxes of ipywidgets all take the keyboard; nothing here is moved by the mouse alone.
    kinds = {type(control).__name__ for control in live.controls.values()}
    assert kinds <= {
        "IntSlider", "FloatSlider", "FloatLogSlider", "IntRangeSlider", "FloatRangeSlider", "SelectionSlider", "Dropdown",
        "Checkbox", "BoundedIntText",
    }  # fmt: skip
    assert 'alt="' in live._picture.value or "<title>" in live._picture.value
    assert 'aria-live="polite"' in live._words.value
    assert live._shows.endswith(".") and live._shows in html.unescape(live._picture.value)


@pytest.mark.parametrize("name", ALL)
def test_without_ipywidgets_it_says_what_to_do_in_a_sentence(name, monkeypatch):
    real = builtins.__import__

    def without(module, *rest, **named):
        if module.split(".")[0] == "ipywidgets":
            raise ModuleNotFoundError("No module named 'ipywidgets'")
        return real(module, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        ImportError, match="ipywidgets is not installed, and a widget needs it; `make lab` sets it up"
    ):
        ALL[name]()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: widgets.mask_metrics(np.zeros((8, 8), int)), "objects has shape"),
        (lambda: widgets.mask_metrics(np.ones((8, 8))), "type float64"),
        (lambda: widgets.mask_metrics(np.ones((2, 8, 8), int)), r"objects has shape \(2, 8, 8\)"),
        (lambda: widgets.threshold(probability=np.ones((8, 8))), "target is missing"),
        (lambda: widgets.threshold(np.ones((8, 8), int)), "target has shape"),
        (
            lambda: widgets.threshold(np.ones((8, 8), bool), np.ones((8, 9))),
            r"probability has shape \(8, 9\)",
        ),
        (
            lambda: widgets.threshold(np.ones((8, 8), bool), np.full((8, 8), 3.0)),
            "Logits go through a sigmoid",
        ),
        (lambda: widgets.threshold(np.ones((8, 8), bool), np.full((8, 8), np.nan)), "probability has shape"),
        (lambda: widgets.anchors(np.zeros((8, 8, 1))), r"boxes has shape \(0, 4\)"),
        (lambda: widgets.anchors(np.zeros((8, 8)), np.ones((1, 4))), r"image has shape \(8, 8\)"),
        (lambda: widgets.anchors(np.zeros((64, 64, 3)), np.ones((2, 4)), ["disc"]), "names: 1 for 2 boxes"),
        (lambda: widgets.roi_align(np.zeros((4, 4, 2))), r"feature_map has shape \(4, 4, 2\)"),
        (lambda: widgets.roi_align(np.full((4, 4), np.inf)), "finite numbers"),
        (lambda: widgets.convolution(np.zeros((2, 9))), r"image has shape \(2, 9\)"),
        (lambda: widgets.convolution(np.zeros((9, 17))), "16 × 16"),
        (lambda: widgets.convolution(kernel=np.zeros((5, 5))), r"kernel has shape \(5, 5\)"),
        (lambda: widgets.convolution(np.zeros((6, 6)), rate=3), r"rate is 3; .* \[1, 2\]"),
        (lambda: widgets.receptive_field(np.zeros((96, 90, 1))), r"image has shape \(96, 90, 1\)"),
        (
            lambda: widgets.receptive_field(models={"valid": unet((572, 572, 1), padding="valid")}),
            "padding 'valid'",
        ),
        (
            lambda: widgets.receptive_field(
                models={f"depth {d}": unet((96, 96, 1), base_filters=2, depth=d) for d in (1, 2)}
            ),
            "the same layers",
        ),
        (
            lambda: widgets.probes(
                np.zeros((8, 8, 3)), {"a": np.zeros((3, 3, 1))}, np.zeros((8, 8), int), ["disc"]
            ),
            r"scores of 'a' have shape \(3, 3, 1\)",
        ),
        (
            lambda: widgets.probes(np.zeros((8, 8, 3)), {}, np.ones((8, 8), int), ["disc"]),
            "labels run from 1 to 1",
        ),
        (
            lambda: widgets.probes(np.zeros((8, 8)), {}, np.ones((8, 8), int), ["disc"]),
            r"image has shape \(8, 8\)",
        ),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_one_gives_is_what_one_sees():
    live = widgets.boxes((0, 0, 4, 4), (0, 0, 4, 4))
    assert live.answer.numbers["IoU"] == 1
    one, other_box = np.array([[0, 0, 4, 4]], "float32"), np.array([[0, 2, 4, 6]], "float32")
    live.controls["b_y"].value = (2, 6)
    assert live.answer.numbers["GIoU"] == pytest.approx(float(np.asarray(box_giou(one, other_box))[0, 0]))
    named = widgets.anchors(np.zeros((64, 64, 1)), [[8, 8, 40, 40]], ["disc"])
    assert named.answer.numbers["best"].shape == (1,)
    target = np.zeros((16, 16), bool)
    target[4:12, 4:12] = True
    sure = widgets.threshold(target, target.astype(float))
    assert sure.answer.numbers["precision"] == sure.answer.numbers["recall"] == 1


# The drawing board


def test_the_board_draws_where_it_is_told():
    canvas = Canvas(40, 20)
    canvas.box((5, 5, 15, 10), fill="#0072B2")
    canvas.bar((20, 5, 40, 10), 0.5, colour="#009E73")
    canvas.bar((20, 12, 40, 16), float("nan"), colour="#009E73")
    image = np.asarray(Image.open(io.BytesIO(canvas.png)))
    assert image.shape == (20 * SCALE, 40 * SCALE, 3)
    blue = (image == np.rint(255 * rgb("#0072B2"))).all(-1)
    assert np.array_equal(np.argwhere(blue).min(0), [5 * SCALE, 5 * SCALE])
    assert blue.sum() == 10 * SCALE * 5 * SCALE
    green = (image == np.rint(255 * rgb("#009E73"))).all(-1)
    assert green.sum() == 10 * SCALE * 5 * SCALE  # half of the bar, and none for what is not a number
    plane = Plane(canvas, 3, 4, 2)
    assert plane.at(5, 6) == (13, 16)
