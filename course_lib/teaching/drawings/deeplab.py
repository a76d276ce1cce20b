"""DeepLabV3+ drawn from the live model: the backbone, five looks at its last map, and a short way back."""

from __future__ import annotations

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
    SKIP,
    UP,
    Canvas,
    Level,
    blocks_of,
    lines,
    read_maps,
    scaled,
    titled,
)

if TYPE_CHECKING:
    import keras

PAGE = (12.0, 6.5)
"""Width and height of the drawing in its own inches."""


@dataclass(frozen=True)
class DeepLabPlan:
    """All that a drawing of a DeepLabV3+ shows.

    Attributes:
        name: of the model.
        maps: of every layer, by its name, for an image of one size; `image` is the image.
        blocks: number of blocks in each of the four stages of the backbone.
        dilations: of the kernels in the last block of each stage.
        rates: of the atrous branches.
        factors: by which the two interpolations enlarge: before the decoder, and at the end.
        parameters: number of all weights.
    """

    name: str
    maps: dict[str, Level]
    blocks: tuple[int, ...]
    dilations: tuple[int, ...]
    rates: tuple[int, ...]
    factors: tuple[int, int]
    parameters: int


def read_deeplab(model: keras.Model, image_size: tuple[int, int] | None = None) -> DeepLabPlan:
    """The plan of a DeepLabV3+, read off the live model.

    Args:
        model: as `models.deeplab` builds it.
        image_size: rows and columns of the image, where the model takes any; 512 of each by default.

    Raises:
        ValueError: if the model has no layers named as `models.deeplab` names them.
    """
    names = [layer.name for layer in model.layers]
    if not {"C2", "C5", "aspp", "decoder_low", "decoder", "logits"} <= set(names):
        raise ValueError(
            f"model: {model.name!r} has no layers called 'aspp' and 'decoder_low'; give one that `deeplab` built."
        )
    blocks = blocks_of(names)
    branches = [name for name in names if name.startswith("aspp_") and name.endswith("_conv")]
    rates = [model.get_layer(name).dilation_rate[0] for name in branches]
    return DeepLabPlan(
        name=model.name,
        maps=read_maps(model, image_size),
        blocks=blocks,
        dilations=tuple(
            model.get_layer(f"layer{stage}-{count - 1}-conv2").dilation_rate[0]
            for stage, count in enumerate(blocks, start=1)
        ),
        rates=tuple(rate for rate in rates if rate > 1),
        factors=(model.get_layer("decoder_up").factor, model.get_layer("logits").factor),
        parameters=model.count_params(),
    )


def draw_deeplab(
    model: keras.Model | DeepLabPlan, image_size: tuple[int, int] | None = None, width: float = 12.0
):
    """A DeepLabV3+: above, from left to right, the backbone and the five branches; below, back to the left, the decoder.

    Heights stand for the rows of a map, on a logarithmic scale; the dots in a branch for the pixels that one kernel reads.

    Args:
        model: as `models.deeplab` builds it, or its plan (`read_deeplab`).
        image_size: as for `read_deeplab`.
        width: of the figure in inches.

    Returns:
        The Matplotlib figure.

    Raises:
        ValueError: if `model` is no DeepLabV3+ of `models.deeplab`.
    """
    plan = model if isinstance(model, DeepLabPlan) else read_deeplab(model, image_size)
    return titled(plan, plan.parameters, PAGE, paint_deeplab, width)


