"""Mask R-CNN drawn from the live model: its five parts, what goes from each to the next, and where its losses arise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from course_lib.teaching.drawings.canvas import (
    ANSWER,
    CLIMB,
    CONVOLUTION,
    DEEP,
    DOWN,
    PLAIN,
    POINTWISE,
    POOL,
    SKIP,
    UP,
    Canvas,
    Level,
    Look,
    blocks_of,
    titled,
)

if TYPE_CHECKING:
    from course_lib.models.mask_rcnn import MaskRCNN, Settings

PAGE = (12.0, 6.65)
"""Width and height of the drawing in its own inches."""
LOSS = Look("#F7EFA0")
STEP = 0.9
"""From one level of the pyramid to the next, in inches of the drawing."""


@dataclass(frozen=True)
class MaskRCNNPlan:
    """All that a drawing of a Mask R-CNN shows.

    Attributes:
        name: of the model.
        image: the image.
        body, pyramid: the maps C2 … C5 of the backbone, and P2 … P5 and `pool` of the pyramid, from the finest.
        blocks: number of blocks in each of the four stages of the backbone.
        anchors: number of anchors on all levels together.
        rpn: channels in, number of 3 × 3 convolutions, channels of the objectness and of the box deltas.
        regions: what RoI Align cuts out for the box head, and for the mask head (`None` without one).
        boxes: number of 3 × 3 convolutions, units of the dense layers, number of class logits and of box deltas.
        masks: number of 3 × 3 convolutions, the map after the up-convolution, the logits; `None` without a mask head.
        losses: each loss and its weight in the sum.
        parameters: number of all weights, in all (`"all"`) and of `"backbone"`, `"fpn"`, `"rpn_head"`, `"box_head"`,
            `"mask_head"`.
        settings: the model's.
    """

    name: str
    image: Level
    body: tuple[Level, ...]
    pyramid: tuple[Level, ...]
    blocks: tuple[int, ...]
    anchors: int
    rpn: tuple[int, int, int, int]
    regions: tuple[Level, Level | None]
    boxes: tuple[int, tuple[int, ...], int, int]
    masks: tuple[int, Level, Level] | None
    losses: dict[str, float]
    parameters: dict[str, int]
    settings: Settings


def read_mask_rcnn(model: MaskRCNN, image_size: tuple[int, int] = (512, 512)) -> MaskRCNNPlan:
    """The plan of a Mask R-CNN, read off the live model; nothing is run.

    Args:
        model: a `models.mask_rcnn.MaskRCNN`.
        image_size: rows and columns of the image; the model takes any.

    Raises:
        ValueError: if the model has not the five parts.
    """
    import keras

    parts = ("backbone", "fpn", "rpn_head", "box_head")
    if not all(hasattr(model, part) for part in (*parts, "mask_head", "settings")):
        raise ValueError(
            f"model is {getattr(model, 'name', model)!r}, without backbone, fpn, rpn_head, box_head and mask_head; "
            "give a MaskRCNN."
        )
    image = keras.KerasTensor((1, *image_size, model.channels))
    body = model.backbone.compute_output_spec(image)
    pyramid = list(model.fpn.compute_output_spec(body))
    objectness, deltas = model.rpn_head.compute_output_spec(pyramid[0])
    fine = len(body)
    names = [f"P{k}" for k in range(2, 2 + fine)] + ["pool"] * (len(pyramid) - fine)
    layers = [layer.name.removeprefix("backbone-body-") for layer in model.backbone.layers]

    def region(inputs) -> Level:
        return Level("region", *inputs[1:])

    def convolutions(part) -> list:
        return [
            layer for layer in part.layers if type(layer).__name__ == "Conv2D" and layer.kernel_size == (3, 3)
        ]

    logits, moves = model.box_head.output_shape
    masks = None
    if model.mask_head is not None:
        (enlarged,) = [layer for layer in model.mask_head.layers if type(layer).__name__ == "Conv2DTranspose"]
        masks = (
            len(convolutions(model.mask_head)),
            Level("enlarged", *enlarged.output.shape[1:]),
            Level("masks", *model.mask_head.output_shape[1:]),
        )
        parts = (*parts, "mask_head")
    # The last layers of the box head are the two answers.
    dense = [layer.units for layer in model.box_head.layers if type(layer).__name__ == "Dense"][:-2]
    return MaskRCNNPlan(
        name=model.name,
        image=Level("image", *image_size, model.channels),
        body=tuple(Level(f"C{k}", *level.shape[1:]) for k, level in enumerate(body, start=2)),
        pyramid=tuple(Level(name, *level.shape[1:]) for name, level in zip(names, pyramid, strict=True)),
        blocks=blocks_of(layers),
        anchors=sum(map(len, model.anchors(image_size, {"pyramid": pyramid}))),
        rpn=(
            model.rpn_head.input_shape[-1],
            len(convolutions(model.rpn_head)),
            objectness.shape[-1],
            deltas.shape[-1],
        ),
        regions=(
            region(model.box_head.input_shape),
            None if masks is None else region(model.mask_head.input_shape),
        ),
        boxes=(len(convolutions(model.box_head)), tuple(dense), logits[-1], moves[-1]),
        masks=masks,
        losses=dict(zip(model.loss_names, model.settings.loss_weights, strict=False)),
        parameters={"all": model.count_params()}
        | {part: getattr(model, part).count_params() for part in parts},
        settings=model.settings,
    )


def draw_mask_rcnn(
    model: MaskRCNN | MaskRCNNPlan, image_size: tuple[int, int] = (512, 512), width: float = 12.0
):
    """A Mask R-CNN in its five parts: backbone with pyramid, RPN, RoI Align, box head, mask head; losses in hexagons.

    Without a mask head the fifth part and its loss are not there.

    Args:
        model: a `models.mask_rcnn.MaskRCNN`, or its plan (`read_mask_rcnn`).
        image_size: rows and columns of the image.
        width: of the figure in inches.

    Returns:
        The Matplotlib figure.

    Raises:
        ValueError: if `model` is no Mask R-CNN.
    """
    plan = model if isinstance(model, MaskRCNNPlan) else read_mask_rcnn(model, image_size)
    return titled(plan, plan.parameters["all"], PAGE, paint_mask_rcnn, width)


def paint_mask_rcnn(canvas: Canvas, plan: MaskRCNNPlan, top: float = 0.0) -> None:
    """A Mask R-CNN on a page of size `PAGE`, from `top` inches below its top."""
    bus = _paint_pyramid(canvas, plan, top)
    _paint_rpn(canvas, plan, top, bus)
    _paint_regions(canvas, plan, top, bus)
    _paint_boxes(canvas, plan, top)
    if plan.masks is not None:
        _paint_masks(canvas, plan, top)
    canvas.legend(
        [
            ("right", CONVOLUTION, "on to what comes next"),
            ("right", POINTWISE, "1 × 1 convolution"),
            ("right", CLIMB, "doubles the side"),
            ("right", POOL, "every second row and column"),
            ("plus", {}, "sum"),
            (lambda x, y: _hexagon(canvas, x, y, 0.5), {}, "a loss, where it arises"),
        ],
        top + PAGE[1] - 0.66,
    )


def _part(canvas: Canvas, number: int, name: str, parameters: int | None, box: Sequence[float]) -> None:
    """A frame around one of the five parts: its number, its name, its weights."""
    left, top, right, bottom = box
    canvas.block(left, top, right - left, bottom - top, Look("#F6F6F6"), corner=0.1, line=1.2, zorder=0.5)
    canvas.circle(left + 0.23, top + 0.23, 0.14, facecolor="black")
    canvas.text(left + 0.23, top + 0.23, str(number), 11, color="white", weight="bold")
    canvas.text(left + 0.45, top + 0.23, name, 12, ha="left", weight="bold")
    if parameters is not None:
        canvas.text(right - 0.12, top + 0.23, f"{parameters:,} parameters", 10, ha="right")


def _loss(canvas: Canvas, plan: MaskRCNNPlan, index: int, left: float, y: float) -> float:
    """A loss as a hexagon, from its left corner on; returns where its right corner is."""
    name, weight = list(plan.losses.items())[index]
    wide = 0.078 * len(name) + 0.28
    _hexagon(canvas, left, y, wide, 0.15 if weight == 1 else 0.2)
    canvas.text(left + wide / 2, y, name if weight == 1 else f"{weight:g} ×\n{name}", 10, linespacing=1.0)
    return left + wide


def _hexagon(canvas: Canvas, left: float, y: float, wide: float, half: float = 0.11) -> None:
    from matplotlib.patches import Polygon

    point, right = 0.1, left + wide
    corners = [
        (left, y),
        (left + point, y - half),
        (right - point, y - half),
        (right, y),
        (right - point, y + half),
        (left + point, y + half),
    ]
    canvas.axis.add_patch(
        Polygon(corners, facecolor=LOSS.face, edgecolor="black", linewidth=1.6 * canvas.scale)
    )


def _say(
    canvas: Canvas, left: float, y: float, width: float, words: str, height: float = 0.34, size: float = 10
):
    """Words in a box, from its left edge on, around a height."""
    canvas.block(left, y - height / 2, width, height, PLAIN, corner=0.05)
    canvas.text(left + width / 2, y, words, size, linespacing=1.1)


def _grid(canvas: Canvas, x: float, y: float, cells: int, side: float) -> None:
    """A region cut out to `cells` × `cells`."""
    canvas.middle(x, y, side, side, DOWN)
    for k in range(1, cells):
        at = side * (k / cells - 0.5)
        canvas.arrow((x + at, y - side / 2), (x + at, y + side / 2), line=0.5, head=0)
        canvas.arrow((x - side / 2, y + at), (x + side / 2, y + at), line=0.5, head=0)


def _paint_pyramid(canvas: Canvas, plan: MaskRCNNPlan, top: float) -> tuple[float, float, float]:
    """Part 1. Returns where the pyramid's maps are handed on: x, and from which to which height."""
    weights = plan.parameters["backbone"] + plan.parameters["fpn"]
    _part(canvas, 1, "backbone + FPN", weights, (0.1, top + 0.05, 4.75, top + 5.9))
    first, inner, last = 1.15, 2.5, 3.55
    rows = {level.name[1:]: top + 4.68 - STEP * k for k, level in enumerate(plan.body)}
    tall, label = 0.26, 0.06

    def wide(k: int) -> float:
        return 1.7 - 0.27 * k

    for k, (level, blocks) in enumerate(zip(plan.body, plan.blocks, strict=True)):
        y = rows[level.name[1:]]
        canvas.middle(first, y, wide(k), tall, DOWN)
        canvas.text(first, y + tall / 2 + label, f"{level.name}: {level}", 10, va="top")
        below = y + STEP - tall / 2
        canvas.arrow((first, below - 0.03), (first, y + tall / 2 + 0.27), **CONVOLUTION)
        canvas.text(first + 0.1, below - 0.27, f"{blocks} block" + "s" * (blocks > 1), 10, ha="left")
    y = top + 5.58
    canvas.middle(first, y, 1.7, tall, ANSWER)
    canvas.text(first + 0.95, y, f"image: {plan.image}", 10, ha="left")
    for k, level in reversed(list(enumerate(plan.pyramid))):
        if level.name == "pool":
            continue
        y = rows[level.name[1:]]
        canvas.middle(last, y, 1.35 - 0.2 * k, tall, UP)
        canvas.text(last, y + tall / 2 + label, f"{level.name}: {level}", 10, va="top")
        coarsest = k == len(plan.body) - 1
        edge = inner if coarsest else inner - 0.14
        canvas.arrow(
            (first + wide(k) / 2 + 0.03, y), (edge, y), **(POINTWISE | ({"head": 0} if coarsest else {}))
        )
        if coarsest:
            canvas.circle(inner, y, 0.045, facecolor="black")
        else:
            canvas.plus(inner, y, 0.12)
            canvas.arrow(
                (inner, y - STEP + (0.05 if k == len(plan.body) - 2 else 0.15)), (inner, y - 0.15), **CLIMB
            )
        canvas.arrow(
            (inner + (0.05 if coarsest else 0.14), y), (last - (1.35 - 0.2 * k) / 2 - 0.03, y), **CONVOLUTION
        )
    upper = rows[plan.pyramid[len(plan.body) - 1].name[1:]]
    if plan.pyramid[-1].name == "pool":
        level, y = plan.pyramid[-1], upper - STEP
        canvas.middle(last, y, 0.5, tall, UP)
        canvas.text(last, y + tall / 2 + label, f"pool: {level}", 10, va="top")
        canvas.arrow((last, upper - tall / 2 - 0.03), (last, y + tall / 2 + 0.28), **POOL)
        upper = y
    lower = rows["2"]
    bus = 4.5
    canvas.arrow((bus, upper), (bus, lower), line=2.4, head=0)
    for k, level in enumerate(plan.pyramid):
        y = rows.get(level.name[1:], upper)
        edge = last + (0.25 if level.name == "pool" else (1.35 - 0.2 * k) / 2)
        canvas.arrow((edge, y), (bus, y), line=1.2, head=0)
    return bus, upper, lower


