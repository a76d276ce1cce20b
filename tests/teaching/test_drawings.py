"""Drawings and posters: they show the live model, change with it, and can be read."""

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.path import Path as Outline
from matplotlib.text import Annotation

from course_lib import checkpoints, plot, recipes
from course_lib.__main__ import main
from course_lib.datasets.errors import DataUnavailable
from course_lib.models.deeplab import deeplab
from course_lib.models.fcn import fcn
from course_lib.models.mask_rcnn import MaskRCNN
from course_lib.models.unet import unet
from course_lib.teaching import drawings, posters
from course_lib.teaching.drawings.canvas import SMALLEST

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def small_fcn(**arguments):
    return fcn(**{"input_shape": (96, 128, 1), "num_classes": 4, "backbone": "small"} | arguments)


def small_deeplab(**arguments):
    return deeplab(
        **{"num_classes": 4, "backbone": "small", "aspp_filters": 32, "decoder_filters": (8, 16)} | arguments
    )


def small_mask_rcnn(**arguments):
    small = {
        "num_classes": 4,
        "channels": 1,
        "backbone": "small",
        "filters": 16,
        "box_units": 24,
        "mask_filters": 8,
    }
    return MaskRCNN(**small | arguments)


@pytest.fixture(scope="module")
def models():
    """One small network of each kind, by the name of its poster."""
    return {
        "unet": unet((64, 64, 1), 3, base_filters=4, depth=2),
        "fcn": small_fcn(),
        "deeplab": small_deeplab(),
        "mask-rcnn": small_mask_rcnn(),
    }


def words(figure):
    """All that is written on a figure, in one string."""
    axes = [*(text.get_text() for text in figure.texts), *(axis.get_title() for axis in figure.axes)]
    return "\n".join([*axes, *(text.get_text() for axis in figure.axes for text in axis.texts)])


def svg_words(page):
    """All text elements of an SVG."""
    elements = ElementTree.fromstring(page).iter("{http://www.w3.org/2000/svg}text")
    return "\n".join("".join(element.itertext()) for element in elements)


# What can be read


def boxes_of_words(figure):
    """By what is written, where it stands in pixels: left, bottom, right, top; a hair less, for the air around letters."""
    renderer = figure.canvas.get_renderer()
    texts = [text for axis in figure.axes for text in (*axis.texts, axis.title)] + list(figure.texts)
    found = []
    for text in texts:
        if text.get_text().strip() and text.get_visible():
            box = text.get_window_extent(renderer)
            found.append((text.get_text(), np.array([box.x0 + 1, box.y0 + 1, box.x1 - 1, box.y1 - 1])))
    return found


def overlap(one, other):
    return bool((np.maximum(one[:2], other[:2]) < np.minimum(one[2:], other[2:])).all())


def corner_path(box):
    left, bottom, right, top = box
    return Outline([(left, bottom), (right, bottom), (right, top), (left, top), (left, bottom)])


def lines_of(figure):
    """The outlines of all blocks and the lines of all arrows, in pixels."""
    for axis in figure.axes:
        annotations = [text for text in axis.texts if isinstance(text, Annotation)]
        for annotation in annotations:
            annotation.update_positions(figure.canvas.get_renderer())
        for patch in (*axis.patches, *(annotation.arrow_patch for annotation in annotations)):
            # Piece by piece: what an arrow's path jumps over from its line to its head is no line.
            pieces = patch.get_path().to_polygons(patch.get_transform(), closed_only=False)
            yield from map(Outline, pieces)


def what_is_in_the_way(figure):
    """Words that leave the page, lie over other words, or are cut by the line of a block or an arrow."""
    found, lines = boxes_of_words(figure), list(lines_of(figure))
    width, height = figure.bbox.size
    problems = []
    for index, (text, box) in enumerate(found):
        if (box[:2] < 0).any() or box[2] > width or box[3] > height:
            problems.append(f"{text!r} leaves the page")
        problems += [f"{text!r} lies over {other!r}" for other, place in found[:index] if overlap(box, place)]
        frame = corner_path(box)
        problems += [
            f"{text!r} is cut by a line" for line in lines if line.intersects_path(frame, filled=False)
        ]
    return problems


