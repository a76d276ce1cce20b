"""A poster of each network: one page, A3 across, with the drawing of the live model, its numbers and how to read it.

Vector graphics with real text: sharp on a wall, searchable, and read by programs that read aloud. `python -m course_lib
posters --out DIR` writes them; in a notebook, `poster("unet")` returns the figure, and `architecture.to_svg` of it the
page as SVG.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from course_lib.files import write_atomically
from course_lib.teaching.drawings import canvas as board
from course_lib.teaching.drawings import deeplab, fcn, mask_rcnn, to_pdf, to_svg, unet

PAGE = (16.54, 11.69)
"""A3, across, in inches."""
SMALLEST = 11
"""Size in points of the smallest words on a poster."""


@dataclass(frozen=True)
class Poster:
    """What stands on a poster beside what is read off the model.

    Attributes:
        title, subtitle: at the top; the subtitle says what the network answers.
        build: makes the network as published.
        image_size: rows and columns of the image, where the network takes any.
        read: makes the plan of `(model, image_size)`.
        page: width and height of the plan's drawing.
        paint: draws the plan on a canvas of that size.
        numbers: the table, rows of a name and a value, from the model and its plan.
        reading: how to read the drawing, a sentence or two each.
        fills: what the ways of filling a block say.
        source: the paper.
    """

    title: str
    subtitle: str
    build: Callable[[], Any]
    image_size: tuple[int, int] | None
    read: Callable[[Any, Any], Any]
    page: Callable[[Any], tuple[float, float]]
    paint: Callable[[board.Canvas, Any], None]
    numbers: Callable[[Any, Any], list[tuple[str, str]]]
    reading: tuple[str, ...]
    fills: tuple[tuple[board.Look, str], ...]
    source: str


def poster(name: str, model=None, image_size: tuple[int, int] | None = None):
    """The poster of a network as a figure.

        >>> figure = poster("unet")                                       # the published one
        >>> figure = poster("unet", unet((64, 64, 1), depth=2))           # one of your own

    Args:
        name: one of `POSTERS`.
        model: to draw in place of the published network; of the same kind.
        image_size: rows and columns of the image, where the model takes any.

    Returns:
        The Matplotlib figure, A3 across.

    Raises:
        ValueError: for another name, or a model of another kind.
    """
    import matplotlib.pyplot as plt

    about = _find(name)
    if model is None:
        model, image_size = about.build(), image_size or about.image_size
    plan = about.read(model, image_size)
    numbers = about.numbers(model, plan)
    figure = plt.figure(figsize=PAGE, layout="none")
    width, height = PAGE
    page = board.Canvas(figure, (0, 0, 1, 1), width, height)
    left, right = 0.6, width - 0.6
    page.text(left, 0.55, about.title, 34, ha="left", weight="bold")
    page.text(left, 1.05, about.subtitle, 16, ha="left")
    page.text(right, 0.55, f"{numbers[0][1]} {numbers[0][0]}", 20, ha="right")

    upper, lower = 1.25, 9.1
    across, down = about.page(plan)
    scale = min((right - left) / across, (lower - upper) / down)
    place = (
        (width - scale * across) / 2 / width,
        1 - (upper + lower + scale * down) / 2 / height,
        scale * across / width,
        scale * down / height,
    )
    about.paint(board.Canvas(figure, place, across, down), plan)

    page.arrow((left, 9.2), (right, 9.2), line=0.8, head=0)
    top, line = 9.73, 0.21
    first, second, third = left, 5.65, 12.6

    def say(x: float, y: float, words: str, size: float = 12, **style) -> None:
        page.text(x, y, words, size, **({"ha": "left", "va": "baseline"} | style))

    for x, words in ((first, "In numbers"), (second, "How to read it"), (third, "Blocks")):
        say(x, 9.47, words, 14, weight="bold")
    for index, (what, value) in enumerate(numbers):
        say(first, top + line * index, what)
        say(5.2, top + line * index, value, ha="right")
    wrapped = [textwrap.wrap(sentences, 73) for sentences in about.reading]
    for index, (first_line, words) in enumerate(
        (k == 0, line) for part in wrapped for k, line in enumerate(part)
    ):
        if first_line:
            say(second, top + line * index, "·")
        say(second + 0.13, top + line * index, words)
    for index, (look, words) in enumerate(about.fills):
        y = top + 0.29 * index
        page.block(third, y - 0.15, 0.4, 0.2, look)
        say(third + 0.52, y, words)
    say(left, 11.33, about.source, SMALLEST)
    return figure


def write(folder: Path, names: Sequence[str] | None = None) -> Iterator[Path]:
    """Writes posters as SVG and as PDF, each whole or not at all; the same network gives the same bytes.

    Args:
        folder: where the files go; it is made if it is missing.
        names: of `POSTERS`; all by default.

    Yields:
        The path of each file once it is there.

    Raises:
        ValueError: for a name that is none of `POSTERS`, before anything is written.
    """
    import matplotlib.pyplot as plt

    names = list(names or POSTERS)
    for name in names:
        _find(name)
    for name in names:
        with plt.style.context("default"):
            figure = poster(name)
            pages = {
                "svg": to_svg(figure, POSTERS[name].title).encode(),
                "pdf": to_pdf(figure, POSTERS[name].title),
            }
            plt.close(figure)
        for kind, content in pages.items():
            path = Path(folder) / f"{name}.{kind}"
            write_atomically(path, content)
            yield path


def _find(name: str) -> Poster:
    if name not in POSTERS:
        raise ValueError(f"name is {name!r}; there are posters of {', '.join(POSTERS)}.")
    return POSTERS[name]


# The numbers


def _count(number: int) -> str:
    return f"{number:,}"


def _billions(multiply_adds: int) -> str:
    return (
        f"{multiply_adds / 1e9:,.1f} billion"
        if multiply_adds >= 1e8
        else f"{multiply_adds / 1e6:,.1f} million"
    )


def _pixels(model, **arguments) -> str:
    from course_lib.models.analysis import receptive_field

    rows, columns = receptive_field(model, **arguments).size
    return "the whole image" if rows is None else f"{rows} × {columns} pixels"


def _weights(model) -> list[tuple[str, str]]:
    import numpy as np

    learned = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    return [("parameters", _count(model.count_params())), ("of these learned", _count(learned))]


def _semantic(model, plan, **without) -> list[tuple[str, str]]:
    """The table of a network that gives every pixel a class."""
    from course_lib.models.analysis import costs

    image, logits = plan.maps["image"], plan.maps["logits"]
    rows = [*_weights(model), ("image", str(image)), ("logits", str(logits))]
    if image.rows is not None and image.columns is not None:
        work = costs(model, (image.rows, image.columns)).multiply_adds
        rows.append(("multiply-adds", _billions(work)))
    rows.append(("a logit can depend on", _pixels(model)))
    if without:
        rows.append(("without image pooling on", _pixels(model, **without)))
    return rows


def _instances(model, plan) -> list[tuple[str, str]]:
    """The table of a Mask R-CNN: the work on the whole image, and that on what was found."""
    import keras

    from course_lib.models.analysis import costs

    image = keras.Input((plan.image.rows, plan.image.columns, plan.image.channels))
    answers = [model.rpn_head(level) for level in model.fpn(model.backbone(image))]
    whole = costs(keras.Model(image, answers)).multiply_adds
    proposals, detections = plan.settings.rpn_post_nms_top_n[1], plan.settings.box_detections_per_img
    rows = [
        *_weights(model),
        ("image", str(plan.image)),
        ("multiply-adds: parts 1 and 2", _billions(whole)),
        (f"part 4, {proposals:,} regions", _billions(proposals * costs(model.box_head).multiply_adds)),
    ]
    if plan.masks is not None:
        work = detections * costs(model.mask_head).multiply_adds
        rows.append((f"part 5, {detections:,} regions", _billions(work)))
    return rows


# The posters


def _published_unet():
    from course_lib.models.unet import unet

    return unet((572, 572, 1), 2, padding="valid", name="unet")


def _published_fcn():
    from course_lib.models.fcn import fcn

    return fcn((500, 500, 3), padding="paper")


def _published_deeplab():
    from course_lib.models.deeplab import deeplab

    return deeplab((513, 513, 3))


def _published_mask_rcnn():
    from course_lib.models.mask_rcnn import published

    return published("COCO_V1")


POSTERS = {
    "unet": Poster(
        title="U-Net",
        subtitle="A class for every pixel, learned from few images: down for what, up for where, across for the detail.",
        build=_published_unet,
        image_size=None,
        read=lambda model, _: unet.read_unet(model),
        page=unet.unet_page,
        paint=unet.paint_unet,
        numbers=_semantic,
        reading=(
            "Left, downwards: what is in the image. Each step halves the side and doubles the channels.",
            "Right, upwards: where it is. Each step doubles the side again.",
            "Dashed, across: the left side's detail, joined to the map on the right.",
            "A convolution without padding loses the outermost pixels: then the answer is smaller than the image.",
        ),
        fills=(
            (board.DOWN, "encoder, on the way down"),
            (board.DEEP, "bottleneck"),
            (board.UP, "decoder, on the way up"),
            (board.ANSWER, "image and logits"),
        ),
        source="Ronneberger, Fischer, Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation. MICCAI 2015, "
        "arXiv:1505.04597, figure 1.",
    ),
    "fcn": Poster(
        title="FCN-8s",
        subtitle="A class for every pixel, from a classifier: dense layers become convolutions, scores are made dense.",
        build=_published_fcn,
        image_size=None,
        read=fcn.read_fcn,
        page=lambda plan: fcn.PAGE,
        paint=fcn.paint_fcn,
        numbers=_semantic,
        reading=(
            "Above: a classifier's stages. Its dense layers are convolutions (fc6, fc7), so it answers at every place.",
            "Dotted: a 1 × 1 convolution turns a map into scores, one a class.",
            "Below, from right to left: coarse scores made denser; those of finer maps are added, for where things end.",
            "Added are scores, not features: that is what the U-Net changed.",
        ),
        fills=(
            (board.DOWN, "stages of the classifier"),
            (board.DEEP, "its dense layers, as convolutions"),
            (board.UP, "scores made denser"),
            (board.ANSWER, "image, scores, logits"),
        ),
        source="Long, Shelhamer, Darrell: Fully Convolutional Networks for Semantic Segmentation. CVPR 2015, "
        "arXiv:1411.4038.",
    ),
    "deeplab": Poster(
        title="DeepLabV3+",
        subtitle="A class for every pixel: kernels with holes see far without halving, an early map gives the boundary.",
        build=_published_deeplab,
        image_size=None,
        read=deeplab.read_deeplab,
        page=lambda plan: deeplab.PAGE,
        paint=deeplab.paint_deeplab,
        numbers=lambda model, plan: _semantic(model, plan, without=["aspp_pool"]),
        reading=(
            "The backbone leaves its last halvings out. Its kernels are spread in their place (dilation), and see as far.",
            "ASPP: five looks at one place, from one pixel to the whole image. Dots: the pixels that a kernel reads.",
            "Dashed: one early map, of few channels, goes past all that.",
            "The answer is interpolated twice; nothing on the way up is learned but what stands between.",
        ),
        fills=(
            (board.DOWN, "backbone"),
            (board.DEEP, "ASPP"),
            (board.UP, "decoder"),
            (board.ANSWER, "image, scores, logits"),
        ),
        source="Chen, Zhu, Papandreou, Schroff, Adam: Encoder-Decoder with Atrous Separable Convolution for Semantic Image "
        "Segmentation. ECCV 2018, arXiv:1802.02611.",
    ),
    "mask-rcnn": Poster(
        title="Mask R-CNN",
        subtitle="A class, a box and a mask for every object: first where one may be, then what it is and which pixels.",
        build=_published_mask_rcnn,
        image_size=(800, 1280),
        read=lambda model, image_size: mask_rcnn.read_mask_rcnn(model, image_size or (512, 512)),
        page=lambda plan: mask_rcnn.PAGE,
        paint=mask_rcnn.paint_mask_rcnn,
        numbers=_instances,
        reading=(
            "1 describes the image, in pixels of several sizes. 2 says where something may be. 3 cuts it out. "
            "4 says what it is and moves the box. 5 says which pixels belong to it.",
            "Hexagons: the losses. They are added up, and all parts learn at the same time.",
            "4 and 5 see one region at a time: their work grows with the number of regions, that of 1 and 2 does not.",
        ),
        fills=(
            (board.DOWN, "features"),
            (board.UP, "pyramid, enlarged"),
            (board.DEEP, "dense layers"),
            (board.ANSWER, "image, mask logits"),
        ),
        source="He, Gkioxari, Dollár, Girshick: Mask R-CNN. ICCV 2017, arXiv:1703.06870. Lin et al.: Feature Pyramid "
        "Networks for Object Detection. CVPR 2017, arXiv:1612.03144.",
    ),
}
"""By name: what is drawn, and what stands beside it."""