def _paint_rpn(canvas: Canvas, plan: MaskRCNNPlan, top: float, bus: tuple[float, float, float]) -> None:
    """Part 2."""
    settings = plan.settings
    channels, convolutions, objectness, deltas = plan.rpn
    _part(canvas, 2, "RPN, on every level", plan.parameters["rpn_head"], (5.2, top + 0.05, 11.9, top + 1.98))
    y = top + 1.08
    count = "" if convolutions == 1 else f"{convolutions} × "
    canvas.arrow((bus[0], bus[1]), (4.95, bus[1]), (4.95, y), (5.33, y), **CONVOLUTION)
    _say(canvas, 5.35, y, 1.2, f"{count}conv 3 × 3\n{channels} channels", 0.46)
    for index, (offset, words) in enumerate(
        ((-0.25, f"{objectness} objectness logits"), (0.25, f"{deltas} box deltas"))
    ):
        canvas.arrow((6.58, y), (6.88, y + offset), **POINTWISE)
        _say(canvas, 6.9, y + offset, 1.6, words)
        canvas.arrow((8.53, y + offset), (8.72, y + offset), **CONVOLUTION)
        _loss(canvas, plan, index, 8.72, y + offset)
    # Between the two losses: the answers themselves go on, no gradient does.
    canvas.arrow((8.4, y - 0.08), (8.4, y + 0.08), line=1.2, head=0)
    canvas.arrow((8.4, y), (10.37, y), **CONVOLUTION)
    words = f"{plan.anchors:,} anchors,\nbest {settings.rpn_pre_nms_top_n[1]:,} a level,\nNMS {settings.rpn_nms_thresh:g}"
    _say(canvas, 10.39, y, 1.45, words, 0.74)
    canvas.text(
        5.35,
        top + 1.75,
        f"{settings.rpn_batch_size_per_image} anchors teach it, "
        f"at most {100 * settings.rpn_positive_fraction:g} % of them objects "
        f"(IoU ≥ {settings.rpn_fg_iou_thresh:g}),\nbackground below {settings.rpn_bg_iou_thresh:g}. Training: best "
        f"{settings.rpn_pre_nms_top_n[0]:,} a level, {settings.rpn_post_nms_top_n[0]:,} proposals",
        10,
        ha="left",
    )
    lane = top + 2.28
    canvas.arrow((11.15, y + 0.37), (11.15, lane), (6.2, lane), (6.2, top + 2.4), **CONVOLUTION)
    canvas.text(8.8, lane - 0.05, f"{settings.rpn_post_nms_top_n[1]:,} proposals", 10, va="bottom")