def test_the_check_finds_what_is_wrong():
    figure, axis = plt.subplots()
    axis.axis("off")
    axis.text(0.5, 0.5, "one over")
    axis.text(0.5, 0.5, "the other")
    axis.text(1.1, 0.9, "half outside of the page")
    axis.text(0.1, 0.1, "cut")
    axis.add_patch(Rectangle((0, 0), 0.12, 0.2))
    axis.text(0.1, 0.3, "crossed")
    axis.add_patch(FancyArrowPatch((0.05, 0.25), (0.2, 0.4)))
    axis.text(0.1, 0.6, "hit")
    axis.annotate("", (0.12, 0.61), (0.3, 0.8), arrowprops={"arrowstyle": "-|>"})
    axis.text(0.7, 0.1, "free")
    assert what_is_in_the_way(figure) == [
        "'the other' lies over 'one over'",
        "'half outside of the page' leaves the page",
        "'cut' is cut by a line",
        "'crossed' is cut by a line",
        "'hit' is cut by a line",
    ]


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_nothing_is_in_the_way_on_a_unet(depth):
    plot.style()  # as a notebook draws
    size = 2**depth * 24
    for more in (
        {"input_shape": (size, size, 1)},
        {"input_shape": (size, 2 * size, 3), "skip": "add", "up": "interpolate", "normalization": "batch"},
        {"input_shape": (None, None, 3), "skip": "none"},
        {"input_shape": (572 if depth == 4 else 188 + 2**depth * 16, 572, 1), "padding": "valid"},
    ):
        if more.get("padding") == "valid":
            side = next(side for side in range(400, 800) if unet_fits(side, depth))
            more["input_shape"] = (side, side, 1)
        plan = drawings.unet_plan(**more, depth=depth, base_filters=64)
        assert what_is_in_the_way(drawings.draw_unet(plan)) == []


def unet_fits(side, depth):
    from course_lib.models.unet import fits

    return fits(side, depth, "valid")


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_nothing_is_in_the_way_on_an_fcn(stride):
    for size in ((96, 128), (500, 500)):
        assert what_is_in_the_way(drawings.draw_fcn(small_fcn(input_shape=(*size, 1), stride=stride))) == []


def test_nothing_is_in_the_way_on_a_deeplab():
    for stride, size in ((16, (513, 1025)), (8, (96, 96))):
        model = small_deeplab(output_stride=stride)
        assert what_is_in_the_way(drawings.draw_deeplab(model, size)) == []


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"with_mask": False, "settings": {"roi_op": "pool"}},
        {"rpn_convolutions": 2, "box_convolutions": 4, "mask_convolutions": 2, "num_classes": 91},
        {"settings": {"loss_weights": (0.5, 1.0, 2.0, 1.5, 0.25), "mask_roi_size": 7, "sampling_ratio": 1}},
    ],
)
def test_nothing_is_in_the_way_on_a_mask_rcnn(more):
    model = small_mask_rcnn(**more)
    for size in ((96, 128), (1024, 1024)):
        assert what_is_in_the_way(drawings.draw_mask_rcnn(model, size)) == []


@pytest.mark.parametrize("name", posters.POSTERS)
@pytest.mark.slow
def test_nothing_is_in_the_way_on_a_poster_and_its_words_are_large(name, models):
    figure = posters.poster(name, models[name])
    assert what_is_in_the_way(figure) == []
    sizes = [text.get_fontsize() for axis in figure.axes for text in axis.texts if text.get_text()]
    assert min(sizes) >= posters.SMALLEST and tuple(figure.get_size_inches()) == posters.PAGE