def paint_deeplab(canvas: Canvas, plan: DeepLabPlan, top: float = 0.0) -> None:
    """A DeepLabV3+ on a page of size `PAGE`, from `top` inches below its top."""
    maps = plan.maps
    height = scaled({name: maps[name] for name in ("image", "C2", "C5")}, 0.5, 1.5)
    upper, lane, lower = top + 1.42, top + 3.35, top + 4.65

    def put(x: float, y: float, layer: str, look, width: float = 0.16, name: str = "") -> tuple[float, float]:
        return canvas.map(x, y, maps[layer], height(maps[layer]), width, look, name=name)

    def across(y: float, start: float, end: float, style: dict) -> None:
        gap = 0.04 if end > start else -0.04
        canvas.arrow((start + gap, y), (end - gap, y), **style)

    # The backbone.
    _, right = put(0.55, upper, "image", ANSWER, 0.1, "image")
    stem = "maxpool" if "maxpool" in maps else "relu"
    for index, layer in enumerate((stem, "C2", "C3", "C4", "C5")):
        x = 1.5 + 1.06 * index
        left, end = put(x, upper, layer, DOWN, 0.16 + 0.05 * index, "stem" if layer == stem else layer)
        across(upper, right, left, CONVOLUTION)
        right = end
        if layer != stem:
            count, dilation = plan.blocks[index - 1], plan.dilations[index - 1]
            words = f"{count} block" + "s" * (count > 1) + (f"\ndilation {dilation}" if dilation > 1 else "")
            canvas.text(x, upper - height(maps[layer]) / 2 - 0.27, words, 10, va="bottom", linespacing=1.05)

    # Five looks at the last map.
    kinds = [("1 × 1", 0), *((f"3 × 3, rate {rate}", rate) for rate in plan.rates), ("mean, 1 × 1", None)]
    joined = 9.75
    for index, (words, rate) in enumerate(kinds):
        y = upper + 0.56 * (index - (len(kinds) - 1) / 2)
        canvas.block(6.9, y - 0.24, 2.0, 0.48, PLAIN, corner=0.06)
        _kernel(canvas, 7.17, y, rate, max(plan.rates))
        canvas.text(7.48, y, words, 10.5, ha="left")
        canvas.arrow((right + 0.05, upper), (6.85, y), **CONVOLUTION)
        canvas.arrow((8.93, y), (joined - 0.2, upper + 0.06 * (index - 2)), line=1.2, head=0)
    one = maps[f"aspp_{plan.rates[0]}"]
    canvas.text(7.9, upper + 0.28 * len(kinds) + 0.02, f"ASPP: each {one}", 10, va="top")
    start, end = put(joined, upper, "aspp_branches", DEEP, 0.4)
    top_edge = upper - height(maps["aspp_branches"]) / 2 - 0.06
    canvas.text(
        start, top_edge, "concatenate", 10, ha="left", va="bottom"
    )  # clear of the lines from the left
    left, _ = put(11.1, upper, "aspp", DEEP, 0.26, "aspp")
    across(upper, end, left, POINTWISE)

    # Back: the early map goes past, the late one is enlarged, both go on together.
    canvas.arrow(
        (2.56, upper + height(maps["C2"]) / 2 + 0.12 + 0.17 * lines(maps["C2"])),
        (2.56, lane - height(maps["decoder_low"]) / 2 - 0.27),
        **POINTWISE,
    )
    _, right = put(2.56, lane, "decoder_low", DOWN, 0.1, "decoder_low")
    up = height(maps["decoder_up"])
    canvas.arrow((right + 0.04, lane), (9.5, lane), (9.5, lower - up / 2 - 0.27), **SKIP)
    canvas.text((right + 9.5) / 2, lane - 0.07, "an early feature map skips all of this", 10, va="bottom")
    canvas.arrow(
        (11.1, upper + height(maps["aspp"]) / 2 + 0.12 + 0.17 * lines(maps["aspp"])),
        (11.1, lower - up / 2 - 0.06),
        **CLIMB,
    )
    canvas.text(11.2, (upper + lower) / 2 + 0.1, f"× {plan.factors[0]}", 11, ha="left")
    left, _ = put(11.1, lower, "decoder_up", UP, 0.26)
    low, high = 0.1, 0.26
    skip = maps["decoder_skip"]
    canvas.block(9.5 - (low + high) / 2, lower - up / 2, low, up, DOWN)
    canvas.map(9.5 + low / 2, lower, skip, up, high, UP)
    canvas.text(9.5, lower - up / 2 - 0.06, "concatenate", 10, va="bottom")
    across(lower, left, 9.5 + (low + high) / 2, CONVOLUTION | {"head": 9})
    right = 9.5 - (low + high) / 2
    for x, layer, width, look, style, name in (
        (8.05, "decoder_a", 0.26, UP, CONVOLUTION, "3 × 3"),
        (6.6, "decoder", 0.26, UP, CONVOLUTION, "3 × 3"),
        (5.0, "scores", 0.1, ANSWER, POINTWISE, "scores"),
        (1.0, "logits", 0.1, ANSWER, CLIMB, "logits"),
    ):
        left, end = put(x, lower, layer, look, width, name)
        across(lower, right, end, style)
        if style is CLIMB:
            canvas.text((right + end) / 2, lower - 0.1, f"× {plan.factors[1]}", 11, va="bottom")
        right = left
    canvas.legend(
        [
            (DOWN, {}, "backbone: C2 … C5"),
            (DEEP, {}, "ASPP: one location at five scales"),
            (UP, {}, "decoder"),
            ("right", CONVOLUTION, "convolutions"),
            ("right", POINTWISE, "1 × 1 convolution"),
            ("right", CLIMB, "bilinear interpolation"),
        ],
        top + PAGE[1] - 0.68,
    )


def _kernel(canvas: Canvas, x: float, y: float, rate: int | None, most: int) -> None:
    """The pixels of the map that one kernel reads; `None`: all of them."""
    if rate is None:
        canvas.middle(x, y, 0.36, 0.36, DOWN)
        return
    reach = 0.05 + 0.13 * rate / most if rate else 0.0
    for across in (-reach, 0, reach) if rate else (0,):
        for down in (-reach, 0, reach) if rate else (0,):
            canvas.circle(x + across, y + down, 0.022, facecolor="black", line=0)