def _paint_regions(canvas: Canvas, plan: MaskRCNNPlan, top: float, bus: tuple[float, float, float]) -> None:
    """Part 3."""
    settings = plan.settings
    align = settings.roi_op == "align"
    bottom = 5.9 if plan.masks is not None else 4.2
    _part(canvas, 3, "RoI Align" if align else "RoI Pool", None, (5.2, top + 2.42, 7.2, top + bottom))
    fine = [level.name for level in plan.pyramid if level.name != "pool"]
    y = top + 3.78
    canvas.arrow((bus[0], y), (5.17, y), **CONVOLUTION)
    points = settings.sampling_ratio
    how = f"mean of {points} × {points} points\nin each cell" if align else "largest pixel\nin each cell"
    canvas.text(
        5.33,
        top + 2.8,
        f"cuts each box out of\none of {fine[0]} … {fine[-1]}: P4 if\nabout {settings.canonical_box_size:g} pixels large,\n"
        f"P3 if half of that, …\n{how}",
        10,
        ha="left",
        va="top",
    )
    if plan.masks is None:
        canvas.text(9.8, top + 5.1, "no fifth part: this is Faster R-CNN", 12)
        return
    # A box among the pixels of a map: its cells lie where the box lies, or (RoI Pool) where the pixels do.
    left, upper, pixel = 5.5, top + 4.62, 0.2
    for k in range(8):
        canvas.arrow(
            (left + pixel * k, upper), (left + pixel * k, upper + 5 * pixel), line=0.6, head=0, color="0.6"
        )
    for k in range(6):
        canvas.arrow(
            (left, upper + pixel * k), (left + 7 * pixel, upper + pixel * k), line=0.6, head=0, color="0.6"
        )
    shift = 0.35 if align else 0.0
    box, corner, cells = (4 * pixel, 3 * pixel), (left + (1 + shift) * pixel, upper + (1 + shift) * pixel), 2
    canvas.block(*corner, *box, Look("none"), line=1.8)
    for k in range(1, cells):
        x, y = corner[0] + box[0] * k / cells, corner[1] + box[1] * k / cells
        canvas.arrow((x, corner[1]), (x, corner[1] + box[1]), line=1.4, head=0)
        canvas.arrow((corner[0], y), (corner[0] + box[0], y), line=1.4, head=0)
    if align:
        steps = [(k + 0.5) / (cells * points) for k in range(cells * points)]
        for across in steps:
            for down in steps:
                canvas.circle(
                    corner[0] + box[0] * across, corner[1] + box[1] * down, 0.024, facecolor="black", line=0
                )