def test_words_on_drawings_are_large_and_grow_with_them(models):
    for draw, name in (
        (drawings.draw_unet, "unet"),
        (drawings.draw_fcn, "fcn"),
        (drawings.draw_deeplab, "deeplab"),
        (drawings.draw_mask_rcnn, "mask-rcnn"),
    ):
        for width in (12.0, 6.0):
            figure = draw(models[name], width=width)
            sizes = [text.get_fontsize() for text in figure.axes[0].texts if text.get_text()]
            assert min(sizes) >= SMALLEST * width / 12


# What is drawn is what is there


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_the_computed_plan_is_that_of_the_live_model(depth, padding):
    side = next(side for side in range(2**depth * 12, 1000) if padding == "same" and side % 2**depth == 0 or
                padding == "valid" and unet_fits(side, depth))  # fmt: skip
    for more in (
        {"skip": "concat", "normalization": None, "up": "transpose"},
        {"skip": "add", "normalization": "batch", "up": "interpolate"},
        {"skip": "none", "normalization": "group", "up": "transpose", "name": "another"},
    ):
        arguments = {
            "input_shape": (side, side + 2**depth, 2), "num_classes": 3, "base_filters": 3, "depth": depth,
            "padding": padding, **more,
        }  # fmt: skip
        computed, read = drawings.unet_plan(**arguments), drawings.read_unet(unet(**arguments))
        assert computed == read
        assert list(computed.maps) == list(read.maps) and computed.depth == depth


def test_a_plan_of_any_size_is_that_of_the_live_model():
    arguments = {"input_shape": (None, None, 3), "depth": 2, "base_filters": 4}
    assert drawings.unet_plan(**arguments) == drawings.read_unet(unet(**arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (100, 100, 1)}, "the nearest that work: 96 or 112"),
        ({"padding": "full"}, "padding is 'full'; it must be one of 'same', 'valid'"),
        ({"skip": "sum"}, "skip is 'sum'"),
        ({"up": "nearest"}, "up is 'nearest'"),
        ({"normalization": "layer"}, "normalization is 'layer'"),
        ({"depth": 0}, "depth is 0; it must be a whole number, at least 1"),
    ],
)
def test_a_plan_refuses_what_unet_refuses(arguments, message):
    for make in (drawings.unet_plan, unet):
        with pytest.raises(ValueError, match=re.escape(message)):
            make(**arguments)


def test_the_published_unet_is_the_papers_figure():
    drawn = words(drawings.draw_unet(drawings.unet_plan((572, 572, 1), 2, padding="valid")))
    assert "31,030,658 parameters" in drawn
    for side in (572, 570, 568, 284, 282, 280, 140, 138, 136, 68, 66, 64, 32, 30, 28, 56, 54, 52, 104, 102, 100, 200, 198,
                 196, 392, 390, 388):  # fmt: skip
        assert f"{side}²" in drawn.splitlines(), side
    assert "cropped to 392²" in drawn


def test_you_are_here_colours_the_maps_that_are_meant():
    def colours(*here):
        return [tuple(patch.get_facecolor()) for patch in drawings.draw_unet_here(*here).axes[0].patches
                if type(patch).__name__ == "Rectangle"]  # fmt: skip

    everything, pooled, logits = colours("*"), colours("encoder_?_pool"), colours("logits")
    assert len(everything) == len(pooled) == 32
    assert sum(a == b for a, b in zip(everything, pooled)) == 4 and everything[-1] == logits[-1]
    with pytest.raises(ValueError, match="here holds 'pool'; it must fit one of image, encoder_1_a"):
        drawings.draw_unet_here("pool")


