"""A poster of each network: one page, A3 across, with the drawing of the live model, its numbers and how to read it.

Beside the drawing stand an image, its ground truth, and what a network of this kind that the course trained predicts, with
the score on its card.

Vector graphics with real text: sharp on a wall, searchable, and read by programs that read aloud. `python -m course_lib
posters --out DIR` writes them; in a notebook, `poster("unet")` returns the figure, and `architecture.to_svg` of it the
page as SVG.
"""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from course_lib import __version__
from course_lib.datasets.errors import DataError
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
        title, subtitle: at the top; the subtitle says what the network predicts.
        image_size: rows and columns of the image, where the network takes any.
        read: makes the plan of `(model, image_size)`.
        page: width and height of the plan's drawing.
        paint: draws the plan on a canvas of that size.
        numbers: the table, rows of a name and a value, from the model and its plan.
        reading: how to read the drawing, a sentence or two each.
        fills: what the ways of filling a block say.
        source: the paper.
        example: the recipe whose trained network stands beside the drawing.
        score: the entry of its card that is shown, and what that number is.
    """

    title: str
    subtitle: str
    image_size: tuple[int, int] | None
    read: Callable[[Any, Any], Any]
    page: Callable[[Any], tuple[float, float]]
    paint: Callable[[board.Canvas, Any], None]
    numbers: Callable[[Any, Any], list[tuple[str, str]]]
    reading: tuple[str, ...]
    fills: tuple[tuple[board.Look, str], ...]
    source: str
    example: str
    score: tuple[str, str]


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
    published = model is None
    if published:
        model, image_size = as_published(name), image_size or about.image_size
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
    beside = 13.84 if published else right  # where the drawing ends
    scale = min((beside - left) / across, (lower - upper) / down)
    place = (
        (left + beside - scale * across) / 2 / width,
        1 - (upper + lower + scale * down) / 2 / height,
        scale * across / width,
        scale * down / height,
    )
    about.paint(board.Canvas(figure, place, across, down), plan)

    page.arrow((left, 9.2), (right, 9.2), line=0.8, head=0)
    top, line = 9.72, 0.22
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
    say(right, 11.33, f"course_lib {__version__}, MIT licence", SMALLEST, ha="right")
    if published:
        _draw_example(figure, page, about, (14.0, right), upper + 0.25)
    return figure


def _draw_example(
    figure, page: board.Canvas, about: Poster, columns: tuple[float, float], top: float
) -> None:
    """Image, ground truth and prediction below each other, and the measured score; the score alone without the data."""
    import numpy as np

    from course_lib import checkpoints, plot, recipes, segmenter

    recipe = recipes.get(about.example)
    (left, right), (key, what) = columns, about.score
    width = right - left
    try:
        sample = recipe.data("val")[0]
    except DataError:
        shown = {}
    else:
        predicted = segmenter.load(recipe).predict(sample.image)
        truth = sample.semantic if sample.instances is None else sample.instances
        image = np.repeat(sample.image, 3, -1) if sample.image.shape[-1] == 1 else sample.image
        if sample.instances is not None:
            predicted = _numbered_as(truth, predicted)
        labels = {"ground truth": truth, "prediction": predicted}
        shown = {"image": image} | {name: plot.colour_labels(some) for name, some in labels.items()}
    for name, picture in shown.items():
        high = min(width * picture.shape[0] / picture.shape[1], 1.6)
        page.text(left, top, name, 12, ha="left", va="bottom")
        place = (left / PAGE[0], 1 - (top + 0.06 + high) / PAGE[1], width / PAGE[0], high / PAGE[1])
        axis = figure.add_axes(place)
        axis.imshow(picture, interpolation="nearest")
        axis.axis("off")
        top += high + 0.35
    top += 0.1
    page.text(left, top, f"{checkpoints.card(recipe)['val'][key]:.2f}", 26, ha="left", weight="bold")
    for line, words in enumerate(textwrap.wrap(what, 24) + [f"({about.example})"]):
        page.text(left, top + 0.4 + 0.2 * line, words, SMALLEST, ha="left")


def _numbered_as(truth, predicted):
    """Instances with the number, hence the colour, of the true object that most of their pixels lie on."""
    import numpy as np

    matched = np.zeros_like(predicted)
    for number in range(1, predicted.max() + 1):
        below = np.bincount(truth[predicted == number])
        below[:1] = 0
        matched[predicted == number] = below.argmax() if below.any() else truth.max() + number
    return matched


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
    rows.append(("receptive field of a logit", _pixels(model)))
    if without:
        rows.append(("without image pooling", _pixels(model, **without)))
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


def as_published(name: str):
    """The network of a poster as it was published."""
    from course_lib import models
    from course_lib.models import mask_rcnn

    return {
        "unet": lambda: models.unet((572, 572, 1), 2, padding="valid", name="unet"),
        "fcn": lambda: models.fcn((500, 500, 3), padding="paper"),
        "deeplab": lambda: models.deeplab((513, 513, 3)),
        "mask-rcnn": lambda: mask_rcnn.published("COCO_V1"),
    }[name]()


POSTERS = {
    "unet": Poster(
        title="U-Net",
        subtitle="A class for every pixel: the encoder finds what, the decoder where, skip connections bring the detail.",
        image_size=None,
        read=lambda model, _: unet.read_unet(model),
        page=unet.unet_page,
        paint=unet.paint_unet,
        numbers=_semantic,
        reading=(
            "Encoder (left, downwards): each step halves the side and doubles the channels.",
            "Decoder (right, upwards): each step doubles the side again.",
            "Skip connections (dashed): feature maps of the encoder are concatenated with those of the decoder.",
            "Convolutions without padding lose the outermost pixels, so the output is smaller than the image.",
        ),
        fills=(
            (board.DOWN, "encoder"),
            (board.DEEP, "bottleneck"),
            (board.UP, "decoder"),
            (board.ANSWER, "image and logits"),
        ),
        source="Ronneberger, Fischer, Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation. MICCAI 2015, "
        "arXiv:1505.04597, figure 1.",
        example="unet-cells",
        score=(
            "iou_foreground",
            "IoU of the foreground on synthetic validation images, by a small U-Net of this course",
        ),
    ),
    "fcn": Poster(
        title="FCN-8s",
        subtitle="A class for every pixel from a classifier: dense layers become convolutions, scores are upsampled.",
        image_size=None,
        read=fcn.read_fcn,
        page=lambda plan: fcn.PAGE,
        paint=fcn.paint_fcn,
        numbers=_semantic,
        reading=(
            "Top: the stages of a classifier. Its dense layers are convolutions (fc6, fc7): it predicts at every location.",
            "Dotted: a 1 × 1 convolution turns a feature map into one score map for each class.",
            "Bottom, right to left: coarse scores are upsampled; the scores of finer maps, cropped to fit, are added.",
            "FCN adds scores; U-Net concatenates features.",
        ),
        fills=(
            (board.DOWN, "stages of the classifier"),
            (board.DEEP, "its dense layers, as convolutions"),
            (board.UP, "upsampled scores"),
            (board.ANSWER, "image, scores, logits"),
        ),
        source="Long, Shelhamer, Darrell: Fully Convolutional Networks for Semantic Segmentation. CVPR 2015, "
        "arXiv:1411.4038.",
        example="fcn8-camvid-small",
        score=(
            "mean_iou",
            "mean IoU on CamVid's validation images, by a small FCN-8s of this course, from scratch",
        ),
    ),
    "deeplab": Poster(
        title="DeepLabV3+",
        subtitle="A class for every pixel: dilated kernels see far without halving, early features sharpen the boundary.",
        image_size=None,
        read=deeplab.read_deeplab,
        page=lambda plan: deeplab.PAGE,
        paint=deeplab.paint_deeplab,
        numbers=lambda model, plan: _semantic(model, plan, without=["aspp_pool"]),
        reading=(
            "The backbone omits its last halving. Its last kernels are spread instead (dilation): the same field of view.",
            "ASPP: five views of one location, from one pixel to the whole image.",
            "Dashed: an early feature map, reduced to few channels, skips to the decoder.",
            "Upsampling has no weights; only the convolutions between are learned.",
            "Drawn with a ResNet-50, without the paper's separable convolutions.",
        ),
        fills=(
            (board.DOWN, "backbone"),
            (board.DEEP, "ASPP"),
            (board.UP, "decoder"),
            (board.ANSWER, "image, scores, logits"),
        ),
        source="Chen, Zhu, Papandreou, Schroff, Adam: Encoder-Decoder with Atrous Separable Convolution for Semantic Image "
        "Segmentation. ECCV 2018, arXiv:1802.02611.",
        example="deeplab-camvid-small",
        score=(
            "mean_iou",
            "mean IoU on CamVid's validation images, by a small DeepLabV3+ of this course, from scratch",
        ),
    ),
    "mask-rcnn": Poster(
        title="Mask R-CNN",
        subtitle="A class, a box and a mask for every object: propose regions, then classify, refine and segment each.",
        image_size=(800, 1280),
        read=lambda model, image_size: mask_rcnn.read_mask_rcnn(model, image_size or (512, 512)),
        page=lambda plan: mask_rcnn.PAGE,
        paint=mask_rcnn.paint_mask_rcnn,
        numbers=_instances,
        reading=(
            "1 computes features at several resolutions. 2 proposes regions. 3 extracts a fixed-size grid for each. "
            "4 predicts its class and box, 5 its mask.",
            "Right of each sum: a 3 × 3 convolution. The image size is an example.",
            "Hexagons: the five losses. They are added, and all parts learn together.",
            "The work of 4 and 5 grows with the number of regions.",
            "91 classes: COCO's numbers up to 90, and background; 364 = 4 × 91.",
        ),
        fills=(
            (board.DOWN, "features"),
            (board.UP, "pyramid, upsampled"),
            (board.DEEP, "dense layers"),
            (board.ANSWER, "image, mask logits"),
        ),
        source="He, Gkioxari, Dollár, Girshick: Mask R-CNN. ICCV 2017, arXiv:1703.06870. Lin et al.: Feature Pyramid "
        "Networks for Object Detection. CVPR 2017, arXiv:1612.03144.",
        example="maskrcnn-scenes",
        score=(
            "mask_ap",
            "mask AP as in COCO on synthetic validation scenes, by a small Mask R-CNN of this course",
        ),
    ),
}
"""By name: what is drawn, and what stands beside it."""