def _paint_boxes(canvas: Canvas, plan: MaskRCNNPlan, top: float) -> None:
    """Part 4."""
    settings = plan.settings
    convolutions, units, logits, deltas = plan.boxes
    _part(canvas, 4, "box head", plan.parameters["box_head"], (7.7, top + 2.42, 11.9, top + 4.2))
    y = top + 3.24
    region = plan.regions[0]
    canvas.arrow((7.2, y), (7.82, y), **CONVOLUTION)
    _grid(canvas, 8.1, y, region.rows, 0.5)
    canvas.text(8.12, y + 0.31, str(region), 10, va="top")
    x = 8.35
    pitch = 0.55 / (convolutions + len(units))
    for look in [DOWN] * convolutions + [DEEP] * len(units):
        canvas.block(x + 0.06, y - 0.25, pitch - 0.02, 0.5, look)
        x += pitch
    canvas.text(8.62, y - 0.29, f"dense {units[0]}", 10, va="bottom")
    for index, (offset, words) in enumerate(
        ((-0.25, f"{logits} classes"), (0.25, f"{deltas} deltas")), start=2
    ):
        canvas.arrow((9.0, y), (9.16, y + offset), **CONVOLUTION)
        _say(canvas, 9.18, y + offset, 0.98, words)
        canvas.arrow((10.18, y + offset), (10.34, y + offset), **CONVOLUTION)
        _loss(canvas, plan, index, 10.34, y + offset)
    canvas.text(
        7.85,
        top + 3.92,
        f"{settings.box_batch_size_per_image} regions teach it, "
        f"at most {100 * settings.box_positive_fraction:g} % objects\n"
        f"output: score > {settings.box_score_thresh:g}, NMS {settings.box_nms_thresh:g}, "
        f"{settings.box_detections_per_img} detections",
        10,
        ha="left",
    )