def test_every_map_changes_with_the_depth_and_the_skip():
    def drawn(**arguments):
        return words(drawings.draw_unet(unet((64, 64, 1), 3, 4, **arguments))).splitlines()

    for depth in (1, 2, 3):
        lines = drawn(depth=depth)
        assert f"{64 // 2**depth}²" in lines and f"{64 // 2 ** (depth + 1)}²" not in lines
        assert lines.count("64²") == 7  # image, two convolutions, joined, two convolutions, logits
    assert "skip: concatenate" in drawn(depth=2) and "skip: add" in drawn(depth=2, skip="add")
    assert not any("skip" in line for line in drawn(depth=2, skip="none"))
    assert "3 × 3 convolution, batch norm, ReLU" in drawn(depth=1, normalization="batch")
    assert "bilinear × 2, 2 × 2 convolution" in drawn(depth=1, up="interpolate")


def test_an_fcn_is_drawn_as_it_was_built():
    model = small_fcn(widths=(8, 16, 24, 32, 40), head_filters=72, convolutions=(1, 2, 1, 3, 1))
    drawn = words(drawings.draw_fcn(model))
    for shape in (
        "96 × 128\n× 8",
        "48 × 64\n× 16",
        "24 × 32\n× 24",
        "12 × 16\n× 32",
        "6 × 8\n× 40",
        "3 × 4\n× 72",
    ):
        assert shape in drawn
    assert "96 × 128\n× 4" in drawn  # the logits
    assert drawn.count("learned") == 2 and drawn.count("fixed") == 1
    assert [line for line in drawn.splitlines() if re.fullmatch(r"× \d", line)].count(
        "× 2"
    ) == 2 and "× 8" in drawn


def test_an_fcns_stride_convolutions_and_padding_change_the_drawing():
    plans = {stride: drawings.read_fcn(small_fcn(stride=stride)) for stride in (8, 16, 32)}
    assert [[up.factor for up in plans[stride].ups] for stride in (8, 16, 32)] == [[2, 2, 8], [2, 16], [32]]
    for stride, fused in ((8, 2), (16, 1), (32, 0)):
        assert words(drawings.draw_fcn(plans[stride])).count("score of pool") == fused

    def bars(convolutions):
        return len(drawings.draw_fcn(small_fcn(convolutions=convolutions)).axes[0].patches)

    assert bars((1, 1, 1, 1, 3)) == bars((1, 1, 1, 1, 1)) + 2
    padded = small_fcn(
        input_shape=(64, 64, 1), padding="paper", head_size=7, learned="all", normalization="batch"
    )
    drawn = words(drawings.draw_fcn(padded))
    assert "100 zeros\naround it" in drawn and "262²\n× 8" in drawn and "fixed" not in drawn
    assert "7 × 7 convolution" in drawn and "one 3 × 3 convolution, normalization, ReLU" in drawn


def test_a_deeplab_is_drawn_as_it_was_built(models):
    drawn = words(drawings.draw_deeplab(models["deeplab"], (96, 128)))
    for shape in (
        "24 × 32\n× 16",
        "12 × 16\n× 32",
        "6 × 8\n× 160",
        "6 × 8\n× 32",
        "24 × 32\n× 8",
        "24 × 32\n× 40",
    ):
        assert shape in drawn
    assert all(f"3 × 3, rate {rate}" in drawn for rate in (6, 12, 18)) and drawn.count("dilation") == 1
    finer = small_deeplab(output_stride=8, rates=(2, 3, 4), blocks=(1, 2, 1, 1))
    drawn = words(drawings.draw_deeplab(finer, (96, 128)))
    assert "2 blocks" in drawn and "dilation 4" in drawn and drawn.count("dilation") == 2
    assert all(f"3 × 3, rate {rate}\n" in drawn for rate in (2, 3, 4)) and "rate 6" not in drawn
    assert "12 × 16\n× 160" in drawn and "\n× 2\n" in drawn and "\n× 4\n" in drawn


def test_a_mask_rcnn_is_drawn_as_it_was_built(models):
    model = models["mask-rcnn"]
    drawn = words(drawings.draw_mask_rcnn(model, (96, 128)))
    for part in (
        "backbone + FPN",
        "RPN, on every level",
        "RoI Align",
        "box head",
        "mask head",
        *model.loss_names,
    ):
        assert part in drawn.splitlines()
    for shape in ("image: 96 × 128 × 1", "C2: 24 × 32 × 16", "C5: 3 × 4 × 128", "P2: 24 × 32 × 16", "P5: 3 × 4 × 16",
                  "pool: 2² × 16", "7² × 16", "14² × 16", "28² × 8", "28² × 4"):  # fmt: skip
        assert shape in drawn.splitlines(), shape
    features = model.features(np.zeros((1, 96, 128, 1), np.float32))
    anchors = sum(map(len, model.anchors((96, 128), features)))
    for number in (
        f"{anchors:,} anchors",
        "3 objectness logits",
        "12 box deltas",
        "dense 24",
        "4 classes",
        "16 deltas",
    ):
        assert number in drawn
    for part in (model.rpn_head, model.box_head, model.mask_head):
        assert f"{part.count_params():,} parameters" in drawn
    both = model.backbone.count_params() + model.fpn.count_params()
    assert f"{both:,} parameters" in drawn and f"{model.count_params():,} parameters" in drawn


def test_without_a_mask_head_its_part_and_its_loss_are_gone():
    drawn = words(drawings.draw_mask_rcnn(small_mask_rcnn(with_mask=False), (64, 64)))
    assert "mask head" not in drawn and "loss_mask" not in drawn and "14²" not in drawn
    assert "loss_box_reg" in drawn and "Faster R-CNN" in drawn


def test_a_mask_rcnns_settings_change_the_drawing():
    changed = small_mask_rcnn(
        num_classes=7,
        box_convolutions=4,
        settings={
            "roi_op": "pool",
            "aspect_ratios": (1.0,),
            "rpn_post_nms_top_n": (50, 30),
            "box_roi_size": 5,
            "box_detections_per_img": 11,
            "loss_weights": (1, 1, 1, 1, 2),
        },
    )
    drawn = words(drawings.draw_mask_rcnn(changed, (64, 64)))
    for shown in ("RoI Pool", "1 objectness logits", "4 box deltas", "30 proposals", "5² × 16", "11 detections",
                  "7 classes", "28 deltas", "2 ×\nloss_mask"):  # fmt: skip
        assert shown in drawn, shown
    assert "RoI Align" not in drawn


def test_a_model_of_another_kind_is_refused():
    other = unet((32, 32, 1), depth=1, base_filters=2)
    for draw, message in (
        (drawings.draw_fcn, "give one that `fcn` built"),
        (drawings.draw_deeplab, "give one that `deeplab` built"),
        (drawings.draw_mask_rcnn, "give a MaskRCNN"),
    ):
        with pytest.raises(ValueError, match=message):
            draw(other)


# Files


def test_a_drawing_as_svg_is_text_and_always_the_same(models):
    pages = [drawings.to_svg(drawings.draw_unet(models["unet"]), "A U-Net") for _ in range(2)]
    assert pages[0] == pages[1]
    drawn = svg_words(pages[0])
    for shown in ("64²\n4", "32²\n8", "16²\n16", f"{models['unet'].count_params():,} parameters"):
        assert shown in drawn
    assert "<image" not in pages[0] and "A U-Net" in pages[0]


@pytest.fixture
def small_networks(models, monkeypatch):
    """The posters of the small networks in place of the published ones."""
    own = {name: replace(about, image_size=None) for name, about in posters.POSTERS.items()}
    monkeypatch.setattr(posters, "POSTERS", own)
    monkeypatch.setattr(posters, "as_published", models.__getitem__)


def camvid_is_absent(monkeypatch):
    given = recipes.Recipe.data

    def absent(recipe, split="train"):
        if "camvid" in recipe.name:
            raise DataUnavailable("camvid is not here")
        return given(recipe, split)

    monkeypatch.setattr(recipes.Recipe, "data", absent)