def _paint_masks(canvas: Canvas, plan: MaskRCNNPlan, top: float) -> None:
    """Part 5."""
    convolutions, enlarged, logits = plan.masks
    region = plan.regions[1]
    _part(canvas, 5, "mask head", plan.parameters["mask_head"], (7.7, top + 4.52, 11.9, top + 5.9))
    y = top + 5.22
    canvas.arrow((8.2, top + 4.2), (8.2, top + 4.36), (7.22, top + 4.36), **SKIP)
    canvas.text(8.3, top + 4.36, "trains on objects, predicts for detections", 10, ha="left")
    canvas.arrow((7.2, y), (7.82, y), **CONVOLUTION)
    _grid(canvas, 8.12, y, region.rows, 0.54)
    canvas.text(8.15, y + 0.33, str(region), 10, va="top")
    left = 8.55
    for k in range(convolutions):
        canvas.block(left + 0.13 * k, y - 0.25, 0.13, 0.5, DOWN)
    end = left + 0.13 * convolutions
    canvas.arrow((end + 0.03, y), (9.42, y), **CLIMB)
    canvas.block(9.45, y - 0.3, 0.26, 0.6, UP)
    canvas.text(9.58, y + 0.34, str(enlarged), 10, va="top")
    canvas.arrow((9.74, y), (10.37, y), **POINTWISE)
    canvas.block(10.4, y - 0.3, 0.12, 0.6, ANSWER)
    canvas.text(10.5, y + 0.34, str(logits), 10, va="top")
    canvas.arrow((10.55, y), (10.8, y), **CONVOLUTION)
    _loss(canvas, plan, 4, 10.8, y)