def test_a_poster_shows_an_image_with_its_prediction_and_the_score_of_the_card(small_networks):
    figure = posters.poster("unet")
    score = checkpoints.card(recipes.get("unet-cells"))["val"]["iou_foreground"]
    said = words(figure)
    assert f"{score:.2f}" in said.split("\n") and "(unet-cells)" in said
    image, truth, predicted = (axis.images[0].get_array() for axis in figure.axes if axis.images)
    assert image.shape == truth.shape == predicted.shape
    # The same object has the same colour in both.
    assert np.mean(np.all(truth == predicted, axis=-1)) > 0.9
    assert what_is_in_the_way(figure) == []


def test_without_the_data_set_the_score_alone_is_shown(small_networks, monkeypatch):
    camvid_is_absent(monkeypatch)
    figure = posters.poster("fcn")
    assert not any(axis.images for axis in figure.axes) and "(fcn8-camvid-small)" in words(figure)


def test_predicted_objects_are_numbered_as_the_true_ones_that_they_lie_on():
    truth, predicted = np.zeros((2, 4, 6), "int32")
    truth[:2, :2], truth[:2, 4:] = 1, 2
    predicted[:2, 4:], predicted[:, 1], predicted[3, 3:] = 1, 2, 3
    found = posters._numbered_as(truth, predicted)
    assert found[0, 5] == 2 and found[0, 1] == 1 and found[3, 4] > 2


@pytest.mark.slow
def test_posters_are_written_as_svg_and_pdf_and_always_the_same(
    tmp_path, small_networks, models, monkeypatch
):
    camvid_is_absent(monkeypatch)
    written = list(posters.write(tmp_path / "a"))
    assert [path.name for path in written] == [f"{name}.{kind}" for name in models for kind in ("svg", "pdf")]
    for name, model in models.items():
        page = (tmp_path / "a" / f"{name}.svg").read_text(encoding="utf8")
        assert f"{model.count_params():,}" in svg_words(page)
        assert page.count("<image") == (
            0 if name in ("fcn", "deeplab") else 3
        )  # CamVid is not on every machine
        assert posters.POSTERS[name].source[:40] in svg_words(page)
        document = (tmp_path / "a" / f"{name}.pdf").read_bytes()
        assert document.startswith(b"%PDF") and len(re.findall(rb"/Type /Page\b", document)) == 1
        assert b"CreationDate" not in document
    again = list(posters.write(tmp_path / "b", ["unet"]))
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in written[:2]]
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["unet.pdf", "unet.svg"]


@pytest.mark.slow
def test_a_posters_numbers_are_the_models(models):
    from course_lib.models.analysis import costs, receptive_field

    drawn = words(posters.poster("unet", models["unet"]))
    assert f"{costs(models['unet']).multiply_adds / 1e6:,.1f} million" in drawn
    side = receptive_field(models["unet"]).size[0]
    assert f"{side} × {side} pixels" in drawn
    drawn = words(posters.poster("deeplab", models["deeplab"], (96, 128)))
    assert "the whole image" in drawn and "96 × 128 × 3" in drawn


def test_the_published_networks_are_those_of_the_posters():
    assert drawings.read_unet(posters.as_published("unet")) == drawings.unet_plan(padding="valid")


def test_the_command_writes_posters_and_names_them(tmp_path, small_networks, capsys):
    out = tmp_path / "out"
    assert main(["posters", "fcn", "--out", str(out), "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:-1] == json.loads(lines[-1])["posters"] == [str(out / "fcn.svg"), str(out / "fcn.pdf")]
    assert sorted(path.name for path in out.iterdir()) == ["fcn.pdf", "fcn.svg"]
    assert main(["posters", "vgg", "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert "there are posters of unet, fcn, deeplab, mask-rcnn" in said and said.count("\n") == 1


def test_an_unknown_poster_is_named_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="name is 'vgg'; there are posters of unet, fcn, deeplab, mask-rcnn"):
        list(posters.write(tmp_path / "out", ["unet", "vgg"]))
    assert not (tmp_path / "out").exists()
